-- Databases in other encodings: the engine speaks UTF-8.
CREATE DATABASE regress_qwen3dm_utf8 TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_qwen3dm_latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE DATABASE regress_qwen3dm_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C';
SELECT current_database() AS home \gset

\c regress_qwen3dm_utf8
SET client_encoding = 'UTF8';
CREATE EXTENSION qwen3dm;
SELECT qwen_detokenize(qwen_tokenize(t)) = t AS back, qwen_count_tokens(t) > 0 AS counted
FROM (VALUES (U&'\00e9'), (U&'\20ac uro'), (U&'\4e2d\6587'), (U&'\+01f600')) AS v(t);
SELECT qwen_tokenize(U&'\00e9') AS e_acute, qwen_tokenize(U&'\4e2d') AS middle,
       qwen_logprob(U&'Caf\00e9 au lait') AS score,
       qwen_score(U&'Caf\00e9', U&'It is a caf\00e9.', examples => jsonb_build_array(jsonb_build_object('input', U&'th\00e9', 'label', false))) AS truth,
       (SELECT probability FROM qwen_classify_probs(U&'Caf\00e9', jsonb_build_object(U&'th\00e9', U&'du th\00e9', 'x', ''), calibrate => true)
        WHERE label = U&'th\00e9') AS probability \gset
SELECT qwen_infer(U&'\4e2d\6587', max_tokens => 2) IS NOT NULL AS answered;

\c regress_qwen3dm_latin1
CREATE EXTENSION qwen3dm;
SELECT qwen_tokenize(chr(233)) = :'e_acute'::int[] AS same_tokens,
       qwen_detokenize(:'e_acute'::int[]) = chr(233) AS back;
SELECT qwen_logprob('Caf' || chr(233) || ' au lait') = :'score'::float8 AS same_score;
SELECT qwen_detokenize(:'middle'::int[]);
SELECT 'caf' || chr(233) AS cafe, 'th' || chr(233) AS the \gset
SELECT qwen_score('Caf' || chr(233), 'It is a ' || :'cafe' || '.', examples => jsonb_build_array(jsonb_build_object('input', :'the', 'label', false)))
     = :'truth'::float8 AS same_truth;
SELECT qwen_task_create(:'cafe', labels => jsonb_build_object(:'the', 'du ' || :'the', 'x', ''), examples => '[]');
SELECT label = :'the' AS same_label FROM qwen_classify_probs('Caf' || chr(233), task => :'cafe', calibrate => true) WHERE probability = :'probability'::float8;
CREATE TYPE drink AS ENUM (:'cafe', :'the');
SELECT qwen_classify('Caf' || chr(233), NULL::drink, calibrate => true)::text IN (:'cafe', :'the') AS enum,
       qwen_classify('Caf' || chr(233), ARRAY[:'cafe']) = :'cafe' AS "array";

\c regress_qwen3dm_ascii
CREATE EXTENSION qwen3dm;
SELECT qwen_tokenize(convert_from('\xc3a9', 'SQL_ASCII')) = :'e_acute'::int[] AS same_tokens,
       qwen_detokenize(:'e_acute'::int[]) = convert_from('\xc3a9', 'SQL_ASCII') AS back;
-- bytes that are not UTF-8 are an error of the row
SELECT qwen_count_tokens(convert_from('\xe9', 'SQL_ASCII'));
SELECT qwen_infer(convert_from('\xe9', 'SQL_ASCII'));
SELECT qwen_infer(convert_from('\xe9', 'SQL_ASCII'), on_error => 'null') IS NULL AS failed;
SELECT error FROM qwen_infer_details(convert_from('\xe9', 'SQL_ASCII'), on_error => 'null');
SELECT count(*), count(s) FROM qwen_stream(convert_from('\xe9', 'SQL_ASCII'), on_error => 'null') AS s;

\c :home
DROP DATABASE regress_qwen3dm_utf8;
DROP DATABASE regress_qwen3dm_latin1;
DROP DATABASE regress_qwen3dm_ascii;
