/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * admin_show.h - the answers of the `show` commands, in HAProxy 2.6's formats. They read the
 * balancer and write text: no sockets, no state of their own. What a client may ask is in admin.c.
 */
#ifndef SHUNT_ADMIN_SHOW_H
#define SHUNT_ADMIN_SHOW_H

#include <stdint.h>
#include <stdio.h>

struct admin_dialog;
struct lb;

/* One command that was asked. */
struct show {
	FILE *out; /* takes the answer, without the empty line at its end */
	const struct lb *lb;
	struct admin_dialog *dialog; /* the connection's; the answers here do not use it */
	const char *const *args; /* what follows the command's own words */
	uint32_t nr_args;
};

/* `show info`: "Name: value" lines. */
void show_info(const struct show *s);

/*
 * `show stat [{<iid>|<proxy>} <type> <sid>] [up] [no-maint]`: HAProxy's CSV, followed by columns of
 * ours: kbin, kbout (bytes that the kernel moved) and ubin, ubout (that userspace moved), which add
 * up to bin and bout. Bytes of live sessions are included.
 */
void show_stat(const struct show *s);

/* `show sess [all|<id>]`: a line per session; at most 100,000 of them. */
void show_sess(const struct show *s);

/* `show servers state [<backend>]`: version 1 of HAProxy's state file. */
void show_servers_state(const struct show *s);

/* `show version` */
void show_version(const struct show *s);

struct session_view;

/* For the answers alone: calls fn for every session of every thread, whose thread waits meanwhile. */
void show_each_session(const struct lb *lb, void (*fn)(void *arg, const struct session_view *v), void *arg);

/* For the answers alone: whole seconds from that moment until now; 0 if it is to come. */
uint64_t show_seconds_since(const struct lb *lb, uint64_t at_ns);

#endif
