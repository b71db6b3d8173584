/*
 * select.c: which instruction set the kernels use, and how much scratch memory they need.
 *
 * Nothing is remembered: callers keep the table they were given.
 */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "cpu/attention_sizes.h"
#include "cpu/cpu.h"
#include "cpu/matmul_sizes.h"

/* Worst first. */
static const char *const names[] = {"scalar",    "avx2", "avx512", "avx512vnni",
                                    "avx512amx", "neon", "neondot"};

#define REQUEST_PERMISSION 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define N_NAMES ((int) (sizeof(names) / sizeof(names[0])))

size_t
q3_matmul_scratch(void)
{
	const size_t plain =
	    sizeof(float) * (MAX_PANEL * SLICE + (size_t) BLOCK_ROWS * BLOCK_TOKENS * MAX_VL);

	return plain > PLANES_SCRATCH ? plain : PLANES_SCRATCH;
}

size_t
q3_attention_scratch(int32_t head_dim)
{
	return attention_state_bytes(head_dim);
}

const char *
q3_kernels_name(int i)
{
	return i >= 0 && i < N_NAMES ? names[i] : NULL;
}

#if defined(__x86_64__)
static bool
has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("fma");
}

static bool
has_avx512_vnni(void)
{
	return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

/*
 * Tiles of bytes: the processor has them, the system saves their registers (XSAVE's components 17
 * and 18), and lets this process use them. That is for the whole process and for its children.
 */
static bool
has_amx(void)
{
#if defined(__linux__)
	const unsigned os_saves = 1u << 27, amx = 1u << 24 | 1u << 25, tiles = 1u << 17 | 1u << 18;
	unsigned a, b, c, d, saved, high;

	if (!__get_cpuid(1, &a, &b, &c, &d) || (c & os_saves) == 0 ||
	    !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & amx) != amx)
		return false;
	__asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
	return (saved & tiles) == tiles && syscall(SYS_arch_prctl, REQUEST_PERMISSION, 18) == 0;
#else
	return false;
#endif
}
#endif

/*
 * The compiler's check includes whether the operating system saves the registers. F16C, which some
 * compilers cannot ask for, comes with every AVX2.
 */
static const q3_kernels *
find(const char *name)
{
	if (strcmp(name, "scalar") == 0)
		return &q3_kernels_scalar;
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") &&
	    __builtin_cpu_supports("fma"))
		return &q3_kernels_avx2;
	if (strcmp(name, "avx512") == 0 && has_avx512())
		return &q3_kernels_avx512;
	if (strcmp(name, "avx512vnni") == 0 && has_avx512_vnni())
		return &q3_kernels_avx512vnni;
	if (strcmp(name, "avx512amx") == 0 && has_avx512_vnni() && has_amx())
		return &q3_kernels_avx512amx;
#elif defined(__aarch64__)
	if (strcmp(name, "neon") == 0)
		return &q3_kernels_neon;
	if (strcmp(name, "neondot") == 0 && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0)
		return &q3_kernels_neondot;
#endif
	return NULL;
}

const q3_kernels *
q3_kernels_get(const char *name)
{
	const q3_kernels *kernels = NULL;

	if (name != NULL)
		return find(name);
	for (int i = N_NAMES - 1; kernels == NULL; i--)
		kernels = find(names[i]);
	return kernels;
}

const q3_kernels *
q3_kernels_select(const char **reason)
{
	const char *name = getenv("QWEN3DM_ISA");
	const q3_kernels *kernels;

	if (name == NULL || name[0] == '\0')
		return q3_kernels_get(NULL);
	kernels = q3_kernels_get(name);
	if (kernels != NULL)
		return kernels;
	*reason = "is not an instruction set that qwen3dm knows";
	for (int i = 0; i < N_NAMES; i++)
		if (strcmp(name, names[i]) == 0)
			*reason = "is not supported by this machine";
	return NULL;
}
