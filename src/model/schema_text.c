/*
 * schema_text.c: reading a schema's text, and writing values.
 *
 * cJSON turns numbers into doubles and ends strings at U+0000; so the text's numbers are put into
 * the tree once more, as text (both are in the same order), and U+0000 is refused. No state.
 */
#include "model/schema_text.h"

#include <stdlib.h>
#include <string.h>

#include "model/automaton.h"
#include "model/json_schema.h"
#include "model/pattern.h"
#include "model/unicode.h"

/* ---------------------------------------------------------------------------------------------
 * Reading
 * --------------------------------------------------------------------------------------------- */

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Bytes that cJSON would let pass although they are no JSON, or could not be kept. */
static const char *
find_fault(q3_str text)
{
	bool in_string = false;

	for (size_t i = 0, n; i < text.len; i += n)
	{
		uint32_t c;

		n = q3_utf8_decode((const uint8_t *) text.data + i, (const uint8_t *) text.data + text.len,
		                   &c);
		if (c == Q3_UTF8_INVALID)
			return "It is not valid UTF-8.";
		if (c < 0x20 && (in_string || !is_space((char) c)))
			return "It has a control character.";
		if (c == '"')
			in_string = !in_string;
		if (c != '\\' || !in_string)
			continue;
		if (text.len - i >= 6 && memcmp(text.data + i, "\\u0000", 6) == 0)
			return "It has the character U+0000, which text cannot hold.";
		n = 2;
	}
	return NULL;
}

/* The next number of the text from *at on; false when there is none. */
static bool
next_number(q3_str text, size_t *at, q3_str *number)
{
	bool in_string = false;
	size_t i = *at, start;

	for (; i < text.len; i++)
	{
		char c = text.data[i];

		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '-' || (c >= '0' && c <= '9')))
			break;
	}
	for (start = i; i < text.len && strchr("+-.0123456789Ee", text.data[i]) != NULL; i++)
		;
	*number = (q3_str){text.data + start, i - start};
	*at = i;
	return i > start;
}

/* JSON's own form of numbers; cJSON takes others, too. */
static bool
is_number(q3_str s)
{
	size_t i = s.len > 0 && s.data[0] == '-', digits = i;

	while (i < s.len && s.data[i] >= '0' && s.data[i] <= '9')
		i++;
	if (i == digits || (s.data[digits] == '0' && i > digits + 1))
		return false;
	if (i < s.len && s.data[i] == '.')
	{
		for (digits = ++i; i < s.len && s.data[i] >= '0' && s.data[i] <= '9'; i++)
			;
		if (i == digits)
			return false;
	}
	if (i < s.len && (s.data[i] | 0x20) == 'e')
	{
		i++;
		i += i < s.len && (s.data[i] == '+' || s.data[i] == '-');
		for (digits = i; i < s.len && s.data[i] >= '0' && s.data[i] <= '9'; i++)
			;
		if (i == digits)
			return false;
	}
	return i == s.len;
}

/* Puts the text's numbers into the tree, whose depth cJSON limits. */
static q3_code
name_numbers(cJSON *tree, q3_str text, size_t *at, q3_error *err)
{
	q3_str number;
	cJSON *child;
	q3_code code = Q3_OK;

	if (cJSON_IsNumber(tree))
	{
		if (!next_number(text, at, &number) || !is_number(number))
		{
			q3_fail(err, Q3_ERR_INVALID, "JSON schema is not valid JSON");
			q3_error_detail(err, "It has a malformed number.");
			return Q3_ERR_INVALID;
		}
		tree->valuestring = cJSON_malloc(number.len + 1);
		if (tree->valuestring == NULL)
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		memcpy(tree->valuestring, number.data, number.len);
		tree->valuestring[number.len] = '\0';
	}
	for (child = tree->child; child != NULL && code == Q3_OK; child = child->next)
		code = name_numbers(child, text, at, err);
	return code;
}

cJSON *
q3_schema_parse(q3_str text, q3_error *err)
{
	const char *end = NULL, *fault = find_fault(text);
	cJSON *tree = NULL;
	size_t at = 0;

	if (text.len > Q3_SCHEMA_MAX_BYTES)
	{
		q3_fail(err, Q3_ERR_UNSUPPORTED, "JSON schema is longer than %d bytes",
		        Q3_SCHEMA_MAX_BYTES);
		return NULL;
	}
	if (fault == NULL)
		tree = cJSON_ParseWithLengthOpts(text.data, text.len, &end, false);
	while (tree != NULL && end < text.data + text.len && is_space(*end))
		end++;
	if (tree == NULL || end != text.data + text.len)
	{
		q3_fail(err, Q3_ERR_INVALID, "JSON schema is not valid JSON");
		if (fault != NULL)
			q3_error_detail(err, "%s", fault);
		cJSON_Delete(tree);
		return NULL;
	}
	if (name_numbers(tree, text, &at, err) == Q3_OK)
		return tree;
	cJSON_Delete(tree);
	return NULL;
}

/* ---------------------------------------------------------------------------------------------
 * Writing
 * --------------------------------------------------------------------------------------------- */

void
q3_text_add(q3_text *t, const char *data, size_t len)
{
	while (!t->failed && t->capacity - t->len < len)
		t->failed = !q3_grow(&t->data, t->capacity, &t->capacity, 1);
	if (t->failed || len == 0)
		return;
	memcpy(t->data + t->len, data, len);
	t->len += len;
}

void
q3_text_add_string(q3_text *t, const char *s)
{
	char escaped[6];

	q3_text_add(t, "\"", 1);
	while (*s != '\0')
	{
		uint32_t c;

		s += q3_utf8_next((const uint8_t *) s, &c);
		q3_text_add(t, escaped, q3_json_escape(c, escaped));
	}
	q3_text_add(t, "\"", 1);
}

static void
add_literal(q3_text *t, const char *s)
{
	q3_text_add(t, s, strlen(s));
}

void
q3_text_add_value(q3_text *t, const cJSON *value)
{
	const cJSON *item;

	if (cJSON_IsString(value))
		q3_text_add_string(t, value->valuestring);
	else if (cJSON_IsNumber(value))
		add_literal(t, value->valuestring);
	else if (cJSON_IsBool(value))
		add_literal(t, cJSON_IsTrue(value) ? "true" : "false");
	else if (cJSON_IsNull(value))
		add_literal(t, "null");
	else
	{
		add_literal(t, cJSON_IsObject(value) ? "{" : "[");
		cJSON_ArrayForEach(item, value)
		{
			if (item != value->child)
				add_literal(t, ", ");
			if (cJSON_IsObject(value))
			{
				q3_text_add_string(t, item->string);
				add_literal(t, ": ");
			}
			q3_text_add_value(t, item);
		}
		add_literal(t, cJSON_IsObject(value) ? "}" : "]");
	}
}
