/*
 * test_kernels.c: every kernel of every instruction set that this machine can run.
 *
 * Three kinds of check: against plain double-precision arithmetic written here, within a tolerance;
 * exact bits where the kernels promise them (dequantisation, and that a result does not depend on
 * what else is in the call); and dequantisation against blocks that gguf's own code unpacked.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dequant_golden.h"
#include "kernels.h"

static const q3_dtype types[] = {Q3_F32,  Q3_F16,  Q3_BF16, Q3_Q4_0, Q3_Q4_1, Q3_Q5_0,
                                 Q3_Q5_1, Q3_Q8_0, Q3_Q4_K, Q3_Q5_K, Q3_Q6_K};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

static uint64_t random_state;

static uint32_t
random_u32(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (random_state >> 32);
}

/* Uniform in [-1, 1). */
static float
random_float(void)
{
	return (float) ((double) random_u32() / 2147483648.0 - 1.0);
}

static float *
random_floats(size_t n)
{
	float *x = test_malloc(n * sizeof(float));

	for (size_t i = 0; i < n; i++)
		x[i] = random_float();
	return x;
}

static void *
scratch(size_t bytes)
{
	void *p = NULL;

	assert_int_equal(posix_memalign(&p, 64, bytes), 0);
	return p;
}

/* The i-th table that this machine can run, NULL behind the last. */
static const q3_kernels *
runnable(int i)
{
	for (int j = 0; q3_kernels_name(j) != NULL; j++)
	{
		const q3_kernels *k = q3_kernels_get(q3_kernels_name(j));

		if (k != NULL && i-- == 0)
			return k;
	}
	return NULL;
}

/* Random blocks whose scales are finite and of either sign, subnormal ones among them. */
static uint8_t *
random_weights(q3_dtype type, size_t n)
{
	size_t block = q3_dtype_block_bytes(type), bytes = n / q3_dtype_block(type) * block;
	uint8_t *data = test_malloc(bytes);

	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t) random_u32();
	for (size_t i = 0; i < bytes; i += block)
	{
		float f = random_float();

		switch (type)
		{
			case Q3_F32:
				memcpy(data + i, &f, sizeof(f));
				break;
			case Q3_BF16:
				memcpy(data + i, (char *) &f + 2, 2);
				break;
			case Q3_Q6_K:
				data[i + 209] = (uint8_t) (random_u32() & 0xa3);
				break;
			default:
				/* Exponents of a half: 0 to 8 of 31; d, and m where there is one. */
				data[i + 1] = (uint8_t) (random_u32() & 0xa3);
				if (block > 4 && type != Q3_Q4_0 && type != Q3_Q5_0 && type != Q3_Q8_0)
					data[i + 3] = (uint8_t) (random_u32() & 0xa3);
		}
	}
	return data;
}

/* ---- Dequantisation ---- */

static void
check_golden(q3_dtype type, const uint8_t *bytes, size_t n_bytes, const uint32_t *weights, size_t n)
{
	const q3_kernels *k;

	assert_int_equal(q3_dtype_row_bytes(type, n), n_bytes);
	for (int i = 0; (k = runnable(i)) != NULL; i++)
	{
		float out[256];

		k->dequantize(type, bytes, (int32_t) n, out);
		assert_memory_equal(out, weights, n * sizeof(float));
	}
}

