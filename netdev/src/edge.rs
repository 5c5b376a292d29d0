//! The edge namespace: it stands for the provider's network where no physical device is given.
//!
//! ```text
//!   node namespace            edge namespace
//!     edge0 ----------------- n<hash> -- ext0 (bridge; gateway addresses of external subnets)
//!     <underlay> ------------ n<hash> -- under0 (bridge; carries VXLAN between nodes of one machine)
//! ```
//! A provider would be told of leaked subnets by BGP; this one gets routes from the host that holds the router's way out.
use crate::config::{EDGE_BRIDGE, UNDERLAY_BRIDGE};
use crate::error::{Error, Result};
use crate::namespace;
use crate::netlink::{Change, Netlink};
use crate::router::{gateway_here, leg_net};
use crate::table::name64;
use crate::wanted::Wanted;
use ipnet::Ipv4Net;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Makes the bridges. The calling thread must be inside the edge namespace.
pub(crate) fn prepare() -> Result<()> {
    let key = "ipv6/conf/default/disable_ipv6";
    if Path::new("/proc/sys/net").join(key).exists() {
        namespace::sysctl(key, "1")?;
    }
    let mut netlink = Netlink::open()?;
    for bridge in [EDGE_BRIDGE, UNDERLAY_BRIDGE] {
        if netlink.link(bridge)?.is_none() {
            netlink.create_bridge(bridge)?;
        }
    }
    for name in ["lo", EDGE_BRIDGE, UNDERLAY_BRIDGE] {
        if let Some(link) = netlink.link(name)?.filter(|l| !l.up) {
            netlink.change(link.index, &Change { up: Some(true), ..Change::default() })?;
        }
    }
    Ok(())
}

/// Puts one end of a pair into a bridge. Whether that end is in the calling thread's namespace.
pub(crate) fn enslave(peer: &str, bridge: &str) -> Result<bool> {
    let mut netlink = Netlink::open()?;
    let Some(port) = netlink.link(peer)? else { return Ok(false) };
    let bridge = netlink.link(bridge)?;
    let bridge = bridge.ok_or_else(|| Error::Config("no bridge in the edge namespace".into()))?;
    netlink.change(port.index, &Change { bridge: Some(bridge.index), up: Some(true), ..Change::default() })?;
    Ok(true)
}

/// Removes a link of the calling thread's namespace if it is there.
pub(crate) fn remove(name: &str) -> Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.link(name)?.map_or(Ok(()), |link| netlink.delete(link.index))
}

/// Gateway addresses of the external networks' subnets.
pub(crate) fn gateways(wanted: &Wanted) -> BTreeSet<(Ipv4Addr, u8)> {
    let subnets = wanted.networks.iter().filter(|n| n.external).flat_map(|n| &n.subnets);
    subnets
        .filter_map(|s| match s.gateway {
            Some(IpAddr::V4(ip)) => Some((ip, s.cidr.prefix_len())),
            _ => None,
        })
        .collect()
}

/// Leaked subnets, each with the address of a gateway that this host holds.
pub(crate) fn leaked(wanted: &Wanted, vtep: Option<Ipv4Addr>) -> BTreeSet<(Ipv4Net, Ipv4Addr)> {
    let mut out = BTreeSet::new();
    for router in &wanted.routers {
        let Some(gateway) = router.gateway.as_ref().filter(|g| gateway_here(g, vtep)) else { continue };
        let legs = router.interfaces.iter().filter(|leg| leg.leaked);
        out.extend(legs.filter_map(|leg| Some((leg_net(leg)?.1, gateway.address))));
    }
    out
}

/// The metric of a node's routes: several nodes may join one edge, and each minds its own.
pub(crate) fn mark(prefix: &str) -> u32 {
    u32::try_from(name64(prefix) >> 33).unwrap_or_default() | 1
}

/// Sets the routes out of the external bridge that have this mark.
pub(crate) fn set_hops(wanted: &BTreeSet<(Ipv4Net, Ipv4Addr)>, mark: u32) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let Some(bridge) = netlink.link(EDGE_BRIDGE)? else {
        return Err(Error::Config(format!("no {EDGE_BRIDGE} in the edge namespace")));
    };
    let found: BTreeSet<_> = netlink.hops(bridge.index, mark)?.into_iter().collect();
    for (net, hop) in found.difference(wanted) {
        netlink.delete_hop(bridge.index, mark, *net, *hop)?;
    }
    for (net, hop) in wanted.difference(&found) {
        netlink.add_hop(bridge.index, mark, *net, *hop)?;
    }
    Ok(())
}

/// Sets the addresses of the external bridge; `prune` takes others away.
pub(crate) fn set_addresses(wanted: &BTreeSet<(Ipv4Addr, u8)>, prune: bool) -> Result<()> {
    let mut netlink = Netlink::open()?;
    let Some(bridge) = netlink.link(EDGE_BRIDGE)? else {
        return Err(Error::Config(format!("no {EDGE_BRIDGE} in the edge namespace")));
    };
    let found: BTreeSet<_> = netlink.addresses(bridge.index)?.into_iter().collect();
    for (ip, prefix) in wanted.difference(&found) {
        netlink.add_address(bridge.index, *ip, *prefix)?;
    }
    for (ip, prefix) in found.difference(wanted).filter(|_| prune) {
        netlink.delete_address(bridge.index, *ip, *prefix)?;
    }
    Ok(())
}

/// Deletes all links of the calling thread's namespace, so that nothing lingers while a descriptor keeps it.
pub(crate) fn delete_links() -> Result<()> {
    let mut netlink = Netlink::open()?;
    for link in netlink.links()? {
        // A device without a kind is hardware: it returns to the host's namespace by itself.
        if link.name != "lo" && !link.kind.is_empty() {
            netlink.delete(link.index)?;
        }
    }
    Ok(())
}
