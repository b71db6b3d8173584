/*
 * engine_process.c: starting, hearing and ending the engine.
 *
 * Runs in the background worker, which has one thread. The engine is forked and at once replaced by
 * exec: it shares no memory with PostgreSQL, so whatever happens to it costs the cluster nothing.
 * Between fork and exec only async-signal-safe calls are made. The child stays in the worker's
 * process group, so that the signals by which the postmaster stops a worker reach it too; where the
 * system can do that it is also killed when the worker disappears. Of the worker's descriptors it
 * keeps standard error, the listening socket, its control socket and the packed image of the model
 * if an engine before it has made one. That image comes over the control socket and is kept here,
 * as a descriptor that is never mapped, for as long as the model file stays the same.
 */
#include "postgres.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "miscadmin.h"
#include "storage/fd.h"

#include "extension/accounts.h"
#include "extension/engine_process.h"
#include "extension/live.h"
#include "extension/module.h"

/* Where the child finds its descriptors. */
#define CHILD_LISTEN_FD 3
#define CHILD_CONTROL_FD 4
#define CHILD_IMAGE_FD 5

#define MAX_ARGUMENTS 40

typedef struct Arguments
{
	char *argv[MAX_ARGUMENTS + 1];
	int n;
} Arguments;

/* The engine lies beside the library that this code is in, wherever that was loaded from. */
static char *
engine_path(void)
{
	Dl_info info;
	char dir[MAXPGPATH];

	if (dladdr((void *) engine_path, &info) != 0 && info.dli_fname != NULL &&
	    is_absolute_path(info.dli_fname))
	{
		strlcpy(dir, info.dli_fname, sizeof(dir));
		get_parent_directory(dir);
	}
	else
		strlcpy(dir, pkglib_path, sizeof(dir));
	return psprintf("%s/qwen3dm-engine", dir);
}

static void
add_argument(Arguments *args, const char *value)
{
	Assert(args->n < MAX_ARGUMENTS);
	args->argv[args->n++] = pstrdup(value);
	args->argv[args->n] = NULL;
}

static void
add_number(Arguments *args, const char *option, int64 value)
{
	add_argument(args, option);
	add_argument(args, psprintf(INT64_FORMAT, value));
}

static void
build_arguments(Arguments *args, const Qwen3dmEngineConfig *config, const char *known_digest,
                bool with_image)
{
	args->n = 0;
	add_argument(args, engine_path());
	add_argument(args, "serve");
	add_argument(args, "-m");
	add_argument(args, config->model);
	add_number(args, "--listen-fd", CHILD_LISTEN_FD);
	add_number(args, "--control-fd", CHILD_CONTROL_FD);
	add_number(args, "-t", config->threads);
	add_number(args, "--context-length", config->context_length);
	add_number(args, "--max-batch-tokens", config->max_batch_tokens);
	add_number(args, "--kv-bytes", config->kv_bytes);
	add_argument(args, "--kv");
	add_argument(args, config->kv_f16 ? "f16" : "f32");
	add_number(args, "--efficient-bits", config->efficient_bits);
	if (config->exact_weights)
		add_argument(args, "--exact-weights");
	if (config->image_cache[0] != '\0')
	{
		add_argument(args, "--image-cache");
		add_argument(args, config->image_cache);
	}
	if (with_image)
		add_number(args, "--image-fd", CHILD_IMAGE_FD);
	if (known_digest[0] != '\0')
	{
		add_argument(args, "--known-digest");
		add_argument(args, known_digest);
	}
}

/* The highest descriptor in use. */
static int
highest_fd(void)
{
	int highest = -1;
	DIR *dir = opendir("/proc/self/fd");

	if (dir != NULL)
	{
		struct dirent *entry;

		while ((entry = readdir(dir)) != NULL)
			highest = Max(highest, atoi(entry->d_name));
		closedir(dir);
	}
	if (highest < 0)
		highest = (int) Min(sysconf(_SC_OPEN_MAX), 65536) - 1;
	return highest;
}

/* The descriptors that a child is given, opened in the worker; -1: none. */
typedef struct ChildFiles
{
	int listener, control, null_fd, image;
} ChildFiles;

/* In the child; only async-signal-safe calls. */
static void
become_engine(char *const argv[], const ChildFiles *files, int last_fd, pid_t worker_pid)
{
	struct sigaction sa;
	sigset_t none;

#ifdef __linux__
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != worker_pid)
		_exit(1);
