/*
 * gguf.c: reading GGUF v2 and v3 files.
 *
 * The file is mapped once and walked once, front to back, with a cursor that checks every length
 * before it moves. What is found is kept as pointers into the mapping, in three kinds of arrays
 * that the q3_gguf owns: metadata entries, tensors, and the addresses of strings in arrays. A count
 * is believed only if the bytes that are left could hold so many items, which bounds the memory by
 * a small multiple of the file. Names are found through a sorted index: sorting costs n log n
 * whatever the names are, where the worst case of a hash table could be made to happen.
 *
 * Opening happens on one thread; afterwards nothing changes and any thread may read. A file that is
 * cut short by somebody while it is mapped raises SIGBUS on the next access to the missing part, as
 * with every mapping; only a file that is replaced by rename is safe to update under a running
 * engine.
 */
#include "model/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "GGUF files are little-endian and are used in place");

#define DEFAULT_ALIGNMENT 32
#define MIN_ALIGNMENT 8 /* as the format's description wants it: enough for every number in it */
#define MAX_KEY_BYTES 65535
#define MIN_KV_BYTES (8 + 1 + 4 + 1)             /* key of one byte, type, one-byte value */
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 8 + 4 + 8) /* name of one byte, one dimension */

/* The name comes first in kv and q3_tensor, so that one index serves both. */
typedef struct kv
{
	q3_str key;
	q3_gguf_type type;
	q3_gguf_type elem;          /* of an array */
	size_t count;               /* of an array */
	const unsigned char *value; /* the scalar, the string with its length, or the first element */
	q3_str *strings;            /* of an array of strings, malloc'ed */
} kv;

typedef struct name_index
{
	const q3_str **sorted;
	size_t n;
} name_index;

struct q3_gguf
{
	const unsigned char *data;
	size_t size;
	bool mapped; /* data is ours to unmap */
	char label[120];
	uint32_t version;
	size_t n_kv, n_tensors;
	kv *kvs;
	q3_tensor *tensors;
	name_index kv_index, tensor_index;
};

typedef struct cursor
{
	const q3_gguf *g;
	size_t pos;
	q3_error *err;
} cursor;

static const size_t scalar_bytes[] = {
    [Q3_GGUF_U8] = 1,    [Q3_GGUF_I8] = 1,  [Q3_GGUF_U16] = 2, [Q3_GGUF_I16] = 2,
    [Q3_GGUF_U32] = 4,   [Q3_GGUF_I32] = 4, [Q3_GGUF_F32] = 4, [Q3_GGUF_BOOL] = 1,
    [Q3_GGUF_U64] = 8,   [Q3_GGUF_I64] = 8, [Q3_GGUF_F64] = 8, [Q3_GGUF_STRING] = 0,
    [Q3_GGUF_ARRAY] = 0,
};

/* ---------------------------------------------------------------------------------------------
 * Text for messages
 * --------------------------------------------------------------------------------------------- */

typedef struct shown
{
	char text[64];
} shown;

/* A name of the file as it may stand in a message: short and plain ASCII, whatever it holds. */
static shown
show(q3_str s)
{
	shown out;
	size_t max = sizeof(out.text) - 4;
	size_t n = s.len < max ? s.len : max;

	for (size_t i = 0; i < n; i++)
		out.text[i] = s.data[i] >= 0x20 && s.data[i] < 0x7f ? s.data[i] : '?';
	strcpy(out.text + n, s.len > max ? "..." : "");
	return out;
}

/* "model file "PATH"", the path's end when it is long, never cut inside a UTF-8 character. */
static void
set_label(q3_gguf *g, const char *path)
{
	size_t max = sizeof(g->label) - sizeof("model file \"...\"");
	size_t len = path != NULL ? strlen(path) : 0;
	const char *tail = path;

	if (path == NULL)
	{
		strcpy(g->label, "model file");
		return;
	}
	if (len > max)
	{
		tail += len - max;
		while (((unsigned char) *tail & 0xc0) == 0x80)
			tail++;
	}
	snprintf(g->label, sizeof(g->label), "model file \"%s%s\"", tail != path ? "..." : "", tail);
}

