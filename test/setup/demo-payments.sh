# demo-payments.sh: the tour of "make demo": payments that are scored as they come in, and accounts to review.
#
# Sourced by demo.sh, whose functions section, show and sql it uses. The rows and what is true of them come from
# test/models/write_rows.py; the model has seen none of them while it was trained.
# shellcheck shell=bash

# Table coming: 40 payments and 60 histories with what is known of them afterwards.
load_rows()
{
	local rows=$Q3_AREA/demo/rows
	python3 test/models/write_rows.py "$rows" --job payments --seed demo --rows 240 >/dev/null
	sql <<-END
		CREATE TABLE coming_questions (question int, job text, kind text, hard bool, task text, instruction text, labels text, schema text);
		CREATE TABLE coming_rows (id int, question int, body text, truth text);
		\copy coming_questions FROM '$rows/questions.csv' CSV HEADER
		\copy coming_rows FROM '$rows/rows.csv' CSV HEADER
		CREATE TABLE coming AS SELECT row_number() OVER (PARTITION BY kind ORDER BY id) AS n, kind, body, truth
		    FROM coming_rows JOIN coming_questions USING (question)
		    WHERE kind IN ('single/filter', 'history/classify');
		DROP TABLE coming_questions, coming_rows;
	END
}

# One INSERT after the other, as an application would do it; each line is there when its row is.
payments_come_in()
{
	printf '\n%s\n' "INSERT INTO payments (body, is_fraud) VALUES (...) RETURNING risk, body;   -- 40 of them, one by one"
	printf '\n%-14s %-5s %s\n' time risk body
	sql -At -F ' ' <<-'END'
		SELECT format($$
		    INSERT INTO payments (body, is_fraud) VALUES (%L, %L)
		    RETURNING to_char(clock_timestamp(), 'HH24:MI:SS.MS'), to_char(risk, '0.00') || CASE WHEN risk > 0.5 THEN '!' ELSE ' ' END, body$$,
		    body, truth = 'yes'), 'DO $$BEGIN PERFORM pg_sleep(0.1); END$$'
		FROM coming WHERE kind = 'single/filter' AND n <= 40 ORDER BY n
		\gexec
	END
}

tour()
{
	load_rows
	section "1. The model: 5.8 million weights, trained for the three jobs in test/models/jobs"
	show "SELECT state, name, architecture, weight_type, device, isa, threads,
       pg_size_pretty(weight_bytes) AS weights, pg_size_pretty(kv_cache_bytes) AS kv_cache,
       round(load_ms) AS load_ms
FROM qwen_model_status;" -x

	section "2. A table whose rows the model scores as they come in"
	sql -f test/models/jobs/payments/schema.sql
	sed 's/^/    /' test/models/jobs/payments/schema.sql
	show "SELECT qwen_task_create('fraud', 'This payment is fraud.', mode => 'efficient');" -o /dev/null
	show "CREATE TRIGGER score BEFORE INSERT ON payments
    FOR EACH ROW EXECUTE FUNCTION qwen_score_trigger('body', 'risk', 'fraud');"

	section "3. Payments come in"
	payments_come_in
	show "SELECT is_fraud, count(*) AS payments, count(*) FILTER (WHERE risk > 0.5) AS flagged
FROM payments GROUP BY is_fraud ORDER BY is_fraud;"

	section "4. Accounts to review: several facts have to be put together, so it pays to think"
	sql -c "INSERT INTO accounts (history, truth) SELECT body, truth FROM coming WHERE kind = 'history/classify'"
	show "SELECT history FROM accounts ORDER BY id LIMIT 1;" -At
	show "SELECT thinking, value AS action
FROM accounts, qwen_classify_details(history, ARRAY['clear', 'review', 'block'], system => 'What should be done with the account?',
                                     mode => 'precise', thinking => true)
WHERE id = 1;"
	show "CREATE TABLE answers AS SELECT id, truth,
    qwen_classify(history, ARRAY['clear', 'review', 'block'], system => 'What should be done with the account?',
                  mode => 'efficient') AS at_once,
    qwen_classify(history, ARRAY['clear', 'review', 'block'], system => 'What should be done with the account?',
                  mode => 'precise', thinking => true) AS after_thinking
FROM accounts;"
	show "SELECT count(*) AS accounts, count(*) FILTER (WHERE at_once = truth) AS right_at_once,
       count(*) FILTER (WHERE after_thinking = truth) AS right_after_thinking FROM answers;"

	section "5. Who has used what"
	show "SELECT task, requests, efficient, precise, prompt_tokens, cached_tokens, output_tokens, round(mean_ms::numeric, 1) AS mean_ms
FROM qwen_stat_tasks;"
	show "SELECT mode, kind, requests, prompt_tokens, cached_tokens, output_tokens, round(mean_ms::numeric, 1) AS mean_ms
FROM qwen_stat_modes ORDER BY mode, kind;"
	show "SELECT requests, errors, prompt_tokens, output_tokens, running, queued, steps FROM qwen_model_status WHERE service = 'main';"
}
