/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fdtable.h - which descriptors of a table that several processes share are to stay: what the supervisor had open before its first
 * worker, and what the ledger says. Everything else was left behind by a worker that died.
 *
 * One list for a process, which a worker inherits as it was when it began. Used while the process has one thread.
 */
#ifndef SHUNT_FDTABLE_H
#define SHUNT_FDTABLE_H

#include <stdbool.h>

/* Looks how large the table is, for a process that will not be able to (privileges.h): it must not grow until it is swept. */
void fdtable_measure(void);

/*
 * In a program that was started by another one's execve(2): what is open now but standard input, output and error is not ours until we own it;
 * it is made close-on-exec. Returns 0 or -errno.
 */
int fdtable_disown_all(void);
void fdtable_own(int fd);

/* Before an execve(2): is the new program to have all that is open (or nothing but standard input, output and error)? Returns 0 or -errno. */
int fdtable_inherit_all(bool yes);

/* All that are open now, and ours, are to stay. Returns 0 or -errno. */
int fdtable_keep_all(void);

/* This one too; negative is ignored. Returns 0 or -ENOMEM. */
int fdtable_keep(int fd);

bool fdtable_has(int fd);

/* Not this one. */
void fdtable_drop(int fd);

/* Closes all others for which spare() does not hold. Returns how many, or -errno. */
int fdtable_sweep(bool (*spare)(void *arg, int fd), void *arg);

void fdtable_done(void);

#endif
