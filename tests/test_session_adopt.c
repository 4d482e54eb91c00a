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

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake_splice.h"
#include "rig.h"

#define MUCH (8 * 1024 * 1024) /* more than all buffers on the way hold */

static size_t read_limit; /* the next read() ends so early, as if there were no memory for more; 0 = it does not */

ssize_t __real_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len)
{
	if (read_limit && read_limit < len) {
		len = read_limit;
		read_limit = 0;
	}
	return __real_read(fd, buf, len);
}

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

/* The server stands still, userspace holds bytes for it, and nothing of what the client has sent is unread. */
static void fill_behind(struct rig *r)
{
	r->server.deaf = true;
	while (!rig_view(r).held[TO_SERVER]) {
		r->client.to_send += 100000;
		WAIT_FOR(r, r->client.sent == r->client.to_send);
		rig_run_ms(r, 1);
	}
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

/* After a reset of the client the worker dies, and the next one delivers what is held, and then the reset. */
static void die_and_flush(struct rig *r)
{
	rig_die(r);
	assert_int_equal(r->stats.lost, 0);
	assert_int_equal(record(r)->state, LEDGER_FLUSH);
	r->server.deaf = false;
	WAIT_FOR(r, r->ended == 1); /* every byte that comes is looked at */
	WAIT_FOR(r, r->server.error);
	assert_true(peer_was_reset(&r->server));
}

/* Whose join was refused is in no map, though it has a cookie: to look at what is unread would take the error away, which tells a reset from a FIN. */
static void reset_of_one_whose_join_was_refused_is_no_fin(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.survives = true;
	rig_start_spliced(&r);
	fake_splice_refuse(r.splice, -ENOMEM);
	r.proxy->splice_request = r.proxy->splice_response = SPLICE_ON;
	rig_meet(&r, 0);
	assert_true(record(&r)->cookie[TO_SERVER]);
	fill_behind(&r);
	peer_reset(&r.client);
	die_and_flush(&r);
	assert_int_equal(r.server.received, r.client.sent);
	rig_done(&r);
}

/* A FIN counts as a byte received; who was reset after it leaves only what is held to be delivered. */
static void fin_before_a_reset_is_no_byte(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fill_behind(&r);
	r.client.fin = true;
	WAIT_FOR(&r, r.client.fin_sent);
	rig_run_ms(&r, 1);
	peer_reset(&r.client);
	die_and_flush(&r);
	rig_done(&r);
}

/* The error can be read once, and then recv() says 0 as after a FIN: the second worker can only tell by what was read whether a FIN came first. */
static void reset_is_seen_by_the_second_worker_too(void **state)
{
	const bool fins[] = { false, true };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fins); i++) {
		struct rig r;

		start(&r);
		fill_behind(&r);
		r.client.fin = fins[i];
		WAIT_FOR(&r, r.client.fin_sent == fins[i]);
		rig_run_ms(&r, 1);
		peer_reset(&r.client);
		rig_die(&r);
		die_and_flush(&r);
		assert_int_equal(r.server.received, r.client.to_send);
		rig_done(&r);
	}
}

/* The same, and the source has bytes that were not read. */
static void error_of_a_reset_that_was_taken_ends_no_session(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fill(&r, &r.client, &r.server, TO_SERVER);
	rig_run_ms(&r, 5);
	peer_reset(&r.client);
	rig_die(&r);
	rig_die(&r);
	assert_int_equal(r.stats.lost, 0);
	assert_int_equal(record(&r)->state, LEDGER_FLUSH);
	r.server.deaf = false;
	WAIT_FOR(&r, r.ended == 1);
	WAIT_FOR(&r, r.server.error);
	assert_true(peer_was_reset(&r.server));
	rig_done(&r);
}

/* ---- what was in the pipe ---- */

/* The kernel path is not to be had, but splice(2) is. */
static void start_with_pipe(struct rig *r)
{
	start(r);
	r->client.to_send = r->server.to_send = 100000;
	WAIT_FOR(r, rig_exchanged(r));
}

