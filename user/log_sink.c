/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log_sink.c - where lines go; see log.h.
 *
 * A line is put together in one buffer, cleaned of control bytes as a whole (text, tag and host
 * name alike), and leaves with one system call that cannot wait. How is its sink's channel:
 *
 *   FILE    A regular file: pwritev2(RWF_APPEND) on the inherited description. It appends whether
 *           or not the shell opened it so, and leaves the shared offset at the end for whoever
 *           else writes there.
 *   OWN     A pipe or a terminal, opened again through /proc/self/fd: its O_NONBLOCK is ours.
 *   SHARED  The same, where opening it again was refused (another user's, or no /proc):
 *           RWF_NOWAIT. Pipes before Linux 6.4 and terminals do not know that; there poll(2) comes
 *           first. That is the one place that could wait: for a pipe if another writer fills it
 *           between the two calls, for a terminal if it has room for less than the line.
 *   STREAM  A stream socket (journald's stdout): MSG_DONTWAIT.
 *   DGRAM   UDP, /dev/log, or a datagram socket as stdout: MSG_DONTWAIT.
 *
 * Invariant: two lines never share a line. A line has at most PIPE_BUF bytes with its newline, so
 * that a pipe takes all of it or nothing. Where a part may be written all the same (a stream
 * socket, a full disk), the rest is dropped, the line counts as dropped, and the next one brings
 * the newline that is missing (sink->torn).
 */
#include "log_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#define RETRY_MS 1000

static uint64_t dropped; /* atomic */

/* Fills s->host with the host name as rfc5424 wants it: printable ASCII without spaces, "-" for
 * none. */
static void read_host(struct log_sink *s)
{
	if (gethostname(s->host, sizeof(s->host)) < 0)
		s->host[0] = '\0';
	s->host[sizeof(s->host) - 1] = '\0';
	for (char *p = s->host; *p; p++)
		if (*p <= ' ' || *p > '~')
			*p = '?';
	if (!s->host[0])
		strcpy(s->host, "-");
}

/*
 * Connects (again), unless that was tried less than retry_ms ago. Returns 0, -ENOTCONN (too early),
 * or the -errno of socket(2) or connect(2). Datagram sockets do not wait in connect(2).
 */
static int sink_connect(struct log_sink *s)
{
	__cleanup_close int fd = -EBADF;
	uint64_t now = now_ns();

	if (!s->peer_len)
		return -EBADF;
	if (s->tried_ns && now - s->tried_ns < s->retry_ms * NS_PER_MS)
		return -ENOTCONN;
	s->tried_ns = now;
	fd = socket(s->peer.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&s->peer, s->peer_len) < 0)
		return -errno;
	s->fd = take_fd(&fd);
	return 0;
}

void log_sink_close(struct log_sink *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -EBADF;
}

int log_sink_open_fd(struct log_sink *s, int fd)
{
	char path[32];
	struct stat st;
	int type;
	socklen_t len = sizeof(type);

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISSOCK(st.st_mode)) {
		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
			return -errno;
		s->channel = type == SOCK_STREAM ? CHANNEL_STREAM : CHANNEL_DGRAM;
	} else if (S_ISREG(st.st_mode)) {
		s->channel = CHANNEL_FILE;
	} else {
		s->channel = CHANNEL_OWN;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		s->fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (s->fd >= 0)
			return 0;
		s->channel = CHANNEL_SHARED;
	}
	s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return s->fd < 0 ? -errno : 0;
}

static ssize_t write_shared(int fd, const struct iovec *iov)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	ssize_t n;

	n = pwritev2(fd, iov, 1, -1, RWF_NOWAIT);
	if (n >= 0 || errno != EOPNOTSUPP)
		return n;
	if (poll(&p, 1, 0) == 0) {
		errno = EAGAIN;
		return -1;
	}
	return writev(fd, iov, 1);
}

/* The one system call of a line. Returns the number of bytes taken, or -errno. */
static ssize_t sink_put(const struct log_sink *s, const char *bytes, size_t len)
{
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = len};
	ssize_t n = -1;

	switch (s->channel) {
	case CHANNEL_FILE:
		n = pwritev2(s->fd, &iov, 1, -1, RWF_APPEND);
		break;
	case CHANNEL_OWN:
		n = write(s->fd, bytes, len);
		break;
	case CHANNEL_SHARED:
		n = write_shared(s->fd, &iov);
		break;
	case CHANNEL_STREAM:
	case CHANNEL_DGRAM:
		n = send(s->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	}
	return n < 0 ? -errno : n;
}

