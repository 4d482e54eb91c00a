/* SPDX-License-Identifier: GPL-2.0-or-later */
/* rig.c - see rig.h. */
#include "rig.h"

#include <signal.h>
#include <string.h>
#include <sys/un.h>

#include "run_loop.h"

#define TURN_NS (200 * NS_PER_US)

static const struct sock_tuning tuning = { .limit = RIG_LIMIT, .begin = RIG_LIMIT };

static bool on_accepted(void *arg, int fd, const struct addr *client)
{
	struct rig *r = arg;

	r->started = session_start(r->sessions, r->fe, fd, client);
	return true;
}

static void on_exhausted(void *arg, int error)
{
	struct rig *r = arg;

	assert_int_equal(error, -EMFILE);
	listener_pause(r->listener);
}

static const struct listener_ops ops = { .accepted = on_accepted, .exhausted = on_exhausted };

static void on_ended(void *arg, struct frontend *fe)
{
	struct rig *r = arg;

	assert_ptr_equal(fe, r->fe);
	r->ended++;
}

static void on_splice_events(struct poll *p, uint32_t events)
{
	(void)events;
	sessions_dispatch(container_of(p, struct rig, splice_events)->sessions);
}

/* ---- beginning and end ---- */

static void open_log(struct rig *r)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	static unsigned int nr;

	snprintf(r->log_path, sizeof(r->log_path), "/tmp/shunt-test-%d-%u", getpid(), nr++);
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", r->log_path);
	r->log_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(r->log_fd >= 0);
	unlink(r->log_path);
	assert_int_equal(bind(r->log_fd, (struct sockaddr *)&un, sizeof(un)), 0);
	conf_log(r->proxy, r->log_path);
}

void rig_init(struct rig *r, uint32_t nr_servers)
{
	*r = (struct rig){
		.nr_servers = nr_servers,
		.max_sessions = RIG_SESSIONS,
		.client.fd = -1,
		.server.fd = -1,
		.budget = { .max = 1ull << 40, .limit = RIG_LIMIT },
		.fds_before = net_count_fds(),
	};
	signal(SIGPIPE, SIG_IGN);
	conf_init(&r->config);
	r->proxy = conf_listen(&r->config, "web");
	for (uint32_t i = 0; i < nr_servers; i++) {
		char name[16];
		struct addr at;

		snprintf(name, sizeof(name), "s%u", i);
		r->servers[i] = net_listen(&at);
		r->server_conf[i] = conf_server(r->proxy, name, &at);
	}
	open_log(r);
}

enum sock_unread rig_unread = SOCK_UNREAD_TOLD;

/* What belongs to one worker. */
static void start_worker(struct rig *r)
{
	struct sessions_options o = {
		.stats = &r->stats,
		.splice = r->splice,
		.tuning = tuning,
		.budget = &r->budget,
		.pipe = &r->pipe,
		.unread = rig_unread,
		.ended = on_ended,
		.arg = r,
	};

	assert_int_equal(loop_new(&r->loop), 0);
	o.loop = r->loop;
	o.ledger = r->ledger;
	assert_int_equal(sessions_new(&r->sessions, &o), 0);
	if (r->splice) {
		poll_init(&r->splice_events, splice_event_fd(r->splice, 0), on_splice_events);
		assert_int_equal(loop_watch(r->loop, &r->splice_events, EPOLLIN), 0);
	}
}

