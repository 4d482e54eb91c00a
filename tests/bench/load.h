/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load: the load generator of the bench. Small, exact, and fast enough to saturate two cores from
 * one thread per end. This header is what its parts share:
 *
 *	load.c		command line
 *	loop.c		epoll, sockets, time
 *	pattern.c	streams that can be checked at every byte, and faults to try the check with
 *	histogram.c	latencies
 *	sample.c	free memory, and memory and context switches of the watched processes
 *	server.c	the one server of all modes
 *	flows.c		connections of a client, phases of a run, the line of results
 *	bulk.c echo.c connect.c idle.c	the clients
 *	verify.c	the clients that check every byte
 *	selftest.c	does the check find what is wrong?
 *	delay.c		a wire that is 25 ms long, for kernels without netem
 *
 * One process runs one mode in one thread, so a mode keeps its state in static variables. Trouble
 * ends the process through failed(): a run has no result, or a true one.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define NS_PER_MS 1000000ULL
#define NS_PER_SEC 1000000000ULL
#define IO_SIZE (256 * 1024) /* the largest single send and receive */
#define WATCHED_MAX 16

struct addr {
	struct sockaddr_storage sa;
	socklen_t len;
};

/* Kinds of faults that the server, or a client that uploads, puts into its streams if asked to. */
enum fault {
	FAULT_NONE,
	FAULT_CORRUPT,
	FAULT_LOST,
	FAULT_REPEATED,
	FAULT_SWAPPED,
	FAULT_CUT,
	FAULT_LONGER,
	FAULT_MAX
};

/* What happens in a second window of a run. */
enum then { THEN_NOTHING, THEN_SIGSTOP, THEN_BULK, THEN_READERS, THEN_MAX };

struct options {
	const char *mode;
	struct addr listen, connect;
	struct addr
		control;  /* the server itself, past the balancer: counters of what it received */
	struct addr bulk; /* of `--then bulk`; another server process, so that they do not share a
			     thread */
	uint64_t connections;
	uint64_t warmup_ms, window_ms, then_ms;
	uint64_t size;	 /* of a message */
	uint64_t bytes;	 /* of a stream that is verified */
	uint64_t rate;	 /* bytes/s of each connection; 0: as fast as it goes */
	uint64_t others; /* connections of the disturbance */
	uint64_t delay_ms;
	int watched[WATCHED_MAX];
	int nr_watched;
	const char *interfaces[2];
	enum then then;
	enum fault fault;
	bool reset;
};

/* The modes return the exit status: 0, or 1 failed, 2 wrong usage, 3 wrong bytes. */
#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define EXIT_WRONG 3

int mode_server(const struct options *o);
int mode_download(const struct options *o);
int mode_upload(const struct options *o);
int mode_limited(const struct options *o);
int mode_echo(const struct options *o);
int mode_connect(const struct options *o);
int mode_idle(const struct options *o);
int mode_verify(const struct options *o);
int mode_selftest(const struct options *o);
int mode_delay(const struct options *o);
void server_run(int listen_fd, const struct options *o) __attribute__((noreturn));

/* ---- what a client says first: 32 bytes, in the machine's byte order ---- */

#define REQUEST_MAGIC 0x4c4f4144u

enum kind { KIND_DOWNLOAD, KIND_UPLOAD, KIND_ECHO, KIND_SHORT, KIND_COUNTERS, KIND_MAX };

struct request {
	uint32_t magic;
	uint8_t kind;
	uint8_t verify; /* the bytes of the streams are of the pattern with this key */
	uint16_t unused;
	uint64_t key;
	uint64_t bytes; /* the length of the stream; 0: without end */
	uint64_t rate;	/* of a download, bytes/s; 0: as fast as it goes */
};

/* The answer to KIND_COUNTERS; one connection may ask again and again. */
struct counters {
	uint64_t at_ns; /* CLOCK_MONOTONIC */
	uint64_t received, sent;
	uint64_t accepted, ended, reset; /* connections: by FIN, by RST */
	uint64_t wrong;			 /* streams that were not what they should be */
};

/* The answer to a verified upload, after its FIN. */
struct verdict {
	uint64_t received;
	uint64_t wrong_at; /* the first wrong byte, or UINT64_MAX */
};

/* ---- loop.c ---- */

/* Embedded as the first member in what it serves. It may be closed in its own callback only. */
struct watch {
	int fd;
	void (*io)(struct watch *w, uint32_t events);
};

