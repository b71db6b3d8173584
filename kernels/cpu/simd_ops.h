/*
 * simd_ops.h: everything but the matrix product for one instruction set (included once by each
 * vector file, after simd_matmul.h): norms, activations, rotation, and the KV cache.
 *
 * Attention visits the keys in blocks of 32 at absolute positions, with a running maximum and sum
 * per query. All a query's result depends on is its position: several queries share the loading of
 * a block, but no arithmetic, and in the block that holds a query's own position keys behind it are
 * left out one token at a time, never multiplied by zero.
 */
#include "attention_sizes.h"

/* e^x to within about one unit in the last place; 0 below -104, infinite above 89. */
INLINE V
v_exp(V x)
{
	V n, r, p;

	/* The operand order keeps NaN. */
	x = v_min(v_set1(90), v_max(v_set1(-110), x));
	n = v_round(v_mul(x, v_set1(0x1.715476p+0f)));
	r = v_fnma(n, v_set1(0x1.62e4p-1f), x); /* ln 2 in two parts, the first exact times n */
	r = v_fnma(n, v_set1(0x1.7f7d1cp-20f), r);
	p = v_set1(0x1.6a2352p-10f); /* least maximal relative error, 3e-9, on |r| <= ln(2) / 2 */
	p = v_fma(p, r, v_set1(0x1.123a6cp-7f));
	p = v_fma(p, r, v_set1(0x1.5558f4p-5f));
	p = v_fma(p, r, v_set1(0x1.55549p-3f));
	p = v_fma(p, r, v_set1(0x1.fffffcp-2f));
	p = v_fma(v_mul(p, r), r, r);
	return v_scale2(v_add(p, v_set1(1)), n);
}

static void
rms_norm(const float *x, const float *weight, int32_t n, float eps, float *out)
{
	V sum = v_zero(), scale;
	float mean;

	for (int32_t i = 0; i < n; i += VL)
	{
		V v = v_load(x + i);

		sum = v_fma(v, v, sum);
	}
	mean = v_sum(sum) / (float) n;
	scale = v_set1(1.0f / sqrtf(mean + eps));
	for (int32_t i = 0; i < n; i += VL)
		v_store(out + i, v_mul(v_mul(v_load(x + i), scale), v_load(weight + i)));
}

static void
add(float *x, const float *y, int32_t n)
{
	for (int32_t i = 0; i < n; i += VL)
		v_store(x + i, v_add(v_load(x + i), v_load(y + i)));
}

static void
swiglu(float *gate, const float *up, int32_t n)
{
	for (int32_t i = 0; i < n; i += VL)
	{
		V g = v_load(gate + i);
		V denominator = v_add(v_set1(1), v_exp(v_sub(v_zero(), g)));

		v_store(gate + i, v_mul(v_div(g, denominator), v_load(up + i)));
	}
}

static void
rope(float *x, const float *c, const float *s, int32_t dims, bool interleaved)
{
	int32_t half = dims / 2;

	if (interleaved && dims % VL == 0)
		for (int32_t i = 0; i < dims; i += VL)
		{
			V v = v_load(x + i);

			v_store(x + i, v_fma(v, v_load(c + i), v_mul(v_swap_pairs(v), v_load(s + i))));
		}
	else if (!interleaved && half % VL == 0)
		for (int32_t i = 0; i < half; i += VL)
		{
			V a = v_load(x + i), b = v_load(x + half + i);

			v_store(x + i, v_fma(a, v_load(c + i), v_mul(b, v_load(s + i))));
			v_store(x + half + i, v_fma(b, v_load(c + half + i), v_mul(a, v_load(s + half + i))));
		}
	else
		for (int32_t i = 0; i < half; i++)
		{
			int32_t j = interleaved ? 2 * i : i, k = interleaved ? j + 1 : i + half;
			float a = x[j], b = x[k];

			x[j] = a * c[j] + b * s[j];
			x[k] = b * c[k] + a * s[k];
		}
}

/* ---- KV cache ---- */

/* K of the block that holds position pos; V is behind it. */
static char *
block_of(const q3_kv_view *kv, int32_t pos)
{
	return kv->base + (size_t) kv->blocks[pos / Q3_KV_BLOCK] * kv->block_bytes + kv->offset;
}

