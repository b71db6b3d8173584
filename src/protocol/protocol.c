/*
 * protocol.c: encoding and decoding of the frames of protocol.h.
 *
 * A payload is the message's fields one after the other, without padding, in the order in which the
 * code below writes and reads them. Bytes are a length and the bytes; the length ABSENT stands for
 * SQL NULL. No memory is allocated: the writer counts on when the buffer is full, the reader hands
 * out pointers into the frame. Both remember a failure, so that the field lists need no checks of
 * their own. Any thread or process may call anything here.
 */
#include "protocol/protocol.h"

#include <string.h>

#define ABSENT UINT32_MAX
#define FLAG_THINKING 1u
#define FLAG_TEMPERATURE 2u
#define FLAG_TOP_P 4u
#define FLAG_TOP_K 8u
#define FLAG_MEAN 16u
#define FLAG_ESCALATE_THINKING 32u
#define FLAG_SHADOW 64u
#define ALL_FLAGS 127u

_Static_assert(sizeof(q3p_header) == 16, "frame headers have no padding");
_Static_assert(sizeof(q3p_activity) == 72 + Q3P_TASK_BYTES, "activity records have no padding");
_Static_assert(sizeof(int32_t) == 4 && sizeof(double) == 8, "sizes on the wire");

/* ---------------------------------------------------------------------------------------------
 * Writing
 * --------------------------------------------------------------------------------------------- */

typedef struct writer
{
	char *out;
	size_t cap;
	size_t size; /* of header and payload so far, whether they had room or not */
	bool too_big;
} writer;

static writer
writer_start(void *out, size_t cap)
{
	writer w = {out, out != NULL ? cap : 0, sizeof(q3p_header), false};

	return w;
}

static void
put(writer *w, const void *data, size_t n)
{
	if (n > Q3P_MAX_FRAME || w->size + n > sizeof(q3p_header) + Q3P_MAX_FRAME)
		w->too_big = true;
	if (w->too_big || n == 0)
		return;
	if (w->size + n <= w->cap)
		memcpy(w->out + w->size, data, n);
	w->size += n;
}

static void
put_u32(writer *w, uint32_t v)
{
	put(w, &v, sizeof(v));
}

static void
put_i32(writer *w, int32_t v)
{
	put(w, &v, sizeof(v));
}

static void
put_u64(writer *w, uint64_t v)
{
	put(w, &v, sizeof(v));
}

static void
put_f64(writer *w, double v)
{
	put(w, &v, sizeof(v));
}

static void
put_bytes(writer *w, q3p_bytes b)
{
	if (b.data == NULL)
		put_u32(w, ABSENT);
	else if (b.len > Q3P_MAX_FRAME)
		w->too_big = true;
	else
	{
		put_u32(w, (uint32_t) b.len);
		put(w, b.data, b.len);
	}
}

static void
put_tokens(writer *w, const unsigned char *tokens, uint32_t n)
{
	put_u32(w, n);
	if (n > Q3P_MAX_FRAME / sizeof(int32_t))
		w->too_big = true;
	else
		put(w, tokens, n * sizeof(int32_t));
}

static void
put_doubles(writer *w, const unsigned char *values, uint32_t n)
{
	put_u32(w, n);
	if (n > Q3P_MAX_FRAME / sizeof(double))
		w->too_big = true;
	else
		put(w, values, n * sizeof(double));
}

/* The header goes in last, when the length is known. */
static size_t
writer_finish(writer *w, q3p_type type, uint64_t id)
{
	q3p_header h = {(uint32_t) (w->size - sizeof(q3p_header)), type, id};

	if (w->too_big)
		return 0;
	if (w->size <= w->cap)
		memcpy(w->out, &h, sizeof(h));
	return w->size;
}

/* ---------------------------------------------------------------------------------------------
 * Reading
 * --------------------------------------------------------------------------------------------- */

typedef struct reader
{
	const unsigned char *p;
	size_t left;
	bool ok;
} reader;

static reader
reader_start(const void *payload, size_t n)
{
	reader r = {payload, n, payload != NULL};

	return r;
}

/* Address of the next n bytes; NULL when they are not there. */
static const unsigned char *
get(reader *r, size_t n)
{
	const unsigned char *p = r->p;

	r->ok = r->ok && n <= r->left;
	if (!r->ok)
		return NULL;
	r->p += n;
	r->left -= n;
	return p;
}

