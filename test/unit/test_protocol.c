/*
 * test_protocol.c: every frame there and back, and frames that are cut, changed or made up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "protocol/protocol.h"

#define BYTES(s)                                                                                   \
	(q3p_bytes)                                                                                    \
	{                                                                                              \
		(s), sizeof(s) - 1                                                                         \
	}
#define NO_BYTES                                                                                   \
	(q3p_bytes)                                                                                    \
	{                                                                                              \
		NULL, 0                                                                                    \
	}

/* ---------------------------------------------------------------------------------------------
 * Helpers
 * --------------------------------------------------------------------------------------------- */

static void
assert_bytes(q3p_bytes got, q3p_bytes want)
{
	assert_int_equal(got.data == NULL, want.data == NULL);
	assert_int_equal(got.len, want.len);
	if (want.len > 0)
		assert_memory_equal(got.data, want.data, want.len);
}

/* Checks the header of a frame of that size and gives a copy of its payload at its exact size. */
static void *
payload_of(const void *frame, size_t size, uint32_t type, uint64_t id, size_t *n)
{
	q3p_header h;
	void *copy;

	for (size_t part = 0; part < size; part += part < 32 ? 1 : 7)
		assert_int_equal(q3p_frame(frame, part, &h), 0);
	assert_int_equal(q3p_frame(frame, size, &h), 1);
	assert_int_equal(h.length + sizeof(h), size);
	assert_int_equal(h.type, type);
	assert_int_equal(h.id, id);
	*n = h.length;
	copy = malloc(*n > 0 ? *n : 1);
	assert_non_null(copy);
	memcpy(copy, (const char *) frame + sizeof(h), *n);
	return copy;
}

typedef bool (*decoder)(const void *payload, size_t n);

/* No part of a good payload is good, nor is it with something behind it. */
static void
assert_exact(const void *payload, size_t n, decoder decode)
{
	char *longer = malloc(n + 8);

	assert_non_null(longer);
	assert_true(decode(payload, n));
	assert_false(decode(NULL, 0));
	for (size_t part = 0; part < n; part++)
	{
		void *copy = malloc(part > 0 ? part : 1);

		assert_non_null(copy);
		memcpy(copy, payload, part);
		assert_false(decode(copy, part));
		free(copy);
	}
	memcpy(longer, payload, n);
	memset(longer + n, 0, 8);
	for (size_t extra = 1; extra <= 8; extra++)
		assert_false(decode(longer, n + extra));
	free(longer);
}

/* Changes every byte in turn; decoding must stay inside (AddressSanitizer looks on). */
static void
change_every_byte(unsigned char *payload, size_t n, decoder decode)
{
	static const unsigned char masks[] = {0x01, 0x7f, 0x80, 0xff};

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < sizeof(masks); k++)
		{
			payload[i] ^= masks[k];
			(void) decode(payload, n);
			payload[i] ^= masks[k];
		}
	assert_true(decode(payload, n));
}

static bool
decode_hello(const void *payload, size_t n)
{
	q3p_hello m;

	return q3p_hello_decode(payload, n, &m);
}

/* What a decoder returns is read to the last byte. */
static unsigned
read_all(const void *data, size_t n)
{
	volatile unsigned sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ((const unsigned char *) data)[i];
	return sum;
}

static bool
decode_request(const void *payload, size_t n)
{
	q3p_request m;
	q3p_bytes item;

	if (!q3p_request_decode(payload, n, &m))
		return false;
	read_all(m.prompt.data, m.prompt.len);
	read_all(m.system.data, m.system.len);
	read_all(m.tokens, m.n_tokens * sizeof(int32_t));
	for (uint32_t i = 0; i < m.n_stops; i++)
	{
		assert_true(q3p_next_bytes(&m.stops, &item));
		read_all(item.data, item.len);
	}
	for (uint32_t i = 0; i < m.n_labels; i++)
	{
		assert_true(q3p_next_bytes(&m.labels, &item));
		read_all(item.data, item.len);
	}
	assert_false(q3p_next_bytes(&m.labels, &item));
	assert_false(q3p_next_bytes(&m.stops, &item));
	return true;
}

