/*
 * features.c: learning what a task's inputs look like: qwen3dm_features_learn().
 *
 * The words of all tasks are counted in one row, which a transaction that learns holds until its
 * end; so it asks the embedding model before. Sketches that go into the profile are weighed with
 * counts that have these texts in them, as those of later inputs are; which words stand out is told
 * by the counts without them. A task that is learned again counts its inputs again, and its words
 * seem a little more common than they are: the counts keep no account of who counted what, and what
 * they are for, telling rare words from common ones, bears it. Memory comes from SPI's context.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/json.h"

#include "extension/call.h"
#include "extension/embed.h"
#include "extension/encoding.h"
#include "extension/features.h"
#include "extension/match.h"
#include "extension/tasks.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#define FEATURES QWEN3DM_SCHEMA ".task_features"
#define COUNTS QWEN3DM_SCHEMA ".term_counts"

#define MAX_VECTORS 100
#define MAX_TERMS 32
/* Of a word that may be a term, with the NUL; longer ones are none in any language. */
#define WORD_BYTES 64
/* Different words of one task; those that come later are left out. */
#define MAX_WORDS 100000

/* ---------------------------------------------------------------------------------------------
 * Columns
 * --------------------------------------------------------------------------------------------- */

static bytea *
make_bytea(const void *head, Size head_len, const void *data, Size len)
{
	bytea *b = palloc(VARHDRSZ + head_len + len);

	SET_VARSIZE(b, VARHDRSZ + head_len + len);
	memcpy(VARDATA(b), head, head_len);
	memcpy(VARDATA(b) + head_len, data, len);
	return b;
}

/* The version, then the counts. */
static bytea *
pack_terms(const q3_terms *terms)
{
	return make_bytea(&terms->version, sizeof(terms->version), terms->counts,
	                  sizeof(terms->counts));
}

bool
qwen3dm_unpack_terms(q3_terms *terms, int64 inputs, const bytea *counts)
{
	const char *data = VARDATA_ANY(counts);
	uint32 version;

	q3_terms_begin(terms);
	if (VARSIZE_ANY_EXHDR(counts) != sizeof(version) + sizeof(terms->counts) || inputs < 0)
		return false;
	memcpy(&version, data, sizeof(version));
	if (version != Q3_SIMILARITY_VERSION)
		return false;
	terms->inputs = inputs;
	memcpy(terms->counts, data + sizeof(version), sizeof(terms->counts));
	return true;
}

bool
qwen3dm_unpack_profile(q3_profile *profile, const bytea *bytes)
{
	if (VARSIZE_ANY_EXHDR(bytes) != sizeof(*profile))
		return false;
	memcpy(profile, VARDATA_ANY(bytes), sizeof(*profile));
	return profile->version == Q3_SIMILARITY_VERSION;
}

static ArrayType *
lengths_array(const q3_profile_sums *sums)
{
	Datum values[Q3_LENGTH_BUCKETS];

	for (int i = 0; i < Q3_LENGTH_BUCKETS; i++)
		values[i] = Int64GetDatum(sums->lengths[i]);
	return construct_array(values, Q3_LENGTH_BUCKETS, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
	                       TYPALIGN_DOUBLE);
}

/* ---------------------------------------------------------------------------------------------
 * Words that stand out
 * --------------------------------------------------------------------------------------------- */

typedef struct Word
{
	char key[WORD_BYTES]; /* UTF-8; ASCII letters in lower case, as they are counted */
	uint32 hash;
	int texts; /* that hold it */
	int last;  /* of these */
	double weight;
} Word;

/* "General Punctuation" and "CJK Symbols and Punctuation": U+2000 to 206F, U+3000 to 303F. What
 * else is longer than two bytes is taken for a letter. */
static bool
is_punctuation(const unsigned char *s, Size len)
{
	return len == 3 && ((s[0] == 0xe2 && (s[1] == 0x80 || (s[1] == 0x81 && s[2] < 0xb0))) ||
	                    (s[0] == 0xe3 && s[1] == 0x80));
}

/* A key of the table; false: the word is no term. */
static bool
make_key(char *key, const char *word, Size len)
{
	if (len >= WORD_BYTES || is_punctuation((const unsigned char *) word, len))
		return false;
	for (Size i = 0; i < len; i++)
		key[i] = word[i] >= 'A' && word[i] <= 'Z' ? word[i] + 'a' - 'A' : word[i];
	key[len] = '\0';
	return true;
}

static void
add_word(HTAB *words, const char *key, uint32 hash, int text)
{
	bool room = hash_get_num_entries(words) < MAX_WORDS, found;
	Word *w = hash_search(words, key, room ? HASH_ENTER : HASH_FIND, &found);

	if (w == NULL)
		return;
	if (!found)
	{
		w->hash = hash;
		w->texts = 0;
		w->last = -1;
	}
	if (w->last != text)
		w->texts++;
	w->last = text;
}

