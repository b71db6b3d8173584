/*
 * avx512.c: the kernels for x86-64 with AVX-512 (F, BW, DQ, VL), as in servers since Skylake and
 * Zen 4. What differs from one instruction set to the next is here: vector operations and the
 * unpacking of each weight type; the algorithms are in simd_matmul.h and simd_ops.h.
 */
#include "cpu.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "vec.h"

#define VL 16
#define INT8_TOKENS 6    /* tokens with one vector of rows of packed matrices */
#define PLANES_TOKENS 12 /* tokens x 2 vectors of rows of packed matrices */
#define PANEL 8          /* rows in a panel: 8 x 3 accumulators of the 32 registers */
#define TILE 3           /* tokens */
#define STREAMS 4     /* rows at once with one token: sums enough to hide an addition's latency */
#define SCORE_TILE 12 /* queries x 2 vectors of 16 keys */
#define VALUE_TILE 6  /* queries */
#define VALUE_WIDTH 4 /* vectors of the head */

typedef __m512 V;
typedef struct
{
	V v[2];
} w32;

#define v_zero() _mm512_setzero_ps()
#define v_set1(f) _mm512_set1_ps(f)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_fnma(a, b, c) _mm512_fnmadd_ps(a, b, c)
/* b where one of the two is NaN */
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_round(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
/* a * 2^n for an integral n, correct for subnormal and infinite results */
#define v_scale2(a, n) _mm512_scalef_ps(a, n)
#define v_load_half(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (p)))
#define v_store_half(p, v)                                                                         \
	_mm256_storeu_si256((__m256i *) (p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT))
/* Exchanges the members of pairs (2i, 2i + 1). */
#define v_swap_pairs(a) _mm512_permute_ps(a, 0xb1)
/* Makes the compiler hold a value in a register. */
#define v_keep(a) __asm__("" : "+v"(a))
/* Makes it keep an array in memory, from where loads broadcast, instead of shuffling it about. */
#define in_memory(array) __asm__("" : "+m"(array))
#define v_max_lanes(a) _mm512_reduce_max_ps(a)

/* Vectors of bits: 32-bit lanes unless said otherwise. */
typedef __m512i I;

#define i_load(p) _mm512_loadu_si512(p)
#define i_set1(i) _mm512_set1_epi32(i)
#define i_add(a, b) _mm512_add_epi32(a, b)
#define i_and(a, b) _mm512_and_si512(a, b)
#define i_or(a, b) _mm512_or_si512(a, b)
#define i_shift_left(a, n) _mm512_slli_epi32(a, n)
#define i_shift_right(a, n) _mm512_srli_epi32(a, n)
/* 16-bit lanes of a, plus the sums of pairs of products of bytes, u unsigned, x signed. */
#define i_add_pairs(a, u, x) _mm512_add_epi16(a, _mm512_maddubs_epi16(u, x))
/* Pairs of 16-bit lanes of a, multiplied with n (16 bits, too) and added in 32 bits. */
#define i_weigh_pairs(a, n) _mm512_madd_epi16(a, _mm512_set1_epi16(n))
#define i_max(a, b) _mm512_max_epi32(a, b)
#define i_min(a, b) _mm512_min_epi32(a, b)
#define i_max_unsigned(a, b) _mm512_max_epu32(a, b)
#define i_round(v) _mm512_cvtps_epi32(v)
#define i_to_float(a) _mm512_cvtepi32_ps(a)
#define i_as_float(a) _mm512_castsi512_ps(a)
#define f_as_bits(v) _mm512_castps_si512(v)
/* where a has ones b, elsewhere c; a & b | c */
#define i_select(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0xca)
#define i_and_or(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0xea)
/* Bytes of the low halves of 16-byte lanes of a and b in turns; of the high halves. */
#define i_zip_low(a, b) _mm512_unpacklo_epi8(a, b)
#define i_zip_high(a, b) _mm512_unpackhi_epi8(a, b)
/* Even, and odd, 32-bit elements of each 16-byte lane of a, then of b. */
#define i_even(a, b)                                                                               \
	_mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0x88))
#define i_odd(a, b)                                                                                \
	_mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), 0xdd))
