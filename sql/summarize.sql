-- Summaries, on whatever chat model the server has loaded: nothing here depends on what it knows.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;
SET qwen3dm.max_tokens = 20;

SELECT qwen_summarize('A text.') IS NOT NULL AS answered, qwen_summarize(NULL) IS NULL AS nothing,
       qwen_summarize('A text.') = qwen_summarize('A text.') AS same;
-- far more than the context has room for; and the same again
SELECT qwen_summarize(repeat('many words ', 5000)) IS NOT NULL AS answered,
       qwen_summarize(repeat('many words ', 5000)) = qwen_summarize(repeat('many words ', 5000)) AS same;
-- no spaces to cut at
SELECT qwen_summarize(repeat(U&'\4e2d\6587', 8000)) IS NOT NULL AS answered;
SELECT qwen_summarize('a', mode => 'fast');
SELECT qwen_summarize('a', max_tokens => 0);
SELECT qwen_summarize('a', on_error => 'x');
-- an instruction that leaves no room
SELECT qwen_summarize('a', system => repeat('word ', 300000), on_error => 'null') IS NULL AS skipped;

-- aggregates: NULLs are left out, nothing gives NULL
SELECT qwen_summarize_agg(t) IS NULL AS summary, qwen_reduce_agg(t, 'Count them.') IS NULL AS reduced FROM (VALUES (NULL::text)) AS v(t);
SELECT qwen_summarize_agg(t) IS NULL AS summary FROM (SELECT 'a' WHERE false) AS v(t);
SELECT qwen_summarize_agg(t) = (SELECT qwen_summarize_agg(t) FROM (VALUES ('a'), ('b')) AS w(t)) AS same FROM (VALUES ('a'), (NULL), ('b')) AS v(t);
-- the order counts, and so does the instruction
SELECT qwen_summarize_agg('text ' || i ORDER BY i) = (SELECT qwen_summarize_agg('text ' || i) FROM generate_series(1, 9) AS i) AS same,
       qwen_summarize_agg('text ' || i ORDER BY i) <> qwen_summarize_agg('text ' || i ORDER BY i DESC) AS ordered
FROM generate_series(1, 9) AS i;
-- more than the context has room for
SELECT qwen_summarize_agg('text number ' || i) = (SELECT qwen_summarize_agg('text number ' || i) FROM generate_series(1, 2000) AS i) AS same
FROM generate_series(1, 2000) AS i;
SELECT qwen_reduce_agg(CASE WHEN i % 5 = 0 THEN repeat('long text ', 2000) ELSE 'short text' END, 'List them.') IS NOT NULL AS answered
FROM generate_series(1, 10) AS i;
-- groups, hashed and sorted
SET enable_sort = off;
CREATE TEMP TABLE summarize_hashed AS
SELECT i % 20 AS g, qwen_reduce_agg('text ' || i, 'Sort them.') AS s FROM generate_series(1, 200) AS i GROUP BY 1;
RESET enable_sort;
SET enable_hashagg = off;
SELECT count(*), bool_and(s = s2) AS same
FROM summarize_hashed JOIN (SELECT i % 20 AS g, qwen_reduce_agg('text ' || i, 'Sort them.' ORDER BY i) AS s2 FROM generate_series(1, 200) AS i GROUP BY 1) AS sorted USING (g);
RESET enable_hashagg;
-- mistakes
SELECT qwen_reduce_agg('a', i::text) FROM generate_series(1, 2) AS i;
SELECT qwen_summarize_agg('a') OVER () FROM generate_series(1, 2) AS i;
SELECT qwen_reduce_agg('a', repeat('word ', 30000)) FROM generate_series(1, 2) AS i;
