/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_loop.c - descriptors, timers and work for the end of a turn, and what callbacks may do to each other. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "loop.h"
#include "run_loop.h"

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

static void unwatch_in_the_same_turn_suppresses_delivery(void **state)
{
	struct line a, b;

	(void)state;
	line_open(&a, 'a', on_unwatch_other);
	line_open(&b, 'b', on_unwatch_other);
	a.other = &b;
	b.other = &a;
	watch(&a, EPOLLIN);
	watch(&b, EPOLLIN);
	line_write(&a);
	line_write(&b);
	run_loop(loop, 0);
	/* Whichever came first silenced the other. */
	assert_true(strspn(notes, "a") == strlen(notes) || strspn(notes, "b") == strlen(notes));
	assert_true(*notes);
	line_close(&a);
	line_close(&b);
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
		loop_test(watching_anew_in_the_same_turn_waits_for_the_next),
		loop_test(stop_lets_the_turn_finish),
		loop_test(what_cannot_be_watched_says_so),
		loop_test(later_runs_once_after_events_and_timers),
		loop_test(later_may_ask_for_another),
		loop_test(what_is_freed_later_is_not_called_any_more),
		loop_test(time_stands_still_within_a_turn_and_goes_on_between_turns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
