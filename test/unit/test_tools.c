/*
 * test_tools.c: the command line, called as functions with stdin and stdout redirected to files.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/tools.h"
#include "tiny_qwen.h"

typedef int (*tool)(int argc, char **argv);

static char model_path[64];

/* What a run of a tool left. */
typedef struct outcome
{
	int code;
	char out[1 << 16];
	char errors[4096];
} outcome;

static void
take_over(int fd, FILE *file, int *saved)
{
	*saved = dup(fd);
	assert_true(*saved >= 0 && dup2(fileno(file), fd) == fd);
}

static void
give_back(int fd, int saved)
{
	assert_true(dup2(saved, fd) == fd);
	close(saved);
}

static void
read_back(FILE *file, char *text, size_t size)
{
	size_t n;

	rewind(file);
	n = fread(text, 1, size - 1, file);
	text[n] = '\0';
	fclose(file);
}

/* Runs a tool with words (ended by NULL; the first is its name) and input on stdin. */
static outcome *
run(tool run_tool, const char *input, size_t input_len, const char *const *words)
{
	static outcome result;
	FILE *in = tmpfile(), *out = tmpfile(), *errors = tmpfile();
	char *argv[32];
	int argc = 0, saved[3];

	assert_true(in != NULL && out != NULL && errors != NULL);
	for (; words[argc] != NULL; argc++)
	{
		assert_true(argc < 31);
		argv[argc] = strdup(words[argc]);
	}
	argv[argc] = NULL;
	assert_int_equal(fwrite(input, 1, input_len, in), input_len);
	fflush(NULL);
	rewind(in);
	take_over(0, in, &saved[0]);
	take_over(1, out, &saved[1]);
	take_over(2, errors, &saved[2]);
	result.code = run_tool(argc, argv);
	fflush(NULL);
	give_back(0, saved[0]);
	give_back(1, saved[1]);
	give_back(2, saved[2]);
	fclose(in);
	read_back(out, result.out, sizeof(result.out));
	read_back(errors, result.errors, sizeof(result.errors));
	for (int i = 0; i < argc; i++)
		free(argv[i]); /* getopt may have moved them, but lost none */
	return &result;
}

#define RUN(tool, ...) run(tool, "", 0, (const char *const[]){__VA_ARGS__, NULL})
#define RUN_WITH(tool, input, ...)                                                                 \
	run(tool, input, strlen(input), (const char *const[]){__VA_ARGS__, NULL})

static cJSON *
parse(const outcome *o)
{
	cJSON *json = cJSON_Parse(o->out);

	if (o->code != 0 || json == NULL)
		fail_msg("exit code %d, output \"%s\", errors \"%s\"", o->code, o->out, o->errors);
	return json;
}

static const cJSON *
get(const cJSON *object, const char *key)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);

	if (item == NULL)
		fail_msg("no \"%s\"", key);
	return item;
}

static void
expect_failure(const outcome *o, int code, const char *part)
{
	if (o->code != code || strstr(o->errors, part) == NULL)
		fail_msg("exit code %d, errors \"%s\"", o->code, o->errors);
	assert_string_equal(o->out, "");
}

/* ---------------------------------------------------------------------------------------------
 * Options
 * --------------------------------------------------------------------------------------------- */

static void
test_usage(void **state)
{
	static const tool tools[] = {q3_tool_serve,      q3_tool_inspect,  q3_tool_tokenize,
	                             q3_tool_logits,     q3_tool_generate, q3_tool_bench,
	                             q3_tool_detokenize, q3_tool_rows,     q3_tool_embed};
	outcome *o;

	(void) state;
	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++)
	{
		o = RUN(tools[i], "tool", "--help");
		assert_int_equal(o->code, 0);
		assert_non_null(strstr(o->out, "Usage: qwen3dm-engine "));
		expect_failure(RUN(tools[i], "tool", "--nonsense"), 2, "nonsense");
	}
	expect_failure(RUN(q3_tool_inspect, "inspect"), 2, "missing arguments");
	expect_failure(RUN(q3_tool_inspect, "inspect", "a", "b"), 2, "too many arguments");
	expect_failure(RUN(q3_tool_generate, "generate", "-p", "x"), 2, "--model is required");
	expect_failure(RUN(q3_tool_generate, "generate", "-m", "x"), 2, "--prompt is required");
	expect_failure(RUN(q3_tool_serve, "serve", "-m", "x"), 2, "--listen-fd");
	expect_failure(RUN(q3_tool_serve, "serve", "-m", "x", "--socket", "s", "--known-digest", "12"),
	               2, "hex");
}

