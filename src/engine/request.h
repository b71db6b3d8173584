/*
 * request.h: a client's request on its way through the service.
 *
 * The I/O thread makes a q3_request from a frame, lends it to a preparation thread (tokenizing),
 * which passes it on to the compute thread or straight back, and gets it back through the outbox,
 * always, also after a cancellation; then it answers and frees it. One with a quota comes back
 * before it is computed, to be judged. At every moment one thread has
 * the request; the others touch only what is atomic (the job's numbers) or under a queue's lock.
 *
 * Some requests are several jobs, one after the other (stages.c): the labels of a model that thinks
 * are compared when it has thought, or now and then while it does, and an efficient answer that is
 * not sure enough is computed again in precise. The I/O thread looks at each job that comes back,
 * and lends the request again. A request that was answered can become a shadow run (shadow.c): the
 * same question once more, for nobody.
 */
#ifndef Q3_REQUEST_H
#define Q3_REQUEST_H

#include <pthread.h>

#include "engine/buffer.h"
#include "engine/job.h"
#include "engine/quota.h"
#include "protocol/protocol.h"

struct q3_conn;

/* Of shadow runs, which are nobody's: no role has the last oid. */
#define Q3_SHADOW_ROLE UINT32_MAX

/* What a request's jobs have done before the present one. */
typedef struct q3_ended
{
	int n;
	int32_t prompt_tokens, cached_tokens, output_tokens;
	uint64_t started_ns;
	q3_output *thinking; /* NULL: has not thought */
	bool escalated;
	double margin, off_label, first_ms; /* of the first answer; NaN: none, or unknown */
} q3_ended;

/* Thinking that pauses to compare the labels. */
typedef struct q3_trials
{
	bool paused; /* it can go on, with what is in pause and in q3_ended.thinking */
	q3_pause pause;
	int32_t best; /* the label of which the last trial was sure enough; -1: none */
} q3_trials;

typedef struct q3_request
{
	/* Fixed on arrival. */
	uint64_t id;
	q3p_request msg; /* points into frame */
	char *frame;
	size_t frame_bytes;
	q3p_hello client;
	uint64_t arrived_ns;
	q3_mode mode;
	const char *reason; /* for the mode; static text */

	/* The I/O thread's. */
	struct q3_conn *conn; /* NULL: the client is gone or has its answer */
	struct q3_request *conn_prev, *conn_next, *all_prev, *all_next;
	q3_buffer unsent; /* stream text that the connection had no room for yet */
	q3_claim claim;   /* on the tokens of its role */
	q3_ended ended;   /* the jobs before this one */
	q3_trials trials;
	bool is_shadow;
	int32_t kept; /* shadow: the label that the client was told */

	/* Of the thread that has the request. */
	bool to_judge; /* prepared; whether it is computed depends on its role's quota */
	q3_job job;
	q3_tokens thought; /* the prompt up to the answer, once the model has thought */
	q3_error error;
	q3_tokens tokens; /* COUNT_TOKENS, TOKENIZE */
	char *value;      /* DETOKENIZE */
	size_t value_len;

	/* Under the lock of the queue or outbox that it is in. */
	struct q3_request *next;
	bool in_outbox, done;
	q3_buffer text; /* stream text for the I/O thread */
} q3_request;

/*
 * Takes the frame (malloc'ed; the payload starts at payload, within it). NULL when malformed or out
 * of memory: then the frame is still the caller's.
 */
extern q3_request *q3_request_create(uint64_t id, char *frame, const char *payload, size_t length,
                                     const q3p_hello *client);
extern void q3_request_free(q3_request *r);
/*
 * Preparation thread: tokenizes, and does what needs no model. True: the job is to be computed.
 * False: the request is complete (r->error, or its answer).
 */
extern bool q3_request_prepare(q3_request *r, const q3_preparer *p);
/*
 * I/O thread: the job has come back without an error. True: the request takes another one, for
 * which it is to be prepared again; margin and times of the answer are noted in r->ended.
 */
extern bool q3_request_next(q3_request *r);
/* Makes an efficient answer's request ask the same of mode precise, for nobody. */
extern void q3_request_shadow(q3_request *r);
/* A new job of the request; the one before has been freed. */
extern void q3_request_begin_job(q3_request *r);
/* Before the first job of the request; and freeing what its jobs have left. */
extern void q3_request_begin(q3_request *r);
extern void q3_request_end(q3_request *r);
/* SQLSTATE for an error. */
extern const char *q3_sqlstate(q3_code code);

/* A queue between threads; requests are linked through ->next. */
typedef struct q3_queue
{
	pthread_mutex_t lock;
	pthread_cond_t filled;
	q3_request *head, **end;
	bool closed;
} q3_queue;

extern void q3_queue_init(q3_queue *q);
extern void q3_queue_destroy(q3_queue *q);
extern void q3_queue_push(q3_queue *q, q3_request *r);
/*
 * The oldest request, or NULL. With wait it waits for one until the queue is closed; without, it
 * also takes what a closed queue still holds.
 */
extern q3_request *q3_queue_pop(q3_queue *q, bool wait);
extern void q3_queue_close(q3_queue *q);
extern bool q3_queue_closed(q3_queue *q);

/*
 * The way back to the I/O thread. A request enters when it has new text or is done, and once only;
 * text that the I/O thread does not fetch gathers in the request.
 */
typedef struct q3_outbox
{
	pthread_mutex_t lock;
	q3_request *head, **end;
	int wake_fd; /* an eventfd, not owned */
} q3_outbox;

extern void q3_outbox_init(q3_outbox *o, int wake_fd);
extern void q3_outbox_destroy(q3_outbox *o);
/* False when out of memory. */
extern bool q3_outbox_text(q3_outbox *o, q3_request *r, const char *text, size_t len);
extern void q3_outbox_done(q3_outbox *o, q3_request *r);
/* Takes the next request and its new text (moved to *text, which must be empty). NULL: none. */
extern q3_request *q3_outbox_pop(q3_outbox *o, q3_buffer *text, bool *done);
/* Wakes the I/O thread. */
extern void q3_wake(int wake_fd);

#endif
