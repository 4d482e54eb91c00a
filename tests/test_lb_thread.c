/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_lb_thread.c - who accepts, who serves, and that no client is forgotten in between. Some tests run the threads' loops one
 * after the other, so that a race comes out the same way each time; the last ones run them in threads, with real sessions.
 */
#include "netpair.h"

#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>

#include "conf.h"
#include "lb.h"
#include "log.h"
#include "run_loop.h"

#define TURN (200 * NS_PER_US)
#define THREADS_MAX 8
#define SERVERS 2

static struct lb lb;
static struct config config;
static struct config_proxy *proxies[2];
static struct config_server *server_conf[SERVERS]; /* of the first proxy; the second has the same addresses */
static int servers[SERVERS];
static struct addr at[2]; /* of the frontends */
static unsigned int fds_before;

/* What accept4() does before it looks; and what it then fails with, once. For tests that run one loop at a time. */
static void (*before_accept)(void);
static int accept_error;

int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	if (before_accept)
		before_accept();
	if (accept_error) {
		errno = accept_error;
		accept_error = 0;
		return -1;
	}
	return (int)syscall(SYS_accept4, fd, addr, len, flags);
}

static int setup(void **state)
{
	(void)state;
	fds_before = net_count_fds();
	lb = (struct lb){ .config = &config };
	pthread_mutex_init(&lb.scarce, NULL);
	conf_init(&config);
	config.global.splice_limit = 256 * 1024;
	proxies[0] = conf_listen(&config, "one");
	proxies[1] = conf_listen(&config, "two");
	for (int i = 0; i < SERVERS; i++) {
		struct addr server;

		servers[i] = net_listen(&server);
		server_conf[i] = conf_server(proxies[0], i ? "s1" : "s0", &server);
		conf_server(proxies[1], i ? "s1" : "s0", &server);
	}
	return 0;
}

