/* The packet path: programs on the hooks of a node's network namespace.
 *
 *   guest -> tap -> from_guest -+-> another tap -> to_guest -> guest
 *                               +-> overlay device (VXLAN, key set per packet) -> other host -> from_overlay
 *                               +-> router: next leg, as above, or gateway -> NAT -> edge link -> to_edge
 *                               +-> this host: DHCP (packet socket), metadata (its TCP stack)
 *   edge link -> from_edge -> NAT back -> router -> tap or overlay
 *   host's stack -> agent link -> from_agent -> tap             (answers of the metadata service, names by TCP)
 *   agent -> agent link -> from_agent -> edge link              (its word with next hops, watch.h)
 *   copies for collectors -> copy link -> wrap_copy -> send_copy -> underlay or edge link               (collect.h)
 *
 * There is no bridge and no learning: the agent has written where every address is, and where what is for many goes (many.h).
 * Whoever sends to a tap meets to_guest there, so a guest's groups are judged in one place.
 */
#include "tables.h"
#include "frame.h"
#include "filter.h"
#include "names.h"
#include "firewall.h"
#include "nat.h"
#include "forward.h"
#include "local.h"
#include "meter.h"
#include "mirror.h"
#include "quality.h"
#include "wire.h"
#include "arp.h"
#include "watch.h"

#define DHCP_INTERVAL (SEC_NS / 5) /* five a second on the long run, */
#define DHCP_BURST (4 * SEC_NS)    /* twenty at once */

#define VIA_GUEST 0u
#define VIA_OVERLAY 1u
#define VIA_EDGE 2u

#define ROUTERS 4 /* that a packet may pass on one host */

__attribute__((noinline)) int send_tunnel(struct __sk_buff *skb, __u32 vni, __u32 vtep)
{
	struct bpf_tunnel_key key = {.tunnel_id = vni, .tunnel_ttl = 64};
	struct settings *set = get_settings();

	if (!set || !set->overlay_if)
		return drop(skb, DROP_OVERLAY);
	key.remote_ipv4 = bpf_ntohl(vtep);
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return drop(skb, DROP_OVERLAY);
	return bpf_redirect(set->overlay_if, 0);
}

/* Does the provider route this inside address to the router? */
__attribute__((noinline)) int is_leaked(__u64 router, __u32 ip)
{
	struct route_key key = {.prefixlen = 96, .router_lo = router, .router_hi = router >> 32, .ip = ip};
	struct settings *set = get_settings();
	struct route *r;

	if (!set || !(set->flags & SETTING_LEAKS))
		return 0;
	r = bpf_map_lookup_elem(&routes, &key);
	return r && r->kind == ROUTE_LEG && r->vtep == LEG_LEAKED;
}

static __always_inline int send_gateway(struct __sk_buff *skb, const struct packet *p, __u64 router, const struct route *r,
					__u32 vni, __u32 via)
{
	struct fixed_key key = {.router = router, .ip = p->saddr};
	struct ext_key target = {.vni = r->vni, .ip = p->daddr};
	__u32 *floating, saddr;
	int no, apart, open, leaked;

	if (via == VIA_EDGE)
		return drop(skb, DROP_NO_ROUTE);
	floating = bpf_map_lookup_elem(&fixed, &key);
	if (!floating && r->vtep) {
		/* Another host has the gateway: it gets the frame as the guest sent it. */
		if (via != VIA_GUEST)
			return drop(skb, DROP_NO_ROUTE);
		return send_tunnel(skb, vni, r->vtep);
	}
	if (forward_once(skb, p))
		return drop(skb, DROP_MALFORMED);
	meter_packet(skb, p, router, METER_OUT);
	if (floating) {
		no = translate(skb, p, *floating, 1);
	} else {
		no = forward_out(skb, p, router);
		if (no == 1) {
			leaked = is_leaked(router, p->saddr);
			apart = r->scope && scope_of(vni, 4) != r->scope;
			if (apart && !leaked && !r->gw)
				return drop(skb, DROP_SCOPE);
			/* Without a gateway address, or in one scope, or where it is leaked, the provider routes the inside's
			 * addresses to it. But what turns round before the wire must come back the same way.
			 */
			open = (leaked || (r->scope > SCOPE_NONE && !apart)) && !bpf_map_lookup_elem(&externals, &target);
			no = r->gw && !open ? hide(skb, p, router, r->gw, r->vni) : 0;
			if (!no && r->gw && !open && p->protocol == UDP)
				expect(skb, p, router, r->gw, r->vni);
		} else if (no) {
			no = DROP_NAT + 1;
		}
	}
	if (no)
		return drop(skb, no - 1);
	/* Limits of an address hold for everybody behind it. */
	if (bpf_skb_load_bytes(skb, ETH_LEN + 12, &saddr, 4))
		return drop(skb, DROP_MALFORMED);
	if (police(skb, LIMIT_ADDRESS, saddr, FROM_GUEST))
		return drop(skb, DROP_RATE);
	return send_edge(skb, r, saddr, p->daddr);
}