static void
test_golden_blocks(void **state)
{
	(void) state;
#define GOLDEN(type, name)                                                                         \
	check_golden(type, golden_##name##_bytes, sizeof(golden_##name##_bytes),                       \
	             golden_##name##_weights, sizeof(golden_##name##_weights) / sizeof(uint32_t))
	GOLDEN(Q3_F16, f16);
	GOLDEN(Q3_BF16, bf16);
	GOLDEN(Q3_Q4_0, q4_0);
	GOLDEN(Q3_Q4_1, q4_1);
	GOLDEN(Q3_Q5_0, q5_0);
	GOLDEN(Q3_Q5_1, q5_1);
	GOLDEN(Q3_Q8_0, q8_0);
	GOLDEN(Q3_Q4_K, q4_k);
	GOLDEN(Q3_Q5_K, q5_k);
	GOLDEN(Q3_Q6_K, q6_k);
#undef GOLDEN
}

static void
test_dequantize_same_bits(void **state)
{
	const q3_kernels *scalar = q3_kernels_get("scalar"), *k;
	enum
	{
		N = 256 * 40
	};
	float *expected = test_malloc(N * sizeof(float)), *out = test_malloc(N * sizeof(float));

	(void) state;
	for (size_t t = 0; t < N_TYPES; t++)
	{
		uint8_t *w = random_weights(types[t], N);

		scalar->dequantize(types[t], w, N, expected);
		for (int i = 0; (k = runnable(i)) != NULL; i++)
		{
			memset(out, 0xff, N * sizeof(float));
			k->dequantize(types[t], w, N, out);
			assert_memory_equal(out, expected, N * sizeof(float));
		}
		test_free(w);
	}
	test_free(expected);
	test_free(out);
}

/* ---- Matrix product ---- */

typedef struct product
{
	q3_matrix w;
	float *x, *y, **rows;
	size_t ldx;
	int32_t n_tokens;
	void *scratch;
} product;

static void
product_init(product *p, q3_dtype type, int32_t rows, int32_t cols, int32_t n_tokens)
{
	*p = (product){.w = {.type = type, .rows = rows, .cols = cols}, .n_tokens = n_tokens};
	p->w.row_bytes = q3_dtype_row_bytes(type, (uint64_t) cols);
	p->w.data = random_weights(type, (size_t) rows * (size_t) cols);
	p->ldx = (size_t) cols + 16;
	p->x = random_floats((size_t) n_tokens * p->ldx);
	p->y = test_malloc((size_t) n_tokens * (size_t) rows * sizeof(float));
	p->rows = test_malloc((size_t) n_tokens * sizeof(float *));
	for (int32_t t = 0; t < n_tokens; t++)
		p->rows[t] = p->y + (size_t) t * (size_t) rows;
	p->scratch = scratch(q3_matmul_scratch());
}

static void
product_free(product *p)
{
	test_free((void *) p->w.data);
	test_free(p->x);
	test_free(p->y);
	test_free(p->rows);
	free(p->scratch);
}

/* Every output against a sum in double precision, relative to the sum of magnitudes. */
static void
check_product(const product *p)
{
	float *row = test_malloc((size_t) p->w.cols * sizeof(float));

	for (int32_t r = 0; r < p->w.rows; r++)
	{
		q3_kernels_get("scalar")->dequantize(
		    p->w.type, (const char *) p->w.data + (size_t) r * p->w.row_bytes, p->w.cols, row);
		for (int32_t t = 0; t < p->n_tokens; t++)
		{
			double sum = 0, magnitude = 1e-30;

			for (int32_t k = 0; k < p->w.cols; k++)
			{
				double term = (double) row[k] * (double) p->x[(size_t) t * p->ldx + (size_t) k];

				sum += term;
				magnitude += fabs(term);
			}
			assert_true(fabs(p->rows[t][r] - sum) <= 4e-6 * magnitude);
		}
	}
	test_free(row);
}

/* The same product token by token and in uneven ranges of rows. */
static void
check_product_in_parts(const q3_kernels *k, product *p)
{
	size_t bytes = (size_t) p->n_tokens * (size_t) p->w.rows * sizeof(float);
	float *whole = test_malloc(bytes);

	memcpy(whole, p->y, bytes);
	memset(p->y, 0xff, bytes);
	for (int32_t t = 0; t < p->n_tokens; t++)
		for (int32_t r = 0, n; r < p->w.rows; r += n)
		{
			n = 1 + (int32_t) (random_u32() % 19);
			n = n < p->w.rows - r ? n : p->w.rows - r;
			k->matmul(&p->w, r, r + n, p->x + (size_t) t * p->ldx, p->ldx, 1, p->rows + t,
			          p->scratch);
		}
	assert_memory_equal(p->y, whole, bytes);
	memset(p->y, 0xff, bytes);
	for (int32_t t = 0, n; t < p->n_tokens; t += n)
	{
		n = 1 + (int32_t) (random_u32() % 9);
		n = n < p->n_tokens - t ? n : p->n_tokens - t;
		k->matmul(&p->w, 0, p->w.rows, p->x + (size_t) t * p->ldx, p->ldx, n, p->rows + t,
		          p->scratch);
	}
	assert_memory_equal(p->y, whole, bytes);
	test_free(whole);
}

static void
test_matmul(void **state)
{
	/* rows, columns, tokens: remainders of every tile, several slices, several blocks of tokens. */
	static const int32_t shapes[][3] = {{1, 32, 1},   {7, 64, 2},     {8, 96, 3},
	                                    {13, 256, 5}, {40, 768, 6},   {33, 1024, 4},
	                                    {9, 2304, 7}, {12, 256, 200}, {3, 1792, 197}};
	const q3_kernels *k;

	(void) state;
	random_state = 3;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
		for (size_t t = 0; t < N_TYPES; t++)
			for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
			{
				product p;

				if (q3_dtype_row_bytes(types[t], (uint64_t) shapes[s][1]) == 0)
					continue;
				product_init(&p, types[t], shapes[s][0], shapes[s][1], shapes[s][2]);
				k->matmul(&p.w, 0, p.w.rows, p.x, p.ldx, p.n_tokens, p.rows, p.scratch);
				check_product(&p);
				check_product_in_parts(k, &p);
				product_free(&p);
			}
}

/* Nothing is written outside the range of rows, and nothing is read behind the matrix. */
static void
test_matmul_bounds(void **state)
{
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
		for (int32_t n_tokens = 1; n_tokens <= 4; n_tokens += 3)
		{
			product p;

			product_init(&p, Q3_Q4_1, 11, 64, n_tokens);
			for (size_t j = 0; j < (size_t) n_tokens * 11; j++)
				p.y[j] = 12345;
			k->matmul(&p.w, 3, 8, p.x, p.ldx, n_tokens, p.rows, p.scratch);
			for (int32_t t = 0; t < n_tokens; t++)
				for (int32_t r = 0; r < 11; r++)
					assert_int_equal(p.rows[t][r] == 12345, r < 3 || r >= 8);
			product_free(&p);
		}
}

/* ---- Norms, activations, rotation ---- */

static void
test_rms_norm_and_add(void **state)
{
	static const int32_t lengths[] = {16, 48, 64, 576, 4096};
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
		for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++)
		{
			size_t n = (size_t) lengths[l];
			float *x = random_floats(n), *w = random_floats(n), *out = test_malloc(n * 4);
			double mean = 0;

			for (size_t j = 0; j < n; j++)
				mean += (double) x[j] * x[j] / (double) n;
			k->rms_norm(x, w, (int32_t) n, 1e-5f, out);
			for (size_t j = 0; j < n; j++)
				assert_true(fabs(out[j] - x[j] / sqrt(mean + 1e-5) * w[j]) <=
				            2e-6 * fabs((double) w[j]) + 1e-9);
			k->rms_norm(x, w, (int32_t) n, 1e-5f, x);
			assert_memory_equal(x, out, n * sizeof(float));
			k->add(x, w, (int32_t) n);
			for (size_t j = 0; j < n; j++)
				assert_true(x[j] == out[j] + w[j]);
			test_free(x);
			test_free(w);
			test_free(out);
		}
}

