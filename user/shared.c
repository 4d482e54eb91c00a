/* SPDX-License-Identifier: GPL-2.0-or-later */
/* shared.c - see shared.h. */
#include "shared.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "handover.h"
#include "util.h"

#define HEADER 4096 /* lies before what is handed out, which begins with a page */

struct header {
	size_t size; /* of all */
	int fd;	     /* -1 = none; its number is the same in all programs that see this */
};

static void *map(size_t size, int flags, int fd)
{
	struct header *p = mmap(NULL, size + HEADER, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | flags, fd, 0);

	if (p == MAP_FAILED)
		return NULL;
	*p = (struct header){ .size = size + HEADER, .fd = fd };
	return (char *)p + HEADER;
}

void *shared_new(size_t size)
{
	return map(size, MAP_ANONYMOUS, -1);
}

void *shared_new_kept(const char *name, size_t size)
{
	int fd = handover_take_fd(name);
	struct stat st;
	void *p;

	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_size != (off_t)(size + HEADER))) {
		close(fd);
		errno = EPROTO;
		return NULL;
	}
	if (fd < 0) {
		fd = memfd_create(name, MFD_CLOEXEC);
		if (fd < 0)
			return NULL;
		if (ftruncate(fd, (off_t)(size + HEADER)) < 0) {
			close(fd);
			return NULL;
		}
	}
	p = map(size, 0, fd);
	if (p)
		handover_give_fd(name, fd); /* stays open */
	else
		close(fd);
	return p;
}

void *shared_free(void *p)
{
	if (p) {
		struct header *start = (struct header *)((char *)p - HEADER);

		if (start->fd >= 0)
			close(start->fd);
		munmap(start, start->size);
	}
	return NULL;
}