/* Copies the next n bytes to *v, or zeroes. */
static void
get_copy(reader *r, void *v, size_t n)
{
	const unsigned char *p = get(r, n);

	if (p != NULL)
		memcpy(v, p, n);
	else
		memset(v, 0, n);
}

static uint32_t
get_u32(reader *r)
{
	uint32_t v;

	get_copy(r, &v, sizeof(v));
	return v;
}

static int32_t
get_i32(reader *r)
{
	int32_t v;

	get_copy(r, &v, sizeof(v));
	return v;
}

static uint64_t
get_u64(reader *r)
{
	uint64_t v;

	get_copy(r, &v, sizeof(v));
	return v;
}

static double
get_f64(reader *r)
{
	double v;

	get_copy(r, &v, sizeof(v));
	return v;
}

/* A number of an enumeration that runs from low to high. */
static uint32_t
get_enum(reader *r, uint32_t low, uint32_t high)
{
	uint32_t v = get_u32(r);

	r->ok = r->ok && v >= low && v <= high;
	return v;
}

static q3p_bytes
get_bytes(reader *r)
{
	q3p_bytes b = {NULL, 0};
	uint32_t len = get_u32(r);

	if (!r->ok || len == ABSENT)
		return b;
	b.data = (const char *) get(r, len);
	b.len = b.data != NULL ? len : 0;
	return b;
}

/* A task's name, which fits in Q3P_TASK_BYTES and holds no NUL. */
static q3p_bytes
get_task(reader *r)
{
	q3p_bytes b = get_bytes(r);

	r->ok =
	    r->ok && b.len < Q3P_TASK_BYTES && (b.data == NULL || memchr(b.data, '\0', b.len) == NULL);
	return b;
}

static const unsigned char *
get_tokens(reader *r, uint32_t *n)
{
	*n = get_u32(r);
	r->ok = r->ok && *n <= r->left / sizeof(int32_t);
	return get(r, (size_t) *n * sizeof(int32_t));
}

static const unsigned char *
get_doubles(reader *r, uint32_t *n)
{
	*n = get_u32(r);
	r->ok = r->ok && *n <= r->left / sizeof(double);
	return get(r, (size_t) *n * sizeof(double));
}

/* True when everything was there and nothing is left over. */
static bool
reader_finish(const reader *r)
{
	return r->ok && r->left == 0;
}

/* ---------------------------------------------------------------------------------------------
 * Frames
 * --------------------------------------------------------------------------------------------- */

int
q3p_frame(const void *data, size_t n, q3p_header *header)
{
	if (n < sizeof(*header))
		return 0;
	memcpy(header, data, sizeof(*header));
	if (header->length > Q3P_MAX_FRAME)
		return -1;
	return n - sizeof(*header) >= header->length;
}

size_t
q3p_plain_encode(q3p_type type, uint64_t id, const void *payload, size_t len, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put(&w, payload, len);
	return writer_finish(&w, type, id);
}

/* ---------------------------------------------------------------------------------------------
 * HELLO
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_hello_encode(const q3p_hello *m, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put_u32(&w, m->version);
	put_i32(&w, m->pid);
	put_u32(&w, m->role);
	put_u32(&w, m->database);
	return writer_finish(&w, Q3P_HELLO, 0);
}

bool
q3p_hello_decode(const void *payload, size_t n, q3p_hello *m)
{
	reader r = reader_start(payload, n);

	m->version = get_u32(&r);
	m->pid = get_i32(&r);
	m->role = get_u32(&r);
	m->database = get_u32(&r);
	return reader_finish(&r);
}

/* ---------------------------------------------------------------------------------------------
 * REQUEST
 * --------------------------------------------------------------------------------------------- */

/* A list of strings: their number, the length of the packed list, the list. */
static void
put_list(writer *w, const q3p_bytes *items, uint32_t n)
{
	uint64_t len = 0;

	for (uint32_t i = 0; i < n && len <= Q3P_MAX_FRAME; i++)
		len += sizeof(uint32_t) + (items[i].data != NULL ? items[i].len : 0);
	if (len > Q3P_MAX_FRAME)
	{
		w->too_big = true;
		return;
	}
	put_u32(w, n);
	put_u32(w, (uint32_t) len);
	for (uint32_t i = 0; i < n; i++)
	{
		q3p_bytes item = items[i].data != NULL ? items[i] : (q3p_bytes){"", 0};

		put_bytes(w, item);
	}
}

