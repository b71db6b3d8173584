/*
 * kernels.h: the table of operations that the model is computed with.
 *
 * One file per instruction set under cpu/ fills a q3_kernels; q3_kernels_select() picks the best
 * one that this machine can run, or the one named by the environment variable QWEN3DM_ISA (scalar,
 * avx2, avx512, avx512vnni, avx512amx, neon, neondot). Kernels own no memory, start no threads, and
 * know nothing of models. Within one instruction set the result for one (token, output) pair is the
 * same bits whatever else is in the call: the order of every sum depends on the sizes of the matrix
 * only.
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

/* Tokens in one block of the KV cache. */
#define Q3_KV_BLOCK 32
/* Sizes that every machine's vectors divide: row lengths of matrices, and sizes of heads. */
#define Q3_COLS_MULTIPLE 32
#define Q3_HEAD_MULTIPLE 16
/* Most query vectors (tokens times heads that share one K/V head) in one call of attention(). */
#define Q3_ATTENTION_QUERIES 128
#define Q3_MAX_HEAD_DIM 512

/* A stored matrix [rows][cols]: cols inputs to rows outputs. cols is a multiple of 32. */
typedef struct q3_matrix
{
	const void *data;
	q3_dtype type;
	int32_t rows, cols;
	size_t row_bytes;
} q3_matrix;

/*
 * The KV cache of one sequence, one layer and one K/V head. A block holds K transposed, [head_dim]
 * [32 tokens], so that scores come out with keys in the lanes, and behind it V, [32][head_dim].
 */
typedef struct q3_kv_view
{
	char *base;            /* of the pool */
	const int32_t *blocks; /* pool block that holds tokens 32 i ... 32 i + 31, for each i */
	size_t block_bytes;    /* from block to block in the pool */
	size_t offset;         /* of this layer and head within a block */
	int32_t head_dim;      /* a multiple of 16 */
	bool f32;              /* elements are F32; else F16 */
} q3_kv_view;

/* Consecutive tokens of one sequence in a call of attention(). */
typedef struct q3_attention_part
{
	const int32_t *blocks; /* of the sequence, as in q3_kv_view */
	int32_t pos, n_tokens; /* of the first token; n_tokens >= 1 */
} q3_attention_part;

/* Matrices packed in planes of bits, and activations of 8 or 16 bits: see planes.h. */
typedef struct q3_planes q3_planes;
typedef struct q3_acts q3_acts;

/*
 * Vectors are float32 and may be anywhere unless said otherwise; lengths n are multiples of 16.
 * scratch: q3_matmul_scratch() or q3_attention_scratch() bytes, aligned to 64, one per thread.
 */
typedef struct q3_kernels
{
	const char *name;

	/* out[n] = the first n weights of a stored row; n is a multiple of the type's block. Exact:
	 * every instruction set gives the same bits. */
	void (*dequantize)(q3_dtype type, const void *row, int32_t n, float *out);

	/*
	 * y[t][r] = sum over k of w[r][k] * x[t * ldx + k], for row_begin <= r < row_end and
	 * 0 <= t < n_tokens. Weights are used as dequantize() gives them, sums are float32.
	 */
	void (*matmul)(const q3_matrix *w, int32_t row_begin, int32_t row_end, const float *x,
	               size_t ldx, int32_t n_tokens, float *const *y, void *scratch);

	/*
	 * cols activations of one token to where out points: q, scale and sum, and lo and lo_sum unless
	 * out->lo is NULL. Every instruction set gives the same bits. cols is a multiple of 32.
	 */
	void (*quantize)(const float *x, int32_t cols, const q3_acts *out);
	/*
	 * y[t][r] for row_begin <= r < row_end with the first 8 or 4 bits of each weight (PLANES_4 has
	 * only 4), summed in float32 over blocks of 32 columns, ascending:
	 *   8 bits: acc = fma(float(dot + sum), s * xscale, acc)
	 *   4 bits: acc = fma(float(dot), s * xscale, fma(o, xscale * float(sum), acc))
	 * dot is the exact sum of u * q, s and o / -128 are scale and offset of u at these bits. Unless
	 * x->lo is NULL, 256 * q + lo stands for q, 256 * sum + lo_sum for sum and xscale / 256 for
	 * xscale; these integers fit 32 bits, too. Scalar kernels round where others fuse. row_begin is
	 * a multiple of 16.
	 */
	void (*matmul_int8)(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end,
	                    const q3_acts *x, int32_t n_tokens, float *const *y, void *scratch);
	/*
	 * y[t][r] = sum over k, ascending, of w[r][k] * x[t * ldx + k] in float32, the weights as
	 * q3_planes_row() gives them. row_begin is a multiple of 16.
	 */
	void (*matmul_planes)(const q3_planes *w, int32_t row_begin, int32_t row_end, const float *x,
	                      size_t ldx, int32_t n_tokens, float *const *y, void *scratch);

	/* out = x / sqrt(mean(x^2) + eps) * weight; out may be x. */
	void (*rms_norm)(const float *x, const float *weight, int32_t n, float eps, float *out);
	/* x += y */
	void (*add)(float *x, const float *y, int32_t n);
	/* gate = gate / (1 + exp(-gate)) * up */
	void (*swiglu)(float *gate, const float *up, int32_t n);
	/*
	 * Rotates the first dims elements of one head in place: x[i] = x[i] * c[i] + x[pair of i] *
	 * s[i], where pairs are (2i, 2i+1) if interleaved, else (i, i + dims/2), and s carries the
	 * sign.
	 */
	void (*rope)(float *x, const float *c, const float *s, int32_t dims, bool interleaved);

	/* Writes k[head_dim] and v[head_dim] of the token at position pos. */
	void (*kv_store)(const q3_kv_view *kv, int32_t pos, const float *k, const float *v);
	/*
	 * Causal attention of the tokens of n_parts sequences, one part behind the other: the queries
	 * of token t (of all parts) are q[t * ldq + head * head_dim + d] for group heads, out the same
	 * way with ldo. kv is where the sequences are (its blocks are not looked at). The first
	 * n_shared blocks of all parts are the same ones, full, and before every token of the call:
	 * they are read once for all. The tokens times group are at most Q3_ATTENTION_QUERIES. Keys are
	 * visited in blocks at absolute positions, so that a query's result depends on its own position
	 * and keys only.
	 */
	void (*attention)(const q3_kv_view *kv, const q3_attention_part *parts, int32_t n_parts,
	                  int32_t n_shared, int32_t group, const float *q, size_t ldq, float *out,
	                  size_t ldo, void *scratch);
} q3_kernels;

/* Bytes of scratch that one thread needs, for any instruction set. */
extern size_t q3_matmul_scratch(void);
extern size_t q3_attention_scratch(int32_t head_dim);

/* NULL when the name is unknown or this build or machine does not have it; NULL name: the best. */
extern const q3_kernels *q3_kernels_get(const char *name);
/* The best, or what QWEN3DM_ISA names. NULL, with a reason in *reason, if that cannot be had. */
extern const q3_kernels *q3_kernels_select(const char **reason);
/* The i-th name ("scalar", "avx2", "avx512", "avx512vnni", "avx512amx", "neon", "neondot"; those of
 * other machines too), NULL behind the last; for tests and messages. */
extern const char *q3_kernels_name(int i);

#endif
