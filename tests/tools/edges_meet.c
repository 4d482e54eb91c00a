/*
 * edges_meet.c: the server's listener, and how sessions begin: at once, early, late, never.
 */
#include "edges.h"

static int new_socket(struct stage *st, int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	need(st, fd, "socket");
	return fd;
}

void close_back(struct stage *st)
{
	if (st->filler >= 0)
		close(st->filler);
	if (st->listener >= 0)
		close(st->listener);
	st->filler = st->listener = -1;
}

void listen_back(struct stage *st, int rcvbuf)
{
	close_back(st);
	st->listener = new_socket(st, st->back.ss_family);
	set(st, st->listener, SOL_SOCKET, SO_REUSEADDR, 1);
	if (rcvbuf)
		set(st, st->listener, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	need(st, bind(st->listener, (struct sockaddr *)&st->back, st->back_len), "bind to --back");
	need(st, listen(st->listener, 256), "listen");
}

struct session *fresh(struct stage *st, unsigned int i)
{
	struct session *s = &st->sessions[i];

	for (int side = 0; side < 2; side++)
		s->ends[side] = (struct end){
			.stage = st,
			.session = s,
			.peer = &s->ends[!side],
			.name = side == CLIENT ? "client" : "server",
			.fd = -1,
			.seed = ++st->last_seed,
			.send_chunk = CHUNK,
		};
	return s;
}

int try_call(struct session *s, int rcvbuf)
{
	struct end *c = &s->ends[CLIENT];
	struct stage *st = c->stage;
	struct pollfd p = {.events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof(error);

	p.fd = c->fd = new_socket(st, st->front.ss_family);
	set(st, c->fd, SOL_SOCKET, SO_OOBINLINE, 1);
	if (rcvbuf)
		set(st, c->fd, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	if (connect(c->fd, (struct sockaddr *)&st->front, st->front_len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	if (poll(&p, 1, st->patience_ms) <= 0)
		return ETIMEDOUT;
	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return error;
}

struct session *call(struct stage *st, unsigned int i, int rcvbuf)
{
	struct session *s = fresh(st, i);
	int error = try_call(s, rcvbuf);

	if (error)
		fail(st, "the client cannot connect to --front: %s", strerror(error));
	return s;
}

bool try_answer(struct session *s, int wait_ms)
{
	struct end *v = &s->ends[SERVER];
	struct stage *st = v->stage;
	struct pollfd p = {.fd = st->listener, .events = POLLIN};

	if (v->fd >= 0)
		return true;
	if (poll(&p, 1, wait_ms) <= 0)
		return false;
	pause_ms(st->accept_delay_ms);
	v->fd = accept4(st->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	need(st, v->fd, "accept");
	set(st, v->fd, SOL_SOCKET, SO_OOBINLINE, 1);
	return true;
}

void answer(struct session *s)
{
	struct stage *st = s->ends[SERVER].stage;

	if (try_answer(s, st->patience_ms))
		return;
	st->stalls++;
	fail(st, "no connection came to --back within %d ms", st->patience_ms);
}

struct session *meet(struct stage *st)
{
	struct session *s = call(st, 0, 0);

	answer(s);
	return s;
}

struct end *meet_early(struct stage *st, enum side who)
{
	struct session *s = call(st, 0, 0);

	if (who == SERVER)
		answer(s);
	return &s->ends[who];
}

unsigned int pick_up(struct session *s, bool strict)
{
	struct end *c = &s->ends[CLIENT], *v = &s->ends[SERVER];
	struct stage *st = v->stage;
	uint8_t first[8], want[8];
	unsigned int strangers = 0;
	struct pollfd p;
	ssize_t n;

	say(c, sizeof(want));
	flow(c);
	pattern(want, c->seed, 0, sizeof(want));
	for (;; strangers++) {
		answer(s);
		p = (struct pollfd){.fd = v->fd, .events = POLLIN};
		n = poll(&p, 1, 1000) > 0 ? recv(v->fd, first, sizeof(first), MSG_PEEK) : -1;
		if (n > 0 && !memcmp(first, want, n)) {
			deliver(s);
			return strangers;
		}
		if (strict && !(n < 0 && errno == ECONNRESET))
			fail(st, "the client was gone by a reset, but the server's side of it %s",
			     n > 0    ? "got bytes"
			     : n == 0 ? "ended cleanly"
				      : "stayed open");
		close(v->fd);
		v->fd = -1;
	}
}

void hang_connects(struct stage *st)
{
	need(st, listen(st->listener, 0), "listen");
	st->filler = new_socket(st, st->back.ss_family);
	if (connect(st->filler, (struct sockaddr *)&st->back, st->back_len) < 0 &&
	    errno != EINPROGRESS)
		need(st, -1, "connect");
}

void unhang_connects(struct stage *st)
{
	struct pollfd p = {.fd = st->listener, .events = POLLIN};

	need(st, listen(st->listener, 256), "listen");
	if (poll(&p, 1, PATIENCE_MS) > 0)
		close(accept(st->listener, NULL, NULL));
	close(st->filler);
	st->filler = -1;
}
