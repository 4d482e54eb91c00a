/* SPDX-License-Identifier: GPL-2.0-or-later */
/* session_end.c - see session_state.h. */
#include "session_state.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "tcplog.h"

#define FLUSH_STALL_NS                                                                             \
	(100 * NS_PER_MS)		/* the other end may take this long to take another byte, */
#define FLUSH_MAX_NS (1000 * NS_PER_MS) /* and this long in all, before it is reset too */

/* ---- one end is gone: deliver what it had sent, then reset the other ---- */

void session_flush(struct session *s)
{
	uint64_t now = loop_now(s->table->o.loop), written = 0, seen;
	int sink = s->ends[!s->broken].poll.fd;
	bool moved_all = session_run_broken(s, s->broken);
	uint32_t unsent;

	if (s->ended)
		return;
	unsent = sock_unsent(sink);
	if (moved_all && !unsent) {
		session_end(s, s->why);
		return;
	}
	sock_written(sink, &written);
	seen = written - unsent;
	if (seen != s->flush_seen) {
		s->flush_seen = seen;
		s->flush_moved_ns = now;
	}
	if (now - s->flush_moved_ns > FLUSH_STALL_NS || now - s->flush_began_ns > FLUSH_MAX_NS) {
		session_end(s, s->why);
		return;
	}
	session_arm_retry(s);
}

void session_break(struct session *s, int end, enum session_end why)
{
	struct loop *loop = s->table->o.loop;

	if (s->ended)
		return;
	if (!is_established(s)) {
		session_end(s, s->record->state == LEDGER_FLUSH ? s->why : why);
		return;
	}
	loop_unwatch(loop, &s->ends[end].poll);
	loop_timer_clear(loop, &s->timer);
	s->broken = s->record->broken = (uint8_t)end;
	s->why = why;
	s->record->why = (uint8_t)why;
	set_state(s, LEDGER_FLUSH);
	s->retry_ns = 0;
	s->flush_began_ns = s->flush_moved_ns = loop_now(loop);
	/* Nothing can be delivered to the broken end any more. */
	relay_done(&s->dirs[!end].relay);
	if (loop_watch(loop, &s->ends[!end].poll, 0) < 0) {
		session_end(s, why);
		return;
	}
	session_flush(s);
}

/* ---- the end ---- */

/* HAProxy's two letters: who ended it, and in which phase. */
static void termination(const struct session *s, enum session_end why, char ret[static 3])
{
	bool connected = s->record->connected_ns;
	char phase = !connected ? (s->record->state == LEDGER_QUEUED ? 'Q' : 'C')
				: (s->dirs[SERVER].eof ? 'L' : 'D');
	char who = '-';

	switch (why) {
	case END_CLEAN:
		strcpy(ret, "--");
		return;
	case END_CLIENT_RESET:
		who = 'C';
		break;
	case END_SERVER_RESET:
	case END_CONNECT_FAILED:
	case END_NO_SERVER:
		who = 'S';
		break;
	case END_CLIENT_TIMEOUT:
		who = 'c';
		break;
	case END_SERVER_TIMEOUT:
	case END_CONNECT_TIMEOUT:
	case END_QUEUE_TIMEOUT:
		who = 's';
		break;
	case END_NO_RESOURCE:
		who = 'R';
		break;
	case END_KILLED:
		who = 'K';
		break;
	case END_LOST:
	case END_BROKEN:
		who = 'I';
		break;
	}
	ret[0] = who;
	ret[1] = phase;
	ret[2] = '\0';
}

static int64_t elapsed_ms(uint64_t from_ns, uint64_t to_ns)
{
	return (int64_t)((to_ns - MIN(from_ns, to_ns)) / NS_PER_MS);
}

static void on_log_end(struct later *l)
{
	log_turn_end(&container_of(l, struct sessions, log_end)->log);
}

