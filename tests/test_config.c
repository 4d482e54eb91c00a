/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_config.c - the configuration's text: what it means, and what is said about mistakes. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <syslog.h>

#include <cmocka.h>

#include "config.h"
#include "config_lex.h"
#include "util.h"

/* What makes a configuration complete, whatever the test puts before it. */
#define LISTEN "listen l\n bind :1\n server s 127.0.0.1:1\n"
#define BACKEND "backend b\n server s 127.0.0.1:1\n"

static struct config *parse_only(const char *text)
{
	struct config *c = config_new(0);

	assert_non_null(c);
	assert_int_equal(config_parse(c, "f", text, strlen(text)), 0);
	return c;
}

static void print_errors(const struct config *c)
{
	char line[512];

	for (size_t i = 0; i < c->nr_errors; i++)
		print_message("%s\n", config_error_format(&c->errors[i], line, sizeof(line)));
}

/* Parses text that must have no errors and no warnings. */
static struct config *parse(const char *text)
{
	struct config *c = parse_only(text);
	int r = config_finish(c);

	print_errors(c);
	assert_int_equal(r, 0);
	assert_int_equal(c->nr_errors, 0);
	assert_int_equal(c->nr_fatal, 0);
	return c;
}

static struct config_proxy *find(const struct config *c, const char *name, unsigned int caps)
{
	struct config_proxy *p;

	list_for_each(p, &c->proxies, entry)
		if (!strcmp(p->name, name) && p->caps & caps)
			return p;
	fail_msg("no section '%s'", name);
	return NULL;
}

/* Parses text and compares all messages, one a line, with wanted. */
static void expect_messages(const char *text, const char *wanted)
{
	struct config *c = parse_only(text);
	char all[8192] = "", line[512];
	size_t len = 0;

	config_finish(c);
	for (size_t i = 0; i < c->nr_errors; i++)
		len += (size_t)snprintf(all + len, sizeof(all) - len, "%s\n",
					config_error_format(&c->errors[i], line, sizeof(line)));
	assert_string_equal(all, wanted);
	config_free(c);
}

/*
 * Puts a line into an otherwise complete section, as line 2, indented by one space, and compares
 * the message, which must be the only one. wanted: "column: text", or "" for no message.
 */
static void expect_in(const char *section, const char *line, const char *wanted)
{
	char text[8192], message[512] = "";
	const char *head, *rest;

	if (!strcmp(section, "global")) {
		head = "global";
		rest = LISTEN;
	} else if (!strcmp(section, "defaults")) {
		head = "defaults";
		rest = LISTEN;
	} else if (!strcmp(section, "listen")) {
		head = "listen x";
		rest = " bind :2\n server y 127.0.0.1:2\n";
	} else if (!strcmp(section, "frontend")) {
		head = "frontend x";
		rest = " bind :2\n default_backend b\n" BACKEND;
	} else {
		assert_string_equal(section, "backend");
		head = "backend x";
		rest = " server y 127.0.0.1:2\n" LISTEN;
	}
	snprintf(text, sizeof(text), "%s\n %s\n%s", head, line, rest);
	if (*wanted)
		snprintf(message, sizeof(message), "f:2:%s\n", wanted);
	expect_messages(text, message);
}

/* The same for a line that no section accepts, or that each does. */
static void expect_in_proxies(const char *line, const char *wanted)
{
	expect_in("defaults", line, wanted);
	expect_in("listen", line, wanted);
	expect_in("frontend", line, wanted);
	expect_in("backend", line, wanted);
}

/* ---- words ---- */

/* Compares the words of a line, joined with '|'. */
static void expect_words(const char *text, const char *wanted)
{
	static struct config_line line;
	char all[4096] = "";

	assert_int_equal(config_lex(&line, text, strlen(text)), 0);
	for (unsigned int i = 0; i < line.nr_words; i++) {
		strcat(all, i ? "|" : "");
		strcat(all, line.words[i].text);
	}
	assert_string_equal(all, wanted);
}

static void words_are_cut_at_spaces_and_tabs(void **state)
{
	(void)state;
	expect_words("", "");
	expect_words("  \t ", "");
	expect_words("a", "a");
	expect_words("\ta  bc\td ", "a|bc|d");
	expect_words("a b\r", "a|b");
	expect_words("caf\xc3\xa9 \xff", "caf\xc3\xa9|\xff");
}

static void a_hash_outside_quotes_begins_a_comment(void **state)
{
	(void)state;
	expect_words("# a b", "");
	expect_words("a #b c", "a");
	expect_words("a b#c", "a|b");
	expect_words("a '#'b \"#\" \\#", "a|#b|#|#");
	expect_words("a # it's \"odd\\", "a");
}

static void strong_quotes_keep_every_byte(void **state)
{
	(void)state;
	expect_words("'a b' 'c\\n\"$d'", "a b|c\\n\"$d");
	expect_words("a'b c'd", "ab cd");
	expect_words("'' a ''", "|a|");
}

static void weak_quotes_keep_all_but_escapes(void **state)
{
	(void)state;
	expect_words("\"a b\" \"it's\"", "a b|it's");
	expect_words("\"a\\\"b\" \"\\\\\" \"\\$HOME\" \"\\ \\#\\'\"", "a\"b|\\|$HOME| #'");
	expect_words("a\"b\"'c'd \"\"", "abcd|");
}

static void escapes_are_haproxys(void **state)
{
	(void)state;
	expect_words("a\\ b \\#c \\\\ \\' \\\"", "a b|#c|\\|'|\"");
	expect_words("a\\nb\\rc\\td", "a\nb\rc\td");
	expect_words("\\x41\\x7a\\xfF", "Az\xff");
	expect_words("a\\qb \"a\\qb\" a$b a\\$b", "a\\qb|a\\qb|a$b|a\\$b");
}

static void a_word_knows_its_column(void **state)
{
	static struct config_line line;
	const char *text = "\tone  \"two\" t'h'ree \\x34 # five";
	static const unsigned int columns[] = { 2, 7, 13, 21 };

	(void)state;
	assert_int_equal(config_lex(&line, text, strlen(text)), 0);
	assert_int_equal(line.nr_words, ARRAY_SIZE(columns));
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
		assert_int_equal(line.words[i].column, columns[i]);
}

static void the_longest_line_and_the_most_words_fit(void **state)
{
	static struct config_line line;
	char text[2 * CONFIG_LINE_MAX];

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(config_lex(&line, text, CONFIG_LINE_MAX), 0);
	assert_int_equal(strlen(line.words[0].text), CONFIG_LINE_MAX);
	assert_int_equal(config_lex(&line, text, CONFIG_LINE_MAX + 1), -EINVAL);
	assert_int_equal(line.error_column, CONFIG_LINE_MAX + 1);
	assert_string_equal(line.error, "the line has 2049 bytes; 2048 are allowed");

	for (size_t i = 1; i < sizeof(text); i += 2)
		text[i] = ' ';
	assert_int_equal(config_lex(&line, text, 2 * CONFIG_WORDS_MAX), 0);
	assert_int_equal(line.nr_words, CONFIG_WORDS_MAX);
	assert_int_equal(config_lex(&line, text, 2 * CONFIG_WORDS_MAX + 1), -EINVAL);
	assert_int_equal(line.error_column, 129);
	assert_string_equal(line.error, "more than 64 words in one line");
}

static void expect_lex_error(const char *text, size_t len, unsigned int column, const char *error)
{
	static struct config_line line;

	assert_int_equal(config_lex(&line, text, len), -EINVAL);
	assert_string_equal(line.error, error);
	assert_int_equal(line.error_column, column);
}

static void bad_quoting_is_refused_where_it_begins(void **state)
{
	(void)state;
	expect_lex_error("a 'b c", 6, 3, "the quote ' is not closed in this line");
	expect_lex_error("a b\"c # '", 9, 4, "the quote \" is not closed in this line");
	expect_lex_error("a b\\", 4, 4,
			 "a backslash at the end of the line: lines cannot be continued, and a "
			 "backslash is written \\\\");
	expect_lex_error("a \\x4", 5, 3, "\\x needs two hexadecimal digits, and not 00");
	expect_lex_error("a \\x4g", 6, 3, "\\x needs two hexadecimal digits, and not 00");
	expect_lex_error("a \\x00", 6, 3, "\\x needs two hexadecimal digits, and not 00");
	expect_lex_error("a \"b$HOME\"", 10, 5,
			 "environment variables are not supported; a dollar sign in weak quotes is "
			 "written \\$");
}

static void control_bytes_are_refused_even_in_comments(void **state)
{
	(void)state;
	expect_lex_error("a\0b", 3, 2,
			 "the control byte 0x00; text may hold printable bytes, spaces and tabs");
	expect_lex_error("a # \x1b", 5, 5,
			 "the control byte 0x1b; text may hold printable bytes, spaces and tabs");
	expect_lex_error("'\x7f'", 3, 2,
			 "the control byte 0x7f; text may hold printable bytes, spaces and tabs");
	expect_lex_error("a\rb", 3, 2,
			 "the control byte 0x0d; text may hold printable bytes, spaces and tabs");
}

/* ---- what the text means ---- */