#endif

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &sa, NULL);
	/* These two are for the worker; the engine's life ends with the worker's, without a core. */
	sa.sa_handler = SIG_IGN;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGQUIT, &sa, NULL);
	sigaction(SIGPIPE, &sa, NULL);

	/* The caller made sure that none of these is at the place of another. */
	if (dup2(files->null_fd, 0) < 0 || dup2(2, 1) < 0 ||
	    dup2(files->listener, CHILD_LISTEN_FD) < 0 || dup2(files->control, CHILD_CONTROL_FD) < 0 ||
	    (files->image >= 0 && dup2(files->image, CHILD_IMAGE_FD) < 0))
		_exit(126);
	for (int fd = (files->image >= 0 ? CHILD_IMAGE_FD : CHILD_CONTROL_FD) + 1; fd <= last_fd; fd++)
		close(fd);

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(argv[0], argv);
	_exit(127);
}

/* A copy of fd above those places that the child moves its descriptors to; -1 with errno. */
static int
out_of_the_way(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, CHILD_IMAGE_FD + 1);
}

static void
close_child_files(const ChildFiles *files)
{
	if (files->listener >= 0)
		close(files->listener);
	if (files->control >= 0)
		close(files->control);
	if (files->null_fd >= 0)
		close(files->null_fd);
	if (files->image >= 0)
		close(files->image);
}

/* Makes the control socket pair; *ours is the worker's end. False with errno. */
static bool
open_child_files(ChildFiles *files, pgsocket listener, int image, pgsocket *ours)
{
	int pair[2];
	int null_fd;

	files->listener = files->control = files->null_fd = files->image = -1;
	*ours = PGINVALID_SOCKET;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
		return false;

	files->control = out_of_the_way(pair[1]);
	close(pair[1]);
	null_fd = open("/dev/null", O_RDONLY);
	if (null_fd >= 0)
	{
		files->null_fd = out_of_the_way(null_fd);
		close(null_fd);
	}
	files->listener = out_of_the_way(listener);
	if (image >= 0)
		files->image = out_of_the_way(image);

	if (files->control < 0 || files->null_fd < 0 || files->listener < 0 ||
	    (image >= 0 && files->image < 0) || fcntl(pair[0], F_SETFD, FD_CLOEXEC) != 0 ||
	    !pg_set_noblock(pair[0]))
	{
		int save_errno = errno;

		close(pair[0]);
		close_child_files(files);
		errno = save_errno;
		return false;
	}
	*ours = pair[0];
	return true;
}

bool
qwen3dm_engine_spawn(Qwen3dmEngine *engine, const Qwen3dmEngineConfig *config, pgsocket listener,
                     const char *known_digest, char **reason)
{
	Arguments args;
	ChildFiles files;
	sigset_t all, before;
	int last_fd;
	pid_t pid;
	pid_t self = getpid();

	build_arguments(&args, config, known_digest, engine->image >= 0);
	if (access(args.argv[0], X_OK) != 0)
	{
		*reason = psprintf("could not execute \"%s\": %m", args.argv[0]);
		return false;
	}
	if (!open_child_files(&files, listener, engine->image, &engine->control))
	{
		*reason = psprintf("could not open the engine's sockets: %m");
		return false;
	}
	last_fd = highest_fd();

	fflush(NULL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		become_engine(args.argv, &files, last_fd, self);
	sigprocmask(SIG_SETMASK, &before, NULL);

	close_child_files(&files);
	if (pid < 0)
	{
		*reason = psprintf("could not start a process for the engine: %m");
		close(engine->control);
		engine->control = PGINVALID_SOCKET;
		return false;
	}
	engine->pid = pid;
	engine->consumed = 0;
	resetStringInfo(&engine->input);
	return true;
}

/* Keeps the image that came beside a message, in the place of one before. */
static void
keep_image(Qwen3dmEngine *engine, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c))
	{
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		    c->cmsg_len != CMSG_LEN(sizeof(int)))
			continue;
		qwen3dm_engine_forget_image(engine);
		memcpy(&engine->image, CMSG_DATA(c), sizeof(int));
		(void) fcntl(engine->image, F_SETFD, FD_CLOEXEC);
	}
}

