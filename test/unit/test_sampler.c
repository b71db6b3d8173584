/*
 * test_sampler.c: greedy and random picking, the cuts, seeds, log-probabilities, bad options.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "model/sampler.h"

static q3_sampler *
make(float temperature, float top_p, int32_t top_k, uint64_t seed, int32_t n_vocab)
{
	q3_sampling options = {temperature, top_p, top_k, seed};
	q3_error err = {0};
	q3_sampler *s = q3_sampler_create(&options, n_vocab, &err);

	if (s == NULL)
		fail_msg("%s", err.message);
	return s;
}

/* Logits that look like a model's: a few likely tokens, many unlikely ones; from a fixed stream. */
static float *
make_logits(int32_t n, unsigned seed)
{
	float *logits = malloc(n * sizeof(*logits));

	assert_non_null(logits);
	for (int32_t i = 0; i < n; i++)
	{
		float sum = 0;

		for (int k = 0; k < 8; k++)
		{
			seed = seed * 1664525u + 1013904223u;
			sum += (float) (seed >> 8) / (1 << 24) - 0.5f;
		}
		logits[i] = 3 * sum;
	}
	return logits;
}

static double
softmax(const float *logits, int32_t n, int32_t id, double temperature)
{
	double sum = 0;

	for (int32_t i = 0; i < n; i++)
		sum += exp(((double) logits[i] - logits[id]) / temperature);
	return 1 / sum;
}

static void
test_greedy(void **state)
{
	static const float ties[] = {1, 5, -2, 5, 4.99f, 9};
	q3_sampler *s = make(0, 1, 0, 7, 6);
	float logprob;

	(void) state;
	assert_int_equal(q3_sampler_pick(s, ties, 5, &logprob), 1);
	assert_true(fabs(logprob - log(softmax(ties, 5, 1, 1))) < 1e-6);
	assert_int_equal(q3_sampler_pick(s, ties, 6, NULL), 5);
	assert_int_equal(q3_sampler_pick(s, ties, 1, &logprob), 0);
	assert_true(logprob == 0);
	assert_int_equal(q3_sampler_pick(s, ties, 100, NULL), 5); /* not beyond n_vocab */
	assert_int_equal(q3_sampler_pick(s, ties, 0, NULL), -1);
	q3_sampler_free(s);
	q3_sampler_free(NULL);
}

static void
test_not_a_number(void **state)
{
	const float some[] = {NAN, 1, NAN, 2, -INFINITY};
	const float none[] = {NAN, -INFINITY, NAN, NAN, -INFINITY};
	const float huge[] = {1, INFINITY, 3, INFINITY, NAN};
	static const q3_sampling options[] = {
	    {0, 1, 0, 1}, {1, 1, 0, 1}, {1, 0.9f, 0, 1}, {1, 1, 3, 1}, {0.5f, 0.8f, 4, 1}};
	float logprob;

	(void) state;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
	{
		q3_sampler *s = q3_sampler_create(&options[i], 5, NULL);

		assert_non_null(s);
		for (int k = 0; k < 50; k++)
		{
			int32_t id = q3_sampler_pick(s, some, 5, &logprob);

			assert_true(id == 1 || id == 3);
			assert_true(fabs(logprob - (id == 3 ? -0.313262 : -1.313262)) < 1e-5);
			assert_int_equal(q3_sampler_pick(s, none, 5, &logprob), 0);
			assert_true(logprob == -INFINITY);
			id = q3_sampler_pick(s, huge, 5, &logprob);
			assert_true(id == 1 || id == 3);
			assert_true(isfinite(logprob));
		}
		q3_sampler_free(s);
	}
}

/* Pearson's test of draws from logits against the probabilities p (0: must never come). */
static void
assert_distribution(q3_sampler *s, const float *logits, const double *p, int32_t n)
{
	const int draws = 40000;
	int *seen = calloc(n, sizeof(*seen));
	double chi2 = 0;
	int freedom = -1;

	assert_non_null(seen);
	for (int i = 0; i < draws; i++)
		seen[q3_sampler_pick(s, logits, n, NULL)]++;
	for (int32_t i = 0; i < n; i++)
	{
		double expected = p[i] * draws;

		if (p[i] == 0)
		{
			assert_int_equal(seen[i], 0);
			continue;
		}
		assert_true(expected > 5);
		chi2 += (seen[i] - expected) * (seen[i] - expected) / expected;
		freedom++;
	}
	free(seen);
	/* Mean plus five standard deviations of chi-square; a biased sampler is far beyond. */
	assert_true(chi2 < freedom + 5 * sqrt(2.0 * freedom) + 5);
}

