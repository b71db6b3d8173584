/*
 * bind.c: from a GGUF file to the structs that the forward pass uses.
 *
 * Every number that the file gives is bounded before anything is allocated from it, every tensor's
 * shape is checked once here, and every tensor of the file must have found its place: one that we
 * do not know would change the results if it were computed with, so leaving it out would be a
 * silent error. Runs on the loading thread; what it allocates belongs to the q3_model.
 */
#include "model/model_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAYERS 1024
#define MAX_WIDTH (1 << 20) /* of any layer */
#define MAX_CONTEXT (1 << 24)

typedef struct binder
{
	q3_model *m;
	q3_error *err;
	const q3_tensor **bound; /* tensors that have found their place */
	size_t n_bound;
} binder;

/* ---- Hyper-parameters ---- */

/* "qwen3.block_count" */
static const char *
key_of(const q3_model *m, const char *name, char key[128])
{
	snprintf(key, 128, "%s.%s", m->info.architecture, name);
	return key;
}

/* A whole number in [low, high]; when the key is absent, other, unless that is negative. */
static bool
get_int(binder *b, const char *name, int64_t low, int64_t high, int64_t other, int32_t *value)
{
	char key[128];
	uint64_t v;

	if (q3_gguf_get_u64(b->m->gguf, key_of(b->m, name, key), &v))
	{
		if (v < (uint64_t) low || v > (uint64_t) high)
			return q3_fail(b->err, Q3_ERR_UNSUPPORTED,
			               "model is not supported: %s is %" PRIu64 ", not between %" PRId64
			               " and %" PRId64,
			               key, v, low, high) == Q3_OK;
		*value = (int32_t) v;
		return true;
	}
	if (other < 0)
		return q3_fail(b->err, Q3_ERR_FORMAT, "model has no whole number %s", key) == Q3_OK;
	*value = (int32_t) other;
	return true;
}

/* Of any type; false when the key is absent. */
static bool
get_number(const q3_model *m, const char *key, double *value)
{
	uint64_t whole;

	if (!q3_gguf_get_u64(m->gguf, key, &whole))
		return q3_gguf_get_f64(m->gguf, key, value);
	*value = (double) whole;
	return true;
}

