/* Reading and rewriting frames. All that a guest or the wire sends is hostile: every length is checked, and
 * headers are copied out before they are looked at.
 */
#ifndef PILVI_FRAME_H
#define PILVI_FRAME_H

#include "tables.h"

#define ETH_IP 0x0800
#define ETH_ARP 0x0806
#define ETH_IP6 0x86dd
#define ETH_TAG 0x8100         /* a customer's tag (802.1Q) */
#define ETH_SERVICE_TAG 0x88a8 /* the outer one of two (802.1ad) */
#define TCP 6
#define UDP 17
#define ICMP 1
#define ICMP6 58
#define ETH_LEN 14
#define IP_LEN 20
#define IP6_LEN 40
#define MARK_AGENT 0x70696c76u /* sent by the agent itself: no more questions */

#define METADATA_IP bpf_htonl(0xa9fea9feu)
#define RESOLVER_IP bpf_htonl(0xa9fea9fdu)
#define METADATA_BASE 0x64400000u /* 100.64.0.0/10, low 22 bits: interface index */
#define METADATA_MASK 0xffc00000u

#define SEC_NS 1000000000ull

/* Why a frame was dropped: names in src/stats.rs, same order. */
enum reason {
	DROP_MALFORMED,
	DROP_NO_PORT,
	DROP_PORT_DOWN,
	DROP_SPOOFED_MAC,
	DROP_SPOOFED_IP,
	DROP_SPOOFED_ARP,
	DROP_ARP_UNKNOWN,
	DROP_FAMILY, /* IPv6 and everything that is neither IPv4 nor ARP */
	DROP_MULTICAST,
	DROP_UNKNOWN_STATION,
	DROP_GROUP_OUT,
	DROP_GROUP_IN,
	DROP_FLOW_CAP,
	DROP_DHCP,
	DROP_METADATA,
	DROP_TTL,
	DROP_NO_ROUTE,
	DROP_NO_HOST,
	DROP_NO_EDGE,
	DROP_NAT,
	DROP_VTEP,
	DROP_OVERLAY,
	DROP_EDGE,
	DROP_FRAGMENT,
	DROP_STACK, /* the host's own stack has nothing to say here */
	DROP_RESERVED,
	DROP_TOO_BIG,
	DROP_RATE,
	DROP_SCOPE, /* a router passes nothing from one address scope to another */
	DROP_FIREWALL,
	DROP_NEIGHBOUR, /* on a tagged wire: nobody has said yet where the next hop is */
	DROP_COPY, /* for a collector that is not there any more, or a copy of a copy */
};

struct packet {
	__u32 saddr;
	__u32 daddr;
	__u16 sport; /* ICMP echo: the identifier, on the side that asked */
	__u16 dport;
	__u16 l4;    /* offset of the layer-4 header */
	__u8 protocol;
	__u8 tcp;    /* flags */
	__u8 type;
	__u8 code;
	__u8 ttl;
	__u8 later;  /* a fragment without layer-4 header */
	__u16 length; /* of the IP packet */
	__u16 whole;  /* may not be fragmented */
};

struct eth {
	__u8 dst[6];
	__u8 src[6];
	__u16 protocol;
} __attribute__((packed));

struct ip4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 saddr;
	__u32 daddr;
};

struct arp {
	__u16 hardware;
	__u16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__u16 op;
	__u8 sha[6];
	__u32 spa;
	__u8 tha[6];
	__u32 tpa;
} __attribute__((packed));

/* Which port the frame is of: its interface, or a name made of it and the frame's tag. Each program says so first.
 * Volatile, or the compiler keeps a pointer into the context, which the verifier refuses.
 */
static __always_inline __u32 whose(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->cb[0];
}

static __always_inline void say_whose(struct __sk_buff *skb, __u32 name)
{
	*(volatile __u32 *)&skb->cb[0] = name;
}

/* No firewall judges it: an error that one of them has made. */
static __always_inline __u32 beyond_firewalls(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->cb[1];
}

static __always_inline void say_beyond_firewalls(struct __sk_buff *skb, __u32 is)
{
	*(volatile __u32 *)&skb->cb[1] = is;
}

/* Off the edge link: the external network, and the tag that the frame had there, as `tags` has it. Every program says so first. */
static __always_inline __u32 wire_of(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->cb[2];
}

static __always_inline __u32 tag_of(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->cb[3];
}

static __always_inline void say_wire(struct __sk_buff *skb, __u32 vni, __u32 tag)
{
	*(volatile __u32 *)&skb->cb[2] = vni;
	*(volatile __u32 *)&skb->cb[3] = tag;
}

