/* SPDX-License-Identifier: GPL-2.0-or-later */
/* threads.c - see threads.h. */
#include "threads.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>

#define THREADS_MAX 16

struct worker {
	pthread_t id;
	pthread_barrier_t *start;
	void (*fn)(void *arg, uint32_t number);
	void *arg;
	uint32_t number;
};

static void *run_worker(void *arg)
{
	struct worker *w = arg;

	pthread_barrier_wait(w->start);
	w->fn(w->arg, w->number);
	return NULL;
}

void run_threads(uint32_t n, void (*fn)(void *arg, uint32_t number), void *arg)
{
	struct worker w[THREADS_MAX];
	pthread_barrier_t start;

	assert_in_range(n, 1, THREADS_MAX);
	assert_int_equal(pthread_barrier_init(&start, NULL, n), 0);
	for (uint32_t i = 0; i < n; i++) {
		w[i] = (struct worker){ .start = &start, .fn = fn, .arg = arg, .number = i };
		assert_int_equal(pthread_create(&w[i].id, NULL, run_worker, &w[i]), 0);
	}
	for (uint32_t i = 0; i < n; i++)
		pthread_join(w[i].id, NULL);
	pthread_barrier_destroy(&start);
}
