/*
 * tools.h: the commands of qwen3dm-engine, and what they share.
 *
 * Every tool takes its own argc and argv and returns the exit code: 0, 1 after an error (a line on
 * stderr), 2 after wrong usage. Results are JSON on stdout. All of it runs on the main thread.
 */
#ifndef Q3_TOOLS_H
#define Q3_TOOLS_H

#include <cjson/cJSON.h>

#include "engine/job.h"
#include "engine/options.h"

extern int q3_tool_serve(int argc, char **argv);
extern int q3_tool_inspect(int argc, char **argv);
extern int q3_tool_tokenize(int argc, char **argv);
extern int q3_tool_detokenize(int argc, char **argv);
extern int q3_tool_logits(int argc, char **argv);
extern int q3_tool_generate(int argc, char **argv);
extern int q3_tool_embed(int argc, char **argv);
extern int q3_tool_bench(int argc, char **argv);
extern int q3_tool_rows(int argc, char **argv);

/* "qwen3dm-engine: message", detail and hint on stderr; returns 1. */
extern int q3_tool_error(const q3_error *err);
/* Wrong usage found after parsing; returns 2. */
extern int q3_tool_usage(const char *tool, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Prints the object on one line (or formatted) and deletes it; returns the exit code. */
extern int q3_tool_print(cJSON *json, bool formatted);
/* Adds text that need not be UTF-8 or NUL-terminated; what is invalid becomes U+FFFD. */
extern void q3_tool_add_text(cJSON *object, const char *key, const char *text, size_t len);
extern void q3_tool_add_number(cJSON *object, const char *key, double value, int decimals);
extern bool q3_tool_parse_mode(const char *text, q3_mode *mode);
extern const char *q3_tool_mode_name(q3_mode mode);
/* All of a stream, malloc'ed; NULL and err on failure. */
extern char *q3_tool_read_all(int fd, size_t *len, q3_error *err);

/* A model with a runtime, as the options say. */
typedef struct q3_tool_model
{
	const char *path;
	const char *mode_name; /* may be NULL: precise */
	const char *kv;        /* "f16", "f32" or NULL */
	int32_t threads, context_length, max_batch_tokens;
	uint64_t kv_bytes;
	int32_t efficient_bits; /* 4, 8, or 0: 8 */
	bool exact_weights, no_prefix_cache;
	bool packed;          /* pack the weights for mode precise, too, as the server does */
	int32_t kv_sequences; /* instead of kv_bytes: room for so many of context_length; 0: off */

	q3_mode mode;
	q3_model *model;
	q3_runtime *rt;
	q3_runtime_info info;
} q3_tool_model;

/* Options that several tools have, for their tables. */
#define Q3_TOOL_MODEL_OPTION(m)                                                                    \
	{                                                                                              \
		"model", 'm', Q3_OPT_STRING, &(m).path, NULL, 0, 0, "FILE", "the model, a GGUF file"       \
	}
#define Q3_TOOL_THREADS_OPTION(m)                                                                  \
	{                                                                                              \
		"threads", 't', Q3_OPT_INT, &(m).threads, NULL, 0, 1024, "N",                              \
		    "compute threads (0, the default: all cores)"                                          \
	}
#define Q3_TOOL_KV_OPTION(m)                                                                       \
	{                                                                                              \
		"kv", 0, Q3_OPT_STRING, &(m).kv, NULL, 0, 0, "TYPE",                                       \
		    "type of the key-value cache: f32 (default) or f16"                                    \
	}
#define Q3_TOOL_MODE_OPTION(m)                                                                     \
	{                                                                                              \
		"mode", 0, Q3_OPT_STRING, &(m).mode_name, NULL, 0, 0, "MODE",                              \
		    "precise (default) or efficient"                                                       \
	}

#define Q3_TOOL_BITS_OPTION(m)                                                                     \
	{                                                                                              \
		"efficient-bits", 0, Q3_OPT_INT, &(m).efficient_bits, NULL, 4, 8, "N",                     \
		    "bits of the packed weights that mode efficient reads: 8 (default) or 4"               \
	}
#define Q3_TOOL_EXACT_OPTION(m)                                                                    \
	{                                                                                              \
		"exact-weights", 0, Q3_OPT_FLAG, &(m).exact_weights, NULL, 0, 0, NULL,                     \
		    "mode precise reads the file's own weights"                                            \
	}

#define Q3_TOOL_PACKED_OPTION(m)                                                                   \
	{                                                                                              \
		"packed", 0, Q3_OPT_FLAG, &(m).packed, NULL, 0, 0, NULL,                                   \
		    "mode precise reads packed weights, as the server does (default: the file's own)"      \
	}

/* Checks strings and numbers: 0, or 2 after a message. */
extern int q3_tool_model_check(q3_tool_model *m, const char *tool);
/* Loads model and runtime: 0, or 1 after a message. Always followed by close. */
extern int q3_tool_model_open(q3_tool_model *m);
extern void q3_tool_model_close(q3_tool_model *m);
/* Has all memory for keys and values ready, as the service has after its first idle seconds. */
extern void q3_tool_warm(q3_tool_model *m);

#endif
