/*
 * model.h: a model bound from a GGUF file, and the forward pass over many sequences at once.
 *
 * q3_model: weights and tokenizer; immutable after loading and packing, shared by all threads.
 * q3_runtime: thread pool, scratch memory and the pool of KV blocks for one model; driven by one
 *   thread at a time (the compute thread). Creating and freeing sequences belongs to that thread
 * too. q3_seq: the KV cache of one sequence, a list of blocks taken from the runtime's pool.
 */
#ifndef Q3_MODEL_H
#define Q3_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels.h"
#include "model/error.h"
#include "model/gguf.h"
#include "model/tokenizer.h"

typedef enum q3_mode
{
	Q3_PRECISE = 0,
	Q3_EFFICIENT
} q3_mode;

typedef struct q3_model q3_model;
typedef struct q3_runtime q3_runtime;
typedef struct q3_seq q3_seq;

/* What the file says the model is. Strings belong to the model. */
typedef struct q3_model_info
{
	const char *architecture; /* "qwen3", "qwen2", "llama" */
	const char *name;         /* general.name, or "" */
	const char *weight_type;  /* type of most of the weights by bytes: "Q8_0" */
	int32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab;
	int32_t context_length; /* that the model was trained for */
	bool tied;              /* output matrix = embedding */
	uint64_t n_params;      /* number of weights */
	uint64_t weight_bytes;  /* of all tensors */
	uint64_t file_bytes;
	char digest[65]; /* SHA-256 of the file, lower-case hex */
} q3_model_info;

/* done and total in bytes; called from the loading thread now and then; may be NULL. */
typedef void (*q3_progress)(void *arg, uint64_t done, uint64_t total);

typedef struct q3_load_options
{
	/*
	 * SHA-256 computed earlier for this very file, or NULL. With it the file is not read through,
	 * so that a restart after a crash is quick; without it loading reads and hashes the whole file.
	 */
	const char *known_digest;
	bool skip_digest; /* leave info.digest empty (tools that do not need it) */
	q3_progress progress;
	void *progress_arg;
} q3_load_options;

/* options may be NULL. NULL and err on failure. */
extern q3_model *q3_model_load(const char *path, const q3_load_options *options, q3_error *err);
extern void q3_model_free(q3_model *m);
extern const q3_model_info *q3_model_get_info(const q3_model *m);
extern const q3_tokenizer *q3_model_tokenizer(const q3_model *m);
extern const q3_gguf *q3_model_gguf(const q3_model *m);

typedef enum q3_image_source
{
	Q3_IMAGE_NONE = 0, /* not packed, or no matrix of a type that is */
	Q3_IMAGE_BUILT,
	Q3_IMAGE_KEPT,  /* by whoever gave the descriptor */
	Q3_IMAGE_CACHED /* read from the cache on disk */
} q3_image_source;

typedef struct q3_image_info
{
	q3_image_source source;
	uint64_t bytes;
	int fd;            /* of the image; the model's. Another process can map what it is sent */
	char problem[256]; /* why a kept or cached image could not be used or written; "": none */
} q3_image_info;

typedef struct q3_pack_options
{
	int fd;                /* of an image kept from before, the model's from here on; 0: none */
	const char *cache_dir; /* folder of images on disk; NULL or "": none */
	int32_t threads;       /* 0: all cores */
	q3_progress progress;
	void *progress_arg;
} q3_pack_options;

/*
 * Packs the matrices for both modes (kernels/planes.h), or finds them packed already. Without it
 * both modes compute with the file's own blocks. Once, after loading, before a runtime is created;
 * options may be NULL. A kept or cached image is used only when the model's digest is known and its
 * header, table and size are those that this model's image has; the planes are not read for that.
 */
extern q3_code q3_model_pack(q3_model *m, const q3_pack_options *options, q3_error *err);
extern const q3_image_info *q3_model_image(const q3_model *m);

typedef struct q3_runtime_options
{
	int32_t threads;          /* compute threads including the caller; 0: all cores */
	int32_t context_length;   /* longest sequence; 0 or too long: what the model is trained for */
	int32_t max_batch_tokens; /* most tokens in one forward pass; 0: 512 */
	uint64_t kv_bytes;        /* size of the KV pool; 0: room for one sequence of context_length */
	bool kv_f32;              /* keep K and V as F32 instead of F16 */
	int32_t efficient_bits;   /* of the packed weights that mode efficient reads: 8 (or 0), 4 */
	bool exact_weights;       /* mode precise reads the file's weights, not the packed ones */
	bool no_prefix_cache;
} q3_runtime_options;

typedef struct q3_runtime_info
{
	const char *isa;       /* "avx512" */
	const char *precision; /* what the modes read, in words; the runtime's */
	int32_t threads;
	int32_t context_length;
	int32_t max_batch_tokens;
	uint64_t kv_bytes;      /* of the pool */
	uint64_t scratch_bytes; /* of everything else the runtime allocated */
	int32_t kv_block_tokens;
	int32_t kv_blocks;
	int32_t kv_blocks_free; /* the idle ones of the prefix cache, too */
	bool prefix_cache;
	int32_t prefix_blocks, pinned_blocks; /* in the prefix cache; of them, pinned */
	uint64_t evictions;                   /* blocks that the prefix cache gave up for others */
} q3_runtime_info;

extern q3_runtime *q3_runtime_create(const q3_model *m, const q3_runtime_options *options,
                                     q3_error *err);
extern void q3_runtime_free(q3_runtime *rt);
/*
 * Has the system find memory for the next two megabytes of the KV pool, which otherwise happens
 * when they are first written, in the middle of a request, and can take longer than computing what
 * is written. *done, at first 0, counts bytes; false when all is done or the system cannot do it.
 */
