/*
 * edges_scenes.c: the scenarios and the table of them. In each of them `who` is the initiator and
 * is called a; the other end is b. None is written twice for the two directions.
 */
#include "edges.h"

static void echo(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	say(a, size);
	deliver(a->session);
	say(b, size);
	deliver(a->session);
	finish(a);
}

static void ping_pong(struct stage *st, enum side who, uint64_t rounds)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	while (rounds--) {
		say(a, 1);
		deliver(a->session);
		say(b, 1);
		deliver(a->session);
	}
	finish(a);
}

/* The server speaks first and ends; the client never says a byte. */
static void banner_to_a_silent_client(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who];

	say(a, size);
	deliver(a->session);
	finish(a);
}

static void speaks_at_once(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = meet_early(st, who), *b = a->peer;

	say(a, size);
	flow_until_stuck(a->session, 100);
	answer(a->session);
	deliver(a->session);
	exchange(a->session, 5000, 3000);
	say(a, size);
	deliver(a->session);
	finish(b);
}

static void speaks_and_half_closes_at_once(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = meet_early(st, who), *b = a->peer;

	say_last(a, size);
	flow_until_stuck(a->session, 100);
	answer(a->session);
	expect_eof(b);
	say_last(b, MB(1));
	expect_eof(a);
}

/* With `ahead`, b is in the midst of its answer, and a, having heard so much, ends its stream. */
static void half_closes_and_hears_on(struct stage *st, enum side who, uint64_t ahead)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	exchange(a->session, 10000, 10000);
	if (ahead) {
		say(b, MB(4) + ahead);
		hear(a, ahead);
	}
	half_close(a);
	if (!ahead) {
		expect_eof(b);
		say(b, MB(4));
	}
	b->fin_wanted = true;
	expect_eof(a);
	expect_eof(b);
}

static void fin_with_data(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	exchange(a->session, 100, 100);
	set(st, a->fd, IPPROTO_TCP, TCP_CORK, 1);
	say_last(a, size);
	flow_until_stuck(a->session, STUCK_MS);
	expect_eof(b);
	set(st, b->fd, IPPROTO_TCP, TCP_CORK, 1);
	say_last(b, size);
	expect_eof(a);
}

static void both_end_at_once(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	exchange(a->session, 100, 100);
	say_last(a, size);
	say_last(b, size);
	flow_until_stuck(a->session, STUCK_MS); /* nobody reads yet */
	a->read_goal = b->read_goal = TO_THE_END;
	expect_eof(a);
	expect_eof(b);
}

static void answer_dribbles(struct stage *st, enum side who, uint64_t pieces)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	exchange(a->session, 1000, 1000);
	half_close(a);
	expect_eof(b);
	while (pieces--) {
		pause_ms(50);
		say(b, 100);
		deliver(a->session);
	}
	half_close(b);
	expect_eof(a);
}

/* a speaks and is gone, cleanly; b, having read that, speaks to nobody, and must learn it. */
static void gone_while_the_other_speaks(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	say(a, size);
	deliver(a->session);
	close_end(a);
	st->reset_at_us = now_us();
	expect_eof(b);
	say(b, MB(64));
	while (wants_send(b))
		if (!step(b->session, PATIENCE_MS))
			fail_state(b->session, "nobody told that the other end is gone");
	if (b->error != EPIPE && b->error != ECONNRESET)
		fail_state(b->session, "all was taken from it, for nobody");
	reset_seen_within(b, 2 * RESET_LIMIT_MS);
}

static void closes_at_once(struct stage *st, enum side who, uint64_t unused)
{
	struct end *a = meet_early(st, who), *b = a->peer;
	int64_t since = now_us();

	(void)unused;
	close_end(a);
	if (who == CLIENT)
		answer(a->session);
	expect_eof(b);
	if (now_us() - since > 1000000)
		fail(st, "%s: EOF only after %.1f ms", b->name, (now_us() - since) / 1000.0);
}

static void client_resets_at_once(struct stage *st, enum side who, uint64_t unused)
{
	struct end *a = &call(st, 1, 0)->ends[who];
	struct session *next;
	unsigned int seen;

	(void)unused;
	reset(a);
	next = call(st, 0, 0);
	seen = pick_up(next, true);
	finish(&next->ends[CLIENT]);
	if (try_answer(a->session, 50)) {
		seen++;
		expect_reset(a->peer, 0);
	}
	note(st, seen ? "the server saw it" : "the server never saw it");
}

