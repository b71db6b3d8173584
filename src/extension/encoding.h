/*
 * encoding.h: between the database's encoding and UTF-8, which the engine speaks.
 */
#ifndef QWEN3DM_ENCODING_H
#define QWEN3DM_ENCODING_H

#include "extension/failure.h"

/*
 * The bytes of a text datum in UTF-8; they may be those of the datum itself. False: it cannot be
 * said in UTF-8, *f says why.
 */
extern bool qwen3dm_to_utf8(const text *t, q3p_bytes *out, Qwen3dmFailure *f);

/* A palloc'd text of UTF-8 bytes; NULL when the database's encoding cannot hold them. */
extern text *qwen3dm_from_utf8(q3p_bytes bytes, Qwen3dmFailure *f);

/* For messages: a palloc'd string with '?' for what the database's encoding cannot hold. */
extern char *qwen3dm_readable(const char *utf8);
extern char *qwen3dm_readable_bytes(q3p_bytes utf8);

#endif
