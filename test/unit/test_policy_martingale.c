/*
 * test_policy_martingale.c: certificates, by enumeration of all outcomes where there are few, and
 * by simulation of tasks whose agreement is known. Prints the figures that it checks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "policy/binomial.h"
#include "policy/martingale.h"
#include "policy_random.h"

#define TARGET 0.987
#define DELTA 0.05

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(double *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_value);
	return v[n / 2];
}

/* What is certain to hold in at least 97.5 % of experiments, as are both limits in 95 %. */
static void
print_rate(const char *what, int64_t k, int64_t n)
{
	print_message("    %s: %lld of %lld = %.2f %% (95 %% confidence: %.2f to %.2f %%)\n", what,
	              (long long) k, (long long) n, 100.0 * (double) k / (double) n,
	              100 * q3_binomial_lower(k, n, 0.975), 100 * q3_binomial_upper(k, n, 0.975));
}

/* ---- Every outcome of a small population or stream ---- */

typedef struct outcomes
{
	double certified, wealth, against; /* expectations */
} outcomes;

/* Of the first rows draws; agreeing < 0: a stream that agrees with probability p. */
static outcomes
enumerate(int population, int agreeing, double p, int rows, double target, double delta,
          double prior)
{
	outcomes sum = {0, 0, 0};

	for (uint32_t bits = 0; bits < 1u << rows; bits++)
	{
		q3_martingale m;
		double probability = 1;
		int left = agreeing;

		q3_martingale_begin(&m, population, target, delta, prior);
		for (int i = 0; i < rows; i++)
		{
			bool agreed = bits >> i & 1;
			double q = agreeing < 0 ? p : (double) left / (population - i);

			probability *= agreed ? q : 1 - q;
			left -= agreed;
			if (probability > 0)
				q3_martingale_observe(&m, agreed);
		}
		if (probability <= 0)
			continue;
		sum.certified += probability * (m.verdict == Q3_CERTIFIED);
		sum.wealth += probability * exp(m.log_wealth);
		sum.against += probability * exp(m.log_against);
	}
	return sum;
}

static void
test_fair_game(void **state)
{
	outcomes o;

	(void) state;
	/* At the target both games are fair, whatever the forecast and whenever one stops. */
	for (double prior = 0; prior < 1; prior += 0.45)
	{
		o = enumerate(0, -1, 0.8, 12, 0.8, 0.05, prior);
		assert_true(fabs(o.wealth - 1) < 1e-9 && fabs(o.against - 1) < 1e-9);
		o = enumerate(20, 16, 0, 14, 0.8, 0.05, prior);
		assert_true(fabs(o.wealth - 1) < 1e-9 && fabs(o.against - 1) < 1e-9);
	}
	/* Below it one who bets on agreement loses, above it one who bets against. */
	o = enumerate(20, 15, 0, 14, 0.8, 0.05, 0.95);
	assert_true(o.wealth < 1);
	o = enumerate(20, 17, 0, 14, 0.8, 0.05, 0.5);
	assert_true(o.against < 1);
}

static void
test_small_populations(void **state)
{
	(void) state;
	for (int agreeing = 0; agreeing <= 14; agreeing++)
	{
		for (int k = 1; k <= 3; k++)
		{
			double target = 0.25 * k + 0.1, delta = 0.3;
			outcomes o = enumerate(14, agreeing, 0, 14, target, delta, 0);

			/* When all have been seen, the truth is known. */
			if (agreeing >= 14 * target)
				assert_true(o.certified > 1 - delta);
			else
				assert_true(o.certified <= delta);
			/* A target of the population is the same as one of its sum. */
			assert_true(o.wealth >= 0);
		}
	}
}

static void
test_edges(void **state)
{
	q3_martingale m;

	(void) state;
	q3_martingale_begin(&m, 100, 0, DELTA, 0);
	assert_int_equal(m.verdict, Q3_CERTIFIED);
	/* Target 1: one row refutes, all rows certify. */
	q3_martingale_begin(&m, 3, 1, DELTA, 0);
	assert_int_equal(q3_martingale_observe(&m, true), Q3_UNCERTIFIED);
	assert_int_equal(q3_martingale_observe(&m, true), Q3_UNCERTIFIED);
	assert_int_equal(q3_martingale_observe(&m, true), Q3_CERTIFIED);
	assert_int_equal(q3_martingale_rows_needed(&m), 0);
	q3_martingale_begin(&m, 0, 1, DELTA, 0);
	assert_int_equal(q3_martingale_rows_needed(&m), -1);
	assert_int_equal(q3_martingale_observe(&m, false), Q3_REFUTED);
	assert_int_equal(q3_martingale_observe(&m, true), Q3_REFUTED);
	assert_int_equal(m.rows, 1);
	/* Out of reach by counting alone, long before the wealth says so. */
	q3_martingale_begin(&m, 10, 0.9, 1e-9, 0);
	q3_martingale_observe(&m, false);
	assert_int_equal(q3_martingale_observe(&m, false), Q3_REFUTED);
	assert_int_equal(q3_martingale_rows_needed(&m), -1);
	/* A population of 1. */
	q3_martingale_begin(&m, 1, TARGET, DELTA, 0);
	assert_int_equal(q3_martingale_rows_needed(&m), 1);
	assert_int_equal(q3_martingale_observe(&m, true), Q3_CERTIFIED);
	assert_true(fabs(q3_accepted_target(0.987, 8000, 10000) - 0.98375) < 1e-12);
	assert_true(q3_accepted_target(0.987, 100, 10000) < 0);
	assert_true(q3_accepted_target(0.987, 0, 10000) == 0);
	assert_true(q3_betting_rows(0.98, 0.987, DELTA) == INFINITY);
}

