/*
 * worker.c: the background workers "qwen3dm" and "qwen3dm embedding", one for each service.
 *
 * A worker owns the socket on which backends reach its engine, keeps an engine running for the
 * model that is configured, and publishes what the engine says about itself. It computes nothing
 * and waits only in WaitLatchOrSocket(), so that it answers signals and barriers at once. It has no
 * database and reads no table; the main one starts short-lived workers that do (flush.c). Its state
 * is `worker`, below; the text it shows to others is in worker.status, published to shared memory
 * after every change.
 *
 * When the engine dies it is started again after a pause that grows from 0.1 to 10 seconds. When
 * there is a reason why it cannot serve (a bad file, say), or it died FAILURES_TO_GIVE_UP times
 * before the model was loaded, the state is "failed", and the worker tries again every
 * RETRY_SECONDS, on reload, and as soon as the file is another one.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "extension/accounts.h"
#include "extension/engine_process.h"
#include "extension/live.h"
#include "extension/module.h"
#include "extension/shmem.h"

#define RETRY_SECONDS 30
#define WATCH_FILE_MS 2000
#define FAILURES_TO_GIVE_UP 5
#define GOOD_RUN_MS 10000  /* an engine that served so long starts the count anew */
#define STOP_GRACE_MS 500  /* from asking to killing, when the engine is replaced */
#define DEATH_GRACE_MS 100 /* from its closing the control socket to killing it */
#define LEAVE_GRACE_MS 60  /* from asking to killing, when we leave */

typedef enum WorkerPhase
{
	PHASE_IDLE,    /* no model is configured */
	PHASE_RUNNING, /* there is an engine */
	PHASE_ENDING,  /* waiting for the engine to be gone */
	PHASE_PAUSE    /* no engine; try again at wake_at */
} WorkerPhase;

static struct
{
	const Qwen3dmServiceInfo *service;
	Qwen3dmBoard *board;
	WorkerPhase phase;
	pgsocket listener;
	Qwen3dmEngine engine;
	Qwen3dmEngineConfig config; /* that the engine was started with */
	Qwen3dmLoadedFile file;     /* the model file when it was started */
	Qwen3dmLoadedFile image_of; /* the file that engine.image was made from */
	TimestampTz wake_at;        /* PAUSE: try again; ENDING: lose patience */
	bool replace;               /* ENDING: we wanted it to end */
	bool told_why;              /* the engine explained its failure */
	TimestampTz ready_at;       /* when the engine became ready; 0: not yet */
	int deaths;                 /* in a row, without a good run between them */
	int stillborn;              /* of these, the last so many did not become ready */
	bool was_started;           /* an engine was started before */
	Qwen3dmCounters base;       /* of the engines before this one */
	Qwen3dmStatus status;
} worker;

PGDLLEXPORT void qwen3dm_worker_main(Datum arg);

/* ---------------------------------------------------------------------------------------------
 * What others see
 * --------------------------------------------------------------------------------------------- */

/* Copies text from outside: cut at a character, and free of invalid bytes. */
static void
set_text(char *field, size_t size, const char *data, size_t len)
{
	size_t n = 0;

	if (data != NULL)
	{
		len = strnlen(data, len);
		n = pg_encoding_mbcliplen(PG_UTF8, data, (int) Min(len, size * 2), (int) size - 1);
		n = Min(n, len); /* a broken last character would reach beyond the end */
		memcpy(field, data, n);
	}
	field[n] = '\0';
	if (!pg_verify_mbstr(PG_UTF8, field, (int) n, true))
	{
		for (size_t i = 0; i < n; i++)
		{
			if (IS_HIGHBIT_SET(field[i]))
				field[i] = '?';
		}
	}
}

#define SET_TEXT(field, s) set_text((field), sizeof(field), (s), strlen(s))
#define SET_BYTES(field, b) set_text((field), sizeof(field), (b).data, (b).len)

static void
clear_reason(void)
{
	worker.status.message[0] = worker.status.detail[0] = worker.status.hint[0] = '\0';
}

