/* SPDX-License-Identifier: GPL-2.0-or-later */
/* admin_stat.c - see admin_show.h: the proxies and their servers, as CSV and as a state file. */
#include "admin_show.h"

#include <inttypes.h>
#include <string.h>

#include "lb.h"

/* ---- the proxies, as the file has them ---- */

/* Walks the configuration's sections together with the pool's two lists, which have its order. */
struct walk {
	const struct lb *lb;
	const struct list *conf, *next_frontend, *next_backend;
	/* where it is */
	const struct config_proxy *proxy;
	const struct frontend *frontend; /* NULL: the section has none */
	const struct backend *backend;
};

static void walk_init(struct walk *w, const struct lb *lb)
{
	*w = (struct walk){
		.lb = lb,
		.conf = lb->config->proxies.next,
		.next_frontend = lb->pool->frontends.next,
		.next_backend = lb->pool->backends.next,
	};
}

/* Goes to the next section that is not disabled; false at the end. */
static bool walk_next(struct walk *w)
{
	const struct pool *pool = w->lb->pool;

	while (w->conf != &w->lb->config->proxies) {
		w->proxy = container_of(w->conf, struct config_proxy, entry);
		w->frontend = NULL;
		w->backend = NULL;
		w->conf = w->conf->next;
		if (w->next_frontend != &pool->frontends) {
			w->frontend = container_of(w->next_frontend, struct frontend, entry);
			if (w->frontend->conf == w->proxy)
				w->next_frontend = w->next_frontend->next;
			else
				w->frontend = NULL;
		}
		if (w->next_backend != &pool->backends) {
			w->backend = container_of(w->next_backend, struct backend, entry);
			if (w->backend->conf == w->proxy)
				w->next_backend = w->next_backend->next;
			else
				w->backend = NULL;
		}
		if (!w->proxy->disabled)
			return true;
	}
	return false;
}

/* NULL if there is none of this name. */
static const struct config_proxy *find_proxy(const struct config *c, const char *name)
{
	const struct config_proxy *p;

	list_for_each(p, &c->proxies, entry) {
		if (!strcmp(p->name, name))
			return p;
	}
	return NULL;
}

/* Parses a number, with its sign; the whole text. */
static bool parse_long(const char *text, long *ret)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || end == text || *end)
		return false;
	*ret = n;
	return true;
}

/* ---- show stat ---- */

struct bytes {
	struct byte_count in, out;
};

static void bytes_add(struct bytes *to, const struct byte_count *in, const struct byte_count *out)
{
	to->in.kernel += in->kernel;
	to->in.user += in->user;
	to->out.kernel += out->kernel;
	to->out.user += out->user;
}

/* clang-format off */

/* HAProxy 2.6's own columns, in its order. */
#define COLUMNS(X)                                                                                 \
	X(pxname) X(svname) X(qcur) X(qmax) X(scur) X(smax) X(slim) X(stot) X(bin) X(bout)         \
	X(dreq) X(dresp) X(ereq) X(econ) X(eresp) X(wretr) X(wredis) X(status) X(weight) X(act)    \
	X(bck) X(chkfail) X(chkdown) X(lastchg) X(downtime) X(qlimit) X(pid) X(iid) X(sid)         \
	X(throttle) X(lbtot) X(tracked) X(type) X(rate) X(rate_lim) X(rate_max) X(check_status)    \
	X(check_code) X(check_duration) X(hrsp_1xx) X(hrsp_2xx) X(hrsp_3xx) X(hrsp_4xx)            \
	X(hrsp_5xx) X(hrsp_other) X(hanafail) X(req_rate) X(req_rate_max) X(req_tot) X(cli_abrt)   \
	X(srv_abrt) X(comp_in) X(comp_out) X(comp_byp) X(comp_rsp) X(lastsess) X(last_chk)         \
	X(last_agt) X(qtime) X(ctime) X(rtime) X(ttime) X(agent_status) X(agent_code)              \
	X(agent_duration) X(check_desc) X(agent_desc) X(check_rise) X(check_fall)                  \
	X(check_health) X(agent_rise) X(agent_fall) X(agent_health) X(addr) X(cookie) X(mode)      \
	X(algo) X(conn_rate) X(conn_rate_max) X(conn_tot) X(intercepted) X(dcon) X(dses) X(wrew)   \
	X(connect) X(reuse) X(cache_lookups) X(cache_hits) X(srv_icur) X(src_ilim) X(qtime_max)    \
	X(ctime_max) X(rtime_max) X(ttime_max) X(eint) X(idle_conn_cur) X(safe_conn_cur)           \
	X(used_conn_cur) X(need_conn_est) X(uweight) X(agg_server_status)                          \
	X(agg_server_check_status) X(agg_check_status)

