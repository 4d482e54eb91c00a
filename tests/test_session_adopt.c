/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_session_adopt.c - sessions whose worker died: what the next one makes of the record and of the kernel's counters. (That a death at any point is
 * survived is for scripts/net/test-supervisor.sh to show; here is what it could not find but by chance.)
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_splice.h"
#include "rig.h"

#define MUCH (8 * 1024 * 1024) /* more than all buffers on the way hold */

static struct ledger_record *record(struct rig *r)
{
	return ledger_get(r->ledger, 0);
}

/* Userspace moves its bytes. */
static void start(struct rig *r)
{
	rig_init(r, 1);
	r->survives = true;
	rig_start(r);
	rig_meet(r, 0);
}

/* The reader stands still, and userspace holds bytes for it. */
static void fill(struct rig *r, struct peer *from, struct peer *to, int direction)
{
	to->deaf = true;
	from->to_send += MUCH;
	WAIT_FOR(r, rig_view(r).held[direction]);
}

static void part(struct rig *r)
{
	r->client.fin = r->server.fin = true;
	WAIT_FOR(r, r->client.eof && r->server.eof);
	assert_true(rig_exchanged(r));
	WAIT_FOR(r, r->ended == 1);
	assert_string_equal(rig_log(r).state, "--");
}

static void what_is_held_is_delivered(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fill(&r, &r.server, &r.client, TO_CLIENT);
	fill(&r, &r.client, &r.server, TO_SERVER);
	rig_die(&r);
	rig_die(&r);
	assert_true(rig_view(&r).held[TO_CLIENT] && rig_view(&r).held[TO_SERVER]);
	r.client.deaf = r.server.deaf = false;
	part(&r);
	rig_done(&r);
}

/* It died after the last held byte was written, and before it could say so; what is held later is something else. */
static void leftover_that_was_written_is_forgotten(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fill(&r, &r.server, &r.client, TO_CLIENT);
	r.client.deaf = false;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(record(&r)->held[TO_CLIENT], 0);
	record(&r)->held[TO_CLIENT] = 1000;
	rig_die(&r);
	assert_int_equal(record(&r)->held[TO_CLIENT], 0);
	part(&r);
	rig_done(&r);
}

/* A FIN counts as a byte received; who was reset after it leaves only what is held to be delivered. */
static void fin_before_a_reset_is_no_byte(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	r.server.deaf = true;
	while (!rig_view(&r).held[TO_SERVER]) {
		r.client.to_send += 100000;
		WAIT_FOR(&r, r.client.sent == r.client.to_send);
		rig_run_ms(&r, 1);
	}
	r.client.fin = true;
	WAIT_FOR(&r, r.client.fin_sent);
	rig_run_ms(&r, 1);
	peer_reset(&r.client);
	rig_die(&r);
	assert_int_equal(r.stats.lost, 0);
	assert_int_equal(record(&r)->state, LEDGER_FLUSH);
	r.server.deaf = false;
	WAIT_FOR(&r, r.ended == 1); /* every byte that comes is looked at */
	WAIT_FOR(&r, r.server.error);
	assert_true(peer_was_reset(&r.server));
	rig_done(&r);
}

/* What a session is charged for is what it gives back. */
static void budget_is_as_it_was(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fill(&r, &r.server, &r.client, TO_CLIENT);
	assert_true(r.budget.given > 0);
	rig_die(&r);
	assert_true(r.budget.given > 0);
	r.client.deaf = false;
	part(&r);
	assert_int_equal(r.budget.given, 0);
	rig_done(&r);
}

/* The same for a joined one, which has another limit than it began with. */
static void budget_of_a_joined_session_is_as_it_was(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.survives = true;
	r.proxy->splice_request = r.proxy->splice_response = SPLICE_ON;
	rig_start_spliced(&r);
	rig_meet(&r, 0);
	assert_int_equal(record(&r)->state, LEDGER_SPLICED);
	r.client.to_send = r.server.to_send = 1000;
	WAIT_FOR(&r, rig_exchanged(&r));
	splice_flow(r.splice, TO_CLIENT)->limit = 3 * RIG_LIMIT; /* it grew */
	rig_die(&r);
	r.client.to_send += 1000;
	r.server.to_send += 1000;
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	assert_int_equal(r.budget.given, 0);
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_is_delivered),
		cmocka_unit_test(leftover_that_was_written_is_forgotten),
		cmocka_unit_test(fin_before_a_reset_is_no_byte),
		cmocka_unit_test(budget_is_as_it_was),
		cmocka_unit_test(budget_of_a_joined_session_is_as_it_was),
	};

	return cmocka_run_group_tests_name("session_adopt", tests, NULL, NULL);
}
