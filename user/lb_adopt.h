/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * lb_adopt.h - a worker takes over from one that died: what is not in the ledger is over, the sessions of the ledger go on. What a
 * single session needs for that is in session_adopt.c.
 */
#ifndef SHUNT_LB_ADOPT_H
#define SHUNT_LB_ADOPT_H

struct lb;

/*
 * Before the worker's threads are built: counts nobody any more, drops the records that cannot be served, closes every descriptor and frees
 * every slot that no record owns. Clients that were accepted and got into no record are remembered. Returns 0 or -errno.
 */
int lb_forget_worker(struct lb *lb);

/* When they are built: gives each session of the ledger to its thread, and serves the clients that were remembered. Returns 0 or -ENOMEM. */
int lb_adopt_sessions(struct lb *lb);

#endif
