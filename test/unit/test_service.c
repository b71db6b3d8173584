/*
 * test_service.c: the engine's service over its sockets, as a forked child with a tiny random
 * model.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "service_client.h"
#include "tiny_qwen.h"

static char model_path[64];
static const q3_runtime_options runtime = {
    .threads = 1, .context_length = 2048, .max_batch_tokens = 64};
static engine shared; /* for the tests that leave it as it was */

static q3p_request
request(uint32_t kind, const char *prompt, int32_t max_tokens)
{
	return (q3p_request){.kind = kind,
	                     .mode = Q3P_AUTO,
	                     .prompt = {prompt, strlen(prompt)},
	                     .max_tokens = max_tokens};
}

/* Waits until no request is alive; how long that took. */
static double
wait_idle(client *c)
{
	double start = now_ms();
	q3p_activity row;

	while (client_activity(c, &row, 1) > 0)
	{
		assert_true(now_ms() < start + WAIT_MS);
		usleep(1000);
	}
	return now_ms() - start;
}

/* Waits until a request decodes. */
static q3p_activity
wait_decoding(client *c)
{
	double start = now_ms();
	q3p_activity rows[64];

	for (;;)
	{
		uint32_t n = client_activity(c, rows, 64);

		for (uint32_t i = 0; i < n && i < 64; i++)
			if (rows[i].phase == Q3P_DECODE && rows[i].output_tokens >= 3)
				return rows[i];
		assert_true(now_ms() < start + WAIT_MS);
		usleep(1000);
	}
}

/* ---------------------------------------------------------------------------------------------
 * Kinds of request
 * --------------------------------------------------------------------------------------------- */

static void
test_text_kinds(void **state)
{
	static const int32_t ids[] = {'H', 'i', 0xff, '!', 258};
	client c;
	frame f;
	q3p_result r;
	q3p_request m = request(Q3P_COUNT_TOKENS, "Hi <|im_end|>", 0);
	int32_t token;

	(void) state;
	client_open(&c, &shared);
	client_request(&c, 1, &m, NULL);
	r = client_result(&c, &f);
	assert_int_equal(f.header.id, 1);
	assert_int_equal(r.prompt_tokens, 13); /* bytes: nothing became a control token */
	free(f.payload);

	m.kind = Q3P_TOKENIZE;
	client_request(&c, 2, &m, NULL);
	r = client_result(&c, &f);
	assert_int_equal(r.n_tokens, 13);
	memcpy(&token, r.tokens + 4, sizeof(token));
	assert_int_equal(token, 'i');
	free(f.payload);

	m = request(Q3P_DETOKENIZE, "", 0);
	m.n_tokens = 5;
	m.tokens = (const unsigned char *) ids;
	client_request(&c, 3, &m, NULL);
	r = client_result(&c, &f);
	assert_int_equal(r.value.len, strlen("Hi\xef\xbf\xbd!<|im_end|>"));
	assert_memory_equal(r.value.data, "Hi\xef\xbf\xbd!<|im_end|>", r.value.len);
	free(f.payload);

	token = TINY_VOCAB;
	m.n_tokens = 1;
	m.tokens = (const unsigned char *) &token;
	client_request(&c, 4, &m, NULL);
	client_expect_error(&c, 4, "22023", "token 261 is not in the vocabulary");

	m = request(Q3P_LOGPROB, "It was the best of times", 0);
	client_request(&c, 5, &m, NULL);
	r = client_result(&c, &f);
	assert_true(r.score < 0 && r.score > -50);
	assert_int_equal(r.prompt_tokens, 24);
	free(f.payload);
	m = request(Q3P_LOGPROB, "x", 0);
	client_request(&c, 6, &m, NULL);
	r = client_result(&c, &f);
	assert_true(isnan(r.score));
	free(f.payload);
	client_close(&c);
}

static void
test_bad_requests(void **state)
{
	client c;
	q3p_request m = request(Q3P_GENERATE, "x", 0);
	char *text = malloc(3000);

	(void) state;
	assert_non_null(text);
	memset(text, 'x', 3000);
	client_open(&c, &shared);
	client_request(&c, 1, &m, NULL);
	client_expect_error(&c, 1, "22023", "max_tokens");
	m = request(Q3P_GENERATE, "x", 5);
	m.mode = Q3P_EFFICIENT;
	m.thinking = true;
	client_request(&c, 2, &m, NULL);
	client_expect_error(&c, 2, "22023", "thinking");
	m = request(Q3P_GENERATE, "x", 5);
	m.prompt = (q3p_bytes){text, 3000};
	client_request(&c, 3, &m, NULL);
	client_expect_error(&c, 3, "54000", "but the context length is 2048");
	m = request(Q3P_GENERATE, "x", 5);
	m.has_top_p = true;
	m.top_p = 7;
	client_request(&c, 4, &m, NULL);
	client_expect_error(&c, 4, "22023", "top_p");
	free(text);
	client_close(&c);
}

