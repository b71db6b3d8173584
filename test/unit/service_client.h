/*
 * service_client.h: a small client of the engine's socket, and starting and ending an engine, for
 * tests. The engine is a forked child that runs q3_service_run() on a socket pair and a listening
 * socket without a name. Whatever cannot happen in a sound system fails the test; nothing waits
 * longer than WAIT_MS.
 */
#ifndef TEST_SERVICE_CLIENT_H
#define TEST_SERVICE_CLIENT_H

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/buffer.h"
#include "engine/process.h"
#include "engine/service.h"

#define WAIT_MS 20000

typedef struct engine
{
	pid_t pid;
	int control;
	struct sockaddr_un address;
	q3_buffer said; /* by the control socket */
} engine;

typedef struct client
{
	int fd;
	q3_buffer in;
} client;

/* A frame from the engine; the payload is malloc'ed. */
typedef struct frame
{
	q3p_header header;
	char *payload;
} frame;

static inline double
now_ms(void)
{
	return (double) q3_now_ns() / 1e6;
}

/* ---------------------------------------------------------------------------------------------
 * Frames
 * --------------------------------------------------------------------------------------------- */

static inline void
send_bytes(int fd, const void *data, size_t n)
{
	const char *p = data;

	while (n > 0)
	{
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return; /* closed on us: the reader will see it */
		p += sent;
		n -= (size_t) sent;
	}
}

