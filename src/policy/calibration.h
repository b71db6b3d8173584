/*
 * calibration.h: how often answers of a given margin agree with mode precise, and which margin is
 * worth an escalation.
 *
 * The margin (probability of the best label less that of the second) is turned into a probability
 * of agreement by isotonic regression: the non-decreasing function that is nearest to what was
 * seen, found by pooling adjacent violators (M. Ayer and others, "An empirical distribution
 * function for sampling with incomplete information", Ann. Math. Statist. 26, 1955; for
 * classifiers: B. Zadrozny and C. Elkan, KDD 2002). At most 32 steps of it are kept.
 *
 * A row costs the efficient run, and the precise one if its margin is thin or it is sampled for the
 * certificate: with precise = 1, that is c_p + r + s, so the speedup is 1 / (c_p + r + s). Plain
 * structs without pointers; thread-agnostic.
 */
#ifndef Q3_POLICY_CALIBRATION_H
#define Q3_POLICY_CALIBRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q3_CALIBRATION_VERSION 1
#define Q3_CALIBRATION_BINS 32

/* Rows with at least this margin, and less than the next bin's. As input: one row. */
typedef struct q3_calibration_bin
{
	double margin;
	int64_t rows, agreed;
} q3_calibration_bin;

typedef struct q3_calibration
{
	uint32_t version;
	int32_t n_bins; /* 0: nothing is known */
	int64_t rows, agreed;
	double greatest; /* margin that was seen */
	q3_calibration_bin bins[Q3_CALIBRATION_BINS];
} q3_calibration;

/* rows[n] is sorted and overwritten; a margin that is no number counts as 0. */
extern void q3_calibration_fit(q3_calibration *c, q3_calibration_bin *rows, size_t n);
/* P(agree | margin); 0 when nothing is known. */
extern double q3_calibration_agreement(const q3_calibration *c, double margin);
/* If rows below the threshold are escalated: their share, and the agreement of all rows. */
extern void q3_calibration_at(const q3_calibration *c, double threshold, double *escalated,
                              double *agreement);

typedef struct q3_threshold_wish
{
	double target;         /* agreement of all rows, those that are escalated included */
	double confidence;     /* that the target will be met, of each threshold by itself; 0.9 */
	double efficient_cost; /* of a row, in any unit */
	double precise_cost;
	double delta;         /* of the certificate that is planned */
	int64_t planned_rows; /* that share its cost; 0: leave its cost out */
} q3_threshold_wish;

typedef struct q3_threshold
{
	bool found;           /* no: too few rows for any promise; the rest is 0 */
	double threshold;     /* escalate what is below; 0: nothing */
	double escalated;     /* share of rows */
	double agreement;     /* expected, of all rows */
	double lower;         /* its lower confidence limit */
	double accepted;      /* expected agreement of accepted rows: the forecast for their bets */
	double certificate;   /* rows that it is expected to take */
	double cost, speedup; /* c_p + r + s, precise being 1, and its inverse */
} q3_threshold;

/*
 * The cheapest threshold whose agreement reaches the target by its lower Clopper-Pearson limit, not
 * merely by its average: the best of many thresholds would else often be a lucky one. The
 * certificate, on other rows, is what proves it. If answers are bad, that may be a threshold that
 * escalates nearly everything and costs more than precise: look at the cost.
 */
extern q3_threshold q3_calibration_choose(const q3_calibration *c, const q3_threshold_wish *wish);

#endif
