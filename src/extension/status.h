/*
 * status.h: showing the status to people.
 */
#ifndef QWEN3DM_STATUS_H
#define QWEN3DM_STATUS_H

#include "extension/shmem.h"

/* A palloc'd text of the status as the current user may see it: without the folders of the model's
 * path, unless he may see all settings. */
extern char *qwen3dm_status_text(const Qwen3dmStatus *status, const char *utf8);

#endif
