/* Port forwarding: single ports, or ranges of them, of an external address lead to a guest's.
 *
 *   forwards  {network, external ip, protocol, port prefix} -> fixed ip:port  what comes in
 *   forwarded {router, fixed ip:port, remote ip:port} -> external ip:port     what goes back
 *
 * What comes in needs no state; it leaves a note of the way back, which a guest's own connections from the same port
 * do not have: they go out behind the router's gateway. The notes have a table of their own, so that strangers who
 * knock cannot push translations of guests out of theirs.
 */
#ifndef PILVI_FORWARD_H
#define PILVI_FORWARD_H

#include "frame.h"

static __always_inline struct forward *find_forward(__u32 vni, __u32 ip, __u8 protocol, __u16 port)
{
	struct forward_key key = {.prefixlen = 96, .vni = vni, .ip = ip, .protocol = protocol, .port = port};

	return bpf_map_lookup_elem(&forwards, &key);
}

static __always_inline __u16 inside_port(const struct forward *f, __u16 port)
{
	__u16 past = f->to_one ? 0 : bpf_ntohs(port) - f->first;

	return bpf_htons(f->inside + past);
}

/* 0 and p->daddr, p->dport as rewritten; 1: no such port is forwarded; 2: malformed. */
__attribute__((noinline)) int forward_in(struct __sk_buff *skb, struct packet *p, __u64 router)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct packet inner = {};
	struct nat_key k = {};
	struct nat fresh = {}, *known;
	struct forward *f;
	__u32 fixed;
	__u16 port;

	if (!p)
		return 2;
	if (icmp_error(p)) {
		/* about a packet that went out by the forwarded address */
		if (parse_inner(skb, p, &inner) || inner.saddr != p->daddr)
			return 1;
		f = find_forward(wire_of(skb), inner.saddr, inner.protocol, inner.sport);
		if (!f)
			return 1;
		fixed = f->fixed;
		if (set_inner(skb, p, &inner, 1, fixed, inside_port(f, inner.sport)) || set_address(skb, p, 16, p->daddr, fixed))
			return 2;
		p->daddr = fixed;
		return 0;
	}
	if (p->protocol != TCP && p->protocol != UDP)
		return 1;
	f = find_forward(wire_of(skb), p->daddr, p->protocol, p->dport);
	if (!f)
		return 1;
	fixed = f->fixed;
	port = inside_port(f, p->dport);
	k.router = router;
	k.local_ip = fixed;
	k.remote_ip = p->saddr;
	k.local_port = port;
	k.remote_port = p->sport;
	k.protocol = p->protocol;
	known = bpf_map_lookup_elem(&forwarded, &k);
	if (known && known->gw == p->daddr && known->port == p->dport) {
		if (now - known->seen > SEC_NS)
			known->seen = now;
	} else {
		fresh.seen = now;
		fresh.gw = p->daddr;
		fresh.port = p->dport;
		bpf_map_update_elem(&forwarded, &k, &fresh, BPF_ANY);
	}
	if (set_port(skb, p, 2, p->dport, port) || set_address(skb, p, 16, p->daddr, fixed))
		return 2;
	p->daddr = fixed;
	p->dport = port;
	return 0;
}

/* 0: translated; 1: no answer to anything forwarded; 2: malformed. */
__attribute__((noinline)) int forward_out(struct __sk_buff *skb, const struct packet *p, __u64 router)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct packet inner = {};
	struct nat_key k = {};
	struct nat *known;
	int error;

	if (!p)
		return 2;
	error = icmp_error(p);
	k.router = router;
	if (error) {
		/* about a packet that was forwarded: its destination is the guest's own */
		if (parse_inner(skb, p, &inner) || inner.daddr != p->saddr)
			return 1;
		k.local_ip = inner.daddr;
		k.remote_ip = inner.saddr;
		k.local_port = inner.dport;
		k.remote_port = inner.sport;
		k.protocol = inner.protocol;
	} else {
		k.local_ip = p->saddr;
		k.remote_ip = p->daddr;
		k.local_port = p->sport;
		k.remote_port = p->dport;
		k.protocol = p->protocol;
	}
	if (k.protocol != TCP && k.protocol != UDP)
		return 1;
	known = bpf_map_lookup_elem(&forwarded, &k);
	if (!known)
		return 1;
	if (now - known->seen > SEC_NS)
		known->seen = now;
	if (error)
		return set_inner(skb, p, &inner, 0, known->gw, known->port) || set_address(skb, p, 12, p->saddr, known->gw) ? 2 : 0;
	return set_port(skb, p, 0, p->sport, known->port) || set_address(skb, p, 12, p->saddr, known->gw) ? 2 : 0;
}

#endif
