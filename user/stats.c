/* SPDX-License-Identifier: GPL-2.0-or-later */
/* stats.c - see stats.h. */
#include "stats.h"

void rate_add(struct rate *r, uint64_t now_s)
{
	uint64_t old = stat_get(r->current), new;

	do {
		new = RATE_SECOND(old) < now_s ? now_s << 32 | 1 : old + 1;
	} while (!__atomic_compare_exchange_n(&r->current, &old, new, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	/* Who was held up here for a second must not put an older one in the place of a later. */
	if (RATE_SECOND(old) != RATE_SECOND(new))
		stat_max(r->previous, old);
	stat_max(r->max, RATE_COUNT(new));
}

uint32_t rate_get(const struct rate *r, uint64_t now_s)
{
	uint64_t current = stat_get(r->current), previous = stat_get(r->previous);

	if (RATE_SECOND(current) >= now_s) { /* later, if another thread's clock is */
		if (RATE_SECOND(previous) + 1 != RATE_SECOND(current))
			return RATE_COUNT(current);
		return MAX(RATE_COUNT(previous), RATE_COUNT(current));
	}
	return RATE_SECOND(current) + 1 == now_s ? RATE_COUNT(current) : 0;
}

uint64_t rate_last(const struct rate *r)
{
	return RATE_SECOND(stat_get(r->current));
}

void stats_enter(struct stats *s, uint64_t now_s)
{
	uint32_t current = stat_add(s->current, 1) + 1;

	stat_add(s->sessions, 1);
	stat_max(s->max, current);
	rate_add(&s->rate, now_s);
}

void stats_reenter(struct stats *s)
{
	stat_max(s->max, stat_add(s->current, 1) + 1);
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
