/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb.c - a worker's life, and how the balancer stops; see lb.h. What outlives a worker is built in lb_build.c. */
#include "lb.h"

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "admin.h"
#include "lb_adopt.h"
#include "log.h"

#define GUARDIAN_LOOK_US 500

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
	sigaddset(ret, SIGUSR2);
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
		case SIGUSR2:
			if (!lb->supervised)
				log_warning("SIGUSR2: there is no supervisor, and only that can upgrade the program");
			else if (__atomic_load_n(&lb->resting, __ATOMIC_ACQUIRE))
				loop_stop(lb->loop);
			break;
		}
	}
}

/* ---- the worker ---- */

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
		if (r == 0 && lb->supervised) {
			loop_beat(lb->threads[i].loop, &lb->beats[i].at_ns);
			loop_copied(lb->threads[i].loop, &lb->guarded);
		}
	}
	lb->loop = lb->threads[0].loop;
	return r;
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
	pool_add_sinks(lb->pool); /* the supervisor has none */
	if (after)
		r = lb_forget_worker(lb);
	if (r == 0)
		r = build_threads(lb);
	if (r == 0)
		r = admin_start(lb->admin);
	if (r == 0)
		r = watch_signals(lb);
	if (r == 0 && lb->stopping && lb->stop_at_ns)
		r = loop_timer_set(lb->loop, &lb->stop_timer, lb->stop_at_ns);
	if (r == 0 && after)
		r = lb_adopt_sessions(lb);
	if (r == 0 && after) {
		for (uint32_t i = 0; i < lb->nr_threads; i++)
			loop_settle(lb->threads[i].loop); /* who ended at once leaves */
		log_notice("sessions taken over: %u, in %lu ms", stat_get(lb->taken),
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
	char name[32]; /* the kernel takes 15 */
	int r;

	snprintf(name, sizeof(name), "shunt/%u", t->number);
	pthread_setname_np(pthread_self(), name); /* from outside it is a file, which nobody may open any more */
	r = loop_run(t->loop);
	if (r < 0) {
		/* Its sessions would hang for ever. */
		log_alert("thread %u: the event loop failed: %s", t->number, strerror(-r));
		abort();
	}
	return NULL;
}

/* Whatever changes the table of descriptors waits until a guardian has no copy of it: it would find other sockets at the numbers in the ledger. */
static void wait_for_guardian(const struct lb *lb)
{
	while (__atomic_load_n(&lb->guarded, __ATOMIC_ACQUIRE))
		usleep(GUARDIAN_LOOK_US);
}

int lb_run(struct lb *lb)
{
	int r = 0;

	wait_for_guardian(lb);
	if (lb->stopping && !lb->taken)
		return 0; /* the last session did not outlive its worker */
	for (uint32_t i = 1; r == 0 && i < lb->nr_threads; i++) {
		struct lb_thread *t = &lb->threads[i];

		r = -pthread_create(&t->id, NULL, run_thread, t);
		if (r < 0) {
			log_alert("cannot start thread %u: %s", i, strerror(-r));
			break;
		}
		t->running = true;
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
	if ((r < 0 && lb->supervised) || __atomic_load_n(&lb->resting, __ATOMIC_ACQUIRE))
		return r;
	/* What was under way from one thread to another. */
	lb->killed = true;
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		sessions_kill(lb->threads[i].sessions);
		loop_settle(lb->threads[i].loop);
	}
	return r;
}
