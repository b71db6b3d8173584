/*
 * batch.h: the node that asks about several rows of a query at a time.
 *
 * batch_plan.c puts it into finished plans, batch_scan.c executes it.
 */
#ifndef QWEN3DM_BATCH_H
#define QWEN3DM_BATCH_H

#include "nodes/extensible.h"
#include "nodes/plannodes.h"

/*
 * A Qwen Batch is a CustomScan over no relation, with its one child in lefttree.
 *
 * custom_scan_tlist: the child's columns as OUTER_VARs, then the calls, whose arguments are made of
 * OUTER_VARs. Target list and qual are made of both, as INDEX_VARs.
 * custom_exprs: count and offset of the LIMIT right above it, or nothing.
 * custom_private: the integers below.
 */
enum
{
	QWEN3DM_BATCH_COLUMNS, /* of the child */
	QWEN3DM_BATCH_PLAIN,   /* 1: evaluating the calls' arguments cannot fail */
	QWEN3DM_BATCH_EXTENT,  /* Qwen3dmExtent */
	QWEN3DM_BATCH_N
};

/* How much of a plan's rows will be asked for, if any are. */
typedef enum Qwen3dmExtent
{
	QWEN3DM_SOME,       /* perhaps not all */
	QWEN3DM_ALL_IF_RUN, /* all, if the statement is run to its end and not fetched from */
	QWEN3DM_ALL
} Qwen3dmExtent;

extern const CustomScanMethods qwen3dm_batch_methods;

/* batch_scan.c: notes whether statements are run to their end. */
extern void qwen3dm_install_run_hook(void);

#endif
