/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_session_mover.c - who moves a session's bytes when shunt chooses: the join in mid-stream, what keeps it off, and changes of
 * the mover afterwards. This file takes the place of choose.o: the verdict is whatever a test says.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <linux/socket.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "choose.h"
#include "fake_splice.h"
#include "rig.h"
#include "run_loop.h"

#define MUCH (4 * 1024 * 1024) /* more than all buffers on the way hold */

const uint32_t choose_sample = 4;
static enum choose_reason verdict;
static struct choose_flow last;	/* what it was asked about */
static struct choose_load last_load;

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load)
{
	last = *f;
	last_load = *load;
	return verdict;
}

static struct flow *flow(const struct rig *r, uint32_t index)
{
	return splice_flow(r->splice, index);
}

/* A session that is not joined, and whose mover is shunt's choice. */
static void start(struct rig *r)
{
	verdict = CHOOSE_YOUNG;
	last = (struct choose_flow){ 0 };
	rig_init(r, 1);
	r->proxy->splice_request = r->proxy->splice_response = SPLICE_AUTO;
	rig_start_spliced(r);
	rig_meet(r, 0);
	assert_int_equal(fake_splice_joined(r->splice), 0);
	assert_int_equal(rig_view(r).record->state, LEDGER_RELAY);
}

static void exchange(struct rig *r, uint64_t up, uint64_t down)
{
	r->client.to_send += up;
	r->server.to_send += down;
	WAIT_FOR(r, rig_exchanged(r));
}

/* Both say FIN after what they are still to send. */
static void part(struct rig *r)
{
	r->client.fin = r->server.fin = true;
	WAIT_FOR(r, r->client.eof && r->server.eof);
	assert_true(rig_exchanged(r));
	WAIT_FOR(r, r->ended == 1);
	assert_string_equal(rig_log(r).state, "--");
	assert_int_equal(fake_splice_owed(r->splice), 0);
}

/* The program has counted another few segments of the first session. */
static void sample(struct rig *r, uint32_t index)
{
	fake_splice_event(r->splice, index, FLOW_REASON_SAMPLE, rig_view(r).record->cookie[index]);
}

/* The reader stands still, and userspace holds bytes for it. */
static void fill(struct rig *r)
{
	r->client.deaf = true;
	r->server.to_send += MUCH;
	WAIT_FOR(r, rig_view(r).held[TO_CLIENT]);
}

/* ---- what it is asked about ---- */

static void choice_knows_how_busy_the_thread_is(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	run_loop(r.loop, 1200 * NS_PER_MS); /* two windows, in which the loop waits for ticks alone */
	assert_true(last_load.busy < 500);
	usleep(600000); /* one in which it does not wait, since nobody runs it */
	WAIT_FOR(&r, last_load.busy >= 500);
	part(&r);
	rig_done(&r);
}

/* ---- the options of the server's socket ---- */

static int option(struct rig *r, int level, int name)
{
	int value[2] = { 0 }; /* the first of a struct linger's is l_onoff */
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(rig_view(r).record->fd[1], level, name, value, &len), 0);
	return value[0];
}

static bool is_tuned(struct rig *r)
{
	bool tuned = option(r, IPPROTO_TCP, TCP_NODELAY);

	assert_int_equal(option(r, SOL_SOCKET, SO_KEEPALIVE), tuned);
	assert_int_equal(option(r, IPPROTO_TCP, TCP_NOTSENT_LOWAT), tuned ? (int)RIG_LIMIT : 0);
	return tuned;
}

static void servers_socket_is_tuned_with_its_second_write(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	verdict = CHOOSE_CROWD;
	assert_int_equal(option(&r, SOL_SOCKET, SO_LINGER), 1); /* who is killed resets */
	assert_int_equal(option(&r, SOL_SOCKET, SO_OOBINLINE), 1);
	assert_false(is_tuned(&r));
	exchange(&r, 100, 100000);
	assert_false(is_tuned(&r));
	exchange(&r, 100, 0);
	assert_true(is_tuned(&r));
	part(&r);
	rig_done(&r);
}

static void upload_tunes_the_servers_socket(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	verdict = CHOOSE_CROWD;
	exchange(&r, MUCH, 0);
	assert_true(is_tuned(&r));
	part(&r);
	rig_done(&r);
}

static void servers_socket_is_tuned_before_the_join(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	assert_false(is_tuned(&r));
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 1);
	assert_true(is_tuned(&r));
	exchange(&r, 1000, 2000);
	part(&r);
	rig_done(&r);
}

static void servers_socket_is_tuned_at_once_if_it_never_joins(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->splice_request = r.proxy->splice_response = SPLICE_OFF;
	rig_start_spliced(&r);
	rig_meet(&r, 0);
	assert_true(is_tuned(&r));
	part(&r);
	rig_done(&r);
}

