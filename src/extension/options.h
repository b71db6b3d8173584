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
	Oid type;         /* of the value of qwen_extract */
	bool has_schema;  /* request.schema is set: an answer that was cut short is none */
	int32 dimensions; /* of qwen_embed; 0: the model's */
	bool null_on_error;
	bool fixed_seed;   /* else every request gets a random one */
	bool mode_setting; /* the mode is that of qwen3dm.mode, not the call's */
} Qwen3dmOptions;

/* Position of `schema` in qwen_infer, qwen_infer_details and qwen_stream: behind the options of
 * generation. */
#define QWEN3DM_ARG_SCHEMA 12

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

/* What every request of this session has, without arguments. */
extern void qwen3dm_session_options(q3p_kind kind, Qwen3dmOptions *options);
/* The option `schema`, a jsonb in argument n: none when it is NULL. After the options above. */
extern void qwen3dm_schema_option(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options);
/* The answer has to follow this schema. Raises an error for options that are at odds with it. */
extern void qwen3dm_set_schema(Qwen3dmOptions *options, q3p_bytes schema);

/* A text argument in UTF-8; raises an error when it cannot be said in UTF-8. */
extern q3p_bytes qwen3dm_utf8_argument(FunctionCallInfo fcinfo, int n);

/* A mode by its name; NULL is auto, which the session's setting may decide. */
extern uint32 qwen3dm_mode_argument(FunctionCallInfo fcinfo, int n);

/* False with *failure: the answer is no whole value under the schema, because max_tokens, or the
 * context, ended it. */
extern bool qwen3dm_is_whole(const Qwen3dmOptions *options, const q3p_result *result,
                             Qwen3dmFailure *failure);

/* Whether the failure makes the row NULL. What is wrong with a schema is wrong for every row: no.
 */
extern bool qwen3dm_is_passed_over(const Qwen3dmOptions *options, const Qwen3dmFailure *failure);
/* Longest answer of a call that does not say: the user's setting, up to the administrator's. */
extern int qwen3dm_default_max_tokens(void);

/* The request for one prompt. */
extern q3p_request qwen3dm_request_for(const Qwen3dmOptions *options, q3p_bytes prompt);

#endif
