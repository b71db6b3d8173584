/*
 * test_scheduler.c: the scheduler on a tiny random model: answers, room, cancelling. What it does
 * with many rows is in test_rows.c.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "scheduler_fixture.h"

/* ---------------------------------------------------------------------------------------------
 * What a job says does not depend on its neighbours
 * --------------------------------------------------------------------------------------------- */

static const char *const prompts[] = {
    "a", "The quick brown fox jumps over the lazy dog, and then it does so again.",
    "SELECT * FROM t WHERE x > 1", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "42"};

#define N_PROMPTS (sizeof(prompts) / sizeof(prompts[0]))

static q3_job_options
varied_options(size_t i)
{
	q3_job_options o = options_for(prompts[i], 20 + (int32_t) i);

	o.mode = i % 2 ? Q3_EFFICIENT : Q3_PRECISE;
	o.stream = i == 2;
	o.has_temperature = i >= 2;
	o.temperature = 0.9;
	o.seed = 1000 + i;
	return o;
}

static void
test_same_answers_alone_and_together(void **state)
{
	fixture alone, together;
	probe *a[N_PROMPTS], *b[N_PROMPTS];

	(void) state;
	open_fixture(&alone, 512, 512, 1);
	for (size_t i = 0; i < N_PROMPTS; i++)
	{
		q3_job_options o = varied_options(i);

		a[i] = make(&alone, &o);
		q3_scheduler_submit(alone.s, &a[i]->job);
		run_all(&alone);
	}
	/* Small steps, so that prompts are cut and mixed with answers. */
	open_fixture(&together, 512, 7, 8);
	for (size_t i = 0; i < N_PROMPTS; i++)
	{
		q3_job_options o = varied_options(i);

		b[i] = make(&together, &o);
		q3_scheduler_submit(together.s, &b[i]->job);
		q3_scheduler_step(together.s);
	}
	run_all(&together);
	for (size_t i = 0; i < N_PROMPTS; i++)
	{
		assert_int_equal(a[i]->done, 1);
		assert_int_equal(b[i]->done, 1);
		assert_int_equal(b[i]->job.error.code, Q3_OK);
		assert_same_value(a[i], b[i]);
		assert_true(a[i]->job.n_logprobs > 0);
		assert_true(a[i]->job.logprob_sum == b[i]->job.logprob_sum);
	}
	assert_int_equal(b[0]->job.finish, Q3_FINISH_LENGTH);
	assert_int_equal(q3_output_n_tokens(b[0]->job.output), 20);
	assert_true(q3_job_confidence(&b[0]->job) > 0 && q3_job_confidence(&b[0]->job) <= 1);
	/* The stream carried the whole value and nothing else. */
	assert_int_equal(b[2]->text_len, q3_output_value(b[2]->job.output).len);
	assert_memory_equal(b[2]->text, q3_output_value(b[2]->job.output).data, b[2]->text_len);
	assert_int_equal(b[1]->text_len, 0);
	for (size_t i = 0; i < N_PROMPTS; i++)
	{
		discard(a[i]);
		discard(b[i]);
	}
	close_fixture(&alone);
	close_fixture(&together);
}

static void
test_stop_string_ends_answer(void **state)
{
	fixture f;
	q3_job_options o = options_for("hello", 40);
	probe *whole, *cut;
	q3_str value, stop;

	(void) state;
	open_fixture(&f, 512, 64, 2);
	whole = make(&f, &o);
	q3_scheduler_submit(f.s, &whole->job);
	run_all(&f);
	value = q3_output_value(whole->job.output);
	assert_true(value.len > 12);
	stop = (q3_str){value.data + value.len / 2, 3};
	o.stops = &stop;
	o.n_stops = 1;
	cut = make(&f, &o);
	q3_scheduler_submit(f.s, &cut->job);
	run_all(&f);
	assert_int_equal(cut->job.finish, Q3_FINISH_STOP);
	assert_true(q3_output_value(cut->job.output).len <= value.len / 2);
	assert_memory_equal(q3_output_value(cut->job.output).data, value.data,
	                    q3_output_value(cut->job.output).len);
	discard(whole);
	discard(cut);
	close_fixture(&f);
}

/* ---------------------------------------------------------------------------------------------
 * Room
 * --------------------------------------------------------------------------------------------- */

