/* SPDX-License-Identifier: GPL-2.0-or-later */
/* run.c - see run.h. */
#include "run.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "admin.h"
#include "fdtable.h"
#include "handover.h"
#include "lb.h"
#include "lb_upgrade.h"
#include "log.h"
#include "notify.h"
#include "privileges.h"
#include "supervisor.h"
#include "upgrade.h"
#include "util.h"

/* ---- background ---- */

/*
 * Forks. The child goes on, with *ret_pipe to be told when it is ready; the parent waits for that, so that whoever started us
 * learns from the exit status whether the balancer runs.
 */
static int go_background(int *ret_pipe)
{
	int pipe_fds[2];
	pid_t pid;
	ssize_t n;
	char ready;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		close(pipe_fds[1]);
		while ((n = read(pipe_fds[0], &ready, 1)) < 0 && errno == EINTR)
			;
		_exit(n == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
	}
	close(pipe_fds[0]);
	setsid();
	*ret_pipe = pipe_fds[1];
	return 0;
}

/* Lets go of the starter's folder; returns /dev/null, for detach(). */
static int leave_folder(void)
{
	if (chdir("/") < 0)
		log_warning("background: %s", strerror(errno));
	return open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* Lets go of the starter's terminal. */
static void detach(int level, int null)
{
	log_setup(level, false);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
}

static void tell_starter(int pipe_fd)
{
	if (write(pipe_fd, "r", 1) != 1)
		log_warning("background: %s", strerror(errno));
	fdtable_drop(pipe_fd);
	close(pipe_fd);
}

/* As it is now: in the background the working directory is another. Empty stays empty. Returns NULL and errno. */
static char *absolute_path(const char *path)
{
	__cleanup_free char *folder = NULL;
	char *ret;

	if (!*path || *path == '/')
		return strdup(path);
	folder = getcwd(NULL, 0);
	return folder && asprintf(&ret, "%s/%s", folder, path) >= 0 ? ret : NULL;
}

static int write_pidfile(const char *path)
{
	char text[32];
	__cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (fd < 0 || write(fd, text, (size_t)len) != len) {
		int r = -errno;

		log_alert("cannot write pidfile %s: %s", path, strerror(-r));
		return r;
	}
	return 0;
}

static void say_ready(const struct lb *lb)
{
	char where[200] = "", text[ADDR_STRLEN];
	size_t len = 0;

	for (uint32_t i = 0; i < lb->nr_listeners && len < sizeof(where); i++) {
		const struct config_bind *b;
		const struct frontend *f = lb->listeners[i].frontend;

		if (i && lb->listeners[i - 1].frontend == f)
			continue;
		list_for_each(b, &f->conf->binds, entry) {
			if (len < sizeof(where))
				len += (size_t)snprintf(where + len, sizeof(where) - len, "%s%s", len ? ", " : "",
							addr_format(&b->addr, text));
		}
	}
	log_notice("ready: listening on %s%s; maxconn %u", where, len >= sizeof(where) ? "..." : "", lb->maxconn);
}

/* ---- the supervisor's and the workers' part ---- */

/* A run of the balancer, as both see it. */
struct run {
	struct lb *lb;
	bool daemon, supervised;
	const char *pidfile; /* "" = none */
	int level;   /* of messages */
	int pipe_fd; /* to who started us in the background; -1 = nobody waits */
	int null_fd; /* then, without a supervisor */
	struct privileges privileges;
};

static int on_ready(void *arg)
{
	struct run *run = arg;

	if (run->pipe_fd >= 0)
		tell_starter(run->pipe_fd);
	notify("READY=1");
	if (upgrade_done()) {
		notify_process(getpid());
		stat_add(run->lb->stats.upgrades, 1);
	}
	__atomic_store_n(&run->lb->guarded, false, __ATOMIC_RELEASE);
	return 0;
}

/* Before anything is looked at that a worker which died may have written. */
static int drop_privileges(const struct run *run)
{
	char why[200];
	int r;

	log_prepare();
	fdtable_measure();
	r = privileges_drop(&run->privileges, why, sizeof(why));
	if (r < 0)
		log_alert("%s", why);
	return r;
}

static bool has_unix_target(const struct list *targets)
{
	const struct log_target *t;

	list_for_each(t, targets, entry)
		if (t->kind == LOG_TARGET_UNIX)
			return true;
	return false;
}

static bool logs_to_unix(const struct config *c)
{
	const struct config_proxy *p;

	list_for_each(p, &c->proxies, entry)
		if (has_unix_target(&p->log_targets))
			return true;
	return has_unix_target(&c->global.log_targets);
}

/* The worker may have been told itself. */
static bool is_stopping(const struct run *run)
{
	bool stopping = __atomic_load_n(&run->lb->stopping, __ATOMIC_ACQUIRE);

	if (stopping)
		log_warning("upgrade: the old program is about to end");
	return stopping;
}

static pid_t on_try(void *arg)
{
	struct run *run = arg;
	pid_t pid;

	if (is_stopping(run))
		return 0;
	/* The child has copies of a few descriptors for a moment. */
	__atomic_store_n(&run->lb->guarded, true, __ATOMIC_RELEASE);
	pid = upgrade_try();
	__atomic_store_n(&run->lb->guarded, false, __ATOMIC_RELEASE);
	return pid;
}

static bool on_rest(void *arg)
{
	struct run *run = arg;

	if (is_stopping(run))
		return false;
	__atomic_store_n(&run->lb->resting, true, __ATOMIC_RELEASE);
	return true;
}

static void on_failed(void *arg)
{
	struct run *run = arg;

	stat_add(run->lb->stats.upgrades_failed, 1);
}

static void on_replace(void *arg, bool in_order)
{
	struct run *run = arg;
	int r;

	run->lb->resting = in_order;
	handover_give_number("rested", in_order);
	lb_offer_counters(run->lb);
	r = upgrade_exec();
	on_failed(run);
	if (r < 0)
		return;
	/* We are another process now, and the other program's worker was killed. */
	run->lb->resting = false;
	lb_reclaim(run->lb);
	if (*run->pidfile)
		write_pidfile(run->pidfile);
}

static int work(void *arg, bool after)
{
	struct run *run = arg;
	struct lb *lb = run->lb;
	int r;

	if (!run->supervised)
		notify("READY=1"); /* clients can connect; below another root directory there is no service manager */
	if (drop_privileges(run) < 0)
		return EXIT_FAILURE;
	r = lb_start(lb, after);
	if (r < 0)
		log_alert("cannot start: %s", strerror(-r));
	if (r == 0) {
		if (!after)
			say_ready(lb);
		if (run->daemon && !run->supervised) {
			detach(run->level, run->null_fd);
			tell_starter(run->pipe_fd);
		}
		r = lb_run(lb);
		if (r < 0)
			log_alert("the event loop failed: %s", strerror(-r));
		if (r < 0 && run->supervised)
			_exit(EXIT_FAILURE); /* the next one has all that it had */
		if (lb->resting)
			_exit(SUPERVISED_RESTED);
		if (r == 0)
			log_notice("stopped");
	}
	lb_finish(lb);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/*
 * While it has privileges, the supervisor follows nothing that a worker could have written: before it takes memory apart that it shared
 * with them, it removes the files that it made, by what it remembers of the time before the first worker, and drops privileges as well.
 */
static int supervise(struct run *run)
{
	struct admin *admin = run->lb->admin;
	struct splice *splice = run->lb->splice;
	struct supervised s = {
		.work = work,
		.ready = on_ready,
		.try = on_try,
		.rest = on_rest,
		.failed = on_failed,
		.replace = on_replace,
		.after = handover_kind() == HANDOVER_TAKE,
		.arg = run,
		.is_ready = &run->lb->ready,
		.beats = &run->lb->beats->at_ns,
		.nr_beats = run->lb->nr_threads,
		.stride = sizeof(*run->lb->beats),
	};
	char why[200];
	int status;

	lb_signals(&s.forward);
	sigdelset(&s.forward, SIGUSR2);
	pool_rest_sinks(run->lb->pool);
	status = supervisor_run(&s);
	if (run->lb->guarded)
		_exit(EXIT_FAILURE); /* it did not get ready: what it took is its guardian's */
	if (*run->pidfile)
		unlink(run->pidfile);
	run->lb->admin = admin_free(admin);
	run->lb->splice = splice_free(splice);
	if (privileges_drop(&run->privileges, why, sizeof(why)) < 0)
		_exit(status); /* what is left is memory */
	return status;
}

int run(const struct config *c, const struct run_options *o)
{
	const char *given = o->pidfile ?: c->global.pidfile;
	__cleanup_free char *pidfile = absolute_path(given);
	struct run run = {
		.daemon = c->global.daemon,
		.pidfile = pidfile,
		.level = o->level,
		.pipe_fd = -1,
		.privileges = {
			.chroot = c->global.chroot,
			.uid = c->global.uid,
			.gid = c->global.gid,
			.filters = !c->global.no_seccomp,
			.unix_logs = logs_to_unix(c),
		},
	};
	sigset_t set;
	int r;

	if (!pidfile) {
		log_alert("cannot find pidfile %s: %s", given, strerror(errno));
		return -errno;
	}
	if (c->global.supervision != SUPERVISION_OFF)
		upgrade_prepare(o->argv);
	if (run.daemon && handover_kind() != HANDOVER_TAKE) {
		r = go_background(&run.pipe_fd);
		if (r < 0) {
			log_alert("cannot go into the background: %s", strerror(-r));
			return r;
		}
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* memory that outlives a worker is a file to setrlimit(2) */
	lb_signals(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = lb_new(&run.lb, c);
	if (r < 0) {
		log_alert("cannot start: %s", strerror(-r));
		return r;
	}
	run.supervised = run.lb->supervised;
	run.privileges.alone = !run.supervised;
	if (!run.supervised)
		upgrade_forget();
	r = *pidfile ? write_pidfile(pidfile) : 0;
	if (r < 0 && run.lb->guarded)
		_exit(EXIT_FAILURE);
	if (r == 0) {
		if (run.daemon && run.supervised)
			detach(run.level, leave_folder()); /* before there is anybody to share descriptors with */
		else if (run.daemon)
			run.null_fd = leave_folder();
		r = run.supervised ? supervise(&run) : work(&run, false);
		if (*pidfile && !run.supervised)
			unlink(pidfile);
	}
	lb_free(run.lb);
	return r ? -EIO : 0;
}
