/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stats.c - see stats.h. */
#include "stats.h"

void rate_add(struct rate *r, uint64_t now_s)
{
	uint64_t second = stat_get(r->second);
	uint32_t current;

	/* Who changes the second begins the new count. A thread whose clock was read a moment earlier counts to the new one. */
	if (second < now_s && __atomic_compare_exchange_n(&r->second, &second, now_s, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
		stat_set(r->previous, second + 1 == now_s ? stat_get(r->current) : 0);
		stat_set(r->current, 0);
	}
	current = stat_add(r->current, 1) + 1;
	stat_max(r->max, current);
}

uint32_t rate_get(const struct rate *r, uint64_t now_s)
{
	uint64_t second = stat_get(r->second);
	uint32_t current = stat_get(r->current);

	if (second == now_s)
		return MAX(stat_get(r->previous), current);
	return second + 1 == now_s ? current : 0;
}

void stats_enter(struct stats *s, uint64_t now_s)
{
	uint32_t current = stat_add(s->current, 1) + 1;

	stat_add(s->sessions, 1);
	stat_max(s->max, current);
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
	case FALLBACK_CHOICE:
		return "choice";
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