static void
test_wrong_values(void **state)
{
	static const char *const numbers[] = {"x", "", "5x", "-1", "0", "99999999999999999999", "1.5"};

	(void) state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		expect_failure(
		    RUN(q3_tool_generate, "generate", "-m", "x", "-p", "x", "--max-tokens", numbers[i]), 2,
		    "for option --max-tokens: must be an integer from 1 to 2147483647");
	expect_failure(RUN(q3_tool_generate, "generate", "-m", "x", "-p", "x", "--seed", "-4"), 2,
	               "--seed");
	expect_failure(RUN(q3_tool_generate, "generate", "-m", "x", "-p", "x", "--top-p", "nan"), 2,
	               "for option --top-p: must be a number");
	expect_failure(RUN(q3_tool_generate, "generate", "-m", "x", "-p", "x", "--mode", "fast"), 2,
	               "precise");
	expect_failure(RUN(q3_tool_generate, "generate", "-m", "x", "-p", "x", "--kv", "f64"), 2,
	               "f16");
	expect_failure(RUN(q3_tool_logits, "logits", "-m", "x", "--tokens", "1,,2"), 2, "--tokens");
	expect_failure(RUN(q3_tool_logits, "logits", "-m", "x", "--tokens", "1,2,"), 2, "--tokens");
	expect_failure(RUN(q3_tool_logits, "logits", "-m", "/nonexistent", "--tokens", "1"), 1,
	               "/nonexistent");
}

/* ---------------------------------------------------------------------------------------------
 * Tools
 * --------------------------------------------------------------------------------------------- */

static void
test_tokenize(void **state)
{
	outcome *o;
	cJSON *json;

	(void) state;
	o = RUN_WITH(q3_tool_tokenize, "Hi <|im_end|>", "tokenize", "-m", model_path);
	assert_string_equal(o->out, "[72,105,32,60,124,105,109,95,101,110,100,124,62]\n");
	o = RUN_WITH(q3_tool_tokenize, "Hi <|im_end|>", "tokenize", "-m", model_path, "--special");
	assert_string_equal(o->out, "[72,105,32,258]\n");
	o = RUN_WITH(q3_tool_tokenize, "", "tokenize", "-m", model_path);
	assert_string_equal(o->out, "[]\n");

	json =
	    parse(RUN_WITH(q3_tool_detokenize, "[72, 105, 255, 34]", "detokenize", "-m", model_path));
	assert_string_equal(get(json, "text")->valuestring, "Hi\xef\xbf\xbd\"");
	cJSON_Delete(json);
	expect_failure(RUN_WITH(q3_tool_detokenize, "[72, 300]", "detokenize", "-m", model_path), 1,
	               "token 300 is not in the vocabulary");
	expect_failure(RUN_WITH(q3_tool_detokenize, "[72, \"x\"]", "detokenize", "-m", model_path), 1,
	               "not a JSON array of token ids");
	expect_failure(RUN_WITH(q3_tool_detokenize, "72", "detokenize", "-m", model_path), 1,
	               "not a JSON array of token ids");
}

