/*
 * threads.c: the pool of compute threads.
 *
 * The leader (the caller of q3_threads_run()) publishes a job and opens the gate. A worker passes
 * the gate by counting itself in, takes chunks from a counter until there are none, and counts
 * itself out. When the leader finds no more chunks it closes the gate, so that late-comers stay
 * outside, and waits for those inside. The job is only written while the gate is closed and nobody
 * is inside: that is what makes plain fields safe.
 *
 * Both sides spin briefly before they sleep: between the matrix products of one step the next job
 * is microseconds away, and waking a thread costs more than that.
 *
 * Results do not depend on who does what, so on a busy machine the pool may shrink. A worker that
 * finds itself on the leader's processor can only be in the way: it goes to sleep, and is left
 * there for some jobs, until waking it gives the system another chance to place it better. And when
 * a worker is stopped in the middle of a chunk, for milliseconds, the leader next does as many jobs
 * alone as cost about what the waiting has cost; twice as many when that happens again soon, and so
 * on. So two threads are not slower than one when there is only one processor to be had.
 */
#include "model/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NANOSECONDS 40000
#define LATE_NANOSECONDS 150000 /* waiting that a chunk in progress does not explain */
#define MAX_ALONE 16384         /* jobs */
#define MAX_CAUTION 64
#define CALM_JOBS 512 /* done in company without a late worker: reason to be less cautious */
#define NO_WAKE_JOBS 64
#define GATE_OPEN 0x40000000u /* added to the number of workers inside */

typedef struct worker
{
	q3_threads *pool;
	int32_t index;
	pthread_t thread;
} worker;

struct q3_threads
{
	int32_t n;
	int32_t n_started; /* workers that exist */
	worker *workers;

	/* The job. */
	q3_chunk_fn fn;
	void *arg;
	int32_t n_chunks;
	const atomic_bool *stop;
	_Alignas(64) atomic_int next; /* chunk to be taken */

	/* The leader's own. */
	int32_t alone_left;   /* jobs to do alone */
	int32_t caution;      /* factor for the next alone_left */
	int32_t calm;         /* jobs in company since a worker was last late, or caution changed */
	int32_t no_wake_left; /* jobs for which sleeping workers are left asleep */

	_Alignas(64) atomic_uint gate;
	atomic_uint generation; /* of jobs; changes when the gate opens */
	atomic_int sleepers;
	atomic_int leader_cpu;
	atomic_bool crowded; /* a worker has found itself on leader_cpu */
	atomic_bool leader_sleeps;
	bool quit; /* under mutex */
	pthread_mutex_t mutex;
	pthread_cond_t wake; /* for workers */
	pthread_cond_t done; /* for the leader */
};

static void
relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static int64_t
nanoseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits a little for *value to become different from (or, if equal, the same as) other. */
static bool
spin(const atomic_uint *value, unsigned other, bool equal)
{
	int64_t end = 0;

	for (int i = 0;; i++)
	{
		if ((atomic_load(value) == other) == equal)
			return true;
		relax();
		if (i % 8 == 0)
		{
			int64_t t = nanoseconds();

			if (end == 0)
				end = t + SPIN_NANOSECONDS;
			else if (t > end)
				return false;
		}
	}
}

/* Returns the number of chunks done. */
static int32_t
take_chunks(q3_threads *p, int32_t thread)
{
	for (int32_t n = 0;; n++)
	{
		int chunk;

		if (p->stop != NULL && atomic_load_explicit(p->stop, memory_order_relaxed))
			return n;
		chunk = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
		if (chunk >= p->n_chunks)
			return n;
		p->fn(p->arg, chunk, thread);
	}
}

static bool
enter(q3_threads *p)
{
	unsigned gate = atomic_load(&p->gate);

	while (gate & GATE_OPEN)
		if (atomic_compare_exchange_weak(&p->gate, &gate, gate + 1))
			return true;
	return false;
}

static void
leave(q3_threads *p)
{
	/* The last one out of a closed gate wakes the leader if that has gone to sleep. */
	if (atomic_fetch_sub(&p->gate, 1) == 1 && atomic_load(&p->leader_sleeps))
	{
		pthread_mutex_lock(&p->mutex);
		pthread_cond_signal(&p->done);
		pthread_mutex_unlock(&p->mutex);
	}
}

/* Sleeps until there is another job than the one seen; false when it is time to end. */
static bool
sleep_until_job(q3_threads *p, unsigned seen)
{
	bool quit;

	pthread_mutex_lock(&p->mutex);
	/* Counted before the generation is read: the leader changes that before it reads this. */
	atomic_fetch_add(&p->sleepers, 1);
	while (!p->quit && atomic_load(&p->generation) == seen)
		pthread_cond_wait(&p->wake, &p->mutex);
	atomic_fetch_sub(&p->sleepers, 1);
	quit = p->quit;
	pthread_mutex_unlock(&p->mutex);
	return !quit;
}

/* For a worker: it runs, so the leader does not. */
static bool
on_leader_cpu(q3_threads *p)
{
	return sched_getcpu() == atomic_load_explicit(&p->leader_cpu, memory_order_relaxed);
}

static void *
work(void *arg)
{
	worker *w = arg;
	q3_threads *p = w->pool;
	unsigned seen = 0;

	for (;;)
	{
		if ((on_leader_cpu(p) || !spin(&p->generation, seen, false)) && !sleep_until_job(p, seen))
			return NULL;
		seen = atomic_load(&p->generation);
		if (on_leader_cpu(p))
			atomic_store(&p->crowded, true);
		else if (enter(p))
		{
			take_chunks(p, w->index);
			leave(p);
		}
	}
}

