/*
 * test_constraint.c: masks against trying every token, forced text, and answers of a random model
 * under random schemas against a checker of its own.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "random_schema.h"
#include "schema_vocab.h"
#include "scheduler_fixture.h"

static q3_tokenizer *tok;
static q3_token_trie *trie;

static int
set_up(void **state)
{
	tok = schema_tokenizer();
	trie = q3_token_trie_create(tok);
	return trie != NULL ? load_model(state) : -1;
}

static int
tear_down(void **state)
{
	q3_token_trie_free(trie);
	q3_tokenizer_free(tok);
	return free_model(state);
}

static bool
has_bit(const uint32_t *bits, int32_t id)
{
	return bits[id / 32] >> (id % 32) & 1;
}

/* ---------------------------------------------------------------------------------------------
 * Masks
 * --------------------------------------------------------------------------------------------- */

static q3_constraint *
replay(q3_schema *s, const q3_tokens *tokens)
{
	q3_constraint *c = q3_constraint_create(s, trie, NULL);

	assert_non_null(c);
	for (size_t i = 0; i < tokens->n; i++)
		assert_true(q3_constraint_push(c, tokens->ids[i], tok));
	return c;
}

/* One random answer of at most so many tokens, whose masks are those of trying each token. */
static void
compare_masks(const char *text, uint64_t *random, size_t most)
{
	q3_schema *s = good_schema(text);
	uint32_t *bits = calloc((size_t) trie->n_words, sizeof(*bits));
	q3_tokens tokens = {0};

	assert_non_null(bits);
	while (tokens.n < most)
	{
		q3_constraint *c = replay(s, &tokens);
		int32_t allowed[4096], n = 0;

		assert_true(q3_constraint_mask(c, bits));
		assert_true(q3_constraint_complete(c) == has_bit(bits, trie->ends[0]));
		for (int32_t id = 0; id < trie->n_vocab; id++)
		{
			bool can =
			    q3_tokenizer_kind(tok, id) == Q3_TOKEN_NORMAL && q3_constraint_push(c, id, tok);

			if (can != has_bit(bits, id) && !q3_tokenizer_is_end(tok, id))
				fail_msg("%s: token %d after %zu others", text, (int) id, tokens.n);
			if (!can)
				continue;
			allowed[n++] = id;
			q3_constraint_free(c);
			c = replay(s, &tokens);
		}
		q3_constraint_free(c);
		if (n == 0)
			break; /* complete, and nothing can be added */
		/* Whenever no token can follow, the answer is complete: there are no dead ends. */
		assert_true(q3_tokens_push(&tokens, allowed[random_below(random, (uint32_t) n)]));
	}
	if (tokens.n < most)
	{
		q3_constraint *c = replay(s, &tokens);

		assert_true(q3_constraint_closed(c));
		q3_constraint_free(c);
	}
	q3_tokens_free(&tokens);
	free(bits);
	q3_schema_free(s);
}

static void
test_masks_are_those_of_trying(void **state)
{
	static const char *const schemas[] = {
	    "{\"type\":\"string\"}",
	    "{\"type\":\"string\",\"minLength\":2,\"maxLength\":5}",
	    "{\"type\":\"string\",\"pattern\":\"a+\",\"maxLength\":9}",
	    "{\"items\":{\"type\":\"string\",\"maxLength\":3},\"maxItems\":3}",
	    "{\"type\":\"number\"}",
	    "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"integer\"},{\"enum\":[\"aaaa\",\"a\"]}]}",
	    "{\"properties\":{\"name\":{\"type\":[\"string\",\"null\"]},\"names\":{\"$ref\":\"#\"},"
	    "\"a\":{\"type\":\"boolean\"}}}",
	    "{\"anyOf\":[{\"items\":{\"$ref\":\"#\"}},{\"items\":{\"const\":\"a\"}}]}"};
	uint64_t random = 11;

	(void) state;
	for (size_t i = 0; i < sizeof(schemas) / sizeof(schemas[0]); i++)
		compare_masks(schemas[i], &random, 12);
	for (int i = 0; i < 40; i++)
	{
		cJSON *json = random_schema(&random, 3);
		char *text = cJSON_PrintUnformatted(json);

		compare_masks(text, &random, 8);
		cJSON_free(text);
		cJSON_Delete(json);
	}
}

