/* A guest's IPv6: neighbours are answered here, routers and DHCPv6 by the agent, the rest is judged, switched and routed.
 *
 *   NS -> `addresses6` -> NA from here        RS, DHCPv6 -> rate limit -> packet socket -> agent
 *   NA of an address that several ports may have: it moves; RA, redirects, MLD of guests: dropped, nobody learns from them
 */
#ifndef PILVI_PLANE6_H
#define PILVI_PLANE6_H

#include "filter6.h"
#include "many.h"
#include "metadata6.h"
#include "meter6.h"
#include "quality.h"
#include "watch.h"

/* A packet on its way through routers. It stays as it was sent until it leaves them: another host that has the gateway gets it so. */
struct walk6 {
	__u64 router;
	__u32 vni; /* the network that the first one got it in */
	__u32 via;
	__u32 passed; /* routers behind it */
	__u32 pad;
};

/* Sends an ICMPv6 error from the leg that the packet came in by. */
__attribute__((noinline)) int send_error6(struct __sk_buff *skb, const struct packet6 *q, __u64 router, __u32 type, __u32 mtu)
{
	struct route6_key key = {.prefixlen = 192, .router_lo = router, .router_hi = router >> 32};
	struct ip6 from;
	struct route6 *r;

	if (!q)
		return drop(skb, DROP_MALFORMED);
	key.ip = q->saddr;
	r = bpf_map_lookup_elem(&routes6, &key);
	if (r)
		r = choose6(r, q);
	if (!r)
		return drop(skb, type == 3 ? DROP_TTL : DROP_TOO_BIG);
	from = r->own;
	drop(skb, type == 3 ? DROP_TTL : DROP_TOO_BIG); /* counts */
	if (refuse6(skb, q, &from, type, mtu))
		return TC_ACT_SHOT;
	skb->mark = MARK_AGENT;
	return give(skb, whose(skb));
}

/* Between two routers there is no guest at whose port a leg's firewall could be asked: nothing passes there. */
static __always_inline int firewalled_leg6(const struct hop *other, const struct route6 *own)
{
	struct firewall_key key = {.place = own->vni, .kind = FIREWALL_LEG};

	__builtin_memcpy(key.mac, other->mac, 6);
	if (bpf_map_lookup_elem(&firewalls, &key))
		return 1;
	__builtin_memcpy(key.mac, own->mac, 6);
	return !!bpf_map_lookup_elem(&firewalls, &key);
}

/* Not a verdict: an error is due to whoever sent it. The caller sends it: the stack is short. */
#define REFUSED_TTL (1 << 16)
#define REFUSED_SIZE (2 << 16) /* the lower half: what would fit */
#define TO_GATEWAY6 (4 << 16)  /* nor this: `send_gateway6` goes on */

/* What a router answers itself. */
__attribute__((noinline)) int answer_self6(struct __sk_buff *skb, const struct packet6 *q)
{
	if (!q || q->p.protocol != ICMP6 || q->p.type != ECHO6 || answer_echo6(skb, q))
		return drop(skb, DROP_NO_HOST);
	skb->mark = MARK_AGENT;
	return give(skb, whose(skb));
}

/* Out of the last router by a leg. */
static __always_inline int leave6(struct __sk_buff *skb, const struct packet6 *q, const struct walk6 *w, const struct route6 *r,
				  const struct hop *h)
{
	__u8 hops = q->p.ttl - w->passed - 1;

	if (h->kind != HOP_LOCAL && h->kind != HOP_REMOTE)
		return drop(skb, DROP_NO_HOST);
	/* A tunnel's packet must not leave by a tunnel again. */
	if (h->kind == HOP_REMOTE && w->via == VIA_OVERLAY)
		return drop(skb, DROP_NO_HOST);
	if (bpf_skb_store_bytes(skb, ETH_LEN + 7, &hops, 1, 0) || set_macs(skb, h->mac, r->mac))
		return drop(skb, DROP_MALFORMED);
	if (h->kind == HOP_REMOTE)
		return send_tunnel(skb, r->vni, h->where);
	return give(skb, h->where);
}

/* Forwards what router `w->router` got. A router that is the next hop of another one goes on at once: `w` names it then. A
 * verdict, or what the caller is to do.
 */
