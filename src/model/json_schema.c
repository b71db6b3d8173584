/*
 * json_schema.c: from a JSON Schema to a program (schema_program.h).
 *
 * Every schema within the schema becomes a rule; what a $ref names is compiled once, after what
 * refers to it. Graphs are built from their ends backwards. At last each node gets to know how many
 * rules within rules it needs at least, so that a constraint never goes where the limit of nesting
 * would stop it. A compiler lives on the stack of q3_schema_compile().
 */
#include "model/json_schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/number_range.h"
#include "model/pattern.h"
#include "model/schema_keywords.h"
#include "model/schema_program.h"
#include "model/schema_text.h"

#define MAX_NODES 200000
#define MAX_PROPERTIES 1000
#define MAX_AUTOMATA_BYTES ((size_t) 32 * 1024 * 1024)
/* Schemas within schemas. */
#define MAX_NESTING 100

/* A schema that a $ref names; the first is the root. */
typedef struct definition
{
	const cJSON *json;
	const char *group, *name; /* NULL: the root */
	uint32_t node;            /* JUMP to its rule */
} definition;

typedef struct compiler
{
	q3_schema *s;
	q3_schema_reader r;
	definition *definitions;
	size_t n_definitions, definition_capacity;
	char **keys; /* of automata: equal ones are made once */
	size_t key_capacity;
	int nesting;
} compiler;

static uint32_t compile_schema(compiler *c, const cJSON *json);

/* ---------------------------------------------------------------------------------------------
 * Nodes and automata
 * --------------------------------------------------------------------------------------------- */

static uint32_t
node_add(compiler *c, q3_node node)
{
	q3_schema *s = c->s;

	if (s->n_nodes >= MAX_NODES)
		q3_schema_too_large(&c->r);
	else if (!q3_grow(&s->nodes, s->n_nodes, &s->node_capacity, sizeof(s->nodes[0])))
		q3_schema_out_of_memory(&c->r);
	else
	{
		s->nodes[s->n_nodes] = node;
		return (uint32_t) s->n_nodes++;
	}
	return 0;
}

static uint32_t
add_return(compiler *c)
{
	return node_add(c, (q3_node){.kind = Q3_NODE_RETURN});
}

/* Nodes for text, before next. */
static uint32_t
add_bytes(compiler *c, const char *text, size_t len, uint32_t next)
{
	while (len > 0 && c->r.code == Q3_OK)
		next = node_add(
		    c, (q3_node){.kind = Q3_NODE_BYTE, .byte = (uint8_t) text[--len], .next = next});
	return next;
}

static uint32_t
add_text(compiler *c, const char *text, uint32_t next)
{
	return add_bytes(c, text, strlen(text), next);
}

static uint32_t
add_call(compiler *c, uint32_t rule, uint32_t next)
{
	return node_add(c, (q3_node){.kind = Q3_NODE_CALL, .other = rule, .next = next});
}

/* Either of two; 0 stands for neither. */
static uint32_t
add_split(compiler *c, uint32_t a, uint32_t b)
{
	if (a == 0 || b == 0)
		return a + b;
	return node_add(c, (q3_node){.kind = Q3_NODE_SPLIT, .next = a, .other = b});
}

/* The automaton with that key, if there is one already: its number, else -1. */
static int32_t
find_automaton(const compiler *c, const char *key)
{
	for (size_t i = 0; i < c->s->n_automata; i++)
		if (strcmp(c->keys[i], key) == 0)
			return (int32_t) i;
	return -1;
}