static void
test_inspect(void **state)
{
	cJSON *json = parse(RUN(q3_tool_inspect, "inspect", model_path, "--tensors", "--digest"));

	(void) state;
	assert_string_equal(get(json, "architecture")->valuestring, "qwen3");
	assert_string_equal(get(json, "name")->valuestring, "tiny");
	assert_int_equal(get(get(json, "tokenizer"), "tokens")->valueint, TINY_VOCAB);
	assert_int_equal(get(get(json, "hyper_parameters"), "block_count")->valueint, TINY_LAYERS);
	assert_int_equal(cJSON_GetArraySize(get(json, "tensors")), get(json, "n_tensors")->valueint);
	assert_true(get(get(json, "bytes_by_type"), "F32")->valuedouble ==
	            4 * get(json, "parameters")->valuedouble);
	assert_true(cJSON_IsTrue(get(json, "runnable")));
	assert_int_equal(strlen(get(json, "sha256")->valuestring), 64);
	cJSON_Delete(json);
	expect_failure(RUN(q3_tool_inspect, "inspect", "/nonexistent"), 1, "/nonexistent");
}

/* A well-formed file of another kind of model is described, and why it cannot be run. */
static void
test_inspect_unknown_model(void **state)
{
	gguf_builder b = {0};
	char path[] = "/tmp/qwen3dm-test-XXXXXX";
	int fd = mkstemp(path);
	cJSON *json;

	(void) state;
	put_header(&b, 3, 1, 2);
	put_kv_string(&b, "general.architecture", "elsewhere");
	put_kv_u32(&b, "elsewhere.block_count", 3);
	put_tensor(&b, "strange.weight", Q3_F32, 8, 4, 0);
	put_padding(&b, 32);
	for (int i = 0; i < 32; i++)
		put_f32(&b, 1);
	assert_true(fd >= 0 && write(fd, b.data, b.n) == (ssize_t) b.n);
	close(fd);
	builder_free(&b);
	json = parse(RUN(q3_tool_inspect, "inspect", path));
	assert_string_equal(get(json, "architecture")->valuestring, "elsewhere");
	assert_int_equal(get(get(json, "hyper_parameters"), "block_count")->valueint, 3);
	assert_int_equal(get(json, "parameters")->valueint, 32);
	assert_true(cJSON_IsFalse(get(json, "runnable")));
	assert_non_null(strstr(get(json, "reason")->valuestring, "elsewhere"));
	cJSON_Delete(json);
	unlink(path);
}

static void
test_logits(void **state)
{
	char raw_path[] = "/tmp/qwen3dm-test-XXXXXX";
	int fd = mkstemp(raw_path);
	float rows[3][TINY_VOCAB];
	cJSON *json = parse(RUN(q3_tool_logits, "logits", "-m", model_path, "--tokens", "72,105,33",
	                        "--all", "--kv", "f32", "-t", "1"));
	const cJSON *position, *top;
	outcome *o;

	(void) state;
	o = RUN(q3_tool_logits, "logits", "-m", model_path, "--tokens", "72,105,33", "--all", "--raw",
	        raw_path, "--kv", "f32", "-t", "1");
	assert_int_equal(o->code, 0);
	assert_string_equal(o->out, "");
	assert_int_equal(read(fd, rows, sizeof(rows)), sizeof(rows));
	assert_int_equal(read(fd, rows, 1) == 0, 1);
	assert_int_equal(cJSON_GetArraySize(get(json, "positions")), 3);
	cJSON_ArrayForEach(position, get(json, "positions"))
	{
		const float *row = rows[get(position, "position")->valueint];
		double before = INFINITY;
		int best = 0;

		for (int i = 1; i < TINY_VOCAB; i++)
			best = row[i] > row[best] ? i : best;
		assert_int_equal(cJSON_GetArraySize(get(position, "top")), 10);
		assert_int_equal(get(cJSON_GetArrayItem(get(position, "top"), 0), "token")->valueint, best);
		cJSON_ArrayForEach(top, get(position, "top"))
		{
			double logit = get(top, "logit")->valuedouble;

			assert_true(fabs(logit - (double) row[get(top, "token")->valueint]) < 1e-4);
			assert_true(logit <= before);
			before = logit;
		}
	}
	cJSON_Delete(json);
	/* Only the last position. */
	json = parse(RUN(q3_tool_logits, "logits", "-m", model_path, "--tokens", "72,105,33"));
	assert_int_equal(cJSON_GetArraySize(get(json, "positions")), 1);
	cJSON_Delete(json);
	expect_failure(RUN(q3_tool_logits, "logits", "-m", model_path, "--tokens", "300"), 1,
	               "token 300 is not in the vocabulary");
	close(fd);
	unlink(raw_path);
}

