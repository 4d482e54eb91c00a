/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pattern.c - see load.h: streams that can be checked at every byte.
 *
 * A stream is a row of 64-bit words: word i = (key + i) * an odd number. So every word of a stream
 * is another one, neighbours differ in all bytes, and the next one costs one addition. Each stream
 * has a random key: bytes of another session are wrong bytes.
 */
#include "load.h"

#include <string.h>

#define STEP 0x9e3779b97f4a7c15ULL
#define WORD sizeof(uint64_t)

void pattern_fill(uint64_t key, uint64_t pos, void *buf, size_t len)
{
	uint64_t word = (key + pos / WORD) * STEP;
	unsigned int skip = pos % WORD;
	char *out = buf;
	size_t n;

	while (skip && len) {
		n = WORD - skip < len ? WORD - skip : len;
		memcpy(out, (char *)&word + skip, n);
		word += STEP;
		out += n;
		len -= n;
		skip = 0;
	}
	for (; len >= WORD; len -= WORD, out += WORD, word += STEP)
		memcpy(out, &word, WORD);
	memcpy(out, &word, len);
}

/* Byte by byte: for the ends, and to say which one it was. */
static uint64_t check_bytes(uint64_t key, uint64_t pos, const unsigned char *in, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t word = (key + (pos + i) / WORD) * STEP;

		if (in[i] != ((unsigned char *)&word)[(pos + i) % WORD])
			return pos + i;
	}
	return UINT64_MAX;
}

uint64_t pattern_check(uint64_t key, uint64_t pos, const void *buf, size_t len)
{
	size_t head = (WORD - pos % WORD) % WORD;
	const unsigned char *in = buf;
	uint64_t at, word;

	head = head < len ? head : len;
	at = check_bytes(key, pos, in, head);
	if (at != UINT64_MAX)
		return at;
	word = (key + (pos + head) / WORD) * STEP;
	for (size_t i = head; i + WORD <= len; i += WORD, word += STEP) {
		uint64_t got;

		memcpy(&got, in + i, WORD);
		if (got != word)
			return check_bytes(key, pos + i, in + i, WORD);
	}
	head += (len - head) / WORD * WORD;
	return check_bytes(key, pos + head, in + head, len - head);
}

/* ---- faults ---- */

const char *fault_name(enum fault f)
{
	switch (f) {
	case FAULT_NONE:
		return "none";
	case FAULT_CORRUPT:
		return "corrupt";
	case FAULT_LOST:
		return "lost";
	case FAULT_REPEATED:
		return "repeated";
	case FAULT_SWAPPED:
		return "swapped";
	case FAULT_CUT:
		return "cut";
	case FAULT_LONGER:
		return "longer";
	case FAULT_MAX:
		break;
	}
	return "?";
}

uint64_t stream_length(const struct stream *s)
{
	if (s->fault == FAULT_CUT)
		return s->total - 1;
	return s->fault == FAULT_LONGER ? s->total + 1 : s->total;
}

/* Lost and repeated bytes leave the length as it is: the hardest case for who checks. */
void stream_read(const struct stream *s, uint64_t pos, void *buf, size_t len)
{
	unsigned char *out = buf;
	uint64_t at = s->fault_at;
	int64_t shift = 0;
	size_t before;

	if (s->fault == FAULT_LOST)
		shift = 1;
	else if (s->fault == FAULT_REPEATED)
		shift = -(int64_t)WORD;
	if (!shift || pos + len <= at) {
		pattern_fill(s->key, pos, out, len);
	} else {
		before = at > pos ? at - pos : 0;
		pattern_fill(s->key, pos, out, before);
		pattern_fill(s->key, pos + before + (uint64_t)shift, out + before, len - before);
	}
	if (s->fault == FAULT_CORRUPT && at >= pos && at < pos + len)
		out[at - pos] ^= 1;
	if (s->fault == FAULT_SWAPPED && at >= pos && at < pos + len)
		pattern_fill(s->key, at + 1, out + (at - pos), 1);
	if (s->fault == FAULT_SWAPPED && at + 1 >= pos && at + 1 < pos + len)
		pattern_fill(s->key, at, out + (at + 1 - pos), 1);
}
