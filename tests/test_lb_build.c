/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_lb_build.c - what is built for which configuration and kernel: is there to be a supervisor, how are unread bytes asked for, and have threads their
 * pipes? The kernel path is played (fake_splice), and so is what its trial finds out.
 */
#include "netpair.h"

#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "fake_splice.h"
#include "handover.h"
#include "lb.h"
#include "log.h"
#include "qualify.h"

static enum sock_unread found;
static bool asked, without_pipes;

int __real_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags)
{
	if (!without_pipes)
		return __real_pipe2(fds, flags);
	errno = EMFILE;
	return -1;
}

int splice_new(struct splice **ret, const struct splice_options *o, char *why, size_t size)
{
	(void)why, (void)size;
	*ret = fake_splice_new(o->max_sessions);
	return 0;
}

int qualify(struct splice *sp, enum sock_unread *ret_unread, char *why, size_t size)
{
	(void)sp, (void)why, (void)size;
	asked = true;
	*ret_unread = found;
	return 0;
}

/* With these lines in `global`. */
static struct config *configuration(const char *global)
{
	int high = getpid() >> 8 & 255, low = getpid() & 255; /* an address that is nobody else's */
	struct config *c = config_new(CONFIG_RESOLVE);
	char text[512];

	snprintf(text, sizeof(text), "global\n  maxconn 10\n%slisten l\n  bind 127.104.%d.%d:19001\n  server s 127.0.0.1:9001\n", global, high, low);
	assert_int_equal(config_parse(c, "test", text, strlen(text)), 0);
	assert_int_equal(config_finish(c), 0);
	return c;
}

static void supervisor_is_where_sessions_could_be_taken_over(void **state)
{
	static const struct {
		const char *global;
		enum sock_unread found;
		int r;
		bool supervised, asked;
	} cases[] = {
		{ "", SOCK_UNREAD_TOLD, 0, true, true },
		{ "", SOCK_UNREAD_SHOWN, 0, true, true },
		{ "", SOCK_UNREAD_UNKNOWN, 0, false, true },
		{ "  nosplice\n", SOCK_UNREAD_UNKNOWN, 0, true, false },
		{ "  master-worker\n", SOCK_UNREAD_SHOWN, 0, true, true },
		{ "  master-worker\n", SOCK_UNREAD_UNKNOWN, -ENOTSUP, false, true },
		{ "  no master-worker\n", SOCK_UNREAD_TOLD, 0, false, true },
		{ "  no master-worker\n", SOCK_UNREAD_UNKNOWN, 0, false, true },
	};
	unsigned int fds = net_count_fds();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *c = configuration(cases[i].global);
		struct lb *lb = NULL;

		found = cases[i].found;
		asked = false;
		assert_int_equal(lb_new(&lb, c), cases[i].r);
		assert_int_equal(asked, cases[i].asked);
		if (cases[i].r == 0) {
			assert_int_equal(lb->supervised, cases[i].supervised);
			assert_int_equal(lb->unread, cases[i].asked ? cases[i].found : SOCK_UNREAD_UNKNOWN);
			lb_free(lb);
		}
		config_free(c);
		assert_int_equal(net_count_fds(), fds);
	}
}

/* Exits with 0 if the next program finds our pipes where they were, with what is in them. */
static void take_pipes(const struct lb *lb, const struct config *c)
{
	struct lb *next;
	int n;

	if (handover_write(HANDOVER_TAKE) < 0 || handover_read() != HANDOVER_TAKE || lb_new(&next, c) < 0)
		_exit(1);
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		if (next->pipes[i].in != lb->pipes[i].in || next->pipes[i].out != lb->pipes[i].out)
			_exit(2);
	}
	_exit(ioctl(next->pipes[1].out, FIONREAD, &n) == 0 && n == 5 ? 0 : 3);
}

static void pipes_go_along_at_an_upgrade(void **state)
{
	struct config *c = configuration("  nbthread 2\n");
	struct lb *lb;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(lb_new(&lb, c), 0);
	for (uint32_t i = 0; i < 2; i++)
		assert_true(lb->pipes[i].in >= 0 && lb->pipes[i].out >= 0);
	assert_int_equal(write(lb->pipes[1].in, "bytes", 5), 5);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		take_pipes(lb, c);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	handover_done();
	lb_free(lb);
	config_free(c);
}

/* Starts with one thread and these lines, and ends. */
static bool has_pipe(const char *global)
{
	struct config *c = configuration(global);
	struct lb *lb;
	bool ret;

	assert_int_equal(lb_new(&lb, c), 0);
	ret = lb->pipes[0].in >= 0;
	assert_int_equal(lb->pipes[0].out >= 0, ret);
	lb_free(lb);
	config_free(c);
	return ret;
}

static void without_a_pipe_it_starts_all_the_same(void **state)
{
	(void)state;
	assert_true(has_pipe("  nbthread 1\n"));
	without_pipes = true;
	assert_false(has_pipe("  nbthread 1\n"));
	without_pipes = false;
}

static void what_splices_nothing_needs_no_pipe(void **state)
{
	(void)state;
	assert_false(has_pipe("  nbthread 1\n  nosplice\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pipes_go_along_at_an_upgrade),
		cmocka_unit_test(without_a_pipe_it_starts_all_the_same),
		cmocka_unit_test(what_splices_nothing_needs_no_pipe),
		cmocka_unit_test(supervisor_is_where_sessions_could_be_taken_over),
	};

	log_setup(LOG_EMERG, false); /* warnings are wanted here, not seen */
	return cmocka_run_group_tests_name("lb_build", tests, NULL, NULL);
}
