/*
 * test_embed.c: texts as vectors, by the forward pass and by the scheduler: whatever is computed
 * beside a text, in however many pieces, with or without the prefix cache, its bits are the same.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "scheduler_fixture.h"

static uint64_t random_state = 3;

static int
random_below(int n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (int) ((uint32_t) (random_state >> 33) % (uint32_t) n);
}

static int32_t
n_embd(void)
{
	return q3_model_get_info(model)->n_embd;
}

/* ---------------------------------------------------------------------------------------------
 * The forward pass
 * --------------------------------------------------------------------------------------------- */

enum
{
	TOKENS = 50,
	SEQUENCES = 4,
	MAX_EMBD = 512
};

static int32_t tokens[SEQUENCES][TOKENS];

/* All tokens of each sequence in pieces of at most so many, side by side. */
static void
sums(int32_t piece, const q3_mode *modes, const q3_want *wants, double hidden[][MAX_EMBD],
     float *logits)
{
	q3_runtime_options options = {.threads = 1 + piece % 3, .max_batch_tokens = 256};
	q3_error err = {0};
	q3_runtime *rt = q3_runtime_create(model, &options, &err);
	q3_batch_item items[SEQUENCES];
	q3_seq *seqs[SEQUENCES];

	assert_non_null(rt);
	memset(hidden, 0, sizeof(double) * SEQUENCES * MAX_EMBD);
	for (int i = 0; i < SEQUENCES; i++)
	{
		seqs[i] = q3_seq_create(rt);
		assert_true(q3_seq_reserve(seqs[i], TOKENS));
	}
	for (int32_t done = 0; done < TOKENS; done += piece)
	{
		int32_t n = TOKENS - done < piece ? TOKENS - done : piece;

		for (int i = 0; i < SEQUENCES; i++)
		{
			q3_want want = wants[i];

			if (want != Q3_WANT_HIDDEN_SUM && done + n < TOKENS)
				want = Q3_WANT_NOTHING;
			items[i] = (q3_batch_item){.seq = seqs[i],
			                           .tokens = tokens[i] + done,
			                           .n_tokens = n,
			                           .mode = modes[i],
			                           .want = want,
			                           .logits = logits,
			                           .hidden = hidden[i]};
		}
		assert_int_equal(q3_forward(rt, items, SEQUENCES, NULL, &err), Q3_OK);
	}
	for (int i = 0; i < SEQUENCES; i++)
		q3_seq_free(seqs[i]);
	q3_runtime_free(rt);
}

static void
test_hidden_states_have_the_same_bits(void **state)
{
	static const q3_mode modes[SEQUENCES] = {Q3_PRECISE, Q3_EFFICIENT, Q3_PRECISE, Q3_EFFICIENT};
	static const q3_want wants[SEQUENCES] = {Q3_WANT_HIDDEN_SUM, Q3_WANT_HIDDEN_LAST, Q3_WANT_LAST,
	                                         Q3_WANT_HIDDEN_SUM};
	static double whole[SEQUENCES][MAX_EMBD], parts[SEQUENCES][MAX_EMBD];
	int32_t n_vocab = q3_model_get_info(model)->n_vocab;
	float *logits = malloc(sizeof(float) * (size_t) n_vocab);
	float *expected = malloc(sizeof(float) * (size_t) n_vocab);
	static const int32_t pieces[] = {1, 7, 32, 49};

	(void) state;
	assert_true(logits != NULL && expected != NULL && n_embd() <= MAX_EMBD);
	for (int i = 0; i < SEQUENCES; i++)
		for (int t = 0; t < TOKENS; t++)
			tokens[i][t] = random_below(q3_tokenizer_n_vocab(q3_model_tokenizer(model)));
	sums(TOKENS, modes, wants, whole, expected);
	for (int i = 0; i < SEQUENCES; i++)
		assert_int_equal(whole[i][0] == 0, i == 2); /* of which logits are wanted */
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
	{
		sums(pieces[i], modes, wants, parts, logits);
		assert_memory_equal(parts, whole, sizeof(whole));
		assert_memory_equal(logits, expected, sizeof(float) * (size_t) n_vocab);
	}
	free(logits);
	free(expected);
}