/* Takes dfa over (NULL after a failure: the error becomes one that tells the place). */
static int32_t
keep_automaton(compiler *c, q3_dfa *dfa, const char *key, const char *name)
{
	q3_schema *s = c->s;
	char *copy = NULL;

	if (dfa == NULL)
	{
		q3_error err = *c->r.err;

		if (err.code != Q3_ERR_MEMORY && strcmp(err.message, "nothing is accepted") == 0)
			q3_schema_fail(&c->r, Q3_ERR_INVALID, NULL, "no value is valid under JSON schema");
		else
			q3_schema_fail(&c->r, err.code, name, "%s", err.message);
		return 0;
	}
	s->automata_bytes += dfa->bytes;
	if (s->automata_bytes > MAX_AUTOMATA_BYTES)
		q3_schema_too_large(&c->r);
	else if ((copy = strdup(key)) == NULL ||
	         !q3_grow(&c->keys, s->n_automata, &c->key_capacity, sizeof(c->keys[0])) ||
	         !q3_grow(&s->automata, s->n_automata, &s->automata_capacity, sizeof(s->automata[0])))
		q3_schema_out_of_memory(&c->r);
	if (c->r.code != Q3_OK)
	{
		free(copy);
		q3_dfa_free(dfa);
		return 0;
	}
	c->keys[s->n_automata] = copy;
	s->automata[s->n_automata] = dfa;
	return (int32_t) s->n_automata++;
}

static uint32_t
add_automaton(compiler *c, int32_t index)
{
	return node_add(
	    c, (q3_node){.kind = Q3_NODE_AUTOMATON, .other = (uint32_t) index, .next = add_return(c)});
}

/* ---------------------------------------------------------------------------------------------
 * Scalars
 * --------------------------------------------------------------------------------------------- */

/* Years 0001 to 9999 of the Gregorian calendar, with its leap years. */
#define YEAR "(?:\\d{3}[1-9]|\\d{2}[1-9]\\d|\\d[1-9]\\d{2}|[1-9]\\d{3})"
#define LEAP_CENTURY "(?:0[48]|[2468][048]|[13579][26])"
#define LEAP_YEAR "(?:\\d{2}" LEAP_CENTURY "|" LEAP_CENTURY "00)"
#define DATE                                                                                       \
	"(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|"                                  \
	"(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP_YEAR "-02-29)"
#define TIME                                                                                       \
	"(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?"                                         \
	"(?:Z|[+-](?:(?:0\\d|1[0-3]):[0-5]\\d|14:00))"

static const char *const formats[][2] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"email", "^[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\\.)+"
              "[A-Za-z]{2,}$"}};

static const char *
pattern_of_format(compiler *c, const cJSON *format)
{
	if (!cJSON_IsString(format))
	{
		q3_schema_wrong_value(&c->r, KW_FORMAT, "a string");
		return NULL;
	}
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (strcmp(formats[i][0], format->valuestring) == 0)
			return formats[i][1];
	q3_schema_fail(&c->r, Q3_ERR_INVALID, q3_schema_keyword_names[KW_FORMAT],
	               "format of JSON schema is not one of date, time, date-time, uuid and email");
	return NULL;
}

static uint32_t
compile_pattern(compiler *c, const char *pattern, const char *name, int32_t min, int32_t max)
{
	char key[48];
	q3_text full = {0};
	int32_t index = -1;

	snprintf(key, sizeof(key), "pattern %d %d ", (int) min, (int) max);
	q3_text_add(&full, key, strlen(key));
	q3_text_add(&full, pattern, strlen(pattern) + 1);
	if (full.failed)
		q3_schema_out_of_memory(&c->r);
	else if ((index = find_automaton(c, full.data)) < 0)
		index = keep_automaton(
		    c, q3_pattern_compile((q3_str){pattern, strlen(pattern)}, min, max, c->r.err),
		    full.data, name);
	free(full.data);
	return add_automaton(c, index);
}

static uint32_t
compile_string(compiler *c, const q3_keywords *k)
{
	int32_t min = q3_schema_count(&c->r, k, KW_MIN_LENGTH, 0);
	int32_t max = q3_schema_count(&c->r, k, KW_MAX_LENGTH, Q3_NO_LIMIT);
	const cJSON *pattern = k->value[KW_PATTERN], *format = k->value[KW_FORMAT];
	uint32_t node;

	q3_schema_check_counts(&c->r, KW_MIN_LENGTH, min, KW_MAX_LENGTH, max);
	if (pattern != NULL && format != NULL)
		q3_schema_check_alone(&c->r, k, KW_FORMAT, ~BIT(KW_PATTERN));
	if (pattern != NULL && !cJSON_IsString(pattern))
		q3_schema_wrong_value(&c->r, KW_PATTERN, "a string");
	if (format != NULL && c->r.code == Q3_OK)
	{
		const char *text = pattern_of_format(c, format);

		return text == NULL ? 0 : compile_pattern(c, text, "format", min, max);
	}
	if (c->r.code != Q3_OK)
		return 0;
	if (pattern != NULL)
		return compile_pattern(c, pattern->valuestring, "pattern", min, max);
	node = node_add(
	    c, (q3_node){.kind = Q3_NODE_STRING, .next = add_return(c), .min = min, .max = max});
	return add_text(c, "\"", node);
}

