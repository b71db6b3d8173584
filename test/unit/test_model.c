/*
 * test_model.c: loading of models, and the forward pass on small random ones.
 *
 * That the numbers are right is for the comparison with the reference implementation
 * (test/models); here: that they are the same numbers however the work is cut and shared, that
 * what cannot be run is one clear error, and that nothing is lost on the way.
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/sha.h>

#include "build_model.h"
#include "model/model.h"
#include "model/threads.h"

static uint64_t random_state;

static uint32_t
random_below(uint32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (random_state >> 33) % n;
}

static q3_model *
load(const model_spec *spec, const q3_load_options *options, q3_error *err)
{
	char path[64];
	q3_model *m;

	assert_true(model_write(path, sizeof(path), spec));
	m = q3_model_load(path, options, err);
	unlink(path);
	return m;
}

static q3_model *
load_ok(const model_spec *spec)
{
	q3_error err = {0};
	q3_model *m = load(spec, NULL, &err);

	if (m == NULL)
		fail_msg("%s", err.message);
	return m;
}

static q3_runtime *
runtime_ok(const q3_model *m, q3_runtime_options options)
{
	q3_error err = {0};
	q3_runtime *rt = q3_runtime_create(m, &options, &err);

	if (rt == NULL)
		fail_msg("%s", err.message);
	return rt;
}

/* ---- What a model says about itself ---- */

static void
test_info(void **state)
{
	model_spec spec = {.types = {Q3_Q8_0}, .n_types = 1, .untied = true, .vocab = 288};
	q3_model *m = load_ok(&spec);
	const q3_model_info *info = q3_model_get_info(m);
	const uint64_t matrices = 64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3;

	(void) state;
	assert_string_equal(info->architecture, "qwen3");
	assert_string_equal(info->name, "");
	assert_string_equal(info->weight_type, "Q8_0");
	assert_int_equal(info->n_layers, 2);
	assert_int_equal(info->n_embd, 64);
	assert_int_equal(info->n_ff, 96);
	assert_int_equal(info->n_heads, 4);
	assert_int_equal(info->n_kv_heads, 2);
	assert_int_equal(info->head_dim, 16);
	assert_int_equal(info->n_vocab, 288);
	assert_int_equal(info->context_length, 256);
	assert_false(info->tied);
	assert_int_equal(info->n_params, 2 * 288 * 64 + 64 + 2 * (matrices + 2 * 64 + 2 * 16));
	assert_int_equal(info->weight_bytes,
	                 (2 * 288 * 64 + 2 * matrices) / 32 * 34 + 4 * (64 + 2 * (2 * 64 + 2 * 16)));
	assert_int_equal(q3_tokenizer_n_vocab(q3_model_tokenizer(m)), TINY_VOCAB);
	q3_model_free(m);
	q3_model_free(NULL);
}

typedef struct progress
{
	uint64_t last, total;
	int calls;
} progress;

static void
note_progress(void *arg, uint64_t done, uint64_t total)
{
	progress *p = arg;

	assert_true(done >= p->last && done <= total);
	*p = (progress){done, total, p->calls + 1};
}

