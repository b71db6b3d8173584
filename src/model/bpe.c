/*
 * bpe.c: merging of one word, by scanning when it is short and with a heap when it is long.
 *
 * Words of ordinary text have some ten bytes, and scanning a small array for the lowest rank beats
 * everything else. But a "word" can also be megabytes of one repeated letter, so beyond
 * Q3_BPE_SHORT tokens a heap keeps the work at O(n log n). No state but the table of the rules;
 * memory for long words lives as long as the call.
 */
#include "model/bpe.h"

#include <stdlib.h>
#include <string.h>

#define NO_RANK UINT32_MAX

/* ------------------------------------------------------------------------------------------
 * The table of rules
 * ------------------------------------------------------------------------------------------ */

static inline size_t
pair_hash(int32_t left, int32_t right)
{
	uint64_t h = (uint64_t) (uint32_t) left << 32 | (uint32_t) right;

	h *= UINT64_C(0x9e3779b97f4a7c15);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return (size_t) (h >> 24);
}

bool
q3_bpe_init(q3_bpe *bpe, size_t n_merges)
{
	size_t n_slots = 16;

	while (n_slots / 2 < n_merges)
	{
		if (n_slots > SIZE_MAX / 4 / sizeof(q3_merge))
			return false;
		n_slots *= 2;
	}
	bpe->slots = malloc(n_slots * sizeof(q3_merge));
	if (bpe->slots == NULL)
		return false;
	bpe->mask = n_slots - 1;
	for (size_t i = 0; i < n_slots; i++)
		bpe->slots[i].left = -1;
	return true;
}

void
q3_bpe_free(q3_bpe *bpe)
{
	free(bpe->slots);
	bpe->slots = NULL;
}

void
q3_bpe_add(q3_bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t result)
{
	size_t i = pair_hash(left, right) & bpe->mask;

	for (; bpe->slots[i].left >= 0; i = (i + 1) & bpe->mask)
		if (bpe->slots[i].left == left && bpe->slots[i].right == right)
			return;
	bpe->slots[i] = (q3_merge){left, right, rank, result};
}

/* The rank of a pair and the token it becomes; NO_RANK where there is no rule. */
static inline uint32_t
find_rule(const q3_bpe *bpe, int32_t left, int32_t right, int32_t *result)
{
	size_t i = pair_hash(left, right) & bpe->mask;

	for (; bpe->slots[i].left >= 0; i = (i + 1) & bpe->mask)
	{
		const q3_merge *m = &bpe->slots[i];

		if (m->left == left && m->right == right)
		{
			*result = m->result;
			return m->rank;
		}
	}
	return NO_RANK;
}

/* ------------------------------------------------------------------------------------------
 * Short words
 * ------------------------------------------------------------------------------------------ */

static size_t
merge_short(const q3_bpe *bpe, int32_t *ids, size_t n)
{
	uint32_t ranks[Q3_BPE_SHORT]; /* of the pair (i, i + 1) */
	int32_t results[Q3_BPE_SHORT];

	for (size_t i = 0; i + 1 < n; i++)
		ranks[i] = find_rule(bpe, ids[i], ids[i + 1], &results[i]);
	while (n > 1)
	{
		size_t best = 0, tail;

		for (size_t i = 1; i + 1 < n; i++)
			if (ranks[i] < ranks[best])
				best = i;
		if (ranks[best] == NO_RANK)
			break;
		ids[best] = results[best];
		n--;
		tail = n - best - 1; /* tokens behind the merged one */
		memmove(ids + best + 1, ids + best + 2, tail * sizeof(*ids));
		if (tail > 0)
		{
			memmove(ranks + best + 1, ranks + best + 2, (tail - 1) * sizeof(*ranks));
			memmove(results + best + 1, results + best + 2, (tail - 1) * sizeof(*results));
			ranks[best] = find_rule(bpe, ids[best], ids[best + 1], &results[best]);
		}
		if (best > 0)
			ranks[best - 1] = find_rule(bpe, ids[best - 1], ids[best], &results[best - 1]);
	}
	return n;
}

/* ------------------------------------------------------------------------------------------
 * Long words
 * ------------------------------------------------------------------------------------------ */

