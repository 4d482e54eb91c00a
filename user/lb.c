/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb.c - see lb.h. */
#include "lb.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "admin.h"
#include "log.h"
#include "qualify.h"

#define DESCRIPTOR_RESERVE 96	  /* listeners, logs, stats clients, maps, the loop: what is not a session's */
#define MAXCONN_DEFAULT 20000	  /* when the descriptor limit would allow more and nobody asked for it */
#define EXHAUSTED_PAUSE_MS 100	  /* before accept is tried again, if no session ends earlier */
#define BACKLOG_DEFAULT 4096	  /* the kernel cuts it to net.core.somaxconn */

/* ---- accepting, and its limits ---- */

static bool may_accept(const struct lb *lb, const struct frontend *fe)
{
	return lb->stats.current < lb->maxconn && ledger_used(lb->ledger) < lb->maxconn &&
	       fe->stats.current < fe->maxconn;
}

/* Every listener that has no room: all of them if the process is full, one frontend's if that is. */
static void pause_full(struct lb *lb)
{
	bool process_full = lb->stats.current >= lb->maxconn || ledger_used(lb->ledger) >= lb->maxconn;

	for (uint32_t i = 0; i < lb->nr_listeners; i++) {
		struct lb_listener *l = &lb->listeners[i];

		if (l->paused || may_accept(lb, l->frontend))
			continue;
		l->paused = true;
		listener_pause(l->listener);
		stat_add(l->frontend->stats.full, 1);
	}
	if (process_full && !lb->full) {
		lb->full = true;
		lb->stats.full++;
		log_warning("maxconn %u is reached: accepting is paused", lb->maxconn);
	}
}

static void resume_listeners(struct lb *lb)
{
	lb->exhausted = false;
	for (uint32_t i = 0; i < lb->nr_listeners; i++) {
		struct lb_listener *l = &lb->listeners[i];

		if (!l->paused || !l->listener || !may_accept(lb, l->frontend))
			continue;
		if (listener_resume(l->listener) < 0) {
			/* No memory: a session that ends tries again, or else this timer. */
			loop_timer_set(lb->loop, &lb->exhausted_timer,
				       loop_now(lb->loop) + EXHAUSTED_PAUSE_MS * NS_PER_MS);
			continue;
		}
		l->paused = false;
	}
	/* Said again only after a real relief, not for each session that makes room for the next. */
	if (lb->stats.current < lb->maxconn - lb->maxconn / 8)
		lb->full = false;
}

static bool on_accepted(void *arg, int fd, const struct addr *client)
{
	struct lb_listener *l = arg;

	session_start(l->lb->sessions, l->frontend, fd, client); /* logs and counts its own failures */
	if (!may_accept(l->lb, l->frontend)) {
		pause_full(l->lb);
		return false;
	}
	return true;
}

static void on_exhausted(void *arg, int error)
{
	struct lb_listener *l = arg;
	struct lb *lb = l->lb;

	if (!lb->stats.accept_errors++)
		log_alert("accept: %s: accepting is paused until a session ends (said once; see AcceptPausedExhausted)",
			  strerror(-error));
	lb->exhausted = true;
	/* Without memory for the timer it is better to be told again and again than never more. */
	if (loop_timer_set(lb->loop, &lb->exhausted_timer, loop_now(lb->loop) + EXHAUSTED_PAUSE_MS * NS_PER_MS) < 0)
		return;
	l->paused = true;
	listener_pause(l->listener);
}

static void on_exhausted_timer(struct timer *t)
{
	resume_listeners(container_of(t, struct lb, exhausted_timer));
}

static const struct listener_ops listener_ops = {
	.accepted = on_accepted,
	.exhausted = on_exhausted,
};

/* A session's slot and descriptors are free again. */
static void on_session_ended(void *arg)
{
	struct lb *lb = arg;

	if (lb->stopping && !sessions_count(lb->sessions))
		loop_stop(lb->loop);
	else if (!lb->stopping)
		resume_listeners(lb);
}

/* ---- stopping ---- */

static void close_listeners(struct lb *lb)
{
	for (uint32_t i = 0; i < lb->nr_listeners; i++)
		lb->listeners[i].listener = listener_close(lb->listeners[i].listener);
}

