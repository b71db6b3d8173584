/*
 * test_policy_calibration.c: binomial limits, isotonic regression and thresholds, against brute
 * force and by simulation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/binomial.h"
#include "policy/calibration.h"
#include "policy/martingale.h"
#include "policy_random.h"

static void
assert_near(double got, double expected, double tolerance)
{
	if (!(fabs(got - expected) <= tolerance))
		fail_msg("%.12g, not %.12g", got, expected);
}

/* ---- Binomials ---- */

/* Row by row of Pascal's triangle, with probabilities. */
static double
cdf_by_recursion(int k, int n, double p)
{
	double row[201] = {1}, sum = 0;

	for (int i = 0; i < n; i++)
	{
		for (int j = i + 1; j > 0; j--)
			row[j] = row[j] * (1 - p) + row[j - 1] * p;
		row[0] *= 1 - p;
	}
	for (int j = 0; j <= k; j++)
		sum += row[j];
	return sum;
}

static void
test_binomial(void **state)
{
	static const double rates[] = {0.001, 0.013, 0.2, 0.5, 0.77, 0.987};

	(void) state;
	for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++)
	{
		for (int n = 1; n <= 200; n += n < 20 ? 1 : 30)
		{
			for (int k = 0; k <= n; k++)
				assert_near(q3_binomial_cdf(k, n, rates[r]), cdf_by_recursion(k, n, rates[r]),
				            1e-11);
		}
	}
	assert_true(q3_binomial_cdf(-1, 5, 0.5) == 0 && q3_binomial_cdf(5, 5, 0.5) == 1);
	assert_true(q3_binomial_cdf(3, 5, 0) == 1 && q3_binomial_cdf(3, 5, 1) == 0);
	assert_near(q3_binomial_cdf(500000, 1000000, 0.5), 0.5004, 1e-5);
}

static void
test_limits(void **state)
{
	(void) state;
	/* No disagreement in n rows: (1 - p)^n = 1 - confidence. */
	assert_near(q3_binomial_upper(0, 230, 0.95), 1 - pow(0.05, 1.0 / 230), 1e-12);
	assert_near(q3_binomial_lower(230, 230, 0.95), pow(0.05, 1.0 / 230), 1e-12);
	/* What a sample of fixed size needs for 0.987. */
	assert_true(q3_binomial_upper(0, 229, 0.95) <= 0.013 &&
	            q3_binomial_upper(0, 228, 0.95) > 0.013);
	assert_true(q3_binomial_upper(1, 365, 0.95) <= 0.013 &&
	            q3_binomial_upper(1, 360, 0.95) > 0.013);
	for (int k = 0; k <= 50; k += 7)
	{
		double upper = q3_binomial_upper(k, 50, 0.9), lower = q3_binomial_lower(k, 50, 0.9);

		if (k < 50)
			assert_near(cdf_by_recursion(k, 50, upper), 0.1, 1e-9);
		if (k > 0)
			assert_near(1 - cdf_by_recursion(k - 1, 50, lower), 0.1, 1e-9);
	}
	assert_true(q3_binomial_upper(0, 0, 0.9) == 1 && q3_binomial_lower(0, 0, 0.9) == 0);
	assert_true(q3_binomial_upper(9, 9, 0.9) == 1 && q3_binomial_lower(0, 9, 0.9) == 0);
}

/* ---- Isotonic regression ---- */

/*
 * By its minimax form: the fit at i is the greatest, over starts at or before i, of the least, over
 * ends at or after i, of the mean from start to end.
 */
static double
isotonic_by_minimax(const q3_calibration_bin *rows, int n, int i)
{
	double fit = -1;

	for (int a = 0; a <= i; a++)
	{
		double least = 2, agreed = 0, count = 0;

		for (int b = a; b < n; b++)
		{
			agreed += (double) rows[b].agreed;
			count += (double) rows[b].rows;
			if (b >= i && agreed / count < least)
				least = agreed / count;
		}
		fit = fmax(fit, least);
	}
	return fit;
}

static void
test_isotonic(void **state)
{
	dice d = {31};

	(void) state;
	for (int round = 0; round < 200; round++)
	{
		q3_calibration_bin rows[40], copy[40];
		q3_calibration c;
		int n = 1 + (int) (uniform(&d) * 40);

		for (int i = 0; i < n; i++)
		{
			int64_t weight = 1 + (int64_t) (uniform(&d) * 3);
			double p = (i + 5.0) / (n + 5.0);

			rows[i] = (q3_calibration_bin){i / 64.0, weight, 0};
			for (int64_t k = 0; k < weight; k++)
				rows[i].agreed += chance(&d, p);
		}
		memcpy(copy, rows, sizeof(rows));
		for (int i = n - 1; i > 0; i--)
		{
			q3_calibration_bin t = rows[i];
			int k = (int) (uniform(&d) * (i + 1));

			rows[i] = rows[k];
			rows[k] = t;
		}
		q3_calibration_fit(&c, rows, (size_t) n);
		assert_in_range(c.n_bins, 1, Q3_CALIBRATION_BINS);
		for (int i = 0; i < n; i++)
			assert_near(q3_calibration_agreement(&c, copy[i].margin),
			            isotonic_by_minimax(copy, n, i), 1e-12);
	}
}