/* The text of a bound; NULL: none. */
static const char *
read_bound(compiler *c, const q3_keywords *k, q3_keyword which)
{
	const cJSON *value = k->value[which];

	if (value != NULL && !cJSON_IsNumber(value))
		q3_schema_wrong_value(&c->r, which, "a number");
	return value != NULL && c->r.code == Q3_OK ? value->valuestring : NULL;
}

static uint32_t
compile_number(compiler *c, const q3_keywords *k, bool integer)
{
	const char *min = read_bound(c, k, KW_MINIMUM), *above = read_bound(c, k, KW_ABOVE);
	const char *max = read_bound(c, k, KW_MAXIMUM), *below = read_bound(c, k, KW_BELOW);
	q3_number_range range = {.min = min != NULL ? min : above,
	                         .max = max != NULL ? max : below,
	                         .above_min = min == NULL,
	                         .below_max = max == NULL,
	                         .integer = integer};
	q3_text key = {0};
	const char *parts[] = {integer ? "integer" : "number", range.min, range.max};
	int32_t index = -1;

	if (min != NULL && above != NULL)
		q3_schema_check_alone(&c->r, k, KW_ABOVE, ~BIT(KW_MINIMUM));
	if (max != NULL && below != NULL)
		q3_schema_check_alone(&c->r, k, KW_BELOW, ~BIT(KW_MAXIMUM));
	for (int i = 0; i < 3; i++)
	{
		const char *part = parts[i] != NULL ? parts[i] : "-";

		q3_text_add(&key, part, strlen(part));
		q3_text_add(&key, i == 1 && min == NULL ? ">" : i == 2 && max == NULL ? "<" : "=", 1);
	}
	q3_text_add(&key, "", 1);
	if (key.failed)
		q3_schema_out_of_memory(&c->r);
	else if (c->r.code == Q3_OK && (index = find_automaton(c, key.data)) < 0)
		index = keep_automaton(c, q3_number_range_compile(&range, c->r.err), key.data, NULL);
	free(key.data);
	return add_automaton(c, index);
}

/* ---------------------------------------------------------------------------------------------
 * Values that are written down
 * --------------------------------------------------------------------------------------------- */

static bool
is_integer(const cJSON *number)
{
	return strpbrk(number->valuestring, ".eE") == NULL;
}

static uint32_t
type_of_value(const cJSON *value)
{
	if (cJSON_IsObject(value))
		return TYPE_OBJECT;
	if (cJSON_IsArray(value))
		return TYPE_ARRAY;
	if (cJSON_IsString(value))
		return TYPE_STRING;
	if (cJSON_IsNumber(value))
		return is_integer(value) ? TYPE_INTEGER | TYPE_NUMBER : TYPE_NUMBER;
	return cJSON_IsNull(value) ? TYPE_NULL : TYPE_BOOLEAN;
}

static bool
add_value(q3_nfa *n, const cJSON *value, uint32_t types, q3_text *text)
{
	int32_t last;

	if (types != 0 && !(type_of_value(value) & types))
		return true;
	text->len = 0;
	q3_text_add_value(text, value);
	if (text->failed)
		return false;
	last = q3_nfa_text(n, 0, text->data, text->len);
	if (!n->failed && !n->full)
		n->accepts[last] = true;
	return true;
}

