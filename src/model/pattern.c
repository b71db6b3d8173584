/*
 * pattern.c: from a regular expression to an automaton over bytes.
 *
 * The expression becomes a tree (pattern_parse.c), the tree edges between states (Thompson's
 * construction, counted repetitions written out), these an automaton over characters (subset
 * construction), and this, with a count of characters where the length is limited, one over the
 * bytes of UTF-8 and JSON's escapes. All memory is freed before the function returns, but for the
 * result.
 */
#include "model/pattern_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

#define MAX_PATTERN 4096
#define MAX_NFA 50000
#define MAX_CHAR_STATES 5000

/* ---------------------------------------------------------------------------------------------
 * From the tree to edges
 * --------------------------------------------------------------------------------------------- */

static int32_t
link_add(q3_pattern *c, q3_pattern_kind kind, int32_t set, int32_t a, int32_t b)
{
	if (c->n_links >= MAX_NFA)
		q3_pattern_too_large(c);
	else if (!q3_grow(&c->links, c->n_links, &c->link_capacity, sizeof(c->links[0])))
		q3_pattern_out_of_memory(c);
	else
	{
		c->links[c->n_links] = (q3_pattern_link){.kind = kind, .set = set, .out = {a, b}};
		return (int32_t) c->n_links++;
	}
	return 0;
}

static int32_t link_tree(q3_pattern *c, int32_t t, int32_t to);

static int32_t
link_repeat(q3_pattern *c, const q3_pattern_tree *t, int32_t to)
{
	int32_t at = to;

	if (t->max < 0)
	{
		at = link_add(c, TREE_EMPTY, 0, to, -1); /* the loop: again, or on */
		if (c->code == Q3_OK)
		{
			int32_t body = link_tree(c, t->left, at);

			c->links[at].out[1] = body;
		}
	}
	for (int32_t i = t->max; i > t->min && c->code == Q3_OK; i--)
	{
		int32_t body = link_tree(c, t->left, at);

		at = link_add(c, TREE_EMPTY, 0, body, to);
	}
	for (int32_t i = 0; i < t->min && c->code == Q3_OK; i++)
		at = link_tree(c, t->left, at);
	return at;
}

/* The first state of edges that read what the tree matches, and go on to a state. */
static int32_t
link_tree(q3_pattern *c, int32_t index, int32_t to)
{
	q3_pattern_tree t = c->trees[index];
	int32_t left, right;

	if (c->code != Q3_OK)
		return 0;
	switch (t.kind)
	{
		case TREE_SET:
			return link_add(c, TREE_SET, t.set, to, -1);
		case TREE_CAT:
			return link_tree(c, t.left, link_tree(c, t.right, to));
		case TREE_ALT:
			left = link_tree(c, t.left, to);
			right = link_tree(c, t.right, to);
			return link_add(c, TREE_EMPTY, 0, left, right);
		case TREE_REPEAT:
			return link_repeat(c, &t, to);
		case TREE_BEGIN:
		case TREE_END:
			return link_add(c, t.kind, 0, to, -1);
		case TREE_EMPTY:
			break;
	}
	return to;
}

/* The whole expression, with any text before and behind it. Returns the first state. */
static int32_t
link_all(q3_pattern *c, int32_t root)
{
	q3_char_set any = {0};
	int32_t set, behind, before, start;

	q3_char_set_add(c, &any, 0, Q3_LAST_CHAR);
	set = q3_char_set_keep(c, &any);
	c->accept = link_add(c, TREE_EMPTY, 0, -1, -1);
	behind = link_add(c, TREE_EMPTY, 0, c->accept, -1);
	if (c->code != Q3_OK)
		return 0;
	before = link_add(c, TREE_SET, set, behind, -1);
	c->links[behind].out[1] = before;
	start = link_add(c, TREE_EMPTY, 0, link_tree(c, root, behind), -1);
	before = link_add(c, TREE_SET, set, start, -1);
	if (c->code == Q3_OK)
		c->links[start].out[1] = before;
	return start;
}

/* ---------------------------------------------------------------------------------------------
 * The automaton over characters
 * --------------------------------------------------------------------------------------------- */

static int
compare_cuts(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

	return (x > y) - (x < y);
}

static void
add_cut(q3_pattern *c, uint32_t at)
{
	if (!q3_grow(&c->cuts, c->n_cuts, &c->cut_capacity, sizeof(c->cuts[0])))
		q3_pattern_out_of_memory(c);
	else
		c->cuts[c->n_cuts++] = at;
}

