/* SPDX-License-Identifier: GPL-2.0-or-later */
/* shared.c - see shared.h. */
#include "shared.h"

#include <sys/mman.h>

#define HEADER 4096 /* the size lies before what is handed out, which begins with a page */

void *shared_new(size_t size)
{
	size_t *p = mmap(NULL, size + HEADER, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	*p = size + HEADER;
	return (char *)p + HEADER;
}

void *shared_free(void *p)
{
	if (p) {
		size_t *start = (size_t *)((char *)p - HEADER);

		munmap(start, *start);
	}
	return NULL;
}