/* The list as a whole, after a look at every string in it. */
static q3p_bytes
get_list(reader *r, uint32_t *n)
{
	q3p_bytes list, rest, item;
	uint32_t found = 0;

	*n = get_u32(r);
	list = get_bytes(r);
	rest = list;
	while (q3p_next_bytes(&rest, &item))
		found++;
	r->ok = r->ok && list.data != NULL && rest.len == 0 && found == *n;
	return list;
}

bool
q3p_next_bytes(q3p_bytes *list, q3p_bytes *item)
{
	reader r = reader_start(list->data, list->len);

	*item = get_bytes(&r);
	if (!r.ok || item->data == NULL)
		return false;
	list->data = (const char *) r.p;
	list->len = r.left;
	return true;
}

size_t
q3p_request_encode(uint64_t id, const q3p_request *m, const q3p_lists *lists, void *out, size_t cap)
{
	static const q3p_lists none = {NULL, NULL, NULL};
	writer w = writer_start(out, cap);

	lists = lists != NULL ? lists : &none;
	put_u32(&w, m->kind);
	put_u32(&w, m->mode);
	put_u32(&w, (m->thinking ? FLAG_THINKING : 0) | (m->has_temperature ? FLAG_TEMPERATURE : 0) |
	                (m->has_top_p ? FLAG_TOP_P : 0) | (m->has_top_k ? FLAG_TOP_K : 0) |
	                (m->mean ? FLAG_MEAN : 0) |
	                (m->escalate_thinking ? FLAG_ESCALATE_THINKING : 0) |
	                (m->shadow ? FLAG_SHADOW : 0));
	put_i32(&w, m->max_tokens);
	put_f64(&w, m->temperature);
	put_f64(&w, m->top_p);
	put_i32(&w, m->top_k);
	put_u64(&w, m->seed);
	put_bytes(&w, m->prompt);
	put_bytes(&w, m->system);
	put_list(&w, lists->stops, m->n_stops);
	put_tokens(&w, m->tokens, m->n_tokens);
	put_u32(&w, m->priority);
	put_u32(&w, m->role);
	put_list(&w, lists->labels, m->n_labels);
	put_list(&w, lists->turns, m->n_turns);
	put_bytes(&w, m->schema);
	put_bytes(&w, m->task);
	put_u64(&w, m->query_id);
	put_u32(&w, m->token_quota);
	put_i32(&w, m->thinking_budget);
	put_f64(&w, m->escalate_below);
	put_f64(&w, m->off_label_limit);
	put_u64(&w, m->question);
	put_f64(&w, m->exit_margin);
	return writer_finish(&w, Q3P_REQUEST, id);
}

bool
q3p_request_decode(const void *payload, size_t n, q3p_request *m)
{
	reader r = reader_start(payload, n);
	uint32_t flags;

	m->kind = get_enum(&r, Q3P_GENERATE, Q3P_EMBED);
	m->mode = get_enum(&r, Q3P_AUTO, Q3P_PRECISE);
	flags = get_enum(&r, 0, ALL_FLAGS);
	m->thinking = (flags & FLAG_THINKING) != 0;
	m->has_temperature = (flags & FLAG_TEMPERATURE) != 0;
	m->has_top_p = (flags & FLAG_TOP_P) != 0;
	m->has_top_k = (flags & FLAG_TOP_K) != 0;
	m->mean = (flags & FLAG_MEAN) != 0;
	m->escalate_thinking = (flags & FLAG_ESCALATE_THINKING) != 0;
	m->shadow = (flags & FLAG_SHADOW) != 0;
	m->max_tokens = get_i32(&r);
	m->temperature = get_f64(&r);
	m->top_p = get_f64(&r);
	m->top_k = get_i32(&r);
	m->seed = get_u64(&r);
	m->prompt = get_bytes(&r);
	m->system = get_bytes(&r);
	m->stops = get_list(&r, &m->n_stops);
	m->tokens = get_tokens(&r, &m->n_tokens);
	m->priority = get_enum(&r, 0, Q3P_MAX_PRIORITY);
	m->role = get_u32(&r);
	m->labels = get_list(&r, &m->n_labels);
	m->turns = get_list(&r, &m->n_turns);
	r.ok = r.ok && m->n_turns % 2 == 0 && m->n_turns / 2 <= Q3P_MAX_EXAMPLES;
	m->schema = get_bytes(&r);
	m->task = get_task(&r);
	m->query_id = get_u64(&r);
	m->token_quota = get_u32(&r);
	m->thinking_budget = get_i32(&r);
	r.ok = r.ok && m->thinking_budget >= 0;
	m->escalate_below = get_f64(&r);
	m->off_label_limit = get_f64(&r);
	m->question = get_u64(&r);
	m->exit_margin = get_f64(&r);
	return reader_finish(&r);
}

