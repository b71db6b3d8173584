/*
 * random_schema.h: random JSON Schemas, and a checker of values that shares nothing with the code
 * that makes them: it walks the value's and the schema's cJSON trees.
 */
#ifndef TEST_RANDOM_SCHEMA_H
#define TEST_RANDOM_SCHEMA_H

#include <cjson/cJSON.h>
#include <regex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The same in both dialects. */
static const char *const random_patterns[] = {"^[A-Z]{3}-[0-9]+$", "^(ab|c)*d?$", "x",
                                              "^[^a-z]{1,4}$", "^[0-9]{2}:[0-9]{2}$|^none$"};

#define N_RANDOM_PATTERNS (sizeof(random_patterns) / sizeof(random_patterns[0]))

static inline uint32_t
random_below(uint64_t *state, uint32_t n)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (*state >> 33) % n;
}

static inline cJSON *random_schema(uint64_t *state, int depth);

static inline void
random_string(uint64_t *state, cJSON *s)
{
	uint32_t min = random_below(state, 4);

	cJSON_AddStringToObject(s, "type", "string");
	switch (random_below(state, 8))
	{
		case 0:
			cJSON_AddStringToObject(s, "pattern",
			                        random_patterns[random_below(state, N_RANDOM_PATTERNS)]);
			cJSON_AddNumberToObject(s, "maxLength", 5 + random_below(state, 10));
			break;
		case 1:
			cJSON_AddStringToObject(s, "format", "date");
			break;
		case 2: /* no limit at all */
			break;
		default:
			cJSON_AddNumberToObject(s, "minLength", min);
			cJSON_AddNumberToObject(s, "maxLength", min + random_below(state, 12));
	}
}

static inline void
random_number(uint64_t *state, cJSON *s)
{
	bool integer = random_below(state, 2);
	double min = (double) random_below(state, 2000) - 1000;
	double max = min + 2 + (double) random_below(state, 1000);

	cJSON_AddStringToObject(s, "type", integer ? "integer" : "number");
	if (!integer)
		min += 0.25;
	if (random_below(state, 4) > 0)
		cJSON_AddNumberToObject(s, random_below(state, 2) ? "minimum" : "exclusiveMinimum", min);
	if (random_below(state, 4) > 0)
		cJSON_AddNumberToObject(s, random_below(state, 2) ? "maximum" : "exclusiveMaximum", max);
}

static inline void
random_object(uint64_t *state, cJSON *s, int depth)
{
	static const char *const names[] = {"a", "ab", "name", "b\"\\c", "\xc3\xa9t\xc3\xa9", "x y"};
	cJSON *properties, *required;

	cJSON_AddStringToObject(s, "type", "object");
	properties = cJSON_AddObjectToObject(s, "properties");
	required = cJSON_AddArrayToObject(s, "required");
	for (int i = 0; i < 6; i++)
	{
		if (random_below(state, 2))
			continue;
		cJSON_AddItemToObject(properties, names[i], random_schema(state, depth - 1));
		if (random_below(state, 2))
			cJSON_AddItemToArray(required, cJSON_CreateString(names[i]));
	}
	if (random_below(state, 2))
		cJSON_AddFalseToObject(s, "additionalProperties");
}

static inline void
random_array(uint64_t *state, cJSON *s, int depth)
{
	uint32_t min = random_below(state, 3);

	cJSON_AddStringToObject(s, "type", "array");
	cJSON_AddItemToObject(s, "items", random_schema(state, depth - 1));
	cJSON_AddNumberToObject(s, "minItems", min);
	if (random_below(state, 4))
		cJSON_AddNumberToObject(s, "maxItems", min + random_below(state, 3));
}

static inline void
random_enum(uint64_t *state, cJSON *s)
{
	static const char *const values[] = {
	    "\"red\"", "\"green\"", "\"re\"", "1",    "12",
	    "null",    "true",      "-1.5",   "\"\"", "\"\xe2\x82\xac\""};
	cJSON *list = cJSON_AddArrayToObject(s, "enum");

	for (uint32_t n = 1 + random_below(state, 5); n > 0; n--)
		cJSON_AddItemToArray(list, cJSON_Parse(values[random_below(state, 10)]));
}

/* Nested at most depth deep; cJSON's memory is the caller's. */
static inline cJSON *
random_schema(uint64_t *state, int depth)
{
	cJSON *s = cJSON_CreateObject(), *list;

	switch (random_below(state, depth > 0 ? 12 : 7))
	{
		case 0:
		case 1:
			random_string(state, s);
			break;
		case 2:
		case 3:
			random_number(state, s);
			break;
		case 4:
			random_enum(state, s);
			break;
		case 5:
			cJSON_AddItemToObject(s, "type", cJSON_Parse("[\"boolean\",\"null\",\"integer\"]"));
			break;
		case 6:
			cJSON_AddItemToObject(s, "const", cJSON_Parse(random_below(state, 2) ? "7" : "\"k\""));
			break;
		case 7:
			list = cJSON_AddArrayToObject(s, "anyOf");
			for (uint32_t n = 1 + random_below(state, 3); n > 0; n--)
				cJSON_AddItemToArray(list, random_schema(state, depth - 1));
			break;
		case 8:
			random_array(state, s, depth);
			break;
		default:
			random_object(state, s, depth);
	}
	return s;
}

/* ---------------------------------------------------------------------------------------------
 * The checker
 * --------------------------------------------------------------------------------------------- */

static inline size_t
count_characters(const char *s)
{
	size_t n = 0;

	for (; *s != '\0'; s++)
		n += ((unsigned char) *s & 0xc0) != 0x80;
	return n;
}

