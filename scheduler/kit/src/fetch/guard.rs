//! What may be reached: the operator's lists, and which addresses are nobody's business.
use super::Refused;
use ipnet::IpNet;
use serde::Deserialize;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};
use url::Url;

/// A list of what is allowed; or, where that is empty, of what is not.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listed<T> {
    pub allowed: Vec<T>,
    pub disallowed: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Listed { allowed: Vec::new(), disallowed: Vec::new() }
    }
}

impl<T: PartialEq> Listed<T> {
    pub fn allow(allowed: impl Into<Vec<T>>) -> Self {
        Listed { allowed: allowed.into(), disallowed: Vec::new() }
    }
    /// With both lists, only what is allowed counts.
    fn pass(&self, value: &T) -> bool {
        if self.allowed.is_empty() { !self.disallowed.contains(value) } else { self.allowed.contains(value) }
    }
}

#[derive(Debug, Clone)]
pub struct Rules {
    pub schemes: Listed<String>,
    pub hosts: Listed<String>,
    pub ports: Listed<u16>,
    /// Networks that may be reached although this machine, or its link, is in them.
    pub networks: Vec<IpNet>,
}

impl Default for Rules {
    fn default() -> Self {
        let schemes = Listed::allow(["http".to_owned(), "https".to_owned()]);
        Rules { schemes, hosts: Listed::default(), ports: Listed::allow([80, 443]), networks: Vec::new() }
    }
}

impl Rules {
    /// Do scheme, host and port pass the lists?
    pub(super) fn pass(&self, url: &Url) -> bool {
        // Whatever the lists say, nothing else is spoken here.
        let spoken = matches!(url.scheme(), "http" | "https");
        let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let port = url.port_or_known_default().unwrap_or_default();
        spoken
            && !host.is_empty()
            && self.schemes.pass(&url.scheme().to_owned())
            && self.hosts.pass(&host)
            && self.ports.pass(&port)
    }

    pub(super) fn may_reach(&self, address: IpAddr) -> bool {
        let address = plain(address);
        self.networks.iter().any(|network| network.contains(&address)) || !(is_inside(address) || is_own(address))
    }
}

/// The address that is really reached: of IPv6 addresses that stand for one of IPv4, that one.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let s = six.segments();
    let four = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match s {
        // Mapped, compatible, translated (RFC 6052 and RFC 8215), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] => four(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => four(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
        [0x64, 0xff9b, 1, .., high, low] => four(high, low),
        [0x2002, high, low, ..] => four(high, low),
        _ => address,
    }
}

/// Loopback, link-local (where clouds keep their metadata), and what is no single machine.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_broadcast() || a.octets()[0] == 0
        }
        IpAddr::V6(a) => {
            a.is_loopback() || a.is_unspecified() || a.is_multicast() || a.is_unicast_link_local() || is_metadata(a)
        }
    }
}

/// `fd00:ec2::254` and `fd20:ce::254`: metadata services that are not link-local.
fn is_metadata(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254])
}

/// An address of this machine. When the machine does not tell its addresses, none is taken for foreign.
fn is_own(address: IpAddr) -> bool {
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return true };
    all.filter_map(|interface| interface.address).any(|own| {
        own.as_sockaddr_in().is_some_and(|four| IpAddr::V4(four.ip()) == address)
            || own.as_sockaddr_in6().is_some_and(|six| IpAddr::V6(six.ip()) == address)
    })
}

/// Gives connections only addresses that may be reached.
#[derive(Debug)]
pub(super) struct Resolver {
    pub rules: Arc<Rules>,
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let rules = self.rules.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| rules.may_reach(a.ip()));
            match (good.is_empty(), bad.first()) {
                (true, Some(refused)) => Err(Refused::Address(refused.ip()).into()),
                _ => Ok(Box::new(good.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> bool {
        Rules::default().may_reach(text.parse().unwrap())
    }

    #[test]
    fn what_only_this_machine_reaches_is_not_reached() {
        for inside in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "fd00:ec2::254",
        ] {
            assert!(!reach(inside), "{inside}");
        }
        for outside in ["192.0.2.1", "10.255.254.253", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(reach(outside), "{outside}");
        }
        let allowed = Rules { networks: vec!["127.0.0.0/8".parse().unwrap()], ..Rules::default() };
        assert!(
            allowed.may_reach("127.0.0.1".parse().unwrap()) && !allowed.may_reach("169.254.169.254".parse().unwrap())
        );
        for own in nix::ifaddrs::getifaddrs().unwrap().filter_map(|i| i.address?.as_sockaddr_in().map(|a| a.ip())) {
            assert!(!reach(&own.to_string()), "{own}");
        }
    }

    #[test]
    fn lists_say_what_passes() {
        let rules = Rules {
            hosts: Listed { allowed: vec![], disallowed: vec!["evil.example".into()] },
            ports: Listed::allow([80, 443, 8080]),
            ..Rules::default()
        };
        let pass = |url: &str| rules.pass(&Url::parse(url).unwrap());
        for good in ["http://a.example/x", "https://a.example", "http://a.example:8080/"] {
            assert!(pass(good), "{good}");
        }
        for bad in [
            "ftp://a.example/x",
            "file:///etc/passwd",
            "http://evil.example./",
            "http://EVIL.example",
            "http://a.example:22/",
        ] {
            assert!(!pass(bad), "{bad}");
        }
        let both = Listed { allowed: vec![1], disallowed: vec![1, 2] };
        assert!(both.pass(&1) && !both.pass(&3));
    }
}
