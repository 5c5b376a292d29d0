/* Firewalls: ordered lists of rules that are asked beside the groups. Both must allow.
 *
 *   a port's own    asked of all that the port sends (egress) and gets (ingress)
 *   a router leg's  asked at the ports of the leg's network: of what they send to the leg's hardware address (egress: it enters
 *                   the router there) and of what comes from it (ingress: it leaves the router there)
 *
 *   packet --> known flow? --> passes, or was cut
 *         \--> first rule that fits: allowed --> the flow is known from now on
 *                            refused, or none fits --> dropped
 *                            rejected --> dropped, and an ICMP error says so: to the port itself, or as if its guest had sent it
 *
 * Both ways of a flow pass the guest's own port, wherever the other end is, so one host knows all of it: a leg needs no place
 * of its own. Flows live and are judged anew as filter.h says. One table serves both families; who has no firewall pays for
 * none of this.
 */
#ifndef PILVI_FIREWALL_H
#define PILVI_FIREWALL_H

#include "filter6.h"

/* Not a reason to drop: the rule says that the sender be told. */
#define REJECTED 0x200
#define MARK_REJECT 0x70696c72u /* an error about what the guest has not got: it goes the guest's way, but no firewall judges it */

struct firewall_ask {
	struct firewall_flow_key k;
	__u64 policy;
	__u32 direction;
	__u32 vni;
	__u32 related; /* it stands for a packet that an ICMP error is about */
	__u32 pad;
};

/* The stack is short. Nothing that runs in between asks a firewall too. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct firewall_ask);
} firewall_asks SEC(".maps");

static __always_inline int fits(const struct firewall_rule *r, const struct firewall_ask *a)
{
	const struct ip6 *source = &a->k.remote_ip, *destination = &a->k.local_ip;
	__u16 from = bpf_ntohs(a->k.remote_port), to = bpf_ntohs(a->k.local_port);

	if (a->direction == FROM_GUEST) {
		source = &a->k.local_ip;
		destination = &a->k.remote_ip;
		from = bpf_ntohs(a->k.local_port);
		to = bpf_ntohs(a->k.remote_port);
	}
	if (r->flags & FIREWALL_PROTOCOL && r->protocol != a->k.protocol)
		return 0;
	if (r->flags & FIREWALL_SOURCE_PORTS && (from < r->source_low || from > r->source_high))
		return 0;
	if (r->flags & FIREWALL_PORTS && (to < r->low || to > r->high))
		return 0;
	return within6(source, &r->source, &r->source_mask) && within6(destination, &r->destination, &r->destination_mask);
}

/* 1: the first rule that fits allows it; -1: it refuses, or there is none; -2: it rejects; 0: go on with the next chunk. */
__attribute__((noinline)) int firewall_chunk(const struct firewall_ask *a, __u32 index)
{
	struct chunk_key key = {};
	struct firewall_chunk *c;
	__u8 flags;
	int i;

	if (!a)
		return -1;
	key.policy = a->policy;
	key.direction = a->direction | (a->k.family == 6 ? FIREWALL_V6 : 0);
	key.index = index;
	c = bpf_map_lookup_elem(&firewall_rules, &key);
	if (!c)
		return -1;
	for (i = 0; i < FIREWALL_RULES; i++) {
		if (i >= c->used)
			break;
		if (fits(&c->rule[i], a)) {
			flags = c->rule[i].flags;
			return flags & FIREWALL_ALLOWS ? 1 : flags & FIREWALL_REJECTS ? -2 : -1;
		}
	}
	return c->more ? 0 : -1;
}

/* The same of the whole list. */
static __always_inline int firewall_says(const struct firewall_ask *a)
{
	int i, r;

	for (i = 0; i < FIREWALL_CHUNKS; i++) {
		r = firewall_chunk(a, i);
		if (r)
			return r;
	}
	return -1;
}

