/*
 * scalar_planes.c: the products with packed matrices in plain C: what they mean, the twin that the
 * vector files are tested against, and what runs where there is nothing better.
 */
#include "cpu.h"

#include <math.h>
#include <string.h>

#include "blocks.h"
#include "planes_layout.h"
#include "vec.h"

#define ROWS Q3_PANEL_ROWS
#define BLOCK Q3_PLANE_BLOCK

/* ---- Activations ---- */

static int8_t
to_byte(float v)
{
	return v >= -127 ? (int8_t) (v <= 127 ? v : 127) : -128; /* -128 for NaN, too */
}

static void
quantize_block(const float *x, const q3_acts *out)
{
	uint32_t largest_bits = 0;
	float largest, inverse;
	int32_t sum = 0, lo_sum = 0;

	/* As integers, so that NaN is larger than everything. */
	for (int i = 0; i < BLOCK; i++)
	{
		uint32_t bits = bits_from_float(x[i]) & 0x7fffffff;

		largest_bits = bits > largest_bits ? bits : largest_bits;
	}
	largest = largest_bits < 0x0d800000 ? 0 : float_from_bits(largest_bits); /* 2^-100 */
	inverse = largest == 0 ? 0 : 127 / largest;
	for (int i = 0; i < BLOCK; i++)
	{
		float v = x[i] * inverse, whole = rintf(v);

		sum += out->q[i] = to_byte(whole);
		if (out->lo != NULL)
			lo_sum += out->lo[i] = to_byte(rintf((v - whole) * 256)); /* the difference is exact */
	}
	*out->scale = largest / 127;
	*out->sum = -128 * sum;
	if (out->lo != NULL)
		*out->lo_sum = -128 * lo_sum;
}

void
q3_scalar_quantize(const float *x, int32_t cols, const q3_acts *out)
{
	for (int32_t b = 0; b < cols / BLOCK; b++)
	{
		q3_acts at = q3_acts_at(out, 0, b);

		quantize_block(x + b * BLOCK, &at);
	}
}

/* ---- Weights ---- */

/* u of the columns of a block for 16 rows, [column][row], from the first 4 or 8 bits. */
static void
unpack(const q3_planes *w, bool bytes, size_t at, uint8_t u[BLOCK][ROWS])
{
	const uint8_t *hi = w->hi + at * NIBBLE_BLOCK;
	const uint8_t *lo = bytes ? w->lo + at * NIBBLE_BLOCK : NULL;

	for (int i = 0; i < NIBBLE_BLOCK; i++)
	{
		int row = i % 64 / 4, column = i / 64 * 8 + i % 4;

		u[column][row] = hi[i] & 15;
		u[column + 4][row] = hi[i] >> 4;
		if (bytes)
		{
			u[column][row] = (uint8_t) (u[column][row] << 4 | (lo[i] & 15));
			u[column + 4][row] = (uint8_t) (u[column + 4][row] << 4 | lo[i] >> 4);
		}
	}
}

/* ---- Integers ---- */

