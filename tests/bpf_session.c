/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bpf_session.c - sessions with the real program under them: session, splice and loop in this one
 * process and thread, with clients and servers that take turns with them. Needs root.
 *
 * There are several lanes: each has a frontend and a backend of its own with one server, so that it
 * is known who belongs to whom. Every test ends with an empty world: no session, no place taken in
 * any map, no flow that is not zero, no descriptor more than before.
 */
#include "bpf_help.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <string.h>

#include "conf.h"
#include "netpair.h"
#include "run_loop.h"
#include "session.h"

#define KB 1024u
#define MB (1024 * KB)
#define LANES 12
#define TURN_NS (100 * NS_PER_US)

struct lane {
	struct frontend *fe;
	int front, back; /* listening: ours, and the server's */
	struct addr front_at;
	bool met; /* the server has accepted */
	struct peer client, server;
	/* of the random sessions */
	bool busy;
	int resets;	    /* who will: 0 = nobody, 1 = the client, 2 = the server */
	uint64_t resets_at; /* when it has sent that many */
	uint32_t patience;  /* turns until both read */
	uint32_t talk;	    /* turns until both send their FIN behind what they have to say */
};

struct world {
	struct budget budget;
	struct config config;
	struct config_proxy *proxies[LANES];
	struct loop *loop;
	struct ledger *ledger;
	struct pool *pool;
	struct splice *sp;
	struct sessions *sessions;
	struct process_stats stats;
	struct poll splice_events;
	struct lane lanes[LANES];
	uint32_t nr_lanes, max_sessions, limit, ended;
	unsigned int fds;
};

/* ---- beginning and end ---- */

static void on_ended(void *arg, struct frontend *fe)
{
	struct world *w = arg;

	(void)fe;
	w->ended++;
}

static void on_splice_events(struct poll *p, uint32_t events)
{
	(void)events;
	sessions_dispatch(container_of(p, struct world, splice_events)->sessions);
}

/* The configuration of nr lanes; the test may change it before world_start(). */
static void world_init(struct world *w, uint32_t nr_lanes)
{
	*w = (struct world){
		.nr_lanes = nr_lanes,
		.max_sessions = nr_lanes,
		.limit = 256 * KB,
		.fds = count_fds(),
	};
	conf_init(&w->config);
	for (uint32_t i = 0; i < nr_lanes; i++) {
		struct lane *lane = &w->lanes[i];
		struct addr at;
		char name[16];

		snprintf(name, sizeof(name), "lane%u", i);
		lane->client.fd = lane->server.fd = -1;
		lane->front = net_listen(&lane->front_at);
		lane->back = net_listen(&at);
		w->proxies[i] = conf_listen(&w->config, name);
		conf_server(w->proxies[i], "s", &at);
	}
}

static void world_start(struct world *w)
{
	const struct splice_options options = {.max_sessions = w->max_sessions, .pin_path = ""};
	struct sessions_options o = {
		.stats = &w->stats,
		.tuning = {.limit = w->limit, .begin = w->limit},
		.budget = &w->budget,
		.unread = SOCK_UNREAD_TOLD,
		.ended = on_ended,
		.arg = w,
	};
	struct frontend *fe;
	uint32_t i = 0;
	char why[300] = "";

	w->budget = (struct budget){.max = 1ull << 40, .limit = w->limit};
	if (splice_new(&w->sp, &options, why, sizeof(why)) < 0)
		fail_msg("splice_new: %s", why);
	assert_ok(loop_new(&w->loop));
	assert_ok(ledger_new(&w->ledger, w->max_sessions, 1));
	assert_ok(pool_new(&w->pool, &w->config, 1000));
	list_for_each (fe, &w->pool->frontends, entry)
		w->lanes[i++].fe = fe;
	assert_int_equal(i, w->nr_lanes);
	o.loop = w->loop;
	o.splice = w->sp;
	o.ledger = w->ledger;
	assert_ok(sessions_new(&w->sessions, &o));
	poll_init(&w->splice_events, splice_event_fd(w->sp, 0), on_splice_events);
	assert_ok(loop_watch(w->loop, &w->splice_events, EPOLLIN));
}

