/*
 * automaton.c: from edges to a deterministic automaton, by the subset construction.
 *
 * States from which nothing can be completed are dropped before, so that no state of the result is
 * a dead end. Bytes that no edge tells apart share a column. Everything is malloc'ed and freed by
 * the caller; no state is shared.
 */
#include "model/automaton.h"

#include <stdlib.h>
#include <string.h>

bool
q3_grow(void *array, size_t n, size_t *capacity, size_t item_bytes)
{
	void **at = array;
	size_t wanted = *capacity * 2 > 16 ? *capacity * 2 : 16;
	void *grown;

	if (n < *capacity)
		return true;
	grown = realloc(*at, wanted * item_bytes);
	if (grown == NULL)
		return false;
	*at = grown;
	*capacity = wanted;
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Edges
 * --------------------------------------------------------------------------------------------- */

void
q3_nfa_free(q3_nfa *n)
{
	free(n->edges);
	free(n->accepts);
	memset(n, 0, sizeof(*n));
}

int32_t
q3_nfa_state(q3_nfa *n, bool accepts)
{
	size_t capacity = (size_t) n->state_capacity;

	n->full = n->full || n->n_states >= Q3_NFA_MAX_STATES;
	if (n->full || n->failed)
		return 0;
	if (!q3_grow(&n->accepts, (size_t) n->n_states, &capacity, 1))
	{
		n->failed = true;
		return 0;
	}
	n->state_capacity = (int32_t) capacity;
	n->accepts[n->n_states] = accepts;
	return n->n_states++;
}

void
q3_nfa_edge_add(q3_nfa *n, int32_t from, uint8_t low, uint8_t high, int32_t to)
{
	if (n->failed || n->full)
		return;
	if (!q3_grow(&n->edges, n->n_edges, &n->edge_capacity, sizeof(n->edges[0])))
	{
		n->failed = true;
		return;
	}
	n->edges[n->n_edges++] = (q3_nfa_edge){from, to, low, high};
}

int32_t
q3_nfa_text(q3_nfa *n, int32_t from, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		int32_t to = q3_nfa_state(n, false);

		q3_nfa_edge_add(n, from, (uint8_t) text[i], (uint8_t) text[i], to);
		from = to;
	}
	return from;
}

/* ---------------------------------------------------------------------------------------------
 * Sets of states
 * --------------------------------------------------------------------------------------------- */

void
q3_sets_free(q3_sets *s)
{
	free(s->items);
	free(s->start);
	free(s->slots);
	memset(s, 0, sizeof(*s));
}

static int
compare_ints(const void *a, const void *b)
{
	int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;

	return (x > y) - (x < y);
}

