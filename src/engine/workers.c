/*
 * workers.c: loading, preparing and computing, each on its own thread.
 *
 * The struct belongs to the I/O thread; `lock` guards the state that the threads publish. Model,
 * runtime and scheduler are made by the compute thread and freed by q3_workers_free() after it has
 * been joined.
 */
#include "engine/workers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Texts from this size on go to the second preparation thread. */
#define LONG_TEXT (64 * 1024)
#define N_PREPARE 2
/* Least time between two reports of progress. */
#define PROGRESS_NS 100000000u

struct q3_workers
{
	q3_workers_config config;
	q3_queue prepare[N_PREPARE], compute;
	q3_outbox outbox;
	pthread_t threads[N_PREPARE + 1];
	int n_threads;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	q3_workers_state state;
	bool stopping;
	q3_scheduler *scheduler; /* set once, before READY */

	/* The compute thread's; the preparer is read by the others from READY on. */
	q3_model *model;
	q3_runtime *rt;
	q3_preparer preparer;
	bool packing; /* the model is read */
	uint64_t reported_ns;
};

/* What a thread gets to know when it starts. */
typedef struct prepare_arg
{
	q3_workers *w;
	int index;
} prepare_arg;

/* ---------------------------------------------------------------------------------------------
 * Preparation threads
 * --------------------------------------------------------------------------------------------- */

/* False when it is time to end instead. */
static bool
wait_until_ready(q3_workers *w)
{
	bool ready;

	pthread_mutex_lock(&w->lock);
	while (w->state.state != Q3P_READY && !w->stopping)
		pthread_cond_wait(&w->changed, &w->lock);
	ready = w->state.state == Q3P_READY;
	pthread_mutex_unlock(&w->lock);
	return ready;
}

