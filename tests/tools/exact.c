/*
 * exact: the load and exactness checker of the test rings. This file is its command line: a table
 * of options and a table of modes. See exact.h for what the other files do.
 *
 * Exit status: 0 everything was right, 1 something was not, 2 the command line was wrong.
 */
#include "exact.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The tables and the text are laid out by hand. */
/* clang-format off */

static const char usage_text[] =
"usage: exact MODE [OPTIONS]\n"
"\n"
"Plays clients and servers on both sides of a TCP proxy and checks every byte. Addresses are\n"
"1.2.3.4:80 or [::1]:80; --listen and --connect may be given up to 16 times. Numbers take k, m,\n"
"g (1024). Modes that listen print \"ready\", run until SIGTERM or SIGINT, then print counters.\n"
"\n"
"Random sessions, checked at both ends, with half-closes, slow readers and resets:\n"
"  serve   --listen A [--stats FILE] [--server-first] [--strict-empty] [--forgive-resets] [--timeout SEC]\n"
"          [--grace SEC] [--rcvbuf N] [-v]\n"
"  drive   --connect A [--sessions N] [--concurrency N] [--seed N] [--max-bytes N] [--slow PCT]\n"
"          [--reset PCT] [--delays PCT] [--timeout SEC] [--half-close-only | --no-half-close]\n"
"          [--server-first] [-v]\n"
"Bulk:\n"
"  source  --listen A --bytes N [--stats FILE]     sends N bytes to everyone, then closes\n"
"  fetch   --connect A --bytes N [--connections N] [--rate BYTES_PER_SEC] [--rcvbuf N]\n"
"          [--pause-after BYTES --pause-ms MS] [--timeout SEC]      checks what source sends\n"
"  sink    --listen A [--verify] [--pause-after BYTES --pause-ms MS] [--rcvbuf N] [--stats FILE]\n"
"  push    --connect A --bytes N [--connections N] [--rate BYTES_PER_SEC] [--no-answer]\n"
"          [--timeout SEC]     for sink --verify; for a plain sink with --no-answer\n"
"Round trips:\n"
"  echo    --listen A [--stats FILE]\n"
"  ping    --connect A [--size N] [--count N] [--connections N] [--interval-us N] [--warmup N]\n"
"          [--timeout SEC]     --count round trips on each connection\n"
"  hold    --connect A [--connections N] [--seconds N] [--timeout SEC]\n"
"          opens them, echoes a byte on each, says \"holding\", waits, echoes again, closes\n"
"\n"
"  --timeout SEC      give up on a connection that has not moved for so long (30; serve: never)\n"
"  --grace SEC        what is open at SIGTERM may still finish for so long (2)\n"
"  --server-first     the server sends a fixed banner before it reads (say it at both ends)\n"
"  --unchecked        source, fetch, push: count bytes only (to measure speed, not exactness)\n"
"  --forgive-resets   a session that is reset without a plan is counted, and no error\n"
"  --strict-empty     a connection that ends before its first byte is an error\n"
"  --half-close-only  in every session one end waits for the other's end of stream; no resets\n"
"  --no-half-close    both ends close only after everything has arrived\n";

static const struct {
	const char *name;
	int (*run)(const struct options *o);
	char letter;		/* in the table of options */
	bool listens;
} modes[] = {
	{ "serve", mode_serve, 'S', true },
	{ "drive", mode_drive, 'D', false },
	{ "sink", mode_sink, 'K', true },
	{ "source", mode_source, 'O', true },
	{ "fetch", mode_fetch, 'F', false },
	{ "push", mode_push, 'P', false },
	{ "echo", mode_echo, 'E', true },
	{ "ping", mode_ping, 'I', false },
	{ "hold", mode_hold, 'H', false },
};

enum kind { FLAG, NUMBER, TEXT, ADDRS };

#define AT(field) offsetof(struct options, field)