/* What HAProxy's modules add to them (a "-" stands before). */
#define MODULE_COLUMNS(X)                                                                          \
	X(ssl_sess) X(ssl_reused_sess) X(ssl_failed_handshake) X(h2_headers_rcvd)                  \
	X(h2_data_rcvd) X(h2_settings_rcvd) X(h2_rst_stream_rcvd) X(h2_goaway_rcvd)                \
	X(h2_detected_conn_protocol_errors) X(h2_detected_strm_protocol_errors)                    \
	X(h2_rst_stream_resp) X(h2_goaway_resp) X(h2_open_connections) X(h2_backend_open_streams)  \
	X(h2_total_connections) X(h2_backend_total_streams) X(h1_open_connections)                 \
	X(h1_open_streams) X(h1_total_connections) X(h1_total_streams) X(h1_bytes_in)              \
	X(h1_bytes_out) X(h1_spliced_bytes_in) X(h1_spliced_bytes_out)

#define OUR_COLUMNS(X) X(kbin) X(kbout) X(ubin) X(ubout)

#define AS_ENUM(name) COL_##name,
#define AS_TEXT(name) #name,

enum column {
	COLUMNS(AS_ENUM)
	COL_dash,
	MODULE_COLUMNS(AS_ENUM)
	OUR_COLUMNS(AS_ENUM)
	COL_MAX
};

static const char *const column_names[COL_MAX] = {
	COLUMNS(AS_TEXT)
	"-",
	MODULE_COLUMNS(AS_TEXT)
	OUR_COLUMNS(AS_TEXT)
};

/* clang-format on */

/* HAProxy's numbers of the kinds of row; what is asked for is a mask of 1 << type. */
enum row_type { ROW_FRONTEND = 0, ROW_BACKEND = 1, ROW_SERVER = 2 };

struct cell {
	enum { CELL_EMPTY, CELL_NUMBER, CELL_TEXT } kind;
	union {
		int64_t number;
		const char *text; /* borrowed */
	};
};

struct row {
	struct cell cells[COL_MAX];
};

static void put(struct row *r, enum column column, uint64_t number)
{
	r->cells[column] = (struct cell){ .kind = CELL_NUMBER, .number = (int64_t)number };
}

static void put_text(struct row *r, enum column column, const char *text)
{
	r->cells[column] = (struct cell){ .kind = CELL_TEXT, .text = text };
}

/* No text of a row holds a comma or a quote: names and addresses cannot. */
static void print_row(FILE *out, const struct row *r)
{
	for (int i = 0; i < COL_MAX; i++) {
		const struct cell *c = &r->cells[i];

		if (c->kind == CELL_NUMBER)
			fprintf(out, "%" PRId64, c->number);
		else if (c->kind == CELL_TEXT)
			fputs(c->text, out);
		fputc(',', out);
	}
	fputc('\n', out);
}

static void print_header(FILE *out)
{
	fputs("# ", out);
	for (int i = 0; i < COL_MAX; i++)
		fprintf(out, "%s,", column_names[i]);
	fputc('\n', out);
}

/* Bytes of the live sessions, for every row there is. Backends and servers share one array. */
struct live {
	uint32_t nr_proxies;
	struct bytes *frontends; /* by the section's id */
	struct bytes *servers;	 /* first[a backend's id] + a server's id; 0 = the backend itself */
	uint32_t *first;
};

static void live_done(struct live *l)
{
	free(l->frontends);
	free(l->servers);
	free(l->first);
}

static void add_to_rows(void *arg, const struct session_view *v)
{
	struct live *l = arg;
	const struct backend *b = v->server ? v->server->backend : v->frontend->backend;
	struct bytes *rows = &l->servers[l->first[b->conf->id]];

	bytes_add(&l->frontends[v->frontend->conf->id], &v->bytes[0], &v->bytes[1]);
	bytes_add(&rows[0], &v->bytes[0], &v->bytes[1]);
	if (v->server)
		bytes_add(&rows[v->server->conf->id], &v->bytes[0], &v->bytes[1]);
}

