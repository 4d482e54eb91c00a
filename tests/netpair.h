/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * netpair.h - what tests need of TCP on the loopback: sockets that listen, refuse or swallow, and
 * peers that send and expect a pattern. All are non-blocking; whatever fails, fails the test.
 */
#ifndef SHUNT_TESTS_NETPAIR_H
#define SHUNT_TESTS_NETPAIR_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "addr.h"
#include "util.h"

#define NET_DEADLINE_MS 20000 /* for what must happen: long, since nobody waits for it but a failing test */

/* A listening socket at a free port of 127.0.0.1. */
int net_listen(struct addr *ret);

/* A socket that keeps its port and refuses every connection. */
int net_refuse(struct addr *ret);

/* A listening socket whose queue is full: it answers no SYN. fill is the client that fills it; close both. */
int net_black_hole(struct addr *ret, int *ret_fill);

/* Starts connecting; on the loopback it is connected at once if there is a place in the queue. */
int net_connect(const struct addr *to);

/* The next client, or -1 if there is none yet. */
int net_accept(int listener);

/* Two connected sockets; the first one is the accepted one. */
void net_pair(int fds[2]);

/* Closes with a reset. */
void net_reset(int fd);

/* Bytes that could be read now. */
int net_readable(int fd);

/* Open descriptors of this process. */
unsigned int net_count_fds(void);

/* Byte number `at` of the stream with this seed. */
static inline uint8_t net_pattern(uint8_t seed, uint64_t at)
{
	return (uint8_t)(seed + at * 7 + (at >> 8) * 13 + (at >> 16) * 31);
}

/* One end of a stream each way: what it is to send, what it has got so far. */
struct peer {
	int fd;		/* owned; -1 = none */
	uint8_t seed;	/* of what it sends; what it gets has the other's, `expect` */
	uint8_t expect;
	bool deaf;	/* does not read */
	bool fin;	/* sends FIN after the last byte */
	uint64_t to_send, sent, received;
	bool fin_sent, eof;
	int error;	/* the first one, positive */
};

void peer_init(struct peer *p, int fd, uint8_t seed, uint8_t expect);

/* Sends and reads what goes without waiting; fails the test when a byte is wrong. */
void peer_step(struct peer *p);

/* It got a reset (whatever it was called) and no end of stream. */
bool peer_was_reset(const struct peer *p);

void peer_close(struct peer *p);
void peer_reset(struct peer *p);

#endif
