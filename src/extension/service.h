/*
 * service.h: what the server runs engines for, each with a worker, a socket and a model of its own.
 */
#ifndef QWEN3DM_SERVICE_H
#define QWEN3DM_SERVICE_H

#include "protocol/protocol.h"

typedef enum Qwen3dmService
{
	QWEN3DM_MAIN,     /* every request but those of the other */
	QWEN3DM_EMBEDDING /* vectors of an embedding model, when one is set */
} Qwen3dmService;

#define QWEN3DM_N_SERVICES 2

typedef struct Qwen3dmServiceInfo
{
	const char *name; /* in the views */
	const char
	    *worker; /* name and type of the background worker, and what its messages begin with */
	const char *socket; /* relative to the data directory */
	/* Settings. */
	char **model;
	const int *kv_cache_size;  /* kB */
	const char *no_model_hint; /* when model is empty */
} Qwen3dmServiceInfo;

extern const Qwen3dmServiceInfo qwen3dm_services[QWEN3DM_N_SERVICES];

/* Who answers the request. */
extern Qwen3dmService qwen3dm_service_for(const q3p_request *request);
/* A model is set for it. */
extern bool qwen3dm_service_has_model(Qwen3dmService service);

#endif
