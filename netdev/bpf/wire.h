/* Wires: the edge link carries one network without a tag and any number of networks with one.
 *
 *   wires {network} -> tag     tags {tag} -> network          the first takes frames out, the second takes them in
 *   nearby {network, address} -> hardware address              who is on a tagged wire
 *
 * Networks without a tag share one number here, that of the first (`ext_vni`).
 * The kernel's stack resolves neighbours of the untagged network. Of tags it knows nothing without devices for them, so
 * there the agent asks: a packet for somebody unknown goes to it as a question (src/nearby.rs), and what is answered is
 * remembered here, of those alone who were asked for. Rows that are there serve on while no agent runs.
 */
#ifndef PILVI_WIRE_H
#define PILVI_WIRE_H

#include "quality.h"

#define ETH_ASK 0x88b5 /* for local experiments (IEEE 802): seen by no one but the agent */
#define ASK_COST (SEC_NS / 200)
#define ASK_BURST (SEC_NS / 2)

/* An IPv4 address as IPv6 writes it. */
static __always_inline void mapped(struct ip6 *ip, __u32 v4)
{
	ip->word[0] = ip->word[1] = 0;
	ip->word[2] = bpf_htonl(0xffff);
	ip->word[3] = v4;
}

/* Out of the edge link, or (BPF_F_INGRESS) in by it, in the external network `vni`. */
__attribute__((noinline)) int out_edge(struct __sk_buff *skb, __u32 vni, __u32 flags)
{
	struct settings *set = get_settings();
	__u32 *tag;

	if (!set || !set->edge_if)
		return drop(skb, DROP_NO_EDGE);
	if (vni != set->ext_vni) {
		/* Several may be there without a tag. */
		tag = bpf_map_lookup_elem(&wires, &vni);
		if (tag && push_tag(skb, *tag))
			return drop(skb, DROP_MALFORMED);
	}
	return bpf_redirect(set->edge_if, flags & BPF_F_INGRESS);
}

/* The packet becomes a question to the agent: it is lost, and whoever sent it sends it again. */
__attribute__((noinline)) int ask_nearby(struct __sk_buff *skb, const struct nearby_key *who)
{
	struct {
		__u8 dst[6];
		__u8 src[6];
		__u16 protocol;
		struct ip6 ip;
	} __attribute__((packed)) ask = {.dst = {0x02, 0x71}, .protocol = bpf_htons(ETH_ASK)};
	__u64 now = bpf_ktime_get_coarse_ns(), *until;
	struct settings *set = get_settings();
	struct nearby fresh = {}, *known;
	__u32 zero = 0, vni;

	until = bpf_map_lookup_elem(&asks, &zero);
	if (!who || !set || !until)
		return drop(skb, DROP_NEIGHBOUR);
	drop(skb, DROP_NEIGHBOUR); /* counts */
	known = bpf_map_lookup_elem(&nearby, who);
	if (known && now - known->asked < SEC_NS)
		return TC_ACT_SHOT;
	/* All guests of the host share the agent, and the table: who asks for everybody keeps others waiting for a moment. */
	if (!afford(until, now, ASK_COST, ASK_BURST))
		return TC_ACT_SHOT;
	if (known) {
		known->asked = known->used = now;
	} else {
		fresh.asked = fresh.used = now;
		bpf_map_update_elem(&nearby, who, &fresh, BPF_NOEXIST);
	}
	vni = bpf_htonl(who->vni);
	__builtin_memcpy(ask.dst + 2, &vni, 4);
	ask.ip = who->ip;
	if (bpf_skb_store_bytes(skb, 0, &ask, sizeof(ask), 0))
		return TC_ACT_SHOT;
	return bpf_redirect(set->punt_if, BPF_F_INGRESS);
}

/* To somebody on a tagged wire. The sender's hardware address is in the frame already. */
__attribute__((noinline)) int send_wire(struct __sk_buff *skb, const struct nearby_key *next)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct nearby *n;

	if (!next)
		return drop(skb, DROP_NEIGHBOUR);
	n = bpf_map_lookup_elem(&nearby, next);
	if (!n || !n->seen)
		return ask_nearby(skb, next);
	if (now - n->used > SEC_NS)
		n->used = now;
	if (bpf_skb_store_bytes(skb, 0, n->mac, 6, 0))
		return drop(skb, DROP_MALFORMED);
	return out_edge(skb, next->vni, 0);
}

