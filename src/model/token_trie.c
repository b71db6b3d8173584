/*
 * token_trie.c: making the tree of a vocabulary's tokens.
 *
 * Tokens are sorted by their bytes; every one then adds the nodes that it does not share with the
 * one before. The caller owns the tree.
 */
#include "model/token_trie.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "model/automaton.h"

/* ---------------------------------------------------------------------------------------------
 * JSON strings
 * --------------------------------------------------------------------------------------------- */

/* States behind Q3_STRING_DONE: what the next byte or bytes have to be. */
enum
{
	ESCAPE = 2,
	TAIL_1, /* continuation bytes of UTF-8 */
	TAIL_2,
	TAIL_3,
	TAIL_E0,
	TAIL_ED,
	TAIL_F0,
	TAIL_F4,
	HEX_FIRST, /* of four digits: neither 0000 nor a lone surrogate */
	HEX_0,
	HEX_00,
	HEX_000,
	HEX_D,
	HEX_3,
	HEX_2,
	HEX_1,
	HIGH_2, /* two more digits of a high surrogate, then "\u" and a low one */
	HIGH_1,
	LOW_BACKSLASH,
	LOW_U,
	LOW_D,
	LOW_C
};

static uint8_t string_table[Q3_STRING_STATES][256];

static void
set_bytes(int state, int low, int high, int to)
{
	memset(&string_table[state][low], to, (size_t) (high - low + 1));
}

static void
set_hex(int state, int low, int high, int to)
{
	for (int digit = low; digit <= high; digit++)
	{
		string_table[state][(unsigned char) "0123456789abcdef"[digit]] = (uint8_t) to;
		string_table[state][(unsigned char) "0123456789ABCDEF"[digit]] = (uint8_t) to;
	}
}

static void
fill_utf8(void)
{
	set_bytes(Q3_STRING_BODY, 0x20, 0x7f, Q3_STRING_BODY);
	set_bytes(Q3_STRING_BODY, '"', '"', Q3_STRING_DONE);
	set_bytes(Q3_STRING_BODY, '\\', '\\', ESCAPE);
	set_bytes(Q3_STRING_BODY, 0xc2, 0xdf, TAIL_1);
	set_bytes(Q3_STRING_BODY, 0xe1, 0xef, TAIL_2);
	set_bytes(Q3_STRING_BODY, 0xe0, 0xe0, TAIL_E0);
	set_bytes(Q3_STRING_BODY, 0xed, 0xed, TAIL_ED);
	set_bytes(Q3_STRING_BODY, 0xf1, 0xf3, TAIL_3);
	set_bytes(Q3_STRING_BODY, 0xf0, 0xf0, TAIL_F0);
	set_bytes(Q3_STRING_BODY, 0xf4, 0xf4, TAIL_F4);
	set_bytes(TAIL_1, 0x80, 0xbf, Q3_STRING_BODY);
	set_bytes(TAIL_2, 0x80, 0xbf, TAIL_1);
	set_bytes(TAIL_3, 0x80, 0xbf, TAIL_2);
	set_bytes(TAIL_E0, 0xa0, 0xbf, TAIL_1);
	set_bytes(TAIL_ED, 0x80, 0x9f, TAIL_1);
	set_bytes(TAIL_F0, 0x90, 0xbf, TAIL_2);
	set_bytes(TAIL_F4, 0x80, 0x8f, TAIL_2);
}

static void
fill_escapes(void)
{
	for (const char *c = "\"\\/bfnrt"; *c != '\0'; c++)
		set_bytes(ESCAPE, *c, *c, Q3_STRING_BODY);
	set_bytes(ESCAPE, 'u', 'u', HEX_FIRST);
	set_hex(HEX_FIRST, 0, 15, HEX_3);
	set_hex(HEX_FIRST, 0, 0, HEX_0);
	set_hex(HEX_FIRST, 13, 13, HEX_D);
	set_hex(HEX_0, 0, 15, HEX_2);
	set_hex(HEX_0, 0, 0, HEX_00);
	set_hex(HEX_00, 0, 15, HEX_1);
	set_hex(HEX_00, 0, 0, HEX_000);
	set_hex(HEX_000, 1, 15, Q3_STRING_BODY);
	set_hex(HEX_D, 0, 7, HEX_2);
	set_hex(HEX_D, 8, 11, HIGH_2);
	set_hex(HEX_3, 0, 15, HEX_2);
	set_hex(HEX_2, 0, 15, HEX_1);
	set_hex(HEX_1, 0, 15, Q3_STRING_BODY);
	set_hex(HIGH_2, 0, 15, HIGH_1);
	set_hex(HIGH_1, 0, 15, LOW_BACKSLASH);
	set_bytes(LOW_BACKSLASH, '\\', '\\', LOW_U);
	set_bytes(LOW_U, 'u', 'u', LOW_D);
	set_hex(LOW_D, 13, 13, LOW_C);
	set_hex(LOW_C, 12, 15, HEX_2);
}

