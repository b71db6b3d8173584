/*
 * peaks.c: what this machine can do at most: multiply-adds in FP32, BF16 and INT8 from registers,
 * and reading memory, with one thread and with more. Prints one JSON object.
 *
 *   peaks [BYTES [ROUNDS [THREADS]...]]     default: 1 GiB, 5 rounds, threads 1 and 2
 *
 * Every inner loop is one block of assembly with registers of its own choice: compilers copy or
 * spill the accumulators of such loops, and a bench would measure that. Threads are pinned, one to
 * a processor, and write only their own slots. The median over the rounds counts; the best is
 * beside it, since on a shared machine the two differ.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define MAX_THREADS 64
#define MAX_ROUNDS 100
#define LOOPS (UINT64_C(1) << 22)

/* Operands of the loops; small numbers, so that no sum overflows to infinity. */
typedef struct peak_operands
{
	float f32[48];
	uint8_t bytes[192];
} peak_operands;

typedef void (*peak_loop)(uint64_t loops, const void *operands);

typedef struct peak
{
	const char *name, *instruction;
	peak_loop run;
	bool (*supported)(void);
	double operations; /* of one pass of the loop */
} peak;

#if defined(__x86_64__)

/*
 * Twelve independent accumulators hide a latency of six cycles at two instructions a cycle.
 * Registers 12 to 14 hold the operands, 15 is scratch; the names of xmm stand for the whole
 * registers.
 */
#define ACCUMULATORS 12
#define EACH ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"

