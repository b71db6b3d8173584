/*
 * test_planes.c: matrices packed in planes of bits, and every instruction set's products with them.
 *
 * Packing is checked against dequantisation, the scalar products against double-precision
 * arithmetic written here, the other instruction sets against both; and exact bits where they are
 * promised: activations everywhere, and results whatever else is in the call.
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

#include "planes.h"

static const q3_dtype types[] = {Q3_F32, Q3_F16, Q3_BF16, Q3_Q8_0, Q3_Q4_0, Q3_Q4_1};

#define N_TYPES (sizeof(types) / sizeof(types[0]))

static uint64_t random_state;

static uint32_t
random_u32(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (random_state >> 32);
}

/* About normal with variance 1. */
static float
random_float(void)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += random_u32() / 4294967296.0;
	return (float) (sum - 6);
}

static void *
aligned(size_t bytes)
{
	void *p = NULL;

	assert_int_equal(posix_memalign(&p, 64, bytes + 1), 0);
	return p;
}

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

/* ---- A packed matrix and what it was packed from ---- */

typedef struct packed
{
	q3_matrix w;
	q3_planes p;
	uint8_t *data;
	void *memory;
	float *source;   /* [rows][cols], as dequantize() gives them */
	float *unpacked; /* as q3_planes_row() gives them */
} packed;

static void
fill_source(q3_dtype type, uint8_t *data, size_t bytes)
{
	size_t block = q3_dtype_block_bytes(type);

	for (size_t i = 0; i < bytes; i++)
		data[i] = (uint8_t) random_u32();
	for (size_t i = 0; i < bytes; i += block)
	{
		float f = random_float() * 0.02f;

		if (type == Q3_F32)
			memcpy(data + i, &f, sizeof(f));
		else if (type == Q3_BF16)
			memcpy(data + i, (char *) &f + 2, 2);
		else if (type == Q3_F16)
		{
			_Float16 h = (_Float16) f;

			memcpy(data + i, &h, sizeof(h));
		}
		else
		{
			/* Scales of either sign, subnormal ones among them; Q4_1 has a minimum too. */
			data[i + 1] = (uint8_t) (random_u32() & 0xa7);
			if (type == Q3_Q4_1)
				data[i + 3] = (uint8_t) (random_u32() & 0xa7);
		}
	}
}

static void
pack(packed *m, q3_dtype type, int32_t rows, int32_t cols)
{
	size_t n = (size_t) rows * (size_t) cols, row_bytes = q3_dtype_row_bytes(type, (uint64_t) cols);
	size_t bytes = q3_planes_bytes((q3_planes_kind) q3_planes_kind_for(type), rows, cols);
	float *scratch = test_malloc(16 * (size_t) cols * sizeof(float));

	m->data = test_malloc(row_bytes * (size_t) rows);
	fill_source(type, m->data, row_bytes * (size_t) rows);
	m->w = (q3_matrix){m->data, type, rows, cols, row_bytes};
	m->memory = aligned(bytes);
	memset(m->memory, 0xa5, bytes);
	q3_planes_place(&m->p, (q3_planes_kind) q3_planes_kind_for(type), rows, cols, m->memory);
	for (int32_t i = 0; i < (rows + 15) / 16; i++) /* in any order */
		q3_planes_pack(&m->p, &m->w, (rows + 15) / 16 - 1 - i, (rows + 15) / 16 - i, scratch);
	m->source = test_malloc(n * sizeof(float));
	m->unpacked = test_malloc(n * sizeof(float));
	for (int32_t r = 0; r < rows; r++)
	{
		q3_kernels_get("scalar")->dequantize(type, m->data + (size_t) r * row_bytes, cols,
		                                     m->source + r * cols);
		q3_planes_row(&m->p, r, m->unpacked + r * cols);
	}
	test_free(scratch);
}

static void
release(packed *m)
{
	test_free(m->data);
	free(m->memory);
	test_free(m->source);
	test_free(m->unpacked);
}

/* ---- Packing ---- */

