/*
 * pattern_parse.c: from the text of a regular expression to a tree. See pattern_internal.h.
 */
#include "model/pattern_internal.h"

#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

#define MAX_NESTING 50
#define MAX_REPEAT 1000
#define MAX_TREE 20000

/* ---------------------------------------------------------------------------------------------
 * Errors
 * --------------------------------------------------------------------------------------------- */

void
q3_pattern_out_of_memory(q3_pattern *c)
{
	if (c->code == Q3_OK)
		c->code = q3_fail(c->err, Q3_ERR_MEMORY, "out of memory");
}

void
q3_pattern_too_large(q3_pattern *c)
{
	if (c->code == Q3_OK)
		c->code = q3_fail(c->err, Q3_ERR_UNSUPPORTED, "regular expression is too large");
}

static void
unsupported(q3_pattern *c, const char *what)
{
	if (c->code == Q3_OK)
		c->code =
		    q3_fail(c->err, Q3_ERR_INVALID, "%s is not supported in a regular expression", what);
}

void
q3_pattern_invalid(q3_pattern *c, const char *what)
{
	if (c->code == Q3_OK)
		c->code = q3_fail(c->err, Q3_ERR_INVALID, "invalid regular expression: %s", what);
}

/* ---------------------------------------------------------------------------------------------
 * Sets of characters
 * --------------------------------------------------------------------------------------------- */

void
q3_char_set_add(q3_pattern *c, q3_char_set *s, uint32_t low, uint32_t high)
{
	if (!q3_grow(&s->ranges, s->n, &s->capacity, sizeof(s->ranges[0])))
		q3_pattern_out_of_memory(c);
	else
		s->ranges[s->n++] = (q3_char_range){low, high};
}

static int
compare_ranges(const void *a, const void *b)
{
	const q3_char_range *x = a, *y = b;

	return (x->low > y->low) - (x->low < y->low);
}

static void
set_sort(q3_char_set *s)
{
	size_t n = 0;

	if (s->n > 1)
		qsort(s->ranges, s->n, sizeof(s->ranges[0]), compare_ranges);
	for (size_t i = 0; i < s->n; i++)
	{
		if (n > 0 && s->ranges[i].low <= s->ranges[n - 1].high + 1)
		{
			if (s->ranges[i].high > s->ranges[n - 1].high)
				s->ranges[n - 1].high = s->ranges[i].high;
		}
		else
			s->ranges[n++] = s->ranges[i];
	}
	s->n = n;
}

/* All but these: s becomes the complement within 0 .. Q3_LAST_CHAR. */
static void
set_invert(q3_pattern *c, q3_char_set *s)
{
	q3_char_set inverse = {0};
	uint32_t next = 0;

	set_sort(s);
	for (size_t i = 0; i < s->n; i++)
	{
		if (s->ranges[i].low > next)
			q3_char_set_add(c, &inverse, next, s->ranges[i].low - 1);
		next = s->ranges[i].high + 1;
	}
	if (next <= Q3_LAST_CHAR)
		q3_char_set_add(c, &inverse, next, Q3_LAST_CHAR);
	free(s->ranges);
	*s = inverse;
}

/* Takes the set over, without what a string of ours cannot hold; returns its number. */
int32_t
q3_char_set_keep(q3_pattern *c, q3_char_set *s)
{
	set_invert(c, s);
	q3_char_set_add(c, s, 0, 0);
	q3_char_set_add(c, s, 0xd800, 0xdfff);
	set_invert(c, s);
	if (!q3_grow(&c->sets, c->n_sets, &c->set_capacity, sizeof(c->sets[0])))
	{
		q3_pattern_out_of_memory(c);
		free(s->ranges);
		return 0;
	}
	c->sets[c->n_sets] = *s;
	return (int32_t) c->n_sets++;
}

/*
 * The characters of \d, \w, \s and their opposites. What counts as white space beyond ASCII differs
 * between dialects: it belongs to neither \s nor \S here.
 */
