/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * session_adopt.c - see session_state.h. Goes on with the session of a worker that died between two
 * instructions.
 *
 * What the record says may be one step behind what was done; the kernel's counters are not. Of each
 * direction they tell how many bytes were taken from its source (received, minus unread) and how
 * many were given to its peer (acknowledged, plus in the send queue). What was taken and not given
 * lies in shared memory, or lay in the thread's pipe (relay.h); what was given and not taken was
 * offered and is still to be read (tokens, see session_move.c). A record's descriptors are its own
 * only if they are connected with the addresses that it tells.
 */
#include "session_state.h"

#include <inttypes.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_LOOKS 1000 /* for the kernel's worker to bring what was passed; it needs a place on a CPU. (Not a time: this process may be stopped) */
#define SETTLE_LOOK_US 100 /* between them */

static void lose(struct session *s, const char *what)
{
	log_warning("session %" PRIu64 " (%s) is reset: its worker died, and %s", s->record->serial,
		    ledger_state_name(s->record->state), what);
	session_end(s, END_LOST);
}

/* The descriptor of an end, if it is what the record says. Another is not closed: it is somebody
 * else's. */
static bool has_end(struct session *s, int i)
{
	struct addr peer;

	ledger_addr_get(i == CLIENT ? &s->record->client : &s->record->server_addr, &peer);
	if (s->ends[i].poll.fd >= 0 && sock_is_connected_to(s->ends[i].poll.fd, &peer))
		return true;
	s->ends[i].poll.fd = s->record->fd[i] = -1;
	return false;
}

/* ---- before the server is connected ---- */

/* Nothing was ever written to a server that is not known to be connected: it is tried anew. */
static void resume_unconnected(struct session *s)
{
	bool had_place = s->record->state == LEDGER_CONNECTING, had_server = has_end(s, SERVER);
	int fd = s->ends[SERVER].poll.fd;

	s->ends[SERVER].poll.fd = s->record->fd[SERVER] = -1;
	if (had_server)
		close(fd);
	if (!has_end(s, CLIENT)) {
		lose(s, "it has no client");
		return;
	}
	if (loop_watch(s->table->o.loop, &s->ends[CLIENT].poll, EPOLLRDHUP) < 0) {
		session_end(s, END_NO_RESOURCE);
		return;
	}
	if (had_place && s->server)
		session_connect(s);
	else
		session_choose(s, NULL);
}

/* ---- the bytes of an established session ---- */

/*
 * n bytes of direction i were read and not written; until now, taken were read in all (or passed
 * ones, of a joined direction). Returns false if they are not to be found.
 */
static bool restore(struct session *s, int i, uint64_t n, uint64_t taken)
{
	const struct relay_scratch *scratch = s->table->scratch;
	bool is_owner = scratch->owner == s->number * 2ull + (uint64_t)i + 1;
	uint64_t read = taken - (scratch->base + scratch->moved);

	if (scratch->piped) {
		read = scratch->piped;
		is_owner = is_owner && n == read;
	}
	return relay_restore(&s->dirs[i].relay, n, is_owner && read <= SCRATCH_SIZE ? scratch->bytes : NULL, read);
}

/*
 * Of an end that was reset: 1 if it had sent its FIN before, which is counted as a byte received; 0 if not; -1 if it cannot be told. Takes the error
 * away, as any send to it may have done, or a worker that was here before: then recv() says 0 in either case, and what the record knows to have
 * been read has to tell. (kernel: tcp_recvmsg_locked() looks at SOCK_DONE first, tcp_reset() tells EPIPE after a FIN)
 */
static int fin_before_reset(int fd, const struct sock_progress *p, uint64_t taken)
{
	uint64_t more = p->received - p->unread - taken;
	char byte;

	if (p->error && !p->told && !p->unread)
		return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
	switch (p->told ?: p->error ? sock_error(fd) : 0) {
	case ECONNRESET:
		return 0;
	case EPIPE:
		return 1;
	}
	return more <= 1 ? (int)more : -1;
}

