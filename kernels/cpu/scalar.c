/*
 * scalar.c: the kernels in plain C, for every machine: the meaning of each operation, the twin that
 * the vector files are tested against, and what runs where there is nothing better.
 *
 * Sums run in 16 lanes (index modulo 16) that are added in a tree at the end, so that compilers can
 * use whatever vectors the machine has without changing a bit.
 */
#include "cpu.h"

#include <math.h>
#include <string.h>

#include "attention_sizes.h"
#include "blocks.h"
#include "matmul_sizes.h"
#include "vec.h"

#define LANES 16

/* ---- Dequantisation: one block each ---- */

static void
q4_0_block(const uint8_t *w, float *out)
{
	const block_q4_0 *b = (const block_q4_0 *) w;
	float d = half_to_float(load_u16(b->d));

	for (int i = 0; i < 16; i++)
	{
		out[i] = d * (float) ((b->qs[i] & 15) - 8);
		out[i + 16] = d * (float) ((b->qs[i] >> 4) - 8);
	}
}

static void
q4_1_block(const uint8_t *w, float *out)
{
	const block_q4_1 *b = (const block_q4_1 *) w;
	float d = half_to_float(load_u16(b->dm)), m = half_to_float(load_u16(b->dm + 2));

	for (int i = 0; i < 16; i++)
	{
		out[i] = d * (float) (b->qs[i] & 15) + m;
		out[i + 16] = d * (float) (b->qs[i] >> 4) + m;
	}
}

/* Weight i of a block with fifth bits. */
static int
five_bits(const uint8_t *qs, uint32_t high, int i)
{
	return (i < 16 ? qs[i] & 15 : qs[i - 16] >> 4) | (int) (high >> i & 1) << 4;
}

static void
q5_0_block(const uint8_t *w, float *out)
{
	const block_q5_0 *b = (const block_q5_0 *) w;
	float d = half_to_float(load_u16(b->d));
	uint32_t high = load_u32(b->qh);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float) (five_bits(b->qs, high, i) - 16);
}

static void
q5_1_block(const uint8_t *w, float *out)
{
	const block_q5_1 *b = (const block_q5_1 *) w;
	float d = half_to_float(load_u16(b->dm)), m = half_to_float(load_u16(b->dm + 2));
	uint32_t high = load_u32(b->qh);

	for (int i = 0; i < 32; i++)
		out[i] = d * (float) five_bits(b->qs, high, i) + m;
}

static void
q8_0_block(const uint8_t *w, float *out)
{
	const block_q8_0 *b = (const block_q8_0 *) w;
	float d = half_to_float(load_u16(b->d));

	for (int i = 0; i < 32; i++)
		out[i] = d * (float) b->qs[i];
}

/* Q4_K, and Q5_K where high is not NULL. */
static void
k_block(const uint8_t *dm, const uint8_t *scales, const uint8_t *high, const uint8_t *qs,
        float *out)
{
	float d = half_to_float(load_u16(dm)), dmin = half_to_float(load_u16(dm + 2));
	uint64_t scale, minimum;

	unpack_scales(scales, &scale, &minimum);
	for (int g = 0; g < 8; g++)
	{
		float group_d = d * (float) (scale >> 8 * g & 63);
		float group_m = dmin * (float) (minimum >> 8 * g & 63);

		for (int i = 0; i < 32; i++)
		{
			int q = qs[g / 2 * 32 + i] >> (g % 2 * 4) & 15;

			if (high != NULL)
				q |= (high[i] >> g & 1) << 4;
			out[g * 32 + i] = group_d * (float) q - group_m;
		}
	}
}

static void
q4_k_block(const uint8_t *w, float *out)
{
	const block_q4_k *b = (const block_q4_k *) w;

	k_block(b->dm, b->scales, NULL, b->qs, out);
}

static void
q5_k_block(const uint8_t *w, float *out)
{
	const block_q5_k *b = (const block_q5_k *) w;

	k_block(b->dm, b->scales, b->qh, b->qs, out);
}

static void
q6_k_block(const uint8_t *w, float *out)
{
	const block_q6_k *b = (const block_q6_k *) w;
	float d = half_to_float(load_u16(b->d));

	for (int i = 0; i < 256; i++)
	{
		int half = i / 128, group = i / 32 % 4, l = i % 32;
		int low = b->ql[half * 64 + group % 2 * 32 + l] >> (group / 2 * 4) & 15;
		int high = b->qh[half * 32 + l] >> (group * 2) & 3;

		out[i] = d * (float) b->scales[i / 16] * (float) ((low | high << 4) - 32);
	}
}

