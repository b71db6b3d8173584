/*
 * labels.h: labels and examples, as SQL gives them.
 *
 * All functions raise an error for what is wrong with their argument, take memory from the current
 * context and give text in UTF-8, which may be that of the argument.
 */
#ifndef QWEN3DM_LABELS_H
#define QWEN3DM_LABELS_H

#include "utils/array.h"
#include "utils/jsonb.h"

#include "extension/compat.h"
#include "protocol/protocol.h"

typedef struct Qwen3dmLabels
{
	int n;
	q3p_bytes *names;        /* distinct, none empty */
	q3p_bytes *descriptions; /* of each; data NULL: none */
} Qwen3dmLabels;

/* What the labels of examples are. */
typedef enum Qwen3dmAnswerKind
{
	QWEN3DM_ANSWER_ANY,    /* any text, or true or false */
	QWEN3DM_ANSWER_LABEL,  /* one of some labels */
	QWEN3DM_ANSWER_BOOLEAN /* true or false, which become yes and no */
} Qwen3dmAnswerKind;

extern void qwen3dm_labels_from_array(ArrayType *array, Qwen3dmLabels *labels);
/* {"name": "description", ...}, or an array of names and of {"label": ..., "description": ...}. */
extern void qwen3dm_labels_from_jsonb(Jsonb *jsonb, Qwen3dmLabels *labels);
/* Either of these, as a literal. */
extern void qwen3dm_labels_from_text(text *literal, Qwen3dmLabels *labels);
/* The values of an enum type, in their order. */
extern void qwen3dm_labels_from_enum(Oid type, Qwen3dmLabels *labels);

/*
 * Turns for a request from an array of {"input": ..., "label": ...}: their number. labels is needed
 * for QWEN3DM_ANSWER_LABEL only.
 */
extern uint32 qwen3dm_turns_from_examples(Jsonb *examples, Qwen3dmAnswerKind kind,
                                          const Qwen3dmLabels *labels, q3p_bytes **turns);

#endif
