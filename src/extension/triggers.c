/*
 * triggers.c: qwen_score_trigger and qwen_classify_trigger, which fill a column of a table by
 * asking about another one.
 *
 * BEFORE each row, the trigger asks and waits, and the row is written with the answer. AFTER a
 * statement, with its rows as a transition table, it fills the column with one UPDATE, whose plan
 * asks about many rows at a time. That UPDATE fires the trigger again, which then finds that no
 * source has changed and does nothing. Both run as the user who writes.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "extension/classify.h"
#include "extension/encoding.h"
#include "extension/module.h"
#include "extension/tasks.h"

QWEN3DM_FUNCTION(qwen3dm_score_trigger);
QWEN3DM_FUNCTION(qwen3dm_classify_trigger);

/* What one trigger does. */
typedef struct Work
{
	const char *function; /* for messages */
	bool score;
	TriggerData *data;
	TupleDesc tupdesc;
	int source, target; /* numbers of the columns */
	Oid target_type;    /* without domains */
	Oid enum_type;      /* the same, if it is an enum */
	char *task;         /* NULL: none */
} Work;

/* Statements of ours that are running. */
static int own_updates = 0;

/* ---------------------------------------------------------------------------------------------
 * Arguments
 * --------------------------------------------------------------------------------------------- */

static int
column_number(const Work *w, const char *name)
{
	int number = SPI_fnumber(w->tupdesc, name);

	if (number < 1)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
		                errmsg("column \"%s\" of relation \"%s\" does not exist", name,
		                       RelationGetRelationName(w->data->tg_relation)),
		                errcontext("arguments of trigger \"%s\"", w->data->tg_trigger->tgname)));
	return number;
}

/* Text, or what is kept as text: of other types a cast and the output function may differ. */
static void
check_source(const Work *w)
{
	Form_pg_attribute column = TupleDescAttr(w->tupdesc, w->source - 1);
	Oid type = getBaseType(column->atttypid);
	char category;
	bool preferred;

	get_type_category_preferred(type, &category, &preferred);
	if (category != TYPCATEGORY_STRING && type != JSONOID && type != JSONBOID && type != XMLOID)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("%s cannot ask about column \"%s\" of type %s", w->function,
		                       NameStr(column->attname), format_type_be(column->atttypid)),
		                errhint("Use text, json, jsonb or xml.")));
}

static void
check_target(Work *w)
{
	Form_pg_attribute column = TupleDescAttr(w->tupdesc, w->target - 1);
	Oid type = getBaseType(column->atttypid);

	w->target_type = type;
	if (get_typtype(type) == TYPTYPE_ENUM)
		w->enum_type = type;
	if (w->score && type != FLOAT4OID && type != FLOAT8OID && type != NUMERICOID)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("%s cannot fill column \"%s\" of type %s", w->function,
		                       NameStr(column->attname), format_type_be(column->atttypid)),
		                errhint("Use double precision, real or numeric.")));
	if (!w->score && type != TEXTOID && type != VARCHAROID && type != BPCHAROID &&
	    !OidIsValid(w->enum_type))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
		                errmsg("%s cannot fill column \"%s\" of type %s", w->function,
		                       NameStr(column->attname), format_type_be(column->atttypid)),
		                errhint("Use text or an enum type.")));
}

/* Generated columns are written by nobody, and before a row is they have no value. */
static void
check_generated(const Work *w, int number)
{
	Form_pg_attribute column = TupleDescAttr(w->tupdesc, number - 1);

	if (column->attgenerated == '\0')
		return;
	if (number == w->source && TRIGGER_FIRED_FOR_STATEMENT(w->data->tg_event))
		return;
	ereport(ERROR,
	        (errcode(ERRCODE_GENERATED_ALWAYS),
	         errmsg("%s cannot use generated column \"%s\"", w->function, NameStr(column->attname)),
	         number == w->source
	             ? errhint("Use an AFTER trigger FOR EACH STATEMENT, which sees its values.")
	             : 0));
}

static void
check_arguments(Work *w)
{
	Trigger *trigger = w->data->tg_trigger;
	int least = w->score ? 3 : 2;

	if (trigger->tgnargs < least || trigger->tgnargs > 3)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("%s needs %s, not %d arguments", w->function,
		                       w->score ? "3" : "2 or 3", trigger->tgnargs),
		                errhint("They are the source column, the target column and the task.")));
	w->source = column_number(w, trigger->tgargs[0]);
	w->target = column_number(w, trigger->tgargs[1]);
	w->task = trigger->tgnargs > 2 ? trigger->tgargs[2] : NULL;
	if (w->source == w->target)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("source and target of %s must be different columns", w->function)));
	check_source(w);
	check_target(w);
	check_generated(w, w->source);
	check_generated(w, w->target);
}

