/*
 * bench_planes.c: the kernel lab for packed matrices. Measures matmul_int8 and matmul_planes of one
 * instruction set on one thread, beside the rate of its best integer and float instructions, which
 * is measured first.
 *
 *   make build/bench/bench_planes && build/bench/bench_planes [ISA [ROWS COLS]]
 *
 * Weights are spread over more matrices than the second cache holds. Time is the thread's own, so
 * that neighbours who take the processor away do not count (those who share its memory do); the
 * median of several rounds is printed, and the best behind a slash.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lab.h"
#include "planes.h"

#ifndef WEIGHT_BYTES
#define WEIGHT_BYTES ((size_t) 192 << 20)
#endif
#define MAX_TOKENS 512
#define ROUNDS 9

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* ---- What the machine can do: operations a second in registers, one thread ---- */

#if defined(__x86_64__)
#define TWELVE(INSTRUCTION, R)                                                                     \
	INSTRUCTION " %%" R "15, %%" R "14, %%" R "0\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R      \
	            "1\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R "2\n" INSTRUCTION " %%" R          \
	            "15, %%" R "14, %%" R "3\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R              \
	            "4\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R "5\n" INSTRUCTION " %%" R          \
	            "15, %%" R "14, %%" R "6\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R              \
	            "7\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R "8\n" INSTRUCTION " %%" R          \
	            "15, %%" R "14, %%" R "9\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R              \
	            "10\n" INSTRUCTION " %%" R "15, %%" R "14, %%" R "11\n"
#define CLOBBERS                                                                                   \
	"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
	    "xmm11", "xmm14", "xmm15"

enum
{
	LOOPS = 100000
};

static void
loop_vnni(void)
{
	for (int i = 0; i < LOOPS; i++)
		__asm__ volatile(TWELVE("vpdpbusd", "zmm")::: CLOBBERS);
	__asm__ volatile("vzeroupper" ::: CLOBBERS);
}

static void
loop_fma512(void)
{
	__asm__ volatile("vpxorq %%zmm15, %%zmm15, %%zmm15\nvpxorq %%zmm14, %%zmm14, %%zmm14" ::
	                     : CLOBBERS);
	for (int i = 0; i < LOOPS; i++)
		__asm__ volatile(TWELVE("vfmadd231ps", "zmm")::: CLOBBERS);
	__asm__ volatile("vzeroupper" ::: CLOBBERS);
}

static void
loop_fma256(void)
{
	__asm__ volatile("vpxor %%ymm15, %%ymm15, %%ymm15\nvpxor %%ymm14, %%ymm14, %%ymm14" ::
	                     : CLOBBERS);
	for (int i = 0; i < LOOPS; i++)
		__asm__ volatile(TWELVE("vfmadd231ps", "ymm")::: CLOBBERS);
	__asm__ volatile("vzeroupper" ::: CLOBBERS);
}

static double
rate(void (*loop)(void), double operations)
{
	double best = 1e9;

	for (int i = 0; i < 20; i++)
	{
		double start = now(), took;

		loop();
		took = now() - start;
		best = took < best ? took : best;
	}
	return operations * 12 * LOOPS / best * 1e-9;
}
#endif

/* GOP/s of multiplications and additions; 0: not known. */
static void
peaks(const char *isa, double *integer, double *floating)
{
	*integer = *floating = 0;
#if defined(__x86_64__)
	if (strcmp(isa, "avx512vnni") == 0 || strcmp(isa, "avx512amx") == 0)
		*integer = rate(loop_vnni, 128);
	if (strncmp(isa, "avx512", 6) == 0)
		*floating = rate(loop_fma512, 32);
	else if (strcmp(isa, "avx2") == 0)
		*floating = rate(loop_fma256, 16);
#else
	(void) isa;
#endif
}

/* ---- Products ---- */

typedef struct bench
{
	const q3_kernels *kernels;
	q3_planes *matrices;
	int n_matrices, bits; /* bits: 0 for float32 */
	size_t bytes;         /* of a matrix that are read */
	q3_acts acts;
	float *x, *y, **rows;
	void *scratch;
} bench;

