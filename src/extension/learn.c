/*
 * learn.c: qwen_task_learn and qwen_task_certify, which make a task's row of task_evidence.
 *
 * Learning answers rows in every tier and keeps what that tells: costs, agreement by margin, the
 * threshold below which rows are escalated, whether thinking helps. Certifying draws rows anew, at
 * random and without replacement, and bets on agreement until the target is proven or refuted
 * (policy/martingale.h). The threshold is fixed before anything is drawn here, so what is drawn is
 * a fair sample of what it does to the query's rows, among which those that were learned from may
 * be. Both run as the current user, in one transaction; a canceled
 * run leaves nothing but the outcomes that make its repetition quick, and a repetition draws the
 * same rows, so that trying again is no second chance.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "extension/match.h"
#include "extension/rehearse.h"
#include "policy/calibration.h"
#include "policy/martingale.h"

QWEN3DM_FUNCTION(qwen3dm_task_learn);
QWEN3DM_FUNCTION(qwen3dm_task_certify);

#define MAX_ROWS 1000000
/* Rows of a tier that tell what it costs. */
#define ENOUGH_TO_TIME 150
/* Of a threshold: that it will do, by the learned rows. The certificate is what proves it. */
#define CONFIDENCE 0.9
/* A certificate is made for that many rows at least. */
#define USUAL_ROWS 10000
/* This part of the learned rows had less probability outside the labels than what is usual. */
#define USUAL_OFF_LABEL 0.995

/* ---------------------------------------------------------------------------------------------
 * The row of task_evidence
 * --------------------------------------------------------------------------------------------- */

#define MAX_COLUMNS 32

typedef struct Columns
{
	int n;
	const char *names[MAX_COLUMNS];
	Oid types[MAX_COLUMNS];
	Datum values[MAX_COLUMNS];
	char nulls[MAX_COLUMNS + 1]; /* as SPI wants it */
} Columns;

static void
add(Columns *c, const char *name, Oid type, Datum value, bool isnull)
{
	if (c->n >= MAX_COLUMNS)
		elog(ERROR, "too many columns of evidence");
	c->names[c->n] = name;
	c->types[c->n] = type;
	c->values[c->n] = value;
	c->nulls[c->n++] = isnull ? 'n' : ' ';
}

static void
add_float(Columns *c, const char *name, double value)
{
	add(c, name, FLOAT8OID, Float8GetDatum(value), isnan(value));
}

static void
add_int(Columns *c, const char *name, int64 value)
{
	add(c, name, INT8OID, Int64GetDatum(value), false);
}

static void
add_text(Columns *c, const char *name, const char *value)
{
	add(c, name, TEXTOID, CStringGetTextDatum(value), false);
}

/* The first three columns, by which the row is found. */
static void
begin_columns(Columns *c, const Qwen3dmRehearsal *r)
{
	memset(c, 0, sizeof(*c));
	add_text(c, "task", r->options.task->name);
	add_text(c, "model_digest", r->digest);
	add_int(c, "question", (int64) r->question);
}

static void
store(const Columns *c)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "INSERT INTO " QWEN3DM_SCHEMA ".task_evidence (");
	for (int i = 0; i < c->n; i++)
		appendStringInfo(&s, "%s%s", i > 0 ? ", " : "", c->names[i]);
	appendStringInfoString(&s, ") VALUES (");
	for (int i = 0; i < c->n; i++)
		appendStringInfo(&s, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoString(&s, ") ON CONFLICT (task, model_digest, question) DO UPDATE SET ");
	for (int i = 3; i < c->n; i++)
		appendStringInfo(&s, "%s%s = excluded.%s", i > 3 ? ", " : "", c->names[i], c->names[i]);
	SPI_connect();
	if (SPI_execute_with_args(s.data, c->n, (Oid *) c->types, (Datum *) c->values, c->nulls, false,
	                          0) < 0)
		elog(ERROR, "could not store what was learned");
	SPI_finish();
}

