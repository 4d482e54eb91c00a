/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config.c - see config.h. This file cuts the text into lines and opens sections; config_parser.h
 * says where the rest is.
 */
#include "config.h"

#include <string.h>

#include "config_parser.h"

const struct config_section_name config_sections[] = {
	{ "global", SECTION_GLOBAL },
	{ "defaults", SECTION_DEFAULTS },
	{ "listen", SECTION_LISTEN },
	{ "frontend", SECTION_FRONTEND },
	{ "backend", SECTION_BACKEND },
	/* HAProxy's others, in order to say so once and not for each of their lines */
	{ "peers", SECTION_SKIP },
	{ "resolvers", SECTION_SKIP },
	{ "userlist", SECTION_SKIP },
	{ "cache", SECTION_SKIP },
	{ "program", SECTION_SKIP },
	{ "http-errors", SECTION_SKIP },
	{ "mailers", SECTION_SKIP },
	{ "ring", SECTION_SKIP },
	{ "log-forward", SECTION_SKIP },
	{ "log-profile", SECTION_SKIP },
	{ "fcgi-app", SECTION_SKIP },
	{ "crt-store", SECTION_SKIP },
	{ "traces", SECTION_SKIP },
	{ "acme", SECTION_SKIP },
	{ .name = NULL },
};

#define ALL_SECTIONS "allowed: global, defaults, listen, frontend, backend"

/* Returns SECTION_NONE for a word that opens no section. */
static enum config_section section_of(const char *word)
{
	for (const struct config_section_name *s = config_sections; s->name; s++)
		if (!strcmp(s->name, word))
			return s->section;
	return SECTION_NONE;
}

static void open_defaults(struct config_parser *p)
{
	struct config_state *state = p->config->state;
	const struct config_line *words = &p->words;
	char name[CONFIG_NAME_MAX];

	/* a new defaults section takes nothing from the one before */
	config_proxy_done(&state->defaults);
	config_proxy_init(&state->defaults);
	state->defaults_splice = (struct config_splice){ 0 };
	p->proxy = &state->defaults;
	p->splice = &state->defaults_splice;
	if (words->nr_words > 2)
		config_fail(p, &words->words[2], "defaults: %s is too much; write: defaults [NAME]",
			    config_show(words->words[2].text).text);
	if (words->nr_words > 1)
		config_name(p, &words->words[1], name);
}

static void open_proxy(struct config_parser *p)
{
	const struct config_line *words = &p->words;
	const char *kind = p->at->text;

	if (words->nr_words < 2)
		config_fail(p, p->at, "%s: a word is missing; write: %s NAME", kind, kind);
	else if (words->nr_words > 2 && strchr(words->words[2].text, ':'))
		config_fail(p, &words->words[2],
			    "%s: %s is too much; write the address in a line of "
			    "its own: bind ADDRESS:PORT",
			    kind, config_show(words->words[2].text).text);
	else if (words->nr_words > 2)
		config_fail(p, &words->words[2], "%s: %s is too much; write: %s NAME", kind,
			    config_show(words->words[2].text).text, kind);
	config_proxy_open(p, words->nr_words > 1 ? &words->words[1] : NULL);
}

static void open_section(struct config_parser *p, enum config_section section)
{
	const struct config_line *words = &p->words;

	p->section = section;
	p->proxy = NULL;
	p->splice = NULL;
	if (section & SECTION_FRONTENDS)
		p->config->state->saw_frontend = true;
	switch (section) {
	case SECTION_GLOBAL:
		if (words->nr_words > 1)
			config_fail(p, &words->words[1], "global: %s is too much; write: global",
				    config_show(words->words[1].text).text);
		break;
	case SECTION_DEFAULTS:
		open_defaults(p);
		break;
	case SECTION_SKIP:
		config_fail(p, p->at, "the section '%s' is not supported; " ALL_SECTIONS,
			    p->at->text);
		break;
	default:
		open_proxy(p);
	}
}

static void parse_line(struct config_parser *p, const char *text, size_t len)
{
	enum config_section section = SECTION_NONE;
	int r;

	r = config_lex(&p->words, text, len);
	p->at = p->words.words;
	if (p->words.nr_words)
		section = section_of(p->at->text);
	if (r < 0) {
		config_error_at(p->config, p->file, p->line, p->words.error_column, false, "%s",
				p->words.error);
		/* which section it would have been, nobody knows */
		if (section != SECTION_NONE) {
			p->section = SECTION_SKIP;
			p->config->state->saw_frontend = true;
		}
		return;
	}
	if (!p->words.nr_words)
		return;
	if (section != SECTION_NONE)
		open_section(p, section);
	else if (p->section == SECTION_NONE)
		config_fail(p, p->at, "%s is before any section; " ALL_SECTIONS,
			    config_show(p->at->text).text);
	else if (p->section != SECTION_SKIP)
		config_parse_keyword(p);
}

static const char *add_file(struct config *c, const char *name)
{
	struct config_state *state = c->state;
	struct config_file *f;
	size_t size = strlen(name) + 1;

	f = malloc(sizeof(*f) + size);
	if (!f)
		return NULL;
	f->index = state->nr_files++;
	memcpy(f->name, name, size);
	list_init(&f->entry);
	list_add_tail(&state->files, &f->entry);
	return f->name;
}

int config_parse(struct config *c, const char *file, const char *text, size_t len)
{
	struct config_parser p = { .config = c, .section = SECTION_NONE };
	const char *end = text + len, *newline;

	p.file = add_file(c, file);
	if (!p.file)
		return -ENOMEM;
	while (text < end && !p.no_memory) {
		newline = memchr(text, '\n', (size_t)(end - text));
		p.line++;
		parse_line(&p, text, (size_t)((newline ? newline : end) - text));
		text = newline ? newline + 1 : end;
	}
	return p.no_memory ? -ENOMEM : 0;
}

struct config *config_new(unsigned int flags)
{
	struct config *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	list_init(&c->global.log_targets);
	list_init(&c->global.stats);
	list_init(&c->proxies);
	c->errors = calloc(CONFIG_ERRORS_MAX, sizeof(*c->errors));
	c->state = calloc(1, sizeof(*c->state));
	if (c->state) {
		c->state->flags = flags;
		list_init(&c->state->files);
		config_proxy_init(&c->state->defaults);
	}
	if (!c->errors || !c->state)
		return config_free(c);

	c->global.splice_limit = 2u << 20;
	c->global.stats_timeout_ms = 10000;
	c->global.uid = c->global.gid = c->state->users_gid = CONFIG_NO_ID;
	strcpy(c->global.log_tag, "shunt");
	strcpy(c->global.pin_path, "/sys/fs/bpf/shunt");
	return c;
}

static void free_state(struct config_state *state)
{
	struct config_file *f, *tmp;

	list_for_each_safe(f, tmp, &state->files, entry) {
		list_del(&f->entry);
		free(f);
	}
	config_proxy_done(&state->defaults);
	free(state);
}

struct config *config_free(struct config *c)
{
	struct config_proxy *p, *next_p;
	struct config_stats *s, *next_s;

	if (!c)
		return NULL;
	list_for_each_safe(p, next_p, &c->proxies, entry) {
		list_del(&p->entry);
		config_proxy_done(p);
		free(p);
	}
	list_for_each_safe(s, next_s, &c->global.stats, entry) {
		list_del(&s->entry);
		free(s);
	}
	config_logs_free(&c->global.log_targets);
	if (c->state)
		free_state(c->state);
	free(c->errors);
	free(c);
	return NULL;
}