/* ---------------------------------------------------------------------------------------------
 * RESULT
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_result_encode(uint64_t id, const q3p_result *m, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put_u32(&w, m->mode);
	put_u32(&w, m->finish);
	put_i32(&w, m->prompt_tokens);
	put_i32(&w, m->cached_tokens);
	put_i32(&w, m->output_tokens);
	put_f64(&w, m->confidence);
	put_f64(&w, m->score);
	put_f64(&w, m->queue_ms);
	put_f64(&w, m->latency_ms);
	put_bytes(&w, m->reason);
	put_bytes(&w, m->value);
	put_bytes(&w, m->thinking);
	put_bytes(&w, m->digest);
	put_tokens(&w, m->tokens, m->n_tokens);
	put_u32(&w, m->deduplicated);
	put_doubles(&w, m->probs, m->n_probs);
	put_tokens(&w, m->vector, m->n_vector);
	put_i32(&w, m->thinking_tokens);
	put_u32(&w, m->escalated);
	put_f64(&w, m->margin);
	put_f64(&w, m->first_ms);
	put_f64(&w, m->off_label);
	return writer_finish(&w, Q3P_RESULT, id);
}

bool
q3p_result_decode(const void *payload, size_t n, q3p_result *m)
{
	reader r = reader_start(payload, n);

	m->mode = get_enum(&r, Q3P_AUTO, Q3P_PRECISE);
	m->finish = get_enum(&r, 0, Q3P_FINISH_LENGTH);
	m->prompt_tokens = get_i32(&r);
	m->cached_tokens = get_i32(&r);
	m->output_tokens = get_i32(&r);
	m->confidence = get_f64(&r);
	m->score = get_f64(&r);
	m->queue_ms = get_f64(&r);
	m->latency_ms = get_f64(&r);
	m->reason = get_bytes(&r);
	m->value = get_bytes(&r);
	m->thinking = get_bytes(&r);
	m->digest = get_bytes(&r);
	m->tokens = get_tokens(&r, &m->n_tokens);
	m->deduplicated = get_enum(&r, 0, 1) != 0;
	m->probs = get_doubles(&r, &m->n_probs);
	m->vector = get_tokens(&r, &m->n_vector);
	m->thinking_tokens = get_i32(&r);
	m->escalated = get_enum(&r, 0, 1) != 0;
	m->margin = get_f64(&r);
	m->first_ms = get_f64(&r);
	m->off_label = get_f64(&r);
	return reader_finish(&r);
}

/* ---------------------------------------------------------------------------------------------
 * ERROR
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_error_encode(uint64_t id, const q3p_error *m, void *out, size_t cap)
{
	writer w = writer_start(out, cap);
	q3p_bytes message = m->message.data != NULL ? m->message : (q3p_bytes){"", 0};

	put(&w, m->sqlstate, 5);
	put_bytes(&w, message);
	put_bytes(&w, m->detail);
	put_bytes(&w, m->hint);
	put_u32(&w, m->mode);
	put_i32(&w, m->prompt_tokens);
	put_i32(&w, m->cached_tokens);
	put_i32(&w, m->output_tokens);
	put_f64(&w, m->latency_ms);
	return writer_finish(&w, Q3P_ERROR, id);
}

bool
q3p_error_decode(const void *payload, size_t n, q3p_error *m)
{
	reader r = reader_start(payload, n);

	get_copy(&r, m->sqlstate, 5);
	m->sqlstate[5] = '\0';
	for (int i = 0; i < 5; i++)
		r.ok = r.ok && ((m->sqlstate[i] >= '0' && m->sqlstate[i] <= '9') ||
		                (m->sqlstate[i] >= 'A' && m->sqlstate[i] <= 'Z'));
	m->message = get_bytes(&r);
	m->detail = get_bytes(&r);
	m->hint = get_bytes(&r);
	m->mode = get_enum(&r, Q3P_AUTO, Q3P_PRECISE);
	m->prompt_tokens = get_i32(&r);
	m->cached_tokens = get_i32(&r);
	m->output_tokens = get_i32(&r);
	m->latency_ms = get_f64(&r);
	return reader_finish(&r) && m->message.data != NULL;
}

/* ---------------------------------------------------------------------------------------------
 * USAGE
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_usage_encode(const q3p_usage *m, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put_u32(&w, m->role);
	put_u32(&w, m->database);
	put_u32(&w, m->kind);
	put_u32(&w, m->mode);
	put_i32(&w, m->prompt_tokens);
	put_i32(&w, m->cached_tokens);
	put_i32(&w, m->output_tokens);
	put_f64(&w, m->latency_ms);
	put_bytes(&w, m->task);
	return writer_finish(&w, Q3P_USAGE, 0);
}

bool
q3p_usage_decode(const void *payload, size_t n, q3p_usage *m)
{
	reader r = reader_start(payload, n);

	m->role = get_u32(&r);
	m->database = get_u32(&r);
	m->kind = get_enum(&r, Q3P_GENERATE, Q3P_EMBED);
	m->mode = get_enum(&r, Q3P_AUTO, Q3P_PRECISE);
	m->prompt_tokens = get_i32(&r);
	m->cached_tokens = get_i32(&r);
	m->output_tokens = get_i32(&r);
	m->latency_ms = get_f64(&r);
	m->task = get_task(&r);
	return reader_finish(&r);
}

/* ---------------------------------------------------------------------------------------------
 * SHADOW
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_shadow_encode(const q3p_shadow *m, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put_u32(&w, m->database);
	put_bytes(&w, m->task);
	put_u64(&w, m->question);
	put_u32(&w, m->agreed);
	return writer_finish(&w, Q3P_SHADOW, 0);
}

bool
q3p_shadow_decode(const void *payload, size_t n, q3p_shadow *m)
{
	reader r = reader_start(payload, n);

	m->database = get_u32(&r);
	m->task = get_task(&r);
	m->question = get_u64(&r);
	m->agreed = get_enum(&r, 0, 1) != 0;
	return reader_finish(&r);
}

/* ---------------------------------------------------------------------------------------------
 * ACTIVITY_RESULT
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_activity_encode(const q3p_activity *rows, uint32_t n, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put_u32(&w, n);
	for (uint32_t i = 0; i < n && !w.too_big; i++)
	{
		q3p_activity row = rows[i];

		row.pad = 0;
		put(&w, &row, sizeof(row));
	}
	return writer_finish(&w, Q3P_ACTIVITY_RESULT, 0);
}

bool
q3p_activity_decode(const void *payload, size_t n, uint32_t *count)
{
	reader r = reader_start(payload, n);

	*count = get_u32(&r);
	return r.ok && r.left % sizeof(q3p_activity) == 0 && r.left / sizeof(q3p_activity) == *count;
}

void
q3p_activity_get(const void *payload, uint32_t i, q3p_activity *row)
{
	memcpy(row, (const char *) payload + sizeof(uint32_t) + (size_t) i * sizeof(*row),
	       sizeof(*row));
	row->task[sizeof(row->task) - 1] = '\0';
}

/* ---------------------------------------------------------------------------------------------
 * STATUS
 * --------------------------------------------------------------------------------------------- */