/* Whether one firewall lets the packet pass. 0, REJECTED, or the reason to drop it. */
__attribute__((noinline)) int firewall_judge(const struct packet *p, struct firewall_ask *a)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct settings *set = get_settings();
	struct flow *f, fresh = {};
	int question, said, full;
	__u32 direction;

	if (!p || !a || !set)
		return DROP_FIREWALL + 1;
	question = a->k.family == 6 ? echo6(p) && p->type == ECHO6 : echo(p) && p->type == 8;
	f = bpf_map_lookup_elem(&firewall_flows, &a->k);
	if (a->related)
		return f && f->epoch == set->epoch && !(f->state & FLOW_CUT) && now - f->seen < lifetime(a->k.protocol, f) ?
			       0 :
			       DROP_FIREWALL + 1;
	/* What is neither question nor answer belongs to no flow. */
	if ((p->protocol == ICMP && a->k.family == 4 && !echo(p)) || (p->protocol == ICMP6 && a->k.family == 6 && !echo6(p)))
		f = 0;
	direction = a->direction;
	if (f && lives(f, p, a->k.protocol, now)) {
		if (f->epoch != set->epoch) {
			a->direction = f->direction;
			said = firewall_says(a);
			a->direction = direction;
			rejudge(f, said > 0, set->epoch);
		}
		if (f->state & FLOW_CUT) {
			if (p->protocol == TCP)
				f->seen = now;
			return DROP_FIREWALL + 1;
		}
		advance(f, p, direction, now);
		return 0;
	}
	said = firewall_says(a);
	if (said < 0)
		return said == -2 ? REJECTED : DROP_FIREWALL + 1;
	/* Only what can be answered is known; a later fragment follows its first. */
	if (p->later || (p->protocol == (a->k.family == 6 ? ICMP6 : ICMP) && !question) || (p->protocol == TCP && p->tcp & TCP_RST))
		return 0;
	full = room(a->k.port, set, now);
	if (full)
		return full;
	begin(&fresh, p, direction, set->epoch, now);
	bpf_map_update_elem(&firewall_flows, &a->k, &fresh, BPF_ANY);
	return 0;
}

/* Whether the router answers for the address itself, or this host does: a leg's firewall judges what passes the router. */
__attribute__((noinline)) int of_router(const struct firewall_ask *a)
{
	struct route_key key = {.prefixlen = 96};
	struct ip_key target = {};
	struct route *r;
	struct hop *h;

	if (!a)
		return 0;
	key.router_lo = a->k.router;
	key.router_hi = a->k.router >> 32;
	key.ip = target.ip = a->k.remote_ip.word[0];
	if (key.ip == RESOLVER_IP)
		return 1;
	r = bpf_map_lookup_elem(&routes, &key);
	if (!r || r->kind != ROUTE_LEG)
		return 0;
	target.vni = r->vni;
	h = bpf_map_lookup_elem(&addresses, &target);
	return h && h->kind == HOP_ROUTER && h->router == a->k.router;
}

__attribute__((noinline)) int of_router6(const struct firewall_ask *a)
{
	struct route6_key key = {.prefixlen = 192};
	struct ip6_key target = {};
	struct route6 *r;
	struct hop *h;

	if (!a)
		return 0;
	target.vni = a->vni;
	target.ip = a->k.remote_ip;
	/* Its link-local addresses are on no route. */
	h = bpf_map_lookup_elem(&addresses6, &target);
	if (h)
		return h->kind == HOP_ROUTER && h->router == a->k.router;
	if (is_resolver6(&target.ip))
		return 1;
	key.router_lo = a->k.router;
	key.router_hi = a->k.router >> 32;
	key.ip = target.ip;
	r = bpf_map_lookup_elem(&routes6, &key);
	if (!r || r->kind != ROUTE_LEG)
		return 0;
	target.vni = r->vni;
	h = bpf_map_lookup_elem(&addresses6, &target);
	return h && h->kind == HOP_ROUTER && h->router == a->k.router;
}

/* Asks the port's own firewall, and that of the leg that the packet comes from or goes to. 0, REJECTED, or the reason to drop it. */
__attribute__((noinline)) int firewalls_of(struct __sk_buff *skb, const struct packet *p, struct firewall_ask *a)
{
	struct firewall_key key = {.kind = FIREWALL_PORT};
	struct firewall *w;
	int no;

	if (!p || !a)
		return DROP_FIREWALL + 1;
	key.place = a->k.port;
	w = bpf_map_lookup_elem(&firewalls, &key);
	if (w) {
		a->policy = w->policy;
		no = firewall_judge(p, a);
		if (no)
			return no;
	}
	key.place = a->vni;
	key.kind = FIREWALL_LEG;
	if (bpf_skb_load_bytes(skb, a->direction == FROM_GUEST ? 0 : 6, key.mac, 6))
		return DROP_MALFORMED + 1;
	w = bpf_map_lookup_elem(&firewalls, &key);
	if (!w)
		return 0;
	a->policy = w->policy;
	a->k.router = w->router;
	no = firewall_judge(p, a);
	if (no && a->direction == FROM_GUEST && (a->k.family == 6 ? of_router6(a) : of_router(a)))
		no = 0;
	a->k.router = 0;
	return no;
}

static __always_inline struct firewall_ask *new_ask(struct __sk_buff *skb, const struct port *port, __u32 direction, __u8 family)
{
	__u32 zero = 0;
	struct firewall_ask *a = bpf_map_lookup_elem(&firewall_asks, &zero);

	if (!a)
		return 0;
	__builtin_memset(a, 0, sizeof(*a));
	a->k.port = whose(skb);
	a->k.family = family;
	a->vni = port->vni;
	a->direction = direction;
	return a;
}

