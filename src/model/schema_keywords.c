/*
 * schema_keywords.c: reading and checking the keywords of a JSON Schema. See schema_keywords.h.
 */
#include "model/schema_keywords.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/pattern.h"

const char *const q3_schema_keyword_names[N_KEYWORDS] = {"type",
                                                         "enum",
                                                         "const",
                                                         "anyOf",
                                                         "$ref",
                                                         "properties",
                                                         "required",
                                                         "additionalProperties",
                                                         "items",
                                                         "minItems",
                                                         "maxItems",
                                                         "minLength",
                                                         "maxLength",
                                                         "pattern",
                                                         "format",
                                                         "minimum",
                                                         "maximum",
                                                         "exclusiveMinimum",
                                                         "exclusiveMaximum",
                                                         "$defs",
                                                         "definitions"};

static const char *const annotations[] = {"title",    "description", "default",   "example",
                                          "examples", "$schema",     "$id",       "$comment",
                                          "readOnly", "writeOnly",   "deprecated"};

static const char *const type_names[] = {"object",  "array",   "string", "number",
                                         "integer", "boolean", "null"};

#define N_TYPES (sizeof(type_names) / sizeof(type_names[0]))

/* ---------------------------------------------------------------------------------------------
 * Places and errors
 * --------------------------------------------------------------------------------------------- */

/* Appends "/name", as far as there is room; returns the length before. */
size_t
q3_schema_enter(q3_schema_reader *c, const char *name)
{
	size_t before = strlen(c->path), len = before;

	if (len + 2 < sizeof(c->path))
		c->path[len++] = '/';
	for (; *name != '\0' && len + 3 < sizeof(c->path); name++)
	{
		if (*name == '~' || *name == '/')
		{
			c->path[len++] = '~';
			c->path[len++] = *name == '~' ? '0' : '1';
		}
		else
			c->path[len++] = *name;
	}
	/* Not in the middle of a character. */
	while (*name != '\0' && len > before && ((unsigned char) *name & 0xc0) == 0x80)
		name = ((unsigned char) c->path[--len] & 0xc0) == 0x80 ? name : "";
	c->path[len] = '\0';
	return before;
}

void
q3_schema_leave(q3_schema_reader *c, size_t before)
{
	c->path[before] = '\0';
}

void
q3_schema_fail(q3_schema_reader *c, q3_code code, const char *name, const char *fmt, ...)
{
	char message[sizeof(((q3_error *) 0)->message)];
	size_t before = strlen(c->path);
	va_list args;

	if (c->code != Q3_OK)
		return;
	va_start(args, fmt);
	vsnprintf(message, sizeof(message), fmt, args);
	va_end(args);
	if (name != NULL)
		q3_schema_enter(c, name);
	c->code = q3_fail(c->err, code, "%s", message);
	q3_error_detail(c->err, "It is at \"%s\".", c->path);
	q3_schema_leave(c, before);
}

void
q3_schema_out_of_memory(q3_schema_reader *c)
{
	if (c->code == Q3_OK)
		c->code = q3_fail(c->err, Q3_ERR_MEMORY, "out of memory");
}

void
q3_schema_too_large(q3_schema_reader *c)
{
	q3_schema_fail(c, Q3_ERR_UNSUPPORTED, NULL, "JSON schema is too large");
}

void
q3_schema_wrong_value(q3_schema_reader *c, q3_keyword k, const char *wanted)
{
	q3_schema_fail(c, Q3_ERR_INVALID, q3_schema_keyword_names[k],
	               "JSON schema keyword \"%s\" must be %s", q3_schema_keyword_names[k], wanted);
}

/* An unknown name that an error is to show: not longer than a line, and whole characters. */
static void
unknown_keyword(q3_schema_reader *c, const char *name)
{
	int len = (int) strlen(name);

	if (len > 60)
		for (len = 60; len > 0 && ((unsigned char) name[len] & 0xc0) == 0x80; len--)
			;
	q3_schema_fail(c, Q3_ERR_INVALID, name, "JSON schema keyword \"%.*s\" is not supported", len,
	               name);
}

/* ---------------------------------------------------------------------------------------------
 * Keywords
 * --------------------------------------------------------------------------------------------- */

