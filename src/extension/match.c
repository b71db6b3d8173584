/*
 * match.c: what is known of all tasks' inputs, as match.h says, and qwen_task_match.
 *
 * The session keeps profiles, counts and defaults in a context of its own. The tables' trigger,
 * qwen3dm_features_changed, has their relcache entries invalidated, which every session, here and
 * on standbys, is told when the transaction has committed; a callback then sets a flag, and the
 * next one who asks reads anew. It reads with the newest snapshot there is, as the server does with
 * catalogs: the statement's own may be older than the change, and what it sees would be kept.
 *
 * Profiles are read by SPI as the current user. Without row security everybody who may read the
 * table sees the same, so they are kept for all users, and only the right to read is asked for each
 * time; with it they are read for every call. Counts and defaults are no secret, and decide about
 * the rows of users who have no rights on the tables: they are read past all rights.
 *
 * Runs in backends and in parallel workers.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#include "extension/call.h"
#include "extension/embed.h"
#include "extension/features.h"
#include "extension/match.h"
#include "extension/srf.h"
#include "extension/tasks.h"

QWEN3DM_FUNCTION(qwen3dm_task_match);
QWEN3DM_FUNCTION(qwen3dm_features_changed);

typedef enum Table
{
	FEATURES,
	COUNTS,
	DEFAULTS,
	N_TABLES
} Table;

static const char *const table_names[N_TABLES] = {
    [FEATURES] = "task_features", [COUNTS] = "term_counts", [DEFAULTS] = "policy_defaults"};

/* As the install script has them. */
static const struct
{
	const char *name;
	double value;
} built_in[QWEN3DM_N_DEFAULTS] = {[QWEN3DM_MAX_LENGTH] = {"max_length", 2000},
                                  [QWEN3DM_MAX_RARITY] = {"max_rarity", 0.6},
                                  [QWEN3DM_MIN_SIMILARITY] = {"min_similarity", 0.3},
                                  [QWEN3DM_DELTA] = {"delta", 0.05},
                                  [QWEN3DM_EXIT_MARGIN] = {"exit_margin", 0}};

static const char profiles_query[] = "SELECT task, profile FROM " QWEN3DM_SCHEMA ".task_features";
static const char vectors_query[] = "SELECT task, embedding FROM " QWEN3DM_SCHEMA ".task_features "
                                    "WHERE embedding_digest OPERATOR(pg_catalog.=) $1";

typedef struct Kept
{
	Oid schema;
	Oid tables[N_TABLES]; /* that it is from; invalid: there is none */
	bool outdated;        /* set by the callback, at any time */

	bool has_numbers;
	q3_terms *terms;
	double defaults[QWEN3DM_N_DEFAULTS];

	bool has_profiles;      /* for the next call, too */
	MemoryContext profiles; /* of the arrays */
	int n;
	q3_profile *profile;
	char **task;
} Kept;

static Kept kept;

/* ---------------------------------------------------------------------------------------------
 * Noticing changes
 * --------------------------------------------------------------------------------------------- */

/* AFTER anything, FOR EACH STATEMENT: has all sessions read anew. */
Datum
qwen3dm_features_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
	    !TRIGGER_FIRED_FOR_STATEMENT(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("qwen3dm_features_changed must be called AFTER a change FOR EACH "
		                       "STATEMENT")));
	CacheInvalidateRelcache(data->tg_relation);
	return PointerGetDatum(NULL);
}

/* An invalid relid stands for every table. */
static void
at_invalidation(Datum arg, Oid relid)
{
	for (int i = 0; i < N_TABLES; i++)
		kept.outdated = kept.outdated || !OidIsValid(relid) || relid == kept.tables[i];
}

static void
begin(void)
{
	if (kept.profiles != NULL)
		return;
	if (kept.terms == NULL)
		kept.terms = MemoryContextAlloc(TopMemoryContext, sizeof(q3_terms));
	kept.profiles =
	    AllocSetContextCreate(TopMemoryContext, "qwen3dm task features", ALLOCSET_DEFAULT_SIZES);
	CacheRegisterRelcacheCallback(at_invalidation, (Datum) 0);
}

/*
 * What is kept is as new as it can be after this. Names are looked up each time, in the server's
 * caches: while there is no table, nothing tells that one is made.
 */
