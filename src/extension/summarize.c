/*
 * summarize.c: qwen_summarize, and the aggregates qwen_summarize_agg and qwen_reduce_agg.
 *
 * What the context has room for is one request; more is reduced (reduce.c). The state of an
 * aggregate is a reducer, in the aggregate's memory: it asks about full chunks while rows still
 * arrive. A parallel worker hands its reducer over when nothing of it is under way any more. Mode
 * and max_tokens of the aggregates are the session's.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "extension/call.h"
#include "extension/encoding.h"
#include "extension/reduce.h"

#define SUMMARIZE_OPTIONS 1

#define SUMMARIZE_TEXT                                                                             \
	"Summarize the text that the user gives. Answer with the summary, and nothing else."
#define SUMMARIZE_PARTS                                                                            \
	"The user gives summaries of the parts of one text, in order. Make one summary of the whole "  \
	"text of them. Answer with the summary, and nothing else."
#define SUMMARIZE_TEXTS                                                                            \
	"The user gives texts, with --- between them. Summarize what they say together. Answer with "  \
	"the summary, and nothing else."
#define SUMMARIZE_TEXTS_PARTS                                                                      \
	"The user gives summaries of groups of texts, with --- between them. Make one summary of all " \
	"of them. Answer with the summary, and nothing else."
#define OF_TEXTS "\nThe texts that this is about are what the user gives, with --- between them."
#define OF_PARTS                                                                                   \
	"\nThis was done for parts of the texts. What came out is what the user gives, with --- "      \
	"between the parts. Make of it what comes out for all texts."

QWEN3DM_FUNCTION(qwen3dm_summarize_transition);
QWEN3DM_FUNCTION(qwen3dm_reduce_transition);
QWEN3DM_FUNCTION(qwen3dm_reduce_combine);
QWEN3DM_FUNCTION(qwen3dm_reduce_serialize);
QWEN3DM_FUNCTION(qwen3dm_reduce_deserialize);
QWEN3DM_FUNCTION(qwen3dm_reduce_final);

static q3p_bytes
constant(const char *s)
{
	return (q3p_bytes){s, strlen(s)};
}

static q3p_bytes
join(q3p_bytes a, const char *b)
{
	size_t len = a.len + strlen(b);
	char *s = palloc(len + 1);

	memcpy(s, a.data, a.len);
	strcpy(s + a.len, b);
	return (q3p_bytes){s, len};
}

/* ---------------------------------------------------------------------------------------------
 * One text
 * --------------------------------------------------------------------------------------------- */

bool
qwen3dm_parse_summarize(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_generation_options(fcinfo, SUMMARIZE_OPTIONS, Q3P_GENERATE, options);
	if (options->request.system.data == NULL)
		options->request.system = constant(SUMMARIZE_TEXT);
	return true;
}

/* A text that is too long becomes the summaries of its parts. */
bool
qwen3dm_prepare_summarize(Qwen3dmOptions *options, q3p_bytes *prompt, Qwen3dmFailure *failure)
{
	Qwen3dmReducer *r;
	q3p_request message;

	if (qwen3dm_surely_fits(*prompt, options->request.system))
		return true;
	r = qwen3dm_reducer_create(CurrentMemoryContext, options, options->request.system,
	                           constant(SUMMARIZE_PARTS), failure);
	if (r == NULL || !qwen3dm_reducer_add(r, *prompt, failure) ||
	    !qwen3dm_reducer_finish(r, &message, failure))
		return false;
	*prompt = message.prompt;
	options->request.system = message.system;
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Aggregates
 * --------------------------------------------------------------------------------------------- */

static MemoryContext
aggregate_context(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "a support function of an aggregate was called outside of one");
	return context;
}

static Qwen3dmReducer *
new_state(FunctionCallInfo fcinfo, q3p_bytes first, q3p_bytes further)
{
	Qwen3dmOptions options;
	Qwen3dmFailure failure;
	Qwen3dmReducer *r;

	qwen3dm_default_options(&options, Q3P_GENERATE, NULL, Q3P_AUTO);
	r = qwen3dm_reducer_create(aggregate_context(fcinfo), &options, first, further, &failure);
	if (r == NULL)
		qwen3dm_raise(&failure, 0);
	return r;
}

static Qwen3dmReducer *
state_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : (Qwen3dmReducer *) PG_GETARG_POINTER(n);
}

static void
add(Qwen3dmReducer *r, const text *t)
{
	Qwen3dmFailure failure = {0};
	q3p_bytes bytes;

	if (!qwen3dm_to_utf8(t, &bytes, &failure) || !qwen3dm_reducer_add(r, bytes, &failure))
		qwen3dm_raise(&failure, 0);
}

