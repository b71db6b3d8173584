/*
 * test_policy_pipeline.c: the life of a task, with all parts together: it is learned, a threshold
 * is chosen, certified on other rows, used, and given up when its answers get worse. Simulated;
 * prints the figures that it checks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy/binomial.h"
#include "policy/calibration.h"
#include "policy/decision.h"
#include "policy/drift.h"
#include "policy/martingale.h"
#include "policy_random.h"

#define TARGET 0.987
#define DELTA 0.05
#define PROXY_COST 0.35

enum
{
	TASKS = 300,
	LEARNED = 1500,
	PATIENCE = 2000, /* labels that a certificate may take */
	ROWS = 10000
};

/* Disagreement falls with the margin: base + height exp(-margin / scale). */
typedef struct world
{
	dice rng;
	double base, height, scale;
} world;

static double
disagreement(const world *w, double margin)
{
	return w->base + w->height * exp(-margin / w->scale);
}

static double
draw(world *w, bool *agreed)
{
	double margin = pow(uniform(&w->rng), 0.6);

	*agreed = !chance(&w->rng, disagreement(w, margin));
	return margin;
}

/* Of all rows, if those below the threshold are escalated; by the distribution of margins. */
static double
true_agreement(const world *w, double threshold)
{
	double disagreeing = 0;

	for (int i = 0; i < 20000; i++)
	{
		double margin = pow((i + 0.5) / 20000, 0.6);

		disagreeing += margin >= threshold ? disagreement(w, margin) : 0;
	}
	return 1 - disagreeing / 20000;
}

static q3_threshold
learn(world *w)
{
	static q3_calibration_bin sample[LEARNED];
	q3_threshold_wish wish = {TARGET, 0.9, PROXY_COST, 1, DELTA, ROWS};
	q3_calibration c;

	for (int i = 0; i < LEARNED; i++)
	{
		bool agreed;
		double margin = draw(w, &agreed);

		sample[i] = (q3_calibration_bin){margin, 1, agreed};
	}
	q3_calibration_fit(&c, sample, LEARNED);
	return q3_calibration_choose(&c, &wish);
}

/*
 * On a sample of all rows, none of them learned from. Those that are escalated agree and cost
 * nothing more; the others are labelled.
 */
static q3_martingale
certify(world *w, const q3_threshold *t, int *labelled)
{
	q3_martingale m;

	*labelled = 0;
	q3_martingale_begin(&m, 0, TARGET, DELTA, t->agreement);
	while (m.verdict == Q3_UNCERTIFIED && *labelled < PATIENCE)
	{
		bool agreed, escalated = draw(w, &agreed) < t->threshold;

		*labelled += !escalated;
		q3_martingale_observe(&m, escalated || agreed);
	}
	return m;
}

typedef struct sums
{
	int found, certified, wrong, profitable;
	double cost, agreement, sampled;
} sums;

/* One task's life until it has answered its rows. */
static void
live(world *w, sums *sum)
{
	q3_threshold t = learn(w);
	q3_martingale m;
	q3_decision_input in = {.task = true, .efficient_cost = PROXY_COST, .precise_cost = 1};
	q3_decision d;
	double cost, agreeing = 0;
	int labelled;

	if (!t.found)
		return;
	sum->found++;
	m = certify(w, &t, &labelled);
	in.standing = m.verdict == Q3_CERTIFIED ? Q3_STANDING_CERTIFIED : Q3_STANDING_UNCERTIFIED;
	in.threshold = in.certified_threshold = t.threshold;
	in.escalated = t.escalated;
	d = q3_decide(&in);
	if (m.verdict != Q3_CERTIFIED)
	{
		assert_int_equal(d.tier, Q3_TIER_PRECISE);
		return;
	}
	sum->certified++;
	sum->wrong += true_agreement(w, t.threshold) < TARGET;
	if (d.tier == Q3_TIER_PRECISE)
		return;
	cost = labelled;
	for (int i = 0; i < ROWS; i++)
	{
		bool agreed;
		bool keep = q3_review(&d, draw(w, &agreed), 0, 1).tier == d.tier;

		cost += PROXY_COST + !keep;
		agreeing += !keep || agreed;
	}
	sum->profitable++;
	sum->cost += cost / ROWS;
	sum->agreement += agreeing / ROWS;
	sum->sampled += labelled;
}

static void
test_life(void **state)
{
	dice d = {2718};
	sums sum = {0};

	(void) state;
	for (int i = 0; i < TASKS; i++)
	{
		world w = {{(uint64_t) i * 104729 + 1}, 0.02 * uniform(&d), 0.5 * uniform(&d), 0};

		w.scale = 0.01 + 0.1 * uniform(&d);
		live(&w, &sum);
	}
	print_message(
	    "    of %d tasks %d had a threshold, %d were certified with %.0f labels on average, %d "
	    "wrongly;\n    on 10,000 rows each: %.2f times as fast as precise (proxy cost %.2f, "
	    "certificate paid), agreement %.4f\n",
	    TASKS, sum.found, sum.certified, sum.sampled / sum.profitable, sum.wrong,
	    sum.profitable / sum.cost, PROXY_COST, sum.agreement / sum.profitable);
	assert_true(sum.certified >= TASKS / 3);
	assert_true(q3_binomial_lower(sum.wrong, TASKS, 0.99) <= DELTA);
	assert_true(sum.agreement / sum.profitable >= TARGET);
	assert_true(sum.profitable / sum.cost > 1.6);
}

static void
test_decline(void **state)
{
	world w = {{31}, 0.001, 0.3, 0.03};
	q3_threshold t = learn(&w);
	q3_decision_input in = {.task = true, .standing = Q3_STANDING_CERTIFIED};
	q3_decision d;
	q3_drift drift;
	int64_t before;
	int labelled;

	(void) state;
	assert_true(t.found);
	assert_int_equal(certify(&w, &t, &labelled).verdict, Q3_CERTIFIED);
	in.threshold = in.certified_threshold = t.threshold;
	d = q3_decide(&in);
	q3_drift_begin(&drift, TARGET, 0.01, 10000);
	for (int i = 0; i < 3000; i++)
	{
		bool agreed;

		if (q3_review(&d, draw(&w, &agreed), 0, 1).tier == d.tier)
			assert_false(q3_drift_observe(&drift, agreed));
	}
	w.base += 0.05;
	before = drift.rows;
	while (!drift.alarm && drift.rows < before + 1000)
	{
		bool agreed;

		if (q3_review(&d, draw(&w, &agreed), 0, 1).tier == d.tier)
			q3_drift_observe(&drift, agreed);
	}
	print_message("    5 points worse: given up after %lld shadow rows\n",
	              (long long) (drift.rows - before));
	assert_true(drift.alarm && drift.rows - before <= 600);
	in.standing = Q3_STANDING_DRIFTED;
	assert_int_equal(q3_decide(&in).tier, Q3_TIER_PRECISE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_life),
	    cmocka_unit_test(test_decline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
