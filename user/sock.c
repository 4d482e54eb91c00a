/* SPDX-License-Identifier: GPL-2.0-or-later */
/* sock.c - see sock.h. */
#include "sock.h"

#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "shunt_abi.h"
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
#define RELIEVE_MOST (32u * 1024 * 1024) /* memory of a receive buffer */
#define FIT_MOST (16ull * 1024 * 1024)	  /* sock_fit(): bytes, at most */

#define SHOW_LEAST (2 * 1024 * 1024)	 /* bytes that count_shown() asks for, after the first few, */
#define SHOW_MOST (128 * 1024 * 1024)	  /* and as many as it ever does: no receive buffer is as large */

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

/* A redirected segment leaves in pieces; if a send queue took only some of them, the rest would be in the way. */
static int lowat(uint32_t limit)
{
	return (int)MAX(limit, SHUNT_SEGMENT_MAX);
}

int sock_tune(int fd, const struct sock_tuning *t)
{
	/*
	 * The kernel doubles the value. Four times the limit in all: the queue is limited by its bytes, the buffer by its
	 * memory, and small segments weigh more than their bytes. It must never be full, see docs/ARCHITECTURE.md.
	 */
	int sndbuf = (int)MAX(t->limit, SHUNT_SEGMENT_MAX) * 2;
	const struct {
		int level, option, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, lowat(t->begin) },
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
	return set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, lowat(limit));
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

/* What recv() shows, at most size; or -errno, and then nothing is there to be shown. */
static ssize_t show(int fd, char *buf, size_t size)
{
	ssize_t n = recv(fd, buf, size, MSG_PEEK | MSG_DONTWAIT);

	return n < 0 ? -errno : n;
}

/* All that a second look shows, of which there were more than `few` at the first. */
static int64_t count_many(int fd, size_t few)
{
	for (size_t size = SHOW_LEAST; size <= SHOW_MOST; size *= 8) {
		/* Its pages are there before the socket is locked. */
		char *buf = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ssize_t n;

		if (buf == MAP_FAILED)
			return -errno;
		n = show(fd, buf, size);
		munmap(buf, size);
		if (n >= 0 && (size_t)n < few)
			return -EIO; /* who can show the first ones alone has not shown all */
		if (n < (ssize_t)size)
			return n;
	}
	return -EFBIG;
}

static int64_t count_shown(int fd, size_t most, int *ret_told)
{
	char few[4096];
	ssize_t n = show(fd, few, MIN(sizeof(few), most));

	if (n == sizeof(few))
		return count_many(fd, sizeof(few));
	if (n >= 0 || n == -EAGAIN || n == -ENOTCONN)
		return MAX(n, 0);
	if (n == -EFAULT || n == -ENOMEM || n == -ENOBUFS || n == -EBADF || n == -ENOTSOCK)
		return n;
	*ret_told = (int)-n;
	return 0;
}

int64_t sock_look_at_unread(int fd, enum sock_unread how, int *ret_told)
{
	int n = 0;

	switch (how) {
	case SOCK_UNREAD_UNKNOWN:
		break;
	case SOCK_UNREAD_TOLD:
		return ioctl(fd, SIOCINQ, &n) < 0 ? -errno : n;
	case SOCK_UNREAD_SHOWN:
		return count_shown(fd, SIZE_MAX, ret_told);
	case SOCK_UNREAD_ANY:
		return count_shown(fd, 1, ret_told);
	}
	return -ENOTSUP;
}

/* Nothing waits in either direction: then no byte can have come or gone between the calls. */
static bool is_idle(const struct tcp_info *info, int64_t unread)
{
	return !info->tcpi_unacked && !info->tcpi_notsent_bytes && !unread;
}

/* What was received, and how much of it is unread, at one moment, which info tells of. */
static int look_at_received(int fd, enum sock_unread how, struct tcp_info *info, int64_t *unread, int *told)
{
	struct tcp_info before;
	int r = get_info(fd, info);

	for (int looks = 0; r == 0; looks++) {
		before = *info;
		*unread = sock_look_at_unread(fd, how, told);
		if (*unread < 0)
			return (int)*unread;
		if (how == SOCK_UNREAD_TOLD && is_idle(info, *unread))
			return 0;
		r = get_info(fd, info);
		if (r == 0 && info->tcpi_state == before.tcpi_state && info->tcpi_bytes_received == before.tcpi_bytes_received)
			return 0;
		if (looks == PROGRESS_LOOKS)
			return -EBUSY;
	}
	return r;
}

