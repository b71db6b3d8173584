/*
 * classify.c: which of some labels fits a text: qwen_classify, qwen_classify_probs, qwen_score,
 * qwen_filter; and the prefixes that are kept for them, qwen_pin_prefix and qwen_unpin_prefixes.
 *
 * All that is the same for every row, instruction, labels and examples, goes before the row's text,
 * so that it is computed once. The engine answers with a probability for each label and writes
 * nothing, but for what it thinks before, if it is to.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "extension/calibrate.h"
#include "extension/classify.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/tasks.h"

QWEN3DM_FUNCTION(qwen3dm_classify_probs);
QWEN3DM_FUNCTION(qwen3dm_classify_probs_jsonb);
QWEN3DM_FUNCTION(qwen3dm_classify_probs_text);
QWEN3DM_FUNCTION(qwen3dm_pin_prefix);
QWEN3DM_FUNCTION(qwen3dm_unpin_prefixes);

/* Positions of the arguments of qwen_classify and qwen_classify_probs. */
enum
{
	CLASSIFY_INPUT,
	CLASSIFY_LABELS,
	CLASSIFY_ROUTING,
	CLASSIFY_SYSTEM = CLASSIFY_ROUTING + 3,
	CLASSIFY_EXAMPLES,
	CLASSIFY_CALIBRATE,
	CLASSIFY_THINKING
};

/* Those of qwen_score. */
enum
{
	SCORE_INPUT,
	SCORE_STATEMENT,
	SCORE_ROUTING,
	SCORE_EXAMPLES = SCORE_ROUTING + 3,
	SCORE_CALIBRATE,
	SCORE_THINKING
};

/* Those of qwen_filter. */
enum
{
	FILTER_INPUT,
	FILTER_CONDITION,
	FILTER_THRESHOLD,
	FILTER_ROUTING,
	FILTER_EXAMPLES = FILTER_ROUTING + 3,
	FILTER_CALIBRATE,
	FILTER_THINKING
};

/* ---------------------------------------------------------------------------------------------
 * Questions
 * --------------------------------------------------------------------------------------------- */

static void
append_bytes(StringInfo s, const q3p_bytes *bytes)
{
	appendBinaryStringInfo(s, bytes->data, (int) bytes->len);
}

/* What the caller says, or that it is to be classified; then the labels. */
static q3p_bytes
instruction(const q3p_bytes *system, const Qwen3dmLabels *labels)
{
	StringInfoData s;

	initStringInfo(&s);
	if (system != NULL)
		append_bytes(&s, system);
	else
		appendStringInfoString(&s, "Classify the text that the user gives.");
	appendStringInfoString(&s, "\nAnswer with one of these labels, and nothing else:\n");
	for (int i = 0; i < labels->n; i++)
	{
		append_bytes(&s, &labels->names[i]);
		if (labels->descriptions[i].len > 0)
		{
			appendStringInfoString(&s, ": ");
			append_bytes(&s, &labels->descriptions[i]);
		}
		appendStringInfoChar(&s, '\n');
	}
	return (q3p_bytes){s.data, s.len};
}

/* The text of the task's instruction; false: it has none. */
static bool
task_instruction(const Qwen3dmOptions *options, q3p_bytes *bytes)
{
	Qwen3dmFailure failure;

	if (options->task == NULL || options->task->instruction == NULL)
		return false;
	if (!qwen3dm_to_utf8(options->task->instruction, bytes, &failure))
		qwen3dm_raise(&failure, 0);
	return true;
}

/* The examples of the call, or else of its task. */
static void
set_examples(Qwen3dmOptions *options, Jsonb *examples, Qwen3dmAnswerKind kind,
             const Qwen3dmLabels *labels)
{
	q3p_bytes *turns;

	if (examples == NULL && options->task != NULL)
		examples = options->task->examples;
	if (examples == NULL)
		return;
	options->request.n_turns = qwen3dm_turns_from_examples(examples, kind, labels, &turns);
	options->lists.turns = turns;
}

