/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_session_splice.c - the session's side of the contract with the verdict program: who reads, who writes, and when FIN
 * goes out. The kernel is played by fake_splice, which remembers every call that breaks the contract; rig_done() looks.
 */
#include "rig.h"

#include <string.h>

#define BULK (4u * 1024 * 1024)

static struct flow *flow(const struct rig *r, uint32_t index)
{
	return splice_flow(r->splice, index);
}

static int session_fd(struct rig *r, int end)
{
	return rig_view(r).record->fd[end];
}

static uint64_t session_cookie(struct rig *r, int end)
{
	return rig_view(r).record->cookie[end];
}

/* A session whose two directions the kernel moves. */
static void start_joined(struct rig *r)
{
	rig_init(r, 1);
	rig_start_spliced(r);
	rig_meet(r, 0);
	assert_int_equal(fake_splice_joined(r->splice), 1);
	assert_int_equal(rig_view(r).record->state, LEDGER_SPLICED);
}

/* Both say FIN after what they are still to send. */
static void part(struct rig *r)
{
	uint32_t ended = r->ended;

	r->client.fin = r->server.fin = true;
	WAIT_FOR(r, r->client.eof && r->server.eof);
	assert_true(rig_exchanged(r));
	WAIT_FOR(r, r->ended == ended + 1);
	assert_string_equal(rig_log(r).state, "--");
}

static void expect_reset(struct rig *r, struct peer *p)
{
	WAIT_FOR(r, p->eof || p->error);
	assert_true(peer_was_reset(p));
}

/* The reader of direction `index` has taken nothing for some time, and userspace has bytes for it. */
static void wait_until_blocked(struct rig *r, uint32_t index)
{
	const struct flow *f = flow(r, index);
	uint64_t moved = 0;
	int same = 0;

	WAIT_FOR(r, (same = f->moved == moved ? same + 1 : 0, moved = f->moved,
		     same > 25 && f->mode == FLOW_USER && f->passed > moved));
	assert_int_equal(fake_splice_queued(r->splice, index), 0);
}

/* The daemon sleeps, but for a look every 4 ms (RETRY_MAX_NS). */
static void expect_quiet(struct rig *r)
{
	uint64_t woken, turns, began;

	rig_run_ms(r, 10);
	woken = loop_turns(r->loop);
	turns = r->turns;
	began = now_ns();
	rig_run_ms(r, 30);
	assert_true(loop_turns(r->loop) - woken - (r->turns - turns) <= 2 + (now_ns() - began) / (4 * NS_PER_MS));
}

static void lack_of_memory_is_waited_for_without_spinning(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
	fake_send_fails(session_fd(&r, 1), ENOBUFS);
	r.client.to_send = 100000;
	WAIT_FOR(&r, flow(&r, TO_SERVER)->passed);
	expect_quiet(&r);
	fake_send_fails(-1, 0);
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

/* ---- the kernel moves ---- */

static void joined_session_is_moved_by_the_kernel_alone(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	assert_true(rig_view(&r).splicing);
	r.client.to_send = 1000;
	r.server.to_send = 2000;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(rig_view(&r).bytes[TO_SERVER].kernel, 1000);
	assert_int_equal(rig_view(&r).bytes[TO_CLIENT].kernel, 2000);
	part(&r);
	assert_int_equal(r.stats.joined, 1);
	assert_int_equal(r.stats.in.kernel, 1000);
	assert_int_equal(r.stats.out.kernel, 2000);
	assert_int_equal(r.stats.in.user + r.stats.out.user, 0);
	rig_done(&r);
}

static void bytes_that_came_before_the_join_are_not_lost(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start_spliced(&r);
	rig_client(&r, &r.client);
	r.client.to_send = 5000;
	peer_step(&r.client);
	rig_accept(&r, 0, &r.server);
	r.server.to_send = 3000; /* and a banner */
	peer_step(&r.server);
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(fake_splice_joined(r.splice), 1);
	part(&r);
	rig_done(&r);
}

static void kernel_mode_does_not_wake_the_daemon(void **state)
{
	struct rig r;
	uint64_t woken, turns;

	(void)state;
	start_joined(&r);
	rig_run_ms(&r, 2);
	woken = loop_turns(r.loop);
	turns = r.turns;
	for (int i = 0; i < 20; i++) {
		r.client.to_send += 1000;
		r.server.to_send += 1000;
		/* The bytes lie in the sockets for a turn of the loop before the kernel takes them. */
		fake_splice_freeze(r.splice, true);
		rig_turn(&r);
		fake_splice_freeze(r.splice, false);
		WAIT_FOR(&r, rig_exchanged(&r));
	}
	assert_int_equal(loop_turns(r.loop) - woken, r.turns - turns);
	part(&r);
	rig_done(&r);
}

static void nothing_is_read_in_kernel_mode(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_freeze(r.splice, true); /* the program is late */
	r.client.to_send = r.server.to_send = 1000;
	rig_turn(&r);
	/* An event that is not about these bytes. */
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_RESUMED, session_cookie(&r, 0));
	fake_splice_event(r.splice, TO_CLIENT, FLOW_REASON_RESUMED, session_cookie(&r, 1));
	rig_run_ms(&r, 5);
	assert_int_equal(net_readable(session_fd(&r, 0)), 1000);
	assert_int_equal(net_readable(session_fd(&r, 1)), 1000);
	fake_splice_freeze(r.splice, false);
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	assert_int_equal(r.stats.in.user + r.stats.out.user, 0);
	rig_done(&r);
}

