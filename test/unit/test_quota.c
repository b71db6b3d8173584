/*
 * test_quota.c: the tokens that a role may use in a minute.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/quota.h"

#define SECOND UINT64_C(1000000000)

static uint64_t
at(uint64_t seconds)
{
	return (1000 + seconds) * SECOND + 999;
}

static q3_claim
claim(uint32_t role, int64_t quota, int32_t prompt, int32_t longest)
{
	return (q3_claim){.role = role, .quota = quota, .prompt = prompt, .longest = longest};
}

static void
expect(q3_quota *q, q3_claim *c, uint64_t now, q3_verdict verdict)
{
	q3_error err = {0};

	assert_int_equal(q3_quota_judge(q, c, now, &err), verdict);
	assert_int_equal(err.code, verdict == Q3_REFUSED ? Q3_ERR_LIMIT : Q3_OK);
}

/* What fits is granted up to the last token; the rest is refused until a minute is over. */
static void
test_minute(void **state)
{
	q3_quota *q = q3_quota_create();
	q3_claim a = claim(1, 100, 30, 40), b = claim(1, 100, 30, 1), c = claim(1, 100, 30, 1);
	q3_claim other = claim(2, 100, 60, 40);

	(void) state;
	expect(q, &a, at(0), Q3_GRANTED);
	q3_quota_end(q, &a, 40, at(10)); /* 30 at 0, 40 at 10 */
	expect(q, &b, at(10), Q3_REFUSED);
	expect(q, &other, at(10), Q3_GRANTED); /* every role for itself */
	b = claim(1, 100, 29, 1);
	expect(q, &b, at(60), Q3_GRANTED); /* 70 + 30: just so */
	q3_quota_end(q, &b, 0, at(60));    /* 30 at 0, 40 at 10, 29 at 60 */
	expect(q, &c, at(60), Q3_REFUSED); /* within 60 seconds of the first */
	expect(q, &c, at(61), Q3_GRANTED); /* 69 + 31 */
	q3_quota_end(q, &c, 1, at(61));
	q3_quota_end(q, &other, 40, at(70));
	q3_quota_free(q);
}

/* The error says what was used, what is allowed, and how long to wait; waiting that long is enough.
 */
static void
test_refusal_tells_how_long(void **state)
{
	q3_quota *q = q3_quota_create();
	q3_claim a = claim(1, 100, 50, 10), b = claim(1, 100, 20, 10), c = claim(1, 100, 60, 41);
	q3_error err = {0};
	int seconds = 0;

	(void) state;
	expect(q, &a, at(0), Q3_GRANTED);
	q3_quota_end(q, &a, 10, at(3));
	a = claim(1, 100, 30, 0);
	expect(q, &a, at(7), Q3_GRANTED);
	q3_quota_end(q, &a, 0, at(7)); /* 50 at 0, 10 at 3, 30 at 7 */
	assert_int_equal(q3_quota_judge(q, &b, at(8), &err), Q3_REFUSED);
	assert_string_equal(err.message, "token quota of role exceeded");
	assert_non_null(strstr(err.detail, "used 90 of its 100 tokens"));
	assert_non_null(strstr(err.detail, "may use 30 more"));
	assert_int_equal(sscanf(err.hint, "Wait %d seconds", &seconds), 1);
	assert_int_equal(seconds, 53);
	expect(q, &b, at(8 + (uint64_t) seconds - 1), Q3_REFUSED);
	expect(q, &b, at(8 + (uint64_t) seconds), Q3_GRANTED);
	q3_quota_end(q, &b, 0, at(61));
	/* What can never be granted says so, and not how long to wait. */
	assert_int_equal(q3_quota_judge(q, &c, at(500), &err), Q3_REFUSED);
	assert_null(strstr(err.hint, "Wait"));
	assert_non_null(strstr(err.detail, "may use 101"));
	q3_quota_free(q);
}

/* Many at once cannot have more than one after the other: what may still be written counts. */
static void
test_held(void **state)
{
	q3_quota *q = q3_quota_create();
	q3_claim a = claim(1, 100, 10, 50), b = claim(1, 100, 10, 40), c = claim(1, 100, 1, 1);
	q3_claim big = claim(1, 100, 10, 75), last = claim(1, 100, 1, 1), *next;
	q3_error err = {0};

	(void) state;
	expect(q, &a, at(0), Q3_GRANTED);
	expect(q, &b, at(0), Q3_HELD);   /* 60 + 50: not now, but perhaps later */
	expect(q, &c, at(0), Q3_HELD);   /* it would fit, but the other came first */
	expect(q, &big, at(0), Q3_HELD); /* 10 + 85: fits beside what is used */
	expect(q, &last, at(0), Q3_HELD);
	assert_null(q3_quota_next(q, 1, at(1), &err));
	q3_quota_end(q, &a, 12, at(1)); /* 22 used */
	next = q3_quota_next(q, 1, at(1), &err);
	assert_ptr_equal(next, &b);
	assert_int_equal(next->verdict, Q3_GRANTED);
	next = q3_quota_next(q, 1, at(1), &err);
	assert_ptr_equal(next, &c);
	assert_int_equal(next->verdict, Q3_GRANTED);
	next = q3_quota_next(q, 1, at(1), &err);
	assert_ptr_equal(next, &big); /* 33 + 85: not beside what is used by now */
	assert_int_equal(next->verdict, Q3_REFUSED);
	assert_int_equal(err.code, Q3_ERR_LIMIT);
	next = q3_quota_next(q, 1, at(1), &err);
	assert_ptr_equal(next, &last);
	assert_int_equal(next->verdict, Q3_GRANTED);
	assert_null(q3_quota_next(q, 1, at(1), &err));
	assert_null(q3_quota_next(q, 2, at(1), &err));
	q3_quota_end(q, &b, 40, at(2));
	q3_quota_end(q, &c, 1, at(2));
	q3_quota_end(q, &last, 1, at(2));
	q3_quota_free(q);
}

