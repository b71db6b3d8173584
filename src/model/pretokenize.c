/*
 * pretokenize.c: scanners that cut words as the models' regular expressions do.
 *
 * A scanner looks at the class of the first characters and follows the first alternative of the
 * expression that can match there; the alternatives are quoted where they are followed. Nothing is
 * allocated; any thread.
 */
#include "model/pretokenize.h"

/* Class of the character at *s, which is passed over. */
static inline uint8_t
next_class(const q3_unicode *u, const uint8_t **s)
{
	uint32_t c;

	*s += q3_utf8_next(*s, &c);
	return q3_unicode_props(u, c) & Q3_CHAR_CLASS;
}

/* Class of the character at s; what cannot be the end of the text is left to the caller. */
static inline uint8_t
class_at(const q3_unicode *u, const uint8_t *s)
{
	return next_class(u, &s);
}

/* End of the run of characters of this class. */
static const uint8_t *
skip_class(const q3_unicode *u, const uint8_t *s, const uint8_t *end, uint8_t class)
{
	while (s < end)
	{
		const uint8_t *next = s;

		if (next_class(u, &next) != class)
			break;
		s = next;
	}
	return s;
}

static inline bool
is_white(uint8_t class)
{
	return class == Q3_CHAR_SPACE || class == Q3_CHAR_NEWLINE;
}

static inline uint8_t
ascii_lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/*
 * 's|'t|'re|'ve|'m|'ll|'d at the apostrophe s: its length, or 0. Without regard to case, the long s
 * (U+017F) is an s too.
 */
static size_t
contraction(const uint8_t *s, const uint8_t *end, bool any_case)
{
	size_t left = (size_t) (end - s);
	uint8_t a = left > 1 ? s[1] : 0, b = left > 2 ? s[2] : 0;

	if (any_case && a == 0xc5 && b == 0xbf)
		return 3;
	if (any_case)
	{
		a = ascii_lower(a);
		b = ascii_lower(b);
	}
	if (a == 's' || a == 't' || a == 'm' || a == 'd')
		return 2;
	if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
		return 3;
	return 0;
}

/*
 * \s+(?!\S)|\s+ at the white space s: the whole run where nothing follows it, else all but its last
 * character, which goes with the next word; but at least one. With to_newline, \s*[\r\n]+ is tried
 * before: the run up to its last newline. With digits, a number ends the text.
 */
static const uint8_t *
white_run(const q3_unicode *u, const uint8_t *s, const uint8_t *end, bool to_newline, bool digits)
{
	const uint8_t *p = s, *last = s, *newline = NULL;
	uint8_t class = Q3_CHAR_OTHER;

	while (p < end)
	{
		const uint8_t *next = p;

		class = next_class(u, &next);
		if (!is_white(class))
			break;
		last = p;
		p = next;
		if (class == Q3_CHAR_NEWLINE)
			newline = p;
	}
	if (to_newline && newline != NULL)
		return newline;
	if (p == end || (digits && class == Q3_CHAR_NUMBER) || last == s)
		return p;
	return last;
}

static const uint8_t *
qwen2_word(const q3_unicode *u, const uint8_t *s, const uint8_t *end)
{
	const uint8_t *second = s;
	uint8_t class = next_class(u, &second);

	if (*s == '\'')
	{
		size_t n = contraction(s, end, true);

		if (n > 0)
			return s + n;
	}
	/* [^\r\n\p{L}\p{N}]?\p{L}+ */
	if (class == Q3_CHAR_LETTER || ((class == Q3_CHAR_OTHER || class == Q3_CHAR_SPACE) &&
	                                second < end && class_at(u, second) == Q3_CHAR_LETTER))
		return skip_class(u, second, end, Q3_CHAR_LETTER);
	/* \p{N} */
	if (class == Q3_CHAR_NUMBER)
		return second;
	/* ?[^\s\p{L}\p{N}]+[\r\n]* */
	if (class == Q3_CHAR_OTHER ||
	    (*s == ' ' && second < end && class_at(u, second) == Q3_CHAR_OTHER))
		return skip_class(u, skip_class(u, second, end, Q3_CHAR_OTHER), end, Q3_CHAR_NEWLINE);
	/* \s*[\r\n]+|\s+(?!\S)|\s+ */
	return white_run(u, s, end, true, false);
}

static const uint8_t *
gpt2_word(const q3_unicode *u, const uint8_t *s, const uint8_t *end, bool digits)
{
	const uint8_t *second = s;
	uint8_t class = next_class(u, &second);

	if (*s == '\'')
	{
		size_t n = contraction(s, end, false);

		if (n > 0)
			return s + n;
	}
	if (digits && class == Q3_CHAR_NUMBER)
		return second;
	/* ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+ */
	if (*s == ' ' && second < end)
	{
		uint8_t following = class_at(u, second);

		if (!is_white(following) && !(digits && following == Q3_CHAR_NUMBER))
			return skip_class(u, second, end, following);
	}
	if (!is_white(class))
		return skip_class(u, second, end, class);
	/* \s+(?!\S)|\s+ */
	return white_run(u, s, end, false, digits);
}

size_t
q3_word_length(const q3_unicode *u, q3_split split, const uint8_t *s, const uint8_t *end)
{
	const uint8_t *stop = split == Q3_SPLIT_QWEN2 ? qwen2_word(u, s, end)
	                                              : gpt2_word(u, s, end, split == Q3_SPLIT_SMOLLM);

	return (size_t) (stop - s);
}
