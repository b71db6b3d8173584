/*
 * srf.h: set-returning functions that know all their rows at the first call.
 */
#ifndef QWEN3DM_SRF_H
#define QWEN3DM_SRF_H

#include "funcapi.h"

#include "extension/compat.h"

/* The first call of a function that returns composite rows: its context, with the type of a row. */
extern FuncCallContext *qwen3dm_start_rows(FunctionCallInfo fcinfo);

/* All of such a function: list makes an array once, palloc'd, with *n elements; make_row a row of
 * element i. */
extern Datum qwen3dm_return_rows(FunctionCallInfo fcinfo,
                                 void *(*list)(FunctionCallInfo fcinfo, uint64 *n),
                                 Datum (*make_row)(TupleDesc tupdesc, const void *list, uint64 i));

#endif
