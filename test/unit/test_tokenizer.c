/*
 * test_tokenizer.c: the tokenizer against the models' own, against a naive one, and against files
 * that lie.
 *
 * Runs from the top of the source tree, with the vocabulary and the cases in test/data.
 * QWEN3DM_DEMO_MODEL, when it names SmolLM2's GGUF file, adds the cases for its vocabulary.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <utf8proc.h>

#include "qwen3_vocab.h"

static q3_tokenizer *qwen3;
static small_vocab small;

static int
set_up(void **state)
{
	(void) state;
	qwen3 = qwen3_tokenizer("qwen2");
	return 0;
}

static int
tear_down(void **state)
{
	(void) state;
	q3_tokenizer_free(qwen3);
	return 0;
}

static q3_tokens
encode_n(const q3_tokenizer *tok, const char *text, size_t len, bool special)
{
	q3_tokens out = {0};
	q3_error err = {0};

	assert_int_equal(q3_tokenizer_encode(tok, text, len, special, &out, &err), Q3_OK);
	return out;
}

static q3_tokens
encode(const q3_tokenizer *tok, const char *text)
{
	return encode_n(tok, text, strlen(text), false);
}

/* The pieces of the tokens, joined and ended with NUL; the caller frees. */
static char *
decode(const q3_tokenizer *tok, const q3_tokens *tokens, size_t *len)
{
	gguf_builder b = {0};

	for (size_t i = 0; i < tokens->n; i++)
	{
		size_t n;
		const char *piece = q3_tokenizer_piece(tok, tokens->ids[i], &n);

		assert_non_null(piece);
		put_raw(&b, piece, n);
	}
	*len = b.n;
	put_u8(&b, 0);
	return (char *) b.data;
}

#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})

/* Compares the tokens with expected, which ends with -1, and frees them. */
static void
expect(q3_tokens got, const int32_t *expected)
{
	size_t n = 0;

	while (expected[n] >= 0)
		n++;
	assert_int_equal(got.n, n);
	if (n > 0)
		assert_memory_equal(got.ids, expected, n * sizeof(*expected));
	q3_tokens_free(&got);
}

/* ------------------------------------------------------------------------------------------
 * Files of cases
 * ------------------------------------------------------------------------------------------ */

/*
 * cJSON cannot hold NUL characters, so a stand-in is parsed (no text of the cases has U+F8FF).
 */
static void
hide_nuls(char *line)
{
	for (char *at = line; (at = strstr(at, "\\u0000")) != NULL;)
		memcpy(at, "\\uf8ff", 6);
}

static size_t
show_nuls(char *text)
{
	char *out = text;

	for (const char *at = text; *at != '\0'; out++)
	{
		bool nul = strncmp(at, "\xef\xa3\xbf", 3) == 0;

		*out = nul ? '\0' : *at;
		at += nul ? 3 : 1;
	}
	return (size_t) (out - text);
}

static bool
case_passes(const q3_tokenizer *tok, const cJSON *c)
{
	const cJSON *ids = cJSON_GetObjectItem(c, "ids"), *id;
	char *text = cJSON_GetObjectItem(c, "text")->valuestring;
	bool special = cJSON_IsTrue(cJSON_GetObjectItem(c, "special"));
	q3_tokens got = encode_n(tok, text, show_nuls(text), special);
	bool same = got.n == (size_t) cJSON_GetArraySize(ids);
	size_t i = 0;

	cJSON_ArrayForEach(id, ids) same = same && got.ids[i++] == id->valueint;
	q3_tokens_free(&got);
	if (!same)
		print_error("differs: %s\n", text);
	return same;
}

