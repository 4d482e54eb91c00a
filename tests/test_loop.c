/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_loop.c - descriptors, timers and work for the end of a turn, and what callbacks may do to each other. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "loop.h"
#include "run_loop.h"
#include "threads.h"

#define TURN (200 * NS_PER_US)

/* A callback notes its name here. */
static char notes[4096];

static void note(char c)
{
	size_t n = strlen(notes);

	assert_true(n + 1 < sizeof(notes));
	notes[n] = c;
	notes[n + 1] = '\0';
}

static struct loop *loop;

static int setup(void **state)
{
	(void)state;
	notes[0] = '\0';
	return loop_new(&loop);
}

static int teardown(void **state)
{
	(void)state;
	loop = loop_free(loop);
	return 0;
}

/* ---- timers ---- */

struct clock {
	struct timer timer;
	char name;
	struct clock *other; /* what the callback does it to */
	int left;
};

static void on_clock(struct timer *t)
{
	note(container_of(t, struct clock, timer)->name);
}

static void clock_init(struct clock *c, char name, void (*fn)(struct timer *))
{
	*c = (struct clock){ .name = name };
	timer_init(&c->timer, fn);
}

static void set(struct clock *c, uint64_t at_ns)
{
	assert_int_equal(loop_timer_set(loop, &c->timer, at_ns), 0);
}

static void timers_run_in_the_order_of_their_time(void **state)
{
	struct clock c[4];
	uint64_t now = now_ns();

	(void)state;
	for (int i = 0; i < 4; i++)
		clock_init(&c[i], (char)('a' + i), on_clock);
	set(&c[2], now + 3000);
	set(&c[0], now + 1000);
	set(&c[3], now + 4000);
	set(&c[1], now + 2000);
	for (int i = 0; i < 4; i++)
		assert_true(timer_armed(&c[i].timer));
	run_loop(loop, TURN);
	assert_string_equal(notes, "abcd");
	assert_false(timer_armed(&c[0].timer));
	run_loop(loop, TURN);
	assert_string_equal(notes, "abcd"); /* one-shot */
}

static void timer_does_not_run_early(void **state)
{
	struct clock c;
	uint64_t at = now_ns() + 3 * NS_PER_MS;

	(void)state;
	clock_init(&c, 'a', on_clock);
	set(&c, at);
	while (!*notes) {
		run_loop(loop, TURN);
		assert_true(!*notes || now_ns() >= at);
	}
}

static void timer_may_be_moved_both_ways(void **state)
{
	struct clock a, b;
	uint64_t now = now_ns();

	(void)state;
	clock_init(&a, 'a', on_clock);
	clock_init(&b, 'b', on_clock);
	set(&a, now + NS_PER_SEC);
	set(&b, now + 2000);
	set(&a, now + 1000);
	run_loop(loop, TURN);
	assert_string_equal(notes, "ab");
	set(&a, now + 1000);
	set(&b, now + 2000);
	set(&a, now + 3000);
	run_loop(loop, TURN);
	assert_string_equal(notes, "abba");
}

static void cleared_timer_does_not_run(void **state)
{
	struct clock a, b;

	(void)state;
	clock_init(&a, 'a', on_clock);
	clock_init(&b, 'b', on_clock);
	set(&a, 1);
	set(&b, 2);
	loop_timer_clear(loop, &a.timer);
	loop_timer_clear(loop, &a.timer); /* idempotent */
	assert_false(timer_armed(&a.timer));
	run_loop(loop, TURN);
	assert_string_equal(notes, "b");
}

static void on_rearm(struct timer *t)
{
	struct clock *c = container_of(t, struct clock, timer);

	note(c->name);
	assert_false(timer_armed(t));
	if (--c->left)
		set(c, loop_now(loop) + 1000);
}

static void timer_may_rearm_itself(void **state)
{
	struct clock c;

	(void)state;
	clock_init(&c, 'a', on_rearm);
	c.left = 5;
	set(&c, 1);
	while (c.left)
		run_loop(loop, TURN);
	run_loop(loop, TURN);
	assert_string_equal(notes, "aaaaa");
}

