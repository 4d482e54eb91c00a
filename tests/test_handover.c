/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_handover.c - what one program gives to the next: all of it by name, nothing twice, and nothing at all from a list that makes no sense. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fdtable.h"
#include "handover.h"
#include "shared.h"
#include "util.h"

static int teardown(void **state)
{
	(void)state;
	handover_done();
	fdtable_done();
	unsetenv(HANDOVER_VARIABLE);
	return 0;
}

/* As if this process had been started with such a list. */
static void set_list(const char *kind, const char *text)
{
	int fd = memfd_create("list", 0);
	char value[32];

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	snprintf(value, sizeof(value), "%s:%d", kind, fd);
	assert_int_equal(setenv(HANDOVER_VARIABLE, value, 1), 0);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void without_the_variable_a_program_starts_afresh(void **state)
{
	uint64_t n = 77;

	(void)state;
	assert_int_equal(handover_read(), HANDOVER_NONE);
	assert_int_equal(handover_kind(), HANDOVER_NONE);
	assert_int_equal(handover_take_fd("x"), -1);
	assert_false(handover_number("x", &n));
	assert_int_equal(n, 77);
}

/* The rest of execve(2): what is written by one process is read by its successor, here a child's child. */
static void what_is_given_is_taken_once_by_name(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), other = open("/dev/zero", O_RDONLY | O_CLOEXEC), list;
	uint64_t n = 0;

	(void)state;
	handover_give_number("maxconn", 18446744073709551615ull);
	handover_give_number("with a space", 5);
	handover_give_fd("listener/0", other);
	handover_give_fd("listener/0", fd); /* replaces it */
	handover_give_fd("stats//run/a b.sock", other);
	handover_give_fd("withdrawn", other);
	handover_withdraw_fd("withdrawn");
	handover_withdraw_fd("never given");
	list = handover_write(HANDOVER_TAKE);
	assert_true(list >= 0);
	assert_int_equal(fcntl(list, F_GETFD) & FD_CLOEXEC, 0);
	assert_int_equal(fdtable_inherit_all(true), 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);

	assert_int_equal(handover_read(), HANDOVER_TAKE);
	assert_int_equal(handover_kind(), HANDOVER_TAKE);
	assert_null(getenv(HANDOVER_VARIABLE)); /* it is nobody else's */
	assert_false(is_open(list));
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_true(handover_number("maxconn", &n));
	assert_int_equal(n, 18446744073709551615ull);
	assert_true(handover_number("with a space", &n));
	assert_int_equal(n, 5);
	assert_false(handover_number("listener/0", &n));
	assert_int_equal(handover_take_fd("maxconn"), -1);
	assert_int_equal(handover_take_fd("withdrawn"), -1);
	assert_int_equal(handover_take_fd("listener/0"), fd);
	assert_int_equal(handover_take_fd("listener/0"), -1);
	assert_int_equal(handover_take_fd("stats//run/a b.sock"), other);
	close(fd);
	close(other);
}

static bool spare_none(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	return false;
}

/* What nobody asks for is not ours: it stays until it is swept, and then it is closed. */
static void what_nobody_takes_is_swept(void **state)
{
	int taken = open("/dev/null", O_RDONLY), not_taken = open("/dev/null", O_RDONLY), ours, status;
	char text[100];
	pid_t pid;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		snprintf(text, sizeof(text), "shunt-handover 1\nfd a %d\nfd b %d\n", taken, not_taken);
		set_list("take", text);
		if (handover_read() != HANDOVER_TAKE || handover_take_fd("a") != taken)
			_exit(1);
		ours = open("/dev/null", O_RDONLY);
		if (fdtable_keep_all() < 0 || fdtable_sweep(spare_none, NULL) < 1)
			_exit(2);
		_exit(is_open(taken) && is_open(ours) && is_open(STDERR_FILENO) && !is_open(not_taken) ? 0 : 3);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(taken);
	close(not_taken);
}

