/*
 * constraint.h: which tokens may come next in an answer that follows a JSON Schema.
 *
 * A q3_constraint belongs to one request and to one thread at a time. It follows the answer token
 * by token; from wherever it is, the answer can be completed. Schema, tree and tokenizer must
 * outlive it.
 */
#ifndef Q3_CONSTRAINT_H
#define Q3_CONSTRAINT_H

#include "model/json_schema.h"
#include "model/token_trie.h"

typedef struct q3_constraint q3_constraint;

/*
 * At the beginning of the answer. NULL and err on failure: Q3_ERR_MEMORY, or Q3_ERR_UNSUPPORTED for
 * a schema with too many alternatives.
 */
extern q3_constraint *q3_constraint_create(q3_schema *s, const q3_token_trie *t, q3_error *err);
extern void q3_constraint_free(q3_constraint *c);

/*
 * Sets the bits of the tokens that may come next, the tokens that end the answer only where it is
 * complete, in bits[trie's n_words]; all others become 0. False when out of memory, or when the
 * schema is so ambiguous that it would take too long: then no token may be relied upon.
 */
extern bool q3_constraint_mask(q3_constraint *c, uint32_t *bits);
/*
 * The answer goes on with this token. False when the mask does not have it, when out of memory or
 * too ambiguous; then the constraint is where it was.
 */
extern bool q3_constraint_push(q3_constraint *c, int32_t token, const q3_tokenizer *tok);
/*
 * Appends to out the tokens that have to follow, because only one text can, and goes on behind
 * them: as many as the model's own tokenizer would give whatever comes after. False when out of
 * memory.
 */
extern bool q3_constraint_forced(q3_constraint *c, const q3_tokenizer *tok, q3_tokens *out);
/* The answer is valid as it is. */
extern bool q3_constraint_complete(const q3_constraint *c);
/* It is, and nothing can be added to it. */
extern bool q3_constraint_closed(const q3_constraint *c);

#endif
