/*
 * amx_planes.h: products of packed matrices with activations of 8 or 16 bits for AVX-512 with AMX
 * (included by avx512.c, after vnni_planes.h, whose slices it uses).
 *
 * A tile instruction multiplies a block of 32 columns of up to 16 tokens (signed bytes) with the
 * same block of a panel of 16 rows (eight vectors of an unpacked slice, as signed bytes: -128 is
 * taken off when they are unpacked, so that no start value is needed). Its integers go through a
 * small buffer to the float accumulators, 16 registers of a token each, with the same operations in
 * the same order as everywhere else: each output has the bits that VNNI gives it. While one block's
 * integers are made floats, the next one's are stored and those of the block after it multiplied.
 *
 * Tokens are cut into groups of one size, the last of which may repeat some of the one before. The
 * shapes of tiles are a state of the thread: set at the beginning of a call and given up at its
 * end, which also keeps them out of context switches. All instructions are in assembler: the
 * compilers' intrinsics do not say what memory they touch.
 */
#include "matmul_sizes.h"

#define AMX_GROUP 16  /* tokens */
#define AMX_FEWEST 11 /* tokens in a group; with fewer, VNNI is faster */
#define AMX_DOTS (AMX_GROUP * Q3_PANEL_ROWS)
#define AMX_SCALES (AMX_GROUP * SLICE_BLOCKS)

/* Tiles: 0 and 1 integers of even and odd blocks, 2 and 3 those of the second plane, 4 tokens, 5
 * weights. */
typedef struct tile_shapes
{
	uint8_t palette, start_row, reserved[14];
	uint16_t row_bytes[16];
	uint8_t rows[16];
} tile_shapes;

static void
begin_tiles(int n_tokens)
{
	tile_shapes shapes = {.palette = 1};

	for (int i = 0; i < 6; i++)
	{
		shapes.row_bytes[i] = i == 4 ? Q3_PLANE_BLOCK : 64;
		shapes.rows[i] = (uint8_t) (i == 5 ? Q3_PLANE_BLOCK / 4 : n_tokens);
	}
	__asm__ volatile("ldtilecfg %0" ::"m"(shapes));
}

static void
end_tiles(void)
{
	__asm__ volatile("tilerelease");
}

/* Where the next block's tokens, in one or two planes, and weights are. */
typedef struct tile_operands
{
	const int8_t *q, *lo;
	const uint8_t *w;
	size_t ldq, ldw;
} tile_operands;

#define DEFINE_PRODUCT(NAME, TILE, LO_TILE)                                                        \
	INLINE void NAME##_product(tile_operands *o, const bool two)                                   \
	{                                                                                              \
		__asm__ volatile("tilezero %%tmm" TILE "\n"                                                \
		                 "tileloadd (%0,%1,1), %%tmm5\n"                                           \
		                 "tileloadd (%2,%3,1), %%tmm4\n"                                           \
		                 "tdpbssd %%tmm5, %%tmm4, %%tmm" TILE "\n" ::"r"(o->w),                    \
		                 "r"(o->ldw), "r"(o->q), "r"(o->ldq)                                       \
		                 : "memory");                                                              \
		if (two)                                                                                   \
			__asm__ volatile("tilezero %%tmm" LO_TILE "\n"                                         \
			                 "tileloadd (%0,%1,1), %%tmm4\n"                                       \
			                 "tdpbssd %%tmm5, %%tmm4, %%tmm" LO_TILE "\n" ::"r"(o->lo),            \
			                 "r"(o->ldq)                                                           \
			                 : "memory");                                                          \
		o->w += 8 * o->ldw;                                                                        \
		o->q += Q3_PLANE_BLOCK;                                                                    \
		if (two)                                                                                   \
			o->lo += Q3_PLANE_BLOCK;                                                               \
	}                                                                                              \
	INLINE void NAME##_store(int32_t *dots, const bool two)                                        \
	{                                                                                              \
		__asm__ volatile("tilestored %%tmm" TILE ", (%0,%1,1)" ::"r"(dots), "r"((size_t) 64)       \
		                 : "memory");                                                              \
		if (two)                                                                                   \
			__asm__ volatile("tilestored %%tmm" LO_TILE ", (%0,%1,1)" ::"r"(dots + AMX_DOTS),      \
			                 "r"((size_t) 64)                                                      \
			                 : "memory");                                                          \
	}

