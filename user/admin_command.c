/* SPDX-License-Identifier: GPL-2.0-or-later */
/* admin_command.c - see admin_command.h. The table of commands is here; their answers are not. */
#include "admin_command.h"

#include <ctype.h>
#include <string.h>

#include "admin_show.h"
#include "config.h"
#include "util.h"

#define WORDS_MAX 16 /* no command takes as many; what comes after them is not looked at */

struct command {
	const char *words[3]; /* its name, as the client must say it */
	int level;	      /* the lowest that may use it */
	uint32_t max_args;
	void (*run)(const struct show *s);
	const char *usage, *what; /* its line in the help */
};

static void run_help(const struct show *s);

static void run_prompt(const struct show *s)
{
	s->dialog->interactive = !s->dialog->interactive;
}

static void run_quit(const struct show *s)
{
	s->dialog->closing = true;
}

/* clang-format off */
static const struct command commands[] = {
	{ { "show", "info" }, STATS_LEVEL_USER, 0, show_info,
	  "show info", "report information about the running process" },
	{ { "show", "servers", "state" }, STATS_LEVEL_USER, 1, show_servers_state,
	  "show servers state [<backend>]",
	  "dump volatile server information (all or for a single backend)" },
	{ { "show", "sess" }, STATS_LEVEL_USER, 1, show_sess,
	  "show sess [all|<id>]", "report the list of current sessions or this exact session" },
	{ { "show", "stat" }, STATS_LEVEL_USER, 5, show_stat,
	  "show stat [<px> <type> <sid>] [up]", "report counters for each proxy and server" },
	{ { "show", "version" }, STATS_LEVEL_USER, 0, show_version,
	  "show version", "show version of the current process" },
	{ { "help" }, STATS_LEVEL_USER, WORDS_MAX, run_help,
	  "help [<command>]", "list matching or all commands" },
	{ { "prompt" }, STATS_LEVEL_USER, WORDS_MAX, run_prompt,
	  "prompt", "toggle interactive mode with prompt" },
	{ { "quit" }, STATS_LEVEL_USER, WORDS_MAX, run_quit,
	  "quit", "disconnect" },
};
/* clang-format on */

static uint32_t nr_words(const struct command *c)
{
	uint32_t n = 0;

	while (n < ARRAY_SIZE(c->words) && c->words[n])
		n++;
	return n;
}

/* Do the first words of the two agree, as far as both have any? */
static bool agrees(const struct command *c, const char *const *words, uint32_t nr)
{
	for (uint32_t i = 0; i < nr && i < nr_words(c); i++) {
		if (strcmp(c->words[i], words[i]))
			return false;
	}
	return true;
}

/* Lists what this level may use of what begins with these words; if that is nothing, all. */
static void print_commands(FILE *out, int level, const char *const *words, uint32_t nr)
{
	bool any = false;

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		any = any || (commands[i].level <= level && agrees(&commands[i], words, nr));
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].level <= level && (!any || agrees(&commands[i], words, nr)))
			fprintf(out, "  %-40s: %s\n", commands[i].usage, commands[i].what);
	}
}

static void run_help(const struct show *s)
{
	fputs("The following commands are valid at this level:\n", s->out);
	print_commands(s->out, s->dialog->level, s->args, s->nr_args);
}

static void print_unknown(FILE *out, int level, const char *const *words, uint32_t nr)
{
	uint32_t left = 60; /* of what may have been a binary */

	if (!nr) {
		fputs("Unknown command. ", out);
	} else {
		fputs("Unknown command: '", out);
		for (uint32_t i = 0; i < nr && left; i++) {
			if (i)
				fputc(' ', out);
			for (const char *p = words[i]; *p && left; p++, left--)
				fputc(isascii(*p) && isprint(*p) ? *p : '?', out);
		}
		fprintf(out, "%s'. ", left ? "" : "...");
	}
	fputs("Please enter one of the following commands only:\n", out);
	print_commands(out, level, NULL, 0);
}

/*
 * Splits text at blanks, in place, as HAProxy does: a backslash takes the next character's meaning
 * away, and "#" at the start of a word begins a comment. Words past max are left out. Returns
 * their number.
 */
static uint32_t split_words(char *text, const char **words, uint32_t max)
{
	uint32_t nr = 0;
	char *to = text;

	for (;;) {
		char *begin;

		while (isspace((unsigned char)*text))
			text++;
		if (!*text || *text == '#')
			return nr;
		begin = to;
		while (*text && !isspace((unsigned char)*text)) {
			if (*text == '\\' && text[1])
				text++;
			*to++ = *text++;
		}
		if (*text)
			text++; /* before the NUL that may be put there */
		*to++ = '\0';
		if (nr == max)
			return nr;
		words[nr++] = begin;
	}
}

void admin_command(FILE *out, const struct lb *lb, struct admin_dialog *d, char *text)
{
	const char *words[WORDS_MAX];
	uint32_t nr = split_words(text, words, WORDS_MAX);

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const struct command *cmd = &commands[i];
		uint32_t own = nr_words(cmd);
		struct show s = { .out = out, .lb = lb, .dialog = d };

		if (nr < own || !agrees(cmd, words, nr))
			continue;
		s.args = words + own;
		s.nr_args = nr - own;
		if (cmd->level > d->level)
			fputs("Permission denied\n", out);
		else if (s.nr_args > cmd->max_args)
			fprintf(out, "Too many arguments. Usage: %s\n", cmd->usage);
		else
			cmd->run(&s);
		return;
	}
	print_unknown(out, d->level, words, nr);
}