static void a_new_configuration_has_the_defaults(void **state)
{
	struct config *c = parse(LISTEN);
	struct config_global *g = &c->global;
	struct config_proxy *p = find(c, "l", PROXY_FRONTEND);
	struct config_server *s = list_first(&p->servers, struct config_server, entry);

	(void)state;
	assert_int_equal(g->maxconn, 0);
	assert_int_equal(g->ulimit_n, 0);
	assert_int_equal(g->nbthread, 0);
	assert_false(g->daemon);
	assert_int_equal(g->supervision, SUPERVISION_AUTO);
	assert_string_equal(g->pidfile, "");
	assert_string_equal(g->log_tag, "shunt");
	assert_string_equal(g->pin_path, "/sys/fs/bpf/shunt");
	assert_false(g->splice_require);
	assert_false(g->splice_none);
	assert_int_equal(g->splice_limit, 2 << 20);
	assert_int_equal(g->stats_timeout_ms, 10000);
	assert_int_equal(g->hard_stop_after_ms, 0);
	assert_true(list_empty(&g->log_targets));
	assert_true(list_empty(&g->stats));

	assert_int_equal(p->caps, PROXY_FRONTEND | PROXY_BACKEND);
	assert_int_equal(p->id, 1);
	assert_string_equal(p->file, "f");
	assert_int_equal(p->line, 1);
	assert_int_equal(p->column, 8);
	assert_false(p->disabled);
	assert_ptr_equal(p->backend, p);
	assert_int_equal(p->maxconn, 0);
	assert_int_equal(p->backlog, 0);
	assert_false(p->tcplog);
	assert_false(p->dontlognull);
	assert_false(p->log_global);
	assert_true(list_empty(&p->log_targets));
	assert_int_equal(p->balance, BALANCE_ROUNDROBIN);
	assert_int_equal(p->retries, 3);
	assert_true(p->redispatch);
	assert_int_equal(p->redispatch_interval, 1);
	assert_int_equal(p->timeout.connect, 5000);
	assert_int_equal(p->timeout.client, 0);
	assert_int_equal(p->timeout.queue, 0);
	assert_int_equal(p->splice_request, SPLICE_AUTO);
	assert_int_equal(p->splice_response, SPLICE_AUTO);
	assert_int_equal(s->weight, 1);
	assert_int_equal(s->maxconn, 0);
	assert_false(s->disabled);
	config_free(c);
}

static void master_worker_is_asked_for_or_refused(void **state)
{
	struct config *c = parse("global\n master-worker\n" LISTEN);

	(void)state;
	assert_int_equal(c->global.supervision, SUPERVISION_ON);
	config_free(c);
	c = parse("global\n no master-worker\n" LISTEN);
	assert_int_equal(c->global.supervision, SUPERVISION_OFF);
	config_free(c);
}

static void every_global_keyword_is_taken(void **state)
{
	struct config *c = parse("global\n"
				 " maxconn 20000\n"
				 " ulimit-n 65536\n"
				 " nbthread 4\n"
				 " daemon\n"
				 " master-worker\n"
				 " pidfile /run/x.pid\n"
				 " log-tag edge\n"
				 " bpf-pin-path /sys/fs/bpf/edge\n"
				 " splice require\n"
				 " tune.splice.limit 512k\n"
				 " hard-stop-after 30s\n"
				 " stats timeout 1m\n"
				 " description some words\n" LISTEN);
	struct config_global *g = &c->global;

	(void)state;
	assert_int_equal(g->maxconn, 20000);
	assert_int_equal(g->ulimit_n, 65536);
	assert_int_equal(g->nbthread, 4);
	assert_true(g->daemon);
	assert_int_equal(g->supervision, SUPERVISION_ON);
	assert_string_equal(g->pidfile, "/run/x.pid");
	assert_string_equal(g->log_tag, "edge");
	assert_string_equal(g->pin_path, "/sys/fs/bpf/edge");
	assert_true(g->splice_require);
	assert_int_equal(g->splice_limit, 512 << 10);
	assert_int_equal(g->hard_stop_after_ms, 30000);
	assert_int_equal(g->stats_timeout_ms, 60000);
	config_free(c);
}

static void a_later_line_replaces_an_earlier_one(void **state)
{
	struct config *c =
		parse("global\n maxconn 1\n splice require\n bpf-pin-path none\n"
		      "global\n maxconn 2\n splice auto\n" LISTEN " retries 1\n retries 2\n");

	(void)state;
	assert_int_equal(c->global.maxconn, 2);
	assert_false(c->global.splice_require);
	assert_string_equal(c->global.pin_path, "");
	assert_int_equal(find(c, "l", PROXY_BACKEND)->retries, 2);
	config_free(c);
}

static void nosplice_turns_every_direction_off(void **state)
{
	struct config *c = parse("global\n nosplice\n" LISTEN " option splice-request\n");
	struct config_proxy *p = find(c, "l", PROXY_BACKEND);

	(void)state;
	assert_true(c->global.splice_none);
	assert_int_equal(p->splice_request, SPLICE_OFF);
	assert_int_equal(p->splice_response, SPLICE_OFF);
	config_free(c);
}

static void stats_sockets_are_collected(void **state)
{
	struct config *c = parse("global\n stats socket /run/a.sock\n"
				 " stats socket unix@/run/b.sock mode 600 level admin\n"
				 " stats socket ./c.sock level user mode 0777\n" LISTEN);
	struct config_stats *s = list_first(&c->global.stats, struct config_stats, entry);

	(void)state;
	assert_string_equal(s->path, "/run/a.sock");
	assert_int_equal(s->mode, 0660);
	assert_int_equal(s->level, STATS_LEVEL_OPERATOR);
	s = list_first(&s->entry, struct config_stats, entry);
	assert_string_equal(s->path, "/run/b.sock");
	assert_int_equal(s->mode, 0600);
	assert_int_equal(s->level, STATS_LEVEL_ADMIN);
	s = list_first(&s->entry, struct config_stats, entry);
	assert_string_equal(s->path, "./c.sock");
	assert_int_equal(s->mode, 0777);
	assert_int_equal(s->level, STATS_LEVEL_USER);
	assert_ptr_equal(s->entry.next, &c->global.stats);
	config_free(c);
}

static void log_targets_of_every_kind_are_taken(void **state)
{
	static const struct {
		enum log_target_kind kind;
		enum log_format format;
		const char *where;
		int facility, max_level;
	} wanted[] = {
		{ LOG_TARGET_UNIX, LOG_FORMAT_RFC3164, "/dev/log", LOG_LOCAL0 >> 3, LOG_NOTICE },
		{ LOG_TARGET_UNIX, LOG_FORMAT_RFC3164, "/dev/log", LOG_KERN >> 3, LOG_DEBUG },
		{ LOG_TARGET_UDP, LOG_FORMAT_RFC3164, "10.0.0.9:514", LOG_LOCAL7 >> 3, LOG_DEBUG },
		{ LOG_TARGET_UDP, LOG_FORMAT_RFC5424, "10.0.0.9:5514", LOG_DAEMON >> 3, LOG_EMERG },
		{ LOG_TARGET_UDP, LOG_FORMAT_RAW, "[::1]:514", LOG_USER >> 3, LOG_ERR },
		{ LOG_TARGET_UDP, LOG_FORMAT_RFC3164, "127.0.0.1:1", LOG_FTP >> 3, LOG_DEBUG },
		{ LOG_TARGET_STDOUT, LOG_FORMAT_RAW, "", LOG_LOCAL0 >> 3, LOG_DEBUG },
		{ LOG_TARGET_STDERR, LOG_FORMAT_RFC3164, "", LOG_CRON >> 3, LOG_DEBUG },
	};
	struct config *c = parse("global\n"
				 " log /dev/log local0 notice\n"
				 " log unix@/dev/log kern\n"
				 " log 10.0.0.9 local7\n"
				 " log 10.0.0.9:5514 format rfc5424 daemon emerg\n"
				 " log [::1] format raw user err\n"
				 " log udp@127.0.0.1:1 ftp\n"
				 " log stdout local0\n"
				 " log stderr format rfc3164 cron debug\n" LISTEN);
	struct log_target *t;
	char buf[ADDR_STRLEN];
	size_t i = 0;

	(void)state;
	list_for_each(t, &c->global.log_targets, entry) {
		assert_true(i < ARRAY_SIZE(wanted));
		assert_int_equal(t->kind, wanted[i].kind);
		assert_int_equal(t->format, wanted[i].format);
		assert_int_equal(t->facility, wanted[i].facility);
		assert_int_equal(t->max_level, wanted[i].max_level);
		if (t->kind == LOG_TARGET_UNIX)
			assert_string_equal(t->path, wanted[i].where);
		if (t->kind == LOG_TARGET_UDP)
			assert_string_equal(addr_format(&t->addr, buf), wanted[i].where);
		i++;
	}
	assert_int_equal(i, ARRAY_SIZE(wanted));
	config_free(c);
}

static void every_proxy_keyword_is_taken(void **state)
{
	struct config *c = parse("listen x\n"
				 " description the x\n"
				 " mode tcp\n"
				 " balance roundrobin\n"
				 " maxconn 7\n"
				 " backlog 8\n"
				 " retries 9\n"
				 " timeout connect 1\n"
				 " timeout client 2ms\n"
				 " timeout server 3s\n"
				 " timeout client-fin 4m\n"
				 " timeout server-fin 5h\n"
				 " timeout tunnel 6d\n"
				 " timeout queue 7500us\n"
				 " option redispatch 2\n"
				 " option tcplog\n"
				 " option dontlognull\n"
				 " option tcpka\n"
				 " option clitcpka\n"
				 " option srvtcpka\n"
				 " log global\n"
				 " log stdout local0\n"
				 " bind 127.0.0.1:1,[::1]:2\n"
				 " bind *:3\n"
				 " server a 10.0.0.1:80 weight 256 maxconn 10 disabled\n"
				 " server b 10.0.0.2:80 weight 0\n");
	struct config_proxy *p = find(c, "x", PROXY_FRONTEND);
	struct config_server *s = list_first(&p->servers, struct config_server, entry);
	struct config_bind *b = list_first(&p->binds, struct config_bind, entry);
	char buf[ADDR_STRLEN];

	(void)state;
	assert_int_equal(p->maxconn, 7);
	assert_int_equal(p->backlog, 8);
	assert_int_equal(p->retries, 9);
	assert_int_equal(p->timeout.connect, 1);
	assert_int_equal(p->timeout.client, 2);
	assert_int_equal(p->timeout.server, 3000);
	assert_int_equal(p->timeout.client_fin, 4 * 60000);
	assert_int_equal(p->timeout.server_fin, 5 * 3600000);
	assert_int_equal(p->timeout.tunnel, 6 * 86400000);
	assert_int_equal(p->timeout.queue, 8);
	assert_true(p->redispatch);
	assert_int_equal(p->redispatch_interval, 2);
	assert_true(p->tcplog);
	assert_true(p->dontlognull);
	assert_true(p->log_global);
	assert_false(list_empty(&p->log_targets));

	assert_int_equal(p->nr_binds, 3);
	assert_string_equal(addr_format(&b->addr, buf), "127.0.0.1:1");
	assert_int_equal(b->line, 23);
	assert_int_equal(b->column, 7);
	b = list_first(&b->entry, struct config_bind, entry);
	assert_string_equal(addr_format(&b->addr, buf), "[::1]:2");
	b = list_first(&b->entry, struct config_bind, entry);
	assert_string_equal(addr_format(&b->addr, buf), "0.0.0.0:3");

	assert_int_equal(p->nr_servers, 2);
	assert_string_equal(s->name, "a");
	assert_string_equal(addr_format(&s->addr, buf), "10.0.0.1:80");
	assert_int_equal(s->weight, 256);
	assert_int_equal(s->maxconn, 10);
	assert_true(s->disabled);
	assert_int_equal(s->id, 1);
	assert_int_equal(s->line, 25);
	assert_int_equal(s->column, 9);
	s = list_first(&s->entry, struct config_server, entry);
	assert_string_equal(s->name, "b");
	assert_int_equal(s->weight, 0);
	assert_false(s->disabled);
	assert_int_equal(s->id, 2);
	config_free(c);
}

