/*
 * schema_cache.c: compiled schemas in a list, the latest used first.
 *
 * The lock guards the list, the counts and the tree's creation. Schemas are compiled without it:
 * should two threads compile the same text, the second takes the first one's.
 */
#include "model/schema_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct q3_cached_schema
{
	q3_cached_schema *next;
	q3_schema_cache *cache;
	q3_schema *schema;
	char *text;
	size_t len;
	int users;
};

struct q3_schema_cache
{
	const q3_tokenizer *tok;
	pthread_mutex_t lock;
	q3_token_trie *trie; /* NULL: not yet */
	q3_cached_schema *first;
	int n;
};

q3_schema_cache *
q3_schema_cache_create(const q3_tokenizer *tok)
{
	q3_schema_cache *cache = calloc(1, sizeof(*cache));

	if (cache == NULL)
		return NULL;
	cache->tok = tok;
	pthread_mutex_init(&cache->lock, NULL);
	return cache;
}

static void
free_schema(q3_cached_schema *s)
{
	if (s == NULL)
		return;
	q3_schema_free(s->schema);
	free(s->text);
	free(s);
}

void
q3_schema_cache_free(q3_schema_cache *cache)
{
	if (cache == NULL)
		return;
	while (cache->first != NULL)
	{
		q3_cached_schema *next = cache->first->next;

		free_schema(cache->first);
		cache->first = next;
	}
	q3_token_trie_free(cache->trie);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

/* Takes the schema with this text out of the list; NULL: there is none. */
static q3_cached_schema *
unlink_text(q3_schema_cache *cache, q3_str text)
{
	q3_cached_schema **link = &cache->first, *s;

	while ((s = *link) != NULL && (s->len != text.len || memcmp(s->text, text.data, text.len) != 0))
		link = &s->next;
	if (s != NULL)
	{
		*link = s->next;
		cache->n--;
	}
	return s;
}

/* Takes out what has not been used for longest, beyond the size, if nobody has it. */
static q3_cached_schema *
unlink_oldest(q3_schema_cache *cache)
{
	q3_cached_schema **oldest = NULL, *s;

	if (cache->n <= Q3_SCHEMA_CACHE_SIZE)
		return NULL;
	for (q3_cached_schema **link = &cache->first; *link != NULL; link = &(*link)->next)
		if ((*link)->users == 0)
			oldest = link;
	if (oldest == NULL)
		return NULL;
	s = *oldest;
	*oldest = s->next;
	cache->n--;
	return s;
}

static void
link_first(q3_schema_cache *cache, q3_cached_schema *s)
{
	s->next = cache->first;
	cache->first = s;
	cache->n++;
}

/* The tree is made under the lock: whoever needs it has to wait anyway. */
static bool
have_trie(q3_schema_cache *cache)
{
	if (cache->trie == NULL)
		cache->trie = q3_token_trie_create(cache->tok);
	return cache->trie != NULL;
}

static q3_cached_schema *
compile(q3_schema_cache *cache, q3_str text, q3_error *err)
{
	q3_cached_schema *s = calloc(1, sizeof(*s));

	if (s != NULL)
		s->text = malloc(text.len + 1);
	if (s == NULL || s->text == NULL)
	{
		free(s);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	memcpy(s->text, text.data, text.len);
	s->len = text.len;
	s->cache = cache;
	s->schema = q3_schema_compile(text, err);
	if (s->schema != NULL)
		return s;
	free_schema(s);
	return NULL;
}

q3_cached_schema *
q3_schema_cache_get(q3_schema_cache *cache, q3_str text, q3_error *err)
{
	q3_cached_schema *s, *made = NULL, *oldest;
	bool trie;

	pthread_mutex_lock(&cache->lock);
	trie = have_trie(cache);
	s = trie ? unlink_text(cache, text) : NULL;
	if (s == NULL && trie)
	{
		pthread_mutex_unlock(&cache->lock);
		made = compile(cache, text, err);
		if (made == NULL)
			return NULL;
		pthread_mutex_lock(&cache->lock);
		s = unlink_text(cache, text);
		if (s == NULL)
		{
			s = made;
			made = NULL;
		}
	}
	if (s != NULL)
	{
		s->users++;
		link_first(cache, s);
	}
	oldest = unlink_oldest(cache);
	pthread_mutex_unlock(&cache->lock);
	free_schema(made);
	free_schema(oldest);
	if (s == NULL)
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	return s;
}

void
q3_schema_cache_put(q3_cached_schema *s)
{
	q3_schema_cache *cache;
	q3_cached_schema *oldest;

	if (s == NULL)
		return;
	cache = s->cache;
	pthread_mutex_lock(&cache->lock);
	s->users--;
	oldest = unlink_oldest(cache);
	pthread_mutex_unlock(&cache->lock);
	free_schema(oldest);
}

q3_constraint *
q3_cached_constraint(q3_cached_schema *s, q3_error *err)
{
	return q3_constraint_create(s->schema, s->cache->trie, err);
}