static HTAB *
collect_words(const q3p_bytes *texts, int n)
{
	HASHCTL control = {
	    .keysize = WORD_BYTES, .entrysize = sizeof(Word), .hcxt = CurrentMemoryContext};
	HTAB *words =
	    hash_create("qwen3dm words", 1024, &control, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	char key[WORD_BYTES];

	for (int i = 0; i < n; i++)
	{
		size_t at = 0;
		q3_word word;

		CHECK_FOR_INTERRUPTS();
		for (int k = 0; k < Q3_SKETCH_WORDS; k++)
		{
			if (!q3_word_next(texts[i].data, texts[i].len, &at, &word))
				break;
			if (!word.digits && make_key(key, texts[i].data + word.start, word.len))
				add_word(words, key, word.hash, i);
		}
	}
	return words;
}

static int
by_weight(const void *a, const void *b)
{
	const Word *x = *(Word *const *) a, *y = *(Word *const *) b;

	if (x->weight != y->weight)
		return x->weight < y->weight ? 1 : -1;
	return strcmp(x->key, y->key);
}

/*
 * Those that the task's texts have more often than inputs on the whole, heaviest first; *found of
 * them. Of the first task that is learned there are none: there is nothing to tell it from. A word
 * that only one text has says nothing about the task, and may be somebody's name.
 */
static Word **
weigh_words(HTAB *words, int n, const q3_terms *others, long *found)
{
	Word **list =
	    palloc_extended(sizeof(Word *) * (hash_get_num_entries(words) + 1), MCXT_ALLOC_HUGE);
	HASH_SEQ_STATUS scan;
	Word *w;

	*found = 0;
	hash_seq_init(&scan, words);
	while ((w = hash_seq_search(&scan)) != NULL)
	{
		double common = q3_terms_count(others, w->hash);

		w->weight = (double) w->texts / n;
		/* The first task stands out from nothing. */
		if (others->inputs > 0)
			w->weight *= log((1 + (double) others->inputs) / (1 + common));
		if (w->texts > 1 && w->weight > 0)
			list[(*found)++] = w;
	}
	qsort(list, *found, sizeof(*list), by_weight);
	return list;
}

/* Of these texts, as a jsonb. Words that the database's encoding does not have are left out. */
static Datum
make_terms(const q3p_bytes *texts, int n, const q3_terms *others)
{
	long found;
	Word **words = weigh_words(collect_words(texts, n), n, others, &found);
	int taken = 0;
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '{');
	for (long i = 0; i < found && taken < MAX_TERMS; i++)
	{
		Qwen3dmFailure failure;
		text *word = qwen3dm_from_utf8((q3p_bytes){words[i]->key, strlen(words[i]->key)}, &failure);

		if (word == NULL)
			continue;
		appendStringInfoString(&s, taken++ > 0 ? ", " : "");
		escape_json(&s, text_to_cstring(word));
		appendStringInfo(&s, ": %.4f", words[i]->weight);
	}
	appendStringInfoChar(&s, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(s.data));
}

/* ---------------------------------------------------------------------------------------------
 * Vectors
 * --------------------------------------------------------------------------------------------- */

typedef struct Centroid
{
	uint32 n; /* coordinates; 0: there is none */
	double *sums;
	char *digest;
} Centroid;

/* A text that the model cannot read does not count, nor one that another model has read meanwhile.
 */
static void
add_vector(Centroid *c, Qwen3dmRequest *r)
{
	Qwen3dmVector v;
	Qwen3dmFailure failure;

	if (!qwen3dm_take_vector(r, &v, &failure))
		return;
	if (c->n == 0)
	{
		c->n = v.n;
		c->sums = palloc0(sizeof(double) * v.n);
		c->digest = v.digest;
	}
	if (c->n != v.n || strcmp(c->digest, v.digest) != 0)
		return;
	for (uint32 i = 0; i < v.n; i++)
		c->sums[i] += v.coordinates[i];
}

/* Of up to MAX_VECTORS texts, spread over all of them, which the engine computes together. */
static void
make_centroid(Centroid *c, const q3p_bytes *texts, int n)
{
	int wanted = Min(n, MAX_VECTORS), next = 0;
	Qwen3dmRequest *requests[MAX_VECTORS];

	memset(c, 0, sizeof(*c));
	if (qwen3dm_state(QWEN3DM_EMBEDDING) != QWEN3DM_READY)
		return;
	for (int i = 0; i < wanted; i++)
	{
		while (next < wanted && (next == i || !qwen3dm_is_congested()))
		{
			requests[next] = qwen3dm_submit_vector(texts[(int64) next * n / wanted]);
			next++;
		}
		add_vector(c, requests[i]);
	}
}

