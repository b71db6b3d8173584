/*
 * options.c: getopt_long() driven by a table; messages for wrong values; --help.
 *
 * For the command line only: it prints. Values point into argv, lists are malloc'ed for good.
 */
#include "engine/options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 24
#define HELP_COLUMN 30
/* What getopt_long returns for the i-th option of a table. */
#define FIRST_CODE 1000

static void
print_help(const q3_command_line *c)
{
	printf("Usage: qwen3dm-engine %s [OPTION]...%s%s\n\n%s\n\nOptions:\n", c->name,
	       c->operands[0] != '\0' ? " " : "", c->operands, c->summary);
	for (int i = 0; i < c->n_options; i++)
	{
		const q3_option *o = &c->options[i];
		char left[64];

		snprintf(left, sizeof(left), "  %c%c%s--%s%s%s", o->letter ? '-' : ' ',
		         o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
		         o->argument != NULL ? " " : "", o->argument != NULL ? o->argument : "");
		printf("%-*s %s\n", HELP_COLUMN, left, o->help);
	}
	printf("%-*s %s\n", HELP_COLUMN, "  -h, --help", "show this help");
}

static int
usage_error(const q3_command_line *c)
{
	fprintf(stderr, "Try \"qwen3dm-engine %s --help\" for more information.\n", c->name);
	return 2;
}

static bool
bad_value(const q3_option *o, const char *text, const char *expected)
{
	fprintf(stderr, "qwen3dm-engine: invalid value \"%s\" for option --%s: must be %s\n", text,
	        o->name, expected);
	return false;
}

static bool
parse_int(const q3_option *o, const char *text)
{
	char expected[80], *end;
	long v;

	errno = 0;
	v = strtol(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0 || v < o->min || v > o->max)
	{
		snprintf(expected, sizeof(expected), "an integer from %" PRId32 " to %" PRId32, o->min,
		         o->max);
		return bad_value(o, text, expected);
	}
	*(int32_t *) o->value = (int32_t) v;
	return true;
}

static bool
parse_u64(const q3_option *o, const char *text)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0)
		return bad_value(o, text, "an integer from 0 to 18446744073709551615");
	*(uint64_t *) o->value = v;
	return true;
}

static bool
parse_real(const q3_option *o, const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end != '\0' || !isfinite(v))
		return bad_value(o, text, "a number");
	*(double *) o->value = v;
	return true;
}

static bool
append(q3_option_list *list, const char *text)
{
	const char **items = realloc(list->items, sizeof(*items) * (size_t) (list->n + 1));

	if (items == NULL)
	{
		fprintf(stderr, "qwen3dm-engine: out of memory\n");
		return false;
	}
	items[list->n++] = text;
	list->items = items;
	return true;
}

static bool
set_option(const q3_option *o, const char *text)
{
	if (o->given != NULL)
		*o->given = true;
	switch (o->kind)
	{
		case Q3_OPT_FLAG:
			*(bool *) o->value = true;
			return true;
		case Q3_OPT_STRING:
			*(const char **) o->value = text;
			return true;
		case Q3_OPT_LIST:
			return append(o->value, text);
		case Q3_OPT_INT:
			return parse_int(o, text);
		case Q3_OPT_U64:
			return parse_u64(o, text);
		case Q3_OPT_REAL:
			return parse_real(o, text);
	}
	return false;
}

/* The table in getopt's own form. */
static void
fill_getopt(const q3_command_line *c, struct option *longs, char *shorts)
{
	for (int i = 0; i < c->n_options; i++)
	{
		const q3_option *o = &c->options[i];
		bool argument = o->kind != Q3_OPT_FLAG;

		longs[i] = (struct option){.name = o->name,
		                           .has_arg = argument ? required_argument : no_argument,
		                           .val = FIRST_CODE + i};
		if (o->letter != 0)
		{
			*shorts++ = o->letter;
			if (argument)
				*shorts++ = ':';
		}
	}
	longs[c->n_options] = (struct option){.name = "help", .val = 'h'};
	memset(&longs[c->n_options + 1], 0, sizeof(longs[0]));
	*shorts++ = 'h';
	*shorts = '\0';
}

static const q3_option *
find_option(const q3_command_line *c, int code)
{
	if (code >= FIRST_CODE)
		return &c->options[code - FIRST_CODE];
	for (int i = 0; i < c->n_options; i++)
		if (c->options[i].letter == code)
			return &c->options[i];
	return NULL;
}

int
q3_options_parse(const q3_command_line *c, int argc, char **argv, const char **operands)
{
	struct option longs[MAX_OPTIONS + 2];
	char shorts[2 * MAX_OPTIONS + 2], program[] = "qwen3dm-engine", *name = argv[0];
	int code;

	if (c->n_options > MAX_OPTIONS)
		return 2;
	fill_getopt(c, longs, shorts);
	argv[0] = program; /* whose name getopt's messages begin with */
	optind = 0;        /* getopt may have been used before */
	while ((code = getopt_long(argc, argv, shorts, longs, NULL)) != -1)
	{
		const q3_option *o = find_option(c, code);

		if (code == 'h')
		{
			print_help(c);
			argv[0] = name;
			return 0;
		}
		if (o == NULL || !set_option(o, optarg))
		{
			argv[0] = name;
			return usage_error(c);
		}
	}
	argv[0] = name;
	if (argc - optind != c->n_operands)
	{
		fprintf(stderr, "qwen3dm-engine: %s arguments for \"%s\"\n",
		        argc - optind < c->n_operands ? "missing" : "too many", c->name);
		return usage_error(c);
	}
	for (int i = 0; i < c->n_operands; i++)
		operands[i] = argv[optind + i];
	return -1;
}
