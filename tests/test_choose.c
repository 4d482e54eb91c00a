/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_choose.c - who is to move a direction: each reason, what holds it, and what ends it. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "choose.h"
#include "util.h"

#define MB 1000000ull

static const struct choose_load quiet;

/* An old session that is not joined, in which little happens. */
static struct choose_flow chat(void)
{
	return (struct choose_flow){ .age_ns = 10 * NS_PER_SEC, .bytes_per_s = 6400, .segments_per_s = 100 };
}

/* Large pieces, as fast as this. */
static struct choose_flow transfer(uint64_t bytes_per_s)
{
	return (struct choose_flow){
		.age_ns = 10 * NS_PER_SEC,
		.bytes_per_s = bytes_per_s,
		.segments_per_s = bytes_per_s / 65536,
	};
}

static struct choose_flow joined(struct choose_flow f, bool in_kernel)
{
	f.joined = true;
	f.in_kernel = in_kernel;
	return f;
}

static void the_kernel_is_home(void **state)
{
	struct choose_flow f = chat(), idle = { .age_ns = NS_PER_SEC }, slow = transfer(50 * MB);
	struct choose_flow in = joined(f, true), out = joined(f, false);

	(void)state;
	assert_int_equal(choose(&f, &quiet), CHOOSE_HOME);
	assert_int_equal(choose(&idle, &quiet), CHOOSE_HOME);
	assert_int_equal(choose(&slow, &quiet), CHOOSE_HOME);
	assert_int_equal(choose(&in, &quiet), CHOOSE_HOME);
	assert_int_equal(choose(&out, &quiet), CHOOSE_HOME);
	assert_true(choose_is_kernel(CHOOSE_HOME));
}

static void a_session_that_has_just_begun_is_not_worth_it_yet(void **state)
{
	struct choose_flow f = chat();

	(void)state;
	f.age_ns = 49 * NS_PER_MS;
	assert_int_equal(choose(&f, &quiet), CHOOSE_YOUNG);
	f.age_ns = 50 * NS_PER_MS;
	assert_int_equal(choose(&f, &quiet), CHOOSE_HOME);
	f.age_ns = 0;
	f = joined(f, true);
	assert_int_equal(choose(&f, &quiet), CHOOSE_HOME); /* what is in stays in */
}

static void a_transfer_has_longer_to_show_what_it_is(void **state)
{
	const struct choose_load busy = { .busy = 600 }, less = { .busy = 599 };
	struct choose_flow f = transfer(10 * MB);

	(void)state;
	f.age_ns = 999 * NS_PER_MS;
	assert_int_equal(choose(&f, &busy), CHOOSE_YOUNG);
	f.age_ns = NS_PER_SEC;
	assert_int_equal(choose(&f, &busy), CHOOSE_HOME);
	f.age_ns = 499 * NS_PER_MS;
	assert_int_equal(choose(&f, &less), CHOOSE_YOUNG);
	f.age_ns = 500 * NS_PER_MS;
	assert_int_equal(choose(&f, &less), CHOOSE_HOME);
}

static void bulk_stays_out_of_the_kernel(void **state)
{
	struct choose_flow slower = transfer(159 * MB), faster = transfer(160 * MB), one_of_many = transfer(MB);
	const struct choose_load busy = { .busy = 600 }, all = { .bytes_per_s = 160 * MB, .busy = 1000 };

	(void)state;
	assert_int_equal(choose(&slower, &busy), CHOOSE_HOME);
	assert_int_equal(choose(&faster, &busy), CHOOSE_BULK);
	assert_int_equal(choose(&one_of_many, &busy), CHOOSE_HOME);
	assert_int_equal(choose(&one_of_many, &all), CHOOSE_BULK);
}

/* Large messages that are answered: whoever waits for them gains nothing from what makes bulk cheap. */
static void what_leaves_the_thread_time_is_no_bulk(void **state)
{
	const struct choose_load all = { .bytes_per_s = 799 * MB, .busy = 599 };
	struct choose_flow f = transfer(799 * MB);

	(void)state;
	assert_int_equal(choose(&f, &all), CHOOSE_HOME);
}

/* But so much must be saturating something: spliced, it leaves the thread time all the same. */
static void so_much_is_bulk_in_any_case(void **state)
{
	const struct choose_load all = { .bytes_per_s = 800 * MB }, not_busy = { .bytes_per_s = 3000 * MB, .busy = 599 };
	struct choose_flow alone = transfer(800 * MB), one_of_them = transfer(MB), young = alone, in;

	(void)state;
	assert_int_equal(choose(&alone, &quiet), CHOOSE_BULK);
	assert_int_equal(choose(&one_of_them, &all), CHOOSE_BULK);
	in = joined(alone, true); /* there it is the kernel's time, which nobody tells */
	assert_int_equal(choose(&in, &not_busy), CHOOSE_BULK);
	young.age_ns = 999 * NS_PER_MS;
	assert_int_equal(choose(&young, &all), CHOOSE_YOUNG);
}

