/*
 * unicode.c: UTF-8, character classes and NFC, over the tables of utf8proc.
 *
 * utf8proc knows every property, but a call per character is slow; here the few bits that matter
 * are packed into one byte per code point when a tokenizer is made. utf8proc also orders combining
 * marks by insertion, quadratic in a run of them; text comes from anybody, so the runs are sorted
 * here. Functions without memory of their own; any thread.
 */
#include "model/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define NFC_OPTIONS (UTF8PROC_STABLE | UTF8PROC_COMPOSE)
#define REPLACEMENT "\xef\xbf\xbd"
/* A canonical decomposition has at most four code points. */
#define MAX_DECOMPOSITION 16

/* ------------------------------------------------------------------------------------------
 * Tables
 * ------------------------------------------------------------------------------------------ */

static uint8_t
class_of(uint32_t c, utf8proc_category_t category)
{
	if (c == '\r' || c == '\n')
		return Q3_CHAR_NEWLINE;
	if ((c >= '\t' && c <= '\r') || c == 0x85)
		return Q3_CHAR_SPACE;
	switch (category)
	{
		case UTF8PROC_CATEGORY_LU:
		case UTF8PROC_CATEGORY_LL:
		case UTF8PROC_CATEGORY_LT:
		case UTF8PROC_CATEGORY_LM:
		case UTF8PROC_CATEGORY_LO:
			return Q3_CHAR_LETTER;
		case UTF8PROC_CATEGORY_ND:
		case UTF8PROC_CATEGORY_NL:
		case UTF8PROC_CATEGORY_NO:
			return Q3_CHAR_NUMBER;
		case UTF8PROC_CATEGORY_ZS:
		case UTF8PROC_CATEGORY_ZL:
		case UTF8PROC_CATEGORY_ZP:
			return Q3_CHAR_SPACE;
		default:
			return Q3_CHAR_OTHER;
	}
}

static size_t
decompose(uint32_t c, utf8proc_int32_t *out)
{
	int boundary = 0;
	utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t) c, out, MAX_DECOMPOSITION,
	                                             NFC_OPTIONS, &boundary);

	if (n >= 1 && n <= MAX_DECOMPOSITION)
		return (size_t) n;
	out[0] = (utf8proc_int32_t) c;
	return 1;
}

/*
 * Unicode's quick check, derived: a character is unstable when NFC changes it, or when it is the
 * last part of a character that NFC composes (then it may join what stands before it).
 */
static void
mark_unstable(uint32_t c, uint8_t *props)
{
	utf8proc_int32_t parts[MAX_DECOMPOSITION];
	size_t n = decompose(c, parts);
	uint32_t last = (uint32_t) parts[n - 1];

	if (n == 1 && last == c)
		return;
	if (utf8proc_normalize_utf32(parts, (utf8proc_ssize_t) n, NFC_OPTIONS) == 1 &&
	    parts[0] == (utf8proc_int32_t) c)
		props[last] |= Q3_CHAR_UNSTABLE;
	else
		props[c] |= Q3_CHAR_UNSTABLE;
}

static void
fill_props(uint8_t *props)
{
	for (uint32_t c = 0; c < Q3_UNICODE_LIMIT; c++)
	{
		const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t) c);

		props[c] |= class_of(c, (utf8proc_category_t) p->category);
		if (p->combining_class != 0)
			props[c] |= Q3_CHAR_COMBINING;
		if (p->category != UTF8PROC_CATEGORY_CN && p->category != UTF8PROC_CATEGORY_CO &&
		    p->category != UTF8PROC_CATEGORY_CS)
			mark_unstable(c, props);
	}
}

/* Stores every different page once. */
static bool
compress(q3_unicode *u, const uint8_t *props)
{
	size_t n = 0, capacity = 0;

	for (size_t i = 0; i < Q3_UNICODE_LIMIT / Q3_UNICODE_PAGE; i++)
	{
		const uint8_t *page = props + i * Q3_UNICODE_PAGE;
		size_t j = 0;

		while (j < n && memcmp(u->props[j], page, Q3_UNICODE_PAGE) != 0)
			j++;
		if (j == n)
		{
			if (n == capacity)
			{
				void *grown = realloc(u->props, (capacity + 64) * Q3_UNICODE_PAGE);

				if (grown == NULL)
					return false;
				u->props = grown;
				capacity += 64;
			}
			memcpy(u->props[n++], page, Q3_UNICODE_PAGE);
		}
		u->page[i] = (uint16_t) j;
	}
	return true;
}

bool
q3_unicode_init(q3_unicode *u)
{
	uint8_t *props = calloc(Q3_UNICODE_LIMIT, 1);
	bool ok = false;

	u->props = NULL;
	if (props != NULL)
	{
		fill_props(props);
		ok = compress(u, props);
	}
	if (!ok)
		q3_unicode_free(u);
	free(props);
	return ok;
}

