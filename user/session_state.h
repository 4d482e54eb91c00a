/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session_state.h - what the files of the session share, and nobody else sees: its state, and who
 * calls what.
 *
 *	session.c	  the table of sessions, events and timers, what is watched, inactivity
 *	session_connect.c a server, a place in its queue, the connect, the join
 *	session_move.c	  bytes, their proof, and the end of each stream
 *	session_mover.c	  who moves them: the kernel or userspace
 *	session_adopt.c	  the session of a worker that died
 *	session_end.c	  the flush after a reset, the one way out, the log line, the counters
 */
#ifndef SHUNT_SESSION_STATE_H
#define SHUNT_SESSION_STATE_H

#include "choose.h"
#include "relay.h"
#include "session.h"

#define SCRATCH_SIZE (1024 * 1024) /* of a thread; an offer must fit */

_Static_assert(sizeof(struct relay_scratch) + SCRATCH_SIZE <= LEDGER_SCRATCH,
	       "the ledger's buffer");
_Static_assert(RELAY_AREA == LEDGER_AREA, "the ledger's areas");

enum { CLIENT = 0, SERVER = 1 };

enum session_end {
	END_CLEAN, /* both streams complete */
	END_CLIENT_RESET,
	END_SERVER_RESET,
	END_CLIENT_TIMEOUT,
	END_SERVER_TIMEOUT,
	END_CONNECT_FAILED, /* the last attempt was refused or unreachable */
	END_CONNECT_TIMEOUT,
	END_NO_SERVER, /* none is up */
	END_QUEUE_TIMEOUT,
	END_NO_RESOURCE, /* descriptors, ports, memory */
	END_KILLED,
	END_LOST,   /* its worker died, and what it was doing cannot be known */
	END_BROKEN, /* the kernel's counters contradict each other: bytes are missing or too many */
};

struct end {
	struct poll poll; /* its fd is the end's */
	struct session *session;
};

struct direction {
	struct relay relay;
	uint64_t proven; /* redirected bytes that are known to have left the kernel's queue */
	uint64_t total;	 /* all bytes of the stream; valid after eof */
	bool blocked;	 /* the peer takes no more now: wait for its EPOLLOUT; */
	bool starved;	 /* or, if that lied, for the retry timer: see session_unblock() */
	uint8_t slow;	 /* how often in a row the peer needed long for half its queue; */
	bool sized;	 /* the source's receive buffer is ours: see sock_tighten(), sock_fit() */
	uint32_t tokens; /* bytes that were written but are still unread: see open_window() */
	uint8_t opened;	 /* looks in a row that spent some */
	uint64_t seen;	 /* redirected bytes as of the last look */
	uint64_t blocked_ns; /* since when it is blocked */
	uint64_t missing_ns; /* since when bytes are missing: see is_overdue() */
	bool proving; /* waiting for the kernel's worker: to drain its queue towards the peer, or to
			 bring what was passed */
	bool eof;     /* the source sent FIN */
	bool full;    /* the last read had no room for more */
	bool pages;   /* the next read is to change hands as pages, not be copied */
	bool roomy;   /* the source's receive buffer is for large reads */
	uint32_t held; /* in the relay buffer, as the thread knows */
	bool done;    /* the peer was sent FIN, or is never to get another byte */
	uint32_t limit;		      /* bytes that may wait, unsent, in the peer */
	bool charged;		      /* the budget knows of it */
	uint8_t choice;		      /* enum choose_reason: who is to move it, and why */
	uint32_t window;	      /* the load's, when it last moved something */
	uint64_t reads, ticked_reads; /* of userspace; as of the last tick */
	uint32_t unfitted;  /* bytes that userspace moved since the source's buffer was fitted, */
	uint64_t fitted_ns; /* and when that was */
	uint64_t looked_ns, looked_bytes,
		looked_segments;		/* the beginning of the choice's window, */
	uint64_t bytes_per_s, segments_per_s;	/* and what it did in the one before */
	uint64_t loaded_bytes, loaded_segments; /* of the kernel: the load has them */
};