static int live_collect(struct live *l, const struct lb *lb)
{
	const struct config_proxy *p;
	uint32_t nr_rows = 0;

	*l = (struct live){ 0 };
	list_for_each(p, &lb->config->proxies, entry)
		l->nr_proxies = MAX(l->nr_proxies, p->id);
	l->frontends = calloc(l->nr_proxies + 1, sizeof(*l->frontends));
	l->first = calloc(l->nr_proxies + 1, sizeof(*l->first));
	if (!l->frontends || !l->first)
		goto no_memory;
	list_for_each(p, &lb->config->proxies, entry) {
		l->first[p->id] = nr_rows;
		nr_rows += p->nr_servers + 1;
	}
	l->servers = calloc(nr_rows + 1, sizeof(*l->servers));
	if (!l->servers)
		goto no_memory;
	show_each_session(lb, add_to_rows, l);
	return 0;

no_memory:
	live_done(l);
	return -ENOMEM;
}

/* What all rows have. */
static void fill_common(struct row *r, const struct lb *lb, const struct stats *st,
			const struct bytes *live, enum row_type type)
{
	struct bytes bytes = *live;

	bytes_add(&bytes, &st->in, &st->out);
	put(r, COL_scur, stat_get(st->current));
	put(r, COL_smax, stat_get(st->max));
	put(r, COL_stot, stat_get(st->sessions));
	put(r, COL_bin, byte_total(&bytes.in));
	put(r, COL_bout, byte_total(&bytes.out));
	put(r, COL_kbin, bytes.in.kernel);
	put(r, COL_kbout, bytes.out.kernel);
	put(r, COL_ubin, bytes.in.user);
	put(r, COL_ubout, bytes.out.user);
	put(r, COL_pid, 1);
	put(r, COL_type, type);
	put(r, COL_rate, rate_get(&st->rate, loop_now(lb->loop) / NS_PER_SEC));
	put(r, COL_rate_max, stat_get(st->rate.max));
	put_text(r, COL_mode, "tcp");
	put_text(r, COL_dash, "-");
}

/* What servers and backends have. */
static void fill_server_side(struct row *r, const struct lb *lb, const struct stats *st)
{
	uint64_t now_s = loop_now(lb->loop) / NS_PER_SEC, came = rate_last(&st->rate);
	int64_t last = -1;

	if (stat_get(st->sessions))
		last = now_s > came ? (int64_t)(now_s - came) : 0;
	put(r, COL_lastsess, (uint64_t)last);
	put(r, COL_qcur, stat_get(st->queued));
	put(r, COL_qmax, stat_get(st->queued_max));
	put(r, COL_dresp, 0);
	put(r, COL_econ, stat_get(st->connect_errors));
	put(r, COL_eresp, 0);
	put(r, COL_wretr, stat_get(st->retries));
	put(r, COL_wredis, stat_get(st->redispatches));
	put(r, COL_bck, 0);
	put(r, COL_lbtot, stat_get(st->chosen));
	put(r, COL_cli_abrt, stat_get(st->aborted_by_client));
	put(r, COL_srv_abrt, stat_get(st->aborted_by_server));
}

static void print_frontend(FILE *out, const struct lb *lb, const struct frontend *f,
			   const struct bytes *live)
{
	const struct stats *st = &f->stats;
	struct row r = { 0 };

	fill_common(&r, lb, st, live, ROW_FRONTEND);
	put_text(&r, COL_pxname, f->conf->name);
	put_text(&r, COL_svname, "FRONTEND");
	put(&r, COL_slim, f->maxconn);
	put(&r, COL_dreq, 0);
	put(&r, COL_dresp, 0);
	put(&r, COL_ereq, 0);
	put(&r, COL_dcon, 0);
	put(&r, COL_dses, 0);
	put_text(&r, COL_status, lb->stopping ? "STOP" : "OPEN");
	put(&r, COL_iid, f->conf->id);
	put(&r, COL_sid, 0);
	put(&r, COL_rate_lim, 0);
	put(&r, COL_conn_rate, rate_get(&st->rate, loop_now(lb->loop) / NS_PER_SEC));
	put(&r, COL_conn_rate_max, stat_get(st->rate.max));
	put(&r, COL_conn_tot, stat_get(st->sessions));
	print_row(out, &r);
}

