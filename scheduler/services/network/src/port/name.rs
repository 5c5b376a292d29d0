//! What a port is called: by its own name or by its address, in its own domain or its network's. Pure.
use super::model::Port;
use crate::network::model::VirtualNetwork;

/// The domain that guests search, and of networks that have none of their own.
pub const CLOUD: &str = "openstacklocal.";

fn domain_of(network: &VirtualNetwork) -> &str {
    if network.dns_domain.is_empty() { CLOUD } else { &network.dns_domain }
}

/// `host-10-0-0-5` for a port without a name.
pub fn host(port: &Port, address: &str) -> String {
    if port.dns_name.is_empty() {
        return format!("host-{}", address.replace(['.', ':'], "-"));
    }
    port.dns_name.clone()
}

/// Name and domain, with the dot at the end.
pub fn whole(host: &str, domain: &str) -> String {
    format!("{}.{}.", host.trim_end_matches('.'), domain.trim_end_matches('.'))
}

/// The name that `dns_assignment` shows.
pub fn assigned(port: &Port, network: Option<&VirtualNetwork>, host: &str) -> String {
    let domain = if port.dns_domain.is_empty() { network.map_or(CLOUD, domain_of) } else { &port.dns_domain };
    whole(host, domain)
}
