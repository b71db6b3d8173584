/*
 * test_image.c: the packed image: what it computes, who may use it, where it can come from.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "build_model.h"
#include "model/image.h"
#include "planes.h"

#define N_TOKENS 12

static q3_model *
load(const model_spec *spec)
{
	char path[64];
	q3_error err = {0};
	q3_model *m;

	assert_true(model_write(path, sizeof(path), spec));
	m = q3_model_load(path, NULL, &err);
	unlink(path);
	if (m == NULL)
		fail_msg("%s", err.message);
	return m;
}

static const q3_image_info *
pack(q3_model *m, q3_pack_options options)
{
	q3_error err = {0};

	if (q3_model_pack(m, &options, &err) != Q3_OK)
		fail_msg("%s", err.message);
	return q3_model_image(m);
}

/* Logits of N_TOKENS fixed tokens, test_malloc'ed; and the runtime's words. */
static float *
compute(const q3_model *m, q3_mode mode, q3_runtime_options options, char *precision)
{
	q3_error err = {0};
	q3_runtime *rt;
	q3_runtime_info info;
	q3_seq *seq;
	int32_t tokens[N_TOKENS];
	float *logits = test_malloc(N_TOKENS * (size_t) q3_model_get_info(m)->n_vocab * sizeof(float));
	q3_batch_item item = {.tokens = tokens,
	                      .n_tokens = N_TOKENS,
	                      .mode = mode,
	                      .want = Q3_WANT_ALL,
	                      .logits = logits};

	options.threads = 2;
	options.kv_f32 = true;
	rt = q3_runtime_create(m, &options, &err);
	assert_non_null(rt);
	seq = q3_seq_create(rt);
	item.seq = seq;
	assert_true(q3_seq_reserve(seq, N_TOKENS));
	for (int i = 0; i < N_TOKENS; i++)
		tokens[i] = (i * 37 + 5) % q3_model_get_info(m)->n_vocab;
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_OK);
	q3_runtime_get_info(rt, &info);
	if (precision != NULL)
		snprintf(precision, 192, "%s", info.precision);
	q3_seq_free(seq);
	q3_runtime_free(rt);
	return logits;
}

/* Compares and frees a. */
static double
error_of(const q3_model *m, float *a, const float *reference)
{
	double difference = 0, norm = 0;

	for (size_t i = 0; i < N_TOKENS * (size_t) q3_model_get_info(m)->n_vocab; i++)
	{
		difference += ((double) a[i] - reference[i]) * ((double) a[i] - reference[i]);
		norm += (double) reference[i] * reference[i];
	}
	test_free(a);
	return sqrt(difference / norm);
}

/* ---- What is computed with it ---- */

/* Three types in turn: every kind of matrix is there. */
static const model_spec mixed = {
    .types = {Q3_Q8_0, Q3_BF16, Q3_Q4_0, Q3_Q5_0}, .n_types = 4, .untied = true};

