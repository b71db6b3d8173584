/*
 * attention_sizes.h: the scratch memory of attention: what it keeps per query while it walks
 * through the keys.
 */
#ifndef Q3_CPU_ATTENTION_SIZES_H
#define Q3_CPU_ATTENTION_SIZES_H

#include "kernels.h"
#include "matmul_sizes.h"

/* From this many queries on a block of F16 keys and values is converted once, for all of them. */
#define WIDEN_QUERIES 8

typedef struct attention_state
{
	int32_t head_dim;
	float *q;       /* [queries][head_dim], scaled */
	float *acc;     /* [queries][head_dim]: sum of weight * value so far */
	float *scores;  /* [queries][32]: scores, then weights, of the present block */
	float *maximum; /* [queries]: largest score so far */
	float *sums;    /* [queries][MAX_VL]: sum of weights so far, by lane */
	float *widened; /* K and V of the present block as F32 */
} attention_state;

static inline attention_state
attention_state_in(void *scratch, int32_t head_dim)
{
	const size_t queries = Q3_ATTENTION_QUERIES, n = (size_t) head_dim;
	attention_state a = {.head_dim = head_dim, .q = scratch};

	a.acc = a.q + queries * n;
	a.scores = a.acc + queries * n;
	a.maximum = a.scores + queries * Q3_KV_BLOCK;
	a.sums = a.maximum + queries;
	a.widened = a.sums + queries * MAX_VL;
	return a;
}

static inline size_t
attention_state_bytes(int32_t head_dim)
{
	const size_t queries = Q3_ATTENTION_QUERIES, n = (size_t) head_dim;

	return sizeof(float) *
	       (queries * (2 * n + Q3_KV_BLOCK + 1 + MAX_VL) + 2 * n * (size_t) Q3_KV_BLOCK);
}

#endif
