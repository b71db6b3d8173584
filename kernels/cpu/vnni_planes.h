/*
 * vnni_planes.h: products of packed matrices with activations of 8 or 16 bits, for AVX-512 with
 * VNNI (included by avx512.c).
 *
 * vpdpbusd multiplies unsigned weights with signed activations and adds four neighbours into 32
 * bits without saturation, so the integers are exact; the -128 of the weights is in the number that
 * a block's sum starts from. Tokens up to TILE_TOKENS: weights are unpacked in registers. More: a
 * slice of two panels is unpacked into the first cache and used for all tokens. Either way a tile
 * holds an integer and a float accumulator for each of its panels and tokens in registers, and each
 * output sees the same operations in the same order.
 *
 * The second plane of 16-bit activations is added to the same integers, moved up by 8 bits, in a
 * second pass over a block's weights; where registers allow, to integers of its own in one pass.
 */
#include "planes_layout.h"

#define TILE_TOKENS 6
#define TILE_PANELS 2
#define SLICE_BLOCKS 16 /* columns of an unpacked slice, in blocks: 16 KB */
#define UNPACKED_BLOCK (2 * NIBBLE_BLOCK)
/* Bytes, scales and offsets */
#define UNPACKED_SLICE                                                                             \
	(TILE_PANELS * SLICE_BLOCKS * (UNPACKED_BLOCK + 2 * Q3_PANEL_ROWS * (int) sizeof(float)))
#define MAX_AHEAD (TILE_PANELS * 8) /* cache lines that a block of the next slice is in */
#define PLANES_AHEAD 1024           /* bytes to prefetch ahead in each plane, for few tokens */

/* In assembler: gcc 12 copies every accumulator that goes through the intrinsic. */
#define DPBUSD(acc, u, x) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(x))

/* The same columns of up to four neighbouring panels. */
typedef struct int8_weights
{
	const uint8_t *hi, *lo; /* packed; or hi: unpacked, [block][8 vectors][panel] */
	const uint16_t *scale, *offset;
	size_t stride;         /* blocks from panel to panel */
	float factor, middle;  /* see planes_layout.h; middle: over -128 */
	const float *f_scale;  /* unpacked: [block][panel][16] */
	const float *f_offset; /* the same; NULL for 8 bits */
} int8_weights;

typedef struct int8_tile_args
{
	int8_weights w;
	int32_t n_blocks;
	q3_acts x; /* from the first token and column on */
	size_t ldq, ldb;
	/* Unpacked: where accumulators rest between slices; NULL for a first, or last, slice. */
	const float *from;
	float *to;
	float *const *y;
	int32_t row, n_rows; /* n_rows: of the last panel */
	/* Unpacked: lines to prefetch, next[ahead_begin ... ahead_end - 1] + b * NIBBLE_BLOCK. */
	int32_t ahead_begin, ahead_end;
	const uint8_t *next[MAX_AHEAD];
} int8_tile_args;

INLINE __m512i
broadcast4(const int8_t *p)
{
	return _mm512_set1_epi32((int) load_u32(p));
}

/* Columns 8 v ... 8 v + 3 and 8 v + 4 ... 8 v + 7 of a packed block as bytes. */
INLINE void
unpack_bytes(const uint8_t *hi, const uint8_t *lo, const bool nibbles, __m512i u[2])
{
	const __m512i low = _mm512_set1_epi8(15);
	__m512i h = _mm512_loadu_si512(hi), l;

	if (nibbles)
	{
		u[0] = _mm512_and_si512(h, low);
		u[1] = _mm512_and_si512(_mm512_srli_epi16(h, 4), low);
		return;
	}
	l = _mm512_loadu_si512(lo);
	/* 0xca: bits of the second where the first has ones, of the third elsewhere */
	u[0] = _mm512_ternarylogic_epi32(low, l, _mm512_slli_epi16(h, 4), 0xca);
	u[1] = _mm512_ternarylogic_epi32(low, _mm512_srli_epi16(l, 4), h, 0xca);
}

