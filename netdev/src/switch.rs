//! The switch: where every address and every hardware address of a network is. ARP is answered from it and
//! frames are forwarded by it; nothing is learned from what guests say.
use crate::picture::Picture;
use crate::port;
use crate::router::{gateway_here, router_name};
use crate::scope::Scopes;
use crate::table::{Bytes, Hop, Table, put};
use crate::view::is_apart;
use crate::wanted::{Family, Gateway, Mac};
use crate::wire;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// Who answers for DHCP servers and the metadata address, on every network alike.
pub const SERVICE_MAC: [u8; 6] = [0x02, 0x70, 0x69, 0x6c, 0x76, 0x69];

fn station(picture: &mut Picture<'_>, vni: u32, mac: Mac, hop: Hop) -> bool {
    put(&mut picture.tables, Table::Stations, Bytes::new().u32(vni).mac(mac.0), hop.bytes(mac.0))
}

fn address(picture: &mut Picture<'_>, vni: u32, ip: Ipv4Addr, mac: Mac, hop: Hop) -> bool {
    put(&mut picture.tables, Table::Addresses, Bytes::new().u32(vni).ip(ip), hop.bytes(mac.0))
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    // A router's leg wins over a guest that claims its address.
    for router in &wanted.routers {
        let hop = Hop::Router(router_name(&router.id));
        for leg in &router.interfaces {
            let Some(vni) = picture.networks.get(leg.network.as_str()).map(|n| n.vni) else { continue };
            station(picture, vni, leg.mac, hop);
            if let IpAddr::V4(ip) = leg.address {
                address(picture, vni, ip, leg.mac, hop);
            }
        }
    }
    crate::nat::draw_by_leg(picture);
    crate::local::draw(picture);
    draw_open_gateways(picture);
    for network in &wanted.networks {
        for server in network.subnets.iter().filter(|s| s.dhcp).filter_map(|s| s.dhcp_server) {
            address(picture, network.vni, server, Mac(SERVICE_MAC), Hop::Service);
        }
        station(picture, network.vni, Mac(SERVICE_MAC), Hop::Service);
    }
    draw_local(picture);
    draw_remotes(picture);
    draw_movable(picture);
}

fn draw_remotes(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for remote in &wanted.remotes {
        let Some(vni) = picture.networks.get(remote.network.as_str()).map(|n| n.vni) else { continue };
        if Some(remote.vtep) == picture.vtep {
            continue;
        }
        let hop = if wanted.left.contains(&remote.port) {
            Hop::left(remote.vtep, remote.mac.0)
        } else {
            Hop::Remote(remote.vtep).bytes(remote.mac.0)
        };
        put(&mut picture.tables, Table::Stations, Bytes::new().u32(vni).mac(remote.mac.0), hop);
        for ip in &remote.addresses {
            if let IpAddr::V4(ip) = ip {
                address(picture, vni, *ip, remote.mac, Hop::Remote(remote.vtep));
            }
        }
    }
}

/// Gateways without source NAT, or with a network behind them that is in the outside's scope or leaked: the provider sends what is for their
/// inside to their hardware address.
fn draw_open_gateways(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for router in &wanted.routers {
        let scoped = Scopes::of(&picture.scopes, router, Family::V4).is_open();
        let known = scoped || crate::router::leaks(router);
        let open = |g: &Gateway| gateway_here(g, picture.vtep) && (!g.snat || known);
        let found: Vec<&Gateway> = wanted.gateways(router).map(|(g, _)| g).filter(|g| open(g)).collect();
        for gateway in found {
            if picture.networks.get(gateway.network.as_str()).is_none_or(|n| !n.external) {
                continue;
            }
            let vni = wire::of(picture, &gateway.network);
            station(picture, vni, gateway.mac, Hop::Router(router_name(&router.id)));
        }
    }
}

fn draw_local(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for p in wanted.ports.iter().filter(|p| !is_apart(wanted, &p.network)) {
        let Some(&ifindex) = picture.devices.get(&p.id) else { continue };
        let Some(vni) = picture.networks.get(p.network.as_str()).map(|n| n.vni) else { continue };
        let hop = Hop::Local(ifindex);
        if !station(picture, vni, p.mac, hop) {
            picture.close(&p.id, "its hardware address is in use on the network");
        }
        for ip in port::addresses(&p.fixed) {
            if !address(picture, vni, ip, p.mac, hop) {
                picture.close(&p.id, format!("{ip} is in use on the network"));
            }
        }
    }
}

/// Single addresses that ports may use besides their own (a virtual address of a pair of load balancers, say):
/// the first port has it until another announces it by ARP. Only ports of this host are looked at.
fn draw_movable(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for p in wanted.ports.iter().filter(|p| !is_apart(wanted, &p.network)) {
        let Some(&ifindex) = picture.devices.get(&p.id) else { continue };
        let Some(vni) = picture.networks.get(p.network.as_str()).map(|n| n.vni) else { continue };
        for pair in &p.allowed_pairs {
            if let IpNet::V4(net) = pair.cidr
                && net.prefix_len() == 32
            {
                let mac = pair.mac.unwrap_or(p.mac);
                let key = Bytes::new().u32(vni).ip(net.addr());
                put(&mut picture.tables, Table::Addresses, key, Hop::movable(ifindex, mac.0));
                station(picture, vni, mac, Hop::Local(ifindex));
            }
        }
    }
}
