/*
 * test_policy_similarity.c: words, sketches and profiles; how well made-up tasks are told apart,
 * and how long 1,000 of them take (printed, not checked).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "policy/similarity.h"
#include "policy_random.h"

static q3_sketch
sketch(const char *text)
{
	q3_sketch s;

	q3_sketch_make(&s, text, strlen(text), NULL);
	return s;
}

/* As the one input of a task. */
static double
likeness(const char *a, const char *b)
{
	q3_sketch sa = sketch(a), sb = sketch(b);
	q3_profile_sums sums;
	q3_profile p;

	q3_profile_begin(&sums);
	q3_profile_learn(&sums, &sb);
	q3_profile_finish(&sums, &p);
	return q3_similarity(&sa, &p);
}

static void
assert_words(const char *text, int n)
{
	q3_sketch s = sketch(text);

	if (s.n_terms != n)
		fail_msg("\"%s\" has %d words, not %d", text, (int) s.n_terms, n);
}

static void
test_words(void **state)
{
	(void) state;
	assert_words("", 0);
	assert_words(" ,.!? \n\t", 0);
	assert_words("one two, three. ONE Two", 3);
	assert_words("42 0815 7", 1); /* numbers are all alike */
	assert_words("a1b2", 3);
	assert_words("stra\xc3\x9f"
	             "e Stra\xc3\x9f"
	             "e \xc3\x9c"
	             "ber",
	             2);
	assert_words("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe6\x97\xa5", 3); /* three characters */
	assert_words("ok \xf0\x9f\x98\x80 ok", 2);
	/* No UTF-8 at all. */
	assert_words("\xff\xfe\x80 a\xe2", 4);
	assert_words("\xe2", 1);
	assert_int_equal(sketch("x").length_bucket, 0);
	assert_int_equal(sketch("xyzw").length_bucket, 2);
}

static void
test_word_places(void **state)
{
	static const char text[] = "No. 12:\xe6\x97\xa5 no";
	static const struct
	{
		size_t start, len;
		bool digits;
	} expected[] = {{0, 2, false}, {4, 2, true}, {7, 3, false}, {11, 2, false}};
	size_t at = 0;
	uint32_t first = 0;
	q3_word word;

	(void) state;
	for (int i = 0; i < 4; i++)
	{
		assert_true(q3_word_next(text, sizeof(text) - 1, &at, &word));
		assert_int_equal(word.start, expected[i].start);
		assert_int_equal(word.len, expected[i].len);
		assert_int_equal(word.digits, expected[i].digits);
		if (i == 0)
			first = word.hash;
	}
	assert_int_equal(word.hash, first);
	assert_false(q3_word_next(text, sizeof(text) - 1, &at, &word));
}

static void
test_counts(void **state)
{
	q3_terms *terms = malloc(sizeof(*terms));
	q3_sketch s = sketch("the parcel is here, the parcel");
	size_t at = 0;
	q3_word word;

	(void) state;
	assert_non_null(terms);
	q3_terms_begin(terms);
	assert_true(q3_word_next("parcel", 6, &at, &word));
	assert_int_equal(q3_terms_count(terms, word.hash), 0);
	q3_terms_learn(terms, &s);
	q3_terms_learn(terms, &s);
	assert_int_equal(terms->inputs, 2);
	assert_int_equal(q3_terms_count(terms, word.hash), 2); /* inputs, not times */
	free(terms);
}

static void
test_lengths(void **state)
{
	size_t size = 1 << 20;
	char *text = malloc(size);
	q3_sketch s;
	double squares = 0;

	(void) state;
	assert_non_null(text);
	/* A megabyte of different words: only the first are read, only the heaviest kept. */
	for (size_t i = 0; i < size; i++)
		text[i] = i % 5 == 4 ? ' ' : (char) ('a' + i / 5 / (i % 5 * 9 + 1) % 26);
	q3_sketch_make(&s, text, size, NULL);
	assert_int_equal(s.n_terms, Q3_SKETCH_TERMS);
	assert_int_equal(s.length_bucket, Q3_LENGTH_BUCKETS - 1);
	for (int i = 0; i < s.n_terms; i++)
		squares += (double) s.terms[i].weight * s.terms[i].weight;
	assert_true(fabs(squares - 1) < 1e-5);
	/* Nothing beyond the end is read: the bytes end within a character. */
	memcpy(text, "a \xe6\x97\xa5", 5);
	text = realloc(text, 4);
	assert_non_null(text);
	q3_sketch_make(&s, text, 4, NULL);
	assert_int_equal(s.n_terms, 2);
	free(text);
}

static void
test_similarity(void **state)
{
	double same = likeness("my invoice is wrong again", "my invoice is wrong again");

	(void) state;
	assert_true(same > 0.99 && same <= 1);
	assert_true(likeness("my invoice is wrong", "my invoice is late") >
	            likeness("my invoice is wrong", "the server does not answer"));
	assert_true(likeness("", "something") <= 0.1);
	assert_true(likeness("something", "") <= 0.1);
	assert_true(likeness("", "") >= 0 && likeness("", "") <= 0.1 + 1e-6);
}

/* What q3_similarity() computes from a sketch and a profile, the long way. */
static double
cosine(const q3_sketch *s, const q3_profile *p)
{
	double v[Q3_PROFILE_DIMENSIONS] = {0}, dot = 0, pp = 0;

	for (int i = 0; i < s->n_terms; i++)
		v[s->terms[i].hash % Q3_PROFILE_DIMENSIONS] +=
		    (s->terms[i].hash >> 31 ? -1 : 1) * (double) s->terms[i].weight;
	for (int i = 0; i < Q3_PROFILE_DIMENSIONS; i++)
	{
		dot += v[i] * p->direction[i];
		pp += (double) p->direction[i] * p->direction[i];
	}
	return pp > 0 ? fmin(1, fmax(0, dot / sqrt(pp))) : 0;
}

