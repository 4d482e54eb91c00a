/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * changing: one connection that changes its nature when it is told to: chat, upload, download,
 * chat. Every byte is checked at both ends, and so cheaply that bulk is as fast as the path allows.
 *
 * Each end sends frames: a header, then bytes of its stream. The client says in each header how
 * many bytes the server is to answer with; so a chat is a small frame with a small answer, an
 * upload is large frames without, and a download is empty frames with large ones. The server knows
 * of no phases.
 *
 * A stream repeats itself after PERIOD bytes, a prime number: so both ends have it in memory,
 * sending costs nothing but send(), and checking one memcmp(). What is lost or repeated by whole
 * periods is found too, because each header says where in the stream it stands.
 */
#include "exact.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAGIC 0x6772616863ULL /* "chang" without vowels, more or less */
#define PERIOD 1048573	      /* the largest prime number below 1 MB */
#define PIECE (256 * 1024)    /* one send, one receive */
#define BULK_FRAME (4 << 20)
#define CHAT_MAX 200	/* bytes of a message */
#define CHAT_PAUSE_MS 1 /* between an answer and the next message */
#define AHEAD 4		/* answers that a download asks for before the first has come */
#define PATIENCE_S 30	/* nothing moves for so long: stuck */
#define SEED_FROM_CLIENT 1
#define SEED_FROM_SERVER 2

static const char usage_text[] =
	"usage: changing serve --listen A\n"
	"       changing talk --connect A [--seed N] [--commands FILE]\n"
	"\n"
	"One connection that changes its nature when it is told to; every byte is checked at both "
	"ends.\n"
	"  serve   answers everyone; prints \"ready\"; runs until SIGTERM or SIGINT, then prints "
	"counters\n"
	"  talk    does what the lines of FILE (a FIFO; standard input) say, each until the next "
	"one:\n"
	"            chat       small messages and answers, one at a time, about 900 in a second\n"
	"            upload     as fast as it goes\n"
	"            download   as fast as it goes\n"
	"            end        (or the end of the file) an end of stream, and the other one's\n"
	"          Prints a line at the end of each phase: its name, bytes both ways, seconds, "
	"mb_per_s.\n"
	"Exit status: 0 everything was right, 1 something was not, 2 the command line was wrong.\n";

/* In the machine's byte order: both ends are this program on one machine. */
struct frame {
	uint64_t magic;
	uint64_t seed;	 /* of the connection: chosen by the client, repeated by the server */
	uint64_t at;	 /* where in its direction's stream the payload begins */
	uint32_t len;	 /* of the payload that follows */
	uint32_t answer; /* of that of the answer, if there is to be one; NO_ANSWER */
};

#define NO_ANSWER UINT32_MAX

_Static_assert(sizeof(struct frame) == 32, "a frame has no holes");

/* One end of a connection. */
struct talk {
	int fd;
	uint64_t seed;
	uint8_t *out,
		*in; /* what is sent, and what must come: PERIOD bytes, and the first PIECE again */
	uint64_t sent, got;	      /* of the payload */
	uint64_t wire_sent, wire_got; /* with the headers */
	uint8_t *buf;
	char wrong[160]; /* why it came to an early end */
};

/* ---- one end ---- */

static bool __attribute__((format(printf, 2, 3))) is_wrong(struct talk *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->wrong, sizeof(t->wrong), fmt, ap);
	va_end(ap);
	return false;
}

static uint8_t *make_stream(uint64_t seed, uint64_t from)
{
	uint8_t *s = malloc(PERIOD + PIECE);

	if (!s)
		die("out of memory");
	stream_fill(mix64(seed ^ from), 0, s, PERIOD);
	memcpy(s + PERIOD, s, PIECE);
	return s;
}

static void talk_seed(struct talk *t, uint64_t seed, uint64_t from, uint64_t peer)
{
	t->seed = seed;
	t->out = make_stream(seed, from);
	t->in = make_stream(seed, peer);
}