static void
test_kinds(void **state)
{
	(void) state;
	assert_int_equal(q3_planes_kind_for(Q3_F32), Q3_PLANES_16);
	assert_int_equal(q3_planes_kind_for(Q3_F16), Q3_PLANES_16);
	assert_int_equal(q3_planes_kind_for(Q3_BF16), Q3_PLANES_16);
	assert_int_equal(q3_planes_kind_for(Q3_Q8_0), Q3_PLANES_8);
	assert_int_equal(q3_planes_kind_for(Q3_Q4_0), Q3_PLANES_4);
	assert_int_equal(q3_planes_kind_for(Q3_Q4_1), Q3_PLANES_4);
	assert_int_equal(q3_planes_kind_for(Q3_Q4_K), 0);
	assert_int_equal(q3_planes_kind_for(Q3_Q6_K), 0);
	/* Rows are padded to 16; 17 rows of 32: two panels of one block. */
	assert_int_equal(q3_planes_bytes(Q3_PLANES_4, 17, 32), 2 * (256 + 32 + 32));
	assert_int_equal(q3_planes_bytes(Q3_PLANES_8, 17, 32), 2 * (512 + 32));
	assert_int_equal(q3_planes_bytes(Q3_PLANES_16, 17, 32), 2 * (1024 + 32));
}

/* Quantised files keep their weights bit for bit; 16 bits lose less than BF16 does. */
static void
test_packing(void **state)
{
	(void) state;
	random_state = 1;
	for (size_t i = 0; i < N_TYPES; i++)
	{
		packed m;
		double error = 0, norm = 0;
		size_t n = 37 * 96;

		pack(&m, types[i], 37, 96);
		for (size_t j = 0; j < n; j++)
		{
			error +=
			    ((double) m.unpacked[j] - m.source[j]) * ((double) m.unpacked[j] - m.source[j]);
			norm += (double) m.source[j] * m.source[j];
		}
		if (m.p.kind == Q3_PLANES_16)
		{
			print_message("# %s: relative error of packing %.2g\n", q3_dtype_name(types[i]),
			              sqrt(error / norm));
			assert_true(sqrt(error / norm) < 4e-5);
		}
		else if (types[i] == Q3_Q4_0) /* there -0 becomes 0 */
			assert_true(error == 0);
		else
			assert_memory_equal(m.unpacked, m.source, n * sizeof(float));
		release(&m);
	}
}

/* Blocks that are all zero, tiny, beyond F16, infinite, undefined. */
static void
test_packing_extremes(void **state)
{
	static const float value[5] = {0, 1e-9f, 1e6f, INFINITY, NAN};
	float w[5][32], out[32], scratch[16 * 32];
	uint8_t *memory = aligned(q3_planes_bytes(Q3_PLANES_16, 5, 32));
	q3_matrix m = {w, Q3_F32, 5, 32, sizeof(w[0])};
	q3_planes p;

	(void) state;
	for (int r = 0; r < 5; r++)
		for (int i = 0; i < 32; i++)
			w[r][i] = i == 3 ? value[r] : i == 4 ? -value[r] : 0;
	q3_planes_place(&p, Q3_PLANES_16, 5, 32, memory);
	q3_planes_pack(&p, &m, 0, 1, scratch);
	for (int r = 0; r < 5; r++)
	{
		q3_planes_row(&p, r, out);
		if (r == 4)
			assert_true(isnan(out[0]) && isnan(out[3]));
		else if (r < 2)
			assert_true(out[0] == 0 && fabsf(out[3] - w[r][3]) < 1e-12f &&
			            fabsf(out[4] - w[r][4]) < 1e-12f);
		else
			assert_true(out[0] == 0 && out[3] > 65000 && out[3] < 65504 && out[4] < -65000);
	}
	free(memory);
}

/* ---- Activations ---- */

enum
{
	COLS = 192
};

typedef struct quantized
{
	int8_t q[COLS], lo[COLS];
	float scale[COLS / 32];
	int32_t sum[COLS / 32], lo_sum[COLS / 32];
} quantized;

