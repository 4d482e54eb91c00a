/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bpf_help.c - see bpf_help.h. */
#include "bpf_help.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "sock.h"

void skip_because(const char *reason)
{
	if (getenv("CI"))
		fail_msg("skipped under CI: %s", reason);
	print_message("skipped: %s\n", reason);
	skip();
}

int need_root(void **state)
{
	(void)state;
	if (geteuid() == 0)
		return 0;
	print_error("these tests load a BPF program: run them as root\n");
	return -1;
}

/* ---- sockets ---- */

void set_int(int fd, int level, int option, int value)
{
	assert_ok(setsockopt(fd, level, option, &value, sizeof(value)));
}

struct address {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
	socklen_t len;
};

static struct address loopback(enum family family)
{
	struct address a = {
		.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
		.len = sizeof(a.in)};

	if (family == IP6) {
		a.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6,
					      .sin6_addr = IN6ADDR_LOOPBACK_INIT};
		a.len = sizeof(a.in6);
	}
	if (family == IP4_MAPPED) {
		a.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
		memcpy(&a.in6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
		a.len = sizeof(a.in6);
	}
	return a;
}

void tcp_pair(int ret[2], const struct pair_options *o)
{
	struct address at = loopback(o->family);
	__cleanup_close int listener = -EBADF;

	listener = socket(at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret[0] = socket(at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0 && ret[0] >= 0);
	if (o->mss) {
		set_int(ret[0], IPPROTO_TCP, TCP_MAXSEG, o->mss);
		set_int(listener, IPPROTO_TCP, TCP_MAXSEG, o->mss);
	}
	if (o->rcvbuf[0])
		set_int(ret[0], SOL_SOCKET, SO_RCVBUF, o->rcvbuf[0]);
	if (o->rcvbuf[1])
		set_int(listener, SOL_SOCKET, SO_RCVBUF, o->rcvbuf[1]);
	assert_ok(bind(listener, &at.sa, at.len));
	assert_ok(listen(listener, 1));
	assert_ok(getsockname(listener, &at.sa, &at.len));
	assert_ok(connect(ret[0], &at.sa, at.len));
	ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_ok(ret[1]);
	set_int(ret[0], IPPROTO_TCP, TCP_NODELAY, 1);
	set_int(ret[1], IPPROTO_TCP, TCP_NODELAY, 1);
}

void wait_poll(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

void send_all(int fd, const void *data, size_t len)
{
	while (len) {
		ssize_t n;

		wait_poll(fd, POLLOUT);
		n = send(fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			continue;
		assert_ok(n);
		data = (const char *)data + n;
		len -= (size_t)n;
	}
}

void recv_all(int fd, void *data, size_t len)
{
	while (len) {
		ssize_t n;

		wait_poll(fd, POLLIN);
		n = recv(fd, data, len, MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			continue;
		assert_ok(n);
		assert_int_not_equal(n, 0);
		data = (char *)data + n;
		len -= (size_t)n;
	}
}

bool is_silent(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}

unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 3; /* ".", "..", and the folder itself */
}

/* ---- streams ---- */

#define PERIOD 65521u /* a prime, and no size of a segment or a buffer */

static char stream[PERIOD];
static pthread_once_t stream_made = PTHREAD_ONCE_INIT;

static void stream_make(void)
{
	uint32_t x = 2463534242u;

	for (size_t i = 0; i < PERIOD; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		stream[i] = (char)(x >> 11);
	}
}

static size_t stream_at(uint32_t seed, uint64_t at)
{
	pthread_once(&stream_made, stream_make);
	return (size_t)((at + seed * 7919ull) % PERIOD);
}

void stream_fill(char *buf, uint32_t seed, uint64_t at, size_t len)
{
	for (size_t from = stream_at(seed, at), n; len; from = 0, buf += n, len -= n) {
		n = MIN(len, PERIOD - from);
		memcpy(buf, stream + from, n);
	}
}

bool stream_is(const char *buf, uint32_t seed, uint64_t at, size_t len)
{
	for (size_t from = stream_at(seed, at), n; len; from = 0, buf += n, len -= n) {
		n = MIN(len, PERIOD - from);
		if (memcmp(buf, stream + from, n))
			return false;
	}
	return true;
}

/* ---- traffic ---- */

/* Returns what was moved, 0 for "not now", or the traffic's error. */
static ssize_t traffic_step(const struct traffic *t, char *buf, uint64_t at, size_t len)
{
	ssize_t n;

	if (t->sends) {
		stream_fill(buf, t->seed, at, len);
		n = send(t->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	} else {
		n = recv(t->fd, buf, len, MSG_DONTWAIT);
		if (n == 0)
			return -ENODATA;
		if (n > 0 && !stream_is(buf, t->seed, at, (size_t)n))
			return -EBADMSG;
	}
	return n >= 0 ? n : errno == EAGAIN ? 0 : -errno;
}

static void wait_for_follower(const struct traffic *t, uint64_t at)
{
	while (traffic_done(t->follower) < at && !__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE))
		usleep(20);
}

static void *traffic_run(void *arg)
{
	struct traffic *t = arg;
	char *buf = malloc(t->chunk);
	uint64_t at = 0, goal;
	uint32_t calls = 0;

	while (buf && !__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE) &&
	       at < (goal = __atomic_load_n(&t->goal, __ATOMIC_ACQUIRE))) {
		ssize_t n = traffic_step(t, buf, at, (size_t)MIN(goal - at, t->chunk));

		if (n < 0) {
			__atomic_store_n(&t->error, (int)n, __ATOMIC_RELEASE);
			break;
		}
		if (n == 0) {
			struct pollfd p = {.fd = t->fd, .events = t->sends ? POLLOUT : POLLIN};

			poll(&p, 1, 2); /* then look at stop and goal again */
			continue;
		}
		at += (uint64_t)n;
		__atomic_store_n(&t->done, at, __ATOMIC_RELEASE);
		if (t->burst && ++calls == t->burst) {
			wait_for_follower(t, at);
			calls = 0;
		}
	}
	if (t->shuts && !t->error && at == t->goal)
		shutdown(t->fd, SHUT_WR);
	free(buf);
	return NULL;
}

static void traffic_start(struct traffic *t, bool sends, int fd, uint32_t seed, uint64_t goal,
			  uint32_t chunk)
{
	assert_false(t->started);
	*t = (struct traffic){
		.fd = fd,
		.seed = seed,
		.goal = goal,
		.chunk = chunk,
		.sends = sends,
		.started = true,
		.follower = t->follower,
		.burst = t->burst,
		.shuts = t->shuts,
	};
	assert_int_equal(pthread_create(&t->thread, NULL, traffic_run, t), 0);
}

void traffic_send(struct traffic *t, int fd, uint32_t seed, uint64_t goal, uint32_t chunk)
{
	traffic_start(t, true, fd, seed, goal, chunk);
}

void traffic_receive(struct traffic *t, int fd, uint32_t seed, uint64_t goal, uint32_t chunk)
{
	traffic_start(t, false, fd, seed, goal, chunk);
}

uint64_t traffic_done(const struct traffic *t)
{
	return __atomic_load_n(&t->done, __ATOMIC_ACQUIRE);
}

void traffic_set_goal(struct traffic *t, uint64_t goal)
{
	__atomic_store_n(&t->goal, goal, __ATOMIC_RELEASE);
}

int traffic_join(struct traffic *t, bool stop)
{
	if (!t->started)
		return 0;
	if (stop)
		__atomic_store_n(&t->stop, true, __ATOMIC_RELEASE);
	pthread_join(t->thread, NULL);
	t->started = false;
	return t->error;
}

/* ---- maps ---- */

int map_fd(const char *name)
{
	/* The newest first: a test that failed may have left its own. */
	for (int fd = 1023; fd > 2; fd--) {
		struct bpf_map_info info = {0};
		uint32_t len = sizeof(info);

		/* A program would be told apart by its name too: none is called like a map. */
		if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && !strcmp(info.name, name))
			return fd;
	}
	return -1;
}

unsigned int count_slots(void)
{
	int fd = map_fd("slots");
	uint64_t key, *at = NULL;
	unsigned int n = 0;

	assert_true(fd >= 0);
	for (; bpf_map_get_next_key(fd, at, &key) == 0; at = &key)
		n++;
	return n;
}

unsigned int count_sockets(void)
{
	int fd = map_fd("sockets");
	uint32_t key, *at = NULL;
	uint64_t cookie;
	unsigned int n = 0;

	assert_true(fd >= 0);
	for (; bpf_map_get_next_key(fd, at, &key) == 0; at = &key)
		n += bpf_map_lookup_elem(fd, &key, &cookie) == 0;
	return n;
}

#define SCRATCH_SIZE (1024 * 1024)

/* ---- the rig: sockets ---- */

int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	if (!rig)
		return -1;
	rig->scratch = malloc(SCRATCH_SIZE);
	rig->client = rig->server = rig->ends[0] = rig->ends[1] = -1;
	*state = rig;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		sock_close_reset(*fd); /* no TIME_WAIT: there will be thousands */
	*fd = -1;
}

