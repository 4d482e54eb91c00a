/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_session.c - sessions that userspace moves: every byte, every end of stream, every reset, and nothing left behind.
 * Choosing a server and time limits: test_session_connect.c. The contract with the kernel: test_session_splice.c.
 */
#include "rig.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define BULK (8u * 1024 * 1024)

int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned int nr, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned int nr, int flags);

static unsigned int sends, datagrams; /* of log lines */

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned int nr, int flags)
{
	sends++;
	datagrams += nr;
	return __real_sendmmsg(fd, messages, nr, flags);
}

ssize_t __real_splice(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned int flags);
ssize_t __wrap_splice(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned int flags);

static uint64_t spliced; /* bytes, out of a pipe */

ssize_t __wrap_splice(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned int flags)
{
	ssize_t n = __real_splice(in, in_at, out, out_at, len, flags);
	struct stat s;

	if (n > 0 && fstat(in, &s) == 0 && S_ISFIFO(s.st_mode))
		spliced += (uint64_t)n;
	return n;
}

static void echo_arrives(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = 100;
	WAIT_FOR(&r, r.server.received == 100);
	r.server.to_send = 100;
	WAIT_FOR(&r, rig_exchanged(&r));
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	l = rig_log(&r);
	assert_string_equal(l.state, "--");
	assert_string_equal(l.server, "s0");
	assert_int_equal(l.bytes, 100);
	assert_int_equal(l.retries, 0);
	assert_int_equal(l.frontend, 1);
	WAIT_FOR(&r, r.ended == 1);
	assert_int_equal(r.fe->stats.in.user, 100);
	assert_int_equal(r.be->servers[0].stats.out.user, 100);
	assert_int_equal(r.stats.in.kernel + r.stats.out.kernel, 0);
	assert_int_equal(r.stats.resets_sent, 0);
	assert_int_equal(r.stats.fallback[FALLBACK_UNAVAILABLE], 1);
	rig_done(&r);
}

static void bulk_goes_both_ways_at_once(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = BULK;
	r.server.to_send = BULK + 12345;
	r.client.fin = r.server.fin = true;
	WAIT_FOR(&r, r.client.eof && r.server.eof);
	assert_true(rig_exchanged(&r));
	assert_int_equal(rig_log(&r).bytes, BULK + 12345);
	rig_done(&r);
}

static void finish(struct rig *r)
{
	WAIT_FOR(r, rig_exchanged(r));
	r->client.fin = r->server.fin = true;
	WAIT_FOR(r, r->client.eof && r->server.eof);
	rig_done(r);
}

/* Messages are copied: what comes of them in one read is seldom worth two calls. */
static void only_transfers_are_spliced(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	spliced = 0;
	for (int i = 0; i < 20; i++) {
		r.client.to_send += 3000;
		WAIT_FOR(&r, rig_exchanged(&r));
	}
	assert_int_equal(spliced, 0);
	r.client.to_send += BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_true(spliced > BULK / 2);
	/* One small read ends it. */
	r.client.to_send += 100;
	WAIT_FOR(&r, rig_exchanged(&r));
	spliced = 0;
	r.client.to_send += 100;
	finish(&r);
	assert_int_equal(spliced, 0);
}

/* `no option splice-auto` keeps a direction from splice(2) too. */
static void nothing_is_spliced_where_it_is_forbidden(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->splice_request = SPLICE_OFF;
	rig_start(&r);
	rig_meet(&r, 0);
	spliced = 0;
	r.client.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_int_equal(spliced, 0);
	r.server.to_send = BULK;
	finish(&r);
	assert_true(spliced > BULK / 2);
}

/* Once a socket was to get into the map, splice(2) would read past the program. */
static void nothing_is_spliced_after_a_join_was_refused(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->splice_request = r.proxy->splice_response = SPLICE_ON;
	rig_start_spliced(&r);
	fake_splice_refuse(r.splice, -ENOMEM);
	rig_meet(&r, 0);
	spliced = 0;
	r.client.to_send = r.server.to_send = BULK;
	finish(&r);
	assert_int_equal(spliced, 0);
}

