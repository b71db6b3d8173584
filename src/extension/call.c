/*
 * call.c: calls that make a request or two each, and the SQL functions that are nothing but such
 * calls. See call.h.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "extension/calibrate.h"
#include "extension/classify.h"
#include "extension/encoding.h"
#include "extension/module.h"

PG_FUNCTION_INFO_V1(qwen3dm_infer);
PG_FUNCTION_INFO_V1(qwen3dm_logprob);
PG_FUNCTION_INFO_V1(qwen3dm_classify);
PG_FUNCTION_INFO_V1(qwen3dm_classify_jsonb);
PG_FUNCTION_INFO_V1(qwen3dm_classify_text);
PG_FUNCTION_INFO_V1(qwen3dm_classify_enum);
PG_FUNCTION_INFO_V1(qwen3dm_score);
PG_FUNCTION_INFO_V1(qwen3dm_filter);
PG_FUNCTION_INFO_V1(qwen3dm_extract);
PG_FUNCTION_INFO_V1(qwen3dm_extract_json);
PG_FUNCTION_INFO_V1(qwen3dm_extract_row);
PG_FUNCTION_INFO_V1(qwen3dm_summarize);
PG_FUNCTION_INFO_V1(qwen3dm_embed);
PG_FUNCTION_INFO_V1(qwen3dm_similarity);

Qwen3dmLeniency *qwen3dm_leniency = NULL;

/* ---------------------------------------------------------------------------------------------
 * Requests
 * --------------------------------------------------------------------------------------------- */

/* One after the other, palloc'd. */
static q3p_bytes
join(q3p_bytes a, q3p_bytes b)
{
	char *data = palloc_extended(a.len + b.len, MCXT_ALLOC_HUGE);

	memcpy(data, a.data, a.len);
	memcpy(data + a.len, b.data, b.len);
	return (q3p_bytes){data, a.len + b.len};
}

static Qwen3dmRequest *
submit_bytes(const Qwen3dmOptions *options, q3p_bytes prompt)
{
	q3p_request message;
	Qwen3dmDecision decision;

	if (options->before.len > 0)
		prompt = join(options->before, prompt);
	message = qwen3dm_request_for(options, prompt);
	qwen3dm_decide(options, &message, &decision);
	return qwen3dm_submit_decided(&message, &options->lists, &decision);
}

Qwen3dmRequest *
qwen3dm_submit_prompt(const Qwen3dmOptions *options, const text *prompt, Qwen3dmFailure *failure)
{
	q3p_bytes bytes;

	return qwen3dm_to_utf8(prompt, &bytes, failure) ? submit_bytes(options, bytes) : NULL;
}

static Qwen3dmRequest *
submit_row(Qwen3dmOptions *options, q3p_bytes prompt)
{
	Qwen3dmRequest *r;

	if (options->calibrate)
		qwen3dm_calibration_start(options);
	r = submit_bytes(options, prompt);
	if (options->calibrate)
		qwen3dm_calibration_keep(options, r);
	return r;
}

/* An error that keeps anything from being asked, as a failure that lasts; those of the user, who
 * cancels, are raised. */
static void
note_outage(Qwen3dmFailure *failure)
{
	Qwen3dmLeniency *l = qwen3dm_leniency;
	MemoryContext old = MemoryContextSwitchTo(l->context);
	ErrorData *error = CopyErrorData();

	MemoryContextSwitchTo(old);
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		PG_RE_THROW();
	FlushErrorState();
	l->outage = true;
	memset(failure, 0, sizeof(*failure));
	failure->sqlstate = error->sqlerrcode;
	failure->message = error->message;
	failure->detail = error->detail;
	failure->hint = error->hint;
	if (l->failure.sqlstate == 0)
		l->failure = *failure;
}

