/*
 * failure.h: an error as a value.
 *
 * What goes wrong with one row is not always raised: with on_error => 'null' it becomes NULL. So
 * that no error has to be caught, the code that finds one fills a Qwen3dmFailure, and the SQL
 * function at the top decides. Strings are in the database's encoding, palloc'd or constant.
 */
#ifndef QWEN3DM_FAILURE_H
#define QWEN3DM_FAILURE_H

#include "protocol/protocol.h"

#include "extension/compat.h"
#include "extension/shmem.h"

typedef struct Qwen3dmFailure
{
	int sqlstate; /* as MAKE_SQLSTATE() has it; 0: no failure */
	const char *message;
	const char *detail; /* or NULL */
	const char *hint;   /* or NULL */
} Qwen3dmFailure;

/* What the engine answered instead of a result. */
extern void qwen3dm_failure_from_engine(Qwen3dmFailure *f, const q3p_error *error);
/* The engine went away. */
extern void qwen3dm_failure_engine_gone(Qwen3dmFailure *f);
/* Why nothing can be computed in this state; READY is no such state. */
extern void qwen3dm_failure_from_status(Qwen3dmFailure *f, const Qwen3dmStatus *status);

/* item: position in an array, from 1, for the context line; 0: none. */
pg_noreturn extern void qwen3dm_raise(const Qwen3dmFailure *f, int item);

#endif
