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

#endif
