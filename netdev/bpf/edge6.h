/* IPv6 on the edge link: neighbours are answered for gateways, what the provider routes to one goes inside.
 *
 *   NS -> `addresses6` of the external network -> NA from here       NA, other NS -> the stack, which asks for next hops
 *   frame for a port on the external network -> its tap, where its groups judge; so do NA, which it asked for itself
 *   frame for a gateway's hardware address -> router -> tap or overlay      one that proxies: for its own addresses alone
 *   word of a next hop that is watched -> agent (watch.h)
 *   answer of DHCPv6 for its link-local address (a prefix is delegated) -> rate limit -> packet socket -> agent
 */
#ifndef PILVI_EDGE6_H
#define PILVI_EDGE6_H

#include "plane6.h"

/* Somebody says where he is: to a guest on the link itself, or to us. */
__attribute__((noinline)) int edge_said(struct __sk_buff *skb, const struct packet6 *q, __u32 vni)
{
	struct nearby_key who = {.vni = vni};
	struct mac_key key = {.vni = vni};
	struct neighbour say = {};
	struct hop *h;

	if (!q || q->p.length < IP6_LEN + 24 || bpf_skb_load_bytes(skb, q->p.l4, &say, 24))
		return drop(skb, DROP_MALFORMED);
	if (bpf_skb_load_bytes(skb, 0, key.mac, 6))
		return drop(skb, DROP_MALFORMED);
	if (tag_of(skb) && q->p.length >= IP6_LEN + 32 && !bpf_skb_load_bytes(skb, q->p.l4 + 24, &say.option, 8) && say.option == 2) {
		who.ip = say.target;
		learn_nearby(&who, say.mac);
	}
	h = bpf_map_lookup_elem(&stations, &key);
	if (h && h->kind == HOP_LOCAL)
		return give(skb, h->where);
	return tag_of(skb) ? TC_ACT_SHOT : TC_ACT_OK;
}

__attribute__((noinline)) int edge_neighbour(struct __sk_buff *skb, const struct packet6 *q, __u32 vni)
{
	struct ip6_key key = {.vni = vni};
	struct neighbour ask = {};
	struct hop *h;

	if (!q)
		return drop(skb, DROP_MALFORMED);
	if (q->p.ttl != 255 || q->p.code || q->p.l4 != ETH_LEN + IP6_LEN || q->p.type == ROUTER_SAY || q->p.type == REDIRECT6)
		return drop(skb, DROP_FAMILY);
	if (q->p.type == NEIGHBOUR_ASK && vni) {
		if (q->p.length < IP6_LEN + 24 || bpf_skb_load_bytes(skb, q->p.l4, &ask, 24))
			return drop(skb, DROP_MALFORMED);
		key.ip = ask.target;
		h = bpf_map_lookup_elem(&addresses6, &key);
		if (h && (h->kind == HOP_ROUTER || h->kind == HOP_LOCAL)) {
			if (answer_neighbour(skb, &ask, h))
				return drop(skb, DROP_MALFORMED);
			skb->mark = MARK_AGENT;
			return give(skb, whose(skb));
		}
	}
	if (q->p.type == NEIGHBOUR_SAY && vni)
		return edge_said(skb, q, vni);
	/* The stack knows no tags. */
	return tag_of(skb) ? drop(skb, DROP_ARP_UNKNOWN) : TC_ACT_OK;
}

__attribute__((noinline)) int edge_ip6(struct __sk_buff *skb, const struct eth *eth)
{
	struct settings *set = get_settings();
	struct walk6 w = {.via = VIA_EDGE};
	struct packet6 q = {};
	struct mac_key key = {.family = 6};
	struct hop *h;
	__u64 router;
	int no, shared;
	__u32 vni = wire_of(skb);

	if (!set || !eth)
		return drop(skb, DROP_MALFORMED);
	/* The stack knows no tags. */
	shared = set->flags & SETTING_SHARED && !tag_of(skb);
	no = parse6(skb, &q, wire_scope(skb));
	if (no)
		return shared ? TC_ACT_OK : drop(skb, no - 1);
	/* An advertisement to our own stack came with the device's address. */
	if (neighbourly(&q.p))
		return edge_neighbour(skb, &q, vni);
	if (watching(&q.p)) {
		no = hear_watched6(skb, &q);
		if (no >= 0)
			return no;
	}
	key.vni = vni;
	__builtin_memcpy(key.mac, eth->dst, 6);
	h = vni ? bpf_map_lookup_elem(&stations, &key) : 0;
	if (!h || h->kind != HOP_ROUTER) {
		key.family = 0;
		h = vni ? bpf_map_lookup_elem(&stations, &key) : 0;
		if (h && h->kind == HOP_LOCAL)
			return give(skb, h->where);
	}
	if (!h || h->kind != HOP_ROUTER)
		return shared ? TC_ACT_OK : drop(skb, DROP_EDGE);
	router = h->router;
	if (multicast6(&q.daddr) || none6(&q.saddr))
		return drop(skb, DROP_MULTICAST);
	no = unwelcome6(&q, router, key.vni, h->how);
	if (no)
		return drop(skb, no - 1);
	/* A delegating router answers a question of the agent's: who asks has a row among the living. */
	if (q.p.protocol == UDP && !q.p.later && q.p.sport == bpf_htons(547) && q.p.dport == bpf_htons(546) && local6(&q.daddr))
		return punt(skb);
	if (police_gateway6(skb, &q, router, TO_GUEST))
		return drop(skb, DROP_RATE);
	w.router = router;
	w.vni = key.vni;
	no = forward6(skb, &q, &w);
	/* What it answers itself has a mark. */
	if (no == TC_ACT_REDIRECT && !skb->mark)
		meter_packet6(skb, &q, router, METER_IN);
	return no;
}

/* From another host's guest, for the gateway that this host holds. */
__attribute__((noinline)) int overlay_ip6(struct __sk_buff *skb, __u64 router, __u32 vni)
{
	struct walk6 w = {.router = router, .vni = vni, .via = VIA_OVERLAY};
	struct packet6 q = {};
	int no = parse6(skb, &q, vni | 0x40000000u);

	if (no)
		return drop(skb, no - 1);
	return forward6(skb, &q, &w);
}

#endif
