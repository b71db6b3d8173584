/*
 * live.c: the watched tasks, in shared memory.
 *
 * A hash table of fixed size in the main shared memory segment. Its lock is held shared for finding
 * an entry and exclusively for adding or removing one; each entry has a lock of its own for what is
 * in it, which is taken while the table's lock is held. When the table is full, entries whose news
 * are in qwen3dm.task_evidence make room, those first that were not used for longest; where there
 * are none, new tasks are not watched. On a standby nothing is ever written, so any entry may go.
 *
 * Where time decides (latency), it is the monotonic clock; what people read is the wall clock's.
 * What has changed is noted under the locks and logged after them. Backends, parallel workers and
 * background workers alike.
 */
#include "postgres.h"

#include <math.h>

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "extension/live_state.h"
#include "extension/module.h"

#define TRANCHE "qwen3dm tasks"

/* Of the watch for drift: the probability of a false alarm in so many shadow rows. */
#define FALSE_ALARM 0.01
#define HORIZON 10000
/* Rows that say what margins and off-label probability are like when all is well. */
#define BASE_ROWS 256
/* After a table without room, so that looking for some does not cost every row time. */
#define FULL_PAUSE_MS 1000
#define LOGGED_PER_MINUTE 4
#define COMPLAINT_PAUSE_MS (10 * 60 * 1000)

typedef struct Entry
{
	Qwen3dmLiveKey key; /* without the padding of what callers give */
	LWLock lock;        /* protects state, except used */
	pg_atomic_uint64 used;
	pg_atomic_uint32 dirty; /* as state.dirty, to be read without the lock */
	Qwen3dmLiveState state;
} Entry;

typedef struct Live
{
	LWLock *lock;                /* protects the table */
	pg_atomic_uint64 full_until; /* there was no room */
	pid_t writer;                /* who writes to a table of evidence; 0: nobody; under lock */
	Oid unreachable;             /* under lock */
	TimestampTz complained_at;   /* under lock */
} Live;

static Live *live = NULL; /* NULL: not preloaded */
static HTAB *table = NULL;

/* ---------------------------------------------------------------------------------------------
 * The watch for drift
 * --------------------------------------------------------------------------------------------- */

static void
begin_watch(Qwen3dmWatch *w, const Qwen3dmLiveBasis *basis, int64 demotions)
{
	memset(w, 0, sizeof(*w));
	w->version = QWEN3DM_WATCH_VERSION;
	w->size = sizeof(*w);
	strlcpy(w->digest, basis->digest, sizeof(w->digest));
	w->certified_at = basis->certified_at;
	w->demotions = demotions;
	q3_drift_begin(&w->drift, basis->reference, FALSE_ALARM, HORIZON);
	q3_warning_begin(&w->margin, false, BASE_ROWS);
	q3_warning_begin(&w->off_label, true, BASE_ROWS);
}

/* Goes on with what was saved about this model and certificate, where it can be understood. */
static void
restore_watch(Qwen3dmWatch *w, const Qwen3dmLiveBasis *basis)
{
	Qwen3dmWatch saved;

	begin_watch(w, basis, 0);
	if (basis->saved == NULL || basis->saved_len != sizeof(saved))
		return;
	memcpy(&saved, basis->saved, sizeof(saved));
	if (saved.version != w->version || saved.size != w->size ||
	    strncmp(saved.digest, w->digest, sizeof(saved.digest)) != 0)
		return;
	w->demotions = saved.demotions;
	if (saved.certified_at == w->certified_at && saved.drift.version == w->drift.version &&
	    saved.drift.reference == w->drift.reference && saved.drift.limit == w->drift.limit &&
	    saved.margin.version == w->margin.version && saved.margin.base == w->margin.base &&
	    saved.off_label.version == w->off_label.version &&
	    saved.off_label.base == w->off_label.base)
		*w = saved;
}

/* Whether the entry knows all that the basis says, which is so for almost every row. */
static bool
up_to_date(const Qwen3dmLiveState *s, const Qwen3dmLiveBasis *basis)
{
	return strcmp(s->watch.digest, basis->digest) == 0 &&
	       s->watch.certified_at >= basis->certified_at &&
	       s->withdrawn == (basis->certified_at == 0 && s->watch.certified_at != 0);
}