/* The port of a guest of this host that is on the external network itself and has the address; 0: there is none. */
__attribute__((noinline)) __u32 guest_outside(__u32 vni, __u32 ip)
{
	struct ip_key who = {.vni = vni, .ip = ip};
	struct hop *h = bpf_map_lookup_elem(&addresses, &who);

	return h && h->kind == HOP_LOCAL ? h->where : 0;
}

/* To such a guest, as the wire would bring it. -1: there is none. */
__attribute__((noinline)) int give_outside(struct __sk_buff *skb, const struct route *r, __u32 saddr, __u32 next)
{
	struct ext_key key = {.ip = saddr};
	struct ip_key who = {.ip = next};
	struct ext *e;
	struct hop *h;

	if (!r)
		return -1;
	key.vni = who.vni = r->vni;
	h = bpf_map_lookup_elem(&addresses, &who);
	if (!h || h->kind != HOP_LOCAL)
		return -1;
	e = bpf_map_lookup_elem(&externals, &key);
	return set_macs(skb, h->mac, e ? e->mac : r->mac) ? drop(skb, DROP_MALFORMED) : give(skb, h->where);
}

/* An address that this host answers for outside, if it is one in the network of a port that is there. */
static __always_inline struct ext *ours_outside(const struct port *port, __u32 ip)
{
	struct ext_key key = {.vni = port->vni, .ip = ip};
	struct settings *set = get_settings();
	struct ext *e;

	if (!(port->flags & PORT_EXTERNAL) || !set || !set->edge_if)
		return 0;
	if (!bpf_map_lookup_elem(&wires, &key.vni))
		key.vni = set->ext_vni;
	e = bpf_map_lookup_elem(&externals, &key);
	return e && e->kind != EXT_RELAY ? e : 0;
}

/* From a guest on the external network to such an address, as if the wire brought it. -1: it is none. */
__attribute__((noinline)) int turn_outside(struct __sk_buff *skb, const struct port *port, __u32 ip)
{
	if (!port || !ours_outside(port, ip))
		return -1;
	return out_edge(skb, port->vni, BPF_F_INGRESS);
}

/* Out of the edge link, as the route says. An address of our own turns round before the wire. */
__attribute__((noinline)) int send_edge(struct __sk_buff *skb, const struct route *r, __u32 saddr, __u32 daddr)
{
	struct bpf_redir_neigh hop = {.nh_family = 2};
	struct settings *set = get_settings();
	struct ext_key key = {.ip = daddr};
	struct nearby_key next = {};
	struct ext *e;
	int given;

	if (!r || !set || !set->edge_if)
		return drop(skb, DROP_NO_EDGE);
	key.vni = r->vni;
	if (bpf_map_lookup_elem(&externals, &key))
		return out_edge(skb, key.vni, BPF_F_INGRESS);
	hop.ipv4_nh = r->via ? r->via : daddr;
	given = give_outside(skb, r, saddr, hop.ipv4_nh);
	if (given >= 0)
		return given;
	if (key.vni == set->ext_vni)
		return bpf_redirect_neigh(set->edge_if, &hop, sizeof(hop), 0);
	/* Here no stack writes the header, so to_edge has nothing to mend. */
	key.ip = saddr;
	e = bpf_map_lookup_elem(&externals, &key);
	if (bpf_skb_store_bytes(skb, 6, e ? e->mac : r->mac, 6, 0))
		return drop(skb, DROP_MALFORMED);
	next.vni = key.vni;
	mapped(&next.ip, hop.ipv4_nh);
	return send_wire(skb, &next);
}

/* Somebody says where he is. */
static __always_inline void learn_nearby(const struct nearby_key *who, const __u8 *mac)
{
	struct nearby *n = bpf_map_lookup_elem(&nearby, who);

	if (!n || mac[0] & 1)
		return;
	__builtin_memcpy(n->mac, mac, 6);
	n->seen = bpf_ktime_get_coarse_ns();
}

static __always_inline void learn_arp(__u32 vni, const struct arp *a)
{
	struct nearby_key who = {.vni = vni};

	mapped(&who.ip, a->spa);
	learn_nearby(&who, a->sha);
}

#endif