extern bool q3_runtime_warm(q3_runtime *rt, size_t *done);
extern void q3_runtime_get_info(const q3_runtime *rt, q3_runtime_info *info);

extern q3_seq *q3_seq_create(q3_runtime *rt); /* empty; NULL when out of memory */
extern void q3_seq_free(q3_seq *seq);         /* its blocks return to the pool; NULL is fine */
extern int32_t q3_seq_length(const q3_seq *seq);
/*
 * Number of the sequence's first block, the same for all that begin alike; -1: it has none.
 * Neighbours in a batch that have the same blocks attend to those together.
 */
extern int32_t q3_seq_first_block(const q3_seq *seq);
/*
 * Reserves blocks so that the sequence can grow to n_tokens. False, with nothing changed, when the
 * pool has too few free blocks. q3_forward() itself never allocates blocks: reserve first.
 */
extern bool q3_seq_reserve(q3_seq *seq, int32_t n_tokens);
/*
 * A second sequence that goes on from here on its own, with room for n_tokens (the present ones
 * too). Full blocks are shared, the last, partial one is copied. NULL: too few free blocks.
 */
extern q3_seq *q3_seq_fork(const q3_seq *seq, int32_t n_tokens);
/* Forgets the tokens from n_tokens on; false, with nothing done, where their blocks are shared. */
extern bool q3_seq_truncate(q3_seq *seq, int32_t n_tokens);

/*
 * The prefix cache: full blocks of the beginnings of prompts, found again by their tokens. What a
 * domain publishes is found by that domain only, except that domain Q3_DOMAIN_SHARED is found by
 * all. Blocks that no sequence holds any more are given up, least recently used first, when others
 * need room. Whether blocks come from the cache changes no bit of what is computed with them.
 */
#define Q3_DOMAIN_SHARED 0

typedef struct q3_prefix_key
{
	uint32_t domain; /* oid of a role */
	q3_mode mode;    /* that computes the tokens */
} q3_prefix_key;

/*
 * Lets the sequence take blocks of the prompt tokens[n] from the cache, behind the full blocks that
 * it has published or attached so far. Returns by how many tokens it grew; at least the last token
 * of the prompt is always left to compute. Reserved blocks that are not needed for it return.
 */
extern int32_t q3_seq_attach(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n);
/*
 * Makes the full blocks of the first n tokens, which the sequence holds, known to the cache. A
 * block that is known already takes the place of the sequence's own.
 */
extern void q3_seq_publish(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n);
/*
 * The same for the tokens behind the last full block. attach_part() copies what it finds into the
 * sequence's own block, for which there must be room; it looks at one block only, the last one that
 * was made known behind the same beginning. publish_part() keeps the block of a prompt's last
 * tokens; the sequence must not grow any more.
 */
extern int32_t q3_seq_attach_part(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n);
extern void q3_seq_publish_part(q3_seq *seq, q3_prefix_key key, const int32_t *tokens, int32_t n);
/* Keeps the full blocks of the first n tokens, published in Q3_DOMAIN_SHARED, until unpinning. */
extern void q3_seq_pin(q3_seq *seq, int32_t n);
/*
 * Calls fn(arg, i) for i in [0, n), each once, on the runtime's threads: for what follows a forward
 * pass. By the runtime's thread, which is one of them.
 */
extern void q3_runtime_share(q3_runtime *rt, void (*fn)(void *arg, int32_t i), void *arg,
                             int32_t n);
/* Drops all that is pinned, and what was published behind it. */
extern void q3_runtime_unpin(q3_runtime *rt);

typedef enum q3_want
{
	Q3_WANT_NOTHING = 0, /* only fill the KV cache */
	Q3_WANT_LAST,        /* logits of the last token: float[n_vocab] */
	Q3_WANT_ALL,         /* logits of every token: float[n_tokens][n_vocab] */
	Q3_WANT_TOKENS,      /* of the last token, those of wanted[n_wanted]: float[n_wanted] */
	Q3_WANT_HIDDEN_LAST, /* no logits: what the head would read of the last token, to hidden */
	Q3_WANT_HIDDEN_SUM   /* the same of every token */
} q3_want;

/* One sequence's part of a forward pass: n_tokens new tokens behind what its KV cache holds. */
typedef struct q3_batch_item
{
	q3_seq *seq; /* at most once in a batch; all of one mode's or mixed */
	const int32_t *tokens;
	int32_t n_tokens; /* >= 1 */
	q3_mode mode;
	q3_want want;
	float *logits;         /* caller's memory as want says */
	const int32_t *wanted; /* WANT_TOKENS: ids, in any order */
	int32_t n_wanted;
	double *rest;   /* WANT_TOKENS: probability of all tokens but these, which are distinct; NULL:
	                   not wanted, as it costs the whole row's product. NaN: no number */
	double *hidden; /* WANT_HIDDEN_*: [n_embd]; hidden states are added to it, in order of tokens */
} q3_batch_item;

/*
 * Computes the items together: the tokens of all items (sum <= max_batch_tokens) go through every
 * layer as one batch; K and V of the new tokens are appended to their sequences. *stop (may be
 * NULL) is looked at between layers and matrix products: when it becomes true the call returns
 * Q3_ERR_CANCELLED within some tens of milliseconds and the sequences have their old lengths.
 * Formulas: RMSNorm(x) = x / sqrt(mean(x^2) + eps) * w; attention softmax(q k^T / sqrt(head_dim))
 * v, causal; FFN down(silu(gate x) * up x); hidden state RMSNorm of the last layer's output; logits
 * output matrix times hidden state. What an item gets does not depend on the other items, nor on
 * what they want.
 */
extern q3_code q3_forward(q3_runtime *rt, const q3_batch_item *items, int32_t n_items,
                          const atomic_bool *stop, q3_error *err);

#endif