static void
test_digest(void **state)
{
	char path[64], expected[65];
	model_spec spec = {.architecture = "llama", .no_qk_norm = true};
	progress p = {0};
	q3_load_options options = {.progress = note_progress, .progress_arg = &p};
	q3_error err;
	q3_model *m;
	const unsigned char *data;
	unsigned char hash[SHA256_DIGEST_LENGTH];
	size_t size;

	(void) state;
	assert_true(model_write(path, sizeof(path), &spec));
	m = q3_model_load(path, &options, &err);
	assert_non_null(m);
	data = q3_gguf_data(q3_model_gguf(m), &size);
	SHA256(data, size, hash);
	for (int i = 0; i < SHA256_DIGEST_LENGTH; i++)
		snprintf(expected + 2 * i, 3, "%02x", hash[i]);
	assert_string_equal(q3_model_get_info(m)->digest, expected);
	assert_true(p.calls >= 2 && p.last == size && p.total == size);
	assert_int_equal(q3_model_get_info(m)->file_bytes, size);
	q3_model_free(m);

	options.known_digest = expected;
	m = q3_model_load(path, &options, &err);
	assert_string_equal(q3_model_get_info(m)->digest, expected);
	q3_model_free(m);
	options.known_digest = "abc";
	assert_null(q3_model_load(path, &options, &err));
	assert_int_equal(err.code, Q3_ERR_INVALID);
	options = (q3_load_options){.skip_digest = true};
	m = q3_model_load(path, &options, NULL);
	assert_string_equal(q3_model_get_info(m)->digest, "");
	q3_model_free(m);
	unlink(path);
	assert_null(q3_model_load(path, NULL, NULL));
}

/* ---- What cannot be run ---- */

static void
test_refused_models(void **state)
{
	static const struct
	{
		model_spec spec;
		q3_code code;
		const char *message; /* a part of it */
	} cases[] = {
	    {{.architecture = "gemma3"}, Q3_ERR_UNSUPPORTED, "\"gemma3\""},
	    {{.architecture = "q\001"}, Q3_ERR_UNSUPPORTED, "unknown"},
	    {{.architecture = "qwen2", .no_qk_norm = true}, Q3_ERR_FORMAT, "\"blk.0.attn_q.bias\""},
	    {{.architecture = "qwen2", .bias = true}, Q3_OK, ""},
	    {{.no_qk_norm = true}, Q3_ERR_FORMAT, "\"blk.0.attn_q_norm.weight\""},
	    {{.without = "blk.1.ffn_down.weight"}, Q3_ERR_FORMAT, "\"blk.1.ffn_down.weight\""},
	    {{.without = "token_embd.weight"}, Q3_ERR_FORMAT, "\"token_embd.weight\""},
	    {{.without = "block_count"}, Q3_ERR_FORMAT, "qwen3.block_count"},
	    {{.without = "context_length"}, Q3_ERR_FORMAT, "qwen3.context_length"},
	    {{.odd_tensor = "blk.0.attn_k.weight"}, Q3_ERR_FORMAT, "[64, 33, 1, 1]"},
	    {{.odd_tensor = "output_norm.weight"}, Q3_ERR_FORMAT, "[65, 1, 1, 1]"},
	    {{.extra_tensor = "blk.0.ffn_gate_inp.weight"}, Q3_ERR_UNSUPPORTED, "ffn_gate_inp"},
	    {{.extra_tensor = "blk.0.attn_output.bias"}, Q3_ERR_UNSUPPORTED, "attn_output.bias"},
	    {{.extra_tensor = "rope_freqs.weight"}, Q3_ERR_UNSUPPORTED, "rope_freqs.weight"},
	    {{.vocab = 200}, Q3_ERR_FORMAT, "261 tokens"},
	    {{.u32_key = "block_count", .u32_value = 1000000000}, Q3_ERR_UNSUPPORTED, "block_count"},
	    {{.u32_key = "block_count", .u32_value = 1024}, Q3_ERR_FORMAT, "9218 tensors"},
	    {{.u32_key = "block_count", .u32_value = 3}, Q3_ERR_FORMAT, "3 layers"},
	    {{.u32_key = "block_count", .u32_value = 1}, Q3_ERR_UNSUPPORTED, "\"blk.1."},
	    {{.u32_key = "block_count", .u32_value = 0}, Q3_ERR_UNSUPPORTED, "block_count is 0"},
	    {{.u32_key = "embedding_length", .u32_value = 1 << 20}, Q3_ERR_FORMAT, "more weights"},
	    {{.u32_key = "embedding_length", .u32_value = 100}, Q3_ERR_UNSUPPORTED, "multiples of 32"},
	    {{.u32_key = "feed_forward_length", .u32_value = 0}, Q3_ERR_UNSUPPORTED, "feed_forward"},
	    {{.u32_key = "feed_forward_length", .u32_value = 128}, Q3_ERR_FORMAT, "ffn_gate.weight"},
	    {{.u32_key = "attention.head_count", .u32_value = 0}, Q3_ERR_UNSUPPORTED, "head_count"},
	    {{.u32_key = "attention.head_count", .u32_value = 5}, Q3_ERR_UNSUPPORTED, "5 heads for 2"},
	    {{.u32_key = "attention.head_count_kv", .u32_value = 8}, Q3_ERR_UNSUPPORTED, "for 8 K/V"},
	    {{.u32_key = "attention.head_count", .u32_value = 1 << 20}, Q3_ERR_UNSUPPORTED, "heads"},
	    {{.u32_key = "attention.key_length", .u32_value = 1024}, Q3_ERR_UNSUPPORTED, "key_length"},
	    {{.u32_key = "attention.key_length", .u32_value = 24}, Q3_ERR_UNSUPPORTED, "24 dimensions"},
	    {{.u32_key = "attention.value_length", .u32_value = 32}, Q3_ERR_UNSUPPORTED, "values 32"},
	    {{.u32_key = "rope.dimension_count", .u32_value = 32}, Q3_ERR_UNSUPPORTED, "rope"},
	    {{.u32_key = "rope.dimension_count", .u32_value = 15}, Q3_ERR_UNSUPPORTED, "odd number"},
	    {{.u32_key = "context_length", .u32_value = 0}, Q3_ERR_UNSUPPORTED, "context_length"},
	    {{.u32_key = "expert_count", .u32_value = 8}, Q3_ERR_UNSUPPORTED, "qwen3.expert_count"},
	    {{.u32_key = "expert_count", .u32_value = 0}, Q3_OK, ""},
	    {{.u32_key = "attention.sliding_window", .u32_value = 64}, Q3_ERR_UNSUPPORTED, "sliding"},
	    {{.u32_key = "attention.sliding_window", .u32_value = 256}, Q3_OK, ""},
	    {{.text_key = "rope.scaling.type", .text_value = "yarn"}, Q3_ERR_UNSUPPORTED, "scaling"},
	    {{.text_key = "rope.scaling.type", .text_value = "none"}, Q3_OK, ""},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		q3_error err = {0};
		q3_model *m = load(&cases[i].spec, NULL, &err);

		if (cases[i].code == Q3_OK ? m == NULL
		                           : m != NULL || err.code != cases[i].code ||
		                                 strstr(err.message, cases[i].message) == NULL)
			fail_msg("case %zu: code %d, message \"%s\"", i, (int) err.code, err.message);
		q3_model_free(m);
	}
}

