/*
 * simd_matmul.h: the matrix product for one instruction set (included once by each vector file).
 *
 * Every output has one vector accumulator: lane l sums w[k] * x[k] over k = l, l + VL, l + 2 VL ...
 * in ascending order, and at the end the lanes are added in a fixed tree. That is all that decides
 * the bits, so tiles, slices and chunks may have any shape: a result does not depend on how many
 * tokens are in the call, where its token stands, or which thread computes it.
 *
 * One token: rows are dequantised in registers and used at once (memory bound).
 * Several: PANEL rows at a time are dequantised into a panel in the first cache, a slice of SLICE
 * columns at a time, and multiplied with TILE tokens at a time, PANEL * TILE accumulators staying
 * in registers. Between slices accumulators rest in scratch memory. BLOCK_ROWS rows share a pass
 * over the tokens' slice, and BLOCK_TOKENS bounds what must stay in the second cache.
 *
 * The file that includes this defines V, VL, PANEL, TILE, the v_ operations, sum_lanes(), and for
 * every type NAME: NAME_begin(block, head), which prepares what a block needs only once, and
 * NAME_weights(block, head, j), which gives weights 32 j ... 32 j + 31 of a block.
 */
#include "matmul_sizes.h"
#include "vec.h"

#define PREFETCH 1024 /* bytes */

/* ---- Dequantisation and the product with one token, for each type ---- */

/*
 * n weights; vector i of the row goes to out + i * stride (a panel interleaves rows). Reads ahead
 * by so many bytes: the same part of the next panel.
 */
INLINE void
dequantize_with(begin_fn begin, weights_fn weights, const int block, const size_t block_bytes,
                const uint8_t *w, int32_t n, float *out, size_t stride, size_t ahead)
{
	for (; n > 0; n -= block, w += block_bytes)
	{
		w_head head;

		for (size_t i = 0; i < block_bytes; i += 64)
			__builtin_prefetch(w + ahead + i, 0, 2);
		begin(w, &head);
		foreach (j, block / 32)
		{
			w32 v = weights(w, &head, j);

			foreach (i, 32 / VL)
			{
				v_store(out, v.v[i]);
				out += stride;
			}
		}
	}
}

/* STREAMS rows with one token; reads ahead in the stream that each row belongs to. */
INLINE void
dot_with(begin_fn begin, weights_fn weights, const int block, const size_t block_bytes,
         const uint8_t *const *rows, const float *x, int32_t n, V *sum)
{
	V acc[STREAMS];
	size_t at = 0;

	foreach (r, STREAMS)
		acc[r] = v_zero();
	for (; n > 0; n -= block, at += block_bytes, x += block)
	{
		foreach (r, STREAMS)
		{
			const uint8_t *w = rows[r] + at;
			w_head head;

			for (size_t i = 0; i < block_bytes; i += 64)
				__builtin_prefetch(w + PREFETCH + i);
			begin(w, &head);
			foreach (j, block / 32)
			{
				w32 v = weights(w, &head, j);

				foreach (i, 32 / VL)
					acc[r] = v_fma(v.v[i], v_load(x + 32 * j + VL * i), acc[r]);
			}
		}
	}
	foreach (r, STREAMS)
		sum[r] = acc[r];
}

