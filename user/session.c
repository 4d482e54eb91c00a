/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session.c - the state machine of a session: two mirrored ends, and a direction from each end to its peer.
 *
 *   QUEUED ──► CONNECTING ──► RELAY ──(join)──► SPLICED ──► closed
 *                  │ refused, timeout             │ reset
 *                  └──► next server               └──► FLUSH ──► closed
 *
 * Direction i reads from end i and writes to end !i. Invariants:
 *
 * - A direction has exactly one mover. In KERNEL mode userspace neither reads this end nor writes the peer for it. In USER mode
 *   it may, as long as it has passed bytes that it has not moved yet: then the program cannot change the mode. It writes only after it has
 *   proved that what the kernel redirected before has left the kernel's queue: sock_written(peer) accounts for every byte.
 * - The kernel does not forward FIN. We do, when every byte that this end ever received (sock_received()) was handed over, and
 *   the peer's send queue provably has them all. recv() == 0 alone proves nothing on a joined socket.
 * - A stream is never truncated with a clean FIN: an end whose stream is not complete in both directions is closed with a reset.
 * - A joined socket is never taken out of the map while it lives; it leaves by being closed.
 * - A direction in KERNEL mode is watched for EPOLLRDHUP only; EPOLLIN would wake the daemon for every segment.
 *
 * Deliberately elsewhere: moving bytes (relay, splice), choosing a server (pool), when to accept (lb).
 */
#include "session.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "relay.h"
#include "tcplog.h"

#define SCRATCH_SIZE (1024 * 1024)	  /* of a thread; an offer must fit */
#define CHUNK_SIZE (256 * 1024)		  /* bytes of one read */
#define BUDGET (1024 * 1024)		  /* bytes that one direction may move before the others have their turn */
#define RETRY_MIN_NS (20 * NS_PER_US)	  /* looking again at the kernel's queue: first pause, */
#define RETRY_MAX_NS (4 * NS_PER_MS)	  /* and the longest; it doubles in between */
#define SLOW_NS (2 * NS_PER_MS)		  /* half the queue takes this long: slow enough for a small buffer on the source, */
#define SLOW_TIMES 3			  /* if it does so as often as this in a row */
#define TOKENS 100			  /* looks at a window that might be closed */
#define FLUSH_STALL_NS (100 * NS_PER_MS)  /* after a reset: the other end may take this long to take another byte, */
#define FLUSH_MAX_NS (1000 * NS_PER_MS)	  /* and this long in all, before it is reset too */
#define MISSING_NS (1000 * NS_PER_MS)	  /* before missing bytes are given up, and the session is reset */
#define TURN_AROUND_MS 1000u		  /* before the same server is tried again, as in HAProxy */

enum { CLIENT = 0, SERVER = 1 };

enum session_end {
	END_CLEAN,	    /* both streams complete */
	END_CLIENT_RESET,
	END_SERVER_RESET,
	END_CLIENT_TIMEOUT,
	END_SERVER_TIMEOUT,
	END_CONNECT_FAILED, /* the last attempt was refused or unreachable */
	END_CONNECT_TIMEOUT,
	END_NO_SERVER,	    /* none is up */
	END_QUEUE_TIMEOUT,
	END_NO_RESOURCE,    /* descriptors, ports, memory */
	END_KILLED,
	END_BROKEN,	    /* the kernel's counters contradict each other: bytes are missing or too many */
};

struct end {
	struct poll poll; /* its fd is the end's */
	struct session *session;
};

struct direction {
	struct relay relay;
	uint64_t proven;    /* redirected bytes that are known to have left the kernel's queue */
	uint64_t total;	    /* all bytes of the stream; valid after eof */
	bool blocked;	    /* the peer takes no more now: wait for its EPOLLOUT */
	uint8_t slow;	    /* how often in a row the peer needed long for half its queue; */
	bool tight;	    /* so the source's buffer was made small */
	uint32_t tokens;    /* bytes that were written but are still unread: see open_window() */
	bool opened;	    /* the last look spent one */
	uint64_t seen;	    /* redirected bytes as of the last look */
	uint64_t blocked_ns; /* since when it is blocked */
	uint64_t missing_ns; /* since when bytes are missing: see is_overdue() */
	bool proving;	    /* waiting for the kernel's worker: to drain its queue towards the peer, or to bring what was passed */
	bool eof;	    /* the source sent FIN */
	bool done;	    /* the peer was sent FIN, or is never to get another byte */
};

struct session {
	struct sessions *table;
	struct ledger_record *record;
	struct frontend *frontend;
	struct backend *backend;
	struct server *server; /* whose place we hold; NULL = none */
	uint32_t number;       /* slot */
	bool joined, ended;
	uint8_t broken;	       /* FLUSH: the end that is gone */
	enum session_end why;  /* FLUSH: how it will end */
	uint32_t retry_ns;     /* next pause of the retry timer */
	struct end ends[2];
	struct direction dirs[2];
	struct timer timer;    /* connect, queue, turn-around; then inactivity */
	struct timer retry;    /* look again at what no event tells */
	struct later release;  /* when it has ended */
	struct later placed;   /* when it has got out of the queue */
	struct pool_wait wait;
	struct pool_tried tried;
	uint64_t acked[2];     /* as of the last look of the inactivity timer */
	uint64_t active_ns;    /* when something was last seen to happen */
	uint64_t flush_began_ns, flush_moved_ns, flush_seen;
	uint64_t placed_ns;    /* when it got out of the queue, or was accepted */
	uint32_t queue_before; /* sessions before it then */
	bool was_redispatched;
};

struct sessions {
	struct sessions_options o;
	struct session *table; /* by slot; memory is touched only where a session was */
	size_t table_size;
	uint32_t count;
	char scratch[SCRATCH_SIZE];
};