static void
find_cuts(q3_pattern *c)
{
	size_t n = 0;

	add_cut(c, 0);
	add_cut(c, Q3_LAST_CHAR + 1);
	for (size_t i = 0; i < c->n_sets; i++)
		for (size_t k = 0; k < c->sets[i].n; k++)
		{
			add_cut(c, c->sets[i].ranges[k].low);
			add_cut(c, c->sets[i].ranges[k].high + 1);
		}
	if (c->code != Q3_OK)
		return;
	qsort(c->cuts, c->n_cuts, sizeof(c->cuts[0]), compare_cuts);
	for (size_t i = 0; i < c->n_cuts; i++)
		if (n == 0 || c->cuts[n - 1] != c->cuts[i])
			c->cuts[n++] = c->cuts[i];
	c->n_cuts = n;
}

static bool
in_set(const q3_char_set *s, uint32_t ch)
{
	size_t low = 0, high = s->n;

	while (low < high)
	{
		size_t mid = (low + high) / 2;

		if (s->ranges[mid].high < ch)
			low = mid + 1;
		else
			high = mid;
	}
	return low < s->n && s->ranges[low].low <= ch;
}

static void
visit(q3_pattern *c, int32_t state)
{
	if (state < 0 || c->seen[state])
		return;
	c->seen[state] = 1;
	c->work[c->n_work++] = state;
}

/* Follows free edges from what is in c->work; those of anchors only where they hold. */
static void
close_over(q3_pattern *c, bool at_begin, bool at_end)
{
	for (size_t i = 0; i < c->n_work; i++)
	{
		const q3_pattern_link *l = &c->links[c->work[i]];

		if (l->kind == TREE_EMPTY || (l->kind == TREE_BEGIN && at_begin) ||
		    (l->kind == TREE_END && at_end))
		{
			visit(c, l->out[0]);
			visit(c, l->out[1]);
		}
	}
}

/* Number of the set in c->work, which becomes empty; of it only what can still go on is kept. */
static int32_t
take_state(q3_pattern *c)
{
	size_t n = 0;
	int32_t state;

	for (size_t i = 0; i < c->n_work; i++)
	{
		const q3_pattern_link *l = &c->links[c->work[i]];

		c->seen[c->work[i]] = 0;
		if (l->kind == TREE_SET || l->kind == TREE_END || c->work[i] == c->accept)
			c->work[n++] = c->work[i];
	}
	state = n > 0 ? q3_sets_add(&c->states, c->work, n) : -1;
	if (n > 0 && state < 0)
		q3_pattern_out_of_memory(c);
	c->n_work = 0;
	if (c->states.n > MAX_CHAR_STATES)
		q3_pattern_too_large(c);
	return state;
}

/* True when the text may end in the state. */
static bool
may_end(q3_pattern *c, int32_t state, bool at_begin)
{
	size_t n;
	const int32_t *links = q3_sets_get(&c->states, state, &n);
	bool end;

	for (size_t i = 0; i < n; i++)
		visit(c, links[i]);
	close_over(c, at_begin, true);
	end = c->seen[c->accept];
	for (size_t i = 0; i < c->n_work; i++)
		c->seen[c->work[i]] = 0;
	c->n_work = 0;
	return end;
}

static int32_t
after_char(q3_pattern *c, int32_t state, uint32_t ch)
{
	size_t n;
	const int32_t *links = q3_sets_get(&c->states, state, &n);

	for (size_t i = 0; i < n; i++)
	{
		const q3_pattern_link *l = &c->links[links[i]];

		if (l->kind == TREE_SET && in_set(&c->sets[l->set], ch))
			visit(c, l->out[0]);
	}
	close_over(c, false, false);
	return take_state(c);
}

/* All states and their rows. A link of its own keeps the first apart: only there ^ holds. */
static void
build_states(q3_pattern *c, int32_t start)
{
	int32_t mark = link_add(c, TREE_END, 0, -1, -1);
	size_t n_intervals;

	c->seen = calloc(c->n_links + 1, 1);
	c->work = malloc((c->n_links + 1) * sizeof(c->work[0]));
	find_cuts(c);
	if (c->seen == NULL || c->work == NULL)
		q3_pattern_out_of_memory(c);
	if (c->code != Q3_OK)
		return;
	n_intervals = c->n_cuts - 1;
	visit(c, start);
	visit(c, mark);
	close_over(c, true, false);
	take_state(c);
	for (int32_t s = 0; s < c->states.n && c->code == Q3_OK; s++)
	{
		while (c->code == Q3_OK && c->next_capacity < (size_t) (s + 1) * n_intervals)
			if (!q3_grow(&c->next, c->next_capacity, &c->next_capacity, sizeof(c->next[0])))
				q3_pattern_out_of_memory(c);
		if (!q3_grow(&c->accepts, (size_t) s, &c->accept_capacity, 1))
			q3_pattern_out_of_memory(c);
		if (c->code != Q3_OK)
			return;
		c->accepts[s] = may_end(c, s, s == 0);
		for (size_t i = 0; i < n_intervals; i++)
			c->next[(size_t) s * n_intervals + i] = after_char(c, s, c->cuts[i]);
	}
}

