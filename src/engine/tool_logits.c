/*
 * tool_logits.c: "qwen3dm-engine logits": the numbers themselves, for comparing with an oracle.
 */
#include "engine/tools.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows of logits held at once. */
#define MAX_ROWS 64
#define TOP 10

typedef struct logits_options
{
	q3_tool_model model;
	const char *list, *raw;
	bool all;
	q3_tokens tokens;
	FILE *out;
	cJSON *rows;
} logits_options;

/* "1,2,3"; white space is fine. False after a message. */
static bool
parse_tokens(const char *list, q3_tokens *tokens)
{
	const char *p = list;

	while (true)
	{
		char *end;
		long id;

		errno = 0;
		id = strtol(p, &end, 10);
		if (end == p || errno != 0 || id < 0 || id > INT32_MAX)
			return false;
		if (!q3_tokens_push(tokens, (int32_t) id))
			return false;
		p = end + strspn(end, " \t\n");
		if (*p == '\0')
			return true;
		if (*p++ != ',')
			return false;
	}
}

/* The most likely tokens of one position. */
static cJSON *
top_tokens(const q3_tokenizer *tok, const float *row, int32_t n_vocab, int32_t position)
{
	cJSON *object = cJSON_CreateObject(), *list;
	int32_t best[TOP], n = 0;

	for (int32_t id = 0; id < n_vocab; id++)
	{
		int32_t at = n;

		while (at > 0 && row[id] > row[best[at - 1]])
			at--;
		if (at == TOP)
			continue;
		if (n < TOP)
			n++;
		memmove(&best[at + 1], &best[at], sizeof(best[0]) * (size_t) (n - 1 - at));
		best[at] = id;
	}
	cJSON_AddNumberToObject(object, "position", position);
	list = cJSON_AddArrayToObject(object, "top");
	for (int32_t i = 0; i < n; i++)
	{
		cJSON *entry = cJSON_CreateObject();
		size_t len = 0;
		const char *piece = q3_tokenizer_piece(tok, best[i], &len);

		cJSON_AddNumberToObject(entry, "token", best[i]);
		q3_tool_add_text(entry, "text", piece, len);
		q3_tool_add_number(entry, "logit", row[best[i]], 5);
		cJSON_AddItemToArray(list, entry);
	}
	return object;
}

static q3_code
use_rows(logits_options *o, const float *logits, int32_t first, int32_t n, q3_error *err)
{
	int32_t n_vocab = q3_model_get_info(o->model.model)->n_vocab;

	if (o->out != NULL &&
	    fwrite(logits, sizeof(float) * (size_t) n_vocab, (size_t) n, o->out) != (size_t) n)
		return q3_fail(err, Q3_ERR_IO, "could not write \"%s\": %s", o->raw, strerror(errno));
	for (int32_t i = 0; o->out == NULL && i < n; i++)
		cJSON_AddItemToArray(o->rows, top_tokens(q3_model_tokenizer(o->model.model),
		                                         logits + (size_t) i * (size_t) n_vocab, n_vocab,
		                                         first + i));
	return Q3_OK;
}

/* Piece by piece, so that memory does not grow with the number of positions. */
static q3_code
compute(logits_options *o, q3_seq *seq, float *logits, q3_error *err)
{
	int32_t n = (int32_t) o->tokens.n, chunk = o->model.info.max_batch_tokens;
	q3_code code = Q3_OK;

	if (o->all && chunk > MAX_ROWS)
		chunk = MAX_ROWS;
	for (int32_t done = 0; done < n && code == Q3_OK; done += chunk)
	{
		int32_t part = n - done < chunk ? n - done : chunk;
		bool last = done + part == n;
		q3_batch_item item = {.seq = seq,
		                      .tokens = o->tokens.ids + done,
		                      .n_tokens = part,
		                      .mode = o->model.mode,
		                      .logits = logits};

		item.want = o->all ? Q3_WANT_ALL : last ? Q3_WANT_LAST : Q3_WANT_NOTHING;
		code = q3_forward(o->model.rt, &item, 1, NULL, err);
		if (code == Q3_OK && item.want != Q3_WANT_NOTHING)
			code =
			    o->all ? use_rows(o, logits, done, part, err) : use_rows(o, logits, n - 1, 1, err);
	}
	return code;
}

