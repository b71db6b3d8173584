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
#endif

#endif
