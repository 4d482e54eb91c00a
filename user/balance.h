/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * balance.h - weighted round robin as a fixed, evenly interleaved schedule and one rotor.
 *
 * The schedule is made once per set of weights (smooth weighted round robin, as nginx does it); a pick is one atomic step of the
 * rotor, so that the order stays exact however many threads pick. Pure: knows servers by their number only.
 */
#ifndef SHUNT_BALANCE_H
#define SHUNT_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct balance {
	uint32_t *schedule; /* owned: server numbers, each as often as its weight says */
	uint32_t length;
	uint64_t rotor;
};

/* Makes the schedule for n weights (0 = never picked). Returns 0 or -ENOMEM. */
int balance_init(struct balance *b, const uint32_t *weights, uint32_t n);
void balance_done(struct balance *b);

/*
 * The next server for which usable(arg, number) holds, or -1 if there is none. What is skipped has had its turn, so that the
 * others share it evenly.
 */
int64_t balance_pick(struct balance *b, bool (*usable)(void *arg, uint32_t number), void *arg);

#endif
