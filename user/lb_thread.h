/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lb_thread.h - one thread of the balancer: its loop, its sessions, its part in accepting, and the
 * limits on that.
 *
 * All threads accept from the same sockets; who accepted a client gives it to the thread that has
 * the fewest. A client is accepted only when a place is kept for it, at the process and at its
 * frontend, so that maxconn holds exactly, however many threads accept. When descriptors run out,
 * which other than that the limits prevent, one thread at a time accepts, and serves what it
 * accepted: or several would take the last descriptors for clients, and have none for servers.
 */
#ifndef SHUNT_LB_THREAD_H
#define SHUNT_LB_THREAD_H

#include <pthread.h>

#include "listener.h"
#include "loop.h"
#include "pool.h"
#include "session.h"

struct lb;
struct lb_thread;

/* One bound address, as one thread sees it. */
struct lb_listener {
	struct listener *listener; /* owned; NULL once closed */
	struct frontend *frontend;
	struct lb_thread *thread;
	bool paused; /* its frontend is full, or the process, or something is exhausted */
};

struct lb_thread {
	struct lb *lb;
	uint32_t number;
	pthread_t id;
	bool running; /* id is valid */
	struct loop *loop;
	struct sessions *sessions;
	struct lb_listener *listeners; /* owned; lb->nr_listeners of them */
	uint32_t load; /* sessions, and clients on their way to it; atomic, never above its share of
			  the ledger */
	bool paused;   /* at least one listener is; atomic */
	bool careful;  /* holds lb->scarce */
	struct timer exhausted_timer;
	struct later resume; /* posted by threads whose session ended */
	struct poll splice_events;
};

/* Makes the thread's own things; lb has its ledger, pool and splice. Returns 0 or -errno. */
int lb_thread_init(struct lb_thread *t, struct lb *lb, uint32_t number);
void lb_thread_done(struct lb_thread *t);

/* Takes a listener of its own for each of lb's. Returns 0 or -errno. */
int lb_thread_share_listeners(struct lb_thread *t, const struct lb_listener *of);

/* Serves a client that a worker had accepted from a listener when it died, and nobody knows of. Takes over fd. Before the loops run. */
void lb_thread_admit(struct lb_thread *t, uint32_t listener, int fd);

/* Watches listeners and events from now on. Returns 0 or -errno. */
int lb_thread_start(struct lb_thread *t);

/* Stops accepting for good. From thread 0. */
void lb_thread_close_listeners(struct lb_thread *t);

#endif