static void
publish(Qwen3dmState state)
{
	char activity[256];

	worker.status.state = state;
	worker.status.engine_pid = worker.engine.pid;
	qwen3dm_status_publish(&worker.status);

	if (state == QWEN3DM_READY)
		snprintf(activity, sizeof(activity), "ready: %d running, %d queued", worker.status.running,
		         worker.status.queued);
	else
		strlcpy(activity, qwen3dm_state_name(state), sizeof(activity));
	pgstat_report_activity(STATE_RUNNING, activity);
}

/* Forgets what was known of the engine that is gone, but not the counters. */
static void
clear_engine_status(void)
{
	Qwen3dmStatus *s = &worker.status;

	worker.base = s->counters;
	s->progress = 0;
	s->running = s->queued = 0;
	s->threads = s->context_length = s->max_batch_tokens = 0;
	s->kv_blocks = s->kv_blocks_free = s->prefix_blocks = s->pinned_blocks = 0;
	s->n_embd = 0;
	s->parameters = s->weight_bytes = s->image_bytes = s->kv_bytes = s->scratch_bytes = 0;
	s->load_ms = 0;
	s->started_at = 0;
	s->name[0] = s->architecture[0] = s->weight_type[0] = s->digest[0] = '\0';
	s->device[0] = s->device_reason[0] = s->isa[0] = s->precision[0] = s->image[0] = '\0';
}

static void
pause_until(TimestampTz when, Qwen3dmState state)
{
	worker.phase = PHASE_PAUSE;
	worker.wake_at = when;
	clear_engine_status();
	publish(state);
}

/* There is a reason, and the same engine would fail again. */
static void
pause_failed(const char *message, const char *hint)
{
	if (message != NULL)
	{
		if (strcmp(worker.status.message, message) != 0)
			ereport(LOG, (errmsg("%s: %s", worker.service->worker, message),
			              hint ? errhint("%s", hint) : 0));
		clear_reason();
		SET_TEXT(worker.status.message, message);
		if (hint != NULL)
			SET_TEXT(worker.status.hint, hint);
	}
	pause_until(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_SECONDS * 1000),
	            QWEN3DM_FAILED);
}

/* ---------------------------------------------------------------------------------------------
 * The socket
 * --------------------------------------------------------------------------------------------- */

/* Binds the socket in the data directory; false with errno. */
static bool
open_listener(void)
{
	struct sockaddr_un addr;
	pgsocket sock;
	mode_t before;
	int bound;
	int save_errno;

	if (MakePGDirectory(QWEN3DM_SOCKET_DIR) != 0 && errno != EEXIST)
		return false;
	if (unlink(worker.service->socket) != 0 && errno != ENOENT)
		return false;

	sock = socket(AF_UNIX, SOCK_STREAM, 0);
	if (sock == PGINVALID_SOCKET)
		return false;
	memset(&addr, 0, sizeof(addr));
	addr.sun_family = AF_UNIX;
	strlcpy(addr.sun_path, worker.service->socket, sizeof(addr.sun_path));
	before = umask(S_IRWXG | S_IRWXO);
	bound = bind(sock, (struct sockaddr *) &addr, sizeof(addr));
	save_errno = errno;
	umask(before);
	errno = save_errno;
	if (bound != 0 || listen(sock, SOMAXCONN) != 0 || !pg_set_noblock(sock) ||
	    fcntl(sock, F_SETFD, FD_CLOEXEC) != 0)
	{
		save_errno = errno;
		closesocket(sock);
		errno = save_errno;
		return false;
	}
	worker.listener = sock;
	return true;
}

/* ---------------------------------------------------------------------------------------------
 * The engine's life
 * --------------------------------------------------------------------------------------------- */

static int
usable_cores(void)
{
#ifdef __linux__
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		return Max(1, CPU_COUNT(&set));
#endif
	return (int) Max(1, sysconf(_SC_NPROCESSORS_ONLN));
}

static void
read_config(Qwen3dmEngineConfig *config)
{
	memset(config, 0, sizeof(*config));
	strlcpy(config->model, *worker.service->model, sizeof(config->model));
	config->threads = qwen3dm_threads > 0 ? qwen3dm_threads : usable_cores();
	config->context_length = qwen3dm_context_length;
	config->max_batch_tokens = qwen3dm_max_batch_tokens;
	config->kv_bytes = (int64) *worker.service->kv_cache_size * 1024;
	config->kv_f16 = qwen3dm_kv_cache_type == QWEN3DM_KV_F16;
	config->efficient_bits = qwen3dm_efficient_bits;
	config->exact_weights = qwen3dm_exact_weights;
	strlcpy(config->image_cache, qwen3dm_image_cache, sizeof(config->image_cache));
}

