/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_addr.c - addresses from text and back. No name is looked up but "localhost". */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "addr.h"
#include "util.h"

/* Parses text, which must succeed, and compares what is printed. */
static void expect(const char *text, unsigned int flags, const char *printed)
{
	char buf[ADDR_STRLEN];
	struct addr a;

	assert_int_equal(addr_parse(&a, text, flags), 0);
	assert_string_equal(addr_format(&a, buf), printed);
}

static void expect_failure(const char *text, unsigned int flags, int error)
{
	struct addr a, before;

	memset(&a, 0x5a, sizeof(a));
	before = a;
	assert_int_equal(addr_parse(&a, text, flags), error);
	assert_memory_equal(&a, &before, sizeof(a));
}

static void ipv4_literals_are_parsed(void **state)
{
	struct addr a;

	(void)state;
	expect("127.0.0.1:80", 0, "127.0.0.1:80");
	expect("ipv4@10.1.2.3:65535", 0, "10.1.2.3:65535");
	expect("0.0.0.0:1", 0, "0.0.0.0:1");

	assert_int_equal(addr_parse(&a, "1.2.3.4:258", 0), 0);
	assert_int_equal(a.sa.sa_family, AF_INET);
	assert_int_equal(a.in.sin_port, htons(258));
	assert_int_equal(a.in.sin_addr.s_addr, htonl(0x01020304));
	assert_int_equal(addr_len(&a), sizeof(struct sockaddr_in));
	assert_int_equal(addr_port(&a), 258);
}

static void ipv6_literals_are_parsed_with_and_without_brackets(void **state)
{
	struct addr a;

	(void)state;
	expect("[::1]:80", 0, "[::1]:80");
	expect("::1:80", 0, "[::1]:80");
	expect("ipv6@::1:80", 0, "[::1]:80");
	expect("ipv6@[2001:db8::7]:443", 0, "[2001:db8::7]:443");
	expect(":::81", 0, "[::]:81");
	expect("[::]:81", 0, "[::]:81");

	assert_int_equal(addr_parse(&a, "[::1]:80", 0), 0);
	assert_int_equal(a.sa.sa_family, AF_INET6);
	assert_int_equal(addr_len(&a), sizeof(struct sockaddr_in6));
	assert_int_equal(addr_port(&a), 80);
}

static void a_mapped_address_prints_as_ipv4(void **state)
{
	char buf[ADDR_STRLEN];
	struct addr a;

	(void)state;
	expect("[::ffff:10.0.0.1]:80", 0, "10.0.0.1:80");
	assert_int_equal(addr_parse(&a, "[::ffff:10.0.0.1]:80", 0), 0);
	assert_string_equal(addr_format_host(&a, buf), "10.0.0.1");
}

static void the_host_is_printed_without_brackets(void **state)
{
	char buf[ADDR_STRLEN];
	struct addr a;

	(void)state;
	assert_int_equal(addr_parse(&a, "[2001:db8::7]:443", 0), 0);
	assert_string_equal(addr_format_host(&a, buf), "2001:db8::7");
}

