/*
 * constraint.c: running a schema's program beside an answer.
 *
 * Where the answer is, is a set of places, because alternatives may begin alike. A place is a node
 * of the program, what that node has counted or its automaton's state, and a frame: where the
 * caller goes on. Frames form a tree that only grows while tokens are pushed; what is added to find
 * out what may come next is taken back. Every place is alive: it can be completed within the limit
 * of nesting.
 *
 * A mask is made by walking the tree of tokens from each place. Two walks would be long, and need
 * not be made again: within strings (the tree's own tables, only what closes the string depends on
 * what surrounds it), and within other automata that allow much (masks kept with the schema, under
 * its lock).
 */
#include "model/constraint.h"

#include <stdlib.h>
#include <string.h>

#include "model/schema_program.h"
#include "model/unicode.h"

/* Places at once, and steps of one mask: beyond, the schema is too ambiguous. */
#define MAX_PLACES 4096
#define MAX_STEPS 20000000
/* Walks that could be longer than this are worth keeping their result. */
#define LONG_WALK 8192
/* Longest forced text that is looked at at once, in bytes. */
#define MAX_FORCED 1024
/* As many next bytes are tried, to find out where forced text is cut into tokens. */
#define MAX_TRIED 16

typedef struct place
{
	uint32_t node, frame;
	int32_t count; /* STRING: characters; else what the rule at hand has counted */
	int32_t state; /* STRING, AUTOMATON */
} place;

/* Frame 0 is what called the root. */
typedef struct frame
{
	uint32_t node, parent;
	int32_t count;
	int32_t depth;
} frame;

typedef struct places
{
	place *items;
	size_t n, capacity;
} places;

struct q3_constraint
{
	q3_schema *schema;
	const q3_token_trie *trie;
	const uint8_t (*strings)[256];
	places now;
	places spare; /* the next set while it is made */
	places walk;  /* a stack of the sets of a walk */
	frame *frames;
	size_t n_frames, frame_capacity;
	size_t n_steps; /* of the mask that is being made */
	bool failed;
};

/* ---------------------------------------------------------------------------------------------
 * Places
 * --------------------------------------------------------------------------------------------- */

static bool
push_place(q3_constraint *c, places *set, place p)
{
	if (!q3_grow(&set->items, set->n, &set->capacity, sizeof(set->items[0])))
	{
		c->failed = true;
		return false;
	}
	set->items[set->n++] = p;
	return true;
}

/* Adds a place to set, of which the places from first on are the same set. */
static void
add_place(q3_constraint *c, places *set, size_t first, place p)
{
	const q3_node *n = &c->schema->nodes[p.node];

	if (c->frames[p.frame].depth + n->need > Q3_SCHEMA_MAX_NESTING || n->need == Q3_NEED_NEVER)
		return;
	for (size_t i = first; i < set->n; i++)
		if (memcmp(&set->items[i], &p, sizeof(p)) == 0)
			return;
	if (set->n - first >= MAX_PLACES)
		c->failed = true;
	else
		push_place(c, set, p);
}

/* A frame like this, if possible one of the newest ones. */
static uint32_t
frame_of(q3_constraint *c, frame f)
{
	size_t oldest = c->n_frames > 32 ? c->n_frames - 32 : 0;

	for (size_t i = c->n_frames; i-- > oldest;)
		if (memcmp(&c->frames[i], &f, sizeof(f)) == 0)
			return (uint32_t) i;
	if (!q3_grow(&c->frames, c->n_frames, &c->frame_capacity, sizeof(f)))
	{
		c->failed = true;
		return 0;
	}
	c->frames[c->n_frames] = f;
	return (uint32_t) c->n_frames++;
}

/* Beyond min, counting goes on only as far as there is a maximum. */
static int32_t
count_up(int32_t count, int32_t min, int32_t max)
{
	int32_t most = max != INT32_MAX ? max : min > 1 ? min : 1;

	return count < most ? count + 1 : count;
}

