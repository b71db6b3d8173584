/*
 * client.c: the requests of this backend.
 *
 * Requests live in a memory context each, below one that belongs to the session, and are linked in
 * one list, so that errors, aborts and dropped cursors can take them away in any order. When the
 * engine must be told that nobody waits any more, the connection to it is closed if only such
 * requests are on it, which cannot fail; otherwise CANCEL is sent, and only if that cannot be sent
 * at once the connection is closed all the same. Answers to requests that are gone are dropped.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "extension/client.h"
#include "extension/connection.h"
#include "extension/frontend.h"
#include "extension/module.h"

#define CONGESTION (1024 * 1024)

static dlist_head requests = DLIST_STATIC_INIT(requests);
/* Canceled ones: which the engine has answered all the same is known when its answer is here. */
static dlist_head abandoned = DLIST_STATIC_INIT(abandoned);
static uint64 last_id = 0;
/* Answers to questions that nobody asks any more. */
static int stale_activities[QWEN3DM_N_SERVICES];
static MemoryContext client_context = NULL;

/* ---------------------------------------------------------------------------------------------
 * Letting go
 * --------------------------------------------------------------------------------------------- */

/* The request of this id that is not answered; NULL: there is none in the list. */
static Qwen3dmRequest *
find_request(dlist_head *list, uint64 id)
{
	dlist_iter i;

	dlist_foreach(i, list)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->id == id && !r->done)
			return r;
	}
	return NULL;
}

static void
forget_abandoned(Qwen3dmRequest *r)
{
	dlist_delete(&r->node);
	MemoryContextDelete(r->context);
}

static void
count_request(Qwen3dmRequest *r, const q3p_header *header, const char *payload)
{
	q3p_result result;

	qwen3dm_account_answer(&r->payer, header, payload);
	if (r->decision.watched && header->type == Q3P_RESULT &&
	    q3p_result_decode(payload, header->length, &result))
		qwen3dm_note_answer(&r->decision, r->alone, &result);
}

/* Whoever waits for the answer or not, it is counted. */
static void
count_answer(const q3p_header *header, const char *payload)
{
	Qwen3dmRequest *r;

	if (header->type != Q3P_RESULT && header->type != Q3P_ERROR)
		return;
	r = find_request(&requests, header->id);
	if (r != NULL && !r->counted)
	{
		r->counted = true;
		count_request(r, header, payload);
	}
	else if (r == NULL && (r = find_request(&abandoned, header->id)) != NULL)
	{
		count_request(r, header, payload);
		forget_abandoned(r);
	}
}

/* The engine is gone, and what it had not answered with it. */
static void
count_lost(dlist_head *list, Qwen3dmService service)
{
	dlist_iter i;

	dlist_foreach(i, list)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->service == service && !r->done && !r->counted && !r->activity)
			qwen3dm_account_lost(&r->payer);
	}
}

/*
 * Closes the connection. The answers that are here by then are counted here; the others cannot come
 * any more, and the engine, if it lives, tells the worker about them. Allocates nothing, because it
 * also runs while a transaction is aborted.
 */
static void
hang_up(Qwen3dmService service, bool engine_gone)
{
	dlist_mutable_iter i;
	q3p_header header;
	const char *payload;

	if (!qwen3dm_connection_is_open(service))
		return;
	qwen3dm_connection_shut(service);
	do
	{
		while (qwen3dm_connection_next(service, &header, &payload) == 1)
			count_answer(&header, payload);
	} while (qwen3dm_connection_drain(service));
	qwen3dm_connection_close(service);
	stale_activities[service] = 0;
	if (engine_gone)
	{
		count_lost(&requests, service);
		count_lost(&abandoned, service);
	}
	dlist_foreach_modify(i, &abandoned)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->service == service)
			forget_abandoned(r);
	}
}

/* The connection is of no use any more; whoever waits is told so. */
static void
lose_connection(Qwen3dmService service, bool engine_gone)
{
	dlist_iter i;

	hang_up(service, engine_gone);
	dlist_foreach(i, &requests)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->service == service && !r->done)
		{
			r->done = true;
			qwen3dm_failure_engine_gone(&r->failure);
		}
	}
}

/* The first request that is not answered; NULL: none is. */
static Qwen3dmRequest *
first_under_way(Qwen3dmService service)
{
	dlist_iter i;

	dlist_foreach(i, &requests)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->service == service && !r->done)
			return r;
	}
	return NULL;
}

static bool
anything_under_way(Qwen3dmService service)
{
	return first_under_way(service) != NULL;
}

static bool
anything_abandoned(Qwen3dmService service)
{
	dlist_iter i;

	dlist_foreach(i, &abandoned)
	{
		if (dlist_container(Qwen3dmRequest, node, i.cur)->service == service)
			return true;
	}
	return false;
}

