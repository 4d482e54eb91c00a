/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb.c - see lb.h. */
#include "lb.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "admin.h"
#include "fdtable.h"
#include "log.h"
#include "qualify.h"
#include "shared.h"

#define DESCRIPTOR_RESERVE 96	  /* logs, stats clients, maps, the pin folder: what is neither a session's */
#define DESCRIPTORS_PER_THREAD 5  /* nor a thread's: epoll and its wake-up, the event ring and its epoll, a spare; and a copy of each listener */
#define MAXCONN_DEFAULT 20000	  /* when the descriptor limit would allow more and nobody asked for it */
#define THREADS_MAX 64u		  /* unless nbthread says otherwise */
#define BUDGET_DEFAULT (1ull << 30)
#define CRASHES_MAX 2		  /* workers that may die over a session, */
#define CRASH_MEMORY_S 60	  /* one within so many seconds of the other */
#define BACKLOG_DEFAULT 4096	  /* the kernel cuts it to net.core.somaxconn */

/* ---- stopping ---- */

static void close_listeners(struct lb *lb)
{
	for (uint32_t i = 0; i < lb->nr_threads; i++)
		lb_thread_close_listeners(&lb->threads[i]);
	for (uint32_t i = 0; i < lb->nr_listeners; i++)
		lb->listeners[i].listener = listener_close(lb->listeners[i].listener);
}

static void on_finished(struct later *l)
{
	loop_stop(container_of(l, struct lb, finished)->loop);
}

void lb_stop(struct lb *lb)
{
	__atomic_store_n(&lb->stopping, true, __ATOMIC_SEQ_CST);
	__atomic_store_n(&lb->killed, true, __ATOMIC_SEQ_CST);
	close_listeners(lb);
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		loop_enter(lb->threads[i].loop);
		sessions_kill(lb->threads[i].sessions);
		loop_leave(lb->threads[i].loop);
	}
	loop_stop(lb->loop);
}

static void on_stop_timer(struct timer *t)
{
	struct lb *lb = container_of(t, struct lb, stop_timer);

	log_warning("hard-stop-after: %u sessions are reset", stat_get(lb->taken));
	lb_stop(lb);
}

void lb_drain(struct lb *lb)
{
	uint32_t after = lb->config->global.hard_stop_after_ms;

	if (lb->stopping)
		return;
	if (after)
		lb->stop_at_ns = loop_now(lb->loop) + after * NS_PER_MS;
	__atomic_store_n(&lb->stopping, true, __ATOMIC_SEQ_CST);
	close_listeners(lb);
	log_notice("stopping: no new clients, %u sessions to finish", stat_get(lb->taken));
	if (!__atomic_load_n(&lb->taken, __ATOMIC_SEQ_CST))
		loop_stop(lb->loop);
	else if (after)
		loop_timer_set(lb->loop, &lb->stop_timer, lb->stop_at_ns);
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
				   s->conf->name, server_state_name(s->state), stat_get(s->stats.current),
				   (unsigned long)stat_get(s->stats.sessions),
				   (unsigned long)stat_get(s->stats.connect_errors));
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
			log_notice("stopping now: %u sessions are reset", stat_get(lb->taken));
			lb_stop(lb);
			break;
		case SIGHUP:
			log_servers(lb);
			break;
		}
	}
}

/* ---- building ---- */

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
	const struct splice_options o = { .max_sessions = lb->maxconn, .threads = lb->nr_threads, .pin_path = g->pin_path };
	uint64_t began = now_ns();
	bool tells_unread = false;
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
		r = qualify(lb->splice, &tells_unread, why, sizeof(why));
		if (r < 0)
			lb->splice = splice_free(lb->splice);
	}
	if (r == 0 && lb->supervised && !tells_unread) {
		log_alert("no supervisor: this kernel does not tell which bytes of a sockmap's socket are unread, and no session could be taken over: start without -W and master-worker, or with nosplice");
		return -ENOTSUP;
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

static int watch_signals(struct lb *lb)
{
	sigset_t set;
	int fd;

	lb_signals(&set);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	poll_init(&lb->signals, fd, on_signal);
	return loop_watch(lb->loop, &lb->signals, EPOLLIN);
}

static int build_threads(struct lb *lb)
{
	uint32_t n = lb->nr_threads;
	int r = 0;

	lb->threads = calloc(n, sizeof(*lb->threads));
	if (!lb->threads)
		return -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < n; i++) {
		r = lb_thread_init(&lb->threads[i], lb, i);
		if (r == 0)
			r = lb_thread_share_listeners(&lb->threads[i], lb->listeners);
		if (r == 0 && lb->supervised)
			loop_beat(lb->threads[i].loop, &lb->beats[i].at_ns);
	}
	lb->loop = lb->threads[0].loop;
	return r;
}

