//! What a port is called: by its own name or by its address, in its own domain or its network's. Pure.
use super::model::Port;
use crate::{
    dns::model::{Words, has_keywords},
    network::model::VirtualNetwork,
};
use std::borrow::Cow;

/// The domain that guests search, and of networks that have none of their own.
pub const CLOUD: &str = "openstacklocal.";

/// `host-10-0-0-5` for a port without a name.
pub fn host(port: &Port, address: &str) -> String {
    if port.dns_name.is_empty() {
        return format!("host-{}", address.replace(['.', ':'], "-"));
    }
    port.dns_name.clone()
}

/// Name and domain, with the dot at the end; a host that has it already is whole.
pub fn whole(host: &str, domain: &str) -> String {
    if host.ends_with('.') { host.to_owned() } else { format!("{host}.{}.", domain.trim_end_matches('.')) }
}

/// A domain as it is for this port: without keywords, if it has any that are known.
pub fn spelt<'d>(port: &Port, domain: &'d str) -> Option<Cow<'d, str>> {
    match domain {
        "" => None,
        _ if !has_keywords(domain) => Some(Cow::Borrowed(domain)),
        _ => {
            let unknown = || Words { project_id: port.project_id.clone(), ..Words::default() };
            let words = port.dns_words.clone().unwrap_or_else(unknown);
            words.put_into(domain).map(Cow::Owned)
        }
    }
}

/// The domain that the network gives to this port, if it has one.
pub fn network_domain<'d>(port: &Port, network: &'d VirtualNetwork) -> Option<Cow<'d, str>> {
    spelt(port, &network.dns_domain)
}

/// The port's own domain, or what its network gives it.
pub fn own_domain<'d>(port: &'d Port, network: &'d VirtualNetwork) -> Option<Cow<'d, str>> {
    if port.dns_domain.is_empty() { network_domain(port, network) } else { spelt(port, &port.dns_domain) }
}

/// The name that `dns_assignment` shows.
pub fn assigned(port: &Port, network: Option<&VirtualNetwork>, host: &str) -> String {
    let domain = match network {
        Some(network) => own_domain(port, network),
        None => spelt(port, &port.dns_domain),
    };
    whole(host, domain.as_deref().unwrap_or(CLOUD))
}
