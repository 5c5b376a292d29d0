/* Copies of what a port sends and gets, for ports that look at them.
 *
 *   mirrors: {port, direction} -> up to four: a port of this host, a tunnel key of the looker's own, or a collector outside
 *   sinks:   {tunnel key} -> the port of this host that looks; no network has that key, so no table has rows for it
 *
 * A copy is sent as the agent sends: it passes no groups, and it is not copied again. Collectors: see collect.h.
 */
#ifndef PILVI_MIRROR_H
#define PILVI_MIRROR_H

#include "frame.h"

/* To a port of this host, with its tag if it has one. */
static __always_inline void copy_to_port(struct __sk_buff *skb, __u32 name)
{
	skb->mark = MARK_AGENT;
	if (!(name & SUBPORT)) {
		bpf_clone_redirect(skb, name, 0);
	} else if (!bpf_skb_vlan_push(skb, bpf_htons(0x8100), name & 0xfff)) {
		bpf_clone_redirect(skb, SUBPORT_DEVICE(name), 0);
		bpf_skb_vlan_pop(skb);
	}
	skb->mark = 0;
}

static __always_inline void copy_to_host(struct __sk_buff *skb, __u32 overlay_if, __u32 vni, __u32 vtep)
{
	struct bpf_tunnel_key key = {.tunnel_id = vni, .tunnel_ttl = 64};

	key.remote_ipv4 = bpf_ntohl(vtep);
	if (overlay_if && !bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		bpf_clone_redirect(skb, overlay_if, 0);
}

/* The mark alone tells the programs of that link for whom the copy is. */
static __always_inline void copy_outside(struct __sk_buff *skb, __u32 link, __u32 collector)
{
	skb->mark = collector;
	bpf_clone_redirect(skb, link, 0);
	skb->mark = 0;
}

/* Those for collectors, or all others. */
static __always_inline void copy_all(struct __sk_buff *skb, const struct mirror *m, const struct settings *set, int outside)
{
	__u32 i;

	for (i = 0; i < MIRRORS; i++) {
		if (i >= m->count)
			break;
		if (outside != !!m->to[i].collector)
			continue;
		if (outside)
			copy_outside(skb, m->to[i].name, m->to[i].collector);
		else if (m->to[i].vtep)
			copy_to_host(skb, set->overlay_if, m->to[i].vni, m->to[i].vtep);
		else
			copy_to_port(skb, m->to[i].name);
	}
}

/* Whatever comes of the copies, the frame goes on; not 0: it is no longer what it was. */
__attribute__((noinline)) int mirror(struct __sk_buff *skb, __u32 direction)
{
	struct mirror_key key = {.name = whose(skb), .direction = direction};
	struct settings *set = get_settings();
	struct mirror *m = bpf_map_lookup_elem(&mirrors, &key);
	__u32 tag = 0;

	if (!m || !set)
		return 0;
	/* A guest's own tag is part of the frame; a collector gets it, and the one that is lifted. */
	if (!(key.name & SUBPORT)) {
		if (lower(skb))
			return -1;
		copy_all(skb, m, set, 1);
		if (lift(skb))
			return -1;
	}
	/* Towards a subport the tag is on already; who looks has no use for it. */
	if (skb->vlan_present) {
		tag = skb->vlan_tci | (skb->vlan_proto == bpf_htons(ETH_SERVICE_TAG) ? 1u << 30 : 0);
		if (bpf_skb_vlan_pop(skb))
			return 0;
		tag |= 1u << 31;
	}
	if (key.name & SUBPORT)
		copy_all(skb, m, set, 1);
	copy_all(skb, m, set, 0);
	if (tag)
		bpf_skb_vlan_push(skb, tag & 1u << 30 ? bpf_htons(ETH_SERVICE_TAG) : bpf_htons(ETH_TAG), tag & 0xffff);
	return 0;
}

/* A frame of the overlay that is for no station: a copy for a port of this host, or nobody's. */
__attribute__((noinline)) int receive_copy(struct __sk_buff *skb, __u32 vni)
{
	__u32 *name = bpf_map_lookup_elem(&sinks, &vni);

	if (!name)
		return drop(skb, DROP_UNKNOWN_STATION);
	skb->mark = MARK_AGENT;
	return give(skb, *name);
}

#endif
