/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_flow.c - the flow contract (shunt_abi.h, splice.h) kept by the real program in the running
 * kernel, over loopback, with raw sockets: join, FIN and RST, slots, qualify(). No session, no
 * loop. Who moves a direction, and when, is bpf_mover.c's. Needs root.
 *
 * Links splice, qualify and sock, and bpf_help, whose rig is the userspace of the contract.
 */
#include "bpf_help.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "qualify.h"
#include "sock.h"

#define KB 1024ull
#define MB (1024 * KB)

/* ---- the join ---- */

static void early_bytes_are_delivered_by_the_kick(void **state)
{
	struct rig *rig = *state;
	char up[1000], down[3000], got[3000];

	rig_open(rig, &(struct rig_options){0});
	stream_fill(up, 1, 0, sizeof(up));
	stream_fill(down, 2, 0, sizeof(down));
	send_all(rig->client, up, sizeof(up));
	send_all(rig->server, down, sizeof(down));
	wait_poll(rig->ends[0], POLLIN);
	wait_poll(rig->ends[1], POLLIN);
	assert_ok(rig_join(rig, true, true));

	/* No other segment comes, and nobody reads the ends. */
	recv_all(rig->server, got, sizeof(up));
	assert_memory_equal(got, up, sizeof(up));
	recv_all(rig->client, got, sizeof(down));
	assert_memory_equal(got, down, sizeof(down));
	assert_int_equal(rig_flow(rig, 0)->redirected, sizeof(up));
	assert_int_equal(rig_flow(rig, 1)->redirected, sizeof(down));
	rig_assert_accounts(rig);
}

/* The two inserts of splice_join(), one by one. */
static void bytes_between_the_two_inserts_are_passed_and_counted(void **state)
{
	const uint32_t index[2] = {0, 1};
	struct rig *rig = *state;
	char early[2000], late[3000], got[5000];
	struct flow *f;

	rig_open(rig, &(struct rig_options){0});
	f = rig_flow(rig, 0);
	stream_fill(early, 1, 0, sizeof(early));
	stream_fill(late, 1, sizeof(early), sizeof(late));
	for (int i = 0; i < 2; i++) {
		socklen_t len = sizeof(rig->joins[i].cookie);

		*rig_flow(rig, i) = (struct flow){
			.mode = FLOW_KERNEL,
			.limit = MB,
			.check_at = MB,
			.extra = !i, /* the SYN, towards the server */
			.want_kernel = 1,
		};
		assert_ok(getsockopt(rig->ends[i], SOL_SOCKET, SO_COOKIE, &rig->joins[i].cookie,
				     &len));
		assert_ok(
			bpf_map_update_elem(map_fd("slots"), &rig->joins[i].cookie, &index[i], 0));
	}
	rig->joined = true;
	send_all(rig->client, early, sizeof(early));
	wait_poll(rig->ends[0], POLLIN);
	for (int i = 0; i < 2; i++) {
		uint64_t fd = (uint64_t)rig->ends[i];

		if (i == 1) {
			/* The second segment makes the kernel show the first one, too. */
			send_all(rig->client, late, sizeof(late));
			wait_until(flow_get(f, passed) == sizeof(got));
		}
		assert_ok(bpf_map_update_elem(map_fd("sockets"), &index[i], &fd, BPF_NOEXIST));
		flow_set(rig_flow(rig, !i), ready, 1);
	}
	assert_in_range(exits(rig, FLOW_EXIT_NOT_READY), 1, 2); /* TCP may have merged them */
	assert_int_equal(flow_get(f, mode), FLOW_USER);
	assert_int_equal(f->redirected, 0);
	assert_true(is_silent(rig->server));

	/* Userspace moves them, and the next ones are the kernel's. */
	rig_until(rig, f->moved == sizeof(got));
	recv_all(rig->server, got, sizeof(got));
	assert_true(stream_is(got, 1, 0, sizeof(got)));
	send_all(rig->client, "x", 1);
	recv_all(rig->server, got, 1);
	assert_int_equal(f->redirected, 1);
	rig_turn(rig);
	assert_int_equal(rig->events[0][FLOW_REASON_RESUMED], 1);
	rig_assert_accounts(rig);
}