static void
kv_store(const q3_kv_view *kv, int32_t pos, const float *k, const float *v)
{
	int32_t n = kv->head_dim, in_block = pos % Q3_KV_BLOCK;
	char *block = block_of(kv, pos);

	if (kv->f32)
	{
		float *keys = (float *) block + in_block;
		float *values = (float *) block + (size_t) (Q3_KV_BLOCK + in_block) * (size_t) n;

		for (int32_t d = 0; d < n; d++)
			keys[d * Q3_KV_BLOCK] = k[d];
		memcpy(values, v, (size_t) n * sizeof(float));
	}
	else
	{
		uint16_t *keys = (uint16_t *) block + in_block;
		uint16_t *values = (uint16_t *) block + (size_t) (Q3_KV_BLOCK + in_block) * (size_t) n;

		for (int32_t d = 0; d < n; d += VL)
		{
			uint16_t halves[VL];

			v_store_half(halves, v_load(k + d));
			v_store_half(values + d, v_load(v + d));
			for (int32_t i = 0; i < VL; i++)
				keys[(d + i) * Q3_KV_BLOCK] = halves[i];
		}
	}
}

/* ---- Attention ---- */

#define KEY_VECTORS (Q3_KV_BLOCK / VL)

/* VL elements at index i of a block, stored as F32 or (a constant) F16. */
INLINE V
load_element(const void *block, size_t i, const bool f32)
{
	return f32 ? v_load((const float *) block + i) : v_load_half((const uint16_t *) block + i);
}

/* scores[query][32] = q[query][head_dim] . keys[head_dim][32], for n queries (a constant). */
INLINE void
scores_tile(const void *keys, const bool f32, int32_t head_dim, const float *q, const int n,
            float *scores)
{
	V acc[SCORE_TILE][KEY_VECTORS];

	foreach (i, n)
		foreach (j, KEY_VECTORS)
			acc[i][j] = v_zero();
	for (int32_t d = 0; d < head_dim; d++)
	{
		V key[KEY_VECTORS];

		foreach (j, KEY_VECTORS)
			key[j] = load_element(keys, (size_t) d * Q3_KV_BLOCK + (size_t) (j * VL), f32);
		foreach (i, n)
		{
			V qv = v_set1(q[i * head_dim + d]);

			foreach (j, KEY_VECTORS)
				acc[i][j] = v_fma(qv, key[j], acc[i][j]);
		}
	}
	foreach (i, n)
		foreach (j, KEY_VECTORS)
			v_store(scores + i * Q3_KV_BLOCK + j * VL, acc[i][j]);
}

/* Queries i, i + n, ... while n are left; returns the first one that has not been done. */
INLINE int32_t
scores_of(const void *keys, const bool f32, int32_t head_dim, const float *q, int32_t i,
          int32_t n_queries, const int n, float *scores)
{
	for (; n <= SCORE_TILE && n_queries - i >= n; i += n)
		scores_tile(keys, f32, head_dim, q + i * head_dim, n, scores + i * Q3_KV_BLOCK);
	return i;
}

INLINE void
block_scores(const void *keys, const bool f32, int32_t head_dim, const float *q, int32_t n,
             float *scores)
{
	int32_t i = scores_of(keys, f32, head_dim, q, 0, n, SCORE_TILE, scores);

	i = scores_of(keys, f32, head_dim, q, i, n, 6, scores);
	i = scores_of(keys, f32, head_dim, q, i, n, 3, scores);
	i = scores_of(keys, f32, head_dim, q, i, n, 2, scores);
	scores_of(keys, f32, head_dim, q, i, n, 1, scores);
}

/* acc[query][width vectors] += weights[query][n_keys] * values[n_keys][head_dim]; n, width const.
 */
INLINE void
values_tile(const void *values, const bool f32, int32_t head_dim, int32_t n_keys,
            const float *weights, const int n, const int width, float *acc)
{
	V sum[VALUE_TILE][VALUE_WIDTH];

	foreach (i, n)
		foreach (j, width)
			sum[i][j] = v_load(acc + i * head_dim + j * VL);
	for (int32_t t = 0; t < n_keys; t++)
	{
		V value[VALUE_WIDTH];

		foreach (j, width)
			value[j] =
			    load_element(values, (size_t) t * (size_t) head_dim + (size_t) (j * VL), f32);
		foreach (i, n)
		{
			V weight = v_set1(weights[i * Q3_KV_BLOCK + t]);

			foreach (j, width)
				sum[i][j] = v_fma(weight, value[j], sum[i][j]);
		}
	}
	foreach (i, n)
		foreach (j, width)
			v_store(acc + i * head_dim + j * VL, sum[i][j]);
}

/* All of head_dim for n queries (a constant). */
INLINE void
values_row(const void *values, const bool f32, int32_t head_dim, int32_t n_keys,
           const float *weights, const int n, float *acc)
{
	const size_t element = f32 ? sizeof(float) : sizeof(uint16_t);
	int32_t d = 0;

	for (; head_dim - d >= VALUE_WIDTH * VL; d += VALUE_WIDTH * VL)
		values_tile((const char *) values + (size_t) d * element, f32, head_dim, n_keys, weights, n,
		            VALUE_WIDTH, acc + d);
	for (; d < head_dim; d += VL)
		values_tile((const char *) values + (size_t) d * element, f32, head_dim, n_keys, weights, n,
		            1, acc + d);
}