static Datum
state_result(FunctionCallInfo fcinfo, Qwen3dmReducer *r)
{
	if (r == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(r);
}

/* (state, text) */
Datum
qwen3dm_summarize_transition(PG_FUNCTION_ARGS)
{
	Qwen3dmReducer *r = state_argument(fcinfo, 0);

	(void) aggregate_context(fcinfo);
	if (!PG_ARGISNULL(1))
	{
		if (r == NULL)
			r = new_state(fcinfo, constant(SUMMARIZE_TEXTS), constant(SUMMARIZE_TEXTS_PARTS));
		add(r, PG_GETARG_TEXT_PP(1));
	}
	return state_result(fcinfo, r);
}

static bool
same_instruction(const Qwen3dmReducer *r, q3p_bytes first)
{
	q3p_bytes mine = qwen3dm_reducer_instruction(r);

	return mine.len == first.len && memcmp(mine.data, first.data, first.len) == 0;
}

/* (state, text, instruction) */
Datum
qwen3dm_reduce_transition(PG_FUNCTION_ARGS)
{
	Qwen3dmReducer *r = state_argument(fcinfo, 0);

	(void) aggregate_context(fcinfo);
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(2))
	{
		q3p_bytes instruction = qwen3dm_utf8_argument(fcinfo, 2);
		q3p_bytes first = join(instruction, OF_TEXTS);

		if (r == NULL)
			r = new_state(fcinfo, first, join(instruction, OF_PARTS));
		else if (!same_instruction(r, first))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("instruction must be the same for all rows of a group")));
		add(r, PG_GETARG_TEXT_PP(1));
	}
	return state_result(fcinfo, r);
}

/* (state, state); the second one may go after the call. */
Datum
qwen3dm_reduce_combine(PG_FUNCTION_ARGS)
{
	Qwen3dmReducer *r = state_argument(fcinfo, 0);
	Qwen3dmReducer *other = state_argument(fcinfo, 1);
	Qwen3dmFailure failure;

	(void) aggregate_context(fcinfo);
	if (other == NULL)
		return state_result(fcinfo, r);
	if (r == NULL)
		r = new_state(fcinfo, qwen3dm_reducer_instruction(other),
		              qwen3dm_reducer_further_instruction(other));
	else if (!same_instruction(r, qwen3dm_reducer_instruction(other)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("instruction must be the same for all rows of a group")));
	if (!qwen3dm_reducer_combine(r, other, &failure))
		qwen3dm_raise(&failure, 0);
	return state_result(fcinfo, r);
}

/* (state) */
Datum
qwen3dm_reduce_serialize(PG_FUNCTION_ARGS)
{
	Qwen3dmFailure failure;
	bytea *bytes;

	(void) aggregate_context(fcinfo);
	if (!qwen3dm_reducer_serialize((Qwen3dmReducer *) PG_GETARG_POINTER(0), &bytes, &failure))
		qwen3dm_raise(&failure, 0);
	PG_RETURN_BYTEA_P(bytes);
}

/* (bytea, internal) */
Datum
qwen3dm_reduce_deserialize(PG_FUNCTION_ARGS)
{
	Qwen3dmOptions options;
	Qwen3dmFailure failure;
	Qwen3dmReducer *r;

	(void) aggregate_context(fcinfo);
	qwen3dm_default_options(&options, Q3P_GENERATE, NULL, Q3P_AUTO);
	r = qwen3dm_reducer_deserialize(CurrentMemoryContext, &options, PG_GETARG_BYTEA_PP(0),
	                                &failure);
	if (r == NULL)
		qwen3dm_raise(&failure, 0);
	PG_RETURN_POINTER(r);
}

/* (state): asks about what the texts came down to. */
Datum
qwen3dm_reduce_final(PG_FUNCTION_ARGS)
{
	Qwen3dmReducer *r = state_argument(fcinfo, 0);
	Qwen3dmOptions options;
	Qwen3dmFailure failure;
	Qwen3dmRequest *request;
	q3p_request message;
	text *value;

	(void) aggregate_context(fcinfo);
	if (r == NULL)
		PG_RETURN_NULL();
	if (!qwen3dm_reducer_finish(r, &message, &failure))
		qwen3dm_raise(&failure, 0);
	request = qwen3dm_submit(&message, NULL);
	qwen3dm_wait(request);
	memset(&options, 0, sizeof(options));
	value = qwen3dm_take_text(&options, request, &failure);
	if (value == NULL)
		qwen3dm_raise(&failure, 0);
	PG_RETURN_TEXT_P(value);
}
