//! What the packet path should do, said a second time and simply: lists instead of tables, no sharing between ports, no
//! epochs, every question asked anew of what is wanted. Nothing ends by time here.
use super::wire::{ACK, Body, FIN, Packet, Part, RST, SYN, TCP, icmp};
use ipnet::IpNet;
use pilvi_netdev::wanted::*;
use std::collections::HashMap;
use std::net::IpAddr;

/// From which side a port sees a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    ToGuest,
    FromGuest,
}

impl Way {
    fn other(self) -> Self {
        if self == Way::ToGuest { Way::FromGuest } else { Way::ToGuest }
    }
}

/// A packet's ports, or what stands for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ends {
    Ports { from: u16, to: u16 },
    Icmp { kind: u8, code: u8, id: u16 },
    Nothing,
}

/// Seen from the port: who asked decides for ICMP, since both may ask with the same identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Ports { protocol: u8, local: (IpAddr, u16), remote: (IpAddr, u16) },
    Echo { local: IpAddr, remote: IpAddr, id: u16, asked: Way },
    Bare { protocol: u8, local: IpAddr, remote: IpAddr },
}

#[derive(Debug, Clone)]
struct Flow {
    first: Way,
    ends: Ends,
    ending: bool,
    cut: bool,
    /// The rules' version when it was last judged.
    version: u32,
}

/// IPv6 tells packets apart without the protocol, and the first fragment says which it is.
type FragmentKey = (String, Way, IpAddr, IpAddr, u16, Option<u8>);

#[derive(Debug, Default)]
pub struct Model {
    flows: HashMap<(String, Key), Flow>,
    fragments: HashMap<FragmentKey, (Ends, u8)>,
}

struct Read {
    ends: Ends,
    protocol: u8,
    flags: u8,
    later: bool,
}

impl Model {
    fn read(&mut self, port: &str, way: Way, p: &Packet) -> Option<Read> {
        let kind = (!p.v6()).then(|| p.protocol());
        let place = |id| (port.to_owned(), way, p.source, p.destination, id, kind);
        if let Part::Later(id) = p.part {
            let (ends, protocol) = *self.fragments.get(&place(id))?;
            return Some(Read { ends, protocol, flags: 0, later: true });
        }
        if p.short {
            return None;
        }
        let (ends, flags) = match &p.body {
            Body::Tcp { from, to, flags } => (Ends::Ports { from: *from, to: *to }, *flags),
            Body::Udp { from, to } => (Ends::Ports { from: *from, to: *to }, 0),
            Body::Icmp { kind, code, id } => (Ends::Icmp { kind: *kind, code: *code, id: *id }, 0),
            Body::Error { kind, code, .. } => (Ends::Icmp { kind: *kind, code: *code, id: 0 }, 0),
            Body::Other(_) => (Ends::Nothing, 0),
        };
        if let Part::First(id) = p.part {
            self.fragments.insert(place(id), (ends, p.protocol()));
        }
        Some(Read { ends, protocol: p.protocol(), flags, later: false })
    }

    /// Whether a guest may send it: read, its own addresses, its groups.
    pub fn sends(&mut self, wanted: &Wanted, port: &Port, mac: [u8; 6], p: &Packet, version: u32) -> bool {
        let Some(read) = self.read(&port.id, Way::FromGuest, p) else { return false };
        if !port.secured {
            return true;
        }
        owns(wanted, port, p.source, mac) && self.admits(wanted, port, Way::FromGuest, p, &read, version)
    }

    /// Whether a guest gets it.
    pub fn gets(&mut self, wanted: &Wanted, port: &Port, p: &Packet, version: u32) -> bool {
        if !port.secured {
            return true;
        }
        let Some(read) = self.read(&port.id, Way::ToGuest, p) else { return false };
        self.admits(wanted, port, Way::ToGuest, p, &read, version)
    }

    fn admits(&mut self, wanted: &Wanted, port: &Port, way: Way, p: &Packet, read: &Read, version: u32) -> bool {
        if !read.later && self.about_a_flow(port, way, p, version) {
            return true;
        }
        let peer = if way == Way::FromGuest { p.destination } else { p.source };
        let protocol = read.protocol;
        let place = key(p.v6(), way, p.source, p.destination, protocol, read.ends).map(|k| (port.id.clone(), k));
        let syn = protocol == TCP && read.flags & (SYN | ACK) == SYN;
        if let Some(flow) = place.as_ref().and_then(|k| self.flows.get_mut(k))
            && !(syn && (flow.ending || flow.cut))
        {
            flow.cut = allowing(wanted, port, flow.first, protocol, peer, flow.ends).is_none();
            flow.version = version;
            flow.ending |= protocol == TCP && read.flags & (FIN | RST) != 0 && !flow.cut;
            return !flow.cut;
        }
        let Some(tracked) = allowing(wanted, port, way, protocol, peer, read.ends) else { return false };
        let asks = match read.ends {
            Ends::Icmp { kind, code, .. } => is_echo(p.v6(), kind, code) && !is_reply(p.v6(), kind),
            _ => read.flags & RST == 0,
        };
        if let Some(place) = place
            && tracked
            && asks
            && !read.later
        {
            let flow = Flow { first: way, ends: read.ends, ending: false, cut: false, version };
            self.flows.insert(place, flow);
        }
        true
    }

