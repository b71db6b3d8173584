/*
 * test_schema.c: what JSON Schemas allow: every keyword with its limits, every kind of error, and
 * numbers, patterns and dates against independent answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "model/number_range.h"
#include "model/pattern.h"
#include "schema_vocab.h"

static q3_tokenizer *tok;
static q3_token_trie *trie;

static int
set_up(void **state)
{
	(void) state;
	tok = schema_tokenizer();
	trie = q3_token_trie_create(tok);
	return trie != NULL ? 0 : -1;
}

static int
tear_down(void **state)
{
	(void) state;
	q3_token_trie_free(trie);
	q3_tokenizer_free(tok);
	return 0;
}

/* ---------------------------------------------------------------------------------------------
 * Keywords
 * --------------------------------------------------------------------------------------------- */

typedef struct schema_case
{
	const char *schema;
	const char *good[12], *bad[12];
} schema_case;

#define OBJECT(properties) "{\"type\":\"object\",\"properties\":{" properties "}}"

static const schema_case cases[] = {
    {"{\"type\":\"null\"}", {"null"}, {"nul", "nulll", "true", ""}},
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "null", "tru"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a b\"", "\"\xc3\xa9\"", "\"\\n\\u00e9\\/\"", "\"\\ud83d\\uDE00\"",
      "\"\xf0\x9f\x98\x80\"", "\"\\u0001\"", "\"\x7f\""},
     {"\"", "\"a", "a", "\"\n\"", "\"\\u0000\"", "\"\\ud83d\"", "\"\\udc00\"", "\"\\x\"",
      "\"\xc3\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\"", "\"\xf4\x90\x80\x80\""}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"abc\"", "\"\xc3\xa9\xe6\x97\xa5\"", "\"\\n\\\"\"", "\"\\ud83d\\ude00a\""},
     {"\"a\"", "\"abcd\"", "\"\"", "\"\xc3\xa9\"", "\"\\ud83d\\ude00\""}},
    {"{\"type\":\"string\",\"maxLength\":0}", {"\"\""}, {"\"a\""}},
    {"{\"type\":\"string\",\"minLength\":3}", {"\"abc\"", "\"abcdefgh\""}, {"\"ab\"", "\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-\\\\d+$\"}",
     {"\"AB-1\"", "\"XY-123456\""},
     {"\"AB-\"", "\"aB-1\"", "\"AB-1 \"", "\" AB-1\""}},
    {"{\"type\":\"string\",\"pattern\":\"b+\",\"maxLength\":3}",
     {"\"b\"", "\"abc\"", "\"bbb\""},
     {"\"a\"", "\"\"", "\"abca\""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\S+$\",\"minLength\":2}",
     {"\"ab\"", "\"\\\"\\\\\""},
     {"\"a\"", "\"a b\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-29\"", "\"0001-01-01\"", "\"9999-12-31\"", "\"2000-02-29\"", "\"2023-04-30\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"0000-01-01\"", "\"2024-13-01\"", "\"2024-04-31\"",
      "\"2024-1-1\"", "\"0000-02-29\""}},
    {"{\"type\":\"string\",\"format\":\"time\"}",
     {"\"23:59:59Z\"", "\"00:00:00.123+14:00\""},
     {"\"24:00:00Z\"", "\"23:59:60Z\"", "\"12:00:00\"", "\"12:00:00+14:01\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"2024-02-29T12:30:00Z\"", "\"2024-02-28T12:30:00.5-08:00\""},
     {"\"2024-02-29\"", "\"2024-02-30T12:30:00Z\"", "\"2024-02-29 12:30:00Z\""}},
    {"{\"type\":\"string\",\"format\":\"uuid\"}",
     {"\"01234567-89ab-cdef-0123-456789abcdef\""},
     {"\"01234567-89ab-cdef-0123-456789abcde\"", "\"g1234567-89ab-cdef-0123-456789abcdef\""}},
    {"{\"type\":\"string\",\"format\":\"email\"}",
     {"\"a.b@example.org\"", "\"x@a-b.co.uk\""},
     {"\"a\"", "\"@b.de\"", "\"a@b\"", "\"a b@c.de\""}},
    {"{\"type\":\"integer\"}",
     {"0", "-1", "42", "999999999999999999"},
     {"-0", "01", "1.0", "1e3", "+1", "1999999999999999999", "-"}},
    {"{\"type\":\"integer\",\"minimum\":-9223372036854775808,\"maximum\":9223372036854775807}",
     {"-9223372036854775808", "9223372036854775807", "0"},
     {"-9223372036854775809", "9223372036854775808"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":100}",
     {"1", "99", "10"},
     {"0", "100", "-1", "101"}},
    {"{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}", {"2", "3"}, {"1", "4"}},
    {"{\"type\":\"number\"}",
     {"0", "-1.5", "1e10", "2.5E-3", "0.0001"},
     {".5", "1.", "1e", "1e100", "NaN"}},
    {"{\"type\":\"number\",\"minimum\":0.1,\"exclusiveMaximum\":0.2}",
     {"0.1", "0.10", "0.199999999999999", "0.15"},
     {"0.2", "0.09", "0", "1e-1", "-0.15", "0.2000"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"}}",
     {"[]", "[null]", "[null, null, null]"},
     {"[null,null]", "[null, ]", "[ ]", "[null"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":2,\"maxItems\":3}",
     {"[null, null]", "[null, null, null]"},
     {"[]", "[null]", "[null, null, null, null]"}},
    {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[null]"}},
    {"{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"array\",\"maxItems\":1,\"items\":{"
     "\"type\":\"null\"}}}",
     {"[[]]", "[[null], [], [null]]"},
     {"[]", "[[null, null]]", "[null]"}},
    {OBJECT(""), {"{}"}, {"{\"a\": 1}", "{ }"}},
    {OBJECT("\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}"),
     {"{}", "{\"a\": null}", "{\"b\": null}", "{\"a\": null, \"b\": null}"},
     {"{\"b\": null, \"a\": null}", "{\"a\":null}", "{\"a\": null, }",
      "{\"a\": null, \"a\": null}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},"
     "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"],\"additionalProperties\":false}",
     {"{\"b\": null}", "{\"a\": null, \"b\": null, \"c\": null}", "{\"b\": null, \"c\": null}"},
     {"{}", "{\"a\": null}", "{\"c\": null}", "{\"a\": null, \"c\": null}"}},
    {OBJECT("\"q\\\"\\n\xc3\xa9\":{\"type\":\"null\"}"),
     {"{\"q\\\"\\n\xc3\xa9\": null}"},
     {"{\"q\": null}"}},
    {"{\"enum\":[\"a\",\"ab\",1,10,null,true,[1,{\"x\":\"y\"}]]}",
     {"\"a\"", "\"ab\"", "1", "10", "null", "true", "[1, {\"x\": \"y\"}]"},
     {"\"b\"", "100", "false", "[]"}},
    {"{\"type\":\"string\",\"enum\":[\"a\",null]}", {"\"a\""}, {"null"}},
    {"{\"type\":[\"integer\",\"null\"],\"enum\":[1,1.5,null]}", {"1", "null"}, {"1.5"}},
    {"{\"const\":\"x\"}", {"\"x\""}, {"x", "\"y\""}},
    {"{\"const\":12345678901234567890}", {"12345678901234567890"}, {"12345678901234567168"}},
    {"{\"type\":[\"string\",\"null\",\"integer\"],\"maxLength\":1,\"minimum\":5}",
     {"\"a\"", "null", "5"},
     {"\"ab\"", "4", "true"}},
    {"{\"anyOf\":[{\"type\":\"integer\",\"maximum\":10},{\"const\":100},{\"type\":\"null\"}]}",
     {"10", "100", "-5", "null"},
     {"11", "99", "1000"}},
    {"{\"anyOf\":[" OBJECT("\"k\":{\"const\":1},\"v\":{\"type\":\"null\"}") "," OBJECT(
         "\"k\":{\"const\":2},\"v\":{\"type\":\"boolean\"}") "]}",
     {"{\"k\": 1, \"v\": null}", "{\"k\": 2, \"v\": true}", "{}"},
     {"{\"k\": 1, \"v\": true}", "{\"k\": 2, \"v\": null}"}},
    {"{\"anyOf\":[false,{\"type\":\"null\"}]}", {"null"}, {"false"}},
    {OBJECT("\"a\":false,\"b\":{\"type\":\"null\"}"), {"{}", "{\"b\": null}"}, {"{\"a\": null}"}},
    {"{\"$ref\":\"#/$defs/n~1~0x\",\"$defs\":{\"n/~x\":{\"type\":\"null\"}}}", {"null"}, {"1"}},
    {"{\"$ref\":\"#/definitions/a\",\"definitions\":{\"a\":{\"$ref\":\"#/definitions/b\"},\"b\":{"
     "\"type\":\"null\"}}}",
     {"null"},
     {"1"}},
    {"{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#\"}}}",
     {"{}", "{\"n\": {}}", "{\"n\": {\"n\": {}}}"},
     {"{\"n\": null}", "{\"n\": {}"}},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", {"null"}, {"1"}},
    {"{\"items\":{\"type\":\"null\"}}", {"[]", "[null]"}, {"null"}},
    {"{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$schema\":\"s\",\"$"
     "id\":"
     "\"i\",\"$comment\":\"c\",\"type\":\"null\"}",
     {"null"},
     {"1"}},
    {"{\"maxLength\":1}", {"\"a\""}, {"\"ab\""}},
    {" {\n\t\"type\" : \"null\" } ", {"null"}, {"1"}},
};

static void
test_keywords(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		q3_schema *s = good_schema(cases[i].schema);

		for (int k = 0; k < 12 && cases[i].good[k] != NULL; k++)
			if (!accepts(s, trie, tok, cases[i].good[k]))
				fail_msg("%s does not accept %s", cases[i].schema, cases[i].good[k]);
		for (int k = 0; k < 12 && cases[i].bad[k] != NULL; k++)
			if (accepts(s, trie, tok, cases[i].bad[k]))
				fail_msg("%s accepts %s", cases[i].schema, cases[i].bad[k]);
		q3_schema_free(s);
	}
}

/* ---------------------------------------------------------------------------------------------
 * Errors
 * --------------------------------------------------------------------------------------------- */

typedef struct error_case
{
	const char *schema;
	q3_code code;
	const char *message, *detail; /* parts of them; NULL: any */
} error_case;

static const error_case errors[] = {
    {"", Q3_ERR_INVALID, "not valid JSON", NULL},
    {"{", Q3_ERR_INVALID, "not valid JSON", NULL},
    {"{} {}", Q3_ERR_INVALID, "not valid JSON", NULL},
    {"{\"minimum\":01}", Q3_ERR_INVALID, "not valid JSON", "malformed number"},
    {"{\"minimum\":1.}", Q3_ERR_INVALID, "not valid JSON", NULL},
    {"{\"const\":\"\xff\"}", Q3_ERR_INVALID, "not valid JSON", "UTF-8"},
    {"{\"const\":\"\n\"}", Q3_ERR_INVALID, "not valid JSON", "control character"},
    {"{\"const\":\"a\\u0000b\"}", Q3_ERR_INVALID, "not valid JSON", "U+0000"},
    {"[]", Q3_ERR_INVALID, "not an object", "\"#\""},
    {"true", Q3_ERR_INVALID, "which type", "\"#\""},
    {"{}", Q3_ERR_INVALID, "which type", NULL},
    {"false", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"type\":\"strin\"}", Q3_ERR_INVALID, "\"type\" must be", "\"#/type\""},
    {"{\"type\":[]}", Q3_ERR_INVALID, "\"type\" must be", NULL},
    {"{\"type\":[\"null\",1]}", Q3_ERR_INVALID, "\"type\" must be", NULL},
    {"{\"type\":{\"a\":\"null\"}}", Q3_ERR_INVALID, "\"type\" must be", NULL},
    {"{\"type\":\"string\",\"contentEncoding\":\"x\"}", Q3_ERR_INVALID,
     "keyword \"contentEncoding\" is not supported", "\"#/contentEncoding\""},
    {OBJECT("\"a/b~\":{\"type\":\"array\",\"items\":{\"multipleOf\":3}}"), Q3_ERR_INVALID,
     "\"multipleOf\" is not supported", "\"#/properties/a~1b~0/items/multipleOf\""},
    {"{\"oneOf\":[]}", Q3_ERR_INVALID, "\"oneOf\" is not supported", NULL},
    {"{\"allOf\":[]}", Q3_ERR_INVALID, "\"allOf\" is not supported", NULL},
    {"{\"type\":\"null\",\"not\":{}}", Q3_ERR_INVALID, "\"not\" is not supported", NULL},
    {OBJECT("\"a\":{\"$defs\":{},\"type\":\"null\"}"), Q3_ERR_INVALID, "\"$defs\"", NULL},
    {"{\"type\":\"null\",\"type\":\"null\"}", Q3_ERR_INVALID, "there twice", NULL},
    {"{\"type\":\"object\"}", Q3_ERR_INVALID, "\"properties\" must be", NULL},
    {"{\"type\":\"object\",\"properties\":[]}", Q3_ERR_INVALID, "\"properties\" must be", NULL},
    {"{\"properties\":{},\"additionalProperties\":true}", Q3_ERR_INVALID,
     "\"additionalProperties\" must be false", NULL},
    {"{\"properties\":{},\"additionalProperties\":{}}", Q3_ERR_INVALID, "must be false", NULL},
    {"{\"properties\":{},\"required\":[\"a\"]}", Q3_ERR_INVALID, "does not define",
     "\"#/required\""},
    {"{\"properties\":{},\"required\":[1]}", Q3_ERR_INVALID, "\"required\" must be", NULL},
    {"{\"properties\":{},\"required\":1}", Q3_ERR_INVALID, "\"required\" must be", NULL},
    {OBJECT("\"a\":{\"type\":\"null\"},\"a\":{\"type\":\"null\"}"), Q3_ERR_INVALID, "twice", NULL},
    {"{\"properties\":{\"a\":false},\"required\":[\"a\"]}", Q3_ERR_INVALID, "no value is valid",
     NULL},
    {"{\"type\":\"array\"}", Q3_ERR_INVALID, "\"items\" must be", NULL},
    {"{\"items\":[{\"type\":\"null\"}]}", Q3_ERR_INVALID, "not an object", "\"#/items\""},
    {"{\"items\":{\"type\":\"null\"},\"minItems\":3,\"maxItems\":2}", Q3_ERR_INVALID,
     "\"minItems\" is greater than \"maxItems\"", NULL},
    {"{\"items\":{\"type\":\"null\"},\"minItems\":-1}", Q3_ERR_INVALID, "\"minItems\" must be",
     NULL},
    {"{\"items\":false,\"minItems\":1}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"minLength\":3,\"maxLength\":2}", Q3_ERR_INVALID, "greater than", "\"#/minLength\""},
    {"{\"minLength\":1.5}", Q3_ERR_INVALID, "whole number", NULL},
    {"{\"maxLength\":\"1\"}", Q3_ERR_INVALID, "whole number", NULL},
    {"{\"maxLength\":1e300}", Q3_OK, NULL, NULL},
    {"{\"pattern\":1}", Q3_ERR_INVALID, "\"pattern\" must be", NULL},
    {"{\"pattern\":\"a(?=b)\"}", Q3_ERR_INVALID, "a lookahead is not supported", "\"#/pattern\""},
    {"{\"pattern\":\"^a{3}$\",\"maxLength\":2}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"pattern\":\"a\",\"format\":\"date\"}", Q3_ERR_INVALID, "cannot be combined", NULL},
    {"{\"pattern\":\".*a.{15}$\"}", Q3_ERR_UNSUPPORTED, "too large", "\"#/pattern\""},
    {"{\"pattern\":\"^((a{1000}){1000}){1000}$\"}", Q3_ERR_UNSUPPORTED, "too large", NULL},
    {"{\"format\":\"ipv4\"}", Q3_ERR_INVALID, "format", "\"#/format\""},
    {"{\"format\":1}", Q3_ERR_INVALID, "\"format\" must be", NULL},
    {"{\"format\":\"date\",\"maxLength\":9}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", Q3_ERR_INVALID, "no value is valid",
     NULL},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":4,\"exclusiveMaximum\":5}", Q3_ERR_INVALID,
     "no value is valid", NULL},
    {"{\"minimum\":1,\"exclusiveMinimum\":1}", Q3_ERR_INVALID, "cannot be combined", NULL},
    {"{\"minimum\":\"1\"}", Q3_ERR_INVALID, "\"minimum\" must be a number", NULL},
    {"{\"minimum\":1e200}", Q3_ERR_INVALID, "at most 100 digits", NULL},
    {"{\"enum\":[]}", Q3_ERR_INVALID, "\"enum\" must be", NULL},
    {"{\"enum\":1}", Q3_ERR_INVALID, "\"enum\" must be", NULL},
    {"{\"enum\":[1],\"type\":\"string\"}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"enum\":[1],\"minimum\":2}", Q3_ERR_INVALID, "cannot be combined with \"enum\"", NULL},
    {"{\"enum\":[1],\"const\":1}", Q3_ERR_INVALID, "cannot be combined", NULL},
    {"{\"anyOf\":[]}", Q3_ERR_INVALID, "\"anyOf\" must be", NULL},
    {"{\"anyOf\":[{\"type\":\"null\"}],\"type\":\"null\"}", Q3_ERR_INVALID, "cannot be combined",
     NULL},
    {"{\"anyOf\":[{\"type\":\"null\"},{\"if\":1}]}", Q3_ERR_INVALID, "\"if\"", "\"#/anyOf/1/if\""},
    {"{\"anyOf\":[false,false]}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"$ref\":\"#/$defs/a\"}", Q3_ERR_INVALID, "$ref", NULL},
    {"{\"$ref\":\"http://example.org/\"}", Q3_ERR_INVALID, "$ref", NULL},
    {"{\"$ref\":1}", Q3_ERR_INVALID, "$ref", NULL},
    {"{\"$ref\":\"#\",\"type\":\"null\"}", Q3_ERR_INVALID, "cannot be combined", NULL},
    {"{\"$ref\":\"#\"}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"$ref\":\"#/$defs/a\"}}}", Q3_ERR_INVALID,
     "no value is valid", NULL},
    {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", Q3_ERR_INVALID,
     "no value is valid", NULL},
    {"{\"items\":{\"$ref\":\"#\"},\"minItems\":1}", Q3_ERR_INVALID, "no value is valid", NULL},
    {"{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"x-y\":1}}}", Q3_ERR_INVALID, "\"x-y\"",
     "\"#/$defs/a/x-y\""},
};

static void
test_errors(void **state)
{
	(void) state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
	{
		const error_case *e = &errors[i];
		q3_error err = {0};
		q3_schema *s = q3_schema_compile(str(e->schema), &err);

		if (err.code != e->code || (s != NULL) != (e->code == Q3_OK))
			fail_msg("%s: code %d, %s", e->schema, err.code, err.message);
		if ((e->message != NULL && strstr(err.message, e->message) == NULL) ||
		    (e->detail != NULL && strstr(err.detail, e->detail) == NULL))
			fail_msg("%s: \"%s\", \"%s\"", e->schema, err.message, err.detail);
		q3_schema_free(s);
	}
}

static char *
repeated(const char *before, const char *part, int n, const char *middle, const char *after_part,
         const char *after)
{
	size_t size = strlen(before) + (size_t) n * (strlen(part) + strlen(after_part)) +
	              strlen(middle) + strlen(after) + 1;
	char *text = calloc(1, size), *end = text;

	assert_non_null(text);
	end = stpcpy(end, before);
	for (int i = 0; i < n; i++)
		end = stpcpy(end, part);
	end = stpcpy(end, middle);
	for (int i = 0; i < n; i++)
		end = stpcpy(end, after_part);
	stpcpy(end, after);
	return text;
}

static void
expect_failure(char *text, q3_code code)
{
	q3_error err = {0};

	assert_null(q3_schema_compile(str(text), &err));
	assert_int_equal(err.code, code);
	free(text);
}

/* Long names and paths are cut between characters; sizes have limits. */
static void
test_limits(void **state)
{
	char *text;
	q3_error err = {0};

	(void) state;
	text = repeated("{\"", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 200, "\":1}",
	                "", "");
	assert_null(q3_schema_compile(str(text), &err));
	assert_true(strlen(err.message) < 130);
	for (const char *p = err.detail; *p != '\0'; p++)
		assert_true((unsigned char) *p != 0xc3 || (unsigned char) p[1] == 0xa9);
	for (const char *p = err.message; *p != '\0'; p++)
		assert_true((unsigned char) *p != 0xc3 || (unsigned char) p[1] == 0xa9);
	free(text);
	expect_failure(
	    repeated("", "{\"type\":\"array\",\"items\":", 300, "{\"type\":\"null\"}", "}", ""),
	    Q3_ERR_UNSUPPORTED);
	expect_failure(repeated("", "[", 5000, "", "]", ""), Q3_ERR_INVALID);
	expect_failure(repeated("{\"enum\":[\"", "abcdefghij", 110000, "\"]}", "", ""),
	               Q3_ERR_UNSUPPORTED);
	/* Values within values: up to the limit, not beyond. */
	text = repeated("", "{\"type\":\"array\",\"minItems\":1,\"items\":", Q3_SCHEMA_MAX_NESTING - 1,
	                "{\"type\":\"null\"}", "}", "");
	q3_schema_free(good_schema(text));
	free(text);
	expect_failure(repeated("", "{\"type\":\"array\",\"minItems\":1,\"items\":",
	                        Q3_SCHEMA_MAX_NESTING, "{\"type\":\"null\"}", "}", ""),
	               Q3_ERR_INVALID);
}

/* ---------------------------------------------------------------------------------------------
 * Numbers, patterns and dates against independent answers
 * --------------------------------------------------------------------------------------------- */

static bool
dfa_accepts(const q3_dfa *d, const char *text)
{
	int32_t state = 0;

	for (; *text != '\0' && state >= 0; text++)
		state = q3_dfa_next(d, state, (unsigned char) *text);
	return state >= 0 && (d->accepts[state] & Q3_DFA_ACCEPTS);
}

/* Thousandths as text, without zeros at the end. */
static void
thousandths(int n, char *text)
{
	char *end = text + sprintf(text, "%s%d.%03d", n < 0 ? "-" : "", abs(n) / 1000, abs(n) % 1000);

	while (end[-1] == '0')
		*--end = '\0';
	if (end[-1] == '.')
		end[-1] = '\0';
}

static void
test_number_ranges(void **state)
{
	(void) state;
	srand(5);
	for (int round = 0; round < 400; round++)
	{
		int scale = round % 3 == 0 ? 1 : round % 3 == 1 ? 50 : 3000;
		int low = rand() % (20 * scale) - 10 * scale, high = low + rand() % (8 * scale);
		char min[32], max[32], text[32];
		q3_number_range r = {.min = round % 5 ? min : NULL,
		                     .max = round % 7 ? max : NULL,
		                     .above_min = rand() % 2,
		                     .below_max = rand() % 2,
		                     .integer = rand() % 2};
		q3_error err = {0};
		q3_dfa *d;
		bool any = false;

		thousandths(low, min);
		thousandths(high, max);
		d = q3_number_range_compile(&r, &err);
		for (int n = -45000; n <= 45000; n += r.integer ? 1000 : 7)
		{
			bool want = (r.min == NULL || n > low || (n == low && !r.above_min)) &&
			            (r.max == NULL || n < high || (n == high && !r.below_max));

			thousandths(n, text);
			any = any || want;
			if ((d != NULL && dfa_accepts(d, text)) != want)
				fail_msg("[%s, %s] %d%d: %s", r.min, r.max, r.above_min, r.below_max, text);
		}
		assert_true(d != NULL || !any);
		if (d == NULL)
			assert_string_equal(err.message, "nothing is accepted");
		q3_dfa_free(d);
	}
}

typedef struct pattern_case
{
	const char *pattern;
	const char *good[8], *bad[8]; /* without quotes */
} pattern_case;

static const pattern_case patterns[] = {
    {"", {"", "abc"}, {NULL}},
    {"^$", {""}, {"a"}},
    {"abc", {"abc", "xabcx"}, {"ab", "acb"}},
    {"^a|b$", {"ax", "xb", "a", "b"}, {"xa", "bx", ""}},
    {"^(a|bc)*$", {"", "abca", "bcbc"}, {"b", "ac", "c"}},
    {"^a?b+c*$", {"b", "abbc", "bcc"}, {"a", "aab", "ac"}},
    {"^a{2,3}?$", {"aa", "aaa"}, {"a", "aaaa"}},
    {"^a{2}b{0,1}c{1,}$", {"aac", "aabccc"}, {"aa", "aabbc"}},
    {"^[a-c\\d_.-]+$", {"a-1", "_._", "b"}, {"d", "", "A"}},
    {"^[^a-c]$", {"d", "\xc3\xa9", "\\n"}, {"a", "dd"}},
    {"^\\w\\W\\d\\D\\s\\S$", {"a-1b c", "_ 2- x"}, {"a-1b  ", "--1b c"}},
    {"^\\t\\n\\r\\f\\v\\/\\.\\x41\\u0042$",
     {"\\t\\n\\r\\f\\u000b/.AB"},
     {"\\t\\n\\r\\f\\u000b/xAB"}},
    {"^.$", {"a", "\xf0\x9f\x98\x80", "\\\"", "\\\\", "\x7f"}, {"", "\\n", "ab", "\\u0000"}},
    {"^[\xc3\xa4-\xc3\xbc\xe6\x97\xa5]+$", {"\xc3\xa9", "\xe6\x97\xa5\xc3\xa4"}, {"a", "\xc3\xbd"}},
    {"^(?:x(y(z)?)?)$", {"x", "xy", "xyz"}, {"xz", ""}},
    {"^[\\]\\^\\-\\\\]$", {"]", "^", "-", "\\\\"}, {"a"}},
    {"^a$|^$", {"a", ""}, {"b"}},
    {"(^a)", {"ab"}, {"ba"}},
    {"a$b", {NULL}, {NULL}}, /* nothing */
};

static void
test_patterns(void **state)
{
	char text[64];

	(void) state;
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
	{
		q3_error err = {0};
		q3_dfa *d = q3_pattern_compile(str(patterns[i].pattern), 0, Q3_NO_LIMIT, &err);

		if (d == NULL && patterns[i].good[0] != NULL)
			fail_msg("%s: %s", patterns[i].pattern, err.message);
		for (int k = 0; k < 8 && patterns[i].good[k] != NULL; k++)
		{
			snprintf(text, sizeof(text), "\"%s\"", patterns[i].good[k]);
			if (!dfa_accepts(d, text))
				fail_msg("%s does not accept %s", patterns[i].pattern, text);
		}
		for (int k = 0; k < 8 && patterns[i].bad[k] != NULL; k++)
		{
			snprintf(text, sizeof(text), "\"%s\"", patterns[i].bad[k]);
			if (dfa_accepts(d, text))
				fail_msg("%s accepts %s", patterns[i].pattern, text);
		}
		q3_dfa_free(d);
	}
}

static void
test_pattern_errors(void **state)
{
	static const char *const wrong[][2] = {
	    {"(", "not closed"},       {")", "not opened"},        {"[a", "too early"},
	    {"*a", "nothing to"},      {"a**", "follows another"}, {"a{2,1}", "out of order"},
	    {"a{,2}", "braces"},       {"[b-a]", "out of order"},  {"[\\d-x]", "begins with"},
	    {"[a-\\d]", "ends with"},  {"\\", "too early"},        {"\\1", "escape \"\\1\""},
	    {"\\b", "escape \"\\b\""}, {"\\p{L}", "\"\\p\""},      {"(?<n>a)", "group"},
	    {"(?i)a", "group"},        {"(?!a)", "lookahead"},     {"(?<=a)", "lookbehind"},
	    {"a++", "possessive"},     {"[[:alpha:]]", "POSIX"},   {"[]a]", "beginning of a class"},
	    {"\\u12", "too early"},    {"\\ud800", "surrogate"},   {"\\xg0", "hexadecimal"},
	    {"^*", "anchor"},          {"a]", "not escaped"},      {"a{9999}", "too large"},
	    {"(*FAIL)", "verb"},       {"\xff", "UTF-8"}};

	(void) state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
	{
		q3_error err = {0};

		assert_null(q3_pattern_compile(str(wrong[i][0]), 0, Q3_NO_LIMIT, &err));
		if (strstr(err.message, wrong[i][1]) == NULL)
			fail_msg("%s: %s", wrong[i][0], err.message);
	}
}

/* Every day of some years, and days that do not exist, by the C library's calendar. */
static void
test_dates(void **state)
{
	static const int years[] = {1, 4, 100, 400, 1900, 1999, 2000, 2023, 2024, 2100, 9999};
	q3_schema *s = good_schema("{\"format\":\"date\"}");
	char text[32];

	(void) state;
	for (size_t y = 0; y < sizeof(years) / sizeof(years[0]); y++)
		for (int month = 0; month <= 13; month++)
			for (int day = 27; day <= 32; day++)
			{
				struct tm tm = {.tm_year = years[y] - 1900, .tm_mon = month - 1, .tm_mday = day};
				bool want = month >= 1 && month <= 12 && timegm(&tm) != -1 &&
				            tm.tm_mon == month - 1 && tm.tm_mday == day;

				snprintf(text, sizeof(text), "\"%04d-%02d-%02d\"", years[y], month, day);
				if (accepts(s, trie, tok, text) != want)
					fail_msg("%s", text);
			}
	q3_schema_free(s);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_keywords), cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_limits),   cmocka_unit_test(test_number_ranges),
	    cmocka_unit_test(test_patterns), cmocka_unit_test(test_pattern_errors),
	    cmocka_unit_test(test_dates),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
