/*
 * main.c: qwen3dm-engine's command line: picks the tool.
 */
#include <stdio.h>
#include <string.h>

#include "engine/tools.h"

#ifndef Q3_VERSION
#define Q3_VERSION "0.1.0"
#endif

static const struct
{
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} tools[] = {
    {"serve", q3_tool_serve, "serve a model on a Unix socket (started by the extension)"},
    {"inspect", q3_tool_inspect, "say what a GGUF file holds and whether it can be run"},
    {"tokenize", q3_tool_tokenize, "text on stdin to token ids"},
    {"detokenize", q3_tool_detokenize, "token ids on stdin to text"},
    {"logits", q3_tool_logits, "logits for a list of tokens"},
    {"generate", q3_tool_generate, "answer one prompt"},
    {"embed", q3_tool_embed, "texts as vectors"},
    {"bench", q3_tool_bench, "measure prefill and decode speed"},
    {"rows", q3_tool_rows, "measure many rows through the scheduler"},
};

#define N_TOOLS (sizeof(tools) / sizeof(tools[0]))

static void
print_help(FILE *to)
{
	fprintf(to,
	        "Usage: qwen3dm-engine COMMAND [OPTION]...\n\nThe engine of qwen3dm as a service and "
	        "as a tool.\n\nCommands:\n");
	for (size_t i = 0; i < N_TOOLS; i++)
		fprintf(to, "  %-12s %s\n", tools[i].name, tools[i].help);
	fprintf(to, "\nEvery command has --help. \"qwen3dm-engine --version\" prints the version.\n");
}

int
main(int argc, char **argv)
{
	if (argc < 2)
	{
		print_help(stderr);
		return 2;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
	{
		printf("qwen3dm-engine %s\n", Q3_VERSION);
		return 0;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
	{
		print_help(stdout);
		return 0;
	}
	for (size_t i = 0; i < N_TOOLS; i++)
		if (strcmp(argv[1], tools[i].name) == 0)
			return tools[i].run(argc - 1, argv + 1);
	fprintf(stderr, "qwen3dm-engine: unrecognized command \"%s\"\n", argv[1]);
	fprintf(stderr, "Try \"qwen3dm-engine --help\" for more information.\n");
	return 2;
}
