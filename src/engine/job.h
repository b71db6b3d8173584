/*
 * job.h: one piece of work for the scheduler, and how a caller's options become one.
 *
 * A q3_job is made by q3_job_generate() or one of its like (any thread: preparation reads only
 * what is immutable), then lent to a scheduler until that calls its done event, and freed by
 * whoever made it. It knows neither sockets nor the protocol, so that the service, the command line
 * and the tests all run the same code.
 */
#ifndef Q3_JOB_H
#define Q3_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/labels.h"
#include "model/model.h"
#include "model/output.h"
#include "model/sampler.h"
#include "model/schema_cache.h"

/* Branches of a tree of labels that one job computes in one step. */
#define Q3_MAX_PROBES 16

typedef enum q3_job_kind
{
	Q3_JOB_GENERATE = 0,
	Q3_JOB_LOGPROB,  /* score the prompt's tokens */
	Q3_JOB_CLASSIFY, /* the probability of each label as the answer */
	Q3_JOB_EMBED,    /* the text as a point */
	Q3_JOB_PIN,      /* keep the prompt's blocks in the prefix cache */
	Q3_JOB_UNPIN
} q3_job_kind;

typedef enum q3_phase
{
	Q3_PHASE_QUEUED = 0, /* being prepared, or waiting for room */
	Q3_PHASE_PREFILL,
	Q3_PHASE_DECODE /* the prompt is read */
} q3_phase;

/*
 * What preparing a job needs to know of the model; immutable after q3_preparer_init(), but for the
 * schemas, which have a lock of their own.
 */
typedef struct q3_preparer
{
	const q3_tokenizer *tok;
	int32_t context_length;   /* of the runtime */
	int32_t n_vocab;          /* floats in a row of logits */
	int32_t n_embd;           /* coordinates of a vector */
	size_t max_bytes_a_token; /* no token stands for more bytes of text than this */
	q3_schema_cache *schemas; /* NULL: out of memory */
} q3_preparer;

typedef struct q3_job_options
{
	q3_mode mode;
	bool plain;         /* the prompt is the text itself, without the chat format */
	bool parse_special; /* plain: strings of control tokens become these tokens */
	bool thinking;
	bool stream; /* the text event is wanted */
	bool has_temperature, has_top_p, has_top_k;
	double temperature, top_p;
	int32_t top_k;
	uint64_t seed;
	int32_t max_tokens;
	int32_t thinking_budget; /* most tokens of thinking, then it is ended; 0: max_tokens ends it */
	int32_t pause_after;     /* q3_job_think(): it pauses after so many tokens more; 0: never */
	q3_str prompt;
	q3_str system; /* data NULL: none */
	q3_str schema; /* q3_job_generate(): JSON Schema that the value follows; data NULL: none */
	const q3_str *turns; /* examples: what was said and answered before; see chat.h */
	size_t n_turns;
	const q3_str *stops;
	size_t n_stops;
	const q3_str *labels; /* q3_job_classify(), q3_job_think() */
	size_t n_labels;
	bool off_label; /* q3_job_classify(): how probable other answers are is wanted */
	/* q3_job_classify(), or q3_job_think() that goes on: from q3_job_take_thought(); NULL: none */
	const q3_tokens *thought;
	/*
	 * The answer may be that to an equal job which is in flight: same role, mode, tokens and
	 * options, greedy, not streamed.
	 */
	bool share;
} q3_job_options;

/* A branch of the tree of labels that is being computed. */
typedef struct q3_probe
{
	q3_seq *seq; /* a fork of the job's, or the job's own */
	int32_t branch;
	int32_t done; /* tokens on the way there that are in seq */
} q3_probe;

typedef struct q3_job
{
	/* The caller's, after q3_job_init() and before preparation. */
	uint32_t role;  /* whose fair share it uses, and whose prefixes */
	int32_t weight; /* of that share */
	bool yields;    /* it is cancelled where another one needs its room */

	/* From preparation. */
	q3_job_kind kind;
	bool stream;
	bool shareable;
	unsigned char key[32]; /* shareable: equal for equal jobs */
	q3_mode mode;
	/*
	 * With what an answer has to begin with: of it the client's prompt is prompt_tokens, and the
	 * rest is in the output already, if it is not a label's.
	 */
	q3_tokens prompt;
	int32_t max_tokens; /* clamped to the context; 0: generates nothing */
	q3_sampler *sampler;
	q3_output *output;
	q3_labels *labels;
	bool off_label;            /* labels->off_label is wanted */
	q3_cached_schema *schema;  /* NULL: none */
	q3_constraint *constraint; /* where the value is under the schema */
	bool in_value;             /* the constraint holds: thinking is over */
	bool only_thinks;          /* the end of thinking ends the answer */
	int32_t resumed;           /* tokens of the output that jobs before this one wrote */
	int32_t pause_at;          /* the job ends when its output has so many; 0: not therefore */
	int32_t think_left;        /* tokens of the thinking budget; 0: none, or it is over */
	bool mean;                 /* EMBED: of the hidden states of all tokens, not the last one's */
	int32_t n_embd;
	double *hidden; /* EMBED, [n_embd]: their sum so far */
	void *owner;    /* the caller's */

	/* Any thread may read these while the job runs. */
	atomic_bool cancelled; /* set by q3_scheduler_cancel() */
	atomic_int phase;      /* q3_phase */
	atomic_int prompt_tokens, prompt_done, output_tokens;
	atomic_int cached_tokens; /* counted in prompt_done, but not computed */
	atomic_int kv_tokens;     /* room held in the KV cache */

	/* The outcome, valid from the done event on. */
	q3_error error; /* code Q3_OK: none */
	q3_finish finish;
	double logprob_sum; /* of the tokens counted in n_logprobs */
	/* Tokens that were chosen (without the end token and what a schema forced), or scored ones. */
	int32_t n_logprobs;
	float *vector;       /* EMBED, [n_embd] */
	uint64_t started_ns; /* q3_now_ns() at its first forward pass; 0: it had none */
	bool deduplicated;   /* the answer is that to an equal job */

	/* The scheduler's. */
	struct q3_job *next;       /* in the queue of its role, or of those that follow it */
	struct q3_job *next_equal; /* in a bucket of the table of shareable jobs */
	struct q3_job *followers, **last_follower; /* equal jobs that wait for this one's answer */
	struct q3_role *owner_role;
	q3_seq *seq;
	uint64_t submitted_ns;
	double promised;     /* of its role's time: for the part of the prompt not computed yet */
	q3_tokens generated; /* of a shareable job for its followers, and of one that only thinks */
	q3_probe probes[Q3_MAX_PROBES];
	int32_t n_probes, next_branch;
	q3_tokens pending; /* of the answer, that are not all in the KV cache yet */
	int32_t pending_done;
	bool refused; /* there was no room when its turn came */
	bool ended;   /* to be taken off the running ones */
	bool in_step; /* under the scheduler's lock */
} q3_job;