static quantized
quantized_by(const q3_kernels *k, const float *x, int32_t cols, bool two)
{
	quantized out;
	q3_acts acts = {.q = out.q, .scale = out.scale, .sum = out.sum, .cols = cols};

	memset(&out, 0x55, sizeof(out));
	if (two)
	{
		acts.lo = out.lo;
		acts.lo_sum = out.lo_sum;
	}
	k->quantize(x, cols, &acts);
	return out;
}

static void
test_quantize(void **state)
{
	float x[COLS];
	const q3_kernels *k;

	(void) state;
	random_state = 2;
	for (int i = 0; i < COLS; i++)
		x[i] = i < 32 ? 0 : i < 64 ? 1e-38f : random_float() * (i < 96 ? 1e6f : 0.3f);
	/* The scale of the last block is 1; its numbers are 1/512 apart around 3 and -3: ties, too. */
	for (int i = COLS - 32; i < COLS; i++)
		x[i] =
		    i == COLS - 32 ? 127 : (i % 2 == 0 ? 1.0f : -1.0f) * (3 + (float) (i * 37 % 513) / 512);
	for (int i = 0; (k = runnable(i)) != NULL; i++)
	{
		quantized a = quantized_by(k, x, COLS, false), b = quantized_by(k, x, COLS, true);
		quantized right = quantized_by(q3_kernels_get("scalar"), x, COLS, true);

		assert_memory_equal(&b, &right, sizeof(b));
		memset(right.lo, 0x55, sizeof(right.lo)); /* untouched */
		memset(right.lo_sum, 0x55, sizeof(right.lo_sum));
		assert_memory_equal(&a, &right, sizeof(a));
		for (int c = 0; c < COLS / 32; c++)
		{
			int total = 0, lo_total = 0, largest = 0;

			for (int j = 32 * c; j < 32 * c + 32; j++)
			{
				double all = (double) b.q[j] + b.lo[j] / 256.0, scale = (double) b.scale[c];

				total += b.q[j];
				lo_total += b.lo[j];
				largest = abs(b.q[j]) > largest ? abs(b.q[j]) : largest;
				assert_true(fabs(b.q[j] * scale - (double) x[j]) <= 0.5001 * scale + 1e-30);
				/* lo is at most 127, so up to 1/256; and x * (127 / max |x|) is rounded, twice. */
				assert_true(fabs(all * scale - (double) x[j]) <=
				            (b.lo[j] == 127 ? 1.0 : 0.5) / 256 * scale + 128 * scale * 0x1p-22 +
				                1e-30);
			}
			assert_int_equal(b.sum[c], -128 * total);
			assert_int_equal(b.lo_sum[c], -128 * lo_total);
			assert_int_equal(largest, c < 2 ? 0 : 127);
		}
	}
}

/* Halves between two steps go to the even one, and the second plane ends at 127. */
static void
test_quantize_ties(void **state)
{
	static const float x[32] = {127,   2.5f,           3.5f,           -2.5f,
	                            -3.5f, 4 + 1 / 512.0f, 4 + 3 / 512.0f, -126.5f};
	static const int8_t q[8] = {127, 2, 4, -2, -4, 4, 4, -126},
	                    lo[8] = {0, 127, -128, -128, 127, 0, 2, -128};
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
	{
		quantized a = quantized_by(k, x, 32, true);

		assert_memory_equal(a.q, q, sizeof(q));
		assert_memory_equal(a.lo, lo, sizeof(lo));
		assert_true(a.scale[0] == 1);
	}
}

static void
test_quantize_not_finite(void **state)
{
	const q3_kernels *k;

	(void) state;
	for (int i = 0; (k = runnable(i)) != NULL; i++)
		for (int two = 0; two < 2; two++)
		{
			float bad[32] = {1, 2, NAN};
			quantized right = quantized_by(q3_kernels_get("scalar"), bad, 32, two);
			quantized a = quantized_by(k, bad, 32, two);

			assert_true(isnan(a.scale[0]));
			assert_memory_equal(a.q, right.q, sizeof(a.q));
			assert_memory_equal(a.lo, right.lo, sizeof(a.lo));
			bad[2] = -INFINITY;
			right = quantized_by(q3_kernels_get("scalar"), bad, 32, two);
			a = quantized_by(k, bad, 32, two);
			assert_true(isinf(a.scale[0]));
			assert_memory_equal(&a, &right, sizeof(a));
		}
}

