/*
 * classify.c: which of some labels fits a text: qwen_classify, qwen_classify_probs, qwen_filter;
 * and the prefixes that are kept for them, qwen_pin_prefix and qwen_unpin_prefixes.
 *
 * All that is the same for every row, instruction and labels, goes before the row's text, so that
 * it is computed once. The engine answers with a probability for each label and writes nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "extension/call.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/options.h"

QWEN3DM_FUNCTION(qwen3dm_classify_probs);
QWEN3DM_FUNCTION(qwen3dm_pin_prefix);
QWEN3DM_FUNCTION(qwen3dm_unpin_prefixes);

/* Positions of the arguments of qwen_classify and qwen_classify_probs. */
enum
{
	CLASSIFY_INPUT,
	CLASSIFY_LABELS,
	CLASSIFY_ROUTING,
	CLASSIFY_SYSTEM = CLASSIFY_ROUTING + 3
};

/* Those of qwen_filter. */
enum
{
	FILTER_INPUT,
	FILTER_CONDITION,
	FILTER_THRESHOLD,
	FILTER_ROUTING
};

/* ---------------------------------------------------------------------------------------------
 * Questions
 * --------------------------------------------------------------------------------------------- */

static void
check_label(const q3p_bytes *labels, int n)
{
	if (labels[n].len == 0)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a label must not be empty")));
	for (int i = 0; i < n; i++)
	{
		if (labels[i].len == labels[n].len &&
		    memcmp(labels[i].data, labels[n].data, labels[n].len) == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("labels must differ from each other"),
			                errdetail("Labels %d and %d are equal.", i + 1, n + 1)));
	}
}

static void
set_labels(ArrayType *array, Qwen3dmOptions *options)
{
	q3p_bytes *labels;
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n < 1 || n > Q3P_MAX_LABELS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be 1 to %d labels, not %d", Q3P_MAX_LABELS, n)));
	options->lists.labels = labels = palloc(sizeof(q3p_bytes) * n);
	options->request.n_labels = n;
	for (int i = 0; i < n; i++)
	{
		Qwen3dmFailure failure;

		if (nulls[i])
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a label must not be null")));
		if (!qwen3dm_to_utf8(DatumGetTextPP(values[i]), &labels[i], &failure))
			qwen3dm_raise(&failure, 0);
		check_label(labels, i);
	}
}

/* The instruction: what the caller says, or that it is to be classified; then the labels. */
static q3p_bytes
labels_instruction(const q3p_bytes *system, const Qwen3dmOptions *options)
{
	StringInfoData s;

	initStringInfo(&s);
	if (system != NULL)
		appendBinaryStringInfo(&s, system->data, (int) system->len);
	else
		appendStringInfoString(&s, "Classify the text that the user gives.");
	appendStringInfoString(&s, "\nAnswer with one of these labels, and nothing else:\n");
	for (uint32 i = 0; i < options->request.n_labels; i++)
	{
		appendBinaryStringInfo(&s, options->lists.labels[i].data,
		                       (int) options->lists.labels[i].len);
		appendStringInfoChar(&s, '\n');
	}
	return (q3p_bytes){s.data, s.len};
}

bool
qwen3dm_parse_classify(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	q3p_bytes system;
	bool has_system = !PG_ARGISNULL(CLASSIFY_SYSTEM);

	qwen3dm_routing_options(fcinfo, CLASSIFY_ROUTING, Q3P_CLASSIFY, options);
	if (PG_ARGISNULL(CLASSIFY_LABELS))
		return false;
	set_labels(PG_GETARG_ARRAYTYPE_P(CLASSIFY_LABELS), options);
	if (has_system)
		system = qwen3dm_utf8_argument(fcinfo, CLASSIFY_SYSTEM);
	options->request.system = labels_instruction(has_system ? &system : NULL, options);
	return true;
}