/* ---- the source's receive buffer ---- */

static bool is_sized(struct rig *r, int end)
{
	int lock = 0;
	socklen_t len = sizeof(lock);

	assert_int_equal(getsockopt(rig_view(r).record->fd[end], SOL_SOCKET, SO_BUF_LOCK, &lock, &len), 0);
	return lock & SOCK_RCVBUF_LOCK;
}

/*
 * The server sends until its buffer here was fitted, which needs one that is larger than what fits. Only root may make it so whatever net.core.rmem_max
 * says (212992 as a rule); the kernel does it in its own time, or not: for others than root this may show less.
 */
static void exchange_until_sized(struct rig *r)
{
	int fd = rig_view(r).record->fd[1], size = 2 * MUCH, unlocked = 0;
	bool root = setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) == 0;

	assert_true(root || errno == EPERM);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof(unlocked)), 0);
	exchange(r, 0, 32 * MUCH);
	assert_true(!root || is_sized(r, 1));
}

static void bulk_does_not_enlarge_the_sources_buffer_without_end(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	verdict = CHOOSE_BULK;
	exchange(&r, 1000, 100 * 1024);
	assert_false(is_sized(&r, 1));
	exchange_until_sized(&r);
	assert_false(is_sized(&r, 0)); /* it was no source of much */
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 1);
	assert_false(is_sized(&r, 1));
	/* Left for userspace once more, and home again. */
	verdict = CHOOSE_BULK;
	sample(&r, TO_CLIENT);
	exchange(&r, 0, MUCH);
	WAIT_FOR(&r, flow(&r, TO_CLIENT)->mode == FLOW_USER);
	exchange_until_sized(&r);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, flow(&r, TO_CLIENT)->want_kernel);
	assert_false(is_sized(&r, 1));
	exchange(&r, 1000, MUCH);
	part(&r);
	rig_done(&r);
}

/* ---- who moves the bytes ---- */

static void session_joins_in_mid_stream_when_it_is_worth_it(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	exchange(&r, 1000, 2000);
	assert_int_equal(rig_view(&r).choice[TO_CLIENT], CHOOSE_YOUNG);
	assert_false(last.joined);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 1);
	assert_int_equal(rig_view(&r).record->state, LEDGER_SPLICED);
	exchange(&r, 30000, 40000);
	assert_int_equal(rig_view(&r).bytes[TO_SERVER].user, 1000);
	assert_int_equal(rig_view(&r).bytes[TO_SERVER].kernel, 30000);
	assert_int_equal(rig_view(&r).bytes[TO_CLIENT].user, 2000);
	assert_int_equal(rig_view(&r).bytes[TO_CLIENT].kernel, 40000);
	part(&r);
	assert_int_equal(r.stats.joined, 1);
	assert_int_equal(r.stats.fallback[FALLBACK_CHOICE], 0);
	rig_done(&r);
}

static void session_that_is_never_worth_it_is_counted_as_such(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	verdict = CHOOSE_CROWD;
	exchange(&r, 1000, 1000);
	rig_run_ms(&r, 50);
	assert_int_equal(rig_view(&r).choice[TO_SERVER], CHOOSE_CROWD);
	part(&r);
	assert_int_equal(fake_splice_joined(r.splice), 0);
	assert_int_equal(r.stats.fallback[FALLBACK_CHOICE], 1);
	rig_done(&r);
}

/* A slow reader's bytes wait in userspace all the time: else it would never come to a join. */
static void held_bytes_are_written_first_and_not_followed_by_others(void **state)
{
	uint64_t moved;
	struct rig r;

	(void)state;
	start(&r);
	fill(&r);
	verdict = CHOOSE_HOME;
	rig_run_ms(&r, 50);
	assert_int_equal(fake_splice_joined(r.splice), 0);
	r.client.to_send = 500;
	WAIT_FOR(&r, r.server.received == 500); /* the other direction goes on */
	moved = rig_view(&r).bytes[TO_CLIENT].user + rig_view(&r).held[TO_CLIENT];
	r.client.deaf = false;
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 1);
	assert_int_equal(rig_view(&r).record->relayed[TO_CLIENT], moved);
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

static void session_with_an_unread_fin_does_not_join(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	r.server.fin = true;
	r.client.deaf = true;
	r.server.to_send = 1024 * 1024; /* all of it and the FIN fit into what is on the way; it is not read to its end */
	WAIT_FOR(&r, r.server.fin_sent && rig_view(&r).held[TO_CLIENT]);
	verdict = CHOOSE_HOME;
	rig_run_ms(&r, 30);
	r.client.deaf = false;
	WAIT_FOR(&r, r.client.eof);
	assert_true(rig_exchanged(&r));
	assert_int_equal(rig_view(&r).record->cookie[0], 0); /* nor was the other end put into the map */
	assert_true(is_tuned(&r)); /* all the same */
	exchange(&r, 1000, 0); /* half-closed */
	part(&r);
	assert_int_equal(fake_splice_joined(r.splice), 0);
	assert_int_equal(r.stats.fallback[FALLBACK_HALF_CLOSED], 1);
	rig_done(&r);
}