/* VL 32-bit integers that fit them as bytes. */
#define i_store_bytes(p, a) _mm_storeu_si128((__m128i *) (p), _mm512_cvtsepi32_epi8(a))
#define i_sum(a) _mm512_reduce_add_epi32(a)
#define i_max_of_lanes(a) _mm512_reduce_max_epu32(a)
/* The first n <= VL elements only; the others are zero. */
#define v_load_first(p, n) _mm512_maskz_loadu_ps((__mmask16) ((1u << (n)) - 1), p)
#define v_store_first(p, v, n) _mm512_mask_storeu_ps(p, (__mmask16) ((1u << (n)) - 1), v)

/*
 * out[i] = sum of the lanes of a[i] for i < n <= 8. Lanes 8 apart are added first, then 4, 2 and 1
 * apart; each step works on vectors that hold the halves of several sums.
 */
INLINE void
sum_lanes(const V a[8], float *out, int n)
{
	V b[4], c[2], d, e;
	__m256 f;

	foreach (i, 4)
		b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x44),
		                     _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xee));
	foreach (i, 2)
		c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
		                     _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
	d = _mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x44), _mm512_shuffle_ps(c[0], c[1], 0xee));
	e = _mm512_add_ps(_mm512_permute_ps(d, 0xa0), _mm512_permute_ps(d, 0xf5));
	f = _mm512_castps512_ps256(_mm512_permutexvar_ps(
	    _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0), e));
	if (n == 8)
		_mm256_storeu_ps(out, f);
	else
		_mm256_mask_storeu_ps(out, (__mmask8) ((1u << n) - 1), f);
}

static inline float
v_sum(V a)
{
	V v[8] = {a, a, a, a, a, a, a, a};
	float out;

	sum_lanes(v, &out, 1);
	return out;
}

/* ---- Weight types ---- */

/* What a block's weights have in common; each type uses what it needs, all in registers. */
typedef struct
{
	V d;           /* scale */
	V table[2];    /* the value of each nibble, with fifth bit clear and set */
	uint32_t high; /* fifth bits */
	float scale[16], minimum[8];
} w_head;

typedef void (*begin_fn)(const uint8_t *w, w_head *head);
typedef w32 (*weights_fn)(const uint8_t *w, const w_head *head, int j);

#define IOTA _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

typedef struct
{
	uint8_t bytes[8];
} eight_bytes;

/*
 * The first halves of a block as floats in memory, from where they are broadcast: shuffles are what
 * the loops over blocks have too many of, and a load can broadcast for nothing. In assembler
 * because gcc would load first and convert by way of a shuffle.
 */
INLINE void
store_halves(const void *p, float f[4])
{
	__m128 v;

	__asm__("vcvtph2ps %1, %0" : "=v"(v) : "m"(*(const eight_bytes *) p));
	_mm_storeu_ps(f, v);
	in_memory(*(float(*)[4]) f);
}

/* The half at the start of a block to all lanes. */
INLINE V
set1_half(const void *p)
{
	float f[4];

	store_halves(p, f);
	return _mm512_set1_ps(f[0]);
}

/* The two halves at the start of a block, each to all lanes. */
INLINE void
set1_halves(const void *p, V *a, V *b)
{
	float f[4];

	store_halves(p, f);
	*a = _mm512_set1_ps(f[0]);
	*b = _mm512_set1_ps(f[1]);
}

/* 16 bytes to 16 integers. */
static inline __m512i
widen(const void *p)
{
	return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) p));
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
	const float *p = (const float *) w + 32 * j;

	(void) head;
	return (w32){{_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16)}};
}

INLINE w32
f16_weights(const uint8_t *w, const w_head *head, int j)
{
	(void) head;
	return (w32){{v_load_half(w + 64 * j), v_load_half(w + 64 * j + 32)}};
}

INLINE w32
bf16_weights(const uint8_t *w, const w_head *head, int j)
{
	const __m256i *p = (const __m256i *) (w + 64 * j);

	(void) head;
	return (w32){
	    {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16)),
	     _mm512_castsi512_ps(
	         _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p + 1)), 16))}};
}