/* The sum of all is that of the last ones of all beginnings. */
static void
test_sum_is_of_every_token(void **state)
{
	q3_runtime_options options = {.threads = 1, .max_batch_tokens = 64};
	q3_error err = {0};
	q3_runtime *rt = q3_runtime_create(model, &options, &err);
	double sum[MAX_EMBD] = {0}, last[MAX_EMBD] = {0};
	q3_seq *seq = q3_seq_create(rt), *other = q3_seq_create(rt);
	q3_batch_item item = {.seq = seq,
	                      .tokens = tokens[0],
	                      .n_tokens = 20,
	                      .mode = Q3_PRECISE,
	                      .want = Q3_WANT_HIDDEN_SUM,
	                      .hidden = sum};

	(void) state;
	assert_true(q3_seq_reserve(seq, 20) && q3_seq_reserve(other, 20));
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_OK);
	item.seq = other;
	item.n_tokens = 1;
	item.want = Q3_WANT_HIDDEN_LAST;
	item.hidden = last; /* is added to */
	for (int t = 0; t < 20; t++, item.tokens++)
		assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_OK);
	assert_memory_equal(sum, last, sizeof(sum));
	q3_seq_free(seq);
	q3_seq_free(other);
	q3_runtime_free(rt);
}

static void
test_hidden_errors(void **state)
{
	q3_runtime_options options = {.threads = 1, .max_batch_tokens = 64};
	q3_error err = {0};
	q3_runtime *rt = q3_runtime_create(model, &options, &err);
	q3_seq *seq = q3_seq_create(rt);
	double hidden[MAX_EMBD] = {0};
	atomic_bool stop = true;
	q3_batch_item item = {.seq = seq,
	                      .tokens = tokens[0],
	                      .n_tokens = 10,
	                      .mode = Q3_PRECISE,
	                      .want = Q3_WANT_HIDDEN_SUM};

	(void) state;
	assert_true(q3_seq_reserve(seq, 20));
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_ERR_INVALID);
	item.want = Q3_WANT_HIDDEN_LAST;
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_ERR_INVALID);
	item.hidden = hidden;
	/* A pass that is cancelled adds nothing. */
	assert_int_equal(q3_forward(rt, &item, 1, &stop, &err), Q3_ERR_CANCELLED);
	for (int i = 0; i < MAX_EMBD; i++)
		assert_true(hidden[i] == 0);
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_OK);
	q3_seq_free(seq);
	q3_runtime_free(rt);
}

/* ---------------------------------------------------------------------------------------------
 * Jobs
 * --------------------------------------------------------------------------------------------- */

static probe *
make_text(fixture *f, const char *text, q3_mode mode, bool mean)
{
	probe *p = calloc(1, sizeof(*p));
	q3_error err = {0};

	assert_non_null(p);
	q3_job_init(&p->job);
	p->job.owner = p;
	p->job.role = 1;
	if (q3_job_embed(&p->job, &f->preparer, (q3_str){text, strlen(text)}, mode, mean, &err) !=
	    Q3_OK)
		fail_msg("%s", err.message);
	return p;
}

static probe *
submit_text(fixture *f, const char *text, q3_mode mode, bool mean)
{
	probe *p = make_text(f, text, mode, mean);

	q3_scheduler_submit(f->s, &p->job);
	return p;
}

static void
assert_same_vector(const probe *a, const probe *b)
{
	assert_int_equal(a->job.error.code, Q3_OK);
	assert_int_equal(b->job.error.code, Q3_OK);
	assert_memory_equal(a->job.vector, b->job.vector, sizeof(float) * (size_t) n_embd());
}