/* A floating address of a network that the router has a leg in: on the way in it becomes what is fixed, on the way out what
 * is fixed becomes it. Not 0: it could not be rewritten.
 */
__attribute__((noinline)) int by_leg(struct __sk_buff *skb, struct packet *p, __u64 router, __u32 leg, __u32 out)
{
	struct fixed_key key = {.router = router, .leg = leg};
	__u32 *to, address;

	if (!p)
		return -1;
	key.ip = out ? p->saddr : p->daddr;
	to = bpf_map_lookup_elem(&fixed, &key);
	if (!to)
		return 0;
	address = *to;
	if (translate(skb, p, address, out))
		return -1;
	if (out)
		p->saddr = address;
	else
		p->daddr = address;
	return 0;
}

/* Tells a guest of this host why its packet went no further, from the leg that it came in by. */
__attribute__((noinline)) int send_error(struct __sk_buff *skb, const struct packet *p, __u64 router, __u32 type_code, __u32 mtu)
{
	struct route_key key = {.prefixlen = 96, .router_lo = router, .router_hi = router >> 32};
	__u32 reason = type_code >> 8 == 11 ? DROP_TTL : DROP_TOO_BIG;
	struct route *r;

	if (!p)
		return drop(skb, DROP_MALFORMED);
	key.ip = p->saddr;
	r = bpf_map_lookup_elem(&routes, &key);
	if (!r || r->kind != ROUTE_LEG || !r->gw)
		return drop(skb, reason);
	drop(skb, reason); /* counts */
	if (refuse(skb, p, r->gw, type_code, mtu))
		return TC_ACT_SHOT;
	skb->mark = MARK_AGENT;
	return give(skb, whose(skb));
}

/* Forwards an IPv4 packet that router `router` got, from where `via` says; `vni`: the network it came in by, 0: by a
 * translation, for which no address scope counts. A router that is the next hop of another one goes on at once.
 */
__attribute__((noinline)) int route_packet(struct __sk_buff *skb, struct packet *p, __u64 router, __u32 vni, __u32 via)
{
	struct settings *set = get_settings();
	struct route_key key = {.prefixlen = 96};
	struct ip_key target = {};
	__u32 length, n, in = vni;
	struct route *r = 0;
	struct hop *h = 0;

	if (!p || !set)
		return drop(skb, DROP_MALFORMED);
	for (n = 0; n < ROUTERS; n++) {
		if (set->flags & SETTING_BY_LEG && by_leg(skb, p, router, in | FIXED_IN, 0))
			return drop(skb, DROP_NAT);
		key.router_lo = router;
		key.router_hi = router >> 32;
		key.ip = p->daddr;
		if (p->ttl <= 1)
			return via == VIA_GUEST ? send_error(skb, p, router, 11 << 8, 0) : drop(skb, DROP_TTL);
		r = bpf_map_lookup_elem(&routes, &key);
		if (r)
			r = choose(r, p);
		if (!r)
			return drop(skb, DROP_NO_ROUTE);
		length = skb->gso_size ? skb->gso_size + IP_LEN + 20 : p->length;
		/* Who must not be cut is told; nobody cuts here, and what may be cut goes on whole. */
		if (r->mtu && length > r->mtu && p->whole && via == VIA_GUEST)
			return send_error(skb, p, router, 3 << 8 | 4, r->mtu);
		if (r->kind == ROUTE_EXTERNAL)
			break;
		if (via == VIA_EDGE && in && !n && r->vtep) {
			if (r->vtep == LEG_HIDDEN)
				return drop(skb, DROP_NO_ROUTE);
		} else if (r->scope && in && scope_of(in, 4) != r->scope) {
			return drop(skb, DROP_SCOPE);
		}
		target.vni = r->vni;
		target.ip = r->via ? r->via : p->daddr;
		h = bpf_map_lookup_elem(&addresses, &target);
		if (!h)
			return drop(skb, DROP_NO_HOST);
		if (h->kind != HOP_ROUTER || h->router == router || target.ip == p->daddr)
			break;
		if (set->flags & SETTING_FIREWALLS && firewalled_leg(r->vni, h, r))
			return drop(skb, DROP_FIREWALL);
		if (set->flags & SETTING_BY_LEG && by_leg(skb, p, router, r->vni, 1))
			return drop(skb, DROP_NAT);
		if (forward_once(skb, p))
			return drop(skb, DROP_MALFORMED);
		p->ttl--;
		router = h->router;
		in = r->vni;
	}
	if (n == ROUTERS || !r)
		return drop(skb, DROP_TTL);
	if (r->kind == ROUTE_EXTERNAL)
		return send_gateway(skb, p, router, r, vni, via);
	if (!h)
		return drop(skb, DROP_NO_HOST);
	if (h->kind == HOP_ROUTER) {
		/* One of the router's own addresses: it answers ping, to guests of this host. */
		if (via != VIA_GUEST || target.ip != p->daddr || h->router != router || p->protocol != ICMP || p->type != 8)
			return drop(skb, DROP_NO_HOST);
		if (answer_echo(skb, p))
			return drop(skb, DROP_MALFORMED);
		skb->mark = MARK_AGENT;
		return give(skb, whose(skb));
	}
	if (h->kind != HOP_LOCAL && h->kind != HOP_REMOTE)
		return drop(skb, DROP_NO_HOST);
	/* A tunnel's packet must not leave by a tunnel again: two hosts could play ping-pong. */
	if (h->kind == HOP_REMOTE && via == VIA_OVERLAY)
		return drop(skb, DROP_NO_HOST);
	if (set->flags & SETTING_BY_LEG && by_leg(skb, p, router, r->vni, 1))
		return drop(skb, DROP_NAT);
	if (forward_once(skb, p) || set_macs(skb, h->mac, r->mac))
		return drop(skb, DROP_MALFORMED);
	if (h->how == ADDRESS_LOCAL && meet_local(skb, p, r->vni))
		return drop(skb, DROP_NAT);
	if (via == VIA_EDGE)
		meter_packet(skb, p, router, METER_IN);
	if (h->kind == HOP_REMOTE)
		return send_tunnel(skb, r->vni, h->where);
	return give(skb, h->where);
}