static void options_can_be_taken_back(void **state)
{
	struct config *c = parse("defaults\n option tcplog\n option dontlognull\n log global\n"
				 " log stdout local0\n disabled\n option redispatch\n"
				 "listen x\n bind :1\n server s 127.0.0.1:1\n no option tcplog\n"
				 " no option dontlognull\n no log\n enabled\n"
				 " no option redispatch\n");
	struct config_proxy *p = find(c, "x", PROXY_FRONTEND);

	(void)state;
	assert_false(p->tcplog);
	assert_false(p->dontlognull);
	assert_false(p->log_global);
	assert_true(list_empty(&p->log_targets));
	assert_false(p->disabled);
	assert_false(p->redispatch);
	config_free(c);
}

static void redispatch_takes_haproxys_numbers(void **state)
{
	static const struct {
		const char *line;
		bool redispatch;
		int interval;
	} cases[] = {
		{ "option redispatch", true, 1 },    { "option redispatch 1", true, 1 },
		{ "option redispatch 3", true, 3 },   { "option redispatch -2", true, -2 },
		{ "option redispatch 0", false, 1 }, { "no option redispatch", false, 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[200];
		struct config *c;

		snprintf(text, sizeof(text), "%s %s\n", LISTEN, cases[i].line);
		c = parse(text);
		assert_int_equal(find(c, "l", PROXY_BACKEND)->redispatch, cases[i].redispatch);
		assert_int_equal(find(c, "l", PROXY_BACKEND)->redispatch_interval,
				 cases[i].interval);
		config_free(c);
	}
}

static void a_frontend_finds_its_backend(void **state)
{
	struct config *c = parse("frontend a\n bind :1\n default_backend x\n"
				 "frontend x\n bind :2\n default_backend l\n"
				 "backend x\n server s 127.0.0.1:1\n"
				 "listen l\n bind :3\n server s 127.0.0.1:1\n");
	struct config_proxy *x = find(c, "x", PROXY_BACKEND);

	(void)state;
	assert_int_equal(c->nr_proxies, 4);
	assert_ptr_equal(find(c, "a", PROXY_FRONTEND)->backend, x);
	assert_int_equal(x->caps, PROXY_BACKEND);
	assert_int_equal(x->id, 3);
	assert_null(x->backend == x ? NULL : x->backend);
	assert_ptr_equal(find(c, "x", PROXY_FRONTEND)->backend, find(c, "l", PROXY_BACKEND));
	assert_int_equal(find(c, "a", PROXY_FRONTEND)->default_backend_at.line, 3);
	assert_int_equal(find(c, "a", PROXY_FRONTEND)->default_backend_at.column, 18);
	config_free(c);
}

static void a_section_starts_with_the_last_defaults_before_it(void **state)
{
	struct config *c = parse("defaults\n retries 7\n timeout client 1s\n log stdout local0\n"
				 " timeout connect 9s\n default_backend b\n"
				 "frontend one\n bind :1\n"
				 "defaults second\n timeout client 2s\n default_backend b\n"
				 "frontend two\n bind :2\n log stderr local1\n timeout client 3s\n"
				 "frontend three\n bind :3\n" BACKEND);
	struct config_proxy *one = find(c, "one", PROXY_FRONTEND);
	struct config_proxy *two = find(c, "two", PROXY_FRONTEND);
	struct config_proxy *three = find(c, "three", PROXY_FRONTEND);

	(void)state;
	assert_int_equal(one->timeout.client, 1000);
	assert_int_equal(one->timeout.connect, 9000);
	assert_int_equal(one->retries, 7);
	assert_false(list_empty(&one->log_targets));
	assert_ptr_equal(one->backend, find(c, "b", PROXY_BACKEND));
	assert_int_equal(two->timeout.client, 3000);
	assert_int_equal(two->timeout.connect, 5000);
	assert_int_equal(two->retries, 3);
	assert_int_equal(list_first(&two->log_targets, struct log_target, entry)->kind,
			 LOG_TARGET_STDERR);
	assert_int_equal(three->timeout.client, 2000);
	assert_true(list_empty(&three->log_targets));
	config_free(c);
}

static void a_sections_own_log_lines_come_after_the_inherited_ones(void **state)
{
	struct config *c = parse("defaults\n log stdout local0\n" LISTEN " log stderr local1\n"
				 "listen m\n bind :2\n server s 127.0.0.1:1\n");
	struct log_target *t;

	(void)state;
	t = list_first(&find(c, "l", PROXY_FRONTEND)->log_targets, struct log_target, entry);
	assert_int_equal(t->kind, LOG_TARGET_STDOUT);
	t = list_first(&t->entry, struct log_target, entry);
	assert_int_equal(t->kind, LOG_TARGET_STDERR);
	t = list_first(&find(c, "m", PROXY_FRONTEND)->log_targets, struct log_target, entry);
	assert_int_equal(t->kind, LOG_TARGET_STDOUT);
	assert_ptr_equal(t->entry.next, &find(c, "m", PROXY_FRONTEND)->log_targets);
	config_free(c);
}

static void a_listen_section_is_its_own_backend_whatever_the_defaults_say(void **state)
{
	struct config *c = parse("defaults\n default_backend b\n" LISTEN BACKEND);
	struct config_proxy *p = find(c, "l", PROXY_FRONTEND);

	(void)state;
	assert_string_equal(p->default_backend, "");
	assert_ptr_equal(p->backend, p);
	config_free(c);
}

static void splicing_follows_the_options(void **state)
{
	static const struct {
		const char *in_defaults, *in_section;
		enum splice_mode request, response;
	} cases[] = {
		{ "", "", SPLICE_AUTO, SPLICE_AUTO },
		{ "", "option splice-auto", SPLICE_AUTO, SPLICE_AUTO },
		{ "", "no option splice-auto", SPLICE_OFF, SPLICE_OFF },
		{ "", "option splice-request", SPLICE_ON, SPLICE_OFF },
		{ "", "option splice-response", SPLICE_OFF, SPLICE_ON },
		{ "", "option splice-request\n option splice-response", SPLICE_ON, SPLICE_ON },
		{ "", "option splice-request\n option splice-auto", SPLICE_ON, SPLICE_AUTO },
		{ "", "option splice-auto\n option splice-response", SPLICE_AUTO, SPLICE_ON },
		{ "", "no option splice-auto\n option splice-request", SPLICE_ON, SPLICE_OFF },
		{ "", "no option splice-request", SPLICE_OFF, SPLICE_AUTO },
		{ "", "option splice-auto\n no option splice-response", SPLICE_AUTO, SPLICE_OFF },
		{ "no option splice-auto", "", SPLICE_OFF, SPLICE_OFF },
		{ "no option splice-auto", "option splice-auto", SPLICE_AUTO, SPLICE_AUTO },
		{ "no option splice-auto", "option splice-response", SPLICE_OFF, SPLICE_ON },
		{ "option splice-auto", "option splice-request", SPLICE_ON, SPLICE_AUTO },
		{ "option splice-request", "", SPLICE_ON, SPLICE_OFF },
		{ "option splice-request", "option splice-response", SPLICE_ON, SPLICE_ON },
		{ "option splice-request", "no option splice-request", SPLICE_OFF, SPLICE_AUTO },
		{ "option splice-request", "option splice-auto", SPLICE_ON, SPLICE_AUTO },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[400];
		struct config *c;

		snprintf(text, sizeof(text), "defaults\n %s\n" LISTEN " %s\n", cases[i].in_defaults,
			 cases[i].in_section);
		c = parse(text);
		assert_int_equal(find(c, "l", PROXY_BACKEND)->splice_request, cases[i].request);
		assert_int_equal(find(c, "l", PROXY_BACKEND)->splice_response, cases[i].response);
		config_free(c);
	}
}

static void several_files_make_one_configuration(void **state)
{
	static const char one[] = "defaults\n retries 5\nfrontend f\n bind :1";
	static const char two[] = " default_backend b\n";
	static const char three[] = "frontend g\n bind :2\n default_backend b\n" BACKEND;
	struct config *c = config_new(0);
	char name[] = "one", line[300];

	(void)state;
	assert_int_equal(config_parse(c, name, one, strlen(one)), 0);
	name[0] = 'x';
	assert_int_equal(config_parse(c, "two", two, strlen(two)), 0);
	assert_int_equal(config_parse(c, "three", three, strlen(three)), 0);
	assert_int_equal(config_finish(c), -EINVAL);

	/* the section of the first file does not go on in the second; the defaults do in the third
	 */
	assert_int_equal(c->nr_errors, 2);
	assert_string_equal(config_error_format(&c->errors[0], line, sizeof(line)),
			    "one:3:10: error: the frontend 'f' needs a default_backend");
	assert_string_equal(config_error_format(&c->errors[1], line, sizeof(line)),
			    "two:1:2: error: 'default_backend' is before any section; allowed: "
			    "global, defaults, listen, frontend, backend");
	assert_int_equal(find(c, "b", PROXY_BACKEND)->retries, 5);
	assert_string_equal(find(c, "b", PROXY_BACKEND)->file, "three");
	assert_int_equal(find(c, "b", PROXY_BACKEND)->line, 4);
	config_free(c);
}

static void a_file_may_end_in_crlf_lines_or_without_newline(void **state)
{
	struct config *c = parse("listen l\r\n\tbind :1\r\n\tserver s 127.0.0.1:1");

	(void)state;
	assert_int_equal(find(c, "l", PROXY_BACKEND)->nr_servers, 1);
	config_free(c);
}

static void quoted_words_are_words(void **state)
{
	struct config *c =
		parse("'global'\n \"log-tag\" \"sh\"'un't\\x31\n pidfile '/a b.pid'\n" LISTEN);

	(void)state;
	assert_string_equal(c->global.log_tag, "shunt1");
	assert_string_equal(c->global.pidfile, "/a b.pid");
	config_free(c);
}

static void the_builtin_text_is_a_configuration(void **state)
{
	static const char *const listens[] = { ":8080", "[::1]:81" };
	static const char *const servers[] = { "10.0.0.1:80", "10.0.0.2:80", "[::1]:80" };
	char *text = config_builtin(listens, 2, servers, 3);
	struct config_server *s;
	struct config_proxy *p;
	struct config *c;

	(void)state;
	assert_string_equal(text, "listen shunt\n\tbind :8080\n\tbind [::1]:81\n"
				  "\tserver s1 10.0.0.1:80\n\tserver s2 10.0.0.2:80\n"
				  "\tserver s3 [::1]:80\n");
	c = parse(text);
	free(text);
	p = find(c, "shunt", PROXY_FRONTEND);
	assert_int_equal(p->caps, PROXY_FRONTEND | PROXY_BACKEND);
	assert_int_equal(p->nr_binds, 2);
	assert_int_equal(p->nr_servers, 3);
	s = list_first(&p->servers, struct config_server, entry);
	assert_string_equal(s->name, "s1");
	config_free(c);
}

static void a_builtin_argument_cannot_smuggle_in_lines(void **state)
{
	static const char *const listens[] = { ":1\nglobal\n daemon", "" };
	static const char *const servers[] = { "a b#'\"$\\\xff" };
	char *text = config_builtin(listens, 2, servers, 1);

	(void)state;
	expect_messages(text,
			"f:2:7: error: ':1\\x0aglobal\\x0a daemon': a port is a number from 1 to "
			"65535; allowed: ADDRESS:PORT, *:PORT or :PORT\n"
			"f:3:7: error: '': this is not an address; "
			"allowed: ADDRESS:PORT, *:PORT or :PORT\n"
			"f:4:12: error: 'a b#'\"$\\\\xff': the port is missing; allowed: "
			"ADDRESS:PORT\n");
	free(text);
	text = config_builtin(NULL, 0, NULL, 0);
	assert_string_equal(text, "listen shunt\n");
	free(text);
}

/* ---- mistakes ---- */

static void an_empty_configuration_has_nothing_to_listen_on(void **state)
{
	struct config *c = config_new(0);
	char line[300];

	(void)state;
	assert_int_equal(config_finish(c), -EINVAL);
	assert_int_equal(c->nr_errors, 1);
	assert_string_equal(
		config_error_format(&c->errors[0], line, sizeof(line)),
		"error: nothing to listen on: there is no frontend and no listen section");
	config_free(c);

	expect_messages("", "f: error: nothing to listen on: there is no frontend and no listen "
			    "section\n");
	expect_messages(BACKEND,
			"f: error: nothing to listen on: there is no frontend and no listen "
			"section\n");
	expect_messages(LISTEN " disabled\n", "f: error: nothing to listen on: every frontend and "
					      "listen section is disabled\n");
}

static void a_keyword_before_any_section_is_refused(void **state)
{
	(void)state;
	expect_messages("\n  maxconn 1\n" LISTEN,
			"f:2:3: error: 'maxconn' is before any section; allowed: global, defaults, "
			"listen, frontend, backend\n");
}

static void unknown_keywords_name_the_nearest_one(void **state)
{
	(void)state;
	expect_in("global", "maxcon 1",
		  "2: error: unknown keyword 'maxcon'; did you mean 'maxconn'?");
	expect_in(
		"global", "tune.splise.limit 1",
		"2: error: unknown keyword 'tune.splise.limit'; did you mean 'tune.splice.limit'?");
	expect_in("global", "lgo 1", "2: error: unknown keyword 'lgo'; did you mean 'log'?");
	expect_in("global", "stats sokcet /x",
		  "8: error: unknown stats 'sokcet'; did you mean 'socket'?");
	expect_in("frontend", "default-backend b",
		  "2: error: unknown keyword 'default-backend'; did you mean 'default_backend'?");
	expect_in("backend", "timout client 1",
		  "2: error: unknown keyword 'timout'; did you mean 'timeout'?");
	expect_in("backend", "no optoin tcplog",
		  "5: error: unknown keyword 'optoin'; did you mean 'option'?");
	expect_in("defaults", "timeout conect 5s",
		  "10: error: unknown timeout 'conect'; did you mean 'connect'?");
	expect_in_proxies("option splice-atuo",
			  "9: error: unknown option 'splice-atuo'; did you mean 'splice-auto'?");
}

static void unknown_keywords_without_a_near_one_list_what_is_allowed(void **state)
{
	(void)state;
	expect_in(
		"global", "xyzzy",
		"2: error: unknown keyword 'xyzzy'; allowed: maxconn, ulimit-n, nbthread, daemon, "
		"master-worker, pidfile, log-tag, bpf-pin-path, splice, nosplice, "
		"tune.splice.limit, tune.splice.budget, hard-stop-after, stats, user, group...");
	expect_in("defaults", "acl x src 1.2.3.4",
		  "2: error: unknown keyword 'acl'; allowed: log, mode, default_backend, balance, "
		  "maxconn, backlog, retries, disabled, enabled, timeout, option");
	expect_in(
		"listen", "acl",
		"2: error: unknown keyword 'acl'; allowed: log, description, mode, bind, balance, "
		"server, maxconn, backlog, retries, disabled, enabled, timeout, option");
	expect_in("frontend", "tcp-request connection accept",
		  "2: error: unknown keyword 'tcp-request'; allowed: log, description, mode, bind, "
		  "default_backend, maxconn, backlog, disabled, enabled, timeout, option");
	expect_in(
		"backend", "use-server x",
		"2: error: unknown keyword 'use-server'; allowed: log, description, mode, balance, "
		"server, retries, disabled, enabled, timeout, option");
	expect_in("global", "stats maxconn 1",
		  "8: error: unknown stats 'maxconn'; allowed: socket, timeout");
	expect_in("frontend", "timeout http-request 1s",
		  "10: error: unknown timeout 'http-request'; allowed: client, client-fin");
	expect_in("backend", "option forwardfor",
		  "9: error: unknown option 'forwardfor'; allowed: redispatch, splice-auto, "
		  "splice-request, splice-response, tcpka, srvtcpka");
}

static void words_that_are_no_text_are_printed_escaped(void **state)
{
	(void)state;
	expect_in("frontend", "balanc\xc3\xa9 x\xff",
		  "2: error: unknown keyword 'balanc\\xc3\\xa9'; allowed: log, description, mode, "
		  "bind, "
		  "default_backend, maxconn, backlog, disabled, enabled, timeout, option");
	expect_in("backend", "mode \"a\\nb\"",
		  "7: error: the mode 'a\\x0ab' is not supported; allowed: tcp");
	expect_in(
		"backend",
		"mode 0123456789012345678901234567890123456789012345678901234567890123456789",
		"7: error: the mode '01234567890123456789012345678901234567890123456789012345678901"
		"2345...' is not supported; allowed: tcp");
}

static void misplaced_keywords_name_their_sections(void **state)
{
	static const char *const all[] = { "global", "defaults", "listen", "frontend", "backend" };
	static const struct {
		const char *line, *name, *where;
	} cases[] = {
		{ "ulimit-n 1", "ulimit-n", "global" },
		{ "nbthread 1", "nbthread", "global" },
		{ "daemon", "daemon", "global" },
		{ "master-worker", "master-worker", "global" },
		{ "pidfile /x", "pidfile", "global" },
		{ "log-tag x", "log-tag", "global" },
		{ "bpf-pin-path none", "bpf-pin-path", "global" },
		{ "splice auto", "splice", "global" },
		{ "nosplice", "nosplice", "global" },
		{ "tune.splice.limit 1m", "tune.splice.limit", "global" },
		{ "hard-stop-after 1", "hard-stop-after", "global" },
		{ "stats socket /x", "stats socket", "global" },
		{ "stats timeout 1", "stats timeout", "global" },
		{ "description x", "description", "global, listen, frontend or backend" },
		{ "mode tcp", "mode", "defaults, listen, frontend or backend" },
		{ "bind :7", "bind", "listen or frontend" },
		{ "default_backend b", "default_backend", "defaults or frontend" },
		{ "balance roundrobin", "balance", "defaults, listen or backend" },
		{ "server z 127.0.0.1:7", "server", "listen or backend" },
		{ "maxconn 1", "maxconn", "global, defaults, listen or frontend" },
		{ "backlog 1", "backlog", "defaults, listen or frontend" },
		{ "retries 1", "retries", "defaults, listen or backend" },
		{ "disabled", "disabled", "defaults, listen, frontend or backend" },
		{ "enabled", "enabled", "defaults, listen, frontend or backend" },
		{ "timeout connect 1", "timeout connect", "defaults, listen or backend" },
		{ "timeout client 1", "timeout client", "defaults, listen or frontend" },
		{ "timeout server 1", "timeout server", "defaults, listen or backend" },
		{ "timeout client-fin 1", "timeout client-fin", "defaults, listen or frontend" },
		{ "timeout server-fin 1", "timeout server-fin", "defaults, listen or backend" },
		{ "timeout tunnel 1", "timeout tunnel", "defaults, listen or backend" },
		{ "timeout queue 1", "timeout queue", "defaults, listen or backend" },
		{ "option redispatch", "option redispatch", "defaults, listen or backend" },
		{ "option tcplog", "option tcplog", "defaults, listen or frontend" },
		{ "option dontlognull", "option dontlognull", "defaults, listen or frontend" },
		{ "option clitcpka", "option clitcpka", "defaults, listen or frontend" },
		{ "option srvtcpka", "option srvtcpka", "defaults, listen or backend" },
	};
	char wanted[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		snprintf(wanted, sizeof(wanted),
			 "2: error: %s is not allowed in this section; it belongs in %s",
			 cases[i].name, cases[i].where);
		for (size_t j = 0; j < ARRAY_SIZE(all); j++) {
			bool allowed = strstr(cases[i].where, all[j]);

			/* `disabled` would leave nothing to listen on */
			if (!allowed || strcmp(cases[i].line, "disabled"))
				expect_in(all[j], cases[i].line, allowed ? "" : wanted);
		}
	}
	expect_in("global", "no option tcplog",
		  "5: error: option tcplog is not allowed in this section; it belongs in defaults, "
		  "listen or frontend");
	expect_in(
		"global", "option xyzzy",
		"2: error: option is not allowed in this section; it belongs in defaults, listen, "
		"frontend or backend");
	expect_in_proxies("stats enable",
			  "2: error: stats is not allowed in this section; it belongs in global");
	expect_in("global", "log global",
		  "6: error: 'log global' is for defaults, listen, frontend or backend; write: log "
		  "global|TARGET [format raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]");
	expect_in("global", "no log",
		  "2: error: 'no log' is for defaults, listen, frontend or backend");
}

static void missing_words_are_told_with_the_usage(void **state)
{
	(void)state;
	expect_in("global", "maxconn", "2: error: maxconn: a word is missing; write: maxconn N");
	expect_in("global", "splice",
		  "2: error: splice: a word is missing; write: splice auto|require");
	expect_in("global", "stats",
		  "2: error: stats: a word is missing; allowed after it: socket, timeout");
	expect_in(
		"global", "stats socket",
		"2: error: stats socket: a word is missing; write: stats socket PATH [mode OCTAL] "
		"[level user|operator|admin]");
	expect_in("global", "stats socket /x mode",
		  "18: error: stats socket: a word is missing after mode; write: stats socket PATH "
		  "[mode OCTAL] [level user|operator|admin]");
	expect_in("backend", "timeout connect",
		  "2: error: timeout connect: a word is missing; write: timeout connect TIME");
	expect_in("frontend", "timeout",
		  "2: error: timeout: a word is missing; allowed after it: client, client-fin");
	expect_in("backend", "server",
		  "2: error: server: a word is missing; write: server NAME ADDRESS:PORT [weight N] "
		  "[maxconn N] [disabled]");
	expect_in("backend", "server a",
		  "2: error: server: a word is missing; write: server NAME ADDRESS:PORT [weight N] "
		  "[maxconn N] [disabled]");
	expect_in("backend", "server a 1.2.3.4:5 weight",
		  "21: error: server: a number is missing after weight");
	expect_in("frontend", "bind",
		  "2: error: bind: a word is missing; write: bind ADDRESS:PORT[,ADDRESS:PORT...]");
	expect_in_proxies(
		"no", "2: error: a word is missing after 'no'; write: no option NAME, or no log");
	expect_in_proxies("log stdout",
			  "2: error: log: a word is missing; write: log global|TARGET [format "
			  "raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]");
	expect_in_proxies("log stdout format",
			  "2: error: log: a word is missing; write: log global|TARGET [format "
			  "raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]");
	expect_in_proxies("log stdout format raw",
			  "2: error: log: a word is missing; write: log global|TARGET [format "
			  "raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]");
}

static void superfluous_words_are_refused(void **state)
{
	(void)state;
	expect_in("global", "maxconn 1  2",
		  "13: error: maxconn: '2' is too much; write: maxconn N");
	expect_in("global", "daemon x", "9: error: daemon: 'x' is too much; write: daemon");
	expect_in("backend", "timeout connect 1 s",
		  "20: error: timeout connect: 's' is too much; write: timeout connect TIME");
	expect_in("frontend", "no option tcplog x",
		  "19: error: no option tcplog: 'x' is too much; write: no option tcplog");
	expect_in("backend", "no option redispatch 1",
		  "23: error: no option redispatch: '1' is too much; write: no option redispatch");
	expect_in("frontend", "log global x", "13: error: 'log global' takes no more words");
	expect_in("frontend", "log stdout local0 info debug",
		  "25: error: log: 'debug' is too much; write: log global|TARGET [format "
		  "raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]");
	expect_in_proxies("no mode tcp",
			  "2: error: 'no' does not go with mode; write: no option NAME, or no log");
	expect_messages("global x\ndefaults a b\n" LISTEN,
			"f:1:8: error: global: 'x' is too much; write: global\n"
			"f:2:12: error: defaults: 'b' is too much; write: defaults [NAME]\n");
}

static void numbers_out_of_range_are_refused(void **state)
{
	(void)state;
	expect_in("global", "nbthread 0",
		  "11: error: nbthread takes a number from 1 to 64, not '0'");
	expect_in("global", "nbthread 65",
		  "11: error: nbthread takes a number from 1 to 64, not '65'");
	expect_in("global", "maxconn -1",
		  "10: error: maxconn takes a number from 0 to 10000000, not '-1'");
	expect_in("global", "maxconn 10000001",
		  "10: error: maxconn takes a number from 0 to 10000000, not '10000001'");
	expect_in(
		"global", "maxconn 18446744073709551617",
		"10: error: maxconn takes a number from 0 to 10000000, not '18446744073709551617'");
	expect_in("global", "maxconn 1k",
		  "10: error: maxconn takes a number from 0 to 10000000, not '1k'");
	expect_in("global", "maxconn ''",
		  "10: error: maxconn takes a number from 0 to 10000000, not ''");
	expect_in("global", "ulimit-n x",
		  "11: error: ulimit-n takes a number from 0 to 1073741824, not 'x'");
	expect_in("backend", "retries 101",
		  "10: error: retries takes a number from 0 to 100, not '101'");
	expect_in("frontend", "backlog 1.5",
		  "10: error: backlog takes a number from 0 to 10000000, not '1.5'");
	expect_in("backend", "server a 1.2.3.4:5 weight 257",
		  "28: error: weight takes a number from 0 to 256, not '257'");
	expect_in("backend", "server a 1.2.3.4:5 maxconn x",
		  "29: error: maxconn takes a number from 0 to 10000000, not 'x'");
	expect_in("backend", "option redispatch 101",
		  "20: error: option redispatch takes a number from -100 to 100, not '101'");
	expect_in("backend", "option redispatch --1",
		  "20: error: option redispatch takes a number from -100 to 100, not '--1'");
}

static void times_out_of_range_are_refused(void **state)
{
	(void)state;
	expect_in("defaults", "timeout client 24d", "");
	expect_in("defaults", "timeout client 2073600000", "");
	expect_in("defaults", "timeout client 2073600000000us",
		  "17: error: timeout client takes at most 24d, not '2073600000000us'");
	expect_in("defaults", "timeout client 2073600001",
		  "17: error: timeout client takes at most 24d, not '2073600001'");
	expect_in("defaults", "timeout client 25d",
		  "17: error: timeout client takes at most 24d, not '25d'");
	expect_in("defaults", "timeout client 99999999999999999999d",
		  "17: error: timeout client takes at most 24d, not '99999999999999999999d'");
	expect_in("defaults", "timeout client 5x",
		  "17: error: timeout client takes a time, a number with us, ms, s, m, h or d (ms "
		  "without), not '5x'");
	expect_in("defaults", "timeout client s",
		  "17: error: timeout client takes a time, a number with us, ms, s, m, h or d (ms "
		  "without), not 's'");
	expect_in("defaults", "timeout client 1.5s",
		  "17: error: timeout client takes a time, a number with us, ms, s, m, h or d (ms "
		  "without), not '1.5s'");
	expect_in("global", "hard-stop-after -1",
		  "18: error: hard-stop-after takes a time, a number with us, ms, s, m, h or d (ms "
		  "without), not '-1'");
	expect_in("global", "stats timeout x",
		  "16: error: stats timeout takes a time, a number with us, ms, s, m, h or d (ms "
		  "without), not 'x'");
	expect_in(
		"defaults", "timeout connect 0",
		"18: error: timeout connect must not be 0: a server that does not answer would be "
		"waited for without end");
	expect_in("defaults", "timeout client 0", "");
}

static void sizes_take_units_and_have_limits(void **state)
{
	static const char *const good[] = { "4k", "4096", "64m", "67108864", "5000" };
	static const char *const bad[] = { "4095",	 "3k", "65m",
					   "1g",	 "5t", "4kb",
					   "k",		 "",   "99999999999999999999",
					   "4294967296g" };
	char line[100], wanted[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(line, sizeof(line), "tune.splice.limit %s", good[i]);
		expect_in("global", line, "");
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(line, sizeof(line), "tune.splice.limit '%s'", bad[i]);
		snprintf(
			wanted, sizeof(wanted),
			"20: error: tune.splice.limit takes a size from 4k to 65536k (units: k, m, "
			"g), not '%s'",
			bad[i]);
		expect_in("global", line, wanted);
	}
}

static void strings_of_global_are_checked(void **state)
{
	char line[400];

	(void)state;
	expect_in("global", "pidfile ''", "10: error: the pid file has 1 to 255 bytes, not 0");
	expect_in("global", "pidfile a\\nb",
		  "10: error: the pid file must not hold control bytes: 'a\\x0ab'");
	snprintf(line, sizeof(line), "pidfile /%0255d", 0);
	expect_in("global", line, "10: error: the pid file has 1 to 255 bytes, not 256");
	expect_in("global", "log-tag 'a b'",
		  "10: error: the log tag takes printable ASCII without spaces, not 'a b'");
	expect_in("global", "log-tag 123456789012345678901234567890123",
		  "10: error: the log tag has 1 to 32 bytes, not 33");
	expect_in("global", "bpf-pin-path x",
		  "15: error: bpf-pin-path takes 'none' or a path that begins with '/', not 'x'");
	snprintf(line, sizeof(line), "bpf-pin-path /%0199d", 0);
	expect_in("global", line, "15: error: the pin path has 1 to 199 bytes, not 200");
	expect_in("global", "splice maybe",
		  "9: error: unknown splice 'maybe'; allowed: auto require");
}

static void users_groups_and_the_root_directory_are_checked(void **state)
{
	static const struct {
		const char *line, *wanted;
	} bad[] = {
		{ "user nobody-of-that-name", "f:2:7: error: there is no user 'nobody-of-that-name' on this machine" },
		{ "group nobody-of-that-name", "f:2:8: error: there is no group 'nobody-of-that-name' on this machine" },
		{ "chroot /no/such/folder", "f:2:9: error: chroot '/no/such/folder': No such file or directory" },
		{ "chroot /etc/passwd", "f:2:9: error: chroot '/etc/passwd': this is no folder" },
		{ "chroot etc", "f:2:9: error: chroot takes a folder that begins with '/', not 'etc'" },
		{ "uid root", "f:2:6: error: uid takes a number from 0 to 4294967294, not 'root'" },
		{ "gid -1", "f:2:6: error: gid takes a number from 0 to 4294967294, not '-1'" },
		{ "uid 4294967295", "f:2:6: error: uid takes a number from 0 to 4294967294, not '4294967295'" },
	};
	char line[400];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct config *c = config_new(CONFIG_RESOLVE);

		snprintf(line, sizeof(line), "global\n %s\n" LISTEN, bad[i].line);
		assert_int_equal(config_parse(c, "f", line, strlen(line)), 0);
		assert_int_equal(config_finish(c), -EINVAL);
		assert_int_equal(c->nr_errors, 1);
		assert_string_equal(config_error_format(&c->errors[0], line, sizeof(line)), bad[i].wanted);
		config_free(c);
	}
	/* where nothing may be asked, names are not known */
	expect_in("global", "user root", "7: error: there is no user 'root' on this machine");
	expect_in("global", "group root", "8: error: there is no group 'root' on this machine");
}

