/*
 * calibration.c: isotonic regression of agreement on margins, and thresholds; see calibration.h.
 *
 * Fits in the caller's array: a pooled block takes the place of the rows it was made of. Works on
 * the caller's structs alone.
 */
#include "policy/calibration.h"
#include "policy/binomial.h"
#include "policy/martingale.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int
by_margin(const void *a, const void *b)
{
	double x = ((const q3_calibration_bin *) a)->margin;
	double y = ((const q3_calibration_bin *) b)->margin;

	return (x > y) - (x < y);
}

static void
pool(q3_calibration_bin *into, const q3_calibration_bin *other)
{
	into->rows += other->rows;
	into->agreed += other->agreed;
}

/* a and b are neighbours, a below: must they be one block? */
static bool
violates(const q3_calibration_bin *a, const q3_calibration_bin *b)
{
	return a->margin == b->margin || a->agreed * b->rows >= b->agreed * a->rows;
}

/* Returns how many blocks rows[] holds then. Ties come first: they are one margin's rows. */
static size_t
pool_violators(q3_calibration_bin *rows, size_t n)
{
	size_t distinct = 0, blocks = 0;

	for (size_t i = 0; i < n; i++)
	{
		if (distinct > 0 && rows[distinct - 1].margin == rows[i].margin)
			pool(&rows[distinct - 1], &rows[i]);
		else
			rows[distinct++] = rows[i];
	}
	for (size_t i = 0; i < distinct; i++)
	{
		q3_calibration_bin next = rows[i];

		while (blocks > 0 && violates(&rows[blocks - 1], &next))
		{
			q3_calibration_bin below = rows[--blocks];

			pool(&below, &next);
			next = below;
		}
		rows[blocks++] = next;
	}
	return blocks;
}

/* By how much the squared error rises when two blocks become one. */
static double
price_of_merging(const q3_calibration_bin *a, const q3_calibration_bin *b)
{
	double na = (double) a->rows, nb = (double) b->rows;
	double d = (double) a->agreed / na - (double) b->agreed / nb;

	return na * nb / (na + nb) * d * d;
}

static size_t
merge_cheapest(q3_calibration_bin *blocks, size_t n)
{
	while (n > Q3_CALIBRATION_BINS)
	{
		size_t best = 0;

		for (size_t i = 1; i + 1 < n; i++)
		{
			if (price_of_merging(&blocks[i], &blocks[i + 1]) <
			    price_of_merging(&blocks[best], &blocks[best + 1]))
				best = i;
		}
		pool(&blocks[best], &blocks[best + 1]);
		memmove(&blocks[best + 1], &blocks[best + 2], (n - best - 2) * sizeof(*blocks));
		n--;
	}
	return n;
}

void
q3_calibration_fit(q3_calibration *c, q3_calibration_bin *rows, size_t n)
{
	memset(c, 0, sizeof(*c));
	c->version = Q3_CALIBRATION_VERSION;
	if (n == 0)
		return;
	for (size_t i = 0; i < n; i++)
	{
		if (!isfinite(rows[i].margin))
			rows[i].margin = 0;
	}
	qsort(rows, n, sizeof(*rows), by_margin);
	c->greatest = rows[n - 1].margin;
	n = merge_cheapest(rows, pool_violators(rows, n));
	c->n_bins = (int32_t) n;
	memcpy(c->bins, rows, n * sizeof(*rows));
	for (size_t i = 0; i < n; i++)
	{
		c->rows += rows[i].rows;
		c->agreed += rows[i].agreed;
	}
}

/* The bin that a margin falls into; what lies below all falls into the first. */
static int32_t
bin_of(const q3_calibration *c, double margin)
{
	int32_t k = c->n_bins - 1;

	while (k > 0 && !(margin >= c->bins[k].margin))
		k--;
	return k;
}

double
q3_calibration_agreement(const q3_calibration *c, double margin)
{
	const q3_calibration_bin *b;

	if (c->n_bins == 0)
		return 0;
	b = &c->bins[bin_of(c, margin)];
	return (double) b->agreed / (double) b->rows;
}

void
q3_calibration_at(const q3_calibration *c, double threshold, double *escalated, double *agreement)
{
	double rows = 0, disagreed = 0;

	*escalated = *agreement = 0;
	if (c->n_bins == 0)
		return;
	for (int32_t k = 0; k < c->n_bins; k++)
	{
		const q3_calibration_bin *b = &c->bins[k];
		double end = k + 1 < c->n_bins ? b[1].margin : c->greatest;
		double kept = 1;

		/* Rows are taken to lie evenly between the margins of a bin. */
		if (threshold > b->margin)
			kept = end > threshold ? (end - threshold) / (end - b->margin) : 0;
		rows += kept * (double) b->rows;
		disagreed += kept * (double) (b->rows - b->agreed);
	}
	*escalated = 1 - rows / (double) c->rows;
	*agreement = 1 - disagreed / (double) c->rows;
}

/* What it would mean to keep the answers of bin k and above. */
static q3_threshold
weigh(const q3_calibration *c, const q3_threshold_wish *wish, int32_t k, int64_t kept,
      int64_t disagreed)
{
	double rows = (double) c->rows, needed;
	q3_threshold t = {.found = true};

	t.threshold = k > 0 ? c->bins[k].margin : 0;
	t.escalated = 1 - (double) kept / rows;
	t.agreement = 1 - (double) disagreed / rows;
	t.lower = 1 - q3_binomial_upper(disagreed, c->rows, wish->confidence);
	/* Half a disagreement more than was seen: nothing agrees always. */
	t.accepted = 1 - ((double) disagreed + 0.5) / ((double) kept + 1);
	needed =
	    q3_betting_rows(t.accepted, q3_accepted_target(wish->target, kept, c->rows), wish->delta);
	t.certificate = wish->planned_rows > 0 ? fmin(needed, (double) wish->planned_rows) : needed;
	t.cost = wish->efficient_cost / wish->precise_cost + t.escalated;
	if (wish->planned_rows > 0)
		t.cost += t.certificate / (double) wish->planned_rows;
	t.speedup = 1 / t.cost;
	return t;
}

q3_threshold
q3_calibration_choose(const q3_calibration *c, const q3_threshold_wish *wish)
{
	q3_threshold best = {.found = false};
	int64_t kept = 0, disagreed = 0;

	for (int32_t k = c->n_bins - 1; k >= 0; k--)
	{
		q3_threshold t;

		kept += c->bins[k].rows;
		disagreed += c->bins[k].rows - c->bins[k].agreed;
		t = weigh(c, wish, k, kept, disagreed);
		if (t.lower >= wish->target && (!best.found || t.cost <= best.cost))
			best = t;
	}
	return best;
}