/* What the node of a place leads to without reading, if it is free. */
static void
follow(q3_constraint *c, places *set, size_t first, place p)
{
	const q3_node *n = &c->schema->nodes[p.node];
	frame f = c->frames[p.frame];
	place next = p;

	next.node = n->next;
	next.state = 0;
	switch ((q3_node_kind) n->kind)
	{
		case Q3_NODE_SPLIT:
			add_place(c, set, first, next);
			next.node = n->other;
			add_place(c, set, first, next);
			return;
		case Q3_NODE_JUMP:
			add_place(c, set, first, next);
			return;
		case Q3_NODE_CALL:
			next.frame = frame_of(
			    c, (frame){
			           .node = n->next, .parent = p.frame, .count = p.count, .depth = f.depth + 1});
			next.node = n->other;
			next.count = 0;
			add_place(c, set, first, next);
			return;
		case Q3_NODE_RETURN:
			next.node = f.node;
			next.count = f.count;
			next.frame = f.parent;
			add_place(c, set, first, next);
			return;
		case Q3_NODE_ARRAY:
			next.count = count_up(p.count, n->min, n->max);
			next.node = p.count == 0 ? n->next : n->other;
			if (p.count < n->max)
				add_place(c, set, first, next);
			next.node = n->close;
			next.count = 0;
			if (p.count >= n->min)
				add_place(c, set, first, next);
			return;
		default:
			return;
	}
}

static bool
is_free(const q3_constraint *c, place p)
{
	q3_node_kind kind = (q3_node_kind) c->schema->nodes[p.node].kind;

	return kind == Q3_NODE_SPLIT || kind == Q3_NODE_JUMP || kind == Q3_NODE_CALL ||
	       kind == Q3_NODE_RETURN || kind == Q3_NODE_ARRAY;
}

/*
 * Follows all free nodes of a set and takes them out. They stay in it until the end, so that
 * nothing is followed twice.
 */
static void
settle(q3_constraint *c, places *set, size_t first)
{
	size_t n = first;

	for (size_t i = first; i < set->n && !c->failed; i++)
		if (is_free(c, set->items[i]))
			follow(c, set, first, set->items[i]);
	if (c->failed)
		return;
	for (size_t i = first; i < set->n; i++)
		if (!is_free(c, set->items[i]))
			set->items[n++] = set->items[i];
	set->n = n;
}

/* The place behind a STRING or an AUTOMATON that has ended. */
static place
behind(const q3_constraint *c, place p)
{
	return (place){.node = c->schema->nodes[p.node].next, .frame = p.frame};
}

/*
 * What one more byte makes of a place that reads: *goes_on, and then p is still there, changed; or
 * true when what follows its node can come next.
 */
static bool
read_byte(const q3_constraint *c, place *p, uint8_t byte, bool *goes_on)
{
	const q3_node *n = &c->schema->nodes[p->node];
	uint8_t to;

	*goes_on = false;
	switch ((q3_node_kind) n->kind)
	{
		case Q3_NODE_BYTE:
			return n->byte == byte;
		case Q3_NODE_STRING:
			to = c->strings[p->state][byte];
			if (to == Q3_STRING_DEAD)
				return false;
			if (to == Q3_STRING_DONE)
				return p->count >= n->min;
			if (p->state == Q3_STRING_BODY)
			{
				if (p->count >= n->max)
					return false;
				p->count = count_up(p->count, n->min, n->max);
			}
			p->state = to;
			*goes_on = true;
			return false;
		case Q3_NODE_AUTOMATON:
		{
			const q3_dfa *d = c->schema->automata[n->other];
			int32_t state = q3_dfa_next(d, p->state, byte);

			if (state < 0)
				return false;
			p->state = state;
			*goes_on = d->accepts[state] & Q3_DFA_GOES_ON;
			return d->accepts[state] & Q3_DFA_ACCEPTS;
		}
		default:
			return false;
	}
}

/* The place behind p after it has been read to its end: the same rule goes on behind a BYTE. */
static place
after(const q3_constraint *c, place p)
{
	place next = behind(c, p);

	if (c->schema->nodes[p.node].kind == Q3_NODE_BYTE)
		next.count = p.count;
	return next;
}

