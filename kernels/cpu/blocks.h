/*
 * blocks.h: how the quantised types lie in a file, and conversions of single numbers.
 *
 * Private to kernels/cpu. Files are little-endian and give no alignment, so everything is read with
 * memcpy (one load on the machines that matter).
 */
#ifndef Q3_CPU_BLOCKS_H
#define Q3_CPU_BLOCKS_H

#include <stdint.h>
#include <string.h>

#include "kernels.h"

/* 32 weights a block: scale d, minimum m, low four bits qs (weights 0-15 in the low nibbles, 16-31
 * in the high ones), fifth bits qh (bit i for weight i). */
typedef struct
{
	uint8_t d[2], qs[16];
} block_q4_0; /* d * (q - 8) */
typedef struct
{
	uint8_t dm[4], qs[16];
} block_q4_1; /* d * q + m */
typedef struct
{
	uint8_t d[2], qh[4], qs[16];
} block_q5_0; /* d * (q - 16) */
typedef struct
{
	uint8_t dm[4], qh[4], qs[16];
} block_q5_1; /* d * q + m */
typedef struct
{
	uint8_t d[2];
	int8_t qs[32];
} block_q8_0; /* d * q */

/*
 * 256 weights a block, in 8 groups of 32 with a six-bit scale and minimum each (packed in scales,
 * see unpack_scales()): d * scale * q - dmin * minimum. Groups 2i and 2i + 1 are the low and high
 * nibbles of qs[32 i] ...; bit g of qh[l] is the fifth bit of weight l of group g.
 */
typedef struct
{
	uint8_t dm[4], scales[12], qs[128];
} block_q4_k;
typedef struct
{
	uint8_t dm[4], scales[12], qh[32], qs[128];
} block_q5_k;
/*
 * 256 weights in two halves of four groups of 32; every 16 weights have a scale: d * scale *
 * (q - 32). Half h, group g: nibble g / 2 of ql[64 h + 32 (g % 2)] ..., bits 2g and 2g + 1 of
 * qh[32 h] ...
 */
typedef struct
{
	uint8_t ql[128], qh[64];
	int8_t scales[16];
	uint8_t d[2];
} block_q6_k;

static inline uint32_t
load_u32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint16_t
load_u16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline float
float_from_bits(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static inline uint32_t
bits_from_float(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

static inline float
bf16_to_float(uint16_t h)
{
	return float_from_bits((uint32_t) h << 16);
}

/* Exact, including subnormal numbers, infinities and NaN. */
static inline float
half_to_float(uint16_t h)
{
	uint32_t sign = (uint32_t) (h & 0x8000) << 16;
	uint32_t magnitude = (uint32_t) (h & 0x7fff) << 13;

	if (magnitude >= 0x7c00u << 13)
		return float_from_bits(sign | 0x7f800000 | magnitude);
	/* Reading the bits as a float gives the value times 2^-112, subnormal ones included. */
	return float_from_bits(sign | bits_from_float(float_from_bits(magnitude) * 0x1p112f));
}

/* Rounds to nearest, ties to even; too large becomes infinity, as the vector instructions do. */
static inline uint16_t
float_to_half(float f)
{
	uint32_t bits = bits_from_float(f);
	uint16_t sign = (uint16_t) (bits >> 16 & 0x8000);

	bits &= 0x7fffffff;
	if (bits > 0x7f800000)
		return sign | 0x7e00 | (uint16_t) (bits >> 13 & 0x1ff);
	if (bits >= 0x477ff000)
		return sign | 0x7c00;
	if (bits < 0x38800000) /* subnormal: let an addition do the rounding */
		return sign | (uint16_t) (bits_from_float(float_from_bits(bits) + 0.5f) - 0x3f000000);
	bits += 0xc8000fff + (bits >> 13 & 1);
	return sign | (uint16_t) (bits >> 13);
}

/* The eight scales and minimums of Q4_K and Q5_K, a byte each, the first one lowest. */
static inline void
unpack_scales(const uint8_t packed[12], uint64_t *scales, uint64_t *minimums)
{
	uint32_t a = load_u32(packed), b = load_u32(packed + 4), c = load_u32(packed + 8);

	*scales = (uint64_t) ((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32 | (a & 0x3f3f3f3f);
	*minimums = (uint64_t) ((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)) << 32 | (b & 0x3f3f3f3f);
}

#endif
