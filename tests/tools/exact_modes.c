/*
 * The plain modes of exact: sink, source, echo listen; fetch, push, ping and hold connect to them.
 *
 * Every mode is one step function: what a connection does when something may have changed. A step
 * either ends the connection (conn_done, conn_wrong; it is gone then) or says through conn_wait
 * what it waits for. Bulk is always the stream BULK_KEY from offset 0, so that both sides know it.
 */
#include "exact.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BULK_KEY 0x6b6c7562ULL
#define ROUNDS 4	/* receives or sends in one turn of the loop */
#define MAX_OPENING 256 /* connects under way at a time: no listener must overflow */
#define TEXT 512

/* What can be wrong with a connection. All of them count as errors. */
enum wrong {
	WRONG_CONNECT,
	WRONG_BYTES,
	WRONG_SHORT,
	WRONG_LONG,
	WRONG_RESET,
	WRONG_STUCK,
	WRONGS
};

static const char *const wrong_names[WRONGS] = {
	[WRONG_CONNECT] = "connect", [WRONG_BYTES] = "mismatch", [WRONG_SHORT] = "short",
	[WRONG_LONG] = "long",	     [WRONG_RESET] = "reset",	 [WRONG_STUCK] = "stuck",
};

enum phase { PHASE_OPENING, PHASE_FIRST, PHASE_HOLDING, PHASE_SECOND, PHASE_CLOSING };

/* One connection of any mode; each mode uses the fields that it needs. */
struct conn {
	struct watch w; /* first: the loop hands it back */
	struct conn *next, **prev;
	uint64_t id, key;
	uint64_t in, out; /* bytes received and sent */
	uint64_t rounds;  /* ping: finished round trips */
	uint64_t answer;  /* push: how much the sink says it got */
	uint8_t *rest;	  /* echo: owned; what could not be sent back yet */
	size_t rest_off, rest_len;
	int64_t start, resume, alive;
	int64_t sent_at; /* ping: when this round trip began */
	enum phase phase;
	bool shut, eof, paused;
};

static struct {
	const struct options *o;
	void (*step)(struct conn *c, uint32_t events);
	struct conn *conns;
	uint64_t open, opening, started, accepted, ok, ends, resets;
	uint64_t opened, unopened; /* hold: echoed their first byte, failed before that */
	uint64_t in, out, wrong[WRONGS];
	int64_t start, first_byte_ns;
	uint32_t *samples; /* ping: nanoseconds of each measured round trip */
	size_t nr_samples;
	bool holding;
	uint8_t buf[IO_SIZE];
} m;

/* --- connections --- */

static struct conn *conn_new(int fd, void (*io)(struct watch *, uint32_t),
			     void (*timer)(struct watch *))
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		die("out of memory");
	c->w.fd = fd;
	c->w.io = io;
	c->w.timer = timer;
	c->start = c->alive = now_ns();
	c->key = BULK_KEY;
	c->next = m.conns;
	c->prev = &m.conns;
	if (c->next)
		c->next->prev = &c->next;
	m.conns = c;
	m.open++;
	return c;
}

static void clients_next(void);

static void conn_done(struct conn *c, bool abort)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	m.opening -= c->phase == PHASE_OPENING;
	if (abort)
		watch_abort(&c->w);
	else
		watch_close(&c->w);
	free(c->rest);
	free(c);
	m.open--;
	if (m.o->connect.count)
		clients_next();
}