/* ---------------------------------------------------------------------------------------------
 * Classification
 * --------------------------------------------------------------------------------------------- */

#define SYSTEM                                                                                     \
	"Say which department should answer the message: billing, outage or spam. One word, please."

static const q3p_bytes departments[] = {{"billing", 7}, {"outage", 6}, {"spam", 4}};

static q3p_request
classify(const char *prompt)
{
	q3p_request m = request(Q3P_CLASSIFY, prompt, 0);

	m.system = (q3p_bytes){SYSTEM, strlen(SYSTEM)};
	m.n_labels = 3;
	return m;
}

/* The label and its probability must be the best of those given. */
static void
check_classified(const q3p_result *r)
{
	double probs[3], sum = 0;
	int best = 0;

	assert_int_equal(r->n_probs, 3);
	memcpy(probs, r->probs, sizeof(probs));
	for (int i = 0; i < 3; i++)
	{
		assert_true(probs[i] > 0 && probs[i] < 1);
		sum += probs[i];
		best = probs[i] > probs[best] ? i : best;
	}
	assert_true(fabs(sum - 1) < 1e-9);
	assert_true(r->score == probs[best]);
	assert_int_equal(r->value.len, departments[best].len);
	assert_memory_equal(r->value.data, departments[best].data, r->value.len);
	assert_int_equal(r->output_tokens, 0);
}

static void
test_classify(void **state)
{
	client c;
	frame f;
	q3p_request m = classify("the bill is wrong");
	q3p_result r;
	int32_t prompt_tokens;
	bool deduplicated = false;

	(void) state;
	client_open(&c, &shared);
	client_request_labels(&c, 1, &m, NULL, departments);
	r = client_result(&c, &f);
	check_classified(&r);
	prompt_tokens = r.prompt_tokens;
	assert_int_equal(r.cached_tokens, 0);
	assert_false(r.deduplicated);
	free(f.payload);
	m = classify("the bill is right");
	client_request_labels(&c, 2, &m, NULL, departments);
	r = client_result(&c, &f);
	check_classified(&r);
	assert_int_equal(r.prompt_tokens, prompt_tokens);
	assert_true(r.cached_tokens >= 64 && r.cached_tokens < prompt_tokens);
	free(f.payload);
	for (uint64_t id = 3; id < 43; id++) /* more than one step takes */
		client_request_labels(&c, id, &m, NULL, departments);
	for (uint64_t id = 3; id < 43; id++)
	{
		r = client_result(&c, &f);
		check_classified(&r);
		deduplicated = deduplicated || r.deduplicated;
		assert_true(r.queue_ms >= 0 && r.latency_ms >= r.queue_ms);
		free(f.payload);
	}
	assert_true(deduplicated);
	m.n_labels = 1; /* nothing to choose */
	client_request_labels(&c, 50, &m, NULL, departments);
	r = client_result(&c, &f);
	assert_int_equal(r.n_probs, 1);
	assert_true(r.score == 1 && r.prompt_tokens == prompt_tokens);
	assert_memory_equal(r.value.data, "billing", 7);
	free(f.payload);
	client_close(&c);
}

/* The text's vector, of length 1. */
static void
ask_vector(client *c, const char *text, bool mean, float vector[TINY_EMBD])
{
	q3p_request m = request(Q3P_EMBED, text, 0);
	q3p_result r;
	double length = 0;
	frame f;

	m.mean = mean;
	client_request(c, 1, &m, NULL);
	r = client_result(c, &f);
	assert_int_equal(r.n_vector, TINY_EMBD);
	assert_int_equal(r.prompt_tokens, strlen(text) + 1);
	assert_int_equal(r.output_tokens, 0);
	memcpy(vector, r.vector, sizeof(float) * TINY_EMBD);
	for (int i = 0; i < TINY_EMBD; i++)
		length += (double) vector[i] * vector[i];
	assert_true(fabs(length - 1) < 1e-6);
	free(f.payload);
}

