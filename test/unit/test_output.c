/*
 * test_output.c: value, thinking, stop strings, whole characters and limits, on a vocabulary of the
 * 256 bytes and a few longer tokens.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "build_gguf.h"
#include "model/output.h"

#define FFFD "\xef\xbf\xbd"

enum
{
	HELLO = 256, /* "Hello" */
	LO_WORLD,    /* "lo world" */
	SMILE_HEAD,  /* first three bytes of U+1F600 */
	TWO_CHARS,   /* end of one e-acute and beginning of another */
	ENDOFTEXT,
	IM_START,
	IM_END,
	THINK,
	END_THINK,
	UNUSED,
	N_TOKENS
};

static q3_gguf *gguf;
static q3_tokenizer *tokenizer;
static gguf_builder file;

/* ---------------------------------------------------------------------------------------------
 * The vocabulary
 * --------------------------------------------------------------------------------------------- */

/* A token's bytes in the byte alphabet of such vocabularies. */
static void
put_token(gguf_builder *b, const char *bytes, size_t n)
{
	char text[64];
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
	{
		unsigned c = (unsigned char) bytes[i];

		if (c < 33)
			c += 256;
		else if (c >= 127 && c <= 160)
			c += 256 + 33 - 127;
		else if (c == 173)
			c = 256 + 67;
		if (c >= 0x80)
		{
			text[len++] = (char) (0xc0 | c >> 6);
			c = 0x80 | (c & 0x3f);
		}
		text[len++] = (char) c;
	}
	put_string_n(b, text, len);
}

static int
setup(void **state)
{
	q3_error err = {0};

	(void) state;
	put_header(&file, 3, 0, 6);
	put_kv_string(&file, "tokenizer.ggml.model", "gpt2");
	put_kv_string(&file, "tokenizer.ggml.pre", "qwen2");
	put_kv_u32(&file, "tokenizer.ggml.eos_token_id", IM_END);
	put_array(&file, "tokenizer.ggml.merges", Q3_GGUF_STRING, 0);
	put_array(&file, "tokenizer.ggml.tokens", Q3_GGUF_STRING, N_TOKENS);
	for (int c = 0; c < 256; c++)
		put_token(&file, &(char){(char) c}, 1);
	put_token(&file, "Hello", 5);
	put_token(&file, "lo world", 8);
	put_token(&file, "\xf0\x9f\x98", 3);
	put_token(&file, "\xa9\xc3", 2);
	put_string(&file, "<|endoftext|>");
	put_string(&file, "<|im_start|>");
	put_string(&file, "<|im_end|>");
	put_string(&file, "<think>");
	put_string(&file, "</think>");
	put_string(&file, "[PAD]");
	put_array(&file, "tokenizer.ggml.token_type", Q3_GGUF_I32, N_TOKENS);
	for (int i = 0; i < N_TOKENS; i++)
		put_u32(&file, i < ENDOFTEXT ? Q3_TOKEN_NORMAL
		               : i < THINK   ? Q3_TOKEN_CONTROL
		               : i < UNUSED  ? Q3_TOKEN_USER_DEFINED
		                             : Q3_TOKEN_UNUSED);
	gguf = q3_gguf_open_memory(file.data, file.n, &err);
	tokenizer = gguf != NULL ? q3_tokenizer_create(gguf, &err) : NULL;
	if (tokenizer == NULL)
		print_error("%s\n", err.message);
	return tokenizer == NULL;
}

static int
teardown(void **state)
{
	(void) state;
	q3_tokenizer_free(tokenizer);
	q3_gguf_close(gguf);
	builder_free(&file);
	return 0;
}

/* ---------------------------------------------------------------------------------------------
 * Helpers
 * --------------------------------------------------------------------------------------------- */

/* An output and everything that it has streamed. */
typedef struct run
{
	q3_output *o;
	q3_finish finish;
	char streamed[4096];
	size_t n;
} run;

static q3_output *
make(const char *const *stops, bool thinking, int32_t max_tokens)
{
	q3_str list[8];
	size_t n = 0;
	q3_error err = {0};
	q3_output *o;

	for (; stops != NULL && stops[n] != NULL; n++)
		list[n] = (q3_str){stops[n], strlen(stops[n])};
	o = q3_output_create(tokenizer, list, n, thinking, max_tokens, &err);
	if (o == NULL)
		fail_msg("%s", err.message);
	return o;
}

