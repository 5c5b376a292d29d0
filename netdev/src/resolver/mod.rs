//! Names for guests: every host tells its own guests what is called how on their network, and asks the host's name
//! servers about all else.
//!
//! ```text
//!   guest --UDP--> 169.254.169.253:53 --from_guest: its groups, its rate--> station 02:71:<network> --> dns0|dns1 --+
//!          fe80::a9fe:a9fd         (or its router's leg --route to 169.254.169.253--> the same station)              |
//!   tap <--(mark of the agent)-- answer <-- own names: book.rs, answer.rs <--------- packet socket (wire.rs) <-------+
//!                                   ^                                                   serve.rs
//!                                   +-- forward.rs: the host's name servers, asked from the host's own namespace
//!                                   |
//!   guest --TCP--> the same addresses --source := name of the port--> agent0 --> the node's stack --> stream.rs
//! ```
//! The address is the same on every network, so DHCP can say it without anybody keeping an address free for it; the
//! station's hardware address says which network a question came from, even where tenants' addresses overlap.
//! By IPv6 it is a link-local address, which every guest of the link reaches without a route. What guests send is hostile: it
//! is read by a bounded parser, each port has a rate in the packet path, a rate here, a share of the questions that are under
//! way and of the connections, and a network's names are told to that network alone.
//!
//! What does not fit into a datagram is cut and says so: whoever wants it all asks by TCP. Nothing is kept: the host's name
//! servers do.
mod answer;
mod book;
mod forward;
mod rate;
mod serve;
mod stream;
mod upstream;
mod wire;

pub(crate) use book::{Shelf, book};
pub(crate) use rate::Rates;
pub(crate) use serve::{Forwarders, Resolver, socket};
pub(crate) use stream::{Streams, addresses as stream_addresses};

use crate::error::{Error, Result};
use crate::netlink::{Change, Netlink};
use crate::picture::Picture;
use crate::router::{leg_net, router_name};
use crate::table::{Bytes, Hop, Table, put};
use crate::wanted::Subnet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where guests ask.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// The same by IPv6, on every link.
pub const RESOLVER_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fd);
/// Where it listens.
const PORT: u16 = 53;
/// What programs give to `dns0` comes out of `dns1`, where the packet socket is.
const NAMES_LINK: &str = "dns0";
const NAMES_END: &str = "dns1";

/// The station of a network's resolver.
pub(crate) fn station(vni: u32) -> [u8; 6] {
    let [a, b, c, d] = vni.to_be_bytes();
    [0x02, 0x71, a, b, c, d]
}

/// The network whose resolver a frame was sent to.
fn network_of(mac: [u8; 6]) -> Option<u32> {
    (mac[..2] == [0x02, 0x71]).then(|| u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]))
}

/// IPv6 name servers that guests of a subnet are told: its own, or where it has none the host that knows the network's
/// `names`. A subnet whose name server is `::` has none.
pub(crate) fn name_servers6(subnet: &Subnet, names: bool) -> Vec<Ipv6Addr> {
    let v6 = |ip: &IpAddr| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None };
    if subnet.dns.is_empty() && names {
        return vec![RESOLVER_ADDRESS6];
    }
    subnet.dns.iter().filter_map(v6).filter(|ip| !ip.is_unspecified()).collect()
}

/// Makes the link unless it is there; gives the indexes of both ends.
pub(crate) fn link(netlink: &mut Netlink) -> Result<(u32, u32)> {
    if netlink.link(NAMES_LINK)?.is_none() {
        netlink.create_veth(NAMES_LINK, NAMES_END, None)?;
    }
    let mut index = |name: &str| -> Result<u32> {
        let index = netlink.link(name)?.ok_or_else(|| Error::NoPort(name.into()))?.index;
        netlink.change(index, &Change { up: Some(true), no_arp: true, ..Change::default() })?;
        Ok(index)
    };
    Ok((index(NAMES_LINK)?, index(NAMES_END)?))
}