static void on_clear_other(struct timer *t)
{
	struct clock *c = container_of(t, struct clock, timer);

	note(c->name);
	loop_timer_clear(loop, t);
	loop_timer_clear(loop, &c->other->timer);
}

static void timer_may_clear_another_that_is_due(void **state)
{
	struct clock a, b;

	(void)state;
	clock_init(&a, 'a', on_clear_other);
	clock_init(&b, 'b', on_clock);
	a.other = &b;
	set(&a, 1);
	set(&b, 2);
	run_loop(loop, TURN);
	assert_string_equal(notes, "a");
}

static void on_set_other(struct timer *t)
{
	struct clock *c = container_of(t, struct clock, timer);

	note(c->name);
	set(c->other, 1);
}

static void timer_may_arm_another_that_is_due_at_once(void **state)
{
	struct clock a, b;

	(void)state;
	clock_init(&a, 'a', on_set_other);
	clock_init(&b, 'b', on_clock);
	a.other = &b;
	set(&a, 2);
	run_loop(loop, TURN);
	assert_string_equal(notes, "ab");
}

#define MANY 2000

static struct {
	struct timer timer;
	uint64_t at;
	bool armed;
} many[MANY];

static uint64_t last_at;
static uint32_t nr_run, nr_armed;
static uint32_t dice = 1;

static uint32_t roll(uint32_t n)
{
	dice = dice * 1664525u + 1013904223u;
	return (dice >> 8) % n;
}

static void change_many(uint32_t i)
{
	if (roll(4)) {
		uint64_t at = 1 + roll(1000000);

		/* Nothing for the past of this turn: the order is to be checked. */
		at = MAX(at, last_at);
		assert_int_equal(loop_timer_set(loop, &many[i].timer, at), 0);
		nr_armed += !many[i].armed;
		many[i].armed = true;
		many[i].at = at;
	} else {
		loop_timer_clear(loop, &many[i].timer);
		nr_armed -= many[i].armed;
		many[i].armed = false;
	}
	assert_int_equal(timer_armed(&many[i].timer), many[i].armed);
}

static void on_many(struct timer *t)
{
	size_t i = (size_t)((char *)t - (char *)many) / sizeof(many[0]);

	assert_true(many[i].armed);
	assert_int_equal(t->at_ns, many[i].at);
	assert_true(t->at_ns >= last_at);
	last_at = t->at_ns;
	many[i].armed = false;
	nr_armed--;
	if (nr_run++ < 5 * MANY)
		change_many(roll(MANY));
}

static void thousands_of_timers_keep_their_order_whatever_is_changed(void **state)
{
	(void)state;
	last_at = nr_run = nr_armed = 0;
	for (uint32_t i = 0; i < MANY; i++) {
		timer_init(&many[i].timer, on_many);
		many[i].armed = false;
	}
	for (uint32_t i = 0; i < 5 * MANY; i++)
		change_many(roll(MANY));
	assert_true(nr_armed > MANY / 2);
	run_loop(loop, TURN);
	assert_int_equal(nr_armed, 0);
	for (uint32_t i = 0; i < MANY; i++)
		assert_false(timer_armed(&many[i].timer));
}

/* ---- descriptors ---- */

struct line {
	struct poll poll; /* reads from fds[0] */
	int fds[2];
	char name;
	struct line *other;
	uint32_t events; /* the last ones */
	struct later later;
};

static void on_line(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll);

	l->events = events;
	note(l->name);
}

static void line_open(struct line *l, char name, void (*fn)(struct poll *, uint32_t))
{
	*l = (struct line){ .name = name };
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, l->fds), 0);
	poll_init(&l->poll, l->fds[0], fn);
}

static void line_write(struct line *l)
{
	assert_int_equal(write(l->fds[1], "x", 1), 1);
}

