/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config.h - the configuration as data: text in, struct or errors out.
 *
 * The dialect is HAProxy's, restricted to `mode tcp` and what shunt does. The parser is pure: it
 * opens no file, no socket, and logs nothing; names are looked up only when the caller asks for it.
 * A struct config is never changed after config_finish(): run-time state (weights, server states,
 * counters) lives in pool and stats.
 *
 * Where a line says again what an earlier line of the same section said, the later one counts, as
 * in HAProxy; `bind`, `server`, `log` and `stats socket` lines add up. What HAProxy ignores with a
 * warning (a keyword in a section that has no use for it) is an error here, and so is every word of
 * HAProxy's that shunt does not implement: nothing in the text is silently without effect, but for
 * `description` and the three keepalive options (keepalive is always on).
 */
#ifndef SHUNT_CONFIG_H
#define SHUNT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "addr.h"
#include "list.h"

#define CONFIG_NAME_MAX 64	  /* bytes of a proxy's or a server's name, NUL included */
#define CONFIG_WEIGHT_MAX 256	  /* as in HAProxy */
#define CONFIG_ERRORS_MAX 100	  /* errors reported of one run; the rest is counted */
#define CONFIG_PROXIES_MAX 1000	  /* sections, the defaults not counted */
#define CONFIG_SERVERS_MAX 1000	  /* of one backend */
#define CONFIG_BINDS_MAX 1000	  /* of all frontends together */
#define CONFIG_LOGS_MAX 16	  /* log targets of one section, inherited ones included */
#define CONFIG_STATS_MAX 16	  /* stats sockets */
#define CONFIG_CONNS_MAX 10000000 /* the largest maxconn */
#define CONFIG_NO_ID UINT32_MAX	  /* no user, no group */
#define CONFIG_TIME_MAX_MS (24u * 24 * 3600 * 1000) /* the longest time: 24 days */

/* A place in the text. */
struct config_at {
	const char *file;	   /* owned by struct config; NULL = nowhere */
	unsigned int line, column; /* from 1; 0 = the whole file, the whole line */
};

/*
 * Who moves the bytes of one direction. The text decides per direction (request: client to server,
 * response: server to client), from the last word that this section or its defaults said:
 *
 *   `option splice-request`       the request direction is SPLICE_ON
 *   `no option splice-request`    the request direction is SPLICE_OFF
 *   neither, `option splice-auto`       SPLICE_AUTO
 *   neither, `no option splice-auto`    SPLICE_OFF
 *   neither, and nothing about auto     SPLICE_OFF if the other direction is SPLICE_ON, since who
 *                                       names one direction means that one; SPLICE_AUTO if not
 *
 * and the same for splice-response. `nosplice` in global makes all of them SPLICE_OFF.
 */
enum splice_mode {
	SPLICE_OFF,  /* userspace moves every byte */
	SPLICE_AUTO, /* shunt chooses, per flow */
	SPLICE_ON,   /* this direction belongs to the kernel */
};

enum log_target_kind { LOG_TARGET_STDOUT, LOG_TARGET_STDERR, LOG_TARGET_UDP, LOG_TARGET_UNIX };
enum log_format { LOG_FORMAT_RAW, LOG_FORMAT_RFC3164, LOG_FORMAT_RFC5424 };

struct log_target {
	struct list entry; /* in config_global.log_targets or config_proxy.log_targets */
	enum log_target_kind kind;
	enum log_format format; /* default: raw for stdout and stderr, rfc3164 for the others */
	struct addr addr;	/* LOG_TARGET_UDP; port 514 unless given */
	char path[108];		/* LOG_TARGET_UNIX */
	int facility;		/* LOG_LOCAL0 >> 3 and so on, 0 to 23; raw ignores it */
	int max_level;		/* LOG_DEBUG (7) unless given: messages above it are left out */
};

enum stats_level { STATS_LEVEL_USER, STATS_LEVEL_OPERATOR, STATS_LEVEL_ADMIN };

