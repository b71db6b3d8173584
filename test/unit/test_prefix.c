/*
 * test_prefix.c: shared KV blocks, the prefix cache, and logits of wanted tokens only, below the
 * scheduler: whatever is shared, forked, evicted or left out, the bits are those of a sequence that
 * was computed alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "build_model.h"
#include "model/model.h"

#define VOCAB 288
#define BLOCK Q3_KV_BLOCK

static uint64_t random_state = 11;

static int32_t
random_below(int32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (int32_t) ((uint32_t) (random_state >> 33) % (uint32_t) n);
}

static q3_model *
load(const model_spec *spec, bool pack)
{
	q3_load_options options = {.skip_digest = true};
	q3_pack_options pack_options = {.threads = 1};
	q3_error err = {0};
	char path[64];
	q3_model *m;

	assert_true(model_write(path, sizeof(path), spec));
	m = q3_model_load(path, &options, &err);
	unlink(path);
	if (m == NULL || (pack && q3_model_pack(m, &pack_options, &err) != Q3_OK))
		fail_msg("%s", err.message);
	return m;
}

/* With so many KV blocks. */
static q3_runtime *
runtime(const q3_model *m, int32_t blocks)
{
	const q3_model_info *info = q3_model_get_info(m);
	q3_runtime_options options = {.threads = 2, .max_batch_tokens = 128, .context_length = 256};
	q3_error err = {0};
	q3_runtime *rt;

	options.kv_bytes = (uint64_t) blocks * BLOCK * (uint64_t) info->n_layers *
	                   (uint64_t) info->n_kv_heads * (uint64_t) info->head_dim * 4;
	rt = q3_runtime_create(m, &options, &err);
	if (rt == NULL)
		fail_msg("%s", err.message);
	return rt;
}

static q3_runtime_info
info_of(const q3_runtime *rt)
{
	q3_runtime_info info;

	q3_runtime_get_info(rt, &info);
	return info;
}

static void
forward(q3_runtime *rt, const q3_batch_item *items, int32_t n)
{
	q3_error err = {0};

	if (q3_forward(rt, items, n, NULL, &err) != Q3_OK)
		fail_msg("%s", err.message);
}

/* Appends tokens; logits of the last one. */
static void
feed(q3_runtime *rt, q3_seq *seq, const int32_t *tokens, int32_t n, q3_mode mode, float *logits)
{
	for (int32_t done = 0; done < n; done += 100)
	{
		bool last = n - done <= 100;
		q3_batch_item item = {.seq = seq,
		                      .tokens = tokens + done,
		                      .n_tokens = last ? n - done : 100,
		                      .mode = mode,
		                      .want = last ? Q3_WANT_LAST : Q3_WANT_NOTHING,
		                      .logits = logits};

		forward(rt, &item, 1);
	}
}

/* Logits of the last of n tokens in a sequence of its own, which takes nothing from the cache. */
static void
alone(q3_runtime *rt, const int32_t *tokens, int32_t n, q3_mode mode, float *logits)
{
	q3_seq *seq = q3_seq_create(rt);

	assert_non_null(seq);
	assert_true(q3_seq_reserve(seq, n));
	feed(rt, seq, tokens, n, mode, logits);
	q3_seq_free(seq);
}

static void
random_tokens(int32_t *tokens, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		tokens[i] = random_below(256);
}

/* ---------------------------------------------------------------------------------------------
 * Wanted tokens
 * --------------------------------------------------------------------------------------------- */

enum
{
	ITEMS = 7
};

/* A batch of both modes and all wants; every wanted logit must be the one of the whole row. */
static void
check_wanted(const q3_model *m, const int32_t *lists[3], const int32_t *lengths)
{
	static float whole[ITEMS][VOCAB], part[ITEMS][VOCAB];
	int32_t tokens[ITEMS][40], n[ITEMS];
	q3_runtime *rt = runtime(m, 32);
	q3_batch_item items[ITEMS] = {{0}};

	for (int i = 0; i < ITEMS; i++)
	{
		n[i] = 1 + random_below(15);
		random_tokens(tokens[i], n[i]);
		alone(rt, tokens[i], n[i], i % 2 ? Q3_EFFICIENT : Q3_PRECISE, whole[i]);
		items[i] = (q3_batch_item){.seq = q3_seq_create(rt),
		                           .tokens = tokens[i],
		                           .n_tokens = n[i],
		                           .mode = i % 2 ? Q3_EFFICIENT : Q3_PRECISE,
		                           .want = i == 2 ? Q3_WANT_LAST : Q3_WANT_TOKENS,
		                           .logits = part[i],
		                           .wanted = lists[i / 3],
		                           .n_wanted = lengths[i / 3]};
		assert_true(q3_seq_reserve(items[i].seq, n[i]));
	}
	memset(part, 0xff, sizeof(part));
	forward(rt, items, ITEMS);
	for (int i = 0; i < ITEMS; i++)
	{
		if (i == 2)
			assert_memory_equal(part[i], whole[i], sizeof(whole[i]));
		else
			for (int32_t k = 0; k < lengths[i / 3]; k++)
				assert_memory_equal(&part[i][k], &whole[i][lists[i / 3][k]], sizeof(float));
		q3_seq_free(items[i].seq);
	}
	q3_runtime_free(rt);
}

