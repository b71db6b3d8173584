/*
 * srf.c: set-returning functions that know all their rows at the first call; see srf.h.
 *
 * The rows live in the function's multi-call context. Runs in the backend and in parallel workers.
 */
#include "postgres.h"

#include "extension/srf.h"

FuncCallContext *
qwen3dm_start_rows(FunctionCallInfo fcinfo)
{
	FuncCallContext *funcctx = SRF_FIRSTCALL_INIT();
	MemoryContext old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
	TupleDesc tupdesc;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	funcctx->tuple_desc = BlessTupleDesc(tupdesc);
	MemoryContextSwitchTo(old);
	return funcctx;
}

Datum
qwen3dm_return_rows(FunctionCallInfo fcinfo, void *(*list)(FunctionCallInfo fcinfo, uint64 *n),
                    Datum (*make_row)(TupleDesc tupdesc, const void *list, uint64 i))
{
	FuncCallContext *funcctx;
	Datum row;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;

		funcctx = qwen3dm_start_rows(fcinfo);
		old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		funcctx->user_fctx = list(fcinfo, &funcctx->max_calls);
		MemoryContextSwitchTo(old);
	}
	funcctx = SRF_PERCALL_SETUP();
	if (funcctx->call_cntr >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	/* The macro counts before it looks at the row. */
	row = make_row(funcctx->tuple_desc, funcctx->user_fctx, funcctx->call_cntr);
	SRF_RETURN_NEXT(funcctx, row);
}
