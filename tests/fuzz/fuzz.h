/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fuzz.h - what the fuzzers share: the input as a stream of decisions, and a loop's turn. */
#ifndef SHUNT_TESTS_FUZZ_H
#define SHUNT_TESTS_FUZZ_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "loop.h"
#include "util.h"

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what))                                                                       \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of it. Where nothing is, everything is 0. */
struct input {
	const uint8_t *data;
	size_t size;
};

static inline void input_bytes(struct input *in, void *to, size_t n)
{
	size_t there = MIN(n, in->size);

	memset(to, 0, n);
	memcpy(to, in->data, there);
	in->data += there;
	in->size -= there;
}

static inline uint8_t input_u8(struct input *in)
{
	uint8_t n;

	input_bytes(in, &n, 1);
	return n;
}

/* Up to eight times a few bytes at some place of an object. */
static inline void input_patch(struct input *in, void *object, size_t size)
{
	uint8_t n = input_u8(in) % 9;

	for (uint8_t i = 0; i < n; i++) {
		size_t at = input_u8(in) % size, len = input_u8(in) % 8 + 1u;

		input_bytes(in, (char *)object + at, MIN(len, size - at)); /* (it looks at both twice) */
	}
}

static inline uint32_t open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint32_t n = 0;

	CHECK(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

struct fuzz_stopper {
	struct timer timer;
	struct loop *loop;
};

static inline void fuzz_stop(struct timer *t)
{
	loop_stop(container_of(t, struct fuzz_stopper, timer)->loop);
}

/* Lets the loop run for so long. */
static inline void fuzz_run_loop(struct loop *loop, uint64_t ns)
{
	struct fuzz_stopper s = {.loop = loop};

	timer_init(&s.timer, fuzz_stop);
	CHECK(loop_timer_set(loop, &s.timer, now_ns() + ns) == 0);
	CHECK(loop_run(loop) == 0);
	loop_timer_clear(loop, &s.timer);
}

#endif