/* HAProxy's words for a server without health checks. */
static const char *server_status(const struct server *s)
{
	switch (s->state) {
	case SERVER_READY:
		return "no check";
	case SERVER_DRAIN:
		return "DRAIN";
	case SERVER_MAINT:
		return "MAINT";
	}
	return "?";
}

static void print_server(FILE *out, const struct lb *lb, const struct server *s,
			 const struct bytes *live)
{
	char addr[ADDR_STRLEN];
	struct row r = { 0 };

	fill_common(&r, lb, &s->stats, live, ROW_SERVER);
	fill_server_side(&r, lb, &s->stats);
	put_text(&r, COL_pxname, s->backend->conf->name);
	put_text(&r, COL_svname, s->conf->name);
	if (s->conf->maxconn)
		put(&r, COL_slim, s->conf->maxconn);
	put_text(&r, COL_status, server_status(s));
	put(&r, COL_weight, s->weight);
	put(&r, COL_uweight, s->weight);
	put(&r, COL_act, 1);
	put(&r, COL_lastchg, show_seconds_since(lb, s->changed_ns));
	put(&r, COL_iid, s->backend->conf->id);
	put(&r, COL_sid, s->conf->id);
	put(&r, COL_used_conn_cur, stat_get(s->stats.current));
	put_text(&r, COL_addr, addr_format(&s->conf->addr, addr));
	print_row(out, &r);
}

static void print_backend(FILE *out, const struct lb *lb, const struct backend *b,
			  const struct bytes *live)
{
	uint64_t weight = 0, active = 0, changed_ns = lb->started_ns;
	struct row r = { 0 };

	for (uint32_t i = 0; i < b->conf->nr_servers; i++) {
		const struct server *s = &b->servers[i];

		changed_ns = MAX(changed_ns, s->changed_ns);
		if (s->state != SERVER_READY || !s->weight)
			continue;
		weight += s->weight;
		active++;
	}
	fill_common(&r, lb, &b->stats, live, ROW_BACKEND);
	fill_server_side(&r, lb, &b->stats);
	put_text(&r, COL_pxname, b->conf->name);
	put_text(&r, COL_svname, "BACKEND");
	put(&r, COL_dreq, 0);
	put_text(&r, COL_status, weight || !b->conf->nr_servers ? "UP" : "DOWN");
	put(&r, COL_weight, weight);
	put(&r, COL_uweight, weight);
	put(&r, COL_act, active);
	put(&r, COL_lastchg, show_seconds_since(lb, changed_ns));
	put(&r, COL_iid, b->conf->id);
	put(&r, COL_sid, 0);
	put_text(&r, COL_algo, "roundrobin");
	print_row(out, &r);
}

/* Which rows are asked for. */
struct stat_filter {
	long iid, sid; /* -1 = all */
	long types;    /* a mask of 1 << enum row_type; -1 = all */
	bool no_maint;
};

/* Returns false, and has said why, if the arguments make no sense. */
static bool parse_stat_filter(const struct show *s, struct stat_filter *ret)
{
	struct stat_filter f = { .iid = -1, .sid = -1, .types = -1 };
	const struct config_proxy *p;
	uint32_t n = 0;

	if (s->nr_args >= 3) {
		p = find_proxy(s->lb->config, s->args[0]);
		if (p) {
			f.iid = (long)p->id;
		} else if (!parse_long(s->args[0], &f.iid)) {
			fputs("No such proxy.\n", s->out);
			return false;
		}
		if (!parse_long(s->args[1], &f.types) || !parse_long(s->args[2], &f.sid)) {
			fputs("'show stat' expects <type> and <sid> to be numbers.\n", s->out);
			return false;
		}
		n = 3;
	}
	for (; n < s->nr_args; n++) {
		/* A server here is up or in maintenance, so that the two mean the same. */
		if (strcmp(s->args[n], "up") && strcmp(s->args[n], "no-maint")) {
			fputs("'show stat' expects [{<iid>|<proxy>} <type> <sid>] [up] [no-maint]; "
			      "its only format is CSV.\n",
			      s->out);
			return false;
		}
		f.no_maint = true;
	}
	*ret = f;
	return true;
}

