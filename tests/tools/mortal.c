/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mortal.c - linked into build/shunt-mortal: a daemon whose worker dies (SIGKILL) at chosen points of a session's life, which are before and
 * after each system call that sessions make: the linker puts these functions in the calls' place (--wrap, see the Makefile).
 *
 *	SHUNT_MORTAL=N		the first client's worker dies at its first point, the third one's at its second, and so on until the Nth;
 *				then from the beginning. (The second one's does not: it begins while the first one ends.) Points are
 *				counted from the accept(2) of a client, over the worker's whole process: so one thread, and clients one
 *				at a time.
 *	SHUNT_MORTAL_CALL=NAME	but of these, that die, every other one does so at one of its first 20 points of that call
 *	SHUNT_MORTAL_AGAIN=M	and the next worker dies too, at one of its first M points
 *	SHUNT_MORTAL_WORD=TEXT	whoever is to send(2) something that begins with TEXT dies
 *	SHUNT_MORTAL_LOOP=1	or rather than die, runs in circles for ever,
 *	SHUNT_MORTAL_MURDER=1	or kills its supervisor, as somebody would who has taken it over
 *
 * Each death is a line on stderr: "mortal: client 7 dies at point 7, before recv".
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

/* What all workers see. */
static struct common {
	uint32_t clients; /* accepted so far */
	uint32_t points;  /* since the last of them, or since the last death */
	uint32_t at;	  /* the point to die at; 0 = none */
	uint32_t deaths;  /* of this client */
	bool picky;	  /* only points of `call` count */
} *common;

static uint32_t period, again;
static bool is_worker; /* the supervisor does not die */
static const char *word, *call;
static pid_t supervisor;

static uint32_t number_of(const char *name)
{
	const char *text = getenv(name);

	return text ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

static __attribute__((constructor)) void begin(void)
{
	common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (common == MAP_FAILED)
		abort();
	period = number_of("SHUNT_MORTAL");
	again = number_of("SHUNT_MORTAL_AGAIN");
	word = getenv("SHUNT_MORTAL_WORD");
	call = getenv("SHUNT_MORTAL_CALL");
	supervisor = getpid();
}

static void die(const char *when, const char *name)
{
	char line[120];
	int len = snprintf(line, sizeof(line), "mortal: client %u dies at point %u, %s %s\n", common->clients, common->points, when, name);

	common->deaths++;
	common->at = common->deaths == 1 && again ? 1 + common->clients * 2654435761u / 7 % again : 0;
	common->points = 0;
	common->picky = false;
	if (write(STDERR_FILENO, line, (size_t)len) != len)
		abort();
	for (; getenv("SHUNT_MORTAL_LOOP");)
		;
	if (getenv("SHUNT_MORTAL_MURDER"))
		kill(supervisor, SIGKILL);
	raise(SIGKILL);
}

static void point(const char *when, const char *name)
{
	int error = errno;

	if (!is_worker || (common->picky && strcmp(name, call) != 0))
		return;
	common->points++;
	if (common->points == common->at)
		die(when, name);
	errno = error;
}

static void client_came(void)
{
	uint32_t n = common->clients++ / 2;

	common->points = common->deaths = 0;
	common->picky = call && n % 2;
	if (call)
		n /= 2;
	common->at = period && common->clients % 2 ? n % (common->picky ? 20 : period) + 1 : 0;
}

#define MORTAL(type, name, params, args)                                                                               \
	type __real_##name params;                                                                                     \
	type __wrap_##name params;                                                                                     \
	type __wrap_##name params                                                                                      \
	{                                                                                                              \
		type ret;                                                                                              \
                                                                                                                       \
		point("before", #name);                                                                                \
		ret = __real_##name args;                                                                              \
		point("after", #name);                                                                                 \
		return ret;                                                                                            \
	}

MORTAL(int, socket, (int domain, int type, int protocol), (domain, type, protocol))
MORTAL(int, connect, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len))
MORTAL(int, close, (int fd), (fd))
MORTAL(int, shutdown, (int fd, int how), (fd, how))
MORTAL(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len), (fd, level, name, value, len))
MORTAL(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *len), (fd, level, name, value, len))
MORTAL(ssize_t, recv, (int fd, void *buf, size_t len, int flags), (fd, buf, len, flags))
MORTAL(ssize_t, read, (int fd, void *buf, size_t len), (fd, buf, len))
MORTAL(ssize_t, splice, (int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned int flags), (in, in_at, out, out_at, len, flags))
MORTAL(int, epoll_ctl, (int epoll, int op, int fd, struct epoll_event *event), (epoll, op, fd, event))
MORTAL(int, madvise, (void *addr, size_t len, int advice), (addr, len, advice))
MORTAL(int, bpf_map_update_elem, (int fd, const void *key, const void *value, __u64 flags), (fd, key, value, flags))
MORTAL(int, bpf_map_delete_elem, (int fd, const void *key), (fd, key))

ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
	ssize_t ret;

	if (word && is_worker && len >= strlen(word) && !memcmp(buf, word, strlen(word)))
		die("before", "send");
	point("before", "send");
	ret = __real_send(fd, buf, len, flags);
	point("after", "send");
	return ret;
}

int __real_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
int __wrap_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int ret = __real_accept4(fd, addr, len, flags);

	if (ret >= 0 && is_worker) {
		client_came();
		point("after", "accept4");
	}
	return ret;
}

/* A worker's first call. */
int __real_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int __wrap_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int __wrap_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	is_worker = is_worker || option == PR_SET_PDEATHSIG;
	return __real_prctl(option, a, b, c, d);
}

/* The supervisor's patience, which tests do not have: it makes a worker wait that comes after one that did not live for long. */
int __real_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout);
int __wrap_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout);
int __wrap_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
	const struct timespec soon = {.tv_nsec = 5000000};

	return __real_sigtimedwait(set, info, timeout->tv_sec || timeout->tv_nsec > soon.tv_nsec ? &soon : timeout);
}