/* ---------------------------------------------------------------------------------------------
 * The cursor
 * --------------------------------------------------------------------------------------------- */

static size_t
left(const cursor *c)
{
	return c->g->size - c->pos;
}

static bool
truncated(cursor *c, const char *what, uint64_t need)
{
	q3_fail(c->err, Q3_ERR_FORMAT, "%s is truncated: %s needs %" PRIu64 " bytes at byte %zu of %zu",
	        c->g->label, what, need, c->pos, c->g->size);
	return false;
}

/* Address of the next n bytes, moving past them; NULL when they are not there. */
static const unsigned char *
take(cursor *c, uint64_t n, const char *what)
{
	const unsigned char *p = c->g->data + c->pos;

	if (n > left(c))
	{
		truncated(c, what, n);
		return NULL;
	}
	c->pos += (size_t) n;
	return p;
}

static bool
take_u32(cursor *c, uint32_t *value, const char *what)
{
	const unsigned char *p = take(c, sizeof(*value), what);

	if (p != NULL)
		memcpy(value, p, sizeof(*value));
	return p != NULL;
}

static bool
take_u64(cursor *c, uint64_t *value, const char *what)
{
	const unsigned char *p = take(c, sizeof(*value), what);

	if (p != NULL)
		memcpy(value, p, sizeof(*value));
	return p != NULL;
}