/* To the agent's packet socket; the destination address tells it from which port. */
static __always_inline int punt(struct __sk_buff *skb)
{
	__u32 ifindex = whose(skb);
	__u64 now = bpf_ktime_get_coarse_ns(), tat;
	struct settings *set = get_settings();
	struct live *l = bpf_map_lookup_elem(&live, &ifindex);
	__u8 dst[6] = {0x02, 0x70};
	__u32 name = bpf_htonl(ifindex);

	if (!set || !l)
		return drop(skb, DROP_DHCP);
	tat = l->dhcp_tat > now ? l->dhcp_tat : now;
	if (tat - now > DHCP_BURST)
		return drop(skb, DROP_DHCP);
	l->dhcp_tat = tat + DHCP_INTERVAL;
	__builtin_memcpy(dst + 2, &name, 4);
	if (bpf_skb_store_bytes(skb, 0, dst, 6, 0))
		return drop(skb, DROP_MALFORMED);
	return bpf_redirect(set->punt_if, BPF_F_INGRESS);
}

/* 169.254.169.254: the source becomes an address that names the port, and the host's own stack takes it. */
static __always_inline int guest_metadata(struct __sk_buff *skb, const struct port *port, const struct packet *p)
{
	struct settings *set = get_settings();
	__u32 name = bpf_htonl(METADATA_BASE | (whose(skb) & ~METADATA_MASK));

	if (!set || !(port->flags & PORT_METADATA) || p->protocol != TCP || p->dport != bpf_htons(80) || p->later ||
	    p->saddr != port->ip || whose(skb) & METADATA_MASK)
		return drop(skb, DROP_METADATA);
	if (set_address(skb, p, 12, p->saddr, name) || set_macs(skb, set->agent_mac, set->service_mac))
		return drop(skb, DROP_MALFORMED);
	return bpf_redirect(set->agent_if, BPF_F_INGRESS);
}

/* By hardware address, within the network. */
static __always_inline int switch_frame(struct __sk_buff *skb, const struct port *port, const struct eth *eth,
					struct packet *p)
{
	struct mac_key key = {.vni = port->vni};
	struct settings *set;
	struct hop *h;
	int turned;

