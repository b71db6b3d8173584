/*
 * options.h: the trailing arguments that the functions share.
 */
#ifndef QWEN3DM_OPTIONS_H
#define QWEN3DM_OPTIONS_H

#include "extension/compat.h"
#include "extension/failure.h"
#include "protocol/protocol.h"

struct Qwen3dmTask;

typedef struct Qwen3dmOptions
{
	q3p_request request; /* all but what is asked: prompt or tokens */
	q3p_lists lists;
	q3p_bytes before; /* in UTF-8; goes before each prompt */
	Oid type;         /* of the value of qwen_extract */
	bool has_schema;  /* request.schema is set: an answer that was cut short is none */
	int32 dimensions; /* of qwen_embed; 0: the model's */
	/* What the call's task says; NULL: none. Valid while the call is prepared, see tasks.h. */
	const struct Qwen3dmTask *task;
	double threshold; /* of qwen_filter */
	Oid enum_type;    /* of which the value is; of qwen_classify */
	bool calibrate;
	bool thinking_given; /* request.thinking is what the call says */
	bool same_mode;      /* answers are compared with each other: auto is one mode for all */
	const char *neutral; /* see calibrate.h */
	Size neutral_len;
	bool null_on_error;
	bool fixed_seed;         /* else every request gets a random one */
	const char *mode_reason; /* where the mode is from, when not from the call or the engine */
} Qwen3dmOptions;

/*
 * Both take the call's arguments from number `first` on, check them, and raise an error for what is
 * wrong with them: a mistake in the query, not in a row. Memory comes from the current context.
 *
 * Routing: task, mode, on_error.
 * Generation: these, then max_tokens, temperature, top_p, top_k, seed, stop, thinking, system: so
 * many arguments.
 */
#define QWEN3DM_GENERATION_OPTIONS 11

extern void qwen3dm_routing_options(FunctionCallInfo fcinfo, int first, q3p_kind kind,
                                    Qwen3dmOptions *options);
/* The same without arguments: on_error raise; task may be NULL. */
extern void qwen3dm_default_options(Qwen3dmOptions *options, q3p_kind kind, const char *task,
                                    uint32 mode);
extern void qwen3dm_generation_options(FunctionCallInfo fcinfo, int first, q3p_kind kind,
                                       Qwen3dmOptions *options);

/* All options of qwen_infer, qwen_infer_details and qwen_stream, which are alike. */
extern void qwen3dm_infer_options(FunctionCallInfo fcinfo, q3p_kind kind, Qwen3dmOptions *options);

/* The options `thinking` and `thinking_budget` of calls that compare labels, in arguments n and n
 * + 1.
 */
extern void qwen3dm_thinking_options(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options);
/* The option `thinking_budget` of calls that generate, in argument n. */
extern void qwen3dm_thinking_budget_option(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options);

/* The option `schema`, a jsonb in argument n; when it is NULL, the task's, if it has one. After the
 * options above. */
extern void qwen3dm_schema_option(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options);
/* The answer has to follow this schema. Raises an error for options that are at odds with it. */
extern void qwen3dm_set_schema(Qwen3dmOptions *options, q3p_bytes schema);

/* A text argument in UTF-8; raises an error when it cannot be said in UTF-8. */
extern q3p_bytes qwen3dm_utf8_argument(FunctionCallInfo fcinfo, int n);

/* A mode by its name; NULL is auto. Raises an error for anything else. */
extern uint32 qwen3dm_mode_by_name(const char *name);
/* The same for an argument; instead of auto, what the session's setting says. */
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
