/*
 * similarity.c: sketches of inputs, profiles of tasks; see similarity.h.
 *
 * A sketch is made in a table on the stack. Works on the caller's structs alone, in whatever thread
 * holds them.
 */
#include "policy/similarity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Different words of one input; a power of two. Those that come when it is full are left out. */
#define TABLE_SIZE 512
#define TABLE_FILL 384
#define FEW_INPUTS 100

typedef struct word_table
{
	int32_t n;
	uint32_t hash[TABLE_SIZE];
	uint32_t times[TABLE_SIZE]; /* 0: free */
} word_table;

/* Multiplicative hashing by the golden ratio (D. Knuth, TAOCP 3, 6.4), twice. */
static uint32_t
mix(uint32_t h)
{
	uint64_t x = (h + 1ull) * 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 32) * 0x9e3779b97f4a7c15ull;
	return (uint32_t) (x >> 32);
}

/* ---- Words ---- */

typedef enum kind
{
	BETWEEN,
	LETTER,
	DIGIT,
	WIDE /* first byte of a character of three or four bytes */
} kind;

static kind
kind_of(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return DIGIT;
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= 0x80 && c < 0xe0))
		return LETTER;
	return c >= 0xe0 ? WIDE : BETWEEN;
}

bool
q3_word_next(const char *text, size_t len, size_t *at, q3_word *word)
{
	const unsigned char *s = (const unsigned char *) text;
	size_t i = *at;
	uint32_t h = 2166136261u; /* FNV-1a */
	kind k;

	while (i < len && kind_of(s[i]) == BETWEEN)
		i++;
	if (i == len)
		return false;
	word->start = i;
	k = kind_of(s[i]);
	if (k == WIDE)
	{
		/* The character's other bytes are of the form 10xxxxxx. */
		do
			h = (h ^ s[i++]) * 16777619u;
		while (i < len && (s[i] & 0xc0) == 0x80);
	}
	else
	{
		for (; i < len && kind_of(s[i]) == k; i++)
		{
			unsigned char c = s[i];

			if (k == LETTER)
				h = (h ^ (c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c)) * 16777619u;
		}
	}
	*at = i;
	word->len = i - word->start;
	word->hash = mix(h);
	word->digits = k == DIGIT;
	return true;
}

static void
count_word(word_table *t, uint32_t hash)
{
	uint32_t i = hash % TABLE_SIZE;

	while (t->times[i] > 0 && t->hash[i] != hash)
		i = (i + 1) % TABLE_SIZE;
	if (t->times[i] == 0)
	{
		if (t->n == TABLE_FILL)
			return;
		t->n++;
		t->hash[i] = hash;
	}
	t->times[i]++;
}

/* ---- How often words are seen ---- */

void
q3_terms_begin(q3_terms *t)
{
	memset(t, 0, sizeof(*t));
	t->version = Q3_SIMILARITY_VERSION;
}

static uint32_t
column(uint32_t hash, int row)
{
	return mix(hash + (uint32_t) row * 0x9e3779b9u) % Q3_TERM_COLUMNS;
}

void
q3_terms_learn(q3_terms *t, const q3_sketch *s)
{
	t->inputs++;
	for (int32_t i = 0; i < s->n_terms; i++)
	{
		for (int row = 0; row < Q3_TERM_ROWS; row++)
			t->counts[row][column(s->terms[i].hash, row)]++;
	}
}

uint32_t
q3_terms_count(const q3_terms *t, uint32_t hash)
{
	uint32_t least = UINT32_MAX;

	for (int row = 0; row < Q3_TERM_ROWS; row++)
	{
		uint32_t count = t->counts[row][column(hash, row)];

		least = count < least ? count : least;
	}
	return least;
}

/* ln((1 + inputs) / (1 + inputs with the word)). */
static double
inverse_frequency(const q3_terms *t, uint32_t hash)
{
	if (t == NULL)
		return 0;
	return fmax(0, log((1 + (double) t->inputs) / (1 + (double) q3_terms_count(t, hash))));
}

/* ---- Sketches ---- */

static int
by_weight(const void *a, const void *b)
{
	const q3_sketch_term *x = a, *y = b;

	if (x->weight != y->weight)
		return x->weight < y->weight ? 1 : -1;
	return (x->hash > y->hash) - (x->hash < y->hash);
}

static int32_t
length_bucket(size_t len)
{
	int32_t bucket = 0;

	while (len > 1 && bucket < Q3_LENGTH_BUCKETS - 1)
	{
		len >>= 1;
		bucket++;
	}
	return bucket;
}

/* The heaviest words of the table, with weights of length 1. */
static void
take_terms(q3_sketch *s, q3_sketch_term *all, int32_t n)
{
	double squares = 0;

	qsort(all, (size_t) n, sizeof(*all), by_weight);
	s->n_terms = n < Q3_SKETCH_TERMS ? n : Q3_SKETCH_TERMS;
	for (int32_t i = 0; i < s->n_terms; i++)
		squares += (double) all[i].weight * all[i].weight;
	for (int32_t i = 0; i < s->n_terms; i++)
	{
		s->terms[i].hash = all[i].hash;
		s->terms[i].weight = (float) (all[i].weight / sqrt(squares));
	}
}