static void line_read(struct line *l)
{
	char c;

	assert_int_equal(read(l->fds[0], &c, 1), 1);
}

static void line_close(struct line *l)
{
	loop_unwatch(loop, &l->poll);
	close(l->fds[0]);
	close(l->fds[1]);
}

static void watch(struct line *l, uint32_t events)
{
	assert_int_equal(loop_watch(loop, &l->poll, events), 0);
}

static void descriptor_is_told_until_it_is_read(void **state)
{
	struct line a;

	(void)state;
	line_open(&a, 'a', on_line);
	watch(&a, EPOLLIN);
	line_write(&a);
	run_loop(loop, 0);
	run_loop(loop, 0);
	assert_true(strlen(notes) >= 2); /* level-triggered */
	assert_int_equal(a.events, EPOLLIN);
	line_read(&a);
	notes[0] = '\0';
	run_loop(loop, 0);
	assert_string_equal(notes, "");
	line_close(&a);
}

static void only_what_is_watched_is_told(void **state)
{
	struct line a;

	(void)state;
	line_open(&a, 'a', on_line);
	watch(&a, EPOLLIN);
	line_write(&a);
	watch(&a, 0);
	run_loop(loop, 0);
	assert_string_equal(notes, "");
	watch(&a, EPOLLOUT);
	run_loop(loop, 0);
	assert_int_equal(a.events, EPOLLOUT);
	watch(&a, EPOLLIN | EPOLLOUT);
	run_loop(loop, 0);
	assert_int_equal(a.events, EPOLLIN | EPOLLOUT);
	line_close(&a);
}

static void hangup_is_told_even_if_nothing_is_watched(void **state)
{
	struct line a;

	(void)state;
	line_open(&a, 'a', on_line);
	watch(&a, 0);
	close(a.fds[1]);
	run_loop(loop, 0);
	assert_true(a.events & EPOLLHUP);
	a.fds[1] = dup(a.fds[0]);
	line_close(&a);
}

static void unwatched_descriptor_is_silent_and_may_be_watched_again(void **state)
{
	struct line a;

	(void)state;
	line_open(&a, 'a', on_line);
	line_write(&a);
	watch(&a, EPOLLIN);
	loop_unwatch(loop, &a.poll);
	loop_unwatch(loop, &a.poll); /* idempotent */
	run_loop(loop, 0);
	assert_string_equal(notes, "");
	watch(&a, EPOLLIN);
	run_loop(loop, 0);
	assert_int_equal(notes[0], 'a');
	line_close(&a);
}

static void on_unwatch_other(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll);

	on_line(p, events);
	loop_unwatch(loop, &l->other->poll);
}

/* A turn in which both are ready. */
static void turn_with_both(struct line *a, struct line *b, void (*fn)(struct poll *p, uint32_t events))
{
	line_open(a, 'a', fn);
	line_open(b, 'b', fn);
	a->other = b;
	b->other = a;
	watch(a, EPOLLIN);
	watch(b, EPOLLIN);
	line_write(a);
	line_write(b);
	run_loop(loop, 0);
}

static void unwatch_in_the_same_turn_suppresses_delivery(void **state)
{
	struct line a, b;

	(void)state;
	turn_with_both(&a, &b, on_unwatch_other);
	/* Whichever came first silenced the other. */
	assert_true(strspn(notes, "a") == strlen(notes) || strspn(notes, "b") == strlen(notes));
	assert_true(*notes);
	line_close(&a);
	line_close(&b);
}

static void on_close_other(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll);

	on_line(p, events);
	loop_forget(loop, &l->other->poll);
	loop_forget(loop, &l->other->poll); /* idempotent */
	close(l->other->poll.fd);
	l->other->poll.fd = -1;
	loop_unwatch(loop, p);
}

