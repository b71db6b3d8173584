/*
 * tiny_qwen.h: writes a whole random Qwen3 model of a few hundred kilobytes to a file, for tests
 * that need something to run but do not care what it says.
 *
 * The vocabulary is the 256 bytes (the id of a byte is its value) and five control tokens. The rows
 * of the output matrix that belong to control tokens are zero, so that greedy decoding never ends
 * an answer before max_tokens. Values depend on the seed only.
 */
#ifndef TEST_TINY_QWEN_H
#define TEST_TINY_QWEN_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "build_gguf.h"

enum
{
	TINY_LAYERS = 2,
	TINY_EMBD = 64,
	TINY_FF = 128,
	TINY_HEADS = 4,
	TINY_KV_HEADS = 2,
	TINY_HEAD_DIM = 16,
	TINY_CONTEXT = 4096,
	TINY_CONTROL = 5,
	TINY_VOCAB = 256 + TINY_CONTROL
};

static const char *const tiny_control[TINY_CONTROL] = {"<|endoftext|>", "<|im_start|>",
                                                       "<|im_end|>", "<think>", "</think>"};

/* A tensor of the directory; the values are made when all are known. */
typedef struct tiny_tensor
{
	char name[64];
	uint64_t cols, rows; /* rows 0: one dimension, a norm */
	uint64_t offset;
} tiny_tensor;

typedef struct tiny_list
{
	tiny_tensor items[64];
	size_t n;
	uint64_t bytes;
} tiny_list;

static inline void
tiny_add(tiny_list *list, int layer, const char *name, uint64_t cols, uint64_t rows)
{
	tiny_tensor *t = &list->items[list->n++];

	if (layer >= 0)
		snprintf(t->name, sizeof(t->name), "blk.%d.%s.weight", layer, name);
	else
		snprintf(t->name, sizeof(t->name), "%s.weight", name);
	t->cols = cols;
	t->rows = rows;
	t->offset = list->bytes;
	list->bytes += (cols * (rows > 0 ? rows : 1) * sizeof(float) + 31) / 32 * 32;
}

static inline void
tiny_list_tensors(tiny_list *list)
{
	const int q = TINY_HEADS * TINY_HEAD_DIM, kv = TINY_KV_HEADS * TINY_HEAD_DIM;

	tiny_add(list, -1, "token_embd", TINY_EMBD, TINY_VOCAB);
	tiny_add(list, -1, "output_norm", TINY_EMBD, 0);
	tiny_add(list, -1, "output", TINY_EMBD, TINY_VOCAB);
	for (int i = 0; i < TINY_LAYERS; i++)
	{
		tiny_add(list, i, "attn_norm", TINY_EMBD, 0);
		tiny_add(list, i, "attn_q", TINY_EMBD, (uint64_t) q);
		tiny_add(list, i, "attn_k", TINY_EMBD, (uint64_t) kv);
		tiny_add(list, i, "attn_v", TINY_EMBD, (uint64_t) kv);
		tiny_add(list, i, "attn_q_norm", TINY_HEAD_DIM, 0);
		tiny_add(list, i, "attn_k_norm", TINY_HEAD_DIM, 0);
		tiny_add(list, i, "attn_output", (uint64_t) q, TINY_EMBD);
		tiny_add(list, i, "ffn_norm", TINY_EMBD, 0);
		tiny_add(list, i, "ffn_gate", TINY_EMBD, TINY_FF);
		tiny_add(list, i, "ffn_up", TINY_EMBD, TINY_FF);
		tiny_add(list, i, "ffn_down", TINY_FF, TINY_EMBD);
	}
}

/* About normally distributed: a sum of uniform numbers. */
static inline float
tiny_random(uint64_t *state)
{
	double sum = 0;

	for (int i = 0; i < 4; i++)
	{
		*state = *state * 6364136223846793005u + 1442695040888963407u;
		sum += (double) (*state >> 40) / (double) (1 << 24) - 0.5;
	}
	return (float) (sum * sqrt(3.0));
}

static inline void
tiny_put_values(gguf_builder *b, const tiny_tensor *t, uint64_t *state)
{
	bool output = strcmp(t->name, "output.weight") == 0;
	uint64_t rows = t->rows > 0 ? t->rows : 1;

	for (uint64_t r = 0; r < rows; r++)
		for (uint64_t c = 0; c < t->cols; c++)
		{
			float v = tiny_random(state);

			if (t->rows == 0)
				v = 1 + 0.2f * v;
			else if (output && r >= 256)
				v = 0;
			else
				v *= output ? 0.5f : 0.15f;
			put_f32(b, v);
		}
	put_padding(b, 32);
}

