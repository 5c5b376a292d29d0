//! Router advertisements (RFC 4861, 8106): each router tells the guests of its legs' networks that it is one, and how
//! they get their addresses. Sent when asked, when something of it changes, and now and then.
//!
//! A prefix that no subnet has any more (it was lent) is said to be over, for as long as this process remembers it: guests
//! that did not hear it once would keep its addresses for hours (RFC 9096).
use crate::ask6::{Binding6, checksum, frame};
use crate::resolver::name_servers6;
use crate::v6::leg6;
use crate::wanted::{Network, Ra, Wanted};
use ipnet::{IpNet, Ipv6Net};
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::SystemTime;

/// Seconds that a router is one without saying so again.
pub(crate) const LIFETIME: u16 = 1800;
const ICMP6: u8 = 58;
const ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const VALID: u32 = 86_400;
const PREFERRED: u32 = 14_400;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;
/// Prefixes that are said to be over.
const GONE_MAX: usize = 8;
/// Name servers that are told.
const DNS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The leg's.
    pub mac: [u8; 6],
    pub mtu: u16,
    /// Addresses, or all else, by DHCPv6.
    pub managed: bool,
    pub other: bool,
    pub prefixes: Vec<Prefix>,
    /// What was among them, and is no subnet's any more.
    pub gone: Vec<Ipv6Net>,
    pub dns: Vec<Ipv6Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub net: Ipv6Net,
    /// Guests make addresses of it.
    pub autonomous: bool,
    /// It is lent, until then (seconds since 1970).
    pub until: Option<u64>,
}

impl Prefix {
    /// Seconds for which it is good, and for which new connections may use it.
    fn lifetimes(self, now: u64) -> (u32, u32) {
        let left = self.until.map_or(u64::MAX, |until| until.saturating_sub(now));
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        (VALID.min(left), PREFERRED.min(left))
    }
}

/// What the first router with a leg in such a subnet of the network says.
pub(crate) fn of(wanted: &Wanted, network: &Network) -> Option<Advertisement> {
    let said = |net: Ipv6Net| {
        network.subnets.iter().find_map(|s| match (s.cidr, s.ra) {
            (IpNet::V6(cidr), Some(ra)) if cidr.contains(&net.addr()) => Some((s, cidr.trunc(), ra)),
            _ => None,
        })
    };
    for router in &wanted.routers {
        let legs = router.interfaces.iter().filter(|l| l.network == network.id);
        let found: Vec<_> = legs.filter_map(|l| Some((l.mac, said(leg6(l)?)?))).collect();
        let Some((mac, _)) = found.first() else { continue };
        let modes = || found.iter().map(|(_, (_, _, ra))| *ra);
        let own = wanted.zones.iter().any(|z| z.network == network.id);
        let mut dns: Vec<Ipv6Addr> = found.iter().flat_map(|(_, (s, ..))| name_servers6(s, own)).collect();
        dns.dedup();
        dns.truncate(DNS_MAX);
        return Some(Advertisement {
            mac: mac.0,
            mtu: network.mtu,
            managed: modes().any(|ra| ra == Ra::Stateful),
            other: modes().any(|ra| ra != Ra::Slaac),
            prefixes: found.iter().map(|(_, (s, cidr, ra))| prefix(wanted, &s.id, *cidr, *ra)).collect(),
            gone: Vec::new(),
            dns,
        });
    }
    None
}

fn prefix(wanted: &Wanted, subnet: &str, net: Ipv6Net, ra: Ra) -> Prefix {
    let until = wanted.lent.iter().find(|l| l.subnet == subnet).map(|l| l.until);
    Prefix { net, autonomous: ra != Ra::Stateful, until }
}

/// What guests of a port were told and no subnet of their network has now.
fn over(wanted: &Wanted, old: &Binding6) -> Vec<Ipv6Net> {
    let network = wanted.ports.iter().find(|p| p.id == old.port).map(|p| &p.network);
    let Some(network) = network.and_then(|id| wanted.networks.iter().find(|n| n.id == *id)) else { return Vec::new() };
    let told = old.ra.iter().flat_map(|ra| ra.prefixes.iter().map(|p| p.net).chain(ra.gone.iter().copied()));
    let there = |net: &Ipv6Net| network.subnets.iter().any(|s| s.cidr.trunc() == IpNet::V6(*net));
    told.filter(|net| !there(net)).take(GONE_MAX).collect()
}

/// Has what is over said by those who say something of the network now.
pub(crate) fn withdraw(wanted: &Wanted, old: &HashMap<u32, Arc<Binding6>>, news: &mut HashMap<u32, Arc<Binding6>>) {
    for (ifindex, binding) in news {
        let Some(before) = old.get(ifindex).filter(|b| b.port == binding.port) else { continue };
        let gone = over(wanted, before);
        if !gone.is_empty()
            && let Some(ra) = &mut Arc::make_mut(binding).ra
        {
            ra.gone = gone;
        }
    }
}

/// The last word of a router that is one no more.
pub(crate) fn farewell(wanted: &Wanted, old: &Binding6) -> Binding6 {
    let (mut last, gone) = (old.clone(), over(wanted, old));
    if let Some(ra) = &mut last.ra {
        ra.prefixes.retain(|p| !gone.contains(&p.net));
        ra.gone = gone;
    }
    last
}

impl Advertisement {
    /// To everybody behind one port. `lifetime` 0: a router no more.
    pub(crate) fn frame(&self, lifetime: u16) -> Vec<u8> {
        let flags = if self.managed { MANAGED } else { 0 } | if self.other { OTHER } else { 0 };
        let mut body = vec![ADVERTISEMENT, 0, 0, 0, 64, flags];
        body.extend(lifetime.to_be_bytes());
        body.extend([0; 8]);
        body.extend([1, 1]);
        body.extend(self.mac);
        body.extend([5, 1, 0, 0]);
        body.extend(u32::from(self.mtu).to_be_bytes());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let said = self.prefixes.iter().map(|p| (p.net, p.autonomous, p.lifetimes(now)));
        for (net, autonomous, (valid, preferred)) in said.chain(self.gone.iter().map(|net| (*net, true, (0, 0)))) {
            body.extend([3, 4, net.prefix_len(), ON_LINK | if autonomous { AUTONOMOUS } else { 0 }]);
            body.extend(valid.to_be_bytes());
            body.extend(preferred.to_be_bytes());
            body.extend([0; 4]);
            body.extend(net.addr().octets());
        }
        if !self.dns.is_empty() {
            body.extend([25, u8::try_from(1 + 2 * self.dns.len()).unwrap_or(1), 0, 0]);
            body.extend(u32::from(LIFETIME).to_be_bytes());
            self.dns.iter().for_each(|d| body.extend(d.octets()));
        }
        let sum = checksum(self.mac, ALL_NODES, ICMP6, &body);
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        frame(self.mac, [0x33, 0x33, 0, 0, 0, 1], ALL_NODES, ICMP6, 255, &body)
    }
}
