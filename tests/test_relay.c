/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_relay.c - one direction moved by userspace: every byte in order, whatever the sink takes, and whose error it is. */
#include <fcntl.h>

#include "netpair.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "relay.h"
#include "sock.h"

#define SIZE 16384 /* of the scratch buffer */
#define NO_BUDGET UINT64_MAX

/* What the next recv() or send() is to fail with; 0 = nothing. */
static int recv_error, send_error;

/* The most that one send() takes; 0 = whatever there is room for. */
static size_t send_limit;

static unsigned int splices, recvs; /* calls; but those of recv() that found nothing for now */

/* The moment before a recv(), and the one after it, which has brought so many bytes. */
static void (*at_recv)(size_t got);

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	ssize_t n;

	if (recv_error) {
		errno = recv_error;
		recv_error = 0;
		return -1;
	}
	if (at_recv)
		at_recv(0);
	n = recvfrom(fd, buf, len, flags, NULL, NULL);
	recvs += n >= 0 || errno != EAGAIN;
	if (at_recv && n > 0)
		at_recv((size_t)n);
	return n;
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	if (send_error) {
		errno = send_error;
		send_error = 0;
		return -1;
	}
	return sendto(fd, buf, MIN(len, send_limit ?: len), flags, NULL, 0);
}

/* Calls of splice(2) and of a pipe's read(2) until the process "dies", which is before an odd one and after an even one; 0 = it does not. */
static unsigned int points, die_at;
static jmp_buf death;

static void point(void)
{
	if (++points == die_at)
		longjmp(death, 1);
}

static size_t read_limit; /* the next read() ends so early, as if there were no memory for more; 0 = it does not */
static void (*at_splice)(void); /* after a short one into the sink */
static int source, sink;

ssize_t splice(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned int flags)
{
	ssize_t n;

	splices++;
	point();
	n = syscall(SYS_splice, in, in_at, out, out_at, at_splice && out == sink ? MIN(len, 1000) : len, flags);
	point();
	if (at_splice && out == sink)
		at_splice();
	return n;
}

ssize_t read(int fd, void *buf, size_t len)
{
	ssize_t n;

	point();
	n = syscall(SYS_read, fd, buf, read_limit ? MIN(len, read_limit) : len);
	read_limit = 0;
	point();
	return n;
}

/* from ── source ══ relay ══ sink ── to */
static struct peer from, to;
static struct relay relay;
static union {
	struct relay_scratch s;
	char room[sizeof(struct relay_scratch) + 2 * SIZE];
} shared;
static char *const scratch = shared.s.bytes;
static uint64_t moved;
static struct relay_pipe tube;

static int setup(void **state)
{
	int fds[2];

	(void)state;
	net_pair(fds);
	source = fds[0];
	peer_init(&from, fds[1], 1, 2);
	net_pair(fds);
	sink = fds[0];
	peer_init(&to, fds[1], 2, 1);
	relay = (struct relay){ 0 };
	recv_error = send_error = 0;
	at_recv = NULL;
	at_splice = NULL;
	send_limit = 0;
	moved = 0;
	points = die_at = splices = recvs = 0;
	read_limit = 0;
	tube = (struct relay_pipe){ .in = -1, .out = -1 };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	relay_pipe_close(&tube);
	relay_done(&relay);
	close(source);
	close(sink);
	peer_close(&from);
	peer_close(&to);
	return 0;
}

static struct relay_outcome run(uint64_t budget)
{
	struct relay_outcome out = relay_run(&relay, source, sink, &shared.s, SIZE, budget);

	moved += out.moved;
	return out;
}

/* Lets `from` send so many more bytes, which must be in the source then. */
static void give(uint64_t bytes)
{
	from.to_send += bytes;
	peer_step(&from);
	assert_int_equal(from.sent, from.to_send);
}

/* The sink takes nothing any more, and the relay holds bytes. */
static void block(void)
{
	do
		give(SIZE / 2);
	while (run(NO_BUDGET).status == RELAY_IDLE);
	assert_true(relay_held(&relay) > 0);
}

static void wait_for_bytes(void)
{
	uint64_t until = now_ns() + NET_DEADLINE_MS * NS_PER_MS;

	while (to.received < moved && now_ns() < until)
		peer_step(&to);
	assert_int_equal(to.received, moved);
}

