/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ledger.c - see ledger.h. */
#include "ledger.h"

#include <string.h>

#include "shared.h"
#include "util.h"

#define LINE 64 /* of the cache: what a thread writes all the time has one of its own */

/* What one thread has. */
struct part {
	uint32_t first, max;
	uint32_t used;	/* atomic: others read it */
	uint32_t *free; /* of the free numbers, a stack: what was used last is warm */
	char pad[40]; /* to a cache line of its own */
};

struct ledger {
	struct ledger_record *records; /* the shared mapping */
	uint32_t max, nr_parts;
	uint32_t *free;	 /* of all parts, one behind the other */
	uint64_t *serial;  /* in the mapping, behind the records; atomic */
	uint32_t *serving; /* and behind that, for each thread */
	char *areas, *scratches; /* two for each record, one for each thread; shared */
	struct part parts[];
};

const char *ledger_state_name(enum ledger_state s)
{
	switch (s) {
	case LEDGER_FREE:
		return "FREE";
	case LEDGER_QUEUED:
		return "QUEUED";
	case LEDGER_CONNECTING:
		return "CONNECTING";
	case LEDGER_RELAY:
		return "RELAY";
	case LEDGER_JOINING:
		return "JOINING";
	case LEDGER_SPLICED:
		return "SPLICED";
	case LEDGER_FLUSH:
		return "FLUSH";
	}
	return "?";
}

void ledger_addr_set(struct ledger_addr *to, const struct addr *from)
{
	*to = (struct ledger_addr){.family = from->sa.sa_family};
	if (from->sa.sa_family == AF_INET) {
		memcpy(to->ip, &from->in.sin_addr, 4);
		to->port = from->in.sin_port;
	} else if (from->sa.sa_family == AF_INET6) {
		memcpy(to->ip, &from->in6.sin6_addr, 16);
		to->port = from->in6.sin6_port;
	}
}

void ledger_addr_get(const struct ledger_addr *from, struct addr *to)
{
	*to = (struct addr){.sa.sa_family = from->family};
	if (from->family == AF_INET) {
		memcpy(&to->in.sin_addr, from->ip, 4);
		to->in.sin_port = from->port;
	} else if (from->family == AF_INET6) {
		memcpy(&to->in6.sin6_addr, from->ip, 16);
		to->in6.sin6_port = from->port;
	}
}

uint32_t ledger_first(const struct ledger *l, uint32_t thread)
{
	return l->parts[thread].first;
}

uint32_t ledger_share(const struct ledger *l, uint32_t thread)
{
	return l->parts[thread].max;
}

static size_t records_size(const struct ledger *l)
{
	return l->max * sizeof(*l->records) + LINE + l->nr_parts * (size_t)LINE;
}

/* Of these two all else follows. */
static void use(struct ledger *l, struct ledger_record *records, char *scratches)
{
	l->records = records;
	l->serial = (uint64_t *)&records[l->max];
	l->serving = (uint32_t *)(l->serial + LINE / sizeof(*l->serial));
	l->scratches = scratches;
	ledger_recover(l);
}

int ledger_new(struct ledger **ret, uint32_t max_sessions, uint32_t threads)
{
	struct ledger *l = calloc(1, sizeof(*l) + threads * sizeof(struct part));
	uint32_t first = 0;

	if (!l)
		return -ENOMEM;
	l->max = max_sessions;
	l->nr_parts = threads;
	l->free = calloc(max_sessions, sizeof(*l->free));
	l->records = shared_new(records_size(l));
	l->scratches = shared_new((size_t)threads * LEDGER_SCRATCH);
	if (!l->free || !l->records || !l->scratches) {
		ledger_free(l);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < threads; i++) {
		uint32_t max = max_sessions / threads + (i < max_sessions % threads);
		struct part *p = &l->parts[i];

		*p = (struct part){.first = first, .max = max, .free = l->free + first};
		first += max;
	}
	use(l, l->records, l->scratches);
	*ret = l;
	return 0;
}

struct ledger *ledger_free(struct ledger *l)
{
	if (l) {
		shared_free(l->areas);
		shared_free(l->scratches);
		shared_free(l->records);
		free(l->free);
		free(l);
	}
	return NULL;
}

int ledger_keep(struct ledger *l)
{
	struct ledger_record *records = shared_new_kept("ledger", records_size(l));
	char *scratches = records ? shared_new_kept("scratches", (size_t)l->nr_parts * LEDGER_SCRATCH) : NULL;
	char *areas = scratches ? shared_new_kept("areas", (size_t)l->max * 2 * LEDGER_AREA) : NULL;

	if (!areas) {
		int r = -errno;

		shared_free(scratches);
		shared_free(records);
		return r;
	}
	shared_free(l->records);
	shared_free(l->scratches);
	l->areas = areas;
	use(l, records, scratches);
	return 0;
}

void ledger_recover(struct ledger *l)
{
	for (uint32_t i = 0; i < l->nr_parts; i++) {
		struct part *p = &l->parts[i];
		uint32_t nr = 0;

		/* The lowest number lies on top. */
		for (uint32_t n = p->max; n > 0; n--)
			if (l->records[p->first + n - 1].state == LEDGER_FREE)
				p->free[nr++] = p->first + n - 1;
		__atomic_store_n(&p->used, p->max - nr, __ATOMIC_RELAXED);
	}
}

int ledger_take(struct ledger *l, uint32_t thread, uint32_t *ret)
{
	struct part *p = &l->parts[thread];
	uint32_t session;

	if (p->used == p->max)
		return -ENOSPC;
	session = p->free[p->max - 1 - p->used];
	__atomic_store_n(&p->used, p->used + 1, __ATOMIC_RELAXED);
	l->records[session] = (struct ledger_record){
		.serial = __atomic_add_fetch(l->serial, 1, __ATOMIC_RELAXED),
		.fd = {-1, -1},
	};
	*ret = session;
	return 0;
}

static struct part *part_of(struct ledger *l, uint32_t session)
{
	struct part *p = l->parts;

	while (session >= p->first + p->max)
		p++;
	return p;
}

void ledger_release(struct ledger *l, uint32_t session)
{
	struct part *p = part_of(l, session);

	l->records[session].state = LEDGER_FREE;
	__atomic_store_n(&p->used, p->used - 1, __ATOMIC_RELAXED);
	p->free[p->max - 1 - p->used] = session;
}

char *ledger_area(struct ledger *l, uint32_t session, int direction)
{
	return l->areas ? l->areas + (session * 2ull + (uint64_t)direction) * LEDGER_AREA : NULL;
}

void *ledger_scratch(struct ledger *l, uint32_t thread)
{
	return l->scratches + (size_t)thread * LEDGER_SCRATCH;
}

uint32_t *ledger_serving(struct ledger *l, uint32_t thread)
{
	return &l->serving[thread * (LINE / sizeof(*l->serving))];
}

struct ledger_record *ledger_get(struct ledger *l, uint32_t session)
{
	return &l->records[session];
}

uint32_t ledger_max(const struct ledger *l)
{
	return l->max;
}

uint32_t ledger_used(const struct ledger *l)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < l->nr_parts; i++)
		used += __atomic_load_n(&l->parts[i].used, __ATOMIC_RELAXED);
	return used;
}