static __attribute__((format(printf, 3, 4))) void conn_wrong(struct conn *c, enum wrong wrong,
							     const char *fmt, ...)
{
	char text[TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	complain("%s: connection %" PRIu64 ": %s: %s (received %" PRIu64 ", sent %" PRIu64 ")",
		 m.o->mode, c->id, wrong_names[wrong], text, c->in, c->out);
	m.wrong[wrong]++;
	m.unopened += c->phase < PHASE_HOLDING;
	conn_done(c, true);
}

static void conn_reset(struct conn *c, int err)
{
	conn_wrong(c, WRONG_RESET, "%s", strerror(err));
}

/* Waits for events, or for c->resume when that is set. */
static void conn_wait(struct conn *c, uint32_t events)
{
	watch_want(&c->w, events);
	watch_at(&c->w, c->resume);
}

/* Is c resting? A reset or the end of everything wakes it up. */
static bool conn_rests(struct conn *c, uint32_t events)
{
	if (c->resume > now_ns() && !(events & (EPOLLERR | EPOLLHUP)))
		return true;
	c->resume = 0;
	return false;
}

/*
 * recv() into m.buf. Returns the number of bytes, 0 for end of stream, -EAGAIN when there is
 * nothing, or -errno when the connection is broken.
 */
static ssize_t conn_recv(struct conn *c, size_t want)
{
	ssize_t n = recv(c->w.fd, m.buf, want, 0);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	c->alive = now_ns();
	c->in += n;
	m.in += n;
	return n;
}

static ssize_t conn_send(struct conn *c, const void *buf, size_t len)
{
	ssize_t n = send(c->w.fd, buf, len, MSG_NOSIGNAL);

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	c->alive = now_ns();
	c->out += n;
	m.out += n;
	return n;
}

/* Checks the last n received bytes; false when they were wrong, and then c is gone. */
static bool conn_check(struct conn *c, size_t n)
{
	uint64_t off = c->in - n;
	size_t good = m.o->unchecked ? n : stream_check(c->key, off, m.buf, n);
	char text[TEXT] = "";
	uint8_t want;

	if (good == n)
		return true;
	off += good;
	stream_fill(c->key, off, &want, 1);
	if (complaining())
		stream_explain(c->key, off, m.buf + good, n - good, text, sizeof(text));
	conn_wrong(c, WRONG_BYTES, "offset %" PRIu64 ": expected 0x%02x, got 0x%02x%s", off, want,
		   m.buf[good], text);
	return false;
}

/* Sends the stream up to `until`, a few chunks at most. 0, also when there is more, or -errno. */
static int conn_stream(struct conn *c, uint64_t until)
{
	size_t len;
	ssize_t n;
	int i;

	for (i = 0; i < ROUNDS && c->out < until; i++) {
		len = until - c->out < IO_SIZE ? until - c->out : IO_SIZE;
		if (!m.o->unchecked)
			stream_fill(c->key, c->out, m.buf, len);
		n = conn_send(c, m.buf, len);
		if (n < 0)
			return n == -EAGAIN ? 0 : n;
		if ((size_t)n < len)
			return 0;
	}
	return 0;
}

/* Sends the end of stream. False when the connection turned out to be reset; c is gone then. */
static bool conn_shut(struct conn *c)
{
	c->shut = true;
	if (shutdown(c->w.fd, SHUT_WR) == 0)
		return true;
	conn_reset(c, ECONNRESET);
	return false;
}

/* --rate: rests until `done` bytes are due. How much may be moved at once is up to the caller. */
static void conn_pace(struct conn *c, uint64_t done)
{
	int64_t due = c->start + (int64_t)((double)done * NS_PER_SEC / m.o->rate);

	if (due > now_ns())
		c->resume = due;
}

static uint64_t pace_chunk(void)
{
	return m.o->rate < 100 ? 1 : m.o->rate / 100 < IO_SIZE ? m.o->rate / 100 : IO_SIZE;
}

/* --pause-after: how much may be read before the pause; begins the pause when that is nothing. */
static uint64_t until_pause(struct conn *c)
{
	int64_t pause = (int64_t)m.o->pause_ms * NS_PER_MS;

	if (c->paused || !m.o->pause_ms)
		return UINT64_MAX;
	if (c->in < m.o->pause_after)
		return m.o->pause_after - c->in;
	c->paused = true;
	c->resume = now_ns() + pause;
	c->start += pause;
	return 0;
}

static uint64_t errors(void)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < WRONGS; i++)
		sum += m.wrong[i];
	return sum;
}

static void conns_free(void)
{
	struct conn *c;

	while (m.conns) {
		c = m.conns;
		m.conns = c->next;
		if (c->next)
			c->next->prev = &m.conns;
		watch_abort(&c->w);
		free(c->rest);
		free(c);
	}
}

static void conn_timer(struct watch *w)
{
	m.step((struct conn *)w, 0);
}

/* --- the modes that listen --- */

static void server_io(struct watch *w, uint32_t events)
{
	m.step((struct conn *)w, events);
}

static void server_accepted(int fd)
{
	struct conn *c = conn_new(fd, server_io, conn_timer);

	c->id = m.accepted++;
	c->phase = PHASE_FIRST;
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	watch_add(&c->w, EPOLLIN);
	m.step(c, 0);
}

