/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session_mover.c - see session_state.h. Asks choose() for each direction and does what it says:
 * joins a session, takes want_kernel back, gives it again. A direction in the kernel is looked at
 * when the program has counted choose_sample segments; one that userspace moves, by a tick over the
 * list of those that are away.
 */
#include "session_state.h"

#define TICK_NS (10 * NS_PER_MS)
#define BUSY_NS (100 * NS_PER_MS) /* over which the average of how busy the loop was goes */
#define LOOK_WINDOW_NS (500 * NS_PER_MS) /* over which a direction is looked at */
#define LOAD_WINDOW_NS                                                                             \
	(500 * NS_PER_MS) /* over which a thread's load is taken: some samples of each direction   \
			     of a crowd */

/* ---- the thread's load ---- */

static struct choose_load load_over(const struct thread_load *l, uint64_t ns)
{
	return (struct choose_load){
		.bytes_per_s = l->bytes * 1000 / (ns / NS_PER_MS),
		.segments_per_s = l->segments * 1000 / (ns / NS_PER_MS),
		.flows = l->flows,
	};
}

/*
 * What all of a thread's directions did in the last whole window, or in the one that has not ended,
 * if that is more; or what userspace alone moved since the last tick: many may have just begun.
 */
static struct choose_load load_of(struct sessions *t, uint64_t now)
{
	struct thread_load *l = &t->load;
	uint64_t ns = now - l->since_ns;
	struct choose_load begun;

	if (ns >= LOAD_WINDOW_NS) {
		l->last = load_over(l, ns);
		l->last.busy = ns < 2 * LOAD_WINDOW_NS ? l->busiest : l->tick.busy; /* or long ago */
		l->busiest = l->tick.busy;
		l->bytes = l->segments = l->flows = 0;
		l->since_ns = now;
		l->window++;
		ns = 0;
	}
	begun = load_over(l, MAX(ns, LOAD_WINDOW_NS / 5));
	return (struct choose_load){
		.bytes_per_s =
			MAX(MAX(l->last.bytes_per_s, l->tick.bytes_per_s), begun.bytes_per_s),
		.segments_per_s = MAX(MAX(l->last.segments_per_s, l->tick.segments_per_s),
				      begun.segments_per_s),
		.flows = MAX(MAX(l->last.flows, l->tick.flows), begun.flows),
		.busy = MAX(l->last.busy, l->busiest),
	};
}

static void add_to_load(struct session *s, int i, uint64_t bytes, uint64_t segments)
{
	struct thread_load *l = &s->table->load;
	struct direction *d = &s->dirs[i];

	l->bytes += bytes;
	l->segments += segments;
	if (d->window != l->window) {
		d->window = l->window;
		l->flows++;
	}
}

void session_note_moved(struct session *s, int i, uint64_t bytes)
{
	uint64_t now = loop_now(s->table->o.loop);

	/* Where nothing is to be chosen nobody else begins the next window. */
	if (now - s->table->load.since_ns >= 2 * LOAD_WINDOW_NS)
		load_of(s->table, now);
	s->dirs[i].reads++;
	s->table->load.relayed += bytes;
	s->table->load.reads++;
	add_to_load(s, i, bytes, 1);
}

/* ---- one direction ---- */

/*
 * What it does: over the last whole window, or over the one that has not ended, if that is more.
 * (Transfers move in bursts: a short window would find the quickest of them idle.)
 */
static struct choose_flow look(struct session *s, int i, uint64_t now)
{
	struct direction *d = &s->dirs[i];
	struct byte_count bytes = session_bytes(s, i);
	uint64_t redirected = s->joined ? flow_get(flow_of(s, i), segments) : 0;
	uint64_t ns = MAX(now - d->looked_ns, 1ull);
	uint64_t bytes_per_s =
		(byte_total(&bytes) - d->looked_bytes) * 1000 / MAX(ns / NS_PER_MS, 1ull);
	uint64_t segments_per_s =
		(redirected + d->reads - d->looked_segments) * 1000 / MAX(ns / NS_PER_MS, 1ull);
	struct choose_flow f = {
		.joined = s->joined,
		.in_kernel = is_kernels(s, i),
		.age_ns = now - s->record->connected_ns,
		.bytes_per_s = MAX(bytes_per_s, d->bytes_per_s),
		.segments_per_s = MAX(segments_per_s, d->segments_per_s),
	};

	if (!s->joined) {
		uint64_t age_ms = MAX(f.age_ns / NS_PER_MS, 1ull);

		f.life_bytes_per_s = byte_total(&bytes) * 1000 / age_ms;
		f.life_segments_per_s = d->reads * 1000 / age_ms;
	}
	/* What userspace moved was added when it did. */
	if (redirected != d->loaded_segments)
		add_to_load(s, i, bytes.kernel - d->loaded_bytes, redirected - d->loaded_segments);
	d->loaded_bytes = bytes.kernel;
	d->loaded_segments = redirected;
	if (ns >= LOOK_WINDOW_NS) {
		/* Among many a transfer may get nothing for a second: what it did is not forgotten
		 * at once. */
		f.bytes_per_s = d->bytes_per_s = MAX(bytes_per_s, d->bytes_per_s / 2);
		f.segments_per_s = d->segments_per_s = MAX(segments_per_s, d->segments_per_s / 2);
		d->looked_ns = now;
		d->looked_bytes = byte_total(&bytes);
		d->looked_segments = redirected + d->reads;
	}
	return f;
}

