/* The tables of the packet path: one declaration each, keyed as the agent's src/table.rs writes them.
 *
 * Addresses, ports and tunnel keys' far ends stand in network byte order, everything else in the
 * machine's. Every structure is padded by hand: keys are compared as bytes. A change of any layout here
 * raises LAYOUT in src/loader.rs, which names the directory that the tables are pinned in.
 */
#ifndef PILVI_TABLES_H
#define PILVI_TABLES_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct ip6 {
	__u32 word[4]; /* network order */
};

/* ---- ports: interface index -> what stands behind it */
#define PORT_UP 1u        /* administrative state */
#define PORT_SECURED 2u   /* anti-spoofing and groups apply */
#define PORT_METADATA 4u  /* may ask 169.254.169.254 */
#define PORT_DHCP 8u      /* the agent answers its DHCP */
#define PORT_EXTERNAL 16u /* its network is the edge link's, not the overlay */
#define PORT_LIMITED_IN 32u  /* towards the guest, by `limits` */
#define PORT_LIMITED_OUT 64u /* from the guest */
#define PORT_MARKED 128u     /* what the guest sends gets `tos` */
#define PORT_ASKS6 256u      /* the agent answers its router solicitations and DHCPv6 */
#define PORT_NOTES_ACCEPTED 512u /* of what its groups decide, what they allow is noted, */
#define PORT_NOTES_DROPPED 1024u /* and what they refuse */
#define PORT_LOCALS 2048u        /* its network has local IPs here */
#define PORT_NAMES 4096u         /* its network has a resolver here */
#define PORT_TAPPED 8192u        /* somebody looks at what it sends or gets */
#define PORT_TRANSPARENT 32768u  /* guests of its network may send frames with tags to each other; on a wire, within its tag */
#define PORT_FIREWALLED 16384u   /* it has a firewall, or a router's leg in its network has one */

/* A port whose frames come tagged over another's device: its name is this bit, that device and the tag. */
#define SUBPORT (1u << 30)
#define SUBPORT_NAME(ifindex_, vlan_) (SUBPORT | (ifindex_) << 12 | ((vlan_) & 0xfff))
#define SUBPORT_DEVICE(name_) ((name_) >> 12 & 0x3ffff)

struct port {
	__u32 vni;
	__u32 flags;
	__u32 ip; /* first fixed address: the metadata service answers to it */
	__u8 mac[6];
	__u16 tos; /* the upper six bits of the header's byte */
	__u32 realm; /* the networks that routers join with its own */
	__u64 policy; /* names the chunks of rules of this set of groups */
};

/* What the programs write about a port; the agent makes and removes the entry. */
struct live {
	__u64 dhcp_tat; /* theoretical arrival time of the next DHCP frame, ns */
	__u64 flows;    /* recounted by the agent's sweep */
	__u64 note_tat; /* as the first, of the next note about its groups */
	__u64 names_tat; /* and of the next question about names */
	__u64 flood_tat; /* and of the next frame for many */
	__u32 unsaid;   /* notes that were too many since the last one */
	__u32 pad;
};

/* ---- whom frames for many go to: ports of this host, then other hosts */
#define FLOODS 128
struct flood_key {
	__u32 vni;
	__u32 index;
};
#define FLOOD_TAGGED 0x80000000u /* beside `vni`: for tagged frames alone, of a network of a wire */
struct flood {
	__u32 kind;  /* HOP_LOCAL, HOP_REMOTE, HOP_WIRE */
	__u32 where; /* interface index, or far tunnel end */
};

/* ---- who may say he is whom: {interface, source prefix} -> hardware addresses */
#define SOURCE_MACS 4
struct source_key {
	__u32 prefixlen; /* 32 + prefix length */
	__u32 ifindex;
	__u32 ip;
};
struct source {
	__u8 mac[SOURCE_MACS][6];
};

/* ---- where an address or a hardware address of a network is */
#define HOP_LOCAL 1u   /* where = interface index */
#define HOP_REMOTE 2u  /* where = far tunnel end */
#define HOP_ROUTER 3u  /* router = which */
#define HOP_SERVICE 4u /* this host itself: DHCP and metadata */
#define HOP_WIRE 5u    /* of `floods`: out of the edge link, with the network's tag */

