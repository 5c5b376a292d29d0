/* Limits of bandwidth and of packets, and marks.
 *
 * A limit is a virtual clock: each packet moves it on by what the packet costs, and who is more than the burst ahead of
 * the real one is dropped. Nothing is queued, so no queue of one port or address can hold up another's, and a limit on
 * an address works where no device is its own. Two processors that meet at one clock may let one packet too many past.
 */
#ifndef PILVI_QUALITY_H
#define PILVI_QUALITY_H

#include "frame.h"

#define CLOCK_TRIES 4

/* Whether `cost` more is within `burst`. */
static __always_inline int afford(__u64 *until, __u64 now, __u64 cost, __u64 burst)
{
	__u64 old, from;
	int i;

	for (i = 0; i < CLOCK_TRIES; i++) {
		old = *(volatile __u64 *)until;
		from = old > now ? old : now;
		if (from - now > burst)
			return 0;
		if (__sync_val_compare_and_swap(until, old, from + cost) == old)
			return 1;
	}
	return 1;
}

/* 1: more than is allowed. */
__attribute__((noinline)) int police(struct __sk_buff *skb, __u32 kind, __u32 id, __u32 direction)
{
	struct limit_key key = {.kind = kind, .id = id, .direction = direction};
	struct limit *l = bpf_map_lookup_elem(&limits, &key);
	struct bucket *b;
	__u64 now, packets;

	if (!l)
		return 0;
	b = bpf_map_lookup_elem(&buckets, &key);
	if (!b)
		return 0;
	now = bpf_ktime_get_ns();
	packets = skb->gso_segs ? skb->gso_segs : 1;
	if (l->packet_cost && !afford(&b->packets_until, now, packets * l->packet_cost, l->packet_burst))
		return 1;
	if (l->byte_cost && !afford(&b->bytes_until, now, ((__u64)skb->len * l->byte_cost) >> 20, l->byte_burst))
		return 1;
	return 0;
}

/* Sets the six bits of the differentiated services; what tells of congestion stays. */
static __always_inline int set_tos(struct __sk_buff *skb, __u16 tos)
{
	__u8 old[2], new[2];
	__u16 from, to;

	if (bpf_skb_load_bytes(skb, ETH_LEN, old, 2))
		return -1;
	new[0] = old[0];
	new[1] = (tos & 0xfc) | (old[1] & 3);
	__builtin_memcpy(&from, old, 2);
	__builtin_memcpy(&to, new, 2);
	if (from == to)
		return 0;
	if (bpf_l3_csum_replace(skb, ETH_LEN + 10, from, to, 2))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN, new, 2, 0);
}

/* The same bits of an IPv6 header, where no checksum is over them. */
static __always_inline int set_class(struct __sk_buff *skb, __u16 tos)
{
	__u8 head[2];

	if (bpf_skb_load_bytes(skb, ETH_LEN, head, 2))
		return -1;
	head[0] = (head[0] & 0xf0) | (tos & 0xff) >> 4;
	head[1] = (head[1] & 0x3f) | (tos & 0x0c) << 4;
	return bpf_skb_store_bytes(skb, ETH_LEN, head, 2, 0);
}

#endif
