/*
 * prefix_cache.c: the tree of blocks that hold beginnings of prompts; see prefix_cache.h.
 *
 * A node's memory is its block's element of nodes[]: nothing is allocated after creation. Parents
 * are named by serial numbers that are never used again, so that a child whose parent is gone can
 * never be found by mistake.
 */
#include "model/prefix_cache.h"
#include "model/model_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct node
{
	uint64_t serial; /* 0: the block is no node */
	uint64_t parent; /* its serial; 0: begins a prompt */
	int32_t parent_block;
	int32_t child; /* the last one that was made; -1: none */
	int32_t n;     /* tokens; with less than a whole block of them it is in no bucket */
	q3_prefix_key key;
	bool pinned, idle, doomed;
	int32_t next;         /* in the bucket; -1: last */
	int32_t older, newer; /* of the idle ones; -1: none */
	int32_t tokens[Q3_KV_BLOCK];
} node;

struct q3_prefixes
{
	int32_t n_blocks;
	node *nodes;      /* [n_blocks] */
	int32_t *buckets; /* [n_buckets]: first of each, or -1 */
	uint32_t n_buckets;
	int32_t first[2];       /* last one made of those that begin prompts, by mode; -1: none */
	int32_t oldest, newest; /* idle */
	int32_t n_nodes, n_idle, n_pinned;
	uint64_t last_serial, evictions;
};

/* Fewer tokens than this are sooner computed than copied. */
#define MIN_PART 4

/* What a block is looked up under. */
typedef struct lookup
{
	uint64_t parent;
	q3_prefix_key key;
	const int32_t *tokens;
} lookup;

q3_prefixes *
q3_prefixes_create(int32_t n_blocks)
{
	q3_prefixes *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->n_blocks = n_blocks;
	p->n_buckets = 1;
	while (p->n_buckets < (uint32_t) n_blocks)
		p->n_buckets *= 2;
	p->nodes = calloc((size_t) n_blocks, sizeof(*p->nodes));
	p->buckets = malloc(p->n_buckets * sizeof(*p->buckets));
	p->oldest = p->newest = p->first[0] = p->first[1] = -1;
	if (p->nodes == NULL || p->buckets == NULL)
	{
		q3_prefixes_free(p);
		return NULL;
	}
	memset(p->buckets, 0xff, p->n_buckets * sizeof(*p->buckets));
	return p;
}

void
q3_prefixes_free(q3_prefixes *p)
{
	if (p == NULL)
		return;
	free(p->nodes);
	free(p->buckets);
	free(p);
}

int32_t
q3_prefixes_idle(const q3_prefixes *p)
{
	return p->n_idle;
}

void
q3_prefixes_count(const q3_prefixes *p, q3_runtime_info *info)
{
	info->prefix_blocks = p->n_nodes;
	info->pinned_blocks = p->n_pinned;
	info->evictions = p->evictions;
}

/* ---- Idle blocks, in the order in which they became so ---- */

void
q3_prefixes_unused(q3_prefixes *p, int32_t block)
{
	node *n = &p->nodes[block];

	if (n->serial == 0 || n->idle)
		return;
	n->idle = true;
	n->newer = -1;
	n->older = p->newest;
	if (p->newest >= 0)
		p->nodes[p->newest].newer = block;
	else
		p->oldest = block;
	p->newest = block;
	p->n_idle++;
}

void
q3_prefixes_used(q3_prefixes *p, int32_t block)
{
	node *n = &p->nodes[block];

	if (!n->idle)
		return;
	n->idle = false;
	if (n->older >= 0)
		p->nodes[n->older].newer = n->newer;
	else
		p->oldest = n->newer;
	if (n->newer >= 0)
		p->nodes[n->newer].older = n->older;
	else
		p->newest = n->older;
	p->n_idle--;
}

/* ---- Nodes ---- */