static void
test_embed(void **state)
{
	float a[TINY_EMBD], b[TINY_EMBD];
	q3p_request m = request(Q3P_EMBED, "", 0);
	char *text = calloc(1, 3001);
	client c;

	(void) state;
	client_open(&c, &shared);
	ask_vector(&c, "text", false, a);
	ask_vector(&c, "text", false, b);
	assert_memory_equal(a, b, sizeof(a));
	ask_vector(&c, "text", true, b);
	assert_memory_not_equal(a, b, sizeof(a));
	ask_vector(&c, "", true, a);
	ask_vector(&c, "", false, b);
	assert_memory_equal(a, b, sizeof(a)); /* of the end token alone */
	memset(text, 'x', 3000);
	m.prompt = (q3p_bytes){text, 3000};
	client_request(&c, 2, &m, NULL);
	client_expect_error(&c, 2, "54000", "context length");
	free(text);
	client_close(&c);
}

/* What one role asked is cached for that role only, whoever's connection it came over. */
static void
test_prefixes_of_roles(void **state)
{
	client c;
	frame f;
	q3p_request m = classify("the meter is wrong");

	(void) state;
	client_open(&c, &shared);
	for (uint64_t id = 1; id <= 4; id++)
	{
		m.role = id % 2 == 0 ? 20001 : 20002;
		client_request_labels(&c, id, &m, NULL, departments);
		assert_int_equal(client_result(&c, &f).cached_tokens > 0, id > 2);
		free(f.payload);
	}
	client_close(&c);
}

#define TURN(s)                                                                                    \
	{                                                                                              \
		(s), sizeof(s) - 1                                                                         \
	}

/* Examples count, are not taken for others, and are computed once for all prompts. */
static void
test_examples(void **state)
{
	static const q3p_bytes some[] = {TURN("the invoice is late, and nobody answers the telephone"),
	                                 TURN("billing")},
	                       others[] = {
	                           TURN("the invoice is late, and nobody answers the telephone"),
	                           TURN("outage")};
	q3p_lists lists = {.labels = departments};
	q3p_request m = classify("the bill is wrong");
	double without[3], with[3], with_others[3];
	int32_t n_without, n_with;
	q3p_result r;
	client c;
	frame f;

	(void) state;
	client_open(&c, &shared);
	client_request_lists(&c, 1, &m, &lists);
	r = client_result(&c, &f);
	memcpy(without, r.probs, sizeof(without));
	n_without = r.prompt_tokens;
	free(f.payload);
	m.n_turns = 2;
	lists.turns = some;
	client_request_lists(&c, 2, &m, &lists);
	lists.turns = others;
	client_request_lists(&c, 3, &m, &lists);
	for (int i = 0; i < 2; i++)
	{
		r = client_result(&c, &f);
		check_classified(&r);
		assert_false(r.deduplicated);
		memcpy(f.header.id == 2 ? with : with_others, r.probs, sizeof(with));
		n_with = r.prompt_tokens;
		free(f.payload);
	}
	assert_true(n_with > n_without + 50);
	assert_memory_not_equal(with, without, sizeof(with));
	assert_memory_not_equal(with, with_others, sizeof(with));
	m.prompt = (q3p_bytes){"something else", 14};
	client_request_lists(&c, 4, &m, &lists);
	r = client_result(&c, &f);
	assert_true(r.cached_tokens > n_without);
	free(f.payload);
	m.kind = Q3P_GENERATE;
	m.max_tokens = 2;
	client_request_lists(&c, 5, &m, &lists);
	r = client_result(&c, &f);
	assert_true(r.prompt_tokens > n_without + 50);
	free(f.payload);
	client_close(&c);
}

static void
test_bad_labels(void **state)
{
	static q3p_bytes many[Q3P_MAX_LABELS + 1];
	const q3p_bytes equal[] = {{"a", 1}, {"b", 1}, {"a", 1}}, empty[] = {{"a", 1}, {"", 0}};
	client c;
	q3p_request m = classify("x");

	(void) state;
	client_open(&c, &shared);
	client_request_labels(&c, 1, &m, NULL, equal);
	client_expect_error(&c, 1, "22023", "labels must be distinct");
	m.n_labels = 2;
	client_request_labels(&c, 2, &m, NULL, empty);
	client_expect_error(&c, 2, "22023", "labels must not be empty");
	m.n_labels = 0;
	client_request_labels(&c, 3, &m, NULL, NULL);
	client_expect_error(&c, 3, "22023", "at least one label");
	m.n_labels = Q3P_MAX_LABELS + 1;
	client_request_labels(&c, 4, &m, NULL, many);
	client_expect_error(&c, 4, "22023", "1001 labels are more than the 1000 that are allowed");
	client_close(&c);
}

