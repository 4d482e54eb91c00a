/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * selftest.c - see load.h: a generator that finds nothing wrong proves something only if it would.
 * A server, and a client that uploads, put one fault into each of their streams: `verify` must say
 * so, and must be content without. Loopback, no privileges, a second.
 */
#include "load.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int passed, nr_failed;

static void report(bool ok, const char *what, const char *which)
{
	printf("%s %s%s\n", ok ? "ok" : "FAIL", what, which);
	fflush(stdout);
	*(ok ? &passed : &nr_failed) += 1;
}

static pid_t start_server(const struct options *o, struct addr *at)
{
	socklen_t len = sizeof(at->sa);
	int fd;
	pid_t pid;

	if (addr_parse(at, "127.0.0.1:0"))
		abort();
	fd = listen_at(at);
	getsockname(fd, (struct sockaddr *)&at->sa, &len);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		failed("fork: %m");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		server_run(fd, o);
	}
	close(fd);
	return pid;
}

/* Its exit status, without what it prints. */
static int run_quietly(int (*mode)(const struct options *o), const struct options *o)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		failed("fork: %m");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout))
			_exit(EXIT_FAILED);
		loop_init();
		_exit(mode(o));
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Status of `verify` with these faults at the server and at the client. */
static int verify_with(enum fault servers, enum fault clients)
{
	struct options o = {.mode = "verify", .connections = 4, .bytes = 3000001};
	struct options at_server = o;
	int status;
	pid_t pid;

	at_server.fault = servers;
	o.fault = clients;
	pid = start_server(&at_server, &o.connect);
	status = run_quietly(mode_verify, &o);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return status;
}

static void test_faults(void)
{
	report(verify_with(FAULT_NONE, FAULT_NONE) == 0, "verify is content with right bytes", "");
	for (enum fault f = FAULT_NONE + 1; f < FAULT_MAX; f++) {
		report(verify_with(f, FAULT_NONE) == EXIT_WRONG,
		       "verify finds in a download: ", fault_name(f));
		report(verify_with(FAULT_NONE, f) == EXIT_WRONG,
		       "verify finds in an upload: ", fault_name(f));
	}
}

static void test_echo_fault(void)
{
	struct options o = {.mode = "echo", .connections = 1, .size = 1, .window_ms = 1000};
	struct options at_server = {.fault = FAULT_CORRUPT};
	pid_t pid = start_server(&at_server, &o.connect);

	report(run_quietly(mode_echo, &o) == EXIT_WRONG, "echo finds another message's number", "");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Any cut of a stream into parts, at any alignment, and any single wrong byte. */
static void test_pattern(void)
{
	enum { LEN = 100 };
	unsigned char whole[LEN], part[LEN];
	bool ok = true;

	pattern_fill(42, 0, whole, LEN);
	for (size_t from = 0; from < 40; from++) {
		for (size_t len = 0; len < LEN - from; len++) {
			pattern_fill(42, from, part, len);
			ok &= !memcmp(part, whole + from, len);
			ok &= pattern_check(42, from, part, len) == UINT64_MAX;
			for (size_t i = 0; i < len; i++) {
				part[i] ^= 0x10;
				ok &= pattern_check(42, from, part, len) == from + i;
				part[i] ^= 0x10;
			}
		}
	}
	report(ok, "pattern tells every wrong byte at every alignment", "");
}

static void test_histogram(void)
{
	static struct histogram h;
	bool ok;

	histogram_reset(&h);
	for (uint64_t i = 1; i <= 1000000; i++)
		histogram_add(&h, i * 10);
	ok = llabs((long long)histogram_at(&h, 500) - 5000000) < 50000;
	ok &= llabs((long long)histogram_at(&h, 990) - 9900000) < 99000;
	ok &= llabs((long long)histogram_at(&h, 999) - 9990000) < 99900;
	ok &= h.max == 10000000;
	histogram_reset(&h);
	histogram_add(&h, UINT64_MAX);
	histogram_add(&h, 0);
	ok &= histogram_at(&h, 500) == 0;
	report(ok, "histogram is right within a percent", "");
}

int mode_selftest(const struct options *o)
{
	(void)o;
	test_pattern();
	test_histogram();
	test_faults();
	test_echo_fault();
	printf("%d passed, %d failed\n", passed, nr_failed);
	return nr_failed ? EXIT_FAILED : 0;
}
