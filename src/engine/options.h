/*
 * options.h: command lines as tables.
 */
#ifndef Q3_OPTIONS_H
#define Q3_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum q3_option_kind
{
	Q3_OPT_FLAG,   /* bool */
	Q3_OPT_STRING, /* const char *, into argv */
	Q3_OPT_LIST,   /* q3_option_list: may be given again and again */
	Q3_OPT_INT,    /* int32_t, from min to max */
	Q3_OPT_U64,    /* uint64_t */
	Q3_OPT_REAL    /* double */
} q3_option_kind;

typedef struct q3_option_list
{
	const char **items; /* malloc'ed */
	int n;
} q3_option_list;

typedef struct q3_option
{
	const char *name;
	char letter; /* 0: long only */
	q3_option_kind kind;
	void *value;          /* keeps what it holds when the option is absent */
	bool *given;          /* may be NULL */
	int32_t min, max;     /* INT */
	const char *argument; /* "FILE"; NULL for flags */
	const char *help;
} q3_option;

typedef struct q3_command_line
{
	const char *name;     /* "generate" */
	const char *operands; /* "FILE"; "" for none */
	const char *summary;  /* one or more lines for --help */
	const q3_option *options;
	int n_options;
	int n_operands; /* required */
} q3_command_line;

/*
 * Parses argv[1..]; argv[0] is the tool's name. -1: go on, the operands are in operands[].
 * Otherwise the exit code: 0 after --help, 2 after a message about wrong usage.
 */
extern int q3_options_parse(const q3_command_line *c, int argc, char **argv, const char **operands);

#endif
