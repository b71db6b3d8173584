/*
 * tool_generate.c: "qwen3dm-engine generate": one answer, by the same job and scheduler that the
 * service uses.
 */
#include "engine/tools.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/scheduler.h"

typedef struct generate_options
{
	q3_tool_model model;
	const char *prompt, *system, *schema_path;
	char *schema; /* the file's text */
	size_t schema_len;
	q3_preparer preparer;
	uint64_t answer_start; /* when the prompt had been read */
	double answer_ms;
	bool plain, special, thinking;
	bool has_temperature, has_top_p, has_top_k;
	double temperature, top_p;
	int32_t top_k, max_tokens;
	uint64_t seed;
	q3_option_list stops;
} generate_options;

static void
on_done(void *arg, q3_job *job)
{
	(void) job;
	*(bool *) arg = true;
}

static q3_str
str(const char *s)
{
	return (q3_str){.data = s, .len = s != NULL ? strlen(s) : 0};
}

/* The text of --schema's file, which must not be empty (that would be no schema). */
static q3_code
read_schema(generate_options *o, q3_error *err)
{
	int fd;

	if (o->schema_path == NULL)
		return Q3_OK;
	fd = open(o->schema_path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return q3_fail(err, Q3_ERR_IO, "could not open file \"%s\": %s", o->schema_path,
		               strerror(errno));
	o->schema = q3_tool_read_all(fd, &o->schema_len, err);
	close(fd);
	return o->schema != NULL ? Q3_OK : err->code;
}

static q3_code
prepare(const generate_options *o, q3_job *job, q3_error *err)
{
	q3_job_options options = {.mode = o->model.mode,
	                          .plain = o->plain,
	                          .parse_special = o->special,
	                          .thinking = o->thinking,
	                          .has_temperature = o->has_temperature,
	                          .has_top_p = o->has_top_p,
	                          .has_top_k = o->has_top_k,
	                          .temperature = o->temperature,
	                          .top_p = o->top_p,
	                          .top_k = o->top_k,
	                          .seed = o->seed,
	                          .max_tokens = o->max_tokens,
	                          .prompt = str(o->prompt),
	                          .system = str(o->system),
	                          .schema = {o->schema, o->schema_len},
	                          .n_stops = (size_t) o->stops.n};
	q3_str *stops = calloc(options.n_stops + 1, sizeof(*stops));
	q3_code code;

	if (stops == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	for (int i = 0; i < o->stops.n; i++)
		stops[i] = str(o->stops.items[i]);
	options.stops = stops;
	code = q3_job_generate(job, &o->preparer, &options, err);
	free(stops);
	return code;
}

static q3_code
compute(generate_options *o, q3_job *job, q3_error *err)
{
	bool done = false;
	q3_scheduler_events events = {.done = on_done, .arg = &done};
	q3_scheduler *s = q3_scheduler_create(o->model.model, o->model.rt, &events, err);

	if (s == NULL)
		return err->code;
	q3_scheduler_submit(s, job);
	while (!done && q3_scheduler_step(s))
		if (o->answer_start == 0 && atomic_load(&job->phase) == Q3_PHASE_DECODE)
			o->answer_start = q3_now_ns();
	if (o->answer_start != 0)
		o->answer_ms = (double) (q3_now_ns() - o->answer_start) / 1e6;
	q3_scheduler_free(s);
	*err = job->error;
	return err->code;
}

static cJSON *
describe(const generate_options *o, const q3_job *job, double ms)
{
	cJSON *json = cJSON_CreateObject();
	q3_str value = q3_output_value(job->output), thinking = q3_output_thinking(job->output);

	q3_tool_add_text(json, "value", value.data != NULL ? value.data : "", value.len);
	q3_tool_add_text(json, "thinking", thinking.data, thinking.len);
	cJSON_AddStringToObject(json, "finish", job->finish == Q3_FINISH_STOP ? "stop" : "length");
	cJSON_AddStringToObject(json, "mode", q3_tool_mode_name(o->model.mode));
	cJSON_AddNumberToObject(json, "prompt_tokens", atomic_load(&job->prompt_tokens));
	cJSON_AddNumberToObject(json, "output_tokens", q3_output_n_tokens(job->output));
	q3_tool_add_number(json, "confidence", q3_job_confidence(job), 6);
	q3_tool_add_number(json, "ms", ms, 3);
	q3_tool_add_number(json, "answer_ms", o->answer_ms, 3);
	return json;
}

static int
generate(generate_options *o)
{
	q3_error err = {0};
	q3_job job;
	int code = q3_tool_model_open(&o->model);
	uint64_t start;

	q3_job_init(&job);
	if (code == 0)
		q3_preparer_init(&o->preparer, o->model.model, o->model.info.context_length);
	start = q3_now_ns();
	if (code == 0 && read_schema(o, &err) != Q3_OK)
		code = q3_tool_error(&err);
	if (code == 0 && (prepare(o, &job, &err) != Q3_OK || compute(o, &job, &err) != Q3_OK))
		code = q3_tool_error(&err);
	if (code == 0)
		code = q3_tool_print(describe(o, &job, (double) (q3_now_ns() - start) / 1e6), false);
	q3_job_free(&job);
	q3_preparer_free(&o->preparer);
	free(o->schema);
	q3_tool_model_close(&o->model);
	return code;
}

static int
parse(generate_options *o, int argc, char **argv)
{
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(o->model),
	    Q3_TOOL_MODE_OPTION(o->model),
	    {"prompt", 'p', Q3_OPT_STRING, &o->prompt, NULL, 0, 0, "TEXT", "the prompt"},
	    {"system", 0, Q3_OPT_STRING, &o->system, NULL, 0, 0, "TEXT", "the system text"},
	    {"raw", 0, Q3_OPT_FLAG, &o->plain, NULL, 0, 0, NULL, "no chat format around the prompt"},
	    {"special", 0, Q3_OPT_FLAG, &o->special, NULL, 0, 0, NULL,
	     "with --raw: strings of control tokens become these tokens"},
	    {"thinking", 0, Q3_OPT_FLAG, &o->thinking, NULL, 0, 0, NULL, "let the model think"},
	    {"max-tokens", 'n', Q3_OPT_INT, &o->max_tokens, NULL, 1, INT32_MAX, "N",
	     "longest answer (default: 256)"},
	    {"temperature", 0, Q3_OPT_REAL, &o->temperature, &o->has_temperature, 0, 0, "T",
	     "0: greedy (default; 0.6 when thinking)"},
	    {"top-p", 0, Q3_OPT_REAL, &o->top_p, &o->has_top_p, 0, 0, "P",
	     "nucleus (default: 1; 0.95 when thinking)"},
	    {"top-k", 0, Q3_OPT_INT, &o->top_k, &o->has_top_k, 0, INT32_MAX, "K",
	     "most likely tokens only (default: 0, off; 20 when thinking)"},
	    {"seed", 0, Q3_OPT_U64, &o->seed, NULL, 0, 0, "S", "of the random numbers (default: 0)"},
	    {"stop", 0, Q3_OPT_LIST, &o->stops, NULL, 0, 0, "TEXT",
	     "end before this text; may be repeated"},
	    {"schema", 0, Q3_OPT_STRING, &o->schema_path, NULL, 0, 0, "FILE",
	     "answer with JSON that follows this JSON Schema"},
	    {"context-length", 0, Q3_OPT_INT, &o->model.context_length, NULL, 0, INT32_MAX, "N",
	     "longest sequence (default: the model's)"},
	    Q3_TOOL_KV_OPTION(o->model),
	    Q3_TOOL_BITS_OPTION(o->model),
	    Q3_TOOL_PACKED_OPTION(o->model),
	    Q3_TOOL_THREADS_OPTION(o->model),
	};
	const q3_command_line c = {.name = "generate",
	                           .operands = "",
	                           .summary = "Answers one prompt, as JSON.",
	                           .options = options,
	                           .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code >= 0)
		return code;
	code = q3_tool_model_check(&o->model, c.name);
	if (code == 0 && o->prompt == NULL)
		code = q3_tool_usage(c.name, "option --prompt is required");
	return code == 0 ? -1 : code;
}

int
q3_tool_generate(int argc, char **argv)
{
	generate_options o = {.max_tokens = 256};
	int code = parse(&o, argc, argv);

	if (code < 0)
		code = generate(&o);
	free(o.stops.items);
	return code;
}
