/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool.h - the run-time side of the proxies: frontends, backends, their servers, who is picked next and who waits.
 *
 * Owns frontends, backends, servers, their counters and log sinks; borrows the configuration. What counts and what an operator has set
 * lies in shared memory, and outlives a worker. All threads share it: counters are
 * atomic, and picking and waiting are under the backend's lock. It opens no socket.
 */
#ifndef SHUNT_POOL_H
#define SHUNT_POOL_H

#include <pthread.h>

#include "balance.h"
#include "config.h"
#include "list.h"
#include "log.h"
#include "stats.h"

enum server_state { SERVER_READY, SERVER_DRAIN, SERVER_MAINT };

/* "ready", "drain", "maint": HAProxy's words of `set server`. */
const char *server_state_name(enum server_state s);

struct server {
	const struct config_server *conf;
	struct backend *backend;
	enum server_state state;
	uint32_t weight;
	uint64_t changed_ns; /* of the state */
	struct stats stats;
};

struct backend {
	const struct config_proxy *conf;
	struct server *servers; /* conf->nr_servers of them; number = place in the file */
	struct balance balance;
	pthread_mutex_t lock; /* guards queue, and the places at servers with a maxconn; recursive */
	struct list queue; /* of struct pool_wait: sessions for which every usable server is full */
	struct stats stats;
	struct list entry;
};

struct frontend {
	const struct config_proxy *conf;
	struct backend *backend;
	uint32_t taken;	  /* of maxconn, accepts under way included; atomic */
	bool full;	  /* accept is paused, which was counted; atomic */
	uint32_t maxconn; /* the smaller of its own and the process's */
	struct log_sink *sinks[32];
	uint32_t nr_own_sinks, nr_sinks; /* the first ones are its own, the others the pool's (`log global`) */
	struct stats stats;
	struct list entry;
};

/*
 * A session that waits for a place; embedded in it. fn is called, in whatever thread gave the place back and under the backend's
 * lock, when there may be one for the first of the queue: it picks, now or later, and
 * if it got the place it leaves the queue and calls pool_wake() for the next; if not, it stays where it is.
 */
struct pool_wait {
	struct list entry;
	bool waiting; /* is in the queue; only its own thread changes that */
	void (*fn)(struct pool_wait *w);
};

struct pool {
	struct list frontends; /* of struct frontend, in the order of the file */
	struct list backends;  /* of struct backend */
	struct log_sink *global_sinks[16]; /* as many as the parser takes */
	uint32_t nr_global_sinks;
};

/*
 * Builds everything from a finished configuration, which must outlive it. maxconn is the process's limit. A log target that cannot be opened is
 * reported once and left out. Returns 0 or -ENOMEM.
 */
int pool_new(struct pool **ret, const struct config *c, uint32_t maxconn);
/* The daemon's own messages go to the global logs from now on, and nowhere else but the standard error. */
void pool_add_sinks(struct pool *p);

/* Lets go of the sockets of all logs: see log_sink_rest(). */
void pool_rest_sinks(struct pool *p);

struct pool *pool_free(struct pool *p);

/* A worker has died: nobody waits, nobody has a place, no lock is held. Its sessions are counted again as they are adopted. */
void pool_forget_sessions(struct pool *p);

/* By their config ids, or NULL. */
struct frontend *pool_frontend(struct pool *p, uint16_t id);
struct backend *pool_backend(struct pool *p, uint16_t id);

/* A bit per server: those that this session has already tried. */
struct pool_tried {
	uint64_t *bits; /* owned; NULL = none */
};

bool pool_tried_has(const struct pool_tried *t, uint32_t number);
int pool_tried_add(struct pool_tried *t, const struct backend *b, uint32_t number);
void pool_tried_done(struct pool_tried *t);

/*
 * Picks the next server of b that is ready, has weight, was not tried and has a place, and takes that place (pool_leave() gives it back).
 * waited: it was called from the queue; who was not does not get a limited server's place before those that wait.
 * Returns 0; -EAGAIN: there is such a server, but it is full (wait with pool_wait()); -ENOENT: there is none.
 */
int pool_pick(struct backend *b, const struct pool_tried *tried, bool waited, uint64_t now_s, struct server **ret);

/* Takes a place at this very server, full or not: a retry of a session that has just left it. */
void pool_enter(struct server *s, uint64_t now_s);

/* Calls the first of those that wait, if any: there may be a place. */
void pool_wake(struct backend *b);

/* Gives the place back, for the first of those that wait. */
void pool_leave(struct server *s);

/* For what must not be torn apart: a pick that fails, and the wait that follows. */
void pool_lock(struct backend *b);
void pool_unlock(struct backend *b);

void pool_wait(struct backend *b, struct pool_wait *w);
void pool_unwait(struct backend *b, struct pool_wait *w);

#endif
