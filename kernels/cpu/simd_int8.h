/*
 * simd_int8.h: products of packed matrices with activations of 8 bits, for instruction sets that
 * multiply bytes and add pairs into 16 bits with saturation (included by the vector files).
 *
 * Such a product saturates with weights of 8 bits, but not with nibbles: 32 columns of a block give
 * at most 32 / 2 * 15 * 128 = 30720 in a 16-bit lane. So both nibble planes are multiplied by
 * themselves and put together in 32 bits, exactly; and so are two planes of activations, one after
 * the other. One vector of rows at a time, with up to
 * INT8_TOKENS tokens; weights are unpacked in registers, and every output sees the same operations
 * in the same order.
 */

#include "int8_rows.h"

/*
 * The integers of block b with n tokens of one plane of activations, ldq apart, times weight. n,
 * nibbles (else bytes) and weight are constants.
 */
INLINE void
block_dots(const int8_rows *w, const bool nibbles, int32_t b, const int8_t *q, size_t ldq,
           const int n, const int weight, I dot[INT8_TOKENS])
{
	const I low = i_set1(0x0f0f0f0f);
	I high_sum[INT8_TOKENS], low_sum[INT8_TOKENS];

	q += b * Q3_PLANE_BLOCK;
	foreach (t, n)
		high_sum[t] = low_sum[t] = i_set1(0);
	for (int v = 0; v < 4; v++)
	{
		size_t at = (size_t) b * NIBBLE_BLOCK + (size_t) v * 64;
		I hi = i_load(w->hi + at), lo = nibbles ? hi : i_load(w->lo + at);

		__builtin_prefetch(w->hi + at + 1024);
		if (!nibbles)
			__builtin_prefetch(w->lo + at + 1024);
		foreach (i, 2)
		{
			I uh = i_and(i == 0 ? hi : i_shift_right(hi, 4), low);
			I ul = i_and(i == 0 ? lo : i_shift_right(lo, 4), low);

			foreach (t, n)
			{
				I xs = i_set1((int) load_u32(q + (size_t) t * ldq + v * 8 + i * 4));

				high_sum[t] = i_add_pairs(high_sum[t], uh, xs);
				if (!nibbles)
					low_sum[t] = i_add_pairs(low_sum[t], ul, xs);
			}
		}
	}
	foreach (t, n)
	{
		dot[t] = i_weigh_pairs(high_sum[t], nibbles ? weight : 16 * weight);
		if (!nibbles)
			dot[t] = i_add(dot[t], i_weigh_pairs(low_sum[t], weight));
	}
}

/*
 * n tokens from x on, n_rows <= VL rows to y[t] + r. n, nibbles and two (planes of activations) are
 * constants.
 */
INLINE void
int8_tile_of(const int8_rows *w, const bool nibbles, const bool two, const q3_acts *x, const int n,
             float *const *y, int32_t r, int n_rows)
{
	size_t ldq = (size_t) x->cols, ldb = ldq / Q3_PLANE_BLOCK;
	V acc[INT8_TOKENS];

	foreach (t, n)
		acc[t] = v_zero();
	for (int32_t b = 0; b < w->n_blocks; b++)
	{
		V scale = v_load_half(w->scale + b * Q3_PANEL_ROWS), offset = scale;
		I dot[INT8_TOKENS], lo_dot[INT8_TOKENS];

		block_dots(w, nibbles, b, x->q, ldq, n, two ? 256 : 1, dot);
		if (two)
		{
			block_dots(w, nibbles, b, x->lo, ldq, n, 1, lo_dot);
			foreach (t, n)
				dot[t] = i_add(dot[t], lo_dot[t]);
		}
		if (nibbles && w->offset != NULL)
			offset = v_mul(v_load_half(w->offset + b * Q3_PANEL_ROWS), v_set1(-0x1p-7f));
		else
			offset = v_mul(scale, v_set1(w->middle));
		scale = v_mul(scale, v_set1(w->factor));
		foreach (t, n)
		{
			size_t at = (size_t) t * ldb + (size_t) b;
			I sum = i_set1(two ? 256 * x->sum[at] + x->lo_sum[at] : x->sum[at]);
			V xscale = v_set1(two ? x->scale[at] * 0x1p-8f : x->scale[at]);

			if (nibbles)
				acc[t] = v_fma(offset, v_mul(xscale, i_to_float(sum)), acc[t]);
			else
				dot[t] = i_add(dot[t], sum);
			acc[t] = v_fma(i_to_float(dot[t]), v_mul(scale, xscale), acc[t]);
		}
	}
	foreach (t, n)
		v_store_first(y[t] + r, acc[t], n_rows);
}

#define DEFINE_INT8_TILE(NAME, N, NIBBLES, TWO)                                                    \
	static void NAME##_##N(const int8_rows *w, const q3_acts *x, float *const *y, int32_t r,       \
	                       int n_rows)                                                             \
	{                                                                                              \
		int8_tile_of(w, NIBBLES, TWO, x, N, y, r, n_rows);                                         \
	}
#define DEFINE_INT8(N)                                                                             \
	DEFINE_INT8_TILE(int8_bytes, N, false, false)                                                  \
	DEFINE_INT8_TILE(int8_bytes_two, N, false, true)                                               \
	DEFINE_INT8_TILE(int8_nibbles, N, true, false)                                                 \
	DEFINE_INT8_TILE(int8_nibbles_two, N, true, true)

DEFINE_INT8(1)
DEFINE_INT8(2)
DEFINE_INT8(3)
DEFINE_INT8(4)
#if INT8_TOKENS == 6
DEFINE_INT8(5)
DEFINE_INT8(6)
#define ALL_INT8(NAME)                                                                             \
	{                                                                                              \
		NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6                                 \
	}
#else
#define ALL_INT8(NAME)                                                                             \
	{                                                                                              \
		NAME##_1, NAME##_2, NAME##_3, NAME##_4                                                     \
	}
#endif

/* [nibbles][two planes of activations][tokens - 1] */
static const int8_fn int8_tiles[2][2][INT8_TOKENS] = {
    {ALL_INT8(int8_bytes), ALL_INT8(int8_bytes_two)},
    {ALL_INT8(int8_nibbles), ALL_INT8(int8_nibbles_two)}};

static void
matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end, const q3_acts *x,
            int32_t n_tokens, float *const *y, void *scratch)
{
	bool nibbles = bits == 4 || w->kind == Q3_PLANES_4;
	int32_t n_tiles = (n_tokens + INT8_TOKENS - 1) / INT8_TOKENS;

	(void) scratch;
	for (int32_t r = row_begin; r < row_end; r += VL)
	{
		int8_rows rows = int8_rows_at(w, nibbles, r);

		for (int32_t i = 0, t = 0; i < n_tiles; i++)
		{
			int32_t n = n_tokens / n_tiles + (i < n_tokens % n_tiles ? 1 : 0);
			q3_acts from = q3_acts_at(x, t, 0);

			int8_tiles[nibbles][x->lo != NULL][n - 1](&rows, &from, y + t, r,
			                                          row_end - r < VL ? row_end - r : VL);
			t += n;
		}
	}
}
