/*
 * tool_bench.c: "qwen3dm-engine bench": tokens per second of the forward pass, without sampling.
 */
#include "engine/tools.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH 64
#define MAX_REPETITIONS 1000

typedef struct bench_options
{
	q3_tool_model model;
	int32_t n_prompt, n_decode, repetitions, depth, batch; /* of the test that runs */
	q3_option_list tests;
	int32_t *tokens; /* as many as the longest run has */
	float *logits;   /* [batch][n_vocab] */
	double *seconds; /* [repetitions] */
} bench_options;

static int
compare(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Feeds n tokens to a sequence in pieces of at most max_batch_tokens; logits of the last. */
static q3_code
feed(bench_options *o, q3_seq *seq, int32_t n, q3_error *err)
{
	int32_t chunk = o->model.info.max_batch_tokens;
	q3_code code = Q3_OK;

	for (int32_t done = 0; done < n && code == Q3_OK; done += chunk)
	{
		q3_batch_item item = {.seq = seq,
		                      .tokens = o->tokens + done,
		                      .n_tokens = n - done < chunk ? n - done : chunk,
		                      .mode = o->model.mode,
		                      .want = n - done <= chunk ? Q3_WANT_LAST : Q3_WANT_NOTHING,
		                      .logits = o->logits};

		code = q3_forward(o->model.rt, &item, 1, NULL, err);
	}
	return code;
}

/* One step that gives every sequence one token more, n times. */
static q3_code
decode(bench_options *o, q3_seq **seqs, int32_t n, q3_error *err)
{
	q3_batch_item items[MAX_BATCH];
	size_t n_vocab = (size_t) q3_model_get_info(o->model.model)->n_vocab;
	q3_code code = Q3_OK;

	for (int32_t step = 0; step < n && code == Q3_OK; step++)
	{
		for (int32_t i = 0; i < o->batch; i++)
			items[i] = (q3_batch_item){.seq = seqs[i],
			                           .tokens = o->tokens + (step + i) % o->n_decode,
			                           .n_tokens = 1,
			                           .mode = o->model.mode,
			                           .want = Q3_WANT_LAST,
			                           .logits = o->logits + (size_t) i * n_vocab};
		code = q3_forward(o->model.rt, items, o->batch, NULL, err);
	}
	return code;
}

/* A sequence with room for n tokens, filled up to the depth. */
static q3_seq *
make_seq(bench_options *o, int32_t n, q3_error *err)
{
	q3_seq *seq = q3_seq_create(o->model.rt);

	if (seq == NULL || !q3_seq_reserve(seq, o->depth + n))
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		q3_seq_free(seq);
		return NULL;
	}
	if (feed(o, seq, o->depth, err) == Q3_OK)
		return seq;
	q3_seq_free(seq);
	return NULL;
}

static q3_code
time_prefill(bench_options *o, double *seconds, q3_error *err)
{
	q3_seq *seq = make_seq(o, o->n_prompt, err);
	uint64_t start = q3_now_ns();
	q3_code code = seq != NULL ? feed(o, seq, o->n_prompt, err) : err->code;

	*seconds = (double) (q3_now_ns() - start) / 1e9;
	q3_seq_free(seq);
	return code;
}

static q3_code
time_decode(bench_options *o, double *seconds, q3_error *err)
{
	q3_seq *seqs[MAX_BATCH] = {0};
	q3_code code = Q3_OK;
	uint64_t start;

	for (int32_t i = 0; i < o->batch && code == Q3_OK; i++)
	{
		seqs[i] = make_seq(o, o->n_decode, err);
		if (seqs[i] == NULL)
			code = err->code;
	}
	start = q3_now_ns();
	if (code == Q3_OK)
		code = decode(o, seqs, o->n_decode, err);
	*seconds = (double) (q3_now_ns() - start) / 1e9;
	for (int32_t i = 0; i < o->batch; i++)
		q3_seq_free(seqs[i]);
	return code;
}