static void
test_numbers(void **state)
{
	static const struct
	{
		q3_dtype type;
		double precise, efficient, efficient4; /* largest errors */
		const char *words, *words4;
	} cases[] = {
	    {Q3_F32, 1e-3, 0.1, 0.6, "planes: 8 + 8 bits", "planes: 4 + 12 bits"},
	    {Q3_F16, 1e-3, 0.1, 0.6, "planes: 8 + 8 bits", "planes: 4 + 12 bits"},
	    {Q3_BF16, 1e-3, 0.1, 0.6, "planes: 8 + 8 bits", "planes: 4 + 12 bits"},
	    {Q3_Q8_0, 1e-5, 0.1, 0.6, "planes: 8 bits", "planes: 4 + 4 bits"},
	    {Q3_Q4_0, 1e-5, 0.1, 0.1, "planes: 4 bits", "planes: 4 bits"},
	    {Q3_Q4_1, 1e-5, 0.1, 0.1, "planes: 4 bits", "planes: 4 bits"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int untied = 0; untied < 2; untied++)
		{
			const model_spec spec = {
			    .types = {cases[i].type}, .n_types = 1, .seed = i, .untied = untied};
			q3_model *m = load(&spec);
			float *file = compute(m, Q3_PRECISE, (q3_runtime_options){0}, NULL);
			char words[192];
			double e;

			/* Not packed: one precision, whatever the mode. */
			e = error_of(m, compute(m, Q3_EFFICIENT, (q3_runtime_options){0}, words), file);
			assert_true(e == 0);
			assert_non_null(strstr(words, "one precision: "));
			assert_non_null(strstr(words, q3_dtype_name(cases[i].type)));

			assert_int_equal(pack(m, (q3_pack_options){.threads = 3})->source, Q3_IMAGE_BUILT);
			e = error_of(m, compute(m, Q3_PRECISE, (q3_runtime_options){0}, words), file);
			assert_true(e <= cases[i].precise);
			assert_string_equal(words, cases[i].words);
			e = error_of(m, compute(m, Q3_EFFICIENT, (q3_runtime_options){0}, NULL), file);
			assert_true(e > 1e-6 && e <= cases[i].efficient);
			e = error_of(m,
			             compute(m, Q3_EFFICIENT, (q3_runtime_options){.efficient_bits = 4}, words),
			             file);
			assert_true(e > 1e-6 && e <= cases[i].efficient4);
			assert_string_equal(words, cases[i].words4);
			e = error_of(m,
			             compute(m, Q3_PRECISE, (q3_runtime_options){.exact_weights = true}, words),
			             file);
			assert_true(e == 0);
			assert_non_null(strstr(words, "; precise reads the file's "));
			test_free(file);
			q3_model_free(m);
		}
}

static void
test_words_of_mixtures(void **state)
{
	q3_model *m = load(&mixed);
	const model_spec k = {.embd = 256,
	                      .ff = 256,
	                      .heads = 8,
	                      .head_dim = 32,
	                      .kv_heads = 8,
	                      .types = {Q3_Q4_K, Q3_Q6_K},
	                      .n_types = 2,
	                      .layers = 1};
	char words[192];

	(void) state;
	pack(m, (q3_pack_options){0});
	test_free(compute(m, Q3_EFFICIENT, (q3_runtime_options){0}, words));
	assert_string_equal(
	    words, "planes: 8 + 8 bits, 8 bits, 4 bits; one precision: Q5_0 blocks of the file");
	test_free(compute(m, Q3_EFFICIENT, (q3_runtime_options){.exact_weights = true}, words));
	assert_string_equal(words, "planes: 8 + 8 bits, 8 bits, 4 bits; precise reads the file's Q4_0, "
	                           "Q8_0, BF16; one precision: Q5_0 blocks of the file");
	q3_model_free(m);

	m = load(&k);
	assert_int_equal(pack(m, (q3_pack_options){0})->source, Q3_IMAGE_NONE);
	assert_int_equal(q3_model_image(m)->bytes, 0);
	test_free(compute(m, Q3_EFFICIENT, (q3_runtime_options){0}, words));
	assert_string_equal(words, "one precision: Q4_K, Q6_K blocks of the file");
	q3_model_free(m);
}

/* ---- Memory ---- */

/* Resident kilobytes of the mapping that begins at p. */
static long
resident_kb(const void *p)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512];
	unsigned long begin, end;
	bool found = false;
	long kb = -1;

	assert_non_null(f);
	while (kb < 0 && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			found = begin == (unsigned long) p;
		else if (found)
			sscanf(line, "Rss: %ld kB", &kb);
	fclose(f);
	assert_true(kb >= 0);
	return kb;
}

/*
 * The image is the one copy: about as large as the weights in the file, whose pages are given up.
 * Both modes read it, and neither brings the file's pages back.
 */
static void
test_memory(void **state)
{
	static const struct
	{
		q3_dtype type;
		double ratio; /* most bytes of the image for a byte of the file */
	} cases[] = {{Q3_BF16, 1.05}, {Q3_F16, 1.05}, {Q3_Q8_0, 1.02}, {Q3_Q4_1, 1.02}, {Q3_F32, 0.53}};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		const model_spec spec = {
		    .types = {cases[i].type}, .n_types = 1, .embd = 512, .ff = 1024, .heads = 16};
		q3_model *m = load(&spec);
		size_t size;
		const void *file = q3_gguf_data(q3_model_gguf(m), &size);
		long before = resident_kb(file), after;
		const q3_image_info *image = pack(m, (q3_pack_options){0});

		assert_true(before > (long) (size / 1024 * 9 / 10)); /* the digest has read it */
		assert_true((double) image->bytes <= cases[i].ratio * (double) size);
		test_free(compute(m, Q3_PRECISE, (q3_runtime_options){0}, NULL));
		test_free(compute(m, Q3_EFFICIENT, (q3_runtime_options){0}, NULL));
		after = resident_kb(file);
		/* What is left: vocabulary, norms, the rows of twelve tokens, and ends of tensors. */
		assert_true(after < 2500);
		assert_true(after < before / 2 || before < 5000);
		assert_true(image->bytes + (uint64_t) after * 1024 <= size + size / 10 + (2500u << 10));
		q3_model_free(m);
	}
}

/* ---- Images of others ---- */