/* ---- back and forth ---- */

static void paused_direction_is_moved_by_userspace_and_comes_home(void **state)
{
	struct rig r;
	struct session_view v;

	(void)state;
	start_joined(&r);
	r.client.to_send = 1000;
	WAIT_FOR(&r, rig_exchanged(&r));
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
	r.client.to_send = 2000;
	WAIT_FOR(&r, rig_exchanged(&r));
	v = rig_view(&r);
	assert_int_equal(v.mover[TO_SERVER], FLOW_USER);
	assert_int_equal(v.mover[TO_CLIENT], FLOW_KERNEL);
	assert_int_equal(v.bytes[TO_SERVER].kernel, 1000);
	assert_int_equal(v.bytes[TO_SERVER].user, 1000);
	r.client.to_send = 3000;
	WAIT_FOR(&r, rig_exchanged(&r));
	v = rig_view(&r);
	assert_int_equal(v.mover[TO_SERVER], FLOW_KERNEL);
	assert_int_equal(v.bytes[TO_SERVER].kernel, 2000);
	part(&r);
	assert_int_equal(r.stats.pauses, 1);
	assert_int_equal(r.stats.resumes, 1);
	rig_done(&r);
}

/* What came home keeps written bytes unread; whenever the program says that the window is closed, one is read. */
static void unread_bytes_open_the_window(void **state)
{
	struct rig r;
	struct flow *f;
	uint32_t unread;

	(void)state;
	start_joined(&r);
	f = flow(&r, TO_SERVER);
	do { /* a machine that stands still meanwhile: the timer reads them all */
		fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
		r.client.to_send += 1000;
		WAIT_FOR(&r, rig_exchanged(&r));
		r.client.to_send++; /* home again, of which an event tells */
		WAIT_FOR(&r, rig_exchanged(&r));
		rig_run_ms(&r, 2); /* the timer, which reads them too, waits for a millisecond now */
		r.client.to_send++;
		WAIT_FOR(&r, rig_exchanged(&r));
		unread = f->unread;
	} while (!unread);
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_WINDOW, session_cookie(&r, 0));
	rig_turn(&r);
	assert_true(f->unread < unread);
	/* The rest is read while nothing comes: it would hold the memory of its segment. */
	WAIT_FOR(&r, f->unread == 0);
	part(&r);
	rig_done(&r);
}

/* There is no unread byte, so the program passes a segment: whatever is read opens the window. */
static void direction_that_was_paused_for_its_window_comes_home(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_WINDOW);
	r.client.to_send = 1000;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(flow(&r, TO_SERVER)->moved, 1000);
	r.client.to_send = 2000;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(rig_view(&r).mover[TO_SERVER], FLOW_KERNEL);
	assert_int_equal(rig_view(&r).bytes[TO_SERVER].kernel, 1000);
	part(&r);
	rig_done(&r);
}

static void paused_direction_waits_until_the_kernels_queue_has_drained(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_SERVER, true);
	r.client.to_send = 1000;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_SERVER) == 1000);
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
	r.client.to_send = 3000;
	WAIT_FOR(&r, flow(&r, TO_SERVER)->passed == 2000);
	rig_run_ms(&r, 20);
	assert_int_equal(flow(&r, TO_SERVER)->moved, 0);
	assert_int_equal(r.server.received, 0);
	/* The other direction does not wait. */
	r.server.to_send = 500;
	WAIT_FOR(&r, r.client.received == 500);
	fake_splice_hold(r.splice, TO_SERVER, false);
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

