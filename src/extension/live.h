/*
 * live.h: what is known of each task since it was last written to qwen3dm.task_evidence: rows
 * answered in each mode, latencies, shadow runs, drift. In shared memory, for all backends.
 *
 * A question is what is asked in a task's name: system text, labels and examples, as a hash. What
 * is learned about one question says nothing about another one.
 */
#ifndef QWEN3DM_LIVE_H
#define QWEN3DM_LIVE_H

#include "datatype/timestamp.h"

#include "policy/drift.h"
#include "policy/latency.h"
#include "protocol/protocol.h"

typedef struct Qwen3dmLiveKey
{
	Oid database;
	uint64 question;
	char task[Q3P_TASK_BYTES]; /* UTF-8, NULs behind it */
} Qwen3dmLiveKey;

/* What the evidence of the table says about the task's shadow rows. */
typedef struct Qwen3dmLiveBasis
{
	const char *digest;       /* of the model now */
	TimestampTz certified_at; /* 0: no certificate */
	double reference;         /* agreement that accepted rows must keep; in (0, 1) */
	const char *saved;        /* column live of the row, as it was written; NULL: none */
	Size saved_len;
} Qwen3dmLiveBasis;

/* What decides about the next row. */
typedef struct Qwen3dmMoment
{
	bool drifted;   /* since the certificate of the basis */
	int32 pressure; /* q3_pressure */
} Qwen3dmMoment;

/*
 * The moment of a task. The first look at a key makes its entry, with what was saved; a newer
 * certificate, or another model, starts the watch for drift anew (an older one, which an old
 * snapshot sees, changes nothing). Without shared memory, or room in it, the moment is calm.
 */
extern void qwen3dm_live_look(const Qwen3dmLiveKey *key, const Qwen3dmLiveBasis *basis,
                              Qwen3dmMoment *moment);

/* An answer to a row. */
typedef struct Qwen3dmLiveAnswer
{
	uint32 mode;       /* q3p_mode that gave it */
	bool thought;      /* it thought */
	bool escalated;    /* efficient was not sure enough */
	bool alarm;        /* too much probability outside the labels */
	double margin;     /* of the efficient run; NaN: there was none */
	double off_label;  /* NaN: unknown */
	double latency_ms; /* NaN: one of many that were asked together, whose latency tells nothing */
	double latency_target_ms; /* 0: none */
	bool allow_degrade;
} Qwen3dmLiveAnswer;

/* Raises no error and allocates nothing: it also runs while a transaction is aborted. Only for keys
 * that were looked at; others are ignored. Logs a change of pressure. */
extern void qwen3dm_live_answer(const Qwen3dmLiveKey *key, const Qwen3dmLiveAnswer *answer);

/* The worker: a shadow row. Logs when it demotes the task. */
extern void qwen3dm_live_shadow(const Qwen3dmLiveKey *key, bool agreed);

/* Shared memory; shmem.c calls them in its hooks. */
extern void qwen3dm_live_reserve(void);
extern void qwen3dm_live_init(void);

/*
 * The main worker, in every round: starts a short-lived worker for each database with news, at most
 * every qwen3dm.flush_interval and one at a time for a database; none on a standby. It writes the
 * news to qwen3dm.task_evidence and ends.
 */
extern void qwen3dm_live_flush(void);
/* Milliseconds until that time. */
extern long qwen3dm_live_flush_due(void);

#endif
