/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * log.h - where lines go: the daemon's own messages, and one line per session to the log targets.
 *
 * Two streams, as in HAProxy. Messages ("[NOTICE]   (1234) : text") go to stderr (or, with -D,
 * nowhere but the global log targets) and, as syslog messages, to the global log targets too.
 * Traffic lines go only to a proxy's targets.
 *
 * Nothing here ever blocks: what a target does not take at once is dropped and counted. Messages
 * are written as they come. Traffic lines that a thread adds in one turn of its loop leave together
 * at its end (log_turn_end()), with one system call for each target where it can be; nothing waits
 * for longer. Every line has the time when it was made. A sink's lines leave in the order in which
 * they came, messages included. A line has at most PIPE_BUF (4096) bytes with its header and
 * newline; what is longer is cut. No two lines ever share a line.
 *
 * The only globals of the daemon are in here: the level, the process's message targets, what was
 * dropped. Any thread may write; what opens, adds and sets up is for the time when there is one.
 * The process must ignore SIGPIPE: a pipe has no MSG_NOSIGNAL.
 */
#ifndef SHUNT_LOG_H
#define SHUNT_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "config.h"
#include "util.h"

/* An open log target. Opaque. */
struct log_sink;

/*
 * Opens what a struct log_target describes. stdout and stderr are made non-blocking without
 * changing the description that other processes share (a pipe or terminal is re-opened through
 * /proc/self/fd, a socket is written with MSG_DONTWAIT, a regular file is appended to). The sink
 * has its own descriptor, so a daemon in the background must not open one (pool leaves them out),
 * or whoever reads the starter's pipe never sees its end. A missing /dev/log or a UDP target
 * without a route is no error: each line tries to (re)connect, at most once a second. tag is the
 * syslog tag (borrowed: must outlive the sink). Returns 0, -ENOMEM, -EBADF (stdout or stderr is
 * closed), or the -errno of socket(2).
 */
int log_sink_open(struct log_sink **ret, const struct log_target *target, const char *tag);

/* Writes what was added and has not left, and closes it; accepts NULL, returns NULL. */
struct log_sink *log_sink_free(struct log_sink *s);

/* The time between two attempts to reach a datagram target: 1000 ms unless set. For tests. */
void log_sink_set_retry(struct log_sink *s, unsigned int retry_ms);

/*
 * Writes one line (without newline) at once, after what was added before. The target's framing: raw
 * = text and newline; rfc3164 = "<PRI>Mon dd hh:mm:ss tag[pid]: text"; rfc5424 = "<PRI>1
 * 2026-11-22T09:32:47.123456+00:00 hostname tag pid - - text". level is LOG_EMERG..LOG_DEBUG. All
 * of them end with a newline, in datagrams too, as HAProxy's do. Newlines and other control bytes
 * in text are written as spaces. Never blocks. Returns 0 (written, or above the target's
 * max_level), -EAGAIN (dropped, or cut: full), or another -errno (dropped).
 */
int log_sink_write(struct log_sink *s, int level, const char *text);

/* The sinks to which one thread has added lines since its last log_turn_end(). All zero is none. */
struct log_turn {
	struct log_sink *sinks[32]; /* borrowed */
	uint32_t nr;
};

/*
 * As log_sink_write(), but the line leaves with log_turn_end() at the latest, together with what
 * others have added to s; earlier if one of them ends its turn, if something is written to s, or if
 * there is no room for more: that is 16 KB and 128 lines, but PIPE_BUF bytes for a pipe, 8 lines
 * for a datagram socket of this machine, and one for a terminal. What is lost is only counted.
 */
void log_sink_add(struct log_sink *s, struct log_turn *t, int level, const char *text);

/*
 * Sends what was added with t: when it returns, all of that has left, or was dropped. To be called
 * before the thread sleeps, and before one of these sinks is freed.
 */
void log_turn_end(struct log_turn *t);

/*
 * Lines that were lost since the start, counted once for each target that did not get them
 * (messages to stderr included). UDP is counted as far as the other host says that nobody listens.
 */
uint64_t log_dropped(void);

/*
 * Sets the threshold of messages (default LOG_NOTICE; -d is LOG_DEBUG) and whether they go to
 * stderr (default: yes). Lets go of the stderr it had: call it again after stderr was redirected.
 */
void log_setup(int max_level, bool to_stderr);

/*
 * Opens what a message to stderr needs. For a process that shares its descriptors with others from now on: what it opened later
 * could be closed by them, and its number be somebody else's.
 */
void log_prepare(void);

/*
 * Lets go of the socket of a sink that knows where to connect: its next line does that anew. For who starts processes that share its
 * descriptors: each is to have a socket of its own, or one could close another's.
 */
void log_sink_rest(struct log_sink *s);

/*
 * Adds a sink (borrowed) that gets all messages too; log_clear_sinks() before the sinks are freed.
 * At most 16; -ENOSPC past that.
 */
int log_add_sink(struct log_sink *s);
void log_clear_sinks(void);

/* True if messages of this level are wanted: for callers whose arguments are expensive. */
bool log_wants(int level);

/*
 * Writes "[LEVEL]   (pid) : text" to stderr as HAProxy does (ALERT for LOG_ERR and worse, WARNING,
 * NOTICE, INFO, DEBUG; padded so that texts line up), and the text alone, with its level as the
 * priority, to the sinks. Keeps errno.
 */
void log_message(int level, const char *fmt, ...) PRINTF(2, 3);

#define log_alert(...) log_message(LOG_ALERT, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_message(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_message(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_wants(LOG_DEBUG))                                                          \
			log_message(LOG_DEBUG, __VA_ARGS__);                                       \
	} while (0)

#endif
