/*
 * decision.h: which mode answers a row, and why.
 *
 * A pure function of what is known before the row is computed (q3_decide), and one of what is known
 * after its efficient run (q3_review). Nothing is remembered. In auto:
 *   - efficient answers are kept only under a certificate, or where degrading is allowed; a task
 *     whose certificate is missing, void or lost to drift runs in precise;
 *   - where the cascade does not pay, (efficient + escalations) >= 0.9 of precise, it is off;
 *   - rows whose margin is below the threshold, or that leave too much probability outside the
 *     labels, are escalated;
 *   - under latency pressure the threshold goes down to what the certificate was made for, and
 *     below it only if degrading is allowed;
 *   - input of no task goes to the mode that similar tasks suggest, if any does (a suggestion is
 *     no certificate), else short input of common words to efficient and the rest to precise;
 *   - thinking is the last tier: rows get there only if the task allows it, and then only if it was
 *     seen to help. Where they do, "precise" is precise with thinking: costs and certificates must
 *     have been measured against that.
 */
#ifndef Q3_POLICY_DECISION_H
#define Q3_POLICY_DECISION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/latency.h"

/* Efficient run and escalations, precise being 1: from here on a cascade does not pay. */
#define Q3_COSTS_TOO_MUCH 0.9

typedef enum q3_policy
{
	Q3_POLICY_AUTO = 0,
	Q3_POLICY_EFFICIENT,
	Q3_POLICY_PRECISE
} q3_policy;

typedef enum q3_thinking
{
	Q3_THINKING_OFF = 0,
	Q3_THINKING_LAST, /* where precise is reached and thinking was seen to help */
	Q3_THINKING_ON    /* whenever precise is reached */
} q3_thinking;

typedef enum q3_standing
{
	Q3_STANDING_NONE = 0,    /* never tried */
	Q3_STANDING_UNCERTIFIED, /* too little evidence so far */
	Q3_STANDING_REFUTED,     /* below the target even with escalations */
	Q3_STANDING_CERTIFIED,
	Q3_STANDING_DRIFTED, /* certified once; then agreement fell */
	Q3_STANDING_VOID     /* certified once, for another model, instruction or adapter */
} q3_standing;

typedef enum q3_tier
{
	Q3_TIER_EFFICIENT = 0,
	Q3_TIER_PRECISE,
	Q3_TIER_THINKING /* precise with thinking */
} q3_tier;

/* Rows whose true label is known and that were answered in precise without and with thinking. */
typedef struct q3_thinking_record
{
	int64_t rows;
	int64_t gained; /* right only with thinking */
	int64_t lost;   /* right only without */
} q3_thinking_record;

typedef struct q3_decision_input
{
	/* The task; none: unknown input */
	bool task;
	int32_t policy;   /* q3_policy */
	int32_t thinking; /* q3_thinking */
	q3_thinking_record record;

	/* Its evidence, for the model and the instruction as they are now */
	int32_t standing;           /* q3_standing */
	double threshold;           /* margin below which rows are escalated */
	double certified_threshold; /* the lowest one that is certified; not above the former */
	double efficient_cost, precise_cost; /* of a row, in any unit; 0: unknown */
	double escalated;                    /* share of rows, at threshold */

	/* The moment */
	int32_t pressure; /* q3_pressure */
	bool allow_degrade;

	/* Input of no task */
	bool suggested;     /* by similar tasks */
	int32_t suggestion; /* q3_tier */
	int64_t length;     /* in the unit of max_length */
	double rarity;      /* q3_sketch.rarity */
	int64_t max_length; /* the repository's defaults: up to these it is efficient */
	double max_rarity;
} q3_decision_input;

typedef enum q3_reason
{
	Q3_REASON_POLICY = 0,   /* the task's mode is fixed */
	Q3_REASON_CERTIFIED,    /* efficient, every margin */
	Q3_REASON_CASCADE,      /* efficient, thin margins are escalated */
	Q3_REASON_UNPROFITABLE, /* precise: the cascade would not pay */
	Q3_REASON_NOT_LEARNED,
	Q3_REASON_UNCERTIFIED,
	Q3_REASON_REFUTED,
	Q3_REASON_DRIFTED,
	Q3_REASON_VOID,
	Q3_REASON_PRESSURE, /* efficient: latency, within the certificate */
	Q3_REASON_DEGRADED, /* efficient: latency, beyond it */
	Q3_REASON_SIMILAR,
	Q3_REASON_SHORT,
	Q3_REASON_LONG,
	Q3_REASON_RARE,
	/* of q3_review() only */
	Q3_REASON_WIDE_MARGIN,
	Q3_REASON_THIN_MARGIN,
	Q3_REASON_OFF_LABEL
} q3_reason;

typedef struct q3_decision
{
	int32_t tier;        /* q3_tier to begin with */
	int32_t escalate_to; /* q3_tier of rows that the review does not keep; tier itself: none */
	double threshold;    /* margin for the review */
	int32_t reason;      /* q3_reason */
} q3_decision;

extern q3_decision q3_decide(const q3_decision_input *in);

typedef struct q3_review_result
{
	int32_t tier;   /* the decision's: keep the answer; else: run it again there */
	int32_t reason; /* q3_reason */
	bool alarm;     /* the probability outside the labels is above the limit */
} q3_review_result;

/*
 * After an efficient run. off_label: probability that the model gave to anything but the labels;
 * where it is not known, 0. An alarm is one even where nothing is escalated.
 */
extern q3_review_result q3_review(const q3_decision *d, double margin, double off_label,
                                  double off_label_limit);

/*
 * Whether thinking gained more rows than it lost by two standard deviations, had it been a matter
 * of chance (the normal form of Q. McNemar's test, Psychometrika 12, 1947), on 30 rows or more.
 */
extern bool q3_thinking_helps(const q3_thinking_record *r);
/* Efficient run and escalations, precise being 1; 0 if costs are not known. */
extern double q3_cascade_cost(const q3_decision_input *in);

/* "agreement is certified" and so on: a phrase for qwen_infer_details.reason. */
extern const char *q3_reason_text(q3_reason reason);
extern const char *q3_tier_name(q3_tier tier);
/* A sentence with the figures that decided; cut to fit, always terminated. */
extern void q3_decision_describe(const q3_decision_input *in, const q3_decision *d, char *text,
                                 size_t size);

#endif
