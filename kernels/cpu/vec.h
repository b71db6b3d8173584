/*
 * vec.h: small helpers for the files that compute with vectors. Private to kernels/cpu.
 */
#ifndef Q3_CPU_VEC_H
#define Q3_CPU_VEC_H

/* Arrays of vectors stay in registers only when every index is a constant. */
#if defined(__clang__)
#define foreach(i, n) _Pragma("unroll") for (int i = 0; i < (n); i++)
#else
#define foreach(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)
#endif
#define INLINE static inline __attribute__((always_inline))

#endif
