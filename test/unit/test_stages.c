/*
 * test_stages.c: requests that take several jobs: labels behind a thought, or amid it, efficient
 * answers that are computed again in mode precise, and shadow runs. Over the engine's sockets, with
 * a tiny random model.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy/decision.h"
#include "service_client.h"
#include "tiny_qwen.h"

#define N_LABELS 3
#define BUDGET 12
/* Some pieces of thinking, see request.c. */
#define LONG_BUDGET 260

static char model_path[64];
static const q3_runtime_options runtime = {
    .threads = 1, .context_length = 2048, .max_batch_tokens = 64};
static engine shared;
/* Beside one long sequence there is room for others. */
static const q3_runtime_options roomy = {
    .threads = 1, .context_length = 2048, .max_batch_tokens = 64, .kv_bytes = 16 * 1024 * 1024};

static const q3p_bytes departments[N_LABELS] = {{"billing", 7}, {"outage", 6}, {"spam", 4}};

static q3p_request
classify(const char *prompt, uint32_t mode)
{
	static const char system[] = "Which department has to answer?";

	return (q3p_request){.kind = Q3P_CLASSIFY,
	                     .mode = mode,
	                     .prompt = {prompt, strlen(prompt)},
	                     .system = {system, sizeof(system) - 1},
	                     .n_labels = N_LABELS};
}

/* What is compared of an answer. */
typedef struct answer
{
	double probs[N_LABELS], margin, off_label;
	int best;
	char reason[64];
	uint32_t mode;
	bool escalated;
	int32_t prompt_tokens, output_tokens, thinking_tokens;
	double first_ms, latency_ms;
	char thinking[4096];
	size_t thinking_len;
} answer;

static answer
take(client *c, uint64_t *id)
{
	frame f;
	q3p_result r = client_result(c, &f);
	answer a = {.margin = r.margin,
	            .off_label = r.off_label,
	            .mode = r.mode,
	            .escalated = r.escalated,
	            .prompt_tokens = r.prompt_tokens,
	            .output_tokens = r.output_tokens,
	            .thinking_tokens = r.thinking_tokens,
	            .first_ms = r.first_ms,
	            .latency_ms = r.latency_ms,
	            .thinking_len = r.thinking.len};

	assert_int_equal(r.n_probs, N_LABELS);
	memcpy(a.probs, r.probs, sizeof(a.probs));
	for (int i = 1; i < N_LABELS; i++)
		a.best = a.probs[i] > a.probs[a.best] ? i : a.best;
	snprintf(a.reason, sizeof(a.reason), "%.*s", (int) r.reason.len, r.reason.data);
	assert_true(r.thinking.len < sizeof(a.thinking));
	if (r.thinking.data != NULL)
		memcpy(a.thinking, r.thinking.data, r.thinking.len);
	if (id != NULL)
		*id = f.header.id;
	free(f.payload);
	return a;
}

static answer
ask(client *c, const q3p_request *m)
{
	client_request_labels(c, 1, m, NULL, departments);
	return take(c, NULL);
}

static double
margin_of(const answer *a)
{
	double best = 0, second = 0;

	for (int i = 0; i < N_LABELS; i++)
		if (a->probs[i] > best)
		{
			second = best;
			best = a->probs[i];
		}
		else if (a->probs[i] > second)
			second = a->probs[i];
	return best - second;
}

static void
assert_same_probs(const answer *a, const answer *b)
{
	assert_memory_equal(a->probs, b->probs, sizeof(a->probs));
}

static void
test_escalation(void **state)
{
	q3p_request m = classify("the meter shows too much", Q3P_EFFICIENT);
	client c;
	answer efficient, precise, kept, again;

	(void) state;
	client_open(&c, &shared);
	efficient = ask(&c, &m);
	assert_int_equal(efficient.mode, Q3P_EFFICIENT);
	assert_false(efficient.escalated);
	assert_true(efficient.margin == margin_of(&efficient) && efficient.margin > 0);
	assert_true(efficient.first_ms > 0 && efficient.first_ms <= efficient.latency_ms);
	m.mode = Q3P_PRECISE;
	m.escalate_below = 1; /* means nothing in this mode */
	precise = ask(&c, &m);
	assert_false(precise.escalated);
	assert_memory_not_equal(precise.probs, efficient.probs, sizeof(precise.probs));
	m.mode = Q3P_EFFICIENT;
	m.escalate_below = efficient.margin; /* not below it */
	kept = ask(&c, &m);
	assert_false(kept.escalated);
	assert_int_equal(kept.mode, Q3P_EFFICIENT);
	assert_same_probs(&kept, &efficient);
	m.escalate_below = nextafter(efficient.margin, 2);
	again = ask(&c, &m);
	assert_true(again.escalated);
	assert_int_equal(again.mode, Q3P_PRECISE);
	assert_same_probs(&again, &precise);
	assert_true(again.margin == efficient.margin);
	assert_int_equal(again.prompt_tokens, 2 * efficient.prompt_tokens);
	assert_int_equal(again.output_tokens, 0);
	assert_true(again.first_ms <= again.latency_ms);
	client_close(&c);
}

