/*
 * model_internal.h: what a q3_model and a q3_runtime are made of. For model.c, bind.c, image.c,
 * runtime.c and forward.c only.
 */
#ifndef Q3_MODEL_INTERNAL_H
#define Q3_MODEL_INTERNAL_H

#include "model/kv_cache.h"
#include "model/model.h"
#include "model/threads.h"
#include "planes.h"

/* A matrix as it lies in the mapped file, and as it lies in the image (hi NULL: it is not there).
 */
typedef struct q3_weights
{
	q3_matrix file;
	q3_planes planes;
} q3_weights;

/* Vectors are F32 copies owned by the model, NULL where absent. */
typedef struct q3_layer
{
	const float *attn_norm, *ffn_norm; /* [n_embd] */
	const float *q_norm, *k_norm;      /* [head_dim] */
	const float *q_bias;               /* [n_heads * head_dim] */
	const float *k_bias, *v_bias;      /* [n_kv_heads * head_dim] */
	q3_weights q, k, v, attn_output;
	q3_weights gate, up, down;
} q3_layer;

struct q3_model
{
	q3_gguf *gguf;
	q3_tokenizer *tokenizer;
	q3_model_info info;
	char *name; /* info.name */

	float rms_eps;
	double rope_theta;
	double rope_factor; /* positions are divided by it */
	int32_t rope_dims;
	bool rope_interleaved;

	q3_matrix embedding; /* [n_vocab][n_embd]; rows are looked up in the file */
	q3_weights output;   /* the same shape; of a tied model the same matrix */
	const float *output_norm;
	q3_layer *layers;
	float *vectors; /* where all the vectors are */
	size_t n_vectors, max_vectors;

	void *image; /* mapped; NULL: not packed, or nothing to pack */
	q3_image_info image_info;
};

/* Reads the hyper-parameters from m->gguf and checks them. err is not NULL. */
extern q3_code q3_model_read_numbers(q3_model *m, q3_error *err);
/* Then, with m->tokenizer there, finds the tensors. err is not NULL. */
extern q3_code q3_model_bind(q3_model *m, q3_error *err);

/* A buffer of one vector per token of a batch. */
typedef struct q3_rows
{
	float *data;
	size_t stride; /* in floats, from token to token */
	float **row;   /* [max_batch_tokens]: the address of each, as matmul() wants it */
} q3_rows;

/* A token of the current batch. */
typedef struct q3_batch_token
{
	const q3_seq *seq;
	int32_t id, pos;
	q3_mode mode;
} q3_batch_token;

/*
 * Consecutive tokens that attend together, for every K/V head: of one sequence, or of several that
 * begin with the same blocks.
 */
typedef struct q3_span
{
	int32_t first, n;            /* in the batch */
	int32_t first_part, n_parts; /* in parts[] */
	int32_t n_shared;            /* blocks */
} q3_span;

/* Consecutive tokens of one mode. */
typedef struct q3_run
{
	int32_t first, n; /* in the batch */
	q3_mode mode;
} q3_run;

/* The tokens whose logits a row of the batch wants; n 0: all, -1: none. */
typedef struct q3_wanted
{
	const int32_t *tokens;
	int32_t n;
	double *rest; /* where the probability of all other tokens goes; NULL: it is not wanted */
} q3_wanted;

/* exp(logit - largest), added up over some logits; without any largest is minus infinity. */
typedef struct q3_mass
{
	float largest;
	double sum;
} q3_mass;

/*
 * A buffer of vectors, and the same in 8 or 16 bits for the tokens of mode efficient. acts.lo is lo
 * or NULL, as the products want it that the vectors are for.
 */
typedef struct q3_input
{
	q3_rows rows;
	q3_acts acts;
	int8_t *lo;
} q3_input;

/* The products, as bits of a set. */
typedef enum q3_product
{
	Q3_TIMES_QK = 1,
	Q3_TIMES_V = 2,
	Q3_TIMES_ATTENTION_OUTPUT = 4,
	Q3_TIMES_GATE_UP = 8,
	Q3_TIMES_DOWN = 16,
	Q3_TIMES_HEAD = 32 /* in a layer behind the last */
} q3_product;

struct q3_runtime
{
	const q3_model *model;
	const q3_kernels *kernels;
	q3_threads *threads;
	q3_kv_pool kv;
	int32_t context_length, max_batch_tokens;
	int efficient_bits;
	bool exact_weights;
	uint8_t *two_planes; /* [n_layers + 1]: the products with activations of 16 bits */
	char precision[192]; /* in words */
	uint64_t step;       /* number of forward passes */

	void *memory; /* one mapping that holds all that follows */
	size_t memory_bytes;
	q3_rows x;         /* the residual stream */
	q3_input h;        /* input, then output, of a half of a layer */
	q3_rows q, k, v;   /* [heads][head_dim] */
	q3_input attended; /* [heads][head_dim] */
	q3_input gate;
	q3_rows up;
	q3_rows rope_cos, rope_sin;
	q3_batch_token *tokens;
	q3_span *spans;
	q3_attention_part *parts; /* of the spans */
	q3_run *runs;
	int32_t *wanted;  /* batch index of each token of which logits or hidden state are wanted */
	float **logits;   /* where they go */
	q3_wanted *lists; /* which of them */
	q3_mass *others;  /* of the rows that want rest */
	int32_t *panels;  /* [n_vocab]: room for the panels of the output matrix that a list needs */
	double *rope_frequency;
	char *scratch; /* [threads][scratch_stride] */
	size_t scratch_stride;
};

#endif