struct config_stats {
	struct list entry; /* in config_global.stats */
	char path[108];
	mode_t mode;		/* default 0660 */
	enum stats_level level; /* default operator */
};

/* Is there a supervisor, which keeps the sessions when the worker dies? */
enum supervision {
	SUPERVISION_AUTO, /* where it is possible */
	SUPERVISION_ON,	  /* or no start */
	SUPERVISION_OFF,
};

struct config_global {
	unsigned int maxconn;		 /* 0: derive it from the descriptor limit */
	unsigned int ulimit_n;		 /* 0: derive it from maxconn */
	unsigned int nbthread;		 /* 0: as many as the cores that it may use */
	bool daemon;			 /* `daemon` or -D */
	enum supervision supervision;	 /* `master-worker` or -W, `no master-worker` or -db */
	char pidfile[256];		 /* "" = none */
	unsigned int uid, gid;		 /* `user`, `group`, `uid`, `gid`; CONFIG_NO_ID = as it was started */
	char chroot[256];		 /* "" = none */
	bool no_seccomp;		 /* `noseccomp` */
	char log_tag[33];		 /* "shunt" */
	char pin_path[200];		 /* "/sys/fs/bpf/shunt"; "" for `bpf-pin-path none` */
	bool splice_require;		 /* `splice require`: no start without the kernel path */
	bool splice_none;		 /* `nosplice`; config_finish() made all modes SPLICE_OFF */
	uint64_t splice_limit;		 /* tune.splice.limit, bytes; 2m; 4k to 64m */
	uint64_t splice_budget;		 /* tune.splice.budget, bytes; 0: a quarter of the memory, at most 1g */
	unsigned int stats_timeout_ms;	 /* `stats timeout`, 10 s; 0 = never */
	unsigned int hard_stop_after_ms; /* 0 = never */
	struct list log_targets;	 /* of struct log_target */
	struct list stats;		 /* of struct config_stats */
};

/* Timeouts in ms; 0 = none (HAProxy's "not set": infinite). */
struct config_timeouts {
	unsigned int connect; /* never 0; 5 s: an endless connect serves nobody */
	unsigned int client, server, client_fin, server_fin, tunnel;
	unsigned int queue; /* 0: as connect */
};

struct config_bind {
	struct list entry; /* in config_proxy.binds */
	struct addr addr;
	unsigned int line, column; /* in the proxy's file */
};

struct config_server {
	struct list entry; /* in config_proxy.servers */
	char name[CONFIG_NAME_MAX];
	struct addr addr;
	unsigned int weight;	   /* 0 to 256; 1 unless given; 0 = gets no new session */
	unsigned int maxconn;	   /* 0 = no limit */
	bool disabled;		   /* starts in maintenance */
	unsigned int id;	   /* 1, 2, ... in the order of the file: the CSV's sid */
	unsigned int line, column; /* in the proxy's file */
};

enum { PROXY_FRONTEND = 1, PROXY_BACKEND = 2 }; /* `listen` is both */

enum balance_algo { BALANCE_ROUNDROBIN };

struct config_proxy {
	struct list entry; /* in config.proxies */
	char name[CONFIG_NAME_MAX];
	unsigned int caps; /* PROXY_FRONTEND | PROXY_BACKEND */
	unsigned int id;   /* 1, 2, ... in the order of the file: the CSV's iid */
	bool disabled;
	const char *file;	   /* owned by struct config */
	unsigned int line, column; /* of its name */
	unsigned int said;	   /* the parser's own: keywords that were there, right or wrong */

