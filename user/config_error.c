/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_error.c - how the configuration parser words and keeps its complaints. */
#include <stdarg.h>
#include <string.h>

#include "config_parser.h"

static void PRINTF(6, 0) add(struct config *c, const char *file, unsigned int line,
			     unsigned int column, bool warning, const char *fmt, va_list ap)
{
	struct config_error *e;

	if (!warning)
		c->nr_fatal++;
	if (c->nr_errors == CONFIG_ERRORS_MAX)
		return;
	e = &c->errors[c->nr_errors++];
	*e = (struct config_error){
		.file = file, .line = line, .column = column, .warning = warning
	};
	if ((size_t)vsnprintf(e->text, sizeof(e->text), fmt, ap) >= sizeof(e->text))
		strcpy(e->text + sizeof(e->text) - 4, "...");
}

void config_error_at(struct config *c, const char *file, unsigned int line, unsigned int column,
		     bool warning, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(c, file, line, column, warning, fmt, ap);
	va_end(ap);
}

void config_fail(struct config_parser *p, const struct config_word *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(p->config, p->file, p->line, at->column, false, fmt, ap);
	va_end(ap);
}

size_t config_append(char *buf, size_t size, size_t len, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf + len, size - len, fmt, ap);
	va_end(ap);
	if (n < 0 || len + (size_t)n < size)
		return len + (size_t)MAX(n, 0);
	memcpy(buf + size - 4, "...", 4);
	return size - 1;
}

struct config_shown config_show(const char *text)
{
	struct config_shown shown = { .text = "'" };
	char *out = shown.text + 1;
	/* what is left of the room must hold "...'" and its NUL after one more escape */
	const char *end = shown.text + sizeof(shown.text) - 5 - 4;

	for (; *text && out < end; text++) {
		unsigned char c = (unsigned char)*text;

		if (c >= ' ' && c < 0x7f)
			*out++ = (char)c;
		else
			out += sprintf(out, "\\x%02x", c);
	}
	strcpy(out, *text ? "...'" : "'");
	return shown;
}

unsigned int config_distance(const char *a, const char *b)
{
	enum { LONGEST = 32 };
	unsigned int d[LONGEST + 1][LONGEST + 1];
	size_t len_a = strlen(a), len_b = strlen(b);

	if (len_a > LONGEST || len_b > LONGEST)
		return 99;
	for (size_t i = 0; i <= len_a; i++)
		d[i][0] = (unsigned int)i;
	for (size_t j = 0; j <= len_b; j++)
		d[0][j] = (unsigned int)j;
	for (size_t i = 1; i <= len_a; i++) {
		for (size_t j = 1; j <= len_b; j++) {
			unsigned int change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			d[i][j] = MIN(change, MIN(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
		}
	}
	return d[len_a][len_b];
}

const char *config_section_names(unsigned int sections, char *buf, size_t size)
{
	static const struct {
		unsigned int section;
		const char *name;
	} names[] = {
		{ SECTION_GLOBAL, "global" },	{ SECTION_DEFAULTS, "defaults" },
		{ SECTION_LISTEN, "listen" },	{ SECTION_FRONTEND, "frontend" },
		{ SECTION_BACKEND, "backend" },
	};
	size_t len = 0;

	buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(sections & names[i].section))
			continue;
		sections &= ~names[i].section;
		len = config_append(buf, size, len, "%s%s",
				    !len       ? ""
				    : sections ? ", "
					       : " or ",
				    names[i].name);
	}
	return buf;
}

const char *config_error_format(const struct config_error *e, char *buf, size_t size)
{
	char place[32] = "";

	if (e->line && e->column)
		snprintf(place, sizeof(place), "%u:%u:", e->line, e->column);
	else if (e->line)
		snprintf(place, sizeof(place), "%u:", e->line);
	snprintf(buf, size, "%s%s%s%s%s: %s", e->file ? e->file : "", e->file ? ":" : "", place,
		 e->file || e->line ? " " : "", e->warning ? "warning" : "error", e->text);
	return buf;
}
