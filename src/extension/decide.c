/*
 * decide.c: mode auto: from a request to the mode that answers it.
 *
 * The rule is src/policy's; here its input is gathered: the task's evidence (read with the
 * statement's snapshot, tasks.c), the live state of the moment (shared memory, live.c), and for
 * inputs without a task their likeness to tasks (match.c). Evidence counts for exactly the question
 * that was learned: calls that bring labels, a system text or examples of their own ask another
 * one. Runs in the backend and in parallel workers; keeps nothing.
 */
#include "postgres.h"

#include <math.h>

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "extension/connection.h"
#include "extension/decide.h"
#include "extension/module.h"
#include "extension/shmem.h"

static uint64
hash_bytes_into(uint64 h, q3p_bytes b)
{
	return hash_bytes_extended((const unsigned char *) b.data, (int) b.len,
	                           h * UINT64CONST(0x9e3779b97f4a7c15) + b.len);
}

uint64
qwen3dm_question(const Qwen3dmOptions *options)
{
	const q3p_request *r = &options->request;
	uint64 h = r->n_labels * UINT64CONST(1009) + r->n_turns;

	h = hash_bytes_into(h, r->system);
	h = hash_bytes_into(h, options->before);
	for (uint32 i = 0; i < r->n_labels; i++)
		h = hash_bytes_into(h, options->lists.labels[i]);
	for (uint32 i = 0; i < r->n_turns; i++)
		h = hash_bytes_into(h, options->lists.turns[i]);
	return h;
}

void
qwen3dm_live_key(const Qwen3dmOptions *options, Qwen3dmLiveKey *key)
{
	q3p_bytes name = options->task->utf8_name;

	memset(key, 0, sizeof(*key));
	key->database = MyDatabaseId;
	key->question = qwen3dm_question(options);
	memcpy(key->task, name.data, Min(name.len, sizeof(key->task) - 1));
}

/* ---------------------------------------------------------------------------------------------
 * With a task
 * --------------------------------------------------------------------------------------------- */

static bool
task_may_think(const Qwen3dmTask *task)
{
	return !task->thinking.isnull && DatumGetBool(task->thinking.value);
}

/* What is known counts only for what it was compared with, and only as far as it was aimed. */
static int32
standing_of(const Qwen3dmSituation *s, const Qwen3dmTask *task)
{
	const Qwen3dmEvidence *e = s->evidence;
	bool last_tier_thinks = s->in.thinking == Q3_THINKING_LAST && q3_thinking_helps(&e->record);

	if (e->standing == Q3_STANDING_NONE)
		return Q3_STANDING_NONE;
	if (e->reference_thinks != last_tier_thinks)
		return Q3_STANDING_VOID;
	if (e->standing == Q3_STANDING_CERTIFIED && s->moment.drifted)
		return Q3_STANDING_DRIFTED;
	if (e->standing == Q3_STANDING_CERTIFIED && e->target < qwen3dm_agreement_target_of(task))
		return Q3_STANDING_UNCERTIFIED;
	return e->standing;
}

static void
use_evidence(Qwen3dmSituation *s, const Qwen3dmTask *task)
{
	const Qwen3dmEvidence *e = s->evidence;

	s->in.record = e->record;
	s->in.standing = standing_of(s, task);
	s->in.threshold = s->in.certified_threshold = e->threshold;
	s->in.efficient_cost = e->efficient_ms;
	s->in.precise_cost = e->reference_thinks ? e->thinking_ms : e->precise_ms;
	s->in.escalated = e->escalated;
}

static void
look_at_task(const Qwen3dmOptions *options, const Qwen3dmLiveKey *key, Qwen3dmSituation *s)
{
	const Qwen3dmTask *task = options->task;
	Qwen3dmLiveBasis basis = {.digest = s->digest};
	bool other = false;

	s->in.task = true;
	s->in.thinking = task_may_think(task) ? Q3_THINKING_LAST : Q3_THINKING_OFF;
	/* Answers that are divided by a prior are not those that were compared. */
	if (key != NULL && !options->calibrate)
		s->evidence = qwen3dm_evidence(task, s->digest, key->question, &other);
	if (s->evidence != NULL)
	{
		if (s->evidence->standing == Q3_STANDING_CERTIFIED)
		{
			basis.certified_at = s->evidence->certified_at;
			basis.reference = s->evidence->shadow_reference;
		}
		basis.saved = s->evidence->saved;
		basis.saved_len = s->evidence->saved_len;
	}
	if (key != NULL)
		qwen3dm_live_look(key, &basis, &s->moment);
	s->in.pressure = s->moment.pressure;
	s->in.standing = other ? Q3_STANDING_VOID : Q3_STANDING_NONE;
	if (s->evidence != NULL)
		use_evidence(s, task);
}

/* ---------------------------------------------------------------------------------------------
 * Without one
 * --------------------------------------------------------------------------------------------- */

/* The most similar task suggests the mode that it would take itself. */
static void
look_at_nearest(Qwen3dmSituation *s)
{
	const Qwen3dmTask *task;

	if (qwen3dm_match(&s->sketch, &s->nearest, 1) < 1)
	{
		s->nearest.task = NULL;
		return;
	}
	s->nearest.task = pstrdup(s->nearest.task);
	if (s->nearest.similarity < qwen3dm_policy_default(QWEN3DM_MIN_SIMILARITY))
		return;
	task = qwen3dm_find_task(s->nearest.task);
	if (task == NULL)
		return;
	s->in.suggested = true;
	s->in.suggestion = task->mode == Q3P_EFFICIENT ||
	                           (task->mode == Q3P_AUTO && qwen3dm_is_certified(task, s->digest))
	                       ? Q3_TIER_EFFICIENT
	                       : Q3_TIER_PRECISE;
}