/* Who names a user means his group as well, and not the one of whoever starts the daemon. */
static void user_brings_its_group_unless_that_is_given(void **state)
{
	static const struct {
		const char *lines;
		unsigned int uid, gid;
	} good[] = {
		{ "", CONFIG_NO_ID, CONFIG_NO_ID },
		{ " user nobody\n", 65534, 65534 },
		{ " user nobody\n group root\n", 65534, 0 },
		{ " gid 7\n user nobody\n", 65534, 7 },
		{ " uid 5\n gid 4294967294\n", 5, 4294967294 },
		{ " user nobody\n uid 5\n", 5, CONFIG_NO_ID },
		{ " uid 5\n user nobody\n", 65534, 65534 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct config *c = config_new(CONFIG_RESOLVE);
		char text[400];

		snprintf(text, sizeof(text), "global\n chroot /etc\n noseccomp\n%s" LISTEN, good[i].lines);
		assert_int_equal(config_parse(c, "f", text, strlen(text)), 0);
		assert_int_equal(config_finish(c), 0);
		assert_int_equal(c->global.uid, good[i].uid);
		assert_int_equal(c->global.gid, good[i].gid);
		assert_string_equal(c->global.chroot, "/etc");
		assert_true(c->global.no_seccomp);
		config_free(c);
	}
}

static void splice_require_and_nosplice_contradict(void **state)
{
	(void)state;
	expect_messages("global\n nosplice\n splice require\n" LISTEN,
			"f:3:2: error: 'splice require' and 'nosplice' (in line 2) contradict each "
			"other\n");
}

static void stats_sockets_are_checked(void **state)
{
	(void)state;
	expect_in("global", "stats socket ipv4@127.0.0.1:99",
		  "15: error: the stats socket must be a path with a '/', not 'ipv4@127.0.0.1:99'");
	expect_in("global", "stats socket x",
		  "15: error: the stats socket must be a path with a '/', not 'x'");
	expect_in("global", "stats socket fd@/x",
		  "15: error: the stats socket must be a path with a '/', not 'fd@/x'");
	expect_in("global", "stats socket /x mode 888",
		  "23: error: mode takes an octal number from 0 to 777, not '888'");
	expect_in("global", "stats socket /x mode 1000",
		  "23: error: mode takes an octal number from 0 to 777, not '1000'");
	expect_in("global", "stats socket /x level root",
		  "24: error: unknown level 'root'; allowed: user operator admin");
	expect_in("global", "stats socket /x expose-fd listeners",
		  "18: error: stats socket: 'expose-fd' is not supported; write: stats socket PATH "
		  "[mode OCTAL] [level user|operator|admin]");
	expect_messages("global\n stats socket /x\n stats socket /y\n stats socket /x\n" LISTEN,
			"f:4:15: error: the stats socket '/x' is already there\n");
}

static void log_lines_are_checked(void **state)
{
	(void)state;
	expect_in("global", "log here local0",
		  "6: error: 'here:514': this is not an address; allowed: stdout, stderr, /PATH, "
		  "ADDRESS or ADDRESS:PORT");
	expect_in("global", "log 1.2.3.4:99999 local0",
		  "6: error: '1.2.3.4:99999': a port is a number from 1 to 65535; allowed: stdout, "
		  "stderr, /PATH, ADDRESS or ADDRESS:PORT");
	expect_in(
		"global", "log ring@x local0",
		"6: error: 'ring@x:514': only the prefixes ipv4@ and ipv6@ are supported; allowed: "
		"stdout, stderr, /PATH, ADDRESS or ADDRESS:PORT");
	expect_in("backend", "log /dev/log local8",
		  "15: error: unknown log facility 'local8'; allowed: kern user mail daemon auth "
		  "syslog lpr news uucp cron auth2 ftp ntp audit alert cron2 local0 local1 local2 "
		  "local3 local4 local5 local6 local7");
	expect_in(
		"backend", "log /dev/log local0 loud",
		"22: error: unknown log level 'loud'; allowed: emerg alert crit err warning notice "
		"info debug");
	expect_in("backend", "log /dev/log format xml local0",
		  "22: error: unknown log format 'xml'; allowed: raw rfc3164 rfc5424");
	expect_in("backend", "log /dev/log len 80 local0",
		  "15: error: log: 'len' is not supported; write: log global|TARGET [format "
		  "raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]");
	expect_in("global",
		  "log /123456789012345678901234567890123456789012345678901234567890123456789012345"
		  "67890123456789012345678901234567 local0",
		  "6: error: the log socket has 1 to 107 bytes, not 108");
}

static void modes_and_algorithms_other_than_ours_are_refused(void **state)
{
	(void)state;
	expect_in_proxies("mode http", "7: error: the mode 'http' is not supported; allowed: tcp");
	expect_in("backend", "balance leastconn",
		  "10: error: unknown balance algorithm 'leastconn'; allowed: roundrobin");
	expect_in_proxies("no option tcpka",
			  "2: error: 'no option tcpka' is not supported: keepalive is always on");
}

static void bind_addresses_are_checked(void **state)
{
	static const struct {
		const char *address, *why;
	} cases[] = {
		{ "1.2.3.4:80-90", "port ranges are not supported" },
		{ "/run/x.sock", "unix sockets are not supported" },
		{ "unix@x", "unix sockets are not supported" },
		{ "abns@x", "unix sockets are not supported" },
		{ "fd@3", "only the prefixes ipv4@ and ipv6@ are supported" },
		{ "quic4@:443", "only the prefixes ipv4@ and ipv6@ are supported" },
		{ "1.2.3.4", "the port is missing" },
		{ "1.2.3.4:", "the port is missing" },
		{ "*", "the port is missing" },
		{ ":0", "a port is a number from 1 to 65535" },
		{ ":65536", "a port is a number from 1 to 65535" },
		{ "[::1]", "the port is missing" },
		{ ":http", "a port is a number from 1 to 65535" },
		{ "localhost:80", "this is not an address" },
		{ "1.2.3:80", "this is not an address" },
		{ "''", "this is not an address" },
	};
	char line[100], wanted[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool empty = cases[i].address[0] == '\'';

		snprintf(line, sizeof(line), "bind %s", cases[i].address);
		snprintf(wanted, sizeof(wanted),
			 "7: error: '%s': %s; allowed: ADDRESS:PORT, *:PORT or :PORT",
			 empty ? "" : cases[i].address, cases[i].why);
		expect_in("frontend", line, wanted);
	}
	expect_in("frontend", "bind :7,",
		  "7: error: '': this is not an address; allowed: ADDRESS:PORT, "
		  "*:PORT or :PORT");
	expect_in("frontend", "bind :7 ssl crt /x",
		  "10: error: bind: 'ssl' is not supported; write: bind "
		  "ADDRESS:PORT[,ADDRESS:PORT...]");
}

static void an_address_is_bound_once(void **state)
{
	(void)state;
	expect_in("frontend", "bind :7,:7",
		  "7: error: 0.0.0.0:7 is already bound by the frontend section 'x', in 'f':2");
	expect_messages("frontend x\n bind :1\n default_backend l\n" LISTEN,
			"f:5:7: error: 0.0.0.0:1 is already bound by the frontend section 'x', in "
			"'f':2\n");
	/* a section that is disabled binds nothing */
	expect_messages("listen m\n disabled\n bind :1\n" LISTEN, "");
	expect_messages(LISTEN "listen m\n disabled\n bind :1\n", "");
}

static void servers_are_checked(void **state)
{
	(void)state;
	expect_in("backend", "server a 1.2.3.4",
		  "11: error: '1.2.3.4': the port is missing; allowed: ADDRESS:PORT");
	expect_in("backend", "server a *:80",
		  "11: error: '*:80': this is not an address; allowed: ADDRESS:PORT");
	expect_in("backend", "server a 0.0.0.0:80",
		  "11: error: '0.0.0.0:80': a server needs an address of its own");
	expect_in("backend", "server a [::]:80",
		  "11: error: '[::]:80': a server needs an address of its own");
	expect_in("backend", "server a 1.2.3.4:+80",
		  "11: error: '1.2.3.4:+80': relative ports are not supported; allowed: "
		  "ADDRESS:PORT");
	expect_in("backend", "server a/b 1.2.3.4:80",
		  "9: error: the name 'a/b': a name has 1 to 63 letters, digits, '_', '.', ':' or "
		  "'-'");
	expect_in("backend", "server a 1.2.3.4:80 check inter 2s",
		  "22: error: server: 'check' is not supported; allowed: weight N, maxconn N, "
		  "disabled");
	expect_in("backend", "server a 1.2.3.4:80 backup",
		  "22: error: server: 'backup' is not supported; allowed: weight N, maxconn N, "
		  "disabled");
	expect_in("backend", "server a 1.2.3.4:80 wieght 2",
		  "22: error: server: 'wieght' is not supported, did you mean weight; allowed: "
		  "weight "
		  "N, maxconn N, disabled");
}

static void names_are_checked(void **state)
{
	(void)state;
	expect_messages("listen\n bind :2\n server s 127.0.0.1:1\n",
			"f:1:1: error: listen: a word is missing; write: listen NAME\n");
	expect_messages(
		"listen a/b\n bind :2\n server s 127.0.0.1:1\n",
		"f:1:8: error: the name 'a/b': a name has 1 to 63 letters, digits, '_', '.', "
		"':' or '-'\n");
	expect_messages(
		"listen ''\n bind :2\n server s 127.0.0.1:1\n",
		"f:1:8: error: the name '': a name has 1 to 63 letters, digits, '_', '.', ':' "
		"or '-'\n");
	expect_messages("listen Az09_.:-\n bind :2\n server s 127.0.0.1:1\n", "");
	expect_messages("listen 123456789012345678901234567890123456789012345678901234567890123\n"
			" bind :2\n server s 127.0.0.1:1\n",
			"");
	expect_messages(
		"listen 1234567890123456789012345678901234567890123456789012345678901234\n"
		" bind :2\n server s 127.0.0.1:1\n",
		"f:1:8: error: the name "
		"'1234567890123456789012345678901234567890123456789012345678901234': a name "
		"has 1 to 63 letters, digits, '_', '.', ':' or '-'\n");
	expect_messages(
		"defaults a/b\n" LISTEN,
		"f:1:10: error: the name 'a/b': a name has 1 to 63 letters, digits, '_', '.', "
		"':' or '-'\n");
	expect_in(
		"frontend", "default_backend ''",
		"18: error: the name '': a name has 1 to 63 letters, digits, '_', '.', ':' or '-'");
}

static void names_are_taken_once_per_side(void **state)
{
	(void)state;
	expect_messages(
		"frontend l\n bind :2\n default_backend l\n" LISTEN,
		"f:4:8: error: the name 'l' is taken by the frontend section of 'f':1; only a "
		"frontend and a backend may share a name\n");
	expect_messages(
		BACKEND BACKEND LISTEN,
		"f:3:9: error: the name 'b' is taken by the backend section of 'f':1; only a "
		"frontend and a backend may share a name\n");
	expect_messages(
		LISTEN "backend l\n server s 127.0.0.1:1\n",
		"f:4:9: error: the name 'l' is taken by the listen section of 'f':1; only a "
		"frontend and a backend may share a name\n");
	expect_messages("frontend b\n bind :2\n default_backend b\n" BACKEND, "");
	expect_messages(
		LISTEN " server t 127.0.0.1:1\n server s 127.0.0.1:2\n",
		"f:5:9: error: the server 's' is already there, in line 3; names must differ "
		"within a backend\n");
}

static void a_section_line_takes_a_name_only(void **state)
{
	(void)state;
	expect_messages(
		"listen l 1.2.3.4:80\n bind :2\n server s 127.0.0.1:1\n",
		"f:1:10: error: listen: '1.2.3.4:80' is too much; write the address in a line "
		"of its own: bind ADDRESS:PORT\n");
	expect_messages(LISTEN "backend b from x\n server s 127.0.0.1:1\n",
			"f:4:11: error: backend: 'from' is too much; write: backend NAME\n");
}

static void foreign_sections_are_refused_once(void **state)
{
	(void)state;
	expect_messages(LISTEN "peers p\n peer a 1.2.3.4:5\n mode http\n" BACKEND " mode http\n",
			"f:4:1: error: the section 'peers' is not supported; allowed: global, "
			"defaults, listen, frontend, backend\n"
			"f:9:7: error: the mode 'http' is not supported; allowed: tcp\n");
}

static void a_misspelt_section_does_not_put_its_lines_into_the_one_before(void **state)
{
	(void)state;
	expect_messages(BACKEND "fronted web\n bind :80\n default_backend b\n",
			"f:3:1: error: unknown keyword 'fronted'; did you mean 'frontend'?\n");
	expect_messages(BACKEND "listen \"web\n bind :80\n",
			"f:3:8: error: the quote \" is not closed in this line\n");
}

static void a_frontend_needs_bind_and_backend(void **state)
{
	(void)state;
	expect_messages("frontend x\n bind :2\n" BACKEND,
			"f:1:10: error: the frontend 'x' needs a default_backend\n");
	expect_messages("frontend x\n default_backend b\n" BACKEND,
			"f:1:10: error: the frontend section 'x' needs a bind\n");
	expect_messages("listen x\n server s 127.0.0.1:1\n",
			"f:1:8: error: the listen section 'x' needs a bind\n");
	/* a line with a mistake is not a missing line as well */
	expect_messages(
		"frontend x\n bind 1\n default_backend /\n" BACKEND,
		"f:2:7: error: '1': the port is missing; allowed: ADDRESS:PORT, *:PORT or "
		":PORT\n"
		"f:3:18: error: the name '/': a name has 1 to 63 letters, digits, '_', '.', "
		"':' or '-'\n");
	/* a section that is disabled need not be complete */
	expect_messages("frontend x\n disabled\n" LISTEN, "");
}

static void a_default_backend_must_exist(void **state)
{
	(void)state;
	expect_messages("frontend x\n bind :2\n default_backend  far\n" BACKEND,
			"f:3:19: error: no backend or listen section is named 'far'\n");
	expect_messages("frontend x\n bind :2\n default_backend app\n"
			"backend ap\n server s 127.0.0.1:1\n",
			"f:3:18: error: no backend or listen section is named 'app'; did you mean "
			"'ap'?\n");
	expect_messages(
		"frontend x\n bind :2\n default_backend x\n" LISTEN,
		"f:3:18: error: no backend or listen section is named 'x'; did you mean 'l'?\n");
	/* a line of the defaults is reported once, where it is */
	expect_messages("defaults\n default_backend far\nfrontend x\n bind :2\nfrontend y\n"
			" bind :3\n" BACKEND,
			"f:2:18: error: no backend or listen section is named 'far'\n");
}

static void a_backend_that_cannot_serve_is_warned_about(void **state)
{
	struct config *c;

	(void)state;
	expect_messages("frontend x\n bind :2\n default_backend b\nbackend b\n",
			"f:4:9: warning: the backend section 'b' has no server: every session is "
			"refused\n");
	expect_messages("listen x\n bind :2\n",
			"f:1:8: warning: the listen section 'x' has no server: every session is "
			"refused\n");
	expect_messages("frontend x\n bind :2\n default_backend b\n" BACKEND " disabled\n",
			"f:3:18: warning: the backend 'b' is disabled: every session is refused\n");

	c = parse_only("listen x\n bind :2\n");
	assert_int_equal(config_finish(c), 0);
	assert_int_equal(c->nr_errors, 1);
	assert_int_equal(c->nr_fatal, 0);
	assert_true(c->errors[0].warning);
	config_free(c);
}

static void lines_that_cannot_be_cut_are_reported_in_place(void **state)
{
	char text[CONFIG_LINE_MAX + 400];
	struct config *c;

	(void)state;
	expect_in("frontend", "maxconn '1", "10: error: the quote ' is not closed in this line");
	expect_in(
		"frontend", "# \x01",
		"4: error: the control byte 0x01; text may hold printable bytes, spaces and tabs");

	c = config_new(0);
	assert_int_equal(config_parse(c, "f", "global\n dae\0mon\n", 16), 0);
	assert_int_equal(c->nr_errors, 1);
	assert_int_equal(c->errors[0].line, 2);
	assert_int_equal(c->errors[0].column, 5);
	config_free(c);

	snprintf(text, sizeof(text), "%s#%0*d\n maxconn x\n", LISTEN, CONFIG_LINE_MAX, 0);
	expect_messages(text,
			"f:4:2049: error: the line has 2049 bytes; 2048 are allowed\n"
			"f:5:10: error: maxconn takes a number from 0 to 10000000, not 'x'\n");
}

static void all_errors_come_in_one_run_in_the_order_of_the_text(void **state)
{
	(void)state;
	expect_messages(
		"global\n maxcon 1\nfrontend a\n default_backend x\nfrontend c\n bind :1\n"
		" bind :1\n mode http\n default_backend d\nbackend d\n",
		"f:2:2: error: unknown keyword 'maxcon'; did you mean 'maxconn'?\n"
		"f:3:10: error: the frontend section 'a' needs a bind\n"
		"f:4:18: error: no backend or listen section is named 'x'; did you mean 'd'?\n"
		"f:7:7: error: 0.0.0.0:1 is already bound by the frontend section 'c', in "
		"'f':6\n"
		"f:8:7: error: the mode 'http' is not supported; allowed: tcp\n"
		"f:10:9: warning: the backend section 'd' has no server: every session is "
		"refused\n");
}

/* Returns n lines of a format that takes one number, after a head. Free it. */
static char *many(const char *head, const char *format, unsigned int n)
{
	size_t size = strlen(head) + n * (strlen(format) + 10) + 1, len;
	char *text = malloc(size);

	assert_non_null(text);
	len = (size_t)sprintf(text, "%s", head);
	for (unsigned int i = 1; i <= n; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		len += (size_t)snprintf(text + len, size - len, format, i, i);
#pragma GCC diagnostic pop
	}
	return text;
}

static void errors_past_the_hundredth_are_counted(void **state)
{
	char *text = many(LISTEN, " oops%u\n", 150);
	struct config *c = parse_only(text);

	(void)state;
	assert_int_equal(config_finish(c), -EINVAL);
	assert_int_equal(c->nr_errors, CONFIG_ERRORS_MAX);
	assert_int_equal(c->nr_fatal, 150);
	assert_int_equal(c->errors[99].line, 103);
	config_free(c);
	free(text);
}

static void lists_have_limits(void **state)
{
	char *text;

	(void)state;
	text = many(LISTEN, " server x%u 127.0.0.1:1\n", 1000);
	expect_messages(text, "f:1003:2: error: more than 1000 servers in one backend\n");
	free(text);

	text = many("listen l\n server s 127.0.0.1:1\n", " bind :%u\n", 1001);
	expect_messages(text, "f:1003:7: error: ':1001': more than 1000 addresses to listen on\n");
	free(text);

	text = many(LISTEN, "backend b%u\n server s 127.0.0.1:1\n", 1000);
	expect_messages(text, "f:2002:1: error: more than 1000 sections\n");
	free(text);

	text = many(LISTEN, " log stdout local0 # %u\n", 17);
	expect_messages(text, "f:20:2: error: more than 16 log targets\n");
	free(text);

	text = many(LISTEN "global\n", " stats socket /%u\n", 17);
	expect_messages(text, "f:21:2: error: more than 16 stats sockets\n");
	free(text);
}

static void messages_are_formatted_and_cut_off(void **state)
{
	struct config_error e = { .file = "f", .line = 3, .column = 4, .text = "text" };
	char buf[64];

	(void)state;
	assert_string_equal(config_error_format(&e, buf, sizeof(buf)), "f:3:4: error: text");
	e.warning = true;
	assert_string_equal(config_error_format(&e, buf, sizeof(buf)), "f:3:4: warning: text");
	e.column = 0;
	assert_string_equal(config_error_format(&e, buf, sizeof(buf)), "f:3: warning: text");
	e.line = 0;
	assert_string_equal(config_error_format(&e, buf, sizeof(buf)), "f: warning: text");
	e.file = NULL;
	assert_string_equal(config_error_format(&e, buf, sizeof(buf)), "warning: text");
	assert_string_equal(config_error_format(&e, buf, 5), "warn");
}

/* ---- want of memory ---- */

/*
 * Our own malloc and calloc in front of libc's, so that the nth call can be made to fail. A
 * sanitizer brings its own; there the test is skipped.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAN_FAIL_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CAN_FAIL_MALLOC 0
#endif
#endif
#ifndef CAN_FAIL_MALLOC
#define CAN_FAIL_MALLOC 1
#endif

#if CAN_FAIL_MALLOC
static volatile unsigned int fail_in; /* 0: never */

static bool fails_now(void)
{
	return fail_in && !--fail_in;
}

void *malloc(size_t size)
{
	static void *(*next)(size_t);

	if (!next)
		next = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	return fails_now() ? NULL : next(size);
}

void *calloc(size_t nr, size_t size)
{
	static void *(*next)(size_t, size_t);

	if (!next)
		next = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
	return fails_now() ? NULL : next(nr, size);
}

static void every_allocation_may_fail(void **state)
{
	static const char text[] = "global\n log stdout local0\n stats socket /x\n"
				   "defaults\n log stdout local0\n log stderr local0\n"
				   "frontend f\n bind :1,:2\n default_backend b\n" BACKEND;
	void *volatile probe;
	unsigned int n;
	int r = -ENOMEM;

	(void)state;
	fail_in = 1;
	probe = malloc(1);
	fail_in = 0;
	free(probe);
	if (probe) {
		print_message("skipped: valgrind has an allocator of its own\n");
		skip();
	}
	for (n = 1; r == -ENOMEM && n < 100; n++) {
		struct config *c;

		fail_in = n;
		c = config_new(0);
		if (c)
			r = config_parse(c, "f", text, strlen(text));
		fail_in = 0;
		if (c)
			assert_int_equal(c->nr_errors, 0);
		if (c)
			config_finish(c);
		config_free(c);
	}
	assert_int_equal(r, 0);
	assert_true(n > 15);

	fail_in = 1;
	assert_null(config_builtin(NULL, 0, NULL, 0));
	fail_in = 0;
}
#else
static void every_allocation_may_fail(void **state)
{
	(void)state;
	print_message("skipped: a sanitizer has an allocator of its own\n");
	skip();
}
#endif

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(words_are_cut_at_spaces_and_tabs),
		cmocka_unit_test(a_hash_outside_quotes_begins_a_comment),
		cmocka_unit_test(strong_quotes_keep_every_byte),
		cmocka_unit_test(weak_quotes_keep_all_but_escapes),
		cmocka_unit_test(escapes_are_haproxys),
		cmocka_unit_test(a_word_knows_its_column),
		cmocka_unit_test(the_longest_line_and_the_most_words_fit),
		cmocka_unit_test(bad_quoting_is_refused_where_it_begins),
		cmocka_unit_test(control_bytes_are_refused_even_in_comments),
		cmocka_unit_test(a_new_configuration_has_the_defaults),
		cmocka_unit_test(master_worker_is_asked_for_or_refused),
		cmocka_unit_test(every_global_keyword_is_taken),
		cmocka_unit_test(a_later_line_replaces_an_earlier_one),
		cmocka_unit_test(nosplice_turns_every_direction_off),
		cmocka_unit_test(stats_sockets_are_collected),
		cmocka_unit_test(log_targets_of_every_kind_are_taken),
		cmocka_unit_test(every_proxy_keyword_is_taken),
		cmocka_unit_test(options_can_be_taken_back),
		cmocka_unit_test(redispatch_takes_haproxys_numbers),
		cmocka_unit_test(a_frontend_finds_its_backend),
		cmocka_unit_test(a_section_starts_with_the_last_defaults_before_it),
		cmocka_unit_test(a_sections_own_log_lines_come_after_the_inherited_ones),
		cmocka_unit_test(a_listen_section_is_its_own_backend_whatever_the_defaults_say),
		cmocka_unit_test(splicing_follows_the_options),
		cmocka_unit_test(several_files_make_one_configuration),
		cmocka_unit_test(a_file_may_end_in_crlf_lines_or_without_newline),
		cmocka_unit_test(quoted_words_are_words),
		cmocka_unit_test(the_builtin_text_is_a_configuration),
		cmocka_unit_test(a_builtin_argument_cannot_smuggle_in_lines),
		cmocka_unit_test(an_empty_configuration_has_nothing_to_listen_on),
		cmocka_unit_test(a_keyword_before_any_section_is_refused),
		cmocka_unit_test(unknown_keywords_name_the_nearest_one),
		cmocka_unit_test(unknown_keywords_without_a_near_one_list_what_is_allowed),
		cmocka_unit_test(words_that_are_no_text_are_printed_escaped),
		cmocka_unit_test(misplaced_keywords_name_their_sections),
		cmocka_unit_test(missing_words_are_told_with_the_usage),
		cmocka_unit_test(superfluous_words_are_refused),
		cmocka_unit_test(numbers_out_of_range_are_refused),
		cmocka_unit_test(times_out_of_range_are_refused),
		cmocka_unit_test(sizes_take_units_and_have_limits),
		cmocka_unit_test(strings_of_global_are_checked),
		cmocka_unit_test(users_groups_and_the_root_directory_are_checked),
		cmocka_unit_test(user_brings_its_group_unless_that_is_given),
		cmocka_unit_test(splice_require_and_nosplice_contradict),
		cmocka_unit_test(stats_sockets_are_checked),
		cmocka_unit_test(log_lines_are_checked),
		cmocka_unit_test(modes_and_algorithms_other_than_ours_are_refused),
		cmocka_unit_test(bind_addresses_are_checked),
		cmocka_unit_test(an_address_is_bound_once),
		cmocka_unit_test(servers_are_checked),
		cmocka_unit_test(names_are_checked),
		cmocka_unit_test(names_are_taken_once_per_side),
		cmocka_unit_test(a_section_line_takes_a_name_only),
		cmocka_unit_test(foreign_sections_are_refused_once),
		cmocka_unit_test(a_misspelt_section_does_not_put_its_lines_into_the_one_before),
		cmocka_unit_test(a_frontend_needs_bind_and_backend),
		cmocka_unit_test(a_default_backend_must_exist),
		cmocka_unit_test(a_backend_that_cannot_serve_is_warned_about),
		cmocka_unit_test(lines_that_cannot_be_cut_are_reported_in_place),
		cmocka_unit_test(all_errors_come_in_one_run_in_the_order_of_the_text),
		cmocka_unit_test(errors_past_the_hundredth_are_counted),
		cmocka_unit_test(lists_have_limits),
		cmocka_unit_test(messages_are_formatted_and_cut_off),
		cmocka_unit_test(every_allocation_may_fail),
	};

	return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