static void session_end(struct session *s, enum session_end why);
static void session_connect(struct session *s);
static void session_choose(struct session *s, struct server *failed);
static void session_break(struct session *s, int end, enum session_end why);
static void session_update(struct session *s);
static void arm_idle(struct session *s);

/* ---- small helpers ---- */

static struct flow *flow_of(const struct session *s, int direction)
{
	return splice_flow(s->table->o.splice, s->number * 2 + (uint32_t)direction);
}

static struct byte_count bytes_of(const struct session *s, int direction)
{
	struct byte_count b = { .user = s->record->relayed[direction] };

	if (s->joined) {
		const struct flow *f = flow_of(s, direction);

		b.kernel = flow_get(f, redirected);
		b.user += f->moved;
	}
	return b;
}

static void set_state(struct session *s, enum ledger_state state)
{
	s->record->state = state;
}

static bool is_established(const struct session *s)
{
	return s->record->state == LEDGER_RELAY || s->record->state == LEDGER_SPLICED;
}

static void arm_retry(struct session *s)
{
	struct loop *loop = s->table->o.loop;

	if (timer_armed(&s->retry))
		return;
	s->retry_ns = MIN(MAX(s->retry_ns * 2, RETRY_MIN_NS), RETRY_MAX_NS);
	if (loop_timer_set(loop, &s->retry, loop_now(loop) + s->retry_ns) < 0)
		session_end(s, END_NO_RESOURCE);
}

static void arm_timer(struct session *s, uint64_t at_ns)
{
	if (loop_timer_set(s->table->o.loop, &s->timer, at_ns) < 0)
		session_end(s, END_NO_RESOURCE);
}

/* ---- moving bytes ---- */

/* The peer's stream gets its FIN, behind everything. */
static void finish(struct session *s, int i)
{
	s->dirs[i].done = true;
	s->record->done[i] = 1;
	/* ENOTCONN: the peer was reset meanwhile; its own event tells. */
	shutdown(s->ends[!i].poll.fd, SHUT_WR);
	s->active_ns = loop_now(s->table->o.loop);
	arm_idle(s); /* client-fin and server-fin count from here */
}

/*
 * True if every byte that the kernel redirected in direction i, and every byte that userspace wrote, is in the peer's TCP. Only exact
 * while nothing is redirected meanwhile: after EOF, or while passed != moved.
 */
static bool is_proven(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	const struct flow *f = flow_of(s, i);
	uint64_t redirected = flow_get(f, redirected), written;

	if (redirected == d->proven)
		return true;
	if (sock_written(s->ends[!i].poll.fd, &written) < 0)
		return false;
	if (written < f->extra + redirected + f->moved)
		return false;
	d->proven = redirected;
	return true;
}

/* What relay_run() said, seen from the session. Returns false if the session changed its state or ended. */
static bool take_outcome(struct session *s, int i, const struct relay_outcome *out)
{
	struct direction *d = &s->dirs[i];

	if (out->moved)
		s->retry_ns = 0;
	if (out->status == RELAY_BLOCKED && !d->blocked)
		d->blocked_ns = loop_now(s->table->o.loop);
	d->blocked = out->status == RELAY_BLOCKED;
	switch (out->status) {
	case RELAY_IDLE:
	case RELAY_BLOCKED:
	case RELAY_MORE:
	case RELAY_EOF:
		return true;
	case RELAY_SOURCE_ERROR:
		if (s->record->state == LEDGER_FLUSH)
			return true; /* that is known already */
		session_break(s, i, i == CLIENT ? END_CLIENT_RESET : END_SERVER_RESET);
		return false;
	case RELAY_SINK_ERROR:
		relay_done(&d->relay);
		session_break(s, !i, i == CLIENT ? END_SERVER_RESET : END_CLIENT_RESET);
		return false;
	case RELAY_NO_MEMORY:
		session_end(s, END_NO_RESOURCE);
		return false;
	}
	return false;
}

static void run_relay(struct session *s, int i)
{
	struct sessions *t = s->table;
	struct direction *d = &s->dirs[i];
	struct relay_outcome out;
	uint64_t received;

	out = relay_run(&d->relay, s->ends[i].poll.fd, s->ends[!i].poll.fd, t->scratch, CHUNK_SIZE, BUDGET);
	s->record->relayed[i] += out.moved;
	if (!take_outcome(s, i, &out))
		return;
	if (out.status != RELAY_EOF)
		return;
	/* On a socket that got into the map, though its peer did not, recv() == 0 proves nothing by itself. */
	if (s->record->cookie[i] &&
	    (sock_received(s->ends[i].poll.fd, &received) < 0 || received != s->record->relayed[i] + 1)) {
		session_end(s, END_BROKEN);
		return;
	}
	d->eof = true;
	s->record->eof[i] = 1;
	finish(s, i);
}

/*
 * Takes n of the bytes that were written already but are still unread. What cannot be read at this moment stays a token. Returns
 * false if the session ended.
 */
static bool take_tokens(struct session *s, int i, uint32_t n)
{
	uint64_t left = n;
	int r = relay_take(s->ends[i].poll.fd, s->table->scratch, SCRATCH_SIZE, &left);

	s->dirs[i].tokens -= n - (uint32_t)left;
	if (r == 0 || r == -EAGAIN)
		return true;
	session_end(s, END_BROKEN);
	return false;
}

/*
 * A redirecting socket has no reader, and so nobody who would open a closed window, if an acknowledgment was sent while the
 * socket's backlog counted against its buffer. So a direction that came home keeps some bytes, written already, unread: reading
 * one makes TCP look at the window again. One is spent whenever nothing has come since the last look.
 */
