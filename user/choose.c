/* SPDX-License-Identifier: GPL-2.0-or-later */
/* choose.c - see choose.h. */
#include "choose.h"

#include "util.h"

#define YOUNG_NS (50 * NS_PER_MS)   /* age at which a session may get into the kernel; */
#define GROWN_NS (1000 * NS_PER_MS) /* and of one that may be bulk */
#define BULK_STAY                                                                                  \
	(100ull *                                                                                  \
	 1000000) /* bytes per second of a thread: so much keeps a session out of the kernel, */
#define BULK_LEAVE (1600ull * 1000000) /* so much makes a joined direction leave, */
#define BULK_RETURN (800ull * 1000000) /* and less than this lets it come back */
#define BULK_FLOW (500ull * 1000)      /* bytes per second of a direction, */
#define BULK_SIZE 1024u /* and bytes of a segment or read: with less it is not part of the bulk */
#define CROWD_SEGMENTS 10000ull /* segments per second of a thread */
#define CROWD_FLOWS 24		/* directions; fewer are seldom ready in the same wake-up */
#define CROWD_SHARE 1024

const uint32_t choose_sample = 1024;

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

static bool is_large(const struct choose_flow *f)
{
	return f->bytes_per_s >= BULK_FLOW && f->bytes_per_s >= f->segments_per_s * BULK_SIZE;
}

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load)
{
	uint64_t bulk = !f->joined ? BULK_STAY : f->in_kernel ? BULK_LEAVE : BULK_RETURN;

	if (!f->joined && f->age_ns < (is_large(f) ? GROWN_NS : YOUNG_NS))
		return CHOOSE_YOUNG;
	if (MAX(load->bytes_per_s, f->bytes_per_s) >= bulk && is_large(f))
		return CHOOSE_BULK;
	if (!f->joined && load->segments_per_s >= CROWD_SEGMENTS && load->flows >= CROWD_FLOWS &&
	    f->segments_per_s * CROWD_SHARE >= load->segments_per_s)
		return CHOOSE_CROWD;
	return CHOOSE_HOME;
}
