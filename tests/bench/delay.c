/* SPDX-License-Identifier: GPL-2.0-or-later */
/* delay.c - see load.h. */
#include "load.h"

int mode_delay(const struct options *o)
{
	(void)o;
	failed("not yet");
}