static const Qwen3dmEvidence *
known(const Qwen3dmRehearsal *r)
{
	bool other;

	return qwen3dm_evidence(r->options.task, r->digest, r->question, &other);
}

/* Attempts share the probability of error: each has four fifths of what is left. */
static double
delta_of(int32 attempts)
{
	double delta = qwen3dm_policy_default(QWEN3DM_DELTA);

	return Max(1e-9, Min(delta, 0.5)) * 0.8 * pow(0.2, attempts);
}

/* The same rows are drawn again until an attempt has come to its end. */
static uint64
seed_of(const Qwen3dmRehearsal *r, int32 attempts, uint64 what)
{
	uint64 h =
	    hash_bytes_extended((const unsigned char *) r->digest, (int) strlen(r->digest), what);

	return hash_combine64(hash_combine64(h, r->question), (uint64) attempts);
}

/* ---------------------------------------------------------------------------------------------
 * Arguments and results
 * --------------------------------------------------------------------------------------------- */

typedef struct Arguments
{
	char *task, *query;
	int max_rows;
} Arguments;

static void
read_arguments(FunctionCallInfo fcinfo, Arguments *a)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("neither task nor query may be null")));
	a->task = text_to_cstring(PG_GETARG_TEXT_PP(0));
	a->query = text_to_cstring(PG_GETARG_TEXT_PP(1));
	a->max_rows = PG_ARGISNULL(2) ? MAX_ROWS : PG_GETARG_INT32(2);
	if (a->max_rows < 1 || a->max_rows > MAX_ROWS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("max_rows must be from 1 to %d", MAX_ROWS)));
}

static void
check_rows(const Qwen3dmRehearsal *r)
{
	if (r->n == 0)
		ereport(ERROR, (errcode(ERRCODE_NO_DATA_FOUND),
		                errmsg("the query returned no rows with an input")));
}

/* What the functions return, from left to right. */
typedef struct Told
{
	TupleDesc tupdesc;
	int n;
	Datum values[16];
	bool nulls[16];
} Told;

static void
begin_result(FunctionCallInfo fcinfo, Told *result)
{
	memset(result, 0, sizeof(*result));
	if (get_call_result_type(fcinfo, NULL, &result->tupdesc) != TYPEFUNC_COMPOSITE ||
	    result->tupdesc->natts > lengthof(result->values))
		elog(ERROR, "a function that learns does not return what its library makes");
}

static void
tell(Told *result, Datum value, bool isnull)
{
	result->nulls[result->n] = isnull;
	result->values[result->n++] = value;
}

static void
tell_float(Told *result, double value)
{
	tell(result, Float8GetDatum(value), isnan(value));
}

static void
tell_int(Told *result, int64 value)
{
	tell(result, Int64GetDatum(value), false);
}

