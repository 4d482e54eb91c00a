/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_admin.c - the stats sockets, through real unix sockets and a real loop, around a balancer
 * that is filled by hand: its sessions and its kernel path are the stubs below. No privileges.
 *
 * Links admin, admin_command, admin_show, admin_stat and what is below them: addr, balance,
 * config*, ledger, log, loop, pool, sock, stats. Not session, splice, lb.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "admin.h"
#include "lb.h"
#include "log.h"

#define PATIENCE_MS 10000

/* What HAProxy 2.6.12 writes, to the last comma. */
static const char haproxy_header[] =
	"# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,"
	"wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,"
	"lbtot,tracked,type,rate,rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,"
	"hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,"
	"cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,"
	"ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,"
	"check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,"
	"conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,cache_lookups,"
	"cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,"
	"safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,"
	"agg_server_check_status,agg_check_status,-,ssl_sess,ssl_reused_sess,ssl_failed_handshake,"
	"h2_headers_rcvd,h2_data_rcvd,h2_settings_rcvd,h2_rst_stream_rcvd,h2_goaway_rcvd,"
	"h2_detected_conn_protocol_errors,h2_detected_strm_protocol_errors,h2_rst_stream_resp,"
	"h2_goaway_resp,h2_open_connections,h2_backend_open_streams,h2_total_connections,"
	"h2_backend_total_streams,h1_open_connections,h1_open_streams,h1_total_connections,"
	"h1_total_streams,h1_bytes_in,h1_bytes_out,h1_spliced_bytes_in,h1_spliced_bytes_out,";

/* ---- stubs: the sessions, and the kernel path ---- */

struct sessions {
	struct session_view *views;
	uint32_t nr;
};

void sessions_each(struct sessions *t, void (*fn)(void *arg, const struct session_view *v),
		   void *arg)
{
	for (uint32_t i = 0; i < t->nr; i++)
		fn(arg, &t->views[i]);
}

void splice_counters(const struct splice *sp, uint64_t ret[FLOW_EXIT_MAX])
{
	(void)sp;
	for (int i = 0; i < FLOW_EXIT_MAX; i++)
		ret[i] = 1000 + (uint64_t)i;
}

/* ---- a balancer by hand ---- */

struct fixture {
	char dir[32], path[64];
	struct config *config;
	struct sessions sessions;
	struct ledger_record *records;
	struct lb lb;
	struct lb_thread thread;
};

static const char proxies[] = "defaults\n"
			      "  mode tcp\n"
			      "frontend web\n"
			      "  bind 127.0.0.1:8080\n"
			      "  maxconn 70\n"
			      "  default_backend pool\n"
			      "backend pool\n"
			      "  server a 192.0.2.1:9001 weight 10 maxconn 50\n"
			      "  server b 192.0.2.2:9002 disabled\n"
			      "listen both\n"
			      "  bind 127.0.0.1:8081\n"
			      "  server c [2001:db8::1]:9003\n"
			      "listen off\n"
			      "  disabled\n"
			      "  bind 127.0.0.1:8082\n"
			      "  server d 192.0.2.4:9004\n";

/* global: further lines of the global section. */
static struct fixture *fixture_new(const char *global)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char text[4096];

	assert_non_null(f);
	strcpy(f->dir, "/tmp/shunt-test-admin-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	snprintf(text, sizeof(text), "global\n  stats socket %s mode 600 level user\n%s%s", f->path,
		 global, proxies);
	f->config = config_new(0);
	assert_non_null(f->config);
	assert_int_equal(config_parse(f->config, "test", text, strlen(text)), 0);
	if (config_finish(f->config) < 0)
		fail_msg("%s", f->config->errors[0].text);
	f->lb.config = f->config;
	f->lb.maxconn = 100;
	f->lb.nofile = 1024;
	f->thread.sessions = &f->sessions;
	f->lb.threads = &f->thread;
	f->lb.nr_threads = 1;
	f->lb.started_ns = now_ns();
	assert_int_equal(pool_new(&f->lb.pool, f->config, f->lb.maxconn), 0);
	assert_int_equal(ledger_new(&f->lb.ledger, f->lb.maxconn, 1), 0);
	assert_int_equal(loop_new(&f->lb.loop), 0);
	f->thread.loop = f->lb.loop;
	return f;
}

static void fixture_free(struct fixture *f)
{
	if (f->lb.admin)
		admin_stop(f->lb.admin);
	admin_free(f->lb.admin);
	loop_free(f->lb.loop);
	ledger_free(f->lb.ledger);
	pool_free(f->lb.pool);
	config_free(f->config);
	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f->sessions.views);
	free(f->records);
	free(f);
}

static struct fixture *serve(const char *global)
{
	struct fixture *f = fixture_new(global);

	assert_int_equal(admin_new(&f->lb.admin, &f->lb), 0);
	assert_int_equal(admin_start(f->lb.admin), 0);
	return f;
}