/* A moment in which everybody takes a turn. */
static void world_turn(struct world *w)
{
	for (uint32_t i = 0; i < w->nr_lanes; i++) {
		struct lane *lane = &w->lanes[i];

		peer_step(&lane->client);
		peer_step(&lane->server);
	}
	run_loop(w->loop, TURN_NS);
}

#define world_until(w, condition) wait_for(condition, world_turn(w), (void)0)

static void world_run_ms(struct world *w, unsigned int ms)
{
	uint64_t until = now_ns() + ms * NS_PER_MS;

	while (now_ns() < until)
		world_turn(w);
}

static void assert_empty(struct world *w)
{
	static const struct flow unused;

	assert_int_equal(sessions_count(w->sessions), 0);
	assert_int_equal(ledger_used(w->ledger), 0);
	assert_int_equal(w->stats.current, 0);
	for (uint32_t i = 0; i < w->nr_lanes; i++) {
		struct frontend *fe = w->lanes[i].fe;

		assert_int_equal(fe->stats.current, 0);
		assert_int_equal(fe->backend->stats.current, 0);
		assert_int_equal(fe->backend->servers[0].stats.current, 0);
	}
	assert_int_equal(count_slots(), 0);
	assert_int_equal(count_sockets(), 0);
	for (uint32_t i = 0; i < w->max_sessions * 2; i++)
		assert_memory_equal(splice_flow(w->sp, i), &unused, sizeof(unused));
}

static void world_done(struct world *w)
{
	world_until(w, !sessions_count(w->sessions));
	assert_empty(w);
	loop_unwatch(w->loop, &w->splice_events);
	sessions_free(w->sessions);
	splice_free(w->sp);
	ledger_free(w->ledger);
	pool_free(w->pool);
	loop_free(w->loop);
	for (uint32_t i = 0; i < w->nr_lanes; i++) {
		peer_close(&w->lanes[i].client);
		peer_close(&w->lanes[i].server);
		close(w->lanes[i].front);
		close(w->lanes[i].back);
	}
	conf_done(&w->config);
	assert_int_equal(count_fds(), w->fds);
}

/* ---- lanes ---- */

