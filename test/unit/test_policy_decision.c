/*
 * test_policy_decision.c: decisions case by case, and the choice among arms against the best fixed
 * one in hindsight. Prints the figures that it checks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy/arms.h"
#include "policy/decision.h"
#include "policy_random.h"

/* A certified task that escalates a few rows. */
static q3_decision_input
certified_task(void)
{
	return (q3_decision_input){.task = true,
	                           .standing = Q3_STANDING_CERTIFIED,
	                           .threshold = 0.3,
	                           .certified_threshold = 0.2,
	                           .efficient_cost = 4,
	                           .precise_cost = 10,
	                           .escalated = 0.05,
	                           .max_length = 200,
	                           .max_rarity = 0.6};
}

static void
check(const q3_decision_input *in, q3_tier tier, q3_tier escalate_to, double threshold,
      q3_reason reason)
{
	q3_decision d = q3_decide(in);

	if (d.reason != (int32_t) reason)
		fail_msg("\"%s\", not \"%s\"", q3_reason_text((q3_reason) d.reason),
		         q3_reason_text(reason));
	assert_int_equal(d.tier, tier);
	assert_int_equal(d.escalate_to, escalate_to);
	assert_true(d.threshold == threshold);
}

static void
test_certified(void **state)
{
	q3_decision_input in = certified_task();

	(void) state;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0.3, Q3_REASON_CASCADE);
	in.threshold = in.certified_threshold = 0;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0, Q3_REASON_CERTIFIED);
	/* 0.4 + 0.5: not worth it any more. */
	in.escalated = 0.499;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0, Q3_REASON_CERTIFIED);
	in.escalated = 0.501;
	check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, Q3_REASON_UNPROFITABLE);
	in.precise_cost = 0;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0, Q3_REASON_CERTIFIED);
}

static void
test_policies(void **state)
{
	q3_decision_input in = certified_task();

	(void) state;
	in.policy = Q3_POLICY_EFFICIENT;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_EFFICIENT, 0, Q3_REASON_POLICY);
	in.policy = Q3_POLICY_PRECISE;
	in.pressure = Q3_PRESSURE_DEGRADED;
	in.allow_degrade = true;
	check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, Q3_REASON_POLICY);
	in.thinking = Q3_THINKING_ON;
	check(&in, Q3_TIER_THINKING, Q3_TIER_THINKING, 0, Q3_REASON_POLICY);
}

static void
test_without_certificate(void **state)
{
	static const struct
	{
		q3_standing standing;
		q3_reason reason;
	} cases[] = {{Q3_STANDING_NONE, Q3_REASON_NOT_LEARNED},
	             {Q3_STANDING_UNCERTIFIED, Q3_REASON_UNCERTIFIED},
	             {Q3_STANDING_REFUTED, Q3_REASON_REFUTED},
	             {Q3_STANDING_DRIFTED, Q3_REASON_DRIFTED},
	             {Q3_STANDING_VOID, Q3_REASON_VOID}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		q3_decision_input in = certified_task();

		in.standing = cases[i].standing;
		/* What similar tasks suggest is no certificate. */
		in.suggested = true;
		in.suggestion = Q3_TIER_EFFICIENT;
		check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, cases[i].reason);
		in.pressure = Q3_PRESSURE_DEGRADED;
		check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, cases[i].reason);
		in.pressure = Q3_PRESSURE_LEAN;
		in.allow_degrade = true;
		check(&in, Q3_TIER_EFFICIENT, Q3_TIER_EFFICIENT, 0, Q3_REASON_DEGRADED);
		in.pressure = Q3_PRESSURE_NONE;
		check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, cases[i].reason);
	}
}

static void
test_under_pressure(void **state)
{
	q3_decision_input in = certified_task();

	(void) state;
	in.escalated = 0.9; /* even where the cascade costs more than precise: latency counts now */
	in.pressure = Q3_PRESSURE_LEAN;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0.2, Q3_REASON_PRESSURE);
	in.pressure = Q3_PRESSURE_DEGRADED;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0.2, Q3_REASON_PRESSURE);
	in.allow_degrade = true;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_EFFICIENT, 0, Q3_REASON_DEGRADED);
}

