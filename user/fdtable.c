/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fdtable.c - see fdtable.h. */
#include "fdtable.h"

#include <dirent.h>
#include <string.h>

#include "util.h"

static uint64_t *bits; /* one for each descriptor that is to stay */
static uint32_t nr_words;

int fdtable_keep(int fd)
{
	uint32_t words = (uint32_t)fd / 64 + 1;

	if (fd < 0)
		return 0;
	if (words > nr_words) {
		uint64_t *more = reallocarray(bits, words, sizeof(*bits));

		if (!more)
			return -ENOMEM;
		memset(more + nr_words, 0, (words - nr_words) * sizeof(*bits));
		bits = more;
		nr_words = words;
	}
	bits[fd / 64] |= 1ull << (fd % 64);
	return 0;
}

void fdtable_drop(int fd)
{
	if (fd >= 0 && (uint32_t)fd / 64 < nr_words)
		bits[fd / 64] &= ~(1ull << (fd % 64));
}

static bool is_kept(int fd)
{
	return (uint32_t)fd / 64 < nr_words && (bits[fd / 64] >> (fd % 64) & 1);
}

/* Calls fn for each open descriptor but its own, until it returns a negative number. Returns the sum of what it returned, or that. */
static int each(int (*fn)(void *arg, int fd), void *arg)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	int sum = 0;

	if (!dir)
		return -errno;
	while (sum >= 0 && (e = readdir(dir))) {
		int fd = atoi(e->d_name), r = 0;

		if (e->d_name[0] != '.' && fd != dirfd(dir))
			r = fn(arg, fd);
		sum = r < 0 ? r : sum + r;
	}
	closedir(dir);
	return sum;
}

static int keep(void *arg, int fd)
{
	(void)arg;
	return fdtable_keep(fd);
}

int fdtable_keep_all(void)
{
	return each(keep, NULL);
}

struct sweep {
	bool (*spare)(void *arg, int fd);
	void *arg;
};

static int close_other(void *arg, int fd)
{
	struct sweep *s = arg;

	if (is_kept(fd) || s->spare(s->arg, fd))
		return 0;
	close(fd);
	return 1;
}

int fdtable_sweep(bool (*spare)(void *arg, int fd), void *arg)
{
	return each(close_other, &(struct sweep){ spare, arg });
}

void fdtable_done(void)
{
	free(bits);
	bits = NULL;
	nr_words = 0;
}
