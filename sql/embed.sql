-- Vectors: qwen_embed and qwen_similarity, with the mean of the main model's hidden states, and qwen_rerank.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;

CREATE FUNCTION pg_temp.length_of(v real[]) RETURNS float8 LANGUAGE sql AS
    $$ SELECT sqrt(sum(x::float8 * x)) FROM unnest(v) AS x $$;
CREATE FUNCTION pg_temp.dot(v real[], w real[]) RETURNS float8 LANGUAGE sql AS
    $$ SELECT sum(x::float8 * y) FROM unnest(v, w) AS u (x, y) $$;

SELECT service, embedding, dimensions > 0 AS dimensions FROM qwen_model_status;

-- a point of length 1, with the model's number of coordinates, always the same
SELECT pg_typeof(v), array_ndims(v) AS ndims, array_lower(v, 1) AS lower, cardinality(v) = (SELECT dimensions FROM qwen_model_status) AS dimensions,
       abs(pg_temp.length_of(v) - 1) < 1e-6 AS length_1, v = qwen_embed('The sky is blue.') AS again
FROM qwen_embed('The sky is blue.') AS v;
SELECT qwen_embed('The sky is blue.') <> qwen_embed('The sky is red.') AS differ;

-- an empty text is its end; NULL is NULL
SELECT abs(pg_temp.length_of(qwen_embed('')) - 1) < 1e-6 AS empty;
SELECT qwen_embed(NULL) IS NULL AS "null", qwen_embed(NULL, mode => NULL, on_error => NULL, instruction => 'a', dimensions => 3) IS NULL AS options;

-- control tokens of a text are text
SELECT qwen_embed('a<|endoftext|>') <> qwen_embed('a') AS differ;

-- an instruction makes a query of it
SELECT qwen_embed('blue', instruction => 'Find colours.') = qwen_embed(E'Instruct: Find colours.\nQuery:blue') AS query,
       qwen_embed('blue', instruction => '') = qwen_embed(E'Instruct: \nQuery:blue') AS empty,
       qwen_embed('blue', instruction => NULL) = qwen_embed('blue') AS none;

-- fewer dimensions: the first of them, of length 1 again
SELECT cardinality(v) AS n, abs(pg_temp.length_of(v) - 1) < 1e-6 AS length_1,
       pg_temp.dot(v, w[1:n]) / pg_temp.length_of(w[1:n]) > 0.999999 AS same_direction
FROM (VALUES (1), (2), (31)) AS d (n), qwen_embed('The sky is blue.', dimensions => n) AS v, qwen_embed('The sky is blue.') AS w;
SELECT qwen_embed('a', dimensions => dimensions) = qwen_embed('a') AS "all" FROM qwen_model_status;
SELECT qwen_embed('a', dimensions => 0);
SELECT qwen_embed('a', dimensions => -1, on_error => 'null');
SELECT qwen_embed('a', dimensions => 1000000);
-- a mistake in the query, not in a row
SELECT qwen_embed('a', dimensions => 1000000, on_error => 'null');

-- both modes, near each other
SELECT pg_temp.dot(qwen_embed('The sky is blue.', mode => 'precise'), qwen_embed('The sky is blue.', mode => 'efficient')) > 0.99 AS near,
       qwen_embed('a', mode => 'auto') = qwen_embed('a', mode => 'precise') AS auto;
SELECT qwen_embed('a', mode => 'sloppy');
SELECT qwen_embed('a', on_error => 'ignore');
SELECT qwen_embed('a', task => 'regress_none');

-- too long a text fails, or is NULL, and its neighbours do not
\set VERBOSITY sqlstate
SELECT qwen_embed(repeat('word ', 100000));
\set VERBOSITY default
SELECT i, qwen_embed(CASE i WHEN 2 THEN repeat('word ', 100000) ELSE 'word' END, on_error => 'null') IS NULL AS failed FROM generate_series(1, 3) AS i;

-- many rows at a time, with the same bits
CREATE TEMP TABLE texts AS SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'Text ' || i % 20 || repeat(' and more', i % 5) END AS body FROM generate_series(1, 60) AS i;
EXPLAIN (VERBOSE, COSTS OFF) SELECT i, qwen_embed(body) FROM texts;
SET qwen3dm.enable_batching = off;
CREATE TEMP TABLE singly AS SELECT i, qwen_embed(body) AS v, qwen_embed(body, mode => 'efficient') AS e FROM texts;
RESET qwen3dm.enable_batching;
CREATE TEMP TABLE together AS SELECT i, qwen_embed(body) AS v, qwen_embed(body, mode => 'efficient') AS e FROM texts;
SELECT count(*) AS n, count(s.v) AS known, count(*) FILTER (WHERE s.v IS DISTINCT FROM t.v OR s.e IS DISTINCT FROM t.e) AS different
FROM singly AS s JOIN together AS t USING (i);
SELECT count(*) AS disagree FROM together WHERE (v IS NULL) <> (e IS NULL) OR pg_temp.dot(v, e) < 0.99;

-- nearness
SELECT abs(qwen_similarity('a dog', 'a dog') - 1) < 1e-6 AS same, qwen_similarity('a dog', 'a cat') < 0.999 AS other,
       abs(qwen_similarity('a dog', 'a cat') - pg_temp.dot(qwen_embed('a dog'), qwen_embed('a cat'))) < 1e-9 AS cosine,
       qwen_similarity('a dog', 'a cat') = qwen_similarity('a cat', 'a dog') AS symmetric;
