-- Queries that ask about several rows at a time give the same rows in the same order as those that
-- do not. On whatever chat model the server has loaded: nothing here depends on its words.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;
SET max_parallel_workers_per_gather = 0;

CREATE TABLE batch_notes (id int PRIMARY KEY, kind text, body text, key text);
INSERT INTO batch_notes
SELECT i, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, CASE WHEN i % 10 <> 7 THEN 'Note number ' || i END, 'key ' || i
FROM generate_series(1, 40) AS i;
ANALYZE batch_notes;

-- the rows of a query, in order
CREATE FUNCTION pg_temp.rows(query text, batching text) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    r record;
    found text[] := '{}';
BEGIN
    PERFORM set_config('qwen3dm.enable_batching', batching, true);
    FOR r IN EXECUTE query LOOP
        found := found || r::text;
    END LOOP;
    RETURN found;
END
$$;
-- whether they are the same with and without
CREATE FUNCTION pg_temp.same(query text, OUT same boolean, OUT n int) LANGUAGE plpgsql AS $$
DECLARE
    batched text[] := pg_temp.rows(query, 'on');
    plain text[] := pg_temp.rows(query, 'off');
BEGIN
    same := batched = plain;
    n := cardinality(batched);
END
$$;
-- what EXPLAIN ANALYZE says of the requests
CREATE FUNCTION pg_temp.requests(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'Requests:|Qwen Batch' THEN
            RETURN NEXT btrim(line);
        END IF;
    END LOOP;
END
$$;
-- true once the engine works on nothing of this session
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
CREATE FUNCTION pg_temp.ask(body text) RETURNS text LANGUAGE sql AS
$$ SELECT qwen_infer(body, max_tokens => 3, temperature => 0) $$;

-- ----------------------------------------------------------------------------------------------
-- Plans
-- ----------------------------------------------------------------------------------------------
EXPLAIN (COSTS OFF) SELECT id, qwen_infer(body) FROM batch_notes;
SET qwen3dm.enable_batching = off;
EXPLAIN (COSTS OFF) SELECT id, qwen_infer(body) FROM batch_notes;
RESET qwen3dm.enable_batching;
EXPLAIN (COSTS OFF) SELECT id, body FROM batch_notes;
EXPLAIN (COSTS OFF) SELECT id, qwen_classify(body, ARRAY['a', 'b']) FROM batch_notes ORDER BY id DESC LIMIT 3;
EXPLAIN (COSTS OFF) SELECT id, qwen_infer(body) FROM batch_notes WHERE qwen_filter(body, 'is short') AND kind = 'odd';
EXPLAIN (COSTS OFF) SELECT count(qwen_logprob(body)) FROM batch_notes;
EXPLAIN (COSTS OFF) INSERT INTO batch_notes (id, body) SELECT id + 100, qwen_infer(body) FROM batch_notes;
EXPLAIN (COSTS OFF) UPDATE batch_notes SET body = qwen_infer(body) WHERE id = 3;
EXPLAIN (COSTS OFF) SELECT id, qwen_infer(body) FROM batch_notes FOR UPDATE;
EXPLAIN (COSTS OFF) SELECT upper(qwen_infer(body)) || '!' FROM batch_notes UNION ALL SELECT qwen_infer(kind) FROM batch_notes;
EXPLAIN (COSTS OFF) SELECT qwen_infer(a.body || b.body) FROM batch_notes a JOIN batch_notes b ON a.id = b.id + 1;
EXPLAIN (VERBOSE, COSTS OFF) SELECT id + 1, qwen_logprob(body || 'x') > -5, kind FROM batch_notes;
-- where the evaluation depends on something, or something else would be evaluated more often, it is left alone
EXPLAIN (COSTS OFF) SELECT CASE WHEN id = 1 THEN qwen_infer(body) END, coalesce(body, qwen_infer(kind)) FROM batch_notes;
EXPLAIN (COSTS OFF) SELECT id FROM batch_notes WHERE id = 1 OR qwen_filter(body, 'is short');
EXPLAIN (COSTS OFF) SELECT qwen_infer(body) FROM batch_notes WHERE random() < 2;
EXPLAIN (COSTS OFF) SELECT qwen_infer(body || random()) FROM batch_notes;
EXPLAIN (COSTS OFF) SELECT qwen_infer(body) FROM (SELECT body FROM batch_notes FOR UPDATE) AS s;
-- what reads all of its input anyway may be volatile
EXPLAIN (COSTS OFF) SELECT qwen_infer(body) FROM batch_notes ORDER BY random() LIMIT 2;
EXPLAIN (COSTS OFF) SELECT qwen_infer('a');

-- ----------------------------------------------------------------------------------------------
-- The same rows
-- ----------------------------------------------------------------------------------------------
SELECT * FROM pg_temp.same($$ SELECT id, qwen_infer(body, max_tokens => 3, temperature => 0) FROM batch_notes $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_infer(body, max_tokens => 3, temperature => 1, seed => 7), kind FROM batch_notes ORDER BY body $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_classify(body, ARRAY['a', 'b', 'ab', 'c d']), qwen_logprob(body) FROM batch_notes $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_filter(body, 'is short', 0.3) FROM batch_notes $$);
SELECT * FROM pg_temp.same($$ SELECT id FROM batch_notes WHERE qwen_logprob(body) > (SELECT avg(qwen_logprob(body)) FROM batch_notes) $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_infer(body, max_tokens => 2, temperature => 0) FROM batch_notes
    WHERE qwen_classify(body, ARRAY['a', 'b']) = 'a' AND id % 3 = 0 AND qwen_filter(body, 'is odd', 0.1) $$);
SELECT * FROM pg_temp.same($$ SELECT qwen_classify(body, ARRAY['a', 'b']) AS label, count(*), min(qwen_logprob(body)), max(id) FILTER (WHERE qwen_filter(body, 'x'))
    FROM batch_notes GROUP BY 1 ORDER BY 1 $$);
SELECT * FROM pg_temp.same($$ SELECT kind, string_agg(qwen_infer(body, max_tokens => 2, temperature => 0), ',' ORDER BY id DESC) FROM batch_notes
    GROUP BY kind HAVING min(qwen_logprob(body)) < 0 ORDER BY kind $$);
SELECT * FROM pg_temp.same($$ SELECT kind, id, count(qwen_logprob(body)) FROM batch_notes WHERE id < 5 GROUP BY ROLLUP (kind, id) ORDER BY 1, 2 $$);
SELECT * FROM pg_temp.same($$ SELECT DISTINCT qwen_classify(body, ARRAY['a', 'b']) FROM batch_notes ORDER BY 1 $$);
SELECT * FROM pg_temp.same($$ SELECT id, sum(id) OVER (ORDER BY id), qwen_logprob(body) FROM batch_notes $$);
SELECT * FROM pg_temp.same($$ SELECT a.id, qwen_logprob(a.body || b.body) FROM batch_notes a LEFT JOIN batch_notes b ON a.id = b.id * 2 ORDER BY a.id $$);
SELECT * FROM pg_temp.same($$ SELECT a.id, b.id FROM batch_notes a JOIN batch_notes b ON a.id = b.id + 1
    WHERE qwen_logprob(a.body) > qwen_logprob(b.body) ORDER BY a.id $$);
SELECT * FROM pg_temp.same($$ SELECT batch_notes, ctid, tableoid::regclass, qwen_logprob(body) FROM batch_notes $$);
SELECT * FROM pg_temp.same($$ SELECT id, (SELECT max(b.id) FROM batch_notes b WHERE b.id < a.id), qwen_logprob(body) FROM batch_notes a $$);
SELECT * FROM pg_temp.same($$ SELECT id, (SELECT qwen_logprob(a.body || b.body) FROM batch_notes b WHERE b.id = a.id + 1) FROM batch_notes a $$);
SELECT * FROM pg_temp.same($$ SELECT id FROM batch_notes a WHERE EXISTS (SELECT FROM batch_notes b WHERE b.id > a.id AND qwen_filter(b.body, 'x', 0.4)) $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_infer(prompt => body, system => kind, max_tokens => 1 + id % 3, temperature => 0) FROM batch_notes $$);
SELECT * FROM pg_temp.same($$ SELECT id, unnest(ARRAY[1, 2]), qwen_logprob(body) FROM batch_notes WHERE id < 9 $$);
SELECT * FROM pg_temp.same($$ SELECT kind, qwen_logprob(string_agg(body, ',' ORDER BY id)) FROM batch_notes GROUP BY kind
    HAVING qwen_filter(string_agg(key, ',' ORDER BY id), 'x', 0.1) ORDER BY kind $$);
SELECT * FROM pg_temp.same($$ SELECT kind, id % 3, grouping(kind), qwen_logprob(coalesce(kind, 'none ') || count(*)) FROM batch_notes
    GROUP BY GROUPING SETS ((kind), (id % 3), ()) ORDER BY 1, 2 $$);
SELECT * FROM pg_temp.same($$ SELECT id, rank() OVER (PARTITION BY qwen_classify(key, ARRAY['a', 'b']) ORDER BY id) FROM batch_notes ORDER BY id $$);
SELECT * FROM pg_temp.same($$ SELECT DISTINCT ON (kind) kind, qwen_logprob(key) FROM batch_notes ORDER BY kind, id $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_logprob(key) FROM batch_notes UNION SELECT id, qwen_logprob(kind) FROM batch_notes ORDER BY 1, 2 $$);
SELECT * FROM pg_temp.same($$ SELECT qwen_logprob(x) FROM (VALUES ('a'), ('b'), (NULL)) AS v(x) $$);
SELECT * FROM pg_temp.same($$ SELECT id FROM batch_notes TABLESAMPLE bernoulli (50) REPEATABLE (3) WHERE qwen_logprob(key) < 0 $$);
-- rescans: a nested loop, a subquery for each row, a recursive query
SELECT * FROM pg_temp.same($$ SELECT g, s.* FROM generate_series(1, 4) AS g,
    LATERAL (SELECT id, qwen_logprob(body || g) FROM batch_notes WHERE id <= g * 2 ORDER BY id LIMIT 5) AS s $$);
SELECT * FROM pg_temp.same($$ WITH RECURSIVE r(n, score) AS (SELECT 1, 0::float8 UNION ALL
    SELECT n + 1, qwen_logprob('text number ' || n) FROM r WHERE n < 6) SELECT * FROM r $$);
SELECT * FROM pg_temp.same($$ WITH s AS MATERIALIZED (SELECT id, qwen_classify(body, ARRAY['a', 'b']) AS label FROM batch_notes)
    SELECT a.id, a.label FROM s AS a JOIN s AS b ON a.label = b.label AND a.id = b.id + 1 ORDER BY 1 $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_logprob(body) FROM batch_notes ORDER BY id LIMIT 4 OFFSET 3 $$);
SELECT * FROM pg_temp.same($$ SELECT id, qwen_logprob(body) FROM batch_notes ORDER BY kind FETCH FIRST 1 ROW WITH TIES $$);
SET enable_hashjoin = off;
SET enable_nestloop = off;
SELECT * FROM pg_temp.same($$ SELECT a.id FROM batch_notes a JOIN batch_notes b ON a.id = b.id WHERE qwen_filter(b.body, 'x', 0.2) $$);
RESET enable_hashjoin;
RESET enable_nestloop;
-- small windows, and little memory
SET qwen3dm.batch_window = 1;
SELECT * FROM pg_temp.same($$ SELECT id, qwen_logprob(body) FROM batch_notes $$);
SET qwen3dm.batch_window = 3;
SELECT * FROM pg_temp.same($$ SELECT id, qwen_logprob(body) FROM batch_notes $$);
RESET qwen3dm.batch_window;
SET work_mem = '64kB';
SELECT * FROM pg_temp.same($$ SELECT id, length(long), qwen_logprob(left(long, 50)) FROM (SELECT id, repeat(body, 1000) AS long FROM batch_notes OFFSET 0) AS s $$);
RESET work_mem;

-- ----------------------------------------------------------------------------------------------
-- How far it reads ahead
-- ----------------------------------------------------------------------------------------------
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(body) FROM batch_notes WHERE body IS NOT NULL');
SET qwen3dm.batch_window = 4;
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(body) FROM batch_notes WHERE body IS NOT NULL');
RESET qwen3dm.batch_window;
-- NULLs ask nothing
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(body) FROM batch_notes WHERE body IS NULL');
-- equal calls are made once, unless the answer is drawn by lot
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(kind) FROM batch_notes');
SELECT * FROM pg_temp.requests('SELECT qwen_infer(kind, max_tokens => 2), qwen_logprob(kind) FROM batch_notes');
SELECT * FROM pg_temp.requests('SELECT qwen_infer(kind, max_tokens => id % 2 + 1, temperature => 0) FROM batch_notes WHERE id < 21');
SELECT * FROM pg_temp.requests('SELECT qwen_infer(kind, max_tokens => 2, temperature => 1, seed => 3) FROM batch_notes');
SELECT * FROM pg_temp.requests('SELECT qwen_infer(kind, max_tokens => 2, temperature => 1) FROM batch_notes');
SELECT * FROM pg_temp.same($$ SELECT id, kind, qwen_infer(kind, max_tokens => 2, temperature => 0), qwen_classify(kind, ARRAY['a', 'b']), qwen_filter(kind, 'x', 0.4) FROM batch_notes $$);
-- what a filter has asked, no later filter and no select list asks again
EXPLAIN (COSTS OFF) SELECT id, qwen_logprob(key) FROM batch_notes WHERE qwen_logprob(key) < 0;
SELECT * FROM pg_temp.requests('SELECT id, qwen_logprob(key) FROM batch_notes WHERE qwen_logprob(key) < 0');
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(key), qwen_logprob(kind), qwen_logprob(key) + 1 FROM batch_notes
    WHERE qwen_logprob(key) < 0 AND qwen_logprob(key) + qwen_logprob(kind) < 0 AND qwen_logprob(kind) < qwen_logprob(key) + 1000');
SELECT * FROM pg_temp.requests('SELECT qwen_infer(key, max_tokens => 1, temperature => 1) FROM batch_notes
    WHERE qwen_infer(key, max_tokens => 1, temperature => 1) IS NOT NULL');
SELECT * FROM pg_temp.same($$ SELECT id, key, qwen_logprob(key), CASE WHEN id > 3 THEN qwen_logprob(key) END FROM batch_notes WHERE qwen_logprob(key) < 0 $$);
SELECT * FROM pg_temp.same($$ SELECT kind, qwen_logprob(key), qwen_logprob(kind), qwen_logprob(key) + 1 FROM batch_notes
    WHERE qwen_logprob(key) < 0 AND qwen_logprob(key) + qwen_logprob(kind) < 0 AND qwen_logprob(kind) < qwen_logprob(key) + 1000 $$);
-- conditions of inner joins
EXPLAIN (COSTS OFF) SELECT a.id FROM batch_notes a JOIN batch_notes b ON a.id = b.id + 1 AND qwen_filter(a.body || b.body, 'x', 0.4);
EXPLAIN (COSTS OFF) SELECT a.id FROM batch_notes a JOIN batch_notes b ON a.id < b.id AND qwen_filter(a.body || b.body, 'x', 0.4);
EXPLAIN (COSTS OFF) SELECT a.id FROM batch_notes a LEFT JOIN batch_notes b ON a.id < b.id AND qwen_filter(a.body || b.body, 'x', 0.4);
SELECT * FROM pg_temp.same($$ SELECT a.id, b.id FROM batch_notes a JOIN batch_notes b ON a.id = b.id + 1 AND qwen_filter(a.body || b.body, 'x', 0.4) ORDER BY 1 $$);
SELECT * FROM pg_temp.same($$ SELECT a.id, b.id, qwen_logprob(a.key || b.key) FROM batch_notes a JOIN batch_notes b
    ON a.id < b.id AND a.id > 30 AND a.id <> 33 AND qwen_logprob(a.key || b.key) < 0 ORDER BY 1, 2 $$);
-- the one partner that the planner counts on is one of the condition that is left, too
SELECT * FROM pg_temp.same($$ SELECT a.id, b.id FROM batch_notes a JOIN batch_notes b ON a.id = b.id AND qwen_logprob(a.key || b.kind) < 0 ORDER BY 1 $$);
-- a view's column that nobody reads is not computed
CREATE SEQUENCE batch_view_numbers;
CREATE VIEW batch_view AS SELECT id, kind, qwen_logprob(key) AS x, nextval('batch_view_numbers') AS n FROM batch_notes;
SELECT * FROM pg_temp.requests('SELECT id, kind FROM batch_view WHERE id < 10');
SELECT * FROM pg_temp.requests('SELECT id, x FROM batch_view WHERE id < 10');
SELECT * FROM pg_temp.requests('SELECT v FROM batch_view AS v WHERE id < 10');
SELECT * FROM pg_temp.requests('SELECT count(*) FROM batch_view');
-- other volatile columns are, as PostgreSQL has it
SELECT last_value > 20 AS counted FROM batch_view_numbers;
SELECT * FROM pg_temp.same($$ SELECT id, kind FROM batch_view WHERE x < 0 ORDER BY id $$);
DROP VIEW batch_view;
DROP SEQUENCE batch_view_numbers;
-- a LIMIT that is known is never overshot, another one by as much as was needed at most
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(key) FROM batch_notes LIMIT 5');
SELECT * FROM pg_temp.requests('SELECT qwen_logprob(key) FROM batch_notes LIMIT (SELECT 3) OFFSET 2');
SELECT * FROM pg_temp.requests('SELECT * FROM (SELECT id, qwen_logprob(key) AS x FROM batch_notes OFFSET 0) AS s WHERE id > 0 AND x < 0 LIMIT 5');
SELECT * FROM pg_temp.requests('SELECT EXISTS (SELECT FROM batch_notes WHERE qwen_logprob(key) < 0)');
SELECT * FROM pg_temp.requests('SELECT g FROM generate_series(1, 2) AS g, LATERAL (SELECT qwen_logprob(key) FROM batch_notes LIMIT g) AS s');
-- a sort below still keeps only what is wanted
DO $$
DECLARE
    line text;
BEGIN
    FOR line IN EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)
        SELECT qwen_logprob(kind) FROM batch_notes ORDER BY body LIMIT 2
    LOOP
        IF line ~ 'Sort Method' THEN
            RAISE NOTICE '%', substring(line FROM 'Sort Method: [-a-zA-Z ]*heapsort');
        END IF;
    END LOOP;
END
$$;
-- other formats have a property for each
DO $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) SELECT qwen_logprob(kind) FROM batch_notes LIMIT 3' INTO plan;
    plan := plan -> 0 -> 'Plan' -> 'Plans' -> 0;
    RAISE NOTICE '% % requests % batches % deduplicated % wasted', plan -> 'Custom Plan Provider', plan -> 'Requests',
        plan -> 'Batches', (plan ->> 'Deduplicated Requests')::int BETWEEN 0 AND 2, plan -> 'Wasted Requests';
    RAISE NOTICE '%', (plan ->> 'Prompt Tokens')::int > 0 AND (plan ->> 'Cached Tokens')::int >= 0 AND (plan ->> 'Output Tokens')::int >= 0;
