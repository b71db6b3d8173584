/*
 * threads.h: a pool of threads that share the chunks of one piece of work at a time.
 *
 * The thread that calls q3_threads_run() works too. Chunks are handed out one by one, so that a
 * worker that the system has put aside delays nobody who has not been waiting for its own chunk;
 * what a chunk computes must not depend on which thread does it. Idle workers spin for some tens of
 * microseconds and then sleep.
 */
#ifndef Q3_THREADS_H
#define Q3_THREADS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/error.h"

#define Q3_MAX_THREADS 512

typedef struct q3_threads q3_threads;

/* thread: 0 for the caller, 1 ... for workers; for per-thread memory. */
typedef void (*q3_chunk_fn)(void *arg, int32_t chunk, int32_t thread);

/* n threads including the caller: n - 1 are started. NULL and err on failure. */
extern q3_threads *q3_threads_create(int32_t n, q3_error *err);
/* Ends and joins the workers; NULL is fine. */
extern void q3_threads_free(q3_threads *threads);
extern int32_t q3_threads_count(const q3_threads *threads);
/* Cores that this process may use. */
extern int32_t q3_threads_available(void);

/*
 * Calls fn for every chunk in [0, n_chunks) and returns when all calls have returned. When *stop
 * (may be NULL) becomes true no further chunk is begun and the result is false. One caller at a
 * time.
 */
extern bool q3_threads_run(q3_threads *threads, q3_chunk_fn fn, void *arg, int32_t n_chunks,
                           const atomic_bool *stop);

#endif
