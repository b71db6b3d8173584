/*
 * neon_vec.h: the vector operations that the algorithms in simd_*.h are written in, for 64-bit ARM:
 * four lanes (included by the files of this instruction set).
 */
#ifndef Q3_CPU_NEON_VEC_H
#define Q3_CPU_NEON_VEC_H

#include <arm_neon.h>
#include <string.h>

#include "vec.h"

#define VL 4

typedef float32x4_t V;

#define v_zero() vdupq_n_f32(0)
#define v_set1(f) vdupq_n_f32(f)
#define v_load(p) vld1q_f32(p)
#define v_store(p, v) vst1q_f32(p, v)
#define v_add(a, b) vaddq_f32(a, b)
#define v_sub(a, b) vsubq_f32(a, b)
#define v_mul(a, b) vmulq_f32(a, b)
#define v_div(a, b) vdivq_f32(a, b)
#define v_fma(a, b, c) vfmaq_f32(c, a, b)
#define v_fnma(a, b, c) vfmsq_f32(c, a, b)
/* NaN where one of the two is NaN */
#define v_max(a, b) vmaxq_f32(a, b)
#define v_min(a, b) vminq_f32(a, b)
#define v_round(a) vrndnq_f32(a)
/* By bytes, which may be anywhere. */
#define v_load_half(p) vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *) (p))))
#define v_store_half(p, v) vst1_u8((uint8_t *) (p), vreinterpret_u8_f16(vcvt_f16_f32(v)))
/* Exchanges the members of pairs (2i, 2i + 1). */
#define v_swap_pairs(a) vrev64q_f32(a)
#define v_max_lanes(a) vmaxvq_f32(a)
/* Makes the compiler hold a value in a register. */
#define v_keep(a) __asm__("" : "+w"(a))

/* Vectors of bits: 32-bit lanes unless said otherwise. */
typedef int32x4_t I;

#define i_bytes(a) vreinterpretq_u8_s32(a)
#define i_words(a) vreinterpretq_u32_s32(a)
#define i_from_bytes(a) vreinterpretq_s32_u8(a)
#define i_from_words(a) vreinterpretq_s32_u32(a)

#define i_load(p) i_from_bytes(vld1q_u8(p))
#define i_set1(i) vdupq_n_s32(i)
#define i_add(a, b) vaddq_s32(a, b)
#define i_and(a, b) vandq_s32(a, b)
#define i_or(a, b) vorrq_s32(a, b)
#define i_shift_left(a, n) vshlq_n_s32(a, n)
#define i_shift_right(a, n) i_from_words(vshrq_n_u32(i_words(a), n))
#define i_max(a, b) vmaxq_s32(a, b)
#define i_min(a, b) vminq_s32(a, b)
#define i_max_unsigned(a, b) i_from_words(vmaxq_u32(i_words(a), i_words(b)))
/* To the nearest; NaN becomes the smallest integer. */
#define i_round(v) vbslq_s32(vceqq_f32(v, v), vcvtnq_s32_f32(v), vdupq_n_s32(INT32_MIN))
#define i_to_float(a) vcvtq_f32_s32(a)
#define i_as_float(a) vreinterpretq_f32_s32(a)
#define f_as_bits(v) vreinterpretq_s32_f32(v)
/* where a has ones b, elsewhere c; a & b | c */
#define i_select(a, b, c) vbslq_s32(i_words(a), b, c)
#define i_and_or(a, b, c) vorrq_s32(vandq_s32(a, b), c)
/* Bytes of the low halves of a and b in turns; of the high halves. */
#define i_zip_low(a, b) i_from_bytes(vzip1q_u8(i_bytes(a), i_bytes(b)))
#define i_zip_high(a, b) i_from_bytes(vzip2q_u8(i_bytes(a), i_bytes(b)))
/* Even, and odd, 32-bit elements of a, then of b. */
#define i_even(a, b) vuzp1q_s32(a, b)
#define i_odd(a, b) vuzp2q_s32(a, b)
#define i_sum(a) vaddvq_s32(a)
#define i_max_of_lanes(a) vmaxvq_u32(i_words(a))

/* VL 32-bit integers that fit them as bytes. */
static inline void
i_store_bytes(int8_t *p, I a)
{
	int16x4_t words = vmovn_s32(a);
	uint32_t bytes = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);

	memcpy(p, &bytes, sizeof(bytes));
}

/* The first n <= VL elements only. */
static inline void
v_store_first(float *p, V v, int n)
{
	float lanes[VL];

	if (n == VL)
	{
		v_store(p, v);
		return;
	}
	v_store(lanes, v);
	for (int i = 0; i < n; i++)
		p[i] = lanes[i];
}

#endif
