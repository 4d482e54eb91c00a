/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_session_faults.c - the life of a session, again and again, and each time one thing more of what it asks for is refused: memory
 * (malloc, calloc, reallocarray), a descriptor (socket), a place in epoll. Whatever it is: the session comes through whole, or both its
 * ends are reset and the log says that something ran out; another session notices nothing; nothing is left behind.
 *
 * The linker puts the __wrap functions in between (see the Makefile). They refuse only while the loop runs, and only to the daemon:
 * peers run outside of it, and what plays the kernel uses realloc().
 */
#include "rig.h"

#include <string.h>
#include <sys/epoll.h>

#define BULK (4u * 1024 * 1024)
#define FILLERS 61 /* timers, at most: with the other session's and run_loop's, the next one lets the loop's array grow */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
int __real_socket(int domain, int type, int protocol);
int __real_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);
int __real_loop_run(struct loop *l);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev);
int __wrap_loop_run(struct loop *l);

static bool in_loop, armed, for_good;
static unsigned int asked, refuse_at; /* from 1 */
static const char *refused;	      /* what it was */

static bool refuse(const char *what, int error)
{
	if (!in_loop || !armed || ++asked < refuse_at || (asked > refuse_at && !for_good))
		return false;
	refused = what;
	errno = error;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return refuse("malloc", ENOMEM) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return refuse("calloc", ENOMEM) ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
	return refuse("reallocarray", ENOMEM) ? NULL : __real_reallocarray(old, n, size);
}

int __wrap_socket(int domain, int type, int protocol)
{
	return refuse("socket", EMFILE) ? -1 : __real_socket(domain, type, protocol);
}

/* Only a new entry costs memory. */
int __wrap_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	return op == EPOLL_CTL_ADD && refuse("epoll_ctl", ENOMEM) ? -1 : __real_epoll_ctl(epfd, op, fd, ev);
}

int __wrap_loop_run(struct loop *l)
{
	int r;

	in_loop = true;
	r = __real_loop_run(l);
	in_loop = false;
	return r;
}

/* ---- one life ---- */

struct variant {
	bool spliced;
	bool requests_by_user; /* of a joined session */
	bool queued;	       /* it waits until the other session has ended */
	bool for_good;	       /* nothing is granted any more, once something was refused */
	unsigned int room;     /* for so many timers, before the loop's array must grow */
	int refusal;	       /* of the join */
};

struct life {
	struct rig r;
	struct peer client, server;
	struct timer fillers[FILLERS];
	int refusing;
};

static void on_filler(struct timer *t)
{
	(void)t;
	fail_msg("an hour has passed");
}

static void turn(struct life *l)
{
	int fd;

	rig_turn(&l->r);
	if (l->server.fd >= 0)
		return;
	fd = net_accept(l->r.servers[1]);
	if (fd < 0)
		return;
	peer_init(&l->server, fd, 2, 1);
	l->server.deaf = true;
	l->server.to_send = 50000;
}

