/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_flow.c - the flow contract (shunt_abi.h, splice.h) kept by the real program in the running
 * kernel, over loopback, with raw sockets: no session, no loop. Needs root.
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
#include <sys/stat.h>

#include "qualify.h"
#include "sock.h"

#define KB 1024ull
#define MB (1024 * KB)
#define SEGMENT_MAX 65536u /* of loopback */

/* ---- the join ---- */

static void early_bytes_are_delivered_by_the_kick(void **state)
{
	struct rig *rig = *state;
	char up[1000], down[3000], got[3000];

	rig_open(rig, &(struct rig_options){ 0 });
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
	const uint32_t index[2] = { 0, 1 };
	struct rig *rig = *state;
	char early[2000], late[3000], got[5000];
	struct flow *f;

	rig_open(rig, &(struct rig_options){ 0 });
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
		assert_ok(getsockopt(rig->ends[i], SOL_SOCKET, SO_COOKIE, &rig->joins[i].cookie, &len));
		assert_ok(bpf_map_update_elem(map_fd("slots"), &rig->joins[i].cookie, &index[i], 0));
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
	const struct rig_options o = { .limit = 64 * KB };
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
	int app[2] = { rig->client, rig->server };
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

	rig_open(rig, &(struct rig_options){ 0 });
	refuse_and_go_on(rig, 0);
	rig_leave(rig, false);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

static void join_is_refused_after_the_servers_fin_and_relaying_goes_on(void **state)
{
	struct rig *rig = *state;

	rig_open(rig, &(struct rig_options){ 0 });
	refuse_and_go_on(rig, 1);
	rig_leave(rig, false);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

/*
 * The client's end is in the map alone, and what it sends is passed. A transfer of many buffers with
 * the FIN right behind it: recv() must not say 0 before the last byte.
 */
static void a_transfer_is_read_to_its_end_after_a_refused_join(void **state)
{
	const uint64_t total = MB;
	static char buf[65536];
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){ 0 });
	rig->senders[0].shuts = true;
	for (uint32_t round = 0; round < 30; round++) {
		const struct rig_options o = { .front.rcvbuf[1] = round % 2 ? 8192 : 0 };
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
	const struct splice_options options = { .max_sessions = 1, .pin_path = "" };
	struct rig *rig = *state;
	struct splice_end ends[2];
	struct splice *other;
	char why[300], c = 0;

	rig_open(rig, &(struct rig_options){ 0 });
	assert_ok(splice_new(&other, &options, why, sizeof(why)));
	assert_ok(rig_join(rig, true, true));
	memcpy(ends, rig->joins, sizeof(ends));
	assert_int_equal(splice_join(other, 0, ends, MB), -EBUSY);

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

	rig_open(rig, &(struct rig_options){ .max_sessions = 2 });
	assert_ok(rig_join(rig, true, true));
	memcpy(ends, rig->joins, sizeof(ends));
	assert_in_range(-splice_join(rig->sp, 1, ends, MB), EEXIST, EBUSY + EEXIST);
	send_all(rig->client, "x", 1);
	recv_all(rig->server, &c, 1);
	assert_int_equal(c, 'x');
	assert_int_equal(rig_flow(rig, 0)->redirected, 1);
	assert_int_equal(count_slots(), 2);
	assert_int_equal(count_sockets(), 2);
}

/* ---- the limit ---- */

static void a_fast_sender_is_stopped_by_a_receiver_that_does_not_read(void **state)
{
	const uint64_t limit = 256 * KB;
	struct rig *rig = *state;
	uint64_t before;
	struct flow *f;

	rig_open(rig, &(struct rig_options){ .limit = limit, .back.rcvbuf[1] = 32768 });
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	rig->no_pump[0] = true;
	traffic_send(&rig->senders[0], rig->client, 0, ENDLESS, 40000);
	rig_until(rig, rig->events[0][FLOW_REASON_LIMIT]);
	assert_int_equal(flow_get(f, mode), FLOW_USER);
	assert_int_equal(f->reason, FLOW_REASON_LIMIT);
	assert_true(flow_get(f, passed) > 0);
	assert_true(rig_backlog(rig, 0) <= limit);

	/* The window closes: nothing goes for a quarter of a second. */
	for (int quiet = 0; quiet < 250; quiet++) {
		before = traffic_done(&rig->senders[0]);
		rig_turn(rig);
		if (traffic_done(&rig->senders[0]) != before)
			quiet = 0;
		assert_true(before < 64 * MB);
	}
	assert_int_equal(f->pauses, 1);
	assert_int_equal(f->resumes, 0);
	assert_int_equal(rig->events[0][FLOW_REASON_LIMIT], 1);
	assert_int_equal(rig->events[0][FLOW_REASON_RESUMED], 0);
	/* The largest that it saw includes the segment that was too much. */
	assert_true(f->peak <= limit + SEGMENT_MAX);
	assert_true(rig_backlog(rig, 0) <= limit);

	/*
	 * Then it is read, and userspace moves what was passed. When that is done (the sender is
	 * faster than this receiver: it takes a rest) the next segment brings the direction home.
	 */
	before = traffic_done(&rig->senders[0]);
	assert_int_equal(traffic_join(&rig->senders[0], true), 0);
	traffic_receive(&rig->receivers[0], rig->server, 0, before, 65536);
	rig->no_pump[0] = false;
	rig_until(rig, traffic_done(&rig->receivers[0]) == before);
	assert_int_equal(traffic_join(&rig->receivers[0], false), 0);
	rig_traffic(rig, 0, 100000, 1000);
	rig_until(rig, rig->events[0][FLOW_REASON_RESUMED]);
	rig_finish_traffic(rig, 0);
	assert_true(f->resumes >= 1);
	assert_int_equal(rig->events[0][FLOW_REASON_RESUMED], f->resumes);
	assert_int_equal(rig->events[0][FLOW_REASON_LIMIT], f->pauses);
	rig_assert_accounts(rig);
}

/* A sender that waits after so many calls until the receiver has all: so userspace catches up. */
static void send_in_bursts(struct rig *rig, int direction, uint32_t calls)
{
	rig->senders[direction].burst = calls;
	rig->senders[direction].follower = &rig->receivers[direction];
}

/* One transfer, at least that many changes. */
static void change_movers(struct rig *rig, uint64_t limit, uint32_t pauses, uint32_t chunk)
{
	struct flow *f;

	rig_open(rig, &(struct rig_options){ .limit = limit });
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	send_in_bursts(rig, 0, 16);
	rig_traffic(rig, 0, ENDLESS, chunk);
	rig_until(rig, flow_get(f, pauses) >= pauses);
	rig_finish_traffic(rig, 0);
	rig_turn(rig);
	assert_int_equal(f->redirected + f->passed, rig->senders[0].done);
	assert_int_equal(rig->events[0][FLOW_REASON_LIMIT], f->pauses);
	assert_int_equal(rig->events[0][FLOW_REASON_RESUMED], f->resumes);
	assert_int_equal(exits(rig, FLOW_EXIT_EVENT_LOST), 0);
	assert_in_range(f->pauses - f->resumes, 0, 1);
	rig_assert_accounts(rig);
}

static void a_transfer_with_a_limit_of_4k_changes_its_mover_a_thousand_times(void **state)
{
	change_movers(*state, 4 * KB, 1000, 3000);
}

static void a_transfer_with_a_limit_of_64k_changes_its_mover_a_thousand_times(void **state)
{
	change_movers(*state, 64 * KB, 1000, 30000);
}

static void both_directions_change_their_movers_at_once(void **state)
{
	struct rig *rig = *state;

	rig_open(rig, &(struct rig_options){ .limit = 16 * KB });
	assert_ok(rig_join(rig, true, true));
	for (int i = 0; i < 2; i++) {
		send_in_bursts(rig, i, 6);
		rig_traffic(rig, i, ENDLESS, 10000);
	}
	rig_until(rig, flow_get(rig_flow(rig, 0), pauses) >= 300 &&
			       flow_get(rig_flow(rig, 1), pauses) >= 300);
	for (int i = 0; i < 2; i++)
		rig_finish_traffic(rig, i);
	rig_assert_accounts(rig);
}

/* A consumer that does nothing unless an event says so. */
struct watcher {
	struct rig *rig;
	uint32_t pauses, resumes; /* that events told */
	bool told;
	const char *wrong;
};

static void on_watched(void *arg, const struct flow_event *e)
{
	struct watcher *w = arg;
	struct flow *f = rig_flow(w->rig, 0);

	if (e->reason == FLOW_REASON_RESUMED) {
		if (flow_get(f, resumes) < ++w->resumes)
			w->wrong = "RESUMED before resumes was counted";
		return;
	}
	w->told = true;
	if (flow_get(f, passed) == f->moved)
		w->wrong = "LIMIT before the segment was counted as passed";
	else if (flow_get(f, mode) != FLOW_USER)
		w->wrong = "LIMIT before the mode was changed";
	else if (flow_get(f, pauses) != ++w->pauses)
		w->wrong = "LIMIT before the pause was counted";
}

/*
 * Userspace sleeps unless an event wakes it, and looks at the flow at that very moment. What it sees
 * must be the new state, or it would sleep on, for ever.
 */
static void an_event_is_never_seen_before_the_change_that_it_tells(void **state)
{
	static char buf[65536];
	struct rig *rig = *state;
	struct watcher w = { .rig = rig };
	uint64_t deadline = now_ns() + PATIENCE_MS * NS_PER_MS;
	struct flow *f;

	rig_open(rig, &(struct rig_options){ .limit = 4 * KB });
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	send_in_bursts(rig, 0, 8);
	rig_traffic(rig, 0, ENDLESS, 3000);
	while (w.pauses < 2000) {
		uint64_t passed, written;

		while (!w.told && now_ns() < deadline)
			splice_dispatch(rig->sp, on_watched, &w); /* spins */
		if (w.wrong)
			fail_msg("pause %u: %s", w.pauses, w.wrong);
		if (!w.told)
			fail_msg("no event after %u pauses", w.pauses);
		w.told = false;
		/*
		 * Move all that is passed until the direction is back: after the k-th resume, whatever
		 * is passed belongs to the next pause, of which an event will tell. While something
		 * is passed and not moved there can be no resume, so this order decides it.
		 */
		for (;;) {
			ssize_t n, at;

			if (now_ns() > deadline)
				fail_msg("stuck after %u pauses", w.pauses);
			passed = flow_get(f, passed);
			if (flow_get(f, resumes) >= w.pauses)
				break;
			if (passed == f->moved)
				continue;
			assert_ok(sock_written(rig->ends[1], &written));
			if (written < f->extra + flow_get(f, redirected) + f->moved)
				continue;
			n = recv(rig->ends[0], buf, (size_t)MIN(passed - f->moved, sizeof(buf)),
				 MSG_DONTWAIT);
			if (n < 0 && errno == EAGAIN)
				continue;
			assert_true(n > 0);
			for (at = 0; at < n;) {
				ssize_t sent = send(rig->ends[1], buf + at, (size_t)(n - at),
						    MSG_DONTWAIT | MSG_NOSIGNAL);

				assert_true(sent >= 0 || errno == EAGAIN);
				at += MAX(sent, 0);
			}
			flow_set(f, moved, f->moved + (uint64_t)n);
		}
	}
	rig_finish_traffic(rig, 0);
	rig_assert_accounts(rig);
}

/* ---- want_kernel ---- */

static void a_direction_is_withdrawn_and_given_back_under_load(void **state)
{
	const struct pair_options pair = { .rcvbuf = { 128 * 1024, 128 * 1024 } };
	struct rig *rig = *state;

	rig_open(rig, &(struct rig_options){ .limit = 4 * MB, .front = pair, .back = pair });
	assert_ok(rig_join(rig, true, true));
	for (int i = 0; i < 2; i++) {
		struct flow *f = rig_flow(rig, i);
		uint64_t moved, redirected;

		rig_traffic(rig, i, ENDLESS, 65536);
		for (int round = 0; round < 100; round++) {
			rig_until(rig, flow_get(f, mode) == FLOW_KERNEL);
			redirected = flow_get(f, redirected);
			rig_until(rig, flow_get(f, redirected) > redirected + 10000);
			flow_set(f, want_kernel, 0);
			rig_until(rig, flow_get(f, mode) == FLOW_USER);
			redirected = flow_get(f, redirected);
			moved = f->moved;
			rig_until(rig, f->moved > moved + 100000);
			assert_int_equal(flow_get(f, redirected), redirected);
			flow_set(f, want_kernel, 1);
		}
		rig_finish_traffic(rig, i);
		rig_turn(rig);
		/* Where the limit was faster, there was nothing left to withdraw. */
		printf("%lu %lu\n", rig->events[i][FLOW_REASON_WITHDRAWN], rig->events[i][FLOW_REASON_LIMIT]);
		assert_true(rig->events[i][FLOW_REASON_WITHDRAWN] >= 20);
	}
	rig_assert_accounts(rig);
}

static void the_kernel_moves_only_the_direction_that_it_may(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){ 0 });
	for (int kernels = 0; kernels < 2; kernels++) {
		struct flow *mine, *users;

		rig_connect(rig, &(struct rig_options){ .limit = 8 * MB });
		assert_ok(rig_join(rig, kernels == 0, kernels == 1));
		mine = rig_flow(rig, kernels);
		users = rig_flow(rig, !kernels);
		assert_int_equal(mine->mode, FLOW_KERNEL);
		assert_int_equal(users->mode, FLOW_USER);
		for (int i = 0; i < 2; i++)
			rig_traffic(rig, i, 4 * MB, 30000);
		for (int i = 0; i < 2; i++)
			rig_finish_traffic(rig, i);
		assert_int_equal(mine->redirected, 4 * MB);
		assert_int_equal(users->passed, 4 * MB);
		assert_int_equal(users->redirected, 0);
		assert_int_equal(users->pauses + users->resumes, 0);
		rig_assert_accounts(rig);
		rig_leave(rig, true);
		rig_hang_up(rig);
	}
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

	rig_open(rig, &(struct rig_options){ 0 });
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

	rig_load(rig, &(struct rig_options){ 0 });
	for (int first = 0; first < 2; first++) {
		int app[2], other = !first;
		uint64_t written, received;
		char c;

		rig_connect(rig, &(struct rig_options){ 0 });
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
			assert_int_equal(received, rig_flow(rig, i)->redirected + rig_flow(rig, i)->passed + 1);
			assert_ok(shutdown(rig->ends[!i], SHUT_WR));
			wait_poll(app[!i], POLLIN);
			assert_int_equal(recv(app[!i], &c, 1, 0), 0);
			assert_ok(sock_written(rig->ends[!i], &written));
			assert_int_equal(written, rig_flow(rig, i)->extra + rig_flow(rig, i)->redirected +
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

	rig_load(rig, &(struct rig_options){ 0 });
	for (int round = 0; round < 50; round++) {
		uint64_t received;
		char got[1000], sent[1000];

		rig_connect(rig, &(struct rig_options){ 0 });
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

	rig_load(rig, &(struct rig_options){ 0 });
	for (int round = 0; round < 50; round++) {
		bool small = round % 2;
		struct rig_options o = { .limit = small ? 16 * KB : 8 * MB };

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
			/* The limit holds even so; what a session does then is to reset this end too. */
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

	rig_load(rig, &(struct rig_options){ 0 });
	for (int round = 0; round < 50; round++) {
		struct rig_options o = { .limit = round % 2 ? 4 * KB : 4 * MB };

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
	splice_dispatch(rig->sp, NULL, NULL);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

/* ---- slots ---- */

static void a_segment_of_a_socket_without_a_slot_is_passed(void **state)
{
	const uint64_t cookies[2] = { 0 };
	struct rig *rig = *state;
	uint64_t before;
	char c = 0;

	rig_open(rig, &(struct rig_options){ 0 });
	assert_ok(rig_join(rig, true, true));
	exchange(rig->client, rig->server, 100);
	before = exits(rig, FLOW_EXIT_NO_SLOT);
	/* As if a segment came after the slot was given back; in life its socket is closed by then. */
	splice_leave(rig->sp, rig->session, (uint64_t[]){ rig->joins[0].cookie, 0 });
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
		g->t[i] = (struct traffic){ 0 };
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

	rig_load(rig, &(struct rig_options){ 0 });
	for (uint32_t round = 0; round < rounds; round++) {
		struct generation *g = &generations[round % 2], *old = &generations[!(round % 2)];
		const uint32_t seed = round * 2, chunk = round % 3 ? 500 : 30000;

		rig_connect(rig, &(struct rig_options){ 0 });
		g->client = take_fd(&rig->client);
		g->server = take_fd(&rig->server);
		traffic_send(&g->t[0], g->client, seed, ENDLESS, chunk);
		traffic_send(&g->t[2], g->server, seed + 1, ENDLESS, chunk);
		assert_ok(rig_join(rig, true, true));
		traffic_receive(&g->t[1], g->server, seed, ENDLESS, 65536);
		traffic_receive(&g->t[3], g->client, seed + 1, ENDLESS, 65536);
		wait_for(traffic_done(&g->t[1]) > 1000 && traffic_done(&g->t[3]) > 1000,
			 rig_turn(rig));
		generation_end(old); /* the applications of the old one went on until now */
		rig_leave(rig, round % 2);
	}
	generation_end(&generations[!(rounds % 2)]);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
}

/* ---- the ring ---- */

static void send_byte(struct rig *rig, char c)
{
	assert_int_equal(send(rig->client, &c, 1, MSG_NOSIGNAL), 1);
}

/* Takes the byte that was passed through userspace. */
static void carry_byte(struct rig *rig)
{
	struct flow *f = rig_flow(rig, 0);
	char c;

	recv_all(rig->ends[0], &c, 1);
	send_all(rig->ends[1], &c, 1);
	flow_set(f, moved, f->moved + 1);
}

static void expect_byte(struct rig *rig, char expected)
{
	char c = 0;

	recv_all(rig->server, &c, 1);
	assert_int_equal(c, expected);
}

static void count_event(void *arg, const struct flow_event *e)
{
	uint64_t *reasons = arg;

	assert_in_range(e->reason, 1, FLOW_REASON_MAX - 1);
	reasons[e->reason]++;
}

static void with_a_full_ring_a_direction_does_not_change_its_mover(void **state)
{
	const uint32_t records = SHUNT_EVENTS_SIZE / (8 + sizeof(struct flow_event));
	uint64_t reasons[FLOW_REASON_MAX] = { 0 };
	struct rig *rig = *state;
	uint32_t events = 0;
	struct flow *f;
	bool was_user;

	rig_open(rig, &(struct rig_options){ 0 });
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);

	/* Each byte changes the mover, until there is no room for its event. */
	for (;;) {
		flow_set(f, want_kernel, 0);
		send_byte(rig, 'p');
		if (flow_get(f, mode) != FLOW_USER)
			break;
		events++;
		carry_byte(rig);
		expect_byte(rig, 'p');
		flow_set(f, want_kernel, 1);
		send_byte(rig, 'r');
		if (flow_get(f, mode) != FLOW_KERNEL)
			break;
		events++;
		expect_byte(rig, 'r');
		assert_true(events <= records);
	}
	assert_int_equal(f->pauses + f->resumes, events);
	assert_in_range(events, records - 1, records);
	was_user = flow_get(f, mode) == FLOW_USER;
	if (was_user) {
		/* It could not come home: its bytes go on being passed. */
		assert_int_equal(exits(rig, FLOW_EXIT_EVENT_LOST), 0);
		carry_byte(rig);
		expect_byte(rig, 'r');
		splice_dispatch(rig->sp, count_event, reasons);
		send_byte(rig, 's');
		assert_int_equal(flow_get(f, mode), FLOW_KERNEL);
		expect_byte(rig, 's');
	} else {
		/* It could not pause: its bytes go on being redirected, and are counted. */
		expect_byte(rig, 'p');
		assert_int_equal(exits(rig, FLOW_EXIT_EVENT_LOST), 1);
		send_byte(rig, 'q');
		expect_byte(rig, 'q');
		assert_int_equal(exits(rig, FLOW_EXIT_EVENT_LOST), 2);
		splice_dispatch(rig->sp, count_event, reasons);
		send_byte(rig, 's');
		assert_int_equal(flow_get(f, mode), FLOW_USER);
		carry_byte(rig);
		expect_byte(rig, 's');
	}
	splice_dispatch(rig->sp, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_WITHDRAWN], f->pauses);
	assert_int_equal(reasons[FLOW_REASON_RESUMED], f->resumes);
	rig_assert_accounts(rig);
}

/* Both refusals must be shown, whichever of the two the size of the ring brings about first. */
static void with_a_full_ring_a_paused_direction_is_passed_until_there_is_room(void **state)
{
	uint64_t reasons[FLOW_REASON_MAX] = { 0 };
	struct rig *rig = *state;
	struct flow *f, *fill;

	rig_open(rig, &(struct rig_options){ 0 });
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	fill = rig_flow(rig, 1);
	flow_set(f, want_kernel, 0);
	send_byte(rig, 'a');
	assert_int_equal(flow_get(f, mode), FLOW_USER);
	carry_byte(rig);
	expect_byte(rig, 'a');

	/* The other direction fills the ring. */
	while (exits(rig, FLOW_EXIT_EVENT_LOST) == 0) {
		char c;

		flow_set(fill, want_kernel, flow_get(fill, mode) == FLOW_USER);
		send_all(rig->server, "f", 1);
		if (flow_get(fill, passed) != fill->moved) {
			recv_all(rig->ends[1], &c, 1);
			send_all(rig->ends[0], &c, 1);
			flow_set(fill, moved, fill->moved + 1);
		}
		recv_all(rig->client, &c, 1);
		if (fill->resumes + fill->pauses + 1 == SHUNT_EVENTS_SIZE / 24 &&
		    flow_get(fill, mode) == FLOW_USER)
			break;
	}
	flow_set(f, want_kernel, 1);
	for (int i = 0; i < 3; i++) {
		send_byte(rig, 'b');
		assert_int_equal(flow_get(f, mode), FLOW_USER);
		carry_byte(rig);
		expect_byte(rig, 'b');
	}
	splice_dispatch(rig->sp, count_event, reasons);
	send_byte(rig, 'c');
	assert_int_equal(flow_get(f, mode), FLOW_KERNEL);
	expect_byte(rig, 'c');
	rig_assert_accounts(rig);
}

/* ---- pins ---- */

static const char *const pin_names[] = { "sockets", "slots", "flows", "events", "counters" };

struct pins {
	char path[64];
	struct splice *splices[2];
};

static int pins_setup(void **state)
{
	struct pins *p = calloc(1, sizeof(*p));

	if (!p)
		return -1;
	snprintf(p->path, sizeof(p->path), "/sys/fs/bpf/shunt-test-%d-%08lx", getpid(),
		 (unsigned long)(now_ns() & 0xffffffff));
	*state = p;
	return 0;
}

static int pins_teardown(void **state)
{
	struct pins *p = *state;
	char path[128];

	splice_free(p->splices[0]);
	splice_free(p->splices[1]);
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->path, pin_names[i]);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/verdict", p->path);
	unlink(path);
	rmdir(p->path);
	free(p);
	return 0;
}

static int pins_load(struct pins *p, int which, char *why, size_t size)
{
	const struct splice_options o = { .max_sessions = 10, .pin_path = p->path };

	return splice_new(&p->splices[which], &o, why, size);
}

static int pin_open(const struct pins *p, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", p->path, name);
	return bpf_obj_get(path);
}

static struct bpf_map_info pinned_map(const struct pins *p, const char *name)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = pin_open(p, name);

	assert_ok(fd);
	assert_ok(bpf_obj_get_info_by_fd(fd, &info, &len));
	close(fd);
	return info;
}

static void pins_have_the_names_and_types_of_the_maps(void **state)
{
	static const struct {
		const char *name;
		uint32_t type, key, value, entries;
		bool btf;
	} expected[] = {
		{ "sockets", BPF_MAP_TYPE_SOCKMAP, 4, 8, 20, false },
		{ "slots", BPF_MAP_TYPE_HASH, 8, 4, 20, true },
		{ "flows", BPF_MAP_TYPE_ARRAY, 4, sizeof(struct flow), 20, true },
		{ "events", BPF_MAP_TYPE_RINGBUF, 0, 0, SHUNT_EVENTS_SIZE, false },
		{ "counters", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, FLOW_EXIT_MAX, true },
	};
	struct pins *p = *state;
	struct bpf_prog_info prog = { 0 };
	uint32_t len = sizeof(prog);
	char why[300] = "";
	struct stat st;
	int fd;

	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_ok(stat(p->path, &st));
	assert_int_equal(st.st_mode & 0777, 0700);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		struct bpf_map_info info = pinned_map(p, expected[i].name);

		assert_string_equal(info.name, expected[i].name);
		assert_int_equal(info.type, expected[i].type);
		assert_int_equal(info.key_size, expected[i].key);
		assert_int_equal(info.value_size, expected[i].value);
		assert_int_equal(info.max_entries, expected[i].entries);
		if (expected[i].btf) /* the kernel takes none for the others */
			assert_int_not_equal(info.btf_id, 0);
	}
	fd = pin_open(p, "verdict");
	assert_ok(fd);
	assert_ok(bpf_obj_get_info_by_fd(fd, &prog, &len));
	close(fd);
	assert_string_equal(prog.name, "shunt_verdict");
	assert_int_equal(prog.type, BPF_PROG_TYPE_SK_SKB);
	assert_int_not_equal(prog.btf_id, 0);
	assert_int_equal(prog.nr_map_ids, ARRAY_SIZE(expected));
}

