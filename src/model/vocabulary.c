/*
 * vocabulary.c: reads the token list of a GGUF file and indexes it by bytes.
 *
 * All memory belongs to the q3_vocab and is allocated while loading, by the loading thread.
 */
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_KINDS "tokenizer.ggml.token_type"

struct q3_vocab_slot
{
	uint32_t tag; /* upper half of the hash */
	int32_t id;   /* -1: free */
};

const char *const q3_vocab_names[Q3_N_NAMES] = {
    [Q3_NAME_IM_START] = "<|im_start|>",   [Q3_NAME_IM_END] = "<|im_end|>",
    [Q3_NAME_ENDOFTEXT] = "<|endoftext|>", [Q3_NAME_THINK_START] = "<think>",
    [Q3_NAME_THINK_END] = "</think>",
};

/* ------------------------------------------------------------------------------------------
 * The byte alphabet
 * ------------------------------------------------------------------------------------------ */

/*
 * The printable characters of Latin-1 stand for themselves; the 68 other bytes, in their order, are
 * U+0100 and following. -1 for any other character.
 */
static int
byte_of_char(uint32_t c)
{
	if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
		return (int) c;
	if (c < 256 || c >= 256 + 68)
		return -1;
	c -= 256;
	if (c <= 32)
		return (int) c;
	if (c <= 66)
		return (int) c - 33 + 127;
	return 173;
}

bool
q3_vocab_bytes(q3_str text, char *out, size_t *out_len)
{
	const uint8_t *s = (const uint8_t *) text.data, *end = s + text.len;

	*out_len = 0;
	while (s < end)
	{
		uint32_t c;
		int byte;

		s += q3_utf8_decode(s, end, &c);
		byte = byte_of_char(c);
		if (byte < 0)
			return false;
		out[(*out_len)++] = (char) byte;
	}
	return true;
}

/* ------------------------------------------------------------------------------------------
 * The index
 * ------------------------------------------------------------------------------------------ */

static inline uint64_t
load_bytes(const char *s, size_t len)
{
	uint64_t word = 0;
	uint32_t low, high;

	if (len >= 8)
		memcpy(&word, s, 8);
	else if (len >= 4)
	{
		memcpy(&low, s, 4);
		memcpy(&high, s + len - 4, 4);
		word = (uint64_t) high << 32 | low;
	}
	else if (len > 0)
		word = (uint64_t) (uint8_t) s[0] << 16 | (uint64_t) (uint8_t) s[len / 2] << 8 |
		       (uint8_t) s[len - 1];
	return word;
}

static uint64_t
hash_bytes(const char *s, size_t len)
{
	uint64_t h = (uint64_t) len * UINT64_C(0x9e3779b97f4a7c15);

	for (;;)
	{
		h = (h ^ load_bytes(s, len)) * UINT64_C(0xd6e8feb86659fd93);
		h ^= h >> 32;
		if (len <= 8)
			break;
		s += 8;
		len -= 8;
	}
	h *= UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 29;
}

int32_t
q3_vocab_find(const q3_vocab *v, const char *bytes, size_t len, unsigned traits)
{
	uint64_t h;
	size_t i;

	if (len == 0 || len > v->longest)
		return -1;
	h = hash_bytes(bytes, len);
	for (i = (size_t) h & v->mask; v->slots[i].id >= 0; i = (i + 1) & v->mask)
	{
		const char *piece;
		size_t piece_len;

		if (v->slots[i].tag != (uint32_t) (h >> 32))
			continue;
		piece = q3_vocab_piece(v, v->slots[i].id, &piece_len);
		if (piece_len == len && memcmp(piece, bytes, len) == 0 &&
		    (v->traits[v->slots[i].id] & traits) != 0)
			return v->slots[i].id;
	}
	return -1;
}

/* Enters every token that is not the repetition of a lower one of the same trait. */
static bool
build_index(q3_vocab *v)
{
	size_t n_slots = 16;

	while (n_slots / 2 < (size_t) v->n)
		n_slots *= 2;
	v->slots = malloc(n_slots * sizeof(*v->slots));
	if (v->slots == NULL)
		return false;
	v->mask = n_slots - 1;
	for (size_t i = 0; i < n_slots; i++)
		v->slots[i].id = -1;
	for (int32_t id = 0; id < v->n; id++)
	{
		size_t len, i;
		const char *piece = q3_vocab_piece(v, id, &len);
		uint64_t h = hash_bytes(piece, len);

		if (len == 0 || q3_vocab_find(v, piece, len, v->traits[id]) >= 0)
			continue;
		for (i = (size_t) h & v->mask; v->slots[i].id >= 0; i = (i + 1) & v->mask)
			;
		v->slots[i].tag = (uint32_t) (h >> 32);
		v->slots[i].id = id;
	}
	return true;
}