static void
test_distribution(void **state)
{
	static const float logits[] = {0.5f, -1, 2, 1.5f, 0, -0.5f, 1, 0.25f};
	const int32_t n = 8;

	(void) state;
	for (int t = 1; t <= 3; t++)
	{
		float temperature = 0.5f * (float) t;
		double p[8];
		q3_sampler *s = make(temperature, 1, 0, 42 + t, n);

		for (int32_t i = 0; i < n; i++)
			p[i] = softmax(logits, n, i, temperature);
		assert_distribution(s, logits, p, n);
		q3_sampler_free(s);
	}
}

/* Probabilities 0.1 0.4 0.2 0.25 0.05: what the cuts leave, computed by hand. */
static void
test_cuts(void **state)
{
	static const double p[5] = {0.1, 0.4, 0.2, 0.25, 0.05};
	static const struct
	{
		float top_p;
		int32_t top_k;
		double left[5]; /* not yet divided by their sum */
	} cases[] = {
	    {1, 3, {0, 0.4, 0.2, 0.25, 0}},
	    {0.84f, 0, {0, 0.4, 0.2, 0.25, 0}},
	    {0.86f, 0, {0.1, 0.4, 0.2, 0.25, 0}},
	    {0.39f, 0, {0, 0.4, 0, 0, 0}},
	    {0.41f, 0, {0, 0.4, 0, 0.25, 0}},
	    {0.001f, 0, {0, 0.4, 0, 0, 0}},
	    {0.9999f, 0, {0.1, 0.4, 0.2, 0.25, 0.05}},
	    /* top_k first: of 0.4 + 0.25 the first is 61.5 percent */
	    {0.61f, 2, {0, 0.4, 0, 0, 0}},
	    {0.62f, 2, {0, 0.4, 0, 0.25, 0}},
	    {0.5f, 5, {0, 0.4, 0, 0.25, 0}},
	    {0.5f, 99, {0, 0.4, 0, 0.25, 0}},
	    {1, 1, {0, 0.4, 0, 0, 0}},
	};
	float logits[5];

	(void) state;
	for (int i = 0; i < 5; i++)
		logits[i] = (float) log(p[i]) + 3;
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
	{
		q3_sampler *s = make(1, cases[c].top_p, cases[c].top_k, c, 5);
		double expected[5], sum = 0;

		for (int i = 0; i < 5; i++)
			sum += cases[c].left[i];
		for (int i = 0; i < 5; i++)
			expected[i] = cases[c].left[i] / sum;
		assert_distribution(s, logits, expected, 5);
		q3_sampler_free(s);
	}
}

/* The temperature acts before top_p: at 0.5 the probabilities 0.5 0.3 0.2 become 0.66 0.24 0.11. */
static void
test_temperature_before_top_p(void **state)
{
	const float logits[] = {logf(0.5f), logf(0.3f), logf(0.2f)};
	const double narrow[] = {1, 0, 0}, wide[] = {0.25 / 0.34, 0.09 / 0.34, 0};
	q3_sampler *s = make(0.5f, 0.65f, 0, 3, 3);

	(void) state;
	assert_distribution(s, logits, narrow, 3);
	q3_sampler_free(s);
	s = make(0.5f, 0.67f, 0, 3, 3);
	assert_distribution(s, logits, wide, 3);
	q3_sampler_free(s);
}

/* Of equal logits the lower ids stay. */
static void
test_ties(void **state)
{
	const float logits[] = {1, 2, 2, 2, 2, 1};
	const double two[] = {0, 0.5, 0.5, 0, 0, 0};
	q3_sampler *s = make(1, 1, 2, 5, 6);

	(void) state;
	assert_distribution(s, logits, two, 6);
	q3_sampler_free(s);
	s = make(0.001f, 0.3f, 0, 5, 6); /* only the four matter: 0.25 each */
	assert_distribution(s, logits, two, 6);
	q3_sampler_free(s);
}