	if (p && port->flags & PORT_EXTERNAL) {
		turned = turn_outside(skb, port, p->daddr);
		if (turned >= 0)
			return turned;
	}
	__builtin_memcpy(key.mac, eth->dst, 6);
	h = bpf_map_lookup_elem(&stations, &key);
	if (!h) {
		set = get_settings();
		if (port->flags & PORT_EXTERNAL && set && set->edge_if)
			return out_edge(skb, port->vni, 0);
		return drop(skb, DROP_UNKNOWN_STATION);
	}
	if (h->kind == HOP_LOCAL) {
		if (h->where == whose(skb))
			return drop(skb, DROP_UNKNOWN_STATION);
		if (p && port->flags & PORT_LOCALS && meet_local(skb, p, port->vni))
			return drop(skb, DROP_NAT);
		return give(skb, h->where);
	}
	if (h->kind == HOP_REMOTE)
		return send_tunnel(skb, port->vni, h->where);
	if (h->kind == HOP_ROUTER && p)
		return route_packet(skb, p, h->router, port->vni, VIA_GUEST);
	return drop(skb, DROP_UNKNOWN_STATION);
}

#include "edge6.h"
#include "tagged.h"
#include "collect.h"

static __always_inline int guest_ip(struct __sk_buff *skb, const struct port *port, const struct eth *eth)
{
	struct packet p = {};
	int secured = port->flags & PORT_SECURED, no;

	no = parse(skb, &p, whose(skb));
	if (no)
		return drop(skb, no - 1);
	if (port->flags & PORT_MARKED && set_tos(skb, port->tos))
		return drop(skb, DROP_MALFORMED);
	if (p.protocol == UDP && p.sport == bpf_htons(68) && p.dport == bpf_htons(67) && !p.later) {
		if (secured && !same_mac(eth->src, port->mac))
			return drop(skb, DROP_SPOOFED_MAC);
		return port->flags & PORT_DHCP ? punt(skb) : drop(skb, DROP_DHCP);
	}
	if (secured) {
		if (!owns(port, whose(skb), p.saddr, eth->src))
			return drop(skb, same_mac(eth->src, port->mac) ? DROP_SPOOFED_IP : DROP_SPOOFED_MAC);
		if (p.protocol == UDP && p.sport == bpf_htons(67) && p.dport == bpf_htons(68))
			return drop(skb, DROP_DHCP);
	}
	if (p.daddr == METADATA_IP)
		return guest_metadata(skb, port, &p);
	if (secured) {
		no = admit(skb, &p, port, FROM_GUEST);
		if (no)
			return drop(skb, no - 1);
	}
	if (port->flags & PORT_FIREWALLED && !beyond_firewalls(skb)) {
		no = firewalled(skb, &p, port, FROM_GUEST);
		if (no)
			return no == REJECTED ? reject(skb, &p, FROM_GUEST) : drop(skb, no - 1);
	}
	if (eth->dst[0] & 1)
		return many4(skb, port->vni, p.daddr);
	if (port->flags & PORT_NAMES && p.daddr == RESOLVER_IP) {
		no = guest_names(skb, port, &p);
		if (no != NAMES_ELSEWHERE)
			return no;
	}
	if (port->flags & PORT_LOCALS && leave_local(skb, &p, port->vni))
		return drop(skb, DROP_NAT);
	return switch_frame(skb, port, eth, &p);
}

SEC("classifier")
int from_guest(struct __sk_buff *skb)
{
	__u32 ifindex = name_of(skb), tagged = 0;
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct eth eth;

	if (!port && number_of(skb)) {
		ifindex = ifindex_of(skb);
		port = bpf_map_lookup_elem(&ports, &ifindex);
		tagged = port && port->flags & PORT_TRANSPARENT;
		port = tagged ? port : 0;
	}
	say_beyond_firewalls(skb, skb->mark == MARK_REJECT);
	say_wire(skb, 0, 0);
	skb->mark = 0;
	say_whose(skb, port ? ifindex : ifindex_of(skb));
	/* The kernel has taken the tag out of the frame and would put it back behind our judgement. */
	if (skb->vlan_present && !tagged && (!port || untag(skb)))
		return drop(skb, DROP_FAMILY);
	if (!port)
		return drop(skb, DROP_NO_PORT);
	if (!(port->flags & PORT_UP))
		return drop(skb, DROP_PORT_DOWN);
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return drop(skb, DROP_MALFORMED);
	if (port->flags & PORT_LIMITED_OUT && police(skb, LIMIT_PORT, ifindex, FROM_GUEST))
		return drop(skb, DROP_RATE);
	if (eth.src[0] & 1)
		return drop(skb, DROP_SPOOFED_MAC);
	if (tagged && lift(skb))
		return drop(skb, DROP_FAMILY);
	if (port->flags & PORT_TAPPED) {
		if (!tagged)
			say_lifted(skb, 0);
		if (mirror(skb, FROM_GUEST))
			return drop(skb, DROP_MALFORMED);
	}
	if (tagged)
		return guest_tagged(skb, port, &eth);
	if (eth.protocol == bpf_htons(ETH_ARP))
		return guest_arp(skb, port, &eth);
	if (eth.protocol == bpf_htons(ETH_IP))
		return guest_ip(skb, port, &eth);
	if (eth.protocol == bpf_htons(ETH_IP6))
		return guest_ip6(skb, port, &eth);
	if (port->flags & PORT_SECURED)
		return drop(skb, DROP_FAMILY);
	if (eth.dst[0] & 1)
		return drop(skb, DROP_MULTICAST);
	return switch_frame(skb, port, &eth, 0);
}

