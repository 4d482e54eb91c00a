/* SPDX-License-Identifier: GPL-2.0-or-later */
/* budget.c - see budget.h. */
#include "budget.h"

#define BEGIN (1024u * 1024) /* bytes */
#define BEGIN_TIGHT                                                                                \
	(128u * 1024) /* when half of the budget is given away; a segment (64 KB) must fit, or the \
			 kernel's worker polls */

uint32_t budget_begin(const struct budget *b)
{
	bool tight = __atomic_load_n(&b->given, __ATOMIC_RELAXED) > b->max / 2;

	return MIN(tight ? BEGIN_TIGHT : BEGIN, b->limit);
}

void budget_charge(struct budget *b, uint32_t limit)
{
	__atomic_fetch_add(&b->given, limit, __ATOMIC_RELAXED);
}

uint32_t budget_grow(struct budget *b, uint32_t limit)
{
	uint32_t larger = limit > b->limit / 2 ? b->limit : limit * 2;
	uint64_t given = __atomic_load_n(&b->given, __ATOMIC_RELAXED);

	do {
		if (larger <= limit || given + (larger - limit) > b->max)
			return limit;
	} while (!__atomic_compare_exchange_n(&b->given, &given, given + (larger - limit), true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return larger;
}

void budget_return(struct budget *b, uint32_t limit)
{
	__atomic_fetch_sub(&b->given, limit, __ATOMIC_RELAXED);
}
