/*
 * number_range.c: comparing a number with two bounds while its digits are written.
 *
 * A state knows the sign, how many digits of the integer part there are (or how many behind the
 * point), and how the digits so far compare with as many of each bound's. When the integer part is
 * complete, its length decides, or those digits if the lengths are equal. States are numbered as
 * they are reached; what cannot be completed within the bounds falls away in q3_dfa_create().
 */
#include "model/number_range.h"

#include <stdlib.h>
#include <string.h>

#define MAX_DIGITS 100
#define INTEGER_DIGITS 18
#define FRACTION_DIGITS 15

/* A magnitude: digits before and behind the point, without leading or trailing zeros, but "0". */
typedef struct decimal
{
	bool present, negative, excluded;
	char whole[MAX_DIGITS + 2], fraction[MAX_DIGITS + 2];
	int n_whole, n_fraction;
} decimal;

typedef enum phase
{
	PHASE_START,
	PHASE_MINUS,
	PHASE_WHOLE,
	PHASE_ZERO,  /* the integer part is "0" */
	PHASE_POINT, /* just behind the point, or among the digits there */
	N_PHASES
} phase;

/* How the digits so far compare with a bound's. */
enum
{
	LESS,
	EQUAL,
	GREATER
};

typedef struct state
{
	uint8_t phase, negative, low, high; /* compared with the bounds of the magnitude */
	int16_t n;                          /* digits of this phase */
} state;

typedef struct builder
{
	/* Bounds of the magnitude, [0]: of positive numbers, [1]: of negative ones. */
	decimal low[2], high[2];
	bool possible[2];
	bool integer;
	int most_whole, most_fraction;
	q3_nfa nfa;
	int32_t *known; /* nfa states by index_of() */
	state *work;
	size_t n_work, work_capacity;
} builder;

/* ---------------------------------------------------------------------------------------------
 * Bounds
 * --------------------------------------------------------------------------------------------- */

/* Reads digits [point] digits [exponent]; false when it is no such number or too long. */
static bool
parse_decimal(const char *text, decimal *d)
{
	char digits[2 * MAX_DIGITS + 2];
	int n = 0, point = -1, first = 0;
	long exponent = 0;

	memset(d, 0, sizeof(*d));
	d->present = true;
	d->negative = *text == '-';
	for (text += d->negative; (*text >= '0' && *text <= '9') || *text == '.'; text++)
	{
		if (*text == '.' && point < 0)
			point = n;
		else if (*text == '.' || n == MAX_DIGITS)
			return false;
		else
			digits[n++] = *text;
	}
	if (*text == 'e' || *text == 'E')
	{
		char *end;

		exponent = strtol(text + 1, &end, 10);
		text = end;
	}
	if (*text != '\0' || n == 0)
		return false;
	while (first < n && digits[first] == '0')
		first++;
	while (n > first && digits[n - 1] == '0' && (point >= 0 && n > point))
		n--;
	if (first == n) /* zero */
	{
		d->negative = false;
		d->whole[d->n_whole++] = '0';
		return true;
	}
	if (exponent > MAX_DIGITS || exponent < -MAX_DIGITS)
		return false;
	/* The point stands before digits[point] now. */
	point = (point >= 0 ? point : n) + (int) exponent;
	if (point - first > MAX_DIGITS || n - point > MAX_DIGITS)
		return false;
	for (int i = first; i < point; i++)
		d->whole[d->n_whole++] = i < n ? digits[i] : '0';
	if (d->n_whole == 0)
		d->whole[d->n_whole++] = '0';
	for (int i = point; i < n; i++)
		d->fraction[d->n_fraction++] = i >= first ? digits[i] : '0';
	while (d->n_fraction > 0 && d->fraction[d->n_fraction - 1] == '0')
		d->n_fraction--;
	return true;
}

static q3_code
read_bound(const char *text, bool excluded, decimal *d, q3_error *err)
{
	memset(d, 0, sizeof(*d));
	if (text == NULL)
		return Q3_OK;
	if (!parse_decimal(text, d))
		return q3_fail(err, Q3_ERR_INVALID,
		               "a bound of a number is not a number of at most %d digits", MAX_DIGITS);
	d->excluded = excluded;
	return Q3_OK;
}