/* The character that stands for a byte in GPT-2 style vocabularies. */
static inline void
tiny_byte_token(gguf_builder *b, int byte)
{
	int c = byte;
	char utf8[3] = {0};

	if (byte <= 32)
		c = 256 + byte;
	else if (byte >= 127 && byte <= 160)
		c = 256 + 33 + byte - 127;
	else if (byte == 173)
		c = 256 + 67;
	if (c < 128)
		utf8[0] = (char) c;
	else
	{
		utf8[0] = (char) (0xc0 | c >> 6);
		utf8[1] = (char) (0x80 | (c & 0x3f));
	}
	put_string(b, utf8);
}

static inline void
tiny_put_vocabulary(gguf_builder *b)
{
	put_kv_string(b, "tokenizer.ggml.model", "gpt2");
	put_kv_string(b, "tokenizer.ggml.pre", "qwen2");
	put_array(b, "tokenizer.ggml.tokens", Q3_GGUF_STRING, TINY_VOCAB);
	for (int i = 0; i < 256; i++)
		tiny_byte_token(b, i);
	for (int i = 0; i < TINY_CONTROL; i++)
		put_string(b, tiny_control[i]);
	put_array(b, "tokenizer.ggml.token_type", Q3_GGUF_I32, TINY_VOCAB);
	for (uint32_t i = 0; i < TINY_VOCAB; i++)
		put_u32(b, i < 256 ? 1 : i < 259 ? 3 : 4);
	/* One rule that needs a token of its own would change the ids: none at all. */
	put_array(b, "tokenizer.ggml.merges", Q3_GGUF_STRING, 0);
	put_kv_u32(b, "tokenizer.ggml.eos_token_id", 258);
	put_kv_u32(b, "tokenizer.ggml.bos_token_id", 256);
}

static inline void
tiny_put_hyper_parameters(gguf_builder *b)
{
	put_kv_string(b, "general.architecture", "qwen3");
	put_kv_string(b, "general.name", "tiny");
	put_kv_u32(b, "qwen3.block_count", TINY_LAYERS);
	put_kv_u32(b, "qwen3.context_length", TINY_CONTEXT);
	put_kv_u32(b, "qwen3.embedding_length", TINY_EMBD);
	put_kv_u32(b, "qwen3.feed_forward_length", TINY_FF);
	put_kv_u32(b, "qwen3.attention.head_count", TINY_HEADS);
	put_kv_u32(b, "qwen3.attention.head_count_kv", TINY_KV_HEADS);
	put_kv_u32(b, "qwen3.attention.key_length", TINY_HEAD_DIM);
	put_kv_u32(b, "qwen3.attention.value_length", TINY_HEAD_DIM);
	put_key(b, "qwen3.attention.layer_norm_rms_epsilon", Q3_GGUF_F32);
	put_f32(b, 1e-6f);
	put_key(b, "qwen3.rope.freq_base", Q3_GGUF_F32);
	put_f32(b, 1e6f);
}

#define TINY_KEYS (12 + 7)

/* Makes a temporary file and writes its name to path[]; false when that fails. */
static inline bool
tiny_qwen_write(char *path, size_t size, uint64_t seed)
{
	gguf_builder b = {0};
	tiny_list list = {0};
	int fd;
	FILE *f;
	bool ok;

	tiny_list_tensors(&list);
	put_header(&b, 3, list.n, TINY_KEYS);
	tiny_put_hyper_parameters(&b);
	tiny_put_vocabulary(&b);
	for (size_t i = 0; i < list.n; i++)
		put_tensor(&b, list.items[i].name, Q3_F32, list.items[i].cols, list.items[i].rows,
		           list.items[i].offset);
	put_padding(&b, 32);
	for (size_t i = 0; i < list.n; i++)
		tiny_put_values(&b, &list.items[i], &seed);

	snprintf(path, size, "/tmp/qwen3dm-test-XXXXXX");
	fd = mkstemp(path);
	f = fd >= 0 ? fdopen(fd, "wb") : NULL;
	ok = f != NULL && fwrite(b.data, 1, b.n, f) == b.n;
	ok = f != NULL && fclose(f) == 0 && ok;
	builder_free(&b);
	return ok;
}

#endif