static uint64_t budget_max(const struct config_global *g)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	return g->splice_budget ?: MIN(memory / 4, BUDGET_DEFAULT);
}

static void add_sinks(struct lb *lb)
{
	log_clear_sinks();
	for (uint32_t i = 0; i < lb->pool->nr_global_sinks; i++)
		log_add_sink(lb->pool->global_sinks[i]);
}

static int build(struct lb *lb)
{
	int r;

	r = set_limits(lb);
	if (r < 0)
		return r;
	lb->budget = (struct budget){ .max = budget_max(&lb->config->global), .limit = (uint32_t)lb->config->global.splice_limit };
	lb->beats = shared_new(lb->nr_threads * sizeof(*lb->beats));
	if (!lb->beats)
		return -ENOMEM;
	r = pool_new(&lb->pool, lb->config, lb->maxconn);
	if (r < 0)
		return r;
	add_sinks(lb);
	r = open_listeners(lb);
	if (r == 0)
		r = open_splice(lb);
	if (r == 0)
		r = ledger_new(&lb->ledger, lb->maxconn, lb->nr_threads);
	if (r == 0 && lb->supervised) {
		r = ledger_keep(lb->ledger);
		if (r < 0)
			log_alert("no supervisor: the system refuses %lu MB of addresses for what %u sessions may hold (vm.overcommit_memory, ulimit -v): lower maxconn",
				  (unsigned long)lb->maxconn * 2 * LEDGER_AREA >> 20, lb->maxconn);
	}
	if (r == 0)
		r = admin_new(&lb->admin, lb);
	return r;
}

int lb_new(struct lb **ret, const struct config *c, bool supervised)
{
	struct lb *lb = shared_new(sizeof(*lb));
	int r;

	if (!lb)
		return -ENOMEM;
	lb->config = c;
	lb->supervised = supervised;
	lb->started_ns = now_ns();
	lb->signals.fd = -1;
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
	admin_free(lb->admin);
	for (uint32_t i = 0; i < lb->nr_listeners; i++)
		listener_close(lb->listeners[i].listener);
	free(lb->listeners);
	ledger_free(lb->ledger);
	splice_free(lb->splice);
	log_clear_sinks();
	pool_free(lb->pool);
	shared_free(lb->beats);
	return shared_free(lb);
}

/* ---- the worker ---- */

/* What the dead one had under way that is not in the ledger is over; who was its client is counted again when its session is adopted. */
static bool is_taken(void *arg, uint32_t session)
{
	struct lb *lb = arg;

	return ledger_get(lb->ledger, session)->state != LEDGER_FREE;
}

/* Its session has no record any more, and what has none is swept, with a reset. It must not be taken for a new client's. */
static void drop_record(struct lb *lb, struct ledger_record *r)
{
	struct addr client;

	ledger_addr_get(&r->client, &client);
	if (r->fd[0] >= 0 && sock_is_fresh(r->fd[0]) && sock_is_connected_to(r->fd[0], &client))
		sock_end_reset(r->fd[0]);
	stat_add(lb->stats.resets_sent, 1);
	stat_add(lb->stats.lost, 1);
	r->state = LEDGER_FREE;
}

/* Who is served whenever a worker dies may be why: it is not served a second time after that. */
static void drop_poison(struct lb *lb)
{
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		uint32_t *serving = ledger_serving(lb->ledger, i);
		struct ledger_record *r = NULL;

		if (*serving && *serving <= ledger_max(lb->ledger))
			r = ledger_get(lb->ledger, *serving - 1);
		*serving = 0;
		if (!r || r->state == LEDGER_FREE)
			continue;
		if (now_ns() - r->crashed_ns > CRASH_MEMORY_S * NS_PER_SEC)
			r->crashes = 0; /* it is not why */
		r->crashed_ns = now_ns();
		if (++r->crashes < CRASHES_MAX)
			continue;
		log_alert("session %lu (%s) is reset: %u workers died while they served it", (unsigned long)r->serial,
			  ledger_state_name(r->state), r->crashes);
		drop_record(lb, r);
	}
}

/* Whatever the worker died of may have written into the ledger. */
static bool is_sane(const struct lb *lb, const struct ledger_record *r)
{
	const struct frontend *fe = pool_frontend(lb->pool, r->frontend);
	const struct backend *be = pool_backend(lb->pool, r->backend);

	return r->state <= LEDGER_FLUSH && fe && be && r->server <= be->conf->nr_servers && r->fallback < FALLBACK_MAX &&
	       r->fd[0] >= -1 && r->fd[0] < (int)lb->nofile && r->fd[1] >= -1 && r->fd[1] < (int)lb->nofile &&
	       r->held[0] <= LEDGER_AREA && r->held[1] <= LEDGER_AREA && r->broken <= 1;
}