/* Bounds of the magnitudes on both sides of zero. -0 is left out. */
static void
split_bounds(builder *b, const decimal *min, const decimal *max)
{
	decimal zero = {.present = true, .whole = "0", .n_whole = 1};

	b->low[0] = min->present && !min->negative ? *min : zero;
	b->high[0] = *max;
	b->possible[0] = !max->present || !max->negative;
	zero.excluded = true;
	b->low[1] = max->present && max->negative ? *max : zero;
	b->high[1] = *min;
	b->possible[1] = !min->present || min->negative;
}

static int
larger(int a, int b)
{
	return a > b ? a : b;
}

static void
set_lengths(builder *b, const decimal *min, const decimal *max)
{
	b->most_whole = larger(min->n_whole, max->n_whole);
	if (!min->present || !max->present)
		b->most_whole = larger(INTEGER_DIGITS, b->most_whole + (min->present || max->present));
	b->most_fraction = larger(FRACTION_DIGITS, larger(min->n_fraction, max->n_fraction) + 1);
	if (b->integer)
		b->most_fraction = 0;
}

/* ---------------------------------------------------------------------------------------------
 * States
 * --------------------------------------------------------------------------------------------- */

/* The comparison after one more digit behind n others. */
static uint8_t
compare_digit(const char *digits, int n_digits, int n, uint8_t so_far, char digit)
{
	char other = n < n_digits ? digits[n] : '0';

	if (so_far != EQUAL || digit == other)
		return so_far;
	return digit < other ? LESS : GREATER;
}

/* The comparison once the integer part is complete: its length counts first. */
static uint8_t
compare_whole(const decimal *bound, int n, uint8_t so_far)
{
	if (n != bound->n_whole)
		return n < bound->n_whole ? LESS : GREATER;
	return so_far;
}

/* s at the point or at the number's end. */
static state
complete_whole(const builder *b, state s)
{
	s.low = compare_whole(&b->low[s.negative], s.n, s.low);
	if (b->high[s.negative].present)
		s.high = compare_whole(&b->high[s.negative], s.n, s.high);
	return s;
}

static bool
may_end(const builder *b, state s)
{
	const decimal *low = &b->low[s.negative], *high = &b->high[s.negative];

	if (s.phase == PHASE_START || s.phase == PHASE_MINUS || (s.phase == PHASE_POINT && s.n == 0))
		return false;
	if (s.phase != PHASE_POINT)
		s = complete_whole(b, s);
	/* Digits of the bound that have not been compared count if the others are equal. */
	if (s.low == EQUAL && low->n_fraction > (s.phase == PHASE_POINT ? s.n : 0))
		s.low = LESS;
	if (s.high == EQUAL && high->n_fraction > (s.phase == PHASE_POINT ? s.n : 0))
		s.high = LESS;
	if (s.low == LESS || (s.low == EQUAL && low->excluded))
		return false;
	return !high->present || s.high == LESS || (s.high == EQUAL && !high->excluded);
}

static size_t
index_of(const builder *b, state s)
{
	size_t longest = (size_t) larger(b->most_whole, b->most_fraction) + 1;

	return ((((size_t) s.phase * 2 + s.negative) * 3 + s.low) * 3 + s.high) * longest +
	       (size_t) s.n;
}

static size_t
n_indexes(const builder *b)
{
	return (size_t) N_PHASES * 2 * 9 * ((size_t) larger(b->most_whole, b->most_fraction) + 1);
}

static void
go(builder *b, int32_t from, char byte, state to)
{
	size_t index = index_of(b, to);

	if (b->known[index] == 0)
	{
		if (!q3_grow(&b->work, b->n_work, &b->work_capacity, sizeof(b->work[0])))
		{
			b->nfa.failed = true;
			return;
		}
		b->known[index] = q3_nfa_state(&b->nfa, may_end(b, to));
		b->work[b->n_work++] = to;
	}
	q3_nfa_edge_add(&b->nfa, from, (uint8_t) byte, (uint8_t) byte, b->known[index]);
}

