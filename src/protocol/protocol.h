/*
 * protocol.h: the messages between a backend and the engine, and between the worker and the engine.
 *
 * Frames over a stream socket on one machine, integers in native byte order (both ends are built
 * together; HELLO checks the version). A frame is a q3p_header followed by `length` bytes. Encoding
 * and decoding allocate nothing: an encoder is called once with a NULL buffer to learn the size, a
 * decoder returns pointers into the frame. Every decoder checks every length: a hostile frame gives
 * false. This file knows neither PostgreSQL nor the model.
 *
 * Life of a connection: the client sends HELLO, then any number of REQUESTs without waiting; the
 * engine answers each with exactly one RESULT or ERROR carrying the same id (before it, for a
 * stream, any number of CHUNKs). Answers may come in any order. CANCEL drops a request: the engine
 * answers ERROR with SQLSTATE 57014 unless the answer is already on its way. Closing the connection
 * cancels everything on it. A frame that cannot be decoded closes the connection.
 *
 * Accounts: whoever gets the RESULT or ERROR that ends a request counts what it used; a request
 * that was cancelled, or whose connection closed, is told to the worker (USAGE) once it has ended.
 * So each request is counted once.
 */
#ifndef Q3_PROTOCOL_H
#define Q3_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define Q3P_VERSION 5
#define Q3P_MAX_FRAME (256u * 1024 * 1024)
#define Q3P_MAX_LABELS 1000
/* Examples in one request: pairs of turns. */
#define Q3P_MAX_EXAMPLES 100
/* Bytes of a task's name, with the NUL: PostgreSQL's limit for names. */
#define Q3P_TASK_BYTES 64
/* A role's weight in the engine; a request with 0 has the default. */
#define Q3P_MAX_PRIORITY 1000
#define Q3P_DEFAULT_PRIORITY 100

typedef enum q3p_type
{
	/* client to engine */
	Q3P_HELLO = 1,
	Q3P_REQUEST,
	Q3P_CANCEL,   /* no payload; the header's id says which request */
	Q3P_ACTIVITY, /* no payload; answered by ACTIVITY_RESULT */
	/* engine to client */
	Q3P_CHUNK = 64, /* payload: the next bytes of the value, whole UTF-8 characters */
	Q3P_RESULT,
	Q3P_ERROR,
	Q3P_ACTIVITY_RESULT,
	/* engine to worker, on the control socket */
	Q3P_STATUS = 128,
	Q3P_USAGE, /* a request whose answer nobody took: its client gave up or is gone */
	Q3P_SHADOW /* a shadow run has ended */
} q3p_type;

typedef struct q3p_header
{
	uint32_t length; /* of the payload that follows */
	uint32_t type;
	uint64_t id; /* of the request, chosen by the client; 0 where there is none */
} q3p_header;

/* Bytes with a length; data is NULL when the field is absent (SQL NULL). */
typedef struct q3p_bytes
{
	const char *data;
	size_t len;
} q3p_bytes;

typedef struct q3p_hello
{
	uint32_t version;
	int32_t pid;       /* of the backend */
	uint32_t role;     /* oid of the current user */
	uint32_t database; /* oid */
} q3p_hello;

typedef enum q3p_kind
{
	Q3P_GENERATE = 1, /* chat format around prompt; RESULT holds value and thinking */
	Q3P_STREAM,  /* the same, with CHUNKs while it runs; RESULT's value is what no CHUNK held */
	Q3P_LOGPROB, /* RESULT.score: mean log-probability per token of prompt */
	Q3P_COUNT_TOKENS, /* RESULT.prompt_tokens: number of tokens of prompt as plain text */
	Q3P_TOKENIZE,     /* RESULT.tokens */
	Q3P_DETOKENIZE,   /* RESULT.value from tokens */
	/*
	 * Which of labels answers prompt, under the instruction in system: RESULT.probs, value (the
	 * best label), score (its probability). None, more than Q3P_MAX_LABELS, empty or equal labels
	 * are an ERROR. With thinking, the model thinks first and the labels are compared behind that:
	 * RESULT.thinking, thinking_tokens.
	 */
	Q3P_CLASSIFY,
	/*
	 * Computes the system turn with the text of system in this mode and keeps it for all roles
	 * until UNPIN: RESULT.prompt_tokens, of them cached_tokens were there already. The client has
	 * checked that the caller may. Whole blocks only (STATUS.kv_block_tokens): a shorter one pins
	 * nothing.
	 */
	Q3P_PIN,
	Q3P_UNPIN, /* drops all pins of both modes */
	/*
	 * RESULT.vector: prompt as a point of n_embd coordinates, of length 1. The text is read as it
	 * is, without the chat format, and the end token after it; the point is the last token's, or
	 * with mean the mean of all.
	 */
	Q3P_EMBED
} q3p_kind;

