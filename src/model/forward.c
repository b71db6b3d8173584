/*
 * forward.c: the forward pass.
 *
 * The tokens of all items stand in one batch, row by row in the runtime's buffers; only attention
 * sees which sequence a token belongs to, and only products which mode it has: runs of tokens of
 * one mode are multiplied together. What mode efficient multiplies with is rounded to 8 or 16 bits
 * once, in the step that makes it. Every step is a region of q3_threads_run(), whose chunks are
 * independent of each other, and every kernel computes a token's part without regard to the other
 * tokens: that is why a result does not depend on the rest of the batch or on the threads. The
 * leader is the caller's thread; no memory is allocated.
 */
#include "model/model_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_PER_CHUNK 8     /* of steps that go token by token */
#define MAX_ROWS_PER_CHUNK 128 /* of matrix products with several tokens */
#define SPAN_TOKENS 32         /* that attend together */

/* What the chunks of a region need to know. */
typedef struct pass
{
	q3_runtime *rt;
	const atomic_bool *stop;
	int32_t n_tokens;
	int32_t n_wanted;
	int32_t n_spans;
	int32_t n_parts;
	int32_t n_runs;
	int32_t layer;
} pass;

static bool
run(pass *p, q3_chunk_fn fn, void *arg, int32_t n_chunks)
{
	return q3_threads_run(p->rt->threads, fn, arg, n_chunks, p->stop);
}

static void *
scratch_of(const q3_runtime *rt, int32_t thread)
{
	return rt->scratch + (size_t) thread * rt->scratch_stride;
}

/* ---- Steps that go token by token ---- */

/* Tokens [*begin, *end) of a chunk. */
static void
chunk_tokens(const pass *p, int32_t chunk, int32_t *begin, int32_t *end)
{
	*begin = chunk * TOKENS_PER_CHUNK;
	*end = *begin + TOKENS_PER_CHUNK < p->n_tokens ? *begin + TOKENS_PER_CHUNK : p->n_tokens;
}

static bool
run_tokens(pass *p, q3_chunk_fn fn)
{
	return run(p, fn, p, (p->n_tokens + TOKENS_PER_CHUNK - 1) / TOKENS_PER_CHUNK);
}

/* The factors of rope() for position pos, one pair of dimensions at a time. */
static void
rotation(const q3_runtime *rt, int32_t pos, float *c, float *s)
{
	int32_t half = rt->model->rope_dims / 2;
	bool interleaved = rt->model->rope_interleaved;

	for (int32_t i = 0; i < half; i++)
	{
		double angle = (double) pos * rt->rope_frequency[i];
		int32_t j = interleaved ? 2 * i : i, k = interleaved ? 2 * i + 1 : i + half;

		c[j] = c[k] = (float) cos(angle);
		s[k] = (float) sin(angle);
		s[j] = -s[k];
	}
}

/*
 * The next vectors in "in" are for these products of a layer: they get a second plane where one of
 * them wants it. By the leader, between regions.
 */
static void
make_for(const pass *p, q3_input *in, int32_t layer, int products)
{
	in->acts.lo = p->rt->two_planes[layer] & products ? in->lo : NULL;
}

/* Rounds columns [begin, end) of token t, multiples of 32, for mode efficient. */
static void
quantize(const pass *p, q3_input *in, int32_t t, int32_t begin, int32_t end)
{
	const q3_runtime *rt = p->rt;
	q3_acts out = q3_acts_at(&in->acts, t, begin / Q3_PLANE_BLOCK);

	if (rt->model->image != NULL && rt->tokens[t].mode == Q3_EFFICIENT)
		rt->kernels->quantize(in->rows.row[t] + begin, end - begin, &out);
}

/* The norm of the residual stream becomes the next input. */
static void
normalize(const pass *p, int32_t t, const float *norm)
{
	q3_runtime *rt = p->rt;
	const q3_model *m = rt->model;

	rt->kernels->rms_norm(rt->x.row[t], norm, m->info.n_embd, m->rms_eps, rt->h.rows.row[t]);
	quantize(p, &rt->h, t, 0, m->info.n_embd);
}