Qwen3dmRequest *
qwen3dm_submit_row(Qwen3dmOptions *options, q3p_bytes prompt, Qwen3dmFailure *failure)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Qwen3dmRequest *volatile r = NULL;

	if (qwen3dm_leniency == NULL || !options->null_on_error)
		return submit_row(options, prompt);
	if (qwen3dm_leniency->outage)
	{
		*failure = qwen3dm_leniency->failure;
		return NULL;
	}
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		r = submit_row(options, prompt);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		note_outage(failure);
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return r;
}

void
qwen3dm_note_failure(const Qwen3dmFailure *failure)
{
	Qwen3dmLeniency *l = qwen3dm_leniency;
	MemoryContext old;

	if (l == NULL)
		return;
	l->n_failed++;
	if (l->failure.sqlstate != 0)
		return;
	old = MemoryContextSwitchTo(l->context);
	qwen3dm_copy_failure(&l->failure, failure);
	MemoryContextSwitchTo(old);
}

void
qwen3dm_copy_failure(Qwen3dmFailure *to, const Qwen3dmFailure *from)
{
	to->sqlstate = from->sqlstate;
	to->message = pstrdup(from->message);
	to->detail = from->detail != NULL ? pstrdup(from->detail) : NULL;
	to->hint = from->hint != NULL ? pstrdup(from->hint) : NULL;
}

text *
qwen3dm_take_text(const Qwen3dmOptions *options, Qwen3dmRequest *r, Qwen3dmFailure *failure)
{
	text *value = NULL;

	if (r->failure.sqlstate != 0)
		qwen3dm_copy_failure(failure, &r->failure);
	else if (qwen3dm_is_whole(options, &r->result, failure))
		value = qwen3dm_from_utf8(r->result.value, failure);
	qwen3dm_release(r);
	return value;
}

/* ---------------------------------------------------------------------------------------------
 * Calls
 * --------------------------------------------------------------------------------------------- */

static int
requests_of(const Qwen3dmFunction *function)
{
	return function->value_of_two != NULL ? 2 : 1;
}

void
qwen3dm_call_start(const Qwen3dmFunction *function, FunctionCallInfo fcinfo, Qwen3dmCall *call)
{
	int n = requests_of(function);

	memset(call, 0, sizeof(*call));
	call->function = function;
	if (!function->parse(fcinfo, &call->options) || PG_ARGISNULL(0) || PG_ARGISNULL(n - 1))
		return;
	for (int i = 0; i < n; i++)
	{
		q3p_bytes prompt;
		Qwen3dmRequest *r = NULL;

		if (qwen3dm_to_utf8(PG_GETARG_TEXT_PP(i), &prompt, &call->failure) &&
		    (function->prepare == NULL ||
		     function->prepare(&call->options, &prompt, &call->failure)))
			r = qwen3dm_submit_row(&call->options, prompt, &call->failure);
		if (r == NULL)
		{
			qwen3dm_call_drop(call);
			return;
		}
		call->ids[i] = r->id;
	}
}

/* NULL: there was none, or it is gone. */
static Qwen3dmRequest *
request_of(const Qwen3dmCall *call, int i)
{
	return call->ids[i] != 0 ? qwen3dm_reattach(call->ids[i]) : NULL;
}

void
qwen3dm_call_keep(Qwen3dmCall *call)
{
	for (int i = 0; i < lengthof(call->ids); i++)
	{
		Qwen3dmRequest *r = request_of(call, i);

		if (r != NULL)
			qwen3dm_detach(r);
	}
}

void
qwen3dm_call_drop(Qwen3dmCall *call)
{
	for (int i = 0; i < lengthof(call->ids); i++)
	{
		Qwen3dmRequest *r = request_of(call, i);

		if (r != NULL)
			qwen3dm_release(r);
		call->ids[i] = 0;
	}
}

