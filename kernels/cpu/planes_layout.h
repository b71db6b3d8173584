/*
 * planes_layout.h: where the parts of a packed matrix lie, and what its numbers mean at a number of
 * bits. Private to kernels/; the layout itself is described in planes.h.
 */
#ifndef Q3_CPU_PLANES_LAYOUT_H
#define Q3_CPU_PLANES_LAYOUT_H

#include "planes.h"

#define NIBBLE_BLOCK 256 /* bytes of a block of a panel in a nibble plane */
#define BYTE_BLOCK 512   /* and in the byte plane */

/* A block of a panel, as an index into the planes: times NIBBLE_BLOCK, BYTE_BLOCK, or 16 scales. */
static inline size_t
panel_block(const q3_planes *p, int32_t panel, int32_t block)
{
	return (size_t) panel * (size_t) (p->cols / Q3_PLANE_BLOCK) + (size_t) block;
}

/* What to multiply the stored scale with, for weights of 8 bits: w = scale * factor * (u - 128). */
static inline float
byte_factor(q3_planes_kind kind)
{
	return kind == Q3_PLANES_8 ? 1.0f : 0x1p-7f;
}

/*
 * The same for weights of 4 bits: w = scale * factor * u + scale * middle, or, for PLANES_4, whose
 * middle is 0, + offset.
 */
static inline float
nibble_factor(q3_planes_kind kind)
{
	return kind == Q3_PLANES_4 ? 1.0f : kind == Q3_PLANES_8 ? 16.0f : 0x1p-3f;
}

static inline float
nibble_middle(q3_planes_kind kind)
{
	return kind == Q3_PLANES_4 ? 0.0f : kind == Q3_PLANES_8 ? -120.5f : -30848.5f * 0x1p-15f;
}

#endif
