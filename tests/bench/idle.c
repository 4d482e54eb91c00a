/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * idle.c - see load.h: many connections that do nothing. Each says a byte and gets it back, so that
 * it is there from end to end; after the window each does so again.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define PATIENCE_NS (30 * NS_PER_SEC)

static uint64_t answered, wanted;

static void on_answer(struct watch *w, uint32_t events)
{
	char byte;
	ssize_t n = recv(w->fd, &byte, 1, 0);

	(void)events;
	if (n <= 0)
		flow_check(n, "idle connection");
	else if (byte != (char)((struct flow *)w)->pos)
		wrong("an idle connection got another byte");
	else
		answered++;
}

static bool is_answered(void)
{
	return answered == wanted;
}

static void say(struct flow *flows, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		flows[i].pos = i;
		if (send(flows[i].w.fd, &(char){(char)i}, 1, MSG_NOSIGNAL) != 1)
			failed("idle connection: %m");
	}
}

/* Not all at once: it is not the sudden load that is measured. */
static void say_all(struct flow *flows, uint64_t n)
{
	answered = 0;
	for (uint64_t i = 0; i < n; i += 64) {
		wanted = i + 64 < n ? i + 64 : n;
		say(flows, i, wanted);
		if (!loop_run_until(is_answered, PATIENCE_NS))
			failed("idle: only %" PRIu64 " of %" PRIu64 " were answered", answered, n);
	}
}

int mode_idle(const struct options *o)
{
	struct request req = {.kind = KIND_ECHO};
	uint64_t pss = sample_pss(), available = sample_available(), pss_then, available_then;
	uint64_t switches, n = o->connections;
	struct flow *flows;

	flows = flows_open(&o->connect, n, &req, on_answer, EPOLLIN);
	say_all(flows, n);
	loop_run_for(o->warmup_ms * NS_PER_MS);
	switches = sample_switches();
	loop_run_for(o->window_ms * NS_PER_MS);
	switches = sample_switches() - switches;
	pss_then = sample_pss();
	available_then = sample_available();
	say_all(flows, n);
	printf("status=ok mode=idle connections=%" PRIu64 " pss_before_mb=%.2f pss_mb=%.2f "
	       "session_bytes=%.0f machine_session_bytes=%.0f idle_switches_s=%.1f\n",
	       n, (double)pss / 1e6, (double)pss_then / 1e6,
	       ((double)pss_then - (double)pss) / (double)n,
	       ((double)available - (double)available_then) / (double)n,
	       (double)switches * 1000 / (double)o->window_ms);
	fflush(stdout);
	_exit(0);
}
