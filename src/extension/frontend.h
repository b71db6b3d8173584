/*
 * frontend.h: the connection between this backend and its own client.
 */
#ifndef QWEN3DM_FRONTEND_H
#define QWEN3DM_FRONTEND_H

/* The client's socket when the system can tell, while we wait for something else, that it was
 * closed; PGINVALID_SOCKET otherwise, and where there is no client (parallel workers). */
extern pgsocket qwen3dm_frontend_socket(void);

/* Ends the session as the server does when it finds its client gone. */
extern void qwen3dm_frontend_lost(void);

/* Looks whether the client is gone, and ends the session if so. */
extern void qwen3dm_frontend_check(void);

/* Sends the rows that are made but still in the server's output buffer, without blocking. */
extern void qwen3dm_frontend_flush(void);

#endif
