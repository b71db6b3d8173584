/*
 * standalone_main.c: runs a fuzz target over given files, for builds without libFuzzer.
 *
 * Every argument is a file, or a directory of which every file is taken. Each input is handed over
 * in memory of exactly its size, so that AddressSanitizer sees every byte read beyond it.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static int n_inputs;

static int
complain(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return 1;
}

static int
run_file(const char *path, size_t size)
{
	uint8_t *data = malloc(size > 0 ? size : 1);
	FILE *f = fopen(path, "rb");
	int failed = data == NULL || f == NULL || fread(data, 1, size, f) != size;

	if (failed)
		complain(path);
	else
	{
		LLVMFuzzerTestOneInput(data, size);
		n_inputs++;
	}
	if (f != NULL)
		fclose(f);
	free(data);
	return failed;
}

static int
run_path(const char *path)
{
	struct stat st;
	struct dirent *entry;
	DIR *dir;
	int failed = 0;

	if (stat(path, &st) != 0)
		return complain(path);
	if (!S_ISDIR(st.st_mode))
		return run_file(path, (size_t) st.st_size);
	dir = opendir(path);
	if (dir == NULL)
		return complain(path);
	while ((entry = readdir(dir)) != NULL)
	{
		char child[PATH_MAX];

		if (entry->d_name[0] == '.')
			continue;
		if (snprintf(child, sizeof(child), "%s/%s", path, entry->d_name) >= (int) sizeof(child))
			failed = 1;
		else
			failed |= run_path(child);
	}
	closedir(dir);
	return failed;
}

int
main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++)
		failed |= run_path(argv[i]);
	printf("%s: %d inputs\n", argv[0], n_inputs);
	return failed || n_inputs == 0;
}
