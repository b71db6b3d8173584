/*
 * accounts.h: what roles, tasks and modes have used.
 *
 * Every request is counted once: by the backend that hears how it ended, or else by the background
 * worker, whom the engine tells about requests whose answers nobody took.
 */
#ifndef QWEN3DM_ACCOUNTS_H
#define QWEN3DM_ACCOUNTS_H

#include "datatype/timestamp.h"

#include "protocol/protocol.h"

/* Whose a request is. */
typedef struct Qwen3dmPayer
{
	Oid role; /* invalid: one of those that found no place, as is everything else */
	Oid database;
	uint32 kind;               /* q3p_kind */
	uint32 mode;               /* q3p_mode that answered; auto: none had to */
	char task[Q3P_TASK_BYTES]; /* UTF-8, NULs behind it; empty: none */
} Qwen3dmPayer;

typedef struct Qwen3dmUsage
{
	int64 requests;
	int64 errors;   /* of them, that failed */
	int64 canceled; /* of them, whose answers nobody took */
	int64 deduplicated;
	int64 prompt_tokens;
	int64 cached_tokens;
	int64 output_tokens;
	double latency_ms; /* of all together */
	double max_latency_ms;
	TimestampTz last; /* end of a request */
} Qwen3dmUsage;

typedef struct Qwen3dmAccount
{
	Qwen3dmPayer payer;
	Qwen3dmUsage usage;
} Qwen3dmAccount;

/* Shared memory; shmem.c calls them in its hooks. */
extern void qwen3dm_accounts_reserve(void);
extern void qwen3dm_accounts_init(void);

/*
 * Before a request is sent: fills in its role, quota and query, and notes who pays. Raises an error
 * for an answer longer than the administrator allows.
 */
extern void qwen3dm_account_open(q3p_request *message, Qwen3dmPayer *payer);
/* A RESULT or ERROR for such a request. A frame that cannot be read counts nothing. */
extern void qwen3dm_account_answer(const Qwen3dmPayer *payer, const q3p_header *header,
                                   const char *payload);
/* The engine is gone, and the request with it. */
extern void qwen3dm_account_lost(const Qwen3dmPayer *payer);
/* A worker: what its engine tells. */
extern void qwen3dm_account_usage(const q3p_usage *m);

/* A worker: takes up the file, once after each start of the server. */
extern void qwen3dm_accounts_load(void);
/* A worker: writes the file if there is news; unless now, not before its time has come. */
extern void qwen3dm_accounts_save(bool now);
/* Milliseconds until that time. */
extern long qwen3dm_accounts_save_due(void);

/* A palloc'd copy of all; *n of them. */
extern Qwen3dmAccount *qwen3dm_accounts_copy(int *n);

#endif