/* Kept masks are the same as masks that are made anew when there are too many. */
static void
test_kept_masks(void **state)
{
	q3_schema *s = good_schema("{\"pattern\":\"^.{1,300}$\"}");
	uint32_t *a = calloc((size_t) trie->n_words * 2, sizeof(*a)), *b = a + trie->n_words;

	(void) state;
	for (int round = 0; round < 2; round++)
	{
		q3_constraint *c = q3_constraint_create(s, trie, NULL);

		assert_true(q3_constraint_push(c, '"', tok));
		for (int i = 0; i < 300; i++)
		{
			assert_true(q3_constraint_mask(c, a));
			assert_true(q3_constraint_mask(c, b));
			assert_memory_equal(a, b, (size_t) trie->n_words * sizeof(*a));
			assert_true(has_bit(a, 'x') && has_bit(a, '"') == (i > 0));
			assert_true(q3_constraint_push(c, 'x', tok));
		}
		assert_true(q3_constraint_mask(c, a));
		assert_true(!has_bit(a, 'x') && has_bit(a, '"'));
		q3_constraint_free(c);
	}
	free(a);
	q3_schema_free(s);
}

/* Alternatives that cannot be told apart: an end with an error, in a moment. */
static void
test_ambiguity_has_a_limit(void **state)
{
	q3_schema *s = good_schema("{\"anyOf\":[{\"items\":{\"$ref\":\"#\"}},{\"items\":{\"anyOf\":[{"
	                           "\"$ref\":\"#\"}]}},{\"type\":\"null\"}]}");
	q3_constraint *c = q3_constraint_create(s, trie, NULL);
	uint32_t *bits = calloc((size_t) trie->n_words, sizeof(*bits));
	int n = 0;

	(void) state;
	while (n < 60 && q3_constraint_mask(c, bits) && q3_constraint_push(c, '[', tok))
		n++;
	assert_in_range(n, 5, 59);
	q3_constraint_free(c);
	q3_schema_free(s);
	free(bits);
}

/* Values nest as deep as allowed, and then have to end. */
static void
test_nesting_ends(void **state)
{
	q3_schema *s = good_schema("{\"items\":{\"$ref\":\"#\"}}");
	q3_constraint *c = q3_constraint_create(s, trie, NULL);
	int n = 0;

	(void) state;
	while (q3_constraint_push(c, '[', tok))
		n++;
	assert_int_equal(n, Q3_SCHEMA_MAX_NESTING + 1);
	assert_false(q3_constraint_complete(c));
	while (n-- > 0)
		assert_true(q3_constraint_push(c, ']', tok));
	assert_true(q3_constraint_closed(c));
	q3_constraint_free(c);
	q3_schema_free(s);
}

/* ---------------------------------------------------------------------------------------------
 * Forced text
 * --------------------------------------------------------------------------------------------- */

static void
expect_forced(const char *schema, const char *before, const char *forced, bool closed)
{
	q3_schema *s = good_schema(schema);
	q3_constraint *c = q3_constraint_create(s, trie, NULL);
	q3_tokens got = {0}, want = {0};

	for (; *before != '\0'; before++)
		assert_true(q3_constraint_push(c, (unsigned char) *before, tok));
	assert_true(q3_constraint_forced(c, tok, &got));
	assert_int_equal(q3_tokenizer_encode(tok, forced, strlen(forced), false, &want, NULL), Q3_OK);
	if (got.n != want.n || (got.n > 0 && memcmp(got.ids, want.ids, got.n * sizeof(*got.ids)) != 0))
		fail_msg("%s: %zu tokens instead of %zu", schema, got.n, want.n);
	assert_true(q3_constraint_closed(c) == closed);
	q3_tokens_free(&got);
	q3_tokens_free(&want);
	q3_constraint_free(c);
	q3_schema_free(s);
}

