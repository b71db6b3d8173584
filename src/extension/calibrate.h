/*
 * calibrate.h: taking out of the labels' probabilities what the model prefers whatever it is asked.
 *
 * A question that is to be calibrated is asked about a text without content, too: once for all rows
 * with the same instruction, labels, examples and mode, and again when the model has changed. The
 * probabilities of a row are divided by those and made to add up to 1 again.
 */
#ifndef QWEN3DM_CALIBRATE_H
#define QWEN3DM_CALIBRATE_H

#include "extension/client.h"
#include "extension/options.h"

/*
 * Starts the question about nothing, unless the answer is known or under way; before the row's own,
 * so that it is answered first. Sets options->neutral, in the current context.
 */
extern void qwen3dm_calibration_start(Qwen3dmOptions *options);
/* Has what calibration needs later live as long as the row's request. */
extern void qwen3dm_calibration_keep(Qwen3dmOptions *options, const Qwen3dmRequest *request);
/* Calibrates the n probabilities of a row, waiting for the answer about nothing; false: *failure.
 */
extern bool qwen3dm_calibrate(const Qwen3dmOptions *options, const q3p_result *result,
                              double *probs, uint32 n, Qwen3dmFailure *failure);
/* The name of label i of a question that is calibrated. */
extern q3p_bytes qwen3dm_calibration_label(const Qwen3dmOptions *options, uint32 i);

#endif