struct session {
	struct sessions *table;
	struct ledger_record *record;
	struct frontend *frontend;
	struct backend *backend;
	struct server *server; /* whose place we hold; NULL = none */
	uint32_t number;       /* slot */
	bool joined, ended;
	bool joining; /* to be joined when nothing waits in a relay buffer: those that do are not
			 filled again */
	uint8_t splice[2];    /* enum splice_mode of each direction */
	uint8_t broken;	      /* FLUSH: the end that is gone */
	enum session_end why; /* FLUSH: how it will end */
	uint32_t retry_ns;    /* next pause of the retry timer */
	struct end ends[2];
	struct direction dirs[2];
	struct list away;     /* in the table's, while userspace moves something by choice */
	struct timer timer;   /* connect, queue, turn-around; then inactivity */
	struct timer retry;   /* look again at what no event tells */
	struct later release; /* when it has ended */
	struct later placed;  /* when it has got out of the queue */
	struct pool_wait wait;
	struct pool_tried tried;
	uint64_t acked[2];  /* as of the last look of the inactivity timer */
	uint64_t active_ns; /* when something was last seen to happen */
	uint64_t flush_began_ns, flush_moved_ns, flush_seen;
	uint32_t queue_before; /* sessions before it then */
	uint64_t scarce_ns; /* since when it waits for a descriptor to connect with; 0 = it does not */
	bool tuned;	       /* the server's socket: see session_tune() */
};

/* What a thread's sessions do, all together. */
struct thread_load {
	uint64_t since_ns, bytes, segments; /* of the window that has not ended */
	uint32_t flows, window;		    /* directions that moved something in it; its number */
	struct choose_load last;
	uint64_t ticked_ns, relayed, reads; /* by userspace, since the last tick */
	uint64_t ticked_waited_ns;	    /* of the loop, at the last tick */
	struct choose_load tick;	    /* before it; busy: an average of some ticks, */
	uint32_t busiest;		    /* and the highest one in the window */
};

struct sessions {
	struct sessions_options o;
	struct session *table; /* by slot, from first; memory is touched only where a session was */
	size_t table_size;
	uint32_t first, max;
	uint32_t count;
	int spare; /* a descriptor for who was accepted with the last one, and has no server yet;
		      negative = used */
	struct list away; /* sessions that userspace moves by choice: looked at by the tick */
	struct timer tick;
	struct thread_load load;
	struct log_turn log; /* lines of this turn, which leave at its end */
	struct later log_end;
	struct relay_scratch *scratch; /* the ledger's; SCRATCH_SIZE bytes */
	uint32_t *serving;	       /* the ledger's */
	uint64_t held;		       /* bytes in relay buffers */
};

/* ---- session.c ---- */

/* Brings everything in line with the directions' state: what is watched, and whether the session is
 * over. */
void session_update(struct session *s);

/* Look again a little later; each time in a row twice as late. s->retry_ns = 0 begins anew. */
void session_arm_retry(struct session *s);

/* The session's own timer: connect, queue, turn-around. */
void session_arm_timer(struct session *s, uint64_t at_ns);

/* The same timer, for inactivity since s->active_ns. */
void session_arm_idle(struct session *s);

/* ---- session_connect.c ---- */

void session_connect_init(struct session *s);

/* What the configuration says of a direction. */
enum splice_mode session_splice_mode(const struct session *s, int direction);

/* Gets a server, or a place in the queue, or the end. failed is the server that has just refused,
 * NULL at first. */
void session_choose(struct session *s, struct server *failed);

/* Connects to s->server. */
void session_connect(struct session *s);

/*
 * Gives the server's socket what sock_tune() sets (a client's has it from its listener), if it has
 * not got it yet: with its second write, or before the join. Most sessions end without any of
 * these. Returns 0 or -errno.
 */
int session_tune(struct session *s);

/* Gives both sockets to the kernel; nothing may be held in a relay buffer. Userspace goes on where
 * it cannot, with the same bytes in the same order. */
enum splice_fallback session_join(struct session *s);

