/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vmlinux.h - the kernel types that the BPF program uses, trimmed by hand (see README.md here).
 *
 * Everything under preserve_access_index is relocated at load time against the running kernel's BTF, so only the names
 * and the types of the fields matter, not their offsets. The other types are user ABI and never change.
 */
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

typedef signed char __s8;
typedef unsigned char __u8;
typedef short int __s16;
typedef short unsigned int __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long int __s64;
typedef long long unsigned int __u64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u32 __wsum;
typedef _Bool bool;

enum { false = 0, true = 1 };

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_SOCKMAP = 15,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_F_MMAPABLE = 1024,
	BPF_RB_AVAIL_DATA = 0,
};

enum sk_action {
	SK_DROP = 0,
	SK_PASS = 1,
};

/* The context of an sk_skb program (include/uapi/linux/bpf.h); the verifier rewrites accesses to it. */
struct bpf_sock;

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5]; /* of a TCP segment: struct tcp_skb_cb, which begins with seq and end_seq */
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	union {
		struct bpf_flow_keys *flow_keys;
		__u64 : 64;
	} __attribute__((aligned(8)));
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct sock {
	struct {
		atomic_t rmem_alloc; /* memory of what was received and not read */
		int len;	     /* and of the segments that wait for the process that holds the lock */
	} sk_backlog;
	int sk_rcvbuf;
	int sk_wmem_queued; /* memory of what is in the send queue, acknowledged bytes taken off */
	int sk_sndbuf;	    /* as much as that may be */
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	u32 copied_seq;	 /* first byte that nobody has taken out of the receive queue */
	u32 rcv_nxt;	 /* next sequence number that is expected */
	u32 rcv_wup;	 /* rcv_nxt when the window was last told, */
	u32 rcv_wnd;	 /* and that window */
	u16 advmss;	 /* the most that the peer puts into a segment */
	u32 mss_cache;	 /* bytes of a segment to the peer */
	u32 max_window;	 /* the largest that the peer has ever told */
	u32 snd_nxt;	 /* next sequence number to be sent */
	u32 snd_una;	 /* first byte that is not acknowledged */
	u32 write_seq;	 /* end of what is in the send queue */
	u64 bytes_acked; /* sum of all bytes acknowledged, SYN and FIN included */
};

#pragma clang attribute pop

#endif