/*
 * A proxy may take a reset that comes with the connection for a failed connect, and try again: the
 * server resets whatever comes.
 */
static void server_resets_at_accept(struct stage *st, enum side who, uint64_t unused)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
	unsigned int tries = 1;

	(void)unused;
	reset(a);
	p[0].fd = b->fd;
	p[1].fd = st->listener;
	while (poll(p, 2, st->patience_ms) > 0 && !p[0].revents && try_answer(a->session, 0)) {
		reset(a);
		tries++;
	}
	expect_reset(b, RESET_LIMIT_MS);
	note(st, "after %u connections", tries);
}

enum reset_when {
	IDLE,
	OTHER_RECEIVES,
	OTHER_SENDS,
	HALF_CLOSED,
	OTHER_HALF_CLOSED,
	UNREAD_BEHIND,
	QUEUED_BEHIND,
	CLOSED_UNREAD,
};

static void resets(struct stage *st, enum side who, uint64_t when)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;
	struct pollfd readable = {.fd = a->fd, .events = POLLIN};
	uint64_t sent;

	exchange(a->session, 1000, 1000);
	switch ((enum reset_when)when) {
	case IDLE:
		break;
	case OTHER_RECEIVES:
		say(a, MB(256));
		hear(b, MB(1));
		break;
	case OTHER_SENDS:
		say(b, MB(256));
		hear(a, MB(1));
		break;
	case HALF_CLOSED:
		half_close(a);
		expect_eof(b);
		reset(a);
		return expect_reset_after_eof(b);
	case OTHER_HALF_CLOSED:
		half_close(b);
		expect_eof(a);
		break;
	case UNREAD_BEHIND:
		say(a, KB(100));
		flow_until_stuck(a->session, STUCK_MS);
		break;
	case QUEUED_BEHIND:
		say(a, MB(6));
		flow_until_stuck(a->session, STUCK_MS);
		break;
	case CLOSED_UNREAD: /* the kernel's own way of resetting */
		say(b, KB(100));
		flow_until_stuck(a->session, STUCK_MS);
		if (poll(&readable, 1, PATIENCE_MS) <= 0)
			fail(st, "%s: 100 KB sent to it never became readable", a->name);
		st->reset_at_us = now_us();
		close_end(a);
		return expect_reset(b, RESET_LIMIT_MS);
	}
	sent = a->sent;
	reset(a);
	if (when == UNREAD_BEHIND || when == QUEUED_BEHIND) {
		/* b is not reading: it gets time, not a limit */
		error_pending(b, RESET_LIMIT_MS);
		expect_reset(b, 0);
		note(st, "%" PRIu64 " of %" PRIu64 " bytes arrived", b->got - 1000, sent - 1000);
	} else {
		expect_reset(b, RESET_LIMIT_MS);
	}
}

/* a uploads without reading what b sends at the same time; b does both. */
static void uploads_without_reading(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	say(a, size);
	say(b, size);
	b->read_goal = a->send_goal;
	flow_until_stuck(a->session, STUCK_MS);
	if (a->sent != size)
		fail(st,
		     "%s reads all the time, but %s could send only %" PRIu64 " of %" PRIu64
		     " bytes without reading",
		     b->name, a->name, a->sent, size);
	deliver(a->session);
	finish(a);
}

static void nobody_reads(struct stage *st, enum side who, uint64_t limit)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	say(a, limit);
	say(b, limit);
	if (flow_until_stuck(a->session, STUCK_MS))
		fail(st, "%" PRIu64 " bytes each way were taken, though nobody reads", limit);
	note(st, "blocked after %" PRIu64 " and %" PRIu64 " bytes", a->sent, b->sent);
	if (a->sent == limit || b->sent == limit)
		fail(st, "%" PRIu64 " bytes were taken one way, though nobody reads", limit);
	say_no_more(a);
	say_no_more(b);
	deliver(a->session);
	exchange(a->session, 10000, 10000);
	finish(a);
}