extern void q3_preparer_init(q3_preparer *p, const q3_model *m, int32_t context_length);
/* After all its jobs have been freed. */
extern void q3_preparer_free(q3_preparer *p);

/* A job that holds nothing yet; q3_job_free() is safe from here on. */
extern void q3_job_init(q3_job *job);
extern void q3_job_free(q3_job *job);
/*
 * Tokenizes and checks everything that can be wrong with a request: Q3_ERR_INVALID for an option,
 * Q3_ERR_TOO_LONG with both lengths for a prompt that leaves no room in the context,
 * Q3_ERR_UNSUPPORTED for a vocabulary without chat tokens, Q3_ERR_MEMORY. For a schema also what
 * q3_schema_compile() says.
 */
extern q3_code q3_job_generate(q3_job *job, const q3_preparer *p, const q3_job_options *options,
                               q3_error *err);
/*
 * The same for scoring a text. A text of fewer than two tokens has no score: then *defined is
 * false, and there is nothing to schedule.
 */
extern q3_code q3_job_logprob(q3_job *job, const q3_preparer *p, q3_str text, q3_mode mode,
                              bool *defined, q3_error *err);

/*
 * Which of options->labels answers the prompt: Q3_ERR_INVALID also for labels that are missing,
 * empty or equal. With one label the answer is certain, *compute false, and there is nothing to
 * schedule. Uses mode, prompt, system, turns, labels, off_label and share of the options.
 */
extern q3_code q3_job_classify(q3_job *job, const q3_preparer *p, const q3_job_options *options,
                               bool *compute, q3_error *err);
/*
 * What the model thinks before it classifies, at most thinking_budget tokens (0: as many as the
 * context has room for beside the labels); greedy, unless the options say otherwise. *compute is
 * false where it cannot think, or there is nothing to choose. The labels are checked here already.
 * A job that has paused is finished without a finish; q3_job_resume() and this, with the thought so
 * far, make another one go on.
 */
extern q3_code q3_job_think(q3_job *job, const q3_preparer *p, const q3_job_options *options,
                            bool *compute, q3_error *err);
/* What a paused job needs to go on, but for its tokens. */
typedef struct q3_pause
{
	q3_output *output;
	q3_sampler *sampler;
	int32_t max_tokens;
} q3_pause;

/* Gives a new job what is there, before it is prepared. */
extern void q3_job_resume(q3_job *job, q3_pause *from);
/* The prompt of a finished q3_job_think() and what was thought; the caller frees thought. False
 * when out of memory. */
extern bool q3_job_take_thought(const q3_job *job, q3_tokens *thought);
/*
 * A text as a point of n_embd coordinates, of length 1: the direction of the hidden state of the
 * text's end token, or with mean of the mean over all tokens. The text may be empty.
 */
extern q3_code q3_job_embed(q3_job *job, const q3_preparer *p, q3_str text, q3_mode mode, bool mean,
                            q3_error *err);
/* Keeps the blocks that a prompt with this system text begins with in the prefix cache. */
extern q3_code q3_job_pin(q3_job *job, const q3_preparer *p, q3_str system, q3_mode mode,
                          q3_error *err);
/* Drops all pins. */
extern void q3_job_unpin(q3_job *job);
/*
 * Gives a job the outcome of an equal one that has finished without an error. Q3_ERR_MEMORY in
 * job->error on failure.
 */
extern void q3_job_copy_answer(q3_job *job, const q3_job *from);

/* EMBED, computed to the end: makes job->vector. Q3_ERR_INTERNAL in job->error on failure. */
extern void q3_job_finish_vector(q3_job *job);

/* True when it has written what it may before it pauses. */
static inline bool
q3_job_pauses(const q3_job *job)
{
	return job->pause_at > 0 && q3_output_n_tokens(job->output) >= job->pause_at;
}

/* Tokens that a finished job generated; NaN or a probability in (0, 1]. */
extern double q3_job_confidence(const q3_job *job);
/* Mean log-probability of a finished logprob job. */
extern double q3_job_score(const q3_job *job);

/* Monotonic clock, nanoseconds. */
extern uint64_t q3_now_ns(void);

#endif
