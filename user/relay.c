/* SPDX-License-Identifier: GPL-2.0-or-later */
/* relay.c - see relay.h. */
#include "relay.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

#define PIPE_SIZE (1024 * 1024) /* 256 pieces, each of a page or more; what anybody may ask for (fs.pipe-max-size) */

int relay_pipe_open(struct relay_pipe *ret)
{
	int fds[2];

	*ret = (struct relay_pipe){ .in = -1, .out = -1 };
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
		return -errno;
	/* A smaller one ends each read early. */
	if (fcntl(fds[1], F_SETPIPE_SZ, PIPE_SIZE) < PIPE_SIZE) {
		int r = -errno;

		close(fds[0]);
		close(fds[1]);
		return r;
	}
	*ret = (struct relay_pipe){ .in = fds[1], .out = fds[0] };
	return 0;
}

void relay_pipe_close(struct relay_pipe *p)
{
	if (p->in >= 0)
		close(p->in);
	if (p->out >= 0)
		close(p->out);
	*p = (struct relay_pipe){ .in = -1, .out = -1 };
}

void relay_done(struct relay *r)
{
	if (r->area && *r->saved) {
		/* First nobody must find it, then it may go. */
		__atomic_store_n(r->saved, 0, __ATOMIC_RELEASE);
		madvise(r->area, RELAY_AREA, MADV_REMOVE);
	} else if (!r->area) {
		free(r->held);
	}
	*r = (struct relay){ .area = r->area, .saved = r->saved, .taken = r->taken, .pipe = r->pipe };
}

/* ---- one read, one write ---- */

