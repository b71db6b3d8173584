/*
 * stream.c: qwen_stream, an answer row by row while it is generated.
 *
 * A set-returning function that gives one value per call. In the select list the executor passes
 * each row on at once, and client.c has the rows so far sent before it waits for the next piece. In
 * FROM the executor collects the whole set first. The request is stopped when the query is done
 * with it, however that comes: its id hangs on the memory context that the executor deletes.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "extension/client.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/options.h"

typedef struct StreamState
{
	MemoryContextCallback at_end;
	uint64 id;              /* 0: there is nothing more to come */
	Qwen3dmOptions options; /* only its plain values */
	bool unsayable;         /* the prompt; the one row is NULL */
} StreamState;

QWEN3DM_FUNCTION(qwen3dm_stream);

static void
stop_stream(void *arg)
{
	StreamState *state = arg;
	Qwen3dmRequest *r = state->id != 0 ? qwen3dm_reattach(state->id) : NULL;

	if (r != NULL)
		qwen3dm_release(r);
	state->id = 0;
}

/* In the memory that lives from call to call. */
static StreamState *
start_stream(FunctionCallInfo fcinfo, MemoryContext context)
{
	StreamState *state = palloc0(sizeof(StreamState));
	Qwen3dmOptions *options = &state->options;
	Qwen3dmFailure failure;
	q3p_bytes prompt;
	q3p_request message;
	Qwen3dmDecision decision;

	qwen3dm_infer_options(fcinfo, Q3P_STREAM, options);
	state->at_end.func = stop_stream;
	state->at_end.arg = state;
	MemoryContextRegisterResetCallback(context, &state->at_end);
	if (PG_ARGISNULL(0))
		return state;

	if (!qwen3dm_to_utf8(PG_GETARG_TEXT_PP(0), &prompt, &failure))
	{
		if (!options->null_on_error)
			qwen3dm_raise(&failure, 0);
		state->unsayable = true;
		return state;
	}
	message = qwen3dm_request_for(options, prompt);
	qwen3dm_decide(options, &message, &decision);
	state->id = qwen3dm_submit_decided(&message, &options->lists, &decision)->id;
	return state;
}

/* The next piece in *bytes; false: there is none, r is done and may have failed. */
static bool
next_piece(Qwen3dmRequest *r, q3p_bytes *bytes)
{
	if (qwen3dm_wait_chunk(r, bytes))
		return true;
	if (r->failure.sqlstate != 0 || r->result.value.len == 0)
		return false;
	*bytes = r->result.value; /* what no chunk held */
	r->result.value.len = 0;
	return true;
}

Datum
qwen3dm_stream(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	StreamState *state;
	Qwen3dmRequest *r;
	Qwen3dmFailure failure = {0};
	q3p_bytes bytes;
	text *piece = NULL;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		funcctx = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		funcctx->user_fctx = start_stream(fcinfo, funcctx->multi_call_memory_ctx);
		MemoryContextSwitchTo(old);
	}
	funcctx = SRF_PERCALL_SETUP();
	state = funcctx->user_fctx;
	if (state->unsayable)
	{
		state->unsayable = false;
		SRF_RETURN_NEXT_NULL(funcctx);
	}
	if (state->id == 0)
		SRF_RETURN_DONE(funcctx);

	r = qwen3dm_reattach(state->id);
	if (r == NULL)
		ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
		                errmsg("the answer was canceled with the transaction that asked for it")));
	if (next_piece(r, &bytes))
		piece = qwen3dm_from_utf8(bytes, &failure);
	else if (r->failure.sqlstate != 0)
		failure = r->failure;
	else
		(void) qwen3dm_is_whole(&state->options, &r->result, &failure);

	if (failure.sqlstate != 0)
	{
		/* The row that failed: NULL, and the end. */
		if (!qwen3dm_is_passed_over(&state->options, &failure))
			qwen3dm_raise(&failure, 0);
		stop_stream(state);
		SRF_RETURN_NEXT_NULL(funcctx);
	}
	if (piece == NULL)
	{
		stop_stream(state);
		SRF_RETURN_DONE(funcctx);
	}
	qwen3dm_detach(r);
	SRF_RETURN_NEXT(funcctx, PointerGetDatum(piece));
}
