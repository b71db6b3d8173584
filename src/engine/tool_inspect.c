/*
 * tool_inspect.c: "qwen3dm-engine inspect": what a GGUF file says about itself, also one that we
 * cannot run.
 */
#include "engine/tools.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct inspect_options
{
	bool tensors, digest;
	const char *path;
} inspect_options;

static void
add_str(cJSON *object, const char *key, const q3_gguf *g, const char *gguf_key)
{
	q3_str s;

	if (q3_gguf_get_str(g, gguf_key, &s))
		q3_tool_add_text(object, key, s.data, s.len);
	else
		cJSON_AddNullToObject(object, key);
}

/* A number of the architecture's own section; left out when absent. */
static void
add_hyper(cJSON *object, const char *key, const q3_gguf *g, const char *architecture)
{
	char full[192];
	uint64_t u;
	double f;

	snprintf(full, sizeof(full), "%s.%s", architecture, key);
	if (q3_gguf_get_u64(g, full, &u))
		cJSON_AddNumberToObject(object, key, (double) u);
	else if (q3_gguf_get_f64(g, full, &f))
		cJSON_AddNumberToObject(object, key, f);
}

static void
add_hyper_parameters(cJSON *json, const q3_gguf *g, const char *architecture)
{
	static const char *const keys[] = {
	    "context_length",
	    "block_count",
	    "embedding_length",
	    "feed_forward_length",
	    "attention.head_count",
	    "attention.head_count_kv",
	    "attention.key_length",
	    "attention.value_length",
	    "rope.freq_base",
	    "rope.dimension_count",
	    "expert_count",
	    "expert_used_count",
	    "attention.layer_norm_rms_epsilon",
	};
	cJSON *hyper = cJSON_AddObjectToObject(json, "hyper_parameters");

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		add_hyper(hyper, keys[i], g, architecture);
}

static void
add_tokenizer(cJSON *json, const q3_gguf *g)
{
	static const struct
	{
		const char *key, *gguf_key;
	} arrays[] = {{"tokens", "tokenizer.ggml.tokens"}, {"merges", "tokenizer.ggml.merges"}};
	cJSON *tok = cJSON_AddObjectToObject(json, "tokenizer");
	bool add_bos;

	add_str(tok, "model", g, "tokenizer.ggml.model");
	add_str(tok, "pre", g, "tokenizer.ggml.pre");
	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
	{
		q3_gguf_type type;
		size_t count;

		if (q3_gguf_get_array(g, arrays[i].gguf_key, &type, &count))
			cJSON_AddNumberToObject(tok, arrays[i].key, (double) count);
	}
	if (q3_gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &add_bos))
		cJSON_AddBoolToObject(tok, "add_bos", add_bos);
}

static uint64_t
elements(const q3_tensor *t)
{
	uint64_t n = 1;

	for (int i = 0; i < t->n_dims; i++)
		n *= t->dims[i];
	return n;
}

/* "Q4_1", or "type 99" for a number without a name. */
static void
type_name(unsigned type, char *out, size_t size)
{
	const char *name = q3_dtype_name(type);

	if (name != NULL)
		snprintf(out, size, "%s", name);
	else
		snprintf(out, size, "type %u", type);
}

/* Adds to a number that may be there already. */
static void
add_to(cJSON *object, const char *key, double value)
{
	cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (item != NULL)
		cJSON_SetNumberValue(item, item->valuedouble + value);
	else
		cJSON_AddNumberToObject(object, key, value);
}

static void
add_tensor_row(cJSON *list, const q3_tensor *t, const char *type)
{
	cJSON *row = cJSON_CreateObject(), *dims;

	q3_tool_add_text(row, "name", t->name.data, t->name.len);
	cJSON_AddStringToObject(row, "type", type);
	dims = cJSON_AddArrayToObject(row, "dims");
	for (int d = 0; d < t->n_dims; d++)
		cJSON_AddItemToArray(dims, cJSON_CreateNumber((double) t->dims[d]));
	cJSON_AddNumberToObject(row, "bytes", (double) t->n_bytes);
	cJSON_AddItemToArray(list, row);
}