/* A pipe that is full ends a read early, which is no sign that nothing is left. */
static void what_came_before_a_reset_is_delivered_past_a_full_pipe(void **state)
{
	struct rig r;
	int source;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	spliced = 0;
	r.client.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	r.client.to_send += 20000; /* and the last read was no small one */
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_true(spliced > 0);
	assert_true(fcntl(r.pipe.in, F_SETPIPE_SZ, 4096) >= 4096); /* one piece */
	source = rig_view(&r).record->fd[TO_SERVER];
	r.client.to_send += 60000;
	while (net_readable(source) < 60000)
		peer_step(&r.client);
	peer_reset(&r.client);
	WAIT_FOR(&r, r.server.error);
	assert_true(peer_was_reset(&r.server));
	assert_int_equal(r.server.received, r.client.to_send);
	rig_done(&r);
}

static const struct session_view *only(struct rig *r)
{
	static struct session_view v;

	v = rig_view(r);
	return &v;
}

static void slow_reader_holds_only_what_was_read(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.server.deaf = true;
	r.client.to_send = 64 * BULK; /* more than all buffers */
	WAIT_FOR(&r, only(&r)->held[TO_SERVER]);
	assert_true(only(&r)->held[TO_SERVER] <= 256 * 1024);
	assert_true(r.client.sent < r.client.to_send);
	/* The other direction does not wait for this one. */
	r.server.to_send = BULK;
	WAIT_FOR(&r, r.client.received == BULK);
	r.client.to_send = r.client.sent;
	r.server.deaf = false;
	WAIT_FOR(&r, rig_exchanged(&r));
	WAIT_FOR(&r, !only(&r)->held[TO_SERVER]);
	r.client.fin = r.server.fin = true;
	WAIT_FOR(&r, r.client.eof && r.server.eof);
	rig_done(&r);
}

/* The kernel has no memory for what is sent to this end, and epoll says all the same that there is room. */
static void expect_patience(int end, int error)
{
	uint64_t woken, turns, began;
	struct peer *from;
	struct rig r;

	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	from = end == 1 ? &r.client : &r.server;
	fake_send_fails(only(&r)->record->fd[end], error);
	from->to_send = 100000;
	WAIT_FOR(&r, only(&r)->held[!end]);
	rig_run_ms(&r, 10);
	woken = loop_turns(r.loop);
	turns = r.turns;
	began = now_ns();
	rig_run_ms(&r, 30);
	assert_true(loop_turns(r.loop) - woken - (r.turns - turns) <= 2 + (now_ns() - began) / (4 * NS_PER_MS));
	assert_int_equal(sessions_count(r.sessions), 1);

	fake_send_fails(-1, 0);
	WAIT_FOR(&r, rig_exchanged(&r));
	r.client.fin = r.server.fin = true;
	WAIT_FOR(&r, r.client.eof && r.server.eof);
	assert_string_equal(rig_log(&r).state, "--");
	rig_done(&r);
}

static void lack_of_memory_is_waited_for_without_spinning(void **state)
{
	static const int errors[] = { ENOBUFS, ENOMEM, EAGAIN };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		expect_patience(0, errors[i]);
		expect_patience(1, errors[i]);
	}
}

static void client_may_end_first(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	assert_false(r.client.eof);
	r.server.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_false(r.client.eof);
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	assert_string_equal(rig_log(&r).state, "--");
	rig_done(&r);
}

static void server_may_end_first(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	assert_false(r.server.eof);
	r.client.to_send = BULK;
	WAIT_FOR(&r, rig_exchanged(&r));
	assert_false(r.server.eof);
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	assert_string_equal(rig_log(&r).state, "--");
	rig_done(&r);
}

static void half_closed_session_does_not_spin(void **state)
{
	struct rig r;
	uint64_t woken, turns;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	rig_run_ms(&r, 2);
	woken = loop_turns(r.loop);
	turns = r.turns;
	rig_run_ms(&r, 10);
	assert_int_equal(loop_turns(r.loop) - woken, r.turns - turns);
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	rig_done(&r);
}

static void fin_right_behind_the_data_is_not_lost(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_client(&r, &r.client);
	r.client.to_send = 1000;
	r.client.fin = true;
	peer_step(&r.client); /* before shunt has even accepted it */
	rig_accept(&r, 0, &r.server);
	WAIT_FOR(&r, r.server.eof);
	assert_int_equal(r.server.received, 1000);
	r.server.to_send = 2000;
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	assert_int_equal(r.client.received, 2000);
	assert_string_equal(rig_log(&r).state, "--");
	rig_done(&r);
}

static void client_that_said_all_before_the_connect_is_served(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_client(&r, &r.client);
	r.client.fin = true;
	peer_step(&r.client);
	rig_accept(&r, 0, &r.server);
	WAIT_FOR(&r, r.server.eof);
	r.server.to_send = 10;
	WAIT_FOR(&r, r.client.received == 10);
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	assert_string_equal(rig_log(&r).state, "--");
	rig_done(&r);
}