/* One of the values in list, or the one value, as far as their types are allowed. */
static uint32_t
compile_values(compiler *c, const q3_keywords *k, const cJSON *list, const cJSON *one)
{
	q3_nfa n = {0};
	q3_text text = {0};
	const cJSON *item;
	char key[32];
	uint32_t types = q3_schema_types(&c->r, k);
	int32_t index = 0;
	bool ok = true;

	if (list != NULL && (!cJSON_IsArray(list) || list->child == NULL))
		q3_schema_wrong_value(&c->r, KW_ENUM, "a list of values");
	q3_nfa_state(&n, false);
	if (one != NULL)
		ok = add_value(&n, one, types, &text);
	cJSON_ArrayForEach(item, list) ok = ok && add_value(&n, item, types, &text);
	n.failed = n.failed || !ok;
	snprintf(key, sizeof(key), "values %zu", c->s->n_automata);
	if (c->r.code == Q3_OK)
		index = keep_automaton(c, q3_dfa_create(&n, c->r.err), key, NULL);
	q3_nfa_free(&n);
	free(text.data);
	return add_automaton(c, index);
}

/* ---------------------------------------------------------------------------------------------
 * Objects and arrays
 * --------------------------------------------------------------------------------------------- */

static bool
is_required(const cJSON *required, const char *name)
{
	const cJSON *item;

	cJSON_ArrayForEach(item, required) if (strcmp(item->valuestring, name) == 0) return true;
	return false;
}

static void
check_required(compiler *c, const cJSON *required, const cJSON *properties)
{
	const cJSON *item;

	if (required != NULL && !cJSON_IsArray(required))
		q3_schema_wrong_value(&c->r, KW_REQUIRED, "a list of strings");
	cJSON_ArrayForEach(item, required)
	{
		if (!cJSON_IsString(item))
		{
			q3_schema_wrong_value(&c->r, KW_REQUIRED, "a list of strings");
			return;
		}
		if (!cJSON_GetObjectItemCaseSensitive(properties, item->valuestring))
			q3_schema_fail(&c->r, Q3_ERR_INVALID, q3_schema_keyword_names[KW_REQUIRED],
			               "JSON schema requires a property that it does not define");
	}
}

/* Their number, after checking that no name is there twice. */
static int
check_properties(compiler *c, const cJSON *properties)
{
	const cJSON *item;
	int n = 0;

	cJSON_ArrayForEach(item, properties)
	{
		const cJSON *first = cJSON_GetObjectItemCaseSensitive(properties, item->string);

		if (++n > MAX_PROPERTIES)
		{
			q3_schema_fail(&c->r, Q3_ERR_UNSUPPORTED, q3_schema_keyword_names[KW_PROPERTIES],
			               "JSON schema has an object of more than %d properties", MAX_PROPERTIES);
			return n;
		}
		if (first != item)
			q3_schema_fail(&c->r, Q3_ERR_INVALID, q3_schema_keyword_names[KW_PROPERTIES],
			               "JSON schema defines a property twice");
	}
	return n;
}

/*
 * The nodes of one property, before those that follow it: *first where no property stands before
 * it, *more where one does.
 */
static void
add_property(compiler *c, const cJSON *property, bool required, uint32_t *first, uint32_t *more)
{
	size_t before = q3_schema_enter(&c->r, property->string);
	q3_text key = {0};
	uint32_t rule = compile_schema(c, property), node;

	q3_text_add_string(&key, property->string);
	q3_text_add(&key, ": ", 2);
	if (key.failed)
		q3_schema_out_of_memory(&c->r);
	else
	{
		node = add_bytes(c, key.data, key.len, add_call(c, rule, *more));
		*first = required ? node : add_split(c, node, *first);
		node = add_text(c, ", ", node);
		*more = required ? node : add_split(c, node, *more);
	}
	free(key.data);
	q3_schema_leave(&c->r, before);
}