static void
add_tensors(cJSON *json, const q3_gguf *g, bool list_them)
{
	double bytes = 0, params = 0;
	cJSON *types = cJSON_CreateObject(), *list = list_them ? cJSON_CreateArray() : NULL;

	for (size_t i = 0; i < q3_gguf_n_tensors(g); i++)
	{
		const q3_tensor *t = q3_gguf_tensor(g, i);
		char type[32];

		type_name(t->type, type, sizeof(type));
		bytes += (double) t->n_bytes;
		params += (double) elements(t);
		add_to(types, type, (double) t->n_bytes);
		if (list != NULL)
			add_tensor_row(list, t, type);
	}
	cJSON_AddNumberToObject(json, "parameters", params);
	cJSON_AddNumberToObject(json, "weight_bytes", bytes);
	cJSON_AddNumberToObject(json, "n_tensors", (double) q3_gguf_n_tensors(g));
	cJSON_AddItemToObject(json, "bytes_by_type", types);
	if (list != NULL)
		cJSON_AddItemToObject(json, "tensors", list);
}

/* Loads the model as the service would. */
static void
add_runnable(cJSON *json, const inspect_options *o)
{
	q3_load_options options = {.skip_digest = !o->digest};
	q3_error err = {0};
	q3_model *m = q3_model_load(o->path, &options, &err);

	cJSON_AddBoolToObject(json, "runnable", m != NULL);
	if (m == NULL)
		q3_tool_add_text(json, "reason", err.message, strlen(err.message));
	else if (o->digest)
		cJSON_AddStringToObject(json, "sha256", q3_model_get_info(m)->digest);
	q3_model_free(m);
}

static cJSON *
describe(const q3_gguf *g, const inspect_options *o)
{
	cJSON *json = cJSON_CreateObject();
	char architecture[64] = "";
	size_t size;
	q3_str s;

	if (q3_gguf_get_str(g, "general.architecture", &s) && s.len < sizeof(architecture))
		memcpy(architecture, s.data, s.len);
	q3_gguf_data(g, &size);
	q3_tool_add_text(json, "file", o->path, strlen(o->path));
	cJSON_AddNumberToObject(json, "file_bytes", (double) size);
	cJSON_AddNumberToObject(json, "gguf_version", q3_gguf_version(g));
	add_str(json, "architecture", g, "general.architecture");
	add_str(json, "name", g, "general.name");
	add_hyper_parameters(json, g, architecture);
	add_tokenizer(json, g);
	add_tensors(json, g, o->tensors);
	add_runnable(json, o);
	return json;
}

int
q3_tool_inspect(int argc, char **argv)
{
	inspect_options o = {0};
	const q3_option options[] = {
	    {"tensors", 0, Q3_OPT_FLAG, &o.tensors, NULL, 0, 0, NULL, "list the tensors, too"},
	    {"digest", 0, Q3_OPT_FLAG, &o.digest, NULL, 0, 0, NULL, "compute the file's SHA-256, too"},
	};
	const q3_command_line c = {.name = "inspect",
	                           .operands = "FILE",
	                           .summary = "Prints what a GGUF file holds, as JSON.",
	                           .options = options,
	                           .n_options = sizeof(options) / sizeof(options[0]),
	                           .n_operands = 1};
	int code = q3_options_parse(&c, argc, argv, &o.path);
	q3_error err = {0};
	q3_gguf *g;
	cJSON *json;

	if (code >= 0)
		return code;
	g = q3_gguf_open(o.path, &err);
	if (g == NULL)
		return q3_tool_error(&err);
	json = describe(g, &o);
	q3_gguf_close(g);
	return q3_tool_print(json, true);
}
