/* SPDX-License-Identifier: GPL-2.0-or-later */
/* flows.c - see load.h: the connections of a client, the phases of a run, the line of results. */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECTING_AT_ONCE 64
#define PATIENCE_NS (30 * NS_PER_SEC)

struct tally tally;

/* ---- opening ---- */

static struct {
	const struct addr *to;
	struct flow *flows;
	uint64_t n, begun, open;
} opening;

void flow_check(ssize_t n, const char *what)
{
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 0)
		failed("%s: the connection was closed", what);
	failed("%s: %m", what);
}

static bool is_all_open(void)
{
	return opening.open >= opening.n;
}

static void on_connected(struct watch *w, uint32_t events)
{
	struct flow *f = (struct flow *)w;
	socklen_t len = sizeof(int);
	int error = 0;

	(void)events;
	getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error)
		failed("connect: %s", strerror(error));
	if (send(w->fd, &f->req, sizeof(f->req), MSG_NOSIGNAL) != (ssize_t)sizeof(f->req))
		failed("send of the request: %m");
	w->io = f->io;
	watch_set(w, f->events);
	if (f->open)
		return;
	f->open = true;
	opening.open++;
	if (opening.begun < opening.n)
		flow_begin(&opening.flows[opening.begun++], opening.to);
}

void flow_begin(struct flow *f, const struct addr *to)
{
	f->at_ns = now_ns();
	f->pos = 0;
	f->w = (struct watch){.fd = connect_to(to), .io = on_connected};
	watch_add(&f->w, EPOLLOUT);
}

struct flow *flows_open(const struct addr *to, uint64_t n, const struct request *req,
			void (*io)(struct watch *w, uint32_t events), uint32_t events)
{
	struct flow *flows = calloc(n, sizeof(*flows));

	if (!flows)
		failed("no memory");
	for (uint64_t i = 0; i < n; i++) {
		flows[i].req = *req;
		flows[i].req.magic = REQUEST_MAGIC;
		flows[i].req.key = random_key();
		flows[i].io = io;
		flows[i].events = events;
	}
	opening.to = to;
	opening.flows = flows;
	opening.n = n;
	opening.open = 0;
	opening.begun = n < CONNECTING_AT_ONCE ? n : CONNECTING_AT_ONCE;
	for (uint64_t i = 0; i < opening.begun; i++)
		flow_begin(&flows[i], to);
	if (!loop_run_until(is_all_open, PATIENCE_NS))
		failed("connect: only %" PRIu64 " of %" PRIu64 " in time", opening.open, n);
	return flows;
}

void counters_ask(const struct options *o, struct counters *ret)
{
	struct request req = {.magic = REQUEST_MAGIC, .kind = KIND_COUNTERS};
	static int fd = -1;

	if (fd < 0)
		fd = connect_wait(&o->control, PATIENCE_NS);
	if (send(fd, &req, sizeof(req), MSG_NOSIGNAL) != (ssize_t)sizeof(req) ||
	    recv(fd, ret, sizeof(*ret), MSG_WAITALL) != (ssize_t)sizeof(*ret))
		failed("the server's counters: %m");
}

/* ---- a window ---- */

struct mark {
	uint64_t ns, bytes, messages, switches, others;
};

const char *then_name(enum then t)
{
	switch (t) {
	case THEN_NOTHING:
		return "nothing";
	case THEN_SIGSTOP:
		return "sigstop";
	case THEN_BULK:
		return "bulk";
	case THEN_READERS:
		return "readers";
	case THEN_MAX:
		break;
	}
	return "?";
}

static void mark(struct mark *m, const struct options *o)
{
	struct counters c;

	*m = (struct mark){.ns = now_ns(), .bytes = tally.bytes, .messages = tally.messages};
	if (tally.at_server) {
		counters_ask(o, &c);
		m->ns = c.at_ns;
		m->bytes = c.received;
	}
	m->switches = sample_switches();
	m->others = bulk_child_bytes();
}

static double us(const struct histogram *h, unsigned int permille)
{
	return (double)histogram_at(h, permille) / 1000;
}

static void print_window(const char *prefix, const struct mark *a, const struct mark *b,
			 const struct sample *s)
{
	double seconds = (double)(b->ns - a->ns) / NS_PER_SEC;
	const struct histogram *h = &tally.latency;

	printf(" %sseconds=%.3f %sbytes=%" PRIu64 " %smbit=%.1f", prefix, seconds, prefix,
	       b->bytes - a->bytes, prefix, (double)(b->bytes - a->bytes) * 8 / 1e6 / seconds);
	printf(" %smessages=%" PRIu64 " %sper_s=%.1f", prefix, b->messages - a->messages, prefix,
	       (double)(b->messages - a->messages) / seconds);
	if (h->count)
		printf(" %sp50_us=%.1f %sp99_us=%.1f %sp999_us=%.1f %smax_us=%.1f", prefix,
		       us(h, 500), prefix, us(h, 990), prefix, us(h, 999), prefix,
		       (double)h->max / 1000);
	if (b->others > a->others)
		printf(" %sothers_mbit=%.1f", prefix,
		       (double)(b->others - a->others) * 8 / 1e6 / seconds);
	printf(" %sswitches=%" PRIu64 " %speak_mb=%.1f %srss_mb=%.1f", prefix,
	       b->switches - a->switches, prefix, (double)s->peak_bytes / 1e6, prefix,
	       (double)s->rss_peak_bytes / 1e6);
}

static void window(const char *prefix, const struct options *o, uint64_t ms)
{
	struct mark begin, end;
	struct sample s;

	histogram_reset(&tally.latency);
	mark(&begin, o);
	loop_run_for(ms * NS_PER_MS);
	mark(&end, o);
	if (!*prefix && end.bytes == begin.bytes && end.messages == begin.messages)
		failed("nothing arrived in the window");
	sample_get(&s);
	if (!*prefix)
		printf("status=ok mode=%s connections=%" PRIu64, o->mode, o->connections);
	print_window(prefix, &begin, &end, &s);
}

static void signal_watched(const struct options *o, int signal)
{
	for (int i = 0; i < o->nr_watched; i++) {
		if (kill(o->watched[i], signal))
			failed("kill %d: %m", o->watched[i]);
	}
}

static void disturb(const struct options *o)
{
	sample_again();
	if (o->then == THEN_SIGSTOP)
		signal_watched(o, SIGSTOP);
	else if (o->then == THEN_BULK)
		bulk_child_start(o);
	else if (o->then == THEN_READERS)
		readers_start(o);
	loop_run_for(o->warmup_ms * NS_PER_MS);
}

int measure(const struct options *o)
{
	loop_run_for(o->warmup_ms * NS_PER_MS);
	window("", o, o->window_ms);
	if (o->then != THEN_NOTHING) {
		disturb(o);
		printf(" then=%s", then_name(o->then));
		window("then_", o, o->then_ms);
		if (o->then == THEN_SIGSTOP)
			signal_watched(o, SIGCONT);
		else if (o->then == THEN_BULK)
			bulk_child_end();
	}
	printf("\n");
	fflush(stdout);
	_exit(0); /* in one stroke: the kernel closes everything */
}
