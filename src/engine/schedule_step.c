/*
 * schedule_step.c: which tokens go into the next forward pass.
 *
 * One token of every job that generates, and what a schema forces behind it, then branches of label
 * trees, then pieces of prompts. The budget is what fits in the batch and in the time that a step
 * should take. Roles share it by their times; within a role half of it is the oldest prompt's, so
 * that it always gets on, the rest goes to the shortest ones first, so that none of them waits
 * behind a long one. A prompt whose next block is just being computed for another one waits until
 * that is there.
 */
#include "engine/schedule.h"

#include <stdlib.h>
#include <string.h>

/* How long a step should take: newcomers wait as long, and so does the next token of an answer. */
#define STEP_DECODE_NS 200e6
#define STEP_NS 300e6
/* A prompt's piece is never cut smaller for the sake of time. */
#define MIN_PREFILL 32
/* Prompts up to this length are short, whatever it is. */
#define SHORT 128
/* Tokens that a role is given at a time. */
#define QUANTUM 16
/* Slots of the table of blocks that are being computed; more than twice the running jobs. */
#define LEADERS 1024

/* A prompt that could go on. */
typedef struct lane
{
	q3_job *job;
	int32_t left;  /* tokens */
	int32_t limit; /* of them, that this step may compute */
	int32_t grant;
} lane;

typedef struct lanes
{
	lane lane[Q3_MAX_RUNNING]; /* in order of admission */
	int32_t n;
} lanes;

static bool
decoding(const q3_job *job)
{
	return job->kind == Q3_JOB_GENERATE && atomic_load(&job->phase) == Q3_PHASE_DECODE;
}

static q3_part *
add_part(q3_scheduler *s, q3_job *job, const int32_t *tokens, int32_t n, q3_want want)
{
	q3_part *part = &s->parts[s->n_items++];

	*part = (q3_part){
	    .item = {.seq = job->seq, .tokens = tokens, .n_tokens = n, .mode = job->mode, .want = want},
	    .job = job,
	    .probe = -1};
	part->item.logits = s->logits + (size_t) s->n_rows * (size_t) s->n_vocab;
	part->row = s->n_rows;
	if (want == Q3_WANT_LAST || want == Q3_WANT_ALL)
		s->n_rows += want == Q3_WANT_ALL ? n : 1;
	for (int32_t r = part->row; r < s->n_rows; r++)
		s->rows[r].part = (int32_t) (part - s->parts);
	s->n_tokens += n;
	return part;
}

/* Lets the part give the logits of a branch's choices. */
static void
want_choices(q3_part *part, int32_t branch)
{
	q3_labels *l = part->job->labels;
	const q3_label_branch *b = &l->branches[branch];

	part->item.want = Q3_WANT_TOKENS;
	part->item.wanted = l->choice + b->first_choice;
	part->item.n_wanted = b->n_choices;
	part->item.logits = l->logits + b->first_choice;
	if (branch == 0 && part->job->off_label)
		part->item.rest = &l->off_label;
}

/* ---------------------------------------------------------------------------------------------
 * Branches of label trees
 * --------------------------------------------------------------------------------------------- */

static bool
probing(const q3_job *job)
{
	return job->kind == Q3_JOB_CLASSIFY && atomic_load(&job->phase) == Q3_PHASE_DECODE;
}

/* The tokens that lead from the end of the prompt to a branch. */
static const int32_t *
way_to(const q3_labels *l, int32_t branch, int32_t *n)
{
	const q3_label_branch *b = &l->branches[branch];

	*n = b->depth - l->branches[0].depth;
	return l->tokens[b->label].ids + l->branches[0].depth;
}

/* As many branches as there is room for, the first in the job's own sequence. */
static void
start_probes(q3_job *job)
{
	int32_t n;

	for (; job->n_probes < Q3_MAX_PROBES && job->next_branch < job->labels->n_branches;
	     job->n_probes++)
	{
		q3_seq *seq = job->seq;

		way_to(job->labels, job->next_branch, &n);
		if (job->n_probes > 0)
			seq = q3_seq_fork(job->seq, (int32_t) job->prompt.n + n);
		if (seq == NULL)
			return;
		job->probes[job->n_probes] = (q3_probe){.seq = seq, .branch = job->next_branch++};
	}
}

