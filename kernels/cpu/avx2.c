/*
 * avx2.c: the kernels for x86-64 with AVX2, FMA and F16C (Haswell, Zen and later). Vector
 * operations and the unpacking of each weight type; the algorithms are in simd_matmul.h and
 * simd_ops.h.
 */
#include "cpu.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "vec.h"

#define VL 8
#define INT8_TOKENS 4   /* tokens with one vector of rows of packed matrices */
#define PLANES_TOKENS 6 /* tokens x 2 vectors of rows of packed matrices */
#define PANEL 4         /* rows in a panel: 4 x 3 accumulators of the 16 registers */
#define TILE 3          /* tokens */
#define STREAMS 4       /* rows at once with one token: sums enough to hide an addition's latency */
#define SCORE_TILE 2    /* queries x 4 vectors of 8 keys */
#define VALUE_TILE 2    /* queries */
#define VALUE_WIDTH 4   /* vectors of the head */

typedef __m256 V;
typedef struct
{
	V v[4];
} w32;

#define v_zero() _mm256_setzero_ps()
#define v_set1(f) _mm256_set1_ps(f)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_fnma(a, b, c) _mm256_fnmadd_ps(a, b, c)
/* b where one of the two is NaN */
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_min(a, b) _mm256_min_ps(a, b)
#define v_round(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_load_half(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) (p)))
#define v_store_half(p, v)                                                                         \
	_mm_storeu_si128((__m128i *) (p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT))
/* Exchanges the members of pairs (2i, 2i + 1). */
#define v_swap_pairs(a) _mm256_permute_ps(a, 0xb1)
/* Makes the compiler hold a value in a register. */
#define v_keep(a) __asm__("" : "+x"(a))
/* Makes it keep an array in memory, from where loads broadcast, instead of shuffling it about. */
#define in_memory(array) __asm__("" : "+m"(array))

/* Vectors of bits: 32-bit lanes unless said otherwise. */
typedef __m256i I;

#define i_load(p) _mm256_loadu_si256((const __m256i *) (p))
#define i_set1(i) _mm256_set1_epi32(i)
#define i_add(a, b) _mm256_add_epi32(a, b)
#define i_and(a, b) _mm256_and_si256(a, b)
#define i_or(a, b) _mm256_or_si256(a, b)
#define i_shift_left(a, n) _mm256_slli_epi32(a, n)
#define i_shift_right(a, n) _mm256_srli_epi32(a, n)
/* 16-bit lanes of a, plus the sums of pairs of products of bytes, u unsigned, x signed. */
#define i_add_pairs(a, u, x) _mm256_add_epi16(a, _mm256_maddubs_epi16(u, x))
/* Pairs of 16-bit lanes of a, multiplied with n (16 bits, too) and added in 32 bits. */
#define i_weigh_pairs(a, n) _mm256_madd_epi16(a, _mm256_set1_epi16(n))
#define i_max(a, b) _mm256_max_epi32(a, b)
#define i_min(a, b) _mm256_min_epi32(a, b)
#define i_max_unsigned(a, b) _mm256_max_epu32(a, b)
#define i_round(v) _mm256_cvtps_epi32(v)
#define i_to_float(a) _mm256_cvtepi32_ps(a)
#define i_as_float(a) _mm256_castsi256_ps(a)
#define f_as_bits(v) _mm256_castps_si256(v)
/* where a has ones b, elsewhere c; a & b | c */
#define i_select(a, b, c) _mm256_or_si256(_mm256_and_si256(a, b), _mm256_andnot_si256(a, c))
#define i_and_or(a, b, c) _mm256_or_si256(_mm256_and_si256(a, b), c)
/* Bytes of the low halves of 16-byte lanes of a and b in turns; of the high halves. */
#define i_zip_low(a, b) _mm256_unpacklo_epi8(a, b)
#define i_zip_high(a, b) _mm256_unpackhi_epi8(a, b)
/* Even, and odd, 32-bit elements of each 16-byte lane of a, then of b. */
#define i_even(a, b)                                                                               \
	_mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88))
#define i_odd(a, b)                                                                                \
	_mm256_castps_si256(_mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd))

/* VL 32-bit integers that fit them as bytes. */
static inline void
i_store_bytes(int8_t *p, I a)
{
	__m128i words = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));

	_mm_storel_epi64((__m128i *) p, _mm_packs_epi16(words, words));
}

static inline int32_t
i_sum(I a)
{
	__m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));

	s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
	return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline uint32_t
i_max_of_lanes(I a)
{
	__m128i m = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));

	m = _mm_max_epu32(m, _mm_unpackhi_epi64(m, m));
	return (uint32_t) _mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1)));
}

