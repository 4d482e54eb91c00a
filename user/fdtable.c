/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fdtable.c - see fdtable.h. */
#include "fdtable.h"

#include <fcntl.h>
#include <stdio.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

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

/* The kernel's table has no more descriptors than that (kernel: fs/proc/array.c). If it cannot be read, the limit is right too, and dearer. */
static int table_size(void)
{
	char line[200];
	FILE *f = fopen("/proc/self/status", "re");
	struct rlimit limit;
	int size = -1;

	while (f && size < 0 && fgets(line, sizeof(line), f))
		if (sscanf(line, "FDSize: %d", &size) != 1)
			size = -1;
	if (f)
		fclose(f);
	if (size < 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0)
		size = (int)MIN(limit.rlim_cur, (rlim_t)INT_MAX);
	return size < 0 ? -errno : size;
}

/*
 * Calls fn for each open descriptor, until it returns a negative number. Returns the sum of what it returned, or that. (With thousands of
 * them, to ask for each number takes a tenth of the time of reading /proc/self/fd.)
 */
static int each(int (*fn)(void *arg, int fd), void *arg)
{
	int size = table_size(), sum = 0;

	if (size < 0)
		return size;
	for (int fd = 0; fd < size; fd++) {
		int r = fcntl(fd, F_GETFD) < 0 ? 0 : fn(arg, fd);

		if (r < 0)
			return r;
		sum += r;
	}
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
