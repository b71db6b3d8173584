/*
 * tool_rows.c: "qwen3dm-engine rows": many rows through the scheduler, without sockets and SQL:
 * what the engine alone does with a stream of tokens.
 *
 * Rows are made up (the same tokens first, then own ones) or the lines of a file, as SQL would send
 * them. All are prepared and submitted before the clock starts.
 */
#include "engine/tools.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/scheduler.h"

#define DEFAULT_KV_BYTES (UINT64_C(1) << 30)
#define WARM_UP 8
#define MAX_MADE_UP_LABELS 26

typedef struct rows_options
{
	q3_tool_model model;
	int32_t n_rows, n_prefix, n_own, n_labels, n_generate;
	const char *input, *system;
	bool off_label;
	q3_option_list label;

	q3_preparer preparer;
	q3_str *labels; /* [n_labels] */
	char letters[MAX_MADE_UP_LABELS];
	char *text; /* of the input */
	q3_job *jobs;
	int32_t n_jobs;
	int32_t n_done, n_failed;
	q3_error failure;
	uint32_t random;
} rows_options;

static void
on_done(void *arg, q3_job *job)
{
	rows_options *o = arg;

	o->n_done++;
	if (job->error.code != Q3_OK && o->n_failed++ == 0)
		o->failure = job->error;
}

static q3_str
str(const char *s)
{
	return (q3_str){s, s != NULL ? strlen(s) : 0};
}

/* ---------------------------------------------------------------------------------------------
 * Making the rows
 * --------------------------------------------------------------------------------------------- */

