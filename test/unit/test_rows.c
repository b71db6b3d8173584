/*
 * test_rows.c: many rows through the scheduler: common prefixes, equal jobs, fair shares.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "scheduler_fixture.h"

static uint64_t random_state = 5;

static int
random_below(int n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (int) ((uint32_t) (random_state >> 33) % (uint32_t) n);
}

static q3_scheduler_stats
stats_of(const fixture *f)
{
	q3_scheduler_stats stats;

	q3_scheduler_get_stats(f->s, &stats);
	return stats;
}

static q3_runtime_info
info_of(const fixture *f)
{
	q3_runtime_info info;

	q3_runtime_get_info(f->rt, &info);
	return info;
}

/* ---------------------------------------------------------------------------------------------
 * Common prefixes
 * --------------------------------------------------------------------------------------------- */

#define SYSTEM                                                                                     \
	"Read the message below and say which department should answer it: billing, outage, "          \
	"spam. Answer with one word and nothing else, please."

static const q3_str departments[] = {LABEL("billing"), LABEL("outage"), LABEL("spam")};

enum
{
	ROWS = 20
};

static void
submit_rows(fixture *f, probe **rows, uint32_t role, q3_mode mode)
{
	static char text[ROWS][32];

	for (int i = 0; i < ROWS; i++)
	{
		q3_job_options o;

		snprintf(text[i], sizeof(text[i]), "row %d", i);
		o = classify_options(SYSTEM, text[i], departments, 3);
		o.mode = mode;
		rows[i] = submit(f, &o, role, 100);
	}
}

static void
discard_rows(probe **rows, int n)
{
	for (int i = 0; i < n; i++)
		discard(rows[i]);
}

/* Rows that arrive together compute what they have in common once. */
static void
test_rows_share_their_prefix(void **state)
{
	fixture f;
	probe *rows[ROWS], *others[ROWS];
	int32_t shared, sum = 0;

	(void) state;
	open_fixture(&f, 1024, 512, ROWS);
	submit_rows(&f, rows, 1, Q3_PRECISE);
	do /* the others wait for the blocks that the first one computes */
	{
		assert_int_equal(atomic_load(&rows[1]->job.prompt_done), 0);
		assert_true(q3_scheduler_step(f.s));
	} while (atomic_load(&rows[0]->job.prompt_done) < Q3_KV_BLOCK);
	for (int i = 1; i < ROWS; i++)
		assert_int_equal(atomic_load(&rows[i]->job.prompt_done), 0);
	run_all(&f);
	shared = atomic_load(&rows[1]->job.cached_tokens);
	assert_true(shared >= 128);
	for (int i = 0; i < ROWS; i++)
	{
		int32_t cached = atomic_load(&rows[i]->job.cached_tokens);

		/* All full blocks, and of the rest what the last block before had. */
		assert_int_equal(rows[i]->job.error.code, Q3_OK);
		assert_int_equal(cached / Q3_KV_BLOCK, i == 0 ? 0 : shared / Q3_KV_BLOCK);
		assert_true(cached < atomic_load(&rows[i]->job.prompt_tokens));
		sum += cached;
	}
	assert_int_equal(stats_of(&f).cached_tokens, sum);

	/* Another role finds nothing of it, and has its own. */
	submit_rows(&f, others, 2, Q3_PRECISE);
	run_all(&f);
	assert_int_equal(atomic_load(&others[0]->job.cached_tokens), 0);
	assert_int_equal(atomic_load(&others[1]->job.cached_tokens) / Q3_KV_BLOCK,
	                 shared / Q3_KV_BLOCK);
	for (int i = 0; i < ROWS; i++)
		assert_memory_equal(others[i]->job.labels->probs, rows[i]->job.labels->probs,
		                    3 * sizeof(double));
	discard_rows(rows, ROWS);
	discard_rows(others, ROWS);
	close_fixture(&f);
}