/* What identifies the file at this path; all zero except the path when it cannot be seen. */
static void
look_at_file(const char *path, Qwen3dmLoadedFile *file)
{
	struct stat st;

	memset(file, 0, sizeof(*file));
	strlcpy(file->path, path, sizeof(file->path));
	if (stat(path, &st) != 0)
		return;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	file->size = st.st_size;
	file->mtime_s = st.st_mtime;
#ifdef __linux__
	file->mtime_ns = st.st_mtim.tv_nsec;
#endif
}

static bool
same_file(const Qwen3dmLoadedFile *a, const Qwen3dmLoadedFile *b)
{
	return strcmp(a->path, b->path) == 0 && a->device == b->device && a->inode == b->inode &&
	       a->size == b->size && a->mtime_s == b->mtime_s && a->mtime_ns == b->mtime_ns;
}

/* Starts an engine for the settings as they are now. */
static void
start_engine(void)
{
	const char *known = "";
	char *reason;

	read_config(&worker.config);
	clear_engine_status();
	SET_TEXT(worker.status.model, worker.config.model);
	if (worker.config.model[0] == '\0')
	{
		worker.phase = PHASE_IDLE;
		qwen3dm_engine_forget_image(&worker.engine);
		clear_reason();
		publish(QWEN3DM_NO_MODEL);
		return;
	}
	if (worker.listener == PGINVALID_SOCKET && !open_listener())
	{
		pause_failed(psprintf("could not listen on \"%s\": %m", worker.service->socket), NULL);
		return;
	}

	look_at_file(worker.config.model, &worker.file);
	if (same_file(&worker.file, &worker.board->loaded))
		known = worker.board->loaded.digest;
	if (!same_file(&worker.file, &worker.image_of))
		qwen3dm_engine_forget_image(&worker.engine);
	worker.image_of = worker.file;
	if (!qwen3dm_engine_spawn(&worker.engine, &worker.config, worker.listener, known, &reason))
	{
		pause_failed(reason, NULL);
		return;
	}

	if (worker.was_started)
		worker.status.restarts++;
	worker.was_started = true;
	worker.told_why = false;
	worker.ready_at = 0;
	worker.phase = PHASE_RUNNING;
	worker.status.started_at = GetCurrentTimestamp();
	/* A reason stays to be seen until this engine does better. */
	publish(QWEN3DM_STARTING);
	elog(DEBUG1, "%s: started engine with PID %d", worker.service->worker, (int) worker.engine.pid);
}

/* Ends the engine; when it is gone a new one is started. */
static void
replace_engine(void)
{
	worker.replace = true;
	worker.phase = PHASE_ENDING;
	worker.wake_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STOP_GRACE_MS);
	qwen3dm_engine_stop(&worker.engine);
	clear_reason();
	publish(QWEN3DM_RESTARTING);
}

/* The engine closed its control socket: it is dead or about to be. */
static void
expect_death(void)
{
	worker.replace = false;
	worker.phase = PHASE_ENDING;
	worker.wake_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), DEATH_GRACE_MS);
	closesocket(worker.engine.control);
	worker.engine.control = PGINVALID_SOCKET;
	if (worker.status.state != QWEN3DM_FAILED)
		publish(QWEN3DM_RESTARTING);
}

/* The engine ended without having been asked to. */
static void
engine_died(pid_t pid, int wait_status)
{
	TimestampTz now = GetCurrentTimestamp();
	char *how = wait_result_to_str(wait_status);
	int pause_ms;

	if (worker.told_why)
	{
		pause_failed(NULL, NULL);
		return;
	}
	ereport(LOG,
	        (errmsg("%s: engine (PID %d) is gone: %s", worker.service->worker, (int) pid, how)));

	worker.stillborn = worker.ready_at == 0 ? worker.stillborn + 1 : 0;
	if (worker.ready_at != 0 && TimestampDifferenceExceeds(worker.ready_at, now, GOOD_RUN_MS))
		worker.deaths = 0;
	worker.deaths++;
	if (worker.stillborn >= FAILURES_TO_GIVE_UP)
	{
		pause_failed(psprintf("the engine ended %d times before the model was loaded: %s",
		                      worker.stillborn, how),
		             "The server log, or the system's log of processes killed for memory, may say "
		             "why.");
		return;
	}
	clear_reason();
	SET_TEXT(worker.status.message, psprintf("the engine stopped: %s", how));
	pause_ms = Min(100 << Min(worker.deaths - 1, 7), 10000);
	pause_until(TimestampTzPlusMilliseconds(now, pause_ms), QWEN3DM_RESTARTING);
}

