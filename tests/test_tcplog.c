/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_tcplog.c - the log line against lines that HAProxy 2.6 wrote, and against HAProxy's own
 * reader of logs, halog, if it is installed.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "config.h"
#include "tcplog.h"

/* halog is Debian's /usr/bin or /usr/sbin, which need not be in the PATH of an ordinary user. */
#define HALOG "PATH=\"$PATH:/usr/bin:/usr/sbin\" halog "

#define EXAMPLE_TIME 1233922371 /* 06/Feb/2009:12:12:51 UTC */

static void skip_because(const char *reason)
{
	if (getenv("CI"))
		fail_msg("skipped under CI: %s", reason);
	print_message("skipped: %s\n", reason);
	skip();
}

static struct addr address(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(&a, text, 0), 0);
	return a;
}

/* The example of HAProxy's manual. */
static struct tcplog example(void)
{
	return (struct tcplog){
		.client = address("127.0.0.1:33313"),
		.accepted = {.tv_sec = EXAMPLE_TIME, .tv_nsec = 443999999},
		.frontend = "fnt",
		.backend = "bck",
		.server = "srv1",
		.total_ms = 5007,
		.bytes_to_client = 212,
		.state = "--",
		.retries = 3,
	};
}

static const char *format(const struct tcplog *t)
{
	static char buf[512];
	size_t len = tcplog_format(t, buf, sizeof(buf));

	assert_int_equal(len, strlen(buf));
	return buf;
}

static void the_example_of_the_manual_comes_out_as_it_stands_there(void **unused)
{
	struct tcplog t = example();

	(void)unused;
	assert_string_equal(format(&t), "127.0.0.1:33313 [06/Feb/2009:12:12:51.443] fnt bck/srv1 "
					"0/0/5007 212 -- 0/0/0/0/3 0/0");
}

/* All lines here were written by HAProxy 2.6.12 (`log stdout format raw`, `option tcplog`, UTC). */
static void lines_are_those_that_haproxy_wrote(void **unused)
{
	struct tcplog t = {
		.client = address("127.0.0.1:36662"),
		.accepted = {.tv_sec = 1795341305, .tv_nsec = 459000000},
		.frontend = "fnt",
		.backend = "bck",
		.server = "srv1",
		.queue_ms = 1,
		.bytes_to_client = 212,
		.state = "--",
		.process_conns = 1,
		.frontend_conns = 1,
	};

	(void)unused;
	assert_string_equal(format(&t), "127.0.0.1:36662 [22/Nov/2026:09:55:05.459] fnt bck/srv1 "
					"1/0/0 212 -- 1/1/0/0/0 0/0");

	/* The client aborts while connecting; IPv6. */
	t = (struct tcplog){
		.client = address("[::1]:46942"),
		.accepted = {.tv_sec = 1795340835, .tv_nsec = 425000000},
		.frontend = "x",
		.backend = "nosuch",
		.server = "a",
		.queue_ms = 1,
		.connect_ms = -1,
		.total_ms = 2001,
		.state = "cC",
		.process_conns = 1,
		.frontend_conns = 1,
		.retries = 2,
	};
	assert_string_equal(format(&t), "::1:46942 [22/Nov/2026:09:47:15.425] x nosuch/a "
					"1/-1/2001 0 cC 1/1/0/0/2 0/0");

	/* Redispatched, and refused there too. (HAProxy: ::ffff:127.0.0.1; see tcplog.h.) */
	t.client = address("[::ffff:127.0.0.1]:55714");
	t.accepted = (struct timespec){.tv_sec = 1795341032, .tv_nsec = 973000000};
	t.backend = "b";
	t.server = "c";
	t.total_ms = 0;
	strcpy(t.state, "SC");
	t.retries = 1;
	t.redispatched = true;
	assert_string_equal(format(&t), "127.0.0.1:55714 [22/Nov/2026:09:50:32.973] x b/c "
					"1/-1/0 0 SC 1/1/0/0/+1 0/0");

	/* No backend, no server. */
	t = (struct tcplog){
		.client = address("127.0.0.1:38880"),
		.accepted = {.tv_sec = 1795341032, .tv_nsec = 974000000},
		.frontend = "y",
		.queue_ms = -1,
		.connect_ms = -1,
		.state = "SC",
		.process_conns = 1,
		.frontend_conns = 1,
	};
	assert_string_equal(format(&t), "127.0.0.1:38880 [22/Nov/2026:09:50:32.974] y y/<NOSRV> "
					"-1/-1/0 0 SC 1/1/0/0/0 0/0");
}

