/*
 * martingale.h: certificates that two modes agree, by betting.
 *
 * Each sampled row either agrees with mode precise or it does not. A gambler who starts with 1 and
 * bets on agreement, at odds that are fair if the mean agreement were the target, can multiply his
 * money by 1/delta with probability delta at most if the mean is not above the target, however he
 * chooses his stakes beforehand and whenever he stops (Ville's inequality). So wealth of 1/delta
 * is a certificate, wealth of 1/delta of one who bets on disagreement is a refutation, and looking
 * after every row costs nothing. I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random
 * variables by betting", arXiv 2010.09686 (JRSS B 2024), and, without replacement, "Confidence
 * sequences for sampling without replacement", arXiv 2006.04347 (NeurIPS 2020).
 *
 * Where a population of N rows is sampled without replacement in random order, the fair odds of the
 * next row follow from what has been seen: m = (N T - S) / (N - n) after S agreements in n rows.
 *
 * The stake is the one that makes wealth grow fastest if rows agree at rate q (J. L. Kelly, 1956;
 * the paper's "GRAPA", exactly, for two outcomes): for an outcome of 0 or 1 that is the share (q -
 * m) / (1 - m) of the wealth, which multiplies it by the likelihood ratio of q to m. q is a
 * forecast worth prior_rows rows (given, from other rows than these), corrected by what has been
 * seen; the stake is never above 0.95. Rates near 1 are certified sooner on average by it than by
 * the paper's predictable plug-in stakes, sqrt(2 ln(2 / delta) / (variance n ln(n + 1))), cut at
 * 0.75 of all: see test_policy_martingale.c.
 *
 * Everything here is a plain struct of fixed size without pointers, which may lie in shared memory
 * or in a row of a table; whoever owns it locks it. O(1) for each row.
 */
#ifndef Q3_POLICY_MARTINGALE_H
#define Q3_POLICY_MARTINGALE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q3_MARTINGALE_VERSION 1

typedef enum q3_verdict
{
	Q3_UNCERTIFIED = 0, /* too little evidence for either */
	Q3_CERTIFIED,       /* mean agreement is at least the target */
	Q3_REFUTED          /* it is not */
} q3_verdict;

typedef struct q3_martingale
{
	uint32_t version;
	int32_t verdict;    /* q3_verdict; the first one reached stays */
	int64_t population; /* rows that are sampled without replacement; 0: an endless stream */
	double target;      /* in (0, 1] */
	double delta;       /* probability of a wrong certificate, and of a wrong refutation */
	double prior;       /* forecast of the agreement before the first row ... */
	double prior_rows;  /* ... and how many rows it is worth */
	int64_t rows, agreed;
	double log_wealth;  /* of who bets on agreement */
	double log_against; /* of who bets on disagreement */
} q3_martingale;

/*
 * prior: an expected agreement from rows that will not be observed here, or 0: three quarters of
 * the way from the target to 1. Any value keeps the certificate valid; a good one makes it cheap.
 */
extern void q3_martingale_begin(q3_martingale *m, int64_t population, double target, double delta,
                                double prior);
/*
 * Counts a row that was drawn at random (each row of the population at most once), and returns the
 * verdict so far. Rows that were escalated are no observations of accepted rows: they are precise
 * by construction, and counting them along with a sample of the others proves nothing.
 */
extern q3_verdict q3_martingale_observe(q3_martingale *m, bool agreed);
/*
 * About how many rows more the certificate will take if rows go on agreeing as forecast and seen so
 * far; 0 when it is there, -1 when that agreement is not above the target, so that more rows are
 * not expected to help.
 */
extern int64_t q3_martingale_rows_needed(const q3_martingale *m);
/* The same before anything has been seen: for an agreement against a target. */
extern double q3_betting_rows(double agreement, double target, double delta);
/* The agreement that accepted rows must have if the other ones count as agreeing; may be <= 0. */
extern double q3_accepted_target(double target, int64_t accepted, int64_t population);

/* ---- Fixed-sequence testing of nested sets of rows ---- */

#define Q3_SEQUENCE_VERSION 1
#define Q3_SEQUENCE_CUTS 20

/* "Rows with at least this margin may keep their efficient answers." */
typedef struct q3_cut
{
	int64_t rows;     /* the first so many in order of falling margin */
	double threshold; /* the least margin among them */
	double target;    /* what their agreement must reach so that all rows' reaches the target */
	int64_t drawn, agreed;
	int32_t verdict; /* q3_verdict */
	int32_t tested;
} q3_cut;

/*
 * The certificate of a table (S. Zeighami and others, "BARGAIN", arXiv 2509.02896; fixed-sequence
 * testing as in W. Maurer, L. Hothorn and W. Lehmacher, 1995): cuts are tested from the safest to
 * the most daring one, each with the full delta, and the first that fails ends it. Each walks
 * through one and the same random permutation of all rows, leaving out those beyond it, so that
 * rows that an earlier cut has had labelled come up again for nothing, and what a cut sees is a
 * uniform sample of its own rows. A cut also fails, which costs no validity, when the labels that
 * it still seems to need are more than all rows that the cuts from it on could spare.
 */
typedef struct q3_sequence
{
	uint32_t version;
	int32_t n_cuts, current; /* current == n_cuts or ended: over */
	int32_t last;            /* the last cut that was certified; -1: none */
	int32_t ended;
	int64_t population;
	int64_t budget;   /* rows that one cut may draw; 0: any number */
	int64_t position; /* in the permutation, on this walk */
	int64_t farthest; /* of the walks before */
	double target, delta, prior;
	q3_martingale bet;
	q3_cut cuts[Q3_SEQUENCE_CUTS];
} q3_sequence;

typedef enum q3_step
{
	Q3_STEP_MORE,  /* go on in the permutation */
	Q3_STEP_AGAIN, /* a cut is certified: start again at the permutation's beginning */
	Q3_STEP_END
} q3_step;

/*
 * margins: of all n >= 1 rows, falling; a row's index there is its rank. Rows of equal margin are
 * never parted. What orders the rows must not have been fitted on labels that are observed here.
 */
extern void q3_sequence_begin(q3_sequence *s, const double *margins, size_t n, double target,
                              double delta, double prior, int64_t budget);
/* Whether the row of this rank is of the current cut, so that its agreement must be known. */
extern bool q3_sequence_wants(const q3_sequence *s, int64_t rank);
/* To be called with all rows of the permutation in turn; those not wanted are only counted. */
extern q3_step q3_sequence_observe(q3_sequence *s, int64_t rank, bool agreed);
/* What has been certified; NULL: nothing. */
extern const q3_cut *q3_sequence_certified(const q3_sequence *s);

#endif
