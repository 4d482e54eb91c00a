// SPDX-License-Identifier: GPL-2.0
/*
 * shunt.bpf.c - the verdict program: one decision per received segment, and the maps that it lives on.
 *
 * It runs under the lock of the socket that received the segment (in softirq, or in process context when that socket was
 * busy), so each flow has one writer here. The contract with userspace is in shunt_abi.h; why each verdict is what it is stands in
 * docs/ARCHITECTURE.md. In short: a redirect acknowledges the bytes to their sender at once and queues them without any bound,
 * so the program itself keeps the bound, and SK_PASS, which leaves the bytes charged to the receiving socket, is its brake.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

#include "shunt_abi.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

char _license[] SEC("license") = "GPL";

/* Socket index (2s client, 2s+1 server) -> socket. 8-byte values, so that a dump shows socket cookies. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

/* Socket cookie -> socket index. A cookie is never used twice, so a late segment cannot be taken for another user's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u64);
	__type(value, __u32);
} slots SEC(".maps");

/* Socket index -> the direction that is read from it. Userspace maps it into its memory. Sized at load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SHUNT_EVENTS_SIZE);
};

/*
 * Thread -> its ring of struct flow_event: "this direction needs userspace now". When a ring is full, a direction does not
 * change its mover. Sized and filled at load.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} events SEC(".maps");

/* enum flow_exit -> how often the program left that way. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FLOW_EXIT_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Softirq may interrupt a worker inside the program on the same CPU: hence the atomic add to a per-CPU value. */
static __always_inline int leave(int verdict, __u32 by)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &by);

	if (counter)
		__sync_fetch_and_add(counter, 1);
	return verdict;
}

/* What the peer can take. */
struct peer {
	__s64 queued; /* bytes on their way to it that its TCP has not sent yet; -1 if there is no peer */
	__u64 room;   /* memory that its send queue has for more, those on their way taken off */
	__u32 piece;  /* the most bytes that one buffer of that queue may hold; not 0 */
};

#define PIECE_COSTS 1024 /* bytes of memory, besides what it holds */

/* What so many bytes weigh in a send queue. */
static __always_inline __u64 weight(const struct peer *peer, __u64 bytes)
{
	return bytes + bytes / peer->piece * PIECE_COSTS;
}

/*
 * Without the peer's lock, while it is acknowledged, and sent from. In this order of reading an acknowledgment in between makes
 * `queued` too large, not too small (kernel: tcp_snd_una_update() writes bytes_acked before snd_una).
 */
static __always_inline struct peer look_at_peer(const struct flow *f, __u32 index)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &index);
	struct peer peer = { .queued = -1, .piece = 1 };
	struct tcp_sock *tp;

	if (!sk)
		return peer;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp) {
		volatile const struct tcp_sock *v = tp;
		volatile const struct sock *vsk = &tp->inet_conn.icsk_inet.sk;
		__u64 acked = v->bytes_acked;
		__u32 next = v->snd_nxt, unacked = v->snd_una;
		__s32 unsent = v->write_seq - next;
		__s64 queued = f->extra + f->redirected + f->moved - (acked + (__s32)(next - unacked));
		__s64 room;

		/* A peer with a tiny window has tiny pieces (kernel: tcp_bound_to_half_wnd()). */
		peer.piece = MIN(v->mss_cache, v->max_window >> 1);
		peer.piece = MAX(peer.piece, 1);
		queued = MAX(queued, 0);
		/* Of what is on its way, `unsent` is in its send queue already. */
		room = (__s64)vsk->sk_sndbuf - vsk->sk_wmem_queued - (__s64)weight(&peer, MAX(queued - unsent, 0));
		peer.room = MAX(room, 0);
		peer.queued = queued;
	}
	bpf_sk_release(sk);
	return peer;
}

/*
 * A change of the mover and its event are one: without room in the ring there is no change. The flow must say the new state before
 * the event is submitted, since userspace may look at it on another CPU at that very moment.
 */
static __always_inline struct flow_event *begin_change(const struct flow *f, __u32 index, __u32 reason, __u64 cookie)
{
	__u32 thread = f->thread;
	void *ring = bpf_map_lookup_elem(&events, &thread);
	struct flow_event *e = ring ? bpf_ringbuf_reserve(ring, sizeof(*e), 0) : NULL;

	if (e) {
		e->index = index;
		e->reason = reason;
		e->cookie = cookie;
	}
	return e;
}

/* An event without a change. */
static __always_inline void notify(const struct flow *f, __u32 index, __u32 reason, __u64 cookie)
{
	struct flow_event *e = begin_change(f, index, reason, cookie);

	if (e)
		bpf_ringbuf_submit(e, 0);
}

/*
 * So many bytes of events wait that nobody may be awake to read what would be passed. Then the rest of the ring is for what must be
 * told: changes of the mover.
 */
static __always_inline bool is_asleep(const struct flow *f)
{
	__u32 thread = f->thread;
	void *ring = bpf_map_lookup_elem(&events, &thread);

	return !ring || bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > SHUNT_EVENTS_ASLEEP;
}

