/*
 * test_gguf.c: the GGUF reader on well-formed, cut and lying files, and the table of storage types.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "build_gguf.h"
#include "kernels.h"
#include "model/gguf.h"

/* ---------------------------------------------------------------------------------------------
 * Helpers
 * --------------------------------------------------------------------------------------------- */

/*
 * Opens a copy that ends where its memory ends, so that AddressSanitizer sees every byte read
 * beyond the file. The copy must live as long as the result: *copy is freed by the caller.
 */
static q3_gguf *
open_copy(const void *data, size_t n, void **copy, q3_error *err)
{
	*copy = malloc(n > 0 ? n : 1);
	assert_non_null(*copy);
	if (n > 0)
		memcpy(*copy, data, n);
	memset(err, 0, sizeof(*err));
	return q3_gguf_open_memory(*copy, n, err);
}

/* The bytes must be refused with that code and a message that contains the words. */
static void
assert_refused(const gguf_builder *b, q3_code code, const char *words)
{
	q3_error err;
	void *copy;
	q3_gguf *g = open_copy(b->data, b->n, &copy, &err);

	if (g != NULL || err.code != code || strstr(err.message, words) == NULL)
		fail_msg("expected code %d with \"%s\", got %d with \"%s\"", code, words, err.code,
		         g != NULL ? "(opened)" : err.message);
	free(copy);
}

/* A file with something of everything. */
static void
build_sample(gguf_builder *b, uint32_t version)
{
	put_header(b, version, 3, 16);
	put_kv_string(b, "general.architecture", "qwen3");
	put_key(b, "u8", Q3_GGUF_U8);
	put_u8(b, 200);
	put_key(b, "i8", Q3_GGUF_I8);
	put_u8(b, 0x80);
	put_key(b, "u16", Q3_GGUF_U16);
	put_raw(b, "\xff\xff", 2);
	put_key(b, "i16", Q3_GGUF_I16);
	put_raw(b, "\xfe\xff", 2);
	put_kv_u32(b, "u32", UINT32_MAX);
	put_key(b, "i32", Q3_GGUF_I32);
	put_u32(b, (uint32_t) -5);
	put_key(b, "i32.positive", Q3_GGUF_I32);
	put_u32(b, 7);
	put_key(b, "u64", Q3_GGUF_U64);
	put_u64(b, UINT64_MAX);
	put_key(b, "i64", Q3_GGUF_I64);
	put_u64(b, (uint64_t) INT64_MIN);
	put_key(b, "f32", Q3_GGUF_F32);
	put_f32(b, 0.5f);
	put_key(b, "f64", Q3_GGUF_F64);
	put_raw(b, &(double){0.1}, sizeof(double));
	put_key(b, "bool", Q3_GGUF_BOOL);
	put_u8(b, 1);
	put_array(b, "words", Q3_GGUF_STRING, 3);
	put_string(b, "one");
	put_string(b, "");
	put_string_n(b, "a\0b", 3);
	put_array(b, "numbers", Q3_GGUF_I16, 2);
	put_raw(b, "\x01\x00\xff\xff", 4);
	put_array(b, "reals", Q3_GGUF_F32, 2);
	put_f32(b, 1.5f);
	put_f32(b, -2.0f);
	put_tensor(b, "norm", Q3_F32, 3, 0, 0);
	put_tensor(b, "matrix", Q3_Q8_0, 64, 2, 32);
	put_tensor(b, "half", Q3_F16, 2, 2, 192);
	put_padding(b, 32);
	for (int i = 0; i < 200; i++)
		put_u8(b, (uint8_t) i);
}

static void
write_file(const char *path, const void *data, size_t n)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* ---------------------------------------------------------------------------------------------
 * Well-formed files
 * --------------------------------------------------------------------------------------------- */