static void talk_init(struct talk *t, int fd)
{
	struct timeval patience = {.tv_sec = PATIENCE_S};

	*t = (struct talk){.fd = fd, .buf = malloc(PIECE)};
	if (!t->buf)
		die("out of memory");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		die("setsockopt: %s", strerror(errno));
	set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

/* When something was wrong, the other end sees a reset and not an end of stream. */
static void talk_done(struct talk *t)
{
	struct linger now = {.l_onoff = 1};

	if (t->wrong[0] && setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) < 0)
		die("SO_LINGER: %s", strerror(errno));
	close(t->fd);
	free(t->out);
	free(t->in);
	free(t->buf);
}

static const char *error_text(void)
{
	return errno == EAGAIN || errno == EWOULDBLOCK ? "nothing moves any more" : strerror(errno);
}

/* Sends a header and a payload of len bytes, the next ones of the stream. */
static bool send_frame(struct talk *t, uint32_t len, uint32_t answer)
{
	struct frame f = {
		.magic = MAGIC, .seed = t->seed, .at = t->sent, .len = len, .answer = answer};
	size_t head = sizeof(f), piece;
	ssize_t n;

	while (head || len) {
		piece = len < PIECE ? len : PIECE;
		struct iovec v[] = {
			{(uint8_t *)&f + sizeof(f) - head, head},
			{t->out + t->sent % PERIOD, piece},
		};
		struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};

		n = sendmsg(t->fd, &m, MSG_NOSIGNAL);
		if (n < 0)
			return is_wrong(t, "sending: %s", error_text());
		t->wire_sent += (uint64_t)n;
		piece = (size_t)n < head ? (size_t)n : head;
		head -= piece;
		t->sent += (uint64_t)n - piece;
		len -= (uint32_t)((size_t)n - piece);
	}
	return true;
}

/* Reads a header. false: there is none, because of an end of stream (when t->wrong is empty) or a
 * fault. */
static bool read_header(struct talk *t, struct frame *f)
{
	ssize_t n = recv(t->fd, f, sizeof(*f), MSG_WAITALL);

	if (n == 0)
		return false;
	if (n < 0)
		return is_wrong(t, "reading: %s", error_text());
	t->wire_got += (uint64_t)n;
	if (n < (ssize_t)sizeof(*f))
		return is_wrong(t, "an end after %zd bytes of a header", n);
	if (f->magic != MAGIC || (t->in && f->seed != t->seed) || f->at != t->got)
		return is_wrong(t, "a wrong header at %" PRIu64 " of the stream", t->got);
	return true;
}

/* Reads a payload and compares it with the stream. */
static bool read_payload(struct talk *t, uint32_t len)
{
	while (len) {
		const uint8_t *want = t->in + t->got % PERIOD;
		ssize_t n = recv(t->fd, t->buf, len < PIECE ? len : PIECE, 0);

		if (n < 0)
			return is_wrong(t, "reading: %s", error_text());
		if (n == 0)
			return is_wrong(t, "an end of stream at %" PRIu64 ", %u bytes too early",
					t->got, len);
		t->wire_got += (uint64_t)n;
		if (memcmp(t->buf, want, (size_t)n)) {
			for (ssize_t i = 0; i < n; i++)
				if (t->buf[i] != want[i])
					return is_wrong(t,
							"a wrong byte at %" PRIu64 " of the stream",
							t->got + (uint64_t)i);
		}
		t->got += (uint64_t)n;
		len -= (uint32_t)n;
	}
	return true;
}

/* ---- the server: a thread for each connection ---- */

static struct {
	atomic_uint_fast64_t connections, open, ok, errors, in, out;
} served;

static void *serve_one(void *arg)
{
	struct talk t;
	struct frame f;

	talk_init(&t, (int)(intptr_t)arg);
	while (read_header(&t, &f)) {
		if (!t.in)
			talk_seed(&t, f.seed, SEED_FROM_SERVER, SEED_FROM_CLIENT);
		if (!read_payload(&t, f.len))
			break;
		if (f.answer != NO_ANSWER && !send_frame(&t, f.answer, NO_ANSWER))
			break;
	}
	if (t.wrong[0])
		complain("connection with seed %016" PRIx64 ": %s", t.seed, t.wrong);
	served.errors += t.wrong[0] != 0;
	served.ok += !t.wrong[0];
	served.in += t.wire_got;
	served.out += t.wire_sent;
	served.open--; /* before the client can see that it is over */
	talk_done(&t);
	return NULL;
}

