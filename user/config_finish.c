/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_finish.c - what only the whole configuration can show. */
#include <string.h>

#include "config_parser.h"

#define FAIL(c, p, ...) config_error_at(c, (p)->file, (p)->line, (p)->column, false, __VA_ARGS__)
#define WARN(c, p, ...) config_error_at(c, (p)->file, (p)->line, (p)->column, true, __VA_ARGS__)

static const char *kind(const struct config_proxy *p)
{
	return p->caps & PROXY_BACKEND ? "listen" : "frontend";
}

static struct config_proxy *find_backend(struct config *c, const char *name)
{
	struct config_proxy *p;

	list_for_each(p, &c->proxies, entry)
		if (p->caps & PROXY_BACKEND && !strcmp(p->name, name))
			return p;
	return NULL;
}

static const char *nearest_backend(const struct config *c, const char *name)
{
	const struct config_proxy *p;
	const char *nearest = NULL;
	unsigned int best = 3, d;

	list_for_each(p, &c->proxies, entry) {
		if (!(p->caps & PROXY_BACKEND) || !*p->name)
			continue;
		d = config_distance(p->name, name);
		if (d < best) {
			best = d;
			nearest = p->name;
		}
	}
	return nearest;
}

static void resolve_backend(struct config *c, struct config_proxy *p)
{
	const char *near;

	if (p->caps & PROXY_BACKEND) {
		p->backend = p;
		return;
	}
	if (!*p->default_backend) {
		if (!p->disabled && !(p->said & SAID_DEFAULT_BACKEND))
			FAIL(c, p, "the frontend '%s' needs a default_backend", p->name);
		return;
	}
	p->backend = find_backend(c, p->default_backend);
	if (p->backend)
		return;
	near = nearest_backend(c, p->default_backend);
	FAIL(c, &p->default_backend_at, "no backend or listen section is named '%s'%s%s%s",
	     p->default_backend, near ? "; did you mean '" : "", near ? near : "",
	     near ? "'?" : "");
}

/* True for a default_backend line that an earlier frontend has inherited too: one report is enough.
 */
static bool same_line_again(const struct config *c, const struct config_proxy *p)
{
	const struct config_at *at = &p->default_backend_at;
	const struct config_proxy *q;

	list_for_each(q, &c->proxies, entry) {
		if (q == p)
			return false;
		if (at->file && q->default_backend_at.file == at->file &&
		    q->default_backend_at.line == at->line)
			return true;
	}
	return false;
}

static void check_frontend(struct config *c, struct config_proxy *p)
{
	if (!same_line_again(c, p))
		resolve_backend(c, p);
	else
		p->backend = find_backend(c, p->default_backend);
	if (!p->disabled && !p->nr_binds && !(p->said & SAID_BIND))
		FAIL(c, p, "the %s section '%s' needs a bind", kind(p), p->name);
}

/* Reports b, of p, if an earlier enabled section or line has the same address. */
static void check_bind(struct config *c, const struct config_proxy *p, const struct config_bind *b)
{
	const struct config_proxy *q;
	const struct config_bind *a;
	char text[ADDR_STRLEN];

	list_for_each(q, &c->proxies, entry) {
		if (q->disabled)
			continue;
		list_for_each(a, &q->binds, entry) {
			if (a == b)
				return;
			if (!addr_equal(&a->addr, &b->addr))
				continue;
			config_error_at(c, p->file, b->line, b->column, false,
					"%s is already bound by the %s section '%s', in %s:%u",
					addr_format(&b->addr, text), kind(q), q->name,
					config_show(q->file).text, a->line);
			return;
		}
	}
}

static void check_splice(struct config *c)
{
	const struct config_at *at = &c->state->splice_require_at;
	struct config_proxy *p;

	if (!c->global.splice_none)
		return;
	if (c->global.splice_require)
		FAIL(c, at, "'splice require' and 'nosplice' (in line %u) contradict each other",
		     c->state->nosplice_at.line);
	list_for_each(p, &c->proxies, entry)
		p->splice_request = p->splice_response = SPLICE_OFF;
}

static void warn_about(struct config *c, const struct config_proxy *p)
{
	const struct config_at *at = &p->default_backend_at;

	if (p->disabled)
		return;
	if (p->caps & PROXY_BACKEND && !p->nr_servers && !(p->said & SAID_SERVER))
		WARN(c, p, "the %s section '%s' has no server: every session is refused",
		     p->caps & PROXY_FRONTEND ? "listen" : "backend", p->name);
	if (at->file && p->backend && p->backend->disabled && !same_line_again(c, p))
		WARN(c, at, "the backend '%s' is disabled: every session is refused",
		     p->default_backend);
}

static unsigned int file_index(const char *file)
{
	return file ? container_of(file, struct config_file, name)->index : 0;
}

static bool is_after(const struct config_error *a, const struct config_error *b)
{
	unsigned int file_a = file_index(a->file), file_b = file_index(b->file);

	if (file_a != file_b)
		return file_a > file_b;
	if (a->line != b->line)
		return a->line > b->line;
	return a->column > b->column;
}

static void sort_errors(struct config *c)
{
	for (size_t i = 1; i < c->nr_errors; i++) {
		struct config_error e = c->errors[i];
		size_t j;

		for (j = i; j > 0 && is_after(&c->errors[j - 1], &e); j--)
			c->errors[j] = c->errors[j - 1];
		c->errors[j] = e;
	}
}

int config_finish(struct config *c)
{
	const char *last_file = NULL;
	struct config_bind *b;
	struct config_proxy *p;
	bool listens = false;

	if (!list_empty(&c->state->files))
		last_file = container_of(c->state->files.prev, struct config_file, entry)->name;
	list_for_each(p, &c->proxies, entry) {
		if (!(p->caps & PROXY_FRONTEND))
			continue;
		check_frontend(c, p);
		if (p->disabled)
			continue;
		listens = true;
		list_for_each(b, &p->binds, entry)
			check_bind(c, p, b);
	}
	check_splice(c);
	if (c->global.gid == CONFIG_NO_ID)
		c->global.gid = c->state->users_gid;
	if (!c->state->saw_frontend)
		config_error_at(c, last_file, 0, 0, false,
				"nothing to listen on: there is no frontend and no listen section");
	else if (!listens && !c->nr_fatal)
		config_error_at(
			c, last_file, 0, 0, false,
			"nothing to listen on: every frontend and listen section is disabled");

	/* last, so that warnings do not take an error's place in a full list */
	list_for_each(p, &c->proxies, entry)
		warn_about(c, p);
	sort_errors(c);
	return c->nr_fatal ? -EINVAL : 0;
}
