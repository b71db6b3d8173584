/*
 * explain_mode.c: qwen_explain_mode: which mode auto would take for a text, and all that says so.
 *
 * Makes the decision as a call would (decide.c) and tells it in rows; asks the model nothing but
 * whether it is there.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "extension/classify.h"
#include "extension/connection.h"
#include "extension/decide.h"
#include "extension/module.h"
#include "extension/srf.h"

QWEN3DM_FUNCTION(qwen3dm_explain_mode);

#define MAX_LINES 48
#define NEAREST 3

typedef struct Line
{
	const char *part, *name, *value;
} Line;

typedef struct Lines
{
	int n;
	Line lines[MAX_LINES];
} Lines;

static void
add(Lines *l, const char *part, const char *name, const char *value)
{
	Assert(l->n < MAX_LINES);
	l->lines[l->n++] = (Line){part, name, value};
}

static void
add_float(Lines *l, const char *part, const char *name, double value)
{
	if (!isnan(value))
		add(l, part, name, psprintf("%.4g", value));
}

/* What a call with the task, and nothing else, asks; false: the task has neither labels nor an
 * instruction. */
static bool
ask(Qwen3dmOptions *options, const char *task)
{
	Qwen3dmLabels labels;

	qwen3dm_default_options(options, Q3P_CLASSIFY, task, Q3P_AUTO);
	if (task == NULL)
		return true;
	if (!qwen3dm_task_labels(options, InvalidOid, &labels))
		return qwen3dm_ask_whether(options, NULL, NULL);
	qwen3dm_ask_which(options, &labels, NULL, NULL);
	return true;
}

static void
tell_input(Lines *l, q3p_bytes input, const q3_sketch *sketch)
{
	add(l, "input", "bytes", psprintf(UINT64_FORMAT, (uint64) input.len));
	add(l, "input", "different words", psprintf("%d", sketch->n_terms));
	add_float(l, "input", "rarity of its words", sketch->rarity);
}

static void
tell_nearest(Lines *l, const q3_sketch *sketch)
{
	Qwen3dmMatch nearest[NEAREST];
	int n = qwen3dm_match(sketch, nearest, NEAREST);

	for (int i = 0; i < n; i++)
		add(l, "similar task", pstrdup(nearest[i].task), psprintf("%.3f", nearest[i].similarity));
}

static const char *
when(TimestampTz at)
{
	return at == 0 ? "never" : pstrdup(timestamptz_to_str(at));
}

static void
tell_evidence(Lines *l, const Qwen3dmEvidence *e)
{
	const char *part = "evidence";

	add(l, part, "standing", qwen3dm_standing_name(e->standing));
	add(l, part, "compared with", e->reference_thinks ? "thinking" : "mode precise");
	add(l, part, "learned",
	    psprintf(INT64_FORMAT " rows, %s", e->learned_rows, when(e->learned_at)));
	add_float(l, part, "agreement without escalation", e->agreement);
	if (e->has_threshold)
	{
		add_float(l, part, "threshold of the margin", e->threshold);
		add_float(l, part, "share of rows below it", e->escalated);
		add_float(l, part, "expected agreement", e->expected_agreement);
	}
	add(l, part, "certified",
	    psprintf(INT64_FORMAT " of " INT64_FORMAT " rows agreed, target %.4g, %s",
	             e->certified_agreed, e->certified_rows, e->target, when(e->certified_at)));
	if (e->standing == Q3_STANDING_UNCERTIFIED && e->rows_needed > 0)
		add(l, part, "rows still needed", psprintf(INT64_FORMAT, e->rows_needed));
	add(l, part, "ms a row: efficient, precise, thinking",
	    psprintf("%.3g, %.3g, %.3g", e->efficient_ms, e->precise_ms, e->thinking_ms));
	add_float(l, part, "accuracy of efficient", e->efficient_accuracy);
	add_float(l, part, "accuracy of precise", e->precise_accuracy);
	add_float(l, part, "accuracy of thinking", e->thinking_accuracy);
}

static void
tell_moment(Lines *l, const Qwen3dmSituation *s, const Qwen3dmTask *task)
{
	static const char *const pressures[] = {"none", "lean", "degraded"};

	add(l, "moment", "drift", s->moment.drifted ? "agreement has fallen" : "none");
	add(l, "moment", "latency pressure", pressures[s->moment.pressure]);
	add_float(l, "moment", "latency target, ms", qwen3dm_latency_target_of(task));
	add_float(l, "moment", "agreement target", qwen3dm_agreement_target_of(task));
}

static void
tell_decision(Lines *l, const Qwen3dmSituation *s, const q3_decision *d)
{
	char text[512];

	add(l, "decision", "mode", d->tier == Q3_TIER_EFFICIENT ? "efficient" : "precise");
	add(l, "decision", "thinking", d->tier == Q3_TIER_THINKING ? "yes" : "no");
	if (d->escalate_to != d->tier)
		add(l, "decision", "thin margins go to", q3_tier_name((q3_tier) d->escalate_to));
	if (s->in.suggested)
		add(l, "decision", "suggested by", s->nearest.task);
	q3_decision_describe(&s->in, d, text, sizeof(text));
	add(l, "decision", "reason", pstrdup(text));
}

/* A mode that is given leaves nothing to decide. */
static void
tell_given(Lines *l, const Qwen3dmOptions *options)
{
	add(l, "decision", "mode", q3p_mode_name(options->request.mode));
	add(l, "decision", "reason", options->mode_reason);
}

static Lines *
explain(q3p_bytes input, const char *task)
{
	Lines *l = palloc0(sizeof(Lines));
	Qwen3dmSituation s;
	Qwen3dmOptions options;
	Qwen3dmLiveKey key;
	q3p_request message;
	q3_sketch sketch;
	q3_decision d;
	bool watched = ask(&options, task) && task != NULL;

	qwen3dm_connection_open(QWEN3DM_MAIN);
	qwen3dm_sketch(&sketch, input.data, input.len);
	tell_input(l, input, &sketch);
	tell_nearest(l, &sketch);
	if (options.request.mode != Q3P_AUTO)
	{
		tell_given(l, &options);
		return l;
	}
	message = qwen3dm_request_for(&options, input);
	if (watched)
		qwen3dm_live_key(&options, &key);
	d = qwen3dm_decide_auto(&options, &message, watched ? &key : NULL, &s);
	if (s.evidence != NULL)
		tell_evidence(l, s.evidence);
	if (watched)
		tell_moment(l, &s, options.task);
	tell_decision(l, &s, &d);
	return l;
}

/* The lines of the call; a NULL input has none. */
static void *
explain_arguments(FunctionCallInfo fcinfo, uint64 *n)
{
	q3p_bytes input;
	Lines *l;

	*n = 0;
	if (PG_ARGISNULL(0))
		return NULL;
	input = qwen3dm_utf8_argument(fcinfo, 0);
	l = explain(input, PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	*n = l->n;
	return l->lines;
}

static Datum
line_row(TupleDesc tupdesc, const void *lines, uint64 i)
{
	const Line *line = (const Line *) lines + i;
	Datum values[] = {CStringGetTextDatum(line->part), CStringGetTextDatum(line->name),
	                  CStringGetTextDatum(line->value)};
	bool nulls[lengthof(values)] = {false};

	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}

/* (input, task): rows (part, name, value) */
Datum
qwen3dm_explain_mode(PG_FUNCTION_ARGS)
{
	return qwen3dm_return_rows(fcinfo, explain_arguments, line_row);
}
