/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session.c - the state machine of a session: two mirrored ends, and a direction from each end to
 * its peer.
 *
 *   QUEUED ──► CONNECTING ──► RELAY ◄──► JOINING ──► SPLICED ──► closed
 *                  │ refused, timeout │ reset             │ reset
 *                  └──► next server   └──► FLUSH ◄────────┘
 *                                            └──► closed
 *
 * Direction i reads from end i and writes to end !i. Invariants:
 *
 * - A direction has exactly one mover. In KERNEL mode userspace neither reads this end nor writes
 * the peer for it. In USER mode it may, as long as it has passed bytes that it has not moved yet:
 * then the program cannot change the mode. It writes only after it has proved that what the kernel
 * redirected before has left the kernel's queue: sock_written(peer) accounts for every byte.
 * - The kernel does not forward FIN. We do, when every byte that this end ever received
 * (sock_received()) was handed over, and the peer's send queue provably has them all. recv() == 0
 * alone proves nothing on a joined socket.
 * - A stream is never truncated with a clean FIN: an end whose stream is not complete in both
 * directions is closed with a reset.
 * - A joined socket is never taken out of the map while it lives; it leaves by being closed.
 * - A direction in KERNEL mode is watched for EPOLLRDHUP only; EPOLLIN would wake the daemon for
 * every segment.
 *
 * This file: the table of sessions, their events and timers, what is watched, and inactivity. The
 * rest of the machine: see session_state.h. Deliberately elsewhere: moving bytes (relay, splice),
 * choosing a server (pool), when to accept (lb).
 */
#include "session_state.h"

#include <inttypes.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define RETRY_MIN_NS (20 * NS_PER_US) /* looking again at the kernel's queue: first pause, */
#define RETRY_MAX_NS (4 * NS_PER_MS)  /* and the longest; it doubles in between */

/* ---- small helpers ---- */

struct byte_count session_bytes(const struct session *s, int direction)
{
	struct byte_count b = {.user = s->record->relayed[direction]};

	if (s->joined) {
		const struct flow *f = flow_of(s, direction);

		b.kernel = flow_get(f, redirected);
		b.user += f->moved;
	}
	return b;
}

void session_arm_retry(struct session *s)
{
	struct loop *loop = s->table->o.loop;

	if (timer_armed(&s->retry))
		return;
	s->retry_ns = MIN(MAX(s->retry_ns * 2, RETRY_MIN_NS), RETRY_MAX_NS);
	if (loop_timer_set(loop, &s->retry, loop_now(loop) + s->retry_ns) < 0)
		session_end(s, END_NO_RESOURCE);
}

void session_arm_timer(struct session *s, uint64_t at_ns)
{
	if (loop_timer_set(s->table->o.loop, &s->timer, at_ns) < 0)
		session_end(s, END_NO_RESOURCE);
}

/* ---- what is watched ---- */

static uint32_t wanted_events(const struct session *s, int end)
{
	const struct direction *out = &s->dirs[!end], *in = &s->dirs[end];
	uint32_t events = 0;

	if (out->blocked && !out->starved && !out->done)
		events |= EPOLLOUT;
	if (in->eof || in->done)
		return events;
	if (!s->joined)
		return in->blocked ? events : events | EPOLLIN;
	events |= EPOLLRDHUP;
	if (flow_get(flow_of(s, end), mode) == FLOW_USER && !in->blocked && !in->proving &&
	    !in->tokens)
		events |= EPOLLIN;
	return events;
}

/* Brings everything in line with the directions' state: what is watched, and whether the session is
 * over. */
void session_update(struct session *s)
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

		/* An end that is shut both ways reports EPOLLHUP for ever: only watch it for
		 * something that will come. */
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
	const struct config_timeouts *t =
		end == CLIENT ? &s->frontend->conf->timeout : &s->backend->conf->timeout;
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

void session_arm_idle(struct session *s)
{
	int end;
	uint32_t ms = idle_timeout(s, &end);

	if (ms)
		session_arm_timer(s, s->active_ns + ms * NS_PER_MS);
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
		/* An acknowledgment alone says nothing (keepalive); but if bytes were acknowledged,
		 * it was not before that. */
		if (a.acked != s->acked[i])
			at = now - MIN(now, MIN(a.last_received_ms, a.last_acked_ms) * NS_PER_MS);
		s->acked[i] = a.acked;
		s->active_ns = MAX(s->active_ns, at);
	}
	ms = idle_timeout(s, &end);
	if (ms && now >= s->active_ns + ms * NS_PER_MS)
		session_end(s, end == CLIENT ? END_CLIENT_TIMEOUT : END_SERVER_TIMEOUT);
	else
		session_arm_idle(s);
}

/* ---- events ---- */

