//! Router advertisements (RFC 4861, 8106): each router tells the guests of its legs' networks that it is one, and how
//! they get their addresses. Sent when asked, when something of it changes, and now and then.
use crate::ask6::{checksum, frame};
use crate::resolver::name_servers6;
use crate::v6::leg6;
use crate::wanted::{Network, Ra, Wanted};
use ipnet::{IpNet, Ipv6Net};
use std::net::Ipv6Addr;

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
    /// Prefixes, and whether guests make addresses of them.
    pub prefixes: Vec<(Ipv6Net, bool)>,
    pub dns: Vec<Ipv6Addr>,
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
            prefixes: found.iter().map(|(_, (_, cidr, ra))| (*cidr, *ra != Ra::Stateful)).collect(),
            dns,
        });
    }
    None
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
        for (net, autonomous) in &self.prefixes {
            body.extend([3, 4, net.prefix_len(), ON_LINK | if *autonomous { AUTONOMOUS } else { 0 }]);
            body.extend(VALID.to_be_bytes());
            body.extend(PREFERRED.to_be_bytes());
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
