/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sock.c - see sock.h. */
#include "sock.h"

#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "util.h"

/* kernel: include/net/tcp_states.h; netinet/tcp.h has them too, but not beside linux/tcp.h */
enum {
	STATE_ESTABLISHED = 1,
	STATE_FIN_WAIT1 = 4,
	STATE_FIN_WAIT2 = 5,
	STATE_TIME_WAIT = 6,
	STATE_CLOSE = 7,
	STATE_CLOSE_WAIT = 8,
	STATE_LAST_ACK = 9,
	STATE_CLOSING = 11,
};

#define PROGRESS_LOOKS 10000 /* at counters that do not come to rest */
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_INTERVAL_S 10
#define KEEPALIVE_COUNT 6
#define FIT_RTT_US 2000u		  /* sock_fit(): longer paths are the kernel's, */
#define FIT_LEAST (256ull * 1024)	  /* bytes in the queue that are enough for a reader without a round trip, */
#define FIT_MOST (16ull * 1024 * 1024)	  /* and as many as there ever are */

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

int sock_prepare(int fd)
{
	const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	int r = set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);

	if (r < 0)
		return r;
	return setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0 ? -errno : 0;
}

int sock_tune(int fd, const struct sock_tuning *t)
{
	/*
	 * The kernel doubles the value. Four times the limit in all: the queue is limited by its bytes, the buffer by its
	 * memory, and small segments weigh more than their bytes. It must never be full, see docs/ARCHITECTURE.md.
	 */
	int sndbuf = (int)MAX(t->limit * 2, 128u * 1024);
	const struct {
		int level, option, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)t->begin },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		r = set_int(fd, options[i].level, options[i].option, options[i].value);
		if (r < 0)
			return r;
	}
	if (set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, sndbuf) < 0)
		return set_int(fd, SOL_SOCKET, SO_SNDBUF, sndbuf);
	return 0;
}

int sock_limit(int fd, uint32_t limit)
{
	return set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)limit);
}

void sock_end_orderly(int fd)
{
	const struct linger orderly = { .l_onoff = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &orderly, sizeof(orderly));
}

/* SO_OOBINLINE is what a socket has from its listener, and at its end nothing reads it: so it is the mark. */
void sock_end_reset(int fd)
{
	set_int(fd, SOL_SOCKET, SO_OOBINLINE, 0);
}

void sock_close_reset(int fd)
{
	const struct linger reset = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

static int get_info(int fd, struct tcp_info *ret)
{
	socklen_t len = sizeof(*ret);

	*ret = (struct tcp_info){ 0 };
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret, &len) < 0 ? -errno : 0;
}

int sock_written(int fd, uint64_t *ret)
{
	struct tcp_info info;
	int queued = 0, r;

	r = get_info(fd, &info);
	if (r < 0)
		return r;
	if (ioctl(fd, SIOCOUTQ, &queued) < 0)
		return -errno;
	*ret = info.tcpi_bytes_acked + (uint64_t)queued;
	return 0;
}

int sock_received(int fd, uint64_t *ret)
{
	struct tcp_info info;
	int r = get_info(fd, &info);

	if (r == 0)
		*ret = info.tcpi_bytes_received;
	return r;
}

/* getsockopt(SO_ERROR) would take it away. */
static bool has_error(int fd)
{
	struct pollfd p = { .fd = fd };

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

/* Nothing waits in either direction: then no byte can have come or gone between the two calls. */
static bool is_idle(const struct tcp_info *info, int unread)
{
	return !info->tcpi_unacked && !info->tcpi_notsent_bytes && !unread;
}

int sock_progress(int fd, struct sock_progress *ret)
{
	struct tcp_info info, after;
	int unread = 0, queued = 0, r;

	/* One call after the other: bytes may come in, or be acknowledged, in between. */
	for (int looks = 0;; looks++) {
		r = get_info(fd, &info);
		if (r < 0)
			return r;
		if (ioctl(fd, SIOCINQ, &unread) < 0)
			return -errno;
		queued = 0;
		if (is_idle(&info, unread))
			break;
		if (ioctl(fd, SIOCOUTQ, &queued) < 0)
			return -errno;
		r = get_info(fd, &after);
		if (r < 0)
			return r;
		if (info.tcpi_state == after.tcpi_state && info.tcpi_bytes_acked == after.tcpi_bytes_acked &&
		    info.tcpi_bytes_received == after.tcpi_bytes_received)
			break;
		if (looks == PROGRESS_LOOKS)
			return -EBUSY;
	}
	*ret = (struct sock_progress){ .unread = (uint32_t)unread };
	switch (info.tcpi_state) {
	case STATE_CLOSE_WAIT:
		ret->fin_received = true;
		break;
	case STATE_FIN_WAIT1:
	case STATE_FIN_WAIT2:
		ret->fin_sent = true;
		break;
	case STATE_CLOSING:
	case STATE_LAST_ACK:
	case STATE_TIME_WAIT:
		ret->fin_sent = ret->fin_received = true;
		break;
	case STATE_CLOSE:
		ret->gone = true;
		ret->error = has_error(fd);
		break;
	}
	ret->received = info.tcpi_bytes_received - ret->fin_received;
	ret->written = info.tcpi_bytes_acked + (uint64_t)queued - ret->fin_sent;
	return 0;
}

bool sock_is_fresh(int fd)
{
	struct linger linger = { 0 };
	int inline_urgent = 0;
	socklen_t linger_len = sizeof(linger), inline_len = sizeof(inline_urgent);
	struct sock_progress p;

	if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &linger_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &inline_urgent, &inline_len) < 0 || sock_progress(fd, &p) < 0)
		return false;
	return linger.l_onoff && inline_urgent && !p.gone && !p.fin_sent && !p.written && p.received == p.unread;
}

