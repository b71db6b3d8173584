/*
 * build_model.h: writes random models of any shape, and broken ones, to temporary files.
 *
 * A model_spec says what the file holds; fields that are left zero have the defaults of
 * model_write(). The vocabulary is that of tiny_qwen.h. Weights depend on the seed only.
 */
#ifndef TEST_BUILD_MODEL_H
#define TEST_BUILD_MODEL_H

#include <unistd.h>

#include "tiny_qwen.h"

typedef struct model_spec
{
	const char *architecture; /* "qwen3" */
	uint32_t layers, embd, ff, heads, kv_heads, head_dim, rope_dims, context;
	uint32_t vocab;    /* rows of the embedding */
	q3_dtype types[4]; /* of the matrices, in turn; n_types of them */
	uint32_t n_types;  /* 0: all F32 */
	bool untied, bias, no_qk_norm;
	uint64_t seed;

	/* What is wrong with it. */
	const char *without;      /* a tensor or a key ("block_count") that is left out */
	const char *extra_tensor; /* one more, [32] */
	const char *odd_tensor;   /* has one row (a vector: one element) too many */
	const char *u32_key;      /* one more key ("expert_count"), u32_value */
	uint32_t u32_value;
	const char *text_key, *text_value; /* one more key, with a string */
} model_spec;

typedef struct spec_tensor
{
	char name[64];
	q3_dtype type;
	uint64_t cols, rows;
	uint64_t offset, bytes;
} spec_tensor;

typedef struct spec_list
{
	const model_spec *spec;
	spec_tensor items[128];
	size_t n;
	uint64_t bytes;
	uint32_t n_matrices;
} spec_list;

static inline void
spec_add(spec_list *list, int layer, const char *name, uint64_t cols, uint64_t rows)
{
	const model_spec *spec = list->spec;
	spec_tensor *t = &list->items[list->n];

	if (layer >= 0)
		snprintf(t->name, sizeof(t->name), "blk.%d.%s", layer, name);
	else
		snprintf(t->name, sizeof(t->name), "%s", name);
	if (spec->without != NULL && strcmp(t->name, spec->without) == 0)
		return;
	if (spec->odd_tensor != NULL && strcmp(t->name, spec->odd_tensor) == 0)
	{
		cols += rows == 0;
		rows += rows > 0;
	}
	t->type = Q3_F32;
	if (rows > 0 && spec->n_types > 0)
		t->type = spec->types[list->n_matrices++ % spec->n_types];
	t->cols = cols;
	t->rows = rows;
	t->offset = list->bytes;
	t->bytes = q3_dtype_row_bytes(t->type, cols) * (rows > 0 ? rows : 1);
	list->bytes += (t->bytes + 31) / 32 * 32;
	list->n++;
}

static inline void
spec_list_tensors(spec_list *list)
{
	const model_spec *s = list->spec;
	const uint64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;

	spec_add(list, -1, "token_embd.weight", s->embd, s->vocab);
	spec_add(list, -1, "output_norm.weight", s->embd, 0);
	if (s->untied)
		spec_add(list, -1, "output.weight", s->embd, s->vocab);
	for (int i = 0; i < (int) s->layers; i++)
	{
		spec_add(list, i, "attn_norm.weight", s->embd, 0);
		spec_add(list, i, "attn_q.weight", s->embd, q);
		spec_add(list, i, "attn_k.weight", s->embd, kv);
		spec_add(list, i, "attn_v.weight", s->embd, kv);
		if (s->bias)
		{
			spec_add(list, i, "attn_q.bias", q, 0);
			spec_add(list, i, "attn_k.bias", kv, 0);
			spec_add(list, i, "attn_v.bias", kv, 0);
		}
		if (!s->no_qk_norm)
		{
			spec_add(list, i, "attn_q_norm.weight", s->head_dim, 0);
			spec_add(list, i, "attn_k_norm.weight", s->head_dim, 0);
		}
		spec_add(list, i, "attn_output.weight", q, s->embd);
		spec_add(list, i, "ffn_norm.weight", s->embd, 0);
		spec_add(list, i, "ffn_gate.weight", s->embd, s->ff);
		spec_add(list, i, "ffn_up.weight", s->embd, s->ff);
		spec_add(list, i, "ffn_down.weight", s->ff, s->embd);
	}
	if (s->extra_tensor != NULL)
		spec_add(list, -1, s->extra_tensor, 32, 0);
}

/* Random bits, except that every scale is a small number. */
static inline void
spec_put_block(gguf_builder *b, q3_dtype type, uint64_t *state)
{
	uint8_t block[256];
	size_t n = q3_dtype_block_bytes(type), d = type == Q3_Q6_K ? n - 2 : 0;
	bool two = type == Q3_Q4_1 || type == Q3_Q5_1 || type == Q3_Q4_K || type == Q3_Q5_K;
	float f = 0.15f * tiny_random(state);

	for (size_t i = 0; i < n; i++)
		block[i] = (uint8_t) (tiny_random(state) * 1000);
	if (type == Q3_F32)
		memcpy(block, &f, 4);
	else if (type == Q3_BF16)
		memcpy(block, (const char *) &f + 2, 2);
	else if (type == Q3_F16)
		block[1] = (block[1] & 0x83) | 0x2c; /* 0.06 to 0.12, either sign */
	else
	{
		/* 0.004 to 0.008 for one scale; K types multiply it by up to 63, Q6_K by up to 127. */
		uint8_t exponent = type == Q3_Q6_K ? 0x04 : two && n > 32 ? 0x0c : 0x1c;

		block[d + 1] = (uint8_t) ((block[d + 1] & 0x83) | exponent);
		if (two)
			block[d + 3] = (uint8_t) ((block[d + 3] & 0x83) | exponent);
	}
	put_raw(b, block, n);
}