static __always_inline __u32 ifindex_of(struct __sk_buff *skb)
{
	return *(volatile __u32 *)&skb->ifindex;
}

/* Keeps fragments of one wire apart from those of all others, and of guests: interface indexes are of 18 bits, tags with
 * their kind of 14.
 */
static __always_inline __u32 wire_scope(struct __sk_buff *skb)
{
	return (ifindex_of(skb) & 0x3ffff) | tag_of(skb) << 18;
}

/* A tag without a number says how urgent the frame is, not where it belongs (IEEE 802.1Q, priority-tagged). */
static __always_inline __u32 number_of(struct __sk_buff *skb)
{
	return skb->vlan_present ? skb->vlan_tci & 0xfff : 0;
}

/* As the frame's tag and device have it. */
static __always_inline __u32 name_of(struct __sk_buff *skb)
{
	return number_of(skb) ? SUBPORT_NAME(ifindex_of(skb), skb->vlan_tci) : ifindex_of(skb);
}

/* Puts a wire's tag on. */
static __always_inline int push_tag(struct __sk_buff *skb, __u32 tag)
{
	return bpf_skb_vlan_push(skb, tag & TAG_SERVICE ? bpf_htons(ETH_SERVICE_TAG) : bpf_htons(ETH_TAG), tag & 0xfff);
}

static __always_inline int is_tag(__u32 protocol)
{
	return protocol == bpf_htons(ETH_TAG) || protocol == bpf_htons(ETH_SERVICE_TAG);
}

/* The outer tag, while it is off. */
#define LIFTED 0x20000u
#define LIFTED_SERVICE 0x10000u

static __always_inline void say_lifted(struct __sk_buff *skb, __u32 tag)
{
	*(volatile __u32 *)&skb->cb[4] = tag;
}

/* Takes the outer of two tags off, so that the inner one stands beside the frame as a single one does. Not 0: there are more
 * than two, or the inner one is no customer's tag with a number.
 */
__attribute__((noinline)) int lift(struct __sk_buff *skb)
{
	__u32 outer;

	say_lifted(skb, 0);
	if (!is_tag(skb->protocol))
		return 0;
	if (skb->protocol != bpf_htons(ETH_TAG))
		return -1;
	outer = LIFTED | skb->vlan_tci | (skb->vlan_proto == bpf_htons(ETH_SERVICE_TAG) ? LIFTED_SERVICE : 0);
	if (bpf_skb_vlan_pop(skb) || !number_of(skb) || is_tag(skb->protocol))
		return -1;
	say_lifted(skb, outer);
	return 0;
}

/* Puts it on again. */
static __always_inline int lower(struct __sk_buff *skb)
{
	__u32 outer = *(volatile __u32 *)&skb->cb[4];

	if (!outer)
		return 0;
	say_lifted(skb, 0);
	return bpf_skb_vlan_push(skb, outer & LIFTED_SERVICE ? bpf_htons(ETH_SERVICE_TAG) : bpf_htons(ETH_TAG), outer & 0xffff);
}

/* Takes the frame's tag off. Not 0 if there is another one below it: that would come out where nobody has looked. */
static __always_inline int untag(struct __sk_buff *skb)
{
	return bpf_skb_vlan_pop(skb) || skb->vlan_present;
}

__attribute__((noinline)) int drop(struct __sk_buff *skb, __u32 reason)
{
	struct drop_key key = {.ifindex = whose(skb), .reason = reason};
	__u64 *n = bpf_map_lookup_elem(&drops, &key), one = 1;

	if (n)
		*n += 1;
	else
		bpf_map_update_elem(&drops, &key, &one, BPF_ANY);
	return TC_ACT_SHOT;
}

/* Whether the frame's tag would make it another port's behind this device; a port without a device takes no tags. */
static __always_inline int has_subport(struct __sk_buff *skb, __u32 name)
{
	__u32 sub = SUBPORT_NAME(name, skb->vlan_tci);

	return name & SUBPORT || bpf_map_lookup_elem(&ports, &sub);
}

/* Whether the frame's tag is the guests' own, and tells no port. */
static __always_inline int own_tag(struct __sk_buff *skb)
{
	return number_of(skb) && !(whose(skb) & SUBPORT);
}

