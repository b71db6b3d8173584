/*
 * buffer.c: growing and emptying of a q3_buffer. Memory is malloc'ed and belongs to the buffer.
 */
#include "engine/buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* An empty buffer keeps at most this much. */
#define KEEP (64 * 1024)

char *
q3_buffer_reserve(q3_buffer *b, size_t n)
{
	size_t len = q3_buffer_len(b), capacity = b->capacity > 0 ? b->capacity : 4096;
	char *data;

	if (n > SIZE_MAX / 4 || len > SIZE_MAX / 4)
		return NULL;
	if (b->capacity - b->end >= n && b->data != NULL)
		return b->data + b->end;
	if (b->start > 0)
	{
		memmove(b->data, b->data + b->start, len);
		b->start = 0;
		b->end = len;
		if (b->capacity - len >= n)
			return b->data + len;
	}
	while (capacity - len < n || capacity <= len)
		capacity *= 2;
	data = realloc(b->data, capacity);
	if (data == NULL)
		return NULL;
	b->data = data;
	b->capacity = capacity;
	return data + len;
}

bool
q3_buffer_append(q3_buffer *b, const void *data, size_t n)
{
	char *room;

	if (n == 0)
		return true;
	room = q3_buffer_reserve(b, n);
	if (room == NULL)
		return false;
	memcpy(room, data, n);
	b->end += n;
	return true;
}

void
q3_buffer_consume(q3_buffer *b, size_t n)
{
	b->start += n;
	if (b->start < b->end)
		return;
	b->start = b->end = 0;
	if (b->capacity > KEEP)
		q3_buffer_free(b);
}

void
q3_buffer_free(q3_buffer *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}
