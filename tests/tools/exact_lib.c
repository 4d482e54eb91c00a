/*
 * What every mode of exact stands on: streams, random numbers, the loop, sockets.
 *
 * The loop owns its heap and nothing else; a watch belongs to whoever embeds it.
 */
#include "exact.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define GOLDEN 0x9e3779b97f4a7c15ULL
#define SEARCH (1024 * 1024) /* how far around a mismatch its bytes are looked for */
#define FIND_MIN 8	     /* fewer bytes than this prove nothing */
#define FIND_LEN 16
#define MAX_LINES 200

/* --- streams --- */

uint64_t mix64(uint64_t x)
{
	x += GOLDEN;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* Word i of a stream: one multiplication, so that checking is faster than the network. */
static inline uint64_t stream_word(uint64_t key, uint64_t i)
{
	uint64_t x = key + i * GOLDEN;

	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ULL;
	return x ^ (x >> 32);
}

static inline uint8_t stream_byte(uint64_t key, uint64_t off)
{
	return stream_word(key, off / 8) >> (off % 8 * 8);
}

void stream_fill(uint64_t key, uint64_t off, void *buf, size_t len)
{
	uint8_t *p = buf;
	uint64_t word;

	for (; len && off % 8; len--)
		*p++ = stream_byte(key, off++);
	for (; len >= 8; len -= 8, off += 8, p += 8) {
		word = htole64(stream_word(key, off / 8));
		memcpy(p, &word, 8);
	}
	for (; len; len--)
		*p++ = stream_byte(key, off++);
}

size_t stream_check(uint64_t key, uint64_t off, const void *buf, size_t len)
{
	const uint8_t *start = buf, *p = buf, *end = start + len;
	uint64_t word;

	for (; p < end && off % 8; p++)
		if (*p != stream_byte(key, off++))
			return p - start;
	for (; end - p >= 8; off += 8, p += 8) {
		memcpy(&word, p, 8);
		if (word != htole64(stream_word(key, off / 8)))
			break;
	}
	for (; p < end; p++)
		if (*p != stream_byte(key, off++))
			return p - start;
	return len;
}

int64_t stream_find(uint64_t key, uint64_t lo, uint64_t hi, const void *buf, size_t len)
{
	uint8_t *text, *hit;
	int64_t at = -1;

	if (len > FIND_LEN)
		len = FIND_LEN;
	if (len < FIND_MIN || lo >= hi)
		return -1;
	text = malloc(hi - lo + len);
	if (!text)
		return -1;
	stream_fill(key, lo, text, hi - lo + len);
	hit = memmem(text, hi - lo + len, buf, len);
	if (hit)
		at = lo + (hit - text);
	free(text);
	return at;
}

void stream_explain(uint64_t key, uint64_t off, const void *buf, size_t len, char *text,
		    size_t size)
{
	uint64_t lo = off > SEARCH ? off - SEARCH : 0;
	int64_t at;
	size_t i;

	text[0] = '\0';
	if (len > FIND_MIN && stream_check(key, off + 1, (const uint8_t *)buf + 1, len - 1) > 7) {
		snprintf(text, size, " (this byte was changed)");
		return;
	}
	at = stream_find(key, off + 1, off + SEARCH, buf, len);
	if (at >= 0) {
		snprintf(text, size, " (%llu bytes were lost)", (unsigned long long)(at - off));
		return;
	}
	at = stream_find(key, lo, off, buf, len);
	if (at >= 0) {
		snprintf(text, size, " (repeats from offset %lld, %llu bytes back)", (long long)at,
			 (unsigned long long)(off - at));
		return;
	}
	/* Fewer than FIND_MIN foreign bytes in front of the right ones: inserted or repeated. */
	for (i = 1; i < FIND_MIN && i + FIND_MIN < len; i++) {
		if (stream_check(key, off, (const uint8_t *)buf + i, len - i) >= FIND_MIN) {
			snprintf(text, size, " (%zu bytes too many here)", i);
			return;
		}
	}
}

/* --- random numbers --- */

uint64_t rng_next(struct rng *r)
{
	r->state += GOLDEN;
	return mix64(r->state);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return n ? rng_next(r) % n : 0;
}

uint64_t rng_log(struct rng *r, uint64_t max)
{
	unsigned int bits = 0;
	uint64_t v;

	if (max <= 1)
		return 1;
	while (bits < 62 && 2ULL << bits <= max)
		bits++;
	bits = rng_below(r, bits + 1);
	v = (1ULL << bits) + rng_below(r, 1ULL << bits);
	return v < max ? v : max;
}

bool rng_pct(struct rng *r, uint64_t pct)
{
	return rng_below(r, 100) < pct;
}

/* --- loop --- */

static struct {
	int epoll;
	bool stop;
	void (*on_signal)(void);
	struct watch **heap;
	size_t used, room;
} loop;

static void heap_set(size_t pos, struct watch *w)
{
	loop.heap[pos] = w;
	w->pos = pos;
}

static void heap_up(size_t pos, struct watch *w)
{
	for (; pos && loop.heap[(pos - 1) / 2]->at > w->at; pos = (pos - 1) / 2)
		heap_set(pos, loop.heap[(pos - 1) / 2]);
	heap_set(pos, w);
}

static void heap_down(size_t pos, struct watch *w)
{
	size_t child;

	while ((child = 2 * pos + 1) < loop.used) {
		if (child + 1 < loop.used && loop.heap[child + 1]->at < loop.heap[child]->at)
			child++;
		if (loop.heap[child]->at >= w->at)
			break;
		heap_set(pos, loop.heap[child]);
		pos = child;
	}
	heap_set(pos, w);
}

static void heap_remove(struct watch *w)
{
	size_t pos = w->pos;
	struct watch *last = loop.heap[--loop.used];

	w->at = 0;
	if (last == w)
		return;
	heap_up(pos, last);
	heap_down(last->pos, last);
}

void watch_at(struct watch *w, int64_t at_ns)
{
	if (w->at == at_ns)
		return;
	if (w->at)
		heap_remove(w);
	if (!at_ns)
		return;
	if (loop.used == loop.room) {
		loop.room = loop.room ? 2 * loop.room : 256;
		loop.heap = realloc(loop.heap, loop.room * sizeof(*loop.heap));
		if (!loop.heap)
			die("out of memory");
	}
	w->at = at_ns;
	heap_up(loop.used++, w);
}

static void watch_ctl(struct watch *w, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	if (epoll_ctl(loop.epoll, op, w->fd, &ev) < 0)
		die("epoll_ctl: %s", strerror(errno));
	w->events = events;
}

void watch_add(struct watch *w, uint32_t events)
{
	watch_ctl(w, EPOLL_CTL_ADD, events);
}

void watch_want(struct watch *w, uint32_t events)
{
	if (w->events != events)
		watch_ctl(w, EPOLL_CTL_MOD, events);
}

void watch_close(struct watch *w)
{
	watch_at(w, 0);
	if (w->fd >= 0 && close(w->fd) < 0 && errno != ECONNRESET)
		die("close: %s", strerror(errno));
	w->fd = -1;
}

void watch_abort(struct watch *w)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (setsockopt(w->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0)
		die("SO_LINGER: %s", strerror(errno));
	watch_close(w);
}

static void signal_io(struct watch *w, uint32_t events)
{
	struct signalfd_siginfo si;

	(void)events;
	if (read(w->fd, &si, sizeof(si)) != sizeof(si))
		die("signalfd: %s", strerror(errno));
	if (loop.on_signal)
		loop.on_signal();
	else
		loop_stop();
}

void loop_init(void (*on_signal)(void))
{
	static struct watch w = {.io = signal_io};
	sigset_t set;

	loop.on_signal = on_signal;
	loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop.epoll < 0)
		die("epoll_create1: %s", strerror(errno));
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		die("sigprocmask: %s", strerror(errno));
	w.fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (w.fd < 0)
		die("signalfd: %s", strerror(errno));
	watch_add(&w, EPOLLIN);
}

