/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_mover.c - who moves a direction, and how that changes: the limit, want_kernel, the events,
 * and the ring when it is full. The real program in the running kernel, over loopback. Needs root.
 *
 * Links splice and sock, and bpf_help, whose rig is the userspace of the contract.
 */
#include "bpf_help.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sock.h"

#define KB 1024ull
#define MB (1024 * KB)
#define SEGMENT_MAX 65536u /* of loopback */

/* What is repeated many times ends early on an emulated machine: after this time, with a tenth. */
#define EFFORT_MS 8000

/* ---- the limit ---- */

static void a_fast_sender_is_stopped_by_a_receiver_that_does_not_read(void **state)
{
	const uint64_t limit = 256 * KB;
	struct rig *rig = *state;
	uint64_t before;
	struct flow *f;

	rig_open(rig, &(struct rig_options){.limit = limit, .back.rcvbuf[1] = 32768});
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

/* Offers the next piece of direction 0, as far as it goes. Returns where the stream is then. */
static uint64_t offer_piece(struct rig *rig, uint64_t sent, uint32_t size)
{
	static char buf[65536];
	ssize_t len;

	stream_fill(buf, 0, sent, size);
	len = send(rig->client, buf, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	assert_true(len > 0 || errno == EAGAIN);
	rig_step(rig);
	return sent + (uint64_t)MAX(len, 0);
}

/* The server reads direction 0 up to there, while userspace moves what was passed. */
static void drain(struct rig *rig, uint64_t received, uint64_t sent)
{
	static char buf[65536];
	ssize_t len;

	while (received < sent) {
		wait_for((len = recv(rig->server, buf, sizeof(buf), MSG_DONTWAIT)) >= 0, rig_step(rig), rig_say(rig));
		assert_true(stream_is(buf, 0, received, (size_t)len));
		assert_int_not_equal(len, 0);
		received += (uint64_t)len;
	}
}

/*
 * Nobody reads what direction 0 carries. Direction 1 is not read either, so it is passed; that must close its sender's window.
 * Then all is read, and arrives.
 */
static void expect_passing_to_stop_the_server(struct rig *rig, uint64_t sent)
{
	uint64_t before = 0, now;

	rig->no_pump[1] = true;
	traffic_send(&rig->senders[1], rig->server, 1, ENDLESS, 65536);
	for (int quiet = 0; quiet < 250; quiet++, before = now) {
		rig_turn(rig);
		now = traffic_done(&rig->senders[1]);
		assert_true(now < 64 * MB);
		if (now != before)
			quiet = 0;
	}
	assert_int_equal(flow_get(rig_flow(rig, 1), mode), FLOW_USER);
	assert_int_equal(traffic_join(&rig->senders[1], true), 0);
	traffic_receive(&rig->receivers[1], rig->client, 1, traffic_done(&rig->senders[1]), 65536);
	rig->no_pump[0] = rig->no_pump[1] = false;
	drain(rig, 0, sent);
	rig_until(rig, traffic_done(&rig->receivers[1]) == traffic_done(&rig->senders[1]));
	rig_assert_accounts(rig);
}

/*
 * What a socket cannot take of a redirected segment stands before what is passed of the other direction, which then is charged
 * to nobody (docs/decisions/008). A segment larger than the limit is redirected when nothing else waits. It leaves in pieces, of
 * which only the first finds a window; the send queue must take the others too.
 */
static void a_segment_above_the_limit_does_not_stand_before_what_is_passed(void **state)
{
	const uint32_t first = 16 * KB, large = 60 * KB;
	struct rig *rig = *state;
	uint64_t sent;

	rig_open(rig, &(struct rig_options){ .limit = 4 * KB, .front.rcvbuf = { 32768, MB }, .back.rcvbuf[1] = 32768 });
	assert_ok(rig_join(rig, true, true));
	sent = offer_piece(rig, 0, first);
	wait_until(rig_backlog(rig, 0) == 0);
	sent = offer_piece(rig, sent, large);
	assert_int_equal(sent, first + large);
	wait_until(flow_get(rig_flow(rig, 0), redirected) == sent);
	expect_passing_to_stop_the_server(rig, sent);
}

/* The same where the limit is far, but the send queue full: of bytes that were sent, or of small segments. */
static void a_full_send_queue_does_not_stand_before_what_is_passed(void **state)
{
	struct rig *rig = *state;
	uint64_t sent = 0;

	rig_open(rig, &(struct rig_options){ .limit = 8 * MB, .front.rcvbuf[0] = 32768, .back.rcvbuf[1] = 32768 });
	set_int(rig->ends[1], SOL_SOCKET, SO_SNDBUF, 256 * KB);
	assert_ok(rig_join(rig, true, true));
	rig->no_pump[0] = true;
	for (int quiet = 0; quiet < 250; quiet++) {
		uint64_t before = sent;

		sent = offer_piece(rig, sent, 10000);
		assert_true(sent < 64 * MB);
		if (sent != before)
			quiet = 0;
	}
	assert_int_equal(flow_get(rig_flow(rig, 0), mode), FLOW_USER);
	expect_passing_to_stop_the_server(rig, sent);
}

/*
 * One transfer, at least that many changes, step by step: the client sends until the limit is
 * reached, since nobody reads; then the server reads, and userspace moves, until all has arrived.
 */
static void change_movers(struct rig *rig, uint64_t limit, uint32_t pauses, uint32_t chunk)
{
	const uint64_t tired = now_ns() + EFFORT_MS * NS_PER_MS;
	const struct pair_options small = {.rcvbuf = {0, 16384}, .mss = 2000};
	uint64_t sent = 0, received = 0;
	struct flow *f;

	rig_open(rig, &(struct rig_options){.limit = limit, .back = small});
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	for (uint32_t n = 0; n < pauses && (now_ns() < tired || n < pauses / 10); n++) {
		rig->no_pump[0] = true;
		while (rig->events[0][FLOW_REASON_LIMIT] == n) {
			sent = offer_piece(rig, sent, chunk);
			assert_true(sent - received < 64 * MB);
		}
		assert_int_equal(flow_get(f, mode), FLOW_USER);
		assert_true(rig_backlog(rig, 0) <= MAX(limit, SEGMENT_MAX));
		rig->no_pump[0] = false;
		drain(rig, received, sent);
		received = sent;
	}
	rig_turn(rig);
	assert_int_equal(f->redirected + f->passed, sent);
	assert_int_equal(rig->events[0][FLOW_REASON_LIMIT], f->pauses);
	assert_int_equal(rig->events[0][FLOW_REASON_RESUMED], f->resumes);
	assert_int_equal(exits(rig, FLOW_EXIT_EVENT_LOST), 0);
	assert_true(f->pauses >= pauses / 10);
	assert_in_range(f->pauses - f->resumes, 0, 1);
	rig_assert_accounts(rig);
}

/* A session that joins in mid-stream may have a limit's worth in the peer's queue already. */
static void what_waits_before_the_join_counts_against_the_limit(void **state)
{
	const struct pair_options small = {.rcvbuf = {0, 16384}, .mss = 2000};
	const uint64_t limit = 256 * KB;
	static char buf[8192];
	struct rig *rig = *state;
	uint64_t sent = 0;
	struct flow *f;

	rig_open(rig, &(struct rig_options){.limit = limit, .back = small});
	while (sent < limit - 32 * KB) {
		stream_fill(buf, 0, sent, 8192);
		assert_int_equal(send(rig->ends[1], buf, 8192, MSG_DONTWAIT | MSG_NOSIGNAL), 8192);
		sent += 8192;
	}
	rig->before[0] = sent;
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	rig->no_pump[0] = true;
	while (!rig->events[0][FLOW_REASON_LIMIT]) {
		sent = offer_piece(rig, sent, 4096);
		assert_true(f->redirected < limit);
	}
	assert_true(rig_backlog(rig, 0) <= limit);
	rig->no_pump[0] = false;
	drain(rig, 0, sent);
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
	const uint64_t tired = now_ns() + EFFORT_MS * NS_PER_MS;
	struct rig *rig = *state;

	rig_open(rig, &(struct rig_options){.limit = 16 * KB});
	assert_ok(rig_join(rig, true, true));
	for (int i = 0; i < 2; i++) {
		send_in_bursts(rig, i, 6);
		rig_traffic(rig, i, ENDLESS, 10000);
	}
	for (uint32_t least = 300; least;) {
		rig_turn(rig);
		if (flow_get(rig_flow(rig, 0), pauses) >= least &&
		    flow_get(rig_flow(rig, 1), pauses) >= least)
			break;
		if (now_ns() > tired)
			least = least > 10 ? 10 : 0;
	}
	assert_true(flow_get(rig_flow(rig, 0), pauses) > 0);
	assert_true(flow_get(rig_flow(rig, 1), pauses) > 0);
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
 * Userspace sleeps unless an event wakes it, and looks at the flow at that very moment. What it
 * sees must be the new state, or it would sleep on, for ever.
 */
static void an_event_is_never_seen_before_the_change_that_it_tells(void **state)
{
	static char buf[65536];
	struct rig *rig = *state;
	struct watcher w = {.rig = rig};
	uint64_t deadline = now_ns() + PATIENCE_MS * NS_PER_MS;
	const uint64_t tired = now_ns() + EFFORT_MS * NS_PER_MS;
	struct flow *f;

	rig_open(rig, &(struct rig_options){.limit = 4 * KB});
	assert_ok(rig_join(rig, true, true));
	f = rig_flow(rig, 0);
	send_in_bursts(rig, 0, 8);
	rig_traffic(rig, 0, ENDLESS, 3000);
	while (w.pauses < 2000 && (now_ns() < tired || w.pauses < 20)) {
		uint64_t passed, written;

		while (!w.told && now_ns() < (w.pauses < 20 ? deadline : tired))
			splice_dispatch(rig->sp, 0, on_watched, &w); /* spins */
		if (w.wrong)
			fail_msg("pause %u: %s", w.pauses, w.wrong);
		if (!w.told && w.pauses >= 20)
			break;
		if (!w.told) {
			rig_say(rig);
			fail_msg("no event after %u pauses", w.pauses);
		}
		w.told = false;
		/*
		 * Move all that is passed until the direction is back: after the k-th resume,
		 * whatever is passed belongs to the next pause, of which an event will tell. While
		 * something is passed and not moved there can be no resume, so this order decides
		 * it.
		 */
		for (;;) {
			ssize_t n, at;

			if (now_ns() > deadline) {
				rig_say(rig);
				fail_msg("stuck after %u pauses", w.pauses);
			}
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
	rig_turn(rig);
	/* Who gave up early, since the limit was not reached any more, has missed nothing. */
	assert_int_equal(f->pauses, w.pauses + rig->events[0][FLOW_REASON_LIMIT]);
	assert_int_equal(f->resumes, w.resumes + rig->events[0][FLOW_REASON_RESUMED]);
	rig_assert_accounts(rig);
}

/* ---- want_kernel ---- */

static void a_direction_is_withdrawn_and_given_back_under_load(void **state)
{
	/*
	 * Small windows towards us: while userspace moves, the receivers are faster than the
	 * senders. Such a window must be many segments, or the sender waits for a larger one (200
	 * ms).
	 */
	const struct rig_options o = {.limit = 4 * MB,
				      .front = {.rcvbuf[1] = 256 * KB, .mss = 4096},
				      .back = {.rcvbuf[0] = 256 * KB, .mss = 4096}};
	struct rig *rig = *state;

	rig_open(rig, &o);
	assert_ok(rig_join(rig, true, true));
	for (int i = 0; i < 2; i++) {
		struct flow *f = rig_flow(rig, i);
		const uint64_t tired = now_ns() + EFFORT_MS * NS_PER_MS;
		uint64_t moved, redirected;

		rig_traffic(rig, i, ENDLESS, 65536);
		for (int round = 0; round < 100 && (now_ns() < tired || round < 10); round++) {
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
		assert_true(rig->events[i][FLOW_REASON_WITHDRAWN] > 0);
	}
	rig_assert_accounts(rig);
}

static void the_kernel_moves_only_the_direction_that_it_may(void **state)
{
	struct rig *rig = *state;

	rig_load(rig, &(struct rig_options){0});
	for (int kernels = 0; kernels < 2; kernels++) {
		struct flow *mine, *users;

		rig_connect(rig, &(struct rig_options){.limit = 8 * MB});
		assert_ok(rig_join(rig, kernels == 0, kernels == 1));
		mine = rig_flow(rig, kernels);
		users = rig_flow(rig, !kernels);
		assert_int_equal(mine->mode, FLOW_KERNEL);
		assert_int_equal(users->mode, FLOW_USER);
		for (int i = 0; i < 2; i++)
			rig_traffic(rig, i, 4 * MB, 30000);
		for (int i = 0; i < 2; i++)
			rig_finish_traffic(rig, i);
		/* It leaves the kernel for a moment only if its window closes with nobody to open it (docs/decisions/006). */
		assert_int_equal(mine->redirected + mine->passed, 4 * MB);
		if (!exits(rig, FLOW_COUNT_WINDOW))
			assert_int_equal(mine->redirected, 4 * MB);
		assert_in_range(mine->redirected, 1, 4 * MB);
		assert_int_equal(users->passed, 4 * MB);
		assert_int_equal(users->redirected, 0);
		assert_int_equal(users->pauses + users->resumes, 0);
		rig_assert_accounts(rig);
		rig_leave(rig, true);
		rig_hang_up(rig);
	}
}

/* ---- the ring ---- */

/* A joined rig; up says whether the kernel may move its first direction, whose flow is returned. */
static struct flow *open_joined(struct rig *rig, bool up)
{
	rig_open(rig, &(struct rig_options){0});
	assert_ok(rig_join(rig, up, true));
	return rig_flow(rig, 0);
}

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

/* A segment that was promised room comes into a buffer that has none any more. All of it is carried to the server then. */
static void crowd(struct rig *rig)
{
	static char bytes[20000];
	int small = 4096, large = 1 << 20, unread = 0;

	send_all(rig->client, bytes, sizeof(bytes));
	wait_until(ioctl(rig->ends[0], SIOCINQ, &unread) == 0 && unread == (int)sizeof(bytes));
	assert_ok(setsockopt(rig->ends[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
	send_byte(rig, 'c');
	wait_until(ioctl(rig->ends[0], SIOCINQ, &unread) == 0 && unread == (int)sizeof(bytes) + 1);
	assert_ok(setsockopt(rig->ends[0], SOL_SOCKET, SO_RCVBUF, &large, sizeof(large))); /* which reading tells */
	for (size_t i = 0; i <= sizeof(bytes); i++)
		carry_byte(rig);
	recv_all(rig->server, bytes, sizeof(bytes));
	expect_byte(rig, 'c');
}

static void a_buffer_without_room_is_told_once(void **state)
{
	uint64_t reasons[FLOW_REASON_MAX] = {0};
	struct rig *rig = *state;
	struct flow *f;

	f = open_joined(rig, false);
	send_byte(rig, 'a');
	carry_byte(rig);
	expect_byte(rig, 'a');
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_CROWDED], 0);
	for (int i = 0; i < 3; i++) {
		crowd(rig);
		splice_dispatch(rig->sp, 0, count_event, reasons);
		assert_int_equal(reasons[FLOW_REASON_CROWDED], 1);
	}
	flow_set(f, relieved, flow_get(f, crowded));
	crowd(rig);
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_CROWDED], 2);
	rig_assert_accounts(rig);
}

static bool is_acknowledged(int fd)
{
	int queued = 0;

	assert_ok(ioctl(fd, SIOCOUTQ, &queued));
	return !queued;
}

/* As if so much were on its way up, charged to nobody. */
static void more_than_anybody_would_hold_is_told_and_dropped(void **state)
{
	uint64_t reasons[FLOW_REASON_MAX] = {0};
	struct rig *rig = *state;
	struct flow *f;

	f = open_joined(rig, false);
	send_byte(rig, 'a');
	wait_until(flow_get(f, passed) == 1);
	flow_set(f, moved, 1 - (uint64_t)SHUNT_PASSED_MAX);
	send_byte(rig, 'b');
	wait_until(flow_get(f, passed) == 2);
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_OVERFLOW], 0);
	flow_set(f, moved, 2 - (uint64_t)SHUNT_PASSED_MAX - MB);
	for (int i = 0; i < 3; i++)
		send_byte(rig, 'c');
	wait_until(exits(rig, FLOW_EXIT_BROKEN) > 0);
	/* Also when there is room again. */
	flow_set(f, moved, 2);
	flow_set(f, want_kernel, 1);
	send_byte(rig, 'd');
	wait_until(is_acknowledged(rig->client));
	assert_int_equal(flow_get(f, passed), 2);
	assert_int_equal(flow_get(f, redirected), 0);
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_OVERFLOW], 1);
	assert_int_equal(f->reason, FLOW_REASON_OVERFLOW);
}

static void with_a_full_ring_a_direction_does_not_change_its_mover(void **state)
{
	const uint32_t records = SHUNT_EVENTS_SIZE / SHUNT_EVENT_RECORD;
	uint64_t reasons[FLOW_REASON_MAX] = {0};
	struct rig *rig = *state;
	uint32_t events = 0;
	struct flow *f;
	bool was_user;

	f = open_joined(rig, true);

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
		splice_dispatch(rig->sp, 0, count_event, reasons);
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
		splice_dispatch(rig->sp, 0, count_event, reasons);
		send_byte(rig, 's');
		assert_int_equal(flow_get(f, mode), FLOW_USER);
		carry_byte(rig);
		expect_byte(rig, 's');
	}
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_WITHDRAWN], f->pauses);
	assert_int_equal(reasons[FLOW_REASON_RESUMED], f->resumes);
	rig_assert_accounts(rig);
}