static void
run(const bench *b, int i, int n_tokens)
{
	const q3_planes *w = &b->matrices[i % b->n_matrices];

	/* In chunks, as the engine's threads take them. */
	for (int32_t r = 0, end; r < w->rows; r = end)
	{
		end = r + 128 < w->rows ? r + 128 : w->rows;
		if (b->bits == 0)
			b->kernels->matmul_planes(w, r, end, b->x, (size_t) w->cols, n_tokens, b->rows,
			                          b->scratch);
		else
			b->kernels->matmul_int8(w, b->bits, r, end, &b->acts, n_tokens, b->rows, b->scratch);
	}
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* Seconds a matrix: the median, and the best. */
static double
measure(const bench *b, int n_tokens, double *best)
{
	double took[ROUNDS];
	int next = 0;

	for (int round = -1; round < ROUNDS; round++)
	{
		int n = n_tokens == 1 ? b->n_matrices : n_tokens < 32 ? 8 : 2;
		double start = now();

		for (int i = 0; i < n; i++)
			run(b, next++, n_tokens);
		if (round >= 0)
			took[round] = (now() - start) / n;
	}
	qsort(took, ROUNDS, sizeof(double), compare);
	*best = took[0];
	return took[ROUNDS / 2];
}

static void
begin(bench *b, q3_planes_kind kind, int32_t rows, int32_t cols)
{
	size_t bytes = q3_planes_bytes(kind, rows, cols), blocks = (size_t) cols / 32;

	b->n_matrices = (int) (WEIGHT_BYTES / bytes) + 1;
	b->matrices = allocate((size_t) b->n_matrices * sizeof(q3_planes));
	for (int i = 0; i < b->n_matrices; i++)
	{
		uint8_t *memory = allocate(bytes);
		q3_planes *p = &b->matrices[i];

		for (size_t j = 0; j + 4 <= bytes; j += 4)
		{
			uint32_t r = random_u32();

			memcpy(memory + j, &r, 4);
		}
		q3_planes_place(p, kind, rows, cols, memory);
		for (size_t j = 0; j < ((size_t) rows + 15) / 16 * 16 * blocks; j++)
		{
			((uint16_t *) p->scale)[j] = 0x2400;
			if (p->offset != NULL)
				((uint16_t *) p->offset)[j] = 0x3000;
		}
	}
	b->x = allocate(MAX_TOKENS * (size_t) cols * sizeof(float));
	b->y = allocate(MAX_TOKENS * (size_t) rows * sizeof(float));
	b->rows = allocate(MAX_TOKENS * sizeof(float *));
	b->acts.cols = cols;
	b->acts.q = allocate(MAX_TOKENS * (size_t) cols);
	b->acts.scale = allocate(MAX_TOKENS * blocks * sizeof(float));
	b->acts.sum = allocate(MAX_TOKENS * blocks * sizeof(int32_t));
	b->scratch = allocate(q3_matmul_scratch());
	for (size_t i = 0; i < MAX_TOKENS * (size_t) cols; i++)
		b->x[i] = (float) (random_u32() >> 8) * 0x1p-24f - 0.5f;
	for (size_t t = 0; t < MAX_TOKENS; t++)
	{
		q3_acts out = q3_acts_at(&b->acts, (int32_t) t, 0);

		b->rows[t] = b->y + t * (size_t) rows;
		b->kernels->quantize(b->x + t * (size_t) cols, cols, &out);
	}
}

static void
end(bench *b)
{
	for (int i = 0; i < b->n_matrices; i++)
		free((void *) b->matrices[i].hi);
	free(b->matrices);
	free(b->x);
	free(b->y);
	free(b->rows);
	free(b->acts.q);
	free(b->acts.scale);
	free(b->acts.sum);
	free(b->scratch);
}

static void
report(bench *b, int bits, double peak)
{
	static const int tokens[] = {1, 2, 4, 7, 8, 16, 30, 64, 128, 512};
	const q3_planes *w = b->matrices;
	size_t n = (size_t) (w->rows + 15) / 16 * 16 * (size_t) w->cols;

	b->bits = bits;
	b->bytes = n * (size_t) (bits != 0 ? bits : (int) w->kind) / 8 +
	           n / 16 * (w->kind == Q3_PLANES_4 ? 2 : 1);
	printf("planes %2d, %-8s", (int) w->kind,
	       bits == 0   ? "float32"
	       : bits == 4 ? "4 bits"
	                   : "8 bits");
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++)
	{
		double best, took = measure(b, tokens[i], &best);
		double work = 2e-9 * w->rows * w->cols * tokens[i];

		if (tokens[i] == 1)
			printf(" | T=1 %.1f/%.1f GB/s", (double) b->bytes * 1e-9 / took,
			       (double) b->bytes * 1e-9 / best);
		else if (peak > 0)
			printf(" | %d: %.0f/%.0f (%.0f/%.0f%%)", tokens[i], work / took, work / best,
			       100 * work / took / peak, 100 * work / best / peak);
		else
			printf(" | %d: %.0f/%.0f", tokens[i], work / took, work / best);
		fflush(stdout);
	}
	printf("\n");
}

int
main(int argc, char **argv)
{
	static const q3_planes_kind kinds[] = {Q3_PLANES_8, Q3_PLANES_16, Q3_PLANES_4};
	const q3_kernels *kernels = q3_kernels_get(argc > 1 ? argv[1] : NULL);
	int32_t rows = argc > 3 ? atoi(argv[2]) : 3072, cols = argc > 3 ? atoi(argv[3]) : 1024;
	double integer, floating;

	if (kernels == NULL || rows <= 0 || cols <= 0 || cols % 32 != 0)
	{
		fprintf(stderr, "usage: bench_planes [ISA [ROWS COLS]]; columns in multiples of 32\n");
		return 1;
	}
	peaks(kernels->name, &integer, &floating);
	printf("%s, %d x %d; peaks of one thread: int8 %.0f GOP/s, float32 %.0f GFLOP/s (0: unknown)\n",
	       kernels->name, rows, cols, integer, floating);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		bench b = {.kernels = kernels};

		begin(&b, kinds[i], rows, cols);
		if (kinds[i] != Q3_PLANES_4)
			report(&b, 8, integer);
		report(&b, 4, integer);
		report(&b, 0, floating);
		end(&b);
	}
	return 0;
}