static const struct {
	const char *name;
	enum kind kind;
	size_t at;
	const char *modes;	/* letters of those that know it */
	uint64_t min, max;
} options[] = {
	{ "--listen", ADDRS, AT(listen), "SKOE", 0, 0 },
	{ "--connect", ADDRS, AT(connect), "DFPIH", 0, 0 },
	{ "--stats", TEXT, AT(stats), "SKOE", 0, 0 },
	{ "--sessions", NUMBER, AT(sessions), "D", 1, UINT32_MAX },
	{ "--concurrency", NUMBER, AT(concurrency), "D", 1, 1 << 20 },
	{ "--seed", NUMBER, AT(seed), "D", 0, UINT64_MAX },
	{ "--max-bytes", NUMBER, AT(max_bytes), "D", 0, 1ULL << 40 },
	{ "--slow", NUMBER, AT(slow_pct), "D", 0, 100 },
	{ "--reset", NUMBER, AT(reset_pct), "D", 0, 100 },
	{ "--delays", NUMBER, AT(delay_pct), "D", 0, 100 },
	{ "--timeout", NUMBER, AT(timeout_s), "SDFPIH", 1, 1 << 20 },
	{ "--grace", NUMBER, AT(grace_s), "S", 0, 1 << 20 },
	{ "--half-close-only", FLAG, AT(half_close_only), "D", 0, 0 },
	{ "--no-half-close", FLAG, AT(no_half_close), "D", 0, 0 },
	{ "--server-first", FLAG, AT(server_first), "SD", 0, 0 },
	{ "--strict-empty", FLAG, AT(strict_empty), "S", 0, 0 },
	{ "--forgive-resets", FLAG, AT(forgive_resets), "SD", 0, 0 },
	{ "--bytes", NUMBER, AT(bytes), "OFP", 0, 1ULL << 60 },
	{ "--rate", NUMBER, AT(rate), "FP", 1, 1ULL << 40 },
	{ "--rcvbuf", NUMBER, AT(rcvbuf), "SKF", 1, 1 << 30 },
	{ "--connections", NUMBER, AT(connections), "FPIH", 1, 1 << 20 },
	{ "--pause-after", NUMBER, AT(pause_after), "KF", 0, 1ULL << 60 },
	{ "--pause-ms", NUMBER, AT(pause_ms), "KF", 0, 1ULL << 32 },
	{ "--size", NUMBER, AT(size), "I", 1, 1 << 30 },
	{ "--count", NUMBER, AT(count), "I", 1, 1 << 30 },
	{ "--warmup", NUMBER, AT(warmup), "I", 0, 1 << 30 },
	{ "--interval-us", NUMBER, AT(interval_us), "I", 0, 1 << 30 },
	{ "--seconds", NUMBER, AT(seconds), "H", 0, 1 << 20 },
	{ "--verify", FLAG, AT(verify), "K", 0, 0 },
	{ "--no-answer", FLAG, AT(no_answer), "P", 0, 0 },
	{ "--unchecked", FLAG, AT(unchecked), "OFP", 0, 0 },
	{ "-v", FLAG, AT(verbose), "SD", 0, 0 },
};

/* clang-format on */

static void __attribute__((noreturn)) bad(const char *what, const char *which)
{
	fprintf(stderr, "exact: %s: %s (exact -h shows everything)\n", which, what);
	exit(2);
}

static uint64_t parse_number(const char *name, const char *text, uint64_t min, uint64_t max)
{
	static const char units[] = "kmg";
	const char *unit;
	uint64_t v, factor = 1;
	char *end;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || end == text || *text < '0' || *text > '9')
		bad("not a number", name);
	if (*end) {
		unit = strchr(units, *end | 0x20);
		if (!unit || end[1])
			bad("not a number", name);
		factor = 1ULL << 10 * (unit - units + 1);
	}
	if (v > max / factor || v * factor < min)
		bad("out of range", name);
	return v * factor;
}

static void parse_option(struct options *o, size_t n, const char *value)
{
	uint8_t *at = (uint8_t *)o + options[n].at;
	struct addr_list *list = (struct addr_list *)at;

	switch (options[n].kind) {
	case FLAG:
		*(bool *)at = true;
		break;
	case NUMBER:
		*(uint64_t *)at =
			parse_number(options[n].name, value, options[n].min, options[n].max);
		break;
	case TEXT:
		*(const char **)at = value;
		break;
	case ADDRS:
		if (list->count == MAX_ADDRS)
			bad("too many addresses", options[n].name);
		if (addr_parse(&list->at[list->count++], value) < 0)
			bad("not an address", value);
		break;
	}
}

int main(int argc, char **argv)
{
	struct options o = {
		.sessions = 1000,
		.concurrency = 64,
		.seed = 1,
		.max_bytes = 4 << 20,
		.slow_pct = 10,
		.reset_pct = 10,
		.delay_pct = 10,
		.grace_s = 2,
		.connections = 1,
		.size = 64,
		.count = 1000,
		.seconds = 1,
	};
	size_t m, n;
	int i;

	for (i = 1; i < argc; i++) {
		if (strcmp(argv[i], "-h") && strcmp(argv[i], "--help"))
			continue;
		fputs(usage_text, stdout);
		return 0;
	}
	if (argc < 2)
		bad("which mode?", "usage");
	for (m = 0; m < sizeof(modes) / sizeof(*modes); m++)
		if (!strcmp(argv[1], modes[m].name))
			break;
	if (m == sizeof(modes) / sizeof(*modes))
		bad("no such mode", argv[1]);
	o.mode = modes[m].name;
	if (!modes[m].listens)
		o.timeout_s = 30;
	for (i = 2; i < argc; i++) {
		for (n = 0; n < sizeof(options) / sizeof(*options); n++)
			if (!strcmp(argv[i], options[n].name))
				break;
		if (n == sizeof(options) / sizeof(*options) ||
		    !strchr(options[n].modes, modes[m].letter))
			bad("no such option in this mode", argv[i]);
		if (options[n].kind != FLAG && i + 1 == argc)
			bad("value missing", argv[i]);
		parse_option(&o, n, options[n].kind == FLAG ? NULL : argv[++i]);
	}
	if (modes[m].listens ? !o.listen.count : !o.connect.count)
		bad("address missing", modes[m].listens ? "--listen" : "--connect");
	if (o.half_close_only && o.no_half_close)
		bad("not together with --half-close-only", "--no-half-close");
	raise_nofile();
	return modes[m].run(&o);
}
