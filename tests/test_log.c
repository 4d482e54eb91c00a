/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_log.c - log.c against pipes, sockets, files and terminals that are full, dead, torn or back
 * again. No privileges, no sleeping: a call that blocks is killed by alarm(2). A sink has its own
 * descriptor, so a test lends its target to stdout only while the sink is opened. The linker puts
 * the __wrap functions in between (see the Makefile), which count what the sinks' calls carry.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>

#include "log.h"
#include "threads.h"

#define FOREVER_MS 1000000000u

/* For a forked child, where cmocka's assertions have nowhere to jump to: exits with the line. */
#define CHILD_ASSERT(cond)                                                                         \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			dprintf(real_stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static int real_stderr;

/* ---- what the system calls carry ---- */

ssize_t __real_write(int fd, const void *bytes, size_t len);
ssize_t __real_pwritev2(int fd, const struct iovec *iov, int nr, off_t at, int flags);
ssize_t __real_writev(int fd, const struct iovec *iov, int nr);
ssize_t __real_send(int fd, const void *bytes, size_t len, int flags);
int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned int nr, int flags);
ssize_t __wrap_write(int fd, const void *bytes, size_t len);
ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int nr, off_t at, int flags);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int nr);
ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned int nr, int flags);

/* Since begin_count(), of this thread: calls, those that were not refused, those whose last byte
 * was not a newline, and the most that one of them took (bytes; datagrams of sendmmsg). */
static __thread struct {
	unsigned int tried, calls, cut;
	ssize_t most;
} count;

static unsigned int send_at_most; /* by the next sendmmsg; 0 = all */
static void (*after_send)(void);  /* the next one; NULL = nothing */

static void begin_count(void)
{
	memset(&count, 0, sizeof(count));
}

static ssize_t counted(ssize_t n, const char *bytes)
{
	count.tried++;
	if (n < 0)
		return n;
	count.calls++;
	count.most = MAX(count.most, n);
	count.cut += bytes && bytes[n - 1] != '\n';
	return n;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t len)
{
	return counted(__real_write(fd, bytes, len), bytes);
}

ssize_t __wrap_pwritev2(int fd, const struct iovec *iov, int nr, off_t at, int flags)
{
	return counted(__real_pwritev2(fd, iov, nr, at, flags), iov->iov_base);
}

ssize_t __wrap_writev(int fd, const struct iovec *iov, int nr)
{
	return counted(__real_writev(fd, iov, nr), iov->iov_base);
}

ssize_t __wrap_send(int fd, const void *bytes, size_t len, int flags)
{
	return counted(__real_send(fd, bytes, len, flags), bytes);
}

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned int nr, int flags)
{
	int n = (int)counted(
		__real_sendmmsg(fd, messages, send_at_most ? MIN(nr, send_at_most) : nr, flags),
		NULL);
	void (*then)(void) = after_send;

	send_at_most = 0;
	after_send = NULL;
	if (then)
		then();
	return n;
}

static void skip_because(const char *reason)
{
	if (getenv("CI"))
		fail_msg("skipped under CI: %s", reason);
	print_message("skipped: %s\n", reason);
	skip();
}

/* Opens a sink on stdout (or stderr) while fd is there, and puts the real one back. */
static int open_std(struct log_sink **ret, int fd, enum log_target_kind kind,
		    enum log_format format)
{
	struct log_target target = {.kind = kind,
				    .format = format,
				    .facility = LOG_LOCAL0 >> 3,
				    .max_level = LOG_DEBUG};
	int std = kind == LOG_TARGET_STDOUT ? STDOUT_FILENO : STDERR_FILENO, saved, r;

	saved = fcntl(std, F_DUPFD_CLOEXEC, 100);
	assert_true(saved >= 0);
	if (fd >= 0)
		assert_int_equal(dup2(fd, std), std);
	else
		close(std);
	r = log_sink_open(ret, &target, "shunt");
	assert_int_equal(dup2(saved, std), std);
	close(saved);
	return r;
}

static struct log_sink *sink_on(int fd)
{
	struct log_sink *s = NULL;

	assert_int_equal(open_std(&s, fd, LOG_TARGET_STDOUT, LOG_FORMAT_RAW), 0);
	return s;
}

