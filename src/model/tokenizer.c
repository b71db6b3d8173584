/*
 * tokenizer.c: from text to tokens and back.
 *
 * Text is made valid UTF-8, brought to NFC where the model's own tokenizer does that, cut into
 * words (pretokenize.c), and each word's bytes are merged (bpe.c). Most words are a token as a
 * whole, and making a tokenizer finds out which tokens merging can reach in that way, so that one
 * look-up replaces the merging. Only tokens of Q3_TRAIT_TEXT are ever merged: text cannot give any
 * other. A tokenizer is made by one thread and read by any; encoding keeps its state on the stack.
 */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "model/bpe.h"
#include "model/pretokenize.h"
#include "model/unicode.h"
#include "model/vocabulary.h"

/* The longest value that PostgreSQL can hold, so that nothing below can overflow. */
#define MAX_TEXT ((size_t) 1 << 30)

struct q3_tokenizer
{
	q3_vocab vocab;
	q3_bpe bpe;
	q3_unicode unicode;
	q3_split split;
	bool nfc;
	q3_special special;
	int32_t byte_ids[256]; /* -1: the vocabulary has no token for this byte */
	/* Added tokens by first byte and then by falling length, for parse_special. */
	int32_t *added;
	int32_t added_start[257];
};

/* Pre-tokenizers by the name that tokenizer.ggml.pre gives them. */
static const struct
{
	const char *name;
	q3_split split;
	bool nfc;
} pre_tokenizers[] = {
    {"qwen2", Q3_SPLIT_QWEN2, true},
    {"smollm", Q3_SPLIT_SMOLLM, false},
    {"gpt-2", Q3_SPLIT_GPT2, false},
};

/* ------------------------------------------------------------------------------------------
 * Lists of tokens
 * ------------------------------------------------------------------------------------------ */

static bool
reserve(q3_tokens *tokens, size_t n_more)
{
	size_t need = tokens->n + n_more, capacity;
	int32_t *ids;

	if (need <= tokens->capacity)
		return true;
	capacity = tokens->capacity + tokens->capacity / 2;
	if (capacity < need)
		capacity = need < 16 ? 16 : need;
	if (need < n_more || capacity > SIZE_MAX / sizeof(*ids))
		return false;
	ids = realloc(tokens->ids, capacity * sizeof(*ids));
	if (ids == NULL)
		return false;
	tokens->ids = ids;
	tokens->capacity = capacity;
	return true;
}

bool
q3_tokens_push(q3_tokens *tokens, int32_t id)
{
	if (!reserve(tokens, 1))
		return false;
	tokens->ids[tokens->n++] = id;
	return true;
}

void
q3_tokens_free(q3_tokens *tokens)
{
	free(tokens->ids);
	*tokens = (q3_tokens){0};
}

/* ------------------------------------------------------------------------------------------
 * Making
 * ------------------------------------------------------------------------------------------ */

/* A name from the file as an error message can hold it: short, and of printable ASCII only. */
typedef struct shown_name
{
	char text[64];
} shown_name;

static shown_name
show(q3_str name)
{
	shown_name shown = {""};

	for (size_t i = 0; i < name.len && i + 1 < sizeof(shown.text); i++)
		shown.text[i] = name.data[i] >= ' ' && name.data[i] <= '~' ? name.data[i] : '?';
	return shown;
}

static q3_code
choose_kind(q3_tokenizer *tok, const q3_gguf *g, q3_error *err)
{
	q3_str model, pre;

	if (!q3_gguf_get_str(g, "tokenizer.ggml.model", &model))
		return q3_fail(err, Q3_ERR_FORMAT, "model file has no tokenizer.ggml.model");
	if (model.len != 4 || memcmp(model.data, "gpt2", 4) != 0)
	{
		q3_fail(err, Q3_ERR_UNSUPPORTED, "tokenizer model \"%s\" is not supported",
		        show(model).text);
		q3_error_detail(err, "Only byte-level BPE (\"gpt2\") is.");
		return Q3_ERR_UNSUPPORTED;
	}
	if (!q3_gguf_get_str(g, "tokenizer.ggml.pre", &pre))
		pre = (q3_str){"", 0};
	for (size_t i = 0; i < sizeof(pre_tokenizers) / sizeof(*pre_tokenizers); i++)
	{
		if (pre.len != strlen(pre_tokenizers[i].name) ||
		    memcmp(pre.data, pre_tokenizers[i].name, pre.len) != 0)
			continue;
		tok->split = pre_tokenizers[i].split;
		tok->nfc = pre_tokenizers[i].nfc;
		return Q3_OK;
	}
	q3_fail(err, Q3_ERR_UNSUPPORTED, "pre-tokenizer \"%s\" is not supported", show(pre).text);
	q3_error_detail(err, "Supported are \"qwen2\", \"smollm\" and \"gpt-2\".");
	return Q3_ERR_UNSUPPORTED;
}