static void decide(struct session *s, int i, uint64_t now)
{
	struct choose_flow f = look(s, i, now);
	struct choose_load load = load_of(s->table, now);

	s->dirs[i].choice = (uint8_t)choose(&f, &load);
}

/* ---- the session ---- */

static void stay_away(struct session *s)
{
	struct sessions *t = s->table;

	if (!list_empty(&s->away))
		return;
	list_add_tail(&t->away, &s->away);
	if (timer_armed(&t->tick))
		return;
	t->load.relayed = t->load.reads = 0;
	t->load.ticked_ns = loop_now(t->o.loop);
	t->load.ticked_waited_ns = loop_waited(t->o.loop);
	loop_timer_set(t->o.loop, &t->tick,
		       loop_now(t->o.loop) + TICK_NS); /* no memory: the next one arms it */
}

static bool is_choosing(const struct session *s, int i)
{
	return s->splice[i] == SPLICE_AUTO && !s->dirs[i].done;
}

void session_join_flushed(struct session *s)
{
	if (!s->joining || relay_held(&s->dirs[CLIENT].relay) || relay_held(&s->dirs[SERVER].relay))
		return;
	s->joining = false;
	list_del(&s->away);
	session_join(s);
	session_run(s, CLIENT);
	session_run(s, SERVER);
	session_update(s);
}

/* Does what was chosen. May end the session. */
static void follow(struct session *s)
{
	bool away = false;

	if (!s->joined) {
		/* The kernel takes a session as a whole. */
		s->joining = true;
		for (int i = 0; i < 2; i++)
			if (is_choosing(s, i) && !choose_is_kernel(s->dirs[i].choice))
				s->joining = false;
		session_join_flushed(s);
		return;
	}
	for (int i = 0; i < 2; i++) {
		bool want = choose_is_kernel(s->dirs[i].choice);

		if (!is_choosing(s, i))
			continue;
		away = away || !want;
		if (want == is_kernels(s, i))
			continue;
		flow_set(flow_of(s, i), want_kernel, want);
		if (want)
			session_loosen(s, i);
	}
	if (away)
		stay_away(s);
	else
		list_del(&s->away);
}

/* With the last ns, of which the loop waited for a part. */
static uint32_t average_busy(uint32_t before, uint64_t ns, uint64_t waited_ns)
{
	uint32_t busy = (uint32_t)((ns - MIN(waited_ns, ns)) * 1000 / ns);
	int64_t part = (int64_t)(MIN(ns, BUSY_NS) * 1000 / BUSY_NS);

	return (uint32_t)((int64_t)before + ((int64_t)busy - (int64_t)before) * part / 1000);
}

/* What userspace moved since the tick before. */
static void end_tick(struct sessions *t, uint64_t now)
{
	struct thread_load *l = &t->load;
	uint64_t ns = MAX(now - l->ticked_ns, 1ull), waited = loop_waited(t->o.loop);
	struct session *s;

	l->tick = (struct choose_load){
		.bytes_per_s = l->relayed * NS_PER_SEC / ns,
		.segments_per_s = l->reads * NS_PER_SEC / ns,
		.busy = average_busy(l->tick.busy, ns, waited - l->ticked_waited_ns),
	};
	l->busiest = MAX(l->busiest, l->tick.busy);
	list_for_each (s, &t->away, away) {
		for (int i = 0; i < 2; i++) {
			l->tick.flows += s->dirs[i].reads != s->dirs[i].ticked_reads;
			s->dirs[i].ticked_reads = s->dirs[i].reads;
		}
	}
	l->relayed = l->reads = 0;
	l->ticked_ns = now;
	l->ticked_waited_ns = waited;
}

static void on_tick(struct timer *timer)
{
	struct sessions *t = container_of(timer, struct sessions, tick);
	uint64_t now = loop_now(t->o.loop);
	struct session *s, *next;

	end_tick(t, now);
	list_for_each_safe (s, next, &t->away, away) {
		if (!is_established(s)) {
			list_del(&s->away);
			continue;
		}
		session_serve(s);
		for (int i = 0; i < 2; i++)
			if (is_choosing(s, i))
				decide(s, i, now);
		follow(s);
	}
	session_served(t);
	if (list_empty(&t->away))
		t->load.tick = (struct choose_load){0};
	else
		loop_timer_set(t->o.loop, &t->tick, now + TICK_NS);
}

void session_sampled(struct session *s, int i)
{
	if (s->splice[i] != SPLICE_AUTO || !is_established(s))
		return;
	decide(s, i, loop_now(s->table->o.loop));
	follow(s);
}

void session_begin_choosing(struct session *s)
{
	uint64_t now = loop_now(s->table->o.loop);

	for (int i = 0; i < 2; i++) {
		s->dirs[i].looked_ns = now;
		s->dirs[i].choice = s->splice[i] == SPLICE_AUTO ? CHOOSE_YOUNG : CHOOSE_FORCED;
	}
	/* (Adopted, it may be joined and away already.) */
	for (int i = 0; i < 2; i++)
		if (!s->joined || (is_choosing(s, i) && !flow_of(s, i)->want_kernel))
			stay_away(s);
}

void session_mover_init(struct sessions *t)
{
	list_init(&t->away);
	timer_init(&t->tick, on_tick);
	t->load = (struct thread_load){.since_ns = loop_now(t->o.loop), .window = 1};
}
