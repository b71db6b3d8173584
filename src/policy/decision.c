/*
 * decision.c: the choice of a mode; see decision.h. Pure functions.
 */
#include "policy/decision.h"

#include <math.h>
#include <stdio.h>

#define FEW_THINKING_ROWS 30

bool
q3_thinking_helps(const q3_thinking_record *r)
{
	return r->rows >= FEW_THINKING_ROWS &&
	       (double) (r->gained - r->lost) > 2 * sqrt((double) (r->gained + r->lost));
}

double
q3_cascade_cost(const q3_decision_input *in)
{
	if (!(in->efficient_cost > 0) || !(in->precise_cost > 0))
		return 0;
	return in->efficient_cost / in->precise_cost + in->escalated;
}

/* What "precise" is for this task. */
static q3_tier
last_tier(const q3_decision_input *in)
{
	if (in->thinking == Q3_THINKING_ON ||
	    (in->thinking == Q3_THINKING_LAST && q3_thinking_helps(&in->record)))
		return Q3_TIER_THINKING;
	return Q3_TIER_PRECISE;
}

static q3_decision
fixed(q3_tier tier, q3_reason reason)
{
	return (q3_decision){.tier = tier, .escalate_to = tier, .reason = reason};
}

static q3_decision
cascade(const q3_decision_input *in, double threshold, q3_reason reason)
{
	return (q3_decision){.tier = Q3_TIER_EFFICIENT,
	                     .escalate_to = last_tier(in),
	                     .threshold = threshold,
	                     .reason = reason};
}

/* Nothing speaks for a task or against it. */
static q3_decision
decide_unknown(const q3_decision_input *in)
{
	if (in->suggested)
		return fixed(in->suggestion == Q3_TIER_EFFICIENT ? Q3_TIER_EFFICIENT : last_tier(in),
		             Q3_REASON_SIMILAR);
	if (in->length > in->max_length)
		return fixed(last_tier(in), Q3_REASON_LONG);
	if (in->rarity > in->max_rarity)
		return fixed(last_tier(in), Q3_REASON_RARE);
	return fixed(Q3_TIER_EFFICIENT, Q3_REASON_SHORT);
}

static q3_reason
why_not_certified(int32_t standing)
{
	switch (standing)
	{
		case Q3_STANDING_UNCERTIFIED:
			return Q3_REASON_UNCERTIFIED;
		case Q3_STANDING_REFUTED:
			return Q3_REASON_REFUTED;
		case Q3_STANDING_DRIFTED:
			return Q3_REASON_DRIFTED;
		case Q3_STANDING_VOID:
			return Q3_REASON_VOID;
		default:
			return Q3_REASON_NOT_LEARNED;
	}
}

q3_decision
q3_decide(const q3_decision_input *in)
{
	bool certified = in->task && in->standing == Q3_STANDING_CERTIFIED;

	if (in->policy == Q3_POLICY_EFFICIENT)
		return fixed(Q3_TIER_EFFICIENT, Q3_REASON_POLICY);
	if (in->policy == Q3_POLICY_PRECISE)
		return fixed(last_tier(in), Q3_REASON_POLICY);
	/* Without a certificate there is nothing in between. */
	if (in->allow_degrade && in->pressure >= (certified ? Q3_PRESSURE_DEGRADED : Q3_PRESSURE_LEAN))
		return fixed(Q3_TIER_EFFICIENT, Q3_REASON_DEGRADED);
	if (!in->task)
		return decide_unknown(in);
	if (!certified)
		return fixed(last_tier(in), why_not_certified(in->standing));
	if (in->pressure >= Q3_PRESSURE_LEAN)
		return cascade(in, fmin(in->certified_threshold, in->threshold), Q3_REASON_PRESSURE);
	if (q3_cascade_cost(in) >= Q3_COSTS_TOO_MUCH)
		return fixed(last_tier(in), Q3_REASON_UNPROFITABLE);
	return cascade(in, in->threshold, in->threshold > 0 ? Q3_REASON_CASCADE : Q3_REASON_CERTIFIED);
}