static void
test_forced(void **state)
{
	static const char one[] = "{\"properties\":{\"name\":{\"type\":\"string\"},\"n\":{\"type\":"
	                          "\"integer\"}},\"required\":[\"name\",\"n\"]}";
	static const char digits[] = "{\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":0}},"
	                             "\"required\":[\"n\"]}";

	(void) state;
	/* The quote that opens a string may be one token with what follows. */
	expect_forced(one, "", "{\"name\":", false);
	/* The space, too, if a sign may follow; if only digits may, it is a token of its own. */
	expect_forced(one, "{\"name\": \"x\"", ", \"n\":", false);
	expect_forced(digits, "{", "\"n\": ", false);
	expect_forced(one, "{\"name\": \"x", "", false);
	expect_forced(one, "{\"name\": \"x\", \"n\": 1", "", false);
	expect_forced(one, "{\"name\": \"x\", \"n\": 1}", "", true);
	expect_forced("{\"const\":\"name\"}", "", "\"name\"", true);
	expect_forced("{\"enum\":[\"name\",\"aaaa\"]}", "\"n", "ame\"", true);
	/* "12" is a token. */
	expect_forced("{\"enum\":[1,12]}", "", "", false);
	expect_forced("{\"format\":\"date\"}", "\"2024", "-", false);
	expect_forced("{\"properties\":{\"\xc3\xa9\":{\"const\":1}}}", "{", "", false);
	expect_forced("{\"properties\":{\"\xc3\xa9\":{\"const\":1}}}", "{\"\xc3", "", false);
	/* Normalisation would change this text, so no tokens give it. */
	expect_forced("{\"const\":\"e\xcc\x81\"}", "", "", false);
}

/* ---------------------------------------------------------------------------------------------
 * Answers of a random model
 * --------------------------------------------------------------------------------------------- */

typedef struct run
{
	cJSON *json;
	char *text;
	probe *p;
} run;

static q3_job_options
schema_options(const char *prompt, const char *schema, int32_t max_tokens)
{
	q3_job_options o = options_for(prompt, max_tokens);

	o.schema = str(schema);
	return o;
}

static void
start_run(fixture *f, run *r, uint64_t *random, int number)
{
	static const double temperatures[] = {0, 0.7, 1, 3};
	q3_job_options o;
	char prompt[32];

	r->json = random_schema(random, 3);
	r->text = cJSON_PrintUnformatted(r->json);
	snprintf(prompt, sizeof(prompt), "prompt %d", number);
	o = schema_options(prompt, r->text, 30 + (int32_t) random_below(random, 150));
	o.has_temperature = true;
	o.temperature = temperatures[number % 4];
	o.has_top_p = number % 3 == 0;
	o.top_p = 0.8;
	o.has_top_k = number % 5 == 0;
	o.top_k = 7;
	o.seed = (uint64_t) number;
	o.stream = number % 2;
	r->p = submit(f, &o, 1, 100);
}

/* True when the answer is complete. */
static bool
finish_run(run *r)
{
	q3_str value = q3_output_value(r->p->job.output);
	bool stop = r->p->job.finish == Q3_FINISH_STOP;
	const char *why = "";

	if (r->p->done != 1 || r->p->job.error.code != Q3_OK)
		fail_msg("%s: %s", r->text, r->p->job.error.message);
	if (stop && !check_text(r->json, value.data, value.len, &why))
		fail_msg("%.*s is %s: %s", (int) value.len, value.data, why, r->text);
	if (r->p->job.stream)
	{
		assert_int_equal(r->p->text_len, value.len);
		assert_memory_equal(r->p->text, value.data, value.len);
	}
	discard(r->p);
	cJSON_free(r->text);
	cJSON_Delete(r->json);
	return stop;
}

#define RUNS 2000
#define AT_ONCE 50

static void
test_random_answers(void **state)
{
	fixture f;
	run runs[AT_ONCE];
	uint64_t random = 2024;
	int complete = 0;

	(void) state;
	open_fixture(&f, 512, 128, AT_ONCE);
	for (int first = 0; first < RUNS; first += AT_ONCE)
	{
		for (int i = 0; i < AT_ONCE; i++)
			start_run(&f, &runs[i], &random, first + i);
		run_all(&f);
		for (int i = 0; i < AT_ONCE; i++)
			complete += finish_run(&runs[i]);
	}
	close_fixture(&f);
	print_message("%d of %d answers are complete\n", complete, RUNS);
	assert_true(complete > RUNS / 2);
}

/* ---------------------------------------------------------------------------------------------
 * Jobs with a schema
 * --------------------------------------------------------------------------------------------- */

