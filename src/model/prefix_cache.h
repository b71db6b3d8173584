/*
 * prefix_cache.h: which blocks of a KV pool hold which beginnings of prompts.
 *
 * A tree of blocks: a node is a block of the pool, its key the 32 tokens in it, its parent, the
 * domain that may find it, and the mode that computed it. Tokens are compared, not only hashed. The
 * cache holds each of its blocks once and a pinned one twice; one that nobody else holds is idle,
 * and can be evicted. Who holds a node holds its ancestors too, so that the ends of prefixes become
 * idle, and go, first. A node may have one child of less than a block, the end of a prompt, from
 * which the tokens that another prompt has in common with it are copied. For kv_cache.c, runtime.c
 * and prefix_cache.c; one thread at a time.
 */
#ifndef Q3_PREFIX_CACHE_H
#define Q3_PREFIX_CACHE_H

#include "model/kv_cache.h"

extern q3_prefixes *q3_prefixes_create(int32_t n_blocks);
extern void q3_prefixes_free(q3_prefixes *p); /* NULL is fine */
extern int32_t q3_prefixes_idle(const q3_prefixes *p);
/* Fills in what the cache knows about itself. */
extern void q3_prefixes_count(const q3_prefixes *p, q3_runtime_info *info);
/* The block has a second holder now, or one holder again; ignored for blocks that are no nodes. */
extern void q3_prefixes_used(q3_prefixes *p, int32_t block);
extern void q3_prefixes_unused(q3_prefixes *p, int32_t block);
/* Frees the block that has been idle longest, if any is. */
extern void q3_prefixes_evict(q3_kv_pool *pool);
extern void q3_prefixes_unpin(q3_kv_pool *pool);

#endif
