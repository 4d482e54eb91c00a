/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_listener.c - accepting: what a client's socket is like, and how accepting stops and goes on. */
#include "netpair.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/syscall.h>

#include "listener.h"
#include "run_loop.h"

#define LIMIT (512 * 1024)

static const struct sock_tuning tuning = { .limit = LIMIT, .begin = LIMIT };

/* What the next accept4() is to fail with, and leave the client where it is; 0 = nothing. */
static int accept_error;
static uint32_t accepts; /* calls */

int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	accepts++;
	if (accept_error) {
		errno = accept_error;
		accept_error = 0;
		return -1;
	}
	return (int)syscall(SYS_accept4, fd, addr, len, flags);
}

/* An owner that keeps what it is given. */
struct owner {
	struct loop *loop;
	struct listener *listener;
	struct addr at;
	int clients[300];
	struct addr addrs[300];
	uint32_t nr, max_per_turn;
	int exhausted; /* the last error */
	uint32_t nr_exhausted;
	bool pauses;   /* in the callback, at max_per_turn */
	uint32_t in_turn;
};

static bool on_accepted(void *arg, int fd, const struct addr *client)
{
	struct owner *o = arg;

	assert_true(o->nr < ARRAY_SIZE(o->clients));
	o->clients[o->nr] = fd;
	o->addrs[o->nr++] = *client;
	if (++o->in_turn < o->max_per_turn)
		return true;
	if (o->pauses)
		listener_pause(o->listener);
	return o->pauses; /* a pause is enough, too */
}

static void on_exhausted(void *arg, int error)
{
	struct owner *o = arg;

	o->exhausted = error;
	o->nr_exhausted++;
	listener_pause(o->listener);
}

static const struct listener_ops ops = { .accepted = on_accepted, .exhausted = on_exhausted };

static int fd_of_listener(void)
{
	int fd = dup(0);

	close(fd);
	return fd; /* the next one to be opened */
}

static void any_port(struct addr *at)
{
	*at = (struct addr){ .in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) } };
}

static void owner_open(struct owner *o)
{
	socklen_t len = sizeof(o->at);
	int fd = fd_of_listener();

	any_port(&o->at);
	assert_int_equal(listener_open(&o->listener, &o->at, 256, &tuning), 0);
	assert_int_equal(getsockname(fd, &o->at.sa, &len), 0);
}

static void owner_init(struct owner *o)
{
	*o = (struct owner){ .max_per_turn = UINT32_MAX };
	assert_int_equal(loop_new(&o->loop), 0);
	owner_open(o);
	assert_int_equal(listener_start(o->listener, o->loop, &ops, o), 0);
}

/* Exactly one turn of the loop. */
static void turn(struct owner *o)
{
	o->in_turn = 0;
	run_loop(o->loop, 0);
}

static void owner_wait(struct owner *o, uint32_t nr)
{
	uint64_t until = now_ns() + NET_DEADLINE_MS * NS_PER_MS;

	while (o->nr < nr && now_ns() < until)
		turn(o);
	assert_int_equal(o->nr, nr);
}