static void
f32_block(const uint8_t *w, float *out)
{
	memcpy(out, w, sizeof(float));
}

static void
f16_block(const uint8_t *w, float *out)
{
	*out = half_to_float(load_u16(w));
}

static void
bf16_block(const uint8_t *w, float *out)
{
	*out = bf16_to_float(load_u16(w));
}

static void
dequantize(q3_dtype type, const void *row, int32_t n, float *out)
{
	static void (*const blocks[])(const uint8_t *w, float *out) = {
	    [Q3_F32] = f32_block,   [Q3_F16] = f16_block,   [Q3_BF16] = bf16_block,
	    [Q3_Q4_0] = q4_0_block, [Q3_Q4_1] = q4_1_block, [Q3_Q5_0] = q5_0_block,
	    [Q3_Q5_1] = q5_1_block, [Q3_Q8_0] = q8_0_block, [Q3_Q4_K] = q4_k_block,
	    [Q3_Q5_K] = q5_k_block, [Q3_Q6_K] = q6_k_block,
	};
	size_t block = q3_dtype_block(type), bytes = q3_dtype_block_bytes(type);
	const uint8_t *w = row;

	for (int32_t i = 0; i < n; i += (int32_t) block, w += bytes)
		blocks[type](w, out + i);
}

/* ---- Matrix product ---- */

static float
sum_lanes(float lanes[LANES])
{
	for (int width = LANES / 2; width > 0; width /= 2)
		for (int i = 0; i < width; i++)
			lanes[i] += lanes[i + width];
	return lanes[0];
}

/* Four lanes: the vector that almost every machine has; compilers emulate it elsewhere. */
typedef float four __attribute__((vector_size(16)));

static void
multiply_add(const float *w, const float *x, int32_t n, float *lanes)
{
	four acc[LANES / 4], a, b;

	memcpy(acc, lanes, sizeof(acc));
	for (int32_t k = 0; k < n; k += LANES)
		foreach (i, LANES / 4)
		{
			memcpy(&a, w + k + 4 * i, sizeof(a));
			memcpy(&b, x + k + 4 * i, sizeof(b));
			acc[i] += a * b;
		}
	memcpy(lanes, acc, sizeof(acc));
}

/* One row with at most BLOCK_TOKENS tokens, a slice of columns at a time. */
static void
matmul_row(const q3_matrix *w, int32_t r, const float *x, size_t ldx, int32_t n_tokens,
           float *const *y, float *scratch)
{
	const char *row = (const char *) w->data + (size_t) r * w->row_bytes;
	float *slice = scratch, *lanes = scratch + SLICE;

	memset(lanes, 0, (size_t) n_tokens * LANES * sizeof(float));
	for (int32_t col = 0; col < w->cols; col += SLICE)
	{
		int32_t n = w->cols - col < SLICE ? w->cols - col : SLICE;

		dequantize(w->type, row + q3_dtype_row_bytes(w->type, (uint64_t) col), n, slice);
		for (int32_t t = 0; t < n_tokens; t++)
			multiply_add(slice, x + (size_t) t * ldx + col, n, lanes + t * LANES);
	}
	for (int32_t t = 0; t < n_tokens; t++)
		y[t][r] = sum_lanes(lanes + t * LANES);
}

static void
matmul(const q3_matrix *w, int32_t row_begin, int32_t row_end, const float *x, size_t ldx,
       int32_t n_tokens, float *const *y, void *scratch)
{
	for (int32_t r = row_begin; r < row_end; r++)
		for (int32_t t = 0; t < n_tokens; t += BLOCK_TOKENS)
			matmul_row(w, r, x + (size_t) t * ldx, ldx,
			           n_tokens - t < BLOCK_TOKENS ? n_tokens - t : BLOCK_TOKENS, y + t, scratch);
}

/* ---- Everything else ---- */

static void
rms_norm(const float *x, const float *weight, int32_t n, float eps, float *out)
{
	float lanes[LANES] = {0}, scale;

	multiply_add(x, x, n, lanes);
	scale = 1.0f / sqrtf(sum_lanes(lanes) / (float) n + eps);
	for (int32_t i = 0; i < n; i++)
		out[i] = x[i] * scale * weight[i];
}

static void
add(float *x, const float *y, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		x[i] += y[i];
}