INLINE __m512
halves_of(const uint16_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

/* Scale, and for nibbles offset over -128, of a packed block. */
INLINE void
block_scales(const int8_weights *w, size_t at, const bool nibbles, __m512 *scale, __m512 *offset)
{
	__m512 f = halves_of(w->scale + at * Q3_PANEL_ROWS);

	*scale = _mm512_mul_ps(f, _mm512_set1_ps(w->factor));
	if (nibbles && w->offset != NULL)
		*offset =
		    _mm512_mul_ps(halves_of(w->offset + at * Q3_PANEL_ROWS), _mm512_set1_ps(-0x1p-7f));
	else if (nibbles)
		*offset = _mm512_mul_ps(f, _mm512_set1_ps(w->middle));
}

/*
 * The products of block b with the activations at q, for all tokens, are added to dot; and those
 * with the activations at lo, unless it is NULL, to lo_dot.
 */
INLINE void
add_block(const int8_tile_args *a, int32_t b, const int8_t *q, const int8_t *lo, const int n_panels,
          const int n_tokens, const bool packed, const bool nibbles, const bool both,
          __m512i dot[TILE_TOKENS][4], __m512i lo_dot[TILE_TOKENS][4])
{
	const int8_weights *w = &a->w;

	foreach (v, 4)
	{
		__m512i u[4][2];

		foreach (p, n_panels)
		{
			size_t at = (size_t) p * w->stride + (size_t) b;

			if (packed)
			{
				const uint8_t *high = w->hi + at * NIBBLE_BLOCK + v * 64;
				const uint8_t *low = nibbles ? NULL : w->lo + at * NIBBLE_BLOCK + v * 64;

				__builtin_prefetch(high + PLANES_AHEAD);
				if (!nibbles)
					__builtin_prefetch(low + PLANES_AHEAD);
				unpack_bytes(high, low, nibbles, u[p]);
			}
			else
				foreach (i, 2)
					u[p][i] = _mm512_load_si512(
					    w->hi +
					    ((size_t) (b * 8 + v * 2 + i) * (size_t) n_panels + (size_t) p) * 64);
		}
		foreach (i, 2)
			foreach (t, n_tokens)
			{
				size_t at = (size_t) t * a->ldq + (size_t) (v * 8 + i * 4);
				__m512i x = broadcast4(q + at);

				foreach (p, n_panels)
					DPBUSD(dot[t][p], u[p][i], x);
				if (!both)
					continue;
				x = broadcast4(lo + at);
				foreach (p, n_panels)
					DPBUSD(lo_dot[t][p], u[p][i], x);
			}
	}
}

/*
 * The integers of block b. n_panels and n_tokens are constants; so are packed (else unpacked),
 * nibbles (else bytes) and two (planes of activations).
 */
INLINE void
tile_dots(const int8_tile_args *a, int32_t b, const int n_panels, const int n_tokens,
          const bool packed, const bool nibbles, const bool two, __m512i dot[TILE_TOKENS][4])
{
	const int8_t *q = a->x.q + (size_t) b * Q3_PLANE_BLOCK;
	const int8_t *lo = two ? a->x.lo + (size_t) b * Q3_PLANE_BLOCK : NULL;
	const bool both = two && n_panels * n_tokens <= 4; /* in one pass */
	__m512i lo_dot[TILE_TOKENS][4];

	foreach (t, n_tokens)
	{
		size_t at = (size_t) t * a->ldb + (size_t) b;
		__m512i start = nibbles ? _mm512_setzero_si512() : _mm512_set1_epi32(a->x.sum[at]);

		foreach (p, n_panels)
		{
			dot[t][p] = start;
			lo_dot[t][p] = _mm512_setzero_si512();
		}
	}
	add_block(a, b, q, lo, n_panels, n_tokens, packed, nibbles, both, dot, lo_dot);
	if (!two)
		return;
	__asm__ volatile("" ::: "memory");
	foreach (t, n_tokens)
	{
		size_t at = (size_t) t * a->ldb + (size_t) b;
		__m512i start = nibbles ? _mm512_setzero_si512() : _mm512_set1_epi32(a->x.lo_sum[at]);

		foreach (p, n_panels)
		{
			dot[t][p] = _mm512_add_epi32(_mm512_slli_epi32(dot[t][p], 8), start);
			if (both)
				dot[t][p] = _mm512_add_epi32(dot[t][p], lo_dot[t][p]);
		}
	}
	if (!both)
	{
		__asm__ volatile("" ::: "memory"); /* or gcc loads ahead, and spills */
		add_block(a, b, lo, NULL, n_panels, n_tokens, packed, nibbles, false, dot, lo_dot);
	}
}

/* Constants as for tile_dots(). */
INLINE void
int8_tile(const int8_tile_args *a, const int n_panels, const int n_tokens, const bool packed,
          const bool nibbles, const bool two)
{
	const int8_weights *w = &a->w;
	__m512 acc[TILE_TOKENS][4];
	__mmask16 mask[4];

	foreach (p, n_panels)
		mask[p] = (__mmask16) (p == n_panels - 1 ? (1u << a->n_rows) - 1 : 0xffff);
	foreach (t, n_tokens)
		foreach (p, n_panels)
			acc[t][p] = _mm512_setzero_ps();
	if (!packed && a->from != NULL)
		foreach (t, n_tokens)
			foreach (p, n_panels)
				acc[t][p] = _mm512_load_ps(a->from + (t * n_panels + p) * Q3_PANEL_ROWS);
	for (int32_t b = 0; b < a->n_blocks; b++)
	{
		__m512i dot[TILE_TOKENS][4];
		__m512 scale[4], offset[4];

		if (!packed)
			for (int32_t i = a->ahead_begin; i < a->ahead_end; i++)
				__builtin_prefetch(a->next[i] + b * NIBBLE_BLOCK, 0, 2);
		tile_dots(a, b, n_panels, n_tokens, packed, nibbles, two, dot);
		foreach (p, n_panels)
			if (packed)
				block_scales(w, (size_t) p * w->stride + (size_t) b, nibbles, &scale[p],
				             &offset[p]);
			else
			{
				size_t at = ((size_t) b * (size_t) n_panels + (size_t) p) * 16;

				scale[p] = _mm512_load_ps(w->f_scale + at);
				if (nibbles)
					offset[p] = _mm512_load_ps(w->f_offset + at);
			}
		foreach (t, n_tokens)
		{
			size_t at = (size_t) t * a->ldb + (size_t) b;
			__m512 xscale = _mm512_set1_ps(two ? a->x.scale[at] * 0x1p-8f : a->x.scale[at]);

			if (nibbles)
			{
				int32_t sum = two ? 256 * a->x.sum[at] + a->x.lo_sum[at] : a->x.sum[at];
				__m512 shift = _mm512_mul_ps(xscale, _mm512_cvtepi32_ps(_mm512_set1_epi32(sum)));

				foreach (p, n_panels)
					acc[t][p] = _mm512_fmadd_ps(offset[p], shift, acc[t][p]);
			}
			foreach (p, n_panels)
				acc[t][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t][p]),
				                            _mm512_mul_ps(scale[p], xscale), acc[t][p]);
		}
	}
	if (!packed && a->to != NULL)
	{
		foreach (t, n_tokens)
			foreach (p, n_panels)
				_mm512_store_ps(a->to + (t * n_panels + p) * Q3_PANEL_ROWS, acc[t][p]);
		return;
	}
	foreach (t, n_tokens)
		foreach (p, n_panels)
			_mm512_mask_storeu_ps(a->y[t] + a->row + p * 16, mask[p], acc[t][p]);
}

