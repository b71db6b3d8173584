/*
 * pattern_internal.h: what the files of regular expressions share: pattern_parse.c (from the text
 * to a tree) and pattern.c (from the tree to an automaton). All of it belongs to one call of
 * q3_pattern_compile(), which frees it.
 */
#ifndef Q3_PATTERN_INTERNAL_H
#define Q3_PATTERN_INTERNAL_H

#include "model/automaton.h"
#include "model/pattern.h"

#define Q3_LAST_CHAR 0x10ffff

typedef struct q3_char_range
{
	uint32_t low, high;
} q3_char_range;

/* A set of characters: ranges in order that do not touch. */
typedef struct q3_char_set
{
	q3_char_range *ranges;
	size_t n, capacity;
} q3_char_set;

typedef enum q3_pattern_kind
{
	TREE_EMPTY,
	TREE_SET,
	TREE_CAT,
	TREE_ALT,
	TREE_REPEAT,
	TREE_BEGIN, /* ^ */
	TREE_END    /* $ */
} q3_pattern_kind;

typedef struct q3_pattern_tree
{
	q3_pattern_kind kind;
	int32_t left, right; /* CAT, ALT; REPEAT: left */
	int32_t min, max;    /* REPEAT; max -1: no limit */
	int32_t set;         /* SET */
} q3_pattern_tree;

/* A state of the automaton with free edges: a set of characters to one state, or up to two free. */
typedef struct q3_pattern_link
{
	q3_pattern_kind kind; /* SET: out[0] behind a character; BEGIN, END: free there only; EMPTY */
	int32_t set;
	int32_t out[2]; /* -1: none */
} q3_pattern_link;

typedef struct q3_pattern
{
	const uint8_t *at, *end;
	q3_error *err;
	q3_code code; /* the first failure; everything stops then */
	int nesting;
	q3_pattern_tree *trees;
	size_t n_trees, tree_capacity;
	q3_char_set *sets;
	size_t n_sets, set_capacity;
	q3_pattern_link *links;
	size_t n_links, link_capacity;
	int32_t accept;
	/* Characters between which no set begins or ends: [cuts[i], cuts[i + 1]). */
	uint32_t *cuts;
	size_t n_cuts, cut_capacity;
	/* The automaton over characters: next[state * (n_cuts - 1) + interval], -1: none. */
	q3_sets states;
	int32_t *next;
	size_t next_capacity;
	uint8_t *accepts;
	size_t accept_capacity;
	/* Scratch of closures. */
	uint8_t *seen;
	int32_t *work;
	size_t n_work;
} q3_pattern;

/* The first failure counts, and stops everything. */
extern void q3_pattern_out_of_memory(q3_pattern *c);
extern void q3_pattern_too_large(q3_pattern *c);
extern void q3_pattern_invalid(q3_pattern *c, const char *what);

extern void q3_char_set_add(q3_pattern *c, q3_char_set *s, uint32_t low, uint32_t high);
/* Puts the set in order and makes it one of c->sets: its number. */
extern int32_t q3_char_set_keep(q3_pattern *c, q3_char_set *s);
/* The tree of the whole text; its root. */
extern int32_t q3_pattern_parse(q3_pattern *c);

#endif
