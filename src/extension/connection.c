/*
 * connection.c: one non-blocking Unix socket per backend and service, and the waiting.
 *
 * A socket is opened when the first call needs it and kept for the session. Buffers and the event
 * set live in the session's memory. All waiting is done here: for the latch, the engine's socket
 * and the client's, so that cancelling, timeouts, termination, barriers and a client that goes away
 * are served while the engine works. What the bytes mean is client.c's business.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "extension/connection.h"
#include "extension/failure.h"
#include "extension/frontend.h"
#include "extension/module.h"
#include "extension/shmem.h"

#define READ_SIZE 65536
#define READ_AT_ONCE (1024 * 1024) /* then interrupts are served */
#define KEEP_BUFFER (1024 * 1024)  /* a larger one is given back when it is empty */
#define POLL_MS 1000               /* for a state that no event announces */
#define POLL_CLIENT_MS 100         /* where the system does not report a closed socket */
#define NOT_STARTED_MS 5000        /* a worker that has not started by then will not */
#define NO_SOCKET_MS 2000          /* a ready engine whose socket is gone is noticed by then */

typedef struct Connection
{
	const Qwen3dmService service;
	pgsocket sock;
	WaitEventSet *events;
	int engine_pos; /* of the engine's socket in events */
	Oid role;       /* that HELLO named */
	StringInfoData in, out;
	int in_pos, out_pos;      /* consumed of in, sent of out */
	TimestampTz not_ready_at; /* since when a wait has seen the engine not ready; 0: it is */
} Connection;

static Connection connections[QWEN3DM_N_SERVICES] = {
    {.service = QWEN3DM_MAIN, .sock = PGINVALID_SOCKET},
    {.service = QWEN3DM_EMBEDDING, .sock = PGINVALID_SOCKET}};

/* ---------------------------------------------------------------------------------------------
 * Getting there
 * --------------------------------------------------------------------------------------------- */

static void
raise_status(Qwen3dmService service)
{
	Qwen3dmStatus status;
	Qwen3dmFailure failure;

	qwen3dm_status_read(service, &status);
	qwen3dm_failure_from_status(&failure, &status);
	if (failure.sqlstate != 0) /* else it became ready this very moment */
		qwen3dm_raise(&failure, 0);
}

/* States that may become ready without anybody's doing. */
static bool
may_become_ready(Qwen3dmState state, long waited_ms)
{
	switch (state)
	{
		case QWEN3DM_NOT_STARTED:
			return waited_ms < NOT_STARTED_MS;
		case QWEN3DM_STOPPED:
		case QWEN3DM_STARTING:
		case QWEN3DM_LOADING:
		case QWEN3DM_RESTARTING:
			return true;
		default:
			return false;
	}
}

/* Returns when the state is READY, raises an error otherwise. */
static void
wait_until_ready(Qwen3dmService service, TimestampTz since)
{
	ConditionVariable *changed;

	if (qwen3dm_state(service) == QWEN3DM_READY)
		return;
	if (qwen3dm_shared == NULL)
		raise_status(service);

	changed = &qwen3dm_shared->boards[service].changed;
	ConditionVariablePrepareToSleep(changed);
	for (;;)
	{
		Qwen3dmState state = qwen3dm_state(service);
		long waited = TimestampDifferenceMilliseconds(since, GetCurrentTimestamp());

		if (state == QWEN3DM_READY)
			break;
		if (waited >= qwen3dm_start_timeout || !may_become_ready(state, waited))
		{
			ConditionVariableCancelSleep();
			raise_status(service);
			break;
		}
		(void) ConditionVariableTimedSleep(changed,
		                                   Min(POLL_CLIENT_MS, qwen3dm_start_timeout - waited),
		                                   qwen3dm_wait_event(QWEN3DM_WAIT_START));
		qwen3dm_frontend_check();
	}
	ConditionVariableCancelSleep();
}