#define DEFINE_ONE(NAME, PANELS, TOKENS, PACKED, NIBBLES, TWO)                                     \
	static void NAME##_##PANELS##_##TOKENS(const int8_tile_args *a)                                \
	{                                                                                              \
		int8_tile(a, PANELS, TOKENS, PACKED, NIBBLES, TWO);                                        \
	}
#define DEFINE_PACKED_TILE(PANELS, TOKENS)                                                         \
	DEFINE_ONE(packed_bytes, PANELS, TOKENS, true, false, false)                                   \
	DEFINE_ONE(packed_nibbles, PANELS, TOKENS, true, true, false)                                  \
	DEFINE_ONE(packed_bytes_two, PANELS, TOKENS, true, false, true)                                \
	DEFINE_ONE(packed_nibbles_two, PANELS, TOKENS, true, true, true)
#define DEFINE_TILE(PANELS, TOKENS)                                                                \
	DEFINE_ONE(bytes, PANELS, TOKENS, false, false, false)                                         \
	DEFINE_ONE(nibbles, PANELS, TOKENS, false, true, false)                                        \
	DEFINE_ONE(bytes_two, PANELS, TOKENS, false, false, true)                                      \
	DEFINE_ONE(nibbles_two, PANELS, TOKENS, false, true, true)                                     \
	DEFINE_PACKED_TILE(PANELS, TOKENS)