static void
test_generate(void **state)
{
	cJSON *a = parse(RUN(q3_tool_generate, "generate", "-m", model_path, "-p", "hello", "-n", "20",
	                     "--temperature", "1", "--seed", "5", "-t", "1"));
	cJSON *b = parse(RUN(q3_tool_generate, "generate", "-m", model_path, "-p", "hello", "-n", "20",
	                     "--temperature", "1", "--seed", "5", "-t", "2"));
	cJSON *c = parse(RUN(q3_tool_generate, "generate", "-m", model_path, "-p", "hello", "-n", "20",
	                     "--raw", "--mode", "efficient", "--stop", "zzzzz", "--stop", "yyyyy"));

	(void) state;
	assert_string_equal(get(a, "value")->valuestring, get(b, "value")->valuestring);
	assert_int_equal(get(c, "output_tokens")->valueint, 20);
	assert_string_equal(get(c, "finish")->valuestring, "length");
	assert_string_equal(get(c, "mode")->valuestring, "efficient");
	assert_int_equal(get(c, "prompt_tokens")->valueint, 5);
	assert_true(get(a, "prompt_tokens")->valueint > 5); /* the chat format around it */
	assert_true(get(c, "confidence")->valuedouble > 0);
	cJSON_Delete(a);
	cJSON_Delete(b);
	cJSON_Delete(c);
	expect_failure(RUN(q3_tool_generate, "generate", "-m", model_path, "-p", "x", "--thinking",
	                   "--mode", "efficient"),
	               1, "thinking");
}

/* Runs the tool and gives its result. */
static cJSON *
result_of(const outcome *o)
{
	cJSON *json;

	if (o->code != 0)
		fail_msg("exit code %d, errors \"%s\"", o->code, o->errors);
	json = cJSON_Parse(o->out);
	assert_non_null(json);
	return json;
}

static void
test_rows(void **state)
{
	char path[] = "/tmp/qwen3dm-test-XXXXXX";
	int fd = mkstemp(path);
	cJSON *json;

	(void) state;
	assert_int_equal(write(fd, "one\ntwo\ntwo\nlast", 16), 16);
	close(fd);
	json = result_of(RUN(q3_tool_rows, "rows", "-m", model_path, "-n", "20", "-t", "1", "-p", "70",
	                     "-o", "9", "--kv-bytes", "10000000"));
	assert_int_equal(get(json, "rows")->valueint, 20);
	assert_int_equal(get(json, "prompt_tokens")->valueint, 20 * 79);
	/* Own tokens of two rows may be the same by chance. */
	assert_in_range(get(json, "cached_tokens")->valueint, 20 * 70, 20 * 70 + 20);
	assert_true(get(json, "rows_per_second")->valuedouble > 0);
	cJSON_Delete(json);
	json = result_of(RUN(q3_tool_rows, "rows", "-m", model_path, "-n", "5", "-t", "1", "-p", "70",
	                     "-o", "9", "-g", "7", "--kv-bytes", "10000000", "--no-prefix-cache"));
	assert_int_equal(get(json, "cached_tokens")->valueint, 0);
	assert_int_equal(get(json, "output_tokens")->valueint, 5 * 7);
	cJSON_Delete(json);
	json = result_of(RUN(q3_tool_rows, "rows", "-m", model_path, "-t", "1", "--input", path,
	                     "--label", "a", "--label", "ab", "--kv-bytes", "10000000"));
	assert_int_equal(get(json, "rows")->valueint, 4);
	assert_int_equal(get(json, "deduplicated")->valueint, 1);
	cJSON_Delete(json);
	expect_failure(RUN(q3_tool_rows, "rows", "-m", model_path, "--input", "/nowhere/at/all"), 1,
	               "could not open");
	expect_failure(RUN(q3_tool_rows, "rows", "-m", model_path, "--input", path, "--label", "a"), 2,
	               "at least two labels");
	unlink(path);
}