static void server_line(char *text, size_t size)
{
	snprintf(text, size,
		 "connections=%" PRIu64 " open=%" PRIu64 " ends=%" PRIu64 " resets=%" PRIu64
		 " errors=%" PRIu64 " bytes_in=%" PRIu64 " bytes_out=%" PRIu64,
		 m.accepted, m.open, m.ends, m.resets, errors(), m.in, m.out);
}

static void server_second(void)
{
	char line[TEXT];

	server_line(line, sizeof(line));
	write_stats(m.o->stats, line);
}

static int server_run(const struct options *o, void (*step)(struct conn *, uint32_t))
{
	char line[TEXT];

	m.o = o;
	m.step = step;
	loop_init(NULL);
	server_second();
	listen_all(o, server_accepted);
	every_second(server_second);
	loop_run();
	server_line(line, sizeof(line));
	write_stats(o->stats, line);
	printf("%s\n", line);
	conns_free();
	return errors() ? 1 : 0;
}

/* A client that goes away with a reset is no fault, unless every byte was to be verified. */
static void server_broken(struct conn *c, int err)
{
	m.resets++;
	if (m.o->verify)
		conn_reset(c, err);
	else
		conn_done(c, true);
}

static void sink_step(struct conn *c, uint32_t events)
{
	uint64_t answer, want;
	ssize_t n;
	int i;

	if (conn_rests(c, events))
		return;
	for (i = 0; i < ROUNDS; i++) {
		want = until_pause(c);
		if (!want) {
			conn_wait(c, 0);
			return;
		}
		n = conn_recv(c, want < IO_SIZE ? want : IO_SIZE);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			server_broken(c, -n);
			return;
		}
		if (n > 0 && m.o->verify && !conn_check(c, n))
			return;
		if (n > 0)
			continue;
		m.ends++;
		answer = htole64(c->in);
		if (m.o->verify && conn_send(c, &answer, 8) != 8)
			conn_reset(c, EPIPE);
		else
			conn_done(c, false);
		return;
	}
	conn_wait(c, EPOLLIN);
}

static void source_step(struct conn *c, uint32_t events)
{
	ssize_t n = 0;
	int err, i;

	(void)events;
	err = conn_stream(c, m.o->bytes);
	if (err) {
		server_broken(c, -err);
		return;
	}
	if (c->out == m.o->bytes && !c->shut && !conn_shut(c))
		return;
	for (i = 0; i < ROUNDS && !c->eof; i++) {
		n = conn_recv(c, IO_SIZE);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			server_broken(c, -n);
			return;
		}
		c->eof = !n;
	}
	if (c->eof && c->shut) {
		m.ends++;
		conn_done(c, false);
		return;
	}
	if (c->eof && events & EPOLLERR) {
		server_broken(c, ECONNRESET);
		return;
	}
	conn_wait(c, (c->eof ? 0 : EPOLLIN) | (c->shut ? 0 : EPOLLOUT));
}

static void echo_step(struct conn *c, uint32_t events)
{
	ssize_t n, sent;
	int i;

	(void)events;
	if (c->rest) {
		n = conn_send(c, c->rest + c->rest_off, c->rest_len - c->rest_off);
		if (n < 0 && n != -EAGAIN) {
			server_broken(c, -n);
			return;
		}
		c->rest_off += n > 0 ? n : 0;
		if (c->rest_off < c->rest_len)
			return;
		free(c->rest);
		c->rest = NULL;
	}
	for (i = 0; i < ROUNDS; i++) {
		n = conn_recv(c, IO_SIZE);
		if (n == -EAGAIN)
			break;
		if (n == 0) {
			m.ends++;
			conn_done(c, false);
			return;
		}
		sent = n < 0 ? n : conn_send(c, m.buf, n);
		if (sent == -EAGAIN)
			sent = 0;
		if (sent < 0) {
			server_broken(c, -sent);
			return;
		}
		if (sent == n)
			continue;
		c->rest_len = n - sent;
		c->rest_off = 0;
		c->rest = malloc(c->rest_len);
		if (!c->rest)
			die("out of memory");
		memcpy(c->rest, m.buf + sent, c->rest_len);
		conn_wait(c, EPOLLOUT);
		return;
	}
	conn_wait(c, EPOLLIN);
}

int mode_sink(const struct options *o)
{
	return server_run(o, sink_step);
}

