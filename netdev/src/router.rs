//! Routers: every host routes for its own guests. A router is a longest-prefix table; its legs' addresses
//! stand in the switch's tables, so there is no namespace, no process and no hop between hosts for it.
//!
//! Traffic between two of a router's networks is routed where it starts and crosses the overlay once, in the
//! network where it ends. Traffic for the gateway leaves from this host when the gateway is here; when
//! another host has it, the frame goes there as the guest sent it.
use crate::picture::Picture;
use crate::scope::Scopes;
use crate::table::{Bytes, Table, name64, put};
use crate::wanted::{Family, Gateway, Interface, Router};
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

fn route(picture: &mut Picture<'_>, router: u64, net: Ipv4Net, value: Bytes) {
    let key = Bytes::new().u32(64 + u32::from(net.prefix_len())).u64(router).ip(net.addr());
    put(&mut picture.tables, Table::Routes, key, value);
}

/// A leg's network as the routes see it.
#[derive(Clone, Copy)]
struct Leg<'a> {
    net: Ipv4Net,
    address: Ipv4Addr,
    vni: u32,
    mtu: u16,
    scope: u32,
    interface: &'a Interface,
}

fn by_leg(leg: &Leg<'_>, via: Option<Ipv4Addr>) -> Bytes {
    let none = Ipv4Addr::UNSPECIFIED;
    let row = Bytes::new().u32(1).u32(leg.vni).ip(via.unwrap_or(none)).ip(leg.address).ip(none);
    row.raw(&leg.interface.mac.0).u16(leg.mtu).u32(leg.scope)
}

fn by_gateway(via: Option<Ipv4Addr>, gateway: &Gateway, here: bool, mtu: u16, scopes: &Scopes<'_>) -> Bytes {
    let none = Ipv4Addr::UNSPECIFIED;
    let hide = if gateway.snat { gateway.address } else { none };
    let vtep = if here { none } else { gateway.vtep.unwrap_or(none) };
    let row = Bytes::new().u32(2).u32(0).ip(via.unwrap_or(none)).ip(hide).ip(vtep);
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
            let leg = Leg { net, address, vni, mtu, scope: scopes.number(&interface.network), interface };
            route(picture, name, net, by_leg(&leg, None));
            legs.push(leg);
        }
    }
    let gateway = router.gateway.as_ref().and_then(|g| Some((g, gateway_net(g)?)));
    let out = |picture: &mut Picture<'_>, gateway: &Gateway, to: Ipv4Net, via: Option<Ipv4Addr>| {
        let here = gateway_here(gateway, picture.vtep);
        let mtu = picture.networks.get(gateway.network.as_str()).map_or(1500, |n| n.mtu);
        route(picture, name, to, by_gateway(via, gateway, here, mtu, &scopes));
    };
    if let Some((gateway, net)) = gateway {
        out(picture, gateway, net, None);
    }
    for extra in &router.routes {
        let (IpNet::V4(to), IpAddr::V4(via)) = (extra.destination, extra.nexthop) else { continue };
        if let Some(leg) = legs.iter().find(|leg| leg.net.contains(&via)) {
            route(picture, name, to.trunc(), by_leg(leg, Some(via)));
        } else if let Some((gateway, _)) = gateway.filter(|(_, net)| net.contains(&via)) {
            out(picture, gateway, to.trunc(), Some(via));
        } else {
            picture.problem(None, format!("router {}: next hop {via} is on no leg", router.id));
        }
    }
    if let Some((gateway, _)) = gateway
        && let Some(via) = gateway.next_hop
    {
        out(picture, gateway, Ipv4Net::default(), Some(via));
    }
}
