/*
 * accounts.c: the usage counters, in shared memory and in a file.
 *
 * A hash table of fixed size in the main shared memory segment. Its lock is held shared for finding
 * an account and exclusively for adding or dropping one; the numbers of an account are protected by
 * its spinlock. When the table is full, what has no account yet is added up in one that is
 * nobody's.
 *
 * A worker writes all of it to a file when there is news, at most every qwen3dm.flush_interval, and
 * reads that at the start of the server; the postmaster writes it last, when everybody else is
 * gone. Another lock lets only one of them do so. The file is local: a standby has its own.
 */
#include "postgres.h"

#include <unistd.h>

#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/backend_status.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "extension/accounts.h"
#include "extension/module.h"

#define TRANCHE "qwen3dm accounts"
#define FILE_NAME "pg_stat/qwen3dm.stat"
#define FILE_MAGIC 0x33775171
#define FILE_VERSION 1
#define CANCELED "57014"

QWEN3DM_FUNCTION(qwen3dm_stat_reset);

typedef struct Entry
{
	Qwen3dmPayer payer; /* the key */
	Qwen3dmUsage usage;
	slock_t mutex; /* protects usage */
} Entry;

typedef struct Accounts
{
	LWLock *lock;           /* protects the table */
	LWLock *file_lock;      /* protects the file, and: */
	bool loaded;            /* it has been read */
	pg_atomic_uint32 dirty; /* there is news since the file was written */
} Accounts;

typedef struct FileHeader
{
	uint32 magic;
	uint32 version;
	uint32 account_size;
	uint32 n_accounts; /* that follow, and then the CRC of everything before it */
} FileHeader;

static Accounts *accounts = NULL; /* NULL: not preloaded */
static HTAB *table = NULL;
static const Qwen3dmPayer nobody = {0};

/* ---------------------------------------------------------------------------------------------
 * Counting
 * --------------------------------------------------------------------------------------------- */

static void
add_usage(Qwen3dmUsage *to, const Qwen3dmUsage *from)
{
	to->requests += from->requests;
	to->errors += from->errors;
	to->canceled += from->canceled;
	to->deduplicated += from->deduplicated;
	to->prompt_tokens += from->prompt_tokens;
	to->cached_tokens += from->cached_tokens;
	to->output_tokens += from->output_tokens;
	to->latency_ms += from->latency_ms;
	to->max_latency_ms = Max(to->max_latency_ms, from->max_latency_ms);
	to->last = Max(to->last, from->last);
}

/* Under the exclusive lock. */
static Entry *
make_entry(const Qwen3dmPayer *payer)
{
	bool found;
	Entry *e;

	/* Of the places that there are one is nobody's, who is always there. */
	if (hash_get_num_entries(table) > qwen3dm_max_accounts &&
	    hash_search(table, payer, HASH_FIND, NULL) == NULL)
		payer = &nobody;
	e = hash_search(table, payer, HASH_ENTER_NULL, &found);
	if (e == NULL)
		return hash_search(table, &nobody, HASH_FIND, NULL);
	if (!found)
	{
		memset(&e->usage, 0, sizeof(e->usage));
		SpinLockInit(&e->mutex);
	}
	return e;
}

/* Raises no error: it also runs while a transaction is aborted. */
static void
count(const Qwen3dmPayer *payer, const Qwen3dmUsage *usage)
{
	Entry *e;

	if (accounts == NULL)
		return;
	LWLockAcquire(accounts->lock, LW_SHARED);
	e = hash_search(table, payer, HASH_FIND, NULL);
	if (e == NULL)
	{
		LWLockRelease(accounts->lock);
		LWLockAcquire(accounts->lock, LW_EXCLUSIVE);
		e = make_entry(payer);
	}
	SpinLockAcquire(&e->mutex);
	add_usage(&e->usage, usage);
	SpinLockRelease(&e->mutex);
	LWLockRelease(accounts->lock);
	pg_atomic_write_u32(&accounts->dirty, 1);
}

