/* SPDX-License-Identifier: GPL-2.0-or-later */
/* no_kernel_path.c - for tests of a whole balancer whose configuration switches the kernel path off: nobody may ask for it. Beside fake_splice.c, which has the rest. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "qualify.h"
#include "splice.h"

int splice_new(struct splice **ret, const struct splice_options *o, char *why, size_t size)
{
	(void)ret, (void)o, (void)why, (void)size;
	fail_msg("splice_new");
	return -EPERM;
}

int qualify(struct splice *sp, enum sock_unread *ret_unread, char *why, size_t size)
{
	*ret_unread = SOCK_UNREAD_TOLD;
	(void)sp, (void)why, (void)size;
	fail_msg("qualify");
	return -EPERM;
}