/* Lets the workers in. */
static void
open_gate(q3_threads *p)
{
	atomic_store_explicit(&p->leader_cpu, sched_getcpu(), memory_order_relaxed);
	atomic_store(&p->gate, GATE_OPEN);
	atomic_fetch_add(&p->generation, 1);
	if (atomic_load(&p->sleepers) == 0)
		return;
	if (atomic_exchange(&p->crowded, false))
		p->no_wake_left = NO_WAKE_JOBS;
	if (p->no_wake_left > 0)
	{
		p->no_wake_left--;
		return;
	}
	pthread_mutex_lock(&p->mutex);
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->mutex);
}

/* Keeps further workers out and waits for those inside. */
static void
close_gate(q3_threads *p)
{
	atomic_fetch_sub(&p->gate, GATE_OPEN);
	if (spin(&p->gate, 0, true))
		return;
	pthread_mutex_lock(&p->mutex);
	atomic_store(&p->leader_sleeps, true);
	while (atomic_load(&p->gate) != 0)
		pthread_cond_wait(&p->done, &p->mutex);
	atomic_store(&p->leader_sleeps, false);
	pthread_mutex_unlock(&p->mutex);
}

/* The leader worked for so long on n chunks and then waited for the workers. */
static void
note_waiting(q3_threads *p, int64_t worked, int32_t n, int64_t waited)
{
	int64_t chunk = n > 0 ? worked / n : worked, jobs;

	if (waited <= 2 * chunk + LATE_NANOSECONDS)
	{
		if (++p->calm == CALM_JOBS)
		{
			p->calm = 0;
			p->caution = p->caution > 1 ? p->caution / 2 : 1;
		}
		return;
	}
	/* Alone a job takes about p->n times as long. */
	jobs = (waited / (worked * (p->n - 1) + 1) + 1) * p->caution;
	p->alone_left = jobs < MAX_ALONE ? (int32_t) jobs : MAX_ALONE;
	p->caution = p->caution < MAX_CAUTION ? p->caution * 2 : MAX_CAUTION;
	p->calm = 0;
}

bool
q3_threads_run(q3_threads *p, q3_chunk_fn fn, void *arg, int32_t n_chunks, const atomic_bool *stop)
{
	int64_t start, end;
	int32_t n;

	p->fn = fn;
	p->arg = arg;
	p->n_chunks = n_chunks;
	p->stop = stop;
	atomic_store_explicit(&p->next, 0, memory_order_relaxed);
	if (p->n == 1 || n_chunks <= 1 || p->alone_left > 0)
	{
		if (n_chunks > 1 && p->alone_left > 0)
			p->alone_left--;
		take_chunks(p, 0);
		return stop == NULL || !atomic_load(stop);
	}
	start = nanoseconds();
	open_gate(p);
	n = take_chunks(p, 0);
	end = nanoseconds();
	close_gate(p);
	note_waiting(p, end - start, n, nanoseconds() - end);
	return stop == NULL || !atomic_load(stop);
}

int32_t
q3_threads_count(const q3_threads *p)
{
	return p->n;
}

int32_t
q3_threads_available(void)
{
	cpu_set_t set;
	int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = CPU_COUNT(&set);
	if (n < 1)
		n = (int) sysconf(_SC_NPROCESSORS_ONLN);
	return n < 1 ? 1 : n > Q3_MAX_THREADS ? Q3_MAX_THREADS : n;
}

/* Workers block every signal: those belong to the program's own threads. */
static int
start_workers(q3_threads *p)
{
	sigset_t all, old;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	for (int32_t i = 1; i < p->n && rc == 0; i++)
	{
		worker *w = &p->workers[i];

		w->pool = p;
		w->index = i;
		rc = pthread_create(&w->thread, NULL, work, w);
		if (rc == 0)
			p->n_started++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

q3_threads *
q3_threads_create(int32_t n, q3_error *err)
{
	q3_threads *p = NULL;
	int rc;

	if (n < 1 || n > Q3_MAX_THREADS)
	{
		q3_fail(err, Q3_ERR_INVALID, "number of threads must be between 1 and %d", Q3_MAX_THREADS);
		return NULL;
	}
	if (posix_memalign((void **) &p, 64, sizeof(*p)) != 0)
		p = NULL;
	else
		memset(p, 0, sizeof(*p));
	if (p == NULL || (p->workers = calloc((size_t) n, sizeof(worker))) == NULL)
	{
		free(p);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	p->n = n;
	p->caution = 1;
	atomic_store(&p->leader_cpu, -1);
	pthread_mutex_init(&p->mutex, NULL);
	pthread_cond_init(&p->wake, NULL);
	pthread_cond_init(&p->done, NULL);
	rc = start_workers(p);
	if (rc != 0)
	{
		q3_threads_free(p);
		q3_fail(err, Q3_ERR_MEMORY, "could not start a compute thread: %s", strerror(rc));
		return NULL;
	}
	return p;
}

void
q3_threads_free(q3_threads *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->mutex);
	p->quit = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->mutex);
	for (int32_t i = 1; i <= p->n_started; i++)
		pthread_join(p->workers[i].thread, NULL);
	pthread_cond_destroy(&p->wake);
	pthread_cond_destroy(&p->done);
	pthread_mutex_destroy(&p->mutex);
	free(p->workers);
	free(p);
}
