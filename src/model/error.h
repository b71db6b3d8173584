/*
 * error.h: how everything below the extension reports a failure.
 *
 * A function that can fail takes a q3_error * as its last argument, returns NULL or a code other
 * than Q3_OK, and fills the struct once. Nothing here prints, exits or aborts. The strings follow
 * PostgreSQL's style (lower-case message without a period; detail and hint as sentences), because
 * they end up in an SQL error unchanged. They never hold text that came from a row.
 */
#ifndef Q3_ERROR_H
#define Q3_ERROR_H

typedef enum q3_code
{
	Q3_OK = 0,
	Q3_ERR_IO,          /* a file or a descriptor could not be read */
	Q3_ERR_FORMAT,      /* the model file is damaged or lies about itself */
	Q3_ERR_UNSUPPORTED, /* well-formed, but something that we cannot run */
	Q3_ERR_INVALID,     /* an argument of the request is out of its range */
	Q3_ERR_TOO_LONG,    /* the input exceeds the context length */
	Q3_ERR_MEMORY,      /* out of memory */
	Q3_ERR_CANCELLED,   /* the caller asked to stop */
	Q3_ERR_LIMIT,       /* more than the configuration allows, at present */
	Q3_ERR_INTERNAL     /* a bug */
} q3_code;

typedef struct q3_error
{
	q3_code code;
	char message[256];
	char detail[512];
	char hint[256];
} q3_error;

/* Fills err (which may be NULL) and returns code, so that "return q3_fail(...)" reads well. */
extern q3_code q3_fail(q3_error *err, q3_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Add a sentence to an error that has been filled already. */
extern void q3_error_detail(q3_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
extern void q3_error_hint(q3_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
