/*
 * job.c: from a caller's options to a job that the scheduler can run.
 *
 * Everything a request can get wrong is found here, on the caller's thread, before it takes any
 * room. The job owns its tokens, sampler and output; q3_job_free() releases them.
 */
#include "engine/job.h"

#include <inttypes.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
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

/* Tokens at most that stand around thinking: <think>, and from a newline to the answer. */
#define THINKING_FRAME 8

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
	p->n_embd = q3_model_get_info(m)->n_embd;
	p->max_bytes_a_token = 1;
	for (int32_t id = 0; id < q3_tokenizer_n_vocab(p->tok); id++)
	{
		size_t len = 0;

		if (q3_tokenizer_piece(p->tok, id, &len) != NULL && len > p->max_bytes_a_token)
			p->max_bytes_a_token = len;
	}
	p->max_bytes_a_token *= NFC_SHRINK;
	p->schemas = q3_schema_cache_create(p->tok);
}

void
q3_preparer_free(q3_preparer *p)
{
	q3_schema_cache_free(p->schemas);
	p->schemas = NULL;
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
	atomic_init(&job->cached_tokens, 0);
	atomic_init(&job->kv_tokens, 0);
	job->weight = 1;
	job->last_follower = &job->followers;
}

void
q3_job_free(q3_job *job)
{
	q3_tokens_free(&job->prompt);
	q3_sampler_free(job->sampler);
	q3_output_free(job->output);
	q3_labels_free(job->labels);
	q3_tokens_free(&job->generated);
	q3_tokens_free(&job->pending);
	q3_constraint_free(job->constraint);
	q3_schema_cache_put(job->schema);
	free(job->hidden);
	free(job->vector);
	job->hidden = NULL;
	job->vector = NULL;
	job->sampler = NULL;
	job->output = NULL;
	job->labels = NULL;
	job->constraint = NULL;
	job->schema = NULL;
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
	                .turns = o->turns,
	                .n_turns = o->n_turns,
	                .user = o->prompt.data,
	                .user_len = o->prompt.len,
	                .thinking = o->thinking};
	size_t len = o->prompt.len + (o->plain || o->system.data == NULL ? 0 : o->system.len);
	q3_code code;

	for (size_t i = 0; i < o->n_turns && !o->plain; i++)
		len += o->turns[i].len;
	code = check_bytes(p, "prompt", len, err);
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

static q3_sampling
sampling_of(const q3_job_options *o, bool thinking)
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
	return sampling;
}

/* The answer is the same every time. */
static bool
is_greedy(const q3_sampling *sampling)
{
	return sampling->temperature == 0 || sampling->top_k == 1;
}

/* *greedy: see above. */
static q3_code
make_sampler(q3_job *job, const q3_preparer *p, const q3_job_options *o, bool thinking,
             bool *greedy, q3_error *err)
{
	q3_sampling sampling = sampling_of(o, thinking);

	*greedy = is_greedy(&sampling);
	job->sampler = q3_sampler_create(&sampling, p->n_vocab, err);
	return job->sampler != NULL ? Q3_OK : err->code;
}

/* Things that a key is made of, one after the other. */
static void
hash(EVP_MD_CTX *md, const void *data, size_t n)
{
	if (n > 0)
		EVP_DigestUpdate(md, data, n);
}

static void
hash_strings(EVP_MD_CTX *md, const q3_str *strings, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		uint64_t len = strings[i].len;

		hash(md, &len, sizeof(len));
		hash(md, strings[i].data, strings[i].len);
	}
}