static inline __m256i
first_lanes(int n)
{
	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n <= VL elements only; the others are zero. */
#define v_load_first(p, n) _mm256_maskload_ps(p, first_lanes(n))
#define v_store_first(p, v, n) _mm256_maskstore_ps(p, first_lanes(n), v)

/* a * 2^n for an integral n in [-160, 130], in two steps so that neither factor overflows. */
static inline V
v_scale2(V a, V n)
{
	__m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
	__m256i rest = _mm256_sub_epi32(whole, half), bias = _mm256_set1_epi32(127);

	a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
	return _mm256_mul_ps(a,
	                     _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

/*
 * out[i] = sum of the lanes of a[i] for i < n <= 4. Lanes 4 apart are added first, then 2 and 1
 * apart; each step works on vectors that hold parts of several sums.
 */
INLINE void
sum_lanes(const V a[4], float *out, int n)
{
	V b = _mm256_add_ps(_mm256_permute2f128_ps(a[0], a[1], 0x20),
	                    _mm256_permute2f128_ps(a[0], a[1], 0x31));
	V c = _mm256_add_ps(_mm256_permute2f128_ps(a[2], a[3], 0x20),
	                    _mm256_permute2f128_ps(a[2], a[3], 0x31));
	V d = _mm256_add_ps(_mm256_shuffle_ps(b, c, 0x44), _mm256_shuffle_ps(b, c, 0xee));
	/* Pairs are now a0 a2 | a1 a3. */
	V e = _mm256_add_ps(_mm256_permute_ps(d, 0xa0), _mm256_permute_ps(d, 0xf5));
	__m128 low = _mm256_castps256_ps128(e), high = _mm256_extractf128_ps(e, 1);
	float sums[4];

	low = _mm_shuffle_ps(low, high, 0x88); /* a0 a2 a1 a3 */
	low = _mm_shuffle_ps(low, low, 0xd8);
	if (n == 4)
	{
		_mm_storeu_ps(out, low);
		return;
	}
	_mm_storeu_ps(sums, low);
	for (int i = 0; i < n; i++)
		out[i] = sums[i];
}

static inline float
v_sum(V a)
{
	V v[4] = {a, a, a, a};
	float out;

	sum_lanes(v, &out, 1);
	return out;
}

static inline float
v_max_lanes(V a)
{
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* ---- Weight types ---- */

/* What a block's weights have in common; each type uses what it needs, all in registers. */
typedef struct
{
	V d, m;        /* scale and minimum */
	uint32_t high; /* fifth bits */
	float scale[16], minimum[8];
} w_head;

typedef void (*begin_fn)(const uint8_t *w, w_head *head);
typedef w32 (*weights_fn)(const uint8_t *w, const w_head *head, int j);

static inline V
set1_half(const void *p)
{
	return _mm256_cvtph_ps(_mm_set1_epi16((short) load_u16(p)));
}

/* Two neighbouring halves, each to all lanes. */
static inline void
set1_halves(const void *p, V *a, V *b)
{
	V both = _mm256_cvtph_ps(_mm_set1_epi32((int) load_u32(p)));

	*a = _mm256_moveldup_ps(both);
	*b = _mm256_movehdup_ps(both);
}

/* 8 bytes to 8 integers. */
static inline __m256i
widen(const void *p)
{
	return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *) p));
}

static inline __m256i
widen_signed(const void *p)
{
	return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p));
}

/* For types without anything to prepare. */
INLINE void
no_begin(const uint8_t *w, w_head *head)
{
	(void) w;
	(void) head;
}

#define f32_begin no_begin
#define f16_begin no_begin
#define bf16_begin no_begin

INLINE w32
f32_weights(const uint8_t *w, const w_head *head, int j)
{
	w32 out;

	(void) head;
	foreach (i, 4)
		out.v[i] = _mm256_loadu_ps((const float *) w + 32 * j + 8 * i);
	return out;
}

INLINE w32
f16_weights(const uint8_t *w, const w_head *head, int j)
{
	w32 out;

	(void) head;
	foreach (i, 4)
		out.v[i] = v_load_half(w + 64 * j + 16 * i);
	return out;
}

