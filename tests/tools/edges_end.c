/*
 * edges_end.c: the bytes of a stream, one end of a session, both ends moving, and what is expected
 * of them. Every byte that is read is compared here, and nowhere else; a scenario only says how
 * far.
 */
#include "edges.h"

/* ---- time, failure, notes ---- */

int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void fail(struct stage *st, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(st->failure, sizeof(st->failure), fmt, ap);
	va_end(ap);
	longjmp(st->bail, 1);
}

void note(struct stage *st, const char *fmt, ...)
{
	size_t used = strlen(st->note);
	va_list ap;

	if (used + sizeof(", ") > sizeof(st->note))
		return;
	va_start(ap, fmt);
	used += snprintf(st->note + used, sizeof(st->note) - used, "%s", used ? ", " : "");
	vsnprintf(st->note + used, sizeof(st->note) - used, fmt, ap);
	va_end(ap);
}

void need(struct stage *st, int ret, const char *what)
{
	if (ret < 0)
		fail(st, "%s: %s", what, strerror(errno));
}

void pause_ms(int ms)
{
	poll(NULL, 0, ms);
}

void set(struct stage *st, int fd, int level, int option, int value)
{
	need(st, setsockopt(fd, level, option, &value, sizeof(value)), "setsockopt");
}

/* ---- the bytes ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

void pattern(uint8_t *to, uint64_t seed, uint64_t at, size_t len)
{
	while (len) {
		uint64_t word = mix(mix(seed) + (at / 8 + 1) * 0x9e3779b97f4a7c15);
		size_t skip = at % 8, n = 8 - skip < len ? 8 - skip : len;

		memcpy(to, (uint8_t *)&word + skip, n);
		to += n;
		at += n;
		len -= n;
	}
}

/* Where in the first `limit` bytes of a stream these 12 bytes stand. */
static bool find_in_stream(struct stage *st, uint64_t seed, uint64_t limit, const uint8_t *these,
			   uint64_t *ret_at)
{
	uint8_t *hit;

	for (uint64_t at = 0; at < limit; at += CHUNK - 12) {
		pattern(st->want, seed, at, CHUNK);
		hit = memmem(st->want, CHUNK, these, 12);
		if (hit) {
			*ret_at = at + (hit - st->want);
			return true;
		}
	}
	return false;
}

__attribute__((noreturn)) static void fail_wrong(struct end *e, size_t n)
{
	struct stage *st = e->stage;
	const uint8_t *these;
	uint64_t pos, at;
	size_t bad = 0;
	uint8_t wanted;
	ssize_t more;

	while (st->buf[bad] == st->want[bad])
		bad++;
	wanted = st->want[bad];
	more = recv(e->fd, st->buf + n, CHUNK - n, 0);
	if (more > 0)
		n += more; /* the more of it, the easier to recognise */
	these = st->buf + bad;
	pos = e->got + bad;
	if (n - bad >= 12) {
		if (find_in_stream(st, e->peer->seed, e->peer->sent, these, &at))
			fail(st,
			     "%s: after %" PRIu64 " right bytes come those of position %" PRIu64
			     ": %" PRIu64 " bytes %s",
			     e->name, pos, at, at > pos ? at - pos : pos - at,
			     at > pos ? "lost or late" : "repeated or late");
		if (find_in_stream(st, e->seed, e->sent, these, &at))
			fail(st,
			     "%s: after %" PRIu64 " right bytes come its own, of position %" PRIu64,
			     e->name, pos, at);
		for (uint64_t seed = 1; seed <= st->last_seed; seed++) {
			uint64_t limit = seed + 8 > st->last_seed ? MB(16) : CHUNK;

			if (find_in_stream(st, seed, limit, these, &at))
				fail(st,
				     "%s: after %" PRIu64
				     " right bytes come those of another session "
				     "(stream %" PRIu64 " of %" PRIu64 ", position %" PRIu64 ")",
				     e->name, pos, seed, st->last_seed, at);
		}
	}
	fail(st, "%s: after %" PRIu64 " right bytes comes 0x%02x instead of 0x%02x", e->name, pos,
	     st->buf[bad], wanted);
}

/* ---- one end ---- */

static void end_failed(struct end *e, int error)
{
	e->error = error;
	e->error_at_us = now_us();
}

