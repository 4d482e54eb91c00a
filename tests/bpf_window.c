/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_window.c - the window that nobody opens. A redirecting socket has no reader; when its sender
 * was shown a closed window only because its backlog counted (docs/decisions/006), the program says
 * so. The real program in the running kernel, over loopback. Needs root.
 *
 * Links splice and sock, and bpf_help.
 */
#include "bpf_help.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sock.h"

#define KB 1024ull
#define MB (1024 * KB)
#define WINDOW (64 * KB) /* the receive buffer of the source */
#define ROUNDS 1000	 /* a busy machine may do the sender's part later, when the lock is free */

struct window_test {
	struct rig *rig;
	uint64_t sent, received;
	uint32_t unread; /* bytes that were moved, and left in the socket */
	uint64_t closed; /* windows that the program saw closing, as of the last look */
};

/* The client offers bytes until its own queue is full: so many wait behind the closed window. */
static void fill(struct window_test *t)
{
	static char buf[65536];
	ssize_t n;

	do {
		stream_fill(buf, 0, t->sent, sizeof(buf));
		n = send(t->rig->client, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL);
		assert_true(n > 0 || errno == EAGAIN);
		t->sent += (uint64_t)MAX(n, 0);
	} while (n > 0);
}

/* The server reads what is there. */
static void drain(struct window_test *t)
{
	static char buf[65536];
	ssize_t n;

	while ((n = recv(t->rig->server, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		assert_true(stream_is(buf, 0, t->received, (size_t)n));
		t->received += (uint64_t)n;
	}
	assert_true(n < 0 && errno == EAGAIN);
}

static bool is_proven(struct window_test *t)
{
	struct flow *f = rig_flow(t->rig, 0);
	uint64_t written;

	drain(t);
	assert_ok(sock_written(t->rig->ends[1], &written));
	return written == f->extra + flow_get(f, redirected) + f->moved;
}

/* Reads all but so many of the moved bytes. */
static void read_moved(struct window_test *t, uint32_t but)
{
	struct rig *rig = t->rig;
	uint32_t n = t->unread - MIN(t->unread, but);

	t->unread -= n;
	flow_set(rig_flow(rig, 0), unread, t->unread);
	recv_all(rig->ends[0], rig->scratch, n);
}

/*
 * Userspace moves what was passed, and publishes it; the last thing that it does is to read it, all but `unread` bytes, which
 * opens the window while it holds the lock. Returns false if that was not to be: more had been passed, or not all could be read.
 */
static bool come_home(struct window_test *t, uint32_t unread)
{
	struct rig *rig = t->rig;
	struct flow *f = rig_flow(rig, 0);
	size_t n;

	if (flow_get(f, passed) == f->moved)
		return flow_get(f, mode) == FLOW_KERNEL;
	read_moved(t, 0);
	wait_until(is_proven(t));
	n = (size_t)(flow_get(f, passed) - f->moved);
	if (recv(rig->ends[0], rig->scratch, n, MSG_DONTWAIT | MSG_PEEK) != (ssize_t)n)
		return false;
	send_all(rig->ends[1], rig->scratch, n);
	t->unread = (uint32_t)n;
	flow_set(f, unread, MIN(unread, t->unread));
	flow_set(f, moved, f->moved + n);
	read_moved(t, unread);
	return flow_get(f, passed) == f->moved;
}

/* Has another window been closed since the last time? */
static bool has_closed(struct window_test *t)
{
	uint64_t before = t->closed;

	rig_step(t->rig);
	t->closed = exits(t->rig, FLOW_COUNT_WINDOW);
	return t->closed > before;
}

/* A transfer in userspace: the sender has more to send than the window takes. */
static void begin(struct window_test *t, struct rig *rig)
{
	*t = (struct window_test){ .rig = rig };
	rig_open(rig, &(struct rig_options){ .front.rcvbuf[1] = WINDOW / 2, .front.mss = 4096, .limit = 8 * MB });
	rig->no_pump[0] = true;
	assert_ok(rig_join(rig, false, true));
}

static void fill_in_userspace(struct window_test *t)
{
	struct flow *f = rig_flow(t->rig, 0);

	flow_set(f, want_kernel, 0);
	fill(t);
	wait_until((drain(t), flow_get(f, mode) == FLOW_USER && flow_get(f, passed) > f->moved));
	flow_set(f, want_kernel, 1);
}

/* All arrives. */
static void finish(struct window_test *t)
{
	struct flow *f = rig_flow(t->rig, 0);

	wait_for(t->received == t->sent, (come_home(t, 0), rig_step(t->rig), drain(t)), rig_say(t->rig));
	assert_int_equal(f->moved, f->passed);
	rig_assert_accounts(t->rig);
}

static void a_window_that_nobody_opens_pauses_its_direction(void **state)
{
	struct rig *rig = *state;
	struct window_test t;
	struct flow *f;

	begin(&t, rig);
	f = rig_flow(rig, 0);
	for (int round = 0; round < ROUNDS && !t.closed; round++) {
		fill_in_userspace(&t);
		come_home(&t, 0);
		has_closed(&t);
	}
	assert_int_equal(t.closed, 1);
	assert_int_equal(rig->events[0][FLOW_REASON_WINDOW], 1);
	assert_int_equal(f->mode, FLOW_USER);
	assert_int_equal(f->reason, FLOW_REASON_WINDOW);
	assert_true(f->passed > f->moved); /* reading it opens the window */
	finish(&t);
}

/*
 * With unread bytes there is no pause; nothing moves; and one of them sets it going again, sooner than the sender would ask (200 ms).
 * A machine that stands still in between may be told something else: another round.
 */
static void an_unread_byte_opens_the_window_without_a_pause(void **state)
{
	const uint64_t soon = 100 * NS_PER_MS;
	struct rig *rig = *state;
	struct window_test t;
	bool shown = false;
	struct flow *f;

	begin(&t, rig);
	f = rig_flow(rig, 0);
	for (int round = 0; round < ROUNDS && !shown; round++) {
		uint64_t redirected, began, pauses, windows;

		fill_in_userspace(&t);
		pauses = f->pauses;
		windows = rig->events[0][FLOW_REASON_WINDOW];
		began = now_ns();
		if (!come_home(&t, 2) || !has_closed(&t))
			continue;
		redirected = flow_get(f, redirected);
		for (int i = 0; i < 20; i++)
			rig_turn(rig);
		if (flow_get(f, redirected) != redirected || t.sent == f->redirected + f->moved)
			continue;
		assert_int_equal(f->mode, FLOW_KERNEL);
		assert_int_equal(f->pauses, pauses);
		assert_true(rig->events[0][FLOW_REASON_WINDOW] > windows);
		read_moved(&t, 1);
		while (flow_get(f, redirected) == redirected && now_ns() - began < soon)
			rig_step(rig);
		shown = flow_get(f, redirected) > redirected && now_ns() - began < soon;
	}
	assert_true(shown);
	finish(&t);
}

/* Who is stopped reads nothing: what would be passed to it would stay, and with it the direction. */
static void a_direction_is_not_paused_for_a_daemon_that_takes_no_events(void **state)
{
	struct rig *rig = *state;
	struct window_test t;
	struct flow *f, *other;
	uint64_t pauses;
	bool shown = false;

	begin(&t, rig);
	f = rig_flow(rig, 0);
	other = rig_flow(rig, 1);
	other->sample = 1;
	for (int round = 0; round < ROUNDS && !shown; round++) {
		uint64_t redirected, probe = now_ns() + 100 * NS_PER_MS;

		splice_dispatch(rig->sp, 0, NULL, NULL);
		fill_in_userspace(&t);
		pauses = f->pauses;
		redirected = f->redirected;
		for (uint32_t i = 0; i <= SHUNT_EVENTS_ASLEEP / SHUNT_EVENT_RECORD; i++) {
			char c;

			send_all(rig->server, "x", 1);
			recv_all(rig->client, &c, 1);
		}
		come_home(&t, 0);
		/* All that the window takes is redirected, and then it is closed: as if the program had no eye for it. */
		while (now_ns() < probe && flow_get(f, redirected) < redirected + WINDOW / 4)
			;
		assert_int_equal(f->pauses, pauses);
		redirected = flow_get(f, redirected);
		while (now_ns() < probe && flow_get(f, redirected) == redirected)
			;
		shown = flow_get(f, redirected) == redirected && redirected + f->moved < t.sent;
	}
	assert_true(shown);
	assert_int_equal(f->reason, FLOW_REASON_RESUMED);
	assert_int_equal(exits(rig, FLOW_COUNT_WINDOW), 0);
	splice_dispatch(rig->sp, 0, NULL, NULL);
	finish(&t);
}

/*
 * Kernels before 6.6 show half of the buffer as a window unless they are told otherwise, since they do not measure what segments weigh. So
 * large ones close no window with their backlog there; here they shall. In a network of our own: the setting is the network's.
 */
static int own_network(void **state)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd, r = need_root(state);

	if (r < 0)
		return r;
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
	fd = open("/proc/sys/net/ipv4/tcp_adv_win_scale", O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "3", 1), 1);
	close(fd);
	return 0;
}

#define rig_test(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		rig_test(a_window_that_nobody_opens_pauses_its_direction),
		rig_test(an_unread_byte_opens_the_window_without_a_pause),
		rig_test(a_direction_is_not_paused_for_a_daemon_that_takes_no_events),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, own_network, NULL);
}