static uint32_t
compile_object(compiler *c, const q3_keywords *k)
{
	const cJSON *properties = k->value[KW_PROPERTIES], *required = k->value[KW_REQUIRED], *item;
	const cJSON *list[MAX_PROPERTIES];
	uint32_t first, more;
	size_t before;
	int n = 0;

	if (!cJSON_IsObject(properties))
		q3_schema_wrong_value(&c->r, KW_PROPERTIES, "an object, and cannot be left out");
	if (k->value[KW_ADDITIONAL] != NULL && !cJSON_IsFalse(k->value[KW_ADDITIONAL]))
		q3_schema_wrong_value(&c->r, KW_ADDITIONAL, "false");
	if (c->r.code == Q3_OK)
		check_required(c, required, properties);
	if (c->r.code == Q3_OK)
		check_properties(c, properties);
	if (c->r.code != Q3_OK)
		return 0;
	cJSON_ArrayForEach(item, properties) list[n++] = item;
	before = q3_schema_enter(&c->r, q3_schema_keyword_names[KW_PROPERTIES]);
	first = more = add_text(c, "}", add_return(c));
	while (n-- > 0 && c->r.code == Q3_OK)
		add_property(c, list[n], is_required(required, list[n]->string), &first, &more);
	q3_schema_leave(&c->r, before);
	return add_text(c, "{", first);
}

static uint32_t
compile_array(compiler *c, const q3_keywords *k)
{
	int32_t min = q3_schema_count(&c->r, k, KW_MIN_ITEMS, 0);
	int32_t max = q3_schema_count(&c->r, k, KW_MAX_ITEMS, Q3_NO_LIMIT);
	const cJSON *items = k->value[KW_ITEMS];
	q3_node node = {.kind = Q3_NODE_ARRAY, .min = min, .max = max};
	uint32_t array, rule;
	size_t before;

	q3_schema_check_counts(&c->r, KW_MIN_ITEMS, min, KW_MAX_ITEMS, max);
	if (items == NULL && max > 0)
		q3_schema_wrong_value(&c->r, KW_ITEMS, "a schema, and cannot be left out");
	if (c->r.code != Q3_OK)
		return 0;
	if (max == 0)
		return add_text(c, "[]", add_return(c));
	before = q3_schema_enter(&c->r, q3_schema_keyword_names[KW_ITEMS]);
	rule = compile_schema(c, items);
	q3_schema_leave(&c->r, before);
	node.close = add_text(c, "]", add_return(c));
	array = node_add(c, node);
	node.next = add_call(c, rule, array);
	node.other = add_text(c, ", ", node.next);
	if (c->r.code == Q3_OK)
		c->s->nodes[array] = node;
	return add_text(c, "[", array);
}

/* ---------------------------------------------------------------------------------------------
 * Schemas
 * --------------------------------------------------------------------------------------------- */

/* The node that stands for a definition, which is compiled later if it is new. */
static uint32_t
use_definition(compiler *c, const cJSON *json, const char *group, const char *name)
{
	definition d = {.json = json, .group = group, .name = name};

	for (size_t i = 0; i < c->n_definitions; i++)
		if (c->definitions[i].json == json)
			return c->definitions[i].node;
	if (!q3_grow(&c->definitions, c->n_definitions, &c->definition_capacity,
	             sizeof(c->definitions[0])))
	{
		q3_schema_out_of_memory(&c->r);
		return 0;
	}
	d.node = node_add(c, (q3_node){.kind = Q3_NODE_JUMP});
	c->definitions[c->n_definitions++] = d;
	return d.node;
}

static uint32_t
compile_ref(compiler *c, const cJSON *ref)
{
	static const q3_keyword groups[] = {KW_DEFS, KW_DEFINITIONS};
	const char *text = cJSON_IsString(ref) ? ref->valuestring : "";

	if (strcmp(text, "#") == 0)
		return use_definition(c, c->r.root, NULL, NULL);
	for (int i = 0; i < 2; i++)
	{
		const char *group = q3_schema_keyword_names[groups[i]];
		size_t len = strlen(group);
		const cJSON *item;

		if (strncmp(text, "#/", 2) != 0 || strncmp(text + 2, group, len) != 0 ||
		    text[2 + len] != '/')
			continue;
		cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(c->r.root, group))
		{
			char path[sizeof(c->r.path)];
			size_t before = strlen(c->r.path);

			/* Compared as pointers are written: with ~0 and ~1. */
			q3_schema_enter(&c->r, item->string);
			snprintf(path, sizeof(path), "%s", c->r.path + before);
			q3_schema_leave(&c->r, before);
			if (strcmp(path, text + 2 + len) == 0)
				return use_definition(c, item, group, item->string);
		}
	}
	q3_schema_fail(
	    &c->r, Q3_ERR_INVALID, q3_schema_keyword_names[KW_REF],
	    "$ref of JSON schema must name \"#\" or what is in \"#/$defs/\" or \"#/definitions/\"");
	return 0;
}

