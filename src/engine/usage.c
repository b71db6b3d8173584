/*
 * usage.c: what each request used, told once: to its client with the answer, or to the worker when
 * nobody takes the answer.
 *
 * The end of a request is written to its connection's output with a receipt behind it. Once the
 * kernel has all bytes of the answer, the client can read it whatever happens, and the receipt is
 * dropped; when the connection ends before, the worker is told. Receipts belong to the connection.
 */
#include <string.h>

#include "engine/io.h"

/* An answer in the output. */
typedef struct receipt
{
	uint64_t end; /* of the answer, in all the bytes that the connection has to send */
	q3p_usage usage;
	char task[Q3P_TASK_BYTES];
} receipt;

/* The kinds for which the model computes something. */
static bool
computes(uint32_t kind)
{
	return kind != Q3P_COUNT_TOKENS && kind != Q3P_TOKENIZE && kind != Q3P_DETOKENIZE &&
	       kind != Q3P_UNPIN;
}

static int32_t
least(int32_t a, int32_t b)
{
	return a < b ? a : b;
}

q3p_usage
q3_usage_of(const q3_request *r)
{
	const q3_job *job = &r->job;
	int32_t prompt = r->thought.n > 0 ? 0 : atomic_load(&job->prompt_tokens);
	q3p_usage u = {.role = r->client.role,
	               .database = r->client.database,
	               .kind = r->msg.kind,
	               .latency_ms = (double) (q3_now_ns() - r->arrived_ns) / 1e6,
	               .task = r->msg.task};

	if (!computes(r->msg.kind))
		return u;
	u.mode = r->mode == Q3_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE;
	/* What the labels of a classification begin with is read with the prompt, but no part of it. */
	u.prompt_tokens =
	    r->error.code == Q3_OK ? prompt : least(prompt, atomic_load(&job->prompt_done));
	u.cached_tokens = least(u.prompt_tokens, atomic_load(&job->cached_tokens));
	u.output_tokens = atomic_load(&job->output_tokens);
	if (r->error.code == Q3_OK && job->output != NULL)
		u.output_tokens = q3_output_n_tokens(job->output);
	u.prompt_tokens += r->ended.prompt_tokens;
	u.cached_tokens += r->ended.cached_tokens;
	u.output_tokens += r->ended.output_tokens;
	return u;
}

void
q3_usage_tell(q3_io *io, const q3p_usage *u)
{
	size_t size = q3p_usage_encode(u, NULL, 0);
	char *room;

	if (io->control.fd < 0 || u->kind < Q3P_GENERATE || u->kind > Q3P_EMBED)
		return; /* nobody to tell, or nothing that is a request */
	/* Sent at the end of the round. */
	room = q3_buffer_reserve(&io->control_out, size);
	if (room != NULL)
		io->control_out.end += q3p_usage_encode(u, room, size);
}

void
q3_usage_answered(q3_conn *conn, const q3p_usage *u)
{
	receipt note = {.end = conn->n_written, .usage = *u};

	if (u->task.data != NULL)
		memcpy(note.task, u->task.data, u->task.len); /* shorter: see protocol.h */
	/* Without memory for it, it is lost only if the client goes away at this very moment. */
	(void) q3_buffer_append(&conn->receipts, &note, sizeof(note));
}

/* The oldest receipt; false: there is none. */
static bool
first_receipt(q3_conn *conn, receipt *note)
{
	if (q3_buffer_len(&conn->receipts) == 0)
		return false;
	memcpy(note, q3_buffer_bytes(&conn->receipts), sizeof(*note));
	return true;
}

void
q3_usage_delivered(q3_conn *conn)
{
	receipt note;

	while (first_receipt(conn, &note) && note.end <= conn->n_sent)
		q3_buffer_consume(&conn->receipts, sizeof(note));
}

void
q3_usage_undelivered(q3_io *io, q3_conn *conn)
{
	receipt note;

	while (first_receipt(conn, &note))
	{
		if (note.usage.task.data != NULL)
			note.usage.task.data = note.task;
		q3_usage_tell(io, &note.usage);
		q3_buffer_consume(&conn->receipts, sizeof(note));
	}
}