static void
test_vectors_have_length_1(void **state)
{
	static const char *const texts[] = {"", "a", "Some more words than that."};
	fixture f;

	(void) state;
	open_fixture(&f, 256, 64, 2);
	for (int i = 0; i < 12; i++)
	{
		probe *p = submit_text(&f, texts[i % 3], i / 3 % 2 ? Q3_EFFICIENT : Q3_PRECISE, i / 6);
		double length = 0;

		run_all(&f);
		assert_int_equal(p->done, 1);
		assert_int_equal(p->job.error.code, Q3_OK);
		for (int32_t k = 0; k < n_embd(); k++)
			length += (double) p->job.vector[k] * p->job.vector[k];
		assert_true(fabs(length - 1) < 1e-6);
		assert_int_equal(p->job.prompt.ids[p->job.prompt.n - 1],
		                 q3_tokenizer_special(q3_model_tokenizer(model))->text_end);
		discard(p);
	}
	close_fixture(&f);
}

enum
{
	MANY = 40
};

static char many[MANY][300];

/* Texts that begin alike, of all lengths. */
static void
make_many(void)
{
	for (int i = 0; i < MANY; i++)
	{
		int len = random_below(280), common = random_below(len + 1);

		for (int k = 0; k < len; k++)
			many[i][k] = k < common ? 'a' : (char) ('a' + random_below(3));
		many[i][len] = '\0';
	}
}

static q3_mode
mode_of(int i)
{
	return i % 2 ? Q3_EFFICIENT : Q3_PRECISE;
}

static bool
mean_of(int i)
{
	return i / 2 % 2;
}

/* All of them together, beside answers that are generated, some cancelled. */
static void
compare_schedules(probe *const *alone, int32_t max_batch, int32_t kv_tokens, bool cache)
{
	q3_runtime_options runtime = {.threads = 1,
	                              .context_length = 512,
	                              .max_batch_tokens = max_batch,
	                              .kv_f32 = true,
	                              .kv_bytes = kv_bytes(kv_tokens),
	                              .no_prefix_cache = !cache};
	q3_job_options o = options_for("once upon a time", 20);
	fixture f;
	probe *p[MANY], *answer;

	open_with(&f, &runtime);
	answer = submit(&f, &o, 2, 100);
	for (int i = 0; i < MANY; i++)
	{
		p[i] = submit_text(&f, many[i], mode_of(i), mean_of(i));
		for (int steps = random_below(3); steps > 0; steps--)
			q3_scheduler_step(f.s);
		if (i % 7 == 6)
			q3_scheduler_cancel(f.s, &p[i]->job);
	}
	run_all(&f);
	for (int i = 0; i < MANY; i++)
	{
		assert_int_equal(p[i]->done, 1);
		if (!atomic_load(&p[i]->job.cancelled) || p[i]->job.error.code == Q3_OK)
			assert_same_vector(p[i], alone[i]);
		if (mean_of(i))
			assert_int_equal(atomic_load(&p[i]->job.cached_tokens), 0);
		discard(p[i]);
	}
	assert_int_equal(answer->job.error.code, Q3_OK);
	discard(answer);
	close_fixture(&f);
}

static void
test_vectors_have_the_same_bits(void **state)
{
	q3_runtime_options runtime = {.threads = 1,
	                              .context_length = 512,
	                              .max_batch_tokens = 512,
	                              .kv_f32 = true,
	                              .no_prefix_cache = true};
	probe *alone[MANY];
	fixture f;

	(void) state;
	make_many();
	open_with(&f, &runtime);
	for (int i = 0; i < MANY; i++)
	{
		alone[i] = submit_text(&f, many[i], mode_of(i), mean_of(i));
		run_all(&f);
	}
	compare_schedules(alone, 512, 8192, true);
	compare_schedules(alone, 512, 8192, false);
	compare_schedules(alone, 70, 700, true);
	compare_schedules(alone, 5, 2000, true);
	for (int i = 0; i < MANY; i++)
		discard(alone[i]);
	close_fixture(&f);
}

