/*
 * sampler.c: from logits to the next token.
 *
 * Order of the cuts: the top_k largest logits, then the smallest set of them that has at least
 * top_p of their probability at the given temperature, then a draw from what is left. Candidates
 * are ordered by logit and, where these are equal, by id, so that every cut is unique. Nothing is
 * sorted: top_k keeps a heap of k, top_p partitions like quickselect until its cut is found. NaN
 * counts as minus infinity.
 *
 * Memory: one array of candidates, allocated with the sampler (with top_p alone it has room for the
 * whole vocabulary, of which only the part that is used becomes resident). One thread at a time.
 */
#include "model/sampler.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

typedef struct candidate
{
	double weight; /* exp((logit - largest) / temperature) */
	float logit;
	int32_t id;
} candidate;

struct q3_sampler
{
	q3_sampling options;
	int32_t n_vocab;
	candidate *candidates; /* NULL where none are needed */
	uint64_t state[4];
};

/* ---------------------------------------------------------------------------------------------
 * Random numbers: xoshiro256**, started by splitmix64
 * --------------------------------------------------------------------------------------------- */

static uint64_t
splitmix64(uint64_t *x)
{
	uint64_t z = (*x += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t
rotate_left(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static uint64_t
xoshiro256(uint64_t s[4])
{
	uint64_t result = rotate_left(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotate_left(s[3], 45);
	return result;
}

/* Uniform in [0, 1). */
static double
uniform(q3_sampler *s)
{
	return (double) (xoshiro256(s->state) >> 11) * 0x1p-53;
}

/* ---------------------------------------------------------------------------------------------
 * Logits
 * --------------------------------------------------------------------------------------------- */

/* Makes comparing and subtracting safe: NaN becomes minus infinity, plus infinity a number. */
static float
clean(float logit)
{
	if (!(logit >= -FLT_MAX))
		return -INFINITY;
	return logit < FLT_MAX ? logit : FLT_MAX;
}

static int32_t
argmax(const float *logits, int32_t n)
{
	int32_t best = 0;

	for (int32_t i = 1; i < n; i++)
		if (clean(logits[i]) > clean(logits[best]))
			best = i;
	return best;
}

static double
weight(float logit, float largest, double temperature)
{
	return exp(((double) clean(logit) - largest) / temperature);
}

static double
sum_of_weights(const float *logits, int32_t n, float largest, double temperature)
{
	double sum = 0;

	for (int32_t i = 0; i < n; i++)
		sum += weight(logits[i], largest, temperature);
	return sum;
}

/* ---------------------------------------------------------------------------------------------
 * Candidates
 * --------------------------------------------------------------------------------------------- */

/* The total order of candidates: larger logits first, then smaller ids. */
static bool
before(const candidate *a, const candidate *b)
{
	return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void
swap(candidate *a, candidate *b)
{
	candidate t = *a;

	*a = *b;
	*b = t;
}

/* Restores the heap, whose root is the last of its candidates, below position i. */
static void
sift_down(candidate *heap, int32_t n, int32_t i)
{
	for (int32_t child; (child = 2 * i + 1) < n; i = child)
	{
		if (child + 1 < n && before(&heap[child], &heap[child + 1]))
			child++;
		if (before(&heap[child], &heap[i]))
			return;
		swap(&heap[child], &heap[i]);
	}
}

/* The first k of the n logits in the candidates' order; returns k. */
static int32_t
take_top_k(const float *logits, int32_t n, candidate *heap, int32_t k)
{
	for (int32_t i = 0; i < k; i++)
		heap[i] = (candidate){0, clean(logits[i]), i};
	for (int32_t i = k / 2; i-- > 0;)
		sift_down(heap, k, i);
	for (int32_t i = k; i < n; i++)
	{
		/* Equal logits stay out: the one in the heap has the smaller id. */
		if (clean(logits[i]) > heap[0].logit)
		{
			heap[0] = (candidate){0, clean(logits[i]), i};
			sift_down(heap, k, 0);
		}
	}
	return k;
}

/*
 * All that can be among the first top_p of the probability: a token with less than (1 - top_p) / n
 * cannot, because all such tokens together have less than 1 - top_p.
 */
static int32_t
take_likely(const float *logits, int32_t n, candidate *out, float largest, double temperature,
            double total, double top_p)
{
	double lowest = largest + temperature * log((1 - top_p) * total / n);
	int32_t n_out = 0;

	lowest -= 1e-6 * (1 + fabs(lowest)); /* rounding must not exclude the last one */
	for (int32_t i = 0; i < n; i++)
		if (clean(logits[i]) >= lowest)
			out[n_out++] = (candidate){0, clean(logits[i]), i};
	return n_out;
}

/* Median of first, middle and last, moved to the last place. */
static void
choose_pivot(candidate *c, int32_t low, int32_t high)
{
	int32_t mid = low + (high - low) / 2, last = high - 1;

	if (before(&c[mid], &c[low]))
		swap(&c[mid], &c[low]);
	if (before(&c[last], &c[low]))
		swap(&c[last], &c[low]);
	if (before(&c[mid], &c[last]))
		swap(&c[mid], &c[last]);
}

/*
 * Moves the smallest set of first candidates whose weights reach target to the front and returns
 * its size (at least 1). Every round settles on which side of a pivot the cut lies.
 */
static int32_t
take_top_p(candidate *c, int32_t n, double target)
{
	int32_t low = 0, high = n;
	double settled = 0; /* weight of c[0..low) */

	while (high - low > 1)
	{
		double mass = 0;
		int32_t p = low;

		choose_pivot(c, low, high);
		for (int32_t i = low; i < high - 1; i++)
		{
			if (before(&c[i], &c[high - 1]))
			{
				mass += c[i].weight;
				swap(&c[i], &c[p++]);
			}
		}
		swap(&c[p], &c[high - 1]);
		if (p > low && settled + mass >= target)
			high = p; /* reached before the pivot */
		else if (settled + mass + c[p].weight >= target)
			return p + 1;
		else
		{
			settled += mass + c[p].weight;
			low = p + 1;
		}
	}
	return high;
}

/* ---------------------------------------------------------------------------------------------
 * Drawing
 * --------------------------------------------------------------------------------------------- */

/* From the whole distribution. */
static int32_t
draw_any(q3_sampler *s, const float *logits, int32_t n, int32_t best, double total)
{
	float largest = clean(logits[best]);
	double point = uniform(s) * total;
	double sum = 0;

	for (int32_t i = 0; i < n; i++)
	{
		sum += weight(logits[i], largest, s->options.temperature);
		if (point < sum)
			return i;
	}
	return best; /* cannot be: the same sum in the same order ended above the point */
}

static int32_t
draw_candidate(q3_sampler *s, const candidate *c, int32_t n)
{
	double total = 0, sum = 0, point;

	for (int32_t i = 0; i < n; i++)
		total += c[i].weight;
	point = uniform(s) * total;
	for (int32_t i = 0; i < n; i++)
	{
		sum += c[i].weight;
		if (point < sum)
			return c[i].id;
	}
	return c[0].id;
}

/* After the cuts. */
static int32_t
draw_cut(q3_sampler *s, const float *logits, int32_t n, int32_t best)
{
	double temperature = s->options.temperature, top_p = s->options.top_p, total = 0;
	float largest = clean(logits[best]);
	candidate *c = s->candidates;
	bool cut_k = s->options.top_k > 0 && s->options.top_k < n;
	int32_t n_left;

	if (cut_k)
		n_left = take_top_k(logits, n, c, s->options.top_k);
	else
	{
		total = sum_of_weights(logits, n, largest, temperature);
		n_left = take_likely(logits, n, c, largest, temperature, total, top_p);
	}
	for (int32_t i = 0; i < n_left; i++)
	{
		c[i].weight = weight(c[i].logit, largest, temperature);
		if (cut_k)
			total += c[i].weight;
	}
	if (top_p < 1)
		n_left = take_top_p(c, n_left, top_p * total);
	return draw_candidate(s, c, n_left);
}

/* One of the n tokens; best is the most likely. */
static int32_t
choose(q3_sampler *s, const float *logits, int32_t n, int32_t best)
{
	const q3_sampling *o = &s->options;
	float largest = clean(logits[best]);

	if (largest == -INFINITY || o->temperature == 0 || o->top_k == 1)
		return best;
	if ((o->top_k > 0 && o->top_k < n) || o->top_p < 1)
		return draw_cut(s, logits, n, best);
	return draw_any(s, logits, n, best, sum_of_weights(logits, n, largest, o->temperature));
}

/* total: the sum of weights of the plain softmax, whose largest logit is given. */
static float
logprob_of(float logit, float largest, double total)
{
	if (largest == -INFINITY)
		return -INFINITY;
	return (float) ((double) clean(logit) - largest - log(total));
}

int32_t
q3_sampler_pick(q3_sampler *s, const float *logits, int32_t n_valid, float *logprob)
{
	int32_t n = n_valid < s->n_vocab ? n_valid : s->n_vocab;
	int32_t best, id;
	float largest;

	if (n < 1)
		return -1;
	best = argmax(logits, n);
	largest = clean(logits[best]);
	id = choose(s, logits, n, best);
	if (logprob != NULL)
		*logprob = logprob_of(logits[id], largest, sum_of_weights(logits, n, largest, 1));
	return id;
}

static bool
is_allowed(const uint32_t *allowed, int32_t id)
{
	return allowed[id / 32] >> (id % 32) & 1;
}

/* The most likely of the allowed tokens, or -1. */
static int32_t
argmax_allowed(const float *logits, int32_t n, const uint32_t *allowed)
{
	int32_t best = -1;

	for (int32_t word = 0; word * 32 < n; word++)
		for (uint32_t bits = allowed[word]; bits != 0; bits &= bits - 1)
		{
			int32_t id = word * 32 + __builtin_ctz(bits);

			if (id < n && (best < 0 || clean(logits[id]) > clean(logits[best])))
				best = id;
		}
	return best;
}

int32_t
q3_sampler_pick_allowed(q3_sampler *s, float *logits, int32_t n_valid, const uint32_t *allowed,
                        float *logprob)
{
	int32_t n = n_valid < s->n_vocab ? n_valid : s->n_vocab;
	int32_t best = n > 0 ? argmax_allowed(logits, n, allowed) : -1, id = best;
	float largest;
	double total = 0;

	if (best < 0)
		return -1;
	largest = clean(logits[argmax(logits, n)]);
	if (logprob != NULL)
		total = sum_of_weights(logits, n, largest, 1);
	if (s->options.temperature > 0 && s->options.top_k != 1)
	{
		for (int32_t i = 0; i < n; i++)
			if (!is_allowed(allowed, i))
				logits[i] = -INFINITY;
		id = choose(s, logits, n, best);
		if (!is_allowed(allowed, id)) /* a cut that was filled up with others */
			id = best;
	}
	if (logprob != NULL)
		*logprob = logprob_of(logits[id], largest, total);
	return id;
}

/* ---------------------------------------------------------------------------------------------
 * Creating and freeing
 * --------------------------------------------------------------------------------------------- */

static bool
check_options(const q3_sampling *o, int32_t n_vocab, q3_error *err)
{
	const char *wrong = NULL;

	if (!(o->temperature >= 0 && o->temperature <= FLT_MAX))
		wrong = "temperature must be a finite number that is not negative";
	else if (!(o->top_p > 0 && o->top_p <= 1))
		wrong = "top_p must be greater than 0 and at most 1";
	else if (o->top_k < 0)
		wrong = "top_k must not be negative";
	else if (n_vocab < 1)
		wrong = "the vocabulary must not be empty";
	if (wrong != NULL)
		q3_fail(err, Q3_ERR_INVALID, "%s", wrong);
	return wrong == NULL;
}

/* Most candidates that the cuts can leave to be looked at. */
static size_t
n_candidates(const q3_sampling *o, int32_t n_vocab)
{
	if (o->temperature == 0 || (o->top_k == 0 && o->top_p == 1))
		return 0;
	return o->top_k > 0 && o->top_k < n_vocab ? o->top_k : n_vocab;
}

q3_sampler *
q3_sampler_create(const q3_sampling *sampling, int32_t n_vocab, q3_error *err)
{
	q3_sampler *s;
	uint64_t seed = sampling->seed;
	size_t n;

	if (!check_options(sampling, n_vocab, err))
		return NULL;
	n = n_candidates(sampling, n_vocab);
	s = calloc(1, sizeof(*s));
	if (s != NULL && n > 0)
		s->candidates = malloc(n * sizeof(*s->candidates));
	if (s == NULL || (n > 0 && s->candidates == NULL))
	{
		free(s);
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return NULL;
	}
	s->options = *sampling;
	s->n_vocab = n_vocab;
	for (int i = 0; i < 4; i++)
		s->state[i] = splitmix64(&seed);
	return s;
}

void
q3_sampler_free(q3_sampler *s)
{
	if (s == NULL)
		return;
	free(s->candidates);
	free(s);
}
