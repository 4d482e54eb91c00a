/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tcplog.c - see tcplog.h. */
#include "tcplog.h"

#include <inttypes.h>
#include <stdio.h>

#include "util.h"

/* Not strftime's %b: the names are the format's, whatever the locale. */
static const char month_names[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
				      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

size_t tcplog_format(const struct tcplog *t, char *buf, size_t size)
{
	char host[ADDR_STRLEN];
	struct tm tm;
	int n;

	if (!size)
		return 0;
	localtime_r(&t->accepted.tv_sec, &tm);
	n = snprintf(buf, size,
		     "%s:%u [%02d/%s/%04d:%02d:%02d:%02d.%03ld] %s %s/%s "
		     "%" PRId64 "/%" PRId64 "/%" PRId64 " %" PRIu64 " %.2s "
		     "%u/%u/%u/%u/%s%u %u/%u",
		     addr_format_host(&t->client, host), addr_port(&t->client), tm.tm_mday,
		     month_names[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec,
		     t->accepted.tv_nsec / 1000000, t->frontend,
		     t->backend ? t->backend : t->frontend, t->server ? t->server : "<NOSRV>",
		     t->queue_ms, t->connect_ms, t->total_ms, t->bytes_to_client,
		     t->state[0] ? t->state : "--", t->process_conns, t->frontend_conns,
		     t->backend_conns, t->server_conns, t->redispatched ? "+" : "", t->retries,
		     t->server_queue, t->backend_queue);
	if (n < 0) {
		buf[0] = '\0';
		return 0;
	}
	return MIN((size_t)n, size - 1);
}