static void end_event(struct session *s, int i, uint32_t events)
{
	struct poll *p = &s->ends[i].poll;
	struct direction *in = &s->dirs[i];
	int error;

	if (s->record->state == LEDGER_CONNECTING && i == SERVER) {
		error = events & (EPOLLERR | EPOLLHUP) ? sock_error(p->fd) : 0;
		in->eof = events & EPOLLRDHUP; /* a server that speaks and closes at once */
		if (error)
			session_connect_failed(s, error);
		else if (events & EPOLLOUT)
			session_connected(s);
		return;
	}
	/* A hang-up of an end to which we have not sent FIN is a reset, even if its error was taken
	 * by somebody else (the kernel's worker). */
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
		/* The client has said all it will before it has a server. That is no reason not to
		 * serve it. */
		if (loop_watch(s->table->o.loop, p, 0) < 0)
			session_end(s, END_NO_RESOURCE);
		return;
	}
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
		session_run(s, i);
	if (events & EPOLLOUT)
		session_unblock(s, !i);
	session_update(s);
}

static void on_end(struct poll *p, uint32_t events)
{
	struct end *e = container_of(p, struct end, poll);
	struct session *s = e->session;

	session_serve(s);
	end_event(s, e == &s->ends[SERVER] ? SERVER : CLIENT, events);
	session_served(s->table);
}

static void on_retry(struct timer *t)
{
	struct session *s = container_of(t, struct session, retry);

	session_serve(s);
	if (s->record->state == LEDGER_FLUSH) {
		session_flush(s);
	} else if (s->record->state == LEDGER_QUEUED) {
		session_choose(s, NULL);
	} else {
		session_run(s, CLIENT);
		session_run(s, SERVER);
		session_update(s);
	}
	session_served(s->table);
}

static void on_timer(struct timer *t)
{
	struct session *s = container_of(t, struct session, timer);

	session_serve(s);
	switch ((enum ledger_state)s->record->state) {
	case LEDGER_QUEUED:
		session_end(s, END_QUEUE_TIMEOUT);
		break;
	case LEDGER_CONNECTING:
		if (s->ends[SERVER].poll.fd >= 0)
			session_connect_failed(s, ETIMEDOUT);
		else
			session_connect(s);
		break;
	case LEDGER_RELAY:
	case LEDGER_SPLICED:
		check_idle(s);
		break;
	case LEDGER_FREE:
	case LEDGER_JOINING:
	case LEDGER_FLUSH:
		break;
	}
	session_served(s->table);
}

/* The program drops what comes from that end. */
static void overflow(struct session *s, int i)
{
	bool flushing = s->record->state == LEDGER_FLUSH;

	if (flushing && i != s->broken)
		return; /* what the end that is left sends is for nobody */
	if (!flushing)
		log_warning("session %" PRIu64 " is reset: %u MB from the %s wait in the kernel, and no socket is charged with them: the other direction's bytes in "
			    "front of them do not get into its send queue. Sockets lack memory (net.ipv4.tcp_mem, the cgroup's limit), or the kernel's workers a CPU",
			    s->record->serial, SHUNT_PASSED_MAX >> 20, i == CLIENT ? "client" : "server");
	session_end(s, flushing ? s->why : END_NO_RESOURCE);
}

static void flow_event(struct session *s, int i, const struct flow_event *e)
{
	if (e->reason == FLOW_REASON_BROKEN) {
		session_end_broken(s, i, "a segment is missing, or could not be trimmed");
		return;
	}
	if (e->reason == FLOW_REASON_OVERFLOW) {
		overflow(s, i);
		return;
	}
	if (e->reason == FLOW_REASON_SAMPLE) {
		session_sampled(s, i);
		return;
	}
	if (!s->joined)
		return; /* one end got into the map, the other did not: the program only passes */
	if (e->reason == FLOW_REASON_WINDOW)
		session_window_closed(s, i);
	session_run(s, i);
	session_update(s);
}

static void on_flow_event(void *arg, const struct flow_event *e)
{
	struct sessions *t = arg;
	uint32_t number = e->index / 2;
	int i = (int)(e->index % 2);
	struct session *s;

	if (number - t->first >= t->max)
		return;
	s = &t->table[number - t->first];
	/* A late event of a session that is gone. */
	if (!s->record || s->ended || s->record->cookie[i] != e->cookie)
		return;
	session_serve(s);
	flow_event(s, i, e);
	session_served(t);
}

void sessions_dispatch(struct sessions *t)
{
	splice_dispatch(t->o.splice, t->o.thread, on_flow_event, t);
}

/* ---- the beginning ---- */

static uint64_t realtime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* A session for a record, as it is before anything is known of it. */
static struct session *begin(struct sessions *t, uint32_t number, struct frontend *fe,
			     struct backend *be)
{
	struct session *s = &t->table[number - t->first];