/* What lies outside the labels escalates, too, without any limit for the margin. */
static void
test_off_label(void **state)
{
	q3p_request m = classify("the meter smells", Q3P_EFFICIENT);
	client c;
	answer plain, precise, kept, again;

	(void) state;
	client_open(&c, &shared);
	plain = ask(&c, &m);
	assert_true(isnan(plain.off_label));
	m.off_label_limit = 1;
	kept = ask(&c, &m);
	assert_true(kept.off_label > 0 && kept.off_label < 1);
	assert_same_probs(&kept, &plain);
	m.mode = Q3P_PRECISE;
	precise = ask(&c, &m);
	assert_true(precise.off_label > 0 && precise.off_label != kept.off_label);
	m.mode = Q3P_EFFICIENT;
	m.off_label_limit = kept.off_label; /* not above it */
	again = ask(&c, &m);
	assert_false(again.escalated);
	assert_true(again.off_label == kept.off_label);
	m.off_label_limit = nextafter(kept.off_label, 0);
	again = ask(&c, &m);
	assert_true(again.escalated && again.off_label == kept.off_label);
	assert_true(again.margin == plain.margin);
	assert_same_probs(&again, &precise);
	assert_string_equal(again.reason, q3_reason_text(Q3_REASON_OFF_LABEL));
	m.escalate_below = 2; /* comes first */
	again = ask(&c, &m);
	assert_true(again.escalated);
	assert_string_equal(again.reason, q3_reason_text(Q3_REASON_THIN_MARGIN));
	m.escalate_below = m.off_label_limit = 0;
	m.shadow = true;
	again = ask(&c, &m);
	assert_false(again.escalated);
	assert_true(again.off_label == kept.off_label);
	client_close(&c);
}

static void
test_thinking(void **state)
{
	q3p_request m = classify("the meter shows nothing", Q3P_PRECISE);
	client c;
	answer direct, thought, again;

	(void) state;
	client_open(&c, &shared);
	direct = ask(&c, &m);
	assert_int_equal(direct.thinking_tokens, 0);
	m.thinking = true;
	m.thinking_budget = BUDGET;
	thought = ask(&c, &m);
	assert_int_equal(thought.output_tokens, thought.thinking_tokens);
	/* <think>, and the budget; a random model hardly ends it before. */
	assert_true(thought.thinking_tokens > 1 && thought.thinking_tokens <= BUDGET + 1);
	assert_true(thought.thinking_len > 0);
	/* The empty block of thinking is not there. */
	assert_true(thought.prompt_tokens < direct.prompt_tokens);
	assert_memory_not_equal(thought.probs, direct.probs, sizeof(direct.probs));
	again = ask(&c, &m);
	assert_same_probs(&again, &thought);
	assert_int_equal(again.thinking_len, thought.thinking_len);
	assert_memory_equal(again.thinking, thought.thinking, thought.thinking_len);
	m.thinking_budget = 1;
	again = ask(&c, &m);
	assert_int_equal(again.thinking_tokens, 2);
	/* What an escalated answer is. */
	m = classify("the meter shows nothing", Q3P_EFFICIENT);
	m.escalate_below = 2;
	m.escalate_thinking = true;
	m.thinking_budget = BUDGET;
	again = ask(&c, &m);
	assert_true(again.escalated);
	assert_same_probs(&again, &thought);
	assert_int_equal(again.thinking_tokens, thought.thinking_tokens);
	/* Not in this mode. */
	m.thinking = true;
	client_request_labels(&c, 1, &m, NULL, departments);
	client_expect_error(&c, 1, "22023", "cannot be combined with thinking");
	client_close(&c);
}