static bool
is_empty(const Qwen3dmTally *t)
{
	static const Qwen3dmTally empty = {0};

	return memcmp(t, &empty, sizeof(empty)) == 0;
}

/* What was counted with one model is never said of another one. While models change, sessions may
 * still ask with either. */
static void
change_model(Qwen3dmLiveState *s, const char *digest)
{
	Qwen3dmTally news = {0};

	if (strcmp(s->old_digest, digest) == 0)
		news = s->old_news;
	s->old_news = s->news;
	strlcpy(s->old_digest, is_empty(&s->news) ? "" : s->watch.digest, sizeof(s->old_digest));
	s->news = news;
	memset(&s->rows, 0, sizeof(s->rows));
	memset(&s->all, 0, sizeof(s->all));
	memset(&s->efficient, 0, sizeof(s->efficient));
	memset(&s->precise, 0, sizeof(s->precise));
	memset(&s->latency, 0, sizeof(s->latency));
}

/* Under the entry's exclusive lock. */
static void
take_basis(Qwen3dmLiveState *s, const Qwen3dmLiveBasis *basis)
{
	if (strcmp(s->watch.digest, basis->digest) != 0)
	{
		change_model(s, basis->digest);
		restore_watch(&s->watch, basis);
	}
	else if (s->watch.certified_at < basis->certified_at)
		begin_watch(&s->watch, basis, s->watch.demotions);
	s->withdrawn = basis->certified_at == 0 && s->watch.certified_at != 0;
}

/* ---------------------------------------------------------------------------------------------
 * Entries
 * --------------------------------------------------------------------------------------------- */

/* As it is in the table: bytes that mean nothing are zero. */
static Qwen3dmLiveKey
clean_key(const Qwen3dmLiveKey *key)
{
	Qwen3dmLiveKey clean;

	memset(&clean, 0, sizeof(clean));
	clean.database = key->database;
	clean.question = key->question;
	strlcpy(clean.task, key->task, sizeof(clean.task));
	return clean;
}

/* With the table's lock, of either kind. */
static Entry *
find(const Qwen3dmLiveKey *key)
{
	Qwen3dmLiveKey clean = clean_key(key);

	return hash_search(table, &clean, HASH_FIND, NULL);
}

/* Under the entry's exclusive lock. */
static void
note_change(Entry *e)
{
	e->state.changes++;
	e->state.dirty = true;
	pg_atomic_write_u32(&e->dirty, 1);
}

/* Removes those entries that were not used since the time and have no news; the number of them. */
static int
remove_unused(TimestampTz since, bool with_news)
{
	HASH_SEQ_STATUS seq;
	Entry *e;
	int n = 0;

	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		if ((with_news || pg_atomic_read_u32(&e->dirty) == 0) &&
		    (TimestampTz) pg_atomic_read_u64(&e->used) <= since)
		{
			hash_search(table, &e->key, HASH_REMOVE, NULL);
			n++;
		}
	}
	return n;
}

/*
 * Makes room in a full table, under its exclusive lock: besides the entry that was not used for
 * longest those that are almost as old, so that not every new task has to search all of the table.
 */
static bool
make_room(TimestampTz now)
{
	bool with_news = RecoveryInProgress();
	TimestampTz oldest = PG_INT64_MAX;
	HASH_SEQ_STATUS seq;
	Entry *e;

	if (now < (TimestampTz) pg_atomic_read_u64(&live->full_until))
		return false;
	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		if (with_news || pg_atomic_read_u32(&e->dirty) == 0)
			oldest = Min(oldest, (TimestampTz) pg_atomic_read_u64(&e->used));
	}
	if (oldest != PG_INT64_MAX && remove_unused(oldest + Max(now - oldest, 0) / 8, with_news) > 0)
		return true;
	pg_atomic_write_u64(&live->full_until, TimestampTzPlusMilliseconds(now, FULL_PAUSE_MS));
	return false;
}

/* Whether the table is full, and was just now: new tasks need not ask for its exclusive lock. */
static bool
known_full(TimestampTz now)
{
	return hash_get_num_entries(table) >= qwen3dm_max_tasks &&
	       now < (TimestampTz) pg_atomic_read_u64(&live->full_until);
}