void rig_leave(struct rig *rig, bool reset)
{
	const uint64_t cookies[2] = {rig->joins[0].cookie, rig->joins[1].cookie};

	for (int i = 0; i < 2; i++) {
		if (rig->ends[i] < 0)
			continue;
		if (!reset)
			sock_end_orderly(rig->ends[i]);
		close(rig->ends[i]); /* or else with a reset */
		rig->ends[i] = -1;
	}
	if (rig->joined)
		splice_leave(rig->sp, rig->session, cookies);
	rig->joined = false;
}

void rig_hang_up(struct rig *rig)
{
	close_fd(&rig->client);
	close_fd(&rig->server);
}

int rig_teardown(void **state)
{
	struct rig *rig = *state;

	for (int i = 0; i < 2; i++) {
		traffic_join(&rig->senders[i], true);
		traffic_join(&rig->receivers[i], true);
	}
	rig_leave(rig, true);
	rig_hang_up(rig);
	splice_free(rig->sp);
	free(rig->scratch);
	free(rig);
	return 0;
}

void rig_load(struct rig *rig, const struct rig_options *o)
{
	const struct splice_options options = {.max_sessions = o->max_sessions ?: 1,
					       .pin_path = ""};
	char why[300] = "";

	if (splice_new(&rig->sp, &options, why, sizeof(why)) < 0)
		fail_msg("splice_new: %s", why);
}