static void
assert_same_thought(const answer *a, const answer *b)
{
	assert_same_probs(a, b);
	assert_int_equal(a->thinking_len, b->thinking_len);
	assert_memory_equal(a->thinking, b->thinking, b->thinking_len);
	assert_int_equal(a->thinking_tokens, b->thinking_tokens);
	assert_int_equal(a->output_tokens, b->output_tokens);
	assert_int_equal(a->prompt_tokens, b->prompt_tokens);
}

/* Comparing labels amid the thought changes nothing until it ends it. */
static void
check_early_exit(client *c, q3p_request m)
{
	answer whole, never, early, again;

	whole = ask(c, &m);
	assert_int_equal(whole.thinking_tokens, LONG_BUDGET + 1);
	m.exit_margin = 2;
	never = ask(c, &m);
	assert_same_thought(&never, &whole);
	assert_true(m.mode != Q3P_PRECISE || never.margin == whole.margin);
	m.exit_margin = 1e-12;
	early = ask(c, &m);
	assert_true(early.thinking_tokens > 2 && early.thinking_tokens < whole.thinking_tokens);
	assert_int_equal(early.output_tokens, early.thinking_tokens);
	assert_int_equal(early.prompt_tokens, whole.prompt_tokens);
	assert_true(early.thinking_len > 0 && early.thinking_len < whole.thinking_len);
	assert_memory_equal(early.thinking, whole.thinking, early.thinking_len);
	again = ask(c, &m);
	assert_same_thought(&again, &early);
	/* What it came to is what that much thinking comes to. */
	m.exit_margin = 0;
	m.thinking_budget = early.thinking_tokens - 1;
	again = ask(c, &m);
	assert_same_thought(&again, &early);
}

static void
test_early_exit(void **state)
{
	q3p_request m = classify("the meter counts down", Q3P_PRECISE);
	client c;

	(void) state;
	client_open(&c, &shared);
	m.thinking = true;
	m.thinking_budget = LONG_BUDGET;
	check_early_exit(&c, m);
	/* Drawn tokens go on as they would have. */
	m.has_temperature = true;
	m.temperature = 0.9;
	m.seed = 4;
	check_early_exit(&c, m);
	m = classify("the meter counts down", Q3P_EFFICIENT);
	m.escalate_below = 2;
	m.escalate_thinking = true;
	m.thinking_budget = LONG_BUDGET;
	check_early_exit(&c, m);
	client_close(&c);
}

/* Where nothing is found in a cache, all bits are the same. */
static void
test_early_exit_without_cache(void **state)
{
	q3p_request m = classify("the meter counts up", Q3P_PRECISE);
	q3_runtime_options without = runtime;
	engine other;
	client c, d;
	answer a, b;

	(void) state;
	without.no_prefix_cache = true;
	engine_start(&other, model_path, &without);
	engine_wait_ready(&other);
	client_open(&c, &shared);
	client_open(&d, &other);
	m.thinking = true;
	m.thinking_budget = LONG_BUDGET;
	for (int i = 0; i < 3; i++)
	{
		m.exit_margin = i == 0 ? 0 : i == 1 ? 2 : 1e-12;
		a = ask(&c, &m);
		b = ask(&d, &m);
		assert_same_thought(&a, &b);
	}
	client_close(&c);
	client_close(&d);
	assert_int_equal(engine_stop(&other), 0);
}