/* Makes the entry, under the table's exclusive lock; NULL: there is no room. */
static Entry *
make_entry(const Qwen3dmLiveKey *key, const Qwen3dmLiveBasis *basis, TimestampTz now)
{
	Qwen3dmLiveKey clean = clean_key(key);
	bool found;
	Entry *e = find(key);

	if (e != NULL)
		return e; /* another one was faster */
	if (hash_get_num_entries(table) >= qwen3dm_max_tasks && !make_room(now))
		return NULL;
	e = hash_search(table, &clean, HASH_ENTER_NULL, &found);
	if (e == NULL)
		return NULL;
	LWLockInitialize(&e->lock, live->lock->tranche);
	pg_atomic_init_u64(&e->used, now);
	pg_atomic_init_u32(&e->dirty, 0);
	memset(&e->state, 0, sizeof(e->state));
	e->state.key = clean;
	restore_watch(&e->state.watch, basis);
	return e;
}

static bool
has_digest(const Qwen3dmLiveBasis *basis)
{
	return basis->digest != NULL && basis->digest[0] != '\0';
}

/* The entry of a key that has none yet, while the table's lock is held; NULL: there is no room. */
static Entry *
add(const Qwen3dmLiveKey *key, const Qwen3dmLiveBasis *basis, TimestampTz now)
{
	if (!has_digest(basis) || known_full(now))
		return NULL;
	LWLockRelease(live->lock);
	LWLockAcquire(live->lock, LW_EXCLUSIVE);
	return make_entry(key, basis, now);
}

static void
look_at(Entry *e, const Qwen3dmLiveBasis *basis, Qwen3dmMoment *moment)
{
	LWLockAcquire(&e->lock, LW_SHARED);
	if (has_digest(basis) && !up_to_date(&e->state, basis))
	{
		LWLockRelease(&e->lock);
		LWLockAcquire(&e->lock, LW_EXCLUSIVE);
		take_basis(&e->state, basis);
	}
	moment->drifted = e->state.watch.drifted_at != 0;
	moment->pressure = e->state.latency.pressure;
	LWLockRelease(&e->lock);
}

void
qwen3dm_live_look(const Qwen3dmLiveKey *key, const Qwen3dmLiveBasis *basis, Qwen3dmMoment *moment)
{
	TimestampTz now;
	Entry *e;

	moment->drifted = false;
	moment->pressure = Q3_PRESSURE_NONE;
	if (live == NULL)
		return;
	now = GetCurrentTimestamp();
	LWLockAcquire(live->lock, LW_SHARED);
	e = find(key);
	if (e == NULL)
		e = add(key, basis, now);
	if (e != NULL)
	{
		pg_atomic_write_u64(&e->used, now);
		look_at(e, basis, moment);
	}
	LWLockRelease(live->lock);
}

/* ---------------------------------------------------------------------------------------------
 * Messages
 * --------------------------------------------------------------------------------------------- */

/* A task's name in the encoding of messages. There may be no transaction to convert it in. */
static void
set_name(char *name, const Qwen3dmLiveKey *key)
{
	int encoding = GetDatabaseEncoding();

	strlcpy(name, key->task, Q3P_TASK_BYTES);
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return;
	for (char *p = name; *p != '\0'; p++)
	{
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	}
}

/* A change of pressure, to be logged. */
typedef struct Change
{
	bool told;
	int32 pressure;
	bool rose;
	double p95, target_ms;
	int32 calls;
} Change;

const char *
qwen3dm_pressure_name(int32 pressure)
{
	if (pressure == Q3_PRESSURE_DEGRADED)
		return "degraded";
	return pressure == Q3_PRESSURE_LEAN ? "lean" : "none";
}

