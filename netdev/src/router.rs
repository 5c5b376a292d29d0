//! Routers: every host routes for its own guests. A router is a longest-prefix table; its legs' addresses
//! stand in the switch's tables, so there is no namespace, no process and no hop between hosts for it.
//!
//! Traffic between two of a router's networks is routed where it starts and crosses the overlay once, in the
//! network where it ends. Traffic for the gateway leaves from this host when the gateway is here; when
//! another host has it, the frame goes there as the guest sent it.
use crate::choice::Rank;
use crate::picture::Picture;
use crate::scope::Scopes;
use crate::table::{Bytes, name64};
use crate::wanted::{Family, Gateway, Interface, Router};
use crate::wire;
use ipnet::{IpNet, Ipv4Net};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

/// The 64-bit name of a router.
pub(crate) fn router_name(id: &str) -> u64 {
    name64(id)
}

/// A leg's address and network.
pub(crate) fn leg_net(leg: &Interface) -> Option<(Ipv4Addr, Ipv4Net)> {
    match leg.address {
        IpAddr::V4(ip) => Ipv4Net::new(ip, leg.prefix).ok().map(|n| (ip, n.trunc())),
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn gateway_net(gateway: &Gateway) -> Option<Ipv4Net> {
    Ipv4Net::new(gateway.address, gateway.prefix).ok().map(|n| n.trunc())
}

/// Whether this host holds the gateway.
pub(crate) fn gateway_here(gateway: &Gateway, vtep: Option<Ipv4Addr>) -> bool {
    // Without an underlay there is no other host.
    vtep.is_none() || gateway.vtep.is_none() || gateway.vtep == vtep
}

fn key(router: u64, net: Ipv4Net) -> Bytes {
    Bytes::new().u32(64 + u32::from(net.prefix_len())).u64(router).ip(net.addr())
}

/// A leg's network as the routes see it.
#[derive(Clone, Copy)]
struct Leg<'a> {
    net: Ipv4Net,
    address: Ipv4Addr,
    vni: u32,
    mtu: u16,
    scope: u32,
    /// `LEG_LEAKED`, `LEG_HIDDEN` of `bpf/tables.h`; 0: nobody asks.
    outside: u32,
    /// The same for who is behind another router of its network.
    beyond: u32,
    interface: &'a Interface,
}

const LEAKED: u32 = 1;
const HIDDEN: u32 = 2;

/// Does the provider route some of the inside to this router?
pub(crate) fn leaks(router: &Router) -> bool {
    router.interfaces.iter().any(|leg| leg.leaked && leg.address.is_ipv4())
}

/// What its ways out do with addresses of a leg's network. Where nothing is leaked nobody asks: the hardware address of a way
/// out that hides all takes nothing in.
fn outside(router: &Router, leg: &Interface, scopes: &Scopes<'_>, leaked: bool) -> u32 {
    let Some(gateway) = router.gateway.as_ref().filter(|_| leaks(router)) else { return 0 };
    if leaked {
        return LEAKED;
    }
    let known = scopes.is_open() && scopes.number(&leg.network) == scopes.number(&gateway.network);
    if gateway.snat && !known { HIDDEN } else { 0 }
}

fn by_leg(leg: &Leg<'_>, via: Option<Ipv4Addr>) -> Bytes {
    let none = Ipv4Addr::UNSPECIFIED;
    let outside = if via.is_some() { leg.beyond } else { leg.outside };
    let row = Bytes::new().u32(1).u32(leg.vni).ip(via.unwrap_or(none)).ip(leg.address).u32(outside);
    row.raw(&leg.interface.mac.0).u16(leg.mtu).u32(leg.scope)
}

fn by_gateway(
    via: Option<Ipv4Addr>,
    gateway: &Gateway,
    here: bool,
    (vni, mtu): (u32, u16),
    scopes: &Scopes<'_>,
) -> Bytes {
    let none = Ipv4Addr::UNSPECIFIED;
    let hide = if gateway.snat { gateway.address } else { none };
    let vtep = if here { none } else { gateway.vtep.unwrap_or(none) };
    let row = Bytes::new().u32(2).u32(vni).ip(via.unwrap_or(none)).ip(hide).ip(vtep);
    row.raw(&gateway.mac.0).u16(mtu).u32(scopes.number(&gateway.network))
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let mut names: HashMap<u64, &str> = HashMap::new();
    for router in &wanted.routers {
        let name = router_name(&router.id);
        if names.insert(name, &router.id).is_some_and(|other| other != router.id) {
            picture.problem(None, format!("router {} shares its name with another", router.id));
            continue;
        }
        draw_router(picture, router, name);
    }
}

fn draw_router(picture: &mut Picture<'_>, router: &Router, name: u64) {
    let scopes = Scopes::of(&picture.scopes, router, Family::V4);
    let mut legs = Vec::new();
    for interface in &router.interfaces {
        let Some((vni, mtu)) = picture.networks.get(interface.network.as_str()).map(|n| (n.vni, n.mtu)) else {
            picture.problem(None, format!("router {}: network {} is unknown", router.id, interface.network));
            continue;
        };
        if let Some((address, net)) = leg_net(interface) {
            let scope = scopes.number(&interface.network);
            let of = |leaked| outside(router, interface, &scopes, leaked);
            let (outside, beyond) = (of(interface.leaked), of(false));
            let leg = Leg { net, address, vni, mtu, scope, outside, beyond, interface };
            picture.offers.offer(key(name, net), Rank::Connected, by_leg(&leg, None));
            legs.push(leg);
        }
    }
    let wanted = picture.wanted;
    let gateways: Vec<(&Gateway, Ipv4Net, bool)> =
        wanted.gateways(router).filter_map(|(g, spread)| Some((g, gateway_net(g)?, spread))).collect();
    let out = |picture: &mut Picture<'_>, gateway: &Gateway, to: Ipv4Net, via: Option<Ipv4Addr>, rank: Rank| {
        let here = gateway_here(gateway, picture.vtep);
        let mtu = picture.networks.get(gateway.network.as_str()).map_or(1500, |n| n.mtu);
        let network = (wire::of(picture, &gateway.network), mtu);
        picture.offers.offer(key(name, to), rank, by_gateway(via, gateway, here, network, &scopes));
    };
    for (gateway, net, _) in &gateways {
        out(picture, gateway, *net, None, Rank::Connected);
    }
    for extra in &router.routes {
        let (IpNet::V4(to), IpAddr::V4(via)) = (extra.destination, extra.nexthop) else { continue };
        if let Some(leg) = legs.iter().find(|leg| leg.net.contains(&via)) {
            picture.offers.offer(key(name, to.trunc()), Rank::Static, by_leg(leg, Some(via)));
        } else if let Some((gateway, ..)) = gateways.iter().find(|(_, net, _)| net.contains(&via)) {
            out(picture, gateway, to.trunc(), Some(via), Rank::Static);
        } else {
            picture.problem(None, format!("router {}: next hop {via} is on no leg", router.id));
        }
    }
    for (gateway, ..) in gateways.iter().filter(|(.., spread)| *spread) {
        if let Some(via) = gateway.next_hop {
            out(picture, gateway, Ipv4Net::default(), Some(via), Rank::Default);
        }
    }
}