/* Embedding, rotation factors, and the first norm. */
static void
begin_chunk(void *arg, int32_t chunk, int32_t thread)
{
	pass *p = arg;
	q3_runtime *rt = p->rt;
	const q3_model *m = rt->model;
	int32_t begin, end;

	(void) thread;
	chunk_tokens(p, chunk, &begin, &end);
	for (int32_t t = begin; t < end; t++)
	{
		const char *row =
		    (const char *) m->embedding.data + (size_t) rt->tokens[t].id * m->embedding.row_bytes;

		rt->kernels->dequantize(m->embedding.type, row, m->info.n_embd, rt->x.row[t]);
		normalize(p, t, m->layers[0].attn_norm);
		rotation(rt, rt->tokens[t].pos, rt->rope_cos.row[t], rt->rope_sin.row[t]);
	}
}

/* Bias, norm and rotation of the heads of a query or key. */
static void
finish_heads(const pass *p, float *heads, int32_t n_heads, const float *bias, const float *norm,
             int32_t t)
{
	const q3_runtime *rt = p->rt;
	const q3_model *m = rt->model;
	int32_t n = m->info.head_dim;

	if (bias != NULL)
		rt->kernels->add(heads, bias, n_heads * n);
	for (int32_t i = 0; i < n_heads; i++)
	{
		float *head = heads + (size_t) i * (size_t) n;

		if (norm != NULL)
			rt->kernels->rms_norm(head, norm, n, m->rms_eps, head);
		rt->kernels->rope(head, rt->rope_cos.row[t], rt->rope_sin.row[t], m->rope_dims,
		                  m->rope_interleaved);
	}
}

/* Finishes q, k and v, and appends k and v to the sequences. */
static void
qkv_chunk(void *arg, int32_t chunk, int32_t thread)
{
	pass *p = arg;
	q3_runtime *rt = p->rt;
	const q3_model_info *info = &rt->model->info;
	const q3_layer *l = &rt->model->layers[p->layer];
	int32_t begin, end;

	(void) thread;
	chunk_tokens(p, chunk, &begin, &end);
	for (int32_t t = begin; t < end; t++)
	{
		finish_heads(p, rt->q.row[t], info->n_heads, l->q_bias, l->q_norm, t);
		finish_heads(p, rt->k.row[t], info->n_kv_heads, l->k_bias, l->k_norm, t);
		if (l->v_bias != NULL)
			rt->kernels->add(rt->v.row[t], l->v_bias, info->n_kv_heads * info->head_dim);
	}
	/* Head by head: keys of neighbouring tokens lie in the same cache lines. */
	for (int32_t i = 0; i < info->n_kv_heads; i++)
		for (int32_t t = begin; t < end; t++)
		{
			q3_kv_view kv = q3_kv_view_of(rt->tokens[t].seq, p->layer, i);
			size_t head = (size_t) i * (size_t) info->head_dim;

			rt->kernels->kv_store(&kv, rt->tokens[t].pos, rt->k.row[t] + head, rt->v.row[t] + head);
		}
}

/* Adds h to the residual stream and makes the next h from it with the norm given. */
static void
residual(const pass *p, int32_t chunk, const float *norm)
{
	const q3_runtime *rt = p->rt;
	int32_t begin, end;

	chunk_tokens(p, chunk, &begin, &end);
	for (int32_t t = begin; t < end; t++)
	{
		rt->kernels->add(rt->x.row[t], rt->h.rows.row[t], rt->model->info.n_embd);
		normalize(p, t, norm);
	}
}

static void
after_attention_chunk(void *arg, int32_t chunk, int32_t thread)
{
	pass *p = arg;

	(void) thread;
	residual(p, chunk, p->rt->model->layers[p->layer].ffn_norm);
}

static void
after_ffn_chunk(void *arg, int32_t chunk, int32_t thread)
{
	pass *p = arg;
	const q3_model *m = p->rt->model;
	bool last = p->layer == m->info.n_layers - 1;

	(void) thread;
	residual(p, chunk, last ? m->output_norm : m->layers[p->layer + 1].attn_norm);
}

/* ---- Matrix products ---- */

/* Up to three products with the same input, in one region. */
typedef struct product
{
	const pass *p;
	const q3_input *x;
	const q3_weights *w[3];
	float *const *y[3];
	int32_t n;
	int32_t rows_per_chunk;
	bool one_plane[3]; /* even if x has two */
	q3_input *swiglu; /* y[0] = silu(y[0]) * y[1], of two matrices of one shape; y[0] is its rows */
} product;

/* A multiple of 32, so that parts fit every kernel and hold whole blocks of what is made from them;
 * some chunks per thread, so that all end together.
 */
