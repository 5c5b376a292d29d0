/* Copies for collectors outside: wrapped as their kind says, and sent.
 *
 *   mirror() -> copy0 ==> copy1 -> wrap_copy -> copy1 ==> copy0 -> send_copy -> underlay, or edge link
 *
 * Two links in a row, each with a use. The first one's device has no offloads, so the kernel cuts what a guest gave it as one
 * large frame, and writes checksums: what is wrapped is a frame as a wire would carry it. The second one makes the kernel read
 * the outer header, so that it finds the next hop of a frame that was ARP a moment ago. Copies wait in the queue of that link
 * and not in their guest's way; what is too much for the host is lost there.
 *
 * The mark names the collector all the way. Nothing of this goes to the host's stack, and no program here gives to a port.
 */
#ifndef PILVI_COLLECT_H
#define PILVI_COLLECT_H

#include "frame6.h"
#include "wire.h"

#define GRE 47
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_FRAME 0x6558    /* a frame follows (RFC 1701) */
#define GRE_ERSPAN 0x88be   /* a header of ERSPAN type II, and a frame */
#define GRE_ERSPAN3 0x22eb
#define COPY_MIN 64 /* bytes of a frame that are worth to be sent without the others */
#define COPY_TTL 64

/* A copy that comes back, or another host's: who looks at a port that copies are for would be told of them for ever. Of a
 * fragment nobody can tell.
 */
__attribute__((noinline)) int is_copy(struct __sk_buff *skb)
{
	__u32 at = ETH_LEN + IP6_LEN;
	__u16 protocol;
	__u8 next = 0;
	struct eth eth;
	struct ip4 ip;

	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return 1;
	if (eth.protocol == bpf_htons(ETH_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN, &ip, sizeof(ip)))
			return 0;
		next = ip.protocol;
		at = ETH_LEN + (ip.version_ihl & 15) * 4;
		if (next == GRE && ip.fragment & bpf_htons(0x1fff))
			return 1;
	} else if (eth.protocol == bpf_htons(ETH_IP6)) {
		if (bpf_skb_load_bytes(skb, ETH_LEN + 6, &next, 1))
			return 0;
	}
	if (next != GRE || bpf_skb_load_bytes(skb, at + 2, &protocol, 2))
		return 0;
	return protocol == bpf_htons(GRE_FRAME) || protocol == bpf_htons(GRE_ERSPAN) || protocol == bpf_htons(GRE_ERSPAN3);
}

/* The tag that the kernel keeps beside the frame stands in the frame again, `at` bytes in. */
static __always_inline int write_tag(struct __sk_buff *skb, __u32 at)
{
	__u16 tag[2] = {skb->vlan_proto, bpf_htons(skb->vlan_tci)};
	__u8 macs[12];

	if (bpf_skb_load_bytes(skb, at + 4, macs, 12) || bpf_skb_store_bytes(skb, at, macs, 12, 0))
		return -1;
	return bpf_skb_store_bytes(skb, at + 12, tag, 4, 0);
}

