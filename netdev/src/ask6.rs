//! What the agent answers to a port's IPv6 questions: who is a router, and DHCPv6. Known before it is asked, as with
//! DHCPv4.
//!
//! ```text
//!   guest --RS, DHCPv6--> from_guest: rate limit, destination := 02:70:<ifindex> --> agent1 --> packet socket
//!   tap <-- (mark of the agent) <-- router advertisement (ra.rs), DHCPv6 answer (dhcp6.rs)
//! ```
use crate::dhcp6::{self, Dhcp6};
use crate::ra::{self, Advertisement};
use crate::v6::link_local;
use crate::wanted::{Network, Port, Wanted};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;
use std::sync::Arc;

const UDP: u8 = 17;
const ICMP6: u8 = 58;
const HEADER: usize = 40;
const ROUTER_SOLICITATION: u8 = 133;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding6 {
    pub port: String,
    pub mac: [u8; 6],
    pub ra: Option<Advertisement>,
    pub dhcp: Option<Dhcp6>,
}

/// The bindings of all ports that have something to ask, by interface index.
#[must_use]
pub fn bindings(wanted: &Wanted, devices: &BTreeMap<String, u32>) -> HashMap<u32, Arc<Binding6>> {
    let networks: HashMap<&str, &Network> = wanted.networks.iter().map(|n| (n.id.as_str(), n)).collect();
    let binding = |port: &Port| {
        let binding = binding(wanted, port, networks.get(port.network.as_str())?)?;
        Some((*devices.get(&port.id)?, Arc::new(binding)))
    };
    wanted.ports.iter().filter(|p| p.up).filter_map(binding).collect()
}

/// Whether the agent answers anything of this port's.
pub(crate) fn answers6(wanted: &Wanted, port: &Port, network: &Network) -> bool {
    binding(wanted, port, network).is_some()
}

fn binding(wanted: &Wanted, port: &Port, network: &Network) -> Option<Binding6> {
    let names = wanted.zones.iter().any(|z| z.network == network.id);
    let (ra, dhcp) = (ra::of(wanted, network), dhcp6::of(port, network, names));
    (ra.is_some() || dhcp.is_some()).then(|| Binding6 { port: port.id.clone(), mac: port.mac.0, ra, dhcp })
}

/// The answer to a frame, as a frame; `None` for silence.
#[must_use]
pub fn answer(binding: &Binding6, frame: &[u8]) -> Option<Vec<u8>> {
    let ip = frame.get(14..)?;
    let (head, body) = (ip.get(..HEADER)?, ip.get(HEADER..)?);
    // Neither question comes with extension headers.
    let body = body.get(..usize::from(u16::from_be_bytes([head[4], head[5]])))?;
    let from = Ipv6Addr::from(*head.get(8..24)?.first_chunk::<16>()?);
    match head[6] {
        ICMP6 if body.first() == Some(&ROUTER_SOLICITATION) && head[7] == 255 => {
            binding.ra.as_ref().map(|ra| ra.frame(ra::LIFETIME))
        }
        UDP => {
            let dhcp = binding.dhcp.as_ref()?;
            let length = usize::from(u16::from_be_bytes(*body.get(4..)?.first_chunk()?));
            if u16::from_be_bytes(*body.get(2..)?.first_chunk()?) != 547 || !from.is_unicast_link_local() {
                return None;
            }
            let reply = dhcp6::answer(dhcp, body.get(8..length)?)?;
            Some(dhcp6::frame(binding.mac, from, &reply))
        }
        _ => None,
    }
}

/// An IPv6 frame from `mac`'s own link-local address.
pub(crate) fn frame(mac: [u8; 6], to_mac: [u8; 6], to: Ipv6Addr, next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    frame_from((link_local(crate::wanted::Mac(mac)), mac), (to, to_mac), next, hops, body)
}

fn frame_from(from: (Ipv6Addr, [u8; 6]), to: (Ipv6Addr, [u8; 6]), next: u8, hops: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, hops], &from.0.octets(), &to.0.octets()].concat();
    [&to.1[..], &from.1, &[0x86, 0xdd], &head, body].concat()
}

/// A frame of ICMPv6 from one address to another, each with its hardware address; the checksum's place in `body` is zero.
pub(crate) fn icmp6(from: (Ipv6Addr, [u8; 6]), to: (Ipv6Addr, [u8; 6]), mut body: Vec<u8>) -> Vec<u8> {
    let sum = sum(from.0, to.0, ICMP6, &body);
    body.get_mut(2..4).unwrap_or_default().copy_from_slice(&sum.to_be_bytes());
    frame_from(from, to, ICMP6, 255, &body)
}

/// The checksum of ICMPv6 or UDP; its place in `body` is zero.
pub(crate) fn checksum(mac: [u8; 6], to: Ipv6Addr, next: u8, body: &[u8]) -> u16 {
    sum(link_local(crate::wanted::Mac(mac)), to, next, body)
}

fn sum(from: Ipv6Addr, to: Ipv6Addr, next: u8, body: &[u8]) -> u16 {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let pseudo = [&from.octets()[..], &to.octets(), &length.to_be_bytes(), &[0, 0, 0, next]].concat();
    crate::dhcp::checksum(&[&pseudo, body])
}

#[cfg(test)]
#[path = "ask6_tests.rs"]
mod tests;
