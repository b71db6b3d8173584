/*
 * process.c: what the engine does to its own process before it serves. Runs on the main thread
 * before any other exists; owns nothing.
 */
#include "engine/process.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

int
q3_process_signals(bool child)
{
	static const int ignored[] = {SIGPIPE, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM};
	struct sigaction action;
	sigset_t mask;

	memset(&action, 0, sizeof(action));
	action.sa_handler = SIG_DFL;
	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &action, NULL); /* fails for SIGKILL and SIGSTOP, rightly */
	action.sa_handler = SIG_IGN;
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		sigaction(ignored[i], &action, NULL);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGQUIT);
	if (child)
		sigaction(SIGINT, &action, NULL);
	else
		sigaddset(&mask, SIGINT);
	if (sigprocmask(SIG_SETMASK, &mask, NULL) < 0)
		return -1;
	return signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
}

bool
q3_process_bind_to_parent(void)
{
	/* A parent that died before this call is noticed by its end of the control socket, too. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return getppid() != 1;
}

void
q3_process_prefer_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, "1000", 4) < 0)
	{
		/* Not allowed here; the engine then has its share of the risk. */
	}
	close(fd);
}

static void
close_span(unsigned first, unsigned last)
{
	struct rlimit limit;

	if (first > last)
		return;
#ifdef SYS_close_range
	if (syscall(SYS_close_range, first, last, 0) == 0)
		return;
#endif
	/* An old kernel: one by one, up to the highest number there can be. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= last)
		last = limit.rlim_cur > 0 ? (unsigned) limit.rlim_cur - 1 : 0;
	for (unsigned fd = first; fd <= last && fd < 1u << 20; fd++)
		close((int) fd);
}

static int
compare_ints(const void *a, const void *b)
{
	int x = *(const int *) a, y = *(const int *) b;

	return (x > y) - (x < y);
}

void
q3_process_close_others(int *keep, int n)
{
	unsigned from = STDERR_FILENO + 1;

	qsort(keep, (size_t) n, sizeof(keep[0]), compare_ints);
	for (int i = 0; i < n; i++)
		if (keep[i] >= (int) from)
		{
			close_span(from, (unsigned) keep[i] - 1);
			from = (unsigned) keep[i] + 1;
		}
	close_span(from, ~0u);
}

void
q3_process_raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}
