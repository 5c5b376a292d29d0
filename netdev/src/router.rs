//! Routers: every host routes for its own guests. A router is a longest-prefix table; its legs' addresses
//! stand in the switch's tables, so there is no namespace, no process and no hop between hosts for it.
//!
//! Traffic between two of a router's networks is routed where it starts and crosses the overlay once, in the
//! network where it ends. Traffic for the gateway leaves from this host when the gateway is here; when
//! another host has it, the frame goes there as the guest sent it.
use crate::picture::Picture;
use crate::table::{Bytes, Table, name64, put};
use crate::wanted::{Gateway, Interface, Router};
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
    gateway.vtep.is_none() || gateway.vtep == vtep
}

fn route(picture: &mut Picture<'_>, router: u64, net: Ipv4Net, value: Bytes) {
    let key = Bytes::new().u32(64 + u32::from(net.prefix_len())).u64(router).ip(net.addr());
    put(&mut picture.tables, Table::Routes, key, value);
}

fn by_leg(vni: u32, via: Option<Ipv4Addr>, leg: &Interface) -> Bytes {
    let none = Ipv4Addr::UNSPECIFIED;
    Bytes::new().u32(1).u32(vni).ip(via.unwrap_or(none)).ip(none).ip(none).mac(leg.mac.0)
}

fn by_gateway(via: Option<Ipv4Addr>, gateway: &Gateway, here: bool) -> Bytes {
    let none = Ipv4Addr::UNSPECIFIED;
    let hide = if gateway.snat { gateway.address } else { none };
    let vtep = if here { none } else { gateway.vtep.unwrap_or(none) };
    Bytes::new().u32(2).u32(0).ip(via.unwrap_or(none)).ip(hide).ip(vtep).mac(gateway.mac.0)
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
    let mut legs = Vec::new();
    for leg in &router.interfaces {
        let Some(vni) = picture.networks.get(leg.network.as_str()).map(|n| n.vni) else {
            picture.problem(None, format!("router {}: network {} is unknown", router.id, leg.network));
            continue;
        };
        if let Some((_, net)) = leg_net(leg) {
            route(picture, name, net, by_leg(vni, None, leg));
            legs.push((net, vni, leg));
        }
    }
    let gateway = router.gateway.as_ref().and_then(|g| Some((g, gateway_net(g)?)));
    if let Some((gateway, net)) = gateway {
        let here = gateway_here(gateway, picture.vtep);
        route(picture, name, net, by_gateway(None, gateway, here));
    }
    for extra in &router.routes {
        let (IpNet::V4(to), IpAddr::V4(via)) = (extra.destination, extra.nexthop) else { continue };
        if let Some((_, vni, leg)) = legs.iter().find(|(net, _, _)| net.contains(&via)) {
            route(picture, name, to.trunc(), by_leg(*vni, Some(via), leg));
        } else if let Some((gateway, _)) = gateway.filter(|(_, net)| net.contains(&via)) {
            let here = gateway_here(gateway, picture.vtep);
            route(picture, name, to.trunc(), by_gateway(Some(via), gateway, here));
        } else {
            picture.problem(None, format!("router {}: next hop {via} is on no leg", router.id));
        }
    }
    if let Some((gateway, _)) = gateway
        && let Some(via) = gateway.next_hop
    {
        let here = gateway_here(gateway, picture.vtep);
        route(picture, name, Ipv4Net::default(), by_gateway(Some(via), gateway, here));
    }
}
