/*
 * service.c: the event loop, and what the worker is told over the control socket.
 *
 * Everything here runs on the thread that called q3_service_run(), which owns the q3_io and all
 * connections and requests; the worker threads are behind engine/workers.h.
 */
#include "engine/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(Q3_IMAGE_BUILT == (int) Q3P_IMAGE_BUILT && Q3_IMAGE_KEPT == (int) Q3P_IMAGE_KEPT &&
                   Q3_IMAGE_CACHED == (int) Q3P_IMAGE_CACHED,
               "model and protocol number sources of images alike");

#define SECOND_NS 1000000000u
/* How long a step or a tokenization may go on after a request to stop. */
#define STOP_MS 300

/* ---------------------------------------------------------------------------------------------
 * Status
 * --------------------------------------------------------------------------------------------- */

static q3p_bytes
bytes_of(const char *s)
{
	return s != NULL && s[0] != '\0' ? (q3p_bytes){.data = s, .len = strlen(s)}
	                                 : (q3p_bytes){.data = NULL, .len = 0};
}

static void
fill_counters(const q3_io *io, q3p_status *m)
{
	m->requests = io->n_requests;
	m->errors = io->n_errors;
	m->prompt_tokens = io->n_prompt_tokens;
	m->output_tokens = io->n_output_tokens;
	m->classified = io->n_classified;
	for (q3_request *r = io->all; r != NULL; r = r->all_next)
	{
		if (atomic_load(&r->job.phase) == Q3_PHASE_QUEUED)
			m->queued++;
		else
			m->running++;
	}
}

static void
fill_status(const q3_io *io, q3p_status *m)
{
	const q3_workers_state *s = &io->state;

	memset(m, 0, sizeof(*m));
	m->state = s->state;
	m->progress = s->progress;
	m->load_ms = s->load_ms;
	m->device = bytes_of("cpu");
	m->device_reason = bytes_of("this engine computes on the CPU");
	fill_counters(io, m);
	if (s->state == Q3P_FAILED)
	{
		m->message = bytes_of(s->error.message);
		m->detail = bytes_of(s->error.detail);
		m->hint = bytes_of(s->error.hint);
	}
	if (s->state != Q3P_READY)
		return;
	m->threads = s->runtime.threads;
	m->context_length = s->runtime.context_length;
	m->max_batch_tokens = s->runtime.max_batch_tokens;
	m->kv_blocks = s->runtime.kv_blocks;
	m->kv_blocks_free = s->runtime.kv_blocks_free;
	m->n_embd = s->model->n_embd;
	m->kv_block_tokens = s->runtime.kv_block_tokens;
	m->prefix_blocks = s->runtime.prefix_blocks;
	m->pinned_blocks = s->runtime.pinned_blocks;
	m->evictions = s->runtime.evictions;
	m->cached_tokens = s->scheduler.cached_tokens;
	m->deduplicated = s->scheduler.deduplicated;
	m->steps = s->scheduler.steps;
	m->kv_bytes = s->runtime.kv_bytes;
	m->scratch_bytes = s->runtime.scratch_bytes;
	m->isa = bytes_of(s->runtime.isa);
	m->precision = bytes_of(s->runtime.precision);
	m->image_bytes = s->image->bytes;
	m->image = s->image->source;
	m->n_params = s->model->n_params;
	m->weight_bytes = s->model->weight_bytes;
	m->architecture = bytes_of(s->model->architecture);
	m->name = bytes_of(s->model->name);
	m->weight_type = bytes_of(s->model->weight_type);
	m->digest = bytes_of(s->model->digest);
}

