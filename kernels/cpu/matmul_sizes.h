/*
 * matmul_sizes.h: block sizes of the matrix product, and the scratch memory that follows from them.
 */
#ifndef Q3_CPU_MATMUL_SIZES_H
#define Q3_CPU_MATMUL_SIZES_H

/* Columns in a panel slice: a multiple of every type's block; 8 rows of it fit the first cache. */
#ifndef SLICE
#define SLICE 768
#endif
#ifndef BLOCK_ROWS
#define BLOCK_ROWS 64
#endif
#ifndef BLOCK_TOKENS
#define BLOCK_TOKENS 96
#endif
/* Bounds over all instruction sets. */
#define MAX_PANEL 8
#define MAX_VL 16

/*
 * Packed matrices: columns of a slice that is unpacked to floats (two vectors of rows: 64 KB), and
 * tokens whose accumulators may rest beside it.
 */
#define SLICE_COLUMNS 512
#define REST_TOKENS 512
#define PLANES_SCRATCH (sizeof(float) * 2 * MAX_VL * (SLICE_COLUMNS + REST_TOKENS))

#endif