/* The next status that counts so many requests; nothing runs any more. */
static q3p_status
idle_status(engine *e, uint64_t requests)
{
	q3p_status s;
	frame f;

	do
	{
		assert_true(engine_status(e, &s, &f));
		free(f.payload);
	} while (s.state != Q3P_READY || s.requests < requests || s.running + s.queued > 0);
	return s;
}

static void
test_pins_and_counters(void **state)
{
	engine e;
	client c;
	frame f;
	q3p_request pin = request(Q3P_PIN, "", 0), m = classify("the bill is wrong");
	q3p_result r;
	q3p_status s;

	(void) state;
	engine_start(&e, model_path, &runtime);
	client_open(&c, &e);
	client_request(&c, 1, &pin, NULL);
	client_expect_error(&c, 1, "22023", "system prompt to pin is missing");
	pin.system = m.system;
	client_request(&c, 2, &pin, NULL);
	r = client_result(&c, &f);
	assert_true(r.prompt_tokens > (int32_t) strlen(SYSTEM));
	assert_int_equal(r.cached_tokens, 0);
	free(f.payload);
	s = idle_status(&e, 2);
	assert_true(s.pinned_blocks > 0 && s.prefix_blocks == s.pinned_blocks);
	assert_int_equal(s.kv_blocks_free, s.kv_blocks - s.pinned_blocks);

	client_request_labels(&c, 3, &m, NULL, departments);
	r = client_result(&c, &f);
	assert_int_equal(r.cached_tokens, s.pinned_blocks * s.kv_block_tokens);
	free(f.payload);
	for (uint64_t id = 4; id < 24; id++)
		client_request_labels(&c, id, &m, NULL, departments);
	for (uint64_t id = 4; id < 24; id++)
	{
		r = client_result(&c, &f);
		free(f.payload);
	}
	s = idle_status(&e, 23);
	assert_int_equal(s.classified, 21);
	assert_true(s.cached_tokens > 0 && s.steps > 0);
	assert_true(s.deduplicated > 0);
	assert_true(s.prefix_blocks > s.pinned_blocks);
	pin = request(Q3P_UNPIN, "", 0);
	client_request(&c, 30, &pin, NULL);
	r = client_result(&c, &f);
	free(f.payload);
	s = idle_status(&e, 24);
	assert_int_equal(s.pinned_blocks, 0);
	assert_int_equal(s.kv_blocks_free, s.kv_blocks);
	client_close(&c);
	assert_int_equal(engine_stop(&e), 0);
}

/* ---------------------------------------------------------------------------------------------
 * Many requests at once
 * --------------------------------------------------------------------------------------------- */

#define N_PIPELINED 12