/* Moves c->now over one byte. False: it cannot follow; c->now is undefined then. */
static bool
step(q3_constraint *c, uint8_t byte)
{
	places old = c->now;

	c->spare.n = 0;
	for (size_t i = 0; i < old.n; i++)
	{
		place p = old.items[i];
		bool goes_on, ended = read_byte(c, &p, byte, &goes_on);

		if (goes_on)
			add_place(c, &c->spare, 0, p);
		if (ended)
			add_place(c, &c->spare, 0, after(c, p));
	}
	settle(c, &c->spare, 0);
	c->now = c->spare;
	c->spare = old;
	return c->now.n > 0 && !c->failed;
}

/* ---------------------------------------------------------------------------------------------
 * Masks
 * --------------------------------------------------------------------------------------------- */

static void walk_place(q3_constraint *c, uint32_t node, place p, uint32_t *bits);

/* Walks from what one place leads to when it has ended at a node of the tree. */
static void
walk_behind(q3_constraint *c, uint32_t node, place p, uint32_t *bits)
{
	size_t first = c->walk.n;

	if (c->trie->end[node] == node + 1)
		return;
	add_place(c, &c->walk, first, p);
	settle(c, &c->walk, first);
	for (size_t i = first; i < c->walk.n && !c->failed; i++)
		walk_place(c, node, c->walk.items[i], bits);
	c->walk.n = first;
}

static void
walk_reading(q3_constraint *c, uint32_t node, place p, uint32_t *bits)
{
	const q3_token_trie *t = c->trie;

	for (uint32_t i = node + 1; i < t->end[node] && !c->failed; i = t->end[i])
	{
		place next = p;
		bool goes_on, ended = read_byte(c, &next, t->byte[i], &goes_on);

		c->n_steps++;
		if (!ended && !goes_on)
			continue;
		q3_token_trie_mark(t, i, bits);
		if (goes_on)
			walk_reading(c, i, next, bits);
		if (ended)
			walk_behind(c, i, after(c, next), bits);
	}
}

/* Behind the quote at each of the nodes: what follows the string is always the same. */
static void
walk_exits(q3_constraint *c, const q3_string_exit *exits, size_t n, place p, uint32_t *bits)
{
	const q3_node *string = &c->schema->nodes[p.node];
	size_t first = c->walk.n, n_places;

	add_place(c, &c->walk, first, behind(c, p));
	settle(c, &c->walk, first);
	n_places = c->walk.n;
	for (size_t i = 0; i < n && !c->failed; i++)
	{
		if (exits[i].chars > string->max - p.count || p.count + exits[i].chars < string->min)
			continue;
		for (size_t k = first; k < n_places; k++)
			walk_place(c, exits[i].node, c->walk.items[k], bits);
	}
	c->walk.n = first;
}

/* All tokens between two characters of a string, by the tree's tables. */
static void
walk_string(q3_constraint *c, place p, uint32_t *bits)
{
	const q3_token_trie *t = c->trie;
	const q3_node *n = &c->schema->nodes[p.node];
	int32_t room = n->max == INT32_MAX ? INT32_MAX : n->max - p.count;
	const uint32_t *body =
	    t->body + (size_t) (room < t->most_chars ? room : t->most_chars) * (size_t) t->n_words;

	for (int32_t i = 0; i < t->n_words; i++)
		bits[i] |= body[i];
	for (size_t i = 0; i < t->n_closing; i++)
		if (t->closing[i].chars <= room && p.count + t->closing[i].chars >= n->min)
			q3_token_trie_mark(t, t->closing[i].node, bits);
	walk_exits(c, t->exits, t->n_exits, p, bits);
}

/* ---------------------------------------------------------------------------------------------
 * Kept masks
 * --------------------------------------------------------------------------------------------- */

/* At most so many nodes does a walk from the root visit. */
static size_t
walk_bound(const q3_constraint *c, const q3_dfa *d, int32_t state)
{
	const q3_token_trie *t = c->trie;
	size_t n = 0;

	for (int byte = 0; byte < 256; byte++)
	{
		uint32_t child = t->child_of_root[byte];

		if (child != 0 && q3_dfa_next(d, state, (uint8_t) byte) >= 0)
			n += t->end[child] - child;
	}
	return n;
}

static q3_kept_mask *
find_kept(q3_schema *s, int32_t automaton, int32_t state)
{
	q3_kept_mask *k;

	pthread_mutex_lock(&s->lock);
	for (k = s->kept; k != NULL; k = k->next)
		if (k->automaton == automaton && k->state == state)
			break;
	pthread_mutex_unlock(&s->lock);
	return k;
}