/* The length of a line's vector; its first coordinate in *first. */
static double
vector_length(const char *line, double *first)
{
	cJSON *json = cJSON_Parse(line);
	const cJSON *vector, *item;
	double sum = 0;

	assert_non_null(json);
	vector = get(json, "vector");
	assert_int_equal(cJSON_GetArraySize(vector), TINY_EMBD);
	*first = cJSON_GetArrayItem(vector, 0)->valuedouble;
	cJSON_ArrayForEach(item, vector) sum += item->valuedouble * item->valuedouble;
	cJSON_Delete(json);
	return sqrt(sum);
}

static void
test_embed(void **state)
{
	outcome *o = RUN_WITH(q3_tool_embed, "one\n\nthree\none\n", "embed", "-m", model_path, "-t",
	                      "1", "--context-length", "64", "--lines");
	double first[4], mean;
	char *line = o->out;

	(void) state;
	assert_int_equal(o->code, 0);
	for (int i = 0; i < 4; i++)
	{
		char *end = strchr(line, '\n');

		assert_non_null(end);
		*end = '\0';
		assert_true(fabs(vector_length(line, &first[i]) - 1) < 1e-6);
		line = end + 1;
	}
	assert_string_equal(line, "");
	assert_true(first[0] == first[3] && first[0] != first[1] && first[0] != first[2]);
	o = RUN_WITH(q3_tool_embed, "one", "embed", "-m", model_path, "-t", "1", "--context-length",
	             "64", "--mean");
	assert_true(fabs(vector_length(o->out, &mean) - 1) < 1e-6);
	assert_true(mean != first[0]);
	expect_failure(RUN_WITH(q3_tool_embed, "one two three", "embed", "-m", model_path, "-t", "1",
	                        "--context-length", "8"),
	               1, "context length is 8");
	expect_failure(RUN_WITH(q3_tool_embed, "a", "embed", "-m", model_path, "--raw", "/nowhere/x"),
	               1, "could not write");
}

static void
test_bench(void **state)
{
	outcome *o = RUN(q3_tool_bench, "bench", "-m", model_path, "-p", "16", "-n", "4", "-r", "2",
	                 "-d", "8", "-b", "3", "-t", "1");
	char *second = strchr(o->out, '\n');
	cJSON *prefill, *decode;

	(void) state;
	assert_int_equal(o->code, 0);
	assert_non_null(second);
	*second++ = '\0';
	prefill = cJSON_Parse(o->out);
	decode = cJSON_Parse(second);
	assert_true(prefill != NULL && decode != NULL);
	assert_string_equal(get(prefill, "test")->valuestring, "prefill");
	assert_string_equal(get(decode, "test")->valuestring, "decode");
	assert_int_equal(get(decode, "batch")->valueint, 3);
	assert_int_equal(get(decode, "depth")->valueint, 8);
	assert_int_equal(get(prefill, "threads")->valueint, 1);
	assert_true(get(prefill, "tokens_per_second")->valuedouble > 0);
	assert_true(get(decode, "min")->valuedouble <= get(decode, "max")->valuedouble);
	cJSON_Delete(prefill);
	cJSON_Delete(decode);
}

static int
make_model(void **state)
{
	(void) state;
	return tiny_qwen_write(model_path, sizeof(model_path), 3) ? 0 : -1;
}

static int
remove_model(void **state)
{
	(void) state;
	return unlink(model_path);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_usage),
	    cmocka_unit_test(test_wrong_values),
	    cmocka_unit_test(test_tokenize),
	    cmocka_unit_test(test_inspect),
	    cmocka_unit_test(test_inspect_unknown_model),
	    cmocka_unit_test(test_logits),
	    cmocka_unit_test(test_generate),
	    cmocka_unit_test(test_embed),
	    cmocka_unit_test(test_bench),
	    cmocka_unit_test(test_rows),
	};

	return cmocka_run_group_tests(tests, make_model, remove_model);
}