void rig_connect(struct rig *rig, const struct rig_options *o)
{
	const struct sock_tuning tuning = {.limit = (uint32_t)(o->limit ?: 1024 * 1024),
					   .begin = (uint32_t)(o->limit ?: 1024 * 1024)};
	int pair[2];

	rig->limit = tuning.limit;
	tcp_pair(pair, &o->front);
	rig->client = pair[0];
	rig->ends[0] = pair[1];
	tcp_pair(pair, &o->back);
	rig->ends[1] = pair[0];
	rig->server = pair[1];
	for (int i = 0; i < 2; i++) {
		assert_ok(sock_prepare(rig->ends[i]));
		assert_ok(sock_tune(rig->ends[i], &tuning));
		rig->proven[i] = 0;
		memset(rig->events[i], 0, sizeof(rig->events[i]));
	}
}

void rig_open(struct rig *rig, const struct rig_options *o)
{
	rig_load(rig, o);
	rig_connect(rig, o);
}

int rig_join(struct rig *rig, bool want_up, bool want_down)
{
	/* ends[1] was connected from here: its SYN counts. */
	rig->joins[0] = (struct splice_end){
		.fd = rig->ends[0], .want_kernel = want_up, .extra = rig->before[1]};
	rig->joins[1] = (struct splice_end){
		.fd = rig->ends[1], .want_kernel = want_down, .extra = rig->before[0] + 1};
	rig->joined = true; /* even if it was refused, it is to be left */
	return splice_join(rig->sp, rig->session, 0, rig->joins, rig->limit);
}