static void forgotten_and_closed_in_the_same_turn_is_silent(void **state)
{
	struct line a, b;

	(void)state;
	turn_with_both(&a, &b, on_close_other);
	assert_int_equal(strlen(notes), 1);
	assert_false(a.poll.added || b.poll.added);
	line_close(&a);
	line_close(&b);
}

/* Another process has a copy, so the kernel does not forget it when it is closed; it must not be told of any more. */
static void forgotten_and_closed_is_silent_where_there_are_copies(void **state)
{
	bool copied = false;
	struct line a;
	int copy;

	(void)state;
	loop_copied(loop, &copied);
	line_open(&a, 'a', on_line);
	copy = dup(a.fds[0]);
	watch(&a, EPOLLIN);
	copied = true;
	loop_forget(loop, &a.poll);
	close(a.fds[0]);
	line_write(&a);
	run_loop(loop, 0);
	assert_string_equal(notes, "");
	close(copy);
	close(a.fds[1]);
}

static void on_stop(struct poll *p, uint32_t events)
{
	on_line(p, events);
	loop_stop(loop);
}

static void on_watch_other_anew(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll);

	on_stop(p, events);
	loop_unwatch(loop, &l->other->poll);
	watch(l->other, EPOLLIN);
}

static void watching_anew_in_the_same_turn_waits_for_the_next(void **state)
{
	struct line a, b;

	(void)state;
	line_open(&a, 'a', on_watch_other_anew);
	line_open(&b, 'b', on_watch_other_anew);
	a.other = &b;
	b.other = &a;
	watch(&a, EPOLLIN);
	watch(&b, EPOLLIN);
	line_write(&a);
	line_write(&b);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(strlen(notes), 1);
	line_read(notes[0] == 'a' ? &a : &b);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(strlen(notes), 2);
	assert_true(notes[0] != notes[1]);
	line_close(&a);
	line_close(&b);
}

static void stop_lets_the_turn_finish(void **state)
{
	struct line a, b;

	(void)state;
	line_open(&a, 'a', on_stop);
	line_open(&b, 'b', on_stop);
	watch(&a, EPOLLIN);
	watch(&b, EPOLLIN);
	line_write(&a);
	line_write(&b);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(strlen(notes), 2);
	line_close(&a);
	line_close(&b);
}

static void what_cannot_be_watched_says_so(void **state)
{
	struct poll p;
	int fd;

	(void)state;
	fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* a regular file */
	assert_true(fd >= 0);
	poll_init(&p, fd, on_line);
	assert_int_equal(loop_watch(loop, &p, EPOLLIN), -EPERM);
	assert_false(p.added);
	close(fd);
	assert_int_equal(loop_watch(loop, &p, EPOLLIN), -EBADF);
	loop_unwatch(loop, &p); /* harmless */
}

/* ---- the end of the turn ---- */

static void on_later(struct later *l)
{
	note(container_of(l, struct line, later)->name);
}

static void on_ask_for_later(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll);

	on_stop(p, events);
	loop_later(loop, &l->other->later);
	loop_later(loop, &l->other->later);
}

static void later_runs_once_after_events_and_timers(void **state)
{
	struct line a, b, end = { .name = 'z' };
	struct clock c;

	(void)state;
	later_init(&end.later, on_later);
	line_open(&a, 'a', on_ask_for_later);
	line_open(&b, 'a', on_ask_for_later);
	a.other = b.other = &end;
	watch(&a, EPOLLIN);
	watch(&b, EPOLLIN);
	line_write(&a);
	line_write(&b);
	clock_init(&c, 't', on_clock);
	set(&c, 1);
	assert_int_equal(loop_run(loop), 0);
	assert_string_equal(notes, "aatz");
	assert_int_equal(loop_run(loop), 0); /* asked again: it runs again */
	assert_string_equal(notes, "aatzaaz");
	line_close(&a);
	line_close(&b);
}

static void on_last(struct later *l)
{
	on_later(l);
	loop_stop(loop);
}

static void on_chain(struct later *l)
{
	struct line *line = container_of(l, struct line, later);

	on_later(l);
	loop_later(loop, &line->other->later);
}

