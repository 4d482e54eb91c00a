/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * relay.h - userspace as the mover of one direction: read from one socket, write to the other, keep what did not fit.
 *
 * I/O without policy: it knows neither sessions nor end of life. Memory is held only while bytes are: reading goes through a
 * buffer that all directions of a thread share, or a pipe, and what the sink does not take is copied aside.
 *
 * What is held and the buffer may lie in shared memory, and the pipe outlive the process. Then bytes that were read and not written are never lost
 * with it, wherever it dies: they are the last ones of what is held, or of what lies in the buffer, or all that is in the pipe. How many they are is
 * for the kernel's counters to say.
 */
#ifndef SHUNT_RELAY_H
#define SHUNT_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One direction's leftover. All zero is empty. */
struct relay {
	char *held; /* read, not yet written; NULL when there is nothing. Owned, unless it is area */
	uint32_t offset, length;
	char *area; /* borrowed: where to keep it, page by page, RELAY_AREA bytes; NULL = memory of its own */
	uint32_t *saved; /* borrowed: length, for who comes after; goes with area */
	uint64_t *taken; /* borrowed: bytes read so far, for who comes after; NULL = nobody does */
	const struct relay_pipe *pipe; /* borrowed: see there; NULL = bytes are copied. Neither socket may be in a sockmap */
};

/*
 * A pipe through which pages change hands, from socket to socket, without being copied (splice(2)); shared by the directions of a thread, and empty whenever
 * none of them is being moved. Non-blocking, as the sockets must be then; and SIGPIPE must be ignored: splice(2) has no MSG_NOSIGNAL.
 */
struct relay_pipe {
	int in, out; /* the ends written to and read from; -1 = none */
};

#define RELAY_AREA (1024u * 1024) /* no read may bring more */
#define RELAY_LOST UINT64_MAX	  /* as many bytes as nobody has read */

/* The buffer that directions share, and whose bytes lie in it. */
struct relay_scratch {
	uint64_t owner;	/* set by the caller; 0 = nobody */
	uint64_t base;	/* set by the caller: the owner's bytes that had been written before relay_run() */
	uint64_t moved; /* and that relay_run() had written before it read into bytes */
	uint64_t piped; /* if not 0: bytes holds nothing but these, which are (or were) the whole content of the pipe; RELAY_LOST: for
			   which there was no memory */
	char bytes[] __attribute__((aligned(64))); /* else the copies are some percent slower */
};

enum relay_status {
	RELAY_IDLE,	    /* the source has nothing more for now */
	RELAY_BLOCKED,	    /* the sink takes nothing more for now: it is full, or the kernel has no memory */
	RELAY_MORE,	    /* the budget is used up; there may be more */
	RELAY_EOF,	    /* the source has ended and everything was written */
	RELAY_SOURCE_ERROR, /* reading failed: error says why; everything that was read was written */
	RELAY_SINK_ERROR,   /* writing failed: error says why */
	RELAY_NO_MEMORY,    /* a leftover could not be kept: its bytes are lost, the session must be reset */
};

struct relay_outcome {
	enum relay_status status;
	int error;	/* -errno of the two errors */
	uint64_t moved; /* bytes written to the sink by this call */
	size_t last;	/* bytes of the last read */
};

/* Opens a pipe of 1 MB. Returns 0 or -errno (-EPERM: the system does not allow as much, fs.pipe-max-size or fs.pipe-user-pages-soft); then both ends are -1. */
int relay_pipe_open(struct relay_pipe *ret);
void relay_pipe_close(struct relay_pipe *p);

/*
 * Moves bytes until one of the above. scratch is the shared buffer. At most budget bytes (and what one read brings) are read;
 * 0 means only write what is held.
 */
struct relay_outcome relay_run(struct relay *r, int source, int sink, struct relay_scratch *scratch, size_t size, uint64_t budget);

/*
 * For who comes after: the n bytes that were read and not written, n > 0, are the last of what is saved in r's area, or else of the len bytes that
 * were read into bytes (NULL: none). They are held afterwards. Returns false if neither has as many.
 */
bool relay_restore(struct relay *r, uint64_t n, const char *bytes, uint64_t len);

/*
 * For who comes after, before anything else is moved: what was left in the pipe is in the scratch buffer afterwards, and scratch->piped says how much
 * (RELAY_LOST: there was no memory for it); also if this process dies over it, and another one does it again.
 */
void relay_empty_pipe(struct relay_scratch *scratch, const struct relay_pipe *p);

/*
 * Reads up to n more bytes behind those that are held, of a sink that is full. The scratch buffer, of RELAY_AREA bytes at least, must be the caller's, as
 * for relay_run(). Returns how many were read, 0 also at the end of the stream; -ENOSPC: more than RELAY_AREA would be held; -ENOMEM; or what recv() said
 * (-EAGAIN: nothing can be read at this moment).
 */
int relay_read_on(struct relay *r, int source, struct relay_scratch *scratch, size_t n);

/*
 * Offers the next n bytes of the source to the sink without taking them: the source's window stays as it is. n is at most the
 * size of scratch. RELAY_IDLE: all n bytes were written; or those that are there, if they are fewer. RELAY_BLOCKED: the sink took only a part. What out.moved
 * says was written must be taken with relay_take() before anything else is read.
 */
struct relay_outcome relay_offer(int source, int sink, char *scratch, size_t n);

/*
 * Takes *n bytes that were offered and written, and counts *n down. Returns 0; -EAGAIN: the rest cannot be read at this moment; or
 * another -errno (-EIO: they were not there any more).
 */
int relay_take(int source, char *scratch, size_t size, uint64_t *n);

static inline uint32_t relay_held(const struct relay *r)
{
	return r->length - r->offset;
}

void relay_done(struct relay *r);

#endif