static bool
decode_result(const void *payload, size_t n)
{
	q3p_result m;

	if (!q3p_result_decode(payload, n, &m))
		return false;
	read_all(m.reason.data, m.reason.len);
	read_all(m.value.data, m.value.len);
	read_all(m.thinking.data, m.thinking.len);
	read_all(m.digest.data, m.digest.len);
	read_all(m.tokens, m.n_tokens * sizeof(int32_t));
	return true;
}

static bool
decode_error(const void *payload, size_t n)
{
	q3p_error m;

	if (!q3p_error_decode(payload, n, &m))
		return false;
	read_all(m.message.data, m.message.len);
	return true;
}

static bool
decode_status(const void *payload, size_t n)
{
	q3p_status m;

	if (!q3p_status_decode(payload, n, &m))
		return false;
	read_all(m.architecture.data, m.architecture.len);
	read_all(m.hint.data, m.hint.len);
	return true;
}

static bool
decode_usage(const void *payload, size_t n)
{
	q3p_usage m;

	if (!q3p_usage_decode(payload, n, &m))
		return false;
	read_all(m.task.data, m.task.len);
	return true;
}

static bool
decode_shadow(const void *payload, size_t n)
{
	q3p_shadow m;

	if (!q3p_shadow_decode(payload, n, &m))
		return false;
	read_all(m.task.data, m.task.len);
	return true;
}