#define DEFINE_TILES(PANELS)                                                                       \
	DEFINE_TILE(PANELS, 1)                                                                         \
	DEFINE_TILE(PANELS, 2)                                                                         \
	DEFINE_TILE(PANELS, 3) DEFINE_TILE(PANELS, 4) DEFINE_TILE(PANELS, 5) DEFINE_TILE(PANELS, 6)
#define ALL(NAME, PANELS)                                                                          \
	{                                                                                              \
		NAME##_##PANELS##_1, NAME##_##PANELS##_2, NAME##_##PANELS##_3, NAME##_##PANELS##_4,        \
		    NAME##_##PANELS##_5, NAME##_##PANELS##_6                                               \
	}

DEFINE_TILES(1)
DEFINE_TILES(2)
DEFINE_PACKED_TILE(4, 1)
DEFINE_PACKED_TILE(4, 2)

typedef void (*int8_tile_fn)(const int8_tile_args *a);

/* [nibbles][two planes of activations][panels - 1][tokens - 1] */
static const int8_tile_fn unpacked_tiles[2][2][2][TILE_TOKENS] = {
    {{ALL(bytes, 1), ALL(bytes, 2)}, {ALL(bytes_two, 1), ALL(bytes_two, 2)}},
    {{ALL(nibbles, 1), ALL(nibbles, 2)}, {ALL(nibbles_two, 1), ALL(nibbles_two, 2)}}};
static const int8_tile_fn packed_tiles[2][2][2][TILE_TOKENS] = {
    {{ALL(packed_bytes, 1), ALL(packed_bytes, 2)},
     {ALL(packed_bytes_two, 1), ALL(packed_bytes_two, 2)}},
    {{ALL(packed_nibbles, 1), ALL(packed_nibbles, 2)},
     {ALL(packed_nibbles_two, 1), ALL(packed_nibbles_two, 2)}}};
static const int8_tile_fn packed_four[2][2][2] = {
    {{packed_bytes_4_1, packed_bytes_4_2}, {packed_bytes_two_4_1, packed_bytes_two_4_2}},
    {{packed_nibbles_4_1, packed_nibbles_4_2}, {packed_nibbles_two_4_1, packed_nibbles_two_4_2}}};

static int8_weights
int8_weights_at(const q3_planes *w, bool nibbles, int32_t row, int32_t block)
{
	size_t at = panel_block(w, row / Q3_PANEL_ROWS, block);
	int8_weights out = {
	    .hi = w->hi + at * NIBBLE_BLOCK,
	    .scale = w->scale + at * Q3_PANEL_ROWS,
	    .stride = (size_t) (w->cols / Q3_PLANE_BLOCK),
	    .factor = nibbles ? nibble_factor(w->kind) : byte_factor(w->kind),
	    .middle = nibble_middle(w->kind) * -0x1p-7f,
	};

	if (!nibbles)
		out.lo = w->lo + at * NIBBLE_BLOCK;
	if (w->offset != NULL)
		out.offset = w->offset + at * Q3_PANEL_ROWS;
	return out;
}

/* Few tokens: every weight is used once, from where it lies. */
static void
int8_few(const q3_planes *w, bool nibbles, int32_t row_begin, int32_t row_end, const q3_acts *x,
         int32_t n_tokens, float *const *y)
{
	const bool two = x->lo != NULL;
	const size_t blocks = (size_t) (w->cols / Q3_PLANE_BLOCK);
	int8_tile_args a = {.n_blocks = (int32_t) blocks,
	                    .x = *x,
	                    .ldq = blocks * Q3_PLANE_BLOCK,
	                    .ldb = blocks,
	                    .y = y};

	for (int32_t r = row_begin, n_panels; r < row_end; r += n_panels * Q3_PANEL_ROWS)
	{
		int32_t left = (row_end - r + Q3_PANEL_ROWS - 1) / Q3_PANEL_ROWS;

		n_panels = left >= 4 && n_tokens <= 2 ? 4 : left >= 2 ? 2 : 1;
		a.w = int8_weights_at(w, nibbles, r, 0);
		a.row = r;
		a.n_rows = left == n_panels ? row_end - r - (n_panels - 1) * Q3_PANEL_ROWS : 16;
		if (n_panels == 4)
			packed_four[nibbles][two][n_tokens - 1](&a);
		else
			packed_tiles[nibbles][two][n_panels - 1][n_tokens - 1](&a);
	}
}