static int
compare_desc(const void *a, const void *b)
{
	float x = *(const float *) a, y = *(const float *) b;

	return (x < y) - (x > y);
}

/* On a large vocabulary every pick lies inside the set that sorting gives, and its edge is reached.
 */
static void
test_large_cuts(void **state)
{
	const int32_t n = 20000;
	float *logits = make_logits(n, 99), *sorted = make_logits(n, 99);
	double total = 0, sum = 0;
	float edge_p, smallest = INFINITY;
	int32_t size = 0;
	q3_sampler *s = make(1, 0.6f, 0, 1, n);

	(void) state;
	qsort(sorted, n, sizeof(*sorted), compare_desc);
	for (int32_t i = 0; i < n; i++)
		total += exp(sorted[i]);
	while (sum < 0.6 * total)
		sum += exp(sorted[size++]);
	edge_p = sorted[size - 1];
	assert_in_range(size, 100, n - 100);
	for (int i = 0; i < 2000; i++)
	{
		int32_t id = q3_sampler_pick(s, logits, n, NULL);

		assert_true(logits[id] >= edge_p);
		smallest = logits[id] < smallest ? logits[id] : smallest;
	}
	assert_true(smallest < edge_p + 0.1f);
	q3_sampler_free(s);
	s = make(2, 1, 40, 1, n);
	for (int i = 0; i < 2000; i++)
		assert_true(logits[q3_sampler_pick(s, logits, n, NULL)] >= sorted[39]);
	q3_sampler_free(s);
	free(logits);
	free(sorted);
}

static void
test_top_k_1_is_greedy(void **state)
{
	const int32_t n = 3000;
	q3_sampler *greedy = make(0, 0.5f, 50, 1, n), *one = make(5, 0.9f, 1, 2, n);

	(void) state;
	for (unsigned seed = 0; seed < 40; seed++)
	{
		float *logits = make_logits(n, seed);
		float a, b;

		assert_int_equal(q3_sampler_pick(greedy, logits, n, &a),
		                 q3_sampler_pick(one, logits, n, &b));
		assert_true(a == b);
		free(logits);
	}
	q3_sampler_free(greedy);
	q3_sampler_free(one);
}

static void
test_seeds(void **state)
{
	const int32_t n = 500;
	static const q3_sampling cuts[] = {{1, 1, 0, 0}, {0.7f, 0.8f, 20, 0}, {1, 0.9f, 0, 0}};
	float *logits = make_logits(n, 1);

	(void) state;
	for (size_t c = 0; c < 3; c++)
	{
		q3_sampler *a = make(cuts[c].temperature, cuts[c].top_p, cuts[c].top_k, 11, n);
		q3_sampler *b = make(cuts[c].temperature, cuts[c].top_p, cuts[c].top_k, 11, n);
		q3_sampler *other = make(cuts[c].temperature, cuts[c].top_p, cuts[c].top_k, 12, n);
		int different = 0;

		for (int i = 0; i < 200; i++)
		{
			int32_t id = q3_sampler_pick(a, logits, n, NULL);

			assert_int_equal(id, q3_sampler_pick(b, logits, n, NULL));
			different += id != q3_sampler_pick(other, logits, n, NULL);
		}
		assert_true(different > 50);
		q3_sampler_free(a);
		q3_sampler_free(b);
		q3_sampler_free(other);
	}
	free(logits);
}

static void
test_logprob(void **state)
{
	const int32_t n = 5000, n_valid = 4900;
	float *logits = make_logits(n, 4);
	float *before = make_logits(n, 4);
	q3_sampler *s = make(0.6f, 0.95f, 20, 9, n);

	(void) state;
	logits[n_valid] = before[n_valid] = 100; /* padding: neither picked nor counted */
	for (int i = 0; i < 50; i++)
	{
		float logprob;
		int32_t id = q3_sampler_pick(s, logits, n_valid, &logprob);

		assert_true(id < n_valid);
		assert_true(fabs(logprob - log(softmax(logits, n_valid, id, 1))) < 1e-6);
	}
	assert_memory_equal(logits, before, n * sizeof(*logits));
	q3_sampler_free(s);
	free(logits);
	free(before);
}