static void *
prepare_main(void *p)
{
	prepare_arg arg = *(prepare_arg *) p;
	q3_workers *w = arg.w;
	q3_request *r;

	free(p);
	pthread_setname_np(pthread_self(), "q3-prepare");
	if (!wait_until_ready(w))
		return NULL;
	while ((r = q3_queue_pop(&w->prepare[arg.index], true)) != NULL)
	{
		bool compute = q3_request_prepare(r, &w->preparer);

		r->to_judge = compute && r->msg.token_quota > 0 && r->ended.n == 0;
		if (compute && !r->to_judge)
			q3_queue_push(&w->compute, r);
		else
			q3_outbox_done(&w->outbox, r);
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------------
 * Compute thread
 * --------------------------------------------------------------------------------------------- */

static void
on_progress(void *arg, uint64_t done, uint64_t total)
{
	q3_workers *w = arg;
	uint64_t now = q3_now_ns();

	if (now - w->reported_ns < PROGRESS_NS)
		return;
	w->reported_ns = now;
	pthread_mutex_lock(&w->lock);
	/* First the file is read, then its weights are packed. */
	w->state.progress =
	    (w->packing ? 0.5 : 0) + (total > 0 ? 0.5 * (double) done / (double) total : 0);
	pthread_mutex_unlock(&w->lock);
	q3_wake(w->config.wake_fd);
}

/* What steps change. Done before a job is, so that its owner sees the job's room free. */
static void
publish(q3_workers *w)
{
	q3_runtime_info info;
	q3_scheduler_stats stats;

	q3_runtime_get_info(w->rt, &info);
	q3_scheduler_get_stats(w->scheduler, &stats);
	pthread_mutex_lock(&w->lock);
	w->state.runtime = info;
	w->state.scheduler = stats;
	pthread_mutex_unlock(&w->lock);
}

static void
on_text(void *arg, q3_job *job, q3_str text)
{
	q3_workers *w = arg;

	if (!q3_outbox_text(&w->outbox, job->owner, text.data, text.len))
		q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
}

static void
on_done(void *arg, q3_job *job)
{
	q3_workers *w = arg;
	q3_request *r = job->owner;

	publish(w);
	r->error = job->error;
	q3_outbox_done(&w->outbox, r);
}

/* Loads the model and makes all that computing needs. */
static bool
load(q3_workers *w, q3_error *err)
{
	q3_load_options options = {
	    .known_digest = w->config.known_digest, .progress = on_progress, .progress_arg = w};
	q3_pack_options pack = {.fd = w->config.image_fd,
	                        .cache_dir = w->config.image_cache,
	                        .threads = w->config.runtime.threads,
	                        .progress = on_progress,
	                        .progress_arg = w};
	q3_scheduler_events events = {.text = on_text, .done = on_done, .arg = w};
	q3_runtime_info info;

	w->model = q3_model_load(w->config.model_path, &options, err);
	if (w->model == NULL)
		return false;
	w->packing = true;
	if (q3_model_pack(w->model, &pack, err) != Q3_OK)
		return false;
	w->rt = q3_runtime_create(w->model, &w->config.runtime, err);
	if (w->rt == NULL)
		return false;
	q3_runtime_get_info(w->rt, &info);
	q3_preparer_init(&w->preparer, w->model, info.context_length);
	w->scheduler = q3_scheduler_create(w->model, w->rt, &events, err);
	return w->scheduler != NULL;
}

static void
set_state(q3_workers *w, q3p_state state, double load_ms, const q3_error *err)
{
	pthread_mutex_lock(&w->lock);
	w->state.state = state;
	w->state.load_ms = load_ms;
	if (state == Q3P_FAILED)
		w->state.error = *err;
	if (state == Q3P_READY)
	{
		w->state.progress = 1;
		w->state.model = q3_model_get_info(w->model);
		w->state.image = q3_model_image(w->model);
		q3_runtime_get_info(w->rt, &w->state.runtime);
	}
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	q3_wake(w->config.wake_fd);
}

/* Hands new jobs to the scheduler; waits for one when there is nothing else to do. */
static void
take_jobs(q3_workers *w, bool wait)
{
	q3_request *r = q3_queue_pop(&w->compute, wait);

	for (; r != NULL; r = q3_queue_pop(&w->compute, false))
		q3_scheduler_submit(w->scheduler, &r->job);
}

static void *
compute_main(void *p)
{
	q3_workers *w = p;
	uint64_t start = q3_now_ns();
	q3_error err = {0};
	bool loaded, busy = false, cold = true;
	size_t warm = 0;

	pthread_setname_np(pthread_self(), "q3-compute");
	set_state(w, Q3P_LOADING, 0, NULL);
	loaded = load(w, &err);
	set_state(w, loaded ? Q3P_READY : Q3P_FAILED, (double) (q3_now_ns() - start) / 1e6, &err);
	if (!loaded)
		return NULL;
	while (!q3_queue_closed(&w->compute))
	{
		take_jobs(w, !busy && !cold);
		busy = q3_scheduler_step(w->scheduler);
		/* Not on a thread of its own: what it does holds up whoever maps memory meanwhile. */
		if (!busy && cold)
			cold = q3_runtime_warm(w->rt, &warm);
		publish(w);
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------------
 * For the I/O thread
 * --------------------------------------------------------------------------------------------- */

static bool
start_threads(q3_workers *w)
{
	if (pthread_create(&w->threads[w->n_threads], NULL, compute_main, w) != 0)
		return false;
	w->n_threads++;
	for (int i = 0; i < N_PREPARE; i++)
	{
		prepare_arg *arg = malloc(sizeof(*arg));

		if (arg == NULL)
			return false;
		*arg = (prepare_arg){.w = w, .index = i};
		if (pthread_create(&w->threads[w->n_threads], NULL, prepare_main, arg) != 0)
		{
			free(arg);
			return false;
		}
		w->n_threads++;
	}
	return true;
}

q3_workers *
q3_workers_start(const q3_workers_config *config, q3_error *err)
{
	q3_workers *w = calloc(1, sizeof(*w));

	if (w == NULL)
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	w->config = *config;
	w->state.state = Q3P_STARTING;
	for (int i = 0; i < N_PREPARE; i++)
		q3_queue_init(&w->prepare[i]);
	q3_queue_init(&w->compute);
	q3_outbox_init(&w->outbox, config->wake_fd);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	/* Threads that did start may run on: the caller exits on failure. */
	if (!start_threads(w))
	{
		q3_fail(err, Q3_ERR_MEMORY, "could not create thread");
		return NULL;
	}
	return w;
}

void
q3_workers_get_state(q3_workers *w, q3_workers_state *state)
{
	pthread_mutex_lock(&w->lock);
	*state = w->state;
	pthread_mutex_unlock(&w->lock);
}

void
q3_workers_submit(q3_workers *w, q3_request *r)
{
	q3_queue_push(&w->prepare[r->frame_bytes >= LONG_TEXT], r);
}

void
q3_workers_compute(q3_workers *w, q3_request *r)
{
	q3_queue_push(&w->compute, r);
}

void
q3_workers_cancel(q3_workers *w, q3_request *r)
{
	q3_workers_state state;

	q3_workers_get_state(w, &state);
	if (state.state == Q3P_READY)
		q3_scheduler_cancel(w->scheduler, &r->job);
	else
		atomic_store(&r->job.cancelled, true);
}

q3_outbox *
q3_workers_outbox(q3_workers *w)
{
	return &w->outbox;
}

bool
q3_workers_stop(q3_workers *w, int timeout_ms)
{
	struct timespec until;
	bool ready;

	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	ready = w->state.state == Q3P_READY;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	for (int i = 0; i < N_PREPARE; i++)
		q3_queue_close(&w->prepare[i]);
	q3_queue_close(&w->compute);
	if (ready)
		q3_scheduler_halt(w->scheduler);

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long) timeout_ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (w->n_threads > 0)
	{
		if (pthread_timedjoin_np(w->threads[w->n_threads - 1], NULL, &until) != 0)
			return false;
		w->n_threads--;
	}
	return true;
}

/* Requests that no thread has taken go straight back. */
static void
drain(q3_workers *w, q3_queue *q)
{
	q3_request *r;

	while ((r = q3_queue_pop(q, false)) != NULL)
	{
		q3_fail(&r->error, Q3_ERR_CANCELLED, "request was cancelled");
		q3_outbox_done(&w->outbox, r);
	}
}

void
q3_workers_free(q3_workers *w)
{
	q3_buffer text = {0};
	q3_request *r;
	bool done;

	for (int i = 0; i < N_PREPARE; i++)
		drain(w, &w->prepare[i]);
	drain(w, &w->compute);
	q3_scheduler_free(w->scheduler);
	while ((r = q3_outbox_pop(&w->outbox, &text, &done)) != NULL)
	{
		q3_buffer_free(&text);
		if (done)
			q3_request_free(r);
	}
	q3_preparer_free(&w->preparer);
	q3_runtime_free(w->rt);
	q3_model_free(w->model);
	for (int i = 0; i < N_PREPARE; i++)
		q3_queue_destroy(&w->prepare[i]);
	q3_queue_destroy(&w->compute);
	q3_outbox_destroy(&w->outbox);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}
