/* SPDX-License-Identifier: GPL-2.0-or-later */
/* load.c - see load.h: the command line, two tables. */
#include "load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

/* The tables and the text are laid out by hand. */
/* clang-format off */

static const char usage_text[] =
"usage: load MODE [OPTIONS]\n"
"\n"
"The load generator of the bench. Addresses are 192.0.2.1:80; numbers take k, m, g (1024).\n"
"A client prints one line of name=value, which begins with status=ok, or with status=failed or\n"
"status=wrong (bytes) and ends with reason=... Exit status: 0, 1 failed, 2 usage, 3 wrong bytes.\n"
"\n"
"  server    --listen A [--fault F]   serves all clients; prints \"ready\"; runs until killed\n"
"  download  --connect A [--rate N]   N bytes/s by the server, for each connection\n"
"  upload    --connect A --control A  counted by the server, asked at the control address\n"
"  limited   --connect A --rate N     reads N bytes/s from a server that sends as fast as it can\n"
"  echo      --connect A --size N     one message on its way for each connection\n"
"  mixed     echo --then bulk\n"
"  stopped   echo --then readers\n"
"  connect   --connect A [--reset]    connects, 32 bytes each way, closes; --connections at a time\n"
"  idle      --connect A              memory of connections that do nothing\n"
"  verify    --connect A --bytes N [--fault F]    downloads, uploads, echoes; checks every byte\n"
"  selftest                           would verify find wrong bytes?\n"
"  delay     --interfaces A,B --delay-ms N        carries frames between two interfaces, later\n"
"\n"
"  --connections N   (1)              --warmup-ms N (500)  --window-ms N (3000): measured\n"
"  --watch PID,PID   balancer's processes: memory and context switches are theirs\n"
"  --then WHAT       a second window of --then-ms (--window-ms), in which\n"
"     sigstop        the watched processes are stopped\n"
"     bulk           --others N downloads go on beside (--rate bytes/s each), from --bulk A\n"
"     readers        --others N connections to --bulk A ask for a download and never read\n"
"  --fault F         corrupt, lost, repeated, swapped, cut, longer: one in each verified stream\n";

static const struct {
	const char *name;
	int (*run)(const struct options *o);
	enum then then;		/* what the name implies */
	bool sampled;
} modes[] = {
	{ "server", mode_server, THEN_NOTHING, false },
	{ "download", mode_download, THEN_NOTHING, true },
	{ "upload", mode_upload, THEN_NOTHING, true },
	{ "limited", mode_limited, THEN_NOTHING, true },
	{ "echo", mode_echo, THEN_NOTHING, true },
	{ "mixed", mode_echo, THEN_BULK, true },
	{ "stopped", mode_echo, THEN_READERS, true },
	{ "connect", mode_connect, THEN_NOTHING, true },
	{ "idle", mode_idle, THEN_NOTHING, true },
	{ "verify", mode_verify, THEN_NOTHING, false },
	{ "selftest", mode_selftest, THEN_NOTHING, false },
	{ "delay", mode_delay, THEN_NOTHING, false },
};

#define AT(field) offsetof(struct options, field)

static const struct {
	const char *name;
	enum { FLAG, NUMBER, ADDR, PIDS, THEN, FAULT, PAIR } kind;
	size_t at;
} options_known[] = {
	{ "--listen", ADDR, AT(listen) },
	{ "--connect", ADDR, AT(connect) },
	{ "--control", ADDR, AT(control) },
	{ "--bulk", ADDR, AT(bulk) },
	{ "--connections", NUMBER, AT(connections) },
	{ "--warmup-ms", NUMBER, AT(warmup_ms) },
	{ "--window-ms", NUMBER, AT(window_ms) },
	{ "--then-ms", NUMBER, AT(then_ms) },
	{ "--size", NUMBER, AT(size) },
	{ "--bytes", NUMBER, AT(bytes) },
	{ "--rate", NUMBER, AT(rate) },
	{ "--others", NUMBER, AT(others) },
	{ "--delay-ms", NUMBER, AT(delay_ms) },
	{ "--watch", PIDS, 0 },
	{ "--interfaces", PAIR, 0 },
	{ "--then", THEN, AT(then) },
	{ "--fault", FAULT, AT(fault) },
	{ "--reset", FLAG, AT(reset) },
};