/* ---- Simulations ---- */

/* Rows until the certificate of a population, or limit + 1. */
static int
rows_to_certify(dice *d, int population, int agreeing, double prior, int limit)
{
	q3_martingale m;
	int left = agreeing;

	q3_martingale_begin(&m, population, TARGET, DELTA, prior);
	for (int i = 0; i < limit; i++)
	{
		bool agreed = chance(d, (double) left / (population - i));

		left -= agreed;
		if (q3_martingale_observe(&m, agreed) == Q3_CERTIFIED)
			return i + 1;
		if (m.verdict == Q3_REFUTED)
			break;
	}
	return limit + 1;
}

static void
test_false_certificates(void **state)
{
	dice d = {20240};
	int64_t table = 0, stream = 0, n = 2000;

	(void) state;
	for (int64_t task = 0; task < n; task++)
	{
		int population = 1500 + (int) (uniform(&d) * 3000);
		/* From just below the target to half a point below it. */
		int agreeing = (int) (TARGET * population - 1e-9) - (int) (task % 4 * population / 600);
		q3_martingale m;

		table += rows_to_certify(&d, population, agreeing, task % 3 == 0 ? 0.999 : 0, population) <=
		         population;
		q3_martingale_begin(&m, 0, TARGET, DELTA, 0);
		for (int i = 0; i < 3000 && m.verdict == Q3_UNCERTIFIED; i++)
			q3_martingale_observe(&m, chance(&d, TARGET - 1e-4 * (double) (task % 4)));
		stream += m.verdict == Q3_CERTIFIED;
	}
	print_rate("false certificates of one set, without replacement", table, n);
	print_rate("false certificates of a stream", stream, n);
	assert_true(q3_binomial_lower(table, n, 0.99) <= DELTA);
	assert_true(q3_binomial_lower(stream, n, 0.99) <= DELTA);
	assert_true((double) table <= DELTA * (double) n);
}

/* The predictable plug-in stakes of Waudby-Smith and Ramdas (2010.09686), cut at c of all. */
static int
rows_by_paper(dice *d, int population, int agreeing, double c, int limit)
{
	double log_wealth = 0, s = 0, squares = 0.25, mean;

	for (int i = 1; i <= limit; i++)
	{
		double m = (population * TARGET - s) / (population - i + 1);
		double variance = squares / i;
		double stake = sqrt(2 * log(2 / DELTA) / (variance * i * log(i + 1.0)));
		bool agreed = chance(d, (agreeing - s) / (population - i + 1));

		stake = fmin(stake, c / m);
		log_wealth += log1p(stake * (agreed - m));
		s += agreed;
		mean = (0.5 + s) / (i + 1);
		squares += (agreed - mean) * (agreed - mean);
		if (log_wealth >= -log(DELTA))
			return i;
	}
	return limit + 1;
}