END
$$;

-- ----------------------------------------------------------------------------------------------
-- Cursors
-- ----------------------------------------------------------------------------------------------
BEGIN;
DECLARE c CURSOR FOR SELECT id, qwen_infer(body, max_tokens => 2, temperature => 0) IS NOT NULL AS answered FROM batch_notes;
FETCH 3 FROM c;
FETCH 5 FROM c;
-- backwards, although nobody said SCROLL: as the scan below can
FETCH BACKWARD 2 FROM c;
FETCH 1 FROM c;
MOVE ALL IN c;
FETCH PRIOR FROM c;
FETCH BACKWARD 1 FROM c;
FETCH NEXT FROM c;
FETCH NEXT FROM c;
MOVE BACKWARD ALL IN c;
FETCH 1 FROM c;
-- other answers meanwhile, and an error that is caught
SELECT qwen_infer('Say hello.', max_tokens => 2) IS NOT NULL AS answered;
SAVEPOINT s;
FETCH 4 FROM c;
SELECT 1 / 0;
ROLLBACK TO s;
FETCH 2 FROM c;
CLOSE c;
SELECT pg_temp.idle();
COMMIT;

BEGIN;
DECLARE s SCROLL CURSOR FOR SELECT id, qwen_logprob(body) < 0 AS x FROM batch_notes WHERE qwen_logprob(kind) < 0 AND id > 2;
FETCH ABSOLUTE 5 FROM s;
FETCH RELATIVE -2 FROM s;
FETCH LAST FROM s;
FETCH FIRST FROM s;
FETCH ABSOLUTE -3 FROM s;
COMMIT;
BEGIN;
DECLARE n NO SCROLL CURSOR FOR SELECT id, qwen_logprob(body) < 0 AS x FROM batch_notes;
FETCH 2 FROM n;
FETCH 2 FROM n;
COMMIT;
SELECT pg_temp.idle();

BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT id, qwen_logprob(body) < 0 AS x FROM batch_notes ORDER BY id;
FETCH 1 FROM h;
COMMIT;
FETCH 2 FROM h;
MOVE ALL IN h;
FETCH BACKWARD 1 FROM h;
CLOSE h;

-- the row of the cursor, not one that was read ahead
BEGIN;
DECLARE c CURSOR FOR SELECT id, qwen_logprob(kind) < 0 AS x FROM batch_notes;
MOVE 5 IN c;
UPDATE batch_notes SET body = 'changed' WHERE CURRENT OF c RETURNING id;
MOVE 3 IN c;
DELETE FROM batch_notes WHERE CURRENT OF c RETURNING id;
CLOSE c;
DECLARE c CURSOR FOR SELECT id, qwen_logprob(kind) < 0 AS x FROM batch_notes WHERE qwen_logprob(kind || 'a') < 0 FOR UPDATE;
MOVE 5 IN c;
UPDATE batch_notes SET body = 'changed' WHERE CURRENT OF c RETURNING id;
ROLLBACK;

-- a loop that is left, functions of one row
DO $$
DECLARE
    r record;
    n int := 0;
BEGIN
    FOR r IN SELECT id, qwen_logprob(body) AS x FROM batch_notes LOOP
        n := n + 1;
        EXIT WHEN n = 3;
    END LOOP;
    RAISE NOTICE 'left at %, idle: %', r.id, pg_temp.idle();
    FOR r IN SELECT id, qwen_infer(body, max_tokens => 2, temperature => 0) AS x FROM batch_notes WHERE id < 4 LOOP
        RAISE NOTICE '%: %', r.id, r.x = pg_temp.ask((SELECT body FROM batch_notes b WHERE b.id = r.id));
    END LOOP;