static void
add_to_tally(Qwen3dmTally *tally, const q3p_result *result)
{
	tally->prompt_tokens += result->prompt_tokens;
	tally->cached_tokens += result->cached_tokens;
	tally->output_tokens += result->output_tokens;
	tally->deduplicated += result->deduplicated;
	tally->efficient += result->mode == Q3P_EFFICIENT;
	tally->precise += result->mode == Q3P_PRECISE;
	tally->escalated += result->escalated;
}

/* Waits for the call's requests; false: one of them has no result, the call's failure says why. */
static bool
wait_for_results(Qwen3dmCall *call, const q3p_result **results, Qwen3dmTally *tally)
{
	int n = requests_of(call->function);

	for (int i = 0; i < n; i++)
	{
		Qwen3dmRequest *r = request_of(call, i);

		if (r == NULL)
			ereport(ERROR,
			        (errcode(ERRCODE_QUERY_CANCELED),
			         errmsg("the answer was canceled with the transaction that asked for it")));
		qwen3dm_wait(r);
		if (r->failure.sqlstate != 0)
		{
			qwen3dm_copy_failure(&call->failure, &r->failure);
			return false;
		}
		results[i] = &r->result;
		if (tally != NULL)
			add_to_tally(tally, &r->result);
	}
	return true;
}

Datum
qwen3dm_call_finish(Qwen3dmCall *call, bool *isnull, Qwen3dmTally *tally)
{
	const Qwen3dmFunction *function = call->function;
	const q3p_result *results[lengthof(call->ids)];
	Datum value = (Datum) 0;

	*isnull = true;
	if (call->ids[0] != 0)
	{
		if (wait_for_results(call, results, tally))
			value = function->value_of_two != NULL
			            ? function->value_of_two(&call->options, results, isnull, &call->failure)
			            : function->value(&call->options, results[0], isnull, &call->failure);
		qwen3dm_call_drop(call);
	}
	if (call->failure.sqlstate != 0)
	{
		qwen3dm_note_failure(&call->failure);
		if (!qwen3dm_is_passed_over(&call->options, &call->failure))
			qwen3dm_raise(&call->failure, 0);
	}
	return value;
}

/* Such a function, called by SQL. */
static Datum
call(const Qwen3dmFunction *function, FunctionCallInfo fcinfo)
{
	Qwen3dmCall c;

	qwen3dm_call_start(function, fcinfo, &c);
	return qwen3dm_call_finish(&c, &fcinfo->isnull, NULL);
}

/* ---------------------------------------------------------------------------------------------
 * The functions
 * --------------------------------------------------------------------------------------------- */

static bool
parse_infer(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_infer_options(fcinfo, Q3P_GENERATE, options);
	return true;
}

static bool
parse_logprob(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_routing_options(fcinfo, 1, Q3P_LOGPROB, options);
	return true;
}

static Datum
text_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
           Qwen3dmFailure *failure)
{
	text *value = NULL;

	if (qwen3dm_is_whole(options, result, failure))
		value = qwen3dm_from_utf8(result->value, failure);
	*isnull = value == NULL;
	return PointerGetDatum(value);
}

static Datum
logprob_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
              Qwen3dmFailure *failure)
{
	*isnull = isnan(result->score);
	return *isnull ? (Datum) 0 : Float8GetDatum(result->score);
}

static const Qwen3dmFunction infer = {qwen3dm_infer, parse_infer, text_value};
static const Qwen3dmFunction logprob = {qwen3dm_logprob, parse_logprob, logprob_value,
                                        .shared = true};
static const Qwen3dmFunction classify = {qwen3dm_classify, qwen3dm_parse_classify,
                                         qwen3dm_classify_value, .shared = true};
static const Qwen3dmFunction classify_jsonb = {qwen3dm_classify_jsonb, qwen3dm_parse_classify_jsonb,
                                               qwen3dm_classify_value, .shared = true};
static const Qwen3dmFunction classify_text = {qwen3dm_classify_text, qwen3dm_parse_classify_text,
                                              qwen3dm_classify_value, .shared = true};
