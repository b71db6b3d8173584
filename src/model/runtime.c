/*
 * runtime.c: creating and freeing what a forward pass needs beside the weights.
 *
 * All memory is taken here, once: one mapping for the buffers of a batch and the threads' scratch,
 * one for the KV pool. Both are anonymous, so that what is never used costs nothing.
 */
#include "model/model_internal.h"
#include "model/prefix_cache.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define DEFAULT_BATCH 512
#define MAX_BATCH 65536

/* Hands out aligned pieces; with base NULL it only counts. */
typedef struct arena
{
	char *base;
	size_t used;
} arena;

static void *
take(arena *a, size_t bytes)
{
	void *p = a->base != NULL ? a->base + a->used : NULL;

	a->used += (bytes + 63) / 64 * 64;
	return p;
}

/* The padding keeps tokens apart in the cache when n is a power of two. */
static void
take_rows(arena *a, q3_rows *rows, int32_t n_rows, int32_t n)
{
	rows->stride = (size_t) n + 16;
	rows->data = take(a, (size_t) n_rows * rows->stride * sizeof(float));
	rows->row = take(a, (size_t) n_rows * sizeof(float *));
	for (int32_t i = 0; rows->data != NULL && i < n_rows; i++)
		rows->row[i] = rows->data + (size_t) i * rows->stride;
}

static void
take_input(arena *a, q3_input *in, int32_t n_rows, int32_t n)
{
	size_t values = (size_t) n_rows * (size_t) n, blocks = values / Q3_PLANE_BLOCK;

	take_rows(a, &in->rows, n_rows, n);
	in->acts.cols = n;
	in->acts.q = take(a, values);
	in->acts.scale = take(a, blocks * sizeof(float));
	in->acts.sum = take(a, blocks * sizeof(int32_t));
	in->acts.lo_sum = take(a, blocks * sizeof(int32_t));
	in->lo = take(a, values);
}

/* Called twice: to count, and to assign. */
static void
lay_out(q3_runtime *rt, arena *a)
{
	const q3_model *m = rt->model;
	const q3_model_info *info = &m->info;
	int32_t n = rt->max_batch_tokens;
	size_t matmul = q3_matmul_scratch(), attention = q3_attention_scratch(info->head_dim);

	take_rows(a, &rt->x, n, info->n_embd);
	take_input(a, &rt->h, n, info->n_embd);
	take_rows(a, &rt->q, n, info->n_heads * info->head_dim);
	take_input(a, &rt->attended, n, info->n_heads * info->head_dim);
	take_rows(a, &rt->k, n, info->n_kv_heads * info->head_dim);
	take_rows(a, &rt->v, n, info->n_kv_heads * info->head_dim);
	take_input(a, &rt->gate, n, info->n_ff);
	take_rows(a, &rt->up, n, info->n_ff);
	take_rows(a, &rt->rope_cos, n, m->rope_dims);
	take_rows(a, &rt->rope_sin, n, m->rope_dims);
	rt->tokens = take(a, (size_t) n * sizeof(*rt->tokens));
	rt->spans = take(a, (size_t) n * sizeof(*rt->spans));
	rt->parts = take(a, (size_t) n * sizeof(*rt->parts));
	rt->runs = take(a, (size_t) n * sizeof(*rt->runs));
	rt->wanted = take(a, (size_t) n * sizeof(*rt->wanted));
	rt->logits = take(a, (size_t) n * sizeof(*rt->logits));
	rt->lists = take(a, (size_t) n * sizeof(*rt->lists));
	rt->others = take(a, (size_t) n * sizeof(*rt->others));
	rt->panels = take(a, (size_t) info->n_vocab * sizeof(*rt->panels));
	rt->rope_frequency = take(a, (size_t) m->rope_dims / 2 * sizeof(double));
	rt->two_planes = take(a, (size_t) info->n_layers + 1);
	rt->scratch_stride = ((matmul > attention ? matmul : attention) + 63) / 64 * 64;
	rt->scratch = take(a, rt->scratch_stride * (size_t) q3_threads_count(rt->threads));
}

