/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_pool.c - frontends, backends and servers made from a configuration; who is picked, who waits, who is next. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <string.h>

#include "conf.h"
#include "pool.h"
#include "threads.h"

static struct config config;
static struct config_proxy *proxy;
static struct config_server *server_conf[3];
static struct pool *pool;
static struct frontend *fe;
static struct backend *be;

/* A listen section with servers s0, s1, s2; the pool is made by start(). */
static int setup(void **state)
{
	char name[] = "s0";

	(void)state;
	conf_init(&config);
	proxy = conf_listen(&config, "web");
	for (size_t i = 0; i < ARRAY_SIZE(server_conf); i++, name[1]++)
		server_conf[i] = conf_server(proxy, name, NULL);
	pool = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pool_free(pool);
	conf_done(&config);
	return 0;
}

static void start(void)
{
	assert_int_equal(pool_new(&pool, &config, 100), 0);
	fe = list_first(&pool->frontends, struct frontend, entry);
	be = fe->backend;
}

/* Picks, and returns the server's number; or the error. waited: as one that was called from the queue. */
static int pick_as(const struct pool_tried *tried, bool waited)
{
	static const struct pool_tried none;
	struct server *s = NULL;
	int r = pool_pick(be, tried ? tried : &none, waited, 1, &s);

	if (r < 0) {
		assert_null(s);
		return r;
	}
	return (int)(s - be->servers);
}

static int pick(const struct pool_tried *tried)
{
	return pick_as(tried, false);
}

static void expect_picks(const char *numbers)
{
	for (; *numbers; numbers++)
		assert_int_equal(pick(NULL), *numbers - '0');
}

/* ---- building ---- */

static void pool_mirrors_the_configuration(void **state)
{
	struct config_proxy *front, *back;
	struct frontend *f;
	uint32_t nr = 0;

	(void)state;
	server_conf[1]->weight = 7;
	server_conf[2]->disabled = true;
	front = conf_listen(&config, "front");
	back = conf_listen(&config, "back");
	front->caps = PROXY_FRONTEND;
	front->backend = back;
	back->caps = PROXY_BACKEND;
	conf_listen(&config, "off")->disabled = true;
	start();
	assert_ptr_equal(fe->conf, proxy);
	assert_ptr_equal(be->conf, proxy);
	assert_int_equal(be->servers[0].state, SERVER_READY);
	assert_int_equal(be->servers[1].weight, 7);
	assert_int_equal(be->servers[2].state, SERVER_MAINT);
	for (size_t i = 0; i < ARRAY_SIZE(server_conf); i++) {
		assert_ptr_equal(be->servers[i].conf, server_conf[i]);
		assert_ptr_equal(be->servers[i].backend, be);
	}
	list_for_each(f, &pool->frontends, entry) {
		if (nr++ == 1) {
			assert_ptr_equal(f->conf, front);
			assert_ptr_equal(f->backend->conf, back);
		}
	}
	assert_int_equal(nr, 2);
}

static void smaller_maxconn_counts(void **state)
{
	struct frontend *f;
	uint32_t expected[] = { 100, 10, 100 }, i = 0;

	(void)state;
	conf_listen(&config, "small")->maxconn = 10;
	conf_listen(&config, "large")->maxconn = 1000;
	start();
	list_for_each(f, &pool->frontends, entry)
		assert_int_equal(f->maxconn, expected[i++]);
}

static void global_targets_are_shared_by_those_who_want_them(void **state)
{
	struct config_proxy *other = conf_listen(&config, "other");
	struct frontend *f;
	struct log_target *t;

	(void)state;
	conf_log(proxy, "/nowhere/a");
	conf_log(other, "/nowhere/b"); /* made a global one */
	t = list_first(&other->log_targets, struct log_target, entry);
	list_del(&t->entry);
	list_add_tail(&config.global.log_targets, &t->entry);
	proxy->log_global = true;
	start();
	assert_int_equal(pool->nr_global_sinks, 1);
	assert_int_equal(fe->nr_own_sinks, 1);
	assert_int_equal(fe->nr_sinks, 2);
	assert_ptr_equal(fe->sinks[1], pool->global_sinks[0]);
	f = list_first(&fe->entry, struct frontend, entry);
	assert_int_equal(f->nr_sinks, 0);
	list_del(&t->entry);
	list_add_tail(&proxy->log_targets, &t->entry); /* for conf_done() */
}