static struct frontend *frontend_of(struct fixture *f, const char *name)
{
	struct frontend *fe;

	list_for_each(fe, &f->lb.pool->frontends, entry) {
		if (!strcmp(fe->conf->name, name))
			return fe;
	}
	fail_msg("no frontend %s", name);
	return NULL;
}

/* n live sessions of "web", at server "a"; the numbers follow from i. */
static void add_sessions(struct fixture *f, uint32_t n)
{
	struct frontend *fe = frontend_of(f, "web");

	f->records = calloc(n, sizeof(*f->records));
	f->sessions.views = calloc(n, sizeof(*f->sessions.views));
	assert_true(f->records && f->sessions.views);
	f->sessions.nr = n;
	for (uint32_t i = 0; i < n; i++) {
		struct ledger_record *r = &f->records[i];
		struct addr client, server;

		assert_int_equal(addr_parse(&client, "198.51.100.7:4000", 0), 0);
		assert_int_equal(addr_parse(&server, "192.0.2.1:9001", 0), 0);
		r->serial = i + 1;
		r->state = LEDGER_SPLICED;
		r->fd[0] = r->fd[1] = -1;
		r->accepted_ns = f->lb.started_ns;
		r->connected_ns = f->lb.started_ns;
		ledger_addr_set(&r->client, &client);
		ledger_addr_set(&r->server_addr, &server);
		f->sessions.views[i] = (struct session_view){
			.record = r,
			.frontend = fe,
			.server = &fe->backend->servers[0],
			.splicing = true,
			.mover = { FLOW_KERNEL, FLOW_USER },
			.bytes = { { .kernel = 1000, .user = 1 }, { .kernel = 20000, .user = 2 } },
			.pauses = { 0, 3 },
			.resumes = { 0, 2 },
			.held = { 0, 5 },
			.peak = { 11, 12 },
			.limit = { 4096, 8192 },
			.choice = { CHOOSE_HOME, CHOOSE_BULK },
		};
	}
}

/* ---- a client of it ---- */

struct stopper {
	struct timer timer;
	struct loop *loop;
};

static void stop_loop(struct timer *t)
{
	loop_stop(container_of(t, struct stopper, timer)->loop);
}

static void run_ms(struct fixture *f, uint32_t ms)
{
	struct stopper s = { .loop = f->lb.loop };

	timer_init(&s.timer, stop_loop);
	assert_int_equal(loop_timer_set(s.loop, &s.timer, now_ns() + ms * NS_PER_MS), 0);
	assert_int_equal(loop_run(s.loop), 0);
}

static int dial(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(at.sun_path, path);
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int connect_to(struct fixture *f)
{
	int fd = dial(f->path);

	assert_true(fd >= 0);
	return fd;
}

struct reply {
	char *text; /* owned; NUL-terminated */
	size_t len, size;
	bool ended; /* the other end has closed */
};

/* Reads what there is. */
static void read_more(int fd, struct reply *r)
{
	for (;;) {
		ssize_t n;

		if (r->size < r->len + 65537) {
			r->size = r->len * 2 + 65537;
			r->text = realloc(r->text, r->size);
			assert_non_null(r->text);
		}
		n = recv(fd, r->text + r->len, 65536, MSG_DONTWAIT);
		if (n > 0)
			r->len += (size_t)n;
		r->text[r->len] = '\0';
		if (n > 0)
			continue;
		if (n == 0 || errno != EAGAIN)
			r->ended = true;
		return;
	}
}

/* Runs the loop until the other end closes, or until its text ends with this. */
static struct reply read_until(struct fixture *f, int fd, const char *end)
{
	uint64_t deadline = now_ns() + PATIENCE_MS * NS_PER_MS;
	struct reply r = { 0 };

	for (;;) {
		run_ms(f, 1);
		read_more(fd, &r);
		if (r.ended)
			return r;
		if (end && r.len >= strlen(end) && !strcmp(r.text + r.len - strlen(end), end))
			return r;
		if (now_ns() > deadline)
			fail_msg("no end after \"%s\"", r.text);
	}
}

/* Sends all of it, while the loop runs. */
static void send_all(struct fixture *f, int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0) {
			assert_int_equal(errno, EAGAIN);
			run_ms(f, 1);
			continue;
		}
		data += n;
		len -= (size_t)n;
	}
}

/* What `printf ... | socat - UNIX:...` shows. */
static char *ask_bytes(struct fixture *f, const char *data, size_t len)
{
	int fd = connect_to(f);
	struct reply r;

	send_all(f, fd, data, len);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	r = read_until(f, fd, NULL);
	close(fd);
	return r.text;
}

static char *ask(struct fixture *f, const char *text)
{
	return ask_bytes(f, text, strlen(text));
}

static void assert_asked(struct fixture *f, const char *text, const char *answer)
{
	char *got = ask(f, text);

	assert_string_equal(got, answer);
	free(got);
}