/* The key under which equal jobs find each other; without one the job is computed for itself. */
static void
set_key(q3_job *job, const q3_job_options *o, bool thinking)
{
	uint64_t numbers[13] = {job->kind,
	                        job->role,
	                        job->mode,
	                        (uint64_t) job->max_tokens,
	                        job->prompt.n,
	                        o->n_stops,
	                        o->n_labels,
	                        thinking,
	                        job->mean,
	                        job->only_thinks,
	                        job->off_label,
	                        (uint64_t) job->think_left,
	                        (uint64_t) job->pause_at};
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (md == NULL || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
	{
		EVP_MD_CTX_free(md);
		return;
	}
	hash(md, numbers, sizeof(numbers));
	hash(md, job->prompt.ids, job->prompt.n * sizeof(job->prompt.ids[0]));
	hash_strings(md, o->stops, o->n_stops);
	hash_strings(md, o->labels, o->n_labels);
	hash_strings(md, &o->schema, 1);
	job->shareable = EVP_DigestFinal_ex(md, job->key, NULL) == 1;
	EVP_MD_CTX_free(md);
}

/* Tokens that the answer begins with are read with the prompt. */
static q3_code
begin_answer(q3_job *job, const q3_tokens *start, q3_error *err)
{
	for (size_t i = 0; i < start->n; i++)
		if (!q3_tokens_push(&job->prompt, start->ids[i]) ||
		    !q3_output_push(job->output, start->ids[i], &job->finish))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	atomic_store(&job->output_tokens, q3_output_n_tokens(job->output));
	return Q3_OK;
}

/* A model that is to think begins with it. */
static q3_code
begin_thinking(q3_job *job, const q3_preparer *p, q3_error *err)
{
	int32_t token = q3_tokenizer_special(p->tok)->think_start;

	return begin_answer(job, &(q3_tokens){.ids = &token, .n = 1}, err);
}

/*
 * Tokens that the answer has to begin with, as far as that leaves something to choose: a thinking
 * model must not begin with the value, which would then be free.
 */
static q3_code
find_start(q3_job *job, const q3_preparer *p, bool thinking, q3_tokens *start, q3_error *err)
{
	job->in_value = !thinking;
	job->constraint = q3_cached_constraint(job->schema, err);
	if (job->constraint == NULL)
		return err->code;
	if (thinking)
	{
		if (job->max_tokens > 1 &&
		    !q3_tokens_push(start, q3_tokenizer_special(p->tok)->think_start))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
		return Q3_OK;
	}
	if (!q3_constraint_forced(job->constraint, p->tok, start))
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (start->n < (size_t) job->max_tokens && !q3_constraint_closed(job->constraint))
		return Q3_OK;
	start->n = 0;
	q3_constraint_free(job->constraint);
	job->constraint = q3_cached_constraint(job->schema, err);
	return job->constraint != NULL ? Q3_OK : err->code;
}

static q3_code
add_schema(q3_job *job, const q3_preparer *p, const q3_job_options *o, bool thinking, q3_error *err)
{
	q3_tokens start = {0};
	q3_code code = Q3_OK;

	if (o->n_stops > 0)
		return q3_fail(err, Q3_ERR_INVALID, "stop strings cannot be combined with a JSON schema");
	if (p->schemas == NULL)
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	job->schema = q3_schema_cache_get(p->schemas, o->schema, err);
	if (job->schema == NULL)
		return err->code;
	code = find_start(job, p, thinking, &start, err);
	if (code == Q3_OK)
		code = begin_answer(job, &start, err);
	q3_tokens_free(&start);
	return code;
}

static q3_code
refuse_thinking(q3_error *err)
{
	q3_fail(err, Q3_ERR_INVALID, "mode \"efficient\" cannot be combined with thinking");
	q3_error_hint(err, "Use mode \"precise\" or \"auto\", or turn thinking off.");
	return Q3_ERR_INVALID;
}

q3_code
q3_job_generate(q3_job *job, const q3_preparer *p, const q3_job_options *o, q3_error *err)
{
	bool thinking = o->thinking && !o->plain && q3_chat_can_think(p->tok);
	bool greedy;
	int32_t room;
	q3_code code;

	if (o->mode == Q3_EFFICIENT && o->thinking)
		return refuse_thinking(err);
	if (o->max_tokens < 1)
		return q3_fail(err, Q3_ERR_INVALID, "max_tokens must be at least 1");
	code = make_sampler(job, p, o, thinking, &greedy, err);
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
	job->think_left = thinking ? o->thinking_budget : 0;
	if (o->schema.data != NULL)
		code = add_schema(job, p, o, thinking, err);
	else if (job->think_left > 0 && job->max_tokens > 1)
		code = begin_thinking(job, p, err);
	if (code == Q3_OK && o->share && greedy && !o->stream)
		set_key(job, o, thinking);
	return code;
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
	job->kind = Q3_JOB_LOGPROB;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	set_key(job, &(q3_job_options){0}, false);
	return Q3_OK;
}

/*
 * What all labels begin with is decided: it is read with the prompt. *compute: labels differ.
 */
static q3_code
add_first_tokens(q3_job *job, const q3_preparer *p, bool *compute, q3_error *err)
{
	const q3_labels *l = job->labels;
	size_t longest;

	*compute = l->n_branches > 0;
	if (!*compute)
		return Q3_OK;
	longest = job->prompt.n + (size_t) q3_labels_depth(l);
	if (longest > (size_t) p->context_length)
		return too_long(err, "prompt with labels", "", longest, p->context_length);
	for (int32_t i = 0; i < l->branches[0].depth; i++)
		if (!q3_tokens_push(&job->prompt, l->tokens[l->branches[0].label].ids[i]))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	return Q3_OK;
}

static q3_labels *
make_labels(const q3_preparer *p, const q3_job_options *o, q3_error *err)
{
	for (size_t i = 0; i < o->n_labels; i++)
		if (check_bytes(p, "label", o->labels[i].len, err) != Q3_OK)
			return NULL;
	return q3_labels_create(p->tok, q3_tokenizer_special(p->tok)->im_end, o->labels, o->n_labels,
	                        err);
}

static q3_code
copy_tokens(const q3_tokens *from, q3_tokens *to, q3_error *err)
{
	for (size_t i = 0; i < from->n; i++)
		if (!q3_tokens_push(to, from->ids[i]))
			return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	return Q3_OK;
}

/* The prompt goes on behind what was thought. */
static q3_code
follow_thought(q3_job *job, const q3_preparer *p, const q3_tokens *thought, q3_error *err)
{
	q3_code code = copy_tokens(thought, &job->prompt, err);

	/* A model that has ended its turn while it thought has ended its thinking. */
	while (job->prompt.n > 0 && q3_tokenizer_is_end(p->tok, job->prompt.ids[job->prompt.n - 1]))
		job->prompt.n--;
	return code == Q3_OK ? q3_chat_end_thinking(p->tok, &job->prompt, err) : code;
}

q3_code
q3_job_classify(q3_job *job, const q3_preparer *p, const q3_job_options *o, bool *compute,
                q3_error *err)
{
	q3_code code = Q3_OK;

	*compute = false;
	job->kind = Q3_JOB_CLASSIFY;
	job->mode = o->mode;
	job->off_label = o->off_label;
	if (o->thought != NULL)
		code = follow_thought(job, p, o->thought, err);
	else
		code = encode_prompt(job, p, o, err);
	if (code != Q3_OK)
		return code;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	job->labels = make_labels(p, o, err);
	if (job->labels == NULL)
		return err->code;
	code = add_first_tokens(job, p, compute, err);
	if (code == Q3_OK && !*compute)
		q3_labels_finish(job->labels);
	if (code == Q3_OK && *compute && o->share)
		set_key(job, o, false);
	return code;
}

/* Tokens of thinking that the context has room for, before its end and the labels. */
static int32_t
room_to_think(const q3_job *job, const q3_preparer *p, const q3_labels *l)
{
	int64_t room = (int64_t) p->context_length - (int64_t) job->prompt.n - THINKING_FRAME;

	room -= q3_labels_depth(l);
	return room > 0 ? (int32_t) room : 0;
}

/* The tokens of its output after which the job pauses. */
static void
set_pause(q3_job *job, const q3_job_options *o)
{
	if (o->pause_after > 0)
		job->pause_at = q3_output_n_tokens(job->output) + o->pause_after;
}

void
q3_job_resume(q3_job *job, q3_pause *from)
{
	job->output = from->output;
	job->sampler = from->sampler;
	job->max_tokens = from->max_tokens;
	job->resumed = q3_output_n_tokens(job->output);
	atomic_store(&job->output_tokens, job->resumed);
	*from = (q3_pause){0};
}

/* The same tokens once more, which are in the prefix cache as a rule, and more behind them. */
static q3_code
think_on(q3_job *job, const q3_job_options *o, bool *compute, q3_error *err)
{
	q3_sampling sampling = sampling_of(o, false);

	job->mode = o->mode;
	job->only_thinks = true;
	if (copy_tokens(o->thought, &job->prompt, err) != Q3_OK)
		return err->code;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	set_pause(job, o);
	if (o->share && is_greedy(&sampling))
		set_key(job, o, true);
	*compute = true;
	return Q3_OK;
}

static q3_code
think_first(q3_job *job, const q3_preparer *p, const q3_job_options *o, bool *compute,
            q3_error *err)
{
	q3_labels *labels = make_labels(p, o, err);
	int32_t room;
	bool greedy;
	q3_code code;

	*compute = false;
	if (labels == NULL)
		return err->code;
	job->mode = o->mode;
	job->only_thinks = true;
	code = o->mode == Q3_EFFICIENT ? refuse_thinking(err) : encode_prompt(job, p, o, err);
	room = room_to_think(job, p, labels);
	*compute = code == Q3_OK && q3_chat_can_think(p->tok) && labels->n_branches > 0 && room > 0;
	q3_labels_free(labels);
	if (!*compute)
		return code;
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	/* The budget is of what the model writes behind <think>. */
	job->max_tokens =
	    (o->thinking_budget > 0 && o->thinking_budget < room ? o->thinking_budget : room) + 1;
	code = make_sampler(job, p, o, false, &greedy, err);
	if (code == Q3_OK)
		job->output = q3_output_create(p->tok, NULL, 0, true, job->max_tokens, err);
	if (code != Q3_OK || job->output == NULL)
		return err->code;
	code = begin_thinking(job, p, err);
	set_pause(job, o);
	if (code == Q3_OK && o->share && greedy)
		set_key(job, o, true);
	return code;
}

q3_code
q3_job_think(q3_job *job, const q3_preparer *p, const q3_job_options *o, bool *compute,
             q3_error *err)
{
	if (job->resumed > 0)
		return think_on(job, o, compute, err);
	return think_first(job, p, o, compute, err);
}

bool
q3_job_take_thought(const q3_job *job, q3_tokens *thought)
{
	q3_error err;

	return copy_tokens(&job->prompt, thought, &err) == Q3_OK &&
	       copy_tokens(&job->generated, thought, &err) == Q3_OK;
}

q3_code
q3_job_embed(q3_job *job, const q3_preparer *p, q3_str text, q3_mode mode, bool mean, q3_error *err)
{
	int32_t end = q3_tokenizer_special(p->tok)->text_end;
	q3_code code = check_bytes(p, "input", text.len, err);

	job->kind = Q3_JOB_EMBED;
	job->mode = mode;
	job->mean = mean;
	job->n_embd = p->n_embd;
	if (code == Q3_OK)
		code = encode_plain(p, text, false, &job->prompt, err);
	if (code != Q3_OK)
		return code;
	job->hidden = calloc((size_t) p->n_embd, sizeof(job->hidden[0]));
	if (job->hidden == NULL || (end >= 0 && !q3_tokens_push(&job->prompt, end)))
		return q3_fail(err, Q3_ERR_MEMORY, "out of memory");
	if (job->prompt.n == 0)
		return q3_fail(err, Q3_ERR_INVALID, "input has no tokens");
	if (job->prompt.n > (size_t) p->context_length)
		return too_long(err, "input", "", job->prompt.n, p->context_length);
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	set_key(job, &(q3_job_options){0}, false);
	return Q3_OK;
}

/* Room for the vector; false with the job's error. */
static bool
make_vector(q3_job *job)
{
	job->vector = malloc((size_t) job->n_embd * sizeof(job->vector[0]));
	if (job->vector == NULL)
		q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
	return job->vector != NULL;
}

void
q3_job_finish_vector(q3_job *job)
{
	double length = 0;

	if (!make_vector(job))
		return;
	for (int32_t i = 0; i < job->n_embd; i++)
		length += job->hidden[i] * job->hidden[i];
	length = sqrt(length);
	if (!(length > 0) || isinf(length))
	{
		q3_fail(&job->error, Q3_ERR_INTERNAL, "hidden states of the model have no direction");
		return;
	}
	/* The number of tokens of a mean makes no difference to the direction. */
	for (int32_t i = 0; i < job->n_embd; i++)
		job->vector[i] = (float) (job->hidden[i] / length);
}

q3_code
q3_job_pin(q3_job *job, const q3_preparer *p, q3_str system, q3_mode mode, q3_error *err)
{
	q3_code code = check_bytes(p, "system prompt", system.len, err);

	job->kind = Q3_JOB_PIN;
	job->mode = mode;
	if (code == Q3_OK && system.data == NULL)
		code = q3_fail(err, Q3_ERR_INVALID, "system prompt to pin is missing");
	if (code == Q3_OK)
		code = q3_chat_encode_system(p->tok, system, &job->prompt, err);
	if (code == Q3_OK && job->prompt.n >= (size_t) p->context_length)
		code = too_long(err, "system prompt", "", job->prompt.n, p->context_length);
	atomic_store(&job->prompt_tokens, (int) job->prompt.n);
	job->prompt.n -= job->prompt.n % Q3_KV_BLOCK;
	return code;
}

void
q3_job_unpin(q3_job *job)
{
	job->kind = Q3_JOB_UNPIN;
}

void
q3_job_copy_answer(q3_job *job, const q3_job *from)
{
	job->deduplicated = true;
	job->finish = from->finish;
	job->logprob_sum = from->logprob_sum;
	job->n_logprobs = from->n_logprobs;
	job->started_ns = from->started_ns > job->submitted_ns ? from->started_ns : job->submitted_ns;
	if (job->kind == Q3_JOB_EMBED && make_vector(job))
		memcpy(job->vector, from->vector, (size_t) job->n_embd * sizeof(job->vector[0]));
	if (job->labels != NULL)
	{
		memcpy(job->labels->probs, from->labels->probs,
		       (size_t) job->labels->n * sizeof(job->labels->probs[0]));
		job->labels->off_label = from->labels->off_label;
	}
	for (size_t i = 0; i < from->generated.n; i++)
		if (!q3_output_push(job->output, from->generated.ids[i], &job->finish) ||
		    (job->only_thinks && !q3_tokens_push(&job->generated, from->generated.ids[i])))
		{
			q3_fail(&job->error, Q3_ERR_MEMORY, "out of memory");
			return;
		}
	if (from->finish == Q3_FINISH_STOP && job->finish != Q3_FINISH_STOP)
		q3_output_end(job->output);
	job->finish = from->finish;
}

double
q3_job_confidence(const q3_job *job)
{
	return job->kind != Q3_JOB_GENERATE || job->n_logprobs == 0
	           ? NAN
	           : exp(job->logprob_sum / job->n_logprobs);
}

double
q3_job_score(const q3_job *job)
{
	return job->kind != Q3_JOB_LOGPROB || job->n_logprobs == 0 ? NAN
	                                                           : job->logprob_sum / job->n_logprobs;
}
