/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz_admin.c - any bytes at a stats socket: each client gets printable answers and an end, and
 * nothing of it is left.
 *
 * Through the real socket and loop, around a balancer that is filled by hand (as in test_admin.c);
 * the input's first byte says in how large pieces it is sent, and at which level.
 */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>

#include "admin.h"
#include "config.h"
#include "fuzz.h"
#include "lb.h"
#include "log.h"

#define TURNS_MAX 20000

/* ---- the sessions, and the kernel path ---- */

struct sessions {
	struct session_view view;
};

void sessions_each(struct sessions *t, void (*fn)(void *arg, const struct session_view *v),
		   void *arg)
{
	for (int i = 0; i < 3; i++)
		fn(arg, &t->view);
}

void splice_counters(const struct splice *sp, uint64_t ret[FLOW_EXIT_MAX])
{
	(void)sp;
	memset(ret, 0, FLOW_EXIT_MAX * sizeof(ret[0]));
}

/* ---- a balancer by hand, for all inputs ---- */

static struct lb lb;
static struct lb_thread thread;
static struct sessions sessions;
static struct ledger_record record = {
	.serial = 7, .state = LEDGER_RELAY, .frontend = 1, .backend = 2, .server = 1, .fd = {5, 6}};
static struct sockaddr_un at[3] = {[0 ... 2] = {.sun_family = AF_UNIX}};

static void end(void)
{
	admin_stop(lb.admin);
	admin_free(lb.admin); /* and the files */
	loop_free(lb.loop);
	ledger_free(lb.ledger);
	pool_free(lb.pool);
	config_free((struct config *)lb.config);
}

static void begin(void)
{
	static const char *levels[] = {"user", "operator", "admin"};
	struct config *c = config_new(0);
	char text[2048];
	size_t len = (size_t)snprintf(text, sizeof(text), "global\n  stats timeout 1s\n");

	log_setup(LOG_EMERG, false);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		snprintf(at[i].sun_path, sizeof(at[i].sun_path), "/tmp/shunt-fuzz-%d-%zu", getpid(),
			 i);
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"  stats socket %s level %s\n", at[i].sun_path, levels[i]);
	}
	len += (size_t)snprintf(
		text + len, sizeof(text) - len,
		"frontend web\n  bind 127.0.0.1:8080\n  maxconn 70\n  default_backend pool\n"
		"backend pool\n  server a 192.0.2.1:9001 weight 10 maxconn 50\n  server b "
		"192.0.2.2:9002 disabled\n"
		"listen both\n  bind 127.0.0.1:8081\n  server c [2001:db8::1]:9003\n"
		"listen off\n  disabled\n  bind 127.0.0.1:8082\n  server d 192.0.2.4:9004\n");
	CHECK(c && config_parse(c, "fuzz", text, len) == 0 && config_finish(c) == 0);
	lb = (struct lb){.config = c,
			 .maxconn = 100,
			 .nofile = 1024,
			 .threads = &thread,
			 .nr_threads = 1,
			 .started_ns = now_ns()};
	thread.sessions = &sessions;
	CHECK(pool_new(&lb.pool, c, lb.maxconn) == 0 &&
	      ledger_new(&lb.ledger, lb.maxconn, 1) == 0 && loop_new(&lb.loop) == 0);
	thread.loop = lb.loop;
	sessions.view.record = &record;
	sessions.view.frontend = list_first(&lb.pool->frontends, struct frontend, entry);
	CHECK(admin_new(&lb.admin, &lb) == 0 && admin_start(lb.admin) == 0);
	atexit(end);
}

/* Takes what has come. False: that was all. */
static bool take(int fd)
{
	unsigned char bytes[65536];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	for (ssize_t i = 0; i < n; i++)
		CHECK(bytes[i] == '\n' || (bytes[i] >= ' ' && bytes[i] < 0x7f));
	return n > 0 || (n < 0 && errno == EAGAIN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint8_t how = input_u8(&in);
	size_t piece = how & 3 ? (size_t)(how >> 2) + 1 : SIZE_MAX;
	uint32_t before, turns = 0;
	bool alive = true;
	int fd;

	if (!lb.loop)
		begin();
	before = open_descriptors();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&at[how % 3], sizeof(at[0])) == 0);
	while (in.size && alive) {
		ssize_t n = send(fd, in.data, MIN(piece, in.size), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN)
			break; /* it was hung up on */
		in.data += MAX(n, 0);
		in.size -= (size_t)MAX(n, 0);
		fuzz_run_loop(lb.loop, 1);
		alive = take(fd);
		CHECK(++turns < TURNS_MAX);
	}
	shutdown(fd, SHUT_WR);
	while (alive) {
		fuzz_run_loop(lb.loop, 1);
		alive = take(fd);
		CHECK(++turns < TURNS_MAX); /* whatever was asked, there is an end */
	}
	close(fd);
	fuzz_run_loop(lb.loop, 1);
	CHECK(open_descriptors() == before);
	return 0;
}
