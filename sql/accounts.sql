-- What roles use, what they may use, and who sees it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS qwen3dm;
DROP ROLE IF EXISTS regress_accounts_user, regress_accounts_other, regress_accounts_monitor, regress_accounts_giver;
RESET client_min_messages;
CREATE ROLE regress_accounts_user;
CREATE ROLE regress_accounts_other;
CREATE ROLE regress_accounts_monitor IN ROLE pg_read_all_stats;

-- ----------------------------------------------------------------------------------------------
-- Grants
-- ----------------------------------------------------------------------------------------------
-- everything that spends the model's time is closed; what is open is this
SELECT function::regproc AS function FROM qwen3dm_functions() WHERE class = 'free' ORDER BY function::text COLLATE "C";
SELECT function FROM qwen3dm_functions() WHERE (class = 'free') <> has_function_privilege('regress_accounts_user', function, 'EXECUTE');
-- every function of the library is in the list
SELECT count(*) = (SELECT count(*) FROM pg_proc WHERE probin = '$libdir/qwen3dm') AS all_of_them
FROM qwen3dm_functions() f JOIN pg_proc p ON p.oid = f.function WHERE p.probin IS NOT NULL;

SET ROLE regress_accounts_user;
SELECT qwen_infer('a');
SELECT qwen_infer(ARRAY['a']);
SELECT * FROM qwen_infer_details('a');
SELECT qwen_stream('a');
SELECT qwen_classify('a', ARRAY['b', 'c']);
SELECT qwen_logprob('a b');
SELECT qwen_count_tokens('a');
SELECT qwen_stat_reset();
SELECT qwen_pin_prefix('a');
-- and one cannot give it to oneself
\set VERBOSITY sqlstate
SELECT qwen_grant('regress_accounts_user');
\set VERBOSITY default
RESET ROLE;

SELECT qwen_grant('regress_accounts_user');
SELECT class, count(*) > 0 AS some, bool_and(has_function_privilege('regress_accounts_user', function, 'EXECUTE')) AS may
FROM qwen3dm_functions() GROUP BY class ORDER BY class;
SELECT qwen_grant('regress_accounts_other', admin => true);
SELECT class, bool_and(has_function_privilege('regress_accounts_other', function, 'EXECUTE')) AS may
FROM qwen3dm_functions() GROUP BY class ORDER BY class;
SELECT qwen_grant(NULL) IS NULL AS nothing;
SELECT qwen_grant('no_such_role');

-- with the grant option one may pass on what one has
CREATE ROLE regress_accounts_giver;
DO $$
DECLARE f regprocedure;
BEGIN
    FOR f IN SELECT function FROM qwen3dm_functions() WHERE class = 'usage' LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO regress_accounts_giver WITH GRANT OPTION', f);
    END LOOP;
END
$$;
GRANT USAGE ON SCHEMA qwen3dm TO regress_accounts_giver WITH GRANT OPTION;
-- nothing less than all of it will do
SET ROLE regress_accounts_giver;
SELECT qwen_grant('regress_accounts_other');
RESET ROLE;
GRANT SELECT ON ALL TABLES IN SCHEMA qwen3dm TO regress_accounts_giver WITH GRANT OPTION;
SELECT qwen_revoke('regress_accounts_other');
SET ROLE regress_accounts_giver;
SELECT qwen_grant('regress_accounts_other');
SELECT has_function_privilege('regress_accounts_other', 'qwen_count_tokens(text)', 'EXECUTE') AS may;
SELECT qwen_revoke('regress_accounts_other');
SELECT has_function_privilege('regress_accounts_other', 'qwen_count_tokens(text)', 'EXECUTE') AS may;
RESET ROLE;

-- ----------------------------------------------------------------------------------------------
-- Counters
-- ----------------------------------------------------------------------------------------------
\d qwen_stat_roles
\d qwen_stat_tasks
\d qwen_stat_modes
\d qwen_stat_activity

SELECT qwen_stat_reset();
SELECT count(*) FROM qwen_stat_roles;
SET ROLE regress_accounts_user;
CREATE TEMP TABLE told AS
SELECT d.prompt_tokens, d.cached_tokens, d.output_tokens, d.mode
FROM generate_series(1, 6) AS i,
     qwen_infer_details('Number ' || i, max_tokens => i, mode => CASE WHEN i % 2 = 0 THEN 'precise' ELSE 'efficient' END) AS d;
SELECT r.usename, r.requests, r.errors, r.canceled, r.prompt_tokens = t.p AS prompt_tokens, r.cached_tokens = t.c AS cached_tokens,
       r.output_tokens = t.o AS output_tokens, r.mean_ms > 0 AND r.max_ms >= r.mean_ms AS times, r.last_request <= now() + interval '1 minute' AS last_request, r.token_quota