/* Reads a frame; false at the end of the stream. */
static inline bool
read_frame(int fd, q3_buffer *in, frame *f)
{
	double until = now_ms() + WAIT_MS;

	for (;;)
	{
		struct pollfd p = {.fd = fd, .events = POLLIN};
		char data[65536];
		ssize_t n;
		int found = 0;

		if (q3_buffer_len(in) > 0)
			found = q3p_frame(q3_buffer_bytes(in), q3_buffer_len(in), &f->header);
		assert_true(found >= 0);
		if (found > 0)
			break;
		if (now_ms() > until || poll(&p, 1, WAIT_MS) <= 0)
			fail_msg("no frame within %d ms", WAIT_MS);
		n = recv(fd, data, sizeof(data), 0);
		if (n <= 0)
		{
			assert_int_equal(q3_buffer_len(in), 0); /* never a part of a frame */
			return false;
		}
		assert_true(q3_buffer_append(in, data, (size_t) n));
	}
	f->payload = malloc(f->header.length + 1);
	assert_non_null(f->payload);
	memcpy(f->payload, q3_buffer_bytes(in) + sizeof(q3p_header), f->header.length);
	q3_buffer_consume(in, sizeof(q3p_header) + f->header.length);
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * The engine
 * --------------------------------------------------------------------------------------------- */

static inline int
listen_somewhere(struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	socklen_t len = sizeof(*address);
	sa_family_t family = AF_UNIX;

	/* Linux picks a free abstract name. */
	assert_true(fd >= 0 && bind(fd, (struct sockaddr *) &family, sizeof(family)) == 0);
	assert_int_equal(listen(fd, 64), 0);
	memset(address, 0, sizeof(*address));
	assert_int_equal(getsockname(fd, (struct sockaddr *) address, &len), 0);
	address->sun_path[len - sizeof(family)] = '\0';
	return fd;
}

static inline socklen_t
address_len(const struct sockaddr_un *address)
{
	return (socklen_t) (sizeof(sa_family_t) + 1 + strlen(address->sun_path + 1));
}

static inline void
engine_child(const char *model, const q3_runtime_options *runtime, int listener, int control)
{
	q3_service_config config = {.model_path = model,
	                            .runtime = *runtime,
	                            .listen_fd = listener,
	                            .control_fd = control,
	                            .signal_fd = -1};

	int keep[] = {listener, control};

	q3_process_close_others(keep, 2);
	q3_process_bind_to_parent();
	config.signal_fd = q3_process_signals(true);
	exit(q3_service_run(&config)); /* exit and not _exit: the leak checker has a look */
}

static inline void
engine_start(engine *e, const char *model, const q3_runtime_options *runtime)
{
	int pair[2], listener;

	memset(e, 0, sizeof(*e));
	listener = listen_somewhere(&e->address);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	fflush(NULL);
	e->pid = fork();
	assert_true(e->pid >= 0);
	if (e->pid == 0)
	{
		close(pair[0]);
		engine_child(model, runtime, listener, pair[1]);
	}
	close(pair[1]);
	close(listener);
	e->control = pair[0];
}

/* The next frame of that type from the control socket; others are dropped. False at its end. */
static inline bool
engine_frame(engine *e, q3p_type type, frame *f)
{
	while (read_frame(e->control, &e->said, f))
	{
		if (f->header.type == (uint32_t) type)
			return true;
		assert_true(f->header.type == Q3P_STATUS || f->header.type == Q3P_USAGE ||
		            f->header.type == Q3P_SHADOW);
		free(f->payload);
	}
	return false;
}

/* The next status; false at the end of the control socket. The strings belong to *f. */
static inline bool
engine_status(engine *e, q3p_status *status, frame *f)
{
	if (!engine_frame(e, Q3P_STATUS, f))
		return false;
	assert_true(q3p_status_decode(f->payload, f->header.length, status));
	return true;
}

/* The next report of what a request used. */
static inline q3p_usage
engine_usage(engine *e, frame *f)
{
	q3p_usage usage;

	assert_true(engine_frame(e, Q3P_USAGE, f));
	assert_true(q3p_usage_decode(f->payload, f->header.length, &usage));
	return usage;
}

/* The next outcome of a shadow run. No request's usage may be told before it. */
static inline q3p_shadow
engine_shadow(engine *e, frame *f)
{
	q3p_shadow shadow;

	while (read_frame(e->control, &e->said, f) && f->header.type != Q3P_SHADOW)
	{
		assert_int_equal(f->header.type, Q3P_STATUS);
		free(f->payload);
	}
	assert_int_equal(f->header.type, Q3P_SHADOW);
	assert_true(q3p_shadow_decode(f->payload, f->header.length, &shadow));
	return shadow;
}

static inline void
engine_wait_ready(engine *e)
{
	q3p_status status;
	frame f;

	do
	{
		assert_true(engine_status(e, &status, &f));
		free(f.payload);
		assert_int_not_equal(status.state, Q3P_FAILED);
	} while (status.state != Q3P_READY);
}

/* Waits for the process to end; its exit code, or -1 when it was killed. */
static inline int
engine_reap(engine *e)
{
	double until = now_ms() + WAIT_MS;
	int status = 0;

	while (waitpid(e->pid, &status, WNOHANG) == 0)
	{
		if (now_ms() > until)
		{
			kill(e->pid, SIGKILL);
			fail_msg("the engine does not end");
		}
		usleep(1000);
	}
	if (e->control >= 0)
		close(e->control);
	q3_buffer_free(&e->said);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline int
engine_stop(engine *e)
{
	kill(e->pid, SIGTERM);
	return engine_reap(e);
}

/* ---------------------------------------------------------------------------------------------
 * Clients
 * --------------------------------------------------------------------------------------------- */

static inline void
client_connect(client *c, const engine *e)
{
	memset(c, 0, sizeof(*c));
	c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_true(c->fd >= 0);
	assert_int_equal(
	    connect(c->fd, (const struct sockaddr *) &e->address, address_len(&e->address)), 0);
}

static inline void
client_hello(client *c, uint32_t version)
{
	q3p_hello hello = {.version = version, .pid = getpid(), .role = 10, .database = 5};
	char out[256];
	size_t n = q3p_hello_encode(&hello, out, sizeof(out));

	assert_true(n <= sizeof(out));
	send_bytes(c->fd, out, n);
}

static inline void
client_open(client *c, const engine *e)
{
	client_connect(c, e);
	client_hello(c, Q3P_VERSION);
}

static inline void
client_close(client *c)
{
	close(c->fd);
	q3_buffer_free(&c->in);
}

static inline void
client_request_lists(client *c, uint64_t id, const q3p_request *m, const q3p_lists *lists)
{
	size_t size = q3p_request_encode(id, m, lists, NULL, 0);
	char *out = malloc(size);

	assert_true(size > 0);
	assert_non_null(out);
	assert_int_equal(q3p_request_encode(id, m, lists, out, size), size);
	send_bytes(c->fd, out, size);
	free(out);
}

static inline void
client_request_labels(client *c, uint64_t id, const q3p_request *m, const q3p_bytes *stops,
                      const q3p_bytes *labels)
{
	q3p_lists lists = {.stops = stops, .labels = labels};

	client_request_lists(c, id, m, &lists);
}

static inline void
client_request(client *c, uint64_t id, const q3p_request *m, const q3p_bytes *stops)
{
	client_request_labels(c, id, m, stops, NULL);
}

static inline void
client_plain(client *c, q3p_type type, uint64_t id)
{
	char out[64];
	size_t n = q3p_plain_encode(type, id, NULL, 0, out, sizeof(out));

	send_bytes(c->fd, out, n);
}

static inline frame
client_frame(client *c)
{
	frame f;

	assert_true(read_frame(c->fd, &c->in, &f));
	return f;
}

/* The next frame must be a result; its strings belong to *f. */
static inline q3p_result
client_result(client *c, frame *f)
{
	q3p_result result;

	*f = client_frame(c);
	if (f->header.type == Q3P_ERROR)
	{
		q3p_error error;

		assert_true(q3p_error_decode(f->payload, f->header.length, &error));
		fail_msg("%s: %.*s", error.sqlstate, (int) error.message.len, error.message.data);
	}
	assert_int_equal(f->header.type, Q3P_RESULT);
	assert_true(q3p_result_decode(f->payload, f->header.length, &result));
	return result;
}

/* The next frame must be this error. */
static inline void
client_expect_error(client *c, uint64_t id, const char *sqlstate, const char *part)
{
	frame f = client_frame(c);
	q3p_error error;
	char message[512];

	assert_int_equal(f.header.type, Q3P_ERROR);
	assert_int_equal(f.header.id, id);
	assert_true(q3p_error_decode(f.payload, f.header.length, &error));
	assert_string_equal(error.sqlstate, sqlstate);
	snprintf(message, sizeof(message), "%.*s", (int) error.message.len, error.message.data);
	if (strstr(message, part) == NULL)
		fail_msg("message is \"%s\"", message);
	free(f.payload);
}

static inline void
client_expect_end(client *c)
{
	frame f;

	assert_false(read_frame(c->fd, &c->in, &f));
}

/* The engine's live requests, copied to rows[max]; their number. */
static inline uint32_t
client_activity(client *c, q3p_activity *rows, uint32_t max)
{
	frame f;
	uint32_t n;

	client_plain(c, Q3P_ACTIVITY, 0);
	f = client_frame(c);
	assert_int_equal(f.header.type, Q3P_ACTIVITY_RESULT);
	assert_true(q3p_activity_decode(f.payload, f.header.length, &n));
	for (uint32_t i = 0; i < n && i < max; i++)
		q3p_activity_get(f.payload, i, &rows[i]);
	free(f.payload);
	return n;
}

#endif