/* Returns the tokens that are left of the budget. */
static int32_t
add_probes(q3_scheduler *s, q3_job *job, int32_t budget)
{
	if (job->n_probes == 0)
		start_probes(job);
	for (int32_t i = 0; i < job->n_probes && budget > 0; i++)
	{
		q3_probe *probe = &job->probes[i];
		int32_t length, n;
		const int32_t *way = way_to(job->labels, probe->branch, &length);
		q3_part *part;

		n = length - probe->done;
		if (n == 0 || s->n_items >= Q3_MAX_ITEMS - s->n_running)
			continue;
		n = n < budget ? n : budget;
		part = add_part(s, job, way + probe->done, n, Q3_WANT_NOTHING);
		part->item.seq = probe->seq;
		part->probe = i;
		if (probe->done + n == length)
			want_choices(part, probe->branch);
		budget -= n;
	}
	return budget;
}

/* ---------------------------------------------------------------------------------------------
 * Prompts that begin alike
 * --------------------------------------------------------------------------------------------- */

/* The block that a prompt computes next, known by all tokens up to its end. */
typedef struct next_block
{
	const q3_job *job;
	uint64_t hash;
	int32_t n_tokens; /* to its end */
} next_block;

/* False when the block is not a whole one of the prompt, or the job has no use for the cache. */
static bool
next_block_of(const q3_job *job, next_block *b)
{
	int32_t done = atomic_load(&job->prompt_done);

	b->job = job;
	b->n_tokens = (done / Q3_KV_BLOCK + 1) * Q3_KV_BLOCK;
	if (!q3_takes_prefixes(job) || b->n_tokens > (int32_t) job->prompt.n)
		return false;
	b->hash = (uint64_t) q3_prefix_key_of(job).domain * 2 + job->mode;
	for (int32_t i = 0; i < b->n_tokens; i++)
	{
		b->hash = (b->hash ^ (uint32_t) job->prompt.ids[i]) * UINT64_C(0x9e3779b97f4a7c15);
		b->hash ^= b->hash >> 29;
	}
	return true;
}

static bool
same_block(const next_block *a, const next_block *b)
{
	return a->hash == b->hash && a->n_tokens == b->n_tokens && a->job->mode == b->job->mode &&
	       q3_prefix_key_of(a->job).domain == q3_prefix_key_of(b->job).domain &&
	       memcmp(a->job->prompt.ids, b->job->prompt.ids,
	              (size_t) a->n_tokens * sizeof(a->job->prompt.ids[0])) == 0;
}

/* The slot of the same block, or the empty one where it belongs. */
static next_block *
leader_slot(next_block *leaders, const next_block *b)
{
	size_t i = b->hash % LEADERS;

	while (leaders[i].job != NULL && !same_block(&leaders[i], b))
		i = (i + 1) % LEADERS;
	return &leaders[i];
}

typedef int32_t (*attach_fn)(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n);

/* Takes what the prefix cache has by now. */
static void
attach_more(q3_scheduler *s, q3_job *job, attach_fn attach)
{
	int32_t n;

	if (!q3_takes_prefixes(job))
		return;
	n = attach(job->seq, q3_prefix_key_of(job), job->prompt.ids, (int32_t) job->prompt.n);
	if (n == 0)
		return;
	atomic_fetch_add(&job->prompt_done, n);
	atomic_fetch_add(&job->cached_tokens, n);
	s->stats.cached_tokens += (uint64_t) n;
	q3_schedule_keep_promise(job, n);
}