static void
test_swiglu(void **state)
{
	enum
	{
		N = 4096
	};
	float *gate = test_malloc(N * sizeof(float)), *up = random_floats(N);
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
	{
		float extreme[16] = {0,    -0.0f, 1e-30f, -1e-30f,  100,      -100, 1e30f, -1e30f,
		                     88.5, -88.5, 104,    -103.97f, INFINITY, -87,  -90,   20};
		float ones[16];

		for (int j = 0; j < N; j++)
			gate[j] = (float) (j - N / 2) * (100.0f / (N / 2));
		k->swiglu(gate, up, N);
		for (int j = 0; j < N; j++)
		{
			double g = (float) (j - N / 2) * (100.0f / (N / 2));
			double expected = g / (1 + exp(-g)) * up[j];

			/* Below -88 the exponential is infinite and the result zero. */
			assert_true(fabs(gate[j] - expected) <= 4e-7 * fabs(expected) + 1e-36);
		}
		for (int j = 0; j < 16; j++)
			ones[j] = 1;
		k->swiglu(extreme, ones, 16);
		assert_true(extreme[0] == 0 && extreme[1] == 0 && extreme[4] == 100 && extreme[5] <= 0);
		assert_true(extreme[5] > -1e-36 && extreme[6] == 1e30f && extreme[7] == 0);
		assert_true(isinf(extreme[12]) && extreme[12] > 0);
		extreme[0] = NAN;
		k->swiglu(extreme, ones, 16);
		assert_true(isnan(extreme[0]));
	}
	test_free(gate);
	test_free(up);
}

