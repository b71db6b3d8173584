/*
 * rehearse.h: rows of a query, drawn at random and answered in each tier, to see how they differ.
 */
#ifndef QWEN3DM_REHEARSE_H
#define QWEN3DM_REHEARSE_H

#include "extension/options.h"
#include "extension/outcomes.h"
#include "extension/shmem.h"
#include "extension/tasks.h"

/* Rows that are asked about together. */
#define QWEN3DM_REHEARSED_TOGETHER 64
#define QWEN3DM_N_TIERS 3

typedef struct Qwen3dmRehearsal
{
	MemoryContext context;
	Qwen3dmOptions options; /* the task's question; without its row */
	bool yes_or_no;         /* the task has no labels: whether its instruction holds */
	char digest[QWEN3DM_DIGEST_SIZE];
	uint64 question;

	int64 population; /* rows of the query that have a text */
	int n;            /* that were drawn, in random order */
	q3p_bytes *rows;  /* in UTF-8 */
	int32 *truth;     /* number of the true label; -1: not told */

	double ms[QWEN3DM_N_TIERS];   /* of all together that were timed, */
	int64 timed[QWEN3DM_N_TIERS]; /* so many */
} Qwen3dmRehearsal;

/* The task's question; waits for the model. Memory is the current context's. Raises errors. */
extern void qwen3dm_rehearse_begin(Qwen3dmRehearsal *r, const char *task);
/* Runs the query (text [, true label]) as the current user and draws at most max_rows of its rows.
 * The same seed draws the same ones from the same rows. */
extern void qwen3dm_rehearse_draw(Qwen3dmRehearsal *r, const char *query, int max_rows,
                                  uint64 seed);
/* Answers rows first .. first + n - 1, at most QWEN3DM_REHEARSED_TOGETHER; which[i] false (NULL:
 * all true): row first + i is left out. A row that is too long has label -1. */
extern void qwen3dm_rehearse_ask(Qwen3dmRehearsal *r, int first, int n, const bool *which,
                                 q3_tier tier, Qwen3dmOutcome *outcomes);
/* Milliseconds a row; 0: not known. */
extern double qwen3dm_rehearsed_ms(const Qwen3dmRehearsal *r, q3_tier tier);

#endif