/* Each of many gets the answer that it would get alone, equal ones the same. */
static void
test_many(void **state)
{
	enum
	{
		N = 48
	};
	char texts[N / 2][40];
	q3p_request m;
	answer alone[N / 2];
	client c;

	(void) state;
	client_open(&c, &shared);
	for (int i = 0; i < N / 2; i++)
	{
		snprintf(texts[i], sizeof(texts[i]), "meter number %d does not turn", i);
		m = classify(texts[i], Q3P_EFFICIENT);
		m.escalate_below = i % 3 == 0 ? 2 : 0;
		m.escalate_thinking = i % 2 == 0;
		m.thinking_budget = i % 4 == 0 ? LONG_BUDGET : BUDGET;
		m.exit_margin = i % 12 == 0 ? 0.02 : 0;
		m.off_label_limit = i % 5 == 0 ? 1 : 0;
		alone[i] = ask(&c, &m);
		assert_int_equal(alone[i].escalated, i % 3 == 0);
	}
	for (uint64_t id = 0; id < N; id++)
	{
		int i = (int) id / 2;

		m = classify(texts[i], Q3P_EFFICIENT);
		m.escalate_below = i % 3 == 0 ? 2 : 0;
		m.escalate_thinking = i % 2 == 0;
		m.thinking_budget = i % 4 == 0 ? LONG_BUDGET : BUDGET;
		m.exit_margin = i % 12 == 0 ? 0.02 : 0;
		m.off_label_limit = i % 5 == 0 ? 1 : 0;
		client_request_labels(&c, id, &m, NULL, departments);
	}
	for (int n = 0; n < N; n++)
	{
		uint64_t id;
		answer a = take(&c, &id);

		assert_same_probs(&a, &alone[id / 2]);
		assert_int_equal(a.prompt_tokens, alone[id / 2].prompt_tokens);
		assert_int_equal(a.output_tokens, alone[id / 2].output_tokens);
		assert_memory_equal(&a.off_label, &alone[id / 2].off_label, sizeof(a.off_label));
	}
	client_close(&c);
}

/* Waits until a request of the connection has written so many tokens. */
static void
wait_written(client *c, int32_t tokens)
{
	double start = now_ms();
	q3p_activity row;

	while (client_activity(c, &row, 1) == 0 || row.output_tokens < tokens)
	{
		assert_true(now_ms() < start + WAIT_MS);
		usleep(1000);
	}
}

static void
wait_idle(client *c)
{
	double start = now_ms();
	q3p_activity row;

	while (client_activity(c, &row, 1) > 0)
	{
		assert_true(now_ms() < start + WAIT_MS);
		usleep(1000);
	}
}

/* One of two that are the same is cancelled amid a later piece; the other takes over. */
static void
test_equal_thoughts(void **state)
{
	q3p_request m = classify("the meter counts everything", Q3P_PRECISE);
	client c, watcher;
	q3p_usage used;
	answer alone, heir;
	frame f;

	(void) state;
	client_open(&c, &shared);
	client_open(&watcher, &shared);
	m.thinking = true;
	m.thinking_budget = 1200;
	m.exit_margin = 2;
	alone = ask(&c, &m);
	for (uint64_t id = 7; id <= 8; id++)
	{
		client_request_labels(&c, id, &m, NULL, departments);
		if (id == 7)
			wait_written(&watcher, 2);
	}
	wait_written(&watcher, 120);
	client_plain(&c, Q3P_CANCEL, 7);
	client_expect_error(&c, 7, "57014", "cancelled");
	heir = take(&c, NULL);
	assert_same_thought(&heir, &alone);
	wait_idle(&watcher);
	used = engine_usage(&shared, &f);
	/* At least the pieces before that one, which both have. */
	assert_true(used.output_tokens >= 97 && used.output_tokens < alone.output_tokens);
	free(f.payload);
	client_close(&c);
	client_close(&watcher);
}

/* A request that is cancelled in its second job: an error, and the worker is told of both jobs. */
static void
test_cancel(void **state)
{
	q3p_request m = classify("the meter is broken", Q3P_EFFICIENT);
	client c, watcher;
	q3p_usage used;
	frame f;

	(void) state;
	client_open(&c, &shared);
	client_open(&watcher, &shared);
	m.escalate_below = 2;
	m.escalate_thinking = true;
	m.thinking_budget = 1500;
	client_request_labels(&c, 7, &m, NULL, departments);
	wait_written(&watcher, 5);
	client_plain(&c, Q3P_CANCEL, 7);
	client_expect_error(&c, 7, "57014", "cancelled");
	wait_idle(&watcher);
	used = engine_usage(&shared, &f);
	assert_int_equal(used.kind, Q3P_CLASSIFY);
	assert_int_equal(used.mode, Q3P_PRECISE);
	assert_true(used.output_tokens >= 5);
	assert_true(used.prompt_tokens > 0);
	free(f.payload);
	/* In a job that goes on with what others have thought. */
	m.exit_margin = 2;
	client_request_labels(&c, 7, &m, NULL, departments);
	wait_written(&watcher, 110);
	client_plain(&c, Q3P_CANCEL, 7);
	client_expect_error(&c, 7, "57014", "cancelled");
	wait_idle(&watcher);
	used = engine_usage(&shared, &f);
	assert_true(used.output_tokens >= 110 && used.output_tokens < 1500);
	free(f.payload);
	m.exit_margin = 0;
	/* A client that goes away in its second job. */
	client_request_labels(&c, 8, &m, NULL, departments);
	wait_written(&watcher, 5);
	client_close(&c);
	wait_idle(&watcher);
	used = engine_usage(&shared, &f);
	assert_true(used.output_tokens >= 5);
	free(f.payload);
	client_close(&watcher);
}