/* ---- The same bits however the work is done ---- */

enum
{
	MAX_SEQS = 4,
	MAX_TOKENS = 90
};

typedef struct text
{
	int32_t tokens[MAX_TOKENS];
	int32_t n;
	q3_mode mode;
	float *logits; /* [n][n_vocab], made token by token, alone, on one thread */
} text;

static void
make_texts(const q3_model *m, q3_runtime_options options, text *texts)
{
	size_t n_vocab = (size_t) q3_model_get_info(m)->n_vocab;
	q3_runtime *rt;

	options.threads = 1;
	rt = runtime_ok(m, options);
	for (int i = 0; i < MAX_SEQS; i++)
	{
		text *t = &texts[i];
		q3_seq *seq = q3_seq_create(rt);

		t->n = 1 + (int32_t) random_below(MAX_TOKENS);
		t->mode = i % 2 == 0 ? Q3_PRECISE : Q3_EFFICIENT;
		t->logits = test_malloc((size_t) t->n * n_vocab * sizeof(float));
		assert_true(q3_seq_reserve(seq, t->n));
		for (int32_t j = 0; j < t->n; j++)
		{
			q3_batch_item item = {.seq = seq, .tokens = &t->tokens[j], .n_tokens = 1};

			t->tokens[j] = (int32_t) random_below((uint32_t) n_vocab);
			item.mode = t->mode;
			item.want = Q3_WANT_LAST;
			item.logits = t->logits + (size_t) j * n_vocab;
			assert_int_equal(q3_forward(rt, &item, 1, NULL, NULL), Q3_OK);
		}
		assert_int_equal(q3_seq_length(seq), t->n);
		for (size_t j = 0; j < (size_t) t->n * n_vocab; j++)
			assert_true(isfinite(t->logits[j]));
		q3_seq_free(seq);
	}
	q3_runtime_free(rt);
}

