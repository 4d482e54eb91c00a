/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_lb_build.c - what is built for which configuration and kernel: is there to be a supervisor, and how are unread bytes asked for? The kernel path is played
 * (fake_splice), and so is what its trial finds out.
 */
#include "netpair.h"

#include <string.h>

#include "config.h"
#include "fake_splice.h"
#include "lb.h"
#include "log.h"
#include "qualify.h"

static enum sock_unread found;
static bool asked;

int splice_new(struct splice **ret, const struct splice_options *o, char *why, size_t size)
{
	(void)why, (void)size;
	*ret = fake_splice_new(o->max_sessions);
	return 0;
}

int qualify(struct splice *sp, enum sock_unread *ret_unread, char *why, size_t size)
{
	(void)sp, (void)why, (void)size;
	asked = true;
	*ret_unread = found;
	return 0;
}

static void supervisor_is_where_sessions_could_be_taken_over(void **state)
{
	static const struct {
		const char *global;
		enum sock_unread found;
		int r;
		bool supervised, asked;
	} cases[] = {
		{ "", SOCK_UNREAD_TOLD, 0, true, true },
		{ "", SOCK_UNREAD_SHOWN, 0, true, true },
		{ "", SOCK_UNREAD_UNKNOWN, 0, false, true },
		{ "  nosplice\n", SOCK_UNREAD_UNKNOWN, 0, true, false },
		{ "  master-worker\n", SOCK_UNREAD_SHOWN, 0, true, true },
		{ "  master-worker\n", SOCK_UNREAD_UNKNOWN, -ENOTSUP, false, true },
		{ "  no master-worker\n", SOCK_UNREAD_TOLD, 0, false, true },
		{ "  no master-worker\n", SOCK_UNREAD_UNKNOWN, 0, false, true },
	};
	int high = getpid() >> 8 & 255, low = getpid() & 255; /* an address that is nobody else's */
	unsigned int fds = net_count_fds();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct config *c = config_new(CONFIG_RESOLVE);
		struct lb *lb = NULL;
		char text[512];

		snprintf(text, sizeof(text), "global\n  maxconn 10\n%slisten l\n  bind 127.104.%d.%d:19001\n  server s 127.0.0.1:9001\n",
			 cases[i].global, high, low);
		assert_int_equal(config_parse(c, "test", text, strlen(text)), 0);
		assert_int_equal(config_finish(c), 0);
		found = cases[i].found;
		asked = false;
		assert_int_equal(lb_new(&lb, c), cases[i].r);
		assert_int_equal(asked, cases[i].asked);
		if (cases[i].r == 0) {
			assert_int_equal(lb->supervised, cases[i].supervised);
			assert_int_equal(lb->unread, cases[i].asked ? cases[i].found : SOCK_UNREAD_UNKNOWN);
			lb_free(lb);
		}
		config_free(c);
		assert_int_equal(net_count_fds(), fds);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(supervisor_is_where_sessions_could_be_taken_over),
	};

	log_setup(LOG_EMERG, false); /* warnings are wanted here, not seen */
	return cmocka_run_group_tests_name("lb_build", tests, NULL, NULL);
}