static void
test_jobs_wait_for_room(void **state)
{
	fixture f;
	q3_job_options o = options_for("0123456789", 246);
	probe *p[5];
	int fit; /* how many have room at once */

	(void) state;
	open_fixture(&f, 256, 64, 2);
	fit = f.info.kv_blocks / ((255 + f.info.kv_block_tokens - 1) / f.info.kv_block_tokens);
	assert_in_range(fit, 1, 4);
	for (int i = 0; i < 5; i++)
	{
		p[i] = make(&f, &o);
		q3_scheduler_submit(f.s, &p[i]->job);
	}
	q3_scheduler_step(f.s);
	for (int i = 0; i < 5; i++)
	{
		bool runs = i < fit;

		assert_int_equal(atomic_load(&p[i]->job.phase) != Q3_PHASE_QUEUED, runs);
		assert_int_equal(atomic_load(&p[i]->job.kv_tokens) > 0, runs);
	}
	run_all(&f);
	for (int i = 0; i < 5; i++)
	{
		assert_int_equal(p[i]->done, 1);
		assert_int_equal(p[i]->job.error.code, Q3_OK);
		assert_same_value(p[0], p[i]);
		if (i > 0)
			discard(p[i]);
	}
	discard(p[0]);
	close_fixture(&f);
}

static void
test_more_jobs_than_rows(void **state)
{
	enum
	{
		N = 150
	};
	fixture f;
	q3_job_options o = options_for("many", 5);
	probe *p[N];

	(void) state;
	open_fixture(&f, 64, 512, N);
	for (int i = 0; i < N; i++)
	{
		p[i] = make(&f, &o);
		q3_scheduler_submit(f.s, &p[i]->job);
	}
	run_all(&f);
	for (int i = 0; i < N; i++)
	{
		assert_int_equal(p[i]->done, 1);
		assert_same_value(p[0], p[i]);
		if (i > 0)
			discard(p[i]);
	}
	discard(p[0]);
	close_fixture(&f);
}

static void
test_what_never_fits_is_an_error(void **state)
{
	fixture f;
	q3_job_options o = options_for("hello", 500);
	probe *p;

	(void) state;
	open_pool(&f, 4096, 64, 256); /* a cache that is smaller than the context */
	p = make(&f, &o);
	q3_scheduler_submit(f.s, &p->job);
	assert_int_equal(p->done, 1);
	assert_int_equal(p->job.error.code, Q3_ERR_TOO_LONG);
	assert_string_equal(p->job.error.message,
	                    "request needs room for 504 tokens, but the key-value cache holds 256");
	assert_false(q3_scheduler_step(f.s));
	discard(p);
	o.max_tokens = 251;
	p = make(&f, &o);
	q3_scheduler_submit(f.s, &p->job);
	run_all(&f);
	assert_int_equal(p->job.error.code, Q3_OK);
	discard(p);
	close_fixture(&f);
}

/* An error of the forward pass ends the jobs that were in it, and no other. */
static void
test_failed_pass(void **state)
{
	fixture f;
	q3_job_options o = options_for("hello", 5);
	probe *bad, *good;

	(void) state;
	open_fixture(&f, 64, 64, 2);
	bad = make(&f, &o);
	good = make(&f, &o);
	bad->job.prompt.ids[2] = TINY_VOCAB + 5; /* no such token */
	q3_scheduler_submit(f.s, &bad->job);
	q3_scheduler_step(f.s);
	assert_int_equal(bad->done, 1);
	assert_int_equal(bad->job.error.code, Q3_ERR_INVALID);
	q3_scheduler_submit(f.s, &good->job);
	run_all(&f);
	assert_int_equal(good->job.error.code, Q3_OK);
	assert_int_equal(q3_output_n_tokens(good->job.output), 5);
	discard(bad);
	discard(good);
	close_fixture(&f);
}

static void
test_answer_ends_at_the_context(void **state)
{
	fixture f;
	q3_job_options o = options_for("0123456789", 1000);
	probe *p;

	(void) state;
	open_fixture(&f, 64, 64, 1);
	p = make(&f, &o);
	q3_scheduler_submit(f.s, &p->job);
	run_all(&f);
	assert_int_equal(p->job.error.code, Q3_OK);
	assert_int_equal(p->job.finish, Q3_FINISH_LENGTH);
	assert_int_equal(q3_output_n_tokens(p->job.output), 54);
	discard(p);
	close_fixture(&f);
}

