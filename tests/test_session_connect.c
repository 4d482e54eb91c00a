/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_session_connect.c - how a session finds its server, what it does when there is none, and its time limits.
 * See test_session.c for the bytes.
 */
#include "rig.h"

#include <string.h>
#include <sys/resource.h>

static const struct stats *server_stats(const struct rig *r, uint32_t n)
{
	return &r->be->servers[n].stats;
}

/* Server n refuses connections: the descriptor that keeps its port takes the place of its listener. */
static void refuse(struct rig *r, uint32_t n)
{
	close(r->servers[n]);
	r->servers[n] = net_refuse(&r->server_conf[n]->addr);
}

/* Server n never answers. Returns the client that fills its queue: close it. */
static int swallow(struct rig *r, uint32_t n)
{
	int fill;

	close(r->servers[n]);
	r->servers[n] = net_black_hole(&r->server_conf[n]->addr, &fill);
	return fill;
}

static void expect_reset(struct rig *r, struct peer *p)
{
	WAIT_FOR(r, p->eof || p->error);
	assert_true(peer_was_reset(p));
}

/* Both ends say FIN, and the session is over. */
static void part(struct rig *r, struct peer *client, struct peer *server)
{
	uint32_t ended = r->ended;

	client->fin = server->fin = true;
	WAIT_FOR(r, r->ended == ended + 1);
	WAIT_FOR(r, (peer_step(client), client->eof));
	peer_close(client);
	peer_close(server);
}

/* ---- attempts ---- */

static void refused_server_is_replaced_at_once_by_the_next(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 2);
	refuse(&r, 0);
	rig_start(&r);
	rig_meet(&r, 1);
	part(&r, &r.client, &r.server);
	l = rig_log(&r);
	assert_string_equal(l.state, "--");
	assert_string_equal(l.server, "s1");
	assert_int_equal(l.retries, 1);
	assert_true(l.redispatched);
	assert_int_equal(server_stats(&r, 0)->connect_errors, 1);
	assert_int_equal(server_stats(&r, 0)->redispatches, 1);
	assert_int_equal(server_stats(&r, 0)->retries, 0);
	assert_int_equal(server_stats(&r, 1)->connect_errors, 0);
	assert_int_equal(r.be->stats.connect_errors, 1);
	assert_int_equal(r.be->stats.failed, 0);
	assert_int_equal(r.stats.connections_failed, 1);
	rig_done(&r);
}

static void client_is_reset_when_all_refuse(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 3);
	for (uint32_t i = 0; i < 3; i++)
		refuse(&r, i);
	rig_start(&r);
	rig_client(&r, &r.client);
	expect_reset(&r, &r.client);
	l = rig_log(&r);
	assert_string_equal(l.state, "SC");
	assert_string_equal(l.server, "s2");
	assert_int_equal(l.connect_ms, -1);
	assert_int_equal(l.bytes, 0);
	assert_int_equal(l.retries, 2);
	assert_int_equal(r.be->stats.connect_errors, 3);
	assert_int_equal(r.be->stats.redispatches, 2);
	assert_int_equal(r.be->stats.failed, 1);
	assert_int_equal(r.fe->stats.failed, 1);
	rig_done(&r);
}

static void client_that_said_fin_is_reset_too_when_all_refuse(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	refuse(&r, 0);
	rig_start(&r);
	rig_client(&r, &r.client);
	r.client.to_send = 10;
	r.client.fin = true;
	peer_step(&r.client);
	expect_reset(&r, &r.client);
	assert_string_equal(rig_log(&r).state, "SC");
	rig_done(&r);
}

static void silent_server_is_replaced_after_the_connect_timeout(void **state)
{
	struct rig r;
	struct rig_log l;
	int fill;

	(void)state;
	rig_init(&r, 2);
	fill = swallow(&r, 0);
	r.proxy->timeout.connect = 40;
	rig_start(&r);
	rig_meet(&r, 1);
	part(&r, &r.client, &r.server);
	l = rig_log(&r);
	assert_string_equal(l.state, "--");
	assert_string_equal(l.server, "s1");
	assert_int_equal(l.retries, 1);
	assert_true(l.connect_ms >= 40);
	close(fill);
	rig_done(&r);
}