static bool
is_annotation(const char *name)
{
	for (size_t i = 0; i < sizeof(annotations) / sizeof(annotations[0]); i++)
		if (strcmp(annotations[i], name) == 0)
			return true;
	return false;
}

void
q3_schema_read(q3_schema_reader *c, const cJSON *json, q3_keywords *k)
{
	const cJSON *child;

	memset(k, 0, sizeof(*k));
	cJSON_ArrayForEach(child, json)
	{
		int i = 0;

		if (is_annotation(child->string))
			continue;
		while (i < N_KEYWORDS && strcmp(q3_schema_keyword_names[i], child->string) != 0)
			i++;
		if (i == N_KEYWORDS || ((BIT(i) & DEFINITION_KEYWORDS) && json != c->root))
			unknown_keyword(c, child->string);
		else if (k->value[i] != NULL)
			q3_schema_fail(c, Q3_ERR_INVALID, child->string,
			               "JSON schema keyword \"%s\" is there twice", child->string);
		else
		{
			k->value[i] = child;
			k->present |= BIT(i);
		}
	}
	k->present &= ~DEFINITION_KEYWORDS;
}

/* The keyword decides alone: beside it only those in others may stand. */
void
q3_schema_check_alone(q3_schema_reader *c, const q3_keywords *k, q3_keyword alone, uint32_t others)
{
	for (int i = 0; i < N_KEYWORDS; i++)
		if (i != (int) alone && (k->present & ~others & BIT(i)))
			q3_schema_fail(c, Q3_ERR_INVALID, q3_schema_keyword_names[i],
			               "JSON schema keyword \"%s\" cannot be combined with \"%s\"",
			               q3_schema_keyword_names[i], q3_schema_keyword_names[alone]);
}

/* A count that is not negative, or what stands for its absence. */
int32_t
q3_schema_count(q3_schema_reader *c, const q3_keywords *k, q3_keyword which, int32_t absent)
{
	const cJSON *value = k->value[which];

	if (value == NULL)
		return absent;
	if (!cJSON_IsNumber(value) || value->valuedouble < 0 ||
	    value->valuedouble != floor(value->valuedouble))
	{
		q3_schema_wrong_value(c, which, "a whole number that is not negative");
		return 0;
	}
	return value->valuedouble < Q3_NO_LIMIT ? (int32_t) value->valuedouble : Q3_NO_LIMIT - 1;
}

void
q3_schema_check_counts(q3_schema_reader *c, q3_keyword min_name, int32_t min, q3_keyword max_name,
                       int32_t max)
{
	if (min > max)
		q3_schema_fail(c, Q3_ERR_INVALID, q3_schema_keyword_names[min_name],
		               "JSON schema keyword \"%s\" is greater than \"%s\"",
		               q3_schema_keyword_names[min_name], q3_schema_keyword_names[max_name]);
}

static uint32_t
type_of_name(const char *name)
{
	for (size_t i = 0; i < N_TYPES; i++)
		if (strcmp(type_names[i], name) == 0)
			return 1u << i;
	return 0;
}

/* The types that the schema allows, as bits; 0 after a failure, or when none are given. */
uint32_t
q3_schema_types(q3_schema_reader *c, const q3_keywords *k)
{
	const cJSON *value = k->value[KW_TYPE], *item;
	uint32_t types = 0, type;

	if (value == NULL)
		return ((k->present & OBJECT_KEYWORDS) ? TYPE_OBJECT : 0) |
		       ((k->present & ARRAY_KEYWORDS) ? TYPE_ARRAY : 0) |
		       ((k->present & STRING_KEYWORDS) ? TYPE_STRING : 0) |
		       ((k->present & NUMBER_KEYWORDS) ? TYPE_NUMBER : 0);
	if (cJSON_IsString(value))
		types = type_of_name(value->valuestring);
	cJSON_ArrayForEach(item, value)
	{
		type = cJSON_IsString(item) ? type_of_name(item->valuestring) : 0;
		types |= type;
		if (type == 0 || !cJSON_IsArray(value))
		{
			types = 0;
			break;
		}
	}
	if (types == 0)
		q3_schema_wrong_value(c, KW_TYPE, "the name of a type or a list of them");
	return types;
}