static int
report(bench_options *o, const char *test, int32_t n, int32_t batch)
{
	cJSON *json = cJSON_CreateObject();
	double tokens = (double) n * batch;
	int r = o->repetitions;
	double median;

	qsort(o->seconds, (size_t) r, sizeof(o->seconds[0]), compare);
	median = r % 2 ? o->seconds[r / 2] : (o->seconds[r / 2 - 1] + o->seconds[r / 2]) / 2;
	cJSON_AddStringToObject(json, "test", test);
	q3_tool_add_text(json, "file", o->model.path, strlen(o->model.path));
	cJSON_AddStringToObject(json, "architecture", q3_model_get_info(o->model.model)->architecture);
	cJSON_AddStringToObject(json, "weight_type", q3_model_get_info(o->model.model)->weight_type);
	cJSON_AddStringToObject(json, "mode", q3_tool_mode_name(o->model.mode));
	cJSON_AddStringToObject(json, "precision", o->model.info.precision);
	cJSON_AddNumberToObject(json, "image_bytes", (double) q3_model_image(o->model.model)->bytes);
	cJSON_AddNumberToObject(json, "threads", o->model.info.threads);
	cJSON_AddStringToObject(json, "isa", o->model.info.isa);
	cJSON_AddStringToObject(json, "kv", o->model.kv != NULL ? o->model.kv : "f32");
	cJSON_AddNumberToObject(json, "n", n);
	cJSON_AddNumberToObject(json, "depth", o->depth);
	cJSON_AddNumberToObject(json, "batch", batch);
	cJSON_AddNumberToObject(json, "repetitions", r);
	q3_tool_add_number(json, "tokens_per_second", tokens / median, 2);
	q3_tool_add_number(json, "min", tokens / o->seconds[r - 1], 2);
	q3_tool_add_number(json, "max", tokens / o->seconds[0], 2);
	return q3_tool_print(json, false);
}

/* The tests that the plain options ask for. */
static int
run(bench_options *o)
{
	q3_error err = {0};
	q3_code code = Q3_OK;
	int status = 0;

	for (int i = 0; i < o->repetitions && o->n_prompt > 0 && code == Q3_OK; i++)
		code = time_prefill(o, &o->seconds[i], &err);
	if (code == Q3_OK && o->n_prompt > 0)
		status = report(o, "prefill", o->n_prompt, 1);
	for (int i = 0; i < o->repetitions && o->n_decode > 0 && code == Q3_OK; i++)
		code = time_decode(o, &o->seconds[i], &err);
	if (code == Q3_OK && o->n_decode > 0 && status == 0)
		status = report(o, "decode", o->n_decode, o->batch);
	return code != Q3_OK ? q3_tool_error(&err) : status;
}

/* "pp64@512x3", "tg8/32": sets what run() reads. */
static bool
parse_test(bench_options *o, const char *text)
{
	bool prefill = strncmp(text, "pp", 2) == 0;
	long values[4] = {0, 1, 0, 1}; /* tokens, batch, depth, repetitions */
	static const long limits[4] = {1 << 20, MAX_BATCH, 1 << 20, MAX_REPETITIONS};
	const char *signs = "/@x";

	if (!prefill && strncmp(text, "tg", 2) != 0)
		return false;
	for (int at = 0;;)
	{
		char *end = NULL;

		text += at == 0 ? 2 : 1;
		values[at] = text[0] >= '0' && text[0] <= '9' ? strtol(text, &end, 10) : -1;
		if (values[at] < (at != 2) || values[at] > limits[at] || (prefill && values[1] != 1))
			return false;
		if (*end == '\0')
			break;
		if (strchr(signs, *end) == NULL)
			return false;
		at = (int) (strchr(signs, *end) - signs) + 1;
		text = end;
	}
	o->n_prompt = prefill ? (int32_t) values[0] : 0;
	o->n_decode = prefill ? 0 : (int32_t) values[0];
	o->batch = (int32_t) values[1];
	o->depth = (int32_t) values[2];
	o->repetitions = (int32_t) values[3];
	return true;
}

/* The tests of --test, after a short prefill that warms up. */
static int
run_list(bench_options *o)
{
	q3_error err = {0};
	double seconds;
	int status = 0;

	o->n_prompt = 8;
	o->depth = 0;
	if (time_prefill(o, &seconds, &err) != Q3_OK)
		return q3_tool_error(&err);
	for (int i = 0; i < o->tests.n && status == 0; i++)
	{
		parse_test(o, o->tests.items[i]);
		status = run(o);
		fflush(stdout);
	}
	return status;
}

static int32_t
max(int32_t a, int32_t b)
{
	return a > b ? a : b;
}