/* True if this connection will not recover: the receiver is gone, or our own address is. */
static bool is_broken(ssize_t error)
{
	return error != -EAGAIN && error != -ENOBUFS && error != -ENOMEM && error != -EMSGSIZE;
}

/*
 * Sends a datagram. If the receiver went away and is back, that costs no line: the socket is made
 * anew (at most every retry_ms) and the line sent again. A refusal on UDP is about an earlier line,
 * which is lost; the socket is as good as before, and this line has not been sent yet.
 */
static ssize_t sink_put_dgram(struct log_sink *s, const char *bytes, size_t len)
{
	ssize_t n;

	if (s->fd >= 0) {
		n = sink_put(s, bytes, len);
		if (n >= 0 || !is_broken(n) || !s->peer_len)
			return n;
		if (n == -ECONNREFUSED && s->peer.ss_family != AF_UNIX) {
			__atomic_fetch_add(&dropped, 1, __ATOMIC_RELAXED);
			return sink_put(s, bytes, len);
		}
		log_sink_close(s);
	}
	n = sink_connect(s);
	return n < 0 ? n : sink_put(s, bytes, len);
}

int log_sink_put(struct log_sink *s, struct log_line *l)
{
	const char *from = l->bytes + 1;
	size_t len = l->len;
	ssize_t n;

	if (s->channel == CHANNEL_DGRAM) {
		n = sink_put_dgram(s, from, len);
	} else {
		if (s->torn) {
			from = l->bytes;
			l->bytes[0] = '\n';
			len++;
		}
		n = s->fd < 0 ? -EBADF : sink_put(s, from, len);
		if (n > 0)
			s->torn = from[n - 1] != '\n';
	}
	if (n == (ssize_t)len)
		return 0;
	__atomic_fetch_add(&dropped, 1, __ATOMIC_RELAXED);
	return n < 0 ? (int)n : -EAGAIN;
}

void log_sink_init(struct log_sink *s, const struct log_target *target, const char *tag)
{
	*s = (struct log_sink){
		.fd = -EBADF,
		.channel = CHANNEL_DGRAM,
		.format = target->format,
		.facility = target->facility,
		.max_level = target->max_level,
		.tag = tag,
		.retry_ms = RETRY_MS,
	};
	pthread_mutex_init(&s->lock, NULL);
	if (s->format == LOG_FORMAT_RFC5424)
		read_host(s);
}

/* Sets the peer of a datagram sink and tries to connect; only a missing socket is an error. */
static int sink_open_dgram(struct log_sink *s, const struct log_target *target)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&s->peer;
	int r;

	if (target->kind == LOG_TARGET_UNIX) {
		un->sun_family = AF_UNIX;
		memcpy(un->sun_path, target->path, sizeof(un->sun_path));
		un->sun_path[sizeof(un->sun_path) - 1] = '\0';
		s->peer_len = sizeof(*un);
	} else {
		s->peer = target->addr.storage;
		s->peer_len = addr_len(&target->addr);
		if (!s->peer_len)
			return -EAFNOSUPPORT;
	}
	r = sink_connect(s);
	switch (r) {
	case -EMFILE:
	case -ENFILE:
	case -ENOBUFS:
	case -ENOMEM:
	case -EAFNOSUPPORT:
		return r;
	}
	return 0;
}

int log_sink_open(struct log_sink **ret, const struct log_target *target, const char *tag)
{
	struct log_sink *s;
	int r = -EINVAL;

	s = malloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	log_sink_init(s, target, tag);
	switch (target->kind) {
	case LOG_TARGET_STDOUT:
		r = log_sink_open_fd(s, STDOUT_FILENO);
		break;
	case LOG_TARGET_STDERR:
		r = log_sink_open_fd(s, STDERR_FILENO);
		break;
	case LOG_TARGET_UDP:
	case LOG_TARGET_UNIX:
		r = sink_open_dgram(s, target);
		break;
	}
	if (r < 0) {
		log_sink_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct log_sink *log_sink_free(struct log_sink *s)
{
	if (!s)
		return NULL;
	log_sink_close(s);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

void log_sink_set_retry(struct log_sink *s, unsigned int retry_ms)
{
	s->retry_ms = retry_ms;
}

int log_sink_write(struct log_sink *s, int level, const char *text)
{
	struct log_line l;
	int r;

	if (level > s->max_level)
		return 0;
	l.len = 0;
	log_line_header(&l, s, level);
	log_line_printf(&l, "%s", text);
	log_line_end(&l);
	pthread_mutex_lock(&s->lock);
	r = log_sink_put(s, &l);
	pthread_mutex_unlock(&s->lock);
	return r;
}

uint64_t log_dropped(void)
{
	return __atomic_load_n(&dropped, __ATOMIC_RELAXED);
}