/* ---------------------------------------------------------------------------------------------
 * From characters to bytes
 * --------------------------------------------------------------------------------------------- */

size_t
q3_json_escape(uint32_t ch, char *out)
{
	static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs */

	for (size_t i = 0; i + 1 < sizeof(shorts); i += 2)
		if (ch == (uint8_t) shorts[i])
		{
			out[0] = '\\';
			out[1] = shorts[i + 1];
			return 2;
		}
	if (ch < 0x20)
	{
		char text[7];

		snprintf(text, sizeof(text), "\\u%04x", (unsigned) ch);
		memcpy(out, text, 6);
		return 6;
	}
	return q3_utf8_encode(ch, (uint8_t *) out);
}

/* States of the result that lead to one state by one, two or three more bytes of a character. */
typedef struct tails
{
	int32_t to;
	int32_t state[4]; /* by the number of bytes; 0: not yet made */
} tails;

static int32_t
tail_of(q3_nfa *n, tails *t, int more)
{
	if (more == 0)
		return t->to;
	if (t->state[more] == 0)
	{
		int32_t state = q3_nfa_state(n, false);

		t->state[more] = state;
		q3_nfa_edge_add(n, state, 0x80, 0xbf, tail_of(n, t, more - 1));
	}
	return t->state[more];
}

/*
 * Edges for the characters of a range whose encodings have the same length: where two ends agree in
 * all bits that follow, one edge per byte is enough; else the range is split.
 */
static void
add_encoded(q3_nfa *n, int32_t from, uint32_t low, uint32_t high, tails *t)
{
	uint8_t a[4], b[4];
	int len = (int) q3_utf8_encode(low, a);

	q3_utf8_encode(high, b);
	for (int i = 1; i < len; i++)
	{
		uint32_t m = (1u << (6 * i)) - 1; /* the bits of the last i bytes */

		if ((low & ~m) == (high & ~m))
			continue;
		if ((low & m) != 0)
		{
			add_encoded(n, from, low, low | m, t);
			add_encoded(n, from, (low | m) + 1, high, t);
			return;
		}
		if ((high & m) != m)
		{
			add_encoded(n, from, low, (high & ~m) - 1, t);
			add_encoded(n, from, high & ~m, high, t);
			return;
		}
	}
	for (int i = 0; i < len; i++)
	{
		bool any = true;
		int32_t to;

		for (int k = i + 1; k < len; k++)
			any = any && a[k] == 0x80 && b[k] == 0xbf;
		to = any ? tail_of(n, t, len - 1 - i) : q3_nfa_state(n, false);
		q3_nfa_edge_add(n, from, a[i], b[i], to);
		if (any)
			return;
		from = to;
	}
}

/* Edges for all characters of a range. */
static void
add_range(q3_nfa *n, int32_t from, uint32_t low, uint32_t high, tails *t)
{
	static const uint32_t last[] = {0x7f, 0x7ff, 0xffff, Q3_LAST_CHAR};

	for (; low <= high && (low < 0x20 || low == '"' || low == '\\'); low++)
	{
		char text[6];
		size_t len = q3_json_escape(low, text);
		int32_t state = q3_nfa_text(n, from, text, len - 1);

		q3_nfa_edge_add(n, state, (uint8_t) text[len - 1], (uint8_t) text[len - 1], t->to);
	}
	for (int i = 0; i < 4 && low <= high; i++)
	{
		uint32_t end = high < last[i] ? high : last[i];

		if (low < '"' && end >= '"')
			end = '"' - 1;
		else if (low < '\\' && end >= '\\')
			end = '\\' - 1;
		if (low > end)
			continue;
		add_encoded(n, from, low, end, t);
		if (end < last[i] && end < high)
		{
			add_range(n, from, end + 1, high, t);
			return;
		}
		low = end + 1;
	}
}

/* A state of the automaton over characters after a number of them. */
typedef struct counted
{
	int32_t state, count, nfa;
} counted;

