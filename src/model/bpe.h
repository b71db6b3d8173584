/*
 * bpe.h: the merge rules of a byte-pair encoding and their application to one word.
 *
 * A q3_bpe owns its table. It is filled once and read by any number of threads afterwards.
 */
#ifndef Q3_BPE_H
#define Q3_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct q3_merge
{
	int32_t left, right; /* left -1: the slot is free */
	uint32_t rank;       /* the lowest goes first */
	int32_t result;
} q3_merge;

typedef struct q3_bpe
{
	q3_merge *slots; /* open addressing; the number of slots is a power of two */
	size_t mask;
} q3_bpe;

/* Words up to this length need no memory to be merged. */
#define Q3_BPE_SHORT 96

/* Makes room for n_merges rules; false when out of memory. */
extern bool q3_bpe_init(q3_bpe *bpe, size_t n_merges);
extern void q3_bpe_free(q3_bpe *bpe);
/* Adds a rule; at most n_merges of them. Of two rules for the same pair the first stays. */
extern void q3_bpe_add(q3_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t result);

/*
 * Merges the n tokens of a word in place, always the pair of the lowest rank and of these the
 * leftmost, until no rule applies. *n becomes their new number. False when out of memory or when
 * there are 2^32 tokens or more. Time O(n log n) for long words.
 */
extern bool q3_bpe_merge(const q3_bpe *bpe, int32_t *ids, size_t *n);

#endif
