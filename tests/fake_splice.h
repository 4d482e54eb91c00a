/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fake_splice.h - takes the place of splice.o: the same interface, with the verdict program, the sockmap's worker and the
 * event ring played in userspace, on the real sockets. It also watches userspace: it has the process's recv(), send(),
 * ioctl() and shutdown(), lets them see what a joined socket would show, and remembers the first call that breaks the contract of shunt_abi.h.
 *
 * What is real here: the sockets, their bytes, their counters. What is not: nothing runs by itself; fake_splice_run() is the
 * kernel's turn (and a read runs the program over what has come in, as the kernel would have). One at a time in a process.
 */
#ifndef SHUNT_TESTS_FAKE_SPLICE_H
#define SHUNT_TESTS_FAKE_SPLICE_H

#include "splice.h"

struct splice *fake_splice_new(uint32_t max_sessions);

/* The program sees what has come in; the worker writes what was redirected. */
void fake_splice_run(struct splice *sp);

/* From now on splice_join() returns this (0 = it joins again). */
void fake_splice_refuse(struct splice *sp, int error);

/* The program sees nothing until it is thawed: the test sets flow fields itself. The worker goes on. */
void fake_splice_freeze(struct splice *sp, bool frozen);

/* What direction `index` redirects stays in the kernel's queue. */
void fake_splice_hold(struct splice *sp, uint32_t index, bool held);
size_t fake_splice_queued(const struct splice *sp, uint32_t index);

/* The next segment of direction `index` is passed, and userspace is told why. */
void fake_splice_pause(struct splice *sp, uint32_t index, enum flow_reason reason);

/* So many of the passed bytes of direction `index` are still on their way up: neither SIOCINQ nor MSG_PEEK tells of them. */
void fake_splice_late(struct splice *sp, uint32_t index, uint64_t bytes);

/* While set, direction `index` does not come home to the kernel. */
void fake_splice_stay(struct splice *sp, uint32_t index, bool stay);

/* Segments of any size, pauses at any of them, and a worker that sleeps now and then; 0 = orderly again. */
void fake_splice_shake(struct splice *sp, uint32_t seed);

/* Puts an event into the ring. */
void fake_splice_event(struct splice *sp, uint32_t index, enum flow_reason reason, uint64_t cookie);

/* send() to this socket fails so from now on (0 = no longer), though epoll finds room in it. Without a splice too. */
void fake_send_fails(int fd, int error);

/* Successful joins; and sessions that splice_join() knows and splice_leave() has not yet been called for. */
uint32_t fake_splice_joined(const struct splice *sp);
uint32_t fake_splice_owed(const struct splice *sp);

/* How userspace broke the contract for the first time; NULL = it did not. */
const char *fake_splice_broken(const struct splice *sp);

#endif
