/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * upgrade.h - another program takes this process's place, with all its descriptors: execve(2) in the supervisor, so that its number stays.
 *
 * The new program is tried first, in a child, while this one goes on. And while it starts, a guardian waits: a copy of this process, with copies of all
 * descriptors. If the new program does not say in time that it is ready, the guardian ends it and goes on in its place.
 */
#ifndef SHUNT_UPGRADE_H
#define SHUNT_UPGRADE_H

#include <stdbool.h>
#include <sys/types.h>

/* Remembers how this program was started: call it before anything changes the working directory. argv is borrowed. Where that fails, an upgrade will. */
void upgrade_prepare(char **argv);

/*
 * Starts a child that runs the program which is now where this one was started from, to say whether it can take over (HANDOVER_TRIAL). Returns its
 * pid, or -errno.
 */
pid_t upgrade_try(void);

/*
 * Runs that program in this process's place; no other process may use the descriptors. Returns -errno if that failed: this process is as it was. Returns 0 in the
 * guardian, if the program did not get ready: it has the memory and the descriptors that this process had, and is the only one that has.
 */
int upgrade_exec(void);

/* When this program is ready: the guardian goes, if it has one. Returns whether it had. */
bool upgrade_done(void);

/* Ends what upgrade_prepare() began. */
void upgrade_forget(void);

#endif