static void pins_go_away_with_their_owner(void **state)
{
	struct pins *p = *state;
	char why[300] = "";
	struct stat st;

	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	p->splices[0] = splice_free(p->splices[0]);
	assert_int_equal(stat(p->path, &st), -1);
	assert_int_equal(errno, ENOENT);
}

static void pins_of_a_dead_daemon_are_taken_over(void **state)
{
	struct pins *p = *state;
	char why[300] = "", path[128];
	int fds[ARRAY_SIZE(pin_names)], prog;
	uint32_t ids[ARRAY_SIZE(pin_names)];

	/* What a killed daemon leaves: its pins, without the lock. */
	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		ids[i] = pinned_map(p, pin_names[i]).id;
		fds[i] = pin_open(p, pin_names[i]);
		assert_ok(fds[i]);
	}
	prog = pin_open(p, "verdict");
	assert_ok(prog);
	p->splices[0] = splice_free(p->splices[0]);
	assert_ok(mkdir(p->path, 0700));
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->path, pin_names[i]);
		assert_ok(bpf_obj_pin(fds[i], path));
		close(fds[i]);
	}
	snprintf(path, sizeof(path), "%s/verdict", p->path);
	assert_ok(bpf_obj_pin(prog, path));
	close(prog);

	if (pins_load(p, 1, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (size_t i = 0; i < ARRAY_SIZE(pin_names); i++)
		assert_int_not_equal(pinned_map(p, pin_names[i]).id, ids[i]);
}

static void pins_of_a_live_daemon_are_left_alone(void **state)
{
	struct pins *p = *state;
	char why[300] = "";
	uint32_t id;

	if (pins_load(p, 0, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	id = pinned_map(p, "slots").id;
	assert_int_equal(pins_load(p, 1, why, sizeof(why)), -EADDRINUSE);
	assert_non_null(strstr(why, p->path));
	assert_int_equal(pinned_map(p, "slots").id, id);
	assert_int_equal(pinned_map(p, "sockets").max_entries, 20);
}

static void pins_are_refused_outside_of_a_bpf_file_system(void **state)
{
	struct pins *p = *state;
	char why[300] = "";
	unsigned int fds = count_fds();

	snprintf(p->path, sizeof(p->path), "/tmp/shunt-test-%d", getpid());
	assert_int_equal(pins_load(p, 0, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, p->path));
	snprintf(p->path + strlen(p->path), 20, "/a/b");
	assert_int_equal(pins_load(p, 0, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, p->path));
	assert_int_equal(count_fds(), fds);
	*strrchr(p->path, '/') = '\0';
	*strrchr(p->path, '/') = '\0';
}

/* ---- the kernel qualifies ---- */

static void the_kernel_qualifies_at_once_and_session_0_is_unused_afterwards(void **state)
{
	static const struct flow unused;
	struct rig *rig = *state;
	unsigned int fds;
	char why[300] = "";
	uint64_t began;

	rig_load(rig, &(struct rig_options){ .max_sessions = 2 });
	fds = count_fds();
	began = now_ns();
	if (qualify(rig->sp, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_true(now_ns() - began < 2 * NS_PER_SEC); /* of an emulated machine; else 200 ms */
	assert_int_equal(count_fds(), fds);
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_memory_equal(splice_flow(rig->sp, i), &unused, sizeof(unused));

	/* And it can be used. */
	rig_connect(rig, &(struct rig_options){ 0 });
	assert_ok(rig_join(rig, true, true));
	exchange(rig->client, rig->server, 60000);
	exchange(rig->server, rig->client, 60000);
	rig_assert_accounts(rig);
}

static void ipv4_and_ipv6_are_carried_in_every_mixture(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){ 0 });
	for (enum family front = IP4; front <= IP4_MAPPED; front++) {
		for (enum family back = IP4; back <= IP4_MAPPED; back++) {
			const struct rig_options o = { .front.family = front, .back.family = back };

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
#define pins_test(name) cmocka_unit_test_setup_teardown(name, pins_setup, pins_teardown)

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
		rig_test(a_fast_sender_is_stopped_by_a_receiver_that_does_not_read),
		rig_test(a_transfer_with_a_limit_of_4k_changes_its_mover_a_thousand_times),
		rig_test(a_transfer_with_a_limit_of_64k_changes_its_mover_a_thousand_times),
		rig_test(both_directions_change_their_movers_at_once),
		rig_test(an_event_is_never_seen_before_the_change_that_it_tells),
		rig_test(a_direction_is_withdrawn_and_given_back_under_load),
		rig_test(the_kernel_moves_only_the_direction_that_it_may),
		rig_test(a_bare_fin_is_dropped_and_breaks_nothing),
		rig_test(half_closing_works_both_ways_and_the_accounts_are_exact),
		rig_test(bytes_that_come_with_the_fin_are_delivered),
		rig_test(after_a_reset_of_the_peer_further_bytes_do_no_harm),
		rig_test(bytes_for_a_peer_that_was_closed_first_do_no_harm),
		rig_test(a_segment_of_a_socket_without_a_slot_is_passed),
		rig_test(a_new_session_in_the_same_slot_gets_no_byte_of_the_old_one),
		rig_test(with_a_full_ring_a_direction_does_not_change_its_mover),
		rig_test(with_a_full_ring_a_paused_direction_is_passed_until_there_is_room),
		pins_test(pins_have_the_names_and_types_of_the_maps),
		pins_test(pins_go_away_with_their_owner),
		pins_test(pins_of_a_dead_daemon_are_taken_over),
		pins_test(pins_of_a_live_daemon_are_left_alone),
		pins_test(pins_are_refused_outside_of_a_bpf_file_system),
		rig_test(the_kernel_qualifies_at_once_and_session_0_is_unused_afterwards),
		rig_test(ipv4_and_ipv6_are_carried_in_every_mixture),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* a pattern: "*limit*" */
	return cmocka_run_group_tests(tests, need_root, NULL);
}
