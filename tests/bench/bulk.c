/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bulk.c - see load.h: downloads, uploads, slow and stopped readers, bulk as a disturbance. */
#include "load.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICK_NS (5 * NS_PER_MS)
#define BURST_TICKS 4

static char buffer[IO_SIZE];

static void on_download(struct watch *w, uint32_t events)
{
	ssize_t n = recv(w->fd, buffer, sizeof(buffer), 0);

	(void)events;
	if (n > 0)
		tally.bytes += (uint64_t)n;
	else
		flow_check(n, "download");
}

static void on_upload(struct watch *w, uint32_t events)
{
	ssize_t n = send(w->fd, buffer, sizeof(buffer), MSG_NOSIGNAL);

	(void)events;
	if (n < 0)
		flow_check(n, "upload");
}

int mode_download(const struct options *o)
{
	struct request req = {.kind = KIND_DOWNLOAD, .rate = o->rate};

	flows_open(&o->connect, o->connections, &req, on_download, EPOLLIN);
	return measure(o);
}

int mode_upload(const struct options *o)
{
	struct request req = {.kind = KIND_UPLOAD};

	if (!o->control.len)
		failed("upload needs --control: the server counts");
	tally.at_server = true;
	pattern_fill(random_key(), 0, buffer, sizeof(buffer));
	flows_open(&o->connect, o->connections, &req, on_upload, EPOLLOUT);
	return measure(o);
}

/* ---- readers that are slow, or stand still ---- */

static struct flow *slow;
static uint64_t nr_slow, slow_rate;

static void read_slowly(void)
{
	static uint64_t last_ns;
	uint64_t now = now_ns(), most = slow_rate * BURST_TICKS * TICK_NS / NS_PER_SEC;
	uint64_t past = last_ns ? now - last_ns : TICK_NS;

	last_ns = now;
	for (struct flow *f = slow; f < slow + nr_slow; f++) {
		f->budget += slow_rate * past / NS_PER_SEC;
		if (f->budget > most)
			f->budget = most;
		while (f->budget) {
			ssize_t n =
				recv(f->w.fd, buffer, f->budget < IO_SIZE ? f->budget : IO_SIZE, 0);

			if (n <= 0) {
				flow_check(n, "slow download");
				break;
			}
			f->budget -= (uint64_t)n;
			tally.bytes += (uint64_t)n;
		}
	}
}

/* Nothing is asked for, so this is an error or a hang-up. */
static void on_trouble(struct watch *w, uint32_t events)
{
	(void)w;
	failed("a reader's connection broke (events 0x%x)", events);
}

int mode_limited(const struct options *o)
{
	struct request req = {.kind = KIND_DOWNLOAD};

	if (!o->rate)
		failed("limited needs --rate");
	slow_rate = o->rate;
	slow = flows_open(&o->connect, o->connections, &req, on_trouble, 0);
	nr_slow = o->connections;
	every(TICK_NS, read_slowly);
	return measure(o);
}

void readers_start(const struct options *o)
{
	struct request req = {.kind = KIND_DOWNLOAD};

	flows_open(&o->bulk, o->others, &req, on_trouble, 0);
}

/* ---- bulk beside something else: a process of its own ---- */

static uint64_t *shared; /* how much it got */
static pid_t child;

uint64_t bulk_child_bytes(void)
{
	return shared ? __atomic_load_n(shared, __ATOMIC_RELAXED) : 0;
}

void bulk_child_start(const struct options *o)
{
	struct request req = {.kind = KIND_DOWNLOAD, .rate = o->rate};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		failed("mmap: %m");
	child = fork();
	if (child < 0)
		failed("fork: %m");
	if (child)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	loop_init(); /* its own */
	tally.bytes = 0;
	flows_open(&o->bulk, o->others, &req, on_download, EPOLLIN);
	for (;;) {
		loop_run_for(10 * NS_PER_MS);
		__atomic_store_n(shared, tally.bytes, __ATOMIC_RELAXED);
	}
}

void bulk_child_end(void)
{
	int status;

	if (waitpid(child, &status, WNOHANG) == child)
		failed("the bulk flows broke");
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}