static void
assert_value(const probe *p, const char *text)
{
	q3_str value = q3_output_value(p->job.output);

	assert_int_equal(p->done, 1);
	assert_int_equal(p->job.error.code, Q3_OK);
	if (value.len != strlen(text) || memcmp(value.data, text, value.len) != 0)
		fail_msg("\"%.*s\" instead of \"%s\"", (int) value.len, value.data, text);
}

/* Answers that are forced to the end need no end token, and stop at max_tokens, too. */
static void
test_forced_answers(void **state)
{
	static const char schema[] = "{\"properties\":{\"a\":{\"const\":1},\"b\":{\"enum\":[\"x\"]}},"
	                             "\"required\":[\"a\",\"b\"]}";
	static const char value[] = "{\"a\": 1, \"b\": \"x\"}";
	const int32_t n = sizeof(value) - 1;
	fixture f;

	(void) state;
	open_fixture(&f, 256, 16, 4);
	for (int32_t max = n - 1; max <= n + 1; max++)
	{
		q3_job_options o = schema_options("x", schema, max);
		probe *p = submit(&f, &o, 1, 100);

		run_all(&f);
		if (max >= n)
			assert_value(p, value);
		assert_int_equal(p->job.finish, max >= n ? Q3_FINISH_STOP : Q3_FINISH_LENGTH);
		assert_int_equal(q3_output_n_tokens(p->job.output), max < n ? max : n);
		assert_int_equal(atomic_load(&p->job.prompt_tokens), 1);
		discard(p);
	}
	close_fixture(&f);
}

/* The greedy answer does not depend on neighbours, on the size of steps or on who computes it. */
static void
test_same_answer(void **state)
{
	static const char schema[] =
	    "{\"items\":{\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":5},\"number\":{"
	    "\"type\":\"integer\",\"minimum\":0,\"maximum\":99}},\"required\":[\"name\",\"number\"]},"
	    "\"minItems\":2,\"maxItems\":3}";
	q3_job_options o = schema_options("some prompt", schema, 200), other = o;
	fixture alone, together;
	probe *a, *b[4], *c;

	(void) state;
	open_fixture(&alone, 512, 512, 1);
	a = submit(&alone, &o, 1, 100);
	run_all(&alone);
	assert_int_equal(a->job.finish, Q3_FINISH_STOP);
	open_fixture(&together, 512, 6, 8);
	o.share = true;
	for (int i = 0; i < 4; i++)
		b[i] = submit(&together, &o, 1, 100);
	other.share = true;
	other.schema = str("{\"type\":\"integer\",\"maximum\":9,\"minimum\":0}");
	c = submit(&together, &other, 1, 100);
	for (int i = 0; i < 12; i++)
		q3_scheduler_step(together.s);
	/* Others take over where the first one is. */
	q3_scheduler_cancel(together.s, &b[0]->job);
	q3_scheduler_cancel(together.s, &b[2]->job);
	run_all(&together);
	assert_int_equal(b[0]->job.error.code, Q3_ERR_CANCELLED);
	for (int i = 1; i < 4; i += 2)
	{
		assert_same_value(a, b[i]);
		assert_int_equal(b[i]->job.finish, Q3_FINISH_STOP);
		assert_int_equal(q3_output_n_tokens(a->job.output), q3_output_n_tokens(b[i]->job.output));
		assert_true(a->job.logprob_sum == b[i]->job.logprob_sum);
		assert_int_equal(a->job.n_logprobs, b[i]->job.n_logprobs);
	}
	assert_true(b[3]->job.deduplicated);
	assert_false(c->job.deduplicated);
	assert_int_equal(q3_output_value(c->job.output).len, 1);
	assert_in_range(a->job.n_logprobs, 1, q3_output_n_tokens(a->job.output) - 1);
	discard(a);
	discard(c);
	for (int i = 0; i < 4; i++)
		discard(b[i]);
	close_fixture(&alone);
	close_fixture(&together);
}

