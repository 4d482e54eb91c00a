/* SPDX-License-Identifier: GPL-2.0-or-later */
/* balance.c - see balance.h. */
#include "balance.h"

#include "util.h"

static uint32_t gcd(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

int balance_init(struct balance *b, const uint32_t *weights, uint32_t n)
{
	__cleanup_free int64_t *credit = calloc(MAX(n, 1u), sizeof(*credit));
	uint32_t divisor = 0, total = 0;

	*b = (struct balance){ 0 };
	if (!credit)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		divisor = gcd(divisor, weights[i]);
		total += weights[i];
	}
	if (!total)
		return 0;
	total /= divisor;
	b->schedule = calloc(total, sizeof(*b->schedule));
	if (!b->schedule)
		return -ENOMEM;
	for (b->length = 0; b->length < total; b->length++) {
		uint32_t best = n;

		/* Everybody earns its weight; the richest is next and pays the total. */
		for (uint32_t i = 0; i < n; i++) {
			credit[i] += weights[i] / divisor;
			if (weights[i] && (best == n || credit[i] > credit[best]))
				best = i;
		}
		credit[best] -= total;
		b->schedule[b->length] = best;
	}
	return 0;
}

void balance_done(struct balance *b)
{
	free(b->schedule);
	*b = (struct balance){ 0 };
}

int64_t balance_pick(struct balance *b, bool (*usable)(void *arg, uint32_t number), void *arg)
{
	for (uint32_t tries = 0; tries < b->length; tries++) {
		uint64_t turn = __atomic_fetch_add(&b->rotor, 1, __ATOMIC_RELAXED);
		uint32_t number = b->schedule[turn % b->length];

		if (usable(arg, number))
			return number;
	}
	return -1;
}