END
$$;
CREATE FUNCTION pg_temp.first_answer() RETURNS float8 LANGUAGE sql AS
$$ SELECT qwen_logprob(body) FROM batch_notes WHERE body IS NOT NULL ORDER BY id $$;
SELECT pg_temp.first_answer() < 0 AS negative, pg_temp.idle();

-- prepared, generic, and after the setting changed
PREPARE p(int, int) AS SELECT id, qwen_logprob(body) < 0 AS x FROM batch_notes WHERE id > $1 ORDER BY id LIMIT $2;
SET plan_cache_mode = force_generic_plan;
EXECUTE p(3, 2);
EXECUTE p(5, 1);
SELECT * FROM pg_temp.requests('EXECUTE p(10, 4)');
SET qwen3dm.enable_batching = off;
EXECUTE p(5, 2);
RESET qwen3dm.enable_batching;
RESET plan_cache_mode;
DEALLOCATE p;

-- ----------------------------------------------------------------------------------------------
-- Volatile neighbours happen once for each row that is returned
-- ----------------------------------------------------------------------------------------------
CREATE SEQUENCE batch_numbers;
SELECT id, nextval('batch_numbers') AS n, qwen_logprob(kind) < 0 AS x FROM batch_notes LIMIT 3;
BEGIN;
DECLARE c CURSOR FOR SELECT nextval('batch_numbers') AS n, id, qwen_logprob(kind) < 0 AS x FROM batch_notes;
FETCH 4 FROM c;
COMMIT;
SELECT last_value FROM batch_numbers;
CREATE FUNCTION pg_temp.tell(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$;
SELECT pg_temp.tell(id), qwen_logprob(kind) < 0 AS x FROM batch_notes WHERE id < 4;
SELECT setseed(0.5);
SELECT array_agg(x) AS batched FROM (SELECT random() AS x, qwen_logprob(kind) FROM batch_notes LIMIT 5) AS s \gset
SET qwen3dm.enable_batching = off;
SELECT setseed(0.5);
SELECT array_agg(x) = :'batched' AS same_random FROM (SELECT random() AS x, qwen_logprob(kind) FROM batch_notes LIMIT 5) AS s;
RESET qwen3dm.enable_batching;

-- ----------------------------------------------------------------------------------------------
-- Errors come with their row, or not at all
-- ----------------------------------------------------------------------------------------------
\set VERBOSITY terse
BEGIN;
DECLARE c CURSOR FOR SELECT id, qwen_infer(kind, max_tokens => 6 - id) IS NOT NULL AS x FROM batch_notes;
FETCH 4 FROM c;
FETCH 1 FROM c;
FETCH 1 FROM c;
ROLLBACK;
BEGIN;
DECLARE c CURSOR FOR SELECT id, qwen_logprob('a ' || 10 / (6 - id)) < 0 AS x FROM batch_notes;
FETCH 5 FROM c;
CLOSE c;
DECLARE c CURSOR FOR SELECT id, qwen_logprob('a ' || 10 / (6 - id)) < 0 AS x FROM batch_notes;
MOVE 5 IN c;
FETCH 1 FROM c;
ROLLBACK;
-- the model's errors: too long a text
BEGIN;
DECLARE c CURSOR FOR SELECT id, qwen_logprob(CASE id WHEN 4 THEN repeat('word ', 300000) ELSE kind END) < 0 AS x FROM batch_notes;
FETCH 3 FROM c;
FETCH 1 FROM c;
ROLLBACK;
SELECT id, qwen_logprob(CASE id WHEN 4 THEN repeat('word ', 300000) ELSE kind END, on_error => 'null') IS NULL AS failed
FROM batch_notes WHERE id < 6;
SELECT id FROM batch_notes WHERE qwen_filter(CASE id WHEN 4 THEN repeat('word ', 300000) ELSE kind END, 'x', 0) LIMIT 3;
-- a scan that met an error is started again
SELECT g, (SELECT count(x) FROM (SELECT qwen_logprob('a ' || 10 / (6 - id * g)) AS x FROM batch_notes ORDER BY id LIMIT 2) AS s)
FROM generate_series(1, 2) AS g;
-- an error elsewhere, caught, and nothing is left
DO $$
BEGIN
    PERFORM 1 / (id - 3), qwen_logprob(body) FROM batch_notes;
EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE 'caught, idle: %', pg_temp.idle();
END
$$;
\set VERBOSITY default
SELECT pg_temp.idle();

-- ----------------------------------------------------------------------------------------------
-- Writing
-- ----------------------------------------------------------------------------------------------
CREATE TABLE batch_answers (n serial, id int, label text, score float8);
INSERT INTO batch_answers (id, label, score)
SELECT id, qwen_classify(body, ARRAY['a', 'b']), qwen_logprob(body) FROM batch_notes ORDER BY id;
SELECT count(*), bool_and(n = id) AS in_order FROM batch_answers;
SET qwen3dm.enable_batching = off;
SELECT id, qwen_classify(body, ARRAY['a', 'b']), qwen_logprob(body) FROM batch_notes EXCEPT SELECT id, label, score FROM batch_answers;
RESET qwen3dm.enable_batching;
UPDATE batch_answers SET score = qwen_logprob(label || id), label = qwen_infer('label ' || id, max_tokens => 2, temperature => 0)
WHERE id % 2 = 0;
SET qwen3dm.enable_batching = off;
SELECT count(*) AS updated FROM batch_answers AS a JOIN batch_notes AS n USING (id)
WHERE id % 2 = 0 AND a.label = qwen_infer('label ' || id, max_tokens => 2, temperature => 0);
RESET qwen3dm.enable_batching;
DELETE FROM batch_answers WHERE NOT qwen_filter(label, 'x', 0) OR id > 30;
DELETE FROM batch_answers WHERE qwen_filter(coalesce(label, 'none'), 'x', 0) AND id > 20;
SELECT count(*), max(id) FROM batch_answers;
CREATE TABLE batch_copy AS SELECT id, qwen_logprob(body) AS x FROM batch_notes;
SELECT count(*), count(x) FROM batch_copy;
WITH moved AS (DELETE FROM batch_copy WHERE id < 6 RETURNING id) SELECT id, qwen_logprob('number ' || id) < 0 AS x FROM moved;
SELECT id, qwen_logprob(kind) < 0 AS x FROM batch_notes WHERE id < 4 FOR UPDATE;
SELECT current_setting('server_version_num')::int >= 150000 AS has_merge \gset
\if :has_merge
MERGE INTO batch_copy AS c USING (SELECT id, qwen_logprob(kind) AS x FROM batch_notes) AS n ON c.id = n.id
WHEN MATCHED THEN UPDATE SET x = n.x WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.x);
\else
INSERT INTO batch_copy SELECT id, qwen_logprob(kind) FROM batch_notes WHERE id < 6;
UPDATE batch_copy SET x = qwen_logprob('number ' || id) WHERE x IS NULL;
\endif
SELECT count(*), count(x) FROM batch_copy;
-- triggers that look at what the statement has done so far
CREATE TABLE batch_log (id int);
CREATE FUNCTION batch_trigger() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO batch_log VALUES (NEW.id); NEW.label := NEW.label || (SELECT count(*) FROM batch_log); RETURN NEW; END $$;
CREATE TRIGGER t BEFORE UPDATE ON batch_answers FOR EACH ROW EXECUTE FUNCTION batch_trigger();
BEGIN;
UPDATE batch_answers SET label = qwen_classify('number ' || 100 / id, ARRAY['a', 'b']);
SELECT string_agg(label, ',' ORDER BY id) AS batched FROM batch_answers \gset
ROLLBACK;
SET qwen3dm.enable_batching = off;
BEGIN;
UPDATE batch_answers SET label = qwen_classify('number ' || 100 / id, ARRAY['a', 'b']);
SELECT string_agg(label, ',' ORDER BY id) = :'batched' AS same FROM batch_answers;
ROLLBACK;
RESET qwen3dm.enable_batching;
CREATE MATERIALIZED VIEW batch_labels AS SELECT id, qwen_classify(body, ARRAY['a', 'b']) AS label FROM batch_notes;
REFRESH MATERIALIZED VIEW batch_labels;
SELECT count(*), count(label) FROM batch_labels;
DROP MATERIALIZED VIEW batch_labels;
COPY (SELECT id, qwen_logprob(key) < 0 FROM batch_notes WHERE id < 3) TO STDOUT;
-- partitions
CREATE TABLE batch_parts (id int, body text) PARTITION BY RANGE (id);
CREATE TABLE batch_part1 PARTITION OF batch_parts FOR VALUES FROM (0) TO (5);
CREATE TABLE batch_part2 PARTITION OF batch_parts FOR VALUES FROM (5) TO (100);
INSERT INTO batch_parts SELECT id, kind FROM batch_notes WHERE id < 10;
SELECT * FROM pg_temp.same($$ SELECT id, tableoid::regclass, qwen_logprob(body || id) FROM batch_parts WHERE qwen_logprob(body) < 0 ORDER BY id $$);
UPDATE batch_parts SET body = qwen_classify(body, ARRAY['a', 'b']), id = id + 1 WHERE id IN (3, 4, 5);
SELECT tableoid::regclass AS part, id, body IN ('a', 'b') AS labelled FROM batch_parts ORDER BY id;

