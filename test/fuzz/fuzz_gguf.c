/*
 * fuzz_gguf.c: any bytes as a GGUF file; of what opens, every getter is called and every byte read.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "model/gguf.h"

static volatile uint8_t sink;

static void
read_bytes(const void *data, size_t n)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum ^= ((const uint8_t *) data)[i];
	sink = sum;
}

/* The getters take C strings; keys are bytes. */
static char *
c_string(q3_str s)
{
	char *copy = malloc(s.len + 1);

	if (copy == NULL)
		abort();
	memcpy(copy, s.data, s.len);
	copy[s.len] = '\0';
	return copy;
}

static void
read_array(const q3_gguf *g, const char *key)
{
	q3_gguf_type type;
	size_t count, n_strings;
	const q3_str *strings = q3_gguf_strings(g, key, &n_strings);

	if (!q3_gguf_get_array(g, key, &type, &count))
		return;
	if ((strings != NULL) != (type == Q3_GGUF_STRING) || (strings != NULL && n_strings != count))
		abort();
	for (size_t i = 0; i < count; i++)
	{
		int64_t integer;
		double real;
		q3_str s;
		int kinds = q3_gguf_array_i64(g, key, i, &integer) + q3_gguf_array_f64(g, key, i, &real);

		if (q3_gguf_array_str(g, key, i, &s))
		{
			read_bytes(s.data, s.len);
			kinds++;
		}
		if (kinds > 1)
			abort();
	}
	if (q3_gguf_array_str(g, key, count, &(q3_str){0}))
		abort();
}

static void
read_kv(const q3_gguf *g, size_t i)
{
	q3_str name, s;
	q3_gguf_type type = q3_gguf_kv(g, i, &name);
	char *key = c_string(name);
	uint64_t integer;
	double real;
	bool flag;

	if (strlen(key) == name.len)
	{
		bool is_str = q3_gguf_get_str(g, key, &s);

		if (is_str != (type == Q3_GGUF_STRING) ||
		    q3_gguf_get_bool(g, key, &flag) != (type == Q3_GGUF_BOOL))
			abort();
		if (is_str)
			read_bytes(s.data, s.len);
		(void) q3_gguf_get_u64(g, key, &integer);
		(void) q3_gguf_get_f64(g, key, &real);
		read_array(g, key);
	}
	free(key);
}

static void
read_tensor(const q3_gguf *g, size_t i)
{
	const q3_tensor *t = q3_gguf_tensor(g, i);
	char *name = c_string(t->name);

	if (strlen(name) == t->name.len && q3_gguf_find_tensor(g, name) != t)
		abort();
	/* Tensors may overlap: a small file can hold much data, so only the ends are read. */
	read_bytes(t->data, t->n_bytes < 64 ? t->n_bytes : 64);
	read_bytes((const char *) t->data + t->n_bytes - 1, 1);
	free(name);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	q3_error err = {0};
	q3_gguf *g = q3_gguf_open_memory(data, size, &err);

	if (g == NULL && (err.code == Q3_OK || err.message[0] == '\0'))
		abort();
	for (size_t i = 0; g != NULL && i < q3_gguf_n_kv(g); i++)
		read_kv(g, i);
	for (size_t i = 0; g != NULL && i < q3_gguf_n_tensors(g); i++)
		read_tensor(g, i);
	q3_gguf_close(g);
	return 0;
}
