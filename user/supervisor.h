/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * supervisor.h - keeps a worker running: starts it, forwards signals to it, starts another one when it dies or is stuck.
 *
 * The two share the table of descriptors (clone(2) with CLONE_FILES), so that what the worker opened stays open when it dies; memory is
 * the supervisor's as it was before the first worker, but for what lies in shared memory (shared.h). The supervisor keeps nothing open
 * that it had not before the first worker: any other number may be a client's. So its messages go to stderr alone.
 */
#ifndef SHUNT_SUPERVISOR_H
#define SHUNT_SUPERVISOR_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SUPERVISED_RESTED 3 /* a worker's exit status */

struct supervised {
	/* The worker's whole life; after: another one has died. What it returns is the worker's exit status. */
	int (*work)(void *arg, bool after);
	/* In the supervisor, once, when the first worker is ready. A negative result ends both. */
	int (*ready)(void *arg);
	/*
	 * For SIGUSR2, an upgrade; try == NULL: that signal is not for the supervisor. try starts a child that finds out whether another program can take over,
	 * and returns its pid, -errno, or 0 if there is to be no upgrade. rest says that the worker is to end where it is, when it gets SIGUSR2, or
	 * false if there is to be no upgrade any more. failed: it was to be one, and the trial failed. replace is called when the worker has ended; in_order: as it was to, with the status SUPERVISED_RESTED.
	 * It returns only if the other program could not take over, and then all goes on, perhaps in another process.
	 */
	pid_t (*try)(void *arg);
	bool (*rest)(void *arg);
	void (*failed)(void *arg);
	void (*replace)(void *arg, bool in_order);
	bool after; /* the first worker comes after another program's */
	void *arg;
	bool *is_ready; /* in shared memory: the worker sets it; false before each starts */
	const uint64_t *beats; /* in shared memory: each changes every second or so as long as a thread of the worker lives */
	uint32_t nr_beats;
	size_t stride; /* bytes from one beat to the next */
	uint32_t look_ms; /* between looks at the beats; 0 = 1000. After ten without a beat of some thread, or before it is ready, the worker is replaced */
	sigset_t forward; /* signals for the worker; SIGCHLD, SIGUSR2 and these must be blocked */
};

/*
 * Returns when a worker has ended by itself: its exit status. A worker that dies is replaced at once, and after a growing pause (up
 * to a second) if it had lived for less than a second. If the first one fails before it is ready, its status is returned, and EXIT_FAILURE if it dies, or if a later one does
 * and was told to end (SIGTERM, SIGINT). Whoever
 * kills the supervisor kills the worker.
 */
int supervisor_run(const struct supervised *s);

#endif
