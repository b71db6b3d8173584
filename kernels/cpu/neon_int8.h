/*
 * neon_int8.h: products of packed matrices with activations of 8 bits for NEON (included by neon.c
 * and, with NEON_DOT defined, by neondot.c).
 *
 * Both versions multiply signed bytes. Weights of 8 bits are therefore used as u - 128, which makes
 * the number that other instruction sets start a block's sum from needless: the integers are the
 * same. Two planes of activations are multiplied one after the other. A single token goes with a
 * whole panel, several go with four rows at a time; weights are unpacked in registers, and every
 * output sees the same operations in the same order.
 */

#if defined(NEON_DOT)

#define INT8_TOKENS 8 /* with four rows: a vector of integers and one of floats each */

/* The sums of four rows */
typedef int32x4_t int8_sums;

#define sums_zero() vdupq_n_s32(0)
#define sums_times_256(s) vshlq_n_s32(s, 8)
#define sums_total(s) (s)

/* s plus 16 columns of four rows, which stand in fours in u, times x; small or not is the same. */
INLINE int8_sums
sums_add(int8_sums s, const int8x16_t u[4], int8x16_t x, const bool small)
{
	(void) small;
	s = vdotq_laneq_s32(s, u[0], x, 0);
	s = vdotq_laneq_s32(s, u[1], x, 1);
	s = vdotq_laneq_s32(s, u[2], x, 2);
	return vdotq_laneq_s32(s, u[3], x, 3);
}

#else

#define INT8_TOKENS 4 /* with four rows: two vectors of integers and one of floats each */

/* Two halves of each of the sums of two rows, and of the other two. */
typedef struct int8_sums
{
	int32x4_t low, high;
} int8_sums;

#define sums_zero() ((int8_sums){vdupq_n_s32(0), vdupq_n_s32(0)})
#define sums_times_256(s) ((int8_sums){vshlq_n_s32((s).low, 8), vshlq_n_s32((s).high, 8)})
#define sums_total(s) vpaddq_s32((s).low, (s).high)

/* Four bytes of x to all lanes. */
#define spread(x, lane) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), lane))

/* Eight columns of sums_add(). */
INLINE int8_sums
sums_add_eight(int8_sums s, int8x16_t ua, int8x16_t ub, int8x16_t xa, int8x16_t xb,
               const bool small)
{
	int16x8_t low = vmull_s8(vget_low_s8(ua), vget_low_s8(xa)), high = vmull_high_s8(ua, xa);

	if (small)
	{
		low = vmlal_s8(low, vget_low_s8(ub), vget_low_s8(xb));
		high = vmlal_high_s8(high, ub, xb);
	}
	else
	{
		s.low = vpadalq_s16(s.low, vmull_s8(vget_low_s8(ub), vget_low_s8(xb)));
		s.high = vpadalq_s16(s.high, vmull_high_s8(ub, xb));
	}
	return (int8_sums){vpadalq_s16(s.low, low), vpadalq_s16(s.high, high)};
}

/*
 * s plus 16 columns of four rows, which stand in fours in u, times x. Two products can be added in
 * 16 bits where x is small: -127 ... 127 and not -128. small is a constant.
 */
INLINE int8_sums
sums_add(int8_sums s, const int8x16_t u[4], int8x16_t x, const bool small)
{
	s = sums_add_eight(s, u[0], u[1], spread(x, 0), spread(x, 1), small);
	return sums_add_eight(s, u[2], u[3], spread(x, 2), spread(x, 3), small);
}

#endif

#include "int8_rows.h"

/* 16 columns of four rows, in fours, the first eight from hi and lo on, the others 64 bytes on. */
INLINE void
unpack_bytes(const uint8_t *hi, const uint8_t *lo, const bool nibbles, int8x16_t u[4])
{
	foreach (i, 2)
	{
		uint8x16_t h = vld1q_u8(hi + 64 * i);

		if (nibbles)
		{
			u[2 * i] = vreinterpretq_s8_u8(vandq_u8(h, vdupq_n_u8(15)));
			u[2 * i + 1] = vreinterpretq_s8_u8(vshrq_n_u8(h, 4));
		}
		else
		{
			uint8x16_t l = vld1q_u8(lo + 64 * i);

			h = veorq_u8(h, vdupq_n_u8(0x88)); /* less 128, in the halves of both weights */
			u[2 * i] = vreinterpretq_s8_u8(vsliq_n_u8(l, h, 4));
			u[2 * i + 1] = vreinterpretq_s8_u8(vsriq_n_u8(h, l, 4));
		}
	}
}

/* A block of the weights with n tokens of one plane of activations. */
INLINE void
add_block(const int8_rows *w, const int n_vectors, const int n, const bool nibbles,
          const bool first_plane, int32_t b, const int8_t *q, size_t ldq,
          int8_sums sums[INT8_TOKENS][4])
{
	foreach (v, 2)
	{
		const uint8_t *hi = w->hi + (size_t) b * NIBBLE_BLOCK + v * 128;
		const uint8_t *lo = nibbles ? hi : w->lo + (size_t) b * NIBBLE_BLOCK + v * 128;

		if (n_vectors == 4 && first_plane)
			foreach (i, 2)
			{
				__builtin_prefetch(hi + 1024 + 64 * i);
				if (!nibbles)
					__builtin_prefetch(lo + 1024 + 64 * i);
			}
		foreach (p, n_vectors)
		{
			int8x16_t u[4];

			unpack_bytes(hi + 16 * p, lo + 16 * p, nibbles, u);
			foreach (t, n)
				sums[t][p] =
				    sums_add(sums[t][p], u, vld1q_s8(q + (size_t) t * ldq + 16 * v), first_plane);
		}
	}
}

