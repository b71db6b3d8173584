/*
 * fuzz.h: what a fuzz target is.
 */
#ifndef TEST_FUZZ_H
#define TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Called with one input after the other; whatever it holds, it must not crash, hang or leak. */
extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
