/* Local IPs: an address of a network that means, on each host, a guest of that host.
 *
 *   locals {network, local ip} -> the guest's own address                  what is sent to it
 *   met    {network, own ip:port, remote ip:port} -> local ip              what it answers
 *
 * Where the guest is stands in `addresses` with all others, so ARP is answered and a route ends as for any address. The
 * notes of the way back have a table of their own: what a guest sends by itself is nobody's answer.
 */
#ifndef PILVI_LOCAL_H
#define PILVI_LOCAL_H

#include "nat.h"

/* The networks' numbers have 24 bits, so no router's name is taken for one. */
#define LOCAL_NAME(vni_) (1ull << 63 | (vni_))

/* 0, or the reason to drop: the packet is for the guest whose frame it is in, maybe by the local IP. */
__attribute__((noinline)) int meet_local(struct __sk_buff *skb, const struct packet *p, __u32 vni)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct ip_key key = {.vni = vni};
	struct nat_key k = {};
	struct nat fresh = {}, *known;
	__u32 *own, fixed_ip;

	if (!p)
		return DROP_NAT + 1;
	key.ip = p->daddr;
	own = bpf_map_lookup_elem(&locals, &key);
	if (!own)
		return 0;
	fixed_ip = *own;
	if (!icmp_error(p)) {
		k.router = LOCAL_NAME(vni);
		k.local_ip = fixed_ip;
		k.remote_ip = p->saddr;
		k.local_port = p->protocol == ICMP ? p->sport : p->dport;
		k.remote_port = p->protocol == ICMP ? 0 : p->sport;
		k.protocol = p->protocol;
		known = bpf_map_lookup_elem(&met, &k);
		if (known && known->gw == p->daddr) {
			if (now - known->seen > SEC_NS)
				known->seen = now;
		} else {
			fresh.seen = now;
			fresh.gw = p->daddr;
			bpf_map_update_elem(&met, &k, &fresh, BPF_ANY);
		}
	}
	return translate(skb, p, fixed_ip, 0);
}

/* An answer of a guest that was asked by a local IP comes from that. 0 and p->saddr as rewritten, or the reason to drop. */
__attribute__((noinline)) int leave_local(struct __sk_buff *skb, struct packet *p, __u32 vni)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct packet inner = {};
	struct nat_key k = {};
	struct nat *known;
	__u32 local;
	int error;

	if (!p)
		return DROP_NAT + 1;
	error = icmp_error(p);
	if (error) {
		if (parse_inner(skb, p, &inner) || inner.daddr != p->saddr)
			return 0;
		k.local_ip = inner.daddr;
		k.remote_ip = inner.saddr;
		k.local_port = inner.protocol == ICMP ? inner.sport : inner.dport;
		k.remote_port = inner.protocol == ICMP ? 0 : inner.sport;
		k.protocol = inner.protocol;
	} else {
		if (p->protocol == ICMP && !(echo(p) && p->type == 0))
			return 0;
		k.local_ip = p->saddr;
		k.remote_ip = p->daddr;
		k.local_port = p->sport;
		k.remote_port = p->protocol == ICMP ? 0 : p->dport;
		k.protocol = p->protocol;
	}
	k.router = LOCAL_NAME(vni);
	known = bpf_map_lookup_elem(&met, &k);
	if (!known)
		return 0;
	local = known->gw;
	if (now - known->seen > SEC_NS)
		known->seen = now;
	if (error && set_inner(skb, p, &inner, 0, local, inner.protocol == ICMP ? inner.sport : inner.dport))
		return DROP_NAT + 1;
	if (set_address(skb, p, 12, p->saddr, local))
		return DROP_NAT + 1;
	p->saddr = local;
	return 0;
}

#endif