/* Prompts that can go on: not those that wait for a block which another one computes. */
static void
collect_lanes(q3_scheduler *s, lanes *l)
{
	next_block leaders[LEADERS], b;

	memset(leaders, 0, sizeof(leaders));
	for (int32_t i = 0; i < s->n_running; i++)
		if (q3_prompt_left(s->running[i]) > 0)
		{
			attach_more(s, s->running[i], q3_seq_attach);
			/* Whoever is in the middle of a block goes on with it. */
			if (atomic_load(&s->running[i]->prompt_done) % Q3_KV_BLOCK != 0 &&
			    next_block_of(s->running[i], &b))
				*leader_slot(leaders, &b) = b;
		}
	l->n = 0;
	for (int32_t i = 0; i < s->n_running; i++)
	{
		q3_job *job = s->running[i];
		int32_t left = q3_prompt_left(job);

		if (left == 0)
			continue;
		if (s->prefix_cache && atomic_load(&job->prompt_done) % Q3_KV_BLOCK == 0 &&
		    next_block_of(job, &b))
		{
			next_block *slot = leader_slot(leaders, &b);

			/* The cache never gives a prompt's last token: such a block is computed. */
			if (slot->job != NULL && b.n_tokens < (int32_t) job->prompt.n)
				continue;
			*slot = b;
		}
		l->lane[l->n++] = (lane){.job = job, .left = left, .limit = left};
	}
}

/* ---------------------------------------------------------------------------------------------
 * Sharing the budget
 * --------------------------------------------------------------------------------------------- */

/* How many tokens of prompts and labels this step may compute beside n_decode tokens of answers. */
static int32_t
prefill_budget(const q3_scheduler *s, int32_t n_decode)
{
	double target = s->tokens_per_ns * (n_decode > 0 ? STEP_DECODE_NS : STEP_NS) - n_decode;
	int32_t most = s->max_batch - n_decode;

	if (target < MIN_PREFILL)
		target = MIN_PREFILL;
	return target < most ? (int32_t) target : most;
}

/* Scoring needs a row of logits per token; every such job has one of its own. */
static void
limit_scoring(const q3_scheduler *s, lanes *l)
{
	int32_t spare_rows = s->max_rows - s->rows_taken;

	for (int32_t i = 0; i < l->n; i++)
	{
		lane *at = &l->lane[i];

		if (at->job->kind != Q3_JOB_LOGPROB)
			continue;
		at->limit = at->limit < 1 + spare_rows ? at->limit : 1 + spare_rows;
		spare_rows -= at->limit - 1;
	}
}

/* How much of the budget each role gets: little by little, whoever has had least for its weight. */
static void
share_among_roles(q3_scheduler *s, const lanes *l, int32_t budget)
{
	for (q3_role *r = s->roles; r != NULL; r = r->next)
	{
		r->demand = r->share = 0;
		r->turn = r->time;
	}
	for (int32_t i = 0; i < l->n; i++)
		l->lane[i].job->owner_role->demand += l->lane[i].limit;
	while (budget > 0)
	{
		q3_role *next = NULL;
		int32_t n;

		for (q3_role *r = s->roles; r != NULL; r = r->next)
			if (r->demand > r->share && (next == NULL || r->turn < next->turn))
				next = r;
		if (next == NULL)
			return;
		n = next->demand - next->share;
		n = n < QUANTUM ? n : QUANTUM;
		n = n < budget ? n : budget;
		next->share += n;
		next->turn += n / next->weight;
		budget -= n;
	}
}

static int32_t
grant(lane *at, int32_t most)
{
	int32_t n = at->limit - at->grant < most ? at->limit - at->grant : most;

	at->grant += n;
	return n;
}

/* Prompts of about one length are served in order of arrival. */
static int
size_class(int32_t tokens)
{
	int n = 0;

	for (; tokens > SHORT; tokens /= 2)
		n++;
	return n;
}

static int
compare_left(const void *a, const void *b)
{
	const lane *x = *(lane *const *) a, *y = *(lane *const *) b;
	int i = size_class(x->left), j = size_class(y->left);

	if (i != j)
		return i < j ? -1 : 1;
	return (x > y) - (x < y); /* the older */
}

/* Shares what the role has got among its prompts. */
static void
share_within_role(lanes *l, const q3_role *r)
{
	lane *mine[Q3_MAX_RUNNING], *oldest;
	int32_t n = 0, budget = r->share;

	for (int32_t i = 0; i < l->n; i++)
		if (l->lane[i].job->owner_role == r)
			mine[n++] = &l->lane[i];
	if (n == 0)
		return;
	oldest = mine[0];
	budget -= grant(oldest, (budget + 1) / 2);
	qsort(mine, (size_t) n, sizeof(mine[0]), compare_left);
	for (int32_t i = 0; i < n && budget > 0; i++)
		if (mine[i] != oldest)
			budget -= grant(mine[i], budget);
	grant(oldest, budget);
}

