/*
 * answers.h: the calls of one batching node, equal ones made once.
 */
#ifndef QWEN3DM_ANSWERS_H
#define QWEN3DM_ANSWERS_H

#include "utils/hsearch.h"

#include "extension/call.h"

/* What differs from call to call of one place in the query: its number and the arguments' bytes. */
typedef struct Qwen3dmKey
{
	int site;
	const char *data;
	Size len;
} Qwen3dmKey;

typedef struct Qwen3dmAnswer
{
	Qwen3dmCall call;
	int users;   /* rows that will take it, or have taken it and still show it */
	bool known;  /* value and isnull are */
	bool listed; /* others with the same key may have it */
	bool isnull;
	Datum value;
	void *pointer; /* its memory, if it has any */
	Size bytes;    /* what it takes */
	uint64 hash;
	int site;
	Size key_len;
	char key[FLEXIBLE_ARRAY_MEMBER];
} Qwen3dmAnswer;

typedef struct Qwen3dmAnswers
{
	MemoryContext context; /* where all of them live; the creator's */
	HTAB *table;
	Size bytes; /* of those that are listed */
} Qwen3dmAnswers;

extern void qwen3dm_answers_init(Qwen3dmAnswers *answers, MemoryContext context);

/* An answer to this call, which is started unless an equal one is there; *fresh says which. To be
 * released. Raises what qwen3dm_call_start() does. */
extern Qwen3dmAnswer *qwen3dm_answer_start(Qwen3dmAnswers *answers, const Qwen3dmFunction *function,
                                           FunctionCallInfo fcinfo, const Qwen3dmKey *key,
                                           bool *fresh);
/* Its value, waiting for it; lives until the answer is released. Raises the call's error. */
extern Datum qwen3dm_answer_take(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer, int16 typlen,
                                 bool typbyval, bool *isnull, Qwen3dmTally *tally);
/* One user less. While there is memory, answers are kept for later calls. */
extern void qwen3dm_answer_release(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer);

#endif