static void
set_chunk_rows(product *q)
{
	int32_t threads = q3_threads_count(q->p->rt->threads), total = 0, rows;

	for (int32_t i = 0; i < (q->swiglu != NULL ? 1 : q->n); i++)
		total += q->w[i]->file.rows;
	rows = (total / (4 * threads) + 31) / 32 * 32;
	if (q->p->n_tokens > 1 && rows > MAX_ROWS_PER_CHUNK)
		rows = MAX_ROWS_PER_CHUNK;
	q->rows_per_chunk = rows < 32 ? 32 : rows;
}

static int32_t
chunks_of(const product *q, const q3_weights *w)
{
	return (w->file.rows + q->rows_per_chunk - 1) / q->rows_per_chunk;
}

/* The tokens of one run times rows [begin, end) of matrix i, with the precision of their mode. */
static void
multiply_run(const product *q, int32_t i, const q3_run *run, int32_t begin, int32_t end,
             void *scratch)
{
	const q3_runtime *rt = q->p->rt;
	const q3_weights *w = q->w[i];
	const q3_rows *x = &q->x->rows;
	float *const *y = q->y[i];

	if (w->planes.hi == NULL || (run->mode == Q3_PRECISE && rt->exact_weights))
		rt->kernels->matmul(&w->file, begin, end, x->row[run->first], x->stride, run->n,
		                    y + run->first, scratch);
	else if (run->mode == Q3_PRECISE)
		rt->kernels->matmul_planes(&w->planes, begin, end, x->row[run->first], x->stride, run->n,
		                           y + run->first, scratch);
	else
	{
		q3_acts acts = q3_acts_at(&q->x->acts, run->first, 0);
		int bits = w->planes.kind == Q3_PLANES_4 ? 4 : rt->efficient_bits;

		if (q->one_plane[i])
			acts.lo = NULL;
		rt->kernels->matmul_int8(&w->planes, bits, begin, end, &acts, run->n, y + run->first,
		                         scratch);
	}
}

static void
multiply(const product *q, int32_t i, int32_t begin, int32_t end, int32_t thread)
{
	const q3_runtime *rt = q->p->rt;

	for (int32_t r = 0; r < q->p->n_runs; r++)
		multiply_run(q, i, &rt->runs[r], begin, end, scratch_of(rt, thread));
}

static void
product_chunk(void *arg, int32_t chunk, int32_t thread)
{
	const product *q = arg;
	int32_t i = 0, begin, end;

	while (chunk >= chunks_of(q, q->w[i]))
		chunk -= chunks_of(q, q->w[i++]);
	begin = chunk * q->rows_per_chunk;
	end = begin + q->rows_per_chunk < q->w[i]->file.rows ? begin + q->rows_per_chunk
	                                                     : q->w[i]->file.rows;
	multiply(q, i, begin, end, thread);
	if (q->swiglu == NULL)
		return;
	multiply(q, 1, begin, end, thread);
	for (int32_t t = 0; t < q->p->n_tokens; t++)
	{
		q->p->rt->kernels->swiglu(q->y[0][t] + begin, q->y[1][t] + begin, end - begin);
		quantize(q->p, q->swiglu, t, begin, end);
	}
}

static bool
run_product(pass *p, product q)
{
	int32_t n_chunks = 0;

	q.p = p;
	set_chunk_rows(&q);
	for (int32_t i = 0; i < (q.swiglu != NULL ? 1 : q.n); i++)
		n_chunks += chunks_of(&q, q.w[i]);
	return run(p, product_chunk, &q, n_chunks);
}

/* ---- Attention ---- */

/* What the query heads of one K/V head make is a number of blocks. */
static bool
whole_blocks(const q3_model_info *info)
{
	return info->n_heads / info->n_kv_heads * info->head_dim % Q3_PLANE_BLOCK == 0;
}

static void
attention_chunk(void *arg, int32_t chunk, int32_t thread)
{
	pass *p = arg;
	q3_runtime *rt = p->rt;
	const q3_model_info *info = &rt->model->info;
	int32_t group = info->n_heads / info->n_kv_heads, head = chunk % info->n_kv_heads;
	/* The longest spans stand last: they are begun first. */
	const q3_span *span = &rt->spans[p->n_spans - 1 - chunk / info->n_kv_heads];
	q3_kv_view kv = q3_kv_view_of(rt->tokens[span->first].seq, p->layer, head);
	size_t offset = (size_t) (head * group) * (size_t) info->head_dim;

	rt->kernels->attention(&kv, rt->parts + span->first_part, span->n_parts, span->n_shared, group,
	                       rt->q.row[span->first] + offset, rt->q.stride,
	                       rt->attended.rows.row[span->first] + offset, rt->attended.rows.stride,
	                       scratch_of(rt, thread));
	if (whole_blocks(info))
		for (int32_t t = span->first; t < span->first + span->n; t++)
			quantize(p, &rt->attended, t, (int32_t) offset,
			         (int32_t) offset + group * info->head_dim);
}

