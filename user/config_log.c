/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_log.c - `log global`, `log TARGET [format F] FACILITY [MAXLEVEL]`, `no log`. */
#include <string.h>
#include <syslog.h>

#include "config_parser.h"

/* In the order of their numbers, as in HAProxy. */
static const char *const facilities[] = {
	"kern",	  "user",   "mail",   "daemon", "auth",	  "syslog", "lpr",   "news",   "uucp",
	"cron",	  "auth2",  "ftp",    "ntp",	"audit",  "alert",  "cron2", "local0", "local1",
	"local2", "local3", "local4", "local5", "local6", "local7", NULL,
};

static const char *const levels[] = {
	"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", NULL,
};

static const char *const formats[] = {
	[LOG_FORMAT_RAW] = "raw",
	[LOG_FORMAT_RFC3164] = "rfc3164",
	[LOG_FORMAT_RFC5424] = "rfc5424",
	NULL,
};

void config_logs_free(struct list *targets)
{
	struct log_target *t, *tmp;

	list_for_each_safe(t, tmp, targets, entry) {
		list_del(&t->entry);
		free(t);
	}
}

bool config_logs_copy(struct list *to, const struct list *from)
{
	struct log_target *t, *copy;

	list_for_each(t, from, entry) {
		copy = malloc(sizeof(*copy));
		if (!copy)
			return false;
		*copy = *t;
		list_init(&copy->entry);
		list_add_tail(to, &copy->entry);
	}
	return true;
}

static bool parse_udp(struct config_parser *p, const struct config_word *w, struct log_target *t)
{
	const char *text = w->text;
	char with_port[300];
	size_t len;

	if (!strncmp(text, "udp@", 4))
		text += 4;
	len = strlen(text);
	if (len && len < 256 && (!strchr(text, ':') || text[len - 1] == ']')) {
		snprintf(with_port, sizeof(with_port), "%s:514", text);
		text = with_port;
	}
	t->kind = LOG_TARGET_UDP;
	return config_addr(p, w, text, "stdout, stderr, /PATH, ADDRESS or ADDRESS:PORT", 0,
			   &t->addr);
}

static bool parse_target(struct config_parser *p, const struct config_word *w, struct log_target *t)
{
	t->format = LOG_FORMAT_RAW;
	if (!strcmp(w->text, "stdout")) {
		t->kind = LOG_TARGET_STDOUT;
		return true;
	}
	if (!strcmp(w->text, "stderr")) {
		t->kind = LOG_TARGET_STDERR;
		return true;
	}
	t->format = LOG_FORMAT_RFC3164;
	if (strncmp(w->text, "unix@", 5) && !strchr(w->text, '/'))
		return parse_udp(p, w, t);
	t->kind = LOG_TARGET_UNIX;
	return config_path(p, w, "the log socket", t->path, sizeof(t->path));
}

static bool parse_words(struct config_parser *p, struct log_target *t)
{
	const struct config_word *w = p->args, *end = p->args + p->nr_args;
	unsigned int choice;

	if (!parse_target(p, w++, t))
		return false;
	if (w < end && (!strcmp(w->text, "len") || !strcmp(w->text, "sample"))) {
		config_fail(p, w, "log: %s is not supported; write: log %s",
			    config_show(w->text).text, p->keyword->usage);
		return false;
	}
	if (end - w >= 2 && !strcmp(w->text, "format")) {
		if (!config_choice(p, w + 1, "log format", formats, &choice))
			return false;
		t->format = (enum log_format)choice;
		w += 2;
	}
	if (w == end || (end - w == 1 && !strcmp(w->text, "format"))) {
		config_fail(p, p->at, "log: a word is missing; write: log %s", p->keyword->usage);
		return false;
	}
	if (!config_choice(p, w, "log facility", facilities, &choice))
		return false;
	t->facility = (int)choice;
	t->max_level = LOG_DEBUG;
	if (++w < end) {
		if (!config_choice(p, w, "log level", levels, &choice))
			return false;
		t->max_level = (int)choice;
		w++;
	}
	if (w < end) {
		config_fail(p, w, "log: %s is too much; write: log %s", config_show(w->text).text,
			    p->keyword->usage);
		return false;
	}
	return true;
}

static unsigned int count(const struct list *targets)
{
	const struct log_target *t;
	unsigned int n = 0;

	list_for_each(t, targets, entry)
		n++;
	return n;
}

void config_parse_log(struct config_parser *p)
{
	struct list *targets = p->proxy ? &p->proxy->log_targets : &p->config->global.log_targets;
	struct log_target t = { 0 }, *new;

	if (p->no && p->proxy) {
		p->proxy->log_global = false;
		config_logs_free(targets);
		return;
	}
	if (p->no) {
		config_fail(p, p->at, "'no log' is for defaults, listen, frontend or backend");
		return;
	}
	if (!strcmp(p->args->text, "global")) {
		if (!p->proxy)
			config_fail(p, p->args,
				    "'log global' is for defaults, listen, frontend or "
				    "backend; write: log %s",
				    p->keyword->usage);
		else if (p->nr_args > 1)
			config_fail(p, p->args + 1, "'log global' takes no more words");
		else
			p->proxy->log_global = true;
		return;
	}
	if (!parse_words(p, &t))
		return;
	if (count(targets) == CONFIG_LOGS_MAX) {
		config_fail(p, p->at, "more than %d log targets", CONFIG_LOGS_MAX);
		return;
	}
	new = malloc(sizeof(*new));
	if (!new) {
		p->no_memory = true;
		return;
	}
	*new = t;
	list_init(&new->entry);
	list_add_tail(targets, &new->entry);
}
