/* SPDX-License-Identifier: GPL-2.0-or-later */
/* supervisor.c - see supervisor.h. */
#include "supervisor.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "fdtable.h"
#include "log.h"
#include "util.h"

#define LOOK_MS 10	   /* between looks while a worker starts, */
#define IDLE_MS 1000	   /* and later */
#define STUCK_LOOKS 10	   /* looks without a beat, before a worker that runs is replaced */
#define PATIENCE 5	    /* workers in a row that do not get ready, when the last session was to be waited for */
#define QUICK_NS NS_PER_SEC /* a worker that lives for less makes the next one wait: */
#define TRY_NS (10 * NS_PER_SEC) /* for a program to say whether it can take over */
#define REST_NS NS_PER_SEC	 /* for the worker to end where it is */
#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 1000

/* ---- the worker ---- */

static pid_t start(const struct supervised *s, bool after)
{
	pid_t self = getpid(), pid;
	int status;

	fflush(NULL);
	/* fork(2), but for the table of descriptors. */
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != self)
		_exit(EXIT_FAILURE);
	status = s->work(s->arg, after);
	fflush(NULL);
	_exit(status); /* what is left is the supervisor's */
}

/* Somebody has stopped it (SIGSTOP, a debugger): that is no reason to replace it. */
static bool is_stopped(pid_t pid)
{
	char path[40], text[512];
	__cleanup_close int fd = -EBADF;
	const char *after;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	after = strrchr(text, ')');
	return after && (after[2] == 'T' || after[2] == 't');
}

struct watch {
	uint32_t still; /* looks at which one of the threads had not beaten since the one before */
	uint64_t *last;
	/* an upgrade */
	pid_t trial;	   /* runs; 0 = none */
	bool resting;	   /* the worker is asked to end */
	uint64_t until_ns; /* then whichever of the two is killed */
};

static bool is_stuck(const struct supervised *s, struct watch *w, pid_t pid, bool ready)
{
	bool still = !ready; /* until then there is no beat */

	for (uint32_t i = 0; i < s->nr_beats; i++) {
		uint64_t beat = __atomic_load_n((const uint64_t *)((const char *)s->beats + i * s->stride), __ATOMIC_RELAXED);

		still = still || beat == w->last[i];
		w->last[i] = beat;
	}
	/* (While it starts, it sweeps, and we open nothing.) */
	w->still = still && (!ready || !is_stopped(pid)) ? w->still + 1 : 0;
	return w->still >= STUCK_LOOKS;
}

static void describe(int status, char *buf, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(buf, size, "ended with status %d", WEXITSTATUS(status));
}

static int wait_signal(const sigset_t *set, uint32_t ms)
{
	const struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	siginfo_t info;

	return sigtimedwait(set, &info, &timeout);
}

/* pid 0: there is no worker, the next one gets it. (One that does not listen yet finds it pending.) */
static void hand_on(pid_t pid, int signal, sigset_t *sent)
{
	if (pid)
		kill(pid, signal);
	if (signal != SIGHUP)
		sigaddset(sent, signal);
}

/* ---- an upgrade ---- */

static void begin_upgrade(const struct supervised *s, struct watch *w)
{
	if (w->trial)
		return;
	w->trial = s->try(s->arg);
	w->until_ns = now_ns() + TRY_NS;
	if (w->trial < 0) {
		log_alert("upgrade: cannot start a process: %s", strerror(-w->trial));
		w->trial = 0;
		s->failed(s->arg);
	}
}

static void end_trial(const struct supervised *s, struct watch *w, pid_t worker, int status)
{
	char how[100];

	w->trial = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		describe(status, how, sizeof(how));
		log_alert("upgrade: the new program %s: the old one goes on", how);
		s->failed(s->arg);
		return;
	}
	if (!s->rest(s->arg))
		return;
	log_notice("upgrade: the new program takes over");
	kill(worker, SIGUSR2);
	w->resting = true;
	w->until_ns = now_ns() + REST_NS;
}

/* A step of it, with a worker that is ready; or its end, when everything ends. */
static void go_on_with_upgrade(const struct supervised *s, struct watch *w, pid_t worker, bool ends)
{
	int status;

	if (w->trial && ends) {
		kill(w->trial, SIGKILL);
		waitpid(w->trial, NULL, 0);
		w->trial = 0;
	}
	if (w->trial && waitpid(w->trial, &status, WNOHANG) == w->trial)
		end_trial(s, w, worker, status);
	if ((!w->trial && !w->resting) || now_ns() < w->until_ns)
		return;
	if (w->trial)
		log_alert("upgrade: the new program does not come to an end");
	kill(w->trial ? w->trial : worker, SIGKILL);
	w->until_ns = UINT64_MAX;
}