/* A client calls, and its session begins. Seeds: 2n for the client, 2n + 1 for the server. */
static int lane_call(struct world *w, struct lane *lane, uint8_t n)
{
	const struct sock_tuning tuning = {.limit = w->limit, .begin = w->limit};
	struct addr from;
	socklen_t len = sizeof(from);
	int fd = -1;

	peer_close(&lane->client);
	peer_close(&lane->server);
	peer_init(&lane->client, net_connect(&lane->front_at), (uint8_t)(2 * n),
		  (uint8_t)(2 * n + 1));
	peer_init(&lane->server, -1, (uint8_t)(2 * n + 1), (uint8_t)(2 * n));
	lane->met = false;
	wait_until((fd = accept4(lane->front, &from.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	assert_ok(sock_prepare(fd));
	assert_ok(sock_tune(fd, &tuning));
	return session_start(w->sessions, lane->fe, fd, &from);
}

/* The server picks up if there is a call; what was set in lane->server before stays. */
static bool lane_pick_up(struct lane *lane)
{
	int fd;

	if (lane->met)
		return true;
	fd = net_accept(lane->back);
	if (fd < 0)
		return false;
	lane->server.fd = fd;
	lane->met = true;
	return true;
}

static void lane_meet(struct world *w, struct lane *lane, uint8_t n)
{
	assert_ok(lane_call(w, lane, n));
	world_until(w, lane_pick_up(lane));
}

static bool has_all(const struct peer *to, const struct peer *from)
{
	return to->received == from->to_send && from->sent == from->to_send;
}

static bool exchanged(const struct lane *lane)
{
	return has_all(&lane->server, &lane->client) && has_all(&lane->client, &lane->server);
}

/* Both say goodbye, and the session ends cleanly. */
static void lane_part(struct world *w, struct lane *lane)
{
	lane->client.fin = lane->server.fin = true;
	world_until(w, lane->client.eof && lane->server.eof);
	assert_true(exchanged(lane));
	assert_int_equal(lane->client.error, 0);
	assert_int_equal(lane->server.error, 0);
}

static void take_view(void *arg, const struct session_view *v)
{
	*(struct session_view *)arg = *v;
}

/* Of the only session. */
static struct session_view view(struct world *w)
{
	struct session_view v = {0};

	assert_int_equal(sessions_count(w->sessions), 1);
	sessions_each(w->sessions, take_view, &v);
	return v;
}

/* Joined, and both directions are the kernel's. */
static bool is_spliced(struct world *w)
{
	struct session_view v = view(w);

	return v.splicing && v.mover[0] == FLOW_KERNEL && v.mover[1] == FLOW_KERNEL;
}

/* One lane, a session that is joined. */
static struct lane *meet(struct world *w)
{
	world_init(w, 1);
	world_start(w);
	lane_meet(w, &w->lanes[0], 1);
	world_until(w, is_spliced(w));
	return &w->lanes[0];
}

/* The same, but what the server says is left to userspace. */
static struct lane *meet_half(struct world *w)
{
	world_init(w, 1);
	w->proxies[0]->splice_response = SPLICE_OFF;
	world_start(w);
	lane_meet(w, &w->lanes[0], 1);
	world_until(w, view(w).splicing);
	return &w->lanes[0];
}

/* ---- bytes ---- */

static void the_kernel_moves_the_bytes_of_both_directions(void **state)
{
	struct world w;
	struct lane *lane = meet(&w);

	(void)state;
	lane->client.to_send = 100000;
	lane->server.to_send = 200000;
	lane_part(&w, lane);
	world_until(&w, w.ended == 1);
	assert_int_equal(w.stats.joined, 1);
	assert_int_equal(byte_total(&w.stats.in), 100000);
	assert_int_equal(byte_total(&w.stats.out), 200000);
	assert_true(w.stats.in.kernel > 0);
	assert_true(w.stats.out.kernel > 0);
	assert_int_equal(w.stats.resets_sent, 0);
	world_done(&w);
}

static void bytes_that_came_before_the_join_are_delivered(void **state)
{
	struct world w;
	struct lane *lane = &w.lanes[0];

	(void)state;
	world_init(&w, 1);
	world_start(&w);
	for (uint8_t n = 0; n < 20; n++) {
		assert_ok(lane_call(&w, lane, n));
		lane->client.to_send = 10 + 3000u * n;
		peer_step(&lane->client); /* long before there is a server */
		lane->server.to_send = 20 + 2000u * n;
		wait_until(lane_pick_up(lane));
		peer_step(&lane->server); /* before we know that it has accepted */
		world_until(&w, exchanged(lane));
		lane_part(&w, lane);
		world_until(&w, !sessions_count(w.sessions));
	}
	assert_int_equal(w.stats.joined, 20);
	world_done(&w);
}

static void a_slow_reader_stops_its_sender_and_gets_every_byte(void **state)
{
	struct world w;
	struct lane *lane = meet(&w);
	struct session_view v;
	uint64_t sent;

	(void)state;
	lane->server.deaf = true;
	lane->client.to_send = 64 * MB;
	do {
		sent = lane->client.sent;
		world_run_ms(&w, 300);
	} while (lane->client.sent != sent);
	assert_true(sent < 48 * MB);
	v = view(&w);
	assert_int_equal(v.mover[0], FLOW_USER);
	assert_true(v.pauses[0] >= 1);

	lane->client.to_send = sent; /* enough */
	lane->server.deaf = false;
	world_until(&w, exchanged(lane));
	/* What comes now is the kernel's again. */
	lane->client.to_send += 1000;
	world_until(&w, exchanged(lane));
	assert_true(is_spliced(&w));
	lane_part(&w, lane);
	world_until(&w, w.ended == 1);
	assert_true(w.stats.pauses >= 1);
	assert_true(w.stats.resumes >= 1);
	world_done(&w);
}

static void a_client_that_does_not_read_can_still_upload(void **state)
{
	struct world w;
	struct lane *lane = meet(&w);
	uint64_t sent;

	(void)state;
	lane->client.deaf = true;
	lane->server.to_send = 64 * MB;
	do {
		sent = lane->server.sent;
		world_run_ms(&w, 200);
	} while (lane->server.sent != sent);
	lane->client.to_send = 2 * MB;
	world_until(&w, has_all(&lane->server, &lane->client));
	lane->server.to_send = lane->server.sent;
	lane->client.deaf = false;
	lane_part(&w, lane);
	world_done(&w);
}

/* The kernel's workers of this CPU, which bring passed and redirected bytes on their way, stand still. */
static void hold_workers(bool hold)
{
	const struct sched_param first = {.sched_priority = hold ? 1 : 0};
	static cpu_set_t all;
	cpu_set_t here;

	if (hold) {
		assert_ok(sched_getaffinity(0, sizeof(all), &all));
		CPU_ZERO(&here);
		CPU_SET((size_t)sched_getcpu(), &here);
		assert_ok(sched_setaffinity(0, sizeof(here), &here));
	}
	assert_ok(sched_setscheduler(0, hold ? SCHED_FIFO : SCHED_OTHER, &first));
	if (!hold && CPU_COUNT(&all))
		assert_ok(sched_setaffinity(0, sizeof(all), &all));
}

/* The server says so much behind a request that waits for a worker, so that it is charged to nobody. The workers are held afterwards. */
static void answer_behind_a_request(struct lane *lane, uint64_t bytes)
{
	hold_workers(true);
	lane->client.to_send = KB;
	lane->server.to_send = bytes;
	for (int i = 0; i < 1000 && lane->server.sent < bytes; i++) {
		peer_step(&lane->client);
		peer_step(&lane->server);
	}
}

/* The daemon's socket that is connected with it. */
static int other_end(const struct peer *p)
{
	struct sockaddr_storage own, peer;
	socklen_t len = sizeof(own);

	assert_ok(getsockname(p->fd, (struct sockaddr *)&own, &len));
	for (int fd = 0; fd < 1024; fd++) {
		socklen_t peer_len = sizeof(peer);

		if (getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 && peer_len == len && !memcmp(&peer, &own, len))
			return fd;
	}
	fail_msg("nobody is connected with it");
	return -1;
}

/* Its receive buffer holds that much and more. */
static bool is_charged_with(int fd, uint32_t bytes)
{
	uint32_t memory[SK_MEMINFO_VARS];
	socklen_t len = sizeof(memory);

	assert_ok(getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &len));
	return memory[SK_MEMINFO_RMEM_ALLOC] >= bytes;
}

/* Also of a test that failed. */
static int let_workers_go(void **state)
{
	(void)state;
	hold_workers(false);
	return 0;
}

static uint32_t unacked(const struct peer *p)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_ok(getsockopt(p->fd, IPPROTO_TCP, TCP_INFO, &info, &len));
	return info.tcpi_unacked;
}

/*
 * What is passed behind redirected bytes is charged late: the receive buffer holds more than it should, the next segment is dropped, and
 * the window closes that had been open for it.
 */
static void a_window_that_was_taken_back_is_opened_again(void **state)
{
	struct world w;
	struct lane *lane = meet_half(&w);
	const int size = 128 * KB;

	(void)state;
	lane->client.deaf = true;
	assert_ok(setsockopt(other_end(&lane->server), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size))); /* as sock_fit() does */
	answer_behind_a_request(lane, 4 * MB);
	hold_workers(false);
	wait_until(is_charged_with(other_end(&lane->server), (uint32_t)lane->server.sent));
	lane->server.to_send = lane->server.sent + 64 * KB; /* two segments: the first one closes the window that was open for both */
	lane->client.to_send = 4 * MB;
	world_until(&w, has_all(&lane->server, &lane->client));
	world_until(&w, !unacked(&lane->server));
	lane->client.deaf = false;
	lane_part(&w, lane);
	world_done(&w);
}

