/*
 * test_stages.c: requests that take several jobs: labels behind a thought, and efficient answers
 * that are computed again in mode precise. Over the engine's sockets, with a tiny random model.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "service_client.h"
#include "tiny_qwen.h"

#define N_LABELS 3
#define BUDGET 12

static char model_path[64];
static const q3_runtime_options runtime = {
    .threads = 1, .context_length = 2048, .max_batch_tokens = 64};
static engine shared;

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
	double probs[N_LABELS], margin;
	uint32_t mode;
	bool escalated;
	int32_t prompt_tokens, output_tokens, thinking_tokens;
	double first_ms, latency_ms;
	char thinking[512];
	size_t thinking_len;
} answer;

static answer
take(client *c, uint64_t *id)
{
	frame f;
	q3p_result r = client_result(c, &f);
	answer a = {.margin = r.margin,
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
		m.thinking_budget = BUDGET;
		alone[i] = ask(&c, &m);
		assert_int_equal(alone[i].escalated, i % 3 == 0);
	}
	for (uint64_t id = 0; id < N; id++)
	{
		int i = (int) id / 2;

		m = classify(texts[i], Q3P_EFFICIENT);
		m.escalate_below = i % 3 == 0 ? 2 : 0;
		m.escalate_thinking = i % 2 == 0;
		m.thinking_budget = BUDGET;
		client_request_labels(&c, id, &m, NULL, departments);
	}
	for (int n = 0; n < N; n++)
	{
		uint64_t id;
		answer a = take(&c, &id);

		assert_same_probs(&a, &alone[id / 2]);
		assert_int_equal(a.prompt_tokens, alone[id / 2].prompt_tokens);
		assert_int_equal(a.output_tokens, alone[id / 2].output_tokens);
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
	    cmocka_unit_test(test_escalation), cmocka_unit_test(test_thinking),
	    cmocka_unit_test(test_many),       cmocka_unit_test(test_cancel),
	    cmocka_unit_test(test_errors),     cmocka_unit_test(test_budget_of_answers),
	};

	return cmocka_run_group_tests(tests, start_shared, stop_shared);
}