#define PEAK_LOOP(function, reg, instructions)                                                     \
	static void function(uint64_t loops, const void *operands)                                     \
	{                                                                                              \
		__asm__ volatile(                                                                          \
		    "vmovups (%1), %%" reg "12\n"                                                          \
		    "vmovups 64(%1), %%" reg "13\n"                                                        \
		    "vmovups 128(%1), %%" reg "14\n" EACH "vpxor %%xmm\\r, %%xmm\\r, %%xmm\\r\n"           \
		    ".endr\n"                                                                              \
		    ".balign 32\n"                                                                         \
		    "1:\n" EACH instructions ".endr\n"                                                     \
		    "dec %0\n"                                                                             \
		    "jnz 1b\n"                                                                             \
		    "vzeroupper\n"                                                                         \
		    : "+r"(loops)                                                                          \
		    : "r"(operands)                                                                        \
		    : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",      \
		      "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");               \
	}

PEAK_LOOP(fma_512, "zmm", "vfmadd231ps %%zmm12, %%zmm13, %%zmm\\r\n")
PEAK_LOOP(fma_256, "ymm", "vfmadd231ps %%ymm12, %%ymm13, %%ymm\\r\n")
PEAK_LOOP(bf16_512, "zmm", "vdpbf16ps %%zmm12, %%zmm13, %%zmm\\r\n")
PEAK_LOOP(vnni_512, "zmm", "vpdpbusd %%zmm12, %%zmm13, %%zmm\\r\n")
PEAK_LOOP(vnni_256, "ymm", "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm\\r\n")
PEAK_LOOP(maddubs_512, "zmm",
          "vpmaddubsw %%zmm12, %%zmm13, %%zmm15\n"
          "vpmaddwd %%zmm14, %%zmm15, %%zmm15\n"
          "vpaddd %%zmm15, %%zmm\\r, %%zmm\\r\n")
PEAK_LOOP(maddubs_256, "ymm",
          "vpmaddubsw %%ymm12, %%ymm13, %%ymm15\n"
          "vpmaddwd %%ymm14, %%ymm15, %%ymm15\n"
          "vpaddd %%ymm15, %%ymm\\r, %%ymm\\r\n")

/* Palette 1: eight tiles of 16 rows of 64 bytes. */
typedef struct tile_config
{
	uint8_t palette, start, reserved[14];
	uint16_t row_bytes[16];
	uint8_t rows[16];
} tile_config;

#define AMX_PRODUCTS 4

/* Four tiles of sums; all tiles are zero, which is as much work as other numbers. */
static void
amx_tiles(uint64_t loops, const void *operands)
{
	tile_config config = {.palette = 1};

	(void) operands;
	for (int i = 0; i < 8; i++)
	{
		config.row_bytes[i] = 64;
		config.rows[i] = 16;
	}
	__asm__ volatile("ldtilecfg %1\n"
	                 ".irp r,0,1,2,3,4,5,6,7\n"
	                 "tilezero %%tmm\\r\n"
	                 ".endr\n"
	                 "1:\n"
	                 ".irp r,0,1,2,3\n"
	                 "tdpbusd %%tmm6, %%tmm4, %%tmm\\r\n"
	                 ".endr\n"
	                 "dec %0\n"
	                 "jnz 1b\n"
	                 "tilerelease\n"
	                 : "+r"(loops)
	                 : "m"(config)
	                 : "memory", "cc");
}

/* The processor has them, and the system lets this process use them. */
static bool
has_amx(void)
{
	unsigned a, b, c, d = 0;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & d >> 25 & 1 &&
	       syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0;
}

static bool
has_avx512(void)
{
	return __builtin_cpu_supports("avx512bw");
}

static bool
has_bf16(void)
{
	return __builtin_cpu_supports("avx512bf16");
}

static bool
has_vnni_512(void)
{
	return __builtin_cpu_supports("avx512vnni");
}

static bool
has_vnni_256(void)
{
	unsigned a = 0, b, c, d;

	/* Older compilers do not know the name "avxvnni". */
	return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}

static bool
has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* The first of a name that the machine has is measured. */
static const peak peaks[] = {
    {"fp32", "vfmadd231ps zmm", fma_512, has_avx512, 32 * ACCUMULATORS},
    {"fp32", "vfmadd231ps ymm", fma_256, has_avx2, 16 * ACCUMULATORS},
    {"bf16", "vdpbf16ps zmm", bf16_512, has_bf16, 64 * ACCUMULATORS},
    {"int8", "vpdpbusd zmm", vnni_512, has_vnni_512, 128 * ACCUMULATORS},
    {"int8", "vpdpbusd ymm", vnni_256, has_vnni_256, 64 * ACCUMULATORS},
    {"int8", "vpmaddubsw zmm", maddubs_512, has_avx512, 128 * ACCUMULATORS},
    {"int8", "vpmaddubsw ymm", maddubs_256, has_avx2, 64 * ACCUMULATORS},
    {"int8_amx", "tdpbusd", amx_tiles, has_amx, 2.0 * 16 * 16 * 64 * AMX_PRODUCTS},
};

#define READ_LOOP(function, reg, step, loads)                                                      \
	static void function(const char *data, size_t bytes)                                           \
	{                                                                                              \
		const char *end = data + bytes / (step) * (step);                                          \
                                                                                                   \
		__asm__ volatile(".balign 32\n"                                                            \
		                 "1:\n" loads "add $" #step ", %0\n"                                       \
		                 "cmp %1, %0\n"                                                            \
		                 "jb 1b\n"                                                                 \
		                 "vzeroupper\n"                                                            \
		                 : "+r"(data)                                                              \
		                 : "r"(end)                                                                \
		                 : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
		                   "xmm7");                                                                \
	}

#define LOAD(reg, number, at) "vmovups " #at "(%0), %%" reg #number "\n"

READ_LOOP(read_512, "zmm", 512,
          LOAD("zmm", 0, 0) LOAD("zmm", 1, 64) LOAD("zmm", 2, 128) LOAD("zmm", 3, 192)
              LOAD("zmm", 4, 256) LOAD("zmm", 5, 320) LOAD("zmm", 6, 384) LOAD("zmm", 7, 448))
READ_LOOP(read_256, "ymm", 256,
          LOAD("ymm", 0, 0) LOAD("ymm", 1, 32) LOAD("ymm", 2, 64) LOAD("ymm", 3, 96)
              LOAD("ymm", 4, 128) LOAD("ymm", 5, 160) LOAD("ymm", 6, 192) LOAD("ymm", 7, 224))

#elif defined(__aarch64__)

#define ACCUMULATORS 24
#define EACH ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"

#define PEAK_LOOP(function, instructions)                                                          \
	static void function(uint64_t loops, const void *operands)                                     \
	{                                                                                              \
		__asm__ volatile(".arch armv8.2-a+dotprod\n"                                               \
		                 "ldr q30, [%1]\n"                                                         \
		                 "ldr q31, [%1, #64]\n" EACH "movi v\\r\\().4s, #0\n"                      \
		                 ".endr\n"                                                                 \
		                 "1:\n" EACH instructions ".endr\n"                                        \
		                 "subs %0, %0, #1\n"                                                       \
		                 "b.ne 1b\n"                                                               \
		                 : "+r"(loops)                                                             \
		                 : "r"(operands)                                                           \
		                 : "memory", "cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8",   \
		                   "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",    \
		                   "v19", "v20", "v21", "v22", "v23", "v30", "v31");                       \
	}

PEAK_LOOP(fma_128, "fmla v\\r\\().4s, v30.4s, v31.4s\n")
PEAK_LOOP(dot_128, "sdot v\\r\\().4s, v30.16b, v31.16b\n")

static bool
always(void)
{
	return true;
}

static bool
has_dotprod(void)
{
	return (getauxval(AT_HWCAP) & (1 << 20)) != 0;
}

static const peak peaks[] = {
    {"fp32", "fmla 4s", fma_128, always, 8 * ACCUMULATORS},
    {"int8", "sdot 4s", dot_128, has_dotprod, 32 * ACCUMULATORS},
};

#else

static const peak peaks[] = {{NULL, NULL, NULL, NULL, 0}};

#endif

/* Reading for machines without a loop of their own. */
static void
read_plain(const char *data, size_t bytes)
{
	const uint64_t *p = (const uint64_t *) (const void *) data;
	uint64_t a = 0, b = 0, c = 0, d = 0;
	volatile uint64_t sink;

	for (size_t i = 0; i + 4 <= bytes / 8; i += 4)
	{
		a += p[i];
		b += p[i + 1];
		c += p[i + 2];
		d += p[i + 3];
	}
	sink = a + b + c + d;
	(void) sink;
}

static void (*pick_read(void))(const char *, size_t)
{
#if defined(__x86_64__)
	if (has_avx512())
		return read_512;
	if (has_avx2())
		return read_256;
#endif
	return read_plain;
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* One measurement: every thread does its part of each round, between two barriers. */
typedef struct measurement
{
	const peak *peak; /* NULL: reading */
	char *data;
	size_t bytes;
	int n_threads, rounds;
	peak_operands operands;
	pthread_barrier_t barrier;
	double seconds[MAX_ROUNDS];
} measurement;

typedef struct worker
{
	measurement *m;
	pthread_t thread;
	int index;
} worker;

/* To the index-th of the processors that we may use. */
static void
pin(int index)
{
	cpu_set_t allowed, one;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && index-- == 0)
		{
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
			return;
		}
}

static void *
work(void *argument)
{
	worker *w = argument;
	measurement *m = w->m;
	size_t share = m->bytes / (size_t) m->n_threads / 4096 * 4096;
	char *mine = m->data + share * (size_t) w->index;

	pin(w->index);
	/* The first round warms up and is not counted. */
	for (int round = -1; round < m->rounds; round++)
	{
		double start;

		pthread_barrier_wait(&m->barrier);
		start = now();
		if (m->peak != NULL)
			m->peak->run(LOOPS, m->peak->name[0] == 'i' ? (void *) m->operands.bytes
			                                            : (void *) m->operands.f32);
		else
			pick_read()(mine, share);
		pthread_barrier_wait(&m->barrier);
		if (w->index == 0 && round >= 0)
			m->seconds[round] = now() - start;
	}
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Runs a measurement; its rounds are sorted afterwards, the fastest first. */
static void
measure(measurement *m)
{
	worker workers[MAX_THREADS];

	pthread_barrier_init(&m->barrier, NULL, (unsigned) m->n_threads);
	for (int i = 0; i < m->n_threads; i++)
	{
		workers[i] = (worker){.m = m, .index = i};
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
		{
			fprintf(stderr, "peaks: could not start a thread\n");
			exit(1);
		}
	}
	for (int i = 0; i < m->n_threads; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_barrier_destroy(&m->barrier);
	qsort(m->seconds, (size_t) m->rounds, sizeof(m->seconds[0]), compare);
}

static void
print_rate(const char *name, const measurement *m, double work_units)
{
	printf("\"%s\": %.2f, \"%s_best\": %.2f", name, work_units / m->seconds[m->rounds / 2] / 1e9,
	       name, work_units / m->seconds[0] / 1e9);
}

static void
measure_threads(measurement *m)
{
	const char *last = "";

	printf("{\"threads\": %d, ", m->n_threads);
	for (size_t i = 0; i < sizeof(peaks) / sizeof(peaks[0]); i++)
	{
		const peak *p = &peaks[i];

		if (p->name == NULL || strcmp(p->name, last) == 0 || !p->supported())
			continue;
		last = p->name;
		m->peak = p;
		measure(m);
		print_rate(p->name, m, p->operations * (double) LOOPS * m->n_threads);
		printf(", \"%s_instruction\": \"%s\", ", p->name, p->instruction);
	}
	m->peak = NULL;
	measure(m);
	print_rate("read", m, (double) m->bytes);
	printf("}");
}

int
main(int argc, char **argv)
{
	static measurement m;
	int threads[MAX_THREADS] = {1, 2}, n = 2;

	m.bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : (size_t) 1 << 30;
	m.rounds = argc > 2 ? atoi(argv[2]) : 5;
	for (int i = 3; i < argc && i - 3 < MAX_THREADS; i++)
		threads[(n = i - 2) - 1] = atoi(argv[i]);
	if (m.bytes < (size_t) 1 << 20 || m.rounds < 1 || m.rounds > MAX_ROUNDS)
	{
		fprintf(stderr, "usage: peaks [BYTES [ROUNDS [THREADS]...]]\n");
		return 2;
	}
	m.data = mmap(NULL, m.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m.data == MAP_FAILED)
	{
		fprintf(stderr, "peaks: out of memory\n");
		return 1;
	}
	madvise(m.data, m.bytes, MADV_HUGEPAGE);
	memset(m.data, 1, m.bytes);
	for (size_t i = 0; i < sizeof(m.operands.f32) / sizeof(float); i++)
		m.operands.f32[i] = (float) (i % 7) * 1e-3f - 3e-3f;
	for (size_t i = 0; i < sizeof(m.operands.bytes); i++)
		m.operands.bytes[i] = (uint8_t) (i * 37 % 101);
	printf("{\"read_bytes\": %zu, \"rounds\": %d, \"peaks\": [", m.bytes, m.rounds);
	for (int i = 0; i < n; i++)
	{
		if (threads[i] < 1 || threads[i] > MAX_THREADS)
			continue;
		m.n_threads = threads[i];
		printf("%s", i > 0 ? ", " : "");
		measure_threads(&m);
	}
	printf("]}\n");
	return 0;
}