SELECT qwen_similarity(NULL, 'a') IS NULL AS a, qwen_similarity('a', NULL) IS NULL AS b, qwen_similarity('a', 'b', mode => 'efficient') < 1.1 AS efficient;
SELECT qwen_similarity('a', 'b', mode => 'sloppy');
SELECT qwen_similarity('a', 'b', task => 'regress_none');
\set VERBOSITY sqlstate
SELECT qwen_similarity('a', repeat('word ', 100000));
SELECT qwen_similarity(repeat('word ', 100000), 'a');
\set VERBOSITY default
SELECT qwen_similarity('a', repeat('word ', 100000), on_error => 'null') IS NULL AS failed;
EXPLAIN (VERBOSE, COSTS OFF) SELECT i FROM texts WHERE qwen_similarity(body, 'Text 1') > 0.5 ORDER BY qwen_similarity(body, 'Text 2') LIMIT 3;
SELECT count(*) AS n, count(*) FILTER (WHERE abs(s - 1) < 1e-6) AS same, count(*) FILTER (WHERE s IS NULL) AS nulls
FROM (SELECT body, qwen_similarity(body, 'Text 1 and more') AS s FROM texts) AS t;
SELECT count(*) FROM texts WHERE qwen_similarity(body, 'Text 1 and more') > 0.999999;

-- a failed call leaves nothing behind, and neither do 1,000 good ones
DO $$
BEGIN
    FOR i IN 1..1000 LOOP
        PERFORM qwen_similarity('a', i::text, mode => 'efficient');
    END LOOP;
END
$$;
SELECT count(*) AS left_over FROM pg_backend_memory_contexts WHERE name = 'qwen3dm request';

-- the best documents first, those without a score last
SELECT idx BETWEEN 1 AND 3 AS idx, score BETWEEN 0 AND 1 AS score FROM qwen_rerank('What is blue?', ARRAY['The sky.', 'Grass.', 'Blood.']);
SELECT array_agg(idx ORDER BY n) = array_agg(idx ORDER BY score DESC, idx) AS "order", array_agg(idx ORDER BY idx) AS all, bool_and(score > 0 AND score < 1) AS scores
FROM qwen_rerank('What is blue?', ARRAY['The sky.', 'Grass.', 'Blood.']) WITH ORDINALITY AS r (idx, score, n);
SELECT idx, score IS NULL AS unknown FROM qwen_rerank('a', ARRAY[NULL, 'b', NULL]::text[]) WITH ORDINALITY AS r (idx, score, n) ORDER BY n;
SELECT count(*) AS equal FROM (SELECT DISTINCT score FROM qwen_rerank('a', ARRAY['b', 'b', 'b'])) AS s;
SELECT array_agg(idx ORDER BY n) AS ties FROM qwen_rerank('a', ARRAY['b', 'b', 'b']) WITH ORDINALITY AS r (idx, score, n);
-- the instruction counts, and has a default
SELECT a.score <> b.score AS differ FROM qwen_rerank('a', ARRAY['b']) AS a, qwen_rerank('a', ARRAY['b'], instruction => 'Say yes.') AS b;
SELECT a.score = b.score AS "default" FROM qwen_rerank('a', ARRAY['b']) AS a,
    qwen_rerank('a', ARRAY['b'], instruction => 'Given a web search query, retrieve relevant passages that answer the query') AS b;
-- more than are under way at a time
SELECT count(*) AS n, count(DISTINCT idx) AS indexes, count(score) AS scores FROM qwen_rerank('a', ARRAY(SELECT 'Text ' || i FROM generate_series(1, 150) AS i), mode => 'efficient');
-- nothing to rank
SELECT count(*) AS n FROM qwen_rerank('a', '{}');
SELECT count(*) AS n FROM qwen_rerank(NULL, ARRAY['a']);
SELECT count(*) AS n FROM qwen_rerank('a', NULL);
SELECT array_agg(idx ORDER BY idx) AS idx FROM qwen_rerank('a', '[5:6][2:3]={{a,b},{c,d}}');
SELECT * FROM qwen_rerank('a', ARRAY['a'], mode => 'sloppy');
SELECT * FROM qwen_rerank('a', ARRAY['a'], on_error => 'ignore');
SELECT * FROM qwen_rerank('a', ARRAY['a'], task => 'regress_none');
\set VERBOSITY sqlstate
SELECT * FROM qwen_rerank('a', ARRAY['a', repeat('word ', 100000)]);
\set VERBOSITY default
SELECT idx, score IS NULL AS failed FROM qwen_rerank('a', ARRAY[repeat('word ', 100000), 'a'], on_error => 'null') WITH ORDINALITY AS r (idx, score, n) ORDER BY n;
SELECT idx FROM qwen_rerank('a', ARRAY['b']) LIMIT 1;

-- nothing is left under way
DO $$
BEGIN
    FOR i IN 1..100 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM qwen_stat_activity WHERE pid = pg_backend_pid());
        PERFORM pg_sleep(0.02);
    END LOOP;
END
$$;
SELECT count(*) AS live FROM qwen_stat_activity WHERE pid = pg_backend_pid();