/* What splice_join() returned is taken note of. */
void session_after_join(struct session *s, const struct splice_end ends[2], int r);

/* The connect has succeeded: join, and let the bytes flow. */
void session_connected(struct session *s);

/* An attempt failed: another server, the same one a little later, or the end. error is positive. */
void session_connect_failed(struct session *s, int error);

/* Leaves the queue, if it is in it. */
void session_unqueue(struct session *s);

/* Gives the place at the server back, if it has one. */
void session_leave_server(struct session *s);

/* ---- session_move.c ---- */

/* Moves what can be moved in direction i, and passes its end on. */
void session_run(struct session *s, int i);

/* After a reset of end i: true if everything that it had sent is in the other end's TCP. May end
 * the session. */
bool session_run_broken(struct session *s, int i);

/* The source of direction i has its receive buffer from the kernel again: it has no reader but the
 * program. */
void session_loosen(struct session *s, int i);

/* The peer of direction i takes bytes again. */
void session_unblock(struct session *s, int i);

/* Nothing will come until one of the unread bytes is read: the program says so. May end the session. */
void session_window_closed(struct session *s, int i);

/* ---- session_mover.c ---- */

void session_mover_init(struct sessions *t);

/* The server is connected; s->splice is set, and the session is joined if the configuration wants
 * that. */
void session_begin_choosing(struct session *s);

/* Userspace has moved that many bytes of direction i. */
void session_note_moved(struct session *s, int i, uint64_t bytes);

/* Joins the session that is to be joined, if nothing is held any more. */
void session_join_flushed(struct session *s);

/* The program has counted another choose_sample segments of direction i. */
void session_sampled(struct session *s, int i);

/* ---- session_adopt.c ---- */

/* Goes on where the worker that died left off. May end the session. */
void session_resume(struct session *s);

/* ---- session_end.c ---- */

void session_log_init(struct sessions *t);
void session_end_init(struct session *s);

/* The one way out. */
void session_end(struct session *s, enum session_end why);

/*
 * The counters of direction i contradict each other: says so with all of them, and resets the
 * session. what is for whoever reads the report.
 */
void session_end_broken(struct session *s, int i, const char *what);

/* One end is gone: delivers what it had sent, then resets the other. */
void session_break(struct session *s, int end, enum session_end why);

/* The flush again, after a pause. */
void session_flush(struct session *s);

/* ---- small helpers ---- */

static inline struct flow *flow_of(const struct session *s, int direction)
{
	return splice_flow(s->table->o.splice, s->number * 2 + (uint32_t)direction);
}

/* Whose bytes the thread's buffer holds: of direction i, of which so many have been written until
 * now. */
static inline void own_scratch(struct session *s, int i, uint64_t written)
{
	struct relay_scratch *scratch = s->table->scratch;

	scratch->base = written;
	scratch->moved = 0;
	scratch->piped = 0;
	__atomic_store_n(&scratch->owner, s->number * 2ull + (uint64_t)i + 1, __ATOMIC_RELEASE);
}

/* Whoever comes after a death is to find what was stored before this. */
static inline void set_state(struct session *s, enum ledger_state state)
{
	__atomic_store_n(&s->record->state, state, __ATOMIC_RELEASE);
}

/* If the worker dies until session_served(), it was over this one. */
static inline void session_serve(struct session *s)
{
	__atomic_store_n(s->table->serving, s->number + 1, __ATOMIC_RELEASE);
}

static inline void session_served(struct sessions *t)
{
	__atomic_store_n(t->serving, 0, __ATOMIC_RELEASE);
}

static inline bool is_established(const struct session *s)
{
	return s->record->state == LEDGER_RELAY || s->record->state == LEDGER_SPLICED;
}

/* The kernel is to move it; what userspace moves meanwhile only makes room for that. */
static inline bool is_kernels(const struct session *s, int i)
{
	return s->joined && flow_of(s, i)->want_kernel;
}

/* By who moved them: direction 0 is from the client to the server. */
struct byte_count session_bytes(const struct session *s, int direction);

#endif