/* What the groups refuse costs the guest nothing of its limit. */
static __always_inline int deliver(struct __sk_buff *skb, const struct port *port, int tagged)
{
	if (port->flags & PORT_LIMITED_IN && police(skb, LIMIT_PORT, whose(skb), TO_GUEST))
		return drop(skb, DROP_RATE);
	if (port->flags & PORT_TAPPED) {
		if (!tagged)
			say_lifted(skb, 0);
		if (mirror(skb, TO_GUEST))
			return drop(skb, DROP_MALFORMED);
	}
	return TC_ACT_OK;
}

/* `tagged`: with a tag of the guests' own. */
static __always_inline int hear(struct __sk_buff *skb, const struct port *port, __u32 ifindex, int tagged)
{
	struct packet p = {};
	int no;

	if (!(port->flags & (PORT_SECURED | PORT_FIREWALLED)))
		return deliver(skb, port, tagged);
	if (skb->protocol == bpf_htons(ETH_ARP))
		return port->flags & PORT_EXTERNAL || !(port->flags & PORT_SECURED) || tagged ? deliver(skb, port, tagged) :
											 drop(skb, DROP_STACK);
	if (skb->protocol == bpf_htons(ETH_IP6)) {
		no = welcome6(skb, port);
		if (no & REJECTED)
			return no & ~REJECTED;
		return no ? drop(skb, no - 1) : deliver(skb, port, tagged);
	}
	if (skb->protocol != bpf_htons(ETH_IP))
		return port->flags & PORT_SECURED ? drop(skb, DROP_FAMILY) : deliver(skb, port, tagged);
	/* The sign bit keeps the two directions of a port's fragments apart. */
	no = parse(skb, &p, ifindex | 0x80000000u);
	if (!no && port->flags & PORT_SECURED)
		no = admit(skb, &p, port, TO_GUEST);
	if (!no && port->flags & PORT_FIREWALLED)
		no = firewalled(skb, &p, port, TO_GUEST);
	if (no == REJECTED)
		return reject(skb, &p, TO_GUEST);
	return no ? drop(skb, no - 1) : deliver(skb, port, tagged);
}

__attribute__((noinline)) int hear_tagged(struct __sk_buff *skb)
{
	__u32 ifindex = ifindex_of(skb);
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	int verdict;

	say_whose(skb, ifindex);
	if (!port || !(port->flags & PORT_TRANSPARENT))
		return drop(skb, DROP_FAMILY);
	if (!(port->flags & PORT_UP))
		return drop(skb, DROP_PORT_DOWN);
	if (skb->mark == MARK_AGENT) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	if (lift(skb))
		return drop(skb, DROP_FAMILY);
	verdict = hear(skb, port, ifindex, 1);
	/* What a firewall rejects goes back with its tags, too. */
	return verdict != TC_ACT_SHOT && lower(skb) ? drop(skb, DROP_MALFORMED) : verdict;
}

SEC("classifier")
int to_guest(struct __sk_buff *skb)
{
	__u32 ifindex = name_of(skb);
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);

	say_wire(skb, 0, 0);
	if (!port && number_of(skb))
		return hear_tagged(skb);
	say_whose(skb, ifindex);
	if (!port)
		return drop(skb, DROP_NO_PORT);
	if (!(port->flags & PORT_UP))
		return drop(skb, DROP_PORT_DOWN);
	if (skb->mark == MARK_AGENT) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	return hear(skb, port, ifindex, 0);
}

/* What each host on its way takes of the tunnel's TTL: two that follow each other's word end the game after a few rounds. */
#define FOLLOW_COST 12

