/*
 * neon.c: the kernels for 64-bit ARM, all of which has NEON. The unpacking of each weight type; the
 * vector operations are in neon_vec.h, the algorithms in simd_matmul.h and simd_ops.h, and the one
 * that machines with dot products have another version of in neon_int8.h.
 */
#include "cpu.h"

#if defined(__aarch64__)

#include <math.h>
#include <string.h>

#include "blocks.h"
#include "neon_vec.h"

#define PLANES_TOKENS 12 /* tokens x 2 vectors of rows of packed matrices */
#define PANEL 8          /* rows in a panel: 8 x 3 accumulators of the 32 registers */
#define TILE 3           /* tokens */
#define STREAMS 4        /* rows at once with one token */
#define SCORE_TILE 2     /* queries x 8 vectors of 4 keys */
#define VALUE_TILE 6     /* queries */
#define VALUE_WIDTH 4    /* vectors of the head */

typedef struct
{
	V v[8];
} w32;

/* a * 2^n for an integral n in [-160, 130], in two steps so that neither factor overflows. */
static inline V
v_scale2(V a, V n)
{
	I whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1);
	I rest = vsubq_s32(whole, half), bias = vdupq_n_s32(127);

	a = v_mul(a, i_as_float(vshlq_n_s32(vaddq_s32(half, bias), 23)));
	return v_mul(a, i_as_float(vshlq_n_s32(vaddq_s32(rest, bias), 23)));
}

/* out[i] = sum of the lanes of a[i] for i < n <= 8. Neighbours are added first. */
INLINE void
sum_lanes(const V a[8], float *out, int n)
{
	V sums[2];

	foreach (i, 2)
		sums[i] =
		    vpaddq_f32(vpaddq_f32(a[4 * i], a[4 * i + 1]), vpaddq_f32(a[4 * i + 2], a[4 * i + 3]));
	v_store_first(out, sums[0], n < VL ? n : VL);
	if (n > VL)
		v_store_first(out + VL, sums[1], n - VL);
}

/* The same sum of one vector. */
static inline float
v_sum(V a)
{
	V pairs = vpaddq_f32(a, a);

	return vgetq_lane_f32(vpaddq_f32(pairs, pairs), 0);
}

/* ---- Weight types ---- */

/* What a block's weights have in common; each type uses what it needs. */
typedef struct
{
	V d, m;        /* scale and minimum */
	uint32_t high; /* fifth bits */
	float scale[16], minimum[8];
} w_head;

typedef void (*begin_fn)(const uint8_t *w, w_head *head);
typedef w32 (*weights_fn)(const uint8_t *w, const w_head *head, int j);

/* The half at the start of a block to all lanes. */
static inline V
set1_half(const void *p)
{
	return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(load_u16(p))));
}

/* Two neighbouring halves, each to all lanes. */
static inline void
set1_halves(const uint8_t *p, V *a, V *b)
{
	*a = set1_half(p);
	*b = set1_half(p + 2);
}

/* 16 bytes to 16 floats. */
INLINE void
widen(int8x16_t bytes, V out[4])
{
	int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);

	out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
	out[1] = vcvtq_f32_s32(vmovl_high_s16(low));
	out[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
	out[3] = vcvtq_f32_s32(vmovl_high_s16(high));
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
	foreach (i, 8)
		out.v[i] = vreinterpretq_f32_u8(vld1q_u8(w + 128 * j + 16 * i));
	return out;
}

INLINE w32
f16_weights(const uint8_t *w, const w_head *head, int j)
{
	w32 out;

	(void) head;
	foreach (i, 8)
		out.v[i] = v_load_half(w + 64 * j + 8 * i);
	return out;
}

INLINE w32
bf16_weights(const uint8_t *w, const w_head *head, int j)
{
	w32 out;

	(void) head;
	foreach (i, 8)
	{
		uint16x4_t raw = vreinterpret_u16_u8(vld1_u8(w + 64 * j + 8 * i));

		out.v[i] = vreinterpretq_f32_u32(vshll_n_u16(raw, 16));
	}
	return out;
}

typedef uint8x16_t q32[2];

/* Integers 0 ... 15 of 16 bytes: low nibbles in q[0], high ones in q[1]. */
INLINE void
nibbles(const uint8_t *qs, q32 q)
{
	uint8x16_t both = vld1q_u8(qs);

	q[0] = vandq_u8(both, vdupq_n_u8(15));
	q[1] = vshrq_n_u8(both, 4);
}

/* Sets the fifth bit of integer i where bit i of high is set. */
INLINE void
add_fifth_bits(uint32_t high, q32 q)
{
	const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
	uint8x16_t bytes = vreinterpretq_u8_u32(vdupq_n_u32(high));

	foreach (i, 2)
	{
		/* Each of two bytes of high for eight integers. */
		uint8x16_t index =
		    vcombine_u8(vdup_n_u8((uint8_t) (2 * i)), vdup_n_u8((uint8_t) (2 * i + 1)));
		uint8x16_t set = vtstq_u8(vqtbl1q_u8(bytes, index), bit);

		q[i] = vorrq_u8(q[i], vandq_u8(set, vdupq_n_u8(16)));
	}
}

