/*
 * gguf.h: reading GGUF v2 and v3 model files.
 *
 * The file is mapped read-only and shared; every pointer that these functions return points into
 * the mapping or into the q3_gguf itself and lives until q3_gguf_close(). Every length, count and
 * offset is checked against the file's size before it is used, so that a truncated or hostile file
 * gives an error and never a crash, a hang or an allocation larger than a small multiple of the
 * file. A q3_gguf is immutable after opening: any number of threads may read it.
 */
#ifndef Q3_GGUF_H
#define Q3_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "model/error.h"

typedef struct q3_gguf q3_gguf;

/* A string of the file: bytes, not NUL-terminated. */
typedef struct q3_str
{
	const char *data;
	size_t len;
} q3_str;

/* Value types as GGUF numbers them. */
typedef enum q3_gguf_type
{
	Q3_GGUF_U8 = 0,
	Q3_GGUF_I8,
	Q3_GGUF_U16,
	Q3_GGUF_I16,
	Q3_GGUF_U32,
	Q3_GGUF_I32,
	Q3_GGUF_F32,
	Q3_GGUF_BOOL,
	Q3_GGUF_STRING,
	Q3_GGUF_ARRAY,
	Q3_GGUF_U64,
	Q3_GGUF_I64,
	Q3_GGUF_F64
} q3_gguf_type;

typedef struct q3_tensor
{
	q3_str name;
	q3_dtype type;
	int n_dims;       /* 1 to 4 */
	uint64_t dims[4]; /* dims[0] is the contiguous one: a matrix [out][in] has dims {in, out} */
	const void *data; /* in the mapping */
	size_t n_bytes;   /* of data: rows * q3_dtype_row_bytes(type, dims[0]) */
} q3_tensor;

/* Maps and checks the file. NULL and err on failure. */
extern q3_gguf *q3_gguf_open(const char *path, q3_error *err);
/* The same over caller-owned memory that must outlive the result (tests and fuzzing). */
extern q3_gguf *q3_gguf_open_memory(const void *data, size_t size, q3_error *err);
extern void q3_gguf_close(q3_gguf *g);

extern uint32_t q3_gguf_version(const q3_gguf *g);
/* The mapped bytes themselves (for the digest) and their number. */
extern const void *q3_gguf_data(const q3_gguf *g, size_t *size);

/*
 * Metadata. Each getter returns false when the key is absent or has another kind of value;
 * integers of any width and sign convert when they fit, F32 and F64 alike give a double.
 */
extern bool q3_gguf_get_u64(const q3_gguf *g, const char *key, uint64_t *value);
extern bool q3_gguf_get_f64(const q3_gguf *g, const char *key, double *value);
extern bool q3_gguf_get_bool(const q3_gguf *g, const char *key, bool *value);
extern bool q3_gguf_get_str(const q3_gguf *g, const char *key, q3_str *value);
/* Arrays: element type and count; then one element by index in O(1) (strings are indexed on open).
 */
extern bool q3_gguf_get_array(const q3_gguf *g, const char *key, q3_gguf_type *type, size_t *count);
extern bool q3_gguf_array_str(const q3_gguf *g, const char *key, size_t i, q3_str *value);
extern bool q3_gguf_array_i64(const q3_gguf *g, const char *key, size_t i, int64_t *value);
extern bool q3_gguf_array_f64(const q3_gguf *g, const char *key, size_t i, double *value);

/*
 * A faster way for loops over one array (a vocabulary has 150,000 strings): the array's address is
 * found once. NULL when absent or not an array of strings.
 */
extern const q3_str *q3_gguf_strings(const q3_gguf *g, const char *key, size_t *count);

/* Number of metadata entries and the key and type of the i-th, in file order (for "inspect"). */
extern size_t q3_gguf_n_kv(const q3_gguf *g);
extern q3_gguf_type q3_gguf_kv(const q3_gguf *g, size_t i, q3_str *key);

/* Tensors: by name, or by index in file order. NULL when there is none. */
extern size_t q3_gguf_n_tensors(const q3_gguf *g);
extern const q3_tensor *q3_gguf_tensor(const q3_gguf *g, size_t i);
extern const q3_tensor *q3_gguf_find_tensor(const q3_gguf *g, const char *name);

#endif