static void
fill_table(void)
{
	memset(string_table, Q3_STRING_DEAD, sizeof(string_table));
	fill_utf8();
	fill_escapes();
}

const uint8_t (*q3_string_table(void))[256]
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, fill_table);
	return (const uint8_t(*)[256]) string_table;
}

/* ---------------------------------------------------------------------------------------------
 * The tree
 * --------------------------------------------------------------------------------------------- */

typedef struct piece
{
	const char *bytes;
	size_t len;
	int32_t id;
} piece;

static int
compare_pieces(const void *a, const void *b)
{
	const piece *x = a, *y = b;
	int order = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);

	if (order != 0)
		return order;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/* Tokens that answers' text is made of. */
static bool
is_text(const q3_tokenizer *tok, int32_t id)
{
	const q3_special *s = q3_tokenizer_special(tok);

	return q3_tokenizer_kind(tok, id) == Q3_TOKEN_NORMAL && !q3_tokenizer_is_end(tok, id) &&
	       id != s->bos && id != s->pad && id != s->im_start && id != s->think_start &&
	       id != s->think_end;
}

/* All text tokens in order of their bytes; *longest: bytes of the longest. */
static piece *
sorted_pieces(const q3_tokenizer *tok, size_t *n, size_t *n_bytes, size_t *longest)
{
	int32_t n_vocab = q3_tokenizer_n_vocab(tok);
	piece *pieces = malloc(((size_t) n_vocab + 1) * sizeof(*pieces));

	*n = *n_bytes = *longest = 0;
	for (int32_t id = 0; pieces != NULL && id < n_vocab; id++)
	{
		piece p = {.id = id};

		p.bytes = q3_tokenizer_piece(tok, id, &p.len);
		if (p.bytes == NULL || p.len == 0 || p.len > Q3_TOKEN_TRIE_DEPTH || !is_text(tok, id))
			continue;
		pieces[(*n)++] = p;
		*n_bytes += p.len;
		*longest = p.len > *longest ? p.len : *longest;
	}
	if (*n > 1)
		qsort(pieces, *n, sizeof(*pieces), compare_pieces);
	return pieces;
}

/* Where the bytes of a token stop being those of the one before. */
static size_t
common_bytes(const piece *a, const piece *b)
{
	size_t n = 0;

	while (n < a->len && n < b->len && a->bytes[n] == b->bytes[n])
		n++;
	return n;
}

/* Nodes for all pieces; path has room for the longest of them and the root. */
static void
add_nodes(q3_token_trie *t, const piece *pieces, size_t n, uint32_t *path)
{
	size_t depth = 0;

	path[0] = 0;
	t->n_nodes = 1;
	for (size_t i = 0; i < n; i++)
	{
		size_t common = i > 0 ? common_bytes(&pieces[i - 1], &pieces[i]) : 0;

		while (depth > common)
			t->end[path[depth--]] = t->n_nodes;
		while (depth < pieces[i].len)
		{
			t->byte[t->n_nodes] = (uint8_t) pieces[i].bytes[depth];
			t->first_token[t->n_nodes] = (uint32_t) i;
			if (depth == 0)
				t->child_of_root[t->byte[t->n_nodes]] = t->n_nodes;
			path[++depth] = t->n_nodes++;
		}
		t->tokens[i] = pieces[i].id;
	}
	for (; depth > 0; depth--)
		t->end[path[depth]] = t->n_nodes;
	t->end[0] = t->n_nodes;
	t->first_token[t->n_nodes] = (uint32_t) n;
}