static void start(struct rig *r)
{
	struct addr any = { .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(r->at);
	int fd;

	assert_int_equal(ledger_new(&r->ledger, r->max_sessions, 1), 0);
	if (r->survives)
		assert_int_equal(ledger_keep(r->ledger), 0);
	assert_int_equal(pool_new(&r->pool, &r->config, 1000), 0);
	assert_int_equal(relay_pipe_open(&r->pipe), 0);
	r->fe = list_first(&r->pool->frontends, struct frontend, entry);
	r->be = r->fe->backend;
	start_worker(r);
	/* Its descriptor is the listener's own affair; the next one to be opened tells which it will be. */
	fd = dup(0);
	close(fd);
	assert_int_equal(listener_open(&r->listener, &any, 128, &tuning), 0);
	assert_int_equal(getsockname(fd, &r->at.sa, &len), 0);
	assert_int_equal(listener_start(r->listener, r->loop, &ops, r), 0);
}

void rig_die(struct rig *r)
{
	listener_pause(r->listener);
	if (r->splice)
		loop_unwatch(r->loop, &r->splice_events);
	sessions_free(r->sessions);
	loop_free(r->loop);
	ledger_recover(r->ledger);
	pool_forget_sessions(r->pool);
	r->stats.current = 0;
	r->budget.given = 0;
	start_worker(r);
	assert_int_equal(listener_start(r->listener, r->loop, &ops, r), 0);
	for (uint32_t i = 0; i < r->max_sessions; i++)
		if (ledger_get(r->ledger, i)->state != LEDGER_FREE)
			session_adopt(r->sessions, i, r->fe, r->be);
}

void rig_start(struct rig *r)
{
	start(r);
}

void rig_start_spliced(struct rig *r)
{
	r->splice = fake_splice_new(r->max_sessions);
	start(r);
}

void rig_done(struct rig *r)
{
	WAIT_FOR(r, !sessions_count(r->sessions));
	assert_int_equal(ledger_used(r->ledger), 0);
	assert_int_equal(r->stats.current, 0);
	assert_int_equal(r->fe->stats.current, 0);
	assert_int_equal(r->be->stats.current, 0);
	assert_int_equal(r->be->stats.queued, 0);
	for (uint32_t i = 0; i < r->nr_servers; i++)
		assert_int_equal(r->be->servers[i].stats.current, 0);
	if (r->splice) {
		if (fake_splice_broken(r->splice))
			fail_msg("the contract was broken: %s", fake_splice_broken(r->splice));
		assert_int_equal(fake_splice_owed(r->splice), 0);
		loop_unwatch(r->loop, &r->splice_events);
	}
	peer_close(&r->client);
	peer_close(&r->server);
	for (size_t i = 0; i < ARRAY_SIZE(r->extra); i++)
		if (r->extra[i])
			peer_close(r->extra[i]);
	listener_close(r->listener);
	sessions_free(r->sessions);
	relay_pipe_close(&r->pipe);
	splice_free(r->splice);
	ledger_free(r->ledger);
	pool_free(r->pool);
	loop_free(r->loop);
	for (uint32_t i = 0; i < r->nr_servers; i++)
		close(r->servers[i]);
	close(r->log_fd);
	unlink(r->log_path);
	conf_done(&r->config);
	assert_int_equal(net_count_fds(), r->fds_before);
}

/* ---- turns ---- */

void rig_turn(struct rig *r)
{
	peer_step(&r->client);
	peer_step(&r->server);
	for (size_t i = 0; i < ARRAY_SIZE(r->extra); i++)
		if (r->extra[i])
			peer_step(r->extra[i]);
	if (r->splice)
		fake_splice_run(r->splice);
	r->turns++;
	run_loop(r->loop, TURN_NS);
}

void rig_run_ms(struct rig *r, unsigned int ms)
{
	uint64_t until = now_ns() + ms * NS_PER_MS;

	while (now_ns() < until)
		rig_turn(r);
}

/* ---- peers ---- */

void rig_client(struct rig *r, struct peer *p)
{
	peer_init(p, net_connect(&r->at), 1, 2);
}

void rig_accept(struct rig *r, uint32_t n, struct peer *p)
{
	int fd;

	WAIT_FOR(r, (fd = net_accept(r->servers[n])) >= 0);
	peer_init(p, fd, 2, 1);
}

void rig_meet(struct rig *r, uint32_t n)
{
	rig_client(r, &r->client);
	rig_accept(r, n, &r->server);
	WAIT_FOR(r, rig_view(r).record->connected_ns);
}

bool rig_exchanged(const struct rig *r)
{
	return r->server.received == r->client.to_send && r->client.received == r->server.to_send;
}

/* ---- looking ---- */

struct view_taker {
	struct session_view view;
	bool taken;
};

static void take_view(void *arg, const struct session_view *v)
{
	struct view_taker *t = arg;

	if (!t->taken)
		t->view = *v;
	t->taken = true;
}

struct session_view rig_view(struct rig *r)
{
	struct view_taker t = { 0 };

	sessions_each(r->sessions, take_view, &t);
	assert_true(t.taken);
	return t.view;
}

struct rig_log rig_log(struct rig *r)
{
	struct rig_log l = { 0 };
	char line[1024], *rest;
	ssize_t n;
	char plus;

	WAIT_FOR(r, (n = read(r->log_fd, line, sizeof(line) - 1)) > 0);
	line[n] = '\0';
	/* 127.0.0.1:33313 [22/Nov/2026:10:32:47.123] web web/s0 0/0/5 9 -- 1/1/1/1/0 0/0 */
	rest = strstr(line, "] web web/");
	if (!rest || sscanf(rest, "] web web/%63s %ld/%ld/%ld %lu %2s %u/%u/%u/%u/", l.server, &l.queue_ms,
			    &l.connect_ms, &l.total_ms, &l.bytes, l.state, &l.process, &l.frontend,
			    &l.backend, &l.of_server) != 10)
		fail_msg("a strange line: %s", line);
	rest = strrchr(line, ' ');
	while (rest[-1] != '/')
		rest--;
	plus = rest[0];
	l.redispatched = plus == '+';
	if (sscanf(rest + l.redispatched, "%u %*u/%u", &l.retries, &l.backend_queue) != 2)
		fail_msg("a strange line: %s", line);
	return l;
}