static void server_may_speak_first(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.server.to_send = 77;
	WAIT_FOR(&r, r.client.received == 77);
	r.client.fin = r.server.fin = true;
	WAIT_FOR(&r, r.client.eof && r.server.eof);
	rig_done(&r);
}

static void server_may_speak_and_leave_at_once(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_client(&r, &r.client);
	rig_accept(&r, 0, &r.server);
	r.server.to_send = 77;
	r.server.fin = true;
	peer_step(&r.server);
	WAIT_FOR(&r, r.client.eof);
	assert_int_equal(r.client.received, 77);
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	assert_string_equal(rig_log(&r).state, "--");
	rig_done(&r);
}

static void reset_of_the_client_becomes_a_reset_of_the_server(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = 10;
	WAIT_FOR(&r, r.server.received == 10);
	peer_reset(&r.client);
	WAIT_FOR(&r, r.server.eof || r.server.error);
	assert_true(peer_was_reset(&r.server));
	assert_string_equal(rig_log(&r).state, "CD");
	assert_int_equal(r.fe->stats.aborted_by_client, 1);
	assert_int_equal(r.stats.resets_sent, 1);
	rig_done(&r);
}

static void reset_of_the_server_becomes_a_reset_of_the_client(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	peer_reset(&r.server);
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	assert_string_equal(rig_log(&r).state, "SD");
	assert_int_equal(r.be->servers[0].stats.aborted_by_server, 1);
	rig_done(&r);
}

static void what_was_sent_before_a_reset_arrives(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.server.to_send = 50000;
	peer_step(&r.server);
	assert_int_equal(r.server.sent, 50000);
	peer_reset(&r.server);
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	assert_int_equal(r.client.received, 50000);
	rig_done(&r);
}

static void reset_with_a_full_queue_is_not_a_clean_end(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.deaf = true;
	r.server.to_send = 64 * BULK;
	WAIT_FOR(&r, only(&r)->held[TO_CLIENT]);
	peer_reset(&r.server);
	/* The client does not read: it is given up after a moment. */
	WAIT_FOR(&r, r.ended == 1);
	r.client.deaf = false;
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	assert_true(r.client.received < r.server.to_send);
	assert_string_equal(rig_log(&r).state, "SD");
	rig_done(&r);
}

static void what_was_read_before_a_reset_arrives(void **state)
{
	struct rig r;
	uint64_t read;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.deaf = true;
	r.server.to_send = 64 * BULK;
	WAIT_FOR(&r, only(&r)->held[TO_CLIENT]);
	read = only(&r)->bytes[TO_CLIENT].user + only(&r)->held[TO_CLIENT];
	r.client.deaf = false;
	peer_reset(&r.server);
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	assert_true(r.client.received >= read);
	rig_done(&r);
}

static void reset_that_a_write_finds_first_is_the_other_ends(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = 10;
	peer_step(&r.client);
	peer_reset(&r.server); /* its event comes after the client's */
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	assert_string_equal(rig_log(&r).state, "SD");
	rig_done(&r);
}

static void reset_while_this_end_has_bytes_to_get_throws_them_away(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.deaf = true;
	r.server.to_send = 64 * BULK;
	WAIT_FOR(&r, only(&r)->held[TO_CLIENT]);
	peer_reset(&r.client);
	WAIT_FOR(&r, r.server.error);
	assert_true(peer_was_reset(&r.server));
	assert_string_equal(rig_log(&r).state, "CD");
	rig_done(&r);
}

static void reset_after_a_half_close_is_not_a_clean_end(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = 10;
	r.client.fin = true;
	WAIT_FOR(&r, r.server.eof);
	r.server.to_send = 20;
	WAIT_FOR(&r, r.client.received == 20);
	peer_reset(&r.server);
	WAIT_FOR(&r, r.client.eof || r.client.error);
	assert_true(peer_was_reset(&r.client));
	assert_string_equal(rig_log(&r).state, "SD");
	rig_done(&r);
}

static void reset_after_the_end_of_the_answer_is_still_told(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	r.server.to_send = 20;
	r.server.fin = true;
	WAIT_FOR(&r, r.client.eof);
	r.server.deaf = true;
	r.client.to_send = 64 * BULK;
	WAIT_FOR(&r, only(&r)->held[TO_SERVER]);
	peer_reset(&r.server);
	assert_string_equal(rig_log(&r).state, "SL");
	WAIT_FOR(&r, r.client.error); /* its bytes did not arrive */
	assert_true(r.client.sent < r.client.to_send);
	rig_done(&r);
}