/* The one that the others wait for is cancelled: another one computes it. */
static void
test_leader_of_a_prefix_is_cancelled(void **state)
{
	fixture f;
	probe *rows[ROWS];

	(void) state;
	open_fixture(&f, 1024, 40, ROWS);
	submit_rows(&f, rows, 1, Q3_PRECISE);
	assert_true(q3_scheduler_step(f.s));
	assert_true(atomic_load(&rows[0]->job.prompt_done) > 0);
	q3_scheduler_cancel(f.s, &rows[0]->job);
	run_all(&f);
	assert_int_equal(rows[0]->job.error.code, Q3_ERR_CANCELLED);
	for (int i = 1; i < ROWS; i++)
		assert_int_equal(rows[i]->job.error.code, Q3_OK);
	discard_rows(rows, ROWS);
	close_fixture(&f);
}

static void
submit_pin(fixture *f, probe *p, const char *system)
{
	q3_error err = {0};

	memset(p, 0, sizeof(*p));
	q3_job_init(&p->job);
	p->job.owner = p;
	p->job.role = 10;
	assert_int_equal(
	    q3_job_pin(&p->job, &f->preparer, (q3_str){system, strlen(system)}, Q3_PRECISE, &err),
	    Q3_OK);
	q3_scheduler_submit(f->s, &p->job);
	run_all(f);
	assert_int_equal(p->done, 1);
}

static void
unpin(fixture *f)
{
	static probe p;

	memset(&p, 0, sizeof(p));
	q3_job_init(&p.job);
	p.job.owner = &p;
	q3_job_unpin(&p.job);
	q3_scheduler_submit(f->s, &p.job);
	assert_int_equal(p.done, 1);
}

static void
test_pinned_instruction(void **state)
{
	static probe pin;
	fixture f;
	probe *rows[ROWS];
	char *text = malloc(600);
	int32_t blocks;

	(void) state;
	assert_non_null(text);
	memset(text, 'y', 599);
	text[599] = '\0';
	open_pool(&f, 1024, 512, 1024);
	submit_pin(&f, &pin, SYSTEM);
	assert_int_equal(pin.job.error.code, Q3_OK);
	blocks = atomic_load(&pin.job.prompt_tokens) / Q3_KV_BLOCK;
	assert_int_equal(info_of(&f).pinned_blocks, blocks);
	q3_job_free(&pin.job);
	submit_rows(&f, rows, 7, Q3_PRECISE);
	run_all(&f);
	assert_true(atomic_load(&rows[0]->job.cached_tokens) >= blocks * Q3_KV_BLOCK);
	discard_rows(rows, ROWS);

	submit_pin(&f, &pin, SYSTEM); /* again: nothing changes */
	assert_int_equal(pin.job.error.code, Q3_OK);
	assert_int_equal(info_of(&f).pinned_blocks, blocks);
	assert_true(atomic_load(&pin.job.cached_tokens) > 0);
	q3_job_free(&pin.job);
	submit_pin(&f, &pin, "short");
	assert_int_equal(pin.job.error.code, Q3_OK);
	q3_job_free(&pin.job);
	submit_pin(&f, &pin, text); /* more than half of the cache */
	assert_int_equal(pin.job.error.code, Q3_ERR_TOO_LONG);
	assert_non_null(strstr(pin.job.error.message, "pinned prefixes would take "));
	q3_job_free(&pin.job);
	assert_int_equal(info_of(&f).pinned_blocks, blocks);
	unpin(&f);
	assert_int_equal(info_of(&f).pinned_blocks, 0);
	submit_rows(&f, rows, 8, Q3_PRECISE);
	run_all(&f);
	assert_int_equal(atomic_load(&rows[0]->job.cached_tokens), 0);
	discard_rows(rows, ROWS);
	free(text);
	close_fixture(&f);
}