static __always_inline void set_mode(struct flow *f, __u32 mode, __u32 reason)
{
	f->mode = mode;
	f->reason = reason;
	barrier();
}

#define ROOM_LEFT (64 * 1024) /* for what a few small segments weigh more than their bytes */
#ifndef LOOK_EVERY
#define LOOK_EVERY 32 /* segments: small ones may fill a send queue long before they reach a limit in bytes */
#endif

/*
 * May a segment of that size be redirected? A peer with nothing to send takes one, whatever the limit: else a limit below the size of
 * a segment would keep a direction in userspace for ever. But none may be more than its send queue takes: what it refuses would
 * stand before all that is passed of the other direction, which then is charged to nobody and closes no window.
 */
static __always_inline bool fits(const struct peer *peer, __u32 len, __u64 limit)
{
	return (__u64)peer->queued + len <= (peer->queued ? limit : MAX(limit, SHUNT_SEGMENT_MAX)) &&
	       peer->room >= weight(peer, len) + ROOM_LEFT;
}

/* The next look: before what fits now is used up. */
static __always_inline void set_check(struct flow *f, const struct peer *peer)
{
	__u64 limit = f->limit, left = (__u64)peer->queued < limit ? limit - peer->queued : 0;

	f->check_at = f->redirected + MIN(left, peer->room / 2 / (PIECE_COSTS + peer->piece) * peer->piece);
}

/* The most that sk_skb_adjust_room() cuts at once, and how often: together more than the largest segment (BIG TCP, 512 KB). */
#define TRIM_STEP 4095
#define TRIM_STEPS 130

/*
 * Returns how many bytes of the segment are new, after cutting off those in front that are not; 0 if only its FIN is; -1 if that
 * is impossible.
 */
static __always_inline __s64 trim(struct __sk_buff *skb, struct flow *f)
{
	__u32 seq = skb->cb[0], overlap;

	if (!f->started) {
		struct bpf_sock *sk = skb->sk;
		struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

		if (!tp)
			return -1;
		f->next_seq = tp->copied_seq;
		f->started = 1;
	}
	/*
	 * A retransmission may begin before what we have and end behind it. TCP queues it as it is, since recvmsg() knows where it was;
	 * tcp_read_skb(), through which segments come here, does not, and would hand us the old bytes once more.
	 */
	overlap = f->next_seq - seq;
	if (overlap) {
		if (overlap > skb->len) /* a gap, when taken as a signed number */
			return -1;
		leave(0, FLOW_COUNT_TRIMMED);
		for (int i = 0; i < TRIM_STEPS && overlap; i++) {
			__u32 step = overlap < TRIM_STEP ? overlap : TRIM_STEP;

			if (bpf_skb_adjust_room(skb, -(__s32)step, 0, 0))
				return -1;
			overlap -= step;
		}
		if (overlap)
			return -1;
	}
	f->next_seq += skb->len;
	return skb->len;
}

/*
 * Will the sender see a closed window, though everything is redirected? Segments that arrive while a process holds the socket's
 * lock wait in its backlog, and until the last of them is worked off all of them count as if they still filled the receive
 * buffer (kernel: __release_sock(), tcp_space()). A reader would open the window again; a redirecting socket has none.
 */
static __always_inline bool closes_window(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;

	if (!tp)
		return false;
	return tp->inet_conn.icsk_inet.sk.sk_backlog.len > tp->inet_conn.icsk_inet.sk.sk_rcvbuf >> 1 &&
	       (__s32)(tp->rcv_wup + tp->rcv_wnd - tp->rcv_nxt) < (__s32)tp->advmss;
}

/* Room for a segment that is passed. */
enum room {
	ROOM,
	CROWDED, /* none in the buffer that it is passed to (kernel: tcp_can_ingest()). It is taken all the same, but TCP closes the window that had been open,
		    and refuses what else was sent into it */
	OVERFLOW, /* SHUNT_PASSED_MAX */
};

static __always_inline enum room look_for_room(struct __sk_buff *skb, const struct flow *f, __u64 moved)
{
	struct bpf_sock *sk = skb->sk;
	struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	__u64 charged;

	if (!tp)
		return ROOM;
	charged = tp->inet_conn.icsk_inet.sk.sk_backlog.rmem_alloc.counter;
	if (f->passed - moved > charged + SHUNT_PASSED_MAX)
		return OVERFLOW;
	return charged + skb->len > (__u64)tp->inet_conn.icsk_inet.sk.sk_rcvbuf ? CROWDED : ROOM;
}

