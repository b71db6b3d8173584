/*
 * kv_cache.h: the pool of KV blocks and the sequences that take them.
 *
 * The pool is one anonymous mapping, so that blocks cost memory only once they have been used. A
 * block holds 32 tokens of every layer: for each layer and K/V head a K and a V part (q3_kv_view in
 * kernels.h). Sequences that begin alike may share full blocks, which nobody writes to again: each
 * block counts who holds it (sequences, the prefix cache, a pin) and is free when nobody does. One
 * thread at a time.
 */
#ifndef Q3_KV_CACHE_H
#define Q3_KV_CACHE_H

#include "model/model.h"

typedef struct q3_prefixes q3_prefixes;

typedef struct q3_kv_pool
{
	char *base;
	size_t bytes;       /* of the mapping */
	size_t block_bytes; /* all layers and heads */
	size_t head_bytes;  /* K and V of one layer and head within a block */
	int32_t n_blocks;
	int32_t n_free;
	int32_t *free_blocks;   /* a stack: [n_free] */
	int32_t *holders;       /* [n_blocks]: how many hold each */
	q3_prefixes *prefixes;  /* NULL: no prefix cache */
	int32_t blocks_per_seq; /* of the longest sequence */
	int32_t n_kv_heads, head_dim;
	bool f32;
} q3_kv_pool;

struct q3_seq
{
	q3_kv_pool *pool;
	int32_t length;   /* tokens */
	int32_t n_blocks; /* reserved */
	uint64_t step;    /* the last forward pass that it was in */
	int32_t blocks[]; /* [blocks_per_seq] */
};

/* bytes 0: room for one sequence of context_length tokens. */
extern q3_code q3_kv_pool_init(q3_kv_pool *pool, int32_t n_layers, int32_t n_kv_heads,
                               int32_t head_dim, bool f32, int32_t context_length, uint64_t bytes,
                               q3_error *err);
extern void q3_kv_pool_free(q3_kv_pool *pool);
/* See q3_runtime_warm(). */
extern bool q3_kv_pool_warm(q3_kv_pool *pool, size_t *done);
extern q3_seq *q3_kv_seq_create(q3_kv_pool *pool);
/* Blocks that nobody needs: free ones, and those that only the prefix cache holds. */
extern int32_t q3_kv_available(const q3_kv_pool *pool);
/* A block with one holder, the caller; -1: none available. */
extern int32_t q3_kv_take(q3_kv_pool *pool);
extern void q3_kv_hold(q3_kv_pool *pool, int32_t block);
extern void q3_kv_drop(q3_kv_pool *pool, int32_t block);
/* True when the sequence has the blocks of tokens [begin, end), begin < end, for itself. */
extern bool q3_kv_writable(const q3_seq *seq, int32_t begin, int32_t end);
extern q3_kv_view q3_kv_view_of(const q3_seq *seq, int32_t layer, int32_t head);

#endif
