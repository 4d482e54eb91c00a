/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_keyword.c - finds a line's keyword in the tables, or says what could have stood there. */
#include <string.h>

#include "config_parser.h"

static const struct config_keyword *const tables[] = {
	config_global_keywords,
	config_proxy_keywords,
};

#define for_each_keyword(k)                                                                        \
	for (size_t t_ = 0; t_ < ARRAY_SIZE(tables); t_++)                                         \
		for (k = tables[t_]; k->name; k++)

/* True if word is probably a misspelt name, and more so than what *best was about. */
static bool is_near(const char *word, const char *name, unsigned int *best)
{
	unsigned int d = config_distance(word, name);
	size_t len = strlen(word);

	if (d > MAX(1u, MIN(2u, len / 3)) || d >= *best)
		return false;
	*best = d;
	return true;
}

/* A name has one or two words. True if word is the first one; *ret_second is the other, or NULL. */
static bool first_word_is(const char *name, const char *word, const char **ret_second)
{
	size_t len = strcspn(name, " ");

	*ret_second = name[len] ? name + len + 1 : NULL;
	return strlen(word) == len && !strncmp(name, word, len);
}

/* The first words of all keywords of a section, or, with first, the second words after it. */
static void list_allowed(unsigned int section, const char *first, char *buf, size_t size)
{
	const char *word, *last = "";
	const struct config_keyword *k;
	size_t len = 0, n, last_n = 0;

	buf[0] = '\0';
	for_each_keyword(k) {
		if (!(k->sections & section))
			continue;
		word = k->name;
		if (first && !first_word_is(k->name, first, &word))
			continue;
		n = strcspn(word, " ");
		if (n != last_n || strncmp(last, word, n))
			len = config_append(buf, size, len, "%s%.*s", len ? ", " : "", (int)n,
					    word);
		last = word;
		last_n = n;
	}
}

/* Complains about `timeout foo` and the like. */
static void unknown_second(struct config_parser *p, const struct config_word *w, unsigned int in)
{
	const char *first = w->text;
	const char *second, *meant = NULL;
	const struct config_keyword *k;
	char allowed[200], where[64];
	unsigned int best = 99;

	if (!(in & p->section)) {
		config_fail(p, w, "%s is not allowed in this section; it belongs in %s", first,
			    config_section_names(in, where, sizeof(where)));
		return;
	}
	list_allowed(p->section, first, allowed, sizeof(allowed));
	if (!p->nr_args) {
		config_fail(p, w, "%s: a word is missing; allowed after it: %s", first, allowed);
		return;
	}
	for_each_keyword(k)
		if (k->sections & p->section && first_word_is(k->name, first, &second) &&
		    is_near(p->args->text, second, &best))
			meant = second;
	if (meant)
		config_fail(p, p->args, "unknown %s %s; did you mean '%s'?", first,
			    config_show(p->args->text).text, meant);
	else
		config_fail(p, p->args, "unknown %s %s; allowed: %s", first,
			    config_show(p->args->text).text, allowed);
}

static void unknown_first(struct config_parser *p, const struct config_word *w)
{
	const struct config_keyword *k;
	const char *meant = NULL;
	unsigned int best = 99;
	char allowed[180];

	for_each_keyword(k) {
		char first[32];

		snprintf(first, sizeof(first), "%.*s", (int)strcspn(k->name, " "), k->name);
		if (k->sections & p->section && is_near(w->text, first, &best))
			meant = k->name;
	}
	for (const struct config_section_name *s = config_sections; s->name; s++) {
		if (p->no || !is_near(w->text, s->name, &best))
			continue;
		config_fail(p, w, "unknown keyword %s; did you mean '%s'?",
			    config_show(w->text).text, s->name);
		/* its lines are meant for that section, and not for the one before */
		p->section = SECTION_SKIP;
		p->config->state->saw_frontend = true;
		return;
	}
	list_allowed(p->section, NULL, allowed, sizeof(allowed));
	if (meant)
		config_fail(p, w, "unknown keyword %s; did you mean '%.*s'?",
			    config_show(w->text).text, (int)strcspn(meant, " "), meant);
	else
		config_fail(p, w, "unknown keyword %s; allowed: %s", config_show(w->text).text,
			    allowed);
}

/*
 * Finds the keyword that begins at words[first], and sets keyword and args. What is unknown
 * or in the wrong section is reported.
 */
static bool find_keyword(struct config_parser *p, unsigned int first)
{
	const struct config_word *w = &p->words.words[first];
	unsigned int left = p->words.nr_words - first - 1;
	unsigned int first_in = 0, whole_in = 0; /* sections */
	const struct config_keyword *k;
	const char *second, *name = NULL;
	char where[64];

	p->args = w + 1;
	p->nr_args = left;
	for_each_keyword(k) {
		if (!first_word_is(k->name, w->text, &second))
			continue;
		first_in |= k->sections;
		if (second && (!left || strcmp(second, w[1].text)))
			continue;
		whole_in |= k->sections;
		name = k->name;
		if (!(k->sections & p->section))
			continue;
		p->keyword = k;
		p->args += second != NULL;
		p->nr_args -= second != NULL;
		return true;
	}
	if (name)
		config_fail(p, w, "%s is not allowed in this section; it belongs in %s", name,
			    config_section_names(whole_in, where, sizeof(where)));
	else if (first_in)
		unknown_second(p, w, first_in);
	else
		unknown_first(p, w);
	return false;
}

void config_parse_keyword(struct config_parser *p)
{
	const struct config_line *words = &p->words;
	const struct config_keyword *k;
	unsigned int max_args;

	p->no = !strcmp(p->at->text, "no");
	if (p->no && words->nr_words == 1) {
		config_fail(p, p->at,
			    "a word is missing after 'no'; write: no option NAME, or no log");
		return;
	}
	if (!find_keyword(p, p->no))
		return;
	k = p->keyword;
	if (p->proxy)
		p->proxy->said |= k->said;
	if (p->no && !k->no) {
		config_fail(p, p->at, "'no' does not go with %s; write: no option NAME, or no log",
			    k->name);
		return;
	}
	max_args = p->no ? 0 : k->max_args;
	if (p->nr_args > max_args)
		config_fail(p, p->args + max_args, "%s%s: %s is too much; write: %s%s%s%s",
			    p->no ? "no " : "", k->name, config_show(p->args[max_args].text).text,
			    p->no ? "no " : "", k->name, *k->usage && !p->no ? " " : "",
			    p->no ? "" : k->usage);
	else if (p->nr_args < k->min_args && !p->no)
		config_fail(p, p->at, "%s: a word is missing; write: %s %s", k->name, k->name,
			    k->usage);
	else
		k->parse(p);
}