/* Labels that are wrong, and what does not fit, are found before anything is thought. */
static void
test_errors(void **state)
{
	const q3p_bytes equal[N_LABELS] = {{"a", 1}, {"b", 1}, {"a", 1}};
	q3p_request m = classify("x", Q3P_PRECISE);
	char *text = calloc(1, 2040);
	client c;
	answer a;

	(void) state;
	assert_non_null(text);
	client_open(&c, &shared);
	m.thinking = true;
	client_request_labels(&c, 1, &m, NULL, equal);
	client_expect_error(&c, 1, "22023", "labels must be distinct");
	memset(text, 'x', 1950);
	m.prompt = (q3p_bytes){text, strlen(text)};
	a = ask(&c, &m); /* what is left of the context bounds the thinking */
	assert_true(a.thinking_tokens < 2048 - a.prompt_tokens);
	memset(text, 'x', 2039);
	m.prompt = (q3p_bytes){text, strlen(text)};
	client_request_labels(&c, 2, &m, NULL, departments);
	client_expect_error(&c, 2, "54000", "context length");
	free(text);
	client_close(&c);
}

/* Answers that are written: the budget ends the thinking, under a schema, too. */
static void
test_budget_of_answers(void **state)
{
	static const char prompt[] = "what is it?", schema[] = "{\"enum\": [\"meter\", \"valve\"]}";
	q3p_request m = {.kind = Q3P_GENERATE,
	                 .mode = Q3P_PRECISE,
	                 .thinking = true,
	                 .thinking_budget = 6,
	                 .has_temperature = true,
	                 .max_tokens = 64,
	                 .prompt = {prompt, sizeof(prompt) - 1},
	                 .schema = {schema, sizeof(schema) - 1}};
	client c;
	q3p_result r;
	frame f;

	(void) state;
	client_open(&c, &shared);
	client_request(&c, 1, &m, NULL);
	r = client_result(&c, &f);
	assert_int_equal(r.finish, Q3P_FINISH_STOP);
	assert_true(r.value.len == 7 && r.value.data[0] == '"');
	/* Bytes are tokens of this vocabulary. */
	assert_true(r.thinking.data != NULL && r.thinking.len > 0 && r.thinking.len <= 6 * 3);
	free(f.payload);
	m.schema = (q3p_bytes){NULL, 0};
	client_request(&c, 2, &m, NULL);
	r = client_result(&c, &f);
	assert_true(r.thinking.data != NULL && r.thinking.len > 0);
	assert_true(r.value.len > 0 || r.finish == Q3P_FINISH_STOP);
	free(f.payload);
	client_close(&c);
}

/* ---------------------------------------------------------------------------------------------
 * Shadow runs
 * --------------------------------------------------------------------------------------------- */

static q3p_request
shadowed(const char *prompt, uint64_t question)
{
	q3p_request m = classify(prompt, Q3P_EFFICIENT);

	m.shadow = true;
	m.question = question;
	m.task = (q3p_bytes){"triage", 6};
	return m;
}

static uint64_t
engine_shadow_question(engine *e)
{
	frame f;
	q3p_shadow shadow = engine_shadow(e, &f);

	free(f.payload);
	return shadow.question;
}

static void
expect_shadow(engine *e, uint64_t question, bool agreed)
{
	frame f;
	q3p_shadow shadow = engine_shadow(e, &f);

	assert_true(shadow.question == question);
	assert_int_equal(shadow.database, 5);
	assert_true(shadow.task.len == 6 && memcmp(shadow.task.data, "triage", 6) == 0);
	assert_int_equal(shadow.agreed, agreed);
	free(f.payload);
}