static void nothing_to_read_is_idle(void **state)
{
	struct relay_outcome out = run(NO_BUDGET);

	(void)state;
	assert_int_equal(out.status, RELAY_IDLE);
	assert_int_equal(out.moved, 0);
}

static void bytes_are_moved_in_order(void **state)
{
	(void)state;
	for (uint64_t n = 1; n < 3 * SIZE; n = n * 3 + 1) {
		give(n);
		while (run(NO_BUDGET).moved)
			;
	}
	assert_int_equal(moved, from.sent);
	wait_for_bytes();
	assert_null(relay.held);
}

static void end_of_stream_is_told_after_the_last_byte(void **state)
{
	struct relay_outcome out;

	(void)state;
	from.fin = true;
	give(100);
	do
		out = run(NO_BUDGET);
	while (out.status == RELAY_IDLE);
	assert_int_equal(out.status, RELAY_EOF);
	assert_int_equal(out.error, 0);
	assert_int_equal(moved, 100);
	wait_for_bytes();
	assert_false(to.eof); /* the session says FIN, not the relay */
}

static void what_the_sink_does_not_take_is_held_and_goes_first(void **state)
{
	struct relay_outcome out;
	uint32_t held;

	(void)state;
	block();
	assert_int_equal(moved + relay_held(&relay), from.sent);
	/* While it is blocked nothing more is read. */
	give(10);
	held = relay_held(&relay);
	out = run(NO_BUDGET);
	assert_int_equal(out.status, RELAY_BLOCKED);
	assert_true(relay_held(&relay) <= held);
	assert_int_equal(net_readable(source), 10);
	while (moved < from.sent) {
		peer_step(&to);
		run(NO_BUDGET);
	}
	assert_null(relay.held);
	wait_for_bytes();
}

static void end_of_stream_waits_for_what_is_held(void **state)
{
	struct relay_outcome out;

	(void)state;
	block();
	from.fin = true;
	peer_step(&from);
	assert_int_equal(run(NO_BUDGET).status, RELAY_BLOCKED);
	do {
		peer_step(&to);
		out = run(NO_BUDGET);
	} while (out.status == RELAY_BLOCKED || out.status == RELAY_IDLE);
	assert_int_equal(out.status, RELAY_EOF);
	assert_int_equal(moved, from.sent);
	wait_for_bytes();
}

static void memory_is_held_only_while_bytes_are(void **state)
{
	(void)state;
	block();
	assert_non_null(relay.held);
	while (relay_held(&relay)) {
		peer_step(&to);
		run(0);
	}
	assert_null(relay.held);
	block();
	relay_done(&relay);
	assert_null(relay.held);
	assert_int_equal(relay_held(&relay), 0);
	relay_done(&relay); /* idempotent */
}

static void budget_ends_a_run_that_could_go_on(void **state)
{
	struct relay_outcome out;

	(void)state;
	give(5 * SIZE);
	out = run(2 * SIZE);
	assert_int_equal(out.status, RELAY_MORE);
	assert_int_equal(out.moved, 2 * SIZE);
	assert_int_equal(out.last, SIZE); /* more may be there */
	out = run(SIZE + 1); /* what one read brings may go beyond */
	assert_int_equal(out.status, RELAY_MORE);
	assert_int_equal(out.moved, 2 * SIZE);
	assert_int_equal(net_readable(source), SIZE);
	give(1);
	out = run(NO_BUDGET);
	assert_int_equal(out.moved, SIZE + 1);
	assert_int_equal(out.last, 1);
}

static void budget_of_zero_reads_nothing(void **state)
{
	(void)state;
	give(100);
	assert_int_equal(run(0).moved, 0);
	assert_int_equal(net_readable(source), 100);
	block();
	give(100);
	while (relay_held(&relay)) {
		peer_step(&to);
		run(0);
	}
	assert_true(net_readable(source) >= 100);
}

static void reset_of_the_source_is_its_error_and_comes_after_its_bytes(void **state)
{
	struct relay_outcome out;

	(void)state;
	give(100);
	peer_reset(&from);
	out = run(NO_BUDGET);
	if (out.status == RELAY_IDLE)
		out = run(NO_BUDGET);
	assert_int_equal(out.status, RELAY_SOURCE_ERROR);
	assert_int_equal(out.error, -ECONNRESET);
	assert_int_equal(moved, 100);
	wait_for_bytes();
}