INLINE w32
nibbles(const uint8_t *qs, V table)
{
	__m512i q = widen(qs);

	return (w32){
	    {_mm512_permutexvar_ps(q, table), _mm512_permutexvar_ps(_mm512_srli_epi32(q, 4), table)}};
}

INLINE void
q4_0_begin(const uint8_t *w, w_head *head)
{
	head->table[0] = _mm512_mul_ps(set1_half(w), _mm512_sub_ps(IOTA, _mm512_set1_ps(8)));
}

INLINE w32
q4_0_weights(const uint8_t *w, const w_head *head, int j)
{
	(void) j;
	return nibbles(((const block_q4_0 *) w)->qs, head->table[0]);
}

INLINE void
q4_1_begin(const uint8_t *w, w_head *head)
{
	V d, m;

	set1_halves(w, &d, &m);
	head->table[0] = _mm512_fmadd_ps(d, IOTA, m);
}

INLINE w32
q4_1_weights(const uint8_t *w, const w_head *head, int j)
{
	(void) j;
	return nibbles(((const block_q4_1 *) w)->qs, head->table[0]);
}

INLINE w32
five_bits(const uint8_t *qs, uint32_t high, const V table[2])
{
	__m512i q = widen(qs), low = _mm512_and_si512(q, _mm512_set1_epi32(15));
	__m512i bit = _mm512_set1_epi32(16);

	q = _mm512_srli_epi32(q, 4);
	low = _mm512_mask_or_epi32(low, (__mmask16) high, low, bit);
	q = _mm512_mask_or_epi32(q, (__mmask16) (high >> 16), q, bit);
	return (w32){{_mm512_permutex2var_ps(table[0], low, table[1]),
	              _mm512_permutex2var_ps(table[0], q, table[1])}};
}

INLINE void
q5_0_begin(const uint8_t *w, w_head *head)
{
	V d = set1_half(w);

	head->table[0] = _mm512_mul_ps(d, _mm512_sub_ps(IOTA, _mm512_set1_ps(16)));
	head->table[1] = _mm512_mul_ps(d, IOTA);
	head->high = load_u32(((const block_q5_0 *) w)->qh);
}

INLINE w32
q5_0_weights(const uint8_t *w, const w_head *head, int j)
{
	(void) j;
	return five_bits(((const block_q5_0 *) w)->qs, head->high, head->table);
}

INLINE void
q5_1_begin(const uint8_t *w, w_head *head)
{
	V d, m;

	set1_halves(w, &d, &m);
	head->table[0] = _mm512_fmadd_ps(d, IOTA, m);
	head->table[1] = _mm512_fmadd_ps(d, _mm512_add_ps(IOTA, _mm512_set1_ps(16)), m);
	head->high = load_u32(((const block_q5_1 *) w)->qh);
}

INLINE w32
q5_1_weights(const uint8_t *w, const w_head *head, int j)
{
	(void) j;
	return five_bits(((const block_q5_1 *) w)->qs, head->high, head->table);
}

INLINE void
q8_0_begin(const uint8_t *w, w_head *head)
{
	head->d = set1_half(w);
}

INLINE w32
q8_0_weights(const uint8_t *w, const w_head *head, int j)
{
	const __m128i *p = (const __m128i *) ((const block_q8_0 *) w)->qs;

	(void) j;
	return (w32){
	    {_mm512_mul_ps(head->d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)))),
	     _mm512_mul_ps(head->d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p + 1))))}};
}

static inline __m256
widen_eight(uint64_t bytes)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long) bytes)));
}

/* Scales and negated minimums of the eight groups. */
INLINE void
k_begin(const uint8_t *w, w_head *head)
{
	uint64_t scales, minimums;
	float dm[4];

	store_halves(w, dm);
	unpack_scales(((const block_q4_k *) w)->scales, &scales, &minimums);
	_mm256_storeu_ps(head->scale, _mm256_mul_ps(_mm256_set1_ps(dm[0]), widen_eight(scales)));
	_mm256_storeu_ps(head->minimum, _mm256_mul_ps(_mm256_set1_ps(-dm[1]), widen_eight(minimums)));
	in_memory(head->scale);
	in_memory(head->minimum);
}

#define q4_k_begin k_begin
#define q5_k_begin k_begin