DEFINE_PRODUCT(even, "0", "2")
DEFINE_PRODUCT(odd, "1", "3")

/*
 * 1.5 * 2^23, to whose bits integers up to 2^22 can be added: that and a subtraction are made by
 * the units for additions. For some 40 ns after each tile instruction only one unit is left that
 * converts, multiplies or fuses, and it is what the loop waits for.
 */
#define TO_FLOAT 0x4b400000

/*
 * Adds a block's products to the accumulators. xscale: of the block in each token, SLICE_BLOCKS
 * apart; behind all of them, for nibbles, the same times the sum of activations.
 */
INLINE void
add_dots(const int32_t *dots, const float *scale, const float *offset, const float *xscale,
         const int n_tokens, const bool nibbles, const bool two, __m512 acc[AMX_GROUP])
{
	const __m512i magic = _mm512_set1_epi32(TO_FLOAT);
	const __m512i up_8 =
	    _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 2, 0, 4, 5, 6, 0, 8, 9, 10, 0, 12, 13, 14));
	__m512 s = _mm512_load_ps(scale), o;

	if (nibbles)
		o = _mm512_load_ps(offset);
	foreach (t, n_tokens)
	{
		__m512i dot = _mm512_load_si512(dots + t * Q3_PANEL_ROWS);
		__m512 f;

		if (two)
			f = _mm512_cvtepi32_ps(
			    _mm512_add_epi32(_mm512_maskz_shuffle_epi8(0xeeeeeeeeeeeeeeee, dot, up_8),
			                     _mm512_load_si512(dots + AMX_DOTS + t * Q3_PANEL_ROWS)));
		else
			f = _mm512_sub_ps(_mm512_castsi512_ps(_mm512_add_epi32(dot, magic)),
			                  _mm512_castsi512_ps(magic));
		if (nibbles)
			acc[t] =
			    _mm512_fmadd_ps(o, _mm512_set1_ps(xscale[AMX_SCALES + t * SLICE_BLOCKS]), acc[t]);
		acc[t] =
		    _mm512_fmadd_ps(f, _mm512_mul_ps(s, _mm512_set1_ps(xscale[t * SLICE_BLOCKS])), acc[t]);
	}
}

/*
 * A slice of one of n_panels panels with n_tokens tokens, a constant as nibbles and two are. work:
 * scales of activations, and room for integers.
 */
