/* SPDX-License-Identifier: GPL-2.0-or-later */
/* session_connect.c - see session_state.h. */
#include "session_state.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define TURN_AROUND_MS 1000u /* before the same server is tried again, as in HAProxy */
#define SCARCE_PAUSE_MS 100  /* before somebody without a descriptor looks for one again */

enum splice_mode session_splice_mode(const struct session *s, int direction)
{
	const struct config_proxy *fe = s->frontend->conf, *be = s->backend->conf;
	enum splice_mode a = direction == 0 ? fe->splice_request : fe->splice_response;
	enum splice_mode b = direction == 0 ? be->splice_request : be->splice_response;

	if (a == SPLICE_ON || b == SPLICE_ON)
		return SPLICE_ON;
	return a == SPLICE_OFF || b == SPLICE_OFF ? SPLICE_OFF : SPLICE_AUTO;
}

/* What speaks against the kernel from the beginning. */
static enum splice_fallback hindrance(const struct session *s)
{
	if (s->splice[0] == SPLICE_OFF && s->splice[1] == SPLICE_OFF)
		return FALLBACK_OFF;
	if (!s->table->o.splice)
		return FALLBACK_UNAVAILABLE;
	if (s->dirs[CLIENT].eof || s->dirs[SERVER].eof)
		return FALLBACK_HALF_CLOSED;
	return FALLBACK_NONE;
}

int session_tune(struct session *s)
{
	const struct sock_tuning *t = &s->table->o.tuning;
	int fd = s->ends[SERVER].poll.fd, r = 0;

	if (s->tuned)
		return 0;
	r = sock_tune(fd, t);
	if (r == 0 && s->dirs[CLIENT].limit != t->begin)
		r = sock_limit(fd, s->dirs[CLIENT].limit);
	s->tuned = r == 0;
	return r;
}

void session_after_join(struct session *s, const struct splice_end ends[2], int r)
{
	struct process_stats *stats = s->table->o.stats;
	enum splice_fallback fallback = fallback_of(r);

	for (int i = 0; i < 2; i++) {
		s->record->cookie[i] = ends[i].cookie;
		flow_set(flow_of(s, i), limit, s->dirs[i].limit);
	}
	s->record->fallback = fallback;
	if (fallback == FALLBACK_NONE) {
		for (int i = 0; i < 2; i++)
			if (s->splice[i] != SPLICE_OFF)
				session_loosen(s, i);
		s->joined = true;
		set_state(s, LEDGER_SPLICED);
		stat_add(stats->joined, 1);
	} else {
		set_state(s, LEDGER_RELAY);
		stat_add(stats->fallback[fallback], 1);
	}
}

enum splice_fallback session_join(struct session *s)
{
	struct sessions *t = s->table;
	enum splice_fallback fallback = hindrance(s);
	struct splice_end ends[2];
	int r;

	/* Refused or not: nobody else may come to it. */
	r = session_tune(s);
	if (fallback == FALLBACK_NONE)
		fallback = fallback_of(r);
	/* A FIN that is not read yet: asked before, so that no socket is in the map without its
	 * peer. */
	for (int i = 0; fallback == FALLBACK_NONE && i < 2; i++)
		if (!sock_is_established(s->ends[i].poll.fd))
			fallback = FALLBACK_HALF_CLOSED;
	for (int i = 0; fallback == FALLBACK_NONE && i < 2; i++) {
		ends[i] = (struct splice_end){
			.fd = s->ends[i].poll.fd,
			/* All that was ever written to this end; the SYN of our own connect counts
			   as one. */
			.extra = s->record->relayed[!i] + (i == SERVER ? 1 : 0),
			.want_kernel = s->splice[i] != SPLICE_OFF,
			.sample = s->splice[i] == SPLICE_AUTO ? choose_sample : 0,
		};
	}
	if (fallback == FALLBACK_NONE) {
		set_state(s, LEDGER_JOINING);
		r = splice_join(t->o.splice, s->number, t->o.thread, ends,
				MIN(s->dirs[0].limit, s->dirs[1].limit));
		session_after_join(s, ends, r);
		return s->record->fallback;
	}
	s->record->fallback = fallback;
	stat_add(t->o.stats->fallback[fallback], 1);
	return fallback;
}

