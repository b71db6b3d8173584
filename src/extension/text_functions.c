/*
 * text_functions.c: qwen_count_tokens, qwen_tokenize, qwen_detokenize and qwen3dm_version.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "extension/client.h"
#include "extension/encoding.h"
#include "extension/module.h"

QWEN3DM_FUNCTION(qwen3dm_count_tokens);
QWEN3DM_FUNCTION(qwen3dm_tokenize);
QWEN3DM_FUNCTION(qwen3dm_detokenize);
QWEN3DM_FUNCTION(qwen3dm_version);

/* Asks and waits; raises whatever goes wrong. */
static Qwen3dmRequest *
ask(const q3p_request *message)
{
	Qwen3dmRequest *r = qwen3dm_submit(message, NULL);

	qwen3dm_wait(r);
	if (r->failure.sqlstate != 0)
		qwen3dm_raise(&r->failure, 0);
	return r;
}

static Qwen3dmRequest *
ask_about_text(q3p_kind kind, const text *t)
{
	q3p_request message = {.kind = kind};
	Qwen3dmFailure failure;

	if (!qwen3dm_to_utf8(t, &message.prompt, &failure))
		qwen3dm_raise(&failure, 0);
	return ask(&message);
}

Datum
qwen3dm_count_tokens(PG_FUNCTION_ARGS)
{
	Qwen3dmRequest *r = ask_about_text(Q3P_COUNT_TOKENS, PG_GETARG_TEXT_PP(0));
	int32 n = r->result.prompt_tokens;

	qwen3dm_release(r);
	PG_RETURN_INT32(n);
}

Datum
qwen3dm_tokenize(PG_FUNCTION_ARGS)
{
	Qwen3dmRequest *r = ask_about_text(Q3P_TOKENIZE, PG_GETARG_TEXT_PP(0));
	uint32 n = r->result.n_tokens;
	Datum *values;
	ArrayType *array;

	if (n > MaxAllocSize / sizeof(Datum))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("the text has too many tokens for an array: %u", n)));
	values = palloc(sizeof(Datum) * Max(n, 1));
	for (uint32 i = 0; i < n; i++)
	{
		int32 token;

		memcpy(&token, r->result.tokens + i * sizeof(token), sizeof(token));
		values[i] = Int32GetDatum(token);
	}
	array = construct_array(values, (int) n, INT4OID, sizeof(int32), true, TYPALIGN_INT);
	qwen3dm_release(r);
	PG_RETURN_ARRAYTYPE_P(array);
}

Datum
qwen3dm_detokenize(PG_FUNCTION_ARGS)
{
	ArrayType *array = PG_GETARG_ARRAYTYPE_P(0);
	q3p_request message = {.kind = Q3P_DETOKENIZE};
	Qwen3dmFailure failure;
	Qwen3dmRequest *r;
	text *value;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR, (errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
		                errmsg("the array of tokens must have one dimension")));
	if (array_contains_nulls(array))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
		                errmsg("the array of tokens must not contain nulls")));
	/* Without nulls the elements lie one after the other. */
	message.n_tokens = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	message.tokens = (const unsigned char *) ARR_DATA_PTR(array);

	r = ask(&message);
	value = qwen3dm_from_utf8(r->result.value, &failure);
	if (value == NULL)
		qwen3dm_raise(&failure, 0);
	qwen3dm_release(r);
	PG_RETURN_TEXT_P(value);
}

Datum
qwen3dm_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(QWEN3DM_VERSION));
}