void lb_stop(struct lb *lb)
{
	lb->stopping = true;
	close_listeners(lb);
	sessions_kill(lb->sessions);
	loop_stop(lb->loop);
}

static void on_stop_timer(struct timer *t)
{
	struct lb *lb = container_of(t, struct lb, stop_timer);

	log_warning("hard-stop-after: %u sessions are reset", sessions_count(lb->sessions));
	lb_stop(lb);
}

void lb_drain(struct lb *lb)
{
	uint32_t after = lb->config->global.hard_stop_after_ms;

	if (lb->stopping)
		return;
	lb->stopping = true;
	close_listeners(lb);
	log_notice("stopping: no new clients, %u sessions to finish", sessions_count(lb->sessions));
	if (!sessions_count(lb->sessions))
		loop_stop(lb->loop);
	else if (after)
		loop_timer_set(lb->loop, &lb->stop_timer, loop_now(lb->loop) + after * NS_PER_MS);
}

void lb_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGUSR1);
	sigaddset(ret, SIGHUP);
}

/* SIGHUP, as in a plain HAProxy process: say how the servers are. */
static void log_servers(struct lb *lb)
{
	struct backend *b;

	list_for_each(b, &lb->pool->backends, entry) {
		for (uint32_t i = 0; i < b->conf->nr_servers; i++) {
			struct server *s = &b->servers[i];

			log_notice("server %s/%s is %s: %u sessions, %lu in all, %lu failed connects", b->conf->name,
				   s->conf->name, server_state_name(s->state), s->stats.current,
				   (unsigned long)s->stats.sessions, (unsigned long)s->stats.connect_errors);
		}
	}
}

static void on_signal(struct poll *p, uint32_t events)
{
	struct lb *lb = container_of(p, struct lb, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(p->fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGUSR1:
			lb_drain(lb);
			break;
		case SIGINT:
			log_notice("stopping now: %u sessions are reset", sessions_count(lb->sessions));
			lb_stop(lb);
			break;
		case SIGHUP:
			log_servers(lb);
			break;
		}
	}
}

static void on_splice_events(struct poll *p, uint32_t events)
{
	struct lb *lb = container_of(p, struct lb, splice_events);

	(void)events;
	sessions_dispatch(lb->sessions);
}

/* ---- building ---- */

/* Settles maxconn and the descriptor limit; each follows from the other where it is not given. */
static int set_limits(struct lb *lb)
{
	const struct config_global *g = &lb->config->global;
	struct rlimit limit;
	uint64_t want;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	want = g->ulimit_n ?: g->maxconn ? (uint64_t)g->maxconn * 2 + DESCRIPTOR_RESERVE : limit.rlim_max;
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
		if (lb->nofile < DESCRIPTOR_RESERVE + 2) {
			log_alert("only %u descriptors are allowed (ulimit -n); %u are needed at least", lb->nofile,
				  DESCRIPTOR_RESERVE + 2);
			return -EMFILE;
		}
		lb->maxconn = MIN((lb->nofile - DESCRIPTOR_RESERVE) / 2, MAXCONN_DEFAULT);
	}
	if (lb->nofile < (uint64_t)lb->maxconn * 2 + DESCRIPTOR_RESERVE) {
		log_alert("maxconn %u needs %lu descriptors, but only %u are allowed: lower maxconn or raise the limit (ulimit -n, LimitNOFILE=)",
			  lb->maxconn, (unsigned long)lb->maxconn * 2 + DESCRIPTOR_RESERVE, lb->nofile);
		return -EMFILE;
	}
	return 0;
}

