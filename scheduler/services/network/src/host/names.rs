//! What a host's guests may find by name: the ports of their own networks, and floating IPs of these that have names.
use super::reach::Reach;
use crate::port::{model::Port, name};
use pilvi_agent_api::v1;
use std::collections::BTreeSet;

pub fn zones(reach: &Reach) -> Vec<v1::Zone> {
    let near: BTreeSet<&str> = reach.local.values().map(|p| p.network_id.as_str()).collect();
    let networks = near.into_iter().filter_map(|id| reach.networks.get(id));
    networks
        .map(|network| {
            let ports = || reach.ports.values().filter(|p| p.network_id == network.id && is_named(p));
            let floating = reach.named.values().filter_map(|f| {
                let port = f.port_id.as_ref().and_then(|id| reach.ports.get(id))?;
                let whole = name::whole(&f.dns_name, &f.dns_domain);
                (port.network_id == network.id)
                    .then(|| v1::Name { name: whole, addresses: vec![f.floating_ip_address.clone()] })
            });
            v1::Zone {
                network_id: network.id.clone(),
                closed: network.dns_domain.is_empty(),
                domain: name::domain_of(network).trim_end_matches('.').to_owned(),
                names: ports().flat_map(of_port).chain(floating).collect(),
            }
        })
        .collect()
}

/// Gateways and floating addresses are nobody's to look for.
fn is_named(port: &Port) -> bool {
    !port.device_owner.starts_with("network:")
}

fn of_port(port: &Port) -> Vec<v1::Name> {
    let mut names: Vec<v1::Name> = Vec::new();
    let mut add = |name: String, address: &str| match names.iter_mut().find(|n| n.name == name) {
        Some(known) => known.addresses.push(address.to_owned()),
        None => names.push(v1::Name { name, addresses: vec![address.to_owned()] }),
    };
    for fixed in &port.fixed_ips {
        let host = name::host(port, &fixed.ip_address);
        if !port.dns_domain.is_empty() {
            add(name::whole(&host, &port.dns_domain), &fixed.ip_address);
        }
        add(host, &fixed.ip_address);
    }
    names
}