static uint32_t
compile_any_of(compiler *c, const cJSON *list)
{
	size_t before = q3_schema_enter(&c->r, q3_schema_keyword_names[KW_ANY_OF]);
	const cJSON *item;
	uint32_t node = 0;
	int i = 0;

	if (!cJSON_IsArray(list) || list->child == NULL)
	{
		q3_schema_leave(&c->r, before);
		q3_schema_wrong_value(&c->r, KW_ANY_OF, "a list of schemas");
		return 0;
	}
	cJSON_ArrayForEach(item, list)
	{
		char number[16];
		size_t inner;

		snprintf(number, sizeof(number), "%d", i++);
		inner = q3_schema_enter(&c->r, number);
		node = add_split(c, node, compile_schema(c, item));
		q3_schema_leave(&c->r, inner);
	}
	q3_schema_leave(&c->r, before);
	return node;
}

static uint32_t
compile_types(compiler *c, const q3_keywords *k)
{
	uint32_t types = q3_schema_types(&c->r, k), node = 0;

	if (types == 0)
		q3_schema_fail(&c->r, Q3_ERR_INVALID, NULL,
		               "JSON schema does not say which type a value has");
	if (c->r.code != Q3_OK)
		return 0;
	if (types & TYPE_OBJECT)
		node = add_split(c, node, compile_object(c, k));
	if (types & TYPE_ARRAY)
		node = add_split(c, node, compile_array(c, k));
	if (types & TYPE_STRING)
		node = add_split(c, node, compile_string(c, k));
	if (types & (TYPE_NUMBER | TYPE_INTEGER))
		node = add_split(c, node, compile_number(c, k, !(types & TYPE_NUMBER)));
	if (types & TYPE_BOOLEAN)
	{
		node = add_split(c, node, add_text(c, "true", add_return(c)));
		node = add_split(c, node, add_text(c, "false", add_return(c)));
	}
	if (types & TYPE_NULL)
		node = add_split(c, node, add_text(c, "null", add_return(c)));
	return node;
}

/* The first node of a rule for the schema; 0 after a failure. */
static uint32_t
compile_schema(compiler *c, const cJSON *json)
{
	q3_keywords k;
	uint32_t node;

	if (cJSON_IsFalse(json))
		return node_add(c, (q3_node){.kind = Q3_NODE_FAIL});
	if (!cJSON_IsObject(json))
		q3_schema_fail(&c->r, Q3_ERR_INVALID, NULL,
		               cJSON_IsTrue(json) ? "JSON schema does not say which type a value has"
		                                  : "JSON schema is not an object");
	if (++c->nesting > MAX_NESTING)
		q3_schema_fail(&c->r, Q3_ERR_UNSUPPORTED, NULL, "JSON schema is nested too deeply");
	if (c->r.code == Q3_OK)
		q3_schema_read(&c->r, json, &k);
	if (c->r.code != Q3_OK)
		return 0;
	if (k.value[KW_REF] != NULL)
	{
		q3_schema_check_alone(&c->r, &k, KW_REF, 0);
		node = compile_ref(c, k.value[KW_REF]);
	}
	else if (k.value[KW_ANY_OF] != NULL)
	{
		q3_schema_check_alone(&c->r, &k, KW_ANY_OF, 0);
		node = compile_any_of(c, k.value[KW_ANY_OF]);
	}
	else if (k.value[KW_ENUM] != NULL || k.value[KW_CONST] != NULL)
	{
		q3_schema_check_alone(&c->r, &k, k.value[KW_ENUM] != NULL ? KW_ENUM : KW_CONST,
		                      BIT(KW_TYPE));
		node = compile_values(c, &k, k.value[KW_ENUM], k.value[KW_CONST]);
	}
	else
		node = compile_types(c, &k);
	c->nesting--;
	return node;
}

