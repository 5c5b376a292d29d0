//! IPv6 as rows: the tables of the other families of addresses have longer keys, so that IPv4 pays nothing for them.
//!
//! ```text
//!   sources6 addresses6 routes6 chunks6 members6          what they hold: port.rs, switch.rs, router.rs, filter.rs
//! ```
//! A link-local address follows from the hardware address (RFC 4291), for guests and for the legs of routers; a guest
//! that wants another one is not let speak by it.
use crate::choice::Rank;
use crate::filter::{policies, policy_chunks};
use crate::picture::Picture;
use crate::realm::Realms;
use crate::router::router_name;
use crate::scope::Scopes;
use crate::table::{Bytes, CHUNK6_RULES, Hop, Table, Tables, name64, put};
use crate::view::is_apart;
use crate::wanted::{Direction, Family, Fixed, Group, Interface, Mac, Network, Peer, Port, Router, Rule, Wanted};
use ipnet::{IpNet, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// The address that an interface gives itself.
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

fn v6(ip: &IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }
}

fn fixed(fixed: &[Fixed]) -> impl Iterator<Item = Ipv6Addr> {
    fixed.iter().filter_map(|f| v6(&f.address))
}

/// Does anybody speak IPv6 there?
pub(crate) fn speaks(network: &Network) -> bool {
    network.subnets.iter().any(|s| matches!(s.cidr, IpNet::V6(_)))
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    draw_sources(picture);
    draw_addresses(picture);
    draw_routes(picture);
    draw_movable(picture);
    draw_groups(picture);
}

fn draw_sources(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for port in &wanted.ports {
        let Some(&ifindex) = picture.devices.get(&port.id) else { continue };
        let speaks = picture.networks.get(port.network.as_str()).is_some_and(|n| speaks(n));
        let mut owned: BTreeMap<Ipv6Net, Vec<Mac>> = BTreeMap::new();
        let own = fixed(&port.fixed).chain(speaks.then(|| link_local(port.mac)));
        for ip in own {
            owned.entry(Ipv6Net::from(ip)).or_default().push(port.mac);
        }
        for pair in port.allowed_pairs.iter().take(crate::port::PAIRS_MAX) {
            if let IpNet::V6(net) = pair.cidr {
                owned.entry(net.trunc()).or_default().push(pair.mac.unwrap_or(port.mac));
            }
        }
        for net in owned.keys() {
            let covering = owned.iter().filter(|(wide, _)| wide.contains(net));
            let macs = covering.flat_map(|(_, m)| m.iter().copied()).collect();
            let value = crate::port::source_row(picture, port, net, macs);
            let key = Bytes::new().u32(32 + u32::from(net.prefix_len())).u32(ifindex).raw(&net.addr().octets());
            put(&mut picture.tables, Table::Sources6, key, value);
        }
    }
}

fn address(picture: &mut Picture<'_>, vni: u32, ip: Ipv6Addr, mac: Mac, hop: Hop) -> bool {
    put(&mut picture.tables, Table::Addresses6, Bytes::new().u32(vni).raw(&ip.octets()), hop.bytes(mac.0))
}

fn draw_addresses(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for router in &wanted.routers {
        let hop = Hop::Router(router_name(&router.id));
        for (leg, net) in router.interfaces.iter().filter_map(|l| Some((l, leg6(l)?))) {
            let Some(vni) = picture.networks.get(leg.network.as_str()).map(|n| n.vni) else { continue };
            address(picture, vni, net.addr(), leg.mac, hop);
            address(picture, vni, link_local(leg.mac), leg.mac, hop);
        }
    }
    for p in wanted.ports.iter().filter(|p| !is_apart(wanted, &p.network)) {
        let Some(&ifindex) = picture.devices.get(&p.id) else { continue };
        let Some(&network) = picture.networks.get(p.network.as_str()) else { continue };
        let hop = Hop::Local(ifindex);
        for ip in fixed(&p.fixed) {
            if !address(picture, network.vni, ip, p.mac, hop) {
                picture.close(&p.id, format!("{ip} is in use on the network"));
            }
        }
        if speaks(network) {
            address(picture, network.vni, link_local(p.mac), p.mac, hop);
        }
    }
    for remote in &wanted.remotes {
        let Some(&network) = picture.networks.get(remote.network.as_str()) else { continue };
        if Some(remote.vtep) == picture.vtep {
            continue;
        }
        let own = speaks(network).then(|| link_local(remote.mac));
        for ip in remote.addresses.iter().filter_map(v6).chain(own) {
            address(picture, network.vni, ip, remote.mac, Hop::Remote(remote.vtep));
        }
    }
}

/// Single addresses that a port may use besides its own, with the hardware address that they have there.
fn single_pairs(port: &Port) -> impl Iterator<Item = (Ipv6Addr, Mac)> {
    port.allowed_pairs.iter().take(crate::port::PAIRS_MAX).filter_map(|pair| match pair.cidr {
        IpNet::V6(net) if net.prefix_len() == 128 => Some((net.addr(), pair.mac.unwrap_or(port.mac))),
        _ => None,
    })
}