static void
check_logits(const text *t, const q3_batch_item *item, int32_t first, size_t n_vocab)
{
	const float *expected = t->logits + (size_t) first * n_vocab;

	if (item->want == Q3_WANT_ALL)
		assert_memory_equal(item->logits, expected,
		                    (size_t) item->n_tokens * n_vocab * sizeof(float));
	else if (item->want == Q3_WANT_LAST)
		assert_memory_equal(item->logits, expected + (size_t) (item->n_tokens - 1) * n_vocab,
		                    n_vocab * sizeof(float));
}

/* All texts at once, of both modes, in random pieces, random company and random order. */
static void
run_schedule(const q3_model *m, const q3_runtime_options *options, const text *texts)
{
	size_t n_vocab = (size_t) q3_model_get_info(m)->n_vocab;
	float *logits = test_malloc(MAX_SEQS * MAX_TOKENS * n_vocab * sizeof(float));
	q3_runtime *rt = runtime_ok(m, *options);
	q3_seq *seqs[MAX_SEQS];
	int left = MAX_SEQS;

	for (int i = 0; i < MAX_SEQS; i++)
		seqs[i] = q3_seq_create(rt);
	while (left > 0)
	{
		q3_batch_item items[MAX_SEQS];
		int which[MAX_SEQS], n_items = 0, start = (int) random_below(MAX_SEQS);

		left = 0;
		for (int j = 0; j < MAX_SEQS; j++)
		{
			int i = (start + j) % MAX_SEQS;
			int32_t length = q3_seq_length(seqs[i]), n = texts[i].n - length;

			left += n > 0;
			if (n == 0 || random_below(4) == 0)
				continue;
			n = random_below(3) == 0 ? 1 : 1 + (int32_t) random_below((uint32_t) n);
			assert_true(q3_seq_reserve(seqs[i], length + n));
			items[n_items] = (q3_batch_item){.seq = seqs[i],
			                                 .tokens = texts[i].tokens + length,
			                                 .n_tokens = n,
			                                 .mode = texts[i].mode,
			                                 .want = (q3_want) random_below(3),
			                                 .logits = logits + (size_t) i * MAX_TOKENS * n_vocab};
			which[n_items++] = i;
		}
		if (n_items == 0)
			continue;
		assert_int_equal(q3_forward(rt, items, n_items, NULL, NULL), Q3_OK);
		for (int j = 0; j < n_items; j++)
			check_logits(&texts[which[j]], &items[j],
			             q3_seq_length(seqs[which[j]]) - items[j].n_tokens, n_vocab);
	}
	for (int i = 0; i < MAX_SEQS; i++)
		q3_seq_free(seqs[i]);
	q3_runtime_free(rt);
	test_free(logits);
}

static void
check_schedules(const model_spec *spec)
{
	q3_model *m = load_ok(spec);

	for (int way = 0; way < 4; way++)
	{
		/* First both modes on the file's blocks; then packed. */
		q3_runtime_options options = {.kv_f32 = way < 2,
		                              .kv_bytes = 16 << 20,
		                              .efficient_bits = way == 2 ? 4 : 8,
		                              .exact_weights = way == 3};
		text texts[MAX_SEQS];

		if (way == 1)
			assert_int_equal(q3_model_pack(m, &(q3_pack_options){.threads = 2}, NULL), Q3_OK);

		make_texts(m, options, texts);
		for (options.threads = 1; options.threads <= 3; options.threads++)
			run_schedule(m, &options, texts);
		for (int i = 0; i < MAX_SEQS; i++)
			test_free(texts[i].logits);
	}
	q3_model_free(m);
}

