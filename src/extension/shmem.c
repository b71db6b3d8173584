/*
 * shmem.c: the workers' notice board.
 *
 * One small structure in the main shared memory segment: each background worker writes its part,
 * every backend reads them. There is no request in it and nothing of a process (no pointer, no
 * descriptor): requests go through the engine's socket. An LWLock protects it; waiting for a change
 * is done on a condition variable, without the lock.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "extension/accounts.h"
#include "extension/live.h"
#include "extension/module.h"
#include "extension/outcomes.h"
#include "extension/shmem.h"

Qwen3dmShared *qwen3dm_shared = NULL;

#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type prev_shmem_request_hook = NULL;
#endif
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static void
reserve_shmem(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Qwen3dmShared)));
	RequestNamedLWLockTranche("qwen3dm", 1);
	qwen3dm_accounts_reserve();
	qwen3dm_outcomes_reserve();
	qwen3dm_live_reserve();
}

#if PG_VERSION_NUM >= 150000
static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	reserve_shmem();
}
#endif

static void
shmem_startup(void)
{
	bool found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	/* After a crash the postmaster comes here again, with a new segment. */
	qwen3dm_shared = NULL;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	qwen3dm_shared = ShmemInitStruct("qwen3dm", sizeof(Qwen3dmShared), &found);
	if (!found)
	{
		memset(qwen3dm_shared, 0, sizeof(Qwen3dmShared));
		qwen3dm_shared->lock = &(GetNamedLWLockTranche("qwen3dm"))->lock;
		for (int i = 0; i < QWEN3DM_N_SERVICES; i++)
		{
			Qwen3dmBoard *board = &qwen3dm_shared->boards[i];

			ConditionVariableInit(&board->changed);
			board->status.service = i;
			board->status.state = QWEN3DM_NOT_STARTED;
		}
	}
	qwen3dm_accounts_init();
	qwen3dm_outcomes_init();
	qwen3dm_live_init();
	LWLockRelease(AddinShmemInitLock);
}

void
qwen3dm_request_shmem(void)
{
#if PG_VERSION_NUM >= 150000
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
#else
	reserve_shmem();
#endif
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

void
qwen3dm_status_read(Qwen3dmService service, Qwen3dmStatus *status)
{
	if (qwen3dm_shared == NULL)
	{
		memset(status, 0, sizeof(*status));
		status->service = service;
		status->state = QWEN3DM_NOT_LOADED;
		return;
	}
	LWLockAcquire(qwen3dm_shared->lock, LW_SHARED);
	*status = qwen3dm_shared->boards[service].status;
	LWLockRelease(qwen3dm_shared->lock);
}

Qwen3dmState
qwen3dm_state(Qwen3dmService service)
{
	Qwen3dmState state;

	if (qwen3dm_shared == NULL)
		return QWEN3DM_NOT_LOADED;
	LWLockAcquire(qwen3dm_shared->lock, LW_SHARED);
	state = qwen3dm_shared->boards[service].status.state;
	LWLockRelease(qwen3dm_shared->lock);
	return state;
}

void
qwen3dm_model_digest(Qwen3dmService service, char digest[QWEN3DM_DIGEST_SIZE])
{
	const Qwen3dmStatus *status;

	digest[0] = '\0';
	if (qwen3dm_shared == NULL)
		return;
	LWLockAcquire(qwen3dm_shared->lock, LW_SHARED);
	status = &qwen3dm_shared->boards[service].status;
	if (status->state == QWEN3DM_READY)
		strlcpy(digest, status->digest, QWEN3DM_DIGEST_SIZE);
	LWLockRelease(qwen3dm_shared->lock);
}

void
qwen3dm_status_publish(const Qwen3dmStatus *status)
{
	Qwen3dmBoard *board = &qwen3dm_shared->boards[status->service];
	bool changed;

	LWLockAcquire(qwen3dm_shared->lock, LW_EXCLUSIVE);
	changed = board->status.state != status->state || board->status.progress != status->progress;
	board->status = *status;
	LWLockRelease(qwen3dm_shared->lock);

	if (changed)
		ConditionVariableBroadcast(&board->changed);
}

const char *
qwen3dm_state_name(Qwen3dmState state)
{
	switch (state)
	{
		case QWEN3DM_NOT_LOADED:
			return "not loaded";
		case QWEN3DM_NOT_STARTED:
			return "not started";
		case QWEN3DM_STOPPED:
			return "stopped";
		case QWEN3DM_NO_MODEL:
			return "no model";
		case QWEN3DM_STARTING:
			return "starting";
		case QWEN3DM_LOADING:
			return "loading";
		case QWEN3DM_READY:
			return "ready";
		case QWEN3DM_RESTARTING:
			return "restarting";
		case QWEN3DM_FAILED:
			return "failed";
	}
	return "unknown";
}
