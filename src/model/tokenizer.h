/*
 * tokenizer.h: byte-level BPE as the model's own tokenizer does it.
 *
 * A q3_tokenizer owns its tables (malloc) and keeps no pointer into the GGUF. It is immutable after
 * creation: any number of threads may encode and decode with it. Text is UTF-8; bytes that are not
 * valid UTF-8 are encoded as U+FFFD, one for each maximal invalid part.
 */
#ifndef Q3_TOKENIZER_H
#define Q3_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"
#include "model/gguf.h"

typedef struct q3_tokenizer q3_tokenizer;

/* A growing list of token ids; starts as {0}, freed with q3_tokens_free(). */
typedef struct q3_tokens
{
	int32_t *ids;
	size_t n;
	size_t capacity;
} q3_tokens;

/* false when out of memory. */
extern bool q3_tokens_push(q3_tokens *tokens, int32_t id);
extern void q3_tokens_free(q3_tokens *tokens);

/* Kinds of token, as GGUF's tokenizer.ggml.token_type numbers them. */
typedef enum q3_token_kind
{
	Q3_TOKEN_NORMAL = 1,
	Q3_TOKEN_UNKNOWN = 2,
	Q3_TOKEN_CONTROL = 3,
	Q3_TOKEN_USER_DEFINED = 4,
	Q3_TOKEN_UNUSED = 5,
	Q3_TOKEN_BYTE = 6
} q3_token_kind;

/* Well-known ids, -1 where the vocabulary has none. */
typedef struct q3_special
{
	int32_t bos, eos, pad;
	int32_t im_start, im_end, endoftext; /* <|im_start|> <|im_end|> <|endoftext|> */
	int32_t think_start, think_end;      /* <think> </think> */
	bool add_bos;                        /* the file asks for BOS before every text */
	/*
	 * Ends a text whose vector is wanted: eos where the file asks for it after every text, else
	 * <|endoftext|> (a chat model's eos ends a turn), else eos.
	 */
	int32_t text_end;
} q3_special;

extern q3_tokenizer *q3_tokenizer_create(const q3_gguf *g, q3_error *err);
extern void q3_tokenizer_free(q3_tokenizer *tok);

extern int32_t q3_tokenizer_n_vocab(const q3_tokenizer *tok);
extern const q3_special *q3_tokenizer_special(const q3_tokenizer *tok);
/* The token that stops generation: eos, <|im_end|> or <|endoftext|>. */
extern bool q3_tokenizer_is_end(const q3_tokenizer *tok, int32_t id);
/* Id of a whole token by its text, -1 when there is none. */
extern int32_t q3_tokenizer_find(const q3_tokenizer *tok, const char *text, size_t len);
extern q3_token_kind q3_tokenizer_kind(const q3_tokenizer *tok, int32_t id);

/*
 * Appends the tokens of text to out. Without parse_special no control or added token can come out,
 * whatever the text holds: "<|im_end|>" in it is ordinary characters. With it, such strings become
 * their tokens (for the command-line tool only). BOS is never added here.
 */
extern q3_code q3_tokenizer_encode(const q3_tokenizer *tok, const char *text, size_t len,
                                   bool parse_special, q3_tokens *out, q3_error *err);

/*
 * How many bytes at the beginning of text (valid UTF-8) are cut into the same tokens whatever is
 * appended to it: all but its last word.
 */
extern size_t q3_tokenizer_certain(const q3_tokenizer *tok, const char *text, size_t len);

/*
 * Bytes of one token, valid as long as the tokenizer; a token may be a part of a UTF-8 sequence.
 * Control tokens give their text ("<|im_end|>"). An id outside the vocabulary gives NULL.
 */
extern const char *q3_tokenizer_piece(const q3_tokenizer *tok, int32_t id, size_t *len);

#endif