static void the_address_of_an_ipv6_client_is_bare(void **unused)
{
	struct tcplog t = example();

	(void)unused;
	t.client = address("[2001:db8::1]:33313");
	assert_non_null(strstr(format(&t), "2001:db8::1:33313 [06/Feb"));
	assert_ptr_equal(strstr(format(&t), "2001"), format(&t));
}

static void the_time_is_local(void **unused)
{
	static const struct {
		const char *zone, *want;
	} cases[] = {
		{"UTC0", "[06/Feb/2009:12:12:51.443]"},
		{"XYZ-13", "[07/Feb/2009:01:12:51.443]"},
		{"XYZ12:30", "[05/Feb/2009:23:42:51.443]"},
	};
	struct tcplog t = example();

	(void)unused;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		setenv("TZ", cases[i].zone, 1);
		tzset();
		assert_non_null(strstr(format(&t), cases[i].want));
	}
	setenv("TZ", "UTC0", 1);
	tzset();
}

static void every_month_has_its_english_name(void **unused)
{
	static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	struct tcplog t = example();
	char want[16];

	(void)unused;
	for (int month = 0; month < 12; month++) {
		struct tm tm = {.tm_year = 126, .tm_mon = month, .tm_mday = 1};

		t.accepted = (struct timespec){.tv_sec = timegm(&tm)};
		snprintf(want, sizeof(want), "[01/%.3s/2026:", names + 3 * month);
		assert_non_null(strstr(format(&t), want));
	}
}

static void a_small_buffer_is_cut_and_never_overrun(void **unused)
{
	struct tcplog t = example();
	char buf[64], whole[512];

	(void)unused;
	strcpy(whole, format(&t));
	for (size_t size = 0; size <= sizeof(buf); size++) {
		memset(buf, '!', sizeof(buf));
		assert_int_equal(tcplog_format(&t, buf, size), size ? size - 1 : 0);
		if (size) {
			assert_memory_equal(buf, whole, size - 1);
			assert_int_equal(buf[size - 1], '\0');
		}
		for (size_t i = size; i < sizeof(buf); i++)
			assert_int_equal(buf[i], '!');
	}
}

static void the_longest_line_fits_into_512_bytes(void **unused)
{
	char name[CONFIG_NAME_MAX];
	struct tcplog t = {
		.client = address("[1111:2222:3333:4444:5555:6666:7777:8888]:65535"),
		.accepted = {.tv_sec = EXAMPLE_TIME, .tv_nsec = 999999999},
		.frontend = name,
		.backend = name,
		.server = name,
		.queue_ms = INT64_MIN,
		.connect_ms = INT64_MIN,
		.total_ms = INT64_MIN,
		.bytes_to_client = UINT64_MAX,
		.state = "--",
		.process_conns = UINT32_MAX,
		.frontend_conns = UINT32_MAX,
		.backend_conns = UINT32_MAX,
		.server_conns = UINT32_MAX,
		.retries = UINT32_MAX,
		.redispatched = true,
		.server_queue = UINT32_MAX,
		.backend_queue = UINT32_MAX,
	};
	size_t len;

	(void)unused;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	len = strlen(format(&t));
	assert_true(len < 511);
	assert_string_equal(format(&t) + len - 22, " 4294967295/4294967295");
}

