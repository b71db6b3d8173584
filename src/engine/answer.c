/*
 * answer.c: the life of a request as the I/O thread sees it: accepted, lent to the threads,
 * answered.
 *
 * A request is on the list io->all until the threads give it back, and on its connection's list
 * until it is answered or the connection is gone; a cancelled one is answered at once and only
 * freed when it comes back.
 */
#include "engine/io.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Requests in flight on one connection, and bytes of all requests: beyond, new ones are refused. */
#define MAX_CONN_REQUESTS 10000
#define MAX_LENT_BYTES ((size_t) 512 * 1024 * 1024)

#define SQLSTATE_PROTOCOL "08P01"
#define SQLSTATE_FULL "53400"

/* ---------------------------------------------------------------------------------------------
 * Lists
 * --------------------------------------------------------------------------------------------- */

static void
link_request(q3_io *io, q3_conn *conn, q3_request *r)
{
	r->conn = conn;
	r->conn_next = conn->requests;
	if (conn->requests != NULL)
		conn->requests->conn_prev = r;
	conn->requests = r;
	conn->n_requests++;
	r->all_next = io->all;
	if (io->all != NULL)
		io->all->all_prev = r;
	io->all = r;
	io->lent_bytes += r->frame_bytes;
}

static void
unlink_from_conn(q3_request *r)
{
	if (r->conn == NULL)
		return;
	if (r->conn_prev != NULL)
		r->conn_prev->conn_next = r->conn_next;
	else
		r->conn->requests = r->conn_next;
	if (r->conn_next != NULL)
		r->conn_next->conn_prev = r->conn_prev;
	r->conn->n_requests--;
	r->conn = NULL;
}

/* The request has come back: frees it. */
static void
forget(q3_io *io, q3_request *r)
{
	unlink_from_conn(r);
	if (r->all_prev != NULL)
		r->all_prev->all_next = r->all_next;
	else
		io->all = r->all_next;
	if (r->all_next != NULL)
		r->all_next->all_prev = r->all_prev;
	io->lent_bytes -= r->frame_bytes;
	q3_request_free(r);
}

/* ---------------------------------------------------------------------------------------------
 * Writing answers
 * --------------------------------------------------------------------------------------------- */

static q3p_bytes
bytes_of(const char *s)
{
	return (q3p_bytes){.data = s, .len = strlen(s)};
}

static q3p_bytes
optional(const char *s)
{
	return s[0] != '\0' ? bytes_of(s) : (q3p_bytes){.data = NULL, .len = 0};
}

void
q3_answer_error(q3_io *io, q3_conn *conn, uint64_t id, const char *sqlstate, const q3_error *err)
{
	q3p_error m = {.message = bytes_of(err->message),
	               .detail = optional(err->detail),
	               .hint = optional(err->hint)};
	size_t size;
	char *room;

	memcpy(m.sqlstate, sqlstate, sizeof(m.sqlstate));
	io->n_errors++;
	size = q3p_error_encode(id, &m, NULL, 0);
	room = q3_conn_reserve(io, conn, size);
	if (room != NULL)
		q3_conn_sent(io, conn, q3p_error_encode(id, &m, room, size));
}

static void
refuse(q3_io *io, q3_conn *conn, uint64_t id, const char *sqlstate, const char *message)
{
	q3_error err;

	q3_fail(&err, Q3_ERR_INVALID, "%s", message);
	q3_answer_error(io, conn, id, sqlstate, &err);
}

static uint32_t
protocol_finish(q3_finish finish)
{
	switch (finish)
	{
		case Q3_FINISH_STOP:
			return Q3P_FINISH_STOP;
		case Q3_FINISH_LENGTH:
			return Q3P_FINISH_LENGTH;
		case Q3_FINISH_NONE:
			break;
	}
	return 0;
}

/* The label of that number in a request's list. */
static q3p_bytes
label_of(const q3p_request *msg, int32_t number)
{
	q3p_bytes list = msg->labels, item = {.data = "", .len = 0};

	for (int32_t i = 0; i <= number; i++)
		if (!q3p_next_bytes(&list, &item))
			break;
	return item;
}

static void
fill_labels(const q3_request *r, q3p_result *m)
{
	const q3_labels *l = r->job.labels;
	int32_t best = q3_labels_best(l);

	m->value = label_of(&r->msg, best);
	m->score = l->probs[best];
	m->n_probs = (uint32_t) l->n;
	m->probs = (const unsigned char *) l->probs;
}

