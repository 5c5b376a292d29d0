//! Addresses of the external network that this host answers for: floating addresses of its guests and
//! gateway addresses of routers. The translation itself is in `bpf/nat.h`; there is no nftables and no
//! kernel conntrack anywhere, so tenants with equal addresses need no zones and no marks.
//!
//! ```text
//! by its own ARP answer      provider --> host of the guest: rewritten, given          answers: out from the guest's host
//! by the router's address    provider --> host of the way out: rewritten, relayed -->  (BGP, static routes)
//! ```
use crate::picture::Picture;
use crate::router::{gateway_here, router_name};
use crate::table::{Bytes, Hop, Table, put};
use crate::wanted::Router;
use crate::wire;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const FLOATING: u32 = 1;
const GATEWAY: u32 = 2;
const RELAY: u32 = 4;
const WAY_IN: u32 = 1 << 31;

/// An address of one external network: others may have the same.
pub(crate) fn external(picture: &Picture<'_>, network: &str, address: Ipv4Addr) -> Bytes {
    Bytes::new().u32(wire::of(picture, network)).ip(address)
}

pub(crate) fn draw(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    let held = held(picture);
    for floating in &wanted.floating {
        let here = picture.devices.contains_key(&floating.port);
        // Of a guest elsewhere, by a router whose way out is here.
        if !here && !held.contains(floating.router.as_str()) {
            continue;
        }
        let router = router_name(&floating.router);
        let value =
            Bytes::new().u32(if here { FLOATING } else { RELAY }).ip(floating.fixed).u64(router).mac(floating.mac.0);
        let key = external(picture, &floating.network, floating.address);
        if !put(&mut picture.tables, Table::Externals, key, value) {
            picture.problem(Some(&floating.port), format!("{} is in use", floating.address));
            continue;
        }
        if !here {
            continue;
        }
        let key = Bytes::new().u64(router).ip(floating.fixed).u32(0);
        put(&mut picture.tables, Table::Fixed, key, Bytes::new().ip(floating.address));
    }
    for router in &wanted.routers {
        let vtep = picture.vtep;
        for (gateway, _) in wanted.gateways(router).filter(|(g, _)| gateway_here(g, vtep)) {
            let name = router_name(&router.id);
            let value = Bytes::new().u32(GATEWAY).ip(Ipv4Addr::UNSPECIFIED).u64(name).mac(gateway.mac.0);
            let key = external(picture, &gateway.network, gateway.address);
            if !put(&mut picture.tables, Table::Externals, key, value) {
                picture.problem(None, format!("router {}: {} is in use", router.id, gateway.address));
            }
        }
    }
}

/// Routers whose way out is here while guests may be elsewhere.
fn held<'w>(picture: &Picture<'w>) -> BTreeSet<&'w str> {
    let (wanted, vtep) = (picture.wanted, picture.vtep);
    let holds = |r: &&Router| vtep.is_some() && wanted.gateways(r).any(|(g, _)| gateway_here(g, vtep));
    wanted.routers.iter().filter(holds).map(|router| router.id.as_str()).collect()
}

/// Floating addresses between two legs: in their network they are the router's, and each way has a row that names the leg. In
/// a row for the way in, the highest bit is set.
pub(crate) fn draw_by_leg(picture: &mut Picture<'_>) {
    let wanted = picture.wanted;
    for floating in &wanted.by_leg {
        let Some(vni) = picture.networks.get(floating.network.as_str()).map(|n| n.vni) else { continue };
        let router = router_name(&floating.router);
        let hop = Hop::Router(router).bytes(floating.mac.0);
        let at = Bytes::new().u32(vni).ip(floating.address);
        if !put(&mut picture.tables, Table::Addresses, at, hop.clone()) {
            picture.problem(None, format!("{} is in use on its network", floating.address));
            continue;
        }
        put(&mut picture.tables, Table::Stations, Bytes::new().u32(vni).mac(floating.mac.0), hop);
        let into = Bytes::new().u64(router).ip(floating.address).u32(vni | WAY_IN);
        put(&mut picture.tables, Table::Fixed, into, Bytes::new().ip(floating.fixed));
        let out = Bytes::new().u64(router).ip(floating.fixed).u32(vni);
        put(&mut picture.tables, Table::Fixed, out, Bytes::new().ip(floating.address));
    }
}

/// The network, address and hardware address of a row of `externals`: what a gratuitous ARP says, and where. `None` of one
/// that another host answers for.
pub(crate) fn announcement(key: &[u8], value: &[u8]) -> Option<(u32, Ipv4Addr, [u8; 6])> {
    if value.first_chunk::<4>().is_none_or(|kind| u32::from_ne_bytes(*kind) == RELAY) {
        return None;
    }
    let vni = u32::from_ne_bytes(*key.first_chunk::<4>()?);
    let ip = Ipv4Addr::from(*key.get(4..)?.first_chunk::<4>()?);
    Some((vni, ip, *value.get(16..)?.first_chunk::<6>()?))
}
