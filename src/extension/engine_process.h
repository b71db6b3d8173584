/*
 * engine_process.h: the engine as a child process of the background worker.
 */
#ifndef QWEN3DM_ENGINE_PROCESS_H
#define QWEN3DM_ENGINE_PROCESS_H

#include "lib/stringinfo.h"

#include "protocol/protocol.h"

/* What the engine is started with: a copy of the settings, compared when they change. */
typedef struct Qwen3dmEngineConfig
{
	char model[MAXPGPATH];
	int threads; /* resolved, never 0 */
	int context_length;
	int max_batch_tokens;
	int64 kv_bytes;
	bool kv_f16;
	int efficient_bits;
	bool exact_weights;
	char image_cache[MAXPGPATH]; /* empty: none */
} Qwen3dmEngineConfig;

typedef struct Qwen3dmEngine
{
	pid_t pid;            /* 0: there is none */
	pgsocket control;     /* our end; PGINVALID_SOCKET once closed */
	StringInfoData input; /* what came from it */
	int consumed;         /* of input */
	int image;            /* descriptor of the packed image, ours to keep; -1: none */
} Qwen3dmEngine;

/*
 * Starts the engine beside our module, with the listening socket, the other end of a new control
 * socket, and the image if there is one. False, with a palloc'd reason, when that is impossible.
 */
extern bool qwen3dm_engine_spawn(Qwen3dmEngine *engine, const Qwen3dmEngineConfig *config,
                                 pgsocket listener, const char *known_digest, char **reason);

typedef enum Qwen3dmEngineSaid
{
	QWEN3DM_SAID_NOTHING, /* yet */
	QWEN3DM_SAID_STATUS,
	QWEN3DM_SAID_NONSENSE, /* not our protocol */
	QWEN3DM_SAID_GOODBYE   /* the control socket is closed: it is gone, or going */
} Qwen3dmEngineSaid;

/* Takes the next status off the control socket, never blocking; its strings live until the next
 * call. What requests used goes to their accounts on the way. */
extern Qwen3dmEngineSaid qwen3dm_engine_listen(Qwen3dmEngine *engine, q3p_status *status);

/* Gives the image up: the next engine is for another file. */
extern void qwen3dm_engine_forget_image(Qwen3dmEngine *engine);

/* Closes the control socket and asks the engine to end; kill does not ask. */
extern void qwen3dm_engine_stop(Qwen3dmEngine *engine);
extern void qwen3dm_engine_kill(Qwen3dmEngine *engine);

/* True, with the wait status, once the process is gone; its pid is 0 then. Never blocks. */
extern bool qwen3dm_engine_reap(Qwen3dmEngine *engine, int *wait_status);

#endif