void
qwen3dm_ask_which(Qwen3dmOptions *options, const Qwen3dmLabels *labels, const q3p_bytes *system,
                  Jsonb *examples)
{
	q3p_bytes of_task;

	if (system == NULL && task_instruction(options, &of_task))
		system = &of_task;
	options->request.system = instruction(system, labels);
	options->request.n_labels = labels->n;
	options->lists.labels = labels->names;
	set_examples(options, examples, QWEN3DM_ANSWER_LABEL, labels);
}

bool
qwen3dm_ask_whether(Qwen3dmOptions *options, const q3p_bytes *statement, Jsonb *examples)
{
	static const q3p_bytes answers[] = {{"yes", 3}, {"no", 2}};
	q3p_bytes of_task;
	StringInfoData s;

	if (statement == NULL)
	{
		if (!task_instruction(options, &of_task))
			return false;
		statement = &of_task;
	}
	initStringInfo(&s);
	appendStringInfoString(&s, "Is this true of the text that the user gives?\n");
	append_bytes(&s, statement);
	appendStringInfoString(&s, "\nAnswer yes or no, and nothing else.");
	options->request.system = (q3p_bytes){s.data, s.len};
	options->request.n_labels = lengthof(answers);
	options->lists.labels = answers;
	set_examples(options, examples, QWEN3DM_ANSWER_BOOLEAN, NULL);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Arguments
 * --------------------------------------------------------------------------------------------- */

static Jsonb *
examples_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : PG_GETARG_JSONB_P(n);
}

static bool
calibrate_argument(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

/* All labels are values of the type. */
static void
check_enum(const Qwen3dmLabels *labels, const Qwen3dmLabels *values, Oid type)
{
	for (int i = 0; i < labels->n; i++)
	{
		bool found = false;

		for (int k = 0; k < values->n && !found; k++)
			found = values->names[k].len == labels->names[i].len &&
			        memcmp(values->names[k].data, labels->names[i].data, labels->names[i].len) == 0;
		if (!found)
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			         errmsg("label \"%s\" of the task is not a value of type %s",
			                qwen3dm_readable_bytes(labels->names[i]), format_type_be(type))));
	}
}

bool
qwen3dm_task_labels(const Qwen3dmOptions *options, Oid enum_type, Qwen3dmLabels *labels)
{
	bool has_labels = options->task != NULL && options->task->labels != NULL;

	if (has_labels)
		qwen3dm_labels_from_jsonb(options->task->labels, labels);
	if (OidIsValid(enum_type))
	{
		Qwen3dmLabels values;

		qwen3dm_labels_from_enum(enum_type, &values);
		if (has_labels)
			check_enum(labels, &values, enum_type);
		else
			*labels = values;
		return true;
	}
	return has_labels;
}

/* Without labels of the call's own. */
static bool
labels_of_task(Qwen3dmOptions *options, Qwen3dmLabels *labels)
{
	if (qwen3dm_task_labels(options, options->enum_type, labels))
		return true;
	if (options->task != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("task \"%s\" has no labels", options->task->name),
		                errhint("Give labels in the call, or with qwen_task_alter.")));
	return false;
}

/* Begins with the options that all forms share; where the labels come from is up to them. */
static void
begin_classify(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_routing_options(fcinfo, CLASSIFY_ROUTING, Q3P_CLASSIFY, options);
	options->calibrate = calibrate_argument(fcinfo, CLASSIFY_CALIBRATE);
	qwen3dm_thinking_options(fcinfo, CLASSIFY_THINKING, options);
}

static bool
finish_classify(FunctionCallInfo fcinfo, Qwen3dmOptions *options, Qwen3dmLabels *labels)
{
	q3p_bytes system;
	bool has_system = !PG_ARGISNULL(CLASSIFY_SYSTEM);

	if (labels == NULL)
	{
		labels = palloc(sizeof(Qwen3dmLabels));
		if (!labels_of_task(options, labels))
			return false;
	}
	if (has_system)
		system = qwen3dm_utf8_argument(fcinfo, CLASSIFY_SYSTEM);
	qwen3dm_ask_which(options, labels, has_system ? &system : NULL,
	                  examples_argument(fcinfo, CLASSIFY_EXAMPLES));
	return true;
}

