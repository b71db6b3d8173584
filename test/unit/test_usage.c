/*
 * test_usage.c: what requests used is told once, and quotas hold, over the engine's sockets.
 */
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
static engine shared;

static q3p_request
request(uint32_t kind, const char *prompt, int32_t max_tokens)
{
	return (q3p_request){.kind = kind,
	                     .mode = Q3P_PRECISE,
	                     .prompt = {prompt, strlen(prompt)},
	                     .max_tokens = max_tokens,
	                     .task = {"sort", 4},
	                     .query_id = 77};
}

/* Waits until a request of the connection has written so many tokens. */
static q3p_activity
wait_written(client *c, int32_t tokens)
{
	double start = now_ms();
	q3p_activity row;

	while (client_activity(c, &row, 1) == 0 || row.output_tokens < tokens)
	{
		assert_true(now_ms() < start + WAIT_MS);
		usleep(1000);
	}
	return row;
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

/* The next frame must be an error; its strings belong to *f. */
static q3p_error
expect_error(client *c, uint64_t id, const char *sqlstate, frame *f)
{
	q3p_error error;

	*f = client_frame(c);
	assert_int_equal(f->header.type, Q3P_ERROR);
	assert_int_equal(f->header.id, id);
	assert_true(q3p_error_decode(f->payload, f->header.length, &error));
	assert_string_equal(error.sqlstate, sqlstate);
	return error;
}

/* ---------------------------------------------------------------------------------------------
 * Usage
 * --------------------------------------------------------------------------------------------- */

static void
test_cancelled(void **state)
{
	client c;
	frame f;
	q3p_request m = request(Q3P_GENERATE, "tell me", 1900);
	q3p_activity row;
	q3p_usage u;

	(void) state;
	client_open(&c, &shared);
	client_request(&c, 1, &m, NULL);
	row = wait_written(&c, 5);
	assert_string_equal(row.task, "sort");
	assert_int_equal(row.query_id, 77);
	client_plain(&c, Q3P_CANCEL, 1);
	expect_error(&c, 1, "57014", &f);
	free(f.payload);
	u = engine_usage(&shared, &f);
	assert_int_equal(u.role, 10);
	assert_int_equal(u.database, 5);
	assert_int_equal(u.kind, Q3P_GENERATE);
	assert_int_equal(u.mode, Q3P_PRECISE);
	assert_int_equal(u.prompt_tokens, row.prompt_tokens);
	assert_true(u.output_tokens >= 5 && u.output_tokens < 1900);
	assert_true(u.latency_ms > 0);
	assert_int_equal(u.task.len, 4);
	assert_memory_equal(u.task.data, "sort", 4);
	free(f.payload);
	client_close(&c);
}

/* What a refused request has not used is not told; a connection that closes is. */
static void
test_errors_and_closing(void **state)
{
	client c, watcher;
	frame f;
	q3p_request m = request(Q3P_GENERATE, "x", 0);
	q3p_error error;
	q3p_usage u;

	(void) state;
	client_open(&watcher, &shared);
	client_open(&c, &shared);
	client_request(&c, 1, &m, NULL);
	error = expect_error(&c, 1, "22023", &f);
	assert_int_equal(error.prompt_tokens + error.output_tokens, 0);
	assert_int_equal(error.mode, Q3P_PRECISE);
	free(f.payload);
	m = request(Q3P_STREAM, "tell me", 1900);
	client_request(&c, 2, &m, NULL);
	wait_written(&watcher, 3);
	client_close(&c);
	u = engine_usage(&shared, &f);
	assert_int_equal(u.kind, Q3P_STREAM);
	assert_true(u.output_tokens >= 3);
	free(f.payload);
	wait_idle(&watcher);
	client_close(&watcher);
}

static uint32_t
dice(uint64_t *state, uint32_t sides)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (*state >> 33) % sides;
}

/*
 * Takes the frames that are there; how many requests have ended with them, other than by being
 * cancelled. *arrived: there was the answer to a question that was asked behind all of them.
 */
