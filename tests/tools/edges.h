/*
 * edges.h: what the parts of edges share (edges.c says what it is). Verbs, not prefixes: a scenario
 * shall read like one.
 */
#ifndef EDGES_H
#define EDGES_H

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KB(n) ((uint64_t)(n) << 10)
#define MB(n) ((uint64_t)(n) << 20)
#define TO_THE_END UINT64_MAX /* a goal: go on until the stream ends or breaks */

enum {
	CHUNK = 64 * 1024,
	SESSIONS_MAX = 50,
	PATIENCE_MS = 5000,   /* nothing at all moves for so long: stalled */
	IMPATIENCE_MS = 2000, /* with a proxy that has shown to be broken */
	STUCK_MS = 300,	      /* a sender that cannot send for so long is blocked */
	RESET_LIMIT_MS = 500,
	REFUSED_LIMIT_MS = 10000,
	LATE_ACCEPT_MS = 20,
	FILLED_MAX_MB = 128,
};

enum side { CLIENT, SERVER };

struct stage;
struct session;

/* One end of a session. Positions are absolute; a goal equal to its position is an idle end. */
struct end {
	struct stage *stage;
	struct session *session;
	struct end *peer;
	const char *name;
	int fd;	       /* -1: not there yet, or gone */
	uint64_t seed; /* of the bytes that this end sends */
	uint64_t sent; /* taken by the kernel */
	uint64_t got;  /* read, and found right */
	uint64_t send_goal;
	uint64_t read_goal;
	size_t send_chunk;
	bool fin_wanted; /* SHUT_WR as soon as the send goal is met */
	bool eof;
	int error; /* the first one; the kernel tells it once */
	int64_t error_at_us;
};

struct session {
	struct end ends[2]; /* by enum side */
};

struct stage {
	struct sockaddr_storage front, back;
	socklen_t front_len, back_len;
	bool direct; /* no proxy: front is back */
	int listener;
	int accept_delay_ms;
	int patience_ms;
	bool sick;	     /* the last clean session failed: so less patience is due */
	unsigned int stalls; /* and so it is after a few of them */
	uint64_t last_seed;
	int64_t reset_at_us;
	struct session sessions[SESSIONS_MAX];
	int filler;	      /* fills the listener's queue, see hang_connects() */
	const char *expected; /* for the message, if nothing moves any more */
	char note[256];
	char failure[512];
	jmp_buf bail;
	uint8_t buf[CHUNK], want[CHUNK];
};

/* A scenario: `who` is the initiator. */
struct scenario {
	const char *name; /* a %s in it is "client" or "server" */
	void (*play)(struct stage *st, enum side who, uint64_t arg);
	uint64_t arg;
	unsigned int flags;
};

enum {
	BOTH = 1, /* play it with the client as the initiator, then with the server */
	SERVER_ONLY = 2,
	SLOW = 4,	 /* not with --quick */
	STRAYS = 8,	 /* may leave connections behind that the runner has to sweep up */
	RELISTEN = 16,	 /* has changed the listener */
	PROXY_ONLY = 32, /* makes no sense without a proxy */
};

/* ---- edges_scenes.c ---- */

extern const struct scenario scenarios[];
extern const size_t scenarios_count;

/* ---- edges_end.c: one end, both ends, and what is expected of them ---- */

int64_t now_us(void);
/* Only for scenarios that are about time. */
void pause_ms(int ms);
/* Ends the scenario: does not return, jumps to st->bail. Whatever is open, the runner closes. */
__attribute__((format(printf, 2, 3), noreturn)) void fail(struct stage *st, const char *fmt, ...);
/* Ends the scenario with st->expected, what happened instead, and where both ends are. */
__attribute__((noreturn)) void fail_state(struct session *s, const char *happened);
/* Adds to the scenario's ok line. */
__attribute__((format(printf, 2, 3))) void note(struct stage *st, const char *fmt, ...);
/* fail() with errno's text if `ret` is negative. */
void need(struct stage *st, int ret, const char *what);
void set(struct stage *st, int fd, int level, int option, int value);
/* The bytes [at, at + len) of the stream `seed`. */
void pattern(uint8_t *to, uint64_t seed, uint64_t at, size_t len);

/* From now on `e` wants to send `n` more bytes, and with say_last() its FIN. Nothing moves yet. */
void say(struct end *e, uint64_t n);
void say_last(struct end *e, uint64_t n);
/* What could not be sent so far will not be. */
void say_no_more(struct end *e);
/* SHUT_WR now. */
void half_close(struct end *e);
/* Closes, as the kernel does it: with bytes unread that is a reset. */
void close_end(struct end *e);
/* SO_LINGER {1,0} and close. Starts the clock for reset_seen_within(). */
void reset(struct end *e);

bool wants_send(const struct end *e);
/* Moves both ends towards their goals, once. Returns whether anything moved within `wait_ms`. */
bool step(struct session *s, int wait_ms);
/* Moves both ends until `e` has met its goals; both ends must be unbroken. */
void flow(struct end *e);
/* Moves both ends until all goals are met (true) or nothing has moved for `quiet_ms` (false). */
bool flow_until_stuck(struct session *s, int quiet_ms);
void flow_for(struct session *s, int ms);

/* `e` reads `n` more bytes while the other end sends what it has to. */
void hear(struct end *e, uint64_t n);
/* All that both ends have to say arrives. */
void deliver(struct session *s);
/* Both say so much, at the same time, and it arrives. */
void exchange(struct session *s, uint64_t from_client, uint64_t from_server);
/* `e` reads the rest of what the other end sent, exactly, and then a clean end. */
void expect_eof(struct end *e);
/* `first` ends its stream, the other end sees that and does the same; both are closed. */
void finish(struct end *first);
/* `e` reads on (and goes on sending, if it has something to send) until ECONNRESET. No limit: 0. */
void expect_reset(struct end *e, int limit_ms);
/* `e` has had the other end's FIN and is idle: it learns of the reset all the same. */
void expect_reset_after_eof(struct end *e);
/* Waits for an error to be pending on `e`, neither reading nor sending. Does not consume it. */
bool error_pending(struct end *e, int ms);
void reset_seen_within(struct end *e, int limit_ms);

/* ---- edges_meet.c: the listener, and how sessions begin ---- */

/* (Re-)opens the server's listener. Its sockets inherit `rcvbuf`; 0: the kernel's choice. */
void listen_back(struct stage *st, int rcvbuf);
void close_back(struct stage *st);
/*
 * With the accept queue full the kernel drops the SYNs of whoever connects to --back (in 1 s they
 * will be repeated): the proxy's connect hangs until unhang_connects().
 */
void hang_connects(struct stage *st);
void unhang_connects(struct stage *st);
/* Session `i`, with two new streams and no sockets. */
struct session *fresh(struct stage *st, unsigned int i);
/* The client connects. Returns 0 or why it could not, as a positive errno. `rcvbuf` as above. */
int try_call(struct session *s, int rcvbuf);
struct session *call(struct stage *st, unsigned int i, int rcvbuf);
/* The server accepts the session, unless it has already. Returns false if none came in time. */
bool try_answer(struct session *s, int wait_ms);
void answer(struct session *s);
/* call() and answer(). */
struct session *meet(struct stage *st);
/* As early as `who` can speak: the client before the server's accept, the server right after it. */
struct end *meet_early(struct stage *st, enum side who);
/*
 * Accepts connections until the one that carries the client's first bytes. The others are left over
 * from an earlier client that is gone: if `strict`, they must be reset. Returns how many there
 * were.
 */
unsigned int pick_up(struct session *s, bool strict);

#endif
