/* SPDX-License-Identifier: GPL-2.0-or-later */
/* choose.c - see choose.h. */
#include "choose.h"

#include "util.h"

/*
 * Ages at which a session may get into the kernel; the second one if it may be bulk, or a part of it that got no turn yet; the third one if
 * its thread is busy besides.
 */
#define YOUNG_NS (50 * NS_PER_MS)
#define SEEN_NS (500 * NS_PER_MS)
#define GROWN_NS (1000 * NS_PER_MS)

/*
 * Bytes per second of a thread: as many keep a session out of the kernel if the thread is busy, make a joined direction leave, and with less
 * than the third it comes back.
 */
#define BULK_STAY (160ull * 1000000)
#define BULK_LEAVE (1600ull * 1000000)
#define BULK_RETURN (800ull * 1000000)

/* Per mille of its time. A thread that waits for more than the rest of it is not what limits its transfers. */
#define BUSY 600u

/* Or it saturates something else: with spliced pages a thread has time left when the hosts beside it have none. More than a lone echo makes of it. */
#define BULK_SURE (800ull * 1000000)

/* What brings fewer bytes per second, or fewer in a segment or read, is not part of the bulk. */
#define BULK_FLOW (500ull * 1000)
#define BULK_SIZE 1024u

/*
 * Segments per second of a thread, and its active directions: with fewer of these they are seldom ready in the same wake-up. One that
 * has less than one part in CROWD_SHARE of the segments is not part of the crowd.
 */
#define CROWD_SEGMENTS 10000ull
#define CROWD_FLOWS 24
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

static bool is_large(uint64_t bytes_per_s, uint64_t segments_per_s)
{
	return bytes_per_s >= BULK_FLOW && bytes_per_s >= segments_per_s * BULK_SIZE;
}

/* Among many one may get nothing for a second: what it did before says that it is a transfer all the same. */
static bool is_transfer(const struct choose_flow *f)
{
	return is_large(f->bytes_per_s, f->segments_per_s) ||
	       (!f->joined && is_large(f->life_bytes_per_s, f->life_segments_per_s));
}

enum choose_reason choose(const struct choose_flow *f, const struct choose_load *load)
{
	uint64_t bulk = !f->joined ? BULK_STAY : f->in_kernel ? BULK_LEAVE : BULK_RETURN;
	uint64_t rate = MAX(load->bytes_per_s, f->bytes_per_s);
	bool may_be_bulk = is_transfer(f) || load->bytes_per_s >= BULK_STAY, busy = load->busy >= BUSY || rate >= BULK_SURE;

	if (!f->joined && f->age_ns < (!may_be_bulk ? YOUNG_NS : busy ? GROWN_NS : SEEN_NS))
		return CHOOSE_YOUNG;
	if ((f->joined || busy) && rate >= bulk && is_transfer(f))
		return CHOOSE_BULK;
	if (!f->joined && load->segments_per_s >= CROWD_SEGMENTS && load->flows >= CROWD_FLOWS &&
	    f->segments_per_s * CROWD_SHARE >= load->segments_per_s)
		return CHOOSE_CROWD;
	return CHOOSE_HOME;
}