/* Reads what there is, without waiting; returns a string in buf. */
static char *read_now(int fd, char *buf, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t len = 0;
	ssize_t n;

	while (len < size - 1 && poll(&p, 1, 0) == 1 && (p.revents & POLLIN)) {
		n = read(fd, buf + len, size - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	return buf;
}

static void assert_matches(const char *text, const char *pattern)
{
	regex_t re;
	int r;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	r = regexec(&re, text, 0, NULL, 0);
	regfree(&re);
	if (r)
		fail_msg("\"%s\" does not match \"%s\"", text, pattern);
}

static int temp_file(char path[static 32])
{
	int fd;

	strcpy(path, "/tmp/shunt-test-log-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Fills s until it refuses; returns how many lines it took. Fails if it never refuses. */
static unsigned int fill(struct log_sink *s, const char *text)
{
	unsigned int n;

	for (n = 0; n < 100000; n++) {
		int r = log_sink_write(s, LOG_INFO, text);

		if (r == -EAGAIN)
			return n;
		assert_int_equal(r, 0);
	}
	fail_msg("never full");
	return n;
}

static int wait_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- stdout and stderr ---- */

static void a_raw_line_is_its_text_and_a_newline(void **unused)
{
	char buf[256];
	struct log_sink *s;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	assert_int_equal(log_sink_write(s, LOG_INFO, "one"), 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, ""), 0);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), "one\n\n");
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void a_full_pipe_drops_lines_counts_them_and_recovers(void **unused)
{
	uint64_t before = log_dropped();
	static char buf[1 << 20];
	unsigned int taken;
	struct log_sink *s;
	size_t len;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	taken = fill(s, "0123456789");
	assert_true(taken > 10);
	assert_int_equal(log_dropped() - before, 1);
	assert_int_equal(log_sink_write(s, LOG_INFO, "0123456789"), -EAGAIN);
	assert_int_equal(log_dropped() - before, 2);
	len = strlen(read_now(p[0], buf, sizeof(buf)));
	assert_int_equal(len, taken * 11);
	assert_int_equal(log_sink_write(s, LOG_INFO, "again"), 0);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), "again\n");
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void a_long_line_is_cut_so_that_a_pipe_takes_all_or_nothing(void **unused)
{
	char text[10000], buf[20000];
	struct log_sink *s;
	unsigned int taken;
	size_t len;
	int p[2];

	(void)unused;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	assert_int_equal(log_sink_write(s, LOG_INFO, text), 0);
	len = strlen(read_now(p[0], buf, sizeof(buf)));
	assert_int_equal(len, PIPE_BUF);
	assert_ptr_equal(strchr(buf, '\n'), buf + PIPE_BUF - 1);

	/* Almost full: a page for each line, and the last page has some room, but too little. */
	assert_true(fcntl(p[1], F_SETPIPE_SZ, 2 * PIPE_BUF) > 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, "short"), 0);
	taken = fill(s, text);
	len = strlen(read_now(p[0], buf, sizeof(buf)));
	assert_int_equal(len, 6 + taken * PIPE_BUF);
	assert_int_equal(buf[len - 1], '\n');
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void a_pipe_without_reader_is_an_error_and_no_signal_when_ignored(void **unused)
{
	uint64_t before = log_dropped();
	struct log_sink *s;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	close(p[0]);
	assert_int_equal(log_sink_write(s, LOG_INFO, "lost"), -EPIPE);
	log_sink_free(s);
	s = sink_on(p[1]); /* which cannot be opened again without a reader */
	assert_int_equal(log_sink_write(s, LOG_INFO, "lost"), -EPIPE);
	assert_int_equal(log_dropped() - before, 2);
	log_sink_free(s);
	close(p[1]);
}

/*
 * In a child: stdout is fd, which was inherited but may not be opened again, as another user's
 * after su(1). Writes until it is full, which must not block. Returns the child's exit status.
 */
static int fill_denied_stdout(int fd)
{
	struct log_target target = {.kind = LOG_TARGET_STDOUT, .max_level = LOG_DEBUG};
	uint64_t before = log_dropped();
	struct log_sink *s = NULL;
	unsigned int n = 0;
	pid_t pid;

	assert_int_equal(fchmod(fd, 0), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid)
		return wait_child(pid);
	alarm(10);
	if (!geteuid())
		CHILD_ASSERT(!setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
	CHILD_ASSERT(dup2(fd, 1) == 1);
	CHILD_ASSERT(open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY) < 0);
	CHILD_ASSERT(log_sink_open(&s, &target, "shunt") == 0);
	while (log_sink_write(s, LOG_INFO, "0123456789") == 0)
		CHILD_ASSERT(++n < 100000);
	CHILD_ASSERT(log_dropped() == before + 1);
	CHILD_ASSERT(log_sink_write(s, LOG_INFO, "0123456789") == -EAGAIN);
	CHILD_ASSERT(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
	log_sink_free(s);
	_exit(0);
}

static void a_pipe_that_may_not_be_opened_again_does_not_block_either(void **unused)
{
	static char buf[1 << 20];
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fill_denied_stdout(p[1]), 0);
	assert_true(strlen(read_now(p[0], buf, sizeof(buf))) > 1000);
	close(p[0]);
	close(p[1]);
}

static void a_full_stream_socket_drops_lines_and_recovers(void **unused)
{
	uint64_t before = log_dropped();
	static char buf[1 << 20];
	struct log_sink *s;
	unsigned int taken;
	int sv[2];

	(void)unused;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	s = sink_on(sv[1]);
	taken = fill(s, "0123456789");
	assert_true(taken > 10);
	assert_int_equal(log_dropped() - before, 1);
	assert_int_equal(strlen(read_now(sv[0], buf, sizeof(buf))), taken * 11);
	assert_int_equal(log_sink_write(s, LOG_INFO, "again"), 0);
	assert_string_equal(read_now(sv[0], buf, sizeof(buf)), "again\n");
	close(sv[0]);
	assert_int_equal(log_sink_write(s, LOG_INFO, "lost"), -EPIPE);
	log_sink_free(s);
	close(sv[1]);
}

/*
 * A stream socket with a tiny send buffer takes parts of lines. Whatever it takes, each line that
 * arrives must be the beginning of one line that was sent, and the whole ones are those that
 * were not counted as dropped. In turns of one to five lines, or one by one.
 */
static void check_half_lines(bool in_turns)
{
	static char buf[1 << 20], text[PIPE_BUF - 1], expect[PIPE_BUF];
	unsigned int cut = 0, whole = 0, last = 0;
	uint64_t before = log_dropped();
	int sv[2], small = 1;
	struct log_turn turn = {0};
	struct log_sink *s;
	size_t have = 0;
	ssize_t n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	s = sink_on(sv[1]);
	for (unsigned int i = 1; i <= 400; i++) {
		size_t len = i % 3 ? sizeof(text) - 1 : 10;

		memset(text, 'a' + (int)(i % 26), len);
		text[len] = '\0';
		text[snprintf(text, 9, "%08u", i)] = ':';
		if (in_turns)
			log_sink_add(s, &turn, LOG_INFO, text);
		else
			log_sink_write(s, LOG_INFO, text);
		if (i % 5 == 0 || i % 7 == 0)
			log_turn_end(&turn);
		if (i % 4 == 0 && have < sizeof(buf) - 100000) {
			n = recv(sv[0], buf + have, 1 + i * 7, MSG_DONTWAIT);
			have += n > 0 ? (size_t)n : 0;
		}
	}
	read_now(sv[0], buf + have, sizeof(buf) - have);

	for (char *line = buf, *end; *line; line = end + 1) {
		unsigned int i;
		size_t len;

		end = strchrnul(line, '\n');
		i = (unsigned int)strtoul(line, NULL, 10);
		assert_true(end - line < 10 || i > last);
		if (end - line >= 10) {
			last = i;
			len = i % 3 ? sizeof(text) - 1 : 10;
			assert_true((size_t)(end - line) <= len);
			memset(expect, 'a' + (int)(i % 26), len);
			expect[snprintf(expect, 9, "%08u", i)] = ':';
			assert_memory_equal(line, expect, end - line);
			if ((size_t)(end - line) == len)
				whole++;
			else
				cut++;
		}
		if (!*end)
			break;
	}
	print_message("%u lines whole, %u cut\n", whole, cut);
	assert_true(cut > 0);
	assert_int_equal(whole, 400 - (log_dropped() - before));
	log_sink_free(s);
	close(sv[0]);
	close(sv[1]);
}

static void a_stream_socket_that_takes_half_a_line_never_joins_two(void **unused)
{
	(void)unused;
	check_half_lines(false);
}

static void a_stream_socket_that_takes_half_a_batch_never_joins_two(void **unused)
{
	(void)unused;
	check_half_lines(true);
}

static void a_full_disk_tears_one_line_and_the_next_starts_afresh(void **unused)
{
	struct log_target target = {.kind = LOG_TARGET_STDOUT, .max_level = LOG_DEBUG};
	struct rlimit limit = {.rlim_max = RLIM_INFINITY};
	uint64_t before = log_dropped();
	struct log_sink *s;
	char path[32], buf[256];
	pid_t pid;
	int fd;

	(void)unused;
	fd = temp_file(path);
	unlink(path);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(10);
		signal(SIGXFSZ, SIG_IGN);
		CHILD_ASSERT(dup2(fd, 1) == 1);
		CHILD_ASSERT(log_sink_open(&s, &target, "shunt") == 0);
		CHILD_ASSERT(!getrlimit(RLIMIT_FSIZE, &limit));
		limit.rlim_cur = 15;
		CHILD_ASSERT(!setrlimit(RLIMIT_FSIZE, &limit));
		CHILD_ASSERT(log_sink_write(s, LOG_INFO, "012345678") == 0);
		CHILD_ASSERT(log_sink_write(s, LOG_INFO, "abcdefghi") == -EAGAIN);
		CHILD_ASSERT(log_sink_write(s, LOG_INFO, "lost") == -EFBIG);
		CHILD_ASSERT(log_dropped() == before + 2);
		limit.rlim_cur = limit.rlim_max;
		CHILD_ASSERT(!setrlimit(RLIMIT_FSIZE, &limit));
		CHILD_ASSERT(log_sink_write(s, LOG_INFO, "whole") == 0);
		CHILD_ASSERT(log_sink_write(s, LOG_INFO, "too") == 0);
		log_sink_free(s);
		_exit(0);
	}
	assert_int_equal(wait_child(pid), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "012345678\nabcde\nwhole\ntoo\n");
	close(fd);
}

static void a_regular_file_is_appended_to_without_o_append(void **unused)
{
	char path[32], buf[256];
	struct log_sink *out, *err;
	int fd, other;

	(void)unused;
	fd = temp_file(path);
	other = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_true(other >= 0);
	out = sink_on(fd);
	assert_int_equal(open_std(&err, fd, LOG_TARGET_STDERR, LOG_FORMAT_RAW), 0);
	assert_int_equal(log_sink_write(out, LOG_INFO, "one"), 0);
	assert_int_equal(write(other, "stranger\n", 9), 9);
	assert_int_equal(log_sink_write(err, LOG_INFO, "two"), 0);
	assert_int_equal(write(fd, "starter\n", 8), 8); /* through the description it shares */
	assert_int_equal(log_sink_write(out, LOG_INFO, "three"), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "one\nstranger\ntwo\nstarter\nthree\n");
	assert_int_equal(ftruncate(fd, 0), 0); /* logrotate's copytruncate: no hole */
	assert_int_equal(log_sink_write(out, LOG_INFO, "new"), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "new\n");
	log_sink_free(out);
	log_sink_free(err);
	unlink(path);
	close(other);
	close(fd);
}

/* Returns the slave, or a negative number; what is written to it nobody reads. */
static int open_terminal(int *ret_master)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;

	if (master >= 0 && !grantpt(master) && !unlockpt(master))
		slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		skip_because("no pseudo terminals here");
	*ret_master = master;
	return slave;
}

static void a_stopped_terminal_does_not_block(void **unused)
{
	struct log_sink *s;
	int master, slave;
	char buf[64];

	(void)unused;
	slave = open_terminal(&master);
	s = sink_on(slave);
	assert_int_equal(log_sink_write(s, LOG_INFO, "seen"), 0);
	assert_string_equal(read_now(master, buf, sizeof(buf)), "seen\r\n");
	assert_int_equal(tcflow(slave, TCOOFF), 0); /* what ^S does */
	fill(s, "0123456789");
	assert_false(fcntl(slave, F_GETFL) & O_NONBLOCK);
	log_sink_free(s);
	close(slave);
	close(master);
}