/* Towards the guest of a port of this host, with its tag if it has one; or back where it came from, as it came. */
__attribute__((noinline)) int give(struct __sk_buff *skb, __u32 name)
{
	__u32 tag = name == ifindex_of(skb) ? tag_of(skb) : 0;

	if (tag)
		return push_tag(skb, tag) ? drop(skb, DROP_MALFORMED) : bpf_redirect(name, 0);
	/* A tag that the frame has anyway is its network's own business, and must not be taken for a port's. */
	if (skb->vlan_present && has_subport(skb, name))
		return drop(skb, DROP_FAMILY);
	if (name & SUBPORT) {
		if (bpf_skb_vlan_push(skb, bpf_htons(0x8100), name & 0xfff))
			return drop(skb, DROP_MALFORMED);
		name = SUBPORT_DEVICE(name);
	}
	return bpf_redirect(name, 0);
}

static __always_inline struct settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* Which address scope a network is in. */
static __always_inline __u32 scope_of(__u32 vni, __u32 family)
{
	struct scope_key key = {.vni = vni, .family = family};
	__u32 *scope = bpf_map_lookup_elem(&scopes, &key);

	return scope ? *scope : SCOPE_NONE;
}

/* A number that all packets of a flow have, to spread flows by. */
static __always_inline __u32 flow_hash(__u32 a, __u32 b, const struct packet *p)
{
	__u32 h = a * 0x9e3779b1u ^ b;

	h = (h ^ h >> 15) * 0x85ebca6bu;
	h ^= (__u32)p->sport << 16 | p->dport;
	h = (h ^ h >> 13) * 0xc2b2ae35u + p->protocol;
	return h ^ h >> 16;
}

