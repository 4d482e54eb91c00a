/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_overlap.c - retransmissions that begin before what the receiver has and end behind it.
 *
 * TCP peers make them when they merge small segments before sending them again, or answer a window probe. They are forged here: a raw
 * socket sends a segment with the addresses of a living connection, whose sequence number TCP_REPAIR tells.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "sock.h"
#include "splice.h"
#include "util.h"

#define DEADLINE_MS 5000

struct rig {
	struct splice *sp;
	int client, server;
	struct splice_end ends[2];
	struct sockaddr_in from, to; /* of the client's connection */
};

static unsigned char pattern(uint32_t at)
{
	return (unsigned char)(at * 167 + (at >> 8) * 13);
}

static void connect_pair(int ret[2], struct sockaddr_in *from, struct sockaddr_in *to)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	socklen_t len = sizeof(at);

	assert_int_equal(bind(listener, (struct sockaddr *)&at, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
	*to = at;
	ret[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(ret[0], (struct sockaddr *)&at, len), 0);
	assert_int_equal(getsockname(ret[0], (struct sockaddr *)from, &len), 0);
	ret[1] = accept(listener, NULL, NULL);
	assert_true(ret[1] >= 0);
	assert_int_equal(setsockopt(ret[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	close(listener);
}

static void rig_open(struct rig *rig, bool want_kernel)
{
	const struct splice_options o = { .max_sessions = 4, .pin_path = "" };
	struct sockaddr_in ignored;
	char why[300];
	int pair[2];

	memset(rig, 0, sizeof(*rig));
	if (splice_new(&rig->sp, &o, why, sizeof(why)) < 0)
		fail_msg("splice_new: %s", why);
	connect_pair(pair, &rig->from, &rig->to);
	rig->client = pair[0];
	rig->ends[0].fd = pair[1];
	connect_pair(pair, &ignored, &ignored);
	rig->ends[1].fd = pair[0];
	rig->ends[1].extra = 1;
	rig->server = pair[1];
	rig->ends[0].want_kernel = rig->ends[1].want_kernel = want_kernel;
	assert_int_equal(splice_join(rig->sp, 1, 0, rig->ends, 1 << 20), 0);
}

static void rig_close(struct rig *rig)
{
	uint64_t cookies[2] = { rig->ends[0].cookie, rig->ends[1].cookie };

	close(rig->client);
	close(rig->server);
	close(rig->ends[0].fd);
	close(rig->ends[1].fd);
	splice_leave(rig->sp, 1, cookies);
	splice_free(rig->sp);
}

/* The next sequence number that fd will send (queue 2) or expects to receive (queue 1). */
static uint32_t sequence(int fd, int queue)
{
	int on = TCP_REPAIR_ON, off = TCP_REPAIR_OFF_NO_WP;
	uint32_t seq = 0;
	socklen_t len = sizeof(seq);

	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)), 0);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, &len), 0);
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)), 0);
	return seq;
}

static uint16_t checksum(const struct sockaddr_in *from, const struct sockaddr_in *to, const unsigned char *data, size_t len)
{
	uint32_t sum = IPPROTO_TCP + (uint32_t)len;
	const uint32_t ips[2] = { ntohl(from->sin_addr.s_addr), ntohl(to->sin_addr.s_addr) };

	for (int i = 0; i < 2; i++)
		sum += (ips[i] >> 16) + (ips[i] & 0xffff);
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/*
 * Sends pattern bytes [from, to) of the stream as one segment, as if the client's TCP had, with or without a FIN behind them. base is the
 * sequence number of byte 0.
 */
static void forge_segment(struct rig *rig, uint32_t base, uint32_t ack, uint32_t from, uint32_t to, bool fin)
{
	static unsigned char segment[65000];
	struct tcphdr *h = (struct tcphdr *)segment;
	size_t len = sizeof(*h) + (to - from);
	int raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
	struct sockaddr_in dest = { .sin_family = AF_INET, .sin_addr = rig->to.sin_addr };

	assert_true(raw >= 0);
	assert_true(len <= sizeof(segment));
	*h = (struct tcphdr){
		.source = rig->from.sin_port,
		.dest = rig->to.sin_port,
		.seq = htonl(base + from),
		.ack_seq = htonl(ack),
		.doff = sizeof(*h) / 4,
		.ack = 1,
		.psh = 1,
		.fin = fin,
		.window = htons(1000),
	};
	for (uint32_t i = from; i < to; i++)
		segment[sizeof(*h) + i - from] = pattern(i);
	h->check = htons(checksum(&rig->from, &rig->to, segment, len));
	assert_int_equal(sendto(raw, segment, len, 0, (struct sockaddr *)&dest, sizeof(dest)), len);
	close(raw);
}

static void forge(struct rig *rig, uint32_t base, uint32_t ack, uint32_t from, uint32_t to)
{
	forge_segment(rig, base, ack, from, to, false);
}

static void send_pattern(int fd, uint32_t from, uint32_t to)
{
	unsigned char data[65536];

	for (uint32_t i = from; i < to; i++)
		data[i - from] = pattern(i);
	assert_int_equal(send(fd, data, to - from, 0), to - from);
}

/* Plays userspace for passed bytes: reads end 0, writes end 1. */
static void pump(struct rig *rig)
{
	struct flow *f = splice_flow(rig->sp, 2);
	unsigned char data[65536];
	ssize_t n;

	while ((n = recv(rig->ends[0].fd, data, sizeof(data), MSG_DONTWAIT)) > 0) {
		assert_int_equal(send(rig->ends[1].fd, data, (size_t)n, 0), n);
		flow_set(f, moved, f->moved + (uint64_t)n);
	}
}

static void expect(struct rig *rig, uint32_t from, uint32_t to)
{
	uint64_t deadline = now_ns() + DEADLINE_MS * NS_PER_MS;
	unsigned char data[65536];

	while (from < to) {
		struct pollfd p = { .fd = rig->server, .events = POLLIN };
		ssize_t n;

		pump(rig);
		if (poll(&p, 1, 1) < 1) {
			if (now_ns() > deadline)
				fail_msg("only %u of %u bytes came", from, to);
			continue;
		}
		n = recv(rig->server, data, sizeof(data), 0);
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++, from++)
			if (data[i] != pattern(from))
				fail_msg("byte %u is wrong", from);
	}
	assert_int_equal(from, to);
}

