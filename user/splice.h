/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * splice.h - the kernel path: the verdict program, its maps, and the joining and leaving of a session's two sockets.
 *
 * The only module that knows libbpf and the skeleton. It owns the maps, their pins and the event ring; it owns no socket. Where
 * `struct splice *` is NULL in other modules, userspace moves every byte.
 */
#ifndef SHUNT_SPLICE_H
#define SHUNT_SPLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shunt_abi.h"

struct splice;

struct splice_options {
	uint32_t max_sessions; /* sizes the maps; 1 to 4 million */
	uint32_t threads;      /* each with a ring of events; 0 = 1 */
	const char *pin_path;  /* a folder of a BPF file system, "" = pin nothing; mounted and made if needed */
};

/*
 * Loads and attaches the program and pins the maps. A pin folder left behind by a dead daemon is taken over; one that a live
 * daemon holds is -EADDRINUSE. What an earlier program has handed over (handover.h) is used again: maps, rings, the pin folder; -EPROTO if it
 * does not fit. On failure why[] says what did not work and what to do about it. Returns 0 or -errno.
 */
int splice_new(struct splice **ret, const struct splice_options *o, char *why, size_t size);

/* Another process has attached another program to the same maps: attaches ours again, for those that join from now on. Returns 0 or -errno. */
int splice_reclaim(struct splice *sp);

/* Unpins and frees. All joined sockets must have been closed. Accepts NULL, returns NULL. */
struct splice *splice_free(struct splice *sp);

/* One end of a session that is to be joined. */
struct splice_end {
	int fd;
	uint64_t extra;	  /* all bytes given to fd so far, the SYN of an active open counted as one: what sock_written() says */
	bool want_kernel; /* may the kernel move what is read from this end? */
	uint32_t sample;  /* tell of every so many segments that the kernel moved (FLOW_REASON_SAMPLE); 0 = never */
	uint64_t cookie;  /* result */
};

/*
 * Joins ends[0] (client) and ends[1] (server) of a session. Both must be established, and nothing read may wait in userspace to be
 * written. What is received and not read goes through the program; of a partly read segment it cuts off what was read (trim()).
 * limit is the bytes that may wait towards either end; thread is who is told of events.
 *
 * Returns 0: both directions work, and each struct flow says who moves it. Or -errno: -EOPNOTSUPP (one end has already sent its
 * FIN), -ENOMEM, -EBUSY, -EINVAL (the socket has an upper protocol): nothing is moved by the kernel, and userspace can go on reading and writing both.
 * In both cases splice_leave() must be called after the sockets are closed.
 */
int splice_join(struct splice *sp, uint32_t session, uint32_t thread, struct splice_end ends[2], uint64_t limit);

/*
 * The same for a worker that comes after one that died in splice_join(): goes on with what that had begun. Of ends only fd is used. Returns as
 * that does, and -EAGAIN if it had not begun: the session is not joined.
 */
int splice_join_again(struct splice *sp, uint32_t session, struct splice_end ends[2]);

/* Is the socket with that cookie in the map at index (whatever became of its peer)? */
bool splice_has(struct splice *sp, uint32_t index, uint64_t cookie);

/* Forgets the session. Its sockets must be closed already: then no program runs for them any more. */
void splice_leave(struct splice *sp, uint32_t session, const uint64_t cookies[2]);

/* After a worker's death: forgets the sockets of sessions for which used(arg, session) does not hold. */
void splice_sweep(struct splice *sp, bool (*used)(void *arg, uint32_t session), void *arg);

/* The direction that is read from socket `index`; valid as long as sp. */
struct flow *splice_flow(struct splice *sp, uint32_t index);

/* Becomes readable when there are events for that thread. */
int splice_event_fd(const struct splice *sp, uint32_t thread);

/* Delivers the events that wait for that thread. Late ones of ended sessions come too: compare the cookie. */
void splice_dispatch(struct splice *sp, uint32_t thread, void (*fn)(void *arg, const struct flow_event *e), void *arg);

/* Sums of the program's exits (enum flow_exit). */
void splice_counters(const struct splice *sp, uint64_t ret[FLOW_EXIT_MAX]);

/* Sets them to zero. No socket may be joined meanwhile. Returns 0 or -errno. */
int splice_clear_counters(struct splice *sp);

/* For reading and publishing the fields that two sides share. */
#define flow_get(f, field) __atomic_load_n(&(f)->field, __ATOMIC_ACQUIRE)
#define flow_set(f, field, value) __atomic_store_n(&(f)->field, value, __ATOMIC_RELEASE)

#endif