typedef enum q3p_mode
{
	Q3P_AUTO = 0,
	Q3P_EFFICIENT,
	Q3P_PRECISE
} q3p_mode;

typedef struct q3p_request
{
	uint32_t kind; /* q3p_kind */
	uint32_t mode; /* q3p_mode */
	bool thinking;
	bool has_temperature, has_top_p, has_top_k; /* absent: the engine's defaults for the mode */
	bool mean;                                  /* EMBED */
	int32_t max_tokens;                         /* >= 1 for GENERATE and STREAM */
	double temperature;
	double top_p;
	int32_t top_k;
	uint64_t seed;
	q3p_bytes prompt;            /* UTF-8 */
	q3p_bytes system;            /* UTF-8, may be absent */
	uint32_t n_stops;            /* stop strings, packed: read them with q3p_next_bytes() */
	q3p_bytes stops;             /* encoder: ignored, see q3p_request_encode */
	uint32_t n_tokens;           /* DETOKENIZE */
	const unsigned char *tokens; /* n_tokens int32, unaligned: memcpy out */
	uint32_t priority;           /* of the role; more computes sooner. At most Q3P_MAX_PRIORITY */
	uint32_t role;               /* oid of who asks; 0: the role of HELLO */
	uint32_t n_labels;           /* CLASSIFY */
	q3p_bytes labels;            /* packed, and ignored by the encoder, as stops is */
	/*
	 * Examples for GENERATE, STREAM and CLASSIFY: what a user said, what the assistant answered,
	 * and so on, between system and prompt. An even number, packed like stops.
	 */
	uint32_t n_turns;
	q3p_bytes turns;
	q3p_bytes schema;     /* JSON Schema that the value of GENERATE and STREAM has to follow */
	q3p_bytes task;       /* name, less than Q3P_TASK_BYTES; may be absent */
	uint64_t query_id;    /* of the statement that asks; 0: unknown */
	uint32_t token_quota; /* of the role: tokens of prompts and answers in a minute; 0: none */
	/*
	 * Most tokens of thinking, after which the engine ends it and the answer follows; 0: only
	 * max_tokens ends it, which CLASSIFY has none of.
	 */
	int32_t thinking_budget;
	/*
	 * CLASSIFY in mode efficient: if the best label's probability is ahead of the second's by less
	 * than this, the answer is computed again in mode precise, and that is the answer; 0: never.
	 */
	double escalate_below;
	bool escalate_thinking; /* mode precise thinks then */
	/* The same where more probability than this lies outside the labels; 0: never. */
	double off_label_limit;
	/*
	 * CLASSIFY in mode efficient: an answer that is kept is computed again in mode precise (with
	 * thinking, if escalate_thinking) when the engine has nothing else to do, and the worker is
	 * told with SHADOW whether that would have been the same label.
	 */
	bool shadow;
	uint64_t question; /* what SHADOW is to tell with it; the engine does not look at it */
	/*
	 * CLASSIFY with thinking: labels are compared while it thinks, and it ends when the best label
	 * is twice running ahead of the second by this; 0: it is left to end.
	 */
	double exit_margin;
} q3p_request;

/* For the encoder: the strings of a request's lists. */
typedef struct q3p_lists
{
	const q3p_bytes *stops;  /* n_stops */
	const q3p_bytes *labels; /* n_labels */
	const q3p_bytes *turns;  /* n_turns */
} q3p_lists;

typedef enum q3p_finish
{
	Q3P_FINISH_STOP = 1,
	Q3P_FINISH_LENGTH
} q3p_finish;

