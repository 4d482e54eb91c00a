/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log_line.c - what a log line looks like; see log.h. */
#include "log_sink.h"

#include <stdarg.h>
#include <string.h>

void log_line_printf(struct log_line *l, const char *fmt, ...)
{
	size_t room = LINE_SIZE - l->len; /* the NUL lies where the newline will be */
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(l->bytes + l->len, room, fmt, ap);
	va_end(ap);
	if (n > 0)
		l->len += MIN((size_t)n, room - 1);
}

void log_line_end(struct log_line *l)
{
	unsigned char *p = (unsigned char *)l->bytes, *end = p + l->len;

	for (; p < end; p++) {
		if (*p < 0x20 || *p == 0x7f) {
			*p = ' ';
		} else if (*p == 0xc2 && p + 1 < end && p[1] >= 0x80 && p[1] <= 0x9f) {
			p[0] = p[1] = ' ';
		}
	}
	*end = '\n';
	l->len++;
}

static const char *month_name(int month)
{
	static const char names[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					"Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

	return names[month % 12];
}

void log_line_header(struct log_line *l, const struct log_sink *s, int level)
{
	int priority = s->facility * 8 + level, east;
	struct timespec now;
	struct tm tm;

	if (s->format == LOG_FORMAT_RAW)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	if (s->format == LOG_FORMAT_RFC3164) {
		log_line_printf(l, "<%d>%s %2d %02d:%02d:%02d %s[%d]: ", priority,
				month_name(tm.tm_mon), tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
				s->tag, (int)getpid());
		return;
	}
	east = (int)(tm.tm_gmtoff / 60);
	log_line_printf(l, "<%d>1 %04d-%02d-%02dT%02d:%02d:%02d.%06ld%c%02d:%02d %s %s %d - - ",
			priority, tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
			tm.tm_min, tm.tm_sec, now.tv_nsec / 1000, east < 0 ? '-' : '+',
			abs(east) / 60, abs(east) % 60, s->host, s->tag, (int)getpid());
}