bool sock_is_connected_to(int fd, const struct addr *peer)
{
	struct addr at = { 0 };
	socklen_t len = sizeof(at);
	int protocol = 0;
	socklen_t protocol_len = sizeof(protocol);

	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &protocol_len) < 0 || protocol != IPPROTO_TCP)
		return false;
	if (getpeername(fd, &at.sa, &len) < 0)
		return errno == ENOTCONN; /* it was reset */
	return addr_equal(&at, peer);
}

uint32_t sock_unsent(int fd)
{
	int unsent = 0; /* valgrind does not know this ioctl */

	return ioctl(fd, SIOCOUTQNSD, &unsent) < 0 ? 0 : (uint32_t)unsent;
}

int sock_activity(int fd, struct sock_activity *ret)
{
	struct tcp_info info;
	int r = get_info(fd, &info);

	if (r < 0)
		return r;
	ret->acked = info.tcpi_bytes_acked;
	ret->last_received_ms = info.tcpi_last_data_recv;
	ret->last_acked_ms = info.tcpi_last_ack_recv;
	return 0;
}

bool sock_tighten(int fd, uint32_t bytes)
{
	uint32_t memory[SK_MEMINFO_VARS], size;
	socklen_t len = sizeof(memory);
	struct tcp_info info;

	if (get_info(fd, &info) < 0 || getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &len) < 0)
		return true;
	size = memory[SK_MEMINFO_RCVBUF];
	if (memory[SK_MEMINFO_RMEM_ALLOC] < size - size / 8)
		return false;
	bytes = MAX(bytes, info.tcpi_rcv_mss * 8);
	if (bytes < size)
		set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)(bytes / 2)); /* the kernel doubles it */
	return true;
}

bool sock_fit(int fd, uint64_t bytes_per_s, bool ours)
{
	uint32_t memory[SK_MEMINFO_VARS], size, value;
	socklen_t len = sizeof(memory);
	struct tcp_info info;
	uint64_t window;

	if (get_info(fd, &info) < 0 || getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &len) < 0)
		return ours;
	if (info.tcpi_min_rtt > FIT_RTT_US) {
		if (ours)
			sock_loosen(fd);
		return false;
	}
	size = memory[SK_MEMINFO_RCVBUF];
	window = MAX(FIT_LEAST, info.tcpi_rcv_mss * 8ull) + 2 * bytes_per_s / 1000 * info.tcpi_min_rtt / 1000;
	value = (uint32_t)MIN(window, FIT_MOST);
	if (value * 2 < size && memory[SK_MEMINFO_RMEM_ALLOC] < size - size / 8)
		value = size / 2; /* as it is */
	if (!ours && value * 2 > size)
		return false; /* the kernel has not come that far */
	if (ours && value * 2 == size)
		return true;
	/* The kernel doubles it. */
	return set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)value) == 0 ||
	       set_int(fd, SOL_SOCKET, SO_RCVBUF, (int)value) == 0 || ours;
}

void sock_loosen(int fd)
{
	set_int(fd, SOL_SOCKET, SO_BUF_LOCK, SOCK_SNDBUF_LOCK);
}

bool sock_is_established(int fd)
{
	struct tcp_info info;

	return get_info(fd, &info) == 0 && info.tcpi_state == STATE_ESTABLISHED;
}

int sock_error(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? errno : error;
}