/* The worker's last call was the one that took so many bytes from the client. */
static void die_with_full_pipe(struct rig *r, uint32_t n)
{
	struct relay_scratch *scratch = ledger_scratch(r->ledger, 0);
	int source = record(r)->fd[TO_SERVER];

	r->client.to_send += n;
	while (net_readable(source) < (int)n)
		peer_step(&r->client);
	scratch->owner = TO_SERVER + 1;
	scratch->base = record(r)->relayed[TO_SERVER];
	scratch->moved = scratch->piped = 0;
	assert_int_equal(splice(source, NULL, r->pipe.in, NULL, n, SPLICE_F_NONBLOCK), n);
	rig_die(r);
}

static bool is_empty(const struct rig *r)
{
	int n;

	assert_int_equal(ioctl(r->pipe.out, FIONREAD, &n), 0);
	return !n;
}

static void what_is_in_the_pipe_is_delivered(void **state)
{
	struct rig r;

	(void)state;
	start_with_pipe(&r);
	for (int i = 0; i < 3; i++) {
		die_with_full_pipe(&r, 50000);
		assert_int_equal(r.stats.lost, 0);
		assert_true(is_empty(&r));
	}
	r.client.to_send += 100000;
	part(&r);
	rig_done(&r);
}

/* It had read what was left in the pipe, and had said so, but it held nothing yet. */
static void what_was_in_the_pipe_is_delivered(void **state)
{
	struct relay_scratch *scratch;
	struct rig r;
	int source;

	(void)state;
	start_with_pipe(&r);
	scratch = ledger_scratch(r.ledger, 0);
	source = record(&r)->fd[TO_SERVER];
	r.client.to_send += 20000;
	while (net_readable(source) < 20000)
		peer_step(&r.client);
	scratch->owner = TO_SERVER + 1;
	scratch->base = record(&r)->relayed[TO_SERVER];
	scratch->moved = 0;
	scratch->piped = 20000;
	assert_int_equal(recv(source, scratch->bytes, 20000, 0), 20000);
	rig_die(&r);
	assert_int_equal(r.stats.lost, 0);
	part(&r);
	rig_done(&r);
}

/* And then nobody takes for it what was in the buffer before. */
static void what_is_in_the_pipe_and_finds_no_memory_is_lost(void **state)
{
	struct rig r;

	(void)state;
	start_with_pipe(&r);
	read_limit = 49999;
	die_with_full_pipe(&r, 50000);
	assert_int_equal(read_limit, 0);
	assert_int_equal(r.stats.lost, 1);
	assert_true(is_empty(&r));
	WAIT_FOR(&r, r.client.error && r.server.error);
	assert_true(peer_was_reset(&r.client) && peer_was_reset(&r.server));
	rig_done(&r);
}

/* What does not add up is nobody's: it gets into no stream. */
static void what_should_not_be_in_the_pipe_is_thrown_away(void **state)
{
	struct peer client, server;
	struct rig r;

	(void)state;
	start_with_pipe(&r);
	assert_int_equal(write(r.pipe.in, "not its own", 11), 11);
	die_with_full_pipe(&r, 50000);
	assert_int_equal(r.stats.lost, 1);
	assert_true(is_empty(&r));
	WAIT_FOR(&r, r.ended == 1 && r.client.error && r.server.error);
	assert_true(peer_was_reset(&r.client) && peer_was_reset(&r.server));
	rig_client(&r, &client);
	rig_accept(&r, 0, &server);
	client.to_send = server.to_send = 500000;
	r.extra[0] = &client;
	r.extra[1] = &server;
	WAIT_FOR(&r, server.received == client.to_send && client.received == server.to_send); /* every byte is looked at */
	client.fin = server.fin = true;
	rig_done(&r);
}

/* ---- joined ---- */

static void start_joined(struct rig *r)
{
	rig_init(r, 1);
	r->survives = true;
	r->proxy->splice_request = r->proxy->splice_response = SPLICE_ON;
	rig_start_spliced(r);
	rig_meet(r, 0);
	assert_int_equal(record(r)->state, LEDGER_SPLICED);
}

