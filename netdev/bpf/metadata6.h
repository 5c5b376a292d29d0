/* The metadata service by IPv6: fe80::a9fe:a9fe, port 80.
 *
 *   guest's link-local address -> one that names the port -> the host's own stack        and back
 *
 * The link-local address of a port follows from its hardware address, so the way back needs no state.
 */
#ifndef PILVI_METADATA6_H
#define PILVI_METADATA6_H

#include "frame6.h"

#define LOCAL6 bpf_htonl(0xfe800000u)
#define NAMED6 bpf_htonl(0x70696c76u) /* fe80::7069:6c76:<port>, src/metadata.rs */

static __always_inline int is_metadata6(const struct ip6 *ip)
{
	return ip->word[0] == LOCAL6 && !ip->word[1] && !ip->word[2] && ip->word[3] == METADATA_IP;
}

static __always_inline int is_resolver6(const struct ip6 *ip)
{
	return ip->word[0] == LOCAL6 && !ip->word[1] && !ip->word[2] && ip->word[3] == RESOLVER_IP;
}

static __always_inline void link_local6(struct ip6 *ip, const __u8 *mac)
{
	ip->word[0] = LOCAL6;
	ip->word[1] = 0;
	ip->word[2] = bpf_htonl((__u32)(mac[0] ^ 2) << 24 | mac[1] << 16 | mac[2] << 8 | 0xff);
	ip->word[3] = bpf_htonl(0xfe000000u | mac[3] << 16 | mac[4] << 8 | mac[5]);
}

/* Rewrites the source (`at` 8) or destination (`at` 24) of a TCP packet. */
static __always_inline int set_address6(struct __sk_buff *skb, __u32 l4, __u32 at, struct ip6 *old, struct ip6 *new)
{
	__s64 sum = bpf_csum_diff((__be32 *)old, 16, (__be32 *)new, 16, 0);

	if (bpf_l4_csum_replace(skb, l4 + 16, 0, sum, BPF_F_PSEUDO_HDR))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN + at, new, 16, 0);
}

/* To a TCP port of the host's own stack, from the link-local address that says who asks. */
__attribute__((noinline)) int to_stack6(struct __sk_buff *skb, const struct port *port, const struct packet6 *q, __u32 dport)
{
	struct settings *set = get_settings();
	struct ip6 own = {}, name = {};

	if (!set || !port || !q)
		return drop(skb, DROP_METADATA);
	link_local6(&own, port->mac);
	name.word[0] = LOCAL6;
	name.word[2] = NAMED6;
	name.word[3] = bpf_htonl(whose(skb));
	if (q->p.protocol != TCP || q->p.dport != bpf_htons(dport) || q->p.later || !same6(&q->saddr, &own))
		return drop(skb, DROP_METADATA);
	if (set_address6(skb, q->p.l4, 8, &own, &name) || set_macs(skb, set->agent_mac, set->service_mac))
		return drop(skb, DROP_MALFORMED);
	return bpf_redirect(set->agent_if, BPF_F_INGRESS);
}

static __always_inline int guest_metadata6(struct __sk_buff *skb, const struct port *port, const struct packet6 *q)
{
	return port->flags & PORT_METADATA ? to_stack6(skb, port, q, 80) : drop(skb, DROP_METADATA);
}

__attribute__((noinline)) int agent_ip6(struct __sk_buff *skb)
{
	struct settings *set = get_settings();
	struct packet6 q = {};
	struct ip6 own = {}, name;
	struct port *port;
	__u32 who;

	if (!set || parse6(skb, &q, whose(skb)))
		return drop(skb, DROP_STACK);
	name = q.daddr;
	if (!(is_metadata6(&q.saddr) || is_resolver6(&q.saddr)) || name.word[0] != LOCAL6 || name.word[1] || name.word[2] != NAMED6 || q.p.protocol != TCP)
		return drop(skb, DROP_STACK);
	who = bpf_ntohl(name.word[3]);
	port = bpf_map_lookup_elem(&ports, &who);
	if (!port)
		return drop(skb, DROP_NO_PORT);
	link_local6(&own, port->mac);
	if (set_address6(skb, q.p.l4, 24, &name, &own) || set_macs(skb, port->mac, set->service_mac))
		return drop(skb, DROP_MALFORMED);
	skb->mark = MARK_AGENT;
	return give(skb, who);
}

#endif