/* Returns whether the stream can go on at once. */
static bool read_once(struct end *e)
{
	struct stage *st = e->stage;
	uint64_t left = e->read_goal - e->got;
	ssize_t n;

	n = recv(e->fd, st->buf, left < CHUNK ? left : CHUNK, 0);
	if (n < 0) {
		if (errno != EAGAIN && !e->error)
			end_failed(e, errno);
		return false;
	}
	if (n == 0) {
		/* after the error, which the kernel tells once, a broken stream ends like that too
		 */
		if (!e->error)
			e->eof = true;
		return false;
	}
	if (e->got + n > e->peer->sent)
		fail(st, "%s: got %" PRIu64 " bytes where only %" PRIu64 " were sent", e->name,
		     e->got + n, e->peer->sent);
	pattern(st->want, e->peer->seed, e->got, n);
	if (memcmp(st->buf, st->want, n))
		fail_wrong(e, n);
	e->got += n;
	return true;
}

void half_close(struct end *e)
{
	e->fin_wanted = false;
	if (shutdown(e->fd, SHUT_WR) < 0 && !e->error)
		end_failed(e, errno);
}

static void send_once(struct end *e)
{
	struct stage *st = e->stage;
	uint64_t left = e->send_goal - e->sent;
	ssize_t n;

	if (left) {
		if (left > e->send_chunk)
			left = e->send_chunk;
		pattern(st->buf, e->seed, e->sent, left);
		n = send(e->fd, st->buf, left, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN) {
			end_failed(e, errno);
			/* The kernel has told its error; what still can be read must be right. */
			e->read_goal = TO_THE_END;
			while (!e->eof && read_once(e))
				;
			return;
		}
		if (n > 0)
			e->sent += n;
	}
	if (e->fin_wanted && e->sent == e->send_goal)
		half_close(e);
}

static bool wants_read(const struct end *e)
{
	return e->fd >= 0 && !e->eof && !e->error && e->got < e->read_goal;
}

bool wants_send(const struct end *e)
{
	return e->fd >= 0 && !e->error && (e->sent < e->send_goal || e->fin_wanted);
}

/* ---- both ends ---- */

static uint64_t progress(const struct session *s)
{
	const struct end *c = &s->ends[CLIENT], *v = &s->ends[SERVER];

	return c->sent + c->got + c->eof + !!c->error + !c->fin_wanted + v->sent + v->got + v->eof +
	       !!v->error + !v->fin_wanted;
}

bool step(struct session *s, int wait_ms)
{
	uint64_t before = progress(s);
	struct pollfd p[2];

	for (int i = 0; i < 2; i++) {
		struct end *e = &s->ends[i];

		p[i].events = (wants_read(e) ? POLLIN : 0) | (wants_send(e) ? POLLOUT : 0);
		p[i].fd = p[i].events ? e->fd : -1;
	}
	if (poll(p, 2, wait_ms) <= 0)
		return false;
	for (int i = 0; i < 2; i++) {
		struct end *e = &s->ends[i];

		if (p[i].revents && wants_read(e))
			read_once(e);
		if (p[i].revents & ~POLLIN && wants_send(e))
			send_once(e);
	}
	return progress(s) != before;
}

static const char *end_text(const struct end *e, char *to, size_t size)
{
	int n = snprintf(to, size, "%s sent %" PRIu64, e->name, e->sent);

	if (e->send_goal != e->sent && e->send_goal != TO_THE_END)
		n += snprintf(to + n, size - n, " of %" PRIu64, e->send_goal);
	n += snprintf(to + n, size - n, ", got %" PRIu64 " of %" PRIu64, e->got, e->peer->sent);
	if (e->eof)
		n += snprintf(to + n, size - n, ", clean EOF");
	if (e->error)
		n += snprintf(to + n, size - n, ", %s", strerror(e->error));
	return to;
}

void fail_state(struct session *s, const char *what)
{
	struct stage *st = s->ends[CLIENT].stage;
	char c[200], v[200];

	fail(st, "%s, but %s (%s; %s)", st->expected, what,
	     end_text(&s->ends[CLIENT], c, sizeof(c)), end_text(&s->ends[SERVER], v, sizeof(v)));
}

static void __attribute__((noreturn)) fail_stalled(struct session *s)
{
	s->ends[CLIENT].stage->stalls++;
	fail_state(s, "nothing moved any more");
}

static void check_unbroken(struct session *s)
{
	for (int i = 0; i < 2; i++) {
		const struct end *e = &s->ends[i];
		bool reads = e->read_goal != TO_THE_END && e->got < e->read_goal;
		bool sends = e->send_goal != TO_THE_END && e->sent < e->send_goal;

		if (e->fd >= 0 && e->read_goal != TO_THE_END && ((reads && e->eof) || e->error) &&
		    (reads || sends))
			fail_state(s, i == CLIENT ? "the client's stream ended early"
						  : "the server's stream ended early");
	}
}

