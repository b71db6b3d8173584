/*
 * service.c: the services, as service.h says. Constants and settings only; any process.
 */
#include "postgres.h"

#include "extension/module.h"
#include "extension/service.h"

const Qwen3dmServiceInfo qwen3dm_services[QWEN3DM_N_SERVICES] = {
    [QWEN3DM_MAIN] = {"main", "qwen3dm", QWEN3DM_SOCKET_DIR "/qwen3dm.sock", &qwen3dm_model,
                      &qwen3dm_kv_cache_size,
                      "Set qwen3dm.model to the path of a GGUF file and reload the configuration."},
    [QWEN3DM_EMBEDDING] = {
        "embedding", "qwen3dm embedding", QWEN3DM_SOCKET_DIR "/qwen3dm-embedding.sock",
        &qwen3dm_embedding_model, &qwen3dm_embedding_kv_cache_size,
        "Set qwen3dm.embedding_model to the path of a GGUF file and reload the configuration."}};

Qwen3dmService
qwen3dm_service_for(const q3p_request *request)
{
	return request->kind == Q3P_EMBED && !request->mean ? QWEN3DM_EMBEDDING : QWEN3DM_MAIN;
}

bool
qwen3dm_service_has_model(Qwen3dmService service)
{
	const char *model = *qwen3dm_services[service].model;

	return model != NULL && model[0] != '\0';
}
