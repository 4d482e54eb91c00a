/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qualify.h - may this kernel be trusted with bytes? A private loopback session through the real program, before the first client.
 */
#ifndef SHUNT_QUALIFY_H
#define SHUNT_QUALIFY_H

#include <stddef.h>

#include "sock.h"
#include "splice.h"

/*
 * Uses session 0 of sp, which must be unused, and leaves it unused. Checks, in under 200 ms: bytes that came before the join and
 * the kick; 512 KB through a small send buffer, byte for byte; the accounting identity of sock_written(); that a bare FIN
 * does no harm and the other direction goes on; that PASS closes the window. Returns 0, or -errno with why[] saying what the kernel did wrong (-EBADMSG) or
 * what could not be tried. *ret_unread: how the kernel tells what was passed and not read, so that
 * a worker can take a session over.
 */
int qualify(struct splice *sp, enum sock_unread *ret_unread, char *why, size_t size);

#endif