__attribute__((noinline)) int route_packet6(struct __sk_buff *skb, const struct packet6 *q, struct walk6 *w)
{
	struct settings *set = get_settings();
	struct route6_key key = {.prefixlen = 192};
	struct ip6_key target = {};
	__u32 length, n, in;
	struct route6 *r;
	struct hop *h;

	if (!q || !w || !set)
		return drop(skb, DROP_MALFORMED);
	key.ip = q->daddr;
	length = skb->gso_size ? skb->gso_size + IP6_LEN + 20 : q->p.length;
	/* Its own addresses answer ping. */
	in = target.vni = w->vni;
	target.ip = q->daddr;
	h = bpf_map_lookup_elem(&addresses6, &target);
	if (h && h->kind == HOP_ROUTER && h->how != ADDRESS_PROXY)
		return w->via == VIA_OVERLAY || h->router != w->router ? drop(skb, DROP_NO_HOST) : answer_self6(skb, q);
	for (n = 0; n < ROUTERS; n++) {
		key.router_lo = w->router;
		key.router_hi = w->router >> 32;
		r = bpf_map_lookup_elem(&routes6, &key);
		if (r)
			r = choose6(r, q);
		if (!r)
			return drop(skb, DROP_NO_ROUTE);
		if (r->scope && scope_of(in, 6) != r->scope)
			return drop(skb, DROP_SCOPE);
		if (r->kind == ROUTE_EXTERNAL)
			return w->via == VIA_EDGE ? drop(skb, DROP_NO_ROUTE) : TO_GATEWAY6;
		target.vni = r->vni;
		target.ip = none6(&r->via) ? q->daddr : r->via;
		h = bpf_map_lookup_elem(&addresses6, &target);
		if (!h)
			return drop(skb, DROP_NO_HOST);
		if (h->kind == HOP_ROUTER && same6(&target.ip, &q->daddr))
			return w->via == VIA_OVERLAY || h->router != w->router ? drop(skb, DROP_NO_HOST) : answer_self6(skb, q);
		if (q->p.ttl <= n + 1)
			return REFUSED_TTL;
		if (r->mtu && length > r->mtu)
			return REFUSED_SIZE | r->mtu;
		if (h->kind != HOP_ROUTER)
			return leave6(skb, q, w, r, h);
		if (h->router == w->router)
			return drop(skb, DROP_NO_HOST);
		if (set->flags & SETTING_FIREWALLS && firewalled_leg6(h, r))
			return drop(skb, DROP_FIREWALL);
		w->router = h->router;
		w->passed = n + 1;
		in = r->vni;
	}
	return drop(skb, DROP_TTL);
}

/* 1: more than the limits of the router's way out allow. They are one for both families: those of its IPv4 address if it has one. */
__attribute__((noinline)) int police_gateway6(struct __sk_buff *skb, const struct packet6 *q, __u64 router, __u32 direction)
{
	struct route6_key key6 = {.prefixlen = 192, .router_lo = router, .router_hi = router >> 32};
	struct route_key key = {.prefixlen = 96, .router_lo = router, .router_hi = router >> 32};
	struct route6 *r6;
	struct route *r;

	if (!q)
		return 1;
	r = bpf_map_lookup_elem(&routes, &key);
	if (r && r->kind == ROUTE_EXTERNAL && r->gw)
		return police(skb, LIMIT_ADDRESS, r->gw, direction);
	key6.ip = direction == FROM_GUEST ? q->daddr : q->saddr;
	r6 = bpf_map_lookup_elem(&routes6, &key6);
	if (r6)
		r6 = choose6(r6, q);
	if (!r6)
		return 0;
	return police(skb, LIMIT_ADDRESS6, r6->own.word[0] ^ r6->own.word[1] ^ r6->own.word[2] ^ r6->own.word[3], direction);
}

