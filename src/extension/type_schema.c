/*
 * type_schema.c: the JSON Schema of a composite type, from the catalog.
 *
 * Runs in the backend, with the snapshot and caches of the query. What the schema allows is what
 * the type's input function takes: integers have the type's range, numeric(p, s) its largest value,
 * varchar(n) its length, an enum its labels. Of a domain it knows NOT NULL and CHECK (VALUE IN
 * (...)); other checks are left to the cast. Strings are in the database's encoding.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/comment.h"
#include "common/jsonapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "extension/compat.h"
#include "extension/type_schema.h"

/* So that no number overflows, and no schema has a bound of more digits than the engine reads. */
#define FLOAT4_LIMIT "3e38"
#define FLOAT8_LIMIT "1e99"

/* The members of the schema of a type: what stands between the braces. */
static void append_members(StringInfo s, Oid type, int32 typmod, const char *column);

pg_noreturn static void
no_schema(Oid type, int32 typmod, const char *column)
{
	ereport(ERROR,
	        (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
	         errmsg("column \"%s\" has type %s, which qwen_extract cannot fill", column,
	                format_type_with_typemod(type, typmod)),
	         errhint("It fills integers, numeric, real, double precision, text, varchar, char, "
	                 "boolean, date, timestamp, timestamptz, uuid, enums, and domains, arrays and "
	                 "composite types of these.")));
}

/* ---------------------------------------------------------------------------------------------
 * Scalars
 * --------------------------------------------------------------------------------------------- */

static void
append_zeros(StringInfo s, char digit, int n)
{
	while (n-- > 0)
		appendStringInfoChar(s, digit);
}

/* The largest number of numeric(precision, scale), in digits. */
static char *
largest_numeric(int precision, int scale)
{
	StringInfoData s;

	initStringInfo(&s);
	if (scale <= 0)
	{
		append_zeros(&s, '9', precision);
		append_zeros(&s, '0', -scale);
		return s.data;
	}
	append_zeros(&s, '9', precision - scale);
	if (precision <= scale)
		appendStringInfoChar(&s, '0');
	appendStringInfoChar(&s, '.');
	append_zeros(&s, '0', scale - precision);
	append_zeros(&s, '9', Min(precision, scale));
	return s.data;
}