/* Sets what is known of a direction that is not joined. Returns what is wrong, or NULL. */
static const char *resume_relayed(struct session *s, int i, const struct sock_progress p[2])
{
	int fin = p[i].gone && !p[i].fin_received ? fin_before_reset(s->ends[i].poll.fd, &p[i], s->record->taken[i]) : 0;
	uint64_t taken = p[i].received - p[i].unread - (uint64_t)MAX(fin, 0);
	uint64_t given = p[!i].written - (i == CLIENT ? 1 : 0); /* the SYN of our connect */

	if (fin < 0)
		return "it cannot be told how its source ended";
	if (given > taken)
		return "it wrote more than it had read";
	if (given == taken)
		relay_done(&s->dirs[i].relay); /* it died before it could say so */
	else if (!restore(s, i, taken - given, taken))
		return "bytes that it held are lost with it";
	s->record->relayed[i] = given;
	s->record->taken[i] = taken;
	return NULL;
}

/*
 * Of a joined direction: how many bytes were passed, and how many of them were read. What was passed and is not to be read yet was read before, or is
 * still on its way up (on psock->ingress_skb), which no call tells; so it is the record that says what was read. Only who was being served may have
 * read more, in its last moment: then nothing may be on its way up. Returns false if that makes no sense, or takes too long.
 */
static bool look_at_passed(struct session *s, int i, uint64_t *passed, uint64_t *taken)
{
	const struct ledger_record *r = s->record;
	struct flow *f = flow_of(s, i);

	for (int looks = 0;; looks++) {
		int told = 0;
		int64_t unread;

		*passed = flow_get(f, passed);
		unread = sock_look_at_unread(s->ends[i].poll.fd, s->table->o.unread, &told);
		if (unread < 0 || told) /* it was reset just now, and who waits for that would not be told */
			return false;
		*taken = r->taken[i] - r->relayed[i];
		if (!r->served) {
			*passed = flow_get(f, passed);
			return *taken + (uint64_t)unread <= *passed;
		}
		if (flow_get(f, passed) == *passed) {
			if (*taken + (uint64_t)unread > *passed)
				return false;
			if (*taken + (uint64_t)unread == *passed)
				return true;
			if (looks >= SETTLE_LOOKS) {
				*taken = *passed - (uint64_t)unread;
				return true;
			}
		} else if (looks >= SETTLE_LOOKS) {
			return false; /* a look takes longer than until the next segment comes */
		}
		usleep(SETTLE_LOOK_US);
	}
}

/* The same of a joined one: the kernel may be moving it at this moment. */
static const char *resume_joined(struct session *s, int i, const struct sock_progress p[2])
{
	struct direction *d = &s->dirs[i];
	struct flow *f = flow_of(s, i);
	uint64_t passed, redirected, given, taken;

	d->limit = (uint32_t)f->limit;
	if (flow_get(f, reason) == FLOW_REASON_OVERFLOW)
		return "bytes that found no room were dropped";
	/* Most are idle: whatever was passed was moved, and was read. */
	if (!p[i].unread && flow_get(f, passed) == f->moved) {
		relay_done(&d->relay);
		flow_set(f, unread, 0);
		s->record->taken[i] = s->record->relayed[i] + f->moved;
		return NULL;
	}
	redirected = flow_get(f, redirected);
	if (!look_at_passed(s, i, &passed, &taken))
		return "it cannot be told what it had read";
	/*
	 * It wrote only when all that was redirected before had arrived, and nothing is redirected
	 * as long as passed bytes are not moved: so what is above that was written by it, and not
	 * yet counted.
	 */
	given = p[!i].written - f->extra;
	if (passed != f->moved && given > redirected + f->moved)
		flow_set(f, moved, given - redirected);
	if (f->moved > passed)
		return "it moved more than was passed";
	if (taken <= f->moved)
		relay_done(&d->relay);
	else if (!restore(s, i, taken - f->moved, taken))
		return "bytes that it held are lost with it";
	d->tokens = taken > f->moved ? 0 : (uint32_t)(f->moved - taken);
	flow_set(f, unread, d->tokens);
	if (flow_get(f, crowded))
		flow_set(f, relieved, (uint16_t)(flow_get(f, crowded) - 1)); /* it may have died over it: one look more */
	s->record->taken[i] = s->record->relayed[i] + taken;
	return NULL;
}

