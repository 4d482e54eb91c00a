/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * admin.h - the stats sockets: HAProxy's line protocol on unix sockets. Parses a command, asks lb, pool and sessions, writes the answer.
 */
#ifndef SHUNT_ADMIN_H
#define SHUNT_ADMIN_H

struct admin;
struct lb;

/*
 * Opens every `stats socket` of lb->config and starts serving on lb->loop. A socket file that nobody listens on is
 * replaced; one that a live process serves is -EADDRINUSE. What fails is logged. Returns 0 or -errno. lb must outlive it.
 */
int admin_new(struct admin **ret, struct lb *lb);

/* Closes and removes the sockets. Accepts NULL, returns NULL. */
struct admin *admin_free(struct admin *a);

#endif