static void
tell_text(Told *result, const char *value)
{
	tell(result, value != NULL ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

static Datum
finish_result(const Told *result)
{
	Assert(result->n == result->tupdesc->natts);
	return HeapTupleGetDatum(
	    heap_form_tuple(result->tupdesc, (Datum *) result->values, (bool *) result->nulls));
}

/* ---------------------------------------------------------------------------------------------
 * Learning
 * --------------------------------------------------------------------------------------------- */

typedef struct Lesson
{
	Qwen3dmRehearsal rehearsal;
	const Qwen3dmEvidence *before; /* what was known; NULL: nothing */
	double target;
	int n_tiers;                               /* that were asked */
	Qwen3dmOutcome *outcomes[QWEN3DM_N_TIERS]; /* of each row */
	int64 rows;                                /* answered in every tier */
	int64 labelled, right[QWEN3DM_N_TIERS];    /* of these, with a true label */
	q3_thinking_record record;
	q3_tier reference;
	q3_calibration calibration;
	q3_threshold threshold;
	double ms[QWEN3DM_N_TIERS];
	double off_label_limit; /* NaN: unknown */
} Lesson;

static bool
is_answered(const Lesson *l, int row)
{
	for (int tier = 0; tier < l->n_tiers; tier++)
	{
		if (l->outcomes[tier][row].label < 0)
			return false;
	}
	return true;
}

static bool
tells_truth(const Qwen3dmRehearsal *r)
{
	for (int i = 0; i < r->n; i++)
	{
		if (r->truth[i] >= 0)
			return true;
	}
	return false;
}

/* Whether it is clear that efficient is no cheaper, so that no margin could make it pay; not where
 * the rows are to tell accuracies, too. */
static bool
is_hopeless(const Lesson *l)
{
	const Qwen3dmRehearsal *r = &l->rehearsal;

	return r->timed[Q3_TIER_EFFICIENT] >= ENOUGH_TO_TIME &&
	       r->timed[Q3_TIER_PRECISE] >= ENOUGH_TO_TIME &&
	       qwen3dm_rehearsed_ms(r, Q3_TIER_EFFICIENT) >=
	           Q3_COSTS_TOO_MUCH * qwen3dm_rehearsed_ms(r, Q3_TIER_PRECISE) &&
	       !tells_truth(r);
}

/* In turn, so that what else the machine does meets all tiers. */
static void
ask_all(Lesson *l)
{
	Qwen3dmRehearsal *r = &l->rehearsal;

	for (int tier = 0; tier < l->n_tiers; tier++)
		l->outcomes[tier] = palloc0(sizeof(Qwen3dmOutcome) * r->n);
	for (int first = 0; first < r->n; first += QWEN3DM_REHEARSED_TOGETHER)
	{
		int n = Min(QWEN3DM_REHEARSED_TOGETHER, r->n - first);

		for (int tier = 0; tier < l->n_tiers; tier++)
			qwen3dm_rehearse_ask(r, first, n, NULL, (q3_tier) tier, &l->outcomes[tier][first]);
		qwen3dm_progress("answering", first + n, r->n);
		if (is_hopeless(l))
			r->n = first + n;
	}
}

/* Which tiers are right, where that is known. */
static void
compare_with_truth(Lesson *l)
{
	for (int i = 0; i < l->rehearsal.n; i++)
	{
		int32 truth = l->rehearsal.truth[i];
		bool right[QWEN3DM_N_TIERS] = {false};

		if (!is_answered(l, i))
			continue;
		l->rows++;
		if (truth < 0)
			continue;
		l->labelled++;
		for (int tier = 0; tier < l->n_tiers; tier++)
		{
			right[tier] = l->outcomes[tier][i].label == truth;
			l->right[tier] += right[tier];
		}
		if (l->n_tiers > Q3_TIER_THINKING)
		{
			l->record.rows++;
			l->record.gained += right[Q3_TIER_THINKING] && !right[Q3_TIER_PRECISE];
			l->record.lost += right[Q3_TIER_PRECISE] && !right[Q3_TIER_THINKING];
		}
	}
	l->reference = q3_thinking_helps(&l->record) ? Q3_TIER_THINKING : Q3_TIER_PRECISE;
}

/* What a row costs in each tier; what this run has not measured, an earlier one may have. */
static void
weigh(Lesson *l)
{
	const double before[QWEN3DM_N_TIERS] = {l->before ? l->before->efficient_ms : 0,
	                                        l->before ? l->before->precise_ms : 0,
	                                        l->before ? l->before->thinking_ms : 0};

	for (int tier = 0; tier < QWEN3DM_N_TIERS; tier++)
	{
		l->ms[tier] = qwen3dm_rehearsed_ms(&l->rehearsal, (q3_tier) tier);
		if (!(l->ms[tier] > 0))
			l->ms[tier] = before[tier];
	}
}

static void
choose_threshold(Lesson *l)
{
	q3_calibration_bin *bins = palloc(sizeof(q3_calibration_bin) * l->rehearsal.n);
	size_t n = 0;
	q3_threshold_wish wish = {.target = l->target,
	                          .confidence = CONFIDENCE,
	                          .efficient_cost = l->ms[Q3_TIER_EFFICIENT],
	                          .precise_cost = l->ms[l->reference],
	                          .delta = delta_of(0),
	                          .planned_rows = Max(l->rehearsal.population, USUAL_ROWS)};

	for (int i = 0; i < l->rehearsal.n; i++)
	{
		if (is_answered(l, i))
			bins[n++] = (q3_calibration_bin){.margin = l->outcomes[Q3_TIER_EFFICIENT][i].margin,
			                                 .rows = 1,
			                                 .agreed = l->outcomes[Q3_TIER_EFFICIENT][i].label ==
			                                           l->outcomes[l->reference][i].label};
	}
	/* Of too few rows nothing was timed: then an efficient row is taken for half a precise one. */
	if (!(wish.efficient_cost > 0) || !(wish.precise_cost > 0))
	{
		wish.efficient_cost = 1;
		wish.precise_cost = 2;
	}
	q3_calibration_fit(&l->calibration, bins, n);
	l->threshold = q3_calibration_choose(&l->calibration, &wish);
	pfree(bins);
}

static int
compare_floats(const void *a, const void *b)
{
	float x = *(const float *) a, y = *(const float *) b;

	return (x > y) - (x < y);
}

/* Half way from what is usual to certainty. */
static void
limit_off_label(Lesson *l)
{
	float *seen = palloc(sizeof(float) * l->rehearsal.n);
	int n = 0;
	double usual;

	l->off_label_limit = NAN;
	for (int i = 0; i < l->rehearsal.n; i++)
	{
		if (is_answered(l, i) && !isnan(l->outcomes[Q3_TIER_EFFICIENT][i].off_label))
			seen[n++] = l->outcomes[Q3_TIER_EFFICIENT][i].off_label;
	}
	if (n > 0)
	{
		qsort(seen, n, sizeof(float), compare_floats);
		usual = seen[Min(n - 1, (int) (USUAL_OFF_LABEL * n))];
		l->off_label_limit = usual + (1 - usual) / 2;
	}
	pfree(seen);
}

static Datum
calibration_json(const q3_calibration *c)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '[');
	for (int i = 0; i < c->n_bins; i++)
		appendStringInfo(
		    &s, "%s{\"margin\": %.6g, \"rows\": " INT64_FORMAT ", \"agreed\": " INT64_FORMAT "}",
		    i > 0 ? ", " : "", c->bins[i].margin, (int64) c->bins[i].rows,
		    (int64) c->bins[i].agreed);
	appendStringInfoChar(&s, ']');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(s.data));
}

