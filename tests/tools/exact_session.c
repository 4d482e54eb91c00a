/*
 * exact serve and exact drive: random sessions, checked at both ends.
 *
 * The driver decides everything about a session and says it in the header, the first bytes that a
 * client sends: lengths, flags, and the seed from which both ends derive chunk sizes, delays,
 * pauses and payload. From then on the two ends run the same code (struct end); each sends its
 * stream, checks the other's, and judges how it ended. Neither learns what the other one saw.
 *
 * What must hold, whatever stands between the two ends:
 * - Every byte arrives, once, in order, at its offset.
 * - A stream that was sent to its end shows as end of stream, after the last byte and not before.
 * - An end of stream is passed on alone: the other direction goes on for as long as it likes.
 * - A reset shows as a reset. An aborted stream never looks finished.
 *
 * In a session with a planned reset the resetting end never sends an end of stream. So its peer
 * always still waits for one when the reset comes, and any end of stream that it sees is a fault.
 */
#include "exact.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC 0x74636178U /* "xact" */
#define BANNER_LEN 64
#define MANY_CHUNKS 200 /* so many may be tiny, the rest is at least BIG_CHUNK */
#define BIG_CHUNK 16384
#define MAX_DELAYS 40
#define MAX_PAUSES 40
#define ROUNDS 4 /* receives and sends in one turn of the loop */
#define TEXT 256

/* Who ends first, and who waits for whom. One end waits at most, or both would for ever. */
enum order {
	ORDER_FREE,	    /* each end closes when it has sent everything */
	ORDER_ANSWER,	    /* the server sends nothing before the client's end of stream */
	ORDER_CLIENT_FIRST, /* the server stops in the middle until the client's */
	ORDER_SERVER_FIRST, /* the client stops in the middle until the server's */
	ORDER_CLIENT_LAST,  /* the client holds back only its end of stream */
	ORDER_TOGETHER,	    /* both send everything, receive everything, then both close */
	ORDERS
};

static const char *order_name(enum order order)
{
	switch (order) {
	case ORDER_FREE:
		return "free";
	case ORDER_ANSWER:
		return "answer";
	case ORDER_CLIENT_FIRST:
		return "client-first";
	case ORDER_SERVER_FIRST:
		return "server-first";
	case ORDER_CLIENT_LAST:
		return "client-last";
	case ORDER_TOGETHER:
		return "together";
	case ORDERS:
		break;
	}
	return "?";
}

#define F_ORDER 0x0f
#define F_RESET_ON_READ 0x10 /* after reset_at bytes received, not after so many sent */
#define F_RESET_WAIT 0x20    /* a moment later, when everything may have drained */
#define F_WAIT_BANNER 0x40   /* the client sends nothing before the server's banner */
/* These exist for both ends; the server's stand 16 bits above the client's. */
#define F_RESET 0x0100	  /* this end aborts */
#define F_SLOW 0x0200	  /* this end reads slowly */
#define F_DELAY 0x0400	  /* waits between chunks */
#define F_FIN_DATA 0x0800 /* end of stream in one segment with the last bytes */
#define F_NODELAY 0x1000  /* small chunks leave as small segments */
#define F_SERVER(f) ((uint32_t)(f) << 16)

/* As on the wire, in this machine's byte order: both ends are this program on one machine. */
struct header {
	uint32_t magic;
	uint32_t id;
	uint64_t seed;
	uint64_t up_len;
	uint64_t down_len;
	uint64_t reset_at;
	uint32_t flags;
	uint32_t sum;
};

_Static_assert(sizeof(struct header) == 48, "the header has no holes");

/* One direction as this end sees it: a few fixed bytes in front, then the stream. */
struct half {
	const uint8_t *head;
	uint64_t head_len;
	uint64_t key;
	uint64_t len; /* with the head */
	uint64_t off;
	int64_t resume;	    /* not before this time; 0: at once */
	unsigned int rests; /* delays or pauses that are left */
};

