/*
 * schedule.h: what the files of the scheduler share: scheduler.c (steps, events, cancelling),
 * schedule_queue.c (who waits, who may run, who waits for an equal job), schedule_step.c (which
 * tokens go into the next step). Everything here belongs to the compute thread, except what stands
 * under the lock.
 */
#ifndef Q3_SCHEDULE_H
#define Q3_SCHEDULE_H

#include <pthread.h>

#include "engine/scheduler.h"

/* Jobs that run at once. */
#define Q3_MAX_RUNNING 256
/* Whole rows of logits in one step, hence also the most jobs that generate or score at once. */
#define Q3_MAX_ROWS 64
/* Parts of a step. */
#define Q3_MAX_ITEMS 512
/* Buckets of the table of shareable jobs. */
#define Q3_EQUAL_BUCKETS 4096

/*
 * A role with jobs. Its time is what has been computed for it, in tokens over its weight; the role
 * with the least time is served next.
 */
typedef struct q3_role
{
	struct q3_role *next;
	uint32_t id;
	double weight;
	double time;     /* for what has been computed */
	double promised; /* for what running jobs' prompts will still need */
	q3_job *waiting, **last_waiting;
	int32_t n_jobs; /* waiting and running */
	bool stuck;     /* its next job cannot be admitted now */
	/* While a step is built: */
	double turn;    /* its time with what it has got in this step */
	int32_t demand; /* tokens of prompts that could be computed */
	int32_t share;  /* of them, that will be */
} q3_role;

/* What a whole row of logits says. */
typedef struct q3_row
{
	int32_t part;
	int32_t token;  /* picked, or the one that is scored; -1: none could be */
	double logprob; /* of that token */
} q3_row;

/* A part of a step before it is put in order. */
typedef struct q3_part
{
	q3_batch_item item;
	q3_job *job;
	int32_t probe; /* of the job; -1: its prompt or its next token */
	int32_t row;   /* its first whole row of logits, if it has any */
} q3_part;

struct q3_scheduler
{
	q3_runtime *rt;
	q3_scheduler_events events;
	int32_t n_vocab; /* length of a row of logits */
	int32_t n_valid; /* without the padding at the vocabulary's end */
	const q3_tokenizer *tok;
	int32_t max_batch; /* tokens in one step */
	int32_t max_rows;
	int32_t kv_block_tokens, kv_blocks;
	bool prefix_cache;
	double tokens_per_ns; /* measured; 0: not yet */
	q3_scheduler_stats stats;

	q3_role *roles;
	q3_job *running[Q3_MAX_RUNNING]; /* in order of admission */
	int32_t n_running;
	int32_t rows_taken; /* running jobs that need whole rows of logits */
	q3_job *equal[Q3_EQUAL_BUCKETS];

	/* The step being built or run. */
	q3_part parts[Q3_MAX_ITEMS];
	q3_batch_item items[Q3_MAX_ITEMS]; /* the same, by mode */
	int32_t n_items, n_rows, n_tokens;
	q3_row rows[Q3_MAX_ROWS];
	float *logits;   /* [max_rows][n_vocab] */
	uint32_t *masks; /* [max_rows][mask_words]: tokens that a row may pick under a schema */
	int32_t mask_words;

	pthread_mutex_t lock;
	int32_t step_live; /* jobs of the step that are not cancelled */
	atomic_bool halted;
	atomic_bool stop;
};

/* scheduler.c */
/* Gives the job's room back and tells its owner and its followers' owners. */
extern void q3_schedule_finish(q3_scheduler *s, q3_job *job);

/* schedule_queue.c */
/* Behind the other jobs of its role, or behind an equal one. */
extern void q3_schedule_enqueue(q3_scheduler *s, q3_job *job);
/* Forgets a job that waits or has just been taken off the running ones. */
extern void q3_schedule_forget(q3_scheduler *s, q3_job *job);
/* Lets waiting jobs run as long as there is room for them. */
extern void q3_schedule_admit(q3_scheduler *s);
/* Ends what has been cancelled since the last step. */
extern void q3_schedule_drop_cancelled(q3_scheduler *s);
/* Takes the jobs that have ended off the running ones and finishes them. */
extern void q3_schedule_sweep(q3_scheduler *s);
/* Tokens of room in the KV cache that the job needs: its prompt and the longest answer. */
extern int32_t q3_schedule_room(const q3_job *job);
/* n tokens of the job have been computed; of its prompt or not. */
extern void q3_schedule_charge(q3_job *job, int32_t n, bool prompt);
/* n tokens of its prompt need not be computed any more. */
extern void q3_schedule_keep_promise(q3_job *job, int32_t n);

/* schedule_step.c */
extern void q3_schedule_build(q3_scheduler *s);

/* A job's whole tokens that the forward pass has to read before it can answer. */
static inline int32_t
q3_prompt_length(const q3_job *job)
{
	/* The last token of a scored text is only looked up, never computed. */
	return (int32_t) job->prompt.n - (job->kind == Q3_JOB_LOGPROB ? 1 : 0);
}

static inline int32_t
q3_prompt_left(const q3_job *job)
{
	return q3_prompt_length(job) - atomic_load(&job->prompt_done);
}

/* True when the job's parts of a step need whole rows of logits. */
static inline bool
q3_takes_rows(const q3_job *job)
{
	return job->kind == Q3_JOB_GENERATE || job->kind == Q3_JOB_LOGPROB;
}

/* False for jobs that need something of every token of their prompts. */
static inline bool
q3_takes_prefixes(const q3_job *job)
{
	return job->kind != Q3_JOB_LOGPROB && !job->mean;
}

static inline q3_prefix_key
q3_prefix_key_of(const q3_job *job)
{
	return (q3_prefix_key){.domain = job->kind == Q3_JOB_PIN ? Q3_DOMAIN_SHARED : job->role,
	                       .mode = job->mode};
}

#endif
