/*
 * tasks.c: finding a task for a call, and the functions that make, change and drop tasks.
 *
 * Tasks are rows of the ordinary table qwen3dm.tasks and are read with SPI as the current user, so
 * that grants, row security and snapshots hold as in any query. What was read is kept while
 * statement, user and snapshot stay the same: in each of them a task is read once, however many
 * rows ask with it. Two things can make a difference all the same: the abort of a subtransaction
 * that had changed the task, after which nothing is kept, and policies of row security, which may
 * depend on anything, so that tasks under row security are read for every row. The evidence of a
 * task is read when it is first asked for, and kept with it. Runs in the backend and in parallel
 * workers; the kept rows live in a context of ours.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "extension/encoding.h"
#include "extension/labels.h"
#include "extension/module.h"
#include "extension/options.h"
#include "extension/tasks.h"

QWEN3DM_FUNCTION(qwen3dm_check_task);
QWEN3DM_FUNCTION(qwen3dm_task_changed);
QWEN3DM_FUNCTION(qwen3dm_task_create);
QWEN3DM_FUNCTION(qwen3dm_task_alter);
QWEN3DM_FUNCTION(qwen3dm_task_drop);

#define TABLE QWEN3DM_SCHEMA ".tasks"

/* Columns of the query that finds a task. */
enum
{
	COL_INSTRUCTION = 1,
	COL_LABELS,
	COL_EXAMPLES,
	COL_SCHEMA,
	COL_MODE,
	COL_THINKING,
	COL_THINKING_BUDGET,
	COL_MAX_TOKENS,
	COL_AGREEMENT_TARGET,
	COL_LATENCY_TARGET
};

static const char find_query[] =
    "SELECT instruction, labels, examples, schema, mode, thinking, thinking_budget, max_tokens, "
    "agreement_target, pg_catalog.date_part('epoch'::pg_catalog.text, latency_target) "
    "OPERATOR(pg_catalog.*) 1000 "
    "FROM " TABLE " WHERE name OPERATOR(pg_catalog.=) $1";

/* What a task was read under. */
typedef struct Stamp
{
	TimestampTz statement;
	uint64 completions; /* of transactions, when the snapshot was taken */
	TransactionId xmin, xmax;
	uint32 xcnt;
	CommandId curcid;
	Oid user;
} Stamp;

static MemoryContext kept_context = NULL;
static Stamp kept_stamp;
static List *kept = NIL; /* of Qwen3dmTask * */

/* ---------------------------------------------------------------------------------------------
 * Finding
 * --------------------------------------------------------------------------------------------- */

static Stamp
stamp_now(void)
{
	Snapshot snapshot = GetActiveSnapshot();
	Stamp stamp;

	memset(&stamp, 0, sizeof(stamp));
	stamp.statement = GetCurrentStatementStartTimestamp();
	stamp.completions = snapshot->snapXactCompletionCount;
	stamp.xmin = snapshot->xmin;
	stamp.xmax = snapshot->xmax;
	stamp.xcnt = snapshot->xcnt;
	stamp.curcid = snapshot->curcid;
	stamp.user = GetUserId();
	return stamp;
}

/* Of the row that SPI has found. */
static Datum
column(int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, isnull);
}

static NullableDatum
scalar_column(int number)
{
	NullableDatum value;

	value.value = column(number, &value.isnull);
	return value;
}

/* A copy, without toast; NULL for NULL. */
static void *
varlena_column(int number)
{
	bool isnull;
	Datum value = column(number, &isnull);

	return isnull ? NULL : PG_DETOAST_DATUM_COPY(value);
}

static uint32
mode_of(const char *name)
{
	if (strcmp(name, "efficient") == 0)
		return Q3P_EFFICIENT;
	return strcmp(name, "precise") == 0 ? Q3P_PRECISE : Q3P_AUTO;
}