static void open_window(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint64_t redirected = flow_get(flow_of(s, i), redirected);

	if (redirected == d->seen) {
		if (!take_tokens(s, i, 1))
			return;
		d->opened = true;
	} else if (d->opened) {
		s->retry_ns = 0; /* that was it: it may happen again soon */
		d->opened = false;
	}
	d->seen = redirected;
	if (d->tokens)
		arm_retry(s);
}

/*
 * Passed bytes that cannot be read yet wait for the kernel's worker (the receive buffer was full). EPOLLIN is told for them all the
 * same: who listened to it would turn without pause, and keep the worker from its CPU. Returns false if the session ended.
 */
static bool await_worker(struct session *s, int i, const struct relay_outcome *out)
{
	if (s->ended)
		return false;
	if (out->status == RELAY_IDLE && !out->moved) {
		s->dirs[i].proving = true;
		arm_retry(s);
	}
	return !s->ended;
}

/* Moves the passed bytes of a joined direction. Returns false if the session changed its state or ended. */
static bool move_passed(struct session *s, int i)
{
	struct sessions *t = s->table;
	struct direction *d = &s->dirs[i];
	struct flow *f = flow_of(s, i);
	int source = s->ends[i].poll.fd, sink = s->ends[!i].poll.fd;
	struct relay_outcome out;
	uint64_t left;
	uint32_t kept;

	/* While passed != moved the direction is ours: the program cannot take it back. */
	d->proving = false;
	left = flow_get(f, passed) - f->moved;
	if (!left) {
		if (d->tokens)
			open_window(s, i);
		return !s->ended;
	}
	if (!take_tokens(s, i, d->tokens))
		return false;
	if (d->tokens) {
		arm_retry(s);
		return !s->ended;
	}
	if (d->slow >= SLOW_TIMES && !d->tight)
		d->tight = sock_tighten(source, (uint32_t)(f->limit / 8));
	if (!is_proven(s, i)) {
		d->proving = true;
		arm_retry(s);
		return !s->ended;
	}
	if (!f->want_kernel) {
		out = relay_run(&d->relay, source, sink, t->scratch, CHUNK_SIZE, BUDGET);
		flow_set(f, moved, f->moved + out.moved);
		return take_outcome(s, i, &out) && await_worker(s, i, &out);
	}
	/*
	 * The way home: write first, then publish, and only then take, which opens the window. So the next segment finds the
	 * direction free, and the kernel has it again. A few bytes are left for later: see open_window().
	 */
	out = relay_offer(source, sink, t->scratch, MIN(left, SCRATCH_SIZE));
	flow_set(f, moved, f->moved + out.moved);
	d->tokens = (uint32_t)out.moved;
	kept = out.moved == left && !d->eof ? (uint32_t)MIN(left / 2, TOKENS) : 0;
	if (!take_tokens(s, i, d->tokens - kept))
		return false;
	if (d->tokens)
		arm_retry(s);
	return take_outcome(s, i, &out) && await_worker(s, i, &out);
}

/* Bytes that TCP has received, FIN included, but the program has not seen: it should have, before anybody could ask. */
static bool is_overdue(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint64_t now = loop_now(s->table->o.loop);

	if (!d->missing_ns)
		d->missing_ns = now;
	return now - d->missing_ns > MISSING_NS;
}

static void run_joined(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	struct flow *f = flow_of(s, i);
	uint64_t received, handed, seen;

	if (!move_passed(s, i) || !d->eof)
		return;

	/* The source has ended. Under its lock (sock_received takes it) the program has seen every segment. */
	if (!take_tokens(s, i, d->tokens))
		return;
	if (d->tokens) {
		arm_retry(s);
		return;
	}
	if (!d->total) {
		if (sock_received(s->ends[i].poll.fd, &received) < 0 || !received) {
			session_break(s, i, i == CLIENT ? END_CLIENT_RESET : END_SERVER_RESET);
			return;
		}
		d->total = received - 1; /* the FIN */
	}
	handed = s->record->relayed[i] + flow_get(f, redirected) + f->moved;
	seen = handed - f->moved + flow_get(f, passed);
	if (seen > d->total || (seen < d->total && is_overdue(s, i)))
		session_end(s, END_BROKEN);
	else if (seen == d->total && handed == d->total && is_proven(s, i))
		finish(s, i);
	else if (!d->blocked)
		arm_retry(s);
}

static void run_direction(struct session *s, int i)
{
	if (s->ended || s->dirs[i].done || !is_established(s))
		return;
	if (s->joined)
		run_joined(s, i);
	else
		run_relay(s, i);
}

/* ---- what is watched ---- */

static uint32_t wanted_events(const struct session *s, int end)
{
	const struct direction *out = &s->dirs[!end], *in = &s->dirs[end];
	uint32_t events = 0;

	if (out->blocked && !out->done)
		events |= EPOLLOUT;
	if (in->eof || in->done)
		return events;
	if (!s->joined)
		return in->blocked ? events : events | EPOLLIN;
	events |= EPOLLRDHUP;
	if (flow_get(flow_of(s, end), mode) == FLOW_USER && !in->blocked && !in->proving && !in->tokens)
		events |= EPOLLIN;
	return events;
}

/* Brings everything in line with the directions' state: what is watched, and whether the session is over. */
static void session_update(struct session *s)
{
	struct loop *loop = s->table->o.loop;

	if (s->ended || !is_established(s))
		return;
	if (s->dirs[0].done && s->dirs[1].done) {
		session_end(s, END_CLEAN);
		return;
	}
	for (int i = 0; i < 2; i++) {
		uint32_t events = wanted_events(s, i);

		/* An end that is shut both ways reports EPOLLHUP for ever: only watch it for something that will come. */
		if (!events && s->dirs[!i].done) {
			loop_unwatch(loop, &s->ends[i].poll);
		} else if (loop_watch(loop, &s->ends[i].poll, events) < 0) {
			session_end(s, END_NO_RESOURCE);
			return;
		}
	}
}

