/*
 * options.c: task, mode, on_error and the options of generation.
 *
 * A NULL option is the default. Values are checked here, before anything is sent, so that a wrong
 * one is the same error in every state of the server.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "extension/encoding.h"
#include "extension/labels.h"
#include "extension/module.h"
#include "extension/options.h"
#include "extension/tasks.h"

/* Positions after `first`. */
enum
{
	ARG_TASK,
	ARG_MODE,
	ARG_ON_ERROR,
	ARG_MAX_TOKENS,
	ARG_TEMPERATURE,
	ARG_TOP_P,
	ARG_TOP_K,
	ARG_SEED,
	ARG_STOP,
	ARG_THINKING,
	ARG_SYSTEM
};

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

uint32
qwen3dm_mode_by_name(const char *name)
{
	if (name == NULL || strcmp(name, "auto") == 0)
		return Q3P_AUTO;
	if (strcmp(name, "efficient") == 0)
		return Q3P_EFFICIENT;
	if (strcmp(name, "precise") == 0)
		return Q3P_PRECISE;
	ereport(ERROR,
	        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("mode \"%s\" does not exist", name),
	         errhint("The modes are \"auto\", \"efficient\" and \"precise\".")));
}

uint32
qwen3dm_mode_argument(FunctionCallInfo fcinfo, int n)
{
	uint32 mode = qwen3dm_mode_by_name(text_argument(fcinfo, n));

	return mode == Q3P_AUTO ? qwen3dm_mode : mode;
}

static bool
on_error_option(const char *name)
{
	if (name == NULL || strcmp(name, "raise") == 0)
		return false;
	if (strcmp(name, "null") == 0)
		return true;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	                errmsg("invalid value for on_error: \"%s\"", name),
	                errhint("The choices are \"raise\" and \"null\".")));
}

static q3p_bytes
utf8_option(Datum value)
{
	q3p_bytes bytes;
	Qwen3dmFailure failure;

	if (!qwen3dm_to_utf8(DatumGetTextPP(value), &bytes, &failure))
		qwen3dm_raise(&failure, 0);
	return bytes;
}

q3p_bytes
qwen3dm_utf8_argument(FunctionCallInfo fcinfo, int n)
{
	return utf8_option(PG_GETARG_DATUM(n));
}

static void
stop_option(ArrayType *array, Qwen3dmOptions *options)
{
	q3p_bytes *stops;
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	options->lists.stops = stops = palloc(sizeof(q3p_bytes) * Max(n, 1));
	options->request.n_stops = n;
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("a stop string must not be null")));
		stops[i] = utf8_option(values[i]);
		if (stops[i].len == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("a stop string must not be empty")));
	}
}

/* NULLs stay absent: the engine has defaults for each mode. */
static void
sampling_options(FunctionCallInfo fcinfo, int first, q3p_request *r)
{
	if (!PG_ARGISNULL(first + ARG_TEMPERATURE))
	{
		r->has_temperature = true;
		r->temperature = PG_GETARG_FLOAT8(first + ARG_TEMPERATURE);
		if (!(r->temperature >= 0) || isinf(r->temperature))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("temperature must be a number not less than 0")));
	}
	if (!PG_ARGISNULL(first + ARG_TOP_P))
	{
		r->has_top_p = true;
		r->top_p = PG_GETARG_FLOAT8(first + ARG_TOP_P);
		if (!(r->top_p > 0 && r->top_p <= 1))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("top_p must be greater than 0 and not greater than 1")));
	}
	if (!PG_ARGISNULL(first + ARG_TOP_K))
	{
		r->has_top_k = true;
		r->top_k = PG_GETARG_INT32(first + ARG_TOP_K);
		if (r->top_k < 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("top_k must not be negative"), errhint("0 means no limit.")));
	}
}

/*
 * What the task says of thinking. A call that asks for mode efficient asks not to think. Answers
 * that are labels have no length that would bound the thinking before them.
 */