/* The root, and what it refers to. */
static void
compile_all(compiler *c)
{
	use_definition(c, c->r.root, NULL, NULL);
	for (size_t i = 0; i < c->n_definitions && c->r.code == Q3_OK; i++)
	{
		definition d = c->definitions[i];
		uint32_t node;

		snprintf(c->r.path, sizeof(c->r.path), "#");
		if (d.group != NULL)
		{
			q3_schema_enter(&c->r, d.group);
			q3_schema_enter(&c->r, d.name);
		}
		node = compile_schema(c, d.json);
		if (c->r.code == Q3_OK)
			c->s->nodes[d.node].next = node;
	}
}

/* ---------------------------------------------------------------------------------------------
 * What can be completed
 * --------------------------------------------------------------------------------------------- */

static uint16_t
larger(unsigned a, unsigned b)
{
	unsigned m = a > b ? a : b;

	return m < Q3_NEED_NEVER ? (uint16_t) m : Q3_NEED_NEVER;
}

static uint16_t
need_of(const q3_schema *s, const q3_node *n)
{
	const q3_node *next = &s->nodes[n->next], *other = &s->nodes[n->other];

	switch ((q3_node_kind) n->kind)
	{
		case Q3_NODE_DONE:
		case Q3_NODE_RETURN:
			return 0;
		case Q3_NODE_FAIL:
			return Q3_NEED_NEVER;
		case Q3_NODE_SPLIT:
			return next->need < other->need ? next->need : other->need;
		case Q3_NODE_CALL:
			return larger(other->need + 1u, next->need);
		case Q3_NODE_ARRAY:
			/* Behind the first item there is nothing that was not needed before. */
			return n->min == 0 ? 0 : larger(s->nodes[next->other].need + 1u, 0);
		case Q3_NODE_BYTE:
		case Q3_NODE_STRING:
		case Q3_NODE_AUTOMATON:
		case Q3_NODE_JUMP:
			break;
	}
	return next->need;
}

/*
 * The least numbers that fit together; what nothing leads to stays at never. They only fall, and
 * those beyond the limit of nesting need not be exact.
 */
static void
find_needs(q3_schema *s)
{
	bool changed = true;

	for (size_t i = 0; i < s->n_nodes; i++)
		s->nodes[i].need = Q3_NEED_NEVER;
	while (changed)
	{
		changed = false;
		for (size_t i = 0; i < s->n_nodes; i++)
		{
			uint16_t need = need_of(s, &s->nodes[i]);

			changed = changed || need != s->nodes[i].need;
			s->nodes[i].need = need;
		}
	}
}

q3_schema *
q3_schema_compile(q3_str text, q3_error *err)
{
	q3_error unused = {0};
	compiler c = {.r = {.err = err != NULL ? err : &unused, .path = "#"}};
	cJSON *root = q3_schema_parse(text, c.r.err);

	if (root == NULL)
		return NULL;
	c.r.root = root;
	c.s = calloc(1, sizeof(*c.s));
	if (c.s == NULL)
		q3_schema_out_of_memory(&c.r);
	else
	{
		pthread_mutex_init(&c.s->lock, NULL);
		node_add(&c, (q3_node){.kind = Q3_NODE_DONE});
		compile_all(&c);
	}
	if (c.r.code == Q3_OK)
	{
		c.s->start = c.definitions[0].node;
		find_needs(c.s);
		if (c.s->nodes[c.s->start].need >= Q3_SCHEMA_MAX_NESTING)
			q3_schema_fail(&c.r, Q3_ERR_INVALID, NULL, "no value is valid under JSON schema");
	}
	for (size_t i = 0; c.keys != NULL && i < c.s->n_automata; i++)
		free(c.keys[i]);
	free(c.keys);
	free(c.definitions);
	cJSON_Delete(root);
	if (c.r.code == Q3_OK)
		return c.s;
	q3_schema_free(c.s);
	return NULL;
}

void
q3_schema_free(q3_schema *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n_automata; i++)
		q3_dfa_free(s->automata[i]);
	while (s->kept != NULL)
	{
		q3_kept_mask *next = s->kept->next;

		free(s->kept->bits);
		free(s->kept->exits);
		free(s->kept);
		s->kept = next;
	}
	free(s->automata);
	free(s->nodes);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
