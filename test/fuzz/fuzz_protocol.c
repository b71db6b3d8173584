/*
 * fuzz_protocol.c: any bytes as what comes through the socket. A payload that decodes must give the
 * same bytes again when it is encoded: there is one way to write a message.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "protocol/protocol.h"

/* The encoded frame must be as long as expected and its payload the same. */
static void
check_again(const void *frame, size_t size, const uint8_t *payload, size_t n)
{
	if (size != sizeof(q3p_header) + n)
		abort();
	if (memcmp((const char *) frame + sizeof(q3p_header), payload, n) != 0)
		abort();
}

static void
try_hello(const uint8_t *payload, size_t n, void *frame, size_t cap)
{
	q3p_hello m;

	if (q3p_hello_decode(payload, n, &m))
		check_again(frame, q3p_hello_encode(&m, frame, cap), payload, n);
}

/* The items of a packed list. */
static q3p_bytes *
unpack(q3p_bytes list, uint32_t n)
{
	q3p_bytes *items = calloc((size_t) n + 1, sizeof(*items));

	if (items == NULL)
		abort();
	for (uint32_t i = 0; i < n; i++)
		if (!q3p_next_bytes(&list, &items[i]))
			abort();
	return items;
}

static void
try_request(const uint8_t *payload, size_t n, uint64_t id, void *frame, size_t cap)
{
	q3p_request m;
	q3p_bytes *stops, *labels, *turns;

	if (!q3p_request_decode(payload, n, &m))
		return;
	stops = unpack(m.stops, m.n_stops);
	labels = unpack(m.labels, m.n_labels);
	turns = unpack(m.turns, m.n_turns);
	check_again(frame,
	            q3p_request_encode(id, &m,
	                               &(q3p_lists){.stops = stops, .labels = labels, .turns = turns},
	                               frame, cap),
	            payload, n);
	free(turns);
	free(stops);
	free(labels);
}

static void
try_result(const uint8_t *payload, size_t n, uint64_t id, void *frame, size_t cap)
{
	q3p_result m;

	if (q3p_result_decode(payload, n, &m))
		check_again(frame, q3p_result_encode(id, &m, frame, cap), payload, n);
}

static void
try_error(const uint8_t *payload, size_t n, uint64_t id, void *frame, size_t cap)
{
	q3p_error m;

	if (q3p_error_decode(payload, n, &m))
		check_again(frame, q3p_error_encode(id, &m, frame, cap), payload, n);
}

static void
try_status(const uint8_t *payload, size_t n, void *frame, size_t cap)
{
	q3p_status m;

	if (q3p_status_decode(payload, n, &m))
		check_again(frame, q3p_status_encode(&m, frame, cap), payload, n);
}

static void
try_usage(const uint8_t *payload, size_t n, void *frame, size_t cap)
{
	q3p_usage m;

	if (q3p_usage_decode(payload, n, &m))
		check_again(frame, q3p_usage_encode(&m, frame, cap), payload, n);
}

static void
try_shadow(const uint8_t *payload, size_t n, void *frame, size_t cap)
{
	q3p_shadow m;

	if (q3p_shadow_decode(payload, n, &m))
		check_again(frame, q3p_shadow_encode(&m, frame, cap), payload, n);
}

static void
try_activity(const uint8_t *payload, size_t n)
{
	q3p_activity row;
	uint32_t count;

	if (!q3p_activity_decode(payload, n, &count))
		return;
	if (n != sizeof(count) + (size_t) count * sizeof(row))
		abort();
	for (uint32_t i = 0; i < count; i++)
		q3p_activity_get(payload, i, &row);
}

/* One frame, as its type says; every decoder gets payloads of the others too. */
static void
try_frame(const q3p_header *h, const uint8_t *payload)
{
	size_t n = h->length, cap = sizeof(*h) + n;
	void *frame = malloc(cap);

	if (frame == NULL)
		abort();
	try_hello(payload, n, frame, cap);
	try_request(payload, n, h->id, frame, cap);
	try_result(payload, n, h->id, frame, cap);
	try_error(payload, n, h->id, frame, cap);
	try_status(payload, n, frame, cap);
	try_usage(payload, n, frame, cap);
	try_shadow(payload, n, frame, cap);
	try_activity(payload, n);
	check_again(frame, q3p_plain_encode(Q3P_CHUNK, h->id, payload, n, frame, cap), payload, n);
	free(frame);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	q3p_header h;

	while (q3p_frame(data, size, &h) == 1)
	{
		try_frame(&h, data + sizeof(h));
		data += sizeof(h) + h.length;
		size -= sizeof(h) + h.length;
	}
	return 0;
}
