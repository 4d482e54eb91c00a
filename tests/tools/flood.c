/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * flood: the attacker of scripts/net/test-attacks.sh. It checks nothing and is content with whatever happens to it; who judges is the test.
 *
 *	flood syn A:P NETWORK COUNT		COUNT half-open connections: segments with SYN from random ports of addresses that nobody has (the
 *						last byte of NETWORK is replaced), so that no answer is ever answered. Needs a raw socket.
 *	flood bytes A:P CONNECTIONS SECONDS	segments of one byte, as fast as they are taken; what comes back is read
 *	flood deaf A:P CONNECTIONS SECONDS SIZE	sends SIZE bytes at a time, as fast as they are taken, and reads nothing
 *
 * The last two end when all connections were reset. IPv4 only. Prints what it did: sent=... (segments, or bytes).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in parse(const char *text)
{
	struct sockaddr_in at = {.sin_family = AF_INET};
	char host[64];
	const char *colon = strchr(text, ':');

	if (!colon || (size_t)(colon - text) >= sizeof(host)) {
		errno = EINVAL;
		die(text);
	}
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	at.sin_port = htons((uint16_t)atoi(colon + 1));
	if (inet_pton(AF_INET, host, &at.sin_addr) != 1)
		die(text);
	return at;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- half-open connections ---- */

static uint16_t checksum(uint32_t sum, const void *data, size_t len)
{
	const uint16_t *words = data;

	for (size_t i = 0; i < len / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void flood_syn(struct sockaddr_in to, uint32_t network, uint64_t count)
{
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	uint64_t sent = 0;

	if (fd < 0)
		die("raw socket");
	for (uint64_t i = 0; i < count; i++) {
		struct {
			struct iphdr ip;
			struct tcphdr tcp;
		} p = {
			.ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP},
			.tcp = {.doff = 5, .syn = 1},
		};
		uint32_t sum = htons(IPPROTO_TCP) + htons(sizeof(p.tcp));

		p.ip.tot_len = htons(sizeof(p));
		p.ip.saddr = htonl((ntohl(network) & ~255u) | (uint32_t)(100 + rand() % 100));
		p.ip.daddr = to.sin_addr.s_addr;
		p.tcp.source = htons((uint16_t)(1024 + rand() % 60000));
		p.tcp.dest = to.sin_port;
		p.tcp.seq = (uint32_t)rand();
		p.tcp.window = htons(65535);
		sum += (p.ip.saddr & 0xffff) + (p.ip.saddr >> 16) + (p.ip.daddr & 0xffff) +
		       (p.ip.daddr >> 16);
		p.tcp.check = checksum(sum, &p.tcp, sizeof(p.tcp));
		if (sendto(fd, &p, sizeof(p), 0, (struct sockaddr *)&to, sizeof(to)) == sizeof(p))
			sent++;
	}
	printf("sent=%lu\n", (unsigned long)sent);
}

/* ---- established ones ---- */

static void flood_established(struct sockaddr_in to, uint32_t n, double for_s, size_t size,
			      int deaf)
{
	struct rlimit files = {n + 64, n + 64};
	struct pollfd *all = calloc(n, sizeof(*all));
	static char bytes[1 << 20];
	double end = seconds() + for_s;
	uint64_t sent = 0;
	const int one = 1;
	uint32_t left = n;

	setrlimit(RLIMIT_NOFILE, &files);
	for (uint32_t i = 0; i < n; i++) {
		all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
		if (all[i].fd < 0 || connect(all[i].fd, (struct sockaddr *)&to, sizeof(to)) < 0)
			die("connect");
		setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
		all[i].events = deaf ? POLLOUT : POLLIN | POLLOUT;
	}
	printf("connected\n");
	fflush(stdout);
	while (left && seconds() < end && poll(all, n, 100) >= 0) {
		for (uint32_t i = 0; i < n; i++) {
			ssize_t r = 0;

			if (all[i].revents & (POLLERR | POLLHUP)) {
				all[i].fd = -1 - all[i].fd; /* it was reset */
				all[i].revents = 0;
				left--;
				continue;
			}
			for (int k = 0; all[i].revents & POLLOUT && r >= 0 && k < 16; k++) {
				r = send(all[i].fd, bytes, size, MSG_NOSIGNAL);
				sent += r > 0 ? (uint64_t)r : 0;
			}
			if (all[i].revents & POLLIN)
				while (recv(all[i].fd, bytes, sizeof(bytes), 0) > 0)
					;
		}
	}
	printf("sent=%lu\n", (unsigned long)sent);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "syn"))
		flood_syn(parse(argv[2]), inet_addr(argv[3]), strtoull(argv[4], NULL, 10));
	else if (argc == 5 && !strcmp(argv[1], "bytes"))
		flood_established(parse(argv[2]), (uint32_t)atoi(argv[3]), atof(argv[4]), 1, 0);
	else if (argc == 6 && !strcmp(argv[1], "deaf"))
		flood_established(parse(argv[2]), (uint32_t)atoi(argv[3]), atof(argv[4]),
				  (size_t)atoi(argv[5]), 1);
	else
		return fprintf(stderr, "flood: see the head of tests/tools/flood.c\n"), 2;
	return 0;
}
