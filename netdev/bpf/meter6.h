/* Metering of IPv6: meter.h's rules with longer addresses; the labels' counters are the same. */
#ifndef PILVI_METER6_H
#define PILVI_METER6_H

#include "filter6.h"
#include "meter.h"

struct count6 {
	__u64 router;
	__u64 settled; /* the label whose rules need not be looked at any more */
	__u64 packets;
	__u64 bytes;
	__u32 direction;
	struct ip6 saddr;
	struct ip6 daddr;
	__u32 pad;
};

/* 1: more rules follow */
__attribute__((noinline)) int meter_some6(struct count6 *c, __u32 index)
{
	struct meter_key key = {};
	struct meter_chunk6 *chunk;
	struct meter_rule6 *r;
	struct meter *m;
	__u64 label;
	int i;

	if (!c)
		return 0;
	key.router = c->router;
	key.direction = c->direction;
	key.index = index;
	chunk = bpf_map_lookup_elem(&meter_rules6, &key);
	if (!chunk)
		return 0;
	for (i = 0; i < METER_RULES; i++) {
		if (i >= chunk->used)
			break;
		r = &chunk->rule[i];
		if (r->label == c->settled)
			continue;
		if (!within6(&c->saddr, &r->source, &r->source_mask) || !within6(&c->daddr, &r->destination, &r->destination_mask))
			continue;
		label = r->label;
		c->settled = label;
		if (r->flags & METER_EXCLUDED)
			continue;
		m = bpf_map_lookup_elem(&meters, &label);
		if (!m)
			continue;
		__sync_fetch_and_add(&m->packets, c->packets);
		__sync_fetch_and_add(&m->bytes, c->bytes);
	}
	return !!chunk->more;
}

__attribute__((noinline)) int meter_packet6(struct __sk_buff *skb, const struct packet6 *q, __u64 router, __u32 direction)
{
	struct count6 c = {};
	int i;

	if (!q)
		return 0;
	c.router = router;
	c.direction = direction;
	c.saddr = q->saddr;
	c.daddr = q->daddr;
	c.packets = skb->gso_segs ? skb->gso_segs : 1;
	c.bytes = q->p.length;
	for (i = 0; i < METER_CHUNKS; i++)
		if (!meter_some6(&c, i))
			break;
	return 0;
}

#endif