static q3_code
allocate(q3_runtime *rt, q3_error *err)
{
	arena a = {NULL, 0};
	void *memory;

	lay_out(rt, &a);
	memory = mmap(NULL, a.used, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return q3_fail(err, Q3_ERR_MEMORY, "could not map %zu bytes of working memory", a.used);
	rt->memory = memory;
	rt->memory_bytes = a.used;
	a = (arena){memory, 0};
	lay_out(rt, &a);
	return Q3_OK;
}

static void
set_rope_frequencies(q3_runtime *rt)
{
	const q3_model *m = rt->model;

	for (int32_t i = 0; i < m->rope_dims / 2; i++)
		rt->rope_frequency[i] =
		    pow(m->rope_theta, -2.0 * i / (double) m->rope_dims) / m->rope_factor;
}

/*
 * Which products mode efficient computes with activations of 16 bits, if it reads 8 bits of
 * weights: where rounding to 8 bits loses most for the work that it saves. On the demo's model (4
 * bits of weights, 60 sentences) rounding everything makes the divergence (KL) from mode precise
 * 0.0030. Each part alone: head 0.0008; v 0.0006, q and k 0.0002; of the last layer gate and up
 * 0.0005, down 0.0002; of the 29 others together 0.0003 and 0.0003. The head, and the last layer
 * behind its attention, are computed for tokens with wanted logits only, and v is 7 % of the
 * layers' work in Qwen3-0.6B: a prompt hardly costs more, and decoding is bound by reading weights.
 */
static void
choose_two_planes(q3_runtime *rt)
{
	int32_t n = rt->model->info.n_layers;

	if (rt->efficient_bits != 8)
		return;
	for (int32_t i = 0; i < n; i++)
		rt->two_planes[i] = Q3_TIMES_V;
	rt->two_planes[n - 1] |= Q3_TIMES_ATTENTION_OUTPUT | Q3_TIMES_GATE_UP | Q3_TIMES_DOWN;
	rt->two_planes[n] = Q3_TIMES_HEAD;
}

static q3_code
check_options(q3_runtime *rt, const q3_runtime_options *o, q3_error *err)
{
	int32_t trained = rt->model->info.context_length;

	rt->context_length =
	    o->context_length == 0 || o->context_length > trained ? trained : o->context_length;
	rt->max_batch_tokens = o->max_batch_tokens == 0 ? DEFAULT_BATCH : o->max_batch_tokens;
	if (rt->context_length < 1)
		return q3_fail(err, Q3_ERR_INVALID, "context length %d is less than 1", rt->context_length);
	if (rt->max_batch_tokens < 1 || rt->max_batch_tokens > MAX_BATCH)
		return q3_fail(err, Q3_ERR_INVALID, "batch of %d tokens is not between 1 and %d",
		               rt->max_batch_tokens, MAX_BATCH);
	if (o->efficient_bits != 0 && o->efficient_bits != 4 && o->efficient_bits != 8)
		return q3_fail(err, Q3_ERR_INVALID, "efficient bits are %d, not 4 or 8", o->efficient_bits);
	rt->efficient_bits = o->efficient_bits == 0 ? 8 : o->efficient_bits;
	rt->exact_weights = o->exact_weights;
	return Q3_OK;
}

/* ---- What there is to say about precision ---- */

/* Bit t of types: some matrix of type t is packed (or, second, is not). */
static void
look_at(const q3_weights *w, uint64_t types[2])
{
	types[w->planes.hi == NULL] |= (uint64_t) 1 << w->file.type;
}

static void
add_words(q3_runtime *rt, const char *words)
{
	size_t n = strlen(rt->precision);

	snprintf(rt->precision + n, sizeof(rt->precision) - n, "%s", words);
}

/* "F16, BF16" */
static void
add_types(q3_runtime *rt, uint64_t types)
{
	const char *separator = "";

	for (unsigned t = 0; t <= Q3_BF16; t++)
		if (types >> t & 1)
		{
			add_words(rt, separator);
			add_words(rt, q3_dtype_name(t));
			separator = ", ";
		}
}

/* "planes: 8 + 8 bits": how many mode efficient reads, and how many more mode precise. */
static void
add_planes(q3_runtime *rt, uint64_t types)
{
	const char *separator = "planes: ";
	char words[40];

	for (int kind = Q3_PLANES_16; kind >= Q3_PLANES_4; kind /= 2)
	{
		int high = rt->efficient_bits < kind ? rt->efficient_bits : kind;
		bool there = false;

		for (unsigned t = 0; t <= Q3_BF16; t++)
			there = there || ((types >> t & 1) && q3_planes_kind_for((q3_dtype) t) == kind);
		if (!there)
			continue;
		if (high < kind)
			snprintf(words, sizeof(words), "%s%d + %d bits", separator, high, kind - high);
		else
			snprintf(words, sizeof(words), "%s%d bits", separator, kind);
		add_words(rt, words);
		separator = ", ";
	}
	if (rt->exact_weights)
	{
		add_words(rt, "; precise reads the file's ");
		add_types(rt, types);
	}
}

static void
describe_precision(q3_runtime *rt)
{
	const q3_model *m = rt->model;
	uint64_t types[2] = {0, 0};

	look_at(&m->output, types);
	for (int32_t i = 0; i < m->info.n_layers; i++)
	{
		const q3_layer *l = &m->layers[i];

		look_at(&l->q, types);
		look_at(&l->k, types);
		look_at(&l->v, types);
		look_at(&l->attn_output, types);
		look_at(&l->gate, types);
		look_at(&l->up, types);
		look_at(&l->down, types);
	}
	if (types[0] != 0)
		add_planes(rt, types[0]);
	if (types[1] != 0)
	{
		add_words(rt, types[0] != 0 ? "; one precision: " : "one precision: ");
		add_types(rt, types[1]);
		add_words(rt, " blocks of the file");
	}
}

static q3_code
create(q3_runtime *rt, const q3_runtime_options *o, q3_error *err)
{
	const q3_model_info *info = &rt->model->info;
	const char *reason = "";
	q3_code code = check_options(rt, o, err);

	if (code != Q3_OK)
		return code;
	rt->kernels = q3_kernels_select(&reason);
	if (rt->kernels == NULL)
		return q3_fail(err, Q3_ERR_INVALID, "QWEN3DM_ISA \"%s\" %s", getenv("QWEN3DM_ISA"), reason);
	rt->threads = q3_threads_create(o->threads == 0 ? q3_threads_available() : o->threads, err);
	if (rt->threads == NULL)
		return err->code;
	code = q3_kv_pool_init(&rt->kv, info->n_layers, info->n_kv_heads, info->head_dim, o->kv_f32,
	                       rt->context_length, o->kv_bytes, err);
	if (code == Q3_OK && !o->no_prefix_cache)
	{
		rt->kv.prefixes = q3_prefixes_create(rt->kv.n_blocks);
		if (rt->kv.prefixes == NULL)
			code = q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	}
	if (code == Q3_OK)
		code = allocate(rt, err);
	if (code == Q3_OK)
	{
		set_rope_frequencies(rt);
		choose_two_planes(rt);
		describe_precision(rt);
	}
	return code;
}

q3_runtime *
q3_runtime_create(const q3_model *m, const q3_runtime_options *options, q3_error *err)
{
	const q3_runtime_options defaults = {0};
	q3_error local;
	q3_runtime *rt = calloc(1, sizeof(*rt));

	if (err == NULL)
		err = &local;
	if (rt == NULL)
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	rt->model = m;
	if (create(rt, options != NULL ? options : &defaults, err) != Q3_OK)
	{
		q3_runtime_free(rt);
		return NULL;
	}
	return rt;
}

bool
q3_runtime_warm(q3_runtime *rt, size_t *done)
{
	return q3_kv_pool_warm(&rt->kv, done);
}

void
q3_runtime_free(q3_runtime *rt)
{
	if (rt == NULL)
		return;
	q3_threads_free(rt->threads);
	q3_kv_pool_free(&rt->kv);
	if (rt->memory != NULL)
		munmap(rt->memory, rt->memory_bytes);
	free(rt);
}

void
q3_runtime_get_info(const q3_runtime *rt, q3_runtime_info *info)
{
	*info = (q3_runtime_info){
	    .isa = rt->kernels->name,
	    .precision = rt->precision,
	    .threads = q3_threads_count(rt->threads),
	    .context_length = rt->context_length,
	    .max_batch_tokens = rt->max_batch_tokens,
	    .kv_bytes = rt->kv.bytes,
	    .scratch_bytes = rt->memory_bytes,
	    .kv_block_tokens = Q3_KV_BLOCK,
	    .kv_blocks = rt->kv.n_blocks,
	    .kv_blocks_free = q3_kv_available(&rt->kv),
	};
	info->prefix_cache = rt->kv.prefixes != NULL;
	if (rt->kv.prefixes != NULL)
		q3_prefixes_count(rt->kv.prefixes, info);
}

q3_seq *
q3_seq_create(q3_runtime *rt)
{
	return q3_kv_seq_create(&rt->kv);
}

void
q3_runtime_unpin(q3_runtime *rt)
{
	if (rt->kv.prefixes != NULL)
		q3_prefixes_unpin(&rt->kv);
}

/* A piece of work that the runtime's owner shares out. */
typedef struct shared_work
{
	void (*fn)(void *arg, int32_t i);
	void *arg;
} shared_work;

static void
shared_chunk(void *arg, int32_t chunk, int32_t thread)
{
	const shared_work *w = arg;

	(void) thread;
	w->fn(w->arg, chunk);
}

void
q3_runtime_share(q3_runtime *rt, void (*fn)(void *arg, int32_t i), void *arg, int32_t n)
{
	shared_work w = {fn, arg};

	q3_threads_run(rt->threads, shared_chunk, &w, n, NULL);
}
