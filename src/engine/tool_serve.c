/*
 * tool_serve.c: "qwen3dm-engine serve": process set-up, then the service.
 */
#include "engine/tools.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/process.h"
#include "engine/service.h"

typedef struct serve_options
{
	q3_tool_model model;
	const char *socket_path, *known_digest;
	const char *image_cache, *prefix_cache;
	int32_t listen_fd, control_fd, image_fd;
} serve_options;

/* For use without the extension: a socket of our own that nobody else may open. */
static int
listen_at(const char *path, q3_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;
	mode_t old;

	if (strlen(path) >= sizeof(addr.sun_path))
	{
		q3_fail(err, Q3_ERR_INVALID, "socket path is longer than %zu bytes",
		        sizeof(addr.sun_path) - 1);
		return -1;
	}
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(path);
	old = umask(0177);
	if (fd < 0 || bind(fd, (struct sockaddr *) &addr, sizeof(addr)) < 0 || listen(fd, 128) < 0)
	{
		q3_fail(err, Q3_ERR_IO, "could not listen on \"%s\": %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	umask(old);
	return fd;
}

static int
parse(serve_options *o, int argc, char **argv)
{
	q3_tool_model *m = &o->model;
	const q3_option options[] = {
	    Q3_TOOL_MODEL_OPTION(*m),
	    {"listen-fd", 0, Q3_OPT_INT, &o->listen_fd, NULL, 0, 1 << 20, "N",
	     "inherited descriptor of the listening socket"},
	    {"socket", 0, Q3_OPT_STRING, &o->socket_path, NULL, 0, 0, "PATH",
	     "make the listening socket here instead"},
	    {"control-fd", 0, Q3_OPT_INT, &o->control_fd, NULL, 0, 1 << 20, "N",
	     "socket to the background worker; the engine ends with it"},
	    Q3_TOOL_THREADS_OPTION(*m),
	    {"context-length", 0, Q3_OPT_INT, &m->context_length, NULL, 0, INT32_MAX, "N",
	     "longest sequence (default: the model's)"},
	    {"max-batch-tokens", 0, Q3_OPT_INT, &m->max_batch_tokens, NULL, 0, 1 << 20, "N",
	     "most tokens in one step"},
	    {"kv-bytes", 0, Q3_OPT_U64, &m->kv_bytes, NULL, 0, 0, "N",
	     "size of the key-value cache (default: one full context)"},
	    {"known-digest", 0, Q3_OPT_STRING, &o->known_digest, NULL, 0, 0, "HEX",
	     "SHA-256 of the file as computed earlier"},
	    {"image-fd", 0, Q3_OPT_INT, &o->image_fd, NULL, 3, 1 << 20, "N",
	     "inherited descriptor of the model's packed image"},
	    {"image-cache", 0, Q3_OPT_STRING, &o->image_cache, NULL, 0, 0, "DIR",
	     "folder where packed images are kept (default: nowhere)"},
	    {"prefix-cache", 0, Q3_OPT_STRING, &o->prefix_cache, NULL, 0, 0, "on|off",
	     "compute what prompts have in common at their beginnings once (default: on)"},
	    Q3_TOOL_KV_OPTION(*m),
	    Q3_TOOL_BITS_OPTION(*m),
	    Q3_TOOL_EXACT_OPTION(*m),
	};
	const q3_command_line c = {.name = "serve",
	                           .operands = "",
	                           .summary =
	                               "Serves a model to the backends of one PostgreSQL cluster.",
	                           .options = options,
	                           .n_options = sizeof(options) / sizeof(options[0])};
	int code = q3_options_parse(&c, argc, argv, NULL);

	if (code >= 0)
		return code;
	code = q3_tool_model_check(m, c.name);
	if (code != 0)
		return code;
	if (o->known_digest != NULL &&
	    (strlen(o->known_digest) != 64 || strspn(o->known_digest, "0123456789abcdef") != 64))
		return q3_tool_usage(c.name, "option --known-digest needs 64 lower-case hex digits");
	if (o->prefix_cache != NULL && strcmp(o->prefix_cache, "on") != 0 &&
	    strcmp(o->prefix_cache, "off") != 0)
		return q3_tool_usage(c.name, "option --prefix-cache must be \"on\" or \"off\"");
	if ((o->listen_fd >= 0) == (o->socket_path != NULL))
		return q3_tool_usage(c.name, "exactly one of --listen-fd and --socket is required");
	return -1;
}

int
q3_tool_serve(int argc, char **argv)
{
	serve_options o = {.listen_fd = -1, .control_fd = -1};
	q3_service_config config = {0};
	q3_error err = {0};
	int code = parse(&o, argc, argv);

	if (code >= 0)
		return code;
	if (o.control_fd >= 0 && !q3_process_bind_to_parent())
		return 0;
	q3_process_close_others((int[]){o.listen_fd, o.control_fd, o.image_fd}, 3);
	q3_process_prefer_oom();
	q3_process_raise_file_limit();
	config.signal_fd = q3_process_signals(o.control_fd >= 0);
	if (config.signal_fd < 0)
	{
		q3_fail(&err, Q3_ERR_IO, "could not set up signals: %s", strerror(errno));
		return q3_tool_error(&err);
	}
	config.listen_fd = o.listen_fd >= 0 ? o.listen_fd : listen_at(o.socket_path, &err);
	if (config.listen_fd < 0)
		return q3_tool_error(&err);
	config.control_fd = o.control_fd;
	config.model_path = o.model.path;
	config.known_digest = o.known_digest;
	config.image_fd = o.image_fd;
	config.image_cache = o.image_cache;
	config.runtime = (q3_runtime_options){
	    .threads = o.model.threads,
	    .context_length = o.model.context_length,
	    .max_batch_tokens = o.model.max_batch_tokens,
	    .kv_bytes = o.model.kv_bytes,
	    .kv_f32 = o.model.kv == NULL || strcmp(o.model.kv, "f32") == 0,
	    .efficient_bits = o.model.efficient_bits,
	    .exact_weights = o.model.exact_weights,
	    .no_prefix_cache = o.prefix_cache != NULL && strcmp(o.prefix_cache, "off") == 0};
	code = q3_service_run(&config);
	if (o.socket_path != NULL)
		unlink(o.socket_path);
	return code;
}
