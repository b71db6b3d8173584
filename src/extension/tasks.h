/*
 * tasks.h: tasks, the rows of qwen3dm.tasks, as calls see them.
 */
#ifndef QWEN3DM_TASKS_H
#define QWEN3DM_TASKS_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

#include "extension/compat.h"
#include "policy/decision.h"
#include "protocol/protocol.h"

/* A NULL pointer, or is_null, is a NULL of the table: the task does not say. */
typedef struct Qwen3dmTask
{
	char *name;
	q3p_bytes utf8_name;
	text *instruction;
	Jsonb *labels;
	Jsonb *examples;
	Jsonb *schema;
	uint32 mode;                               /* q3p_mode */
	NullableDatum thinking;                    /* bool */
	NullableDatum thinking_budget, max_tokens; /* int4 */
	NullableDatum agreement_target;            /* float8 */
	NullableDatum latency_target;              /* ms, float8 */
	MemoryContext context;                     /* of all this */
	bool evidence_read;
	List *evidence; /* of Qwen3dmEvidence * */
} Qwen3dmTask;

/* A row of qwen3dm.task_evidence: about one model and one question. What is NULL there is 0. */
typedef struct Qwen3dmEvidence
{
	char *digest;
	uint64 question;
	int32 standing;        /* q3_standing; never VOID */
	bool reference_thinks; /* efficient was compared with thinking */
	double target;         /* that was certified, or is to be */
	int64 learned_rows;
	double agreement;
	bool has_threshold; /* some margin made the target likely */
	double threshold;
	double expected_agreement; /* of answers, with escalations; 0: unknown */
	double off_label_limit;
	double escalated;
	double efficient_ms, precise_ms, thinking_ms;
	q3_thinking_record record;
	double efficient_accuracy, precise_accuracy, thinking_accuracy; /* NaN: unknown */
	int32 attempts;
	int64 certified_rows, certified_agreed, rows_needed;
	double shadow_reference;
	TimestampTz learned_at, certified_at; /* 0: never */
	char *saved;                          /* column live; NULL: none */
	Size saved_len;
} Qwen3dmEvidence;

/*
 * The task of this name, read as the current user with the snapshot of the statement; an error if
 * there is none, or none that this user may see. It lives until a statement with another snapshot
 * or user looks for one: use it while the call is prepared, not later.
 */
extern const Qwen3dmTask *qwen3dm_task(const char *name);
/* The same; NULL when there is none. */
extern const Qwen3dmTask *qwen3dm_find_task(const char *name);

/*
 * What is known of a question, for the model with this digest; NULL: nothing. *other: something is
 * known of another question or model. Read with the task's snapshot, as the current user; without
 * the right to read the table nothing is known.
 */
extern const Qwen3dmEvidence *qwen3dm_evidence(const Qwen3dmTask *task, const char *digest,
                                               uint64 question, bool *other);
/* Whether any question of the task is certified for this model. */
extern bool qwen3dm_is_certified(const Qwen3dmTask *task, const char *digest);

extern double qwen3dm_agreement_target_of(const Qwen3dmTask *task);
extern double qwen3dm_latency_target_of(const Qwen3dmTask *task); /* ms; 0: none */

/* As the table has it. */
extern const char *qwen3dm_standing_name(int32 standing);

/* Schema of the tables; the functions are where the extension is. */
#define QWEN3DM_SCHEMA "qwen3dm"

#endif
