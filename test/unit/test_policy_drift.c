/*
 * test_policy_drift.c: the alarm's guarantee by enumeration and simulation, how fast it and the
 * early warning are. Prints the figures that it checks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy/binomial.h"
#include "policy/drift.h"
#include "policy_random.h"

#define TARGET 0.987
#define STREAMS 1000

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/* R, from the logarithms of 1 + R that are kept. */
static double
statistic(const q3_drift *d)
{
	double sum = 0;

	for (int k = 0; k < Q3_DRIFT_FALLS; k++)
		sum += expm1(d->log_sum[k]);
	return sum / Q3_DRIFT_FALLS;
}

static void
test_expectation(void **state)
{
	double sum = 0, reference = 0.9;

	(void) state;
	/* E[R_n] = n at the reference: over all sequences of 14 rows. */
	for (uint32_t bits = 0; bits < 1u << 14; bits++)
	{
		double probability = 1;
		q3_drift d;

		q3_drift_begin(&d, reference, 1e-9, 1000000);
		for (int i = 0; i < 14; i++)
		{
			q3_drift_observe(&d, bits >> i & 1);
			probability *= bits >> i & 1 ? reference : 1 - reference;
		}
		assert_false(d.alarm);
		sum += probability * statistic(&d);
	}
	assert_true(fabs(sum - 14) < 1e-6);
}

static void
test_level(void **state)
{
	q3_drift d;
	double level = 0;
	int i;

	(void) state;
	q3_drift_begin(&d, TARGET, 0.01, 10000);
	assert_true(q3_drift_level(&d) == 0);
	for (i = 0; !q3_drift_observe(&d, false); i++)
	{
		assert_true(q3_drift_level(&d) >= level && q3_drift_level(&d) < 1);
		level = q3_drift_level(&d);
	}
	assert_true(i < 10 && q3_drift_level(&d) >= 1);
	assert_true(statistic(&d) >= 1e6);
	assert_true(q3_drift_observe(&d, true));
	assert_int_equal(d.rows, i + 1);
	/* Sane at both ends. */
	q3_drift_begin(&d, 1, 0.01, 10000);
	for (i = 0; i < 100000; i++)
		assert_false(q3_drift_observe(&d, true));
	q3_drift_begin(&d, 0, 0.01, 10000);
	for (i = 0; i < 1000; i++)
		assert_false(q3_drift_observe(&d, i % 3 == 0));
}

static void
test_false_alarms(void **state)
{
	static const double rates[] = {TARGET, 0.995};
	dice rng = {6};

	(void) state;
	for (size_t k = 0; k < 2; k++)
	{
		int64_t alarms = 0;

		for (int s = 0; s < STREAMS; s++)
		{
			q3_drift d;

			q3_drift_begin(&d, TARGET, 0.01, 10000);
			for (int i = 0; i < 10000 && !d.alarm; i++)
				q3_drift_observe(&d, chance(&rng, rates[k]));
			alarms += d.alarm;
		}
		print_message(
		    "    steady %.3f, target %.3f: %lld false alarms in %d times 10,000 rows (95 %% "
		    "confidence: %.2f to %.2f %%)\n",
		    rates[k], TARGET, (long long) alarms, STREAMS,
		    100 * q3_binomial_lower(alarms, STREAMS, 0.975),
		    100 * q3_binomial_upper(alarms, STREAMS, 0.975));
		assert_true((double) alarms <= 0.01 * STREAMS);
	}
}

static void
test_delay(void **state)
{
	static const struct
	{
		double before, after;
	} falls[] = {{0.987, 0.937}, {0.990, 0.940}, {0.995, 0.945},
	             {1, 0.95},      {0.99, 0.965},  {0.99, 0.89}};
	dice rng = {16};

	(void) state;
	for (size_t k = 0; k < sizeof(falls) / sizeof(falls[0]); k++)
	{
		double delay[500];

		for (int s = 0; s < 500; s++)
		{
			q3_drift d;
			int before = 500 + (int) (uniform(&rng) * 2000), i = 0;

			q3_drift_begin(&d, TARGET, 0.01, 10000);
			while (i++ < before)
				q3_drift_observe(&d, chance(&rng, falls[k].before));
			for (i = 0; i < 5000 && !d.alarm; i++)
				q3_drift_observe(&d, chance(&rng, falls[k].after));
			delay[s] = i;
		}
		qsort(delay, 500, sizeof(delay[0]), by_value);
		print_message(
		    "    %.3f falls to %.3f: noticed after %.0f shadow rows (median), %.0f (90 %%)\n",
		    falls[k].before, falls[k].after, delay[250], delay[450]);
		if (falls[k].before - falls[k].after > 0.049)
			assert_true(delay[250] <= 400);
	}
}

/* ---- Early warning ---- */

/* Margins: skewed, mean 0.7 before, a sixth of a unit lower after. */
static double
margin(dice *d, bool changed)
{
	double v = pow(uniform(d), 0.43);

	return changed ? v - 0.12 : v;
}

static void
test_warning(void **state)
{
	dice rng = {61};
	int warned = 0;
	double delay[300];

	(void) state;
	for (int s = 0; s < 300; s++)
	{
		q3_warning w;
		int i;

		q3_warning_begin(&w, false, 1000);
		for (i = 0; i < 11000; i++)
			q3_warning_observe(&w, margin(&rng, false));
		warned += w.warned;
		w.warned = false;
		for (i = 0; i < 5000 && !q3_warning_observe(&w, margin(&rng, true)); i++)
			;
		delay[s] = i;
	}
	qsort(delay, 300, sizeof(delay[0]), by_value);
	print_message("    early warning: %.1f %% false in 10,000 rows, margins half a deviation lower "
	              "noticed after %.0f (median)\n",
	              warned / 3.0, delay[150]);
	assert_true(warned <= 15);
	assert_true(delay[150] <= 400);
}

static void
test_warning_edges(void **state)
{
	q3_warning w;
	int i;

	(void) state;
	/* Off-label mass that was always the same: a rise is noticed, a fall is none. */
	q3_warning_begin(&w, true, 0);
	for (i = 0; i < 1000; i++)
		assert_false(q3_warning_observe(&w, 0.01));
	for (i = 0; i < 1000; i++)
		assert_false(q3_warning_observe(&w, i % 2 ? 0.001 : NAN));
	for (i = 0; i < 1000 && !q3_warning_observe(&w, 0.05); i++)
		;
	assert_true(i <= 96);
	assert_true(fabs(w.deviation) <= 6);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_expectation),  cmocka_unit_test(test_level),
	    cmocka_unit_test(test_false_alarms), cmocka_unit_test(test_delay),
	    cmocka_unit_test(test_warning),      cmocka_unit_test(test_warning_edges),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