static bool wants(const struct stat_filter *f, enum row_type type)
{
	return f->types & (1l << type);
}

void show_stat(const struct show *s)
{
	const struct lb *lb = s->lb;
	struct stat_filter f;
	struct live live;
	struct walk w;

	if (!parse_stat_filter(s, &f))
		return;
	if (live_collect(&live, lb) < 0) {
		fputs("Out of memory.\n", s->out);
		return;
	}
	print_header(s->out);
	walk_init(&w, lb);
	while (walk_next(&w)) {
		const struct bytes *rows = &live.servers[live.first[w.proxy->id]];

		if (f.iid != -1 && f.iid != (long)w.proxy->id)
			continue;
		if (w.frontend && wants(&f, ROW_FRONTEND))
			print_frontend(s->out, lb, w.frontend, &live.frontends[w.proxy->id]);
		if (!w.backend)
			continue;
		for (uint32_t i = 0; i < w.proxy->nr_servers && wants(&f, ROW_SERVER); i++) {
			const struct server *server = &w.backend->servers[i];

			if (f.sid != -1 && f.sid != (long)server->conf->id)
				continue;
			if (f.no_maint && server->state == SERVER_MAINT)
				continue;
			print_server(s->out, lb, server, &rows[server->conf->id]);
		}
		if (wants(&f, ROW_BACKEND))
			print_backend(s->out, lb, w.backend, &rows[0]);
	}
	live_done(&live);
}

/* ---- show servers state ---- */

/* Bits of HAProxy's srv_admin_state. */
enum { ADMIN_FORCED_MAINT = 0x01, ADMIN_CONFIG_MAINT = 0x04, ADMIN_FORCED_DRAIN = 0x08 };

static unsigned int admin_state(const struct server *s)
{
	switch (s->state) {
	case SERVER_READY:
		return 0;
	case SERVER_DRAIN:
		return ADMIN_FORCED_DRAIN;
	case SERVER_MAINT:
		return ADMIN_FORCED_MAINT | (s->conf->disabled ? ADMIN_CONFIG_MAINT : 0);
	}
	return 0;
}

static void print_server_state(FILE *out, const struct lb *lb, const struct server *s)
{
	const struct config_proxy *p = s->backend->conf;
	bool maint = s->state == SERVER_MAINT;
	char host[ADDR_STRLEN];

	/*
	 * Without health checks HAProxy says: op_state 2 (running), check_status 1 (initialised),
	 * check_result 0 (unknown), check_health 2 (of rise 2), check_state 0; in maintenance
	 * op_state 0 (stopped), check_health 0, check_state 8 (paused).
	 */
	fprintf(out,
		"%u %s %u %s %s %d %u %u %u %" PRIu64
		" 1 0 %d %d 0 0 0 - %u - 0 0 - - 0\n",
		p->id, p->name, s->conf->id, s->conf->name,
		addr_format_host(&s->conf->addr, host), maint ? 0 : 2, admin_state(s), s->weight,
		s->conf->weight, show_seconds_since(lb, s->changed_ns), maint ? 0 : 2,
		maint ? 8 : 0, addr_port(&s->conf->addr));
}

void show_servers_state(const struct show *s)
{
	const struct config_proxy *only = NULL;
	struct walk w;

	if (s->nr_args) {
		only = find_proxy(s->lb->config, s->args[0]);
		if (!only || !(only->caps & PROXY_BACKEND)) {
			fputs("Can't find backend.\n", s->out);
			return;
		}
	}
	fputs("1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state "
	      "srv_uweight srv_iweight srv_time_since_last_change srv_check_status "
	      "srv_check_result srv_check_health srv_check_state srv_agent_state "
	      "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl "
	      "srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n",
	      s->out);
	walk_init(&w, s->lb);
	while (walk_next(&w)) {
		if (!w.backend || (only && w.proxy != only))
			continue;
		for (uint32_t i = 0; i < w.proxy->nr_servers; i++)
			print_server_state(s->out, s->lb, &w.backend->servers[i]);
	}
}
