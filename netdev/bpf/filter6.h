/* Security groups and anti-spoofing of IPv6: the flow's life is filter.h's, the keys are longer. */
#ifndef PILVI_FILTER6_H
#define PILVI_FILTER6_H

#include "filter.h"
#include "frame6.h"

struct judge6 {
	__u64 policy;
	__u32 direction;
	__u16 port; /* destination, network order */
	__u8 protocol;
	__u8 type;
	__u8 code;
	__u8 stateless; /* out: the rule that allowed it keeps no state */
	__u16 pad;
	struct ip6 peer;
	__u32 realm;
};

static __always_inline int within6(const struct ip6 *ip, const struct ip6 *net, const struct ip6 *mask)
{
	return (ip->word[0] & mask->word[0]) == net->word[0] && (ip->word[1] & mask->word[1]) == net->word[1] &&
	       (ip->word[2] & mask->word[2]) == net->word[2] && (ip->word[3] & mask->word[3]) == net->word[3];
}

/* 1: a rule of this chunk allows it; 0: go on with the next chunk; -1: there is none. */
__attribute__((noinline)) int judge_chunk6(struct judge6 *j, __u32 index)
{
	struct chunk_key key = {};
	struct member6_key member = {};
	struct chunk6 *c;
	struct rule6 *r;
	__u16 port;
	int i;

	if (!j)
		return -1;
	key.policy = j->policy;
	key.direction = j->direction;
	key.index = index;
	c = bpf_map_lookup_elem(&chunks6, &key);
	if (!c)
		return -1;
	port = bpf_ntohs(j->port);
	for (i = 0; i < CHUNK6_RULES; i++) {
		if (i >= c->used)
			break;
		r = &c->rule[i];
		if (r->flags & RULE_PROTOCOL && r->protocol != j->protocol)
			continue;
		if (r->flags & RULE_PORTS && (port < r->low || port > r->high))
			continue;
		if (r->flags & RULE_TYPE && r->type != j->type)
			continue;
		if (r->flags & RULE_CODE && r->code != j->code)
			continue;
		if (r->flags & RULE_GROUP) {
			member.group = r->group;
			member.ip = j->peer;
			member.realm = j->realm;
			if (!bpf_map_lookup_elem(&members6, &member))
				continue;
		} else if (!within6(&j->peer, &r->net, &r->mask)) {
			continue;
		}
		j->stateless = !!(r->flags & RULE_STATELESS);
		return 1;
	}
	return c->more ? 0 : -1;
}

static __always_inline int judged6(struct judge6 *j)
{
	int i, r;

	for (i = 0; i < CHUNKS; i++) {
		r = judge_chunk6(j, i);
		if (r)
			return r > 0;
	}
	return 0;
}

static __always_inline void judge6_of(struct judge6 *j, const struct port *port, const struct flow6_key *k, __u32 direction, __u8 type,
				      __u8 code)
{
	j->policy = port->policy;
	j->realm = port->realm;
	j->direction = direction;
	j->peer = k->remote_ip;
	j->port = direction == FROM_GUEST ? k->remote_port : k->local_port;
	j->protocol = k->protocol;
	j->type = type;
	j->code = code;
	j->stateless = 0;
	j->pad = 0;
}

/* Whether an ICMPv6 error belongs to a flow of the port. Asked before `admit6` and not by it: the stack is short. */
__attribute__((noinline)) int related6(struct __sk_buff *skb, const struct packet6 *q, __u32 direction)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct settings *set = get_settings();
	struct packet6 inner = {};
	struct flow6_key k = {};
	struct flow *f;

	if (!q || !set || !icmp6_error(&q->p) || parse_inner6(skb, q, &inner))
		return 0;
	k.ifindex = whose(skb);
	k.protocol = inner.p.protocol;
	k.local_ip = direction == TO_GUEST ? inner.saddr : inner.daddr;
	k.remote_ip = direction == TO_GUEST ? inner.daddr : inner.saddr;
	k.local_port = inner.p.protocol == ICMP6 || direction == TO_GUEST ? inner.p.sport : inner.p.dport;
	if (inner.p.protocol == ICMP6)
		k.remote_port = inner.p.type == ECHO6 ? !direction : direction;
	else
		k.remote_port = direction == TO_GUEST ? inner.p.dport : inner.p.sport;
	f = bpf_map_lookup_elem(&flows6, &k);
	return f && f->epoch == set->epoch && !(f->state & FLOW_CUT) && now - f->seen < lifetime(k.protocol, f);
}