/* One attempt: a connected socket, or PGINVALID_SOCKET with errno. */
static pgsocket
try_connect(Qwen3dmService service)
{
	struct sockaddr_un addr;
	pgsocket sock = socket(AF_UNIX, SOCK_STREAM, 0);
	int save_errno;

	if (sock == PGINVALID_SOCKET)
		return PGINVALID_SOCKET;
	memset(&addr, 0, sizeof(addr));
	addr.sun_family = AF_UNIX;
	strlcpy(addr.sun_path, qwen3dm_services[service].socket, sizeof(addr.sun_path));
	if (pg_set_noblock(sock) && fcntl(sock, F_SETFD, FD_CLOEXEC) == 0 &&
	    connect(sock, (struct sockaddr *) &addr, sizeof(addr)) == 0)
		return sock;
	save_errno = errno;
	closesocket(sock);
	errno = save_errno;
	return PGINVALID_SOCKET;
}

/* How long a failure to connect to an engine that is ready may be a matter of time. */
static int
patience_ms(int connect_errno)
{
	switch (connect_errno)
	{
		case EAGAIN: /* the queue of the socket is full */
		case EINTR:
			return qwen3dm_start_timeout;
		case ECONNREFUSED: /* the worker left, and will have said so in a moment */
		case ENOENT:
			return NO_SOCKET_MS;
		default:
			return 0;
	}
}