static void later_may_ask_for_another(void **state)
{
	struct line a = { .name = 'a' }, b = { .name = 'b' };

	(void)state;
	later_init(&a.later, on_chain);
	later_init(&b.later, on_last);
	a.other = &b;
	loop_later(loop, &a.later);
	run_loop(loop, 0);
	assert_string_equal(notes, "ab");
}

static void on_free(struct later *l)
{
	struct line *line = container_of(l, struct line, later);

	note('f');
	close(line->fds[0]);
	close(line->fds[1]);
	free(line);
}

/* Closes and gives up the other, whose event may be in the same turn; a session does that to its peer. */
static void on_free_other(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll), *other = l->other;

	on_stop(p, events);
	loop_unwatch(loop, &other->poll);
	loop_unwatch(loop, &l->poll);
	loop_later(loop, &other->later);
	loop_later(loop, &l->later);
}

static void what_is_freed_later_is_not_called_any_more(void **state)
{
	struct line *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));

	(void)state;
	line_open(a, 'a', on_free_other);
	line_open(b, 'b', on_free_other);
	a->other = b;
	b->other = a;
	later_init(&a->later, on_free);
	later_init(&b->later, on_free);
	watch(a, EPOLLIN);
	watch(b, EPOLLIN);
	line_write(a);
	line_write(b);
	assert_int_equal(loop_run(loop), 0);
	assert_int_equal(strlen(notes), 3);
	assert_string_equal(notes + 1, "ff");
}

/* ---- time ---- */

static uint64_t time_of_event, time_of_timer, time_of_later;

static void on_time_event(struct poll *p, uint32_t events)
{
	uint64_t until = now_ns() + 100 * NS_PER_US;

	on_stop(p, events);
	time_of_event = loop_now(loop);
	while (now_ns() < until)
		;
}

static void on_time_timer(struct timer *t)
{
	(void)t;
	time_of_timer = loop_now(loop);
}

static void on_time_later(struct later *l)
{
	(void)l;
	time_of_later = loop_now(loop);
}

static void time_stands_still_within_a_turn_and_goes_on_between_turns(void **state)
{
	struct line a;
	struct clock c;
	uint64_t before = now_ns(), turns = loop_turns(loop);

	(void)state;
	line_open(&a, 'a', on_time_event);
	later_init(&a.later, on_time_later);
	clock_init(&c, 't', on_time_timer);
	watch(&a, EPOLLIN);
	line_write(&a);
	set(&c, 1);
	loop_later(loop, &a.later);
	assert_int_equal(loop_run(loop), 0);
	assert_true(time_of_event >= before);
	assert_int_equal(time_of_timer, time_of_event);
	assert_int_equal(time_of_later, time_of_event);
	assert_int_equal(loop_turns(loop), turns + 1);
	before = time_of_event;
	assert_int_equal(loop_run(loop), 0);
	assert_true(time_of_event > before);
	assert_int_equal(loop_turns(loop), turns + 2);
	line_close(&a);
}

#define WORK_NS (20 * NS_PER_MS)

static void on_time_to_work(struct timer *t)
{
	uint64_t until = now_ns() + WORK_NS;

	(void)t;
	while (now_ns() < until)
		;
	loop_stop(loop);
}

static void the_time_in_which_it_waits_is_told_from_that_in_which_it_works(void **state)
{
	uint64_t began = now_ns(), waited = loop_waited(loop);
	struct timer t;

	(void)state;
	timer_init(&t, on_time_to_work);
	assert_int_equal(loop_timer_set(loop, &t, began + 5 * WORK_NS), 0);
	assert_int_equal(loop_run(loop), 0);
	waited = loop_waited(loop) - waited;
	assert_true(waited >= WORK_NS); /* it had five times that */
	assert_true(waited <= now_ns() - began - WORK_NS);
}

/* ---- other threads ---- */

