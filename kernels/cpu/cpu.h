/*
 * cpu.h: the tables that the files of kernels/cpu fill. Private to kernels/.
 */
#ifndef Q3_CPU_H
#define Q3_CPU_H

#include "kernels.h"

extern const q3_kernels q3_kernels_scalar;
#if defined(__x86_64__)
extern const q3_kernels q3_kernels_avx2;
extern const q3_kernels q3_kernels_avx512;
extern const q3_kernels q3_kernels_avx512vnni;
extern const q3_kernels q3_kernels_avx512amx;
#elif defined(__aarch64__)
extern const q3_kernels q3_kernels_neon;
extern const q3_kernels q3_kernels_neondot;
/* Runs only where there are dot product instructions; what makes neondot differ from neon. */
extern void q3_neondot_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end,
                                   const q3_acts *x, int32_t n_tokens, float *const *y,
                                   void *scratch);
#endif

/* Plain C; they also stand in where an instruction set has nothing better. */
extern void q3_scalar_quantize(const float *x, int32_t cols, const q3_acts *out);
extern void q3_scalar_matmul_int8(const q3_planes *w, int bits, int32_t row_begin, int32_t row_end,
                                  const q3_acts *x, int32_t n_tokens, float *const *y,
                                  void *scratch);
extern void q3_scalar_matmul_planes(const q3_planes *w, int32_t row_begin, int32_t row_end,
                                    const float *x, size_t ldx, int32_t n_tokens, float *const *y,
                                    void *scratch);

#endif
