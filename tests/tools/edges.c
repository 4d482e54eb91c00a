/*
 * edges: the edge cases of a TCP session, played through a proxy by one process that is both ends.
 *
 *	edges --front ADDR:PORT --back ADDR:PORT [--only NAME] [--quick] [--list] [--repeat N]
 *	      [--delay-back-accept]
 *
 * It connects to --front as the client and listens on --back as the server. The proxy in between
 * has that one server, no health checks (they would be taken for sessions), no PROXY header, a
 * connect timeout above 2 s and idle timeouts above 5 s. With --front equal to --back there is no
 * proxy at all: plain TCP is the perfect proxy, so everything must pass; that is how this program
 * is tested.
 *
 * One line per scenario, `ok NAME: notes` or `FAIL NAME: what was expected, what happened`; then
 * `N passed, N failed`. Exit status: 0, 1 after any failure, 2 for wrong usage. --only takes every
 * scenario whose name contains NAME; --quick leaves out what takes a second or is about time.
 * --delay-back-accept lets the server accept 20 ms late every time. A line that begins with # says
 * that after a failure not even a clean session passed.
 *
 * How it works: each end sends a stream of its own, whose bytes depend on the end's seed and on
 * their position, so a byte that is lost, repeated, reordered or a stranger's is seen and named.
 * An end has goals (how far to send, how far to read); step() moves both ends of a session once,
 * flow() until the goals of one end are met. All sockets are non-blocking and all waiting is poll()
 * with a deadline, so that no scenario can hang. A scenario that fails jumps back to the runner.
 *
 * What is demanded of a proxy beyond right bytes:
 *
 * - A reset is passed on as a reset, within 500 ms, even to an end that neither reads nor sends.
 *   The other end gets ECONNRESET. EPIPE is how Linux says it to a socket that has had a FIN, so
 *   it is right only after a half-close; elsewhere it shows that a FIN came where RST was due.
 * - What a resetting end sent just before may arrive or not, but only as a right prefix.
 * - A client that resets before its first byte may never be seen by the server, or as a reset.
 * - An urgent byte is one more byte of the stream, at its place: both ends have SO_OOBINLINE, and
 *   a proxy that does not set it on its own sockets drops the byte. The urgent mark may get lost.
 * - A server that refuses shows to the client as a reset or a refusal, not as a clean EOF.
 * - The directions are independent: who does not read can send, as long as the other end reads.
 * - A sender whose receiver does not read is stopped some time, here before 128 MB.
 */
#include "edges.h"

static void drop_all(struct stage *st)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};

	for (unsigned int i = 0; i < SESSIONS_MAX; i++) {
		for (int side = 0; side < 2; side++) {
			struct end *e = &st->sessions[i].ends[side];

			if (!e->stage)
				continue;
			if (e->fd >= 0)
				setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
			close_end(e);
		}
	}
}

/* After a failure: gets rid of connections left behind, and sees that the proxy still works. */
static void sweep(struct stage *st)
{
	struct session *s;

	st->sick = true; /* until the contrary is seen */
	if (setjmp(st->bail)) {
		printf("# afterwards a clean session fails, too: %s\n", st->failure);
	} else {
		s = call(st, 0, 0);
		pick_up(s, false);
		st->sick = false;
		while (try_answer(fresh(st, 0), 50))
			drop_all(st);
	}
	drop_all(st);
}

static bool run(struct stage *st, const struct scenario *sc, enum side who, const char *name)
{
	int64_t since = now_us();
	bool ok;

	st->note[0] = '\0';
	st->expected = "";
	st->patience_ms = st->sick || st->stalls >= 3 ? IMPATIENCE_MS : PATIENCE_MS;
	ok = setjmp(st->bail) == 0;
	if (ok)
		sc->play(st, who, sc->arg);
	else
		printf("FAIL %s: %s\n", name, st->failure);
	if (ok)
		printf("ok %s: %.0f ms%s%s\n", name, (now_us() - since) / 1000.0,
		       st->note[0] ? ", " : "", st->note);
	fflush(stdout);
	drop_all(st);
	if (sc->flags & RELISTEN) {
		if (setjmp(st->bail)) {
			fprintf(stderr, "edges: %s\n", st->failure);
			exit(1);
		}
		listen_back(st, 0);
	}
	if (!ok || sc->flags & STRAYS)
		sweep(st);
	return ok;
}

