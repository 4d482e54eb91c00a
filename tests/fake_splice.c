/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fake_splice.c - see fake_splice.h. */
#include "fake_splice.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "util.h"

#define SEGMENT 65483	   /* the largest one seen on the loopback */
#define EVENTS_MAX 4096
#define STATE_ESTABLISHED 1
#define STATE_CLOSE 7

/* Socket `index`, and the direction that is read from it. */
struct fake_end {
	int fd;		   /* -1 = not in the map */
	uint64_t read;	   /* of the passed bytes */
	uint64_t late;	   /* of them: not told to be there */
	char *ingress;	   /* owned: passed bytes that had to make way for a redirect */
	size_t set_aside;
	char *queue;	   /* owned: redirected, not yet written to the peer */
	size_t queued;
	bool held, stay;
	enum flow_reason pause;
};

struct splice {
	struct flow *flows;
	struct fake_end *ends;
	uint32_t nr_ends;
	struct flow_event events[EVENTS_MAX];
	uint32_t nr_events;
	int event_fd;
	int refusal;
	bool frozen;
	uint32_t shake;
	uint32_t joined, owed;
	uint64_t counters[FLOW_EXIT_MAX];
	char broken[200];
};

static struct splice *the_one;

static void broke(struct splice *sp, const char *fmt, ...) PRINTF(2, 3);

static void broke(struct splice *sp, const char *fmt, ...)
{
	va_list args;

	if (*sp->broken)
		return;
	va_start(args, fmt);
	vsnprintf(sp->broken, sizeof(sp->broken), fmt, args);
	va_end(args);
}

/* One in n, when shaken. */
static bool dice(struct splice *sp, uint32_t n)
{
	if (!sp->shake)
		return false;
	sp->shake = sp->shake * 1664525u + 1013904223u;
	return (sp->shake >> 8) % n == 0;
}

/* ---- what the kernel knows of a socket ---- */

static struct tcp_info info_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
	return info;
}

static size_t count_of(int fd, unsigned long request)
{
	int n;

	return syscall(SYS_ioctl, fd, request, &n) < 0 ? 0 : (size_t)n;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	return cookie;
}

/* Bytes on their way to the peer that its TCP has not sent yet. */
static uint64_t backlog(const struct splice *sp, uint32_t index)
{
	const struct flow *f = &sp->flows[index];
	int fd = sp->ends[index ^ 1].fd;
	uint64_t acked = info_of(fd).tcpi_bytes_acked;
	uint64_t sent = acked + count_of(fd, SIOCOUTQ) - count_of(fd, SIOCOUTQNSD);
	uint64_t given = f->extra + f->redirected + flow_get(f, moved);

	return given > sent ? given - sent : 0;
}

static bool fits(uint64_t queued, size_t len, uint64_t limit)
{
	return queued == 0 || queued + len <= limit;
}

/* ---- the program ---- */

static void pass(struct splice *sp, struct flow *f, size_t len, enum flow_exit way)
{
	flow_set(f, passed, f->passed + len);
	sp->counters[way]++;
}

/* Appends up to len bytes from the socket to a buffer. Returns how many; 0 if there are none. */
static size_t take(int fd, char **buffer, size_t *length, size_t len)
{
	char *bigger = realloc(*buffer, *length + len);
	ssize_t n;

	if (!bigger)
		abort();
	*buffer = bigger;
	n = recvfrom(fd, bigger + *length, len, MSG_DONTWAIT, NULL, NULL);
	if (n <= 0)
		return 0;
	*length += (size_t)n;
	return (size_t)n;
}

/*
 * Passed bytes that were written but are still unread leave the socket: those of the kernel lie in a queue of their own. In the
 * socket they would hold the memory of all segments that TCP has merged with theirs, and keep its window closed.
 */
static void set_aside(struct splice *sp, uint32_t index)
{
	struct fake_end *e = &sp->ends[index];
	size_t unread = (size_t)(sp->flows[index].passed - e->read) - e->set_aside;
	size_t n = 1;

	for (; unread && n; unread -= n)
		n = take(e->fd, &e->ingress, &e->set_aside, unread);
}

static bool redirect(struct splice *sp, uint32_t index, size_t len)
{
	struct fake_end *e = &sp->ends[index];
	struct flow *f = &sp->flows[index];
	size_t n;

	set_aside(sp, index);
	n = take(e->fd, &e->queue, &e->queued, len);
	if (!n)
		return false;
	flow_set(f, redirected, f->redirected + n);
	f->segments++;
	sp->counters[FLOW_EXIT_KERNEL]++;
	return true;
}