/* What is passed behind redirected bytes that do not leave has a bound all the same, also while nobody is there to read. */
static void a_flood_that_no_buffer_is_charged_with_ends_its_session(void **state)
{
	struct world w;
	struct lane *lane = meet_half(&w);
	struct flow *f = splice_flow(w.sp, 1);

	(void)state;
	answer_behind_a_request(lane, 8 * MB);
	/* As if it had gone on for longer. */
	flow_set(f, moved, f->moved - SHUNT_PASSED_MAX - 4 * MB);
	lane->server.to_send += MB;
	for (int i = 0; i < 100; i++)
		peer_step(&lane->server);
	hold_workers(false);
	world_until(&w, w.ended == 1);
	world_until(&w, lane->client.error && lane->server.error);
	assert_true(peer_was_reset(&lane->client) && peer_was_reset(&lane->server));
	world_done(&w);
}

static void one_direction_is_left_to_userspace_if_the_configuration_says_so(void **state)
{
	(void)state;
	for (int users = 0; users < 2; users++) {
		struct world w;
		struct lane *lane = &w.lanes[0];

		world_init(&w, 1);
		*(users ? &w.proxies[0]->splice_response : &w.proxies[0]->splice_request) =
			SPLICE_OFF;
		world_start(&w);
		lane_meet(&w, lane, 1);
		lane->client.to_send = lane->server.to_send = 500000;
		world_until(&w, exchanged(lane));
		assert_int_equal(view(&w).mover[users], FLOW_USER);
		lane_part(&w, lane);
		world_until(&w, w.ended == 1);
		assert_int_equal((users ? w.stats.out : w.stats.in).user, 500000);
		assert_int_equal((users ? w.stats.out : w.stats.in).kernel, 0);
		assert_true((users ? w.stats.in : w.stats.out).kernel > 0);
		world_done(&w);
	}
}

