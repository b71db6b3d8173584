/*
 * drift.h: noticing on shadow rows that agreement has fallen, and before that, that inputs changed.
 *
 * The alarm. A gambler who bets on disagreement from the first row on is poor when the fall comes,
 * for the good rows before it have cost him his money. So a new gambler with 1 starts at every row;
 * the sum of their money (Shiryaev and Roberts' statistic; an "e-detector" in J. Shin, A. Ramdas
 * and A. Rinaldo, "E-detectors", arXiv 2203.03532) is R <- (R + 1) L, where L is what
 * the row multiplies each one's money by. While every row agrees with a probability of at least the
 * reference, whatever happened before, E[L] <= 1, so E[R_n] <= n, and by Doob's inequality for the
 * submartingale R, P(R reaches horizon / a within horizon rows) <= a. That is the guarantee: at
 * most the given probability of a false alarm in the given number of rows, without assumptions on
 * how agreement varies above the reference; and one false alarm in horizon / a rows on average.
 * How far agreement will fall is not known: six falls are bet on, and R is their mean.
 *
 * The warning. Margin and off-label mass need no precise run, so they tell sooner, but they tell
 * about inputs, not about agreement: groups of 32 rows are compared with the first rows' mean and
 * deviation by a cumulative sum (E. S. Page, "Continuous inspection schemes", Biometrika 41, 1954).
 * A warning may speed up shadowing and be shown; it demotes nothing and guarantees nothing.
 *
 * Plain structs without pointers, O(1) for each row; thread-agnostic.
 */
#ifndef Q3_POLICY_DRIFT_H
#define Q3_POLICY_DRIFT_H

#include <stdbool.h>
#include <stdint.h>

#define Q3_DRIFT_VERSION 1
#define Q3_DRIFT_FALLS 6

typedef struct q3_drift
{
	uint32_t version;
	int32_t alarm;    /* stays until the next q3_drift_begin() */
	double reference; /* agreement that rows must keep; in (0, 1) */
	double limit;     /* logarithm of what R has to reach */
	int64_t rows, agreed;
	double log_sum[Q3_DRIFT_FALLS];                                 /* ln(1 + R) of each fall */
	double log_agree[Q3_DRIFT_FALLS], log_disagree[Q3_DRIFT_FALLS]; /* ln L */
} q3_drift;

/*
 * reference is what was certified for accepted rows; false_alarm the probability in so many rows of
 * the horizon (0.01 and 10,000 are sensible). Target 1 allows no disagreement at all: it counts as
 * 0.9999.
 */
extern void q3_drift_begin(q3_drift *d, double reference, double false_alarm, int64_t horizon);
/* Counts a shadow row: an accepted efficient answer that was computed in precise too. */
extern bool q3_drift_observe(q3_drift *d, bool agreed);
/* How far the evidence has come: 0 is none, 1 the alarm (logarithmic). */
extern double q3_drift_level(const q3_drift *d);

#define Q3_WARNING_VERSION 1

typedef struct q3_warning
{
	uint32_t version;
	int32_t rises;        /* which way is bad: off-label mass rises, a margin falls */
	int64_t rows;         /* in all */
	int64_t base;         /* how many of the first ones are the baseline; at least 2 groups */
	double mean, squares; /* of the baseline: Welford's sums */
	double group;         /* sum of the group of rows that is being filled */
	double deviation;     /* of a group's mean from the baseline's, exponentially averaged */
	double sum;           /* Page's */
	int32_t warned;       /* stays until the next q3_warning_begin() */
} q3_warning;

extern void q3_warning_begin(q3_warning *w, bool rises, int64_t base);
extern bool q3_warning_observe(q3_warning *w, double value);

#endif