	/* frontend side */
	struct list binds; /* of struct config_bind */
	unsigned int nr_binds;
	unsigned int maxconn; /* 0 = the global one */
	unsigned int backlog; /* 0 = 4096; the kernel cuts it to net.core.somaxconn */
	char default_backend[CONFIG_NAME_MAX]; /* "" = none; a listen section is its own */
	struct config_at default_backend_at;   /* where that was said: maybe in the defaults */
	struct config_proxy *backend; /* set by config_finish(); maybe disabled or serverless */
	bool tcplog;		      /* option tcplog */
	bool dontlognull;	      /* option dontlognull: no line if the client sent no byte */
	bool log_global;	      /* `log global` */
	struct list log_targets;      /* of struct log_target: its own and its defaults' */

	/* backend side */
	enum balance_algo balance;
	struct list servers; /* of struct config_server */
	unsigned int nr_servers;
	unsigned int retries; /* 3; 0 to 100 */
	bool redispatch;      /* true unless `no option redispatch` or `option redispatch 0` */
	/*
	 * `option redispatch N`, as in HAProxy: with N > 0 every Nth retry goes to another server,
	 * with N < 0 only the -Nth from the last. Not 0. Unlike HAProxy's, the default is 1: a client
	 * is better served at once by another server than a second later by the one that refused.
	 */
	int redispatch_interval;

	/* both; in a session, client-side values are the frontend's, server-side the backend's */
	struct config_timeouts timeout;
	enum splice_mode splice_request;  /* client to server */
	enum splice_mode splice_response; /* server to client */
};

/* One message about the text. */
struct config_error {
	const char *file;	   /* owned by struct config; NULL if there was no file at all */
	unsigned int line, column; /* from 1; 0 = the whole file */
	bool warning;		   /* true: the configuration is usable all the same */
	char text[256]; /* what is wrong, and what is allowed there; printable ASCII, one line */
};

struct config {
	struct config_global global;
	struct list proxies; /* of struct config_proxy */
	unsigned int nr_proxies;
	struct config_error *errors; /* owned; in the order of the text */
	size_t nr_errors; /* in errors[]: errors and warnings, at most CONFIG_ERRORS_MAX */
	size_t nr_fatal;  /* how many errors there were in all, warnings not counted */
	struct config_state *state; /* the parser's own: file names, the defaults section; opaque */
};

enum config_flags {
	/*
	 * Ask the system: look names up (of hosts, users, groups), and whether the chroot is there. Without it (tests) a name is an error.
	 */
	CONFIG_RESOLVE = 1,
};

/* Makes an empty configuration with all defaults. Returns NULL without memory. */
struct config *config_new(unsigned int flags);

/* Frees it; accepts NULL, returns NULL. */
struct config *config_free(struct config *c);

/*
 * Parses one file's text (len bytes, which need not end in NUL or newline and may hold anything)
 * and adds what it says. May be called several times, before config_finish(): a section goes on
 * being open only to the end of its file; `defaults` stays in force. file names it in messages (it
 * is copied). Returns 0 or -ENOMEM; what is wrong with the text is in c->errors.
 */
int config_parse(struct config *c, const char *file, const char *text, size_t len);

/*
 * Call once, after the last text: resolves default_backend, checks what only the whole can show (a
 * frontend without bind or backend, two binds at one address, a backend without servers as a
 * warning), and puts the errors into the order of the text. A disabled section may be incomplete.
 * Returns 0 if the configuration is usable, -EINVAL if c->nr_fatal > 0.
 */
int config_finish(struct config *c);

/*
 * Builds the text of the built-in configuration for `--listen A [--listen B] --server C
 * [--server D]`, to be given to config_parse() (so that there is one way in): a listen section
 * "shunt" with servers s1, s2, ... The arguments may hold anything; what is wrong with them is
 * found by config_parse(). Returns a string to free(), or NULL without memory.
 */
char *config_builtin(const char *const *listens, size_t nr_listens, const char *const *servers,
		     size_t nr_servers);

/*
 * "file:line:column: error: text" (or "warning:"), into buf, cut off if it is too small; returns
 * buf. A column or line of 0 is left out, and so is a file of NULL.
 */
const char *config_error_format(const struct config_error *e, char *buf, size_t size);

#endif
