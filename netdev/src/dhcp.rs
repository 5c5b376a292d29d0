//! DHCPv4 from the wanted state: there is no lease file and no process per network, since every answer is
//! known before it is asked.
//!
//! ```text
//!   guest --DHCP--> from_guest: rate limit, destination := 02:70:<ifindex> --> agent1 --> one packet socket
//!   tap <-- to_guest (mark of the agent: passes) <-- packet socket <-- answer(binding, request)
//! ```
//! A request is hostile input: it is read with bounds, must come from the port's own hardware address, and a
//! wrong one gets a NAK or silence, never another port's data.
use crate::question::Question4;
use crate::resolver::RESOLVER_ADDRESS;
use crate::switch::SERVICE_MAC;
use crate::wanted::{Network, Port, Subnet, Wanted, Zone};
use dhcproto::v4::MessageType;
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Old boot ROMs want at least this much (RFC 951 with vendor area).
const MESSAGE_MIN: usize = 300;
/// What fits in any network that we give out, headers included.
const MESSAGE_MAX: usize = 1200;

/// All that a port's DHCP client may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub port: String,
    pub mac: [u8; 6],
    pub address: Ipv4Addr,
    pub server: Ipv4Addr,
    pub lease_seconds: u32,
    /// Options by code, encoded, in the order they are sent.
    pub options: Vec<(u8, Vec<u8>)>,
}

/// The bindings of all ports, by interface index.
#[must_use]
pub fn bindings(wanted: &Wanted, devices: &BTreeMap<String, u32>) -> HashMap<u32, Arc<Binding>> {
    let networks: HashMap<&str, &Network> = wanted.networks.iter().map(|n| (n.id.as_str(), n)).collect();
    let zones: HashMap<&str, &Zone> = wanted.zones.iter().map(|z| (z.network.as_str(), z)).collect();
    let mut out = HashMap::new();
    for port in wanted.ports.iter().filter(|p| p.up) {
        let Some(network) = networks.get(port.network.as_str()) else { continue };
        if let (Some(ifindex), Some(binding)) =
            (devices.get(&port.id), binding(port, network, zones.get(port.network.as_str()).copied()))
        {
            out.insert(*ifindex, Arc::new(binding));
        }
    }
    out
}

fn binding(port: &Port, network: &Network, zone: Option<&Zone>) -> Option<Binding> {
    let (subnet, address) = port.fixed.iter().find_map(|f| {
        let subnet = network.subnets.iter().find(|s| s.id == f.subnet && s.dhcp)?;
        match f.address {
            IpAddr::V4(ip) => Some((subnet, ip)),
            IpAddr::V6(_) => None,
        }
    })?;
    let IpNet::V4(cidr) = subnet.cidr else { return None };
    Some(Binding {
        port: port.id.clone(),
        mac: port.mac.0,
        address,
        server: subnet.dhcp_server.unwrap_or(METADATA),
        lease_seconds: subnet.lease_seconds.max(60),
        options: options(port, network, subnet, zone, cidr),
    })
}

fn v4(ip: Option<IpAddr>) -> Option<Ipv4Addr> {
    ip.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None })
}

/// Name servers that the guest is told: the subnet's, or this host. A subnet whose name server is 0.0.0.0 has none.
fn name_servers(subnet: &Subnet, zone: Option<&Zone>) -> Vec<Ipv4Addr> {
    let mut own: Vec<Ipv4Addr> = subnet.dns.iter().filter_map(|d| v4(Some(*d))).collect();
    if own.is_empty() && zone.is_some() {
        return vec![RESOLVER_ADDRESS];
    }
    own.retain(|ip| !ip.is_unspecified());
    own
}

