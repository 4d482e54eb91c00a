/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log.c - see log.h.
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
#include "log.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#define LINE_SIZE PIPE_BUF /* of a whole line, newline included */
#define SINKS_MAX 16
#define RETRY_MS 1000

enum channel {
	CHANNEL_FILE,
	CHANNEL_OWN,
	CHANNEL_SHARED,
	CHANNEL_STREAM,
	CHANNEL_DGRAM,
};

struct log_sink {
	pthread_mutex_t lock; /* a line at a time */
	int fd;		      /* owned; negative: not connected, or closed */
	enum channel channel;
	enum log_format format;
	int facility, max_level;
	const char *tag; /* borrowed */
	char host[65];	 /* for rfc5424 */
	bool torn;	 /* the last byte that was written is not a newline */

	/* where to reconnect to; peer_len == 0: nowhere (stdout and stderr) */
	struct sockaddr_storage peer;
	socklen_t peer_len;
	unsigned int retry_ms;
	uint64_t tried_ns; /* when connect(2) was last called */
};

/* A line under construction: room for a torn line's newline, the line, its own newline. */
struct line {
	char bytes[1 + LINE_SIZE];
	size_t len; /* of bytes, from bytes[1] on; after line_end() newline included */
};

/* The process's message targets: the one piece of global state in the daemon. Set up while there is
 * one thread. */
static struct {
	pthread_mutex_t lock; /* guards stderr_ready and stderr_sink */
	int max_level;
	bool to_stderr;
	bool stderr_ready; /* stderr_sink was set up (perhaps without a descriptor) */
	struct log_sink stderr_sink;
	struct log_sink *sinks[SINKS_MAX]; /* borrowed */
	size_t nr_sinks;
	uint64_t dropped; /* atomic */
} state = {.lock = PTHREAD_MUTEX_INITIALIZER,
	   .max_level = LOG_NOTICE,
	   .to_stderr = true,
	   .stderr_sink.fd = -EBADF};

static void PRINTF(2, 3) line_printf(struct line *l, const char *fmt, ...)
{
	size_t room = LINE_SIZE - l->len; /* the NUL lies where the newline will be */
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->bytes + 1 + l->len, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->len += MIN((size_t)n, room - 1);
}

/*
 * Makes it one line for every reader: C0 control bytes and DEL become spaces, and so do the C1
 * controls in UTF-8 (C2 80 to C2 9F), among which are a newline (NEL) and an escape (CSI).
 */
static void line_end(struct line *l)
{
	unsigned char *p = (unsigned char *)l->bytes + 1, *end = p + l->len;

	for (; p < end; p++) {
		if (*p < 0x20 || *p == 0x7f) {
			*p = ' ';
		} else if (*p == 0xc2 && p + 1 < end && p[1] >= 0x80 && p[1] <= 0x9f) {
			p[0] = p[1] = ' ';
		}
	}
	*end = '\n';
	l->len++;
}

static const char *month_name(int month)
{
	static const char names[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

	return names[month % 12];
}

static void line_header(struct line *l, const struct log_sink *s, int level)
{
	int priority = s->facility * 8 + level, east;
	struct timespec now;
	struct tm tm;

	if (s->format == LOG_FORMAT_RAW)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	if (s->format == LOG_FORMAT_RFC3164) {
		line_printf(l, "<%d>%s %2d %02d:%02d:%02d %s[%d]: ", priority,
			    month_name(tm.tm_mon), tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
			    s->tag, (int)getpid());
		return;
	}
	east = (int)(tm.tm_gmtoff / 60);
	line_printf(l, "<%d>1 %04d-%02d-%02dT%02d:%02d:%02d.%06ld%c%02d:%02d %s %s %d - - ",
		    priority, tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
		    tm.tm_sec, now.tv_nsec / 1000, east < 0 ? '-' : '+', abs(east) / 60,
		    abs(east) % 60, s->host, s->tag, (int)getpid());
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

static void sink_close(struct log_sink *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -EBADF;
}

/* Takes its own descriptor for fd (stdout or stderr) and finds out how to write to it without
 * waiting. */
static int sink_open_fd(struct log_sink *s, int fd)
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
			__atomic_fetch_add(&state.dropped, 1, __ATOMIC_RELAXED);
			return sink_put(s, bytes, len);
		}
		sink_close(s);
	}
	n = sink_connect(s);
	return n < 0 ? n : sink_put(s, bytes, len);
}

/* Writes a line that line_end() has seen; counts it if it is lost. */
static int sink_write_line(struct log_sink *s, struct line *l)
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
	__atomic_fetch_add(&state.dropped, 1, __ATOMIC_RELAXED);
	return n < 0 ? (int)n : -EAGAIN;
}

/* Everything but the descriptor. */
static void sink_init(struct log_sink *s, const struct log_target *target, const char *tag)
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
	sink_init(s, target, tag);
	switch (target->kind) {
	case LOG_TARGET_STDOUT:
		r = sink_open_fd(s, STDOUT_FILENO);
		break;
	case LOG_TARGET_STDERR:
		r = sink_open_fd(s, STDERR_FILENO);
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
	sink_close(s);
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
	struct line l;
	int r;

	if (level > s->max_level)
		return 0;
	l.len = 0;
	line_header(&l, s, level);
	line_printf(&l, "%s", text);
	line_end(&l);
	pthread_mutex_lock(&s->lock);
	r = sink_write_line(s, &l);
	pthread_mutex_unlock(&s->lock);
	return r;
}

uint64_t log_dropped(void)
{
	return __atomic_load_n(&state.dropped, __ATOMIC_RELAXED);
}

void log_setup(int max_level, bool to_stderr)
{
	if (state.stderr_ready)
		sink_close(&state.stderr_sink);
	state.stderr_ready = false;
	state.max_level = max_level;
	state.to_stderr = to_stderr;
}

int log_add_sink(struct log_sink *s)
{
	if (state.nr_sinks == SINKS_MAX)
		return -ENOSPC;
	state.sinks[state.nr_sinks++] = s;
	return 0;
}

void log_clear_sinks(void)
{
	state.nr_sinks = 0;
}

bool log_wants(int level)
{
	return level <= state.max_level;
}

static const char *level_label(int level)
{
	switch (level) {
	case LOG_WARNING:
		return "[WARNING]";
	case LOG_NOTICE:
		return "[NOTICE]";
	case LOG_INFO:
		return "[INFO]";
	case LOG_DEBUG:
		return "[DEBUG]";
	}
	return "[ALERT]";
}

static void write_stderr(int level, const char *text)
{
	static const struct log_target target = {
		.kind = LOG_TARGET_STDERR,
		.format = LOG_FORMAT_RAW,
		.max_level = LOG_DEBUG,
	};
	struct line l;

	pthread_mutex_lock(&state.lock);
	if (!state.stderr_ready) {
		sink_init(&state.stderr_sink, &target, "");
		sink_open_fd(&state.stderr_sink, STDERR_FILENO);
		state.stderr_ready = true;
	}
	l.len = 0;
	line_printf(&l, "%-10s (%d) : %s", level_label(level), (int)getpid(), text);
	line_end(&l);
	sink_write_line(&state.stderr_sink, &l);
	pthread_mutex_unlock(&state.lock);
}

void log_message(int level, const char *fmt, ...)
{
	char text[LINE_SIZE];
	int saved = errno;
	va_list ap;

	if (!log_wants(level))
		return;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	if (state.to_stderr)
		write_stderr(level, text);
	for (size_t i = 0; i < state.nr_sinks; i++)
		log_sink_write(state.sinks[i], level, text);
	errno = saved;
}