void loop_stop(void)
{
	loop.stop = true;
}

/* Waits for events until the next timer. Whole milliseconds where epoll_pwait2 is missing. */
static int loop_wait(struct epoll_event *events, int max)
{
	int64_t wait = loop.used ? loop.heap[0]->at - now_ns() : NS_PER_SEC;
	static bool old_kernel;
	struct timespec ts;
	int n;

	if (wait < 0)
		wait = 0;
	ts.tv_sec = wait / NS_PER_SEC;
	ts.tv_nsec = wait % NS_PER_SEC;
	if (!old_kernel) {
		n = epoll_pwait2(loop.epoll, events, max, &ts, NULL);
		if (n >= 0 || errno != ENOSYS)
			return n;
		old_kernel = true; /* before 5.11, or valgrind */
	}
	wait = (wait + NS_PER_MS - 1) / NS_PER_MS;
	return epoll_wait(loop.epoll, events, max, wait < 1000 ? wait : 1000);
}

void loop_run(void)
{
	struct epoll_event events[256];
	struct watch *w;
	int64_t now;
	int i, n;

	while (!loop.stop) {
		n = loop_wait(events, 256);
		if (n < 0 && errno != EINTR)
			die("epoll_wait: %s", strerror(errno));
		for (i = 0; i < n; i++) {
			w = events[i].data.ptr;
			w->io(w, events[i].events);
		}
		for (now = now_ns(); loop.used && loop.heap[0]->at <= now;) {
			w = loop.heap[0];
			heap_remove(w);
			w->timer(w);
		}
	}
}