static void slow_reader(struct stage *st, enum side who, uint64_t size)
{
	enum { TINY = 8 * 1024, ROOMY = 256 * 1024 };
	struct session *s;
	struct end *a, *b;

	if (who == CLIENT)
		listen_back(st, TINY);
	s = call(st, 0, who == SERVER ? TINY : 0);
	answer(s);
	a = &s->ends[who];
	b = a->peer;
	say(a, size);
	for (int i = 0; i < 100; i++) {
		hear(b, KB(1));
		pause_ms(1);
	}
	set(st, b->fd, SOL_SOCKET, SO_RCVBUF, ROOMY);
	deliver(s);
	finish(a);
}

static void stop_and_go_reader(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	say(a, size);
	hear(b, MB(1));
	flow_for(a->session, 2000);
	note(st, "%" PRIu64 " of %" PRIu64 " bytes sent while it stood still", a->sent - b->got,
	     size);
	deliver(a->session);
	finish(a);
}

static void dribble(struct stage *st, enum side who, uint64_t segments)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	set(st, a->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(st, b->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	a->send_chunk = b->send_chunk = 1;
	exchange(a->session, segments, segments);
	finish(a);
}

static void say_urgent(struct end *e)
{
	uint8_t byte;

	pattern(&byte, e->seed, e->sent, 1);
	need(e->stage, send(e->fd, &byte, 1, MSG_OOB | MSG_NOSIGNAL), "send MSG_OOB");
	e->sent++;
	e->send_goal++;
}

/* Once at the very beginning, once (`later`) in a session that has been going for a while. */
static void urgent_byte(struct stage *st, enum side who, uint64_t later)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	if (later)
		exchange(a->session, MB(1), MB(1));
	say(a, 1000);
	flow(a);
	say_urgent(a);
	say(a, 1000);
	deliver(a->session);
	say(b, 1000);
	deliver(a->session);
	finish(a);
}

static void half_close_behind_a_closed_window(struct stage *st, enum side who, uint64_t size)
{
	struct end *a = &meet(st)->ends[who], *b = a->peer;

	say(a, size);
	flow_until_stuck(a->session, STUCK_MS);
	say_no_more(a);
	note(st, "FIN after %" PRIu64 " of %" PRIu64 " bytes, none read", a->sent, size);
	half_close(a);
	pause_ms(500);
	expect_eof(b);
	say_last(b, 1000);
	expect_eof(a);
}

/*
 * The FIN comes when so many bytes wait for b that somewhere in this sweep the proxy has it while
 * it cannot write what came before.
 */
static void fin_behind_any_amount(struct stage *st, enum side who, uint64_t limit)
{
	uint64_t size;
	bool fits = true;

	for (size = KB(48); fits && size <= limit; size += KB(48)) {
		struct end *a = &meet(st)->ends[who], *b = a->peer;

		say(a, size);
		fits = flow_until_stuck(a->session, 50);
		say_no_more(a);
		half_close(a);
		pause_ms(5); /* b stands still */
		expect_eof(b);
		close_end(b);
		expect_eof(a);
		close_end(a);
	}
	note(st, "up to %" PRIu64 " bytes", size - KB(48));
}

static void short_sessions(struct stage *st, enum side who, uint64_t count)
{
	while (count--) {
		struct end *a = &meet(st)->ends[who];

		exchange(a->session, 1, 1);
		finish(count & 1 ? a : a->peer);
	}
}

/* `e` reads whatever it still gets, and that must be right; how it ends is for others to test. */
static void hear_the_end(struct end *e)
{
	e->stage->expected = "any end of the stream expected";
	e->read_goal = TO_THE_END;
	flow(e);
	close_end(e);
}

/* Sessions torn with bytes under way in both directions, then clean ones in their places. */
static void torn_then_clean_sessions(struct stage *st, enum side who, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		struct end *a = &meet(st)->ends[i & 1], *b = a->peer;

		exchange(a->session, 1,
			 1); /* else the proxy may take it for a failed connect, and retry */
		say(a, i % 5 ? KB(100) : MB(16));
		say(b, i % 5 ? KB(50) : MB(16));
		flow_until_stuck(a->session, i % 5 ? 0 : 20); /* sometimes every buffer is full */
		reset(a);
		if (i & 2)
			reset(b);
		else
			hear_the_end(b);
	}
	for (uint64_t i = 0; i < count; i++) {
		struct end *a = &meet(st)->ends[who];

		exchange(a->session, 3000, 5000);
		finish(i & 1 ? a : a->peer);
	}
}