static bool unsupported(binder *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static bool
unsupported(binder *b, const char *fmt, ...)
{
	char what[200];
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	q3_fail(b->err, Q3_ERR_UNSUPPORTED, "model is not supported: %s", what);
	return false;
}

static bool
get_architecture(binder *b)
{
	static const char *const known[] = {"qwen3", "qwen2", "llama"};
	q3_str name;

	if (!q3_gguf_get_str(b->m->gguf, "general.architecture", &name))
		return q3_fail(b->err, Q3_ERR_FORMAT, "model has no general.architecture") == Q3_OK;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (name.len == strlen(known[i]) && memcmp(name.data, known[i], name.len) == 0)
		{
			b->m->info.architecture = known[i];
			return true;
		}
	for (size_t i = 0; i < name.len; i++)
		if (name.data[i] < ' ' || name.data[i] > '~')
			return unsupported(b, "its architecture is unknown");
	unsupported(b, "its architecture is \"%.*s\"", name.len < 60 ? (int) name.len : 60, name.data);
	q3_error_detail(b->err, "The supported architectures are qwen3, qwen2 and llama.");
	return false;
}

/* Features that change the arithmetic and that we do not have. */
static bool
check_features(binder *b)
{
	static const char *const numbers[] = {"expert_count",
	                                      "attention.max_alibi_bias",
	                                      "attention.clamp_kqv",
	                                      "attention.scale",
	                                      "attention.output_scale",
	                                      "attn_logit_softcapping",
	                                      "final_logit_softcapping",
	                                      "logit_scale",
	                                      "residual_scale",
	                                      "embedding_scale",
	                                      "attention.shared_kv_layers"};
	const q3_model *m = b->m;
	char key[128];
	double value;
	bool flag;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (get_number(m, key_of(m, numbers[i], key), &value) && value != 0)
			return unsupported(b, "it uses %s", key);
	if (get_number(m, key_of(m, "attention.sliding_window", key), &value) && value > 0 &&
	    value < m->info.context_length)
		return unsupported(b, "it uses %s", key);
	if (q3_gguf_get_bool(m->gguf, key_of(m, "attention.causal", key), &flag) && !flag)
		return unsupported(b, "its attention is not causal");
	if (q3_gguf_get_bool(m->gguf, key_of(m, "use_parallel_residual", key), &flag) && flag)
		return unsupported(b, "it uses %s", key);
	if (q3_gguf_find_tensor(m->gguf, "rope_freqs.weight") != NULL)
		return unsupported(b, "it scales rotary frequencies (tensor \"rope_freqs.weight\")");
	return true;
}

static bool
get_rope(binder *b)
{
	q3_model *m = b->m;
	char key[128];
	q3_str type;

	m->rope_theta = 10000;
	m->rope_factor = 1;
	m->rope_interleaved = strcmp(m->info.architecture, "llama") == 0;
	if (!get_int(b, "rope.dimension_count", 2, m->info.head_dim, m->info.head_dim, &m->rope_dims))
		return false;
	if (m->rope_dims % 2 != 0)
		return unsupported(b, "it rotates an odd number of dimensions (%d)", m->rope_dims);
	get_number(m, key_of(m, "rope.freq_base", key), &m->rope_theta);
	if (!(m->rope_theta >= 1 && m->rope_theta <= 1e15))
		return unsupported(b, "%s is %g", key, m->rope_theta);
	/* The first is how old files say it. */
	get_number(m, key_of(m, "rope.scale_linear", key), &m->rope_factor);
	if (q3_gguf_get_str(m->gguf, key_of(m, "rope.scaling.type", key), &type) &&
	    !(type.len == 4 && memcmp(type.data, "none", 4) == 0))
	{
		if (!(type.len == 6 && memcmp(type.data, "linear", 6) == 0))
			return unsupported(b, "%s is neither \"none\" nor \"linear\"", key);
		get_number(m, key_of(m, "rope.scaling.factor", key), &m->rope_factor);
	}
	if (!(m->rope_factor >= 1e-3 && m->rope_factor <= 1e6))
		return unsupported(b, "its linear rope scaling has factor %g", m->rope_factor);
	return true;
}

static bool
get_numbers(binder *b)
{
	q3_model *m = b->m;
	q3_model_info *info = &m->info;
	int32_t value_dim, n_expected;
	char key[128];
	double eps;

	if (!get_int(b, "block_count", 1, MAX_LAYERS, -1, &info->n_layers) ||
	    !get_int(b, "embedding_length", 1, MAX_WIDTH, -1, &info->n_embd) ||
	    !get_int(b, "feed_forward_length", 1, MAX_WIDTH, -1, &info->n_ff) ||
	    !get_int(b, "context_length", 1, MAX_CONTEXT, -1, &info->context_length) ||
	    !get_int(b, "attention.head_count", 1, MAX_WIDTH, -1, &info->n_heads) ||
	    !get_int(b, "attention.head_count_kv", 1, MAX_WIDTH, info->n_heads, &info->n_kv_heads))
		return false;
	if (info->n_heads % info->n_kv_heads != 0 ||
	    info->n_heads / info->n_kv_heads > Q3_ATTENTION_QUERIES)
		return unsupported(b, "it has %d heads for %d K/V heads", info->n_heads, info->n_kv_heads);
	if (!get_int(b, "attention.key_length", 1, Q3_MAX_HEAD_DIM, info->n_embd / info->n_heads,
	             &info->head_dim) ||
	    !get_int(b, "attention.value_length", 1, Q3_MAX_HEAD_DIM, info->head_dim, &value_dim))
		return false;
	if (info->head_dim != value_dim)
		return unsupported(b, "its keys have %d dimensions and its values %d", info->head_dim,
		                   value_dim);
	if (info->head_dim < 1 || info->head_dim > Q3_MAX_HEAD_DIM ||
	    info->head_dim % Q3_HEAD_MULTIPLE != 0)
		return unsupported(b, "its heads have %d dimensions, not a multiple of %d up to %d",
		                   info->head_dim, Q3_HEAD_MULTIPLE, Q3_MAX_HEAD_DIM);
	if (info->n_heads > MAX_WIDTH / info->head_dim)
		return unsupported(b, "it has %d heads", info->n_heads);
	if (info->n_embd % Q3_COLS_MULTIPLE != 0 || info->n_ff % Q3_COLS_MULTIPLE != 0 ||
	    info->n_heads * info->head_dim % Q3_COLS_MULTIPLE != 0)
		return unsupported(b, "its widths (%d, %d, %d) are not multiples of %d", info->n_embd,
		                   info->n_ff, info->n_heads * info->head_dim, Q3_COLS_MULTIPLE);
	if (!get_number(m, key_of(m, "attention.layer_norm_rms_epsilon", key), &eps))
		return q3_fail(b->err, Q3_ERR_FORMAT, "model has no number %s", key) == Q3_OK;
	if (!(eps >= 0 && eps <= 1))
		return unsupported(b, "%s is %g", key, eps);
	m->rms_eps = (float) eps;
	/* A promise about the number of layers that the tensors do not keep need not be looked into. */
	n_expected = 9 * info->n_layers + 2;
	if ((size_t) n_expected > q3_gguf_n_tensors(m->gguf))
		return q3_fail(b->err, Q3_ERR_FORMAT,
		               "model of %d layers needs at least %d tensors, but has %zu", info->n_layers,
		               n_expected, q3_gguf_n_tensors(m->gguf)) == Q3_OK;
	return get_rope(b) && check_features(b);
}

/* ---- Tensors ---- */

/* NULL with b->err filled when a tensor is missing (unless optional) or has another shape. */
static const q3_tensor *
find(binder *b, const char *name, int64_t rows, int64_t cols, bool optional, bool *ok)
{
	const q3_tensor *t = q3_gguf_find_tensor(b->m->gguf, name);
	uint64_t dims[4] = {1, 1, 1, 1};

	*ok = t != NULL || optional;
	if (t == NULL)
	{
		if (!optional)
			q3_fail(b->err, Q3_ERR_FORMAT, "model has no tensor \"%s\"", name);
		return NULL;
	}
	for (int i = 0; i < t->n_dims; i++)
		dims[i] = t->dims[i];
	if (dims[0] != (uint64_t) cols || (rows >= 0 && dims[1] != (uint64_t) rows) || dims[2] != 1 ||
	    dims[3] != 1)
	{
		*ok = false;
		q3_fail(b->err, Q3_ERR_FORMAT,
		        "tensor \"%s\" has the shape [%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "]",
		        name, dims[0], dims[1], dims[2], dims[3]);
		if (rows >= 0)
			q3_error_detail(b->err, "The model's other numbers make it [%" PRId64 ", %" PRId64 "].",
			                cols, rows);
		return NULL;
	}
	b->bound[b->n_bound++] = t;
	return t;
}

