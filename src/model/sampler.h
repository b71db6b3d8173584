/*
 * sampler.h: from logits to the next token.
 *
 * A q3_sampler belongs to one request and holds its random state: the same seed, options and logits
 * give the same token, whatever other requests do. Not shared between threads.
 */
#ifndef Q3_SAMPLER_H
#define Q3_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

typedef struct q3_sampling
{
	float temperature; /* 0: greedy (lowest id wins a tie) */
	float top_p;       /* (0, 1]; 1: off */
	int32_t top_k;     /* 0: off */
	uint64_t seed;
} q3_sampling;

typedef struct q3_sampler q3_sampler;

/* Checks the options (Q3_ERR_INVALID names the one that is wrong). n_vocab: length of a logits row.
 */
extern q3_sampler *q3_sampler_create(const q3_sampling *sampling, int32_t n_vocab, q3_error *err);
extern void q3_sampler_free(q3_sampler *s);
/*
 * Picks a token from logits[n_vocab] (not changed; entries at or past n_valid are never picked: the
 * padding of the vocabulary). *logprob (may be NULL) is the token's log-probability under the plain
 * softmax (temperature 1, nothing cut off), natural logarithm. The cuts: the top_k largest logits
 * (of equal ones the lower ids), then the smallest set of the most likely of them that holds at
 * least top_p of their probability at the given temperature. NaN counts as minus infinity; where
 * no logit is more than that, token 0 with log-probability minus infinity. n_valid < 1: -1.
 */
extern int32_t q3_sampler_pick(q3_sampler *s, const float *logits, int32_t n_valid, float *logprob);
/*
 * The same among the tokens whose bit is set in allowed[] (32 tokens a word, the lowest bit first);
 * the cuts apply to these. *logprob stays that among all tokens. Logits of other tokens may be
 * overwritten. -1 when no token is allowed.
 */
extern int32_t q3_sampler_pick_allowed(q3_sampler *s, float *logits, int32_t n_valid,
                                       const uint32_t *allowed, float *logprob);

#endif