/* Where a chunk does not hold whole blocks they are rounded in a step of their own. */
static void
quantize_attended_chunk(void *arg, int32_t chunk, int32_t thread)
{
	pass *p = arg;
	int32_t begin, end;

	(void) thread;
	chunk_tokens(p, chunk, &begin, &end);
	for (int32_t t = begin; t < end; t++)
		quantize(p, &p->rt->attended, t, 0, p->rt->attended.acts.cols);
}

/* Full blocks that two parts begin with, both. */
static int32_t
shared_blocks(const q3_attention_part *a, const q3_attention_part *b)
{
	int32_t most = (a->pos < b->pos ? a->pos : b->pos) / Q3_KV_BLOCK, n = 0;

	while (n < most && a->blocks[n] == b->blocks[n])
		n++;
	return n;
}

/* Puts a part that begins with token first into the last span, if it shares blocks with that. */
static bool
join_span(pass *p, int32_t first, const q3_attention_part *part, int32_t most)
{
	q3_runtime *rt = p->rt;
	q3_span *span = rt->spans + p->n_spans - 1;
	int32_t shared;

	if (span->first + span->n != first || span->n + part->n_tokens > most)
		return false;
	shared = shared_blocks(&rt->parts[span->first_part], part);
	if (span->n_parts > 1 && span->n_shared < shared)
		shared = span->n_shared;
	if (shared == 0 || shared < span->n_shared / 2) /* the others would lose more than is won */
		return false;
	span->n += part->n_tokens;
	span->n_parts++;
	span->n_shared = shared;
	return true;
}

/* Tokens [begin, end) of one sequence attend: in spans of their own, or with those before them. */
static void
add_spans(pass *p, int32_t begin, int32_t end)
{
	q3_runtime *rt = p->rt;
	const q3_model_info *info = &rt->model->info;
	int32_t group = info->n_heads / info->n_kv_heads, most = Q3_ATTENTION_QUERIES / group;

	most = most < SPAN_TOKENS ? most : SPAN_TOKENS;
	for (; begin < end; begin += most)
	{
		const q3_batch_token *token = &rt->tokens[begin];
		int32_t n = end - begin < most ? end - begin : most;
		q3_attention_part *part = &rt->parts[p->n_parts];

		*part = (q3_attention_part){token->seq->blocks, token->pos, n};
		if (p->n_spans == 0 || !join_span(p, begin, part, most))
			rt->spans[p->n_spans++] = (q3_span){begin, n, p->n_parts, 1, 0};
		p->n_parts++;
	}
}

/* ---- The layers ---- */

static bool
run_layer(pass *p)
{
	q3_runtime *rt = p->rt;
	const q3_layer *l = &rt->model->layers[p->layer];
	bool qk = !(rt->two_planes[p->layer] & Q3_TIMES_QK);
	bool v = !(rt->two_planes[p->layer] & Q3_TIMES_V);

	make_for(p, &rt->attended, p->layer, Q3_TIMES_ATTENTION_OUTPUT);
	return run_product(p, (product){.x = &rt->h,
	                                .w = {&l->q, &l->k, &l->v},
	                                .y = {rt->q.row, rt->k.row, rt->v.row},
	                                .n = 3,
	                                .one_plane = {qk, qk, v}}) &&
	       run_tokens(p, qkv_chunk) &&
	       run(p, attention_chunk, p, p->n_spans * rt->model->info.n_kv_heads) &&
	       (whole_blocks(&rt->model->info) || run_tokens(p, quantize_attended_chunk));
}

static bool
run_rest_of_layer(pass *p)
{
	q3_runtime *rt = p->rt;
	const q3_layer *l = &rt->model->layers[p->layer];

	make_for(p, &rt->h, p->layer, Q3_TIMES_GATE_UP);
	make_for(p, &rt->gate, p->layer, Q3_TIMES_DOWN);
	if (!run_product(
	        p,
	        (product){.x = &rt->attended, .w = {&l->attn_output}, .y = {rt->h.rows.row}, .n = 1}) ||
	    !run_tokens(p, after_attention_chunk) ||
	    !run_product(p, (product){.x = &rt->h,
	                              .w = {&l->gate, &l->up},
	                              .y = {rt->gate.rows.row, rt->up.row},
	                              .n = 2,
	                              .swiglu = &rt->gate}) ||
	    !run_product(p, (product){.x = &rt->gate, .w = {&l->down}, .y = {rt->h.rows.row}, .n = 1}))
		return false;
	make_for(p, &rt->h, p->layer + 1, Q3_TIMES_QK | Q3_TIMES_V | Q3_TIMES_HEAD);
	return run_tokens(p, after_ffn_chunk);
}

