/*
 * tool_text.c: "qwen3dm-engine tokenize" and "detokenize": they need the file's vocabulary only, so
 * they work with models that cannot be run, too.
 */
#include "engine/tools.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/buffer.h"

/* Opens only the tokenizer. */
static q3_tokenizer *
open_tokenizer(const char *path, q3_error *err)
{
	q3_gguf *g = q3_gguf_open(path, err);
	q3_tokenizer *tok = g != NULL ? q3_tokenizer_create(g, err) : NULL;

	q3_gguf_close(g);
	return tok;
}

static int
print_ids(const q3_tokens *tokens)
{
	/* A cJSON array of millions would take more memory than the ids are worth. */
	putchar('[');
	for (size_t i = 0; i < tokens->n; i++)
		printf("%s%" PRId32, i > 0 ? "," : "", tokens->ids[i]);
	printf("]\n");
	if (fflush(stdout) != 0)
	{
		perror("qwen3dm-engine: could not write result");
		return 1;
	}
	return 0;
}

static int
tokenize(const char *path, bool special)
{
	q3_tokens tokens = {0};
	q3_error err = {0};
	size_t len = 0;
	char *text = q3_tool_read_all(STDIN_FILENO, &len, &err);
	q3_tokenizer *tok = text != NULL ? open_tokenizer(path, &err) : NULL;
	int code;

	if (tok == NULL || q3_tokenizer_encode(tok, text, len, special, &tokens, &err) != Q3_OK)
		code = q3_tool_error(&err);
	else
		code = print_ids(&tokens);
	q3_tokens_free(&tokens);
	q3_tokenizer_free(tok);
	free(text);
	return code;
}

int
q3_tool_tokenize(int argc, char **argv)
{
	q3_tool_model m = {0};
	bool special = false;
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(m),
	    {"special", 0, Q3_OPT_FLAG, &special, NULL, 0, 0, NULL,
	     "strings of control tokens in the text become these tokens"},
	};
	const q3_command_line c = {.name = "tokenize",
	                           .operands = "",
	                           .summary =
	                               "Reads text on stdin, prints its token ids as a JSON array.",
	                           .options = options,
	                           .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code < 0)
		code = q3_tool_model_check(&m, c.name);
	else
		return code;
	return code != 0 ? code : tokenize(m.path, special);
}

/* The text of an array of ids as a JSON string. */
static q3_code
join(const q3_tokenizer *tok, const cJSON *ids, q3_buffer *out, q3_error *err)
{
	const cJSON *item;

	if (!cJSON_IsArray(ids))
		return q3_fail(err, Q3_ERR_INVALID, "input is not a JSON array of token ids");
	cJSON_ArrayForEach(item, ids)
	{
		double id = cJSON_IsNumber(item) ? item->valuedouble : NAN;
		const char *piece = NULL;
		size_t len = 0;

		if (!(id >= 0 && id <= INT32_MAX && id == floor(id)))
			return q3_fail(err, Q3_ERR_INVALID, "input is not a JSON array of token ids");
		piece = q3_tokenizer_piece(tok, (int32_t) id, &len);
		if (piece == NULL)
			return q3_fail(err, Q3_ERR_INVALID, "token %.0f is not in the vocabulary", id);
		if (!q3_buffer_append(out, piece, len))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	}
	return Q3_OK;
}

static int
detokenize(const char *path)
{
	q3_error err = {0};
	q3_buffer out = {0};
	size_t len = 0;
	char *text = q3_tool_read_all(STDIN_FILENO, &len, &err);
	q3_tokenizer *tok = text != NULL ? open_tokenizer(path, &err) : NULL;
	cJSON *ids = tok != NULL ? cJSON_ParseWithLength(text, len) : NULL, *json;
	int code;

	if (tok == NULL || join(tok, ids, &out, &err) != Q3_OK)
		code = q3_tool_error(&err);
	else
	{
		json = cJSON_CreateObject();
		q3_tool_add_text(json, "text", q3_buffer_len(&out) > 0 ? q3_buffer_bytes(&out) : "",
		                 q3_buffer_len(&out));
		code = q3_tool_print(json, false);
	}
	cJSON_Delete(ids);
	q3_buffer_free(&out);
	q3_tokenizer_free(tok);
	free(text);
	return code;
}

int
q3_tool_detokenize(int argc, char **argv)
{
	q3_tool_model m = {0};
	const q3_option options[] = {Q3_TOOL_MODEL_OPTION(m)};
	const q3_command_line c = {
	    .name = "detokenize",
	    .operands = "",
	    .summary = "Reads a JSON array of token ids on stdin, prints {\"text\": ...}.",
	    .options = options,
	    .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code < 0)
		code = q3_tool_model_check(&m, c.name);
	else
		return code;
	return code != 0 ? code : detokenize(m.path);
}