static void both_resets_at_once_end_the_session_once(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_meet(&r, 0);
	peer_reset(&r.client);
	peer_reset(&r.server);
	rig_log(&r);
	WAIT_FOR(&r, r.ended == 1);
	assert_int_equal(r.stats.sessions, 1);
	assert_int_equal(read(r.log_fd, (char[1]){ 0 }, 1), -1);
	rig_done(&r);
}

static void client_that_leaves_while_connecting_is_logged_so(void **state)
{
	struct rig r;
	struct addr at;
	int hole, fill;

	(void)state;
	rig_init(&r, 1);
	hole = net_black_hole(&at, &fill);
	r.server_conf[0]->addr = at;
	rig_start(&r);
	rig_client(&r, &r.client);
	WAIT_FOR(&r, sessions_count(r.sessions) == 1);
	peer_reset(&r.client);
	assert_string_equal(rig_log(&r).state, "CC");
	assert_int_equal(r.be->stats.failed, 0);
	close(hole);
	close(fill);
	rig_done(&r);
}

static void start_three(struct rig *r, struct peer clients[3], struct peer servers[3])
{
	rig_init(r, 1);
	rig_start(r);
	for (int i = 0; i < 3; i++) {
		rig_client(r, &clients[i]);
		rig_accept(r, 0, &servers[i]);
		r->extra[i * 2] = &clients[i];
		r->extra[i * 2 + 1] = &servers[i];
	}
	WAIT_FOR(r, sessions_count(r->sessions) == 3);
}

static void kill_resets_every_session(void **state)
{
	struct peer clients[3], servers[3];
	struct rig r;

	(void)state;
	start_three(&r, clients, servers);
	/* One of them half closed: its client's stream is complete, the server's is not. */
	clients[2].fin = true;
	WAIT_FOR(&r, servers[2].eof);
	sessions_kill(r.sessions);
	WAIT_FOR(&r, r.ended == 3);
	for (int i = 0; i < 3; i++) {
		WAIT_FOR(&r, clients[i].error && (servers[i].error || servers[i].eof));
		assert_true(peer_was_reset(&clients[i]));
		assert_true(i == 2 || peer_was_reset(&servers[i]));
		assert_int_equal(rig_log(&r).state[0], 'K');
	}
	rig_done(&r);
}

static void lines_of_sessions_that_end_in_one_turn_leave_with_one_call(void **state)
{
	struct peer clients[3], servers[3];
	char line[512];
	struct rig r;

	(void)state;
	start_three(&r, clients, servers);
	sends = datagrams = 0;
	sessions_kill(r.sessions);
	assert_int_equal(sends, 0);
	rig_turn(&r); /* and not later than this */
	assert_int_equal(sends, 1);
	assert_int_equal(datagrams, 3);
	for (int i = 0; i < 3; i++)
		assert_true(read(r.log_fd, line, sizeof(line)) > 0);
	/* The next turn's lines are another call. */
	peer_close(&clients[0]);
	peer_close(&servers[0]);
	rig_client(&r, &clients[0]);
	rig_accept(&r, 0, &servers[0]);
	clients[0].fin = servers[0].fin = true;
	assert_string_equal(rig_log(&r).state, "--");
	assert_int_equal(sends, 2);
	assert_int_equal(datagrams, 4);
	rig_done(&r);
}

static void no_slot_resets_the_client(void **state)
{
	struct peer clients[3];
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.max_sessions = 2;
	rig_start(&r);
	for (int i = 0; i < 3; i++) {
		rig_client(&r, &clients[i]);
		r.extra[i] = &clients[i];
	}
	WAIT_FOR(&r, clients[2].error);
	assert_true(peer_was_reset(&clients[2]));
	assert_int_equal(r.started, -ENOSPC);
	assert_int_equal(sessions_count(r.sessions), 2);
	assert_int_equal(r.ended, 1);
	peer_reset(&clients[0]);
	WAIT_FOR(&r, r.ended == 2);
	/* A slot is free again. */
	rig_client(&r, &r.client);
	WAIT_FOR(&r, sessions_count(r.sessions) == 2);
	assert_int_equal(r.started, 0);
	sessions_kill(r.sessions);
	rig_done(&r);
}

