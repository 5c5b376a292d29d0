//! Links that stand whatever the ports: to the host's own stack, to the provider and to other hosts. Each function
//! makes what is missing and may be called again after a crash at any point.
use crate::config::{
    AGENT_LINK, COPY_LINK, COPY_PEER, Config, EDGE_BRIDGE, EDGE_LINK, OVERLAY_LINK, PUNT_LINK, UNDERLAY_BRIDGE, ns_path,
};
use crate::edge;
use crate::error::{Error, Result, Step};
use crate::metadata::METADATA_ADDRESS6;
use crate::namespace;
use crate::netlink::{Change, Netlink};
use crate::offload;
use crate::resolver::{RESOLVER_ADDRESS, RESOLVER_ADDRESS6};
use crate::table::name64;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

/// Prefix length of the underlay addresses that we give out ourselves.
const UNDERLAY_PREFIX: u8 = 16;

/// `agent0` receives what programs hand to the host's stack, `agent1` what they hand to the packet socket.
pub(crate) fn agent_links(netlink: &mut Netlink) -> Result<(u32, [u8; 6], u32)> {
    if netlink.link(AGENT_LINK)?.is_none() {
        netlink.create_veth(AGENT_LINK, PUNT_LINK, None)?;
    }
    let lo = netlink.link("lo")?.map_or(1, |l| l.index);
    let missing = || Error::NoPort(AGENT_LINK.into());
    let agent = netlink.link(AGENT_LINK)?.ok_or_else(missing)?;
    let punt = netlink.link(PUNT_LINK)?.ok_or_else(missing)?;
    netlink.change(lo, &Change { up: Some(true), ..Change::default() })?;
    netlink.change(punt.index, &Change { up: Some(true), no_arp: true, ..Change::default() })?;
    netlink.change(agent.index, &Change { up: Some(true), no_arp: true, ..Change::default() })?;
    netlink.add_address(agent.index, Ipv4Addr::new(169, 254, 169, 254), 32)?;
    netlink.add_address(agent.index, RESOLVER_ADDRESS, 32)?;
    netlink.add_link_route(agent.index, Ipv4Addr::new(100, 64, 0, 0), 10)?;
    if speak6(AGENT_LINK)? {
        netlink.add_address(agent.index, METADATA_ADDRESS6, 64)?;
        netlink.add_address(agent.index, RESOLVER_ADDRESS6, 64)?;
    }
    Ok((agent.index, agent.mac, punt.index))
}

/// Largest frame that the copy link carries; what is sent on is as large as the way out allows.
const COPY_MTU: u32 = 65_535;

/// The link that copies for collectors are wrapped on. What is put into its first end leaves it as a wire would carry it:
/// the kernel cuts large frames there, and writes checksums.
pub(crate) fn copy_link(netlink: &mut Netlink) -> Result<u32> {
    if netlink.link(COPY_LINK)?.is_none() {
        netlink.create_veth(COPY_LINK, COPY_PEER, None)?;
    }
    let missing = || Error::NoPort(COPY_LINK.into());
    let first = netlink.link(COPY_LINK)?.ok_or_else(missing)?;
    let second = netlink.link(COPY_PEER)?.ok_or_else(missing)?;
    offload::finish_frames(COPY_LINK)?;
    for link in [second.index, first.index] {
        let change = Change { up: Some(true), no_arp: true, mtu: Some(COPY_MTU), ..Change::default() };
        netlink.change(link, &change)?;
    }
    Ok(first.index)
}

/// Devices speak no IPv6 of their own. Said once: to say it again would end what was allowed since.
pub(crate) fn silence6() -> Result<()> {
    let key = "ipv6/conf/default/disable_ipv6";
    match fs::read_to_string(Path::new("/proc/sys/net").join(key)) {
        Ok(value) if value.trim() != "1" => {
            namespace::sysctl("ipv6/conf/all/disable_ipv6", "1")?;
            namespace::sysctl(key, "1")
        }
        _ => Ok(()),
    }
}

/// The device asks neighbours of IPv6, and takes nothing from routers. Whether this kernel has IPv6.
pub(crate) fn speak6(device: &str) -> Result<bool> {
    let key = |name: &str| format!("ipv6/conf/{device}/{name}");
    if !Path::new("/proc/sys/net").join(key("disable_ipv6")).exists() {
        return Ok(false);
    }
    for (name, value) in [("accept_ra", "0"), ("router_solicitations", "0"), ("accept_dad", "0"), ("disable_ipv6", "0")]
    {
        namespace::sysctl(&key(name), value)?;
    }
    Ok(true)
}

/// The link to the provider's network.
pub(crate) fn edge_link(netlink: &mut Netlink, config: &Config) -> Result<()> {
    let Some(edge) = config.edge() else { return Ok(()) };
    join_bridge(netlink, config, &edge, EDGE_LINK, EDGE_BRIDGE).map(drop)
}

/// A veth from this namespace into a bridge of the edge namespace, each half made if it is not there: a crash
/// in between leaves one. Whether device `name` is such a link; the caller may have given another.
fn join_bridge(netlink: &mut Netlink, config: &Config, edge: &str, name: &str, bridge: &'static str) -> Result<bool> {
    let path = ns_path(edge);
    // One name for each node and link: two nodes in one edge namespace must not collide.
    let peer = format!("n{:012x}", name64(&format!("{}/{name}", config.prefix)) & 0xffff_ffff_ffff);
    if netlink.link(name)?.is_none() {
        // The other end of a pair whose namespace is gone but not yet dismantled.
        let stale = peer.clone();
        namespace::inside(&path, move || edge::remove(&stale))?;
        let file = File::open(&path).step(format!("open {}", path.display()))?;
        netlink.create_veth(name, &peer, Some(file.as_fd()))?;
    }
    namespace::inside(&path, move || edge::enslave(&peer, bridge))
}

/// The link that carries the overlay if that is ours to make.
pub(crate) fn underlay_link(netlink: &mut Netlink, config: &Config) -> Result<()> {
    let Some(underlay) = config.underlay.clone() else { return Ok(()) };
    if let Some(edge) = config.edge()
        && join_bridge(netlink, config, &edge, &underlay.device, UNDERLAY_BRIDGE)?
        && let Some(link) = netlink.link(&underlay.device)?
    {
        netlink.change(link.index, &Change { up: Some(true), ..Change::default() })?;
        netlink.add_address(link.index, underlay.address, UNDERLAY_PREFIX)?;
    }
    Ok(())
}

/// The overlay's device where nothing is encrypted.
pub(crate) fn overlay_link(netlink: &mut Netlink) -> Result<()> {
    match netlink.link(OVERLAY_LINK)? {
        Some(link) if !link.elsewhere => return Ok(()),
        // An earlier life of this host has encrypted.
        Some(link) => netlink.delete(link.index)?,
        None => {}
    }
    netlink.create_overlay(OVERLAY_LINK)
}
