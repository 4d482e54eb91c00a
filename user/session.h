/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session.h - the life of a session, from the accepted client to the log line. See session.c for
 * the states and invariants.
 */
#ifndef SHUNT_SESSION_H
#define SHUNT_SESSION_H

#include "budget.h"
#include "choose.h"
#include "ledger.h"
#include "loop.h"
#include "pool.h"
#include "relay.h"
#include "sock.h"
#include "splice.h"

/* The sessions of one thread. */
struct sessions;
struct session;

struct sessions_options {
	struct loop *loop;     /* all borrowed */
	struct splice *splice; /* NULL: userspace moves every byte */
	struct ledger *ledger;
	struct process_stats *stats;
	struct sock_tuning tuning; /* its limit is the most that one direction gets of the budget */
	struct budget *budget;
	const struct relay_pipe *pipe; /* for transfers that userspace moves; NULL: it copies them */
	enum sock_unread unread;   /* how the kernel tells what is unread in a joined socket */
	uint32_t thread;	   /* whose records and events these are */
	/* A session is gone, its slot and descriptors are free again: once for every session_start(). */
	void (*ended)(void *arg, struct frontend *fe);
	void *arg;
};

/* Returns 0 or -ENOMEM. */
int sessions_new(struct sessions **ret, const struct sessions_options *o);

/* All sessions must have ended. Accepts NULL, returns NULL. */
struct sessions *sessions_free(struct sessions *t);

/*
 * Makes sure that whom this thread accepts next and serves can get a server, even with the last descriptor: to be asked before each accept(2).
 * Returns 0, or -errno if there is no descriptor to keep for that (-EMFILE, -ENFILE, -ENOMEM): then nobody is to be accepted.
 */
int sessions_keep_spare(struct sessions *t);

/*
 * Begins a session for a client that fe accepted; owns fd from here on, whatever happens: what
 * cannot be served is reset, and logged if it got a slot. Returns 0; -ENOSPC when all slots are
 * taken; -ENOMEM.
 */
int session_start(struct sessions *t, struct frontend *fe, int fd, const struct addr *client);

/*
 * Goes on with the session of a record that a worker left behind when it died; fe and be are the record's. Its descriptors are checked
 * to be what the record says. What cannot be continued exactly is reset, and logged. Before the loop runs.
 */
void session_adopt(struct sessions *t, uint32_t number, struct frontend *fe, struct backend *be);

/* The number of the session that the worker which died was serving last: to be adopted before the others of its thread, if it has a state. */
uint32_t sessions_unsettled(const struct sessions *t);

/* Resets every session (SIGINT, hard-stop-after). */
void sessions_kill(struct sessions *t);

/* Handles what the program told through the event ring. Only with a splice. */
void sessions_dispatch(struct sessions *t);

uint32_t sessions_count(const struct sessions *t);

/* What one session is doing, for `show sess`. */
struct session_view {
	const struct ledger_record *record;
	const struct frontend *frontend;
	const struct server *server; /* NULL = none chosen (yet) */
	uint32_t thread;	     /* that serves it */
	bool splicing;		     /* the two sockets are in the map */
	enum flow_mode mover[2];     /* of each direction: 0 = client to server */
	struct byte_count bytes[2];
	uint32_t pauses[2], resumes[2];
	uint32_t held[2]; /* bytes in a relay buffer */
	uint64_t peak[2];
	enum choose_reason choice[2];	/* who is to move it, and why */
	uint32_t limit[2];
};

/* Calls fn for every session, in the order of their slots. */
void sessions_each(struct sessions *t, void (*fn)(void *arg, const struct session_view *v),
		   void *arg);

#endif