bool
qwen3dm_parse_classify(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	Qwen3dmLabels labels;

	begin_classify(fcinfo, options);
	if (PG_ARGISNULL(CLASSIFY_LABELS))
		return finish_classify(fcinfo, options, NULL);
	qwen3dm_labels_from_array(PG_GETARG_ARRAYTYPE_P(CLASSIFY_LABELS), &labels);
	return finish_classify(fcinfo, options, &labels);
}

bool
qwen3dm_parse_classify_jsonb(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	Qwen3dmLabels labels;

	begin_classify(fcinfo, options);
	if (PG_ARGISNULL(CLASSIFY_LABELS))
		return finish_classify(fcinfo, options, NULL);
	qwen3dm_labels_from_jsonb(PG_GETARG_JSONB_P(CLASSIFY_LABELS), &labels);
	return finish_classify(fcinfo, options, &labels);
}

bool
qwen3dm_parse_classify_text(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	Qwen3dmLabels labels;

	begin_classify(fcinfo, options);
	if (PG_ARGISNULL(CLASSIFY_LABELS))
		return finish_classify(fcinfo, options, NULL);
	qwen3dm_labels_from_text(PG_GETARG_TEXT_PP(CLASSIFY_LABELS), &labels);
	return finish_classify(fcinfo, options, &labels);
}

/* The argument only names its type. */
bool
qwen3dm_parse_classify_enum(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	begin_classify(fcinfo, options);
	options->enum_type = get_fn_expr_argtype(fcinfo->flinfo, CLASSIFY_LABELS);
	if (OidIsValid(options->enum_type))
		options->enum_type = getBaseType(options->enum_type);
	if (!OidIsValid(options->enum_type))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		                errmsg("could not determine the enum type of the labels")));
	return finish_classify(fcinfo, options, NULL);
}

/* Of qwen_score and qwen_filter, whose statement is optional where a task has one. */
static bool
finish_whether(FunctionCallInfo fcinfo, Qwen3dmOptions *options, int statement, int examples)
{
	q3p_bytes bytes;
	bool given = !PG_ARGISNULL(statement);

	if (given)
		bytes = qwen3dm_utf8_argument(fcinfo, statement);
	if (qwen3dm_ask_whether(options, given ? &bytes : NULL, examples_argument(fcinfo, examples)))
		return true;
	if (options->task != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("task \"%s\" has no instruction", options->task->name),
		                errhint("The instruction is the statement that is asked about.")));
	return false;
}

bool
qwen3dm_parse_score(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_routing_options(fcinfo, SCORE_ROUTING, Q3P_CLASSIFY, options);
	options->calibrate = calibrate_argument(fcinfo, SCORE_CALIBRATE);
	qwen3dm_thinking_options(fcinfo, SCORE_THINKING, options);
	return finish_whether(fcinfo, options, SCORE_STATEMENT, SCORE_EXAMPLES);
}

bool
qwen3dm_parse_filter(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_routing_options(fcinfo, FILTER_ROUTING, Q3P_CLASSIFY, options);
	options->calibrate = calibrate_argument(fcinfo, FILTER_CALIBRATE);
	qwen3dm_thinking_options(fcinfo, FILTER_THINKING, options);
	if (PG_ARGISNULL(FILTER_THRESHOLD))
		return false;
	options->threshold = PG_GETARG_FLOAT8(FILTER_THRESHOLD);
	if (!(options->threshold >= 0 && options->threshold <= 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("threshold must be a number from 0 to 1")));
	return finish_whether(fcinfo, options, FILTER_CONDITION, FILTER_EXAMPLES);
}

/* ---------------------------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------------------------- */