static void ring_has_room_for_the_changes_of_every_direction(void **state)
{
	struct rig *rig = *state;
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	rig_load(rig, &(struct rig_options){ .max_sessions = 10000 });
	assert_ok(bpf_obj_get_info_by_fd(map_fd("event_ring"), &info, &len));
	assert_in_range(info.max_entries, 10000 * 8 * SHUNT_EVENT_RECORD, 2 * 1024 * 1024);
}

/* A daemon that is stopped, and traffic that goes on: nothing may take the room of the event that bounds a direction. */
static void samples_leave_the_ring_of_a_stopped_daemon_to_changes(void **state)
{
	uint64_t reasons[FLOW_REASON_MAX] = {0};
	struct rig *rig = *state;
	struct flow *f;

	f = open_joined(rig, true);
	flow_set(f, sample, 1);
	for (int i = 0; i < 100; i++) {
		send_byte(rig, 's');
		expect_byte(rig, 's');
	}
	flow_set(f, want_kernel, 0);
	send_byte(rig, 'p');
	assert_int_equal(flow_get(f, mode), FLOW_USER);
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_SAMPLE], SHUNT_EVENTS_ASLEEP / SHUNT_EVENT_RECORD + 1);
	assert_int_equal(reasons[FLOW_REASON_WITHDRAWN], 1);
	flow_set(f, want_kernel, 1);
	carry_byte(rig);
	expect_byte(rig, 'p');
	for (int i = 0; i < 3; i++) {
		send_byte(rig, 's');
		expect_byte(rig, 's');
	}
	splice_dispatch(rig->sp, 0, count_event, reasons);
	assert_int_equal(reasons[FLOW_REASON_SAMPLE], SHUNT_EVENTS_ASLEEP / SHUNT_EVENT_RECORD + 4);
	rig_assert_accounts(rig);
}

