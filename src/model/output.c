/*
 * output.c: from generated tokens to text.
 *
 * Every token's bytes go through one pipe: cut into whole UTF-8 characters (an unfinished one waits
 * for the next token), into the thinking or the value, and for the value past the stop strings.
 * Each stop string has a Knuth-Morris-Pratt automaton that reads the value once; its state is how
 * many bytes at the end of the value could be the beginning of a match, and so must be held back.
 * Because the automata read single bytes, the answer does not depend on how the text was cut into
 * tokens.
 *
 * A q3_output and its buffers belong to one request; the thread that drives that request calls it.
 */
#include "model/output.h"

#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"

#define MAX_UTF8 4
#define REPLACEMENT "\xef\xbf\xbd"

typedef struct buffer
{
	char *data;
	size_t len, capacity;
} buffer;

typedef struct stop_string
{
	char *text;
	size_t len;
	size_t *fallback; /* [i]: length of the longest proper border of text[0..i] */
	size_t matched;   /* bytes of text that end the value right now */
} stop_string;

struct q3_output
{
	const q3_tokenizer *tok;
	stop_string *stops;
	size_t n_stops;
	int32_t max_tokens, n_tokens;
	q3_finish finish;
	bool keep_thinking;
	bool in_thinking; /* between <think> and </think> */
	bool has_thought;
	bool failed; /* out of memory */
	char tail[MAX_UTF8];
	size_t tail_len; /* of a character that is not whole yet */
	buffer value, thinking;
	size_t taken; /* bytes of value that q3_output_take() has given out */
};

/* ---------------------------------------------------------------------------------------------
 * Small things
 * --------------------------------------------------------------------------------------------- */

