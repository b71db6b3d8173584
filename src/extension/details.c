/*
 * details.c: answers with what is known about how they were made: qwen_infer_details and
 * qwen_classify_details.
 *
 * One request a call. A row that fails becomes a row of NULLs with the error's text, where the
 * caller wants that.
 */
#include "postgres.h"

#include <math.h>

#include "funcapi.h"
#include "utils/builtins.h"

#include "extension/call.h"
#include "extension/classify.h"
#include "extension/client.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/options.h"

/* Columns of qwen_infer_details, in order. */
enum
{
	INFER_VALUE,
	INFER_THINKING,
	INFER_MODE,
	INFER_REASON,
	INFER_CONFIDENCE,
	INFER_PROMPT_TOKENS,
	INFER_CACHED_TOKENS,
	INFER_OUTPUT_TOKENS,
	INFER_QUEUE_MS,
	INFER_LATENCY_MS,
	INFER_FINISH,
	INFER_ERROR,
	INFER_MODEL_DIGEST,
	N_INFER
};

/* Those of qwen_classify_details. */
enum
{
	CLASSIFY_VALUE,
	CLASSIFY_PROBABILITY,
	CLASSIFY_MARGIN,
	CLASSIFY_OFF_LABEL,
	CLASSIFY_ALARM,
	CLASSIFY_THINKING,
	CLASSIFY_MODE,
	CLASSIFY_REASON,
	CLASSIFY_ESCALATED,
	CLASSIFY_PROMPT_TOKENS,
	CLASSIFY_CACHED_TOKENS,
	CLASSIFY_OUTPUT_TOKENS,
	CLASSIFY_QUEUE_MS,
	CLASSIFY_LATENCY_MS,
	CLASSIFY_ERROR,
	CLASSIFY_MODEL_DIGEST,
	N_CLASSIFY
};

#define MAX_COLUMNS Max((int) N_INFER, (int) N_CLASSIFY)

QWEN3DM_FUNCTION(qwen3dm_infer_details);
QWEN3DM_FUNCTION(qwen3dm_classify_details);
QWEN3DM_FUNCTION(qwen3dm_classify_details_jsonb);
QWEN3DM_FUNCTION(qwen3dm_classify_details_text);

/* The row that is being made. */
typedef struct Row
{
	Datum values[MAX_COLUMNS];
	bool nulls[MAX_COLUMNS];
} Row;

/* Fills the row for a finished request; false with *failure when its answer is none. */
typedef bool (*FillRow)(const Qwen3dmOptions *options, const Qwen3dmRequest *request, Row *row,
                        Qwen3dmFailure *failure);

static void
set_text(Row *row, int column, const text *value)
{
	row->nulls[column] = value == NULL;
	row->values[column] = PointerGetDatum(value);
}

/* Text of our own or of the engine's; NULL for none. */
static void
set_bytes(Row *row, int column, q3p_bytes bytes)
{
	set_text(row, column,
	         bytes.data != NULL ? cstring_to_text(qwen3dm_readable_bytes(bytes)) : NULL);
}

static void
set_float(Row *row, int column, double value)
{
	row->nulls[column] = isnan(value);
	row->values[column] = Float8GetDatum(value);
}

static void
set_int(Row *row, int column, int32 value)
{
	row->nulls[column] = false;
	row->values[column] = Int32GetDatum(value);
}

/* Text that the model wrote; false with *failure when it cannot be represented. */
static bool
set_written(Row *row, int column, q3p_bytes utf8, Qwen3dmFailure *failure)
{
	text *value = utf8.data != NULL ? qwen3dm_from_utf8(utf8, failure) : NULL;

	set_text(row, column, value);
	return value != NULL || utf8.data == NULL;
}

static void
set_mode(Row *row, int mode, int reason, const Qwen3dmRequest *request)
{
	const q3p_result *result = &request->result;

	set_text(row, mode, cstring_to_text(q3p_mode_name(result->mode)));
	/* The engine knows why it escalates, and not why it was given a mode. */
	if (request->decision.reason != NULL && !result->escalated)
		set_text(row, reason, cstring_to_text(request->decision.reason));
	else
		set_bytes(row, reason, result->reason);
}

/* All columns but value are set, too, when the answer is cut short under a schema. */
static bool
fill_infer(const Qwen3dmOptions *options, const Qwen3dmRequest *request, Row *row,
           Qwen3dmFailure *failure)
{
	const q3p_result *result = &request->result;
	bool whole = qwen3dm_is_whole(options, result, failure);

	if ((whole && !set_written(row, INFER_VALUE, result->value, failure)) ||
	    !set_written(row, INFER_THINKING, result->thinking, failure))
		return false;
	set_mode(row, INFER_MODE, INFER_REASON, request);
	set_float(row, INFER_CONFIDENCE, result->confidence);
	set_int(row, INFER_PROMPT_TOKENS, result->prompt_tokens);
	set_int(row, INFER_CACHED_TOKENS, result->cached_tokens);
	set_int(row, INFER_OUTPUT_TOKENS, result->output_tokens);
	set_float(row, INFER_QUEUE_MS, result->queue_ms);
	set_float(row, INFER_LATENCY_MS, result->latency_ms);
	set_text(row, INFER_FINISH,
	         result->finish ? cstring_to_text(q3p_finish_name(result->finish)) : NULL);
	set_bytes(row, INFER_MODEL_DIGEST, result->digest);
	return whole;
}