void session_log_init(struct sessions *t)
{
	t->log = (struct log_turn){0};
	later_init(&t->log_end, on_log_end);
}

/* The line leaves at the end of the turn, with those of other sessions that end in it. */
static void write_log(const struct session *s, enum session_end why,
		      const struct byte_count bytes[2])
{
	const struct ledger_record *r = s->record;
	const struct frontend *fe = s->frontend;
	uint64_t now = now_ns();
	struct tcplog log = {
		.accepted = {.tv_sec = (time_t)(r->accepted_real_ns / NS_PER_SEC),
			     .tv_nsec = (long)(r->accepted_real_ns % NS_PER_SEC)},
		.frontend = fe->conf->name,
		.backend = s->backend->conf->name,
		.server = r->server ? s->backend->servers[r->server - 1].conf->name : NULL,
		.queue_ms = r->server ? elapsed_ms(r->accepted_ns, s->record->placed_ns) : -1,
		.connect_ms =
			r->connected_ns ? elapsed_ms(s->record->placed_ns, r->connected_ns) : -1,
		.total_ms = elapsed_ms(r->accepted_ns, now),
		.bytes_to_client = byte_total(&bytes[SERVER]),
		.process_conns = stat_get(s->table->o.stats->current),
		.frontend_conns = stat_get(fe->stats.current),
		.backend_conns = stat_get(s->backend->stats.current),
		.server_conns = s->server ? stat_get(s->server->stats.current) : 0,
		.retries = r->retries,
		.redispatched = s->record->redispatched,
		.backend_queue = s->queue_before,
	};
	char line[1024];

	if (!fe->conf->tcplog || !fe->nr_sinks)
		return;
	if (fe->conf->dontlognull && why == END_CLEAN && !byte_total(&bytes[CLIENT]))
		return;
	ledger_addr_get(&r->client, &log.client);
	termination(s, why, log.state);
	tcplog_format(&log, line, sizeof(line));
	for (uint32_t i = 0; i < fe->nr_sinks; i++)
		log_sink_add(fe->sinks[i], &s->table->log, LOG_INFO, line);
	loop_later(s->table->o.loop, &s->table->log_end);
}

static void count_end(struct session *s, enum session_end why, const struct byte_count bytes[2])
{
	struct stats *all[] = {&s->frontend->stats, &s->backend->stats,
			       s->server ? &s->server->stats : NULL};
	struct process_stats *p = s->table->o.stats;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!all[i])
			continue;
		stat_add(all[i]->in.kernel, bytes[CLIENT].kernel);
		stat_add(all[i]->in.user, bytes[CLIENT].user);
		stat_add(all[i]->out.kernel, bytes[SERVER].kernel);
		stat_add(all[i]->out.user, bytes[SERVER].user);
		if (s->record->connected_ns &&
		    (why == END_CLIENT_RESET || why == END_CLIENT_TIMEOUT))
			stat_add(all[i]->aborted_by_client, 1);
		if (s->record->connected_ns &&
		    (why == END_SERVER_RESET || why == END_SERVER_TIMEOUT))
			stat_add(all[i]->aborted_by_server, 1);
		if (!s->record->connected_ns && why != END_CLIENT_RESET)
			stat_add(all[i]->failed, 1);
	}
	stat_add(p->in.kernel, bytes[CLIENT].kernel);
	stat_add(p->in.user, bytes[CLIENT].user);
	stat_add(p->out.kernel, bytes[SERVER].kernel);
	stat_add(p->out.user, bytes[SERVER].user);
	if (why != END_CLEAN)
		stat_add(p->resets_sent, 1);
	if (why == END_LOST)
		stat_add(p->lost, 1);
	if (s->record->connected_ns && s->record->fallback == FALLBACK_CHOICE)
		stat_add(p->fallback[FALLBACK_CHOICE], 1);
	if (s->joined) {
		for (int i = 0; i < 2; i++) {
			stat_add(p->pauses, flow_get(flow_of(s, i), pauses));
			stat_add(p->resumes, flow_get(flow_of(s, i), resumes));
		}
	}
}

