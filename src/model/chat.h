/*
 * chat.h: the chat format of a request, as token ids.
 *
 * Control tokens are appended by id, so that nothing in the system or user text can imitate them.
 * ChatML, with Qwen3's <think> block when the vocabulary has those tokens (strings in chat.c).
 */
#ifndef Q3_CHAT_H
#define Q3_CHAT_H

#include "model/tokenizer.h"

typedef struct q3_chat
{
	const char *system; /* NULL: no system turn */
	size_t system_len;
	/* Between system and user: what a user said, what the assistant answered, and so on. */
	const q3_str *turns;
	size_t n_turns; /* even */
	const char *user;
	size_t user_len;
	bool thinking; /* let the model think; ignored where the model has no <think> */
} q3_chat;

/* True when the vocabulary has <think> and </think>. */
extern bool q3_chat_can_think(const q3_tokenizer *tok);
/*
 * Appends the whole prompt up to and including the assistant's opening to out. A vocabulary without
 * <|im_start|> and <|im_end|> is Q3_ERR_UNSUPPORTED.
 */
extern q3_code q3_chat_encode(const q3_tokenizer *tok, const q3_chat *chat, q3_tokens *out,
                              q3_error *err);

/*
 * Appends the end of a block of thinking of which the tokens are in out, and what stands before the
 * answer. Only where q3_chat_can_think().
 */
extern q3_code q3_chat_end_thinking(const q3_tokenizer *tok, q3_tokens *out, q3_error *err);

/* Only the system turn: what every prompt with this system text begins with. */
extern q3_code q3_chat_encode_system(const q3_tokenizer *tok, q3_str system, q3_tokens *out,
                                     q3_error *err);

#endif
