/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz_ledger.c - what a worker that died left behind is any bytes: the next one takes over what it
 * can, resets the rest, and has nothing left.
 *
 * The whole take-over runs (lb_start() after a death), on real TCP connections in whatever state; a
 * record is what it would be, with some of its bytes changed, or nothing but bytes of the input. So
 * are the flows, the thread's buffer and the mark of who was served. The kernel path is below:
 * flows in memory, and nobody who moves anything.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "config.h"
#include "fdtable.h"
#include "fuzz.h"
#include "lb.h"
#include "log.h"
#include "qualify.h"
#include "relay.h"

#define SESSIONS 4
#define TURNS 4
#define TURN_NS (100 * NS_PER_US)

/* ---- the kernel path ---- */

struct splice {
	struct flow flows[2 * SESSIONS];
	int event_fd, join;
};

static int next_join; /* what splice_join() returns */

int splice_new(struct splice **ret, const struct splice_options *o, char *why, size_t size)
{
	struct splice *sp = calloc(1, sizeof(*sp));

	(void)why, (void)size;
	CHECK(sp && o->max_sessions == SESSIONS);
	sp->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	sp->join = next_join;
	*ret = sp;
	return 0;
}

struct splice *splice_free(struct splice *sp)
{
	if (sp)
		close(sp->event_fd);
	free(sp);
	return NULL;
}

int qualify(struct splice *sp, enum sock_unread *ret_unread, char *why, size_t size)
{
	(void)sp, (void)why, (void)size;
	*ret_unread = SOCK_UNREAD_TOLD;
	return 0;
}

bool splice_has(struct splice *sp, uint32_t index, uint64_t cookie)
{
	(void)sp;
	return (index ^ cookie) & 1;
}

int splice_join(struct splice *sp, uint32_t session, uint32_t thread, struct splice_end ends[2],
		uint64_t limit)
{
	(void)thread;
	CHECK(session < SESSIONS);
	for (uint32_t i = 0; i < 2; i++) {
		ends[i].cookie = 1000ull + session * 2 + i;
		sp->flows[session * 2 + i] =
			(struct flow){.limit = limit, .extra = ends[!i].extra, .ready = 1};
	}
	return sp->join;
}

int splice_join_again(struct splice *sp, uint32_t session, struct splice_end ends[2])
{
	CHECK(session < SESSIONS && ends[0].fd >= 0 && ends[1].fd >= 0);
	return sp->join == -ENOMEM ? -EAGAIN : sp->join;
}

int splice_reclaim(struct splice *sp)
{
	(void)sp;
	return 0;
}

void splice_leave(struct splice *sp, uint32_t session, const uint64_t cookies[2])
{
	(void)cookies;
	CHECK(session < SESSIONS);
	memset(&sp->flows[2 * session], 0, 2 * sizeof(sp->flows[0]));
}

void splice_sweep(struct splice *sp, bool (*used)(void *arg, uint32_t session), void *arg)
{
	for (uint32_t i = 0; i < SESSIONS; i++)
		if (!used(arg, i))
			memset(&sp->flows[2 * i], 0, 2 * sizeof(sp->flows[0]));
}

struct flow *splice_flow(struct splice *sp, uint32_t index)
{
	CHECK(index < 2 * SESSIONS);
	return &sp->flows[index];
}

int splice_event_fd(const struct splice *sp, uint32_t thread)
{
	(void)thread;
	return sp->event_fd;
}

void splice_dispatch(struct splice *sp, uint32_t thread,
		     void (*fn)(void *arg, const struct flow_event *e), void *arg)
{
	(void)sp, (void)thread, (void)fn, (void)arg;
}

void splice_counters(const struct splice *sp, uint64_t ret[FLOW_EXIT_MAX])
{
	(void)sp;
	memset(ret, 0, FLOW_EXIT_MAX * sizeof(ret[0]));
}

/* ---- connections ---- */

static int listen_somewhere(struct addr *ret)
{
	socklen_t len = sizeof(*ret);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*ret = (struct addr){
		.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
	CHECK(fd >= 0 && bind(fd, &ret->sa, sizeof(ret->in)) == 0 && listen(fd, 16) == 0);
	CHECK(getsockname(fd, &ret->sa, &len) == 0);
	return fd;
}

static int connect_to(const struct addr *to)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0 && (connect(fd, &to->sa, sizeof(to->in)) == 0 || errno == EINPROGRESS));
	return fd;
}

static int accept_from(int listener)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	int fd;

	CHECK(poll(&p, 1, 5000) == 1);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

static void say(int fd, size_t n)
{
	char bytes[256] = {0};
	ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)sent;
}

