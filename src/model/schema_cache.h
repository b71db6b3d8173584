/*
 * schema_cache.h: compiled schemas, so that the rows of a table share one.
 *
 * Any thread may call these functions. The tree of the vocabulary's tokens is made with the first
 * schema. A q3_cached_schema lives as long as somebody has it or it is among the latest that were
 * asked for; all must have been given back when the cache is freed.
 */
#ifndef Q3_SCHEMA_CACHE_H
#define Q3_SCHEMA_CACHE_H

#include "model/constraint.h"

/* Schemas that nobody uses and that are kept all the same. */
#define Q3_SCHEMA_CACHE_SIZE 64

typedef struct q3_schema_cache q3_schema_cache;
typedef struct q3_cached_schema q3_cached_schema;

/* tok must outlive the cache. NULL when out of memory. */
extern q3_schema_cache *q3_schema_cache_create(const q3_tokenizer *tok);
extern void q3_schema_cache_free(q3_schema_cache *cache);
/*
 * The schema with this text, compiled now or before; to be given back. NULL and err as
 * q3_schema_compile() says, or Q3_ERR_MEMORY.
 */
extern q3_cached_schema *q3_schema_cache_get(q3_schema_cache *cache, q3_str text, q3_error *err);
extern void q3_schema_cache_put(q3_cached_schema *s); /* NULL: nothing happens */
/* A constraint at its beginning, to be freed before the schema is given back; NULL and err. */
extern q3_constraint *q3_cached_constraint(q3_cached_schema *s, q3_error *err);

#endif