/* The kind's own part of the result. */
static void
fill_value(const q3_request *r, q3p_result *m)
{
	const q3_output *output = r->job.output;
	q3_str value, thinking;

	switch (r->msg.kind)
	{
		case Q3P_GENERATE:
			value = q3_output_value(output);
			m->value = (q3p_bytes){value.data != NULL ? value.data : "", value.len};
			break;
		case Q3P_STREAM:
			m->value = (q3p_bytes){r->unsent.data != NULL ? q3_buffer_bytes(&r->unsent) : "",
			                       q3_buffer_len(&r->unsent)};
			break;
		case Q3P_TOKENIZE:
			m->n_tokens = (uint32_t) r->tokens.n;
			m->tokens = (const unsigned char *) r->tokens.ids;
			return;
		case Q3P_DETOKENIZE:
			m->value = (q3p_bytes){r->value, r->value_len};
			return;
		case Q3P_CLASSIFY:
			fill_labels(r, m);
			return;
		case Q3P_EMBED:
			m->n_vector = (uint32_t) r->job.n_embd;
			m->vector = (const unsigned char *) r->job.vector;
			return;
		default:
			return;
	}
	thinking = q3_output_thinking(output);
	m->thinking = (q3p_bytes){thinking.data, thinking.len};
	m->finish = protocol_finish(r->job.finish);
	m->output_tokens = q3_output_n_tokens(output);
}

/*
 * What the labels of a classification begin with is read with the prompt, but no part of it.
 */
static int32_t
cached_tokens(const q3_job *job)
{
	int32_t cached = atomic_load(&job->cached_tokens), prompt = atomic_load(&job->prompt_tokens);

	return cached < prompt ? cached : prompt;
}

static void
answer_result(q3_io *io, q3_request *r)
{
	uint64_t now = q3_now_ns(), started = r->job.started_ns;
	q3p_result m = {.mode = r->mode == Q3_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE,
	                .prompt_tokens = atomic_load(&r->job.prompt_tokens),
	                .cached_tokens = cached_tokens(&r->job),
	                .deduplicated = r->job.deduplicated,
	                .confidence = q3_job_confidence(&r->job),
	                .score = q3_job_score(&r->job),
	                .queue_ms = (double) ((started > 0 ? started : now) - r->arrived_ns) / 1e6,
	                .latency_ms = (double) (now - r->arrived_ns) / 1e6,
	                .reason = bytes_of(r->reason),
	                .digest = bytes_of(io->state.model != NULL ? io->state.model->digest : "")};
	size_t size;
	char *room;

	fill_value(r, &m);
	size = q3p_result_encode(r->id, &m, NULL, 0);
	if (size == 0)
	{
		refuse(io, r->conn, r->id, q3_sqlstate(Q3_ERR_TOO_LONG), "result is too long");
		return;
	}
	room = q3_conn_reserve(io, r->conn, size);
	if (room != NULL)
		q3_conn_sent(io, r->conn, q3p_result_encode(r->id, &m, room, size));
}

/* Sends the stream's text on, or keeps it for later when the client is slow. */
static void
answer_chunk(q3_io *io, q3_request *r)
{
	q3_conn *conn = r->conn;
	size_t n = q3_buffer_len(&r->unsent), size;
	char *room;

	if (n == 0 || q3_conn_is_full(conn))
		return;
	size = q3p_plain_encode(Q3P_CHUNK, r->id, q3_buffer_bytes(&r->unsent), n, NULL, 0);
	room = q3_conn_reserve(io, conn, size);
	if (room == NULL)
		return;
	q3p_plain_encode(Q3P_CHUNK, r->id, q3_buffer_bytes(&r->unsent), n, room, size);
	q3_conn_sent(io, conn, size);
	q3_buffer_consume(&r->unsent, n);
}

static void
answer_activity(q3_io *io, q3_conn *conn)
{
	static const uint32_t phases[] = {Q3P_QUEUED, Q3P_PREFILL, Q3P_DECODE};
	uint64_t now = q3_now_ns();
	uint32_t n = 0, i = 0;
	q3p_activity *rows;
	size_t size;
	char *room;

	for (q3_request *r = io->all; r != NULL; r = r->all_next)
		n++;
	rows = calloc(n > 0 ? n : 1, sizeof(*rows));
	if (rows == NULL)
	{
		q3_conn_close(io, conn);
		return;
	}
	for (q3_request *r = io->all; r != NULL; r = r->all_next)
		rows[i++] = (q3p_activity){.id = r->id,
		                           .pid = r->client.pid,
		                           .role = r->client.role,
		                           .database = r->client.database,
		                           .kind = r->msg.kind,
		                           .mode = r->mode == Q3_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE,
		                           .phase = phases[atomic_load(&r->job.phase)],
		                           .prompt_tokens = atomic_load(&r->job.prompt_tokens),
		                           .prompt_done = atomic_load(&r->job.prompt_done),
		                           .output_tokens = atomic_load(&r->job.output_tokens),
		                           .max_tokens = r->msg.max_tokens,
		                           .kv_tokens = atomic_load(&r->job.kv_tokens),
		                           .age_ms = (double) (now - r->arrived_ns) / 1e6,
		                           .query_id = r->msg.query_id};
	size = q3p_activity_encode(rows, n, NULL, 0);
	room = q3_conn_reserve(io, conn, size);
	if (room != NULL)
		q3_conn_sent(io, conn, q3p_activity_encode(rows, n, room, size));
	free(rows);
}