static void
check_integers(const q3_gguf *g)
{
	uint64_t u;

	assert_true(q3_gguf_get_u64(g, "u8", &u) && u == 200);
	assert_true(q3_gguf_get_u64(g, "u16", &u) && u == 65535);
	assert_true(q3_gguf_get_u64(g, "u32", &u) && u == UINT32_MAX);
	assert_true(q3_gguf_get_u64(g, "u64", &u) && u == UINT64_MAX);
	assert_true(q3_gguf_get_u64(g, "i32.positive", &u) && u == 7);
	u = 99;
	assert_false(q3_gguf_get_u64(g, "i8", &u));
	assert_false(q3_gguf_get_u64(g, "i16", &u));
	assert_false(q3_gguf_get_u64(g, "i32", &u));
	assert_false(q3_gguf_get_u64(g, "i64", &u));
	assert_false(q3_gguf_get_u64(g, "f32", &u));
	assert_false(q3_gguf_get_u64(g, "bool", &u));
	assert_false(q3_gguf_get_u64(g, "general.architecture", &u));
	assert_false(q3_gguf_get_u64(g, "numbers", &u));
	assert_false(q3_gguf_get_u64(g, "absent", &u));
	assert_int_equal(u, 99);
}

static void
check_others(const q3_gguf *g)
{
	double d;
	bool flag;
	q3_str s;

	assert_true(q3_gguf_get_f64(g, "f32", &d) && d == 0.5);
	assert_true(q3_gguf_get_f64(g, "f64", &d) && d == 0.1);
	assert_false(q3_gguf_get_f64(g, "u32", &d));
	assert_false(q3_gguf_get_f64(g, "reals", &d));
	assert_true(q3_gguf_get_bool(g, "bool", &flag) && flag);
	assert_false(q3_gguf_get_bool(g, "u8", &flag));
	assert_true(q3_gguf_get_str(g, "general.architecture", &s));
	assert_int_equal(s.len, 5);
	assert_memory_equal(s.data, "qwen3", 5);
	assert_false(q3_gguf_get_str(g, "words", &s));
	assert_false(q3_gguf_get_str(g, "general.architectur", &s));
	assert_false(q3_gguf_get_str(g, "", &s));
}

static void
check_arrays(const q3_gguf *g)
{
	const q3_str *strings;
	q3_gguf_type type;
	size_t count;
	int64_t i;
	double d;
	q3_str s;

	assert_true(q3_gguf_get_array(g, "words", &type, &count));
	assert_int_equal(type, Q3_GGUF_STRING);
	assert_int_equal(count, 3);
	strings = q3_gguf_strings(g, "words", &count);
	assert_non_null(strings);
	assert_int_equal(count, 3);
	assert_int_equal(strings[1].len, 0);
	assert_int_equal(strings[2].len, 3);
	assert_memory_equal(strings[2].data, "a\0b", 3);
	assert_true(q3_gguf_array_str(g, "words", 0, &s) && s.len == 3);
	assert_false(q3_gguf_array_str(g, "words", 3, &s));
	assert_false(q3_gguf_array_str(g, "numbers", 0, &s));
	assert_false(q3_gguf_array_i64(g, "words", 0, &i));
	assert_null(q3_gguf_strings(g, "numbers", &count));
	assert_null(q3_gguf_strings(g, "u32", &count));
	assert_true(q3_gguf_array_i64(g, "numbers", 0, &i) && i == 1);
	assert_true(q3_gguf_array_i64(g, "numbers", 1, &i) && i == -1);
	assert_false(q3_gguf_array_i64(g, "numbers", 2, &i));
	assert_false(q3_gguf_array_i64(g, "reals", 0, &i));
	assert_true(q3_gguf_array_f64(g, "reals", 1, &d) && d == -2.0);
	assert_false(q3_gguf_array_f64(g, "numbers", 0, &d));
	assert_false(q3_gguf_get_array(g, "u32", &type, &count));
}

static void
check_tensors(const q3_gguf *g, const unsigned char *payload)
{
	const q3_tensor *t = q3_gguf_find_tensor(g, "matrix");

	assert_int_equal(q3_gguf_n_tensors(g), 3);
	assert_non_null(t);
	assert_ptr_equal(t, q3_gguf_tensor(g, 1));
	assert_int_equal(t->type, Q3_Q8_0);
	assert_int_equal(t->n_dims, 2);
	assert_int_equal(t->dims[0], 64);
	assert_int_equal(t->dims[1], 2);
	assert_int_equal(t->dims[2], 1);
	assert_int_equal(t->n_bytes, 2 * 2 * 34);
	assert_ptr_equal(t->data, payload + 32);
	t = q3_gguf_find_tensor(g, "norm");
	assert_non_null(t);
	assert_int_equal(t->n_dims, 1);
	assert_int_equal(t->n_bytes, 12);
	assert_ptr_equal(t->data, payload);
	assert_null(q3_gguf_find_tensor(g, "matri"));
	assert_null(q3_gguf_find_tensor(g, "matrix2"));
	assert_null(q3_gguf_tensor(g, 3));
}