static void
log_status_change(Qwen3dmState before, Qwen3dmState now)
{
	const Qwen3dmStatus *s = &worker.status;

	if (now == before)
		return;
	if (now == QWEN3DM_READY)
		ereport(LOG, (errmsg("%s: model \"%s\" is ready", worker.service->worker, s->name),
		              errdetail("%s, %s, loaded in %.0f ms; device %s (%s), %d threads.",
		                        s->architecture, s->weight_type, s->load_ms, s->device, s->isa,
		                        s->threads)));
	else if (now == QWEN3DM_FAILED)
		ereport(LOG, (errmsg("%s: %s", worker.service->worker, s->message),
		              s->detail[0] ? errdetail("%s", s->detail) : 0,
		              s->hint[0] ? errhint("%s", s->hint) : 0));
}

/* Remembers what the engine computed from the file, so that the next one need not. */
static void
remember_loaded_file(void)
{
	worker.board->loaded = worker.file;
	strlcpy(worker.board->loaded.digest, worker.status.digest, sizeof(worker.board->loaded.digest));
}

static void
copy_counters(Qwen3dmCounters *c, const q3p_status *m)
{
	const Qwen3dmCounters *base = &worker.base;

	c->requests = base->requests + (int64) m->requests;
	c->errors = base->errors + (int64) m->errors;
	c->prompt_tokens = base->prompt_tokens + (int64) m->prompt_tokens;
	c->output_tokens = base->output_tokens + (int64) m->output_tokens;
	c->cached_tokens = base->cached_tokens + (int64) m->cached_tokens;
	c->deduplicated = base->deduplicated + (int64) m->deduplicated;
	c->classified = base->classified + (int64) m->classified;
	c->steps = base->steps + (int64) m->steps;
	c->evictions = base->evictions + (int64) m->evictions;
}

static void
copy_engine_status(const q3p_status *m)
{
	Qwen3dmStatus *s = &worker.status;

	s->progress = m->progress;
	s->threads = m->threads;
	s->context_length = m->context_length;
	s->max_batch_tokens = m->max_batch_tokens;
	s->kv_blocks = m->kv_blocks;
	s->kv_blocks_free = m->kv_blocks_free;
	s->prefix_blocks = m->prefix_blocks;
	s->pinned_blocks = m->pinned_blocks;
	s->n_embd = m->n_embd;
	s->parameters = (int64) m->n_params;
	s->weight_bytes = (int64) m->weight_bytes;
	s->image_bytes = (int64) m->image_bytes;
	s->kv_bytes = (int64) m->kv_bytes;
	s->scratch_bytes = (int64) m->scratch_bytes;
	s->load_ms = m->load_ms;
	copy_counters(&s->counters, m);
	s->running = m->running;
	s->queued = m->queued;
	SET_BYTES(s->architecture, m->architecture);
	SET_BYTES(s->name, m->name);
	SET_BYTES(s->weight_type, m->weight_type);
	SET_BYTES(s->digest, m->digest);
	SET_BYTES(s->device, m->device);
	SET_BYTES(s->device_reason, m->device_reason);
	SET_BYTES(s->isa, m->isa);
	SET_BYTES(s->precision, m->precision);
	strlcpy(s->image, m->image != Q3P_IMAGE_NONE ? q3p_image_name(m->image) : "", sizeof(s->image));
}

