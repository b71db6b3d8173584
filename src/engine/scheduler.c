/*
 * scheduler.c: which tokens go into the next forward pass, and what becomes of its logits.
 *
 * Waiting jobs form a queue in order of arrival; a job is admitted when the KV cache has room for
 * its whole prompt and answer, so that no running job can ever run out of room. Running jobs are
 * kept in order of admission. All of this belongs to the compute thread. The lock guards only what
 * q3_scheduler_cancel() shares with it: which jobs are in the current step, and the step's stop
 * flag.
 */
#include "engine/scheduler.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Rows of logits in one step, hence also the most jobs that run at once. */
#define MAX_ROWS 64
/* How long a step should take, so that cancelling and newcomers need not wait longer. */
#define STEP_TARGET_NS 100e6
/* A prompt's piece is never cut smaller for the sake of time. */
#define MIN_PREFILL 16
/* Weight of the newest step in the measured speed. */
#define SPEED_GAIN 0.3

struct q3_scheduler
{
	q3_runtime *rt;
	q3_scheduler_events events;
	int32_t n_vocab; /* length of a row of logits */
	int32_t n_valid; /* without the padding at the vocabulary's end */
	const q3_tokenizer *tok;
	int32_t max_batch; /* tokens in one step */
	int32_t max_rows;
	int32_t kv_block_tokens;
	int64_t kv_capacity;  /* tokens that the whole pool has room for */
	double tokens_per_ns; /* measured; 0: not yet */

	q3_job *waiting, **waiting_end;
	q3_job *running[MAX_ROWS];
	int32_t n_running;

	/* The step being built or run: item i is a part of jobs[i]. */
	q3_batch_item items[MAX_ROWS];
	q3_job *jobs[MAX_ROWS];
	int32_t n_items, n_rows, n_tokens;
	float *logits; /* [max_rows][n_vocab] */

	pthread_mutex_t lock;
	int32_t step_live; /* jobs of the step that are not cancelled */
	atomic_bool halted;
	atomic_bool stop;
};

/* ---------------------------------------------------------------------------------------------
 * Making and freeing
 * --------------------------------------------------------------------------------------------- */

static int32_t
valid_vocabulary(const q3_tokenizer *tok, int32_t n_vocab)
{
	int32_t n = q3_tokenizer_n_vocab(tok);

	if (n > n_vocab)
		n = n_vocab;
	while (n > 1 && q3_tokenizer_kind(tok, n - 1) == Q3_TOKEN_UNUSED)
		n--;
	return n;
}

q3_scheduler *
q3_scheduler_create(const q3_model *m, q3_runtime *rt, const q3_scheduler_events *events,
                    q3_error *err)
{
	q3_scheduler *s = calloc(1, sizeof(*s));
	q3_runtime_info info;

	if (s == NULL)
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	q3_runtime_get_info(rt, &info);
	s->rt = rt;
	s->events = *events;
	s->tok = q3_model_tokenizer(m);
	s->n_vocab = q3_model_get_info(m)->n_vocab;
	s->n_valid = valid_vocabulary(s->tok, s->n_vocab);
	s->max_batch = info.max_batch_tokens;
	s->max_rows = info.max_batch_tokens < MAX_ROWS ? info.max_batch_tokens : MAX_ROWS;
	s->kv_block_tokens = info.kv_block_tokens;
	s->kv_capacity = (int64_t) info.kv_blocks * info.kv_block_tokens;
	s->waiting_end = &s->waiting;
	/* Pages of rows that no step uses are never touched. */
	s->logits = malloc(sizeof(float) * (size_t) s->max_rows * (size_t) s->n_vocab);
	if (s->logits == NULL)
	{
		free(s);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&s->lock, NULL);
	atomic_init(&s->halted, false);
	atomic_init(&s->stop, false);
	return s;
}

/* Gives the job's room back and tells the owner. */
static void
finish_job(q3_scheduler *s, q3_job *job)
{
	q3_seq_free(job->seq);
	job->seq = NULL;
	atomic_store(&job->kv_tokens, 0);
	s->events.done(s->events.arg, job);
}

static void
cancel_job(q3_scheduler *s, q3_job *job)
{
	q3_fail(&job->error, Q3_ERR_CANCELLED, "request was cancelled");
	finish_job(s, job);
}

