/*
 * build_gguf.h: writes GGUF files into memory, for unit tests: well-formed ones and others.
 *
 * A gguf_builder owns its bytes until builder_free(). Running out of memory fails the test.
 */
#ifndef TEST_BUILD_GGUF_H
#define TEST_BUILD_GGUF_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"

typedef struct gguf_builder
{
	unsigned char *data;
	size_t n, capacity;
} gguf_builder;

static inline void
put_raw(gguf_builder *b, const void *data, size_t n)
{
	if (n > b->capacity - b->n)
	{
		b->capacity = (b->n + n) * 2;
		b->data = realloc(b->data, b->capacity);
		if (b->data == NULL)
			abort();
	}
	if (n > 0)
		memcpy(b->data + b->n, data, n);
	b->n += n;
}

static inline void
put_u8(gguf_builder *b, uint8_t v)
{
	put_raw(b, &v, sizeof(v));
}

static inline void
put_u32(gguf_builder *b, uint32_t v)
{
	put_raw(b, &v, sizeof(v));
}

static inline void
put_u64(gguf_builder *b, uint64_t v)
{
	put_raw(b, &v, sizeof(v));
}

static inline void
put_f32(gguf_builder *b, float v)
{
	put_raw(b, &v, sizeof(v));
}

static inline void
put_string_n(gguf_builder *b, const char *s, size_t len)
{
	put_u64(b, len);
	put_raw(b, s, len);
}

static inline void
put_string(gguf_builder *b, const char *s)
{
	put_string_n(b, s, strlen(s));
}

static inline void
put_header(gguf_builder *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
	put_raw(b, "GGUF", 4);
	put_u32(b, version);
	put_u64(b, n_tensors);
	put_u64(b, n_kv);
}

/* Key and type; the value follows. */
static inline void
put_key(gguf_builder *b, const char *key, uint32_t type)
{
	put_string(b, key);
	put_u32(b, type);
}

static inline void
put_kv_u32(gguf_builder *b, const char *key, uint32_t v)
{
	put_key(b, key, Q3_GGUF_U32);
	put_u32(b, v);
}

static inline void
put_kv_bool(gguf_builder *b, const char *key, bool v)
{
	put_key(b, key, Q3_GGUF_BOOL);
	put_u8(b, v);
}

static inline void
put_kv_string(gguf_builder *b, const char *key, const char *v)
{
	put_key(b, key, Q3_GGUF_STRING);
	put_string(b, v);
}

/* Key of an array; the elements follow. */
static inline void
put_array(gguf_builder *b, const char *key, uint32_t elem, uint64_t count)
{
	put_key(b, key, Q3_GGUF_ARRAY);
	put_u32(b, elem);
	put_u64(b, count);
}

/* A tensor's entry of the directory, at most two dimensions (cols is the contiguous one). */
static inline void
put_tensor(gguf_builder *b, const char *name, uint32_t type, uint64_t cols, uint64_t rows,
           uint64_t offset)
{
	put_string(b, name);
	put_u32(b, rows > 0 ? 2 : 1);
	put_u64(b, cols);
	if (rows > 0)
		put_u64(b, rows);
	put_u32(b, type);
	put_u64(b, offset);
}

static inline void
put_padding(gguf_builder *b, size_t alignment)
{
	while (b->n % alignment != 0)
		put_u8(b, 0);
}

static inline void
builder_free(gguf_builder *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

#endif