static uint64_t
hash_set(const int32_t *set, size_t n)
{
	uint64_t h = n;

	for (size_t i = 0; i < n; i++)
	{
		h = (h ^ (uint32_t) set[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return h;
}

/* The slot of the set, or the free one where it belongs. */
static size_t
slot_of(const q3_sets *s, const int32_t *set, size_t n)
{
	size_t i = hash_set(set, n) & s->mask, len;

	for (; s->slots[i] >= 0; i = (i + 1) & s->mask)
	{
		const int32_t *other = q3_sets_get(s, s->slots[i], &len);

		if (len == n && (n == 0 || memcmp(other, set, n * sizeof(*set)) == 0))
			break;
	}
	return i;
}

/* Room for one more set of n items. */
static bool
sets_reserve(q3_sets *s, size_t n)
{
	if (!q3_grow(&s->start, (size_t) s->n + 1, &s->start_capacity, sizeof(s->start[0])))
		return false;
	while (s->item_capacity < s->n_items + n || s->items == NULL)
		if (!q3_grow(&s->items, s->item_capacity, &s->item_capacity, sizeof(s->items[0])))
			return false;
	if (s->slots != NULL && (size_t) s->n < s->mask / 2)
		return true;
	s->mask = s->slots != NULL ? s->mask * 2 + 1 : 63;
	free(s->slots);
	s->slots = malloc((s->mask + 1) * sizeof(s->slots[0]));
	if (s->slots == NULL)
		return false;
	memset(s->slots, 0xff, (s->mask + 1) * sizeof(s->slots[0]));
	for (int32_t i = 0; i < s->n; i++)
	{
		size_t len;
		const int32_t *set = q3_sets_get(s, i, &len);

		s->slots[slot_of(s, set, len)] = i;
	}
	return true;
}

int32_t
q3_sets_add(q3_sets *s, int32_t *set, size_t n)
{
	size_t slot, kept = 0;

	if (n > 1)
		qsort(set, n, sizeof(*set), compare_ints);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || set[kept - 1] != set[i])
			set[kept++] = set[i];
	if (!sets_reserve(s, kept))
		return -1;
	slot = slot_of(s, set, kept);
	if (s->slots[slot] >= 0)
		return s->slots[slot];
	if (s->n == 0)
		s->start[0] = 0;
	if (kept > 0)
		memcpy(s->items + s->n_items, set, kept * sizeof(*set));
	s->n_items += kept;
	s->slots[slot] = s->n;
	s->start[++s->n] = s->n_items;
	return s->n - 1;
}

/* ---------------------------------------------------------------------------------------------
 * The subset construction
 * --------------------------------------------------------------------------------------------- */

/* Edges in order of the states that they leave, and what leads to an end. */
typedef struct builder
{
	const q3_nfa *nfa;
	q3_nfa_edge *edges; /* useful ones */
	size_t *first;      /* n_states + 1 */
	uint8_t *live;
	q3_sets sets;
	int32_t *target; /* scratch: of one byte class */
	size_t target_capacity;
	q3_dfa *dfa;
	uint8_t byte_of[256]; /* of a class */
	size_t row_capacity;
} builder;

/* Edges counted by one of their ends: first[] becomes offsets, out[] the edges in that order. */
static void
sort_edges(const q3_nfa *n, bool by_target, size_t *first, q3_nfa_edge *out)
{
	memset(first, 0, ((size_t) n->n_states + 2) * sizeof(*first));
	for (size_t i = 0; i < n->n_edges; i++)
		first[(by_target ? n->edges[i].to : n->edges[i].from) + 2]++;
	for (int32_t i = 0; i < n->n_states; i++)
		first[i + 2] += first[i + 1];
	for (size_t i = 0; i < n->n_edges; i++)
		out[first[(by_target ? n->edges[i].to : n->edges[i].from) + 1]++] = n->edges[i];
}

/* Marks what can be completed, from the ends backwards. False when out of memory. */
static bool
find_live(builder *b)
{
	const q3_nfa *n = b->nfa;
	int32_t *work = malloc((size_t) n->n_states * sizeof(*work));
	size_t n_work = 0;

	if (work == NULL)
		return false;
	sort_edges(n, true, b->first, b->edges);
	for (int32_t i = 0; i < n->n_states; i++)
		if (n->accepts[i])
		{
			b->live[i] = 1;
			work[n_work++] = i;
		}
	while (n_work > 0)
	{
		int32_t state = work[--n_work];

		for (size_t i = b->first[state]; i < b->first[state + 1]; i++)
			if (!b->live[b->edges[i].from])
			{
				b->live[b->edges[i].from] = 1;
				work[n_work++] = b->edges[i].from;
			}
	}
	free(work);
	sort_edges(n, false, b->first, b->edges);
	return true;
}

/* Bytes between which no edge begins or ends are one class. */
static void
find_classes(builder *b)
{
	bool begins[257] = {false};

	for (size_t i = 0; i < b->nfa->n_edges; i++)
	{
		begins[b->nfa->edges[i].low] = true;
		begins[b->nfa->edges[i].high + 1] = true;
	}
	b->dfa->n_classes = 1;
	for (int byte = 0; byte < 256; byte++)
	{
		if (byte > 0 && begins[byte])
			b->dfa->n_classes++;
		b->dfa->class_of[byte] = (uint8_t) (b->dfa->n_classes - 1);
		b->byte_of[b->dfa->n_classes - 1] = (uint8_t) byte;
	}
}

/* The number of the set that a byte leads to; -1: none, -2: out of memory. */
static int32_t
move(builder *b, int32_t set, uint8_t byte)
{
	size_t n, n_target = 0;
	const int32_t *states = q3_sets_get(&b->sets, set, &n);

	for (size_t s = 0; s < n; s++)
		for (size_t i = b->first[states[s]]; i < b->first[states[s] + 1]; i++)
		{
			const q3_nfa_edge *e = &b->edges[i];

			if (byte < e->low || byte > e->high || !b->live[e->to])
				continue;
			if (!q3_grow(&b->target, n_target, &b->target_capacity, sizeof(*b->target)))
				return -2;
			b->target[n_target++] = e->to;
		}
	if (n_target == 0)
		return -1;
	set = q3_sets_add(&b->sets, b->target, n_target);
	return set < 0 ? -2 : set;
}

/* The row of one state. */
static q3_code
add_row(builder *b, int32_t set, q3_error *err)
{
	q3_dfa *d = b->dfa;
	size_t n, row = (size_t) set * (size_t) d->n_classes;
	const int32_t *states;
	uint8_t flags = 0;

	while (b->row_capacity <= (size_t) set)
	{
		size_t flag_capacity = b->row_capacity;

		if (!q3_grow(&d->next, b->row_capacity, &b->row_capacity,
		             (size_t) d->n_classes * sizeof(d->next[0])) ||
		    !q3_grow(&d->accepts, flag_capacity, &flag_capacity, 1))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	}
	for (int32_t c = 0; c < d->n_classes; c++)
	{
		int32_t to = move(b, set, b->byte_of[c]);

		if (to == -2)
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		if (to >= 0)
			flags = Q3_DFA_GOES_ON;
		d->next[row + (size_t) c] = to;
	}
	states = q3_sets_get(&b->sets, set, &n);
	for (size_t i = 0; i < n; i++)
		if (b->nfa->accepts[states[i]])
			flags |= Q3_DFA_ACCEPTS;
	d->accepts[set] = flags;
	d->n_states = set + 1;
	return Q3_OK;
}

static q3_code
construct(builder *b, q3_error *err)
{
	int32_t start[1] = {0};
	q3_code code = Q3_OK;

	if (!find_live(b) || q3_sets_add(&b->sets, start, 1) < 0)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (!b->live[0])
		return q3_fail(err, Q3_ERR_INVALID, "nothing is accepted");
	find_classes(b);
	for (int32_t set = 0; set < b->sets.n && code == Q3_OK; set++)
	{
		if (b->sets.n > Q3_DFA_MAX_STATES)
			return q3_fail(err, Q3_ERR_UNSUPPORTED, "automaton is too large");
		code = add_row(b, set, err);
	}
	b->dfa->bytes =
	    (size_t) b->dfa->n_states * ((size_t) b->dfa->n_classes * sizeof(b->dfa->next[0]) + 1);
	return code;
}

q3_dfa *
q3_dfa_create(const q3_nfa *n, q3_error *err)
{
	builder b = {.nfa = n};
	q3_code code = Q3_OK;

	if (n->full)
	{
		q3_fail(err, Q3_ERR_UNSUPPORTED, "automaton is too large");
		return NULL;
	}
	b.dfa = calloc(1, sizeof(*b.dfa));
	b.edges = malloc((n->n_edges + 1) * sizeof(*b.edges));
	b.first = malloc(((size_t) n->n_states + 2) * sizeof(*b.first));
	b.live = calloc((size_t) n->n_states + 1, 1);
	if (n->failed || n->n_states == 0 || b.dfa == NULL || b.edges == NULL || b.first == NULL ||
	    b.live == NULL)
		code = q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (code == Q3_OK)
		code = construct(&b, err);
	q3_sets_free(&b.sets);
	free(b.edges);
	free(b.first);
	free(b.live);
	free(b.target);
	if (code == Q3_OK)
		return b.dfa;
	q3_dfa_free(b.dfa);
	return NULL;
}

void
q3_dfa_free(q3_dfa *d)
{
	if (d == NULL)
		return;
	free(d->next);
	free(d->accepts);
	free(d);
}
