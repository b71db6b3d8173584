/*
 * module.c: how the server loads us.
 *
 * Preloaded by the postmaster, the module asks for its shared memory and registers the background
 * workers. Loaded in any other way (LOAD, CREATE EXTENSION on a server that does not preload it,
 * pg_upgrade) it only defines its settings and the batching node: every function then says what is
 * missing. Nothing here
 * starts a thread, opens a file or touches a model; the postmaster runs this code.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/wait_event.h"

#include "extension/module.h"
#include "extension/shmem.h"

QWEN3DM_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	qwen3dm_define_settings();
	qwen3dm_install_batching();

	/* pg_upgrade runs both servers with nobody to serve. */
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	qwen3dm_request_shmem();
	qwen3dm_register_workers();
}

uint32
qwen3dm_wait_event(Qwen3dmWait what)
{
#if PG_VERSION_NUM >= 170000
	static const char *const names[] = {"Qwen3dmAnswer", "Qwen3dmStart", "Qwen3dmWorker"};
	static uint32 events[lengthof(names)];

	if (events[what] == 0)
		events[what] = WaitEventExtensionNew(names[what]);
	return events[what];
#else
	return PG_WAIT_EXTENSION;
#endif
}
