/* SPDX-License-Identifier: GPL-2.0-or-later */
/* conf.c - see conf.h. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <syslog.h>

#include "conf.h"

static void *new_object(size_t size)
{
	void *object = calloc(1, size);

	assert_non_null(object);
	return object;
}

void conf_init(struct config *c)
{
	*c = (struct config){ .global.log_tag = "shunt" };
	list_init(&c->global.log_targets);
	list_init(&c->global.stats);
	list_init(&c->proxies);
}

void conf_done(struct config *c)
{
	struct config_proxy *p, *next_p;

	list_for_each_safe(p, next_p, &c->proxies, entry) {
		struct config_server *s, *next_s;
		struct log_target *t, *next_t;

		list_for_each_safe(s, next_s, &p->servers, entry)
			free(s);
		list_for_each_safe(t, next_t, &p->log_targets, entry)
			free(t);
		free(p);
	}
}

struct config_proxy *conf_listen(struct config *c, const char *name)
{
	struct config_proxy *p = new_object(sizeof(*p));

	*p = (struct config_proxy){
		.caps = PROXY_FRONTEND | PROXY_BACKEND,
		.id = ++c->nr_proxies,
		.backend = p,
		.retries = 3,
		.redispatch = true,
		.redispatch_interval = 1,
		.timeout.connect = 5000,
		.splice_request = SPLICE_ON, /* at once, whatever the flow does */
		.splice_response = SPLICE_ON,
	};
	snprintf(p->name, sizeof(p->name), "%s", name);
	list_init(&p->binds);
	list_init(&p->log_targets);
	list_init(&p->servers);
	list_add_tail(&c->proxies, &p->entry);
	return p;
}

struct config_server *conf_server(struct config_proxy *p, const char *name, const struct addr *at)
{
	struct config_server *s = new_object(sizeof(*s));

	s->weight = 1;
	s->id = ++p->nr_servers;
	snprintf(s->name, sizeof(s->name), "%s", name);
	if (at)
		s->addr = *at;
	list_add_tail(&p->servers, &s->entry);
	return s;
}

void conf_log(struct config_proxy *p, const char *path)
{
	struct log_target *t = new_object(sizeof(*t));

	*t = (struct log_target){
		.kind = LOG_TARGET_UNIX,
		.format = LOG_FORMAT_RAW,
		.max_level = LOG_DEBUG,
	};
	snprintf(t->path, sizeof(t->path), "%s", path);
	list_add_tail(&p->log_targets, &t->entry);
	p->tcplog = true;
}