void flow(struct end *e)
{
	while (wants_read(e) || wants_send(e)) {
		if (!step(e->session, e->stage->patience_ms))
			fail_stalled(e->session);
		check_unbroken(e->session);
	}
}

bool flow_until_stuck(struct session *s, int quiet_ms)
{
	struct end *c = &s->ends[CLIENT], *v = &s->ends[SERVER];

	while (wants_read(c) || wants_send(c) || wants_read(v) || wants_send(v)) {
		if (!step(s, quiet_ms))
			return false;
		check_unbroken(s);
	}
	return true;
}

void flow_for(struct session *s, int ms)
{
	int64_t until = now_us() + ms * 1000, left;

	while ((left = (until - now_us()) / 1000) > 0)
		step(s, left);
}

void say(struct end *e, uint64_t n)
{
	e->send_goal += n;
}

void say_last(struct end *e, uint64_t n)
{
	say(e, n);
	e->fin_wanted = true;
}

void say_no_more(struct end *e)
{
	e->send_goal = e->sent;
}

void hear(struct end *e, uint64_t n)
{
	e->stage->expected = "more bytes expected";
	e->read_goal = e->got + n;
	flow(e);
}

void deliver(struct session *s)
{
	struct end *c = &s->ends[CLIENT], *v = &s->ends[SERVER];

	c->stage->expected = "all bytes expected to arrive";
	c->read_goal = v->send_goal;
	v->read_goal = c->send_goal;
	flow(c);
	flow(v);
}

void exchange(struct session *s, uint64_t from_client, uint64_t from_server)
{
	say(&s->ends[CLIENT], from_client);
	say(&s->ends[SERVER], from_server);
	deliver(s);
}

void expect_eof(struct end *e)
{
	e->stage->expected = e->session->ends[CLIENT].name == e->name
				     ? "client expected all bytes and a clean EOF"
				     : "server expected all bytes and a clean EOF";
	e->read_goal = TO_THE_END;
	flow(e);
	if (e->error)
		fail_state(e->session, "the stream broke");
	if (e->got != e->peer->sent)
		fail_state(e->session, "the clean EOF came early");
}

void close_end(struct end *e)
{
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
	e->send_goal = e->sent;
	e->read_goal = e->got;
	e->fin_wanted = false;
}

void finish(struct end *first)
{
	struct end *second = first->peer;
	struct pollfd early = {.fd = first->fd, .events = POLLIN};

	half_close(first);
	expect_eof(second);
	if (poll(&early, 1, 0) != 0)
		fail_state(first->session, "an end of stream came that nobody had sent");
	half_close(second);
	expect_eof(first);
	close_end(first);
	close_end(second);
}

void reset(struct end *e)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	need(e->stage, setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), "SO_LINGER");
	e->stage->reset_at_us = now_us();
	close_end(e);
}

void reset_seen_within(struct end *e, int limit_ms)
{
	double ms = (e->error_at_us - e->stage->reset_at_us) / 1000.0;

	if (ms > limit_ms)
		fail(e->stage, "%s: reset seen only after %.1f ms, limit %d", e->name, ms,
		     limit_ms);
	note(e->stage, "reset seen after %.1f ms", ms);
}

void expect_reset(struct end *e, int limit_ms)
{
	e->stage->expected = e->session->ends[CLIENT].name == e->name ? "client expected a reset"
								      : "server expected a reset";
	e->read_goal = TO_THE_END;
	flow(e);
	if (e->eof || e->error != ECONNRESET)
		fail_state(e->session, "the stream ended in another way");
	if (limit_ms)
		reset_seen_within(e, limit_ms);
	close_end(e);
}

bool error_pending(struct end *e, int ms)
{
	struct pollfd p = {.fd = e->fd, .events = 0};
	int64_t until = now_us() + ms * 1000, left;

	while ((left = (until - now_us()) / 1000) > 0 && poll(&p, 1, left) > 0) {
		if (p.revents & POLLERR) {
			e->error_at_us = now_us();
			return true;
		}
		pause_ms(1); /* POLLHUP without an error: both directions have ended */
	}
	return false;
}

void expect_reset_after_eof(struct end *e)
{
	socklen_t len = sizeof(e->error);

	e->stage->expected = "a reset expected after the half-close";
	if (!error_pending(e, 2 * RESET_LIMIT_MS))
		fail_state(e->session, "none came within 1 s");
	getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &e->error, &len);
	if (e->error != EPIPE && e->error != ECONNRESET)
		fail_state(e->session, "another error came");
	reset_seen_within(e, RESET_LIMIT_MS);
	close_end(e);
}
