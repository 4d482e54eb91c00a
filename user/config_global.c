/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_global.c - the keywords of the section `global`, and those that every section has. */
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "config_parser.h"

#define GLOBAL(field) offsetof(struct config_global, field)

/* Where the current keyword's value belongs. */
static void *field(struct config_parser *p)
{
	return (char *)&p->config->global + p->keyword->value;
}

static struct config_at here(const struct config_parser *p)
{
	return (struct config_at){ .file = p->file, .line = p->line, .column = p->at->column };
}

static void parse_maxconn(struct config_parser *p)
{
	config_number(p, p->args, "maxconn", 0, CONFIG_CONNS_MAX, field(p));
}

static void parse_ulimit_n(struct config_parser *p)
{
	config_number(p, p->args, "ulimit-n", 0, 1u << 30, field(p));
}

static void parse_nbthread(struct config_parser *p)
{
	config_number(p, p->args, "nbthread", 1, 64, field(p));
}

static void parse_time(struct config_parser *p)
{
	config_time(p, p->args, p->keyword->name, field(p));
}

static void parse_flag(struct config_parser *p)
{
	*(bool *)field(p) = true;
}

static void parse_master_worker(struct config_parser *p)
{
	p->config->global.supervision = p->no ? SUPERVISION_OFF : SUPERVISION_ON;
}

static void parse_nosplice(struct config_parser *p)
{
	parse_flag(p);
	p->config->state->nosplice_at = here(p);
}

static void parse_splice(struct config_parser *p)
{
	static const char *const choices[] = { "auto", "require", NULL };
	unsigned int choice;

	if (!config_choice(p, p->args, "splice", choices, &choice))
		return;
	*(bool *)field(p) = choice;
	p->config->state->splice_require_at = here(p);
}

static void parse_splice_limit(struct config_parser *p)
{
	config_size(p, p->args, "tune.splice.limit", 4u << 10, 64u << 20, field(p));
}

static void parse_splice_budget(struct config_parser *p)
{
	config_size(p, p->args, "tune.splice.budget", 1u << 20, 1ull << 40, field(p));
}

static void parse_pidfile(struct config_parser *p)
{
	config_string(p, p->args, "the pid file", field(p), sizeof(p->config->global.pidfile));
}

static void parse_log_tag(struct config_parser *p)
{
	const char *text = p->args->text;

	for (const char *c = text; *c; c++) {
		if (*c > ' ' && *c < 0x7f)
			continue;
		config_fail(p, p->args, "the log tag takes printable ASCII without spaces, not %s",
			    config_show(text).text);
		return;
	}
	config_string(p, p->args, "the log tag", field(p), sizeof(p->config->global.log_tag));
}

static void parse_pin_path(struct config_parser *p)
{
	struct config_global *g = &p->config->global;

	if (!strcmp(p->args->text, "none"))
		g->pin_path[0] = '\0';
	else if (p->args->text[0] != '/')
		config_fail(p, p->args,
			    "bpf-pin-path takes 'none' or a path that begins with '/', "
			    "not %s",
			    config_show(p->args->text).text);
	else
		config_string(p, p->args, "the pin path", g->pin_path, sizeof(g->pin_path));
}

static void parse_nothing(struct config_parser *p)
{
	(void)p;
}

static bool may_ask(const struct config_parser *p)
{
	return p->config->state->flags & CONFIG_RESOLVE;
}

static void parse_id(struct config_parser *p)
{
	config_number(p, p->args, p->keyword->name, 0, CONFIG_NO_ID - 1, field(p));
	if (p->keyword->value == GLOBAL(uid))
		p->config->state->users_gid = CONFIG_NO_ID; /* of a `user` that no longer counts */
}

static void parse_user(struct config_parser *p)
{
	struct passwd *user = may_ask(p) ? getpwnam(p->args->text) : NULL;

	if (!user) {
		config_fail(p, p->args, "there is no user %s on this machine", config_show(p->args->text).text);
		return;
	}
	p->config->global.uid = user->pw_uid;
	p->config->state->users_gid = user->pw_gid;
}

static void parse_group(struct config_parser *p)
{
	struct group *group = may_ask(p) ? getgrnam(p->args->text) : NULL;

	if (group)
		p->config->global.gid = group->gr_gid;
	else
		config_fail(p, p->args, "there is no group %s on this machine", config_show(p->args->text).text);
}

