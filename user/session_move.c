/* SPDX-License-Identifier: GPL-2.0-or-later */
/* session_move.c - see session_state.h. The invariants of moving bytes stand at the top of
 * session.c. */
#include "session_state.h"

#include <sys/socket.h>

#define CHUNK_SIZE (252 * 1024)	     /* bytes of one read, */
#define CHUNK_MAX (1020 * 1024)	     /* or up to so many, if there is room for them: less than RELAY_AREA, see relieve_source() */
#define FIRST_SIZE (16 * 1024)	     /* whose peer is not tuned yet: it fits into any send buffer */
_Static_assert(CHUNK_MAX < RELAY_AREA && CHUNK_MAX <= SCRATCH_SIZE, "room for a byte more");
#define FEW_FLOWS 8		     /* of a thread, */
#define HELD_MAX (FEW_FLOWS * CHUNK_MAX) /* and bytes that it holds */
#define PAGES_FROM (16 * 1024)	     /* bytes of a read after which the next ones bring pages, */
#define PAGES_TO (4 * 1024)	     /* until one brings less than this: see docs/decisions/013 */
#define BUDGET (1000 * 1024)	     /* bytes that one direction may move before the others' turn */
#define SLOW_NS (2 * NS_PER_MS)	     /* half the queue takes this long: slow enough, */
#define SLOW_TIMES 3		     /* so often in a row, for a small buffer on the source */
#define QUICK_NS (20 * NS_PER_MS)    /* it took less than this: a larger limit is for use */
#define FIT_FIRST (512u * 1024)	     /* bytes after which the source's buffer is fitted, */
#define FIT_AGAIN (4u * 1024 * 1024) /* and again */
#define TOKENS 100		     /* looks at a window that might be closed */
#define PATIENT_LOOKS 8		     /* in vain, before more than one token is spent on a look */
#define MISSING_NS (1000 * NS_PER_MS) /* before missing bytes are given up: a reset */

/* The peer's stream gets its FIN, behind everything. */
static void finish(struct session *s, int i)
{
	s->dirs[i].done = true;
	s->record->done[i] = 1;
	/* The second FIN is that of the close, which follows. ENOTCONN: the peer was reset
	 * meanwhile; its own event tells. */
	if (!s->dirs[!i].done)
		shutdown(s->ends[!i].poll.fd, SHUT_WR);
	s->active_ns = loop_now(s->table->o.loop);
	session_arm_idle(s); /* client-fin and server-fin count from here */
}

/*
 * True if every byte that the kernel redirected in direction i, and every byte that userspace
 * wrote, is in the peer's TCP. Only exact while nothing is redirected meanwhile: after EOF, or
 * while passed != moved.
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

static void begin_wait(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];

	d->blocked_ns = loop_now(s->table->o.loop);
	if (d->charged)
		return;
	d->charged = true;
	budget_charge(s->table->o.budget, d->limit);
}

/* The peer has taken half of its queue, quickly: more may wait for it next time. */
static void grow_limit(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint32_t limit = budget_grow(s->table->o.budget, d->limit);

	if (limit == d->limit)
		return;
	if (sock_limit(s->ends[!i].poll.fd, limit) < 0) {
		budget_return(s->table->o.budget, limit - d->limit);
		return;
	}
	d->limit = limit;
	if (s->joined)
		flow_set(flow_of(s, i), limit, limit);
}

/* Directions of the thread that move something. Few have large reads: see chunk_size(). */
static uint32_t active(const struct session *s)
{
	const struct thread_load *l = &s->table->load;

	return MAX(l->last.flows, l->flows);
}

/* What is held in relay buffers has changed. */
static void note_held(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];

	s->table->held += (uint64_t)relay_held(&d->relay) - d->held;
	d->held = relay_held(&d->relay);
}

/*
 * Who copies in bulk is the bottleneck: the kernel lets the source's buffer grow to megabytes that
 * nobody gains from.
 */