static void overlap(bool want_kernel)
{
	struct rig rig;
	uint32_t base, ack;
	uint64_t counters[FLOW_EXIT_MAX], received = 0;

	rig_open(&rig, want_kernel);
	send_pattern(rig.client, 0, 30000);
	expect(&rig, 0, 30000);
	base = sequence(rig.client, TCP_SEND_QUEUE) - 30000;
	ack = sequence(rig.client, TCP_RECV_QUEUE);

	forge(&rig, base, ack, 29950, 30100); /* a little old, a little new */
	expect(&rig, 30000, 30100);
	forge(&rig, base, ack, 0, 30101); /* all of it once more, and one byte */
	expect(&rig, 30100, 30101);
	forge(&rig, base, ack, 10000, 30101); /* nothing new: TCP itself drops it */
	forge(&rig, base, ack, 30000, 50000);
	expect(&rig, 30101, 50000);

	assert_int_equal(sock_received(rig.ends[0].fd, &received), 0);
	assert_int_equal(received, 50000);
	assert_int_equal(splice_flow(rig.sp, 2)->redirected + splice_flow(rig.sp, 2)->moved, 50000);
	splice_counters(rig.sp, counters);
	assert_int_equal(counters[FLOW_COUNT_TRIMMED], 3);
	assert_int_equal(counters[FLOW_EXIT_BROKEN], 0);
	rig_close(&rig);
}

static void an_overlapping_retransmission_is_not_delivered_twice_by_the_kernel(void **state)
{
	(void)state;
	overlap(true);
}

static void an_overlapping_retransmission_is_not_delivered_twice_by_userspace(void **state)
{
	(void)state;
	overlap(false);
}

/* The bytes had arrived, their acknowledgment and the FIN were lost: the sender sends both in one segment. */
static void old_bytes_with_a_new_fin(bool want_kernel)
{
	struct rig rig;
	uint32_t base, ack;
	uint64_t counters[FLOW_EXIT_MAX], received = 0;
	struct pollfd p;

	rig_open(&rig, want_kernel);
	send_pattern(rig.client, 0, 30000);
	expect(&rig, 0, 30000);
	base = sequence(rig.client, TCP_SEND_QUEUE) - 30000;
	ack = sequence(rig.client, TCP_RECV_QUEUE);
	forge_segment(&rig, base, ack, 20000, 30000, true);
	p = (struct pollfd){ .fd = rig.ends[0].fd, .events = POLLRDHUP };
	assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
	assert_int_equal(sock_received(rig.ends[0].fd, &received), 0);
	assert_int_equal(received, 30001);
	assert_int_equal(splice_flow(rig.sp, 2)->redirected + splice_flow(rig.sp, 2)->passed, 30000);
	splice_counters(rig.sp, counters);
	assert_int_equal(counters[FLOW_EXIT_BROKEN], 0);
	assert_int_equal(counters[FLOW_EXIT_FIN], 1);
	rig_close(&rig);
}

static void old_bytes_with_a_new_fin_are_only_a_fin(void **state)
{
	(void)state;
	old_bytes_with_a_new_fin(true);
	old_bytes_with_a_new_fin(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_overlapping_retransmission_is_not_delivered_twice_by_the_kernel),
		cmocka_unit_test(an_overlapping_retransmission_is_not_delivered_twice_by_userspace),
		cmocka_unit_test(old_bytes_with_a_new_fin_are_only_a_fin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
