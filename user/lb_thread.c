/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb_thread.c - see lb_thread.h. */
#include "lb_thread.h"

#include <string.h>

#include "lb.h"
#include "log.h"

#define EXHAUSTED_PAUSE_MS 100 /* before accept is tried again, if no session ends earlier */
#define SCARCE_MS 10000	       /* without another failure, before threads accept at once again */

/* ---- places ---- */

static bool take_place(uint32_t *taken, uint32_t max)
{
	uint32_t n = stat_get(*taken);

	while (n < max)
		if (__atomic_compare_exchange_n(taken, &n, n + 1, true, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return true;
	return false;
}

/*
 * Who waits says so (lb_thread.paused, lb.stopping) and then looks here; who gives a place back
 * does that and then looks who waits. One of them sees the other, as all of it has one order.
 */
static bool has_place(const struct lb *lb, const struct frontend *fe)
{
	return __atomic_load_n(&lb->taken, __ATOMIC_SEQ_CST) < lb->maxconn &&
	       __atomic_load_n(&fe->taken, __ATOMIC_SEQ_CST) < fe->maxconn;
}

static bool keep_place(struct lb *lb, struct frontend *fe)
{
	if (!take_place(&lb->taken, lb->maxconn))
		return false;
	if (take_place(&fe->taken, fe->maxconn))
		return true;
	stat_sub(lb->taken, 1);
	return false;
}

static void give_place_back(struct lb *lb, struct frontend *fe)
{
	__atomic_fetch_sub(&fe->taken, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_sub(&lb->taken, 1, __ATOMIC_SEQ_CST);
}

/* ---- pausing and resuming ---- */

static void resume_listeners(struct lb_thread *t)
{
	struct lb *lb = t->lb;
	bool paused = false;

	for (uint32_t i = 0; i < lb->nr_listeners; i++) {
		struct lb_listener *l = &t->listeners[i];

		if (!l->paused || !l->listener)
			continue;
		if (!has_place(lb, l->frontend)) {
			paused = true;
			continue;
		}
		if (listener_resume(l->listener) < 0) {
			/* No memory: a session that ends tries again, or else this timer. */
			loop_timer_set(t->loop, &t->exhausted_timer,
				       loop_now(t->loop) + EXHAUSTED_PAUSE_MS * NS_PER_MS);
			paused = true;
			continue;
		}
		l->paused = false;
		__atomic_store_n(&l->frontend->full, false, __ATOMIC_RELAXED);
	}
	__atomic_store_n(&t->paused, paused, __ATOMIC_SEQ_CST);
	/* Said again only after a real relief, not for each session that makes room for the next.
	 */
	if (stat_get(lb->taken) < lb->maxconn - lb->maxconn / 8)
		__atomic_store_n(&lb->full, false, __ATOMIC_RELAXED);
}

static void pause_listener(struct lb_listener *l)
{
	l->paused = true;
	listener_pause(l->listener);
	__atomic_store_n(&l->thread->paused, true, __ATOMIC_SEQ_CST);
}

/* Every listener that has no room: all of them if the process is full, one frontend's if that is.
 */
static void pause_full(struct lb_thread *t)
{
	struct lb *lb = t->lb;

	for (uint32_t i = 0; i < lb->nr_listeners; i++) {
		struct lb_listener *l = &t->listeners[i];

		if (l->paused || has_place(lb, l->frontend))
			continue;
		pause_listener(l);
		if (!__atomic_exchange_n(&l->frontend->full, true, __ATOMIC_RELAXED))
			stat_add(l->frontend->stats.full, 1);
	}
	if (stat_get(lb->taken) >= lb->maxconn &&
	    !__atomic_exchange_n(&lb->full, true, __ATOMIC_RELAXED)) {
		stat_add(lb->stats.full, 1);
		log_warning("maxconn %u is reached: accepting is paused", lb->maxconn);
	}
	/* A session of another thread may have ended after we looked, and before it could see that
	 * we wait for that. */
	resume_listeners(t);
}

static void on_resume(struct later *l)
{
	resume_listeners(container_of(l, struct lb_thread, resume));
}

/* A place was given back, by own: for those who wait for one, or for the last one. */
static void tell_of_place(struct lb_thread *own)
{
	struct lb *lb = own->lb;

	if (__atomic_load_n(&lb->stopping, __ATOMIC_SEQ_CST)) {
		if (!__atomic_load_n(&lb->taken, __ATOMIC_SEQ_CST))
			loop_post(lb->loop, &lb->finished);
		return;
	}
	if (own->paused)
		resume_listeners(own);
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		struct lb_thread *other = &lb->threads[i];

		if (other != own && __atomic_load_n(&other->paused, __ATOMIC_SEQ_CST))
			loop_post(other->loop, &other->resume);
	}
}

/* Accept is tried again; and the place that the last attempt gave back was told to nobody. */
static void on_exhausted_timer(struct timer *timer)
{
	struct lb_thread *t = container_of(timer, struct lb_thread, exhausted_timer);

	tell_of_place(t);
}

/* A session's slot and descriptors are free again. */
static void on_session_ended(void *arg, struct frontend *fe)
{
	struct lb_thread *t = arg;

	stat_sub(t->load, 1);
	give_place_back(t->lb, fe);
	tell_of_place(t);
}

/* ---- accepting ---- */

/* A client on its way from the thread that accepted it to the one that serves it. */
struct handover {
	struct later later;
	struct lb_thread *to;
	struct frontend *frontend;
	struct addr client;
	int fd;
};

static void on_handover(struct later *later)
{
	struct handover *h = container_of(later, struct handover, later);
	struct lb_thread *t = h->to;

	if (__atomic_load_n(&t->lb->killed, __ATOMIC_SEQ_CST)) {
		sock_close_reset(h->fd);
		on_session_ended(t, h->frontend);
	} else {
		session_start(t->sessions, h->frontend, h->fd, &h->client);
	}
	free(h);
}

/* The thread that is to serve a client, with a place of its share taken. Never NULL as long as a
 * place of the process was kept. */
static struct lb_thread *choose_thread(struct lb_thread *own)
{
	struct lb *lb = own->lb;

	if (own->careful && take_place(&own->load, ledger_share(lb->ledger, own->number)))
		return own;
	for (;;) {
		uint32_t least = stat_get(own->load);
		struct lb_thread *best = own;

		for (uint32_t i = 0; i < lb->nr_threads; i++) {
			uint32_t load = stat_get(lb->threads[i].load);

			if (load < least) {
				least = load;
				best = &lb->threads[i];
			}
		}
		/* Handing over costs a wake-up: only for a real difference. */
		if (stat_get(own->load) <= least + least / 4)
			best = own;
		if (take_place(&best->load, ledger_share(lb->ledger, best->number)))
			return best;
		/* Another one took it: look again. A full own share is not the least while others
		 * have room. */
		if (best == own)
			for (uint32_t i = 0; i < lb->nr_threads; i++)
				if (take_place(&lb->threads[i].load, ledger_share(lb->ledger, i)))
					return &lb->threads[i];
	}
}

static void be_careful(struct lb_thread *t)
{
	uint64_t until = stat_get(t->lb->scarce_until_ns);

	if (!until || now_ns() >= until)
		return;
	pthread_mutex_lock(&t->lb->scarce);
	t->careful = true;
}

static void end_careful(struct lb_thread *t)
{
	if (!t->careful)
		return;
	t->careful = false;
	pthread_mutex_unlock(&t->lb->scarce);
}

static void pause_exhausted(struct lb_listener *l, int error)
{
	struct lb_thread *t = l->thread;

	stat_set(t->lb->scarce_until_ns, now_ns() + SCARCE_MS * NS_PER_MS);
	if (!stat_add(t->lb->stats.accept_errors, 1))
		log_alert("accept: %s: accepting is paused until a session ends (said once; see "
			  "AcceptPausedExhausted)",
			  strerror(-error));
	/* Without memory for the timer it is better to be told again and again than never more. */
	if (loop_timer_set(t->loop, &t->exhausted_timer,
			   loop_now(t->loop) + EXHAUSTED_PAUSE_MS * NS_PER_MS) < 0)
		return;
	pause_listener(l);
}

static bool on_room(void *arg)
{
	struct lb_listener *l = arg;
	int r = sessions_keep_spare(l->thread->sessions);

	if (r < 0) {
		pause_exhausted(l, r);
		return false;
	}
	if (keep_place(l->thread->lb, l->frontend)) {
		be_careful(l->thread);
		return true;
	}
	pause_full(l->thread);
	return false;
}

static void on_unused(void *arg)
{
	struct lb_listener *l = arg;

	end_careful(l->thread);
	give_place_back(l->thread->lb, l->frontend);
	/* While it was kept, another thread may have found no place and paused; its client waits.
	 */
	tell_of_place(l->thread);
}

static void hand_over(struct lb_listener *l, struct lb_thread *to, int fd,
		      const struct addr *client)
{
	struct handover *h = malloc(sizeof(*h));

	if (!h) {
		stat_add(l->thread->lb->stats.accept_errors, 1);
		sock_close_reset(fd);
		stat_sub(to->load, 1);
		give_place_back(l->thread->lb, l->frontend);
		tell_of_place(l->thread); /* not to: that is not this thread */
		return;
	}
	*h = (struct handover){.to = to, .frontend = l->frontend, .client = *client, .fd = fd};
	later_init(&h->later, on_handover);
	loop_post(to->loop, &h->later);
}

static bool on_accepted(void *arg, int fd, const struct addr *client)
{
	struct lb_listener *l = arg;
	struct lb_thread *to = choose_thread(l->thread);

	if (to == l->thread) /* logs and counts its own failures */
		session_start(to->sessions, l->frontend, fd, client);
	else
		hand_over(l, to, fd, client);
	end_careful(l->thread);
	return true;
}

void lb_thread_admit(struct lb_thread *t, uint32_t listener, int fd)
{
	struct frontend *fe = t->lb->listeners[listener].frontend; /* the thread has none while it is stopping */
	struct addr client = {0};
	socklen_t len = sizeof(client);
	struct lb_thread *to;

	if (getpeername(fd, &client.sa, &len) < 0 || !keep_place(t->lb, fe)) {
		sock_close_reset(fd);
		return;
	}
	to = choose_thread(t);
	session_start(to->sessions, fe, fd, &client);
}

static void on_exhausted(void *arg, int error)
{
	struct lb_listener *l = arg;
	struct lb_thread *t = l->thread;

	/*
	 * Nobody is told of the place before the timer: who is paused for the same reason would try
	 * at once, fail, and tell us in turn.
	 */
	end_careful(t);
	give_place_back(t->lb, l->frontend);
	pause_exhausted(l, error);
}

static const struct listener_ops listener_ops = {
	.room = on_room,
	.unused = on_unused,
	.accepted = on_accepted,
	.exhausted = on_exhausted,
};

/* ---- the thread ---- */

static void on_splice_events(struct poll *p, uint32_t events)
{
	(void)events;
	sessions_dispatch(container_of(p, struct lb_thread, splice_events)->sessions);
}

int lb_thread_init(struct lb_thread *t, struct lb *lb, uint32_t number)
{
	struct sessions_options o = {
		.splice = lb->splice,
		.ledger = lb->ledger,
		.stats = &lb->stats,
		.tuning = {.limit = lb->budget.limit, .begin = budget_begin(&lb->budget)},
		.budget = &lb->budget,
		.pipe = lb->pipes && lb->pipes[number].in >= 0 ? &lb->pipes[number] : NULL,
		.unread = lb->unread,
		.thread = number,
		.ended = on_session_ended,
		.arg = t,
	};
	int r;

	*t = (struct lb_thread){.lb = lb, .number = number, .splice_events.fd = -1};
	timer_init(&t->exhausted_timer, on_exhausted_timer);
	later_init(&t->resume, on_resume);
	r = loop_new(&t->loop);
	if (r < 0)
		return r;
	o.loop = t->loop;
	return sessions_new(&t->sessions, &o);
}

void lb_thread_done(struct lb_thread *t)
{
	for (uint32_t i = 0; t->listeners && i < t->lb->nr_listeners; i++)
		listener_close(t->listeners[i].listener);
	free(t->listeners);
	sessions_free(t->sessions);
	loop_free(t->loop);
}

int lb_thread_share_listeners(struct lb_thread *t, const struct lb_listener *of)
{
	uint32_t n = t->lb->nr_listeners;

	t->listeners = calloc(n + 1, sizeof(*t->listeners));
	if (!t->listeners)
		return -ENOMEM;
	for (uint32_t i = 0; i < n && of[i].listener; i++) {
		int r = listener_share(&t->listeners[i].listener, of[i].listener);

		if (r < 0)
			return r;
		t->listeners[i].frontend = of[i].frontend;
	}
	return 0;
}

int lb_thread_start(struct lb_thread *t)
{
	struct lb *lb = t->lb;
	int r = 0;

	if (lb->splice) {
		poll_init(&t->splice_events, splice_event_fd(lb->splice, t->number),
			  on_splice_events);
		r = loop_watch(t->loop, &t->splice_events, EPOLLIN);
	}
	for (uint32_t i = 0; r == 0 && i < lb->nr_listeners; i++) {
		t->listeners[i].thread = t;
		if (!t->listeners[i].listener)
			continue; /* it is stopping */
		r = listener_start(t->listeners[i].listener, t->loop, &listener_ops,
				   &t->listeners[i]);
	}
	return r;
}

void lb_thread_close_listeners(struct lb_thread *t)
{
	loop_enter(t->loop);
	for (uint32_t i = 0; i < t->lb->nr_listeners; i++)
		t->listeners[i].listener = listener_close(t->listeners[i].listener);
	loop_leave(t->loop);
}