typedef struct q3p_result
{
	uint32_t mode;   /* the mode that answered */
	uint32_t finish; /* q3p_finish; 0 for kinds that generate nothing */
	int32_t prompt_tokens;
	int32_t cached_tokens; /* of the prompt's, that did not have to be computed */
	int32_t output_tokens;
	bool deduplicated; /* the answer to an equal request that was in flight */
	double confidence; /* exp(mean log-probability of the generated tokens); NaN: none */
	double score;      /* LOGPROB, CLASSIFY; NaN: undefined (a text of fewer than two tokens) */
	double queue_ms;   /* from arrival to the first forward pass */
	double latency_ms; /* from arrival to this answer */
	q3p_bytes reason;  /* why this mode, English words */
	q3p_bytes value;
	q3p_bytes thinking;
	q3p_bytes digest; /* of the model, hex */
	uint32_t n_tokens;
	const unsigned char *tokens; /* n_tokens int32, unaligned */
	uint32_t n_probs;            /* CLASSIFY: n_labels, in their order; they add up to 1 */
	const unsigned char *probs;  /* n_probs double, unaligned */
	uint32_t n_vector;           /* EMBED */
	const unsigned char *vector; /* n_vector float, unaligned */
	int32_t thinking_tokens;     /* CLASSIFY: of the output tokens, which are all of thinking */
	bool escalated;  /* CLASSIFY: computed again in mode precise; token counts are those of both */
	double margin;   /* CLASSIFY: of the first answer: best label's probability less the second's */
	double first_ms; /* CLASSIFY: from arrival to the first answer */
	/*
	 * CLASSIFY with off_label_limit or shadow: probability outside the labels, of the first answer,
	 * where they part first; NaN: unknown. Else it is not computed: with a large vocabulary it
	 * costs about 6 % of a row of ten tokens.
	 */
	double off_label;
} q3p_result;

typedef struct q3p_error
{
	char sqlstate[6]; /* NUL-terminated */
	q3p_bytes message;
	q3p_bytes detail; /* may be absent */
	q3p_bytes hint;   /* may be absent */
	uint32_t mode;    /* q3p_mode */
	int32_t prompt_tokens, cached_tokens,
	    output_tokens; /* that were read and written all the same */
	double latency_ms;
} q3p_error;

/* What a request used, as RESULT would tell. */
typedef struct q3p_usage
{
	uint32_t role;
	uint32_t database;
	uint32_t kind; /* q3p_kind */
	uint32_t mode; /* q3p_mode */
	int32_t prompt_tokens, cached_tokens, output_tokens;
	double latency_ms;
	q3p_bytes task; /* may be absent */
} q3p_usage;

/* What became of a request with shadow. */
typedef struct q3p_shadow
{
	uint32_t database;
	q3p_bytes task; /* may be absent */
	uint64_t question;
	bool agreed; /* mode precise chose the label that the client was told */
} q3p_shadow;

typedef enum q3p_phase
{
	Q3P_QUEUED = 1,
	Q3P_PREFILL,
	Q3P_DECODE
} q3p_phase;

/* One live request in an ACTIVITY_RESULT: uint32 count, then this many fixed-size records. */
typedef struct q3p_activity
{
	uint64_t id;
	int32_t pid;
	uint32_t role;
	uint32_t database;
	uint32_t kind;  /* q3p_kind */
	uint32_t mode;  /* q3p_mode */
	uint32_t phase; /* q3p_phase */
	int32_t prompt_tokens, prompt_done, output_tokens, max_tokens;
	int32_t kv_tokens; /* KV room held */
	int32_t pad;
	double age_ms; /* since arrival */
	uint64_t query_id;
	char task[Q3P_TASK_BYTES]; /* NUL-terminated; empty: none */
} q3p_activity;

/* Where the packed weights come from. */
typedef enum q3p_image
{
	Q3P_IMAGE_NONE = 0,
	Q3P_IMAGE_BUILT,
	Q3P_IMAGE_KEPT,  /* from an engine before this one */
	Q3P_IMAGE_CACHED /* from the cache on disk */
} q3p_image;

typedef enum q3p_state
{
	Q3P_STARTING = 1,
	Q3P_LOADING,
	Q3P_READY,
	Q3P_FAILED /* the engine exits after sending this: retrying without a change is useless */
} q3p_state;

/*
 * What the engine tells the worker when something changes, and about once a second while it works.
 * An image that the worker does not have yet comes with the first one that says READY, as a
 * descriptor beside its first byte (SCM_RIGHTS); the worker hands it to the next engine.
 */
