/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pool.c - see pool.h. */
#include "pool.h"

#include <string.h>

#include "shared.h"

const char *server_state_name(enum server_state s)
{
	switch (s) {
	case SERVER_READY:
		return "ready";
	case SERVER_DRAIN:
		return "drain";
	case SERVER_MAINT:
		return "maint";
	}
	return "?";
}

/* ---- building ---- */

/* Opens at most `max` of the targets of `whose`; returns how many. */
static uint32_t open_sinks(const struct config_global *g, const struct list *targets,
			   const char *whose, struct log_sink **sinks, uint32_t max)
{
	struct log_target *t;
	uint32_t nr = 0;

	list_for_each(t, targets, entry) {
		bool is_stderr = t->kind == LOG_TARGET_STDERR;
		int r;

		/* They are the starter's: whoever reads its pipe would never see the end. */
		if (g->daemon && (is_stderr || t->kind == LOG_TARGET_STDOUT)) {
			log_warning("%s: 'log %s' is left out: in the background there is none",
				    whose, is_stderr ? "stderr" : "stdout");
			continue;
		}
		r = nr < max ? log_sink_open(&sinks[nr], t, g->log_tag) : -ENOSPC;
		if (r == 0)
			nr++;
		else
			log_warning("%s: a log target is left out: %s", whose, strerror(-r));
	}
	return nr;
}