static void
task_thinking(Qwen3dmOptions *options)
{
	const Qwen3dmTask *task = options->task;
	q3p_request *r = &options->request;

	if (r->kind != Q3P_GENERATE && r->kind != Q3P_STREAM && r->kind != Q3P_CLASSIFY)
		return;
	if (r->kind == Q3P_CLASSIFY)
		r->thinking_budget = qwen3dm_default_max_tokens();
	if (task == NULL)
		return;
	r->thinking =
	    !task->thinking.isnull && DatumGetBool(task->thinking.value) && r->mode != Q3P_EFFICIENT;
	if (!task->thinking_budget.isnull)
		r->thinking_budget = DatumGetInt32(task->thinking_budget.value);
}

static void
default_mode(Qwen3dmOptions *options)
{
	if (options->task != NULL && options->task->mode != Q3P_AUTO)
	{
		options->request.mode = options->task->mode;
		options->mode_reason = "mode set by the task";
	}
	else if (qwen3dm_mode != Q3P_AUTO)
	{
		options->request.mode = qwen3dm_mode;
		options->mode_reason = "mode set by qwen3dm.mode";
	}
}

void
qwen3dm_default_options(Qwen3dmOptions *options, q3p_kind kind, const char *task, uint32 mode)
{
	memset(options, 0, sizeof(*options));
	options->request.kind = kind;
	options->request.mode = mode;
	options->request.priority = qwen3dm_priority;
	options->request.role = GetUserId();
	options->request.max_tokens = qwen3dm_default_max_tokens();
	if (task != NULL)
	{
		options->task = qwen3dm_task(task);
		options->request.task = options->task->utf8_name;
	}
	if (mode == Q3P_AUTO)
		default_mode(options);
	task_thinking(options);
}

void
qwen3dm_routing_options(FunctionCallInfo fcinfo, int first, q3p_kind kind, Qwen3dmOptions *options)
{
	uint32 mode = qwen3dm_mode_by_name(text_argument(fcinfo, first + ARG_MODE));
	bool null_on_error = on_error_option(text_argument(fcinfo, first + ARG_ON_ERROR));
	char *task = text_argument(fcinfo, first + ARG_TASK);

	qwen3dm_default_options(options, kind, task, mode);
	options->null_on_error = null_on_error;
}

/* What the task says of the answer that is to be generated. */
static void
task_options(Qwen3dmOptions *options)
{
	const Qwen3dmTask *task = options->task;
	q3p_request *r = &options->request;

	if (task == NULL)
		return;
	if (!task->max_tokens.isnull)
		r->max_tokens = DatumGetInt32(task->max_tokens.value);
	if (task->instruction != NULL)
		r->system = utf8_option(PointerGetDatum(task->instruction));
	if (task->examples != NULL)
	{
		q3p_bytes *turns;

		r->n_turns = qwen3dm_turns_from_examples(task->examples, QWEN3DM_ANSWER_ANY, NULL, &turns);
		options->lists.turns = turns;
	}
}

int
qwen3dm_default_max_tokens(void)
{
	return qwen3dm_max_tokens_limit > 0 ? Min(qwen3dm_max_tokens, qwen3dm_max_tokens_limit)
	                                    : qwen3dm_max_tokens;
}

static void
thinking_option(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options)
{
	q3p_request *r = &options->request;

	options->thinking_given = !PG_ARGISNULL(n);
	if (options->thinking_given)
		r->thinking = PG_GETARG_BOOL(n);
	if (r->thinking && r->mode == Q3P_EFFICIENT)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("mode \"efficient\" does not think"),
		                errhint("Use mode => 'precise', or leave thinking out.")));
}

void
qwen3dm_thinking_budget_option(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options)
{
	if (PG_ARGISNULL(n))
		return;
	options->request.thinking_budget = PG_GETARG_INT32(n);
	if (options->request.thinking_budget < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("thinking_budget must be at least 1")));
}

void
qwen3dm_thinking_options(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options)
{
	thinking_option(fcinfo, n, options);
	qwen3dm_thinking_budget_option(fcinfo, n + 1, options);
}

