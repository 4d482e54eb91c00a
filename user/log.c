/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log.c - the daemon's own messages; see log.h. */
#include "log.h"

#include <pthread.h>
#include <stdarg.h>

#include "log_sink.h"

#define SINKS_MAX 16

/* The process's message targets: with the count of dropped lines (log_sink.c) the only global state
 * of the daemon. Set up while there is one thread. */
static struct {
	pthread_mutex_t lock; /* guards stderr_ready and stderr_sink */
	int max_level;
	bool to_stderr;
	bool stderr_ready; /* stderr_sink was set up (perhaps without a descriptor) */
	struct log_sink *sinks[SINKS_MAX]; /* borrowed */
	size_t nr_sinks;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .max_level = LOG_NOTICE, .to_stderr = true};

static struct log_sink stderr_sink;

void log_setup(int max_level, bool to_stderr)
{
	if (state.stderr_ready)
		log_sink_close(&stderr_sink);
	state.stderr_ready = false;
	state.max_level = max_level;
	state.to_stderr = to_stderr;
}

int log_add_sink(struct log_sink *s)
{
	if (state.nr_sinks == SINKS_MAX)
		return -ENOSPC;
	state.sinks[state.nr_sinks++] = s;
	return 0;
}

void log_clear_sinks(void)
{
	state.nr_sinks = 0;
}

bool log_wants(int level)
{
	return level <= state.max_level;
}

static const char *level_label(int level)
{
	switch (level) {
	case LOG_WARNING:
		return "[WARNING]";
	case LOG_NOTICE:
		return "[NOTICE]";
	case LOG_INFO:
		return "[INFO]";
	case LOG_DEBUG:
		return "[DEBUG]";
	}
	return "[ALERT]";
}

static void open_stderr(void)
{
	static const struct log_target target = {
		.kind = LOG_TARGET_STDERR,
		.format = LOG_FORMAT_RAW,
		.max_level = LOG_DEBUG,
	};

	if (state.stderr_ready)
		return;
	log_sink_init(&stderr_sink, &target, "");
	log_sink_open_fd(&stderr_sink, STDERR_FILENO);
	state.stderr_ready = true;
}

void log_prepare(void)
{
	pthread_mutex_lock(&state.lock);
	if (state.to_stderr)
		open_stderr();
	pthread_mutex_unlock(&state.lock);
}

static void write_stderr(int level, const char *text)
{
	struct log_line l;

	pthread_mutex_lock(&state.lock);
	open_stderr();
	l.len = 0;
	log_line_printf(&l, "%-10s (%d) : %s", level_label(level), (int)getpid(), text);
	log_line_end(&l);
	log_sink_put(&stderr_sink, &l);
	pthread_mutex_unlock(&state.lock);
}

void log_message(int level, const char *fmt, ...)
{
	char text[LINE_SIZE];
	int saved = errno;
	va_list ap;

	if (!log_wants(level))
		return;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	if (state.to_stderr)
		write_stderr(level, text);
	for (size_t i = 0; i < state.nr_sinks; i++)
		log_sink_write(state.sinks[i], level, text);
	errno = saved;
}