/* The loop runs in a thread of its own, as those of the daemon do. */
struct runner {
	pthread_t id;
	int result;
};

static void *run_in_thread(void *arg)
{
	struct runner *r = arg;

	r->result = loop_run(loop);
	return NULL;
}

static void runner_start(struct runner *r)
{
	assert_int_equal(pthread_create(&r->id, NULL, run_in_thread, r), 0);
}

static void runner_stop(struct runner *r)
{
	loop_enter(loop);
	loop_stop(loop);
	loop_leave(loop);
	pthread_join(r->id, NULL);
	assert_int_equal(r->result, 0);
}

/* Waits until *counter, which others write, is n; fails if that takes too long. */
static void wait_for(const uint32_t *counter, uint32_t n)
{
	uint64_t until = now_ns() + 20 * NS_PER_SEC;

	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) != n) {
		if (now_ns() > until)
			fail_msg("in vain: %u instead of %u", __atomic_load_n(counter, __ATOMIC_SEQ_CST), n);
		sched_yield();
	}
}

struct job {
	struct later later;
	uint32_t runs; /* atomic */
	pthread_t thread;
	bool gate_closed; /* atomic: it does not return before this is false */
};

static void on_job(struct later *l)
{
	struct job *j = container_of(l, struct job, later);

	j->thread = pthread_self();
	__atomic_fetch_add(&j->runs, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&j->gate_closed, __ATOMIC_SEQ_CST))
		sched_yield();
}

static void job_init(struct job *j)
{
	*j = (struct job){ .runs = 0 };
	later_init(&j->later, on_job);
}

static void posted_work_wakes_the_loop_and_runs_once_in_its_thread(void **state)
{
	struct runner r;
	struct job j;

	(void)state;
	job_init(&j);
	runner_start(&r);
	for (uint32_t i = 1; i <= 1000; i++) {
		loop_post(loop, &j.later);
		wait_for(&j.runs, i); /* it has nothing else that would wake it */
		assert_true(pthread_equal(j.thread, r.id));
	}
	runner_stop(&r);
	assert_int_equal(j.runs, 1000);
}

static void work_that_is_posted_twice_before_it_runs_runs_once(void **state)
{
	struct job busy, j;
	struct runner r;

	(void)state;
	job_init(&busy);
	job_init(&j);
	busy.gate_closed = true;
	runner_start(&r);
	loop_post(loop, &busy.later);
	wait_for(&busy.runs, 1);
	for (int i = 0; i < 10; i++)
		loop_post(loop, &j.later);
	loop_post(loop, &busy.later); /* it has begun to run: once more */
	__atomic_store_n(&busy.gate_closed, false, __ATOMIC_SEQ_CST);
	wait_for(&busy.runs, 2);
	runner_stop(&r);
	assert_int_equal(j.runs, 1);
	assert_int_equal(busy.runs, 2);
}

static void work_posted_before_the_loop_runs_is_not_forgotten(void **state)
{
	struct runner r;
	struct job j;

	(void)state;
	job_init(&j);
	loop_post(loop, &j.later);
	runner_start(&r);
	wait_for(&j.runs, 1);
	runner_stop(&r);
}

#define POSTERS 4
#define JOBS 50 /* of each */

static struct job jobs[POSTERS * JOBS];

static void post_all(void *arg, uint32_t number)
{
	(void)arg;
	for (int round = 0; round < 200; round++)
		for (int i = 0; i < JOBS; i++)
			loop_post(loop, &jobs[number * JOBS + (uint32_t)i].later);
}

static void no_post_of_many_threads_is_lost(void **state)
{
	struct job last;
	struct runner r;

	(void)state;
	for (int i = 0; i < POSTERS * JOBS; i++)
		job_init(&jobs[i]);
	runner_start(&r);
	run_threads(POSTERS, post_all, NULL);
	job_init(&last);
	loop_post(loop, &last.later);
	wait_for(&last.runs, 1); /* and so everything that was posted before it */
	runner_stop(&r);
	for (int i = 0; i < POSTERS * JOBS; i++)
		assert_in_range(jobs[i].runs, 1, 200);
}