/* What was acknowledged, and what waits for that, at one moment: info is what was true before, and then has the former. -EAGAIN: it is in another state now. */
static int look_at_written(int fd, struct tcp_info *info, int *queued)
{
	struct tcp_info after;
	int r = 0;

	for (int looks = 0; r == 0; looks++) {
		if (ioctl(fd, SIOCOUTQ, queued) < 0)
			return -errno;
		r = get_info(fd, &after);
		if (r == 0 && info->tcpi_state != after.tcpi_state)
			return -EAGAIN;
		if (r == 0 && info->tcpi_bytes_acked == after.tcpi_bytes_acked)
			return 0;
		if (looks == PROGRESS_LOOKS)
			return -EBUSY;
		info->tcpi_bytes_acked = after.tcpi_bytes_acked;
	}
	return r;
}

int sock_progress(int fd, enum sock_unread how, struct sock_progress *ret)
{
	struct tcp_info info;
	int queued, told = 0, r;
	int64_t unread = 0;

	do {
		queued = 0;
		r = look_at_received(fd, how, &info, &unread, &told);
		if (r == 0 && !is_idle(&info, unread))
			r = look_at_written(fd, &info, &queued);
	} while (r == -EAGAIN);
	if (r < 0)
		return r;
	*ret = (struct sock_progress){ .unread = (uint64_t)unread, .told = told };
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
		ret->error = told || has_error(fd);
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
	    getsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &inline_urgent, &inline_len) < 0 || sock_progress(fd, SOCK_UNREAD_TOLD, &p) < 0)
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

bool sock_listens_at(int fd, const struct addr *own)
{
	struct addr at = { 0 };
	socklen_t len = sizeof(at), listens_len = sizeof(int);
	int listens = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_len) == 0 && listens &&
	       getsockname(fd, &at.sa, &len) == 0 && addr_equal(&at, own);
}

uint32_t sock_unsent(int fd)
{
	int unsent = 0; /* valgrind does not know this ioctl */

	return ioctl(fd, SIOCOUTQNSD, &unsent) < 0 ? 0 : (uint32_t)unsent;
}

uint32_t sock_room(int fd, uint32_t limit)
{
	uint32_t meminfo[SK_MEMINFO_VARS] = { 0 }, unsent = sock_unsent(fd), room;
	socklen_t len = sizeof(meminfo);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, &len) < 0 || meminfo[SK_MEMINFO_WMEM_QUEUED] >= meminfo[SK_MEMINFO_SNDBUF])
		return 0;
	room = meminfo[SK_MEMINFO_SNDBUF] - meminfo[SK_MEMINFO_WMEM_QUEUED];
	return MIN(room - room / 8, limit - MIN(limit, unsent)); /* buffers weigh a little more than their bytes */
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

bool sock_fit(int fd, uint32_t at_once, uint64_t bytes_per_s, bool ours)
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
	window = MAX((uint64_t)at_once, info.tcpi_rcv_mss * 8ull) + 2 * bytes_per_s / 1000 * info.tcpi_min_rtt / 1000;
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

int sock_relieve(int fd)
{
	uint32_t memory[SK_MEMINFO_VARS], used, size;
	socklen_t len = sizeof(memory);
	struct tcp_info info;

	if (get_info(fd, &info) < 0 || getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &len) < 0)
		return -errno;
	used = memory[SK_MEMINFO_RMEM_ALLOC];
	size = memory[SK_MEMINFO_RCVBUF];
	/*
	 * TCP tells no window that is less than a segment, or than a sixteenth of the buffer (kernel: __tcp_select_window()); in bytes, of which the
	 * memory holds a quarter in bad cases.
	 */
	if (used + MAX(size / 16, info.tcpi_rcv_mss * 4) <= size)
		return 0;
	size = used + MAX(used / 8, info.tcpi_rcv_mss * 4);
	if (size > RELIEVE_MOST)
		return -ENOBUFS;
	if (set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, (int)(size / 2)) < 0)
		return -errno;
	sock_loosen(fd);
	return 1;
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
