-- The views, and who sees what in them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
DROP ROLE IF EXISTS regress_qwen3dm_user, regress_qwen3dm_monitor;
RESET client_min_messages;
CREATE ROLE regress_qwen3dm_user;
CREATE ROLE regress_qwen3dm_monitor IN ROLE pg_monitor;
SELECT qwen_grant('regress_qwen3dm_user');

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

\d qwen_model_status
\d qwen_stat_activity

SELECT count(*) FROM qwen_model_status;
SELECT state, progress, model = current_setting('qwen3dm.model') AS path, architecture <> '' AS architecture,
       parameters > 0 AS parameters, weight_type <> '' AS weight_type, "precision" ~ '^(planes|one precision): ' AS "precision",
       digest ~ '^[0-9a-f]{16,}$' AS digest,
       context_length > 0 AS context_length, device <> '' AS device, device_reason <> '' AS device_reason,
       isa <> '' AS isa, threads > 0 AS threads, weight_bytes > 0 AS weight_bytes,
       image_bytes <= weight_bytes * 1.2 AS image_bytes, CASE WHEN image_bytes > 0 THEN image IN ('built', 'kept', 'cached') ELSE image IS NULL END AS image,
       kv_cache_bytes > 0 AS kv_cache_bytes, kv_cache_used BETWEEN 0 AND 1 AS kv_cache_used,
       kv_blocks_free <= kv_blocks AS kv_blocks, pinned_blocks <= prefix_blocks AND prefix_blocks <= kv_blocks AS prefix_blocks, scratch_bytes >= 0 AS scratch_bytes, load_ms > 0 AS load_ms,
       started_at BETWEEN pg_postmaster_start_time() AND now() AS started_at, engine_pid > 0 AS engine_pid,
       restarts >= 0 AS restarts, message, detail, hint
FROM qwen_model_status \gx

-- the worker is a server process like others, and holds no database
SELECT datname, usename IS NOT NULL AS usename, application_name, query ~ '^ready' AS query
FROM pg_stat_activity WHERE backend_type = 'qwen3dm';

-- counters follow within a second or so
SELECT set_config('regress.requests', requests::text, false) IS NOT NULL AS noted FROM qwen_model_status;
SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL AS answered;
DO $$
BEGIN
    FOR i IN 1..100 LOOP
        EXIT WHEN (SELECT requests FROM qwen_model_status) > current_setting('regress.requests')::bigint;
        PERFORM pg_sleep(0.1);
    END LOOP;
END
$$;
SELECT requests > current_setting('regress.requests')::bigint AS requests, prompt_tokens > 0 AS prompt_tokens, output_tokens > 0 AS output_tokens,
       cached_tokens BETWEEN 0 AND prompt_tokens AS cached_tokens, deduplicated >= 0 AS deduplicated, classified >= 0 AS classified,
       steps > 0 AS steps, evictions >= 0 AS evictions
FROM qwen_model_status;

-- a live request is in the view: one's own, and for pg_read_all_stats everybody's
BEGIN;
DECLARE story CURSOR FOR
    SELECT qwen_stream('Tell me a long story.', max_tokens => 3000, mode => 'precise') IS NOT NULL;
FETCH 1 FROM story;
SELECT count(*) <= 1 AS own_only, count(*) FILTER (WHERE datname <> current_database() OR usename <> current_user
       OR kind <> 'stream' OR mode <> 'precise' OR phase <> 'decode' OR max_tokens > 3000 OR prompt_tokens < 1
       OR age < interval '0') AS wrong
FROM qwen_stat_activity WHERE pid = pg_backend_pid();
SET LOCAL ROLE regress_qwen3dm_user;
SELECT count(*) AS of_others FROM qwen_stat_activity;
RESET ROLE;
COMMIT;
SELECT pg_temp.idle();

-- paths are for those who may see all settings
SET ROLE regress_qwen3dm_user;
SELECT state, model ~ '/' AS path FROM qwen_model_status;
DO $$
BEGIN
    PERFORM current_setting('qwen3dm.model');
    RAISE NOTICE 'seen';
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'not seen';
END
$$;
SELECT qwen_infer('a', max_tokens => 1) IS NOT NULL AS answered;
SET ROLE regress_qwen3dm_monitor;
SELECT model = current_setting('qwen3dm.model') AS path FROM qwen_model_status;
RESET ROLE;

-- what was granted can be taken back, function by function too
REVOKE EXECUTE ON FUNCTION qwen_count_tokens(text) FROM regress_qwen3dm_user;
SET ROLE regress_qwen3dm_user;
SELECT qwen_count_tokens('a');
RESET ROLE;
GRANT EXECUTE ON FUNCTION qwen_count_tokens(text) TO regress_qwen3dm_user;
SET ROLE regress_qwen3dm_user;
SELECT qwen_count_tokens('a') > 0 AS counted;
RESET ROLE;

DROP OWNED BY regress_qwen3dm_user;
DROP ROLE regress_qwen3dm_user, regress_qwen3dm_monitor;

-- the extension comes and goes
DROP EXTENSION qwen3dm;
CREATE EXTENSION qwen3dm;
SELECT qwen_count_tokens('a') > 0 AS counted;
