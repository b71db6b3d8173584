/*
 * shmem.h: what the background workers tell everybody, in shared memory.
 */
#ifndef QWEN3DM_SHMEM_H
#define QWEN3DM_SHMEM_H

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "extension/service.h"

#define QWEN3DM_DIGEST_SIZE 80

typedef enum Qwen3dmState
{
	QWEN3DM_NOT_LOADED,  /* the library is not preloaded: there is no shared memory */
	QWEN3DM_NOT_STARTED, /* the worker has not run yet */
	QWEN3DM_STOPPED,     /* the worker has ended; the postmaster starts it again */
	QWEN3DM_NO_MODEL,    /* the setting is empty */
	QWEN3DM_STARTING,    /* the engine has not said anything yet */
	QWEN3DM_LOADING,
	QWEN3DM_READY,
	QWEN3DM_RESTARTING, /* the engine died or is being replaced */
	QWEN3DM_FAILED      /* there is a reason, in message, detail and hint */
} Qwen3dmState;

/* Since the server started, over all engines. */
typedef struct Qwen3dmCounters
{
	int64 requests;
	int64 errors;
	int64 prompt_tokens;
	int64 output_tokens;
	int64 cached_tokens; /* of the prompts', that were not computed again */
	int64 deduplicated;  /* requests answered with an equal one */
	int64 classified;
	int64 steps;     /* of the engine */
	int64 evictions; /* blocks of kept prefixes that made room */
} Qwen3dmCounters;

/*
 * Plain data: no pointers, so that it can be copied out as it is. Strings end in NUL and are valid
 * UTF-8.
 */
typedef struct Qwen3dmStatus
{
	Qwen3dmService service;
	Qwen3dmState state;
	double progress; /* of loading, 0 to 1 */
	pid_t worker_pid;
	pid_t engine_pid;
	TimestampTz started_at; /* when the engine was started */
	int64 restarts;         /* engines started after the first */

	Qwen3dmCounters counters;
	int running;
	int queued;

	int threads;
	int context_length;
	int max_batch_tokens;
	int kv_blocks;
	int kv_blocks_free;
	int prefix_blocks;
	int pinned_blocks;
	int n_embd;
	int64 parameters;
	int64 weight_bytes;
	int64 image_bytes;
	int64 kv_bytes;
	int64 scratch_bytes;
	double load_ms;

	char model[MAXPGPATH];
	char name[128];
	char architecture[64];
	char weight_type[32];
	char digest[QWEN3DM_DIGEST_SIZE];
	char device[64];
	char device_reason[256];
	char isa[64];
	char precision[192];
	char image[16]; /* where it comes from */
	char message[512];
	char detail[1024];
	char hint[512];
} Qwen3dmStatus;

/* The file that an engine last loaded to the end, and what it computed from it. */
typedef struct Qwen3dmLoadedFile
{
	char path[MAXPGPATH];
	uint64 device, inode;
	int64 size;
	int64 mtime_s, mtime_ns;
	char digest[QWEN3DM_DIGEST_SIZE]; /* empty: none yet */
} Qwen3dmLoadedFile;

/* The part of one service's worker. */
typedef struct Qwen3dmBoard
{
	ConditionVariable changed; /* broadcast when status.state or status.progress changes */
	Qwen3dmStatus status;
	Qwen3dmLoadedFile loaded; /* the worker's own; here, so that a restarted one has it */
} Qwen3dmBoard;

typedef struct Qwen3dmShared
{
	LWLock *lock; /* protects the boards, except what is the workers' own */
	Qwen3dmBoard boards[QWEN3DM_N_SERVICES];
} Qwen3dmShared;

/* NULL when the library was not preloaded. */
extern Qwen3dmShared *qwen3dm_shared;

extern void qwen3dm_request_shmem(void); /* in _PG_init */

extern void qwen3dm_status_read(Qwen3dmService service, Qwen3dmStatus *status);
extern Qwen3dmState qwen3dm_state(Qwen3dmService service);
/* Of the model that is loaded; empty: none is. */
extern void qwen3dm_model_digest(Qwen3dmService service, char digest[QWEN3DM_DIGEST_SIZE]);
extern void qwen3dm_status_publish(const Qwen3dmStatus *status); /* its service's worker only */
extern const char *qwen3dm_state_name(Qwen3dmState state);

#endif