static bool
fill_kept(const q3_constraint *c, q3_kept_mask *k, size_t *capacity, uint32_t node, int32_t state)
{
	const q3_token_trie *t = c->trie;
	const q3_dfa *d = c->schema->automata[k->automaton];

	for (uint32_t i = node + 1; i < t->end[node]; i = t->end[i])
	{
		int32_t to = q3_dfa_next(d, state, t->byte[i]);

		if (to < 0)
			continue;
		q3_token_trie_mark(t, i, k->bits);
		if (t->end[i] == i + 1)
			continue;
		if (d->accepts[to] & Q3_DFA_ACCEPTS)
		{
			if (!q3_grow(&k->exits, k->n_exits, capacity, sizeof(k->exits[0])))
				return false;
			k->exits[k->n_exits++] = i;
		}
		if (!fill_kept(c, k, capacity, i, to))
			return false;
	}
	return true;
}

static void
free_kept(q3_kept_mask *k)
{
	if (k == NULL)
		return;
	free(k->bits);
	free(k->exits);
	free(k);
}

/* NULL when out of memory. */
static q3_kept_mask *
make_kept(const q3_constraint *c, int32_t automaton, int32_t state)
{
	q3_kept_mask *k = calloc(1, sizeof(*k));
	size_t capacity = 0;

	if (k == NULL)
		return NULL;
	k->automaton = automaton;
	k->state = state;
	k->bits = calloc((size_t) c->trie->n_words, sizeof(*k->bits));
	if (k->bits != NULL && fill_kept(c, k, &capacity, 0, state))
		return k;
	free_kept(k);
	return NULL;
}

/* False when it is not kept after all: there are enough, or another thread was faster. */
static bool
keep(q3_schema *s, q3_kept_mask *k)
{
	bool room = true;

	pthread_mutex_lock(&s->lock);
	for (q3_kept_mask *other = s->kept; other != NULL; other = other->next)
		room = room && (other->automaton != k->automaton || other->state != k->state);
	room = room && s->n_kept < Q3_KEPT_MASKS;
	if (room)
	{
		k->next = s->kept;
		s->kept = k;
		s->n_kept++;
	}
	pthread_mutex_unlock(&s->lock);
	return room;
}

static void
walk_automaton(q3_constraint *c, place p, uint32_t *bits)
{
	int32_t automaton = (int32_t) c->schema->nodes[p.node].other;
	q3_kept_mask *k = find_kept(c->schema, automaton, p.state), *made = NULL;

	if (k == NULL)
	{
		k = made = make_kept(c, automaton, p.state);
		if (made != NULL && keep(c->schema, made))
			made = NULL;
	}
	if (k == NULL)
	{
		c->failed = true;
		return;
	}
	for (int32_t i = 0; i < c->trie->n_words; i++)
		bits[i] |= k->bits[i];
	for (size_t i = 0; i < k->n_exits && !c->failed; i++)
		walk_behind(c, k->exits[i], behind(c, p), bits);
	free_kept(made);
}

/* All tokens that begin behind a node of the tree and that the place can read. */
static void
walk_place(q3_constraint *c, uint32_t node, place p, uint32_t *bits)
{
	const q3_node *n = &c->schema->nodes[p.node];
	uint32_t child;

	c->failed = c->failed || ++c->n_steps > MAX_STEPS;
	if (n->kind == Q3_NODE_BYTE)
	{
		child = q3_token_trie_child(c->trie, node, n->byte);
		if (child == 0)
			return;
		q3_token_trie_mark(c->trie, child, bits);
		walk_behind(c, child, after(c, p), bits);
	}
	else if (node == 0 && n->kind == Q3_NODE_STRING && p.state == Q3_STRING_BODY)
		walk_string(c, p, bits);
	else if (node == 0 && n->kind == Q3_NODE_AUTOMATON &&
	         walk_bound(c, c->schema->automata[n->other], p.state) > LONG_WALK)
		walk_automaton(c, p, bits);
	else if (n->kind == Q3_NODE_STRING || n->kind == Q3_NODE_AUTOMATON)
		walk_reading(c, node, p, bits);
}

