/*
 * number_range.h: numbers between two bounds as automata over their digits.
 *
 * Bounds are decimal text, as long as a JSON file may have them, so that nothing is lost on the
 * way through a double. Pure functions; any thread.
 */
#ifndef Q3_NUMBER_RANGE_H
#define Q3_NUMBER_RANGE_H

#include "model/automaton.h"

typedef struct q3_number_range
{
	const char *min, *max;     /* JSON numbers; NULL: none */
	bool above_min, below_max; /* the bound itself is outside */
	bool integer;
} q3_number_range;

/*
 * Integers are written without a point or an exponent, other numbers within bounds without an
 * exponent and with at most 15 digits behind the point (or one more than a bound has), all
 * compared digit by digit. Without a bound on one side there are at most 18 digits before the point
 * (or one more than the other bound has); numbers without any bound may have an exponent of two
 * digits. NULL and err: Q3_ERR_INVALID (a bound is no number, has more than 100 digits, or no
 * number is between them), Q3_ERR_MEMORY.
 */
extern q3_dfa *q3_number_range_compile(const q3_number_range *r, q3_error *err);

#endif