INLINE int32_t
values_of(const void *values, const bool f32, int32_t head_dim, int32_t n_keys,
          const float *weights, int32_t i, int32_t n_queries, const int n, float *acc)
{
	for (; n <= VALUE_TILE && n_queries - i >= n; i += n)
		values_row(values, f32, head_dim, n_keys, weights + i * Q3_KV_BLOCK, n, acc + i * head_dim);
	return i;
}

INLINE void
block_values(const void *values, const bool f32, int32_t head_dim, int32_t n_keys,
             const float *weights, int32_t n, float *acc)
{
	int32_t i = values_of(values, f32, head_dim, n_keys, weights, 0, n, VALUE_TILE, acc);

	i = values_of(values, f32, head_dim, n_keys, weights, i, n, 3, acc);
	i = values_of(values, f32, head_dim, n_keys, weights, i, n, 2, acc);
	values_of(values, f32, head_dim, n_keys, weights, i, n, 1, acc);
}

/* Turns the scores of one query into weights and rescales what has been summed before. */
static void
softmax_step(float *scores, int32_t n_keys, float *maximum, float *sums, float *acc,
             int32_t head_dim)
{
	V block_max, weight_sum = v_load(sums);
	float new_max;

	for (int32_t i = n_keys; i < Q3_KV_BLOCK; i++)
		scores[i] = -INFINITY;
	block_max = v_load(scores);
	for (int32_t i = VL; i < Q3_KV_BLOCK; i += VL)
		block_max = v_max(block_max, v_load(scores + i));
	new_max = v_max_lanes(block_max);
	if (new_max > *maximum)
	{
		V rescale = v_exp(v_set1(*maximum - new_max));

		for (int32_t d = 0; d < head_dim; d += VL)
			v_store(acc + d, v_mul(v_load(acc + d), rescale));
		weight_sum = v_mul(weight_sum, rescale);
		*maximum = new_max;
	}
	for (int32_t i = 0; i < Q3_KV_BLOCK; i += VL)
	{
		V weight = v_exp(v_sub(v_load(scores + i), v_set1(*maximum)));

		v_store(scores + i, weight);
		weight_sum = v_add(weight_sum, weight);
	}
	v_store(sums, weight_sum);
}

/* F16 to F32: exact, so that it changes no result, and worth it when several queries follow. */
static void
widen_block(const void *block, int32_t n, float *out)
{
	for (int32_t i = 0; i < n; i += VL)
		v_store(out + i, v_load_half((const uint16_t *) block + i));
}

/* Adds the first n_keys values of a block, by their weights, to n queries from the i-th on. */
static void
weigh_values(attention_state *a, const char *values, bool f32, int32_t n_keys, int32_t i, int32_t n)
{
	const float *weights = a->scores + i * Q3_KV_BLOCK;
	float *acc = a->acc + i * a->head_dim;

	if (f32)
		block_values(values, true, a->head_dim, n_keys, weights, n, acc);
	else
		block_values(values, false, a->head_dim, n_keys, weights, n, acc);
}

/* One block of keys for the queries of tokens first ... n_tokens - 1. */
static void
attend_block(attention_state *a, const char *block, bool f32, int32_t key, int32_t pos,
             int32_t first, int32_t n_tokens, int32_t group)
{
	int32_t n = a->head_dim, begin = first * group, end = n_tokens * group;
	const char *values = block + (size_t) (n * Q3_KV_BLOCK) * (f32 ? 4 : 2);
	/* Tokens before this one stand inside the block and do not see all of it. */
	int32_t whole = key + Q3_KV_BLOCK - 1 - pos;

	whole = whole < first ? first : whole > n_tokens ? n_tokens : whole;
	if (f32)
		block_scores(block, true, n, a->q + begin * n, end - begin,
		             a->scores + begin * Q3_KV_BLOCK);
	else
		block_scores(block, false, n, a->q + begin * n, end - begin,
		             a->scores + begin * Q3_KV_BLOCK);
	for (int32_t i = begin; i < end; i++)
	{
		int32_t seen = pos + i / group - key + 1;

		softmax_step(a->scores + i * Q3_KV_BLOCK, seen < Q3_KV_BLOCK ? seen : Q3_KV_BLOCK,
		             a->maximum + i, a->sums + i * MAX_VL, a->acc + i * n, n);
	}
	for (int32_t t = first; t < whole; t++)
		weigh_values(a, values, f32, pos + t - key + 1, t * group, group);
	if (whole < n_tokens)
		weigh_values(a, values, f32, Q3_KV_BLOCK, whole * group, (n_tokens - whole) * group);
}

