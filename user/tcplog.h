/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tcplog.h - the text of a session's log line: HAProxy's `option tcplog`, byte for byte what
 * HAProxy 2.6 writes, so that whatever reads its TCP logs reads ours. (halog is made for HTTP
 * lines: of TCP lines, HAProxy's or ours, it understands the times of accept and the names of the
 * servers; -tc, -pct and -ic want fields that only HTTP lines have.)
 *
 *   %ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq
 *
 * %ci is the bare address, of IPv6 too ("2001:db8::1:33313"); an IPv4-mapped one prints as IPv4,
 * here as everywhere in shunt (HAProxy would print "::ffff:192.0.2.1").
 *
 * Pure: data in, text out. Names are printed as they are: log_sink_write() cleans the line.
 */
#ifndef SHUNT_TCPLOG_H
#define SHUNT_TCPLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "addr.h"

struct tcplog {
	struct addr client;
	struct timespec accepted; /* CLOCK_REALTIME of the accept; %t is in local time */
	const char *frontend;
	const char *backend;	    /* NULL: none was chosen; printed as the frontend's name */
	const char *server;	    /* NULL: none: "<NOSRV>" */
	int64_t queue_ms;	    /* %Tw; -1 = aborted before */
	int64_t connect_ms;	    /* %Tc; -1 = never connected */
	int64_t total_ms;	    /* %Tt */
	uint64_t bytes_to_client;   /* %B */
	char state[3];		    /* %ts: "--", "CD", "sD", "SC", ...; "" prints as "--" */
	unsigned int process_conns; /* %ac: counts include this session, as HAProxy's do */
	unsigned int frontend_conns;
	unsigned int backend_conns;
	unsigned int server_conns;
	unsigned int retries;
	bool redispatched;	   /* %rc is then "+N" */
	unsigned int server_queue; /* sessions that were before this one in the queue */
	unsigned int backend_queue;
};

/*
 * Prints the line into buf, always with a NUL; returns its length (cut at size - 1). 512 bytes are
 * always enough for names of less than CONFIG_NAME_MAX.
 */
size_t tcplog_format(const struct tcplog *t, char *buf, size_t size);

#endif
