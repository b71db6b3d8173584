/*
 * build_vocab.h: tokenizers from vocabularies that a test writes down, by way of a GGUF in memory.
 *
 * A small_vocab is plain data of the test (large: not for the stack). What goes wrong while
 * building ends the program, except where a q3_error is passed.
 */
#ifndef TEST_BUILD_VOCAB_H
#define TEST_BUILD_VOCAB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build_gguf.h"
#include "model/tokenizer.h"

static inline q3_str
str(const char *text)
{
	return (q3_str){text, strlen(text)};
}

static inline void
put_kv_strings(gguf_builder *b, const char *key, const q3_str *values, size_t n)
{
	put_array(b, key, Q3_GGUF_STRING, n);
	for (size_t i = 0; i < n; i++)
		put_string_n(b, values[i].data, values[i].len);
}

static inline void
put_kv_i32s(gguf_builder *b, const char *key, const int32_t *values, size_t n)
{
	put_array(b, key, Q3_GGUF_I32, n);
	put_raw(b, values, n * sizeof(*values));
}

/* The tokenizer of a finished file, or NULL and err. */
static inline q3_tokenizer *
tokenizer_of(const gguf_builder *b, q3_error *err)
{
	q3_gguf *g = q3_gguf_open_memory(b->data, b->n, err);
	q3_tokenizer *tok = g == NULL ? NULL : q3_tokenizer_create(g, err);

	q3_gguf_close(g);
	return tok;
}

#define SMALL_MAX 4096

typedef struct small_vocab
{
	const char *model, *pre; /* NULL: the file does not say */
	q3_str tokens[SMALL_MAX], merges[SMALL_MAX];
	int32_t kinds[SMALL_MAX];
	size_t n_tokens, n_kinds, n_merges;
	int64_t eos;      /* -1: the file does not say */
	bool add_eos;     /* the file asks for it after every text */
	char text[65536]; /* what the strings above point into */
	size_t used;
} small_vocab;

static inline q3_str
small_copy(small_vocab *v, const char *data, size_t len)
{
	char *at = v->text + v->used;

	if (v->used + len > sizeof(v->text))
		abort();
	if (len > 0)
		memcpy(at, data, len);
	v->used += len;
	return (q3_str){at, len};
}

/* Adds a token and returns its id. */
static inline int32_t
small_token_n(small_vocab *v, const char *text, size_t len, q3_token_kind kind)
{
	if (v->n_tokens == SMALL_MAX || v->n_kinds == SMALL_MAX)
		abort();
	v->tokens[v->n_tokens] = small_copy(v, text, len);
	v->kinds[v->n_kinds++] = kind;
	return (int32_t) v->n_tokens++;
}

static inline int32_t
small_token(small_vocab *v, const char *text, q3_token_kind kind)
{
	return small_token_n(v, text, strlen(text), kind);
}

static inline bool
small_has(const small_vocab *v, const char *text, size_t len)
{
	for (size_t i = 0; i < v->n_tokens; i++)
		if (v->tokens[i].len == len && memcmp(v->tokens[i].data, text, len) == 0)
			return true;
	return false;
}

/* Adds the rule "left right", and its result as an ordinary token if no token has this text. */
static inline void
small_merge(small_vocab *v, const char *rule)
{
	const char *space = strchr(rule, ' ');
	size_t len = strlen(rule);
	char joined[256];

	if (v->n_merges == SMALL_MAX || len > sizeof(joined) || space == NULL)
		abort();
	v->merges[v->n_merges++] = small_copy(v, rule, len);
	memcpy(joined, rule, (size_t) (space - rule));
	memcpy(joined + (space - rule), space + 1, strlen(space + 1));
	if (!small_has(v, joined, len - 1))
		small_token_n(v, joined, len - 1, Q3_TOKEN_NORMAL);
}

/* The character that stands for a byte in a byte-level vocabulary, as UTF-8; its length. */
static inline size_t
byte_char(int byte, char *out)
{
	int c = byte;

	if (byte <= 32)
		c = 256 + byte;
	else if (byte >= 127 && byte <= 160)
		c = 256 + 33 + byte - 127;
	else if (byte == 173)
		c = 256 + 67;
	if (c < 128)
	{
		out[0] = (char) c;
		return 1;
	}
	out[0] = (char) (0xc0 | c >> 6);
	out[1] = (char) (0x80 | (c & 0x3f));
	return 2;
}

/* Starts with the 256 bytes: the id of a byte is its value. */
static inline void
small_begin(small_vocab *v, const char *pre)
{
	v->model = "gpt2";
	v->pre = pre;
	v->n_tokens = v->n_kinds = v->n_merges = v->used = 0;
	v->eos = -1;
	v->add_eos = false;
	for (int b = 0; b < 256; b++)
	{
		char c[2];
		size_t len = byte_char(b, c);

		small_token_n(v, c, len, Q3_TOKEN_NORMAL);
	}
}

static inline q3_tokenizer *
small_create(const small_vocab *v, q3_error *err)
{
	gguf_builder b = {0};
	q3_tokenizer *tok;

	put_header(&b, 3, 0, 3u + (v->model != NULL) + (v->pre != NULL) + (v->eos >= 0) + v->add_eos);
	if (v->model != NULL)
		put_kv_string(&b, "tokenizer.ggml.model", v->model);
	if (v->pre != NULL)
		put_kv_string(&b, "tokenizer.ggml.pre", v->pre);
	if (v->eos >= 0)
		put_kv_u32(&b, "tokenizer.ggml.eos_token_id", (uint32_t) v->eos);
	if (v->add_eos)
		put_kv_bool(&b, "tokenizer.ggml.add_eos_token", true);
	put_kv_strings(&b, "tokenizer.ggml.tokens", v->tokens, v->n_tokens);
	put_kv_i32s(&b, "tokenizer.ggml.token_type", v->kinds, v->n_kinds);
	put_kv_strings(&b, "tokenizer.ggml.merges", v->merges, v->n_merges);
	tok = tokenizer_of(&b, err);
	builder_free(&b);
	return tok;
}

/* The same for a vocabulary that must be a good one. */
static inline q3_tokenizer *
small_tokenizer(const small_vocab *v)
{
	q3_error err = {0};
	q3_tokenizer *tok = small_create(v, &err);

	if (tok == NULL)
	{
		fprintf(stderr, "small vocabulary: %s\n", err.message);
		abort();
	}
	return tok;
}

#endif