static void
test_ties_and_limits(void **state)
{
	q3_calibration_bin rows[400];
	q3_calibration c;
	double escalated, agreement;

	(void) state;
	q3_calibration_fit(&c, rows, 0);
	assert_int_equal(c.n_bins, 0);
	assert_true(q3_calibration_agreement(&c, 0.5) == 0);
	q3_calibration_at(&c, 0.5, &escalated, &agreement);
	assert_true(escalated == 0 && agreement == 0);
	/* One margin only, half of them agree; no number counts as 0. */
	for (int i = 0; i < 10; i++)
		rows[i] = (q3_calibration_bin){i == 3 ? NAN : 0, 1, i % 2};
	q3_calibration_fit(&c, rows, 10);
	assert_int_equal(c.n_bins, 1);
	assert_true(q3_calibration_agreement(&c, 0) == 0.5);
	assert_true(q3_calibration_agreement(&c, NAN) == 0.5);
	/* 400 levels become 32, which are still in order and hold all rows. */
	for (int i = 0; i < 400; i++)
		rows[i] = (q3_calibration_bin){(400 - i) / 400.0, 1000, 1000 - i};
	q3_calibration_fit(&c, rows, 400);
	assert_int_equal(c.n_bins, Q3_CALIBRATION_BINS);
	assert_int_equal(c.rows, 400000);
	for (int k = 1; k < c.n_bins; k++)
	{
		assert_true(c.bins[k].margin > c.bins[k - 1].margin);
		assert_true(c.bins[k].agreed * c.bins[k - 1].rows > c.bins[k - 1].agreed * c.bins[k].rows);
	}
	assert_near(q3_calibration_agreement(&c, 0.5), 0.8, 0.03);
	q3_calibration_at(&c, 0.5, &escalated, &agreement);
	assert_near(escalated, 0.5, 0.02);
	assert_near(agreement, 1 - 0.5 * 0.1, 0.01);
	q3_calibration_at(&c, 2, &escalated, &agreement);
	assert_true(escalated == 1 && agreement == 1);
	q3_calibration_at(&c, -1, &escalated, &agreement);
	assert_true(escalated == 0);
}

/* ---- Thresholds ---- */

/* Disagreement falls with the margin: base + 0.4 exp(-margin / scale). */
typedef struct world
{
	double base, scale;
} world;

static double
draw(dice *d, const world *w, bool *agreed)
{
	double margin = pow(uniform(d), 0.7);

	*agreed = !chance(d, w->base + 0.4 * exp(-margin / w->scale));
	return margin;
}

static q3_threshold
learn(dice *d, const world *w, int rows, double confidence, int64_t planned)
{
	static q3_calibration_bin sample[4000];
	q3_threshold_wish wish = {0.987, confidence, 0.4, 1, 0.05, planned};
	q3_calibration c;

	for (int i = 0; i < rows; i++)
	{
		bool agreed;
		double margin = draw(d, w, &agreed);

		sample[i] = (q3_calibration_bin){margin, 1, agreed};
	}
	q3_calibration_fit(&c, sample, (size_t) rows);
	return q3_calibration_choose(&c, &wish);
}

static void
measure(const world *w, double threshold, double *escalated, double *agreement)
{
	dice d = {4711};

	*escalated = *agreement = 0;
	for (int i = 0; i < 20000; i++)
	{
		bool agreed;
		double margin = draw(&d, w, &agreed);

		*escalated += (margin < threshold) / 20000.0;
		*agreement += (margin < threshold || agreed) / 20000.0;
	}
}

static void
test_threshold(void **state)
{
	static const world w = {0.001, 0.08};
	dice d = {8};
	int missed = 0, found = 0;
	double mean_escalated = 0;

	(void) state;
	for (int i = 0; i < 100; i++)
	{
		q3_threshold t = learn(&d, &w, 1500, 0.9, 10000);
		double escalated, agreement;

		if (!t.found)
			continue;
		found++;
		measure(&w, t.threshold, &escalated, &agreement);
		missed += agreement < 0.987;
		mean_escalated += escalated;
		assert_true(t.lower >= 0.987 && t.agreement > t.lower && t.escalated < 1);
		assert_near(t.cost, 0.4 + t.escalated + t.certificate / 10000, 1e-12);
		assert_near(t.speedup, 1 / t.cost, 1e-12);
	}
	print_message("    1,500 rows each: %d of 100 found a threshold, %.1f %% of rows escalated, "
	              "%d below the target\n",
	              found, 100 * mean_escalated / found, missed);
	assert_true(found >= 90);
	assert_true(missed <= 10);
}

static void
test_threshold_cases(void **state)
{
	static const world perfect = {-0.4, 1e9}, hopeless = {0.3, 1e-3}, sharp = {0.0005, 0.05};
	q3_calibration empty = {.n_bins = 0};
	q3_threshold_wish wish = {0.987, 0.9, 0.4, 1, 0.05, 0};
	dice d = {12};
	q3_threshold t = learn(&d, &perfect, 1000, 0.9, 0);

	(void) state;
	/* What always agrees is never escalated; too few rows promise nothing. */
	assert_true(t.found && t.threshold == 0 && t.escalated == 0);
	assert_near(t.cost, 0.4, 1e-12);
	assert_false(learn(&d, &perfect, 100, 0.9, 0).found);
	assert_true(learn(&d, &hopeless, 2000, 0.9, 0).cost > 0.9);
	assert_false(q3_calibration_choose(&empty, &wish).found);
	/* A certificate that a small table pays for alone is worth more escalations. */
	t = learn(&(dice){3}, &sharp, 3000, 0.9, 1500);
	assert_true(t.found);
	assert_true(t.escalated >= learn(&(dice){3}, &sharp, 3000, 0.9, 0).escalated);
	assert_true(t.certificate <= learn(&(dice){3}, &sharp, 3000, 0.9, 0).certificate);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_binomial),  cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_isotonic),  cmocka_unit_test(test_ties_and_limits),
	    cmocka_unit_test(test_threshold), cmocka_unit_test(test_threshold_cases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