#define ADDRESS_MOVES 1u /* several ports may have the address: the last that announced it does */
#define ADDRESS_LOCAL 2u /* a local IP: what is sent to it is translated */
#define ADDRESS_PROXY 3u /* on the edge link, a router answers for it; of a router itself: it lets nothing else in */
#define ADDRESS_LEFT 4u  /* of a station elsewhere: it was here, and who does not know that yet is led there */

struct hop {
	__u32 kind;
	__u32 where;
	__u64 router;
	__u8 mac[6];
	__u16 how;
};
struct ip_key {
	__u32 vni;
	__u32 ip;
};
struct mac_key {
	__u32 vni;
	__u8 mac[6];
	__u16 family; /* 6: what a gateway routes of IPv6 alone; 0: all else */
};

/* ---- routers: {router, prefix} -> leg */
#define ROUTE_LEG 1u      /* out of the leg in `vni`; `via` or the address itself is the next hop */
#define ROUTE_EXTERNAL 2u /* out of the gateway */
#define ROUTE_SHARED 4u   /* added: one of `vni` rows of `choices`, whose group `via` and `gw` (IPv6: `via`) name */

/* What a way out does with the addresses behind a leg */
#define LEG_LEAKED 1u /* the provider routes them to the router: they go out, and are come to, as they are */
#define LEG_HIDDEN 2u /* others of the router are leaked, these are not: nothing from outside comes to them untranslated */

struct route_key {
	__u32 prefixlen; /* 64 + prefix length */
	__u32 router_lo;
	__u32 router_hi;
	__u32 ip;
};
struct route {
	__u32 kind;
	__u32 vni;  /* ROUTE_EXTERNAL: of the external network */
	__u32 via;  /* 0: on link */
	__u32 gw;   /* ROUTE_EXTERNAL: address to hide behind, 0: none; ROUTE_LEG: the leg's own */
	__u32 vtep; /* ROUTE_EXTERNAL: the host that holds the gateway, 0: this one; ROUTE_LEG: LEG_LEAKED, LEG_HIDDEN, 0: nobody asks */
	__u8 mac[6];
	__u16 mtu; /* bytes that the network behind it carries, 0: any */
	__u32 scope; /* that it leads to; 0: nobody asks */
};

struct choice_key {
	__u32 group_lo;
	__u32 group_hi;
	__u32 index;
	__u32 pad;
};

/* ---- address scopes: {network, 4 or 6} -> number of its scope */
#define SCOPE_NONE 1u /* of a network that is not in the table */
struct scope_key {
	__u32 vni;
	__u32 family;
};

/* ---- wires: what the edge link carries, untagged (`ext_vni`) and by tag
 *   wires: network -> tag        tags: tag -> network, and whether guests' own tags may be within
 */
#define TAG_SERVICE 0x2000u     /* beside a wire's tag: it is a service tag (802.1ad) */
#define TAGS_WITHIN 0x80000000u /* beside the network */

/* Who is on a tagged wire. The agent asks; the programs remember what is answered, of those alone who were asked for. */
struct nearby_key {
	__u32 vni;
	struct ip6 ip; /* IPv4: ::ffff:a.b.c.d */
};
struct nearby {
	__u64 used;  /* ns, coarse: a packet was for it */
	__u64 seen;  /* it said where it is; 0: not yet */
	__u64 asked; /* the agent was told to ask */
	__u8 mac[6];
	__u16 pad;
};
/* Next hops of routers that the agent speaks with (watch.h); the value is the clock of what they may say. */
struct watched_key {
	__u32 vni;
	struct ip6 own; /* as in nearby_key */
	struct ip6 peer;
};

/* ---- addresses that this host answers for on the edge link */
struct ext_key {
	__u32 vni; /* of the external network */
	__u32 ip;
};
#define EXT_FLOATING 1u
#define EXT_GATEWAY 2u
#define EXT_FORWARD 3u /* some of its ports lead inside */
#define EXT_RELAY 4u   /* floating, of a guest elsewhere: what comes by the gateway of its router goes on, nothing is answered */
struct ext {
	__u32 kind;
	__u32 fixed;
	__u64 router;
	__u8 mac[6];
	__u16 pad;
};
struct fixed_key {
	__u64 router;
	__u32 ip;
	__u32 leg; /* 0: of a gateway; else the network of a leg, with FIXED_IN for the way from the address to what is fixed */
};
#define FIXED_IN 0x80000000u