/* recv() that takes a descriptor, too. */
static ssize_t
receive(Qwen3dmEngine *engine, char *data, size_t size)
{
	struct iovec iov = {data, size};
	union
	{
		struct cmsghdr header; /* for the alignment */
		char room[CMSG_SPACE(sizeof(int))];
	} rights;
	struct msghdr m;
	ssize_t n;

	memset(&m, 0, sizeof(m));
	m.msg_iov = &iov;
	m.msg_iovlen = 1;
	m.msg_control = rights.room;
	m.msg_controllen = sizeof(rights.room);
	n = recvmsg(engine->control, &m, 0);
	if (n > 0)
		keep_image(engine, &m);
	return n;
}

/* Reads what is there. False when the other end is closed. */
static bool
read_control(Qwen3dmEngine *engine)
{
	for (;;)
	{
		ssize_t n;

		enlargeStringInfo(&engine->input, 8192);
		n = receive(engine, engine->input.data + engine->input.len, 8192);
		if (n > 0)
			engine->input.len += n;
		else if (n == 0)
			return false;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return true;
		else if (errno != EINTR)
			return false;
		if (engine->input.len > 1024 * 1024)
			return true; /* the caller takes these off first */
	}
}

/* A shadow run of a task's row; of other rows nothing is kept. */
static void
note_shadow(const q3p_shadow *shadow)
{
	Qwen3dmLiveKey key = {.database = shadow->database, .question = shadow->question};

	if (shadow->task.data == NULL)
		return;
	memcpy(key.task, shadow->task.data, shadow->task.len); /* shorter: see protocol.h */
	qwen3dm_live_shadow(&key, shadow->agreed);
}

Qwen3dmEngineSaid
qwen3dm_engine_listen(Qwen3dmEngine *engine, q3p_status *status)
{
	StringInfo in = &engine->input;
	bool open;

	if (engine->consumed > 0)
	{
		memmove(in->data, in->data + engine->consumed, in->len - engine->consumed);
		in->len -= engine->consumed;
		engine->consumed = 0;
	}
	open = engine->control != PGINVALID_SOCKET && read_control(engine);

	for (;;)
	{
		q3p_header header;
		const char *payload;
		q3p_usage usage;
		q3p_shadow shadow;
		int found = q3p_frame(in->data + engine->consumed, in->len - engine->consumed, &header);

		if (found < 0 || (found == 0 && in->len - engine->consumed > 1024 * 1024))
			return QWEN3DM_SAID_NONSENSE;
		if (found == 0)
			return open ? QWEN3DM_SAID_NOTHING : QWEN3DM_SAID_GOODBYE;
		payload = in->data + engine->consumed + sizeof(header);
		engine->consumed += sizeof(header) + header.length;
		if (header.type == Q3P_USAGE && q3p_usage_decode(payload, header.length, &usage))
		{
			qwen3dm_account_usage(&usage);
			continue;
		}
		if (header.type == Q3P_SHADOW && q3p_shadow_decode(payload, header.length, &shadow))
		{
			note_shadow(&shadow);
			continue;
		}
		if (header.type != Q3P_STATUS || !q3p_status_decode(payload, header.length, status))
			return QWEN3DM_SAID_NONSENSE;
		return QWEN3DM_SAID_STATUS;
	}
}

static void
close_control(Qwen3dmEngine *engine)
{
	if (engine->control != PGINVALID_SOCKET)
		closesocket(engine->control);
	engine->control = PGINVALID_SOCKET;
}

void
qwen3dm_engine_forget_image(Qwen3dmEngine *engine)
{
	if (engine->image >= 0)
		close(engine->image);
	engine->image = -1;
}

void
qwen3dm_engine_stop(Qwen3dmEngine *engine)
{
	close_control(engine);
	if (engine->pid != 0)
		kill(engine->pid, SIGTERM);
}

void
qwen3dm_engine_kill(Qwen3dmEngine *engine)
{
	close_control(engine);
	if (engine->pid != 0)
		kill(engine->pid, SIGKILL);
}

bool
qwen3dm_engine_reap(Qwen3dmEngine *engine, int *wait_status)
{
	pid_t got;

	if (engine->pid == 0)
		return true;
	got = waitpid(engine->pid, wait_status, WNOHANG);
	if (got == 0 || (got < 0 && errno == EINTR))
		return false;
	if (got < 0)
		*wait_status = 0; /* nobody else waits for it, but then it is gone all the same */
	engine->pid = 0;
	return true;
}
