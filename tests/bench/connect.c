/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * connect.c - see load.h: short connections, so many at a time. Each sends 32 bytes and gets 32. It
 * ends with a FIN and waits for the other end's, or with a reset at once.
 */
#include "load.h"

#include <string.h>

static const struct options *options;

static void on_short(struct watch *w, uint32_t events)
{
	struct flow *f = (struct flow *)w;
	struct request got;
	ssize_t n;

	(void)events;
	n = recv(w->fd, &got, sizeof(got), 0);
	if (n < 0 || (n == 0 && f->pos != sizeof(got))) {
		flow_check(n, "short connection");
		return;
	}
	if (n &&
	    (f->pos + (size_t)n > sizeof(got) || memcmp(&got, (char *)&f->req + f->pos, (size_t)n)))
		wrong("a short answer was another one's");
	f->pos += (uint64_t)n;
	if (f->pos < sizeof(got))
		return;
	if (n && options->reset) {
		set_linger_reset(w->fd);
	} else if (n) {
		shutdown(w->fd, SHUT_WR);
		return;
	}
	watch_close(w);
	histogram_add(&tally.latency, now_ns() - f->at_ns);
	tally.messages++;
	f->req.key++;
	flow_begin(f, &options->connect);
}

int mode_connect(const struct options *o)
{
	struct request req = {.kind = KIND_SHORT};

	options = o;
	flows_open(&o->connect, o->connections, &req, on_short, EPOLLIN);
	return measure(o);
}