static void
test_sample(void **state)
{
	(void) state;
	for (uint32_t version = 2; version <= 3; version++)
	{
		gguf_builder b = {0};
		q3_error err;
		void *copy;
		q3_gguf *g;
		q3_str key;
		size_t size;

		build_sample(&b, version);
		g = open_copy(b.data, b.n, &copy, &err);
		assert_non_null(g);
		assert_int_equal(q3_gguf_version(g), version);
		assert_ptr_equal(q3_gguf_data(g, &size), copy);
		assert_int_equal(size, b.n);
		assert_int_equal(q3_gguf_n_kv(g), 16);
		assert_int_equal(q3_gguf_kv(g, 1, &key), Q3_GGUF_U8);
		assert_memory_equal(key.data, "u8", 2);
		check_integers(g);
		check_others(g);
		check_arrays(g);
		check_tensors(g, (unsigned char *) copy + b.n - 200);
		q3_gguf_close(g);
		free(copy);
		builder_free(&b);
	}
}

static void
test_empty_array_and_no_tensors(void **state)
{
	gguf_builder b = {0};
	q3_error err;
	void *copy;
	q3_gguf *g;
	size_t count = 9;

	(void) state;
	put_header(&b, 3, 0, 1);
	put_array(&b, "none", Q3_GGUF_STRING, 0);
	g = open_copy(b.data, b.n, &copy, &err);
	assert_non_null(g);
	assert_non_null(q3_gguf_strings(g, "none", &count));
	assert_int_equal(count, 0);
	assert_null(q3_gguf_find_tensor(g, "x"));
	q3_gguf_close(g);
	free(copy);
	builder_free(&b);
	q3_gguf_close(NULL);
}

static void
test_alignment(void **state)
{
	static const struct
	{
		uint32_t value;
		bool good;
	} cases[] = {{8, true}, {64, true}, {4096, true}, {0, false}, {4, false}, {48, false}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		gguf_builder b = {0};
		q3_error err;
		void *copy;
		q3_gguf *g;

		put_header(&b, 3, 1, 1);
		put_kv_u32(&b, "general.alignment", cases[i].value);
		put_tensor(&b, "t", Q3_F32, 1, 0, 0);
		put_padding(&b, cases[i].value > 0 ? cases[i].value : 1);
		put_f32(&b, 4.25f);
		g = open_copy(b.data, b.n, &copy, &err);
		assert_int_equal(g != NULL, cases[i].good);
		if (g != NULL)
			assert_true(*(const float *) q3_gguf_tensor(g, 0)->data == 4.25f);
		else
			assert_non_null(strstr(err.message, "general.alignment"));
		q3_gguf_close(g);
		free(copy);
		builder_free(&b);
	}
}

/* ---------------------------------------------------------------------------------------------
 * Damaged files
 * --------------------------------------------------------------------------------------------- */

static void
test_every_truncation(void **state)
{
	gguf_builder b = {0};

	(void) state;
	build_sample(&b, 3);
	/* The last tensor ends at byte 200 of the data section, the end of the file. */
	for (size_t n = 0; n < b.n; n++)
	{
		q3_error err;
		void *copy;
		q3_gguf *g = open_copy(b.data, n, &copy, &err);

		assert_null(g);
		assert_int_equal(err.code, Q3_ERR_FORMAT);
		assert_non_null(strstr(err.message, "truncated"));
		free(copy);
	}
	builder_free(&b);
}

/* Whatever one byte is changed to, opening ends, and what opens can be read. */
static void
test_every_byte_changed(void **state)
{
	static const unsigned char masks[] = {0x01, 0x80, 0xff};
	gguf_builder b = {0};
	size_t opened = 0;

	(void) state;
	build_sample(&b, 3);
	for (size_t i = 0; i < b.n; i++)
		for (size_t k = 0; k < sizeof(masks); k++)
		{
			q3_error err;
			void *copy;
			q3_gguf *g;
			volatile unsigned sum = 0;

			b.data[i] ^= masks[k];
			g = open_copy(b.data, b.n, &copy, &err);
			b.data[i] ^= masks[k];
			for (size_t t = 0; g != NULL && t < q3_gguf_n_tensors(g); t++)
				for (size_t j = 0; j < q3_gguf_tensor(g, t)->n_bytes; j++)
					sum += ((const unsigned char *) q3_gguf_tensor(g, t)->data)[j];
			if (g == NULL)
				assert_true(err.code == Q3_ERR_FORMAT || err.code == Q3_ERR_UNSUPPORTED);
			else
				opened++;
			q3_gguf_close(g);
			free(copy);
		}
	assert_in_range(opened, 3 * 200, 3 * b.n); /* at least every change of the weights */
	builder_free(&b);
}

