/*
 * status.c: the functions under the views qwen_model_status and qwen_stat_activity.
 *
 * The status comes from shared memory and is there in every state of the server, even when the
 * library is not preloaded: a row for the main model, and one for the embedding model if one is
 * set. The live requests are asked of the engines, over the session's own connections; without an
 * engine there are none.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "extension/client.h"
#include "extension/compat.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/status.h"

QWEN3DM_FUNCTION(qwen3dm_model_status);
QWEN3DM_FUNCTION(qwen3dm_stat_activity);

/* Columns are appended in the order of the SQL declaration. */
typedef struct Row
{
	TupleDesc tupdesc;
	Datum values[48];
	bool nulls[48];
	int n;
} Row;

static void
add(Row *row, bool isnull, Datum value)
{
	if (row->n >= row->tupdesc->natts || row->n >= lengthof(row->values))
		elog(ERROR, "a view of qwen3dm does not have the columns that its library makes");
	row->nulls[row->n] = isnull;
	row->values[row->n++] = value;
}

static void
add_int(Row *row, bool known, int64 value)
{
	add(row, !known, Int32GetDatum((int32) value));
}

static void
add_bigint(Row *row, bool known, int64 value)
{
	add(row, !known, Int64GetDatum(value));
}

static void
add_float(Row *row, bool known, double value)
{
	add(row, !known, Float8GetDatum(value));
}

/* Empty is unknown. */
static void
add_text(Row *row, const char *value)
{
	bool known = value != NULL && value[0] != '\0';

	add(row, !known, known ? CStringGetTextDatum(value) : (Datum) 0);
}

static Datum
finish_row(Row *row)
{
	if (row->n != row->tupdesc->natts)
		elog(ERROR, "a view of qwen3dm does not have the columns that its library makes");
	return HeapTupleGetDatum(heap_form_tuple(row->tupdesc, row->values, row->nulls));
}

static const char *
file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

char *
qwen3dm_status_text(const Qwen3dmStatus *status, const char *utf8)
{
	char *s = qwen3dm_readable(utf8);
	size_t hidden = file_name(status->model) - status->model;

	if (hidden > 0 && !has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_SETTINGS))
	{
		char *path = qwen3dm_readable(status->model);
		char *at;

		while ((at = strstr(s, path)) != NULL)
			memmove(at, at + hidden, strlen(at + hidden) + 1);
	}
	return s;
}

/* What a user should know of a state that is not "ready". */
static void
add_reason(Row *row, const Qwen3dmStatus *status)
{
	Qwen3dmFailure failure;

	if (status->message[0] != '\0')
	{
		add_text(row, qwen3dm_status_text(status, status->message));
		add_text(row, qwen3dm_status_text(status, status->detail));
		add_text(row, qwen3dm_status_text(status, status->hint));
		return;
	}
	qwen3dm_failure_from_status(&failure, status);
	add_text(row, failure.message);
	add_text(row, failure.detail);
	add_text(row, failure.hint);
}

/* How qwen_embed makes vectors with the service's model; NULL: it uses the other one. */
static const char *
embedding(Qwen3dmService service)
{
	if (service == QWEN3DM_EMBEDDING)
		return "last token";
	return qwen3dm_service_has_model(QWEN3DM_EMBEDDING) ? NULL : "mean of all tokens";
}

static Datum
status_row(TupleDesc tupdesc, Qwen3dmService service)
{
	Qwen3dmStatus s;
	Row row = {.tupdesc = tupdesc};
	bool worker, engine, loaded;

	qwen3dm_status_read(service, &s);
	worker = s.state != QWEN3DM_NOT_LOADED;
	engine = s.engine_pid != 0;
	loaded = s.state == QWEN3DM_READY;

	add_text(&row, qwen3dm_services[service].name);
	add_text(&row, qwen3dm_state_name(s.state));
	add_float(&row, engine, s.progress);
	add_text(&row, qwen3dm_status_text(&s, s.model));
	add_text(&row, qwen3dm_readable(s.name));
	add_text(&row, qwen3dm_readable(s.architecture));
	add_bigint(&row, loaded, s.parameters);
	add_text(&row, qwen3dm_readable(s.weight_type));
	add_text(&row, qwen3dm_readable(s.precision));
	add_text(&row, embedding(service));
	add_int(&row, loaded, s.n_embd);
	add_text(&row, qwen3dm_readable(s.digest));
	add_int(&row, loaded, s.context_length);
	add_text(&row, qwen3dm_readable(s.device));
	add_text(&row, qwen3dm_readable(s.device_reason));
	add_text(&row, qwen3dm_readable(s.isa));
	add_int(&row, loaded, s.threads);
	add_bigint(&row, loaded, s.weight_bytes);
	add_bigint(&row, loaded, s.image_bytes);
	add_text(&row, s.image);
	add_bigint(&row, loaded, s.kv_bytes);
	add_float(&row, loaded && s.kv_blocks > 0,
	          s.kv_blocks > 0 ? 1.0 - (double) s.kv_blocks_free / s.kv_blocks : 0);
	add_int(&row, loaded, s.kv_blocks);
	add_int(&row, loaded, s.kv_blocks_free);
	add_int(&row, loaded, s.prefix_blocks);
	add_int(&row, loaded, s.pinned_blocks);
	add_bigint(&row, loaded, s.scratch_bytes);
	add_float(&row, loaded, s.load_ms);
	add(&row, !engine, TimestampTzGetDatum(s.started_at));
	add_int(&row, engine, s.engine_pid);
	add_bigint(&row, worker, s.restarts);
	add_bigint(&row, worker, s.counters.requests);
	add_bigint(&row, worker, s.counters.errors);
	add_bigint(&row, worker, s.counters.prompt_tokens);
	add_bigint(&row, worker, s.counters.output_tokens);
	add_bigint(&row, worker, s.counters.cached_tokens);
	add_bigint(&row, worker, s.counters.deduplicated);
	add_bigint(&row, worker, s.counters.classified);
	add_bigint(&row, worker, s.counters.steps);
	add_bigint(&row, worker, s.counters.evictions);
	add_int(&row, worker, s.running);
	add_int(&row, worker, s.queued);
	add_reason(&row, &s);
	return finish_row(&row);
}