INLINE w32
bf16_weights(const uint8_t *w, const w_head *head, int j)
{
	w32 out;

	(void) head;
	foreach (i, 4)
	{
		__m128i raw = _mm_loadu_si128((const __m128i *) (w + 64 * j + 16 * i));

		out.v[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
	}
	return out;
}

typedef __m256i q32[4];

/* Integers 0 ... 15 of 16 bytes: low nibbles in q[0] and q[1], high ones in q[2] and q[3]. */
INLINE void
nibbles(const uint8_t *qs, q32 q)
{
	foreach (i, 2)
	{
		__m256i both = widen(qs + 8 * i);

		q[i] = _mm256_and_si256(both, _mm256_set1_epi32(15));
		q[i + 2] = _mm256_srli_epi32(both, 4);
	}
}

/* Sets the fifth bit of integer i where bit i of high is set. */
INLINE void
add_fifth_bits(uint32_t high, q32 q)
{
	const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);

	foreach (i, 4)
	{
		__m256i bits = _mm256_and_si256(_mm256_set1_epi32((int) (high >> (8 * i))), lane);
		__m256i set = _mm256_cmpeq_epi32(bits, lane);

		q[i] = _mm256_or_si256(q[i], _mm256_and_si256(set, _mm256_set1_epi32(16)));
	}
}

/* d * (q - offset) */
INLINE w32
scaled(V d, const q32 q, int offset)
{
	w32 out;

	foreach (i, 4)
		out.v[i] =
		    _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_sub_epi32(q[i], _mm256_set1_epi32(offset))));
	return out;
}

/* d * q + m */
INLINE w32
scaled_and_shifted(V d, V m, const q32 q)
{
	w32 out;

	foreach (i, 4)
		out.v[i] = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(q[i]), m);
	return out;
}

INLINE w32
q8_0_weights(const uint8_t *w, const w_head *head, int j)
{
	w32 out;

	(void) j;
	foreach (i, 4)
		out.v[i] = _mm256_mul_ps(
		    head->d, _mm256_cvtepi32_ps(widen_signed(((const block_q8_0 *) w)->qs + 8 * i)));
	return out;
}

static inline V
widen_eight(uint64_t bytes)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long) bytes)));
}

/* Scales and negated minimums of the eight groups. */
INLINE void
k_begin(const uint8_t *w, w_head *head)
{
	uint64_t scales, minimums;
	V d, m;

	set1_halves(w, &d, &m);
	unpack_scales(((const block_q4_k *) w)->scales, &scales, &minimums);
	_mm256_storeu_ps(head->scale, _mm256_mul_ps(d, widen_eight(scales)));
	_mm256_storeu_ps(head->minimum,
	                 _mm256_mul_ps(_mm256_xor_ps(m, _mm256_set1_ps(-0.0f)), widen_eight(minimums)));
	in_memory(head->scale);
	in_memory(head->minimum);
}

/* The nibbles of group j as integers. */
INLINE void
group_nibbles(const uint8_t *qs, int j, q32 q)
{
	foreach (i, 4)
		q[i] = _mm256_and_si256(_mm256_srli_epi32(widen(qs + 32 * (j / 2) + 8 * i), 4 * (j % 2)),
		                        _mm256_set1_epi32(15));
}

/* Sets the fifth bit of each integer of group j. */
INLINE void
add_group_bits(const uint8_t *high, int j, q32 q)
{
	foreach (i, 4)
	{
		__m256i bit =
		    _mm256_and_si256(_mm256_srli_epi32(widen(high + 8 * i), j), _mm256_set1_epi32(1));

		q[i] = _mm256_or_si256(q[i], _mm256_slli_epi32(bit, 4));
	}
}

INLINE void
q6_k_begin(const uint8_t *w, w_head *head)
{
	const block_q6_k *b = (const block_q6_k *) w;
	V d = set1_half(b->d);

	foreach (i, 2)
		_mm256_storeu_ps(head->scale + 8 * i,
		                 _mm256_mul_ps(d, _mm256_cvtepi32_ps(widen_signed(b->scales + 8 * i))));
	in_memory(head->scale);
}

INLINE w32
q6_k_weights(const uint8_t *w, const w_head *head, int j)
{
	const block_q6_k *b = (const block_q6_k *) w;
	int half = j / 4, group = j % 4;
	const uint8_t *ql = b->ql + 64 * half + 32 * (group % 2), *qh = b->qh + 32 * half;
	w32 out;

	foreach (i, 4)
	{
		__m256i low = _mm256_srli_epi32(widen(ql + 8 * i), 4 * (group / 2));
		__m256i high = _mm256_srli_epi32(widen(qh + 8 * i), 2 * group);
		__m256i q;

		low = _mm256_and_si256(low, _mm256_set1_epi32(15));
		high = _mm256_slli_epi32(_mm256_and_si256(high, _mm256_set1_epi32(3)), 4);
		q = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
		out.v[i] = _mm256_mul_ps(_mm256_set1_ps(head->scale[2 * j + i / 2]), _mm256_cvtepi32_ps(q));
	}
	return out;
}

#include "simd_blocks.h"
#include "simd_matmul.h"
#include "simd_ops.h"
#include "simd_planes.h"
#include "simd_int8.h"

const q3_kernels q3_kernels_avx2 = SIMD_KERNELS("avx2", matmul_int8);

#endif
