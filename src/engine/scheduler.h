/*
 * scheduler.h: continuous batching.
 *
 * A scheduler belongs to one thread, the compute thread, which also owns the runtime: it takes
 * jobs, and every q3_scheduler_step() runs one forward pass over whatever is there: one token of
 * every job that is decoding, pieces of the prompts that are not read yet, and branches of label
 * trees, as many as fit in max_batch_tokens and in a fraction of a second. Roles share the time by
 * their jobs' weights; within a role jobs start in order of arrival. What jobs of a role have in
 * common at the beginning of their prompts is computed once. Only q3_scheduler_cancel() and
 * q3_scheduler_halt() may be called from other threads.
 */
#ifndef Q3_SCHEDULER_H
#define Q3_SCHEDULER_H

#include "engine/job.h"

typedef struct q3_scheduler q3_scheduler;

/* Called on the compute thread, during submit or step. */
typedef struct q3_scheduler_events
{
	/* Value text of a streaming job that became final; may be NULL where no job streams. */
	void (*text)(void *arg, q3_job *job, q3_str text);
	/* The job is finished, failed (job->error) or cancelled, and holds no room any more. */
	void (*done)(void *arg, q3_job *job);
	void *arg;
} q3_scheduler_events;

/* Since the scheduler was made. */
typedef struct q3_scheduler_stats
{
	uint64_t steps;         /* forward passes */
	uint64_t cached_tokens; /* of prompts, found in the prefix cache */
	uint64_t deduplicated;  /* jobs that got the answer of an equal one */
} q3_scheduler_stats;

/* Both m and rt must outlive the scheduler. NULL and err on failure. */
extern q3_scheduler *q3_scheduler_create(const q3_model *m, q3_runtime *rt,
                                         const q3_scheduler_events *events, q3_error *err);
/* Jobs that are still there get their done event with Q3_ERR_CANCELLED. */
extern void q3_scheduler_free(q3_scheduler *s);
/* Queues the job. One that could never fit in the KV cache is done with an error at once. */
extern void q3_scheduler_submit(q3_scheduler *s, q3_job *job);
/* Runs one step; false when there is no job left. */
extern bool q3_scheduler_step(q3_scheduler *s);
extern void q3_scheduler_get_stats(const q3_scheduler *s, q3_scheduler_stats *stats);

/*
 * From any thread, for a job that the scheduler has, will get or had (its memory must still be
 * there). The job's room is free after the current step, which is cut short when nobody else needs
 * it.
 */
extern void q3_scheduler_cancel(q3_scheduler *s, q3_job *job);
/* From any thread: cuts the current step short and lets no later one begin. For shutting down. */
extern void q3_scheduler_halt(q3_scheduler *s);

#endif