static void a_terminal_that_nobody_reads_does_not_block(void **unused)
{
	struct log_sink *s;
	int master, slave;

	(void)unused;
	slave = open_terminal(&master);
	s = sink_on(slave);
	assert_true(fill(s, "0123456789") > 10);
	log_sink_free(s);
	close(slave);
	close(master);
}

static void a_stopped_terminal_that_may_not_be_opened_again_does_not_block_either(void **unused)
{
	int master, slave;

	(void)unused;
	slave = open_terminal(&master);
	assert_int_equal(tcflow(slave, TCOOFF), 0);
	assert_int_equal(fill_denied_stdout(slave), 0);
	close(slave);
	close(master);
}

static void the_flags_of_a_shared_stdout_stay_as_they_are(void **unused)
{
	int p[2], sv[2], fds[3], before;
	struct log_sink *s;
	char path[32];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	fds[0] = p[1];
	fds[1] = sv[1];
	fds[2] = temp_file(path);
	unlink(path);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		before = fcntl(fds[i], F_GETFL);
		s = sink_on(fds[i]);
		assert_int_equal(log_sink_write(s, LOG_INFO, "line"), 0);
		assert_int_equal(fcntl(fds[i], F_GETFL), before);
		log_sink_free(s);
		assert_int_equal(fcntl(fds[i], F_GETFL), before);
		assert_false(before & (O_NONBLOCK | O_APPEND));
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(p[0]);
	close(sv[0]);
}

static void a_closed_stdout_is_said_when_the_sink_is_opened(void **unused)
{
	struct log_sink *s = (void *)1;

	(void)unused;
	assert_int_equal(open_std(&s, -1, LOG_TARGET_STDOUT, LOG_FORMAT_RAW), -EBADF);
	assert_ptr_equal(s, (void *)1);
	assert_null(log_sink_free(NULL));
}

/* Returns the write system calls of this process so far, or -1. */
static long long write_calls(void)
{
	__cleanup_fclose FILE *f = fopen("/proc/self/io", "re");
	long long n = -1;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "syscw: %lld", &n) == 1)
			break;
	return n;
}

static void a_line_is_one_system_call(void **unused)
{
	struct log_sink *pipe_sink, *file_sink, *packet_sink = NULL;
	long long before, bare, lines;
	int p[2], sv[2], fd;
	char path[32], buf[256];

	(void)unused;
	if (write_calls() < 0) {
		skip_because("/proc/self/io does not count system calls here");
		return;
	}
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	fd = temp_file(path);
	unlink(path);
	pipe_sink = sink_on(p[1]);
	file_sink = sink_on(fd);
	assert_int_equal(open_std(&packet_sink, sv[1], LOG_TARGET_STDERR, LOG_FORMAT_RFC5424), 0);

	/* Compared with bare calls, since valgrind adds calls of its own. */
	before = write_calls();
	for (int i = 0; i < 10; i++) {
		assert_int_equal(write(p[1], "line\n", 5), 5);
		assert_int_equal(write(fd, "line\n", 5), 5);
	}
	bare = write_calls() - before;
	assert_true(bare >= 20);
	before = write_calls();
	for (int i = 0; i < 10; i++) {
		assert_int_equal(log_sink_write(pipe_sink, LOG_INFO, "line"), 0);
		assert_int_equal(log_sink_write(file_sink, LOG_INFO, "line"), 0);
	}
	lines = write_calls() - before;
	assert_int_equal(lines, bare);

	/* One packet is one send. */
	assert_int_equal(log_sink_write(packet_sink, LOG_INFO, "a packet"), 0);
	memset(buf, 0, sizeof(buf));
	assert_true(recv(sv[0], buf, sizeof(buf) - 1, MSG_DONTWAIT) > 0);
	assert_matches(buf, "^<134>1 .* - - a packet\n$");
	log_sink_free(pipe_sink);
	log_sink_free(file_sink);
	log_sink_free(packet_sink);
	close(p[0]);
	close(p[1]);
	close(sv[0]);
	close(sv[1]);
	close(fd);
}

/* ---- datagrams ---- */

static int udp_receiver(struct addr *at)
{
	socklen_t len = sizeof(at->storage);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, &at->sa, addr_len(at)), 0);
	assert_int_equal(getsockname(fd, &at->sa, &len), 0);
	return fd;
}

static void a_dead_udp_target_costs_nothing_but_its_lines(void **unused)
{
	struct log_target target = {.kind = LOG_TARGET_UDP,
				    .format = LOG_FORMAT_RFC3164,
				    .facility = LOG_LOCAL0 >> 3,
				    .max_level = LOG_DEBUG};
	uint64_t before;
	struct log_sink *s;
	char buf[512];
	int fd;

	(void)unused;
	target.addr.in.sin_family = AF_INET;
	target.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = udp_receiver(&target.addr);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, "heard"), 0);
	assert_matches(read_now(fd, buf, sizeof(buf)), "^<134>.*: heard\n$");

	close(fd);
	before = log_dropped();
	for (int i = 0; i < 10; i++)
		log_sink_write(s, LOG_INFO, "into the dark");
	/* Each refusal is told with the next line: the last one is still to come. */
	assert_in_range(log_dropped() - before, 8, 10);

	fd = udp_receiver(&target.addr);
	before = log_dropped();
	assert_int_equal(log_sink_write(s, LOG_INFO, "back"), 0);
	assert_matches(read_now(fd, buf, sizeof(buf)), "^<134>.*: back\n$");
	assert_in_range(log_dropped() - before, 0, 1);
	close(fd);
	log_sink_free(s);
}

static int unix_receiver(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(un.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void close_receiver(int fd, const char *path)
{
	close(fd);
	assert_int_equal(unlink(path), 0);
}

static void unix_target(struct log_target *t, char dir[static 32])
{
	*t = (struct log_target){.kind = LOG_TARGET_UNIX,
				 .format = LOG_FORMAT_RFC3164,
				 .facility = LOG_DAEMON >> 3,
				 .max_level = LOG_DEBUG};
	strcpy(dir, "/tmp/shunt-test-log-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(t->path, sizeof(t->path), "%s/log", dir);
}

static void a_syslog_daemon_that_comes_back_gets_the_first_line(void **unused)
{
	struct log_target target;
	char dir[32], buf[512];
	struct log_sink *s;
	uint64_t before;
	int fd;

	(void)unused;
	unix_target(&target, dir);
	before = log_dropped();
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0); /* nobody there yet: no error */
	log_sink_set_retry(s, 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, "nobody"), -ENOENT);
	assert_int_equal(log_dropped() - before, 1);
	for (int i = 0; i < 3; i++) {
		fd = unix_receiver(target.path);
		assert_int_equal(log_sink_write(s, LOG_INFO, "first"), 0);
		assert_int_equal(log_sink_write(s, LOG_INFO, "second"), 0);
		assert_matches(read_now(fd, buf, sizeof(buf)), "^<30>.*: first\n<30>.*: second\n$");
		close_receiver(fd, target.path);
	}
	assert_int_equal(log_dropped() - before, 1);
	log_sink_free(s);
	rmdir(dir);
}

static void reconnecting_is_tried_once_per_interval(void **unused)
{
	struct log_target target;
	char dir[32], buf[512];
	struct log_sink *s;
	uint64_t before;
	int fd;

	(void)unused;
	unix_target(&target, dir);
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	log_sink_set_retry(s, FOREVER_MS);
	assert_int_equal(log_sink_write(s, LOG_INFO, "heard"), 0);
	close_receiver(fd, target.path);

	fd = unix_receiver(target.path);
	before = log_dropped();
	for (int i = 0; i < 5; i++)
		assert_int_equal(log_sink_write(s, LOG_INFO, "too early"), -ENOTCONN);
	assert_int_equal(log_dropped() - before, 5);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "");

	log_sink_set_retry(s, 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, "now"), 0);
	assert_matches(read_now(fd, buf, sizeof(buf)), "^<30>.*: now\n$");
	close_receiver(fd, target.path);

	/* A failed attempt starts the interval as well. */
	assert_int_equal(log_sink_write(s, LOG_INFO, "nobody"), -ENOENT);
	log_sink_set_retry(s, FOREVER_MS);
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_write(s, LOG_INFO, "too early"), -ENOTCONN);
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