/* ---- groups */
#define CHUNK_RULES 32
#define CHUNKS 64
#define RULE_PROTOCOL 1u
#define RULE_PORTS 2u
#define RULE_TYPE 4u
#define RULE_CODE 8u
#define RULE_GROUP 16u
#define RULE_STATELESS 32u
struct chunk_key {
	__u64 policy;
	__u32 direction;
	__u32 index;
};
struct rule {
	__u64 group;
	__u32 net;
	__u32 mask;
	__u16 low;
	__u16 high;
	__u8 flags;
	__u8 protocol;
	__u8 type;
	__u8 code;
};
struct chunk {
	__u32 used;
	__u32 more; /* another chunk follows */
	struct rule rule[CHUNK_RULES];
};
/* An address says who somebody is in his realm alone: other networks may have it too. */
struct member_key {
	__u64 group;
	__u32 ip;
	__u32 realm;
};

/* ---- flows, one entry for each port that a flow touches, seen from that port */
#define TO_GUEST 0u
#define FROM_GUEST 1u
#define FLOW_REPLIED 1u
#define FLOW_FIN_FIRST 2u
#define FLOW_FIN_REPLY 4u
#define FLOW_RESET 8u
#define FLOW_CUT 16u /* its rule went: both directions are closed */
struct flow_key {
	__u32 ifindex;
	__u32 local_ip;
	__u32 remote_ip;
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 pad[3];
};
struct flow {
	__u64 seen; /* ns, coarse monotonic */
	__u32 epoch;
	__u8 direction; /* of the first packet */
	__u8 state;
	__u8 type;
	__u8 code;
};

/* ---- ports of fragments after the first */
struct fragment_key {
	__u32 scope;
	__u32 saddr;
	__u32 daddr;
	__u16 id;
	__u8 protocol;
	__u8 pad;
};
struct fragment {
	__u16 sport;
	__u16 dport;
	__u8 protocol;
	__u8 pad[3];
};

/* ---- source NAT, both ways */
struct nat_key {
	__u64 router;
	__u32 local_ip;
	__u32 remote_ip;
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 pad[3];
};
struct nat {
	__u64 seen;
	__u32 gw;
	__u16 port;
	__u16 pad;
};
struct tan_key {
	__u32 gw;
	__u32 remote_ip;
	__u16 port;
	__u16 remote_port;
	__u8 protocol;
	__u8 vni[3]; /* of the external network: others may have the same address */
};
struct tan {
	__u64 seen;
	__u64 router;
	__u32 ip;
	__u16 port;
	__u16 pad;
};

/* ---- protocols whose answers come from another port than the one that was asked */
#define HELPER_TFTP 1u /* any port of the same host, once */
struct helper_key {
	__u64 router;
	__u16 port; /* that is asked, network order */
	__u8 protocol;
	__u8 pad[5];
};

/* ---- ports of an external address that lead inside, by the longest prefix of the port's bits */
struct forward_key {
	__u32 prefixlen; /* 80 + prefix length */
	__u32 vni; /* of the external network */
	__u32 ip;
	__u8 protocol;
	__u8 pad;
	__u16 port; /* network order: the prefix begins at the highest bit */
};
struct forward {
	__u32 fixed;
	__u16 first;  /* host order: the first external port of the range */
	__u16 inside; /* host order: the port that it leads to */
	__u32 to_one; /* all ports of the range lead to `inside` */
};

/* ---- what passes a router's way out, by label */
#define METER_RULES 16
#define METER_CHUNKS 32
#define METER_EXCLUDED 1u
#define METER_IN 0u  /* from outside */
#define METER_OUT 1u
struct meter_key {
	__u64 router;
	__u32 direction;
	__u32 index;
};
/* Addresses as the inside knows them; all rules of a label stand together, those that exclude first. */
struct meter_rule {
	__u64 label;
	__u32 source;
	__u32 source_mask;
	__u32 destination;
	__u32 destination_mask;
	__u32 flags;
	__u32 pad;
};
struct meter_rule6 {
	__u64 label;
	struct ip6 source;
	struct ip6 source_mask;
	struct ip6 destination;
	struct ip6 destination_mask;
	__u32 flags;
	__u32 pad;
};
struct meter_chunk6 {
	__u32 used;
	__u32 more;
	struct meter_rule6 rule[METER_RULES];
};
struct meter_chunk {
	__u32 used;
	__u32 more;
	struct meter_rule rule[METER_RULES];
};
/* Written by the programs; the agent makes and removes the entry. */
struct meter {
	__u64 packets;
	__u64 bytes;
};

