/*
 * labels.c: building the tree of labels, and probabilities from its logits. See labels.h.
 *
 * Sorted by their tokens, the labels behind any point of the tree stand together: a branch is a
 * range of them and the number of tokens that they share.
 */
#include "engine/labels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static q3_labels *
allocate(size_t n)
{
	q3_labels *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	l->n = (int32_t) n;
	l->off_label = NAN;
	l->tokens = calloc(n, sizeof(*l->tokens));
	l->order = calloc(n, sizeof(*l->order));
	/* A tree with n leaves has fewer than n branches, and fewer than 2 n ways out of them. */
	l->branches = calloc(n, sizeof(*l->branches));
	l->choice = calloc(2 * n, sizeof(*l->choice));
	l->choice_end = calloc(2 * n, sizeof(*l->choice_end));
	l->logits = calloc(2 * n, sizeof(*l->logits));
	l->probs = calloc(n, sizeof(*l->probs));
	if (l->tokens != NULL && l->order != NULL && l->branches != NULL && l->choice != NULL &&
	    l->choice_end != NULL && l->logits != NULL && l->probs != NULL)
		return l;
	q3_labels_free(l);
	return NULL;
}

void
q3_labels_free(q3_labels *l)
{
	if (l == NULL)
		return;
	for (int32_t i = 0; l->tokens != NULL && i < l->n; i++)
		q3_tokens_free(&l->tokens[i]);
	free(l->tokens);
	free(l->order);
	free(l->branches);
	free(l->choice);
	free(l->choice_end);
	free(l->logits);
	free(l->probs);
	free(l);
}

static q3_code
encode(q3_labels *l, const q3_tokenizer *tok, int32_t end, const q3_str *labels, q3_error *err)
{
	for (int32_t i = 0; i < l->n; i++)
	{
		q3_code code;

		if (labels[i].len == 0)
			return q3_fail(err, Q3_ERR_INVALID, "labels must not be empty");
		code = q3_tokenizer_encode(tok, labels[i].data, labels[i].len, false, &l->tokens[i], err);
		if (code != Q3_OK)
			return code;
		if (!q3_tokens_push(&l->tokens[i], end))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		l->order[i] = i;
	}
	return Q3_OK;
}

static int
compare_tokens(const q3_tokens *a, const q3_tokens *b)
{
	for (size_t i = 0; i < a->n && i < b->n; i++)
		if (a->ids[i] != b->ids[i])
			return a->ids[i] < b->ids[i] ? -1 : 1;
	return (a->n > b->n) - (a->n < b->n);
}

static int
compare_labels(const void *a, const void *b, void *arg)
{
	const q3_labels *l = arg;

	return compare_tokens(&l->tokens[*(const int32_t *) a], &l->tokens[*(const int32_t *) b]);
}

static int32_t
token_at(const q3_labels *l, int32_t position, int32_t depth)
{
	return l->tokens[l->order[position]].ids[depth];
}

/* Where the labels order[begin .. end), at least two, part; from depth tokens on. */
static void
add_branch(q3_labels *l, int32_t begin, int32_t end, int32_t depth)
{
	/* Sorted: where the first and the last agree, so do all between. */
	while (token_at(l, begin, depth) == token_at(l, end - 1, depth))
		depth++;
	l->branches[l->n_branches++] =
	    (q3_label_branch){.label = l->order[begin], .depth = depth, .begin = begin, .end = end};
}

/* The ways out of a branch, and the branches that they lead to. */
static void
add_choices(q3_labels *l, int32_t branch)
{
	q3_label_branch *b = &l->branches[branch];

	b->first_choice = l->n_choices;
	for (int32_t i = b->begin, next; i < b->end; i = next)
	{
		next = i + 1;
		while (next < b->end && token_at(l, next, b->depth) == token_at(l, i, b->depth))
			next++;
		l->choice[l->n_choices] = token_at(l, i, b->depth);
		l->choice_end[l->n_choices++] = next;
		if (next - i > 1)
			add_branch(l, i, next, b->depth + 1);
	}
	b->n_choices = l->n_choices - b->first_choice;
}

q3_labels *
q3_labels_create(const q3_tokenizer *tok, int32_t end, const q3_str *labels, size_t n,
                 q3_error *err)
{
	q3_labels *l;

	if (n == 0 || n > INT32_MAX / 4)
	{
		q3_fail(err, Q3_ERR_INVALID, "classification needs at least one label");
		return NULL;
	}
	l = allocate(n);
	if (l == NULL)
		q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (l == NULL || encode(l, tok, end, labels, err) != Q3_OK)
	{
		q3_labels_free(l);
		return NULL;
	}
	qsort_r(l->order, n, sizeof(*l->order), compare_labels, l);
	for (int32_t i = 1; i < l->n; i++)
		if (compare_labels(&l->order[i - 1], &l->order[i], l) == 0)
		{
			q3_fail(err, Q3_ERR_INVALID, "labels must be distinct");
			q3_error_detail(err, "Label %d is the same as label %d.", l->order[i] + 1,
			                l->order[i - 1] + 1);
			q3_labels_free(l);
			return NULL;
		}
	if (n > 1)
		add_branch(l, 0, l->n, 0);
	for (int32_t i = 0; i < l->n_branches; i++)
		add_choices(l, i);
	return l;
}

int32_t
q3_labels_depth(const q3_labels *l)
{
	int32_t depth = 0;

	for (int32_t i = 0; i < l->n_branches; i++)
		depth = l->branches[i].depth > depth ? l->branches[i].depth : depth;
	return depth;
}

/* What a choice weighs: NaN nothing; where nothing is finite all weigh the same. */
static double
weight(float logit, double largest)
{
	if (!isfinite(largest))
		return 1;
	return isnan(logit) ? 0 : exp(logit - largest);
}

/* Gives the labels of a branch their shares. */
static void
share_out(q3_labels *l, const q3_label_branch *b)
{
	const float *logits = l->logits + b->first_choice;
	double largest = -INFINITY, sum = 0;
	int32_t i = b->begin;

	for (int32_t c = 0; c < b->n_choices; c++)
		largest = logits[c] > largest ? logits[c] : largest;
	for (int32_t c = 0; c < b->n_choices; c++)
		sum += weight(logits[c], largest);
	for (int32_t c = 0; c < b->n_choices; c++)
		for (; i < l->choice_end[b->first_choice + c]; i++)
			l->probs[l->order[i]] *= weight(logits[c], largest) / sum;
}

void
q3_labels_finish(q3_labels *l)
{
	for (int32_t i = 0; i < l->n; i++)
		l->probs[i] = 1;
	for (int32_t i = 0; i < l->n_branches; i++)
		share_out(l, &l->branches[i]);
}

int32_t
q3_labels_best(const q3_labels *l)
{
	int32_t best = 0;

	for (int32_t i = 1; i < l->n; i++)
		best = l->probs[i] > l->probs[best] ? i : best;
	return best;
}

double
q3_labels_margin(const q3_labels *l)
{
	int32_t best = q3_labels_best(l);
	double second = 0;

	for (int32_t i = 0; i < l->n; i++)
		if (i != best && l->probs[i] > second)
			second = l->probs[i];
	return l->probs[best] - second;
}
