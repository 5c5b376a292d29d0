/* Reading and rewriting IPv6 frames, with the same distrust as frame.h: extension headers are walked within a bound,
 * and what does not end in it is dropped.
 */
#ifndef PILVI_FRAME6_H
#define PILVI_FRAME6_H

#include "frame.h"

#define EXTENSIONS 4
#define HOP_BY_HOP 0
#define ROUTING 43
#define FRAGMENT 44
#define OPTIONS 60

#define ECHO6 128
#define ECHO6_REPLY 129
#define ROUTER_ASK 133
#define ROUTER_SAY 134
#define NEIGHBOUR_ASK 135
#define NEIGHBOUR_SAY 136
#define REDIRECT6 137

struct packet6 {
	struct packet p; /* everything but the addresses; `sport` of an echo is its identifier */
	struct ip6 saddr;
	struct ip6 daddr;
};

struct ip6_header {
	__u32 version_class_flow;
	__u16 length;
	__u8 next;
	__u8 hops;
	struct ip6 saddr;
	struct ip6 daddr;
};

struct neighbour {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__u32 flags;
	struct ip6 target;
	__u8 option;
	__u8 option_len; /* of eight bytes */
	__u8 mac[6];
};

static __always_inline int same6(const struct ip6 *a, const struct ip6 *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline struct route6 *choose6(struct route6 *r, const struct packet6 *q)
{
	struct choice_key key = {};

	if (!(r->kind & ROUTE_SHARED))
		return r;
	key.group_lo = r->via.word[0];
	key.group_hi = r->via.word[1];
	key.index = flow_hash(q->saddr.word[2] ^ q->saddr.word[3], q->daddr.word[1] ^ q->daddr.word[3], &q->p) % (r->vni ? r->vni : 1);
	return bpf_map_lookup_elem(&choices6, &key);
}

static __always_inline int none6(const struct ip6 *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

static __always_inline int multicast6(const struct ip6 *a)
{
	return (a->word[0] & bpf_htonl(0xff000000u)) == bpf_htonl(0xff000000u);
}

static __always_inline int local6(const struct ip6 *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000u)) == bpf_htonl(0xfe800000u);
}

static __always_inline int echo6(const struct packet *p)
{
	return p->protocol == ICMP6 && (p->type == ECHO6 || p->type == ECHO6_REPLY) && p->code == 0;
}

static __always_inline int icmp6_error(const struct packet *p)
{
	return p->protocol == ICMP6 && !p->later && p->type >= 1 && p->type <= 4;
}

static __always_inline int neighbourly(const struct packet *p)
{
	return p->protocol == ICMP6 && p->type >= ROUTER_ASK && p->type <= REDIRECT6;
}

/* Who listens to what (MLD). */
static __always_inline int listens6(const struct packet *p)
{
	return p->protocol == ICMP6 && ((p->type >= 130 && p->type <= 132) || p->type == 143);
}

