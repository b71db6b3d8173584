/*
 * call.h: a call of a function that makes one request, or two, from its arguments to its value.
 *
 * SQL calls such a function directly, one row after the other, or the batching node (batch_scan.c)
 * starts the calls of many rows before it finishes the first. Both go through here, so that a call
 * is the same either way.
 */
#ifndef QWEN3DM_CALL_H
#define QWEN3DM_CALL_H

#include "extension/client.h"
#include "extension/compat.h"
#include "extension/failure.h"
#include "extension/options.h"

/* What became of finished requests. */
typedef struct Qwen3dmTally
{
	int64 prompt_tokens, cached_tokens, output_tokens;
	int64 deduplicated;
	int64 efficient, precise; /* answered in this mode */
	int64 escalated;          /* of those in precise, after an efficient answer */
} Qwen3dmTally;

typedef struct Qwen3dmFunction
{
	PGFunction address; /* what SQL calls */
	/* Options and request from the arguments; false: the value is NULL, nothing is to be asked.
	 * Raises an error for what is wrong with the options. */
	bool (*parse)(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
	/* The value of a result, palloc'd; may be NULL, and *failure says so if that is a failure. */
	Datum (*value)(const Qwen3dmOptions *options, const q3p_result *result, bool *isnull,
	               Qwen3dmFailure *failure);
	/* Makes what is asked about of the input, in place; NULL: it is the input. False with *failure:
	 * nothing can be asked. */
	bool (*prepare)(Qwen3dmOptions *options, q3p_bytes *prompt, Qwen3dmFailure *failure);
	/* Calls in one row with the same arguments are one: (f(x)).* reads the fields of one value, and
	 * what WHERE asked the select list does not ask again. Not where each call may draw anew. */
	bool shared;
	/* Instead of that, for a function whose first two arguments are texts: of a request for each.
	 */
	Datum (*value_of_two)(const Qwen3dmOptions *options, const q3p_result *const results[2],
	                      bool *isnull, Qwen3dmFailure *failure);
} Qwen3dmFunction;

/* A call under way. It refers to nothing of the arguments. */
typedef struct Qwen3dmCall
{
	const Qwen3dmFunction *function;
	Qwen3dmOptions options; /* only its plain values */
	uint64 ids[2];          /* of the requests; 0: none */
	Qwen3dmFailure failure; /* why there is none, when the value is not NULL */
} Qwen3dmCall;

/* The function at this address, or NULL when it is not such a function. */
extern const Qwen3dmFunction *qwen3dm_function_at(PGFunction address);

/* Of a trigger that lets rows pass without an answer. */
typedef struct Qwen3dmLeniency
{
	MemoryContext context; /* for the failure */
	int64 n_failed;
	Qwen3dmFailure failure; /* the first one */
	bool outage;            /* nothing can be asked: so for all rows that follow */
} Qwen3dmLeniency;

/* NULL: what cannot be asked is an error. */
extern Qwen3dmLeniency *qwen3dm_leniency;

/* A row has failed. */
extern void qwen3dm_note_failure(const Qwen3dmFailure *failure);

/* Sends the requests. Raises errors for options, and when nothing can be asked. */
extern void qwen3dm_call_start(const Qwen3dmFunction *function, FunctionCallInfo fcinfo,
                               Qwen3dmCall *call);
/* The abort of a subtransaction no longer drops the requests; the caller must, or finish it. */
extern void qwen3dm_call_keep(Qwen3dmCall *call);
/* Waits for the answer; raises the call's error, or returns its value. Adds to *tally, if given. */
extern Datum qwen3dm_call_finish(Qwen3dmCall *call, bool *isnull, Qwen3dmTally *tally);
extern void qwen3dm_call_drop(Qwen3dmCall *call);

/* Submits one prompt, behind options->before; NULL with *failure when it cannot even be said. */
extern Qwen3dmRequest *qwen3dm_submit_prompt(const Qwen3dmOptions *options, const text *prompt,
                                             Qwen3dmFailure *failure);
/*
 * Submits a row's text, in UTF-8; it also asks what the answer is calibrated with. While a trigger
 * lets rows pass without an answer, whatever keeps one from being asked is a failure of the row.
 */
extern Qwen3dmRequest *qwen3dm_submit_row(Qwen3dmOptions *options, q3p_bytes prompt,
                                          Qwen3dmFailure *failure);
/* The value of a finished request, which is released; NULL with *failure. */
extern text *qwen3dm_take_text(const Qwen3dmOptions *options, Qwen3dmRequest *r,
                               Qwen3dmFailure *failure);
/* A copy that outlives the request it came from. */
extern void qwen3dm_copy_failure(Qwen3dmFailure *to, const Qwen3dmFailure *from);

/* What the functions make of their arguments and results; see Qwen3dmFunction. */
extern bool qwen3dm_parse_extract(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_extract_json(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_extract_row(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_summarize(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_prepare_summarize(Qwen3dmOptions *options, q3p_bytes *prompt,
                                      Qwen3dmFailure *failure);
extern Datum qwen3dm_extract_value(const Qwen3dmOptions *options, const q3p_result *result,
                                   bool *isnull, Qwen3dmFailure *failure);
extern Datum qwen3dm_extract_row_value(const Qwen3dmOptions *options, const q3p_result *result,
                                       bool *isnull, Qwen3dmFailure *failure);
extern bool qwen3dm_parse_embed(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern Datum qwen3dm_embed_value(const Qwen3dmOptions *options, const q3p_result *result,
                                 bool *isnull, Qwen3dmFailure *failure);
extern bool qwen3dm_parse_similarity(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern Datum qwen3dm_similarity_value(const Qwen3dmOptions *options,
                                      const q3p_result *const results[2], bool *isnull,
                                      Qwen3dmFailure *failure);

/* The functions that are such calls. */
extern PGDLLEXPORT Datum qwen3dm_infer(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_logprob(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_classify(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_classify_jsonb(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_classify_text(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_classify_enum(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_score(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_filter(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_extract(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_extract_json(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_extract_row(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_summarize(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_embed(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_similarity(PG_FUNCTION_ARGS);

/* Functions of ours that change something. */
extern PGDLLEXPORT Datum qwen3dm_pin_prefix(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum qwen3dm_unpin_prefixes(PG_FUNCTION_ARGS);

#endif