static void
log_change(const Qwen3dmLiveKey *key, const Change *change)
{
	char name[Q3P_TASK_BYTES];

	set_name(name, key);
	/* A message is where a query can be canceled, and its statement could show what a row says. */
	HOLD_INTERRUPTS();
	ereport(LOG, (change->rose ? errmsg("qwen3dm: task \"%s\" is under latency pressure: %s", name,
	                                    qwen3dm_pressure_name(change->pressure))
	              : change->pressure == Q3_PRESSURE_NONE
	                  ? errmsg("qwen3dm: task \"%s\" is no longer under latency pressure", name)
	                  : errmsg("qwen3dm: task \"%s\" is under less latency pressure: %s", name,
	                           qwen3dm_pressure_name(change->pressure)),
	              errdetail(
	                  "In the database with OID %u, 95 of 100 of the last %d calls took up to %.1f "
	                  "ms; the target is %g ms.",
	                  key->database, change->calls, change->p95, change->target_ms),
	              errhidestmt(true), errhidecontext(true)));
	RESUME_INTERRUPTS();
}

static void
log_demotion(const Qwen3dmLiveKey *key, const Qwen3dmWatch *watch)
{
	char name[Q3P_TASK_BYTES];

	set_name(name, key);
	HOLD_INTERRUPTS();
	ereport(
	    LOG,
	    (errmsg("qwen3dm: task \"%s\" is demoted to mode precise: agreement has fallen", name),
	     errdetail("In the database with OID %u, " INT64_FORMAT " of " INT64_FORMAT
	               " shadow rows have agreed since the certificate, which asks for %.4f.",
	               key->database, watch->shadow_agreed, watch->shadow_rows, watch->drift.reference),
	     errhint("qwen_task_learn and qwen_task_certify can certify it again."), errhidestmt(true),
	     errhidecontext(true)));
	RESUME_INTERRUPTS();
}

/* ---------------------------------------------------------------------------------------------
 * Answers
 * --------------------------------------------------------------------------------------------- */

/* Of the last so many. */
static double
quantile_of(const Qwen3dmRecent *recent, int32 last, double q)
{
	q3_latency l;

	if (recent->n == 0)
		return NAN;
	memset(&l, 0, sizeof(l));
	l.n = Min(recent->n, last);
	for (int32 i = 0; i < l.n; i++)
		l.ring[i] = recent->ms[(recent->next - 1 - i + Q3_LATENCY_RING) % Q3_LATENCY_RING];
	return q3_latency_quantile(&l, q);
}

double
qwen3dm_recent_quantile(const Qwen3dmRecent *recent, double q)
{
	return quantile_of(recent, Q3_LATENCY_RING, q);
}

static void
add_recent(Qwen3dmRecent *recent, double ms)
{
	recent->ms[recent->next] = (float) ms;
	recent->next = (recent->next + 1) % Q3_LATENCY_RING;
	recent->n = Min(recent->n + 1, Q3_LATENCY_RING);
}

static void
tally_answer(Qwen3dmTally *t, const Qwen3dmLiveAnswer *a)
{
	if (a->thought)
		t->thinking++;
	else if (a->mode == Q3P_EFFICIENT)
		t->efficient++;
	else
		t->precise++;
	t->escalated += a->escalated;
	t->alarms += a->alarm;
}

/* A few a minute: sessions that set other targets than others could make pressure flap. */
static bool
may_log(Qwen3dmLiveState *s, TimestampTz now)
{
	if (now < s->logged_at || now - s->logged_at > USECS_PER_MINUTE)
	{
		s->logged_at = now;
		s->logged = 0;
	}
	return s->logged++ < LOGGED_PER_MINUTE;
}

/* What a single call's latency tells; the change, if pressure has changed. */
static void
take_latency(Qwen3dmLiveState *s, const Qwen3dmLiveAnswer *a, TimestampTz now, Change *change)
{
	int32 before = s->latency.pressure, measured = s->latency.n + 1;
	double target = a->latency_target_ms > 0 ? a->latency_target_ms : 0;
	instr_time clock;

	add_recent(&s->all, a->latency_ms);
	add_recent(a->mode == Q3P_EFFICIENT ? &s->efficient : &s->precise, a->latency_ms);
	if (s->latency.version != Q3_LATENCY_VERSION || s->latency.target_ms != target)
		q3_latency_begin(&s->latency, target, 0, 0, 0);
	INSTR_TIME_SET_CURRENT(clock);
	(void) q3_latency_observe(&s->latency, INSTR_TIME_GET_MILLISEC(clock), a->latency_ms,
	                          a->allow_degrade);
	if (s->latency.pressure == before)
		return;
	s->rows.switches++;
	s->news.switches++;
	s->last_switch = now;
	change->told = may_log(s, now);
	change->pressure = s->latency.pressure;
	change->rose = s->latency.pressure > before;
	change->calls = Min(measured, s->latency.window);
	change->p95 = quantile_of(&s->all, change->calls, 0.95);
	change->target_ms = target;
}

