/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop.c - see loop.h. */
#include "loop.h"

#include <string.h>

#define EVENTS_PER_TURN 256

struct loop {
	int epfd;
	bool stop;
	bool no_pwait2; /* a kernel before 5.11 */
	uint64_t now, turns;
	struct timer **heap; /* [1..nr_timers], the earliest at 1 */
	uint32_t nr_timers, max_timers;
	struct list later;
	struct epoll_event events[EVENTS_PER_TURN];
	int nr_events; /* of this turn, for loop_unwatch() */
};

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epfd < 0) {
		free(l);
		return -errno;
	}
	list_init(&l->later);
	l->now = now_ns();
	*ret = l;
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (l) {
		close(l->epfd);
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

uint64_t loop_turns(const struct loop *l)
{
	return l->turns;
}

int loop_watch(struct loop *l, struct poll *p, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = p };

	if (p->added && p->events == events)
		return 0;
	if (epoll_ctl(l->epfd, p->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, p->fd, &ev) < 0)
		return -errno;
	p->added = true;
	p->events = events;
	return 0;
}

void loop_unwatch(struct loop *l, struct poll *p)
{
	if (!p->added)
		return;
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

static void run_later(struct loop *l)
{
	while (!list_empty(&l->later)) {
		struct later *later = list_first(&l->later, struct later, entry);

		list_del(&later->entry);
		later->fn(later);
	}
}

static int wait_events(struct loop *l)
{
	struct timespec ts, *timeout = NULL;
	uint64_t ns = 0;
	int n;

	if (l->nr_timers) {
		uint64_t now = now_ns(), at = l->heap[1]->at_ns;

		ns = at > now ? at - now : 0;
		ts.tv_sec = (time_t)(ns / NS_PER_SEC);
		ts.tv_nsec = (long)(ns % NS_PER_SEC);
		timeout = &ts;
	}
	if (!l->no_pwait2) {
		n = epoll_pwait2(l->epfd, l->events, EVENTS_PER_TURN, timeout, NULL);
		if (n >= 0 || errno != ENOSYS)
			return n;
		l->no_pwait2 = true;
	}
	ns = MIN(ns, 1000 * NS_PER_SEC);
	return epoll_wait(l->epfd, l->events, EVENTS_PER_TURN,
			  timeout ? (int)((ns + NS_PER_MS - 1) / NS_PER_MS) : -1);
}

int loop_run(struct loop *l)
{
	l->stop = false;
	while (!l->stop) {
		int n = wait_events(l);

		if (n < 0 && errno != EINTR)
			return -errno;
		l->nr_events = MAX(n, 0);
		l->now = now_ns();
		l->turns++;
		for (int i = 0; i < l->nr_events; i++) {
			struct poll *p = l->events[i].data.ptr;

			if (p)
				p->fn(p, l->events[i].events);
		}
		l->nr_events = 0;
		run_timers(l);
		run_later(l);
	}
	return 0;
}