static bool
wants_all_tokens(const q3_batch_item *item)
{
	return item->want == Q3_WANT_ALL || item->want == Q3_WANT_HIDDEN_SUM;
}

static bool
wants_hidden(const q3_batch_item *item)
{
	return item->want == Q3_WANT_HIDDEN_LAST || item->want == Q3_WANT_HIDDEN_SUM;
}

/* Behind the last layer's K and V only tokens of which something is wanted matter: the batch
 * shrinks to them.
 */
static void
keep_wanted(pass *p, const q3_batch_item *items, int32_t n_items)
{
	int32_t t = 0;

	p->n_spans = p->n_parts = 0;
	for (int32_t i = 0; i < n_items; i++)
	{
		t += items[i].n_tokens;
		if (items[i].want != Q3_WANT_NOTHING)
			add_spans(p, wants_all_tokens(&items[i]) ? t - items[i].n_tokens : t - 1, t);
	}
}

/* Cuts the batch into runs of one mode. */
static void
set_runs(pass *p)
{
	q3_runtime *rt = p->rt;

	p->n_runs = 0;
	for (int32_t t = 0; t < p->n_tokens; t++)
	{
		if (t == 0 || rt->tokens[t].mode != rt->tokens[t - 1].mode)
			rt->runs[p->n_runs++] = (q3_run){.first = t, .mode = rt->tokens[t].mode};
		rt->runs[p->n_runs - 1].n++;
	}
}

static void
gather_acts(q3_acts *acts, int32_t to, int32_t from)
{
	size_t cols = (size_t) acts->cols, blocks = cols / Q3_PLANE_BLOCK;
	q3_acts t = q3_acts_at(acts, to, 0), f = q3_acts_at(acts, from, 0);

	memcpy(t.q, f.q, cols);
	memcpy(t.scale, f.scale, blocks * sizeof(float));
	memcpy(t.sum, f.sum, blocks * sizeof(int32_t));
	if (acts->lo == NULL)
		return;
	memcpy(t.lo, f.lo, cols);
	memcpy(t.lo_sum, f.lo_sum, blocks * sizeof(int32_t));
}

static void
gather_wanted(pass *p)
{
	q3_runtime *rt = p->rt;
	q3_rows *attended = &rt->attended.rows;

	for (int32_t i = 0; i < p->n_wanted; i++)
	{
		int32_t from = rt->wanted[i];

		if (from == i)
			continue;
		memcpy(rt->x.row[i], rt->x.row[from], (size_t) rt->model->info.n_embd * sizeof(float));
		memcpy(attended->row[i], attended->row[from],
		       (size_t) rt->attended.acts.cols * sizeof(float));
		gather_acts(&rt->attended.acts, i, from);
		rt->tokens[i] = rt->tokens[from];
	}
	p->n_tokens = p->n_wanted;
	set_runs(p);
}

/* ---- Logits ---- */

/* Rows [first, first + n) of the batch, of one mode, that want the logits of the same tokens. */
typedef struct label_rows
{
	product q;
	q3_run run;
	const int32_t *panels; /* of the output matrix, in ascending order; panel i is slot i of y */
	int32_t n_panels;
} label_rows;

static int
compare_ints(const void *a, const void *b)
{
	int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;

	return (x > y) - (x < y);
}

/* The matrix from this panel on. */
static q3_weights
skip_panels(const q3_weights *w, int32_t n)
{
	q3_weights from = *w;
	size_t blocks = (size_t) n * (size_t) (w->file.cols / Q3_PLANE_BLOCK);

	from.file.data = (const char *) w->file.data + (size_t) n * Q3_PANEL_ROWS * w->file.row_bytes;
	from.file.rows -= n * Q3_PANEL_ROWS;
	from.planes.rows -= n * Q3_PANEL_ROWS;
	if (w->planes.hi == NULL)
		return from;
	from.planes.hi += blocks * Q3_PANEL_ROWS * 16;
	if (w->planes.lo != NULL)
		from.planes.lo += blocks * Q3_PANEL_ROWS * 16;
	if (w->planes.ext != NULL)
		from.planes.ext += blocks * Q3_PANEL_ROWS * 32;
	from.planes.scale += blocks * Q3_PANEL_ROWS;
	if (w->planes.offset != NULL)
		from.planes.offset += blocks * Q3_PANEL_ROWS;
	return from;
}