static void parse_chroot(struct config_parser *p)
{
	struct config_global *g = &p->config->global;
	struct stat st;

	if (p->args->text[0] != '/')
		config_fail(p, p->args, "chroot takes a folder that begins with '/', not %s", config_show(p->args->text).text);
	else if (may_ask(p) && stat(p->args->text, &st) < 0)
		config_fail(p, p->args, "chroot %s: %s", config_show(p->args->text).text, strerror(errno));
	else if (may_ask(p) && !S_ISDIR(st.st_mode))
		config_fail(p, p->args, "chroot %s: this is no folder", config_show(p->args->text).text);
	else
		config_string(p, p->args, "the chroot", g->chroot, sizeof(g->chroot));
}

const struct config_keyword config_global_keywords[] = {
	{ "maxconn", SECTION_GLOBAL, 1, 1, parse_maxconn, "N", .value = GLOBAL(maxconn) },
	{ "ulimit-n", SECTION_GLOBAL, 1, 1, parse_ulimit_n, "N", .value = GLOBAL(ulimit_n) },
	{ "nbthread", SECTION_GLOBAL, 1, 1, parse_nbthread, "N", .value = GLOBAL(nbthread) },
	{ "daemon", SECTION_GLOBAL, 0, 0, parse_flag, "", .value = GLOBAL(daemon) },
	{ "master-worker", SECTION_GLOBAL, 0, 0, parse_master_worker, .usage = "", .no = true },
	{ "pidfile", SECTION_GLOBAL, 1, 1, parse_pidfile, "PATH", .value = GLOBAL(pidfile) },
	{ "log-tag", SECTION_GLOBAL, 1, 1, parse_log_tag, "TAG", .value = GLOBAL(log_tag) },
	{ "bpf-pin-path", SECTION_GLOBAL, 1, 1, parse_pin_path, .usage = "PATH|none" },
	{ "splice", SECTION_GLOBAL, 1, 1, parse_splice, "auto|require",
	  .value = GLOBAL(splice_require) },
	{ "nosplice", SECTION_GLOBAL, 0, 0, parse_nosplice, "", .value = GLOBAL(splice_none) },
	{ "tune.splice.limit", SECTION_GLOBAL, 1, 1, parse_splice_limit, "SIZE",
	  .value = GLOBAL(splice_limit) },
	{ "tune.splice.budget", SECTION_GLOBAL, 1, 1, parse_splice_budget, "SIZE",
	  .value = GLOBAL(splice_budget) },
	{ "hard-stop-after", SECTION_GLOBAL, 1, 1, parse_time, "TIME",
	  .value = GLOBAL(hard_stop_after_ms) },
	{ "stats socket", SECTION_GLOBAL, 1, CONFIG_WORDS_MAX, config_parse_stats_socket,
	  .usage = "PATH [mode OCTAL] [level user|operator|admin]" },
	{ "stats timeout", SECTION_GLOBAL, 1, 1, parse_time, "TIME",
	  .value = GLOBAL(stats_timeout_ms) },
	{ "user", SECTION_GLOBAL, 1, 1, parse_user, .usage = "NAME" },
	{ "group", SECTION_GLOBAL, 1, 1, parse_group, .usage = "NAME" },
	{ "uid", SECTION_GLOBAL, 1, 1, parse_id, "N", .value = GLOBAL(uid) },
	{ "gid", SECTION_GLOBAL, 1, 1, parse_id, "N", .value = GLOBAL(gid) },
	{ "chroot", SECTION_GLOBAL, 1, 1, parse_chroot, .usage = "PATH" },
	{ "noseccomp", SECTION_GLOBAL, 0, 0, parse_flag, "", .value = GLOBAL(no_seccomp) },

	/* these two in proxies as well */
	{ "log", SECTION_GLOBAL | SECTION_DEFAULTS | SECTION_PROXIES, 1, CONFIG_WORDS_MAX,
	  config_parse_log, "global|TARGET [format raw|rfc3164|rfc5424] FACILITY [MAXLEVEL]",
	  .no = true },
	{ "description", SECTION_GLOBAL | SECTION_PROXIES, 1, CONFIG_WORDS_MAX, parse_nothing,
	  .usage = "TEXT" },
	{ .name = NULL },
};