void session_connected(struct session *s)
{
	struct sessions *t = s->table;
	uint64_t now = loop_now(t->o.loop);

	loop_timer_clear(t->o.loop, &s->timer);
	s->record->connected_ns = s->active_ns = now;
	set_state(s, LEDGER_RELAY);
	for (int i = 0; i < 2; i++) {
		s->splice[i] = (uint8_t)session_splice_mode(s, i);
		/* What belongs to the kernel is to go on without us: it has its whole limit from
		 * the beginning. (The server's socket is told when it is tuned.) */
		if (s->splice[i] == SPLICE_ON &&
		    (i == CLIENT || sock_limit(s->ends[CLIENT].poll.fd, t->o.tuning.limit) == 0))
			s->dirs[i].limit = t->o.tuning.limit;
	}
	s->record->fallback = hindrance(s);
	if (s->record->fallback == FALLBACK_NONE) {
		s->record->fallback = FALLBACK_CHOICE;
		if (s->splice[0] == SPLICE_ON || s->splice[1] == SPLICE_ON)
			session_join(s);
		if (s->record->fallback == FALLBACK_CHOICE || s->joined)
			session_begin_choosing(s);
	} else {
		stat_add(t->o.stats->fallback[s->record->fallback], 1);
		session_tune(s); /* no join will do it, and it may never write again */
	}
	if (!s->joined) {
		/* A FIN may be known already, but it is not read yet: recv() will say it in its
		 * turn. */
		s->dirs[CLIENT].eof = s->dirs[SERVER].eof = false;
		s->record->eof[CLIENT] = s->record->eof[SERVER] = 0;
	}
	session_arm_idle(s);
	session_run(s, CLIENT);
	session_run(s, SERVER);
	session_update(s);
}

void session_leave_server(struct session *s)
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
	int fd = e->poll.fd;

	if (fd < 0)
		return;
	s->tuned = false;
	loop_forget(s->table->o.loop, &e->poll);
	e->poll.fd = s->record->fd[SERVER] = -1; /* from now on its number may be somebody else's */
	close(fd);
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
void session_connect_failed(struct session *s, int error)
{
	const struct config_proxy *conf = s->backend->conf;
	struct loop *loop = s->table->o.loop;
	struct server *server = s->server;
	bool timeout = error == ETIMEDOUT;

	loop_timer_clear(loop, &s->timer);
	close_server(s);
	stat_add(s->table->o.stats->connections_failed, 1);
	stat_add(server->stats.connect_errors, 1);
	stat_add(s->backend->stats.connect_errors, 1);
	log_debug("session %lu: server %s/%s: connect: %s", (unsigned long)s->record->serial,
		  conf->name, server->conf->name, strerror(error));
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
		session_arm_timer(s, loop_now(loop) + MIN(TURN_AROUND_MS,
							  conf->timeout.connect ?: TURN_AROUND_MS) *
							      NS_PER_MS);
		return;
	}
	if (pool_tried_add(&s->tried, s->backend, server->conf->id - 1) < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	session_leave_server(s);
	session_choose(s, server);
}

/* No descriptor is left, not even the spare one: sessions that end give theirs back. The timer of a
 * session that is connecting without a socket connects again. */
static void wait_for_descriptor(struct session *s)
{
	uint64_t now = loop_now(s->table->o.loop), ms = s->backend->conf->timeout.connect;

	s->scarce_ns = s->scarce_ns ?: now;
	if (now >= s->scarce_ns + ms * NS_PER_MS)
		session_end(s, END_NO_RESOURCE);
	else
		session_arm_timer(s, now + SCARCE_PAUSE_MS * NS_PER_MS);
}

