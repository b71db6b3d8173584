/*
 * simd_planes.h: packed matrices in float32 for one instruction set, and the quantisation of
 * activations (included once by each vector file, after simd_matmul.h).
 *
 * Rows are in the lanes, so an output's sum runs over its columns one by one, and the only thing
 * that decides its bits is that order. One token: weights are unpacked in registers, many rows at a
 * time because each row is one long chain of additions. Several: two vectors of rows are unpacked
 * into a slice in the second cache and multiplied with PLANES_TOKENS tokens at a time.
 */
#include "planes_layout.h"

#define PANEL_VECTORS (Q3_PANEL_ROWS / VL)
#define CHAINS 4 /* vectors of rows at a time for one token */

/* ---- Activations ---- */

/* NaN is the smallest integer before, and the smallest byte behind it. */
INLINE I
i_at_most_bytes(I v)
{
	return i_min(i_max(v, i_set1(-128)), i_set1(127));
}

INLINE void
quantize_block(const float *x, const bool two, const q3_acts *out)
{
	const I magnitude = i_set1(0x7fffffff);
	I bits = i_set1(0), total = i_set1(0), lo_total = i_set1(0);
	uint32_t largest_bits;
	float largest, inverse;

	/* As integers, so that NaN is larger than everything. */
	foreach (i, Q3_PLANE_BLOCK / VL)
		bits = i_max_unsigned(bits, i_and(f_as_bits(v_load(x + i * VL)), magnitude));
	largest_bits = i_max_of_lanes(bits);
	largest = largest_bits < 0x0d800000 ? 0 : float_from_bits(largest_bits); /* 2^-100 */
	inverse = largest == 0 ? 0 : 127 / largest;
	foreach (i, Q3_PLANE_BLOCK / VL)
	{
		V v = v_mul(v_load(x + i * VL), v_set1(inverse)), whole = v_round(v);
		I q = i_at_most_bytes(i_round(whole));

		total = i_add(total, q);
		i_store_bytes(out->q + i * VL, q);
		if (two)
		{
			/* The difference is exact. */
			I lo = i_at_most_bytes(i_round(v_mul(v_sub(v, whole), v_set1(256))));

			lo_total = i_add(lo_total, lo);
			i_store_bytes(out->lo + i * VL, lo);
		}
	}
	*out->scale = largest / 127;
	*out->sum = -128 * i_sum(total);
	if (two)
		*out->lo_sum = -128 * i_sum(lo_total);
}

static void
quantize(const float *x, int32_t cols, const q3_acts *out)
{
	for (int32_t b = 0; b < cols / Q3_PLANE_BLOCK; b++, x += Q3_PLANE_BLOCK)
	{
		q3_acts at = q3_acts_at(out, 0, b);

		if (at.lo != NULL)
			quantize_block(x, true, &at);
		else
			quantize_block(x, false, &at);
	}
}

/* ---- Weights ---- */

/* 2^23 in the bits of a float, to which an integer below 2^23 can be added by setting bits. */
#define MAGIC 0x4b000000

/*
 * Columns 4 v ... 4 v + 3 for the VL rows from row i * VL of a block of a panel on. kind is a
 * constant. Every weight is rounded once, as in q3_planes_row().
 */