static void waiting_for_the_kernels_queue_does_not_spin(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_SERVER, true);
	r.client.to_send = 1000;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_SERVER));
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
	r.client.to_send = 2000;
	WAIT_FOR(&r, flow(&r, TO_SERVER)->passed);
	expect_quiet(&r);
	fake_splice_hold(r.splice, TO_SERVER, false);
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

static void end_that_is_closed_both_ways_does_not_spin(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	fake_splice_hold(r.splice, TO_SERVER, true);
	r.client.to_send = 1000;
	r.client.fin = true;
	WAIT_FOR(&r, rig_view(&r).record->eof[0]);
	expect_quiet(&r);
	assert_false(r.server.eof);
	fake_splice_hold(r.splice, TO_SERVER, false);
	part(&r);
	rig_done(&r);
}

static void slow_reader_pauses_its_direction_and_stops_the_sender(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	r.client.deaf = true;
	r.server.to_send = 64 * BULK; /* more than all buffers */
	wait_until_blocked(&r, TO_CLIENT);
	assert_true(rig_view(&r).pauses[TO_CLIENT] >= 1);
	assert_true(r.server.sent < r.server.to_send);
	expect_quiet(&r);
	/* The other direction does not wait for this one. */
	r.client.to_send = BULK;
	WAIT_FOR(&r, r.server.received == BULK);
	r.server.to_send = r.server.sent;
	r.client.deaf = false;
	WAIT_FOR(&r, rig_exchanged(&r));
	r.server.to_send += 10;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(rig_view(&r).mover[TO_CLIENT], FLOW_KERNEL);
	part(&r);
	rig_done(&r);
}

/* Its sender has to be told of the room that is made: by reading. */
static void crowded_source_of_a_blocked_direction_is_read_on(void **state)
{
	struct flow *f;
	struct rig r;
	uint32_t held;

	(void)state;
	start_joined(&r);
	f = flow(&r, TO_SERVER);
	flow_set(f, want_kernel, 0);
	r.server.deaf = true;
	r.client.to_send = 64 * 1024 * 1024;
	wait_until_blocked(&r, TO_SERVER);
	held = rig_view(&r).held[TO_SERVER];
	f->crowded = 1;
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_CROWDED, session_cookie(&r, 0));
	WAIT_FOR(&r, flow_get(f, relieved) == 1);
	assert_int_equal(rig_view(&r).held[TO_SERVER], held + 1);
	rig_run_ms(&r, 10);
	assert_int_equal(rig_view(&r).held[TO_SERVER], held + 1);
	r.client.to_send = r.client.sent;
	r.server.deaf = false;
	part(&r);
	rig_done(&r);
}

static void direction_that_stays_in_userspace_loses_nothing(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_stay(r.splice, TO_SERVER, true);
	fake_splice_stay(r.splice, TO_CLIENT, true);
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
	fake_splice_pause(r.splice, TO_CLIENT, FLOW_REASON_LIMIT);
	r.client.to_send = r.server.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(rig_view(&r).bytes[TO_SERVER].user, BULK);
	assert_int_equal(rig_view(&r).bytes[TO_CLIENT].user, BULK);
	part(&r);
	rig_done(&r);
}

static void mover_may_change_at_any_segment(void **state)
{
	uint64_t pauses = 0, resumes = 0;

	(void)state;
	for (uint32_t seed = 1; seed <= 8; seed++) {
		struct rig r;

		start_joined(&r);
		fake_splice_shake(r.splice, seed);
		r.client.to_send = BULK / 2;
		r.server.to_send = BULK / 2 + seed;
		r.client.fin = r.server.fin = true;
		WAIT_FOR(&r, r.client.eof && r.server.eof);
		assert_true(rig_exchanged(&r));
		assert_string_equal(rig_log(&r).state, "--");
		WAIT_FOR(&r, r.ended == 1);
		pauses += r.stats.pauses;
		resumes += r.stats.resumes;
		assert_int_equal(byte_total(&r.stats.in), BULK / 2);
		assert_int_equal(byte_total(&r.stats.out), BULK / 2 + seed);
		rig_done(&r);
	}
	assert_true(pauses > 8 && resumes > 8);
}