static void
take_status(const q3p_status *m)
{
	Qwen3dmState before = worker.status.state;
	Qwen3dmState now;

	switch (m->state)
	{
		case Q3P_READY:
			now = QWEN3DM_READY;
			break;
		case Q3P_FAILED:
			now = QWEN3DM_FAILED;
			break;
		case Q3P_LOADING:
			now = QWEN3DM_LOADING;
			break;
		default:
			now = QWEN3DM_STARTING;
			break;
	}
	copy_engine_status(m);
	if (now == QWEN3DM_READY)
	{
		clear_reason();
		if (before != QWEN3DM_READY)
		{
			worker.ready_at = GetCurrentTimestamp();
			remember_loaded_file();
		}
	}
	else if (now == QWEN3DM_FAILED)
	{
		bool news = strncmp(worker.status.message, m->message.data ? m->message.data : "",
		                    m->message.data ? m->message.len : 0) != 0;

		worker.told_why = true;
		SET_BYTES(worker.status.message, m->message);
		SET_BYTES(worker.status.detail, m->detail);
		SET_BYTES(worker.status.hint, m->hint);
		if (!news)
			before = now; /* said before; every half minute would be noise */
	}
	log_status_change(before, now);
	publish(now);
}

static void
listen_to_engine(void)
{
	for (;;)
	{
		q3p_status m;

		switch (qwen3dm_engine_listen(&worker.engine, &m))
		{
			case QWEN3DM_SAID_STATUS:
				take_status(&m);
				break;
			case QWEN3DM_SAID_NOTHING:
				return;
			case QWEN3DM_SAID_GOODBYE:
				expect_death();
				return;
			case QWEN3DM_SAID_NONSENSE:
				worker.told_why = true;
				qwen3dm_engine_kill(&worker.engine);
				clear_reason();
				SET_TEXT(
				    worker.status.message,
				    "the engine and the server's qwen3dm library do not understand each other");
				SET_TEXT(worker.status.hint, "If the extension was upgraded, restart the server.");
				ereport(LOG, (errmsg("%s: %s", worker.service->worker, worker.status.message),
				              errhint("%s", worker.status.hint)));
				worker.phase = PHASE_ENDING;
				worker.replace = false;
				worker.wake_at = GetCurrentTimestamp();
				publish(QWEN3DM_FAILED);
				return;
		}
	}
}

/* ENDING: looks whether the engine is gone, and goes on from there. */
static void
await_end(void)
{
	pid_t pid = worker.engine.pid;
	int wait_status = 0;

	if (!qwen3dm_engine_reap(&worker.engine, &wait_status))
	{
		if (GetCurrentTimestamp() >= worker.wake_at)
			qwen3dm_engine_kill(&worker.engine);
	}
	else if (worker.replace)
		start_engine();
	else
		engine_died(pid, wait_status);
}

/* PAUSE: is it time to try again? */
static void
end_pause(void)
{
	bool again = GetCurrentTimestamp() >= worker.wake_at;

	if (!again && worker.status.state == QWEN3DM_FAILED)
	{
		Qwen3dmLoadedFile now;

		look_at_file(worker.config.model, &now);
		again = !same_file(&now, &worker.file);
	}
	if (again)
		start_engine();
}

static void
reload(void)
{
	Qwen3dmEngineConfig config;
	Qwen3dmLoadedFile file;

	ProcessConfigFile(PGC_SIGHUP);
	worker.deaths = worker.stillborn = 0;
	read_config(&config);
	look_at_file(config.model, &file);

	if (worker.phase == PHASE_RUNNING)
	{
		if (memcmp(&config, &worker.config, sizeof(config)) != 0 || !same_file(&file, &worker.file))
			replace_engine();
	}
	else if (worker.phase == PHASE_ENDING)
		worker.replace = true;
	else
	{
		clear_reason();
		start_engine();
	}
}

/* ---------------------------------------------------------------------------------------------
 * The process
 * --------------------------------------------------------------------------------------------- */

/* On every orderly exit: nobody finds a dead socket, and the engine does not outlive us. */
static void
leave(int code, Datum arg)
{
	int wait_status;

	if (worker.listener != PGINVALID_SOCKET)
		unlink(worker.service->socket);
	if (worker.engine.pid != 0)
	{
		qwen3dm_engine_stop(&worker.engine);
		for (int ms = 0; ms < LEAVE_GRACE_MS; ms += 2)
		{
			if (qwen3dm_engine_reap(&worker.engine, &wait_status))
				break;
			pg_usleep(2000);
		}
		/* init reaps it */
		qwen3dm_engine_kill(&worker.engine);
		worker.engine.pid = 0;
	}
	clear_engine_status();
	clear_reason();
	worker.status.worker_pid = 0;
	worker.status.engine_pid = 0;
	worker.status.state = QWEN3DM_STOPPED;
	qwen3dm_status_publish(&worker.status);
	qwen3dm_accounts_save(true);
}

