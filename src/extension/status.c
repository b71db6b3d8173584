/*
 * status.c: the functions under the views qwen_model_status, qwen_stat_activity and those of usage,
 * and the one under qwen_stat_decisions.
 *
 * Status, accounts and watched tasks come from shared memory and are there in every state of the
 * server, even when the library is not preloaded; the status is a row for the main model, and one
 * for the embedding model if one is set. The live requests are asked of the engines, over the
 * session's own connections; without an engine there are none. No row of another role is shown to
 * those who may not see it, and no text of a request to anybody.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "extension/accounts.h"
#include "extension/client.h"
#include "extension/compat.h"
#include "extension/encoding.h"
#include "extension/live_state.h"
#include "extension/module.h"
#include "extension/srf.h"
#include "extension/status.h"

QWEN3DM_FUNCTION(qwen3dm_model_status);
QWEN3DM_FUNCTION(qwen3dm_stat_activity);
QWEN3DM_FUNCTION(qwen3dm_accounts);
QWEN3DM_FUNCTION(qwen3dm_stat_decisions);

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

Datum
qwen3dm_model_status(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	Datum row;

	if (SRF_IS_FIRSTCALL())
	{
		funcctx = qwen3dm_start_rows(fcinfo);
		/* The embedding service is the last, and of no interest without a model. */
		funcctx->max_calls = qwen3dm_service_has_model(QWEN3DM_EMBEDDING) ? QWEN3DM_N_SERVICES : 1;
	}
	funcctx = SRF_PERCALL_SETUP();
	if (funcctx->call_cntr >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	row = status_row(funcctx->tuple_desc, funcctx->call_cntr);
	SRF_RETURN_NEXT(funcctx, row);
}

/* May the current user see what this role does? */
static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
	       (OidIsValid(role) && has_privs_of_role(GetUserId(), role));
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
		if (may_see(row->record.role))
			a->n++;
	}
	qwen3dm_release(r);
}

static Datum
activity_row(TupleDesc tupdesc, const void *activities, uint64 i)
{
	const Activity *activity = (const Activity *) activities + i;
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
	add_bigint(&row, a->query_id != 0, (int64) a->query_id);
	add_text(&row, qwen3dm_readable(a->task));
	return finish_row(&row);
}

/* Those of all services; *n of them, palloc'd. */
static void *
visible_activities(FunctionCallInfo fcinfo, uint64 *n)
{
	Activities a = {palloc(sizeof(Activity)), 0};

	for (int service = 0; service < QWEN3DM_N_SERVICES; service++)
		add_activities(&a, service);
	*n = a.n;
	return a.rows;
}

/* The accounts that the current user may see; *n of them, palloc'd. */
static void *
visible_accounts(FunctionCallInfo fcinfo, uint64 *n)
{
	int all;
	Qwen3dmAccount *rows = qwen3dm_accounts_copy(&all);

	*n = 0;
	for (int i = 0; i < all; i++)
	{
		if (may_see(rows[i].payer.role))
			rows[(*n)++] = rows[i];
	}
	return rows;
}

static Datum
account_row(TupleDesc tupdesc, const void *accounts, uint64 i)
{
	const Qwen3dmAccount *a = (const Qwen3dmAccount *) accounts + i;
	const Qwen3dmUsage *u = &a->usage;
	bool known = OidIsValid(a->payer.role);
	Row row = {.tupdesc = tupdesc};

	add(&row, !known, ObjectIdGetDatum(a->payer.role));
	add(&row, !known, ObjectIdGetDatum(a->payer.database));
	add_text(&row, qwen3dm_readable(a->payer.task));
	add_text(&row, a->payer.mode != Q3P_AUTO ? q3p_mode_name(a->payer.mode) : NULL);
	add_text(&row, known ? q3p_kind_name(a->payer.kind) : NULL);
	add_bigint(&row, true, u->requests);
	add_bigint(&row, true, u->errors);
	add_bigint(&row, true, u->canceled);
	add_bigint(&row, true, u->deduplicated);
	add_bigint(&row, true, u->prompt_tokens);
	add_bigint(&row, true, u->cached_tokens);
	add_bigint(&row, true, u->output_tokens);
	add_float(&row, true, u->latency_ms);
	add_float(&row, true, u->max_latency_ms);
	add(&row, false, TimestampTzGetDatum(u->last));
	return finish_row(&row);
}

/* The watched tasks, for those who may see what all roles do; *n of them, palloc'd. */
static void *
visible_decisions(FunctionCallInfo fcinfo, uint64 *n)
{
	Qwen3dmLiveState *rows;
	int all;

	*n = 0;
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return NULL;
	rows = qwen3dm_live_copy(&all);
	*n = all;
	return rows;
}

static const char *
watch_state(const Qwen3dmLiveState *s)
{
	if (s->watch.certified_at == 0 || s->withdrawn)
		return "not certified";
	return s->watch.drifted_at != 0 ? "drifted" : "steady";
}

static const char *
watch_warning(const Qwen3dmWatch *w)
{
	if (w->margin.warned && w->off_label.warned)
		return "margins have fallen, and off-label probability has risen";
	if (w->margin.warned)
		return "margins have fallen";
	return w->off_label.warned ? "off-label probability has risen" : NULL;
}

static void
add_quantile(Row *row, const Qwen3dmRecent *recent, double q)
{
	double value = qwen3dm_recent_quantile(recent, q);

	add_float(row, !isnan(value), value);
}

static void
add_time(Row *row, TimestampTz time)
{
	add(row, time == 0, TimestampTzGetDatum(time));
}

static Datum
decision_row(TupleDesc tupdesc, const void *decisions, uint64 i)
{
	const Qwen3dmLiveState *s = (const Qwen3dmLiveState *) decisions + i;
	const Qwen3dmWatch *w = &s->watch;
	Row row = {.tupdesc = tupdesc};

	add(&row, false, ObjectIdGetDatum(s->key.database));
	add_text(&row, qwen3dm_readable(s->key.task));
	add_bigint(&row, true, (int64) s->key.question);
	add_text(&row, watch_state(s));
	add_bigint(&row, true, s->rows.efficient);
	add_bigint(&row, true, s->rows.precise);
	add_bigint(&row, true, s->rows.thinking);
	add_bigint(&row, true, s->rows.escalated);
	add_bigint(&row, true, s->rows.alarms);
	add_quantile(&row, &s->all, 0.5);
	add_quantile(&row, &s->all, 0.95);
	add_float(&row, s->latency.target_ms > 0, s->latency.target_ms);
	add_text(&row, qwen3dm_pressure_name(s->latency.pressure));
	add_bigint(&row, true, s->rows.switches);
	add_time(&row, s->last_switch);
	add_bigint(&row, true, w->shadow_rows);
	add_bigint(&row, true, w->shadow_agreed);
	add_float(&row, w->certified_at != 0 && !s->withdrawn, q3_drift_level(&w->drift));
	add_bigint(&row, true, w->demotions);
	add_time(&row, w->drifted_at);
	add_text(&row, watch_warning(w));
	return finish_row(&row);
}

Datum
qwen3dm_stat_activity(PG_FUNCTION_ARGS)
{
	return qwen3dm_return_rows(fcinfo, visible_activities, activity_row);
}

Datum
qwen3dm_accounts(PG_FUNCTION_ARGS)
{
	return qwen3dm_return_rows(fcinfo, visible_accounts, account_row);
}

Datum
qwen3dm_stat_decisions(PG_FUNCTION_ARGS)
{
	return qwen3dm_return_rows(fcinfo, visible_decisions, decision_row);
}
