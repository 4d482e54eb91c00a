/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * addr.h - a TCP address (IPv4 or IPv6, with a port), parsed from text and printed as text.
 * Plain data, no ownership, no sockets.
 */
#ifndef SHUNT_ADDR_H
#define SHUNT_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_storage storage;
	};
};

/* Enough for "[ipv6%scope]:port" and its NUL. */
#define ADDR_STRLEN 80

enum addr_parse_flags {
	ADDR_WILDCARD = 1, /* "*:80" and ":80" are allowed and mean the IPv4 wildcard, as in HAProxy */
	ADDR_RESOLVE = 2,  /* names are looked up (blocking); without it only literals are taken */
};

/*
 * Parses "1.2.3.4:80", "[::1]:80", "::1:80" (HAProxy's: what follows the last colon is the port), "name:80",
 * "*:80", ":80", and the prefixes "ipv4@" and "ipv6@" (which choose the family of a wildcard or a name).
 * The port is 1 to 65535. Returns 0; -EINVAL (not an address), -ERANGE (the port), -ENOENT (the name does not resolve).
 */
int addr_parse(struct addr *ret, const char *text, unsigned int flags);

/* Prints "1.2.3.4:80" or "[::1]:80" into buf; an IPv4-mapped address prints as IPv4. Returns buf. */
const char *addr_format(const struct addr *a, char buf[static ADDR_STRLEN]);

/* Prints the host alone, without brackets. Returns buf. */
const char *addr_format_host(const struct addr *a, char buf[static ADDR_STRLEN]);

/* The port in host byte order; 0 for an empty address. */
unsigned int addr_port(const struct addr *a);

/* The length that bind(2) and connect(2) want; 0 for an unknown family. */
socklen_t addr_len(const struct addr *a);

bool addr_equal(const struct addr *a, const struct addr *b);

/* Is the host 0.0.0.0 or [::]? */
bool addr_is_any(const struct addr *a);

#endif