/* The row that SPI has found, in the current context. */
static Qwen3dmTask *
make_task(const char *name)
{
	Qwen3dmTask *task = palloc0(sizeof(Qwen3dmTask));
	Qwen3dmFailure failure;
	text *mode;

	task->name = pstrdup(name);
	if (!qwen3dm_to_utf8(cstring_to_text(name), &task->utf8_name, &failure))
		qwen3dm_raise(&failure, 0);
	if (task->utf8_name.len >= Q3P_TASK_BYTES)
		ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG),
		                errmsg("the name of task \"%s\" is longer than %d bytes in UTF-8", name,
		                       Q3P_TASK_BYTES - 1)));
	task->instruction = varlena_column(COL_INSTRUCTION);
	task->labels = varlena_column(COL_LABELS);
	task->examples = varlena_column(COL_EXAMPLES);
	task->schema = varlena_column(COL_SCHEMA);
	mode = varlena_column(COL_MODE);
	task->mode = mode_of(text_to_cstring(mode));
	task->thinking = scalar_column(COL_THINKING);
	task->thinking_budget = scalar_column(COL_THINKING_BUDGET);
	task->max_tokens = scalar_column(COL_MAX_TOKENS);
	task->agreement_target = scalar_column(COL_AGREEMENT_TARGET);
	task->latency_target = scalar_column(COL_LATENCY_TARGET);
	task->context = CurrentMemoryContext;
	return task;
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId my_subid, SubTransactionId parent,
                      void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		memset(&kept_stamp, 0, sizeof(kept_stamp));
}

static bool
depends_on_row_security(SPIPlanPtr plan)
{
	return ((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->dependsOnRLS;
}

/* Runs a query about the task of this name; its plan is kept in *plan. SPI is connected. */
static void
query_by_name(SPIPlanPtr *plan, const char *query, const char *name, long limit)
{
	Oid type = TEXTOID;
	Datum argument = CStringGetTextDatum(name);

	if (*plan == NULL)
	{
		SPIPlanPtr new_plan = SPI_prepare(query, 1, &type);

		if (new_plan == NULL || SPI_keepplan(new_plan) != 0)
			elog(ERROR, "could not prepare the query for tasks");
		*plan = new_plan;
	}
	if (SPI_execute_plan(*plan, &argument, NULL, true, limit) != SPI_OK_SELECT)
		elog(ERROR, "could not read tasks");
}

/* Among the kept ones, unless row security decides who sees it. NULL: there is none. */
static Qwen3dmTask *
read_task(const char *name)
{
	static SPIPlanPtr plan = NULL;
	Qwen3dmTask *task = NULL;
	MemoryContext caller = CurrentMemoryContext, old;

	SPI_connect();
	query_by_name(&plan, find_query, name, 1);
	if (SPI_processed > 0)
	{
		bool keep = !depends_on_row_security(plan);

		old = MemoryContextSwitchTo(keep ? kept_context : caller);
		task = make_task(name);
		if (keep)
			kept = lappend(kept, task);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return task;
}

pg_noreturn static void
no_such_task(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("task \"%s\" does not exist", name)));
}

const Qwen3dmTask *
qwen3dm_find_task(const char *name)
{
	Stamp stamp = stamp_now();
	Qwen3dmTask *task;
	ListCell *lc;

	if (kept_context == NULL)
	{
		kept_context =
		    AllocSetContextCreate(TopMemoryContext, "qwen3dm tasks", ALLOCSET_DEFAULT_SIZES);
		RegisterSubXactCallback(at_subtransaction_end, NULL);
	}
	if (memcmp(&stamp, &kept_stamp, sizeof(stamp)) != 0)
	{
		kept = NIL;
		MemoryContextReset(kept_context);
		kept_stamp = stamp;
	}
	foreach (lc, kept)
	{
		task = lfirst(lc);
		if (strcmp(task->name, name) == 0)
			return task;
	}
	return read_task(name);
}

const Qwen3dmTask *
qwen3dm_task(const char *name)
{
	const Qwen3dmTask *task = qwen3dm_find_task(name);

	if (task == NULL)
		no_such_task(name);
	return task;
}

double
qwen3dm_agreement_target_of(const Qwen3dmTask *task)
{
	return task->agreement_target.isnull ? qwen3dm_agreement_target
	                                     : DatumGetFloat8(task->agreement_target.value);
}

double
qwen3dm_latency_target_of(const Qwen3dmTask *task)
{
	return task->latency_target.isnull ? qwen3dm_latency_target
	                                   : DatumGetFloat8(task->latency_target.value);
}

/* ---------------------------------------------------------------------------------------------
 * Evidence
 * --------------------------------------------------------------------------------------------- */

static const char evidence_query[] =
    "SELECT model_digest, question, standing, reference, target, learned_rows, agreement, "
    "threshold, expected_agreement, off_label_limit, escalated, efficient_ms, precise_ms, "
    "thinking_ms, labelled_rows, "
    "thinking_gained, thinking_lost, efficient_accuracy, precise_accuracy, thinking_accuracy, "
    "attempts, certified_rows, certified_agreed, rows_needed, shadow_reference, learned_at, "
    "certified_at, live "
    "FROM " QWEN3DM_SCHEMA ".task_evidence WHERE task OPERATOR(pg_catalog.=) $1";

static const char *const standings[] = {[Q3_STANDING_NONE] = "not learned",
                                        [Q3_STANDING_UNCERTIFIED] = "uncertified",
                                        [Q3_STANDING_REFUTED] = "refuted",
                                        [Q3_STANDING_CERTIFIED] = "certified",
                                        [Q3_STANDING_DRIFTED] = "drifted"};

const char *
qwen3dm_standing_name(int32 standing)
{
	return standing >= 0 && standing < lengthof(standings) ? standings[standing] : "void";
}

static int32
standing_of(const char *name)
{
	for (int32 i = 0; i < lengthof(standings); i++)
	{
		if (strcmp(standings[i], name) == 0)
			return i;
	}
	return Q3_STANDING_NONE;
}

/* The columns of a row of evidence, from left to right. */
typedef struct Reader
{
	uint64 row;
	int next;
} Reader;

static Datum
next_column(Reader *r, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[r->row], SPI_tuptable->tupdesc, ++r->next, isnull);
}

