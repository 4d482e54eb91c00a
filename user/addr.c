/* SPDX-License-Identifier: GPL-2.0-or-later */
/* addr.c - see addr.h. */
#include "addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#include "util.h"

socklen_t addr_len(const struct addr *a)
{
	switch (a->sa.sa_family) {
	case AF_INET:
		return sizeof(a->in);
	case AF_INET6:
		return sizeof(a->in6);
	}
	return 0;
}

unsigned int addr_port(const struct addr *a)
{
	switch (a->sa.sa_family) {
	case AF_INET:
		return ntohs(a->in.sin_port);
	case AF_INET6:
		return ntohs(a->in6.sin6_port);
	}
	return 0;
}

const char *addr_format_host(const struct addr *a, char buf[static ADDR_STRLEN])
{
	const struct in6_addr *v6 = &a->in6.sin6_addr;

	buf[0] = '\0';
	if (a->sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &a->in.sin_addr, buf, ADDR_STRLEN);
	else if (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(v6))
		inet_ntop(AF_INET, &v6->s6_addr[12], buf, ADDR_STRLEN);
	else if (a->sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, v6, buf, ADDR_STRLEN);
	else
		strcpy(buf, "-");
	return buf;
}

const char *addr_format(const struct addr *a, char buf[static ADDR_STRLEN])
{
	char host[ADDR_STRLEN];
	bool v6;

	addr_format_host(a, host);
	v6 = strchr(host, ':');
	snprintf(buf, ADDR_STRLEN, "%s%.60s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", addr_port(a));
	return buf;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family || addr_port(a) != addr_port(b))
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	return !memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr));
}

bool addr_is_any(const struct addr *a)
{
	switch (a->sa.sa_family) {
	case AF_INET:
		return a->in.sin_addr.s_addr == htonl(INADDR_ANY);
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
	}
	return false;
}

static int parse_port(const char *text, uint16_t *ret)
{
	unsigned long port = 0;

	if (!*text || strlen(text) > 5)
		return *text ? -ERANGE : -EINVAL;
	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '9')
			return -EINVAL;
		port = port * 10 + (unsigned long)(*p - '0');
	}
	if (port < 1 || port > 65535)
		return -ERANGE;
	*ret = (uint16_t)port;
	return 0;
}

/* Takes one literal or (with ADDR_RESOLVE) a name; family may be AF_UNSPEC. */
static int parse_host(struct addr *ret, const char *host, int family, unsigned int flags)
{
	struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM }, *res;

	if (family != AF_INET6 && inet_pton(AF_INET, host, &ret->in.sin_addr) == 1) {
		ret->sa.sa_family = AF_INET;
		return 0;
	}
	if (family != AF_INET && inet_pton(AF_INET6, host, &ret->in6.sin6_addr) == 1) {
		ret->sa.sa_family = AF_INET6;
		return 0;
	}
	if (strchr(host, ':') || !(flags & ADDR_RESOLVE))
		return -EINVAL;
	if (getaddrinfo(host, NULL, &hints, &res))
		return -ENOENT;
	memcpy(&ret->storage, res->ai_addr, MIN(sizeof(ret->storage), (size_t)res->ai_addrlen));
	freeaddrinfo(res);
	return 0;
}

int addr_parse(struct addr *ret, const char *text, unsigned int flags)
{
	struct addr a = { 0 };
	char host[256];
	const char *colon;
	int family = AF_UNSPEC, r;
	uint16_t port;
	size_t len;

	if (!strncmp(text, "ipv4@", 5))
		family = AF_INET;
	else if (!strncmp(text, "ipv6@", 5))
		family = AF_INET6;
	if (family != AF_UNSPEC)
		text += 5;

	colon = strrchr(text, ':');
	if (!colon)
		return -EINVAL;
	r = parse_port(colon + 1, &port);
	if (r < 0)
		return r;

	len = (size_t)(colon - text);
	if (len >= sizeof(host))
		return -EINVAL;
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
		if (family == AF_INET || !len)
			return -EINVAL;
		family = AF_INET6;
	}
	memcpy(host, text, len);
	host[len] = '\0';

	if (!len || !strcmp(host, "*")) {
		if (!(flags & ADDR_WILDCARD))
			return -EINVAL;
		a.sa.sa_family = (sa_family_t)(family == AF_UNSPEC ? AF_INET : family);
	} else {
		r = parse_host(&a, host, family, flags);
		if (r < 0)
			return r;
	}
	if (a.sa.sa_family == AF_INET)
		a.in.sin_port = htons(port);
	else
		a.in6.sin6_port = htons(port);
	*ret = a;
	return 0;
}
