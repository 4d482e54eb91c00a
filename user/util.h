/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * util.h - the few things that every module needs: cleanup attributes, sizes, clocks.
 * Owns nothing. Header only, nothing but libc.
 */
#ifndef SHUNT_UTIL_H
#define SHUNT_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

static inline void close_cleanup(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void free_cleanup(void *ptr)
{
	free(*(void **)ptr);
}

static inline void fclose_cleanup(FILE **file)
{
	if (*file)
		fclose(*file);
}

#define __cleanup_close __attribute__((cleanup(close_cleanup)))
#define __cleanup_free __attribute__((cleanup(free_cleanup)))
#define __cleanup_fclose __attribute__((cleanup(fclose_cleanup)))

/* Moves a descriptor (or a pointer) out of a variable that has a cleanup. */
static inline int take_fd(int *fd)
{
	int ret = *fd;

	*fd = -EBADF;
	return ret;
}

static inline void *take_ptr_(void **ptr)
{
	void *ret = *ptr;

	*ptr = NULL;
	return ret;
}
#define take_ptr(ptr) ((__typeof__(*(ptr)))take_ptr_((void **)(ptr)))

/* Monotonic time in nanoseconds; never goes back, does not count suspend. */
static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull
#define NS_PER_SEC 1000000000ull

#endif