/* 0, or the reason to drop the frame. */
__attribute__((noinline)) int parse6(struct __sk_buff *skb, struct packet6 *q, __u32 scope)
{
	struct fragment6_key key = {};
	struct fragment ports = {}, *known;
	struct ip6_header ip;
	__u32 at = ETH_LEN + IP6_LEN, fragment = 0, end;
	__u8 next, head[8], l4[14] = {};
	struct packet *p;
	int i;

	if (!q)
		return DROP_MALFORMED + 1;
	p = &q->p;
	if (bpf_skb_load_bytes(skb, ETH_LEN, &ip, sizeof(ip)))
		return DROP_MALFORMED + 1;
	end = at + bpf_ntohs(ip.length);
	if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6 || end > skb->len || multicast6(&ip.saddr))
		return DROP_MALFORMED + 1;
	q->saddr = ip.saddr;
	q->daddr = ip.daddr;
	p->ttl = ip.hops;
	p->length = IP6_LEN + bpf_ntohs(ip.length);
	p->sport = p->dport = 0;
	p->tcp = p->type = p->code = p->later = 0;
	p->whole = 1;
	next = ip.next;
	for (i = 0; i < EXTENSIONS; i++) {
		if (next != HOP_BY_HOP && next != FRAGMENT && next != OPTIONS && next != ROUTING)
			break;
		/* Source routes go around what the groups say (RFC 5095 for the worst kind). */
		if (next == ROUTING || at + 8 > end || bpf_skb_load_bytes(skb, at, head, 8))
			return DROP_MALFORMED + 1;
		if (next == FRAGMENT) {
			fragment = head[2] << 8 | head[3];
			__builtin_memcpy(&key.id, head + 4, 4);
			key.scope = scope;
			key.saddr = ip.saddr;
			key.daddr = ip.daddr;
			at += 8;
		} else {
			at += (head[1] + 1) * 8;
		}
		next = head[0];
		if (fragment & 0xfff8)
			break;
	}
	p->protocol = next;
	p->l4 = at;
	if (fragment & 0xfff8) {
		known = bpf_map_lookup_elem(&fragments6, &key);
		if (!known)
			return DROP_FRAGMENT + 1;
		/* Who puts the packet together believes the first fragment, not what this one says of itself. */
		next = known->protocol;
		p->protocol = next;
		p->sport = known->sport;
		p->dport = known->dport;
		if (next == ICMP6) {
			p->type = known->dport >> 8;
			p->code = known->dport & 255;
			p->dport = 0;
		}
		p->later = 1;
		return 0;
	}
	/* Headers without end, or a chain that a fragment cut. */
	if (next == HOP_BY_HOP || next == FRAGMENT || next == OPTIONS || next == ROUTING)
		return DROP_MALFORMED + 1;
	if (next == TCP) {
		if (at + 20 > end || bpf_skb_load_bytes(skb, at, l4, 14))
			return DROP_MALFORMED + 1;
		p->tcp = l4[13];
	} else if (next == UDP || next == ICMP6) {
		if (at + 8 > end || bpf_skb_load_bytes(skb, at, l4, 8))
			return DROP_MALFORMED + 1;
	}
	if (next == TCP || next == UDP) {
		__builtin_memcpy(&p->sport, l4, 2);
		__builtin_memcpy(&p->dport, l4 + 2, 2);
	} else if (next == ICMP6) {
		p->type = l4[0];
		p->code = l4[1];
		if (echo6(p))
			__builtin_memcpy(&p->sport, l4 + 4, 2);
	}
	if (fragment & 1) {
		ports.sport = p->sport;
		ports.dport = next == ICMP6 ? p->type << 8 | p->code : p->dport;
		ports.protocol = next;
		bpf_map_update_elem(&fragments6, &key, &ports, BPF_ANY);
	}
	return 0;
}

/* The packet that an ICMPv6 error is about, as its sender wrote it; one with extension headers is not looked at. */
__attribute__((noinline)) int parse_inner6(struct __sk_buff *skb, const struct packet6 *q, struct packet6 *inner)
{
	struct ip6_header ip;
	__u8 l4[8];
	__u32 at;

	if (!q || !inner)
		return -1;
	at = q->p.l4 + 8;
	if (at > 200 || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || bpf_skb_load_bytes(skb, at + IP6_LEN, l4, 8))
		return -1;
	if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6)
		return -1;
	inner->saddr = ip.saddr;
	inner->daddr = ip.daddr;
	inner->p.protocol = ip.next;
	inner->p.sport = inner->p.dport = 0;
	inner->p.type = inner->p.code = inner->p.tcp = inner->p.later = 0;
	if (ip.next == TCP || ip.next == UDP) {
		__builtin_memcpy(&inner->p.sport, l4, 2);
		__builtin_memcpy(&inner->p.dport, l4 + 2, 2);
		return 0;
	}
	inner->p.type = l4[0];
	inner->p.code = l4[1];
	if (!echo6(&inner->p))
		return -1;
	__builtin_memcpy(&inner->p.sport, l4 + 4, 2);
	return 0;
}

/* The checksum of `length` bytes of ICMPv6 from one to the other; `length` is a multiple of four. */
static __always_inline __u16 sum6(const struct ip6 *from, const struct ip6 *to, void *body, __u32 length)
{
	struct {
		struct ip6 from;
		struct ip6 to;
		__u32 length;
		__u32 next;
	} pseudo = {.from = *from, .to = *to, .length = bpf_htonl(length), .next = bpf_htonl(ICMP6)};
	__s64 sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);

	sum = bpf_csum_diff(0, 0, body, length, sum);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

