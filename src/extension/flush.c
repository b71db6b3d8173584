/*
 * flush.c: writes what live.c has counted to qwen3dm.task_evidence.
 *
 * The main worker has no database and never waits, so it writes nothing itself: every
 * qwen3dm.flush_interval it goes round the databases with news, and starts for each, one after the
 * other, a short-lived worker that connects to it, writes and ends. There is one such worker at a
 * time in the server, and none on a standby. A database that cannot be connected to (it is gone,
 * say) is forgotten.
 *
 * The writer is the bootstrap superuser, but the table is a user's and may have triggers: it writes
 * as the table's owner, in a security-restricted operation. Many news go in one transaction; where
 * that fails, each task in one of its own, so that one that somebody has locked keeps nobody else
 * waiting. What is not written stays news. Nothing here waits for a lock longer than LOCK_MS, nor
 * takes longer than about BUDGET_MS, for a database that is to be dropped waits for us.
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "extension/encoding.h"
#include "extension/live_state.h"
#include "extension/module.h"
#include "extension/tasks.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#define TABLE "task_evidence"
#define LOCK_MS 500
#define STATEMENT_MS 1500
#define BUDGET_MS 2000
#define BATCH 500 /* tasks */
/* While a writer is at work; the postmaster tells us of its end sooner. */
#define LOOK_MS 1000
/* Before a database that could not be connected to is tried again. */
#define REFUSED_MS (10 * 60 * 1000)

PGDLLEXPORT void qwen3dm_flush_main(Datum arg);

/* ---------------------------------------------------------------------------------------------
 * The main worker: who has news
 * --------------------------------------------------------------------------------------------- */

static struct
{
	TimestampTz round_at; /* when the last round began */
	bool in_round;
	Oid database;                   /* the last one of this round */
	BackgroundWorkerHandle *writer; /* NULL: nobody is at work */
	bool complained;
	/* Databases that could not be connected to; the oldest makes room. */
	struct
	{
		Oid database;
		TimestampTz until;
	} refused[8];
	int next_refused;
} rounds;

static bool
writer_is_at_work(void)
{
	pid_t pid;

	if (rounds.writer == NULL)
		return false;
	if (GetBackgroundWorkerPid(rounds.writer, &pid) != BGWH_STOPPED)
		return true;
	pfree(rounds.writer);
	rounds.writer = NULL;
	return false;
}

static void
note_refusal(void)
{
	Oid database = qwen3dm_live_take_unreachable();

	if (!OidIsValid(database))
		return;
	rounds.refused[rounds.next_refused].database = database;
	rounds.refused[rounds.next_refused].until =
	    TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REFUSED_MS);
	rounds.next_refused = (rounds.next_refused + 1) % lengthof(rounds.refused);
}

static bool
is_refused(Oid database)
{
	for (int i = 0; i < lengthof(rounds.refused); i++)
	{
		if (rounds.refused[i].database == database &&
		    GetCurrentTimestamp() < rounds.refused[i].until)
			return true;
	}
	return false;
}

static bool
start_writer(Oid database)
{
	BackgroundWorker bgw;
	MemoryContext old;
	bool started;

	memset(&bgw, 0, sizeof(bgw));
	strlcpy(bgw.bgw_name, "qwen3dm flush", BGW_MAXLEN);
	strlcpy(bgw.bgw_type, "qwen3dm flush", BGW_MAXLEN);
	bgw.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	bgw.bgw_start_time = BgWorkerStart_RecoveryFinished;
	bgw.bgw_restart_time = BGW_NEVER_RESTART;
	bgw.bgw_main_arg = ObjectIdGetDatum(database);
	bgw.bgw_notify_pid = MyProcPid;
	strlcpy(bgw.bgw_library_name, "qwen3dm", BGW_MAXLEN);
	strlcpy(bgw.bgw_function_name, "qwen3dm_flush_main", BGW_MAXLEN);

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&bgw, &rounds.writer);
	MemoryContextSwitchTo(old);
	if (!started && !rounds.complained)
		ereport(LOG, (errmsg("qwen3dm: could not register a background worker to write what was "
		                     "learned about tasks"),
		              errdetail("It will be tried again every %d s.", qwen3dm_flush_interval),
		              errhint("You may need to increase max_worker_processes.")));
	rounds.complained = !started;
	return started;
}

/* Milliseconds until the next round, where none is going on. */
static long
round_due(void)
{
	return TimestampDifferenceMilliseconds(
	    GetCurrentTimestamp(),
	    TimestampTzPlusMilliseconds(rounds.round_at, (int64) qwen3dm_flush_interval * 1000));
}