/* Sends a part of the output, and beside its first byte the image if that is due. */
static ssize_t
send_control(q3_io *io)
{
	struct iovec iov = {(void *) q3_buffer_bytes(&io->control_out),
	                    q3_buffer_len(&io->control_out)};
	union
	{
		struct cmsghdr header; /* for the alignment */
		char room[CMSG_SPACE(sizeof(int))];
	} rights = {.room = {0}};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (io->image_due >= 0)
	{
		struct cmsghdr *c = &rights.header;

		m.msg_control = rights.room;
		m.msg_controllen = sizeof(rights.room);
		*c = (struct cmsghdr){
		    .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(c), &io->image_due, sizeof(int));
	}
	n = sendmsg(io->control.fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		io->image_due = -1;
	return n;
}

/* Sends what it can; the rest waits until the worker has read. */
static void
flush_control(q3_io *io)
{
	while (q3_buffer_len(&io->control_out) > 0)
	{
		ssize_t n = send_control(io);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break; /* full; or broken, which the loop notices as the end of the socket */
		q3_buffer_consume(&io->control_out, (size_t) n);
	}
	q3_io_watch(io, &io->control,
	            q3_buffer_len(&io->control_out) > 0 ? EPOLLIN | EPOLLOUT : EPOLLIN, false);
}

static void
send_status(q3_io *io)
{
	q3p_status m;
	size_t size;
	char *room;

	io->status_due = false;
	io->status_ns = q3_now_ns();
	if (io->control.fd < 0)
		return;
	fill_status(io, &m);
	size = q3p_status_encode(&m, NULL, 0);
	room = q3_buffer_reserve(&io->control_out, size);
	if (room != NULL)
		io->control_out.end += q3p_status_encode(&m, room, size);
	flush_control(io);
}

/* The worker should still get the reason of a failure when it is slow to read. */
static void
drain_control(q3_io *io)
{
	uint64_t until = q3_now_ns() + SECOND_NS;

	while (q3_buffer_len(&io->control_out) > 0 && q3_now_ns() < until)
	{
		struct pollfd p = {.fd = io->control.fd, .events = POLLOUT};

		if (poll(&p, 1, 100) < 0 || (p.revents & (POLLERR | POLLHUP)))
			return;
		flush_control(io);
	}
}

/* Milliseconds until a changed status may be sent; -1: nothing to wait for. */
static int
status_wait(const q3_io *io)
{
	uint64_t now = q3_now_ns(), due = io->status_ns + SECOND_NS;

	if (!io->status_due || io->control.fd < 0 || q3_buffer_len(&io->control_out) > 0)
		return -1;
	return now >= due ? 0 : (int) ((due - now) / 1000000) + 1;
}

/* ---------------------------------------------------------------------------------------------
 * Events
 * --------------------------------------------------------------------------------------------- */

static void
log_state(const q3_io *io)
{
	const q3_workers_state *s = &io->state;

	if (s->state == Q3P_READY)
		fprintf(stderr, "qwen3dm-engine: ready: %s, %s, %.0f ms; %s; image %s\n",
		        s->model->architecture, s->runtime.isa, s->load_ms, s->runtime.precision,
		        q3p_image_name(s->image->source));
	if (s->state == Q3P_READY && s->image->problem[0] != '\0')
		fprintf(stderr, "qwen3dm-engine: %s\n", s->image->problem);
	if (s->state == Q3P_FAILED)
		fprintf(stderr, "qwen3dm-engine: could not load model: %s\n", s->error.message);
}

/* Looks whether loading has got on; what changes then is told at once. */
static void
refresh_state(q3_io *io)
{
	q3p_state before = io->state.state;
	double progress = io->state.progress;

	q3_workers_get_state(io->workers, &io->state);
	if (io->state.state == Q3P_READY && before != Q3P_READY &&
	    (io->state.image->source == Q3_IMAGE_BUILT || io->state.image->source == Q3_IMAGE_CACHED))
		io->image_due = io->state.image->fd;
	if (io->state.state != before || io->state.progress != progress)
		send_status(io);
	if (io->state.state != before)
		log_state(io);
	if (io->state.state == Q3P_FAILED)
	{
		drain_control(io);
		io->quit = true;
		io->exit_code = Q3_EXIT_FAILED;
	}
}

static void
on_wake(q3_io *io, q3_source *source, uint32_t events)
{
	uint64_t n;

	(void) events;
	if (read(source->fd, &n, sizeof(n)) < 0 && errno != EAGAIN && errno != EINTR)
		io->quit = true;
	refresh_state(io);
	q3_answer_collect(io);
}

static void
on_control(q3_io *io, q3_source *source, uint32_t events)
{
	char unused[256];
	ssize_t n;

	if (events & EPOLLOUT)
		flush_control(io);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(source->fd, unused, sizeof(unused), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
		_exit(Q3_EXIT_OK); /* the worker is gone: nobody is left to answer or to wait for */
}

static void
on_signal(q3_io *io, q3_source *source, uint32_t events)
{
	(void) source;
	(void) events;
	io->quit = true;
}

static void
resume_accepting(q3_io *io)
{
	if (!io->accept_paused)
		return;
	io->accept_paused = false;
	q3_io_watch(io, &io->listener, EPOLLIN, false);
}

/* ---------------------------------------------------------------------------------------------
 * The loop
 * --------------------------------------------------------------------------------------------- */

/* The shorter of two waits; -1 is one without end. */
static int
shorter(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void
run_round(q3_io *io)
{
	struct epoll_event events[64];
	int timeout = shorter(status_wait(io), q3_shadow_wait(io));
	int n;

	if (io->accept_paused)
		timeout = shorter(timeout, 1000);
	n = epoll_wait(io->epoll_fd, events, 64, timeout);
	if (n == 0 || io->graveyard != NULL)
		resume_accepting(io);
	for (int i = 0; i < n && !io->quit; i++)
	{
		q3_source *source = events[i].data.ptr;

		source->ready(io, source, events[i].events);
	}
	q3_conn_flush_all(io);
	if (io->graveyard != NULL)
		resume_accepting(io);
	q3_conn_free_closed(io);
	if (!io->quit)
		q3_shadow_start(io);
	if (q3_buffer_len(&io->control_out) > 0) /* what requests used, and what shadow runs found */
		flush_control(io);
	if (status_wait(io) == 0)
	{
		q3_workers_get_state(io->workers, &io->state);
		send_status(io);
		io->status_due = io->all != NULL; /* while there is work, once a second */
	}
}

static bool
open_sources(q3_io *io)
{
	const q3_service_config *c = io->config;

	io->listener = (q3_source){.ready = q3_conn_accept, .fd = c->listen_fd};
	io->control = (q3_source){.ready = on_control, .fd = c->control_fd};
	io->signals = (q3_source){.ready = on_signal, .fd = c->signal_fd};
	io->wake = (q3_source){.ready = on_wake, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	io->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (io->epoll_fd < 0 || io->wake.fd < 0)
		return false;
	/* A client may give up between the event and accept(). */
	if (fcntl(c->listen_fd, F_SETFL, fcntl(c->listen_fd, F_GETFL) | O_NONBLOCK) < 0)
		return false;
	if (io->control.fd >= 0 && !q3_io_watch(io, &io->control, EPOLLIN, true))
		return false;
	if (io->signals.fd >= 0 && !q3_io_watch(io, &io->signals, EPOLLIN, true))
		return false;
	return q3_io_watch(io, &io->wake, EPOLLIN, true) &&
	       q3_io_watch(io, &io->listener, EPOLLIN, true);
}

static bool
start(q3_io *io)
{
	q3_workers_config config = {.model_path = io->config->model_path,
	                            .known_digest = io->config->known_digest,
	                            .image_fd = io->config->image_fd,
	                            .image_cache = io->config->image_cache,
	                            .runtime = io->config->runtime};

	io->state.state = Q3P_STARTING;
	if (!open_sources(io))
	{
		q3_fail(&io->state.error, Q3_ERR_IO, "could not set up event loop: %s", strerror(errno));
		return false;
	}
	send_status(io);
	io->quota = q3_quota_create();
	if (io->quota == NULL)
	{
		q3_fail(&io->state.error, Q3_ERR_MEMORY, "out of memory");
		return false;
	}
	config.wake_fd = io->wake.fd;
	io->workers = q3_workers_start(&config, &io->state.error);
	return io->workers != NULL;
}

static void
stop(q3_io *io)
{
	int code = io->exit_code;

	if (io->workers != NULL)
	{
		if (!q3_workers_stop(io->workers, STOP_MS))
			_exit(code);
		/* The requests are in the outbox now, and freed with it. */
		while (io->conns != NULL)
		{
			io->conns->requests = NULL;
			q3_conn_close(io, io->conns);
		}
		q3_conn_free_closed(io);
		q3_answer_stop(io);
		q3_shadow_stop(io);
		q3_workers_free(io->workers);
	}
	q3_quota_free(io->quota);
	q3_buffer_free(&io->control_out);
	if (io->wake.fd >= 0)
		close(io->wake.fd);
	if (io->epoll_fd >= 0)
		close(io->epoll_fd);
}

int
q3_service_run(const q3_service_config *config)
{
	q3_io *io = calloc(1, sizeof(*io));
	int code;

	if (io == NULL)
		return Q3_EXIT_FAILED;
	io->config = config;
	io->image_due = -1;
	q3_shadow_init(io);
	if (!start(io))
	{
		io->state.state = Q3P_FAILED;
		send_status(io);
		drain_control(io);
		log_state(io);
		io->exit_code = Q3_EXIT_FAILED;
		io->quit = true;
	}
	while (!io->quit)
		run_round(io);
	stop(io);
	code = io->exit_code;
	free(io);
	return code;
}
