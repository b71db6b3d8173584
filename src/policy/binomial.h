/*
 * binomial.h: exact binomial probabilities and confidence limits.
 *
 * The limits are those of C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial
 * limits illustrated in the case of the binomial", Biometrika 26 (1934): the rates at which what
 * was counted, or something further out, has exactly the probability that is left. Pure functions.
 */
#ifndef Q3_POLICY_BINOMIAL_H
#define Q3_POLICY_BINOMIAL_H

#include <stdint.h>

/* P(X <= k) for n trials that succeed with probability p; 0 <= p <= 1, n >= 0. */
extern double q3_binomial_cdf(int64_t k, int64_t n, double p);
/*
 * One-sided limits of the rate after k successes in n trials: below (above) the rate with
 * probability confidence, in (0, 1). Without trials they are 0 and 1.
 */
extern double q3_binomial_lower(int64_t k, int64_t n, double confidence);
extern double q3_binomial_upper(int64_t k, int64_t n, double confidence);

#endif
