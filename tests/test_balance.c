/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_balance.c - weighted round robin: exact, even, and fair to who is left. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "balance.h"
#include "util.h"

#define SERVERS_MAX 8

/* usable() for a mask of servers: bit n = server n may be picked. */
static bool in_mask(void *arg, uint32_t number)
{
	const uint32_t *mask = arg;

	return *mask >> number & 1;
}

static uint32_t all = UINT32_MAX;

static int64_t pick(struct balance *b, uint32_t mask)
{
	return balance_pick(b, in_mask, &mask);
}

static void expect_order(const uint32_t *weights, uint32_t n, const char *order)
{
	struct balance b;

	assert_int_equal(balance_init(&b, weights, n), 0);
	assert_int_equal(b.length, strlen(order));
	/* Three times round: the cycle repeats itself exactly. */
	for (size_t i = 0; i < 3 * strlen(order); i++)
		assert_int_equal('A' + pick(&b, all), order[i % strlen(order)]);
	balance_done(&b);
}

static void schedule_is_smooth(void **state)
{
	(void)state;
	expect_order((uint32_t[]){ 5, 1, 1 }, 3, "AABACAA");
	expect_order((uint32_t[]){ 1, 1, 1 }, 3, "ABC");
	expect_order((uint32_t[]){ 1 }, 1, "A");
	expect_order((uint32_t[]){ 2, 1 }, 2, "ABA");
	expect_order((uint32_t[]){ 1, 2, 3 }, 3, "CBACBC");
}

static void common_divisor_does_not_lengthen_the_schedule(void **state)
{
	(void)state;
	expect_order((uint32_t[]){ 100, 100, 100, 100 }, 4, "ABCD");
	expect_order((uint32_t[]){ 250, 50, 50 }, 3, "AABACAA");
}

static void weight_zero_is_never_picked(void **state)
{
	(void)state;
	expect_order((uint32_t[]){ 0, 1, 0, 1 }, 4, "BD");
	expect_order((uint32_t[]){ 5, 0, 1, 1 }, 4, "AACADAA");
}

static void without_weights_nobody_is_picked(void **state)
{
	struct balance b;

	(void)state;
	assert_int_equal(balance_init(&b, (uint32_t[]){ 0, 0 }, 2), 0);
	assert_int_equal(pick(&b, all), -1);
	balance_done(&b);
	assert_int_equal(balance_init(&b, NULL, 0), 0);
	assert_int_equal(pick(&b, all), -1);
	balance_done(&b);
	balance_done(&b); /* once more is harmless */
}

/* Every server gets exactly its weight per cycle, and is never more than one pick away from its share. */
static void check_shares(const uint32_t *weights, uint32_t n)
{
	uint32_t counts[SERVERS_MAX] = { 0 }, sum = 0;
	struct balance b;

	for (uint32_t i = 0; i < n; i++)
		sum += weights[i];
	assert_int_equal(balance_init(&b, weights, n), 0);
	for (uint32_t turn = 1; turn <= sum; turn++) {
		counts[pick(&b, all)]++;
		for (uint32_t i = 0; i < n; i++) {
			int64_t off = (int64_t)counts[i] * sum - (int64_t)weights[i] * turn;

			assert_true(llabs(off) <= sum);
		}
	}
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(counts[i], weights[i]);
	balance_done(&b);
}

static void counts_are_exact_in_every_cycle_and_even_within(void **state)
{
	uint32_t weights[SERVERS_MAX], random = 12345;

	(void)state;
	check_shares((uint32_t[]){ 5, 1, 1 }, 3);
	check_shares((uint32_t[]){ 256, 1 }, 2);
	check_shares((uint32_t[]){ 256, 255, 3, 100, 7 }, 5);
	for (int round = 0; round < 200; round++) {
		uint32_t n = 1 + (uint32_t)round % SERVERS_MAX;

		for (uint32_t i = 0; i < n; i++) {
			random = random * 1664525u + 1013904223u;
			weights[i] = 1 + (random >> 16) % 20;
		}
		check_shares(weights, n);
	}
}

static void equal_servers_are_never_picked_twice_in_a_row(void **state)
{
	(void)state;
	for (uint32_t n = 2; n <= SERVERS_MAX; n++) {
		uint32_t weights[SERVERS_MAX];
		int64_t last = -1;
		struct balance b;

		for (uint32_t i = 0; i < n; i++)
			weights[i] = 10;
		assert_int_equal(balance_init(&b, weights, n), 0);
		for (uint32_t turn = 0; turn < 3 * n; turn++) {
			int64_t number = pick(&b, all);

			assert_true(number != last);
			last = number;
		}
		balance_done(&b);
	}
}

static void turns_of_a_skipped_server_are_lost_to_nobody(void **state)
{
	uint32_t counts[SERVERS_MAX] = { 0 };
	struct balance b;

	(void)state;
	/* Without B the others alternate: C does not get B's turns on top of its own. */
	assert_int_equal(balance_init(&b, (uint32_t[]){ 1, 1, 1 }, 3), 0);
	for (int i = 0; i < 300; i++)
		counts[pick(&b, 1u << 0 | 1u << 2)]++;
	assert_int_equal(counts[0], 150);
	assert_int_equal(counts[1], 0);
	assert_int_equal(counts[2], 150);
	balance_done(&b);

	memset(counts, 0, sizeof(counts));
	assert_int_equal(balance_init(&b, (uint32_t[]){ 4, 2, 1, 1 }, 4), 0);
	for (int i = 0; i < 700; i++)
		counts[pick(&b, ~(1u << 2))]++;
	assert_int_equal(counts[0], 400);
	assert_int_equal(counts[1], 200);
	assert_int_equal(counts[3], 100);
	balance_done(&b);
}

static void every_usable_server_is_found(void **state)
{
	struct balance b;

	(void)state;
	assert_int_equal(balance_init(&b, (uint32_t[]){ 50, 1, 30 }, 3), 0);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(pick(&b, 1u << 1), 1);
		assert_int_equal(pick(&b, 0), -1);
		assert_true(pick(&b, all) >= 0);
	}
	balance_done(&b);
}

static void rotor_may_wrap(void **state)
{
	struct balance b;

	(void)state;
	assert_int_equal(balance_init(&b, (uint32_t[]){ 1, 1 }, 2), 0);
	b.rotor = UINT64_MAX - 1;
	for (int i = 0; i < 6; i++)
		assert_int_equal(pick(&b, all), i % 2);
	balance_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(schedule_is_smooth),
		cmocka_unit_test(common_divisor_does_not_lengthen_the_schedule),
		cmocka_unit_test(weight_zero_is_never_picked),
		cmocka_unit_test(without_weights_nobody_is_picked),
		cmocka_unit_test(counts_are_exact_in_every_cycle_and_even_within),
		cmocka_unit_test(equal_servers_are_never_picked_twice_in_a_row),
		cmocka_unit_test(turns_of_a_skipped_server_are_lost_to_nobody),
		cmocka_unit_test(every_usable_server_is_found),
		cmocka_unit_test(rotor_may_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
