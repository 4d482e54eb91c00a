/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shunt_abi.h - the contract between bpf/ and user/: what lies in the maps, and who writes each field.
 *
 * Session s owns the socket indexes 2s (client) and 2s+1 (server); the peer of index i is i^1. flows[i] is the direction
 * whose bytes are read from socket i and written to socket i^1. Each field has one writer: the kernel's line is written
 * by the verdict program under the lock of socket i (or by userspace before the socket is in the map), the user's line by the
 * thread that owns the session. So neither side needs a lock, only ordered loads and stores.
 */
#ifndef SHUNT_ABI_H
#define SHUNT_ABI_H

#ifndef __bpf__
#include <stdint.h>
typedef uint64_t shunt_u64;
typedef uint32_t shunt_u32;
typedef uint16_t shunt_u16;
#else
typedef __u64 shunt_u64;
typedef __u32 shunt_u32;
typedef __u16 shunt_u16;
#endif

#define SHUNT_ABI_VERSION 4
#define SHUNT_CACHE_LINE __attribute__((aligned(64)))

/* Which side moves the bytes of a direction. */
enum flow_mode {
	FLOW_USER = 0,	 /* the program passes segments up, userspace writes them to the peer */
	FLOW_KERNEL = 1, /* the program redirects segments to the peer */
};

/* Why a direction went back to userspace, or that it came home. */
enum flow_reason {
	FLOW_REASON_NONE = 0,
	FLOW_REASON_LIMIT = 1,	   /* the peer's backlog would exceed `limit` */
	FLOW_REASON_WITHDRAWN = 2, /* userspace took want_kernel back */
	FLOW_REASON_NO_PEER = 3,   /* the peer's slot is empty: the session is coming to its end */
	FLOW_REASON_RESUMED = 4,   /* USER -> KERNEL */
	FLOW_REASON_BROKEN = 5,	   /* bytes are missing or could not be trimmed: the session must be reset */
	FLOW_REASON_SAMPLE = 6,	   /* no change: another `sample` segments were redirected */
	FLOW_REASON_WINDOW = 7,	   /* the sender is to see a closed window, which only a reader opens. No change if there are `unread` bytes */
	FLOW_REASON_CROWDED = 8, /* no change: a passed segment did not fit into its socket's receive buffer, see `crowded` */
	FLOW_REASON_OVERFLOW = 9, /* for good: SHUNT_PASSED_MAX. What comes from now on is dropped; the session must be reset */
	FLOW_REASON_MAX = 10,
};

struct flow {
	/* ---- the kernel's line ---- */
	shunt_u64 redirected; /* bytes handed to the peer by the program */
	shunt_u64 passed;     /* bytes passed up to userspace since the join */
	shunt_u64 check_at;   /* look at the peer when `redirected` would exceed this */
	shunt_u64 segments;   /* segments redirected */
	shunt_u64 peak;	      /* most bytes towards the peer at a look, segment in hand included, taken or not */
	shunt_u32 mode;	      /* enum flow_mode */
	shunt_u32 pauses;     /* KERNEL -> USER changes */
	shunt_u32 resumes;    /* USER -> KERNEL changes after the first */
	shunt_u32 reason;     /* enum flow_reason of the last change */
	shunt_u32 next_seq;   /* TCP sequence number of the next byte that the program has not seen yet */
	shunt_u16 started;    /* next_seq is valid */
	shunt_u16 crowded;    /* so often were told of passed segments for which the receive buffer had no room: TCP closes the window then, also in front of
				 what is on its way. Told again when userspace has said `relieved` */
	/* ---- the user's line ---- */
	shunt_u64 moved SHUNT_CACHE_LINE; /* of the passed bytes: read *and* written to the peer */
	shunt_u64 extra; /* whatever else the peer's bytes_acked and send queue contain: relayed before the join, the SYN */
	shunt_u64 limit; /* bytes that may be queued towards the peer and not yet sent */
	shunt_u32 ready; /* both sockets are in the map */
	shunt_u32 want_kernel;
	shunt_u32 thread; /* that owns the session: whose ring gets its events */
	shunt_u32 sample; /* tell of every so many segments (FLOW_REASON_SAMPLE); 0 = never */
	shunt_u32 unread; /* bytes that were moved, but are still to be read: each of them opens the window once */
	shunt_u32 relieved; /* `crowded`, as of when userspace last saw to it */
};

/* What a record of a ring buffer of `events` says. */
struct flow_event {
	shunt_u32 index;  /* of the flow */
	shunt_u32 reason; /* enum flow_reason */
	shunt_u64 cookie; /* of the socket: an event that comes after its session ended is recognised by it */
};

/* What the program counts, mostly its ways out; keys of the map `counters`. */
enum flow_exit {
	FLOW_EXIT_FIN = 0,	     /* zero-length segment, dropped */
	FLOW_EXIT_NO_SLOT = 1,	     /* socket without slot: passed */
	FLOW_EXIT_NOT_READY = 2,     /* its session has not joined: passed */
	FLOW_EXIT_USER = 3,	     /* passed: userspace is this direction's mover */
	FLOW_EXIT_PAUSED = 4,	     /* passed: this segment was the first above the limit (or withdrawn) */
	FLOW_EXIT_KERNEL = 5,	     /* redirected */
	FLOW_EXIT_RESUMED = 6,	     /* redirected: this segment brought the direction back */
	FLOW_EXIT_EVENT_LOST = 7,    /* wanted to pause, but the ring was full: redirected, and tried again at the next segment */
	FLOW_EXIT_REDIRECT_LOST = 8, /* bpf_sk_redirect_map refused: the segment is gone, the session is being reset */
	FLOW_EXIT_BROKEN = 9,	     /* dropped: see FLOW_REASON_BROKEN, FLOW_REASON_OVERFLOW */
	FLOW_COUNT_TRIMMED = 10,     /* not an exit: segments whose head had come before and was cut off */
	FLOW_COUNT_WINDOW = 11,	     /* not an exit: segments behind which the window closes, see FLOW_REASON_WINDOW */
	FLOW_EXIT_MAX = 12,
};

/*
 * A direction with nothing in its peer's queue takes a segment of up to this, however small its limit: more than the largest of
 * most networks, 64 KB. So every socket's send queue must take that much at once.
 */
#define SHUNT_SEGMENT_MAX (128 * 1024)

/*
 * Passed bytes that are not moved, and that no receive buffer is charged with: they wait behind what the socket's own send queue does not take, and nothing
 * stops their sender (docs/decisions/008). More than comes while the kernel's worker waits for its CPU, unless that is long; beyond it the session cannot go on.
 */
#define SHUNT_PASSED_MAX (64 * 1024 * 1024)

#define SHUNT_EVENTS_SIZE (256 * 1024) /* bytes of a thread's ring, at least: 10,922 records */
#define SHUNT_EVENT_RECORD (8 + sizeof(struct flow_event)) /* bytes there */
#define SHUNT_EVENTS_ASLEEP 512 /* while more than this waits, the daemon may be stopped: 21 records. Only what must be is told then */

_Static_assert(sizeof(struct flow) == 128, "struct flow is two cache lines");
_Static_assert(__builtin_offsetof(struct flow, moved) == 64, "the user's line starts at 64");
_Static_assert(sizeof(struct flow_event) == 16, "struct flow_event");

#endif