struct flow *rig_flow(struct rig *rig, int direction)
{
	return splice_flow(rig->sp, rig->session * 2 + (uint32_t)direction);
}

uint64_t rig_backlog(struct rig *rig, int direction)
{
	struct flow *f = rig_flow(rig, direction);
	int to = rig->ends[!direction];
	uint32_t unsent = sock_unsent(to);
	uint64_t written;

	assert_ok(sock_written(to, &written));
	return f->extra + flow_get(f, redirected) + f->moved - (written - unsent);
}

uint64_t exits(struct rig *rig, enum flow_exit way)
{
	uint64_t counters[FLOW_EXIT_MAX];

	splice_counters(rig->sp, counters);
	return counters[way];
}

/* ---- the rig: userspace's part of the contract ---- */

static void on_event(void *arg, const struct flow_event *e)
{
	struct rig *rig = arg;
	int i = (int)(e->index % 2);

	if (e->index / 2 == rig->session && e->cookie == rig->joins[i].cookie &&
	    e->reason < FLOW_REASON_MAX)
		rig->events[i][e->reason]++;
	else
		rig->strangers++;
}

/* Nothing that the kernel redirected waits any more: a write goes behind it. */
static bool is_proven(struct rig *rig, int i)
{
	struct flow *f = rig_flow(rig, i);
	uint64_t redirected = flow_get(f, redirected), written;

	if (rig->proven[i] == redirected)
		return true;
	assert_ok(sock_written(rig->ends[!i], &written));
	if (written < f->extra + redirected + f->moved)
		return false;
	assert_int_equal(written, f->extra + redirected + f->moved);
	rig->proven[i] = redirected;
	return true;
}

/*
 * While passed != moved the direction is ours: the program cannot take it back. What was passed is
 * written first, then published as moved, and only then taken, which opens the sender's window: so
 * the segment that follows finds the direction free. (Taken first, a fast sender would always be
 * ahead, and the direction would never come home.)
 */
static void pump(struct rig *rig, int i)
{
	struct flow *f = rig_flow(rig, i);
	uint64_t left;

	while ((left = flow_get(f, passed) - f->moved)) {
		ssize_t n, sent;

		if (!is_proven(rig, i))
			return;
		n = recv(rig->ends[i], rig->scratch, (size_t)MIN(left, SCRATCH_SIZE),
			 MSG_DONTWAIT | MSG_PEEK);
		if (n == 0 || (n < 0 && errno == EAGAIN))
			return; /* counted, and still on its way; 0 is no proof of an end */
		assert_ok(n);
		sent = send(rig->ends[!i], rig->scratch, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN)
			return;
		assert_ok(sent);
		flow_set(f, moved, f->moved + (uint64_t)sent);
		recv_all(rig->ends[i], rig->scratch, (size_t)sent);
	}
}

/*
 * The ends are not polled: poll(2) says readable as soon as a segment is received, also when it
 * still waits for the kernel's worker to bring it and recv() says EAGAIN; whoever spins then keeps
 * the worker off its processor, for seconds if the scheduler is in the mood. And what has piled up
 * in a millisecond fills the window, so that the pump has the last byte before the next one comes.
 */
static void work(struct rig *rig)
{
	splice_dispatch(rig->sp, 0, on_event, rig);
	for (int i = 0; i < 2; i++)
		if (rig->joined && !rig->no_pump[i] && rig->ends[i] >= 0)
			pump(rig, i);
}

