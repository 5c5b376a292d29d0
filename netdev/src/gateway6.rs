//! Routers' ways out for IPv6. Nothing is translated: the provider routes the prefixes of the inside to the gateway's address, and
//! the host that holds the gateway answers neighbours for it on the edge link.
//!
//! ```text
//!   routes6     {router, ::/0} -> gateway here: next hop on the edge link; elsewhere: that host
//!   addresses6  {external network, gateway's address and link-local one} -> router
//!   stations    {external network, gateway's hardware address, IPv6} -> router
//!
//! A gateway with proxies answers for single addresses of the inside as well, and lets nothing else in.
//! ```
use crate::choice::Rank;
use crate::picture::Picture;
use crate::router::router_name;
use crate::scope::Scopes;
use crate::table::{Bytes, Hop, Table, put};
use crate::v6::{leg6, link_local};
use crate::wanted::{Family, Gateway6, Router};
use crate::wire;
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const EXTERNAL: u32 = 2;
/// The half of the table of stations that holds for IPv6 alone.
const FAMILY6: u16 = 6;

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for router in &wanted.routers {
        for (gateway, spread) in wanted.gateways6(router) {
            let Some(&network) = picture.networks.get(gateway.network.as_str()) else {
                picture.problem(None, format!("router {}: network {} is unknown", router.id, gateway.network));
                continue;
            };
            let wire = wire::of(picture, &gateway.network);
            // Without an underlay there is no other host.
            let here = picture.vtep.is_none() || gateway.vtep.is_none() || gateway.vtep == picture.vtep;
            draw_routes(picture, router, (gateway, spread), here, (wire, network.mtu));
            if here && network.external {
                draw_answers(picture, router, gateway, wire);
            }
        }
    }
}

fn draw_routes(
    picture: &mut Picture<'_>,
    router: &Router,
    (gateway, spread): (&Gateway6, bool),
    here: bool,
    (vni, mtu): (u32, u16),
) {
    let Ok(net) = Ipv6Net::new(gateway.address, gateway.prefix).map(|n| n.trunc()) else { return };
    let vtep = if here { Ipv4Addr::UNSPECIFIED } else { gateway.vtep.unwrap_or(Ipv4Addr::UNSPECIFIED) };
    let scope = Scopes::of(&picture.scopes, router, Family::V6).number(&gateway.network);
    let mut route = |to: Ipv6Net, via: Option<Ipv6Addr>, rank: Rank| {
        let key =
            Bytes::new().u32(64 + u32::from(to.prefix_len())).u64(router_name(&router.id)).raw(&to.addr().octets());
        let via = via.unwrap_or(Ipv6Addr::UNSPECIFIED).octets();
        let row = Bytes::new().u32(EXTERNAL).u32(vni).ip(vtep).raw(&via).raw(&gateway.address.octets());
        picture.offers.offer6(key, rank, row.raw(&gateway.mac.0).u16(mtu).u32(scope));
    };
    route(net, None, Rank::Connected);
    let inside = |via: &Ipv6Addr| router.interfaces.iter().filter_map(leg6).any(|leg| leg.contains(via));
    for extra in &router.routes {
        if let (IpNet::V6(to), IpAddr::V6(via)) = (extra.destination, extra.nexthop)
            && net.contains(&via)
            && !inside(&via)
        {
            route(to.trunc(), Some(via), Rank::Static);
        }
    }
    if let Some(via) = gateway.next_hop.filter(|_| spread) {
        route(Ipv6Net::default(), Some(via), Rank::Default);
    }
}

fn draw_answers(picture: &mut Picture<'_>, router: &Router, gateway: &Gateway6, vni: u32) {
    let hop = Hop::Router(router_name(&router.id));
    let row = || hop.bytes(gateway.mac.0);
    for ip in [gateway.address, link_local(gateway.mac)] {
        if !put(&mut picture.tables, Table::Addresses6, Bytes::new().u32(vni).raw(&ip.octets()), row()) {
            picture.problem(None, format!("router {}: {ip} is in use", router.id));
        }
    }
    let proxy = || Hop::proxy(router_name(&router.id), gateway.mac.0);
    for ip in gateway.proxied.iter().flatten() {
        if !put(&mut picture.tables, Table::Addresses6, Bytes::new().u32(vni).raw(&ip.octets()), proxy()) {
            picture.problem(None, format!("router {}: {ip} is in use outside", router.id));
        }
    }
    let key = Bytes::new().u32(vni).raw(&gateway.mac.0).u16(FAMILY6);
    let row = if gateway.proxied.is_some() { proxy() } else { row() };
    put(&mut picture.tables, Table::Stations, key, row);
}