static void reset_of_the_sink_is_its_error(void **state)
{
	struct relay_outcome out;

	(void)state;
	peer_reset(&to);
	give(100);
	out = run(NO_BUDGET);
	assert_int_equal(out.status, RELAY_SINK_ERROR);
	assert_true(out.error == -ECONNRESET || out.error == -EPIPE);
	assert_int_equal(out.moved, 0);
}

static void reset_of_the_sink_is_told_for_held_bytes_too(void **state)
{
	(void)state;
	block();
	peer_reset(&to);
	assert_int_equal(run(NO_BUDGET).status, RELAY_SINK_ERROR);
}

static void interrupted_calls_are_made_again(void **state)
{
	(void)state;
	give(100);
	recv_error = EINTR;
	assert_int_equal(run(NO_BUDGET).moved, 100);
	give(100);
	send_error = EINTR;
	assert_int_equal(run(NO_BUDGET).moved, 100);
	wait_for_bytes();
}

static void kernel_without_memory_is_a_full_sink(void **state)
{
	(void)state;
	give(100);
	send_error = ENOBUFS;
	assert_int_equal(run(NO_BUDGET).status, RELAY_BLOCKED);
	assert_int_equal(relay_held(&relay), 100);
	assert_int_equal(run(NO_BUDGET).moved, 100);
	wait_for_bytes();
}

/* ---- pages ---- */

static int in_tube(void)
{
	int n;

	assert_int_equal(ioctl(tube.out, FIONREAD, &n), 0);
	return n;
}

static int setup_tube(void **state)
{
	setup(state);
	assert_int_equal(relay_pipe_open(&tube), 0);
	relay.pipe = &tube;
	return 0;
}

static void pages_change_hands_in_order(void **state)
{
	bytes_are_moved_in_order(state);
	assert_true(splices > 0);
	assert_int_equal(in_tube(), 0);
	wait_for_bytes();
}

static void what_the_sink_does_not_take_of_a_pipe_is_held(void **state)
{
	what_the_sink_does_not_take_is_held_and_goes_first(state);
	assert_int_equal(in_tube(), 0);
	assert_int_equal(recvs, 0);
}

static void end_of_stream_is_told_through_a_pipe(void **state)
{
	end_of_stream_waits_for_what_is_held(state);
	assert_int_equal(recvs, 1); /* splice() saying 0 is no proof */
}

/* splice(2) does not read past it, and says 0 as at the end of a stream. */
static void urgent_byte_is_no_end_of_stream(void **state)
{
	const int one = 1;
	uint8_t byte;

	(void)state;
	assert_int_equal(setsockopt(source, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one)), 0);
	for (int i = 0; i < 3; i++) {
		give(1000);
		byte = net_pattern(from.seed, from.sent);
		assert_int_equal(syscall(SYS_sendto, from.fd, &byte, 1, MSG_OOB, NULL, 0), 1);
		from.sent = ++from.to_send;
		give(1000);
		while (moved < from.sent)
			assert_int_equal(run(NO_BUDGET).status, RELAY_IDLE);
		wait_for_bytes();
	}
	assert_true(recvs > 0);
}

static void reset_of_the_source_comes_after_its_pages(void **state)
{
	reset_of_the_source_is_its_error_and_comes_after_its_bytes(state);
	assert_int_equal(recvs, 0); /* which would say 0, as the error was told */
}

/* Nobody else gets what was on its way. */
static void reset_of_the_sink_leaves_the_pipe_empty(void **state)
{
	struct relay_outcome out;

	(void)state;
	peer_reset(&to);
	give(SIZE);
	out = run(NO_BUDGET);
	assert_int_equal(out.status, RELAY_SINK_ERROR);
	assert_true(out.error == -ECONNRESET || out.error == -EPIPE);
	assert_true(splices >= 2);
	assert_int_equal(in_tube(), 0);
}

/* In the middle of the call: it tells of what it took before, and takes the error along. */
static void lose_the_sinks_error(void)
{
	struct pollfd p = { .fd = sink };

	at_splice = NULL;
	peer_reset(&to);
	assert_int_equal(poll(&p, 1, 1000), 1);
	assert_int_equal(sock_error(sink), ECONNRESET);
}