/* ---- inactivity ---- */

static uint32_t side_timeout(const struct session *s, int end)
{
	const struct config_timeouts *t = end == CLIENT ? &s->frontend->conf->timeout : &s->backend->conf->timeout;
	uint32_t fin = end == CLIENT ? t->client_fin : t->server_fin;

	/* Half-closed from us to this end: what it still sends has its own limit. */
	if (s->dirs[!end].done && fin)
		return fin;
	if (s->backend->conf->timeout.tunnel)
		return s->backend->conf->timeout.tunnel;
	return end == CLIENT ? t->client : t->server;
}

/* The shorter of both sides' limits in ms (0 = none), and whose it is. */
static uint32_t idle_timeout(const struct session *s, int *ret_end)
{
	uint32_t client = side_timeout(s, CLIENT), server = side_timeout(s, SERVER);

	*ret_end = server && (!client || server < client) ? SERVER : CLIENT;
	return *ret_end == SERVER ? server : client;
}

static void arm_idle(struct session *s)
{
	int end;
	uint32_t ms = idle_timeout(s, &end);

	if (ms)
		arm_timer(s, s->active_ns + ms * NS_PER_MS);
	else
		loop_timer_clear(s->table->o.loop, &s->timer);
}

/* The timer asks the kernel's own counters, so that the data path knows nothing of it. */
static void check_idle(struct session *s)
{
	uint64_t now = loop_now(s->table->o.loop);
	int end;
	uint32_t ms;

	for (int i = 0; i < 2; i++) {
		struct sock_activity a;
		uint64_t at;

		if (sock_activity(s->ends[i].poll.fd, &a) < 0)
			continue;
		at = now - MIN(now, a.last_received_ms * NS_PER_MS);
		/* An acknowledgment alone says nothing (keepalive); but if bytes were acknowledged, it was not before that. */
		if (a.acked != s->acked[i])
			at = now - MIN(now, MIN(a.last_received_ms, a.last_acked_ms) * NS_PER_MS);
		s->acked[i] = a.acked;
		s->active_ns = MAX(s->active_ns, at);
	}
	ms = idle_timeout(s, &end);
	if (ms && now >= s->active_ns + ms * NS_PER_MS)
		session_end(s, end == CLIENT ? END_CLIENT_TIMEOUT : END_SERVER_TIMEOUT);
	else
		arm_idle(s);
}

/* ---- one end is gone: deliver what it had sent, then reset the other ---- */

/* Everything that the broken end sent is in the other end's TCP. */
static bool flush_moved_all(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	struct relay_outcome out;

	if (d->done)
		return true;
	if (s->joined) {
		if (!move_passed(s, i) || s->ended)
			return false;
		return flow_get(flow_of(s, i), passed) == flow_of(s, i)->moved && is_proven(s, i);
	}
	out = relay_run(&d->relay, s->ends[i].poll.fd, s->ends[!i].poll.fd, s->table->scratch, CHUNK_SIZE, BUDGET);
	s->record->relayed[i] += out.moved;
	if (out.status == RELAY_SINK_ERROR || out.status == RELAY_NO_MEMORY)
		session_end(s, s->why);
	return !s->ended && out.status != RELAY_BLOCKED && out.status != RELAY_MORE;
}

static void flush(struct session *s)
{
	uint64_t now = loop_now(s->table->o.loop), written = 0, seen;
	int sink = s->ends[!s->broken].poll.fd;
	bool moved_all = flush_moved_all(s, s->broken);
	uint32_t unsent;

	if (s->ended)
		return;
	unsent = sock_unsent(sink);
	if (moved_all && !unsent) {
		session_end(s, s->why);
		return;
	}
	sock_written(sink, &written);
	seen = written - unsent;
	if (seen != s->flush_seen) {
		s->flush_seen = seen;
		s->flush_moved_ns = now;
	}
	if (now - s->flush_moved_ns > FLUSH_STALL_NS || now - s->flush_began_ns > FLUSH_MAX_NS) {
		session_end(s, s->why);
		return;
	}
	arm_retry(s);
}

static void session_break(struct session *s, int end, enum session_end why)
{
	struct loop *loop = s->table->o.loop;

	if (s->ended)
		return;
	if (!is_established(s)) {
		session_end(s, s->record->state == LEDGER_FLUSH ? s->why : why);
		return;
	}
	loop_unwatch(loop, &s->ends[end].poll);
	loop_timer_clear(loop, &s->timer);
	set_state(s, LEDGER_FLUSH);
	s->broken = (uint8_t)end;
	s->why = why;
	s->retry_ns = 0;
	s->flush_began_ns = s->flush_moved_ns = loop_now(loop);
	/* Nothing can be delivered to the broken end any more. */
	relay_done(&s->dirs[!end].relay);
	if (loop_watch(loop, &s->ends[!end].poll, 0) < 0) {
		session_end(s, why);
		return;
	}
	flush(s);
}

/* ---- connecting ---- */

static bool splices(const struct session *s, int direction)
{
	const struct config_proxy *fe = s->frontend->conf, *be = s->backend->conf;
	enum splice_mode a = direction == 0 ? fe->splice_request : fe->splice_response;
	enum splice_mode b = direction == 0 ? be->splice_request : be->splice_response;

	return a == SPLICE_ON || b == SPLICE_ON || (a != SPLICE_OFF && b != SPLICE_OFF);
}

/* Userspace goes on where this says no, with the same bytes in the same order. */
static enum splice_fallback try_join(struct session *s)
{
	struct sessions *t = s->table;
	struct splice_end ends[2];
	int r;