/* Passes a segment of a direction that is userspace's. Returns the verdict. */
static __always_inline int pass(struct __sk_buff *skb, struct flow *f, __u32 len, __u32 index, __u64 cookie)
{
	volatile struct flow *shared = f;
	enum room room = look_for_room(skb, f, shared->moved);
	struct flow_event *event = NULL;

	if (room == OVERFLOW)
		event = begin_change(f, index, FLOW_REASON_OVERFLOW, cookie);
	else if (room == CROWDED && f->crowded == (__u16)shared->relieved)
		event = begin_change(f, index, FLOW_REASON_CROWDED, cookie);
	if (event && room == OVERFLOW) {
		set_mode(f, FLOW_USER, FLOW_REASON_OVERFLOW);
		bpf_ringbuf_submit(event, 0);
		return leave(SK_DROP, FLOW_EXIT_BROKEN);
	}
	f->passed += len;
	if (event) {
		f->crowded++;
		barrier();
		bpf_ringbuf_submit(event, 0);
	}
	return leave(SK_PASS, FLOW_EXIT_USER);
}

SEC("sk_skb")
int shunt_verdict(struct __sk_buff *skb)
{
	__u32 len, index, reason = FLOW_REASON_NONE, way = FLOW_EXIT_KERNEL;
	volatile struct flow *shared;
	struct flow_event *event;
	struct flow *f;
	__u32 *slot;
	__u64 cookie;
	struct peer peer;
	__s64 fresh;

	/* A bare FIN. Redirected it would break the peer's sending side (EPIPE), passed it crashes old kernels. */
	if (!skb->len)
		return leave(SK_DROP, FLOW_EXIT_FIN);

	cookie = bpf_get_socket_cookie(skb);
	slot = bpf_map_lookup_elem(&slots, &cookie);
	if (!slot)
		return leave(SK_PASS, FLOW_EXIT_NO_SLOT);
	index = *slot;
	f = bpf_map_lookup_elem(&flows, &index);
	if (!f)
		return leave(SK_PASS, FLOW_EXIT_NO_SLOT);
	shared = f; /* for what userspace may change under our feet */

	fresh = trim(skb, f);
	if (fresh < 0) {
		notify(f, index, FLOW_REASON_BROKEN, cookie);
		return leave(SK_DROP, FLOW_EXIT_BROKEN);
	}
	if (!fresh)
		return leave(SK_DROP, FLOW_EXIT_FIN);
	len = fresh;

	if (f->reason == FLOW_REASON_OVERFLOW)
		return leave(SK_DROP, FLOW_EXIT_BROKEN);
	if (!shared->ready) {
		f->mode = FLOW_USER;
		f->passed += len;
		return leave(SK_PASS, FLOW_EXIT_NOT_READY);
	}

	if (f->mode == FLOW_USER) {
		/* Home again? Only when userspace has written all that came before this segment. */
		peer.queued = -1;
		event = NULL;
		if (shared->want_kernel && f->passed == shared->moved)
			peer = look_at_peer(f, index ^ 1);
		if (peer.queued >= 0 && fits(&peer, len, f->limit - f->limit / 4))
			event = begin_change(f, index, FLOW_REASON_RESUMED, cookie);
		if (!event)
			return pass(skb, f, len, index, cookie);
		f->resumes++;
		set_check(f, &peer);
		set_mode(f, FLOW_KERNEL, FLOW_REASON_RESUMED);
		bpf_ringbuf_submit(event, 0);
		way = FLOW_EXIT_RESUMED;
	} else if (!shared->want_kernel) {
		reason = FLOW_REASON_WITHDRAWN;
	} else if (f->redirected + len > f->check_at || !(f->segments % LOOK_EVERY)) {
		peer = look_at_peer(f, index ^ 1);
		if (peer.queued < 0) {
			reason = FLOW_REASON_NO_PEER;
		} else {
			if ((__u64)peer.queued + len > f->peak)
				f->peak = (__u64)peer.queued + len;
			if (!fits(&peer, len, f->limit))
				reason = FLOW_REASON_LIMIT;
			else
				set_check(f, &peer);
		}
	}

	/*
	 * Whoever has bytes to read is told; else a pause gives it some. A daemon that is stopped would not read: then the sender's
	 * probe must do.
	 */
	if (reason == FLOW_REASON_NONE && closes_window(skb) && !is_asleep(f)) {
		leave(0, FLOW_COUNT_WINDOW);
		if (!shared->unread)
			reason = FLOW_REASON_WINDOW;
		else
			notify(f, index, FLOW_REASON_WINDOW, cookie);
	}
	if (reason != FLOW_REASON_NONE) {
		event = begin_change(f, index, reason, cookie);
		if (event) {
			f->pauses++;
			f->passed += len;
			set_mode(f, FLOW_USER, reason);
			bpf_ringbuf_submit(event, 0);
			return leave(SK_PASS, FLOW_EXIT_PAUSED);
		}
		way = FLOW_EXIT_EVENT_LOST; /* nobody would come and read: better a little above the limit */
	}

	f->redirected += len;
	f->segments++;
	if (f->sample && !(f->segments % f->sample) && !is_asleep(f))
		notify(f, index, FLOW_REASON_SAMPLE, cookie);
	if (bpf_sk_redirect_map(skb, &sockets, index ^ 1, 0) == SK_PASS)
		return leave(SK_PASS, way);
	return leave(SK_DROP, FLOW_EXIT_REDIRECT_LOST);
}