static void
add_digits(builder *b, int32_t from, state s)
{
	const decimal *low = &b->low[s.negative], *high = &b->high[s.negative];
	bool point = s.phase == PHASE_POINT;

	for (char digit = '0'; digit <= '9'; digit++)
	{
		state to = s;

		if (point)
		{
			to.low = compare_digit(low->fraction, low->n_fraction, s.n, s.low, digit);
			to.high = compare_digit(high->fraction, high->n_fraction, s.n, s.high, digit);
		}
		else
		{
			to.phase = digit == '0' && s.phase != PHASE_WHOLE ? PHASE_ZERO : PHASE_WHOLE;
			to.low = compare_digit(low->whole, low->n_whole, s.n, s.low, digit);
			to.high = compare_digit(high->whole, high->n_whole, s.n, s.high, digit);
		}
		to.n++;
		go(b, from, digit, to);
	}
}

static void
add_edges(builder *b, state s)
{
	int32_t from = b->known[index_of(b, s)];

	if (s.phase == PHASE_START && b->possible[1])
		go(b, from, '-', (state){.phase = PHASE_MINUS, .negative = 1, .low = EQUAL, .high = EQUAL});
	if ((s.phase == PHASE_START && b->possible[0]) || s.phase == PHASE_MINUS ||
	    (s.phase == PHASE_WHOLE && s.n < b->most_whole) ||
	    (s.phase == PHASE_POINT && s.n < b->most_fraction))
		add_digits(b, from, s);
	if ((s.phase == PHASE_WHOLE || s.phase == PHASE_ZERO) && b->most_fraction > 0)
	{
		state to = complete_whole(b, s);

		to.phase = PHASE_POINT;
		to.n = 0;
		go(b, from, '.', to);
	}
}

/* The first state, which nothing leads back to (so that 0 may mean none), and all others. */
static void
add_states(builder *b)
{
	state start = {.phase = PHASE_START, .low = EQUAL, .high = EQUAL};

	q3_nfa_state(&b->nfa, false);
	if (!b->nfa.failed)
		add_edges(b, start);
	while (b->n_work > 0)
		add_edges(b, b->work[--b->n_work]);
}

/* -?(0|[1-9]digits)(.digits)?([eE][+-]?digit digit?)? for numbers without bounds. */
static void
add_exponents(q3_nfa *n, int32_t n_states)
{
	int32_t e = q3_nfa_state(n, false), sign = q3_nfa_state(n, false);
	int32_t digit = q3_nfa_state(n, true), last = q3_nfa_state(n, true);

	for (int32_t i = 0; i < n_states; i++)
		if (n->accepts[i])
		{
			q3_nfa_edge_add(n, i, 'e', 'e', e);
			q3_nfa_edge_add(n, i, 'E', 'E', e);
		}
	q3_nfa_edge_add(n, e, '+', '+', sign);
	q3_nfa_edge_add(n, e, '-', '-', sign);
	q3_nfa_edge_add(n, e, '0', '9', digit);
	q3_nfa_edge_add(n, sign, '0', '9', digit);
	q3_nfa_edge_add(n, digit, '0', '9', last);
}

q3_dfa *
q3_number_range_compile(const q3_number_range *r, q3_error *err)
{
	builder *b = calloc(1, sizeof(*b));
	decimal min, max;
	q3_dfa *dfa = NULL;

	if (b == NULL)
	{
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	if (read_bound(r->min, r->above_min, &min, err) == Q3_OK &&
	    read_bound(r->max, r->below_max, &max, err) == Q3_OK)
	{
		b->integer = r->integer;
		split_bounds(b, &min, &max);
		set_lengths(b, &min, &max);
		b->known = calloc(n_indexes(b), sizeof(*b->known));
		b->nfa.failed = b->known == NULL;
		add_states(b);
		if (r->min == NULL && r->max == NULL && !r->integer)
			add_exponents(&b->nfa, b->nfa.n_states);
		dfa = q3_dfa_create(&b->nfa, err);
	}
	q3_nfa_free(&b->nfa);
	free(b->known);
	free(b->work);
	free(b);
	return dfa;
}