/* All open at once; every second one is torn and replaced; nobody's bytes go elsewhere. */
static void sessions_at_once(struct stage *st, enum side who, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		answer(call(st, i, 0));
	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < count; i++) {
			say(&st->sessions[i].ends[CLIENT], 3000);
			say(&st->sessions[i].ends[SERVER], 2000);
			step(&st->sessions[i], 0); /* sent by all before anybody reads */
		}
		for (uint64_t i = 0; i < count; i++)
			deliver(&st->sessions[i]);
		for (uint64_t i = round & 1; i < count && round < 2; i += 2) {
			struct end *a = &st->sessions[i].ends[who];

			reset(a);
			hear_the_end(a->peer);
			answer(call(st, i, 0));
		}
	}
	for (uint64_t i = 0; i < count; i++)
		finish(&st->sessions[i].ends[who]);
}

static void quiet_session(struct stage *st, enum side who, uint64_t ms)
{
	struct end *a = &meet(st)->ends[who];

	exchange(a->session, 1000, 1000);
	pause_ms(ms);
	say(a, 1000);
	deliver(a->session);
	exchange(a->session, 100000, 100000);
	finish(a);
}

enum hung_then { SPEAKS, HALF_CLOSES, RESETS };

/* The proxy's connect hangs for a second, and the client does not wait for it. */
static void client_while_connect_hangs(struct stage *st, enum side who, uint64_t then)
{
	struct session *s, *next;
	struct end *a, *b;

	hang_connects(st);
	s = call(st, 1, 0);
	a = &s->ends[who];
	b = a->peer;
	if (then == HALF_CLOSES)
		say_last(a, 1000);
	else
		say(a, 200000);
	flow_until_stuck(s, STUCK_MS);
	if (then == RESETS) {
		say_no_more(a);
		reset(a);
	}
	pause_ms(100); /* the proxy shall see what happened before its connect succeeds */
	unhang_connects(st);
	switch ((enum hung_then)then) {
	case SPEAKS:
		answer(s);
		deliver(s);
		exchange(s, 3000, 3000);
		finish(a);
		break;
	case HALF_CLOSES:
		answer(s);
		expect_eof(b);
		say_last(b, MB(1));
		expect_eof(a);
		break;
	case RESETS:
		next = call(st, 0, 0);
		pick_up(next, true);
		finish(&next->ends[CLIENT]);
		if (try_answer(s, 1500)) /* its SYN was dropped and comes again */
			expect_reset(b, 0);
		break;
	}
}

static void server_refuses(struct stage *st, enum side who, uint64_t limit_ms)
{
	struct session *s = fresh(st, 0);
	int error;

	close_back(st);
	st->patience_ms = limit_ms;
	st->reset_at_us = now_us();
	error = try_call(s, 0);
	if (error == ECONNREFUSED || error == ECONNRESET)
		return note(st, "not even accepted");
	if (error)
		fail(st, "the client cannot connect to --front: %s", strerror(error));
	expect_reset(&s->ends[who], limit_ms);
}

/* ---- which there are, quick ones first ---- */

