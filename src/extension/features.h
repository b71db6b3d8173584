/*
 * features.h: how the columns of qwen3dm.term_counts and qwen3dm.task_features hold the structs of
 * policy/similarity.h. What was written by another version, or by hand, is as good as nothing.
 */
#ifndef QWEN3DM_FEATURES_H
#define QWEN3DM_FEATURES_H

#include "extension/compat.h"
#include "policy/similarity.h"

/* False: it cannot be read; *terms is empty then. */
extern bool qwen3dm_unpack_terms(q3_terms *terms, int64 inputs, const bytea *counts);
extern bool qwen3dm_unpack_profile(q3_profile *profile, const bytea *bytes);

#endif