static void
test_wanted_tokens_have_the_same_bits(void **state)
{
	static const q3_dtype types[] = {Q3_F32, Q3_BF16, Q3_Q8_0, Q3_Q4_1};
	static int32_t many[VOCAB];
	const int32_t few[] = {287, 5, 5, 16, 31}, one[] = {272};
	const int32_t *lists[3] = {few, one, many};
	const int32_t lengths[3] = {5, 1, VOCAB};

	(void) state;
	for (int32_t i = 0; i < VOCAB; i++)
		many[i] = VOCAB - 1 - i;
	for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
		for (int pack = 0; pack < 2; pack++)
		{
			model_spec spec = {.types = {types[t]}, .n_types = 1, .vocab = VOCAB, .untied = t % 2};
			q3_model *m = load(&spec, pack);

			for (int i = 0; q3_kernels_name(i) != NULL; i++)
			{
				if (q3_kernels_get(q3_kernels_name(i)) == NULL)
					continue;
				setenv("QWEN3DM_ISA", q3_kernels_name(i), 1);
				check_wanted(m, lists, lengths);
			}
			unsetenv("QWEN3DM_ISA");
			q3_model_free(m);
		}
}

/* ---------------------------------------------------------------------------------------------
 * The cache
 * --------------------------------------------------------------------------------------------- */

/* run_prompt() takes parts of blocks, too. */
static bool with_parts;

/* Attaches what there is, computes the rest, publishes: as the scheduler does. */
static q3_seq *
run_prompt(q3_runtime *rt, q3_prefix_key key, const int32_t *tokens, int32_t n, int32_t *cached,
           float *logits)
{
	q3_seq *seq = q3_seq_create(rt);

	assert_non_null(seq);
	*cached = q3_seq_attach(seq, key, tokens, n);
	assert_int_equal(q3_seq_length(seq), *cached);
	if (!q3_seq_reserve(seq, n))
	{
		q3_seq_free(seq);
		return NULL;
	}
	if (with_parts)
		*cached += q3_seq_attach_part(seq, key, tokens, n);
	assert_int_equal(q3_seq_length(seq), *cached);
	feed(rt, seq, tokens + *cached, n - *cached, key.mode, logits);
	q3_seq_publish(seq, key, tokens, n);
	return seq;
}

static int32_t
cached_of(q3_runtime *rt, q3_prefix_key key, const int32_t *tokens, int32_t n)
{
	static float logits[VOCAB];
	int32_t cached;

	q3_seq_free(run_prompt(rt, key, tokens, n, &cached, logits));
	return cached;
}

static void
test_who_finds_what(void **state)
{
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, true);
	q3_runtime *rt = runtime(m, 64);
	const q3_prefix_key ann = {10, Q3_PRECISE}, bob = {11, Q3_PRECISE}, fast = {10, Q3_EFFICIENT};
	int32_t tokens[100];

	(void) state;
	random_tokens(tokens, 100);
	assert_int_equal(cached_of(rt, ann, tokens, 100), 0);
	assert_int_equal(cached_of(rt, ann, tokens, 100), 96);
	assert_int_equal(cached_of(rt, ann, tokens, 97), 96);
	assert_int_equal(cached_of(rt, ann, tokens, 96), 64); /* the last token is always computed */
	assert_int_equal(cached_of(rt, ann, tokens, 32), 0);
	assert_int_equal(cached_of(rt, bob, tokens, 100), 0); /* what others asked stays theirs */
	assert_int_equal(cached_of(rt, fast, tokens, 100), 0);
	tokens[40]++;
	assert_int_equal(cached_of(rt, ann, tokens, 100), 32);
	assert_int_equal(info_of(rt).prefix_blocks, 3 + 3 + 3 + 2);
	assert_int_equal(info_of(rt).kv_blocks_free, info_of(rt).kv_blocks);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* The tokens behind the last full block that two prompts have in common are copied. */