static void connect_timeout_everywhere_ends_the_session(void **state)
{
	struct rig r;
	struct rig_log l;
	int fill[2];

	(void)state;
	rig_init(&r, 2);
	for (uint32_t i = 0; i < 2; i++)
		fill[i] = swallow(&r, i);
	r.proxy->timeout.connect = 30;
	rig_start(&r);
	rig_client(&r, &r.client);
	expect_reset(&r, &r.client);
	l = rig_log(&r);
	assert_string_equal(l.state, "sC");
	assert_true(l.total_ms >= 60);
	assert_int_equal(l.connect_ms, -1);
	close(fill[0]);
	close(fill[1]);
	rig_done(&r);
}

static void unreachable_server_is_replaced_like_one_that_refuses(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 2);
	/* connect(2) itself says ENETUNREACH. */
	r.server_conf[0]->addr.in.sin_addr.s_addr = htonl(0xe0000001);
	rig_start(&r);
	rig_meet(&r, 1);
	part(&r, &r.client, &r.server);
	assert_int_equal(rig_log(&r).retries, 1);
	rig_done(&r);
}

static void without_redispatch_the_same_server_is_tried_again_after_a_pause(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 2);
	refuse(&r, 0);
	r.proxy->redispatch = false;
	r.proxy->retries = 2;
	r.proxy->timeout.connect = 30; /* no longer than this is the pause */
	rig_start(&r);
	rig_client(&r, &r.client);
	expect_reset(&r, &r.client);
	l = rig_log(&r);
	assert_string_equal(l.state, "SC");
	assert_string_equal(l.server, "s0");
	assert_int_equal(l.retries, 2);
	assert_false(l.redispatched);
	assert_true(l.total_ms >= 60);
	assert_int_equal(server_stats(&r, 0)->connect_errors, 3);
	assert_int_equal(server_stats(&r, 0)->retries, 2);
	assert_int_equal(server_stats(&r, 0)->sessions, 1);
	assert_int_equal(server_stats(&r, 1)->sessions, 0);
	rig_done(&r);
}

static void server_that_comes_back_meanwhile_serves_the_retry(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 1);
	refuse(&r, 0);
	r.proxy->redispatch = false;
	r.proxy->timeout.connect = 30;
	rig_start(&r);
	rig_client(&r, &r.client);
	WAIT_FOR(&r, server_stats(&r, 0)->connect_errors == 1);
	assert_int_equal(listen(r.servers[0], 10), 0);
	rig_accept(&r, 0, &r.server);
	WAIT_FOR(&r, rig_view(&r).record->connected_ns);
	part(&r, &r.client, &r.server);
	l = rig_log(&r);
	assert_string_equal(l.state, "--");
	assert_true(l.retries >= 1);
	assert_true(l.connect_ms >= 30);
	rig_done(&r);
}

static void no_retries_means_one_attempt(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 2);
	refuse(&r, 0);
	r.proxy->retries = 0;
	rig_start(&r);
	rig_client(&r, &r.client);
	expect_reset(&r, &r.client);
	l = rig_log(&r);
	assert_string_equal(l.state, "SC");
	assert_int_equal(l.retries, 0);
	assert_false(l.redispatched);
	assert_int_equal(server_stats(&r, 1)->sessions, 0);
	rig_done(&r);
}

/* retries 3 and `option redispatch interval`: s0 refuses; how often is it tried before s1? */
static void check_redispatch(int interval, uint32_t attempts)
{
	struct rig r;
	struct rig_log l;

	rig_init(&r, 2);
	refuse(&r, 0);
	r.proxy->redispatch_interval = interval;
	r.proxy->timeout.connect = 20;
	rig_start(&r);
	rig_meet(&r, 1);
	part(&r, &r.client, &r.server);
	l = rig_log(&r);
	assert_string_equal(l.state, "--");
	assert_int_equal(l.retries, attempts);
	assert_true(l.redispatched);
	assert_int_equal(server_stats(&r, 0)->connect_errors, attempts);
	assert_int_equal(server_stats(&r, 0)->retries, attempts - 1);
	assert_int_equal(server_stats(&r, 0)->redispatches, 1);
	rig_done(&r);
}