/*
 * Unpacks n_blocks of n_panels panels to "out", and says where they are now. less_128: bytes become
 * signed ones, u - 128.
 */
INLINE void
unpack_slice_as(int8_weights *moved, const bool nibbles, const bool less_128, int32_t n_blocks,
                int32_t n_panels, uint8_t *out)
{
	const int8_weights copy = *moved, *w = &copy;
	float *scales = (float *) (out + TILE_PANELS * SLICE_BLOCKS * UNPACKED_BLOCK);
	float *offsets = scales + TILE_PANELS * SLICE_BLOCKS * Q3_PANEL_ROWS;

	for (int32_t p = 0; p < n_panels; p++)
		for (int32_t b = 0; b < n_blocks; b++)
		{
			size_t from = (size_t) p * w->stride + (size_t) b,
			       to = (size_t) (b * n_panels + p) * 16;
			uint8_t *bytes = out + (size_t) (b * 8 * n_panels + p) * 64;
			__m512 scale, offset = _mm512_setzero_ps();

			foreach (v, 4)
			{
				__m512i u[2];

				unpack_bytes(w->hi + from * NIBBLE_BLOCK + v * 64,
				             nibbles ? NULL : w->lo + from * NIBBLE_BLOCK + v * 64, nibbles, u);
				if (less_128)
					foreach (i, 2)
						u[i] = _mm512_xor_si512(u[i], _mm512_set1_epi8(-128));
				_mm512_store_si512(bytes + (v * 2) * n_panels * 64, u[0]);
				_mm512_store_si512(bytes + (v * 2 + 1) * n_panels * 64, u[1]);
			}
			block_scales(w, from, nibbles, &scale, &offset);
			_mm512_store_ps(scales + to, scale);
			_mm512_store_ps(offsets + to, offset);
		}
	moved->hi = out;
	moved->f_scale = scales;
	moved->f_offset = offsets;
}

static void
unpack_slice(int8_weights *moved, bool nibbles, bool as_signed, int32_t n_blocks, int32_t n_panels,
             uint8_t *out)
{
	if (nibbles)
		unpack_slice_as(moved, true, false, n_blocks, n_panels, out);
	else if (as_signed)
		unpack_slice_as(moved, false, true, n_blocks, n_panels, out);
	else
		unpack_slice_as(moved, false, false, n_blocks, n_panels, out);
}

/*
 * What is read next is prefetched by the tiles while they compute: each block of theirs a block of
 * it, each tile some of its lines. Returns how many there are.
 */
static int32_t
lines_ahead(const int8_weights *w, int32_t n_panels, const uint8_t **next)
{
	int32_t n = 0;

	for (int32_t p = 0; p < n_panels; p++)
	{
		size_t at = (size_t) p * w->stride;

		for (int32_t i = 0; i < NIBBLE_BLOCK; i += 64)
		{
			next[n++] = w->hi + at * NIBBLE_BLOCK + i;
			if (w->lo != NULL)
				next[n++] = w->lo + at * NIBBLE_BLOCK + i;
		}
		for (int32_t b = 0; b < SLICE_BLOCKS; b += 2)
			__builtin_prefetch(w->scale + (at + (size_t) b) * Q3_PANEL_ROWS, 0, 2);
	}
	return n;
}

/* Panels with all tokens, slice by slice. */
typedef struct int8_panels
{
	bool nibbles, first, last; /* slice */
	int32_t n_panels, n_tokens, n_ahead;
	q3_acts x; /* from the first token and the slice's first column on */
	float *const *y;
	float *rest; /* for the accumulators */
	void (*multiply)(const struct int8_panels *p, int8_tile_args *a);
	bool as_signed; /* how multiply() wants weights of 8 bits */
} int8_panels;

/* Where the accumulators from token t on rest, if they have to. */
static void
rest_at(const int8_panels *p, int8_tile_args *a, float *rest)
{
	a->to = p->last ? NULL : rest;
	a->from = p->first ? NULL : rest;
}