static void one_direction_alone_may_belong_to_the_kernel(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->splice_request = SPLICE_OFF;
	rig_start_spliced(&r);
	rig_meet(&r, 0);
	r.client.to_send = r.server.to_send = BULK;
	fake_splice_stay(r.splice, TO_CLIENT, false);
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(rig_view(&r).bytes[TO_SERVER].kernel, 0);
	assert_true(rig_view(&r).bytes[TO_CLIENT].kernel > 0);
	part(&r);
	rig_done(&r);
}

/* ---- the end of a stream ---- */

static void fin_waits_for_what_the_program_has_not_seen(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_freeze(r.splice, true);
	r.client.to_send = 1000;
	r.client.fin = true;
	rig_run_ms(&r, 20);
	assert_true(rig_view(&r).record->eof[0]);
	assert_false(r.server.eof);
	fake_splice_freeze(r.splice, false);
	WAIT_FOR(&r, r.server.eof);
	assert_int_equal(r.server.received, 1000);
	part(&r);
	rig_done(&r);
}

static void fin_waits_for_what_the_kernel_has_queued(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_SERVER, true);
	r.client.to_send = 1000;
	r.client.fin = true;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_SERVER) == 1000);
	rig_run_ms(&r, 20);
	assert_false(r.server.eof);
	fake_splice_hold(r.splice, TO_SERVER, false);
	WAIT_FOR(&r, r.server.eof);
	assert_int_equal(r.server.received, 1000);
	part(&r);
	rig_done(&r);
}

static void fin_waits_for_passed_bytes_behind_queued_ones(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_CLIENT, true);
	r.server.to_send = 1000;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_CLIENT) == 1000);
	fake_splice_pause(r.splice, TO_CLIENT, FLOW_REASON_LIMIT);
	r.server.to_send = 3000;
	r.server.fin = true;
	WAIT_FOR(&r, flow(&r, TO_CLIENT)->passed == 2000);
	rig_run_ms(&r, 20);
	assert_int_equal(r.client.received, 0);
	assert_false(r.client.eof);
	fake_splice_hold(r.splice, TO_CLIENT, false);
	WAIT_FOR(&r, r.client.eof);
	assert_int_equal(r.client.received, 3000);
	part(&r);
	rig_done(&r);
}

static void fin_waits_for_a_slow_reader(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	r.client.deaf = true;
	r.server.to_send = 64 * BULK;
	wait_until_blocked(&r, TO_CLIENT);
	r.server.to_send = r.server.sent;
	r.server.fin = true;
	rig_run_ms(&r, 10);
	r.client.deaf = false;
	WAIT_FOR(&r, r.client.eof);
	assert_true(rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

static void empty_stream_gets_its_fin(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	assert_false(r.client.eof);
	r.server.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

static void server_may_end_first_and_still_be_written_to(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	r.server.to_send = 10;
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	r.client.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	fake_splice_pause(r.splice, TO_SERVER, FLOW_REASON_LIMIT);
	r.client.to_send = 2 * BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	part(&r);
	rig_done(&r);
}

static void half_closed_session_does_not_spin(void **state)
{
	struct rig r;
	uint64_t woken, turns;

	(void)state;
	start_joined(&r);
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	rig_run_ms(&r, 2);
	woken = loop_turns(r.loop);
	turns = r.turns;
	rig_run_ms(&r, 10);
	assert_int_equal(loop_turns(r.loop) - woken, r.turns - turns);
	part(&r);
	rig_done(&r);
}

/* ---- events ---- */

static void event_with_a_stale_cookie_is_ignored(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	/* The program passes bytes, but its event is still on the way; another session's is not. */
	fake_splice_freeze(r.splice, true);
	flow(&r, TO_SERVER)->mode = FLOW_USER;
	r.client.to_send = 1000;
	rig_turn(&r);
	flow(&r, TO_SERVER)->passed = 1000;
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_LIMIT, session_cookie(&r, 0) + 1);
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_LIMIT, session_cookie(&r, 1));
	rig_run_ms(&r, 10);
	assert_int_equal(flow(&r, TO_SERVER)->moved, 0);
	assert_int_equal(net_readable(session_fd(&r, 0)), 1000);
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_LIMIT, session_cookie(&r, 0));
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(flow(&r, TO_SERVER)->moved, 1000);
	fake_splice_freeze(r.splice, false);
	part(&r);
	rig_done(&r);
}