/* The program's answer to one segment; see shunt_verdict(). Returns false when nothing came of it. */
static bool verdict(struct splice *sp, uint32_t index, size_t len)
{
	struct fake_end *e = &sp->ends[index];
	struct flow *f = &sp->flows[index];
	enum flow_reason reason = FLOW_REASON_NONE;
	uint64_t queued;

	if (!flow_get(f, ready)) {
		flow_set(f, mode, FLOW_USER);
		pass(sp, f, len, FLOW_EXIT_NOT_READY);
		return true;
	}
	queued = backlog(sp, index);
	if (f->mode == FLOW_USER) {
		if (!flow_get(f, want_kernel) || f->passed != flow_get(f, moved) || e->stay ||
		    !fits(queued, len, f->limit - f->limit / 4) || dice(sp, 3)) {
			pass(sp, f, len, FLOW_EXIT_USER);
			return true;
		}
		flow_set(f, mode, FLOW_KERNEL);
		f->reason = FLOW_REASON_RESUMED;
		f->resumes++;
		fake_splice_event(sp, index, FLOW_REASON_RESUMED, cookie_of(e->fd));
		return redirect(sp, index, len);
	}
	f->peak = MAX(f->peak, queued + len);
	if (!flow_get(f, want_kernel))
		reason = FLOW_REASON_WITHDRAWN;
	else if (!fits(queued, len, f->limit) || dice(sp, 8))
		reason = FLOW_REASON_LIMIT;
	else
		reason = e->pause;
	if (!reason)
		return redirect(sp, index, len);
	e->pause = FLOW_REASON_NONE;
	flow_set(f, mode, FLOW_USER);
	f->reason = reason;
	f->pauses++;
	fake_splice_event(sp, index, reason, cookie_of(e->fd));
	pass(sp, f, len, FLOW_EXIT_PAUSED);
	return true;
}

/* Bytes in the socket that the program has not seen. */
static size_t unseen(const struct splice *sp, uint32_t index)
{
	const struct fake_end *e = &sp->ends[index];
	uint64_t unread = sp->flows[index].passed - e->read - e->set_aside;
	size_t arrived = count_of(e->fd, FIONREAD);

	return arrived > unread ? arrived - (size_t)unread : 0;
}

static void run_program(struct splice *sp, uint32_t index)
{
	size_t left;

	while (!sp->frozen && (left = unseen(sp, index)) > 0) {
		size_t len = SEGMENT;

		if (sp->shake) {
			dice(sp, 1);
			len = (sp->shake >> 8) % (SEGMENT / 4) + 1;
		}
		if (!verdict(sp, index, MIN(left, len)))
			return;
	}
}

/* ---- the worker ---- */

static void run_worker(struct splice *sp, uint32_t index)
{
	struct fake_end *e = &sp->ends[index];
	int peer = sp->ends[index ^ 1].fd;
	ssize_t n;

	if (!e->queued || e->held || peer < 0 || dice(sp, 2))
		return;
	if (info_of(peer).tcpi_state == STATE_CLOSE) {
		e->queued = 0; /* eaten: the peer was reset */
		return;
	}
	n = sendto(peer, e->queue, e->queued, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
	if (n <= 0)
		return;
	e->queued -= (size_t)n;
	memmove(e->queue, e->queue + n, e->queued);
}

void fake_splice_run(struct splice *sp)
{
	for (uint32_t i = 0; i < sp->nr_ends; i++) {
		if (sp->ends[i].fd < 0)
			continue;
		run_program(sp, i);
		run_worker(sp, i);
		if (sp->flows[i].moved > sp->flows[i].passed)
			broke(sp, "direction %u: moved %lu of %lu passed bytes", i,
			      (unsigned long)sp->flows[i].moved, (unsigned long)sp->flows[i].passed);
	}
}

/* ---- what userspace does to a joined socket ---- */

static int find(int fd)
{
	for (uint32_t i = 0; the_one && i < the_one->nr_ends; i++)
		if (the_one->ends[i].fd == fd && fd >= 0)
			return (int)i;
	return -1;
}

/* Shows the passed bytes alone, as the sockmap's recvmsg does. */
ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	int index = find(fd);
	struct fake_end *e;
	struct flow *f;
	char byte;
	ssize_t n;

	if (index < 0)
		return recvfrom(fd, buf, len, flags, NULL, NULL);
	e = &the_one->ends[index];
	f = &the_one->flows[index];
	if (f->mode == FLOW_KERNEL && f->passed == e->read && !(flags & MSG_PEEK))
		broke(the_one, "read from socket %d in KERNEL mode", index);
	run_program(the_one, (uint32_t)index);
	if (e->set_aside) {
		len = MIN(len, e->set_aside);
		memcpy(buf, e->ingress, len);
		if (flags & MSG_PEEK)
			return (ssize_t)len;
		e->read += len;
		e->set_aside -= len;
		memmove(e->ingress, e->ingress + len, e->set_aside);
		return (ssize_t)len;
	}
	if (f->passed == e->read) {
		n = recvfrom(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL);
		if (n > 0) {
			errno = EAGAIN;
			n = -1;
		}
		return n;
	}
	len = (size_t)MIN(len, f->passed - e->read - (flags & MSG_PEEK ? e->late : 0));
	n = recvfrom(fd, buf, len, flags, NULL, NULL);
	if (n > 0 && !(flags & MSG_PEEK)) {
		e->read += (uint64_t)n;
		if (f->passed == flow_get(f, moved))
			set_aside(the_one, (uint32_t)index);
	}
	return n;
}