static void
expect_refusal(fixture *f, const q3_job_options *o, q3_code code, const char *message)
{
	q3_job job;
	q3_error err = {0};

	q3_job_init(&job);
	assert_int_equal(q3_job_generate(&job, &f->preparer, o, &err), code);
	assert_string_equal(err.message, message);
	q3_job_free(&job);
}

static void
test_bad_requests_are_refused(void **state)
{
	fixture f;
	char *text = malloc(100000);
	q3_job_options o = options_for("x", 10);

	(void) state;
	assert_non_null(text);
	memset(text, 'x', 100000);
	open_fixture(&f, 64, 64, 1);
	o.prompt = (q3_str){text, 64};
	expect_refusal(&f, &o, Q3_ERR_TOO_LONG, "prompt has 64 tokens, but the context length is 64");
	o.prompt.len = 83;
	expect_refusal(&f, &o, Q3_ERR_TOO_LONG, "prompt has 83 tokens, but the context length is 64");
	o.prompt.len = 100000;
	assert_true(f.preparer.max_bytes_a_token >= 13); /* "<|endoftext|>" */
	{
		q3_job job;
		q3_error err = {0};

		q3_job_init(&job);
		assert_int_equal(q3_job_generate(&job, &f.preparer, &o, &err), Q3_ERR_TOO_LONG);
		assert_non_null(strstr(err.message, "prompt has at least "));
		q3_job_free(&job);
	}
	o = options_for("", 10);
	expect_refusal(&f, &o, Q3_ERR_INVALID, "prompt has no tokens");
	o = options_for("x", 0);
	expect_refusal(&f, &o, Q3_ERR_INVALID, "max_tokens must be at least 1");
	o = options_for("x", 5);
	o.mode = Q3_EFFICIENT;
	o.thinking = true;
	expect_refusal(&f, &o, Q3_ERR_INVALID, "mode \"efficient\" cannot be combined with thinking");
	o = options_for("x", 5);
	o.has_temperature = true;
	o.temperature = NAN;
	{
		q3_job job;
		q3_error err = {0};

		q3_job_init(&job);
		assert_int_equal(q3_job_generate(&job, &f.preparer, &o, &err), Q3_ERR_INVALID);
		assert_non_null(strstr(err.message, "temperature"));
		q3_job_free(&job);
	}
	free(text);
	close_fixture(&f);
}

/* ---------------------------------------------------------------------------------------------
 * Cancelling
 * --------------------------------------------------------------------------------------------- */

static void
test_cancel_frees_room(void **state)
{
	fixture f;
	q3_job_options o = options_for("0123456789", 200);
	q3_runtime_info info;
	probe *running, *waiting, *later;

	(void) state;
	open_fixture(&f, 256, 64, 1);
	running = make(&f, &o);
	waiting = make(&f, &o);
	later = make(&f, &o);
	q3_scheduler_submit(f.s, &running->job);
	q3_scheduler_submit(f.s, &waiting->job);
	q3_scheduler_submit(f.s, &later->job);
	for (int i = 0; i < 5; i++)
		assert_true(q3_scheduler_step(f.s));
	q3_runtime_get_info(f.rt, &info);
	assert_true(info.kv_blocks_free < info.kv_blocks);

	q3_scheduler_cancel(f.s, &waiting->job);
	q3_scheduler_cancel(f.s, &running->job);
	q3_scheduler_cancel(f.s, &running->job);
	assert_true(q3_scheduler_step(f.s));
	assert_int_equal(running->done, 1);
	assert_int_equal(waiting->done, 1);
	assert_int_equal(running->job.error.code, Q3_ERR_CANCELLED);
	assert_int_equal(waiting->job.error.code, Q3_ERR_CANCELLED);
	assert_int_equal(atomic_load(&running->job.kv_tokens), 0);
	run_all(&f);
	assert_int_equal(later->done, 1);
	assert_int_equal(later->job.error.code, Q3_OK);
	q3_scheduler_cancel(f.s, &later->job); /* too late: no effect */
	discard(running);
	discard(waiting);
	discard(later);
	close_fixture(&f);
}

