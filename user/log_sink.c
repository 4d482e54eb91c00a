/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log_sink.c - where lines go; see log.h.
 *
 * A line is put together in one buffer, cleaned of control bytes as a whole (text, tag and host
 * name alike), and taken into its sink's batch, which leaves with one system call that cannot wait:
 * at once for log_sink_write(), at the end of the turn for log_sink_add(), or when no more fits.
 * How is the sink's channel:
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
 *   DGRAM   UDP, /dev/log, or a datagram socket as stdout: sendmmsg(MSG_DONTWAIT), a line in each.
 *
 * Invariant: two lines never share a line. A pipe's batch has at most PIPE_BUF bytes, and so has a
 * line with its newline: it takes all of it or nothing. Where it takes nothing, each line is tried
 * alone, so that the last room is used. (What a pipe holds is counted in pages, and a batch begins
 * a new one if it has no room in the last: with batches, a pipe that nobody reads holds fewer
 * lines.) A terminal or another device gets a batch of one line: it may have room for a part. Where
 * a part may be written all the same (a stream socket, a full disk), the rest is dropped, each line
 * that is not out as a whole counts, and what comes next brings the newline that is missing
 * (sink->torn).
 */
#include "log_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#define RETRY_MS 1000

/*
 * A datagram socket on this machine queues few: 10 (net.unix.max_dgram_qlen), unless somebody says
 * more. More lines at once would be dropped before the reader is awake, which would have had the
 * time if they had come one by one.
 */
#define LOCAL_DATAGRAMS 8

static uint64_t dropped; /* atomic */

static void count_dropped(uint64_t lines)
{
	__atomic_fetch_add(&dropped, lines, __ATOMIC_RELAXED);
}

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

void log_sink_rest(struct log_sink *s)
{
	if (!s->peer_len)
		return;
	log_sink_close(s);
	s->tried_ns = 0;
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
		if (s->channel == CHANNEL_DGRAM)
			s->max_lines = LOCAL_DATAGRAMS;
	} else if (S_ISREG(st.st_mode)) {
		s->channel = CHANNEL_FILE;
	} else {
		s->channel = CHANNEL_OWN;
		s->max_len = PIPE_BUF;
		if (!S_ISFIFO(st.st_mode))
			s->max_lines = 1;
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

/* The one system call of a batch, or of a line. Returns the number of bytes taken, or -errno. */
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

static const char *after_line(const char *at)
{
	return (const char *)rawmemchr(at, '\n') + 1;
}

/*
 * Writes the lines from at to end, before which lies a newline: it goes first if the last line was
 * torn. Returns how many bytes of these lines were taken, or -errno.
 */
static ssize_t put_lines(struct log_sink *s, const char *at, const char *end)
{
	const char *from = s->torn ? at - 1 : at;
	ssize_t n = s->fd < 0 ? -EBADF : sink_put(s, from, (size_t)(end - from));

	if (n <= 0)
		return n;
	s->torn = from[n - 1] != '\n';
	return MAX(from + n - at, 0);
}

/* What put_lines() came to: counts the lines that are not out as a whole. Returns 0 if all are,
 * -EAGAIN for a part, or -errno. */
static int settle(ssize_t taken, const char *at, const char *end)
{
	uint64_t lost = 0;

	if (taken == end - at)
		return 0;
	for (at += MAX(taken, 0); at < end; at++)
		lost += *at == '\n';
	count_dropped(lost);
	return taken < 0 ? (int)taken : -EAGAIN;
}

static int flush_bytes(struct log_sink *s)
{
	const char *at = s->bytes + 1, *end = at + s->len, *next;
	ssize_t n = put_lines(s, at, end);
	int r = 0;

	if (n >= 0 || s->nr_lines == 1)
		return settle(n, at, end);
	for (; at < end; at = next) {
		next = after_line(at);
		r = settle(put_lines(s, at, next), at, next);
	}
	return r;
}

/*
 * A datagram was refused with this error: sends it alone if that helps. If the receiver went away
 * and is back, that costs no line: the socket is made anew (at most every retry_ms) and the line
 * sent again. A refusal on UDP is about an earlier line, which is lost; the socket is as good as
 * before, and this line has not been sent yet. Returns 0 or -errno.
 */
static int put_refused(struct log_sink *s, int error, const struct iovec *line)
{
	ssize_t n;

	if (s->fd >= 0) {
		if (!is_broken(error) || !s->peer_len)
			return error;
		if (error == -ECONNREFUSED && s->peer.ss_family != AF_UNIX)
			count_dropped(1);
		else
			log_sink_close(s);
	}
	n = s->fd >= 0 ? 0 : sink_connect(s);
	if (n == 0)
		n = sink_put(s, line->iov_base, line->iov_len);
	return (int)MIN(n, 0);
}

/* Returns how many datagrams were sent, or -errno if the first was refused. */
static int put_datagrams(const struct log_sink *s, struct mmsghdr *messages, uint32_t nr)
{
	int n;

	if (s->fd < 0)
		return -EBADF;
	n = sendmmsg(s->fd, messages, nr, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < 0 ? -errno : n;
}

/*
 * sendmmsg(2) does not tell why it stopped after the first lines. If that lasts, the next call says
 * it. If not, it was a moment's want of room; but on UDP, where that hardly happens, the refusal of
 * an earlier line, which is lost.
 */
static int flush_datagrams(struct log_sink *s)
{
	bool is_udp = s->peer_len && s->peer.ss_family != AF_UNIX, stopped = false;
	struct mmsghdr messages[BATCH_LINES];
	struct iovec lines[BATCH_LINES];
	const char *at = s->bytes + 1;
	int r = 0;

	for (uint32_t i = 0; i < s->nr_lines; i++) {
		const char *next = after_line(at);

		lines[i] = (struct iovec){(void *)at, (size_t)(next - at)};
		messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &lines[i], .msg_iovlen = 1}};
		at = next;
	}
	for (uint32_t i = 0; i < s->nr_lines;) {
		int n = put_datagrams(s, messages + i, s->nr_lines - i);

		if (n > 0) {
			count_dropped(stopped);
			stopped = is_udp;
			i += (uint32_t)n;
			r = 0;
		} else {
			r = put_refused(s, n, &lines[i++]);
			count_dropped(r < 0);
			stopped = false;
		}
	}
	return r;
}

