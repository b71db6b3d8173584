/*
 * process.h: making the engine a well-behaved child of the background worker.
 */
#ifndef Q3_PROCESS_H
#define Q3_PROCESS_H

#include <stdbool.h>

/*
 * Signals: everything default, the ones that the postmaster sends to the worker's whole process
 * group ignored, SIGTERM and SIGQUIT (child: not SIGINT) blocked and readable from the signalfd
 * that is returned; -1 and errno on failure. Must come before the first thread.
 */
extern int q3_process_signals(bool child);
/* Dies with its parent. False when the parent is dead already. */
extern bool q3_process_bind_to_parent(void);
/* The first process to go when the machine runs out of memory. Best effort. */
extern void q3_process_prefer_oom(void);
/* Closes every descriptor above stderr but the n in keep, which it sorts (-1: none). */
extern void q3_process_close_others(int *keep, int n);
/* Lets the process have as many descriptors as it may. */
extern void q3_process_raise_file_limit(void);

#endif