static void every_server_state_has_a_name(void **state)
{
	(void)state;
	assert_string_equal(server_state_name(SERVER_READY), "ready");
	assert_string_equal(server_state_name(SERVER_DRAIN), "drain");
	assert_string_equal(server_state_name(SERVER_MAINT), "maint");
}

/* They are the starter's, and would keep its pipe open. */
static void stdout_and_stderr_are_no_log_targets_in_the_background(void **state)
{
	static const enum log_target_kind kinds[] = {LOG_TARGET_STDOUT, LOG_TARGET_UNIX,
						     LOG_TARGET_STDERR};
	struct log_target global[ARRAY_SIZE(kinds)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		conf_log(proxy, "/nobody-listens-here");
		global[i] = *list_first(&proxy->log_targets, struct log_target, entry);
		global[i].kind = kinds[i];
		list_add_tail(&config.global.log_targets, &global[i].entry);
	}
	list_first(&proxy->log_targets, struct log_target, entry)->kind = LOG_TARGET_STDOUT;
	start();
	assert_int_equal(pool->nr_global_sinks, 3);
	assert_int_equal(fe->nr_own_sinks, 3);
	pool = pool_free(pool);
	config.global.daemon = true;
	start();
	assert_int_equal(pool->nr_global_sinks, 1);
	assert_int_equal(fe->nr_own_sinks, 2);
}

/* ---- picking ---- */

static void servers_take_turns_by_weight(void **state)
{
	(void)state;
	server_conf[0]->weight = 5;
	start();
	expect_picks("00102000010200");
	assert_int_equal(be->servers[0].stats.current, 10);
	assert_int_equal(be->servers[0].stats.chosen, 10);
	assert_int_equal(be->servers[1].stats.sessions, 2);
	assert_int_equal(be->stats.chosen, 14);
}

static void server_without_weight_or_not_ready_is_not_picked(void **state)
{
	(void)state;
	server_conf[1]->weight = 0;
	start();
	expect_picks("0202");
	be->servers[0].state = SERVER_DRAIN;
	expect_picks("222");
	be->servers[2].state = SERVER_MAINT;
	assert_int_equal(pick(NULL), -ENOENT);
	be->servers[0].state = SERVER_READY;
	expect_picks("00");
}

static void backend_without_servers_has_none(void **state)
{
	struct config_proxy *empty = conf_listen(&config, "empty");

	(void)state;
	start();
	be = list_first(&be->entry, struct backend, entry);
	assert_ptr_equal(be->conf, empty);
	assert_int_equal(pick(NULL), -ENOENT);
}

static void server_that_was_tried_is_not_picked(void **state)
{
	struct pool_tried tried = { 0 };

	(void)state;
	start();
	assert_false(pool_tried_has(&tried, 0));
	assert_int_equal(pool_tried_add(&tried, be, 0), 0);
	assert_true(pool_tried_has(&tried, 0));
	assert_false(pool_tried_has(&tried, 1));
	for (int i = 0; i < 6; i++)
		assert_true(pick(&tried) > 0);
	assert_int_equal(pool_tried_add(&tried, be, 2), 0);
	assert_int_equal(pick(&tried), 1);
	assert_int_equal(pool_tried_add(&tried, be, 1), 0);
	assert_int_equal(pick(&tried), -ENOENT);
	pool_tried_done(&tried);
	assert_false(pool_tried_has(&tried, 1));
}

static void a_thousand_servers_can_be_tried(void **state)
{
	struct pool_tried tried = { 0 };

	(void)state;
	while (proxy->nr_servers < CONFIG_SERVERS_MAX)
		conf_server(proxy, "more", NULL);
	start();
	for (uint32_t i = 0; i < CONFIG_SERVERS_MAX; i++) {
		int number = pick(&tried);

		assert_true(number >= 0 && !pool_tried_has(&tried, (uint32_t)number));
		assert_int_equal(pool_tried_add(&tried, be, (uint32_t)number), 0);
	}
	assert_int_equal(pick(&tried), -ENOENT);
	pool_tried_done(&tried);
}