/* The guest has gone to another host, and the sender does not know that yet. */
static __always_inline int follow(struct __sk_buff *skb, const struct bpf_tunnel_key *from, __u32 vtep)
{
	struct bpf_tunnel_key key = {.tunnel_id = from->tunnel_id};
	struct settings *set = get_settings();

	if (!set || !set->overlay_if || from->tunnel_ttl <= FOLLOW_COST)
		return drop(skb, DROP_OVERLAY);
	key.tunnel_ttl = from->tunnel_ttl - FOLLOW_COST;
	key.remote_ipv4 = bpf_ntohl(vtep);
	if (key.remote_ipv4 == from->remote_ipv4)
		return drop(skb, DROP_UNKNOWN_STATION);
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
		return drop(skb, DROP_OVERLAY);
	return bpf_redirect(set->overlay_if, 0);
}

SEC("classifier")
int from_overlay(struct __sk_buff *skb)
{
	struct bpf_tunnel_key tunnel = {};
	struct mac_key key = {};
	struct packet p = {};
	struct eth eth;
	struct hop *h;
	__u32 far;
	int no;

	say_whose(skb, ifindex_of(skb));
	say_wire(skb, 0, 0);
	skb->mark = 0;
	if (bpf_skb_get_tunnel_key(skb, &tunnel, sizeof(tunnel), 0))
		return drop(skb, DROP_OVERLAY);
	far = bpf_htonl(tunnel.remote_ipv4);
	if (!bpf_map_lookup_elem(&vteps, &far))
		return drop(skb, DROP_VTEP);
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return drop(skb, DROP_MALFORMED);
	key.vni = tunnel.tunnel_id;
	if (eth.dst[0] & 1 && (skb->vlan_present || floods_in(key.vni)))
		return flood(skb, key.vni);
	__builtin_memcpy(key.mac, eth.dst, 6);
	h = bpf_map_lookup_elem(&stations, &key);
	if (!h)
		return skb->vlan_present ? drop(skb, DROP_FAMILY) : receive_copy(skb, key.vni);
	if (h->kind == HOP_LOCAL)
		return give(skb, h->where);
	if (h->kind == HOP_REMOTE && h->how == ADDRESS_LEFT)
		return follow(skb, &tunnel, h->where);
	/* Tags are the guests' own: no router takes them. */
	if (skb->vlan_present)
		return drop(skb, DROP_FAMILY);
	if (h->kind == HOP_ROUTER && eth.protocol == bpf_htons(ETH_IP6))
		return overlay_ip6(skb, h->router, key.vni);
	if (h->kind != HOP_ROUTER || eth.protocol != bpf_htons(ETH_IP))
		return drop(skb, DROP_UNKNOWN_STATION);
	/* For the gateway that this host holds. */
	no = parse(skb, &p, tunnel.tunnel_id | 0x40000000u);
	if (no)
		return drop(skb, no - 1);
	return route_packet(skb, &p, h->router, key.vni, VIA_OVERLAY);
}

/* What is tagged is never the stack's own: it knows no tags. */
static __always_inline int not_ours(struct __sk_buff *skb, const struct settings *set, __u32 reason)
{
	return set->flags & SETTING_SHARED && !tag_of(skb) ? TC_ACT_OK : drop(skb, reason);
}

__attribute__((noinline)) int edge_arp(struct __sk_buff *skb, const struct eth *eth)
{
	struct settings *set = get_settings();
	struct ip_key key = {.vni = wire_of(skb)};
	struct mac_key station = {.vni = wire_of(skb)};
	struct ext_key external = {.vni = wire_of(skb)};
	const __u8 *mac = 0;
	struct ext *e;
	struct hop *h;
	struct arp a;

	if (!set || !eth || load_arp(skb, &a))
		return drop(skb, DROP_MALFORMED);
	if (tag_of(skb))
		learn_arp(key.vni, &a);
	if (a.op == bpf_htons(1)) {
		external.ip = a.tpa;
		e = bpf_map_lookup_elem(&externals, &external);
		if (e && e->kind == EXT_RELAY)
			e = 0;
		key.ip = a.tpa;
		h = bpf_map_lookup_elem(&addresses, &key);
		if (e)
			mac = e->mac;
		else if (h && key.vni && h->kind == HOP_LOCAL)
			mac = h->mac;
		if (mac) {
			if (answer_arp(skb, &a, mac))
				return drop(skb, DROP_MALFORMED);
			skb->mark = MARK_AGENT;
			return give(skb, whose(skb));
		}
		return not_ours(skb, set, DROP_ARP_UNKNOWN);
	}
	__builtin_memcpy(station.mac, eth->dst, 6);
	h = bpf_map_lookup_elem(&stations, &station);
	if (h && key.vni && h->kind == HOP_LOCAL)
		return give(skb, h->where);
	if (tag_of(skb))
		return TC_ACT_SHOT;
	/* The stack's neighbour table asked, under another name: see to_edge. */
	if (set_macs(skb, set->edge_mac, eth->src) || bpf_skb_change_type(skb, 0))
		return drop(skb, DROP_MALFORMED);
	return TC_ACT_OK;
}