static q3_code
set_labels(rows_options *o, q3_error *err)
{
	if (o->label.n > 0)
		o->n_labels = o->label.n;
	o->labels = calloc((size_t) o->n_labels + 1, sizeof(*o->labels));
	if (o->labels == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	for (int32_t i = 0; i < o->n_labels; i++)
	{
		if (o->label.n > 0)
			o->labels[i] = str(o->label.items[i]);
		else
		{
			o->letters[i] = (char) ('A' + i);
			o->labels[i] = (q3_str){&o->letters[i], 1};
		}
	}
	return Q3_OK;
}

static int32_t
any_token(rows_options *o)
{
	o->random = o->random * 1664525u + 1013904223u;
	return (int32_t) ((o->random >> 8) % (uint32_t) q3_tokenizer_n_vocab(o->preparer.tok));
}

/* What prepares an answer of n_generate tokens. */
static q3_code
make_answer(const rows_options *o, q3_job *job, q3_error *err)
{
	const q3_sampling greedy = {.top_p = 1};

	job->max_tokens = o->n_generate;
	job->sampler = q3_sampler_create(&greedy, o->preparer.n_vocab, err);
	if (job->sampler == NULL)
		return err->code;
	job->output = q3_output_create(o->preparer.tok, NULL, 0, false, o->n_generate, err);
	return job->output != NULL ? Q3_OK : err->code;
}

/* A made-up row: every row has the same n_prefix tokens first. */
static q3_code
make_up(rows_options *o, q3_job *job, q3_error *err)
{
	uint32_t random = o->random;

	o->random = 1;
	for (int32_t i = 0; i < o->n_prefix + o->n_own; i++)
	{
		if (i == o->n_prefix)
			o->random = random;
		if (!q3_tokens_push(&job->prompt, any_token(o)))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	}
	job->mode = o->model.mode;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	if (o->n_generate > 0)
		return make_answer(o, job, err);
	job->kind = Q3_JOB_CLASSIFY;
	job->off_label = o->off_label;
	job->labels = q3_labels_create(o->preparer.tok, q3_tokenizer_special(o->preparer.tok)->im_end,
	                               o->labels, (size_t) o->n_labels, err);
	return job->labels != NULL ? Q3_OK : err->code;
}

static q3_code
make_from_line(rows_options *o, q3_job *job, q3_str line, q3_error *err)
{
	q3_job_options options = {.mode = o->model.mode,
	                          .prompt = line,
	                          .system = str(o->system),
	                          .max_tokens = o->n_generate,
	                          .labels = o->labels,
	                          .n_labels = (size_t) o->n_labels,
	                          .off_label = o->off_label,
	                          .share = true};
	bool compute;

	if (o->n_generate > 0)
		return q3_job_generate(job, &o->preparer, &options, err);
	return q3_job_classify(job, &o->preparer, &options, &compute, err); /* two labels: compute */
}

/* Rows [o->n_jobs, n) of made-up ones. */
static q3_code
make_up_to(rows_options *o, int32_t n, q3_error *err)
{
	q3_code code = Q3_OK;

	for (; o->n_jobs < n && code == Q3_OK; o->n_jobs++)
	{
		q3_job_init(&o->jobs[o->n_jobs]);
		code = make_up(o, &o->jobs[o->n_jobs], err);
	}
	return code;
}

static q3_code
read_lines(rows_options *o, int32_t n, q3_error *err)
{
	int fd = open(o->input, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	q3_code code = Q3_OK;
	const char *line, *end;

	if (fd < 0)
		return q3_fail(err, Q3_ERR_IO, "could not open \"%s\"", o->input);
	o->text = q3_tool_read_all(fd, &len, err);
	close(fd);
	if (o->text == NULL && len > 0)
		return err->code;
	line = o->text;
	end = o->text + len;
	while (line < end && o->n_jobs < n && code == Q3_OK)
	{
		const char *stop = memchr(line, '\n', (size_t) (end - line));

		stop = stop != NULL ? stop : end;
		q3_job_init(&o->jobs[o->n_jobs]);
		code =
		    make_from_line(o, &o->jobs[o->n_jobs++], (q3_str){line, (size_t) (stop - line)}, err);
		line = stop + 1;
	}
	return code;
}

/* ---------------------------------------------------------------------------------------------
 * Running them
 * --------------------------------------------------------------------------------------------- */

typedef struct outcome
{
	double seconds;
	int64_t prompt_tokens, cached_tokens, output_tokens;
	q3_scheduler_stats before, after;
} outcome;

static q3_code
run_jobs(rows_options *o, q3_scheduler *s, int32_t begin, int32_t end, outcome *r, q3_error *err)
{
	uint64_t start;

	q3_scheduler_get_stats(s, &r->before);
	start = q3_now_ns();
	for (int32_t i = begin; i < end; i++)
		q3_scheduler_submit(s, &o->jobs[i]);
	while (q3_scheduler_step(s))
		;
	r->seconds = (double) (q3_now_ns() - start) / 1e9;
	q3_scheduler_get_stats(s, &r->after);
	for (int32_t i = begin; i < end; i++)
	{
		const q3_job *job = &o->jobs[i];

		r->prompt_tokens += atomic_load(&job->prompt_tokens);
		r->cached_tokens += atomic_load(&job->cached_tokens);
		r->output_tokens += job->output != NULL ? q3_output_n_tokens(job->output) : 0;
	}
	if (o->n_failed > 0)
		*err = o->failure;
	return o->n_failed > 0 ? err->code : Q3_OK;
}

static int
report(const rows_options *o, int32_t n, const outcome *r)
{
	cJSON *json = cJSON_CreateObject();
	int64_t deduplicated = (int64_t) (r->after.deduplicated - r->before.deduplicated);

	cJSON_AddStringToObject(json, "test", "rows");
	q3_tool_add_text(json, "file", o->model.path, strlen(o->model.path));
	cJSON_AddStringToObject(json, "mode", q3_tool_mode_name(o->model.mode));
	cJSON_AddStringToObject(json, "isa", o->model.info.isa);
	cJSON_AddNumberToObject(json, "threads", o->model.info.threads);
	cJSON_AddNumberToObject(json, "max_batch_tokens", o->model.info.max_batch_tokens);
	cJSON_AddNumberToObject(json, "rows", n);
	cJSON_AddNumberToObject(json, "labels", o->n_generate > 0 ? 0 : o->n_labels);
	cJSON_AddNumberToObject(json, "prompt_tokens", (double) r->prompt_tokens);
	cJSON_AddNumberToObject(json, "cached_tokens", (double) r->cached_tokens);
	cJSON_AddNumberToObject(json, "output_tokens", (double) r->output_tokens);
	cJSON_AddNumberToObject(json, "deduplicated", (double) deduplicated);
	cJSON_AddNumberToObject(json, "steps", (double) (r->after.steps - r->before.steps));
	q3_tool_add_number(json, "seconds", r->seconds, 4);
	q3_tool_add_number(json, "rows_per_second", n / r->seconds, 3);
	q3_tool_add_number(json, "output_tokens_per_second", (double) r->output_tokens / r->seconds, 2);
	return q3_tool_print(json, false);
}

static q3_code
make_and_run(rows_options *o, q3_scheduler *s, outcome *r, int32_t *n, q3_error *err)
{
	outcome unused = {0};
	int32_t first;
	q3_code code;

	/* Other rows warm up; the measured ones find what all have in common in the cache. */
	code = make_up_to(o, WARM_UP, err);
	if (code == Q3_OK)
		code = run_jobs(o, s, 0, o->n_jobs, &unused, err);
	first = o->n_jobs;
	if (code == Q3_OK && o->input != NULL)
		code = read_lines(o, first + o->n_rows, err);
	else if (code == Q3_OK)
		code = make_up_to(o, first + o->n_rows, err);
	*n = o->n_jobs - first;
	return code == Q3_OK ? run_jobs(o, s, first, o->n_jobs, r, err) : code;
}

static int
rows(rows_options *o)
{
	q3_scheduler_events events = {.done = on_done, .arg = o};
	q3_scheduler *s = NULL;
	outcome r = {0};
	q3_error err = {0};
	q3_code code;
	int32_t n = 0;

	q3_preparer_init(&o->preparer, o->model.model, o->model.info.context_length);
	o->jobs = calloc((size_t) (WARM_UP + o->n_rows), sizeof(*o->jobs));
	code = o->jobs != NULL ? set_labels(o, &err) : q3_fail(&err, Q3_ERR_MEMORY, "out of memory");
	if (code == Q3_OK)
	{
		q3_tool_warm(&o->model);
		s = q3_scheduler_create(o->model.model, o->model.rt, &events, &err);
		code = s != NULL ? make_and_run(o, s, &r, &n, &err) : err.code;
	}
	q3_scheduler_free(s);
	for (int32_t i = 0; i < o->n_jobs; i++)
		q3_job_free(&o->jobs[i]);
	q3_preparer_free(&o->preparer);
	free(o->jobs);
	free(o->labels);
	free(o->text);
	return code == Q3_OK ? report(o, n, &r) : q3_tool_error(&err);
}

static int
parse(rows_options *o, int argc, char **argv)
{
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(o->model),
	    Q3_TOOL_MODE_OPTION(o->model),
	    Q3_TOOL_BITS_OPTION(o->model),
	    {"rows", 'n', Q3_OPT_INT, &o->n_rows, NULL, 1, 1 << 20, "N",
	     "how many rows; of --input at most so many (default: 1000)"},
	    {"prefix", 'p', Q3_OPT_INT, &o->n_prefix, NULL, 1, 1 << 20, "N",
	     "tokens that all made-up rows begin with (default: 100)"},
	    {"own", 'o', Q3_OPT_INT, &o->n_own, NULL, 1, 1 << 20, "N",
	     "tokens of each made-up row's own (default: 30)"},
	    {"labels", 'l', Q3_OPT_INT, &o->n_labels, NULL, 2, MAX_MADE_UP_LABELS, "N",
	     "made-up labels (default: 5)"},
	    {"generate", 'g', Q3_OPT_INT, &o->n_generate, NULL, 0, 1 << 20, "N",
	     "generate so many tokens for each row instead of choosing a label"},
	    {"input", 0, Q3_OPT_STRING, &o->input, NULL, 0, 0, "FILE",
	     "the rows, one a line, instead of made-up ones"},
	    {"system", 0, Q3_OPT_STRING, &o->system, NULL, 0, 0, "TEXT",
	     "with --input: the instruction"},
	    {"label", 0, Q3_OPT_LIST, &o->label, NULL, 0, 0, "TEXT", "a label; may be repeated"},
	    {"off-label", 0, Q3_OPT_FLAG, &o->off_label, NULL, 0, 0, NULL,
	     "compute the probability outside the labels, too"},
	    {"context-length", 0, Q3_OPT_INT, &o->model.context_length, NULL, 0, INT32_MAX, "N",
	     "longest sequence (default: the model's)"},
	    {"max-batch-tokens", 0, Q3_OPT_INT, &o->model.max_batch_tokens, NULL, 0, 1 << 20, "N",
	     "most tokens in one step (default: 512)"},
	    {"kv-bytes", 0, Q3_OPT_U64, &o->model.kv_bytes, NULL, 0, 0, "N",
	     "size of the key-value cache (default: 1 GiB)"},
	    {"no-prefix-cache", 0, Q3_OPT_FLAG, &o->model.no_prefix_cache, NULL, 0, 0, NULL,
	     "compute the beginning of every row anew"},
	    Q3_TOOL_KV_OPTION(o->model),
	    Q3_TOOL_THREADS_OPTION(o->model),
	};
	const q3_command_line c = {
	    .name = "rows",
	    .operands = "",
	    .summary =
	        "Measures many rows through the scheduler: one JSON line. Rows choose one of some\n"
	        "labels, or (--generate) are answered with tokens.",
	    .options = options,
	    .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code >= 0)
		return code;
	code = q3_tool_model_check(&o->model, c.name);
	if (code == 0 && o->label.n == 1 && o->n_generate == 0)
		code = q3_tool_usage(c.name, "at least two labels are needed");
	return code == 0 ? -1 : code;
}

int
q3_tool_rows(int argc, char **argv)
{
	rows_options o = {.n_rows = 1000,
	                  .n_prefix = 100,
	                  .n_own = 30,
	                  .n_labels = 5,
	                  .random = 4711,
	                  .model = {.kv_bytes = DEFAULT_KV_BYTES, .packed = true}};
	int code = parse(&o, argc, argv);

	if (code < 0)
		code = q3_tool_model_open(&o.model);
	if (code == 0 && o.model.rt != NULL)
		code = rows(&o);
	q3_tool_model_close(&o.model);
	free(o.label.items);
	return code;
}