/* Pins leave too little for a request that would fit without them: an error, not a hang. */
static void
test_no_room_beside_pins(void **state)
{
	static probe pin;
	fixture f;
	q3_job_options o = options_for("0123456789", 240);
	probe *p;

	(void) state;
	open_pool(&f, 1024, 64, 256);
	submit_pin(&f, &pin, SYSTEM "!");
	q3_job_free(&pin.job);
	if (info_of(&f).pinned_blocks == 0)
	{
		submit_pin(&f, &pin, "This system prompt is long enough for more than a block.");
		q3_job_free(&pin.job);
	}
	assert_true(info_of(&f).pinned_blocks > 0);
	p = submit(&f, &o, 1, 100);
	run_all(&f);
	assert_int_equal(p->done, 1);
	assert_int_equal(p->job.error.code, Q3_ERR_TOO_LONG);
	unpin(&f);
	discard(p);
	p = submit(&f, &o, 1, 100);
	run_all(&f);
	assert_int_equal(p->job.error.code, Q3_OK);
	discard(p);
	close_fixture(&f);
}

/* ---------------------------------------------------------------------------------------------
 * Equal jobs
 * --------------------------------------------------------------------------------------------- */

static q3_job_options
shared_options(const char *prompt, int32_t max_tokens)
{
	q3_job_options o = options_for(prompt, max_tokens);

	o.share = true;
	return o;
}

static void
test_equal_jobs_are_computed_once(void **state)
{
	fixture f;
	q3_job_options o = shared_options("the same question", 30), c;
	probe *alone, *p[6], *rows[3];

	(void) state;
	open_fixture(&f, 512, 64, 16);
	alone = submit(&f, &o, 1, 100);
	run_all(&f);
	assert_int_equal(stats_of(&f).deduplicated, 0); /* nothing was in flight */
	p[0] = submit(&f, &o, 1, 100);
	p[1] = submit(&f, &o, 1, 100);
	for (int i = 0; i < 8; i++)
		q3_scheduler_step(f.s);
	p[2] = submit(&f, &o, 1, 100); /* in the middle of the answer */
	p[3] = submit(&f, &o, 2, 100); /* another role */
	o.max_tokens = 29;
	p[4] = submit(&f, &o, 1, 100);
	o.max_tokens = 30;
	o.has_temperature = true;
	o.temperature = 1;
	p[5] = submit(&f, &o, 1, 100);
	c = classify_options(SYSTEM, "x", departments, 3);
	c.share = true;
	for (int i = 0; i < 3; i++)
		rows[i] = submit(&f, &c, 1, 100);
	run_all(&f);
	assert_int_equal(stats_of(&f).deduplicated, 4);
	for (int i = 0; i < 6; i++)
	{
		assert_int_equal(p[i]->done, 1);
		assert_int_equal(p[i]->job.error.code, Q3_OK);
		assert_int_equal(p[i]->job.deduplicated, i == 1 || i == 2);
	}
	for (int i = 0; i < 4; i++)
	{
		assert_same_value(p[i], alone);
		assert_int_equal(p[i]->job.finish, alone->job.finish);
		assert_int_equal(q3_output_n_tokens(p[i]->job.output), 30);
		assert_true(q3_job_confidence(&p[i]->job) == q3_job_confidence(&alone->job));
	}
	assert_int_equal(atomic_load(&p[1]->job.output_tokens), 0); /* it computed none */
	assert_int_equal(q3_output_n_tokens(p[4]->job.output), 29);
	for (int i = 1; i < 3; i++)
	{
		assert_true(rows[i]->job.deduplicated);
		assert_memory_equal(rows[i]->job.labels->probs, rows[0]->job.labels->probs,
		                    3 * sizeof(double));
	}
	discard(alone);
	discard_rows(p, 6);
	discard_rows(rows, 3);
	close_fixture(&f);
}