void
qwen3dm_live_answer(const Qwen3dmLiveKey *key, const Qwen3dmLiveAnswer *answer)
{
	Change change = {.told = false};
	TimestampTz now;
	Entry *e;

	if (live == NULL)
		return;
	now = GetCurrentTimestamp();
	LWLockAcquire(live->lock, LW_SHARED);
	e = find(key);
	if (e != NULL)
	{
		pg_atomic_write_u64(&e->used, now);
		LWLockAcquire(&e->lock, LW_EXCLUSIVE);
		tally_answer(&e->state.rows, answer);
		tally_answer(&e->state.news, answer);
		(void) q3_warning_observe(&e->state.watch.margin, answer->margin);
		(void) q3_warning_observe(&e->state.watch.off_label, answer->off_label);
		if (answer->latency_ms >= 0) /* and not NaN */
			take_latency(&e->state, answer, now, &change);
		note_change(e);
		LWLockRelease(&e->lock);
	}
	LWLockRelease(live->lock);
	if (change.told)
		log_change(key, &change);
}

/* True when this row makes the task drift. */
static bool
take_shadow(Qwen3dmWatch *w, bool agreed)
{
	w->shadow_rows++;
	w->shadow_agreed += agreed;
	if (w->certified_at == 0 || w->drifted_at != 0 || !q3_drift_observe(&w->drift, agreed))
		return false;
	w->drifted_at = GetCurrentTimestamp();
	w->demotions++;
	return true;
}

void
qwen3dm_live_shadow(const Qwen3dmLiveKey *key, bool agreed)
{
	bool demoted = false;
	Qwen3dmWatch watch;
	Entry *e;

	if (live == NULL)
		return;
	LWLockAcquire(live->lock, LW_SHARED);
	e = find(key);
	if (e != NULL)
	{
		LWLockAcquire(&e->lock, LW_EXCLUSIVE);
		demoted = take_shadow(&e->state.watch, agreed);
		watch = e->state.watch;
		note_change(e);
		LWLockRelease(&e->lock);
	}
	LWLockRelease(live->lock);
	if (demoted)
		log_demotion(key, &watch);
}

/* ---------------------------------------------------------------------------------------------
 * For who writes it down or shows it
 * --------------------------------------------------------------------------------------------- */

/* Those with news of a database, or all. */
static Qwen3dmLiveState *
copy_entries(bool all, Oid database, int *n)
{
	Qwen3dmLiveState *copy;
	HASH_SEQ_STATUS seq;
	Entry *e;

	*n = 0;
	if (live == NULL)
		return NULL;
	LWLockAcquire(live->lock, LW_SHARED);
	copy = palloc_extended(sizeof(*copy) * Max(hash_get_num_entries(table), 1), MCXT_ALLOC_HUGE);
	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		if (!all && (e->key.database != database || pg_atomic_read_u32(&e->dirty) == 0))
			continue;
		LWLockAcquire(&e->lock, LW_SHARED);
		copy[*n] = e->state;
		LWLockRelease(&e->lock);
		copy[(*n)++].used = (TimestampTz) pg_atomic_read_u64(&e->used);
	}
	LWLockRelease(live->lock);
	return copy;
}

Qwen3dmLiveState *
qwen3dm_live_copy(int *n)
{
	return copy_entries(true, InvalidOid, n);
}

Qwen3dmLiveState *
qwen3dm_live_news(Oid database, int *n)
{
	return copy_entries(false, database, n);
}

Oid
qwen3dm_live_next_database(Oid database, bool with_news)
{
	Oid next = InvalidOid;
	HASH_SEQ_STATUS seq;
	Entry *e;

	if (live == NULL)
		return InvalidOid;
	LWLockAcquire(live->lock, LW_SHARED);
	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		if (e->key.database > database && (!OidIsValid(next) || e->key.database < next) &&
		    (!with_news || pg_atomic_read_u32(&e->dirty) != 0))
			next = e->key.database;
	}
	LWLockRelease(live->lock);
	return next;
}

