//! Private networks (PVLAN) for hosts: each part of one is a network of its own number with the same subnets.
//!
//! ```text
//!   promiscuous ports: the network itself       sees every port
//!   isolated ports:    one part                 sees the promiscuous ones alone
//!   each community:    one part                 sees its own and the promiscuous ones
//! ```
//! A frame is sent with the sender's number, so a host must know the far end by that number: each part has a room of its own
//! with the ports that it sees, and a host's own ports are named in views. Routers have a leg in every part.
use super::reach::Reach;
use crate::{
    network::{model::VirtualNetwork, private::part_of},
    port::model::Port,
};
use pilvi_agent_api::v1;

/// Ids of the packet path have an end; the number says which part.
fn part_id(network: &VirtualNetwork, vni: u32) -> String {
    format!("{}/{vni}", network.id)
}

/// The number of the part that a port is in; `None`: in the network itself.
fn vni_of(network: &VirtualNetwork, port: &Port) -> Option<u32> {
    network.parts.get(&part_of(port)?).copied()
}

pub fn split(reach: &Reach, message: &mut v1::HostNetwork) {
    for network in reach.networks.values().filter(|n| n.pvlan) {
        split_one(reach, network, message);
    }
}

fn split_one(reach: &Reach, network: &VirtualNetwork, message: &mut v1::HostNetwork) {
    let parts: Vec<(u32, String)> = network.parts.values().map(|vni| (*vni, part_id(network, *vni))).collect();
    let isolated = network.parts.get(crate::network::private::ISOLATED).copied();
    let copies: Vec<v1::L2> = message
        .networks
        .iter()
        .filter(|n| n.id == network.id)
        .flat_map(|n| parts.iter().map(|(vni, id)| v1::L2 { id: id.clone(), vni: *vni, ..n.clone() }))
        .collect();
    message.networks.extend(copies);
    let zones: Vec<v1::Zone> = message
        .zones
        .iter()
        .filter(|z| z.network_id == network.id)
        .flat_map(|z| parts.iter().map(|(_, id)| v1::Zone { network_id: id.clone(), ..z.clone() }))
        .collect();
    message.zones.extend(zones);
    for router in &mut message.routers {
        let legs: Vec<v1::RouterInterface> = router
            .interfaces
            .iter()
            .filter(|i| i.network_id == network.id)
            .flat_map(|i| parts.iter().map(|(_, id)| v1::RouterInterface { network_id: id.clone(), ..i.clone() }))
            .collect();
        router.interfaces.extend(legs);
    }
    // Here: a part's ports are seen by the network, its promiscuous ports by every part.
    let (mut inside, mut open) = (Vec::new(), Vec::new());
    for port in message.ports.iter_mut().filter(|p| p.network_id == network.id) {
        match reach.local.get(&port.id).and_then(|p| vni_of(network, p)) {
            Some(vni) => {
                port.network_id = part_id(network, vni);
                inside.push(port.id.clone());
            }
            None => open.push(port.id.clone()),
        }
    }
    let view = |network_id: &str, ports: &[String], apart: bool| v1::View {
        network_id: network_id.to_owned(),
        ports: ports.to_vec(),
        apart,
    };
    message.views.push(view(&network.id, &inside, false));
    message.views.extend(parts.iter().map(|(vni, id)| view(id, &open, Some(*vni) == isolated)));
}

/// The network that a part belongs to, itself if it is none.
pub fn whole_of(part: &str) -> &str {
    part.split('/').next().unwrap_or(part)
}

/// Where a port is seen: the network knows all, a community its own and the promiscuous, the isolated only the promiscuous.
pub fn seen_in(network: Option<&VirtualNetwork>, port: &Port) -> Vec<String> {
    let mut seen = vec![port.network_id.clone()];
    if let Some(network) = network.filter(|network| network.pvlan) {
        let (of, isolated) = (vni_of(network, port), network.parts.get(crate::network::private::ISOLATED).copied());
        let sees = |vni: &&u32| of.is_none() || (of == Some(**vni) && of != isolated);
        seen.extend(network.parts.values().filter(sees).map(|vni| part_id(network, *vni)));
    }
    seen
}
