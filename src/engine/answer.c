/*
 * answer.c: the life of a request as the I/O thread sees it: accepted, lent to the threads,
 * answered.
 *
 * A client's request is on the list io->all until the threads give it back, and on its connection's
 * list until it is answered or the connection is gone; a cancelled one is answered at once and only
 * freed when it comes back.
 */
#include "engine/io.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Requests in flight on one connection, and bytes of all requests: beyond, new ones are refused. */
#define MAX_CONN_REQUESTS 10000
#define MAX_LENT_BYTES ((size_t) 512 * 1024 * 1024)

#define SQLSTATE_PROTOCOL "08P01"

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

/* The request has come back, and has ended. */
static void
unlink_request(q3_io *io, q3_request *r)
{
	unlink_from_conn(r);
	if (r->all_prev != NULL)
		r->all_prev->all_next = r->all_next;
	else
		io->all = r->all_next;
	if (r->all_next != NULL)
		r->all_next->all_prev = r->all_prev;
	r->all_prev = r->all_next = r->conn_prev = r->conn_next = NULL;
	io->lent_bytes -= r->frame_bytes;
	if (io->all == NULL)
		io->idle_ns = q3_now_ns();
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

/* used: what the request did all the same; NULL: this is not its end. False: not sent. */
static bool
answer_error(q3_io *io, q3_conn *conn, uint64_t id, const char *sqlstate, const q3_error *err,
             const q3p_usage *used)
{
	q3p_error m = {.message = bytes_of(err->message),
	               .detail = optional(err->detail),
	               .hint = optional(err->hint)};
	size_t size;
	char *room;

	memcpy(m.sqlstate, sqlstate, sizeof(m.sqlstate));
	if (used != NULL)
	{
		m.mode = used->mode;
		m.prompt_tokens = used->prompt_tokens;
		m.cached_tokens = used->cached_tokens;
		m.output_tokens = used->output_tokens;
		m.latency_ms = used->latency_ms;
	}
	io->n_errors++;
	size = q3p_error_encode(id, &m, NULL, 0);
	room = q3_conn_reserve(io, conn, size);
	if (room != NULL)
		q3_conn_sent(io, conn, q3p_error_encode(id, &m, room, size));
	return room != NULL;
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
	m->escalated = r->ended.escalated;
	m->margin = r->ended.margin;
	m->off_label = r->ended.off_label;
	m->first_ms = r->ended.first_ms;
	if (r->ended.thinking != NULL)
	{
		q3_str thinking = q3_output_thinking(r->ended.thinking);

		m->thinking = (q3p_bytes){thinking.data, thinking.len};
		m->thinking_tokens = q3_output_n_tokens(r->ended.thinking);
	}
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
}

static bool
answer_result(q3_io *io, q3_request *r, const q3p_usage *used)
{
	uint64_t now = q3_now_ns();
	uint64_t started = r->ended.started_ns > 0 ? r->ended.started_ns : r->job.started_ns;
	q3p_result m = {.mode = r->mode == Q3_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE,
	                /* Of what needs no model, nothing is used. */
	                .prompt_tokens = used->prompt_tokens > 0 ? used->prompt_tokens
	                                                         : atomic_load(&r->job.prompt_tokens),
	                .cached_tokens = used->cached_tokens,
	                .output_tokens = used->output_tokens,
	                .deduplicated = r->job.deduplicated,
	                .confidence = q3_job_confidence(&r->job),
	                .score = q3_job_score(&r->job),
	                .off_label = NAN,
	                .queue_ms = (double) ((started > 0 ? started : now) - r->arrived_ns) / 1e6,
	                .latency_ms = used->latency_ms,
	                .reason = bytes_of(r->reason),
	                .digest = bytes_of(io->state.model != NULL ? io->state.model->digest : "")};
	size_t size;
	char *room;

	fill_value(r, &m);
	size = q3p_result_encode(r->id, &m, NULL, 0);
	if (size == 0)
	{
		q3_fail(&r->error, Q3_ERR_TOO_LONG, "result is too long");
		return answer_error(io, r->conn, r->id, q3_sqlstate(r->error.code), &r->error, used);
	}
	room = q3_conn_reserve(io, r->conn, size);
	if (room != NULL)
		q3_conn_sent(io, r->conn, q3p_result_encode(r->id, &m, room, size));
	return room != NULL;
}

/* The end of a request: its client is told (true), or the worker. */
static bool
answer(q3_io *io, q3_request *r, const q3p_usage *used)
{
	q3_conn *conn = r->conn;
	bool sent = false;

	if (conn != NULL && r->error.code != Q3_OK)
		sent = answer_error(io, conn, r->id, q3_sqlstate(r->error.code), &r->error, used);
	else if (conn != NULL)
		sent = answer_result(io, r, used);
	if (sent)
		q3_usage_answered(conn, used);
	else
		q3_usage_tell(io, used);
	return sent;
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
	for (q3_request *r = io->all; r != NULL; r = r->all_next, i++)
	{
		rows[i] = (q3p_activity){.id = r->id,
		                         .pid = r->client.pid,
		                         .role = r->client.role,
		                         .database = r->client.database,
		                         .kind = r->msg.kind,
		                         .mode = r->mode == Q3_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE,
		                         .phase = phases[atomic_load(&r->job.phase)],
		                         .prompt_tokens = atomic_load(&r->job.prompt_tokens),
		                         .prompt_done = atomic_load(&r->job.prompt_done),
		                         .output_tokens =
		                             r->ended.output_tokens + atomic_load(&r->job.output_tokens),
		                         .max_tokens = r->msg.max_tokens,
		                         .kv_tokens = atomic_load(&r->job.kv_tokens),
		                         .age_ms = (double) (now - r->arrived_ns) / 1e6,
		                         .query_id = r->msg.query_id};
		if (r->msg.task.data != NULL)
			memcpy(rows[i].task, r->msg.task.data, r->msg.task.len);
	}
	size = q3p_activity_encode(rows, n, NULL, 0);
	room = q3_conn_reserve(io, conn, size);
	if (room != NULL)
		q3_conn_sent(io, conn, q3p_activity_encode(rows, n, room, size));
	free(rows);
}

/* ---------------------------------------------------------------------------------------------
 * Ends
 * --------------------------------------------------------------------------------------------- */

/* What a job has computed. */
static void
count(q3_io *io, const q3_request *r)
{
	io->status_due = true;
	io->n_prompt_tokens += (uint64_t) atomic_load(&r->job.prompt_done);
	io->n_output_tokens += (uint64_t) (atomic_load(&r->job.output_tokens) - r->job.resumed);
}

static void
finish(q3_io *io, q3_request *r)
{
	q3p_usage used = q3_usage_of(r);
	bool sent;

	io->n_classified += r->msg.kind == Q3P_CLASSIFY && r->conn != NULL && r->error.code == Q3_OK;
	if (r->claim.verdict == Q3_UNJUDGED)
		r->claim.prompt = used.prompt_tokens;
	/* The claim's prompt is that of the first job. */
	q3_quota_end(io->quota, &r->claim,
	             used.output_tokens + (used.prompt_tokens > r->claim.prompt
	                                       ? used.prompt_tokens - r->claim.prompt
	                                       : 0),
	             q3_now_ns());
	sent = answer(io, r, &used);
	unlink_request(io, r);
	if (!sent || !q3_shadow_keep(io, r))
		q3_request_free(r);
}

/* Requests of the role that were held, after one of it has ended. */
static void
go_on(q3_io *io, uint32_t role)
{
	q3_error err;
	q3_claim *c;

	while ((c = q3_quota_next(io->quota, role, q3_now_ns(), &err)) != NULL)
	{
		q3_request *r = c->owner;

		if (c->verdict == Q3_GRANTED)
		{
			q3_workers_compute(io->workers, r);
			continue;
		}
		r->error = err;
		finish(io, r);
	}
}

/* A request with a quota is prepared. */
static void
judge(q3_io *io, q3_request *r)
{
	r->claim.prompt = atomic_load(&r->job.prompt_tokens);
	r->claim.longest = r->job.max_tokens;
	switch (q3_quota_judge(io->quota, &r->claim, q3_now_ns(), &r->error))
	{
		case Q3_GRANTED:
			q3_workers_compute(io->workers, r);
			break;
		case Q3_REFUSED:
			finish(io, r);
			break;
		default:
			break;
	}
}

/* Asks the threads to stop; the request stays on io->all until they give it back. */
static void
cancel(q3_io *io, q3_request *r)
{
	unlink_from_conn(r);
	if (r->claim.verdict == Q3_HELD) /* no thread has it */
	{
		uint32_t role = r->client.role;

		q3_fail(&r->error, Q3_ERR_CANCELLED, "request was cancelled");
		finish(io, r);
		go_on(io, role);
	}
	else
		q3_workers_cancel(io->workers, r);
}

/* ---------------------------------------------------------------------------------------------
 * Frames from clients
 * --------------------------------------------------------------------------------------------- */

static void
cancel_by_id(q3_io *io, q3_conn *conn, uint64_t id)
{
	for (q3_request *r = conn->requests; r != NULL; r = r->conn_next)
		if (r->id == id)
		{
			q3_error err;

			cancel(io, r);
			/* The worker is told what it used, once it has ended. */
			q3_fail(&err, Q3_ERR_CANCELLED, "request was cancelled");
			answer_error(io, conn, id, q3_sqlstate(err.code), &err, NULL);
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
	q3p_usage used;

	if (r == NULL)
		return false;
	io->n_requests++;
	io->status_due = true;
	r->claim = (q3_claim){.role = r->client.role, .quota = r->msg.token_quota, .owner = r};
	if (conn->n_requests < MAX_CONN_REQUESTS && io->lent_bytes + length <= MAX_LENT_BYTES)
	{
		link_request(io, conn, r);
		q3_workers_submit(io->workers, r);
		return true;
	}
	q3_fail(&r->error, Q3_ERR_LIMIT, "request queue is full");
	r->conn = conn;
	used = q3_usage_of(r);
	answer(io, r, &used);
	q3_request_free(r);
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
		answer_error(io, conn, 0, SQLSTATE_PROTOCOL, &err, NULL);
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

static bool
takes_another(q3_request *r)
{
	return r->error.code == Q3_OK && !atomic_load(&r->job.cancelled) && q3_request_next(r);
}

/* A thread has given the request back. */
static void
take_back(q3_io *io, q3_request *r)
{
	bool to_judge = r->to_judge && !atomic_load(&r->job.cancelled);
	uint32_t role = r->client.role;

	if (r->to_judge && !to_judge)
		q3_fail(&r->error, Q3_ERR_CANCELLED, "request was cancelled");
	r->to_judge = false;
	if (to_judge)
	{
		judge(io, r);
		return;
	}
	count(io, r);
	if (takes_another(r))
		q3_workers_submit(io->workers, r);
	else if (r->is_shadow)
		q3_shadow_ended(io, r);
	else
	{
		finish(io, r);
		go_on(io, role);
	}
}

void
q3_answer_stop(q3_io *io)
{
	q3_claim *c;

	while ((c = q3_quota_drop(io->quota)) != NULL)
		q3_request_free(c->owner);
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
			take_back(io, r);
	}
}