INLINE void
amx_tile(const int8_tile_args *a, int32_t n_panels, const float *work, const int n_tokens,
         const bool nibbles, const bool two)
{
	tile_operands o = {a->x.q, a->x.lo, a->w.hi, a->ldq, (size_t) n_panels * 64};
	int32_t *even = (int32_t *) (work + 2 * AMX_SCALES), *odd = even + 2 * AMX_DOTS;
	const float *scale = a->w.f_scale, *offset = a->w.f_offset;
	const int32_t n_blocks = a->n_blocks, step = n_panels * Q3_PANEL_ROWS;
	__m512 acc[AMX_GROUP];

	foreach (t, n_tokens)
		acc[t] = _mm512_setzero_ps();
	if (a->from != NULL)
		foreach (t, n_tokens)
			acc[t] = _mm512_load_ps(a->from + t * Q3_PANEL_ROWS);
	even_product(&o, two);
	if (n_blocks > 1)
		odd_product(&o, two);
	even_store(even, two);
	for (int32_t b = 0; b < n_blocks; b += 2, work += 2)
	{
		for (int32_t i = a->ahead_begin; i < a->ahead_end; i++)
		{
			__builtin_prefetch(a->next[i] + b * NIBBLE_BLOCK, 0, 2);
			__builtin_prefetch(a->next[i] + (b + 1) * NIBBLE_BLOCK, 0, 2);
		}
		if (b + 2 < n_blocks)
			even_product(&o, two);
		if (b + 1 < n_blocks)
			odd_store(odd, two);
		add_dots(even, scale, offset, work, n_tokens, nibbles, two, acc);
		scale += step;
		offset += step;
		if (b + 1 == n_blocks)
			break;
		if (b + 3 < n_blocks)
			odd_product(&o, two);
		if (b + 2 < n_blocks)
			even_store(even, two);
		add_dots(odd, scale, offset, work + 1, n_tokens, nibbles, two, acc);
		scale += step;
		offset += step;
	}
	if (a->to != NULL)
		foreach (t, n_tokens)
			_mm512_store_ps(a->to + t * Q3_PANEL_ROWS, acc[t]);
	else
		foreach (t, n_tokens)
			_mm512_mask_storeu_ps(a->y[t] + a->row, (__mmask16) ((1u << a->n_rows) - 1), acc[t]);
}

typedef void (*amx_tile_fn)(const int8_tile_args *a, int32_t n_panels, const float *work);

#define DEFINE_AMX(NAME, TOKENS, NIBBLES, TWO)                                                     \
	static void NAME##_##TOKENS(const int8_tile_args *a, int32_t n_panels, const float *work)      \
	{                                                                                              \
		amx_tile(a, n_panels, work, TOKENS, NIBBLES, TWO);                                         \
	}
#define DEFINE_AMX_TILES(TOKENS)                                                                   \
	DEFINE_AMX(amx_bytes, TOKENS, false, false)                                                    \
	DEFINE_AMX(amx_bytes_two, TOKENS, false, true)                                                 \
	DEFINE_AMX(amx_nibbles, TOKENS, true, false)                                                   \
	DEFINE_AMX(amx_nibbles_two, TOKENS, true, true)
#define ALL_AMX(NAME)                                                                              \
	{                                                                                              \
		NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8, NAME##_9,  \
		    NAME##_10, NAME##_11, NAME##_12, NAME##_13, NAME##_14, NAME##_15, NAME##_16            \
	}

DEFINE_AMX_TILES(1)
DEFINE_AMX_TILES(2)
DEFINE_AMX_TILES(3)
DEFINE_AMX_TILES(4)
DEFINE_AMX_TILES(5)
DEFINE_AMX_TILES(6)
DEFINE_AMX_TILES(7)
DEFINE_AMX_TILES(8)
DEFINE_AMX_TILES(9)
DEFINE_AMX_TILES(10)
DEFINE_AMX_TILES(11)
DEFINE_AMX_TILES(12)
DEFINE_AMX_TILES(13)
DEFINE_AMX_TILES(14)
DEFINE_AMX_TILES(15)
DEFINE_AMX_TILES(16)

/* [nibbles][two planes of activations][tokens - 1] */
static const amx_tile_fn amx_tiles[2][2][AMX_GROUP] = {
    {ALL_AMX(amx_bytes), ALL_AMX(amx_bytes_two)}, {ALL_AMX(amx_nibbles), ALL_AMX(amx_nibbles_two)}};

