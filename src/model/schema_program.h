/*
 * schema_program.h: what json_schema.c makes of a schema and constraint.c runs.
 *
 * A program is a pushdown automaton over bytes. A rule, which reads one value, is a graph of nodes
 * that ends with RETURN; CALL runs another rule and goes on behind it. BYTE, STRING and AUTOMATON
 * read something, the others are free. Every rule reads at least one byte.
 */
#ifndef Q3_SCHEMA_PROGRAM_H
#define Q3_SCHEMA_PROGRAM_H

#include <pthread.h>

#include "model/automaton.h"
#include "model/json_schema.h"

typedef enum q3_node_kind
{
	Q3_NODE_DONE, /* node 0: behind the whole value */
	Q3_NODE_FAIL, /* nothing is accepted */
	Q3_NODE_BYTE,
	Q3_NODE_STRING,    /* the rest of a string of min to max characters, with its quote */
	Q3_NODE_AUTOMATON, /* what automata[other] accepts */
	Q3_NODE_SPLIT,     /* next or other */
	Q3_NODE_JUMP,      /* next */
	Q3_NODE_CALL,      /* the rule at other, then next */
	/* min to max items: next reads the first one, other the comma and the next one, close "]". */
	Q3_NODE_ARRAY,
	Q3_NODE_RETURN
} q3_node_kind;

typedef struct q3_node
{
	uint8_t kind; /* q3_node_kind */
	uint8_t byte;
	uint16_t need; /* rules within rules that have to be called to complete this one */
	uint32_t next, other, close;
	int32_t min, max; /* max INT32_MAX: none */
} q3_node;

#define Q3_NEED_NEVER UINT16_MAX /* it cannot be completed */

/* Tokens that an automaton allows in one of its states, whatever surrounds it. */
typedef struct q3_kept_mask
{
	struct q3_kept_mask *next;
	int32_t automaton, state;
	uint32_t *bits;
	uint32_t *exits; /* nodes of the vocabulary's trie behind which the automaton has ended */
	size_t n_exits;
} q3_kept_mask;

/* Masks kept of one schema; beyond, they are made anew every time. */
#define Q3_KEPT_MASKS 128

struct q3_schema
{
	q3_node *nodes;
	size_t n_nodes, node_capacity;
	uint32_t start;
	q3_dfa **automata;
	size_t n_automata, automata_capacity;
	size_t automata_bytes;
	pthread_mutex_t lock;
	q3_kept_mask *kept; /* under the lock, as n_kept is; never freed before the schema */
	int n_kept;
};

#endif
