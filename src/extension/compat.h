/*
 * compat.h: what differs between the PostgreSQL releases 14 to 18, in one place.
 *
 * Include it after postgres.h. Whatever can be said once here is not said with #if elsewhere.
 */
#ifndef QWEN3DM_COMPAT_H
#define QWEN3DM_COMPAT_H

#include "fmgr.h"
#include "storage/latch.h"

/*
 * The module is compiled with hidden symbols. Before 16 PGDLLEXPORT is empty off Windows, and what
 * the server looks up by name must say that it is visible.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif

/* Before a declaration from 18 on, after it before. */
#ifndef pg_noreturn
#define pg_noreturn __attribute__((noreturn))
#endif

/* Declares and registers a function that SQL calls. */
#define QWEN3DM_FUNCTION(name)                                                                     \
	PGDLLEXPORT Datum name(PG_FUNCTION_ARGS);                                                      \
	PG_FUNCTION_INFO_V1(name)

#if PG_VERSION_NUM >= 180000
#define QWEN3DM_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "qwen3dm", .version = QWEN3DM_VERSION)
#else
#define QWEN3DM_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* Noticing that the other end of a socket is gone while waiting for something else: 15. */
#if PG_VERSION_NUM < 150000
#define WL_SOCKET_CLOSED 0
#define WaitEventSetCanReportClosed() false
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* 16 has one function for the rights on any kind of object. */
#if PG_VERSION_NUM >= 160000
#define qwen3dm_may_execute(funcid)                                                                \
	(object_aclcheck(ProcedureRelationId, (funcid), GetUserId(), ACL_EXECUTE) == ACLCHECK_OK)
#define qwen3dm_may_use_schema(schema)                                                             \
	(object_aclcheck(NamespaceRelationId, (schema), GetUserId(), ACL_USAGE) == ACLCHECK_OK)
#else
#define qwen3dm_may_execute(funcid)                                                                \
	(pg_proc_aclcheck((funcid), GetUserId(), ACL_EXECUTE) == ACLCHECK_OK)
#define qwen3dm_may_use_schema(schema)                                                             \
	(pg_namespace_aclcheck((schema), GetUserId(), ACL_USAGE) == ACLCHECK_OK)
#endif

/* A set of events that lives as long as the session. */
#if PG_VERSION_NUM >= 170000
#define qwen3dm_create_event_set(n) CreateWaitEventSet(NULL, (n))
#else
#define qwen3dm_create_event_set(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

#endif
