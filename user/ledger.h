/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ledger.h - one fixed-size record per session, in a shared mapping: everything that another
 * process would need to take the session over. Nothing in it points to anything. Session s is
 * record s.
 *
 * Owns the mapping and the lists of free numbers: one for each thread, which takes and releases its
 * own numbers without a lock.
 */
#ifndef SHUNT_LEDGER_H
#define SHUNT_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "addr.h"
#include "shunt_abi.h"

#define LEDGER_VERSION 5 /* of what follows: a program does not take over from one with another */

enum ledger_state {
	LEDGER_FREE = 0,
	LEDGER_QUEUED,	   /* waits for a place at a server */
	LEDGER_CONNECTING, /* has the client, connects to the server */
	LEDGER_RELAY,	   /* userspace moves the bytes */
	LEDGER_JOINING,	   /* nothing is held, the flows are ready: its sockets are on their way into the map */
	LEDGER_SPLICED,	   /* joined: each flow says who moves its bytes */
	LEDGER_FLUSH,	   /* one end is gone; what it sent is still on its way to the other */
};

/* "QUEUED", "CONNECTING", ... */
const char *ledger_state_name(enum ledger_state s);

/* An address without the 128 bytes of a sockaddr_storage. */
struct ledger_addr {
	uint8_t ip[16];
	uint16_t port; /* network order */
	uint16_t family;
};

void ledger_addr_set(struct ledger_addr *to, const struct addr *from);
void ledger_addr_get(const struct ledger_addr *from, struct addr *to);

struct ledger_record {
	uint64_t serial;		    /* of the session, from 1 */
	uint32_t state;			    /* enum ledger_state */
	uint32_t fallback;		    /* enum splice_fallback */
	uint16_t frontend, backend, server; /* config ids; server 0 = none */
	uint16_t retries;
	int32_t fd[2];	    /* client, server; -1 = none */
	uint64_t cookie[2]; /* 0 = not in the map */
	struct ledger_addr client, server_addr;
	uint64_t accepted_ns; /* CLOCK_MONOTONIC */
	uint64_t accepted_real_ns;
	uint64_t queued_ns;    /* since when it waits for a place; 0 = it does not */
	uint64_t crashed_ns;   /* when a worker last died that was serving it */
	uint64_t placed_ns;    /* when it got out of the queue, or was accepted */
	uint64_t connected_ns; /* 0 = not yet */
	uint64_t relayed[2]; /* bytes that userspace moved before the join, by direction (0 = client
				to server) */
	uint64_t taken[2]; /* bytes that userspace has read in that direction, passed ones included, but for those of a read
			      that has just returned */
	uint32_t held[2]; /* bytes of direction i in its area: see ledger_area() */
	uint8_t eof[2];	     /* end i has sent its FIN */
	uint8_t done[2]; /* direction i is finished: its FIN is in the send queue of the other end,
			    behind all bytes */
	uint8_t redispatched; /* it has a server that was not the first */
	uint8_t crashes;      /* workers that died in a moment in which it was served */
	uint8_t ending;	      /* it has ended, and its sockets are being closed: the reason (session_state.h) + 1 */
	uint8_t counted;      /* and that is in the log and in the counters */
	uint8_t broken;	      /* in FLUSH: the end that is gone, */
	uint8_t why;	      /* and what the session will have ended with */
	uint8_t served;	      /* when a worker died, and not adopted by another since */
	uint8_t pad[5];
};

struct ledger;

/* threads divide the records evenly; the first ones get the rest. Returns 0 or -ENOMEM. */
int ledger_new(struct ledger **ret, uint32_t max_sessions, uint32_t threads);
struct ledger *ledger_free(struct ledger *l);

/* Takes a free record of the thread's, cleared but for its serial and fds; -ENOSPC when all of its
 * are taken. */
int ledger_take(struct ledger *l, uint32_t thread, uint32_t *ret);

/* By the thread that took it. */
void ledger_release(struct ledger *l, uint32_t session);

/* The first number of a thread's, and how many there are. */
uint32_t ledger_first(const struct ledger *l, uint32_t thread);
uint32_t ledger_share(const struct ledger *l, uint32_t thread);

/* After the death of the worker that had it: only records with a state are taken. Call it while the process has one thread. */
void ledger_recover(struct ledger *l);

/*
 * From now on all of it lies in memory that the program sees which takes this process's place (shared_new_kept()), and holds what an earlier one has left
 * there; before any record is taken. And there is a place of LEDGER_AREA bytes for what userspace has read in a direction and not yet written, which takes memory only while
 * something is in it; without this call, ledger_area() is NULL. Returns 0; -ENOMEM if the system does not give away as many addresses; -EPROTO if the earlier one
 * had another size.
 */
int ledger_keep(struct ledger *l);

#define LEDGER_AREA (1024 * 1024)
char *ledger_area(struct ledger *l, uint32_t session, int direction);

/* A thread's buffer for what it is just moving, LEDGER_SCRATCH bytes. */
#define LEDGER_SCRATCH (1024 * 1024 + 64)
void *ledger_scratch(struct ledger *l, uint32_t thread);

/* The session that a thread serves at this moment: its number + 1, or 0. Shared, for who comes after a death. */
uint32_t *ledger_serving(struct ledger *l, uint32_t thread);

struct ledger_record *ledger_get(struct ledger *l, uint32_t session);
uint32_t ledger_max(const struct ledger *l);
uint32_t ledger_used(const struct ledger *l); /* from any thread */

#endif