static void reset_that_a_partial_write_has_met_is_told(void **state)
{
	struct relay_outcome out;

	(void)state;
	give(SIZE / 2);
	at_splice = lose_the_sinks_error;
	out = run(NO_BUDGET);
	assert_null(at_splice);
	assert_int_equal(out.status, RELAY_SINK_ERROR);
	assert_int_equal(out.error, -EPIPE);
	assert_int_equal(in_tube(), 0);
}

/* Who died while it was reading had taken the first ones. */
static void pipe_that_is_half_empty_is_emptied(void **state)
{
	(void)state;
	for (int i = 0; i < 3000; i++)
		scratch[i] = (char)(i < 1000 ? i : 0);
	for (int i = 1000; i < 3000; i++) {
		char byte = (char)i;

		assert_int_equal(write(tube.in, &byte, 1), 1);
	}
	shared.s.piped = 3000;
	relay_empty_pipe(&shared.s, &tube);
	assert_int_equal(shared.s.piped, 3000);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(scratch[i], (char)i);
	assert_int_equal(in_tube(), 0);
}

/* Nobody takes for them what was in the buffer before, nor gets them later. */
static void what_is_in_the_pipe_and_finds_no_memory_is_lost(void **state)
{
	struct relay_outcome out;

	(void)state;
	shared.s.piped = 0;
	do {
		give(SIZE / 2);
		read_limit = 1;
		out = run(NO_BUDGET);
	} while (out.status == RELAY_IDLE);
	assert_int_equal(out.status, RELAY_NO_MEMORY);
	assert_int_equal(in_tube(), 0);
	assert_true(shared.s.piped == RELAY_LOST);
	assert_int_equal(relay_held(&relay), 0);

	assert_int_equal(write(tube.in, scratch, 3000), 3000);
	read_limit = 2999;
	relay_empty_pipe(&shared.s, &tube);
	assert_int_equal(in_tube(), 0);
	assert_true(shared.s.piped == RELAY_LOST);
}

static uint64_t given(void)
{
	uint64_t n;

	assert_int_equal(sock_written(sink, &n), 0);
	return n;
}

static char *area;
static uint32_t saved;
static uint64_t taken, before;

/* What the next process makes of it; another one dies in between, as soon as the pipe is empty. */
static void come_after(void)
{
	uint64_t n;

	die_at = 0;
	relay_empty_pipe(&shared.s, &tube);
	relay_empty_pipe(&shared.s, &tube);
	assert_int_equal(in_tube(), 0);
	moved = given() - before;
	n = from.sent - (uint64_t)net_readable(source) - moved;
	relay = (struct relay){ .area = area, .saved = &saved, .taken = &taken, .pipe = &tube };
	assert_true(!n || saved >= n || shared.s.piped == n);
	if (n)
		assert_true(relay_restore(&relay, n, scratch, shared.s.piped));
}

static void own_and_run(void)
{
	shared.s.base = moved;
	shared.s.moved = shared.s.piped = 0;
	run(NO_BUDGET);
}

/* A sink that often takes only a part. */
static void move_through_a_small_sink(void)
{
	for (int i = 0; i < 12; i++) {
		give(SIZE / 2);
		own_and_run();
		if (i % 4 == 3)
			peer_step(&to);
	}
}