/* One end of one session. Owned by the loop from accept or connect to end_done(). */
struct end {
	struct watch w; /* first: the loop hands it back */
	struct end *next, **prev;
	struct header h; /* at the server: complete when got == sizeof(h) */
	size_t got;
	struct half tx, rx;
	struct rng rng;
	uint64_t pause_at; /* received bytes at which a slow reader rests */
	int64_t abort_at;  /* when the planned reset is due; 0: not yet known */
	int64_t alive;	   /* last progress */
	unsigned int chunks;
	int tx_err; /* the first error of send() */
	bool connecting, tx_shut, rx_eof;
};

static struct {
	const struct options *o;
	bool server;
	struct end *ends;
	uint64_t open, started;
	uint64_t sessions, ok, errors, stuck, empty, early_resets, forgiven;
	uint64_t resets_expected, resets_seen, resets_made, clean_instead_of_reset, truncated;
	uint64_t sent, received;
	int64_t start;
	bool stopping;
	uint8_t banner[BANNER_LEN];
	uint8_t buf[IO_SIZE];
} t;

static uint32_t header_sum(const struct header *h)
{
	uint64_t words[5], sum = h->flags;
	size_t i;

	memcpy(words, h, sizeof(words));
	for (i = 0; i < 5; i++)
		sum = mix64(sum ^ words[i]);
	return sum;
}

/* --- the plan --- */

static uint64_t plan_len(struct rng *r, uint64_t max)
{
	uint64_t kind = rng_below(r, 100);

	if (kind < 8 || !max)
		return 0;
	if (kind < 45)
		return rng_log(r, max < 4096 ? max : 4096);
	if (kind < 88)
		return rng_log(r, max);
	return kind < 98 ? 1 + rng_below(r, max) : max;
}

static uint32_t plan_order(struct rng *r, const struct options *o, uint32_t flags)
{
	static const uint8_t half[] = {ORDER_ANSWER, ORDER_CLIENT_FIRST, ORDER_SERVER_FIRST,
				       ORDER_CLIENT_LAST};
	/* The end that resets sends no end of stream, so nobody may wait for it. */
	static const uint8_t client_resets[] = {ORDER_FREE, ORDER_SERVER_FIRST, ORDER_CLIENT_LAST};
	static const uint8_t server_resets[] = {ORDER_FREE, ORDER_ANSWER, ORDER_CLIENT_FIRST};

	if (o->no_half_close)
		return flags & (F_RESET | F_SERVER(F_RESET)) ? ORDER_FREE : ORDER_TOGETHER;
	if (flags & F_RESET)
		return client_resets[rng_below(r, sizeof(client_resets))];
	if (flags & F_SERVER(F_RESET))
		return server_resets[rng_below(r, sizeof(server_resets))];
	if (o->half_close_only)
		return half[rng_below(r, sizeof(half))];
	return rng_below(r, ORDERS);
}

static uint64_t plan_reset_at(struct rng *r, uint64_t len)
{
	switch (rng_below(r, 4)) {
	case 0:
		return len;
	case 1:
		return rng_below(r, (len < 100 ? len : 100) + 1);
	default:
		return rng_below(r, len + 1);
	}
}

static void plan_make(struct header *h, const struct options *o, uint64_t id)
{
	struct rng r = {mix64(o->seed ^ mix64(id))};
	uint64_t up, down;
	unsigned int side;

	memset(h, 0, sizeof(*h));
	h->magic = MAGIC;
	h->id = id;
	h->seed = rng_next(&r);
	h->up_len = plan_len(&r, o->max_bytes);
	h->down_len = plan_len(&r, o->max_bytes);
	for (side = 0; side < 32; side += 16) {
		h->flags |= (uint32_t)(rng_pct(&r, o->delay_pct) ? F_DELAY : 0) << side;
		h->flags |= (uint32_t)(rng_pct(&r, 50) ? F_FIN_DATA : 0) << side;
		h->flags |= (uint32_t)(rng_pct(&r, 50) ? F_NODELAY : 0) << side;
	}
	if (rng_pct(&r, o->slow_pct))
		h->flags |= rng_pct(&r, 50) ? F_SLOW : F_SERVER(F_SLOW);
	if (!o->half_close_only && rng_pct(&r, o->reset_pct))
		h->flags |= rng_pct(&r, 50) ? F_RESET : F_SERVER(F_RESET);
	h->flags |= plan_order(&r, o, h->flags);
	if (o->server_first && rng_pct(&r, 50))
		h->flags |= F_WAIT_BANNER;
	up = sizeof(*h) + h->up_len;
	down = h->down_len;
	if (rng_pct(&r, 40))
		h->flags |= F_RESET_ON_READ;
	if (rng_pct(&r, 50))
		h->flags |= F_RESET_WAIT;
	if (h->flags & F_RESET)
		h->reset_at = plan_reset_at(&r, h->flags & F_RESET_ON_READ ? down : up);
	if (h->flags & F_SERVER(F_RESET))
		h->reset_at = plan_reset_at(&r, h->flags & F_RESET_ON_READ ? h->up_len : down);
	h->sum = header_sum(h);
}