static void
notice_changes(void)
{
	Oid tables[N_TABLES];

	begin();
	AcceptInvalidationMessages();
	kept.schema = get_namespace_oid(QWEN3DM_SCHEMA, true);
	for (int i = 0; i < N_TABLES; i++)
		tables[i] =
		    OidIsValid(kept.schema) ? get_relname_relid(table_names[i], kept.schema) : InvalidOid;
	if (!kept.outdated && memcmp(tables, kept.tables, sizeof(tables)) == 0)
		return;
	kept.outdated = false;
	memcpy(kept.tables, tables, sizeof(tables));
	kept.has_numbers = false;
	kept.has_profiles = false;
}

/* For reading one of the tables, see above; to be popped. */
static void
push_newest_snapshot(Table table)
{
	PushActiveSnapshot(GetCatalogSnapshot(kept.tables[table]));
}

/* ---------------------------------------------------------------------------------------------
 * Counts and defaults
 * --------------------------------------------------------------------------------------------- */

/* False: it is NULL, or there is no such column. */
static bool
column(TupleTableSlot *slot, const char *name, Oid type, Datum *value)
{
	int number = SPI_fnumber(slot->tts_tupleDescriptor, name);
	bool isnull = true;

	if (number > 0 && TupleDescAttr(slot->tts_tupleDescriptor, number - 1)->atttypid == type)
		*value = slot_getattr(slot, number, &isnull);
	return !isnull;
}

static void
take_counts(TupleTableSlot *slot)
{
	Datum inputs, counts;

	if (column(slot, "inputs", INT8OID, &inputs) && column(slot, "counts", BYTEAOID, &counts))
		(void) qwen3dm_unpack_terms(kept.terms, DatumGetInt64(inputs), DatumGetByteaPP(counts));
}

static void
take_default(TupleTableSlot *slot)
{
	Datum name, value;

	if (!column(slot, "name", TEXTOID, &name) || !column(slot, "value", FLOAT8OID, &value))
		return;
	for (int i = 0; i < QWEN3DM_N_DEFAULTS; i++)
	{
		if (strcmp(TextDatumGetCString(name), built_in[i].name) == 0)
			kept.defaults[i] = DatumGetFloat8(value);
	}
}

static void
scan_table(Table table, void (*take)(TupleTableSlot *slot))
{
	Relation rel;

	if (!OidIsValid(kept.tables[table]))
		return;
	rel = try_relation_open(kept.tables[table], AccessShareLock);
	if (rel == NULL)
		return;
	if (rel->rd_rel->relkind == RELKIND_RELATION)
	{
		TupleTableSlot *slot = table_slot_create(rel, NULL);
		TableScanDesc scan;

		push_newest_snapshot(table);
		scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
			take(slot);
		table_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
		PopActiveSnapshot();
	}
	relation_close(rel, AccessShareLock);
}

static void
need_numbers(void)
{
	notice_changes();
	if (kept.has_numbers)
		return;
	q3_terms_begin(kept.terms);
	for (int i = 0; i < QWEN3DM_N_DEFAULTS; i++)
		kept.defaults[i] = built_in[i].value;
	scan_table(COUNTS, take_counts);
	scan_table(DEFAULTS, take_default);
	kept.has_numbers = true;
}

double
qwen3dm_policy_default(Qwen3dmDefault which)
{
	need_numbers();
	return kept.defaults[which];
}

void
qwen3dm_sketch(q3_sketch *sketch, const char *text, Size len)
{
	need_numbers();
	q3_sketch_make(sketch, text, len, kept.terms);
}

/* ---------------------------------------------------------------------------------------------
 * Profiles
 * --------------------------------------------------------------------------------------------- */

/* What the current user sees of task_features. */
typedef enum View
{
	NOTHING,
	EVERYTHING,
	WHAT_ROW_SECURITY_SHOWS
} View;

