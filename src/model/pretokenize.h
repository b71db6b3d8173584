/*
 * pretokenize.h: cutting text into the words within which BPE merges.
 *
 * Every model family cuts by a regular expression of its own; each is a hand-written scanner here.
 * Pure functions; any thread.
 */
#ifndef Q3_PRETOKENIZE_H
#define Q3_PRETOKENIZE_H

#include "model/unicode.h"

typedef enum q3_split
{
	/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
	Q3_SPLIT_GPT2,
	/* Every \p{N} apart, and GPT-2's expression on what stands between them */
	Q3_SPLIT_SMOLLM,
	/*
	 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|
	 * \s*[\r\n]+|\s+(?!\S)|\s+
	 */
	Q3_SPLIT_QWEN2
} q3_split;

/*
 * Length in bytes of the word that begins at s; s < end, and [s, end) is valid UTF-8. Cutting a
 * text word by word takes time linear in its length.
 */
extern size_t q3_word_length(const q3_unicode *u, q3_split split, const uint8_t *s,
                             const uint8_t *end);

#endif