void
q3_scheduler_free(q3_scheduler *s)
{
	if (s == NULL)
		return;
	for (int32_t i = 0; i < s->n_running; i++)
		cancel_job(s, s->running[i]);
	while (s->waiting != NULL)
	{
		q3_job *job = s->waiting;

		s->waiting = job->next;
		cancel_job(s, job);
	}
	pthread_mutex_destroy(&s->lock);
	free(s->logits);
	free(s);
}

/* ---------------------------------------------------------------------------------------------
 * Queueing, cancelling, admission
 * --------------------------------------------------------------------------------------------- */

/* The last token of a scored text is only looked up, never computed. */
static int32_t
tokens_to_compute(const q3_job *job)
{
	return (int32_t) job->prompt.n - (job->logprob ? 1 : 0);
}

/* Room for the prompt and the longest answer; the answer's last token is never stored. */
static int32_t
kv_need(const q3_job *job)
{
	return tokens_to_compute(job) + (job->logprob ? 0 : job->max_tokens - 1);
}

void
q3_scheduler_submit(q3_scheduler *s, q3_job *job)
{
	int32_t need = kv_need(job);

	if (need > s->kv_capacity)
	{
		q3_fail(&job->error, Q3_ERR_TOO_LONG,
		        "request needs room for %" PRId32 " tokens, but the key-value cache holds %" PRId64,
		        need, s->kv_capacity);
		q3_error_hint(&job->error, "Lower max_tokens, or increase qwen3dm.kv_cache_size.");
		finish_job(s, job);
		return;
	}
	job->next = NULL;
	*s->waiting_end = job;
	s->waiting_end = &job->next;
}

void
q3_scheduler_cancel(q3_scheduler *s, q3_job *job)
{
	pthread_mutex_lock(&s->lock);
	if (!atomic_exchange(&job->cancelled, true) && job->in_step && --s->step_live == 0)
		atomic_store(&s->stop, true);
	pthread_mutex_unlock(&s->lock);
}

void
q3_scheduler_halt(q3_scheduler *s)
{
	pthread_mutex_lock(&s->lock);
	atomic_store(&s->halted, true);
	atomic_store(&s->stop, true);
	pthread_mutex_unlock(&s->lock);
}

/* Removes running[i], keeping the order. */
static void
remove_running(q3_scheduler *s, int32_t i)
{
	s->n_running--;
	memmove(&s->running[i], &s->running[i + 1],
	        sizeof(s->running[0]) * (size_t) (s->n_running - i));
}

static void
drop_cancelled(q3_scheduler *s)
{
	for (int32_t i = s->n_running - 1; i >= 0; i--)
	{
		q3_job *job = s->running[i];

		if (atomic_load(&job->cancelled))
		{
			remove_running(s, i);
			cancel_job(s, job);
		}
	}
	for (q3_job **link = &s->waiting; *link != NULL;)
	{
		q3_job *job = *link;

		if (!atomic_load(&job->cancelled))
		{
			link = &job->next;
			continue;
		}
		*link = job->next;
		if (s->waiting_end == &job->next)
			s->waiting_end = link;
		cancel_job(s, job);
	}
}

