/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lb_upgrade.h - one program takes over from another: what both must have in common, and the counters that go on.
 */
#ifndef SHUNT_LB_UPGRADE_H
#define SHUNT_LB_UPGRADE_H

struct lb;

/* Tells the next program what this one is like (handover.h). */
void lb_offer(const struct lb *lb);

/* The counters, as they are now: while no worker runs. Where that fails, they begin at 0, which is logged. */
void lb_offer_counters(const struct lb *lb);
void lb_take_counters(struct lb *lb);

/* Could lb, with its limits settled, take over from the program that has offered? What speaks against it is logged. Returns 0 or -EPROTO. */
int lb_compare(const struct lb *lb);

/* After a program that was to take over has failed: what it has changed in the kernel is as it was. */
void lb_reclaim(struct lb *lb);

#endif