/* ---- ends ---- */

static void a_half_closed_session_carries_the_answer(void **state)
{
	(void)state;
	for (int first = 0; first < 2; first++) {
		struct world w;
		struct lane *lane = meet(&w);
		struct peer *a = first ? &lane->server : &lane->client;
		struct peer *b = first ? &lane->client : &lane->server;

		a->to_send = 300000;
		a->fin = true;
		world_until(&w, b->eof);
		assert_true(has_all(b, a));
		world_run_ms(&w, 20);
		assert_false(a->eof);
		b->to_send = 500000;
		world_until(&w, has_all(a, b));
		b->fin = true;
		world_until(&w, a->eof);
		world_until(&w, w.ended == 1);
		assert_int_equal(w.stats.resets_sent, 0);
		world_done(&w);
	}
}

static void a_server_that_speaks_and_closes_at_once_is_heard(void **state)
{
	struct world w;
	struct lane *lane = &w.lanes[0];

	(void)state;
	world_init(&w, 1);
	world_start(&w);
	for (uint8_t n = 0; n < 50; n++) {
		assert_ok(lane_call(&w, lane, n));
		lane->server.to_send = n % 2 ? 0 : 5000;
		lane->server.fin = true;
		lane->client.to_send = n % 3 * 40000u;
		if (n % 5 == 0)
			wait_until(lane_pick_up(lane));
		else
			world_until(&w, lane_pick_up(lane));
		if (n % 4 == 0)
			peer_step(&lane->server);
		world_until(&w, lane->client.eof);
		assert_int_equal(lane->client.received, lane->server.to_send);
		lane_part(&w, lane);
		world_until(&w, !sessions_count(w.sessions));
	}
	assert_int_equal(w.stats.resets_sent, 0);
	world_done(&w);
}