/* What is told is what asking would have told, of both kinds. */
static void
test_shadow(void **state)
{
	enum
	{
		N = 24
	};
	char text[40];
	engine e;
	client c;
	int n_agreed[2] = {0, 0};

	(void) state;
	engine_start(&e, model_path, &runtime);
	engine_wait_ready(&e);
	client_open(&c, &e);
	for (int i = 0; i < N; i++)
	{
		q3p_request m, precise;
		answer first, then;

		snprintf(text, sizeof(text), "%d meters do not turn", i);
		m = shadowed(text, UINT64_MAX - (uint64_t) i);
		m.escalate_thinking = i % 4 != 0;
		m.thinking_budget = i % 2 ? LONG_BUDGET : BUDGET;
		m.exit_margin = i % 3 ? 0.02 : 0;
		m.token_quota = 100000;
		first = ask(&c, &m);
		precise = classify(text, Q3P_PRECISE);
		precise.thinking = m.escalate_thinking;
		precise.thinking_budget = m.thinking_budget;
		precise.exit_margin = m.exit_margin;
		then = ask(&c, &precise);
		n_agreed[first.best == then.best]++;
		expect_shadow(&e, m.question, first.best == then.best);
	}
	assert_true(n_agreed[0] > 0 && n_agreed[1] > 0);
	client_close(&c);
	assert_int_equal(engine_stop(&e), 0);
}

/* Keeps the engine busy, so that no shadow run begins. */
static void
be_busy(client *c)
{
	q3p_request m = {
	    .kind = Q3P_GENERATE, .mode = Q3P_PRECISE, .max_tokens = 1900, .prompt = {"on", 2}};
	q3p_activity row;

	client_request(c, 1, &m, NULL);
	while (client_activity(c, &row, 1) == 0 || row.phase != Q3P_DECODE)
		usleep(1000);
}

static void
be_idle(engine *e, client *c)
{
	frame f;

	client_plain(c, Q3P_CANCEL, 1);
	client_expect_error(c, 1, "57014", "cancelled");
	assert_int_equal(engine_usage(e, &f).kind, Q3P_GENERATE);
	free(f.payload);
}

/* All that wait are told, each once; returns how many before the one that is sent here. */
static int
count_shadows(engine *e, client *c, bool *told, uint64_t n)
{
	q3p_request last = shadowed("the last one", 1000);
	int count = 0;

	usleep(50000); /* those that wait have begun: there is room for one more */
	assert_int_equal(ask(c, &last).mode, Q3P_EFFICIENT);
	for (uint64_t question; (question = engine_shadow_question(e)) != 1000; count++)
	{
		assert_true(question < n && !told[question]);
		told[question] = true;
	}
	return count;
}

/* Only so many wait, and none of what was escalated or went wrong. */
static void
test_shadow_limits(void **state)
{
	enum
	{
		N = 100,
		N_ESCALATED = 10,
		MOST = 64
	};
	char text[40];
	engine e;
	client c, other;
	bool told[N] = {false};

	(void) state;
	engine_start(&e, model_path, &roomy);
	engine_wait_ready(&e);
	client_open(&other, &e);
	client_open(&c, &e);
	be_busy(&other);
	for (uint64_t i = 0; i < N; i++)
	{
		q3p_request m;

		snprintf(text, sizeof(text), "meter %d", (int) i);
		m = shadowed(text, i);
		m.escalate_below = i < N_ESCALATED ? 2 : 0;
		m.thinking = i == N_ESCALATED; /* not in this mode */
		client_request_labels(&c, i, &m, NULL, departments);
	}
	for (int i = 0; i < N; i++)
		free(client_frame(&c).payload);
	be_idle(&e, &other);
	assert_int_equal(count_shadows(&e, &c, told, N), MOST);
	for (int i = 0; i <= N_ESCALATED; i++)
		assert_false(told[i]);
	client_close(&c);
	client_close(&other);
	assert_int_equal(engine_stop(&e), 0);
}

