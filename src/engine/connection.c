/*
 * connection.c: one client's bytes: accepting, reading frames, sending what answers leave behind.
 *
 * Runs on the I/O thread, which owns every connection. Memory stays bounded for a client that does
 * not read: above OUT_FULL bytes of unsent output its requests are no longer read and its streams
 * pause (their text gathers in the answers, which max_tokens bounds).
 */
#include "engine/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUT_FULL (1024 * 1024)
/* Payloads from this size on are not copied: the request takes the input buffer. */
#define STEAL (128 * 1024)

bool
q3_io_watch(q3_io *io, q3_source *source, uint32_t events, bool add)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	return epoll_ctl(io->epoll_fd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, source->fd, &event) == 0;
}

bool
q3_conn_is_full(const q3_conn *conn)
{
	return q3_buffer_len(&conn->out) > OUT_FULL;
}

/* Watches for what the connection can make use of now. */
static void
update_watch(q3_io *io, q3_conn *conn)
{
	uint32_t events = EPOLLRDHUP;

	if (!q3_conn_is_full(conn))
		events |= EPOLLIN;
	if (q3_buffer_len(&conn->out) > 0)
		events |= EPOLLOUT;
	if (events == conn->watched)
		return;
	conn->watched = events;
	if (!q3_io_watch(io, &conn->source, events, false))
		q3_conn_close(io, conn);
}

/* ---------------------------------------------------------------------------------------------
 * Output
 * --------------------------------------------------------------------------------------------- */

char *
q3_conn_reserve(q3_io *io, q3_conn *conn, size_t n)
{
	char *room = conn->closed ? NULL : q3_buffer_reserve(&conn->out, n);

	if (room == NULL)
		q3_conn_close(io, conn);
	return room;
}

/* At the end of the round it is looked at. */
static void
mark_dirty(q3_io *io, q3_conn *conn)
{
	if (conn->dirty)
		return;
	conn->dirty = true;
	conn->dirty_next = io->dirty;
	io->dirty = conn;
}

void
q3_conn_sent(q3_io *io, q3_conn *conn, size_t n)
{
	conn->out.end += n;
	conn->n_written += n;
	mark_dirty(io, conn);
}