/*
 * The tokens stand at the places where they began, linked; the heap holds (rank, place) of pairs,
 * among them outdated ones: an entry counts only while rank[place] is still its rank.
 */
typedef struct long_word
{
	const q3_bpe *bpe;
	int32_t *ids;
	uint32_t *next, *prev, *rank; /* next of the last: n */
	uint64_t *heap;               /* rank << 32 | place; the lowest first */
	size_t n, n_heap;
} long_word;

static void
sift_down(uint64_t *heap, size_t n, size_t i)
{
	uint64_t moved = heap[i];

	for (;;)
	{
		size_t child = 2 * i + 1;

		if (child >= n)
			break;
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= moved)
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = moved;
}

static void
heap_push(long_word *w, uint64_t entry)
{
	size_t i = w->n_heap++;

	while (i > 0 && w->heap[(i - 1) / 2] > entry)
	{
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = entry;
}

static uint64_t
heap_pop(long_word *w)
{
	uint64_t top = w->heap[0];

	w->heap[0] = w->heap[--w->n_heap];
	if (w->n_heap > 0)
		sift_down(w->heap, w->n_heap, 0);
	return top;
}

/* Sets rank[at] for the token at this place and the one behind it; true if there is a rule. */
static bool
rank_pair(long_word *w, uint32_t at)
{
	int32_t result;

	w->rank[at] = NO_RANK;
	if (w->next[at] < w->n)
		w->rank[at] = find_rule(w->bpe, w->ids[at], w->ids[w->next[at]], &result);
	return w->rank[at] != NO_RANK;
}

static void
long_start(long_word *w)
{
	w->n_heap = 0;
	for (uint32_t i = 0; i < w->n; i++)
	{
		w->next[i] = i + 1;
		w->prev[i] = i - 1; /* never asked for at 0 */
		if (rank_pair(w, i))
			w->heap[w->n_heap++] = (uint64_t) w->rank[i] << 32 | i;
	}
	for (size_t i = w->n_heap / 2; i-- > 0;)
		sift_down(w->heap, w->n_heap, i);
}

/* Merges the token at this place with the one behind it. */
static void
long_merge_at(long_word *w, uint32_t at)
{
	uint32_t gone = w->next[at];

	find_rule(w->bpe, w->ids[at], w->ids[gone], &w->ids[at]);
	w->rank[gone] = NO_RANK;
	w->next[at] = w->next[gone];
	if (w->next[at] < w->n)
		w->prev[w->next[at]] = at;
	if (rank_pair(w, at))
		heap_push(w, (uint64_t) w->rank[at] << 32 | at);
	if (at > 0 && rank_pair(w, w->prev[at]))
		heap_push(w, (uint64_t) w->rank[w->prev[at]] << 32 | w->prev[at]);
}

static bool
merge_long(const q3_bpe *bpe, int32_t *ids, size_t *n)
{
	long_word w = {.bpe = bpe, .ids = ids, .n = *n};
	size_t n_out = 0;
	/* A merge takes one entry from the heap and adds two at most: never more than 2n. */
	size_t per_token = 3 * sizeof(uint32_t) + 2 * sizeof(uint64_t);
	char *memory;

	if (*n >= UINT32_MAX || *n > SIZE_MAX / per_token)
		return false;
	memory = malloc(*n * per_token);
	if (memory == NULL)
		return false;
	w.heap = (uint64_t *) memory;
	w.next = (uint32_t *) (w.heap + 2 * *n);
	w.prev = w.next + *n;
	w.rank = w.prev + *n;
	long_start(&w);
	while (w.n_heap > 0)
	{
		uint64_t top = heap_pop(&w);
		uint32_t at = (uint32_t) top;

		if (w.rank[at] == (uint32_t) (top >> 32))
			long_merge_at(&w, at);
	}
	for (size_t i = 0; i < w.n; i = w.next[i])
		ids[n_out++] = ids[i];
	*n = n_out;
	free(memory);
	return true;
}

bool
q3_bpe_merge(const q3_bpe *bpe, int32_t *ids, size_t *n)
{
	if (*n > Q3_BPE_SHORT)
		return merge_long(bpe, ids, n);
	*n = merge_short(bpe, ids, *n);
	return true;
}