/* Out of the gateway of `w->router`: nothing is translated. A verdict, or REFUSED_*. */
__attribute__((noinline)) int send_gateway6(struct __sk_buff *skb, const struct packet6 *q, const struct walk6 *w)
{
	struct settings *set = get_settings();
	struct route6_key key = {.prefixlen = 192};
	struct nearby_key next = {};
	struct mac_key from = {};
	struct route6 *r;
	__u32 length;
	__u8 hops;

	if (!q || !w || !set)
		return drop(skb, DROP_MALFORMED);
	key.router_lo = w->router;
	key.router_hi = w->router >> 32;
	key.ip = q->daddr;
	r = bpf_map_lookup_elem(&routes6, &key);
	if (r)
		r = choose6(r, q);
	if (!r)
		return drop(skb, DROP_NO_ROUTE);
	if (r->vtep) /* another host has the gateway: it gets the frame as the guest sent it */
		return w->via == VIA_GUEST ? send_tunnel(skb, w->vni, r->vtep) : drop(skb, DROP_NO_ROUTE);
	if (!set->edge_if)
		return drop(skb, DROP_NO_EDGE);
	/* What is only here says nothing outside. */
	if (local6(&q->saddr))
		return drop(skb, DROP_RESERVED);
	if (q->p.ttl <= w->passed + 1)
		return REFUSED_TTL;
	length = skb->gso_size ? skb->gso_size + IP6_LEN + 20 : q->p.length;
	if (r->mtu && length > r->mtu)
		return REFUSED_SIZE | r->mtu;
	if (police_gateway6(skb, q, w->router, FROM_GUEST))
		return drop(skb, DROP_RATE);
	hops = q->p.ttl - w->passed - 1;
	if (bpf_skb_store_bytes(skb, ETH_LEN + 7, &hops, 1, 0))
		return drop(skb, DROP_MALFORMED);
	meter_packet6(skb, q, w->router, METER_OUT);
	next.vni = r->vni;
	next.ip = none6(&r->via) ? q->daddr : r->via;
	__builtin_memcpy(from.mac, r->mac, 6);
	return send_edge6(skb, &next, &from);
}

/* From where `w` says through routers, to a guest, another host or the edge link; who must know why not is told. */
static __always_inline int forward6(struct __sk_buff *skb, const struct packet6 *q, struct walk6 *w)
{
	int no = route_packet6(skb, q, w);

	if (no == TO_GATEWAY6)
		no = send_gateway6(skb, q, w);
	/* No error goes back through a tunnel. */
	if (no == REFUSED_TTL)
		return w->via == VIA_OVERLAY ? drop(skb, DROP_TTL) : send_error6(skb, q, w->router, 3, 0);
	if (no & REFUSED_SIZE)
		return w->via == VIA_OVERLAY ? drop(skb, DROP_TOO_BIG) : send_error6(skb, q, w->router, 2, no & 0xffff);
	return no;
}

/* Nobody outside has an address that is inside. */
static __always_inline int from_inside6(__u64 router, const struct ip6 *saddr)
{
	struct route6_key key = {.prefixlen = 192, .router_lo = router, .router_hi = router >> 32};
	struct route6 *r;

	key.ip = *saddr;
	r = bpf_map_lookup_elem(&routes6, &key);
	return r && (r->kind & ~ROUTE_SHARED) == ROUTE_LEG;
}

/* Whether the router answers for the address on the edge link, as its own or as another's. */
__attribute__((noinline)) int answers_for(const struct packet6 *q, __u64 router, __u32 vni)
{
	struct ip6_key key = {.vni = vni};
	struct hop *h;

	if (!q)
		return 0;
	key.ip = q->daddr;
	h = bpf_map_lookup_elem(&addresses6, &key);
	return h && h->kind == HOP_ROUTER && h->router == router;
}

/* Why a router does not take this from the external network `vni`, or 0. `how`: what it does there. */
static __always_inline int unwelcome6(const struct packet6 *q, __u64 router, __u32 vni, __u32 how)
{
	if (from_inside6(router, &q->saddr))
		return DROP_SPOOFED_IP + 1;
	return how == ADDRESS_PROXY && !answers_for(q, router, vni) ? DROP_EDGE + 1 : 0;
}

/* What the agent answers: the destination address tells it from which port. */
static __always_inline int ask_agent6(struct __sk_buff *skb, const struct port *port)
{
	return port->flags & PORT_ASKS6 ? punt(skb) : drop(skb, DROP_DHCP);
}