static void
append_numeric(StringInfo s, int32 typmod)
{
	char *largest;
	int precision, scale;

	appendStringInfoString(s, "\"type\":\"number\"");
	if (typmod < (int32) VARHDRSZ)
		return;
	precision = ((typmod - VARHDRSZ) >> 16) & 0xffff;
	/* Eleven bits with a sign; before 15 scales were not negative, and this reads the same. */
	scale = (((typmod - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
	largest = largest_numeric(precision, scale);
	appendStringInfo(s, ",\"minimum\":-%s,\"maximum\":%s", largest, largest);
}

static void
append_string(StringInfo s, int32 typmod)
{
	appendStringInfoString(s, "\"type\":\"string\"");
	if (typmod > (int32) VARHDRSZ)
		appendStringInfo(s, ",\"maxLength\":%d", typmod - (int32) VARHDRSZ);
}

/* False: not one of these. */
static bool
append_scalar(StringInfo s, Oid type, int32 typmod)
{
	switch (type)
	{
		case BOOLOID:
			appendStringInfoString(s, "\"type\":\"boolean\"");
			return true;
		case INT2OID:
			appendStringInfoString(s, "\"type\":\"integer\",\"minimum\":-32768,\"maximum\":32767");
			return true;
		case INT4OID:
			appendStringInfo(s, "\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d", PG_INT32_MIN,
			                 PG_INT32_MAX);
			return true;
		case INT8OID:
			appendStringInfo(
			    s, "\"type\":\"integer\",\"minimum\":" INT64_FORMAT ",\"maximum\":" INT64_FORMAT,
			    PG_INT64_MIN, PG_INT64_MAX);
			return true;
		case FLOAT4OID:
			appendStringInfoString(s, "\"type\":\"number\",\"minimum\":-" FLOAT4_LIMIT
			                          ",\"maximum\":" FLOAT4_LIMIT);
			return true;
		case FLOAT8OID:
			appendStringInfoString(s, "\"type\":\"number\",\"minimum\":-" FLOAT8_LIMIT
			                          ",\"maximum\":" FLOAT8_LIMIT);
			return true;
		case NUMERICOID:
			append_numeric(s, typmod);
			return true;
		case TEXTOID:
			append_string(s, -1);
			return true;
		case VARCHAROID:
		case BPCHAROID:
			append_string(s, typmod);
			return true;
		case DATEOID:
			appendStringInfoString(s, "\"type\":\"string\",\"format\":\"date\"");
			return true;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			appendStringInfoString(s, "\"type\":\"string\",\"format\":\"date-time\"");
			return true;
		case UUIDOID:
			appendStringInfoString(s, "\"type\":\"string\",\"pattern\":\"^[0-9a-f]{8}-[0-9a-f]{4}-"
			                          "[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$\"");
			return true;
		default:
			return false;
	}
}

/* ---------------------------------------------------------------------------------------------
 * Lists of values
 * --------------------------------------------------------------------------------------------- */

/* The labels of an enum, in its order. */
static void
append_labels(StringInfo s, Oid type)
{
	Relation rel = table_open(EnumRelationId, AccessShareLock);
	Relation index = index_open(EnumTypIdSortOrderIndexId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool first = true;

	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(type));
	scan = systable_beginscan_ordered(rel, index, NULL, 1, &key);
	appendStringInfoString(s, "\"type\":\"string\",\"enum\":[");
	while ((tuple = systable_getnext_ordered(scan, ForwardScanDirection)) != NULL)
	{
		if (!first)
			appendStringInfoChar(s, ',');
		escape_json(s, NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
		first = false;
	}
	appendStringInfoChar(s, ']');
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/* The array of a check that says VALUE IN (...), NULL for any other. */
static Const *
listed_values(Node *check)
{
	ScalarArrayOpExpr *in;
	Node *value;

	check = eval_const_expressions(NULL, check);
	if (!IsA(check, ScalarArrayOpExpr))
		return NULL;
	in = (ScalarArrayOpExpr *) check;
	value = linitial(in->args);
	while (IsA(value, RelabelType))
		value = (Node *) ((RelabelType *) value)->arg;
	if (!in->useOr || !IsA(value, CoerceToDomainValue) || !IsA(lsecond(in->args), Const) ||
	    ((Const *) lsecond(in->args))->constisnull || strcmp(get_opname(in->opno), "=") != 0)
		return NULL;
	return lsecond(in->args);
}

/* A value as JSON has its type; what JSON has no word for (NaN, money) is a string, which the
 * type's input function takes as well. */
static void
append_value(StringInfo s, char *value, char category)
{
	if (category == TYPCATEGORY_BOOLEAN)
		appendStringInfoString(s, value[0] == 't' ? "true" : "false");
	else if (category == TYPCATEGORY_NUMERIC && IsValidJsonNumber(value, (int) strlen(value)))
		appendStringInfoString(s, value);
	else
		escape_json(s, value);
}

static void
append_values(StringInfo s, const Const *list)
{
	ArrayType *array = DatumGetArrayTypeP(list->constvalue);
	Oid element = ARR_ELEMTYPE(array);
	int16 len;
	bool byval, varlena, preferred, first = true;
	char align, category;
	Oid output;
	Datum *values;
	bool *nulls;
	int n;

	get_typlenbyvalalign(element, &len, &byval, &align);
	get_type_category_preferred(element, &category, &preferred);
	getTypeOutputInfo(element, &output, &varlena);
	deconstruct_array(array, element, len, byval, align, &values, &nulls, &n);
	appendStringInfoString(s, "\"enum\":[");
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			continue;
		if (!first)
			appendStringInfoChar(s, ',');
		append_value(s, OidOutputFunctionCall(output, values[i]), category);
		first = false;
	}
	appendStringInfoChar(s, ']');
}

/* If a check of this domain lists its values, appends them. */
static bool
append_domain_list(StringInfo s, Oid domain)
{
	Relation rel = table_open(ConstraintRelationId, AccessShareLock);
	Const *list = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_constraint_contypid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(domain));
	scan = systable_beginscan(rel, ConstraintTypidIndexId, true, NULL, 1, &key);
	while (list == NULL && (tuple = systable_getnext(scan)) != NULL)
	{
		bool isnull;
		Datum check;

		if (((Form_pg_constraint) GETSTRUCT(tuple))->contype != CONSTRAINT_CHECK)
			continue;
		check = heap_getattr(tuple, Anum_pg_constraint_conbin, RelationGetDescr(rel), &isnull);
		if (!isnull)
			list = listed_values(stringToNode(TextDatumGetCString(check)));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (list != NULL)
		append_values(s, list);
	return list != NULL;
}

/* ---------------------------------------------------------------------------------------------
 * Types made of others
 * --------------------------------------------------------------------------------------------- */

static Form_pg_type
type_form(Oid type, HeapTuple *tuple)
{
	*tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(*tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	return (Form_pg_type) GETSTRUCT(*tuple);
}

/* Whether NULL is a value of the type, which only a domain can forbid. */
static bool
allows_null(Oid type)
{
	for (;;)
	{
		HeapTuple tuple;
		Form_pg_type form = type_form(type, &tuple);
		bool is_domain = form->typtype == TYPTYPE_DOMAIN;
		bool not_null = form->typnotnull;
		Oid base = form->typbasetype;

		ReleaseSysCache(tuple);
		if (!is_domain)
			return true;
		if (not_null)
			return false;
		type = base;
	}
}

static void
append_domain(StringInfo s, Oid type, const char *column)
{
	HeapTuple tuple;
	Form_pg_type form;
	Oid base;
	int32 typmod;

	if (append_domain_list(s, type))
		return;
	form = type_form(type, &tuple);
	base = form->typbasetype;
	typmod = form->typtypmod;
	ReleaseSysCache(tuple);
	append_members(s, base, typmod, column);
}

static void
append_description(StringInfo s, const char *comment)
{
	if (comment == NULL)
		return;
	appendStringInfoString(s, "\"description\":");
	escape_json(s, comment);
	appendStringInfoChar(s, ',');
}

/* What COMMENT ON TYPE or, for the rows of a table, COMMENT ON TABLE says. */
static char *
type_comment(Oid type)
{
	char *comment = GetComment(type, TypeRelationId, 0);
	Oid relid = get_typ_typrelid(type);

	if (comment == NULL && OidIsValid(relid))
		comment = GetComment(relid, RelationRelationId, 0);
	return comment;
}

static void
append_column(StringInfo s, Form_pg_attribute att, Oid relid)
{
	const char *name = NameStr(att->attname);
	char *comment = GetComment(relid, RelationRelationId, att->attnum);

	appendStringInfoChar(s, '{');
	append_description(s, comment != NULL ? comment : type_comment(att->atttypid));
	if (!att->attnotnull && allows_null(att->atttypid))
	{
		appendStringInfoString(s, "\"anyOf\":[{");
		append_members(s, att->atttypid, att->atttypmod, name);
		appendStringInfoString(s, "},{\"type\":\"null\"}]");
	}
	else
		append_members(s, att->atttypid, att->atttypmod, name);
	appendStringInfoChar(s, '}');
}

static void
append_composite(StringInfo s, Oid type)
{
	TupleDesc tupdesc = lookup_rowtype_tupdesc(type, -1);
	Oid relid = get_typ_typrelid(type);
	StringInfoData required;
	const char *before = "";

	initStringInfo(&required);
	appendStringInfoString(s, "\"type\":\"object\",\"properties\":{");
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);

		if (att->attisdropped)
			continue;
		appendStringInfoString(s, before);
		escape_json(s, NameStr(att->attname));
		appendStringInfoChar(s, ':');
		append_column(s, att, relid);
		appendStringInfoString(&required, before);
		escape_json(&required, NameStr(att->attname));
		before = ",";
	}
	appendStringInfo(s, "},\"required\":[%s],\"additionalProperties\":false", required.data);
	ReleaseTupleDesc(tupdesc);
	pfree(required.data);
}

static void
append_members(StringInfo s, Oid type, int32 typmod, const char *column)
{
	Oid element;

	check_stack_depth();
	if (append_scalar(s, type, typmod))
		return;
	element = get_element_type(type);
	if (OidIsValid(element))
	{
		appendStringInfoString(s, "\"type\":\"array\",\"items\":{");
		append_members(s, element, typmod, column);
		appendStringInfoChar(s, '}');
		return;
	}
	switch (get_typtype(type))
	{
		case TYPTYPE_ENUM:
			append_labels(s, type);
			break;
		case TYPTYPE_DOMAIN:
			append_domain(s, type, column);
			break;
		case TYPTYPE_COMPOSITE:
			append_composite(s, type);
			break;
		default:
			no_schema(type, typmod, column);
	}
}

void
qwen3dm_append_type_schema(StringInfo s, Oid type)
{
	if (get_typtype(getBaseType(type)) != TYPTYPE_COMPOSITE)
		ereport(ERROR,
		        (errcode(ERRCODE_DATATYPE_MISMATCH),
		         errmsg("qwen_extract needs a composite type, not %s", format_type_be(type)),
		         errhint("Name one as NULL::my_type, or write a JSON Schema as '{...}'::jsonb.")));
	appendStringInfoChar(s, '{');
	append_description(s, type_comment(type));
	append_members(s, type, -1, "");
	appendStringInfoChar(s, '}');
}