/* Takes jobs off the queue, in order, as long as there is room for them. */
static void
admit(q3_scheduler *s)
{
	while (s->waiting != NULL && s->n_running < s->max_rows)
	{
		q3_job *job = s->waiting;
		q3_seq *seq = q3_seq_create(s->rt);
		int32_t need = kv_need(job);

		if (seq == NULL || !q3_seq_reserve(seq, need))
		{
			bool failed = s->n_running == 0; /* nobody will ever make room */

			q3_seq_free(seq);
			if (!failed)
				return;
			q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
		}
		s->waiting = job->next;
		if (s->waiting == NULL)
			s->waiting_end = &s->waiting;
		if (job->error.code != Q3_OK)
		{
			finish_job(s, job);
			continue;
		}
		job->seq = seq;
		atomic_store(&job->phase, Q3_PHASE_PREFILL);
		atomic_store(&job->kv_tokens,
		             (need + s->kv_block_tokens - 1) / s->kv_block_tokens * s->kv_block_tokens);
		s->running[s->n_running++] = job;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Building a step
 * --------------------------------------------------------------------------------------------- */

static bool
decoding(const q3_job *job)
{
	return atomic_load(&job->phase) == Q3_PHASE_DECODE;
}

static int32_t
prefill_left(const q3_job *job)
{
	return tokens_to_compute(job) - atomic_load(&job->prompt_done);
}

static void
add_item(q3_scheduler *s, q3_job *job, const int32_t *tokens, int32_t n, q3_want want)
{
	q3_batch_item *item = &s->items[s->n_items];

	*item = (q3_batch_item){
	    .seq = job->seq, .tokens = tokens, .n_tokens = n, .mode = job->mode, .want = want};
	if (want != Q3_WANT_NOTHING)
	{
		item->logits = s->logits + (size_t) s->n_rows * (size_t) s->n_vocab;
		s->n_rows += want == Q3_WANT_ALL ? n : 1;
	}
	s->jobs[s->n_items++] = job;
	s->n_tokens += n;
}

static void
add_prefill(q3_scheduler *s, q3_job *job, int32_t n)
{
	int32_t done = atomic_load(&job->prompt_done);
	q3_want want = Q3_WANT_NOTHING;

	if (job->logprob)
		want = Q3_WANT_ALL;
	else if (n == prefill_left(job))
		want = Q3_WANT_LAST;
	add_item(s, job, job->prompt.ids + done, n, want);
}

/* How many tokens of prompts this step may read beside n_decode tokens of answers. */
static int32_t
prefill_budget(const q3_scheduler *s, int32_t n_decode)
{
	double target = s->tokens_per_ns * STEP_TARGET_NS - n_decode;
	int32_t most = s->max_batch - n_decode;

	if (target < MIN_PREFILL)
		target = MIN_PREFILL;
	return target < most ? (int32_t) target : most;
}

/*
 * Shares the budget: half of it is the oldest prompt's, so that it always gets on; the rest goes to
 * the shortest ones first, so that none of them waits behind a long one; what is left is the
 * oldest's again. grant[] runs along jobs[], which are in order of admission.
 */
static void
share_prefill(q3_job *const *jobs, const int32_t *limit, int32_t n, int32_t budget, int32_t *grant)
{
	int32_t oldest = (budget + 1) / 2 < limit[0] ? (budget + 1) / 2 : limit[0];
	int32_t left = budget - oldest, more;

	memset(grant, 0, sizeof(*grant) * (size_t) n);
	grant[0] = oldest;
	for (int32_t round = 1; round < n && left > 0; round++)
	{
		int32_t best = -1;

		for (int32_t i = 1; i < n; i++)
			if (grant[i] == 0 && (best < 0 || prefill_left(jobs[i]) < prefill_left(jobs[best])))
				best = i;
		grant[best] = limit[best] < left ? limit[best] : left;
		left -= grant[best];
	}
	more = limit[0] - grant[0] < left ? limit[0] - grant[0] : left;
	grant[0] += more;
}

static void
build_step(q3_scheduler *s)
{
	q3_job *prefill[MAX_ROWS];
	int32_t limit[MAX_ROWS], grant[MAX_ROWS], n_prefill = 0;
	int32_t spare_rows = s->max_rows - s->n_running; /* each running job has one of its own */

	s->n_items = s->n_rows = s->n_tokens = 0;
	for (int32_t i = 0; i < s->n_running; i++)
	{
		q3_job *job = s->running[i];

		if (decoding(job))
			add_item(s, job, &job->next_token, 1, Q3_WANT_LAST);
		else
			prefill[n_prefill++] = job;
	}
	if (n_prefill == 0)
		return;
	for (int32_t i = 0; i < n_prefill; i++)
	{
		limit[i] = prefill_left(prefill[i]);
		if (prefill[i]->logprob && limit[i] > 1 + spare_rows)
			limit[i] = 1 + spare_rows;
		if (prefill[i]->logprob)
			spare_rows -= limit[i] - 1;
	}
	share_prefill(prefill, limit, n_prefill, prefill_budget(s, s->n_tokens), grant);
	for (int32_t i = 0; i < n_prefill; i++)
		if (grant[i] > 0)
			add_prefill(s, prefill[i], grant[i]);
}

/* ---------------------------------------------------------------------------------------------
 * Using a step's logits
 * --------------------------------------------------------------------------------------------- */

/* Log-probability of one token under the softmax of a row; sums in double. */
static double
row_logprob(const float *row, int32_t n, int32_t token)
{
	float max = row[0];
	double sum = 0;

	for (int32_t i = 1; i < n; i++)
		max = row[i] > max ? row[i] : max;
	for (int32_t i = 0; i < n; i++)
		sum += expf(row[i] - max);
	return (double) row[token] - max - log(sum);
}

/* True when the job is complete. */
static bool
score_rows(q3_scheduler *s, q3_job *job, const q3_batch_item *item)
{
	int32_t first = atomic_load(&job->prompt_done) - item->n_tokens;

	for (int32_t i = 0; i < item->n_tokens; i++)
	{
		const float *row = item->logits + (size_t) i * (size_t) s->n_vocab;

		job->logprob_sum += row_logprob(row, s->n_vocab, job->prompt.ids[first + i + 1]);
		job->n_logprobs++;
	}
	return prefill_left(job) == 0;
}

static bool
next_token(q3_scheduler *s, q3_job *job, const q3_batch_item *item)
{
	float logprob;
	int32_t token = q3_sampler_pick(job->sampler, item->logits, s->n_valid, &logprob);

	if (!q3_tokenizer_is_end(s->tok, token))
	{
		job->logprob_sum += logprob;
		job->n_logprobs++;
	}
	if (!q3_output_push(job->output, token, &job->finish))
	{
		q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
		return true;
	}
	job->next_token = token;
	atomic_store(&job->phase, Q3_PHASE_DECODE);
	atomic_store(&job->output_tokens, q3_output_n_tokens(job->output));
	if (job->stream)
	{
		q3_str text = q3_output_take(job->output);

		if (text.len > 0)
			s->events.text(s->events.arg, job, text);
	}
	return job->finish != Q3_FINISH_NONE || job->error.code != Q3_OK;
}

/* True when the job is complete or has failed. */
static bool
use_item(q3_scheduler *s, q3_job *job, const q3_batch_item *item)
{
	if (!decoding(job))
		atomic_fetch_add(&job->prompt_done, item->n_tokens);
	if (item->want == Q3_WANT_NOTHING)
		return false;
	return job->logprob ? score_rows(s, job, item) : next_token(s, job, item);
}

/* ---------------------------------------------------------------------------------------------
 * The step
 * --------------------------------------------------------------------------------------------- */

/* Makes the step visible to q3_scheduler_cancel(); false when it need not run. */
static bool
begin_step(q3_scheduler *s)
{
	bool run;

	pthread_mutex_lock(&s->lock);
	s->step_live = 0;
	for (int32_t i = 0; i < s->n_items; i++)
	{
		s->jobs[i]->in_step = true;
		s->step_live += !atomic_load(&s->jobs[i]->cancelled);
	}
	run = !atomic_load(&s->halted) && s->step_live > 0;
	atomic_store(&s->stop, !run);
	pthread_mutex_unlock(&s->lock);
	return run;
}

static void
end_step(q3_scheduler *s)
{
	pthread_mutex_lock(&s->lock);
	for (int32_t i = 0; i < s->n_items; i++)
		s->jobs[i]->in_step = false;
	pthread_mutex_unlock(&s->lock);
}

static void
measure(q3_scheduler *s, uint64_t ns)
{
	double speed = s->n_tokens / (double) (ns > 0 ? ns : 1);

	if (s->n_tokens < MIN_PREFILL) /* decoding: bound by memory, says nothing about prompts */
		return;
	s->tokens_per_ns += (s->tokens_per_ns == 0 ? 1 : SPEED_GAIN) * (speed - s->tokens_per_ns);
}

static void
finish_running(q3_scheduler *s, q3_job *job)
{
	for (int32_t i = 0; i < s->n_running; i++)
		if (s->running[i] == job)
		{
			remove_running(s, i);
			break;
		}
	finish_job(s, job);
}

bool
q3_scheduler_step(q3_scheduler *s)
{
	uint64_t start = q3_now_ns();
	q3_error err = {0};
	q3_code code;

	drop_cancelled(s);
	admit(s);
	build_step(s);
	if (s->n_items == 0)
		return false;
	for (int32_t i = 0; i < s->n_items; i++)
		if (s->jobs[i]->started_ns == 0)
			s->jobs[i]->started_ns = start;
	code = Q3_ERR_CANCELLED;
	if (begin_step(s))
		code = q3_forward(s->rt, s->items, s->n_items, &s->stop, &err);
	end_step(s);
	if (code == Q3_ERR_CANCELLED) /* nothing happened; the next step drops the cancelled jobs */
		return !atomic_load(&s->halted);
	for (int32_t i = 0; i < s->n_items; i++)
	{
		if (code != Q3_OK)
			s->jobs[i]->error = err;
		if (code != Q3_OK || use_item(s, s->jobs[i], &s->items[i]))
			finish_running(s, s->jobs[i]);
	}
	measure(s, q3_now_ns() - start);
	return s->n_running > 0 || s->waiting != NULL;
}
