/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_value.c - words of the configuration into numbers, times, sizes, names and addresses. */
#include <string.h>

#include "config_parser.h"

/*
 * Reads digits. Returns the first byte after them, or NULL if there are none; a number that does
 * not fit 32 bits is returned as UINT64_MAX. So small numbers can be multiplied by any unit.
 */
static const char *digits(const char *text, uint64_t *ret)
{
	uint64_t n = 0;

	if (*text < '0' || *text > '9')
		return NULL;
	for (; *text >= '0' && *text <= '9'; text++)
		n = n > UINT32_MAX ? n : n * 10 + (uint64_t)(*text - '0');
	*ret = n > UINT32_MAX ? UINT64_MAX : n;
	return text;
}

bool config_number(struct config_parser *p, const struct config_word *w, const char *what,
		   unsigned int min, unsigned int max, unsigned int *ret)
{
	const char *end;
	uint64_t n;

	end = digits(w->text, &n);
	if (!end || *end || n < min || n > max) {
		config_fail(p, w, "%s takes a number from %u to %u, not %s", what, min, max,
			    config_show(w->text).text);
		return false;
	}
	*ret = (unsigned int)n;
	return true;
}

bool config_time(struct config_parser *p, const struct config_word *w, const char *what,
		 unsigned int *ret)
{
	static const struct {
		const char *name;
		uint64_t us;
	} units[] = {
		{ "", 1000 },
		{ "us", 1 },
		{ "ms", 1000 },
		{ "s", 1000000 },
		{ "m", 60000000ull },
		{ "h", 3600000000ull },
		{ "d", 86400000000ull },
	};
	const char *unit;
	uint64_t n;

	unit = digits(w->text, &n);
	for (size_t i = 0; unit && i < ARRAY_SIZE(units); i++) {
		if (strcmp(unit, units[i].name))
			continue;
		if (n > CONFIG_TIME_MAX_MS * 1000ull / units[i].us) {
			config_fail(p, w, "%s takes at most 24d, not %s", what,
				    config_show(w->text).text);
			return false;
		}
		*ret = (unsigned int)((n * units[i].us + 999) / 1000);
		return true;
	}
	config_fail(p, w,
		    "%s takes a time, a number with us, ms, s, m, h or d (ms without), not %s",
		    what, config_show(w->text).text);
	return false;
}

bool config_size(struct config_parser *p, const struct config_word *w, const char *what,
		 uint64_t min, uint64_t max, uint64_t *ret)
{
	unsigned int shift = 0;
	const char *end;
	uint64_t n;

	end = digits(w->text, &n);
	if (end && (*end == 'k' || *end == 'm' || *end == 'g')) {
		shift = *end == 'k' ? 10 : *end == 'm' ? 20 : 30;
		end++;
	}
	if (!end || *end || n > UINT32_MAX || n << shift < min || n << shift > max) {
		config_fail(p, w, "%s takes a size from %luk to %luk (units: k, m, g), not %s", what,
			    (unsigned long)(min >> 10), (unsigned long)(max >> 10), config_show(w->text).text);
		return false;
	}
	*ret = n << shift;
	return true;
}

bool config_name(struct config_parser *p, const struct config_word *w, char ret[CONFIG_NAME_MAX])
{
	size_t len = strspn(w->text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789_.:-");

	if (!len || w->text[len] || len >= CONFIG_NAME_MAX) {
		config_fail(p, w,
			    "the name %s: a name has 1 to %d letters, digits, '_', '.', ':' "
			    "or '-'",
			    config_show(w->text).text, CONFIG_NAME_MAX - 1);
		return false;
	}
	memcpy(ret, w->text, len + 1);
	return true;
}

bool config_string(struct config_parser *p, const struct config_word *w, const char *what,
		   char *ret, size_t size)
{
	size_t len = strlen(w->text);

	for (const char *c = w->text; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f) {
			config_fail(p, w, "%s must not hold control bytes: %s", what,
				    config_show(w->text).text);
			return false;
		}
	}
	if (!len || len >= size) {
		config_fail(p, w, "%s has 1 to %zu bytes, not %zu", what, size - 1, len);
		return false;
	}
	memcpy(ret, w->text, len + 1);
	return true;
}

bool config_path(struct config_parser *p, const struct config_word *w, const char *what, char *ret,
		 size_t size)
{
	struct config_word path = *w;

	if (!strncmp(path.text, "unix@", 5))
		path.text += 5;
	if (path.text[strcspn(path.text, "/@")] != '/') {
		config_fail(p, w, "%s must be a path with a '/', not %s", what,
			    config_show(w->text).text);
		return false;
	}
	return config_string(p, &path, what, ret, size);
}

bool config_choice(struct config_parser *p, const struct config_word *w, const char *what,
		   const char *const *choices, unsigned int *ret)
{
	char list[200] = "";
	size_t len = 0;

	for (unsigned int i = 0; choices[i]; i++) {
		if (!strcmp(choices[i], w->text)) {
			*ret = i;
			return true;
		}
		len = config_append(list, sizeof(list), len, "%s%s", i ? " " : "", choices[i]);
	}
	config_fail(p, w, "unknown %s %s; allowed: %s", what, config_show(w->text).text, list);
	return false;
}

/* What a reader of HAProxy's manual might have written, or NULL. */
static const char *foreign_address(const char *text)
{
	const char *port = strrchr(text, ':');

	if (strchr(text, '/') || !strncmp(text, "unix@", 5) || !strncmp(text, "abns@", 5))
		return "unix sockets are not supported";
	if (strchr(text, '@') && strncmp(text, "ipv4@", 5) && strncmp(text, "ipv6@", 5))
		return "only the prefixes ipv4@ and ipv6@ are supported";
	if (port && (port[1] == '+' || port[1] == '-'))
		return "relative ports are not supported";
	if (port && strchr(port, '-'))
		return "port ranges are not supported";
	return NULL;
}

bool config_addr(struct config_parser *p, const struct config_word *w, const char *text,
		 const char *wanted, unsigned int flags, struct addr *ret)
{
	const char *port = strrchr(text, ':'), *why;
	size_t len = strlen(text);
	int r;

	if (p->config->state->flags & CONFIG_RESOLVE)
		flags |= ADDR_RESOLVE;
	why = foreign_address(text);
	r = why ? -EINVAL : addr_parse(ret, text, flags);
	if (!r)
		return true;

	if (!why && r == -ENOENT)
		why = "the name does not resolve";
	else if (!why && len && (!port || !port[1] || text[len - 1] == ']'))
		why = "the port is missing";
	else if (!why && port && (r == -ERANGE || port[1 + strspn(port + 1, "0123456789")]))
		why = "a port is a number from 1 to 65535";
	else if (!why)
		why = "this is not an address";
	config_fail(p, w, "%s: %s; allowed: %s", config_show(text).text, why, wanted);
	return false;
}
