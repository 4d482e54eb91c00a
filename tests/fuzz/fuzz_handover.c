/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz_handover.c - what a program reads of the one whose place it takes: any bytes. It must not crash; and what it took over, it gives on in a list
 * that says the same.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "fdtable.h"
#include "fuzz.h"
#include "handover.h"

static void set_list(const void *data, size_t size)
{
	int fd = memfd_create("list", 0);
	char value[32];

	CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(value, sizeof(value), "take:%d", fd);
	setenv(HANDOVER_VARIABLE, value, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t number = 0, again = 0;
	bool has;

	set_list(data, size);
	if (handover_read() == HANDOVER_TAKE) {
		has = handover_number("maxconn", &number);
		handover_done();
		if (has)
			handover_give_number("maxconn", number);
		CHECK(handover_write(HANDOVER_TAKE) >= 0 && handover_read() == HANDOVER_TAKE);
		CHECK(handover_number("maxconn", &again) == has && number == again);
	}
	unsetenv(HANDOVER_VARIABLE);
	handover_done();
	fdtable_done();
	return 0;
}
