/* Metering: what a router carries to and from the outside, counted by label.
 *
 *   meter_rules {router, direction, n} -> up to 16 rules: label, source, destination
 *   meters      label -> packets, bytes
 *
 * A packet counts once for each label whose first rule that fits does not exclude it. It is counted where it is
 * translated, with its inside address: on the host of a floating address, or on the one that holds the gateway,
 * so no packet is counted on two hosts.
 */
#ifndef PILVI_METER_H
#define PILVI_METER_H

#include "frame.h"

struct count {
	__u64 router;
	__u64 settled; /* the label whose rules need not be looked at any more */
	__u64 packets;
	__u64 bytes;
	__u32 direction;
	__u32 saddr;
	__u32 daddr;
	__u32 pad;
};

/* 1: more rules follow */
__attribute__((noinline)) int meter_some(struct count *c, __u32 index)
{
	struct meter_key key = {};
	struct meter_chunk *chunk;
	struct meter_rule *r;
	struct meter *m;
	__u64 label;
	int i;

	if (!c)
		return 0;
	key.router = c->router;
	key.direction = c->direction;
	key.index = index;
	chunk = bpf_map_lookup_elem(&meter_rules, &key);
	if (!chunk)
		return 0;
	for (i = 0; i < METER_RULES; i++) {
		if (i >= chunk->used)
			break;
		r = &chunk->rule[i];
		if (r->label == c->settled)
			continue;
		if ((c->saddr & r->source_mask) != r->source || (c->daddr & r->destination_mask) != r->destination)
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

__attribute__((noinline)) int meter_packet(struct __sk_buff *skb, const struct packet *p, __u64 router, __u32 direction)
{
	struct count c = {};
	int i;

	if (!p)
		return 0;
	c.router = router;
	c.direction = direction;
	c.saddr = p->saddr;
	c.daddr = p->daddr;
	c.packets = skb->gso_segs ? skb->gso_segs : 1;
	c.bytes = p->length;
	for (i = 0; i < METER_CHUNKS; i++)
		if (!meter_some(&c, i))
			break;
	return 0;
}

#endif