#define LIVE_UNTIL(l, what)                                                                            \
	do {                                                                                           \
		uint64_t until_ = now_ns() + NET_DEADLINE_MS * NS_PER_MS;                              \
		while (!(what)) {                                                                      \
			if (now_ns() > until_)                                                         \
				fail_msg("line %d, without the %u. %s: in vain: %s", __LINE__,          \
					 refuse_at, refused ?: "?", #what);                            \
			turn(l);                                                                       \
		}                                                                                      \
	} while (0)

static bool is_over(const struct peer *p)
{
	return p->eof || p->error;
}

/* The first server refuses; the second one does not read at first. The other session is there, and has gone through the same. */
static void begin(struct life *l, const struct variant *v)
{
	const int small = 16384;
	struct rig *r = &l->r;
	struct addr at;

	*l = (struct life){ .client.fd = -1, .server.fd = -1 };
	rig_init(r, 2);
	l->refusing = net_refuse(&at);
	r->server_conf[0]->addr = at;
	r->server_conf[1]->maxconn = v->queued ? 1 : 0;
	assert_int_equal(setsockopt(r->servers[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
	r->proxy->timeout.client = r->proxy->timeout.server = r->proxy->timeout.queue = 3600 * 1000;
	if (v->requests_by_user)
		r->proxy->splice_request = SPLICE_OFF;
	if (v->spliced)
		rig_start_spliced(r);
	else
		rig_start(r);
	if (v->refusal)
		fake_splice_refuse(r->splice, v->refusal);
	rig_meet(r, 1);
	for (size_t i = 0; i < ARRAY_SIZE(l->fillers); i++)
		timer_init(&l->fillers[i], on_filler);
	for (size_t i = v->room; i < ARRAY_SIZE(l->fillers); i++) {
		assert_int_equal(loop_timer_set(r->loop, &l->fillers[i], now_ns() + 3600 * NS_PER_SEC), 0);
	}
	r->extra[0] = &l->client;
	r->extra[1] = &l->server;
}

static void end(struct life *l)
{
	struct rig *r = &l->r;

	for (size_t i = 0; i < ARRAY_SIZE(l->fillers); i++)
		loop_timer_clear(r->loop, &l->fillers[i]);
	close(l->refusing);
	rig_done(r);
}

/* Until everything stands still: the reader takes nothing. */
static void fill_up(struct life *l)
{
	uint64_t sent = 0;

	for (int still = 0; still < 15 && !is_over(&l->client); still++) {
		turn(l);
		if (l->client.sent != sent)
			still = 0;
		sent = l->client.sent;
	}
}

/* The other session ends as if nothing had been. Its log line may come before or after ours. */
static void end_other(struct life *l)
{
	struct rig *r = &l->r;

	r->client.to_send = r->server.to_send = 30000;
	r->client.fin = r->server.fin = true;
	LIVE_UNTIL(l, r->client.eof && r->server.eof);
	assert_true(rig_exchanged(r));
	assert_string_equal(rig_log(r).state, "--");
}

/* Returns false if nothing was left to be refused. */
static bool live(const struct variant *v, unsigned int without)
{
	const int large = 4 * 1024 * 1024;
	struct life l;
	struct rig *r = &l.r;
	struct rig_log log;
	bool through;

	begin(&l, v);
	asked = 0;
	refuse_at = without;
	refused = NULL;
	for_good = v->for_good;
	armed = true;
	rig_client(r, &l.client);
	l.client.to_send = BULK;
	if (v->queued) {
		LIVE_UNTIL(&l, r->be->stats.queued || is_over(&l.client));
		if (!is_over(&l.client))
			end_other(&l);
	}
	LIVE_UNTIL(&l, l.server.fd >= 0 || is_over(&l.client));
	fill_up(&l);
	l.server.deaf = false;
	if (l.server.fd >= 0)
		assert_int_equal(setsockopt(l.server.fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof(large)), 0);
	l.client.fin = l.server.fin = true;
	LIVE_UNTIL(&l, is_over(&l.client) && (l.server.fd < 0 || is_over(&l.server)));
	armed = false;

	log = rig_log(r);
	through = !strcmp(log.state, "--");
	if (through) {
		assert_true(l.client.eof && l.server.eof);
		assert_int_equal(l.server.received, l.client.to_send);
		assert_int_equal(l.client.received, l.server.to_send);
	} else {
		/* No stream that was cut off looks complete. */
		if (log.state[0] != 'R' || !refused)
			fail_msg("without the %u. %s it ended with %s", without, refused ?: "nothing", log.state);
		assert_true(peer_was_reset(&l.client) || l.client.received == l.server.to_send);
		assert_true(l.server.fd < 0 || peer_was_reset(&l.server) || l.server.received == l.client.to_send);
		assert_false(l.client.eof && l.server.eof);
	}
	if (!refused)
		assert_true(through);
	if (r->client.fd >= 0 && !r->client.eof)
		end_other(&l);
	end(&l);
	return refused;
}

static void live_without_each(const struct variant *v, unsigned int at_least)
{
	unsigned int n = 1;

	while (live(v, n))
		n++;
	if (n <= at_least)
		fail_msg("only %u things were refused, not %u", n - 1, at_least);
}

static void whatever_is_refused_a_session_of_userspace_ends_in_order(void **state)
{
	(void)state;
	live_without_each(&(struct variant){ 0 }, 6);
	live_without_each(&(struct variant){ .for_good = true }, 6);
}

static void whatever_is_refused_a_joined_session_ends_in_order(void **state)
{
	(void)state;
	live_without_each(&(struct variant){ .spliced = true }, 6);
	/* The second timer is the one that looks again at what no event tells. */
	live_without_each(&(struct variant){ .spliced = true, .room = 1 }, 6);
	live_without_each(&(struct variant){ .spliced = true, .room = 1, .for_good = true }, 6);
}

static void whatever_is_refused_a_session_that_is_half_joined_ends_in_order(void **state)
{
	(void)state;
	live_without_each(&(struct variant){ .spliced = true, .requests_by_user = true }, 6);
	live_without_each(&(struct variant){ .spliced = true, .requests_by_user = true, .room = 1, .for_good = true }, 6);
}

static void whatever_is_refused_a_session_without_a_join_ends_in_order(void **state)
{
	(void)state;
	live_without_each(&(struct variant){ .spliced = true, .refusal = -ENOMEM }, 6);
}

static void whatever_is_refused_a_session_of_the_queue_ends_in_order(void **state)
{
	(void)state;
	live_without_each(&(struct variant){ .queued = true }, 6);
	live_without_each(&(struct variant){ .queued = true, .room = 1 }, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whatever_is_refused_a_session_of_userspace_ends_in_order),
		cmocka_unit_test(whatever_is_refused_a_joined_session_ends_in_order),
		cmocka_unit_test(whatever_is_refused_a_session_that_is_half_joined_ends_in_order),
		cmocka_unit_test(whatever_is_refused_a_session_without_a_join_ends_in_order),
		cmocka_unit_test(whatever_is_refused_a_session_of_the_queue_ends_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
