/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log_sink.h - what the files of the log share, and nobody else sees.
 *
 *	log.c	    the daemon's own messages, and the process's targets for them
 *	log_line.c  what a line looks like
 *	log_sink.c  a target: opening it, and getting lines out to it
 */
#ifndef SHUNT_LOG_SINK_H
#define SHUNT_LOG_SINK_H

#include <limits.h>
#include <pthread.h>
#include <sys/socket.h>

#include "log.h"

#define LINE_SIZE PIPE_BUF /* of a whole line, newline included */
#define BATCH_SIZE 16384   /* of lines that leave together, */
#define BATCH_LINES 128	   /* and how many these are */

enum channel {
	CHANNEL_FILE,
	CHANNEL_OWN,
	CHANNEL_SHARED,
	CHANNEL_STREAM,
	CHANNEL_DGRAM,
};

struct log_sink {
	pthread_mutex_t lock; /* guards fd, torn, tried_ns and the batch */
	int fd;		      /* owned; negative: not connected, or closed */
	enum channel channel;
	enum log_format format;
	int facility, max_level;
	const char *tag; /* borrowed */
	char host[65];	 /* for rfc5424 */
	bool torn;	 /* the last byte that was written is not a newline */

	/* where to reconnect to; peer_len == 0: nowhere (stdout and stderr) */
	struct sockaddr_storage peer;
	socklen_t peer_len;
	unsigned int retry_ms;
	uint64_t tried_ns; /* when connect(2) was last called */

	/* the batch: lines that have not left yet */
	size_t max_len, len;
	uint32_t max_lines, nr_lines;
	char bytes[1 + BATCH_SIZE]; /* the lines, with their newlines, after a newline */
};

/* A line under construction. */
struct log_line {
	char bytes[LINE_SIZE];
	size_t len; /* after log_line_end() newline included */
};

/* ---- log_line.c ---- */

/* Adds to the line; what has no room is cut. */
void log_line_printf(struct log_line *l, const char *fmt, ...) PRINTF(2, 3);

/* Adds what comes before the text in the sink's format, with the time of now. */
void log_line_header(struct log_line *l, const struct log_sink *s, int level);

/*
 * Makes it one line for every reader: C0 control bytes and DEL become spaces, and so do the C1
 * controls in UTF-8 (C2 80 to C2 9F), among which are a newline (NEL) and an escape (CSI).
 */
void log_line_end(struct log_line *l);

/* ---- log_sink.c ---- */

/* Everything but the descriptor. */
void log_sink_init(struct log_sink *s, const struct log_target *target, const char *tag);

/* Takes its own descriptor for fd (stdout or stderr) and finds out how to write to it without
 * waiting. Returns 0 or -errno. */
int log_sink_open_fd(struct log_sink *s, int fd);

void log_sink_close(struct log_sink *s);

/* Writes a line that log_line_end() has seen, and before it what has not left yet; counts what is
 * lost. The caller keeps others out. Returns what log_sink_write() does. */
int log_sink_put(struct log_sink *s, const struct log_line *l);

#endif