void
q3_unicode_free(q3_unicode *u)
{
	free(u->props);
	u->props = NULL;
}

/* ------------------------------------------------------------------------------------------
 * UTF-8
 * ------------------------------------------------------------------------------------------ */

size_t
q3_utf8_decode(const uint8_t *s, const uint8_t *end, uint32_t *c)
{
	uint8_t lead = s[0], low = 0x80, high = 0xbf;
	size_t need;
	uint32_t value;

	*c = lead;
	if (lead < 0x80)
		return 1;
	*c = Q3_UTF8_INVALID;
	if (lead < 0xc2 || lead > 0xf4)
		return 1;
	need = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
	value = lead & (0x7f >> need);
	/* The second byte's range excludes long forms, surrogates and what lies above U+10FFFF. */
	if (lead == 0xe0)
		low = 0xa0;
	else if (lead == 0xed)
		high = 0x9f;
	else if (lead == 0xf0)
		low = 0x90;
	else if (lead == 0xf4)
		high = 0x8f;
	for (size_t i = 1; i < need; i++)
	{
		if (end - s <= (ptrdiff_t) i || s[i] < low || s[i] > high)
			return i;
		value = value << 6 | (s[i] & 0x3f);
		low = 0x80;
		high = 0xbf;
	}
	*c = value;
	return need;
}

size_t
q3_utf8_encode(uint32_t c, uint8_t *s)
{
	return (size_t) utf8proc_encode_char((utf8proc_int32_t) c, s);
}

static size_t
ascii_prefix(const uint8_t *s, const uint8_t *end)
{
	const uint8_t *p = s;
	uint64_t word;

	while (end - p >= 8)
	{
		memcpy(&word, p, 8);
		if (word & UINT64_C(0x8080808080808080))
			break;
		p += 8;
	}
	while (p < end && *p < 0x80)
		p++;
	return (size_t) (p - s);
}

/* Length of the longest prefix that is valid. */
static size_t
valid_prefix(const uint8_t *s, const uint8_t *end)
{
	const uint8_t *p = s;
	uint32_t c;

	while (p < end)
	{
		size_t n = ascii_prefix(p, end);

		if (n == 0)
		{
			n = q3_utf8_decode(p, end, &c);
			if (c == Q3_UTF8_INVALID)
				break;
		}
		p += n;
	}
	return (size_t) (p - s);
}

/* ------------------------------------------------------------------------------------------
 * Growing buffers
 * ------------------------------------------------------------------------------------------ */

typedef struct bytes
{
	char *data;
	size_t len, capacity;
} bytes;

static bool
bytes_append(bytes *b, const void *data, size_t len)
{
	if (len == 0)
		return true;
	if (len > b->capacity - b->len)
	{
		size_t capacity = b->capacity + b->capacity / 2 + len;
		char *grown = capacity < len ? NULL : realloc(b->data, capacity);

		if (grown == NULL)
			return false;
		b->data = grown;
		b->capacity = capacity;
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return true;
}

/* Copies text with every maximal invalid part replaced. */
static bool
repair(const uint8_t *s, size_t len, bytes *out)
{
	const uint8_t *end = s + len;
	uint32_t c;

	if (!bytes_append(out, "", 1)) /* so that data is not NULL even if nothing follows */
		return false;
	out->len = 0;
	while (s < end)
	{
		size_t n = valid_prefix(s, end);

		if (!bytes_append(out, s, n))
			return false;
		s += n;
		if (s < end)
		{
			s += q3_utf8_decode(s, end, &c);
			if (!bytes_append(out, REPLACEMENT, strlen(REPLACEMENT)))
				return false;
		}
	}
	return true;
}

/* ------------------------------------------------------------------------------------------
 * NFC
 * ------------------------------------------------------------------------------------------ */

static uint8_t
combining_class(uint32_t c)
{
	return (uint8_t) utf8proc_get_property((utf8proc_int32_t) c)->combining_class;
}

/*
 * Walks over normal text from s. Returns the place of the first character that may not be in its
 * normal form (or end), and in *start the last place at or before it where a piece to be normalised
 * can begin: a stable character that is not combining.
 */
static const uint8_t *
find_unnormal(const q3_unicode *u, const uint8_t *s, const uint8_t *end, const uint8_t **start)
{
	uint8_t last_class = 0;
	uint32_t c;

	*start = s;
	while (s < end)
	{
		size_t n = ascii_prefix(s, end);
		uint8_t props;

		if (n > 0)
		{
			*start = s + n - 1;
			last_class = 0;
			s += n;
			continue;
		}
		n = q3_utf8_next(s, &c);
		props = q3_unicode_props(u, c);
		if (props & Q3_CHAR_UNSTABLE)
			return s;
		if (props & Q3_CHAR_COMBINING)
		{
			uint8_t this_class = combining_class(c);

			if (this_class < last_class)
				return s;
			last_class = this_class;
		}
		else
		{
			*start = s;
			last_class = 0;
		}
		s += n;
	}
	return end;
}

/* First place at or after s where the piece to be normalised can end. */
static const uint8_t *
find_stable(const q3_unicode *u, const uint8_t *s, const uint8_t *end)
{
	uint32_t c;

	while (s < end)
	{
		size_t n = q3_utf8_next(s, &c);

		if (!(q3_unicode_props(u, c) & (Q3_CHAR_UNSTABLE | Q3_CHAR_COMBINING)))
			break;
		s += n;
	}
	return s;
}

/* For the few marks of ordinary text. */
static void
insert_marks(utf8proc_int32_t *marks, size_t n)
{
	for (size_t i = 1; i < n; i++)
	{
		utf8proc_int32_t mark = marks[i];
		uint8_t class = combining_class((uint32_t) mark);
		size_t j = i;

		for (; j > 0 && combining_class((uint32_t) marks[j - 1]) > class; j--)
			marks[j] = marks[j - 1];
		marks[j] = mark;
	}
}

/* Stable sort by combining class, in time linear in n: tmp has room for n. */
static void
sort_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *tmp)
{
	size_t at[257] = {0};

	if (n <= 16)
	{
		insert_marks(marks, n);
		return;
	}
	for (size_t i = 0; i < n; i++)
		at[combining_class((uint32_t) marks[i]) + 1]++;
	for (size_t i = 1; i < 257; i++)
		at[i] += at[i - 1];
	for (size_t i = 0; i < n; i++)
		tmp[at[combining_class((uint32_t) marks[i])]++] = marks[i];
	memcpy(marks, tmp, n * sizeof(*marks));
}

