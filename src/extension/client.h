/*
 * client.h: asking the engine.
 *
 *     Qwen3dmRequest *r = qwen3dm_submit(&message, &lists);
 *     qwen3dm_wait(r);          any number of requests may be under way meanwhile
 *     ... r->failure.sqlstate, r->result ...
 *     qwen3dm_release(r);
 *
 * A request belongs to this file until it is released. When an error leaves the function that
 * submitted it, the abort of the (sub)transaction releases it, and the engine stops working on it.
 */
#ifndef QWEN3DM_CLIENT_H
#define QWEN3DM_CLIENT_H

#include "lib/ilist.h"
#include "nodes/pg_list.h"

#include "extension/accounts.h"
#include "extension/decide.h"
#include "extension/failure.h"
#include "extension/service.h"
#include "protocol/protocol.h"

typedef struct Qwen3dmRequest
{
	dlist_node node;
	Qwen3dmService service;
	uint64 id;
	MemoryContext context; /* everything here, and this structure */
	SubTransactionId busy; /* the subtransaction whose call is using it; invalid between the calls
	                        * that make a stream */
	Qwen3dmPayer payer;
	bool activity; /* a question about the engine's requests, not a request */
	bool counted;  /* in the payer's account */
	bool alone;    /* so far no other request was under way with it */
	Qwen3dmDecision decision;
	bool done; /* one of the three below is the answer */
	Qwen3dmFailure failure;
	q3p_result result;   /* its bytes live as long as the request */
	const char *payload; /* activity: for q3p_activity_get() */
	uint32 n_activities;
	List *chunks; /* of q3p_bytes *, oldest first */
} Qwen3dmRequest;

/*
 * Connects if need be, which may wait for the model. Raises an error when the server is not ready
 * to answer anything; what becomes of this request is told by waiting for it.
 */
extern Qwen3dmRequest *qwen3dm_submit(const q3p_request *message, const q3p_lists *lists);
/* The same, of which the mode was decided. */
extern Qwen3dmRequest *qwen3dm_submit_decided(const q3p_request *message, const q3p_lists *lists,
                                              const Qwen3dmDecision *decision);
/* So much waits to be sent that submitting more would only fill memory. */
extern bool qwen3dm_is_congested(void);

/* Returns when r is done; raises an error when the wait is interrupted or takes too long. */
extern void qwen3dm_wait(Qwen3dmRequest *r);
/* Takes the next chunk of a stream, waiting for it; false when there is none any more and r is
 * done. The chunk lives as long as the request. */
extern bool qwen3dm_wait_chunk(Qwen3dmRequest *r, q3p_bytes *chunk);

/* Drops the request, telling the engine if it is still at it. */
extern void qwen3dm_release(Qwen3dmRequest *r);

/* The request is used by one call after the other: aborting the subtransaction that made it does
 * not release it, its owner must. Between calls it is found by its id, NULL when it is gone. */
extern void qwen3dm_detach(Qwen3dmRequest *r);
extern Qwen3dmRequest *qwen3dm_reattach(uint64 id);

/* Asks for the live requests of a service; NULL when there is no engine to ask. */
extern Qwen3dmRequest *qwen3dm_ask_activity(Qwen3dmService service);

#endif