static void
test_rope(void **state)
{
	static const int32_t dims[] = {2, 4, 6, 16, 32, 48, 64, 80, 128};
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
		for (size_t d = 0; d < 2 * sizeof(dims) / sizeof(dims[0]); d++)
		{
			int32_t n = dims[d / 2], half = n / 2;
			bool interleaved = d % 2 == 1;
			float *x = random_floats(144), *c = random_floats(128), *s = random_floats(128);
			float before[144];

			memcpy(before, x, sizeof(before));
			k->rope(x, c, s, n, interleaved);
			for (int32_t j = 0; j < n; j++)
			{
				int32_t pair = interleaved ? j ^ 1 : (j + half) % n;
				double expected = (double) before[j] * c[j] + (double) before[pair] * s[j];

				assert_true(fabs(x[j] - expected) <= 3e-7);
			}
			assert_memory_equal(x + n, before + n, (size_t) (144 - n) * sizeof(float));
			test_free(x);
			test_free(c);
			test_free(s);
		}
}

/* ---- Attention ---- */

/* A sequence of n tokens in a shuffled pool, with what was put in. */
typedef struct cache
{
	q3_kv_view view;
	int32_t *blocks;
	int32_t n;
	float *k, *v; /* [n][head_dim] */
} cache;

static void
cache_init(cache *c, const q3_kernels *kernels, int32_t n, int32_t head_dim, bool f32)
{
	int32_t n_blocks = (n + Q3_KV_BLOCK - 1) / Q3_KV_BLOCK;
	size_t head_bytes = (size_t) head_dim * Q3_KV_BLOCK * 2 * (f32 ? 4 : 2);
	char *base;

	c->n = n;
	c->k = random_floats((size_t) n * (size_t) head_dim);
	c->v = random_floats((size_t) n * (size_t) head_dim);
	c->blocks = test_malloc((size_t) n_blocks * sizeof(int32_t));
	for (int32_t i = 0; i < n_blocks; i++)
		c->blocks[i] = n_blocks - 1 - i;
	/* The second of three heads; what is not written stays NaN, and must not be looked at. */
	base = scratch((size_t) n_blocks * 3 * head_bytes);
	memset(base, 0xff, (size_t) n_blocks * 3 * head_bytes);
	c->view = (q3_kv_view){base, c->blocks, 3 * head_bytes, head_bytes, head_dim, f32};
	for (int32_t i = 0; i < n; i++)
		kernels->kv_store(&c->view, i, c->k + (size_t) i * (size_t) head_dim,
		                  c->v + (size_t) i * (size_t) head_dim);
}

static void
cache_free(cache *c)
{
	free(c->view.base);
	test_free(c->blocks);
	test_free(c->k);
	test_free(c->v);
}

/* Query against keys 0 ... pos in double precision. */
static void
check_attention(const cache *c, int32_t pos, const float *q, const float *out)
{
	int32_t n = c->view.head_dim;
	double *weights = test_malloc((size_t) (pos + 1) * sizeof(double));
	double max = -INFINITY, sum = 0;

	for (int32_t t = 0; t <= pos; t++)
	{
		weights[t] = 0;
		for (int32_t d = 0; d < n; d++)
			weights[t] += (double) q[d] * c->k[t * n + d] / sqrt(n);
		max = weights[t] > max ? weights[t] : max;
	}
	for (int32_t t = 0; t <= pos; t++)
		sum += weights[t] = exp(weights[t] - max);
	for (int32_t d = 0; d < n; d++)
	{
		double expected = 0;

		for (int32_t t = 0; t <= pos; t++)
			expected += weights[t] / sum * c->v[t * n + d];
		/* Keys and values are below 1, queries below 4: F16 changes scores by a few 1e-3. */
		assert_true(fabs(out[d] - expected) <= (c->view.f32 ? 3e-6 : 5e-3));
	}
	test_free(weights);
}