static void event_of_a_slot_without_session_is_ignored(void **state)
{
	struct rig r;
	uint64_t cookie;

	(void)state;
	start_joined(&r);
	cookie = session_cookie(&r, 0);
	fake_splice_event(r.splice, 2, FLOW_REASON_LIMIT, cookie);		      /* never used */
	fake_splice_event(r.splice, 2 * RIG_SESSIONS, FLOW_REASON_LIMIT, cookie);     /* no such slot */
	fake_splice_event(r.splice, UINT32_MAX, FLOW_REASON_LIMIT, cookie);
	rig_run_ms(&r, 1);
	part(&r);
	fake_splice_event(r.splice, 0, FLOW_REASON_LIMIT, cookie); /* over */
	rig_run_ms(&r, 1);
	rig_done(&r);
}

static void event_after_the_end_of_the_session_in_the_same_turn_is_ignored(void **state)
{
	struct rig r;
	uint64_t cookie;

	(void)state;
	start_joined(&r);
	cookie = session_cookie(&r, 0);
	r.client.to_send = r.server.to_send = 10;
	WAIT_FOR(&r, rig_exchanged(&r));
	peer_reset(&r.client);
	fake_splice_event(r.splice, 0, FLOW_REASON_LIMIT, cookie);
	fake_splice_event(r.splice, 1, FLOW_REASON_NO_PEER, cookie);
	sessions_kill(r.sessions);
	fake_splice_event(r.splice, 0, FLOW_REASON_LIMIT, cookie);
	expect_reset(&r, &r.server);
	rig_done(&r);
}

static void event_that_bytes_are_missing_resets_both_ends(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_event(r.splice, TO_CLIENT, FLOW_REASON_BROKEN, session_cookie(&r, 1) + 1);
	rig_run_ms(&r, 1);
	assert_int_equal(sessions_count(r.sessions), 1);
	fake_splice_event(r.splice, TO_CLIENT, FLOW_REASON_BROKEN, session_cookie(&r, 1));
	expect_reset(&r, &r.client);
	expect_reset(&r, &r.server);
	assert_string_equal(rig_log(&r).state, "ID");
	rig_done(&r);
}

static void event_that_passed_bytes_find_no_room_resets_both_ends(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_OVERFLOW, session_cookie(&r, 0));
	expect_reset(&r, &r.client);
	expect_reset(&r, &r.server);
	assert_string_equal(rig_log(&r).state, "RD");
	rig_done(&r);
}

static void expect_report(struct rig *r, const char *what)
{
	char text[2048] = "";

	WAIT_FOR(r, read(r->log_fd, text, sizeof(text) - 1) > 0);
	if (!strstr(text, what) || !strstr(text, "please report this"))
		fail_msg("a report without '%s': %s", what, text);
}

/* What is written to us is then all that there is to find out why. */
static void broken_counters_are_reported_with_their_values(void **state)
{
	struct rig r;

	(void)state;
	log_setup(LOG_ALERT, false);
	start_joined(&r);
	log_add_sink(r.fe->sinks[0]);
	r.client.to_send = 1000;
	r.server.to_send = 20;
	WAIT_FOR(&r, rig_exchanged(&r));
	fake_splice_event(r.splice, TO_CLIENT, FLOW_REASON_BROKEN, session_cookie(&r, 1));
	expect_report(&r, "from the server, a segment is missing, or could not be trimmed: received=20 relayed=0 "
			  "redirected=20 passed=0 moved=0 unread=0 written=20 extra=0");
	assert_string_equal(rig_log(&r).state, "ID");
	log_clear_sinks();
	rig_done(&r);

	start_joined(&r);
	log_add_sink(r.fe->sinks[0]);
	r.client.to_send = 1000;
	WAIT_FOR(&r, rig_exchanged(&r));
	flow(&r, TO_SERVER)->redirected = 1001;
	r.client.fin = true;
	expect_report(&r, "from the client, more was handed over than has come: received=1001 (one is the FIN) "
			  "relayed=0 redirected=1001 passed=0 moved=0 unread=0 written=1001 extra=1");
	assert_string_equal(rig_log(&r).state, "ID");
	log_clear_sinks();
	log_setup(LOG_EMERG, false);
	rig_done(&r);
}

/* ---- resets ---- */