/* Slots are never ahead of panels, so that the matrix that begins so much later has the panel where
 * the slot is.
 */
static void
label_chunk(void *arg, int32_t slot, int32_t thread)
{
	const label_rows *l = arg;
	q3_runtime *rt = l->q.p->rt;
	const q3_weights w = skip_panels(l->q.w[0], l->panels[slot] - slot);
	int32_t begin = slot * Q3_PANEL_ROWS, end = begin + Q3_PANEL_ROWS;
	product q = l->q;

	q.w[0] = &w;
	multiply_run(&q, 0, &l->run, begin, end < w.file.rows ? end : w.file.rows,
	             scratch_of(rt, thread));
}

/*
 * Copies the logits that these panels gave to where they are wanted; where the rest is wanted, too,
 * only that stays in the panels.
 */
static void
hand_out(const label_rows *l)
{
	q3_runtime *rt = l->q.p->rt;
	const q3_wanted *list = &rt->lists[l->run.first];

	for (int32_t i = 0; i < list->n; i++)
	{
		int32_t panel = list->tokens[i] / Q3_PANEL_ROWS;
		const int32_t *found =
		    bsearch(&panel, l->panels, (size_t) l->n_panels, sizeof(panel), compare_ints);

		if (found == NULL)
			continue; /* of another wave */
		for (int32_t t = l->run.first; t < l->run.first + l->run.n; t++)
		{
			float *logit = &l->q.y[0][t][(found - l->panels) * Q3_PANEL_ROWS +
			                             list->tokens[i] % Q3_PANEL_ROWS];

			rt->logits[t][i] = *logit;
			if (list->rest != NULL)
				*logit = -INFINITY;
		}
	}
}

/* Adds to what the other tokens of a row weigh; the panels are consecutive ones. */
static void
others_chunk(void *arg, int32_t i, int32_t thread)
{
	const label_rows *l = arg;
	q3_runtime *rt = l->q.p->rt;
	const float *y = l->q.y[0][l->run.first + i];
	q3_mass *m = &rt->others[l->run.first + i];
	int32_t n = rt->model->info.n_vocab - l->panels[0] * Q3_PANEL_ROWS;
	float largest = m->largest;
	double sum = 0;

	(void) thread;
	n = n < l->n_panels * Q3_PANEL_ROWS ? n : l->n_panels * Q3_PANEL_ROWS;
	for (int32_t k = 0; k < n; k++)
		largest = y[k] > largest ? y[k] : largest;
	if (largest == -INFINITY)
		return;
	for (int32_t k = 0; k < n; k++)
		sum += expf(y[k] - largest);
	m->sum = m->sum * exp((double) m->largest - largest) + sum;
	m->largest = largest;
}

/* The share that a row's other tokens have. */
static void
tell_rest(q3_runtime *rt, int32_t t)
{
	const q3_wanted *list = &rt->lists[t];
	const q3_mass *m = &rt->others[t];
	float largest = m->largest;
	double sum = 0, others;

	for (int32_t i = 0; i < list->n; i++)
		largest = rt->logits[t][i] > largest ? rt->logits[t][i] : largest;
	for (int32_t i = 0; i < list->n; i++)
		sum += exp((double) rt->logits[t][i] - largest);
	others = m->sum * exp((double) m->largest - largest);
	*list->rest = others / (others + sum);
}

/* The distinct panels of a list, ascending, in rt->panels; their number. The rest needs all. */
static int32_t
list_panels(q3_runtime *rt, const q3_wanted *list)
{
	int32_t n = 0;

	if (list->rest != NULL)
	{
		for (; n * Q3_PANEL_ROWS < rt->model->info.n_vocab; n++)
			rt->panels[n] = n;
		return n;
	}
	for (int32_t i = 0; i < list->n; i++)
		rt->panels[i] = list->tokens[i] / Q3_PANEL_ROWS;
	qsort(rt->panels, (size_t) list->n, sizeof(*rt->panels), compare_ints);
	for (int32_t i = 0; i < list->n; i++)
		if (n == 0 || rt->panels[i] != rt->panels[n - 1])
			rt->panels[n++] = rt->panels[i];
	return n;
}

/* Only the panels of the output matrix that hold wanted tokens, as many at a time as rt->up has
 * room for.
 */