static void fit_source(struct session *s, int i, uint64_t moved)
{
	struct direction *d = &s->dirs[i];
	uint64_t now = loop_now(s->table->o.loop), us;

	d->unfitted += (uint32_t)moved;
	if (d->unfitted < (d->sized ? FIT_AGAIN : FIT_FIRST))
		return;
	us = MAX((now - MAX(d->fitted_ns, s->record->connected_ns)) / NS_PER_US, 1ull);
	d->roomy = active(s) <= FEW_FLOWS || (d->roomy && active(s) <= 2 * FEW_FLOWS);
	d->sized = sock_fit(s->ends[i].poll.fd, d->roomy ? CHUNK_MAX : CHUNK_SIZE, d->unfitted * 1000000ull / us, d->sized);
	d->unfitted = 0;
	d->fitted_ns = now;
}

void session_loosen(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];

	if (d->sized)
		sock_loosen(s->ends[i].poll.fd);
	d->sized = false;
}

/* What relay_run() said, seen from the session. Returns false if the session changed its state or
 * ended. */
static bool take_outcome(struct session *s, int i, const struct relay_outcome *out)
{
	struct direction *d = &s->dirs[i];

	if (s->ended)
		return false;
	if (out->moved) {
		s->retry_ns = 0;
		session_note_moved(s, i, out->moved);
		if (!is_kernels(s, i))
			fit_source(s, i, out->moved);
	}
	d->starved = d->starved && out->status == RELAY_BLOCKED && !out->moved;
	if (d->starved)
		session_arm_retry(s);
	if (out->status == RELAY_BLOCKED && !d->blocked)
		begin_wait(s, i);
	d->blocked = out->status == RELAY_BLOCKED;
	switch (out->status) {
	case RELAY_IDLE:
	case RELAY_BLOCKED:
	case RELAY_MORE:
	case RELAY_EOF:
		return !s->ended;
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

/* Bytes that TCP has received, FIN included, but the program has not seen: it should have, before
 * anybody could ask. */
static bool is_overdue(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint64_t now = loop_now(s->table->o.loop);

	if (!d->missing_ns)
		d->missing_ns = now;
	return now - d->missing_ns > MISSING_NS;
}

/*
 * Bytes of the next read. A transfer that fills its reads is a third faster with one large copy than with four small ones, and with a source that may have as
 * much ready (decision 012); one that is spliced is quick, and fills few. But what the peer does not take has to be held: so of many each reads no more than is
 * likely to be taken, and so does who is spliced, who would have to copy the rest.
 */
static size_t chunk_size(const struct session *s, int i)
{
	const struct direction *d = &s->dirs[i];
	bool few = active(s) <= FEW_FLOWS && s->table->held <= HELD_MAX;
	uint32_t room;

	if (!d->full && !d->relay.pipe)
		return CHUNK_SIZE;
	room = sock_room(s->ends[!i].poll.fd, few && !d->relay.pipe ? UINT32_MAX : d->limit);
	room -= MIN(room, relay_held(&d->relay));
	return MIN(MAX(room, (uint32_t)CHUNK_SIZE), (uint32_t)CHUNK_MAX);
}

/*
 * A transfer, one of few. But splice(2) reads past the program of a socket that is, or was to be, in the map; and what is quick beside many fills their
 * readers' buffers, and is no faster (decision 013). And a short read that was spliced does not say that there is no more: in a flush it has to.
 */
static bool is_to_be_spliced(const struct session *s, int i)
{
	const struct direction *d = &s->dirs[i];
	const struct ledger_record *r = s->record;

	return d->pages && r->state == LEDGER_RELAY && active(s) <= (d->relay.pipe ? 2 * FEW_FLOWS : FEW_FLOWS) && s->splice[i] != SPLICE_OFF &&
	       !r->cookie[0] && !r->cookie[1];
}

/* relay_run(), with budget = 0 or BUDGET and reads of `most` bytes at most; a large read is the only one of its turn. */
static struct relay_outcome relay_turn(struct session *s, int i, size_t most, uint64_t budget)
{
	struct direction *d = &s->dirs[i];
	struct relay_outcome out;
	size_t size;

	d->relay.pipe = is_to_be_spliced(s, i) ? s->table->o.pipe : NULL;
	size = MIN(chunk_size(s, i), most);
	out = relay_run(&d->relay, s->ends[i].poll.fd, s->ends[!i].poll.fd, s->table->scratch, size,
			size > CHUNK_SIZE ? MIN(budget, size) : budget);
	d->full = out.last >= size;
	if (out.last)
		d->pages = out.last >= (d->pages ? PAGES_TO : PAGES_FROM);
	note_held(s, i);
	return out;
}

/* Moves the bytes of a direction that is not joined. */
static struct relay_outcome move_relayed(struct session *s, int i)
{
	struct relay *relay = &s->dirs[i].relay;
	bool untuned = i == CLIENT && !s->tuned;
	uint64_t budget = s->joining && relay_held(relay) ? 0 : untuned ? FIRST_SIZE : BUDGET;
	struct relay_outcome out;

	own_scratch(s, i, s->record->relayed[i]);
	out = relay_turn(s, i, untuned ? FIRST_SIZE : CHUNK_MAX, budget);

	/* TCP_NODELAY sends what Nagle's algorithm may be holding. If it fails, the next write
	 * tries again. */
	if (untuned && out.moved && s->record->relayed[i])
		session_tune(s);
	s->record->relayed[i] += out.moved;
	return out;
}

static void run_relay(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	struct relay_outcome out = move_relayed(s, i);
	uint64_t received;

	if (!take_outcome(s, i, &out))
		return;
	if (out.status != RELAY_EOF) {
		session_join_flushed(s);
		return;
	}
	/* On a socket that got into the map, though its peer did not, recv() == 0 proves nothing by
	 * itself. */
	if (s->record->cookie[i] && (sock_received(s->ends[i].poll.fd, &received) < 0 ||
				     received != s->record->relayed[i] + 1)) {
		if (received > s->record->relayed[i] + 1 && !is_overdue(s, i)) {
			session_arm_retry(s); /* the kernel's worker will bring it */
			return;
		}
		session_end_broken(s, i, "the end has come before the last byte");
		return;
	}
	d->eof = true;
	s->record->eof[i] = 1;
	finish(s, i);
}

/*
 * Takes n of the bytes that were written already but are still unread. What cannot be read at this
 * moment stays a token. Returns false if the session ended.
 */
static bool take_tokens(struct session *s, int i, uint32_t n)
{
	struct direction *d = &s->dirs[i];
	struct flow *f = flow_of(s, i);
	uint64_t left = n;
	int r;

	/* What comes while recv() opens the window finds them gone: who closes it again counts on
	 * none of them. */
	flow_set(f, unread, d->tokens - n);
	r = relay_take(s->ends[i].poll.fd, s->table->scratch->bytes, SCRATCH_SIZE, &left);
	d->tokens -= n - (uint32_t)left;
	__atomic_store_n(&s->record->taken[i], s->record->taken[i] + n - left, __ATOMIC_RELEASE);
	if (left)
		flow_set(f, unread, d->tokens);
	if (r == 0 || r == -EAGAIN)
		return true;
	session_end_broken(s, i, "bytes that were peeked at cannot be read");
	return false;
}

/*
 * A redirecting socket has no reader, and so nobody who would open a closed window, if an
 * acknowledgment was sent while the socket's backlog counted against its buffer. So a direction
 * that came home keeps some bytes, written already, unread: reading one makes TCP look at the
 * window again. The program tells when (session_window_closed()); besides, one is spent whenever
 * nothing has come since the last look, and soon more than one: it may be the memory of their own
 * segment that keeps the window closed.
 */
static void open_window(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint64_t redirected = flow_get(flow_of(s, i), redirected);
	uint32_t n;

	if (redirected == d->seen) {
		d->opened = (uint8_t)MIN(d->opened + 1, UINT8_MAX);
		n = d->opened < PATIENT_LOOKS ? 1 : MIN(d->opened * 2u, d->tokens);
		if (!take_tokens(s, i, n))
			return;
	} else if (d->opened) {
		s->retry_ns = 0; /* that was it: it may happen again soon */
		d->opened = 0;
	}
	d->seen = redirected;
	if (d->tokens)
		session_arm_retry(s);
}

void session_window_closed(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	const struct flow *f = flow_of(s, i);

	if (!is_established(s) || !d->tokens || flow_get(f, passed) != f->moved)
		return; /* what was passed opens it */
	s->retry_ns = 0;
	take_tokens(s, i, 1);
}

/*
 * Passed bytes that cannot be read yet wait for the kernel's worker (the receive buffer was full).
 * EPOLLIN is told for them all the same: who listened to it would turn without pause, and keep the
 * worker from its CPU. Returns false if the session ended.
 */
static bool await_worker(struct session *s, int i, const struct relay_outcome *out)
{
	if (s->ended)
		return false;
	if (out->status == RELAY_IDLE && !out->moved) {
		s->dirs[i].proving = true;
		session_arm_retry(s);
	}
	return !s->ended;
}

/* Passed bytes that can neither be read yet nor were read: charged to nobody, or about to be. *ret_told: a reset that was taken by looking, or 0. */
static bool is_on_its_way_up(struct session *s, int i, int *ret_told)
{
	const struct flow *f = flow_of(s, i);
	uint64_t taken = s->record->taken[i] - s->record->relayed[i];
	int64_t unread = sock_look_at_unread(s->ends[i].poll.fd, s->table->o.unread, ret_told);

	return unread >= 0 && flow_get(f, passed) - taken > (uint64_t)unread;
}

/*
 * Bytes that are passed behind redirected ones are charged to their socket late (docs/decisions/008). By then a buffer that userspace bounds, and does not
 * read while the peer is full, holds more than it should; TCP refuses what was sent into the open window, closes it, and takes no acknowledgment from
 * behind it any more (docs/decisions/010): the other direction would stand still. So, when all has come that could take the room away, there is made
 * some, and a byte read, which tells the sender. Returns false if the session changed its state or ended.
 */
static bool relieve_source(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	struct flow *f = flow_of(s, i);
	uint16_t crowded = flow_get(f, crowded);
	int source = s->ends[i].poll.fd, told = 0, r;
	bool waits;

	if (crowded == (uint16_t)f->relieved || d->tokens)
		return true;
	if (!d->blocked) {
		if (flow_get(f, passed) == f->moved)
			flow_set(f, relieved, crowded); /* whoever reads opens the window */
		return true;
	}
	waits = is_on_its_way_up(s, i, &told);
	if (told) {
		session_break(s, i, i == CLIENT ? END_CLIENT_RESET : END_SERVER_RESET);
		return false;
	}
	if (waits) {
		session_arm_retry(s);
		return !s->ended;
	}
	flow_set(f, relieved, crowded);
	r = sock_relieve(source);
	if (r < 0)
		return true; /* until it is read */
	if (r > 0) {
		d->sized = false;
		d->slow = 0; /* or it would be made small again at once */
	}
	own_scratch(s, i, f->moved);
	r = relay_read_on(&d->relay, source, s->table->scratch, 1);
	if (r == -EAGAIN || r == -ENOSPC || r == -ENOMEM) {
		flow_set(f, relieved, (uint16_t)(crowded - 1)); /* nobody has told the sender */
		session_arm_retry(s);
		return !s->ended;
	}
	if (r < 0)
		session_break(s, i, i == CLIENT ? END_CLIENT_RESET : END_SERVER_RESET);
	return r >= 0;
}

/* Moves the passed bytes of a joined direction. Returns false if the session changed its state or
 * ended. */
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
		session_arm_retry(s);
		return !s->ended;
	}
	if (d->slow >= SLOW_TIMES && !d->sized && f->want_kernel)
		d->sized = sock_tighten(source, d->limit / 8);
	if (!is_proven(s, i)) {
		d->proving = true;
		session_arm_retry(s);
		return !s->ended;
	}
	/* What is held is older than what can still be read: it goes first, also when the direction
	 * is to go home now. */
	if (!f->want_kernel || relay_held(&d->relay)) {
		own_scratch(s, i, f->moved);
		out = relay_turn(s, i, CHUNK_MAX, f->want_kernel ? 0 : BUDGET);
		flow_set(f, moved, f->moved + out.moved);
		return take_outcome(s, i, &out) && await_worker(s, i, &out);
	}
	/*
	 * The way home: write first, then publish, and only then take, which opens the window. So
	 * the next segment finds the direction free, and the kernel has it again. A few bytes are
	 * left for later: see open_window().
	 */
	out = relay_offer(source, sink, t->scratch->bytes, MIN(left, SCRATCH_SIZE));
	d->tokens = (uint32_t)out.moved;
	kept = out.moved == left && !d->eof ? (uint32_t)MIN(left / 2, TOKENS) : 0;
	flow_set(f, unread, kept);
	flow_set(f, moved, f->moved + out.moved);
	if (!take_tokens(s, i, d->tokens - kept))
		return false;
	if (d->tokens)
		session_arm_retry(s);
	return take_outcome(s, i, &out) && await_worker(s, i, &out);
}