static void owner_done(struct owner *o)
{
	for (uint32_t i = 0; i < o->nr; i++)
		close(o->clients[i]);
	listener_close(o->listener);
	loop_free(o->loop);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static void accepted_socket_has_what_a_session_needs(void **state)
{
	struct linger linger;
	socklen_t len = sizeof(linger);
	struct addr client;
	struct owner o;
	int fd, got;

	(void)state;
	owner_init(&o);
	fd = net_connect(&o.at);
	owner_wait(&o, 1);
	got = o.clients[0];
	assert_true(fcntl(got, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(option(got, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(got, IPPROTO_TCP, TCP_NOTSENT_LOWAT), LIMIT);
	assert_int_equal(option(got, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option(got, SOL_SOCKET, SO_OOBINLINE), 1);
	assert_true(option(got, SOL_SOCKET, SO_SNDBUF) > LIMIT);
	assert_int_equal(getsockopt(got, SOL_SOCKET, SO_LINGER, &linger, &len), 0);
	assert_true(linger.l_onoff && !linger.l_linger);
	len = sizeof(client);
	assert_int_equal(getsockname(fd, &client.sa, &len), 0);
	assert_memory_equal(&o.addrs[0].in, &client.in, sizeof(client.in));
	close(fd);
	owner_done(&o);
}

static void all_clients_are_accepted_even_more_than_fit_in_a_turn(void **state)
{
	struct owner o;
	int fds[200];

	(void)state;
	owner_init(&o);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = net_connect(&o.at);
	turn(&o);
	assert_true(o.nr < ARRAY_SIZE(fds)); /* the others have their turn */
	owner_wait(&o, ARRAY_SIZE(fds));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	owner_done(&o);
}

static void who_comes_alone_costs_one_call(void **state)
{
	struct owner o;
	int fds[3];

	(void)state;
	owner_init(&o);
	for (uint32_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = net_connect(&o.at);
		accepts = 0;
		turn(&o);
		assert_int_equal(o.nr, i + 1);
		assert_int_equal(accepts, i ? 1 : 2); /* the first time nothing is known yet */
		turn(&o);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	owner_done(&o);
}

static void paused_listener_leaves_clients_in_the_backlog(void **state)
{
	struct owner o;
	int fd;

	(void)state;
	owner_init(&o);
	listener_pause(o.listener);
	listener_pause(o.listener);
	fd = net_connect(&o.at);
	for (int i = 0; i < 5; i++)
		turn(&o);
	assert_int_equal(o.nr, 0);
	assert_int_equal(send(fd, "x", 1, 0), 1); /* connected all the same */
	assert_int_equal(listener_resume(o.listener), 0);
	assert_int_equal(listener_resume(o.listener), 0);
	owner_wait(&o, 1);
	close(fd);
	owner_done(&o);
}

static void owner_that_says_false_gets_no_more_in_this_turn(void **state)
{
	struct owner o;
	int fds[5];

	(void)state;
	owner_init(&o);
	for (int i = 0; i < 5; i++)
		fds[i] = net_connect(&o.at);
	o.max_per_turn = 2;
	turn(&o);
	assert_int_equal(o.nr, 2);
	turn(&o);
	assert_int_equal(o.nr, 4);
	turn(&o);
	assert_int_equal(o.nr, 5);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	owner_done(&o);
}

static void owner_that_pauses_gets_no_more_at_all(void **state)
{
	struct owner o;
	int fds[5];

	(void)state;
	owner_init(&o);
	for (int i = 0; i < 5; i++)
		fds[i] = net_connect(&o.at);
	o.max_per_turn = 2;
	o.pauses = true;
	for (int i = 0; i < 5; i++)
		turn(&o);
	assert_int_equal(o.nr, 2);
	o.pauses = false;
	o.max_per_turn = 100;
	assert_int_equal(listener_resume(o.listener), 0);
	owner_wait(&o, 5);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	owner_done(&o);
}

static void lack_of_resources_is_told_and_the_client_waits(void **state)
{
	const int errors[] = { EMFILE, ENFILE, ENOBUFS, ENOMEM };
	struct owner o;

	(void)state;
	owner_init(&o);
	for (uint32_t i = 0; i < ARRAY_SIZE(errors); i++) {
		int fd = net_connect(&o.at);

		accept_error = errors[i];
		turn(&o);
		turn(&o);
		assert_int_equal(o.exhausted, -errors[i]);
		assert_int_equal(o.nr_exhausted, i + 1); /* the owner has paused */
		assert_int_equal(o.nr, i);
		assert_int_equal(listener_resume(o.listener), 0);
		owner_wait(&o, i + 1);
		close(fd);
	}
	owner_done(&o);
}

static void error_of_one_client_does_not_stop_the_next(void **state)
{
	const int errors[] = { EINTR, ECONNABORTED, EPROTO, EPERM, ENETDOWN };
	struct owner o;

	(void)state;
	owner_init(&o);
	for (uint32_t i = 0; i < ARRAY_SIZE(errors); i++) {
		int fd = net_connect(&o.at);

		accept_error = errors[i];
		turn(&o);
		assert_int_equal(o.nr, i + 1); /* in the same turn */
		assert_int_equal(o.nr_exhausted, 0);
		close(fd);
	}
	owner_done(&o);
}

static void client_that_left_the_backlog_hurts_nobody(void **state)
{
	struct owner o;
	int fd;

	(void)state;
	owner_init(&o);
	net_reset(net_connect(&o.at));
	fd = net_connect(&o.at);
	turn(&o);
	turn(&o);
	assert_int_equal(o.nr_exhausted, 0);
	assert_true(o.nr >= 1);
	close(fd);
	owner_done(&o);
}

static void closing_resets_who_is_still_in_the_backlog(void **state)
{
	struct owner o;
	struct peer p;

	(void)state;
	owner_init(&o);
	peer_init(&p, net_connect(&o.at), 1, 2);
	o.listener = listener_close(o.listener);
	assert_null(o.listener);
	while (!p.error && !p.eof)
		peer_step(&p);
	assert_true(peer_was_reset(&p));
	peer_close(&p);
	owner_done(&o);
}

static void address_in_use_is_told(void **state)
{
	unsigned int fds = net_count_fds();
	struct listener *l = NULL;
	struct owner o;

	(void)state;
	owner_init(&o);
	fds = net_count_fds();
	assert_int_equal(listener_open(&l, &o.at, 10, &tuning), -EADDRINUSE);
	assert_null(l);
	assert_int_equal(net_count_fds(), fds);
	owner_done(&o);
}

static void port_is_free_again_while_clients_still_linger(void **state)
{
	struct owner o;
	int fd;

	(void)state;
	owner_init(&o);
	fd = net_connect(&o.at);
	owner_wait(&o, 1);
	listener_close(o.listener);
	/* A connection at that port is still open, as after a restart. */
	assert_int_equal(listener_open(&o.listener, &o.at, 10, &tuning), 0);
	close(fd);
	owner_done(&o);
}

static void strange_address_is_told(void **state)
{
	struct listener *l = NULL;
	struct addr at;

	(void)state;
	any_port(&at);
	assert_int_equal(inet_pton(AF_INET, "192.0.2.1", &at.in.sin_addr), 1);
	assert_int_equal(listener_open(&l, &at, 10, &tuning), -EADDRNOTAVAIL);
	at.sa.sa_family = 999;
	assert_int_equal(listener_open(&l, &at, 10, &tuning), -EAFNOSUPPORT);
	assert_null(l);
}

static void listener_that_never_started_may_be_closed(void **state)
{
	struct owner o;

	(void)state;
	owner_open(&o);
	listener_pause(o.listener); /* harmless */
	listener_close(o.listener);
	assert_null(listener_close(NULL));
}

/* ---- shared, and with places ---- */

static int unused_asked, places, places_kept;

static bool on_room(void *arg)
{
	(void)arg;
	if (places_kept == places)
		return false;
	places_kept++;
	return true;
}

static void on_unused(void *arg)
{
	(void)arg;
	places_kept--;
	unused_asked++;
}

static const struct listener_ops limited = {
	.room = on_room, .unused = on_unused, .accepted = on_accepted, .exhausted = on_exhausted
};

static void no_client_is_accepted_without_a_place_and_unused_ones_are_given_back(void **state)
{
	struct owner o = { .max_per_turn = UINT32_MAX };
	int fds[5];

	(void)state;
	places = 3;
	places_kept = unused_asked = 0;
	assert_int_equal(loop_new(&o.loop), 0);
	owner_open(&o);
	assert_int_equal(listener_start(o.listener, o.loop, &limited, &o), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = net_connect(&o.at);
	owner_wait(&o, 3);
	turn(&o);
	assert_int_equal(o.nr, 3);
	assert_int_equal(places_kept, 3);
	assert_int_equal(unused_asked, 0);
	places = 10;
	owner_wait(&o, 5);
	assert_int_equal(places_kept, 5); /* the look for a sixth one was given back */
	assert_int_equal(unused_asked, 1);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	owner_done(&o);
}

static void place_is_the_owners_again_when_accept_fails_for_lack_of_resources(void **state)
{
	struct owner o = { .max_per_turn = UINT32_MAX };
	int fd;

	(void)state;
	places = 1;
	places_kept = unused_asked = 0;
	assert_int_equal(loop_new(&o.loop), 0);
	owner_open(&o);
	assert_int_equal(listener_start(o.listener, o.loop, &limited, &o), 0);
	fd = net_connect(&o.at);
	accept_error = EMFILE;
	while (!o.nr_exhausted)
		turn(&o);
	assert_int_equal(unused_asked, 0); /* said once, by exhausted() */
	places_kept = 0;
	assert_int_equal(listener_resume(o.listener), 0);
	owner_wait(&o, 1);
	close(fd);
	owner_done(&o);
}

static void shared_listener_accepts_while_the_other_is_paused_or_closed(void **state)
{
	struct owner a, b = { .max_per_turn = UINT32_MAX };
	int fds[3];

	(void)state;
	owner_init(&a);
	assert_int_equal(loop_new(&b.loop), 0);
	assert_int_equal(listener_share(&b.listener, a.listener), 0);
	assert_int_equal(listener_start(b.listener, b.loop, &ops, &b), 0);
	listener_pause(a.listener);
	fds[0] = net_connect(&a.at);
	owner_wait(&b, 1);
	assert_int_equal(listener_resume(a.listener), 0);
	listener_pause(b.listener);
	fds[1] = net_connect(&a.at);
	owner_wait(&a, 1);
	assert_int_equal(listener_resume(b.listener), 0);
	listener_close(a.listener);
	a.listener = NULL;
	fds[2] = net_connect(&a.at); /* the socket lives with the one that is left */
	owner_wait(&b, 2);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	owner_done(&a);
	owner_done(&b);
}

static void resumed_listener_is_told_of_clients_that_came_meanwhile(void **state)
{
	struct owner a, b = { .max_per_turn = UINT32_MAX };
	int fd;

	(void)state;
	owner_init(&a);
	assert_int_equal(loop_new(&b.loop), 0);
	assert_int_equal(listener_share(&b.listener, a.listener), 0);
	assert_int_equal(listener_start(b.listener, b.loop, &ops, &b), 0);
	/* Who was woken for it pauses; the other one was not told. A resume looks at once. */
	listener_pause(a.listener);
	listener_pause(b.listener);
	fd = net_connect(&a.at);
	turn(&a);
	turn(&b);
	assert_int_equal(a.nr + b.nr, 0);
	assert_int_equal(listener_resume(a.listener), 0);
	owner_wait(&a, 1);
	close(fd);
	owner_done(&a);
	owner_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepted_socket_has_what_a_session_needs),
		cmocka_unit_test(all_clients_are_accepted_even_more_than_fit_in_a_turn),
		cmocka_unit_test(who_comes_alone_costs_one_call),
		cmocka_unit_test(paused_listener_leaves_clients_in_the_backlog),
		cmocka_unit_test(owner_that_says_false_gets_no_more_in_this_turn),
		cmocka_unit_test(owner_that_pauses_gets_no_more_at_all),
		cmocka_unit_test(lack_of_resources_is_told_and_the_client_waits),
		cmocka_unit_test(error_of_one_client_does_not_stop_the_next),
		cmocka_unit_test(client_that_left_the_backlog_hurts_nobody),
		cmocka_unit_test(closing_resets_who_is_still_in_the_backlog),
		cmocka_unit_test(address_in_use_is_told),
		cmocka_unit_test(port_is_free_again_while_clients_still_linger),
		cmocka_unit_test(strange_address_is_told),
		cmocka_unit_test(no_client_is_accepted_without_a_place_and_unused_ones_are_given_back),
		cmocka_unit_test(place_is_the_owners_again_when_accept_fails_for_lack_of_resources),
		cmocka_unit_test(shared_listener_accepts_while_the_other_is_paused_or_closed),
		cmocka_unit_test(resumed_listener_is_told_of_clients_that_came_meanwhile),
		cmocka_unit_test(listener_that_never_started_may_be_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