static bool is_ending(const sigset_t *sent)
{
	for (int signal = 1; signal < NSIG; signal++)
		if (sigismember(sent, signal) == 1)
			return true;
	return false;
}

/*
 * One worker's life. Returns its wait status. sent: the signals that were handed on. What an earlier one was sent it may have died before it
 * took: this one gets it again.
 */
static int watch_worker(const struct supervised *s, pid_t pid, struct watch *w, sigset_t *sent, bool *told)
{
	uint32_t idle_ms = s->look_ms ?: IDLE_MS;
	uint64_t looked = now_ns();
	sigset_t early = s->forward, set, only_child;
	int status;

	sigemptyset(&only_child);
	sigaddset(&only_child, SIGCHLD);
	sigaddset(&early, SIGCHLD);
	set = early;
	if (s->try)
		sigaddset(&set, SIGUSR2); /* that waits until we have been ready once: until then an earlier program may be our guardian */
	for (int signal = 1; signal < NSIG; signal++)
		if (sigismember(sent, signal) == 1)
			hand_on(pid, signal, sent);
	w->still = 0;
	for (;;) {
		/* What comes while the worker rests waits for who comes after us. */
		bool upgrades = w->trial || w->resting;
		int signal = wait_signal(w->resting ? &only_child : *told ? &set : &early, *told && !upgrades ? idle_ms : LOOK_MS);
		bool dead = waitpid(pid, &status, WNOHANG) == pid, ready = __atomic_load_n(s->is_ready, __ATOMIC_ACQUIRE);

		if (signal == SIGUSR2 && is_ending(sent))
			log_warning("upgrade: the old program is about to end");
		else if (signal == SIGUSR2)
			begin_upgrade(s, w);
		else if (signal > 0 && signal != SIGCHLD)
			hand_on(dead ? 0 : pid, signal, sent);
		if (ready && !*told) {
			*told = true;
			if (s->ready(s->arg) < 0)
				hand_on(dead ? 0 : pid, SIGINT, sent);
		}
		if (dead)
			return status;
		if (upgrades && (ready || is_ending(sent)))
			go_on_with_upgrade(s, w, pid, is_ending(sent));
		if (now_ns() - looked < idle_ms * NS_PER_MS)
			continue;
		looked = now_ns();
		if (is_stuck(s, w, pid, ready)) {
			log_alert("worker %d has not moved for %u ms: it is replaced", (int)pid, STUCK_LOOKS * idle_ms);
			kill(pid, SIGKILL);
		}
	}
}

/* Workers that do not get ready do not take what they were sent: then they are not started for ever. */
static bool is_asked_to_end(uint32_t unready, const sigset_t *sent)
{
	return (unready && sigismember(sent, SIGINT) == 1) || (unready >= PATIENCE && sigismember(sent, SIGTERM) == 1);
}

int supervisor_run(const struct supervised *s)
{
	struct watch w = {.last = calloc(s->nr_beats, sizeof(uint64_t))};
	uint32_t pause_ms = 0, unready = 0; /* in a row */
	bool told = false;
	sigset_t sent;
	int status = 0, r;

	sigemptyset(&sent);
	log_clear_sinks();
	log_prepare();
	r = w.last ? fdtable_keep_all() : -ENOMEM;
	if (r < 0) {
		free(w.last);
		log_alert("supervisor: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	for (bool after = s->after;; after = true) {
		uint64_t began = now_ns();
		pid_t pid;
		char how[100];

		/* While a worker sweeps, we open nothing. */
		__atomic_store_n(s->is_ready, false, __ATOMIC_RELEASE);
		pid = start(s, after);
		if (pid > 0) {
			status = watch_worker(s, pid, &w, &sent, &told);
			if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !told))
				break;
			if (w.resting) {
				w.resting = false;
				s->replace(s->arg, WIFEXITED(status) && WEXITSTATUS(status) == SUPERVISED_RESTED);
				continue;
			}
			describe(status, how, sizeof(how));
			log_alert("worker %d %s", (int)pid, how);
		} else {
			log_alert("cannot start a worker: %s", strerror(-pid));
		}
		unready = __atomic_load_n(s->is_ready, __ATOMIC_ACQUIRE) ? 0 : unready + 1;
		if (!told || is_asked_to_end(unready, &sent)) {
			status = EXIT_FAILURE << 8;
			break;
		}
		pause_ms = pid > 0 && now_ns() - began >= QUICK_NS ? 0 : MIN(MAX(pause_ms * 2, PAUSE_MIN_MS), PAUSE_MAX_MS);
		if (pause_ms) {
			int signal = wait_signal(&s->forward, pause_ms);

			if (signal > 0)
				hand_on(0, signal, &sent);
		}
	}
	free(w.last);
	fdtable_done();
	return WEXITSTATUS(status);
}