static void disabled_backend_serves_nobody(void **state)
{
	struct config_proxy *front = conf_listen(&config, "front");

	(void)state;
	front->caps = PROXY_FRONTEND;
	front->backend = proxy;
	proxy->caps = PROXY_BACKEND;
	proxy->disabled = true;
	start();
	assert_ptr_equal(be->conf, proxy);
	assert_int_equal(pick(NULL), -ENOENT);
}

static void full_server_is_passed_over_and_all_full_means_wait(void **state)
{
	struct pool_tried tried = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(server_conf); i++)
		server_conf[i]->maxconn = 1;
	server_conf[1]->maxconn = 2;
	start();
	expect_picks("0121");
	assert_int_equal(pick(NULL), -EAGAIN);
	pool_leave(&be->servers[2]);
	expect_picks("2");
	/* A full server that was tried is nothing to wait for. */
	assert_int_equal(pool_tried_add(&tried, be, 0), 0);
	assert_int_equal(pool_tried_add(&tried, be, 1), 0);
	assert_int_equal(pick(&tried), -EAGAIN);
	be->servers[2].state = SERVER_DRAIN;
	assert_int_equal(pick(&tried), -ENOENT);
	pool_tried_done(&tried);
}

static void retry_keeps_its_place_even_at_a_full_server(void **state)
{
	(void)state;
	server_conf[0]->maxconn = 1;
	start();
	expect_picks("0");
	pool_enter(&be->servers[0], 1);
	assert_int_equal(be->servers[0].stats.current, 2);
	pool_leave(&be->servers[0]);
	pool_leave(&be->servers[0]);
	assert_int_equal(be->servers[0].stats.current, 0);
}

/* ---- waiting ---- */

struct waiter {
	struct pool_wait wait;
	char name;
	bool again; /* finds no place and waits anew */
};

static char called[32];

static void on_place(struct pool_wait *w)
{
	struct waiter *waiter = container_of(w, struct waiter, wait);

	called[strlen(called)] = waiter->name;
	assert_false(list_empty(&w->entry)); /* it keeps its place in the line until it is placed */
	if (waiter->again)
		return;
	assert_int_equal(pick_as(NULL, true), 0);
	pool_unwait(be, w);
}

static void waiters_init(struct waiter *w, uint32_t n)
{
	memset(called, 0, sizeof(called));
	for (uint32_t i = 0; i < n; i++) {
		w[i] = (struct waiter){ .wait.fn = on_place, .name = (char)('a' + i) };
		list_init(&w[i].wait.entry);
	}
}

static void one_server_with_one_place(void)
{
	server_conf[0]->maxconn = 1;
	server_conf[1]->disabled = server_conf[2]->disabled = true;
	start();
	expect_picks("0");
}

static void place_that_gets_free_goes_to_the_first_that_waits(void **state)
{
	struct waiter w[3];

	(void)state;
	one_server_with_one_place();
	waiters_init(w, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(pick(NULL), -EAGAIN);
		pool_wait(be, &w[i].wait);
		assert_int_equal(be->stats.queued, i + 1);
	}
	pool_leave(&be->servers[0]);
	assert_string_equal(called, "a");
	assert_int_equal(be->stats.queued, 2);
	pool_leave(&be->servers[0]);
	pool_leave(&be->servers[0]);
	assert_string_equal(called, "abc");
	pool_leave(&be->servers[0]);
	assert_string_equal(called, "abc");
	assert_int_equal(be->stats.queued, 0);
	assert_int_equal(be->stats.queued_max, 3);
	assert_int_equal(be->servers[0].stats.current, 0);
}

static void who_comes_late_takes_no_place_from_those_that_wait(void **state)
{
	struct waiter w[2];

	(void)state;
	one_server_with_one_place();
	be->servers[1].state = SERVER_READY; /* has no maxconn */
	waiters_init(w, 2);
	pool_wait(be, &w[0].wait);
	pool_wait(be, &w[1].wait);
	w[0].again = true; /* so the place stays free, and one goes on waiting */
	pool_leave(&be->servers[0]);
	assert_int_equal(be->servers[0].stats.current, 0);
	/* Only the unlimited one is for whoever comes now. */
	assert_int_equal(pick(NULL), 1);
	assert_int_equal(pick(NULL), 1);
	assert_int_equal(pick_as(NULL, true), 0);
}

