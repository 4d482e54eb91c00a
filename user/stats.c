/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stats.c - see stats.h. */
#include "stats.h"

static void rate_turn(struct rate *r, uint64_t now_s)
{
	if (r->second == now_s)
		return;
	r->previous = r->second + 1 == now_s ? r->current : 0;
	r->current = 0;
	r->second = now_s;
}

void rate_add(struct rate *r, uint64_t now_s)
{
	rate_turn(r, now_s);
	r->current++;
	r->max = MAX(r->max, r->current);
}

uint32_t rate_get(const struct rate *r, uint64_t now_s)
{
	struct rate copy = *r;

	rate_turn(&copy, now_s);
	return MAX(copy.previous, copy.current);
}

void stats_enter(struct stats *s, uint64_t now_s)
{
	uint32_t current = stat_add(s->current, 1) + 1;

	stat_add(s->sessions, 1);
	s->max = MAX(s->max, current);
	rate_add(&s->rate, now_s);
}

void stats_leave(struct stats *s)
{
	stat_sub(s->current, 1);
}

const char *fallback_name(enum splice_fallback f)
{
	switch (f) {
	case FALLBACK_NONE:
		return "none";
	case FALLBACK_OFF:
		return "off";
	case FALLBACK_UNAVAILABLE:
		return "unavailable";
	case FALLBACK_HALF_CLOSED:
		return "half-closed";
	case FALLBACK_NO_MEMORY:
		return "no-memory";
	case FALLBACK_BUSY:
		return "busy";
	case FALLBACK_OTHER:
		return "other";
	case FALLBACK_MAX:
		break;
	}
	return "?";
}

enum splice_fallback fallback_of(int error)
{
	switch (error) {
	case 0:
		return FALLBACK_NONE;
	case -EOPNOTSUPP:
		return FALLBACK_HALF_CLOSED;
	case -ENOMEM:
		return FALLBACK_NO_MEMORY;
	case -EBUSY:
	case -EEXIST:
	case -EINVAL:
		return FALLBACK_BUSY;
	}
	return FALLBACK_OTHER;
}