/* The scales of a group's activations in a slice, side by side, as add_dots() reads them. */
static void
gather_scales(const int8_tile_args *a, int32_t n_tokens, bool nibbles, float *out)
{
	const __mmask16 mask = (__mmask16) ((1u << a->n_blocks) - 1);
	const bool two = a->x.lo != NULL;

	for (int32_t t = 0; t < n_tokens; t++, out += SLICE_BLOCKS)
	{
		size_t at = (size_t) t * a->ldb;
		__m512 scale = _mm512_maskz_loadu_ps(mask, a->x.scale + at);
		__m512i sum;

		if (two)
			scale = _mm512_mul_ps(scale, _mm512_set1_ps(0x1p-8f));
		_mm512_store_ps(out, scale);
		if (!nibbles)
			continue;
		sum = _mm512_maskz_loadu_epi32(mask, a->x.sum + at);
		if (two)
			sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8),
			                       _mm512_maskz_loadu_epi32(mask, a->x.lo_sum + at));
		_mm512_store_ps(out + AMX_SCALES, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum)));
	}
}

static int32_t
groups_of(int32_t n_tokens)
{
	return (n_tokens + AMX_GROUP - 1) / AMX_GROUP;
}

static int32_t
group_size(int32_t n_tokens)
{
	return (n_tokens + groups_of(n_tokens) - 1) / groups_of(n_tokens);
}

static void
amx_slice(const int8_panels *p, int8_tile_args *a)
{
	const int32_t n_groups = groups_of(p->n_tokens), n = group_size(p->n_tokens);
	const amx_tile_fn multiply = amx_tiles[p->nibbles][p->x.lo != NULL][n - 1];
	const int32_t n_rows = a->n_rows, row = a->row, n_steps = n_groups * p->n_panels;
	const int8_weights w = a->w;
	float *work = p->rest + REST_TOKENS * TILE_PANELS * Q3_PANEL_ROWS;

	for (int32_t i = 0; i < n_steps; i++)
	{
		int32_t group = i / p->n_panels, panel = i % p->n_panels;
		int32_t t = (group + 1) * n <= p->n_tokens ? group * n : p->n_tokens - n;

		a->x = q3_acts_at(&p->x, t, 0);
		if (panel == 0)
			gather_scales(a, n, p->nibbles, work);
		a->w.hi = w.hi + panel * 64;
		a->w.f_scale = w.f_scale + panel * Q3_PANEL_ROWS;
		a->w.f_offset = w.f_offset + panel * Q3_PANEL_ROWS;
		a->row = row + panel * Q3_PANEL_ROWS;
		a->n_rows = panel == p->n_panels - 1 ? n_rows : Q3_PANEL_ROWS;
		a->y = p->y + t;
		rest_at(p, a, p->rest + i * n * Q3_PANEL_ROWS);
		a->ahead_begin = p->n_ahead * i / n_steps;
		a->ahead_end = p->n_ahead * (i + 1) / n_steps;
		multiply(a, p->n_panels, work);
	}
	a->row = row;
	a->n_rows = n_rows;
}

static void
amx_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end, const q3_acts *x,
                int32_t n_tokens, float *const *y, void *scratch)
{
	for (int32_t t = 0, n; t < n_tokens; t += n)
	{
		int8_panels p = {.nibbles = bits == 4 || w->kind == Q3_PLANES_4,
		                 .y = y + t,
		                 .multiply = amx_slice,
		                 .as_signed = true};
		q3_acts from = q3_acts_at(x, t, 0);

		p.n_tokens = n = n_tokens - t < REST_TOKENS ? n_tokens - t : REST_TOKENS;
		if (group_size(n) < AMX_FEWEST)
		{
			vnni_matmul_int8(w, bits, row_begin, row_end, &from, n, y + t, scratch);
			continue;
		}
		begin_tiles(group_size(n));
		int8_many(w, row_begin, row_end, &from, &p, scratch);
		end_tiles();
	}
}

#undef DEFINE_PRODUCT
#undef DEFINE_AMX
#undef DEFINE_AMX_TILES
#undef ALL_AMX

_Static_assert(UNPACKED_SLICE +
                       (REST_TOKENS * TILE_PANELS * Q3_PANEL_ROWS + 2 * AMX_SCALES + 4 * AMX_DOTS) *
                           sizeof(float) <=
                   PLANES_SCRATCH,
               "q3_matmul_scratch() is too small");
