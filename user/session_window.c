/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session_window.c - see session_state.h. Opens windows that nobody else would.
 *
 * A socket that the kernel redirects from has no reader. If all that its sender may send lies in
 * the socket's backlog while the last acknowledgment is made (somebody had the socket locked), that
 * says "window 0", and nothing comes after it that would say more: the sender is silent until its
 * persist timer, 200 ms and more. So a direction that was fast, and from which suddenly nothing
 * comes, is told its window again: after 10, 20, 40, ... 320 ms. If it just had nothing to say,
 * that cost six small packets.
 */
#include "session_state.h"

#define TICK_NS (10 * NS_PER_MS)
#define STILL_MAX 32 /* ticks without a segment until it is forgotten */

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

/* Returns false if there is nothing more to watch. */
static bool watch(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	const struct flow *f = flow_of(s, i);
	uint64_t segments = flow_get(f, segments);

	if (!d->fast || d->done || d->eof)
		return false;
	if (segments != d->fast_segments) {
		d->fast_segments = segments;
		d->still = 0;
		return true;
	}
	d->fast = ++d->still < STILL_MAX;
	/* One that was paused has a reader. */
	if (is_power_of_two(d->still) && flow_get(f, mode) == FLOW_KERNEL)
		sock_tell_window(s->ends[i].poll.fd);
	return d->fast;
}

static void on_tick(struct timer *timer)
{
	struct sessions *t = container_of(timer, struct sessions, fast_tick);
	struct session *s, *next;

	list_for_each_safe (s, next, &t->fast, fast) {
		bool client = is_established(s) && watch(s, CLIENT);
		bool server = is_established(s) && watch(s, SERVER);

		if (!client && !server)
			list_del(&s->fast);
	}
	if (!list_empty(&t->fast))
		loop_timer_set(t->o.loop, &t->fast_tick, loop_now(t->o.loop) + TICK_NS);
}

void session_watch_window(struct session *s, int i)
{
	struct sessions *t = s->table;
	struct direction *d = &s->dirs[i];

	d->fast = true;
	d->fast_segments = flow_get(flow_of(s, i), segments);
	d->still = 0;
	if (list_empty(&s->fast))
		list_add_tail(&t->fast, &s->fast);
	if (!timer_armed(&t->fast_tick))
		loop_timer_set(t->o.loop, &t->fast_tick,
			       loop_now(t->o.loop) +
				       TICK_NS); /* no memory: the next sample arms it */
}

void session_window_init(struct sessions *t)
{
	list_init(&t->fast);
	timer_init(&t->fast_tick, on_tick);
}
