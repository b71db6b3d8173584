/*
 * chat.c: ChatML, as Qwen3's template writes it.
 *
 *     <|im_start|>system\nS<|im_end|>\n      only with a system text
 *     <|im_start|>user\nQ<|im_end|>\n        for each pair of turns; the template leaves out what
 *     <|im_start|>assistant\nA<|im_end|>\n   was thought before past answers, and so does this
 *     <|im_start|>user\nU<|im_end|>\n
 *     <|im_start|>assistant\n
 *     <think>\n\n</think>\n\n                only where the model could think and must not
 *     <think>\nT\n</think>\n\n              what it writes itself where it thinks
 *
 * The role and the text after it are tokenized as one piece, because the template's tokenizer sees
 * them so (a text that begins with newlines joins the one after the role). No state; any thread.
 */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

/* Appends a control token, then the tokens of text with prefix before it. */
static q3_code
add_turn(const q3_tokenizer *tok, int32_t control, const char *prefix, const char *text, size_t len,
         q3_tokens *out, q3_error *err)
{
	size_t prefix_len = strlen(prefix);
	char *joined = NULL;
	q3_code code;

	if (len <= SIZE_MAX - prefix_len)
		joined = malloc(prefix_len + len);
	if (joined == NULL || !q3_tokens_push(out, control))
	{
		free(joined);
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	}
	memcpy(joined, prefix, prefix_len);
	if (len > 0)
		memcpy(joined + prefix_len, text, len);
	code = q3_tokenizer_encode(tok, joined, prefix_len + len, false, out, err);
	free(joined);
	return code;
}

static q3_code
add_message(const q3_tokenizer *tok, const char *role, const char *text, size_t len, q3_tokens *out,
            q3_error *err)
{
	const q3_special *s = q3_tokenizer_special(tok);
	q3_code code = add_turn(tok, s->im_start, role, text, len, out, err);

	if (code == Q3_OK)
		code = add_turn(tok, s->im_end, "\n", NULL, 0, out, err);
	return code;
}

static q3_code
add_all(const q3_tokenizer *tok, const q3_chat *chat, q3_tokens *out, q3_error *err)
{
	const q3_special *s = q3_tokenizer_special(tok);
	q3_code code = Q3_OK;

	if (chat->system != NULL)
		code = add_message(tok, "system\n", chat->system, chat->system_len, out, err);
	for (size_t i = 0; i < chat->n_turns && code == Q3_OK; i++)
		code = add_message(tok, i % 2 == 0 ? "user\n" : "assistant\n", chat->turns[i].data,
		                   chat->turns[i].len, out, err);
	if (code == Q3_OK)
		code = add_message(tok, "user\n", chat->user, chat->user_len, out, err);
	if (code == Q3_OK)
		code = add_turn(tok, s->im_start, "assistant\n", NULL, 0, out, err);
	if (code != Q3_OK || chat->thinking || !q3_chat_can_think(tok))
		return code;
	code = add_turn(tok, s->think_start, "\n\n", NULL, 0, out, err);
	if (code == Q3_OK)
		code = add_turn(tok, s->think_end, "\n\n", NULL, 0, out, err);
	return code;
}

bool
q3_chat_can_think(const q3_tokenizer *tok)
{
	const q3_special *s = q3_tokenizer_special(tok);

	return s->think_start >= 0 && s->think_end >= 0;
}

q3_code
q3_chat_end_thinking(const q3_tokenizer *tok, q3_tokens *out, q3_error *err)
{
	int32_t end = q3_tokenizer_special(tok)->think_end;
	q3_code code = Q3_OK;

	if (out->n > 0 && out->ids[out->n - 1] == end)
		return q3_tokenizer_encode(tok, "\n\n", 2, false, out, err);
	code = q3_tokenizer_encode(tok, "\n", 1, false, out, err);
	return code == Q3_OK ? add_turn(tok, end, "\n\n", NULL, 0, out, err) : code;
}

static q3_code
check_vocabulary(const q3_tokenizer *tok, q3_error *err)
{
	const q3_special *s = q3_tokenizer_special(tok);

	if (s->im_start < 0 || s->im_end < 0)
		return q3_fail(err, Q3_ERR_UNSUPPORTED,
		               "model has no <|im_start|> and <|im_end|> tokens for its chat format");
	return Q3_OK;
}

q3_code
q3_chat_encode(const q3_tokenizer *tok, const q3_chat *chat, q3_tokens *out, q3_error *err)
{
	size_t n_before = out->n;
	q3_code code = check_vocabulary(tok, err);

	if (code == Q3_OK)
		code = add_all(tok, chat, out, err);
	if (code != Q3_OK)
		out->n = n_before;
	return code;
}

q3_code
q3_chat_encode_system(const q3_tokenizer *tok, q3_str system, q3_tokens *out, q3_error *err)
{
	size_t n_before = out->n;
	q3_code code = check_vocabulary(tok, err);

	if (code == Q3_OK)
		code = add_message(tok, "system\n", system.data, system.len, out, err);
	if (code != Q3_OK)
		out->n = n_before;
	return code;
}
