/*
 * request.c: making a request from a frame, and the part of the work that needs only the tokenizer.
 *
 * The request owns its frame, job and results; see request.h for which thread may touch what.
 */
#include "engine/request.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Of an answer that can end early: so many tokens, then the labels are compared. A piece costs
 * about as much as one or two tokens more. With 16 or 32 the model for three jobs, whose thoughts
 * have 66 tokens, ends many before they have come to anything, and is right less often for that.
 */
#define THINK_TOKENS 48

const char *
q3_sqlstate(q3_code code)
{
	switch (code)
	{
		case Q3_OK:
			return "00000";
		case Q3_ERR_IO:
			return "58030";
		case Q3_ERR_UNSUPPORTED:
			return "0A000";
		case Q3_ERR_INVALID:
			return "22023";
		case Q3_ERR_TOO_LONG:
			return "54000";
		case Q3_ERR_MEMORY:
			return "53200";
		case Q3_ERR_CANCELLED:
			return "57014";
		case Q3_ERR_LIMIT:
			return "53400";
		case Q3_ERR_FORMAT:
		case Q3_ERR_INTERNAL:
			break;
	}
	return "XX000";
}

void
q3_request_begin_job(q3_request *r)
{
	q3_job_init(&r->job);
	r->job.owner = r;
	r->job.role = r->client.role;
	r->job.weight = r->msg.priority > 0 ? (int32_t) r->msg.priority : Q3P_DEFAULT_PRIORITY;
	if (!r->is_shadow)
		return;
	/* Beside all clients: what it takes and what it leaves in the cache is none of theirs. */
	r->job.role = Q3_SHADOW_ROLE;
	r->job.weight = 1;
	r->job.yields = true;
}

q3_request *
q3_request_create(uint64_t id, char *frame, const char *payload, size_t length,
                  const q3p_hello *client)
{
	q3_request *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	if (!q3p_request_decode(payload, length, &r->msg))
	{
		free(r);
		return NULL;
	}
	r->id = id;
	r->frame = frame;
	r->frame_bytes = length;
	r->client = *client;
	r->arrived_ns = q3_now_ns();
	/* A SECURITY DEFINER function asks for its owner, over the connection of its caller. */
	if (r->msg.role != 0)
		r->client.role = r->msg.role;
	q3_request_begin(r);
	q3_request_begin_job(r);
	r->mode = r->msg.mode == Q3P_EFFICIENT ? Q3_EFFICIENT : Q3_PRECISE;
	r->reason = r->msg.mode == Q3P_AUTO ? "auto: no measured evidence for a cheaper mode"
	                                    : "mode given by the call";
	return r;
}

void
q3_request_free(q3_request *r)
{
	if (r == NULL)
		return;
	q3_job_free(&r->job);
	q3_request_end(r);
	q3_tokens_free(&r->tokens);
	q3_buffer_free(&r->unsent);
	q3_buffer_free(&r->text);
	free(r->value);
	free(r->frame);
	free(r);
}

static q3_str
bytes(q3p_bytes b)
{
	return (q3_str){.data = b.data, .len = b.len};
}

/* The prompt; an absent one is empty. */
static q3_str
prompt_of(const q3p_request *msg)
{
	return msg->prompt.data != NULL ? bytes(msg->prompt) : (q3_str){.data = "", .len = 0};
}

/* A packed list of n strings as an array (malloc'ed, or NULL with *ok for none). */
static q3_str *
unpack(q3p_bytes list, uint32_t n, bool *ok)
{
	q3p_bytes item;
	q3_str *strings;

	*ok = true;
	if (n == 0)
		return NULL;
	strings = calloc(n, sizeof(*strings));
	*ok = strings != NULL;
	for (uint32_t i = 0; *ok && i < n; i++)
	{
		*ok = q3p_next_bytes(&list, &item);
		if (*ok)
			strings[i] = bytes(item);
	}
	return strings;
}

