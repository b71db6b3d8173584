/*
 * window.h: asking about each element of an array, many of them under way together.
 */
#ifndef QWEN3DM_WINDOW_H
#define QWEN3DM_WINDOW_H

#include "extension/client.h"
#include "extension/options.h"

/* Requests of one array that are under way together. */
#define QWEN3DM_WINDOW 64

/* An element on its way from prompt to answer. */
typedef struct Qwen3dmElement
{
	Qwen3dmRequest *request;
	Qwen3dmFailure failure; /* why there is none; sqlstate 0: the element is NULL */
} Qwen3dmElement;

typedef struct Qwen3dmWindow
{
	const Qwen3dmOptions *options;
	const Datum *prompts; /* texts; read up to the window's end, which is at most 64 ahead */
	const bool *nulls;
	int n;
	int head, next; /* elements: the first not yet taken, the first not yet submitted */
	Qwen3dmElement elements[QWEN3DM_WINDOW];
} Qwen3dmWindow;

/* Everything that is passed must outlive the window, which itself holds no memory. */
extern void qwen3dm_window_start(Qwen3dmWindow *w, const Qwen3dmOptions *options,
                                 const Datum *prompts, const bool *nulls, int n);
/*
 * Takes the next element and waits for its request, the caller's to release. NULL: there is none,
 * *failure says why, or with sqlstate 0 that the element is NULL. Call it n times.
 */
extern Qwen3dmRequest *qwen3dm_window_next(Qwen3dmWindow *w, Qwen3dmFailure *failure);

#endif