static void reset_of_either_end_becomes_a_reset_of_the_other(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	r.client.to_send = 10;
	WAIT_FOR(&r, rig_exchanged(&r));
	peer_reset(&r.client);
	expect_reset(&r, &r.server);
	assert_string_equal(rig_log(&r).state, "CD");
	rig_done(&r);

	start_joined(&r);
	peer_reset(&r.server);
	expect_reset(&r, &r.client);
	assert_string_equal(rig_log(&r).state, "SD");
	rig_done(&r);
}

/*
 * The server sends 1000 bytes that the kernel keeps in its queue, maybe 2000 more that it passes, and resets. Everything
 * arrives, if the queue moves on within FLUSH_STALL_NS. Returns false if this machine was too slow to say.
 */
static bool check_flush(bool passed)
{
	uint64_t began;
	bool in_time;
	struct rig r;

	start_joined(&r);
	fake_splice_hold(r.splice, TO_CLIENT, true);
	r.server.to_send = 1000;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_CLIENT) == 1000);
	if (passed) {
		fake_splice_pause(r.splice, TO_CLIENT, FLOW_REASON_LIMIT);
		r.server.to_send = 3000;
		WAIT_FOR(&r, flow(&r, TO_CLIENT)->passed == 2000);
	}
	began = now_ns();
	peer_reset(&r.server);
	for (int i = 0; i < 10; i++)
		rig_turn(&r);
	in_time = now_ns() - began < 50 * NS_PER_MS;
	if (in_time) {
		assert_int_equal(rig_view(&r).record->state, LEDGER_FLUSH);
		assert_int_equal(r.client.error, 0);
		/* What comes from the client is for nobody, and may as well be dropped. */
		fake_splice_event(r.splice, TO_SERVER, FLOW_REASON_OVERFLOW, session_cookie(&r, 0));
	}
	fake_splice_hold(r.splice, TO_CLIENT, false);
	expect_reset(&r, &r.client);
	in_time = in_time && now_ns() - began < 90 * NS_PER_MS;
	if (in_time)
		assert_int_equal(r.client.received, r.server.to_send);
	assert_string_equal(rig_log(&r).state, "SD");
	rig_done(&r);
	return in_time;
}

static void reset_waits_for_what_was_sent_before_it(void **state)
{
	int tries = 0;

	(void)state;
	while (!check_flush(false) || !check_flush(true))
		assert_true(++tries < 50);
}

static void reset_does_not_wait_for_ever(void **state)
{
	struct rig r;
	uint64_t began;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_CLIENT, true);
	r.server.to_send = 1000;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_CLIENT) == 1000);
	peer_reset(&r.server);
	began = now_ns();
	expect_reset(&r, &r.client); /* not a clean end: 1000 bytes are missing */
	assert_int_equal(r.client.received, 0);
	assert_true(now_ns() - began >= 90 * NS_PER_MS);
	rig_done(&r);
}

static void both_ends_reset_end_the_session_once(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_CLIENT, true);
	r.server.to_send = 1000;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_CLIENT) == 1000);
	peer_reset(&r.server);
	rig_run_ms(&r, 5);
	peer_reset(&r.client);
	assert_string_equal(rig_log(&r).state, "SD");
	WAIT_FOR(&r, r.ended == 1);
	rig_done(&r);
}

static void reset_while_fin_is_held_back_is_not_a_clean_end(void **state)
{
	struct rig r;

	(void)state;
	start_joined(&r);
	fake_splice_hold(r.splice, TO_SERVER, true);
	r.client.to_send = 1000;
	r.client.fin = true;
	WAIT_FOR(&r, fake_splice_queued(r.splice, TO_SERVER) == 1000);
	rig_run_ms(&r, 5);
	sessions_kill(r.sessions);
	expect_reset(&r, &r.server);
	expect_reset(&r, &r.client);
	rig_done(&r);
}

static void kill_resets_joined_sessions(void **state)
{
	struct peer clients[3], servers[3];
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start_spliced(&r);
	for (int i = 0; i < 3; i++) {
		rig_client(&r, &clients[i]);
		rig_accept(&r, 0, &servers[i]);
		r.extra[i * 2] = &clients[i];
		r.extra[i * 2 + 1] = &servers[i];
		clients[i].to_send = servers[i].to_send = 64 * BULK;
	}
	WAIT_FOR(&r, fake_splice_joined(r.splice) == 3 && clients[2].received);
	sessions_kill(r.sessions);
	for (int i = 0; i < 3; i++) {
		expect_reset(&r, &clients[i]);
		expect_reset(&r, &servers[i]);
	}
	rig_done(&r);
}