/* Consecutive tokens of one sequence. */
static void
attend_one(const q3_kernels *k, const q3_kv_view *view, int32_t pos, int32_t n, int32_t group,
           const float *q, float *out, size_t ld, void *memory)
{
	const q3_attention_part part = {view->blocks, pos, n};

	k->attention(view, &part, 1, 0, group, q, ld, out, ld, memory);
}

static void
check_attention_of(const q3_kernels *k, int32_t n, int32_t head_dim, int32_t group, bool f32)
{
	size_t ldq = (size_t) (group * head_dim + 16), size = (size_t) n * ldq;
	float *q = random_floats(size), *whole = test_malloc(size * sizeof(float));
	float *parts = test_malloc(size * sizeof(float));
	void *memory = scratch(q3_attention_scratch(head_dim));
	int32_t most = Q3_ATTENTION_QUERIES / group;
	cache c;

	cache_init(&c, k, n, head_dim, f32);
	memset(whole, 0, size * sizeof(float));
	memset(parts, 0, size * sizeof(float));
	for (size_t i = 0; i < size; i++)
		q[i] *= 4;
	for (int32_t t = 0; t < n; t += most)
		attend_one(k, &c.view, t, n - t < most ? n - t : most, group, q + (size_t) t * ldq,
		           whole + (size_t) t * ldq, ldq, memory);
	for (int32_t t = 0; t < n; t++)
		for (int32_t h = 0; h < group; h++)
			check_attention(&c, t, q + (size_t) t * ldq + h * head_dim,
			                whole + (size_t) t * ldq + h * head_dim);
	for (int32_t t = 0, m; t < n; t += m)
	{
		m = random_u32() % 2 == 0 ? 1 : 1 + (int32_t) (random_u32() % (uint32_t) most);
		m = m < n - t ? m : n - t;
		attend_one(k, &c.view, t, m, group, q + (size_t) t * ldq, parts + (size_t) t * ldq, ldq,
		           memory);
	}
	assert_memory_equal(parts, whole, size * sizeof(float));
	cache_free(&c);
	test_free(q);
	test_free(whole);
	test_free(parts);
	free(memory);
}

static void
test_attention(void **state)
{
	/* tokens, size of a head, queries per K/V head */
	static const int32_t shapes[][3] = {{1, 16, 1},   {31, 64, 3},  {32, 64, 2},  {33, 128, 1},
	                                    {100, 80, 7}, {150, 64, 9}, {97, 112, 2}, {70, 32, 128}};
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
		for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
		{
			check_attention_of(k, shapes[s][0], shapes[s][1], shapes[s][2], true);
			check_attention_of(k, shapes[s][0], shapes[s][1], shapes[s][2], false);
		}
}

enum
{
	SHARING = 5, /* sequences */
	SHARED_BLOCKS = 3,
	OWN_BLOCKS = 2
};

/* Sequences that begin with the same blocks attend together as each of them does alone. */
static void
check_shared_attention(const q3_kernels *k, int32_t head_dim, int32_t group, bool f32)
{
	static const int32_t pos[SHARING] = {97, 96, 130, 127, 150}, n[SHARING] = {1, 3, 2, 1, 1};
	const int32_t n_blocks = SHARED_BLOCKS + SHARING * OWN_BLOCKS, tokens = 8;
	size_t ld = (size_t) (group * head_dim), size = (size_t) tokens * ld;
	float *q = random_floats(size), *alone = test_malloc(size * sizeof(float));
	float *together = test_malloc(size * sizeof(float));
	void *memory = scratch(q3_attention_scratch(head_dim));
	int32_t blocks[SHARING][SHARED_BLOCKS + OWN_BLOCKS];
	q3_attention_part parts[SHARING];
	cache c;

	cache_init(&c, k, n_blocks * Q3_KV_BLOCK, head_dim, f32);
	for (int32_t s = 0, t = 0; s < SHARING; t += n[s++])
	{
		q3_kv_view view = c.view;

		for (int32_t i = 0; i < SHARED_BLOCKS + OWN_BLOCKS; i++)
			blocks[s][i] = i < SHARED_BLOCKS ? i : i + s * OWN_BLOCKS;
		view.blocks = blocks[s];
		parts[s] = (q3_attention_part){blocks[s], pos[s], n[s]};
		attend_one(k, &view, pos[s], n[s], group, q + (size_t) t * ld, alone + (size_t) t * ld, ld,
		           memory);
	}
	for (int32_t shared = 0; shared <= SHARED_BLOCKS; shared++)
	{
		memset(together, 0, size * sizeof(float));
		k->attention(&c.view, parts, SHARING, shared, group, q, ld, together, ld, memory);
		assert_memory_equal(together, alone, size * sizeof(float));
	}
	cache_free(&c);
	test_free(q);
	test_free(alone);
	test_free(together);
	free(memory);
}

