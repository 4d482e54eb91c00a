/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * server.c - see load.h: the one server of all modes. A connection says first what it wants
 * (struct request); from then on its watch belongs to one of the functions below.
 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS (2 * NS_PER_MS)
#define BURST_TICKS 20 /* what a paced stream may catch up with at once */

struct conn {
	struct watch w;
	struct request req;
	size_t have;	   /* bytes of req */
	struct stream out; /* of a verified download */
	uint64_t pos;
	uint64_t wrong_at;
	uint64_t budget;	    /* of a paced download: may be sent now */
	struct conn *next, **whose; /* in the list of paced ones; whose: NULL if not there */
	char *rest;		    /* of an echo: what did not fit */
	size_t rest_len;
};

static const struct options *options;
static struct counters counters;
static struct conn *paced;
static bool ticking;
static char buffer[IO_SIZE];  /* what is received, and verified streams to send */
static char payload[IO_SIZE]; /* what is sent when nobody verifies */

static void conn_close(struct conn *c)
{
	if (c->whose) {
		*c->whose = c->next;
		if (c->next)
			c->next->whose = c->whose;
	}
	free(c->rest);
	watch_close(&c->w);
	free(c);
}

/* recv() or send() gave no bytes. */
static void conn_ended(struct conn *c, ssize_t n)
{
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == 0)
		counters.ended++;
	else
		counters.reset++;
	conn_close(c);
}

/* Nothing more is to come; the other end closes, or has reset. */
static void on_rest(struct watch *w, uint32_t events)
{
	ssize_t n = recv(w->fd, buffer, sizeof(buffer), 0);

	(void)events;
	if (n <= 0)
		conn_ended((struct conn *)w, n);
}

/* ---- download ---- */

/* Sends at most so much; what send() said. */
static ssize_t send_stream(struct conn *c, size_t most)
{
	const char *from = payload;
	ssize_t n;

	if (c->req.bytes && most > stream_length(&c->out) - c->pos)
		most = stream_length(&c->out) - c->pos;
	if (c->req.verify) {
		stream_read(&c->out, c->pos, buffer, most);
		from = buffer;
	}
	n = send(c->w.fd, from, most, MSG_NOSIGNAL);
	if (n > 0) {
		c->pos += (uint64_t)n;
		counters.sent += (uint64_t)n;
	}
	return n;
}

static void on_download(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	ssize_t n;

	if (c->req.rate) { /* on_tick sends: this is an error */
		on_rest(w, events);
		return;
	}
	n = send_stream(c, IO_SIZE);
	if (n < 0) {
		conn_ended(c, n);
	} else if (c->req.bytes && c->pos == stream_length(&c->out)) {
		shutdown(w->fd, SHUT_WR);
		w->io = on_rest;
		watch_set(w, EPOLLIN);
	}
}

/* Closes nobody: an event of the same round may be for that one. */
static void on_tick(void)
{
	static uint64_t last_ns;
	uint64_t now = now_ns(), past = last_ns ? now - last_ns : TICK_NS;

	last_ns = now;
	for (struct conn *c = paced; c; c = c->next) {
		uint64_t most = c->req.rate * BURST_TICKS * TICK_NS / NS_PER_SEC;

		c->budget += c->req.rate * past / NS_PER_SEC;
		if (c->budget > most)
			c->budget = most;
		while (c->budget) {
			ssize_t n = send_stream(c, c->budget < IO_SIZE ? c->budget : IO_SIZE);

			if (n <= 0)
				break;
			c->budget -= (uint64_t)n;
		}
	}
}

static void start_download(struct conn *c)
{
	c->out = (struct stream){
		.key = c->req.key,
		.total = c->req.bytes,
		.fault = c->req.verify ? options->fault : FAULT_NONE,
		.fault_at = c->req.bytes / 2 + c->req.key % 1000,
	};
	c->w.io = on_download;
	if (!c->req.rate) {
		watch_set(&c->w, EPOLLOUT);
		return;
	}
	watch_set(&c->w, EPOLLIN); /* nothing comes but the end */
	c->next = paced;
	c->whose = &paced;
	if (paced)
		paced->whose = &c->next;
	paced = c;
	if (!ticking)
		every(TICK_NS, on_tick);
	ticking = true;
}

/* ---- upload ---- */

static void end_upload(struct conn *c)
{
	struct verdict v = {.received = c->pos, .wrong_at = c->wrong_at};

	if (c->wrong_at != UINT64_MAX)
		counters.wrong++;
	if (c->req.verify && send(c->w.fd, &v, sizeof(v), MSG_NOSIGNAL) != (ssize_t)sizeof(v))
		counters.wrong++;
	conn_ended(c, 0);
}