static void redispatch_interval_says_which_retry_goes_elsewhere(void **state)
{
	(void)state;
	check_redispatch(1, 1);
	check_redispatch(2, 2);
	check_redispatch(3, 3);
	check_redispatch(-1, 3); /* only the last */
	check_redispatch(-2, 2); /* only the last but one */
}

static void server_that_was_tried_is_not_tried_again(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 3);
	refuse(&r, 0);
	refuse(&r, 1);
	r.server_conf[0]->weight = r.server_conf[1]->weight = 100;
	rig_start(&r);
	rig_meet(&r, 2);
	part(&r, &r.client, &r.server);
	assert_int_equal(rig_log(&r).retries, 2);
	assert_int_equal(server_stats(&r, 0)->connect_errors, 1);
	assert_int_equal(server_stats(&r, 1)->connect_errors, 1);
	rig_done(&r);
}

static void sessions_go_to_servers_in_the_order_of_the_schedule(void **state)
{
	const uint32_t order[] = { 0, 0, 1, 0, 2, 0, 0 };
	struct rig r;

	(void)state;
	rig_init(&r, 3);
	r.server_conf[0]->weight = 5;
	rig_start(&r);
	for (size_t i = 0; i < 2 * ARRAY_SIZE(order); i++) {
		rig_meet(&r, order[i % ARRAY_SIZE(order)]);
		part(&r, &r.client, &r.server);
	}
	assert_int_equal(server_stats(&r, 0)->sessions, 10);
	assert_int_equal(server_stats(&r, 1)->sessions, 2);
	assert_int_equal(server_stats(&r, 2)->sessions, 2);
	rig_done(&r);
}

static void session_without_any_server_is_reset_at_once(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 2);
	rig_start(&r);
	r.be->servers[0].state = SERVER_MAINT;
	r.be->servers[1].state = SERVER_DRAIN;
	rig_client(&r, &r.client);
	expect_reset(&r, &r.client);
	l = rig_log(&r);
	assert_string_equal(l.state, "SC");
	assert_string_equal(l.server, "<NOSRV>");
	assert_int_equal(l.queue_ms, -1);
	assert_int_equal(l.connect_ms, -1);
	assert_int_equal(l.retries, 0);
	assert_int_equal(r.be->stats.failed, 1);
	rig_done(&r);
}

/* Descriptors with numbers below n. Returns what was allowed before. */
static rlim_t allow_descriptors(rlim_t n)
{
	struct rlimit limit;
	rlim_t before;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	before = limit.rlim_cur;
	limit.rlim_cur = n;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return before;
}

static void client_with_the_last_descriptor_gets_its_server_all_the_same(void **state)
{
	struct rig r;
	rlim_t allowed;
	int a, b;

	(void)state;
	rig_init(&r, 1);
	rig_start(&r);
	rig_client(&r, &r.client);
	/* One more descriptor for the client, none for the server. */
	a = dup(0);
	b = dup(0);
	close(a);
	close(b);
	allowed = allow_descriptors((rlim_t)b);
	WAIT_FOR(&r, sessions_count(r.sessions) == 1);
	allow_descriptors(allowed);
	assert_int_equal(r.started, 0);
	rig_accept(&r, 0, &r.server);
	r.client.to_send = r.server.to_send = 1000;
	WAIT_FOR(&r, rig_exchanged(&r));
	sessions_kill(r.sessions);
	rig_done(&r);
}

/* ---- waiting for a place ---- */

/* A client that was in the queue, r->extra[0], connects now that nobody gets a descriptor. Returns how many were allowed. */
static rlim_t begin_without_descriptor(struct rig *r, struct peer *late, unsigned int connect_ms)
{
	rlim_t allowed;

	rig_init(r, 1);
	r->server_conf[0]->maxconn = 1;
	r->proxy->timeout.connect = connect_ms;
	r->proxy->timeout.queue = 20000;
	rig_start(r);
	rig_meet(r, 0);
	rig_client(r, late);
	WAIT_FOR(r, r->be->stats.queued == 1);
	allowed = allow_descriptors(3); /* fewer than there are */
	part(r, &r->client, &r->server);
	assert_string_equal(rig_log(r).state, "--");
	WAIT_FOR(r, !r->be->stats.queued);
	rig_run_ms(r, 1);
	assert_int_equal(r->be->servers[0].stats.current, 1);
	r->extra[0] = late;
	return allowed;
}