void
q3_sketch_make(q3_sketch *s, const char *text, size_t len, const q3_terms *terms)
{
	word_table table;
	q3_sketch_term all[TABLE_FILL];
	size_t at = 0;
	q3_word word;
	int32_t n = 0;
	double rarity = 0;

	memset(s, 0, sizeof(*s));
	memset(&table, 0, sizeof(table));
	s->version = Q3_SIMILARITY_VERSION;
	s->bytes = (int64_t) len;
	s->length_bucket = length_bucket(len);
	for (int i = 0; i < Q3_SKETCH_WORDS && q3_word_next(text, len, &at, &word); i++)
		count_word(&table, word.hash);
	for (int i = 0; i < TABLE_SIZE; i++)
	{
		double idf;

		if (table.times[i] == 0)
			continue;
		idf = inverse_frequency(terms, table.hash[i]);
		rarity += idf;
		all[n].hash = table.hash[i];
		all[n].weight = (float) ((1 + log((double) table.times[i])) * (1 + idf));
		n++;
	}
	if (n > 0 && terms != NULL && terms->inputs >= FEW_INPUTS)
		s->rarity = rarity / n / log(1 + (double) terms->inputs);
	take_terms(s, all, n);
}

/* ---- Profiles ---- */

static uint32_t
dimension(uint32_t hash)
{
	return hash % Q3_PROFILE_DIMENSIONS;
}

static float
sign(uint32_t hash)
{
	return hash >> 31 ? -1 : 1;
}

void
q3_profile_begin(q3_profile_sums *p)
{
	memset(p, 0, sizeof(*p));
	p->version = Q3_SIMILARITY_VERSION;
}

void
q3_profile_learn(q3_profile_sums *p, const q3_sketch *s)
{
	p->inputs++;
	p->lengths[s->length_bucket]++;
	for (int32_t i = 0; i < s->n_terms; i++)
		p->sums[dimension(s->terms[i].hash)] += sign(s->terms[i].hash) * s->terms[i].weight;
}

void
q3_profile_finish(const q3_profile_sums *sums, q3_profile *p)
{
	double greatest = 0, squares = 0;
	int64_t most = 1;

	memset(p, 0, sizeof(*p));
	p->version = Q3_SIMILARITY_VERSION;
	for (int i = 0; i < Q3_LENGTH_BUCKETS; i++)
		most = sums->lengths[i] > most ? sums->lengths[i] : most;
	for (int i = 0; i < Q3_LENGTH_BUCKETS; i++)
		p->lengths[i] = (uint8_t) (255 * (double) sums->lengths[i] / (double) most + 0.5);
	for (int i = 0; i < Q3_PROFILE_DIMENSIONS; i++)
		greatest = fmax(greatest, fabs((double) sums->sums[i]));
	if (greatest == 0)
		return;
	for (int i = 0; i < Q3_PROFILE_DIMENSIONS; i++)
	{
		p->direction[i] = (int8_t) lround(127 * sums->sums[i] / greatest);
		squares += (double) p->direction[i] * p->direction[i];
	}
	p->scale = (float) (1 / sqrt(squares));
}

/* ---- Comparing ---- */

/* A sketch as it is compared: its terms' places in a direction, and their weights with signs. */
typedef struct probe
{
	int32_t n; /* a multiple of 4: weights of 0 fill it up */
	int32_t length_bucket;
	uint16_t dimensions[Q3_SKETCH_TERMS];
	float weights[Q3_SKETCH_TERMS];
} probe;

static void
make_probe(probe *q, const q3_sketch *s)
{
	memset(q, 0, sizeof(*q));
	q->length_bucket = s->length_bucket;
	for (; q->n < s->n_terms; q->n++)
	{
		uint32_t hash = s->terms[q->n].hash;

		q->dimensions[q->n] = (uint16_t) dimension(hash);
		q->weights[q->n] = sign(hash) * s->terms[q->n].weight;
	}
	q->n = (q->n + 3) / 4 * 4;
}

static float
product(const probe *q, const q3_profile *p, int32_t i)
{
	return q->weights[i] * (float) p->direction[q->dimensions[i]];
}

static double
compare(const probe *q, const q3_profile *p)
{
	float a = 0, b = 0, c = 0, d = 0; /* sums that do not wait for each other */
	double dot;

	for (int32_t i = 0; i < q->n; i += 4)
	{
		a += product(q, p, i);
		b += product(q, p, i + 1);
		c += product(q, p, i + 2);
		d += product(q, p, i + 3);
	}
	dot = (double) (a + b) + (double) (c + d);
	return 0.9 * fmin(1, fmax(0, dot * p->scale)) + 0.1 / 255 * p->lengths[q->length_bucket];
}

double
q3_similarity(const q3_sketch *s, const q3_profile *p)
{
	probe q;

	make_probe(&q, s);
	return compare(&q, p);
}

size_t
q3_similarity_best(const q3_sketch *s, const q3_profile *profiles, size_t n, size_t *best,
                   double *similarity, size_t k)
{
	probe q;
	size_t found = 0;

	make_probe(&q, s);
	for (size_t i = 0; i < n; i++)
	{
		double value = compare(&q, &profiles[i]);
		size_t place = found;

		while (place > 0 && similarity[place - 1] < value)
			place--;
		if (place == k)
			continue;
		if (found < k)
			found++;
		memmove(&best[place + 1], &best[place], (found - place - 1) * sizeof(*best));
		memmove(&similarity[place + 1], &similarity[place],
		        (found - place - 1) * sizeof(*similarity));
		best[place] = i;
		similarity[place] = value;
	}
	return found;
}