size_t
q3p_status_encode(const q3p_status *m, void *out, size_t cap)
{
	writer w = writer_start(out, cap);

	put_u32(&w, m->state);
	put_f64(&w, m->progress);
	put_i32(&w, m->threads);
	put_i32(&w, m->context_length);
	put_i32(&w, m->max_batch_tokens);
	put_i32(&w, m->kv_blocks);
	put_i32(&w, m->kv_blocks_free);
	put_i32(&w, m->kv_block_tokens);
	put_i32(&w, m->n_embd);
	put_i32(&w, m->prefix_blocks);
	put_i32(&w, m->pinned_blocks);
	put_u64(&w, m->n_params);
	put_u64(&w, m->weight_bytes);
	put_u64(&w, m->image_bytes);
	put_u64(&w, m->kv_bytes);
	put_u64(&w, m->scratch_bytes);
	put_u32(&w, m->image);
	put_f64(&w, m->load_ms);
	put_u64(&w, m->requests);
	put_u64(&w, m->errors);
	put_u64(&w, m->prompt_tokens);
	put_u64(&w, m->output_tokens);
	put_u64(&w, m->cached_tokens);
	put_u64(&w, m->deduplicated);
	put_u64(&w, m->classified);
	put_u64(&w, m->steps);
	put_u64(&w, m->evictions);
	put_i32(&w, m->running);
	put_i32(&w, m->queued);
	put_bytes(&w, m->architecture);
	put_bytes(&w, m->name);
	put_bytes(&w, m->weight_type);
	put_bytes(&w, m->digest);
	put_bytes(&w, m->device);
	put_bytes(&w, m->device_reason);
	put_bytes(&w, m->isa);
	put_bytes(&w, m->precision);
	put_bytes(&w, m->message);
	put_bytes(&w, m->detail);
	put_bytes(&w, m->hint);
	return writer_finish(&w, Q3P_STATUS, 0);
}