static void connect_waits_for_a_descriptor(void **state)
{
	struct peer late;
	struct rig r;
	rlim_t allowed = begin_without_descriptor(&r, &late, 20000);

	(void)state;
	late.to_send = 10;
	rig_run_ms(&r, 250); /* it looks more than once */
	assert_int_equal(r.stats.current, 1);
	allow_descriptors(allowed);
	rig_accept(&r, 0, &r.server);
	part(&r, &late, &r.server);
	rig_done(&r);
}

/* Not longer than for a server; and whoever leaves meanwhile is forgotten. */
static void connect_waits_in_vain_for_a_descriptor(void **state)
{
	const char *const ends[] = { "RC", "CC" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		struct peer late;
		struct rig r;
		rlim_t allowed = begin_without_descriptor(&r, &late, i ? 20000 : 150);

		if (i) {
			r.extra[0] = NULL;
			peer_reset(&late);
		} else {
			expect_reset(&r, &late);
		}
		WAIT_FOR(&r, !r.stats.current);
		allow_descriptors(allowed);
		assert_string_equal(rig_log(&r).state, ends[i]);
		assert_int_equal(r.be->servers[0].stats.current, 0);
		rig_done(&r);
	}
}

static void full_server_makes_sessions_wait_in_order(void **state)
{
	struct peer clients[3], server;
	struct rig_log l;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	rig_start(&r);
	for (int i = 0; i < 3; i++) {
		rig_client(&r, &clients[i]);
		clients[i].seed = (uint8_t)(50 + i);
		clients[i].to_send = 10;
		r.extra[i] = &clients[i];
		WAIT_FOR(&r, sessions_count(r.sessions) == (uint32_t)i + 1);
	}
	assert_int_equal(r.be->stats.queued, 2);
	assert_int_equal(rig_view(&r).record->state, LEDGER_RELAY);
	for (int i = 0; i < 3; i++) {
		rig_accept(&r, 0, &server);
		server.expect = (uint8_t)(50 + i); /* that very client */
		WAIT_FOR(&r, (peer_step(&server), server.received == 10));
		assert_int_equal(net_accept(r.servers[0]), -1);
		assert_int_equal(r.be->stats.queued, 2 - i);
		r.extra[3] = &server;
		part(&r, &clients[i], &server);
		l = rig_log(&r);
		assert_string_equal(l.state, "--");
		assert_int_equal(l.backend_queue, i ? i - 1 : 0);
	}
	assert_int_equal(r.be->stats.queued_max, 2);
	assert_int_equal(server_stats(&r, 0)->max, 1);
	rig_done(&r);
}

/* s0 refuses once, s1 is full: neither are the retries spent at once, nor does the one that waits keep others from s0. */
static void refused_session_that_must_wait_comes_back_to_who_refused(void **state)
{
	struct peer busy, busy_server, waits;
	struct addr good, dead;
	struct rig r;
	int dead_fd;

	(void)state;
	rig_init(&r, 2);
	r.server_conf[0]->maxconn = r.server_conf[1]->maxconn = 1;
	rig_start(&r);
	rig_client(&r, &r.client);
	rig_accept(&r, 0, &r.server);
	rig_client(&r, &busy);
	rig_accept(&r, 1, &busy_server);
	r.extra[0] = &busy;
	r.extra[2] = &busy_server;
	part(&r, &r.client, &r.server);
	good = r.server_conf[0]->addr;
	dead_fd = net_refuse(&dead);
	r.server_conf[0]->addr = dead;
	rig_client(&r, &waits);
	r.extra[1] = &waits;
	WAIT_FOR(&r, r.be->stats.queued == 1);
	assert_int_equal(r.be->servers[0].stats.connect_errors, 1);
	r.server_conf[0]->addr = good;
	WAIT_FOR(&r, r.be->stats.queued == 0); /* after the turn-around, although nobody left */
	rig_accept(&r, 0, &r.server);
	assert_int_equal(r.be->servers[0].stats.connect_errors, 1);
	close(dead_fd);
	part(&r, &waits, &r.server);
	part(&r, &busy, &busy_server);
	rig_done(&r);
}

