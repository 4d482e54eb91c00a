/* SPDX-License-Identifier: GPL-2.0-or-later */
/* main.c - arguments, configuration, build, run, exit status. No policy. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <bpf/libbpf_version.h>

#include "config.h"
#include "fdtable.h"
#include "lb.h"
#include "log.h"
#include "supervisor.h"
#include "util.h"

#define MAX_ARGS 64	      /* of each of -f, --listen and --server */
#define CONFIG_SIZE_MAX (16 * 1024 * 1024)

enum { EXIT_USAGE = 2 };

struct args {
	const char *files[MAX_ARGS], *listens[MAX_ARGS], *servers[MAX_ARGS];
	size_t nr_files, nr_listens, nr_servers;
	const char *pidfile;
	bool check, debug, daemon, quiet, supervised, verbose;
	unsigned int version;
};

static void usage(FILE *to)
{
	fputs("Usage: shunt -f FILE [-f FILE ...] [-c] [-d] [-D] [-p PIDFILE] [-q] [-V] [-W]\n"
	      "       shunt --listen ADDR:PORT [--listen ...] --server ADDR:PORT [--server ...] [-d]\n"
	      "\n"
	      "  -f FILE             read this configuration (HAProxy's dialect); several are read in order\n"
	      "  -c                  check the configuration and exit: 0 if it is valid, else 1\n"
	      "  --listen ADDR:PORT  without a file: accept clients here\n"
	      "  --server ADDR:PORT  without a file: balance them over these servers, round robin\n"
	      "  -d                  debug messages\n"
	      "  -D                  run in the background, once everything is ready\n"
	      "  -p PIDFILE          write the process's number there\n"
	      "  -q                  no messages but alerts\n"
	      "  -V                  say more while starting\n"
	      "  -W                  with a supervisor: when the worker dies, another one takes its sessions over\n"
	      "  -v, -vv             version; how it was built and what it runs on\n"
	      "  -h                  this help\n"
	      "\n"
	      "Signals: TERM and USR1 stop accepting and end with the last session (or after hard-stop-after),\n"
	      "INT resets all sessions and ends, HUP logs the state of the servers.\n",
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

	while ((c = getopt_long(argc, argv, "f:cdDp:qVvhW", options, NULL)) != -1) {
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
			a->debug = true;
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
			a->supervised = true;
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

/* ---- background ---- */

/*
 * Forks. The child goes on, with *ret_pipe to be told when it is ready; the parent waits for that, so that whoever started us
 * learns from the exit status whether the balancer runs.
 */
static int go_background(int *ret_pipe)
{
	int pipe_fds[2];
	pid_t pid;
	ssize_t n;
	char ready;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid > 0) {
		close(pipe_fds[1]);
		while ((n = read(pipe_fds[0], &ready, 1)) < 0 && errno == EINTR)
			;
		_exit(n == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
	}
	close(pipe_fds[0]);
	setsid();
	*ret_pipe = pipe_fds[1];
	return 0;
}

/* Lets go of the starter's terminal and folder. */
static void detach(int level)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	log_setup(level, false);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
	if (chdir("/") < 0)
		log_warning("background: %s", strerror(errno));
}

static void tell_starter(int pipe_fd)
{
	if (write(pipe_fd, "r", 1) != 1)
		log_warning("background: %s", strerror(errno));
	fdtable_drop(pipe_fd);
	close(pipe_fd);
}

/* As it is now: in the background the working directory is another. Empty stays empty. Returns NULL and errno. */
static char *absolute_path(const char *path)
{
	__cleanup_free char *folder = NULL;
	char *ret;

	if (!*path || *path == '/')
		return strdup(path);
	folder = getcwd(NULL, 0);
	return folder && asprintf(&ret, "%s/%s", folder, path) >= 0 ? ret : NULL;
}

static int write_pidfile(const char *path)
{
	char text[32];
	__cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	if (fd < 0 || write(fd, text, (size_t)len) != len) {
		int r = -errno;

		log_alert("cannot write pidfile %s: %s", path, strerror(-r));
		return r;
	}
	return 0;
}

static void say_ready(const struct lb *lb)
{
	char where[200] = "", text[ADDR_STRLEN];
	size_t len = 0;

	for (uint32_t i = 0; i < lb->nr_listeners && len < sizeof(where); i++) {
		const struct config_bind *b;
		const struct frontend *f = lb->listeners[i].frontend;

		if (i && lb->listeners[i - 1].frontend == f)
			continue;
		list_for_each(b, &f->conf->binds, entry) {
			if (len < sizeof(where))
				len += (size_t)snprintf(where + len, sizeof(where) - len, "%s%s", len ? ", " : "",
							addr_format(&b->addr, text));
		}
	}
	log_notice("ready: listening on %s%s; maxconn %u", where, len >= sizeof(where) ? "..." : "", lb->maxconn);
}

static int message_level(const struct args *a)
{
	return a->debug ? LOG_DEBUG : a->quiet ? LOG_ALERT : a->verbose ? LOG_INFO : LOG_NOTICE;
}

/* A run of the balancer, as the supervisor and its workers see it. */
struct run {
	struct lb *lb;
	bool daemon, supervised;
	int level;   /* of messages */
	int pipe_fd; /* to who started us in the background */
};

static int on_ready(void *arg)
{
	struct run *run = arg;

	if (run->daemon)
		tell_starter(run->pipe_fd);
	return 0;
}

static int work(void *arg, bool after)
{
	struct run *run = arg;
	struct lb *lb = run->lb;
	int r;

	r = lb_start(lb, after);
	if (r < 0)
		log_alert("cannot start: %s", strerror(-r));
	if (r == 0) {
		if (!after)
			say_ready(lb);
		if (run->daemon && !run->supervised) {
			detach(run->level);
			tell_starter(run->pipe_fd);
		}
		r = lb_run(lb);
		if (r < 0)
			log_alert("the event loop failed: %s", strerror(-r));
		if (r < 0 && run->supervised)
			_exit(EXIT_FAILURE); /* the next one has all that it had */
		if (r == 0)
			log_notice("stopped");
	}
	lb_finish(lb);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int supervise(struct run *run)
{
	struct supervised s = {
		.work = work,
		.ready = on_ready,
		.arg = run,
		.is_ready = &run->lb->ready,
		.beats = &run->lb->beats->at_ns,
		.nr_beats = run->lb->nr_threads,
		.stride = sizeof(*run->lb->beats),
	};

	lb_signals(&s.forward);
	pool_rest_sinks(run->lb->pool);
	return supervisor_run(&s);
}

static int run(const struct config *c, const struct args *a)
{
	const char *given = a->pidfile ?: c->global.pidfile;
	__cleanup_free char *pidfile = absolute_path(given);
	struct run run = { .daemon = c->global.daemon, .supervised = c->global.master_worker, .level = message_level(a), .pipe_fd = -1 };
	sigset_t set;
	int r;

	if (!pidfile) {
		log_alert("cannot find pidfile %s: %s", given, strerror(errno));
		return -errno;
	}
	if (run.daemon) {
		r = go_background(&run.pipe_fd);
		if (r < 0) {
			log_alert("cannot go into the background: %s", strerror(-r));
			return r;
		}
	}
	signal(SIGPIPE, SIG_IGN);
	lb_signals(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = lb_new(&run.lb, c, run.supervised);
	if (r < 0) {
		log_alert("cannot start: %s", strerror(-r));
		return r;
	}
	r = *pidfile ? write_pidfile(pidfile) : 0;
	if (r == 0) {
		if (run.daemon && run.supervised)
			detach(run.level); /* before there is anybody to share descriptors with */
		r = run.supervised ? supervise(&run) : work(&run, false);
		if (*pidfile)
			unlink(pidfile);
	}
	lb_free(run.lb);
	return r ? -EIO : 0;
}

int main(int argc, char **argv)
{
	struct args a = { 0 };
	struct config *c;
	int r;

	r = parse_args(&a, argc, argv);
	if (r >= 0)
		return r;
	log_setup(message_level(&a), true);
	c = config_new(CONFIG_RESOLVE);
	if (!c) {
		log_alert("no memory");
		return EXIT_FAILURE;
	}
	r = load_config(c, &a);
	c->global.daemon = (c->global.daemon || a.daemon) && !a.debug;
	c->global.master_worker = c->global.master_worker || a.supervised;
	if (r == 0 && a.check)
		puts("Configuration file is valid");
	else if (r == 0)
		r = run(c, &a);
	config_free(c);
	log_setup(LOG_ALERT, false); /* closes its descriptor */
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