/* The schema holds from </think> on; before, the answer cannot end. */
static void
test_thinking(void **state)
{
	fixture f;
	int answered = 0;

	(void) state;
	open_fixture(&f, 512, 64, 32);
	for (int i = 0; i < 60; i++)
	{
		q3_job_options o = schema_options("think", "{\"enum\":[\"yes\",\"no\"]}", 400);
		probe *p;
		q3_str value;

		o.plain = false;
		o.thinking = true;
		o.has_temperature = true;
		o.temperature = 8;
		o.has_top_p = o.has_top_k = true; /* off */
		o.top_p = 1;
		o.seed = (uint64_t) i;
		p = submit(&f, &o, 1, 100);
		run_all(&f);
		value = q3_output_value(p->job.output);
		assert_int_equal(p->job.error.code, Q3_OK);
		assert_non_null(q3_output_thinking(p->job.output).data);
		if (p->job.finish == Q3_FINISH_STOP)
			assert_true((value.len == 5 && memcmp(value.data, "\"yes\"", 5) == 0) ||
			            (value.len == 4 && memcmp(value.data, "\"no\"", 4) == 0));
		answered += p->job.finish == Q3_FINISH_STOP;
		discard(p);
	}
	assert_true(answered > 5);
	close_fixture(&f);
}

static void
expect_refusal(fixture *f, const q3_job_options *o, const char *message)
{
	q3_job job;
	q3_error err = {0};

	q3_job_init(&job);
	assert_int_equal(q3_job_generate(&job, &f->preparer, o, &err), Q3_ERR_INVALID);
	if (strstr(err.message, message) == NULL)
		fail_msg("%s", err.message);
	q3_job_free(&job);
}

static void
test_refusals(void **state)
{
	q3_job_options o = schema_options("x", "{\"type\":\"integer\"}", 10);
	q3_str stop = str("3");
	fixture f;

	(void) state;
	open_fixture(&f, 256, 16, 4);
	o.stops = &stop;
	o.n_stops = 1;
	expect_refusal(&f, &o, "stop strings cannot be combined");
	o = schema_options("x", "{\"type\":\"intege\"}", 10);
	expect_refusal(&f, &o, "\"type\"");
	o = schema_options("x", "", 10);
	expect_refusal(&f, &o, "not valid JSON");
	close_fixture(&f);
}

/* ---------------------------------------------------------------------------------------------
 * The cache
 * --------------------------------------------------------------------------------------------- */

static void *
use_cache(void *arg)
{
	q3_schema_cache *cache = arg;
	uint32_t *bits = calloc((size_t) trie->n_words, sizeof(*bits));

	for (int i = 0; i < 300 && bits != NULL; i++)
	{
		char text[80];
		q3_error err = {0};
		q3_cached_schema *s;
		q3_constraint *c;

		snprintf(text, sizeof(text), "{\"pattern\":\"^.{1,%d}$\"}", 5 + i % 100);
		s = q3_schema_cache_get(cache, str(text), &err);
		c = s != NULL ? q3_cached_constraint(s, &err) : NULL;
		if (c == NULL || !q3_constraint_push(c, '"', tok) || !q3_constraint_mask(c, bits))
		{
			free(bits);
			return NULL;
		}
		q3_constraint_free(c);
		q3_schema_cache_put(s);
	}
	free(bits);
	return bits != NULL ? cache : NULL;
}

static void
test_cache(void **state)
{
	q3_schema_cache *cache = q3_schema_cache_create(tok);
	q3_cached_schema *a, *b;
	q3_error err = {0};
	pthread_t threads[3];
	void *result;

	(void) state;
	assert_non_null(cache);
	a = q3_schema_cache_get(cache, str("{\"type\":\"null\"}"), &err);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_cache, cache), 0);
	for (int i = 0; i < 3; i++)
	{
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
	b = q3_schema_cache_get(cache, str("{\"type\":\"null\"}"), &err);
	assert_ptr_equal(a, b);
	assert_null(q3_schema_cache_get(cache, str("{}"), &err));
	assert_int_equal(err.code, Q3_ERR_INVALID);
	q3_schema_cache_put(a);
	q3_schema_cache_put(b);
	q3_schema_cache_put(NULL);
	q3_schema_cache_free(cache);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_masks_are_those_of_trying),
	    cmocka_unit_test(test_kept_masks),
	    cmocka_unit_test(test_ambiguity_has_a_limit),
	    cmocka_unit_test(test_nesting_ends),
	    cmocka_unit_test(test_forced),
	    cmocka_unit_test(test_forced_answers),
	    cmocka_unit_test(test_same_answer),
	    cmocka_unit_test(test_thinking),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_cache),
	    cmocka_unit_test(test_random_answers),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