/// A question as it comes in.
pub(crate) enum Spoken<'q> {
    Frame(&'q [u8]),
    /// From the port with that name.
    Connection(u32, &'q [u8]),
}

/// What goes back, or what others would be asked: all of a question's way but sockets and rates.
pub(crate) fn spoken(shelf: &Shelf, question: Spoken<'_>) -> Option<Vec<u8>> {
    let book = shelf.read().clone();
    match question {
        Spoken::Frame(frame) => {
            let asked = wire::read(frame)?;
            let client = book.client(asked.vni, asked.mac, asked.address)?.clone();
            let id = asked.message.first_chunk::<2>().map_or(0, |id| u16::from_be_bytes(*id));
            let to = forward::Asker { to: client.mac, address: asked.address, port: asked.port, id, client };
            match answer::judge(&to.client.names, asked.message, answer::Transport::Datagram) {
                answer::Verdict::Silence => None,
                answer::Verdict::Answer(answer) => Some(wire::frame(&to, &answer)),
                answer::Verdict::Ask(question) => Some(question),
            }
        }
        Spoken::Connection(name, message) => {
            match answer::judge(&book.named(name)?.names, message, answer::Transport::Stream) {
                answer::Verdict::Silence => None,
                answer::Verdict::Answer(bytes) | answer::Verdict::Ask(bytes) => Some(bytes),
            }
        }
    }
}

/// What the asker of a question of ours is told when a server says this; `None`: it is no answer to it.
pub(crate) fn heard(question: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    forward::answers(question, message).then(|| answer::cut(message, answer::room(question)))
}

/// Rows by which guests reach their resolver: on the link, by the address that DHCP is said to come from where no
/// router has it, and through routers.
pub(crate) fn draw(picture: &mut Picture<'_>, resolver_if: u32) {
    let wanted = picture.wanted;
    if resolver_if == 0 {
        return;
    }
    let hop = Hop::Local(resolver_if);
    for zone in &wanted.zones {
        let Some(&network) = picture.networks.get(zone.network.as_str()) else { continue };
        let (vni, mac) = (network.vni, station(network.vni));
        put(&mut picture.tables, Table::Stations, Bytes::new().u32(vni).mac(mac), hop.bytes(mac));
        let key = Bytes::new().u32(vni).raw(&RESOLVER_ADDRESS6.octets());
        put(&mut picture.tables, Table::Addresses6, key, hop.bytes(mac));
        let legs = || wanted.routers.iter().flat_map(|r| &r.interfaces).filter(|l| l.network == network.id);
        let servers = network.subnets.iter().filter(|s| s.dhcp).filter_map(|s| s.dhcp_server);
        let free = servers.filter(|s| !legs().any(|l| l.address == *s));
        for ip in free.chain([RESOLVER_ADDRESS]) {
            put(&mut picture.tables, Table::Addresses, Bytes::new().u32(vni).ip(ip), hop.bytes(mac));
        }
    }
    for router in &wanted.routers {
        let known = |network: &str| wanted.zones.iter().any(|z| z.network == network);
        let leg = router.interfaces.iter().find(|l| known(&l.network) && leg_net(l).is_some());
        let Some((leg, (address, _))) = leg.and_then(|l| Some((l, leg_net(l)?))) else { continue };
        let Some(&network) = picture.networks.get(leg.network.as_str()) else { continue };
        let none = Ipv4Addr::UNSPECIFIED;
        let key = Bytes::new().u32(64 + 32).u64(router_name(&router.id)).ip(RESOLVER_ADDRESS);
        let row = Bytes::new().u32(1).u32(network.vni).ip(none).ip(address).ip(none).raw(&leg.mac.0).u16(network.mtu);
        // Whatever scope a guest is in, it asks its own host.
        put(&mut picture.tables, Table::Routes, key, row.u32(0));
    }
}