fn options(port: &Port, network: &Network, subnet: &Subnet, zone: Option<&Zone>, cidr: Ipv4Net) -> Vec<(u8, Vec<u8>)> {
    let gateway = v4(subnet.gateway);
    let mut out = vec![(1, cidr.netmask().octets().to_vec())];
    let servers = name_servers(subnet, zone);
    let dns: Vec<u8> = servers.iter().flat_map(Ipv4Addr::octets).collect();
    let mut services = Vec::new();
    services.extend(port.metadata.then_some(METADATA));
    services.extend(zone.is_some().then_some(RESOLVER_ADDRESS));
    let routes = classless_routes(&services, subnet, gateway);
    if let Some(gateway) = gateway {
        out.push((3, gateway.octets().to_vec()));
    }
    if !dns.is_empty() {
        out.push((6, dns));
    }
    let hostname: String =
        port.hostname.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').take(63).collect();
    if !hostname.is_empty() {
        out.push((12, hostname.into_bytes()));
    }
    let domain = zone.map(|z| z.domain.trim_end_matches('.')).filter(|d| !d.is_empty());
    out.extend(domain.map(|d| (15, d.as_bytes().to_vec())));
    out.push((26, network.mtu.max(68).to_be_bytes().to_vec()));
    out.push((28, cidr.broadcast().octets().to_vec()));
    if !routes.is_empty() {
        out.push((121, routes));
    }
    for (code, value) in &port.dhcp_options {
        // What the protocol itself lives on is not the caller's to change.
        if !matches!(code, 0 | 50..=58 | 61 | 82 | 255) {
            out.retain(|(c, _)| c != code);
            out.push((*code, value.clone()));
        }
    }
    out
}

/// Option 121. It makes a client ignore option 3, so the default route is repeated in it.
fn classless_routes(services: &[Ipv4Addr], subnet: &Subnet, gateway: Option<Ipv4Addr>) -> Vec<u8> {
    let mut routes: Vec<(Ipv4Net, Ipv4Addr)> = subnet
        .routes
        .iter()
        .filter_map(|r| match (r.destination, r.nexthop) {
            (IpNet::V4(to), IpAddr::V4(via)) => Some((to.trunc(), via)),
            _ => None,
        })
        .collect();
    // Where this host has no address of the subnet, its services are on the link.
    let via = subnet.dhcp_server.unwrap_or(Ipv4Addr::UNSPECIFIED);
    routes.extend(services.iter().map(|service| (Ipv4Net::from(*service), via)));
    if routes.is_empty() {
        return Vec::new();
    }
    if let Some(gateway) = gateway
        && !routes.iter().any(|(to, _)| to.prefix_len() == 0)
    {
        routes.push((Ipv4Net::default(), gateway));
    }
    let mut out = Vec::new();
    for (to, via) in routes {
        out.push(to.prefix_len());
        out.extend(to.addr().octets().iter().take(usize::from(to.prefix_len().div_ceil(8))));
        out.extend(via.octets());
    }
    out
}

/// The interface that a punted frame came from.
#[must_use]
pub fn source_of(frame: &[u8]) -> Option<u32> {
    let mac = frame.first_chunk::<6>()?;
    (mac[..2] == [0x02, 0x70]).then(|| u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]))
}

/// The DHCP message in a frame: Ethernet, IPv4, UDP to port 67, nothing cut.
#[must_use]
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..)?;
    let header = usize::from(ip.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes(*ip.get(2..)?.first_chunk()?));
    let fragment = u16::from_be_bytes(*ip.get(6..)?.first_chunk()?) & 0x3fff;
    if ip[0] >> 4 != 4 || header < 20 || fragment != 0 || ip.get(9) != Some(&17) {
        return None;
    }
    let udp = ip.get(header..total)?;
    let length = usize::from(u16::from_be_bytes(*udp.get(4..)?.first_chunk()?));
    if u16::from_be_bytes(*udp.get(2..)?.first_chunk()?) != 67 {
        return None;
    }
    udp.get(8..length)
}

