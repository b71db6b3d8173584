/*
 * frontend.c: is the client still there, and does it see the rows?
 *
 * The only file that includes libpq.h. That header wants the headers of the GSSAPI and SSL
 * libraries the server was built with; without the two macros it declares the same structures with
 * plain pointers in their place, which exist for this purpose.
 */
#include "postgres.h"

#undef ENABLE_GSS
#undef USE_OPENSSL
#undef USE_SSL

#include "libpq/libpq-be.h"
#include "libpq/libpq.h"
#include "miscadmin.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"

#include "extension/compat.h"
#include "extension/frontend.h"

static bool
has_frontend(void)
{
	return MyProcPort != NULL && whereToSendOutput == DestRemote;
}

pgsocket
qwen3dm_frontend_socket(void)
{
	if (!has_frontend() || !WaitEventSetCanReportClosed())
		return PGINVALID_SOCKET;
	return MyProcPort->sock;
}

void
qwen3dm_frontend_lost(void)
{
	ClientConnectionLost = true;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

void
qwen3dm_frontend_check(void)
{
#if PG_VERSION_NUM >= 150000
	if (!WaitEventSetCanReportClosed())
		return;
#endif
	if (has_frontend() && !pq_check_connection())
		qwen3dm_frontend_lost();
}

void
qwen3dm_frontend_flush(void)
{
	if (has_frontend())
		(void) pq_flush_if_writable();
}