/* ---- Products ---- */

#define MANY_TOKENS 530 /* more than accumulators may rest for at a time */

static int max_tokens = 40;

typedef struct product
{
	packed m;
	q3_acts acts;
	bool two; /* use both planes of acts */
	float *x, *y, *rows[MANY_TOKENS];
	double *right, *size; /* expected(), [tokens][rows] */
	void *scratch;
	size_t ldx;
} product;

static void
begin_product(product *p, q3_dtype type, int32_t rows, int32_t cols)
{
	size_t blocks = (size_t) cols / 32;

	pack(&p->m, type, rows, cols);
	p->ldx = (size_t) cols + 16;
	p->x = test_malloc((size_t) max_tokens * p->ldx * sizeof(float));
	for (size_t i = 0; i < (size_t) max_tokens * p->ldx; i++)
		p->x[i] = random_float();
	p->acts.cols = cols;
	p->acts.q = test_malloc((size_t) max_tokens * (size_t) cols);
	p->acts.scale = test_malloc((size_t) max_tokens * blocks * sizeof(float));
	p->acts.sum = test_malloc((size_t) max_tokens * blocks * sizeof(int32_t));
	p->acts.lo = test_malloc((size_t) max_tokens * (size_t) cols);
	p->acts.lo_sum = test_malloc((size_t) max_tokens * blocks * sizeof(int32_t));
	for (int t = 0; t < max_tokens; t++)
	{
		q3_acts at = q3_acts_at(&p->acts, t, 0);

		q3_kernels_get("scalar")->quantize(p->x + (size_t) t * p->ldx, cols, &at);
	}
	p->two = false;
	p->y = test_malloc((size_t) max_tokens * (size_t) (rows + 1) * sizeof(float));
	for (int t = 0; t < max_tokens; t++)
		p->rows[t] = p->y + t * (rows + 1);
	p->right = test_malloc((size_t) max_tokens * (size_t) rows * sizeof(double));
	p->size = test_malloc((size_t) max_tokens * (size_t) rows * sizeof(double));
	p->scratch = aligned(q3_matmul_scratch());
}

static void
end_product(product *p)
{
	release(&p->m);
	test_free(p->x);
	test_free(p->acts.q);
	test_free(p->acts.scale);
	test_free(p->acts.sum);
	test_free(p->acts.lo);
	test_free(p->acts.lo_sum);
	test_free(p->y);
	test_free(p->right);
	test_free(p->size);
	free(p->scratch);
}

/* bits: 4, 8, or 0 for float32. From token "first" on. */
static void
run(product *p, const q3_kernels *k, int bits, int32_t row_begin, int32_t row_end, int first,
    int n_tokens)
{
	q3_acts acts = q3_acts_at(&p->acts, first, 0);

	if (!p->two)
	{
		acts.lo = NULL;
		acts.lo_sum = NULL;
	}
	if (bits == 0)
		k->matmul_planes(&p->m.p, row_begin, row_end, p->x + (size_t) first * p->ldx, p->ldx,
		                 n_tokens, p->rows + first, p->scratch);
	else
		k->matmul_int8(&p->m.p, bits, row_begin, row_end, &acts, n_tokens, p->rows + first,
		               p->scratch);
}

/* The weight that matmul_int8 uses, from what the planes hold in full. */
static double
weight_at(const product *p, int32_t r, int32_t k, int bits)
{
	double w = p->m.unpacked[r * p->acts.cols + k], scale, u;
	size_t block = (size_t) (r / 16 * (p->acts.cols / 32) + k / 32);
	_Float16 half;

	if (bits == 0 || p->m.p.kind == Q3_PLANES_4)
		return w;
	memcpy(&half, p->m.p.scale + block * 16 + (size_t) (r % 16), sizeof(half));
	scale = (double) half;
	if (scale == 0)
		return 0;
	if (p->m.p.kind == Q3_PLANES_8)
	{
		u = round(w / scale) + 128;
		return bits == 8 ? w : scale * (16 * floor(u / 16) - 120.5);
	}
	u = round(w / scale * 32768) + 32896;
	return bits == 8 ? scale / 128 * (floor(u / 256) - 128)
	                 : scale / 32768 * (4096 * floor(u / 4096) - 30848.5);
}