FROM qwen_stat_roles AS r, (SELECT sum(prompt_tokens) AS p, sum(cached_tokens) AS c, sum(output_tokens) AS o FROM told) AS t;
SELECT m.mode, m.kind, m.requests, m.output_tokens = t.o AS output_tokens
FROM qwen_stat_modes AS m JOIN (SELECT mode, sum(output_tokens) AS o FROM told GROUP BY mode) AS t USING (mode) ORDER BY m.mode;
SELECT datname = current_database() AS here, task, requests, efficient, precise FROM qwen_stat_tasks;

-- kinds that compute nothing count requests, not tokens; a failure is an error
SELECT qwen_count_tokens('some text') > 0 AS counted;
SELECT cardinality(qwen_tokenize('some text')) > 0 AS counted;
SELECT qwen_infer(repeat('too long ', 10000), on_error => 'null');
SELECT qwen_classify('a', ARRAY['b', 'c']) IS NOT NULL AS classified;
SELECT mode, kind, requests, errors, canceled, prompt_tokens > 0 AS prompt_tokens, output_tokens > 0 AS output_tokens
FROM qwen_stat_modes ORDER BY kind, mode;
RESET ROLE;

-- a request in the plan of a superuser's query is the superuser's
SELECT qwen_count_tokens('mine') > 0 AS counted;
SELECT usename = current_user AS own, requests FROM qwen_stat_roles WHERE usename NOT LIKE 'regress%';

-- others see nothing of it, not through the function under the views either; pg_read_all_stats sees all
SET ROLE regress_accounts_other;
SELECT (SELECT count(*) FROM qwen_stat_roles) AS roles, (SELECT count(*) FROM qwen_stat_tasks) AS tasks,
       (SELECT count(*) FROM qwen_stat_modes) AS modes, (SELECT count(*) FROM qwen3dm_accounts()) AS accounts;
SET ROLE regress_accounts_monitor;
SELECT count(*) FROM qwen_stat_roles;
RESET ROLE;
-- a member of the role sees what the role sees
GRANT regress_accounts_user TO regress_accounts_other;
SET ROLE regress_accounts_other;
SELECT usename FROM qwen_stat_roles;
RESET ROLE;

-- a function with the rights of its owner uses the owner's account
CREATE FUNCTION accounts_of_owner() RETURNS int LANGUAGE sql SECURITY DEFINER AS $$ SELECT qwen_count_tokens('a') $$;
ALTER FUNCTION accounts_of_owner() OWNER TO regress_accounts_user;
SELECT qwen_stat_reset('regress_accounts_user');
SELECT count(*) FROM qwen_stat_roles WHERE usename = 'regress_accounts_user';
SET ROLE regress_accounts_other;
SELECT accounts_of_owner() > 0 AS counted;
RESET ROLE;
SELECT usename, requests FROM qwen_stat_roles WHERE usename LIKE 'regress%';
DROP FUNCTION accounts_of_owner();

-- ----------------------------------------------------------------------------------------------
-- Limits
-- ----------------------------------------------------------------------------------------------
SET ROLE regress_accounts_user;
SET qwen3dm.token_quota = 0;
SET qwen3dm.max_tokens_limit = 0;
RESET ROLE;
ALTER ROLE regress_accounts_user SET qwen3dm.token_quota = 500;
SELECT usename, token_quota FROM qwen_stat_roles WHERE usename = 'regress_accounts_user';

SET qwen3dm.max_tokens_limit = 5;
SET qwen3dm.max_tokens = 100;
SELECT output_tokens <= 5 AS short FROM qwen_infer_details('a');
SELECT qwen_infer('a', max_tokens => 6);
SELECT qwen_infer('a', max_tokens => 6, on_error => 'null');
SELECT qwen_infer(ARRAY['a'], max_tokens => 6);
SELECT qwen_stream('a', max_tokens => 6);
SELECT qwen_infer('a', max_tokens => 5) IS NOT NULL AS answered;
RESET qwen3dm.max_tokens_limit;
RESET qwen3dm.max_tokens;

-- the quota: what a request may use does not fit, or what was used already leaves too little
SELECT qwen_stat_reset();
SET qwen3dm.token_quota = 100;
SET ROLE regress_accounts_user;
SELECT qwen_infer('a', max_tokens => 100000);
SELECT qwen_infer('a', max_tokens => 100000, on_error => 'null');
SELECT d.error FROM qwen_infer_details('a', max_tokens => 100000, on_error => 'null') AS d;
SELECT qwen_count_tokens(repeat('a ', 1000)) > 0 AS free;
SELECT requests, errors, prompt_tokens, output_tokens FROM qwen_stat_roles;
RESET ROLE;
RESET qwen3dm.token_quota;

SELECT qwen_revoke('regress_accounts_user');
SELECT class, bool_or(has_function_privilege('regress_accounts_user', function, 'EXECUTE')) AS may
FROM qwen3dm_functions() GROUP BY class ORDER BY class;
SELECT qwen_revoke('regress_accounts_user');
DROP TABLE told;
DROP OWNED BY regress_accounts_giver, regress_accounts_user, regress_accounts_other;
DROP ROLE regress_accounts_user, regress_accounts_other, regress_accounts_monitor, regress_accounts_giver;