void
qwen3dm_live_flush(void)
{
	if (writer_is_at_work())
		return;
	if (!rounds.in_round)
	{
		if (round_due() > 0)
			return;
		rounds.round_at = GetCurrentTimestamp();
		if (RecoveryInProgress())
			return;
		rounds.database = InvalidOid;
	}
	note_refusal();
	do
		rounds.database = qwen3dm_live_next_database(rounds.database, true);
	while (OidIsValid(rounds.database) && is_refused(rounds.database));
	rounds.in_round = OidIsValid(rounds.database) && start_writer(rounds.database);
}

long
qwen3dm_live_flush_due(void)
{
	return rounds.in_round ? LOOK_MS : round_due();
}

/* ---------------------------------------------------------------------------------------------
 * The writer: a row
 * --------------------------------------------------------------------------------------------- */

/* Columns of the table that what was counted is added to, in the order of add_tally(). */
static const char *const sums[] = {"efficient_rows", "precise_rows", "thinking_rows",
                                   "escalated_rows", "alarms",       "switches"};
/* Those that keep what they have when nothing is known. */
static const char *const latencies[] = {"efficient_p50_ms", "efficient_p95_ms", "precise_p50_ms",
                                        "precise_p95_ms"};
/* Those of the watch for drift, in the order of add_watch(). */
static const char *const watched[] = {"shadow_rows", "shadow_agreed", "drift_level", "drifted_at",
                                      "live"};

/*
 * What the watch for drift says belongs to rows with its certificate or, if the entry has one that
 * was rolled back, an older one. With its last parameter false only numbers are added.
 */
static const char watch_fits[] = "$22 AND (e.certified_at IS NULL AND $20 IS NULL OR "
                                 "e.certified_at OPERATOR(pg_catalog.<=) $20)";

/* Its parameters are the following ones, in order. */
static char *
statement(void)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "INSERT INTO " QWEN3DM_SCHEMA "." TABLE
	                           " AS e (task, model_digest, question");
	for (int i = 0; i < lengthof(sums); i++)
		appendStringInfo(&s, ", %s", sums[i]);
	for (int i = 0; i < lengthof(latencies); i++)
		appendStringInfo(&s, ", %s", latencies[i]);
	for (int i = 0; i < lengthof(watched); i++)
		appendStringInfo(&s, ", %s", watched[i]);
	appendStringInfoString(
	    &s, ", used) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, "
	        "$17, $18, $19 WHERE EXISTS (SELECT FROM " QWEN3DM_SCHEMA ".tasks AS t "
	        "WHERE t.name OPERATOR(pg_catalog.=) $1) "
	        "ON CONFLICT (task, model_digest, question) DO UPDATE SET ");
	for (int i = 0; i < lengthof(sums); i++)
		appendStringInfo(&s, "%s = e.%s OPERATOR(pg_catalog.+) EXCLUDED.%s, ", sums[i], sums[i],
		                 sums[i]);
	for (int i = 0; i < lengthof(latencies); i++)
		appendStringInfo(&s, "%s = COALESCE(EXCLUDED.%s, e.%s), ", latencies[i], latencies[i],
		                 latencies[i]);
	for (int i = 0; i < lengthof(watched); i++)
		appendStringInfo(&s, "%s = CASE WHEN %s THEN EXCLUDED.%s ELSE e.%s END, ", watched[i],
		                 watch_fits, watched[i], watched[i]);
	appendStringInfoString(
	    &s, "used = GREATEST(e.used, EXCLUDED.used), standing = CASE WHEN $21 "
	        "AND e.standing OPERATOR(pg_catalog.=) 'certified' "
	        "AND e.certified_at OPERATOR(pg_catalog.<=) $20 THEN 'drifted' ELSE e.standing END");
	return s.data;
}

static const Oid parameter_types[] = {
    TEXTOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, FLOAT8OID,
    FLOAT8OID, FLOAT8OID, FLOAT8OID, INT8OID, INT8OID, FLOAT8OID, TIMESTAMPTZOID, BYTEAOID,
    /* used, certified_at, drifted, and whether more is said than numbers */
    TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID, BOOLOID};

typedef struct Parameters
{
	Datum values[lengthof(parameter_types)];
	char nulls[lengthof(parameter_types)];
	int n;
} Parameters;

static void
add(Parameters *p, bool known, Datum value)
{
	p->nulls[p->n] = known ? ' ' : 'n';
	p->values[p->n++] = value;
}

static void
add_text(Parameters *p, text *value)
{
	add(p, true, PointerGetDatum(value));
}

static void
add_bool(Parameters *p, bool value)
{
	add(p, true, BoolGetDatum(value));
}

static void
add_bigint(Parameters *p, int64 value)
{
	add(p, true, Int64GetDatum(value));
}

static void
add_float(Parameters *p, bool known, double value)
{
	add(p, known, Float8GetDatum(value));
}

