/*
 * buffer.h: a queue of bytes that grows at its end and is taken from at its start.
 *
 * Owned by one thread at a time; starts as {0}.
 */
#ifndef Q3_BUFFER_H
#define Q3_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct q3_buffer
{
	char *data;
	size_t start; /* the bytes are data[start .. end) */
	size_t end;
	size_t capacity;
} q3_buffer;

static inline size_t
q3_buffer_len(const q3_buffer *b)
{
	return b->end - b->start;
}

static inline const char *
q3_buffer_bytes(const q3_buffer *b)
{
	return b->data + b->start;
}

/* Room for n more bytes, to be counted in with b->end += n; NULL when out of memory. */
extern char *q3_buffer_reserve(q3_buffer *b, size_t n);
/* False when out of memory. */
extern bool q3_buffer_append(q3_buffer *b, const void *data, size_t n);
/* Drops n bytes from the start. An emptied buffer gives up memory that it needed only once. */
extern void q3_buffer_consume(q3_buffer *b, size_t n);
extern void q3_buffer_free(q3_buffer *b);

#endif
