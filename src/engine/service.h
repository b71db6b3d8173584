/*
 * service.h: the engine as a server: clients on a Unix socket, the worker on a control socket.
 */
#ifndef Q3_SERVICE_H
#define Q3_SERVICE_H

#include "engine/workers.h"

typedef struct q3_service_config
{
	const char *model_path;
	const char *known_digest; /* or NULL */
	int image_fd;            /* packed image kept by the worker, the service's from here; 0: none */
	const char *image_cache; /* folder of packed images, or NULL */
	q3_runtime_options runtime;
	int listen_fd;  /* bound and listening */
	int control_fd; /* one end of a socket pair to the worker; -1: none */
	int signal_fd;  /* from q3_process_signals(); -1: none */
} q3_service_config;

#define Q3_EXIT_OK 0
/* The model cannot be served; the status frame (and stderr) says why. Retrying changes nothing. */
#define Q3_EXIT_FAILED 2

/*
 * Serves on the calling thread until a signal or the end of the control socket, and returns the
 * process's exit code. With worker threads that do not stop in time it exits itself.
 */
extern int q3_service_run(const q3_service_config *config);

#endif
