/*
 * kv_cache.c: the pool of KV blocks and the sequences that take them.
 */
#include "model/prefix_cache.h"

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
	pool->holders = calloc(n_blocks, sizeof(int32_t));
	if (pool->free_blocks == NULL || pool->holders == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	pool->bytes = n_blocks * pool->block_bytes;
	base = mmap(NULL, pool->bytes, PROT_READ | PROT_WRITE,
	            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return q3_fail(err, Q3_ERR_MEMORY, "could not map %zu bytes for the KV cache", pool->bytes);
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
	free(pool->holders);
	q3_prefixes_free(pool->prefixes);
}

/* Bytes that are made ready in one go: none of them takes the system long. */
#define WARM_BYTES ((size_t) 2 << 20)

bool
q3_kv_pool_warm(q3_kv_pool *pool, size_t *done)
{
	size_t n = pool->bytes - *done < WARM_BYTES ? pool->bytes - *done : WARM_BYTES;

	/* Changes nothing in pages that are in use. Older systems do not know it: then do without. */
#ifdef MADV_POPULATE_WRITE
	if (n > 0 && madvise(pool->base + *done, n, MADV_POPULATE_WRITE) == 0)
	{
		*done += n;
		return true;
	}
#else
	(void) n;
#endif
	return false;
}

int32_t
q3_kv_available(const q3_kv_pool *pool)
{
	return pool->n_free + (pool->prefixes != NULL ? q3_prefixes_idle(pool->prefixes) : 0);
}

int32_t
q3_kv_take(q3_kv_pool *pool)
{
	int32_t block;

	if (pool->n_free == 0 && pool->prefixes != NULL)
		q3_prefixes_evict(pool);
	if (pool->n_free == 0)
		return -1;
	block = pool->free_blocks[--pool->n_free];
	pool->holders[block] = 1;
	return block;
}

void
q3_kv_hold(q3_kv_pool *pool, int32_t block)
{
	if (pool->holders[block]++ == 1 && pool->prefixes != NULL)
		q3_prefixes_used(pool->prefixes, block);
}

void
q3_kv_drop(q3_kv_pool *pool, int32_t block)
{
	pool->holders[block]--;
	if (pool->holders[block] == 0)
		pool->free_blocks[pool->n_free++] = block;
	else if (pool->holders[block] == 1 && pool->prefixes != NULL)
		q3_prefixes_unused(pool->prefixes, block);
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
	/* From the end, so that the prefix cache gives up the ends of prefixes first. */
	while (seq->n_blocks > 0)
		q3_kv_drop(seq->pool, seq->blocks[--seq->n_blocks]);
	free(seq);
}

int32_t
q3_seq_length(const q3_seq *seq)
{
	return seq->length;
}

int32_t
q3_seq_first_block(const q3_seq *seq)
{
	return seq->n_blocks > 0 ? seq->blocks[0] : -1;
}

bool
q3_seq_reserve(q3_seq *seq, int32_t n_tokens)
{
	q3_kv_pool *pool = seq->pool;
	int32_t needed = n_tokens <= 0 ? 0 : (n_tokens - 1) / Q3_KV_BLOCK + 1;

	if (needed > pool->blocks_per_seq || needed - seq->n_blocks > q3_kv_available(pool))
		return false;
	while (seq->n_blocks < needed)
		seq->blocks[seq->n_blocks++] = q3_kv_take(pool);
	return true;
}

q3_seq *
q3_seq_fork(const q3_seq *seq, int32_t n_tokens)
{
	q3_kv_pool *pool = seq->pool;
	int32_t full = seq->length / Q3_KV_BLOCK;
	q3_seq *fork = n_tokens >= seq->length ? q3_kv_seq_create(pool) : NULL;

	if (fork == NULL)
		return NULL;
	for (; fork->n_blocks < full; fork->n_blocks++)
	{
		fork->blocks[fork->n_blocks] = seq->blocks[fork->n_blocks];
		q3_kv_hold(pool, fork->blocks[fork->n_blocks]);
	}
	if (!q3_seq_reserve(fork, n_tokens))
	{
		q3_seq_free(fork);
		return NULL;
	}
	if (seq->length % Q3_KV_BLOCK != 0)
		memcpy(pool->base + (size_t) fork->blocks[full] * pool->block_bytes,
		       pool->base + (size_t) seq->blocks[full] * pool->block_bytes, pool->block_bytes);
	fork->length = seq->length;
	return fork;
}

bool
q3_seq_truncate(q3_seq *seq, int32_t n_tokens)
{
	if (n_tokens < 0 || n_tokens > seq->length || !q3_kv_writable(seq, n_tokens, seq->length))
		return false;
	seq->length = n_tokens;
	return true;
}

bool
q3_kv_writable(const q3_seq *seq, int32_t begin, int32_t end)
{
	for (int32_t i = begin / Q3_KV_BLOCK; i * Q3_KV_BLOCK < end; i++)
		if (i >= seq->n_blocks || seq->pool->holders[seq->blocks[i]] != 1)
			return false;
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