	if (!splices(s, 0) && !splices(s, 1))
		return FALLBACK_OFF;
	if (!t->o.splice)
		return FALLBACK_UNAVAILABLE;
	if (s->dirs[CLIENT].eof || s->dirs[SERVER].eof)
		return FALLBACK_HALF_CLOSED;
	for (int i = 0; i < 2; i++)
		ends[i] = (struct splice_end){
			.fd = s->ends[i].poll.fd,
			/* All that was ever written to this end; the SYN of our own connect counts as one. */
			.extra = s->record->relayed[!i] + (i == SERVER ? 1 : 0),
			.want_kernel = splices(s, i),
		};
	r = splice_join(t->o.splice, s->number, ends, t->o.tuning.limit);
	for (int i = 0; i < 2; i++)
		s->record->cookie[i] = ends[i].cookie;
	if (r < 0)
		return fallback_of(r);
	s->joined = true;
	set_state(s, LEDGER_SPLICED);
	return FALLBACK_NONE;
}

static void session_connected(struct session *s)
{
	struct sessions *t = s->table;
	enum splice_fallback fallback;
	uint64_t now = loop_now(t->o.loop);

	loop_timer_clear(t->o.loop, &s->timer);
	s->record->connected_ns = s->active_ns = now;
	set_state(s, LEDGER_RELAY);
	fallback = try_join(s);
	s->record->fallback = fallback;
	if (fallback == FALLBACK_NONE) {
		t->o.stats->joined++;
	} else {
		t->o.stats->fallback[fallback]++;
		/* A FIN may be known already, but it is not read yet: recv() will say it in its turn. */
		s->dirs[CLIENT].eof = s->dirs[SERVER].eof = false;
		s->record->eof[CLIENT] = s->record->eof[SERVER] = 0;
	}
	arm_idle(s);
	run_direction(s, CLIENT);
	run_direction(s, SERVER);
	session_update(s);
}

static void leave_server(struct session *s)
{
	struct server *server = s->server;

	if (!server)
		return;
	s->server = NULL;
	pool_leave(server);
}

static void close_server(struct session *s)
{
	struct end *e = &s->ends[SERVER];

	if (e->poll.fd < 0)
		return;
	loop_unwatch(s->table->o.loop, &e->poll);
	close(e->poll.fd);
	e->poll.fd = s->record->fd[SERVER] = -1;
}

/* `option redispatch N`: does this retry (the nth, from 1) go to another server? */
static bool is_redispatch(const struct config_proxy *conf, int nth)
{
	int interval = conf->redispatch_interval;

	if (!conf->redispatch)
		return false;
	return interval > 0 ? nth % interval == 0 : nth == (int)conf->retries + 1 + interval;
}