static char *
next_text(Reader *r)
{
	bool isnull;
	Datum value = next_column(r, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static double
next_float(Reader *r, double otherwise)
{
	bool isnull;
	Datum value = next_column(r, &isnull);

	return isnull ? otherwise : DatumGetFloat8(value);
}

static int64
next_int(Reader *r)
{
	bool isnull;
	Datum value = next_column(r, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static void
next_bytes(Reader *r, char **data, Size *len)
{
	bool isnull;
	Datum value = next_column(r, &isnull);
	bytea *b;

	if (isnull)
		return;
	b = DatumGetByteaPCopy(value);
	*data = VARDATA(b);
	*len = VARSIZE(b) - VARHDRSZ;
}

/* A row that SPI has found, in the current context. */
static Qwen3dmEvidence *
make_evidence(uint64 row)
{
	Qwen3dmEvidence *e = palloc0(sizeof(Qwen3dmEvidence));
	Reader r = {row, 0};
	bool isnull;

	e->digest = next_text(&r);
	e->question = (uint64) next_int(&r);
	e->standing = standing_of(next_text(&r));
	e->reference_thinks = strcmp(next_text(&r), "thinking") == 0;
	e->target = next_float(&r, 0);
	e->learned_rows = next_int(&r);
	e->agreement = next_float(&r, 0);
	e->threshold = next_float(&r, NAN);
	e->has_threshold = !isnan(e->threshold);
	e->expected_agreement = next_float(&r, 0);
	e->off_label_limit = next_float(&r, 0);
	e->escalated = next_float(&r, 0);
	e->efficient_ms = next_float(&r, 0);
	e->precise_ms = next_float(&r, 0);
	e->thinking_ms = next_float(&r, 0);
	e->record.rows = next_int(&r);
	e->record.gained = next_int(&r);
	e->record.lost = next_int(&r);
	e->efficient_accuracy = next_float(&r, NAN);
	e->precise_accuracy = next_float(&r, NAN);
	e->thinking_accuracy = next_float(&r, NAN);
	e->attempts = DatumGetInt32(next_column(&r, &isnull));
	e->certified_rows = next_int(&r);
	e->certified_agreed = next_int(&r);
	e->rows_needed = next_int(&r);
	e->shadow_reference = next_float(&r, 0);
	e->learned_at = next_int(&r); /* a timestamp is such a number, too */
	e->certified_at = next_int(&r);
	next_bytes(&r, &e->saved, &e->saved_len);
	return e;
}

/* Without it, a role that was given tasks alone could not use them. */
static bool
may_read_evidence(void)
{
	Oid schema = get_namespace_oid(QWEN3DM_SCHEMA, true);
	Oid table = OidIsValid(schema) ? get_relname_relid("task_evidence", schema) : InvalidOid;

	return OidIsValid(table) && pg_class_aclcheck(table, GetUserId(), ACL_SELECT) == ACLCHECK_OK;
}

/* *keep: it is the same for all rows of the statement. */
static List *
read_evidence(const Qwen3dmTask *task, bool *keep)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext caller = CurrentMemoryContext;
	List *found = NIL;

	*keep = true;
	if (!may_read_evidence())
		return NIL;
	SPI_connect();
	query_by_name(&plan, evidence_query, task->name, 0);
	*keep = !depends_on_row_security(plan);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(*keep ? task->context : caller);

		found = lappend(found, make_evidence(i));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return found;
}

static List *
evidence_of(const Qwen3dmTask *task)
{
	/* A note beside what the caller may not change. */
	Qwen3dmTask *kept_task = (Qwen3dmTask *) task;

	if (!task->evidence_read)
		kept_task->evidence = read_evidence(task, &kept_task->evidence_read);
	return task->evidence;
}

const Qwen3dmEvidence *
qwen3dm_evidence(const Qwen3dmTask *task, const char *digest, uint64 question, bool *other)
{
	ListCell *lc;

	*other = false;
	foreach (lc, evidence_of(task))
	{
		const Qwen3dmEvidence *e = lfirst(lc);

		if (e->question == question && strcmp(e->digest, digest) == 0)
			return e;
		/* What was only used has taught nothing. */
		*other = *other || e->learned_rows > 0;
	}
	return NULL;
}

bool
qwen3dm_is_certified(const Qwen3dmTask *task, const char *digest)
{
	ListCell *lc;

	foreach (lc, evidence_of(task))
	{
		const Qwen3dmEvidence *e = lfirst(lc);

		if (e->standing == Q3_STANDING_CERTIFIED && strcmp(e->digest, digest) == 0)
			return true;
	}
	return false;
}

/* ---------------------------------------------------------------------------------------------
 * Rows of the table
 * --------------------------------------------------------------------------------------------- */

/* (labels, examples): true, or an error that says what is wrong with them. */
Datum
qwen3dm_check_task(PG_FUNCTION_ARGS)
{
	Qwen3dmLabels labels;
	bool has_labels = !PG_ARGISNULL(0);
	q3p_bytes *turns;

	if (has_labels)
		qwen3dm_labels_from_jsonb(PG_GETARG_JSONB_P(0), &labels);
	if (!PG_ARGISNULL(1))
		qwen3dm_turns_from_examples(PG_GETARG_JSONB_P(1),
		                            has_labels ? QWEN3DM_ANSWER_LABEL : QWEN3DM_ANSWER_ANY, &labels,
		                            &turns);
	PG_RETURN_BOOL(true);
}

/* BEFORE UPDATE: notes the time. */
Datum
qwen3dm_task_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc tupdesc;
	int number;
	Datum now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	bool isnull = false;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_UPDATE(data->tg_event) ||
	    !TRIGGER_FIRED_BEFORE(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("qwen3dm_task_changed must be called BEFORE UPDATE FOR EACH ROW")));
	tupdesc = RelationGetDescr(data->tg_relation);
	number = SPI_fnumber(tupdesc, "changed");
	if (number < 1 || TupleDescAttr(tupdesc, number - 1)->atttypid != TIMESTAMPTZOID)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
		                errmsg("table \"%s\" has no column \"changed\" of type timestamptz",
		                       RelationGetRelationName(data->tg_relation))));
	return PointerGetDatum(
	    heap_modify_tuple_by_cols(data->tg_newtuple, tupdesc, 1, &number, &now, &isnull));
}

