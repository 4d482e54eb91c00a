/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_proxy.c - the sections `defaults`, `listen`, `frontend`, `backend`, and their keywords. */
#include <string.h>

#include "config_parser.h"

#define PROXY(field) offsetof(struct config_proxy, field)
#define SPLICE(field) offsetof(struct config_splice, field)

void config_proxy_init(struct config_proxy *proxy)
{
	*proxy = (struct config_proxy){
		.retries = 3,
		.redispatch = true,
		.redispatch_interval = 1,
		.balance = BALANCE_ROUNDROBIN,
		.timeout.connect = 5000,
		.splice_request = SPLICE_AUTO,
		.splice_response = SPLICE_AUTO,
	};
	list_init(&proxy->entry);
	list_init(&proxy->binds);
	list_init(&proxy->servers);
	list_init(&proxy->log_targets);
}

void config_proxy_done(struct config_proxy *proxy)
{
	struct config_server *s, *next_s;
	struct config_bind *b, *next_b;

	list_for_each_safe(b, next_b, &proxy->binds, entry) {
		list_del(&b->entry);
		free(b);
	}
	list_for_each_safe(s, next_s, &proxy->servers, entry) {
		list_del(&s->entry);
		free(s);
	}
	config_logs_free(&proxy->log_targets);
}

static const char *caps_name(unsigned int caps)
{
	return caps == PROXY_FRONTEND ? "frontend" : caps == PROXY_BACKEND ? "backend" : "listen";
}

/* Takes the name, unless a section of the same side has it. */
static void set_name(struct config_parser *p, const struct config_word *w)
{
	struct config_proxy *proxy = p->proxy, *other;

	if (!config_name(p, w, proxy->name))
		return;
	list_for_each(other, &p->config->proxies, entry) {
		if (strcmp(other->name, proxy->name) || !(other->caps & proxy->caps))
			continue;
		config_fail(p, w,
			    "the name '%s' is taken by the %s section of %s:%u; only a "
			    "frontend and a backend may share a name",
			    other->name, caps_name(other->caps), config_show(other->file).text,
			    other->line);
		return;
	}
}

/* A copy of the defaults, with lists of its own. Returns NULL without memory. */
static struct config_proxy *inherit(const struct config_proxy *defaults)
{
	struct config_proxy *proxy = malloc(sizeof(*proxy));

	if (!proxy)
		return NULL;
	*proxy = *defaults;
	list_init(&proxy->entry);
	list_init(&proxy->binds);
	list_init(&proxy->servers);
	list_init(&proxy->log_targets);
	if (!config_logs_copy(&proxy->log_targets, &defaults->log_targets)) {
		config_proxy_done(proxy);
		free(proxy);
		return NULL;
	}
	return proxy;
}

void config_proxy_open(struct config_parser *p, const struct config_word *name)
{
	struct config_state *state = p->config->state;
	struct config *c = p->config;
	struct config_proxy *proxy;

	if (c->nr_proxies == CONFIG_PROXIES_MAX) {
		config_fail(p, p->at, "more than %d sections", CONFIG_PROXIES_MAX);
		p->section = SECTION_SKIP;
		return;
	}
	proxy = inherit(&state->defaults);
	if (!proxy) {
		p->no_memory = true;
		p->section = SECTION_SKIP;
		return;
	}
	proxy->caps = (p->section & SECTION_FRONTENDS ? PROXY_FRONTEND : 0) |
		      (p->section & SECTION_BACKENDS ? PROXY_BACKEND : 0);
	proxy->file = p->file;
	proxy->line = p->line;
	proxy->column = name ? name->column : p->at->column;
	if (proxy->caps != PROXY_FRONTEND) {
		/* a listen section is its own backend, whatever the defaults say */
		proxy->default_backend[0] = '\0';
		proxy->default_backend_at = (struct config_at){ 0 };
	}
	p->proxy = proxy;
	p->proxy_splice = state->defaults_splice;
	p->splice = &p->proxy_splice;

	if (name)
		set_name(p, name);
	proxy->id = ++c->nr_proxies;
	list_add_tail(&c->proxies, &proxy->entry);
}

/* Where the current keyword's value belongs. */
static void *field(struct config_parser *p)
{
	return (char *)p->proxy + p->keyword->value;
}

static void parse_mode(struct config_parser *p)
{
	if (strcmp(p->args->text, "tcp"))
		config_fail(p, p->args, "the mode %s is not supported; allowed: tcp",
			    config_show(p->args->text).text);
}

static void parse_balance(struct config_parser *p)
{
	static const char *const names[] = { [BALANCE_ROUNDROBIN] = "roundrobin", NULL };
	unsigned int choice;

	if (config_choice(p, p->args, "balance algorithm", names, &choice))
		p->proxy->balance = (enum balance_algo)choice;
}

static void parse_default_backend(struct config_parser *p)
{
	if (!config_name(p, p->args, p->proxy->default_backend))
		return;
	p->proxy->default_backend_at =
		(struct config_at){ .file = p->file, .line = p->line, .column = p->args->column };
}

static void parse_maxconn(struct config_parser *p)
{
	config_number(p, p->args, "maxconn", 0, CONFIG_CONNS_MAX, field(p));
}

static void parse_backlog(struct config_parser *p)
{
	config_number(p, p->args, "backlog", 0, CONFIG_CONNS_MAX, field(p));
}

static void parse_retries(struct config_parser *p)
{
	config_number(p, p->args, "retries", 0, 100, field(p));
}

static void parse_timeout(struct config_parser *p)
{
	unsigned int *ret = field(p), ms;

	if (!config_time(p, p->args, p->keyword->name, &ms))
		return;
	if (!ms && ret == &p->proxy->timeout.connect)
		config_fail(p, p->args,
			    "timeout connect must not be 0: a server that does not "
			    "answer would be waited for without end");
	else
		*ret = ms;
}