int mode_source(const struct options *o)
{
	return server_run(o, source_step);
}

int mode_echo(const struct options *o)
{
	return server_run(o, echo_step);
}

/* --- the modes that connect --- */

static void client_io(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	int err;

	if (c->phase == PHASE_OPENING) {
		err = socket_error(w->fd);
		if (err) {
			conn_wrong(c, WRONG_CONNECT, "%s", strerror(err));
			return;
		}
		c->phase = PHASE_FIRST;
		c->alive = now_ns();
		m.opening--;
		clients_next();
	}
	m.step(c, events);
}

/* Opens what is still to be opened, MAX_OPENING at a time; the last one to end stops the loop. */
static void clients_next(void)
{
	struct conn *c;
	int64_t start;
	int fd;

	while (m.started < m.o->connections && m.opening < MAX_OPENING) {
		start = now_ns();
		fd = connect_start(m.o, m.started, m.o->rcvbuf);
		if (fd < 0) {
			complain("%s: connection %" PRIu64 ": connect: %s", m.o->mode, m.started++,
				 strerror(-fd));
			m.wrong[WRONG_CONNECT]++;
			m.unopened++;
			continue;
		}
		c = conn_new(fd, client_io, conn_timer);
		c->id = m.started++;
		c->start = start;
		m.opening++;
		set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
		watch_add(&c->w, EPOLLOUT);
	}
	if (!m.open)
		loop_stop();
}

static void client_sweep(void)
{
	int64_t now = now_ns(), limit = now - (int64_t)m.o->timeout_s * NS_PER_SEC;
	struct conn *c, *next;

	for (c = m.conns; c; c = next) {
		next = c->next;
		if (c->alive < limit && c->resume < now && c->phase != PHASE_HOLDING)
			conn_wrong(c, WRONG_STUCK, "nothing moved for %" PRIu64 " s",
				   m.o->timeout_s);
	}
}

static void client_run(const struct options *o, void (*step)(struct conn *, uint32_t))
{
	m.o = o;
	m.step = step;
	loop_init(NULL);
	every_second(client_sweep);
	m.start = now_ns();
	clients_next();
	if (m.open)
		loop_run();
}

/* "connections=... ok=... connect=... mismatch=..." without a line end; then the exit status. */
static int client_result(void)
{
	int i;

	printf("connections=%" PRIu64 " ok=%" PRIu64, m.o->connections, m.ok);
	for (i = 0; i < WRONGS; i++)
		printf(" %s=%" PRIu64, wrong_names[i], m.wrong[i]);
	conns_free();
	return m.ok == m.o->connections ? 0 : 1;
}

static void client_ok(struct conn *c)
{
	m.ok++;
	conn_done(c, false);
}

static void fetch_step(struct conn *c, uint32_t events)
{
	uint64_t want;
	ssize_t n;
	int i;

	if (conn_rests(c, events))
		return;
	for (i = 0; i < ROUNDS && !c->resume; i++) {
		want = until_pause(c);
		if (!want)
			break;
		if (m.o->rate && want > pace_chunk())
			want = pace_chunk();
		n = conn_recv(c, want < IO_SIZE ? want : IO_SIZE);
		if (n == -EAGAIN)
			break;
		if (n < 0) {
			conn_reset(c, -n);
			return;
		}
		if (n == 0 && c->in == m.o->bytes) {
			client_ok(c);
			return;
		}
		if (n == 0) {
			conn_wrong(c, WRONG_SHORT,
				   "clean end of stream after %" PRIu64 " of %" PRIu64 " bytes",
				   c->in, m.o->bytes);
			return;
		}
		if ((uint64_t)n == c->in) {
			if (c->alive - c->start > m.first_byte_ns)
				m.first_byte_ns = c->alive - c->start;
			c->start = c->alive;
		}
		if (!conn_check(c, n))
			return;
		if (c->in > m.o->bytes) {
			conn_wrong(c, WRONG_LONG, "more than %" PRIu64 " bytes", m.o->bytes);
			return;
		}
		if (m.o->rate)
			conn_pace(c, c->in);
	}
	conn_wait(c, c->resume ? 0 : EPOLLIN);
}