q3_review_result
q3_review(const q3_decision *d, double margin, double off_label, double off_label_limit)
{
	q3_review_result r = {
	    .tier = d->tier, .reason = d->reason, .alarm = off_label > off_label_limit};

	if (d->escalate_to == d->tier)
		return r;
	/* Written so that a margin that is no number is thin. */
	if (!(margin >= d->threshold))
	{
		r.tier = d->escalate_to;
		r.reason = Q3_REASON_THIN_MARGIN;
	}
	else if (r.alarm)
	{
		r.tier = d->escalate_to;
		r.reason = Q3_REASON_OFF_LABEL;
	}
	else
		r.reason = Q3_REASON_WIDE_MARGIN;
	return r;
}

/* ---- In words ---- */

const char *
q3_reason_text(q3_reason reason)
{
	static const char *const texts[] = {
	    [Q3_REASON_POLICY] = "the task's mode is fixed",
	    [Q3_REASON_CERTIFIED] = "agreement is certified",
	    [Q3_REASON_CASCADE] = "agreement is certified, thin margins escalate",
	    [Q3_REASON_UNPROFITABLE] = "a cascade would not pay",
	    [Q3_REASON_NOT_LEARNED] = "the task has not been learned",
	    [Q3_REASON_UNCERTIFIED] = "agreement is not certified yet",
	    [Q3_REASON_REFUTED] = "agreement is below the target",
	    [Q3_REASON_DRIFTED] = "agreement has fallen below the target",
	    [Q3_REASON_VOID] = "the evidence is for another model or instruction",
	    [Q3_REASON_PRESSURE] = "latency is above its target",
	    [Q3_REASON_DEGRADED] = "latency is above its target, degrading is allowed",
	    [Q3_REASON_SIMILAR] = "suggested by similar tasks",
	    [Q3_REASON_SHORT] = "short input of common words",
	    [Q3_REASON_LONG] = "long input",
	    [Q3_REASON_RARE] = "rare words",
	    [Q3_REASON_WIDE_MARGIN] = "wide margin",
	    [Q3_REASON_THIN_MARGIN] = "thin margin",
	    [Q3_REASON_OFF_LABEL] = "the answer may be none of the labels",
	};

	if ((size_t) reason >= sizeof(texts) / sizeof(texts[0]))
		return "unknown";
	return texts[reason];
}

const char *
q3_tier_name(q3_tier tier)
{
	switch (tier)
	{
		case Q3_TIER_EFFICIENT:
			return "efficient";
		case Q3_TIER_THINKING:
			return "precise with thinking";
		default:
			return "precise";
	}
}

/* The figures that decided, or nothing. */
static void
figures(const q3_decision_input *in, const q3_decision *d, char *text, size_t size)
{
	text[0] = '\0';
	switch (d->reason)
	{
		case Q3_REASON_UNPROFITABLE:
			snprintf(text, size, " (it would cost %.2f of precise)", q3_cascade_cost(in));
			break;
		case Q3_REASON_LONG:
			snprintf(text, size, " (%lld, more than %lld)", (long long) in->length,
			         (long long) in->max_length);
			break;
		case Q3_REASON_RARE:
			snprintf(text, size, " (rarity %.2f, more than %.2f)", in->rarity, in->max_rarity);
			break;
		case Q3_REASON_SHORT:
			snprintf(text, size, " (length %lld, rarity %.2f)", (long long) in->length, in->rarity);
			break;
		default:
			break;
	}
}

void
q3_decision_describe(const q3_decision_input *in, const q3_decision *d, char *text, size_t size)
{
	char why[96], then[96] = "";

	figures(in, d, why, sizeof(why));
	if (d->escalate_to != d->tier)
		snprintf(then, sizeof(then), "; rows with a margin below %.3f go to %s", d->threshold,
		         q3_tier_name((q3_tier) d->escalate_to));
	snprintf(text, size, "%s, because %s%s%s", q3_tier_name((q3_tier) d->tier),
	         q3_reason_text((q3_reason) d->reason), why, then);
}