typedef struct canceller
{
	fixture *f;
	probe *victim;
} canceller;

static void *
cancel_soon(void *arg)
{
	canceller *c = arg;

	while (atomic_load(&c->victim->job.prompt_done) == 0)
		usleep(100);
	q3_scheduler_cancel(c->f->s, &c->victim->job);
	return NULL;
}

/* From another thread, in the middle of a step. */
static void
test_cancel_from_another_thread(void **state)
{
	fixture f;
	char *text = malloc(4000);
	q3_job_options o = options_for("x", 64);
	probe *victim, *other;
	canceller c;
	pthread_t thread;

	(void) state;
	assert_non_null(text);
	memset(text, 'a', 4000);
	open_fixture(&f, 4096, 16, 1);
	o.prompt = (q3_str){text, 4000};
	victim = make(&f, &o);
	o = options_for("after", 10);
	other = make(&f, &o);
	c = (canceller){&f, victim};
	q3_scheduler_submit(f.s, &victim->job);
	q3_scheduler_submit(f.s, &other->job);
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &c), 0);
	run_all(&f);
	pthread_join(thread, NULL);
	assert_int_equal(victim->done, 1);
	assert_int_equal(victim->job.error.code, Q3_ERR_CANCELLED);
	assert_true(atomic_load(&victim->job.prompt_done) < 4000);
	assert_int_equal(other->job.error.code, Q3_OK);
	discard(victim);
	discard(other);
	free(text);
	close_fixture(&f);
}

static void
test_free_cancels_the_rest(void **state)
{
	fixture f;
	q3_job_options o = options_for("x", 50);
	probe *a, *b;

	(void) state;
	open_fixture(&f, 64, 64, 1);
	a = make(&f, &o);
	b = make(&f, &o);
	q3_scheduler_submit(f.s, &a->job);
	q3_scheduler_submit(f.s, &b->job);
	q3_scheduler_step(f.s);
	q3_scheduler_halt(f.s);
	assert_false(q3_scheduler_step(f.s));
	close_fixture(&f);
	assert_int_equal(a->done, 1);
	assert_int_equal(b->done, 1);
	assert_int_equal(a->job.error.code, Q3_ERR_CANCELLED);
	discard(a);
	discard(b);
}

/* ---------------------------------------------------------------------------------------------
 * Fairness and scoring
 * --------------------------------------------------------------------------------------------- */

/* A short prompt is answered long before a long one that came first has been read. */
static void
test_short_prompt_overtakes_long_one(void **state)
{
	fixture f;
	char *text = malloc(3000);
	q3_job_options o = options_for("x", 4);
	probe *lengthy, *brief;

	(void) state;
	assert_non_null(text);
	memset(text, 'b', 3000);
	open_fixture(&f, 4096, 32, 2);
	o.prompt = (q3_str){text, 3000};
	lengthy = make(&f, &o);
	o = options_for("short", 4);
	brief = make(&f, &o);
	q3_scheduler_submit(f.s, &lengthy->job);
	q3_scheduler_step(f.s);
	q3_scheduler_submit(f.s, &brief->job);
	for (int i = 0; i < 6; i++)
		q3_scheduler_step(f.s);
	assert_int_equal(brief->done, 1);
	assert_int_equal(lengthy->done, 0);
	assert_true(atomic_load(&lengthy->job.prompt_done) > 0);
	run_all(&f);
	assert_int_equal(lengthy->done, 1);
	discard(lengthy);
	discard(brief);
	free(text);
	close_fixture(&f);
}

/* Mean log-probability from all logits of one pass. */
static double
expected_score(fixture *f, const char *text)
{
	int32_t n = (int32_t) strlen(text), tokens[256];
	float *logits = malloc(sizeof(float) * (size_t) n * TINY_VOCAB);
	q3_seq *seq = q3_seq_create(f->rt);
	q3_batch_item item = {
	    .seq = seq, .tokens = tokens, .n_tokens = n, .want = Q3_WANT_ALL, .logits = logits};
	q3_error err = {0};
	double sum = 0;

	for (int32_t i = 0; i < n; i++)
		tokens[i] = (unsigned char) text[i];
	assert_non_null(logits);
	assert_true(q3_seq_reserve(seq, n));
	assert_int_equal(q3_forward(f->rt, &item, 1, NULL, &err), Q3_OK);
	for (int32_t i = 0; i + 1 < n; i++)
	{
		const float *row = logits + i * TINY_VOCAB;
		double total = 0;

		for (int j = 0; j < TINY_VOCAB; j++)
			total += exp((double) row[j] - row[0]);
		sum += (double) row[tokens[i + 1]] - row[0] - log(total);
	}
	q3_seq_free(seq);
	free(logits);
	return sum / (n - 1);
}

