/*
 * planes.h: matrices packed in planes of bits, and the products with them.
 *
 * One packed copy serves both modes: `efficient` reads the high planes and multiplies them with
 * activations of 8 or 16 bits; `precise` reads every plane and multiplies in float32. The bytes of
 * a q3_planes are position independent and the same on every machine, so that they can lie in
 * shared memory or in a file.
 *
 * Layout. Rows stand in panels of 16 (the last one padded with zero weights), columns in blocks of
 * 32. A block of a panel has, in each nibble plane, 256 bytes: four vectors of 64, vector v holding
 * columns 8 v ... 8 v + 7 of 16 rows; byte 4 r + j of it holds row r, column 8 v + j in its low and
 * column 8 v + 4 + j in its high nibble. The byte plane has 512 bytes: eight vectors, byte 4 r + j
 * of vector v holding row r, column 4 v + j. Scales (F16) stand [block][16 rows]. All planes run
 * panel by panel, in a panel block by block.
 *
 * Values. u is the unsigned number that the planes give, most significant first:
 *   Q3_PLANES_4:  u = hi (4 bits),                        w = scale * u + offset; Q4_0, Q4_1
 *   Q3_PLANES_8:  u = hi << 4 | lo (8 bits),              w = scale * (u - 128); Q8_0
 *   Q3_PLANES_16: u = hi << 12 | lo << 8 | ext (16 bits), w = scale * 2^-15 * (u - 32896)
 * each rounded once to float32, so that the first two are exactly what dequantize() gives.
 *
 * Read at fewer bits than there are, the missing ones count as the middle of their range. The odd
 * 32896 = 128 * 257 makes that middle an integer where speed matters most:
 *   PLANES_16 at 8 bits: w = scale * 2^-7 * ((hi << 4 | lo) - 128), the nearest value of 8 bits
 *   PLANES_8 at 4 bits:  w = scale * (16 hi - 120.5)
 *   PLANES_16 at 4 bits: w = scale * 2^-15 * (4096 hi - 30848.5)
 */
#ifndef Q3_PLANES_H
#define Q3_PLANES_H

#include "kernels.h"

#define Q3_PANEL_ROWS 16
#define Q3_PLANE_BLOCK 32

typedef enum q3_planes_kind
{
	Q3_PLANES_4 = 4,
	Q3_PLANES_8 = 8,
	Q3_PLANES_16 = 16
} q3_planes_kind;

struct q3_planes
{
	q3_planes_kind kind;
	int32_t rows, cols;     /* cols is a multiple of 32 */
	const uint8_t *hi;      /* nibble plane */
	const uint8_t *lo;      /* nibble plane; NULL for PLANES_4 */
	const uint8_t *ext;     /* byte plane; only PLANES_16 */
	const uint16_t *scale;  /* F16 */
	const uint16_t *offset; /* F16; only PLANES_4 */
};

/* The kind a tensor of this type is packed as; 0 for types that keep their own blocks. */
extern int q3_planes_kind_for(q3_dtype type);
/* Bytes of the whole packed matrix, each part aligned to 64. */
extern size_t q3_planes_bytes(q3_planes_kind kind, int32_t rows, int32_t cols);
/* Points the parts of p into memory of q3_planes_bytes() bytes, aligned to 64. */
extern void q3_planes_place(q3_planes *p, q3_planes_kind kind, int32_t rows, int32_t cols,
                            const void *memory);
/*
 * Packs panels [panel_begin, panel_end) of w into p, whose memory is writable here. Panels are
 * independent: threads may share the work. 16-bit sources (F32 too): scale is the smallest F16 that
 * lets the block's largest weight fit, u is the nearest; weights beyond +-65246 saturate. Q4_0
 * blocks whose scale is beyond +-8188 (then -8 * scale is no F16) are clamped to that. scratch:
 * 16 * cols floats.
 */
extern void q3_planes_pack(const q3_planes *p, const q3_matrix *w, int32_t panel_begin,
                           int32_t panel_end, float *scratch);
/* One row, all planes, as float32 (embedding lookup and tests): exactly what matmul_planes uses. */
extern void q3_planes_row(const q3_planes *p, int32_t row, float *out);

/*
 * Activations of a batch in 8 bits, or in 16: two planes of 8 bits. Token t has q + t * cols, and
 * for each block of 32 columns scale and sum at t * (cols / 32). scale = max |x| / 127, v = x *
 * (127 / max |x|), q = v to the nearest; a block whose largest number is below 2^-100 (or all zero)
 * is zero. The second plane is what is left: lo = (v - q) * 256 to the nearest, at most 127, so
 * that x is about scale * (q + lo / 256), and q is the same with and without it.
 *
 * The sums are not the sums themselves but -128 times the sums of q and of lo, which is what a
 * product with weights of 8 bits starts from. A block with an infinite or undefined number has an
 * infinite or undefined scale, so that results show it.
 */
struct q3_acts
{
	int8_t *q;    /* [tokens][cols] */
	float *scale; /* [tokens][cols / 32] */
	int32_t *sum; /* [tokens][cols / 32] */
	int32_t cols;
	int8_t *lo;      /* as q; NULL: 8 bits only */
	int32_t *lo_sum; /* as sum; only with lo */
};

/* The same from a token and a block of 32 columns on. */
static inline q3_acts
q3_acts_at(const q3_acts *x, int32_t token, int32_t block)
{
	size_t at = (size_t) token * (size_t) (x->cols / Q3_PLANE_BLOCK) + (size_t) block;
	q3_acts out = {.q = x->q + at * Q3_PLANE_BLOCK,
	               .scale = x->scale + at,
	               .sum = x->sum + at,
	               .cols = x->cols};

	if (x->lo != NULL)
	{
		out.lo = x->lo + at * Q3_PLANE_BLOCK;
		out.lo_sum = x->lo_sum + at;
	}
	return out;
}

#endif