/* What both bulk modes report. */
static int bulk_result(void)
{
	double seconds = (now_ns() - m.start) / 1e9;
	uint64_t bytes = m.o->mode[0] == 'f' ? m.in : m.out;
	int status = client_result();

	printf(" bytes=%" PRIu64 " seconds=%.3f mbit=%.1f", bytes, seconds,
	       bytes * 8 / seconds / 1e6);
	if (m.o->mode[0] == 'f')
		printf(" first_byte_ms=%.3f", (double)m.first_byte_ns / NS_PER_MS);
	printf("\n");
	return status;
}

int mode_fetch(const struct options *o)
{
	client_run(o, fetch_step);
	return bulk_result();
}

/* Returns false when c is gone. */
static bool push_read(struct conn *c)
{
	uint64_t want = m.o->no_answer ? 0 : 8, at = c->in;
	ssize_t n = conn_recv(c, 9), i;

	if (n == -EAGAIN)
		return true;
	if (n < 0) {
		conn_reset(c, -n);
		return false;
	}
	/* The answer may come in pieces. */
	for (i = 0; i < n && at < 8; i++, at++)
		c->answer |= (uint64_t)m.buf[i] << 8 * at;
	if (c->in > want)
		conn_wrong(c, WRONG_LONG, "more than the answer");
	else if (n && !c->shut)
		conn_wrong(c, WRONG_BYTES, "an answer before the end of stream");
	else if (n)
		return true;
	else if (!c->shut || c->in < want)
		conn_wrong(c, WRONG_SHORT,
			   "clean end of stream, %" PRIu64 " of %" PRIu64 " bytes sent", c->out,
			   m.o->bytes);
	else if (want && c->answer != m.o->bytes)
		conn_wrong(c, WRONG_BYTES, "the sink got %" PRIu64 " of %" PRIu64 " bytes",
			   c->answer, m.o->bytes);
	else
		client_ok(c);
	return false;
}

static void push_step(struct conn *c, uint32_t events)
{
	uint64_t until = m.o->bytes;
	int err;

	if (conn_rests(c, events))
		return;
	if (!push_read(c))
		return;
	if (!c->shut) {
		if (m.o->rate && until - c->out > pace_chunk())
			until = c->out + pace_chunk();
		err = conn_stream(c, until);
		if (err) {
			conn_reset(c, -err);
			return;
		}
		if (m.o->rate && c->out < m.o->bytes)
			conn_pace(c, c->out);
		if (c->out == m.o->bytes && !conn_shut(c))
			return;
	}
	conn_wait(c, c->resume ? 0 : EPOLLIN | (c->shut ? 0 : EPOLLOUT));
}

int mode_push(const struct options *o)
{
	client_run(o, push_step);
	return bulk_result();
}

/* Reads at the end: end of stream and nothing else. c may be gone afterwards. */
static void closing_step(struct conn *c)
{
	ssize_t n = conn_recv(c, 1);

	if (n == -EAGAIN)
		conn_wait(c, EPOLLIN);
	else if (n > 0)
		conn_wrong(c, WRONG_LONG, "bytes that nobody sent");
	else if (n < 0)
		conn_reset(c, -n);
	else
		client_ok(c);
}

/* One round trip is over. False when it was the last one. */
static bool ping_round(struct conn *c)
{
	int64_t took = c->alive - c->sent_at;

	if (c->rounds++ >= m.o->warmup) {
		if (!m.nr_samples)
			m.start = c->sent_at;
		m.samples[m.nr_samples++] = took < UINT32_MAX ? took : UINT32_MAX;
	}
	c->sent_at = 0;
	if (c->rounds == m.o->warmup + m.o->count)
		return false;
	if (m.o->interval_us)
		c->resume = now_ns() + (int64_t)m.o->interval_us * 1000;
	return true;
}