static void a_client_that_says_all_before_it_has_a_server_is_served(void **state)
{
	struct world w;
	struct lane *lane = &w.lanes[0];

	(void)state;
	world_init(&w, 1);
	world_start(&w);
	for (uint8_t n = 0; n < 30; n++) {
		/* The FIN is there when the session begins; or it comes in between. */
		assert_ok(lane_call(&w, lane, n));
		lane->client.to_send = 100 + n * 1000u;
		lane->client.fin = true;
		if (n % 2)
			peer_step(&lane->client);
		world_until(&w, lane_pick_up(lane));
		world_until(&w, lane->server.eof);
		assert_true(has_all(&lane->server, &lane->client));
		lane->server.to_send = 3000;
		lane_part(&w, lane);
		world_until(&w, !sessions_count(w.sessions));
	}
	assert_int_equal(w.stats.resets_sent, 0);
	world_done(&w);
}

/* The other end must see a reset, and no end of stream, in whatever state it is. */
static void reset_one(int who, bool deaf, uint32_t bytes)
{
	struct world w;
	struct lane *lane = meet(&w);
	struct peer *bad = who ? &lane->server : &lane->client;
	struct peer *good = who ? &lane->client : &lane->server;
	uint64_t began;

	good->deaf = deaf;
	bad->to_send = bytes;
	good->to_send = bytes / 2;
	world_until(&w, bad->sent > bytes / 4);
	peer_reset(bad);
	began = now_ns();
	world_until(&w, w.ended == 1);
	good->deaf = false;
	world_until(&w, good->error);
	assert_true(peer_was_reset(good));
	assert_true(good->received <= bad->sent);
	assert_true(now_ns() - began < 10 * NS_PER_SEC); /* in an emulated machine; else 1 s */
	assert_int_equal(w.stats.resets_sent, 1);
	world_done(&w);
}

static void a_reset_of_the_client_is_passed_on_as_a_reset(void **state)
{
	(void)state;
	reset_one(0, false, 10);
	reset_one(0, false, 4 * MB);
	reset_one(0, true, 4 * MB);
}

static void a_reset_of_the_server_is_passed_on_as_a_reset(void **state)
{
	(void)state;
	reset_one(1, false, 10);
	reset_one(1, false, 4 * MB);
	reset_one(1, true, 4 * MB);
}

static void an_idle_session_is_reset_and_a_trickling_one_is_not(void **state)
{
	struct world w;
	struct lane *lane = &w.lanes[0];

	(void)state;
	world_init(&w, 1);
	w.proxies[0]->timeout.client = w.proxies[0]->timeout.server = 1000;
	world_start(&w);
	lane_meet(&w, lane, 1);
	for (int i = 0; i < 10; i++) {
		lane->server.to_send++;
		world_run_ms(&w, 150);
	}
	assert_int_equal(sessions_count(w.sessions), 1);
	assert_true(exchanged(lane));
	world_until(&w, lane->client.error && lane->server.error);
	assert_true(peer_was_reset(&lane->client));
	assert_true(peer_was_reset(&lane->server));
	world_done(&w);
}

static void killing_resets_all_sessions_at_once(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, LANES);
	world_start(&w);
	for (uint32_t i = 0; i < LANES; i++) {
		lane_meet(&w, &w.lanes[i], (uint8_t)i);
		w.lanes[i].client.to_send = i % 2 ? 8 * MB : 10;
		w.lanes[i].server.deaf = i % 3 == 0;
	}
	world_run_ms(&w, 20);
	sessions_kill(w.sessions);
	world_until(&w, w.ended == LANES);
	assert_empty(&w);
	for (uint32_t i = 0; i < LANES; i++) {
		struct lane *lane = &w.lanes[i];

		lane->server.deaf = false;
		world_until(&w, lane->client.error && lane->server.error);
		assert_false(lane->client.eof || lane->server.eof);
	}
	world_done(&w);
}

