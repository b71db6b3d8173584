/*
 * outcomes.h: what learning and certifying share with other sessions: outcomes, which a canceled
 * run need not compute again, and how far each run is. In shared memory.
 */
#ifndef QWEN3DM_OUTCOMES_H
#define QWEN3DM_OUTCOMES_H

#include "policy/decision.h"
#include "protocol/protocol.h"

/* How a row was answered. */
typedef struct Qwen3dmOutcome
{
	int32 label; /* number of the best one; -1: it could not be answered */
	float margin, off_label;
} Qwen3dmOutcome;

/* Of a row, under a question and a model, in a tier. */
typedef struct Qwen3dmOutcomeKey
{
	uint64 a, b;
} Qwen3dmOutcomeKey;

extern Qwen3dmOutcomeKey qwen3dm_outcome_key(const char *digest, uint64 question, q3_tier tier,
                                             q3p_bytes row);
/* False: it is not known (any more). */
extern bool qwen3dm_outcome_find(const Qwen3dmOutcomeKey *key, Qwen3dmOutcome *outcome);
extern void qwen3dm_outcome_keep(const Qwen3dmOutcomeKey *key, const Qwen3dmOutcome *outcome);

/* The run of this backend: shown by qwen_stat_progress_tasks until it ends, however it ends. */
extern void qwen3dm_progress_begin(const char *task, const char *command);
extern void qwen3dm_progress(const char *phase, int64 done, int64 total);
extern void qwen3dm_progress_end(void);

/* Shared memory; shmem.c calls them in its hooks. */
extern void qwen3dm_outcomes_reserve(void);
extern void qwen3dm_outcomes_init(void);

#endif