/* One of several ways to a destination, always the same one for a flow. */
static __always_inline struct route *choose(struct route *r, const struct packet *p)
{
	struct choice_key key = {};

	if (!(r->kind & ROUTE_SHARED))
		return r;
	key.group_lo = r->via;
	key.group_hi = r->gw;
	key.index = flow_hash(p->saddr, p->daddr, p) % (r->vni ? r->vni : 1);
	return bpf_map_lookup_elem(&choices, &key);
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

static __always_inline int echo(const struct packet *p)
{
	return p->protocol == ICMP && (p->type == 8 || p->type == 0) && p->code == 0;
}

static __always_inline int icmp_error(const struct packet *p)
{
	return p->protocol == ICMP && !p->later && (p->type == 3 || p->type == 11 || p->type == 12);
}

/* Reads the IPv4 and layer-4 headers. `scope` keeps fragments of different senders apart.
 * 0, or the reason to drop the frame.
 */
__attribute__((noinline)) int parse(struct __sk_buff *skb, struct packet *p, __u32 scope)
{
	struct fragment_key key = {};
	struct fragment ports = {}, *known;
	struct ip4 ip;
	__u32 ihl, length, fragment;
	__u8 l4[14] = {};

	if (!p)
		return DROP_MALFORMED + 1;
	if (bpf_skb_load_bytes(skb, ETH_LEN, &ip, sizeof(ip)))
		return DROP_MALFORMED + 1;
	ihl = (ip.version_ihl & 15) * 4;
	length = bpf_ntohs(ip.length);
	if (ip.version_ihl >> 4 != 4 || ihl < IP_LEN || length < ihl || length + ETH_LEN > skb->len)
		return DROP_MALFORMED + 1;
	p->saddr = ip.saddr;
	p->daddr = ip.daddr;
	p->protocol = ip.protocol;
	p->ttl = ip.ttl;
	p->length = length;
	p->whole = !!(ip.fragment & bpf_htons(0x4000));
	p->l4 = ETH_LEN + ihl;
	p->sport = p->dport = 0;
	p->tcp = p->type = p->code = p->later = 0;
	fragment = bpf_ntohs(ip.fragment);
	key.scope = scope;
	key.saddr = ip.saddr;
	key.daddr = ip.daddr;
	key.id = ip.id;
	key.protocol = ip.protocol;
	if (fragment & 0x1fff) {
		/* Overlapping the first fragment's header is an old way around filters (RFC 1858). */
		if ((fragment & 0x1fff) * 8 < 24)
			return DROP_FRAGMENT + 1;
		known = bpf_map_lookup_elem(&fragments, &key);
		if (!known)
			return DROP_FRAGMENT + 1;
		p->sport = known->sport;
		p->dport = known->dport;
		if (p->protocol == ICMP) {
			p->type = known->dport >> 8;
			p->code = known->dport & 255;
			p->dport = 0;
		}
		p->later = 1;
		return 0;
	}
	if (ip.protocol == TCP) {
		if (length < ihl + 20 || bpf_skb_load_bytes(skb, p->l4, l4, 14))
			return DROP_MALFORMED + 1;
		p->tcp = l4[13];
	} else if (ip.protocol == UDP || ip.protocol == ICMP) {
		if (length < ihl + 8 || bpf_skb_load_bytes(skb, p->l4, l4, 8))
			return DROP_MALFORMED + 1;
	}
	if (ip.protocol == TCP || ip.protocol == UDP) {
		__builtin_memcpy(&p->sport, l4, 2);
		__builtin_memcpy(&p->dport, l4 + 2, 2);
	} else if (ip.protocol == ICMP) {
		p->type = l4[0];
		p->code = l4[1];
		if (echo(p))
			__builtin_memcpy(&p->sport, l4 + 4, 2);
	}
	if (fragment & 0x2000) {
		ports.sport = p->sport;
		ports.dport = p->protocol == ICMP ? p->type << 8 | p->code : p->dport;
		ports.protocol = p->protocol;
		bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
	}
	return 0;
}

/* The packet that an ICMP error is about: its addresses and ports as its sender wrote them. */
__attribute__((noinline)) int parse_inner(struct __sk_buff *skb, const struct packet *p, struct packet *inner)
{
	struct ip4 ip;
	__u8 l4[8];
	__u32 at;

	if (!p || !inner)
		return -1;
	at = p->l4 + 8;
	if (at > 100 || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return -1;
	if (ip.version_ihl != 0x45 || bpf_skb_load_bytes(skb, at + IP_LEN, l4, 8))
		return -1;
	inner->saddr = ip.saddr;
	inner->daddr = ip.daddr;
	inner->protocol = ip.protocol;
	inner->sport = inner->dport = 0;
	inner->l4 = at + IP_LEN;
	inner->type = inner->code = inner->tcp = inner->ttl = inner->later = 0;
	if (bpf_ntohs(ip.fragment) & 0x1fff)
		return -1;
	if (ip.protocol == TCP || ip.protocol == UDP) {
		__builtin_memcpy(&inner->sport, l4, 2);
		__builtin_memcpy(&inner->dport, l4 + 2, 2);
	} else if (ip.protocol == ICMP) {
		inner->type = l4[0];
		inner->code = l4[1];
		if (!echo(inner))
			return -1;
		__builtin_memcpy(&inner->sport, l4 + 4, 2);
	}
	return 0;
}

static __always_inline int set_macs(struct __sk_buff *skb, const __u8 *dst, const __u8 *src)
{
	__u8 macs[12];

	__builtin_memcpy(macs, dst, 6);
	__builtin_memcpy(macs + 6, src, 6);
	return bpf_skb_store_bytes(skb, 0, macs, 12, 0);
}

/* Rewrites the source (`at` 12) or destination (`at` 16) address, and the checksums over it. */
static __always_inline int set_address(struct __sk_buff *skb, const struct packet *p, __u32 at, __u32 old, __u32 new)
{
	if (!p->later && p->protocol == TCP) {
		if (bpf_l4_csum_replace(skb, p->l4 + 16, old, new, BPF_F_PSEUDO_HDR | 4))
			return -1;
	} else if (!p->later && p->protocol == UDP) {
		if (bpf_l4_csum_replace(skb, p->l4 + 6, old, new, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4))
			return -1;
	}
	if (bpf_l3_csum_replace(skb, ETH_LEN + 10, old, new, 4))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN + at, &new, 4, 0);
}

/* Rewrites a port (`at` 0 source, 2 destination) or the identifier of an ICMP echo. */
static __always_inline int set_port(struct __sk_buff *skb, const struct packet *p, __u32 at, __u16 old, __u16 new)
{
	if (p->later || old == new)
		return 0;
	if (p->protocol == TCP) {
		if (bpf_l4_csum_replace(skb, p->l4 + 16, old, new, 2))
			return -1;
	} else if (p->protocol == UDP) {
		if (bpf_l4_csum_replace(skb, p->l4 + 6, old, new, BPF_F_MARK_MANGLED_0 | 2))
			return -1;
	} else if (p->protocol == ICMP) {
		if (bpf_l4_csum_replace(skb, p->l4 + 2, old, new, 2))
			return -1;
		at = 4;
	} else {
		return 0;
	}
	return bpf_skb_store_bytes(skb, p->l4 + at, &new, 2, 0);
}

/* The same inside an ICMP error. The inner header's checksum makes up for the address, so ICMP's own
 * checksum changes by the port alone.
 */
static __always_inline int set_inner(struct __sk_buff *skb, const struct packet *p, const struct packet *inner,
				     __u32 source, __u32 new_ip, __u16 new_port)
{
	__u32 at = p->l4 + 8, old_ip = source ? inner->saddr : inner->daddr;
	__u16 old = inner->protocol == ICMP || source ? inner->sport : inner->dport;
	__u32 port_at = inner->protocol == ICMP ? 4 : source ? 0 : 2;

	if (bpf_l3_csum_replace(skb, at + 10, old_ip, new_ip, 4))
		return -1;
	if (bpf_skb_store_bytes(skb, at + (source ? 12 : 16), &new_ip, 4, 0))
		return -1;
	if (old == new_port || (inner->protocol != TCP && inner->protocol != UDP && inner->protocol != ICMP))
		return 0;
	if (bpf_l4_csum_replace(skb, p->l4 + 2, old, new_port, 2))
		return -1;
	return bpf_skb_store_bytes(skb, at + IP_LEN + port_at, &new_port, 2, 0);
}

static __always_inline int forward_once(struct __sk_buff *skb, const struct packet *p)
{
	__u16 old, new;

	/* ttl and protocol share a 16-bit word of the header */
	old = bpf_htons(p->ttl << 8 | p->protocol);
	new = bpf_htons((p->ttl - 1) << 8 | p->protocol);
	if (bpf_l3_csum_replace(skb, ETH_LEN + 10, old, new, 2))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN + 8, &new, 2, 0);
}