/* Any of several equal jobs is cancelled after any number of steps: the others get their answer. */
static void
check_cancel_of_equal(int victim, int steps, const probe *expected)
{
	fixture f;
	q3_job_options o = shared_options("the same question", 30), first = options_for("first", 250);
	probe *p[3], *before;

	open_pool(&f, 512, 16, 256);
	before = submit(&f, &first, 1, 100); /* for some steps there is no room for the others */
	for (int i = 0; i < 3; i++)
		p[i] = submit(&f, &o, 1, 100);
	for (int i = 0; i < steps; i++)
		q3_scheduler_step(f.s);
	if (steps > 0)
		q3_scheduler_cancel(f.s, &before->job);
	for (int i = 0; i < steps; i++)
		q3_scheduler_step(f.s);
	q3_scheduler_cancel(f.s, &p[victim]->job);
	if (victim == 0 && steps % 2)
		q3_scheduler_cancel(f.s, &p[1]->job);
	run_all(&f);
	for (int i = 0; i < 3; i++)
	{
		bool cancelled = atomic_load(&p[i]->job.cancelled);

		assert_int_equal(p[i]->done, 1);
		assert_int_equal(p[i]->job.error.code, cancelled ? Q3_ERR_CANCELLED : Q3_OK);
		if (!cancelled)
			assert_same_value(p[i], expected);
		if (!cancelled)
			assert_true(p[i]->job.logprob_sum == expected->job.logprob_sum);
	}
	assert_int_equal(before->done, 1);
	discard(before);
	discard_rows(p, 3);
	close_fixture(&f);
}

static void
test_cancel_one_of_equal_jobs(void **state)
{
	fixture f;
	q3_job_options o = shared_options("the same question", 30);
	probe *expected;

	(void) state;
	open_fixture(&f, 512, 64, 2);
	expected = submit(&f, &o, 1, 100);
	run_all(&f);
	for (int victim = 0; victim < 3; victim++)
		for (int steps = 0; steps < 28; steps += 3)
			check_cancel_of_equal(victim, steps, expected);
	discard(expected);
	close_fixture(&f);
}

/* A failure of the one is a failure of all. */
static void
test_equal_jobs_fail_together(void **state)
{
	fixture f;
	q3_job_options o = shared_options("hello", 5);
	probe *p[2];

	(void) state;
	open_fixture(&f, 64, 64, 2);
	for (int i = 0; i < 2; i++)
	{
		p[i] = make(&f, &o);
		p[i]->job.prompt.ids[2] = TINY_VOCAB + 5; /* no such token */
		q3_scheduler_submit(f.s, &p[i]->job);
	}
	run_all(&f);
	assert_int_equal(stats_of(&f).deduplicated, 0);
	assert_int_equal(stats_of(&f).steps, 1);
	for (int i = 0; i < 2; i++)
	{
		assert_int_equal(p[i]->done, 1);
		assert_int_equal(p[i]->job.error.code, Q3_ERR_INVALID);
	}
	discard_rows(p, 2);
	close_fixture(&f);
}

/* ---------------------------------------------------------------------------------------------
 * Fair shares
 * --------------------------------------------------------------------------------------------- */

/* Prompts that have nothing in common. */
static q3_job_options
unlike(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		text[i] = (char) ('a' + random_below(26));
	text[len] = '\0';
	return options_for(text, 1);
}

enum
{
	FAIR = 60
};

/* How many of the role's jobs are among the first n that were done. */
static int
done_early(probe *const *p, int n)
{
	int count = 0;

	for (int i = 0; i < FAIR; i++)
		count += p[i]->done && p[i]->order < n;
	return count;
}

static void
check_weights(int32_t weight_a, int32_t weight_b, int low, int high)
{
	static char text[2 * FAIR][101];
	fixture f;
	probe *a[FAIR], *b[FAIR];
	int early;

	open_fixture(&f, 128, 64, 16);
	for (int i = 0; i < FAIR; i++) /* all of one role come first */
	{
		q3_job_options o = unlike(text[i], 100);

		a[i] = submit(&f, &o, 1, weight_a);
	}
	for (int i = 0; i < FAIR; i++)
	{
		q3_job_options o = unlike(text[FAIR + i], 100);

		b[i] = submit(&f, &o, 2, weight_b);
	}
	run_all(&f);
	early = done_early(b, 40);
	if (early < low || early > high)
		fail_msg("%d of the first 40 are the second role's, not %d to %d", early, low, high);
	/* First come, first served within a role, apart from what runs together. */
	for (int i = 16; i < FAIR; i++)
		assert_true(a[i]->order > a[i - 16]->order && b[i]->order > b[i - 16]->order);
	discard_rows(a, FAIR);
	discard_rows(b, FAIR);
	close_fixture(&f);
}

