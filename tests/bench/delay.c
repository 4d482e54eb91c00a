/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * delay.c - see load.h: a long wire, for kernels without netem. Frames that come in at one
 * interface leave the other one so many milliseconds later, and the other way round. Large segments
 * cross it whole, with what the kernel knows of them (struct virtio_net_hdr). Runs until it is
 * killed, in a namespace that has nothing but the two interfaces.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAME_MAX (sizeof(struct virtio_net_hdr) + 65536 + 64)
#define BUFFER_MAX (128 << 20) /* of a socket, and of what is on its way in one direction */

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

struct frame {
	struct frame *next;
	uint64_t due_ns;
	size_t len;
	char bytes[];
};

/* One interface; its queue holds what came in here, in the order in which it is due at the other
 * one. */
struct end {
	struct watch w;
	struct end *other;
	struct frame *first, **last;
	size_t queued;
};

static uint64_t delay_ns, dropped;

static void on_frames(struct watch *w, uint32_t events)
{
	static char buffer[FRAME_MAX];
	struct end *e = (struct end *)w;
	struct frame *f;
	ssize_t n;

	(void)events;
	while ((n = recv(w->fd, buffer, sizeof(buffer), MSG_TRUNC)) > 0) {
		if ((size_t)n > sizeof(buffer) || e->queued + (size_t)n > BUFFER_MAX) {
			dropped++;
			continue;
		}
		f = malloc(sizeof(*f) + (size_t)n);
		if (!f)
			failed("no memory");
		f->next = NULL;
		f->due_ns = now_ns() + delay_ns;
		f->len = (size_t)n;
		memcpy(f->bytes, buffer, (size_t)n);
		*e->last = f;
		e->last = &f->next;
		e->queued += f->len;
	}
}

/* Sends what is due; how long until the next one is. */
static uint64_t forward(struct end *e)
{
	struct frame *f;
	uint64_t now;

	while ((f = e->first)) {
		now = now_ns();
		if (f->due_ns > now)
			return f->due_ns - now;
		if (send(e->other->w.fd, f->bytes, f->len, 0) < 0)
			dropped++; /* a wire does so as well */
		e->first = f->next;
		if (!e->first)
			e->last = &e->first;
		e->queued -= f->len;
		free(f);
	}
	return NS_PER_MS;
}

static void end_open(struct end *e, struct end *other, const char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int on = 1, size = BUFFER_MAX;

	*e = (struct end){.w.io = on_frames, .other = other, .last = &e->first};
	e->w.fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	at.sll_ifindex = (int)if_nametoindex(name);
	if (e->w.fd < 0 || !at.sll_ifindex)
		failed("%s: %m", name);
	if (setsockopt(e->w.fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(e->w.fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(e->w.fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    setsockopt(e->w.fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) ||
	    bind(e->w.fd, (struct sockaddr *)&at, sizeof(at)))
		failed("%s: %m", name);
	watch_add(&e->w, EPOLLIN);
}

int mode_delay(const struct options *o)
{
	static struct end a, b;
	uint64_t reported = 0, next, then;

	if (!o->interfaces[0])
		failed("delay needs --interfaces");
	delay_ns = o->delay_ms * NS_PER_MS;
	end_open(&a, &b, o->interfaces[0]);
	end_open(&b, &a, o->interfaces[1]);
	for (;;) {
		next = forward(&a);
		then = forward(&b);
		next = next < then ? next : then;
		next = next < NS_PER_MS ? next : NS_PER_MS;
		loop_run_for(next ? next : 1);
		if (dropped != reported) {
			fprintf(stderr, "dropped %llu frames\n", (unsigned long long)dropped);
			reported = dropped;
		}
	}
}