static run
start(const char *const *stops, bool thinking, int32_t max_tokens)
{
	run r = {.o = make(stops, thinking, max_tokens)};

	return r;
}

static bool
is_whole_utf8(q3_str s)
{
	size_t n;
	char *repaired = q3_utf8_repair(s.data, s.len, &n);
	bool same;

	assert_non_null(repaired);
	same = n == s.len && memcmp(repaired, s.data, n) == 0;
	free(repaired);
	return same;
}

/* Pushes a token; what streams out must be whole characters and stay a beginning of the value. */
static void
push(run *r, int32_t token)
{
	q3_str more, value;

	assert_true(q3_output_push(r->o, token, &r->finish));
	more = q3_output_take(r->o);
	assert_true(is_whole_utf8(more));
	assert_true(r->n + more.len <= sizeof(r->streamed));
	memcpy(r->streamed + r->n, more.data, more.len);
	r->n += more.len;
	value = q3_output_value(r->o);
	assert_int_equal(value.len, r->n);
	assert_memory_equal(value.data, r->streamed, r->n);
	assert_int_equal(q3_output_take(r->o).len, 0);
}

/* A token for every byte; stops at the end of the answer. */
static void
push_bytes(run *r, const char *s, size_t n)
{
	for (size_t i = 0; i < n && r->finish == Q3_FINISH_NONE; i++)
		push(r, (unsigned char) s[i]);
}

static void
push_text(run *r, const char *s)
{
	push_bytes(r, s, strlen(s));
}

static void
assert_text(q3_str got, const char *want)
{
	if (got.len != strlen(want) || memcmp(got.data, want, got.len) != 0)
		fail_msg("expected \"%s\", got \"%.*s\"", want, (int) got.len, got.data);
}

/* The answer is complete for that reason, with that value. */
static void
assert_done(run *r, q3_finish finish, const char *value)
{
	assert_int_equal(r->finish, finish);
	assert_text((q3_str){r->streamed, r->n}, value);
	assert_text(q3_output_value(r->o), value);
	q3_output_free(r->o);
}

/* ---------------------------------------------------------------------------------------------
 * Ends
 * --------------------------------------------------------------------------------------------- */

static void
test_end_tokens(void **state)
{
	static const int32_t ends[] = {IM_END, ENDOFTEXT};

	(void) state;
	for (int i = 0; i < 2; i++)
	{
		run r = start(NULL, false, 100);

		push(&r, HELLO);
		assert_text((q3_str){r.streamed, r.n}, "Hello"); /* nothing is held back without need */
		push(&r, ends[i]);
		assert_int_equal(q3_output_n_tokens(r.o), 2); /* the end token counts */
		push(&r, HELLO);                              /* too late */
		assert_int_equal(q3_output_n_tokens(r.o), 2);
		assert_null(q3_output_thinking(r.o).data);
		assert_done(&r, Q3_FINISH_STOP, "Hello");
	}
}

static void
test_limit(void **state)
{
	run r = start(NULL, false, 3);

	(void) state;
	push_text(&r, "abcdef");
	assert_int_equal(q3_output_n_tokens(r.o), 3);
	assert_done(&r, Q3_FINISH_LENGTH, "abc");

	r = start(NULL, false, 1); /* an end token at the limit is an end */
	push(&r, IM_END);
	assert_done(&r, Q3_FINISH_STOP, "");
}

static void
test_tokens_that_are_no_text(void **state)
{
	run r = start(NULL, false, 100);

	(void) state;
	push(&r, HELLO);
	push(&r, IM_START);
	push(&r, UNUSED);
	push(&r, -5);
	push(&r, N_TOKENS + 7);
	push(&r, '!');
	assert_int_equal(q3_output_n_tokens(r.o), 6);
	push(&r, IM_END);
	assert_done(&r, Q3_FINISH_STOP, "Hello!");
}

/* ---------------------------------------------------------------------------------------------
 * Characters
 * --------------------------------------------------------------------------------------------- */

