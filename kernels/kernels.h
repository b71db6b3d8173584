/*
 * kernels.h: the table of operations that the model is computed with.
 *
 * One file per instruction set under cpu/ fills a q3_kernels; q3_kernels_select() picks the best
 * one that this machine can run, or the one named by the environment variable QWEN3DM_ISA (scalar,
 * avx2, avx512). Kernels own no memory, start no threads, and know nothing of models. Within one
 * instruction set the result for one (token, output) pair is the same bits whatever else is in the
 * call: the order of every sum depends on the sizes of the matrix only.
 */
#ifndef Q3_KERNELS_H
#define Q3_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Storage types of tensors, numbered as in GGUF. */
typedef enum q3_dtype
{
	Q3_F32 = 0,
	Q3_F16 = 1,
	Q3_Q4_0 = 2,
	Q3_Q4_1 = 3,
	Q3_Q5_0 = 6,
	Q3_Q5_1 = 7,
	Q3_Q8_0 = 8,
	Q3_Q4_K = 12,
	Q3_Q5_K = 13,
	Q3_Q6_K = 14,
	Q3_BF16 = 30
} q3_dtype;

/* "Q4_K"; for a number that we do not compute with, the name GGUF gives it, or NULL if it has none.
 */
extern const char *q3_dtype_name(unsigned type);
/* True for the types above. */
extern bool q3_dtype_supported(unsigned type);
/* Weights per block (1, 32 or 256) and bytes per block; 0 for unsupported types. */
extern size_t q3_dtype_block(unsigned type);
extern size_t q3_dtype_block_bytes(unsigned type);
/* Bytes of a row of n weights; n must be a multiple of the block (else 0). */
extern size_t q3_dtype_row_bytes(unsigned type, uint64_t n);

#endif