static void waiting_too_long_ends_the_session(void **state)
{
	struct rig_log l;
	struct peer late;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	r.proxy->timeout.queue = 40;
	rig_start(&r);
	rig_meet(&r, 0);
	rig_client(&r, &late);
	r.extra[0] = &late;
	expect_reset(&r, &late);
	l = rig_log(&r);
	assert_string_equal(l.state, "sQ");
	assert_string_equal(l.server, "<NOSRV>");
	assert_true(l.total_ms >= 40);
	assert_int_equal(r.be->stats.failed, 1);
	part(&r, &r.client, &r.server);
	rig_done(&r);
}

static void without_a_queue_timeout_the_connect_timeout_counts(void **state)
{
	struct peer late;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	r.proxy->timeout.connect = 40;
	rig_start(&r);
	rig_meet(&r, 0);
	rig_client(&r, &late);
	r.extra[0] = &late;
	expect_reset(&r, &late);
	assert_string_equal(rig_log(&r).state, "sQ");
	part(&r, &r.client, &r.server);
	rig_done(&r);
}

static void client_that_leaves_the_queue_is_passed_over(void **state)
{
	struct peer first, second;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	rig_start(&r);
	rig_meet(&r, 0);
	rig_client(&r, &first);
	WAIT_FOR(&r, r.be->stats.queued == 1);
	rig_client(&r, &second);
	WAIT_FOR(&r, r.be->stats.queued == 2);
	peer_reset(&first);
	assert_string_equal(rig_log(&r).state, "CQ");
	assert_int_equal(r.be->stats.queued, 1);
	part(&r, &r.client, &r.server);
	rig_accept(&r, 0, &r.server);
	r.extra[0] = &second;
	part(&r, &second, &r.server);
	rig_done(&r);
}

static void client_that_says_fin_in_the_queue_is_served(void **state)
{
	struct peer late;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	rig_start(&r);
	rig_meet(&r, 0);
	rig_client(&r, &late);
	r.extra[0] = &late;
	late.to_send = 10;
	late.fin = true;
	WAIT_FOR(&r, r.be->stats.queued == 1);
	part(&r, &r.client, &r.server);
	rig_accept(&r, 0, &r.server);
	WAIT_FOR(&r, r.server.eof);
	assert_int_equal(r.server.received, 10);
	part(&r, &late, &r.server);
	rig_done(&r);
}

static void half_closed_client_that_waits_does_not_spin(void **state)
{
	struct peer late;
	uint64_t woken, turns;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	rig_start(&r);
	rig_meet(&r, 0);
	rig_client(&r, &late);
	r.extra[0] = &late;
	late.fin = true;
	WAIT_FOR(&r, r.be->stats.queued == 1);
	rig_run_ms(&r, 2);
	woken = loop_turns(r.loop);
	turns = r.turns;
	rig_run_ms(&r, 10);
	assert_int_equal(loop_turns(r.loop) - woken, r.turns - turns);
	part(&r, &r.client, &r.server);
	rig_accept(&r, 0, &r.server);
	part(&r, &late, &r.server);
	rig_done(&r);
}

static void full_server_is_passed_over_while_another_has_a_place(void **state)
{
	struct peer clients[3], servers[3];
	struct rig r;

	(void)state;
	rig_init(&r, 2);
	r.server_conf[0]->maxconn = 1;
	rig_start(&r);
	for (int i = 0; i < 3; i++) {
		rig_client(&r, &clients[i]);
		rig_accept(&r, i ? 1 : 0, &servers[i]);
	}
	assert_int_equal(r.be->stats.queued_max, 0);
	for (int i = 0; i < 3; i++) {
		r.extra[0] = &clients[i];
		r.extra[1] = &servers[i];
		part(&r, &clients[i], &servers[i]);
	}
	rig_done(&r);
}

