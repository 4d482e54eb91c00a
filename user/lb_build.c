/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb_build.c - what outlives a worker: limits, proxies, listeners, kernel path, ledger, pipes, stats sockets; see lb.h. */
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin.h"
#include "handover.h"
#include "lb.h"
#include "lb_upgrade.h"
#include "log.h"
#include "qualify.h"
#include "shared.h"

#define DESCRIPTOR_RESERVE 96	  /* logs, stats clients, maps, the pin folder: what is neither a session's */
#define DESCRIPTORS_PER_THREAD 7  /* nor a thread's: epoll and its wake-up, the event ring and its epoll, a spare, a pipe; and a copy of each listener */
#define MAXCONN_DEFAULT 20000	  /* when the descriptor limit would allow more and nobody asked for it */
#define THREADS_MAX 64u		  /* unless nbthread says otherwise */
#define BUDGET_DEFAULT (1ull << 30)
#define BACKLOG_DEFAULT 4096	  /* the kernel cuts it to net.core.somaxconn */

static uint32_t usable_cores(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : MIN((uint32_t)CPU_COUNT(&set), THREADS_MAX);
}

/* Descriptors of all but the sessions. */
static uint32_t reserve(const struct config *c, uint32_t threads)
{
	uint32_t listeners = 0;
	struct config_proxy *p;

	list_for_each(p, &c->proxies, entry)
		listeners += p->disabled ? 0 : p->nr_binds;
	return DESCRIPTOR_RESERVE + listeners + threads * (DESCRIPTORS_PER_THREAD + listeners);
}

/* Settles threads, maxconn and the descriptor limit; the latter two follow from each other where they are not given. */
static int set_limits(struct lb *lb)
{
	const struct config_global *g = &lb->config->global;
	uint32_t threads = g->nbthread ?: usable_cores(), kept = reserve(lb->config, threads);
	struct rlimit limit;
	uint64_t want;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	want = g->ulimit_n ?: g->maxconn ? (uint64_t)g->maxconn * 2 + kept : limit.rlim_max;
	if (want > limit.rlim_cur || g->ulimit_n) {
		struct rlimit raised = { .rlim_cur = want, .rlim_max = MAX(want, limit.rlim_max) };

		if (setrlimit(RLIMIT_NOFILE, &raised) < 0) {
			raised.rlim_cur = raised.rlim_max = limit.rlim_max;
			setrlimit(RLIMIT_NOFILE, &raised);
		}
		if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
			return -errno;
	}
	lb->nofile = (uint32_t)MIN(limit.rlim_cur, (rlim_t)INT32_MAX);
	lb->maxconn = g->maxconn;
	if (!lb->maxconn) {
		if (lb->nofile < kept + 2) {
			log_alert("only %u descriptors are allowed (ulimit -n); %u are needed at least", lb->nofile,
				  kept + 2);
			return -EMFILE;
		}
		lb->maxconn = MIN((lb->nofile - kept) / 2, MAXCONN_DEFAULT);
	}
	if (lb->nofile < (uint64_t)lb->maxconn * 2 + kept) {
		log_alert("maxconn %u needs %lu descriptors, but only %u are allowed: lower maxconn or raise the limit (ulimit -n, LimitNOFILE=)",
			  lb->maxconn, (unsigned long)lb->maxconn * 2 + kept, lb->nofile);
		return -EMFILE;
	}
	lb->nr_threads = MIN(threads, lb->maxconn);
	return 0;
}

static int open_listener(struct lb_listener *l, uint32_t number, const struct addr *at, const struct sock_tuning *tuning)
{
	char name[32];
	int fd, r;

	snprintf(name, sizeof(name), "listener/%u", number);
	fd = handover_take_fd(name);
	if (fd >= 0 && !sock_listens_at(fd, at)) {
		close(fd);
		return -EPROTO;
	}
	r = fd >= 0 ? listener_take(&l->listener, fd) :
		      listener_open(&l->listener, at, (int)(l->frontend->conf->backlog ?: BACKLOG_DEFAULT), tuning);
	if (r == 0)
		handover_give_fd(name, listener_fd(l->listener));
	return r;
}

