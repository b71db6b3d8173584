/*
 * binomial.c: exact binomial probabilities and confidence limits; see binomial.h.
 *
 * Tails are summed from their largest term outwards, which takes a few standard deviations of
 * terms; limits are found by bisection. No state.
 */
#include "policy/binomial.h"

#include <math.h>

/* ln n!; Stirling's series is exact to 1e-13 from 16 on. The library's lgamma() writes a global. */
static double
log_factorial(int64_t n)
{
	double x = (double) n, product = 1;

	if (n < 16)
	{
		for (int64_t i = 2; i <= n; i++)
			product *= (double) i;
		return log(product);
	}
	return x * log(x) - x + 0.5 * log(2 * 3.14159265358979323846 * x) + 1 / (12 * x) -
	       1 / (360 * x * x * x) + 1 / (1260 * x * x * x * x * x);
}

/* The sum of the probabilities of k, k + step, ... to the end. */
static double
tail(int64_t k, int64_t n, double p, int step)
{
	double term = exp(log_factorial(n) - log_factorial(k) - log_factorial(n - k) +
	                  (double) k * log(p) + (double) (n - k) * log1p(-p));
	double sum = 0;

	while (k >= 0 && k <= n && term > sum * 1e-17)
	{
		sum += term;
		if (step < 0)
			term *= (double) k / (double) (n - k + 1) * (1 - p) / p;
		else
			term *= (double) (n - k) / (double) (k + 1) * p / (1 - p);
		k += step;
	}
	return sum;
}

double
q3_binomial_cdf(int64_t k, int64_t n, double p)
{
	if (k < 0)
		return 0;
	if (k >= n || p <= 0)
		return 1;
	if (p >= 1)
		return 0;
	if ((double) k < (double) n * p)
		return fmin(tail(k, n, p, -1), 1);
	return fmax(1 - tail(k + 1, n, p, 1), 0);
}

double
q3_binomial_upper(int64_t k, int64_t n, double confidence)
{
	double low, high = 1;

	if (n <= 0 || k >= n)
		return 1;
	low = (double) k / (double) n;
	for (int i = 0; i < 50; i++)
	{
		double p = (low + high) / 2;

		if (q3_binomial_cdf(k, n, p) > 1 - confidence)
			low = p;
		else
			high = p;
	}
	return high;
}

double
q3_binomial_lower(int64_t k, int64_t n, double confidence)
{
	if (n <= 0 || k <= 0)
		return 0;
	return 1 - q3_binomial_upper(n - k, n, confidence);
}