static bool
fired_for_row(const Work *w)
{
	TriggerEvent event = w->data->tg_event;
	bool writes = TRIGGER_FIRED_BY_INSERT(event) || TRIGGER_FIRED_BY_UPDATE(event);

	if (writes && TRIGGER_FIRED_BEFORE(event) && TRIGGER_FIRED_FOR_ROW(event))
		return true;
	if (!writes || !TRIGGER_FIRED_AFTER(event) || !TRIGGER_FIRED_FOR_STATEMENT(event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("%s must be fired BEFORE INSERT or UPDATE, FOR EACH ROW, or AFTER "
		                       "INSERT or UPDATE, FOR EACH STATEMENT",
		                       w->function)));
	return false;
}

/* The question, without its row; raises an error when the task does not have what it takes. */
static void
ask(const Work *w, Qwen3dmOptions *options)
{
	Qwen3dmLabels labels;

	qwen3dm_default_options(options, Q3P_CLASSIFY, w->task, Q3P_AUTO);
	options->null_on_error = qwen3dm_trigger_on_error == QWEN3DM_TRIGGER_NULL;
	if (w->score)
	{
		if (!qwen3dm_ask_whether(options, NULL, NULL))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("task \"%s\" has no instruction", w->task),
			                errhint("The instruction is the statement that is asked about.")));
		return;
	}
	if (!qwen3dm_task_labels(options, w->enum_type, &labels))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                w->task != NULL ? errmsg("task \"%s\" has no labels", w->task)
		                                : errmsg("%s has no labels", w->function),
		                errhint("Give them to the task, or have a target of an enum type.")));
	qwen3dm_ask_which(options, &labels, NULL, NULL);
}

/* ---------------------------------------------------------------------------------------------
 * Failures
 * --------------------------------------------------------------------------------------------- */

/* Says that rows were written without an answer, and why the first of them was. */
static void
log_failures(const Work *w, const Qwen3dmLeniency *l, bool so_far)
{
	if (l->n_failed == 0)
		return;
	ereport(LOG, (errcode(l->failure.sqlstate),
	              errmsg("trigger \"%s\" stored NULL in column \"%s\" of table \"%s\": %s",
	                     w->data->tg_trigger->tgname, w->data->tg_trigger->tgargs[1],
	                     RelationGetRelationName(w->data->tg_relation), l->failure.message),
	              so_far ? errdetail("Further rows of the same statement are not logged.")
	                     : errdetail_plural("The statement wrote " INT64_FORMAT " such row.",
	                                        "The statement wrote " INT64_FORMAT " such rows.",
	                                        l->n_failed, l->n_failed)));
}

/* What the rows of one statement share when its trigger is fired for each of them. */
static Qwen3dmLeniency *
leniency_of_rows(void)
{
	static Qwen3dmLeniency leniency;
	static TimestampTz statement;
	static CommandId command;

	if (leniency.context != NULL && statement == GetCurrentStatementStartTimestamp() &&
	    command == GetCurrentCommandId(false))
		return &leniency;
	if (leniency.context == NULL)
		leniency.context = AllocSetContextCreate(TopMemoryContext, "qwen3dm trigger failures",
		                                         ALLOCSET_SMALL_SIZES);
	MemoryContextReset(leniency.context);
	leniency = (Qwen3dmLeniency){.context = leniency.context};
	statement = GetCurrentStatementStartTimestamp();
	command = GetCurrentCommandId(false);
	return &leniency;
}

/* ---------------------------------------------------------------------------------------------
 * Before each row
 * --------------------------------------------------------------------------------------------- */

static bool
is_null(const Work *w, HeapTuple tuple, int number)
{
	return heap_attisnull(tuple, number, w->tupdesc);
}

/*
 * An update is due when the source has changed, or when the row has never got a value. Otherwise
 * the target is what the statement makes of it.
 */
static bool
is_due(const Work *w, HeapTuple old, HeapTuple new)
{
	Form_pg_attribute column = TupleDescAttr(w->tupdesc, w->source - 1);
	bool old_null, new_null;
	Datum old_source = heap_getattr(old, w->source, w->tupdesc, &old_null);
	Datum new_source = heap_getattr(new, w->source, w->tupdesc, &new_null);

	if (old_null != new_null)
		return true;
	if (new_null)
		return false;
	if (!datum_image_eq(old_source, new_source, column->attbyval, column->attlen))
		return true;
	return is_null(w, old, w->target) && is_null(w, new, w->target);
}