/* ---- IPv6: the same tables with longer keys, so that IPv4 pays nothing for them */
struct source6_key {
	__u32 prefixlen; /* 32 + prefix length */
	__u32 ifindex;
	struct ip6 ip;
};
struct ip6_key {
	__u32 vni;
	struct ip6 ip;
};
struct route6_key {
	__u32 prefixlen; /* 64 + prefix length */
	__u32 router_lo;
	__u32 router_hi;
	struct ip6 ip;
};
/* Out of the leg in `vni`, or of the gateway; `via` or, if that is nothing, the address itself is the next hop. */
struct route6 {
	__u32 kind; /* ROUTE_LEG, ROUTE_EXTERNAL */
	__u32 vni;
	__u32 vtep; /* ROUTE_EXTERNAL: the host that holds the gateway, 0: this one */
	struct ip6 via;
	struct ip6 own; /* the leg's */
	__u8 mac[6];
	__u16 mtu;
	__u32 scope;
};
#define CHUNK6_RULES 16
struct rule6 {
	__u64 group;
	struct ip6 net;
	struct ip6 mask;
	__u16 low;
	__u16 high;
	__u8 flags;
	__u8 protocol;
	__u8 type;
	__u8 code;
};
struct chunk6 {
	__u32 used;
	__u32 more;
	struct rule6 rule[CHUNK6_RULES];
};
struct member6_key {
	__u64 group;
	struct ip6 ip;
	__u32 realm;
	__u32 pad;
};
struct flow6_key {
	__u32 ifindex;
	struct ip6 local_ip;
	struct ip6 remote_ip;
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 pad[3];
};
struct fragment6_key {
	__u32 scope;
	struct ip6 saddr;
	struct ip6 daddr;
	__u32 id;
};

/* ---- firewalls: of a port, or of a router's leg, which is asked at the ports of its network */
#define FIREWALL_PORT 1
#define FIREWALL_LEG 2
struct firewall_key {
	__u32 place; /* a port's name, or the leg's network */
	__u8 mac[6]; /* the leg's */
	__u16 kind;
};
struct firewall {
	__u64 policy; /* names the chunks of its rules */
	__u64 router; /* whose leg it is; 0: a port's own */
};
/* Of `chunk_key`'s direction, beside TO_GUEST and FROM_GUEST. */
#define FIREWALL_V6 2u
#define FIREWALL_RULES 16
#define FIREWALL_CHUNKS 8
#define FIREWALL_PROTOCOL 1u
#define FIREWALL_SOURCE_PORTS 2u
#define FIREWALL_PORTS 4u
#define FIREWALL_ALLOWS 8u
#define FIREWALL_REJECTS 16u /* refused, and the sender is told */
/* The first that fits decides. An IPv4 address stands in the first word. */
struct firewall_rule {
	struct ip6 source;
	struct ip6 source_mask;
	struct ip6 destination;
	struct ip6 destination_mask;
	__u16 source_low;
	__u16 source_high;
	__u16 low;
	__u16 high;
	__u8 flags;
	__u8 protocol;
	__u8 pad[6];
};
struct firewall_chunk {
	__u32 used;
	__u32 more;
	struct firewall_rule rule[FIREWALL_RULES];
};
/* A flow as one port's firewall or one router's firewalls saw it at the port. */
struct firewall_flow_key {
	__u32 port;
	__u8 family; /* 4 or 6 */
	__u8 protocol;
	__u16 pad;
	__u64 router;
	struct ip6 local_ip;
	struct ip6 remote_ip;
	__u16 local_port;
	__u16 remote_port;
	__u32 pad2;
};

/* ---- ports that are looked at */
#define MIRRORS 4
struct mirror_key {
	__u32 name;
	__u32 direction; /* TO_GUEST or FROM_GUEST */
};
struct mirror {
	__u32 count;
	__u32 pad;
	struct {
		__u32 name; /* of a port of this host, or */
		__u32 vtep; /* the host of the port that looks */
		__u32 vni;
		__u32 collector; /* not 0: outside; `name` is the link that copies for it go through */
	} to[MIRRORS];
};

