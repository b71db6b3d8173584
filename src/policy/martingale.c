/*
 * martingale.c: betting on agreement, and tests of nested sets in a fixed order; see martingale.h.
 *
 * Works on the caller's structs alone, in whatever thread holds them.
 */
#include "policy/martingale.h"

#include <math.h>
#include <string.h>

#define PRIOR_ROWS 300
#define MAX_STAKE 0.95
/* Counts of rows against products of targets: less than this is rounding. */
#define EPSILON 1e-6

void
q3_martingale_begin(q3_martingale *m, int64_t population, double target, double delta, double prior)
{
	memset(m, 0, sizeof(*m));
	m->version = Q3_MARTINGALE_VERSION;
	m->population = population;
	m->target = target;
	m->delta = delta;
	m->prior = prior > 0 ? fmin(prior, 1) : target + 0.75 * (1 - target);
	m->prior_rows = PRIOR_ROWS;
	if (target <= 0)
		m->verdict = Q3_CERTIFIED;
}

static double
forecast(const q3_martingale *m)
{
	return (m->prior * m->prior_rows + (double) m->agreed) / (m->prior_rows + (double) m->rows);
}

/* The mean that the rows still unseen would have if the population's were the target. */
static double
fair_mean(const q3_martingale *m)
{
	if (m->population <= 0)
		return m->target;
	return ((double) m->population * m->target - (double) m->agreed) /
	       (double) (m->population - m->rows);
}

/* What whoever bets on an event of fair probability p, and forecasts q for it, gains by a row. */
static double
log_gain(double q, double p, bool happened)
{
	double stake = fmax(0, fmin((q - p) / (1 - p), MAX_STAKE));

	return happened ? log1p(stake * (1 - p) / p) : log1p(-stake);
}

/* A finite population can settle the matter by counting alone. */
static void
settle(q3_martingale *m)
{
	double due = (double) m->population * m->target - (double) m->agreed;

	if (m->population > 0 && due <= EPSILON)
		m->verdict = Q3_CERTIFIED;
	else if (m->population > 0 && due > (double) (m->population - m->rows) + EPSILON)
		m->verdict = Q3_REFUTED;
	else if (m->log_wealth >= -log(m->delta))
		m->verdict = Q3_CERTIFIED;
	else if (m->log_against >= -log(m->delta))
		m->verdict = Q3_REFUTED;
}

q3_verdict
q3_martingale_observe(q3_martingale *m, bool agreed)
{
	double p, q;

	if (m->verdict != Q3_UNCERTIFIED || (m->population > 0 && m->rows >= m->population))
		return (q3_verdict) m->verdict;
	p = fair_mean(m);
	q = forecast(m);
	/* With all rows due to agree nothing can be won on agreement, and one row decides. */
	if (p < 1)
	{
		m->log_wealth += log_gain(q, p, agreed);
		m->log_against += log_gain(1 - q, 1 - p, !agreed);
	}
	else if (!agreed)
		m->verdict = Q3_REFUTED;
	m->rows++;
	m->agreed += agreed;
	if (m->verdict == Q3_UNCERTIFIED)
		settle(m);
	return (q3_verdict) m->verdict;
}

/* Expected logarithm of what a row multiplies the wealth by: Kullback and Leibler's divergence. */
static double
growth(double q, double p)
{
	q = fmin(q, 1);
	if (p <= 0 || p >= 1 || q <= p)
		return 0;
	return q * log(q / p) + (q < 1 ? (1 - q) * log((1 - q) / (1 - p)) : 0);
}

double
q3_betting_rows(double agreement, double target, double delta)
{
	double g = growth(agreement, target);

	if (target <= 0)
		return 0;
	return g > 0 ? -log(delta) / g : INFINITY;
}

