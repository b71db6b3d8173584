/*
 * qwen3_vocab.h: Qwen3's real vocabulary from test/data, as the tokenizer of a GGUF in memory.
 *
 * The caller owns the tokenizer. Without the data the program ends: the tests run from the top of
 * the source tree.
 */
#ifndef TEST_QWEN3_VOCAB_H
#define TEST_QWEN3_VOCAB_H

#include <cjson/cJSON.h>

#include "build_vocab.h"

#define QWEN3_JSON "test/data/qwen3-tokenizer/tokenizer.json.gz"
#define QWEN3_N_VOCAB 151669

static inline cJSON *
qwen3_json(void)
{
	FILE *f = popen("gzip -dc " QWEN3_JSON, "r");
	gguf_builder text = {0};
	char chunk[65536];
	cJSON *json;

	for (size_t n; f != NULL && (n = fread(chunk, 1, sizeof(chunk), f)) > 0;)
		put_raw(&text, chunk, n);
	put_u8(&text, 0);
	json = cJSON_Parse((const char *) text.data);
	if (f == NULL || pclose(f) != 0 || json == NULL)
	{
		fprintf(stderr, "could not read %s\n", QWEN3_JSON);
		abort();
	}
	builder_free(&text);
	return json;
}

static inline void
put_qwen3_tokens(gguf_builder *b, const cJSON *json)
{
	q3_str *tokens = calloc(QWEN3_N_VOCAB, sizeof(*tokens));
	int32_t *kinds = calloc(QWEN3_N_VOCAB, sizeof(*kinds));
	const cJSON *item;

	if (tokens == NULL || kinds == NULL)
		abort();
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(cJSON_GetObjectItem(json, "model"), "vocab"))
	{
		tokens[item->valueint] = str(item->string);
		kinds[item->valueint] = Q3_TOKEN_NORMAL;
	}
	cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "added_tokens"))
	{
		int id = cJSON_GetObjectItem(item, "id")->valueint;

		tokens[id] = str(cJSON_GetObjectItem(item, "content")->valuestring);
		kinds[id] = cJSON_IsTrue(cJSON_GetObjectItem(item, "special")) ? Q3_TOKEN_CONTROL
		                                                               : Q3_TOKEN_USER_DEFINED;
	}
	put_kv_strings(b, "tokenizer.ggml.tokens", tokens, QWEN3_N_VOCAB);
	put_kv_i32s(b, "tokenizer.ggml.token_type", kinds, QWEN3_N_VOCAB);
	free(tokens);
	free(kinds);
}

static inline void
put_qwen3_merges(gguf_builder *b, const cJSON *json)
{
	const cJSON *merges = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "model"), "merges"), *item;

	put_array(b, "tokenizer.ggml.merges", Q3_GGUF_STRING, (uint64_t) cJSON_GetArraySize(merges));
	cJSON_ArrayForEach(item, merges)
	{
		const char *left = item->child->valuestring, *right = item->child->next->valuestring;

		put_u64(b, strlen(left) + 1 + strlen(right));
		put_raw(b, left, strlen(left));
		put_raw(b, " ", 1);
		put_raw(b, right, strlen(right));
	}
}

static inline q3_tokenizer *
qwen3_tokenizer(const char *pre)
{
	cJSON *json = qwen3_json();
	gguf_builder b = {0};
	q3_error err = {0};
	q3_tokenizer *tok;

	put_header(&b, 3, 0, 8);
	put_kv_string(&b, "tokenizer.ggml.model", "gpt2");
	put_kv_string(&b, "tokenizer.ggml.pre", pre);
	put_qwen3_tokens(&b, json);
	put_qwen3_merges(&b, json);
	put_kv_u32(&b, "tokenizer.ggml.bos_token_id", 151643);
	put_kv_u32(&b, "tokenizer.ggml.eos_token_id", 151645);
	put_kv_u32(&b, "tokenizer.ggml.padding_token_id", 151643);
	cJSON_Delete(json);
	tok = tokenizer_of(&b, &err);
	builder_free(&b);
	if (tok == NULL)
	{
		fprintf(stderr, "Qwen3's vocabulary: %s\n", err.message);
		abort();
	}
	return tok;
}

#endif
