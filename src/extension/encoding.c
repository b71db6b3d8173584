/*
 * encoding.c: text between the database and the engine.
 *
 * Nothing here raises an error for what a row or a model said: the caller gets a failure to raise
 * or to swallow. A database in SQL_ASCII has no encoding; its text must be UTF-8 to be understood,
 * and gets UTF-8 back.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "extension/compat.h"
#include "extension/encoding.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

static bool
same_as_utf8(void)
{
	int encoding = GetDatabaseEncoding();

	return encoding == PG_UTF8 || encoding == PG_SQL_ASCII;
}

static bool
is_ascii(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(s[i]) || s[i] == '\0')
			return false;
	}
	return true;
}

/* Converts len bytes into a palloc'd string; NULL when a character has no equivalent. */
static char *
convert(const char *s, size_t len, int from, int to, size_t *out_len)
{
	Oid proc = FindDefaultConversionProc(from, to);
	size_t room;
	char *out;
	int done;

	if (!OidIsValid(proc) || len > INT_MAX / MAX_CONVERSION_GROWTH - 1)
		return NULL;
	room = len * MAX_CONVERSION_GROWTH + 1;
	out = palloc_extended(room, MCXT_ALLOC_HUGE);
	done = pg_do_encoding_conversion_buf(proc, from, to, (unsigned char *) unconstify(char *, s),
	                                     (int) len, (unsigned char *) out, (int) room, true);
	if (done != len)
	{
		pfree(out);
		return NULL;
	}
	*out_len = strlen(out);
	return out;
}

bool
qwen3dm_to_utf8(const text *t, q3p_bytes *out, Qwen3dmFailure *f)
{
	out->data = VARDATA_ANY(t);
	out->len = VARSIZE_ANY_EXHDR(t);

	if (GetDatabaseEncoding() == PG_UTF8 || is_ascii(out->data, out->len))
		return true;
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
	{
		if (pg_verify_mbstr(PG_UTF8, out->data, (int) out->len, true))
			return true;
	}
	else
	{
		out->data = convert(out->data, out->len, GetDatabaseEncoding(), PG_UTF8, &out->len);
		if (out->data != NULL)
			return true;
	}
	f->sqlstate = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
	f->message = "the text cannot be converted to encoding \"UTF8\"";
	f->detail = NULL;
	f->hint = NULL;
	return false;
}

text *
qwen3dm_from_utf8(q3p_bytes bytes, Qwen3dmFailure *f)
{
	const char *data = bytes.data != NULL ? bytes.data : "";

	f->detail = NULL;
	f->hint = NULL;
	if (!is_ascii(data, bytes.len))
	{
		if (bytes.len > INT_MAX || !pg_verify_mbstr(PG_UTF8, data, (int) bytes.len, true))
		{
			f->sqlstate = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
			f->message = "the engine's answer is not valid text";
			f->detail = "It has a zero byte, or is not in UTF-8.";
			return NULL;
		}
		if (!same_as_utf8())
		{
			data = convert(data, bytes.len, PG_UTF8, GetDatabaseEncoding(), &bytes.len);
			if (data == NULL)
			{
				f->sqlstate = ERRCODE_UNTRANSLATABLE_CHARACTER;
				f->message =
				    psprintf("the answer has a character with no equivalent in encoding \"%s\"",
				             GetDatabaseEncodingName());
				f->hint = "Use a database in encoding UTF8.";
				return NULL;
			}
		}
	}
	return cstring_to_text_with_len(data, (int) bytes.len);
}

char *
qwen3dm_readable(const char *utf8)
{
	q3p_bytes bytes = {utf8, strlen(utf8)};

	return qwen3dm_readable_bytes(bytes);
}

char *
qwen3dm_readable_bytes(q3p_bytes utf8)
{
	char *s = pnstrdup(utf8.data, utf8.len);

	if (!same_as_utf8() || !pg_verify_mbstr(PG_UTF8, s, (int) strlen(s), true))
	{
		for (char *p = s; *p != '\0'; p++)
		{
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
		}
	}
	return s;
}
