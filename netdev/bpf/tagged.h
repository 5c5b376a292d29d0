/* Frames with one tag or two of the guests' own, in networks whose guests may send them to each other (VLAN-transparent ones;
 * of a wire, within the network's own tag).
 *
 *   from_guest -> of two tags the outer is lifted -> addresses and groups are judged as without tags -> it is lowered
 *              -> by hardware address -> the guest, another host, or out by the network's wire
 *              -> for many: many.h
 *   from_edge  -> the wire's tag is off -> by hardware address, or for many -> guests of this host
 *   to_guest   -> lifted -> groups judge as without tags -> lowered
 *
 * The kernel keeps one tag out of the frame, so all that reads frames sees them as if there were none. What is in them is
 * between the guests: no router takes them, and nothing of the cloud answers in them.
 */
#ifndef PILVI_TAGGED_H
#define PILVI_TAGGED_H

#include "plane6.h"

/* 0, or the reason to drop. Both ask and say who has an address: nobody but the guests knows. */
__attribute__((noinline)) int tagged_arp(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct arp a;

	if (!port || !eth || load_arp(skb, &a))
		return DROP_MALFORMED + 1;
	if (!(port->flags & PORT_SECURED))
		return 0;
	if (!same_mac(a.sha, eth->src) || (a.spa && !owns(port, whose(skb), a.spa, a.sha)) ||
	    (!a.spa && !same_mac(a.sha, port->mac)))
		return DROP_SPOOFED_ARP + 1;
	return 0;
}

__attribute__((noinline)) int tagged_ip(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct packet p = {};
	int no;

	if (!port || !eth)
		return DROP_MALFORMED + 1;
	no = parse(skb, &p, whose(skb));
	if (no)
		return no;
	if (port->flags & PORT_SECURED) {
		if (p.protocol == UDP && p.sport == bpf_htons(67) && p.dport == bpf_htons(68))
			return DROP_DHCP + 1;
		/* Who has no address yet asks for one. */
		if (!(p.protocol == UDP && !p.saddr && p.dport == bpf_htons(67) && same_mac(eth->src, port->mac)) &&
		    !owns(port, whose(skb), p.saddr, eth->src))
			return same_mac(eth->src, port->mac) ? DROP_SPOOFED_IP + 1 : DROP_SPOOFED_MAC + 1;
		no = admit(skb, &p, port, FROM_GUEST);
	}
	if (!no && port->flags & PORT_FIREWALLED)
		no = firewalled(skb, &p, port, FROM_GUEST);
	return no == REJECTED ? DROP_FIREWALL + 1 : no;
}

__attribute__((noinline)) int tagged_neighbour(struct __sk_buff *skb, const struct packet6 *q, const struct eth *eth)
{
	struct neighbour say = {};

	if (!q || !eth || q->p.ttl != 255 || q->p.code || q->p.l4 != ETH_LEN + IP6_LEN || q->p.length < IP6_LEN + 24 ||
	    bpf_skb_load_bytes(skb, q->p.l4, &say, 24))
		return DROP_MALFORMED + 1;
	if (q->p.length >= IP6_LEN + 32 && bpf_skb_load_bytes(skb, q->p.l4 + 24, &say.option, 8))
		return DROP_MALFORMED + 1;
	if ((say.option == 1 || say.option == 2) && !same_mac(say.mac, eth->src))
		return DROP_SPOOFED_ARP + 1;
	if (q->p.type == NEIGHBOUR_ASK)
		return 0;
	return q->p.type == NEIGHBOUR_SAY && owns6(whose(skb), &say.target, eth) ? 0 : DROP_SPOOFED_ARP + 1;
}

__attribute__((noinline)) int tagged_ip6(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct packet6 q = {};
	__u32 name = whose(skb);
	int no;

	if (!port || !eth)
		return DROP_MALFORMED + 1;
	no = parse6(skb, &q, name);
	if (no)
		return no;
	if (port->flags & PORT_SECURED) {
		if (none6(&q.saddr) ? q.p.protocol != ICMP6 || !same_mac(eth->src, port->mac) : !owns6(name, &q.saddr, eth))
			return same_mac(eth->src, port->mac) ? DROP_SPOOFED_IP + 1 : DROP_SPOOFED_MAC + 1;
		if (q.p.protocol == UDP && q.p.sport == bpf_htons(547) && q.p.dport == bpf_htons(546))
			return DROP_DHCP + 1;
	}
	if (neighbourly(&q.p))
		return port->flags & PORT_SECURED ? tagged_neighbour(skb, &q, eth) : 0;
	if (port->flags & PORT_SECURED)
		no = related6(skb, &q, FROM_GUEST) ? 0 : admit6(skb, &q, port, FROM_GUEST);
	if (!no && port->flags & PORT_FIREWALLED)
		no = firewalled6(skb, &q, port, FROM_GUEST);
	return no == REJECTED ? DROP_FIREWALL + 1 : no;
}

/* A guest's frame with a tag that is no port's goes on: none is at home here who would take it. */
__attribute__((noinline)) int send_tagged(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct mac_key key = {};
	struct hop *h;

	if (!port || !eth || lower(skb))
		return drop(skb, DROP_MALFORMED);
	key.vni = port->vni;
	if (eth->dst[0] & 1)
		return send_many(skb, key.vni | (port->flags & PORT_EXTERNAL ? FLOOD_TAGGED : 0));
	__builtin_memcpy(key.mac, eth->dst, 6);
	h = bpf_map_lookup_elem(&stations, &key);
	if (h && h->kind == HOP_LOCAL && h->where != whose(skb))
		return give(skb, h->where);
	if (h && h->kind == HOP_REMOTE)
		return send_tunnel(skb, key.vni, h->where);
	/* Without the network's tag the guest's own would be the wire's. */
	if (!h && port->flags & PORT_EXTERNAL && bpf_map_lookup_elem(&wires, &key.vni))
		return out_edge(skb, key.vni, 0);
	return drop(skb, DROP_UNKNOWN_STATION);
}

static __always_inline int guest_tagged(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	int no = 0;

	if (skb->protocol == bpf_htons(ETH_ARP))
		no = tagged_arp(skb, port, eth);
	else if (skb->protocol == bpf_htons(ETH_IP))
		no = tagged_ip(skb, port, eth);
	else if (skb->protocol == bpf_htons(ETH_IP6))
		no = tagged_ip6(skb, port, eth);
	else if (port->flags & PORT_SECURED)
		no = DROP_FAMILY + 1;
	return no ? drop(skb, no - 1) : send_tagged(skb, port, eth);
}

/* Off the wire of network `vni`, whose tag is off: guests' own is what is left. */
__attribute__((noinline)) int edge_tagged(struct __sk_buff *skb, __u32 vni)
{
	struct mac_key key = {.vni = vni};
	struct hop *h;

	/* A tag without a number would make it a frame without a tag to the guest, and none of those comes this way. */
	if (!number_of(skb) || bpf_skb_load_bytes(skb, 0, key.mac, 6))
		return drop(skb, DROP_FAMILY);
	if (key.mac[0] & 1)
		return flood(skb, vni | FLOOD_TAGGED);
	h = bpf_map_lookup_elem(&stations, &key);
	return h && h->kind == HOP_LOCAL ? give(skb, h->where) : drop(skb, DROP_EDGE);
}

#endif
