/*
 * io.h: what the files of the event loop share: service.c (loop, status), connection.c (bytes and
 * frames of one client), answer.c (requests and their answers), usage.c (what requests used),
 * shadow.c (shadow runs). One thread runs all of it.
 */
#ifndef Q3_IO_H
#define Q3_IO_H

#include "engine/quota.h"
#include "engine/service.h"

typedef struct q3_io q3_io;

/* Anything that epoll watches: its address is the event's data. */
typedef struct q3_source
{
	void (*ready)(q3_io *io, struct q3_source *source, uint32_t events);
	int fd;
} q3_source;

/* A client. */
typedef struct q3_conn
{
	q3_source source; /* first: a source's address is the connection's */
	struct q3_conn *prev, *next;
	struct q3_conn *dirty_next; /* has output to send at the end of the round */
	bool dirty, closed;
	bool greeted; /* HELLO has come */
	uint32_t watched;
	q3p_hello client;
	q3_buffer in, out;
	uint64_t n_written, n_sent; /* bytes ever put into out; of them, that the kernel has */
	q3_buffer receipts;         /* of answers in out; usage.c */
	q3_request *requests;       /* not answered yet, newest first */
	int32_t n_requests;
} q3_conn;

/* Answered requests that are to be computed again when there is nothing else to do. */
typedef struct q3_shadows
{
	q3_request *head, **end; /* linked by next */
	int32_t n;
	size_t bytes;        /* of their frames */
	q3_request *running; /* the threads have it; not one of the list */
} q3_shadows;

struct q3_io
{
	const q3_service_config *config;
	int epoll_fd;
	q3_source listener, control, signals, wake;
	bool accept_paused; /* out of descriptors; until one is free or a second has passed */
	bool quit;
	int exit_code;
	q3_workers *workers;
	q3_workers_state state; /* as last looked at */

	q3_conn *conns;
	q3_conn *dirty;
	q3_conn *graveyard; /* closed in this round, linked by next */
	q3_request *all;    /* every client's request that has not come back from the threads */
	uint64_t idle_ns;   /* when the last one came back */
	size_t lent_bytes;  /* of their frames */
	q3_quota *quota;
	q3_shadows shadows;

	q3_buffer control_out;
	int image_due;   /* descriptor that the worker is to be given; -1: none */
	bool status_due; /* something changed since the last status */
	uint64_t status_ns;
	uint64_t n_requests, n_errors, n_prompt_tokens, n_output_tokens, n_classified;

	/* Bytes taken from one client in a round, so that all have their turn. */
	char scratch[256 * 1024];
};

/* connection.c */
extern void q3_conn_accept(q3_io *io, q3_source *listener, uint32_t events);
/* Cancels its requests; the struct lives to the end of the round. */
extern void q3_conn_close(q3_io *io, q3_conn *conn);
/* Sends what the round has left in the output buffers. */
extern void q3_conn_flush_all(q3_io *io);
extern void q3_conn_free_closed(q3_io *io);
/* Room for n bytes of output, to be counted in with q3_conn_sent(); NULL: connection closed. */
extern char *q3_conn_reserve(q3_io *io, q3_conn *conn, size_t n);
extern void q3_conn_sent(q3_io *io, q3_conn *conn, size_t n);
/* The client reads too slowly: send nothing that can wait. */
extern bool q3_conn_is_full(const q3_conn *conn);
/* Adds or changes a watch; false on failure. */
extern bool q3_io_watch(q3_io *io, q3_source *source, uint32_t events, bool add);

/* answer.c */
/* A whole frame from a client; false: malformed, close the connection. */
extern bool q3_answer_frame(q3_io *io, q3_conn *conn, const q3p_header *header,
                            const char *payload);
/*
 * A REQUEST whose payload lies in a malloc'ed frame that becomes the request's. False: malformed,
 * the frame is still the caller's.
 */
extern bool q3_answer_request(q3_io *io, q3_conn *conn, uint64_t id, char *frame,
                              const char *payload, size_t length);
/* Cancels all of a connection's requests; their answers are dropped. */
extern void q3_answer_drop(q3_io *io, q3_conn *conn);
/* Takes what the threads have finished. */
extern void q3_answer_collect(q3_io *io);
/* Frees the requests that no thread has. */
extern void q3_answer_stop(q3_io *io);

/* shadow.c */
extern void q3_shadow_init(q3_io *io);
extern void q3_shadow_stop(q3_io *io);
/* Takes the request, which has been answered, for a shadow run; false: it wants none, or no room.
 */
extern bool q3_shadow_keep(q3_io *io, q3_request *r);
/* Milliseconds until q3_shadow_start() may have something to do; -1: some event comes before. */
extern int q3_shadow_wait(const q3_io *io);
/* Lends the next one to the threads if there is nothing else to do. */
extern void q3_shadow_start(q3_io *io);
/* The run has come back: tells the worker, and frees it. */
extern void q3_shadow_ended(q3_io *io, q3_request *r);

/* usage.c */
/* What the request has used, as its answer tells; its strings are the request's. */
extern q3p_usage q3_usage_of(const q3_request *r);
/* Tells the worker. */
extern void q3_usage_tell(q3_io *io, const q3p_usage *u);
/* The answer that tells this is at the end of the connection's output. */
extern void q3_usage_answered(q3_conn *conn, const q3p_usage *u);
/* After n_sent has grown. */
extern void q3_usage_delivered(q3_conn *conn);
/* The connection is closed: tells the worker about the answers in its output. */
extern void q3_usage_undelivered(q3_io *io, q3_conn *conn);

#endif
