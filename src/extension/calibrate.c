/*
 * calibrate.c: what the model answers about nothing, for each question of this backend. See
 * calibrate.h.
 *
 * The question about nothing is kept as the frame that asks it, which is also what it is found by.
 * Answers live in the backend, the latest used first, as many as there is room for; a row carries
 * its own copy of the frame, so that it can ask again when the answer is gone meanwhile (the
 * transaction that asked was aborted, the engine or the model changed, others took the room).
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/ilist.h"
#include "utils/memutils.h"

#include "extension/calibrate.h"
#include "extension/call.h"

/* Of all that is kept. */
#define MAX_PRIORS 64
#define MAX_PRIOR_BYTES (1024 * 1024)

/* No label is made more than so many times more probable: nothing is divided by zero. */
#define LEAST_PRIOR 1e-9

typedef struct Prior
{
	dlist_node node;
	uint64 hash; /* of the frame */
	char *frame;
	Size len;
	uint64 request; /* id of the question, when it was asked last; 0: never */
	double *probs;  /* NULL: not known */
	uint32 n;
	char *digest; /* of the model that answered */
	Size digest_len;
	MemoryContext context; /* everything here */
} Prior;

static dlist_head priors = DLIST_STATIC_INIT(priors);
static int n_priors = 0;
static Size prior_bytes = 0;

/* ---------------------------------------------------------------------------------------------
 * What is kept
 * --------------------------------------------------------------------------------------------- */

static void
forget_oldest(void)
{
	Prior *p = dlist_tail_element(Prior, node, &priors);

	dlist_delete(&p->node);
	n_priors--;
	prior_bytes -= p->len;
	MemoryContextDelete(p->context);
}

static Prior *
add_prior(uint64 hash, const char *frame, Size len)
{
	MemoryContext context =
	    AllocSetContextCreate(TopMemoryContext, "qwen3dm prior", ALLOCSET_SMALL_SIZES);
	Prior *p = MemoryContextAllocZero(context, sizeof(Prior));

	p->context = context;
	p->hash = hash;
	p->len = len;
	p->frame = memcpy(MemoryContextAlloc(context, len), frame, len);
	dlist_push_head(&priors, &p->node);
	n_priors++;
	prior_bytes += len;
	while (n_priors > 1 && (n_priors > MAX_PRIORS || prior_bytes > MAX_PRIOR_BYTES))
		forget_oldest();
	return p;
}

/* The entry for this frame, which is made if need be. */
static Prior *
find_prior(const char *frame, Size len)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) frame, (int) len, 0);
	dlist_iter i;

	dlist_foreach(i, &priors)
	{
		Prior *p = dlist_container(Prior, node, i.cur);

		if (p->hash == hash && p->len == len && memcmp(p->frame, frame, len) == 0)
		{
			dlist_move_head(&priors, &p->node);
			return p;
		}
	}
	return add_prior(hash, frame, len);
}

/* ---------------------------------------------------------------------------------------------
 * Asking
 * --------------------------------------------------------------------------------------------- */

static q3p_bytes *
unpack(q3p_bytes packed, uint32 n)
{
	q3p_bytes *items = palloc(sizeof(q3p_bytes) * Max(n, 1));

	for (uint32 i = 0; i < n; i++)
	{
		if (!q3p_next_bytes(&packed, &items[i]))
			elog(ERROR, "question to calibrate cannot be read");
	}
	return items;
}

static q3p_request
decode(const char *frame, Size len)
{
	q3p_request message;

	if (!q3p_request_decode(frame + sizeof(q3p_header), len - sizeof(q3p_header), &message))
		elog(ERROR, "question to calibrate cannot be read");
	return message;
}

/* Sends the question, unless it is under way; no abort of a subtransaction takes it away. */
static void
ask(Prior *p, const Qwen3dmOptions *options)
{
	q3p_request message;
	q3p_lists lists = {0};
	Qwen3dmRequest *r = p->request != 0 ? qwen3dm_reattach(p->request) : NULL;

	if (r == NULL)
	{
		message = decode(p->frame, p->len);
		lists.labels = unpack(message.labels, message.n_labels);
		lists.turns = unpack(message.turns, message.n_turns);
		message.priority = options->request.priority;
		message.query_id = options->request.query_id;
		message.token_quota = options->request.token_quota;
		r = qwen3dm_submit(&message, &lists);
		p->request = r->id;
	}
	qwen3dm_detach(r);
}

