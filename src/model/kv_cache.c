/*
 * kv_cache.c: the pool of KV blocks and the sequences that take them.
 */
#include "model/kv_cache.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

q3_code
q3_kv_pool_init(q3_kv_pool *pool, int32_t n_layers, int32_t n_kv_heads, int32_t head_dim, bool f32,
                int32_t context_length, uint64_t bytes, q3_error *err)
{
	size_t element = f32 ? sizeof(float) : sizeof(uint16_t);
	uint64_t n_blocks;
	void *base;

	memset(pool, 0, sizeof(*pool));
	pool->n_kv_heads = n_kv_heads;
	pool->head_dim = head_dim;
	pool->f32 = f32;
	pool->blocks_per_seq = (context_length - 1) / Q3_KV_BLOCK + 1;
	pool->head_bytes = (size_t) head_dim * Q3_KV_BLOCK * 2 * element;
	pool->block_bytes = pool->head_bytes * (size_t) n_kv_heads * (size_t) n_layers;
	n_blocks = bytes == 0 ? (uint64_t) pool->blocks_per_seq : bytes / pool->block_bytes;
	if (n_blocks == 0)
		return q3_fail(err, Q3_ERR_INVALID,
		               "KV cache of %" PRIu64 " bytes is too small: %d tokens of this model take "
		               "%zu bytes",
		               bytes, Q3_KV_BLOCK, pool->block_bytes);
	if (n_blocks > INT32_MAX || n_blocks > (SIZE_MAX >> 1) / pool->block_bytes)
		return q3_fail(err, Q3_ERR_INVALID, "KV cache of %" PRIu64 " bytes is too large", bytes);
	pool->free_blocks = malloc(n_blocks * sizeof(int32_t));
	if (pool->free_blocks == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	pool->bytes = n_blocks * pool->block_bytes;
	base = mmap(NULL, pool->bytes, PROT_READ | PROT_WRITE,
	            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
	{
		free(pool->free_blocks);
		pool->free_blocks = NULL;
		return q3_fail(err, Q3_ERR_MEMORY, "could not map %zu bytes for the KV cache", pool->bytes);
	}
	/* Only an optimisation: attention walks through the blocks in order. */
	(void) madvise(base, pool->bytes, MADV_HUGEPAGE);
	pool->base = base;
	pool->n_blocks = pool->n_free = (int32_t) n_blocks;
	/* Blocks with low numbers are taken first, and freed ones again before fresh ones. */
	for (int32_t i = 0; i < pool->n_blocks; i++)
		pool->free_blocks[i] = pool->n_blocks - 1 - i;
	return Q3_OK;
}

void
q3_kv_pool_free(q3_kv_pool *pool)
{
	if (pool->base != NULL)
		munmap(pool->base, pool->bytes);
	free(pool->free_blocks);
}

q3_seq *
q3_kv_seq_create(q3_kv_pool *pool)
{
	q3_seq *seq = calloc(1, sizeof(*seq) + (size_t) pool->blocks_per_seq * sizeof(int32_t));

	if (seq != NULL)
		seq->pool = pool;
	return seq;
}

void
q3_seq_free(q3_seq *seq)
{
	if (seq == NULL)
		return;
	while (seq->n_blocks > 0)
		seq->pool->free_blocks[seq->pool->n_free++] = seq->blocks[--seq->n_blocks];
	free(seq);
}

int32_t
q3_seq_length(const q3_seq *seq)
{
	return seq->length;
}

bool
q3_seq_reserve(q3_seq *seq, int32_t n_tokens)
{
	q3_kv_pool *pool = seq->pool;
	int32_t needed = n_tokens <= 0 ? 0 : (n_tokens - 1) / Q3_KV_BLOCK + 1;

	if (needed > pool->blocks_per_seq || needed - seq->n_blocks > pool->n_free)
		return false;
	while (seq->n_blocks < needed)
		seq->blocks[seq->n_blocks++] = pool->free_blocks[--pool->n_free];
	return true;
}

q3_kv_view
q3_kv_view_of(const q3_seq *seq, int32_t layer, int32_t head)
{
	const q3_kv_pool *pool = seq->pool;

	return (q3_kv_view){
	    .base = pool->base,
	    .blocks = seq->blocks,
	    .block_bytes = pool->block_bytes,
	    .offset = pool->head_bytes * ((size_t) layer * (size_t) pool->n_kv_heads + (size_t) head),
	    .head_dim = pool->head_dim,
	    .f32 = pool->f32,
	};
}
