-- Labels on whatever chat model the server has loaded: nothing here depends on what it knows.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
DROP ROLE IF EXISTS regress_qwen3dm_user;
RESET client_min_messages;

SELECT qwen_classify('The invoice is wrong.', ARRAY['billing', 'outage', 'spam']) IN ('billing', 'outage', 'spam') AS one_of_them;
SELECT qwen_classify('anything', ARRAY['the only one']);
-- probabilities in the order of the labels; they add up to 1, and the best one is the answer
SELECT array_agg(label ORDER BY n) AS labels, abs(sum(probability) - 1) < 1e-9 AS sum,
       bool_and(probability BETWEEN 0 AND 1) AS "range",
       (array_agg(label ORDER BY probability DESC))[1] = qwen_classify('The site is down.', ARRAY['billing', 'outage', 'out', 'out of it']) AS best
FROM qwen_classify_probs('The site is down.', ARRAY['billing', 'outage', 'out', 'out of it']) WITH ORDINALITY AS p(label, probability, n);
-- the same again, whatever else is asked, and whichever way
SELECT (SELECT array_agg(p) FROM qwen_classify_probs('a', ARRAY['x', 'y'], mode => 'efficient') AS p)
     = (SELECT array_agg(p) FROM qwen_classify_probs('a', ARRAY['x', 'y'], mode => 'efficient') AS p) AS same,
       (SELECT array_agg(p) FROM qwen_classify_probs('a', ARRAY['x', 'y']) AS p)
    <> (SELECT array_agg(p) FROM qwen_classify_probs('b', ARRAY['x', 'y']) AS p) AS the_input_matters,
       (SELECT array_agg(p) FROM qwen_classify_probs('a', ARRAY['x', 'y']) AS p)
    <> (SELECT array_agg(p) FROM qwen_classify_probs('a', ARRAY['x', 'y'], system => 'Which letter is it?') AS p) AS the_system_text_matters;
-- NULL in, NULL out; nothing in, no rows out
SELECT qwen_classify(NULL, ARRAY['a']) IS NULL AS input, qwen_classify('a', NULL) IS NULL AS labels,
       qwen_filter(NULL, 'a') IS NULL AS filter_input, qwen_filter('a', NULL) IS NULL AS condition, qwen_filter('a', 'b', NULL) IS NULL AS threshold;
SELECT count(*) FROM qwen_classify_probs(NULL, ARRAY['a']);
SELECT count(*) FROM qwen_classify_probs('a', NULL);

-- filters: any probability reaches 0, and yes and no share 1
SELECT qwen_filter('The invoice is wrong.', 'it is about money', 0) AS always, qwen_filter('x', 'it is a letter') IS NOT NULL AS answered;
SELECT bool_or(hits.n < 20) AS grows, bool_and(hits.n >= hits.next) AS falls
FROM (SELECT count(*) FILTER (WHERE qwen_filter('text ' || i, 'the number is odd', t / 10.0)) AS n,
             lead(count(*) FILTER (WHERE qwen_filter('text ' || i, 'the number is odd', t / 10.0))) OVER (ORDER BY t) AS next
      FROM generate_series(1, 20) AS i, generate_series(0, 10) AS t GROUP BY t) AS hits;

-- mistakes
\set VERBOSITY terse
SELECT qwen_classify('a', '{}');
SELECT qwen_classify('a', ARRAY['b', NULL]);
SELECT qwen_classify('a', ARRAY['b', '']);
\set VERBOSITY default
SELECT qwen_classify('a', ARRAY['b', 'c', 'b']);
\set VERBOSITY terse
SELECT qwen_classify('a', (SELECT array_agg(i::text) FROM generate_series(1, 1001) AS i));
SELECT qwen_classify('a', ARRAY['b', 'c'], mode => 'fast');
SELECT qwen_classify('a', ARRAY['b', 'c'], on_error => 'panic');
SELECT qwen_classify('a', ARRAY['b', 'c'], task => 'nothing');
SELECT qwen_filter('a', 'b', 2);
SELECT qwen_filter('a', 'b', 'NaN');
SELECT qwen_classify(repeat('word ', 300000), ARRAY['a', 'b'], on_error => 'null') IS NULL AS skipped;
SELECT count(*) FROM qwen_classify_probs(repeat('word ', 300000), ARRAY['a', 'b'], on_error => 'null');
DO $$
BEGIN
    PERFORM qwen_classify(repeat('word ', 300000), ARRAY['a', 'b']);
EXCEPTION WHEN program_limit_exceeded THEN
    RAISE NOTICE 'too long';
END
$$;

-- pinned prefixes: for the owner and whoever is granted
SELECT qwen_pin_prefix(repeat('You classify what people write to us. ', 20)) > 100 AS pinned;
SELECT qwen_pin_prefix(NULL, (SELECT array_agg('label ' || i) FROM generate_series(1, 50) AS i)) > 100 AS pinned;
SELECT qwen_pin_prefix(NULL) IS NULL AS nothing;
SELECT qwen_pin_prefix('a', ARRAY['b', 'b']);
SELECT cached_tokens > 0 AS hit FROM qwen_infer_details('x', system => repeat('You classify what people write to us. ', 20), max_tokens => 1);
CREATE ROLE regress_qwen3dm_user;
SELECT qwen_grant('regress_qwen3dm_user');
SET ROLE regress_qwen3dm_user;
-- another role profits, but cannot change them
SELECT cached_tokens > 0 AS hit FROM qwen_infer_details('y', system => repeat('You classify what people write to us. ', 20), max_tokens => 1);
SELECT qwen_pin_prefix('a');
SELECT qwen_unpin_prefixes();
RESET ROLE;
SELECT qwen_unpin_prefixes();
SET ROLE regress_qwen3dm_user;
SELECT qwen_classify('a', ARRAY['b', 'c']) IN ('b', 'c') AS may_classify;
SET qwen3dm.priority = 500;
RESET ROLE;
ALTER ROLE regress_qwen3dm_user SET qwen3dm.priority = 500;
SET qwen3dm.priority = 0;
SELECT qwen_revoke('regress_qwen3dm_user');
DROP ROLE regress_qwen3dm_user;