static void
check_part(q3_runtime *rt, q3_prefix_key key, const int32_t *stem, int32_t n, int32_t expected_part)
{
	static float logits[VOCAB], expected[VOCAB];
	int32_t tokens[128], cached;
	q3_seq *seq;

	random_tokens(tokens, 128);
	memcpy(tokens, stem, (size_t) n * sizeof(tokens[0]));
	tokens[n] = (stem[n] + 1) % VOCAB;
	seq = run_prompt(rt, key, tokens, 120, &cached, logits);
	assert_int_equal(cached, expected_part);
	alone(rt, tokens, 120, key.mode, expected);
	assert_memory_equal(logits, expected, sizeof(logits));
	q3_seq_publish_part(seq, key, tokens, 120);
	q3_seq_free(seq);
}

static void
test_parts_of_blocks(void **state)
{
	static float logits[VOCAB];
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, true);
	q3_runtime *rt = runtime(m, 64);
	const q3_prefix_key ann = {10, Q3_EFFICIENT}, bob = {11, Q3_EFFICIENT}, slow = {10, Q3_PRECISE};
	int32_t stem[128], cached, blocks;
	q3_seq *seq;

	(void) state;
	with_parts = true;
	random_tokens(stem, 128);
	seq = run_prompt(rt, ann, stem, 120, &cached, logits);
	assert_int_equal(cached, 0);
	q3_seq_publish_part(seq, ann, stem, 99); /* three tokens are not worth it */
	assert_int_equal(info_of(rt).prefix_blocks, 3);
	q3_seq_publish_part(seq, ann, stem, 120);
	assert_int_equal(info_of(rt).prefix_blocks, 4);
	q3_seq_free(seq);
	check_part(rt, ann, stem, 110, 110);
	assert_int_equal(info_of(rt).prefix_blocks, 4); /* in the place of the one before */
	check_part(rt, ann, stem, 99, 96);
	check_part(rt, bob, stem, 110, 0);
	check_part(rt, slow, stem, 110, 0);
	blocks = info_of(rt).prefix_blocks;
	check_part(rt, ann, stem, 40, 40); /* from a full block */
	assert_int_equal(info_of(rt).prefix_blocks, blocks + 2 + 1);
	/* The part that was kept last has three tokens of this one. */
	seq = run_prompt(rt, ann, stem, 120, &cached, logits);
	assert_int_equal(cached, 96);
	q3_seq_free(seq);
	with_parts = false;
	assert_int_equal(info_of(rt).kv_blocks_free, info_of(rt).kv_blocks);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* Everything that is not the same is told apart by itself, and not only by the hash of all. */
static void
test_no_false_friends(void **state)
{
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, true);
	const q3_prefix_key ann = {10, Q3_PRECISE}, bob = {11, Q3_PRECISE}, fast = {10, Q3_EFFICIENT};

	(void) state;
	for (int i = 0; i < 25; i++)
	{
		q3_runtime *rt = runtime(m, 8); /* so few blocks have as few buckets */
		int32_t tokens[97], other[97];

		random_tokens(tokens, 97);
		random_tokens(other, 97);
		assert_int_equal(cached_of(rt, ann, tokens, 97), 0);
		assert_int_equal(cached_of(rt, bob, tokens, 33), 0);
		assert_int_equal(cached_of(rt, fast, tokens, 33), 0);
		assert_int_equal(cached_of(rt, ann, other, 33), 0);
		/* The same block behind another one is another block. */
		memcpy(other + BLOCK, tokens + BLOCK, 65 * sizeof(*tokens));
		assert_int_equal(cached_of(rt, ann, other, 97), 32);
		q3_runtime_free(rt);
	}
	q3_model_free(m);
}

