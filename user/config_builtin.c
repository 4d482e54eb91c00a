/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_builtin.c - the configuration that the command line's --listen and --server stand for. */
#include <string.h>

#include "config.h"
#include "util.h"

/* Each byte of an argument takes at most four, and each line's own words fewer than 40. */
static size_t room(const char *const *args, size_t nr)
{
	size_t size = 0;

	for (size_t i = 0; i < nr; i++)
		size += 4 * strlen(args[i]) + 40;
	return size;
}

/* Appends one argument as one word, whatever it holds. Returns its end. */
static char *quote(char *out, const char *arg)
{
	if (!*arg)
		return stpcpy(out, "''");
	for (; *arg; arg++) {
		unsigned char c = (unsigned char)*arg;

		if (c > ' ' && c < 0x7f && !strchr("\\#'\"$", c))
			*out++ = (char)c;
		else
			out += sprintf(out, "\\x%02x", c);
	}
	return out;
}

char *config_builtin(const char *const *listens, size_t nr_listens, const char *const *servers,
		     size_t nr_servers)
{
	char *text, *out;

	text = malloc(room(listens, nr_listens) + room(servers, nr_servers) + 40);
	if (!text)
		return NULL;
	out = stpcpy(text, "listen shunt\n");
	for (size_t i = 0; i < nr_listens; i++) {
		out = quote(stpcpy(out, "\tbind "), listens[i]);
		out = stpcpy(out, "\n");
	}
	for (size_t i = 0; i < nr_servers; i++) {
		out += sprintf(out, "\tserver s%zu ", i + 1);
		out = quote(out, servers[i]);
		out = stpcpy(out, "\n");
	}
	return text;
}
