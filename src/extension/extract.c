/*
 * extract.c: qwen_extract, what a text says as JSON under a schema, or as a row of a composite
 * type.
 *
 * The engine writes nothing that the schema forbids, so what is left to do is a cast. The
 * instruction holds the schema, with its descriptions, and is the same for every row: the row's
 * text comes last. A row's schema is made from the catalog (type_schema.c) once for each command
 * that calls the function, and kept with the call.
 *
 * A cast that fails all the same (a domain's check) is an error of the row. All that the server can
 * do is raise it, so it is caught here.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "extension/call.h"
#include "extension/encoding.h"
#include "extension/type_schema.h"

/* Positions of the arguments. */
enum
{
	EXTRACT_INPUT,
	EXTRACT_SCHEMA,
	EXTRACT_OPTIONS,
	EXTRACT_THINKING_BUDGET = EXTRACT_OPTIONS + QWEN3DM_GENERATION_OPTIONS
};

/* What the calls of one place in a query need to know of the type; in fn_extra. */
typedef struct RowSchema
{
	MemoryContext context; /* of the schema's text */
	TimestampTz statement; /* that it was made for, */
	CommandId command;     /* and the command of its transaction: later ones may change the type */
	Oid type;
	q3p_bytes schema; /* NULL: none yet */
} RowSchema;

/* ---------------------------------------------------------------------------------------------
 * Questions
 * --------------------------------------------------------------------------------------------- */

/* The instruction: what the caller says, or that something is to be extracted; then the schema. */
static q3p_bytes
extract_instruction(q3p_bytes system, q3p_bytes schema)
{
	StringInfoData s;

	initStringInfo(&s);
	if (system.data != NULL)
		appendBinaryStringInfo(&s, system.data, (int) system.len);
	else
		appendStringInfoString(
		    &s, "Extract what the text that the user gives says about the properties below. Take "
		        "values from the text only; where it says nothing about a property that may be "
		        "null, the value is null.");
	appendStringInfoString(
	    &s, "\nAnswer with JSON, and nothing else. It has to follow this JSON Schema:\n");
	appendBinaryStringInfo(&s, schema.data, (int) schema.len);
	return (q3p_bytes){s.data, s.len};
}

static void
ask_under(q3p_bytes schema, Qwen3dmOptions *options)
{
	qwen3dm_set_schema(options, schema);
	options->request.system = extract_instruction(options->request.system, schema);
}

static void
extract_options(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	qwen3dm_generation_options(fcinfo, EXTRACT_OPTIONS, Q3P_GENERATE, options);
	qwen3dm_thinking_budget_option(fcinfo, EXTRACT_THINKING_BUDGET, options);
}

bool
qwen3dm_parse_extract(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	extract_options(fcinfo, options);
	qwen3dm_schema_option(fcinfo, EXTRACT_SCHEMA, options);
	if (!options->has_schema)
		return false;
	ask_under(options->request.schema, options);
	return true;
}

bool
qwen3dm_parse_extract_json(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	extract_options(fcinfo, options);
	if (PG_ARGISNULL(EXTRACT_SCHEMA))
		return false;
	ask_under(qwen3dm_utf8_argument(fcinfo, EXTRACT_SCHEMA), options);
	return true;
}

static q3p_bytes
make_row_schema(Oid type)
{
	StringInfoData s;
	q3p_bytes bytes;
	Qwen3dmFailure failure;

	initStringInfo(&s);
	qwen3dm_append_type_schema(&s, type);
	if (!qwen3dm_to_utf8(cstring_to_text_with_len(s.data, s.len), &bytes, &failure))
		qwen3dm_raise(&failure, 0);
	return bytes;
}

/* The schema of the second argument's type. */
static RowSchema *
row_schema(FunctionCallInfo fcinfo)
{
	RowSchema *row = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (row == NULL)
	{
		row = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(RowSchema));
		row->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "qwen3dm schema of a type",
		                                     ALLOCSET_SMALL_SIZES);
		row->type = get_fn_expr_argtype(fcinfo->flinfo, EXTRACT_SCHEMA);
		fcinfo->flinfo->fn_extra = row;
	}
	if (row->schema.data != NULL && row->statement == GetCurrentStatementStartTimestamp() &&
	    row->command == GetCurrentCommandId(false))
		return row;

	row->schema.data = NULL;
	MemoryContextReset(row->context);
	old = MemoryContextSwitchTo(row->context);
	row->schema = make_row_schema(row->type);
	MemoryContextSwitchTo(old);
	row->statement = GetCurrentStatementStartTimestamp();
	row->command = GetCurrentCommandId(false);
	return row;
}

