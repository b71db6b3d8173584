/*
 * match.h: what inputs of each task look like (qwen3dm.task_features), how common words are
 * (qwen3dm.term_counts), and the repository's defaults (qwen3dm.policy_defaults).
 *
 * The session keeps what it has read until a transaction that changed one of these tables commits.
 * Tasks that the current user may not see are never told.
 */
#ifndef QWEN3DM_MATCH_H
#define QWEN3DM_MATCH_H

#include "policy/similarity.h"
#include "protocol/protocol.h"

/* Values of qwen3dm.policy_defaults by name; a row that is missing has the value that the install
 * script gives it. */
typedef enum Qwen3dmDefault
{
	QWEN3DM_MAX_LENGTH,     /* max_length: bytes of input without a task that may go to efficient */
	QWEN3DM_MAX_RARITY,     /* max_rarity: of its words, 0 to 1 */
	QWEN3DM_MIN_SIMILARITY, /* min_similarity: from which on a task suggests its mode */
	QWEN3DM_DELTA,          /* delta: of certificates, the probability that one is wrong */
	QWEN3DM_EXIT_MARGIN,    /* exit_margin: ends thinking that auto has begun; 0: nothing does */
	QWEN3DM_N_DEFAULTS
} Qwen3dmDefault;

extern double qwen3dm_policy_default(Qwen3dmDefault which);

/* The sketch of an input in UTF-8, with the words' weights as counted. */
extern void qwen3dm_sketch(q3_sketch *sketch, const char *text, Size len);

typedef struct Qwen3dmMatch
{
	const char *task; /* in the server's encoding; valid until the next call of a function here */
	double similarity;
} Qwen3dmMatch;

/* The k most similar tasks of which features are known, best first; returns how many. */
extern int qwen3dm_match(const q3_sketch *sketch, Qwen3dmMatch *matches, int k);

/*
 * Learns a task's features from texts in UTF-8: replaces its row of task_features (histogram of
 * lengths, terms with weights, profile; with an embedding model that is ready, the centroid of at
 * most 100 of them), and counts their words in term_counts. Within the current transaction, by SPI
 * (connects itself). Raises errors.
 */
extern void qwen3dm_features_learn(const char *task, const q3p_bytes *texts, int n);

#endif
