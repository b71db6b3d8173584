/*
 * output.h: from generated tokens to the text of an answer.
 *
 * A q3_output belongs to one request. It splits thinking from the value, stops at an end token, a
 * stop string (which is not part of the value) or the token limit, and gives out only whole UTF-8
 * characters of which no later token can take anything back.
 */
#ifndef Q3_OUTPUT_H
#define Q3_OUTPUT_H

#include "model/tokenizer.h"

typedef enum q3_finish
{
	Q3_FINISH_NONE = 0, /* still running */
	Q3_FINISH_STOP,     /* an end token or a stop string */
	Q3_FINISH_LENGTH    /* max_tokens reached */
} q3_finish;

typedef struct q3_output q3_output;

/*
 * stops: n_stops byte strings, copied; an empty one or one that is not valid UTF-8 is
 * Q3_ERR_INVALID, as is max_tokens < 1. They apply to the value only. The text is read byte by byte
 * and the first stop string that is complete ends the answer (of several that end at the same byte,
 * the longest is cut off), so that the answer does not depend on how tokens cut the text.
 *
 * thinking: keep what stands in a <think> block, for q3_output_thinking(). Such a block is never
 * part of the value, with thinking or without, closed or not, as long as the vocabulary has those
 * tokens. Control tokens that do not end the answer are no text. Bytes that are not valid UTF-8,
 * and NUL, become U+FFFD; of a character that the token limit cuts in half nothing remains.
 */
extern q3_output *q3_output_create(const q3_tokenizer *tok, const q3_str *stops, size_t n_stops,
                                   bool thinking, int32_t max_tokens, q3_error *err);
extern void q3_output_free(q3_output *o);
/*
 * Takes the next token and says whether the answer is complete; tokens after that are ignored.
 * False when out of memory.
 */
extern bool q3_output_push(q3_output *o, int32_t token, q3_finish *finish);
/* The answer is complete, although neither an end token nor a stop string says so. */
extern void q3_output_end(q3_output *o);
/*
 * Value text that has become final since the last call, for streaming: valid until the next push.
 * After the last push, the rest. len 0 when there is none.
 */
extern q3_str q3_output_take(q3_output *o);
/* Whole texts so far (after the end: the answer). Leading and trailing white space of thinking and
 * leading white space of a value after thinking are dropped. */
extern q3_str q3_output_value(const q3_output *o);
extern q3_str q3_output_thinking(const q3_output *o); /* data NULL: no <think>, or not kept */
/* Tokens pushed up to the end of the answer, an end token and thinking included. */
extern int32_t q3_output_n_tokens(const q3_output *o);

/*
 * Replaces every maximal part that is not valid UTF-8, and NUL, by one U+FFFD; result is malloc'ed,
 * its length in *out_len, and followed by a NUL that it does not count; NULL when out of memory.
 * For qwen_detokenize.
 */
extern char *q3_utf8_repair(const char *text, size_t len, size_t *out_len);

#endif