/* Turns an echo request into its answer: addresses, hardware addresses and type change places. */
static __always_inline int answer_echo(struct __sk_buff *skb, const struct packet *p)
{
	struct eth eth;
	__u32 addresses[2] = {p->daddr, p->saddr};
	__u16 old = bpf_htons(8 << 8), new = 0;

	if (p->later || bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return -1;
	if (set_macs(skb, eth.src, eth.dst) || bpf_skb_store_bytes(skb, ETH_LEN + 12, addresses, 8, 0))
		return -1;
	if (bpf_l4_csum_replace(skb, p->l4 + 2, old, new, 2))
		return -1;
	return bpf_skb_store_bytes(skb, p->l4, &new, 2, 0);
}

/* Turns the frame into an ICMP error about itself, from `from`, back to the hardware address that sent it. */
__attribute__((noinline)) int refuse(struct __sk_buff *skb, const struct packet *p, __u32 from, __u32 type_code, __u32 mtu)
{
	struct {
		struct ip4 ip;
		__u8 type;
		__u8 code;
		__u16 checksum;
		__u16 unused;
		__u16 mtu;
		__u8 about[28];
	} error = {};
	struct eth eth;
	__s64 sum;

	/* Never an error about an error, a later fragment or a header that would not fit. */
	if (!p || p->later || p->l4 != ETH_LEN + IP_LEN || (p->protocol == ICMP && !echo(p)))
		return -1;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) || bpf_skb_load_bytes(skb, ETH_LEN, error.about, sizeof(error.about)))
		return -1;
	error.ip.version_ihl = 0x45;
	error.ip.length = bpf_htons(sizeof(error));
	error.ip.ttl = 64;
	error.ip.protocol = ICMP;
	error.ip.saddr = from;
	error.ip.daddr = p->saddr;
	error.type = type_code >> 8;
	error.code = type_code;
	error.mtu = bpf_htons(mtu);
	sum = bpf_csum_diff(0, 0, (__be32 *)&error.ip, sizeof(error.ip), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	error.ip.checksum = ~((sum & 0xffff) + (sum >> 16));
	sum = bpf_csum_diff(0, 0, (__be32 *)&error.type, sizeof(error) - sizeof(error.ip), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	error.checksum = ~((sum & 0xffff) + (sum >> 16));
	if (bpf_skb_change_tail(skb, ETH_LEN + sizeof(error), 0))
		return -1;
	if (set_macs(skb, eth.src, eth.dst))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_LEN, &error, sizeof(error), 0);
}

/* Turns an ARP request into the answer that `mac` has the address. */
static __always_inline int answer_arp(struct __sk_buff *skb, const struct arp *ask, const __u8 *mac)
{
	struct arp reply = *ask;

	reply.op = bpf_htons(2);
	__builtin_memcpy(reply.sha, mac, 6);
	reply.spa = ask->tpa;
	__builtin_memcpy(reply.tha, ask->sha, 6);
	reply.tpa = ask->spa;
	if (set_macs(skb, ask->sha, mac) || bpf_skb_store_bytes(skb, ETH_LEN, &reply, sizeof(reply), 0))
		return -1;
	return 0;
}

static __always_inline int load_arp(struct __sk_buff *skb, struct arp *a)
{
	if (bpf_skb_load_bytes(skb, ETH_LEN, a, sizeof(*a)))
		return -1;
	return a->hardware == bpf_htons(1) && a->protocol == bpf_htons(ETH_IP) && a->hardware_len == 6 && a->protocol_len == 4 ?
		       0 :
		       -1;
}

#endif