static void a_slow_syslog_daemon_drops_lines_and_stays_connected(void **unused)
{
	struct log_target target;
	char dir[32], buf[512];
	struct log_sink *s;
	int fd;

	(void)unused;
	unix_target(&target, dir);
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	log_sink_set_retry(s, FOREVER_MS);
	assert_true(fill(s, "line") > 0);
	assert_true(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, "line"), 0);
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

/* ---- batches ---- */

/* Adds the lines "FIRST." to "LAST." */
static void add_numbers(struct log_sink *s, struct log_turn *t, unsigned int first,
			unsigned int last)
{
	char text[32];

	for (unsigned int i = first; i <= last; i++) {
		snprintf(text, sizeof(text), "%u.", i);
		log_sink_add(s, t, LOG_INFO, text);
	}
}

/* The text of these lines, as a stream has them. */
static const char *numbers(unsigned int first, unsigned int last)
{
	static char buf[1 << 16];
	size_t len = 0;

	buf[0] = '\0';
	for (unsigned int i = first; i <= last; i++)
		len += (size_t)snprintf(buf + len, sizeof(buf) - len, "%u.\n", i);
	return buf;
}

/* Reads these lines, each from a datagram of its own, and no more. */
static void assert_datagrams(int fd, unsigned int first, unsigned int last)
{
	char buf[512];
	ssize_t n;

	for (unsigned int i = first; i <= last; i++) {
		n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);
		if (n < 0)
			fail_msg("line %u is missing", i);
		buf[n] = '\0';
		assert_string_equal(buf, numbers(i, i));
	}
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), -1);
}

/* 50 lines through a sink on `to`, which `from` reads: nothing of them before the end of the turn,
 * and then all of them with one call. */
static void check_one_call(int to, int from)
{
	struct log_turn turn = {0};
	struct log_sink *s = sink_on(to);
	char buf[4096];

	for (unsigned int round = 0; round < 2; round++) {
		begin_count();
		add_numbers(s, &turn, 1, 50);
		assert_int_equal(count.calls, 0);
		log_turn_end(&turn);
		assert_int_equal(count.calls, 1);
		assert_string_equal(read_now(from, buf, sizeof(buf)), numbers(1, 50));
		log_turn_end(&turn);
		assert_int_equal(count.calls, 1);
	}
	log_sink_free(s);
}

static void the_lines_of_a_turn_are_one_system_call(void **unused)
{
	int p[2], sv[2], file, reader;
	char path[32];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	check_one_call(p[1], p[0]);
	close(p[0]);
	close(p[1]);

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	check_one_call(sv[1], sv[0]);
	close(sv[0]);
	close(sv[1]);

	file = temp_file(path);
	reader = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(reader >= 0);
	check_one_call(file, reader);
	unlink(path);
	close(reader);
	close(file);
}

static void
the_lines_of_a_turn_are_one_system_call_on_a_pipe_that_may_not_be_opened_again(void **unused)
{
	struct log_target target = {.kind = LOG_TARGET_STDOUT, .max_level = LOG_DEBUG};
	struct log_turn turn = {0};
	struct log_sink *s = NULL;
	char buf[4096], text[200] = "";
	pid_t pid;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(fchmod(p[1], 0), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(10);
		if (!geteuid())
			CHILD_ASSERT(!setresgid(65534, 65534, 65534) &&
				     !setresuid(65534, 65534, 65534));
		CHILD_ASSERT(dup2(p[1], 1) == 1);
		CHILD_ASSERT(log_sink_open(&s, &target, "shunt") == 0);
		begin_count();
		add_numbers(s, &turn, 1, 50);
		CHILD_ASSERT(count.calls == 0);
		log_turn_end(&turn);
		CHILD_ASSERT(count.calls == 1);
		memset(text, 'x', sizeof(text) - 1);
		for (int i = 0; i < 30; i++)
			log_sink_add(s, &turn, LOG_INFO, text);
		CHILD_ASSERT(count.calls == 2);
		CHILD_ASSERT(count.most == 20 * sizeof(text) && !count.cut);
		log_sink_free(s);
		_exit(0);
	}
	assert_int_equal(wait_child(pid), 0);
	read_now(p[0], buf, strlen(numbers(1, 50)) + 1);
	assert_string_equal(buf, numbers(1, 50));
	close(p[0]);
	close(p[1]);
}

static void the_datagrams_of_a_turn_are_one_system_call(void **unused)
{
	struct log_target unix_at, udp_at = {.kind = LOG_TARGET_UDP, .max_level = LOG_DEBUG};
	struct log_sink *unix_sink, *udp_sink;
	struct log_turn turn = {0};
	int unix_fd, udp_fd;
	char dir[32];

	(void)unused;
	unix_target(&unix_at, dir);
	unix_at.format = LOG_FORMAT_RAW;
	unix_fd = unix_receiver(unix_at.path);
	udp_at.addr.in.sin_family = AF_INET;
	udp_at.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	udp_fd = udp_receiver(&udp_at.addr);
	assert_int_equal(log_sink_open(&unix_sink, &unix_at, "shunt"), 0);
	assert_int_equal(log_sink_open(&udp_sink, &udp_at, "shunt"), 0);
	for (unsigned int round = 0; round < 2; round++) {
		begin_count();
		add_numbers(unix_sink, &turn, 1, 5);
		add_numbers(udp_sink, &turn, 1, 100);
		assert_int_equal(count.calls, 0);
		log_turn_end(&turn);
		assert_int_equal(count.calls, 2);
		assert_int_equal(count.most, 100);
		assert_datagrams(unix_fd, 1, 5);
		assert_datagrams(udp_fd, 1, 100);
	}
	close_receiver(unix_fd, unix_at.path);
	close(udp_fd);
	log_sink_free(unix_sink);
	log_sink_free(udp_sink);
	rmdir(dir);
}

static void what_has_no_room_in_a_batch_leaves_before_the_turn_ends(void **unused)
{
	struct log_target target;
	struct log_turn turn = {0};
	char path[32], dir[32], text[256];
	static char buf[1 << 16];
	struct log_sink *s;
	int p[2], fd;
	size_t len;

	(void)unused;
	/* A file gets 16 KB, */
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	fd = temp_file(path);
	unlink(path);
	s = sink_on(fd);
	begin_count();
	for (int i = 0; i < 100; i++)
		log_sink_add(s, &turn, LOG_INFO, text);
	assert_int_equal(count.calls, 1);
	log_turn_end(&turn);
	assert_int_equal(count.calls, 2);
	assert_int_equal(count.most, 64 * 256);
	assert_int_equal(lseek(fd, 0, SEEK_END), 100 * 256);
	/* or 128 lines, */
	begin_count();
	add_numbers(s, &turn, 1, 127);
	assert_int_equal(count.calls, 0);
	add_numbers(s, &turn, 128, 300);
	assert_int_equal(count.calls, 2);
	log_turn_end(&turn);
	assert_int_equal(count.calls, 3);
	assert_int_equal(lseek(fd, 100 * 256, SEEK_SET), 100 * 256);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), numbers(1, 300));
	log_sink_free(s);
	close(fd);

	/* a pipe what it takes as a whole or not at all, */
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	begin_count();
	for (int i = 0; i < 50; i++)
		log_sink_add(s, &turn, LOG_INFO, text);
	assert_int_equal(count.calls, 3);
	log_turn_end(&turn);
	assert_int_equal(count.calls, 4);
	assert_int_equal(count.most, PIPE_BUF);
	assert_int_equal(count.cut, 0);
	len = strlen(read_now(p[0], buf, sizeof(buf)));
	assert_int_equal(len, 50 * 256);
	log_sink_free(s);
	close(p[0]);
	close(p[1]);

	/* a datagram socket of this machine fewer than it queues. */
	unix_target(&target, dir);
	target.format = LOG_FORMAT_RAW;
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	begin_count();
	add_numbers(s, &turn, 1, 7);
	assert_int_equal(count.calls, 0);
	add_numbers(s, &turn, 8, 9);
	assert_datagrams(fd, 1, 8);
	log_turn_end(&turn);
	assert_datagrams(fd, 9, 9);
	assert_int_equal(count.calls, 2);
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p), 0);
	s = sink_on(p[1]);
	add_numbers(s, &turn, 1, 9);
	assert_datagrams(p[0], 1, 8);
	log_turn_end(&turn);
	assert_datagrams(p[0], 9, 9);
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void a_terminal_gets_every_line_at_once(void **unused)
{
	struct log_turn turn = {0};
	struct log_sink *s;
	int master, slave;
	char buf[64];

	(void)unused;
	slave = open_terminal(&master);
	s = sink_on(slave);
	log_sink_add(s, &turn, LOG_INFO, "one");
	assert_string_equal(read_now(master, buf, sizeof(buf)), "one\r\n");
	log_sink_add(s, &turn, LOG_INFO, "two");
	assert_string_equal(read_now(master, buf, sizeof(buf)), "two\r\n");
	log_turn_end(&turn);
	assert_string_equal(read_now(master, buf, sizeof(buf)), "");
	log_sink_free(s);
	close(slave);
	close(master);
}