static int open_listeners(struct lb *lb)
{
	const struct sock_tuning tuning = {
		.limit = lb->budget.limit,
		.begin = budget_begin(&lb->budget),
	};
	struct frontend *f;
	size_t nr = 0;
	int failed = 0;

	list_for_each(f, &lb->pool->frontends, entry)
		nr += f->conf->nr_binds;
	lb->listeners = calloc(nr + 1, sizeof(*lb->listeners));
	if (!lb->listeners)
		return -ENOMEM;
	list_for_each(f, &lb->pool->frontends, entry) {
		struct config_bind *b;

		list_for_each(b, &f->conf->binds, entry) {
			struct lb_listener *l = &lb->listeners[lb->nr_listeners];
			char text[ADDR_STRLEN];
			int r;

			l->frontend = f;
			r = open_listener(l, lb->nr_listeners, &b->addr, &tuning);
			if (r == 0) {
				lb->nr_listeners++;
				continue;
			}
			failed = failed ?: r;
			log_alert("%s:%u: cannot listen on %s for '%s': %s", f->conf->file, b->line,
				  addr_format(&b->addr, text), f->conf->name, strerror(-r));
		}
	}
	return failed;
}

static bool wants_splice(const struct config *c)
{
	struct config_proxy *p;

	if (c->global.splice_none)
		return false;
	list_for_each(p, &c->proxies, entry) {
		if (p->splice_request != SPLICE_OFF || p->splice_response != SPLICE_OFF)
			return true;
	}
	return false;
}

/* A worker that dies could not be followed by another: without a supervisor, then, where nobody insists. */
static int give_up_supervisor(struct lb *lb, int error, const char *why)
{
	bool insists = lb->config->global.supervision == SUPERVISION_ON || handover_kind() != HANDOVER_NONE;

	lb->supervised = false;
	if (insists)
		log_alert("no supervisor: %s", why);
	else
		log_warning("no supervisor: %s; a worker that dies will take its sessions along (no master-worker says so without this message)", why);
	return insists ? error : 0;
}

/* Loads and qualifies the kernel path; without it everything works all the same, unless `splice require`. */
static int open_splice(struct lb *lb)
{
	const struct config_global *g = &lb->config->global;
	const struct splice_options o = {
		.max_sessions = lb->maxconn,
		.threads = lb->nr_threads,
		.pin_path = handover_kind() == HANDOVER_TRIAL ? "" : g->pin_path,
	};
	uint64_t began = now_ns(), had = 0, how = SOCK_UNREAD_TOLD; /* the program before us */
	enum sock_unread unread = SOCK_UNREAD_UNKNOWN;
	char why[300];
	int r;

	if (!wants_splice(lb->config)) {
		snprintf(lb->path_reason, sizeof(lb->path_reason), "switched off by the configuration");
		if (handover_number("kernel-path", &had) && had) {
			log_alert("cannot take over: the running shunt has sessions in the kernel, and this configuration switches the kernel path off: that needs a restart");
			return -EPROTO;
		}
		if (!g->splice_require)
			return 0;
		log_alert("splice require: the kernel path is %s", lb->path_reason);
		return -EINVAL;
	}
	handover_number("kernel-path", &had);
	r = splice_new(&lb->splice, &o, why, sizeof(why));
	if (r == 0 && had && handover_kind() == HANDOVER_TAKE) {
		/* That was tried, in maps of its own; in these there are sessions. */
		snprintf(lb->path_reason, sizeof(lb->path_reason), "taken over");
		handover_number("unread", &how); /* who does not say was told */
		lb->unread = how == SOCK_UNREAD_SHOWN ? SOCK_UNREAD_SHOWN : SOCK_UNREAD_TOLD;
		return 0;
	}
	if (r == 0) {
		r = qualify(lb->splice, &unread, why, sizeof(why));
		if (r < 0)
			lb->splice = splice_free(lb->splice);
	}
	if (r == 0 && lb->supervised && unread == SOCK_UNREAD_UNKNOWN) {
		r = give_up_supervisor(lb, -ENOTSUP, "this kernel does not tell which bytes of a sockmap's socket are unread, so no session could be taken over (it could with nosplice)");
		if (r < 0)
			return r;
	}
	if (r == 0) {
		lb->unread = unread;
		snprintf(lb->path_reason, sizeof(lb->path_reason), "the kernel qualified in %lu ms",
			 (unsigned long)((now_ns() - began) / NS_PER_MS));
		return 0;
	}
	snprintf(lb->path_reason, sizeof(lb->path_reason), "%s", why);
	if (r == -EADDRINUSE) {
		log_alert("%s", why);
		return r;
	}
	if (g->splice_require || had) {
		log_alert("%s: the kernel path is not available: %s", had ? "cannot take over" : "splice require", why);
		return r;
	}
	log_warning("the kernel path is not available, userspace moves all bytes: %s", why);
	return 0;
}

/*
 * A pipe for each thread: it outlives the worker, whose bytes may be in it, and this program. Without one bytes are copied, also where they are not to be
 * spliced at all.
 */
