/*
 * fuzz_tokenizer.c: any bytes as text for a small vocabulary.
 *
 * Decoding must give the text back, repaired and normalised, no token may come out that text cannot
 * give, and the tokens of the decoded text must be the same again. The two tokenizers are made with
 * the first input and live until the end.
 */
#include <stdlib.h>
#include <utf8proc.h>

#include "../unit/build_vocab.h"
#include "fuzz.h"
#include "model/output.h"

#define G "\xc4\xa0" /* stands for a space, the next for a newline */
#define N "\xc4\x8a"

static q3_tokenizer *qwen2, *smollm;

static q3_tokenizer *
make(const char *pre)
{
	static small_vocab v;
	/* Some lead to tokens that are not for text; the results are not always behind their parts. */
	static const char rules[] =
	    "t h;th e;a a;aa aa;aaaa aa;a aa;i n;in g;e n;en d;s t;o p;st op;st o;sto p;' s;"
	    "h e;1 2;. .;< |;| >;_ end;i m;< t;<t h;\xc3\x83 \xc2\xa9;\xc3\x8c \xc4\xa3;" G " t;" G
	    "t he;" G " " G ";" G G " " G G ";" N " " N ";" N N " " N ";";

	small_begin(&v, pre);
	small_token(&v, "<|endoftext|>", Q3_TOKEN_CONTROL);
	small_token(&v, "<|im_start|>", Q3_TOKEN_CONTROL);
	small_token(&v, "<|im_end|>", Q3_TOKEN_CONTROL);
	small_token(&v, "<think>", Q3_TOKEN_USER_DEFINED);
	small_token(&v, "</think>", Q3_TOKEN_USER_DEFINED);
	small_token(&v, "stop", Q3_TOKEN_CONTROL);
	small_token(&v, "..", Q3_TOKEN_UNUSED);
	for (const char *at = rules; *at != '\0'; at += strcspn(at, ";") + 1)
	{
		char rule[32];

		snprintf(rule, sizeof(rule), "%.*s", (int) strcspn(at, ";"), at);
		small_merge(&v, rule);
	}
	return small_tokenizer(&v);
}

static q3_tokens
encode(const q3_tokenizer *tok, const char *text, size_t len, bool special)
{
	q3_tokens out = {0};
	q3_error err = {0};

	if (q3_tokenizer_encode(tok, text, len, special, &out, &err) != Q3_OK)
		abort();
	for (size_t i = 0; i < out.n; i++)
		if (out.ids[i] < 0 || out.ids[i] >= q3_tokenizer_n_vocab(tok) ||
		    (!special && q3_tokenizer_kind(tok, out.ids[i]) != Q3_TOKEN_NORMAL))
			abort();
	return out;
}

static gguf_builder
decode(const q3_tokenizer *tok, const q3_tokens *tokens)
{
	gguf_builder text = {0};

	for (size_t i = 0; i < tokens->n; i++)
	{
		size_t len;
		const char *piece = q3_tokenizer_piece(tok, tokens->ids[i], &len);

		put_raw(&text, piece, len);
	}
	return text;
}

/* Compares with the work of others: the repair of generated text, and utf8proc's own NFC. */
static void
check_text(const gguf_builder *got, const uint8_t *data, size_t size, bool nfc)
{
	size_t len;
	char *repaired = q3_utf8_repair((const char *) data, size, &len);
	utf8proc_uint8_t *normal = NULL;

	if (repaired == NULL)
		abort();
	if (nfc)
	{
		utf8proc_ssize_t n = utf8proc_map((utf8proc_uint8_t *) repaired, (utf8proc_ssize_t) len,
		                                  &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);

		if (n < 0)
			abort();
		len = (size_t) n;
	}
	if (got->n != len || (len > 0 && memcmp(got->data, nfc ? (char *) normal : repaired, len) != 0))
		abort();
	free(normal);
	free(repaired);
}

static void
check(const q3_tokenizer *tok, const uint8_t *data, size_t size, bool nfc)
{
	q3_tokens special = encode(tok, (const char *) data, size, true);
	q3_tokens plain = encode(tok, (const char *) data, size, false), again;
	gguf_builder text = decode(tok, &plain);

	if (memchr(data, 0, size) == NULL) /* the repair of generated text replaces NUL, too */
		check_text(&text, data, size, nfc);
	again = encode(tok, (const char *) text.data, text.n, false);
	if (again.n != plain.n ||
	    (plain.n > 0 && memcmp(again.ids, plain.ids, plain.n * sizeof(*plain.ids)) != 0))
		abort();
	builder_free(&text);
	q3_tokens_free(&special);
	q3_tokens_free(&plain);
	q3_tokens_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (qwen2 == NULL)
	{
		qwen2 = make("qwen2");
		smollm = make("smollm");
	}
	if (size > 0)
	{
		check(qwen2, data, size, true);
		check(smollm, data, size, false);
	}
	return 0;
}