static void the_longest_address_fits_the_buffer(void **state)
{
	(void)state;
	expect("[1111:2222:3333:4444:5555:6666:7777:8888]:65535", 0,
	       "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
}

static void wildcards_are_taken_only_when_allowed(void **state)
{
	(void)state;
	expect("*:80", ADDR_WILDCARD, "0.0.0.0:80");
	expect(":80", ADDR_WILDCARD, "0.0.0.0:80");
	expect("ipv4@:80", ADDR_WILDCARD, "0.0.0.0:80");
	expect("ipv6@*:80", ADDR_WILDCARD, "[::]:80");
	expect("ipv6@:80", ADDR_WILDCARD, "[::]:80");
	expect_failure("*:80", 0, -EINVAL);
	expect_failure(":80", 0, -EINVAL);
}

static void the_prefix_must_fit_the_literal(void **state)
{
	(void)state;
	expect_failure("ipv6@1.2.3.4:80", 0, -EINVAL);
	expect_failure("ipv4@::1:80", 0, -EINVAL);
	expect_failure("ipv4@[::1]:80", 0, -EINVAL);
}

static void a_bad_port_is_told_from_a_bad_address(void **state)
{
	(void)state;
	expect_failure("1.2.3.4:0", 0, -ERANGE);
	expect_failure("1.2.3.4:65536", 0, -ERANGE);
	expect_failure("1.2.3.4:999999999999999999999", 0, -ERANGE);
	expect_failure("1.2.3.4:", 0, -EINVAL);
	expect_failure("1.2.3.4:http", 0, -EINVAL);
	expect_failure("1.2.3.4:+80", 0, -EINVAL);
	expect_failure("1.2.3.4:-80", 0, -EINVAL);
	expect_failure("1.2.3.4: 80", 0, -EINVAL);
}

static void what_is_no_address_is_refused(void **state)
{
	char huge[400];

	(void)state;
	expect_failure("", 0, -EINVAL);
	expect_failure(":", ADDR_WILDCARD, -EINVAL);
	expect_failure("1.2.3.4", 0, -EINVAL);
	expect_failure("1.2.3:80", 0, -EINVAL);
	expect_failure("1.2.3.4.5:80", 0, -EINVAL);
	expect_failure("1.2.3.256:80", 0, -EINVAL);
	expect_failure("[]:80", ADDR_WILDCARD, -EINVAL);
	expect_failure("[::1:80", 0, -EINVAL);
	expect_failure("::1]:80", 0, -EINVAL);
	expect_failure("[1.2.3.4]:80", 0, -EINVAL);
	expect_failure("[::1]", 0, -EINVAL);
	expect_failure("ipv5@1.2.3.4:80", 0, -EINVAL);

	memset(huge, '1', sizeof(huge));
	strcpy(huge + sizeof(huge) - 4, ":80");
	expect_failure(huge, 0, -EINVAL);
}

static void names_are_looked_up_only_when_asked_for(void **state)
{
	char buf[ADDR_STRLEN];
	struct addr a;

	(void)state;
	expect_failure("localhost:80", 0, -EINVAL);
	if (addr_parse(&a, "ipv4@localhost:80", ADDR_RESOLVE) == -ENOENT) {
		print_message("skipped: this machine does not know localhost\n");
		skip();
	}
	assert_string_equal(addr_format(&a, buf), "127.0.0.1:80");
}

static void addresses_are_equal_if_host_and_port_are(void **state)
{
	static const char *const texts[] = {
		"1.2.3.4:80", "1.2.3.4:81", "1.2.3.5:80", "[::1]:80",
		"[::2]:80",   "[::1]:81",   "0.0.0.0:80", "[::]:80",
	};
	struct addr a, b;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		for (size_t j = 0; j < ARRAY_SIZE(texts); j++) {
			assert_int_equal(addr_parse(&a, texts[i], 0), 0);
			assert_int_equal(addr_parse(&b, texts[j], 0), 0);
			assert_int_equal(addr_equal(&a, &b), i == j);
		}
	}
}

static void an_empty_address_has_no_length_and_no_port(void **state)
{
	struct addr a = { 0 };
	char buf[ADDR_STRLEN];

	(void)state;
	assert_int_equal(addr_len(&a), 0);
	assert_int_equal(addr_port(&a), 0);
	assert_string_equal(addr_format_host(&a, buf), "-");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_literals_are_parsed),
		cmocka_unit_test(ipv6_literals_are_parsed_with_and_without_brackets),
		cmocka_unit_test(a_mapped_address_prints_as_ipv4),
		cmocka_unit_test(the_host_is_printed_without_brackets),
		cmocka_unit_test(the_longest_address_fits_the_buffer),
		cmocka_unit_test(wildcards_are_taken_only_when_allowed),
		cmocka_unit_test(the_prefix_must_fit_the_literal),
		cmocka_unit_test(a_bad_port_is_told_from_a_bad_address),
		cmocka_unit_test(what_is_no_address_is_refused),
		cmocka_unit_test(names_are_looked_up_only_when_asked_for),
		cmocka_unit_test(addresses_are_equal_if_host_and_port_are),
		cmocka_unit_test(an_empty_address_has_no_length_and_no_port),
	};

	return cmocka_run_group_tests_name("addr", tests, NULL, NULL);
}