static __always_inline void head6(struct ip6_header *ip, const struct ip6 *from, const struct ip6 *to, __u32 length,
				  __u8 hops)
{
	ip->version_class_flow = bpf_htonl(6u << 28);
	ip->length = bpf_htons(length);
	ip->next = ICMP6;
	ip->hops = hops;
	ip->saddr = *from;
	ip->daddr = *to;
}

/* Turns a solicitation into the advertisement that `mac` has the address; who asked from no address is told as all are. */
__attribute__((noinline)) int answer_neighbour(struct __sk_buff *skb, const struct neighbour *ask, const struct hop *h)
{
	__u8 all[6] = {0x33, 0x33, 0, 0, 0, 1};
	struct {
		struct ip6_header ip;
		struct neighbour say;
	} reply = {};
	struct ip6 to = {};
	struct eth eth;
	__u32 flags = 0x20000000u; /* override */

	if (!ask || !h)
		return -1;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || bpf_skb_load_bytes(skb, ETH_LEN + 8, &to, sizeof(to)))
		return -1;
	if (none6(&to)) {
		to.word[0] = bpf_htonl(0xff020000u);
		to.word[3] = bpf_htonl(1);
		if (bpf_skb_store_bytes(skb, 0, all, 6, 0))
			return -1;
	} else {
		flags |= 0x40000000u; /* solicited */
		if (bpf_skb_store_bytes(skb, 0, eth.src, 6, 0))
			return -1;
	}
	if (h->kind == HOP_ROUTER)
		flags |= 0x80000000u;
	reply.say.type = NEIGHBOUR_SAY;
	reply.say.flags = bpf_htonl(flags);
	reply.say.target = ask->target;
	reply.say.option = 2;
	reply.say.option_len = 1;
	__builtin_memcpy(reply.say.mac, h->mac, 6);
	head6(&reply.ip, &reply.say.target, &to, sizeof(reply.say), 255);
	reply.say.checksum = sum6(&reply.ip.saddr, &to, &reply.say, sizeof(reply.say));
	if (bpf_skb_change_tail(skb, ETH_LEN + sizeof(reply), 0))
		return -1;
	if (bpf_skb_store_bytes(skb, 6, reply.say.mac, 6, 0))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN, &reply, sizeof(reply), 0);
}

/* Turns the frame into an ICMPv6 error about itself, from `from`, back to whoever sent it. `type`: the code above it. */
__attribute__((noinline)) int refuse6(struct __sk_buff *skb, const struct packet6 *q, const struct ip6 *from, __u32 type,
				      __u32 mtu)
{
	struct {
		struct ip6_header ip;
		__u8 type;
		__u8 code;
		__u16 checksum;
		__u32 mtu;
		__u8 about[48];
	} error = {};
	struct eth eth;

	if (!q || !from || q->p.later || (q->p.protocol == ICMP6 && !echo6(&q->p)))
		return -1;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || bpf_skb_load_bytes(skb, ETH_LEN, error.about, sizeof(error.about)))
		return -1;
	head6(&error.ip, from, &q->saddr, sizeof(error) - sizeof(error.ip), 64);
	error.type = type;
	error.code = type >> 8;
	error.mtu = bpf_htonl(mtu);
	error.checksum = sum6(from, &q->saddr, &error.type, sizeof(error) - sizeof(error.ip));
	if (bpf_skb_change_tail(skb, ETH_LEN + sizeof(error), 0))
		return -1;
	if (set_macs(skb, eth.src, eth.dst))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN, &error, sizeof(error), 0);
}

/* Turns an echo request into its answer. */
static __always_inline int answer_echo6(struct __sk_buff *skb, const struct packet6 *q)
{
	struct ip6 addresses[2] = {q->daddr, q->saddr};
	__u16 old = bpf_htons(ECHO6 << 8), new = bpf_htons(ECHO6_REPLY << 8);
	struct eth eth;

	if (q->p.later || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return -1;
	if (set_macs(skb, eth.src, eth.dst) || bpf_skb_store_bytes(skb, ETH_LEN + 8, addresses, sizeof(addresses), 0))
		return -1;
	if (bpf_l4_csum_replace(skb, q->p.l4 + 2, old, new, 2))
		return -1;
	return bpf_skb_store_bytes(skb, q->p.l4, &new, 2, 0);
}

#endif
