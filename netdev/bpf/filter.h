/* Anti-spoofing and security groups.
 *
 *        new ---- rule allows ----> tracked <----- reply, or more of the same -----+
 *         |                            |                                           |
 *      no rule                    epoch is older than the agent's ---- rule still allows
 *         v                            |
 *       drop <------ no rule any more: cut, until a SYN, a new rule or idleness
 *
 * A cut flow keeps its entry: without it the next packet the other way would look like the first of a flow
 * that a rule for that direction may allow, and the connection would live on.
 * A flow has one entry for each port of this host that it touches, seen from that port, so one guest's
 * flows never decide about another's. TCP states are the few that choose a timeout: sequence numbers are
 * not checked.
 */
#ifndef PILVI_FILTER_H
#define PILVI_FILTER_H

#include "frame.h"
#include "note.h"

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

struct judge {
	__u64 policy;
	__u32 direction;
	__u32 peer;
	__u16 port; /* destination, network order */
	__u8 protocol;
	__u8 type;
	__u8 code;
	__u8 stateless; /* out: the rule that allowed it keeps no state */
	__u16 pad;
	__u32 realm;
	__u32 pad2;
};

/* 1: a rule of this chunk allows it; 0: go on with the next chunk; -1: there is none. */
__attribute__((noinline)) int judge_chunk(struct judge *j, __u32 index)
{
	struct chunk_key key = {};
	struct member_key member = {};
	struct chunk *c;
	struct rule *r;
	__u16 port;
	int i;

	if (!j)
		return -1;
	key.policy = j->policy;
	key.direction = j->direction;
	key.index = index;
	c = bpf_map_lookup_elem(&chunks, &key);
	if (!c)
		return -1;
	port = bpf_ntohs(j->port);
	for (i = 0; i < CHUNK_RULES; i++) {
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
			if (!bpf_map_lookup_elem(&members, &member))
				continue;
		} else if ((j->peer & r->mask) != r->net) {
			continue;
		}
		j->stateless = !!(r->flags & RULE_STATELESS);
		return 1;
	}
	return c->more ? 0 : -1;
}

static __always_inline int judged(struct judge *j)
{
	int i, r;

	for (i = 0; i < CHUNKS; i++) {
		r = judge_chunk(j, i);
		if (r)
			return r > 0;
	}
	return 0;
}

static __always_inline __u64 lifetime(__u8 protocol, const struct flow *f)
{
	if (f->state & FLOW_CUT)
		return protocol == TCP ? 300 * SEC_NS : 30 * SEC_NS;
	if (protocol == TCP) {
		if (f->state & FLOW_RESET)
			return 10 * SEC_NS;
		if (f->state & (FLOW_FIN_FIRST | FLOW_FIN_REPLY))
			return 120 * SEC_NS;
		return f->state & FLOW_REPLIED ? 432000 * SEC_NS : 60 * SEC_NS;
	}
	if (protocol == UDP)
		return f->state & FLOW_REPLIED ? 180 * SEC_NS : 30 * SEC_NS;
	return protocol == ICMP || protocol == ICMP6 ? 30 * SEC_NS : 600 * SEC_NS;
}

static __always_inline void judge_of(struct judge *j, const struct port *port, const struct flow_key *k, __u32 direction, __u8 type,
				     __u8 code)
{
	j->policy = port->policy;
	j->realm = port->realm;
	j->pad2 = 0;
	j->direction = direction;
	j->peer = k->remote_ip;
	j->port = direction == FROM_GUEST ? k->remote_port : k->local_port;
	j->protocol = k->protocol;
	j->type = type;
	j->code = code;
	j->stateless = 0;
	j->pad = 0;
}

static __always_inline void advance(struct flow *f, const struct packet *p, __u32 direction, __u64 now)
{
	__u8 state = f->state, reply = direction != f->direction;

	if (reply)
		state |= FLOW_REPLIED;
	if (p->protocol == TCP && !p->later) {
		if (p->tcp & TCP_RST)
			state |= FLOW_RESET;
		if (p->tcp & TCP_FIN)
			state |= reply ? FLOW_FIN_REPLY : FLOW_FIN_FIRST;
	}
	if (state != f->state)
		f->state = state;
	/* A second's precision is enough for lifetimes and spares the cache line. */
	if (now - f->seen > SEC_NS)
		f->seen = now;
}

/* An ICMP error belongs to the flow whose packet it carries. */
static __always_inline int related(struct __sk_buff *skb, const struct packet *p, struct flow_key *k, __u32 direction,
				   __u32 epoch, __u64 now)
{
	struct packet inner = {};
	struct flow *f;

	if (parse_inner(skb, p, &inner))
		return 0;
	k->protocol = inner.protocol;
	/* towards the guest: about a packet that the guest sent */
	k->local_ip = direction == TO_GUEST ? inner.saddr : inner.daddr;
	k->remote_ip = direction == TO_GUEST ? inner.daddr : inner.saddr;
	k->local_port = inner.protocol == ICMP || direction == TO_GUEST ? inner.sport : inner.dport;
	if (inner.protocol == ICMP)
		k->remote_port = inner.type == 8 ? !direction : direction;
	else
		k->remote_port = direction == TO_GUEST ? inner.dport : inner.sport;
	f = bpf_map_lookup_elem(&flows, k);
	return f && f->epoch == epoch && !(f->state & FLOW_CUT) && now - f->seen < lifetime(k->protocol, f);
}