static q3_code
check_tokens(const logits_options *o, q3_error *err)
{
	int32_t n_vocab = q3_model_get_info(o->model.model)->n_vocab;

	for (size_t i = 0; i < o->tokens.n; i++)
		if (o->tokens.ids[i] >= n_vocab)
			return q3_fail(err, Q3_ERR_INVALID, "token %" PRId32 " is not in the vocabulary",
			               o->tokens.ids[i]);
	if (o->tokens.n > (size_t) o->model.info.context_length)
		return q3_fail(err, Q3_ERR_TOO_LONG,
		               "input has %zu tokens, but the context length is %" PRId32, o->tokens.n,
		               o->model.info.context_length);
	return Q3_OK;
}

static q3_code
run(logits_options *o, q3_error *err)
{
	size_t row = sizeof(float) * (size_t) q3_model_get_info(o->model.model)->n_vocab;
	float *logits = malloc(row * (o->all ? MAX_ROWS : 1));
	q3_seq *seq = q3_seq_create(o->model.rt);
	q3_code code = check_tokens(o, err);

	if (code == Q3_OK &&
	    (logits == NULL || seq == NULL || !q3_seq_reserve(seq, (int32_t) o->tokens.n)))
		code = q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (code == Q3_OK && o->raw != NULL)
	{
		o->out = fopen(o->raw, "wb");
		if (o->out == NULL)
			code = q3_fail(err, Q3_ERR_IO, "could not create \"%s\": %s", o->raw, strerror(errno));
	}
	if (code == Q3_OK)
		code = compute(o, seq, logits, err);
	if (o->out != NULL && fclose(o->out) != 0 && code == Q3_OK)
		code = q3_fail(err, Q3_ERR_IO, "could not write \"%s\": %s", o->raw, strerror(errno));
	q3_seq_free(seq);
	free(logits);
	return code;
}

static int
parse(logits_options *o, int argc, char **argv)
{
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(o->model),
	    Q3_TOOL_MODE_OPTION(o->model),
	    Q3_TOOL_BITS_OPTION(o->model),
	    Q3_TOOL_PACKED_OPTION(o->model),
	    {"tokens", 0, Q3_OPT_STRING, &o->list, NULL, 0, 0, "IDS", "token ids, as 1,2,3"},
	    {"all", 0, Q3_OPT_FLAG, &o->all, NULL, 0, 0, NULL, "every position, not only the last"},
	    {"raw", 0, Q3_OPT_STRING, &o->raw, NULL, 0, 0, "OUT",
	     "write float32 [positions][vocabulary] to this file"},
	    Q3_TOOL_KV_OPTION(o->model),
	    Q3_TOOL_THREADS_OPTION(o->model),
	};
	const q3_command_line c = {
	    .name = "logits",
	    .operands = "",
	    .summary = "Computes logits; without --raw prints the ten most likely tokens.",
	    .options = options,
	    .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code >= 0)
		return code;
	code = q3_tool_model_check(&o->model, c.name);
	if (code != 0)
		return code;
	if (o->list == NULL || !parse_tokens(o->list, &o->tokens))
		return q3_tool_usage(c.name, "option --tokens needs a list of token ids, as 1,2,3");
	return -1;
}

int
q3_tool_logits(int argc, char **argv)
{
	logits_options o = {0};
	int code = parse(&o, argc, argv);
	q3_error err = {0};
	cJSON *json;

	if (code >= 0)
	{
		q3_tokens_free(&o.tokens);
		return code;
	}
	json = cJSON_CreateObject();
	o.rows = cJSON_AddArrayToObject(json, "positions");
	/* Only as much KV cache as these tokens need. */
	o.model.context_length = (int32_t) o.tokens.n;
	code = q3_tool_model_open(&o.model);
	if (code == 0 && run(&o, &err) != Q3_OK)
		code = q3_tool_error(&err);
	if (code == 0 && o.raw == NULL)
		code = q3_tool_print(json, false);
	else
		cJSON_Delete(json);
	q3_tokens_free(&o.tokens);
	q3_tool_model_close(&o.model);
	return code;
}