/* Checks the cases of a file that are for this pre-tokenizer; the file must have at least some. */
static void
check_cases(const q3_tokenizer *tok, const char *path, const char *pre, int at_least)
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t capacity = 0;
	int n = 0, n_passed = 0;

	assert_non_null(f);
	while (getline(&line, &capacity, f) > 0)
	{
		cJSON *c;
		const cJSON *c_pre;

		hide_nuls(line);
		c = cJSON_Parse(line);
		assert_non_null(c);
		c_pre = cJSON_GetObjectItem(c, "pre");
		if (c_pre == NULL || strcmp(c_pre->valuestring, pre) == 0)
		{
			n++;
			n_passed += case_passes(tok, c);
		}
		cJSON_Delete(c);
	}
	free(line);
	fclose(f);
	print_message("%s, %s: %d of %d cases\n", path, pre, n_passed, n);
	assert_int_equal(n_passed, n);
	assert_true(n >= at_least);
}

static void
test_qwen3_cases(void **state)
{
	(void) state;
	check_cases(qwen3, "test/data/qwen3-tokenizer/cases.jsonl", "qwen2", 257);
	check_cases(qwen3, "test/data/qwen3-tokenizer/more.jsonl", "qwen2", 250);
}

static void
test_other_splits(void **state)
{
	static const char *const pres[] = {"smollm", "gpt-2"};

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		q3_tokenizer *tok = qwen3_tokenizer(pres[i]);

		check_cases(tok, "test/data/qwen3-tokenizer/more.jsonl", pres[i], 120);
		q3_tokenizer_free(tok);
	}
}

static void
test_demo_model(void **state)
{
	const char *path = getenv("QWEN3DM_DEMO_MODEL");
	q3_error err = {0};
	q3_gguf *g;
	q3_tokenizer *tok;

	(void) state;
	if (path == NULL || strstr(path, "SmolLM2") == NULL)
	{
		print_message("QWEN3DM_DEMO_MODEL does not name SmolLM2: its cases are left out\n");
		skip();
	}
	g = q3_gguf_open(path, &err);
	assert_non_null(g);
	tok = q3_tokenizer_create(g, &err);
	q3_gguf_close(g);
	assert_non_null(tok);
	check_cases(tok, "test/data/smollm2-tokenizer/cases.jsonl", "smollm", 250);
	q3_tokenizer_free(tok);
}

/* ------------------------------------------------------------------------------------------
 * Qwen3's vocabulary
 * ------------------------------------------------------------------------------------------ */

static void
test_special(void **state)
{
	const q3_special *s = q3_tokenizer_special(qwen3);

	(void) state;
	assert_int_equal(q3_tokenizer_n_vocab(qwen3), QWEN3_N_VOCAB);
	assert_int_equal(s->bos, 151643);
	assert_int_equal(s->eos, 151645);
	assert_int_equal(s->pad, 151643);
	assert_int_equal(s->im_start, 151644);
	assert_int_equal(s->im_end, 151645);
	assert_int_equal(s->endoftext, 151643);
	assert_int_equal(s->think_start, 151667);
	assert_int_equal(s->think_end, 151668);
	assert_false(s->add_bos);
	assert_int_equal(s->text_end, 151643);
	assert_true(q3_tokenizer_is_end(qwen3, 151645));
	assert_true(q3_tokenizer_is_end(qwen3, 151643));
	assert_false(q3_tokenizer_is_end(qwen3, 151644));
	assert_false(q3_tokenizer_is_end(qwen3, -1));
}

static void
test_questions(void **state)
{
	size_t len = 99;

	(void) state;
	assert_int_equal(q3_tokenizer_find(qwen3, " world", 6), 1879);
	assert_int_equal(q3_tokenizer_find(qwen3, "<think>", 7), 151667);
	assert_int_equal(q3_tokenizer_find(qwen3, "no such token", 13), -1);
	assert_int_equal(q3_tokenizer_find(qwen3, "", 0), -1);
	assert_int_equal(q3_tokenizer_kind(qwen3, 0), Q3_TOKEN_NORMAL);
	assert_int_equal(q3_tokenizer_kind(qwen3, 151645), Q3_TOKEN_CONTROL);
	assert_int_equal(q3_tokenizer_kind(qwen3, 151667), Q3_TOKEN_USER_DEFINED);
	assert_int_equal(q3_tokenizer_kind(qwen3, QWEN3_N_VOCAB), Q3_TOKEN_UNKNOWN);
	assert_memory_equal(q3_tokenizer_piece(qwen3, 1879, &len), " world", 6);
	assert_int_equal(len, 6);
	assert_memory_equal(q3_tokenizer_piece(qwen3, 151645, &len), "<|im_end|>", 10);
	assert_int_equal(len, 10);
	assert_null(q3_tokenizer_piece(qwen3, QWEN3_N_VOCAB, &len));
	assert_null(q3_tokenizer_piece(qwen3, -1, &len));
	assert_int_equal(len, 0);
}