static void (*second_fn)(void);

static void second_timer(struct watch *w)
{
	watch_at(w, now_ns() + NS_PER_SEC);
	second_fn();
}

void every_second(void (*fn)(void))
{
	static struct watch w = {.fd = -1, .timer = second_timer};

	second_fn = fn;
	watch_at(&w, now_ns() + NS_PER_SEC);
}

/* --- sockets --- */

int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

void raise_nofile(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		die("getrlimit: %s", strerror(errno));
	r.rlim_cur = r.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &r) < 0)
		die("setrlimit: %s", strerror(errno));
}

/* "1.2.3.4:80" or "[::1]:80". Numbers only: a test must not depend on a resolver. */
int addr_parse(struct addr *ret, const char *text)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->sa;
	struct sockaddr_in *in = (struct sockaddr_in *)&ret->sa;
	const char *colon = strrchr(text, ':');
	unsigned long port;
	char host[64], *end;
	size_t len;

	if (!colon || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	len = colon - text;
	if (*end || !port || port > 65535 || !len || len >= sizeof(host))
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &in6->sin6_addr) != 1)
			return -EINVAL;
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		ret->len = sizeof(*in6);
		return 0;
	}
	if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
		return -EINVAL;
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	ret->len = sizeof(*in);
	return 0;
}

void set_int(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)) < 0)
		die("setsockopt(%d, %d): %s", level, name, strerror(errno));
}

int socket_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		die("SO_ERROR: %s", strerror(errno));
	return err;
}

static void (*accepted_fn)(int fd);

static void listener_io(struct watch *w, uint32_t events)
{
	int fd, i;

	(void)events;
	for (i = 0; i < 64; i++) {
		fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			accepted_fn(fd);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno != ECONNABORTED && errno != EINTR && errno != EPROTO)
			die("accept: %s", strerror(errno));
	}
}

void listen_all(const struct options *o, void (*accepted)(int fd))
{
	static struct watch w[MAX_ADDRS];
	const struct addr *a;
	size_t i;

	accepted_fn = accepted;
	for (i = 0; i < o->listen.count; i++) {
		a = &o->listen.at[i];
		w[i].io = listener_io;
		w[i].fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (w[i].fd < 0)
			die("socket: %s", strerror(errno));
		set_int(w[i].fd, SOL_SOCKET, SO_REUSEADDR, 1);
		if (a->sa.ss_family == AF_INET6)
			set_int(w[i].fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
		if (o->rcvbuf)
			set_int(w[i].fd, SOL_SOCKET, SO_RCVBUF, o->rcvbuf);
		if (bind(w[i].fd, (const struct sockaddr *)&a->sa, a->len) < 0)
			die("bind: %s", strerror(errno));
		if (listen(w[i].fd, 4096) < 0)
			die("listen: %s", strerror(errno));
		watch_add(&w[i], EPOLLIN);
	}
	printf("ready\n");
	fflush(stdout);
}

int connect_start(const struct options *o, uint64_t n, int rcvbuf)
{
	const struct addr *a = &o->connect.at[n % o->connect.count];
	int err, fd;

	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (rcvbuf)
		set_int(fd, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	if (connect(fd, (const struct sockaddr *)&a->sa, a->len) < 0 && errno != EINPROGRESS) {
		err = errno;
		close(fd);
		return -err;
	}
	return fd;
}

/* --- reports --- */

static unsigned int lines;

void die(const char *what, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, what);
	vfprintf(stderr, what, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

bool complaining(void)
{
	return lines < MAX_LINES;
}

void complain(const char *fmt, ...)
{
	va_list ap;

	if (lines++ >= MAX_LINES) {
		if (lines == MAX_LINES + 1)
			fprintf(stderr, "%s: further errors are only counted\n",
				program_invocation_short_name);
		return;
	}
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
}

void write_stats(const char *path, const char *line)
{
	char tmp[4096];
	FILE *f;

	if (!path)
		return;
	if (snprintf(tmp, sizeof(tmp), "%s.%d.tmp", path, (int)getpid()) >= (int)sizeof(tmp))
		die("%s: name too long", path);
	f = fopen(tmp, "we");
	if (!f)
		die("%s: %s", tmp, strerror(errno));
	if (fprintf(f, "%s\n", line) < 0 || fclose(f) != 0)
		die("%s: %s", tmp, strerror(errno));
	if (rename(tmp, path) < 0)
		die("%s: %s", path, strerror(errno));
}