/*
 * Of an end without a connection: has it finished its stream? No call tells whether it was closed in order or reset; but a FIN is counted as a byte
 * received, and nobody reads it.
 *
 * Of a joined one the program has counted all else. Of another one the record has what was read, but for a read that had just returned. Who
 * had that was not told of a reset, so that is still to be seen (p.error): where there is none, one byte of those that are too many is the FIN.
 */
static bool has_finished(const struct session *s, int i, const struct sock_progress *p)
{
	const struct ledger_record *r = s->record;
	const struct flow *f = s->joined ? flow_of(s, i) : NULL;

	if (f)
		return p->received == r->relayed[i] + flow_get(f, redirected) + flow_get(f, passed) + 1;
	return !p->error && p->received - p->unread > r->taken[i];
}

/* Of a session that is not joined one end may be in the map all the same: its join was refused, or it died over it. */
static enum sock_unread how_unread(const struct session *s, int i)
{
	const struct sessions_options *o = &s->table->o;
	bool in_map = s->joined || (o->splice && s->record->cookie[i] &&
				    splice_has(o->splice, s->number * 2 + (uint32_t)i, s->record->cookie[i]));

	if (s->joined && o->unread == SOCK_UNREAD_SHOWN)
		return SOCK_UNREAD_ANY;
	return in_map ? o->unread : SOCK_UNREAD_TOLD;
}

/*
 * What is known of both ends. Returns what is wrong, or NULL; *broken is an end that was reset, or
 * -1. Whose connection is gone without an error, and who had sent and been sent a FIN, was closed in order.
 */
static const char *look_at_ends(struct session *s, struct sock_progress p[2], int *broken)
{
	for (int i = 0; i < 2; i++)
		if (!has_end(s, i) || sock_progress(s->ends[i].poll.fd, how_unread(s, i), &p[i]) < 0) /* of a joined one: see look_at_passed() */
			return "an end is missing";
	for (int i = 0; i < 2; i++) {
		if (!p[i].gone || *broken == i)
			continue;
		if (s->record->done[!i] && (s->record->done[i] || has_finished(s, i, &p[i]))) {
			p[i].fin_sent = p[i].fin_received = true;
			p[i].received--;
			p[i].written--;
		} else if (*broken >= 0) {
			return "both ends were reset";
		} else {
			*broken = i;
		}
	}
	return NULL;
}

/* is_wanted: somebody is left to get its bytes. */
static const char *resume_direction(struct session *s, int i, const struct sock_progress p[2], bool is_wanted)
{
	struct direction *d = &s->dirs[i];
	const char *wrong = NULL;

	s->splice[i] = (uint8_t)session_splice_mode(s, i);
	d->done = s->record->done[i];
	/* One that is not joined reads its FIN (again). */
	d->eof = s->joined ? p[i].fin_received : d->done;
	s->record->eof[i] = d->eof;
	d->sized = true; /* it may be: it is for the kernel to tune when that may go home */
	if (!d->done && is_wanted)
		wrong = s->joined ? resume_joined(s, i, p) : resume_relayed(s, i, p);
	d->charged = true;
	budget_charge(s->table->o.budget, d->limit);
	return wrong;
}

/* What it knew of the streams' ends, where nothing is to be found out any more. */
static void take_ends_of_record(struct session *s)
{
	for (int i = 0; i < 2; i++) {
		has_end(s, i);
		s->dirs[i].eof = s->record->eof[i];
		s->dirs[i].done = s->record->done[i];
	}
}