static bool
append(buffer *b, const char *data, size_t n)
{
	if (n > b->capacity - b->len)
	{
		size_t capacity = (b->len + n) * 2;
		char *grown = capacity > b->len ? realloc(b->data, capacity) : NULL;

		if (grown == NULL)
			return false;
		b->data = grown;
		b->capacity = capacity;
	}
	memcpy(b->data + b->len, data, n);
	b->len += n;
	return true;
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Length of the character or of the maximal invalid part at s; 0 when s[0..n) is the beginning of a
 * character that is not whole. *text is what it becomes: itself, or U+FFFD for what PostgreSQL's
 * text cannot hold.
 */
static size_t
next_character(const char *s, size_t n, const char **text, size_t *text_len)
{
	unsigned char lead = (unsigned char) s[0];
	uint32_t c;
	size_t len = q3_utf8_decode((const uint8_t *) s, (const uint8_t *) s + n, &c);
	bool bad = c == Q3_UTF8_INVALID || c == 0;

	if (c == Q3_UTF8_INVALID && len == n && lead >= 0xc2 && lead <= 0xf4)
		return 0;
	*text = bad ? REPLACEMENT : s;
	*text_len = bad ? sizeof(REPLACEMENT) - 1 : len;
	return len;
}

static bool
is_valid_utf8(q3_str s)
{
	const char *text;
	size_t text_len;

	for (size_t i = 0, len; i < s.len; i += len)
	{
		len = next_character(s.data + i, s.len - i, &text, &text_len);
		if (len == 0 || text != s.data + i)
			return false;
	}
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * Stop strings
 * --------------------------------------------------------------------------------------------- */

/* The state after one more byte. */
static size_t
stop_step(const stop_string *s, size_t matched, char c)
{
	while (matched > 0 && (matched == s->len || s->text[matched] != c))
		matched = s->fallback[matched - 1];
	return matched + (s->text[matched] == c);
}

static bool
stop_init(stop_string *s, q3_str text)
{
	s->len = text.len;
	s->text = malloc(text.len);
	s->fallback = calloc(text.len, sizeof(*s->fallback));
	if (s->text == NULL || s->fallback == NULL)
		return false;
	memcpy(s->text, text.data, text.len);
	for (size_t i = 1; i < s->len; i++)
		s->fallback[i] = stop_step(s, s->fallback[i - 1], s->text[i]);
	return true;
}

/* Bytes at the end of the value that the next tokens could still turn into a stop string. */
static size_t
held_back(const q3_output *o)
{
	size_t most = 0;

	if (o->finish != Q3_FINISH_NONE)
		return 0;
	for (size_t i = 0; i < o->n_stops; i++)
		if (o->stops[i].matched > most)
			most = o->stops[i].matched;
	return most;
}

/*
 * Adds text to the value byte by byte until a stop string is complete; that ends the answer, and
 * the longest of those that end here is cut off.
 */
static void
add_value(q3_output *o, const char *text, size_t n)
{
	while (o->has_thought && o->value.len == 0 && n > 0 && is_space(*text))
	{
		text++;
		n--;
	}
	for (size_t i = 0; i < n && o->finish == Q3_FINISH_NONE && !o->failed; i++)
	{
		size_t cut = 0;

		o->failed = !append(&o->value, text + i, 1);
		for (size_t k = 0; k < o->n_stops; k++)
		{
			stop_string *s = &o->stops[k];

			s->matched = stop_step(s, s->matched, text[i]);
			if (s->matched == s->len && s->len > cut)
				cut = s->len;
		}
		if (cut > 0 && !o->failed)
		{
			o->value.len -= cut;
			o->finish = Q3_FINISH_STOP;
		}
	}
}

/* ---------------------------------------------------------------------------------------------
 * The pipe
 * --------------------------------------------------------------------------------------------- */

static void
add_text(q3_output *o, const char *text, size_t n)
{
	if (!o->in_thinking)
		add_value(o, text, n);
	else if (o->keep_thinking && !append(&o->thinking, text, n))
		o->failed = true;
}

/* One byte of a token: completes a character, or waits in the tail. */
static void
add_byte(q3_output *o, char byte)
{
	const char *text;
	size_t len, text_len;

	o->tail[o->tail_len++] = byte;
	while (o->tail_len > 0 && (len = next_character(o->tail, o->tail_len, &text, &text_len)) > 0)
	{
		add_text(o, text, text_len);
		o->tail_len -= len;
		memmove(o->tail, o->tail + len, o->tail_len);
	}
}

/* What follows is not the rest of the character in the tail: it never becomes whole. */
static void
flush_tail(q3_output *o)
{
	if (o->tail_len > 0)
		add_text(o, REPLACEMENT, sizeof(REPLACEMENT) - 1);
	o->tail_len = 0;
}

/* Tokens that are not text: control tokens, and the two around thinking. */
static bool
is_text(const q3_output *o, int32_t token)
{
	q3_token_kind kind = q3_tokenizer_kind(o->tok, token);

	if (token == q3_tokenizer_special(o->tok)->im_start) /* some files call it a normal token */
		return false;
	return kind == Q3_TOKEN_NORMAL || kind == Q3_TOKEN_USER_DEFINED || kind == Q3_TOKEN_BYTE;
}

static void
add_token(q3_output *o, int32_t token)
{
	const q3_special *special = q3_tokenizer_special(o->tok);
	size_t len = 0;
	const char *piece = q3_tokenizer_piece(o->tok, token, &len);

	if (token >= 0 && (token == special->think_start || token == special->think_end))
	{
		flush_tail(o);
		o->in_thinking = token == special->think_start;
		o->has_thought = o->has_thought || o->in_thinking;
	}
	else if (piece == NULL || !is_text(o, token))
		flush_tail(o);
	else
		for (size_t i = 0; i < len && o->finish == Q3_FINISH_NONE; i++)
			add_byte(o, piece[i]);
}

bool
q3_output_push(q3_output *o, int32_t token, q3_finish *finish)
{
	if (o->finish == Q3_FINISH_NONE && !o->failed)
	{
		o->n_tokens++;
		if (q3_tokenizer_is_end(o->tok, token))
		{
			flush_tail(o);
			o->finish = Q3_FINISH_STOP;
		}
		else
			add_token(o, token);
		if (o->finish == Q3_FINISH_NONE && o->n_tokens >= o->max_tokens)
			o->finish = Q3_FINISH_LENGTH;
	}
	*finish = o->finish;
	return !o->failed;
}

void
q3_output_end(q3_output *o)
{
	flush_tail(o);
	o->finish = Q3_FINISH_STOP;
}

/* ---------------------------------------------------------------------------------------------
 * Creating, freeing, reading
 * --------------------------------------------------------------------------------------------- */

static bool
check_options(const q3_str *stops, size_t n_stops, int32_t max_tokens, q3_error *err)
{
	if (max_tokens < 1)
	{
		q3_fail(err, Q3_ERR_INVALID, "max_tokens must be at least 1");
		return false;
	}
	for (size_t i = 0; i < n_stops; i++)
	{
		if (stops[i].len == 0)
		{
			q3_fail(err, Q3_ERR_INVALID, "a stop string must not be empty");
			return false;
		}
		if (!is_valid_utf8(stops[i]))
		{
			q3_fail(err, Q3_ERR_INVALID, "a stop string must be valid UTF-8");
			return false;
		}
	}
	return true;
}

q3_output *
q3_output_create(const q3_tokenizer *tok, const q3_str *stops, size_t n_stops, bool thinking,
                 int32_t max_tokens, q3_error *err)
{
	q3_output *o;
	bool ok;

	if (!check_options(stops, n_stops, max_tokens, err))
		return NULL;
	o = calloc(1, sizeof(*o));
	ok = o != NULL;
	if (ok && n_stops > 0)
	{
		o->stops = calloc(n_stops, sizeof(*o->stops));
		o->n_stops = o->stops != NULL ? n_stops : 0;
		ok = o->stops != NULL;
	}
	for (size_t i = 0; ok && i < n_stops; i++)
		ok = stop_init(&o->stops[i], stops[i]);
	if (!ok)
	{
		q3_output_free(o);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	o->tok = tok;
	o->keep_thinking = thinking;
	o->max_tokens = max_tokens;
	return o;
}

void
q3_output_free(q3_output *o)
{
	if (o == NULL)
		return;
	for (size_t i = 0; i < o->n_stops; i++)
	{
		free(o->stops[i].text);
		free(o->stops[i].fallback);
	}
	free(o->stops);
	free(o->value.data);
	free(o->thinking.data);
	free(o);
}

q3_str
q3_output_value(const q3_output *o)
{
	q3_str value = {o->value.data != NULL ? o->value.data : "", o->value.len - held_back(o)};

	return value;
}

q3_str
q3_output_take(q3_output *o)
{
	q3_str value = q3_output_value(o);

	value.data += o->taken;
	value.len -= o->taken;
	o->taken += value.len;
	return value;
}

q3_str
q3_output_thinking(const q3_output *o)
{
	q3_str text = {NULL, 0};

	if (!o->has_thought || !o->keep_thinking)
		return text;
	text.data = o->thinking.data != NULL ? o->thinking.data : "";
	text.len = o->thinking.len;
	while (text.len > 0 && is_space(text.data[0]))
	{
		text.data++;
		text.len--;
	}
	while (text.len > 0 && is_space(text.data[text.len - 1]))
		text.len--;
	return text;
}

int32_t
q3_output_n_tokens(const q3_output *o)
{
	return o->n_tokens;
}

char *
q3_utf8_repair(const char *text, size_t len, size_t *out_len)
{
	buffer out = {malloc(len + 1), 0, len + 1};
	bool ok = out.data != NULL;

	for (size_t i = 0, n; ok && i < len; i += n)
	{
		const char *c = REPLACEMENT;
		size_t c_len = sizeof(REPLACEMENT) - 1;

		n = next_character(text + i, len - i, &c, &c_len);
		ok = append(&out, c, c_len);
		if (n == 0) /* cut off at the end */
			n = len - i;
	}
	if (!ok || !append(&out, "", 1))
	{
		free(out.data);
		return NULL;
	}
	*out_len = out.len - 1;
	return out.data;
}