static void bulk_leaves_the_kernel_late_and_comes_back_early(void **state)
{
	struct choose_flow in = joined(transfer(1599 * MB), true), fast = joined(transfer(1600 * MB), true);
	struct choose_flow out = joined(transfer(800 * MB), false), calm = joined(transfer(799 * MB), false);

	(void)state;
	assert_int_equal(choose(&in, &quiet), CHOOSE_HOME);
	assert_int_equal(choose(&fast, &quiet), CHOOSE_BULK);
	assert_int_equal(choose(&out, &quiet), CHOOSE_BULK);
	assert_int_equal(choose(&calm, &quiet), CHOOSE_HOME);
}

static void what_gets_no_turn_among_bulk_is_not_taken_for_a_chat(void **state)
{
	const struct choose_load busy = { .bytes_per_s = 160 * MB, .busy = 600 };
	struct choose_flow late = { .age_ns = 999 * NS_PER_MS };
	struct choose_flow starved = { .age_ns = 5 * NS_PER_SEC, .life_bytes_per_s = MB, .life_segments_per_s = 10 };

	(void)state;
	assert_int_equal(choose(&late, &busy), CHOOSE_YOUNG);
	assert_int_equal(choose(&late, &quiet), CHOOSE_HOME);
	assert_int_equal(choose(&starved, &busy), CHOOSE_BULK);
	assert_int_equal(choose(&starved, &quiet), CHOOSE_HOME);
	starved.life_segments_per_s = 10000;
	assert_int_equal(choose(&starved, &busy), CHOOSE_HOME);
}

static void a_chat_beside_bulk_is_at_home(void **state)
{
	const struct choose_load busy = { .bytes_per_s = 3000 * MB, .segments_per_s = 50000, .flows = 10 };
	struct choose_flow f = chat(), quick = chat();

	(void)state;
	quick.segments_per_s = 20000;
	quick.bytes_per_s = 64 * 20000; /* more than some transfers, but in small pieces */
	assert_int_equal(choose(&f, &busy), CHOOSE_HOME);
	assert_int_equal(choose(&quick, &busy), CHOOSE_HOME);
}

static void a_crowd_keeps_out_of_the_kernel_but_nobody_leaves_it_for_that(void **state)
{
	const struct choose_load crowd = { .segments_per_s = 10000, .flows = 24 };
	const struct choose_load few = { .segments_per_s = 60000, .flows = 23 };
	const struct choose_load slow = { .segments_per_s = 9999, .flows = 1000 };
	struct choose_flow f = chat(), in = joined(f, true), idle = { .age_ns = NS_PER_SEC };

	(void)state;
	assert_int_equal(choose(&f, &crowd), CHOOSE_CROWD);
	assert_int_equal(choose(&f, &few), CHOOSE_HOME);
	assert_int_equal(choose(&f, &slow), CHOOSE_HOME);
	assert_int_equal(choose(&in, &crowd), CHOOSE_HOME);
	assert_int_equal(choose(&idle, &crowd), CHOOSE_HOME); /* it is none of them */
}

static void reasons_have_names(void **state)
{
	(void)state;
	assert_string_equal(choose_reason_name(CHOOSE_HOME), "home");
	assert_string_equal(choose_reason_name(CHOOSE_FORCED), "forced");
	assert_string_equal(choose_reason_name(CHOOSE_YOUNG), "young");
	assert_string_equal(choose_reason_name(CHOOSE_BULK), "bulk");
	assert_string_equal(choose_reason_name(CHOOSE_CROWD), "crowd");
	for (int r = CHOOSE_FORCED; r <= CHOOSE_CROWD; r++)
		assert_false(choose_is_kernel(r));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_is_home),
		cmocka_unit_test(a_session_that_has_just_begun_is_not_worth_it_yet),
		cmocka_unit_test(a_transfer_has_longer_to_show_what_it_is),
		cmocka_unit_test(bulk_stays_out_of_the_kernel),
		cmocka_unit_test(what_leaves_the_thread_time_is_no_bulk),
		cmocka_unit_test(so_much_is_bulk_in_any_case),
		cmocka_unit_test(bulk_leaves_the_kernel_late_and_comes_back_early),
		cmocka_unit_test(what_gets_no_turn_among_bulk_is_not_taken_for_a_chat),
		cmocka_unit_test(a_chat_beside_bulk_is_at_home),
		cmocka_unit_test(a_crowd_keeps_out_of_the_kernel_but_nobody_leaves_it_for_that),
		cmocka_unit_test(reasons_have_names),
	};

	return cmocka_run_group_tests_name("choose", tests, NULL, NULL);
}