bool
q3_constraint_mask(q3_constraint *c, uint32_t *bits)
{
	size_t n_frames = c->n_frames;
	bool ok;

	memset(bits, 0, (size_t) c->trie->n_words * sizeof(*bits));
	c->n_steps = 0;
	for (size_t i = 0; i < c->now.n && !c->failed; i++)
		walk_place(c, 0, c->now.items[i], bits);
	if (q3_constraint_complete(c))
		for (int i = 0; i < c->trie->n_ends; i++)
			bits[c->trie->ends[i] / 32] |= UINT32_C(1) << (c->trie->ends[i] % 32);
	c->walk.n = 0;
	c->n_frames = n_frames;
	ok = !c->failed;
	c->failed = false;
	return ok;
}

/* ---------------------------------------------------------------------------------------------
 * Going on
 * --------------------------------------------------------------------------------------------- */

bool
q3_constraint_complete(const q3_constraint *c)
{
	for (size_t i = 0; i < c->now.n; i++)
		if (c->now.items[i].node == 0)
			return true;
	return false;
}

bool
q3_constraint_closed(const q3_constraint *c)
{
	return c->now.n == 1 && c->now.items[0].node == 0;
}

/* A copy of c->now, to come back to: whichever set is c->now then, it will have room for it. */
static bool
save(q3_constraint *c, places *copy)
{
	for (size_t i = 0; i < c->now.n && !c->failed; i++)
		push_place(c, copy, c->now.items[i]);
	while (!c->failed && c->spare.capacity < c->now.n)
		c->failed = !q3_grow(&c->spare.items, c->spare.capacity, &c->spare.capacity,
		                     sizeof(c->spare.items[0]));
	return !c->failed;
}

static void
restore(q3_constraint *c, const places *copy, size_t n_frames)
{
	c->now.n = copy->n;
	memcpy(c->now.items, copy->items, copy->n * sizeof(copy->items[0]));
	c->n_frames = n_frames;
	c->failed = false;
}

/* Moves over the bytes; false, and where it was, when they cannot follow. */
static bool
push_bytes(q3_constraint *c, const char *bytes, size_t len)
{
	places before = {0};
	size_t n_frames = c->n_frames;
	bool saved = save(c, &before), ok = saved && len > 0;

	for (size_t i = 0; ok && i < len; i++)
		ok = step(c, (uint8_t) bytes[i]);
	if (saved && !ok)
		restore(c, &before, n_frames);
	free(before.items);
	c->failed = false;
	return ok;
}

bool
q3_constraint_push(q3_constraint *c, int32_t token, const q3_tokenizer *tok)
{
	size_t len = 0;
	const char *bytes = q3_tokenizer_piece(tok, token, &len);

	for (int i = 0; i < c->trie->n_ends; i++)
		if (token == c->trie->ends[i])
			return q3_constraint_complete(c);
	return bytes != NULL && push_bytes(c, bytes, len);
}

/* ---------------------------------------------------------------------------------------------
 * Forced text
 * --------------------------------------------------------------------------------------------- */

/* The bytes that may come next, at most max of them; max + 1 when there are more. */
static int
next_bytes(const q3_constraint *c, uint8_t *bytes, int max)
{
	int n = 0;

	for (int byte = 0; byte < 256; byte++)
		for (size_t i = 0; i < c->now.n; i++)
		{
			place p = c->now.items[i];
			bool goes_on, ended = read_byte(c, &p, (uint8_t) byte, &goes_on);

			if (!ended && !goes_on)
				continue;
			if (n == max)
				return max + 1;
			bytes[n++] = (uint8_t) byte;
			break;
		}
	return n;
}

/* The only byte that can come next. */
static bool
only_byte(const q3_constraint *c, uint8_t *byte)
{
	const q3_node *n = c->now.n > 0 ? &c->schema->nodes[c->now.items[0].node] : NULL;

	if (c->now.n == 1 && n->kind == Q3_NODE_BYTE)
	{
		*byte = n->byte;
		return true;
	}
	return n != NULL && !q3_constraint_complete(c) && next_bytes(c, byte, 1) == 1;
}