static void run_joined(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	struct flow *f = flow_of(s, i);
	uint64_t received, handed, seen;

	if (!move_passed(s, i) || !relieve_source(s, i) || !d->eof)
		return;

	/* The source has ended. Under its lock (sock_received takes it) the program has seen every
	 * segment. */
	if (!take_tokens(s, i, d->tokens))
		return;
	if (d->tokens) {
		session_arm_retry(s);
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
	if (seen > d->total)
		session_end_broken(s, i, "more was handed over than has come");
	else if (seen < d->total && is_overdue(s, i))
		session_end_broken(s, i, "bytes are missing");
	else if (seen == d->total && handed == d->total && is_proven(s, i))
		finish(s, i);
	else if (!d->blocked)
		session_arm_retry(s);
}

void session_run(struct session *s, int i)
{
	if (s->ended || s->dirs[i].done || !is_established(s))
		return;
	if (s->joined)
		run_joined(s, i);
	else
		run_relay(s, i);
}

/*
 * EPOLLOUT comes when half of the queue has left. What the sender can push into a paused direction
 * is the source's buffer, and that has to fit into the other half. So whoever is slow, again and
 * again, has it made small; whoever is not, has it tuned by the kernel again.
 */
static void note_speed(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	uint64_t took = loop_now(s->table->o.loop) - d->blocked_ns;

	if (!d->blocked)
		return;
	if (took < QUICK_NS)
		grow_limit(s, i);
	if (took >= SLOW_NS) {
		d->slow = MIN(d->slow + 1, SLOW_TIMES);
	} else {
		d->slow = 0;
		if (is_kernels(s, i))
			session_loosen(s, i);
	}
}

/*
 * A socket that says it has room, and takes nothing, has no memory: the kernel looks at the room
 * alone when it tells EPOLLOUT, and would tell it again at once. So the timer looks, until a byte
 * gets through.
 */
void session_unblock(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];

	if (s->ended)
		return;
	note_speed(s, i);
	d->blocked = false;
	d->starved = true;
	session_run(s, i);
	d->starved = d->starved && d->blocked;
}

bool session_run_broken(struct session *s, int i)
{
	struct direction *d = &s->dirs[i];
	struct relay_outcome out;

	if (d->done)
		return true;
	if (s->joined) {
		if (!move_passed(s, i))
			return false;
		return flow_get(flow_of(s, i), passed) == flow_of(s, i)->moved && is_proven(s, i);
	}
	out = move_relayed(s, i);
	if (out.status == RELAY_SINK_ERROR || out.status == RELAY_NO_MEMORY)
		session_end(s, s->why);
	return !s->ended && out.status != RELAY_BLOCKED && out.status != RELAY_MORE;
}