/* Between a node's first token and the next node's are tokens that end there: in preorder. */
static bool
build_tree(q3_token_trie *t, const q3_tokenizer *tok)
{
	size_t n, n_bytes, longest;
	piece *pieces = sorted_pieces(tok, &n, &n_bytes, &longest);
	uint32_t *path = malloc((longest + 1) * sizeof(*path));
	bool ok;

	t->byte = malloc(n_bytes + 1);
	t->end = malloc((n_bytes + 1) * sizeof(*t->end));
	t->first_token = calloc(n_bytes + 2, sizeof(*t->first_token));
	t->tokens = malloc((n + 1) * sizeof(*t->tokens));
	ok = pieces != NULL && path != NULL && t->byte != NULL && t->end != NULL &&
	     t->first_token != NULL && t->tokens != NULL;
	if (ok)
		add_nodes(t, pieces, n, path);
	free(pieces);
	free(path);
	return ok;
}

static void
find_ends(q3_token_trie *t, const q3_tokenizer *tok)
{
	for (int32_t id = 0; id < t->n_vocab && t->n_ends < 4; id++)
		if (q3_tokenizer_is_end(tok, id))
			t->ends[t->n_ends++] = id;
}

/* ---------------------------------------------------------------------------------------------
 * Tokens within strings
 * --------------------------------------------------------------------------------------------- */

/* What the walk finds: for every token that stays in the string, how many characters it begins. */
typedef struct string_walk
{
	q3_token_trie *t;
	const uint8_t (*table)[256];
	int32_t *chars; /* by token; -1: it does not stay */
	bool failed;
} string_walk;

static bool
add_exit(q3_string_exit **list, size_t *n, size_t *capacity, uint32_t node, int32_t chars)
{
	if (!q3_grow(list, *n, capacity, sizeof(**list)))
		return false;
	(*list)[(*n)++] = (q3_string_exit){node, chars};
	return true;
}

static void
walk_string(string_walk *w, uint32_t node, uint8_t state, int32_t chars)
{
	q3_token_trie *t = w->t;

	for (uint32_t i = node + 1; i < t->end[node]; i = t->end[i])
	{
		uint8_t to = w->table[state][t->byte[i]];
		int32_t n = chars + (state == Q3_STRING_BODY);

		if (to == Q3_STRING_DEAD)
			continue;
		if (to == Q3_STRING_DONE)
		{
			if (t->first_token[i] < t->first_token[i + 1])
				w->failed |= !add_exit(&t->closing, &t->n_closing, &t->closing_capacity, i, chars);
			if (t->end[i] > i + 1)
				w->failed |= !add_exit(&t->exits, &t->n_exits, &t->exit_capacity, i, chars);
			continue;
		}
		for (uint32_t k = t->first_token[i]; k < t->first_token[i + 1]; k++)
			w->chars[t->tokens[k]] = n;
		t->most_chars = n > t->most_chars ? n : t->most_chars;
		walk_string(w, i, to, n);
	}
}

static bool
build_strings(q3_token_trie *t)
{
	string_walk w = {.t = t, .table = q3_string_table()};
	size_t row = (size_t) t->n_words;

	w.chars = malloc(((size_t) t->n_vocab + 1) * sizeof(*w.chars));
	if (w.chars == NULL)
		return false;
	memset(w.chars, 0xff, (size_t) t->n_vocab * sizeof(*w.chars));
	walk_string(&w, 0, Q3_STRING_BODY, 0);
	t->body = calloc((size_t) (t->most_chars + 1) * row, sizeof(*t->body));
	for (int32_t id = 0; t->body != NULL && id < t->n_vocab; id++)
		if (w.chars[id] >= 0)
			t->body[(size_t) w.chars[id] * row + (size_t) id / 32] |= UINT32_C(1) << (id % 32);
	for (size_t i = row; t->body != NULL && i < (size_t) (t->most_chars + 1) * row; i++)
		t->body[i] |= t->body[i - row];
	free(w.chars);
	return t->body != NULL && !w.failed;
}

q3_token_trie *
q3_token_trie_create(const q3_tokenizer *tok)
{
	q3_token_trie *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->n_vocab = q3_tokenizer_n_vocab(tok);
	t->n_words = (t->n_vocab + 31) / 32;
	find_ends(t, tok);
	if (build_tree(t, tok) && build_strings(t))
		return t;
	q3_token_trie_free(t);
	return NULL;
}

void
q3_token_trie_free(q3_token_trie *t)
{
	if (t == NULL)
		return;
	free(t->byte);
	free(t->end);
	free(t->first_token);
	free(t->tokens);
	free(t->body);
	free(t->closing);
	free(t->exits);
	free(t);
}
