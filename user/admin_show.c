/* SPDX-License-Identifier: GPL-2.0-or-later */
/* admin_show.c - see admin_show.h: the process and its sessions; the proxies: admin_stat.c. */
#include "admin_show.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "lb.h"
#include "sock.h"

/* Lines of one `show sess`: about 40 MB. What the kernel moves goes on while they are written. */
#define SESSIONS_MAX 100000

uint64_t show_seconds_since(const struct lb *lb, uint64_t at_ns)
{
	int64_t age_ns = (int64_t)(loop_now(lb->loop) - at_ns);

	return age_ns > 0 ? (uint64_t)age_ns / NS_PER_SEC : 0;
}

void show_each_session(const struct lb *lb, void (*fn)(void *arg, const struct session_view *v), void *arg)
{
	for (uint32_t i = 0; i < lb->nr_threads; i++) {
		struct lb_thread *t = &lb->threads[i];

		loop_enter(t->loop);
		sessions_each(t->sessions, fn, arg);
		loop_leave(t->loop);
	}
}

/* ---- show info, show version ---- */

struct totals {
	struct byte_count bytes[2]; /* by direction: 0 = client to server */
	uint64_t pauses, resumes;
};

static void add_to_total(void *arg, const struct session_view *v)
{
	struct totals *t = arg;

	for (int i = 0; i < 2; i++) {
		t->bytes[i].kernel += v->bytes[i].kernel;
		t->bytes[i].user += v->bytes[i].user;
		t->pauses += v->pauses[i];
		t->resumes += v->resumes[i];
	}
}

static const char *exit_name(enum flow_exit e)
{
	switch (e) {
	case FLOW_EXIT_FIN:
		return "fin";
	case FLOW_EXIT_NO_SLOT:
		return "no_slot";
	case FLOW_EXIT_NOT_READY:
		return "not_ready";
	case FLOW_EXIT_USER:
		return "user";
	case FLOW_EXIT_PAUSED:
		return "paused";
	case FLOW_EXIT_KERNEL:
		return "kernel";
	case FLOW_EXIT_RESUMED:
		return "resumed";
	case FLOW_EXIT_EVENT_LOST:
		return "event_lost";
	case FLOW_EXIT_REDIRECT_LOST:
		return "redirect_lost";
	case FLOW_EXIT_BROKEN:
		return "broken";
	case FLOW_COUNT_TRIMMED:
		return "trimmed";
	case FLOW_COUNT_WINDOW:
		return "window";
	case FLOW_EXIT_MAX:
		break;
	}
	return "?";
}

static void info_number(FILE *out, const char *name, uint64_t value)
{
	fprintf(out, "%s: %" PRIu64 "\n", name, value);
}

/* Text that others wrote: whatever it holds, it stays on its line. */
static void info_text(FILE *out, const char *name, const char *text)
{
	fprintf(out, "%s: ", name);
	for (; *text; text++)
		fputc((unsigned char)*text < ' ' ? ' ' : *text, out);
	fputc('\n', out);
}

/* A name of ours as part of a "Name:", where words are joined with underscores. */
static void info_reason(FILE *out, const char *prefix, const char *name, uint64_t value)
{
	char line[64];

	snprintf(line, sizeof(line), "%s_%s", prefix, name);
	for (char *c = line; *c; c++) {
		if (*c == '-')
			*c = '_';
	}
	info_number(out, line, value);
}

static void info_process(FILE *out, const struct lb *lb)
{
	uint64_t uptime = show_seconds_since(lb, lb->started_ns);
	char node[HOST_NAME_MAX + 1] = "";

	gethostname(node, sizeof(node) - 1);
	fprintf(out, "Name: shunt\nVersion: %s\n", SHUNT_VERSION);
	info_number(out, "Nbthread", lb->nr_threads);
	info_number(out, "Nbproc", 1);
	info_number(out, "Process_num", 1);
	info_number(out, "Pid", (uint64_t)getpid());
	fprintf(out, "Uptime: %" PRIu64 "d %" PRIu64 "h%02" PRIu64 "m%02" PRIu64 "s\n",
		uptime / 86400, uptime / 3600 % 24, uptime / 60 % 60, uptime % 60);
	info_number(out, "Uptime_sec", uptime);
	info_number(out, "Start_time_sec", (uint64_t)time(NULL) - uptime);
	info_number(out, "Ulimit-n", lb->nofile);
	info_number(out, "Maxsock", lb->nofile);
	info_number(out, "Maxconn", lb->maxconn);
	info_number(out, "Hard_maxconn", lb->maxconn);
	info_text(out, "node", node);
}