/* To the second cache: blocks are not neighbours, so the machine cannot foresee the next one. */
static void
prefetch_block(const q3_kv_view *kv, int32_t pos)
{
	const char *block = block_of(kv, pos);
	size_t bytes = (size_t) kv->head_dim * Q3_KV_BLOCK * 2 * (kv->f32 ? 4 : 2);

	for (size_t i = 0; i < bytes; i += 64)
		__builtin_prefetch(block + i, 0, 2);
}

/* The same for queries from another one on. */
static attention_state
attention_state_from(const attention_state *a, int32_t query)
{
	attention_state out = *a;

	out.q += query * a->head_dim;
	out.acc += query * a->head_dim;
	out.scores += query * Q3_KV_BLOCK;
	out.maximum += query;
	out.sums += query * MAX_VL;
	return out;
}

/* Scales n queries and begins their sums. */
static void
begin_queries(attention_state *a, int32_t n_queries, int32_t group, const float *q, size_t ldq)
{
	int32_t n = a->head_dim;
	V scale = v_set1(1.0f / sqrtf((float) n));

	for (int32_t i = 0; i < n_queries; i++)
	{
		const float *from = q + (size_t) (i / group) * ldq + (size_t) (i % group * n);

		for (int32_t d = 0; d < n; d += VL)
		{
			v_store(a->q + i * n + d, v_mul(v_load(from + d), scale));
			v_store(a->acc + i * n + d, v_zero());
		}
		a->maximum[i] = -INFINITY;
		v_store(a->sums + i * MAX_VL, v_zero());
	}
}

/* The keys from position key to end, for n_tokens that begin at position pos. */
static void
attend_keys(attention_state *a, const q3_kv_view *kv, int32_t key, int32_t end, int32_t pos,
            int32_t n_tokens, int32_t group)
{
	int32_t n = kv->head_dim;
	bool widen = !kv->f32 && n_tokens * group >= WIDEN_QUERIES;

	for (; key < end; key += Q3_KV_BLOCK)
	{
		const char *block = block_of(kv, key);

		if (widen)
		{
			widen_block(block, 2 * n * Q3_KV_BLOCK, a->widened);
			block = (const char *) a->widened;
		}
		else if (key + Q3_KV_BLOCK < end)
			prefetch_block(kv, key + Q3_KV_BLOCK);
		attend_block(a, block, widen || kv->f32, key, pos, key > pos ? key - pos : 0, n_tokens,
		             group);
	}
}

static void
end_queries(const attention_state *a, int32_t n_queries, int32_t group, float *out, size_t ldo)
{
	int32_t n = a->head_dim;

	for (int32_t i = 0; i < n_queries; i++)
	{
		float *to = out + (size_t) (i / group) * ldo + (size_t) (i % group * n);
		V total = v_set1(v_sum(v_load(a->sums + i * MAX_VL)));

		for (int32_t d = 0; d < n; d += VL)
			v_store(to + d, v_div(v_load(a->acc + i * n + d), total));
	}
}

static void
attention(const q3_kv_view *kv, const q3_attention_part *parts, int32_t n_parts, int32_t n_shared,
          int32_t group, const float *q, size_t ldq, float *out, size_t ldo, void *scratch)
{
	attention_state all = attention_state_in(scratch, kv->head_dim);
	q3_kv_view view = *kv;
	int32_t n_tokens = 0, shared = n_shared * Q3_KV_BLOCK;

	for (int32_t p = 0; p < n_parts; p++)
		n_tokens += parts[p].n_tokens;
	begin_queries(&all, n_tokens * group, group, q, ldq);
	view.blocks = parts[0].blocks;
	/* Whatever the positions are, all of these keys are before them. */
	attend_keys(&all, &view, 0, shared, shared, n_tokens, group);
	for (int32_t p = 0, t = 0; p < n_parts; t += parts[p++].n_tokens)
	{
		attention_state a = attention_state_from(&all, t * group);

		view.blocks = parts[p].blocks;
		attend_keys(&a, &view, shared, parts[p].pos + parts[p].n_tokens, parts[p].pos,
		            parts[p].n_tokens, group);
	}
	end_queries(&all, n_tokens * group, group, out, ldo);
}

#define SIMD_KERNELS(NAME, MATMUL_INT8)                                                            \
	{                                                                                              \
		.name = NAME, .dequantize = dequantize, .matmul = matmul, .quantize = quantize,            \
		.matmul_int8 = MATMUL_INT8, .matmul_planes = matmul_planes, .rms_norm = rms_norm,          \
		.add = add, .swiglu = swiglu, .rope = rope, .kv_store = kv_store, .attention = attention   \
	}
