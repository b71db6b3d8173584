/*
 * fuzz_schema.c: any bytes as a JSON Schema (and as a regular expression), then an answer under it
 * that the rest of the bytes choose.
 *
 * The input is the schema's text, up to the first NUL byte; what follows chooses tokens. Every
 * token that the mask has can be pushed, and as long as the answer is not complete there is one.
 */
#include <stdlib.h>

#include "../unit/build_vocab.h"
#include "fuzz.h"
#include "model/constraint.h"
#include "model/pattern.h"

#define MAX_INPUT 4096
#define MAX_TOKENS 64

static q3_tokenizer *tok;
static q3_token_trie *trie;
static uint32_t *bits;

static void
set_up(void)
{
	static small_vocab v;

	small_begin(&v, "qwen2");
	small_token(&v, "<|endoftext|>", Q3_TOKEN_CONTROL);
	small_merge(&v, "\" ,");
	small_merge(&v, "\" :");
	small_merge(&v, "{ \"");
	small_merge(&v, "t r");
	small_merge(&v, "tr u");
	small_merge(&v, "1 2");
	tok = small_tokenizer(&v);
	trie = q3_token_trie_create(tok);
	bits = trie != NULL ? calloc((size_t) trie->n_words, sizeof(*bits)) : NULL;
	if (bits == NULL)
		abort();
}

/* The n-th allowed token, counted around; -1: none is. */
static int32_t
choose(uint32_t n)
{
	uint32_t count = 0;

	for (int pass = 0; pass < 2; pass++)
	{
		uint32_t seen = 0;

		for (int32_t id = 0; id < trie->n_vocab; id++)
		{
			if (!(bits[id / 32] >> (id % 32) & 1))
				continue;
			if (pass == 1 && seen == n % count)
				return id;
			seen++;
		}
		count = seen;
		if (count == 0)
			return -1;
	}
	return -1;
}

static void
answer(q3_schema *s, const uint8_t *data, size_t size)
{
	q3_constraint *c = q3_constraint_create(s, trie, NULL);
	q3_tokens forced = {0};

	if (c == NULL)
		abort();
	for (size_t i = 0; i < size && i < MAX_TOKENS; i++)
	{
		int32_t token;

		if (!q3_constraint_mask(c, bits))
			break; /* too ambiguous */
		token = choose(data[i]);
		if (token < 0)
			abort();
		if (q3_tokenizer_is_end(tok, token))
		{
			if (!q3_constraint_complete(c))
				abort();
			break;
		}
		if (!q3_constraint_push(c, token, tok))
		{
			/* Only the limit of ambiguity can be a reason. */
			if (q3_constraint_mask(c, bits) && i < 2)
				abort();
			break;
		}
		if (data[i] % 3 == 0)
			q3_constraint_forced(c, tok, &forced);
	}
	q3_tokens_free(&forced);
	q3_constraint_free(c);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
	size_t len = end != NULL ? (size_t) (end - data) : size;
	q3_str text = {size > 0 ? (const char *) data : "", len};
	q3_error err = {0};
	q3_schema *s;

	if (tok == NULL)
		set_up();
	if (size > MAX_INPUT)
		return 0;
	s = q3_schema_compile(text, &err);
	if (s == NULL && (err.code == Q3_OK || err.message[0] == '\0'))
		abort();
	if (s != NULL)
		answer(s, end != NULL ? end + 1 : data, end != NULL ? size - len - 1 : size);
	q3_schema_free(s);
	if (len <= 64)
		q3_dfa_free(q3_pattern_compile(text, 0, 20, &err));
	return 0;
}