static int
count_answers(client *c, bool *arrived)
{
	q3p_header header;
	q3p_error error;
	int n = 0;

	while (q3_buffer_len(&c->in) > 0 &&
	       q3p_frame(q3_buffer_bytes(&c->in), q3_buffer_len(&c->in), &header) == 1)
	{
		const char *payload = q3_buffer_bytes(&c->in) + sizeof(header);

		n += header.type == Q3P_RESULT;
		*arrived = *arrived || header.type == Q3P_ACTIVITY_RESULT;
		if (header.type == Q3P_ERROR)
		{
			assert_true(q3p_error_decode(payload, header.length, &error));
			n += strcmp(error.sqlstate, "57014") != 0;
		}
		q3_buffer_consume(&c->in, sizeof(header) + header.length);
	}
	return n;
}

static int
receive_answers(client *c, bool *arrived)
{
	char data[65536];
	ssize_t got;
	int n = 0;

	while ((got = recv(c->fd, data, sizeof(data), MSG_DONTWAIT)) > 0)
	{
		assert_true(q3_buffer_append(&c->in, data, (size_t) got));
		n += count_answers(c, arrived);
	}
	return n;
}

/*
 * Clients hang up at any moment when their requests have arrived, many of them with answers on the
 * way, long and short ones. Whoever
 * shuts the socket down and reads on has all that the engine takes for delivered: his answers and
 * what the worker is told are all requests.
 */
static void
test_each_is_told_once(void **state)
{
	enum
	{
		ROUNDS = 60
	};
	static char text[20000];
	uint64_t random = 5;
	int sent = 0, answered = 0, told = 0;
	client watcher;
	frame f;
	double start;

	(void) state;
	memset(text, 'y', sizeof(text) - 1);
	for (int i = 0; i < ROUNDS; i++)
	{
		int n = 1 + (int) dice(&random, 60);
		bool arrived = false;
		client c;

		client_open(&c, &shared);
		for (int j = 0; j < n; j++)
		{
			bool tokens = dice(&random, 3) > 0;
			q3p_request m = request(tokens ? Q3P_TOKENIZE : Q3P_GENERATE, text, 3);

			m.prompt.len = tokens ? dice(&random, sizeof(text)) : 2;
			m.seed = dice(&random, 1000);
			client_request(&c, (uint64_t) j, &m, NULL);
			if (dice(&random, 10) == 0)
				client_plain(&c, Q3P_CANCEL, dice(&random, (uint32_t) j + 1));
		}
		client_plain(&c, Q3P_ACTIVITY, 0);
		while (!arrived)
			answered += receive_answers(&c, &arrived);
		sent += n;
		usleep(dice(&random, 8000));
		shutdown(c.fd, SHUT_RDWR);
		answered += receive_answers(&c, &arrived);
		client_close(&c);
	}
	start = now_ms();
	for (told = 0; answered + told < sent; told++)
	{
		assert_true(now_ms() < start + WAIT_MS);
		engine_usage(&shared, &f);
		free(f.payload);
	}
	/* And nothing behind that: the next one told is this. */
	client_open(&watcher, &shared);
	wait_idle(&watcher);
	{
		q3p_request m = request(Q3P_GENERATE, "one more", 1900);
		q3p_usage u;

		m.task = (q3p_bytes){"last", 4};
		client_request(&watcher, 1, &m, NULL);
		wait_written(&watcher, 1);
		client_close(&watcher);
		u = engine_usage(&shared, &f);
		if (u.task.len != 4 || memcmp(u.task.data, "last", 4) != 0)
			fail_msg("%d sent, %d answered, %d told, and one more", sent, answered, told);
		free(f.payload);
	}
	assert_true(answered > 0 && told > 0);
}

/* ---------------------------------------------------------------------------------------------
 * Quotas
 * --------------------------------------------------------------------------------------------- */

static q3p_request
paid(uint32_t role, uint32_t quota, const char *prompt, int32_t max_tokens)
{
	q3p_request m = request(Q3P_GENERATE, prompt, max_tokens);

	m.role = role;
	m.token_quota = quota;
	return m;
}

