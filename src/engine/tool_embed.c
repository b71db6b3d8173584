/*
 * tool_embed.c: "qwen3dm-engine embed": texts as vectors, by the same jobs and scheduler that the
 * service uses.
 */
#include "engine/tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/scheduler.h"

typedef struct embed_options
{
	q3_tool_model model;
	bool mean, lines;
	const char *raw;
} embed_options;

typedef struct embed_jobs
{
	q3_job *jobs;
	int n, n_done;
} embed_jobs;

static void
on_done(void *arg, q3_job *job)
{
	(void) job;
	((embed_jobs *) arg)->n_done++;
}

static int
count_texts(const embed_options *o, const char *text, size_t len)
{
	int n = 1;

	for (size_t i = 0; o->lines && i + 1 < len; i++)
		n += text[i] == '\n';
	return n;
}

/* A job for the whole text, or for each of its lines. */
static q3_code
prepare(const embed_options *o, embed_jobs *e, const char *text, size_t len, q3_error *err)
{
	q3_preparer preparer;
	q3_code code = Q3_OK;
	int n = count_texts(o, text, len);

	e->jobs = calloc((size_t) n, sizeof(*e->jobs));
	if (e->jobs == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	q3_preparer_init(&preparer, o->model.model, o->model.info.context_length);
	for (; e->n < n && code == Q3_OK; e->n++)
	{
		const char *end = o->lines ? memchr(text, '\n', len) : NULL;
		size_t part = end != NULL ? (size_t) (end - text) : len;

		q3_job_init(&e->jobs[e->n]);
		code = q3_job_embed(&e->jobs[e->n], &preparer, (q3_str){text, part}, o->model.mode, o->mean,
		                    err);
		part += end != NULL;
		text += part;
		len -= part;
	}
	q3_preparer_free(&preparer); /* these jobs hold no schemas of its */
	return code;
}

static q3_code
compute(const embed_options *o, embed_jobs *e, q3_error *err)
{
	q3_scheduler_events events = {.done = on_done, .arg = e};
	q3_scheduler *s = q3_scheduler_create(o->model.model, o->model.rt, &events, err);

	if (s == NULL)
		return err->code;
	for (int i = 0; i < e->n; i++)
		q3_scheduler_submit(s, &e->jobs[i]);
	while (e->n_done < e->n && q3_scheduler_step(s))
		;
	q3_scheduler_free(s);
	for (int i = 0; i < e->n; i++)
		if (e->jobs[i].error.code != Q3_OK)
		{
			*err = e->jobs[i].error;
			return err->code;
		}
	return Q3_OK;
}

static int
print(const q3_job *job)
{
	cJSON *json = cJSON_CreateObject(), *vector;

	cJSON_AddNumberToObject(json, "tokens", (double) job->prompt.n);
	vector = cJSON_AddArrayToObject(json, "vector");
	for (int32_t i = 0; i < job->n_embd; i++)
	{
		char text[32];

		snprintf(text, sizeof(text), "%.9g", job->vector[i]);
		cJSON_AddItemToArray(vector, cJSON_CreateRaw(text));
	}
	return q3_tool_print(json, false);
}

/* Prints the vectors, or writes them to the file. */
static int
show(const embed_options *o, const embed_jobs *e)
{
	FILE *out = o->raw != NULL ? fopen(o->raw, "wb") : NULL;
	int code = 0;
	bool ok = o->raw == NULL || out != NULL;

	for (int i = 0; i < e->n && ok && code == 0; i++)
	{
		const q3_job *job = &e->jobs[i];

		if (out == NULL)
			code = print(job);
		else
			ok = fwrite(job->vector, sizeof(float), (size_t) job->n_embd, out) ==
			     (size_t) job->n_embd;
	}
	if (out != NULL && fclose(out) != 0)
		ok = false;
	if (!ok)
	{
		fprintf(stderr, "qwen3dm-engine: could not write \"%s\": %s\n", o->raw, strerror(errno));
		code = 1;
	}
	return code;
}

static int
embed(embed_options *o)
{
	embed_jobs e = {0};
	q3_error err = {0};
	size_t len = 0;
	char *text = q3_tool_read_all(STDIN_FILENO, &len, &err);
	int code;

	if (text == NULL)
		return q3_tool_error(&err);
	code = q3_tool_model_open(&o->model);
	if (code == 0 && (prepare(o, &e, text, len, &err) != Q3_OK || compute(o, &e, &err) != Q3_OK))
		code = q3_tool_error(&err);
	if (code == 0)
		code = show(o, &e);
	for (int i = 0; i < e.n; i++)
		q3_job_free(&e.jobs[i]);
	free(e.jobs);
	free(text);
	q3_tool_model_close(&o->model);
	return code;
}

int
q3_tool_embed(int argc, char **argv)
{
	embed_options o = {0};
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(o.model),
	    Q3_TOOL_MODE_OPTION(o.model),
	    {"mean", 0, Q3_OPT_FLAG, &o.mean, NULL, 0, 0, NULL,
	     "mean over all tokens (default: the end token's vector)"},
	    {"lines", 0, Q3_OPT_FLAG, &o.lines, NULL, 0, 0, NULL,
	     "every line is a text (default: all of it is one)"},
	    {"raw", 0, Q3_OPT_STRING, &o.raw, NULL, 0, 0, "OUT",
	     "write float32 [texts][coordinates] to this file"},
	    {"context-length", 0, Q3_OPT_INT, &o.model.context_length, NULL, 0, INT32_MAX, "N",
	     "longest text (default: the model's)"},
	    {"max-batch-tokens", 0, Q3_OPT_INT, &o.model.max_batch_tokens, NULL, 0, INT32_MAX, "N",
	     "most tokens in one step (default: 512)"},
	    Q3_TOOL_KV_OPTION(o.model),
	    Q3_TOOL_BITS_OPTION(o.model),
	    Q3_TOOL_PACKED_OPTION(o.model),
	    Q3_TOOL_THREADS_OPTION(o.model),
	};
	const q3_command_line c = {.name = "embed",
	                           .operands = "",
	                           .summary =
	                               "Reads text on stdin, prints its vector, of length 1, as JSON.",
	                           .options = options,
	                           .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code < 0)
		code = q3_tool_model_check(&o.model, c.name);
	else
		return code;
	return code != 0 ? code : embed(&o);
}
