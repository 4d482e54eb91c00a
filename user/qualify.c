/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qualify.c - see qualify.h. Version numbers prove nothing: distributions carry fixes back and bugs forward. So the path is tried.
 *
 *   client ──► ends[0] ══(the program)══► ends[1] ──► server
 */
#include "qualify.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sock.h"
#include "util.h"

#define BULK (512u * 1024)
#define BULK_UNSENT (64 * 1024)
#define STEP_MS 2000	     /* no step of a healthy kernel takes a tenth of this */
#define WINDOW_MAX (8u * 1024 * 1024)
#define WINDOW_CHUNK 65536u
#ifndef UNREAD_FIRST
#define UNREAD_FIRST SOCK_UNREAD_TOLD /* what is tried first */
#endif

struct rig {
	struct splice *sp;
	int client, server;	   /* the applications' sockets */
	struct splice_end ends[2]; /* ours */
	enum sock_unread unread;
	char *why;
	size_t size;
};

static int fail(struct rig *rig, int error, const char *what)
{
	if (error == -EBADMSG)
		snprintf(rig->why, rig->size, "%s", what);
	else
		snprintf(rig->why, rig->size, "%s: %s", what, strerror(-error));
	return error;
}

/* One loopback connection: ret[0] connected to ret[1]. */
static int connect_pair(int ret[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, got;
	__cleanup_close int listener = -EBADF, a = -EBADF, b = -EBADF;
	socklen_t len = sizeof(at);

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || a < 0 || bind(listener, (struct sockaddr *)&at, len) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&at, &len) < 0 || connect(a, (struct sockaddr *)&at, len) < 0)
		return -errno;
	/* Nobody else may slip in: the port of the accepted socket's peer must be a's. */
	len = sizeof(at);
	if (getsockname(a, (struct sockaddr *)&at, &len) < 0)
		return -errno;
	len = sizeof(got);
	b = accept4(listener, (struct sockaddr *)&got, &len, SOCK_CLOEXEC);
	if (b < 0)
		return -errno;
	if (got.sin_port != at.sin_port)
		return -ECONNABORTED;
	ret[0] = take_fd(&a);
	ret[1] = take_fd(&b);
	return 0;
}

static int wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	int n = poll(&p, 1, STEP_MS);

	return n < 0 ? -errno : n == 0 ? -ETIMEDOUT : 0;
}

static unsigned char pattern(uint32_t at)
{
	return (unsigned char)((at * 2654435761u) >> 24 ^ at);
}

static int send_pattern(int fd, uint32_t from, uint32_t to)
{
	unsigned char chunk[4096];

	while (from < to) {
		uint32_t len = MIN(to - from, (uint32_t)sizeof(chunk));
		ssize_t n;
		int r = wait_for(fd, POLLOUT);

		if (r < 0)
			return r;
		for (uint32_t i = 0; i < len; i++)
			chunk[i] = pattern(from + i);
		n = send(fd, chunk, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			return -errno;
		from += n > 0 ? (uint32_t)n : 0;
	}
	return 0;
}

/* Expects exactly the bytes [from, to), and then no more for now. */
static int expect_pattern(int fd, uint32_t from, uint32_t to)
{
	unsigned char chunk[16384];

	while (from < to) {
		ssize_t n;
		int r = wait_for(fd, POLLIN);

		if (r < 0)
			return r;
		n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);
		if (n <= 0)
			return n == 0 ? -EBADMSG : -errno;
		if ((uint32_t)n > to - from)
			return -EBADMSG;
		for (ssize_t i = 0; i < n; i++, from++)
			if (chunk[i] != pattern(from))
				return -EBADMSG;
	}
	if (recv(fd, chunk, 1, MSG_DONTWAIT) > 0)
		return -EBADMSG;
	return 0;
}

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static void rig_close(struct rig *rig)
{
	int *fds[] = { &rig->client, &rig->ends[0].fd, &rig->ends[1].fd, &rig->server };
	uint64_t cookies[2] = { rig->ends[0].cookie, rig->ends[1].cookie };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	splice_leave(rig->sp, 0, cookies);
}