static void
test_quota(void **state)
{
	client c, other;
	frame f;
	q3p_request m = paid(100, 200, "one", 100);
	q3p_result r;
	q3p_error error;

	(void) state;
	client_open(&c, &shared);
	client_open(&other, &shared);
	client_request(&c, 1, &m, NULL);
	r = client_result(&c, &f);
	assert_int_equal(r.output_tokens, 100);
	free(f.payload);
	client_request(&other, 2, &m, NULL); /* another connection of the role */
	error = expect_error(&other, 2, "53400", &f);
	assert_int_equal(error.prompt_tokens + error.output_tokens, 0);
	assert_non_null(error.detail.data);
	assert_non_null(error.hint.data);
	free(f.payload);
	m.role = 101;
	client_request(&other, 3, &m, NULL); /* and another role */
	client_result(&other, &f);
	free(f.payload);
	/* What is only looked up costs nothing. */
	m = paid(100, 1, "some text", 0);
	m.kind = Q3P_COUNT_TOKENS;
	client_request(&other, 4, &m, NULL);
	r = client_result(&other, &f);
	assert_int_equal(r.prompt_tokens, 9);
	free(f.payload);
	client_close(&c);
	client_close(&other);
}

/* Together they might write too much: they wait for each other, and all are answered. */
static void
test_held_requests(void **state)
{
	client c;
	frame f;
	char stops[128];
	q3p_bytes list[127];

	(void) state;
	/* An answer ends with its first ASCII character. */
	for (int i = 1; i < 128; i++)
	{
		stops[i] = (char) i;
		list[i - 1] = (q3p_bytes){stops + i, 1};
	}
	client_open(&c, &shared);
	for (uint64_t id = 0; id < 8; id++)
	{
		char prompt[2] = {(char) ('a' + id), '\0'};
		q3p_request m = paid(200, 1000, prompt, 500);

		m.n_stops = 127;
		client_request(&c, id, &m, list);
	}
	for (int i = 0; i < 8; i++)
	{
		client_result(&c, &f);
		free(f.payload);
	}
	client_close(&c);
}

/* Held ones that are cancelled, or whose connection closes, and an engine that ends with some. */
static void
test_held_requests_end(void **state)
{
	client c, other;
	frame f;
	q3p_request m = paid(300, 2000, "long", 1500);
	engine mine;
	q3p_usage u;

	(void) state;
	engine_start(&mine, model_path, &runtime);
	engine_wait_ready(&mine);
	client_open(&c, &mine);
	client_open(&other, &mine);
	client_request(&c, 1, &m, NULL);
	wait_written(&other, 1);
	for (uint64_t id = 2; id < 6; id++)
	{
		m.seed = id;
		m.has_temperature = true;
		m.temperature = 1;
		client_request(id < 4 ? &c : &other, id, &m, NULL);
	}
	client_plain(&c, Q3P_CANCEL, 3);
	expect_error(&c, 3, "57014", &f);
	free(f.payload);
	u = engine_usage(&mine, &f);
	assert_int_equal(u.prompt_tokens + u.output_tokens, 0);
	free(f.payload);
	client_close(&other);
	for (int i = 0; i < 2; i++)
	{
		u = engine_usage(&mine, &f);
		assert_int_equal(u.role, 300);
		assert_int_equal(u.prompt_tokens + u.output_tokens, 0);
		free(f.payload);
	}
	assert_int_equal(engine_stop(&mine), 0); /* one runs, one is held */
	client_close(&c);
}

static int
set_up(void **state)
{
	(void) state;
	if (!tiny_qwen_write(model_path, sizeof(model_path), 11))
		return -1;
	engine_start(&shared, model_path, &runtime);
	engine_wait_ready(&shared);
	return 0;
}

static int
tear_down(void **state)
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
	    cmocka_unit_test(test_cancelled),         cmocka_unit_test(test_errors_and_closing),
	    cmocka_unit_test(test_each_is_told_once), cmocka_unit_test(test_quota),
	    cmocka_unit_test(test_held_requests),     cmocka_unit_test(test_held_requests_end),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