/* With length 1. */
static ArrayType *
centroid_array(const Centroid *c)
{
	Datum *values = palloc(sizeof(Datum) * c->n);
	double squares = 0;

	for (uint32 i = 0; i < c->n; i++)
		squares += c->sums[i] * c->sums[i];
	for (uint32 i = 0; i < c->n; i++)
		values[i] = Float4GetDatum((float4) (c->sums[i] / (squares > 0 ? sqrt(squares) : 1)));
	return construct_array(values, (int) c->n, FLOAT4OID, sizeof(float4), true, TYPALIGN_INT);
}

/* ---------------------------------------------------------------------------------------------
 * Learning
 * --------------------------------------------------------------------------------------------- */

static void
execute(const char *statement, int n, Oid *types, Datum *values, const char *nulls)
{
	int code = SPI_execute_with_args(statement, n, types, values, nulls, false, 0);

	if (code < 0)
		elog(ERROR, "could not keep the features of a task: %s", SPI_result_code_string(code));
}

/* The counts of all tasks, which nobody else changes until the transaction ends. */
static q3_terms *
lock_counts(void)
{
	q3_terms *terms = palloc(sizeof(q3_terms));
	Oid type = BYTEAOID;
	Datum values[2];
	bool nulls[2];

	q3_terms_begin(terms);
	values[0] = PointerGetDatum(pack_terms(terms));
	execute("INSERT INTO " COUNTS " (inputs, counts) VALUES (0, $1) ON CONFLICT (one) DO NOTHING",
	        1, &type, values, NULL);
	execute("SELECT inputs, counts FROM " COUNTS " FOR UPDATE", 0, NULL, NULL, NULL);
	if (SPI_processed == 0) /* row security hides it */
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		                errmsg("the row of \"%s\" cannot be seen", COUNTS)));
	for (int i = 0; i < 2; i++)
		values[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
	if (!nulls[0] && !nulls[1])
		(void) qwen3dm_unpack_terms(terms, DatumGetInt64(values[0]), DatumGetByteaPP(values[1]));
	return terms;
}

static void
store_counts(const q3_terms *terms)
{
	Oid types[] = {INT8OID, BYTEAOID};
	Datum values[] = {Int64GetDatum(terms->inputs), PointerGetDatum(pack_terms(terms))};

	execute("UPDATE " COUNTS " SET inputs = $1, counts = $2", 2, types, values, NULL);
}

/* Counts the texts' words, then what they look like by these counts. */
static void
learn_texts(q3_terms *terms, q3_profile_sums *sums, const q3p_bytes *texts, int n)
{
	q3_sketch sketch;
	q3_terms before = *terms;

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		q3_sketch_make(&sketch, texts[i].data, texts[i].len, &before);
		q3_terms_learn(terms, &sketch);
	}
	q3_profile_begin(sums);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		q3_sketch_make(&sketch, texts[i].data, texts[i].len, terms);
		q3_profile_learn(sums, &sketch);
	}
}

static void
store_features(const char *task, const q3_profile_sums *sums, Datum terms, const Centroid *c)
{
	Oid types[] = {TEXTOID, INT8OID, INT8ARRAYOID, JSONBOID, BYTEAOID, FLOAT4ARRAYOID, TEXTOID};
	char nulls[] = "       ";
	Datum values[lengthof(types)] = {0};
	q3_profile profile;

	q3_profile_finish(sums, &profile);
	values[0] = CStringGetTextDatum(task);
	values[1] = Int64GetDatum(sums->inputs);
	values[2] = PointerGetDatum(lengths_array(sums));
	values[3] = terms;
	values[4] = PointerGetDatum(make_bytea(NULL, 0, &profile, sizeof(profile)));
	if (c->n > 0)
	{
		values[5] = PointerGetDatum(centroid_array(c));
		values[6] = CStringGetTextDatum(c->digest);
	}
	else
		nulls[5] = nulls[6] = 'n';
	execute("INSERT INTO " FEATURES
	        " (task, inputs, lengths, terms, profile, embedding, embedding_digest) "
	        "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (task) DO UPDATE SET "
	        "inputs = EXCLUDED.inputs, lengths = EXCLUDED.lengths, terms = EXCLUDED.terms, "
	        "profile = EXCLUDED.profile, embedding = EXCLUDED.embedding, "
	        "embedding_digest = EXCLUDED.embedding_digest, changed = pg_catalog.now()",
	        lengthof(types), types, values, nulls);
}

void
qwen3dm_features_learn(const char *task, const q3p_bytes *texts, int n)
{
	Centroid centroid;
	q3_terms *counts;
	q3_profile_sums sums;
	Datum terms;

	SPI_connect();
	make_centroid(&centroid, texts, n);
	counts = lock_counts();
	terms = make_terms(texts, n, counts);
	learn_texts(counts, &sums, texts, n);
	store_counts(counts);
	store_features(task, &sums, terms, &centroid);
	SPI_finish();
}