static void post_that_is_taken_back_does_not_run(void **state)
{
	struct job a, b;

	(void)state;
	job_init(&a);
	job_init(&b);
	loop_unpost(loop, &a.later); /* harmless */
	loop_post(loop, &a.later);
	loop_post(loop, &b.later);
	loop_unpost(loop, &a.later);
	run_loop(loop, TURN);
	assert_int_equal(a.runs, 0);
	assert_int_equal(b.runs, 1);
	loop_post(loop, &a.later); /* it may be posted again */
	run_loop(loop, TURN);
	assert_int_equal(a.runs, 1);
}

/* A loop that never waits: each turn asks for the next. */
static void on_busy_timer(struct timer *t)
{
	loop_timer_set(loop, t, loop_now(loop) + 1);
}

static void visitor_gets_the_turn_of_a_busy_loop_and_the_loop_goes_on(void **state)
{
	struct runner r;
	struct timer t;

	(void)state;
	timer_init(&t, on_busy_timer);
	assert_int_equal(loop_timer_set(loop, &t, 1), 0);
	runner_start(&r);
	for (int i = 0; i < 2000; i++) {
		uint64_t turns;

		loop_enter(loop);
		turns = loop_turns(loop);
		if (i % 100 == 0)
			sched_yield();
		assert_int_equal(loop_turns(loop), turns); /* it stands still */
		assert_true(timer_armed(&t));
		loop_leave(loop);
	}
	loop_enter(loop);
	loop_timer_clear(loop, &t);
	loop_leave(loop);
	runner_stop(&r);
}

static void loop_does_not_starve_between_visits(void **state)
{
	struct runner r;
	struct job j;

	(void)state;
	job_init(&j);
	runner_start(&r);
	for (uint32_t i = 1; i <= 200; i++) {
		uint64_t until = now_ns() + 20 * NS_PER_SEC;

		loop_post(loop, &j.later);
		while (__atomic_load_n(&j.runs, __ATOMIC_SEQ_CST) != i && now_ns() < until) {
			loop_enter(loop);
			loop_leave(loop);
		}
		assert_int_equal(j.runs, i);
	}
	runner_stop(&r);
}

static void visitor_finds_the_time_as_it_is(void **state)
{
	uint64_t before;
	struct runner r;
	struct job j;

	(void)state;
	job_init(&j);
	runner_start(&r);
	loop_post(loop, &j.later);
	wait_for(&j.runs, 1);
	for (int i = 0; i < 3; i++) {
		before = now_ns();
		loop_enter(loop);
		assert_true(loop_now(loop) >= before);
		loop_leave(loop);
	}
	runner_stop(&r);
}

static uint32_t nr_told; /* atomic */

static void on_told(struct poll *p, uint32_t events)
{
	struct line *l = container_of(p, struct line, poll);

	on_line(p, events);
	line_read(l);
	__atomic_fetch_add(&nr_told, 1, __ATOMIC_SEQ_CST);
}

static void on_last_clock(struct timer *t)
{
	on_clock(t);
	loop_stop(loop);
}

static void event_that_waits_is_not_told_to_whom_a_visitor_unwatched(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++) {
		struct line a, b;
		struct runner r;

		notes[0] = '\0';
		__atomic_store_n(&nr_told, 0, __ATOMIC_SEQ_CST);
		line_open(&a, 'a', on_told);
		line_open(&b, 'b', on_told);
		watch(&a, EPOLLIN);
		watch(&b, EPOLLIN);
		runner_start(&r);
		loop_enter(loop);
		line_write(&a); /* the loop may have taken these events already, and waits for its turn */
		line_write(&b);
		for (int spin = 0; spin < i * 10; spin++)
			sched_yield();
		loop_unwatch(loop, &a.poll);
		a.name = 'x';
		loop_leave(loop);
		wait_for(&nr_told, 1); /* what still holds is told, though the event was dropped */
		runner_stop(&r);
		assert_string_equal(notes, "b");
		line_close(&a);
		line_close(&b);
	}
}

