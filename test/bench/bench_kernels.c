/*
 * bench_kernels.c: the kernel lab. Measures the kernels of one instruction set on one thread: the
 * matrix product beside OpenBLAS (which gets the weights dequantised for it within the measured
 * time, as an engine would have to), and attention over 4096 keys.
 *
 *   make bench && build/bench/bench_kernels [ISA [TYPE|attention [TOKENS]...]]
 *
 * Weights are spread over more matrices than the second cache holds. The best of several rounds is
 * printed: on a shared machine everything else measures the neighbours.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cblas.h>

#include "lab.h"
#include "kernels.h"

extern void openblas_set_num_threads(int n);

#ifndef WEIGHT_BYTES
#define WEIGHT_BYTES ((size_t) 192 << 20)
#endif

/* Processor time: on a shared machine others' turns do not count. */
static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* Random bytes, but every scale and every plain number is small and finite. */
static void
fill_weights(q3_dtype type, uint8_t *data, size_t bytes)
{
	size_t block = q3_dtype_block_bytes(type);
	size_t d = type == Q3_Q6_K ? block - 2 : 0;
	int halves = type == Q3_Q4_1 || type == Q3_Q5_1 || type == Q3_Q4_K || type == Q3_Q5_K ? 2 : 1;

	for (size_t i = 0; i + 4 <= bytes; i += 4)
	{
		uint32_t r = random_u32();

		memcpy(data + i, &r, 4);
	}
	if (type == Q3_F32)
		for (size_t i = 3; i < bytes; i += 4)
			data[i] = 0x3d;
	else if (type == Q3_F16 || type == Q3_BF16)
		for (size_t i = 1; i < bytes; i += 2)
			data[i] = type == Q3_F16 ? 0x2b : 0x3d;
	else
		for (size_t i = 0; i + block <= bytes; i += block)
			for (int h = 0; h < halves; h++)
			{
				data[i + d + 2 * (size_t) h] = 0;
				data[i + d + 2 * (size_t) h + 1] = 0x24;
			}
}

typedef struct
{
	const q3_kernels *kernels;
	q3_matrix w;
	size_t matrix_bytes;
	int n_matrices;
	float *x, *y, **rows, *dense;
	void *scratch;
	size_t ldx;
} bench;

static void
run_ours(bench *b, int i, int n_tokens)
{
	q3_matrix w = b->w;

	w.data = (const char *) w.data + (size_t) (i % b->n_matrices) * b->matrix_bytes;
	/* In chunks, as the engine's threads take them. */
	for (int32_t r = 0; r < w.rows; r += 128)
		b->kernels->matmul(&w, r, r + 128 < w.rows ? r + 128 : w.rows, b->x, b->ldx, n_tokens,
		                   b->rows, b->scratch);
}

static void
run_blas(bench *b, int i, int n_tokens)
{
	const char *data = (const char *) b->w.data + (size_t) (i % b->n_matrices) * b->matrix_bytes;
	const float *dense = (const float *) data;

	if (b->w.type != Q3_F32)
	{
		for (int32_t r = 0; r < b->w.rows; r++)
			b->kernels->dequantize(b->w.type, data + (size_t) r * b->w.row_bytes, b->w.cols,
			                       b->dense + (size_t) r * (size_t) b->w.cols);
		dense = b->dense;
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_tokens, b->w.rows, b->w.cols, 1.0f, b->x,
	            (int) b->ldx, dense, b->w.cols, 0.0f, b->y, b->w.rows);
}

static double
best_time(bench *b, void (*run)(bench *, int, int), int n_tokens)
{
	double best = 1e9, total = 0;
	int next = 0;

	for (int round = 0; round < 200 && (total < 0.15 || round < 5); round++)
	{
		int n = n_tokens == 1 ? b->n_matrices : 2;
		double start = now(), took;

		for (int i = 0; i < n; i++)
			run(b, next++, n_tokens);
		took = now() - start;
		total += took;
		if (took / n < best)
			best = took / n;
	}
	return best;
}

static void
bench_type(const q3_kernels *kernels, q3_dtype type, int32_t rows, int32_t cols, const int *tokens)
{
	bench b = {.kernels = kernels};
	size_t row_bytes = q3_dtype_row_bytes(type, (uint64_t) cols);
	uint8_t *data;

	if (row_bytes == 0)
		return;
	b.matrix_bytes = row_bytes * (size_t) rows;
	b.n_matrices = (int) (WEIGHT_BYTES / b.matrix_bytes) + 1;
	data = allocate(b.matrix_bytes * (size_t) b.n_matrices);
	fill_weights(type, data, b.matrix_bytes * (size_t) b.n_matrices);
	b.w = (q3_matrix){data, type, rows, cols, row_bytes};
	b.ldx = (size_t) cols + 16;
	b.x = allocate(512 * b.ldx * sizeof(float));
	b.y = allocate(512 * (size_t) rows * sizeof(float));
	b.dense = allocate((size_t) rows * (size_t) cols * sizeof(float));
	b.rows = allocate(512 * sizeof(float *));
	b.scratch = allocate(q3_matmul_scratch());
	for (size_t i = 0; i < 512 * b.ldx; i++)
		b.x[i] = (float) (random_u32() >> 8) * 0x1p-24f - 0.5f;
	for (int t = 0; t < 512; t++)
		b.rows[t] = b.y + (size_t) t * (size_t) rows;
	printf("%-6s %-6s %5d x %-5d", kernels->name, q3_dtype_name(type), rows, cols);
	for (size_t i = 0; tokens[i] != 0; i++)
	{
		int t = tokens[i];
		double work = 2.0 * rows * cols * t * 1e-9, ours = best_time(&b, run_ours, t);

		if (t == 1)
			printf(" | T=1 %.1f GB/s", (double) b.matrix_bytes * 1e-9 / ours);
		else if (t < 64)
			printf(" | %d: %.0f", t, work / ours);
		else
			printf(" | %d: %.0f (blas %.0f)", t, work / ours, work / best_time(&b, run_blas, t));
		fflush(stdout);
	}
	printf(" GFLOP/s\n");
	free(data);
	free(b.x);
	free(b.y);
	free(b.dense);
	free(b.rows);
	free(b.scratch);
}

