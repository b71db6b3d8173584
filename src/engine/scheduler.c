/*
 * scheduler.c: running steps, and what becomes of their logits.
 *
 * All of this belongs to the compute thread; schedule.h tells what the other files do. The lock
 * guards only what q3_scheduler_cancel() shares with it: which jobs are in the current step, and
 * the step's stop flag.
 */
#include "engine/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/chat.h"

/* Steps of fewer tokens are bound by memory and say nothing about prompts. */
#define MIN_MEASURED 16
/* Weight of the newest step in the measured speed. */
#define SPEED_GAIN 0.3

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
	s->max_rows = info.max_batch_tokens < Q3_MAX_ROWS ? info.max_batch_tokens : Q3_MAX_ROWS;
	s->kv_block_tokens = info.kv_block_tokens;
	s->kv_blocks = info.kv_blocks;
	s->prefix_cache = info.prefix_cache;
	/* Pages of rows that no step uses are never touched. */
	s->logits = malloc(sizeof(float) * (size_t) s->max_rows * (size_t) s->n_vocab);
	s->mask_words = (q3_tokenizer_n_vocab(s->tok) + 31) / 32;
	s->masks = malloc(sizeof(uint32_t) * (size_t) s->max_rows * (size_t) s->mask_words);
	if (s->logits == NULL || s->masks == NULL)
	{
		free(s->logits);
		free(s->masks);
		free(s);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&s->lock, NULL);
	atomic_init(&s->halted, false);
	atomic_init(&s->stop, false);
	return s;
}

/* Ends the branches that the job computes; its own sequence is as it was before them. */
static void
end_probes(q3_job *job)
{
	for (int32_t i = 0; i < job->n_probes; i++)
		if (job->probes[i].seq != job->seq)
			q3_seq_free(job->probes[i].seq);
	job->n_probes = 0;
}

/* What was thought is read again, with more behind it: it stays in the prefix cache, too. */
static void
keep_thought(q3_job *job)
{
	q3_tokens thought = {0};
	int32_t n = q3_seq_length(job->seq);

	/* The last token was never computed. */
	if (q3_job_take_thought(job, &thought) && n < (int32_t) thought.n)
	{
		q3_seq_publish(job->seq, q3_prefix_key_of(job), thought.ids, n);
		q3_seq_publish_part(job->seq, q3_prefix_key_of(job), thought.ids, n);
	}
	q3_tokens_free(&thought);
}

/* What other prompts may begin with stays in the prefix cache, up to the prompt's last token. */
static void
keep_prompt(q3_job *job)
{
	if (job->seq != NULL && q3_prompt_left(job) == 0 && job->only_thinks)
		keep_thought(job);
	else if (job->seq != NULL && q3_prompt_left(job) == 0 && q3_takes_prefixes(job) &&
	         job->kind != Q3_JOB_PIN)
		q3_seq_publish_part(job->seq, q3_prefix_key_of(job), job->prompt.ids,
		                    (int32_t) job->prompt.n);
}

void
q3_schedule_finish(q3_scheduler *s, q3_job *job)
{
	q3_job *followers = job->followers, *next;

	end_probes(job);
	keep_prompt(job);
	q3_seq_free(job->seq);
	job->seq = NULL;
	atomic_store(&job->kv_tokens, 0);
	q3_schedule_forget(s, job);
	if (job->kind == Q3_JOB_CLASSIFY && job->error.code == Q3_OK)
		q3_labels_finish(job->labels);
	if (job->kind == Q3_JOB_EMBED && job->error.code == Q3_OK)
		q3_job_finish_vector(job);
	job->followers = NULL;
	for (q3_job *f = followers; f != NULL; f = f->next)
	{
		if (job->error.code != Q3_OK)
			f->error = job->error;
		else
		{
			q3_job_copy_answer(f, job);
			s->stats.deduplicated++;
		}
	}
	/* Whoever gets a job back may free it. */
	s->events.done(s->events.arg, job);
	for (; followers != NULL; followers = next)
	{
		next = followers->next;
		followers->next = NULL;
		s->events.done(s->events.arg, followers);
	}
}

static void
fail_all(q3_scheduler *s, q3_code code, const char *message)
{
	for (int32_t i = 0; i < s->n_running; i++)
	{
		q3_fail(&s->running[i]->error, code, "%s", message);
		s->running[i]->ended = true;
	}
	q3_schedule_sweep(s);
	for (q3_role *r = s->roles; r != NULL; r = r->next)
		while (r->waiting != NULL)
		{
			q3_job *job = r->waiting;

			r->waiting = job->next;
			q3_fail(&job->error, code, "%s", message);
			q3_schedule_finish(s, job);
		}
}