/* ---- slots ---- */

static void a_client_too_many_is_reset(void **state)
{
	struct world w;

	(void)state;
	world_init(&w, 2);
	w.max_sessions = 1;
	world_start(&w);
	lane_meet(&w, &w.lanes[0], 1);
	assert_int_equal(lane_call(&w, &w.lanes[1], 2), -ENOSPC);
	world_until(&w, w.lanes[1].client.error);
	assert_true(peer_was_reset(&w.lanes[1].client));
	w.lanes[0].client.to_send = 1000;
	lane_part(&w, &w.lanes[0]);
	world_done(&w);
}

static void one_slot_serves_many_sessions_one_after_the_other(void **state)
{
	struct world w;
	struct lane *lane = &w.lanes[0];

	(void)state;
	world_init(&w, 1);
	world_start(&w);
	for (uint32_t n = 0; n < 150; n++) {
		assert_ok(lane_call(&w, lane, (uint8_t)n));
		lane->client.to_send = 100 + n % 7 * 20000;
		lane->server.to_send = 50 + n % 5 * 30000;
		world_until(&w, lane_pick_up(lane));
		if (n % 3 == 0) { /* in the middle */
			world_until(&w, lane->client.received > 10);
			peer_reset(n % 2 ? &lane->client : &lane->server);
		} else {
			lane_part(&w, lane);
		}
		world_until(&w, !sessions_count(w.sessions));
	}
	assert_int_equal(w.ended, 150);
	world_done(&w);
}

/* ---- at random ---- */

static uint64_t seed;

static uint32_t pick(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 20) % n);
}

static uint64_t pick_size(void)
{
	static const uint32_t sizes[] = {1, 10, 2000, 70 * KB, 300 * KB, 2 * MB};

	return pick(sizes[pick(ARRAY_SIZE(sizes))]);
}

static void begin_at_random(struct world *w, struct lane *lane, uint32_t n)
{
	uint64_t up = pick_size(), down = pick_size();

	assert_ok(lane_call(w, lane, (uint8_t)n));
	lane->client.to_send = up;
	lane->server.to_send = down;
	lane->talk = pick(3) ? 1 + pick(100) : 1;
	lane->patience = pick(3) ? 0 : pick(300);
	if (lane->patience) {
		lane->client.deaf = pick(2);
		lane->server.deaf = pick(2);
	}
	lane->resets = pick(4) ? 0 : 1 + (int)pick(2);
	if (lane->resets)
		lane->resets_at = pick((uint32_t)(lane->resets == 1 ? up : down) + 1);
	if (pick(2))
		peer_step(&lane->client);
	lane->busy = true;
}

static void end_at_random(struct world *w, struct lane *lane)
{
	struct peer *good = lane->resets == 1 ? &lane->server : &lane->client;

	if (!lane->resets) {
		assert_int_equal(lane->client.error, 0);
		assert_int_equal(lane->server.error, 0);
		assert_true(exchanged(lane));
	} else if (lane->met) {
		assert_true(peer_was_reset(good));
	}
	(void)w;
	lane->busy = false;
}

static void step_at_random(struct world *w, struct lane *lane)
{
	struct peer *bad = lane->resets == 1 ? &lane->client : &lane->server;
	struct peer *good = lane->resets == 1 ? &lane->server : &lane->client;

	lane_pick_up(lane);
	if (lane->patience && --lane->patience == 0)
		lane->client.deaf = lane->server.deaf = false;
	if (lane->talk && --lane->talk == 0) {
		lane->client.fin = lane->resets != 1;
		lane->server.fin = lane->resets != 2;
	}
	if (!lane->resets) {
		if (lane->client.error || lane->server.error ||
		    (lane->client.eof && lane->server.eof))
			end_at_random(w, lane);
		return;
	}
	if (bad->fd >= 0 && bad->sent >= lane->resets_at && (lane->resets == 1 || lane->met)) {
		peer_reset(bad);
		lane->client.deaf = lane->server.deaf = false;
		lane->patience = 200; /* for a server that was not even called */
	} else if (bad->fd < 0 && (good->error || (!lane->met && lane->patience == 1))) {
		end_at_random(w, lane);
	}
}