/* What an end may have been through: bits of `what`. */
static void live(int ours, int theirs, uint8_t what)
{
	char bytes[256];
	ssize_t n;

	if (what & 1)
		say(theirs, 100);
	if (what & 2) {
		n = recv(ours, bytes, what & 4 ? 30 : 200, MSG_DONTWAIT);
		(void)n;
	}
	if (what & 8)
		say(ours, 50);
	if (what & 16)
		shutdown(theirs, SHUT_WR);
	if (what & 32)
		shutdown(ours, SHUT_WR);
	if (what & 64) {
		struct linger now = {1, 0};

		setsockopt(theirs, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	}
}

/* ---- the balancer ---- */

struct world {
	struct config *config;
	struct lb *lb;
	struct addr server_at;
	int server;
	int ours[SESSIONS][2], theirs[SESSIONS][2];
};

static void begin(struct world *w, uint8_t how)
{
	char text[1024], at[ADDR_STRLEN];
	int high = getpid() >> 8 & 255, low = getpid() & 255; /* an address that is nobody else's */

	w->server = listen_somewhere(&w->server_at);
	snprintf(text, sizeof(text),
		 "global\n  maxconn %d\n  nbthread 1\n  bpf-pin-path none\n%s\n"
		 "defaults\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n  log "
		 "127.0.0.1:9 local0\n  option tcplog\n"
		 "listen l\n  bind 127.101.%d.%d:19002\n%s\n  server s1 %s\n  server s2 %s maxconn "
		 "1\n",
		 SESSIONS, how & 1 ? "  nosplice" : "", high, low,
		 how & 2 ? "  option splice-request\n  option splice-response" : "",
		 addr_format(&w->server_at, at), addr_format(&w->server_at, at));
	w->config = config_new(CONFIG_RESOLVE);
	CHECK(w->config && config_parse(w->config, "fuzz", text, strlen(text)) == 0 &&
	      config_finish(w->config) == 0);
	next_join = how & 4 ? 0 : how & 8 ? -EOPNOTSUPP : -ENOMEM;
	CHECK(lb_new(&w->lb, w->config) == 0);
	CHECK(fdtable_keep_all() == 0);
}

/* A connection with a client and one with a server, and the record of a session that has them. */
static void make_record(struct world *w, struct input *in, uint32_t n)
{
	struct ledger_record *r = ledger_get(w->lb->ledger, n);
	struct addr client, server;
	socklen_t len = sizeof(client);
	uint8_t kind = input_u8(in);
	int listener = listen_somewhere(&client);

	w->theirs[n][0] = connect_to(&client);
	w->ours[n][0] = accept_from(listener);
	CHECK(getpeername(w->ours[n][0], &client.sa, &len) == 0);
	server = w->server_at;
	w->ours[n][1] = connect_to(&server);
	w->theirs[n][1] = accept_from(w->server);
	close(listener);
	for (int i = 0; i < 2; i++)
		live(w->ours[n][i], w->theirs[n][i], input_u8(in));
	*r = (struct ledger_record){
		.serial = n + 1,
		.state = 1 + kind % 6u,
		.frontend = 1,
		.backend = 1,
		.server = 1,
		.fallback = kind & 8 ? FALLBACK_CHOICE : 0,
		.fd = {w->ours[n][0], w->ours[n][1]},
		.accepted_ns = now_ns(),
		.connected_ns = now_ns(),
		.cookie = {kind & 16 ? 1 : 0, kind & 16 ? 1 : 0},
	};
	ledger_addr_set(&r->client, &client);
	ledger_addr_set(&r->server_addr, &server);
	if (kind & 32)
		memset(ledger_area(w->lb->ledger, n, kind >> 7), 1, 300);
	if (kind & 64)
		input_bytes(in, r, sizeof(*r));
	input_patch(in, r, sizeof(*r));
	if (w->lb->splice)
		for (uint32_t i = 0; i < 2; i++)
			input_patch(in, splice_flow(w->lb->splice, 2 * n + i), sizeof(struct flow));
	/* Descriptors of somebody else's, and one twice. */
	if (kind & 128)
		r->fd[input_u8(in) & 1] = input_u8(in) % 64;
}

/* Without a linger, they go where nobody waits for them. */
static void end(struct world *w, uint32_t n, uint32_t before)
{
	struct linger now = {1, 0};

	lb_stop(w->lb);
	loop_settle(w->lb->loop);
	CHECK(!ledger_used(w->lb->ledger));
	CHECK(!w->lb->taken && !w->lb->stats.current && !w->lb->budget.given);
	lb_finish(w->lb);
	lb_free(w->lb);
	config_free(w->config);
	fdtable_done();
	for (uint32_t i = 0; i < n; i++)
		for (int end = 0; end < 2; end++) {
			setsockopt(w->theirs[i][end], SOL_SOCKET, SO_LINGER, &now, sizeof(now));
			close(w->theirs[i][end]);
		}
	close(w->server);
	CHECK(open_descriptors() == before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct world w;
	uint8_t how = input_u8(&in), n = input_u8(&in) % (SESSIONS + 1);
	uint32_t before;

	log_setup(LOG_EMERG, false);
	before = open_descriptors();
	begin(&w, how);
	for (uint32_t i = 0; i < n; i++)
		make_record(&w, &in, i);
	input_patch(&in, ledger_scratch(w.lb->ledger, 0), sizeof(struct relay_scratch));
	if (how & 16)
		input_bytes(&in, ledger_serving(w.lb->ledger, 0), sizeof(uint32_t));
	w.lb->stopping = how & 32;
	/* The other ends are not the daemon's: they would be swept. */
	for (uint32_t i = 0; i < n; i++)
		CHECK(fdtable_keep(w.theirs[i][0]) == 0 && fdtable_keep(w.theirs[i][1]) == 0);
	CHECK(lb_start(w.lb, true) == 0);
	for (int i = 0; i < TURNS; i++) {
		char bytes[4096];

		fuzz_run_loop(w.lb->loop, TURN_NS);
		for (uint32_t s = 0; s < n; s++)
			for (int e = 0; e < 2; e++) {
				ssize_t got =
					recv(w.theirs[s][e], bytes, sizeof(bytes), MSG_DONTWAIT);

				(void)got;
				if (how & 64 && i == 1)
					shutdown(w.theirs[s][e], SHUT_WR);
			}
	}
	end(&w, n, before);
	return 0;
}