/// The answer to a request, as a frame; `None` for silence.
#[must_use]
pub fn answer(binding: &Binding, request: &[u8]) -> Option<Vec<u8>> {
    // Length and place of the hardware address are checked before the codec sees the rest.
    if request.get(1..3) != Some(&[1, 6]) || request.get(28..34) != Some(&binding.mac) {
        return None;
    }
    let ask = Question4::read(request)?;
    let kind = match MessageType::from(ask.kind) {
        MessageType::Discover => MessageType::Offer,
        MessageType::Inform => MessageType::Ack,
        MessageType::Request => requested(binding, &ask)?,
        _ => return None,
    };
    Some(reply(binding, &ask, kind))
}

/// ACK, NAK or silence for a REQUEST: selecting names a server, rebooting names an address, renewing has it.
fn requested(binding: &Binding, ask: &Question4) -> Option<MessageType> {
    if ask.server.is_some_and(|server| server != binding.server) {
        return None;
    }
    let asked = ask.requested.unwrap_or(ask.ciaddr);
    if asked.is_unspecified() {
        return None;
    }
    Some(if asked == binding.address { MessageType::Ack } else { MessageType::Nak })
}

fn reply(binding: &Binding, ask: &Question4, kind: MessageType) -> Vec<u8> {
    let nak = kind == MessageType::Nak;
    let inform = MessageType::from(ask.kind) == MessageType::Inform;
    let yiaddr = if nak || inform { Ipv4Addr::UNSPECIFIED } else { binding.address };
    let mut m = Vec::with_capacity(MESSAGE_MIN);
    m.extend([2, 1, 6, 0]);
    m.extend(ask.xid.to_be_bytes());
    m.extend([0, 0]);
    m.extend(ask.flags.to_be_bytes());
    m.extend(if nak { [0; 4] } else { ask.ciaddr.octets() });
    m.extend(yiaddr.octets());
    m.extend(if nak { [0; 4] } else { binding.server.octets() });
    m.extend([0; 4]);
    m.extend(binding.mac);
    m.extend([0; 10 + 64 + 128]);
    m.extend([0x63, 0x82, 0x53, 0x63]);
    option(&mut m, 53, &[u8::from(kind)]);
    option(&mut m, 54, &binding.server.octets());
    if !nak {
        if !inform {
            option(&mut m, 51, &binding.lease_seconds.to_be_bytes());
        }
        for (code, value) in &binding.options {
            option(&mut m, *code, value);
        }
    }
    m.push(255);
    m.resize(m.len().max(MESSAGE_MIN), 0);
    let broadcast = nak || (ask.broadcast() && ask.ciaddr.is_unspecified());
    let to = match (broadcast, ask.ciaddr.is_unspecified()) {
        (true, _) => Ipv4Addr::BROADCAST,
        (false, true) => binding.address,
        (false, false) => ask.ciaddr,
    };
    let mac = if broadcast { [0xff; 6] } else { binding.mac };
    frame(binding.server, to, mac, &m)
}

/// Appends an option, in pieces if it is long (RFC 3396); one that does not fit any more is left out.
fn option(message: &mut Vec<u8>, code: u8, value: &[u8]) {
    if message.len() + value.len() + 2 * value.len().div_ceil(255) >= MESSAGE_MAX {
        return;
    }
    for piece in value.chunks(255) {
        message.extend([code, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
        message.extend(piece);
    }
}

fn frame(from: Ipv4Addr, to: Ipv4Addr, mac: [u8; 6], message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let mut ip = vec![0x45, 0xc0];
    ip.extend((length + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = vec![0, 67, 0, 68];
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(message);
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 17], &length.to_be_bytes()].concat();
    let sum = match checksum(&[&pseudo, &udp]) {
        0 => 0xffff,
        s => s,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&mac[..], &SERVICE_MAC, &[8, 0], &ip, &udp].concat()
}

/// The Internet checksum over parts, of which all but the last have even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|p| p.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