/* Allocates nothing, because it also runs while a transaction is aborted. */
static void
tell_engine(const Qwen3dmRequest *r)
{
	Qwen3dmService service = r->service;
	size_t size;

	if (!anything_under_way(service))
	{
		hang_up(service, false);
		return;
	}
	/* With nothing pending the buffer has room for a header. */
	if (qwen3dm_connection_send(service) && qwen3dm_connection_pending(service) == 0)
	{
		if (r->activity)
		{
			stale_activities[service]++;
			return;
		}
		size = q3p_plain_encode(Q3P_CANCEL, r->id, NULL, 0, NULL, 0);
		q3p_plain_encode(Q3P_CANCEL, r->id, NULL, 0, qwen3dm_connection_append(service, size),
		                 size);
		if (qwen3dm_connection_send(service) && qwen3dm_connection_pending(service) == 0)
			return;
	}
	lose_connection(service, false);
}

void
qwen3dm_release(Qwen3dmRequest *r)
{
	bool waiting = !r->done && qwen3dm_connection_is_open(r->service);

	dlist_delete(&r->node);
	if (waiting && !r->activity)
	{
		dlist_push_tail(&abandoned, &r->node);
		tell_engine(r); /* after which it may be forgotten */
		return;
	}
	if (waiting)
		tell_engine(r);
	MemoryContextDelete(r->context);
}

static void
release_where(bool all, SubTransactionId busy)
{
	dlist_mutable_iter i;

	dlist_foreach_modify(i, &requests)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (all || r->busy == busy)
			qwen3dm_release(r);
	}
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PREPARE:
			/* Nothing survives the transaction, so there is nothing to tell apart. */
			for (int service = 0; service < QWEN3DM_N_SERVICES; service++)
			{
				if (anything_under_way(service) || anything_abandoned(service))
					hang_up(service, false);
			}
			release_where(true, InvalidSubTransactionId);
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId my_subid, SubTransactionId parent,
                      void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		release_where(false, my_subid);
}

static void
init_client(void)
{
	if (client_context != NULL)
		return;
	client_context =
	    AllocSetContextCreate(TopMemoryContext, "qwen3dm requests", ALLOCSET_SMALL_SIZES);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/* ---------------------------------------------------------------------------------------------
 * Asking
 * --------------------------------------------------------------------------------------------- */

/* A connection that is worth sending on. */
static void
ensure_connection(Qwen3dmService service)
{
	if (qwen3dm_connection_is_open(service) && !anything_under_way(service) &&
	    (!qwen3dm_connection_is_mine(service) || qwen3dm_connection_is_stale(service)))
		hang_up(service, false);
	qwen3dm_connection_open(service);
}

/* Not on its way yet: there is nothing to cancel. */
static Qwen3dmRequest *
new_request(Qwen3dmService service)
{
	MemoryContext context =
	    AllocSetContextCreate(client_context, "qwen3dm request", ALLOCSET_SMALL_SIZES);
	Qwen3dmRequest *r = MemoryContextAllocZero(context, sizeof(Qwen3dmRequest));

	r->context = context;
	r->service = service;
	r->id = ++last_id;
	r->done = true;
	r->busy = GetCurrentSubTransactionId();
	dlist_push_tail(&requests, &r->node);
	return r;
}

/* Its frame is in what is to be sent. */
static void
send_request(Qwen3dmRequest *r)
{
	r->done = false;
	if (!qwen3dm_connection_send(r->service))
		lose_connection(r->service, true);
}

/* Whether it has the engine to itself, as far as this backend is concerned; from now on another one
 * has not. */
static bool
begins_alone(Qwen3dmService service)
{
	Qwen3dmRequest *other = first_under_way(service);

	if (other != NULL)
		other->alone = false;
	return other == NULL;
}

Qwen3dmRequest *
qwen3dm_submit(const q3p_request *message, const q3p_lists *lists)
{
	return qwen3dm_submit_decided(message, lists, NULL);
}

Qwen3dmRequest *
qwen3dm_submit_decided(const q3p_request *message, const q3p_lists *lists,
                       const Qwen3dmDecision *decision)
{
	Qwen3dmService service = qwen3dm_service_for(message);
	bool alone;
	Qwen3dmRequest *r;
	q3p_request opened = *message;
	Qwen3dmPayer payer;
	size_t size;

	qwen3dm_account_open(&opened, &payer);
	size = q3p_request_encode(1, &opened, lists, NULL, 0);
	if (size == 0)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
		                errmsg("the arguments are larger than %u MB together",
		                       Q3P_MAX_FRAME / (1024 * 1024))));
	init_client();
	ensure_connection(service);
	alone = begins_alone(service);
	r = new_request(service);
	r->alone = alone;
	r->payer = payer;
	if (decision != NULL)
		r->decision = *decision;
	q3p_request_encode(r->id, &opened, lists, qwen3dm_connection_append(service, size), size);
	send_request(r);
	return r;
}

bool
qwen3dm_is_congested(void)
{
	for (int service = 0; service < QWEN3DM_N_SERVICES; service++)
	{
		if (qwen3dm_connection_is_open(service) && qwen3dm_connection_pending(service) > CONGESTION)
			return true;
	}
	return false;
}

