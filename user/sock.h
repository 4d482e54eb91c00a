/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sock.h - what shunt asks of a TCP socket: its options, and the kernel's own byte counters, which prove delivery.
 * Owns nothing; every function takes a descriptor.
 */
#ifndef SHUNT_SOCK_H
#define SHUNT_SOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "addr.h"

/* How sockets of sessions are set up. A listening socket hands all of it down to what it accepts. */
struct sock_tuning {
	uint32_t limit; /* the most bytes that may ever wait unsent in the send queue: the send buffer is made four times that, or of SHUNT_SEGMENT_MAX */
	uint32_t begin; /* those that may at first (TCP_NOTSENT_LOWAT): see sock_limit() */
};

/*
 * Sets what every session socket has before its first byte: SO_OOBINLINE (an urgent byte is data like any other), and SO_LINGER {1,0}:
 * until its orderly close a socket resets when it is closed, or when the daemon dies. Returns 0 or setsockopt(2)'s -errno.
 */
int sock_prepare(int fd);

/*
 * Sets what a socket has that lives for longer than one small message: TCP_NODELAY, keepalive, TCP_NOTSENT_LOWAT and the send buffer.
 * Options that the kernel refuses to an unprivileged process (a send buffer above wmem_max) are left at what it grants.
 * Returns 0 or setsockopt(2)'s -errno.
 */
int sock_tune(int fd, const struct sock_tuning *t);

/*
 * Sets the bytes that may wait unsent; not more than what sock_tune() was told. However few, a segment of SHUNT_SEGMENT_MAX is taken, as it must be in
 * one piece. Returns 0 or setsockopt(2)'s -errno.
 */
int sock_limit(int fd, uint32_t limit);

/* From now on close(fd) does not reset: what is queued is still delivered, then FIN. */
void sock_end_orderly(int fd);

/* It does, as sock_prepare() has set it; and sock_is_fresh() does not hold any more. */
void sock_end_reset(int fd);

/* Was fd accepted from a prepared listener, and nothing ever read, written or ended? */
bool sock_is_fresh(int fd);

/* close(fd) with a reset, which throws away what is queued. */
void sock_close_reset(int fd);

/*
 * All bytes ever given to fd for sending, whether by send(2) or by the kernel's redirect, whether acknowledged or not:
 * tcpi_bytes_acked + SIOCOUTQ, read in this order, so that an acknowledgment in between makes it too small, never too large.
 * Counts the SYN of an active open (1) and a sent FIN (1). Returns 0 or -errno.
 */
int sock_written(int fd, uint64_t *ret);

/* All bytes received in order, a received FIN counted as one. Returns 0 or -errno. */
int sock_received(int fd, uint64_t *ret);

/* How far a socket has come, without the FINs; see the two above. */
struct sock_progress {
	uint64_t received, unread, written;
	bool fin_received, fin_sent;
	bool gone;  /* no connection any more: reset, or both streams are complete; a received FIN is in received then */
	bool error; /* reset, and no call had been told before; this one takes it away only if it had to be shown what is unread: */
	int told;   /* then that is the error; else 0 */
};

/*
 * How a kernel tells which bytes of a sockmap's socket are unread, that is passed by the program: SIOCINQ counts them from Linux 6.19 on ("bpf, sockmap: Fix
 * FIONREAD for sockmap", backported to 6.18 and 6.12.75). Before that, recv(MSG_PEEK) shows them all, copied and not taken (but of a socket
 * that was reset and has none, it takes the error).
 */
enum sock_unread {
	SOCK_UNREAD_UNKNOWN,
	SOCK_UNREAD_TOLD,
	SOCK_UNREAD_SHOWN,
	SOCK_UNREAD_ANY, /* looks whether there are any: 1 or 0. For sock_look_at_unread() */
};

/* In that way. Returns the bytes or -errno; *ret_told is the error that was taken if one was, and else left alone. */
int64_t sock_look_at_unread(int fd, enum sock_unread how, int *ret_told);

/* Exact while nobody reads or writes; segments may come and go. Returns 0 or -errno. how: SOCK_UNREAD_TOLD if fd is in no sockmap. */
int sock_progress(int fd, enum sock_unread how, struct sock_progress *ret);

/* Is fd a TCP socket that is connected with that address (or was)? */
bool sock_is_connected_to(int fd, const struct addr *peer);

/* Is fd a socket that listens at that address? */
bool sock_listens_at(int fd, const struct addr *own);

/* An estimate of how many bytes send() would take now, if no more than limit may be unsent (TCP_NOTSENT_LOWAT). 0 also if that cannot be told. */
uint32_t sock_room(int fd, uint32_t limit);

/* Bytes in the send queue that were not sent even once (SIOCOUTQNSD); 0 on error. */
uint32_t sock_unsent(int fd);

struct sock_activity {
	uint64_t acked;		  /* bytes acknowledged by the other end */
	uint32_t last_received_ms; /* since a segment with data came in */
	uint32_t last_acked_ms;	   /* since any acknowledgment came in */
};

/* For idle timeouts: when did something last happen on this socket? Returns 0 or -errno. */
int sock_activity(int fd, struct sock_activity *ret);

/*
 * Makes fd's receive buffer small (bytes, raised to what four of its segments need), for a sender that is faster than where its
 * bytes go: so little is on the way when it is stopped. Only while the buffer is full: then nothing is on the way that would not find
 * room. Returns true when it is done, false if the buffer is not full: try again at another time.
 */
bool sock_tighten(int fd, uint32_t bytes);

/*
 * Bounds fd's receive buffer, where userspace is its reader: what the path has in flight at bytes_per_s (over its shortest round trip),
 * twice, and what it reads at once (bytes). The kernel would let it grow as long as the reader keeps up with nothing else. Enlarges what was bounded
 * before; makes it smaller only while it is full, as above; else it stays as large as it is. A path of more than two milliseconds is
 * left to the kernel. ours: this function or sock_tighten() has set it. Returns whether it is ours now.
 */
bool sock_fit(int fd, uint32_t at_once, uint64_t bytes_per_s, bool ours);

/*
 * Of a receive buffer that is so full that TCP tells its sender of no window: makes room in it for a few segments more, and leaves it to the kernel again.
 * The sender is told by the next read. Returns 1; 0 where there is room; -ENOBUFS where no more is to be had (32 MB); or another -errno.
 */
int sock_relieve(int fd);

/* Takes both back: the kernel tunes the buffer again (from Linux 5.14 on). */
void sock_loosen(int fd);

/* Neither end has sent its FIN, as far as the kernel knows; what is unread counts. */
bool sock_is_established(int fd);

/* Takes and clears SO_ERROR. */
int sock_error(int fd);

#endif