/// As in switch.rs: the first port has them until another announces them.
fn draw_movable(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for port in &wanted.ports {
        let Some(&ifindex) = picture.devices.get(&port.id) else { continue };
        let Some(vni) = picture.networks.get(port.network.as_str()).map(|n| n.vni) else { continue };
        for (ip, mac) in single_pairs(port) {
            let key = Bytes::new().u32(vni).raw(&ip.octets());
            put(&mut picture.tables, Table::Addresses6, key, Hop::movable(ifindex, mac.0));
            put(
                &mut picture.tables,
                Table::Stations,
                Bytes::new().u32(vni).mac(mac.0),
                Hop::Local(ifindex).bytes(mac.0),
            );
        }
    }
}

/// A leg's address with its prefix.
pub(crate) fn leg6(leg: &Interface) -> Option<Ipv6Net> {
    Ipv6Net::new(v6(&leg.address)?, leg.prefix).ok()
}

/// Whether a next hop is in the network of one of the router's ways out.
fn outside(wanted: &Wanted, router: &Router, via: &Ipv6Addr) -> bool {
    wanted.gateways6(router).filter_map(|(g, _)| Ipv6Net::new(g.address, g.prefix).ok()).any(|net| net.contains(via))
}

fn draw_routes(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for router in &wanted.routers {
        let legs: Vec<(&Interface, Ipv6Net)> = router.interfaces.iter().filter_map(|l| Some((l, leg6(l)?))).collect();
        let scopes = Scopes::of(&picture.scopes, router, Family::V6);
        for (leg, net) in &legs {
            route(picture, router, net.trunc(), (leg, *net, scopes.number(&leg.network)), None);
        }
        for extra in &router.routes {
            let (IpNet::V6(to), IpAddr::V6(via)) = (extra.destination, extra.nexthop) else { continue };
            match legs.iter().find(|(_, net)| net.contains(&via)) {
                Some((leg, net)) => {
                    let scope = scopes.number(&leg.network);
                    route(picture, router, to.trunc(), (leg, *net, scope), Some(via));
                }
                None if outside(wanted, router, &via) => {}
                None => picture.problem(None, format!("router {}: next hop {via} is on no leg", router.id)),
            }
        }
    }
}

fn route(
    picture: &mut Picture<'_>,
    router: &Router,
    to: Ipv6Net,
    (leg, net, scope): (&Interface, Ipv6Net, u32),
    via: Option<Ipv6Addr>,
) {
    let Some((vni, mtu)) = picture.networks.get(leg.network.as_str()).map(|n| (n.vni, n.mtu)) else { return };
    let key = Bytes::new().u32(64 + u32::from(to.prefix_len())).u64(router_name(&router.id)).raw(&to.addr().octets());
    let next = via.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
    let value = Bytes::new().u32(1).u32(vni).u32(0).raw(&next).raw(&net.addr().octets()).raw(&leg.mac.0).u16(mtu);
    let rank = if via.is_some() { Rank::Static } else { Rank::Connected };
    picture.offers.offer6(key, rank, value.u32(scope));
}

/// A rule's row; `None` for what is not IPv6.
fn rule_row(rule: &Rule, stateful: bool) -> Option<Vec<u8>> {
    if rule.family != Family::V6 {
        return None;
    }
    let (mut net, mut mask) = (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let group = match &rule.peer {
        Peer::Cidr(IpNet::V6(cidr)) => {
            (net, mask) = (cidr.network(), cidr.netmask());
            0
        }
        Peer::Cidr(IpNet::V4(_)) => return None,
        Peer::Any => 0,
        Peer::Group(id) => name64(id),
    };
    let row = Bytes::new().u64(group).raw(&net.octets()).raw(&mask.octets());
    Some(crate::filter::rule_tail(row, rule, stateful).0)
}

/// The rules of a set of groups; what did not fit.
pub(crate) fn draw_policy(tables: &mut Tables, policy: u64, groups: &[&Group]) -> Vec<String> {
    let mut problems = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let (chunks, problem) = policy_chunks(groups, direction, CHUNK6_RULES, rule_row);
        problems.extend(problem);
        for (index, mut value) in chunks {
            value.0.resize(Table::Chunks6.sizes().1, 0);
            put(tables, Table::Chunks6, crate::filter::chunk_key(policy, direction, index), value);
        }
    }
    problems
}

fn draw_groups(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for (name, groups) in policies(wanted) {
        for problem in draw_policy(&mut picture.tables, name, &groups) {
            picture.problem(None, problem);
        }
    }
    let peers = crate::filter::peers(wanted);
    let realms = Realms::of_wanted(wanted);
    let mut member = |network: &str, groups: &[String], ip: Ipv6Addr| {
        let Some(realm) = realms.of_network(network) else { return };
        for id in groups.iter().filter(|g| peers.contains(g.as_str())) {
            let key = Bytes::new().u64(name64(id)).raw(&ip.octets()).u32(realm).u32(0);
            put(&mut picture.tables, Table::Members6, key, Bytes::new().u32(1));
        }
    };
    // Not by link-local addresses: those say nothing outside of their network.
    for p in &wanted.ports {
        fixed(&p.fixed).chain(single_pairs(p).map(|(ip, _)| ip)).for_each(|ip| member(&p.network, &p.groups, ip));
    }
    for remote in &wanted.remotes {
        remote.addresses.iter().filter_map(v6).for_each(|ip| member(&remote.network, &remote.groups, ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_follow_from_hardware_addresses() {
        let mac = Mac([0xfa, 0x16, 0x3e, 0x01, 0x02, 0x03]);
        assert_eq!(link_local(mac).to_string(), "fe80::f816:3eff:fe01:203");
    }
}
