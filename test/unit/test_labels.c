/*
 * test_labels.c: probabilities of labels, against their definition computed by hand from all
 * logits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "model/chat.h"
#include "scheduler_fixture.h"

#define END_OF_TURN 258

/* All logits of prompt and continuation, in one pass. */
static float *
all_logits(fixture *f, const q3_job_options *o, q3_str continuation, int32_t *n_prompt)
{
	q3_chat chat = {.system = o->system.data,
	                .system_len = o->system.len,
	                .turns = o->turns,
	                .n_turns = o->n_turns,
	                .user = o->prompt.data,
	                .user_len = o->prompt.len};
	q3_tokens tokens = {0};
	q3_error err = {0};
	q3_seq *seq = q3_seq_create(f->rt);
	q3_batch_item item = {.seq = seq, .mode = o->mode, .want = Q3_WANT_ALL};

	assert_int_equal(q3_chat_encode(f->preparer.tok, &chat, &tokens, &err), Q3_OK);
	*n_prompt = (int32_t) tokens.n;
	for (size_t i = 0; i < continuation.len; i++)
		assert_true(q3_tokens_push(&tokens, (unsigned char) continuation.data[i]));
	item.logits = malloc(sizeof(float) * tokens.n * TINY_VOCAB);
	assert_non_null(item.logits);
	item.tokens = tokens.ids;
	item.n_tokens = (int32_t) tokens.n;
	assert_true(q3_seq_reserve(seq, item.n_tokens));
	assert_int_equal(q3_forward(f->rt, &item, 1, NULL, &err), Q3_OK);
	q3_seq_free(seq);
	q3_tokens_free(&tokens);
	return item.logits;
}

/* The token that a label has after so many; labels are bytes, and a byte is its token. */
static int
next_of(q3_str label, size_t depth)
{
	return depth < label.len ? (unsigned char) label.data[depth] : END_OF_TURN;
}

/* By the definition: at each position the softmax over what any label that got here may say. */
static double
expected_probability(fixture *f, const q3_job_options *o, size_t label)
{
	q3_str own = o->labels[label];
	int32_t n_prompt;
	float *logits = all_logits(f, o, own, &n_prompt);
	double p = 1;

	for (size_t depth = 0; depth <= own.len; depth++)
	{
		const float *row = logits + (size_t) (n_prompt - 1 + (int32_t) depth) * TINY_VOCAB;
		bool seen[TINY_VOCAB] = {false};
		double sum = 0;

		for (size_t i = 0; i < o->n_labels; i++)
		{
			q3_str other = o->labels[i];
			int token;

			if (other.len < depth || memcmp(other.data, own.data, depth) != 0)
				continue;
			token = next_of(other, depth);
			if (!seen[token])
				sum += exp((double) row[token] - row[next_of(own, depth)]);
			seen[token] = true;
		}
		p /= sum;
	}
	free(logits);
	return p;
}

/* The same for what no label may say where they part first. */
static double
expected_off_label(fixture *f, const q3_job_options *o, const q3_labels *l)
{
	const q3_label_branch *b = &l->branches[0];
	bool choice[TINY_VOCAB] = {false};
	int32_t n_prompt;
	float *logits = all_logits(f, o, o->labels[b->label], &n_prompt);
	const float *row = logits + (size_t) (n_prompt - 1 + b->depth) * TINY_VOCAB;
	double labels = 0, others = 0;

	for (int32_t c = 0; c < b->n_choices; c++)
		choice[l->choice[b->first_choice + c]] = true;
	for (int token = 0; token < TINY_VOCAB; token++)
		*(choice[token] ? &labels : &others) += exp(row[token]);
	free(logits);
	return others / (labels + others);
}

/* The same job with the probability outside the labels, which changes no bit of the others. */
static void
check_off_label(fixture *by_hand, fixture *f, const q3_job_options *o, const q3_labels *without)
{
	q3_job_options wanted = *o;
	probe *p;
	double expected = expected_off_label(by_hand, o, without);

	assert_true(isnan(without->off_label));
	wanted.off_label = true;
	p = submit(f, &wanted, 1, 100);
	run_all(f);
	assert_int_equal(p->job.error.code, Q3_OK);
	assert_memory_equal(p->job.labels->probs, without->probs,
	                    o->n_labels * sizeof(without->probs[0]));
	if (!(fabs(p->job.labels->off_label - expected) <= 1e-6 * expected))
		fail_msg("%.17g outside the labels, not %.17g", p->job.labels->off_label, expected);
	discard(p);
}