static bool
bind_matrix(binder *b, const char *name, int64_t rows, int64_t cols, bool optional, q3_matrix *out)
{
	bool ok;
	const q3_tensor *t = find(b, name, rows, cols, optional, &ok);

	if (t == NULL)
		return ok;
	if (t->n_dims < 2 || t->dims[1] > INT32_MAX)
		return unsupported(b, "tensor \"%s\" has %" PRIu64 " rows", name,
		                   t->n_dims < 2 ? 1 : t->dims[1]);
	*out = (q3_matrix){.data = t->data,
	                   .type = t->type,
	                   .rows = (int32_t) t->dims[1],
	                   .cols = (int32_t) cols,
	                   .row_bytes = q3_dtype_row_bytes(t->type, (uint64_t) cols)};
	return true;
}

/* Copies a vector to the model's memory as F32. */
static bool
bind_vector(binder *b, const char *name, int64_t n, bool optional, const float **out)
{
	q3_model *m = b->m;
	bool ok;
	const q3_tensor *t = find(b, name, 1, n, optional, &ok);

	if (t == NULL)
		return ok;
	if ((uint64_t) n % q3_dtype_block(t->type) != 0 || m->max_vectors - m->n_vectors < (size_t) n)
		return q3_fail(b->err, Q3_ERR_INTERNAL, "no room for tensor \"%s\"", name) == Q3_OK;
	q3_kernels_get("scalar")->dequantize(t->type, t->data, (int32_t) n, m->vectors + m->n_vectors);
	*out = m->vectors + m->n_vectors;
	m->n_vectors += (size_t) n;
	return true;
}

static bool
bind_layer(binder *b, int32_t index, q3_layer *l)
{
	const q3_model_info *info = &b->m->info;
	const int64_t n = info->n_embd, q = (int64_t) info->n_heads * info->head_dim;
	const int64_t kv = (int64_t) info->n_kv_heads * info->head_dim;
	const bool qwen2 = strcmp(info->architecture, "qwen2") == 0;
	const bool qwen3 = strcmp(info->architecture, "qwen3") == 0;
	char name[64];

#define NAME(suffix) (snprintf(name, sizeof(name), "blk.%d." suffix, index), name)
	return bind_vector(b, NAME("attn_norm.weight"), n, false, &l->attn_norm) &&
	       bind_matrix(b, NAME("attn_q.weight"), q, n, false, &l->q.file) &&
	       bind_matrix(b, NAME("attn_k.weight"), kv, n, false, &l->k.file) &&
	       bind_matrix(b, NAME("attn_v.weight"), kv, n, false, &l->v.file) &&
	       bind_vector(b, NAME("attn_q.bias"), q, !qwen2, &l->q_bias) &&
	       bind_vector(b, NAME("attn_k.bias"), kv, !qwen2, &l->k_bias) &&
	       bind_vector(b, NAME("attn_v.bias"), kv, !qwen2, &l->v_bias) &&
	       bind_vector(b, NAME("attn_q_norm.weight"), info->head_dim, !qwen3, &l->q_norm) &&
	       bind_vector(b, NAME("attn_k_norm.weight"), info->head_dim, !qwen3, &l->k_norm) &&
	       bind_matrix(b, NAME("attn_output.weight"), n, q, false, &l->attn_output.file) &&
	       bind_vector(b, NAME("ffn_norm.weight"), n, false, &l->ffn_norm) &&
	       bind_matrix(b, NAME("ffn_gate.weight"), info->n_ff, n, false, &l->gate.file) &&
	       bind_matrix(b, NAME("ffn_up.weight"), info->n_ff, n, false, &l->up.file) &&
	       bind_matrix(b, NAME("ffn_down.weight"), n, info->n_ff, false, &l->down.file);
#undef NAME
}