static void
test_power(void **state)
{
	enum
	{
		TASKS = 400,
		ROWS = 10000,
		LIMIT = 5000
	};
	static const double truths[] = {0.990, 0.993, 0.995, 0.997, 0.999, 1};
	dice d = {1234};
	double at995 = 0, at1 = 0;

	(void) state;
	print_message("    rows until agreement >= %.3f is certified (delta %.2f), of %d rows:\n",
	              TARGET, DELTA, ROWS);
	print_message("    truth    median   mean  within 365  within 597   the paper's stakes\n");
	for (size_t k = 0; k < sizeof(truths) / sizeof(truths[0]); k++)
	{
		double rows[TASKS], paper[TASKS], mean = 0, paper_mean = 0;
		int within365 = 0, within597 = 0;
		int agreeing = (int) (truths[k] * ROWS + 0.5);

		for (int i = 0; i < TASKS; i++)
		{
			rows[i] = rows_to_certify(&d, ROWS, agreeing, 0, LIMIT);
			paper[i] = rows_by_paper(&d, ROWS, agreeing, 0.75, LIMIT);
			mean += rows[i] / TASKS;
			paper_mean += paper[i] / TASKS;
			within365 += rows[i] <= 365;
			within597 += rows[i] <= 597;
		}
		print_message("    %.3f  %7.0f %7.0f %9.1f %% %9.1f %%   median %.0f, mean %.0f\n",
		              truths[k], median(rows, TASKS), mean, 100.0 * within365 / TASKS,
		              100.0 * within597 / TASKS, median(paper, TASKS), paper_mean);
		if (truths[k] == 0.995)
			at995 = median(rows, TASKS);
		if (truths[k] == 1)
			at1 = rows[0];
	}
	/* A sample of fixed size takes 231 rows without a disagreement, 365 with one, 597 with 3. */
	assert_true(at1 <= 290);
	assert_true(at995 <= 1000);
}

static void
test_rows_needed(void **state)
{
	dice d = {77};
	q3_martingale m;
	double actual[500];
	int64_t expected;

	(void) state;
	q3_martingale_begin(&m, 10000, TARGET, DELTA, 0.996);
	expected = q3_martingale_rows_needed(&m);
	assert_true(fabs((double) expected - q3_betting_rows(0.996, TARGET, DELTA)) < 2);
	for (int i = 0; i < 500; i++)
		actual[i] = rows_to_certify(&d, 10000, 9960, 0.996, 9999);
	print_message("    at 0.996: %lld rows are expected, the median took %.0f\n",
	              (long long) expected, median(actual, 500));
	assert_true(median(actual, 500) > 0.5 * (double) expected);
	assert_true(median(actual, 500) < 1.5 * (double) expected);
	/* It falls while rows agree, and rises with a disagreement. */
	for (int i = 0; i < 100; i++)
		q3_martingale_observe(&m, true);
	assert_true(q3_martingale_rows_needed(&m) < expected - 100);
	expected = q3_martingale_rows_needed(&m);
	q3_martingale_observe(&m, false);
	assert_true(q3_martingale_rows_needed(&m) > expected);
}

/* ---- Nested sets ---- */

enum
{
	TABLE = 2000,
	ALLOWED = 26 /* disagreements: floor((1 - TARGET) * TABLE) */
};

typedef struct table
{
	double margins[TABLE];
	bool agrees[TABLE]; /* by rank */
	int32_t permutation[TABLE];
	int64_t labelled;
} table;

/* Disagreements at chosen ranks: where says where they lie, 0 first to 1 last. */
static void
make_table(dice *d, table *t, int disagreements, double from, double to)
{
	for (int i = 0; i < TABLE; i++)
	{
		t->margins[i] = 1 - (double) i / TABLE;
		t->agrees[i] = true;
		t->permutation[i] = i;
	}
	while (disagreements > 0)
	{
		int i = (int) (TABLE * (from + (to - from) * uniform(d)));

		disagreements -= t->agrees[i];
		t->agrees[i] = false;
	}
	shuffle(d, t->permutation, TABLE);
}

/* As its user would: walks the permutation once for each cut. */
static void
run_sequence(q3_sequence *s, table *t, double prior, int64_t budget)
{
	bool known[TABLE] = {false};
	q3_step step = Q3_STEP_AGAIN;

	q3_sequence_begin(s, t->margins, TABLE, TARGET, DELTA, prior, budget);
	t->labelled = 0;
	while (step == Q3_STEP_AGAIN && !s->ended)
	{
		step = Q3_STEP_MORE;
		for (int i = 0; i < TABLE && step == Q3_STEP_MORE; i++)
		{
			int32_t rank = t->permutation[i];

			if (q3_sequence_wants(s, rank) && !known[rank])
			{
				known[rank] = true;
				t->labelled++;
			}
			step = q3_sequence_observe(s, rank, t->agrees[rank]);
		}
	}
	assert_true(s->ended);
}

static int
disagreements_in(const table *t, const q3_cut *cut)
{
	int n = 0;

	for (int64_t i = 0; cut != NULL && i < cut->rows; i++)
		n += !t->agrees[i];
	return n;
}

