/*
 * classify.h: questions of which the answer is one of some labels, and what becomes of the answers.
 */
#ifndef QWEN3DM_CLASSIFY_H
#define QWEN3DM_CLASSIFY_H

#include "extension/call.h"
#include "extension/labels.h"

/*
 * Which of the labels fits. Where system or examples are NULL, the task's count. Everything that is
 * wrong with them is raised.
 */
extern void qwen3dm_ask_which(Qwen3dmOptions *options, const Qwen3dmLabels *labels,
                              const q3p_bytes *system, Jsonb *examples);
/* Whether the statement, or the task's instruction, holds; false: there is neither. */
extern bool qwen3dm_ask_whether(Qwen3dmOptions *options, const q3p_bytes *statement,
                                Jsonb *examples);
/*
 * The labels of the call's task, checked to be values of enum_type if that is valid; without any,
 * those of the type. False: there are none.
 */
extern bool qwen3dm_task_labels(const Qwen3dmOptions *options, Oid enum_type,
                                Qwen3dmLabels *labels);

/* Of the labels of a result, palloc'd, calibrated if that is wanted; NULL: *failure. */
extern double *qwen3dm_probabilities(const Qwen3dmOptions *options, const q3p_result *result,
                                     Qwen3dmFailure *failure);

/* How calls of the functions begin and end; see Qwen3dmFunction. */
extern bool qwen3dm_parse_classify(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_classify_jsonb(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_classify_text(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_classify_enum(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_score(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern bool qwen3dm_parse_filter(FunctionCallInfo fcinfo, Qwen3dmOptions *options);
extern Datum qwen3dm_classify_value(const Qwen3dmOptions *options, const q3p_result *result,
                                    bool *isnull, Qwen3dmFailure *failure);
extern Datum qwen3dm_score_value(const Qwen3dmOptions *options, const q3p_result *result,
                                 bool *isnull, Qwen3dmFailure *failure);
extern Datum qwen3dm_filter_value(const Qwen3dmOptions *options, const q3p_result *result,
                                  bool *isnull, Qwen3dmFailure *failure);

#endif
