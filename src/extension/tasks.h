/*
 * tasks.h: tasks, the rows of qwen3dm.tasks, as calls see them.
 */
#ifndef QWEN3DM_TASKS_H
#define QWEN3DM_TASKS_H

#include "utils/jsonb.h"

#include "extension/compat.h"
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
	double agreement_target;
	NullableDatum latency_target; /* ms, float8 */
} Qwen3dmTask;

/*
 * The task of this name, read as the current user with the snapshot of the statement; an error if
 * there is none, or none that this user may see. It lives until a statement with another snapshot
 * or user looks for one: use it while the call is prepared, not later.
 */
extern const Qwen3dmTask *qwen3dm_task(const char *name);

/* Schema of the tables; the functions are where the extension is. */
#define QWEN3DM_SCHEMA "qwen3dm"

#endif
