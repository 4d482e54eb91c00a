/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stats.h - counters of a frontend, a backend or a server, and of the process. Plain numbers: no sockets, no names.
 *
 * Bytes are counted when a session ends; who shows them adds the live sessions (session_view()). Every number is written with
 * stat_add(), which is safe when several threads share a server.
 */
#ifndef SHUNT_STATS_H
#define SHUNT_STATS_H

#include <stdint.h>

#include "util.h"

#define stat_add(field, n) __atomic_fetch_add(&(field), (n), __ATOMIC_RELAXED)
#define stat_sub(field, n) __atomic_fetch_sub(&(field), (n), __ATOMIC_RELAXED)
#define stat_get(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define stat_set(field, n) __atomic_store_n(&(field), (n), __ATOMIC_RELAXED)

/* Raises field to n, which is looked at once. */
#define stat_max(field, n)                                                                                     \
	do {                                                                                                   \
		__typeof__(field) new_ = (n), old_ = stat_get(field);                                          \
		while (old_ < new_ && !__atomic_compare_exchange_n(&(field), &old_, new_, true,                \
								   __ATOMIC_RELAXED, __ATOMIC_RELAXED))        \
			;                                                                                      \
	} while (0)

/* A second, and what happened in it: one word, so that threads change both at once. */
#define RATE_SECOND(word) ((word) >> 32)
#define RATE_COUNT(word) ((uint32_t)(word))

/*
 * Events per second: of the last whole second that had any, of the current one, and the highest. Exact, however many threads
 * count; who has read the clock a moment too early counts to the second that has begun meanwhile.
 */
struct rate {
	uint64_t current, previous; /* see above */
	uint32_t max;
};

void rate_add(struct rate *r, uint64_t now_s);
uint32_t rate_get(const struct rate *r, uint64_t now_s);

/* The second of the last event; 0 if there was none. */
uint64_t rate_last(const struct rate *r);

/* Bytes of one direction, by who moved them. */
struct byte_count {
	uint64_t kernel, user;
};

static inline uint64_t byte_total(const struct byte_count *b)
{
	return b->kernel + b->user;
}

struct stats {
	uint64_t sessions;	    /* all, current ones included */
	uint32_t current, max;	    /* sessions */
	struct byte_count in, out;  /* of ended sessions: client to server, server to client */
	struct rate rate;	    /* sessions per second */
	uint64_t connect_errors;    /* attempts that failed: refused, timed out, no port */
	uint64_t retries, redispatches;
	uint64_t chosen;	    /* times a server was picked */
	uint32_t queued, queued_max; /* sessions waiting for a place */
	uint64_t aborted_by_client, aborted_by_server; /* resets and timeouts of established sessions */
	uint64_t full;		    /* accept was paused because maxconn was reached */
	uint64_t failed;	    /* sessions that got no server */
};

/* Counts a session in (and its rate), or out. */
void stats_enter(struct stats *s, uint64_t now_s);
void stats_leave(struct stats *s);

/* Counts a session in that was counted before, by a worker that died. */
void stats_reenter(struct stats *s);

/* Why a session is, or was, moved by userspace instead of the kernel. */
enum splice_fallback {
	FALLBACK_NONE = 0,
	FALLBACK_OFF,	      /* the configuration says so */
	FALLBACK_UNAVAILABLE, /* no permission, or the kernel did not qualify */
	FALLBACK_HALF_CLOSED, /* an end had sent its FIN before the join */
	FALLBACK_NO_MEMORY,
	FALLBACK_BUSY,	      /* the socket belongs to another program or has an upper protocol */
	FALLBACK_CHOICE,      /* userspace was the better mover from the first byte to the last: short, or bulk */
	FALLBACK_OTHER,
	FALLBACK_MAX,
};

/* "none", "off", "unavailable", "half-closed", ... */
const char *fallback_name(enum splice_fallback f);

/* The fallback that an errno of splice_join() means; error is negative. */
enum splice_fallback fallback_of(int error);

/* Of the whole process. */
struct process_stats {
	uint64_t sessions, connections_failed;
	uint32_t current, max;
	struct byte_count in, out;
	struct rate rate;
	uint64_t joined;		    /* sessions that the kernel path took */
	uint64_t fallback[FALLBACK_MAX];    /* sessions that it did not, by reason */
	uint64_t pauses, resumes;	    /* changes of the mover, of ended sessions */
	uint64_t accept_errors;		    /* accept(2) failed for lack of descriptors or memory: accept paused */
	uint64_t full;			    /* maxconn reached: accept paused */
	uint64_t resets_sent;		    /* sessions that ended in a reset */
	uint64_t worker_deaths;
	uint64_t adopted;		    /* sessions that a worker took over from one that died */
	uint64_t lost;			    /* those of them that had to be reset for it */
	uint64_t upgrades, upgrades_failed; /* programs that took over; times that the old one went on */
};

#endif