static int open_listeners(struct lb *lb)
{
	const struct sock_tuning tuning = { .limit = lb->config->global.splice_limit };
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
			l->lb = lb;
			r = listener_open(&l->listener, &b->addr, (int)(f->conf->backlog ?: BACKLOG_DEFAULT), &tuning);
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

/* Loads and qualifies the kernel path; without it everything works all the same, unless `splice require`. */
static int open_splice(struct lb *lb)
{
	const struct config_global *g = &lb->config->global;
	const struct splice_options o = { .max_sessions = lb->maxconn, .pin_path = g->pin_path };
	uint64_t began = now_ns();
	char why[300];
	int r;

	if (!wants_splice(lb->config)) {
		snprintf(lb->path_reason, sizeof(lb->path_reason), "switched off by the configuration");
		if (!g->splice_require)
			return 0;
		log_alert("splice require: the kernel path is %s", lb->path_reason);
		return -EINVAL;
	}
	r = splice_new(&lb->splice, &o, why, sizeof(why));
	if (r == 0) {
		r = qualify(lb->splice, why, sizeof(why));
		if (r < 0)
			lb->splice = splice_free(lb->splice);
	}
	if (r == 0) {
		snprintf(lb->path_reason, sizeof(lb->path_reason), "the kernel qualified in %lu ms",
			 (unsigned long)((now_ns() - began) / NS_PER_MS));
		return 0;
	}
	snprintf(lb->path_reason, sizeof(lb->path_reason), "%s", why);
	if (r == -EADDRINUSE) {
		log_alert("%s", why);
		return r;
	}
	if (g->splice_require) {
		log_alert("splice require: the kernel path is not available: %s", why);
		return r;
	}
	log_warning("the kernel path is not available, userspace moves all bytes: %s", why);
	return 0;
}

static int watch_descriptors(struct lb *lb)
{
	sigset_t set;
	int fd, r;

	lb_signals(&set);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	poll_init(&lb->signals, fd, on_signal);
	r = loop_watch(lb->loop, &lb->signals, EPOLLIN);
	if (r == 0 && lb->splice) {
		poll_init(&lb->splice_events, splice_event_fd(lb->splice), on_splice_events);
		r = loop_watch(lb->loop, &lb->splice_events, EPOLLIN);
	}
	for (uint32_t i = 0; r == 0 && i < lb->nr_listeners; i++)
		r = listener_start(lb->listeners[i].listener, lb->loop, &listener_ops, &lb->listeners[i]);
	return r;
}

static int build(struct lb *lb)
{
	struct sessions_options o = {
		.stats = &lb->stats,
		.tuning = { .limit = lb->config->global.splice_limit },
		.ended = on_session_ended,
		.arg = lb,
	};
	int r;

	if (lb->config->global.nbthread > 1)
		log_warning("nbthread %u: this version runs one thread", lb->config->global.nbthread);
	r = set_limits(lb);
	if (r < 0)
		return r;
	r = pool_new(&lb->pool, lb->config, lb->maxconn);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < lb->pool->nr_global_sinks; i++)
		log_add_sink(lb->pool->global_sinks[i]);
	r = open_listeners(lb);
	if (r < 0)
		return r;
	r = open_splice(lb);
	if (r < 0)
		return r;
	r = loop_new(&lb->loop);
	if (r == 0)
		r = ledger_new(&lb->ledger, lb->maxconn);
	if (r < 0)
		return r;
	o.loop = lb->loop;
	o.splice = lb->splice;
	o.ledger = lb->ledger;
	r = sessions_new(&lb->sessions, &o);
	if (r == 0)
		r = admin_new(&lb->admin, lb);
	if (r == 0)
		r = watch_descriptors(lb);
	return r;
}

int lb_new(struct lb **ret, const struct config *c)
{
	struct lb *lb = calloc(1, sizeof(*lb));
	int r;

	if (!lb)
		return -ENOMEM;
	lb->config = c;
	lb->started_ns = now_ns();
	lb->signals.fd = lb->splice_events.fd = -1;
	timer_init(&lb->exhausted_timer, on_exhausted_timer);
	timer_init(&lb->stop_timer, on_stop_timer);
	r = build(lb);
	if (r < 0) {
		lb_free(lb);
		return r;
	}
	log_notice("%s path: %s", lb->splice ? "kernel" : "userspace", lb->path_reason);
	*ret = lb;
	return 0;
}

struct lb *lb_free(struct lb *lb)
{
	if (!lb)
		return NULL;
	close_listeners(lb);
	admin_free(lb->admin);
	sessions_free(lb->sessions);
	if (lb->signals.fd >= 0)
		close(lb->signals.fd);
	ledger_free(lb->ledger);
	if (lb->loop)
		loop_free(lb->loop);
	splice_free(lb->splice);
	log_clear_sinks();
	pool_free(lb->pool);
	free(lb->listeners);
	free(lb);
	return NULL;
}

int lb_run(struct lb *lb)
{
	return loop_run(lb->loop);
}
