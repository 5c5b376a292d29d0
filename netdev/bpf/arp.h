/* A guest's ARP: questions are answered here, from rows; what is not known is for the wire, where there is one.
 *
 *   request -> `addresses`, addresses outside that this host has, metadata -> reply from here
 *           -> nobody of ours, on an external network -> edge link
 *   reply   -> on an external network -> edge link      anything said of an address that several ports may have: it moves
 */
#ifndef PILVI_ARP_H
#define PILVI_ARP_H

#include "filter.h"
#include "wire.h"

/* Whoever says by ARP that he has an address that he may have, and that moves, has it from now on. */
static __always_inline void take_over(struct __sk_buff *skb, const struct port *port, const struct arp *a)
{
	struct ip_key key = {.vni = port->vni, .ip = a->spa};
	struct hop *h = bpf_map_lookup_elem(&addresses, &key);

	if (!h || h->how != ADDRESS_MOVES || h->kind != HOP_LOCAL || !owns(port, whose(skb), a->spa, a->sha))
		return;
	h->where = whose(skb);
	__builtin_memcpy(h->mac, a->sha, 6);
}

__attribute__((noinline)) int guest_arp(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct ip_key key = {};
	struct settings *set = get_settings();
	const __u8 *mac = 0;
	struct ext *e;
	struct hop *h;
	struct arp a;

	if (!set || !port || !eth || load_arp(skb, &a))
		return drop(skb, DROP_MALFORMED);
	key.vni = port->vni;
	if (port->flags & PORT_SECURED) {
		if (!same_mac(a.sha, eth->src) || (a.spa && !owns(port, whose(skb), a.spa, a.sha)))
			return drop(skb, DROP_SPOOFED_ARP);
		if (!a.spa && !same_mac(a.sha, port->mac))
			return drop(skb, DROP_SPOOFED_ARP);
	}
	if (a.spa)
		take_over(skb, port, &a);
	if (a.op != bpf_htons(1)) {
		if (port->flags & PORT_EXTERNAL && set->edge_if && a.op == bpf_htons(2))
			return out_edge(skb, port->vni, 0);
		return drop(skb, DROP_ARP_UNKNOWN);
	}
	key.ip = a.tpa;
	h = bpf_map_lookup_elem(&addresses, &key);
	/* The wire is asked for others alone: nobody there hears of what this host has. */
	e = h ? 0 : ours_outside(port, a.tpa);
	if (e)
		mac = e->mac;
	else if (h && !(h->kind == HOP_LOCAL && h->where == whose(skb)))
		mac = h->mac;
	else if (!h && a.tpa == METADATA_IP && port->flags & PORT_METADATA)
		mac = set->service_mac;
	if (mac) {
		if (answer_arp(skb, &a, mac))
			return drop(skb, DROP_MALFORMED);
		skb->mark = MARK_AGENT;
		return give(skb, whose(skb));
	}
	if (!h && port->flags & PORT_EXTERNAL && set->edge_if)
		return out_edge(skb, port->vni, 0);
	return drop(skb, DROP_ARP_UNKNOWN);
}

#endif
