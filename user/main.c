/* SPDX-License-Identifier: GPL-2.0-or-later */
/* main.c - arguments, configuration, exit status. No policy. */
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/utsname.h>
#include <bpf/libbpf_version.h>

#include "config.h"
#include "fdtable.h"
#include "handover.h"
#include "lb.h"
#include "log.h"
#include "run.h"
#include "upgrade.h"
#include "util.h"

#define MAX_ARGS 64	      /* of each of -f, --listen and --server */
#define CONFIG_SIZE_MAX (16 * 1024 * 1024)

enum { EXIT_USAGE = 2 };

struct args {
	const char *files[MAX_ARGS], *listens[MAX_ARGS], *servers[MAX_ARGS];
	size_t nr_files, nr_listens, nr_servers;
	const char *pidfile;
	bool check, daemon, foreground, quiet, verbose;
	enum supervision supervision;
	unsigned int version, debug;
};

static void usage(FILE *to)
{
	fputs("Usage: shunt -f FILE [-f FILE ...] [-c] [-d | -db] [-D] [-p PIDFILE] [-q] [-V] [-W]\n"
	      "       shunt --listen ADDR:PORT [--listen ...] --server ADDR:PORT [--server ...] [-d | -db]\n"
	      "\n"
	      "  -f FILE             read this configuration (HAProxy's dialect); several are read in order\n"
	      "  -c                  check the configuration and exit: 0 if it is valid, else 1\n"
	      "  --listen ADDR:PORT  without a file: accept clients here\n"
	      "  --server ADDR:PORT  without a file: balance them over these servers, round robin\n"
	      "  -d                  debug messages, in the foreground\n"
	      "  -db                 in the foreground, and without a supervisor\n"
	      "  -D                  run in the background, once everything is ready\n"
	      "  -p PIDFILE          write the process's number there\n"
	      "  -q                  no messages but alerts\n"
	      "  -V                  say more while starting\n"
	      "  -W                  no start without a supervisor (when the worker dies, another one takes its sessions\n"
	      "                      over; there is one by default where the kernel allows that)\n"
	      "  -v, -vv             version; how it was built and what it runs on\n"
	      "  -h                  this help\n"
	      "\n"
	      "Signals: TERM and USR1 stop accepting and end with the last session (or after hard-stop-after),\n"
	      "INT resets all sessions and ends, HUP logs the state of the servers. USR2 starts the program and the\n"
	      "configuration anew, and no session notices (with a supervisor).\n",
	      to);
}

static void print_version(unsigned int level)
{
	struct utsname u;

	printf("shunt version %s\n", SHUNT_VERSION);
	if (level < 2)
		return;
	printf("Built with: " __VERSION__ ", libbpf headers %d.%d, flow contract %d\n", LIBBPF_MAJOR_VERSION,
	       LIBBPF_MINOR_VERSION, SHUNT_ABI_VERSION);
	if (uname(&u) == 0)
		printf("Running on: %s %s %s\n", u.sysname, u.release, u.machine);
	printf("Kernel types (BTF): %s\n",
	       access("/sys/kernel/btf/vmlinux", R_OK) == 0 ? "yes" : "no: userspace relay only");
	printf("Balancing: roundrobin. Modes: tcp.\n");
}

/* Takes one argument into a list. Returns false when the list is full. */
static bool add_arg(const char **list, size_t *nr, const char *what, const char *value)
{
	if (*nr == MAX_ARGS) {
		fprintf(stderr, "shunt: more than %d times %s\n", MAX_ARGS, what);
		return false;
	}
	list[(*nr)++] = value;
	return true;
}