static void
look_at_input(const q3p_request *message, Qwen3dmSituation *s)
{
	q3p_bytes input = message->prompt;

	qwen3dm_sketch(&s->sketch, input.data != NULL ? input.data : "", input.len);
	s->in.length = (int64) input.len;
	s->in.rarity = s->sketch.rarity;
	s->in.max_length = (int64) qwen3dm_policy_default(QWEN3DM_MAX_LENGTH);
	s->in.max_rarity = qwen3dm_policy_default(QWEN3DM_MAX_RARITY);
	if (message->kind == Q3P_CLASSIFY)
		look_at_nearest(s);
}

/* ---------------------------------------------------------------------------------------------
 * The decision
 * --------------------------------------------------------------------------------------------- */

q3_decision
qwen3dm_decide_auto(const Qwen3dmOptions *options, const q3p_request *message,
                    const Qwen3dmLiveKey *key, Qwen3dmSituation *s)
{
	memset(s, 0, sizeof(*s));
	qwen3dm_model_digest(QWEN3DM_MAIN, s->digest);
	s->in.policy = Q3_POLICY_AUTO;
	s->in.allow_degrade = qwen3dm_allow_degrade;
	if (options->task != NULL)
		look_at_task(options, key, s);
	else
		look_at_input(message, s);
	return q3_decide(&s->in);
}

static bool
is_in_shadow(void)
{
	uint32 r;

	return qwen3dm_shadow_rate > 0 && pg_strong_random(&r, sizeof(r)) &&
	       r < qwen3dm_shadow_rate * ((double) PG_UINT32_MAX + 1);
}

static void
apply(const Qwen3dmSituation *s, const q3_decision *d, q3p_request *message,
      Qwen3dmDecision *decision)
{
	decision->reason = q3_reason_text((q3_reason) d->reason);
	message->thinking = d->tier == Q3_TIER_THINKING;
	if (d->tier == Q3_TIER_THINKING || d->escalate_to == Q3_TIER_THINKING)
		message->exit_margin = qwen3dm_policy_default(QWEN3DM_EXIT_MARGIN);
	message->mode = d->tier == Q3_TIER_EFFICIENT ? Q3P_EFFICIENT : Q3P_PRECISE;
	if (s->evidence != NULL)
		decision->off_label_limit = s->evidence->off_label_limit;
	if (d->tier != Q3_TIER_EFFICIENT || d->escalate_to == d->tier)
		return;
	message->escalate_below = d->threshold;
	message->escalate_thinking = d->escalate_to == Q3_TIER_THINKING;
	message->off_label_limit = decision->off_label_limit;
	message->shadow = is_in_shadow();
}

/* Kinds of which the answer can be that of either mode. */
static bool
has_modes(uint32 kind)
{
	return kind == Q3P_GENERATE || kind == Q3P_STREAM || kind == Q3P_CLASSIFY;
}

/* Text is thought about where call or task say so; labels only where the call does: to mode auto a
 * task merely allows it. */
static bool
is_asked_to_think(const Qwen3dmOptions *options, const q3p_request *message)
{
	return message->thinking && (options->thinking_given || message->kind != Q3P_CLASSIFY);
}

void
qwen3dm_decide(const Qwen3dmOptions *options, q3p_request *message, Qwen3dmDecision *decision)
{
	Qwen3dmSituation s;
	q3_decision d;

	memset(decision, 0, sizeof(*decision));
	decision->reason = options->mode_reason;
	if (!has_modes(message->kind))
		return;
	if (options->task != NULL && message->kind == Q3P_CLASSIFY)
	{
		decision->watched = true;
		qwen3dm_live_key(options, &decision->key);
		decision->latency_target = qwen3dm_latency_target_of(options->task);
		message->question = decision->key.question;
	}
	if (message->mode != Q3P_AUTO)
		return;
	message->mode = Q3P_PRECISE;
	if (is_asked_to_think(options, message))
		decision->reason = "thinking takes mode precise";
	else if (options->calibrate)
		decision->reason = "calibrated answers take mode precise";
	else if (options->same_mode)
		decision->reason = "answers that are compared take mode precise";
	else
	{
		/* Which model answers is known when it is there. */
		qwen3dm_connection_open(QWEN3DM_MAIN);
		d = qwen3dm_decide_auto(options, message, decision->watched ? &decision->key : NULL, &s);
		apply(&s, &d, message, decision);
	}
}

void
qwen3dm_note_answer(const Qwen3dmDecision *decision, bool alone, const q3p_result *result)
{
	Qwen3dmLiveAnswer answer = {.mode = result->mode,
	                            .thought = result->thinking_tokens > 0,
	                            .escalated = result->escalated,
	                            .margin = result->margin,
	                            .off_label = result->off_label,
	                            .latency_ms = alone ? result->latency_ms : NAN,
	                            .latency_target_ms = decision->latency_target,
	                            .allow_degrade = qwen3dm_allow_degrade};

	if (!decision->watched)
		return;
	answer.alarm = decision->off_label_limit > 0 && result->off_label > decision->off_label_limit;
	qwen3dm_live_answer(&decision->key, &answer);
}