/* acc[token][vector] += what the integers of a block stand for. */
INLINE void
add_scaled(const int8_rows *w, const int n_vectors, const int n, const bool nibbles, const bool two,
           int32_t b, const q3_acts *x, int8_sums sums[INT8_TOKENS][4], V acc[INT8_TOKENS][4])
{
	size_t ldb = (size_t) (x->cols / Q3_PLANE_BLOCK);

	foreach (p, n_vectors)
	{
		size_t first = (size_t) b * Q3_PANEL_ROWS + (size_t) (4 * p);
		V scale = v_load_half(w->scale + first), offset;

		if (nibbles && w->offset != NULL)
			offset = v_mul(v_load_half(w->offset + first), v_set1(-0x1p-7f));
		else
			offset = v_mul(scale, v_set1(w->middle));
		scale = v_mul(scale, v_set1(w->factor));
		foreach (t, n)
		{
			size_t at = (size_t) t * ldb + (size_t) b;
			float xscale = two ? x->scale[at] * 0x1p-8f : x->scale[at];
			int32_t sum = two ? 256 * x->sum[at] + x->lo_sum[at] : x->sum[at];

			if (nibbles)
				acc[t][p] = v_fma(offset, v_set1(xscale * (float) sum), acc[t][p]);
			acc[t][p] =
			    v_fma(i_to_float(sums_total(sums[t][p])), v_mul(scale, v_set1(xscale)), acc[t][p]);
		}
	}
}

/*
 * n tokens from x on to y[t] + r, n_rows of which exist. n_vectors of four rows, n, nibbles (else
 * bytes) and two (planes of activations) are constants.
 */
INLINE void
int8_tile(const int8_rows *w, const int n_vectors, const int n, const bool nibbles, const bool two,
          const q3_acts *x, float *const *y, int32_t r, int n_rows)
{
	size_t ldq = (size_t) x->cols;
	V acc[INT8_TOKENS][4];

	foreach (t, n)
		foreach (p, n_vectors)
			acc[t][p] = v_zero();
	for (int32_t b = 0; b < w->n_blocks; b++)
	{
		int8_sums sums[INT8_TOKENS][4];

		foreach (t, n)
			foreach (p, n_vectors)
				sums[t][p] = sums_zero();
		add_block(w, n_vectors, n, nibbles, true, b, x->q + b * Q3_PLANE_BLOCK, ldq, sums);
		if (two)
		{
			foreach (t, n)
				foreach (p, n_vectors)
					sums[t][p] = sums_times_256(sums[t][p]);
			add_block(w, n_vectors, n, nibbles, false, b, x->lo + b * Q3_PLANE_BLOCK, ldq, sums);
		}
		add_scaled(w, n_vectors, n, nibbles, two, b, x, sums, acc);
	}
	foreach (t, n)
		foreach (p, n_vectors)
			if (n_rows > 4 * p)
				v_store_first(y[t] + r + 4 * p, acc[t][p], n_rows - 4 * p < 4 ? n_rows - 4 * p : 4);
}

#define DEFINE_INT8_TILE(NAME, N, NIBBLES, TWO)                                                    \
	static void NAME##_##N(const int8_rows *w, const q3_acts *x, float *const *y, int32_t r,       \
	                       int n_rows)                                                             \
	{                                                                                              \
		int8_tile(w, N == 1 ? 4 : 1, N, NIBBLES, TWO, x, y, r, n_rows);                            \
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
#if INT8_TOKENS == 8
DEFINE_INT8(5)
DEFINE_INT8(6)
DEFINE_INT8(7)
DEFINE_INT8(8)
#define ALL_INT8(NAME)                                                                             \
	{                                                                                              \
		NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8             \
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

/* A panel of which n_rows exist with up to INT8_TOKENS tokens. */
static void
int8_panel(const q3_planes *w, bool nibbles, int32_t row, int n_rows, const q3_acts *x, int32_t n,
           float *const *y)
{
	int8_fn product = int8_tiles[nibbles][x->lo != NULL][n - 1];
	int step = n == 1 ? Q3_PANEL_ROWS : VL;

	for (int i = 0; i < n_rows; i += step)
	{
		int8_rows rows = int8_rows_at(w, nibbles, row + i);

		product(&rows, x, y, row + i, n_rows - i < step ? n_rows - i : step);
	}
}

static void
neon_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end, const q3_acts *x,
                 int32_t n_tokens, float *const *y, void *scratch)
{
	bool nibbles = bits == 4 || w->kind == Q3_PLANES_4;
	int32_t n_tiles = (n_tokens + INT8_TOKENS - 1) / INT8_TOKENS;

	(void) scratch;
	for (int32_t r = row_begin; r < row_end; r += Q3_PANEL_ROWS)
		for (int32_t i = 0, t = 0; i < n_tiles; i++)
		{
			int32_t n = n_tokens / n_tiles + (i < n_tokens % n_tiles ? 1 : 0);
			q3_acts from = q3_acts_at(x, t, 0);

			int8_panel(w, nibbles, r, row_end - r < Q3_PANEL_ROWS ? row_end - r : Q3_PANEL_ROWS,
			           &from, n, y + t);
			t += n;
		}
}