void
qwen3dm_generation_options(FunctionCallInfo fcinfo, int first, q3p_kind kind,
                           Qwen3dmOptions *options)
{
	q3p_request *r = &options->request;

	qwen3dm_routing_options(fcinfo, first, kind, options);

	task_options(options);
	if (!PG_ARGISNULL(first + ARG_MAX_TOKENS))
		r->max_tokens = PG_GETARG_INT32(first + ARG_MAX_TOKENS);
	if (r->max_tokens < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("max_tokens must be at least 1")));
	sampling_options(fcinfo, first, r);
	if (!PG_ARGISNULL(first + ARG_SEED))
	{
		options->fixed_seed = true;
		r->seed = (uint64) PG_GETARG_INT64(first + ARG_SEED);
	}
	if (!PG_ARGISNULL(first + ARG_STOP))
		stop_option(PG_GETARG_ARRAYTYPE_P(first + ARG_STOP), options);
	thinking_option(fcinfo, first + ARG_THINKING, options);
	if (!PG_ARGISNULL(first + ARG_SYSTEM))
		r->system = utf8_option(PG_GETARG_DATUM(first + ARG_SYSTEM));
}

void
qwen3dm_set_schema(Qwen3dmOptions *options, q3p_bytes schema)
{
	if (options->request.n_stops > 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("stop strings cannot be used with a schema"),
		                errdetail("The answer ends where it is whole under the schema.")));
	options->has_schema = true;
	options->request.schema = schema;
}

void
qwen3dm_schema_option(FunctionCallInfo fcinfo, int n, Qwen3dmOptions *options)
{
	Jsonb *schema = options->task != NULL ? options->task->schema : NULL;
	Datum string;

	if (!PG_ARGISNULL(n))
		schema = PG_GETARG_JSONB_P(n);
	if (schema == NULL)
		return;
	string = CStringGetTextDatum(JsonbToCString(NULL, &schema->root, VARSIZE(schema)));
	qwen3dm_set_schema(options, utf8_option(string));
}

void
qwen3dm_infer_options(FunctionCallInfo fcinfo, q3p_kind kind, Qwen3dmOptions *options)
{
	enum
	{
		INFER_OPTIONS = 1,
		INFER_SCHEMA = INFER_OPTIONS + QWEN3DM_GENERATION_OPTIONS,
		INFER_THINKING_BUDGET
	};

	qwen3dm_generation_options(fcinfo, INFER_OPTIONS, kind, options);
	qwen3dm_schema_option(fcinfo, INFER_SCHEMA, options);
	qwen3dm_thinking_budget_option(fcinfo, INFER_THINKING_BUDGET, options);
}

bool
qwen3dm_is_whole(const Qwen3dmOptions *options, const q3p_result *result, Qwen3dmFailure *failure)
{
	if (!options->has_schema || result->finish != Q3P_FINISH_LENGTH)
		return true;
	memset(failure, 0, sizeof(*failure));
	failure->sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	if (result->output_tokens >= options->request.max_tokens)
	{
		failure->message = psprintf("max_tokens (%d) was too small for an answer under the schema",
		                            options->request.max_tokens);
		failure->hint = "Raise max_tokens, or bound the schema's strings and arrays with maxLength "
		                "and maxItems.";
	}
	else
	{
		failure->message =
		    psprintf("the context had room for only %d tokens of an answer under the schema",
		             result->output_tokens);
		failure->hint =
		    "Shorten the input, or increase qwen3dm.context_length if the model allows.";
	}
	return false;
}

bool
qwen3dm_is_passed_over(const Qwen3dmOptions *options, const Qwen3dmFailure *failure)
{
	bool bad_schema = options->has_schema && (failure->sqlstate == ERRCODE_FEATURE_NOT_SUPPORTED ||
	                                          failure->sqlstate == ERRCODE_INVALID_PARAMETER_VALUE);

	return options->null_on_error && !bad_schema;
}

q3p_request
qwen3dm_request_for(const Qwen3dmOptions *options, q3p_bytes prompt)
{
	q3p_request r = options->request;

	r.prompt = prompt;
	if (!options->fixed_seed && !pg_strong_random(&r.seed, sizeof(r.seed)))
		ereport(ERROR,
		        (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random seed")));
	return r;
}
