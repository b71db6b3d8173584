/*
 * lab.h: what the programs that measure single kernels share.
 */
#ifndef Q3_LAB_H
#define Q3_LAB_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The same numbers in every run. */
static inline uint32_t
random_u32(void)
{
	static uint32_t state = 1;

	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

/* Aligned to 64; never NULL. */
static inline void *
allocate(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

	if (p == NULL)
	{
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return p;
}

#endif
