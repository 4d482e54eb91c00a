/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lb.h - the balancer as a whole: everything wired together, limits on accepting, and the order of starting and stopping.
 */
#ifndef SHUNT_LB_H
#define SHUNT_LB_H

#include <signal.h>

#include "config.h"
#include "ledger.h"
#include "lb_thread.h"
#include "splice.h"
#include "stats.h"

struct admin;

/* Open to read for admin, written by lb alone. */
struct lb {
	const struct config *config; /* borrowed */
	struct lb_thread *threads;   /* owned; the first one is the process's own, which also serves signals and stats sockets */
	uint32_t nr_threads;
	struct loop *loop;	     /* of the first thread */
	struct pool *pool;
	struct splice *splice;	     /* NULL: userspace only */
	char path_reason[400];	     /* one line: which path and why */
	struct ledger *ledger;
	struct admin *admin;
	struct process_stats stats;
	struct budget budget;	     /* of what waits towards peers */
	uint32_t nr_listeners;	     /* of each thread */
	uint32_t maxconn;	     /* sessions of the process */
	uint32_t taken;		     /* of maxconn, accepts under way included; atomic */
	uint32_t nofile;	     /* descriptors it may open */
	uint64_t started_ns;
	bool stopping;		     /* no new clients; ends with the last session; atomic */
	bool killed;		     /* all sessions are reset, those on their way to a thread too; atomic */
	bool full;		     /* maxconn is reached, which was said; atomic */
	uint64_t scarce_until_ns;    /* descriptors or memory ran out not long ago; atomic */
	pthread_mutex_t scarce;	     /* then held from room() until the session has its own descriptors */
	struct later finished;	     /* the last session has ended */
	struct timer stop_timer;
	struct poll signals;
};

/*
 * Builds the balancer: limits, kernel path (qualified), listeners, stats sockets. What fails is logged with what to do about it.
 * Signals must be blocked by the caller beforehand: they are read from a descriptor. Returns 0 or -errno.
 */
int lb_new(struct lb **ret, const struct config *c);
struct lb *lb_free(struct lb *lb);

/* Runs until it is stopped. Returns 0 or -errno. */
int lb_run(struct lb *lb);

/* Stops accepting; ends when the last session has ended, or after hard-stop-after. */
void lb_drain(struct lb *lb);

/* Resets all sessions and ends. */
void lb_stop(struct lb *lb);

/* The signals that lb_run() handles: to be blocked before lb_new(). */
void lb_signals(sigset_t *ret);

#endif