/* The kinds for which the model computes something; of the others only requests are counted. */
static bool
computes(uint32 kind)
{
	return kind != Q3P_COUNT_TOKENS && kind != Q3P_TOKENIZE && kind != Q3P_DETOKENIZE &&
	       kind != Q3P_UNPIN;
}

/* One request of the payer. */
static void
count_request(const Qwen3dmPayer *payer, uint32 mode, Qwen3dmUsage usage)
{
	Qwen3dmPayer key = *payer;

	if (computes(key.kind))
		key.mode = mode;
	else
		usage.prompt_tokens = usage.cached_tokens = usage.output_tokens = 0;
	usage.requests = 1;
	usage.max_latency_ms = usage.latency_ms;
	usage.last = GetCurrentTimestamp();
	count(&key, &usage);
}

static void
set_task(Qwen3dmPayer *payer, q3p_bytes task)
{
	if (task.data != NULL)
		memcpy(payer->task, task.data, Min(task.len, sizeof(payer->task) - 1));
}

static void
check_limit(const char *option, int32 tokens)
{
	if (qwen3dm_max_tokens_limit > 0 && tokens > qwen3dm_max_tokens_limit)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		                errmsg("%s must not be greater than %d", option, qwen3dm_max_tokens_limit),
		                errdetail("This is the value of qwen3dm.max_tokens_limit.")));
}

void
qwen3dm_account_open(q3p_request *message, Qwen3dmPayer *payer)
{
	if (message->kind == Q3P_GENERATE || message->kind == Q3P_STREAM)
		check_limit("max_tokens", message->max_tokens);
	else if (message->kind == Q3P_CLASSIFY && (message->thinking || message->escalate_thinking))
		check_limit("thinking_budget", message->thinking_budget);
	message->role = GetUserId();
	message->token_quota = qwen3dm_token_quota;
	message->query_id = (uint64) pgstat_get_my_query_id();
	memset(payer, 0, sizeof(*payer));
	payer->role = message->role;
	payer->database = MyDatabaseId;
	payer->kind = message->kind;
	set_task(payer, message->task);
}

void
qwen3dm_account_answer(const Qwen3dmPayer *payer, const q3p_header *header, const char *payload)
{
	q3p_result r;
	q3p_error e;

	if (header->type == Q3P_RESULT && q3p_result_decode(payload, header->length, &r))
		count_request(payer, r.mode,
		              (Qwen3dmUsage){.deduplicated = r.deduplicated,
		                             .prompt_tokens = r.prompt_tokens,
		                             .cached_tokens = r.cached_tokens,
		                             .output_tokens = r.output_tokens,
		                             .latency_ms = r.latency_ms});
	/* What we canceled the engine tells the worker about, once it has ended. */
	else if (header->type == Q3P_ERROR && q3p_error_decode(payload, header->length, &e) &&
	         strcmp(e.sqlstate, CANCELED) != 0)
		count_request(payer, e.mode,
		              (Qwen3dmUsage){.errors = 1,
		                             .prompt_tokens = e.prompt_tokens,
		                             .cached_tokens = e.cached_tokens,
		                             .output_tokens = e.output_tokens,
		                             .latency_ms = e.latency_ms});
}

void
qwen3dm_account_lost(const Qwen3dmPayer *payer)
{
	count_request(payer, Q3P_AUTO, (Qwen3dmUsage){.errors = 1});
}

void
qwen3dm_account_usage(const q3p_usage *m)
{
	Qwen3dmPayer payer;

	memset(&payer, 0, sizeof(payer));
	payer.role = m->role;
	payer.database = m->database;
	payer.kind = m->kind;
	set_task(&payer, m->task);
	count_request(&payer, m->mode,
	              (Qwen3dmUsage){.canceled = 1,
	                             .prompt_tokens = m->prompt_tokens,
	                             .cached_tokens = m->cached_tokens,
	                             .output_tokens = m->output_tokens,
	                             .latency_ms = m->latency_ms});
}

/* ---------------------------------------------------------------------------------------------
 * Looking
 * --------------------------------------------------------------------------------------------- */