/* ---- Tasks with vocabularies of their own ---- */

enum
{
	TASKS = 1000
};

/* A third of the words belongs to the task, the others to all tasks. */
static void
make_input(dice *d, int task, char *text, size_t size)
{
	size_t at = 0;

	text[0] = '\0';
	for (int i = 0; i < 30 && at + 16 < size; i++)
	{
		int word = (int) (uniform(d) * uniform(d) * (i % 3 == 0 ? 40 : 500));

		if (i % 3 == 0)
			at += (size_t) snprintf(text + at, size - at, "t%cx%c%cq ", 'a' + task % 26,
			                        'a' + task / 26, 'a' + word % 26);
		else
			at +=
			    (size_t) snprintf(text + at, size - at, "w%c%c ", 'a' + word % 26, 'a' + word / 26);
	}
}

typedef struct repository
{
	q3_terms terms;
	q3_profile_sums sums;
	q3_profile profiles[TASKS];
} repository;

static repository *
make_repository(dice *d)
{
	repository *r = malloc(sizeof(*r));
	char text[400];
	q3_sketch s;

	assert_non_null(r);
	q3_terms_begin(&r->terms);
	for (int i = 0; i < 2000; i++)
	{
		make_input(d, i % TASKS, text, sizeof(text));
		q3_sketch_make(&s, text, strlen(text), NULL);
		q3_terms_learn(&r->terms, &s);
	}
	for (int task = 0; task < TASKS; task++)
	{
		q3_profile_begin(&r->sums);
		for (int i = 0; i < 20; i++)
		{
			make_input(d, task, text, sizeof(text));
			q3_sketch_make(&s, text, strlen(text), &r->terms);
			q3_profile_learn(&r->sums, &s);
		}
		q3_profile_finish(&r->sums, &r->profiles[task]);
	}
	return r;
}

static double
microseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static void
test_matching(void **state)
{
	dice d = {404};
	repository *r = make_repository(&d);
	char text[400];
	double sketching = 1e9, matching = 1e9;
	int first = 0, among = 0;

	(void) state;
	for (int i = 0; i < 300; i++)
	{
		int task = (int) (uniform(&d) * TASKS);
		size_t best[3], n;
		double value[3], t0, t1, t2;
		q3_sketch s;

		make_input(&d, task, text, sizeof(text));
		t0 = microseconds();
		q3_sketch_make(&s, text, strlen(text), &r->terms);
		t1 = microseconds();
		n = q3_similarity_best(&s, r->profiles, TASKS, best, value, 3);
		t2 = microseconds();
		sketching = fmin(sketching, t1 - t0);
		matching = fmin(matching, t2 - t1);
		assert_int_equal(n, 3);
		assert_true(value[0] >= value[1] && value[1] >= value[2] && value[0] <= 1);
		assert_true(fabs(value[0] - 0.9 * cosine(&s, &r->profiles[best[0]]) -
		                 0.1 * r->profiles[best[0]].lengths[s.length_bucket] / 255) < 1e-5);
		for (int k = 0; k < TASKS; k += 37)
			assert_true(q3_similarity(&s, &r->profiles[k]) <= value[0] + 1e-12);
		first += best[0] == (size_t) task;
		for (size_t k = 0; k < n; k++)
			among += best[k] == (size_t) task;
	}
	print_message(
	    "    of 1,000 tasks the right one was first for %.1f %%, among the first three for "
	    "%.1f %%; %.0f us to compare, %.0f us to make a sketch\n",
	    first / 3.0, among / 3.0, matching, sketching);
	assert_true(first >= 240);
	assert_int_equal(q3_similarity_best(&(q3_sketch){0}, r->profiles, 0, NULL, NULL, 3), 0);
	free(r);
}

static void
test_rarity(void **state)
{
	q3_terms *terms = malloc(sizeof(*terms));
	q3_sketch s, common, rare, mixed;

	(void) state;
	assert_non_null(terms);
	q3_terms_begin(terms);
	s = sketch("the parcel has not arrived");
	for (int i = 0; i < 99; i++)
		q3_terms_learn(terms, &s);
	q3_sketch_make(&rare, "quantum chromodynamics", 22, terms);
	assert_true(rare.rarity == 0); /* too little is known for anything to be rare */
	for (int i = 0; i < 901; i++)
		q3_terms_learn(terms, &s);
	q3_sketch_make(&common, "has the parcel arrived", 22, terms);
	q3_sketch_make(&rare, "quantum chromodynamics", 22, terms);
	q3_sketch_make(&mixed, "the quantum parcel", 18, terms);
	assert_true(common.rarity < 1e-9);
	assert_true(rare.rarity > 0.999 && rare.rarity <= 1);
	assert_true(fabs(mixed.rarity - 1.0 / 3) < 0.01);
	/* The rare word weighs most. */
	assert_int_equal(mixed.n_terms, 3);
	assert_true(mixed.terms[0].weight > 3 * mixed.terms[1].weight);
	free(terms);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_words),      cmocka_unit_test(test_word_places),
	    cmocka_unit_test(test_counts),     cmocka_unit_test(test_lengths),
	    cmocka_unit_test(test_similarity), cmocka_unit_test(test_matching),
	    cmocka_unit_test(test_rarity),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
