/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_endpoint.c - the lines that name sockets: `bind`, `server`, `stats socket`. */
#include <string.h>

#include "config_parser.h"

static void *new_zeroed(struct config_parser *p, size_t size)
{
	void *ret = calloc(1, size);

	if (!ret)
		p->no_memory = true;
	return ret;
}

static void add_bind(struct config_parser *p, const struct config_word *w, const char *text)
{
	struct config_state *state = p->config->state;
	struct config_bind *b;
	struct addr addr;

	if (!config_addr(p, w, text, "ADDRESS:PORT, *:PORT or :PORT", ADDR_WILDCARD, &addr))
		return;
	if (state->nr_binds == CONFIG_BINDS_MAX) {
		config_fail(p, w, "%s: more than %d addresses to listen on", config_show(text).text,
			    CONFIG_BINDS_MAX);
		return;
	}
	b = new_zeroed(p, sizeof(*b));
	if (!b)
		return;
	b->addr = addr;
	b->line = p->line;
	b->column = w->column;
	list_init(&b->entry);
	list_add_tail(&p->proxy->binds, &b->entry);
	p->proxy->nr_binds++;
	state->nr_binds++;
}

void config_parse_bind(struct config_parser *p)
{
	const struct config_word *w = p->args;
	char one[CONFIG_LINE_MAX + 1];
	const char *text = w->text;
	size_t len;

	for (;;) {
		len = strcspn(text, ",");
		memcpy(one, text, len);
		one[len] = '\0';
		add_bind(p, w, one);
		if (!text[len])
			break;
		text += len + 1;
	}
	if (p->nr_args > 1)
		config_fail(p, w + 1, "bind: %s is not supported; write: bind %s",
			    config_show(w[1].text).text, p->keyword->usage);
}

static bool is_wildcard(const struct addr *a)
{
	if (a->sa.sa_family == AF_INET)
		return a->in.sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

/* Everything after `server NAME ADDRESS:PORT`. */
static bool parse_server_words(struct config_parser *p, struct config_server *s)
{
	static const char *const names[] = { "weight", "maxconn", "disabled" };
	const struct config_word *w, *end = p->args + p->nr_args;

	for (w = p->args + 2; w < end; w++) {
		bool is_weight = !strcmp(w->text, "weight");
		bool is_maxconn = !strcmp(w->text, "maxconn");
		const char *meant = NULL;

		if (!strcmp(w->text, "disabled")) {
			s->disabled = true;
			continue;
		}
		if ((is_weight || is_maxconn) && w + 1 == end) {
			config_fail(p, w, "server: a number is missing after %s", w->text);
			return false;
		}
		if (is_weight || is_maxconn) {
			w++;
			if (!config_number(p, w, is_weight ? "weight" : "maxconn", 0,
					   is_weight ? CONFIG_WEIGHT_MAX : CONFIG_CONNS_MAX,
					   is_weight ? &s->weight : &s->maxconn))
				return false;
			continue;
		}
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			if (config_distance(w->text, names[i]) <= 2)
				meant = names[i];
		config_fail(p, w,
			    "server: %s is not supported%s%s; allowed: weight N, maxconn N, "
			    "disabled",
			    config_show(w->text).text, meant ? ", did you mean " : "",
			    meant ? meant : "");
		return false;
	}
	return true;
}

void config_parse_server(struct config_parser *p)
{
	struct config_server server = { .weight = 1 }, *s;
	struct config_proxy *proxy = p->proxy;

	if (!config_name(p, &p->args[0], server.name) ||
	    !config_addr(p, &p->args[1], p->args[1].text, "ADDRESS:PORT", 0, &server.addr) ||
	    !parse_server_words(p, &server))
		return;
	if (is_wildcard(&server.addr)) {
		config_fail(p, &p->args[1], "%s: a server needs an address of its own",
			    config_show(p->args[1].text).text);
		return;
	}
	list_for_each(s, &proxy->servers, entry) {
		if (strcmp(s->name, server.name))
			continue;
		config_fail(p, &p->args[0],
			    "the server '%s' is already there, in line %u; names "
			    "must differ within a backend",
			    s->name, s->line);
		return;
	}
	if (proxy->nr_servers == CONFIG_SERVERS_MAX) {
		config_fail(p, p->at, "more than %d servers in one backend", CONFIG_SERVERS_MAX);
		return;
	}
	s = new_zeroed(p, sizeof(*s));
	if (!s)
		return;
	*s = server;
	s->id = ++proxy->nr_servers;
	s->line = p->line;
	s->column = p->args[0].column;
	list_init(&s->entry);
	list_add_tail(&proxy->servers, &s->entry);
}

static bool parse_mode(struct config_parser *p, const struct config_word *w, mode_t *ret)
{
	size_t len = strspn(w->text, "01234567");

	if (!len || len > 4 || w->text[len] || strtoul(w->text, NULL, 8) > 0777) {
		config_fail(p, w, "mode takes an octal number from 0 to 777, not %s",
			    config_show(w->text).text);
		return false;
	}
	*ret = (mode_t)strtoul(w->text, NULL, 8);
	return true;
}

static bool parse_stats_words(struct config_parser *p, struct config_stats *s)
{
	static const char *const levels[] = {
		[STATS_LEVEL_USER] = "user",
		[STATS_LEVEL_OPERATOR] = "operator",
		[STATS_LEVEL_ADMIN] = "admin",
		NULL,
	};
	const struct config_word *w, *end = p->args + p->nr_args;

	if (!config_path(p, p->args, "the stats socket", s->path, sizeof(s->path)))
		return false;
	for (w = p->args + 1; w < end; w++) {
		bool is_mode = !strcmp(w->text, "mode");
		unsigned int level;

		if (!is_mode && strcmp(w->text, "level")) {
			config_fail(p, w,
				    "stats socket: %s is not supported; write: stats socket %s",
				    config_show(w->text).text, p->keyword->usage);
			return false;
		}
		if (++w == end) {
			config_fail(p, w - 1,
				    "stats socket: a word is missing after %s; write: stats "
				    "socket %s",
				    w[-1].text, p->keyword->usage);
			return false;
		}
		if (is_mode && !parse_mode(p, w, &s->mode))
			return false;
		if (!is_mode && !config_choice(p, w, "level", levels, &level))
			return false;
		if (!is_mode)
			s->level = (enum stats_level)level;
	}
	return true;
}

void config_parse_stats_socket(struct config_parser *p)
{
	struct config_stats stats = { .mode = 0660, .level = STATS_LEVEL_OPERATOR }, *s;
	struct list *all = &p->config->global.stats;
	unsigned int n = 0;

	if (!parse_stats_words(p, &stats))
		return;
	list_for_each(s, all, entry) {
		n++;
		if (strcmp(s->path, stats.path))
			continue;
		config_fail(p, p->args, "the stats socket %s is already there",
			    config_show(s->path).text);
		return;
	}
	if (n == CONFIG_STATS_MAX) {
		config_fail(p, p->at, "more than %d stats sockets", CONFIG_STATS_MAX);
		return;
	}
	s = new_zeroed(p, sizeof(*s));
	if (!s)
		return;
	*s = stats;
	list_init(&s->entry);
	list_add_tail(all, &s->entry);
}