/* An attempt failed: another server, the same one a little later, or the end. error is positive. */
static void connect_failed(struct session *s, int error)
{
	const struct config_proxy *conf = s->backend->conf;
	struct loop *loop = s->table->o.loop;
	struct server *server = s->server;
	bool timeout = error == ETIMEDOUT;

	loop_timer_clear(loop, &s->timer);
	close_server(s);
	s->table->o.stats->connections_failed++;
	stat_add(server->stats.connect_errors, 1);
	stat_add(s->backend->stats.connect_errors, 1);
	log_debug("session %lu: server %s/%s: connect: %s", (unsigned long)s->record->serial, conf->name,
		  server->conf->name, strerror(error));
	if (s->record->retries >= conf->retries) {
		session_end(s, timeout ? END_CONNECT_TIMEOUT : END_CONNECT_FAILED);
		return;
	}
	s->why = timeout ? END_CONNECT_TIMEOUT : END_CONNECT_FAILED;
	s->record->retries++;
	if (!is_redispatch(conf, s->record->retries)) {
		/* Keep the place, and come back to the same server. */
		stat_add(server->stats.retries, 1);
		stat_add(s->backend->stats.retries, 1);
		arm_timer(s, loop_now(loop) + MIN(TURN_AROUND_MS, conf->timeout.connect ?: TURN_AROUND_MS) * NS_PER_MS);
		return;
	}
	if (pool_tried_add(&s->tried, s->backend, server->conf->id - 1) < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	leave_server(s);
	session_choose(s, server);
}

static void session_connect(struct session *s)
{
	struct sessions *t = s->table;
	const struct addr *to = &s->server->conf->addr;
	struct end *e = &s->ends[SERVER];
	uint32_t timeout = s->backend->conf->timeout.connect;
	int fd, r;

	set_state(s, LEDGER_CONNECTING);
	s->record->server = (uint16_t)s->server->conf->id;
	ledger_addr_set(&s->record->server_addr, to);
	fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	e->poll.fd = s->record->fd[SERVER] = fd;
	r = sock_tune(fd, &t->o.tuning);
	if (r == 0 && connect(fd, &to->sa, addr_len(to)) < 0 && errno != EINPROGRESS)
		r = -errno;
	if (r < 0) {
		connect_failed(s, -r);
		return;
	}
	if (loop_watch(t->o.loop, &e->poll, EPOLLOUT | EPOLLRDHUP) < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	if (timeout)
		arm_timer(s, loop_now(t->o.loop) + timeout * NS_PER_MS);
}

/* Gets a server, or a place in the queue, or the end. failed is the server that has just refused, NULL at first. */
static void session_choose(struct session *s, struct server *failed)
{
	struct loop *loop = s->table->o.loop;
	const struct config_timeouts *timeout = &s->backend->conf->timeout;
	uint32_t ms = timeout->queue ?: timeout->connect;
	bool queued = !list_empty(&s->wait.entry);
	int r = pool_pick(s->backend, &s->tried, queued, loop_now(loop) / NS_PER_SEC, &s->server);

	/* Who has to wait anyway may as well go back to a server that refused before, but not at once. */
	if (r == -EAGAIN && s->tried.bits) {
		pool_tried_done(&s->tried);
		if (loop_timer_set(loop, &s->retry, loop_now(loop) + TURN_AROUND_MS * NS_PER_MS) < 0) {
			session_end(s, END_NO_RESOURCE);
			return;
		}
	}
	if (r == 0) {
		if (queued) {
			pool_unwait(s->backend, &s->wait);
			loop_timer_clear(loop, &s->timer);
			s->placed_ns = loop_now(loop);
			pool_wake(s->backend); /* there may be another place */
		}
		if (failed) {
			s->was_redispatched = true;
			stat_add(failed->stats.redispatches, 1);
			stat_add(s->backend->stats.redispatches, 1);
		}
		session_connect(s);
	} else if (r == -EAGAIN) {
		if (queued)
			return; /* it keeps its place in the line, and its timer */
		set_state(s, LEDGER_QUEUED);
		s->queue_before = s->backend->stats.queued;
		pool_wait(s->backend, &s->wait);
		if (ms)
			arm_timer(s, loop_now(loop) + ms * NS_PER_MS);
	} else {
		if (failed)
			s->record->retries--; /* nobody was left to try */
		session_end(s, s->why);
	}
}

static void on_placed(struct later *l)
{
	struct session *s = container_of(l, struct session, placed);

	if (!s->ended && s->record->state == LEDGER_QUEUED)
		session_choose(s, NULL);
}

/* Somebody has just left: after this turn, or a whole queue whose connects fail at once would end in one another. */
static void on_place(struct pool_wait *w)
{
	struct session *s = container_of(w, struct session, wait);

	loop_later(s->table->o.loop, &s->placed);
}

/* ---- events ---- */

/*
 * EPOLLOUT comes when half of the queue has left. What the sender can push into a paused direction is the source's buffer, and that has to
 * fit into the other half. So whoever is slow, again and again, has it made small; whoever is not, has it tuned by the kernel again.
 */
static void note_speed(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint64_t took = loop_now(s->table->o.loop) - d->blocked_ns;

	if (!d->blocked)
		return;
	if (took >= SLOW_NS) {
		d->slow = MIN(d->slow + 1, SLOW_TIMES);
	} else {
		d->slow = 0;
		if (d->tight)
			sock_loosen(s->ends[i].poll.fd);
		d->tight = false;
	}
}

static void on_end(struct poll *p, uint32_t events)
{
	struct end *e = container_of(p, struct end, poll);
	struct session *s = e->session;
	int i = e == &s->ends[SERVER] ? SERVER : CLIENT;
	struct direction *in = &s->dirs[i];
	int error;

	if (s->record->state == LEDGER_CONNECTING && i == SERVER) {
		error = sock_error(p->fd);
		in->eof = events & EPOLLRDHUP; /* a server that speaks and closes at once */
		if (error)
			connect_failed(s, error);
		else if (events & EPOLLOUT)
			session_connected(s);
		return;
	}
	/* A hang-up of an end to which we have not sent FIN is a reset, even if its error was taken by somebody else (the kernel's worker). */
	if (events & EPOLLERR || (events & EPOLLHUP && is_established(s) && !s->dirs[!i].done)) {
		session_break(s, i, i == CLIENT ? END_CLIENT_RESET : END_SERVER_RESET);
		return;
	}
	if (s->record->state == LEDGER_FLUSH) {
		if (events & EPOLLHUP)
			loop_unwatch(s->table->o.loop, p);
		return;
	}
	if (events & EPOLLRDHUP && !in->eof && (s->joined || !is_established(s))) {
		in->eof = true;
		s->record->eof[i] = 1;
		s->retry_ns = 0;
	}
	if (!is_established(s)) {
		/* The client has said all it will before it has a server. That is no reason not to serve it. */
		if (loop_watch(s->table->o.loop, p, 0) < 0)
			session_end(s, END_NO_RESOURCE);
		return;
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		run_direction(s, i);
	if (events & EPOLLOUT) {
		note_speed(s, !i);
		s->dirs[!i].blocked = false;
		run_direction(s, !i);
	}
	session_update(s);
}

static void on_retry(struct timer *t)
{
	struct session *s = container_of(t, struct session, retry);

	if (s->record->state == LEDGER_FLUSH) {
		flush(s);
		return;
	}
	if (s->record->state == LEDGER_QUEUED) {
		session_choose(s, NULL);
		return;
	}
	run_direction(s, CLIENT);
	run_direction(s, SERVER);
	session_update(s);
}

static void on_timer(struct timer *t)
{
	struct session *s = container_of(t, struct session, timer);

	switch ((enum ledger_state)s->record->state) {
	case LEDGER_QUEUED:
		session_end(s, END_QUEUE_TIMEOUT);
		break;
	case LEDGER_CONNECTING:
		if (s->ends[SERVER].poll.fd >= 0)
			connect_failed(s, ETIMEDOUT);
		else
			session_connect(s);
		break;
	case LEDGER_RELAY:
	case LEDGER_SPLICED:
		check_idle(s);
		break;
	case LEDGER_FREE:
	case LEDGER_FLUSH:
		break;
	}
}

static void on_flow_event(void *arg, const struct flow_event *e)
{
	struct sessions *t = arg;
	uint32_t number = e->index / 2;
	int i = (int)(e->index % 2);
	struct session *s;

	if (number >= ledger_max(t->o.ledger))
		return;
	s = &t->table[number];
	/* A late event of a session that is gone. */
	if (!s->record || s->ended || s->record->cookie[i] != e->cookie)
		return;
	if (e->reason == FLOW_REASON_BROKEN) {
		session_end(s, END_BROKEN);
		return;
	}
	if (!s->joined)
		return; /* one end got into the map, the other did not: the program only passes */
	run_direction(s, i);
	session_update(s);
}

void sessions_dispatch(struct sessions *t)
{
	splice_dispatch(t->o.splice, on_flow_event, t);
}

/* ---- the end ---- */

/* HAProxy's two letters: who ended it, and in which phase. */
static void termination(const struct session *s, enum session_end why, char ret[static 3])
{
	bool connected = s->record->connected_ns;
	char phase = !connected ? (s->record->state == LEDGER_QUEUED ? 'Q' : 'C') :
				  (s->dirs[SERVER].eof ? 'L' : 'D');
	char who = '-';

	switch (why) {
	case END_CLEAN:
		strcpy(ret, "--");
		return;
	case END_CLIENT_RESET:
		who = 'C';
		break;
	case END_SERVER_RESET:
	case END_CONNECT_FAILED:
	case END_NO_SERVER:
		who = 'S';
		break;
	case END_CLIENT_TIMEOUT:
		who = 'c';
		break;
	case END_SERVER_TIMEOUT:
	case END_CONNECT_TIMEOUT:
	case END_QUEUE_TIMEOUT:
		who = 's';
		break;
	case END_NO_RESOURCE:
		who = 'R';
		break;
	case END_KILLED:
		who = 'K';
		break;
	case END_BROKEN:
		who = 'I';
		break;
	}
	ret[0] = who;
	ret[1] = phase;
	ret[2] = '\0';
}

static int64_t elapsed_ms(uint64_t from_ns, uint64_t to_ns)
{
	return (int64_t)((to_ns - MIN(from_ns, to_ns)) / NS_PER_MS);
}

static void write_log(const struct session *s, enum session_end why, const struct byte_count bytes[2])
{
	const struct ledger_record *r = s->record;
	const struct frontend *fe = s->frontend;
	uint64_t now = now_ns();
	struct tcplog log = {
		.accepted = { .tv_sec = (time_t)(r->accepted_real_ns / NS_PER_SEC),
			      .tv_nsec = (long)(r->accepted_real_ns % NS_PER_SEC) },
		.frontend = fe->conf->name,
		.backend = s->backend->conf->name,
		.server = r->server ? s->backend->servers[r->server - 1].conf->name : NULL,
		.queue_ms = r->server ? elapsed_ms(r->accepted_ns, s->placed_ns) : -1,
		.connect_ms = r->connected_ns ? elapsed_ms(s->placed_ns, r->connected_ns) : -1,
		.total_ms = elapsed_ms(r->accepted_ns, now),
		.bytes_to_client = byte_total(&bytes[SERVER]),
		.process_conns = s->table->o.stats->current,
		.frontend_conns = fe->stats.current,
		.backend_conns = s->backend->stats.current,
		.server_conns = s->server ? s->server->stats.current : 0,
		.retries = r->retries,
		.redispatched = s->was_redispatched,
		.backend_queue = s->queue_before,
	};
	char line[1024];

	if (!fe->conf->tcplog || !fe->nr_sinks)
		return;
	if (fe->conf->dontlognull && why == END_CLEAN && !byte_total(&bytes[CLIENT]))
		return;
	ledger_addr_get(&r->client, &log.client);
	termination(s, why, log.state);
	tcplog_format(&log, line, sizeof(line));
	for (uint32_t i = 0; i < fe->nr_sinks; i++)
		log_sink_write(fe->sinks[i], LOG_INFO, line);
}

static void count_end(struct session *s, enum session_end why, const struct byte_count bytes[2])
{
	struct stats *all[] = { &s->frontend->stats, &s->backend->stats, s->server ? &s->server->stats : NULL };
	struct process_stats *p = s->table->o.stats;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!all[i])
			continue;
		stat_add(all[i]->in.kernel, bytes[CLIENT].kernel);
		stat_add(all[i]->in.user, bytes[CLIENT].user);
		stat_add(all[i]->out.kernel, bytes[SERVER].kernel);
		stat_add(all[i]->out.user, bytes[SERVER].user);
		if (s->record->connected_ns && (why == END_CLIENT_RESET || why == END_CLIENT_TIMEOUT))
			stat_add(all[i]->aborted_by_client, 1);
		if (s->record->connected_ns && (why == END_SERVER_RESET || why == END_SERVER_TIMEOUT))
			stat_add(all[i]->aborted_by_server, 1);
		if (!s->record->connected_ns && why != END_CLIENT_RESET)
			stat_add(all[i]->failed, 1);
	}
	p->in.kernel += bytes[CLIENT].kernel;
	p->in.user += bytes[CLIENT].user;
	p->out.kernel += bytes[SERVER].kernel;
	p->out.user += bytes[SERVER].user;
	if (why != END_CLEAN)
		p->resets_sent++;
	if (s->joined) {
		for (int i = 0; i < 2; i++) {
			p->pauses += flow_get(flow_of(s, i), pauses);
			p->resumes += flow_get(flow_of(s, i), resumes);
		}
	}
}

static void close_ends(struct session *s, enum session_end why)
{
	for (int i = 0; i < 2; i++) {
		int fd = s->ends[i].poll.fd;

		if (fd < 0)
			continue;
		/* Whose both streams are complete gets an orderly end, whatever became of the other. */
		if (why == END_CLEAN || (s->dirs[i].eof && s->dirs[!i].done))
			sock_close_orderly(fd);
		else
			sock_close_reset(fd);
		s->ends[i].poll.fd = s->record->fd[i] = -1;
	}
}

/* At the end of the turn: nothing can call for this session any more. */
static void on_release(struct later *l)
{
	struct session *s = container_of(l, struct session, release);
	struct sessions *t = s->table;

	ledger_release(t->o.ledger, s->number);
	s->record = NULL;
	t->count--;
	t->o.ended(t->o.arg);
}

/* The one way out. */
static void session_end(struct session *s, enum session_end why)
{
	struct sessions *t = s->table;
	struct loop *loop = t->o.loop;
	struct byte_count bytes[2];

	if (s->ended)
		return;
	s->ended = true;
	if (why == END_BROKEN)
		log_alert("session %lu is reset: the kernel's byte counters contradict each other; please report this",
			  (unsigned long)s->record->serial);
	for (int i = 0; i < 2; i++) {
		loop_unwatch(loop, &s->ends[i].poll);
		bytes[i] = bytes_of(s, i);
	}
	loop_timer_clear(loop, &s->timer);
	loop_timer_clear(loop, &s->retry);
	if (!list_empty(&s->wait.entry)) {
		pool_unwait(s->backend, &s->wait);
		pool_wake(s->backend); /* if it was called already, the next one is */
	}

	close_ends(s, why);
	write_log(s, why, bytes);
	count_end(s, why, bytes);
	if (t->o.splice && (s->record->cookie[0] || s->record->cookie[1]))
		splice_leave(t->o.splice, s->number, s->record->cookie);
	relay_done(&s->dirs[0].relay);
	relay_done(&s->dirs[1].relay);
	pool_tried_done(&s->tried);
	stats_leave(&s->frontend->stats);
	stats_leave(&s->backend->stats);
	t->o.stats->current--;
	loop_later(loop, &s->release);
	leave_server(s);
}

/* ---- the beginning ---- */

static uint64_t realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

int session_start(struct sessions *t, struct frontend *fe, int fd, const struct addr *client)
{
	struct loop *loop = t->o.loop;
	uint64_t now = loop_now(loop), now_s = now / NS_PER_SEC;
	struct session *s;
	uint32_t number;
	int r;

	r = ledger_take(t->o.ledger, &number);
	if (r < 0) {
		sock_close_reset(fd);
		return r;
	}
	s = &t->table[number];
	*s = (struct session){
		.table = t,
		.record = ledger_get(t->o.ledger, number),
		.frontend = fe,
		.backend = fe->backend,
		.number = number,
		.why = END_NO_SERVER,
		.active_ns = now,
	};
	t->count++;
	for (int i = 0; i < 2; i++) {
		poll_init(&s->ends[i].poll, -1, on_end);
		s->ends[i].session = s;
	}
	timer_init(&s->timer, on_timer);
	timer_init(&s->retry, on_retry);
	later_init(&s->release, on_release);
	later_init(&s->placed, on_placed);
	list_init(&s->wait.entry);
	s->wait.fn = on_place;
	s->ends[CLIENT].poll.fd = s->record->fd[CLIENT] = fd;
	s->record->frontend = (uint16_t)fe->conf->id;
	s->record->backend = (uint16_t)fe->backend->conf->id;
	ledger_addr_set(&s->record->client, client);
	s->record->accepted_ns = s->placed_ns = now;
	s->record->accepted_real_ns = realtime_ns();

	stats_enter(&fe->stats, now_s);
	stats_enter(&fe->backend->stats, now_s);
	t->o.stats->sessions++;
	t->o.stats->current++;
	t->o.stats->max = MAX(t->o.stats->max, t->o.stats->current);
	rate_add(&t->o.stats->rate, now_s);

	if (loop_watch(loop, &s->ends[CLIENT].poll, EPOLLRDHUP) < 0) {
		session_end(s, END_NO_RESOURCE);
		return -ENOMEM;
	}
	session_choose(s, NULL);
	return 0;
}

int sessions_new(struct sessions **ret, const struct sessions_options *o)
{
	struct sessions *t = malloc(sizeof(*t));
	void *map;

	if (!t)
		return -ENOMEM;
	t->o = *o;
	t->count = 0;
	t->table_size = (size_t)ledger_max(o->ledger) * sizeof(struct session);
	map = mmap(NULL, t->table_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		free(t);
		return -ENOMEM;
	}
	t->table = map;
	*ret = t;
	return 0;
}

struct sessions *sessions_free(struct sessions *t)
{
	if (t) {
		munmap(t->table, t->table_size);
		free(t);
	}
	return NULL;
}

uint32_t sessions_count(const struct sessions *t)
{
	return t->count;
}

void sessions_kill(struct sessions *t)
{
	uint32_t max = ledger_max(t->o.ledger);

	for (uint32_t i = 0; t->count && i < max; i++)
		if (t->table[i].record)
			session_end(&t->table[i], END_KILLED);
}

void sessions_each(struct sessions *t, void (*fn)(void *arg, const struct session_view *v), void *arg)
{
	uint32_t max = ledger_max(t->o.ledger), left = t->count;

	for (uint32_t n = 0; left && n < max; n++) {
		struct session *s = &t->table[n];
		struct session_view v;

		if (!s->record)
			continue;
		left--;
		if (s->ended)
			continue;
		v = (struct session_view){
			.record = s->record,
			.frontend = s->frontend,
			.server = s->server,
			.splicing = s->joined,
		};
		for (int i = 0; i < 2; i++) {
			v.bytes[i] = bytes_of(s, i);
			v.held[i] = relay_held(&s->dirs[i].relay);
			if (!s->joined)
				continue;
			v.mover[i] = flow_get(flow_of(s, i), mode);
			v.pauses[i] = flow_get(flow_of(s, i), pauses);
			v.resumes[i] = flow_get(flow_of(s, i), resumes);
			v.peak[i] = flow_get(flow_of(s, i), peak);
		}
		fn(arg, &v);
	}
}
