/*
 * schema_text.h: a schema's text as a cJSON tree, and values as JSON text.
 *
 * Pure functions; the caller owns what they return.
 */
#ifndef Q3_SCHEMA_TEXT_H
#define Q3_SCHEMA_TEXT_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "model/error.h"
#include "model/gguf.h"

/*
 * The tree of a JSON text of at most Q3_SCHEMA_MAX_BYTES, to be freed with cJSON_Delete(); NULL and
 * err (Q3_ERR_INVALID, Q3_ERR_UNSUPPORTED, Q3_ERR_MEMORY) otherwise. A number's own text is in its
 * valuestring, because a double cannot hold all of them.
 */
extern cJSON *q3_schema_parse(q3_str text, q3_error *err);

/* A growing text; starts as {0}; data is freed by its owner. */
typedef struct q3_text
{
	char *data;
	size_t len, capacity;
	bool failed; /* out of memory */
} q3_text;

extern void q3_text_add(q3_text *t, const char *data, size_t len);
/* As a JSON string, with its quotes; s is valid UTF-8. */
extern void q3_text_add_string(q3_text *t, const char *s);
/* As one line, in the form that json_schema.h describes. */
extern void q3_text_add_value(q3_text *t, const cJSON *value);

#endif