static int rig_open(struct rig *rig, bool want_kernel)
{
	int pair[2], r;

	rig->client = rig->server = -1;
	rig->ends[0] = (struct splice_end){ .fd = -1, .want_kernel = want_kernel };
	rig->ends[1] = (struct splice_end){ .fd = -1, .want_kernel = want_kernel, .extra = 1 };
	r = connect_pair(pair);
	if (r < 0)
		return fail(rig, r, "no loopback connection");
	rig->client = pair[0];
	rig->ends[0].fd = pair[1];
	r = connect_pair(pair);
	if (r < 0)
		return fail(rig, r, "no loopback connection");
	rig->ends[1].fd = pair[0];
	rig->server = pair[1];
	for (int i = 0; i < 2; i++) {
		r = set_int(rig->ends[i].fd, IPPROTO_TCP, TCP_NODELAY, 1);
		if (r < 0)
			return fail(rig, r, "TCP_NODELAY");
	}
	return 0;
}

/*
 * Bytes of before the join, then bulk through a send queue that is full again and again. Not by its memory, which the program looks
 * at, but because little may be unsent (kernel: tcp_stream_memory_free()).
 */
static int check_bytes(struct rig *rig)
{
	const uint32_t early = 1000;
	int r;

	r = set_int(rig->ends[1].fd, SOL_SOCKET, SO_SNDBUFFORCE, 2 * BULK);
	if (r == 0)
		r = set_int(rig->ends[1].fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, BULK_UNSENT);
	if (r == 0)
		r = send_pattern(rig->client, 0, early);
	if (r == 0)
		r = wait_for(rig->ends[0].fd, POLLIN);
	if (r < 0)
		return fail(rig, r, "early bytes could not be sent");
	r = splice_join(rig->sp, 0, 0, rig->ends, 2 * BULK);
	if (r < 0)
		return fail(rig, r, "the sockets cannot be put into the sockmap");
	if (expect_pattern(rig->server, 0, early) < 0)
		return fail(rig, -EBADMSG, "bytes that came before the join were not delivered");
	r = send_pattern(rig->client, early, BULK);
	if (r < 0)
		return fail(rig, r, "bulk could not be sent");
	r = expect_pattern(rig->server, early, BULK);
	if (r == -ETIMEDOUT)
		return fail(rig, r, "bytes behind a full send queue did not come in time (a stalled kernel, or a machine without time)");
	if (r < 0)
		return fail(rig, -EBADMSG,
			    "bytes were lost, repeated or reordered behind a full send queue (kernel needs \"bpf, sockmap: fix duplicated data transmission\")");
	return 0;
}

static int check_accounting(struct rig *rig)
{
	const struct flow *f = splice_flow(rig->sp, 0);
	uint64_t written = 0, received = 0;

	if (sock_written(rig->ends[1].fd, &written) < 0 || sock_received(rig->ends[0].fd, &received) < 0)
		return fail(rig, -EBADMSG, "TCP_INFO does not count bytes");
	if (flow_get(f, redirected) != BULK || f->extra + BULK != written || received != BULK)
		return fail(rig, -EBADMSG, "the kernel's byte counters do not agree with what was redirected");
	return 0;
}

/* A bare FIN, then the answer: the FIN must neither break the peer nor stop the other direction. */
static int check_fin(struct rig *rig)
{
	int r;

	if (shutdown(rig->client, SHUT_WR) < 0)
		return fail(rig, -errno, "shutdown");
	r = wait_for(rig->ends[0].fd, POLLRDHUP);
	if (r < 0)
		return fail(rig, -EBADMSG, "a FIN was not reported");
	r = send_pattern(rig->server, 0, 1000);
	if (r < 0 || expect_pattern(rig->client, 0, 1000) < 0)
		return fail(rig, -EBADMSG, "a half-closed session did not carry the answer");
	if (sock_error(rig->ends[1].fd))
		return fail(rig, -EBADMSG, "a bare FIN broke the peer's sending side");
	return 0;
}