/* The source as text; NULL for NULL. */
static text *
source_text(const Work *w, HeapTuple tuple)
{
	char *s = SPI_getvalue(tuple, w->tupdesc, w->source);
	int len;

	if (s == NULL)
		return NULL;
	len = (int) strlen(s);
	/* As a cast would. */
	if (getBaseType(TupleDescAttr(w->tupdesc, w->source - 1)->atttypid) == BPCHAROID)
		len = bpchartruelen(s, len);
	return cstring_to_text_with_len(s, len);
}

/* Asks and waits; the value as the column's input function reads it, NULL for NULL. */
static char *
answer(const Work *w, const text *source)
{
	static const Qwen3dmFunction score = {NULL, NULL, qwen3dm_score_value};
	static const Qwen3dmFunction classify = {NULL, NULL, qwen3dm_classify_value};
	Qwen3dmCall call = {.function = w->score ? &score : &classify};
	Qwen3dmRequest *r = NULL;
	q3p_bytes prompt;
	Datum value;
	bool isnull;

	ask(w, &call.options);
	if (qwen3dm_to_utf8(source, &prompt, &call.failure))
		r = qwen3dm_submit_row(&call.options, prompt, &call.failure);
	if (r != NULL)
		call.ids[0] = r->id;
	value = qwen3dm_call_finish(&call, &isnull, NULL);
	if (isnull)
		return NULL;
	return w->score ? float8out_internal(DatumGetFloat8(value)) : TextDatumGetCString(value);
}

/* The same while failures are let pass. */
static char *
lenient_answer(const Work *w, const text *source)
{
	Qwen3dmLeniency *l = leniency_of_rows(), *outer = qwen3dm_leniency;
	bool first = l->n_failed == 0;
	char *volatile value = NULL;

	qwen3dm_leniency = l;
	PG_TRY();
	{
		value = answer(w, source);
	}
	PG_FINALLY();
	{
		qwen3dm_leniency = outer;
	}
	PG_END_TRY();
	if (first)
		log_failures(w, l, true);
	return value;
}

static HeapTuple
fill_row(const Work *w, HeapTuple tuple)
{
	Form_pg_attribute column = TupleDescAttr(w->tupdesc, w->target - 1);
	text *source = source_text(w, tuple);
	char *value = NULL;
	Oid input, parameter;
	Datum datum;
	bool isnull;
	int number = w->target;

	if (source != NULL)
		value = qwen3dm_trigger_on_error == QWEN3DM_TRIGGER_NULL ? lenient_answer(w, source)
		                                                         : answer(w, source);
	getTypeInputInfo(column->atttypid, &input, &parameter);
	datum = OidInputFunctionCall(input, value, parameter, column->atttypmod);
	isnull = value == NULL;
	return heap_modify_tuple_by_cols(tuple, w->tupdesc, 1, &number, &datum, &isnull);
}

/* ---------------------------------------------------------------------------------------------
 * After a statement
 * --------------------------------------------------------------------------------------------- */

static const char *
column_name(const Work *w, int number)
{
	return quote_identifier(NameStr(TupleDescAttr(w->tupdesc, number - 1)->attname));
}

static const char *
relation_name(Relation relation)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
	                                  RelationGetRelationName(relation));
}

/* The operator that primary keys of this type are compared with, with its schema. */
static void
append_equality(StringInfo s, Oid type)
{
	Oid equality = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(equality));
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "type %u has no equality operator", type);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(s, " OPERATOR(%s.%s) ",
	                 quote_identifier(get_namespace_name(form->oprnamespace)),
	                 NameStr(form->oprname));
	ReleaseSysCache(tuple);
}

/* That rows of two names are the same one. */
static void
append_join(StringInfo s, const Work *w, const Bitmapset *key, const char *a, const char *b)
{
	const char *separator = "";
	int bit = -1;

	while ((bit = bms_next_member(key, bit)) >= 0)
	{
		int number = bit + FirstLowInvalidHeapAttributeNumber;
		const char *name = column_name(w, number);

		appendStringInfo(s, "%s%s.%s", separator, a, name);
		append_equality(s, TupleDescAttr(w->tupdesc, number - 1)->atttypid);
		appendStringInfo(s, "%s.%s", b, name);
		separator = " AND ";
	}
}

static Bitmapset *
primary_key(const Work *w)
{
	Bitmapset *key =
	    RelationGetIndexAttrBitmap(w->data->tg_relation, INDEX_ATTR_BITMAP_PRIMARY_KEY);

	if (bms_is_empty(key))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("table \"%s\" has no primary key, which %s FOR EACH STATEMENT needs",
		                       RelationGetRelationName(w->data->tg_relation), w->function),
		                errhint("Add one, or use a trigger BEFORE each row.")));
	return key;
}