static void
check_labels(fixture *by_hand, int32_t max_batch, int32_t kv_tokens, const q3_job_options *o)
{
	fixture f;
	probe *p;
	double sum = 0;
	int32_t best = 0;

	open_pool(&f, 1024, max_batch, kv_tokens);
	p = submit(&f, o, 1, 100);
	run_all(&f);
	assert_int_equal(p->done, 1);
	if (p->job.error.code != Q3_OK)
		fail_msg("%s", p->job.error.message);
	for (size_t i = 0; i < o->n_labels; i++)
	{
		double expected = expected_probability(by_hand, o, i), got = p->job.labels->probs[i];

		if (!(fabs(got - expected) <= 1e-9 * expected))
			fail_msg("label %zu: %.17g, not %.17g", i, got, expected);
		sum += got;
		best = got > p->job.labels->probs[best] ? (int32_t) i : best;
	}
	assert_true(fabs(sum - 1) < 1e-9);
	assert_int_equal(q3_labels_best(p->job.labels), best);
	check_off_label(by_hand, &f, o, p->job.labels);
	discard(p);
	close_fixture(&f);
}

static void
test_label_probabilities(void **state)
{
	static const q3_str plain[] = {LABEL("a"), LABEL("b"), LABEL("c")};
	static const q3_str nested[] = {LABEL("abc"), LABEL("b"),   LABEL("a"),    LABEL("ab"),
	                                LABEL("ba"),  LABEL("abd"), LABEL("abcd"), LABEL("zebra")};
	static const q3_str common[] = {LABEL("class one"), LABEL("class two"), LABEL("class")};
	static const q3_str pair[] = {LABEL("yes"), LABEL("no")};
	static const q3_str scripts[] = {LABEL("日本"), LABEL("日本語"), LABEL("🙂"), LABEL("🙃"),
	                                 LABEL("Привет")};
	static const q3_str turns[] = {LABEL("an example"), LABEL("yes"), LABEL("another"),
	                               LABEL("no")};
	fixture by_hand;
	const struct
	{
		const q3_str *labels;
		size_t n;
	} sets[] = {{plain, 3}, {nested, 8}, {common, 3}, {pair, 2}, {scripts, 5}};

	(void) state;
	open_fixture(&by_hand, 1024, 1024, 2);
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		for (int mode = Q3_PRECISE; mode <= Q3_EFFICIENT; mode++)
		{
			q3_job_options o = classify_options("Pick one.", "the text", sets[i].labels, sets[i].n);

			o.mode = (q3_mode) mode;
			check_labels(&by_hand, 512, 1024, &o);
			check_labels(&by_hand, 3, 1024, &o); /* in pieces */
			check_labels(&by_hand, 512, 96, &o); /* no room for forks of the prompt */
			o.turns = turns;
			o.n_turns = 4;
			check_labels(&by_hand, 512, 1024, &o);
		}
	close_fixture(&by_hand);
}

/* More branches than one wave has. */
static void
test_many_labels(void **state)
{
	enum
	{
		N = 1000
	};
	static char text[N][8];
	static q3_str labels[N];
	q3_job_options o = classify_options("Which?", "x", labels, N);
	fixture by_hand, f;
	probe *p;
	double sum = 0;

	(void) state;
	for (int i = 0; i < N; i++)
	{
		snprintf(text[i], sizeof(text[i]), "%d", i * 7);
		labels[i] = (q3_str){text[i], strlen(text[i])};
	}
	open_fixture(&by_hand, 1024, 1024, 2);
	open_fixture(&f, 1024, 256, 2);
	p = submit(&f, &o, 1, 100);
	run_all(&f);
	assert_int_equal(p->job.error.code, Q3_OK);
	for (int i = 0; i < N; i++)
		sum += p->job.labels->probs[i];
	assert_true(fabs(sum - 1) < 1e-9);
	for (int i = 0; i < N; i += 97)
	{
		double expected = expected_probability(&by_hand, &o, (size_t) i);

		assert_true(fabs(p->job.labels->probs[i] - expected) <= 1e-9 * expected);
	}
	discard(p);
	close_fixture(&f);
	close_fixture(&by_hand);
}