static void
assert_invalid(q3_sampling options, int32_t n_vocab, const char *name)
{
	q3_error err = {0};

	assert_null(q3_sampler_create(&options, n_vocab, &err));
	assert_int_equal(err.code, Q3_ERR_INVALID);
	assert_non_null(strstr(err.message, name));
}

static void
test_bad_options(void **state)
{
	(void) state;
	assert_invalid((q3_sampling){-0.1f, 1, 0, 0}, 10, "temperature");
	assert_invalid((q3_sampling){NAN, 1, 0, 0}, 10, "temperature");
	assert_invalid((q3_sampling){INFINITY, 1, 0, 0}, 10, "temperature");
	assert_invalid((q3_sampling){1, 0, 0, 0}, 10, "top_p");
	assert_invalid((q3_sampling){1, 1.01f, 0, 0}, 10, "top_p");
	assert_invalid((q3_sampling){1, NAN, 0, 0}, 10, "top_p");
	assert_invalid((q3_sampling){1, 1, -1, 0}, 10, "top_k");
	assert_invalid((q3_sampling){1, 1, 0, 0}, 0, "vocabulary");
}

/* Extreme temperatures neither fail nor leave the range. */
static void
test_extreme_temperatures(void **state)
{
	static const float logits[] = {1, 3, 2, -80, 2.9999f};
	q3_sampler *cold = make(1e-30f, 0.9f, 0, 1, 5), *hot = make(1e30f, 1, 0, 1, 5);
	const double even[] = {0.2, 0.2, 0.2, 0.2, 0.2};

	(void) state;
	for (int i = 0; i < 100; i++)
		assert_int_equal(q3_sampler_pick(cold, logits, 5, NULL), 1);
	assert_distribution(hot, logits, even, 5);
	q3_sampler_free(cold);
	q3_sampler_free(hot);
}

/* ---------------------------------------------------------------------------------------------
 * Among allowed tokens
 * --------------------------------------------------------------------------------------------- */

static void
allow(uint32_t *allowed, int32_t id)
{
	allowed[id / 32] |= (uint32_t) 1 << (id % 32);
}

static void
test_allowed_greedy(void **state)
{
	/* 40 tokens, so that the second word of the mask is only partly used. */
	float logits[40] = {[3] = 9, [5] = 7, [31] = 7, [32] = 8, [39] = 8};
	float copy[40];
	uint32_t allowed[2] = {0, 0};
	float logprob = 1;
	q3_sampler *s = make(0, 1, 0, 7, 40);

	(void) state;
	memcpy(copy, logits, sizeof(copy));
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 40, allowed, &logprob), -1);
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 0, allowed, NULL), -1);
	allow(allowed, 31);
	allow(allowed, 5);
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 40, allowed, &logprob), 5);
	assert_true(fabs(logprob - log(softmax(copy, 40, 5, 1))) < 1e-6); /* among all tokens */
	allow(allowed, 39);
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 40, allowed, NULL), 39);
	allow(allowed, 32);
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 40, allowed, NULL), 32);
	/* What is allowed of the padding is not picked. */
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 32, allowed, NULL), 5);
	allowed[0] = 0;
	assert_int_equal(q3_sampler_pick_allowed(s, logits, 32, allowed, NULL), -1);
	q3_sampler_free(s);
}

/* Draws are those of the allowed tokens' own softmax, whatever the others' logits are. */
static void
test_allowed_distribution(void **state)
{
	const float logits[70] = {[0] = 30, [10] = 1, [33] = 2, [64] = 0.5f, [69] = 3, [40] = INFINITY};
	const int32_t ids[] = {10, 33, 64, 69};
	const int n = sizeof(ids) / sizeof(ids[0]), draws = 20000;
	uint32_t allowed[3] = {0, 0, 0};
	q3_sampler *s = make(1, 1, 0, 5, 70);
	double sum = 0, chi2 = 0;
	int seen[70] = {0};

	(void) state;
	for (int i = 0; i < n; i++)
	{
		allow(allowed, ids[i]);
		sum += exp(logits[ids[i]]);
	}
	for (int i = 0; i < draws; i++)
	{
		float row[70];
		int32_t id;

		memcpy(row, logits, sizeof(row));
		id = q3_sampler_pick_allowed(s, row, 70, allowed, NULL);
		assert_in_range(id, 0, 69);
		seen[id]++;
	}
	for (int i = 0; i < n; i++)
	{
		double expected = draws * exp(logits[ids[i]]) / sum;

		chi2 += (seen[ids[i]] - expected) * (seen[ids[i]] - expected) / expected;
		seen[ids[i]] = 0;
	}
	for (int i = 0; i < 70; i++)
		assert_int_equal(seen[i], 0);
	assert_true(chi2 < 21.1); /* three degrees of freedom: one in 10,000 */
	q3_sampler_free(s);
}

