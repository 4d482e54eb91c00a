/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_supervisor.c - workers that end, die, fail, are stuck or stopped; what they share with the supervisor, and what the next one finds.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fdtable.h"
#include "log.h"
#include "shared.h"
#include "supervisor.h"
#include "util.h"

/* What supervisor, workers and the test see. */
static struct common {
	uint32_t lives;	  /* workers that began */
	uint32_t after;	  /* of these, as the successor of another */
	uint32_t readies; /* calls of on_ready() */
	uint32_t tries;	  /* of count_try(), */
	uint32_t early_tries; /* and those before it */
	bool ready;
	uint64_t beat;
	pid_t worker;
	int fd, swept, got;
	uint64_t began_ns[8];
} *common;

static struct supervised supervised;
static uint32_t refused_clones; /* of the next ones after the first */

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

/* The supervisor's clone(2). */
long __wrap_syscall(long number, ...)
{
	va_list args;
	long a[5];

	va_start(args, number);
	for (size_t i = 0; i < ARRAY_SIZE(a); i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (number == SYS_clone && common->lives && refused_clones) {
		refused_clones--;
		errno = EAGAIN;
		return -1;
	}
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4]);
}

static int on_ready(void *arg)
{
	(void)arg;
	common->readies++;
	return 0;
}

static void begin_life(bool after)
{
	common->worker = getpid();
	if (common->lives < ARRAY_SIZE(common->began_ns))
		common->began_ns[common->lives] = now_ns();
	common->lives++;
	common->after += after;
}

static void be_ready(void)
{
	__atomic_store_n(&common->ready, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&common->readies, __ATOMIC_ACQUIRE))
		usleep(1000);
}

static int setup(void **state)
{
	(void)state;
	common = shared_new(sizeof(*common));
	assert_non_null(common);
	supervised = (struct supervised){
		.ready = on_ready,
		.is_ready = &common->ready,
		.beats = &common->beat,
		.nr_beats = 1,
		.stride = sizeof(uint64_t),
		.look_ms = 20,
	};
	sigemptyset(&supervised.forward);
	sigaddset(&supervised.forward, SIGTERM);
	sigaddset(&supervised.forward, SIGHUP);
	log_setup(LOG_EMERG, true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	shared_free(common);
	return 0;
}

static int run(int (*work)(void *arg, bool after))
{
	sigset_t set = supervised.forward, before;
	int status;

	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, &before);
	supervised.work = work;
	status = supervisor_run(&supervised);
	sigprocmask(SIG_SETMASK, &before, NULL);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nobody is left */
	return status;
}

