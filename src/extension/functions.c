/*
 * functions.c: qwen_infer for an array of prompts, and qwen_infer_details.
 *
 * An array keeps a window of requests under way on the same connection,
 * which the engine computes together, and takes the answers in order. A failure of a row is raised
 * at its place, or becomes NULL with on_error => 'null'; what makes every row fail (no model, not
 * loaded, still loading) and what the user did (cancel, timeout) is always raised.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "extension/call.h"
#include "extension/client.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/options.h"
#include "extension/window.h"

/* Columns of qwen_infer_details, in order. */
enum
{
	COL_VALUE,
	COL_THINKING,
	COL_MODE,
	COL_REASON,
	COL_CONFIDENCE,
	COL_PROMPT_TOKENS,
	COL_CACHED_TOKENS,
	COL_OUTPUT_TOKENS,
	COL_QUEUE_MS,
	COL_LATENCY_MS,
	COL_FINISH,
	COL_ERROR,
	COL_MODEL_DIGEST,
	N_DETAILS
};

QWEN3DM_FUNCTION(qwen3dm_infer_array);
QWEN3DM_FUNCTION(qwen3dm_infer_details);

/* Replaces the prompts by their answers; NULLs stay what they are. */
static void
infer_elements(const Qwen3dmOptions *options, Datum *values, bool *nulls, int n)
{
	Qwen3dmWindow window;

	qwen3dm_window_start(&window, options, values, nulls, n);
	for (int i = 0; i < n; i++)
	{
		Qwen3dmFailure failure;
		Qwen3dmRequest *r = qwen3dm_window_next(&window, &failure);
		text *value = r != NULL ? qwen3dm_take_text(options, r, &failure) : NULL;

		if (nulls[i])
			continue;
		if (value == NULL && !qwen3dm_is_passed_over(options, &failure))
			qwen3dm_raise(&failure, i + 1);
		nulls[i] = value == NULL;
		values[i] = PointerGetDatum(value);
	}
}

Datum
qwen3dm_infer_array(PG_FUNCTION_ARGS)
{
	Qwen3dmOptions options;
	ArrayType *prompts;
	Datum *values;
	bool *nulls;
	int n;

	qwen3dm_generation_options(fcinfo, 1, Q3P_GENERATE, &options);
	qwen3dm_schema_option(fcinfo, QWEN3DM_ARG_SCHEMA, &options);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	prompts = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(prompts, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));
	infer_elements(&options, values, nulls, n);
	PG_RETURN_ARRAYTYPE_P(construct_md_array(values, nulls, ARR_NDIM(prompts), ARR_DIMS(prompts),
	                                         ARR_LBOUND(prompts), TEXTOID, -1, false,
	                                         TYPALIGN_INT));
}

static void
set_text(Datum *values, bool *nulls, int column, const text *value)
{
	nulls[column] = value == NULL;
	values[column] = PointerGetDatum(value);
}

static void
set_float(Datum *values, bool *nulls, int column, double value)
{
	nulls[column] = isnan(value);
	values[column] = Float8GetDatum(value);
}

static void
set_int(Datum *values, bool *nulls, int column, int32 value)
{
	nulls[column] = false;
	values[column] = Int32GetDatum(value);
}

/* The columns of a finished request; false with *failure when its answer is none: a text cannot be
 * represented, or it is cut short under a schema (then all columns but value are set). */
static bool
set_details(const Qwen3dmOptions *options, const q3p_result *result, Datum *values, bool *nulls,
            Qwen3dmFailure *failure)
{
	text *value = NULL;
	text *thinking = NULL;

	if (qwen3dm_is_whole(options, result, failure))
	{
		value = qwen3dm_from_utf8(result->value, failure);
		if (value == NULL)
			return false;
	}
	if (result->thinking.data != NULL)
	{
		thinking = qwen3dm_from_utf8(result->thinking, failure);
		if (thinking == NULL)
			return false;
	}
	set_text(values, nulls, COL_VALUE, value);
	set_text(values, nulls, COL_THINKING, thinking);
	set_text(values, nulls, COL_MODE, cstring_to_text(q3p_mode_name(result->mode)));
	/* The engine cannot tell a mode that the call names from one that the session is set to. */
	if (options->mode_reason != NULL)
		set_text(values, nulls, COL_REASON, cstring_to_text(options->mode_reason));
	else
		set_text(values, nulls, COL_REASON,
		         result->reason.data ? cstring_to_text(qwen3dm_readable_bytes(result->reason))
		                             : NULL);
	set_float(values, nulls, COL_CONFIDENCE, result->confidence);
	set_int(values, nulls, COL_PROMPT_TOKENS, result->prompt_tokens);
	set_int(values, nulls, COL_CACHED_TOKENS, result->cached_tokens);
	set_int(values, nulls, COL_OUTPUT_TOKENS, result->output_tokens);
	set_float(values, nulls, COL_QUEUE_MS, result->queue_ms);
	set_float(values, nulls, COL_LATENCY_MS, result->latency_ms);
	set_text(values, nulls, COL_FINISH,
	         result->finish ? cstring_to_text(q3p_finish_name(result->finish)) : NULL);
	set_text(values, nulls, COL_MODEL_DIGEST,
	         result->digest.data ? cstring_to_text(qwen3dm_readable_bytes(result->digest)) : NULL);
	return value != NULL;
}

Datum
qwen3dm_infer_details(PG_FUNCTION_ARGS)
{
	Qwen3dmOptions options;
	Qwen3dmFailure failure;
	Qwen3dmRequest *r;
	TupleDesc tupdesc;
	Datum values[N_DETAILS] = {0};
	bool nulls[N_DETAILS];
	bool good = false;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
	    tupdesc->natts != N_DETAILS)
		elog(ERROR, "qwen_infer_details does not return what its library makes");
	qwen3dm_generation_options(fcinfo, 1, Q3P_GENERATE, &options);
	qwen3dm_schema_option(fcinfo, QWEN3DM_ARG_SCHEMA, &options);
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	memset(nulls, true, sizeof(nulls));
	r = qwen3dm_submit_prompt(&options, PG_GETARG_TEXT_PP(0), &failure);
	if (r != NULL)
	{
		qwen3dm_wait(r);
		if (r->failure.sqlstate != 0)
			failure = r->failure;
		else
			good = set_details(&options, &r->result, values, nulls, &failure);
	}
	if (!good)
	{
		if (!qwen3dm_is_passed_over(&options, &failure))
			qwen3dm_raise(&failure, 0);
		set_text(values, nulls, COL_ERROR, cstring_to_text(failure.message));
	}
	if (r != NULL)
		qwen3dm_release(r);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls)));
}
