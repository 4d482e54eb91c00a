/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * verify.c - see load.h: downloads, uploads and echoes in which every byte is checked, at the end
 * that receives it: its value, its place, and that there is not one more or less.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_NS (30 * NS_PER_SEC)
#define ECHO_MAX 65536

static const struct options *options;
static char buffer[IO_SIZE];
static uint64_t finished, moved;

static bool is_finished(void)
{
	return finished == options->connections;
}

/* Some bytes at least must come in every PATIENCE_NS. */
static void run_to_the_end(const char *what)
{
	uint64_t before;

	do {
		before = moved;
		if (loop_run_until(is_finished, PATIENCE_NS))
			return;
	} while (moved != before);
	failed("%s: stood still after %" PRIu64 " bytes of all, %" PRIu64 " of %" PRIu64 " done",
	       what, moved, finished, options->connections);
}

static void check(const struct flow *f, uint64_t pos, const void *buf, size_t len, const char *what)
{
	uint64_t at = pattern_check(f->req.key, pos, buf, len);

	if (at != UINT64_MAX)
		wrong("%s: byte %" PRIu64 " of %" PRIu64, what, at, options->bytes);
	moved += len;
}

static void on_download(struct watch *w, uint32_t events)
{
	struct flow *f = (struct flow *)w;
	ssize_t n = recv(w->fd, buffer, sizeof(buffer), 0);

	(void)events;
	if (n < 0) {
		flow_check(n, "download");
		return;
	}
	if (n == 0) {
		if (f->pos != options->bytes)
			wrong("download: a clean end after %" PRIu64 " of %" PRIu64 " bytes",
			      f->pos, options->bytes);
		watch_close(w);
		finished++;
		return;
	}
	if (f->pos + (uint64_t)n > options->bytes)
		wrong("download: more than the %" PRIu64 " bytes", options->bytes);
	check(f, f->pos, buffer, (size_t)n, "download");
	f->pos += (uint64_t)n;
}

static void on_verdict(struct watch *w, uint32_t events)
{
	struct verdict v;
	ssize_t n = recv(w->fd, &v, sizeof(v), 0);

	(void)events;
	if (n != (ssize_t)sizeof(v)) {
		flow_check(n, "verdict of an upload");
		return;
	}
	if (v.wrong_at != UINT64_MAX)
		wrong("upload: byte %" PRIu64 " of %" PRIu64, v.wrong_at, options->bytes);
	if (v.received != options->bytes)
		wrong("upload: %" PRIu64 " of %" PRIu64 " bytes", v.received, options->bytes);
	watch_close(w);
	finished++;
}

static void on_upload(struct watch *w, uint32_t events)
{
	struct flow *f = (struct flow *)w;
	struct stream s = {
		.key = f->req.key,
		.total = options->bytes,
		.fault = options->fault,
		.fault_at = options->bytes / 2 + f->req.key % 1000,
	};
	uint64_t left = stream_length(&s) - f->pos;
	size_t len = left < IO_SIZE ? left : IO_SIZE;
	ssize_t n;

	(void)events;
	stream_read(&s, f->pos, buffer, len);
	n = send(w->fd, buffer, len, MSG_NOSIGNAL);
	if (n < 0) {
		flow_check(n, "upload");
		return;
	}
	f->pos += (uint64_t)n;
	moved += (uint64_t)n;
	if (f->pos < stream_length(&s))
		return;
	shutdown(w->fd, SHUT_WR);
	w->io = on_verdict;
	watch_set(w, EPOLLIN);
}

/* ---- echo: messages of all sizes; f->budget is where the message on its way ends ---- */

static void on_echo(struct watch *w, uint32_t events)
{
	struct flow *f = (struct flow *)w;
	uint64_t size;
	ssize_t n;

	(void)events;
	if (f->pos == f->budget) { /* the last one is back */
		if (f->pos == options->bytes) {
			watch_close(w);
			finished++;
			return;
		}
		size = 1 + (f->req.key + f->pos) * 0x9e3779b97f4a7c15ULL % ECHO_MAX;
		f->budget += size < options->bytes - f->pos ? size : options->bytes - f->pos;
		f->at_ns = f->pos; /* how far it was sent */
	}
	if (f->at_ns < f->budget) {
		pattern_fill(f->req.key, f->at_ns, buffer, f->budget - f->at_ns);
		n = send(w->fd, buffer, f->budget - f->at_ns, MSG_NOSIGNAL);
		if (n < 0)
			flow_check(n, "echo");
		else
			f->at_ns += (uint64_t)n;
		if (f->at_ns == f->budget)
			watch_set(w, EPOLLIN);
		return;
	}
	n = recv(w->fd, buffer, f->budget - f->pos, 0);
	if (n <= 0) {
		flow_check(n, "echo");
		return;
	}
	check(f, f->pos, buffer, (size_t)n, "echo");
	f->pos += (uint64_t)n;
	if (f->pos == f->budget)
		watch_set(w, EPOLLOUT);
}

static void play(enum kind kind, const char *what, void (*io)(struct watch *w, uint32_t events),
		 uint32_t events)
{
	struct request req = {.kind = (uint8_t)kind, .verify = 1, .bytes = options->bytes};

	finished = 0;
	moved = 0;
	flows_open(&options->connect, options->connections, &req, io, events);
	run_to_the_end(what);
}

int mode_verify(const struct options *o)
{
	options = o;
	play(KIND_DOWNLOAD, "download", on_download, EPOLLIN);
	play(KIND_UPLOAD, "upload", on_upload, EPOLLOUT);
	play(KIND_ECHO, "echo", on_echo, EPOLLOUT);
	printf("status=ok mode=verify connections=%" PRIu64 " bytes=%" PRIu64 "\n", o->connections,
	       3 * o->connections * o->bytes);
	return 0;
}