/*
 * Sizes, half-closes, deafness, resets: all at random, many sessions at once in few slots. Every
 * byte is right; an orderly session ends in order, any other with a reset.
 */
static void random_sessions_are_exact(void **state)
{
	const char *given = getenv("SHUNT_TEST_SEED");
	const uint32_t total = 250;
	uint64_t deadline = now_ns() + 3 * PATIENCE_MS * NS_PER_MS;
	uint32_t begun = 0, busy = 1;
	struct world w;

	(void)state;
	seed = given ? strtoull(given, NULL, 0) : (now_ns() << 8 | 1);
	print_message("SHUNT_TEST_SEED=%lu\n", (unsigned long)seed);
	world_init(&w, LANES);
	w.limit = 64 * KB;
	world_start(&w);
	while (begun < total || busy) {
		busy = 0;
		for (uint32_t i = 0; i < LANES; i++) {
			struct lane *lane = &w.lanes[i];

			if (lane->busy)
				step_at_random(&w, lane);
			else if (begun < total && sessions_count(w.sessions) < LANES)
				begin_at_random(&w, lane, begun++);
			busy += lane->busy;
		}
		world_turn(&w);
		if (now_ns() > deadline) {
			for (uint32_t i = 0; i < LANES; i++) {
				const struct lane *l = &w.lanes[i];

				if (l->busy)
					print_error(
						"lane %u: resets %d met %d; client sent %lu/%lu "
						"got %lu fin %d eof %d error %d; server sent "
						"%lu/%lu got %lu fin %d eof %d error %d\n",
						i, l->resets, l->met, l->client.sent,
						l->client.to_send, l->client.received,
						l->client.fin_sent, l->client.eof, l->client.error,
						l->server.sent, l->server.to_send,
						l->server.received, l->server.fin_sent,
						l->server.eof, l->server.error);
			}
			fail_msg("%u of %u sessions have begun, %u go on", begun, total, busy);
		}
	}
	world_until(&w, w.ended == total);
	assert_true(w.stats.joined > total / 4);
	world_done(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_moves_the_bytes_of_both_directions),
		cmocka_unit_test(bytes_that_came_before_the_join_are_delivered),
		cmocka_unit_test(a_slow_reader_stops_its_sender_and_gets_every_byte),
		cmocka_unit_test(a_client_that_does_not_read_can_still_upload),
		cmocka_unit_test_teardown(a_window_that_was_taken_back_is_opened_again, let_workers_go),
		cmocka_unit_test_teardown(a_flood_that_no_buffer_is_charged_with_ends_its_session, let_workers_go),
		cmocka_unit_test(one_direction_is_left_to_userspace_if_the_configuration_says_so),
		cmocka_unit_test(a_half_closed_session_carries_the_answer),
		cmocka_unit_test(a_server_that_speaks_and_closes_at_once_is_heard),
		cmocka_unit_test(a_client_that_says_all_before_it_has_a_server_is_served),
		cmocka_unit_test(a_reset_of_the_client_is_passed_on_as_a_reset),
		cmocka_unit_test(a_reset_of_the_server_is_passed_on_as_a_reset),
		cmocka_unit_test(an_idle_session_is_reset_and_a_trickling_one_is_not),
		cmocka_unit_test(killing_resets_all_sessions_at_once),
		cmocka_unit_test(a_client_too_many_is_reset),
		cmocka_unit_test(one_slot_serves_many_sessions_one_after_the_other),
		cmocka_unit_test(random_sessions_are_exact),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]); /* a pattern: "*reset*" */
	log_setup(LOG_ALERT, false); /* and no descriptor for them */
	return cmocka_run_group_tests(tests, need_root, NULL);
}