static const Qwen3dmFunction classify_enum = {qwen3dm_classify_enum, qwen3dm_parse_classify_enum,
                                              qwen3dm_classify_value, .shared = true};
static const Qwen3dmFunction score = {qwen3dm_score, qwen3dm_parse_score, qwen3dm_score_value,
                                      .shared = true};
static const Qwen3dmFunction filter = {qwen3dm_filter, qwen3dm_parse_filter, qwen3dm_filter_value,
                                       .shared = true};
static const Qwen3dmFunction extract = {qwen3dm_extract, qwen3dm_parse_extract,
                                        qwen3dm_extract_value, .shared = true};
static const Qwen3dmFunction extract_json = {qwen3dm_extract_json, qwen3dm_parse_extract_json,
                                             qwen3dm_extract_value, .shared = true};
static const Qwen3dmFunction extract_row = {qwen3dm_extract_row, qwen3dm_parse_extract_row,
                                            qwen3dm_extract_row_value, .shared = true};

static const Qwen3dmFunction summarize = {qwen3dm_summarize, qwen3dm_parse_summarize, text_value,
                                          .prepare = qwen3dm_prepare_summarize};
static const Qwen3dmFunction embed = {qwen3dm_embed, qwen3dm_parse_embed, qwen3dm_embed_value,
                                      .shared = true};
static const Qwen3dmFunction similarity = {qwen3dm_similarity, qwen3dm_parse_similarity,
                                           .shared = true,
                                           .value_of_two = qwen3dm_similarity_value};

const Qwen3dmFunction *
qwen3dm_function_at(PGFunction address)
{
	static const Qwen3dmFunction *const functions[] = {
	    &infer,         &logprob,      &classify,    &classify_jsonb, &classify_text,
	    &classify_enum, &score,        &filter,      &embed,          &similarity,
	    &extract,       &extract_json, &extract_row, &summarize};

	for (int i = 0; i < lengthof(functions); i++)
	{
		if (functions[i]->address == address)
			return functions[i];
	}
	return NULL;
}

Datum
qwen3dm_infer(PG_FUNCTION_ARGS)
{
	return call(&infer, fcinfo);
}

Datum
qwen3dm_logprob(PG_FUNCTION_ARGS)
{
	return call(&logprob, fcinfo);
}

Datum
qwen3dm_classify(PG_FUNCTION_ARGS)
{
	return call(&classify, fcinfo);
}

Datum
qwen3dm_classify_jsonb(PG_FUNCTION_ARGS)
{
	return call(&classify_jsonb, fcinfo);
}

Datum
qwen3dm_classify_text(PG_FUNCTION_ARGS)
{
	return call(&classify_text, fcinfo);
}

Datum
qwen3dm_classify_enum(PG_FUNCTION_ARGS)
{
	return call(&classify_enum, fcinfo);
}

Datum
qwen3dm_score(PG_FUNCTION_ARGS)
{
	return call(&score, fcinfo);
}

Datum
qwen3dm_filter(PG_FUNCTION_ARGS)
{
	return call(&filter, fcinfo);
}

Datum
qwen3dm_extract(PG_FUNCTION_ARGS)
{
	return call(&extract, fcinfo);
}

Datum
qwen3dm_extract_json(PG_FUNCTION_ARGS)
{
	return call(&extract_json, fcinfo);
}

Datum
qwen3dm_extract_row(PG_FUNCTION_ARGS)
{
	return call(&extract_row, fcinfo);
}

Datum
qwen3dm_summarize(PG_FUNCTION_ARGS)
{
	return call(&summarize, fcinfo);
}

Datum
qwen3dm_embed(PG_FUNCTION_ARGS)
{
	return call(&embed, fcinfo);
}

Datum
qwen3dm_similarity(PG_FUNCTION_ARGS)
{
	return call(&similarity, fcinfo);
}