static void
test_pins_are_for_all_until_unpinned(void **state)
{
	static float logits[VOCAB];
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, true);
	q3_runtime *rt = runtime(m, 12);
	const q3_prefix_key shared = {Q3_DOMAIN_SHARED, Q3_PRECISE}, ann = {10, Q3_PRECISE},
	                    bob = {11, Q3_PRECISE};
	int32_t tokens[128], other[256], cached;
	q3_seq *seq;

	(void) state;
	random_tokens(tokens, 128);
	seq = run_prompt(rt, shared, tokens, 64, &cached, logits);
	q3_seq_pin(seq, 64);
	q3_seq_pin(seq, 64);
	q3_seq_free(seq);
	assert_int_equal(info_of(rt).pinned_blocks, 2);
	assert_int_equal(info_of(rt).kv_blocks_free, 10);
	assert_int_equal(cached_of(rt, ann, tokens, 128), 64);
	assert_int_equal(cached_of(rt, ann, tokens, 128), 96); /* what ann added is hers */
	assert_int_equal(cached_of(rt, bob, tokens, 128), 64);
	for (int i = 0; i < 5; i++) /* everything else goes, pins stay */
	{
		random_tokens(other, 256);
		assert_int_equal(cached_of(rt, ann, other, 256), 0);
	}
	assert_true(info_of(rt).evictions > 0);
	assert_int_equal(cached_of(rt, bob, tokens, 128), 64);

	/* Unpinning beside a sequence that uses the blocks takes nothing away from it. */
	seq = run_prompt(rt, bob, tokens, 100, &cached, logits);
	assert_int_equal(cached, 96);
	q3_runtime_unpin(rt);
	assert_int_equal(info_of(rt).pinned_blocks, 0);
	assert_int_equal(q3_seq_length(seq), 100);
	assert_int_equal(cached_of(rt, ann, tokens, 128), 0);
	q3_seq_publish(seq, bob, tokens, 100);
	q3_seq_free(seq);
	assert_int_equal(cached_of(rt, bob, tokens, 100), 96);
	q3_runtime_unpin(rt);
	assert_int_equal(info_of(rt).kv_blocks_free, 12);
	q3_runtime_free(rt);
	q3_model_free(m);
}

static void
test_cache_switched_off(void **state)
{
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, false);
	q3_runtime_options options = {.threads = 1, .no_prefix_cache = true};
	q3_error err = {0};
	q3_runtime *rt = q3_runtime_create(m, &options, &err);
	int32_t tokens[100];

	(void) state;
	assert_non_null(rt);
	random_tokens(tokens, 100);
	assert_int_equal(cached_of(rt, (q3_prefix_key){10, Q3_PRECISE}, tokens, 100), 0);
	assert_int_equal(cached_of(rt, (q3_prefix_key){10, Q3_PRECISE}, tokens, 100), 0);
	q3_runtime_unpin(rt);
	assert_int_equal(info_of(rt).prefix_blocks, 0);
	assert_false(info_of(rt).prefix_cache);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* Two that computed the same at the same time share one copy afterwards. */
static void
test_published_twice_is_held_once(void **state)
{
	static float logits[VOCAB], again[VOCAB];
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, false);
	q3_runtime *rt = runtime(m, 8);
	const q3_prefix_key key = {10, Q3_PRECISE};
	int32_t tokens[80];
	q3_seq *a = q3_seq_create(rt), *b = q3_seq_create(rt);

	(void) state;
	random_tokens(tokens, 80);
	assert_true(q3_seq_reserve(a, 80) && q3_seq_reserve(b, 80));
	feed(rt, a, tokens, 70, Q3_PRECISE, logits);
	feed(rt, b, tokens, 70, Q3_PRECISE, again);
	assert_int_equal(info_of(rt).kv_blocks_free, 2);
	q3_seq_publish(a, key, tokens, 70);
	q3_seq_publish(b, key, tokens, 70);
	q3_seq_publish(b, key, tokens, 70);
	assert_int_equal(info_of(rt).kv_blocks_free, 4);
	assert_int_equal(info_of(rt).prefix_blocks, 2);
	feed(rt, b, tokens + 70, 10, Q3_PRECISE, again);
	alone(rt, tokens, 80, Q3_PRECISE, logits);
	assert_memory_equal(again, logits, sizeof(logits));
	q3_seq_free(a);
	q3_seq_free(b);
	assert_int_equal(info_of(rt).kv_blocks_free, 8);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* A reserved but unused block gives way to a cached one that appears later. */
