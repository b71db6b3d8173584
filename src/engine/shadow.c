/*
 * shadow.c: efficient answers that are computed again in mode precise, to learn whether that would
 * have been the same label.
 *
 * The request is kept when its client has its answer, and lent to the threads again when no client
 * has had anything to do for a moment: one at a time, with the least weight, in a role of its own,
 * and it gives way where a client's request needs its room. It is charged to nobody. An error loses
 * the run; so does the end of the engine. Runs on the I/O thread.
 */
#include "engine/io.h"

/* At most so many are kept, and so many bytes of their frames. */
#define MAX_SHADOWS 64
#define MAX_SHADOW_BYTES ((size_t) 16 * 1024 * 1024)
/* Rows that follow each other closely leave no gap: the next one would wait for a step of ours. */
#define LINGER_NS UINT64_C(10000000)

void
q3_shadow_init(q3_io *io)
{
	io->shadows.end = &io->shadows.head;
}

static q3_request *
pop(q3_shadows *s)
{
	q3_request *r = s->head;

	if (r == NULL)
		return NULL;
	s->head = r->next;
	if (s->head == NULL)
		s->end = &s->head;
	r->next = NULL;
	s->n--;
	s->bytes -= r->frame_bytes;
	return r;
}

void
q3_shadow_stop(q3_io *io)
{
	q3_request *r;

	while ((r = pop(&io->shadows)) != NULL)
		q3_request_free(r);
}

bool
q3_shadow_keep(q3_io *io, q3_request *r)
{
	q3_shadows *s = &io->shadows;

	if (r->msg.kind != Q3P_CLASSIFY || !r->msg.shadow || r->error.code != Q3_OK ||
	    r->mode != Q3_EFFICIENT || io->control.fd < 0)
		return false;
	if (s->n >= MAX_SHADOWS || r->frame_bytes > MAX_SHADOW_BYTES - s->bytes)
		return false;
	q3_request_shadow(r);
	*s->end = r;
	s->end = &r->next;
	s->n++;
	s->bytes += r->frame_bytes;
	return true;
}

int
q3_shadow_wait(const q3_io *io)
{
	uint64_t now = q3_now_ns(), due = io->idle_ns + LINGER_NS;

	if (io->shadows.head == NULL || io->shadows.running != NULL || io->all != NULL)
		return -1;
	return now >= due ? 0 : (int) ((due - now) / 1000000) + 1;
}

void
q3_shadow_start(q3_io *io)
{
	if (q3_shadow_wait(io) != 0)
		return;
	io->shadows.running = pop(&io->shadows);
	q3_workers_submit(io->workers, io->shadows.running);
}

static void
tell(q3_io *io, const q3_request *r)
{
	q3p_shadow m = {.database = r->client.database,
	                .task = r->msg.task,
	                .question = r->msg.question,
	                .agreed = q3_labels_best(r->job.labels) == r->kept};
	size_t size = q3p_shadow_encode(&m, NULL, 0);
	/* Sent at the end of the round. */
	char *room = q3_buffer_reserve(&io->control_out, size);

	if (room != NULL)
		io->control_out.end += q3p_shadow_encode(&m, room, size);
}

void
q3_shadow_ended(q3_io *io, q3_request *r)
{
	io->shadows.running = NULL;
	/* One that had to give way may have come to the end of a job all the same. */
	if (r->error.code == Q3_OK && !atomic_load(&r->job.cancelled))
		tell(io, r);
	q3_request_free(r);
}