/* For every output the sum of w * x and of |w * x|. */
static void
expect(product *p, int bits)
{
	int32_t rows = p->m.p.rows, cols = p->acts.cols;

	memset(p->right, 0, (size_t) max_tokens * (size_t) rows * sizeof(double));
	memset(p->size, 0, (size_t) max_tokens * (size_t) rows * sizeof(double));
	for (int32_t r = 0; r < rows; r++)
		for (int32_t k = 0; k < cols; k++)
		{
			double w = weight_at(p, r, k, bits);

			for (int32_t t = 0; t < max_tokens; t++)
			{
				int32_t at = t * cols + k;
				double q = p->acts.q[at] + (p->two ? p->acts.lo[at] / 256.0 : 0);
				double x = bits == 0 ? (double) p->x[(size_t) t * p->ldx + (size_t) k]
				                     : q * (double) p->acts.scale[at / 32];

				p->right[t * rows + r] += w * x;
				p->size[t * rows + r] += fabs(w * x);
			}
		}
}

static void
check_product(product *p, const q3_kernels *k, int bits)
{
	static const int tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 25};
	int32_t rows = p->m.p.rows;
	float *first = test_malloc((size_t) max_tokens * (size_t) (rows + 1) * sizeof(float));

	for (int t = 0; t < max_tokens; t++)
		for (int32_t r = 0; r <= rows; r++)
			p->rows[t][r] = 1e30f;
	run(p, k, bits, 0, rows, 0, max_tokens);
	for (int t = 0; t < max_tokens; t++)
	{
		for (int32_t r = 0; r < rows; r++)
		{
			double right = p->right[t * rows + r], size = p->size[t * rows + r];

			/* 2^-21 of all that is added: float32 sums of a few hundred products. */
			if (!(fabs(p->rows[t][r] - right) <= size * 0x1p-21 + 1e-30))
				fail_msg("%s: type %u, %d bits, %d planes of activations, %d columns, token %d, "
				         "row %d: %g instead of %g",
				         k->name, p->m.w.type, bits, p->two ? 2 : 1, p->acts.cols, t, r,
				         (double) p->rows[t][r], right);
		}
		assert_true(p->rows[t][rows] == 1e30f); /* nothing beyond the last row */
	}
	memcpy(first, p->y, (size_t) max_tokens * (size_t) (rows + 1) * sizeof(float));
	/* Any number of tokens, any ranges of rows: the same bits. */
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
	{
		int32_t step = 16 << (i % 5);

		memset(p->y, 0x7f, (size_t) max_tokens * (size_t) (rows + 1) * sizeof(float));
		for (int t = 0; t < max_tokens; t++)
			p->rows[t][rows] = 1e30f;
		for (int t = 0; t < max_tokens; t += tokens[i])
			for (int32_t r = 0; r < rows; r += step)
				run(p, k, bits, r, r + step < rows ? r + step : rows, t,
				    max_tokens - t < tokens[i] ? max_tokens - t : tokens[i]);
		assert_memory_equal(p->y, first, (size_t) max_tokens * (size_t) (rows + 1) * sizeof(float));
	}
	test_free(first);
}

static void
test_products(void **state)
{
	static const int32_t shapes[][2] = {{16, 32}, {37, 96}, {83, 544}, {70, 1056}};
	const q3_kernels *k;

	(void) state;
	random_state = 3;
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
		for (size_t i = 0; i < N_TYPES; i++)
		{
			product p;

			begin_product(&p, types[i], shapes[s][0], shapes[s][1]);
			for (int bits = 0; bits <= 8; bits += 4)
				for (int two = 0; two <= (bits == 0 ? 0 : 1); two++)
				{
					p.two = two;
					expect(&p, bits);
					for (int j = 0; (k = runnable(j)) != NULL; j++)
						check_product(&p, k, bits);
				}
			end_product(&p);
		}
}

