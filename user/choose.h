/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * choose.h - who is to move a direction's bytes, the kernel or userspace: a pure function of what
 * the direction does and of how busy its thread is. docs/decisions/004 has the measurements behind
 * each constant.
 *
 * The kernel is a flow's home. It leaves for a reason that holds, and comes back when the reason
 * has ended; what makes it leave is about twice of what lets it stay away, so that nobody goes back
 * and forth. A session that is not joined yet is moved by plain recv(2), send(2) and splice(2): the
 * sockets of a joined one make the first two dearer, and are not for the third. So a crowd keeps
 * out of the kernel, but nobody leaves it for that.
 */
#ifndef SHUNT_CHOOSE_H
#define SHUNT_CHOOSE_H

#include <stdbool.h>
#include <stdint.h>

enum choose_reason {
	CHOOSE_HOME = 0, /* the kernel moves it */
	CHOOSE_FORCED,	 /* the configuration says who does */
	CHOOSE_YOUNG,	 /* userspace: most sessions end before the kernel would be worth its system
			    calls */
	CHOOSE_BULK, /* userspace: to copy or to splice large pieces is cheaper than a push for
			each page of each segment */
	CHOOSE_CROWD, /* userspace: many small messages in one wake-up are cheaper than a wake-up of
			 the worker for each */
};

/* "home", "forced", "young", "bulk", "crowd" */
const char *choose_reason_name(enum choose_reason r);

/* One direction, over the time since it was last looked at. */
struct choose_flow {
	bool joined;	 /* its session is */
	bool in_kernel;	 /* who moves it now */
	uint64_t age_ns; /* of its session, since the server was connected */
	uint64_t bytes_per_s;
	uint64_t segments_per_s; /* segments that the kernel redirected, reads of userspace */
	uint64_t life_bytes_per_s, life_segments_per_s; /* of its whole life; not of a joined one */
};

/* All directions of a thread. */
struct choose_load {
	uint64_t bytes_per_s, segments_per_s;
	uint32_t flows; /* directions that were seen to move something */
	uint32_t busy;	/* per mille of its time in which it did not wait for events, at its busiest */
};

/* A direction that the kernel moves is looked at after so many segments. */
extern const uint32_t choose_sample;

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load);

static inline bool choose_is_kernel(enum choose_reason r)
{
	return r == CHOOSE_HOME;
}

#endif