/* ---- who collects copies outside: {name made of all that the row says} -> where, and as what */
#define COLLECTOR_ERSPAN 1u /* else GRE with a key */
#define COLLECTOR_SIX 2u    /* reached by IPv6 */
#define COLLECTOR_EDGE 4u   /* by the edge link, as `vni` and `via` say; else by the underlay, as the host's own routes do */
struct collector {
	__u32 flags;
	__u32 id;     /* key or session */
	__u32 device; /* that copies leave by */
	__u32 vni;    /* of the external network */
	__u32 via;    /* next hop there, 0: on link */
	__u32 mtu;    /* of the device */
	struct ip6 from; /* an IPv4 address stands in the first word */
	struct ip6 to;
};
/* Written by the programs; the agent makes and removes the entry. */
struct collected {
	__u64 frames; /* the next one's number */
};

/* ---- how much may pass */
#define LIMIT_PORT 1u    /* id = interface index */
#define LIMIT_ADDRESS 2u /* id = external address */
#define LIMIT_ADDRESS6 3u /* id = the four words of a router's, folded: it has no IPv4 outside */
struct limit_key {
	__u32 kind;
	__u32 id;
	__u32 direction; /* TO_GUEST or FROM_GUEST */
};
struct limit {
	__u64 byte_cost;  /* ns for 2^20 bytes, 0: no limit */
	__u64 byte_burst; /* ns that may be owed */
	__u64 packet_cost;
	__u64 packet_burst;
};
/* Written by the programs; the agent makes and removes the entry. */
struct bucket {
	__u64 bytes_until; /* ns: up to when what has passed is paid for */
	__u64 packets_until;
};

struct drop_key {
	__u32 ifindex;
	__u32 reason;
};

#define SETTING_SHARED 1u /* the edge link also carries this host's own traffic */
#define SETTING_BY_LEG 2u /* there are floating addresses in networks that routers have a leg in */
#define SETTING_FIREWALLS 4u /* some leg has a firewall */
#define SETTING_LEAKS 8u /* some leg is leaked */
struct settings {
	__u32 epoch;
	__u32 overlay_if;
	__u32 edge_if;
	__u32 agent_if; /* the host's stack receives here */
	__u32 punt_if;  /* the agent's packet socket receives here */
	__u32 ext_vni;
	__u32 flags;
	__u32 flow_cap; /* flows of one port */
	__u8 agent_mac[6];
	__u8 service_mac[6];
	__u8 edge_mac[6]; /* of the edge link's device */
	__u8 ask_mac[6];  /* who asks by ARP on the edge link: one of `externals` */
	__u32 ask_ip;
	__u32 pad;
	__u64 note_cost;  /* ns for a note of one port's groups */
	__u64 note_burst; /* ns that may be owed */
};