static void ping_step(struct conn *c, uint32_t events)
{
	uint64_t until;
	ssize_t n;
	int err, i;

	if (conn_rests(c, events))
		return;
	if (c->phase == PHASE_CLOSING) {
		closing_step(c);
		return;
	}
	c->key = mix64(BULK_KEY + c->id);
	for (i = 0; i < 2 * ROUNDS && !c->resume; i++) {
		until = (c->rounds + 1) * m.o->size;
		if (!c->sent_at)
			c->sent_at = c->alive = now_ns();
		err = conn_stream(c, until);
		if (err) {
			conn_reset(c, -err);
			return;
		}
		n = conn_recv(c, IO_SIZE);
		if (n == -EAGAIN && c->out < until)
			break;
		if (n == -EAGAIN) {
			conn_wait(c, EPOLLIN);
			return;
		}
		if (n < 0) {
			conn_reset(c, -n);
			return;
		}
		if (n == 0) {
			conn_wrong(c, WRONG_SHORT,
				   "clean end of stream after %" PRIu64 " round trips", c->rounds);
			return;
		}
		if (!conn_check(c, n))
			return;
		if (c->in > c->out) {
			conn_wrong(c, WRONG_LONG, "bytes that were not sent yet");
			return;
		}
		if (c->in < until || ping_round(c))
			continue;
		c->phase = PHASE_CLOSING;
		if (conn_shut(c))
			closing_step(c);
		return;
	}
	until = (c->rounds + 1) * m.o->size;
	conn_wait(c, c->resume ? 0 : EPOLLIN | (c->out < until ? EPOLLOUT : 0));
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double percentile(unsigned int per_mille)
{
	size_t at = m.nr_samples * (uint64_t)per_mille / 1000;

	if (!m.nr_samples)
		return 0;
	return m.samples[at < m.nr_samples ? at : m.nr_samples - 1] / 1e3;
}

int mode_ping(const struct options *o)
{
	double seconds;
	int status;

	m.samples = calloc(o->connections * o->count, sizeof(*m.samples));
	if (!m.samples)
		die("out of memory");
	client_run(o, ping_step);
	seconds = (now_ns() - m.start) / 1e9;
	qsort(m.samples, m.nr_samples, sizeof(*m.samples), compare);
	status = client_result();
	printf(" count=%zu p50_us=%.1f p99_us=%.1f p999_us=%.1f max_us=%.1f seconds=%.3f"
	       " per_second=%.0f\n",
	       m.nr_samples, percentile(500), percentile(990), percentile(999), percentile(1000),
	       seconds, m.nr_samples / seconds);
	free(m.samples);
	return status;
}

static void hold_over(struct watch *w)
{
	struct conn *c, *next;

	(void)w;
	for (c = m.conns; c; c = next) {
		next = c->next;
		c->phase = PHASE_SECOND;
		c->alive = now_ns();
		m.step(c, 0);
	}
}

/* All that could be opened are open: from now on they are only held. */
static void hold_begin(void)
{
	static struct watch w = {.fd = -1, .timer = hold_over};

	if (m.holding || m.opened + m.unopened < m.o->connections)
		return;
	m.holding = true;
	printf("holding\n");
	fflush(stdout);
	watch_at(&w, now_ns() + (int64_t)m.o->seconds * NS_PER_SEC + 1);
}

static void hold_step(struct conn *c, uint32_t events)
{
	uint64_t due;
	ssize_t n;
	int err;

	(void)events;
	if (c->phase == PHASE_CLOSING) {
		closing_step(c);
		return;
	}
	due = c->phase == PHASE_SECOND ? 2 : 1;
	c->key = mix64(BULK_KEY + c->id);
	err = conn_stream(c, due);
	if (err) {
		conn_reset(c, -err);
		return;
	}
	n = conn_recv(c, 16);
	if (n == -EAGAIN) {
		conn_wait(c, EPOLLIN | (c->out < due ? EPOLLOUT : 0));
		return;
	}
	if (n < 0) {
		conn_reset(c, -n);
	} else if (n == 0) {
		conn_wrong(c, WRONG_SHORT, "clean end of stream");
	} else if (c->in > c->out) {
		conn_wrong(c, WRONG_LONG, "bytes that were not sent yet");
	} else if (conn_check(c, n)) {
		if (c->phase == PHASE_FIRST) {
			c->phase = PHASE_HOLDING;
			m.opened++;
			conn_wait(c, EPOLLIN);
			hold_begin();
		} else {
			c->phase = PHASE_CLOSING;
			if (conn_shut(c))
				closing_step(c);
		}
	}
}

/* A connection that failed may have been the last one that the others waited for. */
static void hold_second(void)
{
	client_sweep();
	hold_begin();
}

int mode_hold(const struct options *o)
{
	int status;

	m.o = o;
	m.step = hold_step;
	loop_init(NULL);
	every_second(hold_second);
	m.start = now_ns();
	clients_next();
	if (m.open)
		loop_run();
	status = client_result();
	printf(" opened=%" PRIu64 " seconds=%.3f\n", m.opened, (now_ns() - m.start) / 1e9);
	return status;
}