/* Attention of the last n_tokens of 4096, for one K/V head; caches of many heads, as in a model. */
static void
bench_attention(const q3_kernels *kernels, int32_t head_dim, int32_t group, bool f32)
{
	enum
	{
		KEYS = 4096,
		HEADS = 16
	};
	static const int tokens[] = {1, 4, 32};
	size_t head_bytes = (size_t) head_dim * Q3_KV_BLOCK * 2 * (f32 ? 4 : 2);
	size_t ldq = (size_t) (group * head_dim);
	int32_t blocks[KEYS / Q3_KV_BLOCK];
	float *q = allocate(KEYS * ldq * sizeof(float)), *out = allocate(32 * ldq * sizeof(float));
	void *scratch = allocate(q3_attention_scratch(head_dim));
	q3_kv_view kv = {allocate(KEYS / Q3_KV_BLOCK * HEADS * head_bytes),
	                 blocks,
	                 HEADS * head_bytes,
	                 0,
	                 head_dim,
	                 f32};

	for (size_t i = 0; i < KEYS * ldq; i++)
		q[i] = (float) (random_u32() >> 8) * 0x1p-24f - 0.5f;
	for (int32_t i = 0; i < KEYS / Q3_KV_BLOCK; i++)
		blocks[i] = i;
	for (int32_t h = 0; h < HEADS; h++)
	{
		kv.offset = (size_t) h * head_bytes;
		for (int32_t i = 0; i < KEYS; i++)
			kernels->kv_store(&kv, i, q + (size_t) i * ldq, q + (size_t) i * ldq);
	}
	printf("%-6s attention, 4096 keys %s, head of %d, %d queries", kernels->name,
	       f32 ? "F32" : "F16", head_dim, group);
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
	{
		int32_t n = tokens[i] * group > Q3_ATTENTION_QUERIES ? 1 : tokens[i];
		double best = 1e9;

		for (int round = 0; round < 5; round++)
		{
			double start = now(), took;

			for (int32_t h = 0; h < HEADS; h++)
			{
				const q3_attention_part part = {blocks, KEYS - n, n};

				kv.offset = (size_t) h * head_bytes;
				kernels->attention(&kv, &part, 1, 0, group, q, ldq, out, ldq, scratch);
			}
			took = (now() - start) / HEADS;
			best = took < best ? took : best;
		}
		printf(" | %d tokens: %.1f GFLOP/s, %.1f GB/s", n,
		       4e-9 * KEYS * head_dim * group * n / best,
		       1e-9 * (double) head_bytes * KEYS / Q3_KV_BLOCK / best);
	}
	printf("\n");
	free(q);
	free(out);
	free(scratch);
	free(kv.base);
}

int
main(int argc, char **argv)
{
	static const int32_t shapes[][2] = {{3072, 1024}, {1024, 3072}, {1536, 576}, {576, 1536}};
	const q3_kernels *kernels = q3_kernels_get(argc > 1 ? argv[1] : NULL);

	int tokens[64] = {1, 2, 4, 8, 16, 64, 128, 512};

	for (int i = 3; i < argc && i < 64; i++)
	{
		tokens[i - 3] = atoi(argv[i]) < 1 || atoi(argv[i]) > 512 ? 512 : atoi(argv[i]);
		tokens[i - 2] = 0;
	}
	if (kernels == NULL)
	{
		fprintf(stderr, "%s is not an instruction set of this build and machine\n", argv[1]);
		return 1;
	}
	openblas_set_num_threads(1);
	if (argc <= 2 || strcmp(argv[2], "attention") == 0)
		for (int i = 0; i < 8; i++)
			bench_attention(kernels, i & 1 ? 128 : 64, i & 4 ? 7 : i & 1 ? 2 : 3, (i & 2) != 0);
	for (unsigned type = 0; type <= Q3_BF16; type++)
		for (size_t s = 0; q3_dtype_supported(type) && s < sizeof(shapes) / sizeof(shapes[0]); s++)
			if (argc <= 2 || strcmp(argv[2], q3_dtype_name(type)) == 0)
				bench_type(kernels, (q3_dtype) type, shapes[s][0], shapes[s][1], tokens);
	return 0;
}
