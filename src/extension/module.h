/*
 * module.h: what every file of the extension may use: the version, the settings, the names of the
 * things that we wait for.
 */
#ifndef QWEN3DM_MODULE_H
#define QWEN3DM_MODULE_H

#include "extension/compat.h"

#define QWEN3DM_VERSION "0.1.0"

/* For the sockets; relative to the data directory, which is every server process's working
 * directory. */
#define QWEN3DM_SOCKET_DIR "pg_stat_tmp"

typedef enum Qwen3dmKvType
{
	QWEN3DM_KV_F32,
	QWEN3DM_KV_F16
} Qwen3dmKvType;

typedef enum Qwen3dmTriggerOnError
{
	QWEN3DM_TRIGGER_RAISE,
	QWEN3DM_TRIGGER_NULL
} Qwen3dmTriggerOnError;

/* Settings; settings.c describes them. */
extern char *qwen3dm_model;
extern int qwen3dm_threads;
extern int qwen3dm_kv_cache_size; /* kB */
extern char *qwen3dm_embedding_model;
extern int qwen3dm_embedding_kv_cache_size; /* kB */
extern int qwen3dm_kv_cache_type;           /* Qwen3dmKvType */
extern int qwen3dm_max_batch_tokens;
extern int qwen3dm_efficient_bits; /* 8 or 4 */
extern bool qwen3dm_exact_weights;
extern char *qwen3dm_image_cache;
extern int qwen3dm_context_length;
extern int qwen3dm_mode; /* q3p_mode */
extern int qwen3dm_max_tokens;
extern int qwen3dm_timeout;       /* ms, 0: none */
extern int qwen3dm_start_timeout; /* ms */
extern int qwen3dm_priority;
extern int qwen3dm_token_quota;      /* 0: none */
extern int qwen3dm_max_tokens_limit; /* 0: none */
extern int qwen3dm_flush_interval;   /* s */
extern int qwen3dm_max_accounts;
extern bool qwen3dm_enable_batching;
extern int qwen3dm_batch_window;
extern double qwen3dm_agreement_target;
extern int qwen3dm_latency_target; /* ms, 0: none */
extern bool qwen3dm_allow_degrade;
extern double qwen3dm_shadow_rate;
extern int qwen3dm_max_tasks;
extern int qwen3dm_trigger_on_error; /* Qwen3dmTriggerOnError */

extern void qwen3dm_define_settings(void);

typedef enum Qwen3dmWait
{
	QWEN3DM_WAIT_ANSWER, /* a backend, for the engine's answer */
	QWEN3DM_WAIT_START,  /* a backend, for the model to be ready */
	QWEN3DM_WAIT_WORKER  /* the background worker, for something to do */
} Qwen3dmWait;

/* As pg_stat_activity shows it: by name from 17 on, "Extension" before. */
extern uint32 qwen3dm_wait_event(Qwen3dmWait what);

/* batch_plan.c: hooks into the planner. */
extern void qwen3dm_install_batching(void);

/* worker.c: registers the background workers; only while the postmaster preloads libraries. */
extern void qwen3dm_register_workers(void);

#endif
