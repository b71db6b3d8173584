/*
 * bench_tokenizer.c: how many megabytes of text one core tokenizes in a second.
 *
 *     cc -std=c11 -D_GNU_SOURCE -O2 -Isrc -Ikernels -o /tmp/bench_tokenizer \
 *         test/bench/bench_tokenizer.c src/model/{error,gguf,unicode,pretokenize,bpe}.c \
 *         src/model/{vocabulary,tokenizer}.c kernels/dtype.c -lutf8proc -lm
 *     /tmp/bench_tokenizer MODEL.gguf TEXT...
 *
 * Each file is tokenized as one text, and again in rows of 200 bytes (cut between characters),
 * until a second has passed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/tokenizer.h"

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static char *
read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	char *data = NULL;

	*len = 0;
	if (f == NULL)
		return NULL;
	for (size_t n = 1; n > 0; *len += n)
	{
		char *grown = realloc(data, *len + 65536);

		if (grown == NULL)
			break;
		data = grown;
		n = fread(data + *len, 1, 65536, f);
	}
	fclose(f);
	return data;
}

/* Tokenizes text in pieces of about row bytes; returns the number of tokens. */
static size_t
encode_rows(const q3_tokenizer *tok, const char *text, size_t len, size_t row, q3_tokens *out)
{
	size_t n_tokens = 0;

	for (size_t at = 0; at < len;)
	{
		size_t n = len - at < row ? len - at : row;

		while (at + n < len && ((unsigned char) text[at + n] & 0xc0) == 0x80)
			n++;
		out->n = 0;
		if (q3_tokenizer_encode(tok, text + at, n, false, out, NULL) != Q3_OK)
			exit(1);
		n_tokens += out->n;
		at += n;
	}
	return n_tokens;
}

static void
measure(const q3_tokenizer *tok, const char *path, size_t row)
{
	q3_tokens out = {0};
	size_t len, n_tokens = 0;
	char *text = read_file(path, &len);
	double start = now(), seconds;
	int rounds = 0;

	if (text == NULL || len == 0)
	{
		fprintf(stderr, "could not read %s\n", path);
		exit(1);
	}
	do
	{
		n_tokens = encode_rows(tok, text, len, row > 0 ? row : len, &out);
		rounds++;
		seconds = now() - start;
	} while (seconds < 1);
	printf("%-24s %s %8.1f MB/s %6.2f bytes/token\n", path, row > 0 ? "rows " : "whole",
	       1e-6 * (double) len * rounds / seconds, (double) len / (double) n_tokens);
	q3_tokens_free(&out);
	free(text);
}

int
main(int argc, char **argv)
{
	q3_error err = {0};
	double start = now();
	q3_gguf *g = argc > 2 ? q3_gguf_open(argv[1], &err) : NULL;
	q3_tokenizer *tok = g == NULL ? NULL : q3_tokenizer_create(g, &err);

	if (tok == NULL)
	{
		fprintf(stderr, "usage: bench_tokenizer MODEL.gguf TEXT... %s\n", err.message);
		return 1;
	}
	printf("made in %.0f ms\n", 1e3 * (now() - start));
	for (int i = 2; i < argc; i++)
	{
		measure(tok, argv[i], 0);
		measure(tok, argv[i], 200);
	}
	q3_tokenizer_free(tok);
	q3_gguf_close(g);
	return 0;
}