INLINE void
four_columns(const q3_planes *w, const q3_planes_kind kind, size_t at, int i, int v, V scale,
             V offset, V out[4])
{
	size_t bytes = at * NIBBLE_BLOCK + (size_t) (v / 2 * 64 + i * VL * 4);
	I u = i_load(w->hi + bytes), magic = i_set1(MAGIC);
	I low_nibbles = i_set1(0x0f0f0f0f);

	if (kind != Q3_PLANES_4)
	{
		I lo = i_load(w->lo + bytes);

		/* Bits that a shift brings from another byte are masked off. */
		u = v % 2 == 0 ? i_select(low_nibbles, lo, i_shift_left(u, 4))
		               : i_select(low_nibbles, i_shift_right(lo, 4), u);
	}
	else
		u = v % 2 == 0 ? i_and(u, low_nibbles) : i_and(i_shift_right(u, 4), low_nibbles);
	if (kind == Q3_PLANES_16)
	{
		I ext = i_load(w->ext + at * BYTE_BLOCK + (size_t) (v * 64 + i * VL * 4));
		I a = i_zip_low(ext, u), b = i_zip_high(ext, u), word = i_set1(0xffff);
		I pair[2] = {i_even(a, b), i_odd(a, b)}; /* two columns in each lane */

		foreach (j, 2)
		{
			out[2 * j] = i_as_float(i_and_or(pair[j], word, magic));
			out[2 * j + 1] = i_as_float(i_or(i_shift_right(pair[j], 16), magic));
		}
	}
	else
	{
		I byte = i_set1(0xff);

		out[0] = i_as_float(i_and_or(u, byte, magic));
		out[1] = i_as_float(i_and_or(i_shift_right(u, 8), byte, magic));
		out[2] = i_as_float(i_and_or(i_shift_right(u, 16), byte, magic));
		out[3] = i_as_float(i_or(i_shift_right(u, 24), magic));
	}
	foreach (j, 4)
		if (kind == Q3_PLANES_4)
			out[j] = v_fma(scale, v_sub(out[j], v_set1(0x1p23f)), offset);
		else
			out[j] =
			    v_mul(scale, v_sub(out[j], v_set1(0x1p23f + (kind == Q3_PLANES_8 ? 128 : 32896))));
}

INLINE void
block_scale(const q3_planes *w, const q3_planes_kind kind, size_t at, int i, V *scale, V *offset)
{
	size_t first = at * Q3_PANEL_ROWS + (size_t) (i * VL);

	*scale = v_load_half(w->scale + first);
	*offset = *scale;
	if (kind == Q3_PLANES_16)
		*scale = v_mul(*scale, v_set1(0x1p-15f));
	if (kind == Q3_PLANES_4)
		*offset = v_load_half(w->offset + first);
}

/* ---- One token ---- */

/* n vectors of rows (a constant) from vector "first" of the matrix on. */
INLINE void
planes_dot(const q3_planes *w, const q3_planes_kind kind, int32_t first, const int n,
           const float *x, V *acc)
{
	foreach (i, n)
		acc[i] = v_zero();
	for (int32_t b = 0; b < w->cols / Q3_PLANE_BLOCK; b++, x += Q3_PLANE_BLOCK)
	{
		size_t at[CHAINS];
		V scale[CHAINS], offset[CHAINS];

		foreach (i, n)
		{
			at[i] = panel_block(w, (first + i) / PANEL_VECTORS, b);
			block_scale(w, kind, at[i], (first + i) % PANEL_VECTORS, &scale[i], &offset[i]);
			if ((first + i) % PANEL_VECTORS == 0)
				for (int j = 0; j < 4; j++)
				{
					__builtin_prefetch(w->hi + (at[i] + 4) * NIBBLE_BLOCK + j * 64);
					if (kind != Q3_PLANES_4)
						__builtin_prefetch(w->lo + (at[i] + 4) * NIBBLE_BLOCK + j * 64);
					if (kind == Q3_PLANES_16)
					{
						__builtin_prefetch(w->ext + (at[i] + 3) * BYTE_BLOCK + j * 128);
						__builtin_prefetch(w->ext + (at[i] + 3) * BYTE_BLOCK + j * 128 + 64);
					}
				}
		}
		for (int v = 0; v < 8; v += 2)
			foreach (half, 2)
				foreach (i, n)
				{
					V weights[4];

					four_columns(w, kind, at[i], (first + i) % PANEL_VECTORS, v + half, scale[i],
					             offset[i], weights);
					foreach (j, 4)
						acc[i] = v_fma(weights[j], v_set1(x[(v + half) * 4 + j]), acc[i]);
				}
	}
}

