/*
 * planes.h: matrices packed in planes of bits, and the products with them.
 *
 * One packed copy serves both modes: `efficient` reads the high planes and multiplies them with
 * activations of 8 bits; `precise` reads every plane and multiplies in float32. The bytes of a
 * q3_planes are position independent and the same on every machine, so that they can lie in shared
 * memory or in a file.
 *
 * Layout. Rows stand in panels of 16 (the last one padded with zero weights), columns in blocks of
 * 32. A block of a panel has, in each nibble plane, 256 bytes: four vectors of 64, vector v holding
 * columns 8 v ... 8 v + 7 of 16 rows; byte 4 r + j of it holds row r, column 8 v + j in its low and
 * column 8 v + 4 + j in its high nibble. The byte plane has 512 bytes: eight vectors, byte 4 r + j
 * of vector v holding row r, column 4 v + j. Scales (F16) stand [block][16 rows]. All planes run
 * panel by panel, in a panel block by block.
 *
 * Values. u is the unsigned number that the planes give, most significant first:
 *   Q3_PLANES_8:  u = hi << 4 | lo (8 bits),            w = scale * (u - 128); exactly Q8_0
 *   Q3_PLANES_16: u = hi << 12 | lo << 8 | ext (16 bits), w = scale * (u - 32768)
 *   Q3_PLANES_4:  u = hi (4 bits),                      w = scale * u + offset; exactly Q4_0, Q4_1
 * Read at fewer bits than there are, the missing ones count as half of their range:
 *   PLANES_8 at 4 bits:  w = scale * (16 hi + 7.5 - 128)
 *   PLANES_16 at 8 bits: w = scale * (256 (hi << 4 | lo) + 127.5 - 32768); at 4 bits alike.
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

typedef struct q3_planes
{
	q3_planes_kind kind;
	int32_t rows, cols;  /* cols is a multiple of 32 */
	const uint8_t *hi;   /* nibble plane */
	const uint8_t *lo;   /* nibble plane; NULL for PLANES_4 */
	const uint8_t *ext;  /* byte plane; only PLANES_16 */
	const uint16_t *scale;
	const uint16_t *offset; /* F16 like scale; only PLANES_4 */
} q3_planes;

/* The kind a tensor of this type is packed as; 0 for types that keep their own blocks. */
extern int q3_planes_kind_for(q3_dtype type);
/* Bytes of the whole packed matrix, each part aligned to 64. */
extern size_t q3_planes_bytes(q3_planes_kind kind, int32_t rows, int32_t cols);
/* Points the parts of p into memory of q3_planes_bytes() bytes, aligned to 64. */
extern void q3_planes_place(q3_planes *p, q3_planes_kind kind, int32_t rows, int32_t cols,
							const void *memory);
/*
 * Packs panels [panel_begin, panel_end) of w into p, whose memory is writable here. Panels are
 * independent: threads may share the work. 16-bit sources: scale = the smallest F16 that lets the
 * block's largest weight fit, u = nearest. scratch: 16 * cols floats.
 */
extern void q3_planes_pack(const q3_planes *p, const q3_matrix *w, int32_t panel_begin,
						   int32_t panel_end, float *scratch);
/* One row, all planes, as float32 (embedding lookup and tests): exactly what matmul_planes uses. */
extern void q3_planes_row(const q3_planes *p, int32_t row, float *out);

/*
 * Activations of a batch in 8 bits: for token t, q + t * cols, one scale and one sum of q for each
 * block of 32. scale = max |x| / 127.
 */
typedef struct q3_acts
{
	int8_t *q;      /* [tokens][cols] */
	float *scale;   /* [tokens][cols / 32] */
	int32_t *sum;   /* [tokens][cols / 32] */
	int32_t cols;
} q3_acts;

/*
 * Members to add to q3_kernels (every instruction set fills them):
 *
 *	quantize(x, cols, q, scale, sum): one token's activations; rounds to nearest even.
 *
 *	matmul_int8(w, bits, row_begin, row_end, acts, n_tokens, y, scratch):
 *	  y[t][r] for row_begin <= r < row_end (row_begin a multiple of 16), bits = 8 or 4 (4 for
 *	  PLANES_4): sum over blocks b, ascending, in float32, of
 *	      fma(float(idot_b), wscale_b * xscale_b, acc)
 *	  where idot_b is an exact integer; the exact sequence of float operations is part of the
 *	  contract within an instruction set, so that a result never depends on n_tokens or tiles.
 *
 *	matmul_planes(w, row_begin, row_end, x, ldx, n_tokens, y, scratch):
 *	  the same in float32 with all planes: w as q3_planes_row() gives it, summed in a fixed order.
 */

#endif