static void
test_schedules(void **state)
{
	static const model_spec specs[] = {
	    {.types = {Q3_Q8_0, Q3_Q4_0, Q3_BF16, Q3_F32},
	     .n_types = 4,
	     .untied = true,
	     .head_dim = 32},
	    {.architecture = "qwen2",
	     .bias = true,
	     .no_qk_norm = true,
	     .kv_heads = 1,
	     .types = {Q3_Q4_1, Q3_Q5_0, Q3_Q5_1, Q3_F16},
	     .n_types = 4,
	     .vocab = 300},
	    {.architecture = "llama", .no_qk_norm = true, .heads = 6, .head_dim = 48, .rope_dims = 20},
	    {.embd = 256,
	     .ff = 256,
	     .heads = 8,
	     .head_dim = 32,
	     .kv_heads = 8,
	     .types = {Q3_Q4_K, Q3_Q5_K, Q3_Q6_K},
	     .n_types = 3,
	     .layers = 1},
	};

	(void) state;
	random_state = 5;
	for (int i = 0; q3_kernels_name(i) != NULL; i++)
		for (size_t s = 0; s < sizeof(specs) / sizeof(specs[0]); s++)
			if (q3_kernels_get(q3_kernels_name(i)) != NULL)
			{
				setenv("QWEN3DM_ISA", q3_kernels_name(i), 1);
				check_schedules(&specs[s]);
			}
	unsetenv("QWEN3DM_ISA");
}

/* ---- Requests that cannot be met ---- */

static void
test_forward_errors(void **state)
{
	model_spec spec = {0};
	q3_model *m = load_ok(&spec);
	q3_runtime *rt = runtime_ok(
	    m, (q3_runtime_options){.threads = 2, .context_length = 64, .max_batch_tokens = 40});
	q3_runtime *other = runtime_ok(m, (q3_runtime_options){.threads = 1});
	q3_seq *seq = q3_seq_create(rt), *foreign = q3_seq_create(other);
	int32_t tokens[80] = {0};
	float logits[TINY_VOCAB];
	q3_batch_item items[2] = {
	    {.seq = seq, .tokens = tokens, .n_tokens = 3, .want = Q3_WANT_LAST, .logits = logits}};
	q3_error err;

	(void) state;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_INVALID); /* nothing reserved */
	assert_true(q3_seq_reserve(seq, 64));
	assert_false(q3_seq_reserve(seq, 65));
	for (int bad = 0; bad < 2; bad++)
	{
		tokens[2] = bad == 0 ? -1 : TINY_VOCAB;
		assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_INVALID);
	}
	tokens[2] = TINY_VOCAB - 1;
	items[1] = items[0];
	assert_int_equal(q3_forward(rt, items, 2, NULL, &err), Q3_ERR_INVALID); /* twice */
	assert_int_equal(q3_forward(rt, items, 0, NULL, &err), Q3_ERR_INVALID);
	items[1].seq = foreign;
	assert_int_equal(q3_forward(rt, items, 2, NULL, &err), Q3_ERR_INVALID);
	items[0].logits = NULL;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_INVALID);
	items[0].logits = logits;
	items[0].n_tokens = 41;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_INVALID);
	items[0].n_tokens = 65;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_TOO_LONG);
	items[0].n_tokens = 0;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_INVALID);
	assert_int_equal(q3_seq_length(seq), 0);
	items[0].n_tokens = 40;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_OK);
	assert_int_equal(q3_seq_length(seq), 40);
	items[0].n_tokens = 25;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_ERR_TOO_LONG);
	items[0].n_tokens = 24;
	assert_int_equal(q3_forward(rt, items, 1, NULL, &err), Q3_OK);
	q3_seq_free(seq);
	q3_seq_free(foreign);
	q3_seq_free(NULL);
	q3_runtime_free(rt);
	q3_runtime_free(other);
	q3_model_free(m);
}