static void
test_roles_share_by_weight(void **state)
{
	(void) state;
	check_weights(100, 100, 16, 24);
	check_weights(100, 300, 26, 34);
	check_weights(300, 100, 6, 14);
}

/* Room that is there all at once is shared, too, though nothing has been computed yet. */
static void
test_room_is_shared(void **state)
{
	static char text[8][101];
	fixture f;
	probe *p[8];
	int running[2] = {0, 0};

	(void) state;
	open_pool(&f, 128, 64, 4 * 128);
	for (int i = 0; i < 8; i++)
	{
		q3_job_options o = unlike(text[i], 100);

		p[i] = submit(&f, &o, i < 4 ? 1 : 2, 100);
	}
	q3_scheduler_step(f.s);
	for (int i = 0; i < 8; i++)
		running[i / 4] += atomic_load(&p[i]->job.phase) != Q3_PHASE_QUEUED;
	assert_int_equal(running[0], 2);
	assert_int_equal(running[1], 2);
	run_all(&f);
	discard_rows(p, 8);
	close_fixture(&f);
}

/* Two long prompts at once: each gets on as its role's weight says. */
static void
test_steps_are_shared_by_weight(void **state)
{
	static char text[2][2001];
	fixture f;
	q3_job_options o = unlike(text[0], 2000);
	probe *a, *b;
	int done_a, done_b;

	(void) state;
	open_fixture(&f, 2048, 128, 2);
	a = submit(&f, &o, 1, 100);
	o = unlike(text[1], 2000);
	b = submit(&f, &o, 2, 300);
	while (atomic_load(&b->job.prompt_done) < 1600)
		q3_scheduler_step(f.s);
	done_a = atomic_load(&a->job.prompt_done);
	done_b = atomic_load(&b->job.prompt_done);
	assert_in_range(done_b, 2.5 * done_a, 3.5 * done_a);
	run_all(&f);
	discard(a);
	discard(b);
	close_fixture(&f);
}

/* A role that comes late gets its share at once, not what it could have had before. */
static void
test_latecomer(void **state)
{
	static char text[2 * FAIR][101];
	fixture f;
	probe *a[FAIR], *b[FAIR];
	int done_before, early;

	(void) state;
	open_fixture(&f, 128, 64, 16);
	for (int i = 0; i < FAIR; i++)
	{
		q3_job_options o = unlike(text[i], 100);

		a[i] = submit(&f, &o, 1, 100);
	}
	while (f.n_done < 30)
		q3_scheduler_step(f.s);
	done_before = f.n_done;
	for (int i = 0; i < FAIR; i++)
	{
		q3_job_options o = unlike(text[FAIR + i], 100);

		b[i] = submit(&f, &o, 2, 100);
	}
	run_all(&f);
	early = done_early(b, done_before + 28);
	assert_in_range(early, 8, 20);
	discard_rows(a, FAIR);
	discard_rows(b, FAIR);
	close_fixture(&f);
}

/* A job that does not fit lets other roles pass, but not for ever. */
static void
test_big_job_waits_but_not_for_ever(void **state)
{
	fixture f;
	q3_job_options small = options_for("small", 90), big = options_for("big", 500);
	probe *running, *large, *passing, *late;

	(void) state;
	open_pool(&f, 1024, 64, 512);
	running = submit(&f, &small, 1, 100);
	q3_scheduler_step(f.s);
	large = submit(&f, &big, 2, 100);
	q3_scheduler_step(f.s);
	passing = submit(&f, &small, 1, 100);
	q3_scheduler_step(f.s);
	assert_int_equal(atomic_load(&large->job.phase), Q3_PHASE_QUEUED);
	assert_int_not_equal(atomic_load(&passing->job.phase), Q3_PHASE_QUEUED);
	large->job.submitted_ns -= 3000000000u; /* three seconds later */
	late = submit(&f, &small, 1, 100);
	for (int i = 0; i < 5; i++)
		q3_scheduler_step(f.s);
	assert_int_equal(atomic_load(&late->job.phase), Q3_PHASE_QUEUED);
	run_all(&f);
	assert_int_equal(large->job.error.code, Q3_OK);
	assert_true(large->job.started_ns < late->job.started_ns);
	discard(running);
	discard(large);
	discard(passing);
	discard(late);
	close_fixture(&f);
}

