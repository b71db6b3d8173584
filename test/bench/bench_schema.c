/*
 * bench_schema.c: what decoding under a JSON Schema costs per token, on Qwen3's real vocabulary.
 *
 *     make build/bench/bench_schema && build/bench/bench_schema [ROUNDS]
 *
 * Run from the top of the source tree. A sampler draws answers from random logits under each
 * schema; timed are the mask, following the token (with forced text), and choosing with the mask
 * against choosing without. The first answer under a schema fills its kept masks: "first" is the
 * longest time of a mask in it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../unit/qwen3_vocab.h"
#include "model/constraint.h"
#include "model/sampler.h"

#define MAX_TIMES 200000
#define MAX_ANSWER 300

static const struct
{
	const char *name, *text;
} schemas[] = {
    {"invoice",
     "{\"type\":\"object\",\"properties\":{\"number\":{\"type\":\"string\"},\"date\":{"
     "\"type\":\"string\",\"format\":\"date\"},\"total\":{\"type\":\"number\",\"minimum\":0"
     "},\"currency\":{\"enum\":[\"EUR\",\"USD\",\"GBP\"]},\"items\":{\"type\":\"array\","
     "\"maxItems\":20,\"items\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":"
     "\"string\"},\"quantity\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":999}},"
     "\"required\":[\"name\",\"quantity\"]}}},\"required\":[\"number\",\"date\",\"total\","
     "\"currency\",\"items\"]}"},
    {"strings", "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":60},\"minItems\":"
                "5}"},
    {"nullable",
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":[\"string\",\"null\"]},\"b\":"
     "{\"anyOf\":[{\"type\":\"string\",\"format\":\"date-time\"},{\"type\":\"null\"}]},"
     "\"c\":{\"type\":\"boolean\"},\"d\":{\"type\":\"string\",\"minLength\":10}}}"},
    {"pattern", "{\"type\":\"array\",\"minItems\":10,\"items\":{\"type\":\"string\",\"pattern\":"
                "\"^[A-Z][a-z]+( [A-Z][a-z]+){1,3}$\"}}"},
    {"wide pattern",
     "{\"type\":\"array\",\"minItems\":3,\"items\":{\"type\":\"string\",\"pattern\":"
     "\"^.{1,80}$\"}}"},
    {"tree", "{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{"
             "\"name\":{\"type\":\"string\"},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":"
             "\"#/$defs/node\"}}},\"required\":[\"name\",\"children\"]}}}"},
};

typedef struct times
{
	double us[MAX_TIMES];
	size_t n;
	double sum;
} times;

static times mask_times, push_times, pick_times;

static double
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e6 * (double) t.tv_sec + 1e-3 * (double) t.tv_nsec;
}

static void
add_time(times *t, double us)
{
	t->sum += us;
	if (t->n < MAX_TIMES)
		t->us[t->n++] = us;
}

static int
compare_doubles(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
quantile(times *t, double q)
{
	qsort(t->us, t->n, sizeof(t->us[0]), compare_doubles);
	return t->n > 0 ? t->us[(size_t) (q * (double) (t->n - 1))] : NAN;
}

/* Logits that make tokens of everyday text likely: low ids, which were merged first. */
static void
fill_logits(float *logits, int32_t n, uint64_t *state)
{
	for (int32_t i = 0; i < n; i++)
	{
		*state = *state * 6364136223846793005u + 1442695040888963407u;
		logits[i] = (float) (*state >> 40) / (float) (1 << 22) - (float) i * 2e-5f;
	}
}

/* Draws one answer; returns its tokens, or those until it is given up. */
static int
draw_answer(q3_schema *s, const q3_token_trie *t, const q3_tokenizer *tok, float *logits,
            uint32_t *bits, uint64_t *state, q3_sampler *sampler, int *n_forced)
{
	q3_constraint *c = q3_constraint_create(s, t, NULL);
	q3_tokens forced = {0};
	int n = 0;

	while (n < MAX_ANSWER && !q3_constraint_closed(c))
	{
		double start;
		int32_t token;

		fill_logits(logits, t->n_vocab, state);
		start = now_us();
		if (!q3_constraint_mask(c, bits))
			abort();
		add_time(&mask_times, now_us() - start);
		start = now_us();
		token = q3_sampler_pick_allowed(sampler, logits, t->n_vocab, bits, NULL);
		add_time(&pick_times, now_us() - start);
		if (token == t->ends[0] || token == t->ends[1])
			break;
		start = now_us();
		if (!q3_constraint_push(c, token, tok) || !q3_constraint_forced(c, tok, &forced))
			abort();
		add_time(&push_times, now_us() - start);
		n += 1 + (int) forced.n;
		*n_forced += (int) forced.n;
		forced.n = 0;
	}
	q3_tokens_free(&forced);
	q3_constraint_free(c);
	return n;
}

static void
reset(void)
{
	mask_times = push_times = pick_times = (times){.n = 0};
}

static void
measure(int which, const q3_token_trie *t, const q3_tokenizer *tok, q3_sampler *sampler, int rounds)
{
	float *logits = malloc(sizeof(float) * (size_t) t->n_vocab);
	uint32_t *bits = malloc(sizeof(uint32_t) * (size_t) t->n_words);
	q3_str text = str(schemas[which].text);
	q3_error err = {0};
	uint64_t state = 1 + (uint64_t) which;
	int tokens = 0, forced = 0;
	double start = now_us(), compile, first;
	q3_schema *s = q3_schema_compile(text, &err);

	compile = now_us() - start;
	if (s == NULL || logits == NULL || bits == NULL)
	{
		fprintf(stderr, "%s: %s\n", schemas[which].name, err.message);
		exit(1);
	}
	reset();
	draw_answer(s, t, tok, logits, bits, &state, sampler, &forced);
	first = quantile(&mask_times, 1);
	reset();
	forced = 0;
	for (int i = 0; i < rounds; i++)
		tokens += draw_answer(s, t, tok, logits, bits, &state, sampler, &forced);
	printf("%-13s %7.0f %8.0f %8.1f %8.1f %8.1f %8.1f %8.1f %8.2f %7d %4.0f%%\n",
	       schemas[which].name, compile, first, quantile(&mask_times, 0.5),
	       quantile(&mask_times, 0.99), quantile(&push_times, 0.5), quantile(&pick_times, 0.5),
	       quantile(&mask_times, 1), (mask_times.sum + push_times.sum) / tokens, tokens,
	       100.0 * forced / tokens);
	q3_schema_free(s);
	free(logits);
	free(bits);
}

int
main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 20;
	q3_tokenizer *tok = qwen3_tokenizer("qwen2");
	double start = now_us();
	q3_token_trie *t = q3_token_trie_create(tok);
	q3_sampling sampling = {.temperature = 0, .top_p = 1};
	q3_sampler *sampler = q3_sampler_create(&sampling, QWEN3_N_VOCAB, NULL);

	if (t == NULL || sampler == NULL)
		return 1;
	printf("tree of %u nodes made in %.0f ms, %d characters in the longest token\n", t->n_nodes,
	       1e-3 * (now_us() - start), (int) t->most_chars);
	printf("microseconds:\n%-13s %7s %8s %8s %8s %8s %8s %8s %8s %7s %5s\n", "schema", "compile",
	       "first", "mask", "p99", "follow", "choose", "longest", "a token", "tokens", "forced");
	for (int i = 0; i < (int) (sizeof(schemas) / sizeof(schemas[0])); i++)
		measure(i, t, tok, sampler, rounds);
	q3_sampler_free(sampler);
	q3_token_trie_free(t);
	q3_tokenizer_free(tok);
	return 0;
}