INLINE void
planes_one(const q3_planes *w, const q3_planes_kind kind, int32_t row_begin, int32_t row_end,
           const float *x, float *y)
{
	int32_t r = row_begin;
	V acc[CHAINS];

	for (; row_end - r >= CHAINS * VL; r += CHAINS * VL)
	{
		planes_dot(w, kind, r / VL, CHAINS, x, acc);
		foreach (i, CHAINS)
			v_store(y + r + i * VL, acc[i]);
	}
	for (; r < row_end; r += VL)
	{
		planes_dot(w, kind, r / VL, 1, x, acc);
		v_store_first(y + r, acc[0], row_end - r < VL ? row_end - r : VL);
	}
}

/* ---- Several tokens ---- */

/* Columns of two vectors of rows (or one) as [column][2 vectors]. */
INLINE void
unpack_columns(const q3_planes *w, const q3_planes_kind kind, int32_t first, int n_vectors,
               int32_t block, int32_t n_blocks, float *out)
{
	for (int32_t b = 0; b < n_blocks; b++)
		for (int i = 0; i < n_vectors; i++)
		{
			int in_panel = (first + i) % PANEL_VECTORS;
			size_t at = panel_block(w, (first + i) / PANEL_VECTORS, block + b);
			V scale, offset;

			block_scale(w, kind, at, in_panel, &scale, &offset);
			foreach (v, 8)
			{
				float *to = out + ((b * Q3_PLANE_BLOCK + v * 4) * 2 + i) * VL;
				V weights[4];

				four_columns(w, kind, at, in_panel, v, scale, offset, weights);
				foreach (j, 4)
					v_store(to + j * 2 * VL, weights[j]);
			}
		}
}

/*
 * n tokens (a constant); n_rows of the two vectors exist. from and to: where accumulators rest
 * between slices, [token][2 vectors]; NULL for the first, or last, slice.
 */
INLINE void
planes_tile(const float *weights, int32_t n_columns, const float *x, size_t ldx, const int n,
            const float *from, float *to, float *const *y, int32_t r, int n_rows)
{
	V acc[PLANES_TOKENS][2];

	foreach (t, n)
		foreach (i, 2)
			acc[t][i] = v_zero();
	if (from != NULL)
		foreach (t, n)
			foreach (i, 2)
				acc[t][i] = v_load(from + (t * 2 + i) * VL);
	for (int32_t k = 0; k < n_columns; k++)
	{
		V w0 = v_load(weights + k * 2 * VL), w1 = v_load(weights + k * 2 * VL + VL);

		v_keep(w0);
		v_keep(w1);
		foreach (t, n)
		{
			V xv = v_set1(x[(size_t) t * ldx + (size_t) k]);

			v_keep(xv);
			acc[t][0] = v_fma(w0, xv, acc[t][0]);
			acc[t][1] = v_fma(w1, xv, acc[t][1]);
		}
	}
	foreach (t, n)
		if (to != NULL)
		{
			v_store(to + t * 2 * VL, acc[t][0]);
			v_store(to + (t * 2 + 1) * VL, acc[t][1]);
		}
		else
		{
			v_store_first(y[t] + r, acc[t][0], n_rows < VL ? n_rows : VL);
			if (n_rows > VL)
				v_store_first(y[t] + r + VL, acc[t][1], n_rows - VL);
		}
}

typedef void (*planes_tile_fn)(const float *weights, int32_t n_columns, const float *x, size_t ldx,
                               const float *from, float *to, float *const *y, int32_t r,
                               int n_rows);

#define DEFINE_PLANES_TILE(N)                                                                      \
	static void planes_tile_##N(const float *weights, int32_t n_columns, const float *x,           \
	                            size_t ldx, const float *from, float *to, float *const *y,         \
	                            int32_t r, int n_rows)                                             \
	{                                                                                              \
		planes_tile(weights, n_columns, x, ldx, N, from, to, y, r, n_rows);                        \
	}

