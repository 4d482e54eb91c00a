/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * threads.h - the same work in several threads at once. cmocka's assertions belong to the thread of the test: what the work
 * finds, it leaves in arg.
 */
#ifndef SHUNT_TESTS_THREADS_H
#define SHUNT_TESTS_THREADS_H

#include <stdint.h>

/* Calls fn(arg, 0) to fn(arg, n - 1), all at the same moment, and returns when all have returned. */
void run_threads(uint32_t n, void (*fn)(void *arg, uint32_t number), void *arg);

#endif