static int32_t *
bucket_of(q3_prefixes *p, const lookup *l)
{
	uint64_t h = l->parent * 2 + l->key.mode + ((uint64_t) l->key.domain << 32);

	for (int i = 0; i < Q3_KV_BLOCK; i++)
	{
		h = (h ^ (uint32_t) l->tokens[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return &p->buckets[h & (p->n_buckets - 1)];
}

static int32_t
find_in(q3_prefixes *p, const lookup *l)
{
	for (int32_t b = *bucket_of(p, l); b >= 0; b = p->nodes[b].next)
	{
		const node *n = &p->nodes[b];

		if (n->parent == l->parent && n->key.domain == l->key.domain &&
		    n->key.mode == l->key.mode && memcmp(n->tokens, l->tokens, sizeof(n->tokens)) == 0)
			return b;
	}
	return -1;
}

/* The block of these tokens behind the parent: a shared one, or the domain's own; -1: none. */
static int32_t
find(q3_prefixes *p, q3_prefix_key key, uint64_t parent, const int32_t *tokens)
{
	lookup l = {parent, key, tokens};
	int32_t block;

	l.key.domain = Q3_DOMAIN_SHARED;
	block = find_in(p, &l);
	l.key.domain = key.domain;
	return block >= 0 || key.domain == Q3_DOMAIN_SHARED ? block : find_in(p, &l);
}

/* Where the last child of a node (-1: of none) is noted. */
static int32_t *
child_slot(q3_prefixes *p, q3_prefix_key key, int32_t parent)
{
	return parent >= 0 ? &p->nodes[parent].child : &p->first[key.mode];
}

/* That child if it is still there, else -1. */
static int32_t
last_child(q3_prefixes *p, q3_prefix_key key, int32_t parent)
{
	int32_t block = *child_slot(p, key, parent);

	if (block < 0 || p->nodes[block].serial == 0 || p->nodes[block].key.mode != key.mode ||
	    p->nodes[block].parent != (parent >= 0 ? p->nodes[parent].serial : 0))
		return -1;
	return block;
}

/* Makes the block, of n tokens, which has no other holder than a sequence, a node. */
static void
insert(q3_kv_pool *pool, q3_prefix_key key, int32_t parent, const int32_t *tokens, int32_t n,
       int32_t block)
{
	q3_prefixes *p = pool->prefixes;
	node *at = &p->nodes[block];
	lookup l = {parent >= 0 ? p->nodes[parent].serial : 0, key, tokens};

	*at = (node){.serial = ++p->last_serial,
	             .parent = l.parent,
	             .parent_block = parent,
	             .child = -1,
	             .n = n,
	             .key = key,
	             .next = -1,
	             .older = -1,
	             .newer = -1};
	memcpy(at->tokens, tokens, (size_t) n * sizeof(at->tokens[0]));
	if (n == Q3_KV_BLOCK)
	{
		int32_t *bucket = bucket_of(p, &l);

		at->next = *bucket;
		*bucket = block;
	}
	*child_slot(p, key, parent) = block;
	p->n_nodes++;
	q3_kv_hold(pool, block);
}

/* The block is no node any more; it is free unless somebody else holds it. */
static void
forget(q3_kv_pool *pool, int32_t block)
{
	q3_prefixes *p = pool->prefixes;
	node *n = &p->nodes[block];

	if (n->n == Q3_KV_BLOCK)
	{
		lookup l = {n->parent, n->key, n->tokens};
		int32_t *link = bucket_of(p, &l);

		while (*link != block)
			link = &p->nodes[*link].next;
		*link = n->next;
	}
	q3_prefixes_used(p, block);
	n->serial = 0;
	p->n_nodes--;
	if (n->pinned)
	{
		n->pinned = false;
		p->n_pinned--;
		q3_kv_drop(pool, block);
	}
	q3_kv_drop(pool, block);
}

void
q3_prefixes_evict(q3_kv_pool *pool)
{
	q3_prefixes *p = pool->prefixes;

	if (p->oldest < 0)
		return;
	p->evictions++;
	forget(pool, p->oldest);
}

/* ---- Sequences ---- */

int32_t
q3_seq_attach(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n)
{
	q3_kv_pool *pool = seq->pool;
	q3_prefixes *p = pool->prefixes;
	int32_t begin = seq->length, i = begin / Q3_KV_BLOCK;
	uint64_t parent = 0;

	if (p == NULL || begin % Q3_KV_BLOCK != 0)
		return 0;
	if (i > 0)
		parent = p->nodes[seq->blocks[i - 1]].serial;
	for (; (i == 0 || parent != 0) && (i + 1) * Q3_KV_BLOCK < n; i++)
	{
		int32_t block = find(p, key, parent, tokens + (size_t) i * Q3_KV_BLOCK);

		if (block < 0)
			break;
		q3_kv_hold(pool, block);
		if (i < seq->n_blocks)
			q3_kv_drop(pool, seq->blocks[i]);
		else
			seq->n_blocks++;
		seq->blocks[i] = block;
		seq->length += Q3_KV_BLOCK;
		parent = p->nodes[block].serial;
	}
	return seq->length - begin;
}

void
q3_seq_publish(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n)
{
	q3_kv_pool *pool = seq->pool;
	q3_prefixes *p = pool->prefixes;
	int32_t parent = -1;

	if (p == NULL)
		return;
	n = n < seq->length ? n : seq->length;
	for (int32_t i = 0; (i + 1) * Q3_KV_BLOCK <= n; i++)
	{
		const int32_t *here = tokens + (size_t) i * Q3_KV_BLOCK;
		int32_t block = seq->blocks[i], known;

		if (p->nodes[block].serial == 0)
		{
			known = find(p, key, parent >= 0 ? p->nodes[parent].serial : 0, here);
			if (known < 0)
				insert(pool, key, parent, here, Q3_KV_BLOCK, block);
			else
			{
				q3_kv_hold(pool, known);
				q3_kv_drop(pool, block);
				seq->blocks[i] = block = known;
			}
		}
		parent = block;
	}
}

/* ---- Less than a block ---- */

static int32_t
common_tokens(const int32_t *a, const int32_t *b, int32_t most)
{
	int32_t n = 0;

	while (n < most && a[n] == b[n])
		n++;
	return n;
}

int32_t
q3_seq_attach_part(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n)
{
	q3_kv_pool *pool = seq->pool;
	q3_prefixes *p = pool->prefixes;
	int32_t i = seq->length / Q3_KV_BLOCK, parent = i > 0 ? seq->blocks[i - 1] : -1, from;
	const node *donor;

	if (p == NULL || seq->length % Q3_KV_BLOCK != 0 || i >= seq->n_blocks ||
	    pool->holders[seq->blocks[i]] != 1 || (parent >= 0 && p->nodes[parent].serial == 0))
		return 0;
	from = last_child(p, key, parent);
	if (from < 0)
		return 0;
	donor = &p->nodes[from];
	if (donor->key.domain != Q3_DOMAIN_SHARED && donor->key.domain != key.domain)
		return 0;
	n -= seq->length + 1;
	n = common_tokens(donor->tokens, tokens + seq->length, n < donor->n ? n : donor->n);
	if (n < MIN_PART)
		return 0;
	memcpy(pool->base + (size_t) seq->blocks[i] * pool->block_bytes,
	       pool->base + (size_t) from * pool->block_bytes, pool->block_bytes);
	seq->length += n;
	return n;
}

void
q3_seq_publish_part(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n)
{
	q3_kv_pool *pool = seq->pool;
	q3_prefixes *p = pool->prefixes;
	int32_t i = n / Q3_KV_BLOCK, parent = i > 0 ? seq->blocks[i - 1] : -1, before;

	if (p == NULL || n % Q3_KV_BLOCK < MIN_PART || seq->length < n ||
	    p->nodes[seq->blocks[i]].serial != 0 || (parent >= 0 && p->nodes[parent].serial == 0))
		return;
	before = last_child(p, key, parent);
	/* One is enough; a whole block serves as well. */
	if (before >= 0 && (p->nodes[before].n == Q3_KV_BLOCK || !p->nodes[before].idle))
		return;
	if (before >= 0)
		forget(pool, before);
	insert(pool, key, parent, tokens + (size_t) i * Q3_KV_BLOCK, n % Q3_KV_BLOCK, seq->blocks[i]);
}

/* ---- Pins ---- */

void
q3_seq_pin(q3_seq *seq, int32_t n)
{
	q3_kv_pool *pool = seq->pool;
	q3_prefixes *p = pool->prefixes;

	if (p == NULL)
		return;
	n = n < seq->length ? n : seq->length;
	for (int32_t i = 0; (i + 1) * Q3_KV_BLOCK <= n; i++)
	{
		node *at = &p->nodes[seq->blocks[i]];

		if (at->serial == 0 || at->key.domain != Q3_DOMAIN_SHARED || at->pinned)
			continue;
		at->pinned = true;
		p->n_pinned++;
		q3_kv_hold(pool, seq->blocks[i]);
	}
}

/* True for a shared node, and for what stands behind one. */
static bool
behind_shared(const q3_prefixes *p, int32_t block)
{
	while (p->nodes[block].key.domain != Q3_DOMAIN_SHARED)
	{
		const node *n = &p->nodes[block];

		if (n->parent == 0 || p->nodes[n->parent_block].serial != n->parent)
			return false;
		block = n->parent_block;
	}
	return true;
}

void
q3_prefixes_unpin(q3_kv_pool *pool)
{
	q3_prefixes *p = pool->prefixes;

	for (int32_t b = 0; b < p->n_blocks; b++)
		p->nodes[b].doomed = p->nodes[b].serial != 0 && behind_shared(p, b);
	for (int32_t b = 0; b < p->n_blocks; b++)
		if (p->nodes[b].doomed)
			forget(pool, b);
}