/* The stack has no address of its own here, so it would ask with whatever it finds on another device. */
static __always_inline int edge_ask(struct __sk_buff *skb, const struct settings *set)
{
	struct arp a;

	if (load_arp(skb, &a))
		return drop(skb, DROP_STACK);
	if (set->flags & SETTING_SHARED || a.op != bpf_htons(1) || !same_mac(a.sha, set->edge_mac))
		return TC_ACT_OK;
	a.spa = set->ask_ip;
	if (a.spa) {
		__builtin_memcpy(a.sha, set->ask_mac, 6);
		if (bpf_skb_store_bytes(skb, 6, a.sha, 6, 0))
			return drop(skb, DROP_MALFORMED);
	}
	return bpf_skb_store_bytes(skb, ETH_LEN, &a, sizeof(a), 0) ? drop(skb, DROP_MALFORMED) : TC_ACT_OK;
}

/* Nobody outside has an address that is inside: a remote group would take him for a member. */
static __always_inline int from_inside(__u64 router, __u32 saddr)
{
	struct route_key key = {.prefixlen = 96, .router_lo = router, .router_hi = router >> 32, .ip = saddr};
	struct route *r = bpf_map_lookup_elem(&routes, &key);

	return r && (r->kind & ~ROUTE_SHARED) == ROUTE_LEG;
}

/* Not part of its caller, which has little of the stack so that IPv6 may have the rest. */
__attribute__((noinline)) int edge_ip(struct __sk_buff *skb, const struct eth *eth)
{
	struct settings *set = get_settings();
	struct mac_key station = {.vni = wire_of(skb)};
	struct ext_key key = {.vni = wire_of(skb)};
	struct packet p = {};
	__u64 router;
	struct ext *e;
	struct hop *h;
	__u32 asker;
	int no;

	if (!set || !eth)
		return drop(skb, DROP_MALFORMED);
	no = parse(skb, &p, wire_scope(skb));
	if (no)
		return drop(skb, no - 1);
	/* Names of ports and of the services of hosts are ours to give. */
	if ((p.saddr & bpf_htonl(METADATA_MASK)) == bpf_htonl(METADATA_BASE) || p.daddr == METADATA_IP || p.saddr == METADATA_IP ||
	    p.saddr == RESOLVER_IP)
		return drop(skb, DROP_RESERVED);
	if (watching(&p)) {
		no = hear_watched4(skb, p.daddr, p.saddr);
		if (no >= 0)
			return no;
	}
	key.ip = p.daddr;
	e = bpf_map_lookup_elem(&externals, &key);
	if (e && from_inside(e->router, p.saddr))
		return drop(skb, DROP_SPOOFED_IP);
	if (e && police(skb, LIMIT_ADDRESS, p.daddr, TO_GUEST))
		return drop(skb, DROP_RATE);
	if (e && (e->kind == EXT_FLOATING || e->kind == EXT_RELAY)) {
		no = translate(skb, &p, e->fixed, 0);
		if (no)
			return drop(skb, no - 1);
		p.daddr = e->fixed;
		return route_packet(skb, &p, e->router, 0, VIA_EDGE);
	}
	if (e) {
		router = e->router;
		no = e->kind == EXT_FORWARD ? forward_in(skb, &p, router) : reveal(skb, &p, &router);
		if (!no)
			return route_packet(skb, &p, router, 0, VIA_EDGE);
		if (no == 1 && p.protocol == ICMP && p.type == 8 && !answer_echo(skb, &p)) {
			/* A ping from behind this very router turns round once more. */
			key.ip = p.saddr;
			if (bpf_map_lookup_elem(&externals, &key))
				return out_edge(skb, key.vni, BPF_F_INGRESS);
			asker = guest_outside(key.vni, p.saddr);
			if (asker)
				return give(skb, asker);
			skb->mark = MARK_AGENT;
			return give(skb, whose(skb));
		}
		return drop(skb, DROP_NAT);
	}
	if (station.vni) {
		__builtin_memcpy(station.mac, eth->dst, 6);
		h = bpf_map_lookup_elem(&stations, &station);
		if (h && h->kind == HOP_LOCAL)
			return give(skb, h->where);
		/* A gateway that hides nobody: the provider routes to it. */
		if (h && h->kind == HOP_ROUTER)
			return from_inside(h->router, p.saddr) ? drop(skb, DROP_SPOOFED_IP) :
								 route_packet(skb, &p, h->router, station.vni, VIA_EDGE);
	}
	return not_ours(skb, set, DROP_EDGE);
}