/* The program had told of it, and its reader died before it could act: what came since then was dropped. */
static void session_whose_bytes_found_no_room_is_lost(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	splice_flow(r.splice, TO_CLIENT)->reason = FLOW_REASON_OVERFLOW;
	rig_die(&r);
	WAIT_FOR(&r, r.client.error && r.server.error);
	assert_true(peer_was_reset(&r.client) && peer_was_reset(&r.server));
	assert_int_equal(r.stats.lost, 1);
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
	start_joined(&r);
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

/* The program has counted them, and the kernel's worker has not brought them yet: they look as if they had been read. */
static void bytes_on_their_way_up_were_not_read(void **state)
{
	struct flow *f;
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_freeze(r.splice, true);
	f = splice_flow(r.splice, TO_SERVER);
	f->passed += 1000;
	fake_splice_late(r.splice, TO_SERVER, 1000);
	f->mode = FLOW_USER;
	rig_die(&r);
	assert_int_equal(r.stats.lost, 0);
	assert_int_equal(rig_view(&r).held[TO_SERVER], 0);
	f->passed -= 1000;
	fake_splice_late(r.splice, TO_SERVER, 0);
	f->mode = FLOW_KERNEL;
	fake_splice_freeze(r.splice, false);
	r.client.to_send = 1000;
	part(&r);
	rig_done(&r);
}

/* It had said that it would see to it, and died before it could. */
static void crowded_source_is_seen_to_by_the_next_worker(void **state)
{
	struct flow *f;
	struct rig r;
	uint32_t held;

	(void)state;
	start_joined(&r);
	f = splice_flow(r.splice, TO_SERVER);
	flow_set(f, want_kernel, 0);
	fill(&r, &r.client, &r.server, TO_SERVER);
	rig_run_ms(&r, 10);
	held = rig_view(&r).held[TO_SERVER];
	f->crowded = 1;
	flow_set(f, relieved, 1);
	rig_die(&r);
	WAIT_FOR(&r, rig_view(&r).held[TO_SERVER] == held + 1);
	assert_int_equal(flow_get(f, relieved), 1);
	r.client.to_send = r.client.sent;
	r.server.deaf = false;
	part(&r);
	rig_done(&r);
}

/* However userspace read what was passed, it is known afterwards. */
static void what_was_passed_and_read_is_known(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	for (int i = 0; i < 20; i++) {
		fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
		r.client.to_send += 50000;
		WAIT_FOR(&r, rig_exchanged(&r));
		assert_true(splice_flow(r.splice, TO_SERVER)->passed > 0);
		rig_die(&r);
		assert_int_equal(r.stats.lost, 0);
	}
	part(&r);
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_is_delivered),
		cmocka_unit_test(leftover_that_was_written_is_forgotten),
		cmocka_unit_test(what_is_in_the_pipe_is_delivered),
		cmocka_unit_test(what_was_in_the_pipe_is_delivered),
		cmocka_unit_test(what_is_in_the_pipe_and_finds_no_memory_is_lost),
		cmocka_unit_test(what_should_not_be_in_the_pipe_is_thrown_away),
		cmocka_unit_test(fin_before_a_reset_is_no_byte),
		cmocka_unit_test(reset_of_one_whose_join_was_refused_is_no_fin),
		cmocka_unit_test(reset_is_seen_by_the_second_worker_too),
		cmocka_unit_test(error_of_a_reset_that_was_taken_ends_no_session),
		cmocka_unit_test(bytes_on_their_way_up_were_not_read),
		cmocka_unit_test(crowded_source_is_seen_to_by_the_next_worker),
		cmocka_unit_test(what_was_passed_and_read_is_known),
		cmocka_unit_test(budget_is_as_it_was),
		cmocka_unit_test(session_whose_bytes_found_no_room_is_lost),
		cmocka_unit_test(budget_of_a_joined_session_is_as_it_was),
	};

	int failed;

	log_setup(LOG_ALERT, false); /* and no descriptor for them */
	failed = cmocka_run_group_tests_name("session_adopt", tests, NULL, NULL);
	rig_unread = SOCK_UNREAD_SHOWN;
	return failed + cmocka_run_group_tests_name("session_adopt, where what is unread is only shown", tests, NULL, NULL);
}
