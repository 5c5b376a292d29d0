/* Floating addresses (stateless, one to one) and source NAT (many behind a router's gateway address).
 *
 *   nats: {router, local ip:port, remote ip:port} -> gateway port     what a guest sends
 *   tans: {gateway ip:port, remote ip:port} -> {router, local ip:port}  what comes back
 *
 *   helpers: {router, port}; a question to it leaves a second row of `tans` with no remote port, and the first answer from
 *            another port takes it and has rows of its own from then on
 *
 * The router is part of the key, so tenants with the same addresses never meet. A gateway port is shared
 * by connections to different remote ends, as in any symmetric NAT.
 */
#ifndef PILVI_NAT_H
#define PILVI_NAT_H

#include "frame.h"

#define NAT_TRIES 24

static __always_inline void on_wire(struct tan_key *t, __u32 vni)
{
	t->vni[0] = vni;
	t->vni[1] = vni >> 8;
	t->vni[2] = vni >> 16;
}

/* Lets an answer to this question, which is hidden by now, come from another port, if the router has a helper for it. Not
 * part of `hide`, as the stack is short.
 */
__attribute__((noinline)) int expect(struct __sk_buff *skb, const struct packet *p, __u64 router, __u32 gw, __u32 vni)
{
	struct helper_key key = {.router = router};
	struct tan_key t = {.gw = gw};
	struct tan back = {};
	__u32 *helper;

	if (!p)
		return 0;
	key.port = p->dport;
	key.protocol = p->protocol;
	helper = bpf_map_lookup_elem(&helpers, &key);
	if (!helper || *helper != HELPER_TFTP || p->later || bpf_skb_load_bytes(skb, p->l4, &t.port, 2))
		return 0;
	t.remote_ip = p->daddr;
	t.protocol = p->protocol;
	on_wire(&t, vni);
	back.seen = bpf_ktime_get_coarse_ns();
	back.router = router;
	back.ip = p->saddr;
	back.port = p->sport;
	bpf_map_update_elem(&tans, &t, &back, BPF_ANY);
	return 0;
}

/* An answer that was expected from any port: from now on from this one alone. 1: it was not expected. */
__attribute__((noinline)) int meet_expected(const struct packet *p, __u32 vni)
{
	struct tan_key t = {}, own = {};
	struct nat_key k = {};
	struct nat there = {};
	struct tan back = {}, *way;

	if (!p)
		return 1;
	t.gw = p->daddr;
	t.remote_ip = p->saddr;
	t.port = p->dport;
	t.protocol = p->protocol;
	on_wire(&t, vni);
	way = bpf_map_lookup_elem(&tans, &t);
	if (!way)
		return 1;
	back = *way;
	back.seen = bpf_ktime_get_coarse_ns();
	own = t;
	own.remote_port = p->sport;
	if (bpf_map_update_elem(&tans, &own, &back, BPF_NOEXIST))
		return 1;
	bpf_map_delete_elem(&tans, &t);
	k.router = back.router;
	k.local_ip = back.ip;
	k.remote_ip = p->saddr;
	k.local_port = back.port;
	k.remote_port = p->sport;
	k.protocol = p->protocol;
	there.seen = back.seen;
	there.gw = p->daddr;
	there.port = p->dport;
	bpf_map_update_elem(&nats, &k, &there, BPF_ANY);
	return 0;
}