/* There is one for the whole server. */
static bool
is_main(void)
{
	return worker.service == &qwen3dm_services[QWEN3DM_MAIN];
}

static void
wait_for_something(void)
{
	int events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	long timeout = qwen3dm_accounts_save_due();
	pgsocket sock = PGINVALID_SOCKET;

	if (is_main())
		timeout = Min(timeout, qwen3dm_live_flush_due());
	switch (worker.phase)
	{
		case PHASE_IDLE:
			break;
		case PHASE_RUNNING:
			events |= WL_SOCKET_READABLE;
			sock = worker.engine.control;
			break;
		case PHASE_ENDING:
			timeout = Min(timeout, 5);
			break;
		case PHASE_PAUSE:
			timeout = Min(timeout,
			              TimestampDifferenceMilliseconds(GetCurrentTimestamp(), worker.wake_at));
			if (worker.status.state == QWEN3DM_FAILED)
				timeout = Min(timeout, WATCH_FILE_MS);
			break;
	}
	(void) WaitLatchOrSocket(MyLatch, events, sock, timeout,
	                         qwen3dm_wait_event(QWEN3DM_WAIT_WORKER));
	ResetLatch(MyLatch);
}

static void
run(void)
{
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
			proc_exit(1); /* 0 would mean: never start me again */
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			reload();
		}

		if (worker.phase == PHASE_RUNNING)
			listen_to_engine();
		if (worker.phase == PHASE_ENDING)
			await_end();
		else if (worker.phase == PHASE_PAUSE)
			end_pause();

		qwen3dm_accounts_save(false);
		if (is_main())
			qwen3dm_live_flush();

		MemoryContextReset(CurrentMemoryContext);
		wait_for_something();
	}
}

/* arg: the service. */
void
qwen3dm_worker_main(Datum arg)
{
	Qwen3dmService service = (Qwen3dmService) DatumGetInt32(arg);

	memset(&worker, 0, sizeof(worker));
	worker.service = &qwen3dm_services[service];
	worker.board = &qwen3dm_shared->boards[service];
	worker.listener = PGINVALID_SOCKET;
	worker.engine.control = PGINVALID_SOCKET;
	worker.engine.image = -1;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGINT, SIG_IGN); /* there is no query to cancel */
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(worker.service->worker);

	MemoryContextSwitchTo(TopMemoryContext);
	initStringInfo(&worker.engine.input);
	MemoryContextSwitchTo(
	    AllocSetContextCreate(TopMemoryContext, "qwen3dm worker", ALLOCSET_DEFAULT_SIZES));

	/* What the counters of a worker before this one said goes on. */
	qwen3dm_status_read(service, &worker.status);
	worker.was_started = worker.status.state == QWEN3DM_STOPPED;
	worker.status.worker_pid = MyProcPid;
	before_shmem_exit(leave, (Datum) 0);

	qwen3dm_accounts_load();
	start_engine();
	run();
}

void
qwen3dm_register_workers(void)
{
	for (int service = 0; service < QWEN3DM_N_SERVICES; service++)
	{
		BackgroundWorker bgw;

		memset(&bgw, 0, sizeof(bgw));
		strlcpy(bgw.bgw_name, qwen3dm_services[service].worker, BGW_MAXLEN);
		strlcpy(bgw.bgw_type, qwen3dm_services[service].worker, BGW_MAXLEN);
		bgw.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
		bgw.bgw_start_time = BgWorkerStart_ConsistentState;
		bgw.bgw_restart_time = 5;
		bgw.bgw_main_arg = Int32GetDatum(service);
		strlcpy(bgw.bgw_library_name, "qwen3dm", BGW_MAXLEN);
		strlcpy(bgw.bgw_function_name, "qwen3dm_worker_main", BGW_MAXLEN);
		RegisterBackgroundWorker(&bgw);
	}
}