static void
test_header_errors(void **state)
{
	gguf_builder b = {0};

	(void) state;
	put_raw(&b, "PK\003\004 not a model", 16);
	assert_refused(&b, Q3_ERR_FORMAT, "is not a GGUF file");
	b.n = 0;
	put_header(&b, 0x03000000, 0, 0);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "big-endian");
	b.n = 0;
	put_header(&b, 1, 0, 0);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "version 1");
	b.n = 0;
	put_header(&b, 4, 0, 0);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "version 4");
	b.n = 0;
	put_header(&b, 3, 0, UINT64_MAX);
	assert_refused(&b, Q3_ERR_FORMAT, "do not fit");
	b.n = 0;
	put_header(&b, 3, UINT64_C(1) << 60, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "do not fit");
	builder_free(&b);
}

/* One metadata entry, to be followed by its value. */
static void
start_kv(gguf_builder *b, uint32_t type)
{
	b->n = 0;
	put_header(b, 3, 0, 1);
	put_key(b, "some.key", type);
}

static void
start_array(gguf_builder *b, uint32_t elem, uint64_t count)
{
	start_kv(b, Q3_GGUF_ARRAY);
	put_u32(b, elem);
	put_u64(b, count);
}

static void
test_metadata_errors(void **state)
{
	gguf_builder b = {0};

	(void) state;
	start_kv(&b, 13);
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "\"some.key\" has an unknown type");
	start_kv(&b, Q3_GGUF_BOOL);
	put_u8(&b, 2);
	assert_refused(&b, Q3_ERR_FORMAT, "\"some.key\" is a boolean");
	start_kv(&b, Q3_GGUF_STRING);
	put_u64(&b, UINT64_MAX);
	assert_refused(&b, Q3_ERR_FORMAT, "truncated");
	start_array(&b, Q3_GGUF_ARRAY, 1);
	put_u32(&b, Q3_GGUF_U8);
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "array of arrays");
	start_array(&b, 13, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "array of an unknown type");
	start_array(&b, Q3_GGUF_U64, UINT64_C(0x2000000000000001)); /* times 8 is 8 */
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "which do not fit");
	start_array(&b, Q3_GGUF_U64, 2);
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "truncated: a metadata array needs 16 bytes");
	start_array(&b, Q3_GGUF_STRING, 3);
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "announces 3 elements");
	start_array(&b, Q3_GGUF_STRING, 2);
	put_u64(&b, 1);
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "truncated");
	b.n = 0;
	put_header(&b, 3, 0, 1);
	put_key(&b, "", Q3_GGUF_U64);
	put_u64(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "length that is not allowed");
	b.n = 0;
	put_header(&b, 3, 0, 3);
	put_kv_u32(&b, "twice", 1);
	put_kv_u32(&b, "once", 1);
	put_kv_u32(&b, "twice", 1);
	assert_refused(&b, Q3_ERR_FORMAT, "\"twice\" occurs twice");
	builder_free(&b);
}

/* A file with that one tensor and n bytes of data. */
static void
one_tensor(gguf_builder *b, uint32_t type, uint64_t cols, uint64_t rows, uint64_t offset, size_t n)
{
	b->n = 0;
	put_header(b, 3, 1, 0);
	put_tensor(b, "blk.0.w", type, cols, rows, offset);
	put_padding(b, 32);
	for (size_t i = 0; i < n; i++)
		put_u8(b, 0);
}

