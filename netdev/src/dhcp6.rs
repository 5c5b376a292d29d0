//! DHCPv6 from the wanted state (RFC 8415): the fixed address of a port where guests ask for one, name servers for all.
//!
//! Every answer comes from the same server, whose identifier is that of the hosts' service address. A request is hostile
//! input: it is read within its bounds (question.rs), and nothing of it but identifiers is given back.
use crate::ask6::{checksum, frame as frame6};
use crate::question::Question6;
use crate::resolver::name_servers6;
use crate::switch::SERVICE_MAC;
use crate::wanted::{Network, Port, Ra};
use dhcproto::v6::{DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, Status, StatusCode};
use dhcproto::{Encodable, Encoder};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

const UDP: u8 = 17;
/// Bytes of a client's identifier that are given back (RFC 8415, 11.1).
const DUID_MAX: usize = 130;

/// All that a port's DHCPv6 client may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dhcp6 {
    /// `None`: guests make their own.
    pub address: Option<Ipv6Addr>,
    pub dns: Vec<Ipv6Addr>,
    pub lease_seconds: u32,
}

/// What a port is told: by the first of its subnets that answers. `names`: this host knows the network's names.
pub(crate) fn of(port: &Port, network: &Network, names: bool) -> Option<Dhcp6> {
    port.fixed.iter().find_map(|f| {
        let subnet = network.subnets.iter().find(|s| s.id == f.subnet && s.dhcp && matches!(s.cidr, IpNet::V6(_)))?;
        let IpAddr::V6(address) = f.address else { return None };
        Some(Dhcp6 {
            // Without a router's word the answer is the same: an address for who asks.
            address: (!matches!(subnet.ra, Some(Ra::Slaac | Ra::Stateless))).then_some(address),
            dns: name_servers6(subnet, names),
            lease_seconds: subnet.lease_seconds.max(60),
        })
    })
}

/// DUID-LL of the service's hardware address.
fn server() -> Vec<u8> {
    [&[0, 3, 0, 1][..], &SERVICE_MAC].concat()
}

/// The answer to a message; `None` for silence.
#[must_use]
pub fn answer(binding: &Dhcp6, request: &[u8]) -> Option<Vec<u8>> {
    let ask = Question6::read(request)?;
    let asked = MessageType::from(ask.kind);
    let client = ask.client.filter(|id| id.len() <= DUID_MAX);
    let named = ask.server.map(|id| id == server());
    let rapid = ask.rapid;
    // Who must name us, who must not, and who may not be anonymous (RFC 8415, 16).
    let (kind, addressed) = match (asked, named) {
        (MessageType::Solicit, None) if rapid => (MessageType::Reply, true),
        (MessageType::Solicit, None) => (MessageType::Advertise, true),
        (MessageType::Request | MessageType::Renew, Some(true)) | (MessageType::Rebind, None) => {
            (MessageType::Reply, true)
        }
        (MessageType::Release | MessageType::Decline, Some(true)) | (MessageType::Confirm, None) => {
            (MessageType::Reply, false)
        }
        (MessageType::InformationRequest, None | Some(true)) => (MessageType::Reply, false),
        _ => return None,
    };
    let information = asked == MessageType::InformationRequest;
    if client.is_none() && !information {
        return None;
    }
    // An address is not ours to give: then nothing but a word about it is answered.
    if !information && binding.address.is_none() && asked == MessageType::Solicit && !rapid {
        return None;
    }
    let mut reply = Message::new_with_id(kind, ask.xid);
    let out = reply.opts_mut();
    out.insert(DhcpOption::ServerId(server()));
    client.into_iter().for_each(|id| out.insert(DhcpOption::ClientId(id)));
    if addressed {
        if rapid && kind == MessageType::Reply {
            out.insert(DhcpOption::RapidCommit);
        }
        if let Some((id, _)) = ask.identity {
            out.insert(DhcpOption::IANA(identity(binding, id)));
        }
    } else if !information {
        let has = ask.identity.and_then(|(_, address)| address).filter(|_| asked == MessageType::Confirm);
        out.insert(DhcpOption::StatusCode(confirmed(binding, has)));
    }
    if !binding.dns.is_empty() {
        out.insert(DhcpOption::DomainNameServers(binding.dns.clone()));
    }
    let mut bytes = Vec::new();
    reply.encode(&mut Encoder::new(&mut bytes)).ok()?;
    Some(bytes)
}

fn identity(binding: &Dhcp6, id: u32) -> IANA {
    let mut opts = DhcpOptions::new();
    let life = binding.lease_seconds;
    match binding.address {
        Some(addr) => {
            let none = DhcpOptions::new();
            opts.insert(DhcpOption::IAAddr(IAAddr { addr, preferred_life: life, valid_life: life, opts: none }));
        }
        None => opts.insert(DhcpOption::StatusCode(StatusCode { status: Status::NoAddrsAvail, msg: String::new() })),
    }
    IANA { id, t1: life / 2, t2: life / 5 * 4, opts }
}

/// Success; of a confirmation only if the address is still the port's.
fn confirmed(binding: &Dhcp6, has: Option<Ipv6Addr>) -> StatusCode {
    let still = has.is_none_or(|has| Some(has) == binding.address);
    let status = if still { Status::Success } else { Status::NotOnLink };
    StatusCode { status, msg: String::new() }
}

/// A message to a guest, as a frame.
#[must_use]
pub(crate) fn frame(mac: [u8; 6], to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
    let mut udp = [&547u16.to_be_bytes()[..], &546u16.to_be_bytes(), &length.to_be_bytes(), &[0, 0], message].concat();
    let sum = match checksum(SERVICE_MAC, to, UDP, &udp) {
        0 => 0xffff,
        s => s,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame6(SERVICE_MAC, mac, to, UDP, 64, &udp)
}
