/*
 * similarity.h: which task an input looks like, and how unusual its words are, without an
 * embedding.
 *
 * An input is a sketch: how long it is, and its heaviest words as hashes with weights, tf-idf as
 * in G. Salton and C. Buckley, "Term-weighting approaches in automatic text retrieval" (1988):
 * (1 + ln tf) (1 + ln((1 + D) / (1 + df))). How many of the D inputs seen so far hold a word (df)
 * is counted in a count-min sketch (G. Cormode and S. Muthukrishnan, J. Algorithms 55, 2005). A
 * task's profile is the direction of its inputs' mean, in 512 dimensions, by signed feature hashing
 * (K. Weinberger and others, ICML 2009), beside a histogram of lengths.
 *
 * Words are found in bytes of UTF-8 without looking anything up: runs of ASCII letters (case does
 * not count) and of two-byte characters, runs of digits (all alike), and each longer character by
 * itself, which suits scripts without spaces. Any bytes are accepted. Text is not kept: a sketch
 * holds hashes. Plain structs without pointers; thread-agnostic.
 */
#ifndef Q3_POLICY_SIMILARITY_H
#define Q3_POLICY_SIMILARITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q3_SIMILARITY_VERSION 1
#define Q3_SKETCH_WORDS 2048 /* of an input, that are looked at */
#define Q3_SKETCH_TERMS 64   /* that are kept */
#define Q3_LENGTH_BUCKETS 16
#define Q3_PROFILE_DIMENSIONS 512
#define Q3_TERM_ROWS 2
#define Q3_TERM_COLUMNS 4096

typedef struct q3_word
{
	size_t start, len; /* its bytes */
	uint32_t hash;     /* the same in upper and lower case */
	bool digits;
} q3_word;

/* Finds the next word from *at on, and moves *at behind it; false: there is none. */
extern bool q3_word_next(const char *text, size_t len, size_t *at, q3_word *word);

/* In how many inputs words have been seen, of all tasks together. */
typedef struct q3_terms
{
	uint32_t version;
	int64_t inputs;
	uint32_t counts[Q3_TERM_ROWS][Q3_TERM_COLUMNS];
} q3_terms;

typedef struct q3_sketch_term
{
	uint32_t hash;
	float weight; /* the squares of all sum to 1 */
} q3_sketch_term;

typedef struct q3_sketch
{
	uint32_t version;
	int32_t length_bucket; /* floor(log2(bytes)), 15 at most */
	int64_t bytes;
	double rarity;   /* of its words, see below */
	int32_t n_terms; /* the heaviest ones */
	q3_sketch_term terms[Q3_SKETCH_TERMS];
} q3_sketch;

/* What is learned from, ... */
typedef struct q3_profile_sums
{
	uint32_t version;
	int64_t inputs;
	int64_t lengths[Q3_LENGTH_BUCKETS];
	float sums[Q3_PROFILE_DIMENSIONS];
} q3_profile_sums;

/* ... and what inputs are compared with. */
typedef struct q3_profile
{
	uint32_t version;
	float scale;                        /* of direction[] */
	uint8_t lengths[Q3_LENGTH_BUCKETS]; /* share of the most frequent one, 255 being 1 */
	int8_t direction[Q3_PROFILE_DIMENSIONS];
} q3_profile;

extern void q3_terms_begin(q3_terms *t);
/* Counts the sketch's words as seen in one more input. */
extern void q3_terms_learn(q3_terms *t, const q3_sketch *s);
/* In how many inputs a word has been seen; now and then it says too many. */
extern uint32_t q3_terms_count(const q3_terms *t, uint32_t hash);

/*
 * Of the first Q3_SKETCH_WORDS words. rarity is the mean over its different words of how rare they
 * are: 0 for one that every input holds, 1 for one that none did; it is 0 as long as fewer than 100
 * inputs have been counted. terms may be NULL: all words weigh the same then.
 */
extern void q3_sketch_make(q3_sketch *s, const char *text, size_t len, const q3_terms *terms);

extern void q3_profile_begin(q3_profile_sums *p);
extern void q3_profile_learn(q3_profile_sums *p, const q3_sketch *s);
extern void q3_profile_finish(const q3_profile_sums *sums, q3_profile *p);

/* 0 to 1: nine tenths for the words (cosine), one tenth for the length. */
extern double q3_similarity(const q3_sketch *s, const q3_profile *p);
/* Indices of the k most similar of n profiles, best first, and how similar; returns how many. */
extern size_t q3_similarity_best(const q3_sketch *s, const q3_profile *profiles, size_t n,
                                 size_t *best, double *similarity, size_t k);

#endif