/* Many more label rows than whole rows of logits run at once. */
static void
test_label_rows_run_beside_generation(void **state)
{
	enum
	{
		N = 200
	};
	static char text[N][32];
	fixture f;
	q3_job_options o = options_for("generate", 40);
	probe *p[N], *g;
	int running = 0;

	(void) state;
	open_pool(&f, 512, 512, 512 * N);
	g = submit(&f, &o, 1, 100);
	for (int i = 0; i < N; i++)
	{
		snprintf(text[i], sizeof(text[i]), "%d %d", i, i * i);
		o = classify_options(NULL, text[i], departments, 3);
		p[i] = submit(&f, &o, 1, 100);
	}
	q3_scheduler_step(f.s);
	for (int i = 0; i < N; i++)
		running += atomic_load(&p[i]->job.phase) != Q3_PHASE_QUEUED;
	assert_int_equal(running, N);
	run_all(&f);
	for (int i = 0; i < N; i++)
		assert_int_equal(p[i]->job.error.code, Q3_OK);
	assert_int_equal(q3_output_n_tokens(g->job.output), 40);
	discard(g);
	discard_rows(p, N);
	close_fixture(&f);
}

/* ---------------------------------------------------------------------------------------------
 * Anything together is the same as each alone
 * --------------------------------------------------------------------------------------------- */

enum
{
	MANY = 40
};

static char many_text[MANY][400];
static const q3_str tree[] = {LABEL("ab"), LABEL("a"),   LABEL("abc"),
                              LABEL("b"),  LABEL("bcd"), LABEL("bce")};

/* Jobs of all kinds that begin like others. */
static q3_job_options
any_options(int i)
{
	static const char *const systems[] = {NULL, SYSTEM, "Short.", SYSTEM SYSTEM};
	q3_job_options o;
	size_t len = (size_t) random_below(60);

	for (size_t k = 0; k < len; k++)
		many_text[i][k] = (char) ('a' + random_below(2));
	many_text[i][len] = '\0';
	o = options_for(many_text[i], 1 + random_below(12));
	o.plain = false;
	o.system.data = systems[random_below(4)];
	o.system.len = o.system.data != NULL ? strlen(o.system.data) : 0;
	o.mode = random_below(2) ? Q3_EFFICIENT : Q3_PRECISE;
	o.share = random_below(2);
	o.has_temperature = random_below(2);
	o.temperature = random_below(2);
	o.seed = (uint64_t) i;
	if (random_below(2))
	{
		o.labels = tree;
		o.n_labels = 2 + (size_t) random_below(5);
	}
	return o;
}

static void
assert_same_answer(const probe *a, const probe *b)
{
	assert_int_equal(a->job.error.code, Q3_OK);
	assert_int_equal(b->job.error.code, Q3_OK);
	if (a->job.kind == Q3_JOB_CLASSIFY)
	{
		assert_memory_equal(a->job.labels->probs, b->job.labels->probs,
		                    (size_t) a->job.labels->n * sizeof(double));
		return;
	}
	assert_same_value(a, b);
	assert_int_equal(a->job.finish, b->job.finish);
	assert_true(a->job.logprob_sum == b->job.logprob_sum);
}