static uint64_t open_listeners(const struct lb *lb)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < lb->nr_listeners; i++)
		n += lb->threads[0].listeners[i].listener != NULL;
	return n;
}

static void info_sessions(FILE *out, const struct lb *lb)
{
	const struct process_stats *p = &lb->stats;
	uint32_t rate = rate_get(&p->rate, loop_now(lb->loop) / NS_PER_SEC);

	info_number(out, "CurrConns", stat_get(p->current));
	info_number(out, "CumConns", stat_get(p->sessions));
	info_number(out, "ConnRate", rate);
	info_number(out, "ConnRateLimit", 0);
	info_number(out, "MaxConnRate", stat_get(p->rate.max));
	info_number(out, "SessRate", rate);
	info_number(out, "SessRateLimit", 0);
	info_number(out, "MaxSessRate", stat_get(p->rate.max));
	info_number(out, "MaxCurrConns", stat_get(p->max));
	info_number(out, "Stopping", lb->stopping);
	info_number(out, "Listeners", open_listeners(lb));
	info_number(out, "DroppedLogs", log_dropped());
	info_number(out, "AcceptPausedFull", stat_get(p->full));
	info_number(out, "AcceptPausedExhausted", stat_get(p->accept_errors));
	info_number(out, "ConnectErrors", stat_get(p->connections_failed));
	info_number(out, "Resets", stat_get(p->resets_sent));
	info_number(out, "WorkerDeaths", stat_get(p->worker_deaths));
	info_number(out, "SessionsAdopted", stat_get(p->adopted));
	info_number(out, "SessionsLost", stat_get(p->lost));
	info_number(out, "Upgrades", stat_get(p->upgrades));
	info_number(out, "UpgradesFailed", stat_get(p->upgrades_failed));
	info_number(out, "SlotsUsed", ledger_used(lb->ledger));
	info_number(out, "SlotsMax", ledger_max(lb->ledger));
}

static void info_kernel_path(FILE *out, const struct lb *lb)
{
	const struct process_stats *p = &lb->stats;
	struct totals t = {
		.bytes = {
			{ stat_get(p->in.kernel), stat_get(p->in.user) },
			{ stat_get(p->out.kernel), stat_get(p->out.user) },
		},
		.pauses = stat_get(p->pauses),
		.resumes = stat_get(p->resumes),
	};
	uint64_t exits[FLOW_EXIT_MAX] = { 0 };

	show_each_session(lb, add_to_total, &t);
	info_number(out, "TotalBytesOut", byte_total(&t.bytes[1]));
	info_number(out, "BytesInKernel", t.bytes[0].kernel);
	info_number(out, "BytesInUser", t.bytes[0].user);
	info_number(out, "BytesOutKernel", t.bytes[1].kernel);
	info_number(out, "BytesOutUser", t.bytes[1].user);
	fprintf(out, "KernelPath: %s\n", lb->splice ? "yes" : "no");
	info_text(out, "KernelPathReason", lb->path_reason);
	info_number(out, "SessionsJoined", stat_get(p->joined));
	for (int i = FALLBACK_NONE + 1; i < FALLBACK_MAX; i++)
		info_reason(out, "Fallback", fallback_name(i), stat_get(p->fallback[i]));
	info_number(out, "Pauses", t.pauses);
	info_number(out, "Resumes", t.resumes);
	if (lb->splice)
		splice_counters(lb->splice, exits);
	for (int i = 0; i < FLOW_EXIT_MAX; i++)
		info_reason(out, "Verdict", exit_name(i), exits[i]);
}

void show_info(const struct show *s)
{
	info_process(s->out, s->lb);
	info_sessions(s->out, s->lb);
	info_kernel_path(s->out, s->lb);
}

void show_version(const struct show *s)
{
	fprintf(s->out, "%s\n", SHUNT_VERSION);
}

/* ---- show sess ---- */

