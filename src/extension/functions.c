/*
 * functions.c: qwen_infer for an array of prompts.
 *
 * It keeps a window of requests under way on the same connection,
 * which the engine computes together, and takes the answers in order. A failure of a row is raised
 * at its place, or becomes NULL with on_error => 'null'; what makes every row fail (no model, not
 * loaded, still loading) and what the user did (cancel, timeout) is always raised.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "extension/call.h"
#include "extension/client.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/options.h"
#include "extension/window.h"

QWEN3DM_FUNCTION(qwen3dm_infer_array);

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

	qwen3dm_infer_options(fcinfo, Q3P_GENERATE, &options);
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