static void what_is_in_the_pipe_survives_a_death_at_any_point(void **state)
{
	const int small = 8192;
	static unsigned int at, deaths;

	/* As the ledger has it: MADV_REMOVE needs shared memory. */
	area = mmap(NULL, RELAY_AREA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(area, MAP_FAILED);
	deaths = 0;
	for (at = 1; at < 60; at++) {
		teardown(state);
		setup_tube(state);
		assert_int_equal(setsockopt(sink, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
		assert_int_equal(setsockopt(to.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
		saved = 0;
		relay = (struct relay){ .area = area, .saved = &saved, .taken = &taken, .pipe = &tube };
		before = given();
		die_at = at;
		if (setjmp(death) == 0) {
			move_through_a_small_sink();
			die_at = 0;
		} else {
			deaths++;
			come_after();
		}
		while (moved < from.sent) {
			peer_step(&to);
			own_and_run();
		}
		wait_for_bytes();
		assert_int_equal(in_tube(), 0);
		relay_done(&relay);
		relay = (struct relay){ 0 };
	}
	assert_true(deaths >= 20);
	munmap(area, RELAY_AREA);
}

/* ---- reading on ---- */

static void drain(void)
{
	while (moved < from.sent) {
		peer_step(&to);
		run(NO_BUDGET);
	}
	wait_for_bytes();
	assert_int_equal(relay_held(&relay), 0);
}

static void what_is_read_on_comes_behind_what_is_held(void **state)
{
	uint32_t held;

	(void)state;
	block();
	held = relay_held(&relay);
	give(30);
	recv_error = EINTR;
	assert_int_equal(relay_read_on(&relay, source, &shared.s, 10), 10);
	assert_int_equal(relay_read_on(&relay, source, &shared.s, 100), 20);
	assert_int_equal(relay_read_on(&relay, source, &shared.s, 1), -EAGAIN);
	assert_int_equal(relay_held(&relay), held + 30);
	drain();
	/* And where nothing is held. */
	assert_int_equal(relay_read_on(&relay, source, &shared.s, 1), -EAGAIN);
	assert_null(relay.held);
	give(5);
	assert_int_equal(relay_read_on(&relay, source, &shared.s, 5), 5);
	drain();
}

static void no_more_is_held_than_there_is_room_for(void **state)
{
	(void)state;
	give(10);
	assert_int_equal(relay_read_on(&relay, source, &shared.s, RELAY_AREA + 1), -ENOSPC);
	assert_int_equal(net_readable(source), 10);
}

/* A process that dies now: the next one finds all that was read and not written. */
static void die(size_t got)
{
	char *copy = malloc(RELAY_AREA);
	uint32_t copy_saved = saved, n = relay_held(&relay) + (uint32_t)got;
	struct relay next = { .area = copy, .saved = &copy_saved };

	assert_non_null(copy);
	memcpy(copy, area, RELAY_AREA);
	assert_true(relay_restore(&next, n, scratch, taken + got - (shared.s.base + shared.s.moved)));
	assert_int_equal(relay_held(&next), n);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal((uint8_t)next.held[next.offset + i], net_pattern(from.seed, moved + i));
	free(copy);
}

static void what_is_read_on_survives_a_death(void **state)
{
	(void)state;
	/* As the ledger has it: MADV_REMOVE needs shared memory. */
	area = mmap(NULL, RELAY_AREA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(area, MAP_FAILED);
	saved = 0;
	taken = 0;
	relay = (struct relay){ .area = area, .saved = &saved, .taken = &taken };
	block();
	/* Some of it is written, so that what is saved is more than what is held. */
	send_limit = 200;
	do
		peer_step(&to);
	while (!run(0).moved);
	send_limit = 0;
	assert_true(relay_held(&relay) && relay.offset >= 200);
	for (int i = 0; i < 3; i++) {
		give(100);
		shared.s.base = moved;
		shared.s.moved = 0;
		at_recv = die;
		assert_int_equal(relay_read_on(&relay, source, &shared.s, 100), 100);
		at_recv = NULL;
		die(0);
	}
	drain();
	munmap(area, RELAY_AREA);
	relay = (struct relay){ 0 };
}

/* ---- offering ---- */

static struct relay_outcome offer(size_t n)
{
	struct relay_outcome out = relay_offer(source, sink, scratch, n);

	moved += out.moved;
	return out;
}

static int take(int fd, char *buffer, size_t size, uint64_t n)
{
	return relay_take(fd, buffer, size, &n);
}

static void offered_bytes_stay_in_the_source_until_they_are_taken(void **state)
{
	struct relay_outcome out;

	(void)state;
	give(100);
	out = offer(60);
	assert_int_equal(out.status, RELAY_IDLE);
	assert_int_equal(out.moved, 60);
	assert_int_equal(net_readable(source), 100);
	assert_int_equal(take(source, scratch, SIZE, 60), 0);
	assert_int_equal(net_readable(source), 40);
	assert_int_equal(offer(SIZE).moved, 40); /* all there is */
	assert_int_equal(take(source, scratch, 7, 40), 0);
	assert_int_equal(net_readable(source), 0);
	wait_for_bytes();
}

static void offer_to_a_full_sink_says_how_much_it_took(void **state)
{
	struct relay_outcome out;

	(void)state;
	for (;;) {
		give(SIZE / 2);
		out = offer(SIZE / 2);
		assert_int_equal(take(source, scratch, SIZE, out.moved), 0);
		if (out.status == RELAY_BLOCKED)
			break;
		assert_int_equal(out.status, RELAY_IDLE);
	}
	assert_int_equal(moved + (uint64_t)net_readable(source), from.sent);
	while (moved < from.sent) {
		peer_step(&to);
		out = offer(SIZE / 2);
		assert_int_equal(take(source, scratch, SIZE, out.moved), 0);
	}
	wait_for_bytes();
}

static void offer_tells_ends_and_errors_like_a_run(void **state)
{
	struct relay_outcome out;

	(void)state;
	assert_int_equal(offer(SIZE).status, RELAY_IDLE);
	recv_error = EINTR;
	send_error = EINTR;
	give(10);
	assert_int_equal(offer(SIZE).moved, 10);
	recv_error = EINTR;
	assert_int_equal(take(source, scratch, SIZE, 10), 0);
	give(10);
	send_error = ECONNRESET;
	out = offer(SIZE);
	assert_int_equal(out.status, RELAY_SINK_ERROR);
	assert_int_equal(out.error, -ECONNRESET);
	assert_int_equal(out.moved, 0);
	recv_error = ETIMEDOUT;
	out = offer(SIZE);
	assert_int_equal(out.status, RELAY_SOURCE_ERROR);
	assert_int_equal(out.error, -ETIMEDOUT);
	assert_int_equal(take(source, scratch, SIZE, 10), 0);
	from.fin = true;
	peer_step(&from);
	do
		out = offer(SIZE);
	while (out.status == RELAY_IDLE);
	assert_int_equal(out.status, RELAY_EOF);
}

static void taking_what_is_not_there_is_an_error(void **state)
{
	(void)state;
	give(10);
	assert_int_equal(take(source, scratch, SIZE, 11), -EAGAIN);
	from.fin = true;
	give(10);
	while (net_readable(source) < 10)
		;
	peer_close(&from);
	assert_int_equal(take(source, scratch, SIZE, 0), 0);
	while (take(source, scratch, SIZE, 11) == -EAGAIN)
		;
	assert_int_equal(take(source, scratch, SIZE, 1), -EIO);
}

#define tube_test(name) cmocka_unit_test_setup_teardown(name, setup_tube, teardown)
#define relay_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		relay_test(nothing_to_read_is_idle),
		relay_test(bytes_are_moved_in_order),
		relay_test(end_of_stream_is_told_after_the_last_byte),
		relay_test(what_the_sink_does_not_take_is_held_and_goes_first),
		relay_test(end_of_stream_waits_for_what_is_held),
		relay_test(memory_is_held_only_while_bytes_are),
		relay_test(budget_ends_a_run_that_could_go_on),
		relay_test(budget_of_zero_reads_nothing),
		relay_test(reset_of_the_source_is_its_error_and_comes_after_its_bytes),
		relay_test(reset_of_the_sink_is_its_error),
		relay_test(reset_of_the_sink_is_told_for_held_bytes_too),
		relay_test(interrupted_calls_are_made_again),
		relay_test(kernel_without_memory_is_a_full_sink),
		tube_test(pages_change_hands_in_order),
		tube_test(what_the_sink_does_not_take_of_a_pipe_is_held),
		tube_test(end_of_stream_is_told_through_a_pipe),
		tube_test(urgent_byte_is_no_end_of_stream),
		tube_test(reset_of_the_source_comes_after_its_pages),
		tube_test(reset_of_the_sink_leaves_the_pipe_empty),
		tube_test(reset_that_a_partial_write_has_met_is_told),
		tube_test(pipe_that_is_half_empty_is_emptied),
		tube_test(what_is_in_the_pipe_and_finds_no_memory_is_lost),
		tube_test(what_is_in_the_pipe_survives_a_death_at_any_point),
		relay_test(what_is_read_on_comes_behind_what_is_held),
		relay_test(no_more_is_held_than_there_is_room_for),
		relay_test(what_is_read_on_survives_a_death),
		relay_test(offered_bytes_stay_in_the_source_until_they_are_taken),
		relay_test(offer_to_a_full_sink_says_how_much_it_took),
		relay_test(offer_tells_ends_and_errors_like_a_run),
		relay_test(taking_what_is_not_there_is_an_error),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