static bool
take_str(cursor *c, q3_str *s, const char *what)
{
	uint64_t len;
	const unsigned char *p;

	if (!take_u64(c, &len, what) || (p = take(c, len, what)) == NULL)
		return false;
	s->data = (const char *) p;
	s->len = (size_t) len;
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * The index of names
 * --------------------------------------------------------------------------------------------- */

static int
compare_str(const q3_str *a, const q3_str *b)
{
	int order = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);

	return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

static int
compare_entry(const void *a, const void *b)
{
	return compare_str(*(const q3_str *const *) a, *(const q3_str *const *) b);
}

/* items: n structs of `stride` bytes that begin with their q3_str. A name used twice is an error.
 */
static bool
index_build(name_index *index, const void *items, size_t stride, size_t n, const char *what,
            const cursor *c)
{
	if (n == 0)
		return true;
	index->sorted = malloc(n * sizeof(*index->sorted));
	if (index->sorted == NULL)
	{
		q3_fail(c->err, Q3_ERR_MEMORY, "out of memory while reading %s", c->g->label);
		return false;
	}
	index->n = n;
	for (size_t i = 0; i < n; i++)
		index->sorted[i] = (const q3_str *) ((const char *) items + i * stride);
	qsort(index->sorted, n, sizeof(*index->sorted), compare_entry);
	for (size_t i = 1; i < n; i++)
	{
		if (compare_str(index->sorted[i - 1], index->sorted[i]) == 0)
		{
			q3_fail(c->err, Q3_ERR_FORMAT, "%s is damaged: %s \"%s\" occurs twice", c->g->label,
			        what, show(*index->sorted[i]).text);
			return false;
		}
	}
	return true;
}

static const void *
index_find(const name_index *index, const char *name)
{
	q3_str want = {name, strlen(name)};
	size_t low = 0, high = index->n;

	while (low < high)
	{
		size_t mid = low + (high - low) / 2;
		int order = compare_str(&want, index->sorted[mid]);

		if (order == 0)
			return index->sorted[mid];
		if (order < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------------
 * Header and metadata
 * --------------------------------------------------------------------------------------------- */

static bool
bad_magic(cursor *c)
{
	const unsigned char *m = c->g->data;
	static const char lfs[] = "version https://git-lfs";

	q3_fail(c->err, Q3_ERR_FORMAT, "%s is not a GGUF file", c->g->label);
	q3_error_detail(c->err, "It begins with the bytes %02x %02x %02x %02x, not with \"GGUF\".",
	                m[0], m[1], m[2], m[3]);
	if (c->g->size >= sizeof(lfs) - 1 && memcmp(m, lfs, sizeof(lfs) - 1) == 0)
		q3_error_hint(c->err, "This is a Git LFS pointer; fetch the file it stands for.");
	return false;
}

static bool
read_header(q3_gguf *g, cursor *c)
{
	const unsigned char *magic = take(c, 4, "the header");
	uint64_t n_tensors, n_kv;

	if (magic == NULL)
		return false;
	if (memcmp(magic, "GGUF", 4) != 0)
		return bad_magic(c);
	if (!take_u32(c, &g->version, "the header"))
		return false;
	if (g->version != 0 && (g->version & 0xffff) == 0)
	{
		q3_fail(c->err, Q3_ERR_UNSUPPORTED, "%s is big-endian, which is not supported", g->label);
		return false;
	}
	if (g->version != 2 && g->version != 3)
	{
		q3_fail(c->err, Q3_ERR_UNSUPPORTED,
		        "%s has GGUF version %" PRIu32 ", which is not supported", g->label, g->version);
		q3_error_detail(c->err, "Versions 2 and 3 are supported.");
		return false;
	}
	if (!take_u64(c, &n_tensors, "the header") || !take_u64(c, &n_kv, "the header"))
		return false;
	if (n_kv > left(c) / MIN_KV_BYTES || n_tensors > left(c) / MIN_TENSOR_BYTES)
	{
		q3_fail(c->err, Q3_ERR_FORMAT,
		        "%s is truncated: its header announces %" PRIu64 " metadata entries and %" PRIu64
		        " tensors, which do not fit into %zu bytes",
		        g->label, n_kv, n_tensors, g->size);
		return false;
	}
	g->kvs = calloc(n_kv + 1, sizeof(*g->kvs));
	g->tensors = calloc(n_tensors + 1, sizeof(*g->tensors));
	if (g->kvs == NULL || g->tensors == NULL)
	{
		q3_fail(c->err, Q3_ERR_MEMORY, "out of memory while reading %s", g->label);
		return false;
	}
	g->n_kv = (size_t) n_kv;
	g->n_tensors = (size_t) n_tensors;
	return true;
}

static bool
damaged_kv(const cursor *c, const kv *e, const char *why)
{
	q3_fail(c->err, Q3_ERR_FORMAT, "%s is damaged: metadata key \"%s\" %s", c->g->label,
	        show(e->key).text, why);
	return false;
}

static bool
too_many_elements(const cursor *c, const kv *e, uint64_t count)
{
	q3_fail(c->err, Q3_ERR_FORMAT,
	        "%s is truncated: metadata key \"%s\" announces %" PRIu64
	        " elements, which do not fit into %zu bytes",
	        c->g->label, show(e->key).text, count, c->g->size);
	return false;
}

/* Remembers where the strings of an array are, so that any of them is found at once. */
static bool
read_strings(cursor *c, kv *e)
{
	if (e->count > left(c) / sizeof(uint64_t))
		return too_many_elements(c, e, e->count);
	if (e->count == 0)
		return true;
	e->strings = malloc(e->count * sizeof(*e->strings));
	if (e->strings == NULL)
	{
		q3_fail(c->err, Q3_ERR_MEMORY, "out of memory while reading %s", c->g->label);
		return false;
	}
	for (size_t i = 0; i < e->count; i++)
		if (!take_str(c, &e->strings[i], "a string of a metadata array"))
			return false;
	return true;
}

static bool
read_array(cursor *c, kv *e)
{
	uint32_t elem;
	uint64_t count;

	if (!take_u32(c, &elem, "a metadata array") || !take_u64(c, &count, "a metadata array"))
		return false;
	if (elem > Q3_GGUF_F64)
		return damaged_kv(c, e, "is an array of an unknown type");
	if (elem == Q3_GGUF_ARRAY)
	{
		q3_fail(c->err, Q3_ERR_UNSUPPORTED,
		        "%s is not supported: metadata key \"%s\" is an array of arrays", c->g->label,
		        show(e->key).text);
		return false;
	}
	e->elem = (q3_gguf_type) elem;
	e->value = c->g->data + c->pos;
	if (count > left(c))
		return too_many_elements(c, e, count);
	e->count = (size_t) count;
	if (elem == Q3_GGUF_STRING)
		return read_strings(c, e);
	return take(c, count * scalar_bytes[elem], "a metadata array") != NULL;
}

static bool
read_kv(cursor *c, kv *e)
{
	uint32_t type;
	q3_str ignored;

	if (!take_str(c, &e->key, "a metadata key") || !take_u32(c, &type, "a metadata value"))
		return false;
	if (e->key.len == 0 || e->key.len > MAX_KEY_BYTES)
		return damaged_kv(c, e, "has a length that is not allowed");
	if (type > Q3_GGUF_F64)
		return damaged_kv(c, e, "has an unknown type");
	e->type = (q3_gguf_type) type;
	e->value = c->g->data + c->pos;
	if (type == Q3_GGUF_ARRAY)
		return read_array(c, e);
	if (type == Q3_GGUF_STRING)
		return take_str(c, &ignored, "a metadata string");
	if (take(c, scalar_bytes[type], "a metadata value") == NULL)
		return false;
	if (type == Q3_GGUF_BOOL && *e->value > 1)
		return damaged_kv(c, e, "is a boolean that is neither 0 nor 1");
	return true;
}

static bool
read_metadata(q3_gguf *g, cursor *c)
{
	for (size_t i = 0; i < g->n_kv; i++)
		if (!read_kv(c, &g->kvs[i]))
			return false;
	return index_build(&g->kv_index, g->kvs, sizeof(kv), g->n_kv, "metadata key", c);
}

/* ---------------------------------------------------------------------------------------------
 * Tensors
 * --------------------------------------------------------------------------------------------- */

static bool
damaged_tensor(const cursor *c, const q3_tensor *t, const char *why)
{
	q3_fail(c->err, Q3_ERR_FORMAT, "%s is damaged: tensor \"%s\" %s", c->g->label,
	        show(t->name).text, why);
	return false;
}

static bool
unsupported_tensor(const cursor *c, const q3_tensor *t, uint32_t type)
{
	const char *name = q3_dtype_name(type);

	if (name != NULL)
		q3_fail(c->err, Q3_ERR_UNSUPPORTED, "%s is not supported: tensor \"%s\" has type %s",
		        c->g->label, show(t->name).text, name);
	else
		q3_fail(c->err, Q3_ERR_UNSUPPORTED,
		        "%s is not supported: tensor \"%s\" has the unknown type %" PRIu32, c->g->label,
		        show(t->name).text, type);
	q3_error_detail(c->err, "The supported types are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, "
	                        "Q4_K, Q5_K and Q6_K.");
	return false;
}

/* Sets n_bytes from type and dims. */
static bool
measure_tensor(const cursor *c, q3_tensor *t)
{
	uint64_t rows = 1, n_bytes;
	size_t row_bytes;

	for (int i = 0; i < t->n_dims; i++)
		if (t->dims[i] == 0)
			return damaged_tensor(c, t, "has a dimension of zero");
	if (t->dims[0] % q3_dtype_block(t->type) != 0)
		return damaged_tensor(c, t, "has rows that are no multiple of its type's block");
	row_bytes = q3_dtype_row_bytes(t->type, t->dims[0]);
	for (int i = 1; i < t->n_dims; i++)
		if (__builtin_mul_overflow(rows, t->dims[i], &rows))
			return damaged_tensor(c, t, "has impossible dimensions");
	if (row_bytes == 0 || __builtin_mul_overflow(rows, (uint64_t) row_bytes, &n_bytes) ||
	    n_bytes > SIZE_MAX)
		return damaged_tensor(c, t, "has impossible dimensions");
	t->n_bytes = (size_t) n_bytes;
	return true;
}

/* One entry of the directory; *offset counts from the start of the data section. */
static bool
read_tensor(cursor *c, q3_tensor *t, uint64_t *offset)
{
	uint32_t n_dims, type;

	if (!take_str(c, &t->name, "a tensor's name") || !take_u32(c, &n_dims, "a tensor's shape"))
		return false;
	if (t->name.len == 0)
		return damaged_tensor(c, t, "has no name");
	if (n_dims < 1 || n_dims > 4)
		return damaged_tensor(c, t, "does not have 1 to 4 dimensions");
	t->n_dims = (int) n_dims;
	for (int i = 0; i < 4; i++)
	{
		t->dims[i] = 1;
		if (i < t->n_dims && !take_u64(c, &t->dims[i], "a tensor's shape"))
			return false;
	}
	if (!take_u32(c, &type, "a tensor's type") || !take_u64(c, offset, "a tensor's offset"))
		return false;
	if (!q3_dtype_supported(type))
		return unsupported_tensor(c, t, type);
	t->type = (q3_dtype) type;
	return measure_tensor(c, t);
}

/* Turns an offset into an address, now that the start of the data section is known. */
static bool
place_tensor(const q3_gguf *g, const cursor *c, q3_tensor *t, uint64_t data_start, uint64_t offset,
             uint64_t alignment)
{
	uint64_t begin, end;

	if (offset % alignment != 0)
		return damaged_tensor(c, t, "is not aligned");
	if (__builtin_add_overflow(data_start, offset, &begin) ||
	    __builtin_add_overflow(begin, (uint64_t) t->n_bytes, &end))
		return damaged_tensor(c, t, "has an impossible offset");
	if (end > g->size)
	{
		q3_fail(c->err, Q3_ERR_FORMAT,
		        "%s is truncated: tensor \"%s\" ends at byte %" PRIu64 " of %zu", g->label,
		        show(t->name).text, end, g->size);
		q3_error_hint(c->err, "Perhaps the file was not downloaded or copied completely.");
		return false;
	}
	t->data = g->data + begin;
	return true;
}

static bool
read_alignment(const q3_gguf *g, const cursor *c, uint64_t *alignment)
{
	static const char key[] = "general.alignment";

	*alignment = DEFAULT_ALIGNMENT;
	if (index_find(&g->kv_index, key) == NULL)
		return true;
	if (!q3_gguf_get_u64(g, key, alignment) || *alignment < MIN_ALIGNMENT ||
	    *alignment > UINT32_MAX || (*alignment & (*alignment - 1)) != 0)
	{
		q3_fail(c->err, Q3_ERR_FORMAT,
		        "%s is damaged: general.alignment is not a power of two of at least %d", g->label,
		        MIN_ALIGNMENT);
		return false;
	}
	return true;
}

static bool
read_tensors(q3_gguf *g, cursor *c)
{
	uint64_t alignment, data_start;
	uint64_t *offsets;
	bool ok;

	if (!read_alignment(g, c, &alignment))
		return false;
	offsets = malloc((g->n_tensors + 1) * sizeof(*offsets));
	ok = offsets != NULL;
	if (!ok)
		q3_fail(c->err, Q3_ERR_MEMORY, "out of memory while reading %s", g->label);
	for (size_t i = 0; ok && i < g->n_tensors; i++)
		ok = read_tensor(c, &g->tensors[i], &offsets[i]);
	ok = ok &&
	     index_build(&g->tensor_index, g->tensors, sizeof(q3_tensor), g->n_tensors, "tensor", c);
	data_start = ((uint64_t) c->pos + alignment - 1) & ~(alignment - 1);
	for (size_t i = 0; ok && i < g->n_tensors; i++)
		ok = place_tensor(g, c, &g->tensors[i], data_start, offsets[i], alignment);
	free(offsets);
	return ok;
}

/* ---------------------------------------------------------------------------------------------
 * Opening and closing
 * --------------------------------------------------------------------------------------------- */

static q3_gguf *
gguf_new(const char *path, q3_error *err)
{
	q3_gguf *g = calloc(1, sizeof(*g));

	if (g == NULL)
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	else
		set_label(g, path);
	return g;
}

/* Reads what g->data holds; closes g when that fails. */
static q3_gguf *
gguf_parse(q3_gguf *g, q3_error *err)
{
	cursor c = {g, 0, err};

	if (read_header(g, &c) && read_metadata(g, &c) && read_tensors(g, &c))
		return g;
	q3_gguf_close(g);
	return NULL;
}

/* Maps the file behind fd; the mapping outlives the descriptor. */
static bool
map_file(q3_gguf *g, int fd, q3_error *err)
{
	struct stat st;
	void *data;

	if (fstat(fd, &st) != 0)
	{
		q3_fail(err, Q3_ERR_IO, "could not stat %s: %s", g->label, strerror(errno));
		return false;
	}
	if (!S_ISREG(st.st_mode))
	{
		q3_fail(err, Q3_ERR_IO, "%s is %s", g->label,
		        S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
		return false;
	}
	if (st.st_size == 0)
	{
		q3_fail(err, Q3_ERR_FORMAT, "%s is empty", g->label);
		return false;
	}
	data = (uint64_t) st.st_size > SIZE_MAX
	           ? MAP_FAILED
	           : mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (data == MAP_FAILED)
	{
		q3_fail(err, Q3_ERR_IO, "could not map %s: %s", g->label, strerror(errno));
		return false;
	}
	g->data = data;
	g->size = (size_t) st.st_size;
	g->mapped = true;
	return true;
}

q3_gguf *
q3_gguf_open(const char *path, q3_error *err)
{
	q3_gguf *g = gguf_new(path, err);
	bool mapped;
	int fd;

	if (g == NULL)
		return NULL;
	/* Without O_NONBLOCK a FIFO would make us wait for a writer. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
	{
		q3_fail(err, Q3_ERR_IO, "could not open %s: %s", g->label, strerror(errno));
		q3_gguf_close(g);
		return NULL;
	}
	mapped = map_file(g, fd, err);
	close(fd);
	if (!mapped)
	{
		q3_gguf_close(g);
		return NULL;
	}
	return gguf_parse(g, err);
}

q3_gguf *
q3_gguf_open_memory(const void *data, size_t size, q3_error *err)
{
	q3_gguf *g = gguf_new(NULL, err);

	if (g == NULL)
		return NULL;
	g->data = data;
	g->size = size;
	return gguf_parse(g, err);
}

void
q3_gguf_close(q3_gguf *g)
{
	if (g == NULL)
		return;
	for (size_t i = 0; i < g->n_kv; i++)
		free(g->kvs[i].strings);
	free(g->kvs);
	free(g->tensors);
	free(g->kv_index.sorted);
	free(g->tensor_index.sorted);
	if (g->mapped)
		munmap((void *) g->data, g->size);
	free(g);
}

uint32_t
q3_gguf_version(const q3_gguf *g)
{
	return g->version;
}

const void *
q3_gguf_data(const q3_gguf *g, size_t *size)
{
	*size = g->size;
	return g->data;
}

/* ---------------------------------------------------------------------------------------------
 * Getters
 * --------------------------------------------------------------------------------------------- */

/* An integer of any type at p, as 64 bits of two's complement and its sign; false: no integer. */
static bool
load_integer(q3_gguf_type type, const unsigned char *p, uint64_t *bits, bool *negative)
{
	uint64_t u = 0;
	unsigned width = 8 * (unsigned) scalar_bytes[type];
	bool is_signed =
	    type == Q3_GGUF_I8 || type == Q3_GGUF_I16 || type == Q3_GGUF_I32 || type == Q3_GGUF_I64;

	if (width == 0 || type == Q3_GGUF_F32 || type == Q3_GGUF_F64 || type == Q3_GGUF_BOOL)
		return false;
	memcpy(&u, p, width / 8);
	*negative = is_signed && (u >> (width - 1)) != 0;
	if (*negative && width < 64)
		u |= UINT64_MAX << width;
	*bits = u;
	return true;
}

static bool
load_real(q3_gguf_type type, const unsigned char *p, double *value)
{
	float f;

	if (type == Q3_GGUF_F64)
	{
		memcpy(value, p, sizeof(*value));
		return true;
	}
	if (type != Q3_GGUF_F32)
		return false;
	memcpy(&f, p, sizeof(f));
	*value = f;
	return true;
}

static const kv *
find_kv(const q3_gguf *g, const char *key)
{
	return index_find(&g->kv_index, key);
}

bool
q3_gguf_get_u64(const q3_gguf *g, const char *key, uint64_t *value)
{
	const kv *e = find_kv(g, key);
	uint64_t bits;
	bool negative;

	if (e == NULL || !load_integer(e->type, e->value, &bits, &negative) || negative)
		return false;
	*value = bits;
	return true;
}

bool
q3_gguf_get_f64(const q3_gguf *g, const char *key, double *value)
{
	const kv *e = find_kv(g, key);

	return e != NULL && load_real(e->type, e->value, value);
}

bool
q3_gguf_get_bool(const q3_gguf *g, const char *key, bool *value)
{
	const kv *e = find_kv(g, key);

	if (e == NULL || e->type != Q3_GGUF_BOOL)
		return false;
	*value = *e->value != 0;
	return true;
}

bool
q3_gguf_get_str(const q3_gguf *g, const char *key, q3_str *value)
{
	const kv *e = find_kv(g, key);
	uint64_t len;

	if (e == NULL || e->type != Q3_GGUF_STRING)
		return false;
	memcpy(&len, e->value, sizeof(len));
	value->data = (const char *) e->value + sizeof(len);
	value->len = (size_t) len;
	return true;
}

/* The array of that name if it has an i-th element. */
static const kv *
find_element(const q3_gguf *g, const char *key, size_t i)
{
	const kv *e = find_kv(g, key);

	return e != NULL && e->type == Q3_GGUF_ARRAY && i < e->count ? e : NULL;
}

bool
q3_gguf_get_array(const q3_gguf *g, const char *key, q3_gguf_type *type, size_t *count)
{
	const kv *e = find_kv(g, key);

	if (e == NULL || e->type != Q3_GGUF_ARRAY)
		return false;
	*type = e->elem;
	*count = e->count;
	return true;
}

bool
q3_gguf_array_str(const q3_gguf *g, const char *key, size_t i, q3_str *value)
{
	const kv *e = find_element(g, key, i);

	if (e == NULL || e->elem != Q3_GGUF_STRING)
		return false;
	*value = e->strings[i];
	return true;
}

bool
q3_gguf_array_i64(const q3_gguf *g, const char *key, size_t i, int64_t *value)
{
	const kv *e = find_element(g, key, i);
	uint64_t bits;
	bool negative;

	if (e == NULL || !load_integer(e->elem, e->value + i * scalar_bytes[e->elem], &bits, &negative))
		return false;
	if (!negative && bits > INT64_MAX)
		return false;
	*value = (int64_t) bits;
	return true;
}

bool
q3_gguf_array_f64(const q3_gguf *g, const char *key, size_t i, double *value)
{
	const kv *e = find_element(g, key, i);

	return e != NULL && load_real(e->elem, e->value + i * scalar_bytes[e->elem], value);
}

const q3_str *
q3_gguf_strings(const q3_gguf *g, const char *key, size_t *count)
{
	static const q3_str none = {"", 0};
	const kv *e = find_kv(g, key);

	if (e == NULL || e->type != Q3_GGUF_ARRAY || e->elem != Q3_GGUF_STRING)
		return NULL;
	*count = e->count;
	return e->count > 0 ? e->strings : &none;
}

size_t
q3_gguf_n_kv(const q3_gguf *g)
{
	return g->n_kv;
}

q3_gguf_type
q3_gguf_kv(const q3_gguf *g, size_t i, q3_str *key)
{
	*key = g->kvs[i].key;
	return g->kvs[i].type;
}

size_t
q3_gguf_n_tensors(const q3_gguf *g)
{
	return g->n_tensors;
}

const q3_tensor *
q3_gguf_tensor(const q3_gguf *g, size_t i)
{
	return i < g->n_tensors ? &g->tensors[i] : NULL;
}

const q3_tensor *
q3_gguf_find_tensor(const q3_gguf *g, const char *name)
{
	return index_find(&g->tensor_index, name);
}