#define TABLE(name_, type_, key_, value_, size_, flags_)                                                  \
	struct {                                                                                          \
		__uint(type, BPF_MAP_TYPE_##type_);                                                       \
		__uint(max_entries, size_);                                                               \
		__uint(map_flags, flags_);                                                                \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                                      \
		__type(key, key_);                                                                        \
		__type(value, value_);                                                                    \
	} name_ SEC(".maps")

TABLE(ports, HASH, __u32, struct port, 16384, BPF_F_NO_PREALLOC);
TABLE(live, HASH, __u32, struct live, 16384, BPF_F_NO_PREALLOC);
TABLE(sources, LPM_TRIE, struct source_key, struct source, 262144, BPF_F_NO_PREALLOC);
TABLE(addresses, HASH, struct ip_key, struct hop, 1048576, BPF_F_NO_PREALLOC);
TABLE(stations, HASH, struct mac_key, struct hop, 1048576, BPF_F_NO_PREALLOC);
TABLE(routes, LPM_TRIE, struct route_key, struct route, 262144, BPF_F_NO_PREALLOC);
TABLE(choices, HASH, struct choice_key, struct route, 65536, BPF_F_NO_PREALLOC);
TABLE(scopes, HASH, struct scope_key, __u32, 65536, BPF_F_NO_PREALLOC);
TABLE(externals, HASH, struct ext_key, struct ext, 65536, BPF_F_NO_PREALLOC);
TABLE(floods, HASH, struct flood_key, struct flood, 262144, BPF_F_NO_PREALLOC);
TABLE(wires, HASH, __u32, __u32, 4096, BPF_F_NO_PREALLOC);
TABLE(tags, HASH, __u32, __u32, 4096, BPF_F_NO_PREALLOC);
TABLE(nearby, LRU_HASH, struct nearby_key, struct nearby, 16384, 0);
TABLE(asks, ARRAY, __u32, __u64, 1, 0);
TABLE(watched, HASH, struct watched_key, __u64, 8192, BPF_F_NO_PREALLOC);
TABLE(fixed, HASH, struct fixed_key, __u32, 65536, BPF_F_NO_PREALLOC);
TABLE(chunks, HASH, struct chunk_key, struct chunk, 65536, BPF_F_NO_PREALLOC);
TABLE(members, HASH, struct member_key, __u32, 1048576, BPF_F_NO_PREALLOC);
TABLE(vteps, HASH, __u32, __u32, 65536, BPF_F_NO_PREALLOC);
TABLE(meter_rules, HASH, struct meter_key, struct meter_chunk, 4096, BPF_F_NO_PREALLOC);
TABLE(meter_rules6, HASH, struct meter_key, struct meter_chunk6, 4096, BPF_F_NO_PREALLOC);
TABLE(meters, HASH, __u64, struct meter, 16384, BPF_F_NO_PREALLOC);
TABLE(settings, ARRAY, __u32, struct settings, 1, 0);
TABLE(sweeps, ARRAY, __u32, __u64, 1, 0);
TABLE(flows, LRU_HASH, struct flow_key, struct flow, 131072, 0);
TABLE(fragments, LRU_HASH, struct fragment_key, struct fragment, 8192, 0);
TABLE(nats, LRU_HASH, struct nat_key, struct nat, 65536, 0);
TABLE(tans, LRU_HASH, struct tan_key, struct tan, 65536, 0);
TABLE(helpers, HASH, struct helper_key, __u32, 16384, BPF_F_NO_PREALLOC);
TABLE(forwards, LPM_TRIE, struct forward_key, struct forward, 65536, BPF_F_NO_PREALLOC);
TABLE(locals, HASH, struct ip_key, __u32, 16384, BPF_F_NO_PREALLOC);
TABLE(met, LRU_HASH, struct nat_key, struct nat, 65536, 0);
TABLE(forwarded, LRU_HASH, struct nat_key, struct nat, 65536, 0);
TABLE(firewalls, HASH, struct firewall_key, struct firewall, 65536, BPF_F_NO_PREALLOC);
TABLE(firewall_rules, HASH, struct chunk_key, struct firewall_chunk, 16384, BPF_F_NO_PREALLOC);
TABLE(firewall_flows, LRU_HASH, struct firewall_flow_key, struct flow, 131072, 0);
TABLE(mirrors, HASH, struct mirror_key, struct mirror, 16384, BPF_F_NO_PREALLOC);
TABLE(sinks, HASH, __u32, __u32, 16384, BPF_F_NO_PREALLOC);
TABLE(collectors, HASH, __u32, struct collector, 16384, BPF_F_NO_PREALLOC);
TABLE(collected, HASH, __u32, struct collected, 16384, BPF_F_NO_PREALLOC);
TABLE(limits, HASH, struct limit_key, struct limit, 65536, BPF_F_NO_PREALLOC);
TABLE(buckets, HASH, struct limit_key, struct bucket, 65536, BPF_F_NO_PREALLOC);
TABLE(sources6, LPM_TRIE, struct source6_key, struct source, 262144, BPF_F_NO_PREALLOC);
TABLE(addresses6, HASH, struct ip6_key, struct hop, 1048576, BPF_F_NO_PREALLOC);
TABLE(routes6, LPM_TRIE, struct route6_key, struct route6, 262144, BPF_F_NO_PREALLOC);
TABLE(choices6, HASH, struct choice_key, struct route6, 65536, BPF_F_NO_PREALLOC);
TABLE(chunks6, HASH, struct chunk_key, struct chunk6, 65536, BPF_F_NO_PREALLOC);
TABLE(members6, HASH, struct member6_key, __u32, 1048576, BPF_F_NO_PREALLOC);
TABLE(flows6, LRU_HASH, struct flow6_key, struct flow, 131072, 0);
TABLE(fragments6, LRU_HASH, struct fragment6_key, struct fragment, 8192, 0);
TABLE(drops, LRU_PERCPU_HASH, struct drop_key, __u64, 16384, 0);

#endif