double *
qwen3dm_probabilities(const Qwen3dmOptions *options, const q3p_result *result,
                      Qwen3dmFailure *failure)
{
	uint32 n = options->request.n_labels;
	double *probs;

	if (result->n_probs != n)
	{
		memset(failure, 0, sizeof(*failure));
		failure->sqlstate = ERRCODE_PROTOCOL_VIOLATION;
		failure->message = "the qwen3dm engine answered without a probability for each label";
		return NULL;
	}
	probs = palloc(sizeof(double) * n);
	memcpy(probs, result->probs, sizeof(double) * n);
	if (options->calibrate && !qwen3dm_calibrate(options, result, probs, n, failure))
		return NULL;
	return probs;
}

/* The best label, which the engine has chosen unless something was calibrated; false: *failure. */
static bool
best_label(const Qwen3dmOptions *options, const q3p_result *result, q3p_bytes *label,
           Qwen3dmFailure *failure)
{
	double *probs;
	uint32 best = 0;

	*label = result->value;
	if (!options->calibrate)
		return true;
	probs = qwen3dm_probabilities(options, result, failure);
	if (probs == NULL)
		return false;
	for (uint32 i = 1; i < options->request.n_labels; i++)
		best = probs[i] > probs[best] ? i : best;
	*label = qwen3dm_calibration_label(options, best);
	pfree(probs);
	return true;
}

Datum
qwen3dm_classify_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                       Qwen3dmFailure *failure)
{
	q3p_bytes label;
	text *value = NULL;

	if (best_label(options, result, &label, failure))
		value = qwen3dm_from_utf8(label, failure);
	*isnull = value == NULL;
	if (value == NULL || !OidIsValid(options->enum_type))
		return PointerGetDatum(value);
	/* It may have been renamed since it was asked about. */
	return DirectFunctionCall2(enum_in, CStringGetDatum(text_to_cstring(value)),
	                           ObjectIdGetDatum(options->enum_type));
}

/* That the answer is yes; NaN: *failure. */
static double
truth(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
      Qwen3dmFailure *failure)
{
	double *probs = qwen3dm_probabilities(options, result, failure);
	double yes = 0;

	*isnull = probs == NULL;
	if (probs != NULL)
	{
		yes = probs[0];
		pfree(probs);
	}
	return yes;
}

Datum
qwen3dm_score_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                    Qwen3dmFailure *failure)
{
	return Float8GetDatum(truth(options, result, isnull, failure));
}

Datum
qwen3dm_filter_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                     Qwen3dmFailure *failure)
{
	return BoolGetDatum(truth(options, result, isnull, failure) >= options->threshold);
}

/* ---------------------------------------------------------------------------------------------
 * qwen_classify_probs
 * --------------------------------------------------------------------------------------------- */

/* The rows of one call. */
typedef struct Rows
{
	Datum *labels;
	double *probs;
} Rows;

static Datum
probs_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
            Qwen3dmFailure *failure)
{
	double *probs = qwen3dm_probabilities(options, result, failure);

	*isnull = probs == NULL;
	return PointerGetDatum(probs);
}

static Datum
text_datum(q3p_bytes utf8)
{
	Qwen3dmFailure failure;
	text *t = qwen3dm_from_utf8(utf8, &failure);

	if (t == NULL)
		qwen3dm_raise(&failure, 0);
	return PointerGetDatum(t);
}

/* Asks and waits. Number of rows in *n; 0: there is nothing to tell. */
static Rows *
ask_for_rows(FunctionCallInfo fcinfo, const Qwen3dmFunction *function, uint64 *n)
{
	Rows *rows = palloc0(sizeof(Rows));
	Qwen3dmCall call;
	bool isnull;

	qwen3dm_call_start(function, fcinfo, &call);
	rows->probs = (double *) DatumGetPointer(qwen3dm_call_finish(&call, &isnull, NULL));
	*n = isnull ? 0 : call.options.request.n_labels;
	rows->labels = palloc(sizeof(Datum) * Max(*n, 1));
	for (uint64 i = 0; i < *n; i++)
		rows->labels[i] = text_datum(call.options.lists.labels[i]);
	return rows;
}