static void
test_characters_across_tokens(void **state)
{
	run r = start(NULL, false, 100);

	(void) state;
	push(&r, SMILE_HEAD);
	assert_int_equal(r.n, 0);
	push(&r, 0x80);
	assert_text((q3_str){r.streamed, r.n}, "\xf0\x9f\x98\x80");
	push(&r, 0xc3);
	push(&r, TWO_CHARS);
	assert_text((q3_str){r.streamed, r.n}, "\xf0\x9f\x98\x80\xc3\xa9");
	push(&r, 0xa9);
	push(&r, IM_END);
	assert_done(&r, Q3_FINISH_STOP, "\xf0\x9f\x98\x80\xc3\xa9\xc3\xa9");
}

static void
test_invalid_bytes(void **state)
{
	run r = start(NULL, false, 100);

	(void) state;
	push_bytes(&r, "a\0b\xff\xc0\x80\xed\xa0\x80z\xe2\x82!", 13);
	push(&r, SMILE_HEAD); /* cut by the end: the model broke off, that shows */
	push(&r, IM_END);
	assert_done(&r, Q3_FINISH_STOP, "a" FFFD "b" FFFD FFFD FFFD FFFD FFFD FFFD "z" FFFD "!" FFFD);

	r = start(NULL, false, 2); /* cut by the limit: nothing of it */
	push(&r, HELLO);
	push(&r, SMILE_HEAD);
	assert_done(&r, Q3_FINISH_LENGTH, "Hello");

	r = start(NULL, false, 2); /* no beginning of a character: what is wrong shows */
	push_bytes(&r, "a\xff", 2);
	assert_done(&r, Q3_FINISH_LENGTH, "a" FFFD);

	r = start(NULL, false, 100); /* cut by a control token */
	push(&r, 0xc3);
	push(&r, IM_START);
	push(&r, 0xa9);
	push(&r, IM_END);
	assert_done(&r, Q3_FINISH_STOP, FFFD FFFD);
}

static void
assert_repair(const char *text, size_t len, const char *want)
{
	size_t n;
	char *exact = malloc(len > 0 ? len : 1), *repaired;

	assert_non_null(exact);
	memcpy(exact, text, len);
	repaired = q3_utf8_repair(exact, len, &n);
	assert_non_null(repaired);
	assert_text((q3_str){repaired, n}, want);
	free(repaired);
	free(exact);
}