#define DEFINE_TYPE(NAME, BLOCK, BYTES)                                                            \
	static void dequantize_##NAME(const uint8_t *w, int32_t n, float *out, size_t stride,          \
	                              size_t ahead)                                                    \
	{                                                                                              \
		dequantize_with(NAME##_begin, NAME##_weights, BLOCK, BYTES, w, n, out, stride, ahead);     \
	}                                                                                              \
	static void dot_##NAME(const uint8_t *const *rows, const float *x, int32_t n, V *sum)          \
	{                                                                                              \
		dot_with(NAME##_begin, NAME##_weights, BLOCK, BYTES, rows, x, n, sum);                     \
	}

DEFINE_TYPE(f32, 32, 128)
DEFINE_TYPE(f16, 32, 64)
DEFINE_TYPE(bf16, 32, 64)
DEFINE_TYPE(q4_0, 32, sizeof(block_q4_0))
DEFINE_TYPE(q4_1, 32, sizeof(block_q4_1))
DEFINE_TYPE(q5_0, 32, sizeof(block_q5_0))
DEFINE_TYPE(q5_1, 32, sizeof(block_q5_1))
DEFINE_TYPE(q8_0, 32, sizeof(block_q8_0))
DEFINE_TYPE(q4_k, 256, sizeof(block_q4_k))
DEFINE_TYPE(q5_k, 256, sizeof(block_q5_k))
DEFINE_TYPE(q6_k, 256, sizeof(block_q6_k))

typedef struct type_ops
{
	int32_t block;
	size_t block_bytes;
	void (*dequantize)(const uint8_t *w, int32_t n, float *out, size_t stride, size_t ahead);
	void (*dot)(const uint8_t *const *rows, const float *x, int32_t n, V *sum);
} type_ops;

static const type_ops *
ops_of(q3_dtype type)
{
	static const type_ops ops[] = {
	    [Q3_F32] = {32, 128, dequantize_f32, dot_f32},
	    [Q3_F16] = {32, 64, dequantize_f16, dot_f16},
	    [Q3_BF16] = {32, 64, dequantize_bf16, dot_bf16},
	    [Q3_Q4_0] = {32, sizeof(block_q4_0), dequantize_q4_0, dot_q4_0},
	    [Q3_Q4_1] = {32, sizeof(block_q4_1), dequantize_q4_1, dot_q4_1},
	    [Q3_Q5_0] = {32, sizeof(block_q5_0), dequantize_q5_0, dot_q5_0},
	    [Q3_Q5_1] = {32, sizeof(block_q5_1), dequantize_q5_1, dot_q5_1},
	    [Q3_Q8_0] = {32, sizeof(block_q8_0), dequantize_q8_0, dot_q8_0},
	    [Q3_Q4_K] = {256, sizeof(block_q4_k), dequantize_q4_k, dot_q4_k},
	    [Q3_Q5_K] = {256, sizeof(block_q5_k), dequantize_q5_k, dot_q5_k},
	    [Q3_Q6_K] = {256, sizeof(block_q6_k), dequantize_q6_k, dot_q6_k},
	};

	return &ops[type];
}

static void
dequantize(q3_dtype type, const void *row, int32_t n, float *out)
{
	ops_of(type)->dequantize(row, n, out, VL, 0);
}

/* ---- One token ---- */

/*
 * The rows are read as STREAMS streams, each from a place of its own to where the next begins: the
 * machine's prefetchers follow few long streams, and lose sight of many short ones.
 */
static void
matmul_one(const q3_matrix *w, int32_t row_begin, int32_t row_end, const float *x, float *y)
{
	const type_ops *ops = ops_of(w->type);
	int32_t length = (row_end - row_begin + STREAMS - 1) / STREAMS;

	for (int32_t i = 0; i < length; i += PANEL / STREAMS)
	{
		int32_t row[PANEL];
		float out[PANEL];
		V sum[PANEL];

		for (int32_t j = 0; j < PANEL; j += STREAMS)
		{
			const uint8_t *data[STREAMS];

			for (int32_t s = 0; s < STREAMS; s++)
			{
				int32_t r = row_begin + s * length + i + j / STREAMS;

				/* Beyond the end the last row is computed again. */
				row[j + s] = r < row_end ? r : row_end - 1;
				data[s] = (const uint8_t *) w->data + (size_t) row[j + s] * w->row_bytes;
			}
			ops->dot(data, x, w->cols, sum + j);
		}
		sum_lanes(sum, out, PANEL);
		for (int32_t j = 0; j < PANEL; j++)
			y[row[j]] = out[j];
	}
}

/* ---- Several tokens ---- */

/* Multiplies a panel slice with n tokens (a constant); sums is [n][PANEL] vectors at rest. */
INLINE void
tile(const float *panel, int32_t steps, const float *x, size_t ldx, const int n, bool first,
     bool last, float *sums, float *const *y, int32_t r, int32_t n_rows)
{
	V acc[TILE][PANEL];

	foreach (t, n)
		foreach (i, PANEL)
			acc[t][i] = v_zero();
	if (!first)
		foreach (t, n)
			foreach (i, PANEL)
				acc[t][i] = v_load(sums + (t * PANEL + i) * VL);
	for (int32_t s = 0; s < steps; s++)
	{
		V xv[TILE];

		foreach (t, n)
			xv[t] = v_load(x + t * ldx + s * VL);
		foreach (i, PANEL)
		{
			V wv = v_load(panel + (s * PANEL + i) * VL);

			v_keep(wv); /* or gcc reads it again from memory for every token */
			foreach (t, n)
				acc[t][i] = v_fma(wv, xv[t], acc[t][i]);
		}
	}
	if (last)
		foreach (t, n)
			sum_lanes(acc[t], y[t] + r, n_rows);
	else
		foreach (t, n)
			foreach (i, PANEL)
				v_store(sums + (t * PANEL + i) * VL, acc[t][i]);
}

/* The panel slice with all tokens of a block. */
static void
panel_times_tokens(const float *panel, int32_t steps, const float *x, size_t ldx, int32_t n_tokens,
                   bool first, bool last, float *sums, float *const *y, int32_t r, int32_t n_rows)
{
	int32_t t = 0;

	for (; n_tokens - t >= TILE; t += TILE)
		tile(panel, steps, x + t * ldx, ldx, TILE, first, last, sums + t * PANEL * VL, y + t, r,
		     n_rows);
	if (n_tokens - t == 2)
		tile(panel, steps, x + t * ldx, ldx, 2, first, last, sums + t * PANEL * VL, y + t, r,
		     n_rows);
	else if (n_tokens - t == 1)
		tile(panel, steps, x + t * ldx, ldx, 1, first, last, sums + t * PANEL * VL, y + t, r,
		     n_rows);
}

static void
fill_panel(const q3_matrix *w, int32_t r, int32_t n_rows, int32_t col, int32_t n, float *panel)
{
	const type_ops *ops = ops_of(w->type);
	size_t offset = (size_t) (col / ops->block) * ops->block_bytes;

	for (int32_t i = 0; i < PANEL; i++)
	{
		int32_t row = r + (i < n_rows ? i : n_rows - 1);

		ops->dequantize((const uint8_t *) w->data + (size_t) row * w->row_bytes + offset, n,
		                panel + i * VL, PANEL * VL, PANEL * w->row_bytes);
	}
}

/* Rows [row_begin, row_end), at most BLOCK_ROWS, with at most BLOCK_TOKENS tokens. */
static void
matmul_block(const q3_matrix *w, int32_t row_begin, int32_t row_end, const float *x, size_t ldx,
             int32_t n_tokens, float *const *y, float *scratch)
{
	float *panel = scratch, *sums = scratch + PANEL * SLICE;

	for (int32_t col = 0; col < w->cols; col += SLICE)
	{
		int32_t n = w->cols - col < SLICE ? w->cols - col : SLICE;

		for (int32_t r = row_begin; r < row_end; r += PANEL)
		{
			int32_t n_rows = row_end - r < PANEL ? row_end - r : PANEL;

			fill_panel(w, r, n_rows, col, n, panel);
			panel_times_tokens(panel, n / VL, x + col, ldx, n_tokens, col == 0, col + n == w->cols,
			                   sums + (size_t) (r - row_begin) * BLOCK_TOKENS * VL, y, r, n_rows);
		}
	}
}

static void
matmul(const q3_matrix *w, int32_t row_begin, int32_t row_end, const float *x, size_t ldx,
       int32_t n_tokens, float *const *y, void *scratch)
{
	if (n_tokens == 1)
	{
		matmul_one(w, row_begin, row_end, x, y[0]);
		return;
	}
	for (int32_t t = 0; t < n_tokens; t += BLOCK_TOKENS)
	{
		int32_t n = n_tokens - t < BLOCK_TOKENS ? n_tokens - t : BLOCK_TOKENS;

		for (int32_t r = row_begin; r < row_end; r += BLOCK_ROWS)
			matmul_block(w, r, r + BLOCK_ROWS < row_end ? r + BLOCK_ROWS : row_end, x + t * ldx,
			             ldx, n, y + t, scratch);
	}
}