Qwen3dmAccount *
qwen3dm_accounts_copy(int *n)
{
	Qwen3dmAccount *copy;
	HASH_SEQ_STATUS seq;
	Entry *e;
	long room;

	*n = 0;
	if (accounts == NULL)
		return NULL;
	LWLockAcquire(accounts->lock, LW_SHARED);
	room = hash_get_num_entries(table);
	copy = palloc(sizeof(Qwen3dmAccount) * Max(room, 1));
	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		Qwen3dmAccount *a = &copy[*n];

		a->payer = e->payer;
		SpinLockAcquire(&e->mutex);
		a->usage = e->usage;
		SpinLockRelease(&e->mutex);
		if (a->usage.requests > 0)
			(*n)++;
	}
	LWLockRelease(accounts->lock);
	return copy;
}

/* (role): forgets what it has used; NULL: what everybody has used. */
Datum
qwen3dm_stat_reset(PG_FUNCTION_ARGS)
{
	HASH_SEQ_STATUS seq;
	Entry *e;

	if (accounts == NULL)
		PG_RETURN_VOID();
	LWLockAcquire(accounts->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		if (!PG_ARGISNULL(0) && e->payer.role != PG_GETARG_OID(0))
			continue;
		if (OidIsValid(e->payer.role))
			hash_search(table, &e->payer, HASH_REMOVE, NULL);
		else
			memset(&e->usage, 0, sizeof(e->usage));
	}
	LWLockRelease(accounts->lock);
	pg_atomic_write_u32(&accounts->dirty, 1);
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------------------------------
 * The file
 * --------------------------------------------------------------------------------------------- */

static pg_crc32c
crc_of(const FileHeader *header, const Qwen3dmAccount *list)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, header, sizeof(*header));
	COMP_CRC32C(crc, list, sizeof(*list) * header->n_accounts);
	FIN_CRC32C(crc);
	return crc;
}

/* False with errno. */
static bool
write_file(const char *name, const FileHeader *header, const Qwen3dmAccount *list)
{
	pg_crc32c crc = crc_of(header, list);
	FILE *file = AllocateFile(name, PG_BINARY_W);
	bool good;
	int save_errno;

	if (file == NULL)
		return false;
	errno = ENOSPC; /* where fwrite() does not say */
	good = fwrite(header, sizeof(*header), 1, file) == 1 &&
	       fwrite(list, sizeof(*list), header->n_accounts, file) == header->n_accounts &&
	       fwrite(&crc, sizeof(crc), 1, file) == 1;
	save_errno = errno;
	if (FreeFile(file) != 0 && good)
	{
		good = false;
		save_errno = errno;
	}
	errno = save_errno;
	return good;
}

/* Writes all accounts, and moves them to where the next start looks for them. */
static void
save(void)
{
	static bool complained = false;
	FileHeader header = {FILE_MAGIC, FILE_VERSION, sizeof(Qwen3dmAccount), 0};
	Qwen3dmAccount *list;
	int n;

	pg_atomic_write_u32(&accounts->dirty, 0);
	list = qwen3dm_accounts_copy(&n);
	header.n_accounts = n;
	if (write_file(FILE_NAME ".tmp", &header, list))
	{
		(void) durable_rename(FILE_NAME ".tmp", FILE_NAME, LOG);
		complained = false;
	}
	else
	{
		/* Once, and not every few seconds. */
		if (!complained)
			ereport(LOG, (errcode_for_file_access(),
			              errmsg("could not write file \"%s\": %m", FILE_NAME ".tmp")));
		complained = true;
		unlink(FILE_NAME ".tmp");
		pg_atomic_write_u32(&accounts->dirty, 1);
	}
	pfree(list);
}

