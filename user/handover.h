/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * handover.h - what a process gives to the program that takes its place by execve(2): descriptors and numbers, each with a name
 * (spaces in it count as underscores).
 *
 * A list of lines in a memory file, whose descriptor stands in the environment (SHUNT_HANDOVER):
 *
 *	shunt-handover 1
 *	fd listener/0 7
 *	number maxconn 2000
 *
 * One list of what was given to this process, and one of what it will give, for the whole process. Used while it has one thread.
 */
#ifndef SHUNT_HANDOVER_H
#define SHUNT_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#define HANDOVER_VARIABLE "SHUNT_HANDOVER"
#define HANDOVER_NAME_MAX 160

enum handover_kind {
	HANDOVER_NONE,	/* this process starts afresh */
	HANDOVER_TRIAL, /* it is only to say, by its exit status, whether it could take over; it is given numbers, no descriptors */
	HANDOVER_TAKE,	/* it takes over */
};

/*
 * Reads what was given to this process, as the variable says, and removes that. Every descriptor that is open now is remembered as not ours
 * (fdtable.h), and made close-on-exec. Returns enum handover_kind, or -errno: -EPROTO for a list that makes no sense, -EPROTONOSUPPORT for one of
 * another version.
 */
int handover_read(void);

/* What it has read; HANDOVER_NONE before. */
enum handover_kind handover_kind(void);

/* Takes a descriptor of that name; the caller's from now on. Returns it, or -1 if none was given, or it is taken. */
int handover_take_fd(const char *name);

/* Returns false, and leaves *ret alone, if there is no such number. */
bool handover_number(const char *name, uint64_t *ret);

/* Will be given. A descriptor stays the caller's; a name that was there is replaced. Without memory the list is incomplete: handover_write() says so. */
void handover_give_fd(const char *name, int fd);
void handover_give_number(const char *name, uint64_t number);

/* Will not be given any more. Harmless if it was not to be. */
void handover_withdraw_fd(const char *name);

/* Writes the list into a new memory file, for `kind`, and sets the variable. Returns the descriptor, not close-on-exec, or -errno. */
int handover_write(enum handover_kind kind);

/* Forgets both lists. */
void handover_done(void);

#endif