/* With other jobs and without, and for equal ones, it is the same to the bit. */
static void
test_off_label_of_many(void **state)
{
	enum
	{
		N = 40
	};
	static const q3_str labels[] = {LABEL("class one"), LABEL("class two"), LABEL("class")};
	static char texts[N][24];
	probe *p[N], *equal[N], *without[N];
	double alone[N];
	fixture f;

	(void) state;
	open_fixture(&f, 1024, 64, 8);
	for (int i = 0; i < N; i++)
	{
		q3_job_options o;

		snprintf(texts[i], sizeof(texts[i]), "text number %d", i * i);
		o = classify_options("Pick one.", texts[i], labels, 3);
		o.mode = i % 2 ? Q3_EFFICIENT : Q3_PRECISE;
		o.off_label = true;
		p[0] = submit(&f, &o, 1, 100);
		run_all(&f);
		alone[i] = p[0]->job.labels->off_label;
		assert_true(alone[i] > 0 && alone[i] < 1);
		discard(p[0]);
	}
	for (int i = 0; i < N; i++)
	{
		q3_job_options o = classify_options("Pick one.", texts[i], labels, 3);

		o.mode = i % 2 ? Q3_EFFICIENT : Q3_PRECISE;
		o.share = true;
		without[i] = submit(&f, &o, 1, 100);
		o.off_label = true;
		p[i] = submit(&f, &o, 1, 100);
		equal[i] = submit(&f, &o, 1, 100);
	}
	run_all(&f);
	for (int i = 0; i < N; i++)
	{
		assert_true(equal[i]->job.deduplicated && !p[i]->job.deduplicated);
		assert_memory_equal(&p[i]->job.labels->off_label, &alone[i], sizeof(double));
		assert_memory_equal(&equal[i]->job.labels->off_label, &alone[i], sizeof(double));
		assert_true(isnan(without[i]->job.labels->off_label));
		discard(p[i]);
		discard(equal[i]);
		discard(without[i]);
	}
	close_fixture(&f);
}

static void
expect_label_error(fixture *f, const q3_str *labels, size_t n, const char *message)
{
	q3_job_options o = classify_options(NULL, "x", labels, n);
	q3_job job;
	q3_error err = {0};
	bool compute;

	q3_job_init(&job);
	assert_int_equal(q3_job_classify(&job, &f->preparer, &o, &compute, &err), Q3_ERR_INVALID);
	assert_string_equal(err.message, message);
	assert_false(compute);
	q3_job_free(&job);
}

static void
test_bad_labels(void **state)
{
	static const q3_str equal[] = {LABEL("x"), LABEL("y"), LABEL("x")};
	static const q3_str empty[] = {LABEL("x"), LABEL("")};
	/* Composed and decomposed: different bytes, but the same text to the model. */
	static const q3_str same[] = {LABEL("\xc3\xa4"), LABEL("a\xcc\x88")};
	static const q3_str one[] = {LABEL("only")};
	q3_job_options o = classify_options(NULL, "x", one, 1);
	fixture f;
	q3_job job;
	q3_error err = {0};
	bool compute = true;

	(void) state;
	open_fixture(&f, 256, 64, 1);
	expect_label_error(&f, equal, 3, "labels must be distinct");
	expect_label_error(&f, same, 2, "labels must be distinct");
	expect_label_error(&f, empty, 2, "labels must not be empty");
	expect_label_error(&f, NULL, 0, "classification needs at least one label");
	q3_job_init(&job);
	assert_int_equal(q3_job_classify(&job, &f.preparer, &o, &compute, &err), Q3_OK);
	assert_false(compute); /* it is certain */
	assert_true(job.labels->probs[0] == 1);
	q3_job_free(&job);
	close_fixture(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_label_probabilities),
	    cmocka_unit_test(test_many_labels),
	    cmocka_unit_test(test_off_label_of_many),
	    cmocka_unit_test(test_bad_labels),
	};

	return cmocka_run_group_tests(tests, load_packed, free_model);
}