static void init_lock(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

static int backend_new(struct pool *p, const struct config_proxy *conf)
{
	__cleanup_free uint32_t *weights = calloc(conf->nr_servers + 1, sizeof(*weights));
	struct backend *b = shared_new(sizeof(*b));
	struct config_server *s;
	uint32_t n = 0;

	if (!weights || !b)
		goto no_memory;
	b->conf = conf;
	list_init(&b->queue);
	init_lock(&b->lock);
	b->servers = shared_new((conf->nr_servers + 1) * sizeof(*b->servers));
	if (!b->servers)
		goto no_memory;
	list_for_each(s, &conf->servers, entry) {
		b->servers[n] = (struct server){
			.conf = s,
			.backend = b,
			.weight = s->weight,
			.state = s->disabled || conf->disabled ? SERVER_MAINT : SERVER_READY,
			.changed_ns = now_ns(),
		};
		weights[n++] = s->weight;
	}
	if (balance_init(&b->balance, weights, n) < 0)
		goto no_memory;
	list_add_tail(&p->backends, &b->entry);
	return 0;

no_memory:
	if (b)
		shared_free(b->servers);
	shared_free(b);
	return -ENOMEM;
}

static struct backend *find_backend(struct pool *p, const struct config_proxy *conf)
{
	struct backend *b;

	list_for_each(b, &p->backends, entry) {
		if (b->conf == conf)
			return b;
	}
	return NULL;
}

static int frontend_new(struct pool *p, const struct config_global *g,
			const struct config_proxy *conf, uint32_t maxconn)
{
	struct frontend *f = shared_new(sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->conf = conf;
	f->backend = find_backend(p, conf->backend);
	f->maxconn = conf->maxconn ? MIN(conf->maxconn, maxconn) : maxconn;
	f->nr_own_sinks = open_sinks(g, &conf->log_targets, conf->name, f->sinks,
				     ARRAY_SIZE(p->global_sinks));
	f->nr_sinks = f->nr_own_sinks;
	for (uint32_t i = 0; conf->log_global && i < p->nr_global_sinks; i++)
		f->sinks[f->nr_sinks++] = p->global_sinks[i];
	list_add_tail(&p->frontends, &f->entry);
	return 0;
}

int pool_new(struct pool **ret, const struct config *c, uint32_t maxconn)
{
	struct pool *p = calloc(1, sizeof(*p));
	struct config_proxy *conf;
	int r = 0;

	if (!p)
		return -ENOMEM;
	list_init(&p->frontends);
	list_init(&p->backends);
	p->nr_global_sinks = open_sinks(&c->global, &c->global.log_targets, "global",
					p->global_sinks, ARRAY_SIZE(p->global_sinks));
	list_for_each(conf, &c->proxies, entry) {
		if (r == 0 && (conf->caps & PROXY_BACKEND))
			r = backend_new(p, conf);
	}
	list_for_each(conf, &c->proxies, entry) {
		if (r == 0 && (conf->caps & PROXY_FRONTEND) && !conf->disabled)
			r = frontend_new(p, &c->global, conf, maxconn);
	}
	if (r < 0) {
		pool_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct pool *pool_free(struct pool *p)
{
	struct frontend *f, *next_f;
	struct backend *b, *next_b;

	if (!p)
		return NULL;
	list_for_each_safe(f, next_f, &p->frontends, entry) {
		for (uint32_t i = 0; i < f->nr_own_sinks; i++)
			log_sink_free(f->sinks[i]);
		shared_free(f);
	}
	list_for_each_safe(b, next_b, &p->backends, entry) {
		balance_done(&b->balance);
		pthread_mutex_destroy(&b->lock);
		shared_free(b->servers);
		shared_free(b);
	}
	for (uint32_t i = 0; i < p->nr_global_sinks; i++)
		log_sink_free(p->global_sinks[i]);
	free(p);
	return NULL;
}

/* ---- after a worker's death ---- */

static void forget_current(struct stats *s)
{
	stat_set(s->current, 0);
	stat_set(s->queued, 0);
}

void pool_forget_sessions(struct pool *p)
{
	struct frontend *f;
	struct backend *b;

	list_for_each(f, &p->frontends, entry) {
		forget_current(&f->stats);
		f->taken = 0;
		f->full = false;
	}
	list_for_each(b, &p->backends, entry) {
		init_lock(&b->lock); /* its holder may have died */
		list_init(&b->queue);
		forget_current(&b->stats);
		for (uint32_t i = 0; i < b->conf->nr_servers; i++)
			forget_current(&b->servers[i].stats);
	}
}

void pool_add_sinks(struct pool *p)
{
	log_clear_sinks();
	for (uint32_t i = 0; i < p->nr_global_sinks; i++)
		log_add_sink(p->global_sinks[i]);
}

void pool_rest_sinks(struct pool *p)
{
	struct frontend *f;

	for (uint32_t i = 0; i < p->nr_global_sinks; i++)
		log_sink_rest(p->global_sinks[i]);
	list_for_each(f, &p->frontends, entry)
		for (uint32_t i = 0; i < f->nr_own_sinks; i++)
			log_sink_rest(f->sinks[i]);
}

struct frontend *pool_frontend(struct pool *p, uint16_t id)
{
	struct frontend *f;

	list_for_each(f, &p->frontends, entry)
		if (f->conf->id == id)
			return f;
	return NULL;
}

struct backend *pool_backend(struct pool *p, uint16_t id)
{
	struct backend *b;

	list_for_each(b, &p->backends, entry)
		if (b->conf->id == id)
			return b;
	return NULL;
}

/* ---- picking ---- */

bool pool_tried_has(const struct pool_tried *t, uint32_t number)
{
	return t->bits && (t->bits[number / 64] >> (number % 64) & 1);
}

int pool_tried_add(struct pool_tried *t, const struct backend *b, uint32_t number)
{
	if (!t->bits) {
		t->bits = calloc(b->conf->nr_servers / 64 + 1, sizeof(*t->bits));
		if (!t->bits)
			return -ENOMEM;
	}
	t->bits[number / 64] |= 1ull << (number % 64);
	return 0;
}

void pool_tried_done(struct pool_tried *t)
{
	free(t->bits);
	t->bits = NULL;
}

struct pick {
	struct backend *backend;
	const struct pool_tried *tried;
	bool behind; /* others wait for a place: only servers without maxconn are free to take */
	bool full;   /* somebody would do, but has no place */
};

static bool usable(void *arg, uint32_t number)
{
	struct pick *pick = arg;
	struct server *s = &pick->backend->servers[number];

	if (s->state != SERVER_READY || pool_tried_has(pick->tried, number))
		return false;
	if (s->conf->maxconn && (pick->behind || stat_get(s->stats.current) >= s->conf->maxconn)) {
		pick->full = true;
		return false;
	}
	return true;
}

void pool_lock(struct backend *b)
{
	pthread_mutex_lock(&b->lock);
}

void pool_unlock(struct backend *b)
{
	pthread_mutex_unlock(&b->lock);
}

int pool_pick(struct backend *b, const struct pool_tried *tried, bool waited, uint64_t now_s, struct server **ret)
{
	struct pick pick = { .backend = b, .tried = tried };
	int64_t number;

	pool_lock(b);
	pick.behind = !waited && !list_empty(&b->queue);
	number = balance_pick(&b->balance, usable, &pick);
	if (number >= 0)
		pool_enter(&b->servers[number], now_s);
	pool_unlock(b);
	if (number < 0)
		return pick.full ? -EAGAIN : -ENOENT;
	*ret = &b->servers[number];
	stat_add((*ret)->stats.chosen, 1);
	stat_add(b->stats.chosen, 1);
	return 0;
}

void pool_enter(struct server *s, uint64_t now_s)
{
	stats_enter(&s->stats, now_s);
}

void pool_wake(struct backend *b)
{
	pool_lock(b);
	if (!list_empty(&b->queue)) {
		struct pool_wait *w = list_first(&b->queue, struct pool_wait, entry);

		w->fn(w);
	}
	pool_unlock(b);
}

void pool_leave(struct server *s)
{
	stats_leave(&s->stats);
	pool_wake(s->backend);
}

void pool_wait(struct backend *b, struct pool_wait *w)
{
	uint32_t queued = stat_add(b->stats.queued, 1) + 1;

	pool_lock(b);
	list_add_tail(&b->queue, &w->entry);
	w->waiting = true;
	stat_max(b->stats.queued_max, queued);
	pool_unlock(b);
}

void pool_unwait(struct backend *b, struct pool_wait *w)
{
	if (!w->waiting)
		return;
	pool_lock(b);
	list_del(&w->entry);
	w->waiting = false;
	pool_unlock(b);
	stat_sub(b->stats.queued, 1);
}