void session_connect(struct session *s)
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
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && t->spare >= 0) {
		close(t->spare);
		t->spare = -EBADF;
		fd = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	}
	if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
		wait_for_descriptor(s);
		return;
	}
	if (fd < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	s->scarce_ns = 0;
	e->poll.fd = s->record->fd[SERVER] = fd;
	r = sock_prepare(fd);
	if (r == 0 && connect(fd, &to->sa, addr_len(to)) < 0 && errno != EINPROGRESS)
		r = -errno;
	if (r < 0) {
		session_connect_failed(s, -r);
		return;
	}
	if (loop_watch(t->o.loop, &e->poll, EPOLLOUT | EPOLLRDHUP) < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	if (timeout)
		session_arm_timer(s, loop_now(t->o.loop) + timeout * NS_PER_MS);
}

/* Gets a server, or a place in the queue, or the end. failed is the server that has just refused,
 * NULL at first. */
void session_choose(struct session *s, struct server *failed)
{
	struct loop *loop = s->table->o.loop;
	const struct config_timeouts *timeout = &s->backend->conf->timeout;
	uint32_t ms = timeout->queue ?: timeout->connect;
	bool queued = s->wait.waiting;
	int r;

	pool_lock(s->backend); /* who finds no place is in the queue before one can become free */
	r = pool_pick(s->backend, &s->tried, queued, loop_now(loop) / NS_PER_SEC, &s->server);
	if (r == -EAGAIN && !queued) {
		s->queue_before = stat_get(s->backend->stats.queued);
		pool_wait(s->backend, &s->wait);
	}
	pool_unlock(s->backend);

	/* Who has to wait anyway may as well go back to a server that refused before, but not at
	 * once. */
	if (r == -EAGAIN && s->tried.bits) {
		pool_tried_done(&s->tried);
		if (loop_timer_set(loop, &s->retry, loop_now(loop) + TURN_AROUND_MS * NS_PER_MS) <
		    0) {
			session_end(s, END_NO_RESOURCE);
			return;
		}
	}
	if (r == 0) {
		if (queued) {
			pool_unwait(s->backend, &s->wait);
			loop_timer_clear(loop, &s->timer);
			s->record->placed_ns = loop_now(loop);
			s->record->queued_ns = 0;
			pool_wake(s->backend); /* there may be another place */
		}
		if (failed) {
			s->record->redispatched = true;
			stat_add(failed->stats.redispatches, 1);
			stat_add(s->backend->stats.redispatches, 1);
		}
		session_connect(s);
	} else if (r == -EAGAIN) {
		if (queued)
			return; /* it keeps its place in the line, and its timer */
		s->record->queued_ns = s->record->queued_ns ?: loop_now(loop);
		set_state(s, LEDGER_QUEUED);
		if (ms)
			session_arm_timer(s, s->record->queued_ns + ms * NS_PER_MS);
	} else {
		if (failed)
			s->record->retries--; /* nobody was left to try */
		session_end(s, s->why);
	}
}

static void on_placed(struct later *l)
{
	struct session *s = container_of(l, struct session, placed);

	if (s->ended || s->record->state != LEDGER_QUEUED)
		return;
	session_serve(s);
	session_choose(s, NULL);
	session_served(s->table);
}

/* Somebody has just left: after this turn, or a whole queue whose connects fail at once would end
 * in one another. */
static void on_place(struct pool_wait *w)
{
	struct session *s = container_of(w, struct session, wait);

	loop_post(s->table->o.loop, &s->placed);
}

void session_connect_init(struct session *s)
{
	later_init(&s->placed, on_placed);
	list_init(&s->wait.entry);
	s->wait.fn = on_place;
}

void session_unqueue(struct session *s)
{
	if (s->wait.waiting) {
		pool_unwait(s->backend, &s->wait);
		pool_wake(s->backend); /* if it was called already, the next one is */
	}
	loop_unpost(s->table->o.loop, &s->placed);
}
