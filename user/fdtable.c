/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fdtable.c - see fdtable.h. */
#include "fdtable.h"

#include <fcntl.h>
#include <stdio.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "util.h"

struct set {
	uint64_t *bits; /* one for each descriptor */
	uint32_t nr_words;
};

static struct set kept; /* are to stay */
static struct set others; /* were open when the process began, and nobody has asked for them */
static int measured;	  /* the size of the table; 0 = it was not */

static int add(struct set *set, int fd)
{
	uint32_t words = (uint32_t)fd / 64 + 1;

	if (fd < 0)
		return 0;
	if (words > set->nr_words) {
		uint64_t *more = reallocarray(set->bits, words, sizeof(*set->bits));

		if (!more)
			return -ENOMEM;
		memset(more + set->nr_words, 0, (words - set->nr_words) * sizeof(*set->bits));
		set->bits = more;
		set->nr_words = words;
	}
	set->bits[fd / 64] |= 1ull << (fd % 64);
	return 0;
}

static void take_out(struct set *set, int fd)
{
	if (fd >= 0 && (uint32_t)fd / 64 < set->nr_words)
		set->bits[fd / 64] &= ~(1ull << (fd % 64));
}

static bool has(const struct set *set, int fd)
{
	return (uint32_t)fd / 64 < set->nr_words && (set->bits[fd / 64] >> (fd % 64) & 1);
}

int fdtable_keep(int fd)
{
	return add(&kept, fd);
}

void fdtable_drop(int fd)
{
	take_out(&kept, fd);
}

bool fdtable_has(int fd)
{
	return has(&kept, fd);
}

void fdtable_own(int fd)
{
	take_out(&others, fd);
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

void fdtable_measure(void)
{
	measured = MAX(table_size(), 0);
}

/*
 * Calls fn for each open descriptor, until it returns a negative number. Returns the sum of what it returned, or that. (With thousands of
 * them, to ask for each number takes a tenth of the time of reading /proc/self/fd.)
 */
static int each(int (*fn)(void *arg, int fd), void *arg)
{
	int size = measured ?: table_size(), sum = 0;

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
	return has(&others, fd) ? 0 : fdtable_keep(fd);
}

static int disown(void *arg, int fd)
{
	(void)arg;
	if (fd <= STDERR_FILENO)
		return 0;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return add(&others, fd);
}

static int inherit(void *arg, int fd)
{
	const bool *yes = arg;

	return fd > STDERR_FILENO && fcntl(fd, F_SETFD, *yes ? 0 : FD_CLOEXEC) < 0 ? -errno : 0;
}

int fdtable_disown_all(void)
{
	return each(disown, NULL);
}

int fdtable_inherit_all(bool yes)
{
	return each(inherit, &yes);
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

	if (has(&kept, fd) || s->spare(s->arg, fd))
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
	free(kept.bits);
	free(others.bits);
	kept = others = (struct set){ 0 };
}