static void parse_redispatch(struct config_parser *p)
{
	const char *text = p->nr_args ? p->args->text : "1";
	const char *digits = text + (text[0] == '-');
	size_t nr_digits = strspn(digits, "0123456789");
	long n = strtol(text, NULL, 10);

	if (!nr_digits || digits[nr_digits] || n < -100 || n > 100) {
		config_fail(p, p->args, "option redispatch takes a number from -100 to 100, not %s",
			    config_show(text).text);
		return;
	}
	p->proxy->redispatch = !p->no && n;
	p->proxy->redispatch_interval = n ? (int)n : 1;
}

static void parse_flag(struct config_parser *p)
{
	*(bool *)field(p) = !p->no;
}

static void parse_enabled(struct config_parser *p)
{
	p->proxy->disabled = false;
}

/* The options about keepalive: it is always on. */
static void parse_keepalive(struct config_parser *p)
{
	if (p->no)
		config_fail(p, p->at, "'no %s' is not supported: keepalive is always on",
			    p->keyword->name);
}

/* See enum splice_mode. */
static enum splice_mode splice_mode(int automatic, int this, int other)
{
	if (this)
		return this > 0 ? SPLICE_ON : SPLICE_OFF;
	if (automatic)
		return automatic > 0 ? SPLICE_AUTO : SPLICE_OFF;
	return other > 0 ? SPLICE_OFF : SPLICE_AUTO;
}

static void parse_splice(struct config_parser *p)
{
	struct config_splice *s = p->splice;

	*(int *)((char *)s + p->keyword->value) = p->no ? -1 : 1;
	p->proxy->splice_request = splice_mode(s->automatic, s->request, s->response);
	p->proxy->splice_response = splice_mode(s->automatic, s->response, s->request);
}

#define DEFAULTS_FRONTENDS (SECTION_DEFAULTS | SECTION_FRONTENDS)
#define DEFAULTS_BACKENDS (SECTION_DEFAULTS | SECTION_BACKENDS)
#define DEFAULTS_PROXIES (SECTION_DEFAULTS | SECTION_PROXIES)

const struct config_keyword config_proxy_keywords[] = {
	{ "mode", DEFAULTS_PROXIES, 1, 1, parse_mode, .usage = "tcp" },
	{ "bind", SECTION_FRONTENDS, 1, CONFIG_WORDS_MAX, config_parse_bind,
	  "ADDRESS:PORT[,ADDRESS:PORT...]", .said = SAID_BIND },
	{ "default_backend", SECTION_DEFAULTS | SECTION_FRONTEND, 1, 1, parse_default_backend,
	  "NAME", .said = SAID_DEFAULT_BACKEND },
	{ "balance", DEFAULTS_BACKENDS, 1, 1, parse_balance, .usage = "roundrobin" },
	{ "server", SECTION_BACKENDS, 2, CONFIG_WORDS_MAX, config_parse_server,
	  "NAME ADDRESS:PORT [weight N] [maxconn N] [disabled]", .said = SAID_SERVER },
	{ "maxconn", DEFAULTS_FRONTENDS, 1, 1, parse_maxconn, "N", .value = PROXY(maxconn) },
	{ "backlog", DEFAULTS_FRONTENDS, 1, 1, parse_backlog, "N", .value = PROXY(backlog) },
	{ "retries", DEFAULTS_BACKENDS, 1, 1, parse_retries, "N", .value = PROXY(retries) },
	{ "disabled", DEFAULTS_PROXIES, 0, 0, parse_flag, "", .value = PROXY(disabled) },
	{ "enabled", DEFAULTS_PROXIES, 0, 0, parse_enabled, .usage = "" },

	{ "timeout connect", DEFAULTS_BACKENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.connect) },
	{ "timeout client", DEFAULTS_FRONTENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.client) },
	{ "timeout server", DEFAULTS_BACKENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.server) },
	{ "timeout client-fin", DEFAULTS_FRONTENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.client_fin) },
	{ "timeout server-fin", DEFAULTS_BACKENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.server_fin) },
	{ "timeout tunnel", DEFAULTS_BACKENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.tunnel) },
	{ "timeout queue", DEFAULTS_BACKENDS, 1, 1, parse_timeout, "TIME",
	  .value = PROXY(timeout.queue) },

	{ "option redispatch", DEFAULTS_BACKENDS, 0, 1, parse_redispatch, "[N]", .no = true },
	{ "option splice-auto", DEFAULTS_PROXIES, 0, 0, parse_splice, "",
	  .value = SPLICE(automatic), .no = true },
	{ "option splice-request", DEFAULTS_PROXIES, 0, 0, parse_splice, "",
	  .value = SPLICE(request), .no = true },
	{ "option splice-response", DEFAULTS_PROXIES, 0, 0, parse_splice, "",
	  .value = SPLICE(response), .no = true },
	{ "option tcplog", DEFAULTS_FRONTENDS, 0, 0, parse_flag, "", .value = PROXY(tcplog),
	  .no = true },
	{ "option dontlognull", DEFAULTS_FRONTENDS, 0, 0, parse_flag, "",
	  .value = PROXY(dontlognull), .no = true },
	{ "option tcpka", DEFAULTS_PROXIES, 0, 0, parse_keepalive, "", .no = true },
	{ "option clitcpka", DEFAULTS_FRONTENDS, 0, 0, parse_keepalive, "", .no = true },
	{ "option srvtcpka", DEFAULTS_BACKENDS, 0, 0, parse_keepalive, "", .no = true },
	{ .name = NULL },
};
