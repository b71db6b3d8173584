/*
 * scheduler_fixture.h: a scheduler on a tiny random model, without any socket, for tests.
 *
 * The model is loaded once per program; every test has a runtime of its own. Events are recorded
 * per job.
 */
#ifndef TEST_SCHEDULER_FIXTURE_H
#define TEST_SCHEDULER_FIXTURE_H

#include <unistd.h>

#include "engine/scheduler.h"
#include "tiny_qwen.h"

#define MAX_TEXT 65536

static char model_path[64];
static q3_model *model;

/* A job with what its events said. */
typedef struct probe
{
	q3_job job;
	int done;  /* how often the done event came */
	int order; /* as the how manyth */
	char text[MAX_TEXT];
	size_t text_len;
} probe;

typedef struct fixture
{
	q3_runtime *rt;
	q3_runtime_info info;
	q3_preparer preparer;
	q3_scheduler *s;
	int n_done;
} fixture;

static inline void
on_text(void *arg, q3_job *job, q3_str text)
{
	probe *p = job->owner;

	(void) arg;
	assert_true(p->text_len + text.len <= MAX_TEXT);
	memcpy(p->text + p->text_len, text.data, text.len);
	p->text_len += text.len;
}

static inline void
on_done(void *arg, q3_job *job)
{
	fixture *f = arg;
	probe *p = job->owner;

	p->done++;
	p->order = f->n_done++;
}

/* KV bytes for so many tokens of F32. */
static inline uint64_t
kv_bytes(int32_t tokens)
{
	return (uint64_t) tokens * TINY_LAYERS * TINY_KV_HEADS * TINY_HEAD_DIM * 2 * sizeof(float);
}

static inline void
open_with(fixture *f, const q3_runtime_options *options)
{
	q3_scheduler_events events = {.text = on_text, .done = on_done, .arg = f};
	q3_error err = {0};

	memset(f, 0, sizeof(*f));
	f->rt = q3_runtime_create(model, options, &err);
	assert_non_null(f->rt);
	q3_runtime_get_info(f->rt, &f->info);
	q3_preparer_init(&f->preparer, model, f->info.context_length);
	f->s = q3_scheduler_create(model, f->rt, &events, &err);
	assert_non_null(f->s);
}

/* With a KV cache for so many tokens. */
static inline void
open_pool(fixture *f, int32_t context, int32_t max_batch, int32_t kv_tokens)
{
	q3_runtime_options options = {.threads = 1,
	                              .context_length = context,
	                              .max_batch_tokens = max_batch,
	                              .kv_f32 = true,
	                              .kv_bytes = kv_bytes(kv_tokens)};

	open_with(f, &options);
}

/* With one for so many sequences of the whole context. */
static inline void
open_fixture(fixture *f, int32_t context, int32_t max_batch, int32_t sequences)
{
	open_pool(f, context, max_batch, context * sequences);
}

static inline void
close_fixture(fixture *f)
{
	q3_runtime_info info;

	q3_scheduler_free(f->s);
	q3_preparer_free(&f->preparer);
	q3_runtime_get_info(f->rt, &info);
	/* Nothing leaks: beside pins all blocks are free or only cached. */
	assert_int_equal(info.kv_blocks_free + info.pinned_blocks, f->info.kv_blocks);
	q3_runtime_free(f->rt);
}

static inline q3_job_options
options_for(const char *prompt, int32_t max_tokens)
{
	return (q3_job_options){.plain = true,
	                        .prompt = {prompt, strlen(prompt)},
	                        .max_tokens = max_tokens,
	                        .mode = Q3_PRECISE};
}

#define LABEL(s)                                                                                   \
	{                                                                                              \
		(s), sizeof(s) - 1                                                                         \
	}

static inline q3_job_options
classify_options(const char *system, const char *prompt, const q3_str *labels, size_t n)
{
	return (q3_job_options){.prompt = {prompt, strlen(prompt)},
	                        .system = {system, system != NULL ? strlen(system) : 0},
	                        .mode = Q3_PRECISE,
	                        .labels = labels,
	                        .n_labels = n};
}

static inline probe *
make_for(fixture *f, const q3_job_options *options, uint32_t role, int32_t weight)
{
	probe *p = calloc(1, sizeof(*p));
	q3_error err = {0};
	bool compute = true;
	q3_code code;

	assert_non_null(p);
	q3_job_init(&p->job);
	p->job.owner = p;
	p->job.role = role;
	p->job.weight = weight;
	if (options->n_labels > 0)
		code = q3_job_classify(&p->job, &f->preparer, options, &compute, &err);
	else
		code = q3_job_generate(&p->job, &f->preparer, options, &err);
	if (code != Q3_OK)
		fail_msg("%s", err.message);
	assert_true(compute);
	return p;
}

static inline probe *
make(fixture *f, const q3_job_options *options)
{
	return make_for(f, options, 1, 100);
}

static inline probe *
submit(fixture *f, const q3_job_options *options, uint32_t role, int32_t weight)
{
	probe *p = make_for(f, options, role, weight);

	q3_scheduler_submit(f->s, &p->job);
	return p;
}

static inline void
discard(probe *p)
{
	q3_job_free(&p->job);
	free(p);
}

static inline void
run_all(fixture *f)
{
	while (q3_scheduler_step(f->s))
		;
}

static inline void
assert_same_value(const probe *a, const probe *b)
{
	q3_str x = q3_output_value(a->job.output), y = q3_output_value(b->job.output);

	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.data, y.data, x.len);
}

static inline int
load_model(void **state)
{
	q3_load_options options = {.skip_digest = true};
	q3_error err = {0};

	(void) state;
	if (!tiny_qwen_write(model_path, sizeof(model_path), 7))
		return -1;
	model = q3_model_load(model_path, &options, &err);
	if (model == NULL)
		print_error("%s\n", err.message);
	return model != NULL ? 0 : -1;
}

/* The model packed, so that the modes differ. */
static inline int
load_packed(void **state)
{
	q3_pack_options pack = {.threads = 1};
	q3_error err = {0};

	if (load_model(state) != 0)
		return -1;
	return q3_model_pack(model, &pack, &err) == Q3_OK ? 0 : -1;
}

static inline int
free_model(void **state)
{
	(void) state;
	q3_model_free(model);
	unlink(model_path);
	return 0;
}

#endif