/* An id that the file names under this key, or -1. */
static q3_code
special_id(const q3_tokenizer *tok, const q3_gguf *g, const char *key, int32_t *id, q3_error *err)
{
	uint64_t value;

	*id = -1;
	if (!q3_gguf_get_u64(g, key, &value))
		return Q3_OK;
	if (value >= (uint64_t) tok->vocab.n)
		return q3_fail(err, Q3_ERR_FORMAT, "%s is %llu, but the vocabulary has %d tokens", key,
		               (unsigned long long) value, tok->vocab.n);
	*id = (int32_t) value;
	return Q3_OK;
}

static int32_t
named_id(const q3_tokenizer *tok, q3_name name)
{
	return q3_vocab_find(&tok->vocab, q3_vocab_names[name], strlen(q3_vocab_names[name]),
	                     Q3_TRAIT_ADDED);
}

static q3_code
find_special(q3_tokenizer *tok, const q3_gguf *g, q3_error *err)
{
	q3_special *s = &tok->special;
	q3_code code = special_id(tok, g, "tokenizer.ggml.bos_token_id", &s->bos, err);
	bool add_eos;

	if (code == Q3_OK)
		code = special_id(tok, g, "tokenizer.ggml.eos_token_id", &s->eos, err);
	if (code == Q3_OK)
		code = special_id(tok, g, "tokenizer.ggml.padding_token_id", &s->pad, err);
	s->im_start = named_id(tok, Q3_NAME_IM_START);
	s->im_end = named_id(tok, Q3_NAME_IM_END);
	s->endoftext = named_id(tok, Q3_NAME_ENDOFTEXT);
	s->think_start = named_id(tok, Q3_NAME_THINK_START);
	s->think_end = named_id(tok, Q3_NAME_THINK_END);
	if (!q3_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &s->add_bos))
		s->add_bos = false;
	if (!q3_gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &add_eos))
		add_eos = false;
	s->text_end = (add_eos && s->eos >= 0) || s->endoftext < 0 ? s->eos : s->endoftext;
	return code;
}

/* Reads one part of a merge rule into buf; the token that it is, or -1. */
static int32_t
merge_part(const q3_vocab *v, const char *text, size_t text_len, char *buf, size_t *len)
{
	if (!q3_vocab_bytes((q3_str){text, text_len}, buf, len))
		return -1;
	return q3_vocab_find(v, buf, *len, Q3_TRAIT_ANY);
}

/*
 * Adds the rule "left right". One that takes or gives a token which is not for text is left out:
 * that is how it stays impossible to produce such a token by merging.
 */
static q3_code
add_merge(q3_tokenizer *tok, q3_str rule, size_t rank, char *buf, q3_error *err)
{
	const q3_vocab *v = &tok->vocab;
	const char *space = rule.len == 0 ? NULL : memchr(rule.data, ' ', rule.len);
	size_t at = space == NULL ? 0 : (size_t) (space - rule.data), left_len = 0, right_len = 0;
	int32_t left, right, result;

	if (at == 0 || at + 1 == rule.len)
		return q3_fail(err, Q3_ERR_FORMAT, "merge rule %zu does not consist of two tokens", rank);
	left = merge_part(v, rule.data, at, buf, &left_len);
	right = merge_part(v, space + 1, rule.len - at - 1, buf + left_len, &right_len);
	result = q3_vocab_find(v, buf, left_len + right_len, Q3_TRAIT_ANY);
	if (left < 0 || right < 0 || result < 0)
		return q3_fail(err, Q3_ERR_FORMAT,
		               "merge rule %zu names a token that the vocabulary does not have", rank);
	left = q3_vocab_find(v, buf, left_len, Q3_TRAIT_TEXT);
	right = q3_vocab_find(v, buf + left_len, right_len, Q3_TRAIT_TEXT);
	result = q3_vocab_find(v, buf, left_len + right_len, Q3_TRAIT_TEXT);
	if (left >= 0 && right >= 0 && result >= 0)
		q3_bpe_add(&tok->bpe, left, right, (uint32_t) rank, result);
	return Q3_OK;
}

static q3_code
load_merges(q3_tokenizer *tok, const q3_gguf *g, q3_error *err)
{
	size_t n, longest = 0;
	const q3_str *rules = q3_gguf_strings(g, "tokenizer.ggml.merges", &n);
	q3_code code = Q3_OK;
	char *buf;

	if (rules == NULL)
		return q3_fail(err, Q3_ERR_FORMAT, "model file has no tokenizer.ggml.merges");
	if (n > INT32_MAX)
		return q3_fail(err, Q3_ERR_UNSUPPORTED, "%zu merge rules are too many", n);
	for (size_t i = 0; i < n; i++)
		if (rules[i].len > longest)
			longest = rules[i].len;
	buf = malloc(longest + 1);
	if (buf == NULL || !q3_bpe_init(&tok->bpe, n))
		code = q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	for (size_t i = 0; i < n && code == Q3_OK; i++)
		code = add_merge(tok, rules[i], i, buf, err);
	free(buf);
	return code;
}