typedef struct expansion
{
	q3_pattern *c;
	q3_nfa nfa;
	int32_t min, max;
	int32_t n_counts; /* counts that are told apart: 0 .. n_counts - 1 */
	counted *work;
	size_t n_work, work_capacity;
	int32_t *known; /* [state][count]: nfa state, 0: none */
	tails *tails;   /* [state][count] */
	int32_t done;   /* behind the closing quote */
} expansion;

static size_t
cell_of(const expansion *x, int32_t state, int32_t count)
{
	return (size_t) state * (size_t) x->n_counts + (size_t) count;
}

/* The state of the result for a state after so many characters; -1: that is too many. */
static int32_t
reach(expansion *x, int32_t state, int32_t count)
{
	size_t cell;

	if (count > x->max)
		return -1;
	if (count >= x->n_counts) /* there is no upper limit, and the lower one is reached */
		count = x->n_counts - 1;
	cell = cell_of(x, state, count);
	if (x->known[cell] == 0)
	{
		if (!q3_grow(&x->work, x->n_work, &x->work_capacity, sizeof(x->work[0])))
		{
			q3_pattern_out_of_memory(x->c);
			return -1;
		}
		x->known[cell] = q3_nfa_state(&x->nfa, false);
		x->tails[cell].to = x->known[cell];
		x->work[x->n_work++] = (counted){state, count, x->known[cell]};
	}
	return x->known[cell];
}

static void
expand_state(expansion *x, const counted *at)
{
	q3_pattern *c = x->c;
	size_t n = c->n_cuts - 1;
	const int32_t *row = c->next + (size_t) at->state * n;

	if (c->accepts[at->state] && at->count >= x->min)
		q3_nfa_edge_add(&x->nfa, at->nfa, '"', '"', x->done);
	for (size_t i = 0, k; i < n; i = k)
	{
		for (k = i + 1; k < n && row[k] == row[i]; k++)
			;
		if (row[i] >= 0 && reach(x, row[i], at->count + 1) >= 0)
		{
			int32_t count = at->count + 1 < x->n_counts ? at->count + 1 : x->n_counts - 1;

			add_range(&x->nfa, at->nfa, c->cuts[i], c->cuts[k] - 1,
			          &x->tails[cell_of(x, row[i], count)]);
		}
	}
}

static q3_dfa *
expand(q3_pattern *c, int32_t min, int32_t max)
{
	expansion x = {.c = c, .min = min, .max = max};
	size_t cells;
	int32_t start;
	q3_dfa *dfa = NULL;

	x.n_counts = (max != Q3_NO_LIMIT ? max : min) + 1;
	cells = (size_t) c->states.n * (size_t) x.n_counts;
	if (cells > Q3_NFA_MAX_STATES)
	{
		q3_pattern_too_large(c);
		return NULL;
	}
	x.known = calloc(cells, sizeof(*x.known));
	x.tails = calloc(cells, sizeof(*x.tails));
	start = q3_nfa_state(&x.nfa, false);
	x.done = q3_nfa_state(&x.nfa, true);
	if (x.known == NULL || x.tails == NULL)
		q3_pattern_out_of_memory(c);
	else
		q3_nfa_edge_add(&x.nfa, start, '"', '"', reach(&x, 0, 0));
	for (size_t i = 0; i < x.n_work && c->code == Q3_OK && !x.nfa.full; i++)
	{
		counted at = x.work[i];

		expand_state(&x, &at);
	}
	if (c->code == Q3_OK)
		dfa = q3_dfa_create(&x.nfa, c->err);
	q3_nfa_free(&x.nfa);
	free(x.known);
	free(x.tails);
	free(x.work);
	return dfa;
}

q3_dfa *
q3_pattern_compile(q3_str pattern, int32_t min, int32_t max, q3_error *err)
{
	q3_pattern c = {.at = (const uint8_t *) pattern.data,
	                .end = (const uint8_t *) pattern.data + pattern.len,
	                .err = err};
	q3_dfa *dfa = NULL;
	int32_t root;

	if (pattern.len > MAX_PATTERN)
		q3_pattern_too_large(&c);
	root = c.code == Q3_OK ? q3_pattern_parse(&c) : 0;
	if (c.code == Q3_OK)
		root = link_all(&c, root);
	if (c.code == Q3_OK)
		build_states(&c, root);
	if (c.code == Q3_OK)
		dfa = expand(&c, min, max);
	for (size_t i = 0; i < c.n_sets; i++)
		free(c.sets[i].ranges);
	free(c.sets);
	free(c.trees);
	free(c.links);
	free(c.cuts);
	free(c.next);
	free(c.accepts);
	free(c.seen);
	free(c.work);
	q3_sets_free(&c.states);
	return dfa;
}
