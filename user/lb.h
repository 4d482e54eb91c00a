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

/*
 * Open to read for admin, written by lb alone. It lies in shared memory: counters, limits and `stopping` outlive a worker; threads, loop,
 * signals and timers are the running worker's.
 */
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
	struct relay_pipe *pipes;    /* owned; of each thread */
	struct budget budget;	     /* of what waits towards peers */
	struct lb_listener *listeners; /* owned; as they were opened: each thread has a share of its own */
	uint32_t nr_listeners;
	struct beat {
		uint64_t at_ns;
		char pad[56]; /* to a cache line of its own */
	} *beats;		     /* of each thread; in shared memory */
	struct new_client {
		int fd;
		uint32_t listener;
	} *new_clients;		     /* of a worker that died: accepted, and in no record; while a worker starts */
	uint32_t nr_new_clients;
	bool supervised;	     /* a worker may be followed by another */
	enum sock_unread unread;     /* how the kernel tells what is unread in a sockmap's socket */
	bool ready;		     /* a worker serves; atomic */
	bool resting;		     /* it is to stop where it is, for another program to take over: nobody ends; atomic */
	bool guarded;		     /* another process has copies of all descriptors (upgrade.h); atomic */
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
	uint64_t stop_at_ns;	     /* hard-stop-after: when all sessions are reset; 0 = never */
	struct timer stop_timer;
	struct poll signals;
};

/*
 * Builds what outlives a worker: limits, proxies, listeners, kernel path (qualified), stats sockets. What fails is logged with what
 * to do about it. Whether a worker may be followed by another (lb->supervised) is the configuration's to say, and the kernel's unless the configuration insists. What an earlier program has handed over is taken (handover.h); the first worker then comes
 * after that program's. Returns 0 or -errno.
 */
int lb_new(struct lb **ret, const struct config *c);

/*
 * Could this program take over with this configuration? Nothing that the running one has is touched: the kernel path is tried with maps of its own. What
 * speaks against it is logged. Returns 0 or -errno.
 */
int lb_try(const struct config *c);

/* Of what a worker left nothing must be in use any more. Accepts NULL, returns NULL. */
struct lb *lb_free(struct lb *lb);

/*
 * Builds the worker: threads, their loops, signals. Signals must be blocked by the caller beforehand: they are read from a
 * descriptor. after: a worker that had its descriptors from the same table has died; its sessions are taken over. Returns 0 or -errno.
 */
int lb_start(struct lb *lb, bool after);

/* Ends what lb_start() began; all sessions must have ended. */
void lb_finish(struct lb *lb);

/* Runs until it is stopped, or is to rest (then all sessions are as they were). Returns 0 or -errno. */
int lb_run(struct lb *lb);

/* Stops accepting; ends when the last session has ended, or after hard-stop-after. */
void lb_drain(struct lb *lb);

/* Resets all sessions and ends. */
void lb_stop(struct lb *lb);

/* The signals that lb_run() handles: to be blocked before lb_new(). */
void lb_signals(sigset_t *ret);

#endif
