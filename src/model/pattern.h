/*
 * pattern.h: regular expressions as automata over a JSON string's bytes.
 *
 * Understood is what PCRE2 and ECMA-262 agree upon: characters, escapes (\d \w \s, which mean ASCII
 * here as there, their opposites, \t \n \r \f \v \xHH \uHHHH \/ and escaped punctuation), ".",
 * [...], (...), (?:...), |, ? * + {m} {m,} {m,n} (also lazy), ^ and $. As JSON Schema says, a
 * pattern matches anywhere in the text unless it is anchored. Everything else is an error that
 * names it. Pure functions; any thread.
 */
#ifndef Q3_PATTERN_H
#define Q3_PATTERN_H

#include "model/automaton.h"
#include "model/error.h"
#include "model/gguf.h"

#define Q3_NO_LIMIT INT32_MAX

/*
 * The automaton of a JSON string, quotes included, whose characters match the pattern and whose
 * length in characters is between min and max (Q3_NO_LIMIT: none). A character is written as
 * itself where JSON allows, else by its shortest escape; U+0000 is never in it. NULL and err:
 * Q3_ERR_INVALID (also when no string matches), Q3_ERR_UNSUPPORTED (unknown or too large),
 * Q3_ERR_MEMORY.
 */
extern q3_dfa *q3_pattern_compile(q3_str pattern, int32_t min, int32_t max, q3_error *err);

/* How a character of a string is written in JSON; at most 6 bytes. Returns their number. */
extern size_t q3_json_escape(uint32_t c, char *out);

#endif