/* Somebody else, who does something to the supervisor or its worker. */
static pid_t meanwhile(void (*fn)(pid_t supervisor))
{
	pid_t self = getpid(), pid = fork(), other;

	assert_true(pid >= 0);
	if (pid == 0) {
		/* Not the supervisor's child: it waits for its own alone. */
		other = fork();
		if (other == 0)
			fn(self);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	return pid;
}

static void await_lives(uint32_t n)
{
	while (__atomic_load_n(&common->lives, __ATOMIC_ACQUIRE) < n || !__atomic_load_n(&common->ready, __ATOMIC_ACQUIRE))
		usleep(1000);
}

/* ---- ends ---- */

static int end_with_0(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	be_ready();
	return 0;
}

static void worker_that_ends_ends_the_supervisor(void **state)
{
	(void)state;
	assert_int_equal(run(end_with_0), 0);
	assert_int_equal(common->lives, 1);
	assert_int_equal(common->after, 0);
	assert_int_equal(common->readies, 1);
}

static int fail_at_once(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	return 3;
}

static void first_worker_that_fails_before_it_is_ready_is_not_tried_again(void **state)
{
	(void)state;
	assert_int_equal(run(fail_at_once), 3);
	assert_int_equal(common->lives, 1);
	assert_int_equal(common->readies, 0);
}

static int die_at_once(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	raise(SIGKILL);
	return 0;
}

static void first_worker_that_dies_before_it_is_ready_is_not_replaced(void **state)
{
	(void)state;
	assert_int_equal(run(die_at_once), EXIT_FAILURE);
	assert_int_equal(common->lives, 1);
}

static int die_three_times(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	be_ready();
	if (common->lives <= 3)
		raise(SIGKILL);
	return 0;
}

static void worker_that_dies_is_replaced_after_growing_pauses(void **state)
{
	(void)state;
	assert_int_equal(run(die_three_times), 0);
	assert_int_equal(common->lives, 4);
	assert_int_equal(common->after, 3);
	assert_int_equal(common->readies, 1);
	assert_true(common->began_ns[1] - common->began_ns[0] >= 10 * NS_PER_MS);
	assert_true(common->began_ns[2] - common->began_ns[1] >= 20 * NS_PER_MS);
	assert_true(common->began_ns[3] - common->began_ns[2] >= 40 * NS_PER_MS);
}

static int die_once(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	be_ready();
	if (!after)
		raise(SIGKILL);
	return 0;
}

/* How often the text stands in what was written to stderr meanwhile. */
static uint32_t count_messages(int file, const char *text)
{
	char all[65536];
	ssize_t n = pread(file, all, sizeof(all) - 1, 0);
	uint32_t count = 0;

	assert_true(n >= 0);
	all[n] = '\0';
	for (const char *at = all; (at = strstr(at, text)); at++)
		count++;
	return count;
}

static void worker_that_cannot_be_started_is_tried_again_after_growing_pauses(void **state)
{
	int file = memfd_create("stderr", MFD_CLOEXEC), saved = dup(STDERR_FILENO), status;

	(void)state;
	assert_true(file >= 0 && saved >= 0);
	refused_clones = 4;
	log_setup(LOG_ALERT, true);
	dup2(file, STDERR_FILENO);
	status = run(die_once);
	dup2(saved, STDERR_FILENO);
	close(saved);
	assert_int_equal(status, 0);
	assert_int_equal(common->lives, 2);
	assert_int_equal(common->after, 1);
	assert_int_equal(refused_clones, 0);
	assert_int_equal(count_messages(file, "cannot start a worker: Resource temporarily unavailable"), 4);
	/* 10 ms after the death, then 20, 40, 80, 160 after each refusal. */
	assert_true(common->began_ns[1] - common->began_ns[0] >= 310 * NS_PER_MS);
	close(file);
}

static int fail_later(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	be_ready();
	return common->lives == 1 ? 1 : 0;
}

static void worker_that_fails_after_it_was_ready_is_replaced(void **state)
{
	(void)state;
	assert_int_equal(run(fail_later), 0);
	assert_int_equal(common->lives, 2);
}

/* ---- signals ---- */

static int await_signal(void *arg, bool after)
{
	sigset_t set = supervised.forward;

	(void)arg;
	begin_life(after);
	be_ready();
	for (;;) {
		struct timespec tick = {.tv_nsec = 5000000};

		common->beat++;
		common->got = sigtimedwait(&set, NULL, &tick);
		if (common->got > 0)
			return 0;
	}
}

static void send_hup(pid_t supervisor)
{
	await_lives(1);
	kill(supervisor, SIGHUP);
}

static void signals_are_forwarded(void **state)
{
	(void)state;
	meanwhile(send_hup);
	assert_int_equal(run(await_signal), 0);
	assert_int_equal(common->got, SIGHUP);
}

static pid_t count_try(void *arg)
{
	(void)arg;
	common->tries++;
	common->early_tries += !common->readies;
	return 0;
}

static int be_upgraded_early(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	kill(getppid(), SIGUSR2);
	usleep(100000); /* ten looks of the supervisor's */
	be_ready();
	while (!__atomic_load_n(&common->tries, __ATOMIC_ACQUIRE))
		usleep(1000);
	return 0;
}

/* Until then there may be a guardian, with copies of all descriptors. */
static void upgrade_waits_until_the_first_worker_is_ready(void **state)
{
	(void)state;
	supervised.try = count_try;
	assert_int_equal(run(be_upgraded_early), 0);
	assert_int_equal(common->tries, 1);
	assert_int_equal(common->early_tries, 0);
}

static void kill_worker_then_term(pid_t supervisor)
{
	await_lives(1);
	kill(common->worker, SIGKILL);
	kill(supervisor, SIGTERM);
}

static void signal_that_comes_while_there_is_no_worker_is_for_the_next_one(void **state)
{
	(void)state;
	meanwhile(kill_worker_then_term);
	assert_int_equal(run(await_signal), 0);
	assert_int_equal(common->got, SIGTERM);
}

static int be_ready_once(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	if (!after)
		be_ready();
	raise(SIGKILL);
	return 0;
}

static void send_term_later(pid_t supervisor)
{
	while (__atomic_load_n(&common->lives, __ATOMIC_ACQUIRE) < 3)
		usleep(1000);
	kill(supervisor, SIGTERM);
}

static void workers_that_do_not_get_ready_any_more_end_when_they_are_told_to(void **state)
{
	(void)state;
	meanwhile(send_term_later);
	assert_int_equal(run(be_ready_once), EXIT_FAILURE);
	assert_true(common->lives >= 3);
}

/* ---- beats ---- */

static int stop_beating(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	be_ready();
	for (; common->lives == 1;) /* an endless loop */
		;
	return 0;
}

static void worker_that_is_stuck_is_replaced(void **state)
{
	(void)state;
	assert_int_equal(run(stop_beating), 0);
	assert_int_equal(common->lives, 2);
}

static int stick_at_the_second_time(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	for (; common->lives == 2;) /* before it is ready */
		;
	be_ready();
	if (common->lives == 1)
		raise(SIGKILL);
	return 0;
}

static void worker_that_is_stuck_before_it_is_ready_is_replaced(void **state)
{
	(void)state;
	assert_int_equal(run(stick_at_the_second_time), 0);
	assert_int_equal(common->lives, 3);
}

static void stop_and_continue(pid_t supervisor)
{
	(void)supervisor;
	await_lives(1);
	kill(common->worker, SIGSTOP);
	usleep(600000); /* three times of what makes a worker stuck */
	kill(common->worker, SIGCONT);
	usleep(300000);
	kill(common->worker, SIGTERM);
}

static void worker_that_is_stopped_is_not(void **state)
{
	(void)state;
	meanwhile(stop_and_continue);
	assert_int_equal(run(await_signal), 0);
	assert_int_equal(common->lives, 1);
	assert_int_equal(common->got, SIGTERM);
}

static void kill_supervisor(pid_t supervisor)
{
	await_lives(1);
	kill(supervisor, SIGKILL);
}

static void worker_dies_with_its_supervisor(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		meanwhile(kill_supervisor);
		_exit(run(await_signal) + 100);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	for (int i = 0; kill(common->worker, 0) == 0; i++) {
		assert_true(i < 5000);
		usleep(1000);
	}
}

/* ---- descriptors ---- */

static bool spare_nothing(void *arg, int fd)
{
	(void)arg;
	(void)fd;
	return false;
}

static int leave_descriptors(void *arg, bool after)
{
	(void)arg;
	begin_life(after);
	be_ready();
	if (!after) {
		for (int i = 0; i < 100; i++)
			common->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		raise(SIGKILL);
	}
	fdtable_keep(common->fd);
	common->swept = fdtable_sweep(spare_nothing, NULL);
	common->got = fcntl(common->fd, F_GETFD);
	return 0;
}

static uint32_t count_fds(void)
{
	uint32_t n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void next_worker_finds_what_was_open_and_closes_what_nobody_owns(void **state)
{
	uint32_t before;

	(void)state;
	log_prepare();
	before = count_fds();
	assert_int_equal(run(leave_descriptors), 0);
	assert_int_equal(common->lives, 2);
	assert_int_equal(common->swept, 99);
	assert_true(common->got >= 0);
	assert_int_equal(count_fds(), before + 1);
	close(common->fd);
}

#define supervisor_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		supervisor_test(worker_that_ends_ends_the_supervisor),
		supervisor_test(first_worker_that_fails_before_it_is_ready_is_not_tried_again),
		supervisor_test(first_worker_that_dies_before_it_is_ready_is_not_replaced),
		supervisor_test(worker_that_dies_is_replaced_after_growing_pauses),
		supervisor_test(worker_that_cannot_be_started_is_tried_again_after_growing_pauses),
		supervisor_test(workers_that_do_not_get_ready_any_more_end_when_they_are_told_to),
		supervisor_test(worker_that_fails_after_it_was_ready_is_replaced),
		supervisor_test(signals_are_forwarded),
		supervisor_test(upgrade_waits_until_the_first_worker_is_ready),
		supervisor_test(signal_that_comes_while_there_is_no_worker_is_for_the_next_one),
		supervisor_test(worker_that_is_stuck_is_replaced),
		supervisor_test(worker_that_is_stuck_before_it_is_ready_is_replaced),
		supervisor_test(worker_that_is_stopped_is_not),
		supervisor_test(worker_dies_with_its_supervisor),
		supervisor_test(next_worker_finds_what_was_open_and_closes_what_nobody_owns),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