static int open_pipes(struct lb *lb)
{
	lb->pipes = calloc(lb->nr_threads, sizeof(*lb->pipes));
	if (!lb->pipes)
		return -ENOMEM;
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		struct relay_pipe *p = &lb->pipes[i];
		char in[32], out[32];
		int r = 0;

		snprintf(in, sizeof(in), "pipe/%u/in", i);
		snprintf(out, sizeof(out), "pipe/%u/out", i);
		*p = (struct relay_pipe){ .in = handover_take_fd(in), .out = handover_take_fd(out) };
		if (p->in < 0 || p->out < 0) {
			relay_pipe_close(p);
			r = wants_splice(lb->config) ? relay_pipe_open(p) : 0;
		}
		if (r < 0)
			log_warning("thread %u has no pipe, and copies what it could splice: %s", i, strerror(-r));
		if (p->in < 0)
			continue;
		handover_give_fd(in, p->in);
		handover_give_fd(out, p->out);
	}
	return 0;
}

static uint64_t budget_max(const struct config_global *g)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	return g->splice_budget ?: MIN(memory / 4, BUDGET_DEFAULT);
}

static int keep_ledger(struct lb *lb)
{
	int r = ledger_keep(lb->ledger);
	char why[200];

	if (r == 0)
		return 0;
	snprintf(why, sizeof(why), "the system refuses %lu MB of shared memory, for what %u sessions may hold: %s%s",
		 (unsigned long)lb->maxconn * 2 * LEDGER_AREA >> 20, lb->maxconn, strerror(-r),
		 r == -ENOMEM || r == -EFBIG ? " (vm.overcommit_memory, ulimit -v, ulimit -f; a lower maxconn needs less)" : "");
	return give_up_supervisor(lb, r, why);
}

static int build(struct lb *lb)
{
	int r;

	r = set_limits(lb);
	if (r == 0 && handover_kind() != HANDOVER_NONE)
		r = lb_compare(lb);
	if (r == 0 && handover_kind() == HANDOVER_TRIAL)
		return open_splice(lb);
	if (r < 0)
		return r;
	lb->budget = (struct budget){ .max = budget_max(&lb->config->global), .limit = (uint32_t)lb->config->global.splice_limit };
	lb->beats = shared_new(lb->nr_threads * sizeof(*lb->beats));
	if (!lb->beats)
		return -ENOMEM;
	r = pool_new(&lb->pool, lb->config, lb->maxconn);
	if (r < 0)
		return r;
	pool_add_sinks(lb->pool);
	r = open_listeners(lb);
	if (r == 0)
		r = open_splice(lb);
	if (r == 0)
		r = open_pipes(lb);
	if (r == 0)
		r = ledger_new(&lb->ledger, lb->maxconn, lb->nr_threads);
	if (r == 0 && lb->supervised)
		r = keep_ledger(lb);
	if (r == 0)
		r = admin_new(&lb->admin, lb);
	if (r == 0) {
		lb_take_counters(lb);
		lb_offer(lb);
	}
	return r;
}

int lb_new(struct lb **ret, const struct config *c)
{
	struct lb *lb = shared_new(sizeof(*lb));
	uint64_t rested = 0;
	int r;

	if (!lb)
		return -ENOMEM;
	lb->config = c;
	lb->supervised = c->global.supervision != SUPERVISION_OFF;
	lb->started_ns = now_ns();
	handover_number("started", &lb->started_ns);
	lb->guarded = handover_kind() == HANDOVER_TAKE;
	lb->resting = handover_number("rested", &rested) && rested;
	lb->signals.fd = -1;
	r = build(lb);
	if (r < 0) {
		/* What we took is not ours to remove yet: a guardian goes on with it. */
		if (!lb->guarded)
			lb_free(lb);
		return r;
	}
	log_notice("%s path: %s", lb->splice ? "kernel" : "userspace", lb->path_reason);
	*ret = lb;
	return 0;
}

int lb_try(const struct config *c)
{
	struct lb *lb;
	int r = lb_new(&lb, c);

	if (r == 0)
		lb_free(lb);
	return r;
}

struct lb *lb_free(struct lb *lb)
{
	if (!lb)
		return NULL;
	admin_free(lb->admin);
	for (uint32_t i = 0; i < lb->nr_listeners; i++)
		listener_close(lb->listeners[i].listener);
	free(lb->listeners);
	ledger_free(lb->ledger);
	splice_free(lb->splice);
	for (uint32_t i = 0; lb->pipes && i < lb->nr_threads; i++)
		relay_pipe_close(&lb->pipes[i]);
	free(lb->pipes);
	log_clear_sinks();
	pool_free(lb->pool);
	shared_free(lb->beats);
	return shared_free(lb);
}
