/*
 * live_state.h: what is kept of a watched task, for those who write it down (flush.c) or show it
 * (status.c). live.h is for those who answer its rows.
 */
#ifndef QWEN3DM_LIVE_STATE_H
#define QWEN3DM_LIVE_STATE_H

#include "extension/live.h"

/* Numbers of answers and of changes; each is added to what the table says. */
typedef struct Qwen3dmTally
{
	int64 efficient, precise, thinking;
	int64 escalated; /* of the precise and thinking ones */
	int64 alarms;
	int64 switches; /* changes of pressure */
} Qwen3dmTally;

/* The last latencies, in ms. */
typedef struct Qwen3dmRecent
{
	int32 n, next;
	float ms[Q3_LATENCY_RING];
} Qwen3dmRecent;

#define QWEN3DM_WATCH_VERSION 1

/*
 * The watch for drift: what the table's column live holds, byte for byte. It is of use only to a
 * server that lays it out in the same way; any other one starts the watch anew.
 */
typedef struct Qwen3dmWatch
{
	uint32 version;
	uint32 size;
	char digest[80];          /* of the model */
	TimestampTz certified_at; /* 0: no certificate, and no watch for drift */
	int64 shadow_rows, shadow_agreed;
	int64 demotions;
	TimestampTz drifted_at; /* 0: it has not */
	q3_drift drift;
	q3_warning margin, off_label;
} Qwen3dmWatch;

typedef struct Qwen3dmLiveState
{
	Qwen3dmLiveKey key;
	uint64 changes;    /* how often it has become dirty */
	bool dirty;        /* the table does not know all of it */
	bool withdrawn;    /* there was a certificate, and is none now */
	TimestampTz used;  /* its last row */
	Qwen3dmTally rows; /* with the model of the watch, since the server started or they were made */
	Qwen3dmTally news; /* of them, those that are not in the table */
	/* The news of the model before that one. */
	char old_digest[80]; /* empty: none */
	Qwen3dmTally old_news;
	Qwen3dmRecent all, efficient, precise;
	q3_latency latency;
	TimestampTz last_switch; /* 0: never */
	/* Messages about pressure, so that they do not fill the log. */
	TimestampTz logged_at;
	int32 logged;
	Qwen3dmWatch watch;
} Qwen3dmLiveState;

/* NaN: there is nothing to say it from. */
extern double qwen3dm_recent_quantile(const Qwen3dmRecent *recent, double q);

/* "none", "lean" or "degraded". */
extern const char *qwen3dm_pressure_name(int32 pressure);

/* A palloc'd copy of all; *n of them. */
extern Qwen3dmLiveState *qwen3dm_live_copy(int *n);
/* Of a database, those with news. */
extern Qwen3dmLiveState *qwen3dm_live_news(Oid database, int *n);
/* The database, of all or of those with news, that has the lowest number above this one; invalid:
 * none. */
extern Oid qwen3dm_live_next_database(Oid database, bool with_news);
/* The news of such a copy are in the table, or have no place there. */
extern void qwen3dm_live_written(const Qwen3dmLiveState *copy);
/* Everything about a database that is gone, or that nobody can connect to. */
extern void qwen3dm_live_forget(Oid database);

/*
 * One process at a time may write, whatever became of who started it: news must not be added twice.
 * A claim is given up at the process's end; reached: it could connect to the database.
 */
extern bool qwen3dm_live_claim(void);
extern void qwen3dm_live_release(Oid database, bool reached);
/* The last one could not connect to this database; once. Invalid: it could. */
extern Oid qwen3dm_live_take_unreachable(void);
/* Whether it is time again to say that something is wrong. */
extern bool qwen3dm_live_may_complain(void);

#endif
