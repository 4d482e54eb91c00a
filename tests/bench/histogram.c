/* SPDX-License-Identifier: GPL-2.0-or-later */
/* histogram.c - see load.h: counts per range, 128 ranges for each power of two. */
#include "load.h"

#include <string.h>

static unsigned int range_of(uint64_t value)
{
	unsigned int shift;

	if (value < HISTOGRAM_SUB)
		return (unsigned int)value;
	shift = 63 - 7 - (unsigned int)__builtin_clzll(value);
	return shift * HISTOGRAM_SUB + (unsigned int)(value >> shift);
}

static uint64_t middle_of(unsigned int range)
{
	unsigned int shift;

	if (range < 2 * HISTOGRAM_SUB)
		return range;
	shift = range / HISTOGRAM_SUB - 1;
	return ((uint64_t)(range - shift * HISTOGRAM_SUB) << shift) + (1ULL << shift) / 2;
}

void histogram_reset(struct histogram *h)
{
	memset(h, 0, sizeof(*h));
}

void histogram_add(struct histogram *h, uint64_t value)
{
	h->at[range_of(value)]++;
	h->count++;
	if (value > h->max)
		h->max = value;
}

uint64_t histogram_at(const struct histogram *h, unsigned int permille)
{
	uint64_t wanted = (h->count * permille + 999) / 1000, seen = 0;

	if (!h->count)
		return 0;
	for (unsigned int i = 0; i < HISTOGRAM_SIZE; i++) {
		seen += h->at[i];
		if (seen >= wanted)
			return middle_of(i) < h->max ? middle_of(i) : h->max;
	}
	return h->max;
}