static void
add_class(q3_pattern *c, q3_char_set *s, uint32_t letter)
{
	static const q3_char_range spaces[] = {
	    {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x180e, 0x180e}, {0x2000, 0x200a},
	    {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
	q3_char_set class = {0};

	if (letter == 'd' || letter == 'D' || letter == 'w' || letter == 'W')
		q3_char_set_add(c, &class, '0', '9');
	if (letter == 'w' || letter == 'W')
	{
		q3_char_set_add(c, &class, 'A', 'Z');
		q3_char_set_add(c, &class, '_', '_');
		q3_char_set_add(c, &class, 'a', 'z');
	}
	if (letter == 's' || letter == 'S')
	{
		q3_char_set_add(c, &class, '\t', '\r');
		q3_char_set_add(c, &class, ' ', ' ');
	}
	for (size_t i = 0; letter == 'S' && i < sizeof(spaces) / sizeof(spaces[0]); i++)
		q3_char_set_add(c, &class, spaces[i].low, spaces[i].high);
	/* Other languages' letters and digits are in \w and \d for some: in \W and \D they are not. */
	if (letter == 'W' || letter == 'D')
		q3_char_set_add(c, &class, 0x80, Q3_LAST_CHAR);
	if (letter == 'D' || letter == 'W' || letter == 'S')
		set_invert(c, &class);
	for (size_t i = 0; i < class.n; i++)
		q3_char_set_add(c, s, class.ranges[i].low, class.ranges[i].high);
	free(class.ranges);
}

/* ---------------------------------------------------------------------------------------------
 * Parsing
 * --------------------------------------------------------------------------------------------- */

static int32_t parse_alternatives(q3_pattern *c);

static int32_t
tree_add(q3_pattern *c, q3_pattern_tree t)
{
	if (c->n_trees >= MAX_TREE)
		q3_pattern_too_large(c);
	else if (!q3_grow(&c->trees, c->n_trees, &c->tree_capacity, sizeof(c->trees[0])))
		q3_pattern_out_of_memory(c);
	else
	{
		c->trees[c->n_trees] = t;
		return (int32_t) c->n_trees++;
	}
	return 0;
}

static bool
next_is(q3_pattern *c, const char *text)
{
	size_t len = strlen(text);

	if ((size_t) (c->end - c->at) < len || memcmp(c->at, text, len) != 0)
		return false;
	c->at += len;
	return true;
}

static uint32_t
next_char(q3_pattern *c)
{
	uint32_t ch = 0;

	if (c->at == c->end)
		q3_pattern_invalid(c, "it ends too early");
	else
		c->at += q3_utf8_decode(c->at, c->end, &ch);
	if (ch == Q3_UTF8_INVALID)
	{
		q3_pattern_invalid(c, "it is not UTF-8");
		ch = 0;
	}
	return ch;
}

static uint32_t
hex_digits(q3_pattern *c, int n)
{
	uint32_t value = 0;

	for (int i = 0; i < n && c->code == Q3_OK; i++)
	{
		uint32_t ch = next_char(c);
		const char *digits = "0123456789abcdef";
		const char *at = ch < 128 && ch != 0 ? strchr(digits, (int) (ch | 0x20)) : NULL;

		if (ch >= '0' && ch <= '9')
			at = digits + (ch - '0');
		if (at == NULL)
			q3_pattern_invalid(c, "a hexadecimal digit is missing");
		else
			value = value * 16 + (uint32_t) (at - digits);
	}
	return value;
}

/*
 * What follows a backslash: a class is added to s (false), another character is in *ch (true).
 */
static bool
parse_escape(q3_pattern *c, q3_char_set *s, uint32_t *ch)
{
	char name[] = "escape \"\\?\"";
	uint32_t e = next_char(c);

	*ch = e;
	switch (e)
	{
		case 'd':
		case 'D':
		case 'w':
		case 'W':
		case 's':
		case 'S':
			add_class(c, s, e);
			return false;
		case 't':
			*ch = '\t';
			return true;
		case 'n':
			*ch = '\n';
			return true;
		case 'r':
			*ch = '\r';
			return true;
		case 'f':
			*ch = '\f';
			return true;
		case 'v':
			*ch = '\v';
			return true;
		case 'x':
			*ch = hex_digits(c, 2);
			return true;
		case 'u':
			*ch = hex_digits(c, 4);
			if (*ch >= 0xd800 && *ch <= 0xdfff)
				unsupported(c, "a surrogate");
			return true;
		default:
			if (e < 0x80 && !(e >= '0' && e <= '9') && !((e | 0x20) >= 'a' && (e | 0x20) <= 'z'))
				return true;
			name[9] = e < 0x80 ? (char) e : '?';
			unsupported(c, name);
			return true;
	}
}

/* One end of a range within [...]; false: it was a class, which is in s now. */
static bool
class_char(q3_pattern *c, q3_char_set *s, uint32_t *ch)
{
	if (c->end - c->at >= 2 && c->at[0] == '[' && strchr(":.=", c->at[1]) != NULL)
		unsupported(c, "a POSIX class");
	*ch = next_char(c);
	if (*ch != '\\')
		return true;
	if (next_is(c, "b"))
	{
		*ch = '\b';
		return true;
	}
	return parse_escape(c, s, ch);
}

/* Behind "[". */
static int32_t
parse_class(q3_pattern *c)
{
	q3_char_set s = {0};
	bool inverse = next_is(c, "^"), first = true;

	for (; c->code == Q3_OK && (first || c->at == c->end || *c->at != ']'); first = false)
	{
		uint32_t low, high;

		/* Empty in one dialect, a bracket in the other. */
		if (first && c->at != c->end && *c->at == ']')
			unsupported(c, "\"]\" at the beginning of a class");
		else if (class_char(c, &s, &low))
		{
			high = low;
			if (c->end - c->at >= 2 && c->at[0] == '-' && c->at[1] != ']')
			{
				c->at++;
				if (!class_char(c, &s, &high))
					q3_pattern_invalid(c, "a range ends with a class");
				else if (high < low)
					q3_pattern_invalid(c, "a range is out of order");
			}
			q3_char_set_add(c, &s, low, high);
		}
		else if (c->end - c->at >= 2 && c->at[0] == '-' && c->at[1] != ']')
			q3_pattern_invalid(c, "a range begins with a class");
	}
	if (c->code == Q3_OK)
		c->at++;
	if (inverse)
		set_invert(c, &s);
	return tree_add(c, (q3_pattern_tree){.kind = TREE_SET, .set = q3_char_set_keep(c, &s)});
}

/* Behind "(". */
static int32_t
parse_group(q3_pattern *c)
{
	int32_t inner = 0;

	if (c->at != c->end && *c->at == '*')
		unsupported(c, "a verb \"(*\"");
	if (next_is(c, "?") && !next_is(c, ":"))
	{
		if (c->at != c->end && (*c->at == '=' || *c->at == '!'))
			unsupported(c, "a lookahead");
		else if (c->end - c->at >= 2 && c->at[0] == '<' && (c->at[1] == '=' || c->at[1] == '!'))
			unsupported(c, "a lookbehind");
		else
			unsupported(c, "a group \"(?\" other than \"(?:\"");
	}
	if (++c->nesting > MAX_NESTING)
		q3_pattern_too_large(c);
	if (c->code == Q3_OK)
		inner = parse_alternatives(c);
	c->nesting--;
	if (c->code == Q3_OK && !next_is(c, ")"))
		q3_pattern_invalid(c, "a parenthesis is not closed");
	return inner;
}

static int32_t
parse_atom(q3_pattern *c)
{
	q3_char_set s = {0};
	uint32_t ch;

	if (next_is(c, "("))
		return parse_group(c);
	if (next_is(c, "["))
		return parse_class(c);
	if (next_is(c, "^"))
		return tree_add(c, (q3_pattern_tree){.kind = TREE_BEGIN});
	if (next_is(c, "$"))
		return tree_add(c, (q3_pattern_tree){.kind = TREE_END});
	if (next_is(c, "."))
	{
		/* Neither dialect's line ends. */
		q3_char_set_add(c, &s, '\n', '\n');
		q3_char_set_add(c, &s, '\r', '\r');
		q3_char_set_add(c, &s, 0x2028, 0x2029);
		set_invert(c, &s);
		return tree_add(c, (q3_pattern_tree){.kind = TREE_SET, .set = q3_char_set_keep(c, &s)});
	}
	ch = next_char(c);
	if (ch == '*' || ch == '+' || ch == '?' || ch == '{')
		q3_pattern_invalid(c, "a quantifier has nothing to repeat");
	else if (ch == ']' || ch == '}')
		q3_pattern_invalid(c, "a bracket is not escaped");
	else if (ch != '\\' || parse_escape(c, &s, &ch))
		q3_char_set_add(c, &s, ch, ch);
	return tree_add(c, (q3_pattern_tree){.kind = TREE_SET, .set = q3_char_set_keep(c, &s)});
}

/* Decimal digits, or -1 when there are none. */
static int32_t
parse_count(q3_pattern *c)
{
	int32_t n = -1;

	while (c->at != c->end && *c->at >= '0' && *c->at <= '9')
	{
		n = (n < 0 ? 0 : n) * 10 + (*c->at++ - '0');
		if (n > MAX_REPEAT)
		{
			q3_pattern_too_large(c);
			return n;
		}
	}
	return n;
}

/* Behind "{". */
static void
parse_bounds(q3_pattern *c, int32_t *min, int32_t *max)
{
	*min = *max = parse_count(c);
	if (next_is(c, ","))
		*max = parse_count(c);
	if (c->code == Q3_OK && (*min < 0 || !next_is(c, "}")))
		q3_pattern_invalid(c, "a quantifier in braces is not of the form {m}, {m,} or {m,n}");
	if (c->code == Q3_OK && *max >= 0 && *max < *min)
		q3_pattern_invalid(c, "a quantifier's bounds are out of order");
}

static int32_t
parse_repeated(q3_pattern *c)
{
	int32_t atom = parse_atom(c), min, max;

	for (bool quantified = false; c->code == Q3_OK; quantified = true)
	{
		if (next_is(c, "*"))
			min = 0, max = -1;
		else if (next_is(c, "+"))
			min = 1, max = -1;
		else if (next_is(c, "?"))
			min = 0, max = 1;
		else if (next_is(c, "{"))
			parse_bounds(c, &min, &max);
		else
			break;
		if (quantified)
			q3_pattern_invalid(c, "a quantifier follows another");
		if (c->trees[atom].kind == TREE_BEGIN || c->trees[atom].kind == TREE_END)
			q3_pattern_invalid(c, "an anchor is repeated");
		if (next_is(c, "+"))
			unsupported(c, "a possessive quantifier");
		next_is(c, "?"); /* lazy: the same texts match */
		atom = tree_add(
		    c, (q3_pattern_tree){.kind = TREE_REPEAT, .left = atom, .min = min, .max = max});
	}
	return atom;
}

static int32_t
parse_sequence(q3_pattern *c)
{
	int32_t left = tree_add(c, (q3_pattern_tree){.kind = TREE_EMPTY});

	while (c->code == Q3_OK && c->at != c->end && *c->at != '|' && *c->at != ')')
	{
		int32_t right = parse_repeated(c);

		left = tree_add(c, (q3_pattern_tree){.kind = TREE_CAT, .left = left, .right = right});
	}
	return left;
}

static int32_t
parse_alternatives(q3_pattern *c)
{
	int32_t left = parse_sequence(c);

	while (c->code == Q3_OK && next_is(c, "|"))
	{
		int32_t right = parse_sequence(c);

		left = tree_add(c, (q3_pattern_tree){.kind = TREE_ALT, .left = left, .right = right});
	}
	return left;
}

int32_t
q3_pattern_parse(q3_pattern *c)
{
	int32_t root = parse_alternatives(c);

	if (c->code == Q3_OK && c->at != c->end)
		q3_pattern_invalid(c, "a parenthesis is not opened");
	return root;
}