static void
swiglu(float *gate, const float *up, int32_t n)
{
	for (int32_t i = 0; i < n; i++)
		gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void
rope(float *x, const float *c, const float *s, int32_t dims, bool interleaved)
{
	for (int32_t i = 0; i < dims / 2; i++)
	{
		int32_t j = interleaved ? 2 * i : i, k = interleaved ? 2 * i + 1 : i + dims / 2;
		float a = x[j], b = x[k];

		x[j] = a * c[j] + b * s[j];
		x[k] = b * c[k] + a * s[k];
	}
}

static void
kv_store(const q3_kv_view *kv, int32_t pos, const float *k, const float *v)
{
	int32_t n = kv->head_dim, t = pos % Q3_KV_BLOCK;
	char *block = kv->base + (size_t) kv->blocks[pos / Q3_KV_BLOCK] * kv->block_bytes + kv->offset;

	for (int32_t d = 0; d < n; d++)
	{
		int32_t key = d * Q3_KV_BLOCK + t, value = (Q3_KV_BLOCK + t) * n + d;

		if (kv->f32)
		{
			((float *) block)[key] = k[d];
			((float *) block)[value] = v[d];
		}
		else
		{
			((uint16_t *) block)[key] = float_to_half(k[d]);
			((uint16_t *) block)[value] = float_to_half(v[d]);
		}
	}
}

static float
element(const char *block, int32_t i, bool f32)
{
	return f32 ? ((const float *) block)[i] : half_to_float(((const uint16_t *) block)[i]);
}

/* One query and the first n_keys keys of one block; maximum, sum and acc carry on between blocks.
 */
static void
attend_block(const char *block, bool f32, int32_t n, int32_t n_keys, const float *q, float scale,
             float *maximum, float *sum, float *acc)
{
	float scores[Q3_KV_BLOCK], new_max = *maximum, rescale;

	for (int32_t t = 0; t < n_keys; t++)
	{
		float score = 0;

		for (int32_t d = 0; d < n; d++)
			score += q[d] * scale * element(block, d * Q3_KV_BLOCK + t, f32);
		scores[t] = score;
		new_max = score > new_max ? score : new_max;
	}
	rescale = expf(*maximum - new_max);
	*maximum = new_max;
	*sum *= rescale;
	for (int32_t d = 0; d < n; d++)
		acc[d] *= rescale;
	for (int32_t t = 0; t < n_keys; t++)
	{
		float weight = expf(scores[t] - new_max);

		*sum += weight;
		for (int32_t d = 0; d < n; d++)
			acc[d] += weight * element(block, (Q3_KV_BLOCK + t) * n + d, f32);
	}
}

static void
attend(const q3_kv_view *kv, int32_t n_keys, const float *q, float *out)
{
	int32_t n = kv->head_dim;
	float scale = 1.0f / sqrtf((float) n), maximum = -INFINITY, sum = 0;

	memset(out, 0, (size_t) n * sizeof(float));
	for (int32_t key = 0; key < n_keys; key += Q3_KV_BLOCK)
		attend_block(kv->base + (size_t) kv->blocks[key / Q3_KV_BLOCK] * kv->block_bytes +
		                 kv->offset,
		             kv->f32, n, n_keys - key < Q3_KV_BLOCK ? n_keys - key : Q3_KV_BLOCK, q, scale,
		             &maximum, &sum, out);
	for (int32_t d = 0; d < n; d++)
		out[d] /= sum;
}

/* There is nothing to win here by reading shared blocks once. */
static void
attention(const q3_kv_view *kv, const q3_attention_part *parts, int32_t n_parts, int32_t n_shared,
          int32_t group, const float *q, size_t ldq, float *out, size_t ldo, void *scratch)
{
	q3_kv_view view = *kv;

	(void) n_shared;
	(void) scratch;
	for (int32_t p = 0; p < n_parts; p++)
	{
		view.blocks = parts[p].blocks;
		for (int32_t t = 0; t < parts[p].n_tokens; t++, q += ldq, out += ldo)
			for (int32_t i = 0; i < group; i++)
				attend(&view, parts[p].pos + t + 1, q + (size_t) i * (size_t) kv->head_dim,
				       out + (size_t) i * (size_t) kv->head_dim);
	}
}

const q3_kernels q3_kernels_scalar = {
    .name = "scalar",
    .dequantize = dequantize,
    .matmul = matmul,
    .quantize = q3_scalar_quantize,
    .matmul_int8 = q3_scalar_matmul_int8,
    .matmul_planes = q3_scalar_matmul_planes,
    .rms_norm = rms_norm,
    .add = add,
    .swiglu = swiglu,
    .rope = rope,
    .kv_store = kv_store,
    .attention = attention,
};