static int
copy_image(const q3_image_info *image, int seals)
{
	int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	char *bytes = test_malloc(image->bytes);

	assert_int_equal(pread(image->fd, bytes, image->bytes, 0), image->bytes);
	assert_int_equal(write(fd, bytes, image->bytes), image->bytes);
	test_free(bytes);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static bool
is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void
test_handing_over(void **state)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	model_spec spec = mixed;
	q3_model *first = load(&spec), *second = load(&spec);
	const q3_image_info *image = pack(first, (q3_pack_options){0}), *info;
	float *expected = compute(first, Q3_EFFICIENT, (q3_runtime_options){0}, NULL);
	int fd;

	(void) state;
	assert_int_equal(write(image->fd, "x", 1), -1); /* sealed */
	assert_int_equal(ftruncate(image->fd, 1), -1);
	assert_string_equal(image->problem, "");

	/* As it is: used, and the same numbers after the first one is gone. */
	info = pack(second, (q3_pack_options){.fd = dup(image->fd)});
	assert_int_equal(info->source, Q3_IMAGE_KEPT);
	assert_int_equal(info->bytes, image->bytes);
	assert_true(q3_model_pack(second, NULL, NULL) == Q3_ERR_INVALID); /* once only */
	fd = dup(image->fd);
	q3_model_free(first);
	assert_true(error_of(second, compute(second, Q3_EFFICIENT, (q3_runtime_options){0}, NULL),
	                     expected) == 0);
	q3_model_free(second);

	/* Another model's, one that can still be changed, none at all: a new one is built. */
	first = load(&spec);
	image = pack(first, (q3_pack_options){.fd = fd});
	assert_int_equal(image->source, Q3_IMAGE_KEPT);
	for (int bad = 0; bad < 4; bad++)
	{
		fd = bad == 0   ? copy_image(image, seals)
		     : bad == 1 ? copy_image(image, 0)
		     : bad == 2 ? copy_image(image, F_SEAL_SHRINK | F_SEAL_GROW)
		                : open("/dev/null", O_RDWR);
		spec.seed = bad == 0;
		second = load(&spec);
		info = pack(second, (q3_pack_options){.fd = fd});
		assert_int_equal(info->source, Q3_IMAGE_BUILT);
		assert_non_null(strstr(info->problem, "does not fit"));
		assert_true(info->fd == fd || !is_open(fd));
		q3_model_free(second);
	}
	spec.seed = 0;
	second = load(&spec);
	info = pack(second, (q3_pack_options){.fd = copy_image(image, seals)});
	assert_int_equal(info->source, Q3_IMAGE_KEPT);
	q3_model_free(second);
	q3_model_free(first);
	test_free(expected);
}

/* ---- The cache ---- */

static void
change_byte(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	char c;

	assert_int_equal(pread(fd, &c, 1, at), 1);
	c ^= 0x40;
	assert_int_equal(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

static q3_image_source
pack_with(const model_spec *spec, const char *dir, const char *problem)
{
	q3_model *m = load(spec);
	const q3_image_info *info = pack(m, (q3_pack_options){.cache_dir = dir});
	q3_image_source source = info->source;

	if (problem == NULL)
		assert_string_equal(info->problem, "");
	else if (strstr(info->problem, problem) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", problem, info->problem);
	test_free(compute(m, Q3_EFFICIENT, (q3_runtime_options){0}, NULL));
	q3_model_free(m);
	return source;
}

static void
test_cache(void **state)
{
	char dir[] = "/tmp/qwen3dm-cache-XXXXXX", path[256], new_path[300];
	struct stat st;
	q3_model *m = load(&mixed);
	int fd;

	(void) state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/%s.v%d.q3image", dir, q3_model_get_info(m)->digest,
	         Q3_IMAGE_VERSION);
	snprintf(new_path, sizeof(new_path), "%s.new", path);
	q3_model_free(m);

	assert_int_equal(pack_with(&mixed, dir, NULL), Q3_IMAGE_BUILT);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(access(new_path, F_OK), -1);
	assert_int_equal(pack_with(&mixed, dir, NULL), Q3_IMAGE_CACHED);

	/* Whatever is wrong with header, table or size, it is made anew. */
	for (off_t at = 0; at < 300; at += 7)
	{
		change_byte(path, at);
		assert_int_equal(pack_with(&mixed, dir, "damaged"), Q3_IMAGE_BUILT);
	}
	/* Or with the planes, anywhere. */
	for (off_t at = 4096; at < st.st_size; at += st.st_size / 5)
	{
		change_byte(path, at);
		assert_int_equal(pack_with(&mixed, dir, "damaged"), Q3_IMAGE_BUILT);
	}
	change_byte(path, st.st_size - 1);
	assert_int_equal(pack_with(&mixed, dir, "damaged"), Q3_IMAGE_BUILT);
	assert_int_equal(truncate(path, st.st_size / 2), 0);
	assert_int_equal(pack_with(&mixed, dir, "damaged"), Q3_IMAGE_BUILT);
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(pack_with(&mixed, dir, "damaged"), Q3_IMAGE_BUILT);
	assert_int_equal(pack_with(&mixed, dir, NULL), Q3_IMAGE_CACHED);

	/* What a crash has left is in nobody's way; what another engine is writing is left alone. */
	unlink(path);
	fd = open(new_path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(write(fd, "half", 4), 4);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(pack_with(&mixed, dir, "could not write"), Q3_IMAGE_BUILT);
	assert_int_equal(access(path, F_OK), -1);
	close(fd);
	assert_int_equal(pack_with(&mixed, dir, NULL), Q3_IMAGE_BUILT);
	assert_int_equal(pack_with(&mixed, dir, NULL), Q3_IMAGE_CACHED);

	unlink(path);
	rmdir(dir);
	assert_int_equal(pack_with(&mixed, dir, "No such file"), Q3_IMAGE_BUILT);
	assert_int_equal(pack_with(&mixed, "", NULL), Q3_IMAGE_BUILT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_numbers), cmocka_unit_test(test_words_of_mixtures),
	    cmocka_unit_test(test_memory),  cmocka_unit_test(test_handing_over),
	    cmocka_unit_test(test_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