static bool
run_labels(pass *p, q3_run rows)
{
	q3_runtime *rt = p->rt;
	int32_t n = list_panels(rt, &rt->lists[rows.first]);
	int32_t most = rt->model->info.n_ff / Q3_PANEL_ROWS;
	bool rest = rt->lists[rows.first].rest != NULL;

	for (int32_t t = rows.first; t < rows.first + rows.n; t++)
		rt->others[t] = (q3_mass){-INFINITY, 0};
	for (int32_t i = 0; i < n; i += most)
	{
		label_rows l = {
		    .q = {.p = p, .x = &rt->h, .w = {&rt->model->output}, .y = {rt->up.row}, .n = 1},
		    .run = rows,
		    .panels = rt->panels + i,
		    .n_panels = n - i < most ? n - i : most};

		if (!run(p, label_chunk, &l, l.n_panels))
			return false;
		hand_out(&l);
		if (rest && !run(p, others_chunk, &l, rows.n))
			return false;
	}
	for (int32_t t = rows.first; rest && t < rows.first + rows.n; t++)
		tell_rest(rt, t);
	return true;
}

static bool
same_list(const q3_wanted *a, const q3_wanted *b)
{
	return a->n == b->n && (a->rest != NULL) == (b->rest != NULL) &&
	       (a->tokens == b->tokens ||
	        memcmp(a->tokens, b->tokens, (size_t) a->n * sizeof(int32_t)) == 0);
}

/* Rows from first on that go together: of one mode, all with whole rows of logits or one list. */
static q3_run
rows_from(const pass *p, int32_t first)
{
	const q3_runtime *rt = p->rt;
	q3_run rows = {.first = first, .n = 1, .mode = rt->tokens[first].mode};

	while (first + rows.n < p->n_tokens && rt->tokens[first + rows.n].mode == rows.mode &&
	       same_list(&rt->lists[first], &rt->lists[first + rows.n]))
		rows.n++;
	return rows;
}

/* Logits: of whole rows in one product, then of the rows that want some tokens only; rows that
 * want their hidden states have them already.
 */
static bool
run_output(pass *p)
{
	q3_runtime *rt = p->rt;
	q3_run rows;

	p->n_runs = 0;
	for (int32_t t = 0; t < p->n_tokens; t += rows.n)
	{
		rows = rows_from(p, t);
		if (rt->lists[t].n == 0)
			rt->runs[p->n_runs++] = rows;
	}
	if (p->n_runs > 0 &&
	    !run_product(p,
	                 (product){.x = &rt->h, .w = {&rt->model->output}, .y = {rt->logits}, .n = 1}))
		return false;
	for (int32_t t = 0; t < p->n_tokens; t += rows.n)
	{
		rows = rows_from(p, t);
		if (rt->lists[t].n > 0 && !run_labels(p, rows))
			return false;
	}
	return true;
}

static bool
run_layers(pass *p, const q3_batch_item *items, int32_t n_items)
{
	q3_runtime *rt = p->rt;
	int32_t last = rt->model->info.n_layers - 1;

	make_for(p, &rt->h, 0, Q3_TIMES_QK | Q3_TIMES_V);
	if (!run_tokens(p, begin_chunk))
		return false;
	for (p->layer = 0; p->layer < last; p->layer++)
		if (!run_layer(p) || !run_rest_of_layer(p))
			return false;
	keep_wanted(p, items, n_items);
	if (!run_layer(p))
		return false;
	gather_wanted(p);
	return p->n_wanted == 0 || (run_rest_of_layer(p) && run_output(p));
}

/* Adds the hidden states that the items want; behind everything that can be cancelled. */
static void
add_hidden(const pass *p, const q3_batch_item *items, int32_t n_items)
{
	const q3_runtime *rt = p->rt;
	int32_t n_embd = rt->model->info.n_embd, row = 0;

	for (int32_t i = 0; i < n_items; i++)
	{
		int32_t n = wants_all_tokens(&items[i]) ? items[i].n_tokens : 1;

		if (items[i].want == Q3_WANT_NOTHING)
			continue;
		for (int32_t t = row; wants_hidden(&items[i]) && t < row + n; t++)
			for (int32_t c = 0; c < n_embd; c++)
				items[i].hidden[c] += rt->h.rows.row[t][c];
		row += n;
	}
}

/* ---- The batch ---- */

