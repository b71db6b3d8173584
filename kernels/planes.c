/*
 * planes.c: packs matrices into planes of bits, and unpacks rows of them.
 *
 * Plain C for every machine: packing happens once per model, and its result must not depend on the
 * machine. The memory is the caller's; panels may be packed by different threads.
 */
#include "planes.h"

#include <math.h>
#include <string.h>

#include "cpu/blocks.h"
#include "cpu/cpu.h"
#include "cpu/planes_layout.h"

#define MIDDLE_16 32896 /* u of zero in 16 bits: rounding to the high byte is then to nearest */
#define LARGEST_16 (65535 - MIDDLE_16)

int
q3_planes_kind_for(q3_dtype type)
{
	switch (type)
	{
		case Q3_F32:
		case Q3_F16:
		case Q3_BF16:
			return Q3_PLANES_16;
		case Q3_Q8_0:
			return Q3_PLANES_8;
		case Q3_Q4_0:
		case Q3_Q4_1:
			return Q3_PLANES_4;
		default:
			return 0;
	}
}

typedef struct sizes
{
	size_t nibbles, bytes, scales; /* of one plane each; multiples of 64 */
} sizes;

static sizes
sizes_of(int32_t rows, int32_t cols)
{
	size_t panels = ((size_t) rows + Q3_PANEL_ROWS - 1) / Q3_PANEL_ROWS;
	size_t blocks = panels * (size_t) (cols / Q3_PLANE_BLOCK);
	size_t scales = blocks * Q3_PANEL_ROWS * sizeof(uint16_t);

	return (sizes){blocks * NIBBLE_BLOCK, blocks * BYTE_BLOCK, (scales + 63) / 64 * 64};
}

size_t
q3_planes_bytes(q3_planes_kind kind, int32_t rows, int32_t cols)
{
	sizes s = sizes_of(rows, cols);

	switch (kind)
	{
		case Q3_PLANES_4:
			return s.nibbles + 2 * s.scales;
		case Q3_PLANES_8:
			return 2 * s.nibbles + s.scales;
		case Q3_PLANES_16:
			return 2 * s.nibbles + s.bytes + s.scales;
	}
	return 0;
}

void
q3_planes_place(q3_planes *p, q3_planes_kind kind, int32_t rows, int32_t cols, const void *memory)
{
	sizes s = sizes_of(rows, cols);
	const uint8_t *next = memory;

	*p = (q3_planes){.kind = kind, .rows = rows, .cols = cols};
	p->hi = next;
	next += s.nibbles;
	if (kind != Q3_PLANES_4)
	{
		p->lo = next;
		next += s.nibbles;
	}
	if (kind == Q3_PLANES_16)
	{
		p->ext = next;
		next += s.bytes;
	}
	p->scale = (const uint16_t *) next;
	if (kind == Q3_PLANES_4)
		p->offset = (const uint16_t *) (next + s.scales);
}

/* ---- One block of one row: 32 numbers, a scale, an offset ---- */

typedef struct row_block
{
	uint16_t u[Q3_PLANE_BLOCK];
	uint16_t scale, offset;
} row_block;

static void
from_q8_0(const uint8_t *w, row_block *out)
{
	const block_q8_0 *b = (const block_q8_0 *) w;

	out->scale = load_u16(b->d);
	for (int i = 0; i < Q3_PLANE_BLOCK; i++)
		out->u[i] = (uint16_t) (b->qs[i] + 128);
}

static void
from_nibbles(const uint8_t *qs, row_block *out)
{
	for (int i = 0; i < 16; i++)
	{
		out->u[i] = qs[i] & 15;
		out->u[i + 16] = qs[i] >> 4;
	}
}

static void
from_q4_0(const uint8_t *w, row_block *out)
{
	const block_q4_0 *b = (const block_q4_0 *) w;
	uint16_t d = load_u16(b->d);

	from_nibbles(b->qs, out);
	if ((d & 0x7fff) > 0x6fff && (d & 0x7fff) < 0x7c00)
		d = (d & 0x8000) | 0x6fff;
	out->scale = d;
	out->offset = float_to_half(-8 * half_to_float(d));
}

static void
from_q4_1(const uint8_t *w, row_block *out)
{
	const block_q4_1 *b = (const block_q4_1 *) w;

	from_nibbles(b->qs, out);
	out->scale = load_u16(b->dm);
	out->offset = load_u16(b->dm + 2);
}

/* The smallest F16 that is not below f >= 0; the largest finite one if there is none. */
static uint16_t
half_not_below(float f)
{
	uint16_t h;

	if (!(f <= 65504))
		return 0x7bff;
	h = float_to_half(f);
	if (half_to_float(h) < f)
		h++;
	return h;
}

/* Where there is NaN, the whole block is NaN: a broken file must not look like a good one. */
static void
from_floats(const float *w, row_block *out)
{
	float largest = 0, inverse, step;
	bool broken = false;

	for (int i = 0; i < Q3_PLANE_BLOCK; i++)
	{
		broken |= w[i] != w[i];
		largest = fabsf(w[i]) > largest ? fabsf(w[i]) : largest;
	}
	out->scale = broken ? 0x7e00 : half_not_below(largest * (32768.0f / LARGEST_16));
	step = half_to_float(out->scale) * 0x1p-15f;
	inverse = out->scale == 0 || broken ? 0 : 1 / step;
	for (int i = 0; i < Q3_PLANE_BLOCK; i++)
	{
		float q = broken ? 0 : w[i] * inverse;

		q = q > LARGEST_16 ? LARGEST_16 : q < -MIDDLE_16 ? -MIDDLE_16 : q;
		/* Adding 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits. */
		out->u[i] = (uint16_t) (bits_from_float(q + 0x1.8p23f) + MIDDLE_16);
	}
}

