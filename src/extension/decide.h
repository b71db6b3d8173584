/*
 * decide.h: which mode answers a row, from what the repository knows.
 */
#ifndef QWEN3DM_DECIDE_H
#define QWEN3DM_DECIDE_H

#include "extension/live.h"
#include "extension/match.h"
#include "extension/options.h"
#include "extension/shmem.h"
#include "extension/tasks.h"
#include "policy/decision.h"

/* What was decided about one request, to be kept until its answer is here. */
typedef struct Qwen3dmDecision
{
	const char *reason; /* in short; NULL: the engine's. A constant. */
	bool watched;       /* its answer is told to the live state of: */
	Qwen3dmLiveKey key;
	double latency_target;  /* ms; 0: none */
	double off_label_limit; /* above it there is an alarm; 0: none is known */
} Qwen3dmDecision;

/* All that the decision rests on; for qwen_explain_mode. */
typedef struct Qwen3dmSituation
{
	q3_decision_input in;
	char digest[QWEN3DM_DIGEST_SIZE];
	const Qwen3dmEvidence *evidence; /* of the question; NULL: none */
	Qwen3dmMoment moment;
	/* Only of inputs without a task: */
	q3_sketch sketch;
	Qwen3dmMatch nearest; /* task NULL: none */
} Qwen3dmSituation;

/*
 * Decides about the message, all of which but mode, thinking and what belongs to escalation is set,
 * and sets these. Where mode or thinking is given, it stays. May wait for the model, and raise what
 * submitting the message would.
 */
extern void qwen3dm_decide(const Qwen3dmOptions *options, q3p_request *message,
                           Qwen3dmDecision *decision);
/* The same for a message in mode auto, with all that it rests on. */
extern q3_decision qwen3dm_decide_auto(const Qwen3dmOptions *options, const q3p_request *message,
                                       const Qwen3dmLiveKey *key, Qwen3dmSituation *s);

/* Hash of what is asked, but for the row: what evidence is about. */
extern uint64 qwen3dm_question(const Qwen3dmOptions *options);
extern void qwen3dm_live_key(const Qwen3dmOptions *options, Qwen3dmLiveKey *key);

/* The answer to such a request is here. Raises no error. */
extern void qwen3dm_note_answer(const Qwen3dmDecision *decision, bool alone,
                                const q3p_result *result);

#endif
