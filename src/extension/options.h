/*
 * options.h: the trailing arguments that the functions share.
 */
#ifndef QWEN3DM_OPTIONS_H
#define QWEN3DM_OPTIONS_H

#include "extension/compat.h"
#include "extension/failure.h"
#include "protocol/protocol.h"

typedef struct Qwen3dmOptions
{
	q3p_request request; /* all but what is asked: prompt or tokens */
	q3p_lists lists;
	q3p_bytes before; /* in UTF-8; goes before each prompt */
	double threshold; /* of qwen_filter */
	int32 dimensions; /* of qwen_embed; 0: the model's */
	bool null_on_error;
	bool fixed_seed;   /* else every request gets a random one */
	bool mode_setting; /* the mode is that of qwen3dm.mode, not the call's */
} Qwen3dmOptions;

/*
 * Both take the call's arguments from number `first` on, check them, and raise an error for what is
 * wrong with them: a mistake in the query, not in a row. Memory comes from the current context.
 *
 * Routing: task, mode, on_error.
 * Generation: these, then max_tokens, temperature, top_p, top_k, seed, stop, thinking, system.
 */
extern void qwen3dm_routing_options(FunctionCallInfo fcinfo, int first, q3p_kind kind,
                                    Qwen3dmOptions *options);
extern void qwen3dm_generation_options(FunctionCallInfo fcinfo, int first, q3p_kind kind,
                                       Qwen3dmOptions *options);

/* A text argument in UTF-8; raises an error when it cannot be said in UTF-8. */
extern q3p_bytes qwen3dm_utf8_argument(FunctionCallInfo fcinfo, int n);

/* A mode by its name; NULL is auto, which the session's setting may decide. */
extern uint32 qwen3dm_mode_argument(FunctionCallInfo fcinfo, int n);

/* Longest answer of a call that does not say: the user's setting, up to the administrator's. */
extern int qwen3dm_default_max_tokens(void);

/* The request for one prompt. */
extern q3p_request qwen3dm_request_for(const Qwen3dmOptions *options, q3p_bytes prompt);

#endif