static int parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
				 .ai_socktype = SOCK_STREAM};
	const char *colon = strrchr(text, ':');
	struct addrinfo *found;
	char host[64];
	size_t len;

	if (!colon)
		return -EINVAL;
	len = colon - text;
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (len == 0 || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return -EINVAL;
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	*ret_len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

struct options {
	const char *only;
	bool quick, list;
	unsigned int repeat;
};

/* Plays (or lists) the chosen scenarios once. */
static void run_all(struct stage *st, const struct options *o, unsigned int *passed,
		    unsigned int *failed)
{
	static const char *const sides[] = {"client", "server"};

	for (size_t i = 0; i < scenarios_count; i++) {
		const struct scenario *sc = &scenarios[i];
		int from = sc->flags & SERVER_ONLY ? SERVER : CLIENT;
		int to = sc->flags & (BOTH | SERVER_ONLY) ? SERVER : CLIENT;

		if ((o->quick && sc->flags & SLOW) || (st->direct && sc->flags & PROXY_ONLY))
			continue;
		for (int who = from; who <= to; who++) {
			char name[100];

			snprintf(name, sizeof(name), sc->name, sides[who]);
			if (o->only && !strstr(name, o->only))
				continue;
			if (o->list)
				printf("%s\n", name);
			else
				*(run(st, sc, who, name) ? passed : failed) += 1;
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{"front", required_argument, NULL, 'f'},
		{"back", required_argument, NULL, 'b'},
		{"only", required_argument, NULL, 'o'},
		{"quick", no_argument, NULL, 'q'},
		{"list", no_argument, NULL, 'l'},
		{"repeat", required_argument, NULL, 'r'},
		{"delay-back-accept", no_argument, NULL, 'd'},
		{0},
	};
	static struct stage st = {.listener = -1, .filler = -1, .patience_ms = PATIENCE_MS};
	struct options o = {.repeat = 1};
	unsigned int passed = 0, failed = 0;
	bool wrong = false;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'f')
			wrong |= parse_address(optarg, &st.front, &st.front_len) < 0;
		else if (c == 'b')
			wrong |= parse_address(optarg, &st.back, &st.back_len) < 0;
		else if (c == 'o')
			o.only = optarg;
		else if (c == 'q')
			o.quick = true;
		else if (c == 'l')
			o.list = true;
		else if (c == 'r')
			o.repeat = strtoul(optarg, NULL, 10);
		else if (c == 'd')
			st.accept_delay_ms = LATE_ACCEPT_MS;
		else
			wrong = true;
	}
	if (wrong || optind != argc || (!o.list && (!st.front_len || !st.back_len))) {
		fprintf(stderr,
			"usage: edges --front ADDR:PORT --back ADDR:PORT [--only NAME] [--quick]\n"
			"             [--list] [--repeat N] [--delay-back-accept]\n");
		return 2;
	}
	st.direct = st.front_len && st.front_len == st.back_len &&
		    !memcmp(&st.front, &st.back, st.back_len);
	if (o.list) {
		run_all(&st, &o, &passed, &failed);
		return 0;
	}
	if (setjmp(st.bail)) {
		fprintf(stderr, "edges: %s\n", st.failure);
		return 2;
	}
	listen_back(&st, 0);
	for (unsigned int i = 0; i < o.repeat; i++)
		run_all(&st, &o, &passed, &failed);
	printf("%u passed, %u failed\n", passed, failed);
	close_back(&st);
	return failed ? 1 : passed ? 0 : 2;
}