void rig_turn(struct rig *rig)
{
	struct pollfd p = {.fd = splice_event_fd(rig->sp, 0), .events = POLLIN};

	poll(&p, 1, 1);
	work(rig);
}

void rig_step(struct rig *rig)
{
	usleep(20);
	work(rig);
}

/* ---- the rig: traffic ---- */

void rig_traffic(struct rig *rig, int direction, uint64_t goal, uint32_t chunk)
{
	int from = direction ? rig->server : rig->client,
	    to = direction ? rig->client : rig->server;

	traffic_send(&rig->senders[direction], from, (uint32_t)direction, goal, chunk);
	traffic_receive(&rig->receivers[direction], to, (uint32_t)direction, goal, 65536);
}

static void say_socket(const char *name, int fd)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return;
	print_error("  %s: state %u received %lu acked %lu unsent %u window %u probes %u "
		    "backoff %u retransmits %u\n",
		    name, info.tcpi_state, (unsigned long)info.tcpi_bytes_received,
		    (unsigned long)info.tcpi_bytes_acked, info.tcpi_notsent_bytes,
		    info.tcpi_snd_wnd, info.tcpi_probes, info.tcpi_backoff,
		    info.tcpi_total_retrans);
}

static void say_direction(struct rig *rig, int i)
{
	const struct flow *f = rig_flow(rig, i);

	print_error("  direction %d: mode %u reason %u ready %u want %u pauses %u resumes %u\n"
		    "    redirected %lu passed %lu moved %lu extra %lu limit %lu check_at %lu\n"
		    "    sent %lu of %lu, received %lu\n",
		    i, f->mode, f->reason, f->ready, f->want_kernel, f->pauses, f->resumes,
		    (unsigned long)f->redirected, (unsigned long)f->passed, (unsigned long)f->moved,
		    (unsigned long)f->extra, (unsigned long)f->limit, (unsigned long)f->check_at,
		    (unsigned long)traffic_done(&rig->senders[i]),
		    (unsigned long)rig->senders[i].goal,
		    (unsigned long)traffic_done(&rig->receivers[i]));
}

void rig_say(struct rig *rig)
{
	print_error("nothing goes on:\n");
	say_direction(rig, 0);
	say_direction(rig, 1);
	say_socket("client", rig->client);
	say_socket("end 0", rig->ends[0]);
	say_socket("end 1", rig->ends[1]);
	say_socket("server", rig->server);
}

void rig_finish_traffic(struct rig *rig, int direction)
{
	struct traffic *sender = &rig->senders[direction], *receiver = &rig->receivers[direction];

	if (sender->goal == ENDLESS)
		__atomic_store_n(&sender->stop, true, __ATOMIC_RELEASE);
	else
		rig_until(rig, traffic_done(sender) == sender->goal || sender->error);
	assert_int_equal(traffic_join(sender, false), 0);
	traffic_set_goal(receiver, sender->done);
	for (uint64_t until = now_ns() + PATIENCE_MS * NS_PER_MS;
	     traffic_done(receiver) < sender->done &&
	     !__atomic_load_n(&receiver->error, __ATOMIC_ACQUIRE) && now_ns() < until;)
		rig_turn(rig);
	if (traffic_done(receiver) != sender->done)
		rig_say(rig);
	__atomic_store_n(&receiver->stop, true, __ATOMIC_RELEASE);
	traffic_join(receiver, false);
	assert_int_equal(receiver->error, 0);
	assert_int_equal(receiver->done, sender->done);
	assert_true(is_silent(receiver->fd));
}

void rig_assert_accounts(struct rig *rig)
{
	for (int i = 0; i < 2; i++) {
		struct flow *f = rig_flow(rig, i);
		uint64_t written;

		assert_ok(sock_written(rig->ends[!i], &written));
		assert_int_equal(f->extra + flow_get(f, redirected) + f->moved, written);
		assert_int_equal(flow_get(f, passed), f->moved);
	}
}