static bool
bind_embedding(binder *b)
{
	q3_model *m = b->m;
	q3_model_info *info = &m->info;
	int32_t n_tokens = q3_tokenizer_n_vocab(m->tokenizer);

	if (!bind_matrix(b, "token_embd.weight", -1, info->n_embd, false, &m->embedding))
		return false;
	if (m->embedding.rows < n_tokens)
		return q3_fail(b->err, Q3_ERR_FORMAT,
		               "vocabulary has %d tokens, but the embedding only %d rows", n_tokens,
		               m->embedding.rows) == Q3_OK;
	info->n_vocab = m->embedding.rows;
	if (!bind_vector(b, "output_norm.weight", info->n_embd, false, &m->output_norm) ||
	    !bind_matrix(b, "output.weight", info->n_vocab, info->n_embd, true, &m->output.file))
		return false;
	info->tied = m->output.file.data == NULL;
	if (info->tied)
		m->output.file = m->embedding;
	return true;
}

/* Of n_bound + 1 tensors at least one has no place, if there are so many. */
static bool
check_all_bound(binder *b)
{
	for (size_t i = 0; i < q3_gguf_n_tensors(b->m->gguf) && i <= b->n_bound; i++)
	{
		const q3_tensor *t = q3_gguf_tensor(b->m->gguf, i);
		size_t j = 0;

		while (j < b->n_bound && b->bound[j] != t)
			j++;
		if (j == b->n_bound)
			return unsupported(b, "%s models have no tensor \"%.*s\"", b->m->info.architecture,
			                   t->name.len < 80 ? (int) t->name.len : 80, t->name.data);
	}
	return true;
}

static bool
bind_tensors(binder *b)
{
	q3_model *m = b->m;

	if (!bind_embedding(b))
		return false;
	for (int32_t i = 0; i < m->info.n_layers; i++)
		if (!bind_layer(b, i, &m->layers[i]))
			return false;
	return check_all_bound(b);
}

/* ---- What there is to say about it ---- */

static void
summarize(q3_model *m)
{
	uint64_t bytes[Q3_BF16 + 1] = {0};
	unsigned most = 0;

	for (size_t i = 0; i < q3_gguf_n_tensors(m->gguf); i++)
	{
		const q3_tensor *t = q3_gguf_tensor(m->gguf, i);
		uint64_t n = 1;

		for (int d = 0; d < t->n_dims; d++)
			n *= t->dims[d];
		m->info.n_params += n;
		m->info.weight_bytes += t->n_bytes;
		bytes[t->type] += t->n_bytes;
	}
	for (unsigned type = 0; type <= Q3_BF16; type++)
		if (bytes[type] > bytes[most])
			most = type;
	m->info.weight_type = q3_dtype_name(most);
}

/* Memory for the layers and for every vector that they can have. */
static bool
allocate(binder *b)
{
	q3_model *m = b->m;
	const q3_model_info *info = &m->info;
	size_t layers = (size_t) info->n_layers, head = (size_t) info->head_dim;
	size_t q = (size_t) info->n_heads * head, kv = (size_t) info->n_kv_heads * head;

	m->max_vectors = (2 * layers + 1) * (size_t) info->n_embd + layers * (q + 2 * kv + 2 * head);
	/* No vector is longer than the matrices beside it, all of which must be in the file. */
	if (m->max_vectors > info->file_bytes)
		return q3_fail(b->err, Q3_ERR_FORMAT,
		               "model's numbers describe more weights than its file holds") == Q3_OK;
	m->vectors = malloc(m->max_vectors * sizeof(float));
	m->layers = calloc(layers, sizeof(q3_layer));
	b->bound = malloc((14 * layers + 3) * sizeof(*b->bound));
	if (m->vectors != NULL && m->layers != NULL && b->bound != NULL)
		return true;
	return q3_fail(b->err, Q3_ERR_MEMORY, "out of memory") == Q3_OK;
}

q3_code
q3_model_read_numbers(q3_model *m, q3_error *err)
{
	binder b = {.m = m, .err = err};

	return get_architecture(&b) && get_numbers(&b) ? Q3_OK : err->code;
}

q3_code
q3_model_bind(q3_model *m, q3_error *err)
{
	binder b = {.m = m, .err = err};
	bool ok = allocate(&b) && bind_tensors(&b);

	free(b.bound);
	if (!ok)
		return err->code;
	summarize(m);
	return Q3_OK;
}