static void assert_begins(const char *text, const char *begin)
{
	if (strncmp(text, begin, strlen(begin)))
		fail_msg("\"%.100s\" does not begin with \"%s\"", text, begin);
}

/* Is this one of text's lines? */
static bool has_line(const char *text, const char *line)
{
	size_t len = strlen(line);

	for (bool begins = true; *text; begins = *text++ == '\n') {
		if (begins && !strncmp(text, line, len) && text[len] == '\n')
			return true;
	}
	return false;
}

static void assert_line(const char *text, const char *line)
{
	if (!has_line(text, line))
		fail_msg("no line \"%s\" in:\n%s", line, text);
}

static uint32_t count(const char *text, const char *what)
{
	size_t len = strlen(what);
	uint32_t n = 0;

	while (*text) { /* strstr() of a sanitizer looks at the whole text every time */
		bool found = *text == *what && !strncmp(text, what, len);

		n += found;
		text += found ? len : 1;
	}
	return n;
}

#define V SHUNT_VERSION "\n"

/* ---- the line protocol ---- */

static void an_answer_ends_with_an_empty_line_and_the_connection(void **state)
{
	struct fixture *f = serve("");
	int fd = connect_to(f);
	struct reply r;

	(void)state;
	send_all(f, fd, "show version\n", 13);
	r = read_until(f, fd, NULL); /* it did not half-close */
	assert_string_equal(r.text, V "\n");
	free(r.text);
	close(fd);
	fixture_free(f);
}

static void a_half_closed_client_gets_its_answer(void **state)
{
	struct fixture *f = serve("");

	(void)state;
	assert_asked(f, "show version\n", V "\n");
	assert_asked(f, "show version\r\n", V "\n");
	assert_asked(f, "", "");
	fixture_free(f);
}

static void a_line_may_hold_several_commands(void **state)
{
	struct fixture *f = serve("");
	char *got;

	(void)state;
	assert_asked(f, "show version;show version\n", V "\n" V "\n");
	assert_asked(f, " ; ;show  version ; ;\n", V "\n");
	assert_asked(f, "  show   version  # a comment\n", V "\n");
	assert_asked(f, "show version;quit;show version\n", V "\n");
	got = ask(f, "show version\\;x;show version\n");
	assert_begins(got, "Unknown command: 'show version;x'. ");
	assert_int_equal(count(got, "\n\n" V "\n"), 1);
	free(got);
	fixture_free(f);
}

static void lines_that_have_come_are_all_answered(void **state)
{
	enum { LINES = 4000 };
	struct fixture *f = serve("");
	char *text = calloc(LINES, 14), *got;

	(void)state;
	for (int i = 0; i < LINES; i++)
		strcpy(text + i * 13, "show version\n");
	got = ask(f, text);
	assert_int_equal(count(got, V "\n"), LINES);
	assert_int_equal(strlen(got), LINES * strlen(V "\n"));
	free(got);
	free(text);
	fixture_free(f);
}

static void prompt_keeps_the_connection(void **state)
{
	struct fixture *f = serve("");
	int fd = connect_to(f);
	struct reply r;

	(void)state;
	send_all(f, fd, "prompt\n", 7);
	r = read_until(f, fd, "> ");
	assert_string_equal(r.text, "\n> ");
	free(r.text);
	send_all(f, fd, "show version\n", 13);
	r = read_until(f, fd, "> ");
	assert_false(r.ended);
	assert_string_equal(r.text, V "\n> ");
	free(r.text);
	send_all(f, fd, "quit\nshow version\n", 18);
	r = read_until(f, fd, NULL);
	assert_string_equal(r.text, "");
	free(r.text);
	close(fd);
	/* as HAProxy answers the same */
	assert_asked(f, "prompt\nshow version\nprompt\nshow version\n",
		     "\n> " V "\n> \n" V "\n");
	assert_asked(f, "show version;prompt;show version\nshow version\n",
		     V "\n\n> " V "\n> " V "\n> ");
	fixture_free(f);
}

static void a_command_may_come_in_pieces(void **state)
{
	struct fixture *f = serve("");
	int fd = connect_to(f);
	struct reply r;

	(void)state;
	for (const char *p = "show version\n"; *p; p++) {
		send_all(f, fd, p, 1);
		run_ms(f, 1);
	}
	r = read_until(f, fd, NULL);
	assert_string_equal(r.text, V "\n");
	free(r.text);
	close(fd);
	fixture_free(f);
}

static void an_unfinished_line_is_not_answered(void **state)
{
	struct fixture *f = serve("");

	(void)state;
	assert_asked(f, "show version", "");
	assert_asked(f, "show version\nshow inf", V "\n");
	fixture_free(f);
}