static void
add_time(Parameters *p, TimestampTz time)
{
	add(p, time != 0, TimestampTzGetDatum(time));
}

static void
add_tally(Parameters *p, const Qwen3dmTally *t)
{
	add_bigint(p, t->efficient);
	add_bigint(p, t->precise);
	add_bigint(p, t->thinking);
	add_bigint(p, t->escalated);
	add_bigint(p, t->alarms);
	add_bigint(p, t->switches);
}

static void
add_quantiles(Parameters *p, const Qwen3dmRecent *recent)
{
	double p50 = qwen3dm_recent_quantile(recent, 0.5);
	double p95 = qwen3dm_recent_quantile(recent, 0.95);

	add_float(p, !isnan(p50), p50);
	add_float(p, !isnan(p95), p95);
}

static void
add_watch(Parameters *p, const Qwen3dmWatch *w)
{
	bytea *saved = palloc(VARHDRSZ + sizeof(*w));

	SET_VARSIZE(saved, VARHDRSZ + sizeof(*w));
	memcpy(VARDATA(saved), w, sizeof(*w));
	add_bigint(p, w->shadow_rows);
	add_bigint(p, w->shadow_agreed);
	add_float(p, w->certified_at != 0, q3_drift_level(&w->drift));
	add_time(p, w->drifted_at);
	add(p, true, PointerGetDatum(saved));
}

static void
add_no_watch(Parameters *p)
{
	add_bigint(p, 0);
	add_bigint(p, 0);
	add_float(p, false, 0);
	add_time(p, 0);
	add(p, false, (Datum) 0);
}

static void
fill(Parameters *p, const Qwen3dmLiveState *s, text *task)
{
	p->n = 0;
	add_text(p, task);
	add_text(p, cstring_to_text(s->watch.digest));
	add_bigint(p, (int64) s->key.question);
	add_tally(p, &s->news);
	add_quantiles(p, &s->efficient);
	add_quantiles(p, &s->precise);
	add_watch(p, &s->watch);
	add_time(p, s->used);
	add_time(p, s->watch.certified_at);
	add_bool(p, s->watch.drifted_at != 0);
	add_bool(p, true);
}

/* Of the model before this one nothing but numbers is known. */
static void
fill_old(Parameters *p, const Qwen3dmLiveState *s, text *task)
{
	static const Qwen3dmRecent none = {0};

	p->n = 0;
	add_text(p, task);
	add_text(p, cstring_to_text(s->old_digest));
	add_bigint(p, (int64) s->key.question);
	add_tally(p, &s->old_news);
	add_quantiles(p, &none);
	add_quantiles(p, &none);
	add_no_watch(p);
	add_time(p, s->used);
	add_time(p, 0);
	add_bool(p, false);
	add_bool(p, false);
}

static void
execute(SPIPlanPtr plan, Parameters *p)
{
	int code;

	Assert(p->n == lengthof(parameter_types));
	code = SPI_execute_plan(plan, p->values, p->nulls, false, 0);
	if (code != SPI_OK_INSERT)
		elog(ERROR, "could not write to " QWEN3DM_SCHEMA "." TABLE ": %s",
		     SPI_result_code_string(code));
}

/* In a transaction, as the table's owner. */
static void
write_state(SPIPlanPtr plan, const Qwen3dmLiveState *s)
{
	Qwen3dmFailure failure;
	q3p_bytes name = {s->key.task, strlen(s->key.task)};
	text *task = qwen3dm_from_utf8(name, &failure);
	Parameters p;

	if (task == NULL)
		return; /* a name that this database cannot hold is that of no task */
	fill(&p, s, task);
	execute(plan, &p);
	if (s->old_digest[0] != '\0')
	{
		fill_old(&p, s, task);
		execute(plan, &p);
	}
}

/* ---------------------------------------------------------------------------------------------
 * The writer: a database
 * --------------------------------------------------------------------------------------------- */

/* The extension's own table, and no other one of that name; invalid: it is not in this database. */
static Oid
find_table(void)
{
	Oid schema = get_namespace_oid(QWEN3DM_SCHEMA, true);
	Oid extension = get_extension_oid("qwen3dm", true);
	Oid relation = OidIsValid(schema) ? get_relname_relid(TABLE, schema) : InvalidOid;

	if (!OidIsValid(relation) || !OidIsValid(extension) ||
	    getExtensionOfObject(RelationRelationId, relation) != extension)
		return InvalidOid;
	return relation;
}

