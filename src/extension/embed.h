/*
 * embed.h: vectors of the embedding model for what is no call of qwen_embed.
 */
#ifndef QWEN3DM_EMBED_H
#define QWEN3DM_EMBED_H

#include "extension/client.h"

/* Asks for the vector of a text in UTF-8. Only where an embedding model is set. */
extern Qwen3dmRequest *qwen3dm_submit_vector(q3p_bytes text);

typedef struct Qwen3dmVector
{
	uint32 n;
	float4 *coordinates; /* palloc'd; of length 1 */
	char *digest;        /* palloc'd; of the model that made it */
} Qwen3dmVector;

/* Waits for it and releases the request; false with *failure. */
extern bool qwen3dm_take_vector(Qwen3dmRequest *r, Qwen3dmVector *vector, Qwen3dmFailure *failure);

#endif