static q3_code
check_tokens(const q3_runtime *rt, const int32_t *tokens, int32_t n, q3_error *err)
{
	for (int32_t i = 0; i < n; i++)
		if (tokens[i] < 0 || tokens[i] >= rt->model->info.n_vocab)
			return q3_fail(err, Q3_ERR_INVALID, "token %d is not in the vocabulary of %d",
			               tokens[i], rt->model->info.n_vocab);
	return Q3_OK;
}

static q3_code
check_item(q3_runtime *rt, const q3_batch_item *item, q3_error *err)
{
	q3_seq *seq = item->seq;

	if (seq == NULL || seq->pool != &rt->kv || seq->step == rt->step)
		return q3_fail(err, Q3_ERR_INVALID,
		               "sequence is missing, of another runtime, or twice in the batch");
	seq->step = rt->step;
	if (item->want == Q3_WANT_TOKENS &&
	    (item->n_wanted < 1 || item->n_wanted > rt->model->info.n_vocab))
		return q3_fail(err, Q3_ERR_INVALID, "batch item wants the logits of %d tokens",
		               item->n_wanted);
	if (item->n_tokens < 1 ||
	    (wants_hidden(item) ? item->hidden == NULL
	                        : item->want != Q3_WANT_NOTHING && item->logits == NULL))
		return q3_fail(err, Q3_ERR_INVALID, "batch item has no tokens or no place for results");
	if (item->n_tokens > rt->context_length - seq->length)
		return q3_fail(err, Q3_ERR_TOO_LONG, "%lld tokens exceed the context length of %d",
		               (long long) seq->length + item->n_tokens, rt->context_length);
	if (seq->length + item->n_tokens > seq->n_blocks * Q3_KV_BLOCK)
		return q3_fail(err, Q3_ERR_INVALID, "sequence has no room reserved for %d more tokens",
		               item->n_tokens);
	if (!q3_kv_writable(seq, seq->length, seq->length + item->n_tokens))
		return q3_fail(err, Q3_ERR_INTERNAL, "blocks of the sequence are shared");
	return item->want == Q3_WANT_TOKENS &&
	               check_tokens(rt, item->wanted, item->n_wanted, err) != Q3_OK
	           ? err->code
	           : check_tokens(rt, item->tokens, item->n_tokens, err);
}

static void
add_item(pass *p, const q3_batch_item *item)
{
	q3_runtime *rt = p->rt;
	int32_t first = p->n_tokens, n = item->n_tokens;

	for (int32_t i = 0; i < n; i++)
		rt->tokens[p->n_tokens++] =
		    (q3_batch_token){item->seq, item->tokens[i], item->seq->length + i, item->mode};
	add_spans(p, first, p->n_tokens);
	if (item->want == Q3_WANT_NOTHING)
		return;
	for (int32_t i = wants_all_tokens(item) ? 0 : n - 1; i < n; i++, p->n_wanted++)
	{
		rt->wanted[p->n_wanted] = first + i;
		rt->lists[p->n_wanted] = (q3_wanted){NULL, wants_hidden(item) ? -1 : 0, NULL};
		if (item->want == Q3_WANT_TOKENS)
			rt->lists[p->n_wanted] = (q3_wanted){item->wanted, item->n_wanted, item->rest};
		rt->logits[p->n_wanted] = item->logits;
		if (item->want == Q3_WANT_ALL)
			rt->logits[p->n_wanted] += (size_t) i * (size_t) rt->model->info.n_vocab;
	}
}

q3_code
q3_forward(q3_runtime *rt, const q3_batch_item *items, int32_t n_items, const atomic_bool *stop,
           q3_error *err)
{
	pass p = {.rt = rt, .stop = stop};
	int64_t n_tokens = 0;

	rt->step++;
	for (int32_t i = 0; i < n_items; i++)
	{
		q3_code code = check_item(rt, &items[i], err);

		if (code != Q3_OK)
			return code;
		n_tokens += items[i].n_tokens;
	}
	if (n_tokens < 1 || n_tokens > rt->max_batch_tokens)
		return q3_fail(err, Q3_ERR_INVALID, "batch has %lld tokens, not between 1 and %d",
		               (long long) n_tokens, rt->max_batch_tokens);
	for (int32_t i = 0; i < n_items; i++)
		add_item(&p, &items[i]);
	set_runs(&p);
	if (!run_layers(&p, items, n_items))
		return q3_fail(err, Q3_ERR_CANCELLED, "forward pass was cancelled");
	add_hidden(&p, items, n_items);
	for (int32_t i = 0; i < n_items; i++)
		items[i].seq->length += items[i].n_tokens;
	return Q3_OK;
}
