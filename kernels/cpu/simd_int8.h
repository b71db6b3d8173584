/*
 * simd_int8.h: products of packed matrices with activations of 8 bits, for instruction sets that
 * multiply bytes and add pairs into 16 bits with saturation (included by the vector files).
 *
 * Such a product saturates with weights of 8 bits, but not with nibbles: 32 columns of a block give
 * at most 32 / 2 * 15 * 128 = 30720 in a 16-bit lane. So both nibble planes are multiplied by
 * themselves and put together in 32 bits, exactly. One vector of rows at a time, with up to
 * INT8_TOKENS tokens; weights are unpacked in registers, and every output sees the same operations
 * in the same order.
 */

/* Vectors of packed rows, and what they mean. */
typedef struct int8_rows
{
	const uint8_t *hi, *lo;
	const uint16_t *scale, *offset;
	float factor, middle; /* see planes_layout.h; middle: over -128 */
} int8_rows;

/* n tokens from x on, n_rows <= VL rows to y[t] + r. n and nibbles (else bytes) are constants. */
INLINE void
int8_tile_of(const int8_rows *w, const bool nibbles, int32_t n_blocks, const q3_acts *x,
             const int n, float *const *y, int32_t r, int n_rows)
{
	const int8_t *q = x->q;
	size_t ldq = (size_t) x->cols, ldb = ldq / Q3_PLANE_BLOCK;
	const I low = i_set1(0x0f0f0f0f);
	V acc[INT8_TOKENS];

	foreach (t, n)
		acc[t] = v_zero();
	for (int32_t b = 0; b < n_blocks; b++, q += Q3_PLANE_BLOCK)
	{
		V scale = v_load_half(w->scale + b * Q3_PANEL_ROWS), offset = scale;
		I high_sum[INT8_TOKENS], low_sum[INT8_TOKENS];

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
		if (nibbles && w->offset != NULL)
			offset = v_mul(v_load_half(w->offset + b * Q3_PANEL_ROWS), v_set1(-0x1p-7f));
		else
			offset = v_mul(scale, v_set1(w->middle));
		scale = v_mul(scale, v_set1(w->factor));
		foreach (t, n)
		{
			size_t at = (size_t) t * ldb + (size_t) b;
			I sum = i_set1(x->sum[at]), dot;
			V xscale = v_set1(x->scale[at]);

			if (nibbles)
			{
				acc[t] = v_fma(offset, v_mul(xscale, i_to_float(sum)), acc[t]);
				dot = i_weigh_pairs(high_sum[t], 1);
			}
			else
				dot =
				    i_add(i_add(sum, i_weigh_pairs(high_sum[t], 16)), i_weigh_pairs(low_sum[t], 1));
			acc[t] = v_fma(i_to_float(dot), v_mul(scale, xscale), acc[t]);
		}
	}
	foreach (t, n)
		v_store_first(y[t] + r, acc[t], n_rows);
}

#define DEFINE_INT8(N)                                                                             \
	static void int8_bytes_##N(const int8_rows *w, int32_t n_blocks, const q3_acts *x,             \
	                           float *const *y, int32_t r, int n_rows)                             \
	{                                                                                              \
		int8_tile_of(w, false, n_blocks, x, N, y, r, n_rows);                                      \
	}                                                                                              \
	static void int8_nibbles_##N(const int8_rows *w, int32_t n_blocks, const q3_acts *x,           \
	                             float *const *y, int32_t r, int n_rows)                           \
	{                                                                                              \
		int8_tile_of(w, true, n_blocks, x, N, y, r, n_rows);                                       \
	}

DEFINE_INT8(1)
DEFINE_INT8(2)
DEFINE_INT8(3)
DEFINE_INT8(4)
#if INT8_TOKENS == 6
DEFINE_INT8(5)
DEFINE_INT8(6)
#endif

typedef void (*int8_fn)(const int8_rows *w, int32_t n_blocks, const q3_acts *x, float *const *y,
                        int32_t r, int n_rows);

/* [nibbles][tokens - 1] */
static const int8_fn int8_tiles[2][INT8_TOKENS] = {
    {
        int8_bytes_1,
        int8_bytes_2,
        int8_bytes_3,
        int8_bytes_4,
#if INT8_TOKENS == 6
        int8_bytes_5,
        int8_bytes_6,
#endif
    },
    {
        int8_nibbles_1,
        int8_nibbles_2,
        int8_nibbles_3,
        int8_nibbles_4,
#if INT8_TOKENS == 6
        int8_nibbles_5,
        int8_nibbles_6,
#endif
    },
};

static int8_rows
int8_rows_at(const q3_planes *w, bool nibbles, int32_t row)
{
	size_t at = panel_block(w, row / Q3_PANEL_ROWS, 0), in_panel = (size_t) (row % Q3_PANEL_ROWS);

	return (int8_rows){
	    .hi = w->hi + at * NIBBLE_BLOCK + in_panel * 4,
	    .lo = nibbles ? NULL : w->lo + at * NIBBLE_BLOCK + in_panel * 4,
	    .scale = w->scale + at * Q3_PANEL_ROWS + in_panel,
	    .offset = w->offset == NULL ? NULL : w->offset + at * Q3_PANEL_ROWS + in_panel,
	    .factor = nibbles ? nibble_factor(w->kind) : byte_factor(w->kind),
	    .middle = nibble_middle(w->kind) * -0x1p-7f,
	};
}

static void
matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end, const q3_acts *x,
            int32_t n_tokens, float *const *y, void *scratch)
{
	bool nibbles = bits == 4 || w->kind == Q3_PLANES_4;
	int32_t n_tiles = (n_tokens + INT8_TOKENS - 1) / INT8_TOKENS;
	size_t blocks = (size_t) (w->cols / Q3_PLANE_BLOCK);

	(void) scratch;
	for (int32_t r = row_begin; r < row_end; r += VL)
	{
		int8_rows rows = int8_rows_at(w, nibbles, r);

		for (int32_t i = 0, t = 0; i < n_tiles; i++)
		{
			int32_t n = n_tokens / n_tiles + (i < n_tokens % n_tiles ? 1 : 0);
			size_t at = (size_t) t * blocks;
			q3_acts from = {x->q + at * Q3_PLANE_BLOCK, x->scale + at, x->sum + at, x->cols};

			int8_tiles[nibbles][n - 1](&rows, w->cols / Q3_PLANE_BLOCK, &from, y + t, r,
			                           row_end - r < VL ? row_end - r : VL);
			t += n;
		}
	}
}