static void refused_join_is_not_tried_again(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fake_splice_refuse(r.splice, -ENOMEM);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, r.stats.fallback[FALLBACK_NO_MEMORY]);
	assert_true(is_tuned(&r));
	fake_splice_refuse(r.splice, 0);
	exchange(&r, 5000, 5000);
	rig_run_ms(&r, 50);
	part(&r);
	assert_int_equal(fake_splice_joined(r.splice), 0);
	assert_int_equal(r.stats.fallback[FALLBACK_NO_MEMORY], 1);
	assert_int_equal(r.stats.fallback[FALLBACK_CHOICE], 0);
	rig_done(&r);
}

static void direction_leaves_and_comes_home_by_choice(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 1);
	exchange(&r, 1000, 1000);
	verdict = CHOOSE_BULK;
	sample(&r, TO_CLIENT);
	WAIT_FOR(&r, !flow(&r, TO_CLIENT)->want_kernel);
	assert_true(last.joined);
	exchange(&r, 0, 100000);
	assert_int_equal(rig_view(&r).bytes[TO_CLIENT].user, 100000);
	assert_int_equal(rig_view(&r).mover[TO_CLIENT], FLOW_USER);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, flow(&r, TO_CLIENT)->want_kernel);
	exchange(&r, 0, 100000);
	assert_int_equal(rig_view(&r).mover[TO_CLIENT], FLOW_KERNEL);
	part(&r);
	rig_done(&r);
}

/* Held bytes are older than those that can still be read: offering the latter first would reorder the stream. */
static void held_bytes_go_first_when_the_direction_is_to_come_home(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 1);
	verdict = CHOOSE_BULK;
	sample(&r, TO_CLIENT);
	WAIT_FOR(&r, !flow(&r, TO_CLIENT)->want_kernel);
	fill(&r);
	verdict = CHOOSE_HOME;
	WAIT_FOR(&r, flow(&r, TO_CLIENT)->want_kernel);
	assert_true(rig_view(&r).held[TO_CLIENT]);
	r.client.deaf = false;
	WAIT_FOR(&r, rig_exchanged(&r)); /* compares each byte */
	part(&r);
	assert_null(fake_splice_broken(r.splice));
	rig_done(&r);
}

static void reset_while_a_session_waits_to_join_is_a_reset(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	fill(&r);
	verdict = CHOOSE_HOME;
	rig_run_ms(&r, 30);
	peer_reset(&r.server);
	r.client.deaf = false;
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	WAIT_FOR(&r, r.ended == 1);
	assert_int_equal(fake_splice_owed(r.splice), 0);
	rig_done(&r);
}

/* A peer that took its time was charged; what a limit has grown to comes back whole. */
static void the_budget_is_whole_again_afterwards(void **state)
{
	struct rig r;

	(void)state;
	start(&r);
	assert_int_equal(r.budget.given, 0);
	fill(&r);
	assert_int_equal(r.budget.given, RIG_LIMIT);
	r.client.deaf = false;
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	assert_int_equal(r.budget.given, 0);
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(choice_knows_how_busy_the_thread_is),
		cmocka_unit_test(servers_socket_is_tuned_with_its_second_write),
		cmocka_unit_test(upload_tunes_the_servers_socket),
		cmocka_unit_test(servers_socket_is_tuned_before_the_join),
		cmocka_unit_test(servers_socket_is_tuned_at_once_if_it_never_joins),
		cmocka_unit_test(bulk_does_not_enlarge_the_sources_buffer_without_end),
		cmocka_unit_test(session_joins_in_mid_stream_when_it_is_worth_it),
		cmocka_unit_test(session_that_is_never_worth_it_is_counted_as_such),
		cmocka_unit_test(held_bytes_are_written_first_and_not_followed_by_others),
		cmocka_unit_test(session_with_an_unread_fin_does_not_join),
		cmocka_unit_test(refused_join_is_not_tried_again),
		cmocka_unit_test(direction_leaves_and_comes_home_by_choice),
		cmocka_unit_test(held_bytes_go_first_when_the_direction_is_to_come_home),
		cmocka_unit_test(reset_while_a_session_waits_to_join_is_a_reset),
		cmocka_unit_test(the_budget_is_whole_again_afterwards),
	};

	return cmocka_run_group_tests_name("session_mover", tests, NULL, NULL);
}
