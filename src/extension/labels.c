/*
 * labels.c: labels and examples from arrays, jsonb, literals and enum types. See labels.h.
 *
 * Runs in the backend. Labels of an enum type are read from the catalog for every call, so that
 * they are those of now.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "extension/encoding.h"
#include "extension/labels.h"

/* ---------------------------------------------------------------------------------------------
 * Texts
 * --------------------------------------------------------------------------------------------- */

static q3p_bytes
utf8_of_text(const text *t)
{
	Qwen3dmFailure failure;
	q3p_bytes bytes;

	if (!qwen3dm_to_utf8(t, &bytes, &failure))
		qwen3dm_raise(&failure, 0);
	return bytes;
}

static q3p_bytes
utf8_of(const char *s, int len)
{
	return utf8_of_text(cstring_to_text_with_len(s, len));
}

static q3p_bytes
utf8_of_string(const JsonbValue *v)
{
	return utf8_of(v->val.string.val, v->val.string.len);
}

static bool
equal_bytes(const q3p_bytes *a, const q3p_bytes *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

pg_noreturn static void
invalid(const char *message, const char *detail)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg_internal("%s", message),
	                detail != NULL ? errdetail_internal("%s", detail) : 0));
}

/* ---------------------------------------------------------------------------------------------
 * Labels
 * --------------------------------------------------------------------------------------------- */

static void
begin_labels(Qwen3dmLabels *labels, int n)
{
	if (n < 1 || n > Q3P_MAX_LABELS)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be 1 to %d labels, not %d", Q3P_MAX_LABELS, n)));
	labels->n = 0;
	labels->names = palloc(sizeof(q3p_bytes) * n);
	labels->descriptions = palloc0(sizeof(q3p_bytes) * n);
}

static void
add_label(Qwen3dmLabels *labels, q3p_bytes name, q3p_bytes description)
{
	if (name.len == 0)
		invalid("a label must not be empty", NULL);
	labels->descriptions[labels->n] = description;
	labels->names[labels->n++] = name;
}

/* Of two positions; equal names stand in the order of their positions. */
static int
compare_names(const void *a, const void *b, void *arg)
{
	const q3p_bytes *names = ((const Qwen3dmLabels *) arg)->names;
	int i = *(const int *) a, j = *(const int *) b;
	int order = memcmp(names[i].data, names[j].data, Min(names[i].len, names[j].len));

	if (order != 0)
		return order;
	if (names[i].len != names[j].len)
		return names[i].len < names[j].len ? -1 : 1;
	return i - j;
}

static void
check_distinct(Qwen3dmLabels *labels)
{
	int *order = palloc(sizeof(int) * labels->n);

	for (int i = 0; i < labels->n; i++)
		order[i] = i;
	qsort_arg(order, labels->n, sizeof(int), compare_names, labels);
	for (int i = 1; i < labels->n; i++)
	{
		if (equal_bytes(&labels->names[order[i - 1]], &labels->names[order[i]]))
			ereport(ERROR,
			        (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			         errmsg("labels must differ from each other"),
			         errdetail("Labels %d and %d are equal.", order[i - 1] + 1, order[i] + 1)));
	}
	pfree(order);
}

void
qwen3dm_labels_from_array(ArrayType *array, Qwen3dmLabels *labels)
{
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	begin_labels(labels, n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			invalid("a label must not be null", NULL);
		add_label(labels, utf8_of_text(DatumGetTextPP(values[i])), (q3p_bytes){NULL, 0});
	}
	check_distinct(labels);
}

/* {"name": "description", ...} */
static void
labels_from_object(Jsonb *jsonb, Qwen3dmLabels *labels)
{
	JsonbIterator *it = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue v;
	q3p_bytes name = {NULL, 0};

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = utf8_of_string(&v);
		if (token != WJB_VALUE)
			continue;
		if (v.type != jbvString)
			invalid("a label's description must be a string",
			        "Labels are {\"name\": \"description\", ...}.");
		add_label(labels, name, utf8_of_string(&v));
	}
}

/* A member of an object that must be a string; false: there is none. */
static bool
string_member(JsonbContainer *object, const char *key, q3p_bytes *value)
{
	JsonbValue buffer;
	JsonbValue *v = getKeyJsonValueFromContainer(object, key, strlen(key), &buffer);

	if (v == NULL)
		return false;
	if (v->type != jbvString)
		ereport(ERROR,
		        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("\"%s\" must be a string", key)));
	*value = utf8_of_string(v);
	return true;
}

/* The object's members are among the allowed ones. */
static void
check_members(JsonbContainer *object, const char *what, const char *const *allowed, int n)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue v;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		bool known = false;

		if (token != WJB_KEY)
			continue;
		for (int i = 0; i < n; i++)
			known = known || (v.val.string.len == strlen(allowed[i]) &&
			                  memcmp(v.val.string.val, allowed[i], v.val.string.len) == 0);
		if (!known)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("%s has an unrecognized member \"%.*s\"", what,
			                       Min(v.val.string.len, NAMEDATALEN), v.val.string.val)));
	}
}

static bool
is_object(const JsonbValue *v)
{
	return v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data);
}

static void
add_element(Qwen3dmLabels *labels, const JsonbValue *v)
{
	static const char *const members[] = {"label", "description"};
	q3p_bytes name, description = {NULL, 0};

	if (v->type == jbvString)
	{
		add_label(labels, utf8_of_string(v), description);
		return;
	}
	if (!is_object(v))
		invalid("a label must be a string or an object", NULL);
	check_members(v->val.binary.data, "a label", members, lengthof(members));
	if (!string_member(v->val.binary.data, "label", &name))
		invalid("a label has no \"label\"",
		        "Labels are [{\"label\": \"name\", \"description\": \"...\"}, ...].");
	(void) string_member(v->val.binary.data, "description", &description);
	add_label(labels, name, description);
}