/* ---------------------------------------------------------------------------------------------
 * The step
 * --------------------------------------------------------------------------------------------- */

static void
add_prompt(q3_scheduler *s, lane *at)
{
	q3_job *job = at->job;
	q3_want want = Q3_WANT_NOTHING;
	const int32_t *tokens;
	q3_part *part;
	bool last;

	/* Only now, for those that nobody is to wait for: copying takes time, too. */
	attach_more(s, job, q3_seq_attach_part);
	at->left = q3_prompt_left(job);
	at->grant = at->grant < at->left ? at->grant : at->left;
	last = at->grant == at->left;
	tokens = job->prompt.ids + atomic_load(&job->prompt_done);
	if (job->kind == Q3_JOB_LOGPROB)
		want = Q3_WANT_ALL;
	else if (last && job->kind == Q3_JOB_GENERATE)
		want = Q3_WANT_LAST;
	else if (job->mean)
		want = Q3_WANT_HIDDEN_SUM;
	else if (last && job->kind == Q3_JOB_EMBED)
		want = Q3_WANT_HIDDEN_LAST;
	part = add_part(s, job, tokens, at->grant, want);
	part->item.hidden = job->hidden;
	if (last && job->kind == Q3_JOB_CLASSIFY)
		want_choices(part, 0);
}

static void
add_prompts(q3_scheduler *s, lanes *l, int32_t budget)
{
	limit_scoring(s, l);
	share_among_roles(s, l, budget);
	for (const q3_role *r = s->roles; r != NULL; r = r->next)
		if (r->share > 0)
			share_within_role(l, r);
	for (int32_t i = 0; i < l->n; i++)
		if (l->lane[i].grant > 0)
			add_prompt(s, &l->lane[i]);
}

static int
compare_parts(const void *a, const void *b)
{
	const q3_part *x = *(q3_part *const *) a, *y = *(q3_part *const *) b;
	int32_t gx = q3_seq_first_block(x->item.seq), gy = q3_seq_first_block(y->item.seq);

	if (x->item.mode != y->item.mode)
		return x->item.mode < y->item.mode ? -1 : 1;
	if (gx != gy)
		return gx < gy ? -1 : 1;
	return (x > y) - (x < y);
}

/*
 * Parts of one mode stand together, so that they are multiplied together; among them those that
 * begin alike, so that they attend together.
 */
static void
put_in_order(q3_scheduler *s)
{
	q3_part *order[Q3_MAX_ITEMS];

	for (int32_t i = 0; i < s->n_items; i++)
		order[i] = &s->parts[i];
	qsort(order, (size_t) s->n_items, sizeof(order[0]), compare_parts);
	for (int32_t i = 0; i < s->n_items; i++)
		s->items[i] = order[i]->item;
}

/* Tokens of answers that are not in the KV cache yet: one of every job, more if there is room. */
static void
add_answers(q3_scheduler *s)
{
	int32_t spare = s->max_batch;

	for (int32_t i = 0; i < s->n_running; i++)
		spare -= decoding(s->running[i]);
	for (int32_t i = 0; i < s->n_running; i++)
	{
		q3_job *job = s->running[i];
		int32_t left = (int32_t) job->pending.n - job->pending_done, n = left;

		if (!decoding(job))
			continue;
		n = n < 1 + spare ? n : 1 + spare;
		spare -= n - 1;
		add_part(s, job, job->pending.ids + job->pending_done, n,
		         n == left ? Q3_WANT_LAST : Q3_WANT_NOTHING);
	}
}

void
q3_schedule_build(q3_scheduler *s)
{
	lanes l;
	int32_t budget, probes;

	s->n_items = s->n_rows = s->n_tokens = 0;
	add_answers(s);
	budget = prefill_budget(s, s->n_tokens);
	collect_lanes(s, &l);
	probes = l.n > 0 ? (budget + 1) / 2 : budget;
	budget -= probes;
	for (int32_t i = 0; i < s->n_running && probes > 0; i++)
		if (probing(s->running[i]))
			probes = add_probes(s, s->running[i], probes);
	add_prompts(s, &l, budget + probes);
	put_in_order(s);
}
