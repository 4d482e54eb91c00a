/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * budget.h - how many bytes may wait towards the peers of all sessions together, and what each
 * direction gets of that. Pure: numbers only; all threads share one.
 *
 * A direction begins with a small limit. It is charged with it when its peer first keeps it waiting
 * (most never do), and its limit grows while the peer is quick, as long as the budget lasts. When
 * half of the budget is given away, newcomers begin with less.
 */
#ifndef SHUNT_BUDGET_H
#define SHUNT_BUDGET_H

#include <stdint.h>

#include "util.h"

struct budget {
	uint64_t max;	/* bytes, for all */
	uint64_t given; /* atomic */
	uint32_t limit; /* the most that one direction gets */
};

/* What a direction begins with. */
uint32_t budget_begin(const struct budget *b);

/* Charges a direction that has to wait for the first time. */
void budget_charge(struct budget *b, uint32_t limit);

/* The next larger limit after this one; the same if there is none, or if the budget does not have
 * it. */
uint32_t budget_grow(struct budget *b, uint32_t limit);

/* Gives back what was charged. */
void budget_return(struct budget *b, uint32_t limit);

#endif