static void
test_repair(void **state)
{
	(void) state;
	assert_repair("", 0, "");
	assert_repair("plain \xc3\xa9 \xf4\x8f\xbf\xbf", 13, "plain \xc3\xa9 \xf4\x8f\xbf\xbf");
	assert_repair("\0\xff\x80", 3, FFFD FFFD FFFD);
	assert_repair("\xf0\x9f\x98", 3, FFFD);
	assert_repair("\xf0\x9f\x98x\xe2\x82", 6, FFFD "x" FFFD);
	assert_repair("\xf4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD);
	assert_repair("\xc3", 1, FFFD);
}

/* ---------------------------------------------------------------------------------------------
 * Stop strings
 * --------------------------------------------------------------------------------------------- */

static void
test_stop_across_tokens(void **state)
{
	static const char *const stops[] = {"llo wo", NULL};
	run r = start(stops, false, 100);

	(void) state;
	push(&r, HELLO);
	assert_text((q3_str){r.streamed, r.n}, "He"); /* "llo" may be the beginning of a stop */
	push(&r, ' ');
	push(&r, 'w');
	push(&r, 'o');
	assert_int_equal(q3_output_n_tokens(r.o), 4);
	assert_done(&r, Q3_FINISH_STOP, "He");
}

static void
test_stop_that_does_not_come(void **state)
{
	static const char *const stops[] = {"aab", "lo w!", NULL};
	run r = start(stops, false, 100);

	(void) state;
	push_text(&r, "aa");
	assert_int_equal(r.n, 0);
	push_text(&r, "a");
	assert_int_equal(r.n, 1);
	push_text(&r, "c");
	assert_int_equal(r.n, 4);
	push(&r, HELLO);
	assert_int_equal(r.n, 7);
	push(&r, IM_END); /* what was held back is the answer's after all */
	assert_done(&r, Q3_FINISH_STOP, "aaacHello");

	r = start(stops, false, 3);
	push_text(&r, "xaa");
	assert_done(&r, Q3_FINISH_LENGTH, "xaa");
}

/* The first that is complete ends the answer, however tokens cut the text. */
static void
test_which_stop(void **state)
{
	static const char *const early[] = {"world", "o", NULL}, *const same[] = {"rld", "d", "world",
	                                                                          NULL};
	static const char *const inner[] = {"lo wor", "o", NULL};

	(void) state;
	for (int whole = 0; whole < 2; whole++)
	{
		const struct
		{
			const char *const *stops;
			const char *value;
		} cases[] = {{early, "xl"}, {same, "xlo "}, {inner, "xl"}};

		for (int c = 0; c < 3; c++)
		{
			run r = start(cases[c].stops, false, 100);

			push(&r, 'x');
			if (whole)
				push(&r, LO_WORLD);
			else
				push_text(&r, "lo world");
			assert_done(&r, Q3_FINISH_STOP, cases[c].value);
		}
	}
}

static void
test_stop_utf8(void **state)
{
	static const char *const stops[] = {"\xc3\xa9!", NULL};
	run r = start(stops, false, 100);

	(void) state;
	push_text(&r, "a\xc3\xa9");
	assert_int_equal(r.n, 1);
	push_text(&r, "\xc3\xa9");
	assert_int_equal(r.n, 3);
	push_text(&r, "!");
	assert_done(&r, Q3_FINISH_STOP, "a\xc3\xa9");
}

/* Against the plain definition: the shortest text that contains a stop string. */
static void
test_stops_at_random(void **state)
{
	static const char *const stops[] = {"abab", "bb", "aaba", NULL};
	unsigned seed = 1;
	int stopped = 0;

	(void) state;
	for (int round = 0; round < 300; round++)
	{
		char text[16] = {0};
		size_t n_text = 0, end = 15, cut = 15;
		run r = start(stops, false, 100);

		for (; n_text < 15; n_text++)
		{
			seed = seed * 1664525u + 1013904223u;
			text[n_text] = "aabc"[seed >> 30];
		}
		for (size_t e = 1; e <= 15 && end == 15 && cut == 15; e++)
			for (int k = 0; k < 3; k++)
			{
				size_t len = strlen(stops[k]);

				if (len <= e && memcmp(text + e - len, stops[k], len) == 0 && e - len < cut)
				{
					end = e;
					cut = e - len;
				}
			}
		push_text(&r, text);
		stopped += r.finish == Q3_FINISH_STOP;
		if (r.finish == Q3_FINISH_NONE)
			push(&r, IM_END);
		else
			assert_int_equal(q3_output_n_tokens(r.o), end);
		text[cut] = '\0';
		assert_done(&r, Q3_FINISH_STOP, text);
	}
	assert_in_range(stopped, 100, 299);
}

/* ---------------------------------------------------------------------------------------------
 * Thinking
 * --------------------------------------------------------------------------------------------- */

static void
test_thinking(void **state)
{
	static const char *const stops[] = {"stop", NULL};
	run r = start(stops, true, 100);

	(void) state;
	push(&r, THINK);
	push_text(&r, "\n hm, stop here? \n");
	push(&r, HELLO);
	assert_int_equal(r.finish, Q3_FINISH_NONE);
	push_text(&r, "\n\n");
	push(&r, END_THINK);
	push_text(&r, "\n\n");
	assert_int_equal(r.n, 0);
	push_text(&r, "an answer\n");
	push(&r, IM_END);
	assert_text(q3_output_thinking(r.o), "hm, stop here? \nHello");
	assert_int_equal(q3_output_n_tokens(r.o), 1 + 18 + 1 + 2 + 1 + 2 + 10 + 1);
	assert_done(&r, Q3_FINISH_STOP, "an answer\n"); /* only leading white space goes */
}

static void
test_thinking_unfinished(void **state)
{
	run r = start(NULL, true, 4);

	(void) state;
	push(&r, THINK);
	push_text(&r, "\nso");
	push(&r, 0xc3);
	assert_text(q3_output_thinking(r.o), "so");
	assert_done(&r, Q3_FINISH_LENGTH, "");

	r = start(NULL, true, 100);
	push(&r, THINK);
	push(&r, HELLO);
	push(&r, IM_END);
	assert_text(q3_output_thinking(r.o), "Hello");
	assert_done(&r, Q3_FINISH_STOP, "");
}

/* Asked for or not, a block never gets into the value, wherever it stands. */
static void
test_thinking_not_asked_for(void **state)
{
	(void) state;
	for (int thinking = 0; thinking < 2; thinking++)
	{
		run r = start(NULL, thinking, 100);

		push_text(&r, "  one");
		push(&r, THINK);
		push_text(&r, "secret");
		push(&r, THINK);
		push_text(&r, " more");
		push(&r, END_THINK);
		push_text(&r, " two");
		push(&r, END_THINK);
		push_text(&r, ".");
		push(&r, IM_END);
		if (thinking)
			assert_text(q3_output_thinking(r.o), "secret more");
		else
			assert_null(q3_output_thinking(r.o).data);
		assert_done(&r, Q3_FINISH_STOP, "  one two.");
	}
}

static void
test_thinking_empty(void **state)
{
	run r = start(NULL, true, 100);

	(void) state;
	push(&r, THINK);
	push_text(&r, "\n\n");
	push(&r, END_THINK);
	push_text(&r, " \t\r\n x");
	push(&r, IM_END);
	assert_non_null(q3_output_thinking(r.o).data);
	assert_int_equal(q3_output_thinking(r.o).len, 0);
	assert_done(&r, Q3_FINISH_STOP, "x");

	r = start(NULL, true, 100); /* thinking allowed but not done */
	push_text(&r, "\nx");
	push(&r, IM_END);
	assert_null(q3_output_thinking(r.o).data);
	assert_done(&r, Q3_FINISH_STOP, "\nx");
}

/* A character does not begin before a thinking block and end behind it. */
static void
test_thinking_cuts_characters(void **state)
{
	run r = start(NULL, true, 100);

	(void) state;
	push(&r, 0xc3);
	push(&r, THINK);
	push(&r, 0xa9);
	push(&r, 0xe2);
	push(&r, END_THINK);
	push(&r, 0x82);
	push(&r, IM_END);
	assert_text(q3_output_thinking(r.o), FFFD FFFD);
	assert_done(&r, Q3_FINISH_STOP, FFFD FFFD);
}

/* ---------------------------------------------------------------------------------------------
 * Options
 * --------------------------------------------------------------------------------------------- */

static void
assert_invalid(const char *stop, size_t len, int32_t max_tokens, const char *words)
{
	q3_str stops[2] = {{"fine", 4}, {stop, len}};
	q3_error err = {0};

	assert_null(q3_output_create(tokenizer, stops, 2, false, max_tokens, &err));
	assert_int_equal(err.code, Q3_ERR_INVALID);
	assert_non_null(strstr(err.message, words));
}

static void
test_bad_options(void **state)
{
	(void) state;
	assert_invalid("", 0, 10, "empty");
	assert_invalid("\xff", 1, 10, "UTF-8");
	assert_invalid("a\xc3", 2, 10, "UTF-8");
	assert_invalid("fine", 4, 0, "max_tokens");
	assert_invalid("fine", 4, -1, "max_tokens");
	q3_output_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_end_tokens),
	    cmocka_unit_test(test_limit),
	    cmocka_unit_test(test_tokens_that_are_no_text),
	    cmocka_unit_test(test_characters_across_tokens),
	    cmocka_unit_test(test_invalid_bytes),
	    cmocka_unit_test(test_repair),
	    cmocka_unit_test(test_stop_across_tokens),
	    cmocka_unit_test(test_stop_that_does_not_come),
	    cmocka_unit_test(test_which_stop),
	    cmocka_unit_test(test_stop_utf8),
	    cmocka_unit_test(test_stops_at_random),
	    cmocka_unit_test(test_thinking),
	    cmocka_unit_test(test_thinking_unfinished),
	    cmocka_unit_test(test_thinking_not_asked_for),
	    cmocka_unit_test(test_thinking_empty),
	    cmocka_unit_test(test_thinking_cuts_characters),
	    cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
