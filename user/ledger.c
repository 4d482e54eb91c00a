/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ledger.c - see ledger.h. */
#include "ledger.h"

#include <string.h>
#include <sys/mman.h>

#include "util.h"

struct ledger {
	struct ledger_record *records; /* the shared mapping */
	uint32_t *free;		       /* free numbers, a stack: what was used last is warm */
	uint32_t max, nr_free;
	uint64_t serial;
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
	case LEDGER_SPLICED:
		return "SPLICED";
	case LEDGER_FLUSH:
		return "FLUSH";
	}
	return "?";
}

void ledger_addr_set(struct ledger_addr *to, const struct addr *from)
{
	*to = (struct ledger_addr){ .family = from->sa.sa_family };
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
	*to = (struct addr){ .sa.sa_family = from->family };
	if (from->family == AF_INET) {
		memcpy(&to->in.sin_addr, from->ip, 4);
		to->in.sin_port = from->port;
	} else if (from->family == AF_INET6) {
		memcpy(&to->in6.sin6_addr, from->ip, 16);
		to->in6.sin6_port = from->port;
	}
}

int ledger_new(struct ledger **ret, uint32_t max_sessions)
{
	struct ledger *l = calloc(1, sizeof(*l));
	void *map;

	if (!l)
		return -ENOMEM;
	l->max = max_sessions;
	l->free = calloc(max_sessions, sizeof(*l->free));
	map = mmap(NULL, (size_t)max_sessions * sizeof(*l->records), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!l->free || map == MAP_FAILED) {
		if (map != MAP_FAILED)
			munmap(map, (size_t)max_sessions * sizeof(*l->records));
		free(l->free);
		free(l);
		return -ENOMEM;
	}
	l->records = map;
	for (uint32_t i = 0; i < max_sessions; i++)
		l->free[i] = max_sessions - 1 - i;
	l->nr_free = max_sessions;
	*ret = l;
	return 0;
}

struct ledger *ledger_free(struct ledger *l)
{
	if (l) {
		munmap(l->records, (size_t)l->max * sizeof(*l->records));
		free(l->free);
		free(l);
	}
	return NULL;
}

int ledger_take(struct ledger *l, uint32_t *ret)
{
	uint32_t session;

	if (!l->nr_free)
		return -ENOSPC;
	session = l->free[--l->nr_free];
	l->records[session] = (struct ledger_record){ .serial = ++l->serial, .fd = { -1, -1 } };
	*ret = session;
	return 0;
}

void ledger_release(struct ledger *l, uint32_t session)
{
	l->records[session].state = LEDGER_FREE;
	l->free[l->nr_free++] = session;
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
	return l->max - l->nr_free;
}