/* The ports of a flow's key; of an echo: who asked. */
static __always_inline void ask_ports(struct firewall_ask *a, const struct packet *p, __u32 direction, __u32 icmp, __u32 asks)
{
	a->k.protocol = p->protocol;
	if (p->protocol == icmp) {
		a->k.local_port = p->sport;
		a->k.remote_port = p->type == asks ? direction : !direction;
	} else {
		a->k.local_port = direction == FROM_GUEST ? p->sport : p->dport;
		a->k.remote_port = direction == FROM_GUEST ? p->dport : p->sport;
	}
}

static __always_inline void ask_of(struct firewall_ask *a, const struct packet *p, __u32 direction)
{
	a->k.local_ip.word[0] = direction == FROM_GUEST ? p->saddr : p->daddr;
	a->k.remote_ip.word[0] = direction == FROM_GUEST ? p->daddr : p->saddr;
	ask_ports(a, p, direction, ICMP, 8);
}

static __always_inline void ask_of6(struct firewall_ask *a, const struct packet6 *q, __u32 direction)
{
	a->k.local_ip = direction == FROM_GUEST ? q->saddr : q->daddr;
	a->k.remote_ip = direction == FROM_GUEST ? q->daddr : q->saddr;
	ask_ports(a, &q->p, direction, ICMP6, ECHO6);
}

/* 0, REJECTED, or the reason to drop it. An ICMP error passes with the flow that it is about. */
__attribute__((noinline)) int firewalled(struct __sk_buff *skb, const struct packet *p, const struct port *port, __u32 direction)
{
	struct packet inner = {};
	struct firewall_ask *a;

	if (!p || !port)
		return DROP_FIREWALL + 1;
	a = new_ask(skb, port, direction, 4);
	if (!a)
		return DROP_FIREWALL + 1;
	if (icmp_error(p) && !parse_inner(skb, p, &inner)) {
		a->related = 1;
		ask_of(a, &inner, !direction);
		if (!firewalls_of(skb, p, a))
			return 0;
		a->related = 0;
	}
	ask_of(a, p, direction);
	return firewalls_of(skb, p, a);
}

__attribute__((noinline)) int firewalled6(struct __sk_buff *skb, const struct packet6 *q, const struct port *port, __u32 direction)
{
	struct packet6 inner = {};
	struct firewall_ask *a;

	if (!q || !port)
		return DROP_FIREWALL + 1;
	a = new_ask(skb, port, direction, 6);
	if (!a)
		return DROP_FIREWALL + 1;
	if (icmp6_error(&q->p) && !parse_inner6(skb, q, &inner)) {
		a->related = 1;
		ask_of6(a, &inner, !direction);
		if (!firewalls_of(skb, &q->p, a))
			return 0;
		a->related = 0;
	}
	ask_of6(a, q, direction);
	return firewalls_of(skb, &q->p, a);
}

/* Where an error about a frame goes that has been turned into it: to the guest that sent it; or the way of what the guest sends
 * by itself, who might have answered so.
 */
static __always_inline int tell(struct __sk_buff *skb, __u32 direction)
{
	if (direction == TO_GUEST) {
		skb->mark = MARK_REJECT;
		return bpf_redirect(ifindex_of(skb), BPF_F_INGRESS);
	}
	skb->mark = MARK_AGENT;
	return give(skb, whose(skb));
}

__attribute__((noinline)) int reject(struct __sk_buff *skb, const struct packet *p, __u32 direction)
{
	drop(skb, DROP_FIREWALL); /* counts */
	/* Nobody there. */
	if (!p || refuse(skb, p, p->daddr, 3 << 8 | 3, 0))
		return TC_ACT_SHOT;
	return tell(skb, direction);
}

__attribute__((noinline)) int reject6(struct __sk_buff *skb, const struct packet6 *q, __u32 direction)
{
	struct ip6 from;

	drop(skb, DROP_FIREWALL);
	if (!q)
		return TC_ACT_SHOT;
	from = q->daddr;
	if (refuse6(skb, q, &from, 1 | 4 << 8, 0))
		return TC_ACT_SHOT;
	return tell(skb, direction);
}

/* Between two routers there is no guest at whose port a leg's firewall could be asked: nothing passes there. */
__attribute__((noinline)) int firewalled_leg(__u32 vni, const struct hop *other, const struct route *own)
{
	struct firewall_key key = {.place = vni, .kind = FIREWALL_LEG};

	if (!other || !own)
		return 1;
	__builtin_memcpy(key.mac, other->mac, 6);
	if (bpf_map_lookup_elem(&firewalls, &key))
		return 1;
	__builtin_memcpy(key.mac, own->mac, 6);
	return !!bpf_map_lookup_elem(&firewalls, &key);
}

#endif