/* Whether the groups of the port let this packet pass. 0, ADMITTED_FIRST, or the reason to drop it. */
__attribute__((noinline)) int judge_packet6(struct __sk_buff *skb, const struct packet6 *q, const struct port *port, __u32 direction)
{
	__u32 no = (direction == FROM_GUEST ? DROP_GROUP_OUT : DROP_GROUP_IN) + 1, ifindex = whose(skb);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct settings *set = get_settings();
	struct flow6_key k = {};
	struct flow *f, fresh = {};
	struct judge6 j = {};
	const struct packet *p;
	int full;

	if (!q || !port || !set)
		return no;
	p = &q->p;
	k.ifindex = ifindex;
	k.protocol = p->protocol;
	k.local_ip = direction == FROM_GUEST ? q->saddr : q->daddr;
	k.remote_ip = direction == FROM_GUEST ? q->daddr : q->saddr;
	if (p->protocol == ICMP6) {
		k.local_port = p->sport;
		k.remote_port = p->type == ECHO6 ? direction : !direction;
	} else {
		k.local_port = direction == FROM_GUEST ? p->sport : p->dport;
		k.remote_port = direction == FROM_GUEST ? p->dport : p->sport;
	}
	f = p->protocol == ICMP6 && !echo6(p) ? 0 : bpf_map_lookup_elem(&flows6, &k);
	if (f && lives(f, p, k.protocol, now)) {
		if (f->epoch != set->epoch) {
			judge6_of(&j, port, &k, f->direction, f->type, f->code);
			rejudge(f, judged6(&j), set->epoch);
		}
		if (f->state & FLOW_CUT) {
			if (p->protocol == TCP)
				f->seen = now;
			return no;
		}
		advance(f, p, direction, now);
		return 0;
	}
	judge6_of(&j, port, &k, direction, p->type, p->code);
	if (!judged6(&j))
		return no;
	if (j.stateless || p->later || (p->protocol == ICMP6 && !(echo6(p) && p->type == ECHO6)))
		return p->later ? 0 : ADMITTED_FIRST;
	if (p->protocol == TCP && p->tcp & TCP_RST)
		return ADMITTED_FIRST;
	full = room(ifindex, set, now);
	if (full)
		return full;
	begin(&fresh, p, direction, set->epoch, now);
	bpf_map_update_elem(&flows6, &k, &fresh, BPF_ANY);
	return ADMITTED_FIRST;
}

static __always_inline int admit6(struct __sk_buff *skb, const struct packet6 *q, const struct port *port, __u32 direction)
{
	return noting(skb, &q->p, port, direction, NOTE_V6, judge_packet6(skb, q, port, direction));
}

/* Whether the guest behind `ifindex` may use this pair of addresses. */
__attribute__((noinline)) int owns6(__u32 ifindex, const struct ip6 *ip, const struct eth *eth)
{
	struct source6_key key = {.prefixlen = 160, .ifindex = ifindex};
	struct source *s;
	int i;

	if (!ip || !eth)
		return 0;
	key.ip = *ip;
	s = bpf_map_lookup_elem(&sources6, &key);
	if (!s)
		return 0;
	for (i = 0; i < SOURCE_MACS; i++)
		if (same_mac(s->mac[i], eth->src))
			return 1;
	return 0;
}

#endif