struct sess_request {
	FILE *out;
	const struct lb *lb;
	uint64_t serial; /* 0 = all */
	uint32_t nr;
};

/* HAProxy's way with times: the two largest units. */
static const char *format_age(uint64_t s, char buf[static 32])
{
	if (s >= 86400)
		snprintf(buf, 32, "%" PRIu64 "d%" PRIu64 "h", s / 86400, s / 3600 % 24);
	else if (s >= 3600)
		snprintf(buf, 32, "%" PRIu64 "h%" PRIu64 "m", s / 3600, s / 60 % 60);
	else if (s >= 60)
		snprintf(buf, 32, "%" PRIu64 "m%" PRIu64 "s", s / 60, s % 60);
	else
		snprintf(buf, 32, "%" PRIu64 "s", s);
	return buf;
}

/* How long neither end has sent anything; "?" while that cannot be told. */
static const char *format_idle(const struct ledger_record *r, char buf[static 32])
{
	uint32_t idle_ms = UINT32_MAX;

	for (int i = 0; i < 2 && r->connected_ns; i++) {
		struct sock_activity a;

		if (r->fd[i] >= 0 && sock_activity(r->fd[i], &a) == 0)
			idle_ms = MIN(idle_ms, a.last_received_ms);
	}
	return idle_ms == UINT32_MAX ? "?" : format_age(idle_ms / 1000, buf);
}

static const char *format_end(const struct ledger_addr *a, char buf[static ADDR_STRLEN])
{
	struct addr addr;

	if (!a->family)
		return "<none>";
	ledger_addr_get(a, &addr);
	return addr_format(&addr, buf);
}

static void print_direction(FILE *out, const char *name, const struct session_view *v, int i)
{
	fprintf(out,
		" %s=[mover=%s kernel=%" PRIu64 " user=%" PRIu64
		" pauses=%u resumes=%u held=%u peak=%" PRIu64 " limit=%u why=%s]",
		name, v->splicing && v->mover[i] == FLOW_KERNEL ? "kernel" : "user",
		v->bytes[i].kernel, v->bytes[i].user, v->pauses[i], v->resumes[i], v->held[i],
		v->peak[i], v->limit[i], choose_reason_name(v->choice[i]));
}

static void print_session(void *arg, const struct session_view *v)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN], age[32], idle[32];
	const struct ledger_record *r = v->record;
	const struct backend *b = v->server ? v->server->backend : v->frontend->backend;
	struct sess_request *q = arg;

	if (q->serial && q->serial != r->serial)
		return;
	if (q->nr++ >= SESSIONS_MAX)
		return;
	fprintf(q->out,
		"0x%" PRIx64 ": proto=%s src=%s fe=%s be=%s srv=%s addr=%s state=%s age=%s idle=%s",
		r->serial, r->client.family == AF_INET6 ? "tcpv6" : "tcpv4",
		format_end(&r->client, src), v->frontend->conf->name, b ? b->conf->name : "<NONE>",
		v->server ? v->server->conf->name : "<none>", format_end(&r->server_addr, dst),
		ledger_state_name(r->state),
		format_age(show_seconds_since(q->lb, r->accepted_ns), age), format_idle(r, idle));
	print_direction(q->out, "req", v, 0);
	print_direction(q->out, "rsp", v, 1);
	fprintf(q->out, " fallback=%s thread=%u\n", fallback_name(r->fallback), v->thread);
}

/* A serial as `show sess` prints it, or in decimal. */
static bool parse_serial(const char *text, uint64_t *ret)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, hex ? 16 : 10);
	return !errno && end != text && !*end && text[0] != '-' && *ret;
}

void show_sess(const struct show *s)
{
	struct sess_request q = { .out = s->out, .lb = s->lb };

	if (s->nr_args && strcmp(s->args[0], "all") && !parse_serial(s->args[0], &q.serial)) {
		fputs("'show sess' expects a session's id, such as 0x1f.\n", s->out);
		return;
	}
	show_each_session(s->lb, print_session, &q);
	if (q.serial && !q.nr)
		fputs("Session not found.\n", s->out);
	if (q.nr > SESSIONS_MAX)
		fprintf(s->out, "# cut off: %u of %u sessions\n", SESSIONS_MAX, q.nr);
}