static bool
decode_activity(const void *payload, size_t n)
{
	q3p_activity row;
	uint32_t count;

	if (!q3p_activity_decode(payload, n, &count))
		return false;
	for (uint32_t i = 0; i < count; i++)
		q3p_activity_get(payload, i, &row);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * There and back
 * --------------------------------------------------------------------------------------------- */

static void
test_hello(void **state)
{
	q3p_hello m = {Q3P_VERSION, 4711, 10, 16384}, got;
	char frame[64];
	size_t n, size = q3p_hello_encode(&m, NULL, 0);
	void *payload;

	(void) state;
	assert_int_equal(q3p_hello_encode(&m, frame, sizeof(frame)), size);
	payload = payload_of(frame, size, Q3P_HELLO, 0, &n);
	assert_true(q3p_hello_decode(payload, n, &got));
	assert_memory_equal(&got, &m, sizeof(m));
	assert_exact(payload, n, decode_hello);
	free(payload);
}

/* A request's frame; the caller frees it. */
static void *
encode_request(uint64_t id, const q3p_request *m, const q3p_lists *lists, size_t *size)
{
	void *frame;

	*size = q3p_request_encode(id, m, lists, NULL, 0);
	assert_true(*size > 0);
	frame = malloc(*size);
	assert_non_null(frame);
	assert_int_equal(q3p_request_encode(id, m, lists, frame, *size), *size);
	return frame;
}

static void
test_request(void **state)
{
	static const int32_t tokens[] = {1, -1, 151935};
	const q3p_bytes stops[] = {BYTES("\n\n"), BYTES("END"), BYTES("x")};
	const q3p_bytes labels[] = {BYTES("billing"), BYTES("")};
	const q3p_bytes turns[] = {BYTES("Refund?"), BYTES("billing")};
	const q3p_lists lists = {stops, labels, turns};
	q3p_request m = {.kind = Q3P_STREAM,
	                 .mode = Q3P_PRECISE,
	                 .thinking = true,
	                 .has_temperature = true,
	                 .has_top_k = true,
	                 .max_tokens = 512,
	                 .temperature = 0.7,
	                 .top_p = 1,
	                 .top_k = 20,
	                 .seed = UINT64_MAX,
	                 .prompt = BYTES("a\0b \xc3\xa4"),
	                 .system = NO_BYTES,
	                 .n_stops = 3,
	                 .n_tokens = 3,
	                 .tokens = (const unsigned char *) tokens,
	                 .priority = Q3P_MAX_PRIORITY,
	                 .role = 16384,
	                 .n_labels = 2,
	                 .n_turns = 2,
	                 .schema = BYTES("{}"),
	                 .task = BYTES("triage"),
	                 .query_id = UINT64_MAX - 5,
	                 .token_quota = 100000,
	                 .thinking_budget = 77,
	                 .escalate_below = 0.125,
	                 .escalate_thinking = true,
	                 .off_label_limit = 0.75,
	                 .shadow = true,
	                 .question = UINT64_MAX - 7,
	                 .exit_margin = 0.375};
	q3p_request got;
	q3p_bytes item;
	size_t size, n;
	void *frame = encode_request(UINT64_MAX - 1, &m, &lists, &size);
	void *payload = payload_of(frame, size, Q3P_REQUEST, UINT64_MAX - 1, &n);

	(void) state;
	assert_true(q3p_request_decode(payload, n, &got));
	assert_int_equal(got.kind, Q3P_STREAM);
	assert_int_equal(got.mode, Q3P_PRECISE);
	assert_true(got.thinking && got.has_temperature && !got.has_top_p && got.has_top_k);
	assert_int_equal(got.max_tokens, 512);
	assert_true(got.temperature == 0.7 && got.top_p == 1);
	assert_int_equal(got.top_k, 20);
	assert_int_equal(got.seed, UINT64_MAX);
	assert_bytes(got.prompt, m.prompt);
	assert_bytes(got.system, m.system);
	assert_int_equal(got.n_stops, 3);
	for (int i = 0; i < 3; i++)
	{
		assert_true(q3p_next_bytes(&got.stops, &item));
		assert_bytes(item, stops[i]);
	}
	assert_false(q3p_next_bytes(&got.stops, &item));
	assert_int_equal(got.n_tokens, 3);
	assert_memory_equal(got.tokens, tokens, sizeof(tokens));
	assert_int_equal(got.priority, Q3P_MAX_PRIORITY);
	assert_int_equal(got.role, 16384);
	assert_int_equal(got.n_labels, 2);
	for (int i = 0; i < 2; i++)
	{
		assert_true(q3p_next_bytes(&got.labels, &item));
		assert_bytes(item, labels[i]);
	}
	assert_false(q3p_next_bytes(&got.labels, &item));
	assert_int_equal(got.n_turns, 2);
	for (int i = 0; i < 2; i++)
	{
		assert_true(q3p_next_bytes(&got.turns, &item));
		assert_bytes(item, turns[i]);
	}
	assert_bytes(got.schema, m.schema);
	assert_bytes(got.task, m.task);
	assert_true(got.query_id == UINT64_MAX - 5);
	assert_int_equal(got.token_quota, 100000);
	assert_int_equal(got.thinking_budget, 77);
	assert_true(got.escalate_below == 0.125 && got.escalate_thinking);
	assert_true(got.off_label_limit == 0.75 && got.shadow && got.exit_margin == 0.375);
	assert_true(got.question == UINT64_MAX - 7);
	assert_false(got.mean);
	assert_exact(payload, n, decode_request);
	change_every_byte(payload, n, decode_request);
	free(payload);
	free(frame);
}

/* Absent and empty are two things; no stops and no tokens. */
static void
test_request_empty(void **state)
{
	q3p_request m = {.kind = Q3P_COUNT_TOKENS, .prompt = BYTES(""), .system = BYTES("")}, got;
	const q3p_bytes stops[] = {NO_BYTES, BYTES("")};
	q3p_bytes item;
	size_t size, n;
	void *frame = encode_request(0, &m, NULL, &size);
	void *payload = payload_of(frame, size, Q3P_REQUEST, 0, &n);

	(void) state;
	assert_true(q3p_request_decode(payload, n, &got));
	assert_bytes(got.prompt, BYTES(""));
	assert_bytes(got.system, BYTES(""));
	assert_int_equal(got.n_stops, 0);
	assert_false(q3p_next_bytes(&got.stops, &item));
	assert_int_equal(got.n_tokens, 0);
	assert_exact(payload, n, decode_request);
	free(payload);
	free(frame);

	m.n_stops = 2;
	m.prompt = NO_BYTES;
	frame = encode_request(0, &m, &(q3p_lists){.stops = stops}, &size);
	payload = payload_of(frame, size, Q3P_REQUEST, 0, &n);
	assert_true(q3p_request_decode(payload, n, &got));
	assert_bytes(got.prompt, NO_BYTES);
	assert_int_equal(got.n_stops, 2);
	assert_true(q3p_next_bytes(&got.stops, &item));
	assert_bytes(item, BYTES(""));
	free(payload);
	free(frame);
}

static void
test_result(void **state)
{
	static const int32_t tokens[] = {7, 8};
	static const double probs[] = {0.25, 0.5, 0.25};
	q3p_result m = {.mode = Q3P_EFFICIENT,
	                .finish = Q3P_FINISH_LENGTH,
	                .prompt_tokens = 12,
	                .cached_tokens = 4,
	                .output_tokens = 99,
	                .confidence = 0.25,
	                .score = NAN,
	                .queue_ms = 1.5,
	                .latency_ms = 1e9,
	                .reason = BYTES("asked for"),
	                .value = BYTES("text"),
	                .thinking = NO_BYTES,
	                .digest = BYTES("0123"),
	                .n_tokens = 2,
	                .tokens = (const unsigned char *) tokens,
	                .deduplicated = true,
	                .n_probs = 3,
	                .probs = (const unsigned char *) probs,
	                .thinking_tokens = 17,
	                .escalated = true,
	                .margin = 0.5,
	                .first_ms = 2.5,
	                .off_label = 0.0625};
	q3p_result got;
	size_t n, size = q3p_result_encode(5, &m, NULL, 0);
	void *frame = malloc(size), *payload;

	(void) state;
	assert_non_null(frame);
	assert_int_equal(q3p_result_encode(5, &m, frame, size), size);
	payload = payload_of(frame, size, Q3P_RESULT, 5, &n);
	assert_true(q3p_result_decode(payload, n, &got));
	assert_int_equal(got.mode, Q3P_EFFICIENT);
	assert_int_equal(got.finish, Q3P_FINISH_LENGTH);
	assert_int_equal(got.prompt_tokens, 12);
	assert_int_equal(got.cached_tokens, 4);
	assert_int_equal(got.output_tokens, 99);
	assert_true(got.confidence == 0.25 && isnan(got.score));
	assert_true(got.queue_ms == 1.5 && got.latency_ms == 1e9);
	assert_bytes(got.reason, m.reason);
	assert_bytes(got.value, m.value);
	assert_bytes(got.thinking, m.thinking);
	assert_bytes(got.digest, m.digest);
	assert_int_equal(got.n_tokens, 2);
	assert_memory_equal(got.tokens, tokens, sizeof(tokens));
	assert_true(got.deduplicated);
	assert_int_equal(got.n_probs, 3);
	assert_memory_equal(got.probs, probs, sizeof(probs));
	assert_int_equal(got.thinking_tokens, 17);
	assert_true(got.escalated && got.margin == 0.5 && got.first_ms == 2.5);
	assert_true(got.off_label == 0.0625);
	assert_exact(payload, n, decode_result);
	change_every_byte(payload, n, decode_result);
	free(payload);
	free(frame);
}

static void
test_error(void **state)
{
	q3p_error m = {"57014", BYTES("canceled"), NO_BYTES, BYTES("Try again."), Q3P_PRECISE, 7, 5, 3,
	               1.5},
	          got;
	q3p_error silent = {"XX000", NO_BYTES, NO_BYTES, NO_BYTES, 0, 0, 0, 0, 0};
	char frame[256];
	size_t n, size = q3p_error_encode(6, &m, frame, sizeof(frame));
	void *payload = payload_of(frame, size, Q3P_ERROR, 6, &n);

	(void) state;
	assert_true(q3p_error_decode(payload, n, &got));
	assert_string_equal(got.sqlstate, "57014");
	assert_bytes(got.message, m.message);
	assert_bytes(got.detail, m.detail);
	assert_bytes(got.hint, m.hint);
	assert_int_equal(got.mode, Q3P_PRECISE);
	assert_true(got.prompt_tokens == 7 && got.cached_tokens == 5 && got.output_tokens == 3);
	assert_true(got.latency_ms == 1.5);
	assert_exact(payload, n, decode_error);
	change_every_byte(payload, n, decode_error);
	((char *) payload)[2] = '\n'; /* no SQLSTATE */
	assert_false(q3p_error_decode(payload, n, &got));
	free(payload);
	size = q3p_error_encode(6, &silent, frame, sizeof(frame));
	payload = payload_of(frame, size, Q3P_ERROR, 6, &n);
	assert_true(q3p_error_decode(payload, n, &got));
	assert_bytes(got.message, BYTES(""));
	memset((char *) payload + 5, 0xff, 4); /* no message */
	assert_false(q3p_error_decode(payload, n, &got));
	free(payload);
}

static void
test_status(void **state)
{
	q3p_status m = {.state = Q3P_LOADING,
	                .progress = 0.5,
	                .threads = 2,
	                .context_length = 4096,
	                .max_batch_tokens = 512,
	                .kv_blocks = 10,
	                .kv_blocks_free = 9,
	                .kv_block_tokens = 64,
	                .n_params = 1u << 31,
	                .weight_bytes = UINT64_C(1) << 40,
	                .kv_bytes = 3,
	                .scratch_bytes = 4,
	                .load_ms = 12.25,
	                .requests = 5,
	                .errors = 6,
	                .prompt_tokens = 7,
	                .output_tokens = 8,
	                .n_embd = 20,
	                .prefix_blocks = 21,
	                .pinned_blocks = 22,
	                .cached_tokens = 23,
	                .deduplicated = 24,
	                .classified = 25,
	                .steps = 26,
	                .evictions = 27,
	                .running = 1,
	                .queued = 2,
	                .architecture = BYTES("qwen3"),
	                .name = BYTES("n"),
	                .weight_type = BYTES("Q8_0"),
	                .digest = BYTES("d"),
	                .device = BYTES("cpu"),
	                .device_reason = BYTES("r"),
	                .isa = BYTES("avx2"),
	                .precision = BYTES("planes: 8 + 8 bits"),
	                .image_bytes = 77,
	                .image = Q3P_IMAGE_KEPT,
	                .message = BYTES("m"),
	                .detail = NO_BYTES,
	                .hint = BYTES("h")};
	q3p_status got;
	char frame[1024], again[1024];
	size_t n, size = q3p_status_encode(&m, frame, sizeof(frame));
	void *payload = payload_of(frame, size, Q3P_STATUS, 0, &n);

	(void) state;
	assert_true(q3p_status_decode(payload, n, &got));
	assert_int_equal(got.state, Q3P_LOADING);
	assert_true(got.progress == 0.5 && got.load_ms == 12.25);
	assert_int_equal(got.kv_block_tokens, 64);
	assert_int_equal(got.weight_bytes, m.weight_bytes);
	assert_int_equal(got.output_tokens, 8);
	assert_int_equal(got.queued, 2);
	assert_int_equal(got.prefix_blocks, 21);
	assert_int_equal(got.pinned_blocks, 22);
	assert_int_equal(got.cached_tokens, 23);
	assert_int_equal(got.deduplicated, 24);
	assert_int_equal(got.classified, 25);
	assert_int_equal(got.steps, 26);
	assert_int_equal(got.evictions, 27);
	assert_bytes(got.isa, m.isa);
	assert_bytes(got.precision, m.precision);
	assert_int_equal(got.image_bytes, m.image_bytes);
	assert_int_equal(got.image, m.image);
	assert_bytes(got.detail, m.detail);
	assert_bytes(got.hint, m.hint);
	/* The rest of the fields: encoded again, the same bytes. */
	assert_int_equal(q3p_status_encode(&got, again, sizeof(again)), size);
	assert_memory_equal(again, frame, size);
	assert_exact(payload, n, decode_status);
	change_every_byte(payload, n, decode_status);
	free(payload);
}

static void
test_usage(void **state)
{
	q3p_usage m = {.role = 16384,
	               .database = 5,
	               .kind = Q3P_EMBED,
	               .mode = Q3P_EFFICIENT,
	               .prompt_tokens = 9,
	               .cached_tokens = 4,
	               .output_tokens = 2,
	               .latency_ms = 12.5,
	               .task = BYTES("fraud")};
	q3p_usage got;
	char frame[256];
	size_t n, size = q3p_usage_encode(&m, frame, sizeof(frame));
	void *payload = payload_of(frame, size, Q3P_USAGE, 0, &n);

	(void) state;
	assert_true(q3p_usage_decode(payload, n, &got));
	assert_true(got.role == 16384 && got.database == 5 && got.kind == Q3P_EMBED);
	assert_true(got.mode == Q3P_EFFICIENT && got.prompt_tokens == 9 && got.cached_tokens == 4);
	assert_true(got.output_tokens == 2 && got.latency_ms == 12.5);
	assert_bytes(got.task, m.task);
	assert_exact(payload, n, decode_usage);
	change_every_byte(payload, n, decode_usage);
	((char *) payload)[n - 1] = '\0'; /* a name ends where its length says */
	assert_false(q3p_usage_decode(payload, n, &got));
	free(payload);
}

static void
test_shadow(void **state)
{
	q3p_shadow m = {
	    .database = 5, .task = BYTES("fraud"), .question = UINT64_MAX - 3, .agreed = true};
	q3p_shadow got;
	char frame[256], longest[Q3P_TASK_BYTES];
	size_t n, size = q3p_shadow_encode(&m, frame, sizeof(frame));
	unsigned char *payload = payload_of(frame, size, Q3P_SHADOW, 0, &n);

	(void) state;
	assert_true(q3p_shadow_decode(payload, n, &got));
	assert_true(got.database == 5 && got.question == UINT64_MAX - 3 && got.agreed);
	assert_bytes(got.task, m.task);
	assert_exact(payload, n, decode_shadow);
	change_every_byte(payload, n, decode_shadow);
	payload[n - 4] = 2; /* neither yes nor no */
	assert_false(q3p_shadow_decode(payload, n, &got));
	payload[n - 4] = 1;
	payload[8] = '\0'; /* in the name */
	assert_false(q3p_shadow_decode(payload, n, &got));
	free(payload);
	m = (q3p_shadow){.task = NO_BYTES};
	size = q3p_shadow_encode(&m, frame, sizeof(frame));
	payload = payload_of(frame, size, Q3P_SHADOW, 0, &n);
	assert_true(q3p_shadow_decode(payload, n, &got));
	assert_bytes(got.task, NO_BYTES);
	assert_false(got.agreed);
	free(payload);
	memset(longest, 'x', sizeof(longest));
	m.task = (q3p_bytes){longest, sizeof(longest)};
	size = q3p_shadow_encode(&m, frame, sizeof(frame));
	assert_false(q3p_shadow_decode(frame + sizeof(q3p_header), size - sizeof(q3p_header), &got));
}

static void
test_activity(void **state)
{
	q3p_activity rows[3] = {{.id = 1, .pid = 100, .kind = Q3P_GENERATE, .phase = Q3P_DECODE},
	                        {.id = 2, .prompt_tokens = 9, .kv_tokens = 64, .age_ms = 2.5},
	                        {.id = 3, .pad = 77}};
	q3p_activity row;
	char frame[512];
	uint32_t count;

	(void) state;
	for (uint32_t k = 0; k <= 3; k++)
	{
		size_t n, size = q3p_activity_encode(rows, k, frame, sizeof(frame));
		void *payload = payload_of(frame, size, Q3P_ACTIVITY_RESULT, 0, &n);

		assert_true(q3p_activity_decode(payload, n, &count));
		assert_int_equal(count, k);
		for (uint32_t i = 0; i < k; i++)
		{
			q3p_activity_get(payload, i, &row);
			assert_int_equal(row.pad, 0); /* nothing of our memory goes out by accident */
			row.pad = rows[i].pad;
			assert_memory_equal(&row, &rows[i], sizeof(row));
		}
		assert_exact(payload, n, decode_activity);
		change_every_byte(payload, n, decode_activity);
		free(payload);
	}
}

static void
test_plain(void **state)
{
	char frame[64];
	size_t n, size = q3p_plain_encode(Q3P_CANCEL, 77, NULL, 0, frame, sizeof(frame));
	void *payload = payload_of(frame, size, Q3P_CANCEL, 77, &n);

	(void) state;
	assert_int_equal(n, 0);
	free(payload);
	size = q3p_plain_encode(Q3P_CHUNK, 78, "h\xc3\xa9", 3, frame, sizeof(frame));
	payload = payload_of(frame, size, Q3P_CHUNK, 78, &n);
	assert_int_equal(n, 3);
	assert_memory_equal(payload, "h\xc3\xa9", 3);
	free(payload);
}

/* ---------------------------------------------------------------------------------------------
 * Limits and lies
 * --------------------------------------------------------------------------------------------- */

/* An encoder says how much it needs and writes nothing beyond the room it has. */
static void
test_too_little_room(void **state)
{
	const q3p_bytes stops[] = {BYTES("stop")};
	const q3p_lists lists = {.stops = stops};
	q3p_request m = {.kind = Q3P_GENERATE, .prompt = BYTES("some prompt"), .n_stops = 1};
	size_t size = q3p_request_encode(1, &m, &lists, NULL, 0);

	(void) state;
	for (size_t cap = 0; cap < size; cap++)
	{
		void *exact = malloc(cap > 0 ? cap : 1);

		assert_non_null(exact);
		assert_int_equal(q3p_request_encode(1, &m, &lists, exact, cap), size);
		free(exact);
	}
}

static void
test_too_big(void **state)
{
	char *big = malloc((size_t) Q3P_MAX_FRAME + 1);
	q3p_request m = {.kind = Q3P_GENERATE, .n_stops = 2};
	q3p_bytes stops[2] = {{big, Q3P_MAX_FRAME / 2}, {big, Q3P_MAX_FRAME / 2}};
	q3p_lists lists = {.stops = stops};
	q3p_header h = {Q3P_MAX_FRAME, Q3P_CHUNK, 0};

	(void) state;
	assert_non_null(big); /* never touched: encoders that only measure do not read */
	assert_int_equal(q3p_plain_encode(Q3P_CHUNK, 1, big, Q3P_MAX_FRAME, NULL, 0),
	                 sizeof(q3p_header) + Q3P_MAX_FRAME);
	assert_int_equal(q3p_plain_encode(Q3P_CHUNK, 1, big, (size_t) Q3P_MAX_FRAME + 1, NULL, 0), 0);
	assert_int_equal(q3p_plain_encode(Q3P_CHUNK, 1, big, SIZE_MAX, NULL, 0), 0);
	assert_int_equal(q3p_request_encode(1, &m, &lists, NULL, 0), 0);
	m.n_stops = 0;
	m.prompt = (q3p_bytes){big, SIZE_MAX};
	assert_int_equal(q3p_request_encode(1, &m, NULL, NULL, 0), 0);
	m.prompt = (q3p_bytes){big, Q3P_MAX_FRAME};
	assert_int_equal(q3p_request_encode(1, &m, NULL, NULL, 0), 0);
	m.prompt = NO_BYTES;
	m.n_tokens = UINT32_MAX;
	m.tokens = (unsigned char *) big;
	assert_int_equal(q3p_request_encode(1, &m, NULL, NULL, 0), 0);
	assert_int_equal(q3p_frame(&h, sizeof(h), &h), 0);
	h.length++;
	assert_int_equal(q3p_frame(&h, sizeof(h), &h), -1);
	free(big);
}

/* The payload of a small request, with the number at that position replaced, must be refused. */
static void
assert_lie(size_t at, uint32_t lie)
{
	const q3p_bytes stops[] = {BYTES("ab")}, labels[] = {BYTES("cd")};
	q3p_request m = {.kind = Q3P_CLASSIFY, .prompt = BYTES("p"), .n_stops = 1, .n_labels = 1}, got;
	size_t size, n;
	char *frame = encode_request(1, &m, &(q3p_lists){.stops = stops, .labels = labels}, &size);
	char *payload = payload_of(frame, size, Q3P_REQUEST, 1, &n);

	assert_true(q3p_request_decode(payload, n, &got));
	assert_true(at + sizeof(lie) <= n);
	memcpy(payload + at, &lie, sizeof(lie));
	assert_false(q3p_request_decode(payload, n, &got));
	free(payload);
	free(frame);
}

static void
test_lies(void **state)
{
	/* kind, mode, flags, max_tokens, temperature, top_p, top_k, seed; prompt, system, stops,
	 * tokens, priority, role, labels, turns, schema, task */
	const size_t prompt = 4 * 4 + 8 + 8 + 4 + 8, system = prompt + 4 + 1, stops = system + 4,
	             tokens = stops + 8 + 4 + 2, priority = tokens + 4, labels = priority + 8,
	             turns = labels + 8 + 4 + 2, schema = turns + 8, task = schema + 4;

	(void) state;
	assert_lie(0, 0);
	assert_lie(0, Q3P_EMBED + 1);
	assert_lie(4, Q3P_PRECISE + 1);
	assert_lie(8, 128);
	assert_lie(prompt, 0);
	assert_lie(prompt, 1000);
	assert_lie(prompt, UINT32_MAX - 1);
	assert_lie(prompt, UINT32_MAX);
	assert_lie(system, 0xfffffff0);
	assert_lie(stops, 0);
	assert_lie(stops, 2);
	assert_lie(stops, UINT32_MAX);
	assert_lie(stops + 4, UINT32_MAX);
	assert_lie(stops + 4, 7);
	assert_lie(stops + 8, 1);
	assert_lie(stops + 8, 3);
	assert_lie(stops + 8, UINT32_MAX);
	assert_lie(tokens, 1);
	assert_lie(tokens, 0x40000000); /* times 4 is 0 in 32 bits */
	assert_lie(priority, Q3P_MAX_PRIORITY + 1);
	assert_lie(labels, 0);
	assert_lie(labels, 2);
	assert_lie(labels + 4, 7);
	assert_lie(labels + 8, 1);
	assert_lie(labels + 8, UINT32_MAX);
	assert_lie(turns, 1);
	assert_lie(turns + 4, UINT32_MAX);
	assert_lie(schema, 100);
	assert_lie(task, Q3P_TASK_BYTES);
}

static void
test_next_bytes(void **state)
{
	q3p_bytes list = {"\x02\0\0\0ab\x05\0\0\0c", 11}, item, none = NO_BYTES;

	(void) state;
	assert_true(q3p_next_bytes(&list, &item));
	assert_bytes(item, BYTES("ab"));
	assert_false(q3p_next_bytes(&list, &item));
	assert_false(q3p_next_bytes(&list, &item));
	assert_false(q3p_next_bytes(&none, &item));
}

static void
test_names(void **state)
{
	(void) state;
	assert_string_equal(q3p_mode_name(Q3P_AUTO), "auto");
	assert_string_equal(q3p_mode_name(Q3P_PRECISE), "precise");
	assert_string_equal(q3p_kind_name(Q3P_GENERATE), "generate");
	assert_string_equal(q3p_kind_name(Q3P_DETOKENIZE), "detokenize");
	assert_string_equal(q3p_kind_name(Q3P_CLASSIFY), "classify");
	assert_string_equal(q3p_kind_name(Q3P_UNPIN), "unpin");
	assert_string_equal(q3p_kind_name(Q3P_EMBED), "embed");
	assert_string_equal(q3p_finish_name(Q3P_FINISH_STOP), "stop");
	assert_string_equal(q3p_finish_name(Q3P_FINISH_LENGTH), "length");
	assert_string_equal(q3p_phase_name(Q3P_DECODE), "decode");
	assert_string_equal(q3p_state_name(Q3P_FAILED), "failed");
	assert_string_equal(q3p_state_name(0), "unknown");
	assert_string_equal(q3p_kind_name(UINT32_MAX), "unknown");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_hello),         cmocka_unit_test(test_request),
	    cmocka_unit_test(test_request_empty), cmocka_unit_test(test_result),
	    cmocka_unit_test(test_error),         cmocka_unit_test(test_status),
	    cmocka_unit_test(test_usage),         cmocka_unit_test(test_activity),
	    cmocka_unit_test(test_plain),         cmocka_unit_test(test_too_little_room),
	    cmocka_unit_test(test_too_big),       cmocka_unit_test(test_lies),
	    cmocka_unit_test(test_next_bytes),    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_shadow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
