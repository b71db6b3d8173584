/*
 * quota.h: how many tokens a role may use in a minute.
 *
 * A request that has a quota is judged once its prompt is tokenized. What counts is what its role
 * has used in the last 60 seconds, all connections together: whole prompts (cached or not) from the
 * moment they are granted, answers from the moment they end, whoever takes them. Added to that is
 * what granted requests may still write. A request is
 *   granted when its prompt and its longest answer fit in the quota beside all of this,
 *   held    when they fit beside what is used, but not beside what others may still write, or
 *           behind another one of its role that is held, and
 *   refused when they do not fit beside what is used.
 * So within any 60 seconds no more than the quota is computed, however many connections ask or give
 * up, and a request is never refused for the sake of tokens that nobody uses in the end.
 *
 * Belongs to one thread. Claims belong to the caller, who keeps them until they are ended.
 */
#ifndef Q3_QUOTA_H
#define Q3_QUOTA_H

#include <stdint.h>

#include "model/error.h"

typedef struct q3_quota q3_quota;

typedef enum q3_verdict
{
	Q3_UNJUDGED = 0,
	Q3_GRANTED,
	Q3_HELD,
	Q3_REFUSED
} q3_verdict;

/* What a request asks for; zero but for the first five. */
typedef struct q3_claim
{
	uint32_t role;
	int64_t quota;   /* tokens in a minute; 0: no limit */
	int32_t prompt;  /* its tokens */
	int32_t longest; /* answer */
	void *owner;     /* the caller's */
	/* quota.c's */
	q3_verdict verdict;
	struct q3_claim *next;
} q3_claim;

/* NULL when out of memory. */
extern q3_quota *q3_quota_create(void);
extern void q3_quota_free(q3_quota *q);
/* Decides about a claim, now: q3_now_ns(). REFUSED: with *err, Q3_ERR_LIMIT or Q3_ERR_MEMORY. */
extern q3_verdict q3_quota_judge(q3_quota *q, q3_claim *c, uint64_t now, q3_error *err);
/*
 * The request has ended with an answer of so many tokens. A claim that was held is forgotten, one
 * that was never judged has used its prompt and its answer.
 */
extern void q3_quota_end(q3_quota *q, q3_claim *c, int32_t output, uint64_t now);
/*
 * After the end of a claim of the role: the next held claim that is now GRANTED or REFUSED (its
 * verdict says which); NULL when there is none, or it has to wait on.
 */
extern q3_claim *q3_quota_next(q3_quota *q, uint32_t role, uint64_t now, q3_error *err);
/* Any held claim, which is forgotten; for the end of everything. */
extern q3_claim *q3_quota_drop(q3_quota *q);

#endif
