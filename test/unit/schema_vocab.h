/*
 * schema_vocab.h: vocabularies and small helpers for tests of decoding under a JSON Schema.
 */
#ifndef TEST_SCHEMA_VOCAB_H
#define TEST_SCHEMA_VOCAB_H

#include "build_vocab.h"
#include "model/constraint.h"

/* Adds the token that the bytes merge to, byte by byte. */
static inline void
schema_merge(small_vocab *v, const char *bytes)
{
	char left[128] = "", rule[256];

	for (size_t i = 0; bytes[i] != '\0'; i++)
	{
		char c[3] = {0};

		byte_char((unsigned char) bytes[i], c);
		if (i > 0)
		{
			snprintf(rule, sizeof(rule), "%s %s", left, c);
			small_merge(v, rule);
		}
		strcat(left, c);
	}
}

/* 256 bytes, pieces of JSON of several bytes, parts of characters, and control tokens. */
static inline q3_tokenizer *
schema_tokenizer(void)
{
	static small_vocab v;
	static const char *const pieces[] = {
	    "{\"",   "\":",   "\",",   "\"}",    "\"]",  " \"",      "\"\"",     "}}",       "}]",
	    "]}",    "],",    "},",    "[[",     "[\"",  " {",       " [",       "true",     "false",
	    " null", "\\u00", "\\ud8", "\\\"",   "\\\\", "\xc3\xa9", "\xe6\x97", "name",     "names",
	    "aaaa",  "a\",",  "b\"}",  "12",     "-1",   "0.",       "e+",       " \":",     "\xa9\"",
	    "-0",    "2024-", "\"a\"", "\"a\":", "a\":", "  ",       "\n",       "x\xf0\x9f"};

	small_begin(&v, "qwen2");
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		schema_merge(&v, pieces[i]);
	small_token(&v, "<|endoftext|>", Q3_TOKEN_CONTROL);
	small_token(&v, "<|im_start|>", Q3_TOKEN_CONTROL);
	v.eos = small_token(&v, "<|im_end|>", Q3_TOKEN_CONTROL);
	return small_tokenizer(&v);
}

/* The schema, which must be a good one. */
static inline q3_schema *
good_schema(const char *text)
{
	q3_error err = {0};
	q3_schema *s = q3_schema_compile(str(text), &err);

	if (s == NULL)
		fail_msg("%s: %s %s", text, err.message, err.detail);
	return s;
}

/* True when the whole text, byte by byte, is an answer under the schema. */
static inline bool
accepts(q3_schema *s, const q3_token_trie *t, const q3_tokenizer *tok, const char *text)
{
	q3_constraint *c = q3_constraint_create(s, t, NULL);
	bool ok = true;

	assert_non_null(c);
	for (size_t i = 0; text[i] != '\0' && ok; i++)
		ok = q3_constraint_push(c, (unsigned char) text[i], tok);
	ok = ok && q3_constraint_complete(c);
	q3_constraint_free(c);
	return ok;
}

#endif