void
q3_scheduler_free(q3_scheduler *s)
{
	if (s == NULL)
		return;
	fail_all(s, Q3_ERR_CANCELLED, "request was cancelled");
	while (s->roles != NULL)
	{
		q3_role *r = s->roles;

		s->roles = r->next;
		free(r);
	}
	pthread_mutex_destroy(&s->lock);
	free(s->logits);
	free(s->masks);
	free(s);
}

void
q3_scheduler_get_stats(const q3_scheduler *s, q3_scheduler_stats *stats)
{
	*stats = s->stats;
}

/* ---------------------------------------------------------------------------------------------
 * Queueing and cancelling
 * --------------------------------------------------------------------------------------------- */

/* Pins may take half of the cache, so that there is always room to work. */
static bool
may_pin(const q3_scheduler *s, q3_job *job)
{
	q3_runtime_info info;
	int32_t most = s->kv_blocks / 2, blocks = (int32_t) job->prompt.n / s->kv_block_tokens;

	q3_runtime_get_info(s->rt, &info);
	/* Blocks that are pinned already are counted once more. */
	blocks -= atomic_load(&job->cached_tokens) / s->kv_block_tokens;
	if (info.pinned_blocks + blocks <= most)
		return true;
	q3_fail(&job->error, Q3_ERR_TOO_LONG,
	        "pinned prefixes would take %" PRId32 " of the %" PRId32
	        " blocks of the key-value cache",
	        info.pinned_blocks + blocks, s->kv_blocks);
	q3_error_hint(&job->error,
	              "Half of the cache can be pinned: unpin, or increase qwen3dm.kv_cache_size.");
	return false;
}

/* True when there is nothing to compute, or the job cannot be computed. */
static bool
ends_at_once(q3_scheduler *s, q3_job *job)
{
	int64_t capacity = (int64_t) s->kv_blocks * s->kv_block_tokens;
	int32_t need = q3_schedule_room(job);

	if (job->kind == Q3_JOB_UNPIN)
	{
		q3_runtime_unpin(s->rt);
		return true;
	}
	if (job->kind == Q3_JOB_PIN && (!s->prefix_cache || job->prompt.n == 0))
		return true;
	if (need <= capacity)
		return false;
	q3_fail(&job->error, Q3_ERR_TOO_LONG,
	        "request needs room for %" PRId32 " tokens, but the key-value cache holds %" PRId64,
	        need, capacity);
	q3_error_hint(&job->error, job->kind == Q3_JOB_EMBED
	                               ? "Shorten the input, or increase qwen3dm.kv_cache_size (for "
	                                 "an embedding model: qwen3dm.embedding_kv_cache_size)."
	                               : "Lower max_tokens, or increase qwen3dm.kv_cache_size.");
	return true;
}

void
q3_scheduler_submit(q3_scheduler *s, q3_job *job)
{
	job->submitted_ns = q3_now_ns();
	if (ends_at_once(s, job))
	{
		job->shareable = false;
		q3_schedule_finish(s, job);
	}
	else
		q3_schedule_enqueue(s, job);
}