/* Only so many bytes wait: three requests of five megabytes. */
static void
test_shadow_bytes(void **state)
{
	const size_t size = (size_t) 5 * 1024 * 1024;
	q3p_bytes stop = {calloc(1, size), size};
	engine e;
	client c, other;
	bool told[5] = {false};

	(void) state;
	assert_non_null(stop.data);
	engine_start(&e, model_path, &roomy);
	engine_wait_ready(&e);
	client_open(&other, &e);
	client_open(&c, &e);
	be_busy(&other);
	for (uint64_t i = 0; i < 5; i++)
	{
		q3p_request m = shadowed("how much is it?", i);

		m.n_stops = 1; /* means nothing here */
		client_request_labels(&c, i, &m, &stop, departments);
		free(client_frame(&c).payload);
	}
	be_idle(&e, &other);
	assert_int_equal(count_shadows(&e, &c, told, 5), 3);
	assert_true(told[0] && told[1] && told[2]);
	free((char *) stop.data);
	client_close(&c);
	client_close(&other);
	assert_int_equal(engine_stop(&e), 0);
}

/* Nobody notices one that takes long; it goes on when its client is gone, and is charged to nobody.
 */
static void
test_shadow_aside(void **state)
{
	q3p_request m = shadowed("the meter is fine", 1);
	engine e;
	client c;
	q3p_activity row;
	answer a;
	q3p_status status;
	frame f;

	(void) state;
	engine_start(&e, model_path, &roomy);
	engine_wait_ready(&e);
	client_open(&c, &e);
	m.escalate_thinking = true;
	m.thinking_budget = 1500;
	a = ask(&c, &m);
	client_close(&c);
	client_open(&c, &e);
	usleep(50000);
	assert_int_equal(client_activity(&c, &row, 1), 0);
	m.shadow = false;
	m.token_quota = (uint32_t) (3 * a.prompt_tokens);
	ask(&c, &m);
	assert_true(engine_shadow_question(&e) == 1);
	ask(&c, &m);
	/* The engine itself counts what it computes, and how many clients asked. */
	do
	{
		assert_true(engine_status(&e, &status, &f));
		free(f.payload);
	} while (status.requests < 3 || status.classified < 3);
	assert_int_equal(status.requests, 3);
	assert_int_equal(status.output_tokens, 1501);
	client_close(&c);
	assert_int_equal(engine_stop(&e), 0);
}

/* One that has all the room gives way; the engine's end waits for none. */
static void
test_shadow_gives_way(void **state)
{
	q3p_request m = shadowed("the meter is fine", 1);
	engine e;
	client c;
	uint64_t question;

	(void) state;
	engine_start(&e, model_path, &runtime); /* room for one sequence of the whole context */
	engine_wait_ready(&e);
	client_open(&c, &e);
	m.escalate_thinking = true; /* as long as there is room */
	ask(&c, &m);
	usleep(30000);
	m = shadowed("the meter is not fine", 2);
	m.escalate_below = 2;
	m.escalate_thinking = true;
	m.thinking_budget = 400;
	assert_true(ask(&c, &m).escalated);
	m = shadowed("the meter is back", 3);
	ask(&c, &m);
	/* A fast machine may have come to the end of the first. */
	while ((question = engine_shadow_question(&e)) != 3)
		assert_true(question == 1);
	for (uint64_t i = 0; i < 3; i++)
	{
		m = shadowed("the meter is gone", i);
		m.escalate_thinking = true;
		ask(&c, &m);
	}
	usleep(30000);
	assert_int_equal(engine_stop(&e), 0);
	client_close(&c);
}

static int
start_shared(void **state)
{
	(void) state;
	if (!tiny_qwen_write(model_path, sizeof(model_path), 11))
		return -1;
	engine_start(&shared, model_path, &runtime);
	engine_wait_ready(&shared);
	return 0;
}

static int
stop_shared(void **state)
{
	int code = engine_stop(&shared);

	(void) state;
	unlink(model_path);
	return code;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_escalation),
	    cmocka_unit_test(test_thinking),
	    cmocka_unit_test(test_many),
	    cmocka_unit_test(test_cancel),
	    cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_budget_of_answers),
	    cmocka_unit_test(test_off_label),
	    cmocka_unit_test(test_early_exit),
	    cmocka_unit_test(test_early_exit_without_cache),
	    cmocka_unit_test(test_equal_thoughts),
	    cmocka_unit_test(test_shadow),
	    cmocka_unit_test(test_shadow_limits),
	    cmocka_unit_test(test_shadow_bytes),
	    cmocka_unit_test(test_shadow_aside),
	    cmocka_unit_test(test_shadow_gives_way),
	};

	return cmocka_run_group_tests(tests, start_shared, stop_shared);
}