/* A slice with all tokens, in tiles of as equal a size as can be. */
static void
vnni_slice(const int8_panels *p, int8_tile_args *a)
{
	const int8_tile_fn *tiles = unpacked_tiles[p->nibbles][p->x.lo != NULL][p->n_panels - 1];
	int32_t n_tiles = (p->n_tokens + TILE_TOKENS - 1) / TILE_TOKENS;

	for (int32_t i = 0, t = 0; i < n_tiles; i++)
	{
		int32_t n = p->n_tokens / n_tiles + (i < p->n_tokens % n_tiles ? 1 : 0);

		a->x = q3_acts_at(&p->x, t, 0);
		a->y = p->y + t;
		rest_at(p, a, p->rest + t * p->n_panels * Q3_PANEL_ROWS);
		a->ahead_begin = p->n_ahead * i / n_tiles;
		a->ahead_end = p->n_ahead * (i + 1) / n_tiles;
		tiles[n - 1](a);
		t += n;
	}
}

/* All slices of two panels (or one). */
static void
panels_times_tokens(const q3_planes *w, const q3_acts *x, int8_panels *p, int8_tile_args *a,
                    uint8_t *scratch)
{
	int32_t n_blocks = w->cols / Q3_PLANE_BLOCK;
	int32_t n_slices = (n_blocks + SLICE_BLOCKS - 1) / SLICE_BLOCKS;
	int32_t step = (n_blocks + n_slices - 1) / n_slices;

	for (int32_t b = 0; b < n_blocks; b += step)
	{
		int8_weights next;

		p->first = b == 0;
		p->last = b + step >= n_blocks;
		next = p->last ? int8_weights_at(w, p->nibbles, a->row + p->n_panels * Q3_PANEL_ROWS, 0)
		               : int8_weights_at(w, p->nibbles, a->row, b + step);
		a->n_blocks = p->last ? n_blocks - b : step;
		a->w = int8_weights_at(w, p->nibbles, a->row, b);
		unpack_slice(&a->w, p->nibbles, p->as_signed, a->n_blocks, p->n_panels, scratch);
		p->x = q3_acts_at(x, 0, b);
		p->n_ahead = lines_ahead(&next, p->n_panels, a->next);
		p->multiply(p, a);
	}
}

/* At most REST_TOKENS tokens; p says how. */
static void
int8_many(const q3_planes *w, int32_t row_begin, int32_t row_end, const q3_acts *x, int8_panels *p,
          void *scratch)
{
	size_t blocks = (size_t) (w->cols / Q3_PLANE_BLOCK);
	int8_tile_args a = {.ldq = blocks * Q3_PLANE_BLOCK, .ldb = blocks};

	p->rest = (float *) ((uint8_t *) scratch + UNPACKED_SLICE);
	for (int32_t r = row_begin; r < row_end; r += TILE_PANELS * Q3_PANEL_ROWS)
	{
		int32_t n_rows;

		p->n_panels = row_end - r > Q3_PANEL_ROWS ? 2 : 1;
		n_rows = row_end - r - (p->n_panels - 1) * Q3_PANEL_ROWS;
		a.row = r;
		a.n_rows = n_rows < Q3_PANEL_ROWS ? n_rows : Q3_PANEL_ROWS;
		panels_times_tokens(w, x, p, &a, scratch);
	}
}

static void
vnni_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end, const q3_acts *x,
                 int32_t n_tokens, float *const *y, void *scratch)
{
	bool nibbles = bits == 4 || w->kind == Q3_PLANES_4;

	if (n_tokens <= TILE_TOKENS)
	{
		int8_few(w, nibbles, row_begin, row_end, x, n_tokens, y);
		return;
	}
	for (int32_t t = 0; t < n_tokens; t += REST_TOKENS)
	{
		int32_t n = n_tokens - t < REST_TOKENS ? n_tokens - t : REST_TOKENS;
		int8_panels p = {.nibbles = nibbles, .n_tokens = n, .y = y + t, .multiply = vnni_slice};
		q3_acts from = q3_acts_at(x, t, 0);

		int8_many(w, row_begin, row_end, &from, &p, scratch);
	}
}

#undef DEFINE_ONE
#undef DEFINE_TILE
#undef DEFINE_PACKED_TILE
#undef DEFINE_TILES
#undef ALL

_Static_assert(UNPACKED_SLICE + REST_TOKENS * TILE_PANELS * Q3_PANEL_ROWS * sizeof(float) <=
                   PLANES_SCRATCH,
               "q3_matmul_scratch() is too small");