-- ----------------------------------------------------------------------------------------------
-- Who may see what: filters of row security and security barriers come first
-- ----------------------------------------------------------------------------------------------
CREATE ROLE regress_batch_user;
SELECT qwen_grant('regress_batch_user');
CREATE FUNCTION batch_leak(i int) RETURNS boolean LANGUAGE plpgsql COST 1000000 AS $$ BEGIN RAISE NOTICE 'seen: %', i; RETURN true; END $$;
CREATE FUNCTION batch_cheap_leak(i int) RETURNS boolean LANGUAGE plpgsql COST 0.1 STABLE AS $$ BEGIN RAISE NOTICE 'seen: %', i; RETURN true; END $$;
GRANT SELECT ON batch_notes TO regress_batch_user;
ALTER TABLE batch_notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON batch_notes USING (id IN (3, 5) AND qwen_logprob(kind) < 0);
SET ROLE regress_batch_user;
EXPLAIN (COSTS OFF) SELECT id FROM batch_notes WHERE batch_cheap_leak(id);
SELECT id FROM batch_notes WHERE batch_cheap_leak(id);
SELECT id, qwen_logprob(body) < 0 AS x FROM batch_notes WHERE qwen_filter(body, 'x', 0);
RESET ROLE;
DROP POLICY p ON batch_notes;
CREATE POLICY p ON batch_notes USING (qwen_filter(kind, 'hidden', 0) AND id = 9);
SET ROLE regress_batch_user;
SELECT id FROM batch_notes WHERE batch_leak(id) AND batch_cheap_leak(id);
RESET ROLE;
ALTER TABLE batch_notes DISABLE ROW LEVEL SECURITY;
CREATE VIEW batch_secret WITH (security_barrier) AS SELECT * FROM batch_notes WHERE kind = 'odd' AND id < 6;
SELECT id FROM batch_secret WHERE qwen_filter(body, 'x', 0) AND batch_cheap_leak(id);
-- who may not call a function may not batch it
REVOKE EXECUTE ON FUNCTION qwen_logprob(text, text, text, text) FROM regress_batch_user;
SET ROLE regress_batch_user;
SELECT qwen_logprob(body) FROM batch_notes;
RESET ROLE;
-- a function with settings of its own is called with them
ALTER FUNCTION qwen_logprob(text, text, text, text) SET work_mem = '1MB';
EXPLAIN (COSTS OFF) SELECT qwen_logprob(body) FROM batch_notes;
ALTER FUNCTION qwen_logprob(text, text, text, text) RESET work_mem;

SELECT pg_temp.idle();
DROP VIEW batch_secret;
DROP TABLE batch_notes, batch_answers, batch_copy, batch_parts, batch_log;
DROP SEQUENCE batch_numbers;
DROP FUNCTION batch_leak(int), batch_cheap_leak(int), batch_trigger();
SELECT qwen_revoke('regress_batch_user');
DROP ROLE regress_batch_user;