void
q3_scheduler_cancel(q3_scheduler *s, q3_job *job)
{
	pthread_mutex_lock(&s->lock);
	/* Followers need the step; they do not change while a step runs. */
	if (!atomic_exchange(&job->cancelled, true) && job->in_step && job->followers == NULL &&
	    --s->step_live == 0)
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

/* What may come while the model thinks: the value has to follow. */
static void
mask_ends(const q3_scheduler *s, uint32_t *mask)
{
	const q3_special *special = q3_tokenizer_special(s->tok);
	const int32_t ends[] = {special->eos, special->im_end, special->endoftext};

	memset(mask, 0xff, sizeof(*mask) * (size_t) s->mask_words);
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (ends[i] >= 0 && ends[i] / 32 < s->mask_words)
			mask[ends[i] / 32] &= ~(UINT32_C(1) << (ends[i] % 32));
}

/* Picks a token under the job's schema. */
static int32_t
pick_allowed(q3_scheduler *s, int32_t r, q3_job *job, float *logprob)
{
	uint32_t *mask = s->masks + (size_t) r * (size_t) s->mask_words;
	float *logits = s->logits + (size_t) r * (size_t) s->n_vocab;

	if (!job->in_value)
		mask_ends(s, mask);
	else if (!q3_constraint_mask(job->constraint, mask))
		return -1;
	return q3_sampler_pick_allowed(job->sampler, logits, s->n_valid, mask, logprob);
}

/* Looks at one row of logits; any of the runtime's threads, each row on its own. */
static void
read_row(void *arg, int32_t r)
{
	q3_scheduler *s = arg;
	q3_row *row = &s->rows[r];
	const q3_part *part = &s->parts[row->part];
	q3_job *job = part->job;
	const float *logits = s->logits + (size_t) r * (size_t) s->n_vocab;
	float logprob = 0;

	if (job->kind == Q3_JOB_LOGPROB)
	{
		row->token = job->prompt.ids[atomic_load(&job->prompt_done) + r - part->row + 1];
		row->logprob = row_logprob(logits, s->n_vocab, row->token);
		return;
	}
	if (job->constraint != NULL)
		row->token = pick_allowed(s, r, job, &logprob);
	else
		row->token = q3_sampler_pick(job->sampler, logits, s->n_valid, &logprob);
	row->logprob = logprob;
}

/* True when the job is complete. */
static bool
score_rows(q3_scheduler *s, q3_job *job, const q3_part *part)
{
	for (int32_t i = 0; i < part->item.n_tokens; i++)
		job->logprob_sum += s->rows[part->row + i].logprob;
	job->n_logprobs += part->item.n_tokens;
	return q3_prompt_left(job) == 0;
}

static void
send_text(q3_scheduler *s, q3_job *job)
{
	q3_str text = q3_output_take(job->output);

	if (text.len > 0)
		s->events.text(s->events.arg, job, text);
}

/* One more token of the answer; false when out of memory. */
static bool
add_token(q3_job *job, int32_t token)
{
	return q3_output_push(job->output, token, &job->finish) &&
	       ((!job->shareable && !job->only_thinks) || q3_tokens_push(&job->generated, token)) &&
	       q3_tokens_push(&job->pending, token);
}

/* What the schema forces behind a token; an answer that is complete needs no end token. */
static bool
follow_schema(q3_scheduler *s, q3_job *job, int32_t token)
{
	const q3_special *special = q3_tokenizer_special(s->tok);
	q3_tokens forced = {0};
	size_t used = 0;
	bool ok;

	if (job->in_value)
		ok = q3_constraint_push(job->constraint, token, s->tok);
	else if (token != special->think_end)
		return true;
	else /* the template's way on */
		ok = q3_tokenizer_encode(s->tok, "\n\n", 2, false, &forced, NULL) == Q3_OK;
	job->in_value = true;
	ok = ok && q3_constraint_forced(job->constraint, s->tok, &forced);
	while (ok && used < forced.n && job->finish == Q3_FINISH_NONE)
		ok = add_token(job, forced.ids[used++]);
	if (ok && used == forced.n && q3_constraint_closed(job->constraint))
	{
		q3_output_end(job->output);
		job->finish = Q3_FINISH_STOP;
	}
	q3_tokens_free(&forced);
	return ok;
}

/*
 * Thinking ends with its last token, or with its budget: then by ours, which becomes *token. A job
 * that only thinks is complete then. False when out of memory.
 */
static bool
end_thinking(q3_scheduler *s, q3_job *job, int32_t *token)
{
	q3_tokens end = {0};
	bool ended = *token == q3_tokenizer_special(s->tok)->think_end, ok = true;

	if (ended)
		job->think_left = 0;
	if (ended && job->only_thinks && job->finish == Q3_FINISH_NONE)
	{
		q3_output_end(job->output);
		job->finish = Q3_FINISH_STOP;
	}
	if (job->think_left == 0 || --job->think_left > 0 || job->finish != Q3_FINISH_NONE)
		return true;
	ok = q3_chat_end_thinking(s->tok, &end, NULL) == Q3_OK;
	/* What follows </think> under a schema is the schema's to say. */
	for (size_t i = 0; ok && i < end.n && job->finish == Q3_FINISH_NONE; i++)
	{
		ok = add_token(job, end.ids[i]);
		*token = end.ids[i];
		if (job->constraint != NULL && *token == q3_tokenizer_special(s->tok)->think_end)
			break;
	}
	q3_tokens_free(&end);
	return ok;
}

/* No token could be picked. */
static void
fail_choice(q3_job *job)
{
	q3_fail(&job->error, Q3_ERR_UNSUPPORTED, "no token can follow under the JSON schema");
	q3_error_detail(&job->error, "The schema is too ambiguous, or the model's vocabulary lacks "
	                             "characters that it needs.");
}

/* True when the job is complete. */
static bool
next_token(q3_scheduler *s, q3_job *job, const q3_row *row)
{
	int32_t token = row->token;

	if (token < 0)
	{
		fail_choice(job);
		return true;
	}
	job->pending.n = 0;
	job->pending_done = 0;
	if (!q3_tokenizer_is_end(s->tok, token))
	{
		job->logprob_sum += row->logprob;
		job->n_logprobs++;
	}
	if (!add_token(job, token) || !end_thinking(s, job, &token) ||
	    (job->constraint != NULL && !follow_schema(s, job, token)))
	{
		q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
		return true;
	}
	atomic_store(&job->phase, Q3_PHASE_DECODE);
	atomic_store(&job->output_tokens, q3_output_n_tokens(job->output));
	if (job->stream)
		send_text(s, job);
	return job->finish != Q3_FINISH_NONE || job->error.code != Q3_OK || q3_job_pauses(job);
}

/* A part of the prompt is in the KV cache: others may have it. True when the job is complete. */
static bool
use_prompt(q3_scheduler *s, q3_job *job)
{
	int32_t done = atomic_load(&job->prompt_done);

	if (q3_takes_prefixes(job))
		q3_seq_publish(job->seq, q3_prefix_key_of(job), job->prompt.ids, done);
	if (q3_prompt_left(job) > 0)
		return false;
	if (job->kind == Q3_JOB_PIN && may_pin(s, job))
		q3_seq_pin(job->seq, done);
	if (job->kind == Q3_JOB_CLASSIFY)
	{
		atomic_store(&job->phase, Q3_PHASE_DECODE);
		job->next_branch = 1;
	}
	return job->kind == Q3_JOB_PIN || job->kind == Q3_JOB_EMBED ||
	       (job->kind == Q3_JOB_CLASSIFY && job->labels->n_branches == 1);
}

/* When all branches of a wave are there, the next may begin. True when the job is complete. */
static bool
use_probe(q3_job *job)
{
	const q3_labels *l = job->labels;

	for (int32_t i = 0; i < job->n_probes; i++)
		if (job->probes[i].done < l->branches[job->probes[i].branch].depth - l->branches[0].depth)
			return false;
	end_probes(job);
	if (!q3_seq_truncate(job->seq, (int32_t) job->prompt.n))
	{
		q3_fail(&job->error, Q3_ERR_INTERNAL, "blocks of a prompt's end are shared");
		return true;
	}
	return job->next_branch == l->n_branches;
}

/* True when the job is complete or has failed. */
static bool
use_part(q3_scheduler *s, const q3_part *part)
{
	q3_job *job = part->job;
	const q3_batch_item *item = &part->item;
	bool prompt = part->probe < 0 && q3_prompt_left(job) > 0, ended = false;

	q3_schedule_charge(job, item->n_tokens, prompt);
	if (part->probe >= 0)
	{
		job->probes[part->probe].done += item->n_tokens;
		return use_probe(job);
	}
	if (prompt)
	{
		atomic_fetch_add(&job->prompt_done, item->n_tokens);
		ended = use_prompt(s, job);
	}
	else
		job->pending_done += item->n_tokens;
	if (item->want == Q3_WANT_ALL)
		return score_rows(s, job, part);
	if (item->want == Q3_WANT_LAST)
		return next_token(s, job, &s->rows[part->row]);
	return ended;
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
		q3_job *job = s->parts[i].job;

		if (job->in_step) /* with another part */
			continue;
		job->in_step = true;
		s->step_live += !atomic_load(&job->cancelled) || job->followers != NULL;
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
		s->parts[i].job->in_step = false;
	pthread_mutex_unlock(&s->lock);
}

static void
measure(q3_scheduler *s, uint64_t ns)
{
	double speed = s->n_tokens / (double) (ns > 0 ? ns : 1);

	if (s->n_tokens < MIN_MEASURED)
		return;
	s->tokens_per_ns += (s->tokens_per_ns == 0 ? 1 : SPEED_GAIN) * (speed - s->tokens_per_ns);
}

/* Distributes the results of the step; jobs that are complete leave. */
static void
use_step(q3_scheduler *s, q3_code code, const q3_error *err)
{
	if (code == Q3_OK)
		q3_runtime_share(s->rt, read_row, s, s->n_rows);
	for (int32_t i = 0; i < s->n_items; i++)
	{
		q3_part *part = &s->parts[i];

		if (code != Q3_OK)
			part->job->error = *err;
		if (code != Q3_OK || use_part(s, part))
			part->job->ended = true;
	}
	q3_schedule_sweep(s);
}

bool
q3_scheduler_step(q3_scheduler *s)
{
	uint64_t start = q3_now_ns();
	q3_error err = {0};
	q3_code code = Q3_ERR_CANCELLED;

	q3_schedule_drop_cancelled(s);
	q3_schedule_admit(s);
	q3_schedule_build(s);
	if (s->n_items == 0)
		return false;
	for (int32_t i = 0; i < s->n_items; i++)
		if (s->parts[i].job->started_ns == 0)
			s->parts[i].job->started_ns = start;
	if (begin_step(s))
		code = q3_forward(s->rt, s->items, s->n_items, &s->stop, &err);
	end_step(s);
	if (code == Q3_ERR_CANCELLED) /* nothing happened; the next step drops the cancelled jobs */
		return !atomic_load(&s->halted);
	s->stats.steps++;
	use_step(s, code, &err);
	measure(s, q3_now_ns() - start);
	if (s->n_running > 0)
		return true;
	for (const q3_role *r = s->roles; r != NULL; r = r->next)
		if (r->waiting != NULL)
			return true;
	return false;
}
