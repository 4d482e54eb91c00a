/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_stats.c - rates, session counts, and the names of the fallbacks. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "stats.h"
#include "threads.h"

static void rate_is_that_of_the_last_whole_second(void **state)
{
	struct rate r = { 0 };

	(void)state;
	for (int i = 0; i < 10; i++)
		rate_add(&r, 100);
	for (int i = 0; i < 3; i++)
		rate_add(&r, 101);
	assert_int_equal(rate_get(&r, 101), 10);
	assert_int_equal(r.max, 10);
	assert_int_equal(rate_get(&r, 102), 3);
}

static void rate_that_rises_shows_before_its_second_is_over(void **state)
{
	struct rate r = { 0 };

	(void)state;
	rate_add(&r, 100);
	for (int i = 0; i < 5; i++)
		rate_add(&r, 101);
	assert_int_equal(rate_get(&r, 101), 5);
	assert_int_equal(r.max, 5);
}

static void rate_falls_to_zero_when_nothing_happens(void **state)
{
	struct rate r = { 0 };

	(void)state;
	rate_add(&r, 100);
	assert_int_equal(rate_get(&r, 100), 1);
	assert_int_equal(rate_get(&r, 101), 1);
	assert_int_equal(rate_get(&r, 102), 0);
	rate_add(&r, 110);
	assert_int_equal(rate_get(&r, 110), 1);
	assert_int_equal(rate_get(&r, 1000000), 0);
}

static void asking_for_a_rate_changes_nothing(void **state)
{
	struct rate r = { 0 }, before;

	(void)state;
	rate_add(&r, 100);
	before = r;
	rate_get(&r, 105);
	assert_memory_equal(&r, &before, sizeof(r));
}

static void entering_counts_all_and_leaving_only_the_current(void **state)
{
	struct stats s = { 0 };

	(void)state;
	stats_enter(&s, 1);
	stats_enter(&s, 1);
	stats_leave(&s);
	stats_enter(&s, 1);
	stats_leave(&s);
	assert_int_equal(s.sessions, 3);
	assert_int_equal(s.current, 1);
	assert_int_equal(s.max, 2);
	assert_int_equal(rate_get(&s.rate, 1), 3);
	stats_leave(&s);
	assert_int_equal(s.current, 0);
	assert_int_equal(s.max, 2);
}

/* ---- several threads ---- */

#define THREADS 4
#define EVENTS 40000u

static void add_events(void *arg, uint32_t number)
{
	(void)number;
	for (uint32_t i = 0; i < EVENTS; i++)
		rate_add(arg, 100 + i / (EVENTS / 2));
}

static void no_event_is_lost_at_the_change_of_a_second(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		struct rate r = { 0 };

		run_threads(THREADS, add_events, &r);
		assert_int_equal(rate_last(&r), 101);
		assert_int_equal(RATE_COUNT(r.current) + RATE_COUNT(r.previous), THREADS * EVENTS);
		assert_true(r.max == MAX(RATE_COUNT(r.current), RATE_COUNT(r.previous)));
	}
}

static void rate_is_not_zero_for_a_thread_whose_clock_is_late(void **state)
{
	struct rate r = { 0 };

	(void)state;
	rate_add(&r, 100);
	rate_add(&r, 101);
	rate_add(&r, 100); /* counts to the second that has begun */
	assert_int_equal(rate_get(&r, 100), 2);
	assert_int_equal(rate_get(&r, 101), 2);
}

struct peaks {
	uint32_t max, current, entered;
	struct stats stats;
};

static void raise_peaks(void *arg, uint32_t number)
{
	struct peaks *p = arg;

	for (uint32_t i = 0; i < EVENTS; i++) {
		stat_max(p->max, i * THREADS + number);
		stats_enter(&p->stats, 1);
		stat_max(p->entered, stat_get(p->stats.current));
		stats_leave(&p->stats);
	}
}

static void maximum_is_the_highest_of_all_threads(void **state)
{
	struct peaks p = { 0 };

	(void)state;
	run_threads(THREADS, raise_peaks, &p);
	assert_int_equal(p.max, EVENTS * THREADS - 1);
	assert_int_equal(p.stats.sessions, EVENTS * THREADS);
	assert_int_equal(p.stats.current, 0);
	assert_in_range(p.stats.max, p.entered, THREADS);
}

static void total_is_the_bytes_of_both_movers(void **state)
{
	const struct byte_count b = { .kernel = 1ull << 40, .user = 5 };

	(void)state;
	assert_int_equal(byte_total(&b), (1ull << 40) + 5);
}

static void every_fallback_has_a_name_of_its_own(void **state)
{
	(void)state;
	for (int a = 0; a < FALLBACK_MAX; a++) {
		assert_string_not_equal(fallback_name(a), "?");
		for (int b = 0; b < a; b++)
			assert_string_not_equal(fallback_name(a), fallback_name(b));
	}
	assert_string_equal(fallback_name(FALLBACK_MAX), "?");
}

/* Whoever comes back, with nothing counted before, is one. */
static void coming_back_counts_once(void **state)
{
	struct stats s = { 0 };

	(void)state;
	stats_reenter(&s);
	stats_reenter(&s);
	assert_int_equal(s.current, 2);
	assert_int_equal(s.max, 2);
	stats_leave(&s);
	stats_reenter(&s);
	assert_int_equal(s.current, 2);
	assert_int_equal(s.sessions, 0);
}

static void errno_says_why_a_join_was_refused(void **state)
{
	(void)state;
	assert_int_equal(fallback_of(0), FALLBACK_NONE);
	assert_int_equal(fallback_of(-EOPNOTSUPP), FALLBACK_HALF_CLOSED);
	assert_int_equal(fallback_of(-ENOMEM), FALLBACK_NO_MEMORY);
	assert_int_equal(fallback_of(-EBUSY), FALLBACK_BUSY);
	assert_int_equal(fallback_of(-EINVAL), FALLBACK_BUSY);
	assert_int_equal(fallback_of(-E2BIG), FALLBACK_OTHER);
	assert_int_equal(fallback_of(-EPERM), FALLBACK_OTHER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rate_is_that_of_the_last_whole_second),
		cmocka_unit_test(rate_that_rises_shows_before_its_second_is_over),
		cmocka_unit_test(rate_falls_to_zero_when_nothing_happens),
		cmocka_unit_test(asking_for_a_rate_changes_nothing),
		cmocka_unit_test(entering_counts_all_and_leaving_only_the_current),
		cmocka_unit_test(coming_back_counts_once),
		cmocka_unit_test(no_event_is_lost_at_the_change_of_a_second),
		cmocka_unit_test(rate_is_not_zero_for_a_thread_whose_clock_is_late),
		cmocka_unit_test(maximum_is_the_highest_of_all_threads),
		cmocka_unit_test(total_is_the_bytes_of_both_movers),
		cmocka_unit_test(every_fallback_has_a_name_of_its_own),
		cmocka_unit_test(errno_says_why_a_join_was_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