static void
test_attach_later(void **state)
{
	static float logits[VOCAB], expected[VOCAB];
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, false);
	q3_runtime *rt = runtime(m, 12);
	const q3_prefix_key key = {10, Q3_PRECISE};
	int32_t tokens[100], cached;
	q3_seq *early = q3_seq_create(rt), *other;

	(void) state;
	random_tokens(tokens, 100);
	assert_true(q3_seq_reserve(early, 100));
	assert_int_equal(q3_seq_attach(early, key, tokens, 100), 0);
	other = run_prompt(rt, key, tokens, 70, &cached, logits);
	assert_int_equal(info_of(rt).kv_blocks_free, 12 - 4 - 3);
	assert_int_equal(q3_seq_attach(early, key, tokens, 100), 64);
	assert_int_equal(info_of(rt).kv_blocks_free, 12 - 2 - 3);
	assert_int_equal(q3_seq_attach(early, key, tokens, 100), 0);
	feed(rt, early, tokens + 64, 36, Q3_PRECISE, logits);
	alone(rt, tokens, 100, Q3_PRECISE, expected);
	assert_memory_equal(logits, expected, sizeof(logits));
	q3_seq_free(early);
	q3_seq_free(other);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
 * Forks
 * --------------------------------------------------------------------------------------------- */

static void
check_forks(const q3_model *m, int32_t n, q3_mode mode)
{
	static float logits[VOCAB], expected[VOCAB];
	q3_runtime *rt = runtime(m, 24);
	int32_t tokens[140];
	q3_seq *seq = q3_seq_create(rt), *fork[3];

	random_tokens(tokens, n + 40);
	assert_true(q3_seq_reserve(seq, n + 40));
	feed(rt, seq, tokens, n, mode, logits);
	for (int i = 0; i < 3; i++)
	{
		fork[i] = q3_seq_fork(seq, n + 40);
		assert_non_null(fork[i]);
	}
	for (int i = 0; i < 3; i++) /* each its own way */
	{
		random_tokens(tokens + n, 40);
		feed(rt, fork[i], tokens + n, 40, mode, logits);
		alone(rt, tokens, n + 40, mode, expected);
		assert_memory_equal(logits, expected, sizeof(logits));
	}
	for (int i = 0; i < 2; i++) /* the first one too, twice */
	{
		random_tokens(tokens + n, 40);
		feed(rt, seq, tokens + n, 40, mode, logits);
		alone(rt, tokens, n + 40, mode, expected);
		assert_memory_equal(logits, expected, sizeof(logits));
		if (n / BLOCK > 0)
			assert_false(q3_seq_truncate(seq, BLOCK - 1)); /* shared with the forks */
		assert_false(q3_seq_truncate(seq, n + 41));
		assert_true(q3_seq_truncate(seq, n));
	}
	assert_null(q3_seq_fork(seq, n - 1));
	assert_null(q3_seq_fork(seq, 100 * BLOCK)); /* no such room */
	q3_seq_free(seq);
	for (int i = 0; i < 3; i++)
		q3_seq_free(fork[i]);
	assert_int_equal(info_of(rt).kv_blocks_free, info_of(rt).kv_blocks);
	q3_runtime_free(rt);
}

static void
test_forks(void **state)
{
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, true);

	(void) state;
	for (int mode = Q3_PRECISE; mode <= Q3_EFFICIENT; mode++)
	{
		check_forks(m, 20, (q3_mode) mode);
		check_forks(m, 64, (q3_mode) mode);
		check_forks(m, 77, (q3_mode) mode);
	}
	q3_model_free(m);
}

static void
test_shared_blocks_are_not_written(void **state)
{
	static float logits[VOCAB];
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, false);
	q3_runtime *rt = runtime(m, 8);
	const q3_prefix_key key = {10, Q3_PRECISE};
	int32_t tokens[64], cached;
	q3_seq *seq;

	(void) state;
	random_tokens(tokens, 64);
	seq = run_prompt(rt, key, tokens, 64, &cached, logits);
	assert_false(q3_seq_truncate(seq, 40));
	assert_true(q3_seq_truncate(seq, 64));
	q3_seq_free(seq);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* ---------------------------------------------------------------------------------------------
 * Anything, for a while
 * --------------------------------------------------------------------------------------------- */

enum
{
	LIVE = 4,
	STEMS = 3
};

typedef struct live
{
	q3_seq *seq;
	int32_t tokens[256], n, n_prompt;
	q3_prefix_key key;
} live;

/* A prompt that begins like others. */
static void
random_prompt(live *l, int32_t stems[STEMS][128])
{
	int32_t stem = random_below(129);

	l->n = stem + 1 + random_below(60);
	memcpy(l->tokens, stems[random_below(STEMS)], (size_t) stem * sizeof(int32_t));
	random_tokens(l->tokens + stem, l->n - stem);
	l->n_prompt = l->n;
	l->key.mode = random_below(2) ? Q3_EFFICIENT : Q3_PRECISE;
	l->key.domain = random_below(10) == 0 ? Q3_DOMAIN_SHARED : (uint32_t) (10 + random_below(2));
}