/* In a transaction. Without a table there is nothing to write to, which is no failure. */
static void
write_as_owner(const Qwen3dmLiveState *list, int n)
{
	Oid oid = find_table();
	Relation relation;
	SPIPlanPtr plan;
	Oid user;
	int context;

	if (!OidIsValid(oid))
		return;
	relation = table_open(oid, RowExclusiveLock);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(relation->rd_rel->relowner,
	                       context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	plan =
	    SPI_prepare(statement(), lengthof(parameter_types), unconstify(Oid *, &parameter_types[0]));
	if (plan == NULL)
		elog(ERROR, "could not prepare to write to " QWEN3DM_SCHEMA "." TABLE);
	for (int i = 0; i < n; i++)
		write_state(plan, &list[i]);
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	table_close(relation, NoLock);
}

/* Ends the transaction that failed, and says why; no detail, for it may show a row. */
static void
give_up(MemoryContext context)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	disable_all_timeouts(false);
	QueryCancelPending = false; /* the timeout may have come too late to be noticed */
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	ereport(qwen3dm_live_may_complain() ? LOG : DEBUG1,
	        (errcode(error->sqlerrcode),
	         errmsg("qwen3dm: could not write what was learned about tasks: %s", error->message),
	         errdetail("It will be tried again every %d s.", qwen3dm_flush_interval)));
	FreeErrorData(error);
	RESUME_INTERRUPTS();
}

/* Writes some news in one transaction; false if that fails. */
static bool
write_some(const Qwen3dmLiveState *list, int n)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool good = false;

	SetCurrentStatementStartTimestamp();
	PG_TRY();
	{
		StartTransactionCommand();
		enable_timeout_after(STATEMENT_TIMEOUT, STATEMENT_MS);
		PushActiveSnapshot(GetTransactionSnapshot());
		write_as_owner(list, n);
		PopActiveSnapshot();
		CommitTransactionCommand();
		disable_timeout(STATEMENT_TIMEOUT, false);
		good = true;
	}
	PG_CATCH();
	{
		give_up(context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);

	for (int i = 0; i < n && good; i++)
		qwen3dm_live_written(&list[i]);
	return good;
}

static bool
is_late(TimestampTz start)
{
	return TimestampDifferenceExceeds(start, GetCurrentTimestamp(), BUDGET_MS);
}

static void
write_singly(const Qwen3dmLiveState *list, int n, TimestampTz start)
{
	/* Beginning with another one each time, so that each one's turn comes. */
	for (int i = 0; i < n && !is_late(start); i++)
	{
		CHECK_FOR_INTERRUPTS();
		(void) write_some(&list[(i + MyProcPid) % n], 1);
	}
}

static void
write_database(void)
{
	TimestampTz start = GetCurrentTimestamp();
	Qwen3dmLiveState *list;
	int n;

	list = qwen3dm_live_news(MyDatabaseId, &n);
	for (int from = 0; from < n && !is_late(start); from += BATCH)
	{
		int count = Min(BATCH, n - from);

		CHECK_FOR_INTERRUPTS();
		if (!write_some(&list[from], count) && count > 1)
			write_singly(&list[from], count, start);
	}
}

/* What is known of tasks of databases that were dropped. */
static void
forget_dropped(void)
{
	StartTransactionCommand();
	for (Oid database = qwen3dm_live_next_database(InvalidOid, false); OidIsValid(database);
	     database = qwen3dm_live_next_database(database, false))
	{
		if (!SearchSysCacheExists1(DATABASEOID, ObjectIdGetDatum(database)))
			qwen3dm_live_forget(database);
	}
	CommitTransactionCommand();
}

/* Names mean what they mean to PostgreSQL, and nobody's settings for this database make us wait. */
static void
set_settings(void)
{
	static const char *const settings[][2] = {{"search_path", "pg_catalog, pg_temp"},
	                                          {"lock_timeout", CppAsString2(LOCK_MS)},
	                                          {"statement_timeout", "0"},
	                                          {"default_transaction_isolation", "read committed"},
	                                          {"default_transaction_read_only", "off"},
	                                          {"default_transaction_deferrable", "off"},
	                                          {"session_replication_role", "origin"},
	                                          {"synchronous_commit", "local"}};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

static bool reached = false;

static void
leave(int code, Datum arg)
{
	Oid database = DatumGetObjectId(arg);

	if (!reached)
		qwen3dm_live_forget(database);
	qwen3dm_live_release(database, reached);
}

/* arg: the database. */
void
qwen3dm_flush_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	if (!qwen3dm_live_claim())
		proc_exit(0);
	before_shmem_exit(leave, arg);
	/* Ends with an error when there is no such database. */
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	reached = true;
	set_settings();
	pgstat_report_appname("qwen3dm flush");
	pgstat_report_activity(STATE_RUNNING, "writing what was learned about tasks");
	MemoryContextSwitchTo(
	    AllocSetContextCreate(TopMemoryContext, "qwen3dm flush", ALLOCSET_DEFAULT_SIZES));
	write_database();
	forget_dropped();
	proc_exit(0);
}