static void
test_prefix_of_a_query(void **state)
{
	const char *queries[] = {"Instruct: find passages that answer\nQuery:one two",
	                         "Instruct: find passages that answer\nQuery:three"};
	fixture f;
	probe *first, *second, *mean;

	(void) state;
	open_fixture(&f, 256, 64, 8);
	first = submit_text(&f, queries[0], Q3_PRECISE, false);
	run_all(&f);
	second = submit_text(&f, queries[1], Q3_PRECISE, false);
	run_all(&f);
	mean = submit_text(&f, queries[1], Q3_PRECISE, true);
	run_all(&f);
	assert_int_equal(atomic_load(&first->job.cached_tokens), 0);
	assert_true(atomic_load(&second->job.cached_tokens) > 20);
	assert_int_equal(atomic_load(&mean->job.cached_tokens), 0);
	discard(first);
	discard(second);
	discard(mean);
	close_fixture(&f);
}

/* One of equal ones is cancelled after any number of steps: what it has summed up goes on. */
static void
test_equal_texts_are_computed_once(void **state)
{
	fixture f;
	probe *alone, *p[4], *other;

	(void) state;
	for (int mean = 0; mean < 2; mean++)
		for (int steps = 0; steps < 20; steps++)
		{
			open_fixture(&f, 512, 16, 4);
			alone = submit_text(&f, many[1], Q3_PRECISE, mean);
			run_all(&f);
			for (int i = 0; i < 4; i++)
				p[i] = submit_text(&f, many[1], Q3_PRECISE, mean);
			other = submit_text(&f, many[1], Q3_PRECISE, !mean);
			for (int i = 0; i < steps; i++)
				q3_scheduler_step(f.s);
			q3_scheduler_cancel(f.s, &p[0]->job);
			q3_scheduler_cancel(f.s, &p[2]->job);
			run_all(&f);
			for (int i = 1; i < 4; i += 2)
				assert_same_vector(p[i], alone);
			assert_true(p[3]->job.deduplicated);
			assert_int_equal(other->job.error.code, Q3_OK);
			assert_false(other->job.deduplicated);
			for (int i = 0; i < 4; i++)
				discard(p[i]);
			discard(other);
			discard(alone);
			close_fixture(&f);
		}
}

static void
test_text_errors(void **state)
{
	static char text[2000];
	fixture f;
	q3_job job;
	q3_error err = {0};
	probe *p;

	(void) state;
	open_pool(&f, 512, 64, 96);
	memset(text, 'x', sizeof(text) - 1);
	q3_job_init(&job);
	assert_int_equal(q3_job_embed(&job, &f.preparer, (q3_str){text, 600}, Q3_PRECISE, false, &err),
	                 Q3_ERR_TOO_LONG);
	q3_job_free(&job);
	/* The end token needs room, too. */
	q3_job_init(&job);
	assert_int_equal(q3_job_embed(&job, &f.preparer, (q3_str){text, 512}, Q3_PRECISE, false, &err),
	                 Q3_ERR_TOO_LONG);
	q3_job_free(&job);
	/* Within the context, but not the memory. */
	text[400] = '\0';
	p = submit_text(&f, text, Q3_PRECISE, true);
	assert_int_equal(p->job.error.code, Q3_ERR_TOO_LONG);
	assert_non_null(strstr(p->job.error.hint, "embedding_kv_cache_size"));
	discard(p);
	close_fixture(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_hidden_states_have_the_same_bits),
	    cmocka_unit_test(test_sum_is_of_every_token),
	    cmocka_unit_test(test_hidden_errors),
	    cmocka_unit_test(test_vectors_have_length_1),
	    cmocka_unit_test(test_vectors_have_the_same_bits),
	    cmocka_unit_test(test_prefix_of_a_query),
	    cmocka_unit_test(test_equal_texts_are_computed_once),
	    cmocka_unit_test(test_text_errors),
	};

	return cmocka_run_group_tests(tests, load_packed, free_model);
}