static void visitor_may_change_timers_and_they_come_in_time(void **state)
{
	struct runner r;
	struct clock c;

	(void)state;
	clock_init(&c, 'a', on_last_clock);
	runner_start(&r);
	for (int i = 0; i < 100; i++)
		sched_yield(); /* it waits, without any timer */
	loop_enter(loop);
	set(&c, now_ns() + NS_PER_MS);
	loop_leave(loop);
	pthread_join(r.id, NULL); /* or the test would never end */
	assert_string_equal(notes, "a");
}

static void stop_before_the_run_ends_it_at_once(void **state)
{
	struct runner r;
	struct job j;

	(void)state;
	job_init(&j);
	loop_enter(loop);
	loop_stop(loop);
	loop_leave(loop);
	runner_start(&r);
	pthread_join(r.id, NULL);
	assert_int_equal(r.result, 0);
	/* That was it: the next run is one. */
	runner_start(&r);
	loop_post(loop, &j.later);
	wait_for(&j.runs, 1);
	runner_stop(&r);
}

static void what_nobody_runs_any_more_is_settled(void **state)
{
	struct job j;

	(void)state;
	job_init(&j);
	loop_post(loop, &j.later);
	loop_settle(loop);
	assert_int_equal(j.runs, 1);
	loop_settle(loop);
	assert_int_equal(j.runs, 1);
}

#define loop_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		loop_test(timers_run_in_the_order_of_their_time),
		loop_test(timer_does_not_run_early),
		loop_test(timer_may_be_moved_both_ways),
		loop_test(cleared_timer_does_not_run),
		loop_test(timer_may_rearm_itself),
		loop_test(timer_may_clear_another_that_is_due),
		loop_test(timer_may_arm_another_that_is_due_at_once),
		loop_test(thousands_of_timers_keep_their_order_whatever_is_changed),
		loop_test(descriptor_is_told_until_it_is_read),
		loop_test(only_what_is_watched_is_told),
		loop_test(hangup_is_told_even_if_nothing_is_watched),
		loop_test(unwatched_descriptor_is_silent_and_may_be_watched_again),
		loop_test(unwatch_in_the_same_turn_suppresses_delivery),
		loop_test(forgotten_and_closed_in_the_same_turn_is_silent),
		loop_test(forgotten_and_closed_is_silent_where_there_are_copies),
		loop_test(watching_anew_in_the_same_turn_waits_for_the_next),
		loop_test(stop_lets_the_turn_finish),
		loop_test(what_cannot_be_watched_says_so),
		loop_test(later_runs_once_after_events_and_timers),
		loop_test(later_may_ask_for_another),
		loop_test(what_is_freed_later_is_not_called_any_more),
		loop_test(time_stands_still_within_a_turn_and_goes_on_between_turns),
		loop_test(the_time_in_which_it_waits_is_told_from_that_in_which_it_works),
		loop_test(posted_work_wakes_the_loop_and_runs_once_in_its_thread),
		loop_test(work_that_is_posted_twice_before_it_runs_runs_once),
		loop_test(work_posted_before_the_loop_runs_is_not_forgotten),
		loop_test(no_post_of_many_threads_is_lost),
		loop_test(post_that_is_taken_back_does_not_run),
		loop_test(visitor_gets_the_turn_of_a_busy_loop_and_the_loop_goes_on),
		loop_test(loop_does_not_starve_between_visits),
		loop_test(visitor_finds_the_time_as_it_is),
		loop_test(event_that_waits_is_not_told_to_whom_a_visitor_unwatched),
		loop_test(visitor_may_change_timers_and_they_come_in_time),
		loop_test(stop_before_the_run_ends_it_at_once),
		loop_test(what_nobody_runs_any_more_is_settled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
