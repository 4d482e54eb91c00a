/* SPDX-License-Identifier: GPL-2.0-or-later */
/* lb_adopt.c - see lb_adopt.h. */
#include "lb_adopt.h"

#include "fdtable.h"
#include "lb.h"
#include "log.h"

#define CRASHES_MAX 2	  /* workers that may die over a session, */
#define CRASH_MEMORY_S 60 /* one within so many seconds of the other */

/* ---- what the dead one left ---- */

/*
 * What the dead one had under way that is not in the ledger is over; who was its client is counted again when its session is adopted. Who was
 * joining and has lost an end is lost, and nobody else knows under which cookies it joined.
 */
static bool is_taken(void *arg, uint32_t session)
{
	struct lb *lb = arg;
	const struct ledger_record *r = ledger_get(lb->ledger, session);

	return r->state != LEDGER_FREE && (r->state != LEDGER_JOINING || (r->fd[0] >= 0 && r->fd[1] >= 0));
}

/* Its session has no record any more, and what has none is swept, with a reset. It must not be taken for a new client's. */
static void drop_record(struct lb *lb, struct ledger_record *r)
{
	struct addr client;

	ledger_addr_get(&r->client, &client);
	if (r->fd[0] >= 0 && sock_is_fresh(r->fd[0]) && sock_is_connected_to(r->fd[0], &client))
		sock_end_reset(r->fd[0]);
	stat_add(lb->stats.resets_sent, 1);
	stat_add(lb->stats.lost, 1);
	r->state = LEDGER_FREE;
}

/* Who is served whenever a worker dies may be why: it is not served a second time after that. */
static void drop_poison(struct lb *lb)
{
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		uint32_t *serving = ledger_serving(lb->ledger, i);
		struct ledger_record *r = NULL;

		if (*serving && *serving <= ledger_max(lb->ledger))
			r = ledger_get(lb->ledger, *serving - 1);
		if (r && r->state != LEDGER_FREE)
			r->served = 1; /* until it has been adopted, however many workers that takes */
		__atomic_store_n(serving, 0, __ATOMIC_RELEASE);
		if (!r || r->state == LEDGER_FREE)
			continue;
		if (now_ns() - r->crashed_ns > CRASH_MEMORY_S * NS_PER_SEC)
			r->crashes = 0; /* it is not why */
		r->crashed_ns = now_ns();
		if (++r->crashes < CRASHES_MAX)
			continue;
		log_alert("session %lu (%s) is reset: %u workers died while they served it", (unsigned long)r->serial,
			  ledger_state_name(r->state), r->crashes);
		drop_record(lb, r);
	}
}

/* Only who has the kernel path can have joined, and who has joined has told the map of it. */
static bool has_path(const struct lb *lb, const struct ledger_record *r)
{
	if (!lb->splice)
		return r->state != LEDGER_JOINING && r->state != LEDGER_SPLICED && !r->cookie[0] && !r->cookie[1];
	return r->state != LEDGER_SPLICED || (r->cookie[0] && r->cookie[1]);
}

/* Whatever the worker died of may have written into the ledger. */
static bool is_sane(const struct lb *lb, const struct ledger_record *r)
{
	const struct frontend *fe = pool_frontend(lb->pool, r->frontend);
	const struct backend *be = pool_backend(lb->pool, r->backend);

	return r->state <= LEDGER_FLUSH && fe && be && r->server <= be->conf->nr_servers && r->fallback < FALLBACK_MAX &&
	       r->fd[0] >= -1 && r->fd[0] < (int)lb->nofile && r->fd[1] >= -1 && r->fd[1] < (int)lb->nofile &&
	       r->held[0] <= LEDGER_AREA && r->held[1] <= LEDGER_AREA && r->broken <= 1 &&
	       has_path(lb, r);
}

static void drop_nonsense(struct lb *lb)
{
	for (uint32_t i = 0; i < ledger_max(lb->ledger); i++) {
		struct ledger_record *r = ledger_get(lb->ledger, i);

		if (r->state == LEDGER_FREE || is_sane(lb, r))
			continue;
		log_alert("session %lu is reset: its record makes no sense", (unsigned long)r->serial);
		drop_record(lb, r);
	}
}

/* A client that was accepted and did not get into the ledger. */
static bool is_new_client(void *arg, int fd)
{
	struct lb *lb = arg;
	uint32_t i, n = lb->nr_listeners;
	struct new_client *more;

	for (i = 0; i < 2 * n; i++)
		if (listener_has_accepted(lb->listeners[i % n].listener, fd, i >= n))
			break;
	if (i == 2 * n || !sock_is_fresh(fd))
		return false;
	more = reallocarray(lb->new_clients, lb->nr_new_clients + 1, sizeof(*more));
	if (!more)
		return false;
	lb->new_clients = more;
	more[lb->nr_new_clients++] = (struct new_client){ .fd = fd, .listener = i % n };
	return true;
}