/* Connects, once the engine is ready, however often it takes; or raises an error. */
static pgsocket
connect_to_engine(Qwen3dmService service)
{
	TimestampTz since = GetCurrentTimestamp();
	TimestampTz failing_since = 0;

	for (;;)
	{
		pgsocket sock;

		wait_until_ready(service, since);
		sock = try_connect(service);
		if (sock != PGINVALID_SOCKET)
			return sock;
		if (failing_since == 0)
			failing_since = GetCurrentTimestamp();
		if (TimestampDifferenceExceeds(failing_since, GetCurrentTimestamp(), patience_ms(errno)))
			ereport(ERROR, (errcode(ERRCODE_CANNOT_CONNECT_NOW),
			                errmsg("could not connect to the qwen3dm engine: %m")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
		                 qwen3dm_wait_event(QWEN3DM_WAIT_START));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		qwen3dm_frontend_check();
	}
}

static void
make_event_set(Connection *conn)
{
	pgsocket frontend = qwen3dm_frontend_socket();

	conn->events = qwen3dm_create_event_set(4);
	AddWaitEventToSet(conn->events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(conn->events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	conn->engine_pos = AddWaitEventToSet(conn->events, WL_SOCKET_READABLE, conn->sock, NULL, NULL);
	if (frontend != PGINVALID_SOCKET)
		AddWaitEventToSet(conn->events, WL_SOCKET_CLOSED, frontend, NULL, NULL);
}

static void
init_buffers(Connection *conn)
{
	MemoryContext old;

	if (conn->in.data != NULL)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	initStringInfo(&conn->in);
	initStringInfo(&conn->out);
	MemoryContextSwitchTo(old);
}

static void
say_hello(Connection *conn)
{
	q3p_hello hello = {Q3P_VERSION, MyProcPid, GetUserId(), MyDatabaseId};
	size_t size = q3p_hello_encode(&hello, NULL, 0);

	q3p_hello_encode(&hello, qwen3dm_connection_append(conn->service, size), size);
	conn->role = hello.role;
}

void
qwen3dm_connection_open(Qwen3dmService service)
{
	Connection *conn = &connections[service];

	conn->not_ready_at = 0;
	if (conn->sock != PGINVALID_SOCKET)
		return;

	init_buffers(conn);
	if (!AcquireExternalFD())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
		                errmsg("could not open a socket to the qwen3dm engine: %m"),
		                errhint("Too many files are open in this session.")));
	PG_TRY();
	{
		conn->sock = connect_to_engine(service);
		make_event_set(conn);
		say_hello(conn);
	}
	PG_CATCH();
	{
		if (conn->sock != PGINVALID_SOCKET)
			qwen3dm_connection_close(service);
		else
			ReleaseExternalFD();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

bool
qwen3dm_connection_is_open(Qwen3dmService service)
{
	Connection *conn = &connections[service];

	return conn->sock != PGINVALID_SOCKET;
}

bool
qwen3dm_connection_is_mine(Qwen3dmService service)
{
	Connection *conn = &connections[service];

	return conn->role == GetUserId();
}

bool
qwen3dm_connection_is_stale(Qwen3dmService service)
{
	Connection *conn = &connections[service];
	char byte;
	ssize_t n = recv(conn->sock, &byte, 1, MSG_PEEK);

	return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static void
empty_buffer(StringInfo buffer, int *pos)
{
	*pos = 0;
	resetStringInfo(buffer);
	if (buffer->maxlen > KEEP_BUFFER)
	{
		buffer->data = repalloc(buffer->data, READ_SIZE);
		buffer->maxlen = READ_SIZE;
	}
}

void
qwen3dm_connection_shut(Qwen3dmService service)
{
	if (connections[service].sock != PGINVALID_SOCKET)
		(void) shutdown(connections[service].sock, SHUT_RDWR);
}

void
qwen3dm_connection_close(Qwen3dmService service)
{
	Connection *conn = &connections[service];

	if (conn->sock == PGINVALID_SOCKET)
		return;
	if (conn->events != NULL)
		FreeWaitEventSet(conn->events);
	conn->events = NULL;
	closesocket(conn->sock);
	conn->sock = PGINVALID_SOCKET;
	ReleaseExternalFD();
	empty_buffer(&conn->in, &conn->in_pos);
	empty_buffer(&conn->out, &conn->out_pos);
}

/* ---------------------------------------------------------------------------------------------
 * Bytes
 * --------------------------------------------------------------------------------------------- */

char *
qwen3dm_connection_append(Qwen3dmService service, size_t size)
{
	Connection *conn = &connections[service];
	char *room;

	if (conn->out_pos == conn->out.len)
		empty_buffer(&conn->out, &conn->out_pos);
	else if (conn->out_pos > conn->out.len / 2)
	{
		memmove(conn->out.data, conn->out.data + conn->out_pos, conn->out.len - conn->out_pos);
		conn->out.len -= conn->out_pos;
		conn->out_pos = 0;
	}
	enlargeStringInfo(&conn->out, (int) size);
	room = conn->out.data + conn->out.len;
	conn->out.len += size;
	return room;
}

size_t
qwen3dm_connection_pending(Qwen3dmService service)
{
	Connection *conn = &connections[service];

	return conn->out.len - conn->out_pos;
}

bool
qwen3dm_connection_send(Qwen3dmService service)
{
	Connection *conn = &connections[service];

	while (conn->out_pos < conn->out.len)
	{
		ssize_t n = send(conn->sock, conn->out.data + conn->out_pos, conn->out.len - conn->out_pos,
		                 MSG_NOSIGNAL);

		if (n > 0)
			conn->out_pos += n;
		else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return true;
		else if (n < 0 && errno != EINTR)
			return false;
	}
	empty_buffer(&conn->out, &conn->out_pos);
	return true;
}

bool
qwen3dm_connection_receive(Qwen3dmService service)
{
	Connection *conn = &connections[service];
	int before = conn->in.len;

	while (conn->in.len - before < READ_AT_ONCE)
	{
		ssize_t n;

		enlargeStringInfo(&conn->in, READ_SIZE);
		n = recv(conn->sock, conn->in.data + conn->in.len, READ_SIZE, 0);
		if (n > 0)
			conn->in.len += n;
		else if (n == 0)
			return false;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return true;
		else if (errno != EINTR)
			return false;
	}
	return true;
}

/* Twice the room in a buffer, if there is memory. */
static bool
try_enlarge(StringInfo buffer)
{
	char *data;

	if (buffer->maxlen > MaxAllocSize / 2)
		return false;
	data =
	    MemoryContextAllocExtended(TopMemoryContext, (Size) buffer->maxlen * 2, MCXT_ALLOC_NO_OOM);
	if (data == NULL)
		return false;
	memcpy(data, buffer->data, buffer->len);
	pfree(buffer->data);
	buffer->data = data;
	buffer->maxlen *= 2;
	return true;
}

bool
qwen3dm_connection_drain(Qwen3dmService service)
{
	Connection *conn = &connections[service];
	StringInfo in = &conn->in;
	ssize_t n;

	if (conn->sock == PGINVALID_SOCKET || (in->len >= in->maxlen - 1 && !try_enlarge(in)))
		return false;
	do
		n = recv(conn->sock, in->data + in->len, in->maxlen - 1 - in->len, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		in->len += n;
	return n > 0;
}

int
qwen3dm_connection_next(Qwen3dmService service, q3p_header *header, const char **payload)
{
	Connection *conn = &connections[service];
	int found = q3p_frame(conn->in.data + conn->in_pos, conn->in.len - conn->in_pos, header);

	if (found == 1)
	{
		*payload = conn->in.data + conn->in_pos + sizeof(*header);
		conn->in_pos += sizeof(*header) + header->length;
	}
	else if (conn->in_pos == conn->in.len)
		empty_buffer(&conn->in, &conn->in_pos);
	else if (conn->in_pos > 0)
	{
		memmove(conn->in.data, conn->in.data + conn->in_pos, conn->in.len - conn->in_pos);
		conn->in.len -= conn->in_pos;
		conn->in_pos = 0;
	}
	return found;
}

/* ---------------------------------------------------------------------------------------------
 * Waiting
 * --------------------------------------------------------------------------------------------- */

/*
 * While the engine lives our connection does. But when it died before accepting us, the connection
 * stays in the queue of the worker's socket for the next one; if there is no next one, nobody would
 * tell.
 */
static bool
engine_is_lost(Connection *conn)
{
	TimestampTz now;
	Qwen3dmState state = qwen3dm_state(conn->service);

	if (state == QWEN3DM_READY)
	{
		conn->not_ready_at = 0;
		return false;
	}
	now = GetCurrentTimestamp();
	if (conn->not_ready_at == 0)
		conn->not_ready_at = now;
	return !may_become_ready(state, 0) ||
	       TimestampDifferenceExceeds(conn->not_ready_at, now, qwen3dm_start_timeout);
}

static long
wait_ms(TimestampTz deadline)
{
	bool sees_client = WaitEventSetCanReportClosed();
	long ms = sees_client ? POLL_MS : POLL_CLIENT_MS;

	if (deadline != 0)
		ms = Min(ms, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline));
	return ms;
}

void
qwen3dm_connection_wait(Qwen3dmService service, TimestampTz deadline)
{
	Connection *conn = &connections[service];
	WaitEvent happened[4];
	int n;

	CHECK_FOR_INTERRUPTS();
	ModifyWaitEvent(conn->events, conn->engine_pos,
	                qwen3dm_connection_pending(service) > 0
	                    ? WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE
	                    : WL_SOCKET_READABLE,
	                NULL);
	n = WaitEventSetWait(conn->events, wait_ms(deadline), happened, lengthof(happened),
	                     qwen3dm_wait_event(QWEN3DM_WAIT_ANSWER));

	for (int i = 0; i < n; i++)
	{
		if (happened[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (happened[i].events & WL_SOCKET_CLOSED)
			qwen3dm_frontend_lost();
	}
	CHECK_FOR_INTERRUPTS();

	if (n == 0)
	{
		qwen3dm_frontend_check();
		if (engine_is_lost(conn))
			shutdown(conn->sock, SHUT_RDWR); /* the next receive sees its end */
	}
}
