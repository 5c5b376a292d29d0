//! Routed networks for hosts: each segment beside the first is a network of its own number, with the subnets that are on it.
//!
//! ```text
//!   network, first segment   the network itself       its subnets but those of other segments
//!   each further segment     <network>/<number>       its subnets, its ports, legs of routers there
//! ```
//! A guest finds nobody of another segment by its hardware address: it sends to its gateway, a router here or outside.
use super::{HostInfo, reach::Reach};
use crate::{
    network::model::{VirtualNetwork, tag_of},
    port::model::Port,
    segment::model::Segment,
};
use pilvi_agent_api::v1;
use std::{collections::BTreeSet, net::IpAddr};

fn part_id(network: &str, vni: u32) -> String {
    format!("{network}/{vni}")
}

/// How hosts call what a subnet's ports are on.
pub fn of_subnet(reach: &Reach, network: &str, subnet: &str) -> String {
    let vni = reach.networks.get(network).and_then(|n| n.segment_subnets.get(subnet));
    vni.map_or_else(|| network.to_owned(), |vni| part_id(network, *vni))
}

/// The same for an address.
pub fn of_address(reach: &Reach, network: &str, address: &str) -> String {
    let Ok(address) = address.parse::<IpAddr>() else { return network.to_owned() };
    let mut its = reach.subnets.values().filter(|s| s.network_id == network);
    let subnet = its.find(|s| s.net().is_some_and(|net| net.contains(&address)));
    subnet.map_or_else(|| network.to_owned(), |s| of_subnet(reach, network, &s.id))
}

/// The same for a port: all its addresses are of one segment.
pub fn of_port(reach: &Reach, port: &Port) -> String {
    let first = port.fixed_ips.first();
    first.map_or_else(|| port.network_id.clone(), |f| of_subnet(reach, &port.network_id, &f.subnet_id))
}

/// Where a port is seen: in its own segment alone.
pub fn room_of(network: Option<&VirtualNetwork>, port: &Port) -> Option<String> {
    let vni = network?.segment_subnets.get(&port.fixed_ips.first()?.subnet_id)?;
    Some(part_id(&port.network_id, *vni))
}

/// Is the host connected to it? The overlay reaches every host.
pub fn is_connected(host: Option<&HostInfo>, physical: Option<&str>) -> bool {
    host.is_none_or(|host| host.is_connected(physical))
}

/// Takes the further segments out of their networks, and leaves out those that nothing of this host is in.
pub fn split(reach: &Reach, host: Option<&HostInfo>, message: &mut v1::HostNetwork) {
    let ports = message.ports.iter().map(|p| p.network_id.clone());
    let legs = message.routers.iter().flat_map(|r| &r.interfaces).map(|i| i.network_id.clone());
    let ways = message.routers.iter().flat_map(|r| r.gateway.iter().chain(&r.gateway6).chain(&r.further));
    let inside: BTreeSet<String> = ports.chain(legs).collect();
    let outside: BTreeSet<String> = ways.map(|w| w.network_id.clone()).collect();
    for network in reach.networks.values().filter(|n| !n.segments.is_empty()) {
        let Some(whole) = message.networks.iter_mut().find(|n| n.id == network.id) else { continue };
        let subnets = std::mem::take(&mut whole.subnets);
        let (rest, apart) = subnets.into_iter().partition(|s| !network.segment_subnets.contains_key(&s.id));
        whole.subnets = rest;
        let (whole, apart): (v1::L2, Vec<v1::Subnet>) = (whole.clone(), apart);
        for (segment, vni) in &network.segments {
            let id = part_id(&network.id, *vni);
            if !inside.contains(&id) && !outside.contains(&id) {
                continue;
            }
            let its = apart.iter().filter(|s| network.segment_subnets.get(&s.id) == Some(vni)).cloned();
            let of: Option<&Segment> = reach.segments.get(segment);
            let physical = of.and_then(|s| s.physical_network.as_deref());
            message.networks.push(v1::L2 {
                id: id.clone(),
                vni: *vni,
                vlan: of.map_or(0, |s| tag_of(&s.network_type, s.segmentation_id)),
                external: physical.is_some() && is_connected(host, physical),
                neighbours: whole.neighbours && inside.contains(&id),
                subnets: its.collect(),
                ..whole.clone()
            });
            let zone = message.zones.iter().find(|z| z.network_id == network.id);
            let zone = zone.map(|z| v1::Zone { network_id: id, ..z.clone() });
            message.zones.extend(zone);
        }
    }
}