static void
test_shared_attention(void **state)
{
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
	{
		check_shared_attention(k, 64, 3, true);
		check_shared_attention(k, 128, 2, false);
		check_shared_attention(k, 80, 1, true);
		check_shared_attention(k, 32, 16, false);
	}
}

/* The cache's rounding to F16: to nearest, as dequantisation of F16 reads it back. */
static void
test_half_rounding(void **state)
{
	const float values[16] = {
	    1.0f,  1.00048828125f, 1.00146484375f, 65504,  1e-7f,    6e-8f, 2.9802322e-8f, 3e-8f,
	    -0.0f, 6.1e-5f,        6.09e-5f,       -1e-5f, 65519.9f, 1e6f,  -0.1f,         3.14159f};
	const uint16_t expected[16] = {0x3c00, 0x3c00, 0x3c02, 0x7bff, 0x0002, 0x0001, 0x0000, 0x0001,
	                               0x8000, 0x03ff, 0x03fe, 0x80a8, 0x7bff, 0x7c00, 0xae66, 0x4248};
	int32_t block = 0;
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
	{
		uint16_t memory[2 * 16 * Q3_KV_BLOCK];
		q3_kv_view view = {(char *) memory, &block, sizeof(memory), 0, 16, false};

		memset(memory, 0, sizeof(memory));
		k->kv_store(&view, 5, values, values);
		for (int d = 0; d < 16; d++)
		{
			assert_int_equal(memory[d * Q3_KV_BLOCK + 5], expected[d]);
			assert_int_equal(memory[(Q3_KV_BLOCK + 5) * 16 + d], expected[d]);
		}
	}
}

/* ---- Choice ---- */

static void
test_select(void **state)
{
	const char *reason = NULL;

	(void) state;
	assert_string_equal(q3_kernels_name(0), "scalar");
	assert_null(q3_kernels_get("pentium"));
	assert_non_null(q3_kernels_get(NULL));
	setenv("QWEN3DM_ISA", "scalar", 1);
	assert_string_equal(q3_kernels_select(&reason)->name, "scalar");
	setenv("QWEN3DM_ISA", "pentium", 1);
	assert_null(q3_kernels_select(&reason));
	assert_string_equal(reason, "is not an instruction set that qwen3dm knows");
	setenv("QWEN3DM_ISA", "", 1);
	assert_ptr_equal(q3_kernels_select(&reason), q3_kernels_get(NULL));
	unsetenv("QWEN3DM_ISA");
	assert_ptr_equal(q3_kernels_select(&reason), q3_kernels_get(NULL));
	for (int i = 0; q3_kernels_name(i) != NULL; i++)
		print_message("# %s: %s\n", q3_kernels_name(i),
		              q3_kernels_get(q3_kernels_name(i)) != NULL ? "tested"
		                                                         : "not on this machine");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_golden_blocks),
	    cmocka_unit_test(test_dequantize_same_bits),
	    cmocka_unit_test(test_matmul),
	    cmocka_unit_test(test_matmul_bounds),
	    cmocka_unit_test(test_rms_norm_and_add),
	    cmocka_unit_test(test_swiglu),
	    cmocka_unit_test(test_rope),
	    cmocka_unit_test(test_attention),
	    cmocka_unit_test(test_shared_attention),
	    cmocka_unit_test(test_half_rounding),
	    cmocka_unit_test(test_select),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