/* Any tokens will do; these are the same in every run. */
static bool
allocate(bench_options *o, int32_t n_tokens, int32_t batch)
{
	size_t n_vocab = (size_t) q3_model_get_info(o->model.model)->n_vocab;
	uint32_t state = 1;

	o->tokens = malloc(sizeof(*o->tokens) * (size_t) n_tokens);
	o->logits = malloc(sizeof(float) * n_vocab * (size_t) batch);
	o->seconds = calloc(MAX_REPETITIONS, sizeof(double));
	if (o->tokens == NULL || o->logits == NULL || o->seconds == NULL)
		return false;
	for (int32_t i = 0; i < n_tokens; i++)
	{
		state = state * 1664525u + 1013904223u;
		o->tokens[i] = (int32_t) ((state >> 8) % n_vocab);
	}
	return true;
}

static int
bench(bench_options *o)
{
	int32_t n = 8, batch = 1, kv = 0;
	int code;

	/* As much of everything as the largest test needs. */
	for (int i = 0; i < max(o->tests.n, 1); i++)
	{
		int32_t length;

		if (o->tests.n > 0)
			parse_test(o, o->tests.items[i]);
		length = o->depth + max(o->n_prompt, o->n_decode);
		n = max(n, length);
		batch = max(batch, o->batch);
		kv = max(kv, o->batch * (length + 256));
	}
	o->model.context_length = n;
	o->model.kv_sequences = (kv + n + 255) / (n + 256);
	o->model.packed = !o->model.exact_weights;
	code = q3_tool_model_open(&o->model);
	if (code == 0 && !allocate(o, n, batch))
	{
		fprintf(stderr, "qwen3dm-engine: out of memory\n");
		code = 1;
	}
	if (code == 0)
	{
		q3_tool_warm(&o->model);
		code = o->tests.n > 0 ? run_list(o) : run(o);
	}
	free(o->tokens);
	free(o->logits);
	free(o->seconds);
	q3_tool_model_close(&o->model);
	return code;
}

static int
parse(bench_options *o, int argc, char **argv)
{
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(o->model),
	    Q3_TOOL_MODE_OPTION(o->model),
	    Q3_TOOL_BITS_OPTION(o->model),
	    Q3_TOOL_EXACT_OPTION(o->model),
	    {"prompt", 'p', Q3_OPT_INT, &o->n_prompt, NULL, 0, 1 << 20, "N",
	     "tokens of prefill (default: 512; 0: skip)"},
	    {"decode", 'n', Q3_OPT_INT, &o->n_decode, NULL, 0, 1 << 20, "N",
	     "tokens of decode (default: 64; 0: skip)"},
	    {"depth", 'd', Q3_OPT_INT, &o->depth, NULL, 0, 1 << 20, "N",
	     "tokens in the context before (default: 0)"},
	    {"batch", 'b', Q3_OPT_INT, &o->batch, NULL, 1, MAX_BATCH, "N",
	     "sequences decoded together (default: 1)"},
	    {"repetitions", 'r', Q3_OPT_INT, &o->repetitions, NULL, 1, MAX_REPETITIONS, "N",
	     "runs of each test (default: 3)"},
	    {"test", 0, Q3_OPT_LIST, &o->tests, NULL, 0, 0, "TEST",
	     "instead of those five: pp64, pp64@512x3 (depth, runs), tg8/32 (batch), ..."},
	    {"max-batch-tokens", 0, Q3_OPT_INT, &o->model.max_batch_tokens, NULL, 0, 1 << 20, "N",
	     "most tokens in one forward pass (default: 512)"},
	    Q3_TOOL_KV_OPTION(o->model),
	    Q3_TOOL_THREADS_OPTION(o->model),
	};
	const q3_command_line c = {
	    .name = "bench",
	    .operands = "",
	    .summary =
	        "Measures prefill and decode: one JSON line each, with the median in tokens per\n"
	        "second over the repetitions.",
	    .options = options,
	    .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code >= 0)
		return code;
	code = q3_tool_model_check(&o->model, c.name);
	for (int i = 0; i < o->tests.n && code == 0; i++)
		if (!parse_test(o, o->tests.items[i]))
			code =
			    q3_tool_usage(c.name, "invalid value \"%s\" for option --test", o->tests.items[i]);
	return code == 0 ? -1 : code;
}

int
q3_tool_bench(int argc, char **argv)
{
	bench_options o = {.n_prompt = 512, .n_decode = 64, .repetitions = 3, .batch = 1};
	int code = parse(&o, argc, argv);

	if (code < 0)
		code = bench(&o);
	free(o.tests.items);
	return code;
}