static double
share(int64 part, int64 all)
{
	return all > 0 ? (double) part / (double) all : NAN;
}

static double
measured(double ms)
{
	return ms > 0 ? ms : NAN;
}

static const char *
reference_name(q3_tier reference)
{
	return reference == Q3_TIER_THINKING ? "thinking" : "precise";
}

/* What it is worth, with nothing proven yet. */
static void
store_lesson(const Lesson *l)
{
	bool thought = l->n_tiers > Q3_TIER_THINKING;
	Columns c;

	begin_columns(&c, &l->rehearsal);
	add_text(&c, "standing", qwen3dm_standing_name(Q3_STANDING_UNCERTIFIED));
	add_text(&c, "reference", reference_name(l->reference));
	add_float(&c, "target", l->target);
	add_int(&c, "learned_rows", l->rows);
	add_float(&c, "agreement", share(l->calibration.agreed, l->calibration.rows));
	add_float(&c, "threshold", l->threshold.found ? l->threshold.threshold : NAN);
	add_float(&c, "expected_agreement", l->threshold.found ? l->threshold.agreement : NAN);
	add_float(&c, "escalated", l->threshold.found ? l->threshold.escalated : NAN);
	add_float(&c, "off_label_limit", l->off_label_limit);
	add(&c, "calibration", JSONBOID, calibration_json(&l->calibration), false);
	add_float(&c, "efficient_ms", measured(l->ms[Q3_TIER_EFFICIENT]));
	add_float(&c, "precise_ms", measured(l->ms[Q3_TIER_PRECISE]));
	add_float(&c, "thinking_ms", measured(l->ms[Q3_TIER_THINKING]));
	add_int(&c, "labelled_rows", l->labelled);
	add_float(&c, "efficient_accuracy", share(l->right[Q3_TIER_EFFICIENT], l->labelled));
	add_float(&c, "precise_accuracy", share(l->right[Q3_TIER_PRECISE], l->labelled));
	add_float(&c, "thinking_accuracy",
	          thought ? share(l->right[Q3_TIER_THINKING], l->labelled) : NAN);
	add_int(&c, "thinking_gained", l->record.gained);
	add_int(&c, "thinking_lost", l->record.lost);
	add(&c, "learned_at", TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()), false);
	add(&c, "certified_at", TIMESTAMPTZOID, (Datum) 0, true);
	add_int(&c, "rows_needed", l->threshold.found ? (int64) ceil(l->threshold.certificate) : -1);
	store(&c);
}

