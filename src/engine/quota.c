/*
 * quota.c: the tokens of each role in the last minute. See quota.h.
 *
 * Owns an account for each role that has used tokens lately or has claims; an idle one is freed
 * when its neighbours are looked at. The I/O thread runs all of this.
 */
#include "engine/quota.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#define BUCKETS 256
/* The second that runs and the 60 before it: never less than a minute. */
#define SECONDS 61
#define SECOND_NS UINT64_C(1000000000)

typedef struct account
{
	struct account *next; /* in its bucket */
	uint32_t role;
	uint64_t second;       /* the newest one in used */
	int64_t used[SECONDS]; /* by second modulo SECONDS */
	int64_t total;         /* of used */
	int64_t promised;      /* answers that granted claims may still write */
	int32_t n_granted;
	q3_claim *held, **last_held;
} account;

struct q3_quota
{
	account *buckets[BUCKETS];
};

q3_quota *
q3_quota_create(void)
{
	return calloc(1, sizeof(q3_quota));
}

void
q3_quota_free(q3_quota *q)
{
	if (q == NULL)
		return;
	for (int i = 0; i < BUCKETS; i++)
		while (q->buckets[i] != NULL)
		{
			account *a = q->buckets[i];

			q->buckets[i] = a->next;
			free(a);
		}
	free(q);
}

/* ---------------------------------------------------------------------------------------------
 * Accounts
 * --------------------------------------------------------------------------------------------- */

/* Forgets what is older than a minute. */
static void
advance(account *a, uint64_t second)
{
	if (second > a->second + SECONDS)
		a->second = second - SECONDS;
	while (a->second < second)
	{
		int64_t *oldest = &a->used[++a->second % SECONDS];

		a->total -= *oldest;
		*oldest = 0;
	}
}

static void
charge(account *a, int64_t tokens)
{
	a->used[a->second % SECONDS] += tokens;
	a->total += tokens;
}

static bool
is_idle(const account *a)
{
	return a->total == 0 && a->n_granted == 0 && a->held == NULL;
}

/* The role's account as of now; NULL: none, and with make out of memory. */
static account *
account_of(q3_quota *q, uint32_t role, uint64_t now, bool make)
{
	account **link = &q->buckets[role % BUCKETS], *found = NULL, *a;

	while ((a = *link) != NULL)
	{
		advance(a, now / SECOND_NS);
		if (a->role == role)
			found = a;
		else if (is_idle(a))
		{
			*link = a->next;
			free(a);
			continue;
		}
		link = &a->next;
	}
	if (found != NULL || !make)
		return found;
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		return NULL;
	a->role = role;
	a->second = now / SECOND_NS;
	a->last_held = &a->held;
	a->next = q->buckets[role % BUCKETS];
	q->buckets[role % BUCKETS] = a;
	return a;
}

/* ---------------------------------------------------------------------------------------------
 * Claims
 * --------------------------------------------------------------------------------------------- */

/* Seconds until so many of the used tokens are older than a minute. */
static int
seconds_until_free(const account *a, int64_t tokens)
{
	int seconds = 1;

	for (; seconds < SECONDS; seconds++)
	{
		tokens -= a->used[(a->second + (uint64_t) seconds) % SECONDS];
		if (tokens <= 0)
			break;
	}
	return seconds;
}

static q3_verdict
refuse(const account *a, const q3_claim *c, int64_t need, q3_error *err)
{
	q3_fail(err, Q3_ERR_LIMIT, "token quota of role exceeded");
	if (need > c->quota)
	{
		q3_error_detail(err,
		                "The quota is %" PRId64
		                " tokens a minute, and this request may use %" PRId64
		                ": a prompt of %" PRId32 " and an answer of up to %" PRId32 ".",
		                c->quota, need, c->prompt, c->longest);
		q3_error_hint(err, "Lower max_tokens, or shorten the prompt.");
		return Q3_REFUSED;
	}
	q3_error_detail(err,
	                "The role has used %" PRId64 " of its %" PRId64
	                " tokens in the last minute, and this request may use %" PRId64 " more.",
	                a->total, c->quota, need);
	q3_error_hint(err, "Wait %d seconds, or lower max_tokens.",
	              seconds_until_free(a, a->total + need - c->quota));
	return Q3_REFUSED;
}

/* What becomes of a claim that is the next one of its role. */
static q3_verdict
decide(account *a, const q3_claim *c, q3_error *err)
{
	int64_t need = (int64_t) c->prompt + c->longest;

	if (c->quota > 0 && a->total + need > c->quota)
		return refuse(a, c, need, err);
	if (c->quota > 0 && a->total + a->promised + need > c->quota)
		return Q3_HELD;
	charge(a, c->prompt);
	a->promised += c->longest;
	a->n_granted++;
	return Q3_GRANTED;
}

q3_verdict
q3_quota_judge(q3_quota *q, q3_claim *c, uint64_t now, q3_error *err)
{
	account *a = account_of(q, c->role, now, true);

	if (a == NULL)
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return c->verdict = Q3_REFUSED;
	}
	c->verdict = a->held != NULL ? Q3_HELD : decide(a, c, err);
	if (c->verdict == Q3_HELD)
	{
		c->next = NULL;
		*a->last_held = c;
		a->last_held = &c->next;
	}
	return c->verdict;
}

static void
unlink_held(account *a, q3_claim *c)
{
	q3_claim **link = &a->held;

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	if (a->last_held == &c->next)
		a->last_held = link;
	c->next = NULL;
}

void
q3_quota_end(q3_quota *q, q3_claim *c, int32_t output, uint64_t now)
{
	int64_t tokens = c->verdict == Q3_UNJUDGED ? (int64_t) c->prompt + output : output;
	account *a = account_of(q, c->role, now, c->verdict == Q3_UNJUDGED && tokens > 0);

	if (a == NULL) /* nothing to note, or no memory for it */
		return;
	if (c->verdict == Q3_HELD)
		unlink_held(a, c);
	if (c->verdict == Q3_GRANTED)
	{
		a->promised -= c->longest;
		a->n_granted--;
	}
	if (c->verdict == Q3_GRANTED || c->verdict == Q3_UNJUDGED)
		charge(a, tokens);
	c->verdict = Q3_REFUSED; /* nothing is to be noted any more */
}

q3_claim *
q3_quota_next(q3_quota *q, uint32_t role, uint64_t now, q3_error *err)
{
	account *a = account_of(q, role, now, false);
	q3_claim *c = a != NULL ? a->held : NULL;

	if (c == NULL)
		return NULL;
	c->verdict = decide(a, c, err);
	if (c->verdict == Q3_HELD)
		return NULL;
	unlink_held(a, c);
	return c;
}

q3_claim *
q3_quota_drop(q3_quota *q)
{
	for (int i = 0; i < BUCKETS; i++)
		for (account *a = q->buckets[i]; a != NULL; a = a->next)
			if (a->held != NULL)
			{
				q3_claim *c = a->held;

				unlink_held(a, c);
				return c;
			}
	return NULL;
}
