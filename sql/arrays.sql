-- qwen_infer(text[]): computed together, returned in order.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
RESET client_min_messages;

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

SELECT qwen_infer('{}'::text[]) AS empty;
SELECT qwen_infer(ARRAY[NULL]::text[]) AS one_null;
SELECT array_position(a, NULL) AS null_at, cardinality(a) AS n
FROM qwen_infer(ARRAY['a', NULL, 'b'], max_tokens => 2) AS a;
SELECT array_dims(a) AS dims, a[1][3] IS NULL AS null_kept, a[0][3] IS NOT NULL AS answered
FROM qwen_infer('[0:1][3:4]={{a,b},{NULL,d}}'::text[], max_tokens => 2) AS a;

-- each answer is that of the same prompt alone, more of them than are under way together
SELECT count(*) AS n,
       bool_and(answer = qwen_infer('Number ' || i, max_tokens => 3, temperature => 0)) AS same
FROM unnest(qwen_infer((SELECT array_agg('Number ' || i ORDER BY i) FROM generate_series(1, 100) AS i),
                       max_tokens => 3, temperature => 0)) WITH ORDINALITY AS u(answer, i);

-- errors name the element, or make it NULL
\set VERBOSITY terse
\set SHOW_CONTEXT always
DO $$
BEGIN
    PERFORM qwen_infer(ARRAY['a', 'b', repeat('word ', 300000), 'd'], max_tokens => 1);
EXCEPTION WHEN program_limit_exceeded THEN
    DECLARE
        context text;
    BEGIN
        GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
        RAISE NOTICE '%', split_part(context, E'\n', 1);
    END;
END
$$;
SELECT qwen_infer(ARRAY['a', 'b', repeat('word ', 300000), NULL, 'e'], max_tokens => 1, on_error => 'null') AS a \gset
SELECT array_agg(x IS NULL ORDER BY i) AS failed FROM unnest(:'a'::text[]) WITH ORDINALITY AS u(x, i);

-- after an error the session goes on, and nothing is left behind
SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL AS answered;
SELECT pg_temp.idle();

-- prompts that do not fit in a socket's buffer, all at once
SELECT count(*) AS n, bool_and(x IS NULL) AS all_too_long
FROM unnest(qwen_infer((SELECT array_agg(repeat('word ', 400000) || i) FROM generate_series(1, 12) AS i),
                       on_error => 'null')) AS x;
