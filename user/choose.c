/* SPDX-License-Identifier: GPL-2.0-or-later */
/* choose.c - see choose.h. */
#include "choose.h"

#include "util.h"

#define YOUNG_NS (10 * NS_PER_MS)    /* age at which a session may get into the kernel */
#define BULK_BYTES (1600ull * 1000000) /* bytes per second of a thread */
#define BULK_SHARE 64		     /* a direction that brings less than one part in so many is not what the thread is busy with */
#define CROWD_SEGMENTS 10000ull	     /* segments per second of a thread */
#define CROWD_FLOWS 24		     /* directions; fewer are seldom ready in the same wake-up */
#define CROWD_SHARE 1024

const char *choose_reason_name(enum choose_reason r)
{
	switch (r) {
	case CHOOSE_HOME:
		return "home";
	case CHOOSE_FORCED:
		return "forced";
	case CHOOSE_YOUNG:
		return "young";
	case CHOOSE_BULK:
		return "bulk";
	case CHOOSE_CROWD:
		return "crowd";
	}
	return "?";
}

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load)
{
	uint64_t stay = f->in_kernel ? 1 : 2; /* who is away needs less of a reason to stay there */
	uint64_t bytes_per_s = MAX(load->bytes_per_s, f->bytes_per_s);

	if (!f->in_kernel && f->age_ns < YOUNG_NS)
		return CHOOSE_YOUNG;
	if (bytes_per_s * stay >= BULK_BYTES && f->bytes_per_s * BULK_SHARE >= bytes_per_s)
		return CHOOSE_BULK;
	if (!f->joined && load->segments_per_s >= CROWD_SEGMENTS && load->flows >= CROWD_FLOWS &&
	    f->segments_per_s * CROWD_SHARE >= load->segments_per_s)
		return CHOOSE_CROWD;
	return CHOOSE_HOME;
}
