/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * admin.h - the stats sockets: HAProxy's line protocol on unix sockets. Parses a command, asks lb,
 * pool and sessions, writes the answer.
 */
#ifndef SHUNT_ADMIN_H
#define SHUNT_ADMIN_H

struct admin;
struct lb;

/*
 * Opens every `stats socket` of lb->config; lb must outlive it. A socket file that nobody listens on is
 * replaced; one that a live process serves is -EADDRINUSE, a file of another kind -EEXIST. What
 * fails is logged. Returns 0 or -errno. Call it while the process has one thread (umask).
 */
int admin_new(struct admin **ret, struct lb *lb);

/* Serves them from now on, on lb->loop; all of lb must be there. Returns 0 or -errno. */
int admin_start(struct admin *a);

/* Cuts all clients off, and serves nobody any more. */
void admin_stop(struct admin *a);

/*
 * Cuts all clients off, closes the sockets, and removes their files unless somebody else has put
 * others there. Accepts NULL, returns NULL.
 */
struct admin *admin_free(struct admin *a);

#endif
