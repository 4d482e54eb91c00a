/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dice_choose.c - takes the place of user/choose.c in build/shunt-dice: a daemon that throws dice for the mover of each direction, again
 * and again. No real flow changes its mover so often; none may lose a byte by it.
 *
 *	SHUNT_DICE_OUT=1	who has not joined never does: transfers are spliced
 */
#include <stdlib.h>

#include "choose.h"
#include "util.h"

const uint32_t choose_sample = 4;

const char *choose_reason_name(enum choose_reason r)
{
	return choose_is_kernel(r) ? "home" : r == CHOOSE_FORCED ? "forced" : "dice";
}

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load)
{
	static _Thread_local uint32_t state = 2463534242u;

	(void)load;
	if (!f->joined && getenv("SHUNT_DICE_OUT"))
		return CHOOSE_BULK;
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	if (!f->joined && f->age_ns < NS_PER_MS)
		return CHOOSE_YOUNG;
	return state & 1 ? CHOOSE_HOME : CHOOSE_BULK;
}
