/* SPDX-License-Identifier: GPL-2.0-or-later */
/* run_loop.h - runs a loop for a moment, so that a test can look at what came of it. */
#ifndef SHUNT_TESTS_RUN_LOOP_H
#define SHUNT_TESTS_RUN_LOOP_H

#include "loop.h"

/* Runs the loop until ns have passed, or a callback stops it; wakes it once for that. */
void run_loop(struct loop *l, uint64_t ns);

#endif
