/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * listener.h - a listening socket: opened, accepted from, paused and resumed. No policy: the owner
 * decides what to do with a client.
 */
#ifndef SHUNT_LISTENER_H
#define SHUNT_LISTENER_H

#include "addr.h"
#include "loop.h"
#include "sock.h"

struct listener;

struct listener_ops {
	/*
	 * May another client be accepted? Who says true keeps its place for it, until accepted(),
	 * unused() or exhausted(). False: stop accepting in this turn. NULL: any number may.
	 */
	bool (*room)(void *arg);
	/* There was no client for the place that room() kept. */
	void (*unused)(void *arg);
	/* A client was accepted: takes over fd. Return false to stop accepting in this turn. */
	bool (*accepted)(void *arg, int fd, const struct addr *client);
	/* accept(2) failed for lack of descriptors or memory (error is -errno): the owner takes the
	 * place back and should pause, or it will be told again and again. */
	void (*exhausted)(void *arg, int error);
};

/*
 * Binds and listens. Accepted sockets are non-blocking and inherit what sock_prepare() and sock_tune() set. Whether
 * an IPv6 wildcard takes IPv4 too is the system's choice (net.ipv6.bindv6only), as in HAProxy.
 * Returns 0 or -errno of socket, setsockopt, bind or listen (-EADDRINUSE, -EACCES, -EADDRNOTAVAIL).
 */
int listener_open(struct listener **ret, const struct addr *at, int backlog,
		  const struct sock_tuning *tuning);

/* One that listens already, at fd, which it owns from now on. Returns 0 or -ENOMEM. */
int listener_take(struct listener **ret, int fd);

/*
 * Another listener for the same socket, to be started on another thread's loop: a client wakes one
 * of the threads that wait. Returns 0, -ENOMEM or dup(2)'s -errno.
 */
int listener_share(struct listener **ret, const struct listener *of);

/* Closes it; with the last one that shares the socket, clients in the backlog are reset. Accepts
 * NULL, returns NULL. */
struct listener *listener_close(struct listener *l);

/* The same, but its descriptor is left as it is: it may be closed already. */
struct listener *listener_forget(struct listener *l);

int listener_fd(const struct listener *l);

/*
 * Is fd a socket that was accepted at its address? (No other socket of the process has that.) any: at a wildcard's port, where no other
 * listener has the address itself. Its own descriptor is not looked at: it may be closed already.
 */
bool listener_has_accepted(const struct listener *l, int fd, bool any);

/* Starts accepting on this loop. ops and arg must outlive it. Returns 0 or -errno. */
int listener_start(struct listener *l, struct loop *loop, const struct listener_ops *ops,
		   void *arg);

/* Stops and goes on with accepting; clients wait in the backlog meanwhile. Idempotent. */
void listener_pause(struct listener *l);
int listener_resume(struct listener *l);

#endif
