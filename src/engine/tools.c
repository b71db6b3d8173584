/*
 * tools.c: what the commands share: messages, JSON, reading, opening a model.
 */
#include "engine/tools.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/buffer.h"

int
q3_tool_error(const q3_error *err)
{
	fprintf(stderr, "qwen3dm-engine: %s\n", err->message);
	if (err->detail[0] != '\0')
		fprintf(stderr, "qwen3dm-engine: detail: %s\n", err->detail);
	if (err->hint[0] != '\0')
		fprintf(stderr, "qwen3dm-engine: hint: %s\n", err->hint);
	return 1;
}

int
q3_tool_usage(const char *tool, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "qwen3dm-engine: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\nTry \"qwen3dm-engine %s --help\" for more information.\n", tool);
	return 2;
}

int
q3_tool_print(cJSON *json, bool formatted)
{
	char *text = formatted ? cJSON_Print(json) : cJSON_PrintUnformatted(json);
	bool ok = text != NULL && puts(text) >= 0 && fflush(stdout) == 0;

	if (!ok)
		fprintf(stderr, "qwen3dm-engine: could not write result: %s\n", strerror(errno));
	cJSON_free(text);
	cJSON_Delete(json);
	return ok ? 0 : 1;
}

void
q3_tool_add_text(cJSON *object, const char *key, const char *text, size_t len)
{
	size_t n;
	char *repaired = text != NULL ? q3_utf8_repair(text, len, &n) : NULL;

	if (repaired != NULL)
		cJSON_AddStringToObject(object, key, repaired);
	else
		cJSON_AddNullToObject(object, key);
	free(repaired);
}

void
q3_tool_add_number(cJSON *object, const char *key, double value, int decimals)
{
	char text[64];

	if (isfinite(value))
	{
		snprintf(text, sizeof(text), "%.*f", decimals, value);
		cJSON_AddRawToObject(object, key, text);
	}
	else
		cJSON_AddNullToObject(object, key);
}

const char *
q3_tool_mode_name(q3_mode mode)
{
	return mode == Q3_EFFICIENT ? "efficient" : "precise";
}

bool
q3_tool_parse_mode(const char *text, q3_mode *mode)
{
	if (text == NULL || strcmp(text, "precise") == 0)
		*mode = Q3_PRECISE;
	else if (strcmp(text, "efficient") == 0)
		*mode = Q3_EFFICIENT;
	else
		return false;
	return true;
}

char *
q3_tool_read_all(int fd, size_t *len, q3_error *err)
{
	q3_buffer b = {0};

	for (;;)
	{
		char *room = q3_buffer_reserve(&b, 65536);
		ssize_t n = room != NULL ? read(fd, room, 65536) : -1;

		if (n > 0)
			b.end += (size_t) n;
		else if (n == 0)
			break;
		else if (room == NULL || errno != EINTR)
		{
			q3_buffer_free(&b);
			if (room == NULL)
				q3_fail(err, Q3_ERR_MEMORY, "out of memory");
			else
				q3_fail(err, Q3_ERR_IO, "could not read input: %s", strerror(errno));
			return NULL;
		}
	}
	*len = b.end;
	return b.data;
}

int
q3_tool_model_check(q3_tool_model *m, const char *tool)
{
	if (m->path == NULL)
		return q3_tool_usage(tool, "option --model is required");
	if (!q3_tool_parse_mode(m->mode_name, &m->mode))
		return q3_tool_usage(
		    tool, "invalid value \"%s\" for option --mode: must be \"precise\" or \"efficient\"",
		    m->mode_name);
	if (m->kv != NULL && strcmp(m->kv, "f16") != 0 && strcmp(m->kv, "f32") != 0)
		return q3_tool_usage(
		    tool, "invalid value \"%s\" for option --kv: must be \"f16\" or \"f32\"", m->kv);
	if (m->efficient_bits != 0 && m->efficient_bits != 4 && m->efficient_bits != 8)
		return q3_tool_usage(tool, "option --efficient-bits must be 8 or 4");
	return 0;
}

/* Bytes of K and V for so many full sequences, each rounded up generously to whole blocks. */
static uint64_t
kv_bytes_for(const q3_tool_model *m, bool f32)
{
	const q3_model_info *info = q3_model_get_info(m->model);
	uint64_t token = (uint64_t) info->n_layers * (uint64_t) info->n_kv_heads *
	                 (uint64_t) info->head_dim * 2 * (f32 ? 4 : 2);

	return token * (uint64_t) m->kv_sequences * ((uint64_t) m->context_length + 256);
}

int
q3_tool_model_open(q3_tool_model *m)
{
	q3_load_options load = {.skip_digest = true};
	q3_runtime_options options = {.threads = m->threads,
	                              .context_length = m->context_length,
	                              .max_batch_tokens = m->max_batch_tokens,
	                              .kv_bytes = m->kv_bytes,
	                              .kv_f32 = m->kv == NULL || strcmp(m->kv, "f32") == 0,
	                              .efficient_bits = m->efficient_bits,
	                              .exact_weights = m->exact_weights,
	                              .no_prefix_cache = m->no_prefix_cache};
	/* What runs once, in mode precise, need not pack: it computes with the file's own weights. */
	bool packed = m->packed || m->mode == Q3_EFFICIENT;
	q3_pack_options pack = {.threads = m->threads};
	q3_error err = {0};

	m->model = q3_model_load(m->path, &load, &err);
	if (m->model == NULL)
		return q3_tool_error(&err);
	if (packed && q3_model_pack(m->model, &pack, &err) != Q3_OK)
		return q3_tool_error(&err);
	if (m->kv_sequences > 0)
		options.kv_bytes = kv_bytes_for(m, options.kv_f32);
	m->rt = q3_runtime_create(m->model, &options, &err);
	if (m->rt == NULL)
		return q3_tool_error(&err);
	q3_runtime_get_info(m->rt, &m->info);
	return 0;
}

void
q3_tool_warm(q3_tool_model *m)
{
	size_t done = 0;

	while (q3_runtime_warm(m->rt, &done))
		;
}

void
q3_tool_model_close(q3_tool_model *m)
{
	q3_runtime_free(m->rt);
	q3_model_free(m->model);
	m->rt = NULL;
	m->model = NULL;
}