/* Of efficient runs and escalations, the reference being 1; as the decision sees it. */
static double
cost_of(const Lesson *l)
{
	double reference = l->ms[l->reference];

	return reference > 0 && l->ms[Q3_TIER_EFFICIENT] > 0
	           ? l->ms[Q3_TIER_EFFICIENT] / reference + l->threshold.escalated
	           : NAN;
}

static char *
lesson_message(const Lesson *l)
{
	const q3_threshold *t = &l->threshold;
	double cost = cost_of(l);

	if (!t->found)
		return psprintf("no margin makes an agreement of %.4g likely by " INT64_FORMAT
		                " rows: mode auto stays precise; more rows may show otherwise",
		                l->target, l->rows);
	if (cost >= Q3_COSTS_TOO_MUCH)
		return psprintf("answering in mode efficient and escalating %.1f %% of the rows would cost "
		                "%.2f of %s: mode auto stays precise",
		                100 * t->escalated, cost,
		                l->reference == Q3_TIER_THINKING ? "thinking" : "mode precise");
	return psprintf("uncertified: about %.0f rows more would prove it (qwen_task_certify)",
	                ceil(t->certificate));
}

static Datum
lesson_result(FunctionCallInfo fcinfo, const Lesson *l)
{
	const q3_threshold *t = &l->threshold;
	Told result;

	begin_result(fcinfo, &result);
	tell_text(&result, qwen3dm_standing_name(Q3_STANDING_UNCERTIFIED));
	tell_int(&result, l->rows);
	tell_float(&result, share(l->calibration.agreed, l->calibration.rows));
	tell_float(&result, t->found ? t->threshold : NAN);
	tell_float(&result, t->found ? t->escalated : NAN);
	tell_float(&result, t->found ? t->agreement : NAN);
	tell_float(&result, t->found ? 1 / cost_of(l) : NAN);
	tell_text(&result, reference_name(l->reference));
	tell_text(&result, lesson_message(l));
	return finish_result(&result);
}

/* Without a true label nothing could tell whether thinking helps. */
static bool
is_thinking_worth_a_try(const Qwen3dmRehearsal *r)
{
	NullableDatum thinking = r->options.task->thinking;

	return !thinking.isnull && DatumGetBool(thinking.value) && tells_truth(r);
}