static Datum
classify_probs(FunctionCallInfo fcinfo, const Qwen3dmFunction *function)
{
	FuncCallContext *funcctx;
	Rows *rows;
	Datum values[2];
	bool nulls[2] = {false, false};
	uint64 i;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext old;
		TupleDesc tupdesc;

		funcctx = SRF_FIRSTCALL_INIT();
		old = MemoryContextSwitchTo(funcctx->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE ||
		    tupdesc->natts != lengthof(values))
			elog(ERROR, "qwen_classify_probs does not return what its library makes");
		funcctx->tuple_desc = BlessTupleDesc(tupdesc);
		funcctx->user_fctx = ask_for_rows(fcinfo, function, &funcctx->max_calls);
		MemoryContextSwitchTo(old);
	}
	funcctx = SRF_PERCALL_SETUP();
	i = funcctx->call_cntr;
	if (i >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	rows = funcctx->user_fctx;
	values[0] = rows->labels[i];
	values[1] = Float8GetDatum(rows->probs[i]);
	SRF_RETURN_NEXT(funcctx,
	                HeapTupleGetDatum(heap_form_tuple(funcctx->tuple_desc, values, nulls)));
}

Datum
qwen3dm_classify_probs(PG_FUNCTION_ARGS)
{
	static const Qwen3dmFunction f = {NULL, qwen3dm_parse_classify, probs_value};

	return classify_probs(fcinfo, &f);
}

Datum
qwen3dm_classify_probs_jsonb(PG_FUNCTION_ARGS)
{
	static const Qwen3dmFunction f = {NULL, qwen3dm_parse_classify_jsonb, probs_value};

	return classify_probs(fcinfo, &f);
}

Datum
qwen3dm_classify_probs_text(PG_FUNCTION_ARGS)
{
	static const Qwen3dmFunction f = {NULL, qwen3dm_parse_classify_text, probs_value};

	return classify_probs(fcinfo, &f);
}

/* ---------------------------------------------------------------------------------------------
 * Prefixes that stay
 * --------------------------------------------------------------------------------------------- */

/* Sends and waits; the number of tokens that the answer tells. */
static int32
ask_about_pins(const q3p_request *message)
{
	Qwen3dmRequest *r = qwen3dm_submit(message, NULL);
	int32 n;

	qwen3dm_wait(r);
	if (r->failure.sqlstate != 0)
		qwen3dm_raise(&r->failure, 0);
	n = r->result.prompt_tokens;
	qwen3dm_release(r);
	return n;
}

/* (system, labels, mode): the system text itself, or with labels the instruction of qwen_classify;
 * in mode auto for either, because either may answer. */
Datum
qwen3dm_pin_prefix(PG_FUNCTION_ARGS)
{
	Qwen3dmOptions options;
	q3p_bytes system;
	bool has_system = !PG_ARGISNULL(0);

	memset(&options, 0, sizeof(options));
	options.request.mode = qwen3dm_mode_argument(fcinfo, 2);
	if (!has_system && PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (has_system)
		system = qwen3dm_utf8_argument(fcinfo, 0);
	if (PG_ARGISNULL(1))
		options.request.system = system;
	else
	{
		Qwen3dmLabels labels;

		qwen3dm_labels_from_array(PG_GETARG_ARRAYTYPE_P(1), &labels);
		options.request.system = instruction(has_system ? &system : NULL, &labels);
	}
	options.request.kind = Q3P_PIN;
	if (options.request.mode == Q3P_AUTO)
	{
		options.request.mode = Q3P_EFFICIENT;
		(void) ask_about_pins(&options.request);
		options.request.mode = Q3P_PRECISE;
	}
	PG_RETURN_INT32(ask_about_pins(&options.request));
}

Datum
qwen3dm_unpin_prefixes(PG_FUNCTION_ARGS)
{
	q3p_request message = {.kind = Q3P_UNPIN};

	(void) ask_about_pins(&message);
	PG_RETURN_VOID();
}
