/*
 * arms.h: which way of answering a task's rows has cost least so far.
 *
 * Learning rows and shadow rows are answered in every way ("arm"), so each round tells about all of
 * them: with full information, to follow the leader is as good as the best fixed arm up to a term
 * that vanishes while rows come from one distribution (S. Shalev-Shwartz, "Online learning and
 * online convex optimization", 2012, on follow-the-leader). The loss of a row is its cost plus a
 * price for a disagreement with the reference, so that arms are compared at equal agreement: the
 * price is what it takes to repair one, the number of rows that have to be escalated to catch it, 1
 * / (1 - P(agree | margin = threshold)). A challenger takes over when its mean is lower by more
 * than the confidence asks for, or there is no leader yet: until there are enough rows, the
 * fallback leads.
 *
 * A plain struct; thread-agnostic.
 */
#ifndef Q3_POLICY_ARMS_H
#define Q3_POLICY_ARMS_H

#include <stdint.h>

#define Q3_ARMS_VERSION 1
#define Q3_ARMS 6

typedef struct q3_arms
{
	uint32_t version;
	int32_t n_arms, leader, fallback;
	int64_t rows, min_rows;
	double price;
	double loss[Q3_ARMS];             /* sums */
	double squares[Q3_ARMS][Q3_ARMS]; /* of differences of losses */
} q3_arms;

/* n_arms of at most Q3_ARMS; fallback leads for the first min_rows (30 is sensible). */
extern void q3_arms_begin(q3_arms *a, int32_t n_arms, int32_t fallback, double price,
                          int64_t min_rows);
/* A row that was answered by every arm: its cost, and whether the answer was the reference's. */
extern void q3_arms_observe(q3_arms *a, const double *cost, const int32_t *agreed);
/* The cheapest of the arms in the set of bits, or the fallback if there is none. */
extern int32_t q3_arms_choose(q3_arms *a, uint32_t allowed);
extern double q3_arms_mean_loss(const q3_arms *a, int32_t arm);

#endif