/* Sends what there is. Returns what came of the last line: 0 or -errno. */
static int flush(struct log_sink *s)
{
	int r = s->channel == CHANNEL_DGRAM ? flush_datagrams(s) : flush_bytes(s);

	s->len = 0;
	s->nr_lines = 0;
	return r;
}

/* Takes a line into the batch; if it has no room there, the batch leaves first. */
static void take(struct log_sink *s, const struct log_line *l)
{
	if (s->nr_lines && s->len + l->len > s->max_len)
		flush(s);
	memcpy(s->bytes + 1 + s->len, l->bytes, l->len);
	s->len += l->len;
	s->nr_lines++;
}

int log_sink_put(struct log_sink *s, const struct log_line *l)
{
	take(s, l);
	return flush(s);
}

void log_sink_init(struct log_sink *s, const struct log_target *target, const char *tag)
{
	memset(s, 0, offsetof(struct log_sink, bytes));
	s->fd = -EBADF;
	s->channel = CHANNEL_DGRAM;
	s->format = target->format;
	s->facility = target->facility;
	s->max_level = target->max_level;
	s->tag = tag;
	s->retry_ms = RETRY_MS;
	s->max_len = BATCH_SIZE;
	s->max_lines = BATCH_LINES;
	s->bytes[0] = '\n';
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
		s->max_lines = LOCAL_DATAGRAMS;
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
	if (s->nr_lines)
		flush(s);
	log_sink_close(s);
	pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

void log_sink_set_retry(struct log_sink *s, unsigned int retry_ms)
{
	s->retry_ms = retry_ms;
}

static void frame(struct log_line *l, const struct log_sink *s, int level, const char *text)
{
	l->len = 0;
	log_line_header(l, s, level);
	log_line_printf(l, "%s", text);
	log_line_end(l);
}

int log_sink_write(struct log_sink *s, int level, const char *text)
{
	struct log_line l;
	int r;

	if (level > s->max_level)
		return 0;
	frame(&l, s, level, text);
	pthread_mutex_lock(&s->lock);
	r = log_sink_put(s, &l);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- turns ---- */

static void note(struct log_turn *t, struct log_sink *s)
{
	for (uint32_t i = 0; i < t->nr; i++)
		if (t->sinks[i] == s)
			return;
	if (t->nr == ARRAY_SIZE(t->sinks))
		log_turn_end(t);
	t->sinks[t->nr++] = s;
}

void log_sink_add(struct log_sink *s, struct log_turn *t, int level, const char *text)
{
	struct log_line l;

	if (level > s->max_level)
		return;
	note(t, s);
	frame(&l, s, level, text);
	pthread_mutex_lock(&s->lock);
	take(s, &l);
	if (s->nr_lines == s->max_lines)
		flush(s);
	pthread_mutex_unlock(&s->lock);
}

void log_turn_end(struct log_turn *t)
{
	for (uint32_t i = 0; i < t->nr; i++) {
		struct log_sink *s = t->sinks[i];

		pthread_mutex_lock(&s->lock);
		if (s->nr_lines)
			flush(s);
		pthread_mutex_unlock(&s->lock);
	}
	t->nr = 0;
}

uint64_t log_dropped(void)
{
	return __atomic_load_n(&dropped, __ATOMIC_RELAXED);
}