/* ---- refusals ---- */

static void refused_join_keeps_relaying_and_counts_why(void **state)
{
	const struct {
		int error;
		enum splice_fallback why;
	} cases[] = {
		{ -EOPNOTSUPP, FALLBACK_HALF_CLOSED },
		{ -ENOMEM, FALLBACK_NO_MEMORY },
		{ -E2BIG, FALLBACK_OTHER },
		{ -EBUSY, FALLBACK_BUSY },
		{ -EINVAL, FALLBACK_BUSY },
		{ -EPERM, FALLBACK_OTHER },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct rig r;

		rig_init(&r, 1);
		rig_start_spliced(&r);
		fake_splice_refuse(r.splice, cases[i].error);
		rig_meet(&r, 0);
		assert_int_equal(rig_view(&r).record->state, LEDGER_RELAY);
		assert_int_equal(rig_view(&r).record->fallback, cases[i].why);
		assert_int_equal(r.stats.fallback[cases[i].why], 1);
		assert_int_equal(r.stats.joined, 0);
		r.client.to_send = BULK;
		r.server.to_send = BULK + 1;
		WAIT_FOR(&r, rig_exchanged(&r));
		part(&r);
		assert_int_equal(r.stats.in.user, BULK);
		assert_int_equal(r.stats.out.kernel, 0);
		rig_done(&r);
	}
}

static void sessions_after_a_refusal_are_joined_again(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start_spliced(&r);
	fake_splice_refuse(r.splice, -ENOMEM);
	rig_meet(&r, 0);
	part(&r);
	peer_close(&r.client);
	peer_close(&r.server);
	fake_splice_refuse(r.splice, 0);
	rig_meet(&r, 0);
	assert_int_equal(fake_splice_joined(r.splice), 1);
	r.client.to_send = 10;
	part(&r);
	rig_done(&r);
}

static void half_closed_client_is_not_joined(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start_spliced(&r);
	rig_client(&r, &r.client);
	r.client.to_send = 1000;
	r.client.fin = true;
	peer_step(&r.client);
	rig_accept(&r, 0, &r.server);
	WAIT_FOR(&r, r.server.eof);
	assert_int_equal(r.server.received, 1000);
	assert_int_equal(r.stats.fallback[FALLBACK_HALF_CLOSED], 1);
	assert_int_equal(fake_splice_joined(r.splice), 0);
	assert_int_equal(fake_splice_owed(r.splice), 0); /* not even asked for */
	r.server.to_send = 1000;
	part(&r);
	rig_done(&r);
}

static void switched_off_splicing_does_not_ask_the_kernel(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->splice_request = r.proxy->splice_response = SPLICE_OFF;
	rig_start_spliced(&r);
	rig_meet(&r, 0);
	r.client.to_send = 10;
	assert_int_equal(r.stats.fallback[FALLBACK_OFF], 1);
	assert_int_equal(fake_splice_owed(r.splice), 0);
	part(&r);
	rig_done(&r);
}

/* ---- inactivity, many ---- */

static void bytes_of_the_kernel_count_as_activity(void **state)
{
	struct rig r;
	uint64_t began;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = r.proxy->timeout.server = 250;
	rig_start_spliced(&r);
	rig_meet(&r, 0);
	for (began = now_ns(); now_ns() - began < 800 * NS_PER_MS;) {
		r.server.to_send++;
		WAIT_FOR(&r, rig_exchanged(&r));
		rig_run_ms(&r, 10);
	}
	assert_int_equal(sessions_count(r.sessions), 1);
	assert_string_equal(rig_log(&r).state, "cD");
	expect_reset(&r, &r.client);
	expect_reset(&r, &r.server);
	assert_int_equal(r.stats.out.user, 0);
	rig_done(&r);
}

static void many_joined_sessions_do_not_mix(void **state)
{
	enum { N = 6 };
	struct peer clients[N], servers[N];
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start_spliced(&r);
	for (int i = 0; i < N; i++) {
		rig_client(&r, &clients[i]);
		rig_accept(&r, 0, &servers[i]);
		clients[i].seed = servers[i].expect = (uint8_t)(10 + i);
		servers[i].seed = clients[i].expect = (uint8_t)(110 + i);
		clients[i].to_send = servers[i].to_send = 300000 + (uint64_t)i;
		clients[i].fin = servers[i].fin = true;
	}
	for (int i = 0; i < N; i++) {
		r.extra[i * 2] = &clients[i];
		r.extra[i * 2 + 1] = &servers[i];
	}
	fake_splice_shake(r.splice, 99);
	WAIT_FOR(&r, r.ended == N);
	for (int i = 0; i < N; i++) {
		WAIT_FOR(&r, clients[i].eof && servers[i].eof);
		assert_int_equal(clients[i].received, 300000 + i);
		assert_int_equal(servers[i].received, 300000 + i);
	}
	assert_int_equal(r.stats.joined, N);
	rig_done(&r);
}

