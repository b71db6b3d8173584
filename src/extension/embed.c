/*
 * embed.c: texts as vectors: qwen_embed, and qwen_similarity of two texts.
 *
 * Both are calls as call.c makes them. An embedding model gives the vector of the text's end token;
 * without one it is the mean of the main model's vectors of all tokens (service.c says who is
 * asked). Vectors have length 1.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"

#include "extension/call.h"
#include "extension/embed.h"
#include "extension/module.h"

/* Positions of the arguments of qwen_embed. */
enum
{
	EMBED_INPUT,
	EMBED_ROUTING,
	EMBED_INSTRUCTION = EMBED_ROUTING + 3,
	EMBED_DIMENSIONS
};

/* Those of qwen_similarity. */
enum
{
	SIMILARITY_A,
	SIMILARITY_B,
	SIMILARITY_ROUTING
};

static void
embedding_options(FunctionCallInfo fcinfo, int routing, Qwen3dmOptions *options)
{
	qwen3dm_routing_options(fcinfo, routing, Q3P_EMBED, options);
	options->request.mean = !qwen3dm_service_has_model(QWEN3DM_EMBEDDING);
}

/* What an embedding model for queries was trained to see before one. */
static q3p_bytes
before_query(q3p_bytes instruction)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "Instruct: ");
	appendBinaryStringInfo(&s, instruction.data, (int) instruction.len);
	appendStringInfoString(&s, "\nQuery:");
	return (q3p_bytes){s.data, s.len};
}

bool
qwen3dm_parse_embed(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	embedding_options(fcinfo, EMBED_ROUTING, options);
	if (!PG_ARGISNULL(EMBED_INSTRUCTION))
		options->before = before_query(qwen3dm_utf8_argument(fcinfo, EMBED_INSTRUCTION));
	if (!PG_ARGISNULL(EMBED_DIMENSIONS))
	{
		options->dimensions = PG_GETARG_INT32(EMBED_DIMENSIONS);
		if (options->dimensions < 1)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("dimensions must be at least 1")));
	}
	return true;
}

bool
qwen3dm_parse_similarity(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	embedding_options(fcinfo, SIMILARITY_ROUTING, options);
	return true;
}

/* Number of coordinates; 0 with *failure: the engine did not say. */
static uint32
vector_length(const q3p_result *result, Qwen3dmFailure *failure)
{
	if (result->n_vector == 0)
	{
		memset(failure, 0, sizeof(*failure));
		failure->sqlstate = ERRCODE_PROTOCOL_VIOLATION;
		failure->message = "the qwen3dm engine answered without a vector";
	}
	return result->n_vector;
}

static float4
coordinate(const q3p_result *result, uint32 i)
{
	float4 value;

	memcpy(&value, result->vector + i * sizeof(value), sizeof(value));
	return value;
}

/* The first n coordinates as a vector of length 1. */
static ArrayType *
shortened(const q3p_result *result, uint32 n)
{
	Datum *values = palloc(sizeof(Datum) * n);
	double length = 1;

	if (n < result->n_vector)
	{
		length = 0;
		for (uint32 i = 0; i < n; i++)
			length += (double) coordinate(result, i) * coordinate(result, i);
		length = length > 0 ? sqrt(length) : 1;
	}
	for (uint32 i = 0; i < n; i++)
		values[i] = Float4GetDatum((float4) (coordinate(result, i) / length));
	return construct_array(values, (int) n, FLOAT4OID, sizeof(float4), true, TYPALIGN_INT);
}

Datum
qwen3dm_embed_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                    Qwen3dmFailure *failure)
{
	uint32 n = vector_length(result, failure);

	*isnull = n == 0;
	if (n == 0)
		return (Datum) 0;
	/* A mistake in the query, not in the row, that only the model can tell. */
	if (options->dimensions > (int64) n)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		         errmsg("dimensions must not be more than the model's %u", (unsigned int) n)));
	return PointerGetDatum(shortened(result, options->dimensions > 0 ? options->dimensions : n));
}

Datum
qwen3dm_similarity_value(const Qwen3dmOptions *options, const q3p_result *const results[2],
                         bool *isnull, Qwen3dmFailure *failure)
{
	uint32 n = vector_length(results[0], failure);
	double cosine = 0;

	*isnull = n == 0 || vector_length(results[1], failure) != n;
	if (*isnull)
		return (Datum) 0;
	for (uint32 i = 0; i < n; i++)
		cosine += (double) coordinate(results[0], i) * coordinate(results[1], i);
	return Float8GetDatum(Min(Max(cosine, -1), 1));
}

Qwen3dmRequest *
qwen3dm_submit_vector(q3p_bytes text)
{
	Qwen3dmOptions options;
	q3p_request message;

	/* Of one mode always: vectors are compared. */
	qwen3dm_default_options(&options, Q3P_EMBED, NULL, Q3P_EFFICIENT);
	message = qwen3dm_request_for(&options, text);
	return qwen3dm_submit(&message, &options.lists);
}

bool
qwen3dm_take_vector(Qwen3dmRequest *r, Qwen3dmVector *vector, Qwen3dmFailure *failure)
{
	const q3p_result *result = &r->result;
	bool ok;

	qwen3dm_wait(r);
	if (r->failure.sqlstate != 0)
		qwen3dm_copy_failure(failure, &r->failure);
	ok = r->failure.sqlstate == 0 && vector_length(result, failure) > 0;
	if (ok)
	{
		vector->n = result->n_vector;
		vector->coordinates = palloc(sizeof(float4) * vector->n);
		memcpy(vector->coordinates, result->vector, sizeof(float4) * vector->n);
		vector->digest = pnstrdup(result->digest.data, result->digest.len);
	}
	qwen3dm_release(r);
	return ok;
}
