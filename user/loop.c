/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop.c - see loop.h. */
#include "loop.h"

#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

#define EVENTS_PER_TURN 256
#define BEAT_NS NS_PER_SEC

struct loop {
	int epfd;
	bool stop;
	bool no_pwait2; /* a kernel before 5.11 */
	uint64_t now, turns;
	uint64_t waited_ns;  /* in all */
	uint64_t *beat;	     /* borrowed; NULL = none: see loop_beat() */
	struct timer **heap; /* [1..nr_timers], the earliest at 1 */
	uint32_t nr_timers, max_timers;
	struct list later;
	pthread_mutex_t
		turn; /* held but while the loop waits: who has it may use all of the above */
	pthread_cond_t left;	 /* the visitors have gone */
	uint32_t visitors;	 /* want the turn, or have it; atomic */
	bool visited;		 /* since the loop began to wait */
	pthread_t thread;	 /* that runs it, while running */
	bool running;		 /* atomic */
	pthread_mutex_t posting; /* guards posted; the last lock that anybody takes */
	struct list posted;
	struct poll wake; /* an eventfd */
	struct epoll_event events[EVENTS_PER_TURN];
	int nr_events; /* of this turn, for loop_unwatch() */
	const bool *copied; /* NULL = never */
};

static void on_wake(struct poll *p, uint32_t events)
{
	uint64_t n;

	(void)events;
	if (read(p->fd, &n, sizeof(n)) < 0)
		return; /* EAGAIN: somebody was quicker */
}

static void wake(struct loop *l)
{
	const uint64_t one = 1;

	if (write(l->wake.fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: it is awake 2^64 times over */
}

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	list_init(&l->later);
	list_init(&l->posted);
	pthread_mutex_init(&l->turn, NULL);
	pthread_mutex_init(&l->posting, NULL);
	pthread_cond_init(&l->left, NULL);
	l->now = now_ns();
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	poll_init(&l->wake, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), on_wake);
	r = l->epfd < 0 || l->wake.fd < 0 ? -errno : loop_watch(l, &l->wake, EPOLLIN);
	if (r < 0) {
		loop_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (l) {
		if (l->wake.fd >= 0)
			close(l->wake.fd);
		if (l->epfd >= 0)
			close(l->epfd);
		pthread_mutex_destroy(&l->turn);
		pthread_mutex_destroy(&l->posting);
		pthread_cond_destroy(&l->left);
		free(l->heap);
		free(l);
	}
	return NULL;
}

void loop_stop(struct loop *l)
{
	l->stop = true;
}

uint64_t loop_now(const struct loop *l)
{
	return l->now;
}

uint64_t loop_waited(const struct loop *l)
{
	return l->waited_ns;
}

uint64_t loop_turns(const struct loop *l)
{
	return l->turns;
}

void loop_beat(struct loop *l, uint64_t *where)
{
	l->beat = where;
}

int loop_watch(struct loop *l, struct poll *p, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = p};

	if (p->added && p->events == events)
		return 0;
	if (epoll_ctl(l->epfd, p->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, p->fd, &ev) < 0)
		return -errno;
	p->added = true;
	p->events = events;
	return 0;
}

void loop_copied(struct loop *l, const bool *copied)
{
	l->copied = copied;
}

void loop_unwatch(struct loop *l, struct poll *p)
{
	if (!p->added)
		return;
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, p->fd, NULL);
	loop_forget(l, p);
}

void loop_forget(struct loop *l, struct poll *p)
{
	if (!p->added)
		return;
	if (l->copied && __atomic_load_n(l->copied, __ATOMIC_ACQUIRE))
		epoll_ctl(l->epfd, EPOLL_CTL_DEL, p->fd, NULL);
	p->added = false;
	p->events = 0;
	for (int i = 0; i < l->nr_events; i++)
		if (l->events[i].data.ptr == p)
			l->events[i].data.ptr = NULL;
}

/* ---- timers ---- */

static void heap_put(struct loop *l, uint32_t at, struct timer *t)
{
	l->heap[at] = t;
	t->position = at;
}

static void heap_up(struct loop *l, uint32_t at, struct timer *t)
{
	for (; at > 1 && l->heap[at / 2]->at_ns > t->at_ns; at /= 2)
		heap_put(l, at, l->heap[at / 2]);
	heap_put(l, at, t);
}

static void heap_down(struct loop *l, uint32_t at, struct timer *t)
{
	for (uint32_t child; (child = at * 2) <= l->nr_timers; at = child) {
		if (child < l->nr_timers && l->heap[child + 1]->at_ns < l->heap[child]->at_ns)
			child++;
		if (l->heap[child]->at_ns >= t->at_ns)
			break;
		heap_put(l, at, l->heap[child]);
	}
	heap_put(l, at, t);
}

int loop_timer_set(struct loop *l, struct timer *t, uint64_t at_ns)
{
	if (!t->position) {
		if (l->nr_timers + 1 >= l->max_timers) {
			uint32_t max = l->max_timers ? l->max_timers * 2 : 64;
			struct timer **heap = reallocarray(l->heap, max, sizeof(struct timer *));

			if (!heap)
				return -ENOMEM;
			l->heap = heap;
			l->max_timers = max;
		}
		t->at_ns = at_ns;
		heap_up(l, ++l->nr_timers, t);
	} else if (at_ns < t->at_ns) {
		t->at_ns = at_ns;
		heap_up(l, t->position, t);
	} else {
		t->at_ns = at_ns;
		heap_down(l, t->position, t);
	}
	return 0;
}