/* --- one end: what its plan says --- */

static bool planned(const struct end *e)
{
	return e->got == sizeof(e->h);
}

/* A flag of this end, or of the other one. */
static bool own(const struct end *e, uint32_t flag)
{
	return e->h.flags & (t.server ? F_SERVER(flag) : flag);
}

static bool peers(const struct end *e, uint32_t flag)
{
	return e->h.flags & (t.server ? flag : F_SERVER(flag));
}

static enum order order(const struct end *e)
{
	return e->h.flags & F_ORDER;
}

/* How far this end may send now. When that is everything, may_finish() has the last word. */
static uint64_t tx_limit(const struct end *e)
{
	uint64_t limit = e->tx.len;

	if (!t.server && e->h.flags & F_WAIT_BANNER && e->rx.off < BANNER_LEN)
		return 0;
	if (own(e, F_RESET) && !(e->h.flags & F_RESET_ON_READ))
		limit = e->h.reset_at;
	if (e->rx_eof)
		return limit;
	if (t.server && order(e) == ORDER_ANSWER)
		return 0;
	if (order(e) == (t.server ? ORDER_CLIENT_FIRST : ORDER_SERVER_FIRST)) {
		uint64_t payload = e->tx.len - e->tx.head_len;
		uint64_t middle = e->tx.head_len + e->h.seed % (payload + 1);

		return middle < limit ? middle : limit;
	}
	return limit;
}

/* May this end send its end of stream, once everything else is sent? */
static bool may_finish(const struct end *e)
{
	if (own(e, F_RESET))
		return false;
	switch (order(e)) {
	case ORDER_FREE:
	case ORDERS:
		return true;
	case ORDER_ANSWER:
	case ORDER_CLIENT_FIRST:
		return !t.server || e->rx_eof;
	case ORDER_SERVER_FIRST:
	case ORDER_CLIENT_LAST:
		return t.server || e->rx_eof;
	case ORDER_TOGETHER:
		return e->rx.off == e->rx.len;
	}
	return true;
}

static bool reset_due(const struct end *e)
{
	const struct half *h = e->h.flags & F_RESET_ON_READ ? &e->rx : &e->tx;

	return own(e, F_RESET) && h->off >= e->h.reset_at;
}

/* --- one end: its life --- */

static struct end *end_new(int fd, void (*io)(struct watch *, uint32_t),
			   void (*timer)(struct watch *))
{
	struct end *e = calloc(1, sizeof(*e));

	if (!e)
		die("out of memory");
	e->w.fd = fd;
	e->w.io = io;
	e->w.timer = timer;
	e->alive = now_ns();
	e->pause_at = UINT64_MAX;
	e->next = t.ends;
	e->prev = &t.ends;
	if (e->next)
		e->next->prev = &e->next;
	t.ends = e;
	t.open++;
	return e;
}

/* Both streams and all habits of this end, from the header. */
static void end_plan(struct end *e)
{
	struct half *up = t.server ? &e->rx : &e->tx, *down = t.server ? &e->tx : &e->rx;

	e->got = sizeof(e->h);
	up->key = mix64(e->h.seed ^ 1);
	up->len = e->h.up_len;
	down->key = mix64(e->h.seed ^ 2);
	down->len = e->h.down_len;
	if (!t.server) {
		up->head = (const uint8_t *)&e->h;
		up->head_len = sizeof(e->h);
		up->len += sizeof(e->h);
		if (t.o->server_first) {
			down->head = t.banner;
			down->head_len = BANNER_LEN;
			down->len += BANNER_LEN;
		}
	}
	e->rng.state = mix64(e->h.seed ^ (t.server ? 4 : 3));
	if (own(e, F_DELAY))
		e->tx.rests = MAX_DELAYS;
	if (own(e, F_SLOW)) {
		e->rx.rests = MAX_PAUSES;
		e->pause_at = rng_below(&e->rng, e->rx.len + 1);
	}
}

