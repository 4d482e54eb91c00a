/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_help.h - what the tests of the program in the running kernel stand on: connected sockets,
 * streams of which every byte is known, threads that send and receive them, a look into the maps,
 * and the rig: one session around a real splice, with a userspace that keeps the flow contract.
 *
 *	client ══ sender thread ══► ends[0] ──(program, or pump)──► ends[1] ══► receiver thread ══
 *server
 *
 * Direction i is read from ends[i] and written to ends[!i]. Only the test's own thread may assert.
 */
#ifndef SHUNT_TESTS_BPF_HELP_H
#define SHUNT_TESTS_BPF_HELP_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>

#include "splice.h"
#include "util.h"

/* For emulated machines; a healthy kernel needs none of it. */
#define PATIENCE_MS 30000

/* step is what is to be done while it waits, complain what is to be said if that is in vain. */
#define wait_for(condition, step, complain)                                                        \
	do {                                                                                       \
		const uint64_t until_ = now_ns() + PATIENCE_MS * NS_PER_MS;                        \
		while (!(condition)) {                                                             \
			if (now_ns() > until_) {                                                   \
				complain;                                                          \
				fail_msg("line %d: in vain: %s", __LINE__, #condition);            \
			}                                                                          \
			step;                                                                      \
		}                                                                                  \
	} while (0)
#define wait_until(condition) wait_for(condition, usleep(1000), (void)0)

/* The message is about a result that should be 0 or more. */
#define assert_ok(call)                                                                            \
	do {                                                                                       \
		int r_ = (int)(call);                                                              \
		if (r_ < 0)                                                                        \
			fail_msg("line %d: %s: %d (%s)", __LINE__, #call, r_,                      \
				 strerror(r_ == -1 ? errno : -r_));                                \
	} while (0)

/* Prints why, and skips; under CI that is a failure. */
void skip_because(const char *reason);

/* Group setup: skips nothing, but says plainly that root is needed. */
int need_root(void **state);

/* ---- sockets ---- */

enum family { IP4, IP6, IP4_MAPPED };

struct pair_options {
	enum family family;
	int rcvbuf[2]; /* of ret[0] and ret[1]; 0 = the kernel's choice */
	int mss;       /* 0 = loopback's 64 KB */
};

/* One loopback connection: ret[0] connected to ret[1], which was accepted. */
void tcp_pair(int ret[2], const struct pair_options *o);

void set_int(int fd, int level, int option, int value);
void send_all(int fd, const void *data, size_t len);
/* Waits for exactly that many bytes. */
void recv_all(int fd, void *data, size_t len);
/* Nothing to read, and no end either. */
bool is_silent(int fd);
/* Waits for poll(2) events. */
void wait_poll(int fd, short events);
/* The descriptors that this process has. */
unsigned int count_fds(void);

/* ---- streams: byte `at` of the stream `seed` ---- */

void stream_fill(char *buf, uint32_t seed, uint64_t at, size_t len);
bool stream_is(const char *buf, uint32_t seed, uint64_t at, size_t len);

/* A thread that sends or receives a stream. Zeroed = not started. */
struct traffic {
	int fd; /* borrowed */
	uint32_t seed;
	uint32_t chunk; /* the most that one call moves */
	uint32_t burst; /* calls after which it waits; 0 = never; set before the start */
	const struct traffic *follower; /* until this one has it all too; set before the start */
	bool shuts;			/* FIN when the goal is reached; set before the start */
	bool sends, started;
	pthread_t thread;
	/* shared; see traffic_...() */
	uint64_t goal, done;
	bool stop;
	int error; /* -EBADMSG = a wrong byte, -ENODATA = end of stream before the goal */
};

#define ENDLESS UINT64_MAX

void traffic_send(struct traffic *t, int fd, uint32_t seed, uint64_t goal, uint32_t chunk);
void traffic_receive(struct traffic *t, int fd, uint32_t seed, uint64_t goal, uint32_t chunk);
uint64_t traffic_done(const struct traffic *t);
void traffic_set_goal(struct traffic *t, uint64_t goal);
/* Waits for its end; with stop it ends after the current call, whatever the goal. Returns its
 * error. */
int traffic_join(struct traffic *t, bool stop);

/* ---- maps, found among this process's own descriptors ---- */

/* The descriptor of the (only) map of that name in this process, or -1. Borrowed. */
int map_fd(const char *name);
/* Entries of `slots`, and filled places of `sockets`. */
unsigned int count_slots(void);
unsigned int count_sockets(void);

/* ---- the rig ---- */

struct rig {
	struct splice *sp;
	uint32_t session;
	uint64_t limit;
	bool joined;
	bool no_pump[2];
	int client, server, ends[2];
	uint64_t before[2]; /* of each direction: bytes that were written before the join */
	struct splice_end joins[2];
	struct traffic senders[2], receivers[2]; /* by direction */
	uint64_t proven[2]; /* redirected bytes that have left the kernel's queue */
	char *scratch;
	uint64_t events[2][FLOW_REASON_MAX];
	uint64_t strangers; /* events with another cookie */
};

struct rig_options {
	uint32_t max_sessions; /* 0 = 1 */
	uint64_t limit;	       /* 0 = 1 MB */
	struct pair_options front, back;
};

/* cmocka's setup and teardown of a test: *state is an empty rig; whatever is in it is ended. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* Loads the program. */
void rig_load(struct rig *rig, const struct rig_options *o);
/* Makes the four sockets, tuned as the daemon's. */
void rig_connect(struct rig *rig, const struct rig_options *o);
/* Both of them. */
void rig_open(struct rig *rig, const struct rig_options *o);

/* splice_join(); want says which directions the kernel may move. Returns what that returns. */
int rig_join(struct rig *rig, bool want_up, bool want_down);
/* Closes both ends, leaves the slot. */
void rig_leave(struct rig *rig, bool reset);
/* The applications' sockets; their threads must have ended. */
void rig_hang_up(struct rig *rig);

struct flow *rig_flow(struct rig *rig, int direction);
/* Bytes on their way to the receiving end that its TCP has not sent. Exact when nothing moves. */
uint64_t rig_backlog(struct rig *rig, int direction);

/* Sends and receives that many bytes in a direction, in threads. */
void rig_traffic(struct rig *rig, int direction, uint64_t goal, uint32_t chunk);
/* Ends an endless sender, and waits until the receiver has every byte of it. */
void rig_finish_traffic(struct rig *rig, int direction);

/* Prints what is to be known when nothing goes on. */
void rig_say(struct rig *rig);

/* Takes the events, moves what was passed, waits at most a millisecond. */
void rig_turn(struct rig *rig);
/* The same, but waits 20 us. */
void rig_step(struct rig *rig);
#define rig_until(rig, condition) wait_for(condition, rig_turn(rig), rig_say(rig))

/* extra + redirected + moved == what the receiving end was given, in both directions. */
void rig_assert_accounts(struct rig *rig);

uint64_t exits(struct rig *rig, enum flow_exit way);

#endif