static q3p_request
numbered_request(int i, char *prompt)
{
	q3p_request m;

	sprintf(
	    prompt, "question %d%.*s", i, i * 7,
	    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefg");
	m = request(i % 3 == 2 ? Q3P_STREAM : Q3P_GENERATE, prompt, 10 + i);
	m.mode = i % 2 ? Q3P_PRECISE : Q3P_AUTO;
	m.has_temperature = true;
	m.temperature = i % 4 ? 0.8 : 0;
	m.seed = (uint64_t) i;
	return m;
}

/* Takes one frame; appends a request's text to its buffer. True when it was a result. */
static bool
take_answer(client *c, q3_buffer *texts, size_t n)
{
	frame f = client_frame(c);
	bool last = f.header.type != Q3P_CHUNK;

	assert_true(f.header.id < n);
	if (last)
	{
		q3p_result r;

		assert_int_equal(f.header.type, Q3P_RESULT);
		assert_true(q3p_result_decode(f.payload, f.header.length, &r));
		assert_int_equal(r.mode, Q3P_PRECISE);
		assert_int_equal(r.finish, Q3P_FINISH_LENGTH);
		assert_int_equal(r.output_tokens, 10 + (int) f.header.id);
		assert_true(r.confidence > 0 && r.confidence <= 1);
		assert_true(r.queue_ms >= 0 && r.latency_ms >= r.queue_ms);
		assert_int_equal(r.digest.len, 64);
		assert_true(r.reason.len > 0);
		assert_true(q3_buffer_append(&texts[f.header.id], r.value.data, r.value.len));
	}
	else
		assert_true(q3_buffer_append(&texts[f.header.id], f.payload, f.header.length));
	free(f.payload);
	return last;
}

static void
test_pipelined_answers_equal_single_ones(void **state)
{
	q3_buffer single[N_PIPELINED] = {0}, pipelined[N_PIPELINED] = {0};
	char prompt[256];
	client c;
	int left = N_PIPELINED;

	(void) state;
	client_open(&c, &shared);
	for (int i = 0; i < N_PIPELINED; i++)
	{
		q3p_request m = numbered_request(i, prompt);

		client_request(&c, (uint64_t) i, &m, NULL);
		while (!take_answer(&c, single, N_PIPELINED))
			;
	}
	for (int i = 0; i < N_PIPELINED; i++)
	{
		q3p_request m = numbered_request(i, prompt);

		client_request(&c, (uint64_t) i, &m, NULL);
	}
	while (left > 0)
		left -= take_answer(&c, pipelined, N_PIPELINED);
	for (int i = 0; i < N_PIPELINED; i++)
	{
		assert_int_equal(q3_buffer_len(&single[i]), q3_buffer_len(&pipelined[i]));
		assert_memory_equal(q3_buffer_bytes(&single[i]), q3_buffer_bytes(&pipelined[i]),
		                    q3_buffer_len(&single[i]));
		q3_buffer_free(&single[i]);
		q3_buffer_free(&pipelined[i]);
	}
	wait_idle(&c);
	client_close(&c);
}

/* A text of megabytes, which takes a while to tokenize, does not hold up a short request. */
static void
test_long_text_does_not_block(void **state)
{
	const size_t size = 8 * 1024 * 1024;
	char *text = malloc(size);
	q3p_request m = request(Q3P_COUNT_TOKENS, "", 0);
	client c;
	frame f;
	q3p_result r;

	(void) state;
	assert_non_null(text);
	for (size_t i = 0; i < size; i++)
		text[i] = i % 7 == 6 ? ' ' : (char) ('a' + i % 26);
	client_open(&c, &shared);
	m.prompt = (q3p_bytes){text, size};
	client_request(&c, 1, &m, NULL);
	m.prompt.len = 10;
	client_request(&c, 2, &m, NULL);
	r = client_result(&c, &f);
	assert_int_equal(f.header.id, 2);
	assert_int_equal(r.prompt_tokens, 10);
	free(f.payload);
	r = client_result(&c, &f);
	assert_int_equal(f.header.id, 1);
	assert_int_equal(r.prompt_tokens, size);
	free(f.payload);
	free(text);
	client_close(&c);
}

/* ---------------------------------------------------------------------------------------------
 * Cancelling, closing
 * --------------------------------------------------------------------------------------------- */

static void
test_cancel(void **state)
{
	client c, watcher;
	q3p_request m = request(Q3P_GENERATE, "go on and on", 2000);
	q3p_activity row;
	frame f;

	(void) state;
	client_open(&c, &shared);
	client_open(&watcher, &shared);
	client_request(&c, 77, &m, NULL);
	row = wait_decoding(&watcher);
	assert_int_equal(row.id, 77);
	assert_int_equal(row.pid, getpid());
	assert_int_equal(row.role, 10);
	assert_int_equal(row.database, 5);
	assert_int_equal(row.kind, Q3P_GENERATE);
	assert_int_equal(row.mode, Q3P_PRECISE);
	assert_int_equal(row.prompt_done, row.prompt_tokens);
	assert_true(row.kv_tokens >= row.prompt_tokens && row.age_ms > 0);
	client_plain(&c, Q3P_CANCEL, 12345); /* nothing of that number: no answer */
	client_plain(&c, Q3P_CANCEL, 77);
	client_expect_error(&c, 77, "57014", "cancelled");
	assert_true(wait_idle(&watcher) < 2000);
	/* The connection is as good as new. */
	m = request(Q3P_GENERATE, "x", 3);
	client_request(&c, 78, &m, NULL);
	client_result(&c, &f);
	free(f.payload);
	client_plain(&c, Q3P_CANCEL, 78); /* too late */
	client_request(&c, 79, &m, NULL);
	client_result(&c, &f);
	assert_int_equal(f.header.id, 79);
	free(f.payload);
	client_close(&c);
	client_close(&watcher);
}

static void
test_closed_connection_frees_its_requests(void **state)
{
	client c, watcher;
	q3p_request m = request(Q3P_STREAM, "go on and on", 1900);
	frame f;

	(void) state;
	client_open(&watcher, &shared);
	client_open(&c, &shared);
	for (uint64_t id = 0; id < 20; id++)
		client_request(&c, id, &m, NULL);
	f = client_frame(&c);
	assert_int_equal(f.header.type, Q3P_CHUNK);
	free(f.payload);
	client_close(&c);
	assert_true(wait_idle(&watcher) < 2000);
	client_close(&watcher);
}

/* One client that reads nothing costs the others nothing, and gets all it is owed in the end. */
static void
test_slow_reader(void **state)
{
	enum
	{
		N = 30000
	};
	int32_t *ids = malloc(sizeof(int32_t) * N);
	q3p_request m = request(Q3P_DETOKENIZE, "", 0);
	client slow, other;
	frame f;

	(void) state;
	assert_non_null(ids);
	for (int i = 0; i < N; i++)
		ids[i] = 'a' + i % 26;
	client_open(&slow, &shared);
	client_open(&other, &shared);
	m.n_tokens = N;
	m.tokens = (const unsigned char *) ids;
	for (uint64_t id = 0; id < 10; id++)
		client_request(&slow, id, &m, NULL);
	m = request(Q3P_GENERATE, "x", 3);
	client_request(&other, 1, &m, NULL);
	client_result(&other, &f);
	free(f.payload);
	for (int i = 0; i < 10; i++)
	{
		q3p_result r = client_result(&slow, &f);

		assert_int_equal(r.value.len, N);
		free(f.payload);
	}
	free(ids);
	client_close(&slow);
	client_close(&other);
}

/* Nor one that asks on and on: the engine stops reading before its answers fill the memory. */
static void
test_questions_without_reading(void **state)
{
	enum
	{
		N = 20000
	};
	q3p_request m = request(Q3P_GENERATE, "go on and on", 1900);
	client slow, other;
	size_t sent = 0, answers;
	char question[64];
	size_t n = q3p_plain_encode(Q3P_ACTIVITY, 0, NULL, 0, question, sizeof(question));
	double last = now_ms();
	frame f;

	(void) state;
	client_open(&other, &shared);
	for (uint64_t id = 0; id < 30; id++)
		client_request(&other, id, &m, NULL);
	client_open(&slow, &shared);
	while (sent < N * n && now_ms() < last + 300)
	{
		size_t at = sent % n;
		ssize_t got = send(slow.fd, question + at, n - at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (got > 0)
		{
			sent += (size_t) got;
			last = now_ms();
		}
	}
	assert_true(sent < N * n); /* all answers together would be 40 MB */
	answers = sent / n;
	for (size_t i = 0; i < answers; i++)
	{
		f = client_frame(&slow);
		assert_int_equal(f.header.type, Q3P_ACTIVITY_RESULT);
		free(f.payload);
	}
	client_close(&slow);
	client_close(&other);
}

static uint32_t
dice(uint64_t *state, uint32_t sides)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (*state >> 33) % sides;
}

static void
random_request(client *c, uint64_t *state)
{
	static const uint32_t kinds[] = {Q3P_GENERATE, Q3P_STREAM,       Q3P_LOGPROB,
	                                 Q3P_TOKENIZE, Q3P_COUNT_TOKENS, 99};
	static char text[3000];
	const q3p_bytes stops[] = {{"ab", 2}, {"", 0}};
	q3p_request m = request(kinds[dice(state, 6)], "", (int32_t) dice(state, 60));

	memset(text, 'k', sizeof(text));
	m.mode = dice(state, 3);
	m.thinking = dice(state, 4) == 0;
	m.has_temperature = dice(state, 2);
	m.temperature = dice(state, 20) / 10.0;
	m.seed = dice(state, 1000);
	m.n_stops = dice(state, 20) == 0 ? 2 : dice(state, 2);
	m.prompt = (q3p_bytes){text, dice(state, dice(state, 10) == 0 ? 3000 : 100)};
	client_request(c, dice(state, 30), &m, stops);
}

/* Takes what has come; the socket must not be waited for. */
static void
drop_answers(client *c)
{
	char data[65536];

	while (recv(c->fd, data, sizeof(data), MSG_DONTWAIT) > 0)
		;
}

/* Clients that come, ask, cancel and go as they like: in the end nothing is held. */
static void
test_restless_clients(void **state)
{
	enum
	{
		N = 6
	};
	client clients[N], watcher;
	uint64_t random = 4711;
	frame f;
	q3p_result r;
	q3p_request m = request(Q3P_GENERATE, "x", 3);

	(void) state;
	for (int i = 0; i < N; i++)
		client_open(&clients[i], &shared);
	for (int turn = 0; turn < 3000; turn++)
	{
		client *c = &clients[dice(&random, N)];
		uint32_t what = dice(&random, 100);

		if (what < 40)
			random_request(c, &random);
		else if (what < 65)
			client_plain(c, Q3P_CANCEL, dice(&random, 30));
		else if (what < 75)
			client_plain(c, Q3P_ACTIVITY, 0);
		else if (what < 97)
			drop_answers(c);
		else
		{
			client_close(c);
			client_open(c, &shared);
		}
	}
	for (int i = 0; i < N; i++)
		client_close(&clients[i]);
	client_open(&watcher, &shared);
	wait_idle(&watcher);
	client_request(&watcher, 1, &m, NULL);
	r = client_result(&watcher, &f);
	assert_int_equal(r.output_tokens, 3);
	free(f.payload);
	client_close(&watcher);
}

/* ---------------------------------------------------------------------------------------------
 * Malformed frames
 * --------------------------------------------------------------------------------------------- */

static void
expect_rejected(const void *data, size_t n, bool hello)
{
	client c;

	client_connect(&c, &shared);
	if (hello)
		client_hello(&c, Q3P_VERSION);
	send_bytes(c.fd, data, n);
	client_expect_end(&c);
	client_close(&c);
}

static void
test_malformed_frames(void **state)
{
	q3p_header huge = {.length = Q3P_MAX_FRAME + 1, .type = Q3P_REQUEST};
	q3p_header unknown = {.type = 999};
	q3p_header early = {.type = Q3P_ACTIVITY};
	char junk[200], cut[512];
	q3p_request m = request(Q3P_GENERATE, "hello", 5);
	q3p_header header;
	size_t n;
	client c;

	(void) state;
	memset(junk, 0xee, sizeof(junk));
	expect_rejected(junk, sizeof(junk), true);
	expect_rejected(&huge, sizeof(huge), true);
	expect_rejected(&unknown, sizeof(unknown), true);
	expect_rejected(&early, sizeof(early), false); /* no HELLO before it */
	/* A request that is shorter than it says inside. */
	n = q3p_request_encode(1, &m, NULL, cut, sizeof(cut));
	assert_true(n < sizeof(cut));
	memcpy(&header, cut, sizeof(header));
	header.length -= 3;
	memcpy(cut, &header, sizeof(header));
	expect_rejected(cut, n - 3, true);
	/* A second HELLO. */
	client_open(&c, &shared);
	client_hello(&c, Q3P_VERSION);
	client_expect_end(&c);
	client_close(&c);
	/* Another version is told so. */
	client_connect(&c, &shared);
	client_hello(&c, Q3P_VERSION + 1);
	client_expect_error(&c, 0, "08P01", "protocol version");
	client_expect_end(&c);
	client_close(&c);
	/* And the engine is still there. */
	client_open(&c, &shared);
	wait_idle(&c);
	client_close(&c);
}

/* A frame may come in any pieces. */
static void
test_frames_in_pieces(void **state)
{
	char out[512];
	q3p_request m = request(Q3P_COUNT_TOKENS, "12345", 0);
	size_t n = q3p_request_encode(9, &m, NULL, out, sizeof(out));
	client c;
	frame f;
	q3p_result r;

	(void) state;
	client_open(&c, &shared);
	for (size_t i = 0; i < n; i++)
	{
		send_bytes(c.fd, out + i, 1);
		if (i % 16 == 0)
			usleep(500);
	}
	r = client_result(&c, &f);
	assert_int_equal(r.prompt_tokens, 5);
	free(f.payload);
	client_close(&c);
}

/* ---------------------------------------------------------------------------------------------
 * The worker's side
 * --------------------------------------------------------------------------------------------- */

static void
test_status_tells_states_and_numbers(void **state)
{
	engine e;
	client c;
	q3p_status s;
	frame f;
	q3p_request m = request(Q3P_GENERATE, "x", 5);
	bool seen[8] = {false};

	(void) state;
	engine_start(&e, model_path, &runtime);
	client_open(&c, &e); /* before it is ready: waits */
	client_request(&c, 1, &m, NULL);
	do
	{
		assert_true(engine_status(&e, &s, &f));
		assert_true(s.state < 8);
		seen[s.state] = true;
		if (s.state == Q3P_READY)
		{
			assert_int_equal(s.context_length, 2048);
			assert_int_equal(s.max_batch_tokens, 64);
			assert_int_equal(s.threads, 1);
			assert_true(s.kv_blocks > 0 && s.kv_blocks_free == s.kv_blocks);
			assert_true(s.n_params > 0 && s.weight_bytes > 0 && s.kv_bytes > 0);
			assert_int_equal(s.digest.len, 64);
			assert_memory_equal(s.architecture.data, "qwen3", 5);
			assert_true(s.isa.len > 0 && s.load_ms > 0);
		}
		free(f.payload);
	} while (s.state != Q3P_READY);
	assert_true(seen[Q3P_STARTING] && !seen[Q3P_FAILED]);
	client_result(&c, &f);
	free(f.payload);
	do
	{
		assert_true(engine_status(&e, &s, &f));
		free(f.payload);
	} while (s.output_tokens == 0 || s.running + s.queued > 0);
	assert_int_equal(s.requests, 1);
	assert_int_equal(s.errors, 0);
	assert_int_equal(s.output_tokens, 5);
	assert_true(s.prompt_tokens > 0);
	assert_int_equal(s.kv_blocks_free, s.kv_blocks);
	client_close(&c);
	assert_int_equal(engine_stop(&e), 0);
}

static void
test_bad_model_fails(void **state)
{
	char path[] = "/tmp/qwen3dm-test-XXXXXX";
	int fd = mkstemp(path);
	engine e;
	client c;
	q3p_status s;
	frame f;

	(void) state;
	assert_true(fd >= 0 && write(fd, "not a model", 11) == 11);
	close(fd);
	engine_start(&e, path, &runtime);
	client_open(&c, &e);
	do
	{
		assert_true(engine_status(&e, &s, &f));
		if (s.state == Q3P_FAILED)
			assert_true(s.message.len > 0);
		free(f.payload);
	} while (s.state != Q3P_FAILED);
	assert_false(engine_status(&e, &s, &f));
	client_expect_end(&c);
	client_close(&c);
	assert_int_equal(engine_reap(&e), Q3_EXIT_FAILED);
	unlink(path);
}

/* The worker is gone: so is the engine, whatever it does. */
static void
test_ends_with_the_control_socket(void **state)
{
	engine e;
	client c;
	q3p_request m = request(Q3P_GENERATE, "x", 2000);
	double start;

	(void) state;
	engine_start(&e, model_path, &runtime);
	engine_wait_ready(&e);
	client_open(&c, &e);
	client_request(&c, 1, &m, NULL);
	wait_decoding(&c);
	start = now_ms();
	close(e.control);
	e.control = -1;
	assert_int_equal(engine_reap(&e), 0);
	assert_true(now_ms() - start < 2000);
	client_close(&c);
}

static void
test_stops_in_the_middle_of_work(void **state)
{
	engine e;
	client c, watcher;
	q3p_request m = request(Q3P_STREAM, "x", 2000);
	double start;

	(void) state;
	engine_start(&e, model_path, &runtime);
	engine_wait_ready(&e);
	client_open(&c, &e);
	for (uint64_t id = 0; id < 30; id++)
		client_request(&c, id, &m, NULL);
	client_open(&watcher, &e);
	wait_decoding(&watcher);
	start = now_ms();
	kill(e.pid, SIGINT); /* the postmaster's signals for the worker are not for us */
	kill(e.pid, SIGHUP);
	kill(e.pid, SIGUSR1);
	assert_int_equal(engine_stop(&e), 0);
	assert_true(now_ms() - start < 2000);
	client_close(&c);
	client_close(&watcher);
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
	return code; /* what the leak checker found, too */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_text_kinds),
	    cmocka_unit_test(test_bad_requests),
	    cmocka_unit_test(test_classify),
	    cmocka_unit_test(test_embed),
	    cmocka_unit_test(test_prefixes_of_roles),
	    cmocka_unit_test(test_examples),
	    cmocka_unit_test(test_bad_labels),
	    cmocka_unit_test(test_pins_and_counters),
	    cmocka_unit_test(test_pipelined_answers_equal_single_ones),
	    cmocka_unit_test(test_long_text_does_not_block),
	    cmocka_unit_test(test_cancel),
	    cmocka_unit_test(test_closed_connection_frees_its_requests),
	    cmocka_unit_test(test_slow_reader),
	    cmocka_unit_test(test_questions_without_reading),
	    cmocka_unit_test(test_restless_clients),
	    cmocka_unit_test(test_malformed_frames),
	    cmocka_unit_test(test_frames_in_pieces),
	    cmocka_unit_test(test_status_tells_states_and_numbers),
	    cmocka_unit_test(test_bad_model_fails),
	    cmocka_unit_test(test_ends_with_the_control_socket),
	    cmocka_unit_test(test_stops_in_the_middle_of_work),
	};

	return cmocka_run_group_tests(tests, start_shared, stop_shared);
}