static void
subtract(Qwen3dmTally *from, const Qwen3dmTally *what)
{
	from->efficient -= what->efficient;
	from->precise -= what->precise;
	from->thinking -= what->thinking;
	from->escalated -= what->escalated;
	from->alarms -= what->alarms;
	from->switches -= what->switches;
}

/* What has been counted since the copy stays news. */
static void
settle(Qwen3dmLiveState *s, const Qwen3dmLiveState *copy)
{
	if (strcmp(s->watch.digest, copy->watch.digest) == 0)
		subtract(&s->news, &copy->news);
	else if (strcmp(s->old_digest, copy->watch.digest) == 0)
		subtract(&s->old_news, &copy->news);
	if (copy->old_digest[0] != '\0' && strcmp(s->old_digest, copy->old_digest) == 0)
		subtract(&s->old_news, &copy->old_news);
	if (is_empty(&s->old_news))
		s->old_digest[0] = '\0';
	if (s->changes == copy->changes)
		s->dirty = false;
}

void
qwen3dm_live_written(const Qwen3dmLiveState *copy)
{
	Entry *e;

	LWLockAcquire(live->lock, LW_SHARED);
	e = find(&copy->key);
	if (e != NULL)
	{
		LWLockAcquire(&e->lock, LW_EXCLUSIVE);
		settle(&e->state, copy);
		pg_atomic_write_u32(&e->dirty, e->state.dirty);
		LWLockRelease(&e->lock);
	}
	LWLockRelease(live->lock);
}

void
qwen3dm_live_forget(Oid database)
{
	HASH_SEQ_STATUS seq;
	Entry *e;

	LWLockAcquire(live->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, table);
	while ((e = hash_seq_search(&seq)) != NULL)
	{
		if (e->key.database == database)
			hash_search(table, &e->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(live->lock);
}

bool
qwen3dm_live_claim(void)
{
	bool mine;

	LWLockAcquire(live->lock, LW_EXCLUSIVE);
	mine = live->writer == 0;
	if (mine)
		live->writer = MyProcPid;
	LWLockRelease(live->lock);
	return mine;
}

void
qwen3dm_live_release(Oid database, bool reached)
{
	LWLockAcquire(live->lock, LW_EXCLUSIVE);
	live->writer = 0;
	live->unreachable = reached ? InvalidOid : database;
	LWLockRelease(live->lock);
}

Oid
qwen3dm_live_take_unreachable(void)
{
	Oid database;

	LWLockAcquire(live->lock, LW_EXCLUSIVE);
	database = live->unreachable;
	live->unreachable = InvalidOid;
	LWLockRelease(live->lock);
	return database;
}

bool
qwen3dm_live_may_complain(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool may;

	LWLockAcquire(live->lock, LW_EXCLUSIVE);
	may = live->complained_at == 0 ||
	      TimestampDifferenceExceeds(live->complained_at, now, COMPLAINT_PAUSE_MS);
	if (may)
		live->complained_at = now;
	LWLockRelease(live->lock);
	return may;
}

/* ---------------------------------------------------------------------------------------------
 * Shared memory
 * --------------------------------------------------------------------------------------------- */

void
qwen3dm_live_reserve(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(Live)));
	RequestAddinShmemSpace(hash_estimate_size(qwen3dm_max_tasks, sizeof(Entry)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* Under AddinShmemInitLock. */
void
qwen3dm_live_init(void)
{
	HASHCTL info = {.keysize = sizeof(Qwen3dmLiveKey), .entrysize = sizeof(Entry)};
	bool found;

	live = ShmemInitStruct(TRANCHE, sizeof(Live), &found);
	table = ShmemInitHash(TRANCHE " table", qwen3dm_max_tasks, qwen3dm_max_tasks, &info,
	                      HASH_ELEM | HASH_BLOBS);
	if (!found)
	{
		memset(live, 0, sizeof(*live));
		live->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		pg_atomic_init_u64(&live->full_until, 0);
	}
}