static void
test_runtime(void **state)
{
	model_spec spec = {0};
	q3_model *m = load_ok(&spec);
	/* A block: 2 layers, 2 heads, K and V, 32 tokens of 16 halves. */
	const uint64_t block = 2 * 2 * 2 * 32 * 16 * 2;
	q3_runtime *rt = runtime_ok(m, (q3_runtime_options){.threads = 1, .kv_bytes = 5 * block + 1});
	q3_runtime_info info;
	q3_seq *a = q3_seq_create(rt), *b = q3_seq_create(rt);
	q3_error err;

	(void) state;
	q3_runtime_get_info(rt, &info);
	assert_int_equal(info.kv_blocks, 5);
	assert_int_equal(info.kv_bytes, 5 * block);
	assert_int_equal(info.kv_block_tokens, 32);
	assert_int_equal(info.context_length, 256);
	assert_int_equal(info.max_batch_tokens, 512);
	assert_int_equal(info.threads, 1);
	assert_true(q3_seq_reserve(a, 33) && q3_seq_reserve(b, 96) && q3_seq_reserve(a, 64));
	assert_false(q3_seq_reserve(a, 65));
	q3_runtime_get_info(rt, &info);
	assert_int_equal(info.kv_blocks_free, 0);
	q3_seq_free(b);
	q3_runtime_get_info(rt, &info);
	assert_int_equal(info.kv_blocks_free, 3);
	assert_true(q3_seq_reserve(a, 65));
	q3_seq_free(a);
	q3_runtime_free(rt);

	assert_null(q3_runtime_create(m, &(q3_runtime_options){.kv_bytes = block - 1}, &err));
	assert_int_equal(err.code, Q3_ERR_INVALID);
	assert_null(q3_runtime_create(m, &(q3_runtime_options){.kv_bytes = UINT64_MAX}, &err));
	assert_null(q3_runtime_create(m, &(q3_runtime_options){.threads = -1}, &err));
	assert_null(q3_runtime_create(m, &(q3_runtime_options){.max_batch_tokens = -1}, &err));
	assert_null(q3_runtime_create(m, &(q3_runtime_options){.context_length = -1}, &err));
	assert_null(q3_runtime_create(m, &(q3_runtime_options){.efficient_bits = 5}, &err));
	setenv("QWEN3DM_ISA", "pentium", 1);
	assert_null(q3_runtime_create(m, NULL, &err));
	assert_non_null(strstr(err.message, "\"pentium\""));
	unsetenv("QWEN3DM_ISA");
	rt = q3_runtime_create(m, NULL, NULL);
	q3_runtime_get_info(rt, &info);
	assert_int_equal(info.threads, q3_threads_available());
	assert_int_equal(info.kv_blocks, 256 / 32);
	q3_runtime_free(rt);
	q3_runtime_free(NULL);
	q3_model_free(m);
}

/* ---- Cancelling ---- */

static void *
stop_soon(void *arg)
{
	struct timespec t = {0, (long) random_below(300) * 1000};

	nanosleep(&t, NULL);
	atomic_store((atomic_bool *) arg, true);
	return NULL;
}