/* Whether a tracked flow still counts: not idle too long, and not one that has ended and begins anew. */
static __always_inline int lives(const struct flow *f, const struct packet *p, __u8 protocol, __u64 now)
{
	if (now > f->seen && now - f->seen >= lifetime(protocol, f))
		return 0;
	return !(p->protocol == TCP && (p->tcp & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
		 f->state & (FLOW_RESET | FLOW_FIN_FIRST | FLOW_FIN_REPLY | FLOW_CUT));
}

/* What the rules say now of a flow that was judged under older ones. */
static __always_inline void rejudge(struct flow *f, int allowed, __u32 epoch)
{
	if (allowed)
		f->state &= ~FLOW_CUT;
	else
		f->state |= FLOW_CUT;
	f->epoch = epoch;
}

/* Room for one more flow of a port: 0, or the reason to drop. The count is only worth something while the agent
 * recounts it.
 */
static __always_inline int room(__u32 ifindex, const struct settings *set, __u64 now)
{
	__u32 zero = 0;
	struct live *l = bpf_map_lookup_elem(&live, &ifindex);
	__u64 *swept = bpf_map_lookup_elem(&sweeps, &zero);

	if (!l)
		return 0;
	if (l->flows >= set->flow_cap && swept && now - *swept < 60 * SEC_NS)
		return DROP_FLOW_CAP + 1;
	__sync_fetch_and_add(&l->flows, 1);
	return 0;
}

static __always_inline void begin(struct flow *f, const struct packet *p, __u32 direction, __u32 epoch, __u64 now)
{
	f->seen = now;
	f->epoch = epoch;
	f->direction = direction;
	f->type = p->type;
	f->code = p->code;
}

/* Whether the groups of the frame's port let this packet pass. 0, ADMITTED_FIRST, or the reason to drop it. */
__attribute__((noinline)) int judge_packet(struct __sk_buff *skb, const struct packet *p, const struct port *port, __u32 direction)
{
	__u32 no = (direction == FROM_GUEST ? DROP_GROUP_OUT : DROP_GROUP_IN) + 1, ifindex = whose(skb);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct settings *set = get_settings();
	struct flow_key k = {};
	struct flow *f, fresh = {};
	struct judge j = {};
	int full;

	if (!p || !port || !set)
		return no;
	k.ifindex = ifindex;
	if (icmp_error(p) && related(skb, p, &k, direction, set->epoch, now))
		return 0;
	k.protocol = p->protocol;
	k.local_ip = direction == FROM_GUEST ? p->saddr : p->daddr;
	k.remote_ip = direction == FROM_GUEST ? p->daddr : p->saddr;
	if (p->protocol == ICMP) {
		/* Who asked is part of the key: both ends may ask with the same identifier. */
		k.local_port = p->sport;
		k.remote_port = p->type == 8 ? direction : !direction;
	} else {
		k.local_port = direction == FROM_GUEST ? p->sport : p->dport;
		k.remote_port = direction == FROM_GUEST ? p->dport : p->sport;
	}
	/* What is neither question nor answer belongs to no flow. */
	f = p->protocol == ICMP && !echo(p) ? 0 : bpf_map_lookup_elem(&flows, &k);
	if (f && lives(f, p, k.protocol, now)) {
		if (f->epoch != set->epoch) {
			judge_of(&j, port, &k, f->direction, f->type, f->code);
			rejudge(f, judged(&j), set->epoch);
		}
		if (f->state & FLOW_CUT) {
			if (p->protocol == TCP)
				f->seen = now;
			return no;
		}
		advance(f, p, direction, now);
		return 0;
	}
	judge_of(&j, port, &k, direction, p->type, p->code);
	if (!judged(&j))
		return no;
	/* Only what can be answered is tracked; a later fragment follows its first. */
	if (j.stateless || p->later || (p->protocol == ICMP && !(echo(p) && p->type == 8)))
		return p->later ? 0 : ADMITTED_FIRST;
	if (p->protocol == TCP && p->tcp & TCP_RST)
		return ADMITTED_FIRST;
	full = room(ifindex, set, now);
	if (full)
		return full;
	begin(&fresh, p, direction, set->epoch, now);
	bpf_map_update_elem(&flows, &k, &fresh, BPF_ANY);
	return ADMITTED_FIRST;
}

/* The same with a note of it, where the port has one taken. 0, or the reason to drop it. */
static __always_inline int admit(struct __sk_buff *skb, const struct packet *p, const struct port *port, __u32 direction)
{
	return noting(skb, p, port, direction, 0, judge_packet(skb, p, port, direction));
}

/* Whether the guest behind `ifindex` may use this pair of addresses. */
static __always_inline int owns(const struct port *port, __u32 ifindex, __u32 ip, const __u8 *mac)
{
	struct source_key key = {.prefixlen = 64, .ifindex = ifindex, .ip = ip};
	struct source *s;
	int i;

	if (ip == port->ip && same_mac(mac, port->mac))
		return 1;
	s = bpf_map_lookup_elem(&sources, &key);
	if (!s)
		return 0;
	for (i = 0; i < SOURCE_MACS; i++)
		if (same_mac(s->mac[i], mac))
			return 1;
	return 0;
}

#endif