/* Returns -1 to go on, or the exit status. */
static int parse_args(struct args *a, int argc, char **argv)
{
	static const struct option options[] = {
		{ "listen", required_argument, NULL, 'L' },
		{ "server", required_argument, NULL, 'S' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	bool ok = true;
	int c;

	while ((c = getopt_long(argc, argv, "f:cdbDp:qVvhW", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			ok = ok && add_arg(a->files, &a->nr_files, "-f", optarg);
			break;
		case 'L':
			ok = ok && add_arg(a->listens, &a->nr_listens, "--listen", optarg);
			break;
		case 'S':
			ok = ok && add_arg(a->servers, &a->nr_servers, "--server", optarg);
			break;
		case 'c':
			a->check = true;
			break;
		case 'd':
			a->debug++;
			break;
		case 'b': /* of -db, as HAProxy spells it: that d says nothing by itself */
			if (!a->debug--) {
				usage(stderr);
				return EXIT_USAGE;
			}
			a->foreground = true;
			a->supervision = SUPERVISION_OFF;
			break;
		case 'D':
			a->daemon = true;
			break;
		case 'p':
			a->pidfile = optarg;
			break;
		case 'q':
			a->quiet = true;
			break;
		case 'V':
			a->verbose = true;
			break;
		case 'W':
			a->supervision = SUPERVISION_ON;
			break;
		case 'v':
			a->version++;
			break;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (!ok)
		return EXIT_USAGE;
	if (a->version) {
		print_version(a->version);
		return EXIT_SUCCESS;
	}
	if (optind < argc) {
		fprintf(stderr, "shunt: unexpected argument '%s' (a configuration file is given with -f)\n", argv[optind]);
		return EXIT_USAGE;
	}
	if (a->nr_files && (a->nr_listens || a->nr_servers)) {
		fprintf(stderr, "shunt: give either -f or --listen and --server, not both\n");
		return EXIT_USAGE;
	}
	if (!a->nr_files && (!a->nr_listens || !a->nr_servers)) {
		fprintf(stderr, "shunt: nothing to do: give -f FILE, or both --listen and --server\n");
		usage(stderr);
		return EXIT_USAGE;
	}
	return -1;
}

/* ---- configuration ---- */

static int read_file(const char *path, char **ret, size_t *ret_len)
{
	__cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	__cleanup_free char *text = NULL;
	size_t len = 0, size = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		if (len == size) {
			char *more;

			size = size ? size * 2 : 16384;
			if (size > CONFIG_SIZE_MAX)
				return -EFBIG;
			more = realloc(text, size);
			if (!more)
				return -ENOMEM;
			text = more;
		}
		n = read(fd, text + len, size - len);
		if (n < 0 && errno != EINTR)
			return -errno;
		len += n > 0 ? (size_t)n : 0;
	} while (n != 0);
	*ret = take_ptr(&text);
	*ret_len = len;
	return 0;
}

static int load_config(struct config *c, const struct args *a)
{
	int r = 0;

	for (size_t i = 0; i < a->nr_files; i++) {
		__cleanup_free char *text = NULL;
		size_t len = 0;

		r = read_file(a->files[i], &text, &len);
		if (r < 0) {
			log_alert("cannot read configuration file %s: %s", a->files[i], strerror(-r));
			return r;
		}
		r = config_parse(c, a->files[i], text, len);
		if (r < 0)
			return r;
	}
	if (!a->nr_files) {
		__cleanup_free char *text = config_builtin(a->listens, a->nr_listens, a->servers, a->nr_servers);

		r = text ? config_parse(c, "command line", text, strlen(text)) : -ENOMEM;
		if (r < 0)
			return r;
	}
	r = config_finish(c);
	for (size_t i = 0; i < c->nr_errors; i++) {
		char line[512];

		config_error_format(&c->errors[i], line, sizeof(line));
		log_message(c->errors[i].warning ? LOG_WARNING : LOG_ALERT, "%s", line);
	}
	if (r == -EINVAL)
		log_alert("%zu error%s in the configuration", c->nr_fatal, c->nr_fatal == 1 ? "" : "s");
	return r;
}

static int message_level(const struct args *a)
{
	return a->debug ? LOG_DEBUG : a->quiet ? LOG_ALERT : a->verbose ? LOG_INFO : LOG_NOTICE;
}

/* What an earlier program has left us. */
static int inherit(void)
{
	int r = handover_read();

	if (r < 0)
		log_alert("cannot take over: what the running shunt says makes no sense: %s", strerror(-r));
	return r;
}

/* May this program take over? */
static int try(const struct config *c)
{
	if (c->global.supervision != SUPERVISION_OFF)
		return lb_try(c);
	log_alert("cannot take over: the running shunt has a supervisor and this one would have none (-db, no master-worker): that needs a restart");
	return -EPROTO;
}

int main(int argc, char **argv)
{
	struct args a = { 0 };
	struct config *c;
	int r;

	r = parse_args(&a, argc, argv);
	if (r >= 0)
		return r;
	if (inherit() < 0)
		return EXIT_FAILURE;
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC); /* what whoever started us left open */
	log_setup(message_level(&a), true);
	c = config_new(CONFIG_RESOLVE);
	if (!c) {
		log_alert("no memory");
		return EXIT_FAILURE;
	}
	r = load_config(c, &a);
	c->global.daemon = (c->global.daemon || a.daemon) && !a.debug && !a.foreground;
	if (a.supervision != SUPERVISION_AUTO)
		c->global.supervision = a.supervision;
	if (r == 0 && a.check)
		puts("Configuration file is valid");
	else if (r == 0 && handover_kind() == HANDOVER_TRIAL)
		r = try(c);
	else if (r == 0)
		r = run(c, &(struct run_options){ a.pidfile, message_level(&a), argv });
	config_free(c);
	handover_done();
	upgrade_forget();
	fdtable_done();
	log_setup(LOG_ALERT, false); /* closes its descriptor */
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