/* The accounts of the file, palloc'd; NULL with *problem, which is NULL when there is no file. */
static Qwen3dmAccount *
read_file(FileHeader *header, const char **problem)
{
	FILE *file = AllocateFile(FILE_NAME, PG_BINARY_R);
	Qwen3dmAccount *list = NULL;
	pg_crc32c crc;
	char more;

	*problem = NULL;
	if (file == NULL)
	{
		if (errno != ENOENT)
			*problem = psprintf("It cannot be opened: %m.");
		return NULL;
	}
	if (fread(header, sizeof(*header), 1, file) != 1 || header->magic != FILE_MAGIC)
		*problem = "It does not begin as it should.";
	else if (header->version != FILE_VERSION || header->account_size != sizeof(Qwen3dmAccount))
		*problem = "It was written by another version.";
	else if (header->n_accounts > MaxAllocSize / sizeof(Qwen3dmAccount))
		*problem = "It is damaged.";
	else
	{
		list = palloc(sizeof(Qwen3dmAccount) * Max(header->n_accounts, 1));
		if (fread(list, sizeof(*list), header->n_accounts, file) != header->n_accounts ||
		    fread(&crc, sizeof(crc), 1, file) != 1 || fread(&more, 1, 1, file) != 0 ||
		    !EQ_CRC32C(crc, crc_of(header, list)))
			*problem = "It is damaged.";
	}
	FreeFile(file);
	return *problem == NULL ? list : NULL;
}

static void
load(void)
{
	const char *problem;
	FileHeader header;
	Qwen3dmAccount *list = read_file(&header, &problem);

	if (problem != NULL)
		ereport(LOG, (errmsg("qwen3dm: ignoring file \"%s\"", FILE_NAME),
		              errdetail_internal("%s", problem),
		              errhint("The usage counters start from zero.")));
	if (list == NULL)
		return;
	for (uint32 i = 0; i < header.n_accounts; i++)
		count(&list[i].payer, &list[i].usage);
	pfree(list);
}

void
qwen3dm_accounts_load(void)
{
	LWLockAcquire(accounts->file_lock, LW_EXCLUSIVE);
	if (!accounts->loaded)
		load();
	accounts->loaded = true;
	LWLockRelease(accounts->file_lock);
}

static TimestampTz saved_at = 0;

long
qwen3dm_accounts_save_due(void)
{
	return TimestampDifferenceMilliseconds(
	    GetCurrentTimestamp(),
	    TimestampTzPlusMilliseconds(saved_at, (int64) qwen3dm_flush_interval * 1000));
}

void
qwen3dm_accounts_save(bool now)
{
	if (!now && qwen3dm_accounts_save_due() > 0)
		return;
	saved_at = GetCurrentTimestamp();
	if (pg_atomic_read_u32(&accounts->dirty) == 0 ||
	    !LWLockConditionalAcquire(accounts->file_lock, LW_EXCLUSIVE))
		return; /* what another one misses is news for the next time */
	if (accounts->loaded)
		save();
	LWLockRelease(accounts->file_lock);
}

/* ---------------------------------------------------------------------------------------------
 * Shared memory
 * --------------------------------------------------------------------------------------------- */

/* The postmaster's end: nobody counts any more. */
static void
save_at_exit(int code, Datum arg)
{
	if (code == 0 && accounts != NULL)
		qwen3dm_accounts_save(true);
}

void
qwen3dm_accounts_reserve(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Accounts)));
	RequestAddinShmemSpace(hash_estimate_size(qwen3dm_max_accounts + 1, sizeof(Entry)));
	RequestNamedLWLockTranche(TRANCHE, 2);
}

/* Under AddinShmemInitLock. */
void
qwen3dm_accounts_init(void)
{
	HASHCTL info = {.keysize = sizeof(Qwen3dmPayer), .entrysize = sizeof(Entry)};
	bool found;

	accounts = ShmemInitStruct(TRANCHE, sizeof(Accounts), &found);
	table = ShmemInitHash(TRANCHE " table", qwen3dm_max_accounts + 1, qwen3dm_max_accounts + 1,
	                      &info, HASH_ELEM | HASH_BLOBS);
	if (!found)
	{
		accounts->lock = &GetNamedLWLockTranche(TRANCHE)[0].lock;
		accounts->file_lock = &GetNamedLWLockTranche(TRANCHE)[1].lock;
		accounts->loaded = false;
		pg_atomic_init_u32(&accounts->dirty, 0);
		(void) make_entry(&nobody);
	}
	if (!IsUnderPostmaster)
		on_shmem_exit(save_at_exit, (Datum) 0);
}
