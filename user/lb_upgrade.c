/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb_upgrade.c - see lb_upgrade.h. */
#include "lb_upgrade.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "handover.h"
#include "lb.h"
#include "log.h"

/* ---- what both must have in common ---- */

#define FNV_BASIS 0xcbf29ce484222325

static uint64_t mix(uint64_t hash, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ p[i]) * 0x100000001b3; /* FNV-1a */
	return hash;
}

/* The ledger says "frontend 2", and a listener is one of a number: so names, addresses and their order must be the same. */
static uint64_t fingerprint(const struct config *c)
{
	uint64_t hash = FNV_BASIS;
	struct config_proxy *p;

	list_for_each(p, &c->proxies, entry) {
		unsigned int kind[] = { p->id, p->caps, p->disabled };
		struct config_server *s;
		struct config_bind *b;
		char at[ADDR_STRLEN];

		hash = mix(hash, p->name, strlen(p->name) + 1);
		hash = mix(hash, kind, sizeof(kind));
		list_for_each(s, &p->servers, entry)
			hash = mix(hash, s->name, strlen(s->name) + 1);
		list_for_each(b, &p->binds, entry) {
			addr_format(&b->addr, at);
			hash = mix(hash, at, strlen(at) + 1);
		}
	}
	return hash;
}

struct trait {
	const char *name;
	uint64_t value;
	const char *what;
};

#define TRAITS 11

static void get_traits(const struct lb *lb, struct trait ret[TRAITS])
{
	const struct trait traits[TRAITS] = {
		{ "ledger", LEDGER_VERSION, "version of the ledger" },
		{ "record", sizeof(struct ledger_record), "size of the ledger's records" },
		{ "flows", SHUNT_ABI_VERSION, "version of the flow contract" },
		{ "maxconn", lb->maxconn, "maxconn" },
		{ "threads", lb->nr_threads, "nbthread" },
		{ "area", LEDGER_AREA, "room for what is held" },
		{ "scratch", LEDGER_SCRATCH, "room for what is moved" },
		{ "exits", FLOW_EXIT_MAX, "number of the program's exits" },
		{ "limit", lb->config->global.splice_limit, "tune.splice.limit" },
		{ "pins", mix(FNV_BASIS, lb->config->global.pin_path, strlen(lb->config->global.pin_path)), "checksum of bpf-pin-path" },
		{ "proxies", fingerprint(lb->config), "checksum of the names of proxies and servers, and of the addresses of binds," },
	};

	memcpy(ret, traits, sizeof(traits));
}

void lb_offer(const struct lb *lb)
{
	struct trait traits[TRAITS];

	get_traits(lb, traits);
	for (int i = 0; i < TRAITS; i++)
		handover_give_number(traits[i].name, traits[i].value);
	handover_give_number("kernel-path", lb->splice != NULL);
	handover_give_number("unread", lb->unread);
	handover_give_number("started", lb->started_ns);
}

int lb_compare(const struct lb *lb)
{
	struct trait traits[TRAITS];
	uint64_t unread;
	int r = 0;

	if (handover_number("unread", &unread) && unread > SOCK_UNREAD_SHOWN) {
		log_alert("cannot take over: the running shunt asks for unread bytes in a way that this one does not know: that needs a restart");
		r = -EPROTO;
	}
	get_traits(lb, traits);
	for (int i = 0; i < TRAITS; i++) {
		uint64_t running = 0;

		if (handover_number(traits[i].name, &running) && running == traits[i].value)
			continue;
		log_alert("cannot take over: the %s is %" PRIu64 ", and %" PRIu64 " in the running shunt: that needs a restart",
			  traits[i].what, traits[i].value, running);
		r = -EPROTO;
	}
	return r;
}

void lb_reclaim(struct lb *lb)
{
	int r = lb->splice ? splice_reclaim(lb->splice) : 0;

	if (r < 0)
		log_alert("upgrade: cannot attach the verdict program again: %s", strerror(-r));
}

/* ---- counters ---- */

struct kept_process {
	uint32_t own_size, size; /* of this, and of each struct stats that follows, */
	uint64_t nr;		 /* and how many those are */
	struct process_stats stats;
};

/*
 * Frontends, then each backend and its servers: copies their counters into kept, or from there, or with kept == NULL neither. Returns how many there
 * are.
 */
static uint64_t copy(const struct lb *lb, struct stats *kept, bool back)
{
	struct frontend *f;
	struct backend *b;
	uint64_t nr = 0;

#define COPY(s) (kept ? (void)(back ? ((s) = kept[nr]) : (kept[nr] = (s))) : (void)0, nr++)
	list_for_each(f, &lb->pool->frontends, entry)
		COPY(f->stats);
	list_for_each(b, &lb->pool->backends, entry) {
		COPY(b->stats);
		for (uint32_t i = 0; i < b->conf->nr_servers; i++)
			COPY(b->servers[i].stats);
	}
#undef COPY
	return nr;
}

void lb_offer_counters(const struct lb *lb)
{
	struct kept_process process = { .own_size = sizeof(process), .size = sizeof(struct stats), .nr = copy(lb, NULL, false), .stats = lb->stats };
	__cleanup_free struct stats *kept = calloc(process.nr + 1, sizeof(*kept));
	__cleanup_close int fd = memfd_create("counters", MFD_CLOEXEC);
	size_t len = process.nr * sizeof(*kept);

	handover_withdraw_fd("counters"); /* of an attempt that failed: the number may be another's by now */
	if (kept)
		copy(lb, kept, false);
	if (!kept || fd < 0 || write(fd, &process, sizeof(process)) != sizeof(process) || write(fd, kept, len) != (ssize_t)len)
		log_warning("upgrade: no memory for the counters: they begin at 0");
	else
		handover_give_fd("counters", take_fd(&fd)); /* if nobody takes it, the next worker closes it */
}

void lb_take_counters(struct lb *lb)
{
	__cleanup_close int fd = handover_take_fd("counters");
	struct kept_process process;
	__cleanup_free struct stats *kept = NULL;
	size_t len;

	if (fd < 0)
		return;
	if (pread(fd, &process, sizeof(process), 0) != sizeof(process) || process.own_size != sizeof(process) ||
	    process.size != sizeof(*kept) || process.nr != copy(lb, NULL, false)) {
		log_warning("upgrade: the counters were others, and begin at 0");
		return;
	}
	len = process.nr * sizeof(*kept);
	kept = calloc(process.nr + 1, sizeof(*kept));
	if (!kept || pread(fd, kept, len, sizeof(process)) != (ssize_t)len)
		return;
	lb->stats = process.stats;
	copy(lb, kept, true);
}
