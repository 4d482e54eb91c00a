/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_start_faults.c - the daemon's start, from the text of its configuration to listeners and stats sockets, with each of its
 * allocations refused once: it starts all the same, or fails with -ENOMEM, and takes apart what it had made.
 *
 * Links everything but main and splice. The linker puts the __wrap functions in between (see the Makefile). Leaks are seen by the
 * sanitizer and by valgrind, descriptors here.
 */
#include "netpair.h"

#include <string.h>

#include "config.h"
#include "fake_splice.h"
#include "lb.h"
#include "log.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);

static bool armed;
static unsigned int asked, refuse_at; /* from 1 */

static bool refuse(void)
{
	if (!armed || ++asked != refuse_at)
		return false;
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return refuse() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return refuse() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return refuse() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
	return refuse() ? NULL : __real_reallocarray(old, n, size);
}

static int start(const char *text, struct config **ret_config, struct lb **ret_lb)
{
	struct config *c = config_new(CONFIG_RESOLVE);
	int r;

	*ret_config = c;
	if (!c)
		return -ENOMEM;
	r = config_parse(c, "test", text, strlen(text));
	if (r == 0)
		r = config_finish(c);
	if (r == 0)
		r = lb_new(ret_lb, c);
	if (r == 0) {
		r = lb_start(*ret_lb, false);
		if (r < 0) {
			lb_finish(*ret_lb);
			*ret_lb = lb_free(*ret_lb);
		}
	}
	return r;
}

static void without_an_allocation_the_start_fails_in_order(void **state)
{
	unsigned int fds = net_count_fds();
	int high = getpid() >> 8 & 255, low = getpid() & 255; /* addresses that are nobody else's */
	char text[1024];

	(void)state;
	snprintf(text, sizeof(text),
		 "global\n  nosplice\n  maxconn 10\n  stats socket /tmp/shunt-test-%d\n  log 127.0.0.1:9 local0\n"
		 "listen l\n  option tcplog\n  log 127.0.0.1:9 local1\n  bind 127.101.%d.%d:19001\n"
		 "  server s1 127.0.0.1:9001\n  server s2 127.0.0.1:9002 weight 3\n"
		 "frontend f\n  bind 127.102.%d.%d:19001\n  default_backend b\n"
		 "backend b\n  server s1 127.0.0.1:9003\n",
		 getpid(), high, low, high, low);
	for (refuse_at = 1;; refuse_at++) {
		struct config *c = NULL;
		struct lb *lb = NULL;
		int r;

		asked = 0;
		armed = true;
		r = start(text, &c, &lb);
		armed = false;
		if (r < 0 && r != -ENOMEM)
			fail_msg("without allocation %u: %s", refuse_at, strerror(-r));
		if (r < 0)
			assert_null(lb);
		else
			lb_finish(lb);
		lb_free(lb);
		config_free(c);
		assert_int_equal(net_count_fds(), fds);
		if (asked < refuse_at) {
			assert_int_equal(r, 0);
			break;
		}
	}
	assert_true(refuse_at > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_an_allocation_the_start_fails_in_order),
	};

	log_setup(LOG_EMERG, false); /* alerts are wanted here, not seen */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
