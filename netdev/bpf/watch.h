/* Next hops of routers that are watched (BFD, RFC 5881: UDP 3784, hop limit 255, so that nobody further away can speak).
 *
 *   watched {network, own address, next hop} -> clock          whom the agent speaks with (src/bfd)
 *   edge link -> a row, and not too often -> packet socket -> agent
 *   agent -> agent link -> from_agent -> as a guest's packet to the next hop leaves: by its neighbour, with the wire's tag
 */
#ifndef PILVI_WATCH_H
#define PILVI_WATCH_H

#include "frame6.h"
#include "wire.h"

#define WATCH_PORT 3784
#define WATCH_HOPS 255
#define WATCH_COST (SEC_NS / 20) /* twenty a second of one next hop, and at once */
#define WATCH_BURST SEC_NS

static __always_inline int watching(const struct packet *p)
{
	return p->protocol == UDP && !p->later && p->dport == bpf_htons(WATCH_PORT) && p->ttl == WATCH_HOPS;
}

/* To the agent, with the network in the destination address. -1: nobody is watched there. */
__attribute__((noinline)) int hear_watched(struct __sk_buff *skb, const struct watched_key *who)
{
	__u8 dst[6] = {0x02, 0x73};
	__u64 now = bpf_ktime_get_coarse_ns(), *until;
	struct settings *set = get_settings();
	__u32 vni;

	if (!who || !set)
		return -1;
	until = bpf_map_lookup_elem(&watched, who);
	if (!until)
		return -1;
	if (!afford(until, now, WATCH_COST, WATCH_BURST))
		return drop(skb, DROP_RATE);
	vni = bpf_htonl(who->vni);
	__builtin_memcpy(dst + 2, &vni, 4);
	if (bpf_skb_store_bytes(skb, 0, dst, 6, 0))
		return drop(skb, DROP_MALFORMED);
	return bpf_redirect(set->punt_if, BPF_F_INGRESS);
}

__attribute__((noinline)) int hear_watched4(struct __sk_buff *skb, __u32 own, __u32 peer)
{
	struct watched_key who = {.vni = wire_of(skb)};

	mapped(&who.own, own);
	mapped(&who.peer, peer);
	return hear_watched(skb, &who);
}

__attribute__((noinline)) int hear_watched6(struct __sk_buff *skb, const struct packet6 *q)
{
	struct watched_key who = {.vni = wire_of(skb)};

	if (!q)
		return -1;
	who.own = q->daddr;
	who.peer = q->saddr;
	return hear_watched(skb, &who);
}

/* Out of the edge link to `next`, from the hardware address `mac->mac`. */
__attribute__((noinline)) int send_edge6(struct __sk_buff *skb, const struct nearby_key *next, const struct mac_key *from)
{
	struct settings *set = get_settings();
	struct bpf_redir_neigh hop = {.nh_family = 10};
	struct ip6_key key = {};
	struct hop *h;

	if (!next || !from || !set || !set->edge_if)
		return drop(skb, DROP_NO_EDGE);
	key.vni = next->vni;
	key.ip = next->ip;
	/* A guest of this host stands on the wire beside it. */
	h = bpf_map_lookup_elem(&addresses6, &key);
	if (h && h->kind == HOP_LOCAL)
		return set_macs(skb, h->mac, from->mac) ? drop(skb, DROP_MALFORMED) : give(skb, h->where);
	if (next->vni != set->ext_vni) {
		if (bpf_skb_store_bytes(skb, 6, from->mac, 6, 0))
			return drop(skb, DROP_MALFORMED);
		return send_wire(skb, next);
	}
	__builtin_memcpy(hop.ipv6_nh, &next->ip, 16);
	return bpf_redirect_neigh(set->edge_if, &hop, sizeof(hop), 0);
}

__attribute__((noinline)) int watch6(struct __sk_buff *skb, const struct mac_key *from)
{
	struct nearby_key next = {};
	struct ip6_key key = {};
	struct hop *h;

	if (!from || bpf_skb_load_bytes(skb, ETH_LEN + 24, &next.ip, 16))
		return drop(skb, DROP_MALFORMED);
	key.vni = next.vni = from->vni;
	key.ip = next.ip;
	/* Another router of this host turns round before the wire. */
	h = bpf_map_lookup_elem(&addresses6, &key);
	if (h && h->kind == HOP_ROUTER)
		return out_edge(skb, key.vni, BPF_F_INGRESS);
	return send_edge6(skb, &next, from);
}

__attribute__((noinline)) int watch4(struct __sk_buff *skb, const struct mac_key *from)
{
	struct route r = {.kind = ROUTE_EXTERNAL};
	__u32 addresses[2];

	if (!from || bpf_skb_load_bytes(skb, ETH_LEN + 12, addresses, 8))
		return drop(skb, DROP_MALFORMED);
	r.vni = from->vni;
	__builtin_memcpy(r.mac, from->mac, 6);
	return send_edge(skb, &r, addresses[0], addresses[1]);
}

/* From the agent, which names the network in the destination address. -1: it is something else. */
__attribute__((noinline)) int speak_watched(struct __sk_buff *skb)
{
	struct settings *set = get_settings();
	struct mac_key from = {};
	struct eth eth;
	__u32 vni;

	if (!set || skb->mark != MARK_AGENT || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || eth.dst[0] != 0x02 || eth.dst[1] != 0x73)
		return -1;
	__builtin_memcpy(&vni, eth.dst + 2, 4);
	from.vni = bpf_ntohl(vni);
	__builtin_memcpy(from.mac, eth.src, 6);
	/* What has no wire any more must not leave by another. */
	if (from.vni != set->ext_vni && !bpf_map_lookup_elem(&wires, &from.vni))
		return drop(skb, DROP_NO_EDGE);
	/* From here on it is a packet as a guest's, which all judge. */
	skb->mark = 0;
	return eth.protocol == bpf_htons(ETH_IP6) ? watch6(skb, &from) : watch4(skb, &from);
}

#endif
