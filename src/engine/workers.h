/*
 * workers.h: the threads behind the service's event loop.
 *
 * One compute thread loads the model, then owns runtime and scheduler. Two preparation threads
 * tokenize, one for ordinary texts and one for long ones, so that a text of many megabytes delays
 * neither the event loop, nor the computation, nor other people's short prompts. All functions here
 * are for the I/O thread.
 */
#ifndef Q3_WORKERS_H
#define Q3_WORKERS_H

#include "engine/request.h"
#include "engine/scheduler.h"

typedef struct q3_workers q3_workers;

typedef struct q3_workers_config
{
	const char *model_path; /* must outlive the workers */
	const char *known_digest;
	int image_fd; /* 0: none */
	const char *image_cache;
	q3_runtime_options runtime;
	int wake_fd; /* eventfd that is written when there is news */
} q3_workers_config;

typedef struct q3_workers_state
{
	q3p_state state;
	double progress; /* of loading */
	double load_ms;
	q3_error error; /* FAILED */
	/* From READY on: */
	const q3_model_info *model;
	const q3_image_info *image;
	q3_runtime_info runtime;      /* as of the last step */
	q3_scheduler_stats scheduler; /* as of the last step */
} q3_workers_state;

/* NULL and err on failure. */
extern q3_workers *q3_workers_start(const q3_workers_config *config, q3_error *err);
/* Copies the present state. */
extern void q3_workers_get_state(q3_workers *w, q3_workers_state *state);
/* Lends the request to the threads; it comes back through the outbox. */
extern void q3_workers_submit(q3_workers *w, q3_request *r);
/* The same for one that came back to be judged: it may be computed. */
extern void q3_workers_compute(q3_workers *w, q3_request *r);
extern void q3_workers_cancel(q3_workers *w, q3_request *r);
extern q3_outbox *q3_workers_outbox(q3_workers *w);
/*
 * Ends the threads; every request that was lent is in the outbox then. False when a thread does not
 * come to an end within timeout_ms: then nothing is freed, and the process has to exit.
 */
extern bool q3_workers_stop(q3_workers *w, int timeout_ms);
extern void q3_workers_free(q3_workers *w);

#endif