static void on_upload(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	ssize_t n = recv(w->fd, buffer, sizeof(buffer), 0);

	(void)events;
	if (n < 0) {
		conn_ended(c, n);
		return;
	}
	if (n == 0) {
		end_upload(c);
		return;
	}
	if (c->req.verify && c->wrong_at == UINT64_MAX)
		c->wrong_at = pattern_check(c->req.key, c->pos, buffer, (size_t)n);
	c->pos += (uint64_t)n;
	counters.received += (uint64_t)n;
}

/* ---- echo ---- */

static void on_echo_rest(struct watch *w, uint32_t events);

static void on_echo(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	ssize_t n = recv(w->fd, buffer, sizeof(buffer), 0), sent;

	(void)events;
	if (n <= 0) {
		conn_ended(c, n);
		return;
	}
	counters.received += (uint64_t)n;
	if (options->fault != FAULT_NONE)
		buffer[n / 2] ^= 1;
	sent = send(w->fd, buffer, (size_t)n, MSG_NOSIGNAL);
	if (sent == n)
		return;
	if (sent < 0 && errno != EAGAIN) {
		conn_ended(c, sent);
		return;
	}
	sent = sent < 0 ? 0 : sent;
	c->rest_len = (size_t)(n - sent);
	c->rest = malloc(c->rest_len);
	if (!c->rest)
		failed("no memory");
	memcpy(c->rest, buffer + sent, c->rest_len);
	w->io = on_echo_rest;
	watch_set(w, EPOLLOUT);
}

static void on_echo_rest(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	ssize_t n = send(w->fd, c->rest, c->rest_len, MSG_NOSIGNAL);

	(void)events;
	if (n < 0) {
		conn_ended(c, n);
		return;
	}
	c->rest_len -= (size_t)n;
	memmove(c->rest, c->rest + n, c->rest_len);
	if (c->rest_len)
		return;
	free(c->rest);
	c->rest = NULL;
	w->io = on_echo;
	watch_set(w, EPOLLIN);
}

/* ---- what a connection wants ---- */

static void answer(struct conn *c, const void *what, size_t len)
{
	ssize_t n = send(c->w.fd, what, len, MSG_NOSIGNAL);

	if (n < 0)
		conn_ended(c, n);
	else if ((size_t)n != len)
		failed("an answer did not fit");
}

static void on_request(struct watch *w, uint32_t events)
{
	struct conn *c = (struct conn *)w;
	ssize_t n = recv(w->fd, (char *)&c->req + c->have, sizeof(c->req) - c->have, 0);

	(void)events;
	if (n <= 0) {
		conn_ended(c, n);
		return;
	}
	c->have += (size_t)n;
	if (c->have < sizeof(c->req))
		return;
	if (c->req.magic != REQUEST_MAGIC || c->req.kind >= KIND_MAX) {
		counters.wrong++;
		conn_close(c);
		return;
	}
	switch ((enum kind)c->req.kind) {
	case KIND_DOWNLOAD:
		start_download(c);
		break;
	case KIND_UPLOAD:
		w->io = on_upload;
		break;
	case KIND_ECHO:
		w->io = on_echo;
		break;
	case KIND_SHORT:
		w->io = on_rest;
		answer(c, &c->req, sizeof(c->req));
		break;
	case KIND_COUNTERS:
		c->have = 0;
		counters.at_ns = now_ns();
		answer(c, &counters, sizeof(counters));
		break;
	case KIND_MAX:
		break;
	}
}

static void on_accept(struct watch *w, uint32_t events)
{
	struct conn *c;
	int fd;

	(void)events;
	for (int i = 0; i < 64; i++) {
		fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
				failed("accept: %m");
			return;
		}
		c = calloc(1, sizeof(*c));
		if (!c)
			failed("no memory");
		c->w.fd = fd;
		c->w.io = on_request;
		c->wrong_at = UINT64_MAX;
		counters.accepted++;
		watch_add(&c->w, EPOLLIN);
	}
}

void server_run(int listen_fd, const struct options *o)
{
	struct watch listener = {.fd = listen_fd, .io = on_accept};

	options = o;
	raise_nofile();
	loop_init();
	pattern_fill(random_key(), 0, payload, sizeof(payload));
	watch_add(&listener, EPOLLIN);
	for (;;)
		loop_run_for(NS_PER_SEC);
}

/* Until it is killed. TCP_NODELAY is inherited by what is accepted. */
int mode_server(const struct options *o)
{
	int fd = listen_at(&o->listen);

	printf("ready\n");
	fflush(stdout);
	server_run(fd, o);
}
