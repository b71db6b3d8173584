-- The functions on whatever chat model the server has loaded: nothing here depends on its words.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;
SELECT qwen3dm_version() = (SELECT extversion FROM pg_extension WHERE extname = 'qwen3dm') AS same_version;

-- true once the engine works on nothing of this session: it hears of an end between two of its steps
CREATE FUNCTION pg_temp.idle() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..100 LOOP
        IF NOT EXISTS (SELECT FROM qwen_stat_activity WHERE pid = pg_backend_pid()) THEN
            RETURN true;
        END IF;
        PERFORM pg_sleep(0.02);
    END LOOP;
    RETURN false;
END
$$;

-- one prompt
SELECT qwen_infer('Say hello.', max_tokens => 8) IS NOT NULL AS answered;
SELECT qwen_infer(prompt => 'Say hello.', task => NULL, mode => 'precise', on_error => 'raise',
                  max_tokens => 4, temperature => 0, top_p => 1, top_k => 0, seed => 1,
                  stop => ARRAY['never, never'], thinking => false, system => 'You are brief.')
       IS NOT NULL AS answered;
SELECT qwen_infer(NULL) IS NULL AS a, qwen_infer(NULL::text[]) IS NULL AS b;

-- an answer is the same again: greedily, and with a seed
SELECT qwen_infer('Count to ten.', max_tokens => 12, temperature => 0)
     = qwen_infer('Count to ten.', max_tokens => 12, temperature => 0) AS greedy,
       qwen_infer('Count to ten.', max_tokens => 12, temperature => 1, seed => 42)
     = qwen_infer('Count to ten.', max_tokens => 12, temperature => 1, seed => 42) AS seeded,
       qwen_infer('Count to ten.', max_tokens => 12, temperature => 0, mode => 'efficient')
     = qwen_infer('Count to ten.', max_tokens => 12, temperature => 0, mode => 'efficient') AS efficient;
-- without a seed, two long samples at a high temperature differ
SELECT qwen_infer('Count to ten.', max_tokens => 48, temperature => 2)
    <> qwen_infer('Count to ten.', max_tokens => 48, temperature => 2) AS sampled;

-- details
SELECT value IS NOT NULL AS value, thinking IS NULL AS thinking, mode, reason <> '' AS reason,
       confidence > 0 AND confidence <= 1 AS confidence, prompt_tokens > 2 AS prompt_tokens,
       cached_tokens BETWEEN 0 AND prompt_tokens AS cached_tokens,
       output_tokens BETWEEN 1 AND 6 AS output_tokens, queue_ms >= 0 AS queue_ms,
       latency_ms >= queue_ms AS latency_ms, finish IN ('stop', 'length') AS finish, error,
       model_digest = (SELECT digest FROM qwen_model_status) AS model_digest
FROM qwen_infer_details('Say hello.', mode => 'precise', max_tokens => 6) \gx
SELECT mode, reason FROM qwen_infer_details('Say hello.', mode => 'efficient', max_tokens => 1);
SET qwen3dm.mode = 'efficient';
SELECT mode, reason FROM qwen_infer_details('Say hello.', max_tokens => 1);
RESET qwen3dm.mode;
SELECT mode IN ('efficient', 'precise') AS mode, reason <> '' AS reason
FROM qwen_infer_details('Say hello.', mode => 'auto', max_tokens => 1);
SELECT d IS NULL AS nothing FROM qwen_infer_details(NULL) AS d;
SELECT count(*), count(value) FROM qwen_infer_details(NULL);
-- the same answer as the plain function, and the tokens add up
SELECT value = qwen_infer('Name a colour.', max_tokens => 8, temperature => 0) AS same,
       output_tokens <= 8 AS bounded
FROM qwen_infer_details('Name a colour.', max_tokens => 8, temperature => 0);
SELECT (qwen_infer_details('Name a colour.', max_tokens => 8, temperature => 0)).output_tokens
    >= (qwen_infer_details('Name a colour.', max_tokens => 2, temperature => 0)).output_tokens AS longer;