/* ---------------------------------------------------------------------------------------------
 * Frames from clients
 * --------------------------------------------------------------------------------------------- */

/* Asks the threads to stop; the request stays on io->all until they give it back. */
static void
cancel(q3_io *io, q3_request *r)
{
	unlink_from_conn(r);
	q3_workers_cancel(io->workers, r);
}

static void
cancel_by_id(q3_io *io, q3_conn *conn, uint64_t id)
{
	for (q3_request *r = conn->requests; r != NULL; r = r->conn_next)
		if (r->id == id)
		{
			cancel(io, r);
			refuse(io, conn, id, q3_sqlstate(Q3_ERR_CANCELLED), "request was cancelled");
			return;
		}
}

void
q3_answer_drop(q3_io *io, q3_conn *conn)
{
	while (conn->requests != NULL)
		cancel(io, conn->requests);
}

bool
q3_answer_request(q3_io *io, q3_conn *conn, uint64_t id, char *frame, const char *payload,
                  size_t length)
{
	q3_request *r = q3_request_create(id, frame, payload, length, &conn->client);

	if (r == NULL)
		return false;
	io->n_requests++;
	io->status_due = true;
	if (conn->n_requests >= MAX_CONN_REQUESTS || io->lent_bytes + length > MAX_LENT_BYTES)
	{
		refuse(io, conn, id, SQLSTATE_FULL, "request queue is full");
		q3_request_free(r);
		return true;
	}
	link_request(io, conn, r);
	q3_workers_submit(io->workers, r);
	return true;
}

static bool
copy_request(q3_io *io, q3_conn *conn, const q3p_header *header, const char *payload)
{
	char *frame = malloc(header->length > 0 ? header->length : 1);

	if (frame == NULL)
		return false;
	memcpy(frame, payload, header->length);
	if (q3_answer_request(io, conn, header->id, frame, frame, header->length))
		return true;
	free(frame);
	return false;
}

static bool
greet(q3_io *io, q3_conn *conn, const q3p_header *header, const char *payload)
{
	if (conn->greeted || header->type != Q3P_HELLO ||
	    !q3p_hello_decode(payload, header->length, &conn->client))
		return false;
	if (conn->client.version != Q3P_VERSION)
	{
		q3_error err;

		q3_fail(&err, Q3_ERR_UNSUPPORTED,
		        "protocol version %" PRIu32 " is not supported, the engine speaks version %d",
		        conn->client.version, Q3P_VERSION);
		q3_error_hint(&err, "Restart the server after an update of the extension.");
		q3_answer_error(io, conn, 0, SQLSTATE_PROTOCOL, &err);
		return false;
	}
	conn->greeted = true;
	return true;
}

bool
q3_answer_frame(q3_io *io, q3_conn *conn, const q3p_header *header, const char *payload)
{
	if (!conn->greeted)
		return greet(io, conn, header, payload);
	switch (header->type)
	{
		case Q3P_REQUEST:
			return copy_request(io, conn, header, payload);
		case Q3P_CANCEL:
			cancel_by_id(io, conn, header->id);
			return header->length == 0;
		case Q3P_ACTIVITY:
			answer_activity(io, conn);
			return header->length == 0;
		default:
			return false;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Requests from the threads
 * --------------------------------------------------------------------------------------------- */

static void
count(q3_io *io, const q3_request *r)
{
	io->status_due = true;
	io->n_prompt_tokens += (uint64_t) atomic_load(&r->job.prompt_done);
	io->n_output_tokens += (uint64_t) atomic_load(&r->job.output_tokens);
	io->n_classified += r->msg.kind == Q3P_CLASSIFY && r->conn != NULL && r->error.code == Q3_OK;
}

static void
finish(q3_io *io, q3_request *r)
{
	count(io, r);
	if (r->conn != NULL)
	{
		if (r->error.code != Q3_OK)
			q3_answer_error(io, r->conn, r->id, q3_sqlstate(r->error.code), &r->error);
		else
			answer_result(io, r);
	}
	forget(io, r);
}

void
q3_answer_collect(q3_io *io)
{
	q3_outbox *outbox = q3_workers_outbox(io->workers);
	q3_buffer text = {0};
	bool done;
	q3_request *r;

	while ((r = q3_outbox_pop(outbox, &text, &done)) != NULL)
	{
		if (r->conn != NULL && q3_buffer_len(&text) > 0)
		{
			if (!q3_buffer_append(&r->unsent, q3_buffer_bytes(&text), q3_buffer_len(&text)))
				q3_conn_close(io, r->conn);
			else if (!done)
				answer_chunk(io, r);
		}
		q3_buffer_free(&text);
		if (done)
			finish(io, r);
	}
}
