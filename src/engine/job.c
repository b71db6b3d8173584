/*
 * job.c: from a caller's options to a job that the scheduler can run.
 *
 * Everything a request can get wrong is found here, on the caller's thread, before it takes any
 * room. The job owns its tokens, sampler and output; q3_job_free() releases them.
 */
#include "engine/job.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "model/chat.h"

/* Normalisation to NFC makes text at most this many times shorter (three jamo, one syllable). */
#define NFC_SHRINK 3

/* Qwen's advice for sampling while thinking; greedy decoding makes a thinking model repeat itself.
 */
#define THINKING_TEMPERATURE 0.6
#define THINKING_TOP_P 0.95
#define THINKING_TOP_K 20

uint64_t
q3_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

void
q3_preparer_init(q3_preparer *p, const q3_model *m, int32_t context_length)
{
	p->tok = q3_model_tokenizer(m);
	p->context_length = context_length;
	p->n_vocab = q3_model_get_info(m)->n_vocab;
	p->max_bytes_a_token = 1;
	for (int32_t id = 0; id < q3_tokenizer_n_vocab(p->tok); id++)
	{
		size_t len = 0;

		if (q3_tokenizer_piece(p->tok, id, &len) != NULL && len > p->max_bytes_a_token)
			p->max_bytes_a_token = len;
	}
	p->max_bytes_a_token *= NFC_SHRINK;
}

void
q3_job_init(q3_job *job)
{
	memset(job, 0, sizeof(*job));
	atomic_init(&job->cancelled, false);
	atomic_init(&job->phase, Q3_PHASE_QUEUED);
	atomic_init(&job->prompt_tokens, 0);
	atomic_init(&job->prompt_done, 0);
	atomic_init(&job->output_tokens, 0);
	atomic_init(&job->kv_tokens, 0);
}

void
q3_job_free(q3_job *job)
{
	q3_tokens_free(&job->prompt);
	q3_sampler_free(job->sampler);
	q3_output_free(job->output);
	job->sampler = NULL;
	job->output = NULL;
}

static q3_code
too_long(q3_error *err, const char *what, const char *bound, size_t n, int32_t context_length)
{
	q3_fail(err, Q3_ERR_TOO_LONG, "%s has %s%zu tokens, but the context length is %" PRId32, what,
	        bound, n, context_length);
	q3_error_hint(err,
	              "Shorten the input, or increase qwen3dm.context_length if the model allows.");
	return Q3_ERR_TOO_LONG;
}

/*
 * Refuses a text that cannot fit whatever its tokens are, before the time to tokenize it is spent.
 */
static q3_code
check_bytes(const q3_preparer *p, const char *what, size_t len, q3_error *err)
{
	size_t at_least = len / p->max_bytes_a_token;

	if (at_least > (size_t) p->context_length)
		return too_long(err, what, "at least ", at_least, p->context_length);
	return Q3_OK;
}

static q3_code
encode_plain(const q3_preparer *p, q3_str text, bool parse_special, q3_tokens *out, q3_error *err)
{
	const q3_special *special = q3_tokenizer_special(p->tok);

	if (special->add_bos && special->bos >= 0 && !q3_tokens_push(out, special->bos))
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	return q3_tokenizer_encode(p->tok, text.data, text.len, parse_special, out, err);
}

static q3_code
encode_prompt(q3_job *job, const q3_preparer *p, const q3_job_options *o, q3_error *err)
{
	q3_chat chat = {.system = o->system.data,
	                .system_len = o->system.len,
	                .user = o->prompt.data,
	                .user_len = o->prompt.len,
	                .thinking = o->thinking};
	size_t len = o->prompt.len + (o->plain || o->system.data == NULL ? 0 : o->system.len);
	q3_code code = check_bytes(p, "prompt", len, err);

	if (code != Q3_OK)
		return code;
	if (o->plain)
		code = encode_plain(p, o->prompt, o->parse_special, &job->prompt, err);
	else
		code = q3_chat_encode(p->tok, &chat, &job->prompt, err);
	if (code != Q3_OK)
		return code;
	if (job->prompt.n == 0)
		return q3_fail(err, Q3_ERR_INVALID, "prompt has no tokens");
	if (job->prompt.n >= (size_t) p->context_length)
		return too_long(err, "prompt", "", job->prompt.n, p->context_length);
	return Q3_OK;
}

static q3_code
make_sampler(q3_job *job, const q3_preparer *p, const q3_job_options *o, bool thinking,
             q3_error *err)
{
	q3_sampling sampling = {.temperature = thinking ? (float) THINKING_TEMPERATURE : 0.0f,
	                        .top_p = thinking ? (float) THINKING_TOP_P : 1.0f,
	                        .top_k = thinking ? THINKING_TOP_K : 0,
	                        .seed = o->seed};

	if (o->has_temperature)
		sampling.temperature = (float) o->temperature;
	if (o->has_top_p)
		sampling.top_p = (float) o->top_p;
	if (o->has_top_k)
		sampling.top_k = o->top_k;
	job->sampler = q3_sampler_create(&sampling, p->n_vocab, err);
	return job->sampler != NULL ? Q3_OK : err->code;
}

q3_code
q3_job_generate(q3_job *job, const q3_preparer *p, const q3_job_options *o, q3_error *err)
{
	bool thinking = o->thinking && !o->plain && q3_chat_can_think(p->tok);
	int32_t room;
	q3_code code;

	if (o->mode == Q3_EFFICIENT && o->thinking)
	{
		q3_fail(err, Q3_ERR_INVALID, "mode \"efficient\" cannot be combined with thinking");
		q3_error_hint(err, "Use mode \"precise\" or \"auto\", or turn thinking off.");
		return Q3_ERR_INVALID;
	}
	if (o->max_tokens < 1)
		return q3_fail(err, Q3_ERR_INVALID, "max_tokens must be at least 1");
	code = make_sampler(job, p, o, thinking, err);
	if (code == Q3_OK)
		code = encode_prompt(job, p, o, err);
	if (code != Q3_OK)
		return code;
	room = p->context_length - (int32_t) job->prompt.n;
	job->max_tokens = o->max_tokens < room ? o->max_tokens : room;
	job->output = q3_output_create(p->tok, o->stops, o->n_stops, thinking, job->max_tokens, err);
	if (job->output == NULL)
		return err->code;
	job->mode = o->mode;
	job->stream = o->stream;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	return Q3_OK;
}

q3_code
q3_job_logprob(q3_job *job, const q3_preparer *p, q3_str text, q3_mode mode, bool *defined,
               q3_error *err)
{
	q3_code code = check_bytes(p, "input", text.len, err);

	*defined = false;
	if (code == Q3_OK)
		code = encode_plain(p, text, false, &job->prompt, err);
	if (code != Q3_OK)
		return code;
	if (job->prompt.n > (size_t) p->context_length)
		return too_long(err, "input", "", job->prompt.n, p->context_length);
	*defined = job->prompt.n >= 2;
	job->mode = mode;
	job->logprob = true;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	return Q3_OK;
}

double
q3_job_confidence(const q3_job *job)
{
	return job->logprob || job->n_logprobs == 0 ? NAN : exp(job->logprob_sum / job->n_logprobs);
}

double
q3_job_score(const q3_job *job)
{
	return !job->logprob || job->n_logprobs == 0 ? NAN : job->logprob_sum / job->n_logprobs;
}
