/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_take_over.c - a ledger that a dying worker wrote nonsense into: the next worker drops it,
 * and closes nobody else's descriptors. (tests/fuzz/fuzz_ledger.c does the same with any bytes;
 * what it found is here.)
 *
 * Links everything but main and splice.
 */
#include "netpair.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "fake_splice.h"
#include "fdtable.h"
#include "lb.h"
#include "lb_adopt.h"
#include "log.h"
#include "run_loop.h"

struct fixture {
	struct config *config;
	struct lb *lb;
	int server, client[2], served[2]; /* ours is the first of each */
	unsigned int fds_before;
};

/* A balancer whose worker has just died over one established session; [0] and [1] are connected
 * with each other. */
static void begin(struct fixture *f)
{
	int high = getpid() >> 8 & 255, low = getpid() & 255; /* an address that is nobody else's */
	static int port = 19003;			      /* a test that fails keeps its own */
	char text[1024], at[ADDR_STRLEN];
	struct ledger_record *r;
	struct addr server, peer;
	socklen_t len = sizeof(peer);
	int served[2];

	f->fds_before = net_count_fds();
	f->server = net_listen(&server);
	snprintf(text, sizeof(text),
		 "global\n  nosplice\n  maxconn 4\n  nbthread 1\nlisten l\n  bind "
		 "127.103.%d.%d:%d\n  server s1 %s\n",
		 high, low, port++, addr_format(&server, at));
	f->config = config_new(CONFIG_RESOLVE);
	assert_int_equal(config_parse(f->config, "test", text, strlen(text)), 0);
	assert_int_equal(config_finish(f->config), 0);
	assert_int_equal(lb_new(&f->lb, f->config), 0);
	net_pair(f->client);
	net_pair(served);
	f->served[0] = served[1]; /* it was the daemon that connected */
	f->served[1] = served[0];
	assert_int_equal(fdtable_keep_all(), 0);
	fdtable_drop(f->client[0]);
	fdtable_drop(f->served[0]);
	r = ledger_get(f->lb->ledger, 0);
	*r = (struct ledger_record){
		.serial = 1,
		.state = LEDGER_RELAY,
		.fallback = FALLBACK_OFF,
		.frontend = 1,
		.backend = 1,
		.server = 1,
		.fd = {f->client[0], f->served[0]},
		.accepted_ns = now_ns(),
		.connected_ns = now_ns(),
	};
	assert_int_equal(getpeername(f->client[0], &peer.sa, &len), 0);
	ledger_addr_set(&r->client, &peer);
	assert_int_equal(getpeername(f->served[0], &peer.sa, &len), 0);
	ledger_addr_set(&r->server_addr, &peer);
}

static void take_over(struct fixture *f)
{
	assert_int_equal(lb_start(f->lb, true), 0);
	run_loop(f->lb->loop, NS_PER_MS);
}

static void end(struct fixture *f)
{
	lb_stop(f->lb);
	loop_settle(f->lb->loop);
	assert_int_equal(f->lb->taken, 0);
	assert_int_equal(f->lb->stats.current, 0);
	assert_int_equal(ledger_used(f->lb->ledger), 0);
	lb_finish(f->lb);
	lb_free(f->lb);
	config_free(f->config);
	fdtable_done();
	close(f->server);
	close(f->client[1]);
	close(f->served[1]);
	assert_int_equal(net_count_fds(), f->fds_before);
}

/* Was our end closed? (Its number may be something else's by now.) */
static bool was_closed(const int pair[2])
{
	char byte;
	ssize_t n = recv(pair[1], &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

static bool is_listening(int fd)
{
	int yes = 0;
	socklen_t len = sizeof(yes);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) == 0 && yes;
}

static void good_record_is_adopted(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f);
	take_over(&f);
	assert_int_equal(f.lb->taken, 1);
	assert_int_equal(f.lb->stats.current, 1);
	assert_int_equal(f.lb->stats.lost, 0);
	end(&f);
}

