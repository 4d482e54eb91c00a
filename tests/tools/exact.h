/*
 * exact: plays the clients and the servers on both sides of a TCP proxy and checks every byte.
 *
 * This header is what the parts of the tool share:
 *	exact.c		command line
 *	exact_lib.c	byte streams that can be checked at any offset, event loop, sockets
 *	exact_session.c	`serve` and `drive`: random sessions, and how each of them ended
 *	exact_modes.c	the plain modes: sink source fetch push echo ping hold
 *
 * One process runs one mode in one thread, so the loop and the counters of a mode are static.
 * Trouble with the machine (no descriptors, address in use) ends the process through die(); trouble
 * with a stream is what this tool is for: it is counted, printed and shown in the exit status.
 */
#ifndef EXACT_H
#define EXACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define MAX_ADDRS 16
#define NS_PER_MS 1000000LL
#define NS_PER_SEC 1000000000LL
#define IO_SIZE (256 * 1024) /* the largest single send and receive */

struct addr {
	struct sockaddr_storage sa;
	socklen_t len;
};

struct addr_list {
	struct addr at[MAX_ADDRS];
	size_t count;
};

/* Everything that the command line can say; which mode knows which option is in exact.c. */
struct options {
	const char *mode;
	struct addr_list listen, connect;
	const char *stats;
	uint64_t sessions, concurrency, seed, max_bytes;
	uint64_t slow_pct, reset_pct, delay_pct;
	uint64_t timeout_s, grace_s;
	uint64_t bytes, rate, rcvbuf, connections;
	uint64_t pause_after, pause_ms;
	uint64_t size, count, warmup, interval_us, seconds;
	bool half_close_only, no_half_close, server_first, strict_empty, forgive_resets, verbose;
	bool verify, no_answer, unchecked;
};

/* The modes. Each returns the exit status: 0 when everything was right, 1 when not. */
int mode_serve(const struct options *o);
int mode_drive(const struct options *o);
int mode_sink(const struct options *o);
int mode_source(const struct options *o);
int mode_fetch(const struct options *o);
int mode_push(const struct options *o);
int mode_echo(const struct options *o);
int mode_ping(const struct options *o);
int mode_hold(const struct options *o);

/* --- streams: byte `off` of stream `key` is the same for ever, for both ends --- */

uint64_t mix64(uint64_t x);
void stream_fill(uint64_t key, uint64_t off, void *buf, size_t len);
/* How many bytes of buf are the bytes of the stream from off on; len when all of them are. */
size_t stream_check(uint64_t key, uint64_t off, const void *buf, size_t len);
/* Where in [lo, hi) of the stream the bytes of buf stand; -1 if nowhere or too few to be sure. */
int64_t stream_find(uint64_t key, uint64_t lo, uint64_t hi, const void *buf, size_t len);
/* Writes what a mismatch at off looks like ("3 bytes lost", ...) into text; "" when unknown. */
void stream_explain(uint64_t key, uint64_t off, const void *buf, size_t len, char *text,
		    size_t size);

/* --- random numbers, for decisions (never for payload) --- */

struct rng {
	uint64_t state;
};

uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* 0 when n is 0 */
uint64_t rng_log(struct rng *r, uint64_t max); /* 1..max, every power of two as likely */
bool rng_pct(struct rng *r, uint64_t pct);

/* --- loop: level-triggered epoll and a heap of timers --- */

/*
 * One descriptor, or none (fd -1), and at most one timer. Embedded as the first member in what it
 * serves. A callback may delete its own watch and add others; it must not delete those of others.
 */
struct watch {
	int fd;
	uint32_t events;
	void (*io)(struct watch *w, uint32_t events);
	void (*timer)(struct watch *w);
	int64_t at; /* when the timer fires; 0: not set */
	size_t pos; /* its place in the heap while it is set */
};

/* on_signal is called for SIGTERM and SIGINT; NULL means loop_stop. */
void loop_init(void (*on_signal)(void));
void loop_run(void);
void loop_stop(void);
void watch_add(struct watch *w, uint32_t events);
void watch_want(struct watch *w, uint32_t events);
void watch_at(struct watch *w, int64_t at_ns);
/* Forgets the watch and closes its descriptor. */
void watch_close(struct watch *w);
/* The same, but the other end sees a reset, and unsent bytes are thrown away. */
void watch_abort(struct watch *w);
/* Calls fn once a second, until the process ends. */
void every_second(void (*fn)(void));

/* --- sockets and reports --- */

int64_t now_ns(void);
void raise_nofile(void);
int addr_parse(struct addr *ret, const char *text);
/* Listens on every --listen address, gives each accepted non-blocking socket away, says "ready". */
void listen_all(const struct options *o, void (*accepted)(int fd));
/* A non-blocking socket that is connecting to --connect address n (round robin); or -errno. */
int connect_start(const struct options *o, uint64_t n, int rcvbuf);
int socket_error(int fd);
void set_int(int fd, int level, int name, int value);
void die(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* One line on stderr. After 200 lines it only counts; the summary tells the number anyway. */
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool complaining(void);
/* Replaces the file with this one line, never showing half of it. path NULL: does nothing. */
void write_stats(const char *path, const char *line);

#endif
