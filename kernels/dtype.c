/*
 * dtype.c: names and block sizes of the storage types.
 *
 * Constant tables only: no memory, any thread. Types that GGUF knows and we do not compute with are
 * listed by name, so that an error can say what a file holds.
 */
#include "kernels.h"

typedef struct dtype_info
{
	const char *name;
	uint16_t block; /* weights per block; 0: not supported */
	uint16_t bytes; /* per block */
} dtype_info;

/* Indexed by GGUF's type number; the gaps are numbers that GGUF has withdrawn. */
static const dtype_info dtypes[] = {
    [Q3_F32] = {"F32", 1, 4},
    [Q3_F16] = {"F16", 1, 2},
    [Q3_Q4_0] = {"Q4_0", 32, 18},
    [Q3_Q4_1] = {"Q4_1", 32, 20},
    [4] = {"Q4_2", 0, 0},
    [5] = {"Q4_3", 0, 0},
    [Q3_Q5_0] = {"Q5_0", 32, 22},
    [Q3_Q5_1] = {"Q5_1", 32, 24},
    [Q3_Q8_0] = {"Q8_0", 32, 34},
    [9] = {"Q8_1", 0, 0},
    [10] = {"Q2_K", 0, 0},
    [11] = {"Q3_K", 0, 0},
    [Q3_Q4_K] = {"Q4_K", 256, 144},
    [Q3_Q5_K] = {"Q5_K", 256, 176},
    [Q3_Q6_K] = {"Q6_K", 256, 210},
    [15] = {"Q8_K", 0, 0},
    [16] = {"IQ2_XXS", 0, 0},
    [17] = {"IQ2_XS", 0, 0},
    [18] = {"IQ3_XXS", 0, 0},
    [19] = {"IQ1_S", 0, 0},
    [20] = {"IQ4_NL", 0, 0},
    [21] = {"IQ3_S", 0, 0},
    [22] = {"IQ2_S", 0, 0},
    [23] = {"IQ4_XS", 0, 0},
    [24] = {"I8", 0, 0},
    [25] = {"I16", 0, 0},
    [26] = {"I32", 0, 0},
    [27] = {"I64", 0, 0},
    [28] = {"F64", 0, 0},
    [29] = {"IQ1_M", 0, 0},
    [Q3_BF16] = {"BF16", 1, 2},
    [31] = {"Q4_0_4_4", 0, 0},
    [32] = {"Q4_0_4_8", 0, 0},
    [33] = {"Q4_0_8_8", 0, 0},
    [34] = {"TQ1_0", 0, 0},
    [35] = {"TQ2_0", 0, 0},
    [36] = {"IQ4_NL_4_4", 0, 0},
    [37] = {"IQ4_NL_4_8", 0, 0},
    [38] = {"IQ4_NL_8_8", 0, 0},
    [39] = {"MXFP4", 0, 0},
    [40] = {"NVFP4", 0, 0},
    [41] = {"Q1_0", 0, 0},
};

static const dtype_info *
lookup(unsigned type)
{
	static const dtype_info unknown = {NULL, 0, 0};

	return type < sizeof(dtypes) / sizeof(dtypes[0]) ? &dtypes[type] : &unknown;
}

const char *
q3_dtype_name(unsigned type)
{
	return lookup(type)->name;
}

bool
q3_dtype_supported(unsigned type)
{
	return lookup(type)->block != 0;
}

size_t
q3_dtype_block(unsigned type)
{
	return lookup(type)->block;
}

size_t
q3_dtype_block_bytes(unsigned type)
{
	return lookup(type)->bytes;
}

size_t
q3_dtype_row_bytes(unsigned type, uint64_t n)
{
	const dtype_info *info = lookup(type);
	uint64_t bytes;

	if (info->block == 0 || n % info->block != 0 ||
	    __builtin_mul_overflow(n / info->block, (uint64_t) info->bytes, &bytes) || bytes > SIZE_MAX)
		return 0;
	return (size_t) bytes;
}
