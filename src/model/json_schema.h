/*
 * json_schema.h: a JSON Schema compiled for decoding under it (constraint.h).
 *
 * What a schema may say, and how values are written:
 * - one line, with ", " between items and ": " behind keys and no other white space, as Python's
 *   json.dumps() writes by default: the form of it that models have read most;
 * - type, or a list of types; without it, the type that the other keywords are about;
 * - object: properties in the schema's order, required; those that are not required may be left
 *   out. additionalProperties may only be false, which is always the case;
 * - array: items (one schema), minItems, maxItems;
 * - string: minLength, maxLength (characters), pattern (pattern.h), format date, time, date-time,
 *   uuid, email. Every string is valid UTF-8 without U+0000 and lone surrogates;
 * - integer, number: minimum, maximum, exclusiveMinimum, exclusiveMaximum (number_range.h);
 * - boolean, null; enum and const of any values; anyOf; the schema false;
 * - $ref to "#", "#/$defs/NAME" or "#/definitions/NAME", also recursively: values nest at most
 *   Q3_SCHEMA_MAX_NESTING deep;
 * - title, description, default, example, examples, $schema, $id, $comment, deprecated, readOnly
 *   and writeOnly say nothing about the value.
 * Everything else is an error that names the keyword and where it stands.
 *
 * A q3_schema owns its memory and is immutable but for the masks that constraints keep in it (under
 * a lock): any number of threads may use it, with one vocabulary.
 */
#ifndef Q3_JSON_SCHEMA_H
#define Q3_JSON_SCHEMA_H

#include "model/error.h"
#include "model/gguf.h"

/* Values within values. */
#define Q3_SCHEMA_MAX_NESTING 64
/* Bytes of a schema's text. */
#define Q3_SCHEMA_MAX_BYTES (1024 * 1024)

typedef struct q3_schema q3_schema;

/*
 * NULL and err on failure: Q3_ERR_INVALID (not JSON, an unknown or contradictory keyword, nothing
 * is valid under it), Q3_ERR_UNSUPPORTED (too large), Q3_ERR_MEMORY. The detail says where.
 */
extern q3_schema *q3_schema_compile(q3_str text, q3_error *err);
extern void q3_schema_free(q3_schema *s);

#endif