/* Cancelled passes leave no trace: the sequence goes on to the same bits. */
static void
test_cancel(void **state)
{
	model_spec spec = {.layers = 4};
	q3_model *m = load_ok(&spec);
	q3_runtime_options options = {.threads = 2};
	bool packed = q3_model_pack(m, NULL, NULL) == Q3_OK;
	q3_runtime *rt = runtime_ok(m, options);
	text texts[MAX_SEQS];
	int cancelled = 0;

	(void) state;
	assert_true(packed);
	random_state = 9;
	make_texts(m, options, texts);
	for (int round = 0; round < 60; round++)
	{
		const text *t = &texts[round % MAX_SEQS];
		float *logits = test_malloc((size_t) t->n * TINY_VOCAB * sizeof(float));
		q3_seq *seq = q3_seq_create(rt);
		q3_batch_item item = {.seq = seq,
		                      .tokens = t->tokens,
		                      .n_tokens = t->n,
		                      .mode = t->mode,
		                      .want = Q3_WANT_ALL,
		                      .logits = logits};
		atomic_bool stop = round % 10 == 0;
		pthread_t thread;
		q3_error err;
		q3_code code;

		assert_true(q3_seq_reserve(seq, t->n));
		assert_int_equal(pthread_create(&thread, NULL, stop_soon, &stop), 0);
		code = q3_forward(rt, &item, 1, &stop, &err);
		pthread_join(thread, NULL);
		assert_true(code == Q3_OK || code == Q3_ERR_CANCELLED);
		cancelled += code == Q3_ERR_CANCELLED;
		assert_int_equal(q3_seq_length(seq), code == Q3_OK ? t->n : 0);
		if (code == Q3_ERR_CANCELLED)
			assert_int_equal(q3_forward(rt, &item, 1, NULL, &err), Q3_OK);
		check_logits(t, &item, 0, TINY_VOCAB);
		q3_seq_free(seq);
		test_free(logits);
	}
	assert_true(cancelled >= 6);
	for (int i = 0; i < MAX_SEQS; i++)
		test_free(texts[i].logits);
	q3_runtime_free(rt);
	q3_model_free(m);
}

/* ---- The pool of threads ---- */

typedef struct tally
{
	int counts[100];
	atomic_int threads[4];
	atomic_bool stop;
} tally;

static void
count_chunk(void *arg, int32_t chunk, int32_t thread)
{
	tally *t = arg;

	t->counts[chunk]++; /* plain: no two threads may have the same chunk */
	atomic_fetch_add(&t->threads[thread], 1);
}

static void
stop_at_chunk(void *arg, int32_t chunk, int32_t thread)
{
	tally *t = arg;

	count_chunk(arg, chunk, thread);
	if (chunk == 10)
		atomic_store(&t->stop, true);
}

static void
test_threads(void **state)
{
	(void) state;
	for (int32_t n = 1; n <= 4; n++)
	{
		q3_threads *threads = q3_threads_create(n, NULL);
		tally t = {0};
		int done = 0;

		assert_int_equal(q3_threads_count(threads), n);
		for (int round = 0; round < 2000; round++)
		{
			/* Now and then long enough a pause for the workers to fall asleep. */
			if (round % 200 == 0)
				nanosleep(&(struct timespec){0, 200000}, NULL);
			assert_true(q3_threads_run(threads, count_chunk, &t, round % 101, NULL));
		}
		for (int i = 0; i < 100; i++)
		{
			int expected = 0;

			for (int round = 0; round < 2000; round++)
				expected += i < round % 101;
			assert_int_equal(t.counts[i], expected);
		}
		memset(t.counts, 0, sizeof(t.counts));
		assert_false(q3_threads_run(threads, stop_at_chunk, &t, 100, &t.stop));
		for (int i = 0; i < 100; i++)
			done += t.counts[i];
		assert_true(done >= 11);
		assert_false(q3_threads_run(threads, count_chunk, &t, 100, &t.stop));
		q3_threads_free(threads);
	}
	assert_null(q3_threads_create(0, NULL));
	assert_null(q3_threads_create(Q3_MAX_THREADS + 1, NULL));
	assert_true(q3_threads_available() >= 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_info),           cmocka_unit_test(test_digest),
	    cmocka_unit_test(test_refused_models), cmocka_unit_test(test_forward_errors),
	    cmocka_unit_test(test_runtime),        cmocka_unit_test(test_schedules),
	    cmocka_unit_test(test_cancel),         cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
