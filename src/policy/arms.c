/*
 * arms.c: following the leader with full information; see arms.h.
 *
 * Works on the caller's struct alone, in whatever thread holds it.
 */
#include "policy/arms.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Standard errors of the difference by which a challenger must be cheaper. */
#define CONFIDENCE 0.5

void
q3_arms_begin(q3_arms *a, int32_t n_arms, int32_t fallback, double price, int64_t min_rows)
{
	memset(a, 0, sizeof(*a));
	a->version = Q3_ARMS_VERSION;
	a->n_arms = n_arms < Q3_ARMS ? n_arms : Q3_ARMS;
	a->leader = a->fallback = fallback;
	a->price = price;
	a->min_rows = min_rows;
}

void
q3_arms_observe(q3_arms *a, const double *cost, const int32_t *agreed)
{
	double loss[Q3_ARMS];

	for (int32_t i = 0; i < a->n_arms; i++)
	{
		loss[i] = cost[i] + (agreed[i] ? 0 : a->price);
		a->loss[i] += loss[i];
	}
	for (int32_t i = 0; i < a->n_arms; i++)
	{
		for (int32_t k = 0; k < a->n_arms; k++)
			a->squares[i][k] += (loss[i] - loss[k]) * (loss[i] - loss[k]);
	}
	a->rows++;
}

double
q3_arms_mean_loss(const q3_arms *a, int32_t arm)
{
	return a->rows > 0 ? a->loss[arm] / (double) a->rows : 0;
}

/* Is it cheaper than the leader by more than chance explains? */
static bool
beats(const q3_arms *a, int32_t arm)
{
	double n = (double) a->rows;
	double gain = (a->loss[a->leader] - a->loss[arm]) / n;
	double variance = fmax(0, a->squares[a->leader][arm] / n - gain * gain);

	return gain > CONFIDENCE * sqrt(variance / n);
}

int32_t
q3_arms_choose(q3_arms *a, uint32_t allowed)
{
	int32_t best = -1;

	if (a->rows < a->min_rows || a->rows == 0)
		return a->leader = a->fallback;
	if (!(allowed >> a->leader & 1))
		a->leader = a->fallback;
	for (int32_t i = 0; i < a->n_arms; i++)
	{
		if ((allowed >> i & 1) && (best < 0 || a->loss[i] < a->loss[best]))
			best = i;
	}
	if (best >= 0 && (!(allowed >> a->leader & 1) || beats(a, best)))
		a->leader = best;
	return a->leader;
}