static void
test_tensor_errors(void **state)
{
	gguf_builder b = {0};

	(void) state;
	one_tensor(&b, 22, 256, 1, 0, 256);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "\"blk.0.w\" has type IQ2_S");
	one_tensor(&b, 39, 256, 1, 0, 256);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "\"blk.0.w\" has type MXFP4");
	one_tensor(&b, 77, 256, 1, 0, 256);
	assert_refused(&b, Q3_ERR_UNSUPPORTED, "unknown type 77");
	one_tensor(&b, Q3_Q4_K, 128, 2, 0, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "no multiple of its type's block");
	one_tensor(&b, Q3_F32, 0, 2, 0, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "dimension of zero");
	one_tensor(&b, Q3_F32, UINT64_C(1) << 62, 4, 0, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "impossible dimensions");
	one_tensor(&b, Q3_F16, UINT64_C(1) << 32, UINT64_C(1) << 31, 0, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "impossible dimensions");
	one_tensor(&b, Q3_F32, 4, 4, 8, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "not aligned");
	one_tensor(&b, Q3_F32, 4, 4, UINT64_MAX - 31, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "impossible offset");
	one_tensor(&b, Q3_F32, 8, 8, 32, 256);
	assert_refused(&b, Q3_ERR_FORMAT, "truncated: tensor \"blk.0.w\" ends at byte 384 of 352");
	for (uint32_t n_dims = 0; n_dims <= 5; n_dims += 5)
	{
		b.n = 0;
		put_header(&b, 3, 1, 0);
		put_string(&b, "t");
		put_u32(&b, n_dims);
		for (int i = 0; i < 8; i++)
			put_u64(&b, 0);
		assert_refused(&b, Q3_ERR_FORMAT, "1 to 4 dimensions");
	}
	b.n = 0;
	put_header(&b, 3, 1, 0);
	put_string(&b, "t");
	put_u32(&b, 3); /* 1 times 2^32 times 2^32 */
	put_u64(&b, 1);
	put_u64(&b, UINT64_C(1) << 32);
	put_u64(&b, (UINT64_C(1) << 32) + 1);
	put_u32(&b, Q3_F32);
	put_u64(&b, 0);
	put_padding(&b, 32);
	assert_refused(&b, Q3_ERR_FORMAT, "impossible dimensions");
	b.n = 0;
	put_header(&b, 3, 2, 0);
	put_tensor(&b, "same", Q3_F32, 1, 0, 0);
	put_tensor(&b, "same", Q3_F32, 1, 0, 0);
	put_padding(&b, 32);
	put_f32(&b, 0);
	assert_refused(&b, Q3_ERR_FORMAT, "tensor \"same\" occurs twice");
	builder_free(&b);
}

/* Names in messages are plain text whatever the file holds. */
static void
test_names_in_messages(void **state)
{
	gguf_builder b = {0};
	q3_error err;
	void *copy;
	char name[300];

	(void) state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	memcpy(name, "\x01\xff\n%s", 5);
	put_header(&b, 3, 0, 1);
	put_key(&b, name, 99);
	put_u64(&b, 0);
	assert_null(open_copy(b.data, b.n, &copy, &err));
	assert_non_null(strstr(err.message, "\"???%sxxx"));
	assert_non_null(strstr(err.message, "xxx...\" has an unknown type"));
	free(copy);
	builder_free(&b);
}

/* A million keys, all alike but for their ends: opened and found in time. */
static void
test_many_keys(void **state)
{
	const uint32_t n = 1000000;
	gguf_builder b = {0};
	clock_t start = clock();
	q3_error err;
	q3_gguf *g;
	uint64_t v;

	(void) state;
	put_header(&b, 3, 0, n);
	for (uint32_t i = 0; i < n; i++)
	{
		char key[32];

		snprintf(key, sizeof(key), "same.beginning.%07u", (uint32_t) (i * UINT64_C(7919) % n));
		put_kv_u32(&b, key, i);
	}
	g = q3_gguf_open_memory(b.data, b.n, &err);
	assert_non_null(g);
	assert_true(q3_gguf_get_u64(g, "same.beginning.0007919", &v) && v == 1);
	assert_false(q3_gguf_get_u64(g, "same.beginning.1000000", &v));
	assert_true((double) (clock() - start) / CLOCKS_PER_SEC < 30);
	q3_gguf_close(g);
	builder_free(&b);
}

/* ---------------------------------------------------------------------------------------------
 * Files on disk
 * --------------------------------------------------------------------------------------------- */

static void
assert_open_fails(const char *path, q3_code code, const char *words)
{
	q3_error err = {0};

	assert_null(q3_gguf_open(path, &err));
	if (err.code != code || strstr(err.message, words) == NULL)
		fail_msg("expected code %d with \"%s\", got %d with \"%s\"", code, words, err.code,
		         err.message);
	assert_null(q3_gguf_open(path, NULL));
}