static inline bool
check_date(const char *s)
{
	int y, m, d;
	struct tm tm = {0};

	if (strlen(s) != 10 || sscanf(s, "%4d-%2d-%2d", &y, &m, &d) != 3 || y < 1)
		return false;
	tm.tm_year = y - 1900;
	tm.tm_mon = m - 1;
	tm.tm_mday = d;
	timegm(&tm);
	return tm.tm_mon == m - 1 && tm.tm_mday == d;
}

/* Bytes of other languages' letters count as single characters here: the patterns do not mind. */
static inline bool
check_pattern(const char *pattern, const char *s)
{
	regex_t r;
	bool ok;

	if (regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		abort();
	ok = regexec(&r, s, 0, NULL, 0) == 0;
	regfree(&r);
	/* Bytes are not characters there: only count what has none of them. */
	for (const char *c = s; *c != '\0'; c++)
		if ((unsigned char) *c >= 0x80)
			return true;
	return ok;
}

static inline double
bound(const cJSON *schema, const char *name, double absent)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(schema, name);

	return item != NULL ? item->valuedouble : absent;
}

static inline bool
check_type(const char *type, const cJSON *v)
{
	if (strcmp(type, "string") == 0)
		return cJSON_IsString(v);
	if (strcmp(type, "number") == 0)
		return cJSON_IsNumber(v);
	if (strcmp(type, "integer") == 0)
		return cJSON_IsNumber(v) && v->valuedouble == (double) (int64_t) v->valuedouble;
	if (strcmp(type, "boolean") == 0)
		return cJSON_IsBool(v);
	if (strcmp(type, "null") == 0)
		return cJSON_IsNull(v);
	if (strcmp(type, "object") == 0)
		return cJSON_IsObject(v);
	return strcmp(type, "array") == 0 && cJSON_IsArray(v);
}

static inline bool check_value(const cJSON *schema, const cJSON *v);

static inline bool
check_object(const cJSON *schema, const cJSON *v)
{
	const cJSON *properties = cJSON_GetObjectItemCaseSensitive(schema, "properties");
	const cJSON *at = properties->child, *item;

	/* Each of the value's in the schema's order, hence none twice. */
	cJSON_ArrayForEach(item, v)
	{
		while (at != NULL && strcmp(at->string, item->string) != 0)
			at = at->next;
		if (at == NULL || !check_value(at, item))
			return false;
		at = at->next;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(schema, "required"))
	{
		if (cJSON_GetObjectItemCaseSensitive(v, item->valuestring) == NULL)
			return false;
	}
	return true;
}

static inline bool
check_array(const cJSON *schema, const cJSON *v)
{
	const cJSON *items = cJSON_GetObjectItemCaseSensitive(schema, "items"), *item;
	double n = cJSON_GetArraySize(v);

	cJSON_ArrayForEach(item, v) if (!check_value(items, item)) return false;
	return n >= bound(schema, "minItems", 0) && n <= bound(schema, "maxItems", 1e9);
}

static inline bool
check_string(const cJSON *schema, const char *s)
{
	const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(schema, "pattern");
	double n = (double) count_characters(s);

	if (pattern != NULL && !check_pattern(pattern->valuestring, s))
		return false;
	if (cJSON_HasObjectItem(schema, "format") && !check_date(s))
		return false;
	return n >= bound(schema, "minLength", 0) && n <= bound(schema, "maxLength", 1e9);
}

static inline bool
check_types(const cJSON *type, const cJSON *v)
{
	const cJSON *item;

	if (type == NULL)
		return true;
	if (cJSON_IsString(type))
		return check_type(type->valuestring, v);
	cJSON_ArrayForEach(item, type) if (check_type(item->valuestring, v)) return true;
	return false;
}

/* True when the value is valid under the schema (of those that random_schema() makes). */
static inline bool
check_value(const cJSON *schema, const cJSON *v)
{
	const cJSON *any = cJSON_GetObjectItemCaseSensitive(schema, "anyOf"), *item;
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(schema, "enum");
	const cJSON *one = cJSON_GetObjectItemCaseSensitive(schema, "const");
	double x = v->valuedouble;

	cJSON_ArrayForEach(item, any) if (check_value(item, v)) return true;
	cJSON_ArrayForEach(item, list) if (cJSON_Compare(item, v, true)) return true;
	if (any != NULL || list != NULL)
		return false;
	if (one != NULL)
		return cJSON_Compare(one, v, true);
	if (!check_types(cJSON_GetObjectItemCaseSensitive(schema, "type"), v))
		return false;
	if (cJSON_IsObject(v))
		return check_object(schema, v);
	if (cJSON_IsArray(v))
		return check_array(schema, v);
	if (cJSON_IsString(v))
		return check_string(schema, v->valuestring);
	if (cJSON_IsNumber(v))
		return x >= bound(schema, "minimum", -1e300) && x <= bound(schema, "maximum", 1e300) &&
		       x > bound(schema, "exclusiveMinimum", -1e300) &&
		       x < bound(schema, "exclusiveMaximum", 1e300);
	return true;
}

/* The same for text; *why says what was wrong. */
static inline bool
check_text(const cJSON *schema, const char *text, size_t len, const char **why)
{
	const char *end = NULL;
	cJSON *v = cJSON_ParseWithLengthOpts(text, len, &end, false);
	bool ok = v != NULL && end == text + len;

	*why = ok ? "not valid under its schema" : "not JSON";
	ok = ok && check_value(schema, v);
	cJSON_Delete(v);
	return ok;
}

#endif