/* With row_security = off, a query that policies would filter is an error: better no features. */
static View
view_of_features(void)
{
	Oid table = kept.tables[FEATURES];

	if (!OidIsValid(table) || !qwen3dm_may_use_schema(kept.schema) ||
	    pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		return NOTHING;
	if (check_enable_rls(table, InvalidOid, true) != RLS_ENABLED)
		return EVERYTHING;
	return row_security ? WHAT_ROW_SECURITY_SHOWS : NOTHING;
}

static void
prepare(SPIPlanPtr *plan, const char *query, int n, Oid *types)
{
	SPIPlanPtr new_plan;

	if (*plan != NULL)
		return;
	new_plan = SPI_prepare(query, n, types);
	if (new_plan == NULL || SPI_keepplan(new_plan) != 0)
		elog(ERROR, "could not prepare the query for features of tasks");
	*plan = new_plan;
}

static void
forget_profiles(void)
{
	kept.n = 0;
	kept.has_profiles = false;
	MemoryContextReset(kept.profiles);
}

/* Those that SPI has found. */
static void
keep_profiles(void)
{
	forget_profiles();
	kept.profile = MemoryContextAllocHuge(kept.profiles, sizeof(q3_profile) * (SPI_processed + 1));
	kept.task = MemoryContextAllocHuge(kept.profiles, sizeof(char *) * (SPI_processed + 1));
	for (uint64 i = 0; i < SPI_processed && kept.n < INT_MAX; i++)
	{
		bool isnull[2];
		Datum task = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull[0]);
		Datum profile = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull[1]);

		if (isnull[0] || isnull[1] ||
		    !qwen3dm_unpack_profile(&kept.profile[kept.n], DatumGetByteaPP(profile)))
			continue;
		kept.task[kept.n++] = MemoryContextStrdup(kept.profiles, TextDatumGetCString(task));
	}
}

static void
read_profiles(void)
{
	static SPIPlanPtr plan = NULL;

	SPI_connect();
	prepare(&plan, profiles_query, 0, NULL);
	push_newest_snapshot(FEATURES);
	if (SPI_execute_plan(plan, NULL, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read features of tasks");
	keep_profiles();
	PopActiveSnapshot();
	SPI_finish();
}

static void
need_profiles(void)
{
	View view;

	notice_changes();
	view = view_of_features();
	if (view == EVERYTHING && kept.has_profiles)
		return;
	forget_profiles();
	if (view == NOTHING)
		return;
	read_profiles();
	kept.has_profiles = view == EVERYTHING;
}

/* The k most similar tasks among those that are kept. */
static int
best_of_kept(const q3_sketch *sketch, Qwen3dmMatch *matches, int k)
{
	size_t *best = palloc(sizeof(size_t) * k);
	double *similarity = palloc(sizeof(double) * k);
	int found =
	    (int) q3_similarity_best(sketch, kept.profile, kept.n, best, similarity, (size_t) k);

	for (int i = 0; i < found; i++)
		matches[i] = (Qwen3dmMatch){kept.task[best[i]], similarity[i]};
	pfree(best);
	pfree(similarity);
	return found;
}

int
qwen3dm_match(const q3_sketch *sketch, Qwen3dmMatch *matches, int k)
{
	need_profiles();
	return best_of_kept(sketch, matches, Min(k, kept.n));
}

/* ---------------------------------------------------------------------------------------------
 * Vectors
 * --------------------------------------------------------------------------------------------- */

static void
vector_of_input(q3p_bytes input, Qwen3dmVector *vector)
{
	Qwen3dmFailure failure;

	if (!qwen3dm_service_has_model(QWEN3DM_EMBEDDING))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("tasks cannot be compared by embedding without an embedding model"),
		                errhint("%s", qwen3dm_services[QWEN3DM_EMBEDDING].no_model_hint)));
	if (!qwen3dm_take_vector(qwen3dm_submit_vector(input), vector, &failure))
		qwen3dm_raise(&failure, 0);
}

/* False: the array is no vector of the same kind. */
static bool
cosine(const Qwen3dmVector *v, ArrayType *array, double *value)
{
	const float4 *other = (const float4 *) ARR_DATA_PTR(array);
	double dot = 0, squares = 0;

	if (ARR_NDIM(array) != 1 || ARR_DIMS(array)[0] != v->n || array_contains_nulls(array))
		return false;
	for (uint32 i = 0; i < v->n; i++)
	{
		dot += (double) v->coordinates[i] * other[i];
		squares += (double) other[i] * other[i];
	}
	*value = Min(Max(dot / sqrt(squares), -1), 1);
	return !isnan(*value);
}