/* ---------------------------------------------------------------------------------------------
 * Making, changing, dropping
 * --------------------------------------------------------------------------------------------- */

/* Arguments of qwen_task_create and qwen_task_alter, in order. */
static const struct
{
	const char *name;
	Oid type;
} columns[] = {{"name", TEXTOID},
               {"instruction", TEXTOID},
               {"labels", JSONBOID},
               {"examples", JSONBOID},
               {"schema", JSONBOID},
               {"mode", TEXTOID},
               {"description", TEXTOID},
               {"thinking", BOOLOID},
               {"thinking_budget", INT4OID},
               {"max_tokens", INT4OID},
               {"agreement_target", FLOAT8OID},
               {"latency_target", INTERVALOID}};

typedef struct Given
{
	int n;
	const char *names[lengthof(columns)];
	Oid types[lengthof(columns)];
	Datum values[lengthof(columns)];
} Given;

/* Those arguments that are not NULL. */
static void
collect(FunctionCallInfo fcinfo, Given *given)
{
	given->n = 0;
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		given->names[given->n] = columns[i].name;
		given->types[given->n] = columns[i].type;
		given->values[given->n++] = PG_GETARG_DATUM(i);
	}
}

static char *
name_argument(FunctionCallInfo fcinfo)
{
	char *name;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("the name of a task must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (name[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("the name of a task must not be empty")));
	if (strlen(name) >= Q3P_TASK_BYTES)
		ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG),
		                errmsg("the name of a task must not be longer than %d bytes",
		                       Q3P_TASK_BYTES - 1)));
	return name;
}

