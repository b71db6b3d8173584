# demo-tickets.sh: the tour of "make demo MODEL=smollm2": a dozen support tickets and a general model.
#
# Sourced by demo.sh, whose functions section, show and sql it uses.
# shellcheck shell=bash

# An answer that would take minutes: what another session sees of it, and how fast it ends.
cancelled_call()
{
	local statement="SELECT qwen_infer('Write a very long story about a database.', max_tokens => 4000)"
	local start call
	section "5. A call that somebody cancels"
	printf '\nfirst session:\ndemo=# %s;\n' "$statement"
	sql -c "$statement" >"$Q3_LOG/demo-cancelled.log" 2>&1 &
	call=$!
	sql -At -c "DO \$\$ BEGIN FOR i IN 1..600 LOOP
		EXIT WHEN EXISTS (SELECT FROM qwen_stat_activity WHERE output_tokens > 10);
		PERFORM pg_sleep(0.05); END LOOP; END \$\$"
	printf '\nsecond session, meanwhile:'
	show "SELECT pid, usename, kind, mode, phase, prompt_tokens, output_tokens, age FROM qwen_stat_activity;"
	start=$(date +%s%N)
	show "SELECT pg_cancel_backend(pid) FROM qwen_stat_activity;" -o /dev/null
	wait "$call" || true
	printf 'first session, %s ms later:\n' "$((($(date +%s%N) - start) / 1000000))"
	cat "$Q3_LOG/demo-cancelled.log"
	show "SELECT count(*) AS requests_left FROM qwen_stat_activity;"
}

tour()
{
	section "1. The model"
	show "SELECT state, name, architecture, weight_type, device, isa, threads,
       pg_size_pretty(weight_bytes) AS weights, pg_size_pretty(kv_cache_bytes) AS kv_cache,
       round(load_ms) AS load_ms
FROM qwen_model_status;" -x

	section "2. A dozen support tickets"
	sql <<-'END'
		CREATE TABLE tickets (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
		INSERT INTO tickets (body) VALUES
		('My invoice for March shows two charges for the same subscription. Please refund one of them.'),
		('Since this morning I cannot log in. The page says "session expired" right after I enter my password.'),
		('The export to CSV stops at 10,000 rows. We need all 250,000 for our annual report.'),
		('How do I add a second user to our account? I found no button for it.'),
		('Your mobile app crashes on my phone whenever I open the settings.'),
		('We moved our office. Please change the billing address to 12 Harbour Street.'),
		('The API answers with error 503 about every third call since the update last night.'),
		('I would like to cancel my plan at the end of the month.'),
		('Great service! The new dashboard saves me an hour every day.'),
		('I never received the confirmation e-mail for my order from Tuesday.'),
		('The report shows sales in dollars although I selected euros.'),
		('Someone I do not know logged in to my account from another country. Please lock it.');
	END
	show "SELECT id, body FROM tickets ORDER BY id LIMIT 3;"

	section "3. The model answers in a SELECT (it is a tiny one: this shows the plumbing, not Qwen3's wit)"
	show "SELECT id, qwen_infer('Summarize this message in at most eight words: ' || body,
                      max_tokens => 40) AS summary
FROM tickets ORDER BY id LIMIT 3;"
	show "SELECT value, mode, reason, prompt_tokens, output_tokens,
       round(confidence::numeric, 3) AS confidence, round(latency_ms) AS latency_ms, finish
FROM qwen_infer_details('What is the capital of France? Answer in one sentence.');" -x
	show "SELECT id, qwen_count_tokens(body) AS tokens FROM tickets ORDER BY tokens DESC LIMIT 3;"

	section "4. An answer as a stream: one row for each piece, while it is written"
	show "SELECT to_char(clock_timestamp(), 'SS.MS') AS second,
       qwen_stream('What is a database?', max_tokens => 12) AS piece;"

	cancelled_call
}