static int failing_fd, failing_error;

void fake_send_fails(int fd, int error)
{
	failing_fd = fd;
	failing_error = error;
}

/* Of a joined socket only what was passed can be read. */
int ioctl(int fd, unsigned long request, ...)
{
	int index = request == SIOCINQ ? find(fd) : -1;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (index < 0)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	*(int *)arg = (int)(the_one->flows[index].passed - the_one->ends[index].read - the_one->ends[index].late);
	return 0;
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	int index = find(fd);

	if (failing_error && fd == failing_fd) {
		errno = failing_error;
		return -1;
	}
	if (index >= 0) {
		uint32_t from = (uint32_t)index ^ 1;

		if (the_one->flows[from].mode == FLOW_KERNEL)
			broke(the_one, "direction %u was written in KERNEL mode", from);
		if (the_one->ends[from].queued)
			broke(the_one, "direction %u was written before %zu redirected bytes", from,
			      the_one->ends[from].queued);
	}
	return sendto(fd, buf, len, flags, NULL, 0);
}

int shutdown(int fd, int how)
{
	int index = find(fd);

	if (index >= 0) {
		uint32_t from = (uint32_t)index ^ 1;
		const struct fake_end *e = &the_one->ends[from];

		if (e->queued)
			broke(the_one, "FIN of direction %u before %zu redirected bytes", from, e->queued);
		if (unseen(the_one, from))
			broke(the_one, "FIN of direction %u before the program has seen the last bytes", from);
		if (the_one->flows[from].moved != the_one->flows[from].passed)
			broke(the_one, "FIN of direction %u before the last bytes were written", from);
	}
	return (int)syscall(SYS_shutdown, fd, how);
}

/* ---- the interface of splice.h ---- */

struct splice *fake_splice_new(uint32_t max_sessions)
{
	struct splice *sp = calloc(1, sizeof(*sp));

	if (!sp)
		abort();
	sp->nr_ends = max_sessions * 2;
	sp->flows = aligned_alloc(64, sp->nr_ends * sizeof(*sp->flows));
	sp->ends = calloc(sp->nr_ends, sizeof(*sp->ends));
	sp->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!sp->flows || !sp->ends || sp->event_fd < 0)
		abort();
	memset(sp->flows, 0, sp->nr_ends * sizeof(*sp->flows));
	for (uint32_t i = 0; i < sp->nr_ends; i++)
		sp->ends[i].fd = -1;
	the_one = sp; /* that of a test that failed is left behind */
	return sp;
}

struct splice *splice_free(struct splice *sp)
{
	if (!sp)
		return NULL;
	for (uint32_t i = 0; i < sp->nr_ends; i++) {
		free(sp->ends[i].queue);
		free(sp->ends[i].ingress);
	}
	close(sp->event_fd);
	free(sp->flows);
	free(sp->ends);
	free(sp);
	the_one = NULL;
	return NULL;
}

int splice_join_again(struct splice *sp, uint32_t session, struct splice_end ends[2])
{
	(void)sp;
	(void)session;
	(void)ends;
	return -EAGAIN;
}