int64_t
q3_martingale_rows_needed(const q3_martingale *m)
{
	double g, rows;

	if (m->verdict == Q3_CERTIFIED)
		return 0;
	g = m->verdict == Q3_REFUTED ? 0 : growth(forecast(m), fair_mean(m));
	if (g <= 0)
		return -1;
	rows = fmax(1, ceil((-log(m->delta) - m->log_wealth) / g));
	if (m->population > 0)
		rows = fmin(rows, (double) (m->population - m->rows));
	return (int64_t) fmin(rows, 1e15);
}

double
q3_accepted_target(double target, int64_t accepted, int64_t population)
{
	if (accepted <= 0)
		return 0;
	return (target * (double) population - (double) (population - accepted)) / (double) accepted;
}

/* ---- Fixed-sequence testing ---- */

/* Labels that were paid for on an earlier walk are no reason to stop. */
static bool
futile(const q3_sequence *s)
{
	int64_t needed = q3_martingale_rows_needed(&s->bet);
	int64_t spared = s->population - (s->last >= 0 ? s->cuts[s->last].rows : 0);

	return s->position > s->farthest && (needed < 0 || needed > spared);
}

/* Goes to the first cut from the current one on that has to be tested. */
static void
enter_cut(q3_sequence *s)
{
	while (s->current < s->n_cuts && s->cuts[s->current].target <= EPSILON)
	{
		s->cuts[s->current].verdict = Q3_CERTIFIED;
		s->last = s->current++;
	}
	if (s->current == s->n_cuts)
		s->ended = true;
	else
		q3_martingale_begin(&s->bet, s->cuts[s->current].rows, s->cuts[s->current].target, s->delta,
		                    s->prior);
}

void
q3_sequence_begin(q3_sequence *s, const double *margins, size_t n, double target, double delta,
                  double prior, int64_t budget)
{
	memset(s, 0, sizeof(*s));
	s->version = Q3_SEQUENCE_VERSION;
	s->last = -1;
	s->population = (int64_t) n;
	s->budget = budget;
	s->target = target;
	s->delta = delta;
	s->prior = prior;
	for (size_t k = 1, done = 0; k <= Q3_SEQUENCE_CUTS; k++)
	{
		size_t rows = n / Q3_SEQUENCE_CUTS * k + n % Q3_SEQUENCE_CUTS * k / Q3_SEQUENCE_CUTS;
		q3_cut *cut = &s->cuts[s->n_cuts];

		while (rows > 0 && rows < n && margins[rows] >= margins[rows - 1])
			rows++;
		if (rows <= done)
			continue;
		done = rows;
		cut->rows = (int64_t) rows;
		cut->threshold = margins[rows - 1];
		cut->target = q3_accepted_target(target, cut->rows, s->population);
		s->n_cuts++;
	}
	enter_cut(s);
}

bool
q3_sequence_wants(const q3_sequence *s, int64_t rank)
{
	return !s->ended && rank >= 0 && rank < s->cuts[s->current].rows;
}

q3_step
q3_sequence_observe(q3_sequence *s, int64_t rank, bool agreed)
{
	q3_cut *cut = &s->cuts[s->current];
	q3_verdict verdict;

	if (s->ended)
		return Q3_STEP_END;
	s->position++;
	if (!q3_sequence_wants(s, rank))
		return Q3_STEP_MORE;
	verdict = q3_martingale_observe(&s->bet, agreed);
	cut->tested = true;
	cut->verdict = verdict;
	cut->drawn = s->bet.rows;
	cut->agreed = s->bet.agreed;
	if (verdict == Q3_CERTIFIED)
	{
		s->last = s->current++;
		s->farthest = s->position > s->farthest ? s->position : s->farthest;
		s->position = 0;
		enter_cut(s);
	}
	else if (verdict == Q3_REFUTED || (s->budget > 0 && cut->drawn >= s->budget) || futile(s))
		s->ended = true;
	else
		return Q3_STEP_MORE;
	return s->ended ? Q3_STEP_END : Q3_STEP_AGAIN;
}

const q3_cut *
q3_sequence_certified(const q3_sequence *s)
{
	return s->last >= 0 ? &s->cuts[s->last] : NULL;
}