/* Both refusals must be shown, whichever of the two the size of the ring brings about first. */
static void with_a_full_ring_a_paused_direction_is_passed_until_there_is_room(void **state)
{
	uint64_t reasons[FLOW_REASON_MAX] = {0};
	struct rig *rig = *state;
	struct flow *f, *fill;

	f = open_joined(rig, true);
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
		if (fill->resumes + fill->pauses + 1 == SHUNT_EVENTS_SIZE / SHUNT_EVENT_RECORD &&
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
	splice_dispatch(rig->sp, 0, count_event, reasons);
	send_byte(rig, 'c');
	assert_int_equal(flow_get(f, mode), FLOW_KERNEL);
	expect_byte(rig, 'c');
	rig_assert_accounts(rig);
}

#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		rig_test(a_fast_sender_is_stopped_by_a_receiver_that_does_not_read),
		rig_test(a_segment_above_the_limit_does_not_stand_before_what_is_passed),
		rig_test(a_full_send_queue_does_not_stand_before_what_is_passed),
		rig_test(what_waits_before_the_join_counts_against_the_limit),
		rig_test(a_transfer_with_a_limit_of_4k_changes_its_mover_a_thousand_times),
		rig_test(a_transfer_with_a_limit_of_64k_changes_its_mover_a_thousand_times),
		rig_test(both_directions_change_their_movers_at_once),
		rig_test(an_event_is_never_seen_before_the_change_that_it_tells),
		rig_test(a_direction_is_withdrawn_and_given_back_under_load),
		rig_test(the_kernel_moves_only_the_direction_that_it_may),
		rig_test(ring_has_room_for_the_changes_of_every_direction),
		rig_test(samples_leave_the_ring_of_a_stopped_daemon_to_changes),
		rig_test(a_buffer_without_room_is_told_once),
		rig_test(more_than_anybody_would_hold_is_told_and_dropped),
		rig_test(with_a_full_ring_a_direction_does_not_change_its_mover),
		rig_test(with_a_full_ring_a_paused_direction_is_passed_until_there_is_room),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* a pattern: "*limit*" */
	return cmocka_run_group_tests(tests, need_root, NULL);
}