static void an_unknown_command_names_itself_and_lists_the_help(void **state)
{
	struct fixture *f = serve("");
	char *got, *help = ask(f, "help\n");

	(void)state;
	assert_begins(help, "The following commands are valid at this level:\n  show info  ");
	got = ask(f, "foo bar\n");
	assert_begins(got, "Unknown command: 'foo bar'. Please enter one of the following");
	assert_string_equal(strchr(got, '\n'), strchr(help, '\n'));
	free(got);
	free(help);
	got = ask(f, "\n");
	assert_begins(got, "Unknown command. Please enter");
	free(got);
	got = ask(f, "help show stat\n");
	assert_int_equal(count(got, "\n"), 3); /* what it is, the command, the end */
	free(got);
	fixture_free(f);
}

static void arguments_that_mean_nothing_are_refused(void **state)
{
	struct fixture *f = serve("");
	char *got;

	(void)state;
	assert_asked(f, "show info json\n", "Too many arguments. Usage: show info\n\n");
	got = ask(f, "show stat json\n");
	assert_begins(got, "'show stat' expects ");
	free(got);
	got = ask(f, "show sess nonsense\n");
	assert_begins(got, "'show sess' expects ");
	free(got);
	got = ask(f, "show stat 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20\n");
	assert_begins(got, "Too many arguments.");
	free(got);
	fixture_free(f);
}

static void a_line_that_is_too_long_is_refused(void **state)
{
	struct fixture *f = serve("");
	char *text = malloc(100000), *got;
	int fd = connect_to(f);
	struct reply r;

	(void)state;
	memset(text, 'x', 100000);
	assert_int_equal(send(fd, text, 100000, MSG_NOSIGNAL), 100000);
	r = read_until(f, fd, NULL);
	assert_string_equal(r.text, "The line is too long.\n\n");
	free(r.text);
	close(fd);

	memset(text, ' ', 16384); /* the longest that there may be */
	memcpy(text, "show version", 12);
	text[16383] = '\n';
	got = ask_bytes(f, text, 16384);
	assert_string_equal(got, V "\n");
	free(got);
	text[16383] = ' ';
	text[16384] = '\n';
	got = ask_bytes(f, text, 16385);
	assert_string_equal(got, "The line is too long.\n\n");
	free(got);
	free(text);
	fixture_free(f);
}

static void garbage_gets_an_answer(void **state)
{
	struct fixture *f = serve("");
	char text[4096], *got;
	unsigned int seed = 1;

	(void)state;
	got = ask_bytes(f, "show ver\0sion\nshow version\n", 27);
	assert_string_equal(got, "Invalid command: it holds a NUL byte.\n\n" V "\n");
	free(got);
	for (int round = 0; round < 200; round++) {
		size_t len = 1 + (size_t)rand_r(&seed) % (sizeof(text) - 1);

		for (size_t i = 0; i < len; i++)
			text[i] = (char)rand_r(&seed);
		text[len - 1] = '\n';
		got = ask_bytes(f, text, len);
		for (char *p = got; *p; p++)
			assert_true(*p == '\n' || (*p >= ' ' && *p <= '~'));
		free(got);
	}
	assert_asked(f, "show version\n", V "\n");
	fixture_free(f);
}

static void the_33rd_client_is_told_and_closed(void **state)
{
	struct fixture *f = serve("");
	struct reply r;
	int fds[33];

	(void)state;
	for (int i = 0; i < 33; i++) {
		fds[i] = connect_to(f);
		run_ms(f, 1);
	}
	r = read_until(f, fds[32], NULL);
	assert_begins(r.text, "Too many clients.");
	free(r.text);
	close(fds[32]);
	close(fds[0]);
	run_ms(f, 5);
	assert_asked(f, "show version\n", V "\n"); /* there is a place again */
	send_all(f, fds[31], "show version\n", 13);
	r = read_until(f, fds[31], NULL);
	assert_string_equal(r.text, V "\n");
	free(r.text);
	for (int i = 1; i < 32; i++)
		close(fds[i]);
	fixture_free(f);
}

static void a_silent_client_times_out(void **state)
{
	struct fixture *f = serve("  stats timeout 50ms\n");
	uint64_t began = now_ns();
	int fd = connect_to(f);
	struct reply r = read_until(f, fd, NULL);

	(void)state;
	assert_string_equal(r.text, "");
	assert_true(now_ns() - began >= 50 * NS_PER_MS);
	free(r.text);
	close(fd);
	fixture_free(f);
}

