/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_budget.c - what may wait towards peers: the first limit, its growth, and the sum over all. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "budget.h"

#define MB (1024u * 1024)

static void a_direction_begins_with_little_and_grows_up_to_the_limit(void **state)
{
	struct budget b = { .max = 100 * MB, .limit = 3 * MB };
	uint32_t limit = budget_begin(&b);

	(void)state;
	assert_int_equal(limit, MB);
	budget_charge(&b, limit);
	limit = budget_grow(&b, limit);
	assert_int_equal(limit, 2 * MB);
	limit = budget_grow(&b, limit);
	assert_int_equal(limit, 3 * MB);
	assert_int_equal(budget_grow(&b, limit), 3 * MB);
	assert_int_equal(b.given, 3 * MB);
	budget_return(&b, limit);
	assert_int_equal(b.given, 0);
}

static void a_small_limit_is_the_first_one_too(void **state)
{
	struct budget b = { .max = 100 * MB, .limit = 4096 };

	(void)state;
	assert_int_equal(budget_begin(&b), 4096);
	assert_int_equal(budget_grow(&b, 4096), 4096);
	assert_int_equal(b.given, 0);
}

static void growth_ends_with_the_budget(void **state)
{
	struct budget b = { .max = 10 * MB, .limit = 8 * MB };
	uint32_t first = budget_begin(&b), second = budget_begin(&b);

	(void)state;
	budget_charge(&b, first);
	budget_charge(&b, second);
	first = budget_grow(&b, budget_grow(&b, first));
	assert_int_equal(first, 4 * MB);
	first = budget_grow(&b, first);
	assert_int_equal(first, 8 * MB);
	second = budget_grow(&b, second);
	assert_int_equal(second, 2 * MB);
	assert_int_equal(budget_grow(&b, second), 2 * MB);
	assert_int_equal(b.given, b.max);
	budget_return(&b, first);
	assert_int_equal(budget_grow(&b, second), 4 * MB);
}

/* A thousand that stand still: the sum stays near the budget, though nobody is refused. */
static void newcomers_begin_with_less_when_half_is_given(void **state)
{
	struct budget b = { .max = 100 * MB, .limit = 2 * MB };

	(void)state;
	for (int i = 0; i < 1000; i++)
		budget_charge(&b, budget_begin(&b));
	assert_int_equal(budget_begin(&b), 128 * 1024);
	assert_in_range(b.given, 50 * MB, 200 * MB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_direction_begins_with_little_and_grows_up_to_the_limit),
		cmocka_unit_test(a_small_limit_is_the_first_one_too),
		cmocka_unit_test(growth_ends_with_the_budget),
		cmocka_unit_test(newcomers_begin_with_less_when_half_is_given),
	};

	return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