/* As a worker that dies before it has adopted anybody. */
static void forget_and_die(struct fixture *f)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(lb_forget_worker(f->lb) == 0 ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* It may have read what no record tells: whoever adopts it must know, even the third worker. */
static void mark_of_who_was_served_outlives_workers_that_do_not_adopt_it(void **state)
{
	struct ledger_record *r;
	uint32_t *serving;
	struct fixture f;

	(void)state;
	begin(&f);
	r = ledger_get(f.lb->ledger, 0);
	serving = ledger_serving(f.lb->ledger, 0);
	*serving = 1;
	for (int deaths = 0; deaths < 2; deaths++) {
		forget_and_die(&f);
		assert_int_equal(r->served, 1);
		assert_int_equal(r->crashes, 1);
		assert_int_equal(*serving, 0);
	}
	take_over(&f);
	assert_int_equal(f.lb->taken, 1);
	assert_int_equal(f.lb->stats.lost, 0);
	assert_int_equal(r->served, 0);
	end(&f);
}

/* It would look for flows that are not there. */
static void joined_session_without_a_kernel_path_makes_no_sense(void **state)
{
	static const uint32_t states[] = {LEDGER_JOINING, LEDGER_SPLICED};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct fixture f;

		begin(&f);
		ledger_get(f.lb->ledger, 0)->state = states[i];
		take_over(&f);
		assert_int_equal(f.lb->taken, 0);
		assert_int_equal(f.lb->stats.lost, 1);
		assert_true(was_closed(f.client) && was_closed(f.served));
		end(&f);
	}
}

/* Nobody would ever close what a record claims and has no right to. */
static void end_whose_address_is_wrong_is_closed(void **state)
{
	struct fixture f;

	(void)state;
	begin(&f);
	ledger_get(f.lb->ledger, 0)->client.port ^= 1;
	take_over(&f);
	assert_int_equal(f.lb->taken, 0);
	assert_int_equal(f.lb->stats.lost, 1);
	assert_true(was_closed(f.client) && was_closed(f.served));
	end(&f);
}

static void descriptor_that_is_somebody_elses_is_left_alone(void **state)
{
	struct fixture f;
	struct ledger_record *r;

	(void)state;
	begin(&f);
	r = ledger_get(f.lb->ledger, 0);
	r[1] = r[0]; /* twice in the ledger */
	r[1].serial = 2;
	r[2] = r[0]; /* a socket without a peer, which is what a reset one looks like too */
	r[2].serial = 3;
	r[2].fd[0] = f.server;
	take_over(&f);
	assert_int_equal(f.lb->taken, 1);
	assert_int_equal(f.lb->stats.lost, 2);
	assert_true(is_listening(f.server));
	assert_false(was_closed(f.client) || was_closed(f.served));
	end(&f);
}

/* It was accepted just before, and its listener is closed already. */
static void client_that_was_accepted_before_a_drain_is_served(void **state)
{
	struct listener *l;
	struct fixture f;
	struct addr at;
	socklen_t len = sizeof(at);
	int client[2];

	(void)state;
	begin(&f);
	l = f.lb->listeners[0].listener;
	assert_int_equal(getsockname(listener_fd(l), &at.sa, &len), 0);
	client[1] = net_connect(&at);
	while ((client[0] = net_accept(listener_fd(l))) < 0)
		;
	f.lb->stopping = true;
	close(listener_fd(l));
	assert_int_equal(fdtable_keep(client[1]), 0);
	take_over(&f);
	assert_int_equal(f.lb->taken, 2);
	assert_false(was_closed(client));
	close(client[1]);
	end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_record_is_adopted),
		cmocka_unit_test(mark_of_who_was_served_outlives_workers_that_do_not_adopt_it),
		cmocka_unit_test(joined_session_without_a_kernel_path_makes_no_sense),
		cmocka_unit_test(end_whose_address_is_wrong_is_closed),
		cmocka_unit_test(descriptor_that_is_somebody_elses_is_left_alone),
		cmocka_unit_test(client_that_was_accepted_before_a_drain_is_served),
	};

	log_setup(LOG_EMERG, false); /* alerts are wanted here, not seen */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
