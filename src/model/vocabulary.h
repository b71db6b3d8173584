/*
 * vocabulary.h: the tokens of a model: their bytes, their kinds, and what may produce them.
 *
 * Inside of the tokenizer. A q3_vocab owns its memory and keeps no pointer into the GGUF; it is
 * immutable once the tokenizer is made (which adds Q3_TRAIT_WHOLE).
 */
#ifndef Q3_VOCABULARY_H
#define Q3_VOCABULARY_H

#include "model/tokenizer.h"

/* What a token may be used for; each is of exactly one of the first three. */
enum
{
	Q3_TRAIT_TEXT = 1,  /* ordinary: merging may produce it */
	Q3_TRAIT_ADDED = 2, /* a control or added token: text produces it only when asked to */
	Q3_TRAIT_OTHER = 4, /* padding and the like: no text produces it */
	Q3_TRAIT_WHOLE = 8, /* TEXT, and merging its bytes gives just this token */
	Q3_TRAIT_ANY = 15
};

/* Tokens that control the chat: ADDED whatever kind the file gives them. */
typedef enum q3_name
{
	Q3_NAME_IM_START = 0,
	Q3_NAME_IM_END,
	Q3_NAME_ENDOFTEXT,
	Q3_NAME_THINK_START,
	Q3_NAME_THINK_END,
	Q3_N_NAMES
} q3_name;

extern const char *const q3_vocab_names[Q3_N_NAMES];

typedef struct q3_vocab
{
	int32_t n;
	size_t longest;              /* bytes of the longest token */
	char *arena;                 /* bytes of all tokens, one behind the other */
	size_t *start;               /* n + 1 offsets into arena */
	uint8_t *kinds;              /* q3_token_kind */
	uint8_t *traits;             /* Q3_TRAIT_... */
	struct q3_vocab_slot *slots; /* hash table from bytes to ids */
	size_t mask;
} q3_vocab;

/* Reads tokens and kinds from the file. v is to be freed even after a failure. */
extern q3_code q3_vocab_load(q3_vocab *v, const q3_gguf *g, q3_error *err);
extern void q3_vocab_free(q3_vocab *v);

static inline const char *
q3_vocab_piece(const q3_vocab *v, int32_t id, size_t *len)
{
	*len = v->start[id + 1] - v->start[id];
	return v->arena + v->start[id];
}

/* The token with these bytes and one of these traits, or -1; of several the lowest. */
extern int32_t q3_vocab_find(const q3_vocab *v, const char *bytes, size_t len, unsigned traits);

/*
 * Byte-level vocabularies write one printable character for each byte. Turns such text into bytes;
 * out has room for text.len of them. False when another character is in it.
 */
extern bool q3_vocab_bytes(q3_str text, char *out, size_t *out_len);

#endif