static void a_client_that_never_reads_times_out(void **state)
{
	struct fixture *f = serve("  stats timeout 100ms\n");
	uint64_t deadline = now_ns() + PATIENCE_MS * NS_PER_MS;
	int fd = connect_to(f);
	char *text = calloc(1000, 11);

	(void)state;
	add_sessions(f, 4000);
	for (int i = 0; i < 1000; i++)
		strcpy(text + i * 10, "show sess\n");
	send_all(f, fd, text, 10000);
	free(text);
	run_ms(f, 5);
	assert_asked(f, "show version\n", V "\n"); /* it is in nobody's way */
	while (send(fd, "\n", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 || errno == EAGAIN) {
		assert_true(now_ns() < deadline);
		run_ms(f, 20);
	}
	assert_int_equal(errno, EPIPE);
	close(fd);
	fixture_free(f);
}

static void a_client_may_leave_at_any_time(void **state)
{
	struct fixture *f = serve("");

	(void)state;
	add_sessions(f, 4000);
	for (int i = 0; i < 50; i++) {
		int fd = connect_to(f);

		send_all(f, fd, "show sess;show sess;show stat\nshow sess\n", (size_t)(i % 41));
		if (i % 3)
			run_ms(f, (uint32_t)i % 3);
		if (i % 2)
			shutdown(fd, SHUT_RDWR);
		run_ms(f, 1);
		close(fd);
	}
	assert_asked(f, "show version\n", V "\n");
	fixture_free(f);
}

/* ---- the socket file ---- */

static void the_file_has_its_mode_and_is_removed_at_the_end(void **state)
{
	struct fixture *f = serve("");
	struct stat st;

	(void)state;
	assert_int_equal(lstat(f->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
	if (f->lb.admin)
		admin_stop(f->lb.admin);
	f->lb.admin = admin_free(f->lb.admin);
	assert_int_equal(lstat(f->path, &st), -1);
	fixture_free(f);
}

static void a_stale_file_is_replaced(void **state)
{
	struct fixture *f = fixture_new("");
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	strcpy(at.sun_path, f->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	close(fd);
	assert_int_equal(admin_new(&f->lb.admin, &f->lb), 0);
	assert_int_equal(admin_start(f->lb.admin), 0);
	assert_asked(f, "show version\n", V "\n");
	fixture_free(f);
}

static void a_live_socket_is_left_alone(void **state)
{
	struct fixture *f = serve("");
	struct admin *second;

	(void)state;
	assert_int_equal(admin_new(&second, &f->lb), -EADDRINUSE);
	assert_asked(f, "show version\n", V "\n");
	fixture_free(f);
}

static void another_kind_of_file_is_left_alone(void **state)
{
	struct fixture *f = fixture_new("");
	struct stat st;
	int fd = open(f->path, O_CREAT | O_WRONLY, 0600);

	(void)state;
	close(fd);
	assert_int_equal(admin_new(&f->lb.admin, &f->lb), -EEXIST);
	assert_int_equal(lstat(f->path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	fixture_free(f);
}

static void a_file_that_is_not_ours_any_more_stays(void **state)
{
	struct fixture *f = serve("");
	struct admin *second;
	struct stat st;
	int fd;

	(void)state;
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(admin_new(&second, &f->lb), 0); /* whoever took the name over */
	if (f->lb.admin)
		admin_stop(f->lb.admin);
	f->lb.admin = admin_free(f->lb.admin);
	assert_int_equal(lstat(f->path, &st), 0);
	fd = dial(f->path);
	assert_true(fd >= 0);
	close(fd);
	f->lb.admin = second;
	fixture_free(f);
}

static void a_missing_folder_is_an_error(void **state)
{
	struct fixture *f = fixture_new("  stats socket /nonexistent/folder/sock\n");
	struct stat st;

	(void)state;
	assert_int_equal(admin_new(&f->lb.admin, &f->lb), -ENOENT);
	assert_int_equal(lstat(f->path, &st), -1); /* the first one is gone again */
	fixture_free(f);
}

/* ---- the answers ---- */

static void show_info_has_a_line_per_number(void **state)
{
	struct fixture *f = serve("");
	struct process_stats *p = &f->lb.stats;
	char *got, line[64];

	(void)state;
	add_sessions(f, 2);
	p->in = (struct byte_count){ .kernel = 5000, .user = 50 };
	p->out = (struct byte_count){ .kernel = 7000, .user = 70 };
	p->sessions = 12;
	p->current = 2;
	p->joined = 9;
	p->fallback[FALLBACK_HALF_CLOSED] = 3;
	p->pauses = 100;
	p->resumes = 90;
	p->full = 4;
	p->accept_errors = 5;
	p->resets_sent = 6;
	p->worker_deaths = 7;
	p->adopted = 8;
	p->lost = 1;
	p->upgrades = 3;
	p->upgrades_failed = 2;
	f->lb.stopping = true;
	f->lb.started_ns -= (86400 + 2 * 3600 + 3 * 60 + 4) * NS_PER_SEC;
	snprintf(f->lb.path_reason, sizeof(f->lb.path_reason), "two\nlines");
	got = ask(f, "show info\n");
	assert_begins(got, "Name: shunt\nVersion: " V);
	snprintf(line, sizeof(line), "Pid: %d", (int)getpid());
	assert_line(got, line);
	assert_line(got, "Uptime: 1d 2h03m04s");
	assert_line(got, "Uptime_sec: 93784");
	assert_line(got, "Nbthread: 1");
	assert_line(got, "Maxconn: 100");
	assert_line(got, "Ulimit-n: 1024");
	assert_line(got, "CurrConns: 2");
	assert_line(got, "CumConns: 12");
	assert_line(got, "Stopping: 1");
	assert_line(got, "KernelPath: no");
	assert_line(got, "KernelPathReason: two lines");
	assert_line(got, "SessionsJoined: 9");
	assert_line(got, "Fallback_half_closed: 3");
	assert_line(got, "BytesInKernel: 7000"); /* ended and live ones */
	assert_line(got, "BytesInUser: 52");
	assert_line(got, "BytesOutKernel: 47000");
	assert_line(got, "BytesOutUser: 74");
	assert_line(got, "Pauses: 106");
	assert_line(got, "Resumes: 94");
	assert_line(got, "SlotsUsed: 0");
	assert_line(got, "SlotsMax: 100");
	assert_line(got, "AcceptPausedFull: 4");
	assert_line(got, "AcceptPausedExhausted: 5");
	assert_line(got, "Resets: 6");
	assert_line(got, "WorkerDeaths: 7");
	assert_line(got, "SessionsAdopted: 8");
	assert_line(got, "SessionsLost: 1");
	assert_line(got, "Upgrades: 3");
	assert_line(got, "UpgradesFailed: 2");
	assert_line(got, "Verdict_redirect_lost: 0");
	free(got);
	f->lb.splice = (struct splice *)f; /* anything: the stub does not look at it */
	got = ask(f, "show info\n");
	assert_line(got, "KernelPath: yes");
	assert_line(got, "Verdict_fin: 1000");
	assert_line(got, "Verdict_redirect_lost: 1008");
	assert_null(strchr(got, '?'));
	free(got);
	fixture_free(f);
}

/* The value of a column in the row of this proxy and server; a copy. */
static char *cell(const char *csv, const char *px, const char *sv, const char *column)
{
	const char *header = csv + strlen("# "), *row = csv;
	char begin[100], *ret;
	size_t len;

	snprintf(begin, sizeof(begin), "\n%s,%s,", px, sv);
	row = strstr(csv, begin);
	if (!row)
		fail_msg("no row %s/%s in:\n%s", px, sv, csv);
	row++;
	for (; *header != '\n'; header += strcspn(header, ",") + 1) {
		if (!strncmp(header, column, strlen(column)) && header[strlen(column)] == ',')
			break;
		row += strcspn(row, ",") + 1;
	}
	if (*header == '\n')
		fail_msg("no column %s", column);
	len = strcspn(row, ",");
	ret = strndup(row, len);
	assert_non_null(ret);
	return ret;
}

static void assert_cell(const char *csv, const char *px, const char *sv, const char *column,
			const char *value)
{
	char *got = cell(csv, px, sv, column);

	if (strcmp(got, value))
		fail_msg("%s/%s: %s is \"%s\", not \"%s\"", px, sv, column, got, value);
	free(got);
}

static void show_stat_is_the_csv_of_haproxy_and_four_columns(void **state)
{
	struct fixture *f = serve("");
	char *got = ask(f, "show stat\n"), *line, *save;
	uint32_t lines = 0, commas = 0;

	(void)state;
	assert_begins(got, haproxy_header);
	assert_begins(got + strlen(haproxy_header), "kbin,kbout,ubin,ubout,\n");
	assert_string_equal(got + strlen(got) - 2, "\n\n");
	for (line = strtok_r(got, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!lines++)
			commas = count(line, ",");
		assert_int_equal(count(line, ","), commas);
		assert_int_equal(line[strlen(line) - 1], ',');
	}
	assert_int_equal(lines, 1 + 1 + 3 + 3); /* not the disabled section's, as in HAProxy */
	free(got);
	fixture_free(f);
}

static void show_stat_counts_live_sessions_too(void **state)
{
	struct fixture *f = serve("");
	struct frontend *fe = frontend_of(f, "web");
	char *got;

	(void)state;
	add_sessions(f, 3);
	f->sessions.views[2].server = NULL; /* has none yet: counts for the backend */
	fe->stats.in = (struct byte_count){ .kernel = 100, .user = 10 };
	fe->stats.current = 3;
	fe->stats.sessions = 7;
	fe->backend->servers[0].stats.connect_errors = 8;
	fe->backend->servers[0].stats.chosen = 9;
	got = ask(f, "show stat\n");
	assert_cell(got, "web", "FRONTEND", "type", "0");
	assert_cell(got, "web", "FRONTEND", "iid", "1");
	assert_cell(got, "web", "FRONTEND", "status", "OPEN");
	assert_cell(got, "web", "FRONTEND", "mode", "tcp");
	assert_cell(got, "web", "FRONTEND", "slim", "70");
	assert_cell(got, "web", "FRONTEND", "scur", "3");
	assert_cell(got, "web", "FRONTEND", "stot", "7");
	assert_cell(got, "web", "FRONTEND", "bin", "3113");
	assert_cell(got, "web", "FRONTEND", "bout", "60006");
	assert_cell(got, "web", "FRONTEND", "kbin", "3100");
	assert_cell(got, "web", "FRONTEND", "ubin", "13");
	assert_cell(got, "web", "FRONTEND", "kbout", "60000");
	assert_cell(got, "web", "FRONTEND", "ubout", "6");
	assert_cell(got, "web", "FRONTEND", "-", "-");
	assert_cell(got, "pool", "a", "type", "2");
	assert_cell(got, "pool", "a", "iid", "2");
	assert_cell(got, "pool", "a", "sid", "1");
	assert_cell(got, "pool", "a", "status", "no check");
	assert_cell(got, "pool", "a", "weight", "10");
	assert_cell(got, "pool", "a", "slim", "50");
	assert_cell(got, "pool", "a", "bin", "2002");
	assert_cell(got, "pool", "a", "bout", "40004");
	assert_cell(got, "pool", "a", "econ", "8");
	assert_cell(got, "pool", "a", "lbtot", "9");
	assert_cell(got, "pool", "a", "lastsess", "-1");
	assert_cell(got, "pool", "a", "addr", "192.0.2.1:9001");
	assert_cell(got, "pool", "b", "status", "MAINT");
	assert_cell(got, "pool", "b", "bin", "0");
	assert_cell(got, "pool", "b", "slim", "");
	assert_cell(got, "pool", "BACKEND", "type", "1");
	assert_cell(got, "pool", "BACKEND", "status", "UP");
	assert_cell(got, "pool", "BACKEND", "weight", "10");
	assert_cell(got, "pool", "BACKEND", "act", "1");
	assert_cell(got, "pool", "BACKEND", "bin", "3003");
	assert_cell(got, "pool", "BACKEND", "algo", "roundrobin");
	assert_cell(got, "both", "FRONTEND", "slim", "100");
	assert_cell(got, "both", "c", "iid", "3");
	assert_cell(got, "both", "c", "addr", "[2001:db8::1]:9003");
	assert_cell(got, "both", "c", "bin", "0");
	free(got);
	fe->backend->servers[0].state = SERVER_DRAIN;
	f->lb.stopping = true;
	got = ask(f, "show stat\n");
	assert_cell(got, "pool", "a", "status", "DRAIN");
	assert_cell(got, "pool", "BACKEND", "status", "DOWN");
	assert_cell(got, "pool", "BACKEND", "act", "0");
	assert_cell(got, "web", "FRONTEND", "status", "STOP");
	free(got);
	fixture_free(f);
}

static void assert_rows(struct fixture *f, const char *command, uint32_t rows, const char *first)
{
	char *got = ask(f, command), *line = strchr(got, '\n') + 1;

	assert_int_equal(count(got, "\n"), 1 + rows + 1);
	assert_begins(line, first);
	free(got);
}

static void show_stat_takes_a_proxy_a_type_and_a_server(void **state)
{
	struct fixture *f = serve("");

	(void)state;
	assert_rows(f, "show stat -1 -1 -1\n", 7, "web,FRONTEND,");
	assert_rows(f, "show stat 2 4 -1\n", 2, "pool,a,");
	assert_rows(f, "show stat pool 4 2\n", 1, "pool,b,");
	assert_rows(f, "show stat both 1 -1\n", 1, "both,FRONTEND,");
	assert_rows(f, "show stat both 3 -1\n", 2, "both,FRONTEND,");
	assert_rows(f, "show stat 99 7 -1\n", 0, "\n");
	assert_rows(f, "show stat up\n", 6, "web,FRONTEND,");
	assert_rows(f, "show stat pool 4 -1 no-maint\n", 1, "pool,a,");
	assert_asked(f, "show stat nope 7 -1\n", "No such proxy.\n\n");
	fixture_free(f);
}

static void show_servers_state_is_version_1_of_haproxy(void **state)
{
	static const char header[] =
		"1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state "
		"srv_uweight srv_iweight srv_time_since_last_change srv_check_status "
		"srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id "
		"srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port "
		"srv_check_addr srv_agent_addr srv_agent_port\n";
	struct fixture *f = serve("");
	struct server *a = &frontend_of(f, "web")->backend->servers[0];
	char *got;

	(void)state;
	a->changed_ns = a[1].changed_ns = now_ns() - 4500 * NS_PER_MS;
	got = ask(f, "show servers state pool\n");
	assert_begins(got, header);
	assert_string_equal(got + strlen(header),
			    "2 pool 1 a 192.0.2.1 2 0 10 10 4 1 0 2 0 0 0 0 - 9001 - 0 0 - - 0\n"
			    "2 pool 2 b 192.0.2.2 0 5 1 1 4 1 0 0 8 0 0 0 - 9002 - 0 0 - - 0\n\n");
	free(got);
	a->state = SERVER_DRAIN;
	a->weight = 3;
	got = ask(f, "show servers state\n");
	assert_int_equal(count(got, "\n"), 2 + 3 + 1);
	assert_line(got, "2 pool 1 a 192.0.2.1 2 8 3 10 4 1 0 2 0 0 0 0 - 9001 - 0 0 - - 0");
	free(got);
	assert_asked(f, "show servers state nope\n", "Can't find backend.\n\n");
	assert_asked(f, "show servers state web\n", "Can't find backend.\n\n");
	fixture_free(f);
}

static void show_sess_has_a_line_per_session(void **state)
{
	struct fixture *f = serve("");
	char *got;

	(void)state;
	assert_asked(f, "show sess\n", "\n");
	add_sessions(f, 31);
	f->records[30].accepted_ns -= 62 * NS_PER_SEC;
	assert_asked(f, "show sess 0x1f\n",
		     "0x1f: proto=tcpv4 src=198.51.100.7:4000 fe=web be=pool srv=a "
		     "addr=192.0.2.1:9001 state=SPLICED age=1m2s idle=? "
		     "req=[mover=kernel kernel=1000 user=1 pauses=0 resumes=0 held=0 peak=11 limit=4096 why=home] "
		     "rsp=[mover=user kernel=20000 user=2 pauses=3 resumes=2 held=5 peak=12 limit=8192 why=bulk] "
		     "fallback=none thread=0\n\n");
	f->sessions.views[0].server = NULL;
	f->sessions.views[0].splicing = false;
	f->sessions.views[0].thread = 1;
	f->records[0].state = LEDGER_CONNECTING;
	f->records[0].fallback = FALLBACK_OFF;
	f->records[0].server_addr.family = 0;
	got = ask(f, "show sess 1\n");
	assert_begins(got, "0x1: ");
	assert_int_equal(count(got, " srv=<none> addr=<none> state=CONNECTING "), 1);
	assert_int_equal(count(got, " req=[mover=user "), 1);
	assert_int_equal(count(got, " fallback=off thread=1\n"), 1);
	free(got);
	assert_asked(f, "show sess 0x20\n", "Session not found.\n\n");
	fixture_free(f);
}

static void four_thousand_sessions_are_shown(void **state)
{
	struct fixture *f = serve("");
	char *got;

	(void)state;
	add_sessions(f, 4000);
	got = ask(f, "show sess\n");
	assert_int_equal(count(got, "\n"), 4001);
	assert_int_equal(count(got, ": proto=tcpv4 "), 4000);
	free(got);
	fixture_free(f);
}

static void a_flood_of_sessions_is_cut_off(void **state)
{
	struct fixture *f = serve("");
	char *got;

	(void)state;
	add_sessions(f, 100002);
	got = ask(f, "show sess\n");
	assert_int_equal(count(got, ": proto=tcpv4 "), 100000);
	assert_line(got, "# cut off: 100000 of 100002 sessions");
	free(got);
	fixture_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_ends_with_an_empty_line_and_the_connection),
		cmocka_unit_test(a_half_closed_client_gets_its_answer),
		cmocka_unit_test(a_line_may_hold_several_commands),
		cmocka_unit_test(lines_that_have_come_are_all_answered),
		cmocka_unit_test(prompt_keeps_the_connection),
		cmocka_unit_test(a_command_may_come_in_pieces),
		cmocka_unit_test(an_unfinished_line_is_not_answered),
		cmocka_unit_test(an_unknown_command_names_itself_and_lists_the_help),
		cmocka_unit_test(arguments_that_mean_nothing_are_refused),
		cmocka_unit_test(a_line_that_is_too_long_is_refused),
		cmocka_unit_test(garbage_gets_an_answer),
		cmocka_unit_test(the_33rd_client_is_told_and_closed),
		cmocka_unit_test(a_silent_client_times_out),
		cmocka_unit_test(a_client_that_never_reads_times_out),
		cmocka_unit_test(a_client_may_leave_at_any_time),
		cmocka_unit_test(the_file_has_its_mode_and_is_removed_at_the_end),
		cmocka_unit_test(a_stale_file_is_replaced),
		cmocka_unit_test(a_live_socket_is_left_alone),
		cmocka_unit_test(another_kind_of_file_is_left_alone),
		cmocka_unit_test(a_file_that_is_not_ours_any_more_stays),
		cmocka_unit_test(a_missing_folder_is_an_error),
		cmocka_unit_test(show_info_has_a_line_per_number),
		cmocka_unit_test(show_stat_is_the_csv_of_haproxy_and_four_columns),
		cmocka_unit_test(show_stat_counts_live_sessions_too),
		cmocka_unit_test(show_stat_takes_a_proxy_a_type_and_a_server),
		cmocka_unit_test(show_servers_state_is_version_1_of_haproxy),
		cmocka_unit_test(show_sess_has_a_line_per_session),
		cmocka_unit_test(four_thousand_sessions_are_shown),
		cmocka_unit_test(a_flood_of_sessions_is_cut_off),
	};

	log_setup(LOG_EMERG, false); /* the alerts here are wanted, not seen */
	return cmocka_run_group_tests_name("admin", tests, NULL, NULL);
}
