/*
 * connection.h: this backend's sockets to the engines, one for each service.
 */
#ifndef QWEN3DM_CONNECTION_H
#define QWEN3DM_CONNECTION_H

#include "datatype/timestamp.h"

#include "extension/service.h"
#include "protocol/protocol.h"

/* Waits up to qwen3dm.start_timeout for the model and connects; raises an error when that fails.
 * Does nothing when there is a connection, even one that the engine has closed. */
extern void qwen3dm_connection_open(Qwen3dmService service);
extern bool qwen3dm_connection_is_open(Qwen3dmService service);
/* Connected as the role that is current now. */
extern bool qwen3dm_connection_is_mine(Qwen3dmService service);
/* The engine has closed it: what was asked will not be answered. Reads nothing. */
extern bool qwen3dm_connection_is_stale(Qwen3dmService service);
extern void qwen3dm_connection_close(Qwen3dmService service);
/* Before closing: nothing more can come, and drain takes in some of what is here, as receive does,
 * but never raises an error; false: there is no more. */
extern void qwen3dm_connection_shut(Qwen3dmService service);
extern bool qwen3dm_connection_drain(Qwen3dmService service);

/* Room for a frame of `size` bytes at the end of what is to be sent; filled by the caller. */
extern char *qwen3dm_connection_append(Qwen3dmService service, size_t size);
/* Bytes that still have to be sent. */
extern size_t qwen3dm_connection_pending(Qwen3dmService service);

/* Move bytes without blocking; false: the connection is lost. */
extern bool qwen3dm_connection_send(Qwen3dmService service);
extern bool qwen3dm_connection_receive(Qwen3dmService service);

/* The next whole frame that was received: 1, 0 (none yet) or -1 (nonsense). Its payload lives until
 * the next call of any function here. */
extern int qwen3dm_connection_next(Qwen3dmService service, q3p_header *header,
                                   const char **payload);

/*
 * Waits until there is something to receive or to send, a second has passed, or deadline (0: none)
 * is near; serves interrupts, so it may raise any error.
 */
extern void qwen3dm_connection_wait(Qwen3dmService service, TimestampTz deadline);

#endif
