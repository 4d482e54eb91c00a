/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_ledger.c - numbers are given once, records are clean, and the mapping is shared with a child. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>
#include <sys/wait.h>

#include "ledger.h"
#include "util.h"

#define MAX_SESSIONS 100

static void every_number_is_given_once(void **state)
{
	bool given[MAX_SESSIONS] = { false };
	struct ledger *l;
	uint32_t n;

	(void)state;
	assert_int_equal(ledger_new(&l, MAX_SESSIONS, 1), 0);
	assert_int_equal(ledger_max(l), MAX_SESSIONS);
	for (uint32_t i = 0; i < MAX_SESSIONS; i++) {
		assert_int_equal(ledger_used(l), i);
		assert_int_equal(ledger_take(l, 0, &n), 0);
		assert_true(n < MAX_SESSIONS);
		assert_false(given[n]);
		given[n] = true;
	}
	ledger_free(l);
}

static void full_ledger_refuses_until_one_is_released(void **state)
{
	struct ledger *l;
	uint32_t a, b, n = 77;

	(void)state;
	assert_int_equal(ledger_new(&l, 2, 1), 0);
	assert_int_equal(ledger_take(l, 0, &a), 0);
	assert_int_equal(ledger_take(l, 0, &b), 0);
	assert_int_equal(ledger_take(l, 0, &n), -ENOSPC);
	assert_int_equal(n, 77); /* results are written on success alone */
	ledger_release(l, a);
	assert_int_equal(ledger_used(l), 1);
	assert_int_equal(ledger_take(l, 0, &n), 0);
	assert_int_equal(n, a);
	ledger_free(l);
}

static void what_was_used_last_is_given_first(void **state)
{
	struct ledger *l;
	uint32_t numbers[3], n;

	(void)state;
	assert_int_equal(ledger_new(&l, 10, 1), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ledger_take(l, 0, &numbers[i]), 0);
		assert_int_equal(numbers[i], i); /* from the lowest: untouched memory stays untouched */
	}
	ledger_release(l, numbers[0]);
	ledger_release(l, numbers[2]);
	assert_int_equal(ledger_take(l, 0, &n), 0);
	assert_int_equal(n, numbers[2]);
	ledger_free(l);
}

static void record_starts_clean_but_for_its_serial(void **state)
{
	struct ledger_record *r;
	struct ledger *l;
	uint32_t n;

	(void)state;
	assert_int_equal(ledger_new(&l, 1, 1), 0);
	for (uint64_t serial = 1; serial <= 3; serial++) {
		struct ledger_record clean = { .serial = serial, .fd = { -1, -1 } };

		assert_int_equal(ledger_take(l, 0, &n), 0);
		r = ledger_get(l, n);
		assert_memory_equal(r, &clean, sizeof(clean));
		memset(r, 0xee, sizeof(*r));
		ledger_release(l, n);
		assert_int_equal(r->state, LEDGER_FREE);
	}
	ledger_free(l);
}

static void child_process_sees_the_records(void **state)
{
	struct ledger *l;
	int status;
	uint32_t n;
	pid_t pid;

	(void)state;
	assert_int_equal(ledger_new(&l, 4, 1), 0);
	assert_int_equal(ledger_take(l, 0, &n), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		ledger_get(l, n)->relayed[1] = 4711;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(ledger_get(l, n)->relayed[1], 4711);
	ledger_free(l);
}

static void addresses_survive(void **state)
{
	struct addr v4 = { .in = { .sin_family = AF_INET, .sin_port = htons(4242) } };
	struct addr v6 = { .in6 = { .sin6_family = AF_INET6, .sin6_port = htons(65535) } };
	struct ledger_addr kept;
	struct addr back;

	(void)state;
	assert_int_equal(inet_pton(AF_INET, "192.0.2.7", &v4.in.sin_addr), 1);
	assert_int_equal(inet_pton(AF_INET6, "2001:db8::9", &v6.in6.sin6_addr), 1);
	ledger_addr_set(&kept, &v4);
	ledger_addr_get(&kept, &back);
	assert_memory_equal(&back.in, &v4.in, sizeof(v4.in));
	ledger_addr_set(&kept, &v6);
	ledger_addr_get(&kept, &back);
	assert_memory_equal(&back.in6, &v6.in6, sizeof(v6.in6));
	ledger_addr_set(&kept, &(struct addr){ 0 });
	ledger_addr_get(&kept, &back);
	assert_int_equal(back.sa.sa_family, AF_UNSPEC);
}

static void every_state_has_a_name(void **state)
{
	(void)state;
	for (int s = LEDGER_FREE; s <= LEDGER_FLUSH; s++)
		assert_string_not_equal(ledger_state_name(s), "?");
	assert_string_equal(ledger_state_name(LEDGER_SPLICED), "SPLICED");
}

static void free_accepts_null(void **state)
{
	(void)state;
	assert_null(ledger_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_number_is_given_once),
		cmocka_unit_test(full_ledger_refuses_until_one_is_released),
		cmocka_unit_test(what_was_used_last_is_given_first),
		cmocka_unit_test(record_starts_clean_but_for_its_serial),
		cmocka_unit_test(child_process_sees_the_records),
		cmocka_unit_test(addresses_survive),
		cmocka_unit_test(every_state_has_a_name),
		cmocka_unit_test(free_accepts_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