static void
test_logprob_is_that_of_the_logits(void **state)
{
	static const char text[] =
	    "It was the best of times, it was the worst of times, it was the age "
	    "of wisdom, it was the age of foolishness, it was the epoch of belief";
	fixture f;
	probe *p = calloc(1, sizeof(*p));
	q3_error err = {0};
	bool defined;
	double expected;

	(void) state;
	assert_non_null(p);
	open_fixture(&f, 256, 256, 1);
	expected = expected_score(&f, text);
	close_fixture(&f);
	open_fixture(&f, 256, 9, 1); /* in pieces */
	q3_job_init(&p->job);
	p->job.owner = p;
	assert_int_equal(q3_job_logprob(&p->job, &f.preparer, (q3_str){text, sizeof(text) - 1},
	                                Q3_PRECISE, &defined, &err),
	                 Q3_OK);
	assert_true(defined);
	q3_scheduler_submit(f.s, &p->job);
	run_all(&f);
	assert_int_equal(p->done, 1);
	assert_int_equal(p->job.n_logprobs, sizeof(text) - 2);
	assert_true(fabs(q3_job_score(&p->job) - expected) < 1e-6);
	q3_job_free(&p->job);

	q3_job_init(&p->job);
	assert_int_equal(
	    q3_job_logprob(&p->job, &f.preparer, (q3_str){"x", 1}, Q3_PRECISE, &defined, &err), Q3_OK);
	assert_false(defined);
	assert_true(isnan(q3_job_score(&p->job)));
	discard(p);
	close_fixture(&f);
}

/* A job that yields ends where another one needs its room, and runs on where there is enough. */
static void
test_yielding_job_makes_way(void **state)
{
	q3_job_options o = options_for("aside", 400);
	fixture f;
	probe *aside, *small, *large;

	(void) state;
	open_fixture(&f, 512, 64, 1);
	aside = make(&f, &o);
	aside->job.yields = true;
	q3_scheduler_submit(f.s, &aside->job);
	for (int i = 0; i < 5; i++)
		assert_true(q3_scheduler_step(f.s));
	o = options_for("small", 8);
	small = submit(&f, &o, 2, 100);
	while (!small->done)
		assert_true(q3_scheduler_step(f.s));
	assert_int_equal(small->job.error.code, Q3_OK);
	assert_false(aside->done);
	o = options_for("large", 200);
	large = submit(&f, &o, 2, 100);
	assert_true(q3_scheduler_step(f.s));
	assert_true(q3_scheduler_step(f.s));
	assert_true(aside->done);
	assert_int_equal(aside->job.error.code, Q3_ERR_CANCELLED);
	run_all(&f);
	assert_int_equal(large->job.error.code, Q3_OK);
	assert_int_equal(large->job.finish, Q3_FINISH_LENGTH);
	discard(aside);
	discard(small);
	discard(large);
	close_fixture(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_same_answers_alone_and_together),
	    cmocka_unit_test(test_stop_string_ends_answer),
	    cmocka_unit_test(test_jobs_wait_for_room),
	    cmocka_unit_test(test_more_jobs_than_rows),
	    cmocka_unit_test(test_what_never_fits_is_an_error),
	    cmocka_unit_test(test_failed_pass),
	    cmocka_unit_test(test_answer_ends_at_the_context),
	    cmocka_unit_test(test_bad_requests_are_refused),
	    cmocka_unit_test(test_cancel_frees_room),
	    cmocka_unit_test(test_cancel_from_another_thread),
	    cmocka_unit_test(test_free_cancels_the_rest),
	    cmocka_unit_test(test_short_prompt_overtakes_long_one),
	    cmocka_unit_test(test_logprob_is_that_of_the_logits),
	    cmocka_unit_test(test_yielding_job_makes_way),
	};

	return cmocka_run_group_tests(tests, load_model, free_model);
}