static void
test_unknown_input(void **state)
{
	q3_decision_input in = certified_task();

	(void) state;
	in.task = false;
	in.length = 200;
	in.rarity = 0.6;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_EFFICIENT, 0, Q3_REASON_SHORT);
	in.rarity = 0.61;
	check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, Q3_REASON_RARE);
	in.length = 201;
	check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, Q3_REASON_LONG);
	in.suggested = true;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_EFFICIENT, 0, Q3_REASON_SIMILAR);
	in.suggestion = Q3_TIER_THINKING; /* only its own task may think */
	check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, Q3_REASON_SIMILAR);
}

static void
test_thinking(void **state)
{
	q3_decision_input in = certified_task();

	(void) state;
	in.thinking = Q3_THINKING_LAST;
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_PRECISE, 0.3, Q3_REASON_CASCADE);
	in.record = (q3_thinking_record){.rows = 100, .gained = 12, .lost = 4};
	assert_false(q3_thinking_helps(&in.record)); /* 8 = 2 * sqrt(16) */
	in.record.gained = 13;
	assert_true(q3_thinking_helps(&in.record));
	check(&in, Q3_TIER_EFFICIENT, Q3_TIER_THINKING, 0.3, Q3_REASON_CASCADE);
	in.standing = Q3_STANDING_DRIFTED;
	check(&in, Q3_TIER_THINKING, Q3_TIER_THINKING, 0, Q3_REASON_DRIFTED);
	in.thinking = Q3_THINKING_OFF;
	check(&in, Q3_TIER_PRECISE, Q3_TIER_PRECISE, 0, Q3_REASON_DRIFTED);
	in.record = (q3_thinking_record){.rows = 29, .gained = 29};
	assert_false(q3_thinking_helps(&in.record));
	in.record = (q3_thinking_record){.rows = 100, .gained = 4, .lost = 40};
	assert_false(q3_thinking_helps(&in.record));
}

static void
test_review(void **state)
{
	q3_decision_input in = certified_task();
	q3_decision d = q3_decide(&in);
	q3_review_result r = q3_review(&d, 0.3, 0.01, 0.5);

	(void) state;
	assert_true(r.tier == Q3_TIER_EFFICIENT && r.reason == Q3_REASON_WIDE_MARGIN && !r.alarm);
	r = q3_review(&d, 0.2999, 0.01, 0.5);
	assert_true(r.tier == Q3_TIER_PRECISE && r.reason == Q3_REASON_THIN_MARGIN && !r.alarm);
	r = q3_review(&d, NAN, 0, 0.5);
	assert_true(r.tier == Q3_TIER_PRECISE && r.reason == Q3_REASON_THIN_MARGIN);
	r = q3_review(&d, 0.9, 0.51, 0.5);
	assert_true(r.tier == Q3_TIER_PRECISE && r.reason == Q3_REASON_OFF_LABEL && r.alarm);
	in.policy = Q3_POLICY_EFFICIENT;
	d = q3_decide(&in);
	r = q3_review(&d, 0, 0.51, 0.5);
	assert_true(r.tier == Q3_TIER_EFFICIENT && r.reason == Q3_REASON_POLICY && r.alarm);
}

static void
test_words(void **state)
{
	q3_decision_input in = certified_task();
	q3_decision d = q3_decide(&in);
	char text[300], small[10];

	(void) state;
	for (int r = 0; r <= Q3_REASON_OFF_LABEL; r++)
		assert_true(strlen(q3_reason_text((q3_reason) r)) > 3);
	assert_string_equal(q3_reason_text((q3_reason) 99), "unknown");
	q3_decision_describe(&in, &d, text, sizeof(text));
	assert_string_equal(text, "efficient, because agreement is certified, thin margins escalate; "
	                          "rows with a margin below 0.300 go to precise");
	q3_decision_describe(&in, &d, small, sizeof(small));
	assert_string_equal(small, "efficient");
	in.escalated = 0.6;
	d = q3_decide(&in);
	q3_decision_describe(&in, &d, text, sizeof(text));
	assert_string_equal(text, "precise, because a cascade would not pay (it would cost 1.00 of "
	                          "precise)");
	in.task = false;
	in.length = 500;
	d = q3_decide(&in);
	q3_decision_describe(&in, &d, text, sizeof(text));
	assert_string_equal(text, "precise, because long input (500, more than 200)");
}

/* ---- Arms ---- */

enum
{
	ARMS = 5, /* efficient, three thresholds, precise */
	TASKS = 200,
	LEARNED = 500,
	ROWS = 8000
};

#define PRICE 10.0