static void
check_transition_tables(const Work *w)
{
	if (w->data->tg_newtable == NULL)
		ereport(ERROR,
		        (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		         errmsg("trigger \"%s\" has no transition table", w->data->tg_trigger->tgname),
		         errhint("Create it with REFERENCING NEW TABLE AS ....")));
	if (TRIGGER_FIRED_BY_UPDATE(w->data->tg_event) && w->data->tg_oldtable == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		                errmsg("trigger \"%s\" has no transition table of old rows",
		                       w->data->tg_trigger->tgname),
		                errhint("Create it with REFERENCING OLD TABLE AS ... NEW TABLE AS ....")));
}

/* The rows that are due, as n, joined with what they were, as o. */
static void
append_due(StringInfo due, StringInfo from, const Work *w, const Bitmapset *key)
{
	Trigger *trigger = w->data->tg_trigger;
	const char *source = column_name(w, w->source), *target = column_name(w, w->target);

	appendStringInfo(from, "%s AS n", quote_identifier(trigger->tgnewtable));
	if (TRIGGER_FIRED_BY_INSERT(w->data->tg_event))
	{
		appendStringInfo(due, "(n.%s IS NOT NULL OR n.%s IS NOT NULL)", source, target);
		return;
	}
	appendStringInfo(from, " LEFT JOIN %s AS o ON ", quote_identifier(trigger->tgoldtable));
	append_join(from, w, key, "o", "n");
	/* IS DISTINCT FROM would take the operator of whatever schema comes first. */
	appendStringInfo(due,
	                 "((n.%s IS NULL) OPERATOR(pg_catalog.<>) (o.%s IS NULL) OR "
	                 "(n.%s::pg_catalog.text COLLATE pg_catalog.\"C\") OPERATOR(pg_catalog.<>) "
	                 "(o.%s::pg_catalog.text COLLATE pg_catalog.\"C\")",
	                 source, source, source, source);
	/* Rows without a value are tried again, but not by the statement that failed. */
	if (own_updates == 0)
		appendStringInfo(due, " OR (n.%s IS NOT NULL AND n.%s IS NULL AND o.%s IS NULL)", source,
		                 target, target);
	appendStringInfoChar(due, ')');
}

/*
 * Whoever may create functions in the schema of ours could make one that fits an enum type better
 * than anyenum, and have it run by those who write.
 */
static void
check_not_hidden(const Work *w, Oid trigger_function)
{
	Oid types[] = {TEXTOID, w->enum_type, TEXTOID, TEXTOID, TEXTOID,
	               TEXTOID, JSONBOID,     BOOLOID, BOOLOID, INT4OID};
	List *name = list_make2(makeString(get_namespace_name(get_func_namespace(trigger_function))),
	                        makeString("qwen_classify"));

	if (OidIsValid(LookupFuncName(name, lengthof(types), types, true)))
		ereport(ERROR, (errcode(ERRCODE_AMBIGUOUS_FUNCTION),
		                errmsg("function %s hides the one of qwen3dm",
		                       func_signature_string(name, lengthof(types), NIL, types)),
		                errhint("Drop it, or move it to another schema.")));
}

/*
 * The call that gives the target of a row t; $1 is the task, $2 on_error. It has all arguments, of
 * exactly their types, so that no other function of the name can be meant.
 */
static void
append_call(StringInfo s, const Work *w, Oid trigger_function)
{
	const char *schema = quote_identifier(get_namespace_name(get_func_namespace(trigger_function)));
	const char *source = column_name(w, w->source);

	if (w->score)
		appendStringInfo(s, "%s.qwen_score(t.%s::pg_catalog.text, NULL::pg_catalog.text", schema,
		                 source);
	else
		appendStringInfo(s, "%s.qwen_classify(t.%s::pg_catalog.text, NULL::%s", schema, source,
		                 OidIsValid(w->enum_type) ? format_type_be_qualified(w->enum_type)
		                                          : "pg_catalog.text[]");
	appendStringInfo(s,
	                 ", $1, 'auto'::pg_catalog.text, $2, %sNULL::pg_catalog.jsonb, false, "
	                 "NULL::pg_catalog.bool, NULL::pg_catalog.int4)",
	                 w->score ? "" : "NULL::pg_catalog.text, ");
}