/* clang-format on */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void __attribute__((noreturn)) bad(const char *what, const char *which)
{
	fprintf(stderr, "load: %s: %s (load -h shows everything)\n", which, what);
	exit(EXIT_USAGE);
}

static uint64_t number(const char *name, const char *text)
{
	unsigned long long n;
	unsigned int shift;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	shift = *end == 'k' ? 10 : *end == 'm' ? 20 : *end == 'g' ? 30 : 0;
	if (errno || end == text || *text == '-' || end[!!shift] || n > UINT64_MAX >> shift)
		bad("not a number", name);
	return n << shift;
}

static void watched(struct options *o, char *text)
{
	for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		if (o->nr_watched == WATCHED_MAX)
			bad("too many processes", "--watch");
		o->watched[o->nr_watched++] = (int)number("--watch", word);
	}
}

static enum then then_named(const char *name)
{
	for (enum then t = THEN_NOTHING; t < THEN_MAX; t++) {
		if (!strcmp(then_name(t), name))
			return t;
	}
	bad("not known", name);
}

static enum fault fault_named(const char *name)
{
	for (enum fault f = FAULT_NONE; f < FAULT_MAX; f++) {
		if (!strcmp(fault_name(f), name))
			return f;
	}
	bad("not known", name);
}

static void set_option(struct options *o, size_t i, char *value)
{
	void *at = (char *)o + options_known[i].at;

	switch (options_known[i].kind) {
	case FLAG:
		*(bool *)at = true;
		break;
	case NUMBER:
		*(uint64_t *)at = number(options_known[i].name, value);
		break;
	case ADDR:
		if (addr_parse(at, value))
			bad("not an address with a port", value);
		break;
	case PIDS:
		watched(o, value);
		break;
	case THEN:
		*(enum then *)at = then_named(value);
		break;
	case FAULT:
		*(enum fault *)at = fault_named(value);
		break;
	case PAIR:
		o->interfaces[0] = strtok(value, ",");
		o->interfaces[1] = strtok(NULL, ",");
		if (!o->interfaces[1])
			bad("takes two names", options_known[i].name);
		break;
	}
}

static void parse(struct options *o, char **argv)
{
	for (; *argv; argv++) {
		size_t i = 0;

		while (i < COUNT(options_known) && strcmp(options_known[i].name, *argv))
			i++;
		if (i == COUNT(options_known))
			bad("not an option", *argv);
		if (options_known[i].kind != FLAG && !argv[1])
			bad("a value is missing", *argv);
		set_option(o, i, options_known[i].kind == FLAG ? NULL : *++argv);
	}
	if (!o->then_ms)
		o->then_ms = o->window_ms;
	if (!o->bulk.len)
		o->bulk = o->connect;
}

int main(int argc, char **argv)
{
	struct options o = {.connections = 1, .warmup_ms = 500, .window_ms = 3000};

	if (argc < 2 || !strcmp(argv[1], "-h") || !strcmp(argv[1], "--help")) {
		fputs(usage_text, argc < 2 ? stderr : stdout);
		return argc < 2 ? EXIT_USAGE : 0;
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1000);
	for (size_t i = 0; i < COUNT(modes); i++) {
		if (strcmp(modes[i].name, argv[1]))
			continue;
		o.mode = modes[i].name;
		o.then = modes[i].then;
		parse(&o, argv + 2);
		raise_nofile();
		loop_init();
		if (modes[i].sampled)
			sample_start(&o);
		return modes[i].run(&o);
	}
	bad("not a mode", argv[1]);
}
