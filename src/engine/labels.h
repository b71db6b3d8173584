/*
 * labels.h: the labels of a classification as a tree of tokens.
 *
 * Decoding that may say nothing but one of the labels has a choice only where labels part: at the
 * branches. The probability of a label is the product, over the branches that lie on its way, of
 * the softmax over that branch's choices alone. Where a label is the beginning of another one, the
 * end of the turn is a choice. A q3_labels belongs to one job.
 */
#ifndef Q3_LABELS_H
#define Q3_LABELS_H

#include "model/tokenizer.h"

typedef struct q3_label_branch
{
	int32_t first_choice, n_choices; /* at least 2, consecutive in the arrays of choices */
	int32_t label, depth;            /* reached by the first depth tokens of this label */
	int32_t begin, end;              /* in order[]: the labels that come here */
} q3_label_branch;

typedef struct q3_labels
{
	int32_t n;
	q3_tokens *tokens;         /* [n]: of each label, with the token that ends the turn */
	int32_t *order;            /* [n]: labels sorted by their tokens */
	int32_t n_branches;        /* 0: there is only one label */
	q3_label_branch *branches; /* the first is the first on every label's way */
	int32_t n_choices;
	int32_t *choice;     /* [n_choices]: tokens */
	int32_t *choice_end; /* [n_choices]: the labels behind it end there in order[] */
	float *logits;       /* [n_choices]: filled in by whoever computes */
	/*
	 * The probability that all the vocabulary's other tokens have together where the first branch
	 * is; filled in if it is wanted; NaN: unknown.
	 */
	double off_label;
	double *probs; /* [n], from q3_labels_finish() on */
} q3_labels;

/*
 * Q3_ERR_INVALID for no labels, an empty one, or two that are the same to the model; end is the
 * token that ends the turn. NULL and err on failure.
 */
extern q3_labels *q3_labels_create(const q3_tokenizer *tok, int32_t end, const q3_str *labels,
                                   size_t n, q3_error *err);
extern void q3_labels_free(q3_labels *l); /* NULL is fine */
/* Most tokens of a label that lie before a branch. */
extern int32_t q3_labels_depth(const q3_labels *l);
/* Turns the logits of all branches into probabilities. */
extern void q3_labels_finish(q3_labels *l);
/* The most probable label; the first of equal ones. */
extern int32_t q3_labels_best(const q3_labels *l);
/* The probability of the best label less that of the second; with one label, its probability. */
extern double q3_labels_margin(const q3_labels *l);

#endif