static void
check_int(FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n) && PG_GETARG_INT32(n) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("%s must be at least 1", columns[n].name)));
}

/* What the table's own checks would refuse with less to say. */
static void
check_values(FunctionCallInfo fcinfo)
{
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		if (columns[i].type == INT4OID)
			check_int(fcinfo, i);
		if (strcmp(columns[i].name, "mode") == 0)
			(void) qwen3dm_mode_by_name(text_to_cstring(PG_GETARG_TEXT_PP(i)));
		if (columns[i].type == FLOAT8OID && !(PG_GETARG_FLOAT8(i) > 0 && PG_GETARG_FLOAT8(i) <= 1))
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			         errmsg("%s must be greater than 0 and not greater than 1", columns[i].name)));
	}
}

/* Runs a statement about one task; number of rows that it changed. */
static uint64
run(const char *statement, Given *given)
{
	int code;
	uint64 n;

	SPI_connect();
	code = SPI_execute_with_args(statement, given->n, given->types, given->values, NULL, false, 0);
	if (code < 0)
		elog(ERROR, "could not change tasks: %s", SPI_result_code_string(code));
	n = SPI_processed;
	SPI_finish();
	return n;
}

Datum
qwen3dm_task_create(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	StringInfoData s, values;
	Given given;

	check_values(fcinfo);
	collect(fcinfo, &given);
	initStringInfo(&s);
	initStringInfo(&values);
	appendStringInfoString(&s, "INSERT INTO " TABLE " (");
	for (int i = 0; i < given.n; i++)
	{
		appendStringInfo(&s, "%s%s", i > 0 ? ", " : "", given.names[i]);
		appendStringInfo(&values, "%s$%d", i > 0 ? ", " : "", i + 1);
	}
	appendStringInfo(&s, ") VALUES (%s) ON CONFLICT (name) DO NOTHING", values.data);
	if (run(s.data, &given) == 0)
		ereport(ERROR,
		        (errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("task \"%s\" already exists", name)));
	PG_RETURN_VOID();
}

/* The columns of an array of names, as assignments of their defaults. */
static void
append_defaults(StringInfo s, ArrayType *array, const Given *given)
{
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char *name = nulls[i] ? NULL : TextDatumGetCString(values[i]);
		bool known = false;

		for (int k = 1; k < lengthof(columns) && name != NULL; k++)
			known = known || strcmp(columns[k].name, name) == 0;
		if (!known)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("a task has no property \"%s\" to reset",
			                       name != NULL ? name : "NULL")));
		for (int k = 0; k < given->n; k++)
		{
			if (strcmp(given->names[k], name) == 0)
				ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				                errmsg("%s cannot be both set and reset", name)));
		}
		appendStringInfo(s, ", %s = DEFAULT", name);
	}
}

Datum
qwen3dm_task_alter(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	StringInfoData s;
	Given given;

	check_values(fcinfo);
	collect(fcinfo, &given);
	initStringInfo(&s);
	appendStringInfoString(&s, "UPDATE " TABLE " SET name = name");
	for (int i = 1; i < given.n; i++)
		appendStringInfo(&s, ", %s = $%d", given.names[i], i + 1);
	if (!PG_ARGISNULL(lengthof(columns)))
		append_defaults(&s, PG_GETARG_ARRAYTYPE_P(lengthof(columns)), &given);
	appendStringInfoString(&s, " WHERE name OPERATOR(pg_catalog.=) $1");
	if (run(s.data, &given) == 0)
		no_such_task(name);
	PG_RETURN_VOID();
}

/* (name, if_exists) */
Datum
qwen3dm_task_drop(PG_FUNCTION_ARGS)
{
	char *name = name_argument(fcinfo);
	bool if_exists = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Given given = {.n = 1, .types = {TEXTOID}, .values = {PG_GETARG_DATUM(0)}};

	if (run("DELETE FROM " TABLE " WHERE name OPERATOR(pg_catalog.=) $1", &given) == 0)
	{
		if (!if_exists)
			no_such_task(name);
		ereport(NOTICE, (errmsg("task \"%s\" does not exist, skipping", name)));
	}
	PG_RETURN_VOID();
}
