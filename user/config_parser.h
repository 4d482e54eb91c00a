/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config_parser.h - what the parts of the configuration parser share; nobody else includes it.
 *
 * config.c cuts the text into lines and sections; config_keyword.c finds each line's keyword in the
 * tables of config_global.c and config_proxy.c. A table names the sections a keyword belongs in,
 * how many words may follow it, and the function that takes them. config_value.c turns words into
 * values, config_log.c and config_endpoint.c hold the lines that are small languages (`log`,
 * `bind`, `server`), config_error.c words the complaints, config_finish.c looks at the whole.
 *
 * Parse functions return nothing: a mistake in the text is reported with config_fail() and the line
 * is given up, and want of memory is remembered in config_parser.no_memory.
 */
#ifndef SHUNT_CONFIG_PARSER_H
#define SHUNT_CONFIG_PARSER_H

#include "config.h"
#include "config_lex.h"
#include "util.h"

enum config_section {
	SECTION_GLOBAL = 1,
	SECTION_DEFAULTS = 2,
	SECTION_LISTEN = 4,
	SECTION_FRONTEND = 8,
	SECTION_BACKEND = 16,
	SECTION_NONE = 32, /* before the first one */
	SECTION_SKIP = 64, /* a section that could not be opened: its lines are not looked at */

	SECTION_FRONTENDS = SECTION_LISTEN | SECTION_FRONTEND,
	SECTION_BACKENDS = SECTION_LISTEN | SECTION_BACKEND,
	SECTION_PROXIES = SECTION_FRONTENDS | SECTION_BACKENDS,
};

/* config_proxy.said, so that a line with a mistake does not count as a missing line as well. */
enum { SAID_BIND = 1, SAID_SERVER = 2, SAID_DEFAULT_BACKEND = 4 };

/* What a section and its defaults said about splicing: 0 nothing, 1 `option`, -1 `no option`. */
struct config_splice {
	int automatic, request, response;
};

struct config_file {
	struct list entry; /* in config_state.files */
	unsigned int index;
	char name[]; /* what every `file` pointer in the configuration points to */
};

struct config_state {
	unsigned int flags;
	struct list files; /* of struct config_file, in the order of config_parse() */
	unsigned int nr_files;
	struct config_proxy defaults; /* what a new section starts as */
	struct config_splice defaults_splice;
	unsigned int nr_binds;
	bool saw_frontend; /* a frontend or listen section was there, right or wrong */
	struct config_at nosplice_at, splice_require_at;
	unsigned int users_gid; /* the first group of who `user` names */
};

struct config_parser;

struct config_keyword {
	const char *name; /* one word, or two with a space; NULL ends the table */
	unsigned int sections;
	unsigned int min_args, max_args; /* words after the name */
	void (*parse)(struct config_parser *p);
	const char *usage; /* the words after the name, for people */
	size_t value;	   /* for parse: an offset in the struct, or a choice */
	unsigned int said; /* SAID_* */
	bool no;	   /* may follow `no` (then it has no words after it) */
};

struct config_parser {
	struct config *config;
	const char *file; /* a config_file's name */
	unsigned int line;
	enum config_section section;
	struct config_proxy *proxy;   /* of the open section; the defaults' own; NULL in global */
	struct config_splice *splice; /* the same section's */
	struct config_splice proxy_splice;
	bool no_memory;

	/* the line */
	struct config_line words;
	const struct config_keyword *keyword;
	const struct config_word *at;	/* the keyword's first word */
	const struct config_word *args; /* the words after its name */
	unsigned int nr_args;
	bool no; /* `no` was before it */
};

/* A word in quotes, for a message; a name fits, and what is longer is cut off. */
struct config_shown {
	char text[76];
};

/* config_error.c */

/* Adds an error at a place, or counts it if there are too many. file may be NULL. */
void config_error_at(struct config *c, const char *file, unsigned int line, unsigned int column,
		     bool warning, const char *fmt, ...) PRINTF(6, 7);

/* An error at a word of the current line. */
void config_fail(struct config_parser *p, const struct config_word *at, const char *fmt, ...)
	PRINTF(3, 4);

/* A word in quotes, with every byte that is not printable ASCII as \xHH. */
struct config_shown config_show(const char *text);

/* How many single-byte edits (insert, delete, change, swap) make a into b; at most 99. */
unsigned int config_distance(const char *a, const char *b);

/*
 * Appends to a message in buf, and cuts it off with "..." when it is full; returns what snprintf()
 * would call the new length, at most size - 1.
 */
size_t config_append(char *buf, size_t size, size_t len, const char *fmt, ...) PRINTF(4, 5);

/* "global, defaults or backend" into buf, for a set of sections; returns buf. */
const char *config_section_names(unsigned int sections, char *buf, size_t size);

/*
 * config_value.c: each returns true and the value, or reports what is wrong with the word. what
 * says in the message whose word it is ("maxconn", "the pid file").
 */

bool config_number(struct config_parser *p, const struct config_word *w, const char *what,
		   unsigned int min, unsigned int max, unsigned int *ret);
/* Milliseconds, in HAProxy's units; a value above 0 never becomes 0. */
bool config_time(struct config_parser *p, const struct config_word *w, const char *what,
		 unsigned int *ret);
/* Bytes; min and max are multiples of 1k. */
bool config_size(struct config_parser *p, const struct config_word *w, const char *what,
		 uint64_t min, uint64_t max, uint64_t *ret);
/* A proxy's or a server's name. */
bool config_name(struct config_parser *p, const struct config_word *w, char ret[CONFIG_NAME_MAX]);
/* Anything without control bytes; size includes the NUL. */
bool config_string(struct config_parser *p, const struct config_word *w, const char *what,
		   char *ret, size_t size);
/* A file's name, which must hold a '/'. The prefix "unix@" is left out. */
bool config_path(struct config_parser *p, const struct config_word *w, const char *what, char *ret,
		 size_t size);
/* One of a list of words, which ends with NULL; the index in it. */
bool config_choice(struct config_parser *p, const struct config_word *w, const char *what,
		   const char *const *choices, unsigned int *ret);
/* text, which is w or a part of it, as an address; wanted says what is allowed; flags as in addr.h.
 */
bool config_addr(struct config_parser *p, const struct config_word *w, const char *text,
		 const char *wanted, unsigned int flags, struct addr *ret);

/* config.c: all sections of HAProxy's; SECTION_SKIP for those that shunt has not. name NULL ends
 * it. */

struct config_section_name {
	const char *name;
	enum config_section section;
};

extern const struct config_section_name config_sections[];

/* config_keyword.c: takes a line that opens no section. */

void config_parse_keyword(struct config_parser *p);

/* config_global.c, config_proxy.c */

extern const struct config_keyword config_global_keywords[];
extern const struct config_keyword config_proxy_keywords[];

void config_proxy_init(struct config_proxy *proxy);
void config_proxy_done(struct config_proxy *proxy);

/*
 * Opens a proxy's section: makes a proxy with the defaults' values and makes it the parser's. The
 * name is checked. A proxy that may not be there (its name is taken) is reported and opened all the
 * same, so that its lines can be checked.
 */
void config_proxy_open(struct config_parser *p, const struct config_word *name);

/* config_log.c, config_endpoint.c: parse functions of keywords */

void config_parse_log(struct config_parser *p);
void config_parse_bind(struct config_parser *p);
void config_parse_server(struct config_parser *p);
void config_parse_stats_socket(struct config_parser *p);

void config_logs_free(struct list *targets);
/* Adds copies of all targets of one list to another. Returns false without memory. */
bool config_logs_copy(struct list *to, const struct list *from);

#endif