static bool
fill_classify(const Qwen3dmOptions *options, const Qwen3dmRequest *request, Row *row,
              Qwen3dmFailure *failure)
{
	const q3p_result *result = &request->result;
	double limit = request->decision.off_label_limit;
	bool isnull;
	double *probs = qwen3dm_probabilities(options, result, failure);
	double best = 0;

	if (probs == NULL)
		return false;
	for (uint32 i = 0; i < result->n_probs; i++)
		best = Max(best, probs[i]);
	pfree(probs);
	row->values[CLASSIFY_VALUE] = qwen3dm_classify_value(options, result, &isnull, failure);
	if (isnull || !set_written(row, CLASSIFY_THINKING, result->thinking, failure))
		return false;
	row->nulls[CLASSIFY_VALUE] = false;
	set_float(row, CLASSIFY_PROBABILITY, best);
	set_float(row, CLASSIFY_MARGIN, result->margin);
	set_float(row, CLASSIFY_OFF_LABEL, result->off_label);
	row->nulls[CLASSIFY_ALARM] = !(limit > 0) || isnan(result->off_label);
	row->values[CLASSIFY_ALARM] = BoolGetDatum(result->off_label > limit);
	set_mode(row, CLASSIFY_MODE, CLASSIFY_REASON, request);
	row->nulls[CLASSIFY_ESCALATED] = false;
	row->values[CLASSIFY_ESCALATED] = BoolGetDatum(result->escalated);
	set_int(row, CLASSIFY_PROMPT_TOKENS, result->prompt_tokens);
	set_int(row, CLASSIFY_CACHED_TOKENS, result->cached_tokens);
	set_int(row, CLASSIFY_OUTPUT_TOKENS, result->output_tokens);
	set_float(row, CLASSIFY_QUEUE_MS, result->queue_ms);
	set_float(row, CLASSIFY_LATENCY_MS, result->latency_ms);
	set_bytes(row, CLASSIFY_MODEL_DIGEST, result->digest);
	return true;
}

static TupleDesc
row_type(FunctionCallInfo fcinfo, int n_columns)
{
	TupleDesc tupdesc;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
	    tupdesc->natts != n_columns)
		elog(ERROR, "a function for details does not return what its library makes");
	return tupdesc;
}

/* Asks about the first argument and waits. */
static Datum
ask(FunctionCallInfo fcinfo, Qwen3dmOptions *options, TupleDesc tupdesc, int error_column,
    FillRow fill)
{
	Row row = {0};
	Qwen3dmFailure failure;
	Qwen3dmRequest *r = NULL;
	q3p_bytes prompt;
	bool good = false;

	memset(row.nulls, true, sizeof(row.nulls));
	if (qwen3dm_to_utf8(PG_GETARG_TEXT_PP(0), &prompt, &failure))
		r = qwen3dm_submit_row(options, prompt, &failure);
	if (r != NULL)
	{
		qwen3dm_wait(r);
		if (r->failure.sqlstate != 0)
			failure = r->failure;
		else
			good = fill(options, r, &row, &failure);
	}
	if (!good)
	{
		if (!qwen3dm_is_passed_over(options, &failure))
			qwen3dm_raise(&failure, 0);
		set_text(&row, error_column, cstring_to_text(failure.message));
	}
	if (r != NULL)
		qwen3dm_release(r);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, row.values, row.nulls));
}

Datum
qwen3dm_infer_details(PG_FUNCTION_ARGS)
{
	Qwen3dmOptions options;
	TupleDesc tupdesc = row_type(fcinfo, N_INFER);

	qwen3dm_infer_options(fcinfo, Q3P_GENERATE, &options);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(ask(fcinfo, &options, tupdesc, INFER_ERROR, fill_infer));
}

/* ---------------------------------------------------------------------------------------------
 * qwen_classify_details
 * --------------------------------------------------------------------------------------------- */

static Datum
classify_details(FunctionCallInfo fcinfo,
                 bool (*parse)(FunctionCallInfo fcinfo, Qwen3dmOptions *options))
{
	Qwen3dmOptions options;
	TupleDesc tupdesc = row_type(fcinfo, N_CLASSIFY);

	if (!parse(fcinfo, &options) || PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(ask(fcinfo, &options, tupdesc, CLASSIFY_ERROR, fill_classify));
}

Datum
qwen3dm_classify_details(PG_FUNCTION_ARGS)
{
	return classify_details(fcinfo, qwen3dm_parse_classify);
}

Datum
qwen3dm_classify_details_jsonb(PG_FUNCTION_ARGS)
{
	return classify_details(fcinfo, qwen3dm_parse_classify_jsonb);
}

Datum
qwen3dm_classify_details_text(PG_FUNCTION_ARGS)
{
	return classify_details(fcinfo, qwen3dm_parse_classify_text);
}