static q3_code
prepare_generate(q3_request *r, const q3_preparer *p)
{
	const q3p_request *msg = &r->msg;
	bool ok, turns_ok;
	q3_str *stops = unpack(msg->stops, msg->n_stops, &ok);
	q3_str *turns = unpack(msg->turns, msg->n_turns, &turns_ok);
	q3_job_options options = {.mode = r->mode,
	                          .thinking = msg->thinking,
	                          .stream = msg->kind == Q3P_STREAM,
	                          .has_temperature = msg->has_temperature,
	                          .has_top_p = msg->has_top_p,
	                          .has_top_k = msg->has_top_k,
	                          .temperature = msg->temperature,
	                          .top_p = msg->top_p,
	                          .top_k = msg->top_k,
	                          .seed = msg->seed,
	                          .max_tokens = msg->max_tokens,
	                          .thinking_budget = msg->thinking_budget,
	                          .prompt = prompt_of(msg),
	                          .system = bytes(msg->system),
	                          .schema = bytes(msg->schema),
	                          .turns = turns,
	                          .n_turns = msg->n_turns,
	                          .stops = stops,
	                          .n_stops = msg->n_stops,
	                          .share = true};
	q3_code code;

	if (ok && turns_ok)
		code = q3_job_generate(&r->job, p, &options, &r->error);
	else
		code = q3_fail(&r->error, Q3_ERR_MEMORY, "out of memory");
	free(stops);
	free(turns);
	return code;
}

/* Whether the model has to think before the labels are compared. */
static bool
is_to_think(const q3_request *r)
{
	bool wanted = r->ended.escalated ? r->msg.escalate_thinking : r->msg.thinking;

	return wanted && (r->thought.n == 0 || r->job.resumed > 0);
}

/* *compute: there is something to compute, and not only one label. */
static q3_code
make_classify_job(q3_request *r, const q3_preparer *p, q3_job_options *options, bool *compute)
{
	q3_code code;

	*compute = false;
	if (r->thought.n > 0)
		options->thought = &r->thought;
	if (is_to_think(r))
	{
		options->pause_after = r->msg.exit_margin > 0 ? THINK_TOKENS : 0;
		code = q3_job_think(&r->job, p, options, compute, &r->error);
		if (code != Q3_OK || *compute)
			return code;
		/* It cannot, or there is nothing to think about. */
		q3_job_free(&r->job);
		q3_request_begin_job(r);
	}
	options->thinking = false;
	options->off_label = !r->ended.escalated && (r->msg.off_label_limit > 0 || r->msg.shadow);
	return q3_job_classify(&r->job, p, options, compute, &r->error);
}

static q3_code
prepare_classify(q3_request *r, const q3_preparer *p, bool *compute)
{
	const q3p_request *msg = &r->msg;
	bool ok, turns_ok;
	q3_str *labels, *turns;
	q3_job_options options = {.mode = r->mode,
	                          .thinking = true,
	                          .has_temperature = msg->has_temperature,
	                          .has_top_p = msg->has_top_p,
	                          .has_top_k = msg->has_top_k,
	                          .temperature = msg->temperature,
	                          .top_p = msg->top_p,
	                          .top_k = msg->top_k,
	                          .seed = msg->seed,
	                          .thinking_budget = msg->thinking_budget,
	                          .prompt = prompt_of(msg),
	                          .system = bytes(msg->system),
	                          .n_turns = msg->n_turns,
	                          .n_labels = msg->n_labels,
	                          .share = true};
	q3_code code;

	if (msg->n_labels > Q3P_MAX_LABELS)
		return q3_fail(&r->error, Q3_ERR_INVALID,
		               "%" PRIu32 " labels are more than the %d that are allowed", msg->n_labels,
		               Q3P_MAX_LABELS);
	labels = unpack(msg->labels, msg->n_labels, &ok);
	turns = unpack(msg->turns, msg->n_turns, &turns_ok);
	options.labels = labels;
	options.turns = turns;
	if (ok && turns_ok)
		code = make_classify_job(r, p, &options, compute);
	else
		code = q3_fail(&r->error, Q3_ERR_MEMORY, "out of memory");
	free(labels);
	free(turns);
	return code;
}