/*
 * Sequences come and go in a pool that is too small for all their prefixes: eviction must never
 * take what is held, and the bits must be those of a sequence alone in another runtime.
 */
static void
test_random_sequences_under_pressure(void **state)
{
	static float logits[VOCAB], expected[VOCAB];
	static int32_t stems[STEMS][128];
	static live lives[LIVE];
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, true);
	q3_runtime *rt = runtime(m, 22), *reference = runtime(m, 16);
	int64_t hits = 0, parts = 0;

	(void) state;
	with_parts = true;
	for (int i = 0; i < STEMS; i++)
		random_tokens(stems[i], 128);
	for (int round = 0; round < 250; round++)
	{
		live *l = &lives[random_below(LIVE)];
		int32_t cached;

		if (round % 50 == 49)
			q3_runtime_unpin(rt);
		if (l->seq != NULL && random_below(2)) /* an answer goes on behind the prompt */
		{
			random_tokens(l->tokens + l->n, 1);
			if (!q3_seq_reserve(l->seq, l->n + 1))
				continue;
			feed(rt, l->seq, l->tokens + l->n++, 1, l->key.mode, logits);
			alone(reference, l->tokens, l->n, l->key.mode, expected);
			assert_memory_equal(logits, expected, sizeof(logits));
			continue;
		}
		if (l->seq != NULL)
			q3_seq_publish_part(l->seq, l->key, l->tokens, l->n_prompt);
		q3_seq_free(l->seq);
		random_prompt(l, stems);
		l->seq = run_prompt(rt, l->key, l->tokens, l->n, &cached, logits);
		if (l->seq == NULL)
			continue;
		if (l->key.domain == Q3_DOMAIN_SHARED && info_of(rt).pinned_blocks < 4)
			q3_seq_pin(l->seq, 32);
		hits += cached;
		parts += cached % Q3_KV_BLOCK != 0;
		alone(reference, l->tokens, l->n, l->key.mode, expected);
		assert_memory_equal(logits, expected, sizeof(logits));
	}
	with_parts = false;
	assert_true(hits > 1000);
	assert_true(parts > 10);
	assert_true(info_of(rt).evictions > 50);
	for (int i = 0; i < LIVE; i++)
		q3_seq_free(lives[i].seq);
	q3_runtime_unpin(rt);
	assert_int_equal(info_of(rt).kv_blocks_free, info_of(rt).kv_blocks);
	q3_runtime_free(rt);
	q3_runtime_free(reference);
	q3_model_free(m);
}

static void
test_bad_wanted_lists(void **state)
{
	static float logits[VOCAB];
	const int32_t wrong[] = {5, VOCAB};
	model_spec spec = {.vocab = VOCAB};
	q3_model *m = load(&spec, false);
	q3_runtime *rt = runtime(m, 8);
	int32_t token = 1;
	q3_seq *seq = q3_seq_create(rt);
	q3_batch_item item = {.seq = seq,
	                      .tokens = &token,
	                      .n_tokens = 1,
	                      .want = Q3_WANT_TOKENS,
	                      .logits = logits,
	                      .wanted = wrong,
	                      .n_wanted = 2};
	q3_error err = {0};

	(void) state;
	assert_true(q3_seq_reserve(seq, 1));
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_ERR_INVALID);
	item.n_wanted = 0;
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_ERR_INVALID);
	item.n_wanted = VOCAB + 1;
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_ERR_INVALID);
	item.n_wanted = 1;
	assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_OK);
	q3_seq_free(seq);
	q3_runtime_free(rt);
	q3_model_free(m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_wanted_tokens_have_the_same_bits),
	    cmocka_unit_test(test_bad_wanted_lists),
	    cmocka_unit_test(test_who_finds_what),
	    cmocka_unit_test(test_parts_of_blocks),
	    cmocka_unit_test(test_no_false_friends),
	    cmocka_unit_test(test_pins_are_for_all_until_unpinned),
	    cmocka_unit_test(test_cache_switched_off),
	    cmocka_unit_test(test_published_twice_is_held_once),
	    cmocka_unit_test(test_attach_later),
	    cmocka_unit_test(test_forks),
	    cmocka_unit_test(test_shared_blocks_are_not_written),
	    cmocka_unit_test(test_random_sequences_under_pressure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
