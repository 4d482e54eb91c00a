/* SPDX-License-Identifier: GPL-2.0-or-later */
/* handover.c - see handover.h. */
#include "handover.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "fdtable.h"
#include "util.h"

#define HEADER "shunt-handover 1\n"
#define SIZE_MAX_BYTES (1024 * 1024)
#define NAME_FORMAT "%159s" /* HANDOVER_NAME_MAX */

struct item {
	char name[HANDOVER_NAME_MAX];
	bool is_fd;
	uint64_t number; /* or the descriptor */
};

struct items {
	struct item *items;
	size_t nr;
	bool incomplete;
};

static struct items given, giving;
static enum handover_kind kind_of_this;

/* A name is one word in the list. */
static bool is_same(const char *item, const char *name)
{
	for (; *item && *name; item++, name++)
		if (*item != (isspace((unsigned char)*name) ? '_' : *name))
			return false;
	return *item == *name;
}

static struct item *find(struct items *l, const char *name, bool is_fd)
{
	for (size_t i = 0; i < l->nr; i++)
		if (l->items[i].is_fd == is_fd && is_same(l->items[i].name, name))
			return &l->items[i];
	return NULL;
}

static int set(struct items *l, const char *name, bool is_fd, uint64_t number)
{
	struct item *item = find(l, name, is_fd), *more;

	if (!item) {
		if (!*name || strlen(name) >= HANDOVER_NAME_MAX)
			return -ENAMETOOLONG;
		more = reallocarray(l->items, l->nr + 1, sizeof(*more));
		if (!more)
			return -ENOMEM;
		l->items = more;
		item = &more[l->nr++];
		*item = (struct item){ .is_fd = is_fd };
		for (size_t i = 0; name[i]; i++)
			item->name[i] = isspace((unsigned char)name[i]) ? '_' : name[i];
	}
	item->number = number;
	return 0;
}

/* ---- what was given ---- */

static int parse_line(const char *line)
{
	char kind[8], name[HANDOVER_NAME_MAX];
	uint64_t number;
	int end = 0;

	if (sscanf(line, "%7s " NAME_FORMAT " %" SCNu64 "%n", kind, name, &number, &end) != 3 || line[end])
		return -EPROTO;
	if (!strcmp(kind, "number"))
		return set(&given, name, false, number);
	if (strcmp(kind, "fd") || number <= STDERR_FILENO || number > INT32_MAX || fcntl((int)number, F_GETFD) < 0)
		return -EPROTO;
	return set(&given, name, true, number);
}

static int parse(char *text)
{
	char *line = text, *newline;

	if (strncmp(text, "shunt-handover ", strlen("shunt-handover ")))
		return -EPROTO;
	if (strncmp(text, HEADER, strlen(HEADER)))
		return -EPROTONOSUPPORT;
	for (line += strlen(HEADER); *line; line = newline + 1) {
		int r;

		newline = strchr(line, '\n');
		if (!newline)
			return -EPROTO;
		*newline = '\0';
		r = parse_line(line);
		if (r < 0)
			return r;
	}
	return 0;
}

static int read_all(int fd, char **ret)
{
	__cleanup_free char *text = calloc(1, SIZE_MAX_BYTES + 1);
	size_t len = 0;
	ssize_t n;

	if (!text)
		return -ENOMEM;
	while ((n = pread(fd, text + len, SIZE_MAX_BYTES - len, (off_t)len)) > 0)
		len += (size_t)n;
	if (n < 0)
		return -errno;
	if (strlen(text) != len)
		return -EPROTO;
	*ret = take_ptr(&text);
	return 0;
}

int handover_read(void)
{
	const char *value = getenv(HANDOVER_VARIABLE);
	__cleanup_free char *text = NULL;
	__cleanup_close int fd = -EBADF;
	char kind[8];
	int r, end = 0;

	if (!value)
		return HANDOVER_NONE;
	if (sscanf(value, "%7[a-z]:%d%n", kind, &fd, &end) != 2 || value[end] || fd <= STDERR_FILENO || (strcmp(kind, "trial") && strcmp(kind, "take"))) {
		fd = -EBADF;
		return -EPROTO;
	}
	r = strcmp(kind, "take") ? HANDOVER_TRIAL : HANDOVER_TAKE;
	unsetenv(HANDOVER_VARIABLE);
	end = read_all(fd, &text);
	if (end < 0)
		return end;
	if (r == HANDOVER_TAKE)
		end = fdtable_disown_all();
	fdtable_own(fd);
	if (end == 0)
		end = parse(text);
	if (end < 0)
		return end;
	kind_of_this = (enum handover_kind)r;
	return r;
}

enum handover_kind handover_kind(void)
{
	return kind_of_this;
}

int handover_take_fd(const char *name)
{
	struct item *item = find(&given, name, true);
	int fd;

	if (!item)
		return -1;
	fd = (int)item->number;
	*item = given.items[--given.nr];
	fdtable_own(fd);
	return fd;
}

bool handover_number(const char *name, uint64_t *ret)
{
	const struct item *item = find(&given, name, false);

	if (item)
		*ret = item->number;
	return item;
}

/* ---- what will be given ---- */

void handover_give_fd(const char *name, int fd)
{
	if (set(&giving, name, true, (uint64_t)fd) < 0)
		giving.incomplete = true;
}

void handover_give_number(const char *name, uint64_t number)
{
	if (set(&giving, name, false, number) < 0)
		giving.incomplete = true;
}

void handover_withdraw_fd(const char *name)
{
	struct item *item = find(&giving, name, true);

	if (item)
		*item = giving.items[--giving.nr];
}

int handover_write(enum handover_kind kind)
{
	__cleanup_close int fd = memfd_create("shunt-handover", 0);
	char value[32];

	if (fd < 0)
		return -errno;
	if (giving.incomplete)
		return -ENOMEM;
	if (dprintf(fd, "%s", HEADER) < 0)
		return -errno;
	for (size_t i = 0; i < giving.nr; i++) {
		const struct item *item = &giving.items[i];

		if (item->is_fd && kind == HANDOVER_TRIAL)
			continue;
		if (dprintf(fd, "%s %s %" PRIu64 "\n", item->is_fd ? "fd" : "number", item->name, item->number) < 0)
			return -errno;
	}
	snprintf(value, sizeof(value), "%s:%d", kind == HANDOVER_TAKE ? "take" : "trial", fd);
	if (setenv(HANDOVER_VARIABLE, value, 1) < 0)
		return -errno;
	return take_fd(&fd);
}

void handover_done(void)
{
	free(given.items);
	free(giving.items);
	given = giving = (struct items){ 0 };
	kind_of_this = HANDOVER_NONE;
}
