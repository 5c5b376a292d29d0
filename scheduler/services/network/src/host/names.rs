//! What guests may find by name: the ports of their own networks, and floating IPs of these that have names. Pure.
//!
//! A host's view says which networks its guests may ask about; the names themselves go with the ports, in the rooms of
//! the networks ([`super::neighbours`]).
use super::reach::Reach;
use crate::{
    delegation::model::is_bare_address,
    dns::model::has_keywords,
    floating_ip::model::FloatingIp,
    network::model::VirtualNetwork,
    port::{model::Port, name},
};
use pilvi_agent_api::v1;
use std::collections::BTreeSet;

/// Zones of the host's guests, still without names.
pub fn zones(reach: &Reach) -> Vec<v1::Zone> {
    let near: BTreeSet<&str> = reach.local.values().map(|p| p.network_id.as_str()).collect();
    let networks = near.into_iter().filter_map(|id| reach.networks.get(id));
    let zone = |network: &VirtualNetwork| v1::Zone {
        network_id: network.id.clone(),
        // A network's own domain is what others call its ports, where they do; guests search the cloud's.
        closed: true,
        domain: name::CLOUD.trim_end_matches('.').to_owned(),
        // With keywords it is another for each port, and none that a zone could have.
        also: if has_keywords(&network.dns_domain) {
            String::new()
        } else {
            network.dns_domain.trim_end_matches('.').to_owned()
        },
        names: Vec::new(),
    };
    networks.map(zone).collect()
}

/// How a port is called, and the floating addresses that lead to it.
pub fn of<'f>(port: &Port, floating: impl Iterator<Item = &'f FloatingIp>) -> Vec<v1::Name> {
    let mut names = of_port(port);
    names.extend(floating.filter(|f| is_named(f)).map(|f| v1::Name {
        name: name::whole(&f.dns_name, &f.dns_domain),
        addresses: vec![f.floating_ip_address.clone()],
    }));
    names
}

pub fn is_named(floating: &FloatingIp) -> bool {
    !floating.dns_name.is_empty() && !floating.dns_domain.is_empty()
}

fn of_port(port: &Port) -> Vec<v1::Name> {
    let domain = name::spelt(port, &port.dns_domain);
    let mut names: Vec<v1::Name> = Vec::new();
    let mut add = |name: String, address: &str| match names.iter_mut().find(|n| n.name == name) {
        Some(known) => known.addresses.push(address.to_owned()),
        None => names.push(v1::Name { name, addresses: vec![address.to_owned()] }),
    };
    for fixed in port.fixed_ips.iter().filter(|f| !is_bare_address(&f.ip_address)) {
        let host = name::host(port, &fixed.ip_address);
        if let Some(domain) = &domain {
            add(name::whole(&host, domain), &fixed.ip_address);
        }
        add(host, &fixed.ip_address);
    }
    names
}