/* Every added token's text is ordinary text until asked for, also in the middle of other text. */
static void
test_added_tokens(void **state)
{
	(void) state;
	for (int32_t id = 151643; id < QWEN3_N_VOCAB; id++)
	{
		char text[64];
		size_t len;
		const char *piece = q3_tokenizer_piece(qwen3, id, &len);
		q3_tokens got;

		snprintf(text, sizeof(text), "a %.*s\n", (int) len, piece);
		got = encode(qwen3, text);
		for (size_t i = 0; i < got.n; i++)
			assert_true(got.ids[i] < 151643);
		q3_tokens_free(&got);
		expect(encode_n(qwen3, text, strlen(text), true), IDS(64, 220, id, 198));
	}
}

/* Decoding gives back the text in NFC. */
static void
test_round_trip(void **state)
{
	static const char *const texts[] = {
	    "The quick brown fox\n\n  jumps over 13 lazy dogs.\t\r\n",
	    "Cafe\xcc\x81 Tie\xcc\x82\xcc\x81ng Vie\xcc\xa3\xcc\x82t",
	    "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab\xe1\x84\x80\xe1\x85\xb3\xe1\x86\xaf", /* jamo */
	    "\xe2\x84\xab \xe2\x84\xa6 \xe0\xa5\x98 \xf0\x9d\x85\x9e",                  /* singletons */
	    "a\xcc\x81\xcc\x96\xcc\x81\xcc\x96\xcc\xa3 \xcc\x96",
	};

	(void) state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
	{
		char *nfc = (char *) utf8proc_NFC((const utf8proc_uint8_t *) texts[i]);
		q3_tokens got = encode(qwen3, texts[i]);
		size_t len;
		char *text = decode(qwen3, &got, &len);

		assert_string_equal(text, nfc);
		free(text);
		free(nfc);
		q3_tokens_free(&got);
	}
}

