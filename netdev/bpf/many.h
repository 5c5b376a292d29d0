/* What is for many: a guest's broadcasts and multicasts, by which guests of one network find and follow each other (VRRP, mDNS).
 *
 *   from_guest  -> the sender's groups -> rate -> `floods`: a copy for each port of the network here, one for each other host that has some
 *   from_overlay ---------------------------> `floods`: a copy for each port of the network here
 *   each copy -> to_guest -> the groups of whoever gets it
 *   wires: guests' own tagged frames alone, by rows of their own (FLOOD_TAGGED): a copy for each port here that takes tags, one for the wire
 *
 * Nobody is asked what he listens to. What the host answers itself (ARP, neighbours, DHCP) goes to nobody else.
 */
#ifndef PILVI_MANY_H
#define PILVI_MANY_H

#include "frame.h"

#define FLOOD_INTERVAL (SEC_NS / 1000) /* a thousand a second on the long run, where they go to few, */
#define FLOOD_COPY (SEC_NS / 10000)    /* ten thousand copies where they go to many: nobody makes his host send a hundred for one */
#define FLOOD_BURST (SEC_NS / 5)       /* two hundred, two thousand copies at once */

/* A copy for a port of this host. Tags of the guests' own go to no subport: those have their device by a tag. */
static __always_inline void copy_to(struct __sk_buff *skb, __u32 name)
{
	if (number_of(skb) ? has_subport(skb, name) : skb->vlan_present)
		return;
	if (!(name & SUBPORT)) {
		bpf_clone_redirect(skb, name, 0);
		return;
	}
	if (bpf_skb_vlan_push(skb, bpf_htons(0x8100), name & 0xfff))
		return;
	bpf_clone_redirect(skb, SUBPORT_DEVICE(name), 0);
	bpf_skb_vlan_pop(skb);
}

/* With the network's tag outside of the guest's own; without one the guest's would be the wire's. */
static __always_inline void copy_to_wire(struct __sk_buff *skb, __u32 edge_if, __u32 vni)
{
	__u32 *tag = bpf_map_lookup_elem(&wires, &vni);

	if (!tag || !edge_if || push_tag(skb, *tag))
		return;
	bpf_clone_redirect(skb, edge_if, 0);
	bpf_skb_vlan_pop(skb);
}

/* Whether it was the last. */
__attribute__((noinline)) int flood_one(struct __sk_buff *skb, __u32 vni, __u32 index, __u32 everywhere)
{
	struct bpf_tunnel_key tunnel = {.tunnel_id = vni, .tunnel_ttl = 64};
	struct flood_key key = {.vni = vni, .index = index};
	struct settings *set = get_settings();
	struct flood *f = bpf_map_lookup_elem(&floods, &key);

	if (!f || !set)
		return 1;
	if (f->kind == HOP_LOCAL) {
		if (f->where != whose(skb))
			copy_to(skb, f->where);
		return 0;
	}
	if (f->kind == HOP_WIRE) {
		if (everywhere)
			copy_to_wire(skb, set->edge_if, vni & ~FLOOD_TAGGED);
		return 0;
	}
	tunnel.remote_ipv4 = bpf_ntohl(f->where);
	if (everywhere && set->overlay_if && !bpf_skb_set_tunnel_key(skb, &tunnel, sizeof(tunnel), BPF_F_ZERO_CSUM_TX))
		bpf_clone_redirect(skb, set->overlay_if, 0);
	return 0;
}

/* Whether this network has any places for what is for many. */
static __always_inline int floods_in(__u32 vni)
{
	struct flood_key key = {.vni = vni};

	return !!bpf_map_lookup_elem(&floods, &key);
}

/* How many places there are, each of which got a copy. */
__attribute__((noinline)) __u32 flood_all(struct __sk_buff *skb, __u32 vni, __u32 everywhere)
{
	__u32 i;

	for (i = 0; i < FLOODS; i++)
		if (flood_one(skb, vni, i, everywhere))
			break;
	return i;
}

/* What came from another host goes to none again. */
__attribute__((noinline)) int flood(struct __sk_buff *skb, __u32 vni)
{
	return flood_all(skb, vni, 0) ? TC_ACT_SHOT : drop(skb, number_of(skb) ? DROP_FAMILY : DROP_MULTICAST);
}

/* A guest's frame for many goes on, unless its port has sent as many of them as it may. */
__attribute__((noinline)) int send_many(struct __sk_buff *skb, __u32 vni)
{
	__u64 now = bpf_ktime_get_coarse_ns(), tat, cost;
	__u32 name = whose(skb), places;
	struct live *l = bpf_map_lookup_elem(&live, &name);

	if (!l)
		return drop(skb, DROP_RATE);
	tat = l->flood_tat > now ? l->flood_tat : now;
	if (tat - now > FLOOD_BURST)
		return drop(skb, DROP_RATE);
	places = flood_all(skb, vni, 1);
	cost = places * FLOOD_COPY;
	l->flood_tat = tat + (cost > FLOOD_INTERVAL ? cost : FLOOD_INTERVAL);
	return places ? TC_ACT_SHOT : drop(skb, number_of(skb) ? DROP_FAMILY : DROP_MULTICAST);
}

/* The same by IPv4. Who has an address is sent to by his hardware address. */
__attribute__((noinline)) int many4(struct __sk_buff *skb, __u32 vni, __u32 ip)
{
	struct ip_key key = {.vni = vni, .ip = ip};

	return bpf_map_lookup_elem(&addresses, &key) ? drop(skb, DROP_MULTICAST) : send_many(skb, vni);
}

#endif