static int
by_similarity(const void *a, const void *b)
{
	const Qwen3dmMatch *x = a, *y = b;

	if (x->similarity != y->similarity)
		return x->similarity < y->similarity ? 1 : -1;
	return strcmp(x->task, y->task);
}

/* All tasks among the rows that SPI has found, best first, in the given context; *n of them. */
static Qwen3dmMatch *
compare_vectors(const Qwen3dmVector *v, MemoryContext context, int *n)
{
	Qwen3dmMatch *matches =
	    MemoryContextAllocHuge(context, sizeof(Qwen3dmMatch) * (SPI_processed + 1));

	*n = 0;
	for (uint64 i = 0; i < SPI_processed && *n < INT_MAX; i++)
	{
		bool isnull[2];
		Datum task = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull[0]);
		Datum array = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull[1]);

		if (isnull[0] || isnull[1] ||
		    !cosine(v, DatumGetArrayTypeP(array), &matches[*n].similarity))
			continue;
		matches[(*n)++].task = MemoryContextStrdup(context, TextDatumGetCString(task));
	}
	qsort(matches, *n, sizeof(*matches), by_similarity);
	return matches;
}

/* All tasks that have a vector of the same model, best first. */
static Qwen3dmMatch *
nearest_tasks(q3p_bytes input, int *n)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext caller = CurrentMemoryContext;
	Oid type = TEXTOID;
	Qwen3dmVector v;
	Qwen3dmMatch *matches;
	Datum digest;

	*n = 0;
	vector_of_input(input, &v);
	notice_changes();
	if (view_of_features() == NOTHING)
		return NULL;
	SPI_connect();
	prepare(&plan, vectors_query, 1, &type);
	digest = CStringGetTextDatum(v.digest);
	if (SPI_execute_plan(plan, &digest, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read features of tasks");
	matches = compare_vectors(&v, caller, n);
	SPI_finish();
	return matches;
}

/* ---------------------------------------------------------------------------------------------
 * qwen_task_match
 * --------------------------------------------------------------------------------------------- */

enum
{
	ARG_INPUT,
	ARG_LIMIT,
	ARG_EMBEDDING
};

/* The most similar tasks by length and words; *n of them, limit at most. */
static Qwen3dmMatch *
likest_tasks(q3p_bytes input, int limit, int *n)
{
	Qwen3dmMatch *matches;
	q3_sketch sketch;

	qwen3dm_sketch(&sketch, input.data, input.len);
	need_profiles();
	limit = Min(limit, kept.n);
	matches = palloc_extended(sizeof(Qwen3dmMatch) * limit, MCXT_ALLOC_HUGE);
	*n = best_of_kept(&sketch, matches, limit);
	for (int i = 0; i < *n; i++)
		matches[i].task = pstrdup(matches[i].task);
	return matches;
}

static void *
find_matches(FunctionCallInfo fcinfo, uint64 *found)
{
	int limit = PG_ARGISNULL(ARG_LIMIT) ? INT_MAX : PG_GETARG_INT32(ARG_LIMIT);
	Qwen3dmMatch *matches;
	int n;

	*found = 0;
	if (limit < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("\"limit\" must not be negative")));
	if (PG_ARGISNULL(ARG_INPUT))
		return NULL;
	if (PG_ARGISNULL(ARG_EMBEDDING) || !PG_GETARG_BOOL(ARG_EMBEDDING))
		matches = likest_tasks(qwen3dm_utf8_argument(fcinfo, ARG_INPUT), limit, &n);
	else
		matches = nearest_tasks(qwen3dm_utf8_argument(fcinfo, ARG_INPUT), &n);
	*found = Min(n, limit);
	return matches;
}

static Datum
match_row(TupleDesc tupdesc, const void *matches, uint64 i)
{
	const Qwen3dmMatch *match = (const Qwen3dmMatch *) matches + i;
	Datum values[] = {CStringGetTextDatum(match->task), Float8GetDatum(match->similarity)};
	bool nulls[lengthof(values)] = {false};

	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

/* (input, limit, embedding): rows of task and similarity. */
Datum
qwen3dm_task_match(PG_FUNCTION_ARGS)
{
	return qwen3dm_return_rows(fcinfo, find_matches, match_row);
}