/* The texts of all tokens, one behind the other. */
static q3_code
join_pieces(const q3p_request *msg, const q3_tokenizer *tok, q3_buffer *out, q3_error *err)
{
	for (uint32_t i = 0; i < msg->n_tokens; i++)
	{
		int32_t id;
		size_t len;
		const char *piece;

		memcpy(&id, msg->tokens + (size_t) i * sizeof(id), sizeof(id));
		piece = q3_tokenizer_piece(tok, id, &len);
		if (piece == NULL)
		{
			q3_fail(err, Q3_ERR_INVALID, "token %" PRId32 " is not in the vocabulary", id);
			q3_error_detail(err, "The model's tokens are numbered from 0 to %" PRId32 ".",
			                q3_tokenizer_n_vocab(tok) - 1);
			return Q3_ERR_INVALID;
		}
		if (q3_buffer_len(out) + len > Q3P_MAX_FRAME / 2)
			return q3_fail(err, Q3_ERR_TOO_LONG, "text of the tokens is too long");
		if (!q3_buffer_append(out, piece, len))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	}
	return Q3_OK;
}

static q3_code
detokenize(q3_request *r, const q3_preparer *p)
{
	q3_buffer text = {0};
	q3_code code = join_pieces(&r->msg, p->tok, &text, &r->error);

	if (code == Q3_OK)
	{
		r->value = q3_utf8_repair(q3_buffer_len(&text) > 0 ? q3_buffer_bytes(&text) : "",
		                          q3_buffer_len(&text), &r->value_len);
		if (r->value == NULL)
			code = q3_fail(&r->error, Q3_ERR_MEMORY, "out of memory");
	}
	q3_buffer_free(&text);
	return code;
}

bool
q3_request_prepare(q3_request *r, const q3_preparer *p)
{
	const q3p_request *msg = &r->msg;
	bool compute = false;

	if (atomic_load(&r->job.cancelled))
	{
		q3_fail(&r->error, Q3_ERR_CANCELLED, "request was cancelled");
		return false;
	}
	switch (msg->kind)
	{
		case Q3P_GENERATE:
		case Q3P_STREAM:
			compute = prepare_generate(r, p) == Q3_OK;
			break;
		case Q3P_LOGPROB:
			if (q3_job_logprob(&r->job, p, prompt_of(msg), r->mode, &compute, &r->error) != Q3_OK)
				compute = false;
			break;
		case Q3P_COUNT_TOKENS:
		case Q3P_TOKENIZE:
			if (q3_tokenizer_encode(p->tok, prompt_of(msg).data, msg->prompt.len, false, &r->tokens,
			                        &r->error) == Q3_OK)
				atomic_store(&r->job.prompt_tokens, (int) r->tokens.n);
			break;
		case Q3P_DETOKENIZE:
			detokenize(r, p);
			break;
		case Q3P_CLASSIFY:
			if (prepare_classify(r, p, &compute) != Q3_OK)
				compute = false;
			break;
		case Q3P_EMBED:
			compute =
			    q3_job_embed(&r->job, p, prompt_of(msg), r->mode, msg->mean, &r->error) == Q3_OK;
			break;
		case Q3P_PIN:
			compute = q3_job_pin(&r->job, p, bytes(msg->system), r->mode, &r->error) == Q3_OK;
			break;
		case Q3P_UNPIN:
			q3_job_unpin(&r->job);
			compute = true;
			break;
		default:
			q3_fail(&r->error, Q3_ERR_INVALID, "unrecognized kind of request %" PRIu32, msg->kind);
	}
	return compute;
}