/* Hides the source behind `gw` of the external network `vni`. 0, or the reason to drop. */
__attribute__((noinline)) int hide(struct __sk_buff *skb, const struct packet *p, __u64 router, __u32 gw, __u32 vni)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct nat_key k = {};
	struct tan_key t = {};
	struct tan back = {};
	struct nat *known, fresh = {};
	struct packet inner = {};
	__u16 port = 0, want;
	int i, placed = 0;

	if (!p)
		return DROP_NAT + 1;
	k.router = router;
	if (icmp_error(p)) {
		/* about a packet that came in: its destination is ours */
		if (parse_inner(skb, p, &inner))
			return DROP_NAT + 1;
		k.local_ip = inner.daddr;
		k.remote_ip = inner.saddr;
		k.protocol = inner.protocol;
		k.local_port = inner.protocol == ICMP ? inner.sport : inner.dport;
		k.remote_port = inner.protocol == ICMP ? 0 : inner.sport;
		known = bpf_map_lookup_elem(&nats, &k);
		if (!known || inner.daddr != p->saddr || set_inner(skb, p, &inner, 0, known->gw, known->port))
			return DROP_NAT + 1;
		return set_address(skb, p, 12, p->saddr, known->gw) ? DROP_NAT + 1 : 0;
	}
	if (p->later)
		return set_address(skb, p, 12, p->saddr, gw) ? DROP_NAT + 1 : 0;
	if (p->protocol != TCP && p->protocol != UDP && !(echo(p) && p->type == 8))
		return DROP_NAT + 1;
	k.local_ip = p->saddr;
	k.remote_ip = p->daddr;
	k.local_port = p->sport;
	k.remote_port = p->dport;
	k.protocol = p->protocol;
	t.gw = gw;
	t.remote_ip = p->daddr;
	t.remote_port = p->dport;
	t.protocol = p->protocol;
	on_wire(&t, vni);
	back.seen = now;
	back.router = router;
	back.ip = p->saddr;
	back.port = p->sport;
	known = bpf_map_lookup_elem(&nats, &k);
	if (known && known->gw == gw) {
		port = known->port;
		t.port = port;
		struct tan *way = bpf_map_lookup_elem(&tans, &t);
		if (way) {
			placed = way->router == router && way->ip == p->saddr && way->port == p->sport;
			if (placed && now - way->seen > SEC_NS)
				way->seen = now;
		} else {
			placed = !bpf_map_update_elem(&tans, &t, &back, BPF_NOEXIST);
		}
		if (placed && now - known->seen > SEC_NS)
			known->seen = now;
	}
	if (!placed) {
		want = bpf_ntohs(p->sport);
		for (i = 0; i < NAT_TRIES; i++) {
			if (i || (want < 1024 && p->protocol != ICMP))
				want = 1024 + bpf_get_prandom_u32() % (65536 - 1024);
			t.port = bpf_htons(want);
			if (!bpf_map_update_elem(&tans, &t, &back, BPF_NOEXIST)) {
				placed = 1;
				break;
			}
		}
		if (!placed)
			return DROP_NAT + 1;
		port = t.port;
		fresh.seen = now;
		fresh.gw = gw;
		fresh.port = port;
		bpf_map_update_elem(&nats, &k, &fresh, BPF_ANY);
	}
	if (set_port(skb, p, 0, p->sport, port) || set_address(skb, p, 12, p->saddr, gw))
		return DROP_NAT + 1;
	return 0;
}

/* Finds whom an answer to a gateway address is for, and turns it round.
 * 0 and the router in *router, p->daddr as rewritten; 1: nobody; 2: malformed.
 */
static __always_inline int reveal(struct __sk_buff *skb, struct packet *p, __u64 *router)
{
	struct packet inner = {};
	struct tan_key t = {};
	struct nat_key k = {};
	struct tan *way;
	struct nat *known;
	__u64 now = bpf_ktime_get_coarse_ns();
	int error = icmp_error(p);

	t.gw = p->daddr;
	on_wire(&t, wire_of(skb));
	if (error) {
		if (parse_inner(skb, p, &inner) || inner.saddr != p->daddr)
			return 1;
		t.remote_ip = inner.daddr;
		t.port = inner.sport;
		t.remote_port = inner.dport;
		t.protocol = inner.protocol;
	} else {
		if (p->protocol == ICMP && !(echo(p) && p->type == 0))
			return 1;
		t.remote_ip = p->saddr;
		t.port = p->protocol == ICMP ? p->sport : p->dport;
		t.remote_port = p->protocol == ICMP ? 0 : p->sport;
		t.protocol = p->protocol;
	}
	way = bpf_map_lookup_elem(&tans, &t);
	if (!way && !error && p->protocol == UDP && !meet_expected(p, wire_of(skb)))
		way = bpf_map_lookup_elem(&tans, &t);
	if (!way)
		return 1;
	*router = way->router;
	if (error) {
		if (set_inner(skb, p, &inner, 1, way->ip, way->port))
			return 2;
	} else {
		if (now - way->seen > SEC_NS)
			way->seen = now;
		/* Both halves are looked at, so that neither ages out of its table alone. */
		k.router = way->router;
		k.local_ip = way->ip;
		k.remote_ip = p->saddr;
		k.local_port = way->port;
		k.remote_port = t.remote_port;
		k.protocol = p->protocol;
		known = bpf_map_lookup_elem(&nats, &k);
		if (known && now - known->seen > SEC_NS)
			known->seen = now;
		if (set_port(skb, p, 2, t.port, way->port))
			return 2;
	}
	if (set_address(skb, p, 16, p->daddr, way->ip))
		return 2;
	p->daddr = way->ip;
	return 0;
}

/* One-to-one: source to `to` on the way out (`out`), destination to `to` on the way in. */
__attribute__((noinline)) int translate(struct __sk_buff *skb, const struct packet *p, __u32 to, __u32 out)
{
	struct packet inner = {};
	__u32 from;

	if (!p)
		return DROP_NAT + 1;
	from = out ? p->saddr : p->daddr;
	if (icmp_error(p) && !parse_inner(skb, p, &inner)) {
		/* out: about a packet that came to us; in: about a packet that we sent */
		if (out && inner.daddr == from) {
			if (set_inner(skb, p, &inner, 0, to, inner.protocol == ICMP ? inner.sport : inner.dport))
				return DROP_NAT + 1;
		} else if (!out && inner.saddr == from) {
			if (set_inner(skb, p, &inner, 1, to, inner.sport))
				return DROP_NAT + 1;
		}
	}
	return set_address(skb, p, out ? 12 : 16, from, to) ? DROP_NAT + 1 : 0;
}

#endif