typedef struct q3p_status
{
	uint32_t state;  /* q3p_state */
	double progress; /* 0 to 1 while loading */
	int32_t threads, context_length, max_batch_tokens;
	int32_t kv_blocks;
	int32_t kv_blocks_free; /* unused, or holding prefixes that make room when others need it */
	int32_t kv_block_tokens;
	int32_t n_embd;                       /* coordinates of a RESULT's vector */
	int32_t prefix_blocks, pinned_blocks; /* that hold prefixes for later; of them, pinned */
	uint64_t n_params;
	uint64_t weight_bytes, image_bytes, kv_bytes, scratch_bytes;
	uint32_t image; /* q3p_image */
	double load_ms;
	uint64_t requests, errors, prompt_tokens, output_tokens; /* since the engine started */
	uint64_t cached_tokens; /* of the prompts', found in the cache */
	uint64_t deduplicated;  /* requests answered with an equal one */
	uint64_t classified;    /* CLASSIFY requests answered */
	uint64_t steps;         /* forward passes */
	uint64_t evictions;     /* blocks of prefixes that made room */
	int32_t running, queued;
	q3p_bytes architecture, name, weight_type, digest, device, device_reason, isa;
	q3p_bytes precision;             /* what the modes read, in words */
	q3p_bytes message, detail, hint; /* FAILED */
} q3p_status;

/*
 * Encoders write header and payload of one frame to out when it has room for them (cap) and return
 * the frame's size in any case; 0 when it would exceed Q3P_MAX_FRAME.
 */
extern size_t q3p_hello_encode(const q3p_hello *m, void *out, size_t cap);
/* Tokens are taken from m->tokens; lists may be NULL when m has none. */
extern size_t q3p_request_encode(uint64_t id, const q3p_request *m, const q3p_lists *lists,
                                 void *out, size_t cap);
extern size_t q3p_result_encode(uint64_t id, const q3p_result *m, void *out, size_t cap);
extern size_t q3p_error_encode(uint64_t id, const q3p_error *m, void *out, size_t cap);
extern size_t q3p_activity_encode(const q3p_activity *rows, uint32_t n, void *out, size_t cap);
extern size_t q3p_usage_encode(const q3p_usage *m, void *out, size_t cap);
extern size_t q3p_shadow_encode(const q3p_shadow *m, void *out, size_t cap);
extern size_t q3p_status_encode(const q3p_status *m, void *out, size_t cap);
/* CANCEL, ACTIVITY (len 0) and CHUNK. */
extern size_t q3p_plain_encode(q3p_type type, uint64_t id, const void *payload, size_t len,
                               void *out, size_t cap);

/*
 * Looks at the n bytes received so far. Returns 1 and the header when a whole frame is there (its
 * payload follows the header; the frame is sizeof(q3p_header) + length bytes), 0 when more bytes
 * are needed, -1 when this is no frame (length over the limit).
 */
extern int q3p_frame(const void *data, size_t n, q3p_header *header);

/* Decoders take a frame's payload. False: malformed. */
extern bool q3p_hello_decode(const void *payload, size_t n, q3p_hello *m);
extern bool q3p_request_decode(const void *payload, size_t n, q3p_request *m);
extern bool q3p_result_decode(const void *payload, size_t n, q3p_result *m);
extern bool q3p_error_decode(const void *payload, size_t n, q3p_error *m);
extern bool q3p_usage_decode(const void *payload, size_t n, q3p_usage *m);
extern bool q3p_shadow_decode(const void *payload, size_t n, q3p_shadow *m);
extern bool q3p_status_decode(const void *payload, size_t n, q3p_status *m);
/* Number of records; the i-th is copied out with q3p_activity_get(). */
extern bool q3p_activity_decode(const void *payload, size_t n, uint32_t *count);
extern void q3p_activity_get(const void *payload, uint32_t i, q3p_activity *row);

/* Takes the next string off a packed list (stops, labels, turns); false at the end or when
 * malformed. */
extern bool q3p_next_bytes(q3p_bytes *list, q3p_bytes *item);

extern const char *q3p_mode_name(uint32_t mode);   /* "auto" */
extern const char *q3p_kind_name(uint32_t kind);   /* "generate" */
extern const char *q3p_finish_name(uint32_t fin);  /* "stop", "length" */
extern const char *q3p_phase_name(uint32_t phase); /* "queued" */
extern const char *q3p_state_name(uint32_t state); /* "loading" */
extern const char *q3p_image_name(uint32_t image); /* "built", "kept", "cached" */

#endif