/* Who announces an address that several ports may have gets it. */
__attribute__((noinline)) int take_over6(struct __sk_buff *skb, const struct port *port, const struct eth *eth, const struct packet6 *q)
{
	struct ip6_key key = {};
	struct hop *h;

	if (!port || !eth || !q || q->p.length < IP6_LEN + 24)
		return 0;
	key.vni = port->vni;
	if (bpf_skb_load_bytes(skb, q->p.l4 + 8, &key.ip, 16))
		return 0;
	h = bpf_map_lookup_elem(&addresses6, &key);
	if (!h || h->how != ADDRESS_MOVES || h->kind != HOP_LOCAL || !owns6(whose(skb), &key.ip, eth))
		return 0;
	h->where = whose(skb);
	__builtin_memcpy(h->mac, eth->src, 6);
	return 0;
}

__attribute__((noinline)) int guest_neighbour(struct __sk_buff *skb, const struct port *port, const struct eth *eth,
					      const struct packet6 *q)
{
	struct settings *set = get_settings();
	struct hop service = {.kind = HOP_SERVICE};
	struct ip6_key key = {};
	struct neighbour ask = {};
	const struct hop *h;
	__u32 length;

	if (!port || !eth || !q || !set)
		return drop(skb, DROP_MALFORMED);
	key.vni = port->vni;
	length = q->p.length;
	if (q->p.ttl != 255 || q->p.code || q->p.l4 != ETH_LEN + IP6_LEN)
		return drop(skb, DROP_MALFORMED);
	if (q->p.type == ROUTER_ASK)
		return ask_agent6(skb, port);
	if (q->p.type == NEIGHBOUR_SAY)
		take_over6(skb, port, eth, q);
	if (q->p.type != NEIGHBOUR_ASK)
		return drop(skb, q->p.type == NEIGHBOUR_SAY ? DROP_ARP_UNKNOWN : DROP_SPOOFED_ARP);
	if (length < IP6_LEN + 24 || bpf_skb_load_bytes(skb, q->p.l4, &ask, 24))
		return drop(skb, DROP_MALFORMED);
	/* The option names the asker's hardware address: his own. */
	if (length >= IP6_LEN + 32 && bpf_skb_load_bytes(skb, q->p.l4 + 24, &ask.option, 8))
		return drop(skb, DROP_MALFORMED);
	if (port->flags & PORT_SECURED && ask.option == 1 && !same_mac(ask.mac, eth->src))
		return drop(skb, DROP_SPOOFED_ARP);
	key.ip = ask.target;
	h = bpf_map_lookup_elem(&addresses6, &key);
	if (!h && port->flags & PORT_METADATA && is_metadata6(&ask.target)) {
		__builtin_memcpy(service.mac, set->service_mac, 6);
		h = &service;
	}
	/* Somebody on the wire, perhaps: he answers himself. */
	if (!h && port->flags & PORT_EXTERNAL && !none6(&q->saddr))
		return out_edge(skb, port->vni, 0);
	/* Nobody hears of his own address: he has it. */
	if (!h || (h->kind == HOP_LOCAL && h->where == whose(skb)))
		return drop(skb, DROP_ARP_UNKNOWN);
	if (answer_neighbour(skb, &ask, h))
		return drop(skb, DROP_MALFORMED);
	skb->mark = MARK_AGENT;
	return give(skb, whose(skb));
}