/* Orders every run of combining marks of the decomposed text. */
static void
order_marks(utf8proc_int32_t *cs, size_t n, utf8proc_int32_t *tmp)
{
	size_t start = 0;

	for (size_t i = 0; i <= n; i++)
	{
		if (i < n && combining_class((uint32_t) cs[i]) != 0)
			continue;
		sort_marks(cs + start, i - start, tmp);
		start = i + 1;
	}
}

/* Appends the normal form of [s, end) to out. */
static bool
normalise_piece(const uint8_t *s, const uint8_t *end, bytes *out)
{
	/* A character of b bytes decomposes into at most 2b code points (four of two bytes at most). */
	size_t limit = 2 * (size_t) (end - s) + MAX_DECOMPOSITION, n = 0;
	utf8proc_int32_t *cs = limit > SIZE_MAX / 8 ? NULL : malloc(2 * limit * sizeof(*cs));
	utf8proc_ssize_t n_composed;
	bool ok = cs != NULL;
	uint32_t c;

	if (!ok)
		return false;
	while (s < end)
	{
		s += q3_utf8_next(s, &c);
		n += decompose(c, cs + n);
	}
	order_marks(cs, n, cs + limit);
	n_composed = utf8proc_normalize_utf32(cs, (utf8proc_ssize_t) n, NFC_OPTIONS);
	for (utf8proc_ssize_t i = 0; ok && i < n_composed; i++)
	{
		uint8_t utf8[4];

		ok = bytes_append(out, utf8, q3_utf8_encode((uint32_t) cs[i], utf8));
	}
	free(cs);
	return ok;
}

/* Copies valid text to out with NFC applied; changed tells whether anything needed a closer look.
 */
static bool
normalise(const q3_unicode *u, const uint8_t *s, size_t len, bytes *out, bool *changed)
{
	const uint8_t *end = s + len, *start;

	*changed = false;
	for (;;)
	{
		const uint8_t *bad = find_unnormal(u, s, end, &start), *stop;

		if (bad == end)
			return !*changed || bytes_append(out, s, (size_t) (end - s));
		*changed = true;
		stop = find_stable(u, bad, end);
		if (!bytes_append(out, s, (size_t) (start - s)) || !normalise_piece(start, stop, out))
			return false;
		s = stop;
	}
}

bool
q3_unicode_clean(const q3_unicode *u, const char *text, size_t len, bool nfc, const char **result,
                 size_t *result_len, char **owned)
{
	const uint8_t *s = (const uint8_t *) text;
	bytes repaired = {0}, normal = {0};
	bool changed = false, ok = true;

	*result = text;
	*result_len = len;
	*owned = NULL;
	if (len == 0 || ascii_prefix(s, s + len) == len)
		return true;
	if (valid_prefix(s, s + len) < len)
	{
		ok = repair(s, len, &repaired);
		*result = *owned = repaired.data;
		*result_len = repaired.len;
	}
	if (ok && nfc)
	{
		ok = normalise(u, (const uint8_t *) *result, *result_len, &normal, &changed);
		if (changed)
		{
			free(*owned);
			*result = *owned = normal.data;
			*result_len = normal.len;
		}
	}
	if (!ok)
	{
		free(*owned);
		*owned = NULL;
	}
	return ok;
}