INLINE w32
q4_k_weights(const uint8_t *w, const w_head *head, int j)
{
	const uint8_t *qs = ((const block_q4_k *) w)->qs + 32 * (j / 2);
	V table =
	    _mm512_fmadd_ps(IOTA, _mm512_set1_ps(head->scale[j]), _mm512_set1_ps(head->minimum[j]));

	return (w32){{_mm512_permutexvar_ps(_mm512_srli_epi32(widen(qs), 4 * (j % 2)), table),
	              _mm512_permutexvar_ps(_mm512_srli_epi32(widen(qs + 16), 4 * (j % 2)), table)}};
}

INLINE w32
q5_k_weights(const uint8_t *w, const w_head *head, int j)
{
	const uint8_t *qs = ((const block_q5_k *) w)->qs + 32 * (j / 2);
	__m256i high = _mm256_loadu_si256((const __m256i *) ((const block_q5_k *) w)->qh);
	__mmask32 set = _mm256_test_epi8_mask(high, _mm256_set1_epi8((char) (1 << j)));
	V d = _mm512_set1_ps(head->scale[j]), m = _mm512_set1_ps(head->minimum[j]);
	V table0 = _mm512_fmadd_ps(IOTA, d, m);
	V table1 = _mm512_fmadd_ps(_mm512_add_ps(IOTA, _mm512_set1_ps(16)), d, m);
	__m512i q0 = _mm512_srli_epi32(widen(qs), 4 * (j % 2));
	__m512i q1 = _mm512_srli_epi32(widen(qs + 16), 4 * (j % 2));
	V v0 = _mm512_permutexvar_ps(q0, table0), v1 = _mm512_permutexvar_ps(q1, table0);

	return (w32){{_mm512_mask_permutexvar_ps(v0, (__mmask16) set, q0, table1),
	              _mm512_mask_permutexvar_ps(v1, (__mmask16) (set >> 16), q1, table1)}};
}

INLINE void
q6_k_begin(const uint8_t *w, w_head *head)
{
	const block_q6_k *b = (const block_q6_k *) w;
	V d = _mm512_set1_ps(half_to_float(load_u16(b->d)));
	__m512i scales = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) b->scales));

	_mm512_storeu_ps(head->scale, _mm512_mul_ps(d, _mm512_cvtepi32_ps(scales)));
	in_memory(head->scale);
}

INLINE w32
q6_k_weights(const uint8_t *w, const w_head *head, int j)
{
	const block_q6_k *b = (const block_q6_k *) w;
	int half = j / 4, group = j % 4;
	w32 out;

	foreach (i, 2)
	{
		__m128i low =
		    _mm_loadu_si128((const __m128i *) (b->ql + 64 * half + 32 * (group % 2) + 16 * i));
		__m128i high = _mm_loadu_si128((const __m128i *) (b->qh + 32 * half + 16 * i));
		__m512i q;

		/* Assemble six bits in bytes; 16-bit shifts leak only into bits that are masked off. */
		low = _mm_and_si128(_mm_srli_epi16(low, 4 * (group / 2)), _mm_set1_epi8(15));
		high = _mm_and_si128(_mm_srli_epi16(high, 2 * group), _mm_set1_epi8(3));
		low = _mm_or_si128(low, _mm_slli_epi16(high, 4));
		q = _mm512_cvtepi8_epi32(_mm_sub_epi8(low, _mm_set1_epi8(32)));
		out.v[i] = _mm512_mul_ps(_mm512_set1_ps(head->scale[2 * j + i]), _mm512_cvtepi32_ps(q));
	}
	return out;
}

#include "simd_matmul.h"
#include "simd_ops.h"
#include "simd_planes.h"
#include "simd_int8.h"
#include "vnni_planes.h"
#include "amx_planes.h"

const q3_kernels q3_kernels_avx512 = SIMD_KERNELS("avx512", matmul_int8);
/* Their instructions are written in assembler, so that one file can serve all. */
const q3_kernels q3_kernels_avx512vnni = SIMD_KERNELS("avx512vnni", vnni_matmul_int8);
const q3_kernels q3_kernels_avx512amx = SIMD_KERNELS("avx512amx", amx_matmul_int8);

#endif
