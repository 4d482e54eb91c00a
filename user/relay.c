/* SPDX-License-Identifier: GPL-2.0-or-later */
/* relay.c - see relay.h. */
#include "relay.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "util.h"

void relay_done(struct relay *r)
{
	if (r->area && *r->saved) {
		/* First nobody must find it, then it may go. */
		__atomic_store_n(r->saved, 0, __ATOMIC_RELEASE);
		madvise(r->area, RELAY_AREA, MADV_REMOVE);
	} else if (!r->area) {
		free(r->held);
	}
	*r = (struct relay){ .area = r->area, .saved = r->saved, .taken = r->taken };
}

/* Returns the number of bytes taken (0 = the sink is full) or -errno. */
static ssize_t write_some(int sink, const char *data, size_t len)
{
	ssize_t n;

	do
		n = send(sink, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	/* It is full, or the kernel has no memory now (which TCP may call EAGAIN too). */
	return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : -errno;
}

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

struct relay_outcome relay_run(struct relay *r, int source, int sink, struct relay_scratch *scratch, size_t size, uint64_t budget)
{
	struct relay_outcome out = { 0 };
	uint64_t taken = 0;
	ssize_t n, sent;

	if (r->held) {
		sent = write_some(sink, r->held + r->offset, relay_held(r));
		if (sent < 0) {
			out.status = RELAY_SINK_ERROR;
			out.error = (int)sent;
			return out;
		}
		out.moved += (uint64_t)sent;
		r->offset += (uint32_t)sent;
		if (relay_held(r)) {
			out.status = RELAY_BLOCKED;
			return out;
		}
		relay_done(r);
	}
	while (taken < budget) {
		__atomic_store_n(&scratch->moved, out.moved, __ATOMIC_RELEASE);
		n = recv(source, scratch->bytes, size, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			out.status = RELAY_IDLE;
			return out;
		}
		if (n <= 0) {
			out.status = n == 0 ? RELAY_EOF : RELAY_SOURCE_ERROR;
			out.error = n == 0 ? 0 : -errno;
			return out;
		}
		taken += (uint64_t)n;
		out.full = (size_t)n == size;
		if (r->taken)
			__atomic_store_n(r->taken, *r->taken + (uint64_t)n, __ATOMIC_RELEASE);
		sent = write_some(sink, scratch->bytes, (size_t)n);
		if (sent < 0) {
			out.status = RELAY_SINK_ERROR;
			out.error = (int)sent;
			return out;
		}
		out.moved += (uint64_t)sent;
		if (sent < n) {
			out.status = keep(r, scratch->bytes + sent, (size_t)(n - sent)) < 0 ? RELAY_NO_MEMORY : RELAY_BLOCKED;
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