static volatile sig_atomic_t stopping;

static void on_signal(int signal)
{
	(void)signal;
	stopping = 1;
}

static int listen_at(const struct addr *at)
{
	int fd = socket(at->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(fd, (const struct sockaddr *)&at->sa, at->len) < 0 || listen(fd, 4096) < 0)
		die("listen: %s", strerror(errno));
	return fd;
}

static int serve(const struct addr *at)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct pollfd p = {.fd = listen_at(at), .events = POLLIN};
	sigset_t blocked, before;
	pthread_t thread;
	int fd;

	/* The signals come to this thread alone, and only while it waits. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGINT);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	pthread_sigmask(SIG_BLOCK, &blocked, &before);
	printf("ready\n");
	fflush(stdout);
	while (!stopping) {
		if (ppoll(&p, 1, NULL, &before) <= 0)
			continue;
		fd = accept4(p.fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		served.connections++;
		served.open++;
		if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)fd) != 0)
			die("out of threads");
		pthread_detach(thread);
	}
	/* Who has not ended by now was not told to, or is stuck. */
	printf("connections=%" PRIuFAST64 " open=%" PRIuFAST64 " ok=%" PRIuFAST64
	       " errors=%" PRIuFAST64 " bytes_in=%" PRIuFAST64 " bytes_out=%" PRIuFAST64 "\n",
	       served.connections, served.open, served.ok, served.errors, served.in, served.out);
	fflush(stdout);
	_exit(served.errors || served.open ? 1 : 0); /* without waiting for threads */
}

/* ---- the client: phases ---- */

enum phase { PHASE_CHAT, PHASE_UPLOAD, PHASE_DOWNLOAD, PHASE_END, PHASES };

static const char *const phase_names[PHASES] = {"chat", "upload", "download", "end"};

static struct {
	int fd; /* where the commands come from */
	char line[64];
	size_t len;
} commands;

/* The next command, if there is one within so long; -1: none yet. */
static int next_command(int wait_ms)
{
	struct pollfd p = {.fd = commands.fd, .events = POLLIN};
	char *end = memchr(commands.line, '\n', commands.len);
	ssize_t n;

	if (!end) {
		if (poll(&p, 1, wait_ms) <= 0)
			return -1;
		n = read(p.fd, commands.line + commands.len, sizeof(commands.line) - commands.len);
		if (n <= 0)
			return PHASE_END;
		commands.len += (size_t)n;
		end = memchr(commands.line, '\n', commands.len);
		if (!end)
			return -1;
	}
	*end++ = '\0';
	for (int phase = 0; phase < PHASES; phase++) {
		if (strcmp(commands.line, phase_names[phase]))
			continue;
		commands.len -= (size_t)(end - commands.line);
		memmove(commands.line, end, commands.len);
		return phase;
	}
	die("'%s' is no command", commands.line);
}

static bool answered(struct talk *t, uint32_t len)
{
	struct frame f;

	if (!read_header(t, &f))
		return t->wrong[0] ? false : is_wrong(t, "an end of stream instead of an answer");
	if (f.len != len || f.answer != NO_ANSWER)
		return is_wrong(t, "an answer that nobody asked for");
	return read_payload(t, len);
}

/* Each of these goes on until there is another command. */

static bool chat(struct talk *t, struct rng *r, int *next)
{
	uint32_t len;

	do {
		len = (uint32_t)rng_below(r, CHAT_MAX + 1);
		if (!send_frame(t, (uint32_t)rng_below(r, CHAT_MAX + 1), len) || !answered(t, len))
			return false;
		*next = next_command(CHAT_PAUSE_MS);
	} while (*next < 0);
	return true;
}