static FuncCallContext *
start_rows(FunctionCallInfo fcinfo)
{
	FuncCallContext *funcctx = SRF_FIRSTCALL_INIT();
	MemoryContext old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
	TupleDesc tupdesc;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	funcctx->tuple_desc = BlessTupleDesc(tupdesc);
	MemoryContextSwitchTo(old);
	return funcctx;
}

Datum
qwen3dm_model_status(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	Datum row;

	if (SRF_IS_FIRSTCALL())
	{
		funcctx = start_rows(fcinfo);
		/* The embedding service is the last, and of no interest without a model. */
		funcctx->max_calls = qwen3dm_service_has_model(QWEN3DM_EMBEDDING) ? QWEN3DM_N_SERVICES : 1;
	}
	funcctx = SRF_PERCALL_SETUP();
	if (funcctx->call_cntr >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	row = status_row(funcctx->tuple_desc, funcctx->call_cntr);
	SRF_RETURN_NEXT(funcctx, row);
}

/* A live request, and whose it is. */
typedef struct Activity
{
	Qwen3dmService service;
	q3p_activity record;
} Activity;

typedef struct Activities
{
	Activity *rows; /* palloc'd */
	uint64 n;
} Activities;

/* Adds the service's requests that the current user may see. */
static void
add_activities(Activities *a, Qwen3dmService service)
{
	Qwen3dmRequest *r = qwen3dm_ask_activity(service);
	bool all = has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);

	if (r == NULL)
		return;
	qwen3dm_wait(r);
	if (r->failure.sqlstate != 0) /* it went away: nothing is live */
		r->n_activities = 0;
	a->rows = repalloc(a->rows, sizeof(Activity) * (a->n + r->n_activities + 1));
	for (uint32 i = 0; i < r->n_activities; i++)
	{
		Activity *row = &a->rows[a->n];

		row->service = service;
		q3p_activity_get(r->payload, i, &row->record);
		if (all || has_privs_of_role(GetUserId(), row->record.role))
			a->n++;
	}
	qwen3dm_release(r);
}

static Datum
activity_row(TupleDesc tupdesc, const Activity *activity)
{
	const q3p_activity *a = &activity->record;
	Row row = {.tupdesc = tupdesc};

	add_text(&row, qwen3dm_services[activity->service].name);
	add_int(&row, true, a->pid);
	add(&row, false, ObjectIdGetDatum(a->role));
	add(&row, false, ObjectIdGetDatum(a->database));
	add_text(&row, q3p_kind_name(a->kind));
	add_text(&row, q3p_mode_name(a->mode));
	add_text(&row, q3p_phase_name(a->phase));
	add_int(&row, true, a->prompt_tokens);
	add_int(&row, true, a->prompt_done);
	add_int(&row, true, a->output_tokens);
	add_int(&row, true, a->max_tokens);
	add_int(&row, true, a->kv_tokens);
	add_float(&row, true, a->age_ms);
	return finish_row(&row);
}

Datum
qwen3dm_stat_activity(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	Activity *rows;
	Datum row;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		Activities a = {NULL, 0};

		funcctx = start_rows(fcinfo);
		old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		a.rows = palloc(sizeof(Activity));
		for (int service = 0; service < QWEN3DM_N_SERVICES; service++)
			add_activities(&a, service);
		funcctx->user_fctx = a.rows;
		funcctx->max_calls = a.n;
		MemoryContextSwitchTo(old);
	}
	funcctx = SRF_PERCALL_SETUP();
	if (funcctx->call_cntr >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	rows = funcctx->user_fctx;
	row = activity_row(funcctx->tuple_desc, &rows[funcctx->call_cntr]);
	SRF_RETURN_NEXT(funcctx, row);
}
