/* SPDX-License-Identifier: GPL-2.0-or-later */
/* upgrade.c - see upgrade.h. */
#include "upgrade.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fdtable.h"
#include "handover.h"
#include "log.h"
#include "notify.h"
#include "util.h"

#define READY_MS 10000 /* for the new program, from its start until its worker serves */

static char **arguments;
static char program[PATH_MAX];
static int folder = -EBADF;
static int guardian_fd = -EBADF; /* of a program that has taken over: to its guardian */

void upgrade_prepare(char **argv)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);

	guardian_fd = handover_take_fd("guardian");
	program[MAX(n, 0)] = '\0'; /* nothing can be run from there */
	arguments = argv;
	folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Returns only if it fails. */
static int run_program(enum handover_kind kind)
{
	__cleanup_close int fd = handover_write(kind);
	int r;

	if (fd < 0)
		return fd;
	execv(program, arguments);
	r = -errno;
	unsetenv(HANDOVER_VARIABLE);
	return r;
}

/*
 * The child shares the table of descriptors until it has one of its own with nothing in it: it has no copies of clients' sockets, which would keep
 * them open when the worker closes them; but, in passing, of the first 64 (kernel: sane_fdtable_size()).
 */
pid_t upgrade_try(void)
{
	pid_t self = getpid(), pid;
	sigset_t none;
	int r;

	fflush(NULL);
	/* (Returns when it runs the program, or has ended.) */
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | CLONE_VFORK | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != self)
		_exit(EXIT_FAILURE);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	r = fchdir(folder) < 0 || close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_UNSHARE) < 0 ? -errno : run_program(HANDOVER_TRIAL);
	dprintf(STDERR_FILENO, "upgrade: cannot run %s: %s\n", program, strerror(-r));
	_exit(EXIT_FAILURE);
}

/* Returns when this process is the only one left. */
static void guard(int pipe_fd, pid_t ward)
{
	struct pollfd readable = { .fd = pipe_fd, .events = POLLIN };
	ssize_t n;
	char c;

	n = poll(&readable, 1, READY_MS) > 0 ? read(pipe_fd, &c, 1) : -1;
	if (n == 1)
		_exit(EXIT_SUCCESS);
	log_alert("upgrade: the new program %s: process %d goes on with the old one", n == 0 ? "ended before it was ready" : "was not ready in time",
		  (int)getpid());
	if (getppid() == ward)
		kill(ward, SIGKILL);
	/* It and its worker, which dies with it, have the other end. */
	while (read(pipe_fd, &c, 1) > 0)
		;
}

int upgrade_exec(void)
{
	pid_t self = getpid(), guardian;
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	guardian = fork();
	if (guardian == 0) {
		close(pipe_fds[1]);
		guard(pipe_fds[0], self);
		close(pipe_fds[0]);
		return 0;
	}
	r = guardian < 0 ? -errno : 0;
	close(pipe_fds[0]);
	if (r == 0) {
		/* While it is not sure who will be, or the service manager would take our end for the service's. */
		notify_process(guardian);
		handover_give_fd("guardian", pipe_fds[1]);
		handover_give_number("guardian", (uint64_t)guardian);
		r = fdtable_inherit_all(true);
		if (r == 0)
			r = fchdir(folder) < 0 ? -errno : run_program(HANDOVER_TAKE);
		log_alert("upgrade: cannot run %s: %s", program, strerror(-r));
		fdtable_inherit_all(false);
		if (write(pipe_fds[1], "x", 1) != 1)
			kill(guardian, SIGKILL);
		waitpid(guardian, NULL, 0);
		notify_process(self);
	}
	close(pipe_fds[1]);
	return r;
}

bool upgrade_done(void)
{
	uint64_t guardian = 0;

	if (guardian_fd < 0)
		return false;
	if (write(guardian_fd, "r", 1) != 1)
		log_warning("upgrade: %s", strerror(errno));
	fdtable_drop(guardian_fd);
	close(guardian_fd);
	guardian_fd = -EBADF;
	if (handover_number("guardian", &guardian))
		waitpid((pid_t)guardian, NULL, 0);
	return true;
}

void upgrade_forget(void)
{
	if (folder >= 0)
		close(folder);
	folder = -EBADF;
}