/* A trial gets the numbers, and what it does to descriptors is its own affair. */
static void trial_is_given_numbers_alone(void **state)
{
	int fd = open("/dev/null", O_RDONLY), list;
	uint64_t n = 0;

	(void)state;
	handover_give_number("maxconn", 5);
	handover_give_fd("listener/0", fd);
	list = handover_write(HANDOVER_TRIAL);
	assert_true(list >= 0);
	assert_int_equal(handover_read(), HANDOVER_TRIAL);
	assert_true(handover_number("maxconn", &n));
	assert_int_equal(handover_take_fd("listener/0"), -1);
	assert_true(is_open(fd));
	close(fd);
}

static void list_that_makes_no_sense_is_refused(void **state)
{
	static const struct {
		const char *text;
		int error;
	} lists[] = {
		{ "", -EPROTO },
		{ "hello\n", -EPROTO },
		{ "shunt-handover 2\nnumber a 1\n", -EPROTONOSUPPORT },
		{ "shunt-handover 11\n", -EPROTONOSUPPORT },
		{ "shunt-handover 1\nnumber a\n", -EPROTO },
		{ "shunt-handover 1\nnumber a b\n", -EPROTO },
		{ "shunt-handover 1\nnumber a 1 2\n", -EPROTO },
		{ "shunt-handover 1\nnumber a 1", -EPROTO },
		{ "shunt-handover 1\n\n", -EPROTO },
		{ "shunt-handover 1\nthing a 1\n", -EPROTO },
		{ "shunt-handover 1\nfd a 999999\n", -EPROTO },
		{ "shunt-handover 1\nfd a -1\n", -EPROTO },
		{ "shunt-handover 1\nfd a 99999999999\n", -EPROTO },
	};
	static const char *values[] = { "", "take", "take:", "take:x", "take:99999", "take:0:1", "give:0", ":" };
	char text[400] = "shunt-handover 1\nnumber ";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		set_list("take", lists[i].text);
		assert_int_equal(handover_read(), lists[i].error);
		assert_int_equal(handover_kind(), HANDOVER_NONE);
		teardown(NULL);
	}
	memset(text + strlen(text), 'n', 200); /* too long a name */
	strcat(text, " 1\n");
	set_list("take", text);
	assert_true(handover_read() < 0);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		assert_int_equal(setenv(HANDOVER_VARIABLE, values[i], 1), 0);
		assert_true(handover_read() < 0);
	}
}

static void name_that_is_too_long_is_not_forgotten_silently(void **state)
{
	char name[HANDOVER_NAME_MAX + 1];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[HANDOVER_NAME_MAX] = '\0';
	handover_give_number(name, 1);
	assert_int_equal(handover_write(HANDOVER_TRIAL), -ENOMEM);
}

/* Memory is the same for the next program, wherever it lies there. */
static void kept_memory_is_handed_over_with_its_bytes(void **state)
{
	char *before = shared_new_kept("ledger", 10000), *after;

	(void)state;
	assert_non_null(before);
	assert_int_equal(before[9999], 0);
	strcpy(before + 9000, "as it was");
	assert_true(handover_write(HANDOVER_TAKE) >= 0);
	assert_int_equal(handover_read(), HANDOVER_TAKE);
	after = shared_new_kept("ledger", 10000);
	assert_non_null(after);
	assert_ptr_not_equal(after, before);
	assert_string_equal(after + 9000, "as it was");
	strcpy(before + 9000, "changed");
	assert_string_equal(after + 9000, "changed");
	shared_free(after); /* closes the descriptor of both */
	munmap(before - 4096, 10000 + 4096);
}

static void kept_memory_of_another_size_is_refused(void **state)
{
	char *before = shared_new_kept("ledger", 10000);

	(void)state;
	assert_non_null(before);
	assert_true(handover_write(HANDOVER_TAKE) >= 0);
	assert_int_equal(handover_read(), HANDOVER_TAKE);
	assert_null(shared_new_kept("ledger", 20000));
	assert_int_equal(errno, EPROTO);
	munmap(before - 4096, 10000 + 4096);
}

#define handover_test(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		handover_test(without_the_variable_a_program_starts_afresh),
		handover_test(what_is_given_is_taken_once_by_name),
		handover_test(what_nobody_takes_is_swept),
		handover_test(trial_is_given_numbers_alone),
		handover_test(list_that_makes_no_sense_is_refused),
		handover_test(name_that_is_too_long_is_not_forgotten_silently),
		handover_test(kept_memory_is_handed_over_with_its_bytes),
		handover_test(kept_memory_of_another_size_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