/* Only what is a record's own, and no other's: the rest is swept, or has another owner. */
static int keep_ends(struct ledger_record *r)
{
	for (int end = 0; r->state != LEDGER_FREE && end < 2; end++) {
		struct addr peer;

		ledger_addr_get(end ? &r->server_addr : &r->client, &peer);
		if (r->fd[end] < 0 || fdtable_has(r->fd[end]) || !sock_is_connected_to(r->fd[end], &peer))
			r->fd[end] = -1;
		else if (fdtable_keep(r->fd[end]) < 0)
			return -ENOMEM;
	}
	return 0;
}

int lb_forget_worker(struct lb *lb)
{
	int r = 0;

	if (!lb->resting) {
		stat_add(lb->stats.worker_deaths, 1);
		drop_poison(lb);
	}
	lb->resting = false;
	drop_nonsense(lb);
	ledger_recover(lb->ledger);
	pool_forget_sessions(lb->pool);
	lb->taken = lb->stats.current = 0;
	lb->budget.given = 0;
	lb->killed = false;
	lb->full = false;
	lb->scarce_until_ns = 0;
	/* They were closed, or are to be; their numbers may be others' now. */
	for (uint32_t i = 0; lb->stopping && i < lb->nr_listeners; i++)
		fdtable_drop(listener_fd(lb->listeners[i].listener));
	for (uint32_t i = 0; r == 0 && i < ledger_max(lb->ledger); i++)
		r = keep_ends(ledger_get(lb->ledger, i));
	pool_rest_sinks(lb->pool); /* what was said so far may have opened one, which stands in no record */
	if (r == 0)
		r = fdtable_sweep(is_new_client, lb); /* sockets leave the map as they are closed */
	for (uint32_t i = 0; lb->stopping && i < lb->nr_listeners; i++)
		lb->listeners[i].listener = listener_forget(lb->listeners[i].listener);
	if (lb->splice)
		splice_sweep(lb->splice, is_taken, lb);
	return MIN(r, 0);
}

/* ---- adopting ---- */

static void adopt_session(struct lb *lb, struct lb_thread *t, uint32_t number)
{
	const struct ledger_record *r = ledger_get(lb->ledger, number);
	struct frontend *fe = pool_frontend(lb->pool, r->frontend);
	struct backend *be = pool_backend(lb->pool, r->backend);

	*ledger_serving(lb->ledger, t->number) = number + 1; /* should this kill us too */
	lb->taken++;
	fe->taken++;
	t->load++;
	session_adopt(t->sessions, number, fe, be);
}

static int by_serial(const void *a, const void *b, void *arg)
{
	uint64_t x = ledger_get(arg, *(const uint32_t *)a)->serial, y = ledger_get(arg, *(const uint32_t *)b)->serial;

	return x < y ? -1 : x > y;
}

/* Is it anything but waiting? */
static bool has_state(const struct lb *lb, uint32_t number)
{
	uint32_t state = ledger_get(lb->ledger, number)->state;

	return state != LEDGER_FREE && state != LEDGER_QUEUED;
}

static struct lb_thread *thread_of(struct lb *lb, uint32_t number)
{
	uint32_t i = 0;

	while (number - ledger_first(lb->ledger, i) >= ledger_share(lb->ledger, i))
		i++;
	return &lb->threads[i];
}

static void admit_new_clients(struct lb *lb)
{
	for (uint32_t i = 0; i < lb->nr_new_clients; i++)
		lb_thread_admit(&lb->threads[0], lb->new_clients[i].listener, lb->new_clients[i].fd);
	free(lb->new_clients);
	lb->new_clients = NULL;
	lb->nr_new_clients = 0;
}

/* Who was waiting for a place comes last, in the order of waiting; then who did not get into the ledger. */
int lb_adopt_sessions(struct lb *lb)
{
	__cleanup_free uint32_t *queued = calloc(ledger_max(lb->ledger), sizeof(*queued));
	uint32_t nr = 0;

	if (!queued)
		return -ENOMEM;
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		struct lb_thread *t = &lb->threads[i];
		uint32_t first = ledger_first(lb->ledger, i), unsettled = sessions_unsettled(t->sessions);
		bool is_first = has_state(lb, unsettled);

		if (is_first)
			adopt_session(lb, t, unsettled);
		for (uint32_t n = first; n < first + ledger_share(lb->ledger, i); n++) {
			if (is_first && n == unsettled)
				continue;
			if (ledger_get(lb->ledger, n)->state == LEDGER_QUEUED)
				queued[nr++] = n;
			else if (has_state(lb, n))
				adopt_session(lb, t, n);
		}
	}
	qsort_r(queued, nr, sizeof(*queued), by_serial, lb->ledger);
	for (uint32_t i = 0; i < nr; i++)
		adopt_session(lb, thread_of(lb, queued[i]), queued[i]);
	admit_new_clients(lb);
	return 0;
}
