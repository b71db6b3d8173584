/*
 * token_trie.h: a vocabulary's text tokens as a tree of their bytes, and what is known beforehand
 * about tokens within JSON strings.
 *
 * Made once per tokenizer (about 0.1 s for 150,000 tokens) and immutable: any number of threads may
 * read it. It keeps no pointer into the tokenizer.
 */
#ifndef Q3_TOKEN_TRIE_H
#define Q3_TOKEN_TRIE_H

#include "model/tokenizer.h"

/* States within a JSON string; Q3_STRING_BODY is between two characters. */
enum
{
	Q3_STRING_BODY = 0,
	Q3_STRING_DONE = 1, /* behind the closing quote */
	Q3_STRING_STATES = 26,
	Q3_STRING_DEAD = 255
};

/* The state after one more byte. */
extern const uint8_t (*q3_string_table(void))[256];

/* Longer tokens are left out, so that walks need not be deep. */
#define Q3_TOKEN_TRIE_DEPTH 256

/* A place where a token closes a string that was open before it. */
typedef struct q3_string_exit
{
	uint32_t node;
	int32_t chars; /* of the string within the token */
} q3_string_exit;

/*
 * Nodes are numbered in preorder, 0 is the root: the children of i are i + 1, end[i + 1], and so on
 * while they are less than end[i], in order of their bytes.
 */
typedef struct q3_token_trie
{
	int32_t n_vocab; /* tokens' ids are less */
	int32_t n_words; /* of 32 tokens, in a mask */
	uint32_t n_nodes;
	uint8_t *byte;
	uint32_t *end;
	uint32_t *first_token; /* [n_nodes + 1] into tokens: those that end at a node */
	int32_t *tokens;
	uint32_t child_of_root[256]; /* 0: none */
	int32_t ends[4];             /* tokens that end an answer */
	int n_ends;

	/*
	 * From Q3_STRING_BODY: body[n] are the tokens that stay within the string and begin at most n
	 * characters, n up to most_chars; closing[] those that end with its closing quote, exits[] the
	 * nodes of that quote behind which there is more.
	 */
	int32_t most_chars;
	uint32_t *body; /* [most_chars + 1][n_words] */
	q3_string_exit *closing;
	size_t n_closing, closing_capacity;
	q3_string_exit *exits;
	size_t n_exits, exit_capacity;
} q3_token_trie;

/* NULL when out of memory. */
extern q3_token_trie *q3_token_trie_create(const q3_tokenizer *tok);
extern void q3_token_trie_free(q3_token_trie *t);

/* Child of a node by its byte; 0: none. */
static inline uint32_t
q3_token_trie_child(const q3_token_trie *t, uint32_t node, uint8_t byte)
{
	if (node == 0)
		return t->child_of_root[byte];
	for (uint32_t i = node + 1; i < t->end[node]; i = t->end[i])
		if (t->byte[i] >= byte)
			return t->byte[i] == byte ? i : 0;
	return 0;
}

/* Allows the tokens that end at a node. */
static inline void
q3_token_trie_mark(const q3_token_trie *t, uint32_t node, uint32_t *bits)
{
	for (uint32_t i = t->first_token[node]; i < t->first_token[node + 1]; i++)
		bits[t->tokens[i] / 32] |= UINT32_C(1) << (t->tokens[i] % 32);
}

#endif