Qwen3dmRequest *
qwen3dm_ask_activity(Qwen3dmService service)
{
	Qwen3dmRequest *r;
	size_t size = q3p_plain_encode(Q3P_ACTIVITY, 0, NULL, 0, NULL, 0);

	if (qwen3dm_state(service) != QWEN3DM_READY)
		return NULL;
	init_client();
	ensure_connection(service);
	r = new_request(service);
	r->activity = true;
	q3p_plain_encode(Q3P_ACTIVITY, 0, NULL, 0, qwen3dm_connection_append(service, size), size);
	send_request(r);
	return r;
}

/* ---------------------------------------------------------------------------------------------
 * Hearing
 * --------------------------------------------------------------------------------------------- */

static Qwen3dmRequest *
find_activity(Qwen3dmService service)
{
	dlist_iter i;

	dlist_foreach(i, &requests)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->service == service && r->activity && !r->done)
			return r;
	}
	return NULL;
}

/* The request that the frame is for; NULL: nobody waits for it. */
static Qwen3dmRequest *
addressee(Qwen3dmService service, const q3p_header *header)
{
	if (header->type != Q3P_ACTIVITY_RESULT)
		return find_request(&requests, header->id);
	if (stale_activities[service] > 0)
	{
		stale_activities[service]--;
		return NULL;
	}
	return find_activity(service);
}

/* Copies the frame into the request's memory; false: the frame is malformed. */
static bool
accept_frame(Qwen3dmRequest *r, const q3p_header *header, const char *payload)
{
	MemoryContext old = MemoryContextSwitchTo(r->context);
	size_t n = header->length;
	char *copy = memcpy(palloc(n + 1), payload, n);
	bool good = true;
	q3p_error error;
	q3p_bytes *chunk;

	switch (header->type)
	{
		case Q3P_CHUNK:
			chunk = palloc(sizeof(*chunk));
			chunk->data = copy;
			chunk->len = n;
			r->chunks = lappend(r->chunks, chunk);
			break;
		case Q3P_RESULT:
			good = q3p_result_decode(copy, n, &r->result);
			r->done = good;
			break;
		case Q3P_ERROR:
			good = q3p_error_decode(copy, n, &error);
			if (good)
				qwen3dm_failure_from_engine(&r->failure, &error);
			r->done = good;
			break;
		case Q3P_ACTIVITY_RESULT:
			good = q3p_activity_decode(copy, n, &r->n_activities);
			r->payload = copy;
			r->done = good;
			break;
		default:
			good = false;
	}
	MemoryContextSwitchTo(old);
	return good;
}

/* Hands out the frames that are there; false: what came is not our protocol. */
static bool
dispatch(Qwen3dmService service)
{
	for (;;)
	{
		q3p_header header;
		const char *payload;
		Qwen3dmRequest *r;

		switch (qwen3dm_connection_next(service, &header, &payload))
		{
			case 0:
				return true;
			case 1:
				break;
			default:
				return false;
		}
		count_answer(&header, payload);
		r = addressee(service, &header);
		if (r != NULL && !accept_frame(r, &header, payload))
			return false;
	}
}

static TimestampTz
new_deadline(void)
{
	if (qwen3dm_timeout == 0)
		return 0;
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), qwen3dm_timeout);
}

/* Waits once, and takes in what has come. */
static void
make_progress(Qwen3dmService service, TimestampTz deadline)
{
	bool alive;

	qwen3dm_connection_wait(service, deadline);
	alive = qwen3dm_connection_send(service);
	/* Answers that came before the end are answers. */
	alive = qwen3dm_connection_receive(service) && alive;
	if (!dispatch(service))
	{
		lose_connection(service, false);
		ereport(ERROR, (errcode(ERRCODE_PROTOCOL_VIOLATION),
		                errmsg("the qwen3dm engine sent a message that cannot be read"),
		                errhint("If the extension was upgraded, restart the server.")));
	}
	if (!alive)
		lose_connection(service, true);
	else if (deadline != 0 && GetCurrentTimestamp() >= deadline)
		ereport(ERROR,
		        (errcode(ERRCODE_QUERY_CANCELED), errmsg("canceling call due to qwen3dm.timeout")));
}

void
qwen3dm_wait(Qwen3dmRequest *r)
{
	TimestampTz deadline = new_deadline();

	while (!r->done)
		make_progress(r->service, deadline);
}

bool
qwen3dm_wait_chunk(Qwen3dmRequest *r, q3p_bytes *chunk)
{
	if (r->chunks == NIL && !r->done)
	{
		TimestampTz deadline = new_deadline();

		qwen3dm_frontend_flush();
		while (r->chunks == NIL && !r->done)
			make_progress(r->service, deadline);
	}
	if (r->chunks == NIL)
		return false;
	*chunk = *(q3p_bytes *) linitial(r->chunks);
	r->chunks = list_delete_first(r->chunks);
	return true;
}

void
qwen3dm_detach(Qwen3dmRequest *r)
{
	r->busy = InvalidSubTransactionId;
}

Qwen3dmRequest *
qwen3dm_reattach(uint64 id)
{
	dlist_iter i;

	dlist_foreach(i, &requests)
	{
		Qwen3dmRequest *r = dlist_container(Qwen3dmRequest, node, i.cur);

		if (r->id == id)
		{
			r->busy = GetCurrentSubTransactionId();
			return r;
		}
	}
	return NULL;
}