static void
test_files(void **state)
{
	char dir[] = "/tmp/test_gguf.XXXXXX";
	char path[64], long_path[600];
	gguf_builder b = {0};
	q3_error err = {0};
	q3_gguf *g;

	(void) state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/m.gguf", dir);
	assert_open_fails(path, Q3_ERR_IO, "/m.gguf\": No such file or directory");
	assert_open_fails(dir, Q3_ERR_IO, "is a directory");
	assert_open_fails("/dev/null", Q3_ERR_IO, "is not a regular file");
	memset(long_path, '/', sizeof(long_path) - 1);
	strcpy(long_path + 580, "end.gguf");
	assert_open_fails(long_path, Q3_ERR_IO, "/end.gguf\": No such file");
	write_file(path, "", 0);
	assert_open_fails(path, Q3_ERR_FORMAT, "m.gguf\" is empty");
	write_file(path, "version https://git-lfs.github.com/spec/v1\n", 43);
	assert_null(q3_gguf_open(path, &err));
	assert_non_null(strstr(err.hint, "Git LFS"));
	build_sample(&b, 3);
	write_file(path, b.data, b.n - 1);
	assert_open_fails(path, Q3_ERR_FORMAT, "m.gguf\" is truncated: tensor \"half\" ends at byte");
	write_file(path, b.data, b.n);
	g = q3_gguf_open(path, &err);
	assert_non_null(g);
	check_integers(g);
	q3_gguf_close(g);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_open_fails(path, Q3_ERR_IO, "is not a regular file");
	unlink(path);
	rmdir(dir);
	builder_free(&b);
}

/* ---------------------------------------------------------------------------------------------
 * Storage types
 * --------------------------------------------------------------------------------------------- */

static void
test_dtypes(void **state)
{
	static const struct
	{
		unsigned type;
		const char *name;
		size_t block, bytes;
	} types[] = {
	    {Q3_F32, "F32", 1, 4},       {Q3_F16, "F16", 1, 2},      {Q3_BF16, "BF16", 1, 2},
	    {Q3_Q8_0, "Q8_0", 32, 34},   {Q3_Q4_0, "Q4_0", 32, 18},  {Q3_Q4_1, "Q4_1", 32, 20},
	    {Q3_Q5_0, "Q5_0", 32, 22},   {Q3_Q5_1, "Q5_1", 32, 24},  {Q3_Q4_K, "Q4_K", 256, 144},
	    {Q3_Q5_K, "Q5_K", 256, 176}, {Q3_Q6_K, "Q6_K", 256, 210}};
	size_t supported = 0;

	(void) state;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
	{
		unsigned type = types[i].type;

		assert_string_equal(q3_dtype_name(type), types[i].name);
		assert_true(q3_dtype_supported(type));
		assert_int_equal(q3_dtype_block(type), types[i].block);
		assert_int_equal(q3_dtype_block_bytes(type), types[i].bytes);
		assert_int_equal(q3_dtype_row_bytes(type, 3 * types[i].block), 3 * types[i].bytes);
		if (types[i].block > 1)
			assert_int_equal(q3_dtype_row_bytes(type, types[i].block + 1), 0);
	}
	for (unsigned type = 0; type < 100; type++)
		supported += q3_dtype_supported(type);
	assert_int_equal(supported, sizeof(types) / sizeof(types[0]));
	assert_string_equal(q3_dtype_name(10), "Q2_K");
	assert_string_equal(q3_dtype_name(34), "TQ1_0");
	assert_null(q3_dtype_name(1000));
	assert_null(q3_dtype_name(UINT32_MAX));
	assert_int_equal(q3_dtype_row_bytes(Q3_F32, UINT64_MAX), 0);
	assert_int_equal(q3_dtype_row_bytes(1000, 32), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sample),
	    cmocka_unit_test(test_empty_array_and_no_tensors),
	    cmocka_unit_test(test_alignment),
	    cmocka_unit_test(test_every_truncation),
	    cmocka_unit_test(test_every_byte_changed),
	    cmocka_unit_test(test_header_errors),
	    cmocka_unit_test(test_metadata_errors),
	    cmocka_unit_test(test_tensor_errors),
	    cmocka_unit_test(test_names_in_messages),
	    cmocka_unit_test(test_many_keys),
	    cmocka_unit_test(test_files),
	    cmocka_unit_test(test_dtypes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