static void bytes_of_sessions_do_not_mix(void **state)
{
	enum { N = 6 };
	struct peer clients[N], servers[N];
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
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
	WAIT_FOR(&r, r.ended == N);
	for (int i = 0; i < N; i++) {
		WAIT_FOR(&r, clients[i].eof && servers[i].eof);
		assert_int_equal(clients[i].received, 300000 + i);
		assert_int_equal(servers[i].received, 300000 + i);
	}
	assert_int_equal(r.fe->stats.max, N);
	rig_done(&r);
}

static void sessions_in_a_row_use_the_same_slot(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.max_sessions = 1;
	rig_start(&r);
	for (uint32_t i = 0; i < 50; i++) {
		rig_meet(&r, 0);
		assert_int_equal(rig_view(&r).record->serial, i + 1);
		r.client.to_send = r.server.to_send = 100 + i;
		r.client.fin = r.server.fin = true;
		WAIT_FOR(&r, r.ended == i + 1);
		WAIT_FOR(&r, r.client.eof && r.server.eof);
		peer_close(&r.client);
		peer_close(&r.server);
		rig_log(&r);
	}
	rig_done(&r);
}

static void null_sessions_are_not_logged_if_nobody_wants_them(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->dontlognull = true;
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.fin = r.server.fin = true;
	WAIT_FOR(&r, r.ended == 1);
	WAIT_FOR(&r, r.client.eof);
	peer_close(&r.client);
	peer_close(&r.server);
	rig_meet(&r, 0);
	r.client.to_send = 1;
	r.client.fin = r.server.fin = true;
	WAIT_FOR(&r, r.ended == 2);
	assert_string_equal(rig_log(&r).state, "--");
	assert_int_equal(read(r.log_fd, (char[1]){ 0 }, 1), -1);
	rig_done(&r);
}

static void switched_off_splicing_is_counted_as_such(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->splice_request = r.proxy->splice_response = SPLICE_OFF;
	rig_start(&r);
	rig_meet(&r, 0);
	assert_int_equal(r.stats.fallback[FALLBACK_OFF], 1);
	assert_int_equal(rig_view(&r).record->fallback, FALLBACK_OFF);
	sessions_kill(r.sessions);
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echo_arrives),
		cmocka_unit_test(bulk_goes_both_ways_at_once),
		cmocka_unit_test(only_transfers_are_spliced),
		cmocka_unit_test(nothing_is_spliced_where_it_is_forbidden),
		cmocka_unit_test(nothing_is_spliced_after_a_join_was_refused),
		cmocka_unit_test(what_came_before_a_reset_is_delivered_past_a_full_pipe),
		cmocka_unit_test(slow_reader_holds_only_what_was_read),
		cmocka_unit_test(lack_of_memory_is_waited_for_without_spinning),
		cmocka_unit_test(client_may_end_first),
		cmocka_unit_test(server_may_end_first),
		cmocka_unit_test(half_closed_session_does_not_spin),
		cmocka_unit_test(fin_right_behind_the_data_is_not_lost),
		cmocka_unit_test(client_that_said_all_before_the_connect_is_served),
		cmocka_unit_test(server_may_speak_first),
		cmocka_unit_test(server_may_speak_and_leave_at_once),
		cmocka_unit_test(reset_of_the_client_becomes_a_reset_of_the_server),
		cmocka_unit_test(reset_of_the_server_becomes_a_reset_of_the_client),
		cmocka_unit_test(what_was_sent_before_a_reset_arrives),
		cmocka_unit_test(reset_with_a_full_queue_is_not_a_clean_end),
		cmocka_unit_test(what_was_read_before_a_reset_arrives),
		cmocka_unit_test(reset_that_a_write_finds_first_is_the_other_ends),
		cmocka_unit_test(reset_while_this_end_has_bytes_to_get_throws_them_away),
		cmocka_unit_test(reset_after_a_half_close_is_not_a_clean_end),
		cmocka_unit_test(reset_after_the_end_of_the_answer_is_still_told),
		cmocka_unit_test(both_resets_at_once_end_the_session_once),
		cmocka_unit_test(client_that_leaves_while_connecting_is_logged_so),
		cmocka_unit_test(kill_resets_every_session),
		cmocka_unit_test(lines_of_sessions_that_end_in_one_turn_leave_with_one_call),
		cmocka_unit_test(no_slot_resets_the_client),
		cmocka_unit_test(bytes_of_sessions_do_not_mix),
		cmocka_unit_test(sessions_in_a_row_use_the_same_slot),
		cmocka_unit_test(null_sessions_are_not_logged_if_nobody_wants_them),
		cmocka_unit_test(switched_off_splicing_is_counted_as_such),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