const struct scenario scenarios[] = {
	{"%s_sends_one_byte_and_is_answered", echo, 1, BOTH},
	{"%s_sends_64_kb_and_is_answered", echo, KB(64), BOTH},
	{"%s_sends_4_mb_and_is_answered", echo, MB(4), BOTH},
	{"%s_starts_a_ping_pong_of_1000_bytes", ping_pong, 1000, BOTH},
	{"banner_reaches_a_silent_client", banner_to_a_silent_client, 1000, SERVER_ONLY},
	{"%s_speaks_at_once_1_byte", speaks_at_once, 1, BOTH},
	{"%s_speaks_at_once_1000_bytes", speaks_at_once, 1000, BOTH},
	{"%s_speaks_at_once_200000_bytes", speaks_at_once, 200000, BOTH},
	{"%s_half_closes_at_once_after_0_bytes", speaks_and_half_closes_at_once, 0, BOTH},
	{"%s_half_closes_at_once_after_1000_bytes", speaks_and_half_closes_at_once, 1000, BOTH},
	{"%s_half_closes_at_once_after_200000_bytes", speaks_and_half_closes_at_once, 200000, BOTH},
	{"%s_half_closes_and_hears_4_mb", half_closes_and_hears_on, 0, BOTH},
	{"%s_half_closes_in_the_midst_of_the_answer", half_closes_and_hears_on, MB(1), BOTH},
	{"%s_sends_fin_with_1_byte", fin_with_data, 1, BOTH},
	{"%s_sends_fin_with_1000_bytes", fin_with_data, 1000, BOTH},
	{"%s_sends_fin_with_100000_bytes", fin_with_data, 100000, BOTH},
	{"both_send_fin_at_once", both_end_at_once, 100000, 0},
	{"both_send_fin_at_once_without_data", both_end_at_once, 0, 0},
	{"%s_closes_at_once_without_a_byte", closes_at_once, 0, BOTH},
	{"%s_is_gone_while_the_other_speaks", gone_while_the_other_speaks, MB(1), BOTH},
	{"%s_resets_when_idle", resets, IDLE, BOTH},
	{"%s_resets_while_the_other_receives", resets, OTHER_RECEIVES, BOTH},
	{"%s_resets_while_the_other_sends", resets, OTHER_SENDS, BOTH},
	{"%s_resets_after_half_closing", resets, HALF_CLOSED, BOTH},
	{"%s_resets_after_the_other_half_closed", resets, OTHER_HALF_CLOSED, BOTH},
	{"%s_resets_right_after_100_kb_not_yet_read", resets, UNREAD_BEHIND, BOTH},
	{"%s_closes_with_bytes_unread", resets, CLOSED_UNREAD, BOTH},
	{"client_resets_before_any_byte", client_resets_at_once, 0, STRAYS},
	{"server_resets_at_accept", server_resets_at_accept, 0, SERVER_ONLY},
	{"%s_dribbles_2000_bytes_against_2000", dribble, 2000, BOTH},
	{"%s_sends_an_urgent_byte_early", urgent_byte, false, BOTH},
	{"%s_sends_an_urgent_byte_later", urgent_byte, true, BOTH},
	{"two_hundred_short_sessions_in_a_row", short_sessions, 200, 0},
	{"fifty_torn_sessions_then_fifty_clean_ones", torn_then_clean_sessions, 50, 0},
	{"%ss_of_fifty_sessions_reset_by_turns", sessions_at_once, SESSIONS_MAX, BOTH},
	{"%s_uploads_32_mb_without_reading_32_mb", uploads_without_reading, MB(32), BOTH},
	{"both_send_and_nobody_reads", nobody_reads, MB(FILLED_MAX_MB), 0},
	{"%s_resets_with_6_mb_behind_a_closed_window", resets, QUEUED_BEHIND, BOTH},
	{"%s_half_closes_behind_a_closed_window", half_close_behind_a_closed_window, MB(6),
	 BOTH | SLOW},
	{"%s_sends_fin_behind_any_amount_of_bytes", fin_behind_any_amount, MB(8), BOTH | SLOW},
	{"%s_sends_32_mb_to_a_slow_reader", slow_reader, MB(32), BOTH | SLOW | RELISTEN},
	{"%s_half_closes_and_hears_a_dribble", answer_dribbles, 20, BOTH | SLOW},
	{"client_speaks_while_the_connect_hangs", client_while_connect_hangs, SPEAKS,
	 SLOW | RELISTEN | PROXY_ONLY},
	{"client_half_closes_while_the_connect_hangs", client_while_connect_hangs, HALF_CLOSES,
	 SLOW | RELISTEN | PROXY_ONLY},
	{"client_resets_while_the_connect_hangs", client_while_connect_hangs, RESETS,
	 SLOW | RELISTEN | STRAYS | PROXY_ONLY},
	{"%s_sends_64_mb_to_a_stop_and_go_reader", stop_and_go_reader, MB(64), BOTH | SLOW},
	{"%s_wakes_a_session_quiet_for_3_s", quiet_session, 3000, SLOW},
	{"client_is_reset_when_the_server_is_refused", server_refuses, REFUSED_LIMIT_MS,
	 SLOW | RELISTEN | STRAYS},
};

const size_t scenarios_count = sizeof(scenarios) / sizeof(scenarios[0]);
