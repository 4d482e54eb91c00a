/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * loop.h - one thread's event loop: descriptors (epoll, level-triggered), timers (a binary heap),
 * and work for the end of a turn.
 *
 * A loop belongs to one thread: the one that runs it. Another thread may do two things: leave work
 * with loop_post(), or stand in for the owner between two of its turns, from loop_enter() to
 * loop_leave(). Callbacks may add, change and remove anything, their own poll and timer included.
 * What a callback wants to free while events for it may still be in the current turn is freed from
 * a `struct later`: those run when the turn's events are all delivered.
 */
#ifndef SHUNT_LOOP_H
#define SHUNT_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

#include "list.h"

struct loop;

/* A watched descriptor; embedded in its owner, who owns the descriptor too. */
struct poll {
	void (*fn)(struct poll *p, uint32_t events);
	int fd;
	uint32_t events; /* what is registered now; changed by loop_watch() alone */
	bool added;
};

/* A one-shot timer; embedded in its owner. */
struct timer {
	void (*fn)(struct timer *t);
	uint64_t at_ns;	   /* CLOCK_MONOTONIC */
	uint32_t position; /* in the heap, from 1; 0 = not armed */
};

/* Work for the end of the turn; embedded in its owner. */
struct later {
	struct list entry;
	void (*fn)(struct later *l);
};

/* Returns 0, -ENOMEM or epoll_create1(2)'s -errno. */
int loop_new(struct loop **ret);
struct loop *loop_free(struct loop *l);

/* Runs turns until loop_stop(). Returns 0, or epoll_wait(2)'s -errno. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l); /* after this turn; before loop_run(): that returns at once */

/* The time of the current turn, ns: read once per turn, so cheap and a little old. */
uint64_t loop_now(const struct loop *l);

/* How long it has waited for events in all, ns: the rest of its time it was busy, or wanted a CPU. Of the loop's own thread, or its visitors. */
uint64_t loop_waited(const struct loop *l);

/* How often the loop woke up. */
uint64_t loop_turns(const struct loop *l);

static inline void poll_init(struct poll *p, int fd, void (*fn)(struct poll *, uint32_t))
{
	*p = (struct poll){.fn = fn, .fd = fd};
}

/*
 * Watches p->fd for these EPOLL* events (0 = only errors and hang-ups, which are always told). Does
 * nothing when that is what is registered already. Returns 0, or epoll_ctl(2)'s -errno (-ENOMEM,
 * -ENOSPC).
 */
int loop_watch(struct loop *l, struct poll *p, uint32_t events);

/* Stops watching; idempotent. Call it before the descriptor is closed. Events of this turn for p
 * are not delivered any more. */
void loop_unwatch(struct loop *l, struct poll *p);

/* Tells the time in *where once a turn, and has a turn every second at least: whoever reads it sees that the loop lives. */
void loop_beat(struct loop *l, uint64_t *where);

/* The same for who closes the descriptor next, and holds the only one: the kernel forgets it then. */
void loop_forget(struct loop *l, struct poll *p);

/* While *copied, another process has copies of all descriptors, and the kernel forgets none that we close: loop_forget() is loop_unwatch(). */
void loop_copied(struct loop *l, const bool *copied);

static inline void timer_init(struct timer *t, void (*fn)(struct timer *))
{
	*t = (struct timer){.fn = fn};
}

/* Arms t for that moment, or moves it. Returns 0 or -ENOMEM (then it is not armed). */
int loop_timer_set(struct loop *l, struct timer *t, uint64_t at_ns);
void loop_timer_clear(struct loop *l, struct timer *t);

static inline bool timer_armed(const struct timer *t)
{
	return t->position != 0;
}

static inline void later_init(struct later *l, void (*fn)(struct later *))
{
	list_init(&l->entry);
	l->fn = fn;
}

/* Runs it once at the end of this turn; idempotent until it has run. */
void loop_later(struct loop *l, struct later *later);

/*
 * From any thread: runs it in the loop's own thread, at the end of its next turn; idempotent until
 * it begins to run. A struct later is used either with this or with loop_later(), never with both.
 */
void loop_post(struct loop *l, struct later *later);

/* In the loop's own thread: takes back what was posted and has not run. The caller sees to it that
 * nobody posts it again. */
void loop_unpost(struct loop *l, struct later *later);

/*
 * Waits until the loop is between two turns and keeps it there until loop_leave(): meanwhile
 * everything that belongs to its thread may be used. In the loop's own thread both do nothing. Only
 * one thread may enter others, or two could wait for each other.
 */
void loop_enter(struct loop *l);
void loop_leave(struct loop *l);

/* Runs what is left to run at the end of a turn, when no thread runs the loop any more. */
void loop_settle(struct loop *l);

#endif