void
qwen3dm_labels_from_jsonb(Jsonb *jsonb, Qwen3dmLabels *labels)
{
	int n = JB_ROOT_COUNT(jsonb);

	if (JB_ROOT_IS_SCALAR(jsonb))
		invalid("labels must be an array or an object",
		        "Labels are {\"name\": \"description\", ...} or [\"name\", ...].");
	begin_labels(labels, n);
	if (JB_ROOT_IS_OBJECT(jsonb))
		labels_from_object(jsonb, labels);
	else
		for (int i = 0; i < n; i++)
			add_element(labels, getIthJsonbValueFromContainer(&jsonb->root, i));
	check_distinct(labels);
}

static const char *
skip_space(const char *s)
{
	while (isspace((unsigned char) *s))
		s++;
	return s;
}

/*
 * Whether a literal is JSON and not an array: both may begin with [ or {, but the bounds of an
 * array are numbers, and none of its elements is followed by a colon.
 */
static bool
looks_like_json(const char *s)
{
	s = skip_space(s);
	if (*s == '[')
		return strchr("\"{]", *skip_space(s + 1)) != NULL;
	if (*s != '{')
		return false;
	s = skip_space(s + 1);
	if (*s++ != '"')
		return false;
	for (; *s != '\0' && *s != '"'; s++)
	{
		if (*s == '\\' && s[1] != '\0')
			s++;
	}
	return *s == '"' && *skip_space(s + 1) == ':';
}

void
qwen3dm_labels_from_text(text *literal, Qwen3dmLabels *labels)
{
	char *s = text_to_cstring(literal);

	if (looks_like_json(s))
		qwen3dm_labels_from_jsonb(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(s))),
		                          labels);
	else
		qwen3dm_labels_from_array(
		    DatumGetArrayTypeP(OidInputFunctionCall(F_ARRAY_IN, s, TEXTOID, -1)), labels);
}

void
qwen3dm_labels_from_enum(Oid type, Qwen3dmLabels *labels)
{
	Relation catalog = table_open(EnumRelationId, AccessShareLock);
	Relation index = index_open(EnumTypIdSortOrderIndexId, AccessShareLock);
	List *names = NIL;
	SysScanDesc scan;
	HeapTuple tuple;
	ScanKeyData key;
	ListCell *lc;

	ScanKeyInit(&key, Anum_pg_enum_enumtypid, BTEqualStrategyNumber, F_OIDEQ,
	            ObjectIdGetDatum(type));
	scan = systable_beginscan_ordered(catalog, index, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan, ForwardScanDirection)))
		names = lappend(names, pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel)));
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	table_close(catalog, AccessShareLock);

	begin_labels(labels, list_length(names));
	foreach (lc, names)
		add_label(labels, utf8_of(lfirst(lc), (int) strlen(lfirst(lc))), (q3p_bytes){NULL, 0});
	check_distinct(labels);
}

/* ---------------------------------------------------------------------------------------------
 * Examples
 * --------------------------------------------------------------------------------------------- */

/* The answer of an example, as the model would have written it. */
static q3p_bytes
answer_of(JsonbContainer *example, int number, Qwen3dmAnswerKind kind, const Qwen3dmLabels *labels)
{
	JsonbValue buffer;
	JsonbValue *v = getKeyJsonValueFromContainer(example, "label", 5, &buffer);
	q3p_bytes answer;

	if (v == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("example %d has no \"label\"", number),
		                errhint("Examples are [{\"input\": \"...\", \"label\": ...}, ...].")));
	if (v->type == jbvBool && kind != QWEN3DM_ANSWER_LABEL)
		return v->val.boolean ? (q3p_bytes){"yes", 3} : (q3p_bytes){"no", 2};
	if (kind == QWEN3DM_ANSWER_BOOLEAN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("the label of example %d must be true or false", number)));
	if (v->type != jbvString)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("the label of example %d must be a string", number)));
	answer = utf8_of_string(v);
	if (kind == QWEN3DM_ANSWER_ANY)
		return answer;
	for (int i = 0; i < labels->n; i++)
	{
		if (equal_bytes(&labels->names[i], &answer))
			return answer;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
	                errmsg("the label of example %d is not one of the labels", number)));
}

uint32
qwen3dm_turns_from_examples(Jsonb *examples, Qwen3dmAnswerKind kind, const Qwen3dmLabels *labels,
                            q3p_bytes **turns)
{
	static const char *const members[] = {"input", "label"};
	int n = JB_ROOT_COUNT(examples);

	if (!JB_ROOT_IS_ARRAY(examples) || JB_ROOT_IS_SCALAR(examples))
		invalid("examples must be an array",
		        "Examples are [{\"input\": \"...\", \"label\": ...}, ...].");
	if (n > Q3P_MAX_EXAMPLES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		                errmsg("there must be at most %d examples, not %d", Q3P_MAX_EXAMPLES, n)));
	*turns = palloc(sizeof(q3p_bytes) * 2 * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *v = getIthJsonbValueFromContainer(&examples->root, i);

		if (!is_object(v))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("example %d must be an object", i + 1)));
		check_members(v->val.binary.data, "an example", members, lengthof(members));
		if (!string_member(v->val.binary.data, "input", &(*turns)[2 * i]))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			                errmsg("example %d has no \"input\"", i + 1)));
		(*turns)[2 * i + 1] = answer_of(v->val.binary.data, i + 1, kind, labels);
	}
	return 2 * n;
}