static void open_listeners(struct lb_listener *ret)
{
	const struct sock_tuning tuning = { .limit = config.global.splice_limit };
	struct frontend *f;

	list_for_each(f, &lb.pool->frontends, entry) {
		struct addr any = { .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
		socklen_t len = sizeof(any);
		int fd = dup(0);

		close(fd); /* the next one to be opened is the listener's */
		assert_int_equal(listener_open(&ret[lb.nr_listeners].listener, &any, 1024, &tuning), 0);
		assert_int_equal(getsockname(fd, &at[lb.nr_listeners].sa, &len), 0);
		ret[lb.nr_listeners++].frontend = f;
	}
}

/* As lb_new() does it. */
static void start(uint32_t threads, uint32_t maxconn)
{
	struct lb_listener *opened = calloc(3, sizeof(*opened));

	assert_non_null(opened);
	lb.maxconn = maxconn;
	assert_int_equal(pool_new(&lb.pool, &config, maxconn), 0);
	assert_int_equal(ledger_new(&lb.ledger, maxconn, threads), 0);
	open_listeners(opened);
	lb.threads = calloc(threads, sizeof(*lb.threads));
	assert_non_null(lb.threads);
	lb.nr_threads = threads;
	for (uint32_t i = 0; i < threads; i++) {
		assert_int_equal(lb_thread_init(&lb.threads[i], &lb, i), 0);
		if (i > 0)
			assert_int_equal(lb_thread_share_listeners(&lb.threads[i], opened), 0);
	}
	lb.threads[0].listeners = opened;
	lb.loop = lb.threads[0].loop;
	for (uint32_t i = 0; i < threads; i++)
		assert_int_equal(lb_thread_start(&lb.threads[i]), 0);
}

static int teardown(void **state)
{
	(void)state;
	before_accept = NULL;
	lb.killed = true;
	for (uint32_t i = 0; i < lb.nr_threads; i++) {
		sessions_kill(lb.threads[i].sessions);
		loop_settle(lb.threads[i].loop);
	}
	for (uint32_t i = 0; i < lb.nr_threads; i++)
		assert_int_equal(lb.threads[i].load, 0);
	assert_int_equal(lb.taken, 0);
	assert_int_equal(ledger_used(lb.ledger), 0);
	for (uint32_t i = 0; i < lb.nr_threads; i++)
		lb_thread_done(&lb.threads[i]);
	free(lb.threads);
	ledger_free(lb.ledger);
	pool_free(lb.pool);
	for (int i = 0; i < SERVERS; i++)
		close(servers[i]);
	conf_done(&config);
	pthread_mutex_destroy(&lb.scarce);
	assert_int_equal(net_count_fds(), fds_before);
	return 0;
}

static void turn(uint32_t thread)
{
	run_loop(lb.threads[thread].loop, TURN);
}

/* The other threads need the time: under valgrind there is one at a time, and who does not sleep keeps it. */
#define WAIT_FOR(what)                                                                                 \
	do {                                                                                           \
		uint64_t until_ = now_ns() + NET_DEADLINE_MS * NS_PER_MS;                              \
		while (!(what)) {                                                                      \
			if (now_ns() > until_)                                                         \
				fail_msg("%s:%d: in vain: %s", __FILE__, __LINE__, #what);             \
			usleep(100);                                                                   \
		}                                                                                      \
	} while (0)

/* ---- who serves ---- */

static void clients_are_divided_evenly_whoever_accepts_them(void **state)
{
	int fds[8];

	(void)state;
	start(2, 100);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = net_connect(&at[0]);
	WAIT_FOR((turn(0), lb.taken == 8)); /* thread 1 accepts nothing */
	assert_int_equal(lb.threads[0].load, 4);
	assert_int_equal(lb.threads[1].load, 4);
	assert_int_equal(sessions_count(lb.threads[0].sessions), 4);
	assert_int_equal(sessions_count(lb.threads[1].sessions), 0); /* on their way */
	WAIT_FOR((turn(1), sessions_count(lb.threads[1].sessions) == 4));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void thread_without_room_gives_its_clients_to_one_that_has(void **state)
{
	int fds[10];

	(void)state;
	start(3, 8); /* 3 + 3 + 2 records */
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = net_connect(&at[0]);
	WAIT_FOR((turn(2), lb.taken == 8));
	WAIT_FOR((turn(0), turn(1), ledger_used(lb.ledger) == 8));
	assert_int_equal(lb.threads[0].load, 3);
	assert_int_equal(lb.threads[1].load, 3);
	assert_int_equal(lb.threads[2].load, 2);
	assert_true(lb.threads[2].paused); /* the other two clients wait */
	assert_int_equal(lb.stats.full, 1);
	net_reset(fds[0]);
	net_reset(fds[1]);
	WAIT_FOR((turn(0), turn(1), turn(2), lb.stats.sessions == 10)); /* and are served when two have gone */
	for (size_t i = 2; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void client_on_its_way_to_a_thread_is_reset_by_a_hard_stop(void **state)
{
	struct peer c[2];

	(void)state;
	start(2, 100);
	for (int i = 0; i < 2; i++)
		peer_init(&c[i], net_connect(&at[0]), 1, 2);
	WAIT_FOR((turn(0), lb.taken == 2));
	lb.stopping = lb.killed = true;
	sessions_kill(lb.threads[0].sessions);
	loop_settle(lb.threads[0].loop);
	assert_int_equal(lb.taken, 1);
	turn(1);
	assert_int_equal(lb.taken, 0);
	assert_int_equal(lb.threads[1].load, 0);
	for (int i = 0; i < 2; i++) {
		WAIT_FOR((peer_step(&c[i]), c[i].error));
		assert_true(peer_was_reset(&c[i]));
		peer_close(&c[i]);
	}
}

/* ---- nobody is forgotten ---- */

static int late_client;
static uint32_t accepts;

/* The first frontend's first client is in, and thread 0 has kept the last place to look for another. */
static void let_thread_1_find_no_place(void)
{
	if (++accepts != 2)
		return;
	assert_int_equal(lb.taken, 2);
	late_client = net_connect(&at[1]);
	turn(1);
	assert_true(lb.threads[1].paused);
	assert_int_equal(lb.stats.sessions, 1);
}

static void place_that_was_kept_for_nobody_is_told_to_who_paused_for_it(void **state)
{
	int first;

	(void)state;
	start(2, 2);
	accepts = 0;
	before_accept = let_thread_1_find_no_place;
	first = net_connect(&at[0]);
	WAIT_FOR((turn(0), accepts >= 2));
	before_accept = NULL;
	/* Thread 0 sleeps from now on: thread 1 must know by itself. */
	WAIT_FOR((turn(1), lb.stats.sessions == 2));
	close(first);
	close(late_client);
}

static void who_was_paused_is_resumed_by_another_threads_session(void **state)
{
	struct peer c[3];

	(void)state;
	start(2, 2);
	for (int i = 0; i < 2; i++)
		peer_init(&c[i], net_connect(&at[0]), 1, 2);
	WAIT_FOR((turn(0), turn(1), ledger_used(lb.ledger) == 2));
	peer_init(&c[2], net_connect(&at[1]), 1, 2);
	WAIT_FOR((turn(1), lb.threads[1].paused));
	lb_thread_close_listeners(&lb.threads[0]); /* or it would help itself */
	peer_reset(&c[0]); /* thread 0 has one, thread 1 has one */
	peer_reset(&c[1]);
	WAIT_FOR((turn(0), lb.taken == 1));
	WAIT_FOR((turn(1), lb.stats.sessions == 3));
	peer_close(&c[2]);
}

static void after_descriptors_ran_out_who_accepts_serves(void **state)
{
	int fds[5];

	(void)state;
	start(2, 100);
	accept_error = EMFILE;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = net_connect(&at[0]);
	turn(0);
	assert_int_equal(lb.stats.accept_errors, 1);
	assert_int_equal(lb.taken, 0); /* the place was given back */
	assert_true(lb.threads[0].paused);
	WAIT_FOR((turn(0), lb.stats.sessions == 5)); /* a moment later */
	assert_int_equal(lb.threads[0].load, 5); /* a hand-over would have let it take the next one's descriptor */
	assert_int_equal(lb.threads[1].load, 0);
	assert_false(lb.threads[0].careful);
	lb.scarce_until_ns = 0;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* ---- in threads ---- */

static int results[THREADS_MAX];
static pthread_t ids[THREADS_MAX];

static void *run_thread(void *arg)
{
	struct lb_thread *t = arg;

	results[t->number] = loop_run(t->loop);
	return NULL;
}

static void run_threads_start(void)
{
	for (uint32_t i = 0; i < lb.nr_threads; i++)
		assert_int_equal(pthread_create(&ids[i], NULL, run_thread, &lb.threads[i]), 0);
}

static void run_threads_stop(void)
{
	for (uint32_t i = 0; i < lb.nr_threads; i++) {
		loop_enter(lb.threads[i].loop);
		loop_stop(lb.threads[i].loop);
		loop_leave(lb.threads[i].loop);
		pthread_join(ids[i], NULL);
		assert_int_equal(results[i], 0);
	}
}

#define SESSIONS 400
#define AT_ONCE 60
#define BYTES 100000

static struct peer clients[AT_ONCE], at_servers[AT_ONCE];

static bool is_over(const struct peer *p)
{
	return p->fin_sent && p->eof;
}

static void open_client(struct peer *p, uint32_t nr)
{
	peer_init(p, net_connect(&at[nr % 2]), 1, 2);
	p->to_send = nr * 7919 % BYTES;
	p->fin = true;
}

static void accept_at_servers(uint32_t *nr)
{
	for (int i = 0; i < AT_ONCE; i++) {
		struct peer *p = &at_servers[i];
		int fd;

		if (p->fd >= 0 && is_over(p))
			peer_close(p);
		if (p->fd >= 0 || (fd = net_accept(servers[i % SERVERS])) < 0)
			continue;
		peer_init(p, fd, 2, 1);
		p->to_send = ++*nr * 6007 % BYTES;
		p->fin = true;
	}
}

static void count_view(void *arg, const struct session_view *v)
{
	*(uint32_t *)arg += v->record->serial != 0;
}

/* What `show sess` does, from a thread that runs no loop. */
static uint32_t visit_all(void)
{
	uint32_t nr = 0;

	for (uint32_t i = 0; i < lb.nr_threads; i++) {
		loop_enter(lb.threads[i].loop);
		sessions_each(lb.threads[i].sessions, count_view, &nr);
		loop_leave(lb.threads[i].loop);
	}
	return nr;
}

/* SESSIONS of them, AT_ONCE at a time, every byte of which is checked at both ends. */
static void exchange(void)
{
	uint64_t until = now_ns() + 6 * NET_DEADLINE_MS * NS_PER_MS;
	uint32_t begun = 0, ended = 0, served = 0;

	for (int i = 0; i < AT_ONCE; i++)
		clients[i].fd = at_servers[i].fd = -1;
	for (uint32_t rounds = 0; ended < SESSIONS; rounds++) {
		if (now_ns() > until)
			fail_msg("%u of %u sessions have ended", ended, begun);
		for (int i = 0; i < AT_ONCE; i++) {
			struct peer *p = &clients[i];

			if (p->fd < 0 && begun < SESSIONS)
				open_client(p, begun++);
			peer_step(p);
			peer_step(&at_servers[i]);
			if (p->fd < 0 || !is_over(p))
				continue;
			assert_int_equal(p->error, 0);
			peer_close(p);
			ended++;
		}
		accept_at_servers(&served);
		if (rounds % 16 == 0)
			assert_true(visit_all() <= lb.maxconn);
	}
	assert_int_equal(served, SESSIONS);
	for (int i = 0; i < AT_ONCE; i++)
		peer_close(&at_servers[i]);
}

static void expect_nothing_left(void)
{
	struct frontend *f;

	WAIT_FOR(!stat_get(lb.taken));
	run_threads_stop();
	assert_int_equal(lb.stats.sessions, SESSIONS);
	assert_int_equal(lb.stats.current, 0);
	assert_int_equal(lb.stats.resets_sent, 0);
	assert_true(lb.stats.max <= lb.maxconn);
	list_for_each(f, &lb.pool->frontends, entry) {
		assert_int_equal(f->taken, 0);
		assert_int_equal(f->stats.current, 0);
		assert_true(f->stats.max <= f->maxconn);
		assert_int_equal(f->backend->stats.queued, 0);
		for (int i = 0; i < SERVERS; i++) {
			const struct server *s = &f->backend->servers[i];

			assert_int_equal(s->stats.current, 0);
			assert_true(!s->conf->maxconn || s->stats.max <= s->conf->maxconn);
			if (!s->conf->maxconn) /* turns are exact */
				assert_int_equal(s->stats.chosen, SESSIONS / 4);
		}
	}
}

static void every_byte_of_many_sessions_arrives_through_several_threads(void **state)
{
	(void)state;
	start(4, 200);
	run_threads_start();
	exchange();
	expect_nothing_left();
	for (uint32_t i = 0; i < lb.nr_threads; i++)
		assert_true(loop_turns(lb.threads[i].loop) > 10); /* each had its part */
}

static void limits_hold_exactly_and_everybody_is_served_in_the_end(void **state)
{
	(void)state;
	proxies[0]->maxconn = 15;
	server_conf[0]->maxconn = server_conf[1]->maxconn = 3;
	start(4, 20);
	run_threads_start();
	exchange();
	assert_true(lb.stats.full > 0);
	expect_nothing_left();
}

static void more_threads_than_places_do_no_harm(void **state)
{
	(void)state;
	start(8, 9);
	run_threads_start();
	exchange();
	expect_nothing_left();
}

static void stopping_threads_resets_what_is_under_way_and_leaves_nothing(void **state)
{
	struct peer c[AT_ONCE];

	(void)state;
	for (int round = 0; round < 10; round++) {
		uint32_t before = stat_get(lb.stats.sessions);

		if (!round)
			start(4, 1000);
		run_threads_start();
		for (int i = 0; i < AT_ONCE; i++)
			peer_init(&c[i], net_connect(&at[i % 2]), 1, 2);
		WAIT_FOR(stat_get(lb.stats.sessions) > before + (uint32_t)round * AT_ONCE / 10);
		for (uint32_t i = 0; i < lb.nr_threads; i++) { /* as lb_stop() */
			loop_enter(lb.threads[i].loop);
			sessions_kill(lb.threads[i].sessions);
			loop_leave(lb.threads[i].loop);
		}
		run_threads_stop();
		lb.killed = true;
		for (uint32_t i = 0; i < lb.nr_threads; i++) {
			sessions_kill(lb.threads[i].sessions);
			loop_settle(lb.threads[i].loop);
		}
		lb.killed = false;
		assert_int_equal(lb.taken, 0);
		assert_int_equal(ledger_used(lb.ledger), 0);
		for (int i = 0; i < AT_ONCE; i++)
			peer_close(&c[i]);
	}
}

#define thread_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		thread_test(clients_are_divided_evenly_whoever_accepts_them),
		thread_test(thread_without_room_gives_its_clients_to_one_that_has),
		thread_test(client_on_its_way_to_a_thread_is_reset_by_a_hard_stop),
		thread_test(place_that_was_kept_for_nobody_is_told_to_who_paused_for_it),
		thread_test(who_was_paused_is_resumed_by_another_threads_session),
		thread_test(after_descriptors_ran_out_who_accepts_serves),
		thread_test(every_byte_of_many_sessions_arrives_through_several_threads),
		thread_test(limits_hold_exactly_and_everybody_is_served_in_the_end),
		thread_test(more_threads_than_places_do_no_harm),
		thread_test(stopping_threads_resets_what_is_under_way_and_leaves_nothing),
	};

	log_setup(LOG_ALERT, false); /* and no descriptor for them */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
