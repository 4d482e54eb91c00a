/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * scaled_choose.c - takes the place of user/choose.c in build/shunt-scaled: the same decisions,
 * made as if everything were a hundred times as fast as it is. So 16 MB/s have the effect of 1.6
 * GB/s, and a test of what a fast flow does needs no fast machine.
 */
#define choose choose_unscaled
#define choose_sample choose_sample_unscaled
#include "../../user/choose.c"
#undef choose
#undef choose_sample

#define SCALE 100

extern const uint32_t choose_sample;
enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load);

const uint32_t choose_sample = 16; /* it is looked at more often too, since less comes */

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load)
{
	struct choose_flow flow = *f;
	struct choose_load all = *load;

	flow.bytes_per_s *= SCALE;
	flow.segments_per_s *= SCALE;
	all.bytes_per_s *= SCALE;
	all.segments_per_s *= SCALE;
	all.busy = MIN(all.busy * SCALE, 1000u);
	return choose_unscaled(&flow, &all);
}