/* broken: the end that is known to have been reset, with why; or -1. */
static void resume_established(struct session *s, int broken, enum session_end why)
{
	struct sock_progress p[2];
	const char *wrong = look_at_ends(s, p, &broken);

	for (int i = 0; !wrong && i < 2; i++)
		wrong = resume_direction(s, i, p, broken != !i);
	if (wrong) {
		/* An end whose both streams are complete ends in order all the same. */
		take_ends_of_record(s);
		lose(s, wrong);
		return;
	}
	if (broken >= 0) {
		if (why == END_CLEAN)
			why = broken == CLIENT ? END_CLIENT_RESET : END_SERVER_RESET;
		session_break(s, broken, why);
		return;
	}
	for (int i = 0; i < 2; i++)
		if (s->dirs[i].done && !s->dirs[!i].done && !p[!i].fin_sent)
			shutdown(s->ends[!i].poll.fd, SHUT_WR); /* it died before it could */
	/* It died before it could do what comes first. */
	if (!s->joined && s->record->fallback == FALLBACK_NONE) {
		s->record->fallback = FALLBACK_CHOICE;
		if (s->splice[0] == SPLICE_ON || s->splice[1] == SPLICE_ON)
			session_join(s);
	}
	if (s->joined || s->record->fallback == FALLBACK_CHOICE)
		session_begin_choosing(s);
	session_arm_idle(s);
	session_run(s, CLIENT);
	session_run(s, SERVER);
	session_update(s);
}

/* It died in splice_join(): that is done now, or was refused. */
static void resume_joining(struct session *s)
{
	struct splice_end ends[2];
	int r;

	for (int i = 0; i < 2; i++) {
		s->splice[i] = (uint8_t)session_splice_mode(s, i);
		ends[i] = (struct splice_end){.fd = s->ends[i].poll.fd};
	}
	if (!has_end(s, CLIENT) || !has_end(s, SERVER)) {
		lose(s, "an end is missing");
		return;
	}
	r = splice_join_again(s->table->o.splice, s->number, ends);
	if (r == -EAGAIN) {
		s->record->fallback = FALLBACK_NONE;
		set_state(s, LEDGER_RELAY);
	} else {
		session_after_join(s, ends, r);
	}
}

static enum session_end reason(unsigned int of_record)
{
	return of_record <= END_BROKEN ? (enum session_end)of_record : END_LOST;
}

static bool has_server(const struct session *s)
{
	const struct ledger_record *r = s->record;

	return r->state != LEDGER_FREE && r->state != LEDGER_QUEUED && r->server &&
	       r->server <= s->backend->conf->nr_servers;
}

void session_resume(struct session *s)
{
	struct ledger_record *r = s->record;
	int broken = -1;

	if (has_server(s)) {
		s->server = &s->backend->servers[r->server - 1];
		stats_reenter(&s->server->stats);
	}
	s->active_ns = r->connected_ns ?: r->accepted_ns; /* when really, its sockets know: check_idle() */
	s->joined = r->state == LEDGER_SPLICED || (r->state == LEDGER_FLUSH && r->cookie[CLIENT] &&
						   r->fallback == FALLBACK_NONE);
	s->tuned = s->joined;
	if (r->ending) {
		take_ends_of_record(s);
		session_end(s, reason(r->ending - 1));
		return;
	}
	switch ((enum ledger_state)r->state) {
	case LEDGER_QUEUED:
	case LEDGER_CONNECTING:
		resume_unconnected(s);
		return;
	case LEDGER_FLUSH:
		/* From the beginning: what was flushed already is not there any more. */
		broken = r->broken;
		s->why = reason(r->why);
		set_state(s, s->joined ? LEDGER_SPLICED : LEDGER_RELAY);
		break;
	case LEDGER_JOINING:
		resume_joining(s);
		break;
	case LEDGER_RELAY:
	case LEDGER_SPLICED:
		break;
	case LEDGER_FREE:
		return;
	}
	if (!s->ended)
		resume_established(s, broken, broken >= 0 ? s->why : END_CLEAN);
}