/* One that gives up while it is held leaves no trace, wherever it stands. */
static void
test_held_gives_up(void **state)
{
	q3_quota *q = q3_quota_create();
	q3_claim run = claim(1, 100, 10, 80), c[4];
	q3_error err = {0};

	(void) state;
	expect(q, &run, at(0), Q3_GRANTED);
	for (int i = 0; i < 4; i++)
	{
		c[i] = claim(1, 100, 10, 10);
		expect(q, &c[i], at(0), Q3_HELD);
	}
	q3_quota_end(q, &c[0], 0, at(0));
	q3_quota_end(q, &c[3], 0, at(0));
	q3_quota_end(q, &run, 0, at(0));
	assert_ptr_equal(q3_quota_next(q, 1, at(0), &err), &c[1]);
	assert_ptr_equal(q3_quota_next(q, 1, at(0), &err), &c[2]);
	assert_null(q3_quota_next(q, 1, at(0), &err));
	q3_quota_end(q, &c[1], 0, at(0));
	q3_quota_end(q, &c[2], 0, at(0));
	/* 30 used, of the three prompts. */
	c[0] = claim(1, 100, 70, 0);
	expect(q, &c[0], at(0), Q3_GRANTED);
	c[1] = claim(1, 100, 1, 0);
	expect(q, &c[1], at(0), Q3_REFUSED);
	assert_null(q3_quota_drop(q));
	q3_quota_free(q);
}

/* What a role uses without a quota counts when another of its requests has one. */
static void
test_unjudged(void **state)
{
	q3_quota *q = q3_quota_create();
	q3_claim free_one = claim(1, 0, 80, 0), a = claim(1, 100, 10, 11);

	(void) state;
	q3_quota_end(q, &free_one, 5, at(0));
	q3_quota_end(q, &free_one, 5, at(0)); /* noted once */
	expect(q, &a, at(0), Q3_REFUSED);     /* 85 + 21 */
	a.longest = 5;
	expect(q, &a, at(0), Q3_GRANTED);
	q3_quota_end(q, &a, 0, at(0));
	q3_quota_free(q);
}

/* Against a plain list of everything that was used: never more than the quota in any 60 seconds. */
static void
test_never_more_than_the_quota(void **state)
{
	enum
	{
		N = 4000,
		QUOTA = 1000
	};
	static struct
	{
		uint64_t granted, ended;
		int32_t prompt, output;
	} log[N];
	static q3_claim claims[N];
	q3_quota *q = q3_quota_create();
	uint64_t random = 1, now = at(0);
	q3_error err = {0};
	int granted = 0, refused = 0, n_live = 0, live[N];

	(void) state;
	for (int i = 0; i < N; i++)
	{
		random = random * 6364136223846793005u + 1442695040888963407u;
		now += (random >> 33) % (2 * SECOND);
		claims[i] = claim(7, QUOTA, (int32_t) (random >> 40) % 60, (int32_t) (random >> 50) % 90);
		log[i].prompt = claims[i].prompt;
		if (q3_quota_judge(q, &claims[i], now, &err) == Q3_GRANTED)
		{
			log[i].granted = now;
			live[n_live++] = i;
		}
		while (n_live > 0 && (random >> 20) % 4 != 0)
		{
			int which = (int) ((random >> 22) % (uint64_t) n_live), j = live[which];
			q3_claim *c;

			random = random * 6364136223846793005u + 1442695040888963407u;
			live[which] = live[--n_live];
			log[j].ended = now;
			log[j].output =
			    claims[j].longest - (int32_t) ((random >> 60) % 2) * claims[j].longest / 2;
			q3_quota_end(q, &claims[j], log[j].output, now);
			while ((c = q3_quota_next(q, 7, now, &err)) != NULL)
				if (c->verdict == Q3_GRANTED)
				{
					log[c - claims].granted = now;
					live[n_live++] = (int) (c - claims);
				}
		}
	}
	for (int i = 0; i < N; i++)
	{
		int64_t used = 0;
		uint64_t end = log[i].ended;

		granted += log[i].granted != 0;
		refused += log[i].granted == 0;
		for (int j = 0; j < N && end != 0; j++)
		{
			if (log[j].granted != 0 && log[j].granted <= end && log[j].granted + 60 * SECOND > end)
				used += log[j].prompt;
			if (log[j].ended != 0 && log[j].ended <= end && log[j].ended + 60 * SECOND > end)
				used += log[j].output;
		}
		assert_true(used <= QUOTA);
	}
	assert_true(granted > N / 10 && refused > N / 10);
	while (q3_quota_drop(q) != NULL)
		;
	q3_quota_free(q);
}

/* Accounts of roles that have been idle for a minute are not kept. */
static void
test_many_roles(void **state)
{
	q3_quota *q = q3_quota_create();

	(void) state;
	for (uint32_t i = 0; i < 100000; i++)
	{
		q3_claim c = claim(i, 10, 5, 5);

		expect(q, &c, at(i / 10), Q3_GRANTED);
		q3_quota_end(q, &c, 5, at(i / 10));
	}
	q3_quota_free(q);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_minute),     cmocka_unit_test(test_refusal_tells_how_long),
	    cmocka_unit_test(test_held),       cmocka_unit_test(test_held_gives_up),
	    cmocka_unit_test(test_unjudged),   cmocka_unit_test(test_never_more_than_the_quota),
	    cmocka_unit_test(test_many_roles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