bool
qwen3dm_parse_extract_row(FunctionCallInfo fcinfo, Qwen3dmOptions *options)
{
	RowSchema *row;

	extract_options(fcinfo, options);
	row = row_schema(fcinfo);
	options->type = row->type;
	ask_under(row->schema, options);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------------------------- */

/* As json_populate_record(NULL::type, value) does. */
static Datum
cast_to_row(text *value, Oid type, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 3);
	FmgrInfo info;
	List *args = list_make2(makeNullConst(type, -1, InvalidOid),
	                        makeConst(JSONOID, -1, InvalidOid, -1, (Datum) 0, true, false));
	Datum row;

	fmgr_info(F_JSON_POPULATE_RECORD, &info);
	fmgr_info_set_expr((Node *) makeFuncExpr(info.fn_oid, type, args, InvalidOid, InvalidOid,
	                                         COERCE_EXPLICIT_CALL),
	                   &info);
	InitFunctionCallInfoData(*fcinfo, &info, 3, InvalidOid, NULL, NULL);
	fcinfo->args[0] = (NullableDatum){(Datum) 0, true};
	fcinfo->args[1] = (NullableDatum){PointerGetDatum(value), false};
	fcinfo->args[2] = (NullableDatum){BoolGetDatum(false), false};
	row = json_populate_record(fcinfo);
	*isnull = fcinfo->isnull;
	return row;
}

static Datum
cast(text *value, Oid type, bool *isnull)
{
	if (type == JSONBOID)
		return DirectFunctionCall1(jsonb_in, CStringGetDatum(text_to_cstring(value)));
	return cast_to_row(value, type, isnull);
}

/* What the server said about the cast, without the value, which its message may have. */
static void
describe_failure(const ErrorData *error, const char *type_name, Qwen3dmFailure *failure)
{
	bool is_check = error->datatype_name != NULL;

	failure->sqlstate = error->sqlerrcode;
	failure->message = psprintf("the answer cannot be cast to type %s", type_name);
	failure->detail = is_check ? error->message : NULL;
	failure->hint = NULL;
}

/*
 * Of a domain's check itself, which leaves nothing behind; functions that the check calls, and that
 * are still running, say so in its context.
 */
static bool
is_plain_check(const ErrorData *error)
{
	return error->datatype_name != NULL && error->context == NULL;
}

/*
 * Errors become failures. One that is to be passed over needs a subtransaction to clean up after
 * it; where there can be none, in parallel plans, only those are passed over that leave nothing to
 * clean up.
 */
static Datum
guarded_cast(text *value, Oid type, bool pass_over, bool *isnull, Qwen3dmFailure *failure)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorContextCallback *callers = error_context_stack;
	bool subtransaction = pass_over && !IsInParallelMode();
	char *type_name = format_type_be(type);
	volatile Datum result = (Datum) 0;

	if (subtransaction)
	{
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
	}
	PG_TRY();
	{
		if (pass_over && !subtransaction)
			error_context_stack = NULL; /* what is in it then belongs to the cast */
		result = cast(value, type, isnull);
		error_context_stack = callers;
		if (subtransaction)
			ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		if (subtransaction)
			RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		describe_failure(error, type_name, failure);
		if (pass_over && !subtransaction && !is_plain_check(error))
			qwen3dm_raise(failure, 0);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

static Datum
value_of_type(const Qwen3dmOptions *options, const q3p_result *result, Oid type, bool *isnull,
              Qwen3dmFailure *failure)
{
	text *value = NULL;
	Datum datum;

	if (qwen3dm_is_whole(options, result, failure))
		value = qwen3dm_from_utf8(result->value, failure);
	if (value == NULL)
		return (Datum) 0;
	*isnull = false;
	datum = guarded_cast(value, type, options->null_on_error, isnull, failure);
	if (failure->sqlstate != 0)
		*isnull = true;
	return datum;
}

Datum
qwen3dm_extract_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                      Qwen3dmFailure *failure)
{
	return value_of_type(options, result, JSONBOID, isnull, failure);
}

Datum
qwen3dm_extract_row_value(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
                          Qwen3dmFailure *failure)
{
	return value_of_type(options, result, options->type, isnull, failure);
}