/* Both return the number of bytes, 0 at the end of the stream, or -errno. */
static ssize_t read_bytes(int source, char *bytes, size_t size)
{
	ssize_t n;

	do
		n = recv(source, bytes, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* 0 says nothing, recv() tells: at an urgent byte nothing is to be had in this way, as at the end or before it. (kernel: tcp_splice_read()) */
static ssize_t read_pages(int source, const struct relay_pipe *to, size_t size)
{
	ssize_t n;

	do
		n = splice(source, NULL, to->in, NULL, size, SPLICE_F_NONBLOCK);
	while (n < 0 && errno == EINTR);
	return n >= 0 ? n : errno == EAGAIN ? 0 : -errno;
}

/* The sink is full, or the kernel has no memory now (which TCP may call EAGAIN too). */
static bool is_passing(int error)
{
	return error == EAGAIN || error == ENOBUFS || error == ENOMEM;
}

/* Returns the number of bytes taken (0 = the sink is full) or -errno. */
static ssize_t write_some(int sink, const char *data, size_t len)
{
	ssize_t n;

	do
		n = send(sink, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n >= 0 ? n : is_passing(errno) ? 0 : -errno;
}

/*
 * The same of what is in the pipe; but an error goes into *error, as some may have been taken before it. A call that took only some may have met the sink's reset
 * after them, and tells nobody (kernel: splice_to_socket() sends 16 pieces at a time): it is asked again until it says why.
 */
static size_t write_pages(int sink, const struct relay_pipe *from, size_t len, int *error)
{
	size_t sent = 0;

	while (sent < len) {
		ssize_t n = splice(from->out, NULL, sink, NULL, len - sent, SPLICE_F_NONBLOCK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !is_passing(errno))
			*error = -errno;
		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	return sent;
}

/*
 * What is left in the pipe, len bytes, goes behind the first `at` ones of the buffer; one call takes all of it (kernel: pipe_read()). Returns false if there was
 * no memory for it: then it is lost, as nobody else may get it, and what else is in the buffer is not taken for it by who comes after.
 */
static bool copy_from_pipe(struct relay_scratch *scratch, const struct relay_pipe *p, size_t at, size_t len)
{
	char lost[512];
	ssize_t n;

	__atomic_store_n(&scratch->piped, at + len, __ATOMIC_RELEASE);
	do
		n = read(p->out, scratch->bytes + at, len);
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)len)
		return true;
	__atomic_store_n(&scratch->piped, RELAY_LOST, __ATOMIC_RELEASE);
	do
		n = read(p->out, lost, sizeof(lost));
	while (n > 0 || (n < 0 && errno == EINTR));
	return false;
}

void relay_empty_pipe(struct relay_scratch *scratch, const struct relay_pipe *p)
{
	size_t len, at = 0;
	int n = 0;

	if (p->out < 0 || ioctl(p->out, FIONREAD, &n) < 0 || n <= 0)
		return;
	len = MIN((size_t)n, (size_t)RELAY_AREA);
	/* Whoever died over this had taken the first ones. */
	if (scratch->piped > len && scratch->piped <= RELAY_AREA)
		at = scratch->piped - len;
	copy_from_pipe(scratch, p, at, len);
}

/* ---- a direction ---- */

static int keep(struct relay *r, const char *data, size_t len)
{
	r->held = r->area ?: malloc(len);
	if (!r->held)
		return -ENOMEM;
	memcpy(r->held, data, len);
	r->offset = 0;
	r->length = (uint32_t)len;
	if (r->area)
		__atomic_store_n(r->saved, r->length, __ATOMIC_RELEASE);
	return 0;
}

bool relay_restore(struct relay *r, uint64_t n, const char *bytes, uint64_t len)
{
	if (r->area && *r->saved >= n) {
		r->held = r->area;
		r->length = *r->saved;
		r->offset = r->length - (uint32_t)n;
		return true;
	}
	if (!bytes || len < n || n > RELAY_AREA)
		return false;
	return keep(r, bytes + (len - n), n) == 0;
}

/* Returns true if nothing is held any more; else out says why. */
static bool write_held(struct relay *r, int sink, struct relay_outcome *out)
{
	ssize_t sent = write_some(sink, r->held + r->offset, relay_held(r));

	if (sent < 0) {
		*out = (struct relay_outcome){ .status = RELAY_SINK_ERROR, .error = (int)sent };
		return false;
	}
	out->moved += (uint64_t)sent;
	r->offset += (uint32_t)sent;
	out->status = RELAY_BLOCKED;
	if (relay_held(r))
		return false;
	relay_done(r);
	return true;
}

struct relay_outcome relay_run(struct relay *r, int source, int sink, struct relay_scratch *scratch, size_t size, uint64_t budget)
{
	struct relay_outcome out = { 0 };
	uint64_t taken = 0;

	if (r->held && !write_held(r, sink, &out))
		return out;
	while (taken < budget) {
		ssize_t n = r->pipe ? read_pages(source, r->pipe, size) : 0, sent;
		bool piped = n > 0;
		int error = 0;
		size_t rest;

		__atomic_store_n(&scratch->moved, out.moved, __ATOMIC_RELEASE);
		if (n == 0)
			n = read_bytes(source, scratch->bytes, size);
		if (n == -EAGAIN) {
			out.status = RELAY_IDLE;
			return out;
		}
		if (n <= 0) {
			out.status = n == 0 ? RELAY_EOF : RELAY_SOURCE_ERROR;
			out.error = (int)n;
			return out;
		}
		taken += (uint64_t)n;
		out.last = (size_t)n;
		if (r->taken)
			__atomic_store_n(r->taken, *r->taken + (uint64_t)n, __ATOMIC_RELEASE);
		sent = piped ? (ssize_t)write_pages(sink, r->pipe, (size_t)n, &error) : write_some(sink, scratch->bytes, (size_t)n);
		if (sent < 0) {
			error = (int)sent;
			sent = 0;
		}
		rest = (size_t)(n - sent);
		out.moved += (uint64_t)sent;
		if (piped && rest && !copy_from_pipe(scratch, r->pipe, 0, rest) && !error) {
			out.status = RELAY_NO_MEMORY;
			return out;
		}
		if (error) {
			out.status = RELAY_SINK_ERROR;
			out.error = error;
			return out;
		}
		if (rest) {
			out.status = keep(r, piped ? scratch->bytes : scratch->bytes + sent, rest) < 0 ? RELAY_NO_MEMORY : RELAY_BLOCKED;
			return out;
		}
		/* A short read has emptied the source; a turn of the loop is cheaper than asking again. */
		if ((size_t)n < size && taken < budget) {
			out.status = RELAY_IDLE;
			return out;
		}
	}
	out.status = RELAY_MORE;
	return out;
}

int relay_read_on(struct relay *r, int source, struct relay_scratch *scratch, size_t n)
{
	size_t held = relay_held(r);
	char *room = r->area;
	ssize_t got;

	if (held + n > RELAY_AREA)
		return -ENOSPC;
	if (!room)
		room = malloc(held + n);
	if (!room)
		return -ENOMEM;
	/* Who comes after finds them all in one place: there, or in the area. */
	if (held)
		memcpy(scratch->bytes, r->held + r->offset, held);
	if (r->area)
		__atomic_store_n(r->saved, 0, __ATOMIC_RELEASE);
	do
		got = recv(source, scratch->bytes + held, n, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		got = -errno;
	if (got > 0 && r->taken)
		__atomic_store_n(r->taken, *r->taken + (uint64_t)got, __ATOMIC_RELEASE);
	n = held + (size_t)MAX(got, 0);
	if (n)
		memcpy(room, scratch->bytes, n);
	if (r->held != room)
		free(r->held);
	r->held = room;
	r->offset = 0;
	r->length = (uint32_t)n;
	if (r->area)
		__atomic_store_n(r->saved, r->length, __ATOMIC_RELEASE);
	if (!n)
		relay_done(r);
	return (int)got;
}

struct relay_outcome relay_offer(int source, int sink, char *scratch, size_t n)
{
	struct relay_outcome out = { .status = RELAY_IDLE };
	ssize_t got, sent;

	do
		got = recv(source, scratch, n, MSG_DONTWAIT | MSG_PEEK);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return out;
	if (got <= 0) {
		out.status = got == 0 ? RELAY_EOF : RELAY_SOURCE_ERROR;
		out.error = got == 0 ? 0 : -errno;
		return out;
	}
	sent = write_some(sink, scratch, (size_t)got);
	if (sent < 0) {
		out.status = RELAY_SINK_ERROR;
		out.error = (int)sent;
		return out;
	}
	out.moved = (uint64_t)sent;
	if (sent < got)
		out.status = RELAY_BLOCKED;
	return out;
}

int relay_take(int source, char *scratch, size_t size, uint64_t *n)
{
	while (*n) {
		ssize_t got = recv(source, scratch, MIN(size, *n), MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		*n -= (uint64_t)got;
	}
	return 0;
}