/* Length of what is valid UTF-8 at the beginning of text. */
static size_t
valid_bytes(const char *text, size_t len)
{
	const uint8_t *s = (const uint8_t *) text;
	size_t at = 0;
	uint32_t ch;

	while (at < len)
	{
		size_t n = q3_utf8_decode(s + at, s + len, &ch);

		if (ch == Q3_UTF8_INVALID)
			break;
		at += n;
	}
	return at;
}

/*
 * How much of the forced text, with room for one more byte, is cut into the same tokens whatever
 * may follow.
 */
static size_t
certain_bytes(const q3_constraint *c, const q3_tokenizer *tok, char *text, size_t len)
{
	uint8_t next[MAX_TRIED];
	int n = MAX_TRIED + 1;
	size_t valid = valid_bytes(text, len), certain = len;

	if (q3_constraint_closed(c) && valid == len)
		return len;
	if (valid == len && !q3_constraint_complete(c))
		n = next_bytes(c, next, MAX_TRIED);
	if (n > MAX_TRIED)
		return q3_tokenizer_certain(tok, text, valid);
	for (int i = 0; i < n; i++)
	{
		size_t with_next;

		if (next[i] >= 0x80)
			return q3_tokenizer_certain(tok, text, len);
		text[len] = (char) next[i];
		with_next = q3_tokenizer_certain(tok, text, len + 1);
		certain = with_next < certain ? with_next : certain;
	}
	return certain;
}

/* The tokens of text at the end of out, if they give it back byte by byte. */
static bool
encode_exactly(const q3_tokenizer *tok, const char *text, size_t len, q3_tokens *out)
{
	size_t first = out->n, at = 0;

	if (q3_tokenizer_encode(tok, text, len, false, out, NULL) != Q3_OK)
	{
		out->n = first;
		return false;
	}
	for (size_t i = first; i < out->n; i++)
	{
		size_t n = 0;
		const char *piece = q3_tokenizer_piece(tok, out->ids[i], &n);

		if (piece == NULL || n > len - at || memcmp(piece, text + at, n) != 0)
			break;
		at += n;
	}
	if (at != len)
		out->n = first; /* normalisation has changed it */
	return true;
}

bool
q3_constraint_forced(q3_constraint *c, const q3_tokenizer *tok, q3_tokens *out)
{
	char text[MAX_FORCED + 1];
	places before = {0};
	size_t n_frames = c->n_frames, len = 0, certain = 0, first = out->n;
	uint8_t byte;
	bool ok;

	if (!only_byte(c, &byte))
		return true;
	ok = save(c, &before);
	for (; ok && len < MAX_FORCED && only_byte(c, &byte); len++)
	{
		text[len] = (char) byte;
		ok = step(c, byte);
	}
	if (ok)
		certain = certain_bytes(c, tok, text, len);
	restore(c, &before, n_frames);
	free(before.items);
	ok = ok && (certain == 0 || encode_exactly(tok, text, certain, out));
	if (ok && out->n > first)
		ok = push_bytes(c, text, certain);
	return ok;
}

/* ---------------------------------------------------------------------------------------------
 * Making and freeing
 * --------------------------------------------------------------------------------------------- */

q3_constraint *
q3_constraint_create(q3_schema *s, const q3_token_trie *t, q3_error *err)
{
	q3_constraint *c = calloc(1, sizeof(*c));

	/* Behind the root rule is node 0. */
	if (c == NULL || !q3_grow(&c->frames, 0, &c->frame_capacity, sizeof(c->frames[0])))
	{
		free(c);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	c->schema = s;
	c->trie = t;
	c->strings = q3_string_table();
	c->frames[0] = (frame){0};
	c->n_frames = 1;
	add_place(c, &c->now, 0, (place){.node = s->start});
	settle(c, &c->now, 0);
	if (!c->failed)
		return c;
	if (c->now.n >= MAX_PLACES)
		q3_fail(err, Q3_ERR_UNSUPPORTED, "JSON schema has too many alternatives");
	else
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	q3_constraint_free(c);
	return NULL;
}

void
q3_constraint_free(q3_constraint *c)
{
	if (c == NULL)
		return;
	free(c->now.items);
	free(c->spare.items);
	free(c->walk.items);
	free(c->frames);
	free(c);
}
