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

/* All that are open now are to stay. Returns 0 or -errno. */
int fdtable_keep_all(void);

/* This one too; negative is ignored. Returns 0 or -ENOMEM. */
int fdtable_keep(int fd);

/* Not this one. */
void fdtable_drop(int fd);

/* Closes all others for which spare() does not hold. Returns how many, or -errno. */
int fdtable_sweep(bool (*spare)(void *arg, int fd), void *arg);

void fdtable_done(void);

#endif