bool
q3p_status_decode(const void *payload, size_t n, q3p_status *m)
{
	reader r = reader_start(payload, n);

	m->state = get_enum(&r, Q3P_STARTING, Q3P_FAILED);
	m->progress = get_f64(&r);
	m->threads = get_i32(&r);
	m->context_length = get_i32(&r);
	m->max_batch_tokens = get_i32(&r);
	m->kv_blocks = get_i32(&r);
	m->kv_blocks_free = get_i32(&r);
	m->kv_block_tokens = get_i32(&r);
	m->n_embd = get_i32(&r);
	m->prefix_blocks = get_i32(&r);
	m->pinned_blocks = get_i32(&r);
	m->n_params = get_u64(&r);
	m->weight_bytes = get_u64(&r);
	m->image_bytes = get_u64(&r);
	m->kv_bytes = get_u64(&r);
	m->scratch_bytes = get_u64(&r);
	m->image = get_enum(&r, Q3P_IMAGE_NONE, Q3P_IMAGE_CACHED);
	m->load_ms = get_f64(&r);
	m->requests = get_u64(&r);
	m->errors = get_u64(&r);
	m->prompt_tokens = get_u64(&r);
	m->output_tokens = get_u64(&r);
	m->cached_tokens = get_u64(&r);
	m->deduplicated = get_u64(&r);
	m->classified = get_u64(&r);
	m->steps = get_u64(&r);
	m->evictions = get_u64(&r);
	m->running = get_i32(&r);
	m->queued = get_i32(&r);
	m->architecture = get_bytes(&r);
	m->name = get_bytes(&r);
	m->weight_type = get_bytes(&r);
	m->digest = get_bytes(&r);
	m->device = get_bytes(&r);
	m->device_reason = get_bytes(&r);
	m->isa = get_bytes(&r);
	m->precision = get_bytes(&r);
	m->message = get_bytes(&r);
	m->detail = get_bytes(&r);
	m->hint = get_bytes(&r);
	return reader_finish(&r);
}

/* ---------------------------------------------------------------------------------------------
 * Names
 * --------------------------------------------------------------------------------------------- */

static const char *
name_of(const char *const *names, uint32_t n, uint32_t i)
{
	return i < n && names[i] != NULL ? names[i] : "unknown";
}

#define NAME_OF(names, i) name_of(names, sizeof(names) / sizeof((names)[0]), i)

const char *
q3p_mode_name(uint32_t mode)
{
	static const char *const names[] = {"auto", "efficient", "precise"};

	return NAME_OF(names, mode);
}

const char *
q3p_kind_name(uint32_t kind)
{
	static const char *const names[] = {NULL,           "generate", "stream",     "logprob",
	                                    "count_tokens", "tokenize", "detokenize", "classify",
	                                    "pin",          "unpin",    "embed"};

	return NAME_OF(names, kind);
}

const char *
q3p_finish_name(uint32_t fin)
{
	static const char *const names[] = {NULL, "stop", "length"};

	return NAME_OF(names, fin);
}

const char *
q3p_phase_name(uint32_t phase)
{
	static const char *const names[] = {NULL, "queued", "prefill", "decode"};

	return NAME_OF(names, phase);
}

const char *
q3p_image_name(uint32_t image)
{
	static const char *const names[] = {"none", "built", "kept", "cached"};

	return NAME_OF(names, image);
}

const char *
q3p_state_name(uint32_t state)
{
	static const char *const names[] = {NULL, "starting", "loading", "ready", "failed"};

	return NAME_OF(names, state);
}