static int64
count_due(const StringInfo from, const StringInfo due)
{
	StringInfoData s;
	bool isnull;

	initStringInfo(&s);
	appendStringInfo(&s, "SELECT pg_catalog.count(*) FROM %s WHERE %s", from->data, due->data);
	if (SPI_execute(s.data, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the rows of a trigger");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* An UPDATE passes over rows that policies hide, and they would stay without an answer. */
static void
check_row_security(const Work *w, int64 n_due)
{
	if ((int64) SPI_processed < n_due &&
	    check_enable_rls(RelationGetRelid(w->data->tg_relation), InvalidOid, false) == RLS_ENABLED)
		ereport(ERROR,
		        (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		         errmsg("row-level security keeps trigger \"%s\" from filling column \"%s\" of "
		                "table \"%s\"",
		                w->data->tg_trigger->tgname, w->data->tg_trigger->tgargs[1],
		                RelationGetRelationName(w->data->tg_relation)),
		         errhint("Let policies allow the writer to read and update the rows, or use a "
		                 "trigger BEFORE each row.")));
}

static void
run_update(const Work *w, const char *statement)
{
	bool lenient = qwen3dm_trigger_on_error == QWEN3DM_TRIGGER_NULL;
	Qwen3dmLeniency l = {.context = CurrentMemoryContext}, *outer = qwen3dm_leniency;
	Oid types[] = {TEXTOID, TEXTOID};
	char nulls[] = {w->task == NULL ? 'n' : ' ', ' '};
	Datum values[] = {w->task == NULL ? (Datum) 0 : CStringGetTextDatum(w->task),
	                  CStringGetTextDatum(lenient ? "null" : "raise")};
	volatile int code = 0;

	own_updates++;
	qwen3dm_leniency = lenient ? &l : NULL;
	PG_TRY();
	{
		code = SPI_execute_with_args(statement, lengthof(types), types, values, nulls, false, 0);
	}
	PG_FINALLY();
	{
		own_updates--;
		qwen3dm_leniency = outer;
	}
	PG_END_TRY();
	if (code != SPI_OK_UPDATE)
		elog(ERROR, "could not fill the column of a trigger: %s", SPI_result_code_string(code));
	log_failures(w, &l, false);
}

static void
fill_rows(const Work *w, Oid trigger_function)
{
	Bitmapset *key = primary_key(w);
	Qwen3dmOptions options;
	StringInfoData from, due, s;
	int64 n_due;

	check_transition_tables(w);
	ask(w, &options);
	SPI_connect();
	if (SPI_register_trigger_data(w->data) != SPI_OK_TD_REGISTER)
		elog(ERROR, "could not see the rows of a trigger");
	initStringInfo(&from);
	initStringInfo(&due);
	append_due(&due, &from, w, key);
	n_due = count_due(&from, &due);
	if (n_due > 0)
	{
		if (OidIsValid(w->enum_type))
			check_not_hidden(w, trigger_function);
		initStringInfo(&s);
		appendStringInfo(&s, "UPDATE %s AS t SET %s = ", relation_name(w->data->tg_relation),
		                 column_name(w, w->target));
		append_call(&s, w, trigger_function);
		appendStringInfo(&s, " FROM %s WHERE ", from.data);
		append_join(&s, w, key, "t", "n");
		appendStringInfo(&s, " AND %s", due.data);
		run_update(w, s.data);
		check_row_security(w, n_due);
	}
	SPI_finish();
}

/* ---------------------------------------------------------------------------------------------
 * The functions
 * --------------------------------------------------------------------------------------------- */

static Datum
fire(FunctionCallInfo fcinfo, const char *function, bool score)
{
	Work w = {.function = function, .score = score, .data = (TriggerData *) fcinfo->context};
	HeapTuple tuple;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
		                errmsg("%s can only be called as a trigger", function)));
	w.tupdesc = RelationGetDescr(w.data->tg_relation);
	if (!fired_for_row(&w))
	{
		check_arguments(&w);
		fill_rows(&w, fcinfo->flinfo->fn_oid);
		return PointerGetDatum(NULL);
	}
	check_arguments(&w);
	if (TRIGGER_FIRED_BY_INSERT(w.data->tg_event))
		tuple = w.data->tg_trigtuple;
	else if (is_due(&w, w.data->tg_trigtuple, w.data->tg_newtuple))
		tuple = w.data->tg_newtuple;
	else
		return PointerGetDatum(w.data->tg_newtuple);
	return PointerGetDatum(fill_row(&w, tuple));
}

Datum
qwen3dm_score_trigger(PG_FUNCTION_ARGS)
{
	return fire(fcinfo, "qwen_score_trigger", true);
}

Datum
qwen3dm_classify_trigger(PG_FUNCTION_ARGS)
{
	return fire(fcinfo, "qwen_classify_trigger", false);
}