static bool upload(struct talk *t, int *next)
{
	do {
		if (!send_frame(t, BULK_FRAME, NO_ANSWER))
			return false;
		*next = next_command(0);
	} while (*next < 0);
	return true;
}

static bool download(struct talk *t, int *next)
{
	int asked = 0;

	*next = -1;
	while (*next < 0 || asked) {
		for (; *next < 0 && asked < AHEAD; asked++)
			if (!send_frame(t, 0, BULK_FRAME))
				return false;
		if (!answered(t, BULK_FRAME))
			return false;
		asked--;
		if (*next < 0)
			*next = next_command(0);
	}
	return true;
}

static bool run_phase(struct talk *t, struct rng *r, int phase, int *next)
{
	uint64_t sent = t->wire_sent, got = t->wire_got;
	int64_t start = now_ns();
	double seconds;
	bool ok = phase == PHASE_CHAT	  ? chat(t, r, next)
		  : phase == PHASE_UPLOAD ? upload(t, next)
					  : download(t, next);

	sent = t->wire_sent - sent;
	got = t->wire_got - got;
	seconds = (double)(now_ns() - start) / NS_PER_SEC;
	printf("phase=%s up=%" PRIu64 " down=%" PRIu64 " seconds=%.3f mb_per_s=%.0f\n",
	       phase_names[phase], sent, got, seconds, (double)(sent + got) / seconds / 1e6);
	fflush(stdout);
	return ok;
}

static int connect_to(const struct addr *to)
{
	int fd = socket(to->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (connect(fd, (const struct sockaddr *)&to->sa, to->len) < 0)
		die("connect: %s", strerror(errno));
	return fd;
}

/* The end of our stream, and the end of the other one, with nothing before it. */
static bool finish(struct talk *t)
{
	struct frame f;

	if (shutdown(t->fd, SHUT_WR) < 0)
		return is_wrong(t, "shutdown: %s", strerror(errno));
	if (read_header(t, &f))
		return is_wrong(t, "an answer that nobody asked for");
	return !t->wrong[0];
}

static int talk(const struct addr *to, uint64_t seed)
{
	struct rng r = {mix64(seed)};
	struct talk t;
	bool ok = true;
	int phase, next;

	talk_init(&t, connect_to(to));
	talk_seed(&t, seed, SEED_FROM_CLIENT, SEED_FROM_SERVER);
	printf("connected\n");
	fflush(stdout);
	for (phase = next_command(-1); ok && phase != PHASE_END; phase = next) {
		if (phase < 0)
			next = next_command(-1);
		else
			ok = run_phase(&t, &r, phase, &next);
	}
	ok = ok && finish(&t);
	if (!ok)
		complain("seed %016" PRIx64 ": %s", t.seed, t.wrong);
	printf("ok=%d up=%" PRIu64 " down=%" PRIu64 "\n", ok, t.wire_sent, t.wire_got);
	talk_done(&t);
	return ok ? 0 : 1;
}

/* ---- the command line ---- */

static void __attribute__((noreturn)) usage(void)
{
	fputs(usage_text, stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	bool serving = argc > 1 && !strcmp(argv[1], "serve");
	struct addr addr = {0};
	uint64_t seed = 1;

	if (!serving && !(argc > 1 && !strcmp(argv[1], "talk")))
		usage();
	for (int i = 2; i < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];

		if (!value)
			usage();
		if (!strcmp(name, serving ? "--listen" : "--connect")) {
			if (addr_parse(&addr, value) < 0)
				usage();
		} else if (!serving && !strcmp(name, "--seed")) {
			seed = strtoull(value, NULL, 0);
		} else if (!serving && !strcmp(name, "--commands")) {
			/* For reading and writing: so opening a FIFO waits for nobody, and it never
			 * ends. */
			commands.fd = open(value, O_RDWR | O_CLOEXEC);
			if (commands.fd < 0)
				die("%s: %s", value, strerror(errno));
		} else {
			usage();
		}
	}
	if (!addr.len)
		usage();
	return serving ? serve(&addr) : talk(&addr, seed);
}
