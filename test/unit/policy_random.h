/*
 * policy_random.h: random numbers for the simulations of src/policy, the same in every run.
 */
#ifndef POLICY_RANDOM_H
#define POLICY_RANDOM_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dice
{
	uint64_t state; /* not 0 */
} dice;

/* xorshift64*: S. Vigna, 2016 */
static inline double
uniform(dice *d)
{
	d->state ^= d->state >> 12;
	d->state ^= d->state << 25;
	d->state ^= d->state >> 27;
	return (double) ((d->state * 0x2545f4914f6cdd1dull) >> 11) * 0x1p-53;
}

static inline bool
chance(dice *d, double p)
{
	return uniform(d) < p;
}

static inline double
exponential(dice *d, double mean)
{
	return -mean * log1p(-uniform(d));
}

static inline void
shuffle(dice *d, int32_t *v, size_t n)
{
	for (size_t i = n; i > 1; i--)
	{
		size_t k = (size_t) (uniform(d) * (double) i);
		int32_t t = v[i - 1];

		v[i - 1] = v[k];
		v[k] = t;
	}
}

#endif
