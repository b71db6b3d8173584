/*
 * stages.c: from one job of a request to the next.
 *
 * A classification can take several: thinking, in pieces if it may end early, between them and
 * behind them the labels; and all of it once more in mode precise, for an answer that is not sure
 * enough or for a shadow run. All of this runs on the I/O thread, which has the request when a job
 * has come back.
 */
#include "engine/request.h"

#include <math.h>
#include <string.h>

#include "policy/decision.h"

void
q3_request_begin(q3_request *r)
{
	r->ended = (q3_ended){.margin = NAN, .off_label = NAN, .first_ms = NAN};
	r->trials = (q3_trials){.best = -1};
}

void
q3_request_end(q3_request *r)
{
	q3_output_free(r->ended.thinking);
	q3_output_free(r->trials.pause.output);
	q3_sampler_free(r->trials.pause.sampler);
	q3_tokens_free(&r->thought);
	r->ended.thinking = NULL;
	r->trials.pause = (q3_pause){0};
}

/* Counts the job as ended; another one can begin. */
static void
end_job(q3_request *r)
{
	q3_ended *e = &r->ended;

	e->n++;
	/* What is read again behind a thought is no new prompt. */
	if (r->thought.n == 0)
	{
		e->prompt_tokens += atomic_load(&r->job.prompt_tokens);
		e->cached_tokens += atomic_load(&r->job.cached_tokens);
	}
	e->output_tokens += r->job.output != NULL ? q3_output_n_tokens(r->job.output) : 0;
	if (e->started_ns == 0)
		e->started_ns = r->job.started_ns;
}

/* The model has thought, all of it or a piece: what follows is behind that. */
static bool
keep_thought(q3_request *r)
{
	q3_tokens thought = {0};

	if (!q3_job_take_thought(&r->job, &thought))
	{
		q3_tokens_free(&thought);
		q3_fail(&r->error, Q3_ERR_MEMORY, "out of memory");
		return false;
	}
	end_job(r);
	q3_tokens_free(&r->thought);
	r->thought = thought;
	r->ended.thinking = r->job.output;
	r->job.output = NULL;
	r->trials.paused = r->job.finish == Q3_FINISH_NONE;
	if (r->trials.paused)
	{
		r->trials.pause = (q3_pause){.sampler = r->job.sampler, .max_tokens = r->job.max_tokens};
		r->job.sampler = NULL;
	}
	return true;
}

/* The labels have been compared amid thinking: false if that was the answer. */
static bool
think_on(q3_request *r)
{
	q3_trials *t = &r->trials;
	int32_t best = q3_labels_best(r->job.labels);
	bool sure = q3_labels_margin(r->job.labels) >= r->msg.exit_margin;

	if (sure && best == t->best)
		return false;
	t->best = sure ? best : -1;
	return true;
}

/* The next job goes on where thinking has paused. */
static void
resume(q3_request *r)
{
	r->trials.paused = false;
	r->trials.pause.output = r->ended.thinking;
	r->ended.thinking = NULL;
	q3_job_resume(&r->job, &r->trials.pause);
	/* They are the job's again. */
	r->ended.output_tokens -= r->job.resumed;
}

/* What the request's limits say about its efficient answer; without any it is kept. */
static q3_review_result
review_answer(const q3_request *r)
{
	bool thin = r->msg.escalate_below > 0, off = r->msg.off_label_limit > 0;
	q3_decision d = {.tier = Q3_TIER_EFFICIENT,
	                 .escalate_to = thin || off ? Q3_TIER_PRECISE : Q3_TIER_EFFICIENT,
	                 .threshold = thin ? r->msg.escalate_below : 0};

	return q3_review(&d, r->ended.margin, isnan(r->ended.off_label) ? 0 : r->ended.off_label,
	                 off ? r->msg.off_label_limit : 1);
}

/* The efficient answer is known: false if it is good enough. */
static bool
escalate(q3_request *r)
{
	q3_review_result review;

	if (r->ended.escalated)
		return false;
	r->ended.margin = q3_labels_margin(r->job.labels);
	r->ended.off_label = r->job.labels->off_label;
	r->ended.first_ms = (double) (q3_now_ns() - r->arrived_ns) / 1e6;
	if (r->mode != Q3_EFFICIENT)
		return false;
	review = review_answer(r);
	if (review.tier == Q3_TIER_EFFICIENT)
		return false;
	end_job(r);
	r->ended.escalated = true;
	r->mode = Q3_PRECISE;
	r->reason = q3_reason_text(review.reason);
	return true;
}

/* The labels have been compared; *on: what follows is more of thinking. False: the answer is there.
 */
static bool
takes_more(q3_request *r, bool *on)
{
	*on = r->trials.paused && think_on(r);
	if (!*on)
		return escalate(r);
	end_job(r);
	return true;
}

bool
q3_request_next(q3_request *r)
{
	bool more, on = false;

	if (r->msg.kind != Q3P_CLASSIFY)
		return false;
	more = r->job.only_thinks ? keep_thought(r) : takes_more(r, &on);
	if (!more)
		return false;
	q3_job_free(&r->job);
	q3_request_begin_job(r);
	if (on)
		resume(r);
	return true;
}

void
q3_request_shadow(q3_request *r)
{
	r->is_shadow = true;
	r->kept = q3_labels_best(r->job.labels);
	q3_job_free(&r->job);
	q3_request_end(r);
	q3_request_begin(r);
	/* What is done is what would have been done then. */
	r->ended.escalated = true;
	r->mode = Q3_PRECISE;
	r->msg.token_quota = 0;
	q3_request_begin_job(r);
}
