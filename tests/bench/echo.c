/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * echo.c - see load.h: round trips, one message on its way per connection. Each message begins with
 * its number, and comes back with it or is wrong; whether all its bytes are right, `verify` checks.
 */
#include "load.h"

#include <string.h>

#define MESSAGE_MAX (1024 * 1024)

static char message[MESSAGE_MAX], answer[MESSAGE_MAX];
static size_t size;

static void on_echo(struct watch *w, uint32_t events);

/* The number of a flow's message is counted in its key. */
static void send_rest(struct flow *f)
{
	ssize_t n;

	memcpy(message, &f->req.key, size < sizeof(f->req.key) ? size : sizeof(f->req.key));
	n = send(f->w.fd, message + f->pos, size - f->pos, MSG_NOSIGNAL);
	if (n < 0)
		flow_check(n, "echo");
	else
		f->pos += (uint64_t)n;
	if (f->pos == size) {
		if (f->sending)
			watch_set(&f->w, EPOLLIN);
		f->sending = false;
		f->pos = 0;
	} else if (!f->sending) {
		f->sending = true;
		watch_set(&f->w, EPOLLOUT);
	}
}

static void send_message(struct flow *f)
{
	f->req.key++;
	f->at_ns = now_ns();
	f->pos = 0;
	send_rest(f);
}

static void on_echo(struct watch *w, uint32_t events)
{
	struct flow *f = (struct flow *)w;
	ssize_t n;

	(void)events;
	if (f->sending) {
		send_rest(f);
		return;
	}
	n = recv(w->fd, answer, size - f->pos, 0);
	if (n <= 0) {
		flow_check(n, "echo");
		return;
	}
	if (!f->pos && memcmp(answer, &f->req.key, (size_t)n < 8 ? (size_t)n : 8))
		wrong("an echo came back with another message's number");
	f->pos += (uint64_t)n;
	if (f->pos < size)
		return;
	histogram_add(&tally.latency, now_ns() - f->at_ns);
	tally.messages++;
	tally.bytes += size;
	send_message(f);
}

int mode_echo(const struct options *o)
{
	struct request req = {.kind = KIND_ECHO};
	struct flow *flows;

	size = o->size;
	if (!size || size > MESSAGE_MAX)
		failed("a message has 1 to %d bytes", MESSAGE_MAX);
	pattern_fill(random_key(), 0, message, size);
	flows = flows_open(&o->connect, o->connections, &req, on_echo, EPOLLIN);
	for (uint64_t i = 0; i < o->connections; i++)
		send_message(&flows[i]);
	return measure(o);
}