/* Takes what is kept of an answer out of it; false: *failure. */
static bool
take_answer(Prior *p, const Qwen3dmRequest *r, Qwen3dmFailure *failure)
{
	const q3p_result *result = &r->result;
	double *probs;

	if (r->failure.sqlstate != 0)
	{
		qwen3dm_copy_failure(failure, &r->failure);
		return false;
	}
	probs = MemoryContextAlloc(p->context, sizeof(double) * Max(result->n_probs, 1));
	if (result->n_probs > 0)
		memcpy(probs, result->probs, sizeof(double) * result->n_probs);
	p->digest = MemoryContextAlloc(p->context, Max(result->digest.len, 1));
	if (result->digest.len > 0)
		memcpy(p->digest, result->digest.data, result->digest.len);
	p->digest_len = result->digest.len;
	p->n = result->n_probs;
	p->probs = probs;
	return true;
}

/* Waits for the answer; false: *failure. */
static bool
await(Prior *p, const Qwen3dmOptions *options, Qwen3dmFailure *failure)
{
	Qwen3dmRequest *r;
	bool good;

	ask(p, options);
	r = qwen3dm_reattach(p->request);
	qwen3dm_wait(r);
	good = take_answer(p, r, failure);
	qwen3dm_release(r);
	p->request = 0;
	return good;
}

static void
forget_answer(Prior *p)
{
	pfree(p->probs);
	pfree(p->digest);
	p->probs = NULL;
}

/* ---------------------------------------------------------------------------------------------
 * Rows
 * --------------------------------------------------------------------------------------------- */

void
qwen3dm_calibration_start(Qwen3dmOptions *options)
{
	q3p_request message = options->request;
	char *frame;
	Prior *p;

	message.prompt = (q3p_bytes){"N/A", 3};
	/* Which row, and whose turn, is no part of the question. */
	message.seed = 0;
	message.priority = 0;
	message.query_id = 0;
	message.token_quota = 0;
	options->neutral_len = q3p_request_encode(1, &message, &options->lists, NULL, 0);
	if (options->neutral_len == 0)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("the arguments are larger than %u MB together",
		                       Q3P_MAX_FRAME / (1024 * 1024))));
	options->neutral = frame = palloc0(options->neutral_len);
	q3p_request_encode(1, &message, &options->lists, frame, options->neutral_len);
	p = find_prior(frame, options->neutral_len);
	if (p->probs == NULL)
		ask(p, options);
}

void
qwen3dm_calibration_keep(Qwen3dmOptions *options, const Qwen3dmRequest *request)
{
	options->neutral = memcpy(MemoryContextAlloc(request->context, options->neutral_len),
	                          options->neutral, options->neutral_len);
}

static bool
same_model(const Prior *p, const q3p_result *result)
{
	return p->digest_len == result->digest.len &&
	       (p->digest_len == 0 || memcmp(p->digest, result->digest.data, p->digest_len) == 0);
}

static void
divide(double *probs, const double *prior, uint32 n)
{
	double sum = 0;

	for (uint32 i = 0; i < n; i++)
	{
		probs[i] /= Max(prior[i], LEAST_PRIOR);
		sum += probs[i];
	}
	for (uint32 i = 0; i < n && sum > 0; i++)
		probs[i] /= sum;
}

bool
qwen3dm_calibrate(const Qwen3dmOptions *options, const q3p_result *result, double *probs, uint32 n,
                  Qwen3dmFailure *failure)
{
	Prior *p = find_prior(options->neutral, options->neutral_len);

	if (p->probs != NULL && !same_model(p, result))
		forget_answer(p);
	if (p->probs == NULL && !await(p, options, failure))
		return false;
	if (p->n != n)
	{
		memset(failure, 0, sizeof(*failure));
		failure->sqlstate = ERRCODE_PROTOCOL_VIOLATION;
		failure->message = "the qwen3dm engine answered without a probability for each label";
		return false;
	}
	divide(probs, p->probs, n);
	return true;
}

q3p_bytes
qwen3dm_calibration_label(const Qwen3dmOptions *options, uint32 i)
{
	q3p_bytes labels = decode(options->neutral, options->neutral_len).labels;
	q3p_bytes label = {NULL, 0};

	for (uint32 k = 0; k <= i; k++)
	{
		if (!q3p_next_bytes(&labels, &label))
			elog(ERROR, "question to calibrate has no label %u", i);
	}
	return label;
}