	*s = (struct session){
		.table = t,
		.record = ledger_get(t->o.ledger, number),
		.frontend = fe,
		.backend = be,
		.number = number,
		.why = END_NO_SERVER,
		.active_ns = loop_now(t->o.loop),
	};
	t->count++;
	for (int i = 0; i < 2; i++) {
		poll_init(&s->ends[i].poll, s->record->fd[i], on_end);
		s->ends[i].session = s;
		s->dirs[i].limit = budget_begin(t->o.budget);
		s->dirs[i].relay.area = ledger_area(t->o.ledger, number, i);
		s->dirs[i].relay.saved = &s->record->held[i];
		s->dirs[i].relay.taken = &s->record->taken[i];
	}
	timer_init(&s->timer, on_timer);
	timer_init(&s->retry, on_retry);
	list_init(&s->away);
	session_connect_init(s);
	session_end_init(s);
	return s;
}

int sessions_keep_spare(struct sessions *t)
{
	if (t->spare < 0)
		t->spare = eventfd(0, EFD_CLOEXEC);
	return t->spare < 0 ? -errno : 0;
}

int session_start(struct sessions *t, struct frontend *fe, int fd, const struct addr *client)
{
	struct loop *loop = t->o.loop;
	uint64_t now = loop_now(loop), now_s = now / NS_PER_SEC;
	struct ledger_record *r;
	struct session *s;
	uint32_t number;
	int error;

	error = ledger_take(t->o.ledger, t->o.thread, &number);
	if (error < 0) {
		sock_close_reset(fd);
		t->o.ended(t->o.arg, fe);
		return error;
	}
	r = ledger_get(t->o.ledger, number);
	r->fd[CLIENT] = fd;
	r->frontend = (uint16_t)fe->conf->id;
	r->backend = (uint16_t)fe->backend->conf->id;
	ledger_addr_set(&r->client, client);
	r->accepted_ns = r->placed_ns = now;
	r->accepted_real_ns = realtime_ns();
	s = begin(t, number, fe, fe->backend);
	session_serve(s);
	if (s->dirs[SERVER].limit != t->o.tuning.begin)
		sock_limit(fd, s->dirs[SERVER].limit);

	stats_enter(&fe->stats, now_s);
	stats_enter(&fe->backend->stats, now_s);
	stat_add(t->o.stats->sessions, 1);
	stat_add(t->o.stats->current, 1);
	stat_max(t->o.stats->max, stat_get(t->o.stats->current));
	rate_add(&t->o.stats->rate, now_s);

	if (loop_watch(loop, &s->ends[CLIENT].poll, EPOLLRDHUP) < 0) {
		session_end(s, END_NO_RESOURCE);
		error = -ENOMEM;
	} else {
		session_choose(s, NULL);
	}
	session_served(t);
	return error;
}

uint32_t sessions_unsettled(const struct sessions *t)
{
	uint64_t number = (t->scratch->owner - 1) / 2; /* huge if there is no owner */

	return number >= t->first && number < t->first + t->max ? (uint32_t)number : t->first;
}

void session_adopt(struct sessions *t, uint32_t number, struct frontend *fe, struct backend *be)
{
	struct session *s = begin(t, number, fe, be);

	stats_reenter(&fe->stats);
	stats_reenter(&be->stats);
	stat_max(t->o.stats->max, stat_add(t->o.stats->current, 1) + 1);
	stat_add(t->o.stats->adopted, 1);
	session_resume(s);
	__atomic_store_n(&s->record->served, 0, __ATOMIC_RELEASE); /* what it may have read is accounted for */
	session_served(t);
}

int sessions_new(struct sessions **ret, const struct sessions_options *o)
{
	struct sessions *t = malloc(sizeof(*t));
	void *map;

	if (!t)
		return -ENOMEM;
	t->o = *o;
	t->count = 0;
	t->held = 0;
	t->first = ledger_first(o->ledger, o->thread);
	t->max = ledger_share(o->ledger, o->thread);
	t->table_size = (size_t)t->max * sizeof(struct session);
	map = mmap(NULL, t->table_size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		free(t);
		return -ENOMEM;
	}
	t->table = map;
	t->scratch = ledger_scratch(o->ledger, o->thread);
	if (o->pipe)
		relay_empty_pipe(t->scratch, o->pipe);
	t->serving = ledger_serving(o->ledger, o->thread);
	t->spare = -EBADF;
	sessions_keep_spare(t);
	session_mover_init(t);
	session_log_init(t);
	*ret = t;
	return 0;
}

struct sessions *sessions_free(struct sessions *t)
{
	if (t) {
		if (t->spare >= 0)
			close(t->spare);
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
	for (uint32_t i = 0; t->count && i < t->max; i++)
		if (t->table[i].record)
			session_end(&t->table[i], END_KILLED);
}

void sessions_each(struct sessions *t, void (*fn)(void *arg, const struct session_view *v),
		   void *arg)
{
	uint32_t left = t->count;

	for (uint32_t n = 0; left && n < t->max; n++) {
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
			.thread = t->o.thread,
			.splicing = s->joined,
		};
		for (int i = 0; i < 2; i++) {
			v.bytes[i] = session_bytes(s, i);
			v.held[i] = relay_held(&s->dirs[i].relay);
			v.choice[i] = s->dirs[i].choice;
			v.limit[i] = s->dirs[i].limit;
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