Datum
qwen3dm_task_learn(PG_FUNCTION_ARGS)
{
	Lesson *l = palloc0(sizeof(Lesson));
	Qwen3dmRehearsal *r = &l->rehearsal;
	Arguments a;
	Datum result;

	read_arguments(fcinfo, &a);
	qwen3dm_progress_begin(a.task, "qwen_task_learn");
	qwen3dm_rehearse_begin(r, a.task);
	l->before = known(r);
	l->target = qwen3dm_agreement_target_of(r->options.task);
	qwen3dm_rehearse_draw(r, a.query, a.max_rows, seed_of(r, 0, 1));
	check_rows(r);
	l->n_tiers = is_thinking_worth_a_try(r) ? QWEN3DM_N_TIERS : Q3_TIER_PRECISE + 1;
	ask_all(l);
	compare_with_truth(l);
	weigh(l);
	choose_threshold(l);
	limit_off_label(l);
	qwen3dm_progress("storing", r->n, r->n);
	qwen3dm_features_learn(a.task, r->rows, r->n);
	store_lesson(l);
	result = lesson_result(fcinfo, l);
	qwen3dm_progress_end();
	PG_RETURN_DATUM(result);
}

/* ---------------------------------------------------------------------------------------------
 * Certifying
 * --------------------------------------------------------------------------------------------- */

typedef struct Trial
{
	Qwen3dmRehearsal rehearsal;
	const Qwen3dmEvidence *evidence;
	double target;
	double delta; /* of this attempt */
	int64 escalated;
	q3_martingale bet;
} Trial;

static const Qwen3dmEvidence *
learned(const Qwen3dmRehearsal *r)
{
	const Qwen3dmEvidence *e = known(r);

	if (e == NULL || e->learned_rows == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("task \"%s\" has not been learned", r->options.task->name),
		                errdetail("Nothing is known of its question as it is now, for this model."),
		                errhint("Use qwen_task_learn first.")));
	if (!e->has_threshold)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("task \"%s\" has no threshold to certify", r->options.task->name),
		                errdetail("No margin made the target likely by the " INT64_FORMAT
		                          " rows that were learned.",
		                          e->learned_rows),
		                errhint("Learn more rows, or lower the task's agreement_target.")));
	return e;
}

static bool
is_kept(const Trial *t, const Qwen3dmOutcome *o)
{
	return o->margin >= t->evidence->threshold &&
	       !(t->evidence->off_label_limit > 0 && o->off_label > t->evidence->off_label_limit);
}

/* A block of rows; what is escalated agrees, and costs no second answer. */
static void
try_block(Trial *t, int first, int n)
{
	Qwen3dmOutcome efficient[QWEN3DM_REHEARSED_TOGETHER], reference[QWEN3DM_REHEARSED_TOGETHER];
	bool kept[QWEN3DM_REHEARSED_TOGETHER];
	q3_tier tier = t->evidence->reference_thinks ? Q3_TIER_THINKING : Q3_TIER_PRECISE;

	qwen3dm_rehearse_ask(&t->rehearsal, first, n, NULL, Q3_TIER_EFFICIENT, efficient);
	for (int i = 0; i < n; i++)
		kept[i] = efficient[i].label >= 0 && is_kept(t, &efficient[i]);
	qwen3dm_rehearse_ask(&t->rehearsal, first, n, kept, tier, reference);
	for (int i = 0; i < n && t->bet.verdict == Q3_UNCERTIFIED; i++)
	{
		/* What no mode answers is an error in each. */
		bool agreed =
		    !kept[i] || reference[i].label < 0 || efficient[i].label == reference[i].label;

		t->escalated += !kept[i];
		q3_martingale_observe(&t->bet, agreed);
	}
}

/* Agreement that kept rows must have for all rows to reach the target. */
static double
shadow_reference(const Trial *t)
{
	double escalated = share(t->escalated, t->bet.rows);

	return Max(0.5, Min(0.9999, (t->target - escalated) / Max(1 - escalated, 1e-9)));
}

static int32
standing_after(const Trial *t)
{
	switch (t->bet.verdict)
	{
		case Q3_CERTIFIED:
			return Q3_STANDING_CERTIFIED;
		case Q3_REFUTED:
			return Q3_STANDING_REFUTED;
		default:
			return Q3_STANDING_UNCERTIFIED;
	}
}

