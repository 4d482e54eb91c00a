/* SPDX-License-Identifier: GPL-2.0-or-later */
/* loop.c - see load.h: epoll, sockets, time. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 256

static int epoll_fd = -1;

static void __attribute__((noreturn))
end_with(const char *status, const char *what, va_list args, int code)
{
	printf("status=%s reason=", status);
	vprintf(what, args);
	printf("\n");
	fflush(stdout);
	_exit(code);
}

void failed(const char *what, ...)
{
	va_list args;

	va_start(args, what);
	end_with("failed", what, args, EXIT_FAILED);
}

void wrong(const char *what, ...)
{
	va_list args;

	va_start(args, what);
	end_with("wrong", what, args, EXIT_WRONG);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* ---- loop ---- */

void loop_init(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		failed("epoll_create: %m");
}

static void handle(uint64_t left_ns)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	struct timespec left = {
		.tv_sec = (time_t)(left_ns / NS_PER_SEC),
		.tv_nsec = (long)(left_ns % NS_PER_SEC),
	};
	int n;

	n = epoll_pwait2(epoll_fd, events, EVENTS_AT_ONCE, &left, NULL);
	if (n < 0 && errno != EINTR)
		failed("epoll_pwait2: %m");
	for (int i = 0; i < n; i++) {
		struct watch *w = events[i].data.ptr;

		w->io(w, events[i].events);
	}
}

void loop_run_for(uint64_t ns)
{
	uint64_t now, end = now_ns() + ns;

	while ((now = now_ns()) < end)
		handle(end - now);
}

bool loop_run_until(bool (*done)(void), uint64_t ns)
{
	uint64_t now, end = now_ns() + ns;

	while (!done()) {
		now = now_ns();
		if (now >= end)
			return false;
		handle(end - now);
	}
	return true;
}

static void control(int op, struct watch *w, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = w};

	if (epoll_ctl(epoll_fd, op, w->fd, &e))
		failed("epoll_ctl: %m");
}

void watch_add(struct watch *w, uint32_t events)
{
	control(EPOLL_CTL_ADD, w, events);
}

void watch_set(struct watch *w, uint32_t events)
{
	control(EPOLL_CTL_MOD, w, events);
}

void watch_close(struct watch *w)
{
	close(w->fd);
	w->fd = -1;
}

static void (*tick)(void);

static void on_tick(struct watch *w, uint32_t events)
{
	uint64_t times;

	(void)events;
	if (read(w->fd, &times, sizeof(times)) == (ssize_t)sizeof(times))
		tick();
}

void every(uint64_t ns, void (*fn)(void))
{
	static struct watch timer = {.io = on_tick};
	struct timespec t = {.tv_nsec = (long)ns};
	struct itimerspec when = {.it_interval = t, .it_value = t};

	tick = fn;
	timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (timer.fd < 0 || timerfd_settime(timer.fd, 0, &when, NULL))
		failed("timerfd: %m");
	watch_add(&timer, EPOLLIN);
}

/* ---- sockets ---- */

int addr_parse(struct addr *ret, const char *text)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&ret->sa;
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	unsigned long port;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	port = strtoul(colon + 1, &end, 10);
	if (*end || end == colon + 1 || port > 65535)
		return -EINVAL;
	*ret = (struct addr){.len = sizeof(*in)};
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : -EINVAL;
}

static int tcp_socket(int flags)
{
	int fd, on = 1;

	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		failed("socket: %m");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

int listen_at(const struct addr *at)
{
	int fd = tcp_socket(SOCK_NONBLOCK), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)&at->sa, at->len) || listen(fd, 65535))
		failed("listen: %m");
	return fd;
}

int connect_to(const struct addr *to)
{
	int fd = tcp_socket(SOCK_NONBLOCK);

	if (connect(fd, (const struct sockaddr *)&to->sa, to->len) && errno != EINPROGRESS)
		failed("connect: %m");
	return fd;
}

int connect_wait(const struct addr *to, uint64_t ns)
{
	struct timeval t = {.tv_sec = (time_t)(ns / NS_PER_SEC)};
	int fd = tcp_socket(0);

	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	if (connect(fd, (const struct sockaddr *)&to->sa, to->len))
		failed("connect: %m");
	return fd;
}

void set_linger_reset(int fd)
{
	struct linger l = {.l_onoff = 1};

	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)))
		failed("SO_LINGER: %m");
}

void raise_nofile(void)
{
	struct rlimit r = {.rlim_cur = 65536, .rlim_max = 65536};

	if (!setrlimit(RLIMIT_NOFILE, &r))
		return;
	if (!getrlimit(RLIMIT_NOFILE, &r)) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

uint64_t random_key(void)
{
	uint64_t key;

	if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
		failed("getrandom: %m");
	return key;
}