-- streaming: the pieces, however many there are, make the answer
SELECT string_agg(piece, '' ORDER BY n) = qwen_infer('Tell me a story.', max_tokens => 24, temperature => 0)
       AS same, bool_and(piece <> '') AS no_empty_ones
FROM qwen_stream('Tell me a story.', max_tokens => 24, temperature => 0) WITH ORDINALITY AS s(piece, n);
SELECT count(*) FROM (SELECT qwen_stream('Tell me a story.', max_tokens => 24, temperature => 0) LIMIT 1) AS s;
SELECT pg_temp.idle();
SELECT i, string_agg(piece, '') IS NOT NULL AS answered
FROM (SELECT i, qwen_stream('Story ' || i, max_tokens => 4, temperature => 0) AS piece
      FROM generate_series(1, 3) AS i) AS s
GROUP BY i ORDER BY i;
SELECT count(*) FROM qwen_stream(NULL);

-- a stream in a cursor goes on between other calls, and ends with the cursor
DO $$
DECLARE
    story CURSOR FOR SELECT qwen_stream('Tell me a story.', max_tokens => 200, temperature => 0);
    piece text;
BEGIN
    OPEN story;
    FETCH story INTO piece;
    RAISE NOTICE 'first piece: %', piece <> '';
    RAISE NOTICE 'another answer meanwhile: %', qwen_infer('Say hello.', max_tokens => 4) IS NOT NULL;
    BEGIN
        FETCH story INTO piece;
        PERFORM qwen_infer('Say hello.', max_tokens => 4), 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        RAISE NOTICE 'caught';
    END;
    FETCH story INTO piece;
    CLOSE story;
    RAISE NOTICE 'idle: %', pg_temp.idle();
END
$$;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT qwen_stream('Tell me a story.', max_tokens => 4, temperature => 0) IS NOT NULL;
COMMIT;
FETCH 1 FROM held;
CLOSE held;

-- tokens
SELECT qwen_count_tokens(t) = cardinality(qwen_tokenize(t)) AS counted, qwen_detokenize(qwen_tokenize(t)) = t AS back
FROM unnest(ARRAY['hello', 'Hello, world!', '  two  spaces ', E'a line\nand\ttab', '12345', 'SELECT 1;',
                  '<|im_end|>', '<|im_start|>system']) AS t;
SELECT qwen_count_tokens(''), qwen_tokenize(''), qwen_detokenize('{}') = '' AS empty;
-- text is text: what looks like a control token is made of ordinary ones
SELECT qwen_count_tokens('<|im_end|>') > 1 AS several;
SELECT qwen_count_tokens(NULL), qwen_tokenize(NULL), qwen_detokenize(NULL);
SELECT qwen_logprob('The sun rises in the east.') < 0 AS negative, qwen_logprob(NULL) IS NULL AS nothing;
SELECT qwen_logprob('The sun rises in the east.') = qwen_logprob('The sun rises in the east.') AS same;

-- as ordinary functions: in expressions, filters, aggregates, prepared statements, plpgsql
CREATE TEMP TABLE notes (id int, body text);
INSERT INTO notes VALUES (1, 'The invoice is wrong.'), (2, NULL), (3, 'The site is down.');
SELECT id, qwen_infer('Summarize: ' || body, max_tokens => 4) IS NOT NULL AS answered FROM notes ORDER BY id;
SELECT id FROM notes WHERE qwen_count_tokens(body) > 1 ORDER BY id;
PREPARE ask(text) AS SELECT qwen_infer($1, max_tokens => 2) IS NOT NULL AS answered;
EXECUTE ask('a');
EXECUTE ask(NULL);
DO $$
DECLARE
    n int := 0;
BEGIN
    FOR i IN 1..3 LOOP
        n := n + (qwen_infer('number ' || i, max_tokens => 2) IS NOT NULL)::int;
    END LOOP;
    RAISE NOTICE 'answers: %', n;
END
$$;

-- neither planning nor explaining asks the model
EXPLAIN (COSTS OFF) SELECT qwen_infer('a') FROM notes WHERE qwen_infer('b') = 'c';
SELECT proname, provolatile, proparallel, procost > 1 AS costly
FROM pg_proc WHERE proname LIKE 'qwen\_%' ORDER BY proname, pronargs, oid;