static void drop_nonsense(struct lb *lb)
{
	for (uint32_t i = 0; i < ledger_max(lb->ledger); i++) {
		struct ledger_record *r = ledger_get(lb->ledger, i);

		if (r->state == LEDGER_FREE || is_sane(lb, r))
			continue;
		log_alert("session %lu is reset: its record makes no sense", (unsigned long)r->serial);
		drop_record(lb, r);
	}
}

/* A client that was accepted and did not get into the ledger. */
static bool is_new_client(void *arg, int fd)
{
	struct lb *lb = arg;
	uint32_t i, n = lb->stopping ? 0 : lb->nr_listeners;
	struct new_client *more;

	for (i = 0; i < 2 * n; i++)
		if (listener_has_accepted(lb->listeners[i % n].listener, fd, i >= n))
			break;
	if (i == 2 * n || !sock_is_fresh(fd))
		return false;
	more = reallocarray(lb->new_clients, lb->nr_new_clients + 1, sizeof(*more));
	if (!more)
		return false;
	lb->new_clients = more;
	more[lb->nr_new_clients++] = (struct new_client){ .fd = fd, .listener = i % n };
	return true;
}

static void admit_new_clients(struct lb *lb)
{
	for (uint32_t i = 0; i < lb->nr_new_clients; i++)
		lb_thread_admit(&lb->threads[0], lb->new_clients[i].listener, lb->new_clients[i].fd);
	free(lb->new_clients);
	lb->new_clients = NULL;
	lb->nr_new_clients = 0;
}

static int forget_worker(struct lb *lb)
{
	int r = 0;

	stat_add(lb->stats.worker_deaths, 1);
	drop_poison(lb);
	drop_nonsense(lb);
	ledger_recover(lb->ledger);
	pool_forget_sessions(lb->pool);
	lb->taken = lb->stats.current = 0;
	lb->budget.given = 0;
	lb->killed = false;
	lb->full = false;
	lb->scarce_until_ns = 0;
	/* They were closed, or are to be; their numbers may be others' now. */
	for (uint32_t i = 0; lb->stopping && i < lb->nr_listeners; i++) {
		fdtable_drop(listener_fd(lb->listeners[i].listener));
		lb->listeners[i].listener = listener_forget(lb->listeners[i].listener);
	}
	for (uint32_t i = 0; r == 0 && i < ledger_max(lb->ledger); i++) {
		const struct ledger_record *record = ledger_get(lb->ledger, i);

		for (int end = 0; record->state != LEDGER_FREE && r == 0 && end < 2; end++)
			r = fdtable_keep(record->fd[end]);
	}
	pool_rest_sinks(lb->pool); /* what was said so far may have opened one, which stands in no record */
	if (r == 0)
		r = fdtable_sweep(is_new_client, lb); /* sockets leave the map as they are closed */
	if (lb->splice)
		splice_sweep(lb->splice, is_taken, lb);
	return r;
}

static void adopt_session(struct lb *lb, struct lb_thread *t, uint32_t number)
{
	const struct ledger_record *r = ledger_get(lb->ledger, number);
	struct frontend *fe = pool_frontend(lb->pool, r->frontend);
	struct backend *be = pool_backend(lb->pool, r->backend);

	*ledger_serving(lb->ledger, t->number) = number + 1; /* should this kill us too */
	lb->taken++;
	fe->taken++;
	t->load++;
	session_adopt(t->sessions, number, fe, be);
}

static int by_serial(const void *a, const void *b, void *arg)
{
	uint64_t x = ledger_get(arg, *(const uint32_t *)a)->serial, y = ledger_get(arg, *(const uint32_t *)b)->serial;

	return x < y ? -1 : x > y;
}

/* Is it anything but waiting? */
static bool has_state(const struct lb *lb, uint32_t number)
{
	uint32_t state = ledger_get(lb->ledger, number)->state;

	return state != LEDGER_FREE && state != LEDGER_QUEUED;
}

static struct lb_thread *thread_of(struct lb *lb, uint32_t number)
{
	uint32_t i = 0;

	while (number - ledger_first(lb->ledger, i) >= ledger_share(lb->ledger, i))
		i++;
	return &lb->threads[i];
}