static void an_empty_state_keeps_its_column(void **unused)
{
	struct tcplog t = example();

	(void)unused;
	t.state[0] = '\0';
	assert_non_null(strstr(format(&t), " 212 -- 0/0"));
}

/* Runs halog with options on the file, and returns what it prints (both streams). */
static const char *halog(const char *options, const char *path)
{
	static char out[4096];
	char command[256];
	size_t n;
	FILE *f;

	snprintf(command, sizeof(command), HALOG "%s <%s 2>&1", options, path);
	f = popen(command, "re");
	assert_non_null(f);
	n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = '\0';
	assert_int_equal(pclose(f), 0);
	return out;
}

/*
 * Lines as a syslog daemon files them. halog knows the fields of HTTP lines; of TCP lines,
 * HAProxy's own as well, it can read the time of accept, the server, and the field after the timers
 * (which -st takes for the status; it is %B). The rest (-tc, -pct, -ic) wants fields that TCP lines
 * lack.
 */
static void halog_reads_it(void **unused)
{
	static const char *const headers[] = {
		"Nov 22 09:32:47 host shunt[1]: ",
		"Nov  6 09:32:47 host shunt[1]: ",
		"Nov  6 09:32:48 host shunt[1]: ",
	};
	char path[] = "/tmp/shunt-test-tcplog-XXXXXX";
	struct tcplog t[] = {example(), example(), example()};
	const char *out;
	FILE *f;
	int fd;

	(void)unused;
	if (system(HALOG "-h >/dev/null 2>&1")) {
		skip_because("halog is not installed (Debian: haproxy)");
		return;
	}
	t[1].client = address("[2001:db8::1]:33313");
	t[1].accepted.tv_sec += 2;
	t[1].server = "srv2";
	t[1].bytes_to_client = 99;
	t[1].redispatched = true;
	t[2].accepted.tv_sec += 3600;
	t[2].server = NULL;
	t[2].queue_ms = t[2].connect_ms = -1;
	t[2].bytes_to_client = 0;
	strcpy(t[2].state, "SC");

	fd = mkstemp(path);
	assert_true(fd >= 0);
	f = fdopen(fd, "w");
	assert_non_null(f);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		fprintf(f, "%s%s\n", headers[i], format(&t[i]));
	fclose(f);

	assert_string_equal(halog("-q -c", path), "3\n");
	assert_string_equal(halog("-q -st", path), "0 1\n99 1\n212 1\n");

	out = halog("-q -srv", path);
	assert_non_null(strstr(out, "\nbck/<NOSRV> "));
	assert_non_null(strstr(out, "\nbck/srv1 "));
	assert_non_null(strstr(out, "\nbck/srv2 "));

	/* The times of accept: which lines are in an hour, and the gaps between them. */
	assert_string_equal(halog("-q -c -time 1233922371:1233922380", path), "2\n");
	out = halog("-ad 1000", path);
	assert_non_null(strstr(out, "12:12:53.443 "));
	assert_non_null(strstr(out, "13:12:51.443 "));
	assert_non_null(strstr(out, "3 lines in, 2 lines out, 0 parsing errors"));
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_example_of_the_manual_comes_out_as_it_stands_there),
		cmocka_unit_test(lines_are_those_that_haproxy_wrote),
		cmocka_unit_test(the_address_of_an_ipv6_client_is_bare),
		cmocka_unit_test(the_time_is_local),
		cmocka_unit_test(every_month_has_its_english_name),
		cmocka_unit_test(a_small_buffer_is_cut_and_never_overrun),
		cmocka_unit_test(the_longest_line_fits_into_512_bytes),
		cmocka_unit_test(an_empty_state_keeps_its_column),
		cmocka_unit_test(halog_reads_it),
	};

	setenv("TZ", "UTC0", 1);
	tzset();
	return cmocka_run_group_tests_name("tcplog", tests, NULL, NULL);
}