static const char *end_name(const struct end *e, char *text)
{
	const char *why = "";

	if (!planned(e)) {
		snprintf(text, TEXT, "session ? (%zu bytes of its header)", e->got);
		return text;
	}
	if (e->h.flags & (F_RESET | F_SERVER(F_RESET)))
		why = e->h.flags & F_RESET ? ", client resets" : ", server resets";
	snprintf(text, TEXT,
		 "session %u seed %016" PRIx64 " (%s, up %" PRIu64 ", down %" PRIu64 "%s%s%s)",
		 e->h.id, e->h.seed, order_name(order(e)), e->h.up_len, e->h.down_len, why,
		 e->h.flags & F_SLOW ? ", slow client" : "",
		 e->h.flags & F_SERVER(F_SLOW) ? ", slow server" : "");
	return text;
}

static void drive_next(void);

/* The one way out: e is gone afterwards. */
static void end_done(struct end *e, bool abort)
{
	*e->prev = e->next;
	if (e->next)
		e->next->prev = e->prev;
	if (abort)
		watch_abort(&e->w);
	else
		watch_close(&e->w);
	free(e);
	t.open--;
	if (!t.server)
		drive_next();
	else if (t.stopping && !t.open)
		loop_stop();
}

static void end_ok(struct end *e)
{
	t.ok++;
	end_done(e, false);
}