__attribute__((noinline)) int write_ip(struct __sk_buff *skb, const struct collector *c, __u32 number)
{
	struct ip4 ip = {.version_ihl = 0x45, .ttl = COPY_TTL, .protocol = GRE};
	__s64 sum;

	if (!c)
		return -1;
	ip.length = bpf_htons(skb->len - ETH_LEN);
	/* It may be cut on its way: whoever puts it together again needs a number. */
	ip.id = bpf_htons(number);
	ip.saddr = c->from.word[0];
	ip.daddr = c->to.word[0];
	sum = bpf_csum_diff(0, 0, (__be32 *)&ip, sizeof(ip), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	ip.checksum = ~((sum & 0xffff) + (sum >> 16));
	return bpf_skb_store_bytes(skb, ETH_LEN, &ip, sizeof(ip), 0);
}

__attribute__((noinline)) int write_ip6(struct __sk_buff *skb, const struct collector *c)
{
	struct ip6_header ip = {.version_class_flow = bpf_htonl(6u << 28), .next = GRE, .hops = COPY_TTL};

	if (!c)
		return -1;
	ip.length = bpf_htons(skb->len - ETH_LEN - IP6_LEN);
	ip.saddr = c->from;
	ip.daddr = c->to;
	return bpf_skb_store_bytes(skb, ETH_LEN, &ip, sizeof(ip), 0);
}

/* The header between the addresses and the frame, which has a tag, or was cut. */
static __always_inline int write_kind(struct __sk_buff *skb, const struct collector *c, __u32 at, __u32 number, __u32 tagged,
				      __u32 cut)
{
	__u32 words[4] = {}, vlan = 0, session;

	if (!(c->flags & COLLECTOR_ERSPAN)) {
		words[0] = bpf_htonl(GRE_KEY << 16 | GRE_FRAME);
		words[1] = bpf_htonl(c->id);
		return bpf_skb_store_bytes(skb, at, words, 8, 0);
	}
	words[0] = bpf_htonl(GRE_SEQUENCE << 16 | GRE_ERSPAN);
	words[1] = bpf_htonl(number);
	session = (c->id & 0x3ff) | cut << 10;
	if (tagged) {
		/* Number and urgency of the tag, which is in the frame itself. */
		vlan = skb->vlan_tci & 0xfff;
		session |= (skb->vlan_tci >> 13 & 7) << 13 | 3u << 11;
	}
	words[2] = bpf_htonl((1u << 12 | vlan) << 16 | session);
	words[3] = bpf_htonl(c->id & 0xfffff);
	return bpf_skb_store_bytes(skb, at, words, 16, 0);
}

SEC("classifier")
int wrap_copy(struct __sk_buff *skb)
{
	__u32 name = skb->mark, device = ifindex_of(skb), head, room, outer, number, most, cut = 0;
	__u32 tagged = !!skb->vlan_present;
	struct collector *c = bpf_map_lookup_elem(&collectors, &name);
	struct collected *n = bpf_map_lookup_elem(&collected, &name);
	struct eth eth = {};

	say_whose(skb, device);
	say_wire(skb, 0, 0);
	if (!c || !n || skb->gso_size || is_copy(skb))
		return drop(skb, DROP_COPY);
	outer = ETH_LEN + (c->flags & COLLECTOR_SIX ? IP6_LEN : IP_LEN);
	head = outer + (c->flags & COLLECTOR_ERSPAN ? 16 : 8);
	room = head + (tagged ? 4 : 0);
	most = c->mtu + ETH_LEN;
	if (skb->len + room > most) {
		/* ERSPAN has a word for what was cut; of GRE nobody could tell. */
		if (!(c->flags & COLLECTOR_ERSPAN) || most < room + COPY_MIN || bpf_skb_change_tail(skb, most - room, 0))
			return drop(skb, DROP_TOO_BIG);
		cut = 1;
	}
	if (bpf_skb_change_head(skb, room, 0))
		return drop(skb, DROP_COPY);
	if (tagged && write_tag(skb, head))
		return drop(skb, DROP_COPY);
	number = __sync_fetch_and_add(&n->frames, 1);
	eth.protocol = bpf_htons(c->flags & COLLECTOR_SIX ? ETH_IP6 : ETH_IP);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0) || write_kind(skb, c, outer, number, tagged, cut))
		return drop(skb, DROP_COPY);
	if (c->flags & COLLECTOR_SIX ? write_ip6(skb, c) : write_ip(skb, c, number))
		return drop(skb, DROP_COPY);
	return bpf_redirect(device, 0);
}

SEC("classifier")
int send_copy(struct __sk_buff *skb)
{
	__u32 name = skb->mark;
	struct collector *c = bpf_map_lookup_elem(&collectors, &name);
	struct route r = {.kind = ROUTE_EXTERNAL};

	say_whose(skb, ifindex_of(skb));
	say_wire(skb, 0, 0);
	skb->mark = 0;
	/* The frame's own tag is in the frame; what is left of it would stand before the outer header. */
	if (!c || (skb->vlan_present && untag(skb)))
		return drop(skb, DROP_COPY);
	if (c->flags & COLLECTOR_EDGE) {
		r.vni = c->vni;
		r.via = c->via;
		return send_edge(skb, &r, c->from.word[0], c->to.word[0]);
	}
	return bpf_redirect_neigh(c->device, 0, 0, 0);
}

#endif