static void a_join_under_fire_loses_nothing(void **state)
{
	const struct rig_options o = {.limit = 64 * KB};
	struct rig *rig = *state;

	rig_load(rig, &o);
	for (int round = 0; round < 200; round++) {
		struct flow *f = rig_flow(rig, 0);

		rig_connect(rig, &o);
		rig_traffic(rig, 0, ENDLESS, 1 + (uint32_t)round % 7 * 300);
		wait_until(traffic_done(&rig->senders[0]) > 0);
		assert_ok(rig_join(rig, true, round % 2));
		if (round % 4 == 0) /* the answer has its gap too */
			rig_traffic(rig, 1, 20000, 100);
		rig_turn(rig);
		rig_finish_traffic(rig, 0);
		if (round % 4 == 0)
			rig_finish_traffic(rig, 1);
		assert_int_equal(f->redirected + f->passed, rig->senders[0].done);
		rig_assert_accounts(rig);
		rig_leave(rig, true);
		rig_hang_up(rig);
	}
	print_message("%lu segments came between the inserts\n",
		      (unsigned long)exits(rig, FLOW_EXIT_NOT_READY));
}

/* Moves what is in one end to the other, by plain recv() and send(), until the sender's FIN. */
static uint64_t relay_until_eof(int from, int to, int drain, uint32_t seed)
{
	static char buf[65536];
	uint64_t moved = 0, seen = 0;
	ssize_t n;

	for (;;) {
		wait_poll(from, POLLIN);
		n = recv(from, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			continue;
		assert_ok(n);
		if (n == 0)
			break;
		send_all(to, buf, (size_t)n);
		moved += (uint64_t)n;
		for (; seen < moved; seen += (uint64_t)n) {
			wait_poll(drain, POLLIN);
			n = recv(drain, buf, sizeof(buf), MSG_DONTWAIT);
			assert_true(n > 0);
			assert_true(stream_is(buf, seed, seen, (size_t)n));
		}
	}
	return moved;
}

/*
 * After a refused join both sockets are read and written as before: early bytes, later ones, more
 * than any buffer holds, to the end. closed says which end has sent its FIN before.
 */
static void refuse_and_go_on(struct rig *rig, int closed)
{
	const uint64_t total = 2 * MB;
	int app[2] = {rig->client, rig->server};
	char early[5000], got[5000];

	stream_fill(early, (uint32_t)closed, 0, sizeof(early));
	send_all(app[closed], early, sizeof(early));
	assert_ok(shutdown(app[closed], SHUT_WR));
	wait_poll(rig->ends[closed], POLLRDHUP);
	stream_fill(early, (uint32_t)!closed, 0, sizeof(early));
	send_all(app[!closed], early, sizeof(early));
	wait_poll(rig->ends[!closed], POLLIN);
	assert_int_equal(rig_join(rig, true, true), -EOPNOTSUPP);
	assert_int_equal(rig_flow(rig, 0)->redirected + rig_flow(rig, 1)->redirected, 0);
	assert_true(is_silent(app[closed]));
	/* The client's end stays in the map: what is early went through the program, or who counts what is unread would not see it. */
	wait_until(!closed || flow_get(rig_flow(rig, 0), passed) == sizeof(early));

	/* The open direction: what was early, then what comes. */
	wait_poll(rig->ends[!closed], POLLIN);
	recv_all(rig->ends[!closed], got, sizeof(got));
	assert_memory_equal(got, early, sizeof(got));
	send_all(rig->ends[closed], got, sizeof(got));
	recv_all(app[closed], got, sizeof(got));
	assert_memory_equal(got, early, sizeof(got));
	traffic_send(&rig->senders[!closed], app[!closed], 7, total, 30000);
	wait_until(traffic_done(&rig->senders[!closed]) > 64 * KB);
	usleep(2000); /* let what fits pile up */
	for (uint64_t moved = 0; moved < total;) {
		static char buf[65536];
		size_t part = (size_t)MIN(total - moved, 1000 + moved % sizeof(buf) / 2);

		recv_all(rig->ends[!closed], buf, part);
		assert_true(stream_is(buf, 7, moved, part));
		send_all(rig->ends[closed], buf, part);
		recv_all(app[closed], buf, part);
		assert_true(stream_is(buf, 7, moved, part));
		moved += part;
	}
	assert_int_equal(traffic_join(&rig->senders[!closed], false), 0);
	assert_ok(shutdown(app[!closed], SHUT_WR));
	assert_int_equal(relay_until_eof(rig->ends[!closed], rig->ends[closed], app[closed], 7), 0);

	/* The closed one: all that came before the FIN, and the FIN. */
	assert_int_equal(relay_until_eof(rig->ends[closed], rig->ends[!closed], app[!closed],
					 (uint32_t)closed),
			 sizeof(early));
	assert_int_equal(rig_flow(rig, 0)->redirected + rig_flow(rig, 1)->redirected, 0);
}

static void join_is_refused_after_the_clients_fin_and_relaying_goes_on(void **state)
{
	struct rig *rig = *state;

	rig_open(rig, &(struct rig_options){0});
	refuse_and_go_on(rig, 0);
	rig_leave(rig, false);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

static void join_is_refused_after_the_servers_fin_and_relaying_goes_on(void **state)
{
	struct rig *rig = *state;

	rig_open(rig, &(struct rig_options){0});
	refuse_and_go_on(rig, 1);
	rig_leave(rig, false);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

/*
 * The client's end is in the map alone, and what it sends is passed. A transfer of many buffers
 * with the FIN right behind it: recv() must not say 0 before the last byte.
 */
static void a_transfer_is_read_to_its_end_after_a_refused_join(void **state)
{
	const uint64_t total = MB;
	static char buf[65536];
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	rig->senders[0].shuts = true;
	for (uint32_t round = 0; round < 30; round++) {
		const struct rig_options o = {.front.rcvbuf[1] = round % 2 ? 8192 : 0};
		uint64_t at = 0;
		ssize_t n;

		rig_connect(rig, &o);
		assert_ok(shutdown(rig->server, SHUT_WR));
		wait_poll(rig->ends[1], POLLRDHUP);
		assert_int_equal(rig_join(rig, true, true), -EOPNOTSUPP);
		traffic_send(&rig->senders[0], rig->client, 3, total, round % 3 ? 700 : 65536);
		for (;;) {
			wait_poll(rig->ends[0], POLLIN);
			n = recv(rig->ends[0], buf, sizeof(buf), MSG_DONTWAIT);
			if (n < 0 && errno == EAGAIN)
				continue;
			assert_ok(n);
			if (n == 0)
				break;
			assert_true(stream_is(buf, 3, at, (size_t)n));
			at += (uint64_t)n;
			usleep(round % 5 * 100);
		}
		if (at != total)
			fail_msg("round %u: recv() said 0 after %lu of %lu bytes", round,
				 (unsigned long)at, (unsigned long)total);
		assert_int_equal(traffic_join(&rig->senders[0], false), 0);
		rig_leave(rig, true);
		rig_hang_up(rig);
	}
}

static void a_socket_of_another_map_is_refused_as_busy(void **state)
{
	const struct splice_options options = {.max_sessions = 1, .pin_path = ""};
	struct rig *rig = *state;
	struct splice_end ends[2];
	struct splice *other;
	char why[300], c = 0;

	rig_open(rig, &(struct rig_options){0});
	assert_ok(splice_new(&other, &options, why, sizeof(why)));
	assert_ok(rig_join(rig, true, true));
	memcpy(ends, rig->joins, sizeof(ends));
	assert_int_equal(splice_join(other, 0, 0, ends, MB), -EBUSY);

	/* It goes on where it was. */
	send_all(rig->client, "x", 1);
	recv_all(rig->server, &c, 1);
	assert_int_equal(c, 'x');
	assert_int_equal(rig_flow(rig, 0)->redirected, 1);
	rig_leave(rig, true);
	splice_free(other);
}

static void a_socket_is_not_joined_twice(void **state)
{
	struct rig *rig = *state;
	struct splice_end ends[2];
	char c = 0;

	rig_open(rig, &(struct rig_options){.max_sessions = 2});
	assert_ok(rig_join(rig, true, true));
	memcpy(ends, rig->joins, sizeof(ends));
	assert_in_range(-splice_join(rig->sp, 1, 0, ends, MB), EEXIST, EBUSY + EEXIST);
	send_all(rig->client, "x", 1);
	recv_all(rig->server, &c, 1);
	assert_int_equal(c, 'x');
	assert_int_equal(rig_flow(rig, 0)->redirected, 1);
	assert_int_equal(count_slots(), 2);
	assert_int_equal(count_sockets(), 2);
}

/* ---- FIN and RST ---- */

static void exchange(int from, int to, size_t len)
{
	static char out[65536], in[65536];

	stream_fill(out, 5, 0, len);
	send_all(from, out, len);
	recv_all(to, in, len);
	assert_memory_equal(out, in, len);
}

static void a_bare_fin_is_dropped_and_breaks_nothing(void **state)
{
	struct rig *rig = *state;
	uint64_t received;

	rig_open(rig, &(struct rig_options){0});
	assert_ok(rig_join(rig, true, true));
	exchange(rig->client, rig->server, 5000);
	assert_ok(shutdown(rig->client, SHUT_WR));
	wait_poll(rig->ends[0], POLLRDHUP);
	wait_until(exits(rig, FLOW_EXIT_FIN) == 1);
	assert_int_equal(sock_error(rig->ends[1]), 0);
	assert_true(is_silent(rig->server)); /* forwarding it is ours */
	exchange(rig->server, rig->client, 60000);
	assert_int_equal(sock_error(rig->ends[1]), 0);
	assert_ok(sock_received(rig->ends[0], &received));
	assert_int_equal(received, 5000 + 1);
	rig_assert_accounts(rig);
}

static void half_closing_works_both_ways_and_the_accounts_are_exact(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	for (int first = 0; first < 2; first++) {
		int app[2], other = !first;
		uint64_t written, received;
		char c;

		rig_connect(rig, &(struct rig_options){0});
		app[0] = rig->client;
		app[1] = rig->server;
		assert_ok(rig_join(rig, true, true));
		for (int i = 0; i < 2; i++)
			rig_traffic(rig, i, 300000 + (uint64_t)i, 20000);
		for (int i = 0; i < 2; i++)
			rig_finish_traffic(rig, i);
		rig_assert_accounts(rig);

		for (int n = 0, i = first; n < 2; n++, i = other) {
			assert_ok(shutdown(app[i], SHUT_WR));
			wait_poll(rig->ends[i], POLLRDHUP);
			assert_ok(sock_received(rig->ends[i], &received));
			assert_int_equal(received, rig_flow(rig, i)->redirected +
							   rig_flow(rig, i)->passed + 1);
			assert_ok(shutdown(rig->ends[!i], SHUT_WR));
			wait_poll(app[!i], POLLIN);
			assert_int_equal(recv(app[!i], &c, 1, 0), 0);
			assert_ok(sock_written(rig->ends[!i], &written));
			assert_int_equal(written, rig_flow(rig, i)->extra +
							  rig_flow(rig, i)->redirected +
							  rig_flow(rig, i)->moved + 1);
			if (n == 0) /* the other direction goes on */
				exchange(app[other], app[first], 60000);
		}
		rig_leave(rig, false);
		rig_hang_up(rig);
	}
}

static void bytes_that_come_with_the_fin_are_delivered(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	for (int round = 0; round < 50; round++) {
		uint64_t received;
		char got[1000], sent[1000];

		rig_connect(rig, &(struct rig_options){0});
		assert_ok(rig_join(rig, true, true));
		/* Held back by the cork until the FIN pushes it: one segment. */
		set_int(rig->client, IPPROTO_TCP, TCP_CORK, 1);
		stream_fill(sent, 9, (uint64_t)round, sizeof(sent));
		send_all(rig->client, sent, sizeof(sent));
		assert_true(is_silent(rig->server));
		assert_ok(shutdown(rig->client, SHUT_WR));
		recv_all(rig->server, got, sizeof(got));
		assert_memory_equal(got, sent, sizeof(got));
		assert_ok(sock_received(rig->ends[0], &received));
		assert_int_equal(received, sizeof(sent) + 1);
		assert_int_equal(rig_flow(rig, 0)->redirected, sizeof(sent));
		assert_int_equal(sock_error(rig->ends[1]), 0);
		exchange(rig->server, rig->client, 1000);
		rig_leave(rig, round % 2);
		rig_hang_up(rig);
	}
	assert_int_equal(exits(rig, FLOW_EXIT_FIN), 0);
}

static void after_a_reset_of_the_peer_further_bytes_do_no_harm(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	for (int round = 0; round < 50; round++) {
		bool small = round % 2;
		struct rig_options o = {.limit = small ? 16 * KB : 8 * MB};

		rig_connect(rig, &o);
		assert_ok(rig_join(rig, true, true));
		rig->no_pump[0] = true;
		exchange(rig->client, rig->server, 100);
		traffic_send(&rig->senders[0], rig->client, 0, small ? ENDLESS : 2 * MB, 30000);
		rig_until(rig, traffic_done(&rig->senders[0]) > 30000);
		sock_close_reset(rig->server);
		rig->server = -1;
		wait_poll(rig->ends[1], POLLERR);
		if (small) {
			/* The limit holds even so; what a session does then is to reset this end
			 * too. */
			rig_until(rig, flow_get(rig_flow(rig, 0), mode) == FLOW_USER);
			rig_turn(rig);
		} else {
			rig_until(rig, traffic_done(&rig->senders[0]) == 2 * MB);
		}
		rig_leave(rig, true);
		traffic_join(&rig->senders[0], true);
		if (small)
			assert_int_not_equal(rig->senders[0].error, -EBADMSG);
		rig_hang_up(rig);
	}
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

static void bytes_for_a_peer_that_was_closed_first_do_no_harm(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	for (int round = 0; round < 50; round++) {
		struct rig_options o = {.limit = round % 2 ? 4 * KB : 4 * MB};

		rig_connect(rig, &o);
		assert_ok(rig_join(rig, true, true));
		traffic_send(&rig->senders[0], rig->client, 0, ENDLESS, 3000);
		wait_until(traffic_done(&rig->senders[0]) > 30000);
		sock_close_reset(rig->ends[1]);
		rig->ends[1] = -1;
		usleep(100 * (useconds_t)(round % 10));
		rig_leave(rig, true);
		traffic_join(&rig->senders[0], true);
		rig_hang_up(rig);
	}
	splice_dispatch(rig->sp, 0, NULL, NULL);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

/* ---- slots ---- */

static void a_segment_of_a_socket_without_a_slot_is_passed(void **state)
{
	const uint64_t cookies[2] = {0};
	struct rig *rig = *state;
	uint64_t before;
	char c = 0;

	rig_open(rig, &(struct rig_options){0});
	assert_ok(rig_join(rig, true, true));
	exchange(rig->client, rig->server, 100);
	before = exits(rig, FLOW_EXIT_NO_SLOT);
	/* As if a segment came after the slot was given back; in life its socket is closed by then.
	 */
	splice_leave(rig->sp, rig->session, (uint64_t[]){rig->joins[0].cookie, 0});
	send_all(rig->client, "x", 1);
	wait_until(exits(rig, FLOW_EXIT_NO_SLOT) == before + 1);
	assert_true(is_silent(rig->server));
	recv_all(rig->ends[0], &c, 1);
	assert_int_equal(c, 'x');
	splice_leave(rig->sp, rig->session, cookies);
}

struct generation {
	struct traffic t[4]; /* up: sender, receiver; down: the same */
	int client, server;
};

static void generation_end(struct generation *g)
{
	for (int i = 0; i < 4; i++) {
		traffic_join(&g->t[i], true);
		assert_int_not_equal(g->t[i].error, -EBADMSG);
		g->t[i] = (struct traffic){0};
	}
	if (g->client > 0) {
		sock_close_reset(g->client);
		sock_close_reset(g->server);
	}
	g->client = g->server = 0;
}

static void a_new_session_in_the_same_slot_gets_no_byte_of_the_old_one(void **state)
{
	static struct generation generations[2];
	struct rig *rig = *state;
	const uint32_t rounds = 250;

	rig_load(rig, &(struct rig_options){0});
	for (uint32_t round = 0; round < rounds; round++) {
		struct generation *g = &generations[round % 2], *old = &generations[!(round % 2)];
		const uint32_t seed = round * 2, chunk = round % 3 ? 500 : 30000;

		rig_connect(rig, &(struct rig_options){0});
		g->client = take_fd(&rig->client);
		g->server = take_fd(&rig->server);
		traffic_send(&g->t[0], g->client, seed, ENDLESS, chunk);
		traffic_send(&g->t[2], g->server, seed + 1, ENDLESS, chunk);
		assert_ok(rig_join(rig, true, true));
		traffic_receive(&g->t[1], g->server, seed, ENDLESS, 65536);
		traffic_receive(&g->t[3], g->client, seed + 1, ENDLESS, 65536);
		rig_until(rig, traffic_done(&g->t[1]) > 1000 && traffic_done(&g->t[3]) > 1000);
		generation_end(old); /* the applications of the old one went on until now */
		rig_leave(rig, round % 2);
	}
	generation_end(&generations[!(rounds % 2)]);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

/* ---- the kernel qualifies ---- */

static void the_kernel_qualifies_at_once_and_session_0_is_unused_afterwards(void **state)
{
	static const struct flow unused;
	struct rig *rig = *state;
	uint64_t began, counters[FLOW_EXIT_MAX], zeros[FLOW_EXIT_MAX] = {0};
	unsigned int fds;
	enum sock_unread unread;
	char why[300] = "";

	rig_load(rig, &(struct rig_options){.max_sessions = 2});
	fds = count_fds();
	began = now_ns();
	if (qualify(rig->sp, &unread, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_int_not_equal(unread, SOCK_UNREAD_UNKNOWN); /* or a worker could not be followed by another */
	assert_true(now_ns() - began < 2 * NS_PER_SEC); /* of an emulated machine; else 200 ms */
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_memory_equal(splice_flow(rig->sp, i), &unused, sizeof(unused));
	splice_counters(rig->sp, counters);
	assert_memory_equal(counters, zeros, sizeof(zeros));

	/* And it can be used. */
	rig_connect(rig, &(struct rig_options){0});
	assert_ok(rig_join(rig, true, true));
	exchange(rig->client, rig->server, 60000);
	exchange(rig->server, rig->client, 60000);
	rig_assert_accounts(rig);
}

/* Both ways of asking, where the kernel has both, say what was passed and not taken; being shown takes nothing. */
static void assert_unread(struct rig *rig, bool told, uint64_t bytes)
{
	struct sock_progress p;
	int error = 0;

	for (enum sock_unread how = told ? SOCK_UNREAD_TOLD : SOCK_UNREAD_SHOWN; how <= SOCK_UNREAD_SHOWN; how++) {
		assert_int_equal(sock_look_at_unread(rig->ends[0], how, &error), bytes);
		assert_int_equal(sock_progress(rig->ends[0], how, &p), 0);
		assert_int_equal(p.unread, bytes);
		assert_true(!error && !p.error && !p.told);
	}
}

static void what_is_unread_can_be_told(void **state)
{
	static char data[1000 * 1000];
	static const uint32_t sizes[] = { 1, 4095, 4096, 4097, 5000, 300 * KB, sizeof(data) };
	struct rig_options o = { .max_sessions = 2, .limit = 4 * MB };
	enum sock_unread unread;
	struct rig *rig = *state;
	struct sock_progress p;
	char why[300];
	int error;

	rig_load(rig, &o);
	assert_int_equal(qualify(rig->sp, &unread, why, sizeof(why)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		rig_connect(rig, &o);
		rig->no_pump[0] = true;
		set_int(rig->ends[0], SOL_SOCKET, SO_RCVBUFFORCE, 8 * MB);
		assert_ok(rig_join(rig, false, false));
		assert_true(splice_has(rig->sp, 0, rig->joins[0].cookie));
		assert_false(splice_has(rig->sp, 1, rig->joins[0].cookie));
		assert_unread(rig, unread == SOCK_UNREAD_TOLD, 0);
		stream_fill(data, 0, 0, sizes[i]);
		send_all(rig->client, data, sizes[i]);
		wait_until(flow_get(rig_flow(rig, 0), passed) == sizes[i]);
		wait_until(sock_look_at_unread(rig->ends[0], unread, &error) == sizes[i]);
		assert_unread(rig, unread == SOCK_UNREAD_TOLD, sizes[i]);
		recv_all(rig->ends[0], data, 1);
		assert_unread(rig, unread == SOCK_UNREAD_TOLD, sizes[i] - 1);

		/* What a reset says is kept as long as there is something to show; then whoever was shown nothing has it. */
		sock_close_reset(rig->client);
		rig->client = -1;
		wait_poll(rig->ends[0], POLLERR);
		assert_int_equal(sock_progress(rig->ends[0], SOCK_UNREAD_SHOWN, &p), 0);
		assert_true(p.gone && p.error);
		assert_int_equal(p.unread, sizes[i] - 1);
		assert_int_equal(p.told, sizes[i] == 1 ? ECONNRESET : 0);
		assert_int_equal(sock_error(rig->ends[0]), sizes[i] == 1 ? 0 : ECONNRESET);
		rig_leave(rig, true);
		rig_hang_up(rig);
	}
}

/* To be shown some megabytes takes longer than the next acknowledgment of what goes the other way. */
static void what_is_unread_can_be_told_beside_traffic(void **state)
{
	static char data[10 * MB];
	struct rig_options o = { .limit = 4 * MB };
	struct rig *rig = *state;
	struct sock_progress p;
	uint64_t began;

	rig_open(rig, &o);
	rig->no_pump[0] = true;
	set_int(rig->ends[0], SOL_SOCKET, SO_RCVBUFFORCE, 32 * MB);
	assert_ok(rig_join(rig, false, true));
	send_all(rig->client, data, sizeof(data));
	wait_until(flow_get(rig_flow(rig, 0), passed) == sizeof(data));
	rig->senders[1].burst = 4; /* so the limit is never reached, and the kernel needs nobody */
	rig->senders[1].follower = &rig->receivers[1];
	rig_traffic(rig, 1, ENDLESS, 1000);
	rig_until(rig, traffic_done(&rig->receivers[1]) > MB);
	began = now_ns();
	for (int i = 0; i < 5; i++) {
		assert_int_equal(sock_progress(rig->ends[0], SOCK_UNREAD_SHOWN, &p), 0);
		assert_int_equal(p.unread, sizeof(data));
	}
	assert_true(now_ns() - began < 10 * NS_PER_SEC); /* of an emulated machine; else some ms each */
	rig_finish_traffic(rig, 1);
}

static void ipv4_and_ipv6_are_carried_in_every_mixture(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	for (enum family front = IP4; front <= IP4_MAPPED; front++) {
		for (enum family back = IP4; back <= IP4_MAPPED; back++) {
			const struct rig_options o = {.front.family = front, .back.family = back};

			rig_connect(rig, &o);
			assert_ok(rig_join(rig, true, true));
			for (int i = 0; i < 2; i++)
				rig_traffic(rig, i, MB, 50000);
			for (int i = 0; i < 2; i++)
				rig_finish_traffic(rig, i);
			assert_true(rig_flow(rig, 0)->redirected > 0);
			assert_true(rig_flow(rig, 1)->redirected > 0);
			rig_assert_accounts(rig);
			rig_leave(rig, true);
			rig_hang_up(rig);
		}
	}
}

#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		rig_test(early_bytes_are_delivered_by_the_kick),
		rig_test(bytes_between_the_two_inserts_are_passed_and_counted),
		rig_test(a_join_under_fire_loses_nothing),
		rig_test(join_is_refused_after_the_clients_fin_and_relaying_goes_on),
		rig_test(join_is_refused_after_the_servers_fin_and_relaying_goes_on),
		rig_test(a_transfer_is_read_to_its_end_after_a_refused_join),
		rig_test(a_socket_of_another_map_is_refused_as_busy),
		rig_test(a_socket_is_not_joined_twice),
		rig_test(a_bare_fin_is_dropped_and_breaks_nothing),
		rig_test(half_closing_works_both_ways_and_the_accounts_are_exact),
		rig_test(bytes_that_come_with_the_fin_are_delivered),
		rig_test(after_a_reset_of_the_peer_further_bytes_do_no_harm),
		rig_test(bytes_for_a_peer_that_was_closed_first_do_no_harm),
		rig_test(a_segment_of_a_socket_without_a_slot_is_passed),
		rig_test(a_new_session_in_the_same_slot_gets_no_byte_of_the_old_one),
		rig_test(the_kernel_qualifies_at_once_and_session_0_is_unused_afterwards),
		rig_test(what_is_unread_can_be_told),
		rig_test(what_is_unread_can_be_told_beside_traffic),
		rig_test(ipv4_and_ipv6_are_carried_in_every_mixture),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* a pattern: "*limit*" */
	return cmocka_run_group_tests(tests, need_root, NULL);
}