bool
qwen3dm_parse_filter(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	static const q3p_bytes answers[] = {{"yes", 3}, {"no", 2}};
	q3p_bytes condition;
	StringInfoData s;

	qwen3dm_routing_options(fcinfo, FILTER_ROUTING, Q3P_CLASSIFY, options);
	if (PG_ARGISNULL(FILTER_CONDITION) || PG_ARGISNULL(FILTER_THRESHOLD))
		return false;
	options->threshold = PG_GETARG_FLOAT8(FILTER_THRESHOLD);
	if (!(options->threshold >= 0 && options->threshold <= 1))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("threshold must be a number from 0 to 1")));

	condition = qwen3dm_utf8_argument(fcinfo, FILTER_CONDITION);
	initStringInfo(&s);
	appendStringInfoString(&s, "Is this true of the text that the user gives?\n");
	appendBinaryStringInfo(&s, condition.data, (int) condition.len);
	appendStringInfoString(&s, "\nAnswer yes or no, and nothing else.");
	options->request.system = (q3p_bytes){s.data, s.len};
	options->lists.labels = answers;
	options->request.n_labels = lengthof(answers);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------------------------- */

bool
qwen3dm_probability(const q3p_result *result, uint32 i, double *p, Qwen3dmFailure *failure)
{
	if (i < result->n_probs)
	{
		memcpy(p, result->probs + i * sizeof(*p), sizeof(*p));
		return true;
	}
	memset(failure, 0, sizeof(*failure));
	failure->sqlstate = ERRCODE_PROTOCOL_VIOLATION;
	failure->message = "the qwen3dm engine answered without a probability for each label";
	return false;
}

Datum
qwen3dm_filter_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                     Qwen3dmFailure *failure)
{
	double yes = 0;

	*isnull = !qwen3dm_probability(result, 0, &yes, failure);
	return BoolGetDatum(yes >= options->threshold);
}

/* The rows of one call of qwen_classify_probs. */
typedef struct Probabilities
{
	Datum *labels;
	bool *nulls;
	double *values;
} Probabilities;

/* Asks and waits. Number of labels in *n; 0: there is nothing to tell. */
static Probabilities *
ask_probabilities(FunctionCallInfo fcinfo, uint64 *n)
{
	Probabilities *p = palloc0(sizeof(Probabilities));
	Qwen3dmOptions options;
	Qwen3dmFailure failure = {0};
	Qwen3dmRequest *r;
	int n_labels;

	*n = 0;
	if (!qwen3dm_parse_classify(fcinfo, &options) || PG_ARGISNULL(CLASSIFY_INPUT))
		return p;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P_COPY(CLASSIFY_LABELS), TEXTOID, -1, false, TYPALIGN_INT,
	                  &p->labels, &p->nulls, &n_labels);
	p->values = palloc(sizeof(double) * n_labels);
	r = qwen3dm_submit_prompt(&options, PG_GETARG_TEXT_PP(CLASSIFY_INPUT), &failure);
	if (r != NULL)
	{
		qwen3dm_wait(r);
		if (r->failure.sqlstate != 0)
			qwen3dm_copy_failure(&failure, &r->failure);
		for (int i = 0; i < n_labels && failure.sqlstate == 0; i++)
			(void) qwen3dm_probability(&r->result, i, &p->values[i], &failure);
		qwen3dm_release(r);
	}
	if (failure.sqlstate == 0)
		*n = n_labels;
	else if (!options.null_on_error)
		qwen3dm_raise(&failure, 0);
	return p;
}

Datum
qwen3dm_classify_probs(PG_FUNCTION_ARGS)
{
	FuncCallContext *funcctx;
	Probabilities *p;
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
		funcctx->user_fctx = ask_probabilities(fcinfo, &funcctx->max_calls);
		MemoryContextSwitchTo(old);
	}
	funcctx = SRF_PERCALL_SETUP();
	i = funcctx->call_cntr;
	if (i >= funcctx->max_calls)
		SRF_RETURN_DONE(funcctx);
	p = funcctx->user_fctx;
	values[0] = p->labels[i];
	values[1] = Float8GetDatum(p->values[i]);
	SRF_RETURN_NEXT(funcctx,
	                HeapTupleGetDatum(heap_form_tuple(funcctx->tuple_desc, values, nulls)));
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

/* (system, labels, mode): the system text itself, or with labels the instruction of qwen_classify.
 */
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
		set_labels(PG_GETARG_ARRAYTYPE_P(1), &options);
		options.request.system = labels_instruction(has_system ? &system : NULL, &options);
		options.request.n_labels = 0;
	}
	options.request.kind = Q3P_PIN;
	PG_RETURN_INT32(ask_about_pins(&options.request));
}

Datum
qwen3dm_unpin_prefixes(PG_FUNCTION_ARGS)
{
	q3p_request message = {.kind = Q3P_UNPIN};

	(void) ask_about_pins(&message);
	PG_RETURN_VOID();
}
