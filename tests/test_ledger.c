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
#include "threads.h"
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

/* ---- several threads ---- */

static void threads_divide_the_records_evenly(void **state)
{
	struct ledger *l;
	uint32_t first = 0;

	(void)state;
	assert_int_equal(ledger_new(&l, 10, 4), 0);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(ledger_first(l, i), first);
		assert_int_equal(ledger_share(l, i), i < 2 ? 3 : 2);
		first += ledger_share(l, i);
	}
	assert_int_equal(first, ledger_max(l));
	ledger_free(l);
}

static void thread_gets_its_own_records_alone(void **state)
{
	struct ledger *l;
	uint32_t n = 77;

	(void)state;
	assert_int_equal(ledger_new(&l, 10, 4), 0);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(ledger_take(l, 1, &n), 0);
		assert_int_equal(n, 3 + i);
	}
	n = 77;
	assert_int_equal(ledger_take(l, 1, &n), -ENOSPC); /* though others have room */
	assert_int_equal(n, 77);
	assert_int_equal(ledger_take(l, 3, &n), 0);
	assert_int_equal(n, 8);
	assert_int_equal(ledger_used(l), 4);
	ledger_release(l, 4);
	assert_int_equal(ledger_take(l, 0, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(ledger_take(l, 1, &n), 0);
	assert_int_equal(n, 4);
	ledger_free(l);
}

#define THREADS 4
#define TURNS 50000u

struct takers {
	struct ledger *ledger;
	uint32_t wrong;
	uint64_t highest[THREADS];
};

static void take_and_release(void *arg, uint32_t thread)
{
	struct takers *t = arg;
	uint32_t first = ledger_first(t->ledger, thread), share = ledger_share(t->ledger, thread);
	uint32_t held[MAX_SESSIONS], nr = 0, wrong = 0;

	for (uint32_t i = 0; i < TURNS; i++) {
		bool release = nr == share || (nr && i % 3 == 0);

		if (release) {
			ledger_release(t->ledger, held[--nr]);
			continue;
		}
		wrong += ledger_take(t->ledger, thread, &held[nr]) != 0 || held[nr] - first >= share;
		t->highest[thread] = MAX(t->highest[thread], ledger_get(t->ledger, held[nr])->serial);
		wrong += ledger_used(t->ledger) > ledger_max(t->ledger);
		nr++;
	}
	while (nr)
		ledger_release(t->ledger, held[--nr]);
	__atomic_fetch_add(&t->wrong, wrong, __ATOMIC_RELAXED);
}

static void threads_take_and_release_at_once_and_serials_are_unique(void **state)
{
	struct takers t = { 0 };
	uint64_t highest = 0;
	uint32_t n;

	(void)state;
	assert_int_equal(ledger_new(&t.ledger, MAX_SESSIONS - 1, THREADS), 0);
	run_threads(THREADS, take_and_release, &t);
	assert_int_equal(t.wrong, 0);
	assert_int_equal(ledger_used(t.ledger), 0);
	for (uint32_t i = 0; i < THREADS; i++)
		highest = MAX(highest, t.highest[i]);
	/* None was given twice: the last one is their number. */
	assert_int_equal(ledger_take(t.ledger, 0, &n), 0);
	assert_int_equal(ledger_get(t.ledger, n)->serial, highest + 1);
	ledger_free(t.ledger);
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
		cmocka_unit_test(threads_divide_the_records_evenly),
		cmocka_unit_test(thread_gets_its_own_records_alone),
		cmocka_unit_test(threads_take_and_release_at_once_and_serials_are_unique),
		cmocka_unit_test(child_process_sees_the_records),
		cmocka_unit_test(addresses_survive),
		cmocka_unit_test(every_state_has_a_name),
		cmocka_unit_test(free_accepts_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