SEC("classifier")
int from_edge(struct __sk_buff *skb)
{
	struct settings *set = get_settings();
	__u32 tag = number_of(skb), *vni = 0;
	struct eth eth;

	say_whose(skb, ifindex_of(skb));
	say_wire(skb, 0, 0);
	skb->mark = 0;
	if (!set)
		return drop(skb, DROP_MALFORMED);
	if (tag) {
		tag |= skb->vlan_proto == bpf_htons(ETH_SERVICE_TAG) ? TAG_SERVICE : 0;
		vni = bpf_map_lookup_elem(&tags, &tag);
	}
	/* Beside ours the device may carry the host's own. */
	if (skb->vlan_present && tag && !vni)
		return set->flags & SETTING_SHARED ? TC_ACT_OK : drop(skb, DROP_FAMILY);
	if (skb->vlan_present && untag(skb))
		return vni && *vni & TAGS_WITHIN ? edge_tagged(skb, *vni & ~TAGS_WITHIN) : drop(skb, DROP_FAMILY);
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return drop(skb, DROP_MALFORMED);
	say_wire(skb, vni ? *vni & ~TAGS_WITHIN : set->ext_vni, tag);
	if (eth.protocol == bpf_htons(ETH_ARP))
		return edge_arp(skb, &eth);
	if (eth.protocol == bpf_htons(ETH_IP))
		return edge_ip(skb, &eth);
	if (eth.protocol == bpf_htons(ETH_IP6))
		return edge_ip6(skb, &eth);
	return not_ours(skb, set, DROP_FAMILY);
}

/* Every external address speaks with its own hardware address, so that switches outside know where it is. */
SEC("classifier")
int to_edge(struct __sk_buff *skb)
{
	struct settings *set = get_settings();
	struct ext_key key = {};
	struct ext *e;

	say_whose(skb, ifindex_of(skb));
	say_wire(skb, 0, 0);
	if (!set)
		return drop(skb, DROP_NO_EDGE);
	if (skb->mark == MARK_AGENT) {
		skb->mark = 0;
		return TC_ACT_OK;
	}
	/* What leaves with a tag is whole, or the host's own. */
	if (skb->vlan_present)
		return TC_ACT_OK;
	if (skb->protocol == bpf_htons(ETH_ARP))
		return edge_ask(skb, set);
	if (skb->protocol != bpf_htons(ETH_IP))
		return set->flags & SETTING_SHARED || set->ext_vni ? TC_ACT_OK : drop(skb, DROP_STACK);
	if (bpf_skb_load_bytes(skb, ETH_LEN + 12, &key.ip, 4))
		return drop(skb, DROP_MALFORMED);
	key.vni = set->ext_vni;
	e = bpf_map_lookup_elem(&externals, &key);
	if (e && bpf_skb_store_bytes(skb, 6, e->mac, 6, 0))
		return drop(skb, DROP_MALFORMED);
	return TC_ACT_OK;
}

SEC("classifier")
int from_agent(struct __sk_buff *skb)
{
	struct settings *set = get_settings();
	struct packet p = {};
	struct port *port;
	__u32 ifindex;
	int spoken;

	say_whose(skb, ifindex_of(skb));
	say_wire(skb, 0, 0);
	spoken = speak_watched(skb);
	if (spoken >= 0)
		return spoken;
	if (skb->protocol == bpf_htons(ETH_IP6))
		return agent_ip6(skb);
	if (!set || skb->protocol != bpf_htons(ETH_IP) || parse(skb, &p, whose(skb)))
		return drop(skb, DROP_STACK);
	if ((p.saddr != METADATA_IP && p.saddr != RESOLVER_IP) || (p.daddr & bpf_htonl(METADATA_MASK)) != bpf_htonl(METADATA_BASE))
		return drop(skb, DROP_STACK);
	ifindex = bpf_ntohl(p.daddr) & ~METADATA_MASK;
	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port)
		return drop(skb, DROP_NO_PORT);
	if (set_address(skb, &p, 16, p.daddr, port->ip) || set_macs(skb, port->mac, set->service_mac))
		return drop(skb, DROP_MALFORMED);
	skb->mark = MARK_AGENT;
	return bpf_redirect(ifindex, 0);
}

char _license[] SEC("license") = "Apache-2.0";