static void
flush(q3_io *io, q3_conn *conn)
{
	while (q3_buffer_len(&conn->out) > 0)
	{
		ssize_t n = send(conn->source.fd, q3_buffer_bytes(&conn->out), q3_buffer_len(&conn->out),
		                 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
		{
			q3_conn_close(io, conn);
			return;
		}
		if (n < 0)
			break;
		q3_buffer_consume(&conn->out, (size_t) n);
		conn->n_sent += (uint64_t) n;
	}
	q3_usage_delivered(conn);
	update_watch(io, conn);
}

/* ---------------------------------------------------------------------------------------------
 * Input
 * --------------------------------------------------------------------------------------------- */

/*
 * Gives the request a large frame's own buffer; what follows the frame moves to a new one. False:
 * the connection is to be closed.
 */
static bool
steal_request(q3_io *io, q3_conn *conn, const q3p_header *header)
{
	size_t frame = sizeof(*header) + header->length;
	q3_buffer old = conn->in, rest = {0};

	if (!q3_buffer_append(&rest, q3_buffer_bytes(&old) + frame, q3_buffer_len(&old) - frame))
		return false;
	conn->in = rest;
	if (q3_answer_request(io, conn, header->id, old.data, q3_buffer_bytes(&old) + sizeof(*header),
	                      header->length))
		return true;
	q3_buffer_free(&old);
	return false;
}

/*
 * Handles the whole frames that are there, as long as there is room for answers. False: the
 * connection is to be closed.
 */
static bool
handle_frames(q3_io *io, q3_conn *conn)
{
	q3p_header header;
	int found = 0;

	while (q3_buffer_len(&conn->in) > 0 && !q3_conn_is_full(conn) &&
	       (found = q3p_frame(q3_buffer_bytes(&conn->in), q3_buffer_len(&conn->in), &header)) > 0)
	{
		bool ok;

		if (header.type == Q3P_REQUEST && header.length >= STEAL && conn->greeted)
			ok = steal_request(io, conn, &header);
		else
		{
			ok =
			    q3_answer_frame(io, conn, &header, q3_buffer_bytes(&conn->in) + sizeof(q3p_header));
			q3_buffer_consume(&conn->in, sizeof(q3p_header) + header.length);
		}
		if (!ok || conn->closed)
			return false;
	}
	return found >= 0;
}

static void
handle_input(q3_io *io, q3_conn *conn)
{
	if (handle_frames(io, conn))
	{
		update_watch(io, conn);
		return;
	}
	if (!conn->closed)
		flush(io, conn); /* the error that says why, if there is one */
	q3_conn_close(io, conn);
}

void
q3_conn_flush_all(q3_io *io)
{
	while (io->dirty != NULL)
	{
		q3_conn *conn = io->dirty;
		bool was_full = q3_conn_is_full(conn);

		io->dirty = conn->dirty_next;
		conn->dirty = false;
		if (!conn->closed)
			flush(io, conn);
		/* Frames may have been left lying when the output was full. */
		if (was_full && !conn->closed && !q3_conn_is_full(conn))
			handle_input(io, conn);
	}
}

static void
on_client(q3_io *io, q3_source *source, uint32_t events)
{
	q3_conn *conn = (q3_conn *) source;
	ssize_t n;

	if (conn->closed)
		return;
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
	{
		q3_conn_close(io, conn);
		return;
	}
	if (events & EPOLLOUT)
		mark_dirty(io, conn);
	if (!(events & EPOLLIN))
		return;
	n = recv(source->fd, io->scratch, sizeof(io->scratch), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return;
	if (n <= 0)
	{
		q3_conn_close(io, conn);
		return;
	}
	if (q3_buffer_append(&conn->in, io->scratch, (size_t) n))
		handle_input(io, conn);
	else
		q3_conn_close(io, conn);
}

/* ---------------------------------------------------------------------------------------------
 * Coming and going
 * --------------------------------------------------------------------------------------------- */

/* Only the server's own user, and root, may talk to the engine. */
static bool
welcome(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
		return false;
	return peer.uid == geteuid() || peer.uid == 0;
}

static void
open_connection(q3_io *io, int fd)
{
	q3_conn *conn = calloc(1, sizeof(*conn));

	if (conn == NULL)
	{
		close(fd);
		return;
	}
	conn->source = (q3_source){.ready = on_client, .fd = fd};
	conn->watched = EPOLLIN | EPOLLRDHUP;
	if (!q3_io_watch(io, &conn->source, conn->watched, true))
	{
		close(fd);
		free(conn);
		return;
	}
	conn->next = io->conns;
	if (io->conns != NULL)
		io->conns->prev = conn;
	io->conns = conn;
}

void
q3_conn_accept(q3_io *io, q3_source *listener, uint32_t events)
{
	(void) events;
	for (int i = 0; i < 64; i++)
	{
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
		{
			/* Out of descriptors or memory: the client stays in the backlog. */
			io->accept_paused = true;
			q3_io_watch(io, listener, 0, false);
		}
		if (fd < 0)
			return;
		if (welcome(fd))
			open_connection(io, fd);
		else
			close(fd);
	}
}

void
q3_conn_close(q3_io *io, q3_conn *conn)
{
	if (conn->closed)
		return;
	conn->closed = true;
	q3_usage_delivered(conn);
	q3_usage_undelivered(io, conn);
	q3_answer_drop(io, conn);
	close(conn->source.fd); /* also ends the watch */
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		io->conns = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	conn->next = io->graveyard;
	io->graveyard = conn;
}

void
q3_conn_free_closed(q3_io *io)
{
	while (io->graveyard != NULL)
	{
		q3_conn *conn = io->graveyard;

		io->graveyard = conn->next;
		q3_buffer_free(&conn->in);
		q3_buffer_free(&conn->out);
		q3_buffer_free(&conn->receipts);
		free(conn);
	}
}
