/*
 * unicode.h: what the tokenizer has to know about characters.
 *
 * UTF-8 decoding and repair, the general category of a code point as far as word splitting needs
 * it, and normalisation to NFC. All memory is the caller's; a q3_unicode is immutable after
 * creation, so any number of threads may use it.
 */
#ifndef Q3_UNICODE_H
#define Q3_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Properties of a code point: one of the classes, and flags. */
enum
{
	Q3_CHAR_OTHER = 0,
	Q3_CHAR_LETTER = 1,    /* \p{L} */
	Q3_CHAR_NUMBER = 2,    /* \p{N} */
	Q3_CHAR_SPACE = 3,     /* \s but for the next two */
	Q3_CHAR_NEWLINE = 4,   /* carriage return and line feed */
	Q3_CHAR_CLASS = 7,     /* mask of the above */
	Q3_CHAR_UNSTABLE = 8,  /* NFC may change it or join it to what stands before */
	Q3_CHAR_COMBINING = 16 /* canonical combining class other than 0 */
};

#define Q3_UNICODE_PAGE 256
#define Q3_UNICODE_LIMIT 0x110000

/* Two-level table: pages that are equal are stored once. */
typedef struct q3_unicode
{
	uint16_t page[Q3_UNICODE_LIMIT / Q3_UNICODE_PAGE];
	uint8_t (*props)[Q3_UNICODE_PAGE];
} q3_unicode;

/* Fills u; false when out of memory (then u needs no freeing). Takes some milliseconds. */
extern bool q3_unicode_init(q3_unicode *u);
extern void q3_unicode_free(q3_unicode *u);

static inline uint8_t
q3_unicode_props(const q3_unicode *u, uint32_t c)
{
	return u->props[u->page[c / Q3_UNICODE_PAGE]][c % Q3_UNICODE_PAGE];
}

#define Q3_UTF8_INVALID UINT32_MAX

/*
 * Decodes the code point at s (at least one byte before end) and returns its length in bytes. What
 * is not valid UTF-8 gives Q3_UTF8_INVALID and the length of the maximal invalid part: the longest
 * start of a valid sequence, or one byte.
 */
extern size_t q3_utf8_decode(const uint8_t *s, const uint8_t *end, uint32_t *c);
/* Writes at most four bytes; returns their number. c is a scalar value. */
extern size_t q3_utf8_encode(uint32_t c, uint8_t *s);

/* The same for text that is known to be valid: no checks. */
static inline size_t
q3_utf8_next(const uint8_t *s, uint32_t *c)
{
	if (s[0] < 0x80)
	{
		*c = s[0];
		return 1;
	}
	if (s[0] < 0xe0)
	{
		*c = (uint32_t) (s[0] & 0x1f) << 6 | (s[1] & 0x3f);
		return 2;
	}
	if (s[0] < 0xf0)
	{
		*c = (uint32_t) (s[0] & 0x0f) << 12 | (uint32_t) (s[1] & 0x3f) << 6 | (s[2] & 0x3f);
		return 3;
	}
	*c = (uint32_t) (s[0] & 0x07) << 18 | (uint32_t) (s[1] & 0x3f) << 12 |
	     (uint32_t) (s[2] & 0x3f) << 6 | (s[3] & 0x3f);
	return 4;
}

/*
 * Makes text valid UTF-8 (every maximal invalid part becomes one U+FFFD) and, if nfc is set,
 * normalises it to NFC. Text that needs nothing of that is not copied: then *result is text itself
 * and *owned NULL; otherwise *owned is malloc'ed and *result points to it. False when out of
 * memory.
 */
extern bool q3_unicode_clean(const q3_unicode *u, const char *text, size_t len, bool nfc,
                             const char **result, size_t *result_len, char **owned);

#endif
