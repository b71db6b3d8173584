/*
 * answers.c: the calls of one batching node, equal ones made once.
 *
 * A call whose answer follows from its arguments (nothing is drawn by lot) is listed by them, while
 * it is under way and, as long as all that is listed takes no more than work_mem, afterwards. A
 * later row with the same arguments takes the same answer. All memory is the node's.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "extension/answers.h"

typedef struct Entry
{
	uint64 hash;
	Qwen3dmAnswer *answer;
} Entry;

void
qwen3dm_answers_init(Qwen3dmAnswers *answers, MemoryContext context)
{
	HASHCTL control = {.keysize = sizeof(uint64), .entrysize = sizeof(Entry), .hcxt = context};

	answers->context = context;
	answers->bytes = 0;
	answers->table =
	    hash_create("Qwen Batch answers", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static bool
over_budget(const Qwen3dmAnswers *answers)
{
	return answers->bytes > work_mem * (Size) 1024;
}

/* Takes it off the list; who uses it still does. */
static void
unlist(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer)
{
	if (!answer->listed)
		return;
	answer->listed = false;
	answers->bytes -= answer->bytes;
	hash_search(answers->table, &answer->hash, HASH_REMOVE, NULL);
}

static Qwen3dmAnswer *
find(Qwen3dmAnswers *answers, uint64 hash, const Qwen3dmKey *key)
{
	Entry *entry = hash_search(answers->table, &hash, HASH_FIND, NULL);

	if (entry != NULL && entry->answer->site == key->site && entry->answer->key_len == key->len &&
	    memcmp(entry->answer->key, key->data, key->len) == 0)
		return entry->answer;
	return NULL;
}

/* Lists a new answer, unless another one with the same hash is there. */
static void
list(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer)
{
	bool found;
	Entry *entry = hash_search(answers->table, &answer->hash, HASH_ENTER, &found);

	if (found)
		return;
	entry->answer = answer;
	answer->listed = true;
	answers->bytes += answer->bytes;
}

/* Asked again it would be answered with the same bits. */
static bool
is_determined(const Qwen3dmOptions *options)
{
	const q3p_request *r = &options->request;

	if (r->kind != Q3P_GENERATE || options->fixed_seed)
		return true;
	return r->has_temperature ? r->temperature == 0 : !r->thinking;
}

Qwen3dmAnswer *
qwen3dm_answer_start(Qwen3dmAnswers *answers, const Qwen3dmFunction *function,
                     FunctionCallInfo fcinfo, const Qwen3dmKey *key, bool *fresh)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) key->data, (int) key->len, key->site);
	Qwen3dmAnswer *answer = find(answers, hash, key);
	Qwen3dmCall call;

	*fresh = answer == NULL;
	if (answer != NULL)
	{
		answer->users++;
		return answer;
	}
	qwen3dm_call_start(function, fcinfo, &call);
	answer = MemoryContextAllocZero(answers->context, offsetof(Qwen3dmAnswer, key) + key->len);
	qwen3dm_call_keep(&call);
	answer->call = call;
	answer->users = 1;
	answer->hash = hash;
	answer->site = key->site;
	answer->key_len = key->len;
	memcpy(answer->key, key->data, key->len);
	answer->bytes = GetMemoryChunkSpace(answer) + sizeof(Entry);
	if (call.ids[0] != 0 && is_determined(&call.options))
		list(answers, answer);
	return answer;
}

static void
keep_value(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer, int16 typlen, bool typbyval)
{
	MemoryContext old = MemoryContextSwitchTo(answers->context);

	if (!answer->isnull && !typbyval)
	{
		Size size = datumGetSize(answer->value, typbyval, typlen);

		answer->value = datumCopy(answer->value, typbyval, typlen);
		answer->pointer = DatumGetPointer(answer->value);
		answer->bytes += size;
		if (answer->listed)
			answers->bytes += size;
	}
	MemoryContextSwitchTo(old);
	answer->known = true;
}

Datum
qwen3dm_answer_take(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer, int16 typlen, bool typbyval,
                    bool *isnull, Qwen3dmTally *tally)
{
	if (!answer->known)
	{
		answer->value = qwen3dm_call_finish(&answer->call, &answer->isnull, tally);
		keep_value(answers, answer, typlen, typbyval);
		/* The next row may have more luck. */
		if (answer->call.failure.sqlstate != 0)
			unlist(answers, answer);
	}
	*isnull = answer->isnull;
	return answer->value;
}

void
qwen3dm_answer_release(Qwen3dmAnswers *answers, Qwen3dmAnswer *answer)
{
	if (--answer->users > 0)
		return;
	if (answer->known && answer->listed && !over_budget(answers))
		return;
	unlist(answers, answer);
	qwen3dm_call_drop(&answer->call);
	if (answer->pointer != NULL)
		pfree(answer->pointer);
	pfree(answer);
}