static void
compare_schedules(const q3_job_options *options, probe *const *alone, int32_t max_batch,
                  int32_t kv_tokens, bool cache)
{
	q3_runtime_options runtime = {.threads = 1,
	                              .context_length = 512,
	                              .max_batch_tokens = max_batch,
	                              .kv_f32 = true,
	                              .kv_bytes = kv_bytes(kv_tokens),
	                              .no_prefix_cache = !cache};
	fixture f;
	probe *p[MANY];

	open_with(&f, &runtime);
	for (int i = 0; i < MANY; i++)
	{
		p[i] = submit(&f, &options[i], (uint32_t) (1 + i % 3), 1 + random_below(1000));
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
			assert_same_answer(p[i], alone[i]);
	}
	assert_int_equal(stats_of(&f).cached_tokens > 0, cache);
	discard_rows(p, MANY);
	close_fixture(&f);
}

static void
test_random_schedules(void **state)
{
	q3_job_options options[MANY];
	probe *alone[MANY];
	q3_runtime_options runtime = {.threads = 1,
	                              .context_length = 512,
	                              .max_batch_tokens = 512,
	                              .kv_f32 = true,
	                              .no_prefix_cache = true};
	fixture f;

	(void) state;
	for (int round = 0; round < 3; round++)
	{
		open_with(&f, &runtime);
		for (int i = 0; i < MANY; i++)
		{
			options[i] = any_options(i);
			alone[i] = submit(&f, &options[i], 1, 100);
			run_all(&f);
		}
		compare_schedules(options, alone, 512, 8192, true);
		compare_schedules(options, alone, 512, 8192, false);
		compare_schedules(options, alone, 70, 700, true); /* evicts all the time */
		compare_schedules(options, alone, 5, 2000, true);
		discard_rows(alone, MANY);
		close_fixture(&f);
	}
}

/* ---------------------------------------------------------------------------------------------
 * Cancelling from another thread
 * --------------------------------------------------------------------------------------------- */

typedef struct canceller
{
	fixture *f;
	probe **p;
	int n;
} canceller;

static void *
cancel_some(void *arg)
{
	canceller *c = arg;

	for (int i = 0; i < c->n; i += 2)
	{
		usleep(200);
		q3_scheduler_cancel(c->f->s, &c->p[i]->job);
	}
	return NULL;
}

static void
test_cancel_while_steps_run(void **state)
{
	enum
	{
		N = 30
	};
	fixture f;
	probe *p[N];
	canceller c = {&f, p, N};
	pthread_t thread;

	(void) state;
	open_fixture(&f, 1024, 64, 8);
	for (int i = 0; i < N; i++)
	{
		q3_job_options o = i % 3 ? shared_options("the same question", 60)
		                         : classify_options(SYSTEM, "x", tree, 6);

		o.share = true;
		p[i] = submit(&f, &o, 1, 100);
	}
	assert_int_equal(pthread_create(&thread, NULL, cancel_some, &c), 0);
	run_all(&f);
	pthread_join(thread, NULL);
	for (int i = 0; i < N; i++)
	{
		assert_int_equal(p[i]->done, 1);
		if (i % 2)
			assert_int_equal(p[i]->job.error.code, Q3_OK);
	}
	assert_same_value(p[1], p[5]);
	discard_rows(p, N);
	close_fixture(&f);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rows_share_their_prefix),
	    cmocka_unit_test(test_leader_of_a_prefix_is_cancelled),
	    cmocka_unit_test(test_pinned_instruction),
	    cmocka_unit_test(test_no_room_beside_pins),
	    cmocka_unit_test(test_equal_jobs_are_computed_once),
	    cmocka_unit_test(test_cancel_one_of_equal_jobs),
	    cmocka_unit_test(test_equal_jobs_fail_together),
	    cmocka_unit_test(test_roles_share_by_weight),
	    cmocka_unit_test(test_room_is_shared),
	    cmocka_unit_test(test_steps_are_shared_by_weight),
	    cmocka_unit_test(test_latecomer),
	    cmocka_unit_test(test_big_job_waits_but_not_for_ever),
	    cmocka_unit_test(test_label_rows_run_beside_generation),
	    cmocka_unit_test(test_random_schedules),
	    cmocka_unit_test(test_cancel_while_steps_run),
	};

	return cmocka_run_group_tests(tests, load_packed, free_model);
}