/* Says what is wrong and ends the session with a reset, so that the other end does not hang. */
static __attribute__((format(printf, 2, 3))) void end_error(struct end *e, const char *fmt, ...)
{
	char name[TEXT], text[2 * TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	complain("%s: %s", end_name(e, name), text);
	t.errors++;
	end_done(e, true);
}

static const char *rx_name(void)
{
	return t.server ? "up" : "down";
}

static const char *tx_name(void)
{
	return t.server ? "down" : "up";
}

/* Do these bytes belong to another session that is open now? Then two of them were mixed up. */
static void find_owner(const struct end *e, const uint8_t *buf, size_t len, char *text)
{
	const uint64_t around = 1 << 18;
	const struct half *half;
	const struct end *other;
	uint64_t off;
	int64_t at;
	int i;

	for (other = t.ends; other; other = other->next) {
		for (i = 0; i < 2; i++) {
			half = i ? &other->tx : &other->rx;
			if (!planned(other) || (other == e && !i))
				continue;
			off = half->off > half->head_len ? half->off - half->head_len : 0;
			at = stream_find(half->key, off > around ? off - around : 0, off + around,
					 buf, len);
			if (at < 0)
				continue;
			snprintf(text, TEXT,
				 " (these are bytes of session %u, %s, offset %" PRId64 ")",
				 other->h.id, i ? tx_name() : rx_name(), at);
			return;
		}
	}
}

static void end_mismatch(struct end *e, const uint8_t *buf, size_t len)
{
	uint64_t off = e->rx.off - e->rx.head_len;
	char text[TEXT] = "";
	uint8_t want;

	stream_fill(e->rx.key, off, &want, 1);
	if (complaining()) {
		stream_explain(e->rx.key, off, buf, len, text, sizeof(text));
		if (!text[0])
			find_owner(e, buf, len, text);
	}
	end_error(e, "%s, offset %" PRIu64 ": expected 0x%02x, got 0x%02x%s", rx_name(), off, want,
		  buf[0], text);
}

/* Checks n received bytes; false when they were wrong, and then e is gone. */
static bool end_take(struct end *e, const uint8_t *buf, size_t n)
{
	struct half *rx = &e->rx;
	size_t good, part;

	if (n > rx->len - rx->off) {
		end_error(e, "%s: %" PRIu64 " bytes more than the whole stream of %" PRIu64,
			  rx_name(), n - (rx->len - rx->off), rx->len - rx->head_len);
		return false;
	}
	if (rx->off < rx->head_len) {
		part = n < rx->head_len - rx->off ? n : rx->head_len - rx->off;
		if (memcmp(buf, rx->head + rx->off, part)) {
			end_error(e, "%s: the banner is wrong after %" PRIu64 " bytes", rx_name(),
				  rx->off);
			return false;
		}
		rx->off += part;
		buf += part;
		n -= part;
	}
	good = stream_check(rx->key, rx->off - rx->head_len, buf, n);
	rx->off += good;
	if (good < n) {
		end_mismatch(e, buf + good, n - good);
		return false;
	}
	return true;
}

/* The stream stopped at a place where it must not. */
static void end_wrong_end(struct end *e, const char *what)
{
	end_error(e,
		  "%s: %s after %" PRIu64 " of %" PRIu64 " bytes (sent %" PRIu64 " of %" PRIu64
		  "%s)",
		  rx_name(), what, e->rx.off, e->rx.len, e->tx.off, e->tx.len,
		  e->tx_shut ? " and the end of stream" : "");
}

/* err is what the socket said: ECONNRESET, or something that is no reset at all. */
static void end_reset(struct end *e, int err)
{
	char text[TEXT];

	if (!planned(e) && err == ECONNRESET) {
		/* The reset overtook the header. The driver knows whether it was a planned one. */
		t.early_resets++;
		t.sessions--;
		end_done(e, false);
		return;
	}
	if (planned(e) && peers(e, F_RESET) && err == ECONNRESET) {
		t.resets_seen++;
		end_ok(e);
		return;
	}
	if (t.o->forgive_resets && (err == ECONNRESET || err == EPIPE)) {
		t.forgiven++;
		end_done(e, false);
		return;
	}
	snprintf(text, sizeof(text), "%s (%s)", "broken off", strerror(err));
	end_wrong_end(e, text);
}

/*
 * recv() returned 0. After a reset that send() has already reported the kernel says 0 as well. But
 * EPIPE as the first error of send() means that an end of stream had come before the reset.
 * Returns true when the session goes on.
 */
static bool end_eof(struct end *e)
{
	if (e->tx_err && e->tx_err != EPIPE) {
		end_reset(e, e->tx_err);
		return false;
	}
	if (!planned(e) && !e->got) {
		t.empty++;
		t.sessions--;
		if (t.o->strict_empty)
			end_error(e, "end of stream before the first byte");
		else
			end_done(e, false);
		return false;
	}
	if (!planned(e)) {
		t.truncated++;
		end_wrong_end(e, "end of stream inside the header");
		return false;
	}
	if (peers(e, F_RESET)) {
		t.clean_instead_of_reset++;
		end_wrong_end(e, "clean end of stream instead of the reset");
		return false;
	}
	if (e->rx.off != e->rx.len) {
		t.truncated++;
		end_wrong_end(e, "clean end of stream too early");
		return false;
	}
	if (e->tx_err) {
		end_wrong_end(e, "clean end of stream, and then a reset,");
		return false;
	}
	e->rx_eof = true;
	return true;
}

/* The server's first bytes. Returns false when e is gone. */
static bool end_header(struct end *e, size_t n)
{
	e->got += n;
	if (!planned(e))
		return true;
	if (e->h.magic != MAGIC || e->h.sum != header_sum(&e->h)) {
		e->got = 0;
		end_error(e, "up: the header is wrong, it begins with %08x %08x", e->h.magic,
			  e->h.id);
		return false;
	}
	end_plan(e);
	if (peers(e, F_RESET))
		t.resets_expected++;
	if (own(e, F_SLOW) && rng_pct(&e->rng, 70))
		set_int(e->w.fd, SOL_SOCKET, SO_RCVBUF, 32768 << rng_below(&e->rng, 3));
	if (own(e, F_NODELAY))
		set_int(e->w.fd, IPPROTO_TCP, TCP_NODELAY, 1);
	return true;
}

/* A slow reader has reached the place of its next rest: one long one, then short ones. */
static void end_pause(struct end *e, int64_t now)
{
	uint64_t ms = 1 + rng_below(&e->rng, e->rx.rests == MAX_PAUSES ? 300 : 20);

	e->rx.resume = now + ms * NS_PER_MS;
	e->rx.rests--;
	e->pause_at = e->rx.rests ? e->rx.off + rng_log(&e->rng, 131072) : UINT64_MAX;
}

/* Returns false when e is gone. */
static bool end_read(struct end *e, int64_t now, bool hurry)
{
	size_t want;
	ssize_t n;
	int i;

	for (i = 0; i < ROUNDS && !e->rx_eof; i++) {
		if (e->rx.off == e->pause_at)
			end_pause(e, now);
		if (e->rx.resume > now && !hurry)
			return true;
		want = sizeof(t.buf);
		if (!planned(e))
			want = sizeof(e->h) - e->got;
		else if (e->pause_at - e->rx.off < want)
			want = e->pause_at - e->rx.off;
		if (!want)
			want = 1;
		n = recv(e->w.fd, planned(e) ? t.buf : (uint8_t *)&e->h + e->got, want, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		e->alive = now;
		if (n < 0) {
			end_reset(e, errno);
			return false;
		}
		if (!n && !end_eof(e))
			return false;
		t.received += n;
		if (n && !planned(e)) {
			if (!end_header(e, n))
				return false;
		} else if (n && !end_take(e, t.buf, n)) {
			return false;
		}
	}
	return true;
}

/* Puts the next n bytes of the stream into t.buf. */
static void end_fill(const struct half *tx, size_t n)
{
	size_t part = 0;

	if (tx->off < tx->head_len) {
		part = n < tx->head_len - tx->off ? n : tx->head_len - tx->off;
		memcpy(t.buf, tx->head + tx->off, part);
	}
	stream_fill(tx->key, tx->off + part - tx->head_len, t.buf + part, n - part);
}

/* Can this end send something now, or only its end of stream? */
static bool tx_ready(const struct end *e, int64_t now)
{
	if (e->connecting || !planned(e) || e->tx_shut || e->tx_err || e->abort_at ||
	    e->tx.resume > now)
		return false;
	return e->tx.off < tx_limit(e) || (e->tx.off == e->tx.len && may_finish(e));
}

static void end_write(struct end *e, int64_t now)
{
	struct half *tx = &e->tx;
	bool last;
	size_t n;
	ssize_t done;
	int i;

	for (i = 0; i < ROUNDS && tx_ready(e, now); i++) {
		n = rng_log(&e->rng, IO_SIZE);
		if (e->chunks++ > MANY_CHUNKS && n < BIG_CHUNK)
			n = BIG_CHUNK;
		if (n > tx_limit(e) - tx->off)
			n = tx_limit(e) - tx->off;
		last = tx->off + n == tx->len && may_finish(e);
		if (n) {
			end_fill(tx, n);
			done = send(e->w.fd, t.buf, n,
				    MSG_NOSIGNAL | (last && own(e, F_FIN_DATA) ? MSG_MORE : 0));
			if (done < 0 && (errno == EAGAIN || errno == EINTR))
				return;
			if (done < 0) {
				e->tx_err = errno;
				return;
			}
			tx->off += done;
			t.sent += done;
			e->alive = now;
			if ((size_t)done < n)
				return;
		}
		if (tx->rests && n && !(last && own(e, F_FIN_DATA))) {
			tx->rests--;
			tx->resume = now + rng_below(&e->rng, 20 * NS_PER_MS);
		} else if (last) {
			/* ENOTCONN: reset in the meantime. */
			if (shutdown(e->w.fd, SHUT_WR) < 0) {
				done = socket_error(e->w.fd);
				e->tx_err = done ? done : ECONNRESET;
				return;
			}
			e->tx_shut = true;
			e->alive = now;
		}
	}
}

/* Does what can be done now, and then waits for what cannot. e may be gone afterwards. */
static void end_step(struct end *e, bool hurry)
{
	int64_t now = now_ns(), at = 0;
	uint32_t want = 0;

	if (!end_read(e, now, hurry))
		return;
	end_write(e, now);
	/* The error that send() met: read what came before it, then recv() tells the end. */
	if (e->tx_err && e->rx_eof) {
		end_reset(e, e->tx_err);
		return;
	}
	if (e->tx_err)
		e->rx.resume = 0;
	if (planned(e) && !e->abort_at && reset_due(e)) {
		e->abort_at = now;
		if (e->h.flags & F_RESET_WAIT)
			e->abort_at += rng_below(&e->rng, 20 * NS_PER_MS);
	}
	if (e->abort_at && e->abort_at <= now) {
		t.resets_made++;
		t.ok++;
		end_done(e, true);
		return;
	}
	if (e->tx_shut && e->rx_eof) {
		end_ok(e);
		return;
	}
	if (!e->rx_eof && e->rx.resume <= now)
		want |= EPOLLIN;
	else if (!e->rx_eof)
		at = e->rx.resume;
	if (tx_ready(e, now))
		want |= EPOLLOUT;
	else if (!e->tx_shut && e->tx.resume > now && (!at || e->tx.resume < at))
		at = e->tx.resume;
	if (e->abort_at && (!at || e->abort_at < at))
		at = e->abort_at;
	watch_want(&e->w, want);
	watch_at(&e->w, at);
}

static void end_timer(struct watch *w)
{
	end_step((struct end *)w, false);
}

static void end_io(struct watch *w, uint32_t events)
{
	struct end *e = (struct end *)w;
	int err;

	if (e->connecting) {
		err = socket_error(w->fd);
		if (err) {
			end_error(e, "connect: %s", strerror(err));
			return;
		}
		e->connecting = false;
		e->alive = now_ns();
	}
	/* After the end of stream recv() has nothing more to say, and the reset would go unseen. */
	if (e->rx_eof && events & EPOLLERR) {
		err = socket_error(w->fd);
		end_reset(e, err ? err : ECONNRESET);
		return;
	}
	end_step(e, events & (EPOLLERR | EPOLLHUP));
}

/* Who has not moved for too long is stuck: an end of stream or bytes never came. */
static void end_sweep(void)
{
	int64_t limit = now_ns() - (int64_t)t.o->timeout_s * NS_PER_SEC;
	struct end *e, *next;
	char name[TEXT];

	for (e = t.o->timeout_s ? t.ends : NULL; e; e = next) {
		next = e->next;
		if (e->alive >= limit)
			continue;
		complain("%s: stuck: %s%s %" PRIu64 " of %" PRIu64 "%s, %s %" PRIu64 " of %" PRIu64
			 "%s",
			 end_name(e, name), e->connecting ? "connecting, " : "", rx_name(),
			 e->rx.off, e->rx.len, e->rx_eof ? " and end of stream" : "", tx_name(),
			 e->tx.off, e->tx.len, e->tx_shut ? " and end of stream" : "");
		t.stuck++;
		end_done(e, true);
	}
}

/* --- serve --- */

static void serve_line(char *text, size_t size)
{
	snprintf(text, size,
		 "sessions=%" PRIu64 " ok=%" PRIu64 " errors=%" PRIu64 " stuck=%" PRIu64
		 " resets_expected=%" PRIu64 " resets_seen=%" PRIu64 " resets_made=%" PRIu64
		 " clean_instead_of_reset=%" PRIu64 " empty=%" PRIu64 " early_resets=%" PRIu64
		 " truncated=%" PRIu64 " open=%" PRIu64 " bytes_up=%" PRIu64 " bytes_down=%" PRIu64,
		 t.sessions, t.ok, t.errors, t.stuck, t.resets_expected, t.resets_seen,
		 t.resets_made, t.clean_instead_of_reset, t.empty, t.early_resets,
		 t.truncated, t.open, t.received, t.sent);
}

static void serve_second(void)
{
	char line[1024];

	end_sweep();
	serve_line(line, sizeof(line));
	write_stats(t.o->stats, line);
	if (t.o->verbose)
		fprintf(stderr, "%s\n", line);
}

/* What is still under way when the test ends may finish; then it is an error. */
static void serve_grace(struct watch *w)
{
	(void)w;
	loop_stop();
}

static void serve_signal(void)
{
	static struct watch w = {.fd = -1, .timer = serve_grace};

	if (t.stopping || !t.open) {
		loop_stop();
		return;
	}
	t.stopping = true;
	watch_at(&w, now_ns() + (int64_t)t.o->grace_s * NS_PER_SEC + 1);
}

static void serve_accepted(int fd)
{
	struct end *e = end_new(fd, end_io, end_timer);

	t.sessions++;
	watch_add(&e->w, EPOLLIN);
	if (!t.o->server_first)
		return;
	/* An empty send buffer takes 64 bytes, always; an error is recv()'s to report. */
	if (send(fd, t.banner, BANNER_LEN, MSG_NOSIGNAL) < 0)
		e->tx_err = errno;
	else
		t.sent += BANNER_LEN;
}

int mode_serve(const struct options *o)
{
	struct end *e, *next;
	char line[1024];

	t.o = o;
	t.server = true;
	stream_fill(mix64(MAGIC), 0, t.banner, BANNER_LEN);
	loop_init(serve_signal);
	serve_second();
	listen_all(o, serve_accepted);
	every_second(serve_second);
	loop_run();
	for (e = t.ends; e; e = next) {
		next = e->next;
		if (e->got) {
			end_wrong_end(e, "still open at exit,");
		} else {
			/* Never used; shown as open, as nothing says that it was a session. */
			t.sessions--;
			watch_close(&e->w);
			free(e);
		}
	}
	serve_line(line, sizeof(line));
	write_stats(o->stats, line);
	printf("%s\n", line);
	return t.errors || t.stuck;
}

/* --- drive --- */

static void drive_start(uint64_t id)
{
	struct end *e;
	struct header h;
	struct rng r;
	int fd, rcvbuf = 0;

	plan_make(&h, t.o, id);
	r.state = mix64(h.seed ^ 5);
	if (h.flags & F_SLOW && rng_pct(&r, 70))
		rcvbuf = 4096 << rng_below(&r, 5);
	t.sessions++;
	t.resets_expected += !!(h.flags & F_SERVER(F_RESET));
	fd = connect_start(t.o, id, rcvbuf);
	if (fd < 0) {
		complain("session %u: connect: %s", h.id, strerror(-fd));
		t.errors++;
		return;
	}
	e = end_new(fd, end_io, end_timer);
	e->h = h;
	end_plan(e);
	e->connecting = true;
	if (own(e, F_NODELAY))
		set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	watch_add(&e->w, EPOLLOUT);
}

static void drive_next(void)
{
	while (!t.stopping && t.started < t.o->sessions && t.open < t.o->concurrency)
		drive_start(t.started++);
	if (!t.open)
		loop_stop();
}

static void drive_signal(void)
{
	t.stopping = true;
	loop_stop();
}

static void drive_second(void)
{
	end_sweep();
	if (t.o->verbose)
		fprintf(stderr,
			"drive: %" PRIu64 " of %" PRIu64 " sessions, %" PRIu64 " open, %" PRIu64
			" errors, %" PRIu64 " stuck\n",
			t.sessions - t.open, t.o->sessions, t.open, t.errors, t.stuck);
}

int mode_drive(const struct options *o)
{
	bool right;

	t.o = o;
	stream_fill(mix64(MAGIC), 0, t.banner, BANNER_LEN);
	loop_init(drive_signal);
	every_second(drive_second);
	t.start = now_ns();
	drive_next();
	if (t.open)
		loop_run();
	right = t.ok + t.forgiven == o->sessions && !t.errors && !t.stuck;
	printf("sessions=%" PRIu64 " ok=%" PRIu64 " errors=%" PRIu64 " stuck=%" PRIu64
	       " bytes_up=%" PRIu64 " bytes_down=%" PRIu64 " resets_expected=%" PRIu64
	       " resets_seen=%" PRIu64 " resets_made=%" PRIu64 " clean_instead_of_reset=%" PRIu64
	       " truncated=%" PRIu64 " forgiven=%" PRIu64 " seconds=%.3f\n",
	       t.sessions, t.ok, t.errors, t.stuck, t.sent, t.received, t.resets_expected,
	       t.resets_seen, t.resets_made, t.clean_instead_of_reset, t.truncated, t.forgiven,
	       (now_ns() - t.start) / 1e9);
	while (t.ends) {
		struct end *e = t.ends;

		t.ends = e->next;
		if (e->next)
			e->next->prev = &t.ends;
		watch_abort(&e->w);
		free(e);
	}
	return right ? 0 : 1;
}