static void close_ends(struct session *s, enum session_end why)
{
	for (int i = 0; i < 2; i++) {
		int fd = s->ends[i].poll.fd;

		if (fd < 0)
			continue;
		/* Whose both streams are complete gets an orderly end, whatever became of the
		 * other. */
		if (why == END_CLEAN || (s->dirs[i].eof && s->dirs[!i].done))
			sock_end_orderly(fd);
		else
			sock_end_reset(fd);
		/* Its number may soon be somebody else's. (If the worker dies here, the next one
		 * closes what nobody owns, and that in just this way.) */
		s->ends[i].poll.fd = s->record->fd[i] = -1;
		close(fd);
	}
}

/* At the end of the turn: nothing can call for this session any more. */
static void on_release(struct later *l)
{
	struct session *s = container_of(l, struct session, release);
	struct sessions *t = s->table;
	struct frontend *fe = s->frontend;

	sessions_keep_spare(t); /* before somebody else has what was just closed */
	ledger_release(t->o.ledger, s->number);
	s->record = NULL;
	t->count--;
	t->o.ended(t->o.arg, fe);
}

void session_end_init(struct session *s)
{
	later_init(&s->release, on_release);
}

void session_end(struct session *s, enum session_end why)
{
	struct sessions *t = s->table;
	struct loop *loop = t->o.loop;
	struct byte_count bytes[2];

	if (s->ended)
		return;
	s->ended = true;
	for (int i = 0; i < 2; i++) {
		loop_forget(loop, &s->ends[i].poll);
		bytes[i] = session_bytes(s, i);
	}
	loop_timer_clear(loop, &s->timer);
	loop_timer_clear(loop, &s->retry);
	session_unqueue(s);
	list_del(&s->away);

	__atomic_store_n(&s->record->ending, (uint8_t)why + 1, __ATOMIC_RELEASE);
	close_ends(s, why);
	if (!s->record->counted) { /* by a worker that died thereafter */
		write_log(s, why, bytes);
		count_end(s, why, bytes);
		s->record->counted = 1;
	}
	if (t->o.splice && (s->record->cookie[0] || s->record->cookie[1]))
		splice_leave(t->o.splice, s->number, s->record->cookie);
	for (int i = 0; i < 2; i++) {
		relay_done(&s->dirs[i].relay);
		t->held -= s->dirs[i].held;
		if (s->dirs[i].charged)
			budget_return(t->o.budget, s->dirs[i].limit);
	}
	pool_tried_done(&s->tried);
	stats_leave(&s->frontend->stats);
	stats_leave(&s->backend->stats);
	stat_sub(t->o.stats->current, 1);
	loop_later(loop, &s->release);
	session_leave_server(s);
}

void session_end_broken(struct session *s, int i, const char *what)
{
	static const struct flow none;
	const struct flow *f = s->record->cookie[i] ? flow_of(s, i) : &none;
	uint64_t received = 0, written = 0;

	if (s->ended)
		return;
	sock_received(s->ends[i].poll.fd, &received);
	sock_written(s->ends[!i].poll.fd, &written);
	log_alert("session %" PRIu64 " is reset: the kernel's byte counters contradict each other: "
		  "from the %s, %s: received=%" PRIu64 "%s relayed=%" PRIu64 " redirected=%" PRIu64
		  " passed=%" PRIu64 " moved=%" PRIu64 " unread=%u written=%" PRIu64
		  " extra=%" PRIu64 "; please report this",
		  s->record->serial, i == CLIENT ? "client" : "server", what, received,
		  s->dirs[i].eof ? " (one is the FIN)" : "", s->record->relayed[i],
		  flow_get(f, redirected), flow_get(f, passed), f->moved, s->dirs[i].tokens,
		  written, f->extra);
	session_end(s, END_BROKEN);
}