static void
test_invalid_utf8(void **state)
{
	static const struct
	{
		const char *text, *repaired;
	} cases[] = {
	    {"a\xff"
	     "b",
	     "a\xef\xbf\xbd"
	     "b"},
	    {"\xc3", "\xef\xbf\xbd"},
	    {"\xe4\xbd", "\xef\xbf\xbd"},                             /* cut: one part */
	    {"\xf0\x9f\x98x", "\xef\xbf\xbdx"},                       /* cut */
	    {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* long form */
	    {"\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* long form */
	    {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
	    {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
	    {"\x80\xe4\xbd\xa0\xe4", "\xef\xbf\xbd\xe4\xbd\xa0\xef\xbf\xbd"},
	};

	(void) state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
	{
		/* Without the NUL behind it, so that reading too far shows. */
		size_t len = strlen(cases[i].text);
		char *text = malloc(len);
		q3_tokens want = encode(qwen3, cases[i].repaired), got;

		assert_non_null(text);
		memcpy(text, cases[i].text, len);
		got = encode_n(qwen3, text, len, false);
		assert_int_equal(got.n, want.n);
		assert_memory_equal(got.ids, want.ids, want.n * sizeof(*want.ids));
		q3_tokens_free(&got);
		q3_tokens_free(&want);
		free(text);
	}
}

static void
test_edges(void **state)
{
	q3_tokens out = {0};
	q3_error err = {0};

	(void) state;
	assert_int_equal(q3_tokenizer_encode(qwen3, NULL, 0, true, &out, &err), Q3_OK);
	assert_int_equal(out.n, 0);
	expect(encode_n(qwen3, "a\0b", 3, false), IDS(64, 188, 65));
	/* Nobody reads text that is refused for its length. */
	assert_int_equal(q3_tokenizer_encode(qwen3, "", ((size_t) 1 << 30) + 1, false, &out, &err),
	                 Q3_ERR_TOO_LONG);
	assert_true(q3_tokens_push(&out, 5));
	assert_int_equal(q3_tokenizer_encode(qwen3, "a", 1, false, &out, &err), Q3_OK);
	expect(out, IDS(5, 64));
}

/* Words of megabytes: quadratic work would take hours. */
static void
test_long_words(void **state)
{
	size_t len = 2000000, n_text;
	char *text = malloc(len), *back;
	q3_tokens got;

	(void) state;
	assert_non_null(text);
	memset(text, 'a', len);
	got = encode_n(qwen3, text, len, false);
	back = decode(qwen3, &got, &n_text);
	assert_int_equal(n_text, len);
	assert_memory_equal(back, text, len);
	assert_true(got.n <= len / 8 + 8); /* the longest run of a's in the vocabulary has eight */
	free(back);
	q3_tokens_free(&got);

	/* Combining marks, every second one out of order. */
	for (size_t i = 0; i < len; i += 4)
		memcpy(text + i, "\xcc\x81\xcc\x96", 4);
	got = encode_n(qwen3, text, len, false);
	back = decode(qwen3, &got, &n_text);
	assert_int_equal(n_text, len);
	assert_memory_equal(back, "\xcc\x96\xcc\x96\xcc\x96\xcc\x96", 8);
	assert_memory_equal(back + len - 8, "\xcc\x81\xcc\x81\xcc\x81\xcc\x81", 8);
	free(back);
	free(text);
	q3_tokens_free(&got);
}

static const char shared_text[] = "The tokenizer's 12 threads, na\xc3\xafve or not: Cafe\xcc\x81 "
                                  "\xe6\xb7\xb7\xe5\x90\x88\n\n  <|im_end|>";

static void *
encode_often(void *arg)
{
	const q3_tokens *want = arg;

	for (int i = 0; i < 200; i++)
	{
		q3_tokens got = {0};

		if (q3_tokenizer_encode(qwen3, shared_text, strlen(shared_text), false, &got, NULL) !=
		        Q3_OK ||
		    got.n != want->n || memcmp(got.ids, want->ids, got.n * sizeof(*got.ids)) != 0)
			return arg;
		q3_tokens_free(&got);
	}
	return NULL;
}

/* A tokenizer is shared: four threads at once get what one gets. */
static void
test_threads(void **state)
{
	q3_tokens want = encode(qwen3, shared_text);
	pthread_t threads[4];
	void *failed;

	(void) state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &want), 0);
	for (int i = 0; i < 4; i++)
	{
		assert_int_equal(pthread_join(threads[i], &failed), 0);
		assert_null(failed);
	}
	q3_tokens_free(&want);
}

/* ------------------------------------------------------------------------------------------
 * Merging against the plainest implementation
 * ------------------------------------------------------------------------------------------ */

static uint32_t random_state = 1;

static uint32_t
random_below(uint32_t n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % n;
}

/* Rules over a, b and c, in an order that no training gives: parts may come after wholes. */
static void
random_rules(void)
{
	static const char letters[] = "abc";
	int n = 1 + (int) random_below(40);

	small_begin(&small, "qwen2");
	for (int i = 0; i < n; i++)
	{
		char rule[64];
		int left = 1 + (int) random_below(3), right = 1 + (int) random_below(3), at = 0;

		for (int j = 0; j < left + 1 + right; j++)
			rule[at++] = j == left ? ' ' : letters[random_below(3)];
		rule[at] = '\0';
		small_merge(&small, rule);
		rule[left] = '\0';
		if (!small_has(&small, rule, (size_t) left))
			small_token(&small, rule, Q3_TOKEN_NORMAL);
		if (!small_has(&small, rule + left + 1, (size_t) right))
			small_token(&small, rule + left + 1, Q3_TOKEN_NORMAL);
	}
}

/* Cuts text into pieces and applies the rules one by one; returns the pieces' lengths. */
static size_t
naive_merge(const char *text, size_t len, size_t *lens)
{
	size_t n = len;

	for (size_t i = 0; i < n; i++)
		lens[i] = 1;
	for (;;)
	{
		size_t best_rule = small.n_merges, best = 0;
		const char *at = text;

		for (size_t i = 0; i + 1 < n; at += lens[i++])
			for (size_t r = 0; r < best_rule; r++)
			{
				q3_str rule = small.merges[r];
				size_t left =
				    (size_t) ((const char *) memchr(rule.data, ' ', rule.len) - rule.data);

				if (left != lens[i] || rule.len - left - 1 != lens[i + 1] ||
				    memcmp(rule.data, at, left) != 0 ||
				    memcmp(rule.data + left + 1, at + left, lens[i + 1]) != 0)
					continue;
				best_rule = r;
				best = i;
			}
		if (best_rule == small.n_merges)
			return n;
		lens[best] += lens[best + 1];
		memmove(lens + best + 1, lens + best + 2, (n - best - 2) * sizeof(*lens));
		n--;
	}
}

static void
test_random_merges(void **state)
{
	(void) state;
	for (int round = 0; round < 60; round++)
	{
		q3_tokenizer *tok;

		random_rules();
		tok = small_tokenizer(&small);
		for (int i = 0; i < 12; i++)
		{
			char text[400];
			size_t lens[400], len = 1 + random_below(i < 9 ? 40 : 399), n;
			q3_tokens got;

			for (size_t j = 0; j < len; j++)
				text[j] = "abc"[random_below(round % 2 == 0 ? 2 : 3)];
			got = encode_n(tok, text, len, false);
			n = naive_merge(text, len, lens);
			assert_int_equal(got.n, n);
			for (size_t j = 0; j < n; j++)
			{
				size_t piece_len;

				q3_tokenizer_piece(tok, got.ids[j], &piece_len);
				assert_int_equal(piece_len, lens[j]);
			}
			q3_tokens_free(&got);
		}
		q3_tokenizer_free(tok);
	}
}

/* ------------------------------------------------------------------------------------------
 * Vocabularies that were not made by friends
 * ------------------------------------------------------------------------------------------ */

/* Rules that build the text of control tokens, and of one called so only by its text. */
static void
test_merges_into_control(void **state)
{
	static const char *const rules[] = {"s t", "st o",    "sto p",   "x y",
	                                    "p q", "< think", "<think >"};
	int32_t control, user, think;
	q3_tokenizer *tok;

	(void) state;
	small_begin(&small, "qwen2");
	control = small_token(&small, "stop", Q3_TOKEN_CONTROL);
	user = small_token(&small, "xy", Q3_TOKEN_USER_DEFINED);
	small_token(&small, "pq", Q3_TOKEN_UNUSED);
	small_token(&small, "think", Q3_TOKEN_NORMAL);
	for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
		small_merge(&small, rules[i]);
	tok = small_tokenizer(&small);
	expect(encode(tok, "stop"), IDS(q3_tokenizer_find(tok, "sto", 3), 'p'));
	expect(encode(tok, "xypq"), IDS('x', 'y', 'p', 'q'));
	expect(encode_n(tok, "stopxypq", 8, true), IDS(control, user, 'p', 'q'));
	think = q3_tokenizer_special(tok)->think_start;
	assert_int_equal(think, q3_tokenizer_find(tok, "<think>", 7));
	assert_int_equal(q3_tokenizer_kind(tok, think), Q3_TOKEN_NORMAL);
	expect(encode(tok, "<think>"), IDS('<', 't', 'h', 'i', 'n', 'k', '>'));
	expect(encode_n(tok, "<think>", 7, true), IDS(think));
	q3_tokenizer_free(tok);
}

/* Bytes whose only token is a control token give nothing; two tokens may have the same text. */
static void
test_bytes_and_repetitions(void **state)
{
	int32_t control;
	q3_tokenizer *tok;

	(void) state;
	small_begin(&small, "qwen2");
	small.kinds['a'] = Q3_TOKEN_CONTROL;
	control = small_token(&small, "bc", Q3_TOKEN_CONTROL);
	small_merge(&small, "d e");
	small_token(&small, "de", Q3_TOKEN_NORMAL);
	small.merges[small.n_merges++] = str("b c"); /* its result exists, and is a control token */
	small_token(&small, "\xe4\xbd\xa0",
	            Q3_TOKEN_NORMAL); /* not in the byte alphabet: never found */
	small_token(&small, "", Q3_TOKEN_NORMAL);
	small_token(&small, "", Q3_TOKEN_CONTROL);
	tok = small_tokenizer(&small);
	expect(encode(tok, "abcde"), IDS('b', 'c', 258 - 1));
	expect(encode_n(tok, "abcde", 5, true), IDS('a', control, 258 - 1));
	expect(encode(tok, "\xe4\xbd\xa0"), IDS(0xe4, 0xbd, 0xa0));
	q3_tokenizer_free(tok);
}

/* Of several added tokens that begin at the same place the longest is taken. */
static void
test_longest_added(void **state)
{
	int32_t short_one, long_one;
	q3_tokenizer *tok;

	(void) state;
	small_begin(&small, "qwen2");
	short_one = small_token(&small, "<a>", Q3_TOKEN_CONTROL);
	long_one = small_token(&small, "<a><b>", Q3_TOKEN_USER_DEFINED);
	tok = small_tokenizer(&small);
	expect(encode_n(tok, "<a><b><a><b<a>", 14, true),
	       IDS(long_one, short_one, '<', 'b', short_one));
	q3_tokenizer_free(tok);
}

static void
expect_error(q3_code code, const char *part_of_message)
{
	q3_error err = {0};
	q3_tokenizer *tok = small_create(&small, &err);

	assert_null(tok);
	assert_int_equal(err.code, code);
	if (strstr(err.message, part_of_message) == NULL)
		fail_msg("\"%s\" does not contain \"%s\"", err.message, part_of_message);
}

static void
test_bad_files(void **state)
{
	(void) state;
	small_begin(&small, "qwen2");
	small.model = "llama";
	expect_error(Q3_ERR_UNSUPPORTED, "\"llama\"");
	small.model = NULL;
	expect_error(Q3_ERR_FORMAT, "tokenizer.ggml.model");
	small_begin(&small, "falcon");
	expect_error(Q3_ERR_UNSUPPORTED, "\"falcon\"");
	small.pre = "\xff\n";
	expect_error(Q3_ERR_UNSUPPORTED, "\"??\"");
	small.pre = NULL;
	expect_error(Q3_ERR_UNSUPPORTED, "pre-tokenizer");
	small_begin(&small, "qwen2");
	small.n_tokens = small.n_kinds = 0;
	expect_error(Q3_ERR_FORMAT, "tokenizer.ggml.tokens");
	small_begin(&small, "qwen2");
	small.n_kinds--;
	expect_error(Q3_ERR_FORMAT, "256 tokens but 255 token types");
	small_begin(&small, "qwen2");
	small.kinds[7] = 9;
	expect_error(Q3_ERR_FORMAT, "token 7 has the unknown type 9");
	small_begin(&small, "qwen2");
	small.eos = 256;
	expect_error(Q3_ERR_FORMAT, "eos_token_id is 256");
}

static int32_t
text_end(void)
{
	q3_tokenizer *tok = small_tokenizer(&small);
	int32_t id = q3_tokenizer_special(tok)->text_end;

	q3_tokenizer_free(tok);
	return id;
}

/* The token after a text whose vector is wanted. */
static void
test_text_end(void **state)
{
	int32_t end;

	(void) state;
	small_begin(&small, "qwen2");
	assert_int_equal(text_end(), -1);
	small.eos = 7;
	assert_int_equal(text_end(), 7);
	end = small_token(&small, "<|endoftext|>", Q3_TOKEN_CONTROL);
	assert_int_equal(text_end(), end); /* eos ends a turn */
	small.add_eos = true;
	assert_int_equal(text_end(), 7); /* the file says so */
	small.eos = -1;
	assert_int_equal(text_end(), end);
}

static void
test_bad_merges(void **state)
{
	static const char *const not_two[] = {"ab", "", " ", "a ", " a"};
	static const char *const absent[] = {"a b",   "aa b",           "a bb",
	                                     "a b c", "\xe4\xbd\xa0 a", "a \xff"};

	(void) state;
	for (size_t i = 0; i < sizeof(not_two) / sizeof(*not_two); i++)
	{
		small_begin(&small, "qwen2");
		small.merges[small.n_merges++] = str(not_two[i]);
		expect_error(Q3_ERR_FORMAT, "merge rule 0 does not consist of two tokens");
	}
	for (size_t i = 0; i < sizeof(absent) / sizeof(*absent); i++)
	{
		small_begin(&small, "qwen2");
		small_merge(&small, "x y");
		small.merges[small.n_merges++] = str(absent[i]);
		expect_error(Q3_ERR_FORMAT, "merge rule 1 names a token");
	}
}

/* Token lists of random bytes and kinds: an error or a tokenizer that works, but no crash. */
static void
test_random_vocabularies(void **state)
{
	(void) state;
	for (int round = 0; round < 300; round++)
	{
		int n = (int) random_below(60);
		q3_error err = {0};
		q3_tokenizer *tok;

		small_begin(&small, round % 2 == 0 ? "qwen2" : "smollm");
		if (round % 3 == 0)
			small.n_tokens = small.n_kinds = random_below(256);
		for (int i = 0; i < n; i++)
		{
			char bytes[8];
			size_t len = random_below(8);

			for (size_t j = 0; j < len; j++)
				bytes[j] = (char) random_below(round % 5 == 0 ? 256 : 128);
			small_token_n(&small, bytes, len, (q3_token_kind) (1 + random_below(6)));
		}
		tok = small_create(&small, &err);
		if (tok == NULL)
		{
			assert_int_equal(err.code, Q3_ERR_FORMAT);
			continue;
		}
		for (int special = 0; special < 2; special++)
		{
			q3_tokens got =
			    encode_n(tok, "some \xe4\xbd\xa0 text <|im_end|> \x01\x80 12", 27, special);

			for (size_t i = 0; i < got.n; i++)
				assert_true(got.ids[i] >= 0 && got.ids[i] < q3_tokenizer_n_vocab(tok));
			for (size_t i = 0; i < got.n && !special; i++)
				assert_int_equal(q3_tokenizer_kind(tok, got.ids[i]), Q3_TOKEN_NORMAL);
			q3_tokens_free(&got);
		}
		q3_tokenizer_free(tok);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_qwen3_cases),
	    cmocka_unit_test(test_other_splits),
	    cmocka_unit_test(test_demo_model),
	    cmocka_unit_test(test_special),
	    cmocka_unit_test(test_questions),
	    cmocka_unit_test(test_added_tokens),
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_invalid_utf8),
	    cmocka_unit_test(test_edges),
	    cmocka_unit_test(test_long_words),
	    cmocka_unit_test(test_threads),
	    cmocka_unit_test(test_random_merges),
	    cmocka_unit_test(test_merges_into_control),
	    cmocka_unit_test(test_bytes_and_repetitions),
	    cmocka_unit_test(test_longest_added),
	    cmocka_unit_test(test_bad_files),
	    cmocka_unit_test(test_text_end),
	    cmocka_unit_test(test_bad_merges),
	    cmocka_unit_test(test_random_vocabularies),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