/* Who was waiting for a place comes last, in the order of waiting. */
static int adopt_sessions(struct lb *lb)
{
	__cleanup_free uint32_t *queued = calloc(ledger_max(lb->ledger), sizeof(*queued));
	uint32_t nr = 0;

	if (!queued)
		return -ENOMEM;
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		struct lb_thread *t = &lb->threads[i];
		uint32_t first = ledger_first(lb->ledger, i), unsettled = sessions_unsettled(t->sessions);
		bool is_first = has_state(lb, unsettled);

		if (is_first)
			adopt_session(lb, t, unsettled);
		for (uint32_t n = first; n < first + ledger_share(lb->ledger, i); n++) {
			if (is_first && n == unsettled)
				continue;
			if (ledger_get(lb->ledger, n)->state == LEDGER_QUEUED)
				queued[nr++] = n;
			else if (has_state(lb, n))
				adopt_session(lb, t, n);
		}
	}
	qsort_r(queued, nr, sizeof(*queued), by_serial, lb->ledger);
	for (uint32_t i = 0; i < nr; i++)
		adopt_session(lb, thread_of(lb, queued[i]), queued[i]);
	return 0;
}

int lb_start(struct lb *lb, bool after)
{
	uint64_t began = now_ns();
	int r = 0;

	pthread_mutex_init(&lb->scarce, NULL);
	timer_init(&lb->stop_timer, on_stop_timer);
	later_init(&lb->finished, on_finished);
	lb->signals.fd = -1;
	/* What these point to died with its worker. */
	lb->threads = NULL;
	lb->loop = NULL;
	lb->new_clients = NULL;
	lb->nr_new_clients = 0;
	add_sinks(lb); /* the supervisor has none */
	if (after)
		r = MIN(forget_worker(lb), 0);
	if (r == 0)
		r = build_threads(lb);
	if (r == 0)
		r = admin_start(lb->admin);
	if (r == 0)
		r = watch_signals(lb);
	if (r == 0 && lb->stopping && lb->stop_at_ns)
		r = loop_timer_set(lb->loop, &lb->stop_timer, lb->stop_at_ns);
	if (r == 0 && after)
		r = adopt_sessions(lb);
	if (r == 0 && after) {
		admit_new_clients(lb);
		for (uint32_t i = 0; i < lb->nr_threads; i++)
			loop_settle(lb->threads[i].loop); /* who ended at once leaves */
		log_notice("%u sessions were taken over in %lu ms", stat_get(lb->taken),
			   (unsigned long)((now_ns() - began) / NS_PER_MS));
	}
	for (uint32_t i = 0; r == 0 && i < lb->nr_threads; i++)
		r = lb_thread_start(&lb->threads[i]);
	__atomic_store_n(&lb->ready, r == 0, __ATOMIC_RELEASE);
	return r;
}

void lb_finish(struct lb *lb)
{
	if (lb->loop)
		admin_stop(lb->admin);
	if (lb->signals.fd >= 0)
		close(lb->signals.fd);
	for (uint32_t i = 0; lb->threads && i < lb->nr_threads; i++)
		lb_thread_done(&lb->threads[i]);
	free(lb->threads);
	lb->threads = NULL;
	lb->loop = NULL;
	pthread_mutex_destroy(&lb->scarce);
}

static void *run_thread(void *arg)
{
	struct lb_thread *t = arg;
	int r = loop_run(t->loop);

	if (r < 0) {
		/* Its sessions would hang for ever. */
		log_alert("thread %u: the event loop failed: %s", t->number, strerror(-r));
		abort();
	}
	return NULL;
}

int lb_run(struct lb *lb)
{
	int r = 0;

	if (lb->stopping && !lb->taken)
		return 0; /* the last session did not outlive its worker */
	for (uint32_t i = 1; r == 0 && i < lb->nr_threads; i++) {
		struct lb_thread *t = &lb->threads[i];
		char name[32]; /* the kernel takes 15 */

		r = -pthread_create(&t->id, NULL, run_thread, t);
		if (r < 0) {
			log_alert("cannot start thread %u: %s", i, strerror(-r));
			break;
		}
		t->running = true;
		snprintf(name, sizeof(name), "shunt/%u", i);
		pthread_setname_np(t->id, name);
	}
	if (r == 0)
		r = loop_run(lb->loop);
	for (uint32_t i = 1; i < lb->nr_threads; i++) {
		struct lb_thread *t = &lb->threads[i];

		if (!t->running)
			continue;
		loop_enter(t->loop);
		loop_stop(t->loop);
		loop_leave(t->loop);
		pthread_join(t->id, NULL);
	}
	if (r < 0 && lb->supervised)
		return r;
	/* What was under way from one thread to another. */
	lb->killed = true;
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		sessions_kill(lb->threads[i].sessions);
		loop_settle(lb->threads[i].loop);
	}
	return r;
}
