/*
 * failure.c: errors as values, and how they are raised. See failure.h.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "extension/encoding.h"
#include "extension/failure.h"
#include "extension/status.h"

static int
sqlstate_from_text(const char *s)
{
	for (int i = 0; i < 5; i++)
	{
		if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'A' && s[i] <= 'Z')))
			return ERRCODE_INTERNAL_ERROR;
	}
	/* Success and warnings are no errors. */
	if (s[0] == '0' && s[1] <= '2')
		return ERRCODE_INTERNAL_ERROR;
	return MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4]);
}

void
qwen3dm_failure_from_engine(Qwen3dmFailure *f, const q3p_error *error)
{
	f->sqlstate = sqlstate_from_text(error->sqlstate);
	if (f->sqlstate == ERRCODE_QUERY_CANCELED)
	{
		/* Nobody waits for what we canceled; by itself the engine cancels only when it ends. */
		qwen3dm_failure_engine_gone(f);
		return;
	}
	f->message = error->message.data != NULL
	                 ? qwen3dm_readable_bytes(error->message)
	                 : "the qwen3dm engine reported an error without a message";
	f->detail = error->detail.data != NULL ? qwen3dm_readable_bytes(error->detail) : NULL;
	f->hint = error->hint.data != NULL ? qwen3dm_readable_bytes(error->hint) : NULL;
}

void
qwen3dm_failure_engine_gone(Qwen3dmFailure *f)
{
	f->sqlstate = ERRCODE_SYSTEM_ERROR;
	f->message = "the qwen3dm engine stopped while it computed this answer";
	f->detail = NULL;
	f->hint = "It is started again by itself; try again. The server log says why it stopped.";
}

void
qwen3dm_failure_from_status(Qwen3dmFailure *f, const Qwen3dmStatus *status)
{
	memset(f, 0, sizeof(*f));
	switch (status->state)
	{
		case QWEN3DM_READY:
			break;
		case QWEN3DM_NOT_LOADED:
			f->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			f->message = "qwen3dm must be loaded via shared_preload_libraries";
			f->hint = "Add qwen3dm to shared_preload_libraries and restart the server.";
			break;
		case QWEN3DM_NOT_STARTED:
		case QWEN3DM_STOPPED:
			f->sqlstate = ERRCODE_CANNOT_CONNECT_NOW;
			f->message = "the qwen3dm background worker is not running";
			f->hint = "Check the server log, and that max_worker_processes leaves room for it.";
			break;
		case QWEN3DM_NO_MODEL:
			f->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			f->message = "no model is configured";
			f->hint = qwen3dm_services[status->service].no_model_hint;
			break;
		case QWEN3DM_STARTING:
		case QWEN3DM_LOADING:
			f->sqlstate = ERRCODE_CANNOT_CONNECT_NOW;
			f->message =
			    psprintf("the model is not loaded yet (%d%%)", (int) (status->progress * 100));
			f->hint = "qwen3dm.start_timeout says how long a call waits for it; the view "
			          "qwen_model_status shows how far it is.";
			break;
		case QWEN3DM_RESTARTING:
			f->sqlstate = ERRCODE_CANNOT_CONNECT_NOW;
			f->message = "the qwen3dm engine is being restarted";
			f->hint = "qwen3dm.start_timeout says how long a call waits for it.";
			break;
		case QWEN3DM_FAILED:
			f->sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			f->message = "the model could not be loaded";
			f->detail = qwen3dm_status_text(status, status->message);
			if (status->detail[0] != '\0')
				f->detail =
				    psprintf("%s: %s", f->detail, qwen3dm_status_text(status, status->detail));
			f->hint = status->hint[0] != '\0' ? qwen3dm_status_text(status, status->hint) : NULL;
			break;
	}
}

void
qwen3dm_raise(const Qwen3dmFailure *f, int item)
{
	ereport(ERROR, (errcode(f->sqlstate), errmsg_internal("%s", f->message),
	                f->detail != NULL ? errdetail_internal("%s", f->detail) : 0,
	                f->hint != NULL ? errhint("%s", f->hint) : 0,
	                item > 0 ? errcontext("element %d of the array", item) : 0));
	pg_unreachable();
}