static void
test_false_sequences(void **state)
{
	static const struct
	{
		int more;
		double from, to;
		const char *what;
	} kinds[] = {{1, 0, 0.1, "in the first tenth"},
	             {1, 0, 1, "anywhere"},
	             {1, 0.4, 0.5, "in the middle"},
	             {20, 0.2, 1, "beyond the first fifth, 20 more"}};
	static table t;
	dice d = {99};
	q3_sequence s;
	int64_t wrong_in_all = 0, n = 2000;

	(void) state;
	for (size_t kind = 0; kind < 4; kind++)
	{
		int64_t wrong = 0, found = 0;

		for (int64_t i = 0; i < n / 4; i++)
		{
			make_table(&d, &t, ALLOWED + kinds[kind].more, kinds[kind].from, kinds[kind].to);
			run_sequence(&s, &t, 0, 0);
			wrong += disagreements_in(&t, q3_sequence_certified(&s)) > ALLOWED;
			found += s.last >= 0;
		}
		wrong_in_all += wrong;
		print_message("    disagreements %s: %lld of %lld certified a cut, %lld wrongly\n",
		              kinds[kind].what, (long long) found, (long long) (n / 4), (long long) wrong);
		assert_true(q3_binomial_lower(wrong, n / 4, 0.99) <= DELTA);
	}
	print_rate("false certificates of nested sets", wrong_in_all, n);
	assert_true((double) wrong_in_all <= DELTA * (double) n);
}

static void
test_sequences_find(void **state)
{
	static table t;
	dice d = {5};
	q3_sequence s;
	double accepted[200], labelled[200];

	(void) state;
	for (int i = 0; i < 200; i++)
	{
		/* 4 disagreements among all margins, 60 among the thinnest tenth. */
		make_table(&d, &t, 4, 0, 0.9);
		for (int k = 0; k < 60; k++)
			t.agrees[TABLE - 1 - (int) (uniform(&d) * TABLE / 10)] = false;
		run_sequence(&s, &t, 0, 0);
		accepted[i] = s.last < 0 ? 0 : (double) s.cuts[s.last].rows / TABLE;
		labelled[i] = (double) t.labelled;
		if (s.last >= 0)
			assert_true(t.margins[s.cuts[s.last].rows - 1] == s.cuts[s.last].threshold);
	}
	print_message(
	    "    of %d rows, 10 %% of them doubtful: %.0f %% accepted, %.0f labelled (medians)\n",
	    TABLE, 100 * median(accepted, 200), median(labelled, 200));
	assert_true(median(accepted, 200) >= 0.8);
	assert_true(median(labelled, 200) <= 700);
	/* A budget ends a cut without a verdict on it; what was certified before stays. */
	run_sequence(&s, &t, 0, 10);
	assert_int_equal(s.cuts[s.current].verdict, Q3_UNCERTIFIED);
	assert_int_equal(s.cuts[s.current].drawn, 10);
	assert_int_equal(s.last, s.current - 1);
}

static void
test_cuts(void **state)
{
	static const double ties[] = {0.9, 0.8, 0.8, 0.8, 0.8, 0.3};
	double same[100];
	q3_sequence s;

	(void) state;
	q3_sequence_begin(&s, ties, 6, 0.5, DELTA, 0, 0);
	assert_int_equal(s.n_cuts, 3);
	assert_int_equal(s.cuts[0].rows, 1);
	assert_int_equal(s.cuts[1].rows, 5);
	assert_int_equal(s.cuts[2].rows, 6);
	assert_true(s.cuts[1].threshold == 0.8 && s.cuts[2].threshold == 0.3);
	/* Half of the rows may be wrong: one row needs no test. */
	assert_int_equal(s.current, 1);
	assert_int_equal(s.cuts[0].verdict, Q3_CERTIFIED);
	assert_false(s.cuts[0].tested);
	assert_ptr_equal(q3_sequence_certified(&s), &s.cuts[0]);
	assert_true(q3_sequence_wants(&s, 4));
	assert_false(q3_sequence_wants(&s, 5) || q3_sequence_wants(&s, -1));
	for (int i = 0; i < 100; i++)
		same[i] = 0.5;
	q3_sequence_begin(&s, same, 100, TARGET, DELTA, 0, 0);
	assert_int_equal(s.n_cuts, 1);
	assert_int_equal(s.cuts[0].rows, 100);
	assert_null(q3_sequence_certified(&s));
	q3_sequence_begin(&s, same, 1, TARGET, DELTA, 0, 0);
	assert_int_equal(s.n_cuts, 1);
	assert_int_equal(q3_sequence_observe(&s, 0, true), Q3_STEP_END);
	assert_int_equal(q3_sequence_certified(&s)->rows, 1);
	assert_int_equal(q3_sequence_observe(&s, 0, true), Q3_STEP_END);
	assert_false(q3_sequence_wants(&s, 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_fair_game),
	    cmocka_unit_test(test_small_populations),
	    cmocka_unit_test(test_edges),
	    cmocka_unit_test(test_false_certificates),
	    cmocka_unit_test(test_power),
	    cmocka_unit_test(test_rows_needed),
	    cmocka_unit_test(test_false_sequences),
	    cmocka_unit_test(test_sequences_find),
	    cmocka_unit_test(test_cuts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