    /// An error about a packet of a flow that stands and was judged by the rules of today.
    fn about_a_flow(&self, port: &Port, way: Way, p: &Packet, version: u32) -> bool {
        let Body::Error { about, .. } = &p.body else { return false };
        // IPv6 says in a header of its own that it is a part; what is behind such headers is not looked for.
        let readable = match about.part {
            Part::Whole => true,
            Part::First(_) => !about.v6(),
            Part::Later(_) => false,
        };
        if about.short || about.extended || !readable {
            return false;
        }
        let ends = match &about.body {
            Body::Tcp { from, to, .. } | Body::Udp { from, to } => Ends::Ports { from: *from, to: *to },
            Body::Icmp { kind, code, id } => Ends::Icmp { kind: *kind, code: *code, id: *id },
            Body::Error { .. } => return false,
            Body::Other(_) if about.v6() => return false,
            Body::Other(_) => Ends::Nothing,
        };
        // It went the other way.
        let Some(key) = key(p.v6(), way.other(), about.source, about.destination, about.protocol(), ends) else {
            return false;
        };
        self.flows.get(&(port.id.clone(), key)).is_some_and(|f| !f.cut && f.version == version)
    }
}

fn is_reply(v6: bool, kind: u8) -> bool {
    kind == if v6 { 129 } else { 0 }
}

fn is_echo(v6: bool, kind: u8, code: u8) -> bool {
    code == 0 && if v6 { kind == 128 || kind == 129 } else { kind == 8 || kind == 0 }
}

/// The flow that a packet belongs to; ICMP other than echo belongs to none.
fn key(v6: bool, way: Way, source: IpAddr, destination: IpAddr, protocol: u8, ends: Ends) -> Option<Key> {
    let (local, remote) = if way == Way::FromGuest { (source, destination) } else { (destination, source) };
    Some(match ends {
        Ends::Ports { from, to } => {
            let (mine, other) = if way == Way::FromGuest { (from, to) } else { (to, from) };
            Key::Ports { protocol, local: (local, mine), remote: (remote, other) }
        }
        Ends::Icmp { kind, code, id } if is_echo(v6, kind, code) => {
            let asked = if is_reply(v6, kind) { way.other() } else { way };
            Key::Echo { local, remote, id, asked }
        }
        Ends::Icmp { .. } => return None,
        Ends::Nothing => Key::Bare { protocol, local, remote },
    })
}

/// Whether the port may use the pair of addresses as its own.
pub fn owns(wanted: &Wanted, port: &Port, ip: IpAddr, mac: [u8; 6]) -> bool {
    let speaks6 =
        wanted.networks.iter().any(|n| n.id == port.network && n.subnets.iter().any(|s| s.cidr.addr().is_ipv6()));
    let own =
        mac == port.mac.0 && (port.fixed.iter().any(|f| f.address == ip) || (speaks6 && ip == link_local(port.mac.0)));
    own || port.allowed_pairs.iter().any(|a| a.cidr.contains(&ip) && a.mac.unwrap_or(port.mac).0 == mac)
}

pub fn link_local(mac: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    IpAddr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether any rule of the port's groups allows it, and if so, whether one of those keeps state.
fn allowing(wanted: &Wanted, port: &Port, way: Way, protocol: u8, peer: IpAddr, ends: Ends) -> Option<bool> {
    let mut found = None;
    for group in wanted.groups.iter().filter(|g| port.groups.contains(&g.id)) {
        if group.rules.iter().any(|r| allows(wanted, port, r, way, protocol, peer, ends)) {
            found = Some(found.unwrap_or(false) || group.stateful);
        }
    }
    found
}

fn allows(wanted: &Wanted, port: &Port, rule: &Rule, way: Way, protocol: u8, peer: IpAddr, ends: Ends) -> bool {
    let v6 = rule.family == Family::V6;
    let direction = if rule.direction == Direction::Ingress { Way::ToGuest } else { Way::FromGuest };
    // The older name of ICMP means that of the rule's family.
    let named = rule.protocol.map(|p| if v6 && p == 1 { icmp(true) } else { p });
    let ports = match (&rule.ports, ends) {
        (Ports::Any, _) => true,
        (Ports::Range(low, high), Ends::Ports { to, .. }) => (low..=high).contains(&&to),
        (Ports::Icmp(kind, code), Ends::Icmp { kind: k, code: c, .. }) => {
            *kind == k && code.is_none_or(|code| code == c)
        }
        _ => false,
    };
    let whom = match &rule.peer {
        Peer::Any => true,
        Peer::Cidr(IpNet::V4(net)) => matches!(peer, IpAddr::V4(ip) if net.contains(&ip)),
        Peer::Cidr(IpNet::V6(net)) => matches!(peer, IpAddr::V6(ip) if net.contains(&ip)),
        Peer::Group(id) => member(wanted, &port.network, id, peer),
    };
    direction == way && v6 == peer.is_ipv6() && named.is_none_or(|p| p == protocol) && ports && whom
}

/// Without routers a network is a realm of its own.
fn member(wanted: &Wanted, network: &str, group: &str, ip: IpAddr) -> bool {
    let by_port = |p: &Port| {
        let single = |n: &IpNet| n.addr() == ip && n.prefix_len() == n.max_prefix_len();
        p.network == network
            && p.groups.iter().any(|g| g == group)
            && (p.fixed.iter().any(|f| f.address == ip) || p.allowed_pairs.iter().any(|a| single(&a.cidr)))
    };
    let by_remote =
        |r: &Remote| r.network == network && r.groups.iter().any(|g| g == group) && r.addresses.contains(&ip);
    wanted.ports.iter().any(by_port) || wanted.remotes.iter().any(by_remote)
}
