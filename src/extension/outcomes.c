/*
 * outcomes.c: outcomes and progress of learning, in shared memory; see outcomes.h.
 *
 * Outcomes lie in a table without chains: each has one place, where a newer one takes over. They
 * hold hashes, no text. A run has a slot for its progress, by which others see it; the end of the
 * transaction, or of the process, frees it. One lock protects all of it; nothing is done under it
 * but copying.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "extension/compat.h"
#include "extension/outcomes.h"
#include "extension/srf.h"

#define TRANCHE "qwen3dm outcomes"
#define N_PLACES 32768
#define N_SLOTS 64

QWEN3DM_FUNCTION(qwen3dm_stat_progress);

typedef struct Place
{
	Qwen3dmOutcomeKey key; /* both 0: free */
	Qwen3dmOutcome outcome;
} Place;

typedef struct Slot
{
	int pid; /* 0: free */
	Oid role, database;
	char task[NAMEDATALEN * 4]; /* in the database's encoding, cut */
	char command[32], phase[32];
	int64 done, total;
	TimestampTz started;
} Slot;

typedef struct Shared
{
	LWLock *lock;
	Slot slots[N_SLOTS];
	Place places[N_PLACES];
} Shared;

static Shared *shared = NULL; /* NULL: not preloaded */
static Slot *own = NULL;

/* ---------------------------------------------------------------------------------------------
 * Outcomes
 * --------------------------------------------------------------------------------------------- */

static uint64
hash_row(const char *digest, uint64 question, q3_tier tier, q3p_bytes row, uint64 seed)
{
	uint64 h = hash_bytes_extended((const unsigned char *) digest, (int) strlen(digest), seed);

	h = hash_combine64(h, question * 4 + tier);
	return hash_bytes_extended((const unsigned char *) row.data, (int) row.len, h);
}

Qwen3dmOutcomeKey
qwen3dm_outcome_key(const char *digest, uint64 question, q3_tier tier, q3p_bytes row)
{
	return (Qwen3dmOutcomeKey){hash_row(digest, question, tier, row, 1) | 1,
	                           hash_row(digest, question, tier, row, 2)};
}

static Place *
place_of(const Qwen3dmOutcomeKey *key)
{
	return &shared->places[key->b % N_PLACES];
}

bool
qwen3dm_outcome_find(const Qwen3dmOutcomeKey *key, Qwen3dmOutcome *outcome)
{
	Place place;

	if (shared == NULL)
		return false;
	LWLockAcquire(shared->lock, LW_SHARED);
	place = *place_of(key);
	LWLockRelease(shared->lock);
	if (place.key.a != key->a || place.key.b != key->b)
		return false;
	*outcome = place.outcome;
	return true;
}

void
qwen3dm_outcome_keep(const Qwen3dmOutcomeKey *key, const Qwen3dmOutcome *outcome)
{
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	*place_of(key) = (Place){*key, *outcome};
	LWLockRelease(shared->lock);
}

/* ---------------------------------------------------------------------------------------------
 * Progress
 * --------------------------------------------------------------------------------------------- */

void
qwen3dm_progress_end(void)
{
	if (own == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	own->pid = 0;
	LWLockRelease(shared->lock);
	own = NULL;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT)
		qwen3dm_progress_end();
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId my_subid, SubTransactionId parent,
                      void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		qwen3dm_progress_end();
}

static void
at_exit(int code, Datum arg)
{
	qwen3dm_progress_end();
}

void
qwen3dm_progress_begin(const char *task, const char *command)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(at_transaction_end, NULL);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
		before_shmem_exit(at_exit, (Datum) 0);
		registered = true;
	}
	qwen3dm_progress_end();
	if (shared == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < N_SLOTS && own == NULL; i++)
	{
		Slot *slot = &shared->slots[i];

		if (slot->pid != 0)
			continue;
		memset(slot, 0, sizeof(*slot));
		slot->pid = MyProcPid;
		slot->role = GetUserId();
		slot->database = MyDatabaseId;
		strlcpy(slot->task, task, sizeof(slot->task));
		strlcpy(slot->command, command, sizeof(slot->command));
		slot->started = GetCurrentTimestamp();
		own = slot;
	}
	LWLockRelease(shared->lock);
}

void
qwen3dm_progress(const char *phase, int64 done, int64 total)
{
	if (own == NULL)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	strlcpy(own->phase, phase, sizeof(own->phase));
	own->done = done;
	own->total = total;
	LWLockRelease(shared->lock);
}

/* The runs that the current user may see; *n of them, palloc'd. */
static void *
visible_slots(FunctionCallInfo fcinfo, uint64 *n)
{
	Slot *slots = palloc(sizeof(Slot) * N_SLOTS);
	bool all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	*n = 0;
	if (shared == NULL)
		return slots;
	LWLockAcquire(shared->lock, LW_SHARED);
	memcpy(slots, shared->slots, sizeof(Slot) * N_SLOTS);
	LWLockRelease(shared->lock);
	for (int i = 0; i < N_SLOTS; i++)
	{
		/* Another database's name may be in another encoding. */
		if (slots[i].pid != 0 && slots[i].database == MyDatabaseId &&
		    (all || has_privs_of_role(GetUserId(), slots[i].role)))
			slots[(*n)++] = slots[i];
	}
	return slots;
}

static Datum
slot_row(TupleDesc tupdesc, const void *slots, uint64 i)
{
	const Slot *slot = (const Slot *) slots + i;
	Datum values[] = {Int32GetDatum(slot->pid),         ObjectIdGetDatum(slot->role),
	                  CStringGetTextDatum(slot->task),  CStringGetTextDatum(slot->command),
	                  CStringGetTextDatum(slot->phase), Int64GetDatum(slot->done),
	                  Int64GetDatum(slot->total),       TimestampTzGetDatum(slot->started)};
	bool nulls[lengthof(values)] = {false};

	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

Datum
qwen3dm_stat_progress(PG_FUNCTION_ARGS)
{
	return qwen3dm_return_rows(fcinfo, visible_slots, slot_row);
}

/* ---------------------------------------------------------------------------------------------
 * Shared memory
 * --------------------------------------------------------------------------------------------- */

void
qwen3dm_outcomes_reserve(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Shared)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* Under AddinShmemInitLock. */
void
qwen3dm_outcomes_init(void)
{
	bool found;

	shared = ShmemInitStruct(TRANCHE, sizeof(Shared), &found);
	if (found)
		return;
	memset(shared, 0, sizeof(*shared));
	shared->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
}