/* d * (q - offset) */
INLINE w32
scaled(V d, const q32 q, uint8_t offset)
{
	w32 out;

	foreach (i, 2)
	{
		V f[4];

		widen(vreinterpretq_s8_u8(vsubq_u8(q[i], vdupq_n_u8(offset))), f);
		foreach (k, 4)
			out.v[4 * i + k] = v_mul(d, f[k]);
	}
	return out;
}

/* d * q + m */
INLINE w32
scaled_and_shifted(V d, V m, const q32 q)
{
	w32 out;

	foreach (i, 2)
	{
		V f[4];

		widen(vreinterpretq_s8_u8(q[i]), f);
		foreach (k, 4)
			out.v[4 * i + k] = v_fma(d, f[k], m);
	}
	return out;
}

INLINE w32
q8_0_weights(const uint8_t *w, const w_head *head, int j)
{
	const uint8_t *qs = (const uint8_t *) ((const block_q8_0 *) w)->qs;
	uint8x16_t q[2] = {vld1q_u8(qs), vld1q_u8(qs + 16)};

	(void) j;
	return scaled(head->d, q, 0);
}

/* factor * each of eight unsigned bytes, none of them above 127. */
INLINE void
store_scaled_bytes(V factor, uint64_t bytes, float *out)
{
	V f[4];

	widen(vreinterpretq_s8_u64(vdupq_n_u64(bytes)), f);
	foreach (i, 2)
		v_store(out + VL * i, v_mul(factor, f[i]));
}

/* Scales and negated minimums of the eight groups. */
INLINE void
k_begin(const uint8_t *w, w_head *head)
{
	uint64_t scales, minimums;

	unpack_scales(((const block_q4_k *) w)->scales, &scales, &minimums);
	store_scaled_bytes(set1_half(w), scales, head->scale);
	store_scaled_bytes(vnegq_f32(set1_half(w + 2)), minimums, head->minimum);
}

/* Bytes shifted right by n, which need be no constant to the compiler. */
INLINE uint8x16_t
shift_bytes_right(uint8x16_t bytes, int n)
{
	return vshlq_u8(bytes, vdupq_n_s8((int8_t) -n));
}

/* The nibbles of group j as integers. */
INLINE void
group_nibbles(const uint8_t *qs, int j, q32 q)
{
	foreach (i, 2)
		q[i] = vandq_u8(shift_bytes_right(vld1q_u8(qs + 32 * (j / 2) + 16 * i), 4 * (j % 2)),
		                vdupq_n_u8(15));
}

/* Sets the fifth bit of each integer of group j. */
INLINE void
add_group_bits(const uint8_t *high, int j, q32 q)
{
	foreach (i, 2)
	{
		uint8x16_t bit = vandq_u8(shift_bytes_right(vld1q_u8(high + 16 * i), j), vdupq_n_u8(1));

		q[i] = vorrq_u8(q[i], vshlq_n_u8(bit, 4));
	}
}

INLINE void
q6_k_begin(const uint8_t *w, w_head *head)
{
	const block_q6_k *b = (const block_q6_k *) w;
	V d = set1_half(b->d), f[4];

	widen(vld1q_s8(b->scales), f);
	foreach (i, 4)
		v_store(head->scale + VL * i, v_mul(d, f[i]));
}

INLINE w32
q6_k_weights(const uint8_t *w, const w_head *head, int j)
{
	const block_q6_k *b = (const block_q6_k *) w;
	int half = j / 4, group = j % 4;
	const uint8_t *ql = b->ql + 64 * half + 32 * (group % 2), *qh = b->qh + 32 * half;
	w32 out;

	foreach (i, 2)
	{
		uint8x16_t low = shift_bytes_right(vld1q_u8(ql + 16 * i), 4 * (group / 2));
		uint8x16_t high = shift_bytes_right(vld1q_u8(qh + 16 * i), 2 * group);
		uint8x16_t q =
		    vorrq_u8(vandq_u8(low, vdupq_n_u8(15)), vshlq_n_u8(vandq_u8(high, vdupq_n_u8(3)), 4));
		V scale = v_set1(head->scale[2 * j + i]), f[4];

		widen(vreinterpretq_s8_u8(vsubq_u8(q, vdupq_n_u8(32))), f);
		foreach (k, 4)
			out.v[4 * i + k] = v_mul(scale, f[k]);
	}
	return out;
}

#include "simd_blocks.h"
#include "simd_matmul.h"
#include "simd_ops.h"
#include "simd_planes.h"
#include "neon_int8.h"

const q3_kernels q3_kernels_neon = SIMD_KERNELS("neon", neon_matmul_int8);
const q3_kernels q3_kernels_neondot = SIMD_KERNELS("neondot", q3_neondot_matmul_int8);

#endif