static void what_is_written_comes_after_what_was_added(void **unused)
{
	struct log_turn turn = {0};
	struct log_sink *s;
	char buf[256];
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	add_numbers(s, &turn, 1, 3);
	assert_int_equal(log_sink_write(s, LOG_INFO, "written"), 0);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), "1.\n2.\n3.\nwritten\n");
	log_setup(LOG_NOTICE, false);
	assert_int_equal(log_add_sink(s), 0);
	add_numbers(s, &turn, 4, 5);
	log_notice("a message");
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), "4.\n5.\na message\n");
	log_clear_sinks();
	log_setup(LOG_NOTICE, true);
	log_turn_end(&turn);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), "");
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void what_was_added_leaves_when_the_sink_is_freed(void **unused)
{
	struct log_turn turn = {0};
	struct log_sink *s;
	char buf[256];
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	add_numbers(s, &turn, 1, 3);
	log_sink_free(s);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), numbers(1, 3));
	close(p[0]);
	close(p[1]);
}

static void a_turn_has_room_for_any_number_of_sinks(void **unused)
{
	enum { N = 70 };
	struct log_turn turn = {0};
	struct log_sink *s[N];
	char buf[4096];
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	for (unsigned int i = 0; i < N; i++)
		s[i] = sink_on(p[1]);
	for (unsigned int round = 0; round < 2; round++) {
		for (unsigned int i = 0; i < N; i++)
			add_numbers(s[i], &turn, i + 1, i + 1);
		log_turn_end(&turn);
		assert_string_equal(read_now(p[0], buf, sizeof(buf)), numbers(1, N));
	}
	for (unsigned int i = 0; i < N; i++)
		log_sink_free(s[i]);
	close(p[0]);
	close(p[1]);
}

static void a_line_has_the_time_when_it_was_added(void **unused)
{
	struct log_turn turn = {0};
	char buf[256], after[64];
	struct timespec now;
	struct log_sink *s;
	struct tm tm;
	size_t len;
	int p[2];

	(void)unused;
	setenv("TZ", "UTC0", 1);
	tzset();
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(open_std(&s, p[1], LOG_TARGET_STDOUT, LOG_FORMAT_RFC5424), 0);
	log_sink_add(s, &turn, LOG_INFO, "text");
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(after, sizeof(after), "<134>1 %Y-%m-%dT%H:%M:%S.", &tm);
	snprintf(after + len, sizeof(after) - len, "%06ld", now.tv_nsec / 1000);
	for (uint64_t until = now_ns() + 2 * NS_PER_MS; now_ns() < until;)
		;
	log_turn_end(&turn);
	read_now(p[0], buf, sizeof(buf));
	assert_true(strlen(buf) > strlen(after));
	assert_true(strncmp(buf, after, strlen(after)) <= 0);
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void added_lines_above_the_level_of_the_target_are_left_out(void **unused)
{
	struct log_target target;
	struct log_turn turn = {0};
	char dir[32], buf[64];
	struct log_sink *s;
	int fd;

	(void)unused;
	unix_target(&target, dir);
	target.format = LOG_FORMAT_RAW;
	target.max_level = LOG_NOTICE;
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	log_sink_add(s, &turn, LOG_INFO, "no");
	log_sink_add(s, &turn, LOG_NOTICE, "yes");
	log_turn_end(&turn);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "yes\n");
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

static void a_batch_that_a_pipe_has_no_room_for_is_tried_line_by_line(void **unused)
{
	uint64_t before = log_dropped();
	static char buf[1 << 16], text[1 << 12];
	struct log_turn turn = {0};
	struct log_sink *s;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	if (fcntl(p[1], F_SETPIPE_SZ, PIPE_BUF) != PIPE_BUF) {
		skip_because("pages are not of 4 KB here");
		return;
	}
	s = sink_on(p[1]);
	memset(text, 'x', sizeof(text) - 100);
	assert_int_equal(log_sink_write(s, LOG_INFO, text), 0); /* leaves 99 bytes */
	for (char c = 'a'; c < 'g'; c++) {
		memset(text, c, 29);
		text[29] = '\0';
		log_sink_add(s, &turn, LOG_INFO, text);
	}
	log_sink_add(s, &turn, LOG_INFO, "short");
	log_turn_end(&turn);
	assert_int_equal(log_dropped() - before, 3);
	read_now(p[0], buf, sizeof(buf));
	assert_string_equal(buf + PIPE_BUF - 99, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
						 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"
						 "ccccccccccccccccccccccccccccc\n"
						 "short\n");

	/* Full for good: every line counts, and what comes then is whole. */
	fill(s, "0123456789");
	fill(s, "");
	before = log_dropped();
	add_numbers(s, &turn, 1, 100);
	log_turn_end(&turn);
	assert_int_equal(log_dropped() - before, 100);
	assert_int_equal(strlen(read_now(p[0], buf, sizeof(buf))), PIPE_BUF);
	add_numbers(s, &turn, 1, 100);
	log_turn_end(&turn);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), numbers(1, 100));
	assert_int_equal(log_dropped() - before, 100);
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void a_batch_into_a_pipe_without_reader_counts_every_line(void **unused)
{
	uint64_t before = log_dropped();
	struct log_turn turn = {0};
	struct log_sink *s;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	close(p[0]);
	begin_count();
	add_numbers(s, &turn, 1, 1);
	log_turn_end(&turn);
	assert_int_equal(count.tried, 1);
	add_numbers(s, &turn, 2, 5);
	log_turn_end(&turn);
	assert_int_equal(log_dropped() - before, 5);
	assert_int_equal(count.tried, 1 + 1 + 4);
	add_numbers(s, &turn, 1, 2);
	assert_int_equal(log_sink_write(s, LOG_INFO, "lost"), -EPIPE);
	assert_int_equal(log_dropped() - before, 8);
	log_sink_free(s);
	close(p[1]);
}

static void set_file_limit(rlim_t max)
{
	struct rlimit limit;

	CHILD_ASSERT(!getrlimit(RLIMIT_FSIZE, &limit));
	limit.rlim_cur = max;
	CHILD_ASSERT(!setrlimit(RLIMIT_FSIZE, &limit));
}

static void a_full_disk_tears_a_batch_and_every_line_of_the_rest_counts(void **unused)
{
	struct log_target target = {.kind = LOG_TARGET_STDOUT, .max_level = LOG_DEBUG};
	uint64_t before = log_dropped();
	struct log_turn turn = {0};
	char path[32], buf[256];
	struct log_sink *s;
	pid_t pid;
	int fd;

	(void)unused;
	fd = temp_file(path);
	unlink(path);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(10);
		signal(SIGXFSZ, SIG_IGN);
		CHILD_ASSERT(dup2(fd, 1) == 1);
		CHILD_ASSERT(log_sink_open(&s, &target, "shunt") == 0);
		set_file_limit(7); /* "1.\n2.\n3" */
		add_numbers(s, &turn, 1, 5);
		log_turn_end(&turn);
		CHILD_ASSERT(log_dropped() - before == 3);
		add_numbers(s, &turn, 6, 7);
		log_turn_end(&turn);
		CHILD_ASSERT(log_dropped() - before == 5);
		set_file_limit(8); /* there is room for the newline that is missing, and no more */
		add_numbers(s, &turn, 8, 9);
		log_turn_end(&turn);
		CHILD_ASSERT(log_dropped() - before == 7);
		set_file_limit(9); /* half a line */
		add_numbers(s, &turn, 4, 4);
		log_turn_end(&turn);
		CHILD_ASSERT(log_dropped() - before == 8);
		set_file_limit(RLIM_INFINITY);
		add_numbers(s, &turn, 5, 6);
		log_turn_end(&turn);
		add_numbers(s, &turn, 7, 7);
		log_turn_end(&turn);
		CHILD_ASSERT(log_dropped() - before == 8);
		log_sink_free(s);
		_exit(0);
	}
	assert_int_equal(wait_child(pid), 0);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "1.\n2.\n3\n4\n5.\n6.\n7.\n");
	close(fd);
}

