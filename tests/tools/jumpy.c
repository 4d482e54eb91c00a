/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * jumpy.c - linked into build/shunt-jumpy: a daemon whose clock, the one that tells the date, is put forward or back by somebody: by the number of
 * seconds (8 bytes, a signed integer of this machine) in the file SHUNT_CLOCK, now. (The linker puts these functions in the place of libc's:
 * --wrap, see the Makefile.) A kernel's own clock would be everybody's.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static const int64_t *offset;

static __attribute__((constructor)) void begin(void)
{
	const char *path = getenv("SHUNT_CLOCK");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		abort();
	offset = map;
}

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
time_t __real_time(time_t *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
time_t __wrap_time(time_t *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = __real_clock_gettime(clock, ret);

	if (r == 0 && clock == CLOCK_REALTIME)
		ret->tv_sec += *offset;
	return r;
}

time_t __wrap_time(time_t *ret)
{
	time_t now = __real_time(NULL) + *offset;

	if (ret)
		*ret = now;
	return now;
}
