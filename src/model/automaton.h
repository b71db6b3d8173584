/*
 * automaton.h: finite automata over bytes: what a string, a number or an enum's value may look like
 * in JSON.
 *
 * A q3_nfa is a list of edges that somebody fills in; q3_dfa_create() makes a deterministic
 * automaton of it from which every state can still be completed. A q3_dfa is immutable; any number
 * of threads may read it. All memory is the caller's.
 */
#ifndef Q3_AUTOMATON_H
#define Q3_AUTOMATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/error.h"

/* Most states of either kind; more is Q3_ERR_UNSUPPORTED. */
#define Q3_NFA_MAX_STATES 1000000
#define Q3_DFA_MAX_STATES 30000

typedef struct q3_nfa_edge
{
	int32_t from, to;
	uint8_t low, high; /* bytes, both included */
} q3_nfa_edge;

/* State 0 is the first. Starts as {0}. */
typedef struct q3_nfa
{
	q3_nfa_edge *edges;
	size_t n_edges, edge_capacity;
	uint8_t *accepts;
	int32_t n_states, state_capacity;
	bool failed; /* out of memory */
	bool full;   /* more than Q3_NFA_MAX_STATES */
} q3_nfa;

extern void q3_nfa_free(q3_nfa *n);
/* A new state; after a failure, which q3_dfa_create() reports, state 0. */
extern int32_t q3_nfa_state(q3_nfa *n, bool accepts);
extern void q3_nfa_edge_add(q3_nfa *n, int32_t from, uint8_t low, uint8_t high, int32_t to);
/* New states for these bytes behind from; returns the last. */
extern int32_t q3_nfa_text(q3_nfa *n, int32_t from, const char *text, size_t len);

/* State 0 is the first; -1 stands for no way on. Every state leads to one that accepts. */
typedef struct q3_dfa
{
	int32_t n_states, n_classes;
	uint8_t class_of[256];
	int32_t *next;    /* [n_states][n_classes] */
	uint8_t *accepts; /* Q3_DFA_... */
	size_t bytes;     /* of memory */
} q3_dfa;

enum
{
	Q3_DFA_ACCEPTS = 1,
	Q3_DFA_GOES_ON = 2 /* more bytes may follow */
};

/*
 * NULL and err on failure: Q3_ERR_MEMORY, Q3_ERR_UNSUPPORTED (too large), Q3_ERR_INVALID when
 * nothing at all is accepted. The empty text is never accepted.
 */
extern q3_dfa *q3_dfa_create(const q3_nfa *n, q3_error *err);
extern void q3_dfa_free(q3_dfa *d);

static inline int32_t
q3_dfa_next(const q3_dfa *d, int32_t state, uint8_t byte)
{
	return d->next[(size_t) state * (size_t) d->n_classes + d->class_of[byte]];
}

/*
 * A table from sets of states to numbers, for subset constructions (here and in pattern.c): each
 * set is sorted. Starts as {0}.
 */
typedef struct q3_sets
{
	int32_t *items;
	size_t n_items, item_capacity;
	size_t *start; /* n + 1 offsets into items */
	size_t start_capacity;
	int32_t *slots;
	size_t mask;
	int32_t n;
} q3_sets;

extern void q3_sets_free(q3_sets *s);
/* Number of the set, new or old; -1 when out of memory. Sorts it and drops what is there twice. */
extern int32_t q3_sets_add(q3_sets *s, int32_t *set, size_t n);

static inline const int32_t *
q3_sets_get(const q3_sets *s, int32_t set, size_t *n)
{
	*n = s->start[set + 1] - s->start[set];
	return s->items + s->start[set];
}

/*
 * Makes room for one more item in an array of *capacity items; false when out of memory. Its
 * address may change.
 */
extern bool q3_grow(void *array, size_t n, size_t *capacity, size_t item_bytes);

#endif
