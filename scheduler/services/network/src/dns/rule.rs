//! Who is published, under which name and with which addresses. Pure.
//!
//! | what | name | published |
//! | --- | --- | --- |
//! | floating IP with a name | its own, in its own domain | always |
//! | floating IP without | its port's, in the domain of the port's network | while it leads to the port |
//! | port | its own, in its own domain or its network's | if one of its subnets says so, or its network is one that the outside reaches: not external, and flat or of several segments |
//!
//! Of a port that has addresses in subnets that say so, only these are published.
use super::{
    model::Entry,
    publish::{Reverse, Settings},
};
use crate::{
    delegation::model::is_bare_address,
    floating_ip::model::FloatingIp,
    network::model::VirtualNetwork,
    port::{model::Port, name},
    subnet::model::Subnet,
};
use std::{collections::BTreeSet, net::IpAddr};

/// Characters of a whole name, without its last dot.
const NAME_MAX: usize = 253;

/// Host and domain as one name: a host with a dot at its end is one already, if it lies in the domain.
fn whole(host: &str, domain: &str) -> Option<String> {
    let whole = name::whole(host, domain);
    let inside = whole.strip_suffix(domain).is_some_and(|left| left.ends_with('.'));
    (!host.is_empty() && !domain.is_empty() && inside && whole.len() <= NAME_MAX + 1).then_some(whole)
}

/// Does the outside reach the network without a router of the cloud's?
fn is_reached(network: &VirtualNetwork) -> bool {
    !network.external && (network.is_physical() || !network.segments.is_empty())
}

fn addresses(port: &Port, network: &VirtualNetwork, subnets: &[Subnet]) -> Vec<IpAddr> {
    let says_so = |id: &str| subnets.iter().any(|s| s.id == id && s.dns_publish_fixed_ip);
    let parsed = |only: bool| {
        let all = port.fixed_ips.iter().filter(|f| !only || says_so(&f.subnet_id));
        // A subnet that waits for its prefix has none yet.
        let all = all.filter(|f| !is_bare_address(&f.ip_address));
        all.filter_map(|f| f.ip_address.parse().ok()).collect::<Vec<_>>()
    };
    let chosen = parsed(true);
    if chosen.is_empty() && is_reached(network) { parsed(false) } else { chosen }
}

pub fn of_port(settings: &Settings, port: &Port, network: &VirtualNetwork, subnets: &[Subnet]) -> BTreeSet<Entry> {
    let domain = name::own_domain(port, network);
    let whole = domain.and_then(|domain| whole(&port.dns_name, &domain));
    settings.entries(whole, &addresses(port, network, subnets))
}

/// `behind`: the port that it leads to, and that port's network.
pub fn of_floating(
    settings: &Settings,
    floating: &FloatingIp,
    behind: Option<(&Port, &VirtualNetwork)>,
) -> BTreeSet<Entry> {
    let whole = if floating.dns_name.is_empty() {
        behind.and_then(|(port, network)| whole(&port.dns_name, &name::network_domain(port, network)?))
    } else {
        whole(&floating.dns_name, &floating.dns_domain)
    };
    let address: Vec<IpAddr> = floating.floating_ip_address.parse().into_iter().collect();
    settings.entries(whole, &address)
}

impl Settings {
    /// Records of one name, as far as they lie in zones that are ours to change.
    fn entries(&self, whole: Option<String>, addresses: &[IpAddr]) -> BTreeSet<Entry> {
        let Some(name) = whole.filter(|name| self.zone_of(name).is_some()) else { return BTreeSet::new() };
        let there = addresses.iter().map(|a| Entry { name: name.clone(), data: a.to_string() });
        let back = addresses.iter().filter(|_| self.reverse.is_some());
        let back = back.map(|a| Entry { name: reverse_name(*a), data: name.clone() });
        there.chain(back).collect()
    }

    /// The zone that a name is in: the longest of the operator's, or what the length of reverse zones says.
    pub fn zone_of(&self, name: &str) -> Option<String> {
        if let Some(labels) = self.reverse.as_ref().and_then(|reverse| reverse.left_out(name)) {
            return name.splitn(labels + 1, '.').last().map(str::to_owned);
        }
        let within = |zone: &&String| {
            name == zone.as_str() || name.strip_suffix(zone.as_str()).is_some_and(|left| left.ends_with('.'))
        };
        self.zones.iter().filter(within).max_by_key(|zone| zone.len()).cloned()
    }
}

impl Reverse {
    /// How many labels stand before the zone in the name of an address.
    fn left_out(&self, name: &str) -> Option<usize> {
        let (labels, zone) = if name.ends_with(V4) {
            (4, usize::from(self.v4 / 8))
        } else if name.ends_with(V6) {
            (32, usize::from(self.v6 / 4))
        } else {
            return None;
        };
        (name.split('.').count() == labels + 3).then_some(labels - zone)
    }
}

const V4: &str = ".in-addr.arpa.";
const V6: &str = ".ip6.arpa.";

/// Where the way back from an address is kept.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}{V4}")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            labels.join(".") + V6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(reverse: Option<Reverse>) -> Settings {
        let zones = vec!["example.org.".to_owned(), "sub.example.org.".to_owned()];
        Settings { zones, reverse, ..Settings::default() }
    }

    #[test]
    fn names_are_whole_and_lie_in_their_domain() {
        assert_eq!(whole("web", "example.org.").as_deref(), Some("web.example.org."));
        assert_eq!(whole("a.b", "example.org.").as_deref(), Some("a.b.example.org."));
        assert_eq!(whole("web.example.org.", "example.org.").as_deref(), Some("web.example.org."));
        assert_eq!(whole("web.example.com.", "example.org."), None);
        assert_eq!(whole("example.org.", "example.org."), None);
        assert_eq!(whole("", "example.org."), None);
        assert_eq!(whole("web", ""), None);
        assert_eq!(whole(&vec!["a".repeat(63); 4].join("."), "example.org."), None);
    }

    #[test]
    fn zones_are_the_longest_that_fit_and_those_of_addresses_follow_from_lengths() {
        let only = settings(None);
        assert_eq!(only.zone_of("web.example.org.").as_deref(), Some("example.org."));
        assert_eq!(only.zone_of("web.sub.example.org.").as_deref(), Some("sub.example.org."));
        assert_eq!(only.zone_of("web.notexample.org."), None);
        let (v4, v6) = (reverse_name("192.0.2.5".parse().unwrap()), reverse_name("2001:db8::5".parse().unwrap()));
        assert_eq!(v4, "5.2.0.192.in-addr.arpa.");
        assert_eq!(v6, "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.");
        assert_eq!((only.zone_of(&v4), only.zone_of(&v6)), (None, None));
        let back = settings(Some(Reverse { v4: 16, v6: 32 }));
        assert_eq!(back.zone_of(&v4).as_deref(), Some("0.192.in-addr.arpa."));
        assert_eq!(back.zone_of(&v6).as_deref(), Some("8.b.d.0.1.0.0.2.ip6.arpa."));
        assert_eq!(back.zone_of("x.in-addr.arpa."), None);
        let address = ["192.0.2.5".parse().unwrap()];
        assert_eq!(back.entries(Some("web.example.org.".into()), &address).len(), 2);
        assert!(back.entries(Some("web.example.net.".into()), &address).is_empty(), "nobody's zone");
        assert!(back.entries(None, &address).is_empty());
    }
}