/* The cuts are made among the allowed tokens, also when they are fewer than top_k, or have no
 * probability at all. */
static void
test_allowed_cuts(void **state)
{
	enum
	{
		N = 1000
	};
	static const q3_sampling options[] = {{1, 1, 2, 1},    {1, 0.3f, 0, 1}, {0.7f, 0.9f, 5, 1},
	                                      {3, 1, 0, 1},    {1, 1, 1, 1},    {1, 0.99f, 500, 1},
	                                      {0.01f, 1, 0, 1}};
	float *logits = make_logits(N, 3), row[N];
	uint32_t few[(N + 31) / 32] = {0}, dead[(N + 31) / 32] = {0};

	(void) state;
	logits[100] = logits[200] = logits[300] = -20; /* far below all others */
	logits[200] = -15;
	logits[400] = NAN;
	logits[500] = -INFINITY;
	allow(few, 100);
	allow(few, 200);
	allow(few, 300);
	allow(dead, 400);
	allow(dead, 500);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
	{
		q3_sampler *s = q3_sampler_create(&options[i], N, NULL);
		int n_best = 0;

		assert_non_null(s);
		for (int k = 0; k < 200; k++)
		{
			float logprob;
			int32_t id;

			memcpy(row, logits, sizeof(row));
			id = q3_sampler_pick_allowed(s, row, N, few, &logprob);
			assert_true(id == 100 || id == 200 || id == 300);
			assert_true(logprob < -10 && isfinite(logprob));
			assert_true(options[i].top_k != 2 || id != 300); /* of equal ones the lower id */
			n_best += id == 200;
			memcpy(row, logits, sizeof(row));
			id = q3_sampler_pick_allowed(s, row, N, dead, &logprob);
			assert_true(id == 400 || id == 500);
			assert_true(logprob == -INFINITY);
		}
		if (options[i].top_k == 1 || options[i].top_p < 0.5f)
			assert_int_equal(n_best, 200);
		if (options[i].temperature == 3) /* exp(5 / 3) : 1 : 1, that is 0.73 of them */
			assert_in_range(n_best, 120, 170);
		q3_sampler_free(s);
	}
	free(logits);
}

/* The same seed picks the same tokens, and as many random numbers are used as without a mask. */
static void
test_allowed_seeds(void **state)
{
	enum
	{
		N = 300
	};
	float *logits = make_logits(N, 9), row[N];
	uint32_t all[(N + 31) / 32];
	q3_sampler *a = make(1, 0.95f, 40, 11, N), *b = make(1, 0.95f, 40, 11, N);

	(void) state;
	memset(all, 0xff, sizeof(all));
	for (int k = 0; k < 200; k++)
	{
		float of_a, of_b;

		memcpy(row, logits, sizeof(row));
		assert_int_equal(q3_sampler_pick_allowed(a, row, N, all, &of_a),
		                 q3_sampler_pick(b, logits, N, &of_b));
		assert_true(of_a == of_b);
	}
	q3_sampler_free(a);
	q3_sampler_free(b);
	free(logits);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_greedy),
	    cmocka_unit_test(test_not_a_number),
	    cmocka_unit_test(test_distribution),
	    cmocka_unit_test(test_cuts),
	    cmocka_unit_test(test_temperature_before_top_p),
	    cmocka_unit_test(test_ties),
	    cmocka_unit_test(test_large_cuts),
	    cmocka_unit_test(test_top_k_1_is_greedy),
	    cmocka_unit_test(test_seeds),
	    cmocka_unit_test(test_logprob),
	    cmocka_unit_test(test_bad_options),
	    cmocka_unit_test(test_extreme_temperatures),
	    cmocka_unit_test(test_allowed_greedy),
	    cmocka_unit_test(test_allowed_distribution),
	    cmocka_unit_test(test_allowed_cuts),
	    cmocka_unit_test(test_allowed_seeds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