static void place_of_a_failed_attempt_goes_to_the_next_in_the_queue(void **state)
{
	struct peer late;
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	refuse(&r, 0);
	r.proxy->redispatch = false;
	r.proxy->retries = 1;
	r.proxy->timeout.connect = 30;
	r.proxy->timeout.queue = 10000;
	rig_start(&r);
	/* Accepted in one go: a slow machine must not be late for the only attempt's 30 ms. */
	rig_client(&r, &r.client);
	rig_client(&r, &late);
	r.extra[0] = &late;
	WAIT_FOR(&r, r.be->stats.queued == 1); /* a retry keeps its place */
	expect_reset(&r, &r.client);
	assert_int_equal(listen(r.servers[0], 10), 0);
	rig_accept(&r, 0, &r.server);
	WAIT_FOR(&r, rig_view(&r).record->connected_ns);
	part(&r, &late, &r.server);
	rig_done(&r);
}

static void kill_empties_the_queue_too(void **state)
{
	struct peer clients[4];
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.server_conf[0]->maxconn = 1;
	rig_start(&r);
	for (int i = 0; i < 4; i++) {
		rig_client(&r, &clients[i]);
		r.extra[i] = &clients[i];
	}
	WAIT_FOR(&r, r.be->stats.queued == 3);
	sessions_kill(r.sessions);
	for (int i = 0; i < 4; i++)
		expect_reset(&r, &clients[i]);
	rig_done(&r);
}

/* ---- inactivity ---- */

/* Waits for the end that the time limit makes; both peers are reset unless they had ended. */
static void expect_timeout(struct rig *r, const char *wanted, unsigned int ms)
{
	struct rig_log l = rig_log(r);

	assert_string_equal(l.state, wanted);
	assert_true(l.total_ms >= (long)ms);
	WAIT_FOR(r, (r->client.error || r->client.eof) && (r->server.error || r->server.eof));
}

static void silent_client_is_reset_after_its_timeout(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = 50;
	r.proxy->timeout.server = 10000;
	rig_start(&r);
	rig_meet(&r, 0);
	expect_timeout(&r, "cD", 50);
	assert_true(peer_was_reset(&r.client));
	assert_true(peer_was_reset(&r.server));
	assert_int_equal(r.be->servers[0].stats.aborted_by_client, 1);
	rig_done(&r);
}

static void silent_server_is_reset_after_its_timeout(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = 10000;
	r.proxy->timeout.server = 50;
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = 10;
	expect_timeout(&r, "sD", 50);
	assert_true(peer_was_reset(&r.client));
	assert_true(peer_was_reset(&r.server));
	assert_int_equal(r.be->servers[0].stats.aborted_by_server, 1);
	rig_done(&r);
}

static void tunnel_timeout_takes_the_place_of_both(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = r.proxy->timeout.server = 20;
	r.proxy->timeout.tunnel = 120;
	rig_start(&r);
	rig_meet(&r, 0);
	expect_timeout(&r, "cD", 120);
	rig_done(&r);
}

static void client_fin_timeout_counts_once_the_server_has_ended(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = r.proxy->timeout.server = 10000;
	r.proxy->timeout.client_fin = 50;
	rig_start(&r);
	rig_meet(&r, 0);
	r.server.to_send = 10;
	r.server.fin = true;
	expect_timeout(&r, "cL", 50);
	assert_true(r.client.eof);
	assert_int_equal(r.client.received, 10);
	assert_true(peer_was_reset(&r.server));
	rig_done(&r);
}

static void server_fin_timeout_counts_once_the_client_has_ended(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = r.proxy->timeout.server = 10000;
	r.proxy->timeout.tunnel = 10000;
	r.proxy->timeout.server_fin = 50;
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.fin = true;
	expect_timeout(&r, "sD", 50);
	assert_true(r.server.eof);
	assert_true(peer_was_reset(&r.client));
	rig_done(&r);
}