/* One row, answered in every way. */
static void
draw_row(dice *d, double proxy, double base, double height, double scale, double *cost,
         int32_t *agreed)
{
	static const double thresholds[ARMS] = {0, 0.1, 0.25, 0.5, 2};
	double margin = pow(uniform(d), 0.6);
	bool same = !chance(d, base + height * exp(-margin / scale));

	for (int i = 0; i < ARMS; i++)
	{
		bool escalates = margin < thresholds[i];

		cost[i] = i == ARMS - 1 ? 1 : proxy + escalates;
		agreed[i] = same || escalates;
	}
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Loss after learning over the least loss of any arm on the same rows. */
static double
regret_of(dice *d)
{
	double proxy = 0.25 + 0.5 * uniform(d), base = 0.01 * uniform(d), height = 0.5 * uniform(d);
	double scale = 0.02 + 0.18 * uniform(d), own = 0, fixed[ARMS] = {0}, best = INFINITY;
	q3_arms arms;

	q3_arms_begin(&arms, ARMS, ARMS - 1, PRICE, 30);
	for (int i = 0; i < LEARNED + ROWS; i++)
	{
		double cost[ARMS];
		int32_t agreed[ARMS], arm = q3_arms_choose(&arms, (1u << ARMS) - 1);

		draw_row(d, proxy, base, height, scale, cost, agreed);
		/* Then one row in a hundred is a shadow row. */
		if (i < LEARNED || i % 100 == 0)
			q3_arms_observe(&arms, cost, agreed);
		if (i < LEARNED)
			continue;
		own += cost[arm] + (agreed[arm] ? 0 : PRICE);
		for (int k = 0; k < ARMS; k++)
			fixed[k] += cost[k] + (agreed[k] ? 0 : PRICE);
	}
	for (int k = 0; k < ARMS; k++)
		best = fmin(best, fixed[k]);
	return own / best - 1;
}

static void
test_hindsight(void **state)
{
	dice d = {1001};
	double regret[TASKS], mean = 0;
	int within = 0;

	(void) state;
	for (int i = 0; i < TASKS; i++)
	{
		regret[i] = regret_of(&d);
		mean += regret[i] / TASKS;
		within += regret[i] <= 0.03;
	}
	qsort(regret, TASKS, sizeof(regret[0]), by_value);
	print_message(
	    "    cost at equal agreement after %d rows, above the best fixed arm's: mean %.2f %%, "
	    "median %.2f %%, 95 %%: %.2f %%, worst %.2f %%; %.1f %% of %d tasks within 3 %%\n",
	    LEARNED, 100 * mean, 100 * regret[TASKS / 2], 100 * regret[TASKS * 95 / 100],
	    100 * regret[TASKS - 1], 100.0 * within / TASKS, TASKS);
	assert_true(mean <= 0.03);
	assert_true(within >= TASKS * 9 / 10);
}

static void
test_arms(void **state)
{
	static const double cost[] = {0.4, 1};
	static const int32_t both[] = {1, 1}, second[] = {0, 1};
	q3_arms a;

	(void) state;
	q3_arms_begin(&a, 2, 1, PRICE, 30);
	for (int i = 0; i < 29; i++)
		q3_arms_observe(&a, cost, both);
	assert_int_equal(q3_arms_choose(&a, 3), 1);
	q3_arms_observe(&a, cost, both);
	assert_int_equal(q3_arms_choose(&a, 3), 0);
	assert_int_equal(q3_arms_choose(&a, 2), 1);
	assert_int_equal(q3_arms_choose(&a, 0), 1);
	assert_int_equal(q3_arms_choose(&a, 3), 0);
	assert_true(fabs(q3_arms_mean_loss(&a, 0) - 0.4) < 1e-12);
	/* A few disagreements cost more than they save. */
	for (int i = 0; i < 10; i++)
		q3_arms_observe(&a, cost, second);
	assert_int_equal(q3_arms_choose(&a, 3), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_certified),
	    cmocka_unit_test(test_policies),
	    cmocka_unit_test(test_without_certificate),
	    cmocka_unit_test(test_under_pressure),
	    cmocka_unit_test(test_unknown_input),
	    cmocka_unit_test(test_thinking),
	    cmocka_unit_test(test_review),
	    cmocka_unit_test(test_words),
	    cmocka_unit_test(test_arms),
	    cmocka_unit_test(test_hindsight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
