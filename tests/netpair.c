/* SPDX-License-Identifier: GPL-2.0-or-later */
/* netpair.c - see netpair.h. */
#include "netpair.h"

#include <dirent.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

static int bound(struct addr *ret)
{
	socklen_t len = sizeof(*ret);
	int fd = new_socket();

	*ret = (struct addr){ .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	assert_int_equal(bind(fd, &ret->sa, sizeof(ret->in)), 0);
	assert_int_equal(getsockname(fd, &ret->sa, &len), 0);
	return fd;
}

int net_listen(struct addr *ret)
{
	int fd = bound(ret);

	assert_int_equal(listen(fd, 128), 0);
	return fd;
}

int net_refuse(struct addr *ret)
{
	return bound(ret);
}

int net_black_hole(struct addr *ret, int *ret_fill)
{
	struct pollfd pollfd = { .events = POLLOUT };
	int fd = bound(ret);

	/* A queue of length 0 takes one connection; then SYNs are dropped. */
	assert_int_equal(listen(fd, 0), 0);
	*ret_fill = pollfd.fd = net_connect(ret);
	assert_int_equal(poll(&pollfd, 1, NET_DEADLINE_MS), 1);
	return fd;
}

int net_connect(const struct addr *to)
{
	int fd = new_socket();

	if (connect(fd, &to->sa, sizeof(to->in)) < 0)
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

int net_accept(int listener)
{
	return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

void net_pair(int fds[2])
{
	struct pollfd pollfd = { .events = POLLIN };
	struct addr at;
	int listener = net_listen(&at);

	fds[1] = net_connect(&at);
	pollfd.fd = listener;
	assert_int_equal(poll(&pollfd, 1, NET_DEADLINE_MS), 1);
	fds[0] = net_accept(listener);
	assert_true(fds[0] >= 0);
	close(listener);
}

void net_reset(int fd)
{
	const struct linger reset = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

/* (Not ioctl(): fake_splice.c has another one.) */
int net_readable(int fd)
{
	int n = 0;

	assert_int_equal(syscall(SYS_ioctl, fd, FIONREAD, &n), 0);
	return n;
}

unsigned int net_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---- peers ---- */

void peer_init(struct peer *p, int fd, uint8_t seed, uint8_t expect)
{
	*p = (struct peer){ .fd = fd, .seed = seed, .expect = expect };
}

static void peer_read(struct peer *p)
{
	uint8_t buf[65536];

	/* recvfrom(2) and sendto(2), since fake_splice looks at recv() and send(). */
	for (int i = 0; i < 16 && !p->error && !p->eof && !p->deaf; i++) {
		ssize_t n = recvfrom(p->fd, buf, sizeof(buf), MSG_DONTWAIT, NULL, NULL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			p->error = errno;
		if (n == 0)
			p->eof = true;
		for (ssize_t at = 0; at < n; at++, p->received++)
			if (buf[at] != net_pattern(p->expect, p->received))
				fail_msg("byte %lu of stream %u is wrong", (unsigned long)p->received, p->expect);
	}
}

static void peer_write(struct peer *p)
{
	uint8_t buf[65536];

	while (p->sent < p->to_send && !p->error) {
		size_t len = (size_t)MIN(p->to_send - p->sent, sizeof(buf));
		ssize_t n;

		for (size_t i = 0; i < len; i++)
			buf[i] = net_pattern(p->seed, p->sent + i);
		n = sendto(p->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
		if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
			return;
		if (n < 0)
			p->error = errno;
		else
			p->sent += (uint64_t)n;
	}
	if (p->fin && !p->fin_sent && !p->error && p->sent == p->to_send) {
		shutdown(p->fd, SHUT_WR);
		p->fin_sent = true;
	}
}

void peer_step(struct peer *p)
{
	if (p->fd < 0)
		return;
	peer_read(p);
	peer_write(p);
}

bool peer_was_reset(const struct peer *p)
{
	/* EPIPE: the reset came after a FIN, or between two writes. */
	return !p->eof && (p->error == ECONNRESET || p->error == EPIPE);
}

void peer_close(struct peer *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

void peer_reset(struct peer *p)
{
	net_reset(p->fd);
	p->fd = -1;
}