static void who_gives_up_waiting_is_not_called(void **state)
{
	struct waiter w[3];

	(void)state;
	one_server_with_one_place();
	waiters_init(w, 3);
	for (int i = 0; i < 3; i++)
		pool_wait(be, &w[i].wait);
	pool_unwait(be, &w[1].wait);
	pool_unwait(be, &w[1].wait); /* idempotent */
	assert_int_equal(be->stats.queued, 2);
	pool_leave(&be->servers[0]);
	pool_leave(&be->servers[0]);
	assert_string_equal(called, "ac");
	pool_leave(&be->servers[0]);
}

static void who_waits_anew_is_called_once_for_each_place(void **state)
{
	struct waiter w[1];

	(void)state;
	one_server_with_one_place();
	waiters_init(w, 1);
	w[0].again = true;
	pool_wait(be, &w[0].wait);
	pool_leave(&be->servers[0]);
	assert_string_equal(called, "a");
	assert_int_equal(be->stats.queued, 1);
	pool_unwait(be, &w[0].wait);
}

/* ---- several threads ---- */

#define THREADS 4
#define PICKS 30000u

static const struct pool_tried no_tried;

struct pickers {
	uint32_t wrong;
};

static void pick_and_leave(void *arg, uint32_t number)
{
	struct pickers *p = arg;
	struct server *s;

	(void)number;
	for (uint32_t i = 0; i < PICKS; i++) {
		if (pool_pick(be, &no_tried, false, 1, &s) < 0)
			stat_add(p->wrong, 1);
		else
			pool_leave(s);
	}
}

static void servers_take_turns_exactly_however_many_threads_pick(void **state)
{
	struct pickers p = { 0 };

	(void)state;
	server_conf[0]->weight = 4; /* of 6: THREADS * PICKS is a multiple of that */
	start();
	run_threads(THREADS, pick_and_leave, &p);
	assert_int_equal(p.wrong, 0);
	assert_int_equal(be->servers[0].stats.chosen, THREADS * PICKS / 6 * 4);
	assert_int_equal(be->servers[1].stats.chosen, THREADS * PICKS / 6);
	assert_int_equal(be->servers[2].stats.chosen, THREADS * PICKS / 6);
	assert_int_equal(be->stats.chosen, THREADS * PICKS);
	for (int i = 0; i < 3; i++)
		assert_int_equal(be->servers[i].stats.current, 0);
}

/* As a session does it: fn only tells; its own thread picks. */
struct client {
	struct pool_wait wait;
	uint32_t called; /* atomic */
};

struct queue {
	uint32_t wrong, waited, above;
	uint64_t deadline_ns;
};

#define CLIENTS 8 /* of each thread, at once */

static void on_called(struct pool_wait *w)
{
	stat_set(container_of(w, struct client, wait)->called, 1);
}

static void note_place(struct queue *q, struct server *s)
{
	if (stat_get(s->stats.current) > s->conf->maxconn)
		stat_add(q->above, 1);
}

/* Each of the thread's clients takes a place, waits for one, or leaves, in turn, until each had 1000 places. */
static void come_wait_and_go(void *arg, uint32_t number)
{
	struct queue *q = arg;
	struct client clients[CLIENTS];
	struct server *at[CLIENTS] = { NULL };
	uint32_t had[CLIENTS] = { 0 }, left = CLIENTS;

	(void)number;
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = (struct client){ .wait.fn = on_called };
		list_init(&clients[i].wait.entry);
	}
	while (left && now_ns() < q->deadline_ns) {
		sched_yield(); /* whose turn it is may have no core */
		for (int i = 0; i < CLIENTS; i++) {
			struct client *c = &clients[i];
			int r;

			if (at[i]) {
				struct server *s = at[i];

				at[i] = NULL;
				pool_leave(s);
				left -= had[i] == 1000;
				continue;
			}
			if (had[i] == 1000 || (c->wait.waiting && !__atomic_exchange_n(&c->called, 0, __ATOMIC_SEQ_CST)))
				continue;
			pool_lock(be);
			r = pool_pick(be, &no_tried, c->wait.waiting, 1, &at[i]);
			if (r == -EAGAIN && !c->wait.waiting) {
				pool_wait(be, &c->wait);
				stat_add(q->waited, 1);
			}
			pool_unlock(be);
			if (r < 0)
				continue;
			note_place(q, at[i]);
			had[i]++;
			if (c->wait.waiting) {
				pool_unwait(be, &c->wait);
				pool_wake(be);
			}
		}
	}
	stat_add(q->wrong, left);
	for (int i = 0; i < CLIENTS; i++)
		pool_unwait(be, &clients[i].wait);
}