/* Finds the tokens of bytes, and the tokens that merging their own bytes gives as a whole. */
static void
find_whole(q3_tokenizer *tok)
{
	const q3_vocab *v = &tok->vocab;
	int32_t ids[Q3_BPE_SHORT];

	for (int b = 0; b < 256; b++)
	{
		char byte = (char) b;

		tok->byte_ids[b] = q3_vocab_find(v, &byte, 1, Q3_TRAIT_TEXT);
	}
	for (int32_t id = 0; id < v->n; id++)
	{
		size_t len, n = 0;
		const char *piece = q3_vocab_piece(v, id, &len);

		if (!(v->traits[id] & Q3_TRAIT_TEXT) || len == 0 || len > Q3_BPE_SHORT)
			continue;
		while (n < len && tok->byte_ids[(uint8_t) piece[n]] >= 0)
		{
			ids[n] = tok->byte_ids[(uint8_t) piece[n]];
			n++;
		}
		if (n == len && q3_bpe_merge(&tok->bpe, ids, &n) && n == 1 && ids[0] == id)
			v->traits[id] |= Q3_TRAIT_WHOLE;
	}
}

typedef struct added_token
{
	int32_t id;
	uint8_t first;
	size_t len;
} added_token;

static int
compare_added(const void *left, const void *right)
{
	const added_token *a = left, *b = right;

	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	if (a->len != b->len)
		return a->len > b->len ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static bool
list_added(q3_tokenizer *tok)
{
	const q3_vocab *v = &tok->vocab;
	added_token *list = malloc((size_t) v->n * sizeof(*list));
	int32_t n = 0;

	tok->added = malloc((size_t) v->n * sizeof(*tok->added));
	if (list == NULL || tok->added == NULL)
	{
		free(list);
		return false;
	}
	for (int32_t id = 0; id < v->n; id++)
	{
		size_t len;
		const char *piece = q3_vocab_piece(v, id, &len);

		if ((v->traits[id] & Q3_TRAIT_ADDED) && len > 0)
			list[n++] = (added_token){id, (uint8_t) piece[0], len};
	}
	qsort(list, (size_t) n, sizeof(*list), compare_added);
	for (int32_t i = 0; i < n; i++)
	{
		tok->added[i] = list[i].id;
		tok->added_start[list[i].first + 1] = i + 1;
	}
	for (int b = 1; b <= 256; b++)
		if (tok->added_start[b] < tok->added_start[b - 1])
			tok->added_start[b] = tok->added_start[b - 1];
	free(list);
	return true;
}

q3_tokenizer *
q3_tokenizer_create(const q3_gguf *g, q3_error *err)
{
	q3_tokenizer *tok = calloc(1, sizeof(*tok));
	q3_code code;

	if (tok == NULL || !q3_unicode_init(&tok->unicode))
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		free(tok);
		return NULL;
	}
	code = choose_kind(tok, g, err);
	if (code == Q3_OK)
		code = q3_vocab_load(&tok->vocab, g, err);
	if (code == Q3_OK)
		code = find_special(tok, g, err);
	if (code == Q3_OK)
		code = load_merges(tok, g, err);
	if (code == Q3_OK && !list_added(tok))
		code = q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (code != Q3_OK)
	{
		q3_tokenizer_free(tok);
		return NULL;
	}
	find_whole(tok);
	return tok;
}

void
q3_tokenizer_free(q3_tokenizer *tok)
{
	if (tok == NULL)
		return;
	q3_unicode_free(&tok->unicode);
	q3_vocab_free(&tok->vocab);
	q3_bpe_free(&tok->bpe);
	free(tok->added);
	free(tok);
}

/* ------------------------------------------------------------------------------------------
 * Questions
 * ------------------------------------------------------------------------------------------ */

int32_t
q3_tokenizer_n_vocab(const q3_tokenizer *tok)
{
	return tok->vocab.n;
}

const q3_special *
q3_tokenizer_special(const q3_tokenizer *tok)
{
	return &tok->special;
}

bool
q3_tokenizer_is_end(const q3_tokenizer *tok, int32_t id)
{
	const q3_special *s = &tok->special;

	return id >= 0 && (id == s->eos || id == s->im_end || id == s->endoftext);
}