DEFINE_PLANES_TILE(1)
DEFINE_PLANES_TILE(2)
DEFINE_PLANES_TILE(3)
DEFINE_PLANES_TILE(4)
DEFINE_PLANES_TILE(5)
DEFINE_PLANES_TILE(6)
#if PLANES_TOKENS == 12
DEFINE_PLANES_TILE(7)
DEFINE_PLANES_TILE(8)
DEFINE_PLANES_TILE(9)
DEFINE_PLANES_TILE(10)
DEFINE_PLANES_TILE(11)
DEFINE_PLANES_TILE(12)
#endif

static const planes_tile_fn planes_tiles[PLANES_TOKENS] = {
    planes_tile_1, planes_tile_2, planes_tile_3, planes_tile_4,  planes_tile_5,  planes_tile_6,
#if PLANES_TOKENS == 12
    planes_tile_7, planes_tile_8, planes_tile_9, planes_tile_10, planes_tile_11, planes_tile_12,
#endif
};

/* Two vectors of rows with at most REST_TOKENS tokens. */
INLINE void
planes_rows(const q3_planes *w, const q3_planes_kind kind, int32_t r, int n_rows, const float *x,
            size_t ldx, int32_t n_tokens, float *const *y, float *slice)
{
	int32_t n_tiles = (n_tokens + PLANES_TOKENS - 1) / PLANES_TOKENS;
	float *rest = slice + SLICE_COLUMNS * 2 * VL;

	for (int32_t col = 0; col < w->cols; col += SLICE_COLUMNS)
	{
		bool last = w->cols - col <= SLICE_COLUMNS;
		int32_t n_columns = last ? w->cols - col : SLICE_COLUMNS;

		unpack_columns(w, kind, r / VL, n_rows > VL ? 2 : 1, col / Q3_PLANE_BLOCK,
		               n_columns / Q3_PLANE_BLOCK, slice);
		for (int32_t i = 0, t = 0; i < n_tiles; i++)
		{
			int32_t n = n_tokens / n_tiles + (i < n_tokens % n_tiles ? 1 : 0);
			float *at = rest + t * 2 * VL;

			planes_tiles[n - 1](slice, n_columns, x + (size_t) t * ldx + col, ldx,
			                    col == 0 ? NULL : at, last ? NULL : at, y + t, r, n_rows);
			t += n;
		}
	}
}

INLINE void
matmul_planes_of(const q3_planes *w, const q3_planes_kind kind, int32_t row_begin, int32_t row_end,
                 const float *x, size_t ldx, int32_t n_tokens, float *const *y, float *slice)
{
	if (n_tokens == 1)
	{
		planes_one(w, kind, row_begin, row_end, x, y[0]);
		return;
	}
	for (int32_t t = 0; t < n_tokens; t += REST_TOKENS)
		for (int32_t r = row_begin; r < row_end; r += 2 * VL)
			planes_rows(w, kind, r, row_end - r < 2 * VL ? row_end - r : 2 * VL,
			            x + (size_t) t * ldx, ldx,
			            n_tokens - t < REST_TOKENS ? n_tokens - t : REST_TOKENS, y + t, slice);
}

static void
matmul_planes(const q3_planes *w, int32_t row_begin, int32_t row_end, const float *x, size_t ldx,
              int32_t n_tokens, float *const *y, void *scratch)
{
	if (w->kind == Q3_PLANES_16)
		matmul_planes_of(w, Q3_PLANES_16, row_begin, row_end, x, ldx, n_tokens, y, scratch);
	else if (w->kind == Q3_PLANES_8)
		matmul_planes_of(w, Q3_PLANES_8, row_begin, row_end, x, ldx, n_tokens, y, scratch);
	else
		matmul_planes_of(w, Q3_PLANES_4, row_begin, row_end, x, ldx, n_tokens, y, scratch);
}
