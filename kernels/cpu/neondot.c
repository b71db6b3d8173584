/*
 * neondot.c: products with activations of 8 bits for 64-bit ARM with dot product instructions, as
 * most of it has since 2018. Compiled with flags of its own; the table that it belongs to is in
 * neon.c.
 */
#include "cpu.h"

#if defined(__aarch64__)

#include "blocks.h"
#include "neon_vec.h"
#include "planes_layout.h"

#define NEON_DOT
#include "neon_int8.h"

void
q3_neondot_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end,
                       const q3_acts *x, int32_t n_tokens, float *const *y, void *scratch)
{
	neon_matmul_int8(w, bits, row_begin, row_end, x, n_tokens, y, scratch);
}

#endif