int32_t
q3_tokenizer_find(const q3_tokenizer *tok, const char *text, size_t len)
{
	static const unsigned order[] = {Q3_TRAIT_ADDED, Q3_TRAIT_TEXT, Q3_TRAIT_OTHER};

	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++)
	{
		int32_t id = q3_vocab_find(&tok->vocab, text, len, order[i]);

		if (id >= 0)
			return id;
	}
	return -1;
}

q3_token_kind
q3_tokenizer_kind(const q3_tokenizer *tok, int32_t id)
{
	if (id < 0 || id >= tok->vocab.n)
		return Q3_TOKEN_UNKNOWN;
	return (q3_token_kind) tok->vocab.kinds[id];
}

size_t
q3_tokenizer_certain(const q3_tokenizer *tok, const char *text, size_t len)
{
	const uint8_t *s = (const uint8_t *) text, *end = s + len, *last = s;

	while (s < end)
	{
		last = s;
		s += q3_word_length(&tok->unicode, tok->split, s, end);
	}
	return (size_t) (last - (const uint8_t *) text);
}

const char *
q3_tokenizer_piece(const q3_tokenizer *tok, int32_t id, size_t *len)
{
	*len = 0;
	if (id < 0 || id >= tok->vocab.n)
		return NULL;
	return q3_vocab_piece(&tok->vocab, id, len);
}

/* ------------------------------------------------------------------------------------------
 * Encoding
 * ------------------------------------------------------------------------------------------ */

/*
 * Appends the tokens of one word. A byte for which the vocabulary has no token is passed over, as
 * the models' own tokenizers do (SmolLM lacks some control characters).
 */
static bool
encode_word(const q3_tokenizer *tok, const uint8_t *word, size_t len, q3_tokens *out)
{
	int32_t id = -1, *ids;
	size_t n = 0;

	if (len <= Q3_BPE_SHORT)
		id = q3_vocab_find(&tok->vocab, (const char *) word, len, Q3_TRAIT_WHOLE);
	if (!reserve(out, id >= 0 ? 1 : len))
		return false;
	if (id >= 0)
	{
		out->ids[out->n++] = id;
		return true;
	}
	ids = out->ids + out->n;
	for (size_t i = 0; i < len; i++)
	{
		ids[n] = tok->byte_ids[word[i]];
		n += ids[n] >= 0;
	}
	if (!q3_bpe_merge(&tok->bpe, ids, &n))
		return false;
	out->n += n;
	return true;
}

/* Appends the tokens of text without looking for added tokens in it. */
static bool
encode_plain(const q3_tokenizer *tok, const char *text, size_t len, q3_tokens *out)
{
	const char *clean;
	char *owned;
	const uint8_t *s, *end;
	bool ok = true;

	if (!q3_unicode_clean(&tok->unicode, text, len, tok->nfc, &clean, &len, &owned))
		return false;
	s = (const uint8_t *) clean;
	end = s + len;
	while (s < end && ok)
	{
		size_t n = q3_word_length(&tok->unicode, tok->split, s, end);

		ok = encode_word(tok, s, n, out);
		s += n;
	}
	free(owned);
	return ok;
}

/* The longest added token that stands at text, or -1. */
static int32_t
added_at(const q3_tokenizer *tok, const char *text, size_t left, size_t *len)
{
	uint8_t first = (uint8_t) text[0];

	for (int32_t i = tok->added_start[first]; i < tok->added_start[first + 1]; i++)
	{
		const char *piece = q3_vocab_piece(&tok->vocab, tok->added[i], len);

		if (*len <= left && memcmp(piece, text, *len) == 0)
			return tok->added[i];
	}
	return -1;
}

static bool
encode_special(const q3_tokenizer *tok, const char *text, size_t len, q3_tokens *out)
{
	size_t start = 0, at = 0, n;

	while (at < len)
	{
		int32_t id = added_at(tok, text + at, len - at, &n);

		if (id < 0)
		{
			at++;
			continue;
		}
		if (!encode_plain(tok, text + start, at - start, out) || !q3_tokens_push(out, id))
			return false;
		start = at += n;
	}
	return encode_plain(tok, text + start, len - start, out);
}

q3_code
q3_tokenizer_encode(const q3_tokenizer *tok, const char *text, size_t len, bool parse_special,
                    q3_tokens *out, q3_error *err)
{
	size_t n_before = out->n;
	bool ok;

	if (len == 0)
		return Q3_OK;
	if (len > MAX_TEXT)
		return q3_fail(err, Q3_ERR_TOO_LONG, "text of %zu bytes is too long to be tokenized", len);
	ok = parse_special ? encode_special(tok, text, len, out) : encode_plain(tok, text, len, out);
	if (ok)
		return Q3_OK;
	out->n = n_before;
	return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
}