static void nobody_in_the_queue_is_forgotten_and_no_server_gets_too_many(void **state)
{
	struct queue q = { .deadline_ns = now_ns() + 60 * NS_PER_SEC };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(server_conf); i++)
		server_conf[i]->maxconn = (uint32_t)i + 1;
	start();
	run_threads(THREADS, come_wait_and_go, &q);
	assert_int_equal(q.wrong, 0); /* a lost wake-up would leave somebody waiting for ever */
	assert_int_equal(q.above, 0);
	assert_true(q.waited > 0);
	assert_int_equal(be->stats.queued, 0);
	assert_int_equal(be->stats.chosen, THREADS * CLIENTS * 1000);
	for (size_t i = 0; i < ARRAY_SIZE(server_conf); i++) {
		assert_int_equal(be->servers[i].stats.current, 0);
		assert_true(be->servers[i].stats.max <= i + 1);
	}
}

#define LINE 2000

static struct client line[LINE];
static uint32_t order[2 * LINE], nr_placed; /* each leaving calls somebody, at most */

static void on_placed(struct pool_wait *w)
{
	struct server *s;

	/* Under the backend's lock: nobody else writes. */
	order[nr_placed++] = (uint32_t)(container_of(w, struct client, wait) - line);
	if (pool_pick(be, &no_tried, true, 1, &s) == 0)
		pool_unwait(be, w);
}

static void leave_one(void *arg, uint32_t number)
{
	(void)arg;
	(void)number;
	for (int i = 0; i < LINE / THREADS; i++)
		pool_leave(&be->servers[0]);
}

static void queue_keeps_its_order_whoever_gives_the_places_back(void **state)
{
	(void)state;
	nr_placed = 0;
	one_server_with_one_place();
	for (uint32_t i = 0; i < LINE; i++) {
		line[i] = (struct client){ .wait.fn = on_placed };
		list_init(&line[i].wait.entry);
		pool_wait(be, &line[i].wait);
	}
	/* Places above the limit, as retries take them: each gets free, but the last one alone lets somebody in. */
	for (int i = 1; i < LINE; i++)
		pool_enter(&be->servers[0], 1);
	run_threads(THREADS, leave_one, NULL);
	while (be->stats.queued) {
		assert_int_equal(be->servers[0].stats.current, 1);
		pool_leave(&be->servers[0]);
	}
	for (uint32_t i = 0, last = 0; i < nr_placed; last = order[i++])
		assert_true(order[i] == last || order[i] == last + 1);
	assert_int_equal(order[nr_placed - 1], LINE - 1);
	pool_leave(&be->servers[0]);
	assert_int_equal(be->servers[0].stats.current, 0);
}

static void free_accepts_null(void **state)
{
	(void)state;
	assert_null(pool_free(NULL));
}

#define pool_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		pool_test(pool_mirrors_the_configuration),
		pool_test(stdout_and_stderr_are_no_log_targets_in_the_background),
		pool_test(smaller_maxconn_counts),
		pool_test(global_targets_are_shared_by_those_who_want_them),
		pool_test(every_server_state_has_a_name),
		pool_test(servers_take_turns_by_weight),
		pool_test(server_without_weight_or_not_ready_is_not_picked),
		pool_test(backend_without_servers_has_none),
		pool_test(server_that_was_tried_is_not_picked),
		pool_test(a_thousand_servers_can_be_tried),
		pool_test(disabled_backend_serves_nobody),
		pool_test(full_server_is_passed_over_and_all_full_means_wait),
		pool_test(retry_keeps_its_place_even_at_a_full_server),
		pool_test(place_that_gets_free_goes_to_the_first_that_waits),
		pool_test(who_comes_late_takes_no_place_from_those_that_wait),
		pool_test(who_gives_up_waiting_is_not_called),
		pool_test(who_waits_anew_is_called_once_for_each_place),
		pool_test(servers_take_turns_exactly_however_many_threads_pick),
		pool_test(nobody_in_the_queue_is_forgotten_and_no_server_gets_too_many),
		pool_test(queue_keeps_its_order_whoever_gives_the_places_back),
		pool_test(free_accepts_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