static inline void
spec_put_values(gguf_builder *b, const spec_tensor *t, uint64_t *state)
{
	if (t->rows == 0)
		for (uint64_t i = 0; i < t->cols; i++)
			put_f32(b, 1 + 0.2f * tiny_random(state));
	else
		for (uint64_t i = 0; i < t->bytes / q3_dtype_block_bytes(t->type); i++)
			spec_put_block(b, t->type, state);
	put_padding(b, 32);
}

/* "qwen3.block_count", unless that is to be left out; counts. */
static inline void
spec_put_u32(gguf_builder *b, const model_spec *s, uint64_t *n, const char *name, uint32_t value)
{
	char key[96];

	if (s->without != NULL && strcmp(s->without, name) == 0)
		return;
	snprintf(key, sizeof(key), "%s.%s", s->architecture, name);
	if (s->u32_key != NULL && strcmp(s->u32_key, name) == 0)
		value = s->u32_value;
	put_kv_u32(b, key, value);
	++*n;
}

static inline uint64_t
spec_put_keys(gguf_builder *b, const model_spec *s)
{
	static const char *const ours[] = {"block_count",          "context_length",
	                                   "embedding_length",     "feed_forward_length",
	                                   "attention.head_count", "attention.head_count_kv",
	                                   "attention.key_length", "rope.dimension_count"};
	const uint32_t values[] = {s->layers, s->context,  s->embd,     s->ff,
	                           s->heads,  s->kv_heads, s->head_dim, s->rope_dims};
	uint64_t n = 2;
	bool known = s->u32_key == NULL;
	char key[96];

	put_kv_string(b, "general.architecture", s->architecture);
	snprintf(key, sizeof(key), "%s.attention.layer_norm_rms_epsilon", s->architecture);
	put_key(b, key, Q3_GGUF_F32);
	put_f32(b, 1e-6f);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
	{
		spec_put_u32(b, s, &n, ours[i], values[i]);
		known = known || strcmp(s->u32_key, ours[i]) == 0;
	}
	if (!known)
		spec_put_u32(b, s, &n, s->u32_key, s->u32_value);
	if (s->text_key != NULL)
	{
		snprintf(key, sizeof(key), "%s.%s", s->architecture, s->text_key);
		put_kv_string(b, key, s->text_value);
		n++;
	}
	return n;
}

static inline model_spec
spec_with_defaults(model_spec s)
{
	s.architecture = s.architecture == NULL ? "qwen3" : s.architecture;
	s.layers = s.layers == 0 ? 2 : s.layers;
	s.embd = s.embd == 0 ? 64 : s.embd;
	s.ff = s.ff == 0 ? 96 : s.ff;
	s.heads = s.heads == 0 ? 4 : s.heads;
	s.kv_heads = s.kv_heads == 0 ? 2 : s.kv_heads;
	s.head_dim = s.head_dim == 0 ? 16 : s.head_dim;
	s.rope_dims = s.rope_dims == 0 ? s.head_dim : s.rope_dims;
	s.context = s.context == 0 ? 256 : s.context;
	s.vocab = s.vocab == 0 ? TINY_VOCAB : s.vocab;
	return s;
}

/* Makes a temporary file and writes its name to path[]; false when that fails. */
static inline bool
model_write(char *path, size_t size, const model_spec *wanted)
{
	const model_spec s = spec_with_defaults(*wanted);
	gguf_builder keys = {0}, b = {0};
	spec_list list = {.spec = &s};
	uint64_t seed = s.seed + 1, n_keys = spec_put_keys(&keys, &s);
	int fd;
	bool ok;

	spec_list_tensors(&list);
	put_header(&b, 3, list.n, n_keys + 7);
	put_raw(&b, keys.data, keys.n);
	tiny_put_vocabulary(&b);
	for (size_t i = 0; i < list.n; i++)
		put_tensor(&b, list.items[i].name, list.items[i].type, list.items[i].cols,
		           list.items[i].rows, list.items[i].offset);
	put_padding(&b, 32);
	for (size_t i = 0; i < list.n; i++)
		spec_put_values(&b, &list.items[i], &seed);
	snprintf(path, size, "/tmp/qwen3dm-model-XXXXXX");
	fd = mkstemp(path);
	ok = fd >= 0 && write(fd, b.data, b.n) == (ssize_t) b.n;
	ok = fd >= 0 && close(fd) == 0 && ok;
	builder_free(&keys);
	builder_free(&b);
	return ok;
}

#endif
