/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz_config.c - any bytes as a configuration: they are taken or refused with a printable reason.
 *
 * A byte 0x1e, which no line may hold, cuts the input into two files.
 */
#include "config.h"
#include "fuzz.h"

static void check_errors(const struct config *c)
{
	char line[512];

	CHECK(c->nr_errors <= CONFIG_ERRORS_MAX);
	for (size_t i = 0; i < c->nr_errors; i++) {
		const struct config_error *e = &c->errors[i];

		CHECK(e->text[0]);
		for (const char *t = config_error_format(e, line, sizeof(line)); *t; t++)
			CHECK(*t >= ' ' && *t < 0x7f);
		CHECK(e->file && (e->line || !e->column));
		CHECK(e->column <= 2049);
	}
}

/* What the rest of the daemon takes for granted of a configuration without errors. */
static void check_usable(const struct config *c)
{
	unsigned int nr_proxies = 0, nr_frontends = 0;
	const struct config_server *s;
	const struct config_proxy *p;
	const struct config_bind *b;

	list_for_each (p, &c->proxies, entry) {
		unsigned int nr_servers = 0, nr_binds = 0;

		CHECK(p->id == ++nr_proxies && p->name[0] && p->caps && p->file && p->line);
		list_for_each (s, &p->servers, entry) {
			CHECK(s->id == ++nr_servers && s->name[0] && addr_port(&s->addr));
			CHECK(s->weight <= CONFIG_WEIGHT_MAX);
		}
		list_for_each (b, &p->binds, entry) {
			nr_binds++;
			CHECK(addr_port(&b->addr));
		}
		CHECK(nr_servers == p->nr_servers && nr_binds == p->nr_binds);
		CHECK(p->timeout.connect && p->timeout.connect <= CONFIG_TIME_MAX_MS);
		if (p->disabled || !(p->caps & PROXY_FRONTEND))
			continue;
		nr_frontends++;
		CHECK(nr_binds && p->backend && p->backend->caps & PROXY_BACKEND);
	}
	CHECK(nr_proxies == c->nr_proxies && nr_frontends);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *cut = size ? memchr(text, 0x1e, size) : NULL;
	struct config *c = config_new(0);

	CHECK(c);
	CHECK(!config_parse(c, "a", text, cut ? (size_t)(cut - text) : size));
	if (cut)
		CHECK(!config_parse(c, "b", cut + 1, (size_t)(text + size - cut - 1)));
	if (!config_finish(c))
		check_usable(c);
	else
		CHECK(c->nr_fatal && c->nr_errors);
	check_errors(c);
	config_free(c);
	return 0;
}