/* ---- Panels ---- */

/* Places of column c of row r (of 16) in a block of a panel. */
static size_t
nibble_byte(int r, int c)
{
	return (size_t) (c / 8 * 64 + 4 * r + c % 4);
}

static int
nibble_shift(int c)
{
	return c % 8 / 4 * 4;
}

static size_t
ext_byte(int r, int c)
{
	return (size_t) (c / 4 * 64 + 4 * r + c % 4);
}

static void
store_block(const q3_planes *p, size_t at, int r, const row_block *b)
{
	uint8_t *hi = (uint8_t *) p->hi + at * NIBBLE_BLOCK;
	uint8_t *lo = p->lo == NULL ? NULL : (uint8_t *) p->lo + at * NIBBLE_BLOCK;
	uint8_t *ext = p->ext == NULL ? NULL : (uint8_t *) p->ext + at * BYTE_BLOCK;
	int high_shift = (int) p->kind - 4;

	for (int c = 0; c < Q3_PLANE_BLOCK; c++)
	{
		size_t i = nibble_byte(r, c);
		int shift = nibble_shift(c);

		/* A byte's low nibble is written before its high one. */
		hi[i] = (uint8_t) ((shift == 0 ? 0 : hi[i]) | (b->u[c] >> high_shift & 15) << shift);
		if (lo != NULL)
			lo[i] =
			    (uint8_t) ((shift == 0 ? 0 : lo[i]) | (b->u[c] >> (high_shift - 4) & 15) << shift);
		if (ext != NULL)
			ext[ext_byte(r, c)] = (uint8_t) b->u[c];
	}
	((uint16_t *) p->scale)[at * Q3_PANEL_ROWS + (size_t) r] = b->scale;
	if (p->offset != NULL)
		((uint16_t *) p->offset)[at * Q3_PANEL_ROWS + (size_t) r] = b->offset;
}

/* A row of w, or of zeros if there is none; floats: its weights, for 16-bit sources. */
static void
pack_row(const q3_planes *p, const q3_matrix *w, int32_t panel, int r, bool exists,
         const uint8_t *row, const float *floats)
{
	size_t bytes = q3_dtype_block_bytes(w->type);

	for (int32_t b = 0; b < p->cols / Q3_PLANE_BLOCK; b++)
	{
		row_block block = {.scale = 0};

		if (!exists)
			;
		else if (w->type == Q3_Q8_0)
			from_q8_0(row + (size_t) b * bytes, &block);
		else if (w->type == Q3_Q4_0)
			from_q4_0(row + (size_t) b * bytes, &block);
		else if (w->type == Q3_Q4_1)
			from_q4_1(row + (size_t) b * bytes, &block);
		else
			from_floats(floats + (size_t) b * Q3_PLANE_BLOCK, &block);
		store_block(p, panel_block(p, panel, b), r, &block);
	}
}

void
q3_planes_pack(const q3_planes *p, const q3_matrix *w, int32_t panel_begin, int32_t panel_end,
               float *scratch)
{
	for (int32_t panel = panel_begin; panel < panel_end; panel++)
		for (int r = 0; r < Q3_PANEL_ROWS; r++)
		{
			int32_t row = panel * Q3_PANEL_ROWS + r;
			const uint8_t *data = (const uint8_t *) w->data;

			if (row < p->rows)
			{
				data += (size_t) row * w->row_bytes;
				if (w->type == Q3_BF16)
					for (int32_t k = 0; k < p->cols; k++)
						scratch[k] = bf16_to_float(load_u16(data + 2 * k));
				else if (p->kind == Q3_PLANES_16)
					q3_kernels_scalar.dequantize(w->type, data, p->cols, scratch);
			}
			pack_row(p, w, panel, r, row < p->rows, data, scratch);
		}
}

void
q3_planes_row(const q3_planes *p, int32_t row, float *out)
{
	int r = row % Q3_PANEL_ROWS;

	for (int32_t k = 0; k < p->cols; k++)
	{
		int c = k % Q3_PLANE_BLOCK, shift = nibble_shift(c);
		size_t at = panel_block(p, row / Q3_PANEL_ROWS, k / Q3_PLANE_BLOCK);
		size_t i = at * NIBBLE_BLOCK + nibble_byte(r, c);
		size_t s = at * Q3_PANEL_ROWS + (size_t) r;
		float scale = half_to_float(p->scale[s]);
		int u = p->hi[i] >> shift & 15;

		if (p->lo != NULL)
			u = u << 4 | (p->lo[i] >> shift & 15);
		if (p->kind == Q3_PLANES_4)
			out[k] = scale * (float) u + half_to_float(p->offset[s]);
		else if (p->kind == Q3_PLANES_8)
			out[k] = scale * (float) (u - 128);
		else
			out[k] = scale * 0x1p-15f *
			         (float) ((u << 8 | p->ext[at * BYTE_BLOCK + ext_byte(r, c)]) - MIDDLE_16);
	}
}
