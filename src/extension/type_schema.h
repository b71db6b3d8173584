/*
 * type_schema.h: the JSON Schema of a composite type.
 */
#ifndef QWEN3DM_TYPE_SCHEMA_H
#define QWEN3DM_TYPE_SCHEMA_H

#include "lib/stringinfo.h"

/*
 * Appends a JSON Schema, in the database's encoding, whose values json_populate_record() makes rows
 * of this type of: the columns in their order, all required; one that may be NULL may be null.
 * Comments of columns and of the type are descriptions. Raises an error for a type that is not
 * composite, and for a column whose type has no schema.
 */
extern void qwen3dm_append_type_schema(StringInfo s, Oid type);

#endif
