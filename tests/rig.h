/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rig.h - sessions with everything that they stand on: a loop, a ledger, a pool made from a configuration by hand, a
 * listener, servers, and a log to read. Without a splice userspace moves the bytes; with fake_splice the test plays the kernel.
 *
 *	rig_init(&r, 2);			two servers, which listen
 *	r.proxy->timeout.client = 100;		the test's own settings
 *	rig_start(&r);
 *	rig_meet(&r, 0);			r.client is connected with r.server through server 0
 *	...
 *	rig_done(&r);				waits for the end of all sessions; fails if anything is left behind
 */
#ifndef SHUNT_TESTS_RIG_H
#define SHUNT_TESTS_RIG_H

#include "netpair.h"

#include "conf.h"
#include "fake_splice.h"
#include "listener.h"
#include "session.h"

#define RIG_SERVERS 4
#define RIG_SESSIONS 16
#define RIG_LIMIT (256 * 1024)

enum { TO_SERVER = 0, TO_CLIENT = 1 }; /* directions, and flow indexes of the first session */

struct rig_log {
	char server[64];
	long queue_ms, connect_ms, total_ms;
	unsigned long bytes;
	char state[3];
	unsigned int process, frontend, backend, of_server, retries, backend_queue;
	bool redispatched;
};

struct rig {
	struct config config;
	struct config_proxy *proxy;
	struct config_server *server_conf[RIG_SERVERS];
	int servers[RIG_SERVERS]; /* listening */
	uint32_t nr_servers;
	uint32_t max_sessions;
	bool survives; /* what it holds lies in the ledger: for rig_die() */

	struct loop *loop;
	struct ledger *ledger;
	struct pool *pool;
	struct relay_pipe pipe;
	struct splice *splice;
	struct sessions *sessions;
	struct process_stats stats;
	struct budget budget;
	struct frontend *fe;
	struct backend *be;
	struct listener *listener;
	struct addr at;
	struct poll splice_events;
	int started;	       /* what the last session_start() returned */
	uint32_t ended;	       /* sessions that are gone */
	uint64_t turns;	       /* of rig_turn(): each wakes the loop once */

	struct peer client, server;
	struct peer *extra[RIG_SESSIONS]; /* more peers that take their turns; the test's own */
	int log_fd;
	char log_path[108];
	unsigned int fds_before;
};

/* How the kernel that is played tells what is unread; of all rigs. */
extern enum sock_unread rig_unread;

void rig_init(struct rig *r, uint32_t nr_servers);
void rig_start(struct rig *r);
void rig_start_spliced(struct rig *r);
void rig_done(struct rig *r);

/* The worker dies between two turns, without a trace but what lies in the ledger and in its sockets, and the next one takes over. Needs `survives`. */
void rig_die(struct rig *r);

/* A moment in which everybody takes a turn: peers, the fake kernel, the loop. */
void rig_turn(struct rig *r);

#define WAIT_FOR(r, what)                                                                              \
	do {                                                                                           \
		uint64_t until_ = now_ns() + NET_DEADLINE_MS * NS_PER_MS;                              \
		while (!(what)) {                                                                      \
			if (now_ns() > until_)                                                         \
				fail_msg("%s:%d: in vain: %s", __FILE__, __LINE__, #what);             \
			rig_turn(r);                                                                   \
		}                                                                                      \
	} while (0)

/* Lets some time pass in which nothing of note is to happen. */
void rig_run_ms(struct rig *r, unsigned int ms);

/* Connects a client (seed 1, expects 2); it has not been accepted yet. */
void rig_client(struct rig *r, struct peer *p);

/* Waits for the next client of server n (seed 2, expects 1). */
void rig_accept(struct rig *r, uint32_t n, struct peer *p);

/* r->client and r->server, connected with each other and established. */
void rig_meet(struct rig *r, uint32_t n);

/* Both have got all that the other was told to send. */
bool rig_exchanged(const struct rig *r);

/* The session in the lowest slot; fails without one. */
struct session_view rig_view(struct rig *r);

/* Waits for the next line and takes it apart. */
struct rig_log rig_log(struct rig *r);

#endif