/* ------------------------------------------------------------------------------------------
 * Loading
 * ------------------------------------------------------------------------------------------ */

static bool
is_name(q3_str text)
{
	for (int i = 0; i < Q3_N_NAMES; i++)
		if (text.len == strlen(q3_vocab_names[i]) &&
		    memcmp(text.data, q3_vocab_names[i], text.len) == 0)
			return true;
	return false;
}

/* Writes the token's bytes to out and says how many; sets its trait. */
static size_t
take_token(q3_vocab *v, int32_t id, q3_str text, char *out)
{
	uint8_t kind = v->kinds[id];
	size_t len;

	if (kind == Q3_TOKEN_CONTROL || kind == Q3_TOKEN_USER_DEFINED || is_name(text))
		v->traits[id] = Q3_TRAIT_ADDED;
	else if (kind == Q3_TOKEN_NORMAL && q3_vocab_bytes(text, out, &len))
	{
		v->traits[id] = Q3_TRAIT_TEXT;
		return len;
	}
	else
		v->traits[id] = Q3_TRAIT_OTHER;
	if (text.len > 0)
		memcpy(out, text.data, text.len);
	return text.len;
}

static q3_code
load_kinds(q3_vocab *v, const q3_gguf *g, q3_error *err)
{
	q3_gguf_type type;
	size_t count;

	if (!q3_gguf_get_array(g, KEY_KINDS, &type, &count))
		return q3_fail(err, Q3_ERR_FORMAT, "model file has no %s", KEY_KINDS);
	if (count != (size_t) v->n)
		return q3_fail(err, Q3_ERR_FORMAT, "model file has %d tokens but %zu token types", v->n,
		               count);
	for (size_t i = 0; i < count; i++)
	{
		int64_t kind;

		if (!q3_gguf_array_i64(g, KEY_KINDS, i, &kind))
			return q3_fail(err, Q3_ERR_FORMAT, "%s is not an array of integers", KEY_KINDS);
		if (kind < Q3_TOKEN_NORMAL || kind > Q3_TOKEN_BYTE)
			return q3_fail(err, Q3_ERR_FORMAT, "token %zu has the unknown type %lld", i,
			               (long long) kind);
		v->kinds[i] = (uint8_t) kind;
	}
	return Q3_OK;
}

static bool
allocate(q3_vocab *v, const q3_str *tokens)
{
	size_t n = (size_t) v->n, n_bytes = 1;

	for (size_t i = 0; i < n; i++)
		n_bytes += tokens[i].len;
	v->arena = malloc(n_bytes);
	v->start = malloc((n + 1) * sizeof(*v->start));
	v->kinds = malloc(n);
	v->traits = malloc(n);
	return v->arena != NULL && v->start != NULL && v->kinds != NULL && v->traits != NULL;
}

q3_code
q3_vocab_load(q3_vocab *v, const q3_gguf *g, q3_error *err)
{
	size_t count, used = 0;
	const q3_str *tokens = q3_gguf_strings(g, KEY_TOKENS, &count);
	q3_code code;

	memset(v, 0, sizeof(*v));
	if (tokens == NULL || count == 0)
		return q3_fail(err, Q3_ERR_FORMAT, "model file has no %s", KEY_TOKENS);
	if (count > INT32_MAX / 4)
		return q3_fail(err, Q3_ERR_UNSUPPORTED, "vocabulary of %zu tokens is too large", count);
	v->n = (int32_t) count;
	if (!allocate(v, tokens))
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	code = load_kinds(v, g, err);
	if (code != Q3_OK)
		return code;
	for (int32_t id = 0; id < v->n; id++)
	{
		size_t len = take_token(v, id, tokens[id], v->arena + used);

		v->start[id] = used;
		used += len;
		if (len > v->longest)
			v->longest = len;
	}
	v->start[v->n] = used;
	if (!build_index(v))
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	return Q3_OK;
}

void
q3_vocab_free(q3_vocab *v)
{
	free(v->arena);
	free(v->start);
	free(v->kinds);
	free(v->traits);
	free(v->slots);
	memset(v, 0, sizeof(*v));
}