void loop_init(void);
/* Handles what comes for so long. */
void loop_run_for(uint64_t ns);
/* Handles what comes until done() says so; false: it did not within the time. */
bool loop_run_until(bool (*done)(void), uint64_t ns);
void watch_add(struct watch *w, uint32_t events);
void watch_set(struct watch *w, uint32_t events);
void watch_close(struct watch *w);
/* Calls fn every so often, from the loop. Once per process. */
void every(uint64_t ns, void (*fn)(void));

uint64_t now_ns(void);
int addr_parse(struct addr *ret, const char *text);
int listen_at(const struct addr *at);
/* A non-blocking socket that is connecting. */
int connect_to(const struct addr *to);
int connect_wait(const struct addr *to, uint64_t ns); /* a blocking one, connected */
void set_linger_reset(int fd);
void raise_nofile(void);
uint64_t random_key(void);
/* "status=failed reason=...", and the end. */
void failed(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* "status=wrong reason=...": the bytes are not what they should be. */
void wrong(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- pattern.c ---- */

/* A stream of `total` bytes of the pattern of a key, with a fault at a byte of it. */
struct stream {
	uint64_t key, total;
	enum fault fault;
	uint64_t fault_at;
};

/* The length that really goes out. */
uint64_t stream_length(const struct stream *s);
/* Bytes [pos, pos+len) of what goes out. */
void stream_read(const struct stream *s, uint64_t pos, void *buf, size_t len);
void pattern_fill(uint64_t key, uint64_t pos, void *buf, size_t len);
/* The position of the first wrong byte, or UINT64_MAX. */
uint64_t pattern_check(uint64_t key, uint64_t pos, const void *buf, size_t len);
const char *fault_name(enum fault f);

/* ---- histogram.c ---- */

#define HISTOGRAM_SUB 128 /* parts of each power of two: the error is below 0.8 % */
#define HISTOGRAM_SIZE ((64 - 6) * HISTOGRAM_SUB)

struct histogram {
	uint64_t count, max;
	uint32_t at[HISTOGRAM_SIZE];
};

void histogram_reset(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t value);
/* The value that `permille`/10 percent do not exceed; 0 if there is none. */
uint64_t histogram_at(const struct histogram *h, unsigned int permille);

/* ---- sample.c ---- */

struct sample {
	uint64_t peak_bytes;	 /* of the machine: free before, less the least since */
	uint64_t rss_peak_bytes; /* of the watched processes, sum */
};

/* Starts the sampler's thread; what is free now is what it compares with. */
void sample_start(const struct options *o);
/* From now on, instead. */
void sample_again(void);
void sample_get(struct sample *ret);
uint64_t sample_switches(void); /* of the watched processes, all threads, since they live */
uint64_t sample_pss(void);
uint64_t sample_available(void);

/* ---- flows.c ---- */

/* One connection of a client. */
struct flow {
	struct watch w;
	struct request req;
	/* Called when the request is out and later; w.io is ours until then. */
	void (*io)(struct watch *w, uint32_t events);
	uint32_t events; /* what io waits for */
	bool open;
	uint64_t pos;	/* bytes of the stream that came or went, or of the message */
	uint64_t at_ns; /* when the message, or the connection, began */
	uint64_t budget;
	bool sending;
};

struct flow *flows_open(const struct addr *to, uint64_t n, const struct request *req,
			void (*io)(struct watch *w, uint32_t events), uint32_t events);
void flow_begin(struct flow *f, const struct addr *to);
/* What recv() or send() returned was not a number of bytes: fine if there is just nothing to do
 * now. */
void flow_check(ssize_t n, const char *what);

/* What a client counts, as it goes. */
struct tally {
	uint64_t bytes, messages;
	bool at_server; /* the server is the receiver: its counter of bytes is taken */
	struct histogram latency;
};

extern struct tally tally;

/* Connected, warmed up: measures one or two windows, and prints the line. */
int measure(const struct options *o);
const char *then_name(enum then t);
/* The server's counters, over a connection of its own. */
void counters_ask(const struct options *o, struct counters *ret);

/* ---- the disturbances of --then, called by measure() ---- */

void bulk_child_start(const struct options *o);
uint64_t bulk_child_bytes(void);
void bulk_child_end(void);
void readers_start(const struct options *o);

#endif
