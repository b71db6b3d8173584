/*
 * reduce.h: one answer about any number of texts, whatever the context has room for.
 *
 *     Qwen3dmReducer *r = qwen3dm_reducer_create(context, &options, first, further, &failure);
 *     qwen3dm_reducer_add(r, text, &failure);          any number of times
 *     qwen3dm_reducer_finish(r, &message, &failure);   the request whose answer is the answer
 *
 * All texts are in UTF-8. Where a function returns false, or NULL, *failure says why; it raises an
 * error only for what is no fault of the texts (a cancel, no model).
 */
#ifndef QWEN3DM_REDUCE_H
#define QWEN3DM_REDUCE_H

#include "extension/options.h"

typedef struct Qwen3dmReducer Qwen3dmReducer;

/*
 * A reducer in this memory context, whose end drops what it has under way. Of the options the
 * request is used, without prompt and system. `first` is the instruction for texts that were added,
 * `further` the one for answers about parts of them.
 */
extern Qwen3dmReducer *qwen3dm_reducer_create(MemoryContext context, const Qwen3dmOptions *options,
                                              q3p_bytes first, q3p_bytes further,
                                              Qwen3dmFailure *failure);
extern q3p_bytes qwen3dm_reducer_instruction(const Qwen3dmReducer *r);
extern q3p_bytes qwen3dm_reducer_further_instruction(const Qwen3dmReducer *r);
extern bool qwen3dm_reducer_add(Qwen3dmReducer *r, q3p_bytes text, Qwen3dmFailure *failure);
/* Waits for all parts. The message's strings live as long as the reducer. */
extern bool qwen3dm_reducer_finish(Qwen3dmReducer *r, q3p_request *message,
                                   Qwen3dmFailure *failure);
/* What another one has to do, behind what this one has. */
extern bool qwen3dm_reducer_combine(Qwen3dmReducer *r, Qwen3dmReducer *other,
                                    Qwen3dmFailure *failure);

/* Waits for what is under way; a reducer as bytes (with a varlena header), and from them. */
extern bool qwen3dm_reducer_serialize(Qwen3dmReducer *r, bytea **bytes, Qwen3dmFailure *failure);
extern Qwen3dmReducer *qwen3dm_reducer_deserialize(MemoryContext context,
                                                   const Qwen3dmOptions *options,
                                                   const bytea *bytes, Qwen3dmFailure *failure);

/* The text and its instruction are sure to leave room for an answer in the context, as far as is
 * known without counting tokens. */
extern bool qwen3dm_surely_fits(q3p_bytes text, q3p_bytes instruction);

#endif