int splice_join(struct splice *sp, uint32_t session, uint32_t thread, struct splice_end ends[2], uint64_t limit)
{
	(void)thread;
	sp->owed++;
	for (uint32_t i = 0; i < 2; i++) {
		uint64_t acked = info_of(ends[i].fd).tcpi_bytes_acked;

		ends[i].cookie = cookie_of(ends[i].fd);
		if (ends[i].extra != acked + count_of(ends[i].fd, SIOCOUTQ))
			broke(sp, "end %u joins with extra %lu, was given %lu", i, (unsigned long)ends[i].extra,
			      (unsigned long)(acked + count_of(ends[i].fd, SIOCOUTQ)));
		if (sp->ends[session * 2 + i].fd >= 0)
			broke(sp, "session %u joins again", session);
		sp->flows[session * 2 + i] = (struct flow){
			.mode = ends[i].want_kernel ? FLOW_KERNEL : FLOW_USER,
			.check_at = limit,
			.extra = ends[!i].extra,
			.limit = limit,
			.want_kernel = ends[i].want_kernel,
		};
	}
	if (sp->refusal)
		return sp->refusal;
	for (uint32_t i = 0; i < 2; i++)
		if (info_of(ends[i].fd).tcpi_state != STATE_ESTABLISHED)
			return -EOPNOTSUPP;
	for (uint32_t i = 0; i < 2; i++) {
		flow_set(&sp->flows[session * 2 + i], ready, 1);
		sp->ends[session * 2 + i] = (struct fake_end){ .fd = ends[i].fd };
	}
	sp->joined++;
	run_program(sp, session * 2);
	run_program(sp, session * 2 + 1);
	return 0;
}

int splice_reclaim(struct splice *sp)
{
	(void)sp;
	return 0;
}

void splice_sweep(struct splice *sp, bool (*used)(void *arg, uint32_t session), void *arg)
{
	(void)sp;
	(void)used;
	(void)arg;
}

void splice_leave(struct splice *sp, uint32_t session, const uint64_t cookies[2])
{
	sp->owed--;
	for (uint32_t i = 0; i < 2; i++) {
		struct fake_end *e = &sp->ends[session * 2 + i];

		if (e->fd >= 0 && cookie_of(e->fd) == cookies[i])
			broke(sp, "session %u leaves with an open socket", session);
		free(e->queue);
		free(e->ingress);
		*e = (struct fake_end){ .fd = -1 };
		sp->flows[session * 2 + i] = (struct flow){ 0 };
	}
}

struct flow *splice_flow(struct splice *sp, uint32_t index)
{
	return &sp->flows[index];
}

int splice_event_fd(const struct splice *sp, uint32_t thread)
{
	(void)thread;
	return sp->event_fd;
}

void splice_dispatch(struct splice *sp, uint32_t thread, void (*fn)(void *arg, const struct flow_event *e), void *arg)
{
	eventfd_t value;

	(void)thread;
	eventfd_read(sp->event_fd, &value);
	for (uint32_t i = 0; i < sp->nr_events; i++)
		fn(arg, &sp->events[i]);
	sp->nr_events = 0;
}

void splice_counters(const struct splice *sp, uint64_t ret[FLOW_EXIT_MAX])
{
	memcpy(ret, sp->counters, sizeof(sp->counters));
}

/* ---- on demand ---- */

void fake_splice_refuse(struct splice *sp, int error)
{
	sp->refusal = error;
}

bool splice_has(struct splice *sp, uint32_t index, uint64_t cookie)
{
	return sp->ends[index].fd >= 0 && cookie_of(sp->ends[index].fd) == cookie;
}

void fake_splice_freeze(struct splice *sp, bool frozen)
{
	sp->frozen = frozen;
}

void fake_splice_hold(struct splice *sp, uint32_t index, bool held)
{
	sp->ends[index].held = held;
}

size_t fake_splice_queued(const struct splice *sp, uint32_t index)
{
	return sp->ends[index].queued;
}

void fake_splice_pause(struct splice *sp, uint32_t index, enum flow_reason reason)
{
	sp->ends[index].pause = reason;
}

void fake_splice_stay(struct splice *sp, uint32_t index, bool stay)
{
	sp->ends[index].stay = stay;
}

void fake_splice_late(struct splice *sp, uint32_t index, uint64_t bytes)
{
	sp->ends[index].late = bytes;
}

void fake_splice_shake(struct splice *sp, uint32_t seed)
{
	sp->shake = seed;
}

void fake_splice_event(struct splice *sp, uint32_t index, enum flow_reason reason, uint64_t cookie)
{
	if (sp->nr_events == EVENTS_MAX)
		abort();
	sp->events[sp->nr_events++] = (struct flow_event){ index, reason, cookie };
	eventfd_write(sp->event_fd, 1);
}

uint32_t fake_splice_joined(const struct splice *sp)
{
	return sp->joined;
}

uint32_t fake_splice_owed(const struct splice *sp)
{
	return sp->owed;
}

const char *fake_splice_broken(const struct splice *sp)
{
	return *sp->broken ? sp->broken : NULL;
}