/* All weights and activations at their limits: integers must not saturate anywhere. */
static void
test_limits(void **state)
{
	const q3_kernels *k;

	(void) state;
	for (int sign = 0; sign < 4; sign++)
		for (int i = 0; (k = runnable(i)) != NULL; i++)
			for (int bits = 4; bits <= 8; bits += 4)
			{
				product p;

				random_state = 4;
				begin_product(&p, Q3_Q8_0, 32, 64);
				memset((void *) p.m.p.hi, sign & 1 ? 0xff : 0, 32 * 64 / 2);
				memset((void *) p.m.p.lo, sign & 1 ? 0xff : 0, 32 * 64 / 2);
				for (int32_t r = 0; r < 32; r++)
					q3_planes_row(&p.m.p, r, p.m.unpacked + r * 64);
				memset(p.acts.q, sign & 2 ? 127 : -127, (size_t) max_tokens * 64);
				memset(p.acts.lo, sign & 2 ? 127 : -128, (size_t) max_tokens * 64);
				for (int j = 0; j < max_tokens * 2; j++)
				{
					p.acts.sum[j] = -128 * 32 * (sign & 2 ? 127 : -127);
					p.acts.lo_sum[j] = -128 * 32 * (sign & 2 ? 127 : -128);
				}
				for (int two = 0; two < 2; two++)
				{
					p.two = two;
					expect(&p, bits);
					check_product(&p, k, bits);
				}
				end_product(&p);
			}
}

/* More tokens than one pass takes, and several slices. */
static void
test_many_tokens(void **state)
{
	const q3_kernels *k;

	(void) state;
	random_state = 5;
	max_tokens = MANY_TOKENS;
	for (int bits = 0; bits <= 8; bits += 8)
	{
		product p;

		begin_product(&p, Q3_BF16, 20, 576);
		for (int two = 0; two <= (bits == 0 ? 0 : 1); two++)
		{
			p.two = two;
			expect(&p, bits);
			for (int j = 0; (k = runnable(j)) != NULL; j++)
				check_product(&p, k, bits);
		}
		end_product(&p);
	}
	max_tokens = 40;
}

/*
 * With AMX every output has the bits that VNNI gives it: any number of tokens, whatever is on the
 * way from one kernel to the other, and nothing is written beside the outputs.
 */
static void
test_amx_as_vnni(void **state)
{
	static const int32_t shapes[][2] = {{16, 32}, {33, 64}, {47, 544}, {70, 1056}};
	const q3_kernels *amx = q3_kernels_get("avx512amx"), *vnni = q3_kernels_get("avx512vnni");

	(void) state;
	if (amx == NULL)
		skip();
	random_state = 6;
	max_tokens = 100;
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
		for (size_t i = 0; i < N_TYPES; i++)
			for (int way = 0; way < 4; way++)
			{
				int bits = way % 2 == 0 ? 4 : 8;
				size_t bytes = (size_t) max_tokens * (size_t) (shapes[s][0] + 1) * sizeof(float);
				float *right = test_malloc(bytes);
				product p;

				begin_product(&p, types[i], shapes[s][0], shapes[s][1]);
				p.two = way / 2 == 1;
				memset(p.y, 0x7f, bytes);
				run(&p, vnni, bits, 0, shapes[s][0], 0, max_tokens);
				memcpy(right, p.y, bytes);
				for (int n = 1; n <= max_tokens; n++)
				{
					size_t used = (size_t) n * (size_t) (shapes[s][0] + 1) * sizeof(float);

					memset(p.y, 0x7f, bytes);
					run(&p, amx, bits, 0, shapes[s][0], 0, n);
					assert_memory_equal(p.y, right, used);
				}
				test_free(right);
				end_product(&p);
			}
	max_tokens = 40;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kinds),
	    cmocka_unit_test(test_packing),
	    cmocka_unit_test(test_packing_extremes),
	    cmocka_unit_test(test_quantize),
	    cmocka_unit_test(test_quantize_ties),
	    cmocka_unit_test(test_quantize_not_finite),
	    cmocka_unit_test(test_products),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_many_tokens),
	    cmocka_unit_test(test_amx_as_vnni),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