static void a_full_syslog_daemon_gets_what_it_has_room_for_of_a_batch(void **unused)
{
	struct log_target target;
	struct log_turn turn = {0};
	char dir[32], buf[512];
	struct log_sink *s;
	uint64_t before;
	int fd;

	(void)unused;
	unix_target(&target, dir);
	target.format = LOG_FORMAT_RAW;
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	log_sink_set_retry(s, FOREVER_MS);
	fill(s, "line");
	for (int i = 0; i < 3; i++)
		assert_true(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0);
	before = log_dropped();
	add_numbers(s, &turn, 1, 7);
	log_turn_end(&turn);
	assert_int_equal(log_dropped() - before, 4);
	add_numbers(s, &turn, 8, 9);
	assert_int_equal(log_sink_write(s, LOG_INFO, "full"), -EAGAIN);
	assert_int_equal(log_dropped() - before, 7);
	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_PEEK) > 0 && !strncmp(buf, "line", 4))
		recv(fd, buf, sizeof(buf), 0);
	assert_datagrams(fd, 1, 3);
	add_numbers(s, &turn, 1, 5);
	log_turn_end(&turn);
	assert_datagrams(fd, 1, 5);
	assert_int_equal(log_dropped() - before, 7);
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

static void a_batch_that_finds_the_syslog_daemon_gone_counts_every_line(void **unused)
{
	struct log_target target;
	struct log_turn turn = {0};
	struct log_sink *s;
	uint64_t before;
	char dir[32];
	int fd;

	(void)unused;
	unix_target(&target, dir);
	target.format = LOG_FORMAT_RAW;
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	log_sink_set_retry(s, 0);
	close_receiver(fd, target.path);
	before = log_dropped();
	for (unsigned int i = 0; i < 2; i++) {
		add_numbers(s, &turn, 1, 5);
		log_turn_end(&turn);
		assert_int_equal(log_dropped() - before, 5 + 5 * i);
	}
	log_sink_set_retry(s, FOREVER_MS);
	fd = unix_receiver(target.path);
	add_numbers(s, &turn, 1, 5);
	log_turn_end(&turn);
	assert_int_equal(log_dropped() - before, 15); /* too early */
	log_sink_set_retry(s, 0);
	add_numbers(s, &turn, 1, 5);
	log_turn_end(&turn);
	assert_datagrams(fd, 1, 5);
	assert_int_equal(log_dropped() - before, 15);
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

static int restarted_fd;
static const char *restarted_path;

static void restart_receiver(void)
{
	close_receiver(restarted_fd, restarted_path);
	restarted_fd = unix_receiver(restarted_path);
}

static void a_syslog_daemon_that_is_restarted_in_a_batch_gets_the_rest(void **unused)
{
	struct log_target target;
	struct log_turn turn = {0};
	struct log_sink *s;
	uint64_t before;
	char dir[32];

	(void)unused;
	unix_target(&target, dir);
	target.format = LOG_FORMAT_RAW;
	restarted_path = target.path;
	restarted_fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	log_sink_set_retry(s, 0);
	before = log_dropped();
	send_at_most = 2;
	after_send = restart_receiver;
	begin_count();
	add_numbers(s, &turn, 1, 7);
	log_turn_end(&turn);
	assert_datagrams(restarted_fd, 3, 7);
	assert_int_equal(log_dropped(), before);
	assert_int_equal(count.calls,
			 3); /* two lines, the first that is sent again, and the rest */
	close_receiver(restarted_fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

/* What sendmmsg(2) leaves unsaid: on UDP, the refusal of an earlier line; else nothing is lost. */
static void a_batch_that_stops_on_the_way_goes_on(void **unused)
{
	struct log_target unix_at, udp_at = {.kind = LOG_TARGET_UDP, .max_level = LOG_DEBUG};
	struct log_sink *unix_sink, *udp_sink;
	struct log_turn turn = {0};
	uint64_t before;
	int unix_fd, udp_fd;
	char dir[32];

	(void)unused;
	unix_target(&unix_at, dir);
	unix_at.format = LOG_FORMAT_RAW;
	unix_fd = unix_receiver(unix_at.path);
	udp_at.addr.in.sin_family = AF_INET;
	udp_at.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	udp_fd = udp_receiver(&udp_at.addr);
	assert_int_equal(log_sink_open(&unix_sink, &unix_at, "shunt"), 0);
	assert_int_equal(log_sink_open(&udp_sink, &udp_at, "shunt"), 0);

	before = log_dropped();
	send_at_most = 3;
	add_numbers(unix_sink, &turn, 1, 7);
	log_turn_end(&turn);
	assert_datagrams(unix_fd, 1, 7);
	assert_int_equal(log_dropped() - before, 0);
	send_at_most = 3;
	add_numbers(udp_sink, &turn, 1, 7);
	log_turn_end(&turn);
	assert_datagrams(udp_fd, 1, 7);
	assert_int_equal(log_dropped() - before, 1);
	add_numbers(udp_sink, &turn, 1, 7); /* which is said once */
	log_turn_end(&turn);
	assert_datagrams(udp_fd, 1, 7);
	assert_int_equal(log_dropped() - before, 1);
	close_receiver(unix_fd, unix_at.path);
	close(udp_fd);
	log_sink_free(unix_sink);
	log_sink_free(udp_sink);
	rmdir(dir);
}

static void a_dead_udp_target_costs_a_batch_nothing_but_its_lines(void **unused)
{
	struct log_target target = {.kind = LOG_TARGET_UDP, .max_level = LOG_DEBUG};
	struct log_turn turn = {0};
	uint64_t before = log_dropped();
	struct log_sink *s;
	char buf[512];
	int fd;

	(void)unused;
	target.addr.in.sin_family = AF_INET;
	target.addr.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = udp_receiver(&target.addr);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	close(fd);
	for (unsigned int i = 0; i < 3; i++) {
		add_numbers(s, &turn, 1, 10);
		log_turn_end(&turn);
	}
	/* Each refusal is told with the next line: the last one is still to come. */
	assert_in_range(log_dropped() - before, 27, 30);

	fd = udp_receiver(&target.addr);
	before = log_dropped();
	add_numbers(s, &turn, 1, 10);
	log_turn_end(&turn);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), numbers(1, 10));
	assert_in_range(log_dropped() - before, 0, 1);
	close(fd);
	log_sink_free(s);
}

/* ---- the look of a line ---- */

static void syslog_framing_has_priority_time_tag_and_pid(void **unused)
{
	struct log_sink *s;
	char buf[1024], want[256];
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(open_std(&s, p[1], LOG_TARGET_STDOUT, LOG_FORMAT_RFC3164), 0);
	assert_int_equal(log_sink_write(s, LOG_ERR, "text"), 0);
	snprintf(
		want, sizeof(want),
		"^<131>[A-Z][a-z]{2} [ 123][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} shunt\\[%d\\]: text\n$",
		(int)getpid());
	assert_matches(read_now(p[0], buf, sizeof(buf)), want);
	log_sink_free(s);

	setenv("TZ", "XYZ3:30", 1); /* west of Greenwich */
	tzset();
	assert_int_equal(open_std(&s, p[1], LOG_TARGET_STDOUT, LOG_FORMAT_RFC5424), 0);
	assert_int_equal(log_sink_write(s, LOG_DEBUG, "text"), 0);
	setenv("TZ", "UTC0", 1);
	tzset();
	assert_int_equal(log_sink_write(s, LOG_EMERG, "text"), 0);
	snprintf(want, sizeof(want),
		 "^<135>1 [0-9-]{10}T[0-9:]{8}\\.[0-9]{6}-03:30 [!-~]+ shunt %d - - text\n"
		 "<128>1 [0-9-]{10}T[0-9:]{8}\\.[0-9]{6}\\+00:00 [!-~]+ shunt %d - - text\n$",
		 (int)getpid(), (int)getpid());
	assert_matches(read_now(p[0], buf, sizeof(buf)), want);
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void the_pid_is_that_of_the_writer_after_a_fork(void **unused)
{
	char buf[1024], want[64];
	struct log_sink *s;
	pid_t pid;
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(open_std(&s, p[1], LOG_TARGET_STDOUT, LOG_FORMAT_RFC3164), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		CHILD_ASSERT(log_sink_write(s, LOG_INFO, "from the background") == 0);
		log_sink_free(s);
		_exit(0);
	}
	assert_int_equal(wait_child(pid), 0);
	snprintf(want, sizeof(want), " shunt\\[%d\\]: from the background\n$", (int)pid);
	assert_matches(read_now(p[0], buf, sizeof(buf)), want);
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

static void lines_above_the_level_of_the_target_are_left_out(void **unused)
{
	struct log_target target = {.kind = LOG_TARGET_UNIX, .max_level = LOG_NOTICE};
	uint64_t before = log_dropped();
	char dir[32], buf[64];
	struct log_sink *s;
	int fd;

	(void)unused;
	unix_target(&target, dir);
	target.format = LOG_FORMAT_RAW;
	target.max_level = LOG_NOTICE;
	fd = unix_receiver(target.path);
	assert_int_equal(log_sink_open(&s, &target, "shunt"), 0);
	assert_int_equal(log_sink_write(s, LOG_INFO, "no"), 0);
	assert_int_equal(log_sink_write(s, LOG_NOTICE, "yes"), 0);
	assert_string_equal(read_now(fd, buf, sizeof(buf)), "yes\n");
	assert_int_equal(log_dropped(), before);
	close_receiver(fd, target.path);
	log_sink_free(s);
	rmdir(dir);
}

static void control_bytes_cannot_forge_a_line(void **unused)
{
	struct log_target target = {
		.kind = LOG_TARGET_STDOUT, .format = LOG_FORMAT_RFC3164, .max_level = LOG_DEBUG};
	char all[256], buf[4096];
	struct log_sink *s;
	int p[2], saved;

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	s = sink_on(p[1]);
	for (int c = 1; c < 256; c++)
		all[c - 1] = (char)c;
	all[255] = '\0';
	assert_int_equal(log_sink_write(s, LOG_INFO, all), 0);
	read_now(p[0], buf, sizeof(buf));
	assert_int_equal(strlen(buf), 256);
	for (int i = 0; i < 255; i++)
		assert_int_equal((unsigned char)buf[i], i + 1 < 32 || i + 1 == 127 ? ' ' : i + 1);
	assert_int_equal(buf[255], '\n');

	assert_int_equal(log_sink_write(s, LOG_INFO,
					"a\n<0>b\r\n\x1b[2J\xc2\x85"
					"c\xc2\x9b"
					"d \xc3\xa4\xc2\xa0 e\xc2"),
			 0);
	assert_string_equal(read_now(p[0], buf, sizeof(buf)),
			    "a <0>b   [2J  c  d \xc3\xa4\xc2\xa0 e\xc2\n");
	log_sink_free(s);

	saved = dup(STDOUT_FILENO);
	dup2(p[1], STDOUT_FILENO);
	assert_int_equal(log_sink_open(&s, &target, "evil\n<0>tag"), 0);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	assert_int_equal(log_sink_write(s, LOG_INFO, "text"), 0);
	assert_matches(read_now(p[0], buf, sizeof(buf)), "^<6>[^\n]* evil <0>tag[^\n]*: text\n$");
	log_sink_free(s);
	close(p[0]);
	close(p[1]);
}

/* ---- messages ---- */

struct captured {
	int read_end, saved;
};

/* Sends stderr into a pipe; end_capture() puts it back and returns what was written. */
static struct captured begin_capture(int max_level)
{
	struct captured c;
	int p[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	c.read_end = p[0];
	c.saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
	assert_int_equal(dup2(p[1], STDERR_FILENO), STDERR_FILENO);
	close(p[1]);
	log_setup(max_level, true);
	return c;
}

static char *end_capture(struct captured c, char *buf, size_t size)
{
	read_now(c.read_end, buf, size);
	close(c.read_end);
	dup2(c.saved, STDERR_FILENO);
	close(c.saved);
	log_setup(LOG_NOTICE, true);
	return buf;
}

static void messages_look_as_in_haproxy(void **unused)
{
	struct captured c = begin_capture(LOG_DEBUG);
	char buf[1024], want[1024];
	int pid = (int)getpid();

	(void)unused;
	log_alert("cannot %s", "bind");
	log_message(LOG_ERR, "error");
	log_warning("warning");
	log_notice("notice\n[ALERT]    (1) : forged");
	log_info("info");
	log_debug("debug %d", 7);
	end_capture(c, buf, sizeof(buf));
	snprintf(want, sizeof(want),
		 "[ALERT]    (%d) : cannot bind\n"
		 "[ALERT]    (%d) : error\n"
		 "[WARNING]  (%d) : warning\n"
		 "[NOTICE]   (%d) : notice [ALERT]    (1) : forged\n"
		 "[INFO]     (%d) : info\n"
		 "[DEBUG]    (%d) : debug 7\n",
		 pid, pid, pid, pid, pid, pid);
	assert_string_equal(buf, want);
}

static void messages_below_the_threshold_are_not_written(void **unused)
{
	struct captured c = begin_capture(LOG_WARNING);
	char buf[1024];

	(void)unused;
	assert_true(log_wants(LOG_WARNING));
	assert_false(log_wants(LOG_NOTICE));
	log_notice("no");
	log_debug("no");
	log_warning("yes");
	log_setup(LOG_WARNING, false);
	log_alert("not to stderr");
	assert_matches(end_capture(c, buf, sizeof(buf)), "^[^\n]* : yes\n$");
	assert_true(log_wants(LOG_NOTICE));
	assert_false(log_wants(LOG_INFO));
}

static void a_message_may_be_longer_than_a_line(void **unused)
{
	struct captured c = begin_capture(LOG_NOTICE);
	char buf[8192], text[6000];

	(void)unused;
	memset(text, 'm', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_notice("%s", text);
	end_capture(c, buf, sizeof(buf));
	assert_int_equal(strlen(buf), PIPE_BUF);
	assert_int_equal(buf[PIPE_BUF - 1], '\n');
}

static void a_full_stderr_neither_blocks_a_message_nor_changes_errno(void **unused)
{
	struct captured c = begin_capture(LOG_NOTICE);
	uint64_t before = log_dropped(), dropped;
	static char buf[1 << 20];
	int error, flags;

	(void)unused;
	for (int i = 0; i < 100000 && log_dropped() == before; i++)
		log_notice("again and again");
	errno = ENOTTY;
	log_notice("again and again");
	error = errno;
	dropped = log_dropped() - before;
	flags = fcntl(STDERR_FILENO, F_GETFL);
	end_capture(c, buf, sizeof(buf)); /* only now can an assertion say why it fails */
	assert_int_equal(dropped, 2);
	assert_int_equal(error, ENOTTY);
	assert_false(flags & O_NONBLOCK);
}

static void messages_go_to_the_sinks_as_well(void **unused)
{
	struct log_sink *a, *b;
	char buf[1024], tail[64];
	int p[2];

	(void)unused;
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	a = sink_on(p[1]);
	assert_int_equal(open_std(&b, p[1], LOG_TARGET_STDOUT, LOG_FORMAT_RFC3164), 0);
	log_setup(LOG_NOTICE, false);
	assert_int_equal(log_add_sink(a), 0);
	assert_int_equal(log_add_sink(b), 0);
	log_warning("pool %s", "empty");
	log_info("not wanted");
	snprintf(tail, sizeof(tail), "^pool empty\n<132>[^\n]*\\[%d\\]: pool empty\n$",
		 (int)getpid());
	assert_matches(read_now(p[0], buf, sizeof(buf)), tail);
	log_clear_sinks();
	log_warning("nobody hears this");
	assert_string_equal(read_now(p[0], buf, sizeof(buf)), "");
	for (int i = 0; i < 16; i++)
		assert_int_equal(log_add_sink(a), 0);
	assert_int_equal(log_add_sink(a), -ENOSPC);
	log_clear_sinks();
	log_setup(LOG_NOTICE, true);
	log_sink_free(a);
	log_sink_free(b);
	close(p[0]);
	close(p[1]);
}

#define WRITERS 4
#define LINES_EACH 2000

/* Lines of its own length and letter, to a target that all threads share. */
static void write_lines(void *arg, uint32_t number)
{
	char text[400];

	for (uint32_t i = 0; i < LINES_EACH; i++) {
		uint32_t len = 1 + (i * 7 + number * 91) % 390;

		memset(text, 'a' + (int)number, len);
		snprintf(text + len, sizeof(text) - len, "%u", len);
		log_sink_write(arg, LOG_INFO, text);
	}
}

/* The same in turns of one to seven lines, to two targets. */
static void add_lines(void *arg, uint32_t number)
{
	struct log_sink **sinks = arg;
	struct log_turn turn = {0};
	char text[400];

	for (uint32_t i = 0; i < LINES_EACH; i++) {
		uint32_t len = 1 + (i * 7 + number * 91) % 390;

		memset(text, 'a' + (int)number, len);
		snprintf(text + len, sizeof(text) - len, "%u", len);
		log_sink_add(sinks[0], &turn, LOG_INFO, text);
		log_sink_add(sinks[1], &turn, LOG_INFO, text);
		if (i % 7 == number || i % 3 == 0)
			log_turn_end(&turn);
	}
	log_turn_end(&turn);
}

/* Each line is one letter, as often as the number at its end says. Returns how many there are. */
static uint32_t check_lines(char *text, uint32_t of[WRITERS])
{
	uint32_t nr = 0;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), nr++) {
		size_t len = strspn(line, (char[]){line[0], '\0'});

		if (line[0] < 'a' || line[0] >= 'a' + WRITERS || (size_t)atoi(line + len) != len)
			fail_msg("a strange line: %s", line);
		of[line[0] - 'a']++;
	}
	return nr;
}

static void lines_of_several_threads_never_mix(void **state)
{
	uint32_t of[WRITERS] = {0};
	struct log_sink *s;
	char path[32], *text;
	int fd = temp_file(path);
	struct stat st;

	(void)state;
	s = sink_on(fd);
	run_threads(WRITERS, write_lines, s);
	log_sink_free(s);
	assert_int_equal(fstat(fd, &st), 0);
	text = calloc(1, (size_t)st.st_size + 1);
	assert_non_null(text);
	assert_int_equal(pread(fd, text, (size_t)st.st_size, 0), st.st_size);
	assert_int_equal(check_lines(text, of), WRITERS * LINES_EACH);
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(of[i], LINES_EACH);
	free(text);
	close(fd);
	unlink(path);
}

static void lines_that_are_dropped_under_several_threads_are_all_counted(void **state)
{
	uint64_t before = log_dropped();
	uint32_t of[WRITERS] = {0}, nr;
	char *text = calloc(1, 1 << 20);
	struct log_sink *s;
	int fds[2];

	(void)state;
	assert_non_null(text);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	s = sink_on(fds[1]);
	run_threads(WRITERS, write_lines, s); /* nobody reads: most of it has no room */
	nr = check_lines(read_now(fds[0], text, 1 << 20), of);
	assert_int_equal(nr + log_dropped() - before, WRITERS * LINES_EACH);
	log_sink_free(s);
	close(fds[0]);
	close(fds[1]);
	free(text);
}

/* A file, which gets all, and a pipe that nobody reads. */
static void batches_of_several_threads_never_mix_and_lose_nothing_uncounted(void **state)
{
	uint64_t before = log_dropped();
	uint32_t of[WRITERS] = {0}, of_pipe[WRITERS] = {0}, nr;
	char path[32], *text = calloc(1, 4 << 20);
	struct log_sink *sinks[2];
	int fd = temp_file(path), fds[2];

	(void)state;
	unlink(path);
	assert_non_null(text);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	sinks[0] = sink_on(fd);
	sinks[1] = sink_on(fds[1]);
	run_threads(WRITERS, add_lines, sinks);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(check_lines(read_now(fd, text, 4 << 20), of), WRITERS * LINES_EACH);
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(of[i], LINES_EACH);
	nr = check_lines(read_now(fds[0], text, 4 << 20), of_pipe);
	assert_true(nr > 100);
	assert_int_equal(nr + log_dropped() - before, WRITERS * LINES_EACH);
	log_sink_free(sinks[0]);
	log_sink_free(sinks[1]);
	close(fd);
	close(fds[0]);
	close(fds[1]);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_raw_line_is_its_text_and_a_newline),
		cmocka_unit_test(a_full_pipe_drops_lines_counts_them_and_recovers),
		cmocka_unit_test(a_long_line_is_cut_so_that_a_pipe_takes_all_or_nothing),
		cmocka_unit_test(a_pipe_without_reader_is_an_error_and_no_signal_when_ignored),
		cmocka_unit_test(a_pipe_that_may_not_be_opened_again_does_not_block_either),
		cmocka_unit_test(a_full_stream_socket_drops_lines_and_recovers),
		cmocka_unit_test(a_stream_socket_that_takes_half_a_line_never_joins_two),
		cmocka_unit_test(a_stream_socket_that_takes_half_a_batch_never_joins_two),
		cmocka_unit_test(a_full_disk_tears_one_line_and_the_next_starts_afresh),
		cmocka_unit_test(a_regular_file_is_appended_to_without_o_append),
		cmocka_unit_test(a_stopped_terminal_does_not_block),
		cmocka_unit_test(a_terminal_that_nobody_reads_does_not_block),
		cmocka_unit_test(
			a_stopped_terminal_that_may_not_be_opened_again_does_not_block_either),
		cmocka_unit_test(the_flags_of_a_shared_stdout_stay_as_they_are),
		cmocka_unit_test(a_closed_stdout_is_said_when_the_sink_is_opened),
		cmocka_unit_test(a_line_is_one_system_call),
		cmocka_unit_test(a_dead_udp_target_costs_nothing_but_its_lines),
		cmocka_unit_test(a_syslog_daemon_that_comes_back_gets_the_first_line),
		cmocka_unit_test(reconnecting_is_tried_once_per_interval),
		cmocka_unit_test(a_slow_syslog_daemon_drops_lines_and_stays_connected),
		cmocka_unit_test(the_lines_of_a_turn_are_one_system_call),
		cmocka_unit_test(
			the_lines_of_a_turn_are_one_system_call_on_a_pipe_that_may_not_be_opened_again),
		cmocka_unit_test(the_datagrams_of_a_turn_are_one_system_call),
		cmocka_unit_test(what_has_no_room_in_a_batch_leaves_before_the_turn_ends),
		cmocka_unit_test(a_terminal_gets_every_line_at_once),
		cmocka_unit_test(what_is_written_comes_after_what_was_added),
		cmocka_unit_test(what_was_added_leaves_when_the_sink_is_freed),
		cmocka_unit_test(a_turn_has_room_for_any_number_of_sinks),
		cmocka_unit_test(a_line_has_the_time_when_it_was_added),
		cmocka_unit_test(added_lines_above_the_level_of_the_target_are_left_out),
		cmocka_unit_test(a_batch_that_a_pipe_has_no_room_for_is_tried_line_by_line),
		cmocka_unit_test(a_batch_into_a_pipe_without_reader_counts_every_line),
		cmocka_unit_test(a_full_disk_tears_a_batch_and_every_line_of_the_rest_counts),
		cmocka_unit_test(a_full_syslog_daemon_gets_what_it_has_room_for_of_a_batch),
		cmocka_unit_test(a_batch_that_finds_the_syslog_daemon_gone_counts_every_line),
		cmocka_unit_test(a_syslog_daemon_that_is_restarted_in_a_batch_gets_the_rest),
		cmocka_unit_test(a_batch_that_stops_on_the_way_goes_on),
		cmocka_unit_test(a_dead_udp_target_costs_a_batch_nothing_but_its_lines),
		cmocka_unit_test(syslog_framing_has_priority_time_tag_and_pid),
		cmocka_unit_test(the_pid_is_that_of_the_writer_after_a_fork),
		cmocka_unit_test(lines_above_the_level_of_the_target_are_left_out),
		cmocka_unit_test(control_bytes_cannot_forge_a_line),
		cmocka_unit_test(messages_look_as_in_haproxy),
		cmocka_unit_test(messages_below_the_threshold_are_not_written),
		cmocka_unit_test(a_message_may_be_longer_than_a_line),
		cmocka_unit_test(a_full_stderr_neither_blocks_a_message_nor_changes_errno),
		cmocka_unit_test(messages_go_to_the_sinks_as_well),
		cmocka_unit_test(lines_of_several_threads_never_mix),
		cmocka_unit_test(lines_that_are_dropped_under_several_threads_are_all_counted),
		cmocka_unit_test(batches_of_several_threads_never_mix_and_lose_nothing_uncounted),
	};

	alarm(60); /* whatever blocks, blocks for ever */
	signal(SIGPIPE, SIG_IGN);
	real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