__attribute__((noinline)) int guest_ip6(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct packet6 q = {};
	struct walk6 w = {.via = VIA_GUEST};
	struct mac_key key = {};
	__u32 ifindex = whose(skb);
	struct hop *h;
	__u64 router;
	int no;

	if (!port || !eth)
		return drop(skb, DROP_MALFORMED);
	no = parse6(skb, &q, ifindex);
	if (no)
		return drop(skb, no - 1);
	if (port->flags & PORT_SECURED) {
		/* From no address only questions about addresses come (RFC 4862), and who listens to what. */
		if (none6(&q.saddr) ? q.p.protocol != ICMP6 || !same_mac(eth->src, port->mac) : !owns6(ifindex, &q.saddr, eth))
			return drop(skb, same_mac(eth->src, port->mac) ? DROP_SPOOFED_IP : DROP_SPOOFED_MAC);
		if (q.p.protocol == UDP && q.p.sport == bpf_htons(547) && q.p.dport == bpf_htons(546))
			return drop(skb, DROP_DHCP);
	}
	if (port->flags & PORT_MARKED && set_class(skb, port->tos))
		return drop(skb, DROP_MALFORMED);
	if (neighbourly(&q.p))
		return guest_neighbour(skb, port, eth, &q);
	if (q.p.protocol == UDP && q.p.sport == bpf_htons(546) && q.p.dport == bpf_htons(547) && !q.p.later)
		return ask_agent6(skb, port);
	if (is_metadata6(&q.daddr))
		return guest_metadata6(skb, port, &q);
	/* Nobody is told who listens to what. */
	if (none6(&q.saddr) || (eth->dst[0] & 1) != multicast6(&q.daddr) || listens6(&q.p))
		return drop(skb, DROP_MULTICAST);
	if (port->flags & PORT_SECURED) {
		no = related6(skb, &q, FROM_GUEST) ? 0 : admit6(skb, &q, port, FROM_GUEST);
		if (no)
			return drop(skb, no - 1);
	}
	if (port->flags & PORT_FIREWALLED && !beyond_firewalls(skb)) {
		no = firewalled6(skb, &q, port, FROM_GUEST);
		if (no)
			return no == REJECTED ? reject6(skb, &q, FROM_GUEST) : drop(skb, no - 1);
	}
	if (port->flags & PORT_NAMES && is_resolver6(&q.daddr)) {
		no = guest_names6(skb, port, &q);
		if (no != NAMES_ELSEWHERE)
			return no;
	}
	if (eth->dst[0] & 1)
		return send_many(skb, port->vni);
	key.vni = port->vni;
	__builtin_memcpy(key.mac, eth->dst, 6);
	if (port->flags & PORT_EXTERNAL) {
		/* A way out of this host's takes it as if it had come by the wire. */
		key.family = 6;
		h = bpf_map_lookup_elem(&stations, &key);
		if (h && h->kind == HOP_ROUTER) {
			w.router = h->router;
			w.via = VIA_EDGE;
			no = unwelcome6(&q, w.router, port->vni, h->how);
			if (no)
				return drop(skb, no - 1);
			if (police_gateway6(skb, &q, w.router, TO_GUEST))
				return drop(skb, DROP_RATE);
		}
		key.family = 0;
	}
	h = bpf_map_lookup_elem(&stations, &key);
	if (h && h->kind == HOP_ROUTER && w.via == VIA_GUEST)
		w.router = h->router;
	if (!w.router)
		return switch_frame(skb, port, eth, 0);
	w.vni = port->vni;
	router = w.router;
	no = forward6(skb, &q, &w);
	if (w.via == VIA_EDGE && no == TC_ACT_REDIRECT && !skb->mark)
		meter_packet6(skb, &q, router, METER_IN);
	return no;
}

/* Whether the port's groups and firewalls let it in: 0, or the reason to drop, or a verdict beside REJECTED. */
__attribute__((noinline)) int welcome6(struct __sk_buff *skb, const struct port *port)
{
	struct packet6 q = {};
	int no;

	if (!port)
		return DROP_NO_PORT + 1;
	no = parse6(skb, &q, whose(skb) | 0x80000000u);
	if (no)
		return no;
	/* Who has which address is said by us alone; of a wire, by those who are there. */
	if (neighbourly(&q.p) && port->flags & PORT_EXTERNAL && q.p.type == NEIGHBOUR_SAY && q.p.ttl == 255)
		return 0;
	if (neighbourly(&q.p) && own_tag(skb))
		return 0;
	if (neighbourly(&q.p))
		return port->flags & PORT_SECURED ? DROP_SPOOFED_ARP + 1 : 0;
	if (port->flags & PORT_SECURED) {
		no = related6(skb, &q, TO_GUEST) ? 0 : admit6(skb, &q, port, TO_GUEST);
		if (no)
			return no;
	}
	if (!(port->flags & PORT_FIREWALLED))
		return 0;
	no = firewalled6(skb, &q, port, TO_GUEST);
	return no == REJECTED ? REJECTED | reject6(skb, &q, TO_GUEST) : no;
}

#endif