void loop_timer_clear(struct loop *l, struct timer *t)
{
	uint32_t at = t->position;
	struct timer *last;

	if (!at)
		return;
	t->position = 0;
	last = l->heap[l->nr_timers--];
	if (last == t)
		return;
	heap_up(l, at, last);
	heap_down(l, last->position, last);
}

static void run_timers(struct loop *l)
{
	while (l->nr_timers && l->heap[1]->at_ns <= l->now) {
		struct timer *t = l->heap[1];

		loop_timer_clear(l, t);
		t->fn(t);
	}
}

/* ---- turns ---- */

void loop_later(struct loop *l, struct later *later)
{
	if (list_empty(&later->entry))
		list_add_tail(&l->later, &later->entry);
}

/* ---- other threads ---- */

static bool is_own(const struct loop *l)
{
	return __atomic_load_n(&l->running, __ATOMIC_ACQUIRE) &&
	       pthread_equal(l->thread, pthread_self());
}

void loop_post(struct loop *l, struct later *later)
{
	bool first;

	pthread_mutex_lock(&l->posting);
	first = list_empty(&l->posted);
	if (list_empty(&later->entry))
		list_add_tail(&l->posted, &later->entry);
	pthread_mutex_unlock(&l->posting);
	if (first && !is_own(l))
		wake(l);
}

void loop_unpost(struct loop *l, struct later *later)
{
	pthread_mutex_lock(&l->posting);
	list_del(&later->entry);
	pthread_mutex_unlock(&l->posting);
}

void loop_enter(struct loop *l)
{
	if (is_own(l))
		return;
	__atomic_fetch_add(&l->visitors, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&l->turn);
	l->visited = true;
	l->now = now_ns(); /* the owner may have slept for long */
}

void loop_leave(struct loop *l)
{
	if (is_own(l))
		return;
	__atomic_fetch_sub(&l->visitors, 1, __ATOMIC_SEQ_CST);
	pthread_cond_signal(&l->left);
	pthread_mutex_unlock(&l->turn);
	wake(l); /* timers and work may be others now */
}

/* A mutex alone is not fair: a busy loop would have its next turn before the visitor is awake. */
static void begin_turn(struct loop *l)
{
	pthread_mutex_lock(&l->turn);
	while (__atomic_load_n(&l->visitors, __ATOMIC_SEQ_CST))
		pthread_cond_wait(&l->left, &l->turn);
}

/* Returns false if there was nothing to run. */
static bool run_posted(struct loop *l)
{
	for (bool any = false;; any = true) {
		struct later *later = NULL;

		pthread_mutex_lock(&l->posting);
		if (!list_empty(&l->posted)) {
			later = list_first(&l->posted, struct later, entry);
			list_del(&later->entry);
		}
		pthread_mutex_unlock(&l->posting);
		if (!later)
			return any;
		later->fn(later);
	}
}

static void run_later(struct loop *l)
{
	while (!list_empty(&l->later)) {
		struct later *later = list_first(&l->later, struct later, entry);

		list_del(&later->entry);
		later->fn(later);
	}
}

void loop_settle(struct loop *l)
{
	/* What is posted from here on by this very thread wakes nobody. */
	do
		run_later(l);
	while (run_posted(l) || !list_empty(&l->later));
}

static int wait_events(struct loop *l)
{
	struct timespec ts, *timeout = NULL;
	uint64_t began = now_ns(), ns = 0;
	int n = -1, error;

	if (l->nr_timers) {
		uint64_t at = l->heap[1]->at_ns;

		ns = at > began ? at - began : 0;
	}
	if (l->beat)
		ns = l->nr_timers ? MIN(ns, BEAT_NS) : BEAT_NS;
	if (l->nr_timers || l->beat) {
		ts.tv_sec = (time_t)(ns / NS_PER_SEC);
		ts.tv_nsec = (long)(ns % NS_PER_SEC);
		timeout = &ts;
	}
	pthread_mutex_unlock(&l->turn);
	if (!l->no_pwait2)
		n = epoll_pwait2(l->epfd, l->events, EVENTS_PER_TURN, timeout, NULL);
	if (l->no_pwait2 || (n < 0 && errno == ENOSYS)) {
		l->no_pwait2 = true;
		ns = MIN(ns, 1000 * NS_PER_SEC);
		n = epoll_wait(l->epfd, l->events, EVENTS_PER_TURN,
			       timeout ? (int)((ns + NS_PER_MS - 1) / NS_PER_MS) : -1);
	}
	error = errno;
	begin_turn(l);
	l->now = now_ns();
	l->waited_ns += l->now - began;
	errno = error;
	if (l->visited) {
		l->visited = false;
		return 0; /* whom these events are for may be gone; those that still hold are told
			     again */
	}
	return n;
}

int loop_run(struct loop *l)
{
	int r = 0;

	l->thread = pthread_self();
	__atomic_store_n(&l->running, true, __ATOMIC_RELEASE);
	begin_turn(l);
	while (!l->stop) {
		int n = wait_events(l);

		if (n < 0 && errno != EINTR) {
			r = -errno;
			break;
		}
		l->nr_events = MAX(n, 0);
		l->turns++;
		if (l->beat)
			__atomic_store_n(l->beat, l->now, __ATOMIC_RELAXED);
		for (int i = 0; i < l->nr_events; i++) {
			struct poll *p = l->events[i].data.ptr;

			if (p)
				p->fn(p, l->events[i].events);
		}
		l->nr_events = 0;
		run_timers(l);
		loop_settle(l);
	}
	l->stop = false;
	pthread_mutex_unlock(&l->turn);
	__atomic_store_n(&l->running, false, __ATOMIC_RELEASE);
	return r;
}
