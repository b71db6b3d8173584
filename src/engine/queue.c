/*
 * queue.c: how requests change threads: queues towards the workers, the outbox back to the I/O
 * thread. Requests are only linked here, never made or freed.
 */
#include "engine/request.h"

#include <string.h>
#include <unistd.h>

void
q3_queue_init(q3_queue *q)
{
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->filled, NULL);
	q->head = NULL;
	q->end = &q->head;
	q->closed = false;
}

void
q3_queue_destroy(q3_queue *q)
{
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->filled);
}

void
q3_queue_push(q3_queue *q, q3_request *r)
{
	pthread_mutex_lock(&q->lock);
	r->next = NULL;
	*q->end = r;
	q->end = &r->next;
	pthread_cond_signal(&q->filled);
	pthread_mutex_unlock(&q->lock);
}

q3_request *
q3_queue_pop(q3_queue *q, bool wait)
{
	q3_request *r;

	pthread_mutex_lock(&q->lock);
	while (q->head == NULL && wait && !q->closed)
		pthread_cond_wait(&q->filled, &q->lock);
	r = wait && q->closed ? NULL : q->head;
	if (r != NULL)
	{
		q->head = r->next;
		if (q->head == NULL)
			q->end = &q->head;
	}
	pthread_mutex_unlock(&q->lock);
	return r;
}

void
q3_queue_close(q3_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->closed = true;
	pthread_cond_broadcast(&q->filled);
	pthread_mutex_unlock(&q->lock);
}

bool
q3_queue_closed(q3_queue *q)
{
	bool closed;

	pthread_mutex_lock(&q->lock);
	closed = q->closed;
	pthread_mutex_unlock(&q->lock);
	return closed;
}

void
q3_wake(int wake_fd)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then the thread is awake anyway. */
	if (write(wake_fd, &one, sizeof(one)) < 0)
		return;
}

void
q3_outbox_init(q3_outbox *o, int wake_fd)
{
	pthread_mutex_init(&o->lock, NULL);
	o->head = NULL;
	o->end = &o->head;
	o->wake_fd = wake_fd;
}

void
q3_outbox_destroy(q3_outbox *o)
{
	pthread_mutex_destroy(&o->lock);
}

/* Links the request in unless it is; true when the I/O thread must be woken. Under the lock. */
static bool
enter(q3_outbox *o, q3_request *r)
{
	bool was_empty = o->head == NULL;

	if (r->in_outbox)
		return false;
	r->in_outbox = true;
	r->next = NULL;
	*o->end = r;
	o->end = &r->next;
	return was_empty;
}

bool
q3_outbox_text(q3_outbox *o, q3_request *r, const char *text, size_t len)
{
	bool ok, wake = false;

	pthread_mutex_lock(&o->lock);
	ok = q3_buffer_append(&r->text, text, len);
	if (ok)
		wake = enter(o, r);
	pthread_mutex_unlock(&o->lock);
	if (wake)
		q3_wake(o->wake_fd);
	return ok;
}

void
q3_outbox_done(q3_outbox *o, q3_request *r)
{
	bool wake;

	pthread_mutex_lock(&o->lock);
	r->done = true;
	wake = enter(o, r);
	pthread_mutex_unlock(&o->lock);
	if (wake)
		q3_wake(o->wake_fd);
}

q3_request *
q3_outbox_pop(q3_outbox *o, q3_buffer *text, bool *done)
{
	q3_request *r;

	pthread_mutex_lock(&o->lock);
	r = o->head;
	if (r != NULL)
	{
		o->head = r->next;
		if (o->head == NULL)
			o->end = &o->head;
		r->in_outbox = false;
		*done = r->done;
		r->done = false; /* it may be lent once more */
		*text = r->text;
		memset(&r->text, 0, sizeof(r->text));
	}
	pthread_mutex_unlock(&o->lock);
	return r;
}
