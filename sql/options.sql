-- Options and what is wrong with them. A NULL option is the default.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;

SELECT qwen_infer('a', mode => NULL, on_error => NULL, max_tokens => NULL, temperature => NULL, top_p => NULL,
                  top_k => NULL, seed => NULL, stop => NULL, thinking => NULL, system => NULL) IS NOT NULL
       AS answered;

\set VERBOSITY default
SELECT qwen_infer('a', task => 'no such task');
SELECT qwen_logprob('a', task => 'no such task');
SELECT qwen_infer('a', mode => 'fast');
SELECT qwen_infer('a', mode => '');
SELECT qwen_infer('a', on_error => 'ignore');
SELECT qwen_infer('a', max_tokens => 0);
SELECT qwen_infer('a', max_tokens => -1);
SELECT qwen_infer('a', temperature => -0.1);
SELECT qwen_infer('a', temperature => 'NaN');
SELECT qwen_infer('a', temperature => 'Infinity');
SELECT qwen_infer('a', top_p => 0);
SELECT qwen_infer('a', top_p => 1.01);
SELECT qwen_infer('a', top_p => 'NaN');
SELECT qwen_infer('a', top_k => -1);
SELECT qwen_infer('a', stop => ARRAY['x', NULL]);
SELECT qwen_infer('a', stop => ARRAY['x', '']);
SELECT qwen_infer('a', thinking => true, mode => 'efficient');
-- the other functions check the same
SELECT qwen_infer(ARRAY['a'], mode => 'fast');
SELECT qwen_infer_details('a', mode => 'fast');
SELECT qwen_stream('a', mode => 'fast');
SELECT qwen_logprob('a', mode => 'fast');
-- mistakes in the query are no errors of a row
SELECT qwen_infer('a', mode => 'fast', on_error => 'null');
SELECT qwen_infer(NULL, mode => 'fast');
SELECT qwen_detokenize(ARRAY[1, NULL]);
SELECT qwen_detokenize(ARRAY[[1, 2], [3, 4]]);

-- SQLSTATEs, and errors that name the model's numbers
CREATE FUNCTION pg_temp.try(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text;
    state text;
BEGIN
    EXECUTE query;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, state = RETURNED_SQLSTATE;
    RETURN state || ' ' || regexp_replace(message, '\d+', 'N', 'g');
END
$$;
SELECT pg_temp.try($$SELECT qwen_infer('a', task => 'x')$$);
SELECT pg_temp.try($$SELECT qwen_infer('a', mode => 'x')$$);
SELECT pg_temp.try($$SELECT qwen_infer(repeat('word ', 300000))$$);
SELECT pg_temp.try($$SELECT qwen_logprob(repeat('word ', 300000))$$);
SELECT pg_temp.try($$SELECT qwen_stream(repeat('word ', 300000))$$);
SELECT pg_temp.try($$SELECT qwen_infer(ARRAY['a', repeat('word ', 300000)], max_tokens => 1)$$);
SELECT pg_temp.try($$SELECT qwen_detokenize(ARRAY[-1])$$);
SELECT pg_temp.try($$SELECT qwen_detokenize(ARRAY[2147483647])$$);

-- on_error => 'null': the row's errors become NULL, and the rest goes on
SELECT i, qwen_infer(CASE i WHEN 2 THEN repeat('word ', 300000) ELSE 'a' END, on_error => 'null', max_tokens => 1)
          IS NULL AS failed
FROM generate_series(1, 3) AS i;
SELECT qwen_logprob(repeat('word ', 300000), on_error => 'null') IS NULL AS failed;
SELECT value IS NULL AS value, error ~ '\d+.*\d+' AS both_lengths, output_tokens IS NULL AS output_tokens
FROM qwen_infer_details(repeat('word ', 300000), on_error => 'null');
SELECT count(*), count(s) FROM qwen_stream(repeat('word ', 300000), on_error => 'null') AS s;

-- counting takes any length
SELECT qwen_count_tokens(repeat('word ', 300000)) >= 300000 AS counted;

-- stop strings and lengths
SELECT value NOT LIKE '%' || left(full_value, 1) || '%' AS stopped, finish
FROM (SELECT qwen_infer('Tell me a story.', max_tokens => 24, temperature => 0) AS full_value) AS f,
     LATERAL qwen_infer_details('Tell me a story.', max_tokens => 24, temperature => 0,
                                stop => ARRAY[left(f.full_value, 1)]);
SELECT bool_and(output_tokens <= n) AS bounded
FROM generate_series(1, 4) AS n, LATERAL qwen_infer_details('Tell me a story.', max_tokens => n);

-- settings
SHOW qwen3dm.mode;
SHOW qwen3dm.max_tokens;
SHOW qwen3dm.timeout;
SHOW qwen3dm.start_timeout;
SET qwen3dm.max_tokens = 3;
SELECT output_tokens <= 3 AS bounded FROM qwen_infer_details('Tell me a story.');
SET qwen3dm.mode = 'efficient';
SELECT mode FROM qwen_infer_details('Tell me a story.');
SELECT mode FROM qwen_infer_details('Tell me a story.', mode => 'precise');
SELECT qwen_infer('a', thinking => true);
RESET qwen3dm.mode;
SET qwen3dm.mode = 'fast';
SET qwen3dm.max_tokens = 0;
SET qwen3dm.nothing = 1;
SET qwen3dm.model = '/etc/passwd';
SET qwen3dm.threads = 1;
SELECT name, context, unit FROM pg_settings WHERE name LIKE 'qwen3dm.%' ORDER BY name;