/* Does it tell what was passed and not read? All that was sent was passed: the window is closed. (It may just be opening.) */
static bool is_unread(struct rig *rig, enum sock_unread how, uint64_t read)
{
	const struct flow *f = splice_flow(rig->sp, 0);

	for (int looks = 0; looks < 1000; looks++) {
		uint64_t passed = flow_get(f, passed);
		int told = 0;
		int64_t unread = sock_look_at_unread(rig->ends[0].fd, how, &told);

		if (unread < 0)
			return false;
		if (flow_get(f, passed) == passed)
			return (uint64_t)unread == passed - read;
	}
	return false;
}

/* Passed bytes can be looked at without being taken, and are then still there, once (the way home stands on that). */
static int check_peek(struct rig *rig)
{
	static const struct {
		uint32_t at, len;
		int flags;
	} steps[] = { { 0, 1000, MSG_PEEK }, { 0, 400, 0 }, { 400, 1000, MSG_PEEK }, { 400, 5000, 0 } };
	unsigned char data[5000];
	uint64_t read = 0;

	rig->unread = UNREAD_FIRST;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		ssize_t n = recv(rig->ends[0].fd, data, steps[i].len, MSG_DONTWAIT | steps[i].flags);

		if (n != (ssize_t)steps[i].len)
			return fail(rig, -EBADMSG, "passed bytes cannot be read");
		for (uint32_t k = 0; k < steps[i].len; k++)
			if (data[k] != pattern((steps[i].at + k) % WINDOW_CHUNK))
				return fail(rig, -EBADMSG, "passed bytes are not what was sent, once they were peeked at");
		read += steps[i].flags & MSG_PEEK ? 0 : steps[i].len;
		while (rig->unread && !is_unread(rig, rig->unread, read))
			rig->unread = rig->unread == SOCK_UNREAD_TOLD ? SOCK_UNREAD_SHOWN : SOCK_UNREAD_UNKNOWN;
	}
	return 0;
}

/* A direction whose bytes are passed up and not read must stop its sender. */
static int check_window(struct rig *rig)
{
	unsigned char chunk[WINDOW_CHUNK];
	uint32_t sent = 0;
	int r;

	for (uint32_t i = 0; i < WINDOW_CHUNK; i++)
		chunk[i] = pattern(i);

	r = set_int(rig->client, SOL_SOCKET, SO_SNDBUF, 65536);
	if (r < 0)
		return fail(rig, r, "SO_SNDBUF");
	r = splice_join(rig->sp, 0, 0, rig->ends, BULK);
	if (r < 0)
		return fail(rig, r, "the sockets cannot be put into the sockmap");
	while (sent < WINDOW_MAX) {
		struct pollfd p = { .fd = rig->client, .events = POLLOUT };
		uint32_t at = sent % WINDOW_CHUNK;
		ssize_t n = send(rig->client, chunk + at, WINDOW_CHUNK - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			sent += (uint32_t)n;
		else if (errno != EAGAIN)
			return fail(rig, -errno, "send");
		else if (poll(&p, 1, 20) == 0)
			return check_peek(rig);
	}
	return fail(rig, -EBADMSG, "passed bytes do not close the window: memory would be unbounded");
}

int qualify(struct splice *sp, enum sock_unread *ret_unread, char *why, size_t size)
{
	struct rig rig = { .sp = sp, .why = why, .size = size };
	int r;

	r = rig_open(&rig, true);
	if (r == 0)
		r = check_bytes(&rig);
	if (r == 0)
		r = check_accounting(&rig);
	if (r == 0)
		r = check_fin(&rig);
	rig_close(&rig);
	if (r < 0)
		return r;

	r = rig_open(&rig, false);
	if (r == 0)
		r = check_window(&rig);
	rig_close(&rig);
	if (r < 0)
		return r;

	*ret_unread = rig.unread;

	/* What they say is to be about sessions. */
	r = splice_clear_counters(sp);
	return r < 0 ? fail(&rig, r, "the program's counters cannot be cleared") : 0;
}