static void slots_are_clean_for_the_next_session(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.max_sessions = 1;
	rig_start_spliced(&r);
	for (uint32_t i = 0; i < 30; i++) {
		rig_meet(&r, 0);
		fake_splice_shake(r.splice, i);
		r.client.to_send = r.server.to_send = 40000 * (i % 4);
		part(&r);
		peer_close(&r.client);
		peer_close(&r.server);
	}
	assert_int_equal(fake_splice_joined(r.splice), 30);
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joined_session_is_moved_by_the_kernel_alone),
		cmocka_unit_test(lack_of_memory_is_waited_for_without_spinning),
		cmocka_unit_test(bytes_that_came_before_the_join_are_not_lost),
		cmocka_unit_test(kernel_mode_does_not_wake_the_daemon),
		cmocka_unit_test(nothing_is_read_in_kernel_mode),
		cmocka_unit_test(paused_direction_is_moved_by_userspace_and_comes_home),
		cmocka_unit_test(unread_bytes_open_the_window),
		cmocka_unit_test(direction_that_was_paused_for_its_window_comes_home),
		cmocka_unit_test(paused_direction_waits_until_the_kernels_queue_has_drained),
		cmocka_unit_test(waiting_for_the_kernels_queue_does_not_spin),
		cmocka_unit_test(end_that_is_closed_both_ways_does_not_spin),
		cmocka_unit_test(slow_reader_pauses_its_direction_and_stops_the_sender),
		cmocka_unit_test(crowded_source_of_a_blocked_direction_is_read_on),
		cmocka_unit_test(direction_that_stays_in_userspace_loses_nothing),
		cmocka_unit_test(mover_may_change_at_any_segment),
		cmocka_unit_test(one_direction_alone_may_belong_to_the_kernel),
		cmocka_unit_test(fin_waits_for_what_the_program_has_not_seen),
		cmocka_unit_test(fin_waits_for_what_the_kernel_has_queued),
		cmocka_unit_test(fin_waits_for_passed_bytes_behind_queued_ones),
		cmocka_unit_test(fin_waits_for_a_slow_reader),
		cmocka_unit_test(empty_stream_gets_its_fin),
		cmocka_unit_test(server_may_end_first_and_still_be_written_to),
		cmocka_unit_test(half_closed_session_does_not_spin),
		cmocka_unit_test(event_with_a_stale_cookie_is_ignored),
		cmocka_unit_test(event_of_a_slot_without_session_is_ignored),
		cmocka_unit_test(event_after_the_end_of_the_session_in_the_same_turn_is_ignored),
		cmocka_unit_test(event_that_bytes_are_missing_resets_both_ends),
		cmocka_unit_test(event_that_passed_bytes_find_no_room_resets_both_ends),
		cmocka_unit_test(broken_counters_are_reported_with_their_values),
		cmocka_unit_test(reset_of_either_end_becomes_a_reset_of_the_other),
		cmocka_unit_test(reset_waits_for_what_was_sent_before_it),
		cmocka_unit_test(reset_does_not_wait_for_ever),
		cmocka_unit_test(both_ends_reset_end_the_session_once),
		cmocka_unit_test(reset_while_fin_is_held_back_is_not_a_clean_end),
		cmocka_unit_test(kill_resets_joined_sessions),
		cmocka_unit_test(refused_join_keeps_relaying_and_counts_why),
		cmocka_unit_test(sessions_after_a_refusal_are_joined_again),
		cmocka_unit_test(half_closed_client_is_not_joined),
		cmocka_unit_test(switched_off_splicing_does_not_ask_the_kernel),
		cmocka_unit_test(bytes_of_the_kernel_count_as_activity),
		cmocka_unit_test(many_joined_sessions_do_not_mix),
		cmocka_unit_test(slots_are_clean_for_the_next_session),
	};

	log_setup(LOG_EMERG, false); /* a broken flow is an alert */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
