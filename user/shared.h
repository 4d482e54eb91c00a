/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shared.h - memory that outlives a worker: the supervisor and all its workers see the same, at the same address.
 *
 * For what the next worker needs as the last one left it. Pointers in it are good only to what was there before the first worker began.
 */
#ifndef SHUNT_SHARED_H
#define SHUNT_SHARED_H

#include <stddef.h>

/* Zeroed; NULL and errno without memory. Each takes whole pages: for few and large things. */
void *shared_new(size_t size);

/*
 * The same, and what takes this process's place sees it too (handover.h), by its name, maybe at another address: so nothing in it may be a pointer. It
 * is what an earlier process has left under that name, if there was one; EPROTO if that has another size.
 */
void *shared_new_kept(const char *name, size_t size);

/* Accepts NULL, returns NULL. */
void *shared_free(void *p);

#endif