static void timeout_counts_from_the_last_byte(void **state)
{
	struct rig r;
	struct rig_log l;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = 600;
	rig_start(&r);
	rig_meet(&r, 0);
	r.client.to_send = r.server.to_send = 10;
	l = rig_log(&r);
	assert_string_equal(l.state, "cD");
	assert_true(l.total_ms >= 600 && l.total_ms < 1100); /* not from the next look at the counters */
	rig_done(&r);
}

static void busy_session_outlives_its_timeout(void **state)
{
	struct rig r;
	uint64_t began;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.client = r.proxy->timeout.server = 250;
	rig_start(&r);
	rig_meet(&r, 0);
	/* One direction is enough. */
	for (began = now_ns(); now_ns() - began < 800 * NS_PER_MS;) {
		r.client.to_send++;
		WAIT_FOR(&r, rig_exchanged(&r));
		rig_run_ms(&r, 10);
	}
	assert_int_equal(sessions_count(r.sessions), 1);
	expect_timeout(&r, "cD", 1000);
	rig_done(&r);
}

static void timeouts_that_are_not_set_do_not_run(void **state)
{
	struct rig r;

	(void)state;
	rig_init(&r, 1);
	r.proxy->timeout.connect = 20;
	r.proxy->timeout.queue = 20;
	rig_start(&r);
	rig_meet(&r, 0);
	rig_run_ms(&r, 60);
	assert_int_equal(sessions_count(r.sessions), 1);
	part(&r, &r.client, &r.server);
	rig_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refused_server_is_replaced_at_once_by_the_next),
		cmocka_unit_test(client_is_reset_when_all_refuse),
		cmocka_unit_test(client_that_said_fin_is_reset_too_when_all_refuse),
		cmocka_unit_test(silent_server_is_replaced_after_the_connect_timeout),
		cmocka_unit_test(connect_timeout_everywhere_ends_the_session),
		cmocka_unit_test(unreachable_server_is_replaced_like_one_that_refuses),
		cmocka_unit_test(without_redispatch_the_same_server_is_tried_again_after_a_pause),
		cmocka_unit_test(server_that_comes_back_meanwhile_serves_the_retry),
		cmocka_unit_test(no_retries_means_one_attempt),
		cmocka_unit_test(redispatch_interval_says_which_retry_goes_elsewhere),
		cmocka_unit_test(server_that_was_tried_is_not_tried_again),
		cmocka_unit_test(sessions_go_to_servers_in_the_order_of_the_schedule),
		cmocka_unit_test(session_without_any_server_is_reset_at_once),
		cmocka_unit_test(client_with_the_last_descriptor_gets_its_server_all_the_same),
		cmocka_unit_test(connect_waits_for_a_descriptor),
		cmocka_unit_test(connect_waits_in_vain_for_a_descriptor),
		cmocka_unit_test(full_server_makes_sessions_wait_in_order),
		cmocka_unit_test(refused_session_that_must_wait_comes_back_to_who_refused),
		cmocka_unit_test(waiting_too_long_ends_the_session),
		cmocka_unit_test(without_a_queue_timeout_the_connect_timeout_counts),
		cmocka_unit_test(client_that_leaves_the_queue_is_passed_over),
		cmocka_unit_test(client_that_says_fin_in_the_queue_is_served),
		cmocka_unit_test(half_closed_client_that_waits_does_not_spin),
		cmocka_unit_test(full_server_is_passed_over_while_another_has_a_place),
		cmocka_unit_test(place_of_a_failed_attempt_goes_to_the_next_in_the_queue),
		cmocka_unit_test(kill_empties_the_queue_too),
		cmocka_unit_test(silent_client_is_reset_after_its_timeout),
		cmocka_unit_test(silent_server_is_reset_after_its_timeout),
		cmocka_unit_test(tunnel_timeout_takes_the_place_of_both),
		cmocka_unit_test(client_fin_timeout_counts_once_the_server_has_ended),
		cmocka_unit_test(server_fin_timeout_counts_once_the_client_has_ended),
		cmocka_unit_test(timeout_counts_from_the_last_byte),
		cmocka_unit_test(busy_session_outlives_its_timeout),
		cmocka_unit_test(timeouts_that_are_not_set_do_not_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
