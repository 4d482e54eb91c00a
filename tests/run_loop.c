/* SPDX-License-Identifier: GPL-2.0-or-later */
/* run_loop.c - see run_loop.h. */
#include "run_loop.h"

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

struct stopper {
	struct timer timer;
	struct loop *loop;
};

static void on_stop(struct timer *t)
{
	loop_stop(container_of(t, struct stopper, timer)->loop);
}

void run_loop(struct loop *l, uint64_t ns)
{
	struct stopper s = { .loop = l };

	timer_init(&s.timer, on_stop);
	assert_int_equal(loop_timer_set(l, &s.timer, now_ns() + ns), 0);
	assert_int_equal(loop_run(l), 0);
	loop_timer_clear(l, &s.timer); /* a callback may have stopped the loop */
}
