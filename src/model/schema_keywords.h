/*
 * schema_keywords.h: the keywords of one schema within a JSON Schema, read and checked, and errors
 * that say where they are. Part of json_schema.c's compiler, and of its stack.
 */
#ifndef Q3_SCHEMA_KEYWORDS_H
#define Q3_SCHEMA_KEYWORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "model/error.h"

typedef enum q3_keyword
{
	KW_TYPE,
	KW_ENUM,
	KW_CONST,
	KW_ANY_OF,
	KW_REF,
	KW_PROPERTIES,
	KW_REQUIRED,
	KW_ADDITIONAL,
	KW_ITEMS,
	KW_MIN_ITEMS,
	KW_MAX_ITEMS,
	KW_MIN_LENGTH,
	KW_MAX_LENGTH,
	KW_PATTERN,
	KW_FORMAT,
	KW_MINIMUM,
	KW_MAXIMUM,
	KW_ABOVE,
	KW_BELOW,
	KW_DEFS,
	KW_DEFINITIONS,
	N_KEYWORDS
} q3_keyword;

extern const char *const q3_schema_keyword_names[N_KEYWORDS];

/* Types, as bits. */
enum
{
	TYPE_OBJECT = 1,
	TYPE_ARRAY = 2,
	TYPE_STRING = 4,
	TYPE_NUMBER = 8,
	TYPE_INTEGER = 16,
	TYPE_BOOLEAN = 32,
	TYPE_NULL = 64
};

#define BIT(k) (1u << (k))
#define OBJECT_KEYWORDS (BIT(KW_PROPERTIES) | BIT(KW_REQUIRED) | BIT(KW_ADDITIONAL))
#define ARRAY_KEYWORDS (BIT(KW_ITEMS) | BIT(KW_MIN_ITEMS) | BIT(KW_MAX_ITEMS))
#define STRING_KEYWORDS (BIT(KW_MIN_LENGTH) | BIT(KW_MAX_LENGTH) | BIT(KW_PATTERN) | BIT(KW_FORMAT))
#define NUMBER_KEYWORDS (BIT(KW_MINIMUM) | BIT(KW_MAXIMUM) | BIT(KW_ABOVE) | BIT(KW_BELOW))
#define DEFINITION_KEYWORDS (BIT(KW_DEFS) | BIT(KW_DEFINITIONS))

/* The keywords of one schema. */
typedef struct q3_keywords
{
	const cJSON *value[N_KEYWORDS]; /* NULL: absent */
	uint32_t present;               /* bits */
} q3_keywords;

/* Where the compiler is, and what went wrong. */
typedef struct q3_schema_reader
{
	const cJSON *root;
	q3_error *err;
	q3_code code;   /* the first failure */
	char path[200]; /* JSON pointer of the schema that is being compiled */
} q3_schema_reader;

/* Appends "/name" to the path, as far as there is room; returns the length before, for leave(). */
extern size_t q3_schema_enter(q3_schema_reader *c, const char *name);
extern void q3_schema_leave(q3_schema_reader *c, size_t before);

/* Notes the first failure and its place. name may be NULL: the schema itself. */
extern void q3_schema_fail(q3_schema_reader *c, q3_code code, const char *name, const char *fmt,
                           ...) __attribute__((format(printf, 4, 5)));
extern void q3_schema_out_of_memory(q3_schema_reader *c);
extern void q3_schema_too_large(q3_schema_reader *c);
extern void q3_schema_wrong_value(q3_schema_reader *c, q3_keyword k, const char *wanted);

/* The keywords of a schema that is an object; what is not supported is a failure. */
extern void q3_schema_read(q3_schema_reader *c, const cJSON *json, q3_keywords *k);
/* The keyword decides alone: beside it only those in others may stand. */
extern void q3_schema_check_alone(q3_schema_reader *c, const q3_keywords *k, q3_keyword alone,
                                  uint32_t others);
/* A count that is not negative, or what stands for its absence. */
extern int32_t q3_schema_count(q3_schema_reader *c, const q3_keywords *k, q3_keyword which,
                               int32_t absent);
extern void q3_schema_check_counts(q3_schema_reader *c, q3_keyword min_name, int32_t min,
                                   q3_keyword max_name, int32_t max);
/* The types that the schema allows, as bits; 0 after a failure, or when none are given. */
extern uint32_t q3_schema_types(q3_schema_reader *c, const q3_keywords *k);

#endif