static void
store_trial(const Trial *t)
{
	bool certified = t->bet.verdict == Q3_CERTIFIED;
	Columns c;

	begin_columns(&c, &t->rehearsal);
	add_text(&c, "standing", qwen3dm_standing_name(standing_after(t)));
	add_float(&c, "target", t->target);
	add_float(&c, "delta", t->delta);
	add(&c, "attempts", INT4OID, Int32GetDatum(t->evidence->attempts + 1), false);
	add_int(&c, "population", t->rehearsal.population);
	add_int(&c, "certified_rows", t->bet.rows);
	add_int(&c, "certified_agreed", t->bet.agreed);
	add_float(&c, "log_wealth", t->bet.log_wealth);
	add_float(&c, "log_against", t->bet.log_against);
	add_int(&c, "rows_needed", q3_martingale_rows_needed(&t->bet));
	add_float(&c, "shadow_reference", shadow_reference(t));
	add(&c, "certified_at", TIMESTAMPTZOID, TimestampTzGetDatum(GetCurrentTimestamp()), !certified);
	store(&c);
}

static char *
trial_message(const Trial *t)
{
	int64 needed = q3_martingale_rows_needed(&t->bet);

	switch (t->bet.verdict)
	{
		case Q3_CERTIFIED:
			return psprintf("answers agree with %s in at least %.4g of the query's rows, but for "
			                "a probability of %.3g",
			                t->evidence->reference_thinks ? "thinking" : "mode precise", t->target,
			                t->delta);
		case Q3_REFUTED:
			return psprintf("answers agree in less than %.4g of the query's rows: mode auto stays "
			                "precise until the task is learned again",
			                t->target);
		default:
			if (needed < 0)
				return pstrdup("uncertified: rows agree too rarely for more of them to help");
			return psprintf("uncertified: about " INT64_FORMAT " rows more are needed", needed);
	}
}

static Datum
trial_result(FunctionCallInfo fcinfo, const Trial *t)
{
	Told result;

	begin_result(fcinfo, &result);
	tell_text(&result, qwen3dm_standing_name(standing_after(t)));
	tell_int(&result, t->bet.rows);
	tell_int(&result, t->bet.agreed);
	tell_int(&result, t->rehearsal.population);
	tell_float(&result, t->target);
	tell_float(&result, t->delta);
	tell_int(&result, q3_martingale_rows_needed(&t->bet));
	tell_text(&result, trial_message(t));
	return finish_result(&result);
}

Datum
qwen3dm_task_certify(PG_FUNCTION_ARGS)
{
	Trial *t = palloc0(sizeof(Trial));
	Qwen3dmRehearsal *r = &t->rehearsal;
	Arguments a;
	Datum result;

	read_arguments(fcinfo, &a);
	qwen3dm_progress_begin(a.task, "qwen_task_certify");
	qwen3dm_rehearse_begin(r, a.task);
	t->evidence = learned(r);
	t->target = qwen3dm_agreement_target_of(r->options.task);
	t->delta = delta_of(t->evidence->attempts);
	qwen3dm_rehearse_draw(r, a.query, a.max_rows, seed_of(r, t->evidence->attempts, 2));
	check_rows(r);
	q3_martingale_begin(&t->bet, r->population, t->target, t->delta,
	                    t->evidence->expected_agreement);
	for (int first = 0; first < r->n && t->bet.verdict == Q3_UNCERTIFIED;
	     first += QWEN3DM_REHEARSED_TOGETHER)
	{
		try_block(t, first, Min(QWEN3DM_REHEARSED_TOGETHER, r->n - first));
		qwen3dm_progress("betting", t->bet.rows,
		                 t->bet.rows + Max(0, q3_martingale_rows_needed(&t->bet)));
	}
	store_trial(t);
	result = trial_result(fcinfo, t);
	qwen3dm_progress_end();
	PG_RETURN_DATUM(result);
}