static void
block_times_tokens(const q3_planes *w, bool bytes, int32_t row, int32_t n_rows, int32_t b,
                   const q3_acts *x, int32_t n_tokens, float *const *y)
{
	size_t at = panel_block(w, row / ROWS, b);
	const uint16_t *scales = w->scale + at * ROWS;
	float scale[ROWS], offset[ROWS];
	uint8_t u[BLOCK][ROWS];

	unpack(w, bytes, at, u);
	for (int r = 0; r < ROWS; r++)
	{
		float f = half_to_float(scales[r]);

		scale[r] = f * (bytes ? byte_factor(w->kind) : nibble_factor(w->kind));
		offset[r] = w->kind == Q3_PLANES_4 ? half_to_float(w->offset[at * ROWS + (size_t) r])
		                                   : f * nibble_middle(w->kind);
		offset[r] *= -0x1p-7f;
	}
	for (int32_t t = 0; t < n_tokens; t++)
	{
		q3_acts at_block = q3_acts_at(x, t, b);
		bool two = x->lo != NULL;
		int32_t sum = two ? 256 * *at_block.sum + *at_block.lo_sum : *at_block.sum, dot[ROWS];
		float xscale = *at_block.scale * (two ? 0x1p-8f : 1);

		for (int r = 0; r < ROWS; r++)
			dot[r] = bytes ? sum : 0;
		for (int k = 0; k < BLOCK; k++)
		{
			int32_t q = two ? 256 * at_block.q[k] + at_block.lo[k] : at_block.q[k];

			for (int r = 0; r < ROWS; r++)
				dot[r] += u[k][r] * q;
		}
		for (int32_t r = 0; r < n_rows; r++)
		{
			float acc = b == 0 ? 0 : y[t][row + r];

			if (!bytes)
				acc += offset[r] * (xscale * (float) sum);
			y[t][row + r] = acc + (float) dot[r] * (scale[r] * xscale);
		}
	}
}

void
q3_scalar_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end,
                      const q3_acts *x, int32_t n_tokens, float *const *y, void *scratch)
{
	bool bytes = bits == 8 && w->kind != Q3_PLANES_4;

	(void) scratch;
	for (int32_t r = row_begin; r < row_end; r += ROWS)
		for (int32_t b = 0; b < w->cols / BLOCK; b++)
			block_times_tokens(w, bytes, r, row_end - r < ROWS ? row_end - r : ROWS, b, x, n_tokens,
			                   y);
}

/* ---- Float32 ---- */

/* The weights of a block for 16 rows, [column][row]. */
static void
dequantize_block(const q3_planes *w, size_t at, float out[BLOCK][ROWS])
{
	uint8_t u[BLOCK][ROWS];

	unpack(w, w->kind != Q3_PLANES_4, at, u);
	for (int r = 0; r < ROWS; r++)
	{
		float scale = half_to_float(w->scale[at * ROWS + (size_t) r]);

		for (int k = 0; k < BLOCK; k++)
			if (w->kind == Q3_PLANES_4)
				out[k][r] =
				    scale * (float) u[k][r] + half_to_float(w->offset[at * ROWS + (size_t) r]);
			else if (w->kind == Q3_PLANES_8)
				out[k][r] = scale * (float) (u[k][r] - 128);
			else
			{
				int low = w->ext[at * BYTE_BLOCK + (size_t) (k / 4 * 64 + 4 * r + k % 4)];

				out[k][r] = scale * 0x1p-15f * (float) ((u[k][r] << 8 | low) - 32896);
			}
	}
}

/* Four lanes: the vector that almost every machine has; compilers emulate it elsewhere. */
typedef float four __attribute__((vector_size(16)));

void
q3_scalar_matmul_planes(const q3_planes *w, int32_t row_begin, int32_t row_end, const float *x,
                        size_t ldx, int32_t n_tokens, float *const *y, void *scratch)
{
	float(*weights)[ROWS] = scratch;

	for (int32_t r = row_begin; r < row_end; r += ROWS)
		for (int32_t b = 0; b < w->cols / BLOCK; b++)
		{
			size_t n_rows = (size_t) (row_end - r < ROWS ? row_end - r : ROWS);

			dequantize_block(w, panel_block(w, r / ROWS, b), weights);
			for (int32_t t = 0; t < n_tokens; t++)
			{
				const float *xs = x + (size_t) t * ldx + b * BLOCK;
				four acc[ROWS / 4] = {{0}}, v;

				if (b > 0)
					memcpy(acc, y[t] + r, n_rows * sizeof(float));
				for (int k = 0; k < BLOCK; k++)
					foreach (i, ROWS / 4)
					{
						memcpy(&v, weights[k] + 4 * i, sizeof(v));
						acc[i] += v * xs[k];
					}
				memcpy(y[t] + r, acc, n_rows * sizeof(float));
			}
		}
}
